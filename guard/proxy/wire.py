"""One strict reading of what a client says, and the one place where answers become bytes.

A message is read once. What is forwarded is built from what was read, never the raw bytes.
Nothing here decides: malformed messages raise, everything else becomes a frozen value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from guard.core.canonical import MAX_SAFE_INTEGER, NotIJson, NotJson, read
from guard.core.diagnosis import diagnose
from guard.core.errors import printable
from guard.core.model import (
    ARTIFACT_META,
    CONVERSATION_META,
    INTENT_META,
    SUBJECTS,
    USER_MESSAGE_META,
)
from guard.proxy import eras
from guard.proxy.endings import Flight

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
NOT_AUTHENTICATED: Final = 4401
DENIED: Final = 4403
OVERLOADED: Final = 4429
LOST: Final = 4504
"""Guard's own codes lie outside -32768..-32000, which JSON-RPC and MCP keep for themselves."""

MAX_NAME: Final = 256
MAX_INTENTS: Final = 16
MAX_INTENT: Final = 160
MAX_USER_MESSAGE: Final = 65_536
MAX_ID: Final = 256
MAX_URI: Final = 8192
MAX_DIAGNOSED: Final = 1024 * 1024
"""Bytes of a faulty message that the slow reader looks at."""
MAX_POINTER: Final = 200
TRACE_KEYS: Final = ("traceparent", "tracestate", "baggage")
CALL: Final = "tools/call"
_MEMBERS_OF: Final[Mapping[str, frozenset[str]]] = {
    "tools/call": frozenset({"name", "arguments"}),
    "prompts/get": frozenset({"name", "arguments"}),
    "resources/read": frozenset({"uri"}),
}
_ROUND_MEMBERS: Final = frozenset({"inputResponses", "requestState"})
"""What a 2026-07-28 client adds when it answers a request for input (multi round-trip requests)."""
_LATER_MEMBERS: Final = frozenset({"task"})
_MEMBERS: Final = frozenset({"jsonrpc", "id", "method", "params"})
_ARGUMENTS: Final = "/params/arguments"
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

Id = str | int


class Malformed(Exception):
    """A message that is answered with a JSON-RPC error and goes no further.

    Attributes:
        code: the JSON-RPC code.
        message: what is wrong, one sentence.
        id: the request's id, None where there is none to answer to.
        data: more for programs, None for none.
    """

    def __init__(self, code: int, message: str, id_: Id | None = None, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.id = id_
        self.data = data


@dataclass(frozen=True, slots=True)
class Request:
    """A request that was understood.

    Attributes:
        id: as the client gave it.
        method: the JSON-RPC method.
        params: its params without `_meta`.
        meta: its `_meta`.
        modern: whether it carries the 2026-07-28 envelope.
        fault: pointer (from the params) and words of what in `arguments` is not I-JSON.
        flight: how it is called off, and where its progress goes.
    """

    id: Id
    method: str
    params: Mapping[str, Any] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)
    modern: bool = False
    fault: tuple[str, str] | None = None
    flight: Flight = field(default_factory=Flight, compare=False, repr=False)

    @property
    def progress_token(self) -> Id | None:
        """The token under which the client wants progress, None for none."""
        token = self.meta.get("progressToken")
        return token if _is_id(token) else None

    @property
    def traceparent(self) -> str | None:
        """W3C trace context, None where there is none or it is not one."""
        value = self.meta.get("traceparent")
        return value if isinstance(value, str) and _TRACEPARENT.fullmatch(value) else None

    @property
    def intents(self) -> frozenset[str]:
        """The intents that the client declared."""
        declared = self.meta.get(INTENT_META, ())
        return frozenset((declared,) if isinstance(declared, str) else declared)

    @property
    def user_message(self) -> str:
        """What the client says that the user said, "" for nothing."""
        return str(self.meta.get(USER_MESSAGE_META, ""))

    @property
    def artifact(self) -> str | None:
        """An artifact that the client sent along."""
        value = self.meta.get(ARTIFACT_META)
        return None if value is None else str(value)


@dataclass(frozen=True, slots=True)
class Notification:
    """A notification: method and params with `_meta`."""

    method: str
    params: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Response:
    """The client's answer to a request of a server's: a result, or an error object."""

    id: Id
    value: Any
    is_error: bool = False


