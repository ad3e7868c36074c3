"""A tool server with every feature of MCP, in either era, over stdio or HTTP. Standard library only.

It does as it is told by whoever calls it: the tool `do` takes a list of acts in its arguments, and the
book (`--book`, JSON, read anew at every request) has the lists, the contents, and acts for what is read
or got. Everything that it receives is appended to `--log`, one line of JSON each, with `_pid` added and,
over HTTP, `_session`; a stream that the other side closed is a line with `_closed`.

Acts, one after the other; the last word is the answer:

- {"say": MESSAGE}, {"raw": TEXT}: on the stream of this request, `$TOKEN` put in;
- {"stream": MESSAGE}: on the session's GET stream, where the server is behind HTTP; else as "say";
- {"ask": METHOD, "params": {}}: ask the client, wait for its answer and note it; with "times": n so often
  at once; with "leave": true nobody waits;
- {"log": LEVEL, "data": ANY}: a log message, in 2026-07-28 only if the request asks for any, or "rude";
- {"progress": NUMBER}; {"update": URI}; {"changed": "resources"}: to whoever asked for it, or "rude";
- {"sleep": SECONDS}; {"appears": PATH}: until there is such a file; {"until": METHOD}: until such a
  message came, since the server began;
- {"input": REQUESTS, "state": TEXT}: ask for input, unless this is a retry;
- {"answer": RESULT}, {"error": ERROR}, {"exact": TEXT} (a result's bytes). Without any, what was noted.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import select
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any, Final

MODERN: Final = "2026-07-28"
META: Final = "io.modelcontextprotocol/"
CACHING: Final = {"ttlMs": 5000, "cacheScope": "public"}
LISTS: Final = {
    "tools/list": "tools",
    "prompts/list": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
}
Send = Callable[[dict[str, Any]], None]


@dataclass
class Session:
    """Whoever is behind one process, or one `Mcp-Session-Id`."""

    send: Send
    subscribed: set[str] = field(default_factory=set)


class Featured:
    """The server.

    Attributes:
        listening: the open subscriptions of 2026-07-28: the id, what is wanted, and the way there.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.modern = options.era == "modern"
        self.listening: list[tuple[Any, dict[str, Any], Send]] = []
        self.waiting: dict[str, queue.Queue[dict[str, Any]]] = {}
        self.heard: list[str] = []
        self.news = threading.Condition()
        self.ids = count(1)
        self.lock = threading.Lock()

    def book(self) -> dict[str, Any]:
        found = json.loads(self.options.book.read_text())
        assert isinstance(found, dict)
        return found

    def note(self, message: dict[str, Any], **more: Any) -> None:
        """Write it down, then let those know who wait for it."""
        about = {f"_{name}": value for name, value in more.items()}
        line = json.dumps({**message, "_pid": os.getpid(), **about}).encode() + b"\n"
        with self.lock, self.options.log.open("ab") as log:
            log.write(line)
        with self.news:
            self.heard.append(str(message.get("method")))
            self.news.notify_all()
        if "method" not in message and message.get("id") in self.waiting:
            self.waiting[message["id"]].put(message)

    def answer(self, message: dict[str, Any], session: Session, send: Send) -> None:
        """Answer one request, on the stream of it."""
        try:
            value = {"result": self.result(message, session, send)}
        except Refused as refused:
            value = {"error": refused.error}
        send({"jsonrpc": "2.0", "id": message["id"], **value})

    def result(self, message: dict[str, Any], session: Session, send: Send) -> Any:
        method, params, book = message["method"], message.get("params") or {}, self.book()
        complete = {"resultType": "complete"} if self.modern else {}
        if method in LISTS:
            caching = CACHING if self.modern else {}
            return {**complete, LISTS[method]: book.get(LISTS[method], []), **caching}
        found = book.get(method, {}).get(params.get("uri", params.get("name", "")))
        if isinstance(found, dict):
            return {**complete, **found}
        if isinstance(found, list) or (method, params.get("name")) == ("tools/call", "do"):
            acts = found if isinstance(found, list) else params["arguments"]["acts"]
            return Play(self, message, session, send).result(acts)
        if method == "initialize" and not self.modern:
            about = {"capabilities": book["capabilities"], "serverInfo": {"name": "featured", "version": "1"}}
            return {"protocolVersion": params["protocolVersion"], **about}
        if method == "server/discover" and self.modern:
            about = {"capabilities": book["capabilities"], "supportedVersions": [MODERN]}
            info = {f"{META}serverInfo": {"name": "featured", "version": "1"}}
            return {**complete, **about, **CACHING, "_meta": info}
        if method == "resources/read":
            raise Refused(-32602 if self.modern else -32002, "Resource not found", {"uri": params["uri"]})
        if method == "completion/complete":
            values = [f"{params['argument']['value']}{end}" for end in ("a", "b")]
            return {**complete, "completion": {"values": values, "total": 2, "hasMore": False}}
        if method in {"resources/subscribe", "resources/unsubscribe"} and not self.modern:
            (session.subscribed.add if method.endswith("/subscribe") else session.subscribed.discard)(
                params["uri"]
            )
            return {}
        if method in {"ping", "logging/setLevel"} and not self.modern:
            return {}
        if method == "tools/call":
            return {**complete, "content": [{"type": "text", "text": json.dumps(params.get("arguments"))}]}
        raise Refused(-32601, f"method not found: {method}")

    def tell(self, session: Session, method: str, params: dict[str, Any], wants: Callable[..., bool]) -> None:
        """Tell whoever asked: the session, or each subscription."""
        if not self.modern:
            session.send({"jsonrpc": "2.0", "method": method, "params": params})
        for id_, wanted, send in [*self.listening]:
            if wants(wanted):
                about = {"_meta": {f"{META}subscriptionId": id_}}
                send({"jsonrpc": "2.0", "method": method, "params": {**params, **about}})

    def listen(self, message: dict[str, Any], send: Send) -> None:
        """2026-07-28: acknowledged first, as far as the book does not say less."""
        wanted = message["params"]["notifications"]
        agreed = {name: wanted[name] for name in wanted if name not in self.book().get("disagrees", [])}
        self.listening.append((message["id"], agreed, send))
        params = {"_meta": {f"{META}subscriptionId": message["id"]}, "notifications": agreed}
        method = "notifications/subscriptions/acknowledged"
        send({"jsonrpc": "2.0", "method": method, "params": params})


