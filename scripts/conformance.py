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
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import figures

ROOT: Final = Path(__file__).parent.parent
FOLDER: Final = ROOT / "build" / "conformance"
SERVER: Final = ROOT / "tests" / "servers" / "conforming.py"
BIN: Final = Path(sys.executable).parent
PATIENCE: Final = 60.0
RUN_SECONDS: Final = 300.0
INSTALL_SECONDS: Final = 300.0
SUITES: Final[Mapping[str, tuple[str, ...]]] = {
    "0.1.16": ("2025-06-18", "2025-11-25"),
    "0.2.0-alpha.12": ("2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"),
}
"""Versions of the suite, and the versions of the protocol that each has server scenarios for."""
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
}
KNOWN: Final[Mapping[str, tuple[str, ...]]] = {}


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


def installed() -> Path:
    """The folder of the installed packages; npm brings them where they are not there.

    Raises:
        Unavailable: there is no npm, or it cannot bring them.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    manifest = json.dumps({"private": True, "dependencies": PACKAGES}, indent=2)
    modules, done = FOLDER / "node_modules", FOLDER / "package.json"
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists() or done.read_text() != manifest or not modules.exists():
            _install(manifest)
    return modules


def _install(manifest: str) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise Unavailable("npm is not installed")
    fresh = FOLDER / "fresh"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    (fresh / "package.json").write_text(manifest)
    words = [npm, "install", "--no-audit", "--no-fund", "--loglevel=error"]
    try:
        ran = subprocess.run(
            words, cwd=fresh, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"npm installed nothing within {INSTALL_SECONDS:g} seconds") from None
    if ran.returncode != 0:
        raise Unavailable(
            f"npm cannot install the suite: {(ran.stderr.splitlines() or ['no reason given'])[0]}"
        )
    if not os.access(fresh / "node_modules" / ".bin" / "node", os.X_OK):
        raise Unavailable("the package `node` has no program for this machine")
    shutil.rmtree(FOLDER / "node_modules", ignore_errors=True)
    (fresh / "node_modules").rename(FOLDER / "node_modules")
    (fresh / "package.json").rename(FOLDER / "package.json")
    shutil.rmtree(fresh)


def run(suite: str, protocol: str, url: str) -> Checks:
    """Run every server scenario of one protocol version against a URL."""
    modules = installed()
    program = modules / f"suite-{suite}" / "dist" / "index.js"
    with tempfile.TemporaryDirectory() as results:
        words = ["server", "--url", url, "--suite", "all", "--spec-version", protocol, "-o", results]
        subprocess.run(
            [modules / ".bin" / "node", program, *words],
            capture_output=True,
            timeout=RUN_SECONDS,
            check=False,  # it exits 1 for any check that fails
        )
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
def serving() -> Iterator[str]:
    """The tool server, and its URL."""
    with tempfile.TemporaryDirectory() as name:
        file, log = Path(name) / "port", Path(name) / "log"
        with log.open("w") as errors:
            server = subprocess.Popen(
                [sys.executable, SERVER, "--port-file", file], stdout=errors, stderr=errors
            )
        try:
            yield f"http://127.0.0.1:{said(server, file, r'(.+)', log)}/mcp"
        finally:
            server.kill()
            server.wait()


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
        environment = {key: value for key, value in os.environ.items() if not key.startswith("GUARD_")}
        subprocess.run(
            [BIN / "guard", "pin", "--config", config, "--yes"],
            env=environment,
            check=True,
            capture_output=True,
        )
        with log.open("w") as errors:
            guard = subprocess.Popen([BIN / "guard", "serve", config], env=environment, stderr=errors)
        try:
            yield said(guard, log, r" at (http://\S+)", log)
        finally:
            guard.send_signal(signal.SIGTERM)
            try:
                guard.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                guard.kill()
                guard.wait()


def said(process: subprocess.Popen[bytes], file: Path, pattern: str, log: Path) -> str:
    """What a process writes to a file, as soon as it is there."""
    end = time.monotonic() + PATIENCE
    while not file.exists() or (found := re.search(pattern, file.read_text())) is None:
        if process.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"it did not start: {log.read_text()}")
        time.sleep(0.01)
    return found[1]


def compare(suite: str, protocol: str) -> Compared:
    """Run one version of the suite at one version of the protocol, three times."""
    with serving() as url:
        direct = run(suite, protocol, url)
        with guarded(url) as front:
            through = run(suite, protocol, front)
    with socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))  # bound and not listening: whoever connects is refused
        nobody = run(suite, protocol, f"http://127.0.0.1:{dead.getsockname()[1]}/mcp")
    return Compared(direct, through, nobody)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", metavar="VERSION", help="of the protocol; writes no figures")
    only = parser.parse_args().only
    known = {name for names in KNOWN.values() for name in names}
    results: dict[str, dict[str, Any]] = {}
    lost: set[str] = set()
    print(f"{'suite':16}{'protocol':12}{'direct':>8}{'through':>9}{'lost':>6}{'hollow':>8}")
    for suite, protocols in SUITES.items():
        for protocol in protocols:
            if only not in {None, protocol}:
                continue
            found = compare(suite, protocol)
            lost |= {*found.lost}
            direct, through = (
                sum(n for (_, ok), n in one.items() if ok) for one in (found.direct, found.through)
            )
            results.setdefault(suite, {})[protocol] = {
                "direct_ok": direct,
                "direct_failed": found.failed,
                "through_ok": through,
                "lost": found.lost,
                "hollow": found.hollow,
            }
            print(
                f"{suite:16}{protocol:12}{direct:8}{through:9}{len(found.lost):6}{len(found.hollow):8}",
                flush=True,
            )
    for feature, names in KNOWN.items():
        if gone := lost & {*names}:
            print(f"lost, and known: {feature}: {', '.join(sorted(gone))}")
    for name in sorted(lost - known):
        print(f"lost: {name}")
    stale = known - lost if only is None else set()
    for name in sorted(stale):
        print(f"not lost any more, strike it from KNOWN: {name}")
    if only is None:
        figures.write("conformance", results)
    return 1 if lost - known or stale else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Unavailable as reason:
        sys.exit(f"the suite cannot be run: {reason}")
