"""What is measured: each variant, how it is started, and the client at it."""

from __future__ import annotations

import asyncio
import os
import shlex
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from bench_parts import guarded, machine
from bench_parts.guarded import Guarded
from bench_parts.load import HttpLink, Link, StdioLink
from bench_parts.ratios import DIRECT, FASTMCP, GUARD

HERE: Final = Path(__file__).parent
TOOL: Final = "echo"
NORMAL: Final = "guard-normal"
WORKERS: Final = "guard-workers-"
STARTING: Final = 30.0
_MODES: Final = {"modern": "auto", "handshake": "legacy"}


@dataclass
class Bench:
    """Where and with what is measured.

    Attributes:
        folder: fresh, on a disk.
        middle: cores of what is measured.
        load: cores of client and tool server.
        forward: the Python that runs the proxy to compare with.
        sdk: whether the tool server is the SDK's.
        also: further gateways on stdio: name and command, `{server}` stands for the tool server's.
        also_http: further gateways over HTTP: name and `URL [COMMAND]`.
        guards: every Guard that was started, to be verified at the end.
    """

    folder: Path
    middle: set[int]
    load: set[int]
    forward: Path
    sdk: bool = False
    also: Mapping[str, str] = field(default_factory=dict)
    also_http: Mapping[str, str] = field(default_factory=dict)
    guards: list[Guarded] = field(default_factory=list)

    @property
    def others(self) -> set[str]:
        """Names of the further gateways."""
        return {*self.also, *self.also_http}

    @property
    def log(self) -> Path:
        """Where all that is started says what goes wrong."""
        return self.folder / "log"

    def server(self, kind: str, *more: str) -> list[str]:
        """The words that start the tool server."""
        program = HERE / ("echo_sdk.py" if self.sdk else f"echo_{kind}.py")
        return [sys.executable, str(program), "--cores", machine.shown(self.load), *more]

    def guard(self, name: str, server: dict[str, Any], port: int | None) -> tuple[Guarded, str]:
        """A new Guard of this variant, pinned, and a key to it."""
        durability = "normal" if name == NORMAL else None
        made = Guarded(self.folder / str(len(self.guards)), server, port=port, durability=durability)
        self.guards.append(made)
        return made, made.prepare()


def missing(variants: Sequence[str]) -> dict[str, str]:
    """Variants that this Guard cannot do yet, and why."""
    known = guarded.options()
    found = {}
    for name in variants:
        option = "--bench" if name == NORMAL else "--workers" if name.startswith(WORKERS) else ""
        if option and option not in known:
            found[name] = f"`guard serve` has no {option}"
    return found


@asynccontextmanager
async def stdio(bench: Bench, name: str, era: str) -> AsyncIterator[Link]:
    """A client at a variant on stdio."""
    server, env, cores = bench.server("stdio"), {**os.environ}, bench.middle
    match name:
        case _ if name == DIRECT:
            command, cores = server, bench.load
        case _ if name == FASTMCP:
            command = [str(bench.forward), str(HERE / "forward.py"), _MODES[era], "--", *server]
        case _ if name in bench.also:
            command = expanded(bench.also[name], server)
        case _:
            made, _key = bench.guard(name, {"command": server}, None)
            command, env = made.command(), made.env
    link = StdioLink(command, env=env, cores=cores, log=bench.log, tool=tool_of(name), era=era)
    await link.open()
    if name == DIRECT:
        link.pid = 0
    try:
        yield link
    finally:
        await link.close()


def tool_of(name: str) -> str:
    """What the tool is called behind a variant: gateways may call it by another name."""
    return name.partition("@")[2] or TOOL


def expanded(template: str, server: Sequence[str], **named: object) -> list[str]:
    """A gateway's command: the word `{server}` becomes the tool server's words, other names their values."""
    found: list[str] = []
    for word in shlex.split(template):
        found += server if word == "{server}" else [word.format(**named)]
    return found


@asynccontextmanager
async def http(bench: Bench, name: str, era: str, upstream: int) -> AsyncIterator[Link]:
    """A client at a variant over HTTP, whose tool server listens on the port `upstream`."""
    if name == DIRECT:
        link = HttpLink("127.0.0.1", upstream, tool=TOOL, era=era)
        yield link
        await link.close()
        return
    port, target, key = free_port(), f"http://127.0.0.1:{upstream}/mcp", ""
    host, path, env = "127.0.0.1", "/mcp", {**os.environ}
    if name == FASTMCP:
        mode = _MODES[era]
        command = [str(bench.forward), str(HERE / "forward.py"), mode, "--port", str(port), "--url", target]
    elif name in bench.also_http:
        given = bench.also_http[name]
        url, *words = expanded(given, bench.server("stdio"), port=port, upstream=target)
        parts = urlsplit(url)
        host, port, path, command = parts.hostname or host, parts.port or 80, parts.path or "/", words
    else:
        made, key = bench.guard(name, {"url": target}, port)
        workers = name.removeprefix(WORKERS) if name.startswith(WORKERS) else ""
        command, env = made.command(*(["--workers", workers] if workers else [])), made.env
    async with process(command, env, host=host, port=port, cores=bench.middle, log=bench.log) as pid:
        link = HttpLink(host, port, path, key=key, tool=tool_of(name), era=era, pid=pid)
        yield link
        await link.close()


@asynccontextmanager
async def process(
    command: list[str], env: Mapping[str, str], *, host: str, port: int, cores: set[int], log: Path
) -> AsyncIterator[int]:
    """A process that listens, until the block ends. Without a command it runs already, and its pid is 0."""
    started = None
    if command:
        with log.open("ab") as said:
            started = await asyncio.create_subprocess_exec(
                *command,
                env={**env},
                stdout=said,
                stderr=said,
                preexec_fn=lambda: os.sched_setaffinity(0, cores),
            )
    try:
        await listening(host, port, started, log)
        yield started.pid if started else 0
    finally:
        if started is not None and started.returncode is None:
            started.terminate()
            try:
                async with asyncio.timeout(STARTING):
                    await started.wait()
            except TimeoutError:
                started.kill()
                await started.wait()


async def listening(host: str, port: int, started: asyncio.subprocess.Process | None, log: Path) -> None:
    """Until somebody listens there. Raises TimeoutError, ConnectionError: the process ended."""
    async with asyncio.timeout(STARTING):
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection(host, port)
                writer.close()
                return
            if started is not None and started.returncode is not None:
                raise ConnectionError(f"nobody listens at {host}:{port}: see {log}")
            await asyncio.sleep(0.05)


@asynccontextmanager
async def tool_server(bench: Bench) -> AsyncIterator[int]:
    """The tool server over HTTP. Gives its port."""
    port = free_port()
    command = bench.server("http", "--port", str(port))
    async with process(command, os.environ, host="127.0.0.1", port=port, cores=bench.load, log=bench.log):
        yield port


def free_port() -> int:
    """A port of the loopback address that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        port: int = one.getsockname()[1]
        return port


def default_variants(transport: str, bench: Bench, workers: Sequence[int]) -> list[str]:
    """All of them, the yardstick first."""
    found = [DIRECT, FASTMCP, GUARD, NORMAL]
    if transport == "stdio":
        return [*found, *bench.also]
    return [*found, *(f"{WORKERS}{count}" for count in workers), *bench.also_http]
