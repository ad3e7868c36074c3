"""Calls and policies for the tests of this floor."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from guard.core.canonical import write
from guard.core.model import Call, Conversation, Facts, Pin, Principal, Tool
from guard.policy.cases import asked
from guard.policy.document import load
from guard.policy.rules import Policy


def call(
    tool: str = "git_commit",
    arguments: Any = None,
    *,
    role: str = "committer",
    server: str = "git",
    scopes: set[str] | None = None,
    declared: set[str] | None = None,
    pin: Pin = Pin.MATCHES,
    fault: tuple[str, str] | None = None,
    **facts: Any,
) -> Call:
    return Call(
        id="decision",
        principal=Principal(
            "default", "launch", "someone", role, None if scopes is None else frozenset(scopes)
        ),
        tool=Tool(server, tool, "", pin, frozenset(declared or ())),
        audience=server,
        method="tools/call",
        params={"name": tool, "arguments": {} if arguments is None else arguments},
        conversation=Conversation("c", "launch"),
        facts=replace(Facts(now=1_000_000), **facts),
        fault=fault,
    )


def of_kind(kind: str, name: str, arguments: Any = None, **more: Any) -> Call:
    """A call for a tool, a prompt, a resource or a method."""
    made = call(name, **more)
    method, params = asked(kind, name, {} if arguments is None else arguments)
    return replace(made, tool=replace(made.tool, kind=kind), method=method, params=params)


def resource(uri: str, **more: Any) -> Call:
    return of_kind("resource", uri, **more)


def policy(**members: Any) -> Policy:
    return load(document(**members), name="policy.yaml")


def document(**members: Any) -> bytes:
    return write({"guard": 1, "id": "p", "version": 1, **members})


ROLES = {
    "reader": {"scopes": ["git:read"]},
    "committer": {"inherits": ["reader"], "scopes": ["git:write"]},
}
TOOLS = [
    {"match": "git_*", "server": "git", "scopes": ["git:read"]},
    {"match": "git_commit", "scopes": ["git:write"]},
]
SHORT = {
    "id": "short-message",
    "tools": ["git_commit"],
    "schema": {"required": ["message"], "properties": {"message": {"type": "string", "maxLength": 20}}},
}
NO_RESET = {"id": "no-reset", "tools": ["git_reset"]}


def git(**members: Any) -> Policy:
    return policy(**{"roles": ROLES, "tools": TOOLS, "intents": [SHORT], "protected": [NO_RESET], **members})
