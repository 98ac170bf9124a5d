"""The output of a log: a file that can be reopened, or a standard stream."""

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
"""The maximum number of bytes that are buffered while a pipe is full."""

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
    The output of a log: a file that can be reopened, or a standard stream.

    Writing never raises, as a full disk must not stop the traffic.  Lines that
    can't be written are counted in L{lost}.  While a pipe, such as standard
    output, is full, up to C{MAX_BACKLOG} bytes are buffered until the next write.

    @ivar path: the path, as given.
    @ivar lost: the number of lines that could not be written; the owner may reset it.
    @ivar reason: why the last lost line was lost.
    @ivar enabled: whether lines are written at all; may be set at any time.
    @cvar dropped: the number of lines of all files of this process that could not be written.
    """

    dropped: ClassVar = 0

    def __init__(self, path: str, where: Place = PART, dry: bool = False) -> None:
        """
        Open the file for appending; it is created with its directories if it doesn't exist.

        @param path: a file name; C{"stdout"}; C{"stderr"} or C{""} for standard
            error.
        @param where: the configuration key of the path, for the error.
        @param dry: only check whether the file could be opened, without creating
            anything.  Lines that are written then are lost.
        @raise ConfigError: if the file can't be opened.
        """
        self.path = path
        self.lost = 0
        self.enabled = True
        self.reason = ""
        self._where = where
        self._backlog = b""
        self._mid_line = False
        # Threads write log lines too, and so may signal handlers, hence a reentrant lock.
        self._lock = threading.RLock()
        self._standard = path in _STANDARD_STREAMS
        # Absolute, as the working directory may be another one when the file is reopened.
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
        """
        Check, as far as possible without opening it, whether the file could be opened.

        @raise ConfigError: if not.
        """
        try:
            if os.path.isdir(self._file_name):
                raise _os_error(errno.EISDIR)
            place = self._file_name
            if not os.path.lexists(place):
                # Missing directories would be created in the first existing one.
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
        Write lines.

        @param data: whole lines with their line breaks; empty to write only the
            backlog.
        """
        if not self.enabled:
            return
        with self._lock:
            self._write(data)

    def _write(self, data: bytes) -> None:
        """Write lines; the caller holds the lock."""
        if self._is_too_much(data):
            self._push(b"")
            if self._is_too_much(data):
                self._lose(data, "the output does not take data fast enough")
                return
        self._push(data)

    def _is_too_much(self, data: bytes) -> bool:
        """Whether more lines would exceed the limit of the backlog."""
        return self._backlog != b"" and len(self._backlog) + len(data) > MAX_BACKLOG

    def _push(self, data: bytes) -> None:
        """Write the backlog and more lines, and keep what can't be written now as the backlog."""
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
        Write as many bytes as possible without blocking.

        @return: the number of bytes written.
        @raise BlockingIOError: if none can be written.
        """
        if not self._may_block:
            return os.write(self._fd, data)
        # A writable pipe takes at least PIPE_BUF bytes; writing more might block.
        room = select.poll()
        room.register(self._fd, select.POLLOUT)
        if not room.poll(0):
            raise BlockingIOError
        # Whole lines where possible, as other processes may write to the same pipe.
        end = data.rfind(b"\n", 0, select.PIPE_BUF) + 1
        return os.write(self._fd, data[: end or select.PIPE_BUF])

    def _lose(self, data: bytes, reason: str) -> None:
        """Count lines as lost."""
        lines = data.count(b"\n")
        self.lost += lines
        LogFile.dropped += lines
        self.reason = reason

    def reopen(self) -> None:
        """
        Open the path again, after the file was renamed (log rotation).

        The descriptor keeps its number, so that a concurrent write in another
        thread goes to the old file or to the new one.

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
