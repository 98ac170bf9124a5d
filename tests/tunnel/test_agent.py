"""Tests for L{reverseproxy.tunnel.agent.agent}."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from reverseproxy.cluster.balancers.factory import make_balancer
from reverseproxy.cluster.host import MuxHost
from reverseproxy.cluster.manager import Cluster, ClusterManager
from reverseproxy.config.models import ClusterConfig, ListenerConfig, TunnelAgentConfig, TunnelConfig
from reverseproxy.errors import ConfigError, CredentialMissing
from reverseproxy.interfaces import ConnectionInfo, IConnectionSink, ICredentialSource
from reverseproxy.listener import Listener
from reverseproxy.problems import PART, Problem
from reverseproxy.tls import ClientTls, ServerTls
from reverseproxy.tunnel.agent import link as link_module
from reverseproxy.tunnel.agent.agent import DEFICIT_INTERVAL, Agent
from reverseproxy.tunnel.agent.dial_turns import AT_ONCE
from reverseproxy.tunnel.agent.discovery import Discovery, Target
from reverseproxy.tunnel.agent.leaving import DRAIN_POLL, END_TIME, QUIET
from reverseproxy.tunnel.agent.peer import GREETED_IN_TIME, TOLD_BURST
from reverseproxy.tunnel.agent.plan import ADAPTABLE, AgentPlan, new_agent_id
from reverseproxy.tunnel.server.filter import TunnelServer
from reverseproxy.wire.mosn.extensions import Announcement, CloseProof, ServerAnnouncement
from reverseproxy.wire.mosn.frames import ConnectionInit, GracefulClose, InitResponse, Status, encode
from tests.blackhole import blackhole
from tests.certs import Certificates
from tests.net.test_tcp_options import expected, tuning
from tests.tunnel.logged import capture
from tests.tunnel.memory import INIT, SUCCESS, AgentWire
from tests.tunnel.test_link import Hosted, Sink

A = Target("10.0.0.1:9999", "10.0.0.1:9999")
B = Target("tunnel.example:9999", "10.0.0.2:9999")
C = Target("10.0.0.3:9999", "10.0.0.3:9999")

OURS = encode(InitResponse(Status.SUCCESS, ServerAnnouncement().to_extra()))
"""What our own server answers our own agent."""


@implementer(ICredentialSource)
class Source:
    """Credentials that the test gives, or the next number."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer: Any = None

    def fetch(self, cluster: str) -> Deferred[str]:
        self.asked.append(cluster)
        if isinstance(self.answer, Exception):
            raise self.answer
        if isinstance(self.answer, Deferred):
            return self.answer
        return succeed(f"credential {len(self.asked)}")


class Dial:
    """An attempt of an agent to connect."""

    def __init__(self, reactor: MemoryReactorClock, number: int) -> None:
        self._reactor = reactor
        self.host, self.port, self._factory, self.timeout, _ = reactor.tcpClients[number]
        self._connector = reactor.connectors[number]
        self._number = number
        self.done = False
        self.wire: AgentWire

    @property
    def stopped(self) -> bool:
        return bool(self._connector.stoppedConnecting)

    def succeed(self, automatic: bool = True) -> AgentWire:
        self.done = True
        self.wire = AgentWire(self._reactor, 50001 + self._number, automatic)
        self.wire.connect(self._factory.buildProtocol(IPv4Address("TCP", self.host, self.port)))
        return self.wire

    def serve(self, answer: bytes = SUCCESS) -> AgentWire:
        wire = self.succeed()
        wire.send(answer)
        return wire

    def refuse(self) -> None:
        self.done = True
        self._factory.clientConnectionFailed(self._connector, Failure(Refused()))


class Watcher:
    """Tells an agent of its servers, when the test wants it."""

    def __init__(self, update: Callable[[Sequence[Target]], None]) -> None:
        self.update = update
        self.running = False

    def start(self) -> None:
        self.running = True

    def relist(self, servers: Sequence[str], refresh: float) -> None:
        """The test says when servers are others."""

    def stop(self) -> None:
        self.running = False


class Bench:
    """An agent whose servers the test plays."""

    watcher: Watcher

    def __init__(
        self,
        clock: MemoryReactorClock | None = None,
        credentials: Source | None = None,
        client_tls: Callable[[str], ClientTls] | None = None,
        **config: Any,
    ) -> None:
        self.clock = clock or MemoryReactorClock()
        self.sink = Sink()
        self.config = TunnelAgentConfig(
            **{
                "enable": True,
                "cluster": "clientCluster",
                "connection_num": 2,
                "hosting_listener": "hosting",
                "announce": False,
                **config,
            }
        )
        plan = AgentPlan(
            config=self.config,
            sink=self.sink,
            reactor=self.clock,
            random=Random(1),
            credentials=credentials,
            client_tls=client_tls,
            agent_id="agent-1",
        )
        self.agent = Agent(plan, self._watch)
        self._dials: list[Dial] = []

    def _watch(self, update: Callable[[Sequence[Target]], None]) -> Watcher:
        self.watcher = Watcher(update)
        return self.watcher

    def start(self, *targets: Target) -> None:
        self.agent.startService()
        self.watcher.update(targets or (A,))

    @property
    def dials(self) -> list[Dial]:
        """All attempts so far."""
        self._dials += [Dial(self.clock, n) for n in range(len(self._dials), len(self.clock.tcpClients))]
        return self._dials

    @property
    def pending(self) -> list[Dial]:
        """The attempts that have come to no end."""
        return [dial for dial in self.dials if not dial.done and not dial.stopped]

    def serve(self, answer: bytes = SUCCESS) -> list[AgentWire]:
        """Let all attempts succeed."""
        return [dial.serve(answer) for dial in self.pending]

    def next_dial(self, within: float = 70.0) -> Dial:
        """Wait for an attempt."""
        while not self.pending and within > 0:
            self.turn(0.25)
            within -= 0.25
        return self.pending[0]

    def turn(self, seconds: float = 0.0, step: float = 0.25) -> None:
        """Let time pass."""
        while seconds > 0:
            self.clock.advance(min(step, seconds))
            seconds -= step
        for _ in range(4):
            self.clock.advance(0)


