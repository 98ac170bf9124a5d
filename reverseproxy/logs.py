"""
Log lines that people and machines can read, on top of L{twisted.logger}.

L{make_observer} gives what L{twisted.logger.globalLogBeginner} wants.  The
text format is one line for each event::

    2026-07-14T12:00:00.123Z WARN  tunnel.server: refused 10.0.0.7:50000: ...

with the lines of a traceback indented below it.  The JSON format is one object
for each event, with C{time}, C{level}, C{namespace}, C{message} and every field
that was given to the logger.  Lines of a worker have its number: C{[2]} before
the namespace, or C{worker}.

Peers choose much of what is logged about them.  So control characters and
line breaks are escaped (nobody can forge a line or send escape sequences to a
terminal), lengths are bounded, fields that are named like secrets are not
written, and a L{Throttle} keeps a flood of bad peers from filling the disk; what
no throttle is for, L{reverseproxy.flood.LogBounds} bounds.
"""

from __future__ import annotations

__all__ = [
    "DEBUGGING",
    "DEFAULT_LEVEL",
    "Debugging",
    "LeftOut",
    "LogFile",
    "LogObserver",
    "Throttle",
    "counted",
    "how_many",
    "escape",
    "format_time",
    "level_name",
    "loss",
    "make_observer",
    "parse_level",
    "said",
    "shorten",
]

import errno
import json
import math
import os
import re
import select
import stat
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Final

from twisted.internet import error as errors
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IReactorTime
from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    PredicateResult,
    formatEvent,
)
from twisted.python.failure import Failure
from twisted.python.reflect import safe_str
from zope.interface import implementer

from reverseproxy.errors import ConfigError, Problem
from reverseproxy.flood import LogBounds

if TYPE_CHECKING:
    from constantly import NamedConstant

DEFAULT_LEVEL: Final = "INFO"

MAX_NAME: Final = 64
"""Characters of a name that a peer has given itself."""

MAX_MESSAGE: Final = 8192
"""Characters of a message; longer ones are cut."""

MAX_FIELD: Final = 2048
"""Characters of one field of a JSON line."""

MAX_FIELDS: Final = 64
"""Fields of a JSON line, and items of a list or mapping in one."""

MAX_TRACEBACK: Final = 32768
"""Characters of a traceback; of a longer one the end is kept."""

MAX_BACKLOG: Final = 1 << 20
"""Bytes that wait for an output that does not take them at the moment."""

# MOSN's level names, upper-case only.  Twisted has neither "trace" nor "fatal".
_LEVELS: Final[Mapping[str, NamedConstant]] = {
    "TRACE": LogLevel.debug,
    "DEBUG": LogLevel.debug,
    "INFO": LogLevel.info,
    "WARN": LogLevel.warn,
    "ERROR": LogLevel.error,
    "FATAL": LogLevel.critical,
}
_LEVEL_NAMES: Final = {
    LogLevel.debug: "DEBUG",
    LogLevel.info: "INFO",
    LogLevel.warn: "WARN",
    LogLevel.error: "ERROR",
    LogLevel.critical: "FATAL",
}

_STANDARD_STREAMS: Final = {
    "stdout": 1,
    "/dev/stdout": 1,
    "": 2,
    "stderr": 2,
    "/dev/stderr": 2,
}

_SECRET: Final = re.compile(
    r"(?:^|_)(?:password|passwd|passphrase|secret|token|credential|authorization|cookie|(?:private|api)_?key)s?$",
    re.IGNORECASE,
)
_REDACTED: Final = "[redacted]"

_ECHO: Final = re.compile(r"listener .* starting on .*|\((?:TCP|UNIX) Port .* Closed\)", re.DOTALL)

_RUNNERS: Final = frozenset({"twisted.scripts._twistd_unix.UnixAppLogger", "twisted.internet.base"})
"""Namespaces of what runs us, whose lines about a normal start and end say no more than ours."""

# What twisted.python.log puts into its events beside the caller's fields.
_LEGACY_KEYS: Final = frozenset(
    {"isError", "message", "system", "format", "time", "failure", "why", "logLevel"}
)
_OWN_KEYS: Final = frozenset({"time", "level", "namespace", "message", "traceback", "worker"})

_ESCAPES: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def parse_level(name: str) -> NamedConstant:
    """
    Translate a MOSN log level name.

    @param name: C{TRACE}, C{DEBUG}, C{INFO}, C{WARN}, C{ERROR} or C{FATAL};
        anything else, lower case included, counts as C{INFO}, as in MOSN.
    @return: one of L{LogLevel}; C{TRACE} is the same as C{DEBUG}.
    """
    return _LEVELS.get(name, LogLevel.info)


