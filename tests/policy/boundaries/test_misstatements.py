"""Each misstatement of a boundary keyword is told in full: what is wrong, where, and what to do."""

from __future__ import annotations

from typing import Any

import pytest

from guard.policy.boundaries.verdict import Misstated
from guard.policy.boundaries.words import judge

BY_IBAN = "check its country, its length and its check digits"
BY_HOST = "write an ASCII name, `api.example.com` or `*.example.com`; addresses go under `networks`"
BY_NETWORK = "write `public`, `private`, an address, or a range such as `10.0.0.0/8`"
BY_FOLDER = "write an absolute path such as `/srv/data`, or with `style: windows` such as `C:/data`"
BY_BOUNDS = "correct the bounds; nothing and less is never inside"
GOOD_IBAN = "DE89370400440532013000"
PATHS = {"schemes": ["https"], "hosts": ["a.example"]}

MISSTATED: list[tuple[str, Any, str, str, str]] = [
    (
        "emailDomain",
        {"domains": ["a.example", "*"]},
        "`*` means every domain, and then the keyword holds nothing",
        "/domains/1",
        "name the domains",
    ),
    ("emailDomain", {"domains": ["a.b", "1.2.3.4"]}, "`1.2.3.4` is not a host name", "/domains/1", BY_HOST),
    ("emailDomain", {"domains": ["a..b"]}, "`a..b` is not a host name", "/domains/0", BY_HOST),
    ("iban", {"accounts": [GOOD_IBAN, "DE00"]}, "`DE00` is not an IBAN", "/accounts/1", BY_IBAN),
    ("iban", {"accounts": ["DE00\x07"]}, "`DE00\\x07` is not an IBAN", "/accounts/0", BY_IBAN),
    (
        "money",
        {"maximum": {"EUR": "5"}, "minimum": {"EUR": "1", "USD": "1"}},
        "a minimum without a maximum in USD",
        "/minimum/USD",
        "add it under `maximum`, or remove it",
    ),
    (
        "money",
        {"maximum": {"EUR": "5"}, "minimum": {"EUR": "5.01"}},
        "no amount of EUR lies between its bounds",
        "/maximum/EUR",
        BY_BOUNDS,
    ),
    (
        "money",
        {"maximum": {"JPY": "0.5"}},
        "no amount of JPY lies between its bounds",
        "/maximum/JPY",
        BY_BOUNDS,
    ),
    (
        "pathWithin",
        {"roots": ["/a", "srv\x07"]},
        "`srv\\x07` is not a plain posix path",
        "/roots/1",
        BY_FOLDER,
    ),
    ("pathWithin", {"roots": ["/a", "srv"]}, "`srv` is not absolute", "/roots/1", BY_FOLDER),
    ("pathWithin", {"roots": ["/a"], "base": ".."}, "`..` is not a plain posix path", "/base", BY_FOLDER),
    ("pathWithin", {"roots": ["/a"], "base": "b"}, "`b` is not absolute", "/base", BY_FOLDER),
    (
        "pathWithin",
        {"roots": ["C:/a", "/a"], "style": "windows"},
        "`/a` is not a plain windows path",
        "/roots/1",
        BY_FOLDER,
    ),
    (
        "shellCommand",
        {"commands": [{"words": ["ls"]}, {"words": ["-x"]}]},
        "the first word is no program",
        "/commands/1/words/0",
        "write the program's name",
    ),
    (
        "shellCommand",
        {"commands": [{"words": ["X=1"]}]},
        "the first word is no program",
        "/commands/0/words/0",
        "write the program's name",
    ),
    (
        "shellCommand",
        {"commands": [{"words": ["ls"]}, {"words": ["ls"], "operands": {"pathWithin": {"roots": ["x"]}}}]},
        "`x` is not absolute",
        "/commands/1/operands/pathWithin/roots/0",
        BY_FOLDER,
    ),
    (
        "urlWithin",
        {"schemes": ["https", "ssh", "git"], "hosts": ["a.example"]},
        "no default port is known for `git`",
        "/schemes",
        "add `ports`",
    ),
    (
        "urlWithin",
        {"schemes": ["https"], "hosts": ["*", "a.example", "10.0.0.1"]},
        "`10.0.0.1` is not a host name",
        "/hosts/2",
        BY_HOST,
    ),
    (
        "urlWithin",
        {"schemes": ["https"], "networks": ["public", "private", "10.0.0.1/8"]},
        "`10.0.0.1/8` is not a network",
        "/networks/2",
        BY_NETWORK,
    ),
    (
        "urlWithin",
        {"schemes": ["https"], "networks": ["\x07"]},
        "`\\x07` is not a network",
        "/networks/0",
        BY_NETWORK,
    ),
    *(
        (
            "urlWithin",
            {**PATHS, "paths": ["/a", path]},
            f"`{path}` is not a plain path",
            "/paths/1",
            "write a path such as `/api/v1`",
        )
        for path in ("/a/../b", "/a b", "/a?b", "/a#b", "/a;b", "/a//b", "/é")
    ),
    (
        "money",
        {"maximum": {"EUR": 500}},
        '`money` is misstated: 500 is not of type "string"',
        "/maximum/EUR",
        "docs/boundaries.md says what `money` takes",
    ),
    (
        "money",
        {"maximum": {"EU/R~": 500}},
        '`money` is misstated: 500 is not of type "string"',
        "/maximum/EU~1R~0",
        "docs/boundaries.md says what `money` takes",
    ),
    (
        "shellCommand",
        {"commands": [{"words": ["ls", 5]}]},
        '`shellCommand` is misstated: 5 is not of type "string"',
        "/commands/0/words/1",
        "docs/boundaries.md says what `shellCommand` takes",
    ),
    (
        "pathWithin",
        {"roots": ["/a"], "\x07": 1},
        "`pathWithin` is misstated: Additional properties are not allowed ('\\x07' was unexpected)",
        "",
        "docs/boundaries.md says what `pathWithin` takes",
    ),
    (
        "sql",
        "x" * 300,
        f'`sql` is misstated: "{"x" * 199}',
        "",
        "docs/boundaries.md says what `sql` takes",
    ),
]


@pytest.mark.parametrize(("name", "stated", "what", "pointer", "remedy"), MISSTATED)
def test_a_misstatement_is_told_in_full(name: str, stated: Any, what: str, pointer: str, remedy: str) -> None:
    """Whoever writes a rule reads what is wrong with it, at which place, and what to write instead."""
    with pytest.raises(Misstated) as told:
        judge(name, stated)
    assert (told.value.what, told.value.pointer, told.value.remedy) == (what, pointer, remedy)
    assert str(told.value) == what
