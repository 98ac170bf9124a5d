from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.task import Clock
from twisted.protocols.policies import WrappingFactory
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.tls import ClientTls, ServerTls, inspect_factory, wrap_client, wrap_server
from tests.certs import Certificates
from tests.tls.memory import HalfRecorder, Recorder, Wire, factory_of

MEGABYTE = bytes(1024 * 1024)


class InspectorTests(SynchronousTestCase):
    """The connections of a port for both, when the transport can change its protocol."""

    wrapped = False

    def setUp(self) -> None:
        self.certs = Certificates(Path(self.mktemp()))
        self.clock = Clock()
        self.plain, self.secure = HalfRecorder(), HalfRecorder()

    def serve(self) -> Any:
        tls = ServerTls([self.certs.server_context()])
        secure = wrap_server(factory_of(self.secure), tls, clock=self.clock, handshake_timeout=15.0)
        factory: Any = inspect_factory(factory_of(self.plain), secure)
        if self.wrapped:
            # as something that counts connections would do
            factory = WrappingFactory(factory)
        return factory.buildProtocol(None)

    def connect_plain(self) -> tuple[HalfRecorder, Wire]:
        near = HalfRecorder()
        return near, Wire(near, self.serve())

    def connect_secure(self) -> tuple[HalfRecorder, Wire]:
        near = HalfRecorder()
        tls = ClientTls(self.certs.client_context(), "localhost")
        return near, Wire(wrap_client(factory_of(near), tls).buildProtocol(None), self.serve())

    def test_plaintext(self) -> None:
        near, wire = self.connect_plain()
        near.transport.write(b"GET /")
        wire.pump()
        self.assertEqual(self.plain.events, ["made"])
        self.assertEqual(self.plain.received, b"GET /")
        self.assertEqual(self.secure.events, [])
        near.transport.write(MEGABYTE)
        self.plain.transport.write(MEGABYTE)
        wire.pump()
        self.assertEqual(self.plain.received, b"GET /" + MEGABYTE)
        self.assertEqual(near.received, MEGABYTE)
        self.plain.transport.loseConnection()
        wire.pump()
        self.assertEqual(self.plain.events[-1], "lost")

    def test_tls(self) -> None:
        near, wire = self.connect_secure()
        wire.pump()
        self.assertEqual(self.secure.events, ["made", "handshake"])
        self.assertEqual(self.plain.events, [])
        near.transport.write(MEGABYTE)
        self.secure.transport.write(MEGABYTE)
        wire.pump()
        self.assertEqual(self.secure.received, MEGABYTE)
        self.assertEqual(near.received, MEGABYTE)

    def test_half_close_of_tls(self) -> None:
        near, wire = self.connect_secure()
        wire.pump()
        near.transport.write(MEGABYTE)
        near.transport.loseWriteConnection()
        wire.pump()
        self.assertEqual(self.secure.events, ["made", "handshake", "read-closed"])
        self.secure.transport.write(MEGABYTE)
        self.secure.transport.loseWriteConnection()
        wire.pump()
        self.assertEqual(near.received, MEGABYTE)
        self.assertFalse(wire.client.connected or wire.server.connected)

    def test_truncation_of_tls(self) -> None:
        _, wire = self.connect_secure()
        wire.pump()
        wire.client.loseConnection()
        wire.pump()
        assert self.secure.reason is not None
        self.assertIn("truncated", self.secure.reason.getErrorMessage())

    def test_half_close_of_plaintext(self) -> None:
        near, wire = self.connect_plain()
        near.transport.write(b"x")
        near.transport.loseWriteConnection()
        wire.pump()
        self.assertEqual(self.plain.events, ["made", "read-closed"])
        self.plain.transport.write(MEGABYTE)
        wire.pump()
        self.assertEqual(near.received, MEGABYTE)

    def test_a_protocol_that_knows_no_half_closes(self) -> None:
        self.plain = Recorder()  # type: ignore[assignment]
        near, wire = self.connect_plain()
        near.transport.write(b"x")
        near.transport.loseWriteConnection()
        wire.pump()
        self.assertEqual(self.plain.events, ["made", "lost"])

    def test_byte_by_byte(self) -> None:
        near, wire = self.connect_plain()
        for byte in (b"\x20", b"\x88", b"\x01"):
            near.transport.write(byte)
            wire.pump()
        self.assertEqual(self.plain.reads, [1, 1, 1])
        self.assertEqual(self.plain.received, b"\x20\x88\x01")

    def test_back_pressure(self) -> None:
        near, wire = self.connect_plain()
        self.plain.on_made = lambda: self.plain.transport.pauseProducing()
        near.transport.write(b"x")
        wire.pump()
        near.transport.write(MEGABYTE)
        wire.pump()
        self.assertEqual(self.plain.received, b"x")
        self.plain.transport.resumeProducing()
        wire.pump()
        self.assertEqual(len(self.plain.received), len(MEGABYTE) + 1)

    def test_a_silent_connection_may_stay(self) -> None:
        near, wire = self.connect_plain()
        self.clock.advance(1e6)
        wire.pump()
        self.assertEqual((self.plain.events, self.secure.events), ([], []))
        self.assertTrue(wire.server.connected)
        near.transport.write(b"x")
        wire.pump()
        self.assertEqual(self.plain.events, ["made"])

    def test_a_silent_connection_that_ends(self) -> None:
        for end in ("loseConnection", "abortConnection", "loseWriteConnection"):
            near, wire = self.connect_plain()
            getattr(near.transport, end)()
            wire.pump()
            self.assertFalse(wire.server.connected)
            self.assertEqual((self.plain.events, self.secure.events), ([], []))

    def test_the_deadline_of_the_handshake_begins_with_its_first_byte(self) -> None:
        near, wire = self.connect_plain()
        self.clock.advance(100)
        near.transport.write(b"\x16\x03\x01")
        wire.pump()
        self.clock.advance(14.9)
        wire.pump()
        self.assertTrue(wire.server.connected)
        self.clock.advance(0.1)
        wire.pump()
        self.assertFalse(wire.server.connected)
        self.assertEqual(self.secure.events, ["made", "lost"])

    def test_refused(self) -> None:
        near = Recorder()
        factory = inspect_factory(factory_of(None), factory_of(None))
        wire = Wire(near, factory.buildProtocol(None))  # type: ignore[arg-type]
        near.transport.write(b"x")
        wire.pump()
        assert near.reason is not None
        near.reason.trap(ConnectionLost)

    def test_closed_when_made(self) -> None:
        self.plain.on_made = lambda: self.plain.transport.loseConnection()
        near, wire = self.connect_plain()
        near.transport.write(b"x")
        wire.pump()
        self.assertEqual(self.plain.received, b"")
        assert self.plain.reason is not None
        self.plain.reason.trap(ConnectionDone)

    def test_aborted_later(self) -> None:
        near, wire = self.connect_plain()
        near.transport.write(b"x")
        wire.pump()
        self.plain.transport.abortConnection()
        wire.pump()
        assert self.plain.reason is not None
        self.plain.reason.trap(ConnectionAborted)


