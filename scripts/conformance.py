"""Is Guard transparent? The protocol's own conformance suite, at a tool server and again through Guard.

    python scripts/conformance.py [--only VERSION]

`@modelcontextprotocol/conformance` in two versions, each with every protocol version that it knows, runs
against tests/servers/conforming.py, and then through `guard serve` in front of it. What a check said there
and does not say here is lost. Prints a table and writes build/figures/conformance.json. Exits 1 if anything
is lost that KNOWN does not name, or if KNOWN names what is not lost any more: so it can only shrink.

Checks are compared one by one, and never counted: many succeed where nothing answers at all. Those are
found by a third run, against a port where nobody is, and named hollow.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import figures

ROOT: Final = Path(__file__).parent.parent
FOLDER: Final = ROOT / "build" / "conformance"
SERVER: Final = ROOT / "tests" / "servers" / "conforming.py"
BIN: Final = Path(sys.executable).parent
ENVIRONMENT: Final = {key: value for key, value in os.environ.items() if not key.startswith("GUARD_")}
PATIENCE: Final = 60.0
RUN_SECONDS: Final = 300.0
INSTALL_SECONDS: Final = 300.0
SUITES: Final[Mapping[str, Mapping[str, int]]] = {
    "0.1.16": {"2025-06-18": 26, "2025-11-25": 44},
    "0.2.0-alpha.12": {"2025-03-26": 3, "2025-06-18": 56, "2025-11-25": 84, "2026-07-28": 152},
}
"""Versions of the suite, the versions of the protocol that each has server scenarios for, and how many
checks must succeed at the server itself: with fewer nothing is proven."""
PACKAGES: Final = {"node": "22.23.3"} | {
    f"suite-{version}": f"npm:@modelcontextprotocol/conformance@{version}" for version in SUITES
}
RESULTS: Final = re.compile(r"server-(.+)-\d{4}-\d\d-\d\dT[\d-]+Z")
POLICY: Final = {
    "guard": 1,
    "id": "everything",
    "version": 1,
    "roles": {"tester": {"scopes": ["use"]}},
    "tools": [{"match": "*", "scopes": ["use"]}],
    "prompts": [{"match": "*", "scopes": ["use"]}],
    "resources": [{"match": "*", "scopes": ["use"]}],
}


class Known(NamedTuple):
    """Checks that are lost (`scenario/id`), why, and the only version of the suite that it is so in."""

    feature: str
    reason: str
    names: frozenset[str]
    suite: str = ""


def known(feature: str, reason: str, names: str, suite: str = "") -> Known:
    """`names`: `id` is `id/id`, the one check of its scenario; `scenario/a,b` is two checks of one."""
    found: set[str] = set()
    for name in names.split():
        scenario, _, ids = name.partition("/")
        found |= {f"{scenario}/{one}" for one in (ids or scenario).split(",")}
    return Known(feature, reason, frozenset(found), suite)


KNOWN: Final[tuple[Known, ...]] = ()
"""Nothing else may be lost, and what is not lost any more must go."""


def unexpected(suite: str, lost: Collection[str]) -> list[str]:
    """What KNOWN does not name of what one version of the suite lost."""
    named = {name for one in KNOWN if one.suite in {"", suite} for name in one.names}
    return sorted({*lost} - named)


class Unavailable(Exception):
    """The suite cannot be run on this machine; the text says why."""


Checks = Counter[tuple[str, bool]]
"""How often each check succeeded and did not, by `scenario/id`: an id may stand for several checks."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One version of the suite at one version of the protocol.

    Attributes:
        direct: what the server's own answers led to.
        through: the same behind Guard.
        nobody: the same where nothing answers.
    """

    direct: Checks
    through: Checks
    nobody: Checks = field(default_factory=Counter)

    @property
    def failed(self) -> list[str]:
        """What does not succeed at the server itself: it proves nothing about Guard."""
        return sorted(name for name, succeeded in self.direct if not succeeded)

    @property
    def lost(self) -> list[str]:
        """What succeeds at the server, and less often or not always behind Guard."""
        return sorted(
            name
            for (name, succeeded), count in self.direct.items()
            if succeeded
            and (self.through[name, True] < count or self.through[name, False] > self.direct[name, False])
        )

    @property
    def hollow(self) -> list[str]:
        """What succeeds as often where nothing answers: by itself it proves nothing."""
        return sorted(
            name
            for (name, succeeded), count in self.direct.items()
            if succeeded and self.nobody[name, True] >= count
        )


def succeeded(checks: Checks) -> int:
    """How many checks succeeded. Only a run at the server itself says anything by it."""
    return sum(count for (_, good), count in checks.items() if good)


def installed() -> Path:
    """The folder of the installed packages; npm brings them where they are not there.

    Raises:
        Unavailable: there is no npm, or it cannot bring them.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    manifest = json.dumps({"private": True, "dependencies": PACKAGES}, indent=2)
    done = FOLDER / "installed.json"
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several workers come at the same time
        if not done.exists() or done.read_text() != manifest:
            done.unlink(missing_ok=True)
            _install(manifest)
            done.write_text(manifest)
    return FOLDER / "node_modules"


def _install(manifest: str) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise Unavailable("npm is not installed")
    (FOLDER / "package.json").write_text(manifest)
    words = [npm, "install", "--no-audit", "--no-fund", "--loglevel=error"]
    try:
        ran = subprocess.run(
            words, cwd=FOLDER, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"npm installed nothing within {INSTALL_SECONDS:g} seconds") from None
    if ran.returncode != 0:
        why = (ran.stderr.splitlines() or ["it does not say why"])[0]
        raise Unavailable(f"npm cannot install the suite: {why}")
    if not os.access(FOLDER / "node_modules" / ".bin" / "node", os.X_OK):
        raise Unavailable("the package `node` has no program for this machine")


