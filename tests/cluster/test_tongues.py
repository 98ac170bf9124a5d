"""Tests for L{reverseproxy.cluster.tongues}."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.cluster import tongues
from reverseproxy.cluster.tongues import Tongue, Tongues
from reverseproxy.identity import AgentIdentity


class Host:
    """As much of a host as counts."""

    def __init__(self, address: str, agent: str = "", announced: frozenset[str] | None = None) -> None:
        self.address = address
        self.identity = AgentIdentity(agent_id=agent) if agent else None
        self.announced = announced
        self.tongue: Tongue | None = None
        self.same_agent: list[Any] = []


class TongueTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.tongue = Tongue(self.clock.seconds)

    def test_nothing_is_known(self) -> None:
        self.assertFalse(self.tongue.limited)
        self.assertFalse(self.tongue.speaks("Http1"))
        self.assertTrue(self.tongue.may_try("Http1"))

    def test_announced(self) -> None:
        self.tongue.announced = frozenset({"Http1"})
        self.assertTrue(self.tongue.limited)
        self.assertTrue(self.tongue.may_try("Http1"))
        self.assertTrue(self.tongue.speaks("Http1"))
        self.assertFalse(self.tongue.may_try("bolt"))
        self.assertFalse(self.tongue.speaks("bolt"))
        self.assertFalse(self.tongue.unheard("Http1"))

    def test_what_was_answered_once_is_a_fault_afterwards(self) -> None:
        self.tongue.heard("Http2")
        self.assertFalse(self.tongue.unheard("Http2"))
        self.assertTrue(self.tongue.may_try("Http2"))
        self.assertFalse(self.tongue.limited)

    def test_it_is_left_alone_for_longer_each_time(self) -> None:
        rests = []
        for _ in range(9):
            self.assertTrue(self.tongue.may_try("Http2"))
            self.assertTrue(self.tongue.unheard("Http2"))
            self.assertTrue(self.tongue.limited)
            begun = self.clock.seconds()
            self.assertFalse(self.tongue.may_try("Http2"))
            while not self.tongue.may_try("Http2"):
                self.clock.advance(0.5)
            rests.append(self.clock.seconds() - begun)
            # The one that finds out is alone.
            self.assertFalse(self.tongue.may_try("Http2"))
            self.clock.advance(tongues.FIRST_REST)
        self.assertEqual(rests, [1, 2, 4, 8, 16, 32, 60, 60, 60])
        self.assertTrue(self.tongue.may_try("Http1"))

    def test_many_at_once_count_as_one(self) -> None:
        for _ in range(100):
            self.assertTrue(self.tongue.unheard("Http2"))
        self.clock.advance(2.0)
        self.assertTrue(self.tongue.may_try("Http2"))

    def test_an_answer_ends_that(self) -> None:
        self.tongue.unheard("Http2")
        self.tongue.heard("Http2")
        self.assertTrue(self.tongue.may_try("Http2"))
        self.assertFalse(self.tongue.limited)

    def test_errors(self) -> None:
        """In what it has never served, several in a row have it left alone, if others do serve that."""
        for shy in (False, True):
            self.tongue = Tongue(self.clock.seconds)
            for _ in range(tongues.MOST_ERRORS):
                self.assertTrue(self.tongue.may_try("Http1"))
                self.tongue.heard("Http1")
                self.tongue.erred("Http1", shy)
            self.assertEqual(self.tongue.limited, shy)
        for _ in range(3):
            self.assertFalse(self.tongue.may_try("Http1"))
            self.assertTrue(self.tongue.may_try("bolt"))
            self.clock.advance(tongues.FIRST_REST)
            self.assertTrue(self.tongue.may_try("Http1"))
            self.assertFalse(self.tongue.may_try("Http1"))  # one is to find out
            self.tongue.erred("Http1", True)
        self.tongue.succeeded("Http1")
        self.assertTrue(self.tongue.may_try("Http1"))
        self.assertFalse(self.tongue.limited)


class TonguesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.tongues = Tongues(Clock().seconds)

    def join(self, *args: Any) -> Host:
        host = Host(*args)
        self.tongues.joined(host)  # type: ignore[arg-type]
        return host

    def test_what_is_found_out_holds_for_all_connections_of_an_agent(self) -> None:
        first, second, other = [
            self.join(f"10.0.0.1:{port}", agent) for port, agent in ((1, "a"), (2, "a"), (3, "b"))
        ]
        first.same_agent = [first, second]
        self.assertTrue(self.tongues.unheard(first, "Http2"))  # type: ignore[arg-type]
        self.assertIsNotNone(first.tongue)
        self.assertIs(first.tongue, second.tongue)
        self.assertIsNone(other.tongue)
        self.assertIs(self.join("10.0.0.1:4", "a").tongue, first.tongue)
        self.assertIsNone(self.join("10.0.0.2:4", "a").tongue)

    def test_who_serves(self) -> None:
        """What one of an agent's connections has served, all have."""
        first, second, other = [
            self.join(f"10.0.0.1:{port}", agent) for port, agent in ((1, "a"), (2, "a"), (3, "b"))
        ]
        other.same_agent = [other]
        self.tongues.heard(first, "Http1")  # type: ignore[arg-type]
        self.assertFalse(self.tongues.serves(first, "Http1"))  # type: ignore[arg-type]
        self.tongues.succeeded(first, "Http1")  # type: ignore[arg-type]
        for host, served in ((first, True), (second, True), (other, False)):
            self.assertIs(self.tongues.serves(host, "Http1"), served)  # type: ignore[arg-type]
            self.assertFalse(self.tongues.serves(host, "bolt"))  # type: ignore[arg-type]
        for _ in range(tongues.MOST_ERRORS):
            self.tongues.erred(other, "Http1")  # type: ignore[arg-type]
            self.tongues.erred(other, "bolt")  # type: ignore[arg-type]
        assert other.tongue is not None
        self.assertFalse(other.tongue.may_try("Http1"))
        self.assertTrue(other.tongue.may_try("bolt"))

    def test_what_all_speak_costs_nothing(self) -> None:
        self.tongues.heard(self.join("10.0.0.1:1"), "Http1")  # type: ignore[arg-type]
        self.assertIsNone(self.join("10.0.0.1:1").tongue)

    def test_announcements(self) -> None:
        host = self.join("10.0.0.1:1", "a", frozenset({"Http1"}))
        assert host.tongue is not None
        self.assertFalse(host.tongue.may_try("bolt"))
        # Another one of that name has another listener.
        self.assertIsNone(self.join("10.0.0.1:2", "a").tongue)

    def test_not_everybody_is_remembered(self) -> None:
        self.patch(tongues, "MOST_AGENTS", 2)
        hosts = [self.join(f"10.0.0.{number}:1") for number in range(3)]
        for host in hosts:
            self.tongues.unheard(host, "Http2")  # type: ignore[arg-type]
        self.assertIsNone(self.join("10.0.0.0:1").tongue)
        self.assertIsNotNone(self.join("10.0.0.2:1").tongue)
