"""Which URIs a glob lists: whatever a tool server could read as another one, it does not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.core.errors import Reason
from guard.core.model import Allow, Deny
from guard.policy.decide import decide, visible
from guard.policy.rules import Policy
from guard.policy.uris import oddity
from tests import oracle_uris
from tests.policy.calls import policy, resource

DOCS = [{"match": "file:///docs/*", "scopes": []}]
OBSERVING: dict[str, Any] = {"mode": "observe", "observe_until": "2030-01-01T00:00:00Z"}

SOUND = (
    "file:///docs/a.txt",
    "file:///docs/.hidden",
    "file:///docs/a..b",
    "file:///docs/..a/b.",
    "file:///docs/a%20b",
    "file:///docs/%C3%A9",
    "file:///docs/é",
    "file:///docs/a?q=%3F&r=1#top",
    "file:///docs/",
    "file:///docs/{name}",
    "file:///docs/{+path}{?q*}",
    "file:///docs/A",
)
TRAVERSALS = (
    "file:///docs/../secret",
    "file:///docs/..",
    "file:///docs/./../secret",
    "file:///docs/a/../../secret",
    "file:///docs/.",
    "file:///docs/..;x/secret",
    "file:///docs/..?q",
    "file:///docs/..#f",
    "file:///docs/a?path=../secret",
    "file:///docs/a?path=..",
    "file:///docs/.. /secret",
    "file:///docs/..%20/secret",
    "file:///docs/.../secret",
)
ENCODED = (
    "file:///docs/%2e%2e/secret",
    "file:///docs/%2E%2E/secret",
    "file:///docs/.%2e/secret",
    "file:///docs/..%2fsecret",
    "file:///docs/..%2Fsecret",
    "file:///docs/%2fetc",
    "file:///docs/..%5csecret",
    "file:///docs/%252e%252e/secret",
    "file:///docs/%25252e/secret",
    "file:///docs/%c0%ae%c0%ae/secret",
    "file:///docs/%e0%80%ae/secret",
    "file:///docs/%ff",
    "file:///docs/%u002e%u002e/secret",
    "file:///docs/%",
    "file:///docs/%2",
    "file:///docs/%+1",
    "file:///docs/%73ecret",
    "file:///docs/%7Eroot",
)
STEERING = (
    "file:///docs/..\\secret",
    "file:///docs/a\\b",
    "file:///docs/a\x00.txt",
    "file:///docs/a%00.txt",
    "file:///docs/.\t./secret",
    "file:///docs/a\n",
    "file:///docs/a%0d%0aX: y",
    "file:///docs/\x7f",
    "file:///docs/\x9b",
    "file:///docs/.\u200b./secret",
    "file:///docs/\u202etxt",
    "file:///docs/\ud800",
    "file:///docs/\uff0e\uff0e/secret",
    "file:///docs/%EF%BC%8E%EF%BC%8E/secret",
    "file:///docs/\u2025/secret",
    "file:///docs/..\uff0fsecret",
    "file:///docs/..\uff3csecret",
    "file:///docs//etc/passwd",
    "file:////host/share",
)


def exactly(uri: str, **more: Any) -> Policy:
    return policy(roles={"committer": {}}, resources=[{"match": uri, "scopes": []}], **more)


def below(**more: Any) -> Policy:
    return policy(roles={"committer": {"scopes": ["s"]}}, resources=DOCS, **more)


@pytest.mark.parametrize("uri", SOUND)
def test_a_glob_lists_what_can_be_read_in_one_way_only(uri: str) -> None:
    """Names with dots in them, escapes that are needed and templates are nothing odd."""
    assert oddity(uri) == ""
    assert decide(resource(uri), below()) == Allow(("resources/*:file:///docs/*",), ())


@pytest.mark.parametrize("uri", TRAVERSALS)
def test_dot_segments_do_not_climb_out_of_a_glob(uri: str) -> None:
    """`file:///docs/*` permits nothing that a server could resolve to a place outside."""
    assert decide(resource(uri), below()) == Deny(Reason.DEFAULT_DENY)


@pytest.mark.parametrize("uri", ENCODED)
def test_percent_encoded_traversal_does_not_climb_out_of_a_glob(uri: str) -> None:
    """Nor what it could decode to one: once, twice, overlong, or as no standard has it."""
    assert decide(resource(uri), below()) == Deny(Reason.DEFAULT_DENY)


@pytest.mark.parametrize("uri", STEERING)
def test_backslashes_controls_and_lookalikes_do_not_climb_out_of_a_glob(uri: str) -> None:
    """Nor what it could cut off, take for a separator, or join as an absolute path."""
    assert decide(resource(uri), below()) == Deny(Reason.DEFAULT_DENY)


def test_a_scheme_in_capitals_is_not_listed_by_a_glob() -> None:
    """`FILE:` is `file:` to a server, and would slip past what is protected."""
    everything = policy(roles={"committer": {}}, resources=[{"match": "*", "scopes": []}])
    assert isinstance(decide(resource("file:///etc"), everything), Allow)
    assert decide(resource("FILE:///etc"), everything) == Deny(Reason.DEFAULT_DENY)


@pytest.mark.parametrize("uri", [*TRAVERSALS[:2], *ENCODED[:2], "file:///docs/a\\b"])
def test_an_odd_uri_is_listed_by_the_rule_that_spells_it_out(uri: str) -> None:
    """What the operator wrote to the letter is what the operator meant."""
    if "?" not in uri:
        assert isinstance(decide(resource(uri), exactly(uri)), Allow)
    assert decide(resource(f"{uri}x/.."), exactly(uri)) == Deny(Reason.DEFAULT_DENY)


@pytest.mark.parametrize("uri", [*TRAVERSALS, *ENCODED, *STEERING])
def test_traversal_is_not_let_through_while_observing(uri: str) -> None:
    """Observing keeps protected rules, and such a URI could be read past them."""
    forbidding = below(protected=[{"id": "no-secret", "resources": ["file:///secret*"]}], **OBSERVING)
    assert decide(resource(uri), forbidding) == Deny(Reason.DEFAULT_DENY)
    assert isinstance(decide(resource("memo:other"), forbidding), Allow)


@pytest.mark.parametrize("uri", [*TRAVERSALS, *ENCODED, *STEERING])
def test_traversal_is_out_of_sight(uri: str) -> None:
    """What a glob does not list is not shown in a list either."""
    who = resource(uri).principal
    assert not visible(who, "files", uri, frozenset(), below(), kind="resource")
    assert not visible(who, "files", uri, frozenset(), below(**OBSERVING), kind="resource")


def test_globs_still_restrict_what_is_spelled_out() -> None:
    """For an odd URI a glob permits nothing; what it requires, forbids and intends holds all the same."""
    odd = "file:///docs/../a"
    spelled = {"match": odd, "scopes": []}
    glob = {"match": "file:///docs/*", "scopes": ["files:read"]}
    roles = {"committer": {}}
    required = policy(roles=roles, resources=[spelled, glob])
    assert decide(resource(odd), required) == Deny(Reason.MISSING_SCOPE, "resources/*:file:///docs/*")
    forbidden = exactly(odd, protected=[{"id": "no", "resources": ["file:*"]}])
    assert decide(resource(odd), forbidden) == Deny(Reason.PROTECTED, "no")
    intent = {"id": "i", "resources": ["file:*"], "schema": {"properties": {"uri": {"maxLength": 3}}}}
    assert decide(resource(odd), exactly(odd, intents=[intent])) == Deny(Reason.INTENT_UNMATCHED, "i", "/uri")


PARTS = (
    "file:",
    "///",
    "docs",
    "/",
    "..",
    ".",
    "%2e",
    "%2f",
    "%25",
    "%",
    "\\",
    "\n",
    "a",
    "A",
    ":",
    "//",
    "?",
)


@settings(max_examples=1000)
@given(
    st.one_of(
        st.text(),
        st.lists(st.sampled_from((*PARTS, "%c3%a9", "%61", ";", "\uff0e", ":///")), max_size=8).map("".join),
    )
)
def test_two_readings_of_a_uri_agree(uri: str) -> None:
    """The expressions say what a second reading, character by character, says."""
    assert bool(oddity(uri)) == oracle_uris.is_odd(uri)
