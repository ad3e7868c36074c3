"""Which store a home uses: the file in it, or a shared one, which the home then remembers.

A command that is told nothing must not write a revocation into a file that nobody reads: once a home was
used with a shared store, that is its store.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

from guard.artifact.replay import ReplayStore, SqliteReplay
from guard.config.private import be_private, make_once
from guard.core.canonical import NotIJson, NotJson, canonical, read
from guard.core.errors import Refused
from guard.core.keys import KeySet, SigningKey
from guard.lineage.abandoned import HeldLease
from guard.lineage.database import StoreError
from guard.lineage.postgres.address import Address, missing
from guard.lineage.sources import Source, SqliteSource
from guard.lineage.sqlite import SqliteStore
from guard.lineage.store import Store

FILE: Final = "guard.db"
USED: Final = "used.db"
POINTER: Final = "store.json"


class Keeper(Protocol):
    """What a store is opened with: the home's folder, its checkpoint key and its log's name."""

    @property
    def path(self) -> Path: ...  # noqa: D102
    @property
    def checkpoint_key(self) -> SigningKey: ...  # noqa: D102
    @property
    def origin(self) -> str: ...  # noqa: D102


@runtime_checkable
class Replicated(Store, Protocol):
    """A store that replicas share. It knows by itself who lives, and moves its inbox into the log."""

    def lease(self) -> RenewableLease:
        """Begin to owe endings. Raises Away."""
        ...

    def replay(self) -> ReplayStore:
        """Where every replica remembers used artifacts."""
        ...

    def keys(self, secret: bytes) -> Keys:
        """Public parts of the replicas' artifact keys; `secret` is what every home has."""
        ...

    def serve(self, holder: str, on_failure: Callable[[BaseException], None]) -> None:
        """Remember what decisions read, and be ready to move the inbox into the log. Raises Away."""
        ...

    def settle(self, seconds: float = ...) -> bool:
        """Wait until everything has its place in the log; whether it has. Moves it where nobody else does."""
        ...

    def index(self, conversation: str, seq: int) -> int | None:
        """The place in the log of a conversation's entry, None where it has none yet."""
        ...


class Keys(Protocol):
    """The artifact keys of all replicas, public parts."""

    def say(self, jwk: Mapping[str, Any]) -> None:
        """This replica signs with this key; to be called often. Raises Away."""
        ...

    def known(self) -> list[dict[str, Any]]:
        """The public keys that replicas sign with, as JWKs. Raises Away."""
        ...


class RenewableLease(HeldLease, Protocol):
    """A lease that a process may take anew."""

    def renew(self) -> None:
        """Owe endings under a new name; the old one's are for whoever takes it over. Raises Away."""
        ...

    def was_mine(self, instance: str) -> bool:
        """Whether this process had the name, or has it."""
        ...


def replay(store: Store, home: Path) -> ReplayStore:
    """Where used artifacts of others are remembered: by every process that uses the store."""
    return store.replay() if isinstance(store, Replicated) else SqliteReplay(home / USED)


def public_keys(store: Store, own: KeySet, secret: bytes) -> Callable[[], Mapping[str, Any]]:
    """What an outsider checks artifacts with: the key set of this Guard, or of all that share its store."""
    if not isinstance(store, Replicated):
        return own.jwks
    shared = store.keys(secret)

    def all_of_them() -> Mapping[str, Any]:
        found = {jwk["kid"]: jwk for jwk in own.jwks()["keys"]}
        with contextlib.suppress(Refused):  # its own are right in any case
            found = {jwk["kid"]: jwk for jwk in shared.known()} | found
        return {"keys": [found[kid] for kid in sorted(found)]}

    return all_of_them


def open_store(home: Keeper, *, lax: bool, address: Address | None) -> Store:
    """As `Home.store`, without its key set."""
    known = used(home.path)
    if address is None:
        address = known
    elif address != known:
        _check_new(home.path, known, address)
    if address is not None:
        try:
            from guard.lineage.postgres.store import PostgresStore  # noqa: PLC0415 - for those who use it only
        except ImportError:
            raise missing(str(address)) from None
        at = replace(address, lax=lax)
        store = PostgresStore(at, key=home.checkpoint_key, origin=home.origin)
        try:
            _remember(home.path, address)
        except BaseException:
            store.close()
            raise
        return store
    database = home.path / FILE
    with contextlib.suppress(FileExistsError):  # SQLite's own default lets others read it
        os.close(os.open(database, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    be_private(database, "store", 0o600)
    return SqliteStore(database, key=home.checkpoint_key, origin=home.origin, lax=lax)


def source(home: Path) -> Source:
    """Where an audit reads a home's store. Raises StoreError."""
    address = used(home)
    if address is None:
        return SqliteSource(home / FILE)
    try:
        from guard.lineage.postgres.source import PostgresSource  # noqa: PLC0415 - for those who use it only
    except ImportError:
        raise missing(str(address)) from None
    return PostgresSource(address)


def _check_new(home: Path, known: Address | None, address: Address) -> None:
    """Raises StoreError: the home has a store already, and this is another."""
    pointer = home / POINTER
    if known is not None:
        raise StoreError(
            f"this home uses the store {known}, not {address}",
            where=str(pointer),
            remedy=f"give each store a home of its own; if it only moved, remove {pointer}",
        )
    if (home / FILE).exists():
        raise StoreError(
            "this home has a store of its own, and its record would end here",
            where=str(home / FILE),
            remedy="give the shared store a new home with a copy of `keys`, or leave `store` out",
        )


def _remember(home: Path, address: Address) -> None:
    """From now on it is the home's store. Raises StoreError: somebody else was quicker with another."""
    kept: dict[str, Any] = {"url": address.url}
    if address.password_file is not None:
        kept["password_file"] = str(address.password_file)
    if address.password_env:
        kept["password_env"] = address.password_env
    if not (home / POINTER).exists():
        make_once(home / POINTER, canonical(kept))
    if (known := used(home)) != address:
        _check_new(home, known, address)


def used(home: Path) -> Address | None:
    """The shared store that a home uses, None for the file in it. Raises StoreError."""
    pointer = home / POINTER
    if not pointer.exists():
        return None
    be_private(pointer, "store's address", 0o600)
    try:
        kept = read(pointer.read_bytes())
    except (NotJson, NotIJson) as error:
        raise StoreError(f"not readable: {error}", where=str(pointer)) from None
    match kept:
        case {"url": str(url)} if all(isinstance(value, str) for value in kept.values()):
            file = kept.get("password_file")
            return Address(url, Path(file) if file else None, kept.get("password_env", ""))
        case _:
            raise StoreError("holds no address", where=str(pointer))
