"""Where lines go: a file that can be reopened, or a standard stream."""

from __future__ import annotations

__all__ = ["MAX_BACKLOG", "LogFile"]

import errno
import os
import select
import stat
import threading
from typing import ClassVar, Final

from reverseproxy.errors import ConfigError
from reverseproxy.problems import PART, Place, Problem

MAX_BACKLOG: Final = 1 << 20
"""Bytes that wait for an output that does not take them at the moment."""

_STANDARD_STREAMS: Final = {
    "stdout": 1,
    "/dev/stdout": 1,
    "": 2,
    "stderr": 2,
    "/dev/stderr": 2,
}


def _is_pipe(fd: int) -> bool:
    """Whether a descriptor is a pipe or a socket, whose reader may stop reading."""
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class LogFile:
    """
    Where lines go: a file that can be reopened, or a standard stream.

    Writing never raises: a full disk must not stop the traffic.  What can't be
    written is counted in L{lost}.  A pipe that is full for the moment, standard
    output too, gets its bytes with the next write, up to C{MAX_BACKLOG} of them.

    @ivar path: as given.
    @ivar lost: lines that could not be written; the owner may reset it.
    @ivar reason: why the last lost line was lost.
    @ivar enabled: whether lines are written at all; may be set at any time.
    @cvar dropped: lines of all files of this process that could not be written.
    """

    dropped: ClassVar = 0

    def __init__(self, path: str, where: Place = PART, dry: bool = False) -> None:
        """
        Open for appending, creating the file and its directories if need be.

        @param path: a file name; C{"stdout"}; C{"stderr"} or C{""} for standard
            error.
        @param where: the configuration key the path came from, for the error.
        @param dry: only look whether it could be opened, and leave no trace.
            What is written is lost then.
        @raise ConfigError: if it can't be opened.
        """
        self.path = path
        self.lost = 0
        self.enabled = True
        self.reason = ""
        self._where = where
        self._backlog = b""
        self._mid_line = False
        # Threads log too.  Reentrant, because a signal handler may.
        self._lock = threading.RLock()
        self._standard = path in _STANDARD_STREAMS
        # Where it is now is where it shall be reopened.
        self._file_name = os.path.abspath(path)
        if self._standard:
            self._fd = _STANDARD_STREAMS[path]
        elif dry:
            self._fd = -1
            self._look()
        else:
            self._fd = self._open()
        # Other processes share a standard stream, so it can't be made non-blocking.
        self._may_block = self._standard and _is_pipe(self._fd)

    @property
    def backlog(self) -> int:
        """Bytes that wait to be written."""
        return len(self._backlog)

    def _open(self) -> int:
        """Open the file; the descriptor is not inherited by child processes."""
        # Without O_NONBLOCK, a named pipe without a reader would hang us here.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            os.makedirs(os.path.dirname(self._file_name), exist_ok=True)
            return os.open(self._file_name, flags, 0o644)
        except (OSError, ValueError) as error:
            raise self._not_opened(error) from error

    def _not_opened(self, error: OSError | ValueError) -> ConfigError:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return ConfigError(Problem.at(self._where, f"the log file {self.path!r} can't be opened: {reason}"))

    def _look(self) -> None:
        """Find out, as far as one can, what opening the file would say."""
        try:
            if os.path.isdir(self._file_name):
                raise _os_error(errno.EISDIR)
            place = self._file_name
            if not os.path.lexists(place):
                # Directories would be made in the first one that there is.
                while not os.path.lexists(place):
                    place = os.path.dirname(place)
                if not os.path.isdir(place):
                    raise _os_error(errno.ENOTDIR)
            if not os.access(place, os.W_OK | os.X_OK if os.path.isdir(place) else os.W_OK):
                raise _os_error(errno.EACCES)
        except (OSError, ValueError) as error:
            raise self._not_opened(error) from error

    def write(self, data: bytes) -> None:
        """
        Write whole lines.

        @param data: lines, each with its line break; empty to try the backlog
            again.
        """
        if not self.enabled:
            return
        with self._lock:
            self._write(data)

    def _write(self, data: bytes) -> None:
        """Write while no other thread does."""
        if self._is_too_much(data):
            self._push(b"")
            if self._is_too_much(data):
                self._lose(data, "the output does not take data fast enough")
                return
        self._push(data)

    def _is_too_much(self, data: bytes) -> bool:
        """Whether the backlog has no room for some more lines."""
        return self._backlog != b"" and len(self._backlog) + len(data) > MAX_BACKLOG

    def _push(self, data: bytes) -> None:
        """Write the backlog and some more lines, as far as it goes."""
        if self._mid_line and not self._backlog and data:
            data = b"\n" + data
        data = self._backlog + data
        self._backlog = b""
        while data:
            try:
                written = self._write_some(data)
            except BlockingIOError:
                self._backlog = data
                break
            except OSError as error:
                self._lose(data, error.strerror or str(error))
                break
            self._mid_line = data[written - 1 : written] != b"\n"
            data = data[written:]

    def _write_some(self, data: bytes) -> int:
        """
        Write what goes without waiting.

        @return: bytes.
        @raise BlockingIOError: if nothing goes.
        """
        if not self._may_block:
            return os.write(self._fd, data)
        # A pipe can be written to if it has room for so much; more would wait for the rest.
        room = select.poll()
        room.register(self._fd, select.POLLOUT)
        if not room.poll(0):
            raise BlockingIOError
        # Whole lines, where it can be: another process may write to it as well.
        end = data.rfind(b"\n", 0, select.PIPE_BUF) + 1
        return os.write(self._fd, data[: end or select.PIPE_BUF])

    def _lose(self, data: bytes, reason: str) -> None:
        """Give up on some lines."""
        lines = data.count(b"\n")
        self.lost += lines
        LogFile.dropped += lines
        self.reason = reason

    def reopen(self) -> None:
        """
        Open the path anew, for after it has been renamed.

        The descriptor keeps its number, so a write in another thread goes to
        the old file or to the new one, never astray.

        @raise ConfigError: if it can't be opened; the old file stays in use.
        """
        if self._standard or self._fd < 0:
            return
        fd = self._open()
        try:
            os.dup2(fd, self._fd, inheritable=False)
        finally:
            os.close(fd)
        self._mid_line = False

    def close(self) -> None:
        """Close the file; standard streams stay open.  Later writes are lost."""
        fd, self._fd = self._fd, -1
        if not self._standard and fd >= 0:
            os.close(fd)
