"""Which test notices which mutant: one process that loads the tests once and forks for every mutant.

    python judge.py RESULTS PROCESSES NAMES TEST...      in the folder of the mutated copy

NAMES is a JSON file with the mutants to try, null for all.

mutmut writes each function beside its mutants; its own trampoline asks an environment variable at every
call, and its runner collects all tests anew for every mutant: two seconds of CPU each. Here the trampoline
is a cell into which one mutant is put after a fork, so that a mutant costs the tests that notice it. Tests
that killed a neighbour come first: a mutant of the same function, then of the same module. Then one of each
test function, the quickest of its parameters, then a second one. What is computed while the tests are loaded
is computed by the code as it is: a mutant that shows nowhere else counts as one that nobody notices.
"""

from __future__ import annotations

import functools
import gc
import json
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mutmut.mutation.trampoline
import pytest
from forks import Bounds, Task, forked

BUDGET = 3.0  # seconds of tests a mutant is given; one that they did not notice by then has survived
BOUNDS = Bounds(wall=90.0, cpu=25, memory=6 << 30)

Form = Callable[..., Any]
Cache = type(functools.lru_cache(len))


@dataclass
class Function:
    """A function and its mutants, and the one of them that runs; None: the original."""

    module: str
    forms: dict[str, Form]
    form: Form | None = None

    @property
    def original(self) -> Form:
        return self.forms["_mutmut_orig"]


functions: list[Function] = []


def trampoline(forms: dict[str, Form], is_classmethod: bool = False) -> Callable[[Form], Form]:  # noqa: FBT001, FBT002 (as mutmut calls it)
    """In the place of mutmut's own."""

    def wrap(function: Form) -> Form:
        known = Function(function.__module__, forms)
        functions.append(known)

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            form = known.form or known.original
            if is_classmethod:
                return getattr(args[0], form.__name__)(*args[1:], **kwargs)
            return form(*args, **kwargs)

        return call

    return wrap


