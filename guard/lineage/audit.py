"""Check a lineage from its file alone: every leaf, chain, ending, tree node and the checkpoint.

Nothing here needs a secret or trusts the program that wrote the file: what is checked is the
bytes that stand there, and whether the holder of the checkpoint key signed for them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from guard.core.canonical import b64
from guard.core.errors import GuardError, printable
from guard.lineage import merkle
from guard.lineage.checkpoint import Checkpoint, VerifierKey, open_checkpoint
from guard.lineage.database import StoreError, connect
from guard.lineage.entry import ENDINGS, GENESIS, Kind, Leaf, opened, parse
from guard.lineage.rows import read_checkpoint, read_conversations, read_entries, read_head, read_node
from guard.lineage.store import EntryRow


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
        size: tree size of the signed checkpoint, None if it does not verify.
        root: root hash of that checkpoint, base64url.
        findings: everything that is wrong; empty if nothing is.
    """

    entries: int = 0
    chains: dict[str, int] = field(default_factory=dict)
    granted: int = 0
    ended: int = 0
    denied: int = 0
    open: list[str] = field(default_factory=list)
    erased: int = 0
    size: int | None = None
    root: str = ""
    findings: list[Finding] = field(default_factory=list)

    @property
    def conversations(self) -> int:
        """How many conversations there are."""
        return len(self.chains)

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings


def audit(path: Path, vkeys: list[VerifierKey]) -> Report:
    """Recompute everything that a store's file holds.

    Args:
        path: the SQLite file.
        vkeys: checkpoint keys that are trusted.

    Raises:
        StoreError: there is no such file, or it is no store.
    """
    try:
        with closing(connect(path, read_only=True)) as db:
            # One read transaction: a Guard that is writing meanwhile does not disturb the picture.
            db.execute("BEGIN")
            return _Audit(db).run(vkeys)
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # damaged names do not decode
        raise StoreError(f"the file is damaged: {printable(str(error))}", where=str(path)) from None


@dataclass(slots=True)
class _Chain:
    entries: int = 0
    head: bytes = b""


