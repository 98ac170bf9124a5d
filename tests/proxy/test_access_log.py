"""Tests for L{reverseproxy.proxy.access}."""

from __future__ import annotations

import errno
import json
import os
import time
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy import logs
from reverseproxy.errors import ConfigError
from reverseproxy.identity import AgentIdentity, CertificateSubject
from reverseproxy.metrics import Destination
from reverseproxy.proxy.access import AccessLog, AccessRecord
from reverseproxy.proxy.access import log as access_log
from reverseproxy.proxy.access.formats import MOSN_FORMAT
from reverseproxy.proxy.access.record import Client, RequestDetails, Times, UpstreamDetails
from reverseproxy.proxy.flags import ResponseFlag

#: 2026-07-14T12:00:00.123Z
MOMENT = 1784030400.1234


_PARTS: dict[str, tuple[type[Any], dict[str, str]]] = {
    "client": (Client, {"remote": "remote", "local": "local", "connection_id": "number"}),
    "request": (
        RequestDetails,
        {name: name for name in ("method", "path", "query", "host", "scheme", "service")}
        | {"rpc_method": "operation", "request_headers": "headers"},
    ),
    "rule": (Destination, {"route": "route", "virtual_host": "virtual_host"}),
    "upstream": (
        UpstreamDetails,
        {"upstream_host": "host", "upstream_server": "server", "upstream_local": "local"}
        | {"upstream_connection_id": "connection"}
        | {name: name for name in ("cluster", "agent", "attempts")},
    ),
    "times": (
        Times,
        {"waited": "waited", "dialled": "dialled"}
        | {"request_received": "sent", "response_received": "answered"},
    ),
}


def record_of(protocol: str, **known: Any) -> AccessRecord:
    """A record of all that is known, by the names that lines in JSON have for it."""
    parts = {
        part: kind(**{name: known.pop(key) for key, name in names.items() if key in known})
        for part, (kind, names) in _PARTS.items()
    }
    return AccessRecord(protocol, **parts, **known)


def full_record(**changes: Any) -> AccessRecord:
    """A record in which everything is known."""
    values: dict[str, Any] = {
        "protocol": "Http1",
        "start": MOMENT,
        "duration": 0.25,
        "method": "GET",
        "path": "/a/b",
        "query": "x=1&y=2",
        "host": "example.com",
        "scheme": "https",
        "status": 200,
        "bytes_received": 12,
        "bytes_sent": 3456,
        "remote": "10.0.0.7:50000",
        "local": "10.0.0.1:443",
        "upstream_host": "backend-1",
        "upstream_local": "10.0.0.1:40000",
        "cluster": "shop",
        "flag": "",
        "request_received": 0.0015,
        "response_received": 0.0025,
        "connection_id": 7,
        "upstream_connection_id": 8,
        "request_headers": {"user-agent": "curl/8", "referer": ""}.get,
        "response_headers": {"content-type": "text/plain"}.get,
    }
    return record_of(**{**values, **changes})


class AccessLogTestCase(SynchronousTestCase):
    """What the test cases share."""

    def setUp(self) -> None:
        # Start times are local ones.
        before = os.environ.get("TZ")
        os.environ["TZ"] = "UTC"
        time.tzset()

        def restore() -> None:
            if before is None:
                del os.environ["TZ"]
            else:
                os.environ["TZ"] = before
            time.tzset()

        self.addCleanup(restore)
        self.clock = Clock()
        self.clock.advance(MOMENT)
        self.path = self.mktemp()

    def log(self, fmt: str = "", listener: str = "ingress") -> AccessLog:
        """An access log at the path."""
        log = AccessLog(self.path, fmt, self.clock, listener, wall=self.clock.seconds)
        self.addCleanup(log.close)
        return log

    def text(self) -> str:
        """What was written."""
        with open(self.path, encoding="utf-8", newline="") as file:
            return file.read()

    def line(self, fmt: str, record: AccessRecord) -> str:
        """What one record gives, without the line break."""
        log = self.log(fmt)
        log.write(record)
        log.close()
        text = self.text()
        os.remove(self.path)
        self.assertEqual(text[-1], "\n")
        return text[:-1]


