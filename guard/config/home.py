"""A home: a folder of Guard's with its keys (0600 in a 0700 folder), its store and its leases.

What is made here for the first time is made so that two processes that start at once agree.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from guard.artifact.grant import Issuer
from guard.artifact.replay import MemoryReplay
from guard.artifact.verify import Verifier
from guard.config import stores
from guard.config.private import be_private, make_once
from guard.core.canonical import NotIJson, NotJson, b64, canonical, digest, read, unb64
from guard.core.errors import GuardError
from guard.core.keys import KeySet, SigningKey, vkey
from guard.lineage.abandoned import close_abandoned as close_abandoned  # noqa: PLC0414 - handed on
from guard.lineage.entry import Kind
from guard.lineage.log import entry
from guard.lineage.postgres.address import Address
from guard.lineage.sources import Source
from guard.lineage.store import (
    Conflict,
    Effect,
    Outcome,
    Place,
    Recorded,
    SaveSetting,
    Store,
    Transaction,
)

DEFAULT_TENANT: Final = "default"
HOME_VARIABLE: Final = "GUARD_HOME"
_SEED_BYTES: Final = 32
_KEY_SET: Final = "key-set"


def clock() -> int:
    """UNIX milliseconds."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Home:
    """A folder of Guard's, opened.

    Attributes:
        path: the folder.
        name: the issuer's name, `iss` of every artifact.
        artifact_key: signs artifacts.
        checkpoint_key: signs checkpoints; never the artifact key.
        pairwise_secret: 32 bytes behind the pairwise names.
    """

    path: Path
    name: str
    artifact_key: SigningKey
    checkpoint_key: SigningKey
    pairwise_secret: bytes

    @property
    def origin(self) -> str:
        """The log's name."""
        return f"{self.name}/lineage"

    @property
    def vkey(self) -> str:
        """What an outsider checks checkpoints with."""
        return vkey(self.origin, self.checkpoint_key.public.raw)

    @property
    def keys(self) -> KeySet:
        """What an outsider checks artifacts with."""
        return KeySet([self.artifact_key.public])

    def issuer(self) -> Issuer:
        """Whoever signs artifacts here."""
        return Issuer(name=self.name, key=self.artifact_key, pairwise_secret=self.pairwise_secret)

    def gate_verifier(self, audience: str) -> Verifier:
        """The gate's own verifier; the tool server's is another one with another replay store."""
        return Verifier(
            issuer=self.name,
            keys=self.keys,
            audience=audience,
            replay=MemoryReplay(),
            name=f"{self.name}/gate",
            accept_observed=True,
        )

    def store(self, *, lax: bool = False, address: Address | None = None) -> Store:
        """Open the store, made where there is none; its key set is recorded when it is new or changed.

        Args:
            lax: commits do not wait for the disk. For benchmarks only.
            address: where a shared one is; None for the one that this home uses.

        Raises:
            StoreError: it cannot be opened, or it is not the one that this home uses.
        """
        store = stores.open_store(self, lax=lax, address=address)
        state = {"jwks": self.keys.jwks(), "vkey": self.vkey}
        try:
            if store.setting(DEFAULT_TENANT, _KEY_SET) != digest(state):
                record(store, Kind.KEY_SET, state, SaveSetting(_KEY_SET, digest(state)))
        except BaseException:
            store.close()
            raise
        return store

    def source(self) -> Source:
        """Where an audit reads this home's store. Raises StoreError."""
        return stores.source(self.path)


def default_home() -> Path:
    """Where Guard lives unless told otherwise: GUARD_HOME, else ~/.guard."""
    named = os.environ.get(HOME_VARIABLE)
    return Path(named) if named else Path.home() / ".guard"


def open_home(path: Path, *, make: bool = True) -> Home:
    """Open a home; make what is missing, unless `make` is False.

    Raises:
        GuardError: there is none, others can read the keys or the store, or a key file is not one.
    """
    keys = path / "keys"
    if not make and not keys.is_dir():
        raise GuardError(
            "there is no home of Guard's here",
            where=str(path),
            remedy=f"give --home or {HOME_VARIABLE}; `guard run`, `guard pin` and `guard key new` make one",
        )
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        keys.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise GuardError(f"cannot be made: {error.strerror}", where=str(path)) from None
    be_private(keys, "key folder", 0o700)
    name = _secret(keys / "name.json", lambda: {"name": f"guard.local/{os.urandom(8).hex()}"}).get("name")
    pairwise = _secret(keys / "pairwise.json", lambda: {"kty": "oct", "k": b64(os.urandom(_SEED_BYTES))})
    if not isinstance(name, str) or not name:
        raise GuardError("holds no name", where=str(keys / "name.json"))
    return Home(
        path,
        name,
        signing_key(keys / "artifact.json"),
        signing_key(keys / "checkpoint.json"),
        _bytes(pairwise, "k", keys / "pairwise.json"),
    )


def signing_key(path: Path) -> SigningKey:
    """The key in a file that nobody else may read; made where there is none. Raises GuardError."""

    def fresh() -> dict[str, Any]:
        seed = os.urandom(_SEED_BYTES)
        return {**SigningKey.load(seed).public.jwk(), "d": b64(seed)}

    jwk = _secret(path, fresh)
    end = jwk.get("exp")
    if end is not None and type(end) is not int:
        raise GuardError("`exp` is not an integer", where=str(path))
    return SigningKey.load(_bytes(jwk, "d", path), end)


def _bytes(jwk: Mapping[str, Any], member: str, path: Path) -> bytes:
    try:
        value = unb64(jwk[member])
    except (KeyError, TypeError, ValueError, AttributeError):
        value = b""
    if len(value) != _SEED_BYTES:
        raise GuardError(f"`{member}` is not {_SEED_BYTES} bytes of base64url", where=str(path))
    return value


def _secret(path: Path, fresh: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Read a private file, made first where there is none."""
    if not path.exists():
        make_once(path, canonical(fresh()))
    be_private(path, "key file", 0o600)
    try:
        value = read(path.read_bytes())
    except (NotJson, NotIJson) as error:
        raise GuardError(f"not readable: {error}", where=str(path)) from None
    if not isinstance(value, dict):
        raise GuardError("not a JSON object", where=str(path))
    return value


def record(
    store: Store,
    kind: Kind,
    fields: Mapping[str, Any],
    *effects: Effect,
    tenant: str = DEFAULT_TENANT,
) -> Recorded:
    """Append one of the house's own entries, with its effects.

    Raises:
        GuardError: an effect cannot be; it says why.
    """
    transaction = Transaction(Place(tenant), entry(kind, "", fields), clock(), effects=effects)
    outcome: Outcome = store.apply([transaction])[0]
    if isinstance(outcome, Conflict):
        raise GuardError(outcome.what)
    if not isinstance(outcome, Recorded):
        raise GuardError("the store moved meanwhile", remedy="run the command again")
    return outcome
