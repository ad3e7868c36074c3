"""What a launch says: who calls, the tool server and its environment, whose artifacts are believed."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from guard.artifact.replay import MemoryReplay, ReplayStore
from guard.artifact.verify import Verifier
from guard.config.home import DEFAULT_TENANT, clock
from guard.config.policies import read_keys
from guard.core.canonical import canonical, sha256
from guard.core.errors import GuardError, printable
from guard.core.model import Principal
from guard.identity.api_keys import authenticate
from guard.lineage.store import Store

KEY_VARIABLE: Final = "GUARD_API_KEY"
PASSED_ON: Final = (
    "HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER",
)  # fmt: skip
"""What a tool server sees of the environment unless more is named."""


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
        keys = read_keys(Path(file))
        verifiers.append(
            Verifier(
                issuer=issuer, keys=keys, audience=audience, replay=replay or MemoryReplay(), name="parents"
            )
        )
    return tuple(verifiers)
