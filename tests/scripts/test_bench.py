"""What the benchmark reads, checks and computes. Nothing here is timed."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from guard.policy.document import load

sys.path.append(str(Path(__file__).parents[2] / "scripts"))
import memory
from bench_parts import comparison, guarded, machine, messages, ratios, tools, variants
from bench_parts.load import HttpLink, StdioLink
from bench_parts.messages import WrongAnswer
from bench_parts.ratios import Cell

ECHO = Path(memory.__file__).parent / "bench_parts" / "echo_stdio.py"


def cell(variant: str, ms: Sequence[float], repetition: int = 0, conversations: int = 1, **more: Any) -> Cell:
    given = {"transport": "stdio", "era": "modern", "wall": 1.0, "cpu": None} | more
    seconds = [one / 1e3 for one in ms]
    return Cell(variant=variant, seconds=seconds, repetition=repetition, conversations=conversations, **given)


def row(table: list[dict[str, Any]], variant: str, conversations: int = 1) -> dict[str, Any]:
    (found,) = [one for one in table if (one["variant"], one["conversations"]) == (variant, conversations)]
    return found


# -- statistics --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "q", "expected"),
    [
        ([3, 1, 2], 0.5, 2),
        ([1, 2, 3, 4], 0.5, 2),
        (range(1, 101), 0.99, 99),
        ([7], 0.99, 7),
        ([1, 2], 0.0, 1),
    ],
)
def test_a_quantile_is_a_value_that_was_measured(values: Sequence[float], q: float, expected: float) -> None:
    """The nearest rank, nothing in between."""
    assert ratios.quantile(values, q) == expected


def test_a_quantile_of_nothing_is_refused() -> None:
    """Where nothing was measured there is no figure."""
    with pytest.raises(ValueError, match="nothing"):
        ratios.quantile([], 0.5)


def test_a_ratio_is_taken_inside_its_repetition() -> None:
    """A repetition in which everything was ten times slower changes no ratio."""
    cells = []
    for repetition, slow in enumerate((1, 10, 1)):
        cells += [
            cell("direct", [1 * slow], repetition),
            cell("fastmcp", [5 * slow], repetition),
            cell("guard", [3 * slow], repetition),
        ]
    found = row(ratios.rows(cells), "guard")
    assert found["added_p50_over_fastmcp"] == pytest.approx(0.5)
    assert found["added_p50_over_fastmcp_least"] == pytest.approx(0.5)
    assert found["added_p50_over_fastmcp_most"] == pytest.approx(0.5)


def test_the_median_of_ratios_is_not_the_ratio_of_medians() -> None:
    """Three repetitions whose ratios are 1, 2 and 3 give 2, whatever the medians are."""
    pairs = [(100.0, 100.0), (20.0, 40.0), (10.0, 30.0)]
    cells = [cell("direct", [0.0], n) for n in range(3)]
    cells += [cell("fastmcp", [other], n) for n, (other, _) in enumerate(pairs)]
    cells += [cell("guard", [own], n) for n, (_, own) in enumerate(pairs)]
    assert row(ratios.rows(cells), "guard")["added_p50_over_fastmcp"] == pytest.approx(2.0)


def test_without_something_to_compare_with_there_is_no_ratio() -> None:
    """A missing yardstick is None, and never 0 or 1."""
    found = row(ratios.rows([cell("guard", [3])]), "guard")
    names = ("added_p50_ms", "added_p50_over_fastmcp", "rps_over_fastmcp", "rps_over_direct", "cpu_ms")
    assert [found[name] for name in names] == [None] * 5
    assert found["p50_ms"] == pytest.approx(3)


def test_a_yardstick_that_adds_nothing_gives_no_ratio() -> None:
    """Nothing is divided by zero, or by less than nothing."""
    cells = [cell("direct", [5]), cell("fastmcp", [4]), cell("guard", [6])]
    assert row(ratios.rows(cells), "guard")["added_p50_over_fastmcp"] is None


def test_cpu_and_calls_are_for_each_call_and_second() -> None:
    """Four calls in half a second that took two milliseconds of CPU: eight a second, half a millisecond."""
    one = cell("guard", [1, 1, 1, 1], wall=0.5, cpu=0.002)
    assert (one.rps, one.cpu_ms) == (8, pytest.approx(0.5))


def test_the_headline_is_guards_alone_and_in_the_crowd() -> None:
    """Latency is that of a lone call; calls a second and CPU time are those of 64 conversations."""
    cells = []
    for conversations, guard, wall in ((1, 3, 1.0), (64, 99, 0.25)):
        cells += [
            cell("direct", [1], conversations=conversations),
            cell("fastmcp", [5], conversations=conversations, cpu=0.008),
            cell("guard", [guard], conversations=conversations, wall=wall, cpu=0.002),
        ]
    assert ratios.headline(ratios.rows(cells), "stdio") == {
        "added_p50_ms": pytest.approx(2),
        "added_p50_over_fastmcp": pytest.approx(0.5),
        "rps64": 4,
        "rps64_over_fastmcp": 4,
        "cpu_ms": pytest.approx(2),
        "cpu_over_fastmcp": pytest.approx(0.25),
    }
    assert ratios.headline(ratios.rows(cells), "http") == {}


def test_a_table_shows_each_row_once() -> None:
    """One line for each variant and concurrency, a dash where there is no figure."""
    cells = [cell("direct", [1]), cell("guard", [3]), cell("guard", [9], conversations=64)]
    lines = ratios.shown(ratios.rows(cells), "stdio").splitlines()
    assert [line.split()[:2] for line in lines[3:]] == [["direct", "1"], ["guard", "1"], ["guard", "64"]]
    assert lines[-1].split()[-1] == "-"


def test_memory_that_grows_is_not_flat() -> None:
    """What is a tenth above the second tenth at the end is not flat; what came before it does not count."""
    assert memory.is_flat([50, 90, 100, *[105.0] * 8])
    assert not memory.is_flat([50, 90, 100, *[105.0] * 7, 111])


# -- what is read ------------------------------------------------------------------------------


def test_cores_are_read_as_they_are_shown() -> None:
    """`0-2,5` is four cores, and what is shown reads the same."""
    assert machine.cores_of("0-2,5") == {0, 1, 2, 5} == machine.cores_of(machine.shown({5, 0, 2, 1}))


def test_a_name_with_brackets_does_not_hide_the_parent() -> None:
    """A process may be called `) S 1 (`; its parent is the number after the last bracket."""
    assert machine.parent_of("42 () S 1 () S 7 42 42 0") == 7


def test_a_proxy_that_names_the_tool_server_is_not_taken_for_it() -> None:
    """What the middle takes counts, though the tool server's program is among its arguments."""
    server = ["python", "/x/bench_parts/echo_stdio.py", "--cores", "1"]
    middle = ["python", "/x/bench_parts/forward.py", "auto", "--", *server]
    assert machine.is_tool_server("\0".join(server).encode())
    assert not machine.is_tool_server("\0".join(middle).encode())
    assert not machine.is_tool_server(b"")


