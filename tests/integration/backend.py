"""
The HTTP service behind the proxy in the scenario tests, as an ASGI application.

C{/echo} sends back the request's body and its C{x-id}; C{/bytes?n=} a body of a
known length; C{/chunks?n=&size=} one of unknown length in pieces; C{/early}
answers without reading the body; C{/flaky?key=&n=} fails C{n} times; C{/show...}
tells what was asked for; C{/hold?key=} waits for C{/release?key=}, and
C{/held?key=&n=} until C{n} requests are held; a WebSocket on C{/ws} echoes.
"""

from __future__ import annotations

__all__ = ["application", "pattern"]

# uvicorn runs on asyncio, so that its application has to as well
import asyncio
import os
from collections import defaultdict
from typing import Any
from urllib.parse import parse_qsl

NAME = os.environ.get("REVERSEPROXY_BACKEND", "backend").encode()


def pattern(length: int) -> bytes:
    """Bytes that show whether a piece of them is missing or doubled."""
    block = b"".join(b"%08x" % number for number in range(0, length + 8, 8))
    return block[:length]


class _Held:
    def __init__(self) -> None:
        self.count = 0
        self.released = asyncio.Event()
        self.changed = asyncio.Condition()


_flaky: dict[str, int] = {}
_held: defaultdict[str, _Held] = defaultdict(_Held)


async def _body(receive: Any) -> bytes:
    pieces = []
    while True:
        message = await receive()
        pieces.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(pieces)


async def _start(send: Any, status: int, *headers: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"x-backend", NAME), *headers]})


async def _answer(send: Any, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    await _start(send, status, (b"content-length", b"%d" % len(body)), *headers)
    await send({"type": "http.response.body", "body": body})


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Serve one request, one WebSocket or the lifespan."""
    if scope["type"] == "websocket":
        await _websocket(receive, send)
        return
    query = dict(parse_qsl(scope["query_string"].decode()))
    headers = dict(scope["headers"])
    match scope["path"]:
        case "/echo":
            body = await _body(receive)
            await _answer(send, 200, body, (b"x-id", headers.get(b"x-id", b"")))
        case "/headers":
            lines = [b"%s: %s" % header for header in scope["headers"]]
            await _answer(send, 200, b"\n".join(lines))
        case "/bytes":
            await _answer(send, 200, pattern(int(query["n"])))
        case "/chunks":
            await _start(send, 200)
            piece = pattern(int(query["size"]))
            for _ in range(int(query["n"])):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        case "/flaky":
            attempts = _flaky[query["key"]] = _flaky.get(query["key"], 0) + 1
            await _answer(send, 503 if attempts <= int(query["n"]) else 200, b"%d" % attempts)
        case path if path.startswith("/show"):
            line = b"%s %s?%s" % (scope["method"].encode(), scope["raw_path"], scope["query_string"])
            lines = [b"%s: %s" % header for header in scope["headers"]]
            await _answer(send, 200, b"\n".join([line, *lines]))
        case "/early":
            await _answer(send, 413, b"too much", (b"connection", b"close"))
        case "/hold":
            await _body(receive)
            held = _held[query["key"]]
            async with held.changed:
                held.count += 1
                held.changed.notify_all()
            await held.released.wait()
            await _answer(send, 200, headers.get(b"x-id", b""))
        case "/held":
            held, wanted = _held[query["key"]], int(query["n"])
            async with held.changed:
                await held.changed.wait_for(lambda: held.count >= wanted)
            await _answer(send, 200, b"%d" % held.count)
        case "/release":
            _held[query["key"]].released.set()
            await _answer(send, 200, b"released")
        case _:
            await _answer(send, 200, b"backend " + NAME, (b"x-id", headers.get(b"x-id", b"")))


async def _websocket(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        kind = "bytes" if message.get("bytes") is not None else "text"
        await send({"type": "websocket.send", kind: message[kind]})
