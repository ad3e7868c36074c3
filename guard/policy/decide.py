"""The one function that says yes.

In every layer the world must be sound, the role known, the tool listed, visible and pinned, the arguments
plain; nothing may forbid the call; each required scope, the hour, the intents, what came before, every limit
and every value's origin must be right. Then a person may have to approve. All else is denied.
"""

from __future__ import annotations

from collections.abc import Iterator

from guard.core.errors import Reason
from guard.core.model import Allow, Ask, Call, Decision, Deny, Pin, Principal
from guard.policy.conditions import PINS, RUNTIME, fault
from guard.policy.judging import Judging
from guard.policy.layers import together
from guard.policy.rules import Held, Matching, Policy, RuleFailed


def decide(call: Call, policy: Policy) -> Decision:
    """Whether a call may run. Pure and total: it never raises, and what breaks in here is a denial."""
    try:
        if not policy.above:
            return _in_layer(call, policy)
        return together(_in_layer(call, layer) for layer in policy.layers)
    except RuleFailed as failed:
        return Deny(Reason.RULE_FAILED, failed.rule)
    except Exception:  # noqa: BLE001 - a fault of ours is not a yes
        return Deny(Reason.RULE_FAILED)


def _in_layer(call: Call, policy: Policy) -> Decision:
    held = policy.held(call.principal)
    about = policy.about(call.tool.server, call.tool.name, call.tool.kind)
    judging = Judging(call, policy, about)
    for objection in _objections(judging, held):
        return objection
    if held is None:  # it was objected to
        return Deny(Reason.UNAUTHORIZED_ROLE)
    if (asking := judging.questions()) is not None:
        return Ask(*asking)
    return Allow(
        rules=judging.permitting(held),
        scopes=tuple(sorted(policy.needs(call.tool))),
        obligations=judging.obligations(),
        mode=policy.mode,
        reservations=judging.taken(),
        marks=judging.marks(),
        approved=judging.approved(),
        rests_on_seen=bool(about.origins),
    )


def _objections(judging: Judging, held: Held | None) -> Iterator[Deny]:
    """Every denial, the strongest first; only the first is asked for."""
    call, policy, about = judging.call, judging.policy, judging.about
    yield from (Deny(reason) for reason, stands in RUNTIME if stands(call.facts, policy))
    if held is None:
        yield Deny(Reason.UNAUTHORIZED_ROLE)
        return
    if (reason := hidden(policy, about, held)) is not None:
        yield Deny(reason)
    if call.tool.pin is not Pin.MATCHES:
        yield Deny(PINS[call.tool.pin])
    if "tool" in call.facts.contained:  # only here, so that nobody learns of a tool that is out of sight
        yield Deny(Reason.TOOL_CONTAINED)
    if (pointer := fault(call)) is not None:
        yield Deny(Reason.ARGUMENTS_NOT_IJSON, pointer=pointer)
    yield from (Deny(Reason.PROTECTED, rule.id) for rule in about.protected if rule.matches(judging.asked))
    if not held.covers(policy.needs(call.tool)):
        lacking = [rule.id for rule in about.tools if not held.covers(rule.scopes)]
        yield Deny(Reason.MISSING_SCOPE, lacking[0] if lacking else f"servers/{call.tool.server}")
    for kind in (judging.hours, judging.intents, judging.counters, judging.origins):
        yield from kind()


def hidden(policy: Policy, about: Matching, held: Held) -> Reason | None:
    """Why a tool is out of sight, None if it is not: of one rule that lists it, all scopes must be held."""
    if not about.listing and (about.odd or not policy.observing):  # odd: read as something else it slips past
        return Reason.DEFAULT_DENY
    listed = [rule.scopes for rule in about.listing] or [about.server]
    return None if any(held.covers(scopes | about.server) for scopes in listed) else Reason.TOOL_NOT_VISIBLE


def visible(
    principal: Principal,
    server: str,
    tool_name: str,
    declared: frozenset[str],  # noqa: ARG001 - adds to what a call needs and hides nothing
    policy: Policy,
    *,
    kind: str = "tool",
) -> bool:
    """Whether a tool is listed for a principal: a matter of credential and policy only, in every layer."""
    for layer in policy.layers:
        held = layer.held(principal)
        if held is None or hidden(layer, layer.about(server, tool_name, kind), held) is not None:
            return False
    return True