class WorkerTests(AccessLogTestCase):
    """Which of several workers a line is of."""

    def worker(self, fmt: str, worker: int) -> str:
        log = AccessLog(self.path, fmt, self.clock, "ingress", worker=worker)
        log.write(full_record())
        log.close()
        text = self.text()
        os.remove(self.path)
        return text

    def test_text(self) -> None:
        self.assertEqual(self.worker("%worker% %method%", 2), "2 GET\n")
        self.assertEqual(self.worker("%worker%", 0), "-\n")

    def test_json(self) -> None:
        self.assertEqual(json.loads(self.worker("json", 2))["worker"], 2)
        self.assertNotIn("worker", json.loads(self.worker("json", 0)))


class AgentTests(AccessLogTestCase):
    """Who has brought the host: what is proved, and what is claimed."""

    SUBJECT = CertificateSubject("x509:ab", "CN=edge-7", ("DNS:edge-7.example",))
    FORMAT = "%agent% %agent_certificate% %agent_policy% %agent_id% %agent_claim%"

    def test_text(self) -> None:
        agent = AgentIdentity("edge-7", "static", self.SUBJECT, "box 1", "0123456789ab", 1)
        self.assertEqual(
            self.line(self.FORMAT, full_record(agent=agent)),
            "token:edge-7 CN=edge-7 static 0123456789ab box 1",
        )

    def test_unproved(self) -> None:
        agent = AgentIdentity(claim='token:admin"')
        self.assertEqual(self.line(self.FORMAT, full_record(agent=agent)), 'unproved - - - token:admin\\"')

    def test_no_agent(self) -> None:
        self.assertEqual(self.line(self.FORMAT, full_record()), "- - - - -")

    def test_known_variables(self) -> None:
        self.assertEqual(self.log(self.FORMAT).warnings, ())

    def test_json(self) -> None:
        agent = AgentIdentity(certificate=self.SUBJECT, claim="box", agent_id="0123456789ab")
        found = json.loads(self.line("json", full_record(agent=agent)))
        self.assertEqual(
            {key: value for key, value in found.items() if key.startswith("agent")},
            {"agent": "certificate:CN=edge-7", "agent_id": "0123456789ab", "agent_claim": "box"},
        )


