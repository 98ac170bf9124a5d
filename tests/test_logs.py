"""Tests for L{reverseproxy.logs}."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.error import (
    ConnectError,
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    DNSLookupError,
)
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogBeginner, Logger, LogLevel, LogPublisher
from twisted.logger._legacy import publishToNewObserver
from twisted.python import log as legacy_log
from twisted.python.failure import Failure
from twisted.python.log import textFromEventDict
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from reverseproxy import logs
from reverseproxy.errors import ConfigError
from reverseproxy.logs import (
    LogFile,
    LogObserver,
    Throttle,
    counted,
    escape,
    format_time,
    loss,
    make_observer,
    parse_level,
    said,
)
from reverseproxy.logs.bounds import LogBounds
from reverseproxy.problems import PART

#: 2026-07-14T12:00:00.123Z
MOMENT = 1784030400.1234


class Unprintable:
    """Raises when it is to be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


def read(path: str) -> str:
    """What is in a file."""
    with open(path, encoding="utf-8", newline="") as file:
        return file.read()


class LevelTests(SynchronousTestCase):
    """L{parse_level}."""

    def test_names(self) -> None:
        """MOSN's names in upper case count, anything else is INFO."""
        for name, level in [
            ("TRACE", LogLevel.debug),
            ("DEBUG", LogLevel.debug),
            ("INFO", LogLevel.info),
            ("WARN", LogLevel.warn),
            ("ERROR", LogLevel.error),
            ("FATAL", LogLevel.critical),
            ("debug", LogLevel.info),
            ("Error", LogLevel.info),
            ("WARNING", LogLevel.info),
            ("", LogLevel.info),
        ]:
            self.assertIs(parse_level(name), level, name)


class TimeTests(SynchronousTestCase):
    """L{format_time}."""

    def test_table(self) -> None:
        """Times are in UTC, with milliseconds, cut off."""
        for seconds, text in [
            (0.0, "1970-01-01T00:00:00.000Z"),
            (MOMENT, "2026-07-14T12:00:00.123Z"),
            (1784030400.9999, "2026-07-14T12:00:00.999Z"),
            (None, "-"),
            (1e30, "-"),
            (float("nan"), "-"),
            (float("inf"), "-"),
        ]:
            self.assertEqual(format_time(seconds), text)


class EscapeTests(SynchronousTestCase):
    """L{escape}."""

    def test_table(self) -> None:
        """What is not printable becomes a backslash sequence."""
        for text, expected in [
            ("", ""),
            ("plain é 漢", "plain é 漢"),
            ("a\nb\rc\td", "a\\nb\\rc\\td"),
            ("\x1b[31m\0\x7f", "\\x1b[31m\\x00\\x7f"),
            ("\x85\u2028\u2029", "\\x85\\u2028\\u2029"),
            ("\u202e", "\\u202e"),
            ("\udcff\ud800", "\\xff\\ud800"),
            ("\U000e0001", "\\U000e0001"),
            ("\\n", "\\n"),
        ]:
            self.assertEqual(escape(text), expected)

    @settings(deadline=None)
    @given(st.text())
    def test_isOnePrintableLine(self, text: str) -> None:
        """The result is printable and can be encoded."""
        escaped = escape(text)
        self.assertTrue(escaped.isprintable())
        self.assertLessEqual(len(escaped.splitlines()), 1)
        escaped.encode("utf-8")


