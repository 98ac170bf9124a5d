"""Tests for L{reverseproxy.tunnel.agent.choosing}, and of agents that choose."""

from __future__ import annotations

from collections import Counter
from statistics import pstdev

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.testing import MemoryReactor, run
from reverseproxy.tunnel.agent.agent import LAST_RESORT
from reverseproxy.tunnel.agent.choosing import PATIENCE, ServerChoice, rank, spare_limit
from reverseproxy.tunnel.agent.discovery import Target
from tests.integration.configs import agent as agent_document
from tests.integration.configs import server
from tests.tunnel.test_agent import Bench

AGENTS = [f"agent {number}" for number in range(1000)]
SERVERS = [f"10.0.0.{number}:9999" for number in range(1, 11)]


def chosen(servers: list[str], count: int) -> dict[str, set[str]]:
    return {agent: set(rank(agent, servers)[:count]) for agent in AGENTS}


class RankTests(SynchronousTestCase):
    def test_agents_spread_evenly(self) -> None:
        """
        A thousand agents, two of ten servers each: 200 for a server, give or take what chance gives.

        If each of them drew two, the standard deviation would be 12.6.
        """
        loads = Counter(server for each in chosen(SERVERS, 2).values() for server in each)
        self.assertEqual(loads.total(), 2000)
        self.assertLess(pstdev(loads[server] for server in SERVERS), 20)
        self.assertGreater(min(loads.values()), 150)
        self.assertLess(max(loads.values()), 250)

    def test_a_server_that_is_new(self) -> None:
        """Nobody moves but to it: one connection in eleven."""
        before, after = chosen(SERVERS, 2), chosen([*SERVERS, "10.0.1.1:9999"], 2)
        moved = {agent: after[agent] - before[agent] for agent in AGENTS if after[agent] != before[agent]}
        self.assertTrue(all(new == {"10.0.1.1:9999"} for new in moved.values()))
        self.assertTrue(140 < len(moved) < 225, len(moved))

    def test_a_server_that_is_gone(self) -> None:
        """Only its own agents move, and to all of the others."""
        before, after = chosen(SERVERS, 2), chosen(SERVERS[1:], 2)
        for agent in AGENTS:
            if SERVERS[0] in before[agent]:
                self.assertEqual(len(before[agent] & after[agent]), 1)
            else:
                self.assertEqual(before[agent], after[agent])
        new = Counter(server for agent in AGENTS for server in after[agent] - before[agent])
        self.assertEqual(len(new), 9)

    @given(st.lists(st.text(max_size=20), unique=True), st.randoms())
    def test_the_order_of_the_list_says_nothing(self, servers: list[str], random: object) -> None:
        ranking = rank("a", servers)
        random.shuffle(servers)  # type: ignore[attr-defined]
        self.assertEqual(rank("a", servers), ranking)
        self.assertEqual(sorted(ranking), sorted(servers))


class ChoiceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.targets = [Target(each, each) for each in rank("a", SERVERS)]  # in the agent's order
        self.choice = ServerChoice("a", 2)
        self.choice.offer(self.targets)

    def test_the_first_ones(self) -> None:
        self.assertEqual(self.choice.choose(0.0), self.targets[:2])
        self.choice.offer(self.targets[1:2])
        self.assertEqual((self.choice.choose(0.0), self.choice.wanted), (self.targets[1:2], 1))
        self.choice.offer([])
        self.assertEqual((self.choice.choose(0.0), self.choice.wanted), ([], 0))

    def test_one_that_does_not_answer(self) -> None:
        """After a while the next one is dialled as well; until it is back."""
        self.choice.note(self.targets[0], False, False, 0.0)
        self.choice.note(self.targets[1], True, False, 0.0)
        self.assertEqual(self.choice.choose(PATIENCE - 0.1), self.targets[:2])
        self.assertEqual(self.choice.next_look(1.0), PATIENCE - 1.0)
        self.assertEqual(self.choice.choose(PATIENCE), self.targets[:3])
        self.assertIsNone(self.choice.next_look(PATIENCE))
        self.choice.note(self.targets[0], True, False, 100.0)
        self.assertEqual(self.choice.choose(100.0), self.targets[:2])

    def test_one_that_leaves(self) -> None:
        self.choice.note(self.targets[1], False, True, 7.0)
        self.assertEqual(self.choice.choose(7.0), self.targets[:3])

    def test_none_answers(self) -> None:
        """Not all agents dial all servers then."""
        for target in self.targets:
            self.choice.note(target, False, False, 0.0)
        self.assertEqual(self.choice.choose(60.0), self.targets[: spare_limit(2)])


class AgentTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.bench = Bench(connection_num=1, server_count=1)
        self.order = [Target(each, each) for each in rank("agent-1", SERVERS[:4])]
        self.bench.start(*reversed(self.order))

    def tearDown(self) -> None:
        self.bench.agent.stopService()
        self.bench.turn(LAST_RESORT)
        self.assertEqual(self.bench.clock.getDelayedCalls(), [])

    def hosts(self) -> list[str]:
        return [f"{dial.host}:9999" for dial in self.bench.pending]

    def serving(self) -> list[str]:
        return [peer.target.address for peer in self.bench.agent.servers if peer.serving]

    def test_one_of_them(self) -> None:
        self.assertEqual(self.hosts(), [self.order[0].address])
        self.bench.serve()
        self.bench.turn(60)
        self.assertEqual(self.serving(), [self.order[0].address])
        self.assertEqual(self.bench.pending, [])

    def test_it_is_not_there(self) -> None:
        """The next one serves until the first one is back, and not longer."""
        self.bench.pending[0].refuse()
        self.bench.turn(PATIENCE + 0.5)
        first, second = (each.address for each in self.order[:2])
        for dial in self.bench.pending:
            if f"{dial.host}:9999" == second:
                dial.serve()
            else:
                dial.refuse()
        self.bench.turn(1)
        self.assertEqual(self.serving(), [second])
        while first not in self.hosts():
            self.bench.turn(0.25)
        self.bench.serve()
        self.bench.turn(0.5)
        self.bench.serve()  # it tells the second one that it goes
        self.bench.turn(2)
        self.assertEqual(self.serving(), [first])

    def test_it_is_not_listed_any_more(self) -> None:
        """Another one serves before it is left."""
        (old,) = self.bench.serve()
        self.bench.turn(0.5)
        self.bench.watcher.update(self.order[1:])
        self.bench.turn(1)
        self.assertFalse(old.closed)
        self.assertEqual(self.hosts(), [self.order[1].address])
        self.bench.serve()
        self.bench.turn(0.5)
        self.bench.serve()
        self.bench.turn(3)
        self.assertTrue(old.lost)
        self.assertEqual(self.serving(), [self.order[1].address])

    def test_no_other_one_is_there(self) -> None:
        """What is not listed is left all the same, if later."""
        (old,) = self.bench.serve()
        self.bench.turn(0.5)
        self.bench.watcher.update([])
        self.bench.turn(LAST_RESORT - 1)
        self.assertFalse(old.closed)
        self.bench.turn(2)
        self.bench.serve()
        self.bench.turn(2)
        self.assertTrue(old.lost)

    def test_more_of_them_and_fewer(self) -> None:
        """Another number takes no new agent."""
        self.bench.serve()
        self.bench.turn(0.5)

        def adapt(count: int) -> None:
            config = self.bench.config.model_copy(update={"server_count": count})
            self.bench.watcher.relist = lambda *more: None  # type: ignore[attr-defined]
            self.bench.agent.adapt(config)
            for _ in range(3):
                self.bench.turn(1)
                self.bench.serve()

        adapt(3)
        self.assertEqual(set(self.serving()), {each.address for each in self.order[:3]})
        adapt(0)
        self.assertEqual(len(self.serving()), 4)
        adapt(1)
        self.assertEqual(self.serving(), [self.order[0].address])

    def test_the_end_comes_first(self) -> None:
        """Of an agent that has stopped, nothing is left again."""
        (old,) = self.bench.serve()
        self.bench.turn(0.5)
        self.bench.watcher.update([])
        self.bench.agent.stopService()
        self.bench.turn(LAST_RESORT + 1)
        self.assertTrue(old.lost)
        self.assertEqual(self.bench.pending, [])

    def test_another_list_with_the_same_servers(self) -> None:
        (wire,) = self.bench.serve()
        self.bench.watcher.update(self.order)
        addresses = [each.address for each in self.order]
        others = (f"10.9.9.{number}:1" for number in range(1, 100))
        other = next(each for each in others if rank("agent-1", [*addresses, each])[0] != each)
        self.bench.watcher.update([*self.order, Target(other, other)])
        self.bench.turn(1)
        self.assertFalse(wire.closed)
        self.assertEqual(self.bench.pending, [])


class LeavingTests(SynchronousTestCase):
    def test_a_server_that_leaves(self) -> None:
        """Its agent is at the next one before the connection ends, and requests go on there."""
        reactor = MemoryReactor()
        servers = [
            run(server(client=f"127.0.0.1:{2000 + number}", tunnel=f"127.0.0.1:{3000 + number}"), reactor)
            for number in range(3)
        ]
        edge = agent_document(
            [f"127.0.0.1:{3000 + number}" for number in range(3)], kind="http", server_count=1
        )
        service = run(edge, reactor)

        def turn(seconds: float) -> None:
            for _ in range(round(seconds / 0.05)):
                reactor.advance(0.05)
                reactor.settle()

        def hosts() -> list[int]:
            return [len(each.clusters.get("clientCluster").hosts) for each in servers]

        turn(3)
        self.assertEqual(sorted(hosts()), [0, 0, 1])
        first = hosts().index(1)
        stopping = servers[first].stopService()
        seen = []
        for _ in range(400):
            turn(0.05)
            seen.append(sum(hosts()))
        self.assertNotIn(0, seen)
        self.assertTrue(stopping.called)
        self.assertEqual(sorted(hosts()), [0, 0, 1])
        self.assertEqual(hosts()[first], 0)
        for each in (service, *servers):
            if each is not servers[first]:
                each.stopService()
        turn(40)
