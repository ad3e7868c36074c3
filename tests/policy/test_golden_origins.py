"""What origins see in a text, whole: every form, every shape, every word, of texts of all kinds.

They stand in a file that people read. After a change that is meant:

    python -m tests.policy.test_golden_origins
"""

from __future__ import annotations

import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from guard.policy.origins import addresses, forms, identities, shapes, values, words
from guard.policy.origins.leaves import Leaf, leaves

HERE = Path(__file__).parent / "golden"
TEXTS = (
    "",
    " ",
    "a",
    "ab",
    "abc",
    "Hello World",
    "Write to Ada.Lovelace+x@Mail.Example.co.uk, please.",
    "a@b",
    "@b.com",
    "one@a.com,two@b.org;three@c.net two@b.org",
    "x.%y@example.com",
    "~tilde@example.com and -dash@example.com",
    "user@" + "a" * 70 + ".com",
    "u" * 70 + "@example.com",
    "me@münchen.de",
    "https://user:pw@www.Example.com:8443/a/../b?q=1#frag",
    "HTTP://EXAMPLE.COM",
    "http:/example.com/a",
    "https:example.com",
    "ftp://files.example.org/x.tar.gz",
    "see (https://example.com/path), or <http://two.example.com>!",
    "next=https://evil.example.com/a&x=1",
    "https://good.example.com/?to=https://evil.example.org/x",
    "https://good.example.com/#me@evil.example.org",
    "mailto:me@example.com",
    "http://[2001:db8::1]:80/a and http://[::1]/",
    "http://0x7f.1/ http://2130706433/ http://127.0.0.1:8080",
    "www.example.com/a/b example.com example.co.uk sub.example.co.uk",
    "example.com:443 localhost localhost:80",
    "C:\\Users\\ada\\notes.txt and \\\\server\\share\\f.doc",
    "/etc/passwd ./a/b.txt ../c ~/.ssh/id_rsa a//b/ .../ /",
    "report.pdf main.py .env Makefile a.b v1.2.3",
    "file=report.pdf path:/tmp/x name:final_version",
    "DE89 3704 0044 0532 0130 00 is the account",
    "DE89370400440532013000, GB82-WEST-1234-5698-7654-32.",
    "de89370400440532013000xyz xde89370400440532013000",
    "DE1 DE12 3456 DE12 ABCD EFGH",
    "XX00" + "1" * 60,
    "call +49 (30) 1234-5678 or 030/1234567",
    "+1 555 123 4567 x",
    "1234567 12345678 123 45 67 8",
    "2026-11-23 2026-11-23T10:00:00Z 10:30 10:30:59 23.11.2026",
    "2026-1-2 12:34 2026-11-23 10:00",
    "1,200.50 $1,200.50 1200.5 EUR -7 +8 €9 10% 0.10 00012 1.0 1,2 12.",
    "the amount is 1234 and 12.5 or 1,000,000.00, not 5",
    "order 5, ticket #7, item 12 and page: 003; id is 42 number 8 row_9 no. 6",
    "\"1 2 3\" '4 5' `6  7`",
    "code abc_def ABC123 ABC-123-DEF a1b2c3 _x_ snake_case_name under_ score",
    "12-34-56-78 12 34 56 78 12.34.56.78.90",
    "it's O'Neil's \"quoted text\" 'single one' `ticks` “curly” «guille» #tag @handle",
    "The Bank of England and Ada Lovelace met Mr. Smith in New York, Paris - Rome: Berlin | Bonn",
    "one, two, three\nfour; five\n\nsix",
    "Items: alpha, beta, gamma",
    "alpha\nbeta\ngamma delta\n",
    "Yes",
    "true",
    "the channel general and the repo guard, folder docs or plans",
    "send it into archive. the general channel, the team called blue and red",
    "a long line " * 12,
    "line one ends with exam\nple.com and goes on",
    "https://example.com/very/long\r\n/path here",
    "ends.\nnext a@b.c",
    "%61%40%62.com and 100% sure %zz",
    "x" * 100 + "%41" + "y" * 200 + "%42" + "z" * 80,
    "&#97;&#x40;b&period;com &amp; &nosuch;",
    "\\u0061\\x40b.com\\n\\/ \\q",
    "=61=40b.com soft=\nbreak a=3D",
    "a dot b at c [dot] d (at) e {.} f <@> g hxxp://x.y a @ b",
    "a.b@c . d",
    "s p a c e d  o u t   w o r d s",
    "s-p-e-l-l a.d.d e_r_r u|v|w x*y*z",
    "a b",
    "deadbeef 0x61406263 61 40 62 2e 63 6f 6d 61:40:62:2e",
    "abcdefgh ABCDEFGH Abcdefgh aGVsbG8gd29ybGQ= aGVsbG8gd29ybGQ",
    b64encode(b"write to eve@example.com").decode(),
    urlsafe_b64encode(b"\xc3\xbf\xc3\xbe\xc3\xbf write?>").decode(),
    b64encode(bytes(range(200, 240))).decode(),
    b64encode(b"a\tb\nc\rd but\x00ok").decode(),
    "zero\u200bwidth\u00adsoft\u2060join ﬁne \uff26\uff55\uff4c\uff4c ①",
    "\x00\x01tab\tnew\nline\x7f\x85next",
    "ΣΑΣ straße İstanbul",
    "日本語 テスト",
    "{a: [1, 2]}",
    "a=b=c&d=e x:y:z a:b=c.txt",
    "?!...:::***===###",
    "don't rock-n-roll x.y.z a_b",
    "123456789012345678901234567890123 0.1234567890123456 0.12345678901234567",
    "12 eur, 12usd 12 euros $ 5 5$ -$5 $-5 --5",
)
DOCUMENTS: tuple[Any, ...] = (
    {"id": 7, "name": "Ada", "amount": 1200.0, "rate": 0.25, "ok": True, "none": None, "big": 12345},
    {"user_id": "u-1", "userNo": 12, "accounts": ["alpha", "beta", "yes"], "to": "general", "Some Name": "x"},
    {
        "items": [{"key": "k1", "text": "Write to a@example.com"}, {"key": 3, "text": "the id is 5"}],
        "1e3": [1e3, 5e-7],
    },
    {"lower case": {"deep": [[["x", 1]]]}, "Title": ["one two"], "notes": "a" * 70, "owner": "b" * 65},
    ["plain", "text of more words than a name has, and then some", 5, 12.5, -3, 10**20, 0.1],
    "just text with 1234 in it",
    17,
)
LABELS = {
    "/name": "trusted",
    "/items/*/text": "mixed",
    "/items/0": "trusted",
    "/lower case/deep/0": "trusted",
}