class LogFileTests(SynchronousTestCase):
    """L{LogFile}."""

    def setUp(self) -> None:
        self.path = self.mktemp()
        self.written: list[bytes] = []

    def outcomes(self, *outcomes: int | OSError) -> None:
        """Let the next writes take so many bytes or fail; later ones take all."""
        pending = list(outcomes)

        def write(fd: int, data: bytes) -> int:
            outcome = pending.pop(0) if pending else len(data)
            if isinstance(outcome, OSError):
                raise outcome
            self.written.append(data[:outcome])
            return outcome

        self.patch(logs.file.os, "write", write)

    def file(self) -> LogFile:
        """A file at the path."""
        file = LogFile(self.path)
        self.addCleanup(file.close)
        return file

    def test_appends(self) -> None:
        """An existing file is appended to."""
        for line in [b"1\n", b"2\n"]:
            file = self.file()
            file.write(line)
            file.close()
        self.assertEqual(read(self.path), "1\n2\n")

    def test_makesDirectories(self) -> None:
        """Directories are made, as in MOSN."""
        self.path = os.path.join(self.mktemp(), "a", "b.log")
        self.file().write(b"x\n")
        self.assertEqual(read(self.path), "x\n")

    def test_cannotOpen(self) -> None:
        """The error names the path, its key and the reason."""
        os.mkdir(self.path)
        error = self.assertRaises(ConfigError, LogFile, self.path, PART / "default_log_path")
        self.assertEqual(
            str(error), f"default_log_path: the log file {self.path!r} can't be opened: Is a directory"
        )
        error = self.assertRaises(ConfigError, LogFile, "a\0b")
        self.assertRegex(str(error), "can't be opened: .*embedded null (byte|character)")

    def test_pipeWithoutReader(self) -> None:
        """A named pipe that nobody reads is an error, not a reason to wait."""
        os.mkfifo(self.path)
        self.assertIn("can't be opened", str(self.assertRaises(ConfigError, LogFile, self.path)))

    def test_standardStreams(self) -> None:
        """The words for the standard streams; those are never closed or reopened."""
        descriptors: list[int] = []
        self.patch(logs.file.os, "write", lambda fd, data: descriptors.append(fd) or len(data))
        for path in ["stdout", "/dev/stdout", "stderr", "/dev/stderr", ""]:
            file = LogFile(path)
            file.write(b"x\n")
            file.reopen()
            file.close()
        self.assertEqual(descriptors, [1, 1, 2, 2, 2])
        os.fstat(1)

    def standardPipe(self) -> tuple[LogFile, int]:
        """A log on a standard stream that is a pipe, which blocks, and the end to read from."""
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        self.addCleanup(os.close, writer)
        self.patch(logs.file, "_STANDARD_STREAMS", {"stdout": writer})
        return LogFile("stdout"), reader

    def test_standardStreamThatNobodyReads(self) -> None:
        """Lines are lost and counted; nothing waits, and the flags that others share are as before."""
        file, reader = self.standardPipe()
        lines = [b"%07d\n" % number for number in range(250_000)]
        for number in range(0, len(lines), 100):
            file.write(b"".join(lines[number : number + 100]))
        self.assertTrue(os.get_blocking(file._fd))
        self.assertGreater(file.lost, 0)
        self.assertLessEqual(file.backlog, logs.file.MAX_BACKLOG)
        kept = len(lines) - file.lost
        found = b""
        os.set_blocking(reader, False)
        while file.backlog:
            found += os.read(reader, 1 << 20)
            file.write(b"")
        found += os.read(reader, 1 << 20)
        self.assertEqual(found, b"".join(lines[:kept]))

    def test_standardStreamWhoseReaderIsGone(self) -> None:
        reader, writer = os.pipe()
        self.addCleanup(os.close, writer)
        os.close(reader)
        self.patch(logs.file, "_STANDARD_STREAMS", {"stdout": writer})
        file = LogFile("stdout")
        file.write(b"x\n")
        self.assertEqual((file.lost, file.reason), (1, os.strerror(errno.EPIPE)))

    def test_onlyPipesAreAsked(self) -> None:
        """Files are always ready, and a closed descriptor is an error like others."""
        with open(self.path, "wb") as output:
            self.patch(logs.file, "_STANDARD_STREAMS", {"stdout": output.fileno()})
            self.patch(logs.file.select, "poll", None)
            file = LogFile("stdout")
            file.write(b"x\n" * 10000)
            self.assertEqual((file.lost, file.backlog), (0, 0))
        self.assertFalse(logs.file._is_pipe(-1))

    def test_notInherited(self) -> None:
        """Child processes do not get the descriptor, not even after reopening."""
        file = self.file()
        self.assertFalse(os.get_inheritable(file._fd))
        file.reopen()
        self.assertFalse(os.get_inheritable(file._fd))

    def test_reopen(self) -> None:
        """After the file was renamed, reopening makes a new one."""
        file = self.file()
        file.write(b"1\n")
        os.rename(self.path, self.path + ".1")
        file.write(b"2\n")
        file.reopen()
        file.write(b"3\n")
        self.assertEqual((read(self.path + ".1"), read(self.path)), ("1\n2\n", "3\n"))

    def test_reopenElsewhere(self) -> None:
        """A relative path stays where it was when the process changes its directory."""
        file = self.file()
        os.rename(self.path, self.path + ".1")
        here = os.getcwd()
        self.addCleanup(os.chdir, here)
        os.chdir("/")
        file.reopen()
        os.chdir(here)
        self.assertEqual(read(self.path), "")

    def test_reopenFails(self) -> None:
        """When reopening fails, the old file stays in use."""
        file = self.file()
        os.rename(self.path, self.path + ".1")
        os.mkdir(self.path)
        self.assertRaises(ConfigError, file.reopen)
        file.write(b"1\n")
        self.assertEqual(read(self.path + ".1"), "1\n")

    def test_closed(self) -> None:
        """What is written after closing is lost; closing and reopening then do nothing."""
        file = self.file()
        file.close()
        file.close()
        file.reopen()
        file.write(b"1\n")
        self.assertEqual((file.lost, read(self.path)), (1, ""))

    def test_diskFull(self) -> None:
        """A failed write loses its lines and says why, without raising."""
        file = self.file()
        self.outcomes(OSError(errno.ENOSPC, "No space left on device"))
        file.write(b"1\n2\n")
        self.assertEqual((file.lost, file.reason), (2, "No space left on device"))
        file.write(b"3\n")
        self.assertEqual((file.lost, self.written), (2, [b"3\n"]))

    def test_failureWithoutReason(self) -> None:
        """An error without a text is shown as it is."""
        file = self.file()
        self.outcomes(OSError("odd"))
        file.write(b"1\n")
        self.assertEqual(file.reason, "odd")

    def test_diskFullInLine(self) -> None:
        """After half a line, the next one begins on a line of its own."""
        file = self.file()
        self.outcomes(3, OSError(errno.ENOSPC, "full"))
        file.write(b"11111\n")
        self.assertEqual(file.lost, 1)
        file.write(b"2\n")
        file.write(b"3\n")
        self.assertEqual(b"".join(self.written), b"111\n2\n3\n")

    def test_reopenInLine(self) -> None:
        """A new file does not begin with a line break."""
        file = self.file()
        self.outcomes(3, OSError(errno.ENOSPC, "full"))
        file.write(b"11111\n")
        file.reopen()
        file.write(b"2\n")
        self.assertEqual(self.written, [b"111", b"2\n"])

    def test_shortWrites(self) -> None:
        """Short writes are continued."""
        file = self.file()
        self.outcomes(1, 2)
        file.write(b"12345\n")
        self.assertEqual((self.written, file.lost), ([b"1", b"23", b"45\n"], 0))

    def test_fullPipe(self) -> None:
        """What a full pipe does not take is written next time, in order and whole."""
        file = self.file()
        self.outcomes(2, BlockingIOError(), BlockingIOError())
        file.write(b"111\n")
        self.assertEqual(file.backlog, 2)
        file.write(b"222\n")
        self.assertEqual(file.backlog, 6)
        file.write(b"")
        self.assertEqual((b"".join(self.written), file.backlog, file.lost), (b"111\n222\n", 0, 0))

    def test_backlogIsBounded(self) -> None:
        """When the backlog is full, new lines are lost, whole ones."""
        self.patch(logs.file, "MAX_BACKLOG", 10)
        file = self.file()
        self.outcomes(*[BlockingIOError()] * 2)
        file.write(b"12345678\n")
        file.write(b"a\nb\n")
        self.assertEqual((file.backlog, file.lost), (9, 2))
        self.assertEqual(file.reason, "the output does not take data fast enough")
        # The pipe takes data again: nothing more is lost.
        file.write(b"c\n")
        self.assertEqual((file.backlog, file.lost), (0, 2))
        self.assertEqual(b"".join(self.written), b"12345678\nc\n")