def test_a_middles_cpu_time_is_without_its_tool_servers() -> None:
    """Of a process and its children all count but the tool server."""
    program = (
        "import subprocess, sys; p = subprocess.Popen([sys.executable, sys.argv[1]], stdin=subprocess.PIPE);"
        "q = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE);"
        "print(p.pid, q.pid, flush=True); input()"
    )
    words = [sys.executable, "-c", program, ECHO]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as middle:
        assert middle.stdout is not None
        echo, other = map(int, middle.stdout.readline().split())
        found = machine.tree(middle.pid)
        assert {middle.pid, other} <= {*found}
        assert echo not in found
        assert machine.cpu_seconds(found) > 0
        assert machine.rss_bytes(found) > machine.rss_bytes([other]) > 0
        middle.communicate(b"\n")


def test_a_gateways_command_gets_the_tool_servers_words() -> None:
    """`{server}` becomes words and not one word; other names become their values."""
    found = variants.expanded("gate --at {port} -- {server}", ["python", "a b.py"], port=7)
    assert found == ["gate", "--at", "7", "--", "python", "a b.py"]


def test_the_last_event_of_a_stream_is_the_answer() -> None:
    """Comments, pings and what is told before the answer are passed over."""
    body = b': ping\r\n\r\nid: 1\r\ndata: {"a":1}\r\n\r\nevent: message\r\ndata: {"b":\r\ndata: 2}\r\n\r\n'
    assert orjson.loads(messages.last_event(body)) == {"b": 2}
    with pytest.raises(WrongAnswer):
        messages.last_event(b": ping\n\n")


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"x"}}',
        b'{"jsonrpc":"2.0","id":"1","result":{}}',
        b'{"jsonrpc":"2.0","id":true,"result":{}}',
        b'{"jsonrpc":"2.0","id":1,"method":"ping"}',
    ],
)
def test_what_is_no_result_fails_the_run(body: bytes) -> None:
    """An error, another's id, or no JSON at all is no answer that is measured."""
    with pytest.raises(WrongAnswer):
        messages.answer(body)


