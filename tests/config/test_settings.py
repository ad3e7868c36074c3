"""What a configuration may say, and how it is told that it may not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel, ValidationError

from guard.config.launch import PASSED_ON
from guard.config.settings import (
    FixedCaller,
    Limits,
    ServerSettings,
    Settings,
    SharedStore,
    Tls,
    Trust,
    load_settings,
    settings_schema,
)
from guard.core.errors import GuardError
from tests.docs.pages import ROOT, blocks, prose

PAGE = ROOT / "docs" / "configuration.md"
SCHEMA_FILE = ROOT / "docs" / "configuration.schema.json"
SECRET = "hunter2-hunter2"
FULL = """\
guard: 1
home: state
policy: rules/policy.yaml
listen: 0.0.0.0:8640
identity: api-keys
conversation: nightly
durability: strict
hosts: [Guard.example.com, "guard.example.com:8443"]
origins: ["https://console.example.com"]
tls:
  certificate: tls/certificate.pem
  key: /etc/guard/key.pem
limits:
  body_bytes: 1024
  head_seconds: 3
servers:
  git:
    command: [mcp-server-git, --verbose]
    env: {TOKEN: hunter2-hunter2}
    pass_env: [SSH_AUTH_SOCK]
    cwd: work
    timeout: 0.5
  tickets:
    url: https://tickets.example.com/mcp?a=b
    headers:
      Authorization: Bearer hunter2-hunter2
      X-Key: {env: TICKETS_KEY}
    ca: tls/ca.pem
    audience: urn:tickets
    shared: true
trust:
  - issuer: gateway
    jwks: gateway.json
"""
LOCAL = """\
guard: 1
policy: policy.yaml
listen: 127.0.0.1:0
servers:
  one: {command: [one]}
"""


def load(folder: Path, text: str) -> Settings:
    path = folder / "guard.yaml"
    path.write_bytes(text.encode())
    return load_settings(path)


def refusal(folder: Path, text: str) -> GuardError:
    with pytest.raises(GuardError) as raised:
        load(folder, text)
    return raised.value


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKETS_KEY", SECRET)
    monkeypatch.setenv("GUARD_API_KEY", SECRET)
    monkeypatch.delenv("NOT_SET", raising=False)


def test_a_whole_configuration(tmp_path: Path) -> None:
    """Every field arrives, and every relative path starts at the folder of the file."""
    got = load(tmp_path, FULL)
    assert (got.guard, got.home, got.policy) == (1, tmp_path / "state", [tmp_path / "rules/policy.yaml"])
    assert (got.listen, got.host, got.port) == ("0.0.0.0:8640", "0.0.0.0", 8640)  # noqa: S104 - only read
    assert (got.stdio, got.loopback, got.identity) == (False, False, "api-keys")
    assert (got.conversation, got.durability) == ("nightly", "strict")
    assert got.hosts == ["guard.example.com", "guard.example.com:8443"]
    assert got.origins == ["https://console.example.com"]
    assert got.tls == Tls(certificate=tmp_path / "tls/certificate.pem", key=Path("/etc/guard/key.pem"))
    assert got.limits == Limits(body_bytes=1024, head_seconds=3.0)
    assert got.servers == {
        "git": ServerSettings(
            command=["mcp-server-git", "--verbose"],
            env={"TOKEN": SECRET},
            pass_env=["SSH_AUTH_SOCK"],
            cwd=tmp_path / "work",
            timeout=0.5,
        ),
        "tickets": ServerSettings(
            url="https://tickets.example.com/mcp?a=b",
            headers={"Authorization": f"Bearer {SECRET}", "X-Key": SECRET},
            ca=tmp_path / "tls/ca.pem",
            audience="urn:tickets",
            shared=True,
        ),
    }
    assert (got.audience("git"), got.audience("tickets")) == ("git", "urn:tickets")
    assert got.trust == [Trust(issuer="gateway", jwks=tmp_path / "gateway.json")]


def test_the_defaults(tmp_path: Path) -> None:
    """What is not said is what docs/configuration.md names as the default."""
    got = load(tmp_path, LOCAL.replace("listen: 127.0.0.1:0\n", ""))
    assert (got.listen, got.loopback, got.home, got.conversation) == ("127.0.0.1:8640", True, None, None)
    assert (got.identity, got.durability, got.tls) == ("api-keys", "queued", None)
    assert (got.hosts, got.origins, got.trust) == ([], [], [])
    assert got.limits.model_dump() == {
        "body_bytes": 4 * 1024 * 1024,
        "header_bytes": 32 * 1024,
        "connections": 1024,
        "in_flight": 256,
        "sessions": 256,
        "session_idle_seconds": 1800,
        "head_seconds": 10,
        "body_seconds": 30,
        "keep_alive_seconds": 75,
        "refusals_per_minute": 60,
    }
    server = got.servers["one"]
    assert (server.timeout, server.idle_seconds, server.processes, server.shared) == (300, 600, 96, False)


def test_a_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`~` is the home of whoever runs Guard."""
    monkeypatch.setenv("HOME", "/home/somebody")
    got = load(tmp_path, LOCAL.replace("policy: p", "policy: ~/p"))
    assert got.policy == [Path("/home/somebody/policy.yaml")]