class ObserverTests(SynchronousTestCase):
    """L{make_observer}."""

    def setUp(self) -> None:
        self.path = self.mktemp()

    def observer(self, fmt: str = "text", level: str = "INFO") -> LogObserver:
        """An observer that writes to the path."""
        observer = make_observer(self.path, level, fmt)
        self.addCleanup(observer.close)
        return observer

    def logger(self, fmt: str = "text", level: str = "INFO") -> Logger:
        """A logger that writes to the path."""
        observer = self.observer(fmt, level)

        def with_time(event: dict[str, Any]) -> None:
            observer({**event, "log_time": MOMENT})

        return Logger("reverseproxy.tunnel.server", observer=with_time)  # type: ignore[arg-type]

    def text(self) -> str:
        """What was written."""
        return read(self.path)

    def object(self) -> dict[str, Any]:
        """The one JSON object that was written."""
        lines = self.text().split("\n")
        self.assertEqual((len(lines), lines[-1]), (2, ""))
        result = json.loads(lines[0])
        assert isinstance(result, dict)
        return result

    def test_interface(self) -> None:
        """It is an observer."""
        verifyObject(ILogObserver, self.observer())

    def test_echoes(self) -> None:
        """What Twisted says of a port that its listener speaks of itself is for DEBUG only."""
        for level, expected in (("INFO", 1), ("DEBUG", 4)):
            self.path = self.mktemp()
            observer = self.observer(level=level)
            for message in (
                "listener front starting on 8080",
                "(TCP Port 8080 Closed)",
                "(UNIX Port '/run/x' Closed)",
                "something else starting on 8080",
            ):
                legacy = {"message": (message,), "isError": 0, "system": "-", "time": 1.0}
                publishToNewObserver(observer, legacy, textFromEventDict)
            self.assertEqual(self.text().count("\n"), expected)

    def test_text(self) -> None:
        """A line has time, level, namespace without our package's name, and message."""
        log = self.logger()
        log.info("peer {peer} joined {cluster}", peer="10.0.0.7:1", cluster="é")
        log.warn("odd")
        log.critical("end")
        self.assertEqual(
            self.text(),
            "2026-07-14T12:00:00.123Z INFO  tunnel.server: peer 10.0.0.7:1 joined é\n"
            "2026-07-14T12:00:00.123Z WARN  tunnel.server: odd\n"
            "2026-07-14T12:00:00.123Z FATAL tunnel.server: end\n",
        )

    def test_foreignNamespace(self) -> None:
        """Other packages' namespaces are shown whole."""
        log = Logger("twisted.web.http", observer=self.observer())  # type: ignore[arg-type]
        log.info("x")
        self.assertRegex(self.text(), r"\A\S{24} INFO  twisted\.web\.http: x\n\Z")

    def test_levels(self) -> None:
        """Only events of the level and above are written; the level can be changed."""
        observer = self.observer(level="ERROR")
        log = Logger("n", observer=observer)  # type: ignore[arg-type]
        for level in ["debug", "info", "warn", "error", "critical"]:
            getattr(log, level)(f"first {level}")
        self.assertEqual(observer.level, "ERROR")
        observer.level = "TRACE"
        self.assertEqual(observer.level, "TRACE")
        log.debug("second")
        observer.level = "error"
        self.assertEqual(observer.level, "INFO")
        log.debug("third")
        log.info("fourth")
        written = [line.split(": ")[1] for line in self.text().splitlines()]
        self.assertEqual(written, ["first error", "first critical", "second", "fourth"])

    def test_injection(self) -> None:
        """Nothing that a peer sends makes a line of its own or reaches the terminal."""
        self.logger().info("bad {peer}", peer="x\n2026-07-14T12:00:00.123Z INFO  a: b\x1b[2J\r\u2028")
        self.assertEqual(
            self.text(),
            "2026-07-14T12:00:00.123Z INFO  tunnel.server: "
            "bad x\\n2026-07-14T12:00:00.123Z INFO  a: b\\x1b[2J\\r\\u2028\n",
        )

    def test_traceback(self) -> None:
        """Tracebacks are indented, so that an exception's text can't forge a line either."""
        log = self.logger()
        try:
            raise ValueError("first\n2026-07-14T12:00:00.123Z INFO  forged: line\x1b")
        except ValueError:
            log.failure("while {doing}", doing="this")
        first, *rest = self.text().splitlines()
        self.assertEqual(first, "2026-07-14T12:00:00.123Z FATAL tunnel.server: while this")
        self.assertIn("    Traceback (most recent call last):", rest[0])
        self.assertTrue(all(line.startswith("    ") for line in rest), rest)
        self.assertIn("    2026-07-14T12:00:00.123Z INFO  forged: line\\x1b", rest)

    def test_longTraceback(self) -> None:
        """Of a long traceback the end is kept."""
        self.logger().failure("x", failure=Failure(ValueError("a" * 50000 + "end")))
        self.assertIn("characters left out)", self.text())
        self.assertIn("end\n", self.text())
        self.assertLess(len(self.text()), 33000)

    def test_brokenTraceback(self) -> None:
        """A failure that can't be shown costs the traceback, not the line."""
        failure = Failure(ValueError("x"))
        failure.getTraceback = lambda: 1 / 0  # type: ignore[assignment,method-assign]
        self.logger().failure("message", failure=failure)
        self.assertIn(": message\n    (the traceback can't be shown: division by zero)\n", self.text())

    def test_longMessage(self) -> None:
        """Long messages are cut."""
        self.logger().info("{text}", text="a" * 10000)
        self.assertIn("aaa... (1808 more characters)\n", self.text())

    def test_unformattable(self) -> None:
        """An event that can't be formatted still gives a line."""
        log = self.logger()
        log.info("{missing}")
        log.info("{field}", field=Unprintable())
        self.assertEqual(len(self.text().splitlines()), 2)
        self.assertIn("Unable to format event", self.text())

    def test_secrets(self) -> None:
        """Fields that are named like secrets are not shown, in either format."""
        fields = {
            "credential": "s3cret",
            "password": "s3cret",
            "client_secret": "s3cret",
            "access_token": "s3cret",
            "Authorization": "s3cret",
            "private_key": "s3cret",
            "nested": {"api_key": "s3cret"},
            "credential_policy": "shown",
        }
        self.logger().info("{credential} {credential_policy}", **fields)
        self.assertIn(": [redacted] shown\n", self.text())
        self.path = self.mktemp()
        self.logger("json").info("{credential} {password}", log_flattened={"credential": "s3cret"}, **fields)
        self.assertNotIn("s3cret", self.text())
        self.assertEqual(self.object()["message"], "[redacted] [redacted]")
        self.assertEqual(self.object()["credential_policy"], "shown")

    def test_json(self) -> None:
        """An object has the standard keys and the event's fields."""
        self.logger("json").warn("peer {peer}", peer="a\nb", size=3, ratio=0.5, ok=True, none=None)
        self.assertEqual(
            self.object(),
            {
                "time": "2026-07-14T12:00:00.123Z",
                "level": "WARN",
                "namespace": "tunnel.server",
                "message": "peer a\\nb",
                "peer": "a\nb",
                "size": 3,
                "ratio": 0.5,
                "ok": True,
                "none": None,
            },
        )

    def test_jsonValues(self) -> None:
        """Anything becomes JSON, bounded."""
        self.logger("json").info(
            "x",
            data=b"a\xff",
            buffer=bytearray(b"b"),
            surrogate="\udcff",
            nan=float("nan"),
            huge=1 << 100,
            negative=-(1 << 63),
            namespace=LogLevel.info,
            broken=Unprintable(),
            listed=(1, "a", [2, {"b": (3, [4])}]),
            mapped={1: b"x"},
            long="a" * 3000,
            many=list(range(100)),
            thing=ConfigError,
            message="taken",
        )
        result = self.object()
        self.assertEqual(result["data"], "a\\xff")
        self.assertEqual(result["buffer"], "b")
        self.assertEqual(result["surrogate"], "\\udcff")
        self.assertEqual(result["nan"], "nan")
        self.assertEqual(result["huge"], str(1 << 100))
        self.assertEqual(result["negative"], -(1 << 63))
        self.assertEqual(result["namespace_"], "<LogLevel=info>")
        self.assertIn("Unprintable", result["broken"])
        self.assertEqual(result["listed"], [1, "a", [2, {"b": "(3, [4])"}]])
        self.assertEqual(result["mapped"], {"1": "x"})
        self.assertEqual(result["long"], "a" * 2048 + "... (952 more characters)")
        self.assertEqual(len(result["many"]), 64)
        self.assertEqual(result["thing"], "<class 'reverseproxy.errors.ConfigError'>")
        self.assertEqual(result["message_"], "taken")

    def test_jsonFields(self) -> None:
        """The number of fields is bounded."""
        self.logger("json").info("x", **{f"f{i}": i for i in range(100)})
        self.assertEqual(len(self.object()), 64)

    def test_jsonTraceback(self) -> None:
        """A traceback is one string."""
        self.logger("json").failure("x", failure=Failure(ValueError("why\x1b")))
        self.assertIn("ValueError: why\\x1b", self.object()["traceback"])

    @settings(deadline=None)
    @given(st.dictionaries(st.text(), st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=5,
    ), max_size=4), st.text())  # fmt: skip
    def test_anyEvent(self, fields: dict[str, Any], namespace: str) -> None:
        """Any event gives one line of valid JSON, or one line of text."""
        event = {
            **fields, "log_format": "{x}", "log_level": LogLevel.info, "log_namespace": namespace,
            "log_time": MOMENT,
        }  # fmt: skip
        text = logs.rendering.render_json(event)
        self.assertEqual(text.count("\n"), 1)
        json.loads(text, parse_constant=self.fail)
        text = logs.rendering.render_text(event)
        self.assertEqual(text.splitlines(), [text[:-1]])
        text.encode("utf-8")

    def test_legacyMessage(self) -> None:
        """Messages through twisted.python.log come as lines of the system that they name."""
        publisher = legacy_log.LogPublisher(publishPublisher=LogPublisher(self.observer()))
        publisher.msg("plain")
        publisher.msg("with\nbreak", system="Factory")
        lines = self.text().splitlines()
        self.assertRegex(lines[0], r"\A\S{24} INFO  twisted: plain\Z")
        self.assertRegex(lines[1], r"\A\S{24} INFO  Factory: with\\nbreak\Z")

    def test_legacyFailure(self) -> None:
        """Errors through twisted.python.log come with their traceback below."""
        publisher = legacy_log.LogPublisher(publishPublisher=LogPublisher(self.observer()))
        for why in ["Because", None]:
            publisher.msg(failure=Failure(ValueError("x")), why=why, isError=1)
        lines = self.text().splitlines()
        heads = [line for line in lines if not line.startswith("    ")]
        self.assertRegex(heads[0], r"\A\S{24} FATAL twisted: Because\Z")
        self.assertRegex(heads[1], r"\A\S{24} FATAL twisted: Unhandled Error\Z")
        self.assertEqual(len(heads), 2)
        self.assertIn("builtins.ValueError: x", "\n".join(lines))

    def test_legacyJson(self) -> None:
        """The old API's own keys are no fields."""
        publisher = legacy_log.LogPublisher(publishPublisher=LogPublisher(self.observer("json")))
        publisher.msg("plain", extra=1)
        result = self.object()
        del result["time"]
        self.assertEqual(result, {"level": "INFO", "namespace": "twisted", "message": "plain", "extra": 1})

    def test_asTwistdUsesIt(self) -> None:
        """It works behind Twisted's log beginner, print() included."""
        import io
        import sys
        import warnings

        class Sys:
            stdout, stderr = sys.stdout, sys.stderr

        publisher = LogPublisher()
        beginner = LogBeginner(publisher, io.StringIO(), Sys, warnings)
        self.addCleanup(setattr, warnings, "showwarning", warnings.showwarning)
        beginner.beginLoggingTo([self.observer()])
        print("printed", file=Sys.stdout)
        self.assertRegex(self.text(), r"INFO  stdout: printed\n\Z")

    def test_eventsWithoutLevel(self) -> None:
        """An event without a level is nobody's."""
        self.observer()({"log_format": "x"})
        self.assertEqual(self.text(), "")

    def test_lostLines(self) -> None:
        """Lost lines are reported with the next one that can be written."""
        log = self.logger()
        real = os.write
        self.patch(logs.file.os, "write", lambda fd, data: real(-1, data))
        log.info("1")
        log.info("2")
        self.patch(logs.file.os, "write", real)
        log.info("3")
        log.info("4")
        self.assertEqual(
            [line.partition(" ")[2] for line in self.text().splitlines()],
            [
                "ERROR logs: 2 lines of this log could not be written: Bad file descriptor",
                "INFO  tunnel.server: 3",
                "INFO  tunnel.server: 4",
            ],
        )

    def test_reopen(self) -> None:
        """Reopening follows the path."""
        observer = self.observer()
        os.rename(self.path, self.path + ".1")
        observer.reopen()
        Logger("n", observer=observer).info("x")  # type: ignore[arg-type]
        self.assertTrue(self.text().endswith("INFO  n: x\n"))

    def test_unknownFormat(self) -> None:
        """Formats are text and json."""
        error = self.assertRaises(ConfigError, make_observer, "stdout", "INFO", "xml")
        self.assertEqual(str(error), "'xml' is not a log format; use 'text' or 'json'")

    def test_cannotOpen(self) -> None:
        """The error names the path."""
        os.mkdir(self.path)
        error = self.assertRaises(ConfigError, make_observer, self.path)
        self.assertIn(repr(self.path), str(error))


