"""What a configuration makes: a generation, the rules at the door, sessions, and the words of commands."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from guard.config.home import DEFAULT_TENANT
from guard.config.settings import FixedCaller, Settings
from guard.config.wiring import warn_of_role
from guard.policy.rules import Policy
from guard.proxy.house import Generation
from guard.proxy.links import ToolServer
from guard.proxy.relay import Post, WorkerSessions
from guard.proxy.sessions import Sessions


def generation(
    settings: Settings, policy: Policy, servers: Mapping[str, ToolServer], parents: tuple[Any, ...]
) -> Generation:
    """Everything that a configuration and its policy make."""
    return Generation(
        policy,
        servers,
        conversation=settings.conversation,
        strict=settings.durability == "strict",
        parents=parents,
        intents=frozenset(settings.intent),
        park=settings.approvals.park,
    )


def warn(policy: Policy, settings: Settings) -> None:
    """Tell the operator of a fixed role that the policy does not have."""
    if isinstance(settings.identity, FixedCaller):
        warn_of_role(policy, settings.identity.role)


def pin_command(path: Path, name: str, tenant: str) -> str:
    """How a tenant's operator accepts the tools of a server."""
    whose = () if tenant == DEFAULT_TENANT else ("--tenant", tenant)
    return shlex.join(["guard", "pin", "--config", str(path), *whose, name])


def sessions(settings: Settings, post: Post | None) -> Sessions:
    """The sessions of the handshake era, shared with other workers where there are some."""
    most, idle = settings.limits.sessions, settings.limits.session_idle_seconds
    return Sessions(most, idle) if post is None else WorkerSessions(most, idle, post)