class AgentTestCase(SynchronousTestCase):
    def assert_over(self, bench: Bench) -> None:
        """Nothing is left of an agent that has stopped."""
        bench.turn()
        self.assertEqual(bench.clock.getDelayedCalls(), [])
        self.assertEqual(bench.pending, [])
        self.assertTrue(all(dial.wire.lost for dial in bench.dials if hasattr(dial, "wire")))
        self.assertEqual(bench.agent.serving, 0)


class StartTests(AgentTestCase):
    def test_nothing_happens_before_the_start(self) -> None:
        bench = Bench()
        self.assertFalse(bench.watcher.running)
        self.assertEqual((bench.agent.wanted, bench.agent.serving, bench.dials), (0, 0, []))

    def test_every_slot_of_every_target_dials_at_once(self) -> None:
        bench = Bench(connection_num=3, connect_timeout_duration=7.0)
        bench.start(A, B)
        self.assertTrue(bench.watcher.running)
        self.assertEqual([dial.host for dial in bench.dials], ["10.0.0.1"] * 3 + ["10.0.0.2"] * 3)
        self.assertEqual({(dial.port, dial.timeout) for dial in bench.dials}, {(9999, 7.0)})
        self.assertEqual((bench.agent.wanted, bench.agent.serving), (6, 0))
        # One that can't be reached keeps no other one waiting.
        for dial in bench.dials[3:]:
            dial.serve()
        self.assertEqual(bench.agent.serving, 3)
        bench.dials[3].wire.reset()
        self.assertEqual(bench.agent.serving, 2)

    def test_thousands_dial_in_turn(self) -> None:
        bench = Bench(connection_num=3 * AT_ONCE, connect_timeout_duration=5.0)
        bench.start(A, B)
        self.assertEqual(len(bench.dials), 2 * AT_ONCE)
        # Those of another server are none of these: here one is dialled for each that is over.
        first = [dial for dial in bench.pending if dial.host == "10.0.0.1"]
        first[0].serve()
        first[1].refuse()
        wire = first[2].succeed()
        wire.reset()
        self.assertEqual(len(bench.pending), 2 * AT_ONCE)
        # One that has no answer has its time from when it was dialled.
        bench.turn(5.25)
        for dial in list(bench.dials):
            dial.done = dial.done or dial.stopped
        self.assertEqual(len(bench.pending), 2 * AT_ONCE)
        while bench.pending:
            bench.pending[0].serve()
        self.assertEqual(
            bench.agent.serving, len([dial for dial in bench.dials if hasattr(dial, "wire")]) - 1
        )
        bench.agent.stopService()
        self.assert_over(bench)

    def test_those_that_wait_for_their_turn_end_with_the_agent(self) -> None:
        bench = Bench(connection_num=2 * AT_ONCE)
        bench.start()
        bench.agent.stopService()
        bench.turn(10)
        self.assertEqual(len(bench.dials), AT_ONCE)
        self.assert_over(bench)

    def test_a_thousand_changes_are_told_in_few_lines(self) -> None:
        with capture() as events:
            bench = Bench(connection_num=300)
            bench.start()
            while bench.pending:
                bench.pending[0].serve()
        lines = [event for event in events if "serving {server}" in event["log_format"]]
        self.assertEqual(len(lines), TOLD_BURST + 1)
        self.assertEqual(lines[-1]["serving"], 300)

    def test_no_connections(self) -> None:
        bench = Bench(connection_num=0)
        bench.start(A)
        self.assertEqual((bench.dials, bench.agent.wanted), ([], 0))
        self.successResultOf(bench.agent.drain())

    def test_all_are_back_soon_after_the_first(self) -> None:
        bench = Bench(connection_num=20, reconnect_base_duration=2.0)
        bench.start()
        for _ in range(8):
            for dial in list(bench.pending):
                dial.refuse()
            bench.turn(20)
        for dial in bench.pending[1:]:
            dial.refuse()
        bench.serve()
        bench.turn(2.25)
        bench.serve()
        self.assertEqual(bench.agent.serving, 20)

    def test_mosns_init_frame(self) -> None:
        bench = Bench()
        bench.start()
        self.assertEqual([bytes(wire.written) for wire in bench.serve()], [INIT, INIT])

    def test_our_init_frame(self) -> None:
        bench = Bench(
            credentials=Source(),
            announce=True,
            host_name="edge",
            weight=20,
            credential_policy="static",
            metadata={"zone": "a"},
        )
        bench.start()
        announcement = Announcement(
            "agent-1", "192.168.0.2:50001", {"zone": "a"}, mux=("yamux",), window=65536, moves=True
        )
        self.assertEqual(
            bench.serve(OURS)[0].frame(),
            ConnectionInit(
                "clientCluster", 20, "edge", "static", "credential 1", extra=announcement.to_extra()
            ),
        )

    def test_our_init_frame_without_streams(self) -> None:
        bench = Bench(announce=True, mux=False)
        bench.start()
        announcement = Announcement("agent-1", "192.168.0.2:50001")
        self.assertEqual(
            bench.serve(OURS)[0].frame(), ConnectionInit("clientCluster", extra=announcement.to_extra())
        )

    def test_connections_are_kept(self) -> None:
        bench = Bench(connection_num=1)
        bench.start()
        for _ in range(5):
            [wire] = bench.serve()
            wire.send(b"request")
            wire.reset()
            bench.turn()
        self.assertEqual(len(bench.dials), 6)

    def test_a_failed_dial_is_repeated(self) -> None:
        bench = Bench(connection_num=1, reconnect_base_duration=2.0, connect_retry_times=-1)
        bench.start()
        for _ in range(5):
            bench.next_dial().refuse()
        bench.next_dial()
        self.assertEqual(len(bench.dials), 6)

    def test_attempts_are_bounded_on_request(self) -> None:
        bench = Bench(connection_num=1, connect_retry_times=2)
        bench.start()
        for _ in range(2):
            bench.next_dial().refuse()
        bench.turn(100)
        self.assertEqual(len(bench.dials), 2)
        self.successResultOf(bench.agent.drain())
        self.assert_over(bench)

    def test_a_dial_that_hangs(self) -> None:
        bench = Bench(connection_num=1, reconnect_base_duration=1.0)
        bench.start()
        with capture() as events:
            bench.turn(15)
        self.assertTrue(bench.dials[0].stopped)
        self.assertIn("it took longer than 15 s", events.text())
        bench.turn(1)
        self.assertEqual(len(bench.dials), 2)

    def test_a_server_that_says_nothing(self) -> None:
        bench = Bench(connection_num=1, connect_timeout_duration=5.0)
        bench.start()
        wire = bench.dials[0].succeed()
        bench.turn(5)
        self.assertTrue(wire.lost)
        bench.next_dial()

    def test_a_refusal_does_not_end_the_slot(self) -> None:
        bench = Bench(connection_num=1)
        bench.start()
        wire = bench.dials[0].serve(encode(InitResponse(Status.CREDENTIAL_REJECTED)))
        self.assertTrue(wire.aborted)
        bench.next_dial()

    def test_the_hosting_listener_gets_the_connection(self) -> None:
        bench = Bench(connection_num=1)
        bench.start()
        [wire] = bench.serve()
        wire.send(b"request")
        [hosted] = bench.sink.built
        self.assertEqual(hosted.events, ["made", b"request"])
        self.assertEqual(
            bench.sink.infos, [ConnectionInfo("10.0.0.1:9999", "192.168.0.2:50001", reverse=True)]
        )

    def test_the_log_names_the_server(self) -> None:
        bench = Bench(connection_num=1)
        with capture() as events:
            bench.start(A, B)
            bench.serve()
        self.assertIn("serving 10.0.0.1:9999 over 1 of 1", events.text())
        self.assertIn("serving tunnel.example:9999 (10.0.0.2:9999) over 1 of 1", events.text())

    def test_agent_ids_are_long_and_differ(self) -> None:
        self.assertEqual(len({new_agent_id() for _ in range(10)}), 10)
        self.assertEqual(len(new_agent_id()), 32)


