"""The one function that says yes.

The world must be sound, the role known, the tool listed, visible and pinned, the arguments plain;
nothing may forbid the call; every required scope must be held; where intents name the tool, one must
match; and every limit must have room. All else is denied. A prompt, a resource or a method is judged
as a tool is.
"""

from __future__ import annotations

from collections.abc import Iterator

from guard.core.errors import Reason
from guard.core.model import Allow, Call, Decision, Deny, Pin, Principal
from guard.policy.conditions import ARGUMENTS, PINS, RUNTIME, fault, has_room
from guard.policy.rules import Matching, Policy, RuleFailed


def decide(call: Call, policy: Policy) -> Decision:
    """Whether a call may run. Pure and total: it never raises, and what breaks in here is a denial."""
    try:
        held = policy.held(call.principal)
        about = policy.about(call.tool.server, call.tool.name, call.tool.kind)
        objection = next(_objections(call, policy, about, held), None)
        return _permitted(call, policy, about, held or frozenset()) if objection is None else objection
    except RuleFailed as failed:
        return Deny(Reason.RULE_FAILED, failed.rule)
    except Exception:  # noqa: BLE001 - a fault of ours is not a yes
        return Deny(Reason.RULE_FAILED)


def _objections(call: Call, policy: Policy, about: Matching, held: frozenset[str] | None) -> Iterator[Deny]:
    """Every denial that the intents have no part in, the strongest first; only the first is asked for."""
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
    yield from (Deny(Reason.PROTECTED, rule.id) for rule in about.protected if rule.matches(call.arguments))
    if not policy.needs(call.tool) <= held:
        lacking = [rule.id for rule in about.tools if not rule.scopes <= held]
        yield Deny(Reason.MISSING_SCOPE, lacking[0] if lacking else f"servers/{call.tool.server}")


def _permitted(call: Call, policy: Policy, about: Matching, held: frozenset[str]) -> Decision:
    """Nothing objects: where intents name the tool one must match, and none may fail; limits come last."""
    matched = [rule.id for rule in about.intents if rule.matches(call.arguments)]
    unmatched = bool(about.intents) and not matched
    if unmatched and not policy.observing:
        first = about.intents[0]
        return Deny(
            Reason.INTENT_UNMATCHED,
            first.id,
            f"{ARGUMENTS[call.tool.kind]}{first.first_failure(call.arguments)}",
        )
    taken = policy.reservations(call.principal, call.tool, call.conversation) if about.limits else ()
    for wanted in taken:
        if not has_room(wanted, call.facts):
            return Deny(Reason.LIMIT_REACHED, wanted.limit)
    rules = {*matched, *(rule.id for rule in about.tools if rule.scopes <= held)}
    observed = ("observed",) if unmatched or not about.listing else ()
    return Allow(tuple(sorted(rules)), tuple(sorted(policy.needs(call.tool))), observed, policy.mode, taken)


def hidden(policy: Policy, about: Matching, held: frozenset[str]) -> Reason | None:
    """Why a tool is out of sight, None if it is not: of one rule that lists it, all scopes must be held."""
    if not about.listing:  # what a server may read as something else slips past what is protected
        return None if policy.observing and not about.odd else Reason.DEFAULT_DENY
    return None if any(rule.scopes <= held for rule in about.listing) else Reason.TOOL_NOT_VISIBLE


def visible(
    principal: Principal,
    server: str,
    tool_name: str,
    declared: frozenset[str],  # noqa: ARG001 - adds to what a call needs and hides nothing
    policy: Policy,
    *,
    kind: str = "tool",
) -> bool:
    """Whether a tool is listed for a principal: a matter of credential and policy only."""
    held = policy.held(principal)
    return held is not None and hidden(policy, policy.about(server, tool_name, kind), held) is None
