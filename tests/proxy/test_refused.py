"""Each refusal is counted, with its reason."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.cluster.manager import ClusterManager
from reverseproxy.config.models import TunnelConfig
from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.limits.buffered_bytes import BufferBudget
from reverseproxy.limits.connection_limit import Descriptors
from reverseproxy.limits.refusals import REASONS, REFUSALS
from reverseproxy.listener.connection_limiter import ConnectionLimiter
from reverseproxy.logs.bounds import LogBounds
from reverseproxy.mux.session import MuxSession
from reverseproxy.proxy.detect import Detector, DetectorSettings
from reverseproxy.proxy.http.http1_server import Http1Proxy
from reverseproxy.proxy.rpc.server import RpcProxy
from reverseproxy.testing import MemoryReactor
from reverseproxy.tunnel.server.filter import TunnelServer
from tests.proxy import rpc_world
from tests.proxy.http2_memory import Http2World
from tests.proxy.memory import Wire, World

INFO = ConnectionInfo(remote="10.9.9.9:1234", local="10.0.0.1:80")


class Member:
    """An accepted connection."""

    def __init__(self, expendable: bool, descriptor: int) -> None:
        self.expendable = expendable
        self.descriptor = descriptor

    def make_room(self) -> None:
        """End."""


class RefusedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.before = dict(REFUSALS)

    def counted(self, **reasons: int) -> None:
        found = {reason: REFUSALS[reason] - self.before[reason] for reason in REASONS}
        self.assertEqual({reason: number for reason, number in found.items() if number}, reasons)

    def wire(self, protocol: Any, clock: Clock | None = None) -> Wire:
        return Wire(clock or Clock()).connect(protocol)

    def test_reasons(self) -> None:
        self.assertEqual(set(REFUSALS), set(REASONS))

    def test_http1(self) -> None:
        world = World()
        self.wire(Http1Proxy(world.settings, INFO), world.clock).send(b"GET / HTTP/1.1\r\nHost : a\r\n\r\n")
        self.counted(http1=1)

    def test_http2(self) -> None:
        Http2World().connect(greet=False).wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"x" * 100)
        self.counted(http2=1)

    def test_rpc(self) -> None:
        world = rpc_world.World()
        self.wire(RpcProxy(world.settings, INFO), world.clock).send(b"\xff" * 100)
        self.counted(rpc=1)

    def test_protocol(self) -> None:
        self.wire(Detector(DetectorSettings("l", (), Clock()), INFO)).send(b"\xff")
        self.counted(protocol=1)

    def test_streams(self) -> None:
        reactor = MemoryReactor()
        session = MuxSession(True, reactor)
        wire = self.wire(session, Clock())
        wire.send(b"\xff" * 12)
        self.counted(streams=1)

    def test_tunnel(self) -> None:
        server = TunnelServer(
            "t",
            TunnelConfig(),
            ClusterManager([]),
            Clock(),
            lambda *_: None,  # type: ignore[arg-type, return-value]
            (),
        )
        connection = server.build_protocol(INFO)
        transport = StringTransport()
        transport.registerProducer(object(), True)  # type: ignore[arg-type]
        connection.makeConnection(transport)
        connection.dataReceived(b"GET / HTTP/1.1\r\n")
        self.counted(tunnel=1)

    def test_connections(self) -> None:
        limiter = ConnectionLimiter(Clock(), Descriptors(64))
        for number in range(limiter.everyone.most):
            limiter.enter("l", "a", Member(number == 0, 5), ())
        self.counted()
        limiter.enter("l", "b", Member(False, 5), ())
        self.counted(connection_closed=1)
        limiter.enter("l", "a", Member(False, 5), ())
        self.counted(connection_closed=1, connection_refused=1)

    def test_unfinished(self) -> None:
        BufferBudget(10_000).account("a", lambda reason: None).keep(10_001)
        self.counted(unfinished=1)

    def test_log(self) -> None:
        bounds = LogBounds(1, lambda: 0.0)
        wrote = [bounds.ask("kind") for _ in range(Random(1).randint(501, 600))]
        self.counted(log=wrote.count(-1))
