"""Half-closed sessions through a server and an agent in memory, over TLS or not, with slow readers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from reverseproxy.config.models import TlsContextConfig
from reverseproxy.testing import MemoryReactor, run
from reverseproxy.tls import ClientTls, ServerTls, wrap_server
from reverseproxy.tls.factory import wrap_client
from tests.certs import Certificates
from tests.integration import configs

SIZE = 400_000


@implementer(IHalfCloseableProtocol)
class Peer(Protocol):
    """
    Reads by fits and starts, and half-closes behind all that it says.

    @ivar heard: how many bytes have come.
    """

    transport: Any

    def __init__(self, reactor: MemoryReactor, listens: bool) -> None:
        self.reactor = reactor
        self.listens = listens
        self.heard = 0
        self.ended = self.lost = False

    def connectionMade(self) -> None:
        self.beat()
        if not self.listens:
            self.say(self.transport.loseWriteConnection)

    def beat(self) -> None:
        if not self.lost:
            self.transport.pauseProducing()
            self.reactor.callLater(0.1, self.transport.resumeProducing)
            self.reactor.callLater(0.2, self.beat)

    def say(self, end: Callable[[], object]) -> None:
        self.transport.write(b"x" * SIZE)
        end()

    def dataReceived(self, data: bytes) -> None:
        self.heard += len(data)

    def readConnectionLost(self) -> None:
        self.ended = True
        if self.listens:
            self.say(self.transport.loseConnection)

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True


class SlowReaderTests(SynchronousTestCase):
    def check(self, options: dict[str, Any], client: bool, tunnel: bool, service: bool, mux: bool) -> None:
        reactor = MemoryReactor()
        context = TlsContextConfig(**options)
        unverified = {"status": True, "insecure_skip": True}
        peers: list[Peer] = []

        def listen(_: object) -> Peer:
            peers.append(Peer(reactor, True))
            return peers[-1]

        factory = Factory()
        factory.buildProtocol = listen  # type: ignore[method-assign, assignment]
        secure = wrap_server(factory, ServerTls([context]), clock=reactor) if service else factory
        reactor.listenTCP(8000, secure, interface="127.0.0.1")
        where = {"client": "127.0.0.1:2045", "tunnel": "127.0.0.1:2047"}
        tls = {"client_tls": options if client else None, "tls": options if tunnel else None}
        run(configs.server(kind="tcp", **where, **tls), reactor)
        tls = {"tls": unverified if tunnel else None, "backend_tls": unverified if service else None}
        run(configs.agent(["127.0.0.1:2047"], "127.0.0.1:8000", kind="tcp", mux=mux, **tls), reactor)
        for _ in range(10):
            reactor.advance(0.1)
        speaker = Peer(reactor, False)
        protocol: Any = speaker
        if client:
            dial = Factory()
            dial.buildProtocol = lambda _: speaker  # type: ignore[method-assign, assignment]
            unverified_tls = ClientTls(TlsContextConfig(**unverified), "localhost")
            protocol = wrap_client(dial, unverified_tls).buildProtocol(None)
        reactor.dial("127.0.0.1", 2045, protocol)
        for _ in range(120):
            reactor.advance(0.05)
        [peer] = [each for each in peers if each.heard]
        self.assertEqual((peer.heard, peer.ended, peer.lost), (SIZE, True, True))
        self.assertEqual((speaker.heard, speaker.ended), (SIZE, True))

    def test_all_of_it_comes(self) -> None:
        pair = Certificates(self.mktemp()).server
        options = {"status": True, "cert_chain": pair.chain, "private_key": pair.key}
        for case in itertools.product((False, True), repeat=4):
            self.check(options, *case)