class WordingTests(SynchronousTestCase):
    """Words for operators."""

    def test_loss(self) -> None:
        for error, expected in (
            (ConnectionDone(), "the other end closed the connection"),
            (ConnectionDone("Connection done"), "the other end closed the connection"),
            (ConnectionDone("the agent says so"), "the agent says so"),
            (ConnectionLost("Connection lost"), "the connection broke off"),
            (ConnectionLost(), "the connection broke off"),
            (ConnectionLost("no answer to a ping"), "no answer to a ping"),
            (ConnectionAborted(), "we have cut it off"),
            (ConnectionRefusedError(), "nothing listens there (connection refused)"),
            (DNSLookupError("no results for hostname lookup"), "its name can't be looked up"),
            (ConnectError(osError=113), "No route to host"),
            (ConnectError(), "An error occurred while connecting"),
            (OSError(104, "Connection reset by peer"), "Connection reset by peer"),
            (ValueError("odd"), "odd"),
        ):
            self.assertEqual(loss(Failure(error)), expected)

    def test_said(self) -> None:
        """What peers say stands behind the rest of a line, if they say anything."""
        self.assertEqual((said(b""), said(b"go \xff"), said("away")), ("", ", go \ufffd", ", away"))

    def test_counted(self) -> None:
        self.assertEqual([counted(n, "host") for n in (0, 1, 2)], ["0 hosts", "1 host", "2 hosts"])