def level_name(level: NamedConstant) -> str:
    """Translate one of L{LogLevel} to MOSN's name of it."""
    return _LEVEL_NAMES[level]


def format_time(seconds: float | None) -> str:
    """
    Write a point in time as RFC 3339 in UTC with milliseconds.

    @param seconds: since the epoch; L{None} (or what no calendar has) gives
        C{"-"}.
    """
    if seconds is None:
        return "-"
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError, ValueError):
        return "-"
    return moment.isoformat(timespec="milliseconds")[:-6] + "Z"


def how_many(things: Iterable[str], most: int = 8) -> str:
    """
    Say how often each of some things is there, the most frequent ones first: C{3 WebSocket, 1 request}.

    @param most: how many kinds are named.
    """
    kinds = Counter(things).most_common()
    named = [f"{number} {kind}" for kind, number in kinds[:most]]
    rest = sum(number for _, number in kinds[most:])
    return ", ".join([*named, f"{rest} more"] if rest else named)


def counted(number: int, what: str) -> str:
    """
    Write a number of things: C{1 host}, C{2 hosts}.

    @param what: one of them, whose plural has an C{s} behind it.
    """
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def said(text: bytes | str) -> str:
    """Write what a peer has said, if anything, behind something else."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    return f", {text}" if text else ""


_FAILURES: Final[Mapping[type[BaseException], str]] = {
    errors.ConnectionAborted: "we have cut it off",
    errors.ConnectionRefusedError: "nothing listens there (connection refused)",
    errors.TCPTimedOutError: "no answer (the connection timed out)",
    errors.TimeoutError: "no answer in time",
    errors.NoRouteError: "there is no route to it",
    errors.DNSLookupError: "its name can't be looked up",
    CancelledError: "given up",
}
"""What some errors of Twisted's mean, whose own words repeat themselves."""


def loss(reason: Failure) -> str:
    """Say why a connection is lost, or could not be made, in words for an operator, not in Twisted's."""
    error = reason.value
    args = getattr(error, "args", ())
    own = args[0] if args and isinstance(args[0], str) else ""
    if type(error) is ConnectionDone:
        return own if own not in ("", "Connection done") else "the other end closed the connection"
    if type(error) is ConnectionLost:
        return own if own not in ("", "Connection lost") else "the connection broke off"
    plain = None if error is None else _FAILURES.get(type(error))
    if plain is not None:
        return plain
    number = getattr(error, "osError", None)
    if isinstance(error, ConnectError) and isinstance(number, int):
        return os.strerror(number)
    return reason.getErrorMessage().rstrip(".")


def escape(text: str) -> str:
    """
    Make text safe for a line of a log.

    Everything that is not printable (control characters, line breaks of every
    kind, direction marks) becomes a backslash sequence; a byte that could not
    be decoded (C{surrogateescape}) becomes C{\\xNN}.  The rest stays as it is.
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _escape_one(character) for character in text)


def _escape_one(character: str) -> str:
    """The backslash sequence for one character."""
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    if character in _ESCAPES:
        return _ESCAPES[character]
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _cut(text: str, limit: int) -> str:
    """Bound the length of text and say so."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}... ({len(text) - limit} more characters)"


def shorten(name: str) -> str:
    """Cut a name that a peer has given itself, if it is longer than names are."""
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 3]}..."


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

    def __init__(self, path: str, where: str = "", dry: bool = False) -> None:
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
        return ConfigError(Problem("", self._where, f"the log file {self.path!r} can't be opened: {reason}"))

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


class Debugging:
    """
    Tells whether lines of C{DEBUG} are written in this process.

    For whoever would have to do something for them that costs time.

    @ivar on: whether they are.
    """

    def __init__(self) -> None:
        self.on = False
        self._watchers: list[Callable[[bool], object]] = []

    def watch(self, changed: Callable[[bool], object]) -> None:
        """Call something now, and whenever it has changed, with what C{on} is."""
        self._watchers.append(changed)
        changed(self.on)

    def set(self, on: bool) -> None:
        """Say what it is from now on."""
        if on is not self.on:
            self.on = on
            for changed in self._watchers:
                changed(on)


DEBUGGING: Final = Debugging()
"""Of this process, which has one log."""

_LOST: Final = "{lost} lines of this log could not be written: {reason}"
_LEFT_OUT: Final = "{count} lines like the next one were left out, as a log has its bounds"