class CredentialTests(AgentTestCase):
    def setUp(self) -> None:
        self.source = Source()
        self.bench = Bench(credentials=self.source, connection_num=1, credential_policy="test")

    def credential(self, wire: AgentWire) -> str:
        frame = wire.frame()
        assert isinstance(frame, ConnectionInit)
        self.assertEqual(frame.credential_policy, "test")
        return frame.credential

    def test_a_new_one_for_each_dial(self) -> None:
        self.bench.start()
        [first] = self.bench.serve()
        first.send(b"x")
        first.reset()
        self.bench.turn()
        [second] = self.bench.serve()
        self.assertEqual(self.source.asked, ["clientCluster"] * 2)
        self.assertEqual([self.credential(w) for w in (first, second)], ["credential 1", "credential 2"])

    def failing(self) -> None:
        with capture() as events:
            self.bench.start()
        self.assertEqual(self.bench.dials, [])
        self.assertIn("no token file", events.text())
        self.source.answer = None
        wire = self.bench.next_dial().serve()
        self.assertEqual(self.credential(wire), "credential 2")

    def test_a_source_that_fails_is_asked_again(self) -> None:
        failed: Deferred[str] = Deferred()
        failed.errback(Failure(CredentialMissing("no token file")))
        self.source.answer = failed
        self.failing()

    def test_a_source_that_raises_is_asked_again(self) -> None:
        self.source.answer = CredentialMissing("no token file")
        self.failing()

    def test_a_source_that_hangs(self) -> None:
        self.source.answer = hanging = Deferred()
        self.bench.start()
        self.bench.turn(15)
        self.assertTrue(hanging.called)
        self.source.answer = None
        self.bench.next_dial()

    def test_a_stop_while_it_is_fetched(self) -> None:
        self.source.answer = hanging = Deferred()
        self.bench.start()
        self.bench.agent.stopService()
        self.assertTrue(hanging.called)
        self.assert_over(self.bench)

    def test_a_credential_that_is_no_text(self) -> None:
        self.source.answer = succeed(None)
        self.bench.start()
        wire = self.bench.dials[0].succeed()
        self.assertTrue(wire.aborted)
        self.source.answer = None
        self.bench.next_dial()


