"""Several processes behind one address: the parent that starts them, looks after them and stops them.

The parent has no loop, no thread and no open store, so that a fork of it is whole. It binds the address
once for each worker, and keeps what it bound: what a worker that died had not accepted yet waits for the
next one.
"""

from __future__ import annotations

import os
import secrets
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from guard.config.home import default_home, open_home
from guard.config.loaded import LAX, Loaded
from guard.config.run import STOPPING
from guard.config.serve import Worker
from guard.config.settings import Settings
from guard.config.wiring import say
from guard.core.errors import GuardError
from guard.proxy.listener import BACKLOG
from guard.proxy.relay import Post

MOST: Final = 64
FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 30.0
STEADY_SECONDS: Final = 60.0
"""A worker that served so long and then died begins again with the shortest pause."""
STOP_SECONDS: Final = 30.0
"""How long workers may take to end what is under way; more than each gives itself."""
UNUSABLE: Final = 2
"""Exit code: a worker could not begin."""
CRASHED: Final = 70
_HEARD: Final = (*STOPPING, signal.SIGHUP, signal.SIGCHLD)
_MAX_PATH: Final = 90
"""Bytes of a folder's path: a socket in it has to be below 104 (sun_path, unix(7), and fewer on BSD)."""

Serve = Callable[[Worker, Loaded], None]


@dataclass(slots=True)
class _Slot:
    """One worker's number, whoever has it now.

    Attributes:
        pid: 0 where none runs.
        begun: whether it serves.
        since: when it was started.
        due: when the next is started.
        deaths: in a row.
        owed: whether it is yet to hear of a reload.
    """

    pid: int = 0
    begun: bool = False
    since: float = 0.0
    due: float = 0.0
    deaths: int = 0
    owed: bool = False


class Parent:
    """Looks after the workers.

    Args:
        count: how many.
        loaded: what each begins with.
        again: reads it anew, for a reload. Raises GuardError.
        serve: what a worker does, in its own process.
    """

    def __init__(self, count: int, loaded: Loaded, again: Callable[[], Loaded], serve: Serve) -> None:
        self._loaded = loaded
        self._again = again
        self._serve = serve
        self._slots = [_Slot() for _ in range(count)]
        self._secret = secrets.token_bytes(32)
        self._stopping = False
        self._failed = 0
        self._wakes = self._life = self._news = (-1, -1)

    def run(self) -> int:
        """Serve until told to stop. Returns the exit code.

        Raises:
            GuardError: nothing can be served.
        """
        settings = self._loaded.settings
        if settings.stdio:
            raise GuardError(
                "one client at the pipes has one worker",
                where="--workers",
                remedy="leave it out, or listen on HOST:PORT",
            )
        home = open_home(settings.home or default_home())
        # made once, before several want to
        home.store(lax=settings.durability == LAX, address=settings.address).close()
        run = home.path / "run"
        run.mkdir(mode=0o700, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix="w", dir=run))  # for this user only
        try:
            self._folder_of_sockets = _short(self._folder)
            self._sockets = bind(settings, len(self._slots))
            return self._look_after()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _look_after(self) -> int:
        self._wakes, self._life, self._news = os.pipe(), os.pipe(), os.pipe()
        for fd in (*self._wakes, self._news[0]):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(self._wakes[1], warn_on_full_buffer=False)
        for signum in _HEARD:
            signal.signal(signum, lambda *_: None)
        self._start(0)  # what is wrong with the configuration is told once
        while any(slot.pid for slot in self._slots) or not self._stopping:
            ready, _, _ = select.select([self._wakes[0], self._news[0]], [], [], self._pause())
            if self._news[0] in ready:
                for number in os.read(self._news[0], 4096):
                    self._begun(number)
            if self._wakes[0] in ready:
                heard = set(os.read(self._wakes[0], 4096))
                self._reap()
                if signal.SIGHUP in heard and not self._stopping:
                    self._reload()
                if heard & {*STOPPING}:
                    self._stop()
            self._start_due()
        return self._failed

    def _pause(self) -> float:
        now = time.monotonic()
        waits = [slot.due - now for slot in self._slots if slot.due and not slot.pid]
        return max(0.0, min(waits, default=1.0))

    # -- workers -----------------------------------------------------------------------------------

    def _start(self, number: int) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
        pid = os.fork()
        if pid == 0:
            self._be(number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD)
        slot = self._slots[number]
        slot.pid, slot.begun, slot.since, slot.due = pid, False, time.monotonic(), 0.0

    def _be(self, number: int) -> None:
        """What a worker is; it never returns."""
        code = CRASHED
        try:
            signal.set_wakeup_fd(-1)
            for signum in _HEARD:
                signal.signal(signum, signal.SIG_DFL)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it can reload; the parent tells it again
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD)
            for fd in (*self._wakes, self._life[1], self._news[0]):
                os.close(fd)
            for other, sockets in enumerate(self._sockets):
                if other != number:
                    for each in sockets:
                        each.close()
            post = Post(number, len(self._slots), self._folder_of_sockets, self._secret)
            begun = partial(os.write, self._news[1], bytes([number]))
            self._serve(
                Worker(post, self._sockets[number], lambda: (begun(), None)[1], self._life[0]), self._loaded
            )
            code = 0
        except GuardError as error:
            say(str(error))
            code = UNUSABLE
        except BaseException:  # noqa: BLE001 - a fork must not go on as its parent
            traceback.print_exc(file=sys.stderr)
        finally:
            with suppress(Exception):
                sys.stderr.flush()
            os._exit(code)

    def _begun(self, number: int) -> None:
        slot = self._slots[number]
        first = not any(each.begun or each.deaths for each in self._slots)
        slot.begun = True
        if slot.owed and slot.pid:
            slot.owed = False
            os.kill(slot.pid, signal.SIGHUP)
        if first and not self._stopping:
            for other in range(len(self._slots)):
                if not self._slots[other].pid:
                    self._start(other)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            for number, slot in enumerate(self._slots):
                if slot.pid == pid:
                    self._died(number, os.waitstatus_to_exitcode(status))

    def _died(self, number: int, code: int) -> None:
        slot, now = self._slots[number], time.monotonic()
        slot.pid = 0
        if self._stopping:
            return
        if not any(each.begun for each in self._slots):  # the first one did not even begin
            self._failed = code if code > 0 else CRASHED
            self._stopping = True
            return
        slot.begun = False
        slot.deaths = 1 if now - slot.since > STEADY_SECONDS else slot.deaths + 1
        pause = min(FIRST_PAUSE * 2 ** (slot.deaths - 1), LONGEST_PAUSE)
        slot.due = now + pause
        how = f"by signal {-code}" if code < 0 else f"with code {code}"
        say(f"worker {number} ended {how}; the next one starts in {pause:g} seconds")

    def _start_due(self) -> None:
        now = time.monotonic()
        for number, slot in enumerate(self._slots):
            if slot.due and not slot.pid and now >= slot.due and not self._stopping:
                self._start(number)

    # -- what the operator wants -------------------------------------------------------------------

    def _reload(self) -> None:
        """Tell every worker, once what is to be read can be."""
        try:
            self._loaded = self._again()
        except GuardError as error:
            say(f"not reloaded, the old configuration holds: {error}")
            return
        for slot in self._slots:
            if slot.pid and slot.begun:
                os.kill(slot.pid, signal.SIGHUP)
            else:
                slot.owed = slot.pid != 0

    def _stop(self) -> None:
        """End every worker: gracefully, and in the end surely."""
        self._stopping = True
        for sockets in self._sockets:
            for each in sockets:
                each.close()
        for slot in self._slots:
            if slot.pid:
                os.kill(slot.pid, signal.SIGTERM)
        end = time.monotonic() + STOP_SECONDS
        while any(slot.pid for slot in self._slots):
            self._reap()
            if time.monotonic() > end:
                for slot in self._slots:
                    if slot.pid:
                        os.kill(slot.pid, signal.SIGKILL)
            select.select([self._wakes[0]], [], [], 0.1)
            with suppress(BlockingIOError):
                os.read(self._wakes[0], 4096)


