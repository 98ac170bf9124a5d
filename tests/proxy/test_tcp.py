"""Tests for L{reverseproxy.proxy.tcp.sessions}."""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.interfaces import IProtocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from reverseproxy.cluster.balancers.factory import make_balancer
from reverseproxy.cluster.handover import Handover
from reverseproxy.cluster.host import Host, ReverseHost, StaticHost
from reverseproxy.cluster.manager import ClusterManager
from reverseproxy.config.models import (
    CidrConfig,
    ClusterConfig,
    HostConfig,
    TcpProxyConfig,
    TcpRouteConfig,
)
from reverseproxy.errors import HostGone
from reverseproxy.interfaces import ConnectionInfo, IDrainable
from reverseproxy.proxy.access import AccessRecord
from reverseproxy.proxy.relay import EARLY_LIMIT
from reverseproxy.proxy.tcp.router import TcpRouter
from reverseproxy.proxy.tcp.sessions import TcpProxy
from reverseproxy.proxy.tcp.settings import TcpProxySettings
from reverseproxy.transport.closing import LINGER, STALL
from tests import most
from tests.proxy.memory import CountingCluster, Dial, Endpoint, Wire
from tests.tunnel.logged import capture


def info(remote: str = "10.9.9.9:1234", local: str = "10.0.0.1:80", **more: Any) -> ConnectionInfo:
    return ConnectionInfo(remote=remote, local=local, **more)


def route(cluster: str, **lists: Any) -> TcpRouteConfig:
    """A route that takes everything, but for the lists that are given."""
    everywhere = (CidrConfig(address="0.0.0.0", length=0), CidrConfig(address="::", length=0))
    return TcpRouteConfig(
        **{
            "cluster": cluster,
            "source_addrs": everywhere,
            "destination_addrs": everywhere,
            "source_port": ((1, 65535),),
            "destination_port": ((1, 65535),),
            **lists,
        }
    )


def cidr(text: str) -> CidrConfig:
    address, _, length = text.partition("/")
    return CidrConfig(address=address, length=int(length))


class RouterTests(SynchronousTestCase):
    def cluster_for(self, *routes: TcpRouteConfig, cluster: str = "", **ends: str) -> str | None:
        return TcpRouter(TcpProxyConfig(cluster=cluster, routes=routes)).cluster_for(info(**ends))

    def test_a_cluster_wins_outright(self) -> None:
        self.assertEqual(self.cluster_for(route("other"), cluster="the-one"), "the-one")
        self.assertEqual(self.cluster_for(cluster="the-one", remote="unix:"), "the-one")

    def test_no_route(self) -> None:
        self.assertIsNone(self.cluster_for())

    def test_the_first_route_that_matches(self) -> None:
        self.assertEqual(self.cluster_for(route("a"), route("b")), "a")
        self.assertEqual(self.cluster_for(route("a", source_port=((1, 80),)), route("b")), "b")

    def test_an_empty_list_holds_nothing(self) -> None:
        for name in ("source_addrs", "destination_addrs", "source_port", "destination_port"):
            self.assertIsNone(self.cluster_for(route("a", **{name: ()})), name)

    def test_addresses(self) -> None:
        for name, end in (("source_addrs", "remote"), ("destination_addrs", "local")):
            only = route("a", **{name: (cidr("192.168.0.0/16"), cidr("2001:db8::/32"), cidr("10.1.2.3/32"))})
            for address, matches in (
                ("192.168.255.1:7", True),
                ("192.169.0.1:7", False),
                ("10.1.2.3:7", True),
                ("10.1.2.4:7", False),
                ("[2001:db8::1]:7", True),
                ("[2001:db9::1]:7", False),
                ("[fe80::1%eth0]:7", False),
                ("unix:", False),
            ):
                found = self.cluster_for(only, **{end: address})
                self.assertEqual(found, "a" if matches else None, f"{name} {address}")

    def test_bits_behind_the_prefix_do_not_count(self) -> None:
        only = route("a", source_addrs=(cidr("192.168.77.5/16"),))
        self.assertEqual(self.cluster_for(only, remote="192.168.0.1:7"), "a")

    def test_ports(self) -> None:
        for name, end in (("source_port", "remote"), ("destination_port", "local")):
            only = route("a", **{name: ((80, 80), (1000, 2000))})
            for port, matches in ((79, 0), (80, 1), (81, 0), (999, 0), (1000, 1), (2000, 1), (2001, 0)):
                found = self.cluster_for(only, **{end: f"10.0.0.5:{port}"})
                self.assertEqual(found, "a" if matches else None, f"{name} {port}")