FULL_FAULTS = [
    ("guard: 1", "guard: 2", 1, "guard", "write `guard: 1`"),
    ("guard: 1", "guard: true", 1, "guard", "docs/configuration.md"),
    ("guard: 1\n", "", 1, "guard", "add `guard`"),
    ("home: state", "home: 3", 2, "home", "path"),
    ("home: state", 'home: ""', 2, "home", "path"),
    ("home: state", "home: ~nobody-of-that-name/x", 2, "home", "the whole path"),
    ("policy: rules/policy.yaml", "policy: null", 3, "policy.0", "path"),
    ("policy: rules/policy.yaml", 'policy: "a\\0b"', 3, "policy.0", "path"),
    ("0.0.0.0:8640", "guard.example.com", 4, "listen", "HOST:PORT"),
    ("0.0.0.0:8640", ":8640", 4, "listen", "HOST:PORT"),
    ("0.0.0.0:8640", "0.0.0.0:65536", 4, "listen", "HOST:PORT"),
    ("0.0.0.0:8640", "0.0.0.0:08640", 4, "listen", "HOST:PORT"),
    ("0.0.0.0:8640", "127.1:8640", 4, "listen", "HOST:PORT"),
    ("0.0.0.0:8640", "127.0.0.01:8640", 4, "listen", "HOST:PORT"),
    ("0.0.0.0:8640", '"::1:8640"', 4, "listen", "HOST:PORT"),
    ("0.0.0.0:8640", '"[fe80::1%eth0]:8640"', 4, "listen", "HOST:PORT"),
    ("0.0.0.0:8640", '"[127.0.0.1]:8640"', 4, "listen", "HOST:PORT"),
    ("0.0.0.0:8640", '"0.0.0.0:8640\\n"', 4, "listen", "HOST:PORT"),
    ("0.0.0.0:8640", "a..b:8640", 4, "listen", "HOST:PORT"),
    ("0.0.0.0:8640", "u@host:8640", 4, "listen", "HOST:PORT"),
    ("identity: api-keys", "identity: keys", 5, "identity", "one of the two"),
    ("identity: api-keys", "identity: null", 5, "identity", "one of the two"),
    ("identity: api-keys", "identity: {role: reader}", 5, "identity", "identity: api-keys"),
    ("identity: api-keys", "identity: {principal: ann}", 5, "identity.role", "add `role`"),
    ("identity: api-keys", "identity: {role: a b}", 5, "identity.role", "must match"),
    ("identity: api-keys", "identity: {role: a, rol: b}", 5, "identity.rol", "did you mean `role`?"),
    ("conversation: nightly", 'conversation: ""', 6, "conversation", "docs/configuration.md"),
    ("conversation: nightly", 'conversation: "a\\u202eb"', 6, "conversation", "visible"),
    ("durability: strict", "durability: weak", 7, "durability", "docs/configuration.md"),
    ("Guard.example.com", "https://guard.example.com", 8, "hosts.0", "NAME:PORT"),
    ("Guard.example.com", '"*"', 8, "hosts.0", "NAME:PORT"),
    ("example.com:8443", "example.com:0", 8, "hosts.1", "NAME:PORT"),
    ("hosts: [Guard.example.com, ", "hosts: [1, ", 8, "hosts.0", "docs/configuration.md"),
    ('hosts: [Guard.example.com, "guard.example.com:8443"]', "hosts: []", 4, "listen", "`hosts`"),
    ('hosts: [Guard.example.com, "guard.example.com:8443"]\n', "", 4, "listen", "`hosts`"),
    ("https://console.example.com", "https://console.example.com/", 9, "origins.0", "https://name"),
    ("https://console.example.com", "https://Console.example.com", 9, "origins.0", "https://name"),
    ("https://console.example.com", "https://console.example.com:443", 9, "origins.0", "https://name"),
    ("https://console.example.com", "http://console.example.com:80", 9, "origins.0", "https://name"),
    ("https://console.example.com", "https://u@console.example.com", 9, "origins.0", "https://name"),
    ("https://console.example.com", "null", 9, "origins.0", "https://name"),
    ("https://console.example.com", "*", 9, "origins.0", "https://name"),
    ("  key: /etc/guard/key.pem\n", "", 10, "tls.key", "add `key`"),
    ("  key: /etc/guard/key.pem", "  keys: x\n  key: y", 12, "tls.keys", "did you mean `key`?"),
    ("body_bytes: 1024", "body_bytes: 1023", 14, "limits.body_bytes", "docs/configuration.md"),
    ("body_bytes: 1024", "body_bytes: 16777217", 14, "limits.body_bytes", "docs/configuration.md"),
    ("body_bytes: 1024", "body_bytes: 1024.0", 14, "limits.body_bytes", "docs/configuration.md"),
    ("body_bytes: 1024", "body_byte: 1024", 14, "limits.body_byte", "did you mean `body_bytes`?"),
    ("body_bytes: 1024", "sessions: 0", 14, "limits.sessions", "docs/configuration.md"),
    ("head_seconds: 3", "head_seconds: 0", 15, "limits.head_seconds", "docs/configuration.md"),
    ("head_seconds: 3", "head_seconds: true", 15, "limits.head_seconds", "docs/configuration.md"),
    ("  git:", "  Git:", 17, "servers.Git", "a-z"),
    ("  git:", "  g__t:", 17, "servers.g__t", "single `_`"),
    ("  git:", "  git_:", 17, "servers.git_", "first or last"),
    ("  git:", "  _git:", 17, "servers._git", "first or last"),
    ("  git:", '  "git\\n":', 17, "servers.git\\n", "a-z"),
    ("  git:", f"  {'g' * 33}:", 17, f"servers.{'g' * 33}", "at most 32"),
    ("    command: [mcp-server-git, --verbose]\n", "", 17, "servers.git", "one of the two"),
    ("    cwd: work", "    url: https://x", 17, "servers.git", "one of the two"),
    ("[mcp-server-git, --verbose]", "[]", 18, "servers.git.command", "docs/configuration.md"),
    ("[mcp-server-git, --verbose]", '[""]', 18, "servers.git.command", "the program first"),
    ("[mcp-server-git, --verbose]", '[a, "\\0"]', 18, "servers.git.command.1", "remove it"),
    ("[mcp-server-git, --verbose]", "mcp-server-git", 18, "servers.git.command", "docs/configuration.md"),
    ("{TOKEN:", "{GUARD_API_KEY:", 19, "servers.git.env.GUARD_API_KEY", "remove it"),
    ("{TOKEN:", '{"A=B":', 19, "servers.git.env.A=B", "letters"),
    ("{TOKEN: hunter2-hunter2}", "{TOKEN: 3}", 19, "servers.git.env.TOKEN", "docs/configuration.md"),
    ("[SSH_AUTH_SOCK]", "[GUARD_API_KEY]", 20, "servers.git.pass_env.0", "remove it"),
    ("[SSH_AUTH_SOCK]", '["A=B"]', 20, "servers.git.pass_env.0", "letters"),
    ("cwd: work", "headers: {A: b}", 21, "servers.git.headers", "remove it"),
    ("cwd: work", "ca: x.pem", 21, "servers.git.ca", "remove it"),
    ("cwd: work", "plaintext: true", 21, "servers.git.plaintext", "remove it"),
    ("cwd: work", "cwdd: work", 21, "servers.git.cwdd", "did you mean `cwd`?"),
    ("timeout: 0.5", "timeout: 0.05", 22, "servers.git.timeout", "docs/configuration.md"),
    ("timeout: 0.5", "timeout: 86401", 22, "servers.git.timeout", "docs/configuration.md"),
    ("https://tickets.example.com/mcp?a=b", "ftp://tickets.example.com", 24, "servers.tickets.url", "https"),
    ("tickets.example.com/mcp", "u:p@tickets.example.com/mcp", 24, "servers.tickets.url", "https"),
    ("mcp?a=b", "mcp#", 24, "servers.tickets.url", "https"),
    ("mcp?a=b", "m c p", 24, "servers.tickets.url", "https"),
    ("https://tickets.example.com/mcp", "https://", 24, "servers.tickets.url", "https"),
    ("https://tickets.example.com/mcp", "https://a\\b/", 24, "servers.tickets.url", "https"),
    ("https://tickets.example.com/mcp", "https://tickets:0/", 24, "servers.tickets.url", "https"),
    ("Authorization:", "Content-Length:", 26, "servers.tickets.headers.Content-Length", "remove it"),
    ("Authorization:", "MCP-Anything:", 26, "servers.tickets.headers.MCP-Anything", "remove it"),
    ("Authorization:", '"a b":', 26, "servers.tickets.headers.a b", "letters"),
    ("X-Key:", "authorization:", 25, "servers.tickets.headers", "keep one"),
    ("{env: TICKETS_KEY}", "{env: NOT_SET}", 27, "servers.tickets.headers.X-Key", "set NOT_SET"),
    ("{env: TICKETS_KEY}", "{env: GUARD_API_KEY}", 27, "servers.tickets.headers.X-Key", "remove it"),
    ("{env: TICKETS_KEY}", "{evn: TICKETS_KEY}", 27, "servers.tickets.headers.X-Key", "one of the two"),
    ("{env: TICKETS_KEY}", "{env: A, b: c}", 27, "servers.tickets.headers.X-Key", "one of the two"),
    ("{env: TICKETS_KEY}", "3", 27, "servers.tickets.headers.X-Key", "one of the two"),
    ("{env: TICKETS_KEY}", '"a\\r\\nb: c"', 27, "servers.tickets.headers.X-Key", "line ends"),
    ("{env: TICKETS_KEY}", '""', 27, "servers.tickets.headers.X-Key", "line ends"),
    ("{env: TICKETS_KEY}", '"ä"', 27, "servers.tickets.headers.X-Key", "line ends"),
    ("ca: tls/ca.pem", "env: {A: b}", 28, "servers.tickets.env", "remove it"),
    ("ca: tls/ca.pem", "pass_env: [A]", 28, "servers.tickets.pass_env", "remove it"),
    ("ca: tls/ca.pem", "cwd: x", 28, "servers.tickets.cwd", "remove it"),
    ("ca: tls/ca.pem", "plaintext: true", 28, "servers.tickets.plaintext", "remove it"),
    ("audience: urn:tickets", "audience: git", 29, "servers.tickets.audience", "its own"),
    ("audience: urn:tickets", 'audience: " "', 29, "servers.tickets.audience", "visible"),
    ("audience: urn:tickets", 'audience: ""', 29, "servers.tickets.audience", "docs/configuration.md"),
    ("shared: true", "shared: 1", 30, "servers.tickets.shared", "docs/configuration.md"),
    ("shared: true", "processes: 0", 30, "servers.tickets.processes", "docs/configuration.md"),
    ("issuer: gateway", 'issuer: ""', 32, "trust.0.issuer", "docs/configuration.md"),
    ("jwks: gateway.json", "jwk: gateway.json", 33, "trust.0.jwk", "did you mean `jwks`?"),
    ("trust:\n", "trsut: 1\ntrust:\n", 31, "trsut", "did you mean `trust`?"),
]
LOCAL_FAULTS = [
    ("[one]}", "[one], audience: two}\n  two: {command: [two]}", 6, "servers.two", "its own"),
    ("127.0.0.1:0", "stdio\ntls: {certificate: c, key: k}", 4, "tls", "listen on"),
    ("127.0.0.1:0", "stdio\nhosts: [a]", 4, "hosts", "listen on"),
    ("127.0.0.1:0", 'stdio\norigins: ["https://a"]', 4, "origins", "listen on"),
    ("127.0.0.1:0", "192.0.2.1:0", 3, "listen", "`hosts`"),
    ("127.0.0.1:0", "localhost.example.com:0", 3, "listen", "`hosts`"),
    ("127.0.0.1:0", '"[::]:0"', 3, "listen", "`hosts`"),
    ("127.0.0.1:0", '"[::ffff:127.0.0.1]:0"', 3, "listen", "`hosts`"),
    ("  one: {command: [one]}\n", "  one: one\n", 5, "servers.one", "docs/configuration.md"),
    ("servers:\n  one: {command: [one]}\n", "servers: {}\n", 4, "servers", "docs/configuration.md"),
    ("servers:\n  one: {command: [one]}\n", "", 1, "servers", "add `servers`"),
    ("{command: [one]}", "{url: 'http://one.example.com'}", 5, "servers.one.url", "https://"),
    ("{command: [one]}", "{url: 'http://127.0.0.1.example.com'}", 5, "servers.one.url", "https://"),
    ("{command: [one]}", "{url: 'http://127.0.0.1', ca: x}", 5, "servers.one.ca", "remove it"),
]