@implementer(ILogObserver)
class LogObserver:
    """
    Writes events of a level or above, each as soon as it comes.

    @ivar file: where the lines go.
    """

    def __init__(
        self,
        file: LogFile,
        level: str,
        render: Callable[[LogEvent, int], str],
        worker: int = 0,
        bounds: LogBounds | None = None,
    ) -> None:
        """
        @param bounds: decides which lines of C{INFO} and above are written; all of
            them without.
        """
        self.file = file
        self._render = render
        self._worker = worker
        self._bounds = bounds
        self.level = level

    @property
    def level(self) -> str:
        """The lowest level that is written, by MOSN's name; may be set at any time."""
        return self._level

    @level.setter
    def level(self, name: str) -> None:
        self._level = name if name in _LEVELS else DEFAULT_LEVEL
        self._predicate = LogLevelFilterPredicate(parse_level(name))
        debug = parse_level(name) is LogLevel.debug
        self._leaves_out_echoes = not debug
        DEBUGGING.set(debug)

    def __call__(self, event: LogEvent) -> None:
        """Take an event, as L{ILogObserver} has it."""
        if self._predicate(event) is PredicateResult.no or (self._leaves_out_echoes and _is_echo(event)):
            return
        bounds = None if event.get("log_level") is LogLevel.debug else self._bounds
        left_out = 0
        if bounds is not None:
            # Asked before the line is made, which is most of the work.
            left_out = bounds.ask((event.get("log_namespace"), event.get("log_format")))
            if left_out < 0:
                return
        lines = self._render(event, self._worker)
        if left_out:
            lines = self._notice(event, LogLevel.warn, _LEFT_OUT, count=left_out) + lines
        before, self.file.lost = self.file.lost, 0
        if before:
            lines = self._notice(event, LogLevel.error, _LOST, lost=before, reason=self.file.reason) + lines
        data = lines.encode("utf-8", "backslashreplace")
        if bounds is not None:
            bounds.wrote(len(data))
        self.file.write(data)
        if before and self.file.lost:
            # The notice is not worth counting.
            self.file.lost = before + 1

    def _notice(self, event: LogEvent, level: NamedConstant, text: str, **fields: object) -> str:
        """A line about lines, in front of an event's."""
        return self._render(
            {
                "log_time": event.get("log_time"),
                "log_level": level,
                "log_namespace": "reverseproxy.logs",
                "log_format": text,
                **fields,
            },
            self._worker,
        )

    def reopen(self) -> None:
        """
        Open the file anew, for log rotation.

        @raise ConfigError: if it can't be opened; the old file stays in use.
        """
        self.file.reopen()

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def make_observer(
    path: str, level: str = DEFAULT_LEVEL, fmt: str = "text", worker: int = 0, per_hour: float = 0
) -> LogObserver:
    """
    Make the observer for the configured log.

    @param path: a file name, C{"stdout"}, or C{"stderr"} (also C{""}).
    @param level: a MOSN level name, see L{parse_level}.
    @param fmt: C{"text"} or C{"json"}.
    @param worker: the number of this worker, from 1; 0 for a process that is none.
    @param per_hour: bytes that may be written in an hour; 0 for any number.
    @raise ConfigError: if the file can't be opened or the format is unknown.
    """
    renderers = {"text": _render_text, "json": _render_json}
    if fmt not in renderers:
        raise ConfigError(Problem("", "", f"{fmt!r} is not a log format; use 'text' or 'json'"))
    bounds = LogBounds(per_hour) if per_hour else None
    return LogObserver(LogFile(path, "default_log_path"), level, renderers[fmt], worker, bounds)


def _is_echo(event: LogEvent) -> bool:
    """Whether Twisted says of a port, or of the process, what we say as well, with more detail."""
    if event.get("log_namespace") in _RUNNERS:
        return event.get("log_level") is LogLevel.info
    if event.get("log_namespace") != "log_legacy" or event.get("isError"):
        return False
    message = event.get("message")
    return isinstance(message, tuple) and len(message) == 1 and _ECHO.fullmatch(str(message[0])) is not None


def _without_secrets(event: LogEvent) -> LogEvent:
    """Replace the values of fields that are named like secrets."""
    secrets = {key: _REDACTED for key in event if _SECRET.search(key)}
    if not secrets:
        return event
    # A flattened event would still bring the old values.
    return {key: value for key, value in event.items() if key != "log_flattened"} | secrets


def _message(event: LogEvent) -> str:
    """The message alone, as one bounded line."""
    if "log_failure" not in event and "failure" in event and "log_text" in event:
        # twisted.python.log.err: its text has the traceback in it.
        text = safe_str(event.get("why") or "Unhandled Error")
    else:
        text = formatEvent(event)
    return escape(_cut(text.strip("\n"), MAX_MESSAGE))


def _namespace(event: LogEvent) -> str:
    """Who speaks: our own modules without the package name."""
    namespace = event.get("log_namespace")
    if namespace is None or namespace == "log_legacy":
        system = event.get("log_system")
        namespace = "twisted" if system in (None, "-", "") else system
    return escape(_cut(safe_str(namespace).removeprefix("reverseproxy."), 128))