class World:
    """Clients in front of one tcp_proxy, with one cluster behind it."""

    def __init__(self, hosts: int = 1, *, cluster: dict[str, Any] | None = None, **more: Any) -> None:
        self.clock = Clock()
        config = ClusterConfig.model_validate({"name": "c", "lb_type": "LB_ROUNDROBIN", **(cluster or {})})
        self.cluster = CountingCluster(config, make_balancer(config, Random(1)), self.clock)
        self.endpoints: list[Endpoint] = []
        self.hosts: list[Any] = []
        for number in range(hosts):
            endpoint = Endpoint(self.clock)
            self.endpoints.append(endpoint)
            config_of_host = HostConfig(address=f"10.1.0.{number}:80")
            self.add(StaticHost(config_of_host, endpoint, self.clock))  # type: ignore[arg-type]
        self.records: list[AccessRecord] = []
        self.clients: list[Wire] = []
        self.sessions: list[TcpProxy] = []
        self.agents: list[Wire] = []
        self.settings = TcpProxySettings(
            listener="front",
            router=TcpRouter(more.pop("config", TcpProxyConfig(cluster="c"))),
            clusters=ClusterManager([self.cluster]),
            clock=self.clock,
            **{"access_log": self.records.append, **more},
        )

    def add(self, host: Host) -> None:
        self.hosts.append(host)
        self.cluster.add_host(host)

    def client(self, automatic: bool = True, **more: Any) -> Wire:
        """Connect a client."""
        wire = Wire(self.clock, automatic)
        session = TcpProxy(self.settings, info(**more))
        self.clients.append(wire)
        self.sessions.append(session)
        return wire.connect(session)

    def agent(self, name: str = "") -> Wire:
        """Let an agent bring a host."""
        wire = Wire(self.clock)
        owner = Handover()
        wire.connect(owner)
        name = name or f"10.2.0.1:{len(self.agents)}"
        self.agents.append(wire)
        host = ReverseHost(name, "", 10, None, wire, self.cluster.remove_host, clock=self.clock)
        host.attach(owner)
        self.add(host)
        return wire

    def later(self, number: int = 0) -> None:
        """Let the test decide what becomes of a host's dials."""
        self.endpoints[number].answer = "wait"

    @property
    def dials(self) -> list[Dial]:
        return [dial for endpoint in self.endpoints for dial in endpoint.dials]

    @property
    def backend(self) -> Wire:
        """The connection that was made to the first host last."""
        return self.endpoints[0].wires[-1]

    def turn(self, seconds: float = 0.0) -> None:
        """Let the reactor run."""
        # In steps, as what is due sets the next time from the one that it is.
        while 0.25 <= seconds < 100:
            self.clock.advance(0.25)
            seconds -= 0.25
        self.clock.pump([seconds, 0, 0, 0])


GONE = "the client has gone before there was a host for it"
CLIENT_BROKE = "the client's connection was lost: the connection broke off"
HOST_BROKE = "the host's connection was lost: the connection broke off"


class TcpTestCase(SynchronousTestCase):
    def assert_over(self, world: World, *flags: str) -> None:
        """
        Every session has ended, and was accounted for once.

        @param flags: why, in order; empty for a normal end.
        """
        world.turn()
        self.assertTrue(all(client.lost for client in world.clients))
        self.assertTrue(all(wire.lost for endpoint in world.endpoints for wire in endpoint.wires))
        self.assertEqual(world.cluster.given_back, world.cluster.taken)
        self.assertEqual((world.cluster.active, world.cluster.waiting), (0, 0))
        self.assertEqual([host.active for host in world.hosts], [0] * len(world.hosts))
        self.assertEqual([record.flag for record in world.records], list(flags))
        self.assertEqual(world.clock.getDelayedCalls(), [])