class AdaptTests(AgentTestCase):
    """Other settings, while connections go on."""

    def adapt(self, bench: Bench, **keys: Any) -> None:
        self.assertLessEqual(keys.keys(), ADAPTABLE)
        bench.agent.adapt(bench.agent.plan.config.model_copy(update=keys))

    def test_all_of_them_are_keys(self) -> None:
        self.assertLessEqual(ADAPTABLE, TunnelAgentConfig.model_fields.keys())

    def test_more_and_fewer(self) -> None:
        bench = Bench(connection_num=2)
        bench.start(A)
        first, second = bench.serve()
        self.adapt(bench, connection_num=4)
        self.assertEqual(len(bench.pending), 2)
        third, _ = bench.serve()
        self.assertEqual((bench.agent.wanted, bench.agent.serving), (4, 4))
        self.adapt(bench, connection_num=2)
        self.assertEqual((bench.agent.wanted, bench.agent.serving), (2, 2))
        [aside] = bench.pending
        self.assertEqual(len(aside.succeed().frame().addresses), 2)
        # Again, while those that leave do so.
        self.adapt(bench, connection_num=3)
        [again] = bench.pending
        again.serve()
        bench.turn(QUIET + 0.5)
        self.assertTrue(third.lost)
        self.assertFalse(first.lost or second.lost or again.wire.lost)
        self.assertEqual((bench.agent.wanted, bench.agent.serving), (3, 3))
        bench.agent.stopService()
        bench.turn()
        self.assert_over(bench)

    def test_fewer_while_an_answer_is_on_its_way(self) -> None:
        """The server may use the connection already that goes."""
        bench = Bench(connection_num=2)
        bench.start(A)
        first = bench.dials[0].serve()
        second = bench.dials[1].succeed()
        self.adapt(bench, connection_num=1)
        self.assertEqual((bench.pending, second.closed), ([], False))
        second.send(SUCCESS)
        bench.turn(DRAIN_POLL)
        aside = bench.pending[0].succeed().frame()
        self.assertEqual(aside, GracefulClose(("192.168.0.2:50002",), "clientCluster"))
        bench.turn(QUIET + 0.5)
        self.assertEqual((first.lost, second.lost), (False, True))
        self.assertEqual((bench.agent.wanted, bench.agent.serving), (1, 1))
        bench.agent.stopService()
        bench.turn()
        self.assert_over(bench)

    def test_those_that_serve_stay(self) -> None:
        bench = Bench(connection_num=3)
        bench.start(A)
        bench.dials[0].refuse()
        wire = bench.dials[2].serve()
        self.adapt(bench, connection_num=1)
        self.assertTrue(bench.dials[1].stopped)
        self.assertFalse(wire.lost)
        self.assertEqual((bench.agent.wanted, bench.agent.serving), (1, 1))
        bench.turn(100)
        self.assertEqual(len(bench.dials), 3)

    def test_given_up(self) -> None:
        """With more attempts, what has been given up begins anew."""
        bench = Bench(connection_num=1, connect_retry_times=1)
        bench.start(A)
        bench.dials[0].refuse()
        bench.turn(100)
        self.assertEqual(len(bench.dials), 1)
        self.adapt(bench, connection_num=1, connect_retry_times=2)
        bench.dials[1].refuse()
        bench.next_dial().serve()
        self.assertEqual(bench.agent.serving, 1)
        self.flushLoggedErrors()

    def test_waits(self) -> None:
        bench = Bench(connection_num=1, reconnect_base_duration=60.0)
        bench.start(A)
        self.adapt(bench, reconnect_base_duration=1.0, reconnect_max_duration=1.0)
        for _ in range(5):
            bench.next_dial(1.1).refuse()

    def test_while_it_drains(self) -> None:
        bench = Bench(connection_num=1)
        bench.start(A)
        bench.serve()
        bench.agent.drain()
        self.adapt(bench, connection_num=5)
        [aside] = bench.pending
        aside.succeed()
        bench.turn(QUIET + 0.5)
        self.assertEqual(bench.pending, [])

    def test_drained_while_some_of_them_leave(self) -> None:
        """What is under way on connections that are too many is not cut off when the rest is idle."""
        bench = Bench(connection_num=2)
        bench.start(A)
        bench.serve()
        self.adapt(bench, connection_num=1)
        bench.pending[0].succeed()
        bench.sink.built[1].busy = True
        drained = bench.agent.drain()
        bench.pending[0].succeed()
        bench.turn(QUIET + 1)
        kept, leaving = (dial.wire for dial in bench.dials[:2])
        self.assertEqual((kept.lost, leaving.closed), (True, False))
        self.assertNoResult(drained)
        bench.sink.built[1].busy = False
        bench.turn(QUIET + 0.5)
        self.assertTrue(leaving.lost)
        self.successResultOf(drained)
        self.assert_over(bench)

    def test_stopped_while_some_of_them_leave(self) -> None:
        bench = Bench(connection_num=2)
        bench.start(A)
        bench.serve()
        self.adapt(bench, connection_num=1)
        bench.sink.built[1].busy = True
        drained = bench.agent.drain()
        for dial in bench.pending:
            dial.succeed()
        bench.turn(QUIET + 1)
        self.assertNoResult(drained)
        bench.agent.stopService()
        bench.turn()
        self.successResultOf(drained)
        self.assertTrue(bench.dials[1].wire.closed)


class ListTests(AgentTestCase):
    def test_servers_come_and_go(self) -> None:
        bench = Bench(connection_num=1)
        bench.start(A, B)
        bench.serve()
        bench.watcher.update((B, C))
        self.assertEqual(bench.agent.wanted, 2)
        [aside, fresh] = bench.pending
        self.assertEqual((aside.host, fresh.host), ("10.0.0.1", "10.0.0.3"))
        closing = aside.succeed()
        self.assertEqual(closing.frame(), GracefulClose(("192.168.0.2:50001",), "clientCluster"))
        fresh.serve()
        bench.turn(QUIET + 0.5)
        self.assertTrue(bench.dials[0].wire.lost)
        self.assertFalse(bench.dials[1].wire.closed)
        self.assertEqual(bench.agent.serving, 2)
        bench.watcher.update((B, C))
        self.assertEqual(len(bench.dials), 4)

    def test_a_server_that_comes_back_while_it_is_left(self) -> None:
        bench = Bench(connection_num=1)
        bench.start(A)
        [old] = bench.serve()
        bench.watcher.update(())
        bench.watcher.update((A,))
        aside, again = bench.pending
        again.serve()
        aside.succeed()
        bench.turn(QUIET + 0.5)
        self.assertTrue(old.lost)
        self.assertEqual((bench.agent.wanted, bench.agent.serving), (1, 1))

    def test_a_server_that_is_not_reached_leaves_at_once(self) -> None:
        bench = Bench(connection_num=2)
        bench.start(A)
        bench.dials[0].refuse()
        bench.watcher.update(())
        self.assertTrue(bench.dials[1].stopped)
        bench.turn(100)
        self.assertEqual(len(bench.dials), 2)

    def test_a_drain_waits_for_servers_that_are_left_already(self) -> None:
        bench = Bench(connection_num=1)
        bench.start(A)
        bench.serve()
        bench.watcher.update(())
        drained = bench.agent.drain()
        bench.pending[0].succeed()
        bench.turn(QUIET / 2)
        self.assertNoResult(drained)
        bench.turn(QUIET)
        self.successResultOf(drained)
        self.assert_over(bench)

    def test_a_stop_closes_servers_that_are_left_already(self) -> None:
        bench = Bench(connection_num=1)
        bench.start(A, B)
        bench.serve()
        bench.watcher.update((B,))
        bench.agent.stopService()
        self.assert_over(bench)

    def test_no_news_while_draining(self) -> None:
        bench = Bench(connection_num=1)
        bench.start(A)
        bench.agent.drain()
        self.assertFalse(bench.watcher.running)
        bench.watcher.update((A, B))
        self.assertEqual(len(bench.dials), 1)

    def test_a_server_whose_name_can_t_be_verified_keeps_no_other_from_being_dialled(self) -> None:
        def client_tls(server: str) -> ClientTls:
            if server == B.server:
                raise ConfigError(Problem.at(PART / "tls_context" / "server_name", "is no name"))
            return ClientTls(Certificates(self.mktemp()).client_context(), "localhost")

        bench = Bench(connection_num=1, client_tls=client_tls)
        with capture() as events:
            bench.start(A, B, C)
        self.assertEqual([dial.host for dial in bench.dials], ["10.0.0.1", "10.0.0.3"])
        self.assertEqual(bench.agent.wanted, 2)
        self.assertIn("can't dial tunnel.example:9999: tls_context.server_name: is no name", events.text())

    def test_two_agents_in_one_process(self) -> None:
        clock = MemoryReactorClock()
        one = Bench(clock, connection_num=1)
        two = Bench(clock, connection_num=1, cluster="other")
        one.start(A)
        two.start(A)
        first, second = one.serve()
        two.dials[1].wire = second  # it is the same attempt
        drained = one.agent.drain()
        aside = one.pending[0].succeed()
        self.assertEqual(aside.frame(), GracefulClose(("192.168.0.2:50001",), "clientCluster"))
        one.turn(QUIET + 0.5)
        self.successResultOf(drained)
        self.assertTrue(first.lost)
        self.assertFalse(second.closed)
        self.assertEqual((one.agent.serving, two.agent.serving), (0, 1))
        self.assertEqual(two.agent.wanted, 1)


