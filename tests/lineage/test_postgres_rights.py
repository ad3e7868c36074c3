"""Who may do what in the shared store: the role that Guard works as cannot go round a trap."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from guard.lineage.database import StoreError
from guard.lineage.entry import Kind
from guard.lineage.postgres import schema
from guard.lineage.postgres.address import Address
from guard.lineage.store import Contain, RevokeKey, SaveKey, SavePolicy
from tests.lineage.lineages import granted, house, open_store, recorded
from tests.lineage.test_store import key_record
from tests.postgres import Databases, with_parts


@pytest.fixture
def address(database: str) -> Address:
    made = Address(database)
    schema.upgrade(made)
    return made


@pytest.fixture
def role(postgres: Databases, database: str) -> Iterator[str]:
    """A role of this test's own."""
    name = f"app_{database.rpartition('guard_test_')[2].partition('?')[0]}"
    postgres.run(f"CREATE ROLE {name} LOGIN")
    yield name
    with psycopg.connect(database, autocommit=True) as db:
        db.execute(f"DROP OWNED BY {name} CASCADE".encode())
    postgres.run(f"DROP ROLE {name}")


def _as(address: Address, role: str) -> Address:
    return Address(with_parts(address.url, user=role))


def test_an_operator_of_ones_own_loses_no_entry(address: Address, role: str) -> None:
    """Whoever may make an operator somewhere cannot say what `=` means in a trap."""
    schema.upgrade(address, role)
    with closing(address.connect(patience=20)) as db:
        db.execute(f"CREATE SCHEMA own AUTHORIZATION {role}".encode())
    with closing(open_store(address)) as store:
        recorded(store, granted("waits"))
        store._committed = False
    with closing(_as(address, role).connect(patience=20)) as db:
        db.execute(
            b"CREATE FUNCTION own.yes(bigint, bigint) RETURNS boolean LANGUAGE sql AS 'SELECT true';"
            b"CREATE OPERATOR own.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = own.yes)"
        )
        with closing(address.connect(patience=20)) as owner:  # an entry that it may be confused with
            owner.execute("INSERT INTO entries VALUES (0, 0, 'c', 0, '', '', -1)")
        db.execute("SET search_path = own, pg_catalog, guard")
        with pytest.raises(psycopg.errors.IntegrityConstraintViolation):
            db.execute("DELETE FROM guard.inbox")
        assert db.execute("SELECT count(*) FROM guard.inbox").fetchone() == (1,)


def test_what_goes_one_way_does_not_go_back(address: Address, role: str) -> None:
    """Versions and tokens only grow, and a revoked key stays revoked: in any session, for any role."""
    schema.upgrade(address, role)
    with closing(open_store(address)) as store:
        recorded(store, house(Kind.API_KEY, SaveKey(key_record())), house(Kind.REVOKED, RevokeKey("k1")))
        recorded(
            store, house(Kind.POLICY, SavePolicy("p", 2, "x")), house(Kind.CONTAINED, Contain("all", ""))
        )
    backwards = (
        "UPDATE versions SET version = version - 1",
        "UPDATE policies SET version = 1",
        "UPDATE sequencer SET token = -1",
        "UPDATE api_keys SET revoked = NULL",
        "UPDATE api_keys SET revoked = revoked + 1",
    )
    for who, session in ((address, "origin"), (address, "replica"), (_as(address, role), "")):
        with closing(who.connect(patience=20)) as db:
            if session:
                db.execute(f"SET session_replication_role = {session}".encode())
            for statement in backwards:
                with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="only goes forward"):
                    db.execute(statement.encode())
            db.execute("UPDATE versions SET version = version + 1")


@pytest.mark.parametrize(
    ("grant", "says"),
    [
        ("ALTER ROLE {role} SUPERUSER", "is a superuser"),
        ("ALTER ROLE {role} CREATEROLE", "member of any role"),
        ("GRANT pg_write_all_data TO {role}", "may write everywhere"),
        ("ALTER DATABASE {database} OWNER TO {role}", "owner of the database"),
    ],
)
def test_a_role_that_could_change_the_record_is_refused(
    address: Address, postgres: Databases, role: str, grant: str, says: str
) -> None:
    """With it the rights would be words; the message says why, and nothing is granted."""
    database = address.url.rpartition("/")[2].partition("?")[0]
    postgres.run(grant.format(role=role, database=database))
    try:
        with pytest.raises(StoreError, match=says):
            schema.upgrade(address, role)
    finally:
        postgres.run(f"ALTER DATABASE {database} OWNER TO CURRENT_USER")


def test_a_member_of_the_owner_is_refused(database: str, postgres: Databases, role: str) -> None:
    """Whoever can become the owner can switch the traps off."""
    owner, name = f"{role}_owner", database.rpartition("/")[2].partition("?")[0]
    postgres.run(f"CREATE ROLE {owner} LOGIN")
    try:
        postgres.run(f"GRANT CREATE ON DATABASE {name} TO {owner}")
        postgres.run(f"GRANT {owner} TO {role}")
        with pytest.raises(StoreError, match="owner of the store"):
            schema.upgrade(_as(Address(database), owner), role)
        postgres.run(f"REVOKE {owner} FROM {role}")
        schema.upgrade(_as(Address(database), owner), role)
    finally:
        with psycopg.connect(database, autocommit=True) as db:
            db.execute(f"DROP OWNED BY {owner} CASCADE".encode())
        postgres.run(f"DROP ROLE {owner}")


def test_a_schema_that_another_made_first_is_refused(database: str, role: str) -> None:
    """Its owner could drop every table in it, whoever made them."""
    with psycopg.connect(database, autocommit=True) as db:
        db.execute(f"CREATE SCHEMA guard AUTHORIZATION {role}".encode())
    with pytest.raises(StoreError, match="another role's"):
        schema.upgrade(Address(database), role)
    with psycopg.connect(database, autocommit=True) as db:
        assert db.execute("SELECT to_regclass('guard.entries')").fetchone() == (None,)


def test_what_the_role_had_before_is_taken_first(address: Address, role: str) -> None:
    """A right that an older Guard or an operator gave does not outlive an upgrade."""
    with closing(address.connect(patience=20)) as db:
        db.execute(f"GRANT ALL ON SCHEMA guard TO {role}, PUBLIC".encode())
        db.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA guard TO {role}".encode())
        db.execute(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA guard TO {role}".encode())
        schema.upgrade(address, role)
        has = db.execute(
            "SELECT has_schema_privilege(%(r)s, 'guard', 'CREATE'),"
            " has_table_privilege(%(r)s, 'guard.entries', 'DELETE'),"
            " has_sequence_privilege(%(r)s, pg_get_serial_sequence('guard.inbox', 'ticket'), 'UPDATE')",
            {"r": role},
        ).fetchone()
    assert has == (False, False, False)