class ThrottleTests(SynchronousTestCase):
    """L{Throttle}."""

    def test_burst(self) -> None:
        """So many pass at once, then so many per second."""
        clock = Clock()
        throttle = Throttle(clock, 2.0, 3)
        self.assertEqual([throttle.allow() for _ in range(5)], [True, True, True, False, False])
        clock.advance(0.5)
        self.assertEqual([throttle.allow() for _ in range(2)], [True, False])
        clock.advance(100)
        self.assertEqual([throttle.allow() for _ in range(4)], [True, True, True, False])

    def test_suppressed(self) -> None:
        """After one passes, it is known how many did not."""
        clock = Clock()
        throttle = Throttle(clock, 1.0)
        self.assertTrue(throttle.allow())
        self.assertEqual(throttle.suppressed, 0)
        for _ in range(3):
            self.assertFalse(throttle.allow())
        self.assertEqual(throttle.suppressed, 0)
        clock.advance(1)
        self.assertTrue(throttle.allow())
        self.assertEqual(throttle.suppressed, 3)
        clock.advance(1)
        self.assertTrue(throttle.allow())
        self.assertEqual(throttle.suppressed, 0)

    def test_clockSetBack(self) -> None:
        """A clock that goes back neither takes nor gives."""
        clock = Clock()
        clock.advance(100)
        throttle = Throttle(clock, 1.0, 2)
        self.assertTrue(throttle.allow())
        clock.rightNow = 50.0
        self.assertEqual([throttle.allow(), throttle.allow()], [True, False])
        clock.advance(1)
        self.assertTrue(throttle.allow())

    def test_nothing(self) -> None:
        """A throttle that never lets anything pass is a mistake."""
        for rate, burst in [(0.0, 1), (-1.0, 1), (float("nan"), 1), (1.0, 0)]:
            self.assertRaises(ValueError, Throttle, Clock(), rate, burst)

    @settings(deadline=None)
    @given(
        st.floats(0.1, 100),
        st.integers(1, 10),
        st.lists(st.tuples(st.floats(0, 2), st.integers(0, 20)), max_size=20),
    )
    def test_neverMore(self, rate: float, burst: int, steps: list[tuple[float, int]]) -> None:
        """However they come, no more than the bucket holds pass; all others are counted."""
        clock = Clock()
        throttle = Throttle(clock, rate, burst)
        asked = passed = counted = 0
        for wait, events in steps:
            clock.advance(wait)
            for _ in range(events):
                asked += 1
                if throttle.allow():
                    passed += 1
                    counted += throttle.suppressed
        self.assertLessEqual(passed, burst + rate * clock.seconds() + 1e-6)
        self.assertEqual(asked, passed + counted + throttle._denied)