class DeficitTests(AgentTestCase):
    def warnings(self, bench: Bench) -> str:
        with capture() as events:
            bench.turn(DEFICIT_INTERVAL, step=1)
        return "\n".join(line for line in events.text().split("\n") if "missing" in line)

    def test_missing_connections_are_a_warning_from_time_to_time(self) -> None:
        bench = Bench(connection_num=2, reconnect_base_duration=500.0)
        bench.start(A, B)
        bench.dials[0].serve()
        bench.dials[2].serve()
        expected = "agent of cluster clientCluster: 2 of 4 connections are missing"
        self.assertEqual(self.warnings(bench), expected)
        self.assertEqual(self.warnings(bench), expected)
        bench.agent.stopService()
        self.assertEqual(self.warnings(bench), "")

    def test_no_warning_when_all_serve(self) -> None:
        bench = Bench()
        bench.start(A)
        bench.serve()
        self.assertEqual(self.warnings(bench), "")


class DrainTests(AgentTestCase):
    def test_the_server_is_told_first(self) -> None:
        bench = Bench()
        bench.start()
        wires = bench.serve()
        drained = bench.agent.drain()
        self.assertTrue(bench.agent.draining)
        [dial] = bench.pending
        # Not before the server knows: it may send a request at any time.
        self.assertEqual([hosted.events for hosted in bench.sink.built], [["made"], ["made"]])
        aside = dial.succeed(automatic=False)
        self.assertTrue(aside.disconnecting)
        bench.turn(0.5)
        self.assertEqual([hosted.events for hosted in bench.sink.built], [["made"], ["made"]])
        aside.receive()
        bench.turn()
        self.assertTrue(aside.lost)
        self.assertEqual(
            aside.frame(), GracefulClose(("192.168.0.2:50001", "192.168.0.2:50002"), "clientCluster")
        )
        self.assertEqual([hosted.events for hosted in bench.sink.built], [["made", "drain"]] * 2)
        self.assertFalse(any(wire.closed for wire in wires))
        self.assertNoResult(drained)
        bench.turn(QUIET + 0.1)
        self.successResultOf(drained)
        self.assert_over(bench)
        bench.agent.stopService()

    def test_an_answer_that_is_on_its_way(self) -> None:
        """The server may use a connection already that it has accepted."""
        bench = Bench()
        bench.start()
        first, second = (dial.succeed() for dial in bench.pending)
        first.send(SUCCESS)
        drained = bench.agent.drain()
        bench.turn()
        self.assertEqual((bench.pending, second.closed), ([], False))
        second.send(SUCCESS)
        bench.turn(DRAIN_POLL)
        aside = bench.pending[0].succeed().frame()
        self.assertEqual(aside, GracefulClose(("192.168.0.2:50001", "192.168.0.2:50002"), "clientCluster"))
        bench.turn(QUIET + 0.5)
        self.assertEqual([hosted.events for hosted in bench.sink.built], [["made", "drain", "lost"]] * 2)
        self.successResultOf(drained)
        self.assert_over(bench)

    def test_an_answer_that_does_not_come(self) -> None:
        bench = Bench(connection_num=3)
        bench.start()
        dials = bench.pending
        wires = [dial.succeed() for dial in dials[:2]]  # the third one is not reached
        drained = bench.agent.drain()
        self.assertTrue(dials[2].stopped)
        bench.turn(GREETED_IN_TIME - DRAIN_POLL)
        self.assertNoResult(drained)
        bench.turn(2 * DRAIN_POLL)
        self.successResultOf(drained)
        self.assertEqual([wire.closed for wire in wires], [True, True])
        self.assertEqual(bench.sink.built, [])
        self.assert_over(bench)

    def test_stopped_while_an_answer_is_waited_for(self) -> None:
        bench = Bench(connection_num=1)
        bench.start()
        wire = bench.pending[0].succeed()
        drained = bench.agent.drain()
        bench.agent.stopService()
        self.successResultOf(drained)
        self.assertTrue(wire.closed)
        self.assert_over(bench)

    def test_the_aside_connection_is_never_hosted(self) -> None:
        bench = Bench(connection_num=1)
        bench.start()
        bench.serve()
        bench.agent.drain()
        aside = bench.pending[0].succeed(automatic=False)
        aside.protocol.dataReceived(b"GET / HTTP/1.1\r\n\r\n")
        self.assertEqual(len(bench.sink.built), 1)

    def test_one_frame_a_connection(self) -> None:
        # A frame has room for three addresses beside such a name.
        bench = Bench(connection_num=4, cluster="c" * 65430)
        bench.start()
        bench.serve()
        drained = bench.agent.drain()
        addresses = []
        while bench.pending:
            [dial] = bench.pending
            frame = dial.succeed().frame()
            assert isinstance(frame, GracefulClose)
            addresses.append([address[-5:] for address in frame.addresses])
            bench.turn()
        self.assertEqual(addresses, [["50001", "50002", "50003"], ["50004"]])
        bench.turn(QUIET + 0.1)
        self.successResultOf(drained)

    def proof(self, *answers: bytes, source: Source | None = None) -> CloseProof | None:
        """What the close frame proves to servers that answered like this."""
        bench = Bench(
            credentials=source, connection_num=len(answers), announce=True, credential_policy="test"
        )
        bench.start()
        for dial, answer in zip(bench.dials, answers, strict=True):
            dial.serve(answer)
        bench.agent.drain()
        frame = bench.pending[0].succeed().frame()
        assert isinstance(frame, GracefulClose)
        bench.turn()
        bench.agent.stopService()
        self.assert_over(bench)
        return CloseProof.from_extra(frame.extra)

    def test_our_server_is_given_a_fresh_proof(self) -> None:
        source = Source()
        self.assertEqual(self.proof(OURS, OURS, source=source), CloseProof("agent-1", "test", "credential 3"))
        self.assertEqual(self.proof(OURS), CloseProof("agent-1", "test", ""))

    def test_no_other_server_is_given_a_proof(self) -> None:
        source = Source()
        self.assertIsNone(self.proof(SUCCESS, SUCCESS, source=source))
        self.assertIsNone(self.proof(OURS, SUCCESS, source=source))
        self.assertEqual(len(source.asked), 4)

    def test_busy_connections_finish(self) -> None:
        bench = Bench()
        bench.start()
        idle, busy = bench.serve()
        bench.sink.built[1].busy = True
        drained = bench.agent.drain()
        bench.pending[0].succeed()
        bench.turn(5)
        self.assertTrue(idle.lost)
        self.assertFalse(busy.closed)
        bench.sink.built[1].busy = False
        bench.turn(QUIET / 2)
        self.assertFalse(busy.closed)
        bench.turn(QUIET)
        self.assertTrue(busy.lost)
        self.successResultOf(drained)
        self.assert_over(bench)

    def test_at_once_when_the_server_closes_what_is_idle(self) -> None:
        bench = Bench()
        bench.start()
        wires = bench.serve()
        drained = bench.agent.drain()
        bench.pending[0].succeed()
        bench.turn()
        for wire in wires:
            wire.end()
        bench.turn(0.1, step=0.05)
        self.successResultOf(drained)
        self.assert_over(bench)

    def test_not_longer_than_configured(self) -> None:
        bench = Bench(connection_num=1, graceful_close_max_wait_duration=8.0)
        bench.start()
        [wire] = bench.serve()
        bench.sink.built[0].busy = True
        drained = bench.agent.drain()
        bench.pending[0].succeed()
        with capture() as events:
            bench.turn(7.8)
            self.assertNoResult(drained)
            bench.turn(0.25)
            self.assertNoResult(drained)  # what has ended it may be answered
            bench.turn(END_TIME, step=DRAIN_POLL)
        self.successResultOf(drained)
        self.assertIn(
            "1 session on 1 connection to 10.0.0.1:9999 outlived the 8 s for what is under way, ended now: "
            "1 connection",
            events.text(),
        )
        self.assertTrue(wire.closed)
        self.assert_over(bench)

    def test_a_request_that_comes_late_is_the_last_one_of_its_connection(self) -> None:
        # Such as from a MOSN server behind NAT, which does not know the addresses that it is told.
        bench = Bench(connection_num=1)
        bench.start()
        bench.serve()
        [hosted] = bench.sink.built
        bench.agent.drain()
        bench.pending[0].succeed()
        bench.turn(0.5)
        self.assertEqual(hosted.events, ["made", "drain"])
        hosted.busy = True
        bench.turn(2)
        self.assertEqual(hosted.events, ["made", "drain", "drain"])

    def untold(self, bench: Bench, reason: str, drained: Deferred[None]) -> None:
        """The server was not told: the connections are drained nevertheless."""
        with capture() as events:
            bench.turn(8)
        self.assertIn(LogLevel.warn, events.levels())
        self.assertIn("10.0.0.1:9999 could not be told of the close: ", events.text())
        self.assertIn(reason, events.text())
        bench.turn(QUIET + 0.1)
        self.assertEqual(bench.sink.built[0].events, ["made", "drain", "lost"])
        self.successResultOf(drained)
        self.assert_over(bench)

    def drain_one(self, **options: Any) -> tuple[Bench, Deferred[None]]:
        bench = Bench(connection_num=1, **options)
        bench.start()
        bench.serve(OURS)
        return bench, bench.agent.drain()

    def test_the_aside_dial_hangs(self) -> None:
        bench, drained = self.drain_one(connect_timeout_duration=60.0)
        bench.turn(7)
        self.assertFalse(bench.dials[1].stopped)
        self.untold(bench, "it took longer than 15 s", drained)
        self.assertTrue(bench.dials[1].stopped)

    def test_the_aside_connection_hangs(self) -> None:
        bench, drained = self.drain_one()
        aside = bench.pending[0].succeed(automatic=False)
        bench.turn(7)
        self.assertFalse(aside.aborted)
        self.untold(bench, "it took longer than 15 s", drained)
        self.assertTrue(aside.aborted)

    def test_the_aside_dial_fails(self) -> None:
        bench, drained = self.drain_one()
        with capture() as events:
            bench.pending[0].refuse()
        self.assertIn("could not be told of the close: Connection was refused", events.text())
        bench.turn(QUIET + 0.1)
        self.successResultOf(drained)
        self.assert_over(bench)

    def test_the_credential_can_t_be_had(self) -> None:
        source = Source()
        bench = Bench(credentials=source, connection_num=1, credential_policy="test")
        bench.start()
        bench.serve(OURS)
        source.answer = CredentialMissing("no token file")
        with capture() as events:
            drained = bench.agent.drain()
        self.assertIn("could not be told of the close: no token file", events.text())
        bench.turn(QUIET + 0.1)
        self.successResultOf(drained)
        self.assert_over(bench)

    def test_an_error_without_a_message_is_named(self) -> None:
        source = Source()
        bench = Bench(credentials=source, connection_num=1, credential_policy="test")
        bench.start()
        bench.serve(OURS)
        source.answer = ZeroDivisionError()
        with capture() as events:
            bench.agent.drain()
        self.assertIn("could not be told of the close: ZeroDivisionError", events.text())

    def test_while_dialling_greeting_and_waiting(self) -> None:
        bench = Bench(connection_num=3)
        bench.start()
        greeting = bench.dials[1].succeed()
        bench.dials[2].refuse()
        drained = bench.agent.drain()
        self.assertTrue(bench.dials[0].stopped)
        bench.turn(GREETED_IN_TIME + DRAIN_POLL)
        self.successResultOf(drained)
        self.assertTrue(greeting.aborted)
        self.assertEqual(len(bench.dials), 3)
        self.assert_over(bench)

    def test_a_connection_lost_while_draining_is_not_replaced(self) -> None:
        bench = Bench(connection_num=1)
        bench.start()
        [wire] = bench.serve()
        drained = bench.agent.drain()
        wire.send(b"x")
        wire.reset()
        bench.turn(0.5)
        self.assertEqual(len(bench.dials), 2)
        bench.pending[0].succeed()
        bench.turn(0.1, step=0.05)
        self.successResultOf(drained)
        self.assert_over(bench)

    def test_a_hosted_protocol_that_fails_to_drain(self) -> None:
        class Failing(Hosted):
            def drain(self) -> None:
                raise ZeroDivisionError

        bench = Bench(connection_num=1)
        bench.sink.make = Failing
        bench.start()
        bench.serve()
        drained = bench.agent.drain()
        bench.pending[0].succeed()
        bench.turn(0.1)
        self.successResultOf(drained)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assert_over(bench)

    def test_a_second_drain(self) -> None:
        bench = Bench(connection_num=1)
        bench.start()
        bench.serve()
        drains = [bench.agent.drain(), bench.agent.drain()]
        bench.pending[0].succeed()
        bench.turn(QUIET / 2)
        for drained in drains:
            self.assertNoResult(drained)
        bench.turn(QUIET)
        for drained in drains:
            self.successResultOf(drained)
        self.assertEqual(len(bench.dials), 2)


