from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.error import ConnectError, NoProtocol
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Protocol
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from reverseproxy.errors import CertificateRejected, TlsFailed
from reverseproxy.tls import ClientTls, ServerTls, client_endpoint, peer_identity, wrap_server
from tests.certs import Certificates
from tests.tls.memory import HalfRecorder, Recorder, Wire, factory_of


@implementer(IStreamClientEndpoint)
class FakeEndpoint:
    """
    Connects to a server in memory, when it is told to.

    @ivar wires: the connections made.
    @ivar pending: the calls that are not answered yet.
    """

    def __init__(self, server: IProtocolFactory) -> None:
        self.server = server
        self.wires: list[Wire] = []
        self.pending: list[tuple[IProtocolFactory, Deferred[IProtocol]]] = []
        self.cancelled = 0

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        waiting: Deferred[IProtocol] = Deferred(self._cancel)
        self.pending.append((factory, waiting))
        return waiting

    def _cancel(self, _: object) -> None:
        self.cancelled += 1
        self.pending.pop()

    def answer(self) -> Wire:
        factory, waiting = self.pending.pop(0)
        client = factory.buildProtocol(None)  # type: ignore[arg-type]
        wire = Wire(client, self.server.buildProtocol(None))  # type: ignore[arg-type]
        self.wires.append(wire)
        waiting.callback(client)
        return wire

    def run(self) -> Wire:
        wire = self.answer()
        wire.pump()
        return wire


class Counting:
    """A factory that counts what it builds."""

    def __init__(self, protocol: Any) -> None:
        self.protocol = protocol
        self.built = 0

    def buildProtocol(self, addr: object) -> Any:
        self.built += 1
        return self.protocol

    def doStart(self) -> None:
        """Begin."""

    def doStop(self) -> None:
        """End."""


class EndpointTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.certs = Certificates(Path(self.mktemp()))
        self.near, self.far = HalfRecorder(), HalfRecorder()
        self.factory = Counting(self.near)
        server = wrap_server(factory_of(self.far), ServerTls([self.certs.server_context()]))
        self.tcp = FakeEndpoint(server)

    def endpoint(self, name: str = "localhost", allow: bool = False, **more: Any) -> IStreamClientEndpoint:
        tls = ClientTls(self.certs.client_context(**more), name)
        return client_endpoint(self.tcp, tls, allow_fall_back=allow)

    def connect(self, endpoint: IStreamClientEndpoint) -> Deferred[IProtocol]:
        return endpoint.connect(self.factory)  # type: ignore[arg-type]

    def test_interface(self) -> None:
        verifyObject(IStreamClientEndpoint, self.endpoint())

    def test_result_after_the_handshake(self) -> None:
        result = self.connect(self.endpoint())
        wire = self.tcp.answer()
        self.assertNoResult(result)
        self.assertEqual((self.factory.built, self.near.events), (0, []))
        wire.pump()
        self.assertIs(self.successResultOf(result), self.near)
        self.assertEqual((self.factory.built, self.near.events), (1, ["made", "handshake"]))
        self.assertIsNotNone(peer_identity(self.near.transport))
        self.near.transport.write(b"hello")
        wire.pump()
        self.assertEqual(self.far.received, b"hello")

    def test_what_the_server_says_at_once_is_not_lost(self) -> None:
        self.far.on_made = lambda: self.far.transport.write(b"banner")
        result = self.connect(self.endpoint())
        self.tcp.run()
        self.assertIs(self.successResultOf(result), self.near)
        self.assertEqual(self.near.received, b"banner")

    def test_wrong_name(self) -> None:
        result = self.connect(self.endpoint("example.com"))
        wire = self.tcp.run()
        reason = self.failureResultOf(result, CertificateRejected)
        self.assertIn('not for "example.com"', reason.getErrorMessage())
        self.assertFalse(wire.client.connected)
        self.assertEqual((self.factory.built, self.near.events), (0, []))

    def test_wrong_authority(self) -> None:
        result = self.connect(self.endpoint(ca_cert=self.certs.wrong_ca))
        self.tcp.run()
        self.failureResultOf(result, CertificateRejected)

    def test_not_a_tls_server(self) -> None:
        self.tcp.server = factory_of(Recorder())
        result = self.connect(self.endpoint())
        wire = self.tcp.answer()
        wire.server.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        wire.pump()
        self.assertIn("wrong version number", self.failureResultOf(result, TlsFailed).getErrorMessage())

    def test_the_server_closes(self) -> None:
        result = self.connect(self.endpoint())
        wire = self.tcp.answer()
        wire.server.loseConnection()
        wire.pump()
        self.assertIn("during the handshake", self.failureResultOf(result, TlsFailed).getErrorMessage())

    def test_no_connection(self) -> None:
        result = self.connect(self.endpoint(allow=True, fall_back=True))
        self.tcp.pending.pop()[1].errback(ConnectError())
        self.failureResultOf(result, ConnectError)
        self.assertEqual(self.tcp.pending, [])

    def test_lost_later(self) -> None:
        result = self.connect(self.endpoint())
        wire = self.tcp.run()
        self.successResultOf(result)
        self.near.transport.abortConnection()
        wire.pump()
        self.assertEqual(self.near.events[-1], "lost")

    def test_cancelled_while_dialling(self) -> None:
        result = self.connect(self.endpoint(allow=True, fall_back=True))
        result.cancel()
        self.failureResultOf(result, CancelledError)
        self.assertEqual(self.tcp.cancelled, 1)

    def test_cancelled_in_the_handshake(self) -> None:
        for fall_back in (False, True):
            result = self.connect(self.endpoint(allow=True, fall_back=fall_back))
            wire = self.tcp.answer()
            result.cancel()
            self.failureResultOf(result, CancelledError)
            wire.pump()
            self.assertFalse(wire.client.connected)
            self.assertEqual((self.factory.built, self.tcp.pending), (0, []))

    def test_no_protocol(self) -> None:
        self.factory.protocol = None
        result = self.connect(self.endpoint())
        wire = self.tcp.run()
        self.failureResultOf(result, NoProtocol)
        self.assertFalse(wire.client.connected)

    def test_a_factory_that_fails(self) -> None:
        self.near.on_made = lambda: 1 / 0  # type: ignore[assignment, return-value]
        result = self.connect(self.endpoint())
        wire = self.tcp.run()
        self.failureResultOf(result, ZeroDivisionError)
        self.assertFalse(wire.client.connected)

    def test_a_protocol_that_closes_at_once(self) -> None:
        self.near.on_made = lambda: self.near.transport.loseConnection()
        result = self.connect(self.endpoint())
        wire = self.tcp.run()
        self.assertIs(self.successResultOf(result), self.near)
        self.assertEqual(self.near.events, ["made", "lost"])
        self.assertFalse(wire.client.connected)

    def test_a_protocol_without_a_handshake_listener(self) -> None:
        self.factory.protocol = Protocol()
        result = self.connect(self.endpoint())
        self.tcp.run()
        self.assertIs(self.successResultOf(result), self.factory.protocol)


