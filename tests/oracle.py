"""A second opinion on every decision: docs/policy.md, read line by line, with no regard for speed.

It works on policies as plain data, the dicts that the YAML gives, and shares no code with guard/policy but
the judgement of where one value came from. Where two engines that were written apart agree, the page says
what it seems to say. A remark `docs: silent` marks what the page leaves open; there the first engine was
asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from guard.core.errors import Reason
from guard.core.model import Allow, Ask, Call, Decision, Deny, Pin
from tests import oracle_ijson, oracle_limits, oracle_origins
from tests.oracle_rules import (
    Layer,
    Rule,
    is_odd,
    layers,
    milliseconds,
    name,
    naming,
    root,
    tool_rules,
)
from tests.oracle_schemas import EPOCH, Unknowable, faults, matches

CLOCK_TOLERANCE_MS = 10_000


def decide(call: Call, *documents: dict[str, Any]) -> Decision:
    """The decision that docs/policy.md gives, of one policy or of several layers, the highest first.

    The first denial is the answer; then a question that all of them ask together; else all permit.
    """
    together = layers(list(documents))
    answers: list[Allow] = []
    for layer in together:
        match _decide(call, layer, together):
            case Deny() as no:
                return no
            case Allow() as yes:
                answers.append(yes)
    question = _question(call, together)
    if question is None:
        return _all(answers, approved=())
    return _all(answers, approved=question.rules) if _answers(call, question) else question


def _decide(call: Call, layer: Layer, together: list[Layer]) -> Deny | Allow:
    """What one layer says, before anybody is asked."""
    observes = layer.document.get("mode", "enforce") == "observe"
    obligations = oracle_limits.obligations(call, layer)
    for no in _noes(call, layer, together):
        if observes and (
            no.reason == Reason.INTENT_UNMATCHED or (no.reason == Reason.DEFAULT_DENY and not is_odd(call))
        ):
            obligations.add("observed")
        else:
            return no
    return Allow(
        rules=_permitting(call, layer),
        scopes=_required(call, layer),
        obligations=tuple(sorted(obligations)),
        mode="observe" if observes else "enforce",
        reservations=oracle_limits.taken(call, layer, together),
        marks=oracle_limits.marks(call, layer, together),
    )


def _all(answers: list[Allow], approved: tuple[str, ...]) -> Allow:
    """What several layers permit is permitted: everything that one of them says holds."""
    return Allow(
        rules=tuple(sorted({rule for one in answers for rule in one.rules})),
        scopes=tuple(sorted({scope for one in answers for scope in one.scopes})),
        obligations=tuple(sorted({what for one in answers for what in one.obligations})),
        mode="observe" if any(one.mode == "observe" for one in answers) else "enforce",
        reservations=tuple(taken for one in answers for taken in one.reservations),
        marks=tuple(mark for one in answers for mark in one.marks),
        approved=approved,
    )


def _noes(call: Call, layer: Layer, together: list[Layer]) -> Iterator[Deny]:
    """Every no, the first one first. A step is taken only if those before it let the call through."""
    yield from _world(call, layer)
    yield from _role(call, layer)
    yield from _visibility(call, layer)
    yield from _pin(call)
    yield from _arguments(call)
    yield from _protected(call, layer)
    yield from _scopes(call, layer)
    yield from oracle_limits.hours(call, layer)
    yield from _declared_intents(call, layer, together)
    yield from _intents(call, layer)
    yield from oracle_limits.sequences(call, layer)
    yield from oracle_limits.limits(call, layer)
    yield from _origins(call, layer)
    yield from _unaskable(call, layer)


# 1. Is the world sound?


def _world(call: Call, layer: Layer) -> Iterator[Deny]:
    facts, document = call.facts, layer.document
    contained = set(facts.contained)
    # A word that is not in the list stops everything, as "all" does.
    if contained - {"conversation", "sealed", "tool"}:
        yield Deny(Reason.PRINCIPAL_CONTAINED)
    if "conversation" in contained:
        yield Deny(Reason.CONVERSATION_CONTAINED)
    if "sealed" in contained:
        yield Deny(Reason.CONVERSATION_SEALED)
    # A contained tool is said in step 4; see _pin.
    if not facts.store_writable:
        yield Deny(Reason.STORE_UNAVAILABLE)
    if not facts.artifact_key:
        yield Deny(Reason.ARTIFACT_KEY_UNAVAILABLE)
    if facts.now + CLOCK_TOLERANCE_MS < facts.last:
        yield Deny(Reason.CLOCK_BEHIND)
    newest = facts.versions.get(f"policy/{document['id']}")
    if newest is not None and newest != document["version"]:
        yield Deny(Reason.POLICY_SUPERSEDED)
    for end in (document.get("expires"), document.get("observe_until")):
        if end is not None and facts.now >= _moment(end):
            yield Deny(Reason.POLICY_EXPIRED)


def _moment(text: str) -> int:
    return (datetime.fromisoformat(text) - EPOCH) // timedelta(milliseconds=1)


# 2. Is the role known?


def _role(call: Call, layer: Layer) -> Iterator[Deny]:
    if call.principal.role not in layer.document.get("roles", {}):
        yield Deny(Reason.UNAUTHORIZED_ROLE)


def _holds(call: Call, layer: Layer, scopes: set[str]) -> bool:
    """The intersection rule: each is granted by the role, and named by the credential if that narrows."""
    granted, named = _granted(call.principal.role, layer), call.principal.scopes
    return all(
        any(_stands_for(one, scope) for one in granted)
        and (named is None or any(_stands_for(one, scope) for one in named))
        for scope in scopes
    )


def _stands_for(said: str, scope: str) -> bool:
    """`*` is every scope, `x:*` every one that begins with `x:`, any other word itself."""
    if said in ("*", scope):
        return True
    return said.endswith(":*") and scope.startswith(said[:-1])


def _granted(role: str, layer: Layer) -> set[str]:
    described = layer.document["roles"][role]
    scopes = set(described.get("scopes", []))
    for inherited in described.get("inherits", []):
        scopes |= _granted(inherited, layer)
    return scopes


# 3. Is the tool listed and visible?


def _visibility(call: Call, layer: Layer) -> Iterator[Deny]:
    rules = _listing(call, layer)
    if not rules:
        yield Deny(Reason.DEFAULT_DENY)
    elif not any(_holds(call, layer, set(rule["scopes"])) for rule in rules):
        yield Deny(Reason.TOOL_NOT_VISIBLE)
    if not _holds(call, layer, _of_server(call, layer)):
        yield Deny(Reason.TOOL_NOT_VISIBLE)
    if call.tool.pin == Pin.ABSENT:
        yield Deny(Reason.UNKNOWN_TOOL)


def _listing(call: Call, layer: Layer) -> list[Rule]:
    """The rules that list it: of an odd URI, those that spell it out."""
    rules = tool_rules(call, layer)
    if is_odd(call):
        return [rule for rule in rules if rule["match"] == call.tool.name]
    return rules


def _of_server(call: Call, layer: Layer) -> set[str]:
    """What the server requires for everything that it offers."""
    return set(layer.document.get("servers", {}).get(call.tool.server, {}).get("scopes", []))


# 4. Is it pinned and unchanged?


def _pin(call: Call) -> Iterator[Deny]:
    if call.tool.pin == Pin.UNPINNED:
        yield Deny(Reason.TOOL_UNPINNED)
    if call.tool.pin == Pin.CHANGED:
        yield Deny(Reason.TOOL_CHANGED)
    if "tool" in call.facts.contained:
        yield Deny(Reason.TOOL_CONTAINED)


# 5. Are the arguments an I-JSON object?


def _arguments(call: Call) -> Iterator[Deny]:
    if call.fault is not None:
        yield Deny(Reason.ARGUMENTS_NOT_IJSON, pointer=call.fault[0])
    if not isinstance(call.arguments, dict):
        yield Deny(Reason.ARGUMENTS_NOT_IJSON, pointer=root(call))
    else:
        yield from oracle_ijson.unfit(call.arguments, root(call))


# 6. Does a protected rule forbid?


def _protected(call: Call, layer: Layer) -> Iterator[Deny]:
    for rule in naming(call, layer, "protected"):
        match _matches(call, layer, rule):
            case Deny() as failed:
                yield failed
            case True:
                yield Deny(Reason.PROTECTED, name(rule, call, layer))


def _matches(call: Call, layer: Layer, rule: Rule) -> bool | Deny:
    """Whether a rule matches; a rule that cannot be evaluated denies."""
    try:
        return matches(call, layer, rule)
    except Unknowable as why:
        return Deny(Reason.RULE_FAILED, name(why.rule, call, layer))


# 7. Are all scopes held?


def _scopes(call: Call, layer: Layer) -> Iterator[Deny]:
    for rule in tool_rules(call, layer):
        if not _holds(call, layer, set(rule["scopes"])):
            yield Deny(Reason.MISSING_SCOPE, name(rule, call, layer))
    # It comes after the rules, wherever it would sort. It is no rule: every layer calls it the same.
    if not _holds(call, layer, _declared(call, layer)):
        yield Deny(Reason.MISSING_SCOPE, f"servers/{call.tool.server}")


def _declared(call: Call, layer: Layer) -> set[str]:
    server = layer.document.get("servers", {}).get(call.tool.server, {})
    return set(call.tool.declared) if server.get("trust_declared_scopes", False) else set()


def _required(call: Call, layer: Layer) -> tuple[str, ...]:
    scopes = _declared(call, layer) | _of_server(call, layer)
    for rule in tool_rules(call, layer):
        scopes |= set(rule["scopes"])
    return tuple(sorted(scopes))


# 9. Does each declared intent name it and match?


def _declared_intents(call: Call, layer: Layer, together: list[Layer]) -> Iterator[Deny]:
    answers = {name(one, call, layer): _matches(call, layer, one) for one in naming(call, layer, "intents")}
    # docs: silent. An intent that cannot be evaluated denies before any other intent is asked about.
    yield from (answer for answer in answers.values() if isinstance(answer, Deny))
    known = {one.prefix + rule["id"] for one in together for rule in one.list("intents")}
    own = {layer.prefix + rule["id"] for rule in layer.list("intents")}
    for said in sorted(call.intents):
        if said not in known:
            yield Deny(Reason.OUTSIDE_INTENT)
        elif said in own and answers.get(said) is not True:
            yield Deny(Reason.OUTSIDE_INTENT, said)


# 10. Does an intent match, where some name the tool?


def _intents(call: Call, layer: Layer) -> Iterator[Deny]:
    intents = naming(call, layer, "intents")
    if intents and not any(_matches(call, layer, intent) is True for intent in intents):
        yield Deny(Reason.INTENT_UNMATCHED, name(intents[0], call, layer), _at_fault(call, intents[0]))


def _at_fault(call: Call, intent: Rule) -> str:
    """A field at which `schema` fails; nothing where only `request` does."""
    schema = intent.get("schema")
    return min(faults(call, schema), default="") if schema is not None else ""


def _permitting(call: Call, layer: Layer) -> tuple[str, ...]:
    intents = [one for one in naming(call, layer, "intents") if _matches(call, layer, one) is True]
    return tuple(sorted({name(rule, call, layer) for rule in [*tool_rules(call, layer), *intents]}))


# 13. May every value come from where it does?


def _origins(call: Call, layer: Layer) -> Iterator[Deny]:
    for rule in oracle_origins.blind(call, layer):
        yield Deny(Reason.RULE_FAILED, name(rule, call, layer))
    for rule in naming(call, layer, "origins"):
        refused = oracle_origins.refused(call, layer, rule)
        if refused and rule.get("otherwise", "deny") == "deny":
            yield Deny(Reason.ORIGIN_REFUSED, name(rule, call, layer), refused[0])


# 14. Does a rule ask a person, and no approval answer it?


def _unaskable(call: Call, layer: Layer) -> Iterator[Deny]:
    for rule in naming(call, layer, "asks"):
        answer = _matches(call, layer, rule)
        if isinstance(answer, Deny):
            yield answer


def _asking(call: Call, layer: Layer) -> Iterator[tuple[str, Rule, list[str]]]:
    """The rules that ask: what each is called, and pointers to what it asks about; none for the whole."""
    for rule in naming(call, layer, "asks"):
        if matches(call, layer, rule):
            yield name(rule, call, layer), rule, []
    for rule in naming(call, layer, "origins"):
        if refused := oracle_origins.refused(call, layer, rule):
            yield name(rule, call, layer), rule, refused


def _question(call: Call, together: list[Layer]) -> Ask | None:
    """What all rules of all layers that ask are asking together."""
    asking = [one for layer in together for one in _asking(call, layer)]
    if not asking:
        return None
    approvers = {rule.get("approver", "reviewer") for _, rule, _ in asking}
    return Ask(
        rules=tuple(sorted(said for said, _, _ in asking)),
        approver="client" if approvers == {"client"} else "reviewer",
        window=min(milliseconds(rule.get("ttl", "10m")) for _, rule, _ in asking),
        pointers=tuple(sorted({pointer for _, _, pointers in asking for pointer in pointers})),
    )


def _answers(call: Call, question: Ask) -> bool:
    """Whether the approval answers all rules that ask, and is the word of whom they want."""
    approval = call.facts.approval
    if approval is None or not set(question.rules) <= approval.rules:
        return False
    return approval.word == "reviewer" or approval.word == question.approver == "client"