class StopTests(AgentTestCase):
    def test_everything_is_closed(self) -> None:
        bench = Bench(connection_num=4)
        bench.start(A)
        serving = bench.dials[0].serve()
        greeting = bench.dials[1].succeed()
        bench.dials[2].refuse()
        bench.agent.stopService()
        self.assertFalse(bench.watcher.running)
        self.assertTrue(serving.disconnecting)
        self.assertTrue(greeting.aborted)
        self.assertTrue(bench.dials[3].stopped)
        self.assert_over(bench)
        self.assertEqual(len(bench.dials), 4)

    def test_before_the_start(self) -> None:
        bench = Bench()
        bench.agent.stopService()
        self.assert_over(bench)

    def test_while_the_server_is_told(self) -> None:
        bench = Bench()
        bench.start()
        bench.serve()
        drained = bench.agent.drain()
        with capture() as events:
            bench.agent.stopService()
        self.successResultOf(drained)
        self.assertTrue(bench.dials[2].stopped)
        self.assert_over(bench)
        self.assertNotIn("could not be told", events.text())

    def test_while_the_frame_is_sent(self) -> None:
        bench = Bench()
        bench.start()
        bench.serve()
        drained = bench.agent.drain()
        aside = bench.pending[0].succeed(automatic=False)
        bench.agent.stopService()
        self.successResultOf(drained)
        self.assertTrue(aside.aborted)
        self.assert_over(bench)

    def test_while_requests_finish(self) -> None:
        bench = Bench()
        bench.start()
        wires = bench.serve()
        for hosted in bench.sink.built:
            hosted.busy = True
        drained = bench.agent.drain()
        bench.pending[0].succeed()
        bench.turn(2)
        self.assertNoResult(drained)
        bench.agent.stopService()
        self.successResultOf(drained)
        self.assertTrue(all(wire.closed for wire in wires))
        self.assert_over(bench)


