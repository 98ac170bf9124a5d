"""
What the processes tell each other: JSON objects, each behind its length; pure.

Both ends are ours, and of the same user.  What comes is checked all the same,
so that a mistake shows where it is made.
"""

from __future__ import annotations

__all__ = ["MAX_MESSAGE", "Message", "MessageReader", "encode"]

import json
from collections.abc import Mapping
from typing import Any, Final

from reverseproxy.errors import WireError

Message = Mapping[str, Any]

MAX_MESSAGE: Final = 4 * 1024 * 1024
"""Bytes of a message at the most."""

_SIZE: Final = 4


def encode(message: Message) -> bytes:
    """
    Make a message's bytes.

    @raise WireError: if it has more than L{MAX_MESSAGE}.
    """
    body = json.dumps(message, separators=(",", ":")).encode("ascii")
    if len(body) > MAX_MESSAGE:
        raise WireError(f"a message of {len(body)} bytes can't be sent to another process")
    return len(body).to_bytes(_SIZE, "big") + body


class MessageReader:
    """Takes messages out of a stream of bytes."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> None:
        """Take in some bytes."""
        self._data += data

    def next(self) -> Message | None:
        """
        Take the next message out.

        @return: L{None} if it is not complete.
        @raise WireError: if it is none.
        """
        data = self._data
        if len(data) < _SIZE:
            return None
        size = int.from_bytes(data[:_SIZE], "big")
        if size > MAX_MESSAGE:
            raise WireError(f"a message of {size} bytes from another process, beginning with {data[:16]!r}")
        if len(data) < _SIZE + size:
            return None
        body = bytes(data[_SIZE : _SIZE + size])
        del data[: _SIZE + size]
        try:
            message = json.loads(body)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            raise WireError(f"a message from another process is no JSON object: {body[:24]!r}")
        return message

    def rest(self) -> bytes:
        """Take out all that has come behind the last message."""
        data, self._data = bytes(self._data), bytearray()
        return data