class SessionTests(TcpTestCase):
    def test_the_interfaces(self) -> None:
        world = World()
        protocol = TcpProxy(world.settings, info())
        verifyObject(IDrainable, protocol)
        verifyObject(IProtocol, protocol)

    def test_bytes_both_ways_and_the_record(self) -> None:
        world = World()
        client = world.client(remote="10.9.9.9:5555")
        client.send(b"question")
        self.assertEqual(bytes(world.backend.written), b"question")
        world.backend.send(b"the answer")
        self.assertEqual(bytes(client.written), b"the answer")
        world.turn(2.5)
        self.assertEqual(world.records, [])
        client.end()
        world.turn()
        world.backend.end()
        self.assert_over(world, "")
        [record] = world.records
        self.assertEqual((record.bytes_received, record.bytes_sent), (8, 10))
        self.assertEqual((record.protocol, record.duration), ("tcp", 2.5))
        self.assertEqual((record.upstream.cluster, record.upstream.host), ("c", "10.1.0.0:80"))
        self.assertNotIn(0, (record.client.number, record.upstream.connection))
        self.assertEqual((record.client.remote, record.client.local), ("10.9.9.9:5555", "10.0.0.1:80"))

    def test_without_an_access_log(self) -> None:
        world = World(access_log=None)
        world.client().reset()
        self.assert_over(world)

    def test_the_backend_speaks_first(self) -> None:
        world = World()
        client = world.client()
        world.backend.send(b"220 ready\r\n")
        self.assertEqual(bytes(client.written), b"220 ready\r\n")

    def test_an_agent_s_backend_spoke_before_there_was_a_client(self) -> None:
        world = World(hosts=0)
        agent = world.agent()
        agent.send(b"220 ready\r\n")
        self.assertEqual(bytes(world.client().written), b"220 ready\r\n")

    def test_what_the_client_sends_before_there_is_a_host(self) -> None:
        world = World()
        world.later()
        client = world.client()
        client.send(b"early ")
        client.send(b"bird")
        world.dials[0].succeed()
        client.send(b"!")
        self.assertEqual(bytes(world.backend.written), b"early bird!")

    def test_not_more_than_a_limit_of_it(self) -> None:
        world = World()
        world.later()
        client = world.client()
        for _ in range(3):
            client.send(b"x" * EARLY_LIMIT)
        self.assertEqual(client.unread, EARLY_LIMIT)
        world.dials[0].succeed()
        world.turn()
        self.assertEqual(len(world.backend.written), 3 * EARLY_LIMIT)

    def test_half_closes(self) -> None:
        world = World()
        client = world.client()
        client.send(b"all of it")
        client.end()
        world.turn()
        self.assertTrue(world.backend.write_ended)
        world.backend.send(b"and the answer")
        self.assertEqual(bytes(client.written), b"and the answer")
        self.assertFalse(client.disconnecting)
        world.backend.end()
        world.turn()
        self.assert_over(world, "")

    def test_a_half_close_before_there_is_a_host(self) -> None:
        world = World()
        world.later()
        client = world.client()
        client.send(b"all of it")
        client.end()
        world.dials[0].succeed()
        world.turn()
        self.assertEqual(bytes(world.backend.written), b"all of it")
        self.assertTrue(world.backend.write_ended)

    def test_the_backend_closes(self) -> None:
        world = World()
        client = world.client()
        world.backend.send(b"bye")
        world.backend.reset()
        world.turn()
        self.assertEqual(bytes(client.written), b"bye")
        self.assert_over(world, HOST_BROKE)

    def test_a_client_that_does_not_read_the_end(self) -> None:
        world = World()
        client = world.client(automatic=False)
        world.backend.send(b"bye")
        world.backend.reset()
        # The host is free at once, whatever the client does.
        self.assertEqual(world.cluster.active, 0)
        for _ in range(2):
            for _ in range(int(STALL / LINGER) - 1):
                world.turn(LINGER)
            client.receive(1)
            self.assertFalse(client.lost)
        for _ in range(int(STALL / LINGER) + 1):
            world.turn(LINGER)
        self.assertTrue(client.aborted)
        self.assert_over(world, HOST_BROKE)

    def test_a_slow_reader_holds_the_sender_back(self) -> None:
        world = World()
        client = world.client(automatic=False)
        for _ in range(4):
            world.backend.send(b"x" * 50_000)
        self.assertFalse(world.backend.reading)
        self.assertLess(client.most_buffered, 150_000)
        while client.buffered:
            client.receive()
            world.turn()
        self.assertEqual(len(client.written), 200_000)


