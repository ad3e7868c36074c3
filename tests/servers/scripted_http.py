"""A tool server over Streamable HTTP that answers as it is told, raw, in either era. Standard library only.

It binds a free port of 127.0.0.1 and writes its number to `--port-file`; every path is its endpoint.
Everything that it receives is appended to `--log` before it is answered, one line of JSON each: the
message as it came, with `_headers` (lower-case names) and `_http` ("POST /mcp") added; a GET or DELETE,
or a body that is not a message (`_body`), has `"method": null`. When the other side closes an answer
that was still open, that is a line too: `"method": null` and `_closed`, the method that was answered.

`--answers` is a JSON list with one item for each `tools/call` (the last one serves all further ones);
an item is a list of acts. In every text `$ID`, `$TOKEN` and `$ARGUMENTS` are put in as JSON and
`$COMPLETE` as what the era's results begin with; its code points are the bytes.

- a string: the body of a 200 with application/json;
- {"event": text}: one event of an SSE stream, which the first one opens and the end of the acts ends;
- {"raw": text}: these bytes; {"status": 503, "headers": {}, "body": text}: any answer, with
  Content-Length unless the headers frame it;
- {"flood": n}: a valid result of exactly n bytes; with "chunked": true without Content-Length;
- {"sleep": s}; {"wait": "METHOD"} until such a message comes in after the call, in any session;
- {"hang": true}: nothing more, and the connection stays open; {"close": true}; {"exit": code}.

Acts that answer nothing close the connection. `--tools` is read again at every `tools/list`; when it
changes, `notifications/tools/list_changed` goes out on every stream that asked for it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

SERVER: Final = {"name": "scripted-http", "version": "1"}
CAPABILITIES: Final = {"tools": {"listChanged": True}}
MODERN: Final = "2026-07-28"
SUBSCRIPTION: Final = "io.modelcontextprotocol/subscriptionId"
SESSION: Final = "mcp-session-id"
CACHING: Final = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
COMPLETE: Final = '"resultType":"complete",'
ECHO: Final = '{"jsonrpc":"2.0","id":$ID,"result":{$COMPLETE"content":[{"type":"text","text":$ARGUMENTS}]}}'
FLOOD: Final = '{"jsonrpc":"2.0","id":$ID,"result":{$COMPLETE"content":[{"type":"text","text":"\0"}]}}'
NONE: Final[Mapping[str, Any]] = {}
JSON: Final = {"Content-Type": "application/json"}
STREAM: Final = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
POLL_SECONDS: Final = 0.05
MAX_HEAD: Final = 1024 * 1024


@dataclass(frozen=True)
class Request:
    verb: str
    path: str
    headers: Mapping[str, str]
    body: bytes


async def read_request(reader: asyncio.StreamReader) -> Request:
    """The next request; raises IncompleteReadError at the end, ValueError if it is not HTTP/1.1."""
    head = await reader.readuntil(b"\r\n\r\n")
    start, *fields = head.decode("latin-1").split("\r\n")[:-2]
    verb, path, protocol = start.split(" ")
    if protocol != "HTTP/1.1":
        raise ValueError(protocol)
    headers: dict[str, str] = {}
    for each in fields:
        name, value = each.lower().split(":")[0], each.split(":", 1)[1].strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    if "transfer-encoding" in headers:
        raise ValueError("this server takes no chunked requests")
    return Request(verb, path, headers, await reader.readexactly(int(headers.get("content-length", 0))))


class Exchange:
    """A request and its answer; `kept` while the connection may carry another one afterwards."""

    def __init__(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.request = request
        self.kept = request.headers.get("connection", "").lower() != "close"
        self.answered = False
        self._chunked = False
        self._ended = asyncio.Event()
        self._reader, self._writer = reader, writer
        self.flushed = writer.drain

    def write(self, data: bytes) -> None:
        self.answered = True
        self._writer.write(data)

    def head(self, status: int, headers: Mapping[str, Any]) -> None:
        phrase = HTTPStatus(status).phrase if status in {*HTTPStatus} else ""
        fields = {**headers} if self.kept else {**headers, "Connection": "close"}
        lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in fields.items())]
        self.write("\r\n".join([*lines, "", ""]).encode("latin-1"))

    def answer(self, status: int, body: bytes = b"", headers: Mapping[str, Any] = NONE) -> None:
        framed = {name.lower() for name in headers} & {"content-length", "transfer-encoding"}
        self.head(status, headers if framed else {**headers, "Content-Length": len(body)})
        self.write(body)

    def result(self, id_: Any, value: Mapping[str, Any], headers: Mapping[str, str] = JSON) -> None:
        self.answer(200, json.dumps({"jsonrpc": "2.0", "id": id_, "result": value}).encode(), headers)

    def error(self, status: int, id_: Any, code: int, text: str) -> None:
        body = {"jsonrpc": "2.0", "id": id_, "error": {"code": code, "message": text}}
        self.answer(status, json.dumps(body).encode(), JSON)

    def open(self, headers: Mapping[str, str] = STREAM) -> None:
        if not self._chunked:
            self.head(200, {**headers, "Transfer-Encoding": "chunked"})
            self._chunked = True

    def chunk(self, data: bytes) -> None:
        self.write(b"%x\r\n%b\r\n" % (len(data), data))

    def event(self, text: bytes) -> None:
        self.open()
        self.chunk(b"event: message\n" + b"".join(b"data: %b\n" % line for line in text.split(b"\n")) + b"\n")

    def notify(self, method: str, params: Mapping[str, Any]) -> None:
        self.event(json.dumps({"jsonrpc": "2.0", "method": method, "params": params}).encode())

    def end(self) -> None:
        """End the stream, if there is one."""
        if self._chunked:
            self._chunked = False
            self.write(b"0\r\n\r\n")
        self._ended.set()

    async def lasting(self) -> bool:
        """Wait until the answer is ended here, or closed there; whether it was closed there."""
        ends = {asyncio.ensure_future(each) for each in (self._ended.wait(), self._gone())}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for each in ends:
            each.cancel()
        self.kept = False  # what came meanwhile was thrown away
        return not self._ended.is_set()

    async def _gone(self) -> None:
        with suppress(ConnectionError):
            while await self._reader.read(MAX_HEAD):
                pass


class Scripted:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.modern = options.era == "modern"
        self.calls = 0
        self.answers = json.loads(options.answers.read_text()) if options.answers else []
        self.sessions: set[str] = set()
        self.streams: dict[object, tuple[Exchange, dict[str, Any]]] = {}
        self.heard: list[Any] = []
        self.news = asyncio.Condition()
        self.seen = self.tools_file() or (0, b"[]")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        writer.transport.set_write_buffer_limits(high=0)  # drained means handed to the system
        try:
            exchange = None
            while exchange is None or exchange.kept:
                exchange = Exchange(await read_request(reader), reader, writer)
                await self.hear(exchange, await self.note(exchange.request))
                await exchange.flushed()
        except (ValueError, LookupError, asyncio.LimitOverrunError) as error:
            self.log(malformed=repr(error))
            writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the other side left
        finally:
            writer.close()

    async def note(self, request: Request) -> dict[str, Any] | None:
        """Write down what came; the message in it, None for none."""
        http = f"{request.verb} {request.path}"
        try:
            message = json.loads(request.body.decode())
        except ValueError:
            message = None
        if request.verb != "POST" or not isinstance(message, dict):
            self.log(headers=request.headers, http=http, body=request.body.decode("latin-1"))
            return None
        self.log(request.body, headers=request.headers, http=http)
        async with self.news:
            self.heard.append(message.get("method"))
            self.news.notify_all()
        return message

    def log(self, message: bytes = b'{"method": null}', **about: Any) -> None:
        """One line; literals of the message stay as they came."""
        line = message.strip().replace(b"\r", b" ").replace(b"\n", b" ").removesuffix(b"}").strip()
        more = json.dumps({f"_{name}": value for name, value in about.items()}).encode()[1:]
        with self.options.log.open("ab") as log:
            log.write(line + (b"" if line == b"{" else b", ") + more + b"\n")

    async def hear(self, exchange: Exchange, message: dict[str, Any] | None) -> None:
        verb, options = exchange.request.verb, self.options
        absent = {"GET": options.no_get, "DELETE": options.no_sessions}.get(verb, True)
        if verb != "POST" and (self.modern or absent):
            exchange.answer(405, headers={"Allow": "POST"})
        elif verb == "POST" and message is None:
            exchange.error(400, None, -32700, "not a message")
        elif not self.modern and self.refused(exchange, message or {}):
            pass
        elif verb == "DELETE":
            self.forget({exchange.request.headers[SESSION]})
            exchange.answer(200)
        elif verb == "GET":
            await self.get(exchange)
        else:
            await self.take(exchange, message or {})

    def refused(self, exchange: Exchange, message: Mapping[str, Any]) -> bool:
        """Whether the request lacks its session (2025-11-25, transports, session management)."""
        session = exchange.request.headers.get(SESSION)
        if self.options.no_sessions or message.get("method") == "initialize" or session in self.sessions:
            return False
        exchange.error(400 if session is None else 404, None, -32600, "no such session")
        return True

    async def take(self, exchange: Exchange, message: dict[str, Any]) -> None:
        method, id_ = message.get("method"), message.get("id")
        params = message.get("params") or {}
        if method is None or id_ is None:
            exchange.answer(202)
        elif method == "tools/call":
            await self.call(exchange, message, params)
        elif method == "tools/list":
            tools = json.loads((self.tools_file() or self.seen)[1])
            exchange.result(id_, {"tools": tools, **(CACHING if self.modern else {})})
        elif method == "server/discover" and self.modern:
            exchange.result(id_, self.discovered())
        elif method == "subscriptions/listen" and self.modern:
            await self.listen(exchange, id_, params)
        elif method == "initialize" and not self.modern:
            self.initialize(exchange, id_, params)
        elif method == "ping" and not self.modern:
            exchange.result(id_, {})
        else:
            exchange.error(404 if self.modern else 200, id_, -32601, "method not found")

    def discovered(self) -> dict[str, Any]:
        return {
            **CACHING,
            "supportedVersions": [self.options.version or MODERN],
            "capabilities": CAPABILITIES,
            "_meta": {"io.modelcontextprotocol/serverInfo": SERVER},
        }

    def initialize(self, exchange: Exchange, id_: Any, params: Mapping[str, Any]) -> None:
        version = self.options.version or params["protocolVersion"]
        value = {"protocolVersion": version, "capabilities": CAPABILITIES, "serverInfo": SERVER}
        session = secrets.token_urlsafe(16)
        self.sessions.add(session)
        exchange.result(id_, value, JSON if self.options.no_sessions else {**JSON, "Mcp-Session-Id": session})

    async def call(self, exchange: Exchange, message: dict[str, Any], params: Mapping[str, Any]) -> None:
        acts = self.answers[min(self.calls, len(self.answers) - 1)] if self.answers else [ECHO]
        self.calls += 1
        if self.calls == self.options.forget_after:
            self.forget(set(self.sessions))
        mark = len(self.heard)
        token = (params.get("_meta") or {}).get("progressToken")
        arguments = json.dumps(json.dumps(params.get("arguments")))

        def fill(text: str) -> bytes:
            text = text.replace("$ID", json.dumps(message["id"])).replace("$TOKEN", json.dumps(token))
            text = text.replace("$COMPLETE", COMPLETE if self.modern else "")
            return text.replace("$ARGUMENTS", arguments).encode("latin-1")

        for act in acts:
            await exchange.flushed()
            if act in ({"close": True}, {"hang": True}):
                exchange.kept = False
                await (self.keep(exchange, "tools/call") if "hang" in act else exchange.flushed())
                return
            if isinstance(act, dict) and "wait" in act:
                async with self.news:
                    while act["wait"] not in self.heard[mark:]:
                        await self.news.wait()
            else:
                await perform(exchange, act, fill)
        exchange.end()
        exchange.kept &= exchange.answered

    async def keep(self, exchange: Exchange, what: str) -> None:
        """Keep the answer open."""
        if await exchange.lasting():
            self.log(closed=what, headers=exchange.request.headers)

    async def listen(self, exchange: Exchange, id_: Any, params: Mapping[str, Any]) -> None:
        """2026-07-28, subscriptions: acknowledged first, and each message names its subscription."""
        self.notice()  # an older change is not this stream's
        key, about = object(), {"_meta": {SUBSCRIPTION: id_}}
        asked = (params.get("notifications") or {}).get("toolsListChanged") is True
        honored = {"toolsListChanged": True} if asked else {}
        self.streams |= {key: (exchange, about)} if asked else {}
        exchange.notify("notifications/subscriptions/acknowledged", {**about, "notifications": honored})
        await self.stay(exchange, key, "subscriptions/listen")

    async def get(self, exchange: Exchange) -> None:
        """2025-11-25, transports: one stream a session; a newer one takes the place of the older."""
        self.notice()
        key: object = exchange.request.headers[SESSION] if not self.options.no_sessions else object()
        if key in self.streams:
            self.streams.pop(key)[0].end()
        self.streams[key] = (exchange, {})
        exchange.open()  # last, for a change that the client makes after it is this stream's
        await self.stay(exchange, key, "GET")

    async def stay(self, exchange: Exchange, key: object, what: str) -> None:
        try:
            await self.keep(exchange, what)
        finally:
            if self.streams.get(key, (None,))[0] is exchange:
                del self.streams[key]

    def forget(self, sessions: set[str]) -> None:
        self.sessions -= sessions
        for session in sessions & self.streams.keys():
            self.streams.pop(session)[0].end()

    def notice(self) -> None:
        """Tell it, if the tools changed."""
        now = self.tools_file()
        if now is not None and now != self.seen:
            self.seen = now
            for exchange, about in self.streams.values():
                exchange.notify("notifications/tools/list_changed", about)

    def tools_file(self) -> tuple[int, bytes] | None:
        """When it was written and what it holds; None while it is being written."""
        path: Path = self.options.tools
        before, data, after = path.stat().st_mtime_ns, path.read_bytes(), path.stat().st_mtime_ns
        try:
            json.loads(data)
        except ValueError:
            return None
        return (after, data) if before == after else None


async def perform(exchange: Exchange, act: Any, fill: Callable[[str], bytes]) -> None:
    """One act that needs nothing but its exchange."""
    match act:
        case str(text):
            exchange.answer(200, fill(text), JSON)
        case {"event": text}:
            exchange.event(fill(text))
        case {"raw": text}:
            exchange.write(fill(text))
        case {"status": status}:
            exchange.answer(status, fill(act.get("body", "")), act.get("headers", NONE))
        case {"flood": size}:
            start, end = fill(FLOOD).split(b"\0")
            body = start.ljust(size - len(end), b"a") + end
            if act.get("chunked"):
                exchange.open(JSON)
                exchange.chunk(body)
            else:
                exchange.answer(200, body, JSON)
        case {"sleep": seconds}:
            await asyncio.sleep(seconds)
        case {"exit": code}:
            os._exit(code)
        case _:
            raise SystemExit(f"no such act: {act}")


async def run(options: argparse.Namespace) -> None:
    scripted = Scripted(options)
    server = await asyncio.start_server(scripted.serve, "127.0.0.1", 0, limit=MAX_HEAD, backlog=1024)
    unfinished = options.port_file.with_suffix(".unfinished")
    unfinished.write_text(str(server.sockets[0].getsockname()[1]))
    unfinished.replace(options.port_file)
    async with server:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            scripted.notice()


def main() -> None:
    parser = argparse.ArgumentParser()
    for each in ("--port-file", "--log", "--tools", "--answers"):
        parser.add_argument(each, type=Path, required=each != "--answers")
    parser.add_argument("--era", choices=["modern", "legacy"], default="modern")
    parser.add_argument("--version")
    parser.add_argument("--no-get", action="store_true")
    parser.add_argument("--no-sessions", action="store_true")
    parser.add_argument("--forget-after", type=int)
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
