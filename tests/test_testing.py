"""Tests for L{reverseproxy.testing}."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint
from twisted.internet.error import CannotListenError, ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableProtocol,
    IPushProducer,
    IReactorTCP,
    IReactorTime,
    IReactorUNIX,
    ITCPTransport,
)
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from reverseproxy.errors import ConfigError
from reverseproxy.testing import MemoryReactor, Recorder, join, run
from tests.integration.configs import quick_agent, server
from tests.transport.contract import CallableFactory


@implementer(IHalfCloseableProtocol)
class Half(Recorder):
    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def readConnectionLost(self) -> None:
        self.told.append("read")

    def writeConnectionLost(self) -> None:
        self.told.append("write")


class TransportTests(SynchronousTestCase):
    def joined(self, kind: Any = Recorder) -> tuple[MemoryReactor, Any, Any]:
        reactor, one, other = MemoryReactor(), kind(), kind()
        join(reactor, one, other)
        return reactor, one, other

    def test_interfaces(self) -> None:
        _, one, _ = self.joined()
        for interface in (ITCPTransport, IConsumer, IPushProducer):
            verifyObject(interface, one.transport)

    def test_data_arrives_later_and_in_order(self) -> None:
        reactor, one, other = self.joined()
        one.transport.write(b"one ")
        one.transport.writeSequence([b"two ", b"three"])
        other.transport.write(b"back")
        self.assertEqual(other.data, b"")
        reactor.settle()
        self.assertEqual((one.data, other.data), (b"back", b"one two three"))
        self.assertRaises(TypeError, one.transport.write, "text")

    def test_a_reader_that_is_paused_stops_a_writer(self) -> None:
        reactor, one, other = self.joined()
        told: list[str] = []

        class Source:
            def pauseProducing(self) -> None:
                told.append("pause")

            def resumeProducing(self) -> None:
                told.append("resume")

            def stopProducing(self) -> None:
                told.append("stop")

        one.transport.registerProducer(Source(), True)
        self.assertRaises(RuntimeError, one.transport.registerProducer, Source(), True)
        other.transport.pauseProducing()
        one.transport.write(b"x" * 200_000)
        reactor.settle()
        self.assertEqual((told, other.data), (["pause"], b""))
        other.transport.resumeProducing()
        reactor.settle()
        self.assertEqual((told, other.data), (["pause", "resume"], b"x" * 200_000))
        one.transport.abortConnection()
        reactor.settle()
        self.assertEqual(told[2:], ["stop"])

    def test_closing(self) -> None:
        reactor, one, other = self.joined()
        one.transport.write(b"last")
        one.transport.loseConnection()
        self.assertIsNone(one.reason)
        reactor.settle()
        self.assertEqual(other.data, b"last")
        for each in (one, other):
            self.assertTrue(each.reason.check(ConnectionDone))
        self.assertEqual(reactor.getDelayedCalls(), [])

    def test_half_closing(self) -> None:
        reactor, one, other = self.joined(Half)
        one.transport.write(b"question")
        one.transport.loseWriteConnection()
        reactor.settle()
        self.assertEqual((one.told, other.told, other.data), (["write"], ["read"], b"question"))
        other.transport.write(b"answer")
        other.transport.loseConnection()
        reactor.settle()
        self.assertEqual((one.data, one.told), (b"answer", ["write", "read"]))

    def test_aborting(self) -> None:
        reactor, one, other = self.joined()
        one.transport.abortConnection()
        reactor.settle()
        self.assertTrue(one.reason.check(ConnectionAborted))
        self.assertTrue(other.reason.check(ConnectionLost))

    def test_a_network_that_is_gone(self) -> None:
        reactor, one, other = self.joined()
        one.transport.silent = other.transport.silent = True
        one.transport.write(b"x" * 200_000)
        one.transport.abortConnection()
        reactor.settle()
        self.assertEqual((other.data, other.reason), (b"", None))

    def test_a_protocol_that_fails(self) -> None:
        reactor, one, other = self.joined()
        other.dataReceived = lambda data: 1 // 0
        one.transport.write(b"x")
        reactor.settle()
        self.assertTrue(other.reason.check(ZeroDivisionError))
        self.assertTrue(one.reason.check(ConnectionLost))


class ReactorTests(SynchronousTestCase):
    def test_interfaces(self) -> None:
        for interface in (IReactorTCP, IReactorUNIX, IReactorTime):
            verifyObject(interface, MemoryReactor())

    def test_endpoints(self) -> None:
        reactor = MemoryReactor()
        accepted: list[Recorder] = []

        def accept() -> Recorder:
            accepted.append(Recorder())
            return accepted[-1]

        port = reactor.listenTCP(0, CallableFactory(accept), interface="127.0.0.1").getHost().port
        reactor.listenUNIX("/socket", CallableFactory(accept))
        for endpoint in (
            TCP4ClientEndpoint(reactor, "127.0.0.1", port),
            UNIXClientEndpoint(reactor, "/socket"),
        ):
            connecting = endpoint.connect(CallableFactory(Recorder))
            reactor.settle()
            protocol: Any = self.successResultOf(connecting)
            protocol.transport.write(b"hello")
            reactor.settle()
            self.assertEqual(accepted[-1].data, b"hello")
        self.assertEqual(accepted[0].transport.getHost(), IPv4Address("TCP", "127.0.0.1", port))
        self.assertEqual(accepted[1].transport.getPeer(), UNIXAddress(None))

    def test_nobody_listens(self) -> None:
        reactor = MemoryReactor()
        self.assertRaises(Refused, reactor.dial, "127.0.0.1", 80, Recorder())
        port = reactor.listenTCP(80, CallableFactory(Recorder))
        self.assertRaises(CannotListenError, reactor.listenTCP, 80, CallableFactory(Recorder))
        reactor.dial("127.0.0.1", 80, Recorder())
        port.stopListening()
        self.assertRaises(Refused, reactor.dial, "127.0.0.1", 80, Recorder())

    def test_cancelling(self) -> None:
        reactor = MemoryReactor()
        reactor.listenTCP(80, CallableFactory(Recorder))
        connecting = TCP4ClientEndpoint(reactor, "127.0.0.1", 80).connect(CallableFactory(Recorder))
        connecting.cancel()
        self.failureResultOf(connecting)
        reactor.settle()
        self.assertEqual(reactor.getDelayedCalls(), [])


class RunTests(SynchronousTestCase):
    def test_a_request_through_a_tunnel(self) -> None:
        reactor = MemoryReactor()
        cloud = run(server(client="127.0.0.1:2045", tunnel="127.0.0.1:2046"), reactor)
        edge = run(quick_agent(2046), reactor)
        client = reactor.dial("127.0.0.1", 2045, Recorder())
        client.transport.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        reactor.settle()
        self.assertIn(b"200 OK", client.data)
        self.assertIn(b"answered by the agent", client.data)
        for each in (edge, cloud):
            stopped = each.stopService()
            reactor.pump([0.1] * 20)
            self.successResultOf(stopped)
        self.assertEqual((reactor.getDelayedCalls(), reactor.ports), ([], {}))

    def test_a_configuration_that_can_t_be_used(self) -> None:
        self.assertRaises(ConfigError, run, {"servers": 7}, MemoryReactor())
