"""Values that show by their shape, wherever they stand in a text: addresses, URLs, accounts, file names.

A text is read as pieces between spaces and quotes. Each piece is looked at once, and no pattern walks more
than a bounded way back, so the time is linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from guard.policy.origins import addresses

Key = tuple[str, str]
"""Kind and normal form."""

LONGEST: Final = 2_048  # characters of one piece that are looked at together
OVERLAP: Final = 256  # of one part of a longer piece with the next

_PIECE: Final = re.compile(r"[^\s\"'`<>()\[\]{},;|]+")
_TELLING: Final = re.compile(r"[@./\\_\d]")
_DIGIT: Final = re.compile(r"\d")
_AROUND: Final = ".:!?*=#"
_SCHEME: Final = re.compile(r"[a-z0-9+.-](:[/\\]{2})|https?(:[/\\]?)(?=[\w\[])")
_SIX: Final = re.compile(r"[a-z]{2,10}://\[[0-9a-f:.%]{2,60}\][^\s\"'`<>()\[\]{},;|]{0,2000}")
_LOCAL: Final = re.compile(r"[\w.+%~&-]{1,64}")  # held against what stands before the @, backwards
_DOMAIN: Final = re.compile(r"[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
_DATE: Final = re.compile(
    r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[t ][0-9:.]{2,16}(?:z|[+-][0-9:]{2,6})?)?|[0-9]{1,2}(?::[0-9]{2}){1,2}"
)
_ACCOUNT: Final = re.compile(r"(?<![^\W_])(?=([a-z]{2} ?[0-9]{2}[a-z0-9 -]{6,60}))")
_DIGITS: Final = re.compile(r"(?<![\w.])\+?[0-9](?:[ ()./-]{0,2}[0-9]){6,30}(?!\w)")
_NUMBER: Final = re.compile(
    r"[-+]?[$€£¥]? ?(?:[0-9]{1,3}(?:,[0-9]{3}){1,10}|[0-9]{1,32})(?:\.[0-9]{1,16})?"
    r"(?: ?(?:[$€£¥%]|[a-z]{3}))?"
)
_NOT_NUMBER: Final = re.compile(r"[^0-9.]")
_GROUPING: Final = re.compile(r"[ ()-]+")
_NOT_CODE: Final = re.compile(r"[\W_]+")
_SHORTEST: Final = 3
_SHORTEST_CODE: Final = 6
_SHORTEST_ACCOUNT: Final = 10
_LONGEST_ACCOUNT: Final = 40


@dataclass(frozen=True, slots=True)
class Shape:
    """A value in a text.

    Attributes:
        start: where it begins.
        end: where it ends.
        exact: the keys of the value itself.
        parts: the keys of parts that say where it leads, or that are in it: a host, a file's name.
    """

    start: int
    end: int
    exact: tuple[Key, ...]
    parts: tuple[Key, ...] = ()


def shown(text: str) -> Iterator[Key]:
    """The keys of every value of a clean text in small letters that shows by its shape."""
    for piece in filter(_TELLING.search, set(_PIECE.findall(text))):
        for begin in range(0, len(piece), LONGEST - OVERLAP) if len(piece) > LONGEST else (0,):
            for shape in _piece(piece[begin : begin + LONGEST], 0):
                yield from shape.exact
                yield from shape.parts
    for shape in _longer(text):
        yield from shape.exact
        yield from shape.parts


def shapes(text: str) -> Iterator[Shape]:
    """Every value of a clean text in small letters that shows by its shape, with its place."""
    for found in _PIECE.finditer(text):
        piece = found.group()
        if not _TELLING.search(piece):
            continue
        if len(piece) <= LONGEST:
            yield from _piece(piece, found.start())
        else:
            for begin in range(0, len(piece), LONGEST - OVERLAP):
                yield from _piece(piece[begin : begin + LONGEST], found.start() + begin)
    yield from _longer(text)


def _longer(text: str) -> Iterator[Shape]:
    """Values that are no piece by themselves."""
    if "[" in text:
        for found in _SIX.finditer(text):
            if leads := addresses.url(found.group()):
                yield Shape(*found.span(), (("url", leads[1]),), _hosts(leads[0]))
    if _DIGIT.search(text):
        yield from _accounts(text)
        for digits in _DIGITS.finditer(text):
            if not digits.group().isdigit() and not is_date(digits.group()):
                yield Shape(*digits.span(), *codes(digits.group()))


def number(written: str) -> str | None:
    """A number in one spelling: `1,200.50`, `$1200.5` and `1200.50 eur` are 1200.5; None for what is none."""
    if not _NUMBER.fullmatch(written):
        return None
    sign = "-" if "-" in written[:2] else ""
    whole, _, rest = _NOT_NUMBER.sub("", written).partition(".")
    rest = rest.rstrip("0")
    return sign + (whole.lstrip("0") or "0") + ("." + rest if rest else "")


def is_date(written: str) -> bool:
    """Whether it is a date, or a time of day."""
    return bool(_DATE.fullmatch(written))


def _hosts(name: str) -> tuple[Key, ...]:
    """Keys of a host: the name, and what of it was registered."""
    short = addresses.registered(name)
    return (("host", name),) if short == name else (("host", name), ("host", short))


def _emails(piece: str, start: int) -> Iterator[Shape]:
    at = piece.find("@")
    while at >= 0:
        before = _LOCAL.match(piece[max(0, at - 64) : at][::-1])
        domain = _DOMAIN.match(piece, at + 1)
        if before and domain:
            local = before.group()[::-1].lstrip(".%&~-")
            name = addresses.host(domain.group())
            begin, end = start + at - len(local), start + domain.end()
            yield Shape(begin, end, (("text", f"{local}@{name}"),), _hosts(name))
        at = piece.find("@", at + 1)


def _piece(written: str, at: int) -> Iterator[Shape]:
    bare = written.rstrip(_AROUND).lstrip(_AROUND.replace(".", ""))
    start = at + written.find(bare)
    end = start + len(bare)
    if len(bare) < _SHORTEST:
        return
    found = _SCHEME.search(bare) if ":" in bare else None
    scheme = found.start(found.lastindex or 0) if found else -1
    if "@" in bare and scheme < 0:
        addressed = [*_emails(bare, start)]
        yield from addressed or (Shape(start, end, (("text", bare),)),)
        return
    if scheme > 0 or addresses.is_name(bare.partition("/")[0].partition(":")[0]):
        begin = 0 if scheme < 0 else max(bare.rfind(sign, 0, scheme) for sign in "=:#&?") + 1
        if leads := addresses.url(bare[begin:]):
            name, form = leads
            yield Shape(start + begin, end, (("url", form),), (*_hosts(name), *_inside(form)))
        return
    if "/" in bare or "\\" in bare:
        whole = addresses.path(bare)
        last = whole.rpartition("/")[2]
        if last.strip("."):
            yield Shape(start, end, (("path", whole),), (("text", last),) if addresses.is_file(last) else ())
        return
    for part in (
        {bare, bare.rpartition(":")[2], bare.rpartition("=")[2]} if ":" in bare or "=" in bare else (bare,)
    ):
        if addresses.is_file(part):
            yield Shape(end - len(part), end, (("text", part), ("path", part)))
        elif _is_code(part):
            yield Shape(end - len(part), end, *codes(part))


def codes(written: str) -> tuple[tuple[Key, ...], tuple[Key, ...]]:
    """Keys of an account, a telephone number, a code: without the signs that group it; and without any."""
    grouped, loose = _GROUPING.sub("", written), _NOT_CODE.sub("", written)
    return (("code", grouped),), (("loose", loose),)


def _is_code(written: str) -> bool:
    """Whether it is no word: it has digits or an underscore, and is not short."""
    if len(written) < _SHORTEST_CODE or is_date(written):
        return False
    plain = _NOT_CODE.sub("", written)
    return len(plain) >= _SHORTEST_CODE and bool(_DIGIT.search(plain) or "_" in written[1:-1])


def _inside(form: str) -> Iterator[Key]:
    """Keys of addresses that a URL carries in its path or query."""
    for inner in _emails(form, 0):
        yield from inner.exact
        yield from inner.parts
    scheme = form.find("://")
    if scheme > 0:
        begin = max(form.rfind(sign, 0, scheme) for sign in "=/?&:") + 1
        if leads := addresses.url(form[begin:]):
            yield "url", leads[1]
            yield from _hosts(leads[0])


def _accounts(text: str) -> Iterator[Shape]:
    """Account numbers that begin as an IBAN does, in groups as printed or in one.

    Where one ends does not show, so each end of a group may be it.
    """
    for found in _ACCOUNT.finditer(text):
        plain, end = "", found.start() - 1
        for group in re.split("[ -]", found.group(1)):
            plain += group
            end += len(group) + 1
            if len(plain) > _LONGEST_ACCOUNT:
                break
            if len(plain) >= _SHORTEST_ACCOUNT and sum(map(str.isdigit, plain)) >= _SHORTEST_CODE:
                yield Shape(found.start(), end, *codes(plain))