class FallBackTests(EndpointTests):
    """All of the above, and what happens if plaintext is allowed."""

    def plaintext(self) -> Recorder:
        plain = Recorder()
        self.tcp.server = factory_of(plain)
        return plain

    def test_in_plaintext(self) -> None:
        plain = self.plaintext()
        result = self.connect(self.endpoint(allow=True, fall_back=True))
        wire = self.tcp.answer()
        wire.server.write(b"what?")
        with capturedLogs() as events:
            wire.pump()
        self.assertFalse(wire.client.connected)
        self.assertNoResult(result)
        second = self.tcp.run()
        self.assertIs(self.successResultOf(result), self.near)
        self.assertEqual(self.factory.built, 1)
        self.near.transport.write(b"in plaintext")
        second.pump()
        self.assertTrue(plain.received.endswith(b"in plaintext"))
        self.assertIsNone(peer_identity(self.near.transport))
        (event,) = [event for event in events if event["log_level"] is LogLevel.warn]
        self.assertRegex(formatEvent(event), "TLS with localhost failed.*fall_back is set: [a-z]")

    def test_a_certificate_that_is_refused(self) -> None:
        self.plaintext()
        self.tcp.server = wrap_server(
            factory_of(self.far), ServerTls([self.certs.server_context(**self.certs.untrusted.options)])
        )
        result = self.connect(self.endpoint(allow=True, fall_back=True))
        self.tcp.run()
        self.plaintext()
        self.tcp.run()
        self.assertIs(self.successResultOf(result), self.near)

    def test_no_connection_in_plaintext_either(self) -> None:
        self.plaintext()
        result = self.connect(self.endpoint(allow=True, fall_back=True))
        wire = self.tcp.answer()
        wire.server.loseConnection()
        wire.pump()
        self.tcp.pending.pop()[1].errback(ConnectError())
        self.failureResultOf(result, ConnectError)

    def test_cancelled_while_dialling_again(self) -> None:
        result = self.connect(self.endpoint(allow=True, fall_back=True))
        wire = self.tcp.answer()
        wire.server.loseConnection()
        wire.pump()
        result.cancel()
        self.failureResultOf(result, CancelledError)
        self.assertEqual(self.tcp.cancelled, 1)

    def test_only_if_both_want_it(self) -> None:
        for allow, fall_back in ((False, True), (True, False)):
            result = self.connect(self.endpoint(allow=allow, fall_back=fall_back))
            wire = self.tcp.answer()
            wire.server.loseConnection()
            wire.pump()
            self.failureResultOf(result, TlsFailed)
            self.assertEqual(self.tcp.pending, [])

    def test_an_endpoint_that_fails_at_once(self) -> None:
        self.tcp.connect = lambda factory: fail(ConnectError())  # type: ignore[method-assign]
        result = self.connect(self.endpoint(allow=True, fall_back=True))
        self.failureResultOf(result, ConnectError)