class Judge:
    """A pytest plugin that runs the tests its own way."""

    def __init__(self, results: Path, processes: int, names: list[str] | None) -> None:
        self.screen = os.fdopen(os.dup(2), "w")  # pytest catches what is printed
        self.results = results
        self.processes = processes
        self.names = names
        self.items: list[pytest.Item] = []
        self.failed = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.failed |= report.failed

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        session.config.pluginmanager.unregister(name="terminalreporter")
        self.items = session.items
        if session.testsfailed or not functions:
            self.say("not all tests could be loaded, or they load no mutant")
        else:
            self.try_all()
        return True

    def try_all(self) -> None:
        gc.collect()
        gc.freeze()
        began = time.monotonic()
        seconds, tests_of, red = self.measure()
        if red:
            self.say("red without any mutant, and left out: " + ", ".join(sorted(red)))
        took = time.monotonic() - began
        self.say(f"{len(self.items)} tests take {sum(seconds.values()):.0f} s, measured in {took:.0f} s")
        outcomes = self.kill(seconds, tests_of)
        self.results.write_text(json.dumps({"red": sorted(red), "outcomes": outcomes}))

    def measure(self) -> tuple[dict[int, float], dict[int, list[int]], list[str]]:
        """How long each test takes, which tests run each function, and what fails as it is."""
        seconds: dict[int, float] = {}
        tests_of: dict[int, list[int]] = defaultdict(list)
        red: list[str] = []
        count = len(self.items)
        size = max(1, count // (8 * self.processes))
        parts = [range(first, min(first + size, count)) for first in range(0, count, size)]
        tasks = (Task(part, functools.partial(self.measure_part, part)) for part in parts)
        for part, said in forked(tasks, self.processes):
            for index, took, touched, passed in said or [(part.start, 0.0, [], False)]:
                seconds[index] = took
                if not passed:
                    red.append(self.items[index].nodeid)
                    continue
                for number in touched:
                    tests_of[number].append(index)
        return seconds, tests_of, red

    def measure_part(self, part: range) -> list[tuple[int, float, list[int], bool]]:
        touched: set[int] = set()
        for number, function in enumerate(functions):
            function.form = _recorder(number, function.original, touched)
        measured = []
        for index in part:
            touched.clear()
            began = time.perf_counter()
            passed = self.passes(index, index + 1 if index + 1 in part else None)
            measured.append((index, time.perf_counter() - began, list(touched), passed))
        return measured

    def kill(self, seconds: dict[int, float], tests_of: dict[int, list[int]]) -> dict[str, str]:
        """What became of each mutant, by its name."""
        killers: dict[int, Counter[int]] = defaultdict(Counter)
        beside: dict[str, Counter[int]] = defaultdict(Counter)
        turns = self.turns(seconds)
        caches = [o for o in gc.get_objects() if isinstance(o, Cache) and o.__module__.startswith("guard.")]
        outcomes: dict[str, str] = {}

        def attempt(number: int, form: Form, order: list[int]) -> tuple[int | None]:
            functions[number].form = form
            for cache in caches:
                cache.cache_clear()
            return (self.first_failure(order, BUDGET),)

        def tasks() -> Iterator[Task[tuple[int, str]]]:
            todo = [
                (int(form.rpartition("_")[2]), number, form)
                for number, function in enumerate(functions)
                for form in function.forms
                if form != "_mutmut_orig"
                and (self.names is None or f"{function.module}.{form}" in self.names)
            ]
            # Neighbours are far apart, so that what killed one is known when the next is tried.
            for _, number, form in sorted(todo):
                function = functions[number]
                key = number, f"{function.module}.{form}"
                outcomes[key[1]] = "no tests"
                if tests := tests_of.get(number):
                    known, near = killers[number], beside[function.module]
                    order = sorted(tests, key=lambda i: (-known[i], -near[i], turns[i], seconds[i]))
                    yield Task(key, functools.partial(attempt, number, function.forms[form], order))

        for done, ((number, name), said) in enumerate(forked(tasks(), self.processes, BOUNDS), 1):
            if done % 500 == 0:
                self.say(f"{done} mutants tried, {sum(o == 'survived' for o in outcomes.values())} survived")
            if said is None:
                outcomes[name] = "timeout"
            elif said[0] is None:
                outcomes[name] = "survived"
            else:
                outcomes[name] = "killed"
                killers[number][said[0]] += 1
                beside[functions[number].module][said[0]] += 1
        return outcomes

    def turns(self, seconds: dict[int, float]) -> dict[int, int]:
        """Each test's place among those of its function, the quickest first: one of each comes before two."""
        found: dict[int, int] = {}
        taken: Counter[str] = Counter()
        for index in sorted(seconds, key=seconds.__getitem__):
            function = self.items[index].nodeid.partition("[")[0]
            found[index] = taken[function]
            taken[function] += 1
        return found

    def first_failure(self, order: Sequence[int], budget: float) -> int | None:
        """The first of the tests that fails, by its index; None if none does in so many seconds."""
        end = time.monotonic() + budget
        for place, index in enumerate(order):
            if not self.passes(index, order[place + 1] if place + 1 < len(order) else None):
                return index
            if time.monotonic() > end:
                break
        return None

    def passes(self, index: int, following: int | None) -> bool:
        self.failed = False
        item = self.items[index]
        item.ihook.pytest_runtest_protocol(
            item=item, nextitem=None if following is None else self.items[following]
        )
        return not self.failed

    def say(self, what: str) -> None:
        print(what, file=self.screen, flush=True)


def _recorder(number: int, function: Form, touched: set[int]) -> Form:
    @functools.wraps(function)
    def record(*args: Any, **kwargs: Any) -> Any:
        touched.add(number)
        return function(*args, **kwargs)

    return record


def main() -> int:
    results, processes, names, *arguments = sys.argv[1:]
    sys.path.insert(0, str(Path.cwd()))
    mutmut.mutation.trampoline.wrap_in_trampoline = trampoline  # type: ignore[assignment]
    sys.setrecursionlimit(2 * sys.getrecursionlimit())  # a call of a mutated function is two
    judge = Judge(Path(results), int(processes), json.loads(Path(names).read_text()))
    return int(pytest.main(arguments, plugins=[judge]))


if __name__ == "__main__":
    sys.exit(main())