class Refused(Exception):
    def __init__(self, code: int, text: str, data: Any = None) -> None:
        super().__init__(text)
        self.error = {"code": code, "message": text, **({} if data is None else {"data": data})}


class Play:
    """One request, answered as its acts say."""

    def __init__(self, server: Featured, message: dict[str, Any], session: Session, send: Send) -> None:
        self.server, self.message, self.session, self.send = server, message, session, send
        self.params = message.get("params") or {}
        self.meta = self.params.get("_meta", {})
        self.noted: list[Any] = []

    def result(self, acts: list[dict[str, Any]]) -> Any:
        complete = {"resultType": "complete"} if self.server.modern else {}
        for act in acts:
            if "answer" in act:
                return {**complete, **act["answer"]}
            if "exact" in act:
                return Exact(act["exact"])
            if "error" in act:
                raise Refused(*act["error"])
            if "input" in act:
                if not {"inputResponses", "requestState"} & self.params.keys():
                    state = {"requestState": act["state"]} if "state" in act else {}
                    return {"resultType": "input_required", "inputRequests": act["input"], **state}
                self.noted.append(
                    {name: self.params.get(name) for name in ("inputResponses", "requestState")}
                )
            else:
                self.do(act)
        text = json.dumps(self.noted)
        return {
            **complete,
            "content": [{"type": "text", "text": text}],
            "structuredContent": {"noted": self.noted},
        }

    def do(self, act: dict[str, Any]) -> None:
        match act:
            case {"say": message}:
                self.send(self.filled(message))
            case {"raw": text}:
                self.send(Raw(text.replace("$TOKEN", json.dumps(self.meta.get("progressToken")))))
            case {"stream": message}:
                self.session.send(self.filled(message))
            case {"ask": method}:
                self.ask(method, act)
            case {"log": level}:
                if not self.server.modern or f"{META}logLevel" in self.meta or act.get("rude"):
                    params = {"level": level, "logger": "featured", "data": act.get("data")}
                    self.send({"jsonrpc": "2.0", "method": "notifications/message", "params": params})
            case {"progress": number}:
                params = {"progressToken": self.meta.get("progressToken"), "progress": number, "total": 9}
                self.send({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
            case {"sleep": seconds}:
                threading.Event().wait(seconds)
            case {"until": method}:
                with self.server.news:
                    self.server.news.wait_for(lambda: method in self.server.heard)
            case {"appears": path}:
                while not Path(path).exists():
                    threading.Event().wait(0.01)
            case _:
                self.tell(act)

    def tell(self, act: dict[str, Any]) -> None:
        """Tell whoever asked for it; being rude, everybody."""
        rude = act.get("rude") is True
        match act:
            case {"update": uri}:
                if self.server.modern or rude or uri in self.session.subscribed:
                    params = {"uri": uri}
                    method = "notifications/resources/updated"
                    self.server.tell(
                        self.session,
                        method,
                        params,
                        lambda w: rude or uri in w.get("resourceSubscriptions", ()),
                    )
            case {"changed": kind}:
                method = f"notifications/{kind}/list_changed"
                self.server.tell(
                    self.session, method, {}, lambda w: rude or w.get(f"{kind}ListChanged") is True
                )
            case _:
                raise Refused(-32602, f"no such act: {act}")

    def ask(self, method: str, act: dict[str, Any]) -> None:
        asked = [f"s-{next(self.server.ids)}" for _ in range(act.get("times", 1))]
        self.server.waiting |= {id_: queue.Queue() for id_ in asked}
        for id_ in asked:
            request = {"jsonrpc": "2.0", "id": id_, "method": method}
            self.send(request if act.get("params") is None else {**request, "params": act["params"]})
        if not act.get("leave"):
            answers = [self.server.waiting[id_].get() for id_ in asked]
            self.noted += [
                {name: found[name] for name in found if name in {"result", "error"}} for found in answers
            ]

    def filled(self, message: dict[str, Any]) -> dict[str, Any]:
        text = json.dumps(message).replace('"$TOKEN"', json.dumps(self.meta.get("progressToken")))
        found = json.loads(text)
        assert isinstance(found, dict)
        return found


class Exact(dict[str, Any]):
    """A result that is written as these bytes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text


class Raw(dict[str, Any]):
    """A line that is written as it is."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text


def written(message: dict[str, Any]) -> bytes:
    if isinstance(message, Raw):
        return message.text.encode("latin-1")
    if isinstance(message.get("result"), Exact):
        head = json.dumps({name: value for name, value in message.items() if name != "result"})
        return (head[:-1] + ', "result": ' + message["result"].text + "}").encode("latin-1")
    return json.dumps(message).encode()


# -- stdio -----------------------------------------------------------------------------------------------


def pipes(server: Featured) -> None:
    lock = threading.Lock()

    def send(message: dict[str, Any]) -> None:
        with lock:
            sys.stdout.buffer.write(written(message) + b"\n")
            sys.stdout.buffer.flush()

    session = Session(send)
    for line in sys.stdin.buffer:
        message = json.loads(line)
        server.note(message)
        if message.get("method") == "notifications/cancelled":
            gone = message["params"]["requestId"]
            server.listening = [one for one in server.listening if one[0] != gone]
        if "method" not in message or "id" not in message:
            continue
        if message["method"] == "subscriptions/listen" and server.modern:
            server.listen(message, send)
        else:
            threading.Thread(target=server.answer, args=(message, session, send), daemon=True).start()
    os._exit(0)


# -- HTTP ------------------------------------------------------------------------------------------------


class Web(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Listening

    def log_message(self, *_: Any) -> None:
        pass

    def whole(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def begin(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def event(self, message: dict[str, Any]) -> None:
        data = b"event: message\ndata: " + written(message) + b"\n\n"
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def until_closed(self) -> None:
        """Wait until the other side closes."""
        while True:
            select.select([self.connection], [], [])
            if not self.connection.recv(1, socket.MSG_PEEK):
                return

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        featured, id_ = self.server.featured, self.headers.get("Mcp-Session-Id")
        featured.note(message, session=id_)
        session = self.server.sessions.get(id_ or "")
        if session is None and not featured.modern and message.get("method") != "initialize":
            self.whole(400 if id_ is None else 404)
        elif "method" not in message or "id" not in message:
            self.whole(202)
        elif message["method"] == "subscriptions/listen" and featured.modern:
            self.begin()
            featured.listen(message, self.event)
            self.until_closed()
            featured.listening = [one for one in featured.listening if one[2] != self.event]
            featured.note({"method": None}, closed="subscriptions/listen", id=message["id"])
            self.close_connection = True
        else:
            self.reply(message, session or Session(lambda _: None))

    def reply(self, message: dict[str, Any], session: Session) -> None:
        """Answer, as a stream where anything is said before the answer."""
        begun = False

        def send(found: dict[str, Any]) -> None:
            nonlocal begun
            last = found.get("id") == message["id"] and "method" not in found and not isinstance(found, Raw)
            if last and not begun:
                more = {}
                if message["method"] == "initialize" and "result" in found:
                    more = {"Mcp_Session_Id": self.server.begin()}
                self.whole(200, written(found), Content_Type="application/json", **more)
                return
            if not begun:
                self.begin()
                begun = True
            self.event(found)
            if last:
                self.wfile.write(b"0\r\n\r\n")

        self.server.featured.answer(message, session, send)

    def do_GET(self) -> None:
        session = self.server.sessions.get(self.headers.get("Mcp-Session-Id") or "")
        if session is None:
            self.whole(405)
            return
        self.begin()
        session.send = self.event
        self.server.featured.note({"method": None}, opened="GET")
        self.until_closed()
        self.close_connection = True

    def do_DELETE(self) -> None:
        self.server.sessions.pop(self.headers.get("Mcp-Session-Id") or "", None)
        self.server.featured.note({"method": None}, ended=self.headers.get("Mcp-Session-Id"))
        self.whole(200)


class Listening(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, featured: Featured) -> None:
        super().__init__(("127.0.0.1", 0), Web)
        self.featured = featured
        self.sessions: dict[str, Session] = {}

    def handle_error(self, *_: Any) -> None:
        """The other side left."""

    def begin(self) -> str:
        id_ = os.urandom(16).hex()
        self.sessions[id_] = Session(lambda _: None)
        return id_


def main() -> None:
    parser = argparse.ArgumentParser()
    for each in ("--log", "--book", "--port-file"):
        parser.add_argument(each, type=Path, required=each != "--port-file")
    parser.add_argument("--era", choices=["modern", "legacy"], default="modern")
    options = parser.parse_args()
    server = Featured(options)
    if options.port_file is None:
        pipes(server)
        return
    listening = Listening(server)
    unfinished = options.port_file.with_suffix(".unfinished")
    unfinished.write_text(str(listening.server_address[1]))
    unfinished.replace(options.port_file)
    listening.serve_forever()


if __name__ == "__main__":
    main()
