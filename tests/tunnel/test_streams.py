"""Tunnels whose connections carry many streams, and how both ends agree on that; all in memory."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.app import ReverseProxy
from reverseproxy.cluster.host import MuxHost, ReverseHost
from reverseproxy.config.models import TunnelAgentConfig, TunnelConfig
from reverseproxy.errors import HostGone
from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.mux.session import PING_INTERVAL, PING_TIMEOUT
from reverseproxy.testing import MemoryReactor, Recorder, run
from reverseproxy.tunnel.agent.leaving import QUIET
from reverseproxy.tunnel.streams import StreamSettings
from reverseproxy.wire.mosn.extensions import Announcement, CloseProof, ServerAnnouncement
from reverseproxy.wire.mosn.frames import (
    ConnectionInit,
    InitResponse,
    Status,
    encode,
    encode_graceful_close,
)
from reverseproxy.wire.yamux.events import MuxLimits
from tests.integration.configs import quick_agent, server
from tests.transport.contract import CallableFactory
from tests.tunnel.logged import capture
from tests.tunnel.memory import INIT, SUCCESS

CLIENT, TUNNEL, BACKEND = 2045, 2046, 2047
REQUEST = b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n"
DEAD = PING_INTERVAL + PING_TIMEOUT + 0.5


class Service(Recorder):
    """Answers requests when it is told to."""

    def answer(self, body: bytes) -> None:
        self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))


class Tunnel:
    """
    A server, its agents, and a service behind each of them.

    @ivar services: the connections of each agent to its service.
    @cvar graceful_timeout: of the server.
    """

    graceful_timeout = "15s"

    def __init__(
        self,
        agents: int = 1,
        kind: str = "http",
        agent_kind: str = "tcp",
        tunnel: dict[str, Any] | None = None,
        connections: int = 1,
        **agent: Any,
    ) -> None:
        self.reactor = MemoryReactor()
        self.server = run(
            server(
                client=f"127.0.0.1:{CLIENT}",
                tunnel=f"127.0.0.1:{TUNNEL}",
                kind=kind,
                tunnel_config=tunnel,
                graceful_timeout=self.graceful_timeout,
            ),
            self.reactor,
        )
        self.services: list[list[Service]] = []
        self.agents: list[ReverseProxy] = []
        for number in range(agents):
            services: list[Service] = []
            self.services.append(services)
            port = BACKEND + number

            def build(services: list[Service] = services) -> Service:
                services.append(Service())
                return services[-1]

            self.reactor.listenTCP(port, CallableFactory(build))
            document = quick_agent(
                TUNNEL, f"127.0.0.1:{port}", kind=agent_kind, connections=connections, **agent
            )
            self.agents.append(run(document, self.reactor))
        self.turn(0.1)

    @property
    def cluster(self) -> Any:
        return self.server.clusters.get("clientCluster")

    @property
    def hosts(self) -> list[Any]:
        return list(self.cluster.hosts.values())

    def client(self, data: bytes = b"") -> Any:
        client = self.reactor.dial("127.0.0.1", CLIENT, Recorder())
        client.transport.write(data)
        self.reactor.settle()
        return client

    def turn(self, seconds: float = 0.0) -> None:
        self.reactor.settle()
        for _ in range(round(seconds / 0.05)):
            self.reactor.advance(0.05)

    def silence(self, host: Any) -> None:
        """From now on neither end of a connection hears of the other."""
        transport = host._session.transport
        transport.silent = transport._other.silent = True


class CarryingTests(SynchronousTestCase):
    def test_one_connection_for_all(self) -> None:
        tunnel = Tunnel()
        [host] = tunnel.hosts
        self.assertIsInstance(host, MuxHost)
        clients = [tunnel.client(REQUEST % b"/%d" % n) for n in range(300)]
        self.assertEqual((len(tunnel.services[0]), host.active, host.streams), (300, 300, 300))
        for service in reversed(tunnel.services[0]):
            service.answer(service.data.split()[1])
        tunnel.turn()
        for number, client in enumerate(clients):
            self.assertTrue(client.data.endswith(b"/%d" % number))
        self.assertEqual(host.active, 0)

    def test_streams_are_kept_for_the_next_request(self) -> None:
        tunnel = Tunnel(agent_kind="http")
        client = tunnel.client()
        for number in range(5):
            client.transport.write(REQUEST % b"/%d" % number)
            tunnel.turn()
            tunnel.services[0][0].answer(b"%d" % number)
            tunnel.turn()
        self.assertEqual((len(tunnel.services[0]), tunnel.hosts[0].streams), (1, 1))
        self.assertEqual(client.data.count(b"200 OK"), 5)

    def test_sessions(self) -> None:
        tunnel = Tunnel(kind="tcp")
        clients = [tunnel.client(b"session %d" % number) for number in range(10)]
        for service in tunnel.services[0]:
            service.transport.write(service.data.upper())
        tunnel.turn()
        self.assertEqual([client.data for client in clients], [b"SESSION %d" % n for n in range(10)])
        for client in clients[:5]:
            client.transport.loseConnection()
        for service in tunnel.services[0][5:]:
            service.transport.loseConnection()
        tunnel.turn()
        self.assertTrue(all(each.reason is not None for each in (*clients, *tunnel.services[0])))
        self.assertEqual((tunnel.hosts[0].streams, tunnel.hosts[0].active), (0, 0))
        self.assertEqual(len(tunnel.hosts), 1)

    def test_where_a_stream_comes_from(self) -> None:
        tunnel = Tunnel(agent_kind="http")
        infos: list[ConnectionInfo] = []
        listener = tunnel.agents[0].listeners["serverListener"]
        build = listener.build_protocol
        self.patch(listener, "build_protocol", lambda info: infos.append(info) or build(info))
        tunnel.client(REQUEST % b"/")
        [info] = infos
        self.assertEqual(
            (info.remote, info.local, info.reverse), (f"127.0.0.1:{TUNNEL}", tunnel.hosts[0].address, True)
        )

    def test_an_idle_stream_that_the_agent_closes(self) -> None:
        tunnel = Tunnel(agent_kind="http", hosting={"connection_idle_timeout": "5s"})
        client = tunnel.client(REQUEST % b"/1")
        tunnel.services[0][-1].answer(b"1")
        tunnel.turn(6)
        self.assertEqual(tunnel.hosts[0].streams, 0)
        client.transport.write(REQUEST % b"/2")
        tunnel.turn()
        tunnel.services[0][-1].answer(b"2")
        tunnel.turn()
        self.assertEqual(client.data.count(b"200 OK"), 2)

    def test_a_request_on_a_stream_that_is_being_closed(self) -> None:
        """The agent has closed it, but the server does not know yet: the request goes out again."""
        tunnel = Tunnel(agent_kind="http")
        client = tunnel.client(REQUEST % b"/1")
        tunnel.services[0][-1].answer(b"1")
        tunnel.turn()
        [stream] = self.session(tunnel).all
        stream.loseConnection()
        client.transport.write(REQUEST % b"/2")
        tunnel.turn()
        tunnel.services[0][-1].answer(b"2")
        tunnel.turn()
        self.assertEqual(client.data.count(b"200 OK"), 2)

    def test_a_stream_that_is_refused(self) -> None:
        """The agent has certainly not looked at it, so that it may go elsewhere whatever it is."""
        tunnel = Tunnel(agents=2, agent_kind="http")
        for number in (0, 1):
            for services in tunnel.services:
                services.clear()
            sessions = [self.session(tunnel, each) for each in (number, 1 - number)]
            sessions[0].mux._table.limits = MuxLimits(accept_backlog=0)
            sessions[1].mux._table.limits = MuxLimits()
            clients = [
                tunnel.client(b"POST /%d HTTP/1.1\r\nHost: a\r\ncontent-length: 0\r\n\r\n" % n)
                for n in range(100)
            ]
            self.assertEqual([len(tunnel.services[number]), len(tunnel.services[1 - number])], [0, 100])
            for client in clients:
                client.transport.abortConnection()
            tunnel.turn()

    def session(self, tunnel: Tunnel, number: int = 0) -> Any:
        """The agent's end of its only connection."""
        [peer] = tunnel.agents[number].agents[0]._peers.values()
        return peer._cores[0].link.session

    def test_how_far_away_an_agent_is(self) -> None:
        tunnel = Tunnel()
        self.assertIsNotNone(tunnel.hosts[0].rtt)


