"""What a server says, read without changing a literal of it.

Results are not held to I-JSON: a 30-digit integer or a lone surrogate reaches the client as the
server wrote it. So the envelope is read, and the result is carried as bytes; only when something
must be added or taken out is an object opened, member by member.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from typing import Any, Final

import msgspec
import orjson

from guard.core.model import OWN_META_PREFIX

_SURROGATE: Final = re.compile(rb"\\u(?=[dD][89a-fA-F][0-9a-fA-F]{2})")
_ONE_LINE: Final = bytes.maketrans(b"\r\n", b"  ")
_SUSPECT: Final = (b"guard-mcp", b"\\u00", b"\\/")


MAX_HEAD: Final = 4096
"""Bytes of a response in which its id has ended: an id has 256 characters, each at most 12 bytes."""


class Garbage(Exception):
    """A line that is not a message."""


class Line(msgspec.Struct):
    """The envelope of a message from a server, its parts unread."""

    jsonrpc: str = ""
    id: int | str | msgspec.UnsetType | None = msgspec.UNSET
    method: str | msgspec.UnsetType = msgspec.UNSET
    params: msgspec.Raw = msgspec.Raw()
    result: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


_line: Final = msgspec.json.Decoder(Line)
_items: Final = msgspec.json.Decoder(list[msgspec.Raw])
_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def read_line(line: bytes) -> Line:
    """Read a server's line.

    Raises:
        Garbage: not UTF-8, not JSON, not a JSON-RPC 2.0 message.
    """
    try:
        if not line.isascii():
            line.decode()
        if b"\n" in line or b"\r" in line:  # between tokens they are blanks; inside a string they are no JSON
            line = line.translate(_ONE_LINE)
        try:
            found = _line.decode(line)
        except msgspec.DecodeError:
            found = _with_surrogates(line)
    except (ValueError, RecursionError) as error:
        raise Garbage(str(error)) from None
    if found.jsonrpc != "2.0":
        raise Garbage("not JSON-RPC 2.0")
    return found


def _with_surrogates(line: bytes) -> Line:
    """A lone surrogate is JSON, but the fast reader refuses it: read with it masked, then restore.

    JavaScript servers write one where they cut a string in the middle of an emoji.
    """
    mask = _Mask(line)
    found = _line.decode(mask.masked)
    for name in ("params", "result", "error"):
        setattr(found, name, msgspec.Raw(mask.part(getattr(found, name))))
    for name in ("id", "method"):  # they are written again, and that needs a text
        if isinstance(text := getattr(found, name), str):
            setattr(found, name, writable(mask.text(text)))
    return found


class _Mask:
    """JSON whose surrogate escapes are made spaces with a mark behind them, so that each is found again.

    The mark stands nowhere else: it is not in the text, and no end of it is a beginning of it.
    It also does no harm behind an escaped backslash, where what looks like an escape is none.

    Raises:
        Garbage: there is nothing to mask, so the fast reader was right.
    """

    def __init__(self, text: bytes | msgspec.Raw) -> None:
        text = bytes(text)
        mark = _new_mark()
        while mark in text:
            mark = _new_mark()
        self._mark = mark.decode()
        self._mask = b"0020" + mark
        self.masked, count = _SURROGATE.subn(b"\\\\u" + self._mask, text)
        if not count:
            raise Garbage("not JSON, or not of the form that is needed")

    def part(self, raw: bytes | msgspec.Raw) -> bytes:
        """A part of the masked text, as it was."""
        return bytes(raw).replace(self._mask, b"")

    def text(self, text: str) -> str:
        """A string that was read from the masked text, as it would have been read."""
        if self._mark not in text:
            return text
        text = text.replace(f"0020{self._mark}", "")
        text = re.sub(f" {self._mark}([0-9a-fA-F]{{4}})", lambda found: chr(int(found[1], 16)), text)
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")  # pairs become one


def _new_mark() -> bytes:
    return b"g" + os.urandom(4).hex().encode()


def writable(name: str) -> str:
    """A string that can be written again. Raises Garbage: a surrogate stands alone in it."""
    if not name.isascii():
        try:
            name.encode()
        except UnicodeEncodeError:
            raise Garbage("a surrogate stands alone in a name or an id") from None
    return name


def error_code(line: bytes) -> int:
    """The code of an error response; 0 where it is none, or its code is no integer."""
    if b'"error":' not in line[:MAX_HEAD]:  # a result is not read once more for this
        return 0
    try:
        error = value_of(read_line(line).error or b"null")
    except Garbage:
        return 0
    code = error.get("code") if isinstance(error, dict) else 0
    return code if type(code) is int else 0


def read_object(raw: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    """The members of an object, each as the bytes that were written.

    Raises:
        Garbage: not an object.
    """
    try:
        try:
            return _members.decode(raw)
        except msgspec.DecodeError:
            mask = _Mask(raw)
            found = _members.decode(mask.masked)
            return {mask.text(name): msgspec.Raw(mask.part(part)) for name, part in found.items()}
    except (ValueError, RecursionError) as error:
        raise Garbage(str(error)) from None


def fragments(raw: bytes | msgspec.Raw) -> dict[str, Any]:
    """The members of an object, to be written anew with others.

    Raises:
        Garbage: not an object, or a name in it cannot be written.
    """
    return {writable(name): orjson.Fragment(bytes(part)) for name, part in read_object(raw).items()}


class Page(msgspec.Struct):
    """One page of a list.

    Attributes:
        items: as the server wrote them.
        cursor: of the next page, None after the last.
        ttl: how long it keeps, in milliseconds; 0 where the server does not say.
    """

    items: list[bytes]
    cursor: str | None = None
    ttl: int = 0


def page_of(raw: bytes, member: str) -> Page:
    """One page. Raises Garbage: it is none."""
    members = read_object(raw)
    if member not in members:
        raise Garbage(f"no list of {member}")
    items = _listed(members[member])
    cursor, ttl = (value_of(members.get(name, b"null")) for name in ("nextCursor", "ttlMs"))
    keeps = ttl if type(ttl) is int and ttl > 0 else 0
    return Page(items, cursor if isinstance(cursor, str) else None, keeps)


def _listed(raw: msgspec.Raw) -> list[bytes]:
    """The items of a list, each as the bytes that were written. Raises Garbage."""
    try:
        try:
            return [bytes(item) for item in _items.decode(raw)]
        except msgspec.DecodeError:
            mask = _Mask(raw)
            return [mask.part(item) for item in _items.decode(mask.masked)]
    except (ValueError, RecursionError) as error:
        raise Garbage(str(error)) from None


def value_of(raw: bytes | msgspec.Raw, of_members: Callable[[list[tuple[str, Any]]], Any] = dict) -> Any:
    """A part, read whole. Raises Garbage."""
    try:
        return json.loads(bytes(raw), parse_constant=_no_constant, object_pairs_hook=of_members)
    except (ValueError, RecursionError) as error:
        raise Garbage(str(error)) from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def without_own_meta(raw: bytes) -> bytes:
    """A result or notification in which no server speaks in Guard's name.

    Untouched bytes unless a key of Guard's stands in it, at whatever depth and however escaped.

    Raises:
        Garbage: not readable.
    """
    if not any(mark in raw for mark in _SUSPECT):
        return raw
    found = False

    def stripped(members: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal found  # seen here even where a later member of the same name hides it
        found = found or any(name.startswith(OWN_META_PREFIX) for name, _ in members)
        return {name: member for name, member in members if not name.startswith(OWN_META_PREFIX)}

    value = value_of(raw, stripped)
    if not found:
        return raw
    try:
        return json.dumps(value, allow_nan=False).encode()
    except ValueError as error:
        raise Garbage(str(error)) from None


def completed(raw: bytes, *, caches: bool = False) -> bytes:
    """A handshake-era result for a 2026-07-28 client: `resultType` added where it is missing.

    Args:
        caches: whether such a result must say how long it keeps: not at all, and for nobody else.

    Raises:
        Garbage: not an object.
    """
    members = read_object(raw)
    if "resultType" in members:
        return raw
    head = b'{"resultType":"complete"'
    if caches and "ttlMs" not in members and "cacheScope" not in members:
        head += b',"ttlMs":0,"cacheScope":"private"'
    return head + (b"," + raw[raw.index(b"{") + 1 :] if members else b"}")