@pytest.mark.parametrize(
    ("whole", "fault"), [(FULL, fault) for fault in FULL_FAULTS] + [(LOCAL, fault) for fault in LOCAL_FAULTS]
)
def test_one_fault_is_said_with_its_line_its_field_and_a_remedy(
    tmp_path: Path, whole: str, fault: tuple[str, str, int, str, str]
) -> None:
    """Whatever is wrong, the message leads to the place, says what to do, and repeats no secret."""
    old, new, line, field, remedy = fault
    assert old in whole
    error = refusal(tmp_path, whole.replace(old, new, 1))
    assert error.where == f"{tmp_path / 'guard.yaml'}:{line}"
    assert error.what.startswith(f"{field}: ")
    assert remedy in error.remedy
    assert SECRET not in str(error)
    assert "policy.md" not in str(error)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (FULL.replace("conversation: nightly", "guard: 1"), "the key `guard` stands here twice"),
        (FULL.replace("shared: true", "audience: b"), "the key `audience` stands here twice"),
        (FULL.replace("  tickets:", "  git:"), "the key `git` stands here twice"),
        ("[1]", "is not an object"),
        ("", "the file is empty"),
    ],
)
def test_a_document_of_another_kind_is_refused(tmp_path: Path, text: str, what: str) -> None:
    """Duplicate keys, lists and empty files are no configuration."""
    assert what in str(refusal(tmp_path, text))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """A configuration that cannot be read is an error, never the defaults."""
    with pytest.raises(GuardError, match="cannot be read"):
        load_settings(tmp_path / "guard.yaml")


