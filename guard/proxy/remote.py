"""A tool server behind a URL, spoken to over Streamable HTTP, in both eras.

Each request is a POST of its own. Redirects are never followed, nothing is sent twice, and an
answer counts only if it is the answer to this very request.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from guard.core.errors import Reason, printable
from guard.proxy import eras, sse, wire
from guard.proxy.endings import Failed, Flight, Unknown
from guard.proxy.http1 import Broken, Client, NotSent, Response
from guard.proxy.lines import MAX_MESSAGE
from guard.proxy.response import MAX_WAITING
from guard.proxy.upstream import LISTEN_AGAIN_SECONDS, LISTEN_SECONDS, ServerError, Upstream

SESSION: Final = "mcp-session-id"
LAST_EVENT: Final = "last-event-id"
STOP_SECONDS: Final = 2.0
RETRY_SECONDS: Final = 1.0
"""How long a stream that broke off is left alone, where its server does not say."""
LEAST_RETRY_SECONDS: Final = 0.05
MAX_RETRY_SECONDS: Final = 60.0
MAX_HEADS: Final = 1024
"""Heads of requests that are kept ready."""
MAX_ASIDE: Final = 64
"""Notifications and answers on their way at once; more are dropped."""
MAX_SESSION_ID: Final = 512
MAX_ACCEPTED: Final = 64 * 1024
"""Bytes of the answer to a notification that are read."""
_OK: Final = 200
_NOT_FOUND: Final = 404
_REFUSED: Final = frozenset({401, 403})
_NAMED: Final = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}


class Remote(Upstream):
    """A tool server behind a URL.

    Args:
        url: the MCP endpoint.
        client: makes the requests; shared by everybody who speaks to this server.
        headers: sent with every request.
        more: as Upstream.
    """

    def __init__(
        self, url: str, *, client: Client, headers: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        super().__init__(printable(url.partition("?")[0]), **more)
        self._client = client
        self._own = [
            ("accept", "application/json, text/event-stream"),
            ("content-type", "application/json"),
            *(headers or {}).items(),
        ]
        self._session: str | None = None
        self._status = 0
        self._posts: dict[int, Callable[[], object]] = {}  # how each is let go of
        self._heads: dict[tuple[str, str, str], bytes] = {}
        self._reading: set[asyncio.Task[None]] = set()
        self._aside: set[asyncio.Task[None]] = set()
        self._mirrored: dict[str, Mapping[tuple[str, ...], str]] = {}

    async def start(self) -> None:
        """Agree on an era. Raises ServerError."""
        await self._agree()
        self._attend()

    async def stop(self) -> None:
        """Let go of every request, and end the session."""
        self._deaf()
        self._silent = True
        self._end_all(Unknown(Reason.UPSTREAM_UNAVAILABLE))
        for let_go in [*self._posts.values()]:
            let_go()
        tasks = [*self._reading, *self._aside]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            with contextlib.suppress(Exception):  # it is let go of, whether or not it hears of it
                async with asyncio.timeout(STOP_SECONDS):
                    (await self._client.request("DELETE", self._headers("", {}, self.version))).close()

    def _no_handshake(self) -> ServerError:
        if self._status in _REFUSED:
            remedy = "it refuses Guard: see `headers` in the configuration"
        elif self._status:
            remedy = f"it answered with HTTP status {self._status}: is this the URL of its MCP endpoint?"
        else:
            remedy = "is the URL right, and does the server run?"
        return ServerError(
            "the tool server did not complete the MCP handshake", where=self.where, remedy=remedy
        )

    async def list_tools(self) -> list[dict[str, Any]]:
        """As Upstream, without tools whose `x-mcp-header` are not valid (2026-07-28, Streamable HTTP)."""
        tools = await super().list_tools()
        if not self.modern:
            return tools
        mirrored = {id(tool): eras.mirrored(tool.get("inputSchema")) for tool in tools}
        valid = [tool for tool in tools if mirrored[id(tool)] is not None]
        self._mirrored = {str(tool.get("name")): found for tool in valid if (found := mirrored[id(tool)])}
        return valid

    # -- sending -------------------------------------------------------------------------------

    async def _send(self, id_: int, method: str, params: Mapping[str, Any], version: str) -> Failed | None:
        flight, line = self._flights[id_], wire.request(id_, method, params)
        try:
            head = self._head(method, params, version)
        except ValueError:  # a header field that cannot be sent
            return Failed(Reason.UPSTREAM_UNAVAILABLE)
        response = self._client.begin(head, line) if method != "initialize" else None
        if response is None:
            self._follow(id_, self._exchange(id_, method, head, line, flight))
        else:
            response.on_wake = lambda: self._came(response, id_, method, flight)
            self._posts[id_] = response.close
        return None

    def _head(self, method: str, params: Mapping[str, Any], version: str) -> bytes:
        """The head of a request, made once for each method and name."""
        name = params.get(_NAMED[method], "") if method in _NAMED else ""
        if not isinstance(name, str) or name in self._mirrored or method == "initialize":
            return self._client.prepare("POST", self._headers(method, params, version))
        key = (method, name, version)
        head = self._heads.get(key)
        if head is None:
            head = self._client.prepare("POST", self._headers(method, params, version))
            if len(self._heads) >= MAX_HEADS:
                self._heads.clear()
            self._heads[key] = head
        return head

    def _follow(self, id_: int, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._reading.add(task)
        self._posts[id_] = task.cancel
        task.add_done_callback(lambda done: self._followed(id_, done))

    def _followed(self, id_: int, task: asyncio.Task[None]) -> None:
        self._reading.discard(task)
        self._posts.pop(id_, None)

    def _came(self, response: Response, id_: int, method: str, flight: Flight) -> None:
        """Something of an answer came. A small whole one is taken here; for any other there is a task."""
        if not response.status or _is_plain(response):
            try:
                body = response.take()
            except Broken:
                self._posts.pop(id_, None)
                flight.end(Unknown(Reason.UPSTREAM_UNAVAILABLE))
                return
            if body is not None:
                self._posts.pop(id_, None)
                self._status, self.reachable = response.status, True
                try:
                    self._hear_bytes(body, only=id_)
                except Exception:  # noqa: BLE001 - whatever broke, it was sent
                    flight.end(Unknown(Reason.UPSTREAM_UNAVAILABLE))
                flight.end(Unknown(Reason.UNEXPECTED))  # an answer came, and not to this request
                return
            if response.waiting <= MAX_WAITING:
                return
        response.on_wake = None
        self._follow(id_, self._read_out(response, id_, method, flight))

    def _headers(self, method: str, params: Mapping[str, Any], version: str) -> list[tuple[str, str]]:
        headers = list(self._own)
        if version:
            headers.append(("mcp-protocol-version", version))
        if version in eras.MODERN:
            headers.append(("mcp-method", method))
            if method in _NAMED:
                name = params[_NAMED[method]]
                headers.append(("mcp-name", eras.header_value(name)))
                if mirrored := self._mirrored.get(name):
                    headers += eras.param_headers(mirrored, params.get("arguments", {})).items()
        elif self._session is not None:
            headers.append((SESSION, self._session))
        return headers

    async def _exchange(self, id_: int, method: str, head: bytes, line: bytes, flight: Flight) -> None:
        """One POST and its answer; at its end the flight has one."""
        try:
            response = await self._client.send(head, line)
        except NotSent as error:
            self.reachable = self.reachable and error.__cause__ is None
            flight.end(Failed(Reason.UPSTREAM_UNAVAILABLE))
        except Broken:
            flight.end(Unknown(Reason.UPSTREAM_UNAVAILABLE))
        else:
            await self._read_out(response, id_, method, flight)

    async def _read_out(self, response: Response, id_: int, method: str, flight: Flight) -> None:
        try:
            await self._read(response, id_, method, flight)
        except Exception:  # noqa: BLE001 - whatever broke, it was sent
            flight.end(Unknown(Reason.UPSTREAM_UNAVAILABLE))
        finally:
            response.close()
        flight.end(Unknown(Reason.UNEXPECTED))  # an answer came, and not to this request

    async def _read(self, response: Response, id_: int, method: str, flight: Flight) -> None:
        self._status = response.status
        self.reachable = True
        if method == "initialize" and (session := response.headers.get(SESSION)):
            if not (len(session) <= MAX_SESSION_ID and session.isascii() and session.isprintable()):
                raise ValueError("the session id is not visible ASCII")
            self._session = session
            self._heads.clear()
        if response.status == _NOT_FOUND and self._session is not None and method != "initialize":
            flight.end(Unknown(Reason.UPSTREAM_UNAVAILABLE))
            self._gone()  # the server forgot the session: the next call begins a new one
            return
        if response.headers.get("content-encoding", "identity") != "identity":
            raise ValueError("compressed, though nobody asked for it")
        kind = _kind(response)
        if kind == "application/json":
            self._hear_bytes(await response.read(MAX_MESSAGE), only=id_)
        elif kind == sse.CONTENT_TYPE and response.status == _OK:
            await self._hear_out(response, id_, flight)

    async def _hear_out(self, response: Response, id_: int, flight: Flight) -> None:
        """A stream to its answer. Where it breaks off it is taken up again, from its last event on.

        Nothing is sent a second time: a GET asks for what the server still has to say (2025-06-18 and
        2025-11-25, Streamable HTTP, "Resumability and Redelivery").
        """
        events, last = sse.Events(), b""
        while True:
            broken: Broken | None = None
            try:
                await self._hear_stream(response, events, id_, flight)
            except Broken as failure:
                broken = failure
            finally:
                response.close()
            last = events.last_id or last
            if flight.ending is None or flight.ending.done():
                return
            if self.modern or not last:
                if broken is not None:
                    raise broken
                return
            if flight.on_away is not None and events.retry is not None:
                flight.on_away(events.retry)
            found = await self._again(last, events.retry)
            if found is None:
                raise broken or Broken("it ended before its answer, and cannot be taken up again")
            response, events = found, sse.Events(retry=events.retry)

    async def _again(self, last: bytes, retry: int | None) -> Response | None:
        """The rest of a stream; None if the server does not give it."""
        pause = (
            RETRY_SECONDS if retry is None else min(max(retry / 1000, LEAST_RETRY_SECONDS), MAX_RETRY_SECONDS)
        )
        headers = [*self._headers("", {}, self.version), (LAST_EVENT, last.decode("latin-1"))]
        while True:
            await asyncio.sleep(pause)
            try:
                response = await self._client.request("GET", headers)
            except (NotSent, Broken):
                pause = min(2 * pause, MAX_RETRY_SECONDS)
                continue
            if response.status == _OK and _kind(response) == sse.CONTENT_TYPE:
                return response
            response.close()
            return None

    async def _hear_stream(
        self, response: Response, events: sse.Events, only: int, flight: Flight | None
    ) -> None:
        async for piece in response:
            for data in events.feed(piece):
                self._hear_bytes(data, only=only)
            if flight is not None and flight.ending is not None and flight.ending.done():
                return

    def _notify(self, method: str, params: Mapping[str, Any]) -> None:
        self._beside(
            self._post(self._headers(method, params, self.version), wire.notification(method, params))
        )

    def _answer(self, line: bytes) -> None:
        self._beside(self._post(self._headers("", {}, self.version), line))

    def _abandon(self, id_: int, method: str) -> None:
        """2026-07-28: closing the stream says it; before that, a notification does."""
        if (let_go := self._posts.pop(id_, None)) is not None:
            let_go()
        if not self.modern and method != "initialize" and self.version:
            self._notify("notifications/cancelled", {"requestId": id_})

    async def _post(self, headers: list[tuple[str, str]], line: bytes) -> None:
        with contextlib.suppress(Exception):  # nobody waits for what a notification is answered with
            async with asyncio.timeout(self._timeout):
                response = await self._client.request("POST", headers, line)
                try:
                    await response.read(MAX_ACCEPTED)  # so that the connection can be used again
                finally:
                    response.close()

    def _beside(self, work: Coroutine[Any, Any, None]) -> None:
        if self._silent or len(self._aside) >= MAX_ASIDE:
            work.close()
            return
        task = asyncio.ensure_future(work)
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)

    # -- hearing of change ---------------------------------------------------------------------

    async def _listen(self) -> None:
        """Before 2026-07-28 it is a GET stream, opened again where it ends."""
        if self.modern:
            await super()._listen()
            return
        pause, last = LISTEN_AGAIN_SECONDS, b""
        while not self._silent:
            events = sse.Events()
            with contextlib.suppress(Exception):
                headers = self._headers("", {}, self.version)
                response = await self._client.request(
                    "GET", [*headers, (LAST_EVENT, last.decode("latin-1"))] if last else headers
                )
                try:
                    if response.status != _OK and not last:
                        return
                    last = b""  # of a server that does not have it any more nothing is taken up
                    if response.status == _OK:
                        await self._hear_stream(response, events, 0, None)
                finally:
                    response.close()
                    last = events.last_id
            await asyncio.sleep(pause if events.retry is None else max(pause, events.retry / 1000))
            pause = min(2 * pause, LISTEN_SECONDS)
            self._on_list_changed()


def _kind(response: Response) -> str:
    return response.headers.get("content-type", "").partition(";")[0].strip().lower()


def _is_plain(response: Response) -> bool:
    """Whether it is an answer as servers mostly give it: 200, and JSON as it is."""
    return (
        response.status == _OK
        and "content-encoding" not in response.headers
        and _kind(response) == "application/json"
    )