def _level(event: LogEvent) -> str:
    """MOSN's name for the level of an event."""
    return _LEVEL_NAMES.get(event.get("log_level"), "-")


def _traceback(event: LogEvent) -> list[str]:
    """The lines of the traceback, escaped; empty if the event has none."""
    failure = event.get("log_failure", event.get("failure"))
    if not isinstance(failure, Failure):
        return []
    try:
        text = failure.getTraceback()
    except Exception as error:
        text = f"(the traceback can't be shown: {safe_str(error)})"
    if len(text) > MAX_TRACEBACK:
        text = f"({len(text) - MAX_TRACEBACK} characters left out)\n{text[-MAX_TRACEBACK:]}"
    return [escape(line) for line in text.rstrip().split("\n")]


def _render_text(event: LogEvent, worker: int = 0) -> str:
    """One line, and the traceback indented below it."""
    event = _without_secrets(event)
    time = format_time(event.get("log_time"))
    who = f"[{worker}] " if worker else ""
    line = f"{time} {_level(event):5} {who}{_namespace(event)}: {_message(event)}\n"
    return line + "".join(f"    {part}\n" for part in _traceback(event))


def _render_json(event: LogEvent, worker: int = 0) -> str:
    """One JSON object on one line."""
    event = _without_secrets(event)
    record: dict[str, Any] = {
        "time": format_time(event.get("log_time")),
        "level": _level(event),
        "namespace": _namespace(event),
        "message": _message(event),
    }
    if worker:
        record["worker"] = worker
    traceback = _traceback(event)
    if traceback:
        record["traceback"] = "\n".join(traceback)
    legacy = "isError" in event
    for key, value in event.items():
        if key.startswith("log_") or (legacy and key in _LEGACY_KEYS):
            continue
        if len(record) >= MAX_FIELDS:
            break
        record[_cut(f"{key}_" if key in _OWN_KEYS else key, MAX_FIELD)] = _jsonable(value)
    return json.dumps(record) + "\n"


def _jsonable(value: object, depth: int = 3) -> Any:
    """
    Turn a value into what JSON has, bounded in every direction.

    @param depth: how many levels of lists and mappings to keep as such.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and -(1 << 63) <= value < 1 << 64:
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, bytes | bytearray):
        value = bytes(value[: MAX_FIELD + 1]).decode("utf-8", "backslashreplace")
    if depth and isinstance(value, Mapping):
        return {
            _text(key): _REDACTED if _SECRET.search(_text(key)) else _jsonable(item, depth - 1)
            for key, item in list(value.items())[:MAX_FIELDS]
        }
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [_jsonable(item, depth - 1) for item in list(value)[:MAX_FIELDS]]
    return _text(value)


def _text(value: object) -> str:
    """Anything as bounded text that every JSON reader takes."""
    text = value if isinstance(value, str) else safe_str(value)
    return _cut(text, MAX_FIELD).encode("utf-8", "backslashreplace").decode("utf-8")


class LeftOut(int):
    """A number of lines that were left out; in a line, a remark at its end, or nothing if it is 0."""

    __slots__ = ()

    def __format__(self, spec: str) -> str:
        """Write the remark."""
        if spec:
            return format(int(self), spec)
        return f" ({self:d} such {'line' if self == 1 else 'lines'} left out before)" if self else ""


class Throttle:
    """
    Lets so many events pass and counts the rest: a token bucket.

    For lines that a peer can cause as often as it likes::

        if self._throttle.allow():
            log.warn("refused {peer}{suppressed}",
                     peer=peer, suppressed=self._throttle.suppressed)

    @ivar suppressed: after L{allow} returned true: how many times it had
        returned false since it last returned true; see L{LeftOut}.
    """

    def __init__(self, clock: IReactorTime, per_second: float, burst: int = 1) -> None:
        """
        @param clock: tells the time.
        @param per_second: events that pass in the long run; more than 0.
        @param burst: events that pass at once after a quiet time; 1 or more.
        """
        if not per_second > 0 or burst < 1:
            raise ValueError("a throttle must let something pass")
        self.suppressed = LeftOut()
        self._clock = clock
        self._rate = per_second
        self._burst = burst
        self._tokens = float(burst)
        self._updated = clock.seconds()
        self._denied = 0

    def allow(self) -> bool:
        """Ask for one event: whether it may pass."""
        now = self._clock.seconds()
        # A clock that was set back must not take tokens away.
        elapsed = max(now - self._updated, 0.0)
        self._tokens = min(self._tokens + elapsed * self._rate, self._burst)
        self._updated = now
        if self._tokens < 1.0:
            self._denied += 1
            return False
        self._tokens -= 1.0
        self.suppressed, self._denied = LeftOut(self._denied), 0
        return True