def read_message(
    line: bytes, headers: Mapping[str, str] | None = None
) -> Request | Notification | Response | None:
    """Read one message from the client; None for a response that is none: nobody answers an answer.

    Args:
        line: the message.
        headers: of the HTTP request that it came in, names in lower case; they must agree with it
            where 2026-07-28 says so. None where there are none.

    Raises:
        Malformed: it is answered with an error and goes no further.
    """
    body, fault = _read(line)
    if isinstance(body, list):
        raise Malformed(INVALID_REQUEST, "batches are refused whole: send one message at a time")
    if not isinstance(body, dict):
        raise Malformed(INVALID_REQUEST, "a message is a JSON object")
    id_ = body.get("id")
    answerable = id_ if _is_id(id_) and (fault is None or fault.pointer != "/id") else None
    inside = _fault_of_arguments(body, fault)
    if answerable is not None and "method" not in body and ("result" in body or "error" in body):
        return _response(body, answerable, fault)
    if fault is not None and inside is None:
        where = printable(fault.pointer[:MAX_POINTER])
        raise Malformed(INVALID_REQUEST, f"not I-JSON: {fault.what} at {where or 'the top'}", answerable)
    if body.get("jsonrpc") != "2.0":
        raise Malformed(INVALID_REQUEST, 'jsonrpc is not "2.0"', answerable)
    if "method" not in body:
        if "result" in body or "error" in body:
            return None
        raise Malformed(INVALID_REQUEST, "neither a request nor a response", answerable)
    return _understood(body, answerable, inside, headers)


def _response(body: dict[str, Any], id_: Id, fault: NotIJson | None) -> Response:
    """An answer to a server; one that is none is an error, or the server would wait for another."""
    if fault is None and body.get("jsonrpc") == "2.0" and ("result" in body) != ("error" in body):
        name = "result" if "result" in body else "error"
        return Response(id_, body[name], is_error=name == "error")
    what = "its client's answer is not a JSON-RPC 2.0 response in I-JSON"
    return Response(id_, {"code": INTERNAL_ERROR, "message": what}, is_error=True)


def _understood(
    body: dict[str, Any],
    id_: Id | None,
    fault: tuple[str, str] | None,
    headers: Mapping[str, str] | None,
) -> Request | Notification:
    method, params = body["method"], body.get("params", {})
    if unknown := body.keys() - _MEMBERS:
        name = printable(min(unknown))[:MAX_NAME]
        raise Malformed(INVALID_REQUEST, f"the member {name!r} is not part of a request", id_)
    if not isinstance(method, str) or not 0 < len(method) <= MAX_NAME:
        raise Malformed(INVALID_REQUEST, "method is not a short string", id_)
    if not isinstance(params, dict):
        raise Malformed(INVALID_PARAMS, "params is not an object", id_)
    if "id" not in body:
        return Notification(method, params)
    if id_ is None:
        raise Malformed(INVALID_REQUEST, "id is neither a string nor a safe integer")
    meta = _meta(params.get("_meta", {}), id_)
    modern = eras.says_modern(headers) or (method != "initialize" and eras.PROTOCOL_VERSION in meta)
    if modern:
        require_envelope(body, headers)
    rest = {name: value for name, value in params.items() if name != "_meta"}
    if method in SUBJECTS:
        _check_subject(method, rest, id_, modern=modern)
    return Request(id_, method, rest, meta, modern, fault)


def _meta(meta: Any, id_: Id) -> dict[str, Any]:
    if not isinstance(meta, dict):
        raise Malformed(INVALID_PARAMS, "params._meta is not an object", id_)
    if "progressToken" in meta and not _is_id(meta["progressToken"]):
        raise Malformed(INVALID_PARAMS, "progressToken is neither a string nor an integer", id_)
    if CONVERSATION_META in meta and not _is_name(meta[CONVERSATION_META]):
        raise Malformed(INVALID_PARAMS, f"{CONVERSATION_META} is not a string of 1 to {MAX_NAME}", id_)
    if INTENT_META in meta and not _are_intents(meta[INTENT_META]):
        what = f"{INTENT_META} is neither an id nor a list of 1 to {MAX_INTENTS} ids"
        raise Malformed(INVALID_PARAMS, what, id_)
    said = meta.get(USER_MESSAGE_META, "")
    if not isinstance(said, str) or len(said) > MAX_USER_MESSAGE:
        what = f"{USER_MESSAGE_META} is not a string of at most {MAX_USER_MESSAGE} characters"
        raise Malformed(INVALID_PARAMS, what, id_)
    return meta


def _are_intents(declared: Any) -> bool:
    ids = [declared] if isinstance(declared, str) else declared
    return (
        isinstance(ids, list)
        and 0 < len(ids) <= MAX_INTENTS
        and all(isinstance(one, str) and 0 < len(one) <= MAX_INTENT for one in ids)
    )


