"""What servers said, as what a memory keeps of it.

What a call sent is remembered as well, as `sent:SERVER/NAME`: a value that was written somewhere and read
back is no more than `mixed`. To have been sent makes nothing more trusted.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from guard.core.canonical import sha256
from guard.core.model import Call, Conversation, Principal, Tool
from guard.lineage.store import Glimpse, Remember
from guard.policy.origins.judge import SENT
from guard.policy.origins.leaves import Members, leaves, leaves_of, read
from guard.policy.origins.results import answered
from guard.policy.origins.values import Found, Glimpses, spoken
from guard.policy.rules import Policy

AGAIN: Final = 4
"""A text that is told again is remembered again this many times in the window that values are kept."""
_CONTEXT: Final = b"guard-mcp origins"


def salt_of(secret: bytes) -> bytes:
    """What fingerprints are keyed with; `secret` is what every home of a store has and the store has not."""
    return hmac.digest(secret, _CONTEXT, "sha256")


def source_of(tool: Tool) -> str:
    """How a source is named: "tool:SERVER/NAME", "prompt:...", "resource:...", "method:..."."""
    return f"{tool.kind}:{tool.server}/{tool.name}"


@dataclass(frozen=True, slots=True)
class Memory:
    """Where somebody's values are kept.

    Attributes:
        name: of the memory.
        window: milliseconds that values are kept.
        most: how many rows it may have.
        salt: see `salt_of`.
    """

    name: str
    window: int
    most: int
    salt: bytes

    def text(self, raw: bytes, now: int) -> tuple[str, str]:
        """What names a text that was told: told again after a while it is another one, and remembered again.

        Args:
            raw: the text.
            now: UNIX milliseconds.
        """
        return self.name, f"{sha256(raw)}/{now // max(1, self.window // AGAIN)}"

    def keep(self, found: Glimpses) -> Remember | None:
        """The effect that keeps these; None where there is nothing."""
        glimpses = tuple(Glimpse(key, seen.source, seen.trust, seen.field) for key, seen in found)
        return Remember(self.name, glimpses, self.window, self.most) if glimpses else None


def memory_of(policy: Policy, principal: Principal, conversation: Conversation, salt: bytes) -> Memory | None:
    """The memory that a principal's calls read here; None where the policy needs none."""
    name = policy.memory(principal, conversation)
    terms = policy.remembering
    return Memory(name, terms.window, terms.values, salt) if name else None


def remembered(policy: Policy, call: Call, raw: bytes, salt: bytes) -> Remember | None:
    """What to keep of a call that was sent: its arguments, and what the server answered.

    Args:
        policy: which decided; None is answered where it keeps no memory.
        call: the call.
        raw: the result or error object as the server wrote it; b"" where nothing is known of it.
        salt: see `salt_of`.
    """
    memory = memory_of(policy, call.principal, call.conversation, salt)
    if memory is None:
        return None
    sent = Found()
    if call.fault is None:
        sent.take_all(leaves_of(_as_read(dict(call.arguments)), "mixed", {}))
    found = sent.as_glimpses(f"{SENT}{call.tool.server}/{call.tool.name}", salt)
    if raw:
        trust, fields = policy.trust(call.tool)
        told = answered(raw, trust, fields, tool=call.tool.kind == "tool")
        found += told.as_glimpses(source_of(call.tool), salt)
    return memory.keep(found)


def said(memory: Memory, server: str, raw: bytes) -> Remember | None:
    """What to keep of what a server said that is no answer to a call: logs, progress, notifications.

    The names of the members are the protocol's.
    """
    found, text = Found(), raw.decode("utf-8", "replace")
    try:
        document = read(text)
    except ValueError:
        document = text
    members = [inner for _, inner in document] if isinstance(document, Members) else [document]
    found.take_all(leaves_of(members, "untrusted", {}))
    return memory.keep(found.as_glimpses(f"server:{server}", memory.salt))


def listed(memory: Memory, kind: str, name: str, raw: bytes, trust: str, *, pinned: bool) -> Remember | None:
    """What to keep of one item of a list.

    Args:
        memory: where.
        kind: "tool", "prompt" or "resource"; "server" for what a server says of itself.
        name: "SERVER/NAME".
        raw: the item.
        trust: of what is listed.
        pinned: whether an operator accepted its wording: then words alone are no appearance.
    """
    found = Found(prose=not pinned)
    found.take_all(leaves(raw.decode("utf-8", "replace"), trust, {}))
    return memory.keep(found.as_glimpses(f"{kind}:{name}", memory.salt))


def user_said(memory: Memory, text: str) -> Remember | None:
    """What to keep of the user's own words."""
    return memory.keep(spoken(text, memory.salt))


def _as_read(node: Any) -> Any:
    """Arguments as a document that was read: objects as their members."""
    if isinstance(node, Mapping):
        return Members((name, _as_read(inner)) for name, inner in node.items())
    return [_as_read(inner) for inner in node] if isinstance(node, (list, tuple)) else node
