"""Tests for L{reverseproxy.cluster.health.gateways}, and of what exchanges tell it."""

from __future__ import annotations

from typing import Any, ClassVar

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.cluster.balancers.round_robin import RoundRobinBalancer
from reverseproxy.cluster.host import Fault
from reverseproxy.cluster.manager import Cluster
from reverseproxy.config.models import ClusterConfig, OutlierDetectionConfig
from tests.cluster.fakes import ReturningHost
from tests.proxy.memory import World
from tests.wire.http1_cases import GOOD, respond


class GatewayTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.make()

    def make(self, hosts: int = 4, **options: Any) -> None:
        config = ClusterConfig(name="edge", outlier_detection=OutlierDetectionConfig(**options))
        self.cluster = Cluster(config, RoundRobinBalancer(), self.clock)
        self.hosts = [ReturningHost(f"h{number}") for number in range(hosts)]
        for host in self.hosts:
            self.cluster.add_host(host)

    def answer(self, *statuses: int, host: int = 0) -> bool:
        """
        Let a host answer.

        @return: whether it is healthy afterwards.
        """
        for status in statuses:
            self.cluster.members.gateways.note(self.hosts[host], status)
        return self.hosts[host].healthy

    def test_in_a_row(self) -> None:
        self.assertFalse(self.cluster.watches_answers)
        self.assertTrue(self.answer(502, 503, 504, 502))
        self.assertTrue(self.cluster.watches_answers)
        self.assertFalse(self.answer(502))
        self.assertEqual(self.hosts[0].health.faults, Fault.EJECTED)
        self.clock.advance(1.0)
        self.assertTrue(self.hosts[0].healthy)

    def test_not_in_a_row(self) -> None:
        self.assertTrue(self.answer(*[502, 502, 502, 502, 200] * 5))
        self.assertFalse(self.cluster.watches_answers)

    def test_other_errors_are_the_service_s(self) -> None:
        self.assertTrue(self.answer(*[500, 501, 404] * 20))
        self.assertFalse(self.cluster.watches_answers)

    def test_for_longer_and_longer(self) -> None:
        self.answer(*[502] * 5)
        for seconds in (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0):
            self.clock.advance(seconds - 0.01)
            self.assertFalse(self.hosts[0].healthy)
            self.clock.advance(0.01)
            self.assertTrue(self.hosts[0].healthy)
            self.answer(502)
        self.clock.advance(30.0)
        self.answer(200)
        self.assertFalse(self.cluster.watches_answers)
        self.assertTrue(self.answer(502, 502, 502, 502))

    def test_all_connections_of_an_agent(self) -> None:
        self.hosts[0].same_agent = self.hosts[1].same_agent = self.hosts[:2]
        for number in range(5):
            self.answer(502, host=number % 2)
        self.assertEqual([host.healthy for host in self.hosts], [False, False, True, True])

    def test_the_floor(self) -> None:
        for number in range(4):
            self.answer(*[502] * 5, host=number)
        self.assertEqual([host.healthy for host in self.hosts], [False, False, True, True])
        self.make(1)
        self.assertTrue(self.answer(*[502] * 50))

    def test_never(self) -> None:
        self.make(4, consecutive_gateway_errors=0)
        self.assertTrue(self.answer(*[502] * 50))
        self.assertFalse(self.cluster.watches_answers)

    def test_a_host_leaves(self) -> None:
        self.answer(502)
        self.cluster.remove_host(self.hosts[0])
        self.assertFalse(self.cluster.watches_answers)
        self.assertEqual(self.cluster.members.gateways.rows, {})


class ExchangeTests(SynchronousTestCase):
    GONE = respond(b"Content-Length: 0", line=b"HTTP/1.1 502 Bad Gateway")
    FINE = respond(b"Content-Length: 0")

    def ask(self, world: World, wires: list[Any], answers: dict[int, bytes]) -> int:
        """Ask once; which agent has got it."""
        client = world.client()
        client.send(GOOD)
        ((number, wire),) = [(n, wire) for n, wire in enumerate(wires) if wire.take()]
        wire.send(answers[number])
        client.take()
        client.reset()
        return number

    def test_an_agent_that_does_not_tell(self) -> None:
        world = World(hosts=0)
        wires = [world.agent(f"agent:{number}") for number in range(2)]
        answers = {0: self.GONE, 1: self.FINE}
        asked = [self.ask(world, wires, answers) for _ in range(20)]
        self.assertEqual(asked.count(0), 5)
        self.assertEqual([host.healthy for host in world.hosts], [False, True])
        world.turn(1.0)
        answers[0] = self.FINE
        asked = [self.ask(world, wires, answers) for _ in range(10)]
        self.assertEqual(asked.count(0), 5)
        self.assertFalse(world.cluster.watches_answers)
        world.check_idle(self.fail)

    EJECTS: ClassVar[dict[str, Any]] = {"outlier_detection": {"consecutive_5xx": 3, "consecutive_resets": 3}}

    def test_what_a_client_has_chosen(self) -> None:
        """An agent that answers by itself in what its service does not speak is left alone with that."""
        for cluster in ({}, self.EJECTS):
            world = World(hosts=0, protocols_differ=True, cluster=cluster)
            wires = [world.agent(f"agent:{number}") for number in range(2)]
            answers = {0: self.GONE, 1: self.FINE}
            asked = [self.ask(world, wires, answers) for _ in range(20)]
            self.assertEqual(asked.count(0), 5)
            self.assertEqual([host.healthy for host in world.hosts], [True, True])
            world.turn(1.0)
            self.assertEqual([self.ask(world, wires, answers) for _ in range(20)].count(0), 1)
            # It speaks it after all; what it fails with now is its fault.
            world.turn(1.0)
            answers[0] = self.FINE
            asked = [self.ask(world, wires, answers) for _ in range(10)]
            self.assertEqual(asked.count(0), 5)
            answers[0] = self.GONE
            asked = [self.ask(world, wires, answers) for _ in range(20)]
            self.assertEqual(asked.count(0), 3 if cluster else 5)
            self.assertEqual([host.healthy for host in world.hosts], [False, True])
            world.check_idle(self.fail)

    def test_what_nobody_serves(self) -> None:
        """Clients get what agents say, as there is nobody else."""
        world = World(hosts=0, protocols_differ=True, cluster=self.EJECTS)
        wires = [world.agent(f"agent:{number}") for number in range(2)]
        asked = [self.ask(world, wires, {0: self.GONE, 1: self.GONE}) for _ in range(20)]
        self.assertEqual(asked.count(0), 10)
        self.assertEqual([host.healthy for host in world.hosts], [True, True])

    def test_hosts_that_are_dialled(self) -> None:
        world = World(hosts=2)
        for _ in range(20):
            client = world.client()
            client.send(GOOD)
            (wire,) = [wire for each in world.endpoints for wire in each.wires if wire.take()]
            wire.send(self.GONE)
        self.assertTrue(all(host.healthy for host in world.hosts))
