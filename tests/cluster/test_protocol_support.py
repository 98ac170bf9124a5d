"""Tests for L{reverseproxy.cluster.protocol_support}."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.cluster import protocol_support
from reverseproxy.cluster.protocol_support import ProtocolSupport, ProtocolSupportTable
from reverseproxy.identity import AgentIdentity


class Host:
    """As much of a host as counts."""

    def __init__(self, address: str, agent: str = "", announced: frozenset[str] | None = None) -> None:
        self.address = address
        self.identity = AgentIdentity(agent_id=agent) if agent else None
        self.announced = announced
        self.protocol_support: ProtocolSupport | None = None
        self.same_agent: list[Any] = []


class TongueTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.protocol_support = ProtocolSupport(self.clock.seconds)

    def test_nothing_is_known(self) -> None:
        self.assertFalse(self.protocol_support.limited)
        self.assertFalse(self.protocol_support.speaks("Http1"))
        self.assertTrue(self.protocol_support.may_try("Http1"))

    def test_announced(self) -> None:
        self.protocol_support.announced = frozenset({"Http1"})
        self.assertTrue(self.protocol_support.limited)
        self.assertTrue(self.protocol_support.may_try("Http1"))
        self.assertTrue(self.protocol_support.speaks("Http1"))
        self.assertFalse(self.protocol_support.may_try("bolt"))
        self.assertFalse(self.protocol_support.speaks("bolt"))
        self.assertFalse(self.protocol_support.note_silence("Http1"))

    def test_what_was_answered_once_is_a_fault_afterwards(self) -> None:
        self.protocol_support.note_answer("Http2")
        self.assertFalse(self.protocol_support.note_silence("Http2"))
        self.assertTrue(self.protocol_support.may_try("Http2"))
        self.assertFalse(self.protocol_support.limited)

    def test_it_is_left_alone_for_longer_each_time(self) -> None:
        rests = []
        for _ in range(9):
            self.assertTrue(self.protocol_support.may_try("Http2"))
            self.assertTrue(self.protocol_support.note_silence("Http2"))
            self.assertTrue(self.protocol_support.limited)
            begun = self.clock.seconds()
            self.assertFalse(self.protocol_support.may_try("Http2"))
            while not self.protocol_support.may_try("Http2"):
                self.clock.advance(0.5)
            rests.append(self.clock.seconds() - begun)
            # The one that finds out is alone.
            self.assertFalse(self.protocol_support.may_try("Http2"))
            self.clock.advance(protocol_support.FIRST_REST)
        self.assertEqual(rests, [1, 2, 4, 8, 16, 32, 60, 60, 60])
        self.assertTrue(self.protocol_support.may_try("Http1"))

    def test_many_at_once_count_as_one(self) -> None:
        for _ in range(100):
            self.assertTrue(self.protocol_support.note_silence("Http2"))
        self.clock.advance(2.0)
        self.assertTrue(self.protocol_support.may_try("Http2"))

    def test_an_answer_ends_that(self) -> None:
        self.protocol_support.note_silence("Http2")
        self.protocol_support.note_answer("Http2")
        self.assertTrue(self.protocol_support.may_try("Http2"))
        self.assertFalse(self.protocol_support.limited)

    def test_errors(self) -> None:
        """In what it has never served, several in a row have it left alone, if others do serve that."""
        for shy in (False, True):
            self.protocol_support = ProtocolSupport(self.clock.seconds)
            for _ in range(protocol_support.MOST_ERRORS):
                self.assertTrue(self.protocol_support.may_try("Http1"))
                self.protocol_support.note_answer("Http1")
                self.protocol_support.erred("Http1", shy)
            self.assertEqual(self.protocol_support.limited, shy)
        for _ in range(3):
            self.assertFalse(self.protocol_support.may_try("Http1"))
            self.assertTrue(self.protocol_support.may_try("bolt"))
            self.clock.advance(protocol_support.FIRST_REST)
            self.assertTrue(self.protocol_support.may_try("Http1"))
            self.assertFalse(self.protocol_support.may_try("Http1"))  # one is to find out
            self.protocol_support.erred("Http1", True)
        self.protocol_support.succeeded("Http1")
        self.assertTrue(self.protocol_support.may_try("Http1"))
        self.assertFalse(self.protocol_support.limited)


class TonguesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.protocol_support = ProtocolSupportTable(Clock().seconds)

    def join(self, *args: Any) -> Host:
        host = Host(*args)
        self.protocol_support.joined(host)  # type: ignore[arg-type]
        return host

    def test_what_is_found_out_holds_for_all_connections_of_an_agent(self) -> None:
        first, second, other = [
            self.join(f"10.0.0.1:{port}", agent) for port, agent in ((1, "a"), (2, "a"), (3, "b"))
        ]
        first.same_agent = [first, second]
        self.assertTrue(self.protocol_support.note_silence(first, "Http2"))  # type: ignore[arg-type]
        self.assertIsNotNone(first.protocol_support)
        self.assertIs(first.protocol_support, second.protocol_support)
        self.assertIsNone(other.protocol_support)
        self.assertIs(self.join("10.0.0.1:4", "a").protocol_support, first.protocol_support)
        self.assertIsNone(self.join("10.0.0.2:4", "a").protocol_support)

    def test_who_serves(self) -> None:
        """What one of an agent's connections has served, all have."""
        first, second, other = [
            self.join(f"10.0.0.1:{port}", agent) for port, agent in ((1, "a"), (2, "a"), (3, "b"))
        ]
        other.same_agent = [other]
        self.protocol_support.note_answer(first, "Http1")  # type: ignore[arg-type]
        self.assertFalse(self.protocol_support.serves(first, "Http1"))  # type: ignore[arg-type]
        self.protocol_support.succeeded(first, "Http1")  # type: ignore[arg-type]
        for host, served in ((first, True), (second, True), (other, False)):
            self.assertIs(self.protocol_support.serves(host, "Http1"), served)  # type: ignore[arg-type]
            self.assertFalse(self.protocol_support.serves(host, "bolt"))  # type: ignore[arg-type]
        for _ in range(protocol_support.MOST_ERRORS):
            self.protocol_support.erred(other, "Http1")  # type: ignore[arg-type]
            self.protocol_support.erred(other, "bolt")  # type: ignore[arg-type]
        assert other.protocol_support is not None
        self.assertFalse(other.protocol_support.may_try("Http1"))
        self.assertTrue(other.protocol_support.may_try("bolt"))

    def test_what_all_speak_costs_nothing(self) -> None:
        self.protocol_support.note_answer(self.join("10.0.0.1:1"), "Http1")  # type: ignore[arg-type]
        self.assertIsNone(self.join("10.0.0.1:1").protocol_support)

    def test_announcements(self) -> None:
        host = self.join("10.0.0.1:1", "a", frozenset({"Http1"}))
        assert host.protocol_support is not None
        self.assertFalse(host.protocol_support.may_try("bolt"))
        # Another one of that name has another listener.
        self.assertIsNone(self.join("10.0.0.1:2", "a").protocol_support)

    def test_not_everybody_is_remembered(self) -> None:
        self.patch(protocol_support, "MOST_AGENTS", 2)
        hosts = [self.join(f"10.0.0.{number}:1") for number in range(3)]
        for host in hosts:
            self.protocol_support.note_silence(host, "Http2")  # type: ignore[arg-type]
        self.assertIsNone(self.join("10.0.0.0:1").protocol_support)
        self.assertIsNotNone(self.join("10.0.0.2:1").protocol_support)