class _Audit:
    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._report = Report()
        self._who: dict[str, tuple[Any, ...]] = {}
        self._chains: dict[str, _Chain] = {}
        self._open: dict[str, int] = {}
        self._last = 0

    def run(self, vkeys: list[VerifierKey]) -> Report:
        frontier = merkle.Frontier.empty()
        for row in self._rows():
            if row.index != self._report.entries:
                self._find(
                    row.index, "", f"the entries {self._report.entries} to {row.index - 1} are missing"
                )
            self._report.entries += 1
            hashed = merkle.leaf_hash(row.leaf)
            self._entry(row, hashed)
            # The tree is grown over the hash that stands, so that one bad leaf is one finding.
            frontier, nodes = frontier.append(row.hash if len(row.hash) == len(hashed) else hashed)
            for level, index, node in nodes:
                self._node(level, index, node, row.index)
        self._chains_end()
        self._checkpoint(frontier, vkeys)
        self._report.open = sorted(self._open, key=self._open.__getitem__)
        self._report.chains = {name: chain.entries for name, chain in self._chains.items()}
        return self._report

    def _rows(self) -> Iterator[EntryRow]:
        rows = read_entries(self._db)
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            except sqlite3.DatabaseError as error:
                self._find(self._report.entries, "", f"the file is damaged here: {printable(str(error))}")
                return
            if isinstance(row.index, int):
                yield _typed(row)
            else:
                self._find(None, "", "a row of the entries has no index")

    def _find(self, entry: int | None, conversation: str, what: str) -> None:
        self._report.findings.append(Finding(entry, conversation, what))

    def _entry(self, row: EntryRow, hashed: bytes) -> None:
        if hashed != row.hash:
            self._find(row.index, row.conversation, "the leaf is not the one that was recorded")
        try:
            leaf = parse(row.leaf)
        except ValueError as error:
            self._find(row.index, row.conversation, str(error))
            self._chain(row.conversation).entries = row.seq + 1
            self._chain(row.conversation).head = row.hash
            return
        self._place(row, leaf)
        self._ending(row, leaf)
        self._disclosures(row, leaf)

    def _chain(self, conversation: str) -> _Chain:
        return self._chains.setdefault(conversation, _Chain())

    def _place(self, row: EntryRow, leaf: Leaf) -> None:
        if (leaf.conversation, leaf.seq) != (row.conversation, row.seq):
            self._find(
                row.index, row.conversation, "the leaf belongs to another place than it is filed under"
            )
        chain = self._chain(leaf.conversation)
        if leaf.seq != chain.entries:
            self._find(
                row.index, leaf.conversation, f"entry {leaf.seq} follows {chain.entries} entries: a gap"
            )
        if leaf.prev != (b64(chain.head) if chain.head else GENESIS):
            self._find(row.index, leaf.conversation, "the chain is broken: `prev` is not the entry before")
        if leaf.at < self._last:
            self._find(row.index, leaf.conversation, "the time runs backwards")
        self._last = max(self._last, leaf.at)
        chain.entries, chain.head = leaf.seq + 1, row.hash

    def _ending(self, row: EntryRow, leaf: Leaf) -> None:
        if leaf.kind is Kind.GRANTED:
            self._report.granted += 1
            if leaf.call in self._open:
                self._find(row.index, leaf.conversation, "a grant under the id of an open one")
            self._open[leaf.call] = row.index
        elif leaf.kind in ENDINGS:
            self._report.ended += 1
            if self._open.pop(leaf.call, None) is None:
                self._find(row.index, leaf.conversation, "an ending without its grant, or a second one")
        elif leaf.kind is Kind.DENIED:
            self._report.denied += 1

    def _disclosures(self, row: EntryRow, leaf: Leaf) -> None:
        if row.disclosures is None:
            self._report.erased += 1
            return
        try:
            disclosures = orjson.loads(row.disclosures)
            fields = opened(leaf, disclosures)
        except (ValueError, TypeError, AttributeError):
            self._find(row.index, leaf.conversation, "what stands beside the leaf does not open it")
            return
        if len(fields) != len(leaf.digests):
            self._find(row.index, leaf.conversation, "a field is missing beside the leaf")
        self._named(leaf.conversation, fields)

    def _named(self, conversation: str, fields: dict[str, Any]) -> None:
        """Whose conversation its entries say that it is."""
        match fields:
            case {"tenant": tenant, "principal": [issuer, subject], "conversation": {"id": given}}:
                self._who.setdefault(conversation, (tenant, issuer, subject, given))

    def _node(self, level: int, index: int, node: bytes, entry: int) -> None:
        try:
            stands = read_node(self._db, level, index)
        except KeyError:
            stands = b""
        if stands != node:
            self._find(entry, "", f"the tree node {level}/{index} is not the hash of what is below it")

    def _chains_end(self) -> None:
        unlisted = set(self._chains)
        for row in read_conversations(self._db):
            unlisted.discard(row.id)
            chain = self._chains.get(row.id, _Chain())
            who = (row.tenant, row.issuer, row.subject, row.given)
            if self._who.get(row.id, who) != who:
                self._find(None, row.id, "it is filed under another caller than its entries name")
            if (row.entries, row.head) != (chain.entries, chain.head):
                self._find(None, row.id, f"{row.entries} entries were recorded, {chain.entries} stand here")
        for conversation in sorted(unlisted):
            self._find(None, conversation, "the conversation is not listed")
        owed = {row[0] for row in self._db.execute("SELECT call FROM open_grants")}
        if owed != set(self._open):
            self._find(None, "", "the open grants are not those that the entries leave open")

    def _checkpoint(self, frontier: merkle.Frontier, vkeys: list[VerifierKey]) -> None:
        try:
            signed: Checkpoint = open_checkpoint(read_checkpoint(self._db), vkeys)
        except (GuardError, TypeError) as error:
            self._find(None, "", f"the checkpoint does not verify: {error}")
            return
        self._report.size, self._report.root = signed.size, b64(signed.root)
        if signed.size != frontier.size:
            self._find(None, "", f"the checkpoint signs {signed.size} entries, {frontier.size} stand here")
        elif signed.root != frontier.root():
            self._find(None, "", "the checkpoint signs another tree")
        if read_head(self._db) != (signed.origin, frontier.size, frontier.packed(), self._last):
            self._find(None, "", "the head is not that of the entries")


def _typed(row: EntryRow) -> EntryRow:
    """The row with a value that cannot be right where the file holds another type than was written."""
    return EntryRow(
        row.index,
        row.conversation if isinstance(row.conversation, str) else "",
        row.seq if isinstance(row.seq, int) else -1,
        row.hash if isinstance(row.hash, bytes) else b"",
        row.leaf if isinstance(row.leaf, bytes) else b"",
        row.disclosures if isinstance(row.disclosures, bytes | None) else b"",
    )


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