def run(suite: str, protocol: str, url: str) -> Checks:
    """Run every server scenario of one protocol version against a URL."""
    modules = installed()
    program = modules / f"suite-{suite}" / "dist" / "index.js"
    with tempfile.TemporaryDirectory() as results:
        words = ["server", "--url", url, "--suite", "all", "--spec-version", protocol, "-o", results]
        words = [modules / ".bin" / "node", program, *words]
        # it exits 1 for any check that fails
        subprocess.run(words, capture_output=True, timeout=RUN_SECONDS, check=False)
        return read(Path(results))


def read(results: Path) -> Checks:
    """Every check in a folder of results. What is only told, not judged, is left out."""
    found: Checks = Counter()
    for file in sorted(results.glob("*/checks.json")):
        named = RESULTS.fullmatch(file.parent.name)
        assert named is not None, file
        for check in json.loads(file.read_bytes()):
            if check["status"] != "INFO":
                found[f"{named[1]}/{check['id']}", check["status"] == "SUCCESS"] += 1
    return found


@contextmanager
def started(words: list[Any], log: Path, file: Path, pattern: str) -> Iterator[str]:
    """A process for a while, and what it says of itself in a file, as soon as it is there."""
    with log.open("w") as errors:
        process = subprocess.Popen(words, stdout=errors, stderr=errors, env=ENVIRONMENT)
    end = time.monotonic() + PATIENCE
    try:
        while not file.exists() or (found := re.search(pattern, file.read_text())) is None:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{words[0]} did not start: {log.read_text()}")
            time.sleep(0.01)
        yield found[1]
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def serving() -> Iterator[str]:
    """The tool server, and its URL."""
    with tempfile.TemporaryDirectory() as name:
        port, log = Path(name) / "port", Path(name) / "log"
        with started([sys.executable, SERVER, "--port-file", port], log, port, r"(.+)") as found:
            yield f"http://127.0.0.1:{found}/mcp"


@contextmanager
def guarded(url: str) -> Iterator[str]:
    """`guard serve` in front of a tool server, and its URL."""
    with tempfile.TemporaryDirectory() as name:
        config, log = Path(name) / "guard.json", Path(name) / "log"
        (config.parent / "policy.json").write_text(json.dumps(POLICY))
        settings = {
            "guard": 1,
            "home": "home",
            "policy": "policy.json",
            "listen": "127.0.0.1:0",
            "identity": {"role": "tester", "principal": "conformance"},
            "servers": {"conforming": {"url": url}},
        }
        config.write_text(json.dumps(settings))
        words = [BIN / "guard", "pin", "--config", config, "--yes"]
        subprocess.run(words, env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL)
        with started([BIN / "guard", "serve", config], log, log, r" at (http://\S+)") as found:
            yield found


def compare(suite: str, protocol: str) -> Compared:
    """Run one version of the suite at one version of the protocol, three times."""
    with serving() as url, guarded(url) as front:  # pinned before a run changes what the server shows
        direct = run(suite, protocol, url)
        through = run(suite, protocol, front)
    with socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))  # bound and not listening: whoever connects is refused
        nobody = run(suite, protocol, f"http://127.0.0.1:{dead.getsockname()[1]}/mcp")
    return Compared(direct, through, nobody)


def report(lost: Mapping[str, set[str]], *, whole: bool) -> bool:
    """Print what is lost, by feature. Returns whether it is what KNOWN says.

    Args:
        lost: by version of the suite.
        whole: whether everything ran, so that KNOWN may be too long.
    """
    wrong = [f"LOST: {suite} {name}" for suite, names in lost.items() for name in unexpected(suite, names)]
    for one in KNOWN:
        there = {name for suite, names in lost.items() if one.suite in {"", suite} for name in names}
        if gone := sorted(one.names & there):
            print("\n  ".join([f"{one.feature}: {one.reason}", *gone]))
        if whole:
            wrong += [
                f"not lost any more, strike it from KNOWN: {name}" for name in sorted(one.names - there)
            ]
    print("\n".join(wrong))
    return not wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", metavar="VERSION", help="of the protocol; writes no figures")
    only = parser.parse_args().only
    results: dict[str, dict[str, Any]] = {suite: {} for suite in SUITES}
    lost: dict[str, set[str]] = {suite: set() for suite in SUITES}
    proven = True
    print(f"{'suite':16}{'protocol':12}{'direct':>8}{'Guard':>8}{'lost':>6}{'hollow':>8}")
    for suite, protocol, least in [(suite, *each) for suite, them in SUITES.items() for each in them.items()]:
        if only not in {None, protocol}:
            continue
        found = compare(suite, protocol)
        direct, through = succeeded(found.direct), succeeded(found.through)
        print(
            f"{suite:16}{protocol:12}{direct:8}{through:8}{len(found.lost):6}{len(found.hollow):8}",
            flush=True,
        )
        if direct < least:
            print(f"only {direct} of {least} checks succeed at the server: {', '.join(found.failed)}")
            proven = False
        lost[suite] |= {*found.lost}
        results[suite][protocol] = {
            "direct_ok": direct,
            "direct_failed": found.failed,
            "guard_ok": through,
            "lost": found.lost,
            "hollow": found.hollow,
        }
    if only is None:
        figures.write("conformance", {**results})
    return 0 if report(lost, whole=only is None) and proven else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Unavailable as reason:
        sys.exit(f"the suite cannot be run: {reason}")
