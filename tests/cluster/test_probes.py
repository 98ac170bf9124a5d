"""Tests for L{reverseproxy.cluster.health.probes}."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from reverseproxy.cluster.health.checks import IHealthChecker
from reverseproxy.cluster.health.http_probes import HttpChecker
from reverseproxy.cluster.health.probes import CheckFailed, TcpChecker, make_checker
from reverseproxy.config.models import (
    CheckConfig,
    HealthCheckConfig,
    HttpCheckConfig,
    StatusRangeConfig,
)
from reverseproxy.errors import HostGone
from tests.cluster.fakes import FakeHost, Gone, IdleUser, Pool, Users, Wire, reverse_host

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class DialledHost(FakeHost):
    """A host whose connections the test plays."""

    def __init__(self, address: str = "10.0.0.1:80") -> None:
        super().__init__(address)
        self.wires: list[Wire] = []
        self.error: Exception | None = None

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        if self.error is not None:
            return fail(self.error)
        protocol = factory.buildProtocol(None)
        self.wires.append(Wire(protocol))
        assert protocol is not None
        return succeed(protocol)


class TcpTests(SynchronousTestCase):
    def test_connected(self) -> None:
        """To be connected is enough; the connection is not kept."""
        host, checker = DialledHost(), TcpChecker()
        verifyObject(IHealthChecker, checker)
        self.assertTrue(checker.wants(host))
        self.assertIsNone(self.successResultOf(checker.check(host)))
        self.assertTrue(host.wires[0].aborted)

    def test_refused(self) -> None:
        host = DialledHost()
        host.error = ConnectionRefusedError()
        self.failureResultOf(TcpChecker().check(host), ConnectionRefusedError)

    def test_reverse(self) -> None:
        """A reverse host is connected, or gone."""
        host, _ = reverse_host(Gone(), Clock())
        self.assertFalse(TcpChecker().wants(host))


class HttpCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.host = DialledHost()

    def check(self, answer: bytes, config: HttpCheckConfig | None = None, end: bool = False) -> str:
        """
        Check a host that is dialled.

        @return: why it has failed; empty if it has passed.
        """
        verdict = HttpChecker(config).check(self.host)
        wire = self.host.wires[-1]
        for index in range(len(answer)):
            if not wire.aborted:
                wire.receive(answer[index : index + 1])
        if end:
            wire.end()
        results: list[Any] = []
        verdict.addBoth(results.append)
        self.assertEqual(len(results), 1)
        self.assertTrue(wire.aborted)
        return "" if results[0] is None else str(results[0].value)


class HttpTests(HttpCase):
    def test_interface(self) -> None:
        verifyObject(IHealthChecker, HttpChecker())
        self.assertTrue(HttpChecker().wants(self.host))

    def test_request(self) -> None:
        """By default it asks for /, and for the connection to be closed."""
        self.check(OK)
        self.assertEqual(
            self.host.wires[0].value(),
            b"GET / HTTP/1.1\r\nHost: 10.0.0.1:80\r\nUser-Agent: reverseproxy\r\nConnection: close\r\n\r\n",
        )

    def test_configured_request(self) -> None:
        """Method, path and Host can be told; whatever the path is, it makes one line."""
        for path, sent in (
            ("", b"/"),
            ("health", b"/health"),
            ("//a?b=c&d", b"/a?b=c&d"),
            ("/a b\r\nX: y\u00e9", b"/a%20b%0D%0AX:%20y%C3%A9"),
        ):
            config = HttpCheckConfig(path=path, method="HEAD", domain="service.example")
            self.check(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", config)
            head = self.host.wires[-1].value().split(b"\r\n")
            self.assertEqual(head[:2], [b"HEAD " + sent + b" HTTP/1.1", b"Host: service.example"])

    def test_unix(self) -> None:
        """A socket's path is no Host."""
        self.host.address = "unix:/run/service"
        self.check(OK)
        self.assertIn(b"\r\nHost: localhost\r\n", self.host.wires[0].value())

    def test_statuses(self) -> None:
        """Without a configuration, every answer below 500 is a good one."""
        for status, passes in ((200, True), (302, True), (404, True), (500, False), (503, False)):
            reason = self.check(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status)
            self.assertEqual(reason, "" if passes else f"it has answered {status}")

    def test_configured_statuses(self) -> None:
        """With one, it is 200, or the statuses that are given."""
        codes = (StatusRangeConfig(start=200, end=299), StatusRangeConfig(start=404, end=404))
        for config, good in (
            (HttpCheckConfig(), [200]),
            (HttpCheckConfig(codes=codes), [200, 204, 299, 404]),
        ):
            for status in (200, 204, 299, 302, 404, 500):
                reason = self.check(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status, config)
                self.assertEqual(reason == "", status in good)

    def test_interim(self) -> None:
        """Interim answers are no answers."""
        self.assertEqual(self.check(b"HTTP/1.1 100 Continue\r\n\r\n" + OK), "")

    def test_no_http(self) -> None:
        """What is not HTTP is no answer."""
        self.assertNotEqual(self.check(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), "")

    def test_lost(self) -> None:
        """Nor is a connection that is lost before there was one."""
        self.assertEqual(
            self.check(b"HTTP/1.1 200", end=True), "connection closed before the end of the response"
        )

    def test_answer_in_one_piece(self) -> None:
        """The rest of an answer does not matter."""
        verdict = HttpChecker().check(self.host)
        self.host.wires[0].receive(OK + b"surplus")
        self.assertIsNone(self.successResultOf(verdict))
        self.host.wires[0].lose()

    def test_not_connected(self) -> None:
        self.host.error = ConnectionRefusedError()
        self.failureResultOf(HttpChecker().check(self.host), ConnectionRefusedError)

    def test_cancelled(self) -> None:
        """A check that is cancelled closes its connection."""
        verdict = HttpChecker().check(self.host)
        verdict.cancel()
        self.failureResultOf(verdict, CancelledError)
        self.assertTrue(self.host.wires[0].aborted)
        self.host.wires[0].lose()


