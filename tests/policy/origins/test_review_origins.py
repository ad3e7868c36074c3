"""Attacks on `accept: [tool:SERVER/NAME]`: values that the tool never said, beside what it did say."""

from __future__ import annotations

import pytest

from guard.core.model import Seen
from guard.policy.origins.judge import Origin, origin
from guard.policy.origins.values import glimpses

SALT = b"s" * 32
PAGE = "tool:web/page"


def judged(value: str, *said: tuple[str, str]) -> Origin:
    """The origin of a value where these sources, each untrusted, said these texts."""
    values: dict[bytes, tuple[object, ...]] = {}
    for source, text in said:
        for key, appearance in glimpses(
            text.encode(), source=source, trust="untrusted", fields={}, salt=SALT
        ):
            values[key] = (*values.get(key, ()), appearance)
    return origin(value, Seen(values, salt=SALT), frozenset(), user_overrides=False)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("b@evil.com", "write to a@evil.com"),
        ("https://evil.com/steal?all", "see https://evil.com/"),
        ("https://x.evil.com/", "see https://evil.com/"),
        ("x.evil.com", "evil.com"),
        ("/etc/secret.txt", "the file secret.txt"),
        ("https://new.com/?to=a@evil.com", "a@evil.com"),
        ("olleh", "hello"),
    ],
)
def test_a_tool_that_named_the_host_did_not_name_the_value(value: str, said: str) -> None:
    """What only leads where an accepted tool pointed was said by nobody: `unseen` must be accepted too."""
    found = judged(value, (PAGE, said))
    assert found.trust == "untrusted"
    assert found.kinds == {PAGE, "unseen"}
    assert not found.accepted_by(frozenset((PAGE,)))
    assert not found.accepted_by(frozenset(("unseen",)))
    assert found.accepted_by(frozenset((PAGE, "unseen")))
    assert not judged(value).accepted_by(frozenset((PAGE,)))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("a@evil.com", "write to a@evil.com"),
        ("https://evil.com/steal", "see https://evil.com/steal."),
        ("/etc/secret.txt", "the file /etc/secret.txt"),
        ("mallory oscar", "hello mallory oscar and others"),
        ("mallory", "hello mallory"),
    ],
)
def test_what_the_tool_did_say_is_accepted_by_its_name(value: str, said: str) -> None:
    """An operator who names an untrusted tool means all that it says."""
    found = judged(value, (PAGE, said))
    assert found.kinds == {PAGE}
    assert found.accepted_by(frozenset((PAGE,)))
    assert not judged(value, (PAGE, said), ("tool:other/page", said)).accepted_by(frozenset((PAGE,)))