class FindingTests(TcpTestCase):
    """What can go wrong before there is a connection to a host."""

    def refused(self, world: World, reason: str) -> None:
        """The last client is closed, for a reason that is logged and recorded."""
        self.assertTrue(world.clients[-1].disconnecting)
        _, _, said = self.events.text().rpartition("session of 10.9.9.9:1234 closed: ")
        self.assertEqual(said.partition("; ")[0], reason)
        self.assert_over(world, reason)

    def run(self, *args: Any, **kwargs: Any) -> Any:
        with capture() as self.events:
            return super().run(*args, **kwargs)

    def test_no_route(self) -> None:
        world = World(config=TcpProxyConfig(routes=(route("c", source_port=((1, 1),)),)))
        world.client()
        self.refused(world, "no route of tcp_proxy matches this connection")
        self.assertEqual(world.records[0].upstream.cluster, "")

    def test_routes(self) -> None:
        world = World(config=TcpProxyConfig(routes=(route("c", destination_port=((80, 80),)),)))
        world.client().send(b"hello")
        self.assertEqual(bytes(world.backend.written), b"hello")

    def test_no_such_cluster(self) -> None:
        world = World(config=TcpProxyConfig(cluster="missing"))
        world.client()
        self.refused(world, "there is no cluster 'missing'")

    def test_no_host(self) -> None:
        world = World(hosts=0)
        world.client()
        self.refused(world, "cluster c has no host")

    def test_too_many_sessions(self) -> None:
        world = World(cluster={"circuit_breakers": [{"max_requests": 1}]})
        world.client()
        second = world.client()
        self.assertTrue(second.disconnecting)
        self.assertIn("session of 10.9.9.9:1234 closed: cluster c has its 1 requests", self.events.text())

    def test_no_agent_has_a_connection_left(self) -> None:
        world = World(hosts=0, cluster={"connect_timeout": "4s"})
        world.agent()
        first = world.client()
        world.client()
        self.assertEqual(world.cluster.waiting, 1)
        world.turn(4.1)
        self.assertTrue(world.clients[1].lost)
        self.assertEqual(world.records[0].flag, "no host of cluster c became free in time")
        self.assertFalse(first.disconnecting)
        self.assertEqual(world.cluster.waiting, 0)

    def test_too_many_wait(self) -> None:
        world = World(hosts=0, cluster={"circuit_breakers": [{"max_pending_requests": 1}]})
        world.agent()
        for _ in range(3):
            world.client()
        self.assertEqual([client.disconnecting for client in world.clients], [False, False, True])
        self.assertIn("1 requests wait for cluster c already", self.events.text())

    def test_the_cluster_is_closed_while_a_client_waits(self) -> None:
        world = World(hosts=0)
        world.agent()
        world.client()
        world.client()
        world.cluster.close("stopping")
        world.turn()
        self.assertTrue(world.clients[1].lost)
        self.assertIn("cluster c is closed: stopping", self.events.text())

    def test_a_client_that_leaves_while_it_waits(self) -> None:
        world = World(hosts=0)
        world.agent()
        world.client()
        world.client().reset()
        self.assertEqual(world.cluster.waiting, 0)
        self.assertEqual(world.records[0].flag, GONE)
        world.clients[0].reset()
        world.turn(LINGER)
        world.agent()
        # The new connection is there for whoever comes next.
        world.client().send(b"hello")
        self.assertEqual(bytes(world.agents[1].written), b"hello")

    def test_a_client_that_leaves_while_its_host_is_dialled(self) -> None:
        world = World()
        world.later()
        client = world.client()
        self.assertEqual(world.cluster.active, 1)
        client.reset()
        self.assertTrue(world.dials[0].cancelled)
        self.assert_over(world, GONE)

    def test_a_client_that_leaves_while_its_host_is_dialled_in_vain(self) -> None:
        world = World()
        world.later()
        client = world.client()
        world.later()
        client.protocol._lost = True  # between the reset and the reactor's telling us of it
        world.dials[0].fail(Refused())
        self.assertEqual(len(world.dials), 1)
        client.reset()
        self.assert_over(world, GONE)

    def test_a_dial_that_succeeds_though_it_was_cancelled(self) -> None:
        world = World(hosts=0)
        made: list[Wire] = []

        class Late(StaticHost):
            def connect(self, factory: Any) -> Deferred[IProtocol]:
                def cancel(deferred: Deferred[IProtocol]) -> None:
                    wire = Wire(world.clock)
                    made.append(wire.connect(factory.buildProtocol(None)))
                    deferred.callback(wire.protocol)

                return Deferred(cancel)

        world.add(Late(HostConfig(address="10.1.0.0:80"), Endpoint(world.clock), world.clock))  # type: ignore[arg-type]
        client = world.client()
        client.reset()
        world.turn()
        self.assertTrue(made[0].lost)
        self.assert_over(world, GONE)

    def test_a_connection_that_is_lost_before_it_is_handed_over(self) -> None:
        world = World(hosts=0)

        class Fleeting(StaticHost):
            def connect(self, factory: Any) -> Deferred[IProtocol]:
                wire = Wire(world.clock)
                wire.connect(factory.buildProtocol(None))
                wire.reset()
                connected: Deferred[IProtocol] = Deferred()
                connected.callback(wire.protocol)
                return connected

        world.add(Fleeting(HostConfig(address="10.1.0.0:80"), Endpoint(world.clock), world.clock))  # type: ignore[arg-type]
        world.client()
        self.assert_over(world, "")