@pytest.mark.parametrize(
    "result",
    [
        {"content": [{"type": "text", "text": "other"}]},
        {"content": [{"type": "text", "text": "hello"}], "isError": True},
        {"content": []},
        {"content": [{"type": "text", "text": "hello"}] * 2},
        {},
    ],
)
def test_another_text_fails_the_run(result: dict[str, Any]) -> None:
    """A denial, an empty result or somebody else's is not counted as served."""
    with pytest.raises(WrongAnswer):
        messages.check({"result": result}, "hello")


def test_each_call_says_which_conversation_it_belongs_to() -> None:
    """In both eras; the envelope is there in one of them."""
    for era in messages.ERAS:
        meta = orjson.loads(messages.call(1, "echo", "x", era, "talk-7"))["params"]["_meta"]
        assert meta["dev.guard-mcp/conversation"] == "talk-7"
        assert ("io.modelcontextprotocol/protocolVersion" in meta) == (era == "modern")


def test_the_measured_policy_has_a_hundred_rules_and_loads() -> None:
    """What is called everything on is what Guard itself accepts."""
    policy = guarded.policy()
    assert sum(len(policy[name]) for name in ("tools", "intents", "protected")) == guarded.RULES
    assert load(orjson.dumps(policy), name="policy.json").ref.id == "bench"


def test_an_absent_setting_is_left_out_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variant that this Guard cannot do is named, and not measured as something else."""
    monkeypatch.setattr(guarded, "options", lambda: "--check")
    assert set(variants.missing(["direct", "guard", "guard-normal", "guard-workers-2"])) == {
        "guard-normal",
        "guard-workers-2",
    }
    monkeypatch.setattr(guarded, "options", lambda: "--bench --workers")
    assert variants.missing(["guard-normal", "guard-workers-2"]) == {}


def test_another_version_than_the_pinned_one_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was compared with is never passed off as the pinned version."""
    monkeypatch.setattr(comparison, "installed", lambda: "4.0.0 2.3.0")
    assert comparison.PINNED in comparison.prepare()[1]
    monkeypatch.setattr(comparison, "installed", lambda: f"{comparison.PINNED} 2.3.0")
    assert comparison.prepare()[1] == f"fastmcp {comparison.PINNED}, mcp 2.3.0"


# -- the clients, at the raw tool servers ------------------------------------------------------


def stdio(tmp_path: Path, era: str, *command: str) -> StdioLink:
    words = list(command) or [sys.executable, str(ECHO)]
    cores = os.sched_getaffinity(0)
    return StdioLink(words, env={**os.environ}, cores=cores, log=tmp_path / "log", tool="echo", era=era)