def require_envelope(body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
    """The 2026-07-28 envelope, by the SDK's own ladder. Raises Malformed."""
    if (refusal := eras.refusal(body, headers)) is not None:
        code, message, data = refusal
        raise Malformed(code, message, body.get("id"), data)


def _check_subject(method: str, params: dict[str, Any], id_: Id, *, modern: bool) -> None:
    """The params of what reads or acts: no member but those that are understood, each of its type."""
    member = SUBJECTS[method][1]
    limit = MAX_NAME if member == "name" else MAX_URI
    if not _is_name(params.get(member), limit):
        what = f"{member} is not a string of 1 to {limit} printable characters"
        raise Malformed(INVALID_PARAMS, what, id_)
    if not isinstance(params.get("arguments", {}), dict):
        raise Malformed(INVALID_PARAMS, "arguments is not an object", id_)
    known = _MEMBERS_OF[method]
    if len(params) > 1 and (unknown := params.keys() - known):
        if modern and unknown <= _ROUND_MEMBERS:
            if not isinstance(params.get("inputResponses", {}), dict):
                raise Malformed(INVALID_PARAMS, "inputResponses is not an object", id_)
            if not isinstance(params.get("requestState", ""), str):
                raise Malformed(INVALID_PARAMS, "requestState is not a string", id_)
            return
        name = min(unknown)
        why = "is not supported yet" if name in _LATER_MEMBERS else f"is not part of {method}"
        raise Malformed(INVALID_PARAMS, f"params.{printable(name)[:MAX_NAME]} {why}", id_)


def _read(line: bytes) -> tuple[Any, NotIJson | None]:
    try:
        return read(line), None
    except (NotJson, NotIJson):
        pass
    if len(line) > MAX_DIAGNOSED:
        raise Malformed(INVALID_REQUEST, "not strict JSON, and too large to say where")
    try:
        return diagnose(line)
    except NotJson as error:
        raise Malformed(PARSE_ERROR, f"not JSON: {error}") from None


def _fault_of_arguments(body: dict[str, Any], fault: NotIJson | None) -> tuple[str, str] | None:
    """The fault as pointer into the params, if it lies inside the arguments of a call."""
    if fault is None or body.get("method") != CALL:
        return None
    # A name at fault is pointed at by the object that has it; the name `arguments` twice is not inside.
    inside = fault.pointer == _ARGUMENTS and fault.what != "duplicate key"
    if not inside and not fault.pointer.startswith(f"{_ARGUMENTS}/"):
        return None
    return fault.pointer.removeprefix("/params")[:MAX_POINTER], fault.what


def _is_id(value: Any) -> bool:
    if type(value) is int:
        return -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER
    return isinstance(value, str) and len(value) <= MAX_ID


def _is_name(value: Any, limit: int = MAX_NAME) -> bool:
    if not isinstance(value, str) or not 0 < len(value) <= limit:
        return False
    return value.isprintable() if value.isascii() else value == printable(value)


def result(id_: Id, value: Any) -> bytes:
    """A result response, one line. `value` may hold orjson.Fragment for bytes passed unchanged."""
    return orjson.dumps({"jsonrpc": "2.0", "id": id_, "result": value}) + b"\n"


def error(id_: Id | None, code: int, message: str, data: Any = None) -> bytes:
    """An error response, one line."""
    body: dict[str, Any] = {"code": code, "message": message}
    if data is not None:
        body["data"] = data
    return orjson.dumps({"jsonrpc": "2.0", "id": id_, "error": body}) + b"\n"


def failure(id_: Id, value: Any) -> bytes:
    """An error response with this error object, one line."""
    return orjson.dumps({"jsonrpc": "2.0", "id": id_, "error": value}) + b"\n"


def error_of(id_: Id, raw: bytes) -> bytes:
    """An error response whose error object is passed unchanged."""
    return orjson.dumps({"jsonrpc": "2.0", "id": id_, "error": orjson.Fragment(raw)}) + b"\n"


def notification(method: str, params: Mapping[str, Any] | orjson.Fragment) -> bytes:
    """A notification, one line."""
    return orjson.dumps({"jsonrpc": "2.0", "method": method, "params": params}) + b"\n"


def request(id_: Id, method: str, params: Mapping[str, Any] | orjson.Fragment) -> bytes:
    """A request, one line."""
    return orjson.dumps({"jsonrpc": "2.0", "id": id_, "method": method, "params": params}) + b"\n"


def stamped(value: Mapping[str, Any], server: Mapping[str, Any], *, modern: bool) -> dict[str, Any]:
    """Guard's own result with what its era asks for: `resultType` and who serves."""
    if not modern:
        return dict(value)
    meta = {**value.get("_meta", {}), eras.SERVER_INFO: server}
    return {**value, "resultType": "complete", "_meta": meta}
