"""What a policy remembers, broken on purpose, both ways: it fails, and it fails after it happened.

Over real pipes, with a real store and a real server. Nothing that cannot be read permits; nothing that
cannot be remembered is shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from guard.config.run import Guarded
from guard.lineage.entry import Kind
from guard.lineage.store import CloseGrant, OpenGrant, Remember, Reserve, SaveQuestion, Strike, Transaction
from guard.proxy import world
from tests.proxy.scene import LEGACY, MODERN, Client, Scene, decision, reason

ERAS: Final = pytest.mark.parametrize("version", [MODERN, LEGACY], ids=["modern", "handshake"])
WAYS: Final = pytest.mark.parametrize("after", [False, True], ids=["fails", "fails-after-it-happened"])
MEMORY: Final[Mapping[str, Any]] = {
    "sources": [{"tools": ["echo"], "trust": "trusted"}],
    "origins": [{"id": "known", "tools": ["slow"], "arguments": ["/text"], "accept": ["mixed"]}],
}
SECRET: Final = "GB29NWBK60161331926819"
Wrap = Callable[[Guarded], None]


def scene(folder: Path, **policy: Any) -> Scene:
    folder.mkdir(exist_ok=True)
    found = Scene(folder / "s", era="modern", policy={**Scene(folder / "s").policy, **policy})
    found.pin()
    return found


def reading(name: str, *, after: bool) -> Wrap:
    """A store whose one question breaks."""

    def wrap(guarded: Guarded) -> None:
        real = getattr(guarded.store, name)

        def broken(*given: Any, **more: Any) -> Any:
            if after:
                real(*given, **more)
            raise OSError(5, "broken on purpose")

        setattr(guarded.store, name, broken)

    return wrap


def writing(kind: type, *, after: bool) -> Wrap:
    """A log that breaks where a transaction has such an effect."""

    def wrap(guarded: Guarded) -> None:
        log = guarded.house.log
        real = log.commit

        async def broken(made: Transaction, *given: Any) -> Any:
            hit = any(isinstance(effect, kind) for effect in made.effects)
            if after or not hit:
                outcome = await real(made, *given)
            if hit:
                raise OSError(5, "broken on purpose")
            return outcome

        log.commit = broken  # type: ignore[method-assign, assignment]

    return wrap


async def told(client: Client, name: str = "echo", **arguments: Any) -> str:
    found = await client.call(name, **arguments)
    assert "broken on purpose" not in str(found)
    return reason(found) if found["result"].get("isError") else "allow"


@ERAS
@WAYS
async def test_what_cannot_be_remembered_is_not_shown(tmp_path: Path, version: str, after: bool) -> None:  # noqa: FBT001
    """The server has answered, the store breaks: the client hears that it ran, and none of it."""
    found = scene(tmp_path, **MEMORY)
    async with found.guarded(version, wrap=writing(Remember, after=after)) as client:
        answer = await client.call("echo", text=SECRET)
        about = decision(answer)
        assert (about["decision"], about["outcome"], about["retryable"]) == ("allow", "executed", False)
        assert SECRET not in str(answer)
    assert len(found.received()) == 1
    found.settled()


@ERAS
async def test_what_cannot_be_taken_apart_is_not_shown(
    tmp_path: Path, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault in finding the values is none in the client's favour; the memory is not whole from then on."""

    def broken(*_: Any) -> Any:
        raise RuntimeError("broken on purpose")

    found = scene(tmp_path, **MEMORY)
    async with found.guarded(version) as client:
        assert await told(client, text=SECRET) == "allow"
        assert await told(client, "slow", text=SECRET) == "allow"
        with monkeypatch.context() as patch:
            patch.setattr(world, "remembered", broken)
            answer = await client.call("echo", text="another")
            assert decision(answer)["outcome"] == "executed"
            assert "another" not in str(answer)
        assert await told(client, "slow", text=SECRET) == "origin-refused"
    assert len(found.entries(Kind.UNKNOWN)) == 1


@ERAS
@WAYS
@pytest.mark.parametrize("name", ["recall", "used", "approval"])
async def test_what_cannot_be_read_denies(
    tmp_path: Path,
    version: str,
    name: str,
    after: bool,  # noqa: FBT001
) -> None:
    """What was seen, what was used, what was approved: nobody knows, so nobody is let through."""
    rules: dict[str, dict[str, Any]] = {
        "recall": dict(MEMORY),
        "used": {
            "limits": [{"id": "few", "tools": ["slow"], "per": "principal", "calls": 9, "window": "1h"}]
        },
        "approval": {"asks": [{"id": "person", "tools": ["slow"], "approver": "client"}]},
    }
    found = scene(tmp_path, **rules[name])
    async with found.guarded(version, wrap=reading(name, after=after)) as client:
        assert await told(client, "slow", text=SECRET) in {"unexpected", "store-unavailable"}
        assert await told(client, "echo", text="x") == "allow", "what asks nothing of it runs"
        await client.silent()
    assert [one["params"]["name"] for one in found.received()] == ["echo"]
    assert len(found.entries(Kind.DENIED)) == 1