@pytest.mark.parametrize(
    ("listen", "host", "port", "loopback"),
    [
        ("127.8.9.10:1", "127.8.9.10", 1, True),
        ("LocalHost:65535", "LocalHost", 65535, True),
        ('"[::1]:0"', "::1", 0, True),
        ('"[0:0::1]:0"', "0:0::1", 0, True),
        ("128.0.0.1:80", "128.0.0.1", 80, False),
        ('"[2001:db8::1]:80"', "2001:db8::1", 80, False),
        ("guard.example.com:80", "guard.example.com", 80, False),
    ],
)
def test_what_is_bound(tmp_path: Path, listen: str, host: str, port: int, loopback: bool) -> None:  # noqa: FBT001
    """Host and port come out of `listen`, and only this machine's own addresses count as loopback."""
    got = load(tmp_path, LOCAL.replace("127.0.0.1:0", f"{listen}\nhosts: [a]"))
    assert (got.host, got.port, got.loopback, got.stdio) == (host, port, loopback, False)


def test_on_stdio_nothing_is_bound(tmp_path: Path) -> None:
    """On stdio there is neither host nor port, and API keys say who calls unless one caller is fixed."""
    text = LOCAL.replace("127.0.0.1:0", "stdio")
    got = load(tmp_path, text)
    assert (got.stdio, got.host, got.port, got.loopback, got.identity) == (True, "", 0, True, "api-keys")
    fixed = load(tmp_path, f"{text}identity: {{role: reader, principal: ann}}\n")
    assert fixed.identity == FixedCaller(role="reader", principal="ann")