def _short(folder: Path) -> Path:
    """A path of the folder that a socket's can begin with, in this process and what is forked of it.

    Raises:
        GuardError: there is none.
    """
    if len(os.fsencode(folder)) <= _MAX_PATH:
        return folder
    if not Path("/proc/self/fd").is_dir():
        raise GuardError("is too long for sockets", where=str(folder), remedy="give a shorter `home`")
    return Path(f"/proc/self/fd/{os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)}")


def bind(settings: Settings, count: int) -> list[list[socket.socket]]:
    """The sockets of each worker, on every address that `listen` names: one port, and all listen.

    The system spreads connections over them (SO_REUSEPORT, socket(7)).

    Raises:
        GuardError: it cannot be bound.
    """
    kind, flags = socket.SOCK_STREAM, socket.AI_PASSIVE
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=kind, flags=flags)
        port = settings.port
        made: list[list[socket.socket]] = [[] for _ in range(count)]
        for family, _, _, _, address in dict.fromkeys(found):
            # A port that others share already would be shared with them: without this, nobody would know.
            with _bound(family, (address[0], port, *address[2:]), shared=False) as alone:
                port = alone.getsockname()[1]
            for sockets in made:
                sockets.append(_bound(family, (address[0], port, *address[2:]), shared=True))
        for sockets in made:
            for each in sockets:
                each.listen(BACKLOG)
    except OSError as error:
        raise GuardError(
            f"cannot be bound: {error.strerror or error}",
            where="listen",
            remedy="is another program there already? give another port",
        ) from None
    return made


def _bound(family: int, address: Sequence[object], *, shared: bool) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.setblocking(False)  # noqa: FBT003 - its signature
        made.bind(tuple(address))
    except BaseException:
        made.close()
        raise
    return made
