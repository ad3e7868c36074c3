"""What a boundary keyword accepts is inside by another reckoning too: that of the programs that use it."""

from __future__ import annotations

import contextlib
import ntpath
import posixpath
import shutil
import subprocess
from decimal import Decimal
from email.headerregistry import Address
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx2
import pytest
import sqlglot
import yarl
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlglot import exp

from guard.policy.boundaries.hosts import is_public
from guard.policy.boundaries.hosts import read as read_host
from guard.policy.boundaries.ibans import read as read_iban
from guard.policy.boundaries.shell import split as split_words
from guard.policy.boundaries.verdict import NotUnderstood
from guard.policy.boundaries.words import judge
from tests.policy.boundaries.corpus import corpus

CORPUS = corpus()


def values(keyword: str) -> list[Any]:
    """Every text of a keyword's corpora, to be taken apart and put together again."""
    return [entry.value for entry in CORPUS if entry.keyword == keyword and isinstance(entry.value, str)]


STEERING = [
    *"/\\.:@%?#[]~$ -'\"\t\n;&|`*",
    "..",
    "//",
    "%2e",
    "\0",
    "\uff0e",
    "\u200b",
    "a",
    "1",
    "x.",
    ".x",
    "x/",
]


@st.composite
def changed(draw: st.DrawFn, keyword: str) -> str:
    """A text of a keyword's corpora, changed in up to two places."""
    value: str = draw(st.sampled_from(values(keyword)))
    for _ in range(draw(st.integers(0, 2))):
        start = draw(st.integers(0, len(value)))
        end = min(len(value), start + draw(st.integers(0, 2)))
        piece = draw(st.one_of(st.just(""), st.sampled_from(STEERING), st.characters()))
        value = value[:start] + piece + value[end:]
    return value


def accepts(keyword: str, stated: Any, value: Any) -> bool:
    try:
        return judge(keyword, stated)(value)
    except NotUnderstood:
        return False


ROOTS = ["/srv/data", "/srv/shared/in"]
POSIX = {"roots": ROOTS, "base": "/srv/data"}


@given(changed("pathWithin"))
def test_an_accepted_path_resolves_below_a_root(value: str) -> None:
    """posixpath and pathlib find it below the root: as it stands, decoded, with backslashes as slashes."""
    if not accepts("pathWithin", POSIX, value):
        return
    for read in (value, unquote(value), value.replace("\\", "/"), value.strip()):
        resolved = posixpath.normpath(posixpath.join("/srv/data", read))
        assert any(resolved == root or resolved.startswith(f"{root}/") for root in ROOTS)
        assert any(PurePosixPath(resolved).is_relative_to(root) for root in ROOTS)
    assert ntpath.splitdrive(value)[0] == ""
    assert ".." not in PurePosixPath(value).parts


@given(changed("pathWithin"))
def test_an_accepted_windows_path_resolves_below_a_root(value: str) -> None:
    """ntpath and pathlib find it below the root, and it is no device."""
    stated = {"roots": ["C:\\Data", "D:\\Shared\\In"], "base": "C:\\Data", "style": "windows"}
    if not accepts("pathWithin", stated, value):
        return
    resolved = ntpath.normcase(ntpath.normpath(ntpath.join("C:\\Data", value)))
    roots = ["c:\\data", "d:\\shared\\in"]
    assert any(resolved == root or resolved.startswith(f"{root}\\") for root in roots)
    assert not PureWindowsPath(value).is_reserved()
    assert ".." not in PureWindowsPath(value).parts


NAMES = st.text("abcXYZ019._- äß日", min_size=1, max_size=6)


@given(st.sampled_from(ROOTS), st.lists(NAMES, max_size=4))
def test_an_ordinary_path_below_a_root_is_accepted(root: str, names: list[str]) -> None:
    """Names without steering characters are accepted below a root, and refused below another folder."""
    plain = [name for name in names if name.strip() == name and name.strip(".")]
    path = "/".join([root, *plain])
    assert accepts("pathWithin", POSIX, path)
    assert not accepts("pathWithin", POSIX, f"/opt{path}")