class BoundsTests(SynchronousTestCase):
    """A log that somebody floods."""

    def setUp(self) -> None:
        self.path = self.mktemp()
        self.now = 0.0
        renderers = {"text": logs.rendering.render_text, "json": logs.rendering.render_json}
        bounds = LogBounds(100_000, lambda: self.now)
        self.observer = LogObserver(LogFile(self.path), "DEBUG", renderers["text"], bounds=bounds)
        self.addCleanup(self.observer.close)
        self.log = Logger("reverseproxy.tls", observer=self.observer)  # type: ignore[arg-type]

    def test_a_flood(self) -> None:
        """It has its bound, others are heard, and it is said how many lines were left out."""
        for _ in range(100_000):
            self.log.info("handshake of {peer} failed", peer="10.0.0.7:1")
        self.assertLess(os.path.getsize(self.path), 50_000)
        self.log.error("the certificate expires")
        self.assertIn("ERROR tls: the certificate expires", read(self.path).splitlines()[-1])
        before = len(read(self.path).splitlines())
        self.now += 600.0
        self.log.info("handshake of {peer} failed", peer="10.0.0.8:1")
        notice, line = read(self.path).splitlines()[-2:]
        self.assertIn(
            f"WARN  logs: {100_001 - before} lines like the next one were left out, as a log has its bounds",
            notice,
        )
        self.assertIn("handshake of 10.0.0.8:1 failed", line)

    def test_long_lines(self) -> None:
        """Bytes are bounded, not lines alone."""
        for number in range(100):
            for text in range(10):
                self.log.warn(f"refused {text} {{name}}", name=f"{number}" * 4000)
        self.assertLess(os.path.getsize(self.path), 100_000)

    def test_debugging(self) -> None:
        """Who wants every detail gets it."""
        for _ in range(20_000):
            self.log.debug("{x}", x="y" * 100)
        self.assertEqual(len(read(self.path).splitlines()), 20_000)
        self.log.info("still heard")
        self.log.info("still heard")
        self.assertEqual(len(read(self.path).splitlines()), 20_002)

    def test_names(self) -> None:
        self.assertEqual(logs.shorten("x" * 64), "x" * 64)
        self.assertEqual(logs.shorten("x" * 255), "x" * 61 + "...")


