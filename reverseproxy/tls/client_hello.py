"""
A parser for what a TLS client asks for in its first message.

A server with several certificates must choose before the handshake begins: by
the time OpenSSL reports the client's ALPN list, it has committed itself to a
certificate, and it applies a context's versions, curves and verification only
to connections that start out with that context.

Nothing is verified here.  A malformed hello asks for nothing, and is left to
OpenSSL to refuse.
"""

from __future__ import annotations

__all__ = ["MAX_HELLO", "ClientHello", "ClientHelloReader"]

from typing import Final, NamedTuple

MAX_HELLO: Final = 32768
"""Bytes of a connection that are looked at; hellos in use have two thousand at most."""

_HANDSHAKE: Final = 22
_CLIENT_HELLO: Final = 1
_SERVER_NAME: Final = 0
_ALPN: Final = 16


class ClientHello(NamedTuple):
    """
    What a client asks for in its handshake.

    @ivar server_name: the host name that it wants to reach, in lower case and
        without a final dot; empty if it names none.
    @ivar alpn: the application protocols that it offers, in its order.
    """

    server_name: str = ""
    alpn: tuple[str, ...] = ()


class _Malformed(Exception):
    """The bytes are not a client hello."""


class _Cursor:
    """Reads TLS's length-prefixed fields."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def __bool__(self) -> bool:
        return self._position < len(self._data)

    def take(self, length: int) -> bytes:
        end = self._position + length
        if end > len(self._data):
            raise _Malformed
        field = self._data[self._position : end]
        self._position = end
        return field

    def integer(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> _Cursor:
        """A field whose length comes first, in C{size} bytes."""
        return _Cursor(self.take(self.integer(size)))

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._position)


class ClientHelloReader:
    """Reads a client hello from a connection's first bytes, in any pieces."""

    def __init__(self) -> None:
        self._seen = 0
        self._record = bytearray()
        self._message = bytearray()

    def feed(self, data: bytes) -> ClientHello | None:
        """
        Parse more bytes.

        @param data: the next bytes of the connection.
        @return: what the client asks for, or L{None} if more bytes are needed.
        """
        self._seen += len(data)
        self._record += data
        try:
            if self._message_complete():
                return _parse(bytes(self._message))
        except _Malformed:
            return ClientHello()
        return ClientHello() if self._seen >= MAX_HELLO else None

    def _message_complete(self) -> bool:
        """Move whole records' payload to the message; return whether that is complete."""
        record = self._record
        while record:
            if record[0] != _HANDSHAKE:
                raise _Malformed
            end = 5 + int.from_bytes(record[3:5], "big")
            if len(record) < 5 or len(record) < end:
                return False
            self._message += record[5:end]
            del record[:end]
            message = self._message
            if message and message[0] != _CLIENT_HELLO:
                raise _Malformed
            if len(message) >= 4 and len(message) >= 4 + int.from_bytes(message[1:4], "big"):
                return True
        return False


def _parse(message: bytes) -> ClientHello:
    body = _Cursor(message[1:]).vector(3)
    body.take(2 + 32)  # version, random
    body.vector(1)  # session id
    body.vector(2)  # cipher suites
    body.vector(1)  # compression methods
    server_name = ""
    alpn: list[str] = []
    extensions = body.vector(2) if body else body
    while extensions:
        kind = extensions.integer(2)
        extension = extensions.vector(2)
        if kind == _SERVER_NAME:
            names = extension.vector(2)
            if names.integer(1) == 0:
                server_name = _text(names.vector(2).rest()).rstrip(".").lower()
        elif kind == _ALPN:
            protocols = extension.vector(2)
            while protocols:
                alpn.append(_text(protocols.vector(1).rest()))
    return ClientHello(server_name, tuple(alpn))


def _text(data: bytes) -> str:
    # Every byte sequence maps to a text of its own; those in use are ASCII.
    return data.decode("latin-1")