@pytest.mark.parametrize("era", [*messages.ERAS])
async def test_every_call_of_a_round_is_answered_on_stdio(tmp_path: Path, era: str) -> None:
    """As many latencies as calls, also where there are fewer calls than conversations."""
    link = stdio(tmp_path, era)
    await link.open()
    for conversations, calls in ((1, 3), (8, 50), (8, 5)):
        done = await link.round(conversations, calls)
        assert len(done.seconds) == calls
        assert min(done.seconds) > 0
        assert done.wall >= max(done.seconds)
    await link.close()


async def test_a_tool_that_says_something_else_ends_the_round_on_stdio(tmp_path: Path) -> None:
    """A wrong answer is no figure."""
    says = '{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"other"}]}}'
    link = stdio(tmp_path, "modern", sys.executable, "-c", f"input(); print('{says}', flush=True); input()")
    await link.open()
    with pytest.raises(WrongAnswer, match="not the answer"):
        await link.round(1, 1)
    await link.close()


async def test_a_middle_that_dies_ends_the_round_on_stdio(tmp_path: Path) -> None:
    """Nobody waits for what has ended."""
    link = stdio(tmp_path, "modern", sys.executable, "-c", "input()")
    await link.open()
    with pytest.raises(ConnectionError):
        await link.round(1, 1)
    await link.close()


@contextmanager
def serving(*more: str) -> Iterator[int]:
    port = variants.free_port()
    program = ECHO.with_name("echo_http.py")
    with subprocess.Popen([sys.executable, program, "--port", str(port), *more]) as server:
        try:
            yield port
        finally:
            server.kill()


@pytest.mark.parametrize("era", [*messages.ERAS])
async def test_every_call_of_a_round_is_answered_over_http(tmp_path: Path, era: str) -> None:
    """Also after the other side closed connections that were idle."""
    with serving() as port:
        await variants.listening("127.0.0.1", port, None, tmp_path)
        link = HttpLink("127.0.0.1", port, tool="echo", era=era)
        assert len((await link.round(4, 10)).seconds) == 10
        first, second = link._connections[:2]
        assert first is not None
        first.transport.abort()
        await asyncio.sleep(0)
        assert len((await link.round(6, 20)).seconds) == 20
        assert link._connections[0] is not first
        assert link._connections[1] is second
        await link.close()


async def test_a_connection_that_is_lost_while_idle_ends_no_round(tmp_path: Path) -> None:
    """Of a busy one the loss ends the round, for its call has no answer."""
    with serving() as port:
        await variants.listening("127.0.0.1", port, None, tmp_path)
        link = HttpLink("127.0.0.1", port, tool="echo", era="modern")
        await link.round(2, 4)
        busy, idle = link._connections
        assert busy is not None
        assert idle is not None
        running = asyncio.ensure_future(link.round(1, 50))
        await asyncio.sleep(0)
        idle.transport.abort()
        assert len((await running).seconds) == 50
        running = asyncio.ensure_future(link.round(1, 50))
        await asyncio.sleep(0)
        busy.transport.abort()
        with pytest.raises(ConnectionError):
            await running
        await link.close()


async def test_a_refusal_ends_the_round_over_http() -> None:
    """A status that is not 200 is no figure, however fast it comes."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n")

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        link = HttpLink("127.0.0.1", server.sockets[0].getsockname()[1], tool="echo", era="modern")
        with pytest.raises(WrongAnswer, match="status 429"):
            await link.round(1, 1)
        await link.close()


def test_the_raw_tool_server_says_what_it_is_told() -> None:
    """It echoes, lists as many tools as it is asked for, and answers no notification."""
    offered = tools.tools(3)
    call = orjson.loads(messages.call(1, "echo", "hi", "modern", ""))
    found = tools.result(call, offered)
    assert found is not None
    messages.check({"result": found}, "hi")
    assert len({tool["name"] for tool in offered}) == 3
    assert tools.result(orjson.loads(messages.INITIALIZED), offered) is None
