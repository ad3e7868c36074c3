"""What Guard says of itself beside the MCP endpoint: its health, and what outsiders check it with.

Nothing here is a secret: no key, no name of a caller, no command, no argument.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from guard import __version__
from guard.core.errors import Reason, Refused
from guard.proxy.house import House
from guard.proxy.refusals import unavailable

_TENANT: Final = "default"


@dataclass(frozen=True, slots=True)
class Published:
    """What an outsider needs to check this Guard.

    Attributes:
        issuer: `iss` of its artifacts.
        jwks: gives its artifact keys, public, with those of whoever shares its store.
        vkey: what its checkpoints are checked with (C2SP signed-note).
    """

    issuer: str
    jwks: Callable[[], Mapping[str, Any]]
    vkey: str


def not_ready(house: House) -> Reason | None:
    """Why no call could be permitted now, None if nothing stands against it."""
    now, layers = house.clock(), house.generation.policy.layers
    if house.log.failure is not None:
        return Reason.STORE_UNAVAILABLE
    if not house.issuer.usable(now // 1000):
        return Reason.ARTIFACT_KEY_UNAVAILABLE
    ends = [end for one in layers for end in (one.expires, one.observe_until if one.observing else None)]
    if any(end is not None and now >= end for end in ends):
        return Reason.POLICY_EXPIRED
    try:
        newest = house.log.store.versions(_TENANT)
    except Exception:  # noqa: BLE001 - a store that cannot be read permits nothing
        return Reason.STORE_UNAVAILABLE
    refs = [layer.ref for layer in layers]
    same = all(newest.get(ref.versioned, ref.version) == ref.version for ref in refs)
    return None if same else Reason.POLICY_SUPERSEDED


def health(house: House) -> tuple[bool, dict[str, Any]]:
    """Whether calls can be permitted, and the whole of it: live, ready, why not, each tool server."""
    reason = not_ready(house)
    servers = {name: server.health() for name, server in house.generation.servers.items()}
    about: dict[str, Any] = {
        "live": True,
        "ready": reason is None,
        "version": __version__,
        "servers": servers,
    }
    if reason is not None:
        about["reason"] = reason
    return reason is None, about


def proof(house: House, published: Published) -> dict[str, Any]:
    """The latest checkpoint, the policy's digest, the key set, and counts since the start.

    Raises:
        Turned: the store cannot be asked.
    """
    ref = house.generation.policy.ref
    try:
        checkpoint = house.log.store.checkpoint()
    except Refused:
        raise unavailable() from None
    return {
        "issuer": published.issuer,
        "vkey": published.vkey,
        "checkpoint": checkpoint,
        "jwks": published.jwks(),
        "policy": {**ref.as_json(), "mode": house.generation.policy.mode},
        "since": house.started,
        "decisions": _counts(house.decisions),
        "refusals": _counts(house.refusals),
    }


def _counts(counted: Mapping[str, int]) -> dict[str, int]:
    """As JSON has them: a reason is a subclass of `str`, and the writer takes only plain ones as names."""
    return {str(name): count for name, count in sorted(counted.items())}