class AgreeingTests(SynchronousTestCase):
    def kind(self, **options: Any) -> Any:
        tunnel = Tunnel(**options)
        client = tunnel.client(REQUEST % b"/")
        tunnel.services[0][-1].answer(b"fine")
        tunnel.turn()
        self.assertIn(b"fine", client.data)
        return type(tunnel.hosts[0])

    def test_both_want_it(self) -> None:
        self.assertIs(self.kind(), MuxHost)

    def test_one_does_not(self) -> None:
        self.assertIs(self.kind(mux=False), ReverseHost)
        self.assertIs(self.kind(announce=False), ReverseHost)
        self.assertIs(self.kind(tunnel={"mux": False}), ReverseHost)
        self.assertIs(self.kind(tunnel={"mux": False}, mux=False), ReverseHost)

    def answer(self, extra: dict[str, Any] | None, **tunnel: Any) -> bytes:
        """What a server says to an agent."""
        reactor = MemoryReactor()
        run(server(tunnel=f"127.0.0.1:{TUNNEL}", tunnel_config=tunnel), reactor)
        agent = reactor.dial("127.0.0.1", TUNNEL, Recorder())
        agent.transport.write(INIT if extra is None else encode(ConnectionInit("clientCluster", extra=extra)))
        reactor.settle()
        return bytes(agent.data)

    def test_what_a_server_says(self) -> None:
        ours = Announcement("a").to_extra()
        offer = Announcement("a", mux=("better", "yamux")).to_extra()
        plain = encode(InitResponse(Status.SUCCESS, ServerAnnouncement().to_extra()))
        # Byte for byte as if there were no streams.
        self.assertEqual(self.answer(None), SUCCESS)
        self.assertEqual(self.answer({"anything": 1}), SUCCESS)
        self.assertEqual(self.answer(ours), plain)
        self.assertEqual(self.answer(offer, mux=False), plain)
        self.assertEqual(self.answer(Announcement("a", mux=("other",)).to_extra()), plain)
        agreed = encode(InitResponse(Status.SUCCESS, ServerAnnouncement(mux="yamux").to_extra()))
        data = self.answer(offer)
        self.assertEqual(data[: len(agreed)], agreed)
        # The first thing behind it is a ping.
        self.assertEqual(data[len(agreed) : len(agreed) + 4], b"\0\2\0\1")
        agreed = encode(InitResponse(Status.SUCCESS, ServerAnnouncement(mux="yamux", window=5000).to_extra()))
        small = Announcement("a", mux=("yamux",), window=5000).to_extra()
        self.assertEqual(self.answer(small)[: len(agreed)], agreed)
        large = Announcement("a", mux=("yamux",), window=262144).to_extra()
        self.assertIn(b'"window":65536', self.answer(large))
        self.assertNotIn(b"window", self.answer(Announcement("a", window=65536).to_extra()))

    def test_streams_that_were_not_offered(self) -> None:
        reactor = MemoryReactor()
        wire = Recorder()
        reactor.listenTCP(TUNNEL, CallableFactory(lambda: wire))
        with capture() as logged:
            run(quick_agent(TUNNEL, mux=False), reactor)
            wire.transport.write(
                encode(InitResponse(Status.SUCCESS, ServerAnnouncement(mux="yamux").to_extra()))
            )
            reactor.settle()
        self.assertIsNotNone(wire.reason)
        self.assertTrue(any("was not offered" in str(event) for event in logged))

    def test_everything_in_one_read(self) -> None:
        """The first stream may come right behind the answer."""
        reactor = MemoryReactor()
        wire = Recorder()
        reactor.listenTCP(TUNNEL, CallableFactory(lambda: wire))
        run(quick_agent(TUNNEL), reactor)
        request = REQUEST % b"/"
        wire.transport.write(
            encode(InitResponse(Status.SUCCESS, ServerAnnouncement(mux="yamux").to_extra()))
            + b"\0\0\0\1\0\0\0\1"
            + len(request).to_bytes(4, "big")
            + request
        )
        reactor.settle()
        self.assertIn(b"answered by the agent", wire.data)

    def test_settings(self) -> None:
        self.assertIsNone(StreamSettings.of(TunnelConfig(mux=False)))
        settings = StreamSettings.of(
            TunnelAgentConfig(
                mux_ping_interval=1.0, mux_ping_timeout=0.5, mux_max_window=2**20, mux_max_window_growth=7
            )
        )
        assert settings is not None
        self.assertEqual(
            (settings.ping_interval, settings.ping_timeout, settings.limits.max_window), (1.0, 0.5, 2**20)
        )
        for window, first in ((0, 262144), (5000, 5000)):
            limits = settings.limits_with(window)
            self.assertEqual((limits.first, limits.window, limits.max_window), (first, first, 2**20))
            self.assertEqual(limits.receive_budget, 7)
        # Readers that are slow are not to be cut off for it, however many they are.
        small = settings.limits_with(settings.window)
        self.assertLessEqual(small.window * small.max_streams, small.max_held)
        default = StreamSettings.of(TunnelConfig())
        self.assertEqual(default, StreamSettings())
        self.assertEqual(StreamSettings.of(TunnelAgentConfig()), default)


