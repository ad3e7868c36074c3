"""A PostgreSQL for tests: a server of their own from the installed binaries, or one that is named.

`GUARD_TEST_DATABASE_URL` names a server whose user may create databases and roles. Without it each test
process starts its own server, as an unprivileged user where the tests run as root. It syncs as a real one
does, since what survives a crash is what is tested. It listens on a socket in its own folder and nowhere
else, so that no port can be taken and nobody else's programs reach it.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, quote, urlsplit, urlunsplit

import pytest

NAMED: Final = "GUARD_TEST_DATABASE_URL"
NEEDED: Final = ("CI", "GUARD_TEST_POSTGRES")
"""Where one of these variables is set, a test without its server fails."""
OLDEST: Final = 15
PATIENCE: Final = 60.0
SUPERUSER: Final = "postgres"
USERS: Final = ("postgres", "nobody")
"""Whom the server runs as where the tests run as root: it refuses to run as root itself."""
PORT: Final = 5432
PASSWORD: Final = "guard"
"""Of roles that tests make. A server of our own asks for none."""
SETTINGS: Final = {
    "listen_addresses": "",
    "port": PORT,
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "16MB",
    "min_wal_size": "8MB",
    "max_wal_size": "64MB",
    "max_connections": 100,
    "autovacuum_naptime": "10s",
    "timezone": "UTC",
    "lc_messages": "C",
}
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None)


class Missing(Exception):
    """There is no PostgreSQL here. The text says what to do."""


def binaries() -> Path:
    """The folder with `initdb` and `postgres`, the newest that is new enough. Raises Missing."""
    folders = [*Path("/usr/lib/postgresql").glob("*/bin"), *Path("/usr").glob("pgsql-*/bin")]
    if found := shutil.which("pg_config"):
        told = subprocess.run([found, "--bindir"], capture_output=True, text=True, check=False)
        folders.append(Path(told.stdout.strip()))
    if found := shutil.which("postgres"):
        folders.append(Path(found).resolve().parent)
    usable = [
        folder for folder in folders if all((folder / name).exists() for name in ("initdb", "postgres"))
    ]
    best = max(usable, key=_major, default=None)
    if best is None or _major(best) < OLDEST:
        raise Missing(
            f"no PostgreSQL {OLDEST} or later is installed; install it (Debian: apt-get install postgresql) "
            f"or name a server in {NAMED}"
        )
    return best


def _major(folder: Path) -> int:
    told = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=False)
    words = told.stdout.split()
    return int(words[2].split(".")[0]) if len(words) > 2 and words[2][:1].isdigit() else 0


def _dies_with_us() -> None:
    """Between fork and exec: the server is told to stop if this process is killed (prctl(2), Linux)."""
    with suppress(AttributeError):
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)


class Server:
    """A server of our own, which can be stopped, killed and started again.

    Args:
        folder: where its data lie, not made yet; a new one that `close` removes if it is None.
        settings: further settings.
    """

    def __init__(self, folder: Path | None = None, **settings: str | int) -> None:
        self._bin = binaries()
        self._owned = folder is None
        self.folder = Path(tempfile.mkdtemp(prefix="guard-pg-")) if folder is None else folder
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self.data = self.folder / "data"
        self.log = self.folder / "log"
        self._settings = {**SETTINGS, **settings}
        self._as: dict[str, object] = {}
        self.process: subprocess.Popen[bytes] | None = None
        if os.geteuid() == 0:
            user = _unprivileged()
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        words = ["-D", str(self.data), "-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--locale=C"]
        made = self._run("initdb", *words, "--wal-segsize=1", "--no-sync", "--no-instructions")
        if made.returncode:
            self.close()
            raise AssertionError(f"initdb failed: {made.stdout}{made.stderr}")

    def _run(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # type: ignore[call-overload, no-any-return]
            [self._bin / name, *words], cwd="/", env=self._environment(), capture_output=True, text=True,
            check=False, **self._as,
        )  # fmt: skip

    @staticmethod
    def _environment() -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}

    def start(self) -> None:
        """Start it, and wait until it takes connections; after a crash it recovers first."""
        settings = self._settings | {"unix_socket_directories": str(self.folder)}
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(  # type: ignore[call-overload]
                [self._bin / "postgres", "-D", self.data, *words], cwd="/", env=self._environment(),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self._as,
                preexec_fn=_dies_with_us,  # noqa: PLW1509 - one system call, nothing that a thread could hold
            )  # fmt: skip
        assert self.process is not None
        end = time.monotonic() + PATIENCE
        while not self._ready():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < end, self.said()
            time.sleep(0.01)

    def _ready(self) -> bool:
        """Whether its own file says so (postmaster.pid: line 1 the process, line 8 the state)."""
        assert self.process is not None
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) > 7 and lines[0] == str(self.process.pid) and lines[7].strip() == "ready"

    def stop(self, signum: int = signal.SIGINT) -> None:
        """Shut it down. SIGINT ends its sessions; SIGQUIT leaves a recovery to the next start."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                self.process.send_signal(signum)
            self.process.wait(PATIENCE)
            self.process = None

    def kill(self) -> None:
        """Kill -9 all of it at once: whatever it had not synced is the system's to keep or to lose."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)  # it begins nothing more while the others are killed
        children = self.children()
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait(PATIENCE)
        end = time.monotonic() + PATIENCE
        while any(_runs(pid) for pid in children):  # it does not start again while one of them is there
            assert time.monotonic() < end
            time.sleep(0.005)
        self.process = None

    def children(self) -> list[int]:
        """Its processes but the first: one for each connection, and its own workers."""
        assert self.process is not None
        pid = self.process.pid
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop it, and remove what it leaves."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder if self._owned else self.data, ignore_errors=True)

    def said(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-4000:] if self.log.exists() else ""

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.folder / f".s.PGSQL.{PORT}"

    @property
    def url(self) -> str:
        """Of its superuser and its first database."""
        return f"postgresql://{SUPERUSER}@/postgres?host={quote(str(self.folder), safe='')}&port={PORT}"


def _unprivileged() -> pwd.struct_passwd:
    for name in USERS:
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise Missing(f"no user to run PostgreSQL as: none of {', '.join(USERS)}")


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def with_parts(url: str, *, database: str | None = None, user: str | None = None, password: str = "") -> str:
    """A URL to another database, or of another user."""
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2] if user is not None else parts.netloc
    if user is not None:
        secret = f":{quote(password, safe='')}" if password else ""
        place = f"{quote(user, safe='')}{secret}@{place}"
    path = parts.path if database is None else f"/{database}"
    return urlunsplit(parts._replace(netloc=place, path=path))


def address(url: str) -> str | tuple[str, int]:
    """Where a URL's server listens: the path of a socket, or host and port."""
    parts, given = urlsplit(url), parse_qs(urlsplit(url).query)
    host = given.get("host", [parts.hostname or "localhost"])[0]
    port = int(given.get("port", [parts.port or PORT])[0])
    return f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port)


