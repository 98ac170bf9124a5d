"""JSON objects in a stream of bytes, each behind its length in network byte order."""

from __future__ import annotations

__all__ = ["FramedJsonReader"]

import json
from typing import Any, ClassVar

from reverseproxy.errors import WireError


class FramedJsonReader:
    """
    Takes objects out of a stream of bytes.

    It keeps no more than the longest of them, and what came with the last one.  A subclass says
    how long they may be, and how to put what is wrong.

    @cvar prefix: bytes of a length.
    @cvar most: the longest object in bytes.
    """

    prefix: ClassVar[int]
    most: ClassVar[int]

    def __init__(self) -> None:
        self._data = bytearray()

    def too_long(self, size: int) -> str:
        """Say that an object of so many bytes is announced."""
        raise NotImplementedError

    def no_object(self, body: bytes) -> str:
        """Say that these bytes are none."""
        raise NotImplementedError

    def feed(self, data: bytes) -> None:
        """Take in some bytes."""
        self._data += data

    def next(self) -> dict[str, Any] | None:
        """
        Take the next object out.

        @return: L{None} if it is not complete.
        @raise WireError: if it is none.
        """
        data, prefix = self._data, self.prefix
        if len(data) < prefix:
            return None
        size = int.from_bytes(data[:prefix], "big")
        if size > self.most:
            raise WireError(self.too_long(size))
        if len(data) < prefix + size:
            return None
        body = bytes(data[prefix : prefix + size])
        del data[: prefix + size]
        try:
            message = json.loads(body)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            raise WireError(self.no_object(body))
        return message
