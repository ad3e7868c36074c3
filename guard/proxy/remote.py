"""A tool server behind a URL, spoken to over Streamable HTTP, in both eras.

Each request is a POST of its own. Redirects are never followed, nothing is sent twice, and an
answer counts only if it is the answer to this very request.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping
from typing import Any, Final

from guard.core.errors import Reason, printable
from guard.proxy import eras, sse, wire
from guard.proxy.endings import Failed, Flight, Unknown
from guard.proxy.http1 import Broken, Client, NotSent, Response
from guard.proxy.lines import MAX_MESSAGE
from guard.proxy.upstream import LISTEN_AGAIN_SECONDS, LISTEN_SECONDS, ServerError, Upstream

SESSION: Final = "mcp-session-id"
STOP_SECONDS: Final = 2.0
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
        self._posts: dict[int, asyncio.Task[None]] = {}
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
        tasks = [*self._posts.values(), *self._aside]
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
        headers, line = self._headers(method, params, version), wire.request(id_, method, params)
        post = asyncio.ensure_future(self._exchange(id_, method, headers, line))
        self._posts[id_] = post
        post.add_done_callback(lambda _: self._posts.pop(id_, None))
        return None

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

    async def _exchange(self, id_: int, method: str, headers: list[tuple[str, str]], line: bytes) -> None:
        """One POST and its answer; at its end the flight has one."""
        flight = self._flights[id_]
        try:
            response = await self._client.request("POST", headers, line)
        except (NotSent, ValueError) as error:  # ValueError: a header field that cannot be sent
            self.reachable = self.reachable and error.__cause__ is None
            flight.end(Failed(Reason.UPSTREAM_UNAVAILABLE))
            return
        except Broken:
            flight.end(Unknown(Reason.UPSTREAM_UNAVAILABLE))
            return
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
        if response.status == _NOT_FOUND and self._session is not None and method != "initialize":
            flight.end(Unknown(Reason.UPSTREAM_UNAVAILABLE))
            self._gone()  # the server forgot the session: the next call begins a new one
            return
        if response.headers.get("content-encoding", "identity") != "identity":
            raise ValueError("compressed, though nobody asked for it")
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "application/json":
            self._hear_bytes(await response.read(MAX_MESSAGE), only=id_)
        elif kind == sse.CONTENT_TYPE and response.status == _OK:
            await self._hear_stream(response, id_, flight)

    async def _hear_stream(self, response: Response, only: int, flight: Flight | None) -> None:
        events = sse.Events()
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
        if (post := self._posts.get(id_)) is not None:
            post.cancel()
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
        pause = LISTEN_AGAIN_SECONDS
        while not self._silent:
            with contextlib.suppress(Exception):
                response = await self._client.request("GET", self._headers("", {}, self.version))
                try:
                    if response.status != _OK:
                        return
                    await self._hear_stream(response, 0, None)
                finally:
                    response.close()
            await asyncio.sleep(pause)
            pause = min(2 * pause, LISTEN_SECONDS)
            self._on_list_changed()
