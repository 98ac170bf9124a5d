"""
Moving bytes from one socket to another within the kernel (splice).

The kernel moves the pages of what a socket has received into a pipe, and from
there to the other socket: nothing is copied, which is most of the work for a
long body.
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
The capacity of a pipe in bytes: the most that users other than root may ask for.

It counts whole pages, however little is in each of them.
"""

LEAST_SIZE: Final = 65536
"""The default capacity of a pipe in bytes.  Users with many pipes get smaller ones."""

_FLAGS: Final = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


class Pipe:
    """
    A pipe that is empty between calls, so that one is enough for all connections.

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
        """Close the descriptors."""
        os.close(self._out)
        os.close(self._in)

    def move(self, source: int, target: int, limit: int) -> tuple[int, bytes, OSError | None]:
        """
        Move what one socket has received to another.

        @param limit: the most bytes to move; at least one.
        @return: how many bytes were received, 0 for an end-of-file; the last ones
            of them that the target did not take; and the error for which it did
            not, if there was one.
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
