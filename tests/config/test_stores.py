"""Which store a home uses: a command that is told nothing uses the one that Guard uses."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from guard.cli.main import main
from guard.config.home import open_home
from guard.config.settings import load_settings
from guard.core.errors import GuardError
from guard.lineage.database import StoreError
from guard.lineage.postgres import schema
from guard.lineage.postgres.address import Address
from guard.lineage.postgres.store import PostgresStore
from guard.lineage.sqlite import SqliteStore
from tests.postgres import Databases

SERVED = """
guard: 1
home: home
policy: policy.yaml
store: {store}
servers:
  git: {{command: [git]}}
"""


@pytest.fixture
def address(database: str) -> Address:
    made = Address(database)
    schema.upgrade(made)
    return made


def guard(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


def configured(folder: Path, store: object) -> Path:
    path = folder / "guard.yaml"
    path.write_text(SERVED.format(store=json.dumps(store)))
    return path


# -- the home remembers -----------------------------------------------------------------------------


def test_a_home_that_used_a_shared_store_uses_it_ever_after(tmp_path: Path, address: Address) -> None:
    """A revocation that nobody told where to go does not go into a file that nobody reads."""
    home = open_home(tmp_path / "home")
    with closing(home.store(address=address)):
        pass
    assert guard("key", "new", "--home", home.path, "--principal", "a", "--role", "r").exit_code == 0
    assert not (home.path / "guard.db").exists()
    with closing(home.store()) as store:
        assert isinstance(store, PostgresStore)
        (record,) = store.api_keys()
    assert guard("key", "revoke", record.key_id, "--home", home.path).exit_code == 0
    assert guard("contain", "--all", "--home", home.path).exit_code == 0
    with closing(PostgresStore(address, key=home.checkpoint_key, origin=home.origin)) as store:
        assert [key.revoked_at is not None for key in store.api_keys()] == [True]
        assert [row["kind"] for row in store.contained("default")] == ["all"]
    verified = guard("lineage", "verify", "--home", home.path)
    assert (verified.exit_code, "everything stands" in verified.output) == (0, True)


def test_another_store_than_the_homes_is_refused(
    tmp_path: Path, address: Address, postgres: Databases
) -> None:
    """Two stores under one set of keys would be two logs with one name."""
    home = open_home(tmp_path / "home")
    home.store(address=address).close()
    home.store(address=address).close()
    other = Address(postgres.make())
    schema.upgrade(other)
    with pytest.raises(StoreError, match="this home uses the store"):
        home.store(address=other)
    postgres.drop(other.url)


def test_a_record_that_has_begun_in_the_home_is_not_left(tmp_path: Path, address: Address) -> None:
    """A configuration with `store` does not silently begin a second record beside the first."""
    home = open_home(tmp_path / "home")
    with closing(home.store()) as store:
        assert isinstance(store, SqliteStore)
    with pytest.raises(StoreError, match="would end here"):
        home.store(address=address)
    with closing(home.store()) as store:
        assert isinstance(store, SqliteStore)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"url": 1}', '{"url": "x", "password_file": 1}'])
def test_a_pointer_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    """A damaged `store.json` never means the file in the home."""
    home = open_home(tmp_path / "home")
    pointer = home.path / "store.json"
    pointer.touch(0o600)
    pointer.write_text(text)
    with pytest.raises(StoreError):
        home.store()
    assert not (home.path / "guard.db").exists()


def test_a_pointer_that_others_may_read_is_refused(tmp_path: Path, address: Address) -> None:
    """It may name where a password is."""
    home = open_home(tmp_path / "home")
    home.store(address=address).close()
    pointer = home.path / "store.json"
    assert pointer.stat().st_mode & 0o777 == 0o600
    pointer.chmod(0o644)
    with pytest.raises(GuardError, match="can be read by others"):
        home.store()


def test_a_failed_start_is_not_remembered(tmp_path: Path, database: str, address: Address) -> None:
    """Whoever mistyped the address can write the right one."""
    home = open_home(tmp_path / "home")
    with pytest.raises(StoreError):
        home.store(address=Address("postgresql://nobody@/nowhere?host=/nowhere"))
    home.store(address=address).close()


# -- the field --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "store",
    [
        "postgresql://guard@db.example.com/guard?sslmode=verify-full",
        "postgres:///guard",
        "postgresql://postgres@/guard?host=%2Fsrv%2Fx&port=5432",
        {"url": "postgresql://h/d", "password_file": "secret"},
        {"url": "postgresql://h/d", "password_env": "DATABASE_PASSWORD"},
    ],
)
def test_every_form_of_an_address_is_taken(tmp_path: Path, store: dict[str, str] | str) -> None:
    """A URL by itself is an object with `url`; a file's path starts at the configuration's folder."""
    found = load_settings(configured(tmp_path, store)).address
    assert found is not None
    given = {"url": store} if isinstance(store, str) else store
    file = given.get("password_file")
    assert found == Address(given["url"], tmp_path / file if file else None, given.get("password_env", ""))


@pytest.mark.parametrize(
    ("store", "says"),
    [
        ("mysql://h/d", "is no URL of a PostgreSQL database"),
        ("postgresql://", "is no URL of a PostgreSQL database"),
        ("postgresql://h/d x", "is no URL of a PostgreSQL database"),
        ("postgresql://u:hunter2@h/d", "holds a password"),
        ("postgresql://h/d?password=hunter2", "holds a password"),
        ("postgresql://h/d?%70assword=hunter2", "holds a password"),
        ("postgresql://u:pa?hunter2@h/d", "holds a password"),
        ("postgresql://u:pa#hunter2@h/d", "holds a password"),
        ("postgresql://u:pa/hunter2@h/d", "holds a password"),
        ({"url": "postgresql://h/d", "password": "hunter2"}, "is no field of the language"),
        ({"url": "postgresql://h/d", "password_file": "a", "password_env": "B"}, "has no effect"),
        ({}, "is missing"),
        (7, ""),
    ],
)
def test_a_store_that_is_none_is_refused_without_its_password(
    tmp_path: Path, store: object, says: str
) -> None:
    """A password stands in no configuration, and in no message about one."""
    with pytest.raises(GuardError) as caught:
        load_settings(configured(tmp_path, store))
    assert says in str(caught.value)
    assert "hunter2" not in str(caught.value)


# -- the command ------------------------------------------------------------------------------------


def test_upgrade_says_what_it_did(tmp_path: Path, database: str) -> None:
    """Made, then as it was; by URL and by configuration."""
    made = guard("store", "upgrade", database)
    assert (made.exit_code, "format 2, made" in made.output) == (0, True)
    again = guard("store", "upgrade", "--config", configured(tmp_path, database), "--json")
    assert json.loads(again.output)["before"] == "2"


def test_a_home_is_told_what_to_use(tmp_path: Path, address: Address) -> None:
    """For `guard run`, which has no configuration; the password's file is remembered, not the password."""
    secret = tmp_path / "secret"
    secret.write_text("hunter2\n")
    done = guard("store", "use", address.url, "--password-file", secret, "--home", tmp_path / "home")
    assert (done.exit_code, "hunter2" in done.output) == (0, False)
    assert json.loads((tmp_path / "home" / "store.json").read_text()) == {
        "password_file": str(secret),
        "url": address.url,
    }
    with closing(open_home(tmp_path / "home").store()) as store:
        assert isinstance(store, PostgresStore)


