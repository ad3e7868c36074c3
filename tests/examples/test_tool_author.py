"""The protected tool server, run for real: behind `guard run` and directly, in both eras.

The bank's ledger is what its tool functions wrote down themselves: a refused call leaves none.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp.shared.exceptions import MCPError

from guard.artifact.grant import Issuer
from guard.artifact.verify import Fault
from guard.core.canonical import b64
from guard.core.keys import KeySet, SigningKey
from guard.core.model import ARTIFACT_META, Allow, Call, Conversation, Facts, PolicyRef, Principal, Tool

ROOT = Path(__file__).parent.parent.parent
SERVER = ROOT / "examples" / "tool_author" / "server.py"
POLICY = ROOT / "examples" / "tool_author" / "policy.yaml"
GUARD = Path(sys.executable).with_name("guard")
TRANSFER = {"iban": "DE02120300000000202051", "amount": 25, "currency": "EUR"}
SENT = "Sent 25.00 EUR to DE02120300000000202051."
ERAS = ["legacy", "auto"]
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("GUARD_")}
WORDS = {
    Fault.MISSING: "the request carries no artifact",
    Fault.REPLAYED: "the artifact was used before",
    Fault.AUDIENCE: "aud is another server",
    Fault.ISSUER: "iss is not the issuer trusted here",
    Fault.EXPIRED: "the artifact has expired",
    Fault.NOT_YET_VALID: "the artifact is not valid yet",
    Fault.TOOL: "the artifact is for another tool",
    Fault.ARGUMENTS: "the artifact is for other arguments",
    Fault.OBSERVED: "the policy only observed this call",
    Fault.SIGNATURE: "the signature does not verify",
    Fault.MALFORMED: "not a compact JWS of three parts",
}


@dataclass
class Bank:
    """One bank's files, and how to reach it."""

    folder: Path
    issuer: str = "guard.example"
    audience: str = "bank"
    memory: bool = False
    environment: dict[str, str] = field(default_factory=dict)

    def command(self) -> list[str]:
        files = {name: str(self.folder / name) for name in ("jwks.json", "ledger", "used")}
        kept = [] if self.memory else ["--replay", str(self.folder / "replay.db")]
        return [
            sys.executable, str(SERVER), "--issuer", self.issuer, "--jwks", files["jwks.json"],
            "--audience", self.audience, "--ledger", files["ledger"], "--log", files["used"], *kept,
        ]  # fmt: skip

    def ran(self) -> list[str]:
        """The tools that ran, as they wrote it down themselves."""
        ledger = self.folder / "ledger"
        return [json.loads(line)["tool"] for line in ledger.read_text().splitlines()]

    def used(self) -> list[str]:
        return (self.folder / "used").read_text().split()

    @asynccontextmanager
    async def straight(self, era: str = "auto") -> AsyncIterator[Client]:
        command, *args = self.command()
        async with Client(StdioServerParameters(command=command, args=args), mode=era) as client:
            yield client

    @asynccontextmanager
    async def guarded(self, era: str = "auto", *, audience: str = "bank") -> AsyncIterator[Client]:
        launch = ["run", "--policy", str(POLICY), "--role", "payer", "--server", "bank"]
        args = [*launch, "--audience", audience, "--", *self.command()]
        server = StdioServerParameters(command=str(GUARD), args=args, env=self.environment)
        async with Client(server, mode=era) as client:
            yield client


async def call(
    client: Client, tool: str = "transfer", arguments: Any = None, token: str | None = None
) -> tuple[bool, str]:
    """Call a tool; whether it was refused or failed, and the first line of what was said."""
    meta: Any = None if token is None else {ARTIFACT_META: token}
    result = await client.call_tool(tool, TRANSFER if arguments is None else arguments, meta=meta)
    return result.is_error, result.content[0].text.splitlines()[0]


def refusal(fault: Fault) -> tuple[bool, str]:
    return True, f"Refused: {WORDS[fault]}"


# -- behind Guard ------------------------------------------------------------------------------


