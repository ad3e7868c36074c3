"""One call before the rules of one layer: what each kind of rule says, worked out once.

`decide` says in which order they are asked. Nothing here permits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from guard.core.errors import Reason
from guard.core.model import Call, Deny, Mark, Reservation
from guard.policy.conditions import ARGUMENTS
from guard.policy.kinds import AskRule, Held, Intent, OriginRule, RuleFailed
from guard.policy.origins.judge import Origin, origin
from guard.policy.pointers import values_at
from guard.policy.request import Asked
from guard.policy.rules import Matching, Policy

Question = tuple[tuple[str, ...], str, int, tuple[str, ...]]
"""Rules, approver, window and pointers of what a person must approve."""


class Judging:
    """What the rules of one layer say of one call.

    Attributes:
        call: the call.
        policy: the layer.
        about: its rules about what is called.
        asked: the call, as schemas judge it.
    """

    __slots__ = ("_asks", "_matched", "_origins", "_taken", "about", "asked", "call", "policy")

    def __init__(self, call: Call, policy: Policy, about: Matching) -> None:
        self.call = call
        self.policy = policy
        self.about = about
        self._matched: list[str] | None = None
        self._taken: list[Reservation] = []
        self._origins: list[tuple[OriginRule, dict[str, Origin]]] | None = None
        self._asks: list[tuple[AskRule | OriginRule, tuple[str, ...]]] | None = None
        self.asked = Asked(call, self.by_pointer)

    @property
    def matched(self) -> list[str]:
        """Ids of the intents that match. Raises RuleFailed."""
        if self._matched is None:
            self._matched = [rule.id for rule in self.about.intents if rule.matches(self.asked)]
        return self._matched

    def hours(self) -> Iterable[Deny]:
        """Where hours are said, the time lies inside one of them; each is asked, as one may break."""
        rules = self.about.hours
        if not rules or True in [rule.hold(self.call.facts.now) for rule in rules]:
            return ()
        return (Deny(Reason.OUTSIDE_HOURS, rules[0].id),)

    def intents(self) -> Iterable[Deny]:
        """Every declared intent must name the call and match; else, where any name it, one of them must."""
        if not self.call.intents and (self.matched or not self.about.intents):
            return ()
        return self._unmatched()

    def _unmatched(self) -> Iterator[Deny]:
        call, about = self.call, self.about
        for declared in sorted(call.intents - self.policy.others):
            if declared not in self.matched:
                yield Deny(Reason.OUTSIDE_INTENT, declared if self.policy.declares(declared) else "")
        if about.intents and not self.matched and not self.policy.observing:
            first = about.intents[0]
            yield Deny(Reason.INTENT_UNMATCHED, first.id, self.pointer(first))

    def pointer(self, intent: Intent) -> str:
        """Into the request, to the first argument that is not as an intent says; "" where each is."""
        found = intent.first_failure(self.asked)
        return "" if found is None else f"{ARGUMENTS[self.call.tool.kind]}{found}"

    def counters(self) -> Iterable[Deny]:
        """What must have come before, how deep it is, and whether every limit has room."""
        return self._counters() if self.about.counts else ()

    def _counters(self) -> Iterator[Deny]:
        call, about = self.call, self.about
        scope = self.policy.scope(call.principal, call.tool, call.conversation)
        taken: list[Reservation] = []
        for sequence in about.sequences:
            wanted = sequence.takes(call, scope)
            if isinstance(wanted, Deny):
                yield wanted
            else:
                taken.extend(wanted)
        taken.extend(sequence.noted(scope) for sequence in about.opening if not sequence.requires)
        for ceiling in about.ceilings:
            if ceiling.depth is not None and call.depth > ceiling.depth:
                yield Deny(Reason.LIMIT_REACHED, ceiling.id)
        for limit in about.limits:
            reservation = limit.takes(call, scope)
            if isinstance(reservation, Deny):
                yield reservation
            else:
                taken.append(reservation)
        self._taken = sorted(taken, key=lambda one: one.limit)  # stable: looked at before it is noted

    def origins(self) -> Iterable[Deny]:
        """Every value comes from where it may, but for those that a person is asked about."""
        if not self.about.origins:
            return ()
        return (
            Deny(Reason.ORIGIN_REFUSED, rule.id, pointers[0])
            for rule, pointers in self._unaccepted()
            if not rule.asks
        )

    def questions(self) -> Question | None:
        """What a person must approve: all that asks, unless all of it is answered. Raises RuleFailed."""
        if not self.about.questions:
            return None
        asking = [rule for rule, _ in self._asking()]
        if self._answered().issuperset(rule.id for rule in asking):
            return None
        return (
            tuple(sorted(rule.id for rule in asking)),
            "client" if all(rule.approver == "client" for rule in asking) else "reviewer",
            min(rule.window for rule in asking),
            tuple(sorted({pointer for _, pointers in self._asking() for pointer in pointers})),
        )

    def approved(self) -> tuple[str, ...]:
        """The rules whose question was answered."""
        if not self.about.questions:
            return ()
        return tuple(sorted(rule.id for rule, _ in self._asking() if rule.id in self._answered()))

    def asking(self) -> list[AskRule | OriginRule]:
        """The rules that want a person to approve, answered or not. Raises RuleFailed."""
        return [rule for rule, _ in self._asking()]

    def _answered(self) -> frozenset[str]:
        """The rules that the standing approval speaks to: a client's word only where that counts."""
        approval = self.call.facts.approval
        if approval is None:
            return frozenset()
        if approval.word == "reviewer":
            return approval.rules
        if approval.word != "client":
            return frozenset()
        return approval.rules.intersection(rule.id for rule, _ in self._asking() if rule.approver == "client")

    def _asking(self) -> list[tuple[AskRule | OriginRule, tuple[str, ...]]]:
        """Every rule that wants a person, with the pointers that it is about."""
        if self._asks is None:
            self._asks = [(rule, ()) for rule in self.about.asks if rule.matches(self.asked)]
            self._asks += [(rule, pointers) for rule, pointers in self._unaccepted() if rule.asks]
        return self._asks

    # -- what is permitted, on which terms -----------------------------------------------------------

    def permitting(self, held: Held) -> tuple[str, ...]:
        """The rules that permit: intents that match, and tool rules whose scopes are held."""
        covered = (rule.id for rule in self.about.tools if held.covers(rule.scopes))
        return tuple(sorted({*self.matched, *covered}))

    def obligations(self) -> tuple[str, ...]:
        """What the enforcement point must do."""
        about = self.about
        if about.listing and not about.ceilings and (self.matched or not about.intents):
            return ()
        found = {f"result-bytes:{one.result_bytes}" for one in about.ceilings if one.result_bytes is not None}
        if not about.listing or (about.intents and not self.matched):
            found.add("observed")
        return tuple(sorted(found))

    def taken(self) -> tuple[Reservation, ...]:
        """What the grant takes from counters, sorted by rule; known once `counters` was asked to its end."""
        return tuple(self._taken)

    def marks(self) -> tuple[Mark, ...]:
        """What a good ending notes."""
        opening = [sequence for sequence in self.about.opening if sequence.requires]
        if not opening:
            return ()
        call = self.call
        scope = self.policy.scope(call.principal, call.tool, call.conversation)
        return tuple(sorted((one.marked(scope) for one in opening), key=lambda mark: mark.counter))

    # -- where values come from ----------------------------------------------------------------------

    def by_pointer(self) -> dict[str, Origin]:
        """The origin of each sensitive argument that is there, by its pointer into the arguments."""
        return {pointer: found for _, every in self.judged() for pointer, found in every.items()}

    def judged(self) -> list[tuple[OriginRule, dict[str, Origin]]]:
        """Each rule on origins, with the origin of each value that it is about. Raises RuleFailed."""
        if self._origins is None:
            self._origins = [(rule, self._of(rule)) for rule in self.about.origins]
        return self._origins

    def _of(self, rule: OriginRule) -> dict[str, Origin]:
        seen = self.call.facts.seen
        if seen is None:  # nobody looked
            raise RuleFailed(rule.id)
        try:
            overrides = self.policy.remembering.user_overrides
            return {
                pointer: origin(value, seen, rule.constants, user_overrides=overrides)
                for argument in rule.arguments
                for pointer, value in values_at(self.call.arguments, argument)
            }
        except Exception as error:
            raise RuleFailed(rule.id) from error

    def _unaccepted(self) -> Iterator[tuple[OriginRule, tuple[str, ...]]]:
        """Every rule on origins that does not accept some value, with pointers into the request."""
        at = ARGUMENTS[self.call.tool.kind]
        for rule, every in self.judged():
            wrong = sorted(
                f"{at}{pointer}" for pointer, found in every.items() if not found.accepted_by(rule.accept)
            )
            if wrong:
                yield rule, tuple(wrong)
