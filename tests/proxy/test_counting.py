"""HTTP/1 counts each request once, with its own figures, whatever it was and whatever the clock does."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.metrics import AgentFigures, Destination, EndedRequest, RequestTally
from reverseproxy.metrics.latency import classes_of
from tests.proxy.memory import World

LATER = (0.0, 1e-6, 0.00001, 0.0004, 0.0025, 0.0999, 0.1, 0.15, 0.21, 3.0, 70.0)
EARLIER = (-1e-7, -1e-5, -0.00002, -0.03, -0.11, -0.3, -5000.0)


class CountingTests(SynchronousTestCase):
    def compare(self, figures: AgentFigures | None, random: Random) -> None:
        """Have requests of all kinds answered, and count the same by hand."""
        tally, wanted = RequestTally("test"), RequestTally("test")
        routes = [{"match": {"prefix": path}, "route": {"cluster_name": "c"}} for path in ("/a", "/")]
        world = World(tally=tally, routes=routes, access_log=None, idle_timeout=None)
        world.hosts[0].figures = figures
        agent = None if figures is None else AgentFigures()
        reference = World(routes=routes).hosts[0]
        reference.figures = agent
        client = world.client()
        for _ in range(300):
            status = random.choice((200, 200, 200, 204, 404, 503))
            took = random.choice((*LATER, *LATER, *EARLIER))
            content = b"x" * random.choice((0, 0, 7, 2000))
            answer = b"" if status == 204 else b"y" * random.choice((0, 10, 1024))
            path, rule = random.choice(((b"/a", "all[0]"), (b"/b", "all[1]")))
            head = b"POST %b HTTP/1.1\r\nHost: here\r\nContent-Length: %d\r\n\r\n" % (path, len(content))
            began = world.clock.seconds()
            client.send((head if content else b"GET %b HTTP/1.1\r\nHost: here\r\n\r\n" % path) + content)
            world.clock.rightNow += took
            length = b"" if status == 204 else b"Content-Length: %d\r\n" % len(answer)
            world.host().send(b"HTTP/1.1 %d OK\r\n%b\r\n%b" % (status, length, answer))
            self.assertIn(b" %d " % status, client.take())
            place = Destination("c", "all", rule)
            ended = EndedRequest(place, reference, status, began, len(content), len(answer))
            wanted.end(ended, world.clock.seconds())
        self.assertEqual(set(tally.cells), set(wanted.cells))
        self.assertEqual(len(tally.cells), 2)
        for key, cell in tally.cells.items():
            other = wanted.cells[key]
            self.assertEqual(cell.ends, other.ends)
            self.assertEqual(
                (cell.seconds, cell.received, cell.sent), (other.seconds, other.received, other.sent)
            )
        if figures is not None:
            assert agent is not None
            self.assertEqual(figures.ends, agent.ends)
            self.assertEqual((figures.received, figures.sent), (agent.received, agent.sent))
            self.assertEqual(sum(classes_of(figures.ends).values()), 300)

    def test_with_agents(self) -> None:
        for seed in range(5):
            self.compare(AgentFigures(), Random(seed))

    def test_without(self) -> None:
        for seed in range(5):
            self.compare(None, Random(seed))

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
        self.assertEqual((cell.seconds, sum(cell.ends)), (0.0, 3))
