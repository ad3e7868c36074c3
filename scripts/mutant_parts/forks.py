"""Tasks in forked processes, a few at a time: what each returned, or that it died."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Task(Generic[T]):
    """What to run, and a name for it. What it returns must be JSON."""

    name: T
    run: Callable[[], Any]


@dataclass(frozen=True)
class Bounds:
    """Seconds on the clock, seconds of CPU and bytes that a task may take. One that takes more is killed."""

    wall: float
    cpu: int
    memory: int


@dataclass
class _Running(Generic[T]):
    process: int
    task: Task[T]
    since: float
    said: bytes = b""


def forked(tasks: Iterator[Task[T]], processes: int, bounds: Bounds | None = None) -> Iterator[tuple[T, Any]]:
    """Run each task in a process of its own.

    Yields the name of each that ended, and what it returned: None where it died. A task is taken from the
    iterator only when there is room for it, so it may be chosen by what those before it returned.
    """
    running: dict[int, _Running[T]] = {}  # by the pipe on which it answers
    more = True
    while more or running:
        while more and len(running) < processes:
            task = next(tasks, None)
            if task is None:
                more = False
            else:
                pipe, child = _started(task, bounds)
                running[pipe] = child
        ready, _, _ = select.select(list(running), [], [], 1.0)
        for pipe in ready:
            child = running[pipe]
            if piece := os.read(pipe, 1 << 20):
                child.said += piece
                continue
            os.close(pipe)
            os.waitpid(child.process, 0)
            del running[pipe]
            yield child.task.name, (json.loads(child.said) if child.said else None)
        for child in running.values():
            if bounds and time.monotonic() - child.since > bounds.wall:
                os.kill(child.process, signal.SIGKILL)


def _started(task: Task[T], bounds: Bounds | None) -> tuple[int, _Running[T]]:
    ours, theirs = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            _quiet()
            if bounds:
                resource.setrlimit(resource.RLIMIT_CPU, (bounds.cpu, bounds.cpu))
                resource.setrlimit(resource.RLIMIT_AS, (bounds.memory, bounds.memory))
            said = json.dumps(task.run()).encode()
            while said:
                said = said[os.write(theirs, said) :]
        finally:
            os._exit(0)
    os.close(theirs)
    return ours, _Running(process, task, time.monotonic())


def _quiet() -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
