"""The raw tool server over HTTP: httptools on asyncio's protocols, both eras, no session is looked at."""

from __future__ import annotations

import argparse
import asyncio
import os
from typing import Any

import httptools
import orjson
from tools import result, tools


class Echo(asyncio.Protocol):
    """One connection."""

    def __init__(self, offered: list[dict[str, Any]]) -> None:
        self._offered = offered
        self._parser = httptools.HttpRequestParser(self)
        self._body = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._body = b""

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        method = self._parser.get_method()
        if method != b"POST":
            status = b"405 Method Not Allowed" if method == b"GET" else b"200 OK"
            self._transport.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\n\r\n")
            return
        message = orjson.loads(self._body)
        found = result(message, self._offered)
        if found is None:
            self._transport.write(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n")
            return
        session = b"mcp-session-id: one\r\n" if message["method"] == "initialize" else b""
        body = orjson.dumps({"jsonrpc": "2.0", "id": message["id"], "result": found})
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\n\r\n"
        self._transport.write(head % (session, len(body)) + body)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cores", default="")
    parser.add_argument("--tools", type=int, default=1)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    if options.cores:
        os.sched_setaffinity(0, {int(core) for core in options.cores.split(",")})
    offered = tools(options.tools)
    server = await asyncio.get_running_loop().create_server(lambda: Echo(offered), "127.0.0.1", options.port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
