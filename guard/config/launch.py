"""What a launch says: the policy, who calls, the tool server and its environment."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from guard.artifact.replay import MemoryReplay, ReplayStore
from guard.artifact.verify import Verifier
from guard.config.home import DEFAULT_TENANT, clock
from guard.core.canonical import NotIJson, NotJson, canonical, read, sha256
from guard.core.errors import GuardError, printable
from guard.core.keys import KeySet
from guard.core.model import Principal
from guard.identity.api_keys import authenticate
from guard.lineage.store import Recorded, Store
from guard.policy.cases import load_checked
from guard.policy.fit import check_against
from guard.policy.rules import Policy
from guard.proxy.house import policy_record

KEY_VARIABLE: Final = "GUARD_API_KEY"
PASSED_ON: Final = (
    "HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER",
)  # fmt: skip
"""What a tool server sees of the environment unless more is named."""
MAX_POLICY_BYTES: Final = 1024 * 1024


def cases_beside(policy: Path) -> Path | None:
    """The cases beside a policy: NAME.cases.yaml or NAME.cases.json, the policy's own suffix first."""
    for suffix in dict.fromkeys((policy.suffix, ".yaml", ".json")):
        if (found := policy.with_name(f"{policy.stem}.cases{suffix}")).is_file():
            return found
    return None


def load_policy(path: Path) -> Policy:
    """Read a policy and run the cases beside it.

    Raises:
        GuardError: not a policy, or its cases fail.
    """
    cases = cases_beside(path)
    return load_checked(
        read_file(path), read_file(cases) if cases else None, name=str(path), cases_name=str(cases or "")
    )


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
    """Hold the policy against the pinned tools, and record it if it is new to the store.

    Raises:
        GuardError: a rule that no pinned tool can meet, an older version, or other bytes under the
            same version.
    """
    check_policy(store, policy, definitions, tenant=tenant)
    if store.policy(tenant, policy.ref.id) != (policy.ref.version, policy.ref.sha256):
        (outcome,) = store.apply([policy_record(policy, tenant, clock())])
        if not isinstance(outcome, Recorded):
            raise GuardError("the store moved meanwhile", remedy="run the command again")


def check_policy(
    store: Store, policy: Policy, definitions: Mapping[tuple[str, str], Any], *, tenant: str
) -> None:
    """Hold a policy against the pinned tools, and against what the store has seen of it.

    Raises:
        GuardError: a rule that no pinned tool can meet, an older version, or other bytes under the
            same version.
    """
    check_against(policy, definitions)
    ref, seen = policy.ref, store.policy(tenant, policy.ref.id)
    if seen is not None and (ref.version < seen[0] or (ref.version == seen[0] and ref.sha256 != seen[1])):
        what = (
            f"policy {ref.id} is at version {seen[0]}, version {ref.version} is older"
            if ref.version < seen[0]
            else f"policy {ref.id} version {ref.version} had other bytes"
        )
        raise GuardError(what, where=printable(ref.id), remedy="raise `version` in the policy: it only grows")


def server_name(command: Sequence[str]) -> str:
    """A server's id where the operator gave none: the program's name, and a digest of it and the arguments.

    Where the program lies does not matter: a client may spell its path in another way than a shell.
    """
    program = Path(command[0]).name
    return f"{program}-{sha256(canonical([program, *command[1:]]))[:8]}"


def environment(named: Sequence[str]) -> dict[str, str]:
    """A tool server's whole environment: the few that every program needs, and those named.

    Args:
        named: `NAME` passes Guard's own value on, `NAME=VALUE` gives another.

    Raises:
        GuardError: Guard's own key was named.
    """
    env = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    for item in named:
        name, given, value = item.partition("=")
        if name == KEY_VARIABLE:
            raise GuardError("Guard's own key is never passed on", where=f"--env {KEY_VARIABLE}")
        if given:
            env[name] = value
        elif name in os.environ:
            env[name] = os.environ[name]
    return env


def identity(store: Store, *, role: str | None, principal: str | None) -> tuple[Callable[[], Principal], str]:
    """How the launch says who calls: the API key in the environment, or role and principal.

    Returns: a function that makes the Principal, asked anew at every call; and the tenant.

    Raises:
        GuardError: neither, or both.
    """
    text = os.environ.get(KEY_VARIABLE)
    if text is not None and role is not None:
        raise GuardError(
            f"{KEY_VARIABLE} and --role both say who calls", remedy="keep one: a key has its own role"
        )
    if text is not None:

        def by_key() -> Principal:
            return authenticate(text, store.api_key, clock() // 1000)

        return by_key, by_key().tenant
    if role is None:
        raise GuardError("nobody says who calls", remedy=f"give --role ROLE, or set {KEY_VARIABLE}")
    fixed = Principal(DEFAULT_TENANT, "launch", principal or _user(), role)
    return (lambda: fixed), DEFAULT_TENANT


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return str(os.getuid())


def trusted(
    items: Sequence[str], *, audience: str, replay: ReplayStore | None = None
) -> tuple[Verifier, ...]:
    """Verifiers of artifacts that clients present, one for each trusted issuer.

    Args:
        items: `ISSUER=JWKS-FILE`.
        audience: this Guard's own name: an artifact for anyone else is not believed.
        replay: where their artifacts are remembered; None for the memory of this process.

    Raises:
        GuardError: not of that form, or not a key set.
    """
    verifiers = []
    for item in items:
        issuer, given, file = item.partition("=")
        if not given:
            raise GuardError(
                "is not ISSUER=JWKS-FILE",
                where=f"--trust {printable(item)}",
                remedy="save what `guard jwks` prints at the issuer, and name the file",
            )
        try:
            keys = KeySet.from_jwks(read(read_file(Path(file))))
        except (NotJson, NotIJson) as error:
            raise GuardError(f"not a JWK set: {error}", where=file) from None
        verifiers.append(
            Verifier(
                issuer=issuer, keys=keys, audience=audience, replay=replay or MemoryReplay(), name="parents"
            )
        )
    return tuple(verifiers)
