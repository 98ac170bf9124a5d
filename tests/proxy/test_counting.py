"""HTTP/1 counts each request once, with its own figures, whatever it was and whatever the clock does."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.metrics import AgentFigures, RequestTally
from reverseproxy.metrics.accounts import MAX_SHARES
from tests.metrics.by_hand import Ended, check
from tests.proxy.memory import World

LATER = (0.0, 1e-6, 0.00001, 0.0004, 0.0025, 0.0999, 0.1, 0.15, 0.21, 3.0, 70.0)
EARLIER = (-1e-7, -1e-5, -0.00002, -0.03, -0.11, -0.3, -5000.0)


class CountingTests(SynchronousTestCase):
    def compare(self, agents: list[AgentFigures | None], seed: int) -> None:
        """
        Have requests of all kinds answered on two listeners with the same rules, and count them by hand.

        @param agents: those that the connection to the host belongs to, one after the other.
        """
        random = Random(seed)
        tallies = [RequestTally("front"), RequestTally("back")]
        routes = [{"match": {"prefix": path}, "route": {"cluster_name": "c"}} for path in ("/a", "/")]
        world = World(tally=tallies[0], routes=routes, access_log=None, idle_timeout=None)
        clients = [world.client()]
        world.settings = replace(world.settings, tally=tallies[1])
        clients.append(world.client())
        by_rule: dict[tuple[int, str], list[Ended]] = {}
        by_agent: dict[AgentFigures | None, list[Ended]] = {}
        for _ in range(300):
            status = random.choice((200, 200, 200, 204, 404, 503))
            took = random.choice((*LATER, *LATER, *EARLIER))
            content = b"x" * random.choice((0, 0, 7, 2000))
            answer = b"" if status == 204 else b"y" * random.choice((0, 10, 1024))
            path, rule = random.choice(((b"/a", "all[0]"), (b"/b", "all[1]")))
            agent = world.hosts[0].figures = random.choice(agents)
            where = random.randrange(2)
            head = b"POST %b HTTP/1.1\r\nHost: here\r\nContent-Length: %d\r\n\r\n" % (path, len(content))
            clients[where].send(
                (head if content else b"GET %b HTTP/1.1\r\nHost: here\r\n\r\n" % path) + content
            )
            began = world.clock.seconds()
            world.clock.rightNow += took
            took = world.clock.seconds() - began  # as it was rounded
            length = b"" if status == 204 else b"Content-Length: %d\r\n" % len(answer)
            world.host().send(b"HTTP/1.1 %d OK\r\n%b\r\n%b" % (status, length, answer))
            self.assertIn(b" %d " % status, clients[where].take())
            ended = Ended(status, max(0.0, took), len(content), len(answer))
            by_rule.setdefault((where, rule), []).append(ended)
            by_agent.setdefault(agent, []).append(ended)
        for (where, rule), wanted in by_rule.items():
            check(self, tallies[where].cells["c", "all", rule].total, wanted)
        self.assertEqual([len(tally.cells) for tally in tallies], [2, 2])
        for agent, wanted in by_agent.items():
            if agent is not None:
                check(self, agent.total, wanted)

    def test_one_agent(self) -> None:
        for seed in range(5):
            self.compare([AgentFigures()], seed)

    def test_many_agents(self) -> None:
        """Some of them share no counters with the rules, and some connections belong to none."""
        for seed in range(5):
            self.compare([None, *(AgentFigures() for _ in range(MAX_SHARES + 9))], seed)

    def test_without(self) -> None:
        for seed in range(5):
            self.compare([None], seed)

    def test_sums_grow(self) -> None:
        """A clock that is set back by less than a step makes no sum smaller."""
        tally = RequestTally("test")
        world = World(tally=tally, access_log=None, idle_timeout=None)
        client = world.client()
        for _ in range(3):
            client.send(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
            world.clock.rightNow -= 1e-7
            world.host().send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        (cell,) = tally.cells.values()
        self.assertEqual((cell.total.seconds, sum(cell.total.ends)), (0.0, 3))