def guard(environment: dict[str, str], *words: str) -> str:
    done = subprocess.run([GUARD, *words], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Guard's folder with the bank's tools pinned, to be copied."""
    folder = tmp_path_factory.mktemp("fresh")
    environment = {**CLEAN, "GUARD_HOME": str(folder / "home")}
    guard(environment, "key", "new", "--principal", "pat", "--role", "payer")
    (folder / "jwks.json").write_text(guard(environment, "jwks"))
    guard(environment, "pin", "--yes", "--server", "bank", "--", *Bank(folder).command())
    return folder


@pytest.fixture
def home(tmp_path: Path, fresh: Path) -> Bank:
    """A bank that trusts a Guard of its own, with its tools pinned."""
    shutil.copytree(fresh / "home", tmp_path / "home")
    shutil.copy(fresh / "jwks.json", tmp_path)
    issuer = json.loads((tmp_path / "home" / "keys" / "name.json").read_text())["name"]
    return Bank(tmp_path, issuer=issuer, environment={**CLEAN, "GUARD_HOME": str(tmp_path / "home")})


@pytest.mark.parametrize("era", ERAS)
async def test_a_permitted_call_runs_in_both_eras(home: Bank, era: str) -> None:
    """Through Guard both tools run, once each, with an artifact of their own."""
    async with home.guarded(era) as client:
        assert (client.protocol_version == "2026-07-28") == (era == "auto")
        assert await call(client) == (False, SENT)
        balance = await call(client, "balance", {"iban": "DE89370400440532013000"})
        assert balance == (False, "1250.00 EUR")
    assert home.ran() == ["transfer", "balance"]
    assert len(set(home.used())) == 2


async def test_a_denied_call_reaches_no_tool(home: Bank) -> None:
    """What the policy denies has no artifact, and the bank hears nothing of it."""
    async with home.guarded() as client:
        refused, said = await call(client, arguments={**TRANSFER, "amount": 501})
    assert refused
    assert said.startswith("Denied by Guard (reason: intent-unmatched")
    assert home.ran() == []
    assert home.used() == []


@pytest.mark.parametrize("era", ERAS)
async def test_a_used_artifact_is_refused_at_the_server(home: Bank, era: str) -> None:
    """The artifact that went through Guard does not serve a second time, straight, in another process."""
    async with home.guarded() as client:
        assert await call(client) == (False, SENT)
    [used] = home.used()
    async with home.straight(era) as client:
        assert await call(client, token=used) == refusal(Fault.REPLAYED)
    assert home.ran() == ["transfer"]


async def test_a_used_artifact_that_comes_through_guard_is_not_passed_on(home: Bank) -> None:
    """Sent to Guard by a client it is taken off: the bank sees Guard's fresh one, never that one."""
    async with home.guarded() as client:
        await call(client)
        [used] = home.used()
        assert await call(client, token=used) == (False, SENT)
    first, second = home.used()
    assert first == used
    assert second != used


async def test_an_artifact_of_guards_permits_no_other_arguments(home: Bank) -> None:
    """A real artifact of this Guard's, presented with another amount."""
    async with home.guarded() as client:
        await call(client)
    [used] = home.used()
    async with home.straight() as client:
        assert await call(client, arguments={**TRANSFER, "amount": 26}, token=used) == refusal(
            Fault.ARGUMENTS
        )
    assert home.ran() == ["transfer"]


async def test_an_artifact_for_another_server_is_refused(home: Bank) -> None:
    """Guard issues for `elsewhere`, the bank answers to `bank`: the person sees the bank's refusal."""
    async with home.guarded(audience="elsewhere") as client:
        assert await call(client) == refusal(Fault.AUDIENCE)
    assert home.ran() == []
    assert home.used() == []


async def test_another_guard_is_not_believed(home: Bank, tmp_path: Path) -> None:
    """A second Guard permits the same call for the same audience; its key is not the bank's."""
    environment = {**home.environment, "GUARD_HOME": str(tmp_path / "other")}
    guard(environment, "pin", "--yes", "--server", "bank", "--", *home.command())
    async with replace(home, environment=environment).guarded() as client:
        refused, said = await call(client)
    assert (refused, said) == (True, "Refused: kid names no key of this issuer")
    assert home.ran() == []


# -- straight to the server --------------------------------------------------------------------

KEY = SigningKey.load(bytes(range(32)))


class Signer:
    """Issues artifacts for calls that the policy never saw: the test is the Guard."""

    def __init__(self, key: SigningKey = KEY, name: str = "guard.example") -> None:
        self._issuer = Issuer(name=name, key=key, pairwise_secret=bytes(32))

    def token(
        self,
        tool: str = "transfer",
        arguments: Any = None,
        *,
        audience: str = "bank",
        ago: int = 0,
        mode: str = "enforce",
    ) -> str:
        bound = Call(
            id=b64(os.urandom(16)),
            principal=Principal("default", "launch", "ada", "payer"),
            tool=Tool("bank", tool, "digest"),
            audience=audience,
            method="tools/call",
            params={"name": tool, "arguments": TRANSFER if arguments is None else arguments},
            conversation=Conversation("c", "launch"),
            facts=Facts(now=0),
        )
        allow = Allow(("rule",), ("payments:transfer",), mode=mode)
        now = int(time.time()) - ago
        issued = self._issuer.issue(
            bound, allow, PolicyRef("p", 1, "digest"), now=now, jti=b64(os.urandom(16))
        )
        return issued.token.decode()


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    """A bank that trusts the test's key."""
    (tmp_path / "jwks.json").write_text(json.dumps(KeySet([KEY.public]).jwks()))
    return Bank(tmp_path)


@pytest.mark.parametrize("era", ERAS)
async def test_straight_to_the_server_only_a_valid_artifact_opens(bank: Bank, era: str) -> None:
    """In both eras each fault is refused in its own words, no tool runs, and the next good call does."""
    sign = Signer()
    good = sign.token()
    other = {**TRANSFER, "iban": "FR7630006000011234567890189"}
    head, claims, signature = sign.token().split(".")
    async with bank.straight(era) as client:
        refused = {
            Fault.MISSING: await call(client),
            Fault.MALFORMED: await call(client, token="rubbish"),
            Fault.SIGNATURE: await call(client, token=f"{head}.{claims}.{signature[::-1][2:]}AA"),
            Fault.ISSUER: await call(client, token=Signer(name="guard.other").token()),
            Fault.AUDIENCE: await call(client, token=sign.token(audience="elsewhere")),
            Fault.NOT_YET_VALID: await call(client, token=sign.token(ago=-60)),
            Fault.EXPIRED: await call(client, token=sign.token(ago=80)),
            Fault.TOOL: await call(client, "balance", {"iban": "x"}, token=good),
            Fault.ARGUMENTS: await call(client, arguments=other, token=good),
            Fault.OBSERVED: await call(client, token=sign.token(mode="observe")),
        }
        assert refused == {fault: refusal(fault) for fault in refused}
        assert bank.ran() == []
        assert await call(client, token=good) == (False, SENT)
        assert await call(client, token=good) == refusal(Fault.REPLAYED)
    assert bank.ran() == ["transfer"]
    assert bank.used() == [good]


async def test_the_lists_need_no_artifact_and_show_the_scopes(bank: Bank) -> None:
    """Only calls act: a list is free, and each tool declares what it needs."""
    async with bank.straight() as client:
        tools = (await client.list_tools()).tools
    declared = {tool.name: (tool.meta or {})["dev.guard-mcp/scopes"] for tool in tools}
    assert declared == {"balance": ["payments:read"], "transfer": ["payments:transfer"]}


async def test_a_used_artifact_stays_used_after_a_restart(bank: Bank) -> None:
    """With a replay store on disk another process of the server refuses it as well."""
    token = Signer().token()
    async with bank.straight() as client:
        assert await call(client, token=token) == (False, SENT)
    async with bank.straight() as client:
        assert await call(client, token=token) == refusal(Fault.REPLAYED)
    assert bank.ran() == ["transfer"]


async def test_in_memory_one_process_remembers(bank: Bank) -> None:
    """Without --replay the same process still refuses the second use."""
    token = Signer().token()
    async with replace(bank, memory=True).straight() as client:
        assert await call(client, token=token) == (False, SENT)
        assert await call(client, token=token) == refusal(Fault.REPLAYED)
    assert bank.ran() == ["transfer"]


async def test_a_replay_store_that_cannot_be_written_refuses(bank: Bank) -> None:
    """A store that fails is a no: nothing runs, and the client is told that something went wrong."""
    async with bank.straight() as client:
        for file in bank.folder.glob("replay.db*"):
            file.unlink()
        (bank.folder / "replay.db").mkdir()
        with pytest.raises(MCPError, match="Internal"):
            await call(client, token=Signer().token())
    assert bank.ran() == []


@pytest.mark.parametrize("left_out", ["--issuer", "--jwks", "--audience"])
def test_the_server_does_not_start_without_its_settings(bank: Bank, left_out: str) -> None:
    """Issuer, keys and audience have no defaults."""
    command = bank.command()
    at = command.index(left_out)
    assert _start([*command[:at], *command[at + 2 :]]) == 2


@pytest.mark.parametrize("jwks", ['{"keys": []}', "{}", "[", '{"keys": [{"kty": "RSA"}]}'])
def test_the_server_does_not_start_without_good_keys(bank: Bank, jwks: str) -> None:
    """An empty or unreadable key set would refuse everything or, worse, nothing."""
    (bank.folder / "jwks.json").write_text(jwks)
    assert _start(bank.command()) == 1


def _start(command: Sequence[str]) -> int:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=30)
    assert done.stdout == b""
    return done.returncode
