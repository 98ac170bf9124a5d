"""HTTP/1.1 as MOSN writes it; its HTTP library is fasthttp."""

from __future__ import annotations

__all__ = ["Http1Answerer", "Http1Asker", "Message", "MessageReader"]

from collections import deque
from dataclasses import dataclass
from functools import partial

from tests.mosn.talk import Answered, Answerer, Asker, Unexpected

COLLECTED = 4096
"""Bytes of a message that fasthttp writes at once; what is left of a large one follows in one more write."""


@dataclass
class Message:
    """
    A request or a response.

    @ivar fields: with names in lower case; the last one of a name.
    """

    line: bytes
    fields: dict[bytes, bytes]
    body: bytes = b""


class MessageReader:
    """Takes messages apart, with as little understanding as is needed."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[Message]:
        self._buffer += data
        messages = []
        while (message := self._next()) is not None:
            messages.append(message)
        return messages

    @property
    def empty(self) -> bool:
        return not self._buffer

    def _next(self) -> Message | None:
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return None
        line, *lines = head.split(b"\r\n")
        pairs = (each.partition(b":") for each in lines)
        message = Message(line, {name.strip().lower(): value.strip() for name, _, value in pairs})
        if message.fields.get(b"transfer-encoding", b"").lower() == b"chunked":
            body = _unchunk(rest)
        else:
            length = int(message.fields.get(b"content-length", b"0"))
            body = (rest[:length], rest[length:]) if len(rest) >= length else None
        if body is None:
            return None
        message.body, self._buffer = body
        return message


def _unchunk(data: bytes) -> tuple[bytes, bytes] | None:
    """A body in chunks, and what follows it; L{None} if there is more to come."""
    body = b""
    while True:
        size, end, data = data.partition(b"\r\n")
        if not end:
            return None
        length = int(size, 16)
        if len(data) < length + 2:
            return None
        body, data = body + data[:length], data[length + 2 :]
        if not length:
            return body, data


def _pieces(message: bytes) -> list[bytes]:
    first, rest = message[:COLLECTED], message[COLLECTED:]
    return [first, rest] if rest else [first]


class Http1Asker(Asker):
    """
    A client's or MOSN's end.

    @ivar at_once: MOSN's server without C{max_connections} knows no bound: its
        second "client" of a connection writes while the first one waits.
    """

    def __init__(self, at_once: int = 1) -> None:
        super().__init__()
        self.at_once = at_once
        self._reader = MessageReader()
        self._waiting: deque[Answered] = deque()

    def ask(self, body: bytes, answered: Answered) -> None:
        method = b"POST" if body else b"GET"
        head = [method + b" /echo HTTP/1.1", b"User-Agent: fake", b"Host: example.com"]
        if body:
            head += [b"Content-Type: application/octet-stream", b"Content-Length: %d" % len(body)]
        self._waiting.append(answered)
        self.pieces += _pieces(b"\r\n".join([*head, b"", body]))

    def feed(self, data: bytes) -> None:
        for answer in self._reader.feed(data):
            if not self._waiting:
                raise Unexpected(f"an answer that nobody has asked for: {answer.line!r}")
            if not answer.line.startswith(b"HTTP/1.1 200"):
                raise Unexpected(f"{answer.line!r}: {answer.body[:200]!r}")
            self._waiting.popleft()(answer.body)

    @property
    def under_way(self) -> int:
        return len(self._waiting)


class Http1Answerer(Answerer):
    """A service's or MOSN's end."""

    def __init__(self) -> None:
        super().__init__()
        self._reader = MessageReader()

    def feed(self, data: bytes) -> None:
        for request in self._reader.feed(data):
            self.answer(partial(self._respond, request.body))

    def _respond(self, body: bytes) -> None:
        head = [
            b"HTTP/1.1 200 OK",
            b"Server: fasthttp",
            b"Date: Tue, 14 Jul 2026 10:27:37 GMT",
            b"Content-Type: application/octet-stream",
            b"Content-Length: %d" % len(body),
        ]
        self.pieces += _pieces(b"\r\n".join([*head, b"", body]))
