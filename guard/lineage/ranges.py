"""What an audit can check of a range of entries alone: leaves, what opens them, and the tree below it.

A range is a complete subtree of the log: RANGE entries, at a multiple of RANGE. Ranges are checked in
any process and any order; what depends on the order (chains, endings, time) goes on, short, to `audit`.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import sha256
from itertools import islice
from threading import Thread
from typing import Any, Final, NamedTuple

import orjson

from guard.core.errors import printable
from guard.lineage import merkle
from guard.lineage.database import StoreError
from guard.lineage.entry import Kind, Leaf, opened, parse
from guard.lineage.sources import Rows, Source
from guard.lineage.store import EntryRow

LEVEL: Final = 11
RANGE: Final = 1 << LEVEL
"""Entries that are checked together."""
MAX_CORES: Final = 64
_AHEAD: Final = 3
"""Ranges for each process that may be checked and wait for those before them: what memory they take."""
_WORTH: Final = 4 * RANGE
"""Below so many entries a second process takes longer to start than it saves."""


class Stage(IntEnum):
    """In which order what is wrong with one entry is told."""

    GAP = 0
    LEAF = 1
    PLACE = 2
    CHAIN = 3
    ENDING = 4
    OPENING = 5
    NODE = 6


class Fault(NamedTuple):
    """Something wrong: at which index it is told and at which stage; then as `audit.Finding`."""

    at: float
    stage: Stage
    entry: int | None
    conversation: str
    what: str


class Brief(NamedTuple):
    """An entry, as far as what comes after it depends on it.

    Attributes:
        number: its index.
        filed: under which conversation and `seq` its row stands.
        hash: the leaf hash that stands.
        leaf: conversation, seq, prev, time, kind and call of its leaf; None if it cannot be read.
        total: of a seal, the total that it opens to, if it does.
    """

    number: int
    filed: tuple[str, int]
    hash: bytes
    leaf: tuple[str, int, str, int, Kind, str] | None
    total: Any


@dataclass(slots=True)
class Part:
    """A range that was checked.

    Attributes:
        first: its first index.
        briefs: its entries, in order.
        faults: what is wrong.
        erased: entries whose disclosures are gone.
        peaks: as of a `Frontier` of its entries, if they begin at `first` and have no gap; else None.
        who: whose the conversations are, as the first entry here that names it says: SHA-256, by id.
        damaged: why reading stopped, "" if it did not.
    """

    first: int
    briefs: list[Brief] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    erased: int = 0
    peaks: tuple[bytes, ...] | None = None
    who: dict[str, bytes] = field(default_factory=dict)
    damaged: str = ""


def named(who: tuple[Any, ...]) -> bytes:
    """32 bytes that stand for tenant, issuer, subject and given id, whatever they are made of."""
    return sha256(repr(who).encode("utf-8", "backslashreplace")).digest()


# -- one range -------------------------------------------------------------------------------------


def check(rows: Rows, first: int, last: int, damage: tuple[type[Exception], ...]) -> Part:
    """Check the range that begins at `first`, as far as `last`. Raises one of `damage`, of other rows."""
    part = Part(first)
    hashes: dict[int, bytes] = {}
    entries = rows.entries(first, min(first + RANGE, last + 1))
    while True:
        try:
            row = next(entries)
        except StopIteration:
            break
        except damage as error:
            part.damaged = printable(str(error)) or "cannot be read"
            break
        if isinstance(row.index, int):
            row = _typed(row)
            hashed = merkle.leaf_hash(row.leaf)
            # The tree is grown over the hash that stands, so that one bad leaf is one finding.
            hashes[row.index] = row.hash if len(row.hash) == len(hashed) else hashed
            part.briefs.append(_brief(part, row, hashed))
        else:
            at = row.index if isinstance(row.index, float) else first
            part.faults.append(Fault(at, Stage.GAP, None, "", "a row of the entries has no index"))
    _tree(part, rows, hashes)
    return part


def _brief(part: Part, row: EntryRow, hashed: bytes) -> Brief:
    def found(stage: Stage, conversation: str, what: str) -> None:
        part.faults.append(Fault(row.index, stage, row.index, conversation, what))

    filed = (row.conversation, row.seq)
    if hashed != row.hash:
        found(Stage.LEAF, row.conversation, "the leaf is not the one that was recorded")
    try:
        leaf = parse(row.leaf)
    except ValueError as error:
        found(Stage.PLACE, row.conversation, str(error))
        return Brief(row.index, filed, row.hash, None, None)
    if (leaf.conversation, leaf.seq) != filed:
        found(Stage.PLACE, row.conversation, "the leaf belongs to another place than it is filed under")
    fields = _fields(part, row, leaf)
    if isinstance(fields, str):
        found(Stage.OPENING, leaf.conversation, fields)
        fields = {}
    match fields:
        case {"tenant": tenant, "principal": [issuer, subject], "conversation": {"id": given}}:
            if leaf.conversation not in part.who:
                part.who[leaf.conversation] = named((tenant, issuer, subject, given))
    total = fields.get("total") if leaf.kind is Kind.SEALED else None
    brief = (leaf.conversation, leaf.seq, leaf.prev, leaf.at, leaf.kind, leaf.call)
    return Brief(row.index, filed, row.hash, brief, total)


def _fields(part: Part, row: EntryRow, leaf: Leaf) -> dict[str, Any] | str:
    """The fields of an entry, {} where they are erased; or what is wrong with them."""
    if row.disclosures is None:
        part.erased += 1
        return {}
    try:
        fields = opened(leaf, orjson.loads(row.disclosures))
    except (ValueError, TypeError, AttributeError):
        return "what stands beside the leaf does not open it"
    return fields if len(fields) == len(leaf.digests) else "a field is missing beside the leaf"


def _tree(part: Part, rows: Rows, hashes: dict[int, bytes]) -> None:
    """Compare each node whose leaves are all here."""
    if [brief.number for brief in part.briefs] == list(range(part.first, part.first + len(hashes))):
        part.peaks = merkle.Frontier.empty().extended(list(hashes.values()))[0].peaks
    for level in range(1, LEVEL + 1):
        hashes = {
            index >> 1: merkle.node_hash(left, hashes[index + 1])
            for index, left in hashes.items()
            if not index & 1 and index + 1 in hashes
        }
        if not hashes:
            return
        start = part.first >> level
        stand = rows.nodes(level, start, start + (RANGE >> level))
        part.faults += [
            wrong_node(level, index) for index, node in hashes.items() if stand.get(index) != node
        ]


def wrong_node(level: int, index: int) -> Fault:
    """A node that is not what is below it; it is told with the entry that completes it."""
    entry = ((index + 1) << level) - 1
    what = f"the tree node {level}/{index} is not the hash of what is below it"
    return Fault(entry, Stage.NODE, entry, "", what)


def _typed(row: EntryRow) -> EntryRow:
    """The row with a value that cannot be right where the store holds another type than was written."""
    return EntryRow(
        row.index,
        row.conversation if isinstance(row.conversation, str) else "",
        row.seq if isinstance(row.seq, int) else -1,
        row.hash if isinstance(row.hash, bytes) else b"",
        row.leaf if isinstance(row.leaf, bytes) else b"",
        row.disclosures if isinstance(row.disclosures, bytes | None) else b"",
    )


# -- all of them -----------------------------------------------------------------------------------


def starts(rows: Rows) -> Iterator[int]:
    """Where each range begins that has an entry, in order."""
    at = rows.first_index(None)
    while at is not None:
        first = at >> LEVEL << LEVEL
        yield first
        at = rows.first_index(first + RANGE)


def parts(source: Source, rows: Rows, cores: int | None = None) -> Iterator[Part]:
    """Check every range that has an entry; hand them out in order.

    Args:
        source: what other processes open.
        rows: what this one has open: it says which ranges there are.
        cores: how many processes; all that this one may use unless given.

    Raises:
        StoreError: a process ended, or what is not the entries is damaged.
    """
    firsts = starts(rows)
    count = min(cores or len(os.sched_getaffinity(0)), MAX_CORES)
    last = rows.last_index() or 0  # other processes see what is appended meanwhile, and must not look
    some = list(islice(firsts, max(_WORTH // RANGE, 1)))
    if count == 1 or (cores is None and len(some) < _WORTH // RANGE):
        for first in (*some, *firsts):
            yield check(rows, first, last, source.damage)
        return
    # A fresh process shares nothing with this one: no connection, no lock of a thread.
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _open, (source,))
    try:
        under_way: deque[Future[Part]] = deque()
        for first in (*some, *firsts):
            under_way.append(pool.submit(_check, first, last))
            if len(under_way) >= count * _AHEAD:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    except BrokenProcessPool:
        raise StoreError("a process that checked a part of it ended", remedy="run it again") from None
    finally:
        pool.shutdown(cancel_futures=True)


_HERE: list[tuple[Source, Rows]] = []
"""What a process of the pool has open."""
_UNTIL_THE_END: Final = ExitStack()


def _open(source: Source) -> None:
    """Once in each process, which ends with the one that started it, however that one ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who interrupts the parent ends the pool
    if (parent := multiprocessing.parent_process()) is not None:
        Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    _HERE.append((source, _UNTIL_THE_END.enter_context(source.opened())))


def _end_with(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


def _check(first: int, last: int) -> Part:
    source, rows = _HERE[0]
    try:
        return check(rows, first, last, source.damage)
    except source.damage as error:
        raise StoreError(f"it is damaged: {printable(str(error))}") from None
