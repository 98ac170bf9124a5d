"""TLS over real sockets, and with other implementations as peers."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocolFactory
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol, connectionDone
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from reverseproxy.errors import CertificateRejected
from reverseproxy.proxy.relay import RelayEnd, couple
from reverseproxy.tls import ClientTls, ServerTls, client_endpoint, inspect_factory, wrap_server
from tests.certs import Certificates
from tests.streams import reactor

MEGABYTE = bytes(range(256)) * 4096
TIMEOUT = 30.0


@implementer(IHalfCloseableProtocol)
class Speaker(Protocol):
    """Sends with back-pressure, half-closes, and collects until the other end has."""

    transport: Any

    def __init__(self) -> None:
        self.received = bytearray()
        self.heard: Deferred[bytes] = Deferred()
        self.lost: Deferred[BaseException | None] = Deferred()
        self._left = b""
        self._said = False

    def say(self, data: bytes) -> None:
        """Send, then half-close."""
        self._left = data
        self.transport.registerProducer(self, False)

    def resumeProducing(self) -> None:
        block, self._left = self._left[:50_000], self._left[50_000:]
        if block:
            self.transport.write(block)
        else:
            self.transport.unregisterProducer()
            self.transport.loseWriteConnection()

    def stopProducing(self) -> None:
        """The connection is lost."""

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def readConnectionLost(self) -> None:
        self.heard.callback(bytes(self.received))
        self._close_if_finished()

    def writeConnectionLost(self) -> None:
        self._said = True
        self._close_if_finished()

    def _close_if_finished(self) -> None:
        # TCP leaves this to its protocols, TLS does not.
        if self._said and self.heard.called:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(reason.value)


class Answerer(Speaker):
    """Answers what it has heard, reversed."""

    def readConnectionLost(self) -> None:
        super().readConnectionLost()
        self.say(bytes(self.received)[::-1])


class CallableFactory(Factory):
    noisy = False

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self.built: list[Any] = []

    def buildProtocol(self, addr: Any) -> Any:
        self.built.append(self._make())
        return self.built[-1]


class SocketTestCase(TestCase):
    def setUp(self) -> None:
        self.certs = Certificates(Path(self.mktemp()))
        self.server_tls = ServerTls([self.certs.server_context()])
        self.answerers = CallableFactory(Answerer)
        self.timeout = TIMEOUT

    def listen(self, factory: IProtocolFactory) -> int:
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)

    def secure(self, factory: IProtocolFactory) -> IProtocolFactory:
        return wrap_server(factory, self.server_tls, clock=reactor, handshake_timeout=TIMEOUT)  # type: ignore[arg-type]

    def client_tls(self, **more: Any) -> ClientTls:
        return ClientTls(self.certs.client_context(**more), "127.0.0.1")

    async def converse(self, port: int) -> None:
        """Say a megabyte and half-close, hear another one, and see the connection close."""
        endpoint = client_endpoint(TCP4ClientEndpoint(reactor, "127.0.0.1", port), self.client_tls())
        speaker = await endpoint.connect(CallableFactory(Speaker))
        assert isinstance(speaker, Speaker)
        speaker.say(MEGABYTE)
        self.assertEqual(await speaker.heard, MEGABYTE[::-1])
        reason = await speaker.lost
        self.assertIsInstance(reason, ConnectionDone)


class ConversationTests(SocketTestCase):
    async def test_half_closes(self) -> None:
        await self.converse(self.listen(self.secure(self.answerers)))
        reason = await self.answerers.built[0].lost
        self.assertIsInstance(reason, ConnectionDone)

    async def test_through_the_inspector(self) -> None:
        plain = CallableFactory(Answerer)
        port = self.listen(inspect_factory(plain, self.secure(self.answerers)))
        await self.converse(port)
        await self.answerers.built[0].lost
        speaker = await TCP4ClientEndpoint(reactor, "127.0.0.1", port).connect(CallableFactory(Speaker))
        assert isinstance(speaker, Speaker)
        speaker.say(MEGABYTE)
        self.assertEqual(await speaker.heard, MEGABYTE[::-1])
        await gatherResults([speaker.lost, plain.built[0].lost])

    async def test_through_a_relay(self) -> None:
        """TLS on one side, plaintext on the other, as tcp_proxy does it."""
        backend = self.listen(self.answerers)
        ends: list[RelayEnd] = []

        class Front(RelayEnd):
            def connectionMade(self) -> None:
                ends.append(self)
                dialled = TCP4ClientEndpoint(reactor, "127.0.0.1", backend).connect(
                    CallableFactory(lambda: RelayEnd(reactor))  # type: ignore[arg-type]
                )
                dialled.addCallback(lambda end: couple(self, end))

        lost: Deferred[object] = Deferred()
        front = Front(reactor)  # type: ignore[arg-type]
        front.on_close = lambda reason: lost.callback(reason.value)
        await self.converse(self.listen(self.secure(CallableFactory(lambda: front))))
        await gatherResults([lost, self.answerers.built[0].lost])
        self.assertEqual(front.received, len(MEGABYTE))

    async def test_host_name(self) -> None:
        port = self.listen(self.secure(self.answerers))
        tls = ClientTls(self.certs.client_context(), "localhost")
        speaker = await client_endpoint(HostnameEndpoint(reactor, "localhost", port), tls).connect(
            CallableFactory(Speaker)
        )
        assert isinstance(speaker, Speaker)
        speaker.say(b"abc")
        self.assertEqual(await speaker.heard, b"cba")
        await gatherResults([speaker.lost, self.answerers.built[0].lost])

    async def test_refused(self) -> None:
        port = self.listen(self.secure(self.answerers))
        endpoint = client_endpoint(
            TCP4ClientEndpoint(reactor, "127.0.0.1", port), self.client_tls(ca_cert=self.certs.wrong_ca)
        )
        with self.assertRaises(CertificateRejected):
            await endpoint.connect(CallableFactory(Speaker))
        await self.answerers.built[0].lost


class OtherPeersTests(SocketTestCase):
    """Peers on the standard library's C{ssl}, which has an OpenSSL of its own, and OpenSSL's own client."""

    def connect(self, port: int, **more: Any) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=self.certs.ca)
        tcp = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
        return context.wrap_socket(tcp, server_hostname="localhost", suppress_ragged_eofs=False, **more)

    async def test_client(self) -> None:
        class Server(Speaker):
            def dataReceived(self, data: bytes) -> None:
                super().dataReceived(data)
                if len(self.received) == len(MEGABYTE):
                    self.transport.write(bytes(self.received)[::-1])
                    self.transport.loseConnection()

        servers = CallableFactory(Server)
        port = self.listen(self.secure(servers))

        def run() -> bytes:
            with self.connect(port) as tls:
                tls.sendall(MEGABYTE)
                answer = bytearray()
                while block := tls.recv(65536):  # a truncation would raise
                    answer += block
                return bytes(answer)

        self.assertEqual(await deferToThread(run), MEGABYTE[::-1])
        await servers.built[0].lost

    async def test_client_that_closes_first(self) -> None:
        port = self.listen(self.secure(self.answerers))

        def run() -> bytes:
            with self.connect(port) as tls:
                tls.sendall(b"abc")
                # unwrap sends close_notify, and waits for ours
                return tls.unwrap().recv(1)

        with self.assertRaises(ssl.SSLError):
            # which the answer comes before: the standard library knows no half-closes
            await deferToThread(run)
        heard = await self.answerers.built[0].heard
        self.assertEqual(heard, b"abc")
        await self.answerers.built[0].lost

    async def test_client_that_vanishes(self) -> None:
        port = self.listen(self.secure(self.answerers))

        def run() -> None:
            tls = self.connect(port)
            tls.sendall(b"abc")
            tls.shutdown(socket.SHUT_WR)  # TCP's, and no close_notify
            with contextlib.suppress(ConnectionError):
                while tls.recv(65536):
                    """Wait for the server to close too."""
            tls.close()

        await deferToThread(run)
        reason = await self.answerers.built[0].lost
        self.assertIn("truncated", str(reason))
        self.assertFalse(self.answerers.built[0].heard.called)

    async def test_server(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certs.server.chain, self.certs.server.key)
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        listening.settimeout(TIMEOUT)

        def run() -> bytes:
            tcp, _ = listening.accept()
            tcp.settimeout(TIMEOUT)
            with context.wrap_socket(tcp, server_side=True, suppress_ragged_eofs=False) as tls:
                heard = bytearray()
                while block := tls.recv(65536):
                    heard += block
                # our half of the connection is closed, its own is not
                tls.sendall(MEGABYTE)
                tls.unwrap()
                return bytes(heard)

        served = deferToThread(run)
        endpoint = client_endpoint(
            TCP4ClientEndpoint(reactor, "127.0.0.1", listening.getsockname()[1]), self.client_tls()
        )
        speaker = await endpoint.connect(CallableFactory(Speaker))
        assert isinstance(speaker, Speaker)
        speaker.say(MEGABYTE)
        self.assertEqual(await speaker.heard, MEGABYTE)
        self.assertEqual(await served, MEGABYTE)
        reason = await speaker.lost
        self.assertIsInstance(reason, ConnectionDone)

    async def test_command_line_client(self) -> None:
        """C{openssl s_client}, where there is one; else Python's client says the same."""

        class Server(Speaker):
            def dataReceived(self, data: bytes) -> None:
                super().dataReceived(data)
                if self.received.endswith(b"\n"):
                    self.transport.write(b"heard: " + bytes(self.received))
                    self.transport.loseConnection()

        servers = CallableFactory(Server)
        port = self.listen(self.secure(servers))
        program = shutil.which("openssl")
        if program is None:
            output = await deferToThread(self.ask, port)
        else:
            client = Command(b"question\n")
            arguments = ["s_client", "-quiet", "-verify_return_error", "-CAfile", self.certs.ca]
            arguments += ["-verify_hostname", "localhost", "-connect", f"127.0.0.1:{port}"]
            reactor.spawnProcess(client, program, [program, *arguments])  # type: ignore[attr-defined]
            output = await client.ended
        self.assertEqual(output, b"heard: question\n")
        await servers.built[0].lost

    def ask(self, port: int) -> bytes:
        with self.connect(port) as tls:
            tls.sendall(b"question\n")
            return tls.recv(65536)


class Command(ProcessProtocol):
    """Runs a command with some input, and collects its output."""

    transport: Any

    def __init__(self, given: bytes) -> None:
        self._given = given
        self._output = bytearray()
        self.ended: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(self._given)

    def outReceived(self, data: bytes) -> None:
        self._output += data

    def processEnded(self, reason: Failure) -> None:
        self.ended.callback(bytes(self._output))