@pytest.mark.parametrize(
    "url",
    ["http://localhost/mcp", "http://127.0.0.1:8000", "http://[::1]:1/", "http://x_y:1/, plaintext: true"],
)
def test_http_in_the_clear_stays_on_this_machine_or_is_said(tmp_path: Path, url: str) -> None:
    """http goes to loopback, and elsewhere only where `plaintext` says so."""
    url, _, more = url.partition(", ")
    got = load(tmp_path, LOCAL.replace("command: [one]", f'url: "{url}", {more}'))
    assert got.servers["one"].url == url


@pytest.mark.parametrize("value", ["0123hunter", "12:30", "1_000", "0x7f", "hunter2-hunter2\n", " hunter2"])
def test_no_secret_stands_in_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """A header's value is repeated neither where it is spelled badly nor where it comes from a variable."""
    monkeypatch.setenv("TICKETS_KEY", f"{value}\n")
    assert value.strip() not in str(refusal(tmp_path, FULL)).replace(str(tmp_path), "")
    plain = value.strip()
    text = FULL.replace("Bearer hunter2-hunter2", plain).replace("{env: TICKETS_KEY}", '""')
    assert plain not in str(refusal(tmp_path, text)).replace(str(tmp_path), "")


def test_settings_show_no_secret(tmp_path: Path) -> None:
    """Values of headers and variables stand neither in repr nor in what pydantic says."""
    assert SECRET not in repr(load(tmp_path, FULL))
    assert SECRET not in str(load(tmp_path, FULL))
    with pytest.raises(ValidationError) as raised:
        ServerSettings(url="https://a", headers={"A": f"{SECRET}\n"})
    assert SECRET not in str(raised.value)
    assert SECRET not in repr(raised.value)


