"""One commit to the shared store: what it judges, and the rows that it writes at its end.

What every call does is gathered and written in one statement a table, in one round trip with the COMMIT.
What is rare is written at once. An entry goes to the inbox; its place in the log is the sequencer's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import orjson

from guard.core.errors import Reason
from guard.core.model import UNBOUNDED
from guard.lineage import strikes
from guard.lineage.batch import HOUSE, NO_ENTRY, Key
from guard.lineage.effects import Rare
from guard.lineage.entry import Draft, Kind
from guard.lineage.postgres import effects
from guard.lineage.postgres.connection import Connection
from guard.lineage.postgres.counters import LATE, Counters
from guard.lineage.postgres.memories import Memories
from guard.lineage.postgres.needs import Found, MustBeAlone, conversation_key, counted, key_digest, special
from guard.lineage.postgres.questions import Questions
from guard.lineage.questions import approval_key
from guard.lineage.transaction import (
    AnswerQuestion,
    CloseGrant,
    Conflict,
    Contain,
    Effect,
    Moved,
    OpenGrant,
    Outcome,
    Place,
    Recorded,
    Release,
    Remember,
    Reserve,
    SaveQuestion,
    SaveSetting,
    Seal,
    Strike,
    Transaction,
    Unmoved,
    UseApproval,
    UseKey,
)

ASTRAY: Final = 10_000
"""Milliseconds that a writer's clock may be away from the database's and still grant."""
_ASTRAY: Final = {
    "the clock of this machine is ahead of the database's by more than 10 seconds": Reason.CLOCK_AHEAD,
    "the clock of this machine is behind the database's by more than 10 seconds": Reason.CLOCK_BEHIND,
}
NOWHERE: Final = -1
"""The index of an entry that has no place in the log yet."""
_CONVERSATION_BYTES: Final = 12

_INBOX: Final = (
    "INSERT INTO inbox (conversation, at, kind, call, digests, disclosures)"
    " SELECT conversation, at, kind, call, string_to_array(digests, ' '), disclosures"
    " FROM unnest(%s::text[], %s::bigint[], %s::text[], %s::text[], %s::text[], %b::bytea[])"
    " WITH ORDINALITY AS one (conversation, at, kind, call, digests, disclosures, place) ORDER BY place"
)
_BEGUN: Final = (
    "begun AS (INSERT INTO conversations (id, tenant, issuer, subject, given, source, opened, key)"
    " SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[],"
    " %s::bigint[], %b::bytea[]))"
)
_CLOSED: Final = (
    "closed AS (DELETE FROM open_grants g USING unnest(%s::text[], %s::text[]) AS ended (tenant, call)"
    " WHERE g.tenant = ended.tenant AND g.call = ended.call)"
)
_OPENED: Final = (
    "opened AS (INSERT INTO open_grants (tenant, call, conversation, instance)"
    " SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[]))"
)
# The second of several replicas that say so at once has nothing to add, and does not wait for the first.
_USED: Final = (
    "UPDATE api_keys k SET last_used = said.at FROM (SELECT one.key_id, one.at"
    " FROM unnest(%s::text[], %s::bigint[]) AS one (key_id, at) JOIN api_keys a ON a.key_id = one.key_id"
    " WHERE a.last_used IS NULL OR a.last_used < one.at FOR UPDATE OF a SKIP LOCKED) AS said"
    " WHERE k.key_id = said.key_id"
)
Clock = Callable[[int, int], int]
"""When it is, by the database's clock and by the writer's: UNIX milliseconds."""
_Chain = tuple[str, bool]
"""The log's own id of a conversation, and whether it is closed."""