@ERAS
@WAYS
async def test_a_question_that_cannot_be_kept_denies(tmp_path: Path, version: str, after: bool) -> None:  # noqa: FBT001
    """Nobody can answer what is not written down, so it is a denial, and nothing runs."""
    found = scene(tmp_path, asks=[{"id": "person", "tools": ["echo"], "approver": "reviewer"}])
    async with found.guarded(version, wrap=writing(SaveQuestion, after=after)) as client:
        assert await told(client, text="x") in {"unexpected", "store-unavailable"}
    assert found.received() == []
    assert len(found.entries(Kind.DENIED)) == 1


@ERAS
@WAYS
@pytest.mark.parametrize("kind", [Reserve, Strike])
async def test_what_cannot_be_counted_denies(tmp_path: Path, version: str, kind: type, after: bool) -> None:  # noqa: FBT001
    """A reservation that may not stand sends nothing; a denial stays one, counted or not."""
    found = scene(
        tmp_path,
        limits=[{"id": "few", "tools": ["slow"], "per": "principal", "at_once": 2}],
        containment={"principal": {"denials": 5, "window": "1h"}},
    )
    async with found.guarded(version, wrap=writing(kind, after=after)) as client:
        given = {"n": 13} if kind is Strike else {"text": "x"}
        assert await told(client, "echo" if kind is Strike else "slow", **given) != "allow"
    assert found.received() == []
    found.settled()


@ERAS
@WAYS
async def test_a_mark_that_cannot_be_noted_withholds_the_result(
    tmp_path: Path,
    version: str,
    after: bool,  # noqa: FBT001
) -> None:
    """What a later call would rest on was not stored: the client does not learn that it was read."""
    rule = {"id": "look", "tools": ["slow"], "requires": ["echo"], "within": "1h"}
    found = scene(tmp_path, sequences=[rule])
    async with found.guarded(version, wrap=writing(Reserve, after=after)) as client:
        answer = await client.call("echo", text=SECRET)
        assert decision(answer)["outcome"] == "executed"
        assert SECRET not in str(answer)
        assert await told(client, "slow") == ("allow" if after else "required-first")
    found.settled()


# -- what it costs who does not use it -------------------------------------------------------------


@ERAS
async def test_a_policy_without_memory_reads_and_writes_nothing_more(tmp_path: Path, version: str) -> None:
    """Nothing is looked up for a call, its grant opens and its ending closes it, and that is all."""
    asked, effects = Counter[str](), Counter[str]()

    def wrap(guarded: Guarded) -> None:
        for name in ("used", "recall", "approval", "question", "questions"):
            setattr(guarded.store, name, lambda *_, name=name, **__: asked.update([name]))
        real = guarded.store.apply

        def apply(batch: Any, *given: Any, **more: Any) -> Any:
            for made in batch:
                for effect in made.effects:
                    effects[type(effect).__name__] += 1
                    if isinstance(effect, CloseGrant):
                        assert (effect.known, effect.told, effect.nothing_sent) == (False, False, False)
            return real(batch, *given, **more)

        guarded.store.apply = apply  # type: ignore[method-assign]

    found = scene(tmp_path)
    async with found.guarded(version, wrap=wrap) as client:
        for _ in range(5):
            assert await told(client, text="x") == "allow"
        assert await told(client, n=13) == "protected"
    assert asked == {}
    assert effects == {OpenGrant.__name__: 5, CloseGrant.__name__: 5}


@ERAS
async def test_rules_about_other_tools_cost_no_statement(tmp_path: Path, version: str) -> None:
    """The same statements reach the database as without these rules, and no other."""
    others: dict[str, Any] = {
        "limits": [{"id": "few", "tools": ["slow"], "per": "principal", "calls": 9, "window": "1h"}],
        "sequences": [{"id": "look", "tools": ["slow"], "requires": ["fail"]}],
        "hours": [{"id": "late", "tools": ["slow"], "from": "00:00", "to": "01:00", "zone": "UTC"}],
        "asks": [{"id": "person", "tools": ["slow"]}],
    }
    plain, more = [
        await _statements(tmp_path / str(n), version, rules) for n, rules in enumerate(({}, others))
    ]
    assert plain
    assert more == plain


async def _statements(folder: Path, version: str, policy: dict[str, Any]) -> set[str]:
    """How every statement begins that one store is asked for a call."""
    found = scene(folder, **policy)
    statements = set[str]()

    def note(text: str) -> None:
        if not text.startswith("PRAGMA"):  # of a connection that was opened meanwhile
            statements.add(" ".join(text.split()[:4]))

    def wrap(guarded: Guarded) -> None:
        guarded.store._db.set_trace_callback(note)  # type: ignore[attr-defined]

    async with found.guarded(version, wrap=wrap) as client:
        await told(client, text="x")
        await client.silent()
        statements.clear()
        for _ in range(5):
            assert await told(client, text="x") == "allow"
        await client.silent()
        return set(statements)