def _line(name: str, found: Iterable[Any]) -> Iterator[str]:
    told = [*found]
    if told:
        yield f"  {name}: {told!r}"


def of_text(text: str) -> Iterator[str]:
    plain = forms.clean(text)
    small = plain.casefold()
    yield f"== {text!r}"
    phrase = words.phrase(plain)
    yield f"  clean: {plain!r} folded: {forms.folded(plain)!r}"
    yield f"  phrase: {phrase!r} value: {words.value(plain)!r} weak: {words.is_weak(phrase)}"
    yield f"  number: {shapes.number(small)} date: {shapes.is_date(small)}"
    yield from _line("unwrapped", forms.unwrapped(text))
    yield from _line("wrapped", forms.wrapped(text) if len(text) < 20 else ())
    yield from _line(
        "shapes", sorted((s.start, s.end, *s.exact, "/", *s.parts) for s in shapes.shapes(small))
    )
    yield from _line("shown", sorted(set(shapes.shown(small))))
    yield from _line("content", words.content(small))
    yield from _line("telling", sorted(words.telling(words.content(small))))
    yield from _line("pairs", words.pairs(words.content(small)))
    yield from _line("standing", words.standing(plain))
    yield from _line("numbers", words.numbers(small))
    yield from _line("quoted", words.quoted(plain))
    yield from _line("cued", words.cued(small))
    yield from _line("strictly", words.cued(small, strictly=True))
    yield from _line("runs", islice(words.runs(plain, 40), 60))
    yield from _line("pointed", identities.pointed(small))
    yield from _line("listed", identities.listed(plain))
    yield f"  codes: {shapes.codes(small)} can name: {identities.can_name(words.phrase(plain))}"
    parts = small.split()
    yield from _line("names", (part for part in parts if addresses.is_name(part)))
    yield from _line("files", (part for part in parts if addresses.is_file(part)))
    yield from _line("urls", ((part, addresses.url(part)) for part in parts if addresses.url(part)))
    yield from _line("paths", (addresses.path(part) for part in parts if "/" in part or "\\" in part))
    yield from _line("hosts", ((addresses.host(p), addresses.registered(p)) for p in parts if "." in p))


def of_found(found: values.Found) -> Iterator[str]:
    for key, leaf in sorted(found._places.items(), key=str):
        yield f"  {key} {leaf.trust} {leaf.at!r}"
    if found.is_full:
        yield "  full"


def as_texts() -> str:
    lines = [line for text in TEXTS for line in of_text(text)]
    return "\n".join([*lines, ""])


def as_values() -> str:
    lines: list[str] = []
    for trust in ("untrusted", "mixed"):
        for document in DOCUMENTS:
            every = [*leaves(json.dumps(document), trust, LABELS)]
            lines += [f"== {trust} {json.dumps(document)[:150]}", *(f"  leaf {leaf}"[:200] for leaf in every)]
            found = values.Found(prose=trust == "untrusted")
            found.take_all(every)
            lines += of_found(found)
    for text in TEXTS:
        if len(text) < 150:
            found = values.Found()
            found.take(Leaf("/at", text, "untrusted", whole=True))
            lines += [f"== untrusted text {text!r}", *of_found(found)]
    for text in TEXTS[5:60:5]:
        found = values.Found()
        found.take(Leaf("", text, "trusted", whole=False))
        spoken = {one[0] for one in values.spoken(text, b"s")}
        lines += [f"== trusted text {text!r} {len(spoken)}", *of_found(found)]
    return "\n".join([*lines, ""])


FILES = {"origins-texts.txt": as_texts, "origins-values.txt": as_values}


@pytest.mark.parametrize("name", FILES)
def test_what_is_seen_in_a_text_is_what_was_seen(name: str) -> None:
    """Each form and shape with its place, each word, each number: nothing more and nothing less."""
    kept, now = (HERE / name).read_text(encoding="utf-8"), FILES[name]()
    for was, is_ in zip(kept.split("\n"), now.split("\n"), strict=False):
        assert is_ == was
    assert now == kept


if __name__ == "__main__":
    for name, text in FILES.items():
        (HERE / name).write_text(text(), encoding="utf-8")
