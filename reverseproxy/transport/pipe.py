"""
Bytes that go from one socket to another without coming here.

The kernel moves what a socket has received into a pipe, and from there to where
it is to be sent, by its pages: nothing is copied, which is most of the work for
a long body.
"""

from __future__ import annotations

__all__ = ["LEAST_SIZE", "PIPE_SIZE", "Pipe"]

import fcntl
import os
from contextlib import suppress
from errno import EPERM
from typing import Final

PIPE_SIZE: Final = 2**20
"""
Bytes that a pipe should have room for: all that users other than root may ask for.

That is room for so many pages, however little is in each of them.
"""

LEAST_SIZE: Final = 65536
"""Bytes of a pipe that nobody has changed.  Those of a user who has many are shorter."""

_FLAGS: Final = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


class Pipe:
    """
    A pipe that is empty whenever nobody uses it, so that one will do for all.

    @raise OSError: if there is none to be had.
    """

    def __init__(self) -> None:
        self._out, self._in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        with suppress(OSError):
            fcntl.fcntl(self._in, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        if fcntl.fcntl(self._in, fcntl.F_GETPIPE_SZ) < LEAST_SIZE:
            self.close()
            raise OSError(EPERM, "we have too many pipes already")

    def close(self) -> None:
        """Give the descriptors back."""
        os.close(self._out)
        os.close(self._in)

    def move(self, source: int, target: int, limit: int) -> tuple[int, bytes, OSError | None]:
        """
        Move what has come at one socket to another.

        @param limit: the most bytes to move; one at least.
        @return: how many bytes have come, 0 for an end-of-file; those of them,
            the last ones, that the target did not take; and why it did not, if
            that was an error.
        @raise OSError: if none could be had of the source; C{BlockingIOError}
            if there are none now.
        """
        size = os.splice(source, self._in, limit, flags=_FLAGS)
        sent, error = 0, None
        while sent < size:
            try:
                sent += os.splice(self._out, target, size - sent, flags=_FLAGS)
            except OSError as reason:
                error = None if isinstance(reason, BlockingIOError) else reason
                break
        rest = b""
        while len(rest) < size - sent:
            rest += os.read(self._out, size - sent)
        return size, rest, error
