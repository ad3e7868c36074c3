"""Check a lineage from its rows alone: every leaf, chain, ending, seal, tree node and the checkpoint.

Nothing here needs a secret or trusts the program that wrote the rows: what is checked is the
bytes that stand there, and whether the holder of the checkpoint key signed for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from guard.core.canonical import b64
from guard.core.errors import GuardError
from guard.lineage.checkpoint import Checkpoint, VerifierKey, open_checkpoint
from guard.lineage.entry import ENDINGS, GENESIS, Kind, opened, parse
from guard.lineage.grown import Grown
from guard.lineage.ranges import Brief, Fault, Stage, named, parts
from guard.lineage.sources import Rows, Source, SqliteSource
from guard.lineage.store import EntryRow

MAX_FINDINGS: Final = 10_000
"""How many findings are kept. A record in which everything is wrong does not take all memory."""

Progress = Callable[[int, int], None]
"""Told now and then how many entries were checked, and how many the head says that there are."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it was recorded.

    Attributes:
        entry: index of the entry, None where it is about more than one.
        conversation: the log's id of the conversation, "" where it is about none.
        what: what is wrong.
    """

    entry: int | None
    conversation: str
    what: str


@dataclass(slots=True)
class Report:
    """What an audit found.

    Attributes:
        entries: how many entries there are.
        chains: how many entries each conversation has, by its id.
        granted, ended, denied: how many entries of these kinds.
        open: calls that were granted and have no ending yet.
        erased: entries whose disclosures are gone; no fault, they can no longer be read.
        sealed: how many conversations are closed.
        waiting: what is durable and has no place in the log yet; of it only the calls are looked at.
        size: tree size of the signed checkpoint, None if it does not verify.
        root: root hash of that checkpoint, base64url.
        findings: everything that is wrong, at most MAX_FINDINGS; empty if nothing is.
        further: how many more there were.
    """

    entries: int = 0
    chains: dict[str, int] = field(default_factory=dict)
    granted: int = 0
    ended: int = 0
    denied: int = 0
    open: list[str] = field(default_factory=list)
    erased: int = 0
    sealed: int = 0
    waiting: int = 0
    size: int | None = None
    root: str = ""
    findings: list[Finding] = field(default_factory=list)
    further: int = 0

    @property
    def conversations(self) -> int:
        """How many conversations there are."""
        return len(self.chains)

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings


def audit(
    store: Path | Source,
    vkeys: list[VerifierKey],
    *,
    kept: Sequence[Checkpoint] = (),
    progress: Progress | None = None,
    cores: int | None = None,
) -> Report:
    """Recompute everything that a store holds.

    Memory does not grow with the entries. It grows by less than a kilobyte for each conversation and
    each open grant, and by what is found.

    Args:
        store: a SQLite file, or where else the rows are.
        vkeys: checkpoint keys that are trusted.
        kept: checkpoints that were kept elsewhere, verified: the tree must begin with theirs.
        progress: told after each range of entries.
        cores: how many processes check. Unless given all that this one may use, and one for a small log.

    Raises:
        StoreError: there is no store, or it cannot be read.
    """
    source = SqliteSource(store) if isinstance(store, Path) else store
    with source.opened() as rows:
        return _Audit(rows, kept).run(source, vkeys, progress, cores)


@dataclass(slots=True)
class _Chain:
    entries: int = 0
    head: bytes = b""
    who: bytes = b""
    sealed: bool = False


class _Audit:
    """The part that depends on the order: one entry after the other, each only briefly."""

    def __init__(self, rows: Rows, kept: Sequence[Checkpoint]) -> None:
        self._rows = rows
        self._kept = kept
        self._tree = Grown(rows, [checkpoint.size for checkpoint in kept])
        self._report = Report()
        self._chains: dict[str, _Chain] = {}
        self._open: dict[str, int] = {}
        self._faults: list[Fault] = []
        self._last = 0
        self._next = 0

    def run(
        self, source: Source, vkeys: list[VerifierKey], progress: Progress | None, cores: int | None
    ) -> Report:
        size = (self._rows.head() or (None, 0))[1]
        for part in parts(source, self._rows, cores):
            self._faults = part.faults
            for brief in part.briefs:
                self._entry(brief)
            for conversation, who in part.who.items():
                chain = self._chain(conversation)
                chain.who = chain.who or who
            self._report.erased += part.erased
            self._faults += self._tree.add(part)
            for fault in sorted(self._faults, key=lambda fault: fault[:2]):
                self._find(*fault[2:])
            if part.damaged:
                self._find(self._report.entries, "", f"the store is damaged here: {part.damaged}")
                break
            if progress is not None:
                progress(self._report.entries, size if isinstance(size, int) else 0)
        for _ in range(self._rows.strays()):
            self._find(None, "", "a row of the entries has no index")
        self._chains_end()
        self._open_end()
        self._checkpoint(vkeys)
        self._beginnings()
        self._report.open = sorted(self._open, key=self._open.__getitem__)
        self._report.chains = {name: chain.entries for name, chain in self._chains.items()}
        return self._report

    def _find(self, entry: int | None, conversation: str, what: str) -> None:
        if len(self._report.findings) < MAX_FINDINGS:
            self._report.findings.append(Finding(entry, conversation, what))
        else:
            self._report.further += 1

    def _chain(self, conversation: str) -> _Chain:
        chain = self._chains.get(conversation)
        if chain is None:
            chain = self._chains[conversation] = _Chain()
        return chain

    # -- one entry after the other -------------------------------------------------------------

    def _entry(self, brief: Brief) -> None:
        if brief.number != self._next:
            what = (
                f"the entries {self._next} to {brief.number - 1} are missing"
                if brief.number > self._next
                else "an entry in a place where none can be"
            )
            self._fault(brief, Stage.GAP, what, conversation="")
        self._next = brief.number + 1
        self._report.entries += 1
        if brief.leaf is None:
            conversation, seq = brief.filed
            chain = self._chain(conversation)
            chain.entries, chain.head = seq + 1, brief.hash
            return
        conversation, seq, prev, at, kind, call = brief.leaf
        chain = self._chain(conversation)
        if seq != chain.entries:
            self._fault(brief, Stage.CHAIN, f"entry {seq} follows {chain.entries} entries: a gap")
        if prev != (b64(chain.head) if chain.head else GENESIS):
            self._fault(brief, Stage.CHAIN, "the chain is broken: `prev` is not the entry before")
        if chain.sealed:
            self._fault(brief, Stage.CHAIN, "an entry after the seal of its conversation")
        if at < self._last:
            self._fault(brief, Stage.CHAIN, "the time runs backwards")
        self._last = max(self._last, at)
        chain.entries, chain.head = seq + 1, brief.hash
        if kind is Kind.SEALED:
            self._seal(brief, chain)
        else:
            self._ending(brief, kind, call)

    def _ending(self, brief: Brief, kind: Kind, call: str) -> None:
        if kind is Kind.GRANTED:
            self._report.granted += 1
            if call in self._open:
                self._fault(brief, Stage.ENDING, "a grant under the id of an open one")
            self._open[call] = brief.number
        elif kind in ENDINGS:
            self._report.ended += 1
            if self._open.pop(call, None) is None:
                self._fault(brief, Stage.ENDING, "an ending without its grant, or a second one")
        elif kind is Kind.DENIED:
            self._report.denied += 1

    def _seal(self, brief: Brief, chain: _Chain) -> None:
        self._report.sealed += 1
        chain.sealed = True
        if brief.total is not None and brief.total != chain.entries:
            what = f"the seal counts {brief.total!r} entries and is number {chain.entries}"
            self._fault(brief, Stage.ENDING, what)

    def _fault(self, brief: Brief, stage: Stage, what: str, *, conversation: str | None = None) -> None:
        if conversation is None:
            conversation = brief.leaf[0] if brief.leaf else brief.filed[0]
        self._faults.append(Fault(brief.number, stage, brief.number, conversation, what))

    # -- what must be true of all ---------------------------------------------------------------

    def _chains_end(self) -> None:
        listed = set()
        for row in self._rows.conversations():
            chain = self._chains.get(row.id)
            if chain is None:
                chain = _Chain()
            else:
                listed.add(row.id)
            if chain.who and chain.who != named(row.who):
                self._find(None, row.id, "it is filed under another caller than its entries name")
            if (row.entries, row.head) != (chain.entries, chain.head):
                self._find(None, row.id, f"{row.entries} entries were recorded, {chain.entries} stand here")
            if row.sealed is not None and row.sealed != chain.sealed:
                what = "it is closed, and its seal is missing" if row.sealed else "it has a seal and is open"
                self._find(None, row.id, what)
        for conversation in sorted(self._chains.keys() - listed):
            self._find(None, conversation, "the conversation is not listed")

    def _open_end(self) -> None:
        owed = set(self._open)
        for kind, call in self._rows.waiting():
            self._report.waiting += 1
            if kind == Kind.GRANTED:
                owed.add(call)
            elif kind in ENDINGS:
                owed.discard(call)
        if set(self._rows.open_calls()) != owed:
            self._find(None, "", "the open grants are not those that the entries leave open")

    def _checkpoint(self, vkeys: list[VerifierKey]) -> None:
        try:
            signed: Checkpoint = open_checkpoint(self._rows.checkpoint(), vkeys)
        except (GuardError, TypeError) as error:
            self._find(None, "", f"the checkpoint does not verify: {error}")
            return
        self._report.size, self._report.root = signed.size, b64(signed.root)
        count, frontier = self._report.entries, self._tree.frontier()
        if signed.size != count:
            self._find(None, "", f"the checkpoint signs {signed.size} entries, {count} stand here")
        elif frontier is None or signed.root != frontier.root():
            self._find(None, "", "the checkpoint signs another tree")
        packed = None if frontier is None else frontier.packed()
        if self._rows.head() != (signed.origin, count, packed, self._last):
            self._find(None, "", "the head is not that of the entries")

    def _beginnings(self) -> None:
        """What was signed once must be how the tree begins today."""
        for kept in self._kept:
            if kept.size > self._report.entries:
                what = f"a kept checkpoint signs {kept.size} entries, {self._report.entries} stand here"
                self._find(None, "", what)
            elif self._tree.roots.get(kept.size) != kept.root:
                what = f"the first {kept.size} entries are not those that a kept checkpoint signs"
                self._find(None, "", what)


def readable(row: EntryRow) -> dict[str, Any]:
    """An entry for people and programs: its leaf, and the fields that can be opened.

    Raises:
        ValueError: the leaf cannot be read, or does not commit to what stands beside it.
    """
    leaf = parse(row.leaf)
    fields = opened(leaf, orjson.loads(row.disclosures)) if row.disclosures is not None else None
    return {
        "index": row.index,
        "conversation": leaf.conversation,
        "seq": leaf.seq,
        "at": leaf.at,
        "kind": leaf.kind.value,
        "call": leaf.call,
        "leaf_sha256": b64(row.hash),
        "fields": fields,
    }
