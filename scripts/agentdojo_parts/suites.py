"""A suite of AgentDojo as recorded: its tools, its tasks with the results of their calls, its injections."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parent.parent.parent
EXAMPLES: Final = ROOT / "examples" / "agentdojo"
"""Where a policy is looked for that does not lie beside its suite, and the suites that come with Guard."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One call of the ground truth, with what it returned.

    Attributes:
        tool: its name.
        args: its arguments.
        text: the result as the model sees it.
        value: the result as JSON; None where only text was recorded.
        shows: ids of the injection vectors that this result shows.
    """

    tool: str
    args: dict[str, Any]
    text: str
    value: Any = None
    shows: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Task:
    """What a user asks, or what an attacker wants.

    Attributes:
        id: as the suite calls it.
        words: the user's prompt, or the attacker's goal.
        calls: what has to be called for it.
    """

    id: str
    words: str
    calls: tuple[Recorded, ...]


@dataclass(frozen=True, slots=True)
class Suite:
    """One suite.

    Attributes:
        name: its name, and the id of its server.
        path: the file.
        policy: the one static policy beside it.
        tools: as `tools/list` tells them.
        users: the user tasks.
        injections: the injection tasks that have calls.
        vectors: the text that stands in each vector by default.
        left_out: ids of the injection tasks of which nobody wrote down the calls.
    """

    name: str
    path: Path
    policy: Path
    tools: list[dict[str, Any]]
    users: dict[str, Task]
    injections: dict[str, Task]
    vectors: dict[str, str]
    left_out: tuple[str, ...] = field(default=())


def found(folder: Path) -> list[Path]:
    """The suites in a folder, by name: every JSON file with user tasks and injection tasks."""
    paths = sorted(path for path in folder.glob("*.json") if not path.name.endswith(".injections.json"))
    return [path for path in paths if {"user_tasks", "injection_tasks"} <= _read(path).keys()]


def load(path: Path) -> Suite:
    """Read a suite. Raises KeyError or ValueError: not of that format."""
    document = _read(path)
    name = document["suite"]
    beside = _beside(path, f"{path.stem}.injections.json")
    written = _read(beside) if beside.is_file() else {}
    injections, left_out = {}, []
    for one in document["injection_tasks"]:
        calls = one["calls"] or written.get(one["id"], [])
        if calls:
            injections[one["id"]] = Task(one["id"], one["goal"], tuple(_call(call, ()) for call in calls))
        else:
            left_out.append(one["id"])
    return Suite(
        name=name,
        path=path,
        policy=_beside(path, f"{path.stem}.yaml"),
        tools=[_tool(one) for one in document["tools"]],
        users={one["id"]: _user(one) for one in document["user_tasks"]},
        injections=injections,
        vectors={one["id"]: one["default"] for one in document["injection_vectors"]},
        left_out=tuple(left_out),
    )


def _beside(path: Path, name: str) -> Path:
    beside = path.with_name(name)
    return beside if beside.is_file() else EXAMPLES / name


def _read(path: Path) -> dict[str, Any]:
    document = json.loads(path.read_text())
    return document if isinstance(document, dict) else {}


def _tool(one: dict[str, Any]) -> dict[str, Any]:
    return {name: one[name] for name in ("name", "description", "inputSchema") if name in one}


def _user(one: dict[str, Any]) -> Task:
    shows: dict[int, list[str]] = {}
    for seen in one.get("injection_seen_in", ()):
        shows.setdefault(seen["call"], []).append(seen["vector"])
    calls = (_call(call, tuple(shows.get(index, ()))) for index, call in enumerate(one["calls"]))
    return Task(one["id"], one["prompt"], tuple(calls))


def _call(call: dict[str, Any], shows: tuple[str, ...]) -> Recorded:
    value = call.get("result_json")
    text = call["result"] if "result" in call else json.dumps(value)
    return Recorded(call["tool"], call["args"], str(text), value, shows)
