"""Which store a home uses: the file in it, or a shared one, which the home then remembers.

A command that is told nothing must not write a revocation into a file that nobody reads: once a home was
used with a shared store, that is its store.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

from guard.artifact.replay import ReplayStore, SqliteReplay
from guard.config.private import be_private, make_once
from guard.core.canonical import NotIJson, NotJson, canonical, read
from guard.core.keys import SigningKey
from guard.lineage.abandoned import Lease
from guard.lineage.database import StoreError
from guard.lineage.postgres.address import Address, missing
from guard.lineage.sources import Source, SqliteSource
from guard.lineage.sqlite import SqliteStore
from guard.lineage.store import Store

FILE: Final = "guard.db"
USED: Final = "used.db"
POINTER: Final = "store.json"


class Keys(Protocol):
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

    def serve(self, holder: str, on_failure: Callable[[BaseException], None]) -> None:
        """Remember what decisions read, and be ready to move the inbox into the log. Raises Away."""
        ...

    def settle(self, seconds: float = ...) -> bool:
        """Wait until everything has its place in the log; whether it has. Moves it where nobody else does."""
        ...

    def index(self, conversation: str, seq: int) -> int | None:
        """The place in the log of a conversation's entry, None where it has none yet."""
        ...


class RenewableLease(Lease, Protocol):
    """A lease that may be lost with its session while the process lives."""

    def renew(self) -> None:
        """Owe endings under a new name; the old one's are for whoever takes it over. Raises Away."""
        ...


def replay(store: Store, home: Path) -> ReplayStore:
    """Where used artifacts of others are remembered: by every process that uses the store."""
    return store.replay() if isinstance(store, Replicated) else SqliteReplay(home / USED)


def open_store(home: Keys, *, lax: bool, address: Address | None) -> Store:
    """As `Home.store`, without its key set."""
    address = use(home.path, address)
    if address is not None:
        try:
            from guard.lineage.postgres.store import PostgresStore  # noqa: PLC0415 - for those who use it only
        except ImportError:
            raise missing(str(address)) from None
        if lax:
            address = Address(address.url, address.password_file, address.password_env, lax=True)
        return PostgresStore(address, key=home.checkpoint_key, origin=home.origin)
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


def use(home: Path, address: Address | None) -> Address | None:
    """Where the home's store is: None for the file. A shared one is remembered.

    Raises:
        StoreError: the home uses another one.
    """
    known = used(home)
    if address is None or address == known:
        return known
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
    kept: dict[str, Any] = {"url": address.url}
    if address.password_file is not None:
        kept["password_file"] = str(address.password_file)
    if address.password_env:
        kept["password_env"] = address.password_env
    make_once(pointer, canonical(kept))
    return used(home)


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