class WorkerTests(SynchronousTestCase):
    """Several processes that write to the same place."""

    def lines(self, fmt: str, worker: int) -> str:
        path = self.mktemp()
        observer = make_observer(path, "INFO", fmt, worker)
        self.addCleanup(observer.close)
        Logger("reverseproxy.tap", observer=observer).info("hello {worker}", worker="field")
        return Path(path).read_text()

    def test_text(self) -> None:
        """The number stands before the namespace."""
        self.assertRegex(self.lines("text", 2), r"\A\S{24} INFO  \[2\] tap: hello field\n\Z")
        self.assertRegex(self.lines("text", 0), r"\A\S{24} INFO  tap: hello field\n\Z")

    def test_json(self) -> None:
        """The number is a field of its own, whatever else is called so."""
        line = json.loads(self.lines("json", 2))
        self.assertEqual((line["worker"], line["worker_"]), (2, "field"))

    def test_wholeLines(self) -> None:
        """A pipe is given whole lines at a time, between which another process may write."""
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        self.addCleanup(os.close, writer)
        self.patch(logs.file, "_STANDARD_STREAMS", {"stdout": writer})
        file = LogFile("stdout")
        pieces: list[bytes] = []
        self.patch(os, "write", lambda fd, data: pieces.append(bytes(data)) or len(data))
        line = b"x" * 999 + b"\n"
        file.write(line * 10)
        self.assertEqual(b"".join(pieces), line * 10)
        self.assertGreater(len(pieces), 1)
        for piece in pieces:
            self.assertTrue(piece.endswith(b"\n"))
        pieces.clear()
        file.write(b"y" * 9999 + b"\n")  # no line can be longer than that and whole
        self.assertEqual(b"".join(pieces), b"y" * 9999 + b"\n")