def through(url: str, port: int) -> str:
    """The same, reached through a port of this machine."""
    parts = urlsplit(url)
    who, at, _ = parts.netloc.rpartition("@")
    kept = [part for part in parts.query.split("&") if part and part.split("=")[0] not in {"host", "port"}]
    return urlunsplit(parts._replace(netloc=f"{who}{at}127.0.0.1:{port}", query="&".join(kept)))


def name_of(url: str) -> str:
    """The name of the database."""
    return urlsplit(url).path[1:]


class Databases:
    """Databases of one server, each with a name that nobody else has.

    Args:
        url: of somebody who may create databases.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def run(self, statement: str) -> None:
        """Run one statement as whoever `url` names, outside a transaction."""
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as db:
            db.execute(statement.encode())

    def make(self, template: str = "template0") -> str:
        """A new database, as the template is. Its URL."""
        name = f"guard_test_{os.urandom(6).hex()}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {template}")
        return with_parts(self.url, database=name)

    def role(self, url: str, name: str) -> str:
        """The URL of the same database for a role of its own, made now, that may do nothing yet."""
        role = f"{name_of(url)}_{name}"
        self.run(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
        return with_parts(url, user=role, password=PASSWORD)

    def drop(self, url: str, *, roles: bool = True) -> None:
        """Remove one, with the roles that were made for it, whoever is connected to it."""
        import psycopg

        self.run(f"DROP DATABASE IF EXISTS {name_of(url)} WITH (FORCE)")
        if not roles:
            return
        with psycopg.connect(self.url, autocommit=True) as db:
            roles = db.execute(
                "SELECT rolname FROM pg_roles WHERE starts_with(rolname, %s)", (f"{name_of(url)}_",)
            ).fetchall()
        for (role,) in roles:
            self.run(f"DROP ROLE {role}")

    @contextmanager
    def fresh(self) -> Iterator[str]:
        """A new one, and its end."""
        url = self.make()
        try:
            yield url
        finally:
            self.drop(url)


def absent(error: Missing) -> None:
    """No server: a failure where one must be, else a skip with its reason."""
    if any(map(os.environ.get, NEEDED)):
        pytest.fail(str(error), pytrace=False)
    pytest.skip(str(error))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Databases]:
    """The server that all tests of this process share."""
    if named := os.environ.get(NAMED):
        yield Databases(named)
        return
    try:
        server = Server()
    except Missing as error:
        absent(error)
        raise
    try:
        server.start()
        yield Databases(server.url)
    finally:
        server.close()


@pytest.fixture
def database(postgres: Databases) -> Iterator[str]:
    """The URL of an empty database that no other test has, of a user who owns it."""
    with postgres.fresh() as url:
        yield url


@pytest.fixture
def own_postgres() -> Iterator[Server]:
    """A running server of the test's own, to stop, to kill and to start again."""
    try:
        server = Server()
    except Missing as error:
        absent(error)
        raise
    try:
        server.start()
        yield server
    finally:
        server.close()