HOSTS = ["api.example.com", "*.cdn.example.com"]


@given(changed("urlWithin"))
def test_an_accepted_url_leads_where_every_client_goes(value: str) -> None:
    """urllib, yarl and httpx find the same host and port in it, and it is one that the rule names."""
    stated = {"schemes": ["https"], "hosts": HOSTS, "networks": ["public"], "ports": [443, 8443]}
    if not accepts("urlWithin", stated, value):
        return
    split, other, third = urlsplit(value), yarl.URL(value), httpx2.URL(value)
    host = split.hostname
    assert host is not None
    hosts = {split.hostname, other.raw_host, third.raw_host.decode()}
    assert len({read_host(f"[{one}]" if ":" in str(one) else str(one)) for one in hosts}) == 1
    assert (split.port or 443) == other.port == (third.port or 443)
    assert split.username is None
    assert split.scheme == other.scheme == third.scheme == "https"
    assert host == "api.example.com" or host.endswith(".cdn.example.com") or ":" in host or host[-1].isdigit()


PIECES = [
    "http://",
    "https://",
    "127.0.0.1",
    "0x7f",
    "017",
    "1",
    ".",
    "[",
    "]",
    "::",
    "ffff:",
    "example",
    "com",
]
PIECES += ["@", ":", "80", "/", "\\", "#", "?", "%2e", "localhost", "2130706433", "。", "1\uff11"]


@given(st.lists(st.sampled_from(PIECES), max_size=8).map(lambda parts: "https://" + "".join(parts)))
def test_an_accepted_public_url_is_no_private_address_to_any_client(value: str) -> None:
    """Whatever client reads it, the host is a public address or a name that could be public."""
    if not accepts("urlWithin", {"schemes": ["https"], "hosts": ["*"], "networks": ["public"]}, value):
        return
    for host in (urlsplit(value).hostname, yarl.URL(value).raw_host, httpx2.URL(value).raw_host.decode()):
        assert host is not None
        read = read_host(f"[{host}]" if ":" in host else host)
        if read.address is None:
            assert "." in read.name
            assert read.name.rpartition(".")[2] != "localhost"
        else:
            assert is_public(read.address)
            assert read.address.is_global


@given(st.ip_addresses())
def test_what_is_public_is_global_to_python(address: Any) -> None:
    """The table of special addresses takes no address for public that Python's does not."""
    if is_public(address):
        assert address.is_global
        assert not address.is_multicast


@given(changed("emailDomain"))
def test_an_accepted_address_is_one_to_the_standard_library(value: str) -> None:
    """Python's e-mail package reads the same domain, and nothing beside it."""
    if not accepts("emailDomain", {"domains": ["example.com", "*.example.org"]}, value):
        return
    read = Address(addr_spec=value)
    assert value == f"{read.username}@{read.domain}"
    assert value.count("@") == 1
    domain = read.domain.lower()
    assert domain == "example.com" or domain.endswith(".example.org")


@given(
    st.sampled_from(
        [v for v in values("iban") if accepts("iban", {"countries": ["DE", "FR", "NL", "MT"]}, v)]
    ),
    st.data(),
)
def test_one_wrong_character_is_no_iban(value: str, data: st.DataObject) -> None:
    """MOD 97-10 finds every wrong digit or letter, and every two digits that are swapped."""
    plain = read_iban(value)
    place = data.draw(st.integers(0, len(plain) - 1))
    kind = "0123456789" if plain[place].isdigit() else "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    other = data.draw(st.sampled_from(kind).filter(lambda char: char != plain[place]))
    with pytest.raises(NotUnderstood):
        read_iban(plain[:place] + other + plain[place + 1 :])
    if place and plain[place] != plain[place - 1] and plain[place - 1 : place + 1].isdigit():
        swapped = plain[: place - 1] + plain[place] + plain[place - 1] + plain[place + 1 :]
        with pytest.raises(NotUnderstood):
            read_iban(swapped)


