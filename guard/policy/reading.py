"""One strict reading of YAML or JSON, which remembers the line of every value.

YAML is taken as a comfortable spelling of JSON: the events of YAML 1.1 come from PyYAML, the
values are made here. What one reader of YAML takes for a string and another for something else
(`no`, `012`, `1_000`, `12:30`) is refused, and so is what makes one value out of two places
(anchors, aliases, merge keys, tags, a second document).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final, NoReturn

import yaml

from guard.core import canonical
from guard.core.canonical import MAX_SAFE_INTEGER, escape
from guard.core.diagnosis import diagnose
from guard.core.errors import GuardError, printable
from guard.policy.places import Places

MAX_BYTES: Final = 1 << 20
MAX_DEPTH: Final = 64
_LOADER: Final = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
_CONSTANTS: Final[Mapping[str, Any]] = {"null": None, "true": True, "false": False}
_INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)", re.ASCII)
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?", re.ASCII)
_SURPRISING: Final = re.compile(
    r"~|<<|=|yes|no|on|off|true|false|null"
    r"|[-+]?\.(?:inf|nan)|[-+]?0[xob][0-9a-f_]+"
    r"|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?"
    r"|[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9_]+)(?:e[-+]?[0-9]+)?",
    re.ASCII | re.IGNORECASE,
)
_LONGEST_SAFE: Final = len(str(-MAX_SAFE_INTEGER))


@dataclass(frozen=True, slots=True)
class Text:
    """What was read.

    Attributes:
        name: what the bytes are called, for messages.
        value: plain JSON values (RFC 8259), I-JSON (RFC 7493) throughout.
        lines: line, counted from 1, of every value, by RFC 6901 pointer.
    """

    name: str
    value: Any
    lines: Mapping[str, int]

    def where(self, pointer: str) -> str:
        """`NAME:LINE` of a value, or of the nearest one around it that is written down."""
        while pointer and pointer not in self.lines:
            pointer = pointer.rpartition("/")[0]
        return f"{printable(self.name)}:{self.lines.get(pointer, 1)}"


def read(data: bytes, *, name: str) -> Text:
    """Read one YAML or JSON text. It is JSON when its first character is `{`.

    Args:
        data: the bytes, at most 1 MiB of UTF-8.
        name: what to call them in messages.

    Raises:
        GuardError: not readable, or readable in more than one way; says the line.
    """
    if len(data) > MAX_BYTES:
        raise GuardError(
            f"{len(data)} bytes, more than {MAX_BYTES}", where=printable(name), remedy="split the file"
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        _refuse(name, line, f"not UTF-8: {error.reason}", "save the file as UTF-8")
    return _json(data, text, name) if text.lstrip().startswith("{") else _Yaml(name).read(text)


def _refuse(name: str, line: int, what: str, remedy: str) -> NoReturn:
    raise GuardError(what, where=f"{printable(name)}:{line}", remedy=remedy)


def _json(data: bytes, text: str, name: str) -> Text:
    places = Places(text)
    lines = places.lines
    if places.depth > MAX_DEPTH:
        _refuse(name, 1, f"nested deeper than {MAX_DEPTH} levels", "flatten the document")
    try:
        return Text(name, canonical.read(data), lines)
    except ValueError:
        pass
    try:
        value, fault = diagnose(data)
    except ValueError as error:
        at = re.search(r"char(?:acter)? ([0-9]+)", str(error))
        line = text.count("\n", 0, int(at[1])) + 1 if at else 1
        _refuse(
            name, line, f"not JSON: {error}", "correct the JSON; comments and trailing commas are not JSON"
        )
    what, pointer = (fault.what, fault.pointer) if fault else ("not I-JSON", "")
    where = Text(name, value, lines).where(pointer)
    raise GuardError(
        f"{what} at {printable(pointer) or 'the top'}", where=where, remedy="remove or quote that value"
    )


class _Yaml:
    """Makes values from events; every open container stands on the stack, so depth is no recursion."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: dict[str, int] = {}

    def refuse(self, event: yaml.Event, what: str, remedy: str) -> NoReturn:
        _refuse(self.name, _line(event), what, remedy)

    def read(self, text: str) -> Text:
        try:
            return Text(self.name, self.document(text), self.lines)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = mark.line + 1 if mark else text.count("\n", 0, getattr(error, "position", 0)) + 1
            what = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable"
            _refuse(self.name, line, f"not YAML: {what}", "correct the YAML; indent with spaces")

    def document(self, text: str) -> Any:
        root = _Open(None, [])
        stack, documents = [root], 0
        for event in yaml.parse(text, Loader=_LOADER):
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self.refuse(event, "a second document", "put one document into one file")
                if event.version or event.tags:
                    self.refuse(event, "a YAML directive", "remove the line that begins with %")
            elif isinstance(event, yaml.NodeEvent):
                self.node(event, stack)
            elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
                stack.pop()
        if not root.value:
            _refuse(self.name, 1, "the file is empty", "write the document")
        return root.value[0]

    def node(self, event: yaml.NodeEvent, stack: list[_Open]) -> None:
        parent = stack[-1]
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            self.refuse(event, "anchors and aliases are not read", "write the value out where it is used")
        if getattr(event, "tag", None) is not None:
            self.refuse(event, "tags are not read", "remove the tag that begins with !")
        if isinstance(event, yaml.ScalarEvent):
            value, key = self.scalar(event), parent.wants_key
            if not key:
                self.note(event, parent)
                parent.put(value)
            else:
                self.key(event, value, parent)
            return
        if parent.wants_key:
            self.refuse(event, "a key that is not a string", "use a string as the key")
        if len(stack) > MAX_DEPTH:
            self.refuse(event, f"nested deeper than {MAX_DEPTH} levels", "flatten the document")
        opened = _Open(self.note(event, parent), {} if isinstance(event, yaml.MappingStartEvent) else [])
        parent.put(opened.value)
        stack.append(opened)

    def note(self, event: yaml.Event, parent: _Open) -> str:
        pointer = parent.pointer_of_next()
        self.lines.setdefault(pointer, _line(event))
        return pointer

    def key(self, event: yaml.ScalarEvent, key: Any, parent: _Open) -> None:
        if not isinstance(key, str):
            self.refuse(event, f"the key `{event.value}` is not a string", "quote it")
        if key in parent.value:
            self.refuse(event, f"the key `{printable(key)}` stands here twice", "keep one of the two")
        parent.pending = key
        self.lines[parent.pointer_of_next()] = _line(event)

    def scalar(self, event: yaml.ScalarEvent) -> Any:
        text = str(event.value)
        if event.implicit[0]:
            return self.plain(event, text)
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            self.refuse(event, "a lone surrogate", "write the character itself")
        return text

    def plain(self, event: yaml.ScalarEvent, text: str) -> Any:
        if not text:
            self.refuse(event, "a value is missing", 'write it; `null` and "" are values')
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        if _INTEGER.fullmatch(text):
            if len(text) > _LONGEST_SAFE or abs(int(text)) > MAX_SAFE_INTEGER:
                self.refuse(event, "integer beyond ±(2^53-1)", "quote it, or use a smaller number")
            return int(text)
        if _NUMBER.fullmatch(text):
            if not isfinite(real := float(text)):
                self.refuse(event, "number beyond the range of a double", "quote it, or use a smaller number")
            return real
        if _SURPRISING.fullmatch(text):
            self.refuse(
                event,
                f"`{printable(text)}` means different things to different readers of YAML",
                "quote it if it is a string; else spell it as JSON does",
            )
        return text


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


class _Open:
    """A container that is being filled."""

    __slots__ = ("pending", "pointer", "value")

    def __init__(self, pointer: str | None, value: Any) -> None:
        self.pointer = pointer
        self.value = value
        self.pending: str | None = None

    @property
    def wants_key(self) -> bool:
        return isinstance(self.value, dict) and self.pending is None

    def pointer_of_next(self) -> str:
        if self.pointer is None:
            return ""
        if isinstance(self.value, dict):
            return f"{self.pointer}/{escape(self.pending or '')}"
        return f"{self.pointer}/{len(self.value)}"

    def put(self, value: Any) -> None:
        if isinstance(self.value, dict):
            self.value[self.pending] = value
            self.pending = None
        else:
            self.value.append(value)
