"""What handshake-era clients asked one tool server to keep telling them: its log, its resources.

It is said again where a client's link starts anew. What a client may see no longer is called off at the
server, and asked for again if the client may see it again: nothing is lost in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from guard.proxy.asker import Asker

MOST: Final = 1000
"""How many wishes of one client are remembered for one server."""
SUBSCRIBE: Final = "resources/subscribe"
UNSUBSCRIBE: Final = "resources/unsubscribe"
_Said = tuple[str, Mapping[str, Any]]


@dataclass(slots=True)
class _Wish:
    """A method and its params; and whether it is called off for now."""

    method: str
    params: Mapping[str, Any]
    off: bool = False


class Wishes:
    """The wishes that stand, by client."""

    def __init__(self) -> None:
        self._of: dict[Asker, dict[str, _Wish]] = {}

    def note(self, asker: Asker, method: str, params: Mapping[str, Any]) -> None:
        """The server agreed to it."""
        held, key = self._of.setdefault(asker, {}), str(params.get("uri", ""))
        if method == UNSUBSCRIBE:
            held.pop(key, None)
        elif key in held or len(held) < MOST:
            held[key] = _Wish(method, params)

    def standing(self, asker: Asker | None) -> list[_Said]:
        """What is to be said where a link of the client's starts."""
        held = {} if asker is None else self._of.get(asker, {})
        return [(wish.method, wish.params) for wish in held.values() if not wish.off]

    def forget(self, asker: Asker) -> None:
        """The client is gone."""
        self._of.pop(asker, None)

    def review(self, asker: Asker, sees: Callable[[str], bool]) -> list[_Said]:
        """What must be said now, so that the client hears of what it sees and of nothing else.

        Args:
            asker: the client.
            sees: whether it may see a resource.
        """
        said: list[_Said] = []
        for uri, wish in self._of.get(asker, {}).items():
            off = wish.method == SUBSCRIBE and not sees(uri)
            if off != wish.off:
                wish.off = off
                said.append((UNSUBSCRIBE if off else SUBSCRIBE, wish.params))
        return said
