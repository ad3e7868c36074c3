"""What a server says, read without changing a literal of it.

Results are not held to I-JSON: a 30-digit integer or a lone surrogate reaches the client as the
server wrote it. So the envelope is read, and the result is carried as bytes; only when something
must be added or taken out is an object opened, member by member.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from guard.core.model import OWN_META_PREFIX

_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
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
    masked = _masked(line)
    found = _line.decode(masked)
    for name in ("params", "result", "error"):
        setattr(found, name, msgspec.Raw(_original(bytes(getattr(found, name)), masked, line)))
    return found


def _masked(text: bytes) -> bytes:
    """Every surrogate escape as a space escape of the same length, so that places stay."""
    return _SURROGATE.sub(b"\\\\u0020", text)


def _original(part: bytes, masked: bytes, line: bytes) -> bytes:
    if not part:
        return part
    found, at = set[bytes](), masked.find(part)
    while at >= 0:
        found.add(line[at : at + len(part)])
        at = masked.find(part, at + 1)
    if len(found) != 1:
        raise Garbage("two parts of the message differ in lone surrogates only")
    return found.pop()


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
    """The members of an object, each as bytes; where a surrogate stands alone, all are shown as spaces.

    Raises:
        Garbage: not an object.
    """
    try:
        try:
            return _members.decode(raw)
        except msgspec.DecodeError:
            return _members.decode(_masked(bytes(raw)))
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


def completed(raw: bytes) -> bytes:
    """A handshake-era result for a 2026-07-28 client: `resultType` added where it is missing.

    Raises:
        Garbage: not an object.
    """
    members = read_object(raw)
    if "resultType" in members:
        return raw
    head = b'{"resultType":"complete"'
    return head + (b"," + raw[raw.index(b"{") + 1 :] if members else b"}")