class AttemptTests(TcpTestCase):
    def failing(self, hosts: int) -> World:
        world = World(hosts=hosts)
        for endpoint in world.endpoints:
            endpoint.answer = Refused()
        return world

    def tried(self, world: World) -> list[int]:
        return [len(endpoint.dials) for endpoint in world.endpoints]

    def test_another_host_is_tried(self) -> None:
        world = World(hosts=2)
        world.later(0)
        world.later(1)
        client = world.client()
        client.send(b"hello")
        [first] = world.dials
        with capture() as events:
            first.fail(Refused())
        self.assertRegex(events.text(), r"cluster c: host 10\.1\.0\..:80 can't be reached: nothing listens")
        [second] = [dial for dial in world.dials if dial is not first]
        wire = second.succeed()
        self.assertEqual(bytes(wire.written), b"hello")
        self.assertEqual(world.cluster.active, 1)
        client.reset()
        self.assert_over(world, CLIENT_BROKE)

    def test_a_single_host_is_tried_once(self) -> None:
        world = self.failing(1)
        world.client()
        self.assertEqual(self.tried(world), [1])
        self.refused(world)

    def test_no_host_is_tried_twice(self) -> None:
        world = self.failing(2)
        world.client()
        self.assertEqual(self.tried(world), [1, 1])
        self.refused(world)

    def test_three_hosts_at_the_most(self) -> None:
        world = self.failing(5)
        world.client()
        self.assertEqual(sum(self.tried(world)), 3)
        self.refused(world)

    def refused(self, world: World) -> None:
        """The only session was given up, as the last host could not be reached."""
        world.turn()
        [record] = world.records
        self.assertRegex(
            record.flag, r"^host 10\.1\.0\..:80 of cluster c can't be reached: nothing listens there"
        )
        self.assert_over(world, record.flag)

    def test_hosts_that_leave_as_they_fail(self) -> None:
        # As those do that agents have brought.
        world = World(hosts=0)

        class Leaving(StaticHost):
            def connect(self, factory: Any) -> Deferred[IProtocol]:
                world.cluster.remove_host(self)
                return fail(HostGone(f"{self.address} is gone"))

        for number in range(2):
            config = HostConfig(address=f"10.3.0.{number}:80")
            world.add(Leaving(config, Endpoint(world.clock), world.clock))  # type: ignore[arg-type]
        agent = world.agent()
        client = world.client()
        client.send(b"hello")
        self.assertEqual(bytes(agent.written), b"hello")
        self.assertEqual(world.cluster.taken, 3)

    def test_the_next_host_may_have_to_be_waited_for(self) -> None:
        world = World(hosts=1)
        world.later()
        agent = world.agent()
        taken = [world.client(), world.client()]  # one of them has the agent's
        self.assertEqual(len(world.dials), 1)
        world.dials[0].fail(Refused())
        self.assertEqual(world.cluster.waiting, 1)
        waiting = next(client for client in taken if client.protocol._upstream is None)
        waiting.reset()
        self.assertEqual(world.cluster.waiting, 0)
        agent.reset()
        world.turn(10)  # the cluster's timer for those who wait
        self.assert_over(world, GONE, HOST_BROKE)


