"""
Messages between the supervisor and workers: JSON objects with a length prefix; pure.

Both ends are processes of this project and of the same user; messages are checked
nevertheless, so that a mistake shows where it is made.
"""

from __future__ import annotations

__all__ = ["MAX_MESSAGE", "Message", "ControlMessageReader", "encode", "encode_answer"]

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from reverseproxy.errors import WireError
from reverseproxy.wire.framed_json import FramedJsonReader

Message = Mapping[str, Any]

MAX_MESSAGE: Final = 64 * 1024 * 1024
"""
Bytes of a message at the most: more than the counters of the rules of some hundred listeners, which are the
longest answers.
"""

_SIZE: Final = 4


def encode(message: Message) -> bytes:
    """
    Encode a message.

    @raise WireError: if it has more than L{MAX_MESSAGE}.
    """
    body = json.dumps(message, separators=(",", ":")).encode("ascii")
    return _prefix(len(body)) + body


def encode_answer(number: int, value: Iterable[bytes]) -> list[bytes]:
    """
    Make a message of a worker's answer that has been encoded before, as it may be long.

    @param number: the number of the question.
    @param value: the answer as JSON, in pieces.
    @return: the message, in pieces.
    @raise WireError: if it has more than L{MAX_MESSAGE}.
    """
    body = [b'{"is":"answer","number":%d,"value":' % number, *value, b"}"]
    return [_prefix(sum(map(len, body))), *body]


def _prefix(size: int) -> bytes:
    if size > MAX_MESSAGE:
        raise WireError(f"a message of {size} bytes can't be sent to another process")
    return size.to_bytes(_SIZE, "big")


class ControlMessageReader(FramedJsonReader):
    """Parses messages from a stream of bytes."""

    prefix = _SIZE
    most = MAX_MESSAGE

    def too_long(self, size: int) -> str:
        """See L{FramedJsonReader}."""
        return f"a message of {size} bytes from another process, beginning with {self._data[:16]!r}"

    def no_object(self, body: bytes) -> str:
        """See L{FramedJsonReader}."""
        return f"a message from another process is no JSON object: {body[:24]!r}"

    def rest(self) -> bytes:
        """Return and remove the bytes behind the last message."""
        data, self._data = bytes(self._data), bytearray()
        return data