class Batch:
    """The transactions of one commit, taken one after the other inside one database transaction.

    Args:
        db: in a transaction, with the locks that the transactions need.
        found: what stands.
        last: UNIX milliseconds of the newest entry that this process knows of.
        instance_of: the name under which an instance owes endings now.
        said: API keys of which it was said already when they were used last, UNIX seconds.
        clock: when it is.

    Attributes:
        last: UNIX milliseconds of the newest entry, with those that were taken.
        moved: tenants of which something changed that decisions rest on.
        used: API keys that were used: when, UNIX seconds.
    """

    def __init__(
        self,
        db: Connection,
        found: Found,
        last: int,
        *,
        instance_of: Callable[[str], str],
        said: Mapping[str, int],
        clock: Clock,
    ) -> None:
        self.last = max(last, found.last)
        self.moved: set[str] = set()
        self.used: dict[str, int] = {}
        self._db = db
        self._found = found
        self._instance_of = instance_of
        self._said = said
        self._clock = clock
        self._chains: dict[Key, _Chain] = {}
        self._begun: list[tuple[Any, ...]] = []
        self._inbox: list[tuple[Any, ...]] = []
        self._flushed = 0
        self._open = dict(found.grants)
        self._opened: dict[tuple[str, str], tuple[str, str]] = {}
        self._closed: list[tuple[str, str]] = []
        self._counters = Counters(found)
        self._memories = Memories(found)
        self._questions = Questions(found)

    @property
    def waits(self) -> bool:
        """Whether anything was taken that is to be committed."""
        return bool(self._flushed or self._inbox or self._memories.waits)

    def take(self, transaction: Transaction) -> Outcome:
        """Judge one transaction after those before it, and take it unless something is in its way."""
        uncommon = special(transaction.effects)
        wanted = counted(uncommon) if uncommon else []
        found = self._counters.next(len(wanted)) if wanted else []
        tenant, at = transaction.place.tenant, self._time(transaction)
        for key, expected in transaction.expects.items():
            if self._found.versions[tenant].get(key, 0) != expected:
                return Moved(key)
        if transaction.entry is None:
            return self._without_entry(transaction, at)
        if found:
            at = max(at, *(newest for newest, _ in found))
        if problem := self._obstacles(transaction, at):
            return Conflict(problem, _ASTRAY.get(problem, Reason.UNEXPECTED))
        if uncommon and (
            key := self._rests(tenant, uncommon, at) or self._counters.full(tenant, wanted, found, at)
        ):
            return Moved(key)
        conversation = self._append(transaction.place, transaction.entry, at)
        for effect in transaction.effects:
            self._apply(tenant, effect, conversation, at)
        for one, (_, stood) in zip(wanted, found, strict=True):
            if isinstance(one, Strike):
                self._strike(tenant, one, conversation, stood, at)
        self.last = at
        return Recorded(NOWHERE, conversation, at)

    def _without_entry(self, transaction: Transaction, at: int) -> Outcome:
        """Remember, and append nothing: no time passes in the log by it."""
        if not all(isinstance(effect, Remember) for effect in transaction.effects):
            return Conflict(NO_ENTRY)
        for effect in transaction.effects:
            self._apply(transaction.place.tenant, effect, "", at)
        return Recorded(NOWHERE, "", at)

    def write(self) -> None:
        """Write what was gathered. To be called in a pipeline, before its COMMIT."""
        closed = sorted(self._closed)
        if not self._opened.keys().isdisjoint(closed):  # what one statement does has no order
            self._execute(f"WITH {_CLOSED} SELECT 1", closed)
            closed = []
        parts = [
            (sql, rows)
            for sql, rows in (
                (_BEGUN, sorted(self._begun, key=lambda row: row[-1])),
                (_CLOSED, closed),
                (_OPENED, sorted((*grant, *owed) for grant, owed in self._opened.items())),
            )
            if rows
        ]
        first = f"WITH {', '.join(sql for sql, _ in parts)} " if parts else ""
        if self._inbox:
            self._execute(f"{first}{_INBOX}", *(rows for _, rows in parts), self._inbox)
        for sql, rows in (
            *self._counters.statements(self.last),
            (_USED, sorted(use for use in self.used.items() if use[1] > self._said.get(use[0], 0))),
        ):
            if rows:
                self._execute(sql, rows)
        self._questions.write(self._db)
        self._memories.write(self._db, self.last - LATE)
        if self.moved:
            effects.tell(self._db, sorted(self.moved))

    def _execute(self, sql: str, *tables: Sequence[tuple[Any, ...]]) -> None:
        """One statement that takes the columns of these rows, table after table."""
        columns = [list(column) for rows in tables for column in zip(*rows, strict=True)]
        self._db.execute(sql.encode(), columns)

    # -- judging -------------------------------------------------------------------------------

    def _time(self, transaction: Transaction) -> int:
        """When it is: by the one clock that all replicas share, and never before what stands.

        By its own clock what a slow one took would lapse too early: a limit would be taken twice.
        """
        return max(self._clock(self._found.now, transaction.now), self.last)

    def _astray(self, transaction: Transaction) -> str:
        """Why a decision that was made at this time grants nothing, "" if it may."""
        skew = transaction.now - self._clock(self._found.now, transaction.now)
        ahead, behind = _ASTRAY
        return ahead if skew > ASTRAY else behind if skew < -ASTRAY else ""

    def _rests(self, tenant: str, effects_: Sequence[Effect], at: int) -> str:
        """What a decision rested on and is so no more, "" if all is."""
        for effect in effects_:
            if isinstance(effect, Unmoved) and not self._memories.is_at(tenant, effect):
                return effect.memory
            if isinstance(effect, UseApproval) and not self._questions.is_usable(tenant, effect, at):
                return approval_key(effect.id)
        return ""

    def _obstacles(self, transaction: Transaction, at: int) -> str:
        """Why the effects cannot be, "" if they can."""
        chain = self._chain(transaction.place)
        if chain is not None and chain[1]:
            return f"the conversation {chain[0]} is sealed"
        for effect in transaction.effects:
            problem = (
                self._cannot_seal(transaction.place, chain, effect)
                if isinstance(effect, Seal)
                else self._obstacle(transaction, effect, at)
            )
            if problem:
                return problem
        return ""

    def _obstacle(self, transaction: Transaction, effect: Effect, at: int) -> str:
        tenant = transaction.place.tenant
        if isinstance(effect, OpenGrant):
            if problem := self._astray(transaction):
                return problem
            return f"the grant {effect.call} is open already" if (tenant, effect.call) in self._open else ""
        if isinstance(effect, CloseGrant):
            is_open = (tenant, effect.call) in self._open
            return "" if is_open else f"the grant {effect.call} has its ending already"
        if isinstance(effect, Reserve):
            return self._astray(transaction) if effect.most != UNBOUNDED else ""
        if isinstance(effect, SaveQuestion | AnswerQuestion):
            return self._questions.obstacle(tenant, effect, at)
        if isinstance(effect, UseKey | Strike | Remember | Unmoved | UseApproval):
            return ""
        self._flush()  # what is asked for may have begun in this very batch
        return effects.obstacle(self._db, tenant, effect)

    def _cannot_seal(self, place: Place, chain: _Chain | None, effect: Seal) -> str:
        """Why the conversation cannot be closed, "" if it can."""
        if conversation_key(place)[1:3] == HOUSE:
            return "the house's own conversation is never closed"
        if chain is None or chain[0] != effect.conversation:
            return f"there is no conversation {effect.conversation}; `guard lineage list` shows them"
        self._flush()
        row = self._db.execute(
            "SELECT COALESCE((SELECT entries FROM chains WHERE conversation = %(id)s), 0)"
            " + (SELECT count(*) FROM inbox WHERE conversation = %(id)s),"
            " EXISTS (SELECT FROM open_grants WHERE conversation = %(id)s)",
            {"id": chain[0]},
        ).fetchone()
        count, is_open = row or (0, True)
        if effect.total != count + 1:
            return f"the conversation {chain[0]} has {count} entries by now"
        return f"a call of the conversation {chain[0]} has no ending yet" if is_open else ""

    def _chain(self, place: Place) -> _Chain | None:
        """The conversation as it stands; None where it is new."""
        key = conversation_key(place)
        if key not in self._chains and (stands := self._found.conversations.get(key_digest(key))):
            self._chains[key] = stands
        return self._chains.get(key)

    # -- taking --------------------------------------------------------------------------------

    def _append(self, place: Place, entry: Draft, at: int) -> str:
        key, chain = conversation_key(place), self._chain(place)
        if chain is None:
            source = place.conversation.source if place.conversation else "house"
            chain = (os.urandom(_CONVERSATION_BYTES).hex(), False)
            self._begun.append((chain[0], *key, source, at, key_digest(key)))
        self._chains[key] = (chain[0], entry.kind is Kind.SEALED)
        row = (chain[0], at, entry.kind.value, entry.call)
        self._inbox.append((*row, " ".join(entry.digests), orjson.dumps(entry.disclosures)))
        return chain[0]

    def _apply(self, tenant: str, effect: Effect, conversation: str, at: int) -> None:
        """Gather or write an effect whose obstacle was ""."""
        if isinstance(effect, OpenGrant):
            grant = (tenant, effect.call)
            self._open[grant] = conversation
            self._opened[grant] = (conversation, self._instance_of(effect.instance))
        elif isinstance(effect, CloseGrant):
            grant = (tenant, effect.call)
            self._open.pop(grant)
            if self._opened.pop(grant, None) is None:
                self._closed.append(grant)
            if effect.frees_some:
                self._counters.give_back(tenant, effect)
        elif isinstance(effect, Reserve):
            if effect.amount:
                self._counters.take(tenant, effect, at)
        elif isinstance(effect, UseKey):
            self.used[effect.key_id] = max(at // 1000, self.used.get(effect.key_id, 0))
        elif isinstance(effect, Remember):
            self._memories.remember(tenant, effect, at)
        elif isinstance(effect, SaveQuestion | AnswerQuestion | UseApproval):
            self._questions.apply(tenant, effect, at)
        elif not isinstance(effect, Strike | Unmoved):
            self._move(tenant, effect, at)

    def _move(self, tenant: str, effect: Rare, at: int) -> None:
        effects.apply(self._db, tenant, effect, at)
        if isinstance(effect, Contain):
            self._found.contained.add((tenant, effect.kind, effect.target))
        elif isinstance(effect, Release):
            self._found.contained.discard((tenant, effect.kind, effect.target))
        if not isinstance(effect, SaveSetting):
            self.moved.add(tenant)
        if tenant in self._found.versions:
            self._found.versions[tenant] = dict(effects.versions(self._db, tenant))

    def _strike(self, tenant: str, effect: Strike, conversation: str, stood: int, at: int) -> None:
        """Count a denial; and contain if there are enough, with an entry that says why.

        Raises:
            MustBeAlone: there are enough, and the tenant's lock is shared.
        """
        what, house = strikes.contains(effect, conversation), Place(tenant)
        chain = self._chain(house)
        if (chain is not None and what.target == chain[0]) or (
            (tenant, what.kind, what.target) in self._found.contained
        ):
            return
        if self._counters.strike(tenant, effect, stood, at):
            if tenant not in self._found.alone:
                raise MustBeAlone(tenant)
            self._append(house, strikes.told(effect, what), at)
            self._move(tenant, what, at)

    def _flush(self) -> None:
        """Write what was gathered so far, for a question that only the database can answer."""
        moved, self.moved = self.moved, set()
        with self._db.pipeline():
            self.write()
        self.moved = moved
        self._begun, self._closed, self._opened = [], [], {}
        self._flushed += len(self._inbox)
        self._inbox = []
        self._counters.written()


def unfit(transaction: Transaction) -> str:
    """Why the database cannot hold a text that came from outside, "" if it can."""
    return "a NUL or half a character in a name" if any(map(_is_unfit, _texts(transaction))) else ""


def _texts(transaction: Transaction) -> Iterator[str]:
    yield from conversation_key(transaction.place)
    if transaction.entry is not None:
        yield transaction.entry.call
    for effect in transaction.effects:
        if isinstance(effect, OpenGrant | CloseGrant | Reserve):
            yield effect.call
        elif isinstance(effect, Strike):
            yield from (effect.call, effect.target)
        elif isinstance(effect, SaveQuestion | AnswerQuestion):
            yield from (effect.id, effect.issuer, effect.subject)
        elif isinstance(effect, UseApproval):
            yield effect.id


def _is_unfit(text: str) -> bool:
    try:
        return b"\0" in text.encode()
    except UnicodeEncodeError:
        return True