class ReverseHttpTests(SynchronousTestCase):
    """A reverse host is asked over the connection that it has."""

    def setUp(self) -> None:
        self.gone = Gone()
        self.host, self.wire = reverse_host(self.gone, Clock())
        self.verdict = HttpChecker().check(self.host)

    def test_kept(self) -> None:
        """The connection is there for the next request afterwards."""
        self.assertIn(b"\r\nConnection: keep-alive\r\n", self.wire.value())
        self.wire.receive(OK[:-1])
        self.assertNoResult(self.verdict)
        self.wire.receive(OK[-1:])
        self.assertIsNone(self.successResultOf(self.verdict))
        self.assertEqual((self.host.state, self.gone.reasons), ("idle", []))
        user = self.successResultOf(self.host.connect(Users()))
        self.wire.receive(b"hello")
        self.assertEqual(user.events, ["made", b"hello"])  # type: ignore[attr-defined]

    def test_taken_from_a_pool(self) -> None:
        """A client that waits in a pool gives the connection up for it."""
        host, wire = reverse_host(self.gone, Clock())
        user = self.successResultOf(host.connect(Users(IdleUser)))
        verdict = HttpChecker().check(host)
        wire.receive(OK)
        self.assertIsNone(self.successResultOf(verdict))
        self.assertEqual(user.events, ["made", "detached"])  # type: ignore[attr-defined]

    def test_bad_status(self) -> None:
        """It is kept as well if the answer is a bad one."""
        self.wire.receive(b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n")
        self.failureResultOf(self.verdict, CheckFailed)
        self.assertEqual(self.host.state, "idle")

    def test_not_reusable(self) -> None:
        """A connection that can't be used any more is closed."""
        for answer in (
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            OK + b"surplus",
        ):
            host, wire = reverse_host(self.gone, Clock())
            verdict = HttpChecker().check(host)
            wire.receive(answer)
            self.assertIsNone(self.successResultOf(verdict))
            self.assertTrue(host.closed)
            self.assertTrue(wire.aborted)
        self.assertEqual(self.gone.reasons, ["its connection can't be used after a health check"] * 2)

    def test_until_close(self) -> None:
        """An answer may end with the connection; so does the host."""
        self.wire.receive(b"HTTP/1.1 200 OK\r\n\r\nok")
        self.assertNoResult(self.verdict)
        self.wire.lose()
        self.assertIsNone(self.successResultOf(self.verdict))
        self.assertTrue(self.host.closed)

    def test_cancelled(self) -> None:
        """An answer that is not waited for any more must not become another one's."""
        self.verdict.cancel()
        self.failureResultOf(self.verdict, CancelledError)
        self.assertTrue(self.host.closed)
        self.assertTrue(self.wire.aborted)
        self.wire.receive(OK)

    def test_spoken(self) -> None:
        """The connection is one of HTTP/1 from then on."""
        self.assertEqual(self.host.committed_protocol, "Http1")

    def test_other_protocol(self) -> None:
        """A connection that speaks another protocol can't be asked, nor another port."""
        host, _ = reverse_host(self.gone, Clock())
        checker = HttpChecker()
        self.assertTrue(checker.wants(host))
        self.assertFalse(HttpChecker(HttpCheckConfig(port=81)).wants(host))
        host.pools["Http2"] = Pool()
        self.assertFalse(checker.wants(host))
        host.pools["Http1"] = Pool()
        self.assertTrue(checker.wants(host))

    def test_gone(self) -> None:
        """There may be no connection any more."""
        self.host.close("test")
        self.failureResultOf(HttpChecker().check(self.host), HostGone)


class MakeTests(SynchronousTestCase):
    def test_protocols(self) -> None:
        """Protocols that nobody knows are checked by TCP, as in MOSN."""
        for protocol, kind in (("TCP", TcpChecker), ("Http1", HttpChecker), ("bolt", TcpChecker)):
            self.assertIs(type(make_checker(HealthCheckConfig(protocol=protocol))), kind)

    def test_options(self) -> None:
        config = HealthCheckConfig(
            protocol="Http1", check_config=CheckConfig(http_check_config=HttpCheckConfig(path="/x"))
        )
        checker = make_checker(config)
        assert isinstance(checker, HttpChecker)
        self.assertEqual(checker._line, "GET /x HTTP/1.1")

    def test_more(self) -> None:
        """Rooms above may know more of them."""
        special = TcpChecker()
        more = {"bolt": lambda config: special}
        self.assertIs(make_checker(HealthCheckConfig(protocol="bolt"), more), special)
        self.assertIs(type(make_checker(HealthCheckConfig(protocol="Http1"), more)), HttpChecker)