@given(
    st.one_of(
        st.integers(),
        st.floats(),
        st.decimals(allow_nan=False).map(str),
        st.text("0123456789.-+eE ,", max_size=8),
    )
)
def test_an_accepted_amount_lies_between_the_bounds(amount: Any) -> None:
    """Reckoned with fractions, it is more than nothing, at most the bound, and whole cents."""
    if accepts("money", {"maximum": {"EUR": "500"}}, {"amount": amount, "currency": "EUR"}):
        exact = Decimal(str(amount))
        assert 0 < exact <= 500
        assert (exact * 100) % 1 == 0
        assert 0 < float(amount) <= 500


SHELLS = [found for name in ("sh", "bash", "dash", "zsh") if (found := shutil.which(name))]


def said_by(shell: str, lines: list[str]) -> list[list[str]]:
    """The words that a real shell makes of each line, expansions included."""
    calls = "".join(f"f {line}\n" for line in lines)
    script = f"f() {{ printf '%s\\0' \"$@\"; printf '\\n\\0'; }}\n{calls}"
    ran = subprocess.run([shell, "-c", script], capture_output=True, check=True, timeout=60)
    return [said.split("\0")[:-1] for said in ran.stdout.decode().split("\n\0")[:-1]]


LINES = st.lists(
    st.one_of(
        st.sampled_from(
            [*values("shellCommand"), "'a b'", '"c d"', "a'b'c", "''", '""', "-x", "a=b", "%s", "1:2"]
        ),
        st.text("ab '\"$`\\~*?[]{}();&|<>#!=%^@+,:-\n\t", max_size=10),
    ),
    max_size=4,
).map(lambda parts: " ".join(["git", *parts]))


@settings(max_examples=30, deadline=None)
@given(st.lists(LINES, min_size=20, max_size=40))
def test_real_shells_make_the_same_words(lines: list[str]) -> None:
    """For every line that is understood each shell passes on exactly the words that were judged."""
    judged: dict[str, list[str]] = {}
    for line in lines:
        with contextlib.suppress(NotUnderstood):
            judged[line] = split_words(line)
    for shell in SHELLS:
        assert said_by(shell, list(judged)) == list(judged.values())


def test_the_honest_commands_are_the_same_words_to_real_shells() -> None:
    """The accepted lines of the corpus are split by each shell as they were judged."""
    assert SHELLS
    honest = [
        entry.value for entry in CORPUS if entry.keyword == "shellCommand" and entry.section == "inside"
    ]
    assert honest
    for shell in SHELLS:
        assert said_by(shell, honest) == [split_words(line) for line in honest]


STATED_SQL = {"dialect": "postgres", "statements": ["select"], "tables": ["orders", "public.customers"]}
FRAGMENTS = [
    "SELECT",
    "*",
    "FROM",
    "orders",
    "secrets",
    "public.customers",
    "WHERE",
    "a",
    "=",
    "1",
    "(",
    ")",
    ",",
    "UNION",
]
FRAGMENTS += [
    "WITH",
    "x",
    "AS",
    "(SELECT * FROM orders)",
    "JOIN",
    "ON",
    "true",
    "'s'",
    "--",
    "/*",
    "*/",
    ";",
    "DELETE",
    "INTO",
]


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=14).map(lambda parts: "SELECT " + " ".join(parts)))
def test_an_accepted_statement_names_only_what_is_listed(statement: str) -> None:
    """No word of it is another table, it is one statement, and it changes nothing."""
    if not accepts("sql", STATED_SQL, statement):
        return
    trees = sqlglot.parse(statement, dialect="postgres")
    assert len(trees) == 1
    tree = trees[0]
    assert tree is not None
    assert not list(tree.find_all(exp.Delete, exp.Insert, exp.Update, exp.Into, exp.Command, exp.Drop))
    common = {cte.alias for cte in tree.find_all(exp.CTE)}
    assert {table.name for table in tree.find_all(exp.Table)} <= {"orders", "customers"} | common