def test_settings_made_in_code() -> None:
    """No file is needed: paths are absolute then, and a single server keeps the name that it has."""
    server = ServerSettings(command=["one"])
    got = Settings(guard=1, policy=[Path("/p.yaml")], listen="stdio", servers={"Python3.11-ab": server})
    assert got.audience("Python3.11-ab") == "Python3.11-ab"
    with pytest.raises(ValidationError, match="is no name of a server"):
        Settings(guard=1, policy=[Path("/p.yaml")], servers={"A": server, "b": server})
    with pytest.raises(ValidationError, match="is no name of a server"):
        Settings(guard=1, policy=[Path("/p.yaml")], servers={"a\x1b": server})
    with pytest.raises(ValidationError, match="is not a path"):
        Settings(guard=1, policy=[Path("p.yaml")], servers={"a": server})
    with pytest.raises(ValidationError, match="frozen"):
        got.guard = 2  # type: ignore[misc]


def test_a_process_sees_what_is_named_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment is the allow-list, then `pass_env`, then `env`; never Guard's own key."""
    for name in PASSED_ON:
        monkeypatch.delenv(name, raising=False)
    for name, value in {"PATH": "/bin", "GIVEN": "own", "TAKEN": "own", "OTHER": "own"}.items():
        monkeypatch.setenv(name, value)
    server = ServerSettings(
        command=["one"], pass_env=["GIVEN", "TAKEN", "NOT_SET"], env={"TAKEN": "literal", "NEW": "literal"}
    )
    assert server.environment() == {"PATH": "/bin", "GIVEN": "own", "TAKEN": "literal", "NEW": "literal"}