class FormatTests(AccessLogTestCase):
    """C{log_format}."""

    def test_default(self) -> None:
        """The default is MOSN's line, with what it lacks behind it."""
        line = (
            "2026/07/14 12:00:00.123 -  7 8 1.5ms 2.5ms 3456 12 Http1 200 250ms false 200 "
            "10.0.0.1:40000 10.0.0.1:443 10.0.0.7:50000 backend-1"
        )
        for fmt in ("mosn", MOSN_FORMAT):
            self.assertEqual(self.line(fmt, full_record()), line)
        self.assertEqual(self.line("", full_record()), f'{line} "GET /a/b?x=1&y=2" - - -')
        agent = AgentIdentity("edge-7", "static")
        record = full_record(agent=agent, flags=ResponseFlag.UC, flag="lost", route="shop[2]")
        self.assertTrue(self.line("", record).endswith(' "GET /a/b?x=1&y=2" UC token:edge-7 shop[2]'))

    def test_words(self) -> None:
        """A format for people, which says each thing once."""
        record = full_record(agent=AgentIdentity("edge-7", "static"), route="shop[2]")
        self.assertEqual(
            self.line("text", record),
            '2026-07-14T12:00:00.123Z 10.0.0.7:50000 "GET /a/b?x=1&y=2" 200 - 250ms 12 3456 token:edge-7 '
            "backend-1 shop shop[2] -",
        )
        self.assertEqual(
            self.line("text", record_of("tcp", start=MOMENT, remote="10.0.0.7:5")),
            '2026-07-14T12:00:00.123Z 10.0.0.7:5 "-" 0 - 0s 0 0 - - - - -',
        )

    def test_leastKnown(self) -> None:
        """What is not known is C{-}, numbers are 0; the time is that of writing."""
        self.assertEqual(
            self.line("", record_of("tcp", duration=0.123)),
            '2026/07/14 12:00:00.000 -  - - 0s 0s 0 0 tcp 0 123ms false 0 - - - - "-" - - -',
        )

    def test_variables(self) -> None:
        """Every variable, under all its names."""
        record = full_record(
            flag="no host",
            flags=ResponseFlag.UH | ResponseFlag.URX,
            route="shop[2]",
            virtual_host="shop",
            attempts=3,
            waited=0.5,
            dialled=0.001,
        )
        for names, expected in [
            (["start_time"], "2026/07/14 12:00:00.123"),
            (["duration"], "250ms"),
            (["request_received_duration"], "1.5ms"),
            (["response_received_duration"], "2.5ms"),
            (["bytes_received"], "12"),
            (["bytes_sent"], "3456"),
            (["protocol"], "Http1"),
            (["response_code"], "200"),
            (["response_flag", "response_flags"], "true"),
            (["downstream_remote_address"], "10.0.0.7:50000"),
            (["downstream_local_address"], "10.0.0.1:443"),
            (["upstream_host"], "backend-1"),
            (["upstream_local_address"], "10.0.0.1:40000"),
            (["upstream_cluster"], "shop"),
            (["upstream_transport_failure_reason", "reason"], "no host"),
            (["flags"], "UH,URX"),
            (["flags_long"], "NoHealthyUpstream,UpstreamRetryLimitExceeded"),
            (["route_name", "route"], "shop[2]"),
            (["virtual_host"], "shop"),
            (["attempts"], "3"),
            (["host_wait_duration"], "500ms"),
            (["connect_duration"], "1ms"),
            (["request_finished_duration"], "250ms"),
            (["process_time_duration"], "249ms"),
            (["time"], "2026-07-14T12:00:00.123Z"),
            (["request"], "GET /a/b?x=1&y=2"),
            (["Http2_cookie_a", "Http2_request_path"], "-"),
            (["Http1_request_arg_y"], "2"),
            (["connection_id"], "7"),
            (["upstream_connection_id"], "8"),
            (["trace_id"], "-"),
            (["listener_name"], "ingress"),
            (
                [
                    "request_header_User-Agent",
                    "request_header_user-agent",
                    "Http1_request_header_USER-AGENT",
                ],
                "curl/8",
            ),
            (["request_header_referer", "request_header_x-none", "response_header_x-none"], "-"),
            (["response_header_Content-Type"], "text/plain"),
            (["x-mosn-method", "Http1_request_method", "http_request_method", "method"], "GET"),
            (
                [
                    "x-mosn-path",
                    "x-mosn-path-original",
                    "Http1_request_path",
                    "Http1_request_path_original",
                    "path",
                ],
                "/a/b",
            ),
            (["x-mosn-querystring", "Http1_request_arg", "query"], "x=1&y=2"),
            (["Http1_request_uri", "uri"], "/a/b?x=1&y=2"),
            (["x-mosn-host", "authority", "host"], "example.com"),
            (["x-mosn-scheme", "Http1_request_scheme", "scheme"], "https"),
        ]:
            for name in names:
                self.assertEqual(self.line(f"[%{name}%]", record), f"[{expected}]", name)
                self.assertEqual(self.log(f"%{name}%").warnings, ())

    def test_protocols(self) -> None:
        """What belongs to one protocol has a value for that one only; RPC has services."""
        record = full_record(protocol="Http2", request_headers={"cookie": "a=1; b=2"}.get)
        self.assertEqual(
            self.line("%Http2_cookie_b% %Http1_cookie_b% %Http2_request_arg_x%", record),
            "2 - 1",
        )
        record = record_of("bolt", service="shop.Orders", rpc_method="find")
        self.assertEqual(self.line("%request%", record), "shop.Orders.find")
        self.assertEqual(self.line("%request%", record_of("bolt", service="shop.Orders")), "shop.Orders")

    def test_trace(self) -> None:
        """The trace that we have made spans for, or else that which the request claims to be of."""
        theirs = "4bf92f3577b34da6a3ce929d0e0e4736"
        headers = {"traceparent": f"00-{theirs}-00f067aa0ba902b7-01"}.get
        self.assertEqual(self.line("%trace_id%", full_record(request_headers=headers)), theirs)
        record = full_record(request_headers=headers, trace_id="a" * 32)
        self.assertEqual(self.line("%trace_id%", record), "a" * 32)
        self.assertEqual(json.loads(self.line("json", record))["trace_id"], "a" * 32)

    def test_noHeaders(self) -> None:
        """A session without headers has none."""
        record = record_of("tcp")
        self.assertEqual(self.line("%request_header_a%%response_header_a%", record), "--")

    def test_uriWithoutQuery(self) -> None:
        """Without a query there is no question mark."""
        self.assertEqual(self.line("%uri%", full_record(query="")), "/a/b")

    def test_unknown(self) -> None:
        """Unknown variables give C{-} and a warning, as do header variables without a name."""
        log = self.log("%nonsense% %method% %request_header_%")
        self.assertEqual(
            [str(warning) for warning in log.warnings],
            [
                'log_format: the variable "%nonsense%" is not known and gives "-"',
                'log_format: the variable "%request_header_%" is not known and gives "-"',
            ],
        )
        self.assertEqual(self.line("%nonsense% %method% %request_header_%", full_record()), "- GET -")

    def test_text(self) -> None:
        """Text is copied; only control characters other than tabs are escaped."""
        for fmt, expected in [
            ("plain", "plain"),
            ("%method%", "GET"),
            ("a%method%b%method%c", "aGETbGETc"),
            ("%method%%method%", "GETGET"),
            ("\t%method%\t", "\tGET\t"),
            ('"%method%"\n', '"GET"'),
            ("a\nb%method%", "a\\nbGET"),
            ("{%method%} é", "{GET} é"),
            # a percent sign behind a backslash is text; the backslash stays, as in MOSN
            ("100\\% %method%", "100\\% GET"),
            ("%method%\\%s", "GET\\%s"),
        ]:
            self.assertEqual(self.line(fmt, full_record()), expected, fmt)

    def test_refused(self) -> None:
        """A variable without an end or a name is an error."""
        for fmt, message in [
            ("%method", 'the variable "%method" has no "%" at its end'),
            ("a %method% %x", 'the variable "%x" has no "%" at its end'),
            ("%", 'the variable "%" has no "%" at its end'),
            ("%%", '"%%" is a variable without a name; for a percent sign write "\\%"'),
        ]:
            error = self.assertRaises(ConfigError, AccessLog, self.path, fmt, self.clock)
            self.assertEqual(str(error), f"log_format: {fmt!r}: {message}")
        self.assertFalse(os.path.exists(self.path))

    def test_durations(self) -> None:
        """Durations look like Go's."""
        for seconds, expected in [
            (0.0, "0s"),
            (0.000000001, "1ns"),
            (0.0000015, "1.5µs"),
            (0.0005, "500µs"),
            (0.001, "1ms"),
            (0.0012345, "1.2345ms"),
            (0.123456, "123.456ms"),
            (0.123456789, "123.457ms"),
            (0.99995, "999.95ms"),
            (1.0, "1s"),
            (61.5, "1m1.5s"),
            (3600.0, "1h0m0s"),
        ]:
            self.assertEqual(self.line("%duration%", full_record(duration=seconds)), expected)

    def test_startTimes(self) -> None:
        """The calendar part follows the second, in whatever order."""
        log = self.log("%start_time%")
        for start in [MOMENT, MOMENT + 0.5, MOMENT + 1, MOMENT, 1784030399.9999]:
            log.write(full_record(start=start))
        log.flush()
        self.assertEqual(
            self.text().splitlines(),
            [
                "2026/07/14 12:00:00.123",
                "2026/07/14 12:00:00.623",
                "2026/07/14 12:00:01.123",
                "2026/07/14 12:00:00.123",
                "2026/07/14 11:59:59.999",
            ],
        )

    def test_localTime(self) -> None:
        """Start times are in the process's time zone."""
        os.environ["TZ"] = "UTC-2"
        time.tzset()
        self.assertEqual(self.line("%start_time%", full_record()), "2026/07/14 14:00:00.123")

    def test_escaping(self) -> None:
        """Peers can't end a quoted value or a line."""
        record = full_record(
            method="G\nT", path='/"\\', host="\x1b[2J", request_headers=lambda name: "\udcff\u2028\r\n"
        )
        self.assertEqual(
            self.line('%method% "%path%" %host% %request_header_a%', record),
            'G\\nT "/\\"\\\\" \\x1b[2J \\xff\\u2028\\r\\n',
        )

    def test_longValues(self) -> None:
        """Long values are cut."""
        self.assertEqual(self.line("%path%", full_record(path="a" * 5000)), "a" * 4096 + "...")

    @settings(deadline=None)
    @given(st.text(), st.text(), st.text(), st.text())
    def test_oneLine(self, method: str, path: str, header: str, flag: str) -> None:
        """Whatever is in a record, it gives exactly one line, whose quoted parts end at their quotes."""
        record = full_record(method=method, path=path, flag=flag, request_headers=lambda name: header)
        log = AccessLog(
            "/dev/null",
            '"%method%" "%uri%" "%request_header_a%" "%upstream_transport_failure_reason%"',
            self.clock,
        )
        self.addCleanup(log.close)
        text = log._format(record)
        self.assertEqual(text[-1], "\n")
        self.assertTrue(text[:-1].isprintable())
        text.encode("utf-8")
        self.assertRegex(text, r'\A(?:"(?:[^"\\]|\\.)*" ){3}"(?:[^"\\]|\\.)*"\n\Z')

    @settings(deadline=None)
    @given(st.text())
    def test_anyFormat(self, fmt: str) -> None:
        """A format is refused, or gives exactly one line for each record."""
        if fmt == "json":
            return
        try:
            log = AccessLog("/dev/null", fmt, self.clock)
        except ConfigError:
            return
        self.addCleanup(log.close)
        text = log._format(full_record())
        self.assertEqual(text.splitlines(), [text[:-1]])
        text.encode("utf-8")