@pytest.mark.parametrize("words", [(), ("postgresql://h/d", "--config", "x")])
def test_upgrade_asks_for_one_database(words: tuple[str, ...]) -> None:
    """Neither none nor two."""
    assert guard("store", "upgrade", *words).exit_code == 2


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:hunter2@h/d",
        "postgresql://u:pa?hunter2@127.0.0.1:1/d",
        "postgresql://u:pa#hunter2@127.0.0.1:1/d",
        "mysql://h/d",
    ],
)
def test_upgrade_takes_no_password_in_an_argument(url: str) -> None:
    """Every user of the machine sees a command's arguments."""
    done = guard("store", "upgrade", url)
    assert done.exit_code == 2
    assert "hunter2" not in done.output + done.stderr


def test_a_database_that_is_not_there_ends_with_code_2(tmp_path: Path) -> None:
    """Every command says so in one sentence, and shows no traceback."""
    home = open_home(tmp_path / "home")
    (home.path / "store.json").touch(0o600)
    (home.path / "store.json").write_text(json.dumps({"url": f"postgresql:///d?host={tmp_path}"}))
    for words in (("key", "list"), ("contain", "--all"), ("lineage", "list"), ("lineage", "verify")):
        done = guard(*words, "--home", home.path)
        assert (done.exit_code, done.stderr.startswith("guard: ")) == (2, True), words
        assert "Traceback" not in done.stderr
    done = guard("store", "upgrade", f"postgresql:///d?host={tmp_path}")
    assert (done.exit_code, "cannot be upgraded" in done.stderr) == (2, True)


WITHOUT = """
import sys
sys.modules |= {"psycopg": None, "alembic": None, "sqlalchemy": None}
from guard.cli.main import main
main(sys.argv[1:])
"""


def test_without_the_libraries_everything_else_works(tmp_path: Path) -> None:
    """PostgreSQL is an extra: a Guard that has it not says what to install, and keeps its own file."""
    found = {}
    for words in (("key", "new", "--principal", "a", "--role", "r"), ("store", "use", "postgresql://h/d")):
        whole = [sys.executable, "-c", WITHOUT, *words, "--home", str(tmp_path / words[0])]
        found[words[0]] = subprocess.run(whole, capture_output=True, text=True, check=False)
    assert found["key"].returncode == 0, found["key"].stderr
    assert found["store"].returncode == 2
    assert "guard-mcp[postgres]" in found["store"].stderr