class Echo(Protocol):
    """A service behind the tunnel."""

    transport: Any

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data.upper())


class Client(Protocol):
    """Somebody who has leased a host."""

    transport: Any

    def __init__(self) -> None:
        self.received = b""
        self.closed: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.closed.callback(None)


@implementer(IConnectionSink)
class EchoSink:
    name = "hosting"

    def __init__(self) -> None:
        self.infos: list[ConnectionInfo] = []
        self.made: list[Echo] = []

    def build_protocol(self, info: ConnectionInfo) -> Echo:
        self.infos.append(info)
        self.made.append(Echo())
        return self.made[-1]


class EndToEndTests(TestCase):
    """
    A real agent and a real tunnel server, over loopback.

    Each connection carries one session, unless a test says otherwise.

    @ivar tunnel: the configuration of the server.
    """

    def setUp(self) -> None:
        self.tunnel: dict[str, Any] = {}

    async def join(
        self, server_tls: ServerTls | None = None, client_tls: ClientTls | None = None, **config: Any
    ) -> None:
        cluster_config = ClusterConfig(name="blue")
        self.cluster = Cluster(cluster_config, make_balancer(cluster_config, Random(1)), reactor)
        clusters = ClusterManager([self.cluster])
        server = TunnelServer(
            "tunnel", TunnelConfig(**self.tunnel), clusters, reactor, lambda policy, options: None
        )  # type: ignore[arg-type, return-value]
        listener = ListenerConfig(name="tunnel", address="127.0.0.1:0", bind_port=True)
        self.listener = Listener(listener, server.build_protocol, reactor, server_tls)
        self.listener.privilegedStartService()
        self.sink = EchoSink()
        plan = AgentPlan(
            config=TunnelAgentConfig(
                **{
                    "cluster": "blue",
                    "connection_num": 3,
                    "hosting_listener": "hosting",
                    "mux": False,
                    **config,
                }
            ),
            sink=self.sink,
            reactor=reactor,
            random=Random(1),
            credentials=None,
            client_tls=None if client_tls is None else lambda server: client_tls,
            agent_id=new_agent_id(),
        )
        self.agent = Agent(
            plan, lambda update: Discovery([self.listener.bound or ""], update, reactor, reactor)
        )
        self.addCleanup(self.stop)
        self.agent.startService()
        await self.until(lambda: len(self.cluster.hosts) == 3)

    async def stop(self) -> None:
        self.agent.stopService()
        await self.listener.stopService()
        self.cluster.close("the test is over")

    async def until(self, true: Callable[[], object]) -> None:
        """Wait for the reactor to bring something about; trial's timeout is the deadline."""
        while not true():
            await deferLater(reactor, 0.001)

    async def lease(self) -> Client:
        host = self.cluster.acquire()
        assert host is not None
        client = await host.connect(Factory.forProtocol(Client))
        assert isinstance(client, Client)
        return client

    async def test_a_session(self) -> None:
        await self.join()
        self.assertEqual((self.agent.wanted, self.agent.serving), (3, 3))
        client = await self.lease()
        client.transport.write(b"hello")
        await self.until(lambda: client.received == b"HELLO")
        [info] = {(info.remote, info.secure, info.identity, info.reverse) for info in self.sink.infos}
        self.assertEqual(info, (self.listener.bound, False, None, True))
        self.assertEqual({info.local for info in self.sink.infos}, set(self.cluster.hosts))
        client.transport.loseConnection()
        # A session uses its connection up, and the agent dials another one.
        await self.until(lambda: len(self.sink.infos) == 4 and len(self.cluster.hosts) == 3)

    async def test_both_ends_notice_that_the_other_is_gone(self) -> None:
        tuned: list[float] = []
        self.patch(link_module, "tune", lambda transport, seconds: tuned.append(seconds))
        await self.join(dead_peer_timeout=20.0)
        self.assertEqual(tuned, [20.0] * 3)
        client = await self.lease()
        self.assertEqual(tuning(client.transport.getHandle()), expected(2, 1, 58, 0))
        client.transport.abortConnection()
        await client.closed

    async def test_drain(self) -> None:
        await self.join()
        client = await self.lease()
        drained = self.agent.drain()
        await self.until(lambda: not self.cluster.hosts)
        # What is under way goes on; what is idle was closed by the server, at once.
        client.transport.write(b"still here")
        await self.until(lambda: client.received == b"STILL HERE")
        client.transport.loseConnection()
        await drained
        self.assertEqual(self.agent.serving, 0)
        await self.until(lambda: self.listener.connections == 0)

    async def test_a_plain_agent(self) -> None:
        await self.join(announce=False)
        client = await self.lease()
        client.transport.write(b"hello")
        await self.until(lambda: client.received == b"HELLO")
        client.transport.abortConnection()
        await client.closed

    async def test_tls(self) -> None:
        certs = Certificates(Path(self.mktemp()))
        server_tls = ServerTls([certs.server_context()])
        client_tls = ClientTls(certs.client_context(), "127.0.0.1")
        await self.join(server_tls, client_tls)
        client = await self.lease()
        client.transport.write(b"hello")
        await self.until(lambda: client.received == b"HELLO")
        [info] = {(info.remote, info.secure, info.reverse) for info in self.sink.infos}
        self.assertEqual(info, (self.listener.bound, True, True))
        self.assertIsNotNone(self.sink.infos[0].identity)
        drained = self.agent.drain()
        await self.until(lambda: not self.cluster.hosts)
        client.transport.loseConnection()
        await drained

    async def test_streams(self) -> None:
        await self.join(connection_num=3, mux=True)
        await self.until(lambda: self.agent.serving == 3)
        clients = [await self.lease() for _ in range(30)]
        for number, client in enumerate(clients):
            client.transport.write(b"hello %d" % number)
        await self.until(lambda: all(client.received for client in clients))
        self.assertEqual([client.received for client in clients], [b"HELLO %d" % n for n in range(30)])
        drained = self.agent.drain()
        await self.until(lambda: not self.cluster.hosts)
        for client in clients:
            client.transport.loseConnection()
        await drained
        await self.until(lambda: self.listener.connections == 0)

    async def test_streams_over_tls(self) -> None:
        certs = Certificates(Path(self.mktemp()))
        server_tls = ServerTls([certs.server_context()])
        await self.join(
            server_tls, ClientTls(certs.client_context(), "127.0.0.1"), connection_num=3, mux=True
        )
        await self.until(lambda: self.agent.serving == 3)
        clients = [await self.lease() for _ in range(10)]
        for number, client in enumerate(clients):
            client.transport.write(b"%d" % number * 300_000)
        await self.until(lambda: all(len(client.received) == 300_000 for client in clients))
        [info] = {(info.remote, info.secure, info.reverse) for info in self.sink.infos}
        self.assertEqual(info, (self.listener.bound, True, True))
        self.assertIsNotNone(self.sink.infos[0].identity)
        drained = self.agent.drain()
        await self.until(lambda: not self.cluster.hosts)
        for client in clients:
            client.transport.loseConnection()
        await drained
        await self.until(lambda: self.listener.connections == 0)

    async def test_streams_over_a_connection_whose_packets_vanish(self) -> None:
        self.tunnel = {"mux_ping_interval": 0.1, "mux_ping_timeout": 0.2}
        await self.join(connection_num=3, mux=True, **self.tunnel)
        await self.until(lambda: self.agent.serving == 3)
        before = dict(self.cluster.hosts)
        client = await self.lease()
        client.transport.write(b"hello")
        await self.until(lambda: client.received == b"HELLO")
        [server_end] = [
            host._session.transport for host in before.values() if isinstance(host, MuxHost) and host.streams
        ]
        [agent_end] = [
            stream.transport._streams.carrier.transport
            for stream in self.sink.made
            if stream.transport.connected
        ]
        blackhole(server_end.getHandle(), agent_end.getHandle())
        client.transport.write(b"anybody there?")
        await client.closed
        # And there is a new connection in its place.
        await self.until(
            lambda: len(self.cluster.hosts) == 3 and len(set(self.cluster.hosts) - set(before)) == 1
        )

    async def test_two_agents_are_two(self) -> None:
        await self.join()
        other = Agent(
            AgentPlan(
                config=TunnelAgentConfig(
                    cluster="blue", connection_num=2, hosting_listener="hosting", mux=False
                ),
                sink=self.sink,
                reactor=reactor,
                random=Random(2),
                credentials=None,
                client_tls=None,
                agent_id=new_agent_id(),
            ),
            lambda update: Discovery([self.listener.bound or ""], update, reactor, reactor),
        )
        other.startService()
        await self.until(lambda: len(self.cluster.hosts) == 5)
        await other.drain()
        self.assertEqual((self.agent.serving, len(self.cluster.hosts)), (3, 3))
