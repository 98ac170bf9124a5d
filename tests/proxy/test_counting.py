"""HTTP/1 counts each request once, with its own figures, whatever it was and whatever the clock does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.metrics import UNCOUNTED, AgentFigures, RequestTally
from reverseproxy.metrics.accounts import MAX_SHARES
from reverseproxy.metrics.latency import classes_of
from reverseproxy.proxy.flags import ResponseFlag
from tests.metrics.by_hand import Ended, check
from tests.proxy.filters.build import chain
from tests.proxy.memory import World

RETRIED = 3
"""The number of the rule that has a request sent once more."""

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
        host = world.hosts[0]
        held = {agent: UNCOUNTED if agent is None else agent.own for agent in agents}
        for _ in range(300):
            status = random.choice((200, 200, 200, 204, 404, 503))
            took = random.choice((*LATER, *LATER, *EARLIER))
            content = b"x" * random.choice((0, 0, 7, 2000))
            answer = b"" if status == 204 else b"y" * random.choice((0, 10, 1024))
            path, rule = random.choice(((b"/a", "all[0]"), (b"/b", "all[1]")))
            agent = random.choice(agents)
            host.counters = held[agent]  # as if there were a host of each
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
            held[agent] = host.counters
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


class KindsTests(SynchronousTestCase):
    """Each request that is not as most are is counted as what it was, and so are those around it."""

    def setUp(self) -> None:
        self.tally = RequestTally("test")
        routes: list[dict[str, Any]] = [
            {"match": {"path": "/here"}, "direct_response": {"status": 200, "body": "answer"}},
            {"match": {"path": "/moved"}, "redirect": {"path_redirect": "/there"}},
            {"match": {"path": "/lost"}, "route": {"cluster_name": "unheard-of"}},
            {
                "match": {"path": "/again"},
                "route": {"cluster_name": "c", "retry_policy": {"retry_on": True, "num_retries": 3}},
            },
            {"match": {"prefix": "/"}, "route": {"cluster_name": "c"}},
        ]
        self.world = World(tally=self.tally, routes=routes, access_log=None, idle_timeout=None)
        self.client = self.world.client()
        self.wanted: dict[tuple[str, str, str], list[Ended]] = {}

    def ask(
        self, target: bytes, rule: int, status: int, sent: int, *answers: bytes, cluster: str = "c"
    ) -> None:
        """Have one request answered, and note what it should be counted as."""
        self.client.send(b"GET %b HTTP/1.1\r\nHost: here\r\n\r\n" % target)
        took = 0.0
        for number, answer in enumerate(answers):
            if number and rule == RETRIED:
                took += 0.5  # there is a pause before another attempt
                self.world.turn(0.5)
            self.world.host().send(answer)
        head, _, body = self.client.take().rpartition(b"\r\n\r\n")
        self.assertIn(b"HTTP/1.1 %d " % status, head)
        if status == 502:
            sent = len(body)
        key = (cluster, "all", f"all[{rule}]")
        self.wanted.setdefault(key, []).append(Ended(status, took, 0, sent))

    def check(self) -> None:
        """Compare all counters with what should have been counted."""
        self.assertEqual(set(self.tally.cells), set(self.wanted))
        for key, wanted in self.wanted.items():
            check(self, self.tally.cells[key].total, wanted)

    def ask_for_the_usual(self) -> None:
        self.ask(b"/", 4, 200, 2, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    def test_every_kind(self) -> None:
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        hints = b"HTTP/1.1 103 Early Hints\r\n\r\n"
        failed = b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"
        kinds: list[Callable[[], object]] = [
            lambda: self.ask(b"/a", 4, 200, 3, chunked, b"3\r\nabc\r\n", b"0\r\n\r\n"),
            lambda: self.ask(
                b"/a",
                4,
                404,
                3,
                b"HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            ),
            lambda: self.ask(b"/a", 4, 200, 1, hints, b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"),
            lambda: self.ask(b"/a", 4, 404, 1, b"HTTP/1.1 404 No\r\nContent-Length: 1\r\n\r\nx"),
            lambda: self.ask(b"/a", 4, 204, 0, b"HTTP/1.1 204 No Content\r\n\r\n"),
            lambda: self.ask(b"/a", 4, 500, 1, b"HTTP/1.1 500 No\r\nContent-Length: 1\r\n\r\nx"),
            lambda: self.ask(
                b"/again", RETRIED, 200, 1, failed, b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"
            ),
            lambda: self.ask(b"/again", RETRIED, 503, 0, *[failed] * 4),
            lambda: self.ask(b"/a", 4, 502, 0, b"garbage\r\n\r\n"),
            lambda: self.ask(b"/here", 0, 200, 6, cluster=""),
            lambda: self.ask(b"/moved", 1, 301, 0, cluster=""),
            lambda: self.ask(b"/lost", 2, 404, 33, cluster="unheard-of"),
        ]
        for kind in (*kinds, *reversed(kinds)):
            self.ask_for_the_usual()
            kind()
        self.ask_for_the_usual()
        self.check()

    def test_flags_of_filters(self) -> None:
        """An answer of the host may have flags nevertheless."""
        self.ask_for_the_usual()
        settings = self.world.settings
        delay = ("fault", {"delay": {"fixed_delay": "50ms", "percentage": 100}})
        self.world.settings = replace(settings, filters=chain(delay, clock=self.world.clock))
        client = self.world.client()
        client.send(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        self.world.turn(0.05)
        self.world.host().send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        self.assertIn(b" 200 ", client.take())
        self.assertEqual(self.tally.errors, {("c", ResponseFlag.DI): 1})
        self.assertEqual(classes_of(self.tally.cells["c", "all", "all[4]"].total.ends), {2: 2})
