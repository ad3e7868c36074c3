"""A million entries: do append, conversation lookup, inclusion proof and memory stay flat?

    python scripts/scale.py [--entries 1000000] [--postgres URL]

Fills a store through its own `apply`, in batches as the log's writer makes them, with entries as calls make
them: a grant and its ending each, over many conversations. At every tenth: time of an entry, time to find a
conversation by its id and read it, time to make and check a proof, memory. Then everything is audited. Prints
figures and writes build/figures/scale.json; exits 1 where anything is not flat, or anything is wrong.

Flat is judged by the CPU time of the thread that does it, since a busy machine changes that least; what the
clock says is written too. Fewer than 100,000 entries say nothing about it. With --postgres the same again in
that database, which must be empty: the tables are made in it, a sequencer runs beside, and the figures go to
build/figures/scale_postgres.json.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from statistics import median
from time import perf_counter, sleep, thread_time
from typing import Any, Final, Protocol

import figures
from bench_parts import machine

from guard.artifact.grant import Grant
from guard.core.canonical import b64, sha256
from guard.core.keys import SigningKey
from guard.core.model import Allow, Call, Conversation, Facts, Pin, PolicyRef, Principal, Tool
from guard.lineage import merkle, proof
from guard.lineage.audit import audit
from guard.lineage.checkpoint import VerifierKey
from guard.lineage.sources import Source, SqliteSource
from guard.lineage.sqlite import SqliteStore
from guard.lineage.store import EntryRow, Outcome, Recorded, Transaction
from guard.proxy import records
from guard.proxy.endings import Returned

FOLDER: Final = Path(__file__).parent.parent / "build" / "scale"
"""On a disk, and emptied at each start."""
KEY: Final = SigningKey.load(bytes(range(32)))
ORIGIN: Final = "guard.example/scale"
VKEY: Final = VerifierKey.of(ORIGIN, KEY.public)
POLICY: Final = PolicyRef("scale", 1, "p" * 43)
ROLE: Final = "reader"
BATCH: Final = 64
"""Entries in one commit: what 64 calls in flight come to."""
TENTHS: Final = 10
LOOKUPS: Final = 101
PROOFS: Final = 101
START: Final = 1_790_000_000_000
AT_ONCE: Final = 64
CALLS_EACH: Final = 10
"""So many conversations at a time, of so many calls each."""
ENOUGH: Final = 100_000
"""Entries from which on it is judged whether anything grew."""
NOTED: Final = 0.01
"""Of so many calls the conversation is remembered, to be looked up once it is over."""
GROWTH: Final = 2.0
"""How far the last tenth may be above the first. What grew with the log would be ten times as much."""


class Filled(Protocol):
    """What is asked of a store here."""

    def apply(self, batch: Sequence[Transaction]) -> list[Outcome]: ...
    def entries(self, conversation: str | None = None) -> Iterator[EntryRow]: ...
    def leaf(self, index: int) -> bytes: ...
    def node(self, level: int, index: int) -> bytes: ...
    def checkpoint(self) -> str: ...


def call(number: int) -> Call:
    """A call as `bind` makes it; AT_ONCE conversations at a time."""
    talk = number // (AT_ONCE * CALLS_EACH) * AT_ONCE + number % AT_ONCE
    arguments = {"repo_path": "/src/guard", "revision": f"HEAD~{number}", "max_count": 10}
    return Call(
        id=b64(number.to_bytes(16, "big")),
        principal=Principal("default", "api-key", f"user-{talk % 97}", ROLE, credential="k" * 16),
        tool=Tool("git", "git_log", "d" * 43, Pin.MATCHES),
        audience="git",
        method="tools/call",
        params={"name": "git_log", "arguments": arguments},
        conversation=Conversation(f"talk-{talk}", "meta"),
        facts=Facts(now=START + number),
    )


def begun(number: int) -> Transaction:
    """The grant of a call."""
    made, now = call(number), START + number
    token = sha256(made.id.encode())
    grant = Grant(b"", made.id, token, sha256(token.encode()), now // 1000 + 60)
    allow = Allow(rules=("reads",), scopes=("git:read",))
    return records.granted(made, allow, grant, POLICY, now=now, instance="0" * 32)


def over(number: int) -> Transaction:
    """Its ending."""
    return records.ended(call(number), Returned(b'{"content":[]}'), "", now=START + number)


def batches(entries: int) -> Iterator[list[Transaction]]:
    """Grants, each with the endings of those before: as calls in flight come to be committed."""
    half = BATCH // 2
    last: range = range(0)
    for first in range(0, entries // 2, half):
        now = range(first, min(first + half, entries // 2))
        yield [*map(over, last), *map(begun, now)]
        last = now
    yield [*map(over, last)]


def rss_mb() -> float:
    return machine.rss_bytes([machine.os.getpid()]) / (1 << 20)


class Scale:
    """One store that is filled.

    Attributes:
        tenths: what was measured at each tenth.
    """

    def __init__(self, store: Filled, entries: int, settled: Callable[[int], None]) -> None:
        self._store = store
        self._entries = entries
        self._settled = settled
        self._random = random.Random(7)  # noqa: S311 - which entries are looked at
        self._talks: list[tuple[int, str]] = []
        self._size = 0
        self.tenths: list[dict[str, float]] = []

    def fill(self) -> None:
        cpu: list[float] = []
        wall: list[float] = []
        for batch in batches(self._entries):
            began, took = perf_counter(), thread_time()
            outcomes = self._store.apply(batch)
            cpu.append((thread_time() - took) / len(batch) * 1e6)
            wall.append((perf_counter() - began) / len(batch) * 1e6)
            for outcome, transaction in zip(outcomes, batch, strict=True):
                assert isinstance(outcome, Recorded), outcome
                if transaction.entry.kind == "granted" and (self._random.random() < NOTED or not self._talks):
                    self._talks.append((self._size, outcome.conversation))
            self._size += len(batch)
            if self._size * TENTHS >= self._entries * (len(self.tenths) + 1):
                self._measure(cpu, wall)
                cpu, wall = [], []

    def _measure(self, cpu: list[float], wall: list[float]) -> None:
        self._settled(self._size)
        over_since = self._size - 4 * AT_ONCE * CALLS_EACH
        old = [talk for at, talk in self._talks if at < over_since] or [self._talks[0][1]]
        lookup, lookup_cpu = timed(lambda: self._lookup(self._random.choice(old)), LOOKUPS)
        prove, prove_cpu = timed(self._prove, PROOFS)
        found = {
            "entries": self._size,
            "append_us": median(cpu),
            "append_wall_us": median(wall),
            "lookup_ms": lookup,
            "lookup_cpu_ms": lookup_cpu,
            "prove_ms": prove,
            "prove_cpu_ms": prove_cpu,
            "rss_mb": rss_mb(),
        }
        self.tenths.append(found)
        print(
            f"  {self._size:8d} entries: append {found['append_us']:5.1f} us CPU"
            f" ({found['append_wall_us']:5.1f} us), conversation {found['lookup_ms']:.2f} ms,"
            f" proof {found['prove_ms']:.2f} ms, {found['rss_mb']:.0f} MB",
            flush=True,
        )

    def _lookup(self, talk: str) -> None:
        rows = list(self._store.entries(talk))
        assert {row.conversation for row in rows} == {talk}
        assert [row.seq for row in rows] == list(range(len(rows)))

    def _prove(self) -> None:
        signed = self._store.checkpoint()
        size = int(signed.split("\n")[1])
        index = self._random.randrange(size)
        path = merkle.inclusion_path(index, size, self._store.node)
        proof.verify(proof.write(index, self._store.leaf(index), path, signed), [VKEY])


def timed(what: Callable[[], object], times: int) -> tuple[float, float]:
    """Median milliseconds, by the clock and of CPU."""
    wall, cpu = [], []
    for _ in range(times):
        began, took = perf_counter(), thread_time()
        what()
        cpu.append((thread_time() - took) * 1e3)
        wall.append((perf_counter() - began) * 1e3)
    return median(wall), median(cpu)


def audited(source: Source) -> None:
    """In a process of its own, so that what it takes is its own: prints it as JSON."""
    began = perf_counter()
    report = audit(source, [VKEY])
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    value = {
        "entries": report.entries,
        "conversations": report.conversations,
        "findings": [str(finding) for finding in report.findings[:10]],
        "verify_s": perf_counter() - began,
        "verify_cpu_s": sum(one.ru_utime + one.ru_stime for one in used),
        "verify_rss_mb": used[0].ru_maxrss / 1024,
        "verify_worker_rss_mb": used[1].ru_maxrss / 1024,
    }
    print(json.dumps(value))


def figures_of(scale: Scale, verified: dict[str, Any]) -> dict[str, object]:
    first, last = scale.tenths[0], scale.tenths[-1]
    return {
        "entries": int(last["entries"]),
        "conversations": verified["conversations"],
        **{
            f"{name}_{when}": round(found[name], 3)
            for name in first
            if name != "entries"
            for when, found in (("first", first), ("last", last))
        },
        **{name: round(last[name], 3) for name in ("lookup_ms", "prove_ms", "rss_mb")},
        **{name: round(value, 2) for name, value in verified.items() if name.startswith("verify")},
        "flat": is_flat(first, last),
    }


def is_flat(first: dict[str, float], last: dict[str, float]) -> bool:
    """Whether the last tenth costs what the first did."""
    names = ("append_us", "lookup_cpu_ms", "prove_cpu_ms", "rss_mb")
    return all(last[name] <= GROWTH * first[name] for name in names)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--postgres", metavar="URL", help="fill this database too")
    parser.add_argument("--audit", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.audit:
        audited(source_of(options.audit))
        return 0
    sound = sqlite(options.entries)
    if options.postgres:
        sound = postgres(options.entries, options.postgres) and sound
    return 0 if sound else 1


def sqlite(entries: int) -> bool:
    """Whether the embedded store is flat and sound."""
    path = FOLDER / "guard.db"
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    print(f"SQLite, {entries} entries in batches of {BATCH}:", flush=True)
    with closing(SqliteStore(path, key=KEY, origin=ORIGIN)) as store:
        scale = Scale(store, entries, lambda _: None)
        scale.fill()
    good = told("scale", scale, str(path), disk_mb=round(path.stat().st_size / (1 << 20)))
    shutil.rmtree(FOLDER, ignore_errors=True)
    return good


def postgres(entries: int, url: str) -> bool:
    """Whether the shared store is."""
    # Here, so that what they take is not counted where nobody uses them.
    from guard.lineage.postgres import schema  # noqa: PLC0415
    from guard.lineage.postgres.connection import Address  # noqa: PLC0415
    from guard.lineage.postgres.sequencer import Sequencer  # noqa: PLC0415
    from guard.lineage.postgres.store import PostgresStore  # noqa: PLC0415

    address = Address(url)
    schema.upgrade(address)
    print(f"PostgreSQL, {entries} entries in batches of {BATCH}:", flush=True)
    with closing(PostgresStore(address, key=KEY, origin=ORIGIN, clock=lambda _, told: told)) as store:
        if store.conversations():
            raise SystemExit("the database has a lineage already: give an empty one")
        sequencer = Sequencer(address, key=KEY, origin=ORIGIN, holder="scale")
        store.after_commit(sequencer.wake)

        def settled(size: int) -> None:
            while sequencer.moved < size:
                sleep(0.01)

        sequencer.start()
        try:
            scale = Scale(store, entries, settled)
            scale.fill()
            settled(int(scale.tenths[-1]["entries"]))
        finally:
            sequencer.stop()
        return told("scale_postgres", scale, url)


def source_of(text: str) -> Source:
    if "://" not in text:
        return SqliteSource(Path(text))
    from guard.lineage.postgres.connection import Address  # noqa: PLC0415 - as above
    from guard.lineage.postgres.source import PostgresSource  # noqa: PLC0415 - as above

    return PostgresSource(Address(text))


def told(name: str, scale: Scale, where: str, **more: object) -> bool:
    """Audit, print and write. Whether all is flat and sound."""
    done = subprocess.run([sys.executable, __file__, "--audit", where], stdout=subprocess.PIPE, check=True)
    verified = json.loads(done.stdout)
    found = figures_of(scale, verified) | more
    for key, value in found.items():
        print(f"  {key}: {value}")
    for finding in verified["findings"]:
        print(f"  WRONG: {finding}")
    print(figures.write(name, found))
    sound = not verified["findings"] and verified["entries"] == found["entries"]
    return sound and (found["flat"] is True or verified["entries"] < ENOUGH)


if __name__ == "__main__":
    sys.exit(main())