class ReverseTests(TcpTestCase):
    def test_one_session_a_connection(self) -> None:
        world = World(hosts=0)
        agents = [world.agent(), world.agent()]
        first, second, third = world.client(), world.client(), world.client()
        for client, data in ((first, b"1"), (second, b"2"), (third, b"3")):
            client.send(data)
        self.assertEqual({bytes(agent.written) for agent in agents}, {b"1", b"2"})
        self.assertEqual(world.cluster.waiting, 1)
        first.end()
        first.reset()
        world.turn()
        # Used up: whoever waits gets a new one, not this one.
        self.assertEqual(sum(agent.lost for agent in agents), 1)
        self.assertEqual(world.cluster.waiting, 1)
        fresh = world.agent()
        self.assertEqual(bytes(fresh.written), b"3")
        self.assertEqual(world.cluster.active, 2)

    def test_a_connection_lost_by_the_agent(self) -> None:
        world = World(hosts=0)
        agent = world.agent()
        client = world.client()
        agent.reset()
        world.turn()
        self.assertTrue(client.lost)
        self.assert_over(world, HOST_BROKE)

    def test_the_agent_s_side(self) -> None:
        # The backend is dialled as soon as the tunnel has the connection, before there is any client.
        world = World()
        link = world.client(reverse=True)
        session = link.protocol
        self.assertFalse(session.busy)
        world.backend.send(b"220 ready\r\n")
        self.assertFalse(session.busy)
        session.drain()
        self.assertFalse(link.disconnecting)
        link.send(b"HELO")
        self.assertTrue(session.busy)
        self.assertEqual(bytes(world.backend.written), b"HELO")
        session.drain()
        world.turn()
        self.assertFalse(link.disconnecting)
        link.reset()
        self.assert_over(world, CLIENT_BROKE)

    def test_a_client_s_session_is_always_busy(self) -> None:
        world = World()
        client = world.client()
        self.assertTrue(client.protocol.busy)
        client.protocol.drain()
        world.turn()
        self.assertFalse(client.disconnecting)


class IdleTests(TcpTestCase):
    def test_an_idle_session_is_closed(self) -> None:
        world = World(session_idle=8.0)
        client = world.client()
        client.send(b"x")
        world.turn(7.75)
        self.assertFalse(client.disconnecting)
        world.turn(2.5)
        self.assert_over(world, "idle timeout")

    def test_bytes_in_either_direction_keep_it(self) -> None:
        world = World(session_idle=8.0)
        client = world.client()
        for turn in range(20):
            world.turn(5)
            if turn % 2:
                client.send(b"x")
            else:
                world.backend.send(b"y")
        self.assertFalse(client.disconnecting)
        world.turn(10)
        self.assert_over(world, "idle timeout")

    def test_never_by_default(self) -> None:
        world = World()
        client = world.client()
        world.turn(1e6)
        self.assertFalse(client.disconnecting)
        self.assertEqual(world.clock.getDelayedCalls(), [])

    def test_time_runs_from_the_connection_to_the_host(self) -> None:
        world = World(session_idle=2.0)
        world.later()
        client = world.client()
        world.turn(5)
        self.assertFalse(client.disconnecting)
        world.dials[0].succeed()
        world.turn(1)
        self.assertFalse(client.disconnecting)

    def test_nobody_reads(self) -> None:
        world = World(session_idle=2.0)
        world.endpoints[0].automatic = False
        client = world.client(automatic=False)
        client.send(b"x")
        world.backend.send(b"x")
        for _ in range(6):
            world.turn(0.5)
        self.assertTrue(client.aborted)
        self.assert_over(world, "idle timeout")