words = st.text("abcxyz", min_size=1, max_size=8)
paths = st.lists(words, min_size=1, max_size=3).map("/".join) | words.map("/{}".format)
seconds = st.floats(0.1, 86400).map(lambda value: round(value, 3)) | st.integers(1, 86400)
values = words | st.text(st.characters(codec="ascii", categories=["Lu", "Ll", "P", "S"]), min_size=1)
common = {
    "shared": st.booleans(),
    "timeout": seconds,
    "idle_seconds": seconds,
    "processes": st.integers(1, 65536),
}
by_command = st.fixed_dictionaries(
    {"command": st.lists(words, min_size=1, max_size=3)},
    optional={
        "env": st.dictionaries(words, values, max_size=2),
        "pass_env": st.lists(words, max_size=2),
        "cwd": paths,
        **common,
    },
)
by_url = st.fixed_dictionaries(
    {"url": words.map("https://{}/mcp".format)},
    optional={
        "headers": st.dictionaries(words, values | st.just({"env": "TICKETS_KEY"}), max_size=2),
        "ca": paths,
        **common,
    },
)
documents = st.fixed_dictionaries(
    {
        "guard": st.just(1),
        "policy": paths,
        "servers": st.dictionaries(words, by_command | by_url, min_size=1, max_size=3),
    },
    optional={
        "home": paths,
        "listen": st.just("stdio") | st.integers(0, 65535).map("localhost:{}".format),
        "identity": st.just("api-keys")
        | st.fixed_dictionaries({"role": words}, optional={"principal": words}),
        "conversation": words,
        "durability": st.sampled_from(["queued", "strict"]),
        "limits": st.fixed_dictionaries(
            {}, optional={"in_flight": st.integers(1, 9), "body_seconds": seconds}
        ),
        "trust": st.lists(st.fixed_dictionaries({"issuer": words, "jwks": paths}), max_size=2),
    },
)


@given(document=documents)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_what_is_accepted_reads_the_same_however_it_is_written(
    tmp_path: Path, document: dict[str, Any]
) -> None:
    """YAML, the same as JSON, and the settings themselves written as JSON all give the same settings."""
    apart = json.loads(json.dumps(document))  # PyYAML writes an object that stands twice as an alias
    got = load(tmp_path, yaml.safe_dump(apart, allow_unicode=True))
    assert load(tmp_path, json.dumps(document)) == got
    assert load(tmp_path, got.model_dump_json()) == got


def test_the_schema_is_published() -> None:
    """docs/configuration.schema.json is what `settings_schema` gives."""
    assert json.loads(SCHEMA_FILE.read_text(encoding="utf-8")) == settings_schema(), (
        "write json.dumps(settings_schema(), indent=2) to docs/configuration.schema.json"
    )


def test_the_schema_accepts_what_guard_accepts() -> None:
    """An editor with the schema marks no field that exists, and marks one that does not."""
    Draft202012Validator.check_schema(settings_schema())
    validator = Draft202012Validator(settings_schema())
    assert not list(validator.iter_errors(yaml.safe_load(FULL)))
    assert not list(validator.iter_errors(yaml.safe_load(blocks(PAGE, "yaml")[0])))
    assert list(validator.iter_errors(yaml.safe_load(LOCAL) | {"serves": {}}))
    assert list(validator.iter_errors(yaml.safe_load(LOCAL.replace("one:", "o__e:"))))


@pytest.mark.parametrize("text", blocks(PAGE, "yaml"))
def test_the_examples_of_the_page_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """What docs/configuration.md shows is a configuration."""
    monkeypatch.setenv("TICKETS_AUTHORIZATION", "Bearer x")
    assert load(tmp_path, text).servers["git"].command


@pytest.mark.parametrize("model", [Settings, SharedStore, FixedCaller, Tls, Limits, ServerSettings, Trust])
def test_the_page_has_a_row_for_every_field(model: type[BaseModel]) -> None:
    """docs/configuration.md describes each field that a configuration may have."""
    assert [name for name in model.model_fields if f"\n| `{name}` |" not in prose(PAGE)] == []
