"""Tests for L{reverseproxy.workers.spreading} and L{reverseproxy.workers.same_agent}."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.workers.spreading import MOST_UNDER_WAY, UNDER_WAY
from tests.workers.test_siblings import bodies
from tests.workers.world import REQUEST, World


def held(world: World) -> list[int]:
    """How many connections of agents each worker has itself."""
    return [
        sum(host.is_reverse and not host.is_remote for host in world.hosts(number))
        for number in range(len(world.workers))
    ]


class SpreadingTests(SynchronousTestCase):
    def test_an_agent_has_one_at_each_worker(self) -> None:
        """As it hears how many there are."""
        world = World(4, spread=True)
        [agent] = world.agent(0, connection_num=1).agents
        self.assertEqual((agent.wanted, agent.serving), (4, 4))
        self.assertEqual(held(world), [1, 1, 1, 1])
        # One that is lost is dialled again, and gets to the same worker.
        [lost] = [host for host in world.hosts(2) if not host.is_remote]
        lost.close("a test")
        world.turn(3)
        self.assertEqual((agent.wanted, agent.serving), (4, 4))
        self.assertEqual(held(world), [1, 1, 1, 1])

    def test_an_agent_may_have_fewer(self) -> None:
        world = World(4, spread=True, tunnel_config={"max_hosts_per_agent": 2})
        [agent] = world.agent(0, connection_num=1).agents
        self.assertEqual((agent.wanted, agent.serving), (2, 2))

    def test_the_server_has_fewer_workers_when_it_is_back(self) -> None:
        """A former worker's connection is not kept for none."""
        for connection_num, wanted in (1, 2), (3, 3), (6, 6):
            with self.subTest(connection_num=connection_num):
                world = World(4, spread=True)
                [agent] = world.agent(0, connection_num=connection_num).agents
                self.assertEqual(agent.serving, max(connection_num, 4))
                for worker in world.workers:
                    for each in worker.siblings.servers.values():
                        each.workers.count = 2
                for number in range(4):
                    for host in world.hosts(number):
                        if not host.is_remote:
                            host.close("a test")
                world.turn(10)
                self.assertEqual((agent.wanted, agent.serving), (wanted, wanted))
                self.assertEqual(sum(held(world)), wanted)

    def test_connections_that_serve_are_kept(self) -> None:
        """Several servers with different numbers of workers may share an address."""
        world = World(4, spread=True)
        [agent] = world.agent(0, connection_num=1).agents
        for worker in world.workers:
            for each in worker.siblings.servers.values():
                each.workers.count = 2
        [lost] = [host for host in world.hosts(2) if not host.is_remote]
        lost.close("a test")
        world.turn(3)
        self.assertEqual((agent.wanted, agent.serving), (4, 4))

    def test_without_streams_it_has_what_is_configured(self) -> None:
        world = World(4, spread=True)
        [agent] = world.agent(0, connection_num=1, mux=False).agents
        self.assertEqual((agent.wanted, agent.serving), (1, 1))

    def test_an_agent_that_drains_dials_no_more(self) -> None:
        world = World(2, spread=True)
        for each in world.workers[0].siblings.servers.values():
            each.workers.count = 1
        [agent] = world.agent(0, connection_num=1).agents
        [peer] = agent.servers
        link = peer._cores[0].link
        link.workers = 2
        agent.drain()
        peer._hosted(link)
        world.turn(3)
        self.assertEqual(sum(held(world)), 0)

    def test_connections_of_one_address(self) -> None:
        world = World(4, spread=True)
        world.agent(0, connection_num=8)
        self.assertEqual(held(world), [2, 2, 2, 2])
        clients = [world.client(number % 4, REQUEST % b"/%d" % number) for number in range(20)]
        self.assertEqual(world.answer_until_done(), 20)
        self.assertEqual([bodies(client) for client in clients], [[b"/%d" % n] for n in range(20)])

    def test_plain_connections(self) -> None:
        world = World(3, spread=True)
        world.agent(1, connection_num=7, mux=False)
        self.assertEqual(sorted(held(world)), [2, 2, 3])
        clients = [world.client(number % 3, REQUEST % b"/%d" % number) for number in range(12)]
        self.assertEqual(world.answer_until_done(), 12)
        self.assertEqual([bodies(client) for client in clients], [[b"/%d" % n] for n in range(12)])

    def test_one_after_the_other(self) -> None:
        world = World(3, spread=True)
        for _ in range(3):
            world.agent(0, connection_num=1, mux=False)
            world.turn(UNDER_WAY + 1)
        self.assertEqual(held(world), [1, 1, 1])

    def test_those_that_are_gone_do_not_count(self) -> None:
        world = World(2, spread=True)
        agents = [world.agent(0, connection_num=1, mux=False) for _ in range(4)]
        self.assertEqual(held(world), [2, 2])
        for agent in agents:
            agent.stopService()
        world.turn(20)
        self.assertEqual(held(world), [0, 0])
        directory = world.workers[0].siblings.directory
        self.assertEqual([directory.count_from("127.0.0.1", number) for number in range(2)], [0, 0])

    def test_a_worker_that_is_about_to_end_gets_none(self) -> None:
        world = World(2, spread=True)
        world.workers[1].siblings.drain()
        world.turn()
        world.agent(0, connection_num=4, mux=False)
        self.assertEqual(held(world), [4, 0])

    def test_a_worker_without_links_keeps_all(self) -> None:
        world = World(2, linked=False, spread=True)
        world.agent(0, connection_num=3, mux=False)
        self.assertEqual(held(world), [3, 0])

    def test_a_worker_without_the_listener(self) -> None:
        """It has another configuration for a moment; the agent dials again."""
        world = World(2, spread=True)
        world.workers[1].siblings.serve({}, {})
        world.agent(0, connection_num=2, mux=False)
        world.turn(1)
        self.assertEqual(world.workers[1].siblings.spreader.listeners, {})
        self.assertEqual(held(world)[1], 0)
        self.assertGreaterEqual(held(world)[0], 1)

    def test_what_is_counted_is_bounded(self) -> None:
        world = World(2, spread=True)
        spreader: Any = world.workers[0].siblings.spreader

        class Address:
            port = 1

            def __init__(self, number: int) -> None:
                self.host = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"

        for number in range(MOST_UNDER_WAY + 100):
            self.assertIsNone(spreader.elsewhere("tunnelListener", Address(number)))
        self.assertEqual((len(spreader._under_way), len(spreader._counts)), (MOST_UNDER_WAY,) * 2)
        world.turn(UNDER_WAY + 1)
        spreader.elsewhere("tunnelListener", Address(0))
        self.assertEqual((len(spreader._under_way), len(spreader._counts)), (1, 1))
        self.assertEqual(len(spreader._settled), 0)

    def test_no_address(self) -> None:
        world = World(2, spread=True)
        spreader = world.workers[0].siblings.spreader
        self.assertIsNone(spreader.elsewhere("tunnelListener", None))


