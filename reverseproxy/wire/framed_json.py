"""JSON objects in a stream of bytes, each prefixed with its length in network byte order."""

from __future__ import annotations

__all__ = ["FramedJsonReader"]

import json
from typing import Any, ClassVar

from reverseproxy.errors import WireError


class FramedJsonReader:
    """
    Reads objects from a stream of bytes.

    It buffers no more than the longest object and one read.  A subclass has the limits and the
    texts of errors.

    @cvar prefix: bytes of the length.
    @cvar most: bytes of the longest object.
    """

    prefix: ClassVar[int]
    most: ClassVar[int]

    def __init__(self) -> None:
        self._data = bytearray()

    def too_long(self, size: int) -> str:
        """Return the text of the error for an object of so many bytes."""
        raise NotImplementedError

    def no_object(self, body: bytes) -> str:
        """Return the text of the error for bytes that are no JSON object."""
        raise NotImplementedError

    def feed(self, data: bytes) -> None:
        """Add bytes to the buffer."""
        self._data += data

    def next(self) -> dict[str, Any] | None:
        """
        Return the next object.

        @return: L{None} if it is not complete.
        @raise WireError: if it is too long, or no JSON object.
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
