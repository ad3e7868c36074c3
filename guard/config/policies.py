"""The policies that a launch or a configuration names: read once, signed where that is required, layered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from guard.config.home import clock
from guard.core.canonical import NotIJson, NotJson, read
from guard.core.errors import GuardError, printable
from guard.core.keys import KeySet
from guard.lineage.store import Recorded, Store, Transaction
from guard.policy.cases import load_checked
from guard.policy.fit import check_against
from guard.policy.layers import layered
from guard.policy.rules import Policy
from guard.policy.signing import SUFFIX, Unsigned, check
from guard.proxy.house import policy_record

MAX_POLICY_BYTES: Final = 1024 * 1024
Looks = Mapping[Path, tuple[int, ...] | None]
"""What files look like from outside."""


@dataclass(frozen=True, slots=True)
class Policies:
    """Which policies decide.

    Attributes:
        paths: their files, the highest first.
        keys: the file with the public keys whose signatures count, None where none is named.
        require_signed: whether nothing unsigned loads.
    """

    paths: tuple[Path, ...]
    keys: Path | None = None
    require_signed: bool = False

    def load(self) -> Policy:
        """Read them, each with its cases, and put them above one another.

        Raises:
            GuardError: one is no policy, its cases fail, it is not signed as it must be, or two have one id.
        """
        if self.require_signed and self.keys is None:
            raise GuardError(
                "signed policies are required, and no keys are named",
                where="require_signed",
                remedy="name the keys whose signatures count, in `policy_keys` or with --policy-keys",
            )
        keys = None if self.keys is None else read_keys(self.keys)
        policies = [load_policy(path, keys, require_signed=self.require_signed) for path in self.paths]
        try:
            return layered(policies)
        except ValueError as error:
            raise GuardError(
                str(error), where=" ".join(map(str, self.paths)), remedy="give each policy its own `id`"
            ) from None

    def files(self) -> tuple[Path, ...]:
        """Every file that a change of would change what decides."""
        found: list[Path] = [] if self.keys is None else [self.keys]
        for path in self.paths:
            found += [path, signature_beside(path)]
            if (cases := cases_beside(path)) is not None:
                found.append(cases)
        return tuple(found)


def cases_beside(policy: Path) -> Path | None:
    """The cases beside a policy: NAME.cases.yaml or NAME.cases.json, the policy's own suffix first."""
    for suffix in dict.fromkeys((policy.suffix, ".yaml", ".json")):
        if (found := policy.with_name(f"{policy.stem}.cases{suffix}")).is_file():
            return found
    return None


def signature_beside(policy: Path) -> Path:
    """Where the signature of a policy stands, if it has one."""
    return policy.with_name(policy.name + SUFFIX)


def load_policy(path: Path, keys: KeySet | None = None, *, require_signed: bool = False) -> Policy:
    """Read a policy and run the cases beside it.

    Args:
        path: its file.
        keys: whose signatures count; a signature beside it is then checked, required or not.
        require_signed: whether it must have one.

    Raises:
        GuardError: not a policy, or its cases fail; or not signed though it must be, or signed badly.
    """
    return read_policy(path, read_file(path), keys, require_signed=require_signed)


def read_policy(
    path: Path, data: bytes, keys: KeySet | None = None, *, require_signed: bool = False
) -> Policy:
    """As `load_policy`, of bytes that were read from `path`: what was signed is what is read."""
    beside = signature_beside(path)
    if keys is not None and (require_signed or beside.exists()):
        if not beside.is_file():
            raise Unsigned(
                "is not signed, and must be",
                where=printable(str(path)),
                remedy=f"guard policy sign {path} --key KEY",
            )
        check(data, read_file(beside), keys, name=str(path))
    cases = cases_beside(path)
    return load_checked(
        data, read_file(cases) if cases else None, name=str(path), cases_name=str(cases or "")
    )


def read_keys(path: Path) -> KeySet:
    """A JWK set (RFC 7517) of public keys, without those that have ended. Raises GuardError."""
    try:
        keys, now = KeySet.from_jwks(read(read_file(path))), clock() // 1000
        return KeySet(key for key in keys if key.not_after is None or now < key.not_after)
    except (NotJson, NotIJson) as error:
        raise GuardError(f"not a JWK set: {error}", where=printable(str(path))) from None


def read_file(path: Path) -> bytes:
    """A policy's, cases' or key set's bytes, at most MAX_POLICY_BYTES. Raises GuardError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_POLICY_BYTES + 1)
    except OSError as error:
        raise GuardError(
            f"cannot be read: {error.strerror}",
            where=printable(str(path)),
            remedy="give the path of a file that you may read",
        ) from None
    if len(data) > MAX_POLICY_BYTES:
        raise GuardError(f"larger than {MAX_POLICY_BYTES} bytes", where=str(path))
    return data


def adopt_policy(
    store: Store, policy: Policy, definitions: Mapping[tuple[str, str], Any], *, tenant: str
) -> None:
    """Hold the policy against the pinned tools, and record each layer that is new to the store.

    Raises:
        GuardError: a rule that no pinned tool can meet, an older version, or other bytes under the
            same version.
    """
    check_policy(store, policy, definitions, tenant=tenant)
    for record in news(store, policy, tenant):
        (outcome,) = store.apply([record])
        if not isinstance(outcome, Recorded):
            raise GuardError("the store moved meanwhile", remedy="run the command again")


def news(store: Store, policy: Policy, tenant: str) -> list[Transaction]:
    """What is to be recorded of a policy's layers: those that the store does not know so."""
    return [
        policy_record(layer, tenant, clock())
        for layer in policy.layers
        if store.policy(tenant, layer.ref.id) != (layer.ref.version, layer.ref.sha256)
    ]


def check_policy(
    store: Store, policy: Policy, definitions: Mapping[tuple[str, str], Any], *, tenant: str
) -> None:
    """Hold each layer against the pinned tools, and against what the store has seen of it.

    Raises:
        GuardError: a rule that no pinned tool can meet, an older version, or other bytes under the
            same version.
    """
    for layer in policy.layers:
        check_against(layer, definitions)
        _check_version(store, layer, tenant)


def _check_version(store: Store, layer: Policy, tenant: str) -> None:
    ref, seen = layer.ref, store.policy(tenant, layer.ref.id)
    if seen is not None and (ref.version < seen[0] or (ref.version == seen[0] and ref.sha256 != seen[1])):
        what = (
            f"policy {ref.id} is at version {seen[0]}, version {ref.version} is older"
            if ref.version < seen[0]
            else f"policy {ref.id} version {ref.version} had other bytes"
        )
        raise GuardError(what, where=printable(ref.id), remedy="raise `version` in the policy: it only grows")


def reads(paths: Sequence[Path]) -> Looks:
    """What a file looks like from outside, of each; None for one that is not there.

    Its size, its times of change (nanoseconds) and its inode: a file that another took the place of is
    another, whatever time it was given.
    """
    found: dict[Path, tuple[int, ...] | None] = {}
    for path in paths:
        try:
            about = path.stat()
        except OSError:
            found[path] = None
        else:
            found[path] = (about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino)
    return found
