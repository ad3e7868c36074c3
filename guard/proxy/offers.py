"""What Guard offers a client: what the servers behind it can do, as far as Guard passes it on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from guard.proxy.asker import EXTENSION, extensions
from guard.proxy.upstream import Upstream

_DETAILS: Final = {
    "resources": ("subscribe", "listChanged"),
    "prompts": ("listChanged",),
    "completions": (),
    "logging": (),
}
"""The capabilities that are passed on, beside `tools`, and the details of each."""
_SAID: Final = frozenset({"logging"})
"""Those that are nothing but what a server says unasked."""


def capabilities(upstreams: Iterable[Upstream], *, modern: bool) -> dict[str, Any]:
    """Of several servers, whatever one of them can do; Guard itself always tells of changed tools.

    What a server says unasked is offered to clients of its own era only.

    Args:
        upstreams: the servers.
        modern: whether the client speaks 2026-07-28.
    """
    behind = [*upstreams]
    found: dict[str, Any] = {"tools": {"listChanged": True}}
    for name, details in _DETAILS.items():
        those = [upstream for upstream in behind if upstream.can(name)]
        same = [upstream for upstream in those if upstream.modern == modern]
        if same if name in _SAID else those:
            found[name] = {detail: True for detail in details if any(one.can(name, detail) for one in same)}
    agreed: dict[str, Any] = {}
    for upstream in behind:
        agreed = {**extensions(upstream.capabilities, upstream.methods), **agreed}
    return {**found, "extensions": {**agreed, EXTENSION: {}}}