class LeavingTests(SynchronousTestCase):
    def drain(self, tunnel: Tunnel, number: int = 0) -> Any:
        stopped = tunnel.agents[number].stopService()
        tunnel.turn()
        return stopped

    def test_requests_under_way_are_finished(self) -> None:
        tunnel = Tunnel(agents=2, agent_kind="http")
        clients = [tunnel.client(REQUEST % b"/%d" % number) for number in range(20)]
        idle = tunnel.client(REQUEST % b"/idle")
        for services in tunnel.services:
            for service in services:
                if b"/idle" in service.data:
                    service.answer(b"idle")
        tunnel.turn()
        stopped = self.drain(tunnel)
        self.assertEqual(len(tunnel.hosts), 1)
        self.assertNoResult(stopped)
        after = [tunnel.client(REQUEST % b"/after") for _ in range(5)]
        idle.transport.write(REQUEST % b"/again")
        tunnel.turn()
        self.assertFalse(any(b"/after" in service.data for service in tunnel.services[0]))
        for services in tunnel.services:
            for service in services:
                service.answer(b"done")
        tunnel.turn(0.2)
        for client in (*clients, *after, idle):
            self.assertIn(b"done", client.data)
        self.successResultOf(stopped)

    def test_a_request_that_meets_the_goodbye(self) -> None:
        """The server has sent it before it hears that the agent leaves."""
        tunnel = Tunnel(agent_kind="http")
        client = tunnel.client()
        stopped = tunnel.agents[0].stopService()
        client.transport.write(REQUEST % b"/")
        tunnel.reactor.settle()
        self.assertEqual(len(tunnel.services[0]), 1)
        tunnel.services[0][0].answer(b"just in time")
        tunnel.turn(0.2)
        self.assertIn(b"just in time", client.data)
        self.successResultOf(stopped)

    def test_an_idle_agent_leaves_at_once(self) -> None:
        tunnel = Tunnel(connections=4)
        self.assertEqual(len(tunnel.hosts), 4)
        stopped = self.drain(tunnel)
        tunnel.turn(0.1)
        self.successResultOf(stopped)
        self.assertEqual((tunnel.hosts, tunnel.server.listeners["tunnelListener"].connections), ([], 0))

    def test_a_quiet_session_is_closed(self) -> None:
        """A client of the server's tcp_proxy that keeps its connection to the agent's HTTP proxy."""
        tunnel = Tunnel(kind="tcp", agent_kind="http")
        client = tunnel.client(REQUEST % b"/")
        tunnel.services[0][0].answer(b"one")
        tunnel.turn()
        stopped = self.drain(tunnel)
        client.transport.write(REQUEST % b"/")
        tunnel.turn(QUIET / 2)
        tunnel.services[0][0].answer(b"two")
        tunnel.turn(QUIET / 2)
        self.assertIsNone(client.reason)
        self.assertNoResult(stopped)
        tunnel.turn(QUIET)
        self.assertIsNotNone(client.reason)
        self.successResultOf(stopped)
        self.assertEqual(client.data.count(b"200 OK"), 2)

    def test_the_time_is_over(self) -> None:
        tunnel = Tunnel(kind="tcp", graceful_close_max_wait_duration="2s")
        client = tunnel.client(b"a session without end")
        stopped = self.drain(tunnel)
        tunnel.turn(1.9)
        self.assertIsNone(client.reason)
        tunnel.turn(0.3)
        self.assertIsNotNone(client.reason)
        self.successResultOf(stopped)

    def test_a_graceful_close_over_an_aside(self) -> None:
        tunnel = Tunnel(agents=2, agent_kind="http")
        client = tunnel.client(REQUEST % b"/")
        [busy] = [host for host in tunnel.hosts if host.active]
        [idle] = [host for host in tunnel.hosts if not host.active]
        with capture() as logged:
            aside = tunnel.reactor.dial("127.0.0.1", TUNNEL, Recorder())
            for frame in encode_graceful_close([busy.address, idle.address], "clientCluster"):
                aside.transport.write(frame)
            tunnel.turn()
        # It belongs to agents of ours, who would have shown that they are themselves.
        self.assertEqual(len(tunnel.hosts), 2, logged)
        agent = tunnel.agents[0].agents[0]
        proof = CloseProof(agent=agent.plan.agent_id).to_extra()
        for host in (busy, idle):
            for frame in encode_graceful_close([host.address], "clientCluster", proof):
                aside.transport.write(frame)
                tunnel.turn()
        self.assertEqual(len(tunnel.hosts), 2)  # the agent has dialled again
        self.assertEqual(sum(host.active for host in tunnel.hosts) + busy.active, 1)
        for services in tunnel.services:
            for service in services:
                service.answer(b"done")
        tunnel.turn()
        self.assertIn(b"done", client.data)

    def test_a_server_that_lets_a_connection_go(self) -> None:
        """The agent has another one while requests on the old one are finished."""
        tunnel = Tunnel(agent_kind="http")
        client = tunnel.client(REQUEST % b"/")
        [host] = tunnel.hosts
        tunnel.cluster.remove_host(host, "a test")
        tunnel.turn(0.5)
        [other] = tunnel.hosts
        self.assertIsNot(other, host)
        self.assertFalse(host.closed)
        second = tunnel.client(REQUEST % b"/")
        for service in tunnel.services[0]:
            service.answer(b"done")
        tunnel.turn()
        self.assertTrue(host.closed)
        for each in (client, second):
            self.assertIn(b"done", each.data)
        self.failureResultOf(host.connect(CallableFactory(Recorder)), HostGone)
        self.assertFalse(host.usable())
        stopped = self.drain(tunnel)
        tunnel.turn(0.1)
        self.successResultOf(stopped)

    def test_stopping_closes_what_finishes(self) -> None:
        tunnel = Tunnel(kind="tcp", graceful_close_max_wait_duration="1s")
        client = tunnel.client(b"a session without end")
        tunnel.cluster.remove_host(tunnel.hosts[0], "a test")
        tunnel.turn(0.5)
        self.assertEqual(len(tunnel.hosts), 1)
        stopped = self.drain(tunnel)
        tunnel.turn(0.5)
        self.assertIsNone(client.reason)
        tunnel.turn(1)
        self.successResultOf(stopped)
        self.assertIsNotNone(client.reason)

    def test_a_server_that_stops(self) -> None:
        tunnel = Tunnel(agent_kind="http")
        client = tunnel.client(REQUEST % b"/")
        stopped = tunnel.server.stopService()
        tunnel.turn(1)
        self.assertNoResult(stopped)
        tunnel.services[0][0].answer(b"done")
        tunnel.turn(0.2)
        self.assertIn(b"done", client.data)
        self.successResultOf(stopped)