class JsonTests(AccessLogTestCase):
    """The format C{json}."""

    def object(self, record: AccessRecord) -> dict[str, Any]:
        """The object for one record."""
        result = json.loads(self.line("json", record))
        assert isinstance(result, dict)
        return result

    def test_full(self) -> None:
        """All that is known is there."""
        self.assertEqual(
            self.object(
                full_record(
                    flag="timeout",
                    flags=ResponseFlag.UT,
                    route="shop[2]",
                    virtual_host="shop",
                    attempts=2,
                    waited=0.5,
                    dialled=0.25,
                )
            ),
            {
                "time": "2026-07-14T12:00:00.123Z",
                "listener": "ingress",
                "protocol": "Http1",
                "remote": "10.0.0.7:50000",
                "local": "10.0.0.1:443",
                "method": "GET",
                "scheme": "https",
                "host": "example.com",
                "path": "/a/b",
                "query": "x=1&y=2",
                "status": 200,
                "duration": 0.25,
                "request_received": 0.0015,
                "response_received": 0.0025,
                "bytes_received": 12,
                "bytes_sent": 3456,
                "cluster": "shop",
                "upstream_host": "backend-1",
                "upstream_local": "10.0.0.1:40000",
                "flag": "timeout",
                "flags": "UT",
                "route": "shop[2]",
                "virtual_host": "shop",
                "attempts": 2,
                "host_wait": 0.5,
                "connect": 0.25,
                "connection_id": 7,
                "upstream_connection_id": 8,
                "user_agent": "curl/8",
            },
        )

    def test_least(self) -> None:
        """What is not known is left out; numbers that count something are not."""
        for record in [
            record_of("tcp", start=MOMENT),
            record_of("tcp", start=MOMENT, request_headers={}.get),
        ]:
            self.assertEqual(
                self.object(record),
                {
                    "time": "2026-07-14T12:00:00.123Z",
                    "listener": "ingress",
                    "protocol": "tcp",
                    "status": 0,
                    "duration": 0.0,
                    "bytes_received": 0,
                    "bytes_sent": 0,
                },
            )

    def test_longValues(self) -> None:
        """Long values are cut."""
        self.assertEqual(self.object(full_record(path="a" * 5000))["path"], "a" * 4096 + "...")

    @settings(deadline=None)
    @given(st.text(max_size=100), st.text(max_size=100))
    def test_oneLine(self, path: str, header: str) -> None:
        """Text survives as it is, but for bytes that are no text."""
        log = AccessLog("/dev/null", "json", self.clock)
        self.addCleanup(log.close)
        text = log._format(full_record(path=path, request_headers=lambda name: header))
        self.assertTrue(text.isascii())
        self.assertEqual(text.count("\n"), 1)
        result = json.loads(text)
        for key, value in [("path", path), ("user_agent", header)]:
            expected = value.encode("utf-8", "backslashreplace").decode("utf-8")
            self.assertEqual(result.get(key, ""), expected)