class AnySession(RuleBasedStateMachine):
    """Whatever happens in whatever order, hosts are given back once and sessions accounted for once."""

    @initialize(static=st.integers(0, 2), agents=st.integers(0, 2), idle=st.sampled_from([None, 3.0]))
    def begin(self, static: int, agents: int, idle: float | None) -> None:
        self.world = World(hosts=static, session_idle=idle, cluster={"connect_timeout": "5s"})
        for number in range(static):
            self.world.later(number)
        for _ in range(agents):
            self.world.agent()

    def wires(self) -> list[Wire]:
        world = self.world
        backends = [wire for endpoint in world.endpoints for wire in endpoint.wires]
        return [wire for wire in (*world.clients, *world.agents, *backends) if not wire.lost]

    @precondition(lambda self: len(self.world.clients) < 4)
    @rule(automatic=st.booleans(), reverse=st.booleans())
    def connect(self, automatic: bool, reverse: bool) -> None:
        self.world.client(automatic, reverse=reverse)

    @precondition(lambda self: len(self.world.agents) < 4)
    @rule()
    def join(self) -> None:
        self.world.agent()

    @precondition(lambda self: any(not dial.deferred.called for dial in self.world.dials))
    @rule(good=st.booleans(), which=st.randoms(use_true_random=False))
    def dialled(self, good: bool, which: Random) -> None:
        dial = which.choice([dial for dial in self.world.dials if not dial.deferred.called])
        if good:
            dial.succeed()
        else:
            dial.fail(Refused())

    @precondition(lambda self: self.wires())
    @rule(
        what=st.sampled_from(["send", "end", "reset", "receive"]),
        which=st.randoms(use_true_random=False),
        size=st.integers(1, 100_000),
    )
    def happens(self, what: str, which: Random, size: int) -> None:
        wire = which.choice(self.wires())
        if what == "send":
            if not wire.ended:
                wire.send(b"x" * size)
        elif what == "end":
            wire.end()
        elif what == "reset":
            wire.reset()
        else:
            wire.receive()

    @rule(seconds=st.floats(0, 6))
    def wait(self, seconds: float) -> None:
        self.world.turn(seconds)

    @invariant()
    def counted(self) -> None:
        world = getattr(self, "world", None)
        if world is None:
            return
        assert world.cluster.taken - world.cluster.given_back == world.cluster.active >= 0
        assert world.cluster.active <= sum(not client.lost for client in world.clients) + sum(
            not wire.lost for endpoint in world.endpoints for wire in endpoint.wires
        ) + sum(not agent.lost for agent in world.agents)
        self.accounted()

    def accounted(self) -> None:
        """Each session that is over has been told of; an agent's connection only if it was one, or failed."""
        world = self.world
        lost = [session for session, client in zip(world.sessions, world.clients, strict=True) if client.lost]
        records, used = len(world.records), sum(session.busy for session in lost)
        assert used <= records <= len(lost), (used, records, len(lost))

    def teardown(self) -> None:
        world = getattr(self, "world", None)
        if world is None:
            return
        for client in world.clients:
            if not client.lost:
                client.reset()
        world.cluster.close("stopping")
        for seconds in (0, 0, 5, LINGER, LINGER, LINGER):
            world.turn(seconds)
        assert not self.wires()
        assert world.cluster.active == 0, world.cluster
        assert world.cluster.taken == world.cluster.given_back
        assert world.cluster.waiting == 0
        self.accounted()
        assert world.clock.getDelayedCalls() == []


class AnySessionTests(SynchronousTestCase):
    def test_any_session(self) -> None:
        run_state_machine_as_test(
            AnySession, settings=settings(max_examples=most(150), stateful_step_count=30, deadline=None)
        )