class KinTests(SynchronousTestCase):
    """What one worker has of an agent stands for what others have."""

    def through(self, world: World, worker: int) -> int:
        """How many streams there are between a worker and others."""
        return sum(link.session.streams for link in world.links(worker).values())

    def test_nothing_goes_through_another_worker(self) -> None:
        world = World(2, spread=True)
        world.agent(0, connection_num=2)
        for number in range(20):
            world.client(number % 2, REQUEST % b"/")
        self.assertEqual([self.through(world, number) for number in range(2)], [0, 0])
        self.assertEqual([host.active for host in world.hosts(0) if not host.is_remote], [10])
        self.assertEqual(world.answer_until_done(), 20)

    def test_as_soon_as_none_is_here_it_does(self) -> None:
        world = World(2)
        world.agent(1)
        agent = world.agents[0]
        self.assertEqual([host.reserved for host in world.hosts(0)], [False])
        client = world.client(0, REQUEST % b"/1")
        self.assertEqual(self.through(world, 0), 1)
        world.answer_all()
        self.assertEqual(bodies(client), [b"/1"])
        agent.stopService()
        world.turn(3)

    def test_it_comes_and_goes(self) -> None:
        world = World(2, spread=True)
        world.agent(0, connection_num=2)
        [relayed] = [host for host in world.hosts(0) if host.is_remote]
        [own] = [host for host in world.hosts(0) if not host.is_remote]
        self.assertTrue(relayed.reserved)
        world.cluster(0).remove_host(own, "a test")
        self.assertFalse(relayed.reserved)
        client = world.client(0, REQUEST % b"/")
        self.assertEqual(relayed.active, 1)
        world.answer_all()
        self.assertEqual(bodies(client), [b"/"])
        # It is dialled again.
        world.turn(3)
        self.assertEqual(held(world), [1, 1])
        self.assertEqual([host.reserved for host in world.hosts(0) if host.is_remote], [True])

    def test_others_are_nobody_s_kin(self) -> None:
        world = World(2)
        world.agent(0)
        world.agent(1)
        self.assertEqual([host.reserved for number in range(2) for host in world.hosts(number)], [False] * 4)

    def test_balancers_that_decide_on_a_certain_host(self) -> None:
        for kind in ("LB_MAGLEV", "LB_REQUEST_ROUNDROBIN"):
            world = World(2, spread=True, cluster={"lb_type": kind})
            world.agent(0, connection_num=2)
            self.assertEqual([host.reserved for host in world.hosts(0)], [False, False], kind)
