"""Messages from one server to another: with backpressure, and only those that it understands."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.cluster.endpoints import make_endpoint
from reverseproxy.fleet.announcer import AT_ONCE, MOST, MOST_BYTES, UNTAKEN, Agent, LinkAnnouncer
from reverseproxy.fleet.link_frames import (
    MAX_FRAME,
    LinkFrameReader,
    capabilities_of,
    frame,
    is_understood_by,
)
from reverseproxy.fleet.outgoing_link import LIMITS
from reverseproxy.mux.session import MuxSession
from reverseproxy.testing import Recorder
from tests.fleet.worlds import PEERS, FleetWorld

MANY = 50_000


class _Stream:
    """A stream that takes nothing unless it is told to."""

    def __init__(self) -> None:
        self.producer: Any = None
        self.reader = LinkFrameReader()
        self.most = 0

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert self.producer is None
        assert not streaming
        self.producer = producer
        producer.resumeProducing()

    def unregisterProducer(self) -> None:
        assert self.producer is not None
        self.producer = None

    def write(self, data: bytes) -> None:
        self.most = max(self.most, len(data))
        self.reader.feed(data)

    def said(self) -> list[Any]:
        """What has been written since the last time."""
        return list(iter(self.reader.next, None))

    def take(self) -> list[Any]:
        """Take everything."""
        found = self.said()
        while self.producer is not None:
            self.producer.resumeProducing()
            found += self.said()
        return found


class SayingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.stream = _Stream()
        self.failed: list[str] = []
        self.states: dict[Agent, int] = {}
        self.saying = LinkAnnouncer(self.stream, self.clock, self.state, self.failed.append)

    def state(self, agent: Agent) -> dict[str, Any]:
        return {"agent": agent[1], "state": self.states.get(agent, 0)}

    def test_at_once(self) -> None:
        """What nothing waits for is said at once, each time."""
        for number in range(3):
            self.saying.send({"n": number})
            self.assertEqual(self.stream.said(), [{"n": number}])
            self.assertEqual(self.stream.take(), [])

    def test_order(self) -> None:
        """Messages in theirs; each agent once, as it is then."""
        self.saying.send({"n": 0})
        for number in range(1, 4):
            self.states["c", "x"] = number
            self.saying.announce(("c", "x"))
            self.saying.announce(("c", f"y{number}"))
            self.saying.send({"n": number})
        found = self.stream.take()
        self.assertEqual(found[:4], [{"n": number} for number in range(4)])
        self.assertEqual(
            [(each["agent"], each["state"]) for each in found[4:]],
            [
                ("x", 3),
                ("y1", 0),
                ("y2", 0),
                ("y3", 0),
            ],
        )
        self.assertEqual(len(self.saying), 0)

    def test_on_credit(self) -> None:
        """However many there are at once, no more is written than is taken, and none is lost."""
        for number in range(MANY // 10):
            self.saying.announce(("c", str(number)))
        self.assertEqual(len(self.stream.said()), 1)
        self.assertEqual(len(self.saying), MANY // 10 - 1)
        found = self.stream.take()
        self.assertEqual([each["agent"] for each in found], [str(number) for number in range(1, MANY // 10)])
        self.assertLess(self.stream.most, AT_ONCE * 60)

    def test_large_messages(self) -> None:
        for _ in range(40):
            self.saying.send({"x": "y" * 8000})
        self.assertEqual(len(self.stream.take()), 40)
        self.assertLess(self.stream.most, MOST_BYTES + MAX_FRAME)

    def test_who_takes_nothing(self) -> None:
        """Is given up, but only if there is more for it."""
        self.saying.announce(("c", "x"))
        self.saying.announce(("c", "y"))
        self.clock.advance(UNTAKEN)
        self.saying.announce(("c", "y"))
        self.assertEqual(self.failed, [])
        self.clock.advance(1)
        self.saying.announce(("c", "y"))
        self.assertEqual(self.failed, ["it does not read what it is told"])

    def test_who_takes_little(self) -> None:
        """Is not given up."""
        for number in range(100 * AT_ONCE):
            self.saying.announce(("c", str(number)))
        for _ in range(50):
            self.clock.advance(UNTAKEN - 1)
            self.stream.producer.resumeProducing()
            self.saying.announce(("c", "x"))
        self.assertEqual(self.failed, [])

    def test_too_many_messages(self) -> None:
        for number in range(MOST + 2):
            self.saying.send({"n": number})
        self.assertEqual(self.failed, ["it does not read what it is told"])

    def test_too_long(self) -> None:
        """It costs itself."""
        self.saying.send({"x": "y" * MAX_FRAME})
        self.saying.send({"n": 1})
        self.assertEqual(self.stream.take(), [{"n": 1}])
        self.flushLoggedErrors()

    def test_stopped(self) -> None:
        for number in range(3):
            self.saying.send({"n": number})
        self.saying.stopProducing()
        self.saying.send({"n": 4})
        self.assertEqual((len(self.saying), self.stream.take()), (0, [{"n": 0}]))


class KnowsTests(SynchronousTestCase):
    def test_hello(self) -> None:
        self.assertEqual(capabilities_of({"knows": ["orders", 1, "more"]}), {"orders", "more"})
        for nothing in ({}, {"knows": None}, {"knows": "orders"}, {"knows": {"orders": 1}}):
            self.assertEqual(capabilities_of(nothing), frozenset())

    def test_kinds(self) -> None:
        for message in ({"keep_out": []}, {"let_in": []}, {"order": "kick"}):
            self.assertFalse(is_understood_by(message, frozenset(("more",))))
            self.assertTrue(is_understood_by(message, frozenset(("orders",))))
        self.assertTrue(is_understood_by({"well": True}, frozenset()))


class LinkTests(SynchronousTestCase):
    """Servers a and b, and a peer of a's."""

    def setUp(self) -> None:
        self.world = FleetWorld()
        self.addCleanup(self.world.stop)
        for name in "ab":
            self.world.server(name)
        self.world.pass_time(1)

    def peer(self, name: str, **hello: Any) -> _Stream:
        """Link somebody to server a."""
        session = MuxSession(client=True, clock=self.world.reactor, limits=LIMITS)
        endpoint = make_endpoint(self.world.reactor, f"127.0.0.1:{PEERS}", 5.0, None)
        endpoint.connect(_Made(session))
        self.world.pass_time(0.2)
        found = _Stream()
        talk = Recorder()
        talk.dataReceived = found.write  # type: ignore[method-assign]
        session.open(_Made(talk))
        talk.transport.write(frame({"v": 1, "hello": name, **hello}))
        self.world.pass_time(0.2)
        return found

    def state(self) -> tuple[Any, ...]:
        """How the link from b to a is."""
        [peer] = [each for each in self.world.fleet("b").peers() if each["server"] == "a"]
        return peer["state"], peer["losses"]

    def test_a_server_of_the_version_before(self) -> None:
        """It is told nothing that it would break its link for; whom it can't be told is not said to be."""
        exclusions = self.world.servers["a"]._world.exclusions
        exclusions.exclude(("address", "::1"), 60.0, "a test")
        old, new = self.peer("old"), self.peer("new", knows=["orders", "things to come"])
        exclusions.exclude(("address", "::2"), 60.0, "a test")
        exclusions.lift(("address", "::1"))
        given = self.world.fleet("a").orders.give("kick", "x", 0.0, "ops", "1")
        self.world.agent(0, answer="one")
        self.world.pass_time(1.5)
        self.assertEqual(sorted(self.successResultOf(given)), ["b", "new"])
        hello, *rest = old.said()
        self.assertEqual((hello["v"], hello["hello"]), (1, "a"))
        self.assertEqual([set(each) for each in rest], [{"well", "cluster", "agent"}])
        kinds = [next(iter(each)) for each in new.said()]
        self.assertEqual(kinds, ["v", "keep_out", "keep_out", "let_in", "order", "well"])
        self.assertEqual(self.state(), ("up", 0))

    def test_both_know(self) -> None:
        for name in "ab":
            [link] = self.world.fleet(name).incoming.all
            self.assertEqual(link.capabilities, {"orders"})

    def test_something_of_a_later_version(self) -> None:
        """It is left alone, in both directions, with one line for whoever wants to see it."""
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        [link] = self.world.fleet("a").incoming.all
        for number in range(100):
            link.send({"weather": number})
            link.send({"cluster": "clientCluster", "agent": "0" * 32, "mood": number})
            self.world.fleet("b").links.all["a"].send({"weather": number})
        self.world.pass_time(1)
        self.assertEqual(self.state(), ("up", 0))
        found = [each for each in events if "is not known here" in (each.get("log_format") or "")]
        self.assertEqual([each["names"] for each in found], ["weather"])

    def test_a_great_many_agents_that_are_not_well(self) -> None:
        """Whoever links is told of all of them, and the link stays."""
        told: list[Any] = []
        agents = [("clientCluster", f"{number:032x}") for number in range(MANY)]
        self.world.fleet("a").agents._announced.update(dict.fromkeys(agents, False))
        self.world.fleet("b").remote.link_message = (  # type: ignore[method-assign]
            lambda link, message: told.append(message.get("agent"))
        )
        self.world.fleet("b").links.all["a"].revoke("a test")
        self.world.pass_time(3)
        self.assertEqual(self.state(), ("up", 1))
        self.assertEqual(told, [agent for _, agent in agents])


class _Made(Factory):
    noisy = False

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: object) -> Any:
        return self._protocol