class DeadTests(SynchronousTestCase):
    def test_requests_go_to_another_agent(self) -> None:
        tunnel = Tunnel(agents=2, connections=2, agent_kind="http")
        self.assertEqual(len(tunnel.hosts), 4)
        clients = [tunnel.client(REQUEST % b"/%d" % number) for number in range(40)]
        lost = [service.data.split()[1] for service in tunnel.services[0]]
        self.assertTrue(lost)
        agent_id = tunnel.agents[0].agents[0].plan.agent_id
        first = [
            held.host
            for held in self.registry(tunnel)._connections
            if held.announcement is not None and held.announcement.agent == agent_id
        ]
        self.assertEqual(len(first), 2)
        for host in first:
            tunnel.silence(host)
        started = tunnel.reactor.seconds()
        while set(first) & set(tunnel.hosts):
            tunnel.turn(0.05)
        self.assertLessEqual(tunnel.reactor.seconds() - started, 5.0)
        again = [service.data.split()[1] for service in tunnel.services[1]]
        self.assertEqual(sorted(again), sorted(b"/%d" % number for number in range(40)))
        for service in tunnel.services[1]:
            service.answer(service.data.split()[1])
        tunnel.turn()
        for number, client in enumerate(clients):
            self.assertTrue(client.data.endswith(b"\r\n\r\n/%d" % number), client.data)

    def registry(self, tunnel: Tunnel) -> Any:
        build = tunnel.server.listeners["tunnelListener"]._build
        return build.server.registry

    def test_an_agent_dials_again(self) -> None:
        tunnel = Tunnel()
        [host] = tunnel.hosts
        tunnel.silence(host)
        tunnel.turn(DEAD + 2)
        [other] = tunnel.hosts
        self.assertIsNot(other, host)
        client = tunnel.client(REQUEST % b"/")
        tunnel.services[0][-1].answer(b"fine")
        tunnel.turn()
        self.assertIn(b"fine", client.data)

    def test_what_may_not_be_repeated_is_not(self) -> None:
        tunnel = Tunnel(agents=2, agent_kind="http")
        client = tunnel.client(b"POST / HTTP/1.1\r\nHost: a\r\ncontent-length: 0\r\n\r\n")
        [host] = [host for host in tunnel.hosts if host.active]
        tunnel.silence(host)
        tunnel.turn(DEAD)
        self.assertIn(b" 502 ", client.data)
        # Agents without requests see whether their service is there.
        asked = [service for services in tunnel.services for service in services if service.data]
        self.assertEqual(len(asked), 1)
