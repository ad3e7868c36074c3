"""A question to a person: what it is about, what they are shown, what they said, and what that allows.

Nothing here waits or sends. What is shown is made from a fixed text; whatever came from outside is escaped
and bounded in it, and whoever cannot be shown all of it is told so.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from guard.core.canonical import canonical, digest, write
from guard.core.errors import printable
from guard.core.model import SUBJECTS, Approval, Ask, Call, Principal, args_sha256
from guard.identity.api_keys import ISSUER
from guard.lineage.store import SaveQuestion, Store
from guard.policy.pointers import MISSING, value_at
from guard.policy.rules import Policy
from guard.proxy.approvals import objection

CLIENT: Final = "client"
REVIEWER: Final = "reviewer"
MAX_SHOWN: Final = 2000
"""Characters of the params that a client's person is shown; what is left out is told."""
MAX_FIELD: Final = 300
MAX_FIELDS: Final = 8
MAX_KEPT: Final = 64 * 1024
"""Bytes of the params that are kept for a reviewer; of larger ones only the digest is."""


def digest_of(call: Call) -> str:
    """What an approval is for: this server, this method, exactly these upstream params.

    Raises:
        NotIJson: the params have no canonical form.
    """
    return digest(
        {
            "server": call.tool.server,
            "method": call.method,
            "args_sha256": args_sha256(call.params, call.method),
        }
    )


def question(call: Call, ask: Ask, until: int) -> SaveQuestion:
    """The question of a call that must be approved, void from `until` on (UNIX milliseconds)."""
    return SaveQuestion(
        id=call.id,
        issuer=call.principal.issuer,
        subject=call.principal.subject,
        digest=digest_of(call),
        rules=ask.rules,
        approver=ask.approver,
        until=until,
        shown=write(_shown(call, ask)),
    )


def _shown(call: Call, ask: Ask) -> dict[str, Any]:
    """What a reviewer sees: the very params that would be sent, unless they are too large to keep."""
    who, params = call.principal, dict(call.params)
    return {
        "server": call.tool.server,
        "kind": call.tool.kind,
        "name": call.tool.name,
        "method": call.method,
        "principal": [who.issuer, who.subject],
        "role": who.role,
        "conversation": {"id": call.conversation.id, "source": call.conversation.source},
        "pointers": list(ask.pointers),
        "params": params if len(write(params)) <= MAX_KEPT else None,
        "args_sha256": args_sha256(call.params, call.method),
    }


def is_on(asked: SaveQuestion, ask: Ask) -> bool:
    """Whether a question asks what the policy asks now, of whom it asks it."""
    return (tuple(asked.rules), asked.approver) == (ask.rules, ask.approver)


def standing(store: Store, policy: Policy, call: Call, at: int) -> Approval | None:
    """The approval of this very call that stands at a time (UNIX ms), None where there is none.

    A reviewer's holds only as long as they could give it again: not once their last key has ended, their
    role may approve no more, or they are contained.
    """
    who = call.principal
    row = store.approval(who.tenant, who.issuer, who.subject, digest_of(call), at)
    if row is None or row.state != "granted" or at >= row.question.until:
        return None
    if row.word == REVIEWER:
        if not _may_still(store, policy, who.tenant, row.answered_by, at):
            return None
    elif row.word != CLIENT or row.question.approver != CLIENT:
        return None
    return Approval(row.question.id, frozenset(row.question.rules), row.answered_by, row.word)


def _may_still(store: Store, policy: Policy, tenant: str, approver: str, at: int) -> bool:
    issuer, _, subject = approver.partition("/")
    return issuer == ISSUER and any(
        objection(store, policy, Principal(tenant, ISSUER, subject, key.role, key.scopes, key.key_id), at)
        is None
        for key in store.api_keys()
        if (key.tenant, key.principal) == (tenant, subject)
        and key.revoked_at is None
        and (key.expires is None or at < key.expires * 1000)
    )


# -- what the requester's own client is asked ------------------------------------------------------------


def can_fill_in(capabilities: Any) -> bool:
    """Whether a client that declared these can be asked with a form (`elicitation`; empty means form)."""
    declared = capabilities.get("elicitation") if isinstance(capabilities, dict) else None
    return isinstance(declared, dict) and ("form" in declared or "url" not in declared)


def elicitation(asked: SaveQuestion, call: Call, ask: Ask, *, mode: bool = True) -> dict[str, Any]:
    """The params of `elicitation/create`. `mode`: whether the client's revision knows of modes."""
    approve = {
        "type": "boolean",
        "title": "Approve this call",
        "description": "Yes lets exactly this call run, once.",
        "default": False,
    }
    params: dict[str, Any] = {"mode": "form"} if mode else {}
    return params | {
        "message": text(asked, call, ask),
        "requestedSchema": {"type": "object", "properties": {"approve": approve}, "required": ["approve"]},
    }


def text(asked: SaveQuestion, call: Call, ask: Ask) -> str:
    """What a person is shown, one line for each thing."""
    lines = [
        "Guard holds a call until you approve it.",
        f"{call.tool.kind.capitalize()}: {printable(call.tool.name)}",
        f"Server: {printable(call.tool.server)}",
        f"Rules that ask: {printable(', '.join(asked.rules))}",
    ]
    for pointer in ask.pointers[:MAX_FIELDS]:
        value = value_at(call.params, pointer)
        if value is not MISSING:
            lines.append(f"{printable(pointer)}: {_bounded(value, MAX_FIELD)}")
    named = SUBJECTS.get(call.method, ("", ""))[1]  # stands in the first line already
    what = {name: value for name, value in call.params.items() if name != named}
    lines += [
        f"Sent would be: {_bounded(what, MAX_SHOWN)}",
        f"Digest: {asked.digest}",
        f"It runs once, and only before {told_time(asked.until)}.",
        f"Question: {asked.id}",
    ]
    return "\n".join(lines)


def _bounded(value: Any, most: int) -> str:
    found = printable(canonical(value).decode())
    if len(found) <= most:
        return found
    return f"{found[:most]} [cut here: {len(found) - most} more characters are NOT shown]"


def said(answer: Any) -> bool | None:
    """What an `ElicitResult` says: yes, no, or nothing (dismissed, or not understood)."""
    if not isinstance(answer, Mapping):
        return None
    if answer.get("action") == "decline":
        return False
    content = answer.get("content")
    approve = content.get("approve") if isinstance(content, Mapping) else None
    return approve if answer.get("action") == "accept" and isinstance(approve, bool) else None


def told_time(milliseconds: int) -> str:
    """UNIX milliseconds as RFC 3339 in UTC, to the second."""
    return datetime.fromtimestamp(milliseconds // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