class WritingTests(AccessLogTestCase):
    """When and how lines are written."""

    def setUp(self) -> None:
        super().setUp()
        self.writes: list[bytes] = []
        self.error: OSError | None = None
        real = os.write

        def write(fd: int, data: bytes) -> int:
            if self.error is not None:
                raise self.error
            self.writes.append(data)
            return real(fd, data)

        self.patch(logs.file.os, "write", write)
        self.events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)

    def observe(self, event: dict[str, Any]) -> None:
        """Collect what is logged about access logs."""
        if event.get("log_namespace") == access_log.__name__:
            self.events.append(event)

    def test_oneWriteForEachTurn(self) -> None:
        """All records of a turn of the reactor are written at once, in the next turn."""
        log = self.log("%path%")
        for path in ["1", "2", "3"]:
            log.write(full_record(path=path))
        self.assertEqual(self.writes, [])
        self.clock.advance(0)
        self.assertEqual(self.writes, [b"1\n2\n3\n"])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        log.write(full_record(path="4"))
        self.clock.advance(0)
        self.assertEqual(self.writes, [b"1\n2\n3\n", b"4\n"])

    def test_flush(self) -> None:
        """Flushing writes at once, and nothing twice."""
        log = self.log("%path%")
        log.write(full_record(path="1"))
        log.flush()
        self.clock.advance(0)
        self.assertEqual(self.writes, [b"1\n"])

    def test_close(self) -> None:
        """Closing writes what is pending and leaves nothing behind; later records are lost."""
        log = self.log("%path%")
        log.write(full_record(path="1"))
        log.close()
        log.close()
        log.reopen()
        log.write(full_record(path="2"))
        self.assertEqual((self.text(), log.lost, self.clock.getDelayedCalls()), ("1\n", 1, []))

    def test_reopen(self) -> None:
        """Reopening writes what is pending to the old file first."""
        log = self.log("%path%")
        log.write(full_record(path="1"))
        os.rename(self.path, self.path + ".1")
        log.reopen()
        log.write(full_record(path="2"))
        self.clock.advance(0)
        self.assertEqual(self.text(), "2\n")
        self.path += ".1"
        self.assertEqual(self.text(), "1\n")

    def test_bounded(self) -> None:
        """More lines in one turn than the buffer holds are lost, and reported."""
        self.patch(access_log, "MAX_PENDING", 8)
        log = self.log("%path%")
        for i in range(10):
            log.write(full_record(path=f"{i}{i}{i}"))
        self.clock.advance(0)
        self.assertEqual((self.text(), log.lost), ("000\n111\n", 8))
        [event] = self.events
        self.assertEqual((event["lost"], event["reason"]), (8, "too many at once"))

    def test_diskFull(self) -> None:
        """Lost lines are reported, but not each time."""
        log = self.log("%path%")
        self.error = OSError(errno.ENOSPC, "No space left on device")
        for _ in range(3):
            log.write(full_record())
            self.clock.advance(0)
        self.assertEqual(log.lost, 3)
        [event] = self.events
        self.assertIs(event["log_level"], LogLevel.error)
        self.assertEqual(
            (event["lost"], event["path"], event["reason"]), (1, self.path, "No space left on device")
        )
        self.clock.advance(60)
        log.write(full_record())
        self.clock.advance(0)
        self.assertEqual([event["lost"] for event in self.events], [1, 3])
        self.error = None
        log.write(full_record(path="again"))
        self.clock.advance(0)
        self.assertEqual((self.text(), log.lost), ("again\n", 4))

    def test_fullPipe(self) -> None:
        """When a pipe is full, its lines are tried again until it takes them."""
        log = self.log("%path%")
        self.error = BlockingIOError()
        log.write(full_record(path="1"))
        self.clock.advance(0)
        self.clock.advance(access_log.RETRY_DELAY)
        log.write(full_record(path="2"))
        self.error = None
        self.clock.advance(access_log.RETRY_DELAY)
        self.assertEqual((self.text(), log.lost), ("1\n2\n", 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cannotOpen(self) -> None:
        """The error names the path, its key and the reason."""
        os.mkdir(self.path)
        error = self.assertRaises(ConfigError, AccessLog, self.path, "", self.clock)
        self.assertEqual(str(error), f"log_path: the log file {self.path!r} can't be opened: Is a directory")

    def test_defaultPath(self) -> None:
        """Without a path it is named for the listener, in the current directory."""
        os.mkdir(self.path)
        here = os.getcwd()
        self.addCleanup(os.chdir, here)
        os.chdir(self.path)
        for listener, name in [("ingress", "ingress_access.log"), ("../a/b", ".._a_b_access.log")]:
            log = AccessLog("", "", self.clock, listener)
            log.close()
            self.assertEqual(log.path, name)
            self.assertTrue(os.path.exists(name))

    def test_stdout(self) -> None:
        """C{stdout} is standard output, which stays open."""
        written: list[tuple[int, bytes]] = []
        self.patch(logs.file.os, "write", lambda fd, data: written.append((fd, data)) or len(data))
        log = AccessLog("stdout", "%path%", self.clock)
        log.write(full_record(path="1"))
        log.close()
        self.assertEqual(written, [(1, b"1\n")])
        os.fstat(1)