class WrappedInspectorTests(InspectorTests):
    """The same when the inspector stays between the transport and the protocol."""

    wrapped = True

    # Twisted's wrappers pass no half-closes on: TLS hears of TCP's end as of a loss.

    def test_half_close_of_plaintext(self) -> None:
        near, wire = self.connect_plain()
        near.transport.write(b"x")
        wire.pump()
        inspector = wire.server.protocol.wrappedProtocol
        self.assertTrue(IHalfCloseableProtocol.providedBy(inspector))
        inspector.readConnectionLost()
        inspector.writeConnectionLost()
        self.assertEqual(self.plain.events, ["made", "read-closed", "write-closed"])


class OwnershipTests(SynchronousTestCase):
    def test_the_transport_calls_the_protocol_itself(self) -> None:
        plain = Recorder()
        near = Recorder()
        factory = inspect_factory(factory_of(plain), factory_of(None))
        wire = Wire(near, factory.buildProtocol(None))  # type: ignore[arg-type]
        near.transport.write(b"x")
        wire.pump()
        self.assertIs(wire.server.protocol, plain)

    def test_factories_are_started_and_stopped(self) -> None:
        calls: list[str] = []

        class Noting(type(factory_of(None))):  # type: ignore[misc]
            def startFactory(self) -> None:
                calls.append("start")

            def stopFactory(self) -> None:
                calls.append("stop")

        factory = inspect_factory(Noting(None), Noting(None))
        factory.doStart()
        factory.doStop()
        self.assertEqual(calls, ["start", "start", "stop", "stop"])
