"""Tests for L{reverseproxy.tunnel.server.quotas}, and for what agents hear of them."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.interfaces import ConnectionInfo, Identity
from reverseproxy.tunnel.handshake import Accepted, Principal
from reverseproxy.tunnel.server.quotas import NOBODY, QUOTA_PAUSE, QuotaPlace, Quotas
from reverseproxy.wire.mosn.extensions import MAX_REASON, Announcement, ServerAnnouncement
from reverseproxy.wire.mosn.frames import ConnectionInit, InitResponse, Status
from tests.tunnel import test_server
from tests.tunnel.logged import capture

AGENT, CREDENTIAL, ADDRESS = "max_hosts_per_agent", "max_hosts_per_credential", "max_hosts_per_address"


def quotas(most: int = 1000, **limits: int) -> Quotas:
    return Quotas({AGENT: 0, CREDENTIAL: 0, ADDRESS: 0, **limits}, most)


def accepted(name: str = "", principal: str = "", agent: str = "") -> Accepted:
    return Accepted(
        "blue",
        name,
        10,
        Principal("p", principal) if principal else None,
        Announcement(agent) if agent else None,
    )


def place(
    given: Quotas, who: Accepted, address_key: str = "10.0.0.1", identity: str | None = None
) -> QuotaPlace:
    return given.place(who, ConnectionInfo("10.0.0.1:5", "10.0.0.2:1", identity=identity), address_key)


class CountTests(SynchronousTestCase):
    def fill(self, given: Quotas, *places: QuotaPlace) -> list[bool]:
        return [not given.take(each) for each in places]

    def test_address(self) -> None:
        given = quotas(**{ADDRESS: 2})
        one = [place(given, accepted(f"a{number}")) for number in range(3)]
        other = place(given, accepted("a0"), "10.0.0.9")
        self.assertEqual(self.fill(given, *one, other), [True, True, False, True])

    def test_credential(self) -> None:
        """The same name of another policy is another one; certificates are credentials, too."""
        given = quotas(**{CREDENTIAL: 1})
        for first, second, fits in (
            (accepted(principal="x"), accepted(principal="x"), False),
            (accepted(principal="y"), accepted(principal="z"), True),
            (accepted("n"), accepted("n"), True),
        ):
            self.assertEqual(
                self.fill(given, place(given, first, "a"), place(given, second, "b")), [True, fits]
            )
        certified = [place(given, accepted(), f"c{number}", "CN=x") for number in range(2)]
        self.assertEqual(self.fill(given, *certified), [True, False])

    def test_agent(self) -> None:
        given = quotas(**{AGENT: 1})
        for first, second, fits in (
            (place(given, accepted("a")), place(given, accepted("a")), False),
            (place(given, accepted("b")), place(given, accepted("b"), "10.0.0.9"), True),
            (place(given, accepted("c", "x")), place(given, accepted("c", "x"), "10.0.0.9"), False),
            (place(given, accepted("d", agent="1")), place(given, accepted("d", agent="2")), True),
            (place(given, accepted(agent="3")), place(given, accepted(agent="3")), False),
            (place(given, accepted()), place(given, accepted()), True),
        ):
            self.assertEqual(self.fill(given, first, second), [True, fits])

    def test_descriptors(self) -> None:
        """There is always one bound."""
        for limit in (0, 5000):
            given = quotas(2, **{ADDRESS: limit})
            self.assertEqual(self.fill(given, *[place(given, accepted())] * 3), [True, True, False])

    def test_what_was_refused_takes_nothing(self) -> None:
        given = quotas(**{ADDRESS: 1, AGENT: 1})
        self.assertEqual(given.take(place(given, accepted("a"))), "")
        reason = given.take(place(given, accepted("b")))
        self.assertIn("(max_hosts_per_address)", reason)
        self.assertEqual(given.take(place(given, accepted("b"), "10.0.0.9")), "")

    @given(st.lists(st.tuples(st.booleans(), st.integers(0, 2), st.integers(0, 2)), max_size=60))
    def test_books(self, steps: list[tuple[bool, int, int]]) -> None:
        """Nobody ever has more than allowed, and nothing is kept of those that have left."""
        given = quotas(**{ADDRESS: 3, AGENT: 2})
        held: list[QuotaPlace] = []
        for joins, address, name in steps:
            if joins:
                mine = place(given, accepted(f"n{name}"), f"a{address}")
                others = [each for each in held if each.owners[0] == mine.owners[0]]
                fits = len(others) < 3 and sum(each == mine for each in others) < 2
                self.assertEqual(not given.take(mine), fits)
                if fits:
                    held.append(mine)
            elif held:
                given.give_back(held.pop(name % len(held)))
        for each in held:
            given.give_back(each)
        given.give_back(NOBODY)
        self.assertEqual(len(given._counts), 0)


class ListenerTests(SynchronousTestCase):
    """What a tunnel listener does."""

    setUp = test_server.ServerTests.setUp
    server = test_server.ServerTests.server
    connect = test_server.ServerTests.connect
    join = test_server.ServerTests.join

    OURS = ConnectionInit("blue", host_name="edge", extra=Announcement("agent-1").to_extra())

    def test_ours_are_told(self) -> None:
        server: Any = self.server(max_hosts_per_agent=2)
        first, _ = self.join(server, init=self.OURS), self.join(server, init=self.OURS)
        with capture() as events:
            third = self.join(server, init=self.OURS)
            self.assertIn(
                "there are 2 connections of this agent already (max_hosts_per_agent)", events.text()
            )
        answer = third.answer()
        assert isinstance(answer, InitResponse)
        self.assertEqual(answer.status, Status.UNKNOWN)
        announcement = ServerAnnouncement.from_extra(answer.extra)
        assert announcement is not None
        self.assertEqual(announcement.retry_after, 1000 * QUOTA_PAUSE)
        self.assertIn("max_hosts_per_agent", announcement.reason)
        self.assertTrue(third.closed)
        self.assertEqual(len(self.cluster.hosts), 2)
        third.lose()
        first.lose()
        self.join(server, init=self.OURS)
        self.assertEqual(len(self.cluster.hosts), 2)

    def test_others_are_closed(self) -> None:
        """MOSN's agents never come back after an answer that is no success."""
        server: Any = self.server(max_hosts_per_address=1)
        self.join(server)
        second, elsewhere = self.join(server), self.join(server, "10.0.0.2")
        self.assertEqual((second.transport.value(), second.closed), (b"", True))
        self.assertFalse(elsewhere.closed)
        self.assertEqual(len(self.cluster.hosts), 2)

    def test_who_waits_has_a_place(self) -> None:
        """Of many that come at once no more join than may."""
        server: Any = self.server(max_hosts_per_address=3, max_joins_per_second=1)
        connections = [self.connect(server) for _ in range(6)]
        for connection in connections:
            connection.receive(ConnectionInit("blue"))
        for _ in range(100):
            self.clock.advance(0.1)
        self.assertEqual(len(self.cluster.hosts), 3)

    def test_who_leaves_while_it_waits(self) -> None:
        server: Any = self.server(max_hosts_per_address=2, max_joins_per_second=1)
        self.join(server)
        waiting = self.connect(server)
        waiting.receive(ConnectionInit("blue"))
        waiting.lose()
        self.join(server)
        for _ in range(30):
            self.clock.advance(0.1)
        self.assertEqual(len(self.cluster.hosts), 2)

    def test_who_is_refused_for_something_else(self) -> None:
        server: Any = self.server(max_hosts_per_address=1)
        self.join(server, init=ConnectionInit("green"))
        self.join(server)
        self.assertEqual(len(self.cluster.hosts), 1)

    def test_credentials(self) -> None:
        server: Any = self.server(credential_policy="judge", max_hosts_per_credential=1)
        self.judge.verdict = Identity("fleet")
        init = ConnectionInit("blue", credential="x", credential_policy="judge")
        self.join(server, init=init)
        self.assertTrue(self.join(server, "10.0.0.2", init).closed)
        self.judge.verdict = Identity("other")
        self.assertFalse(self.join(server, "10.0.0.2", init).closed)


class ReasonTests(SynchronousTestCase):
    def test_it_is_short_and_printable(self) -> None:
        for reason, read in (
            ("too many", "too many"),
            ("a\nb", "a?b"),
            ("x" * 500, "x" * MAX_REASON),
            (7, None),
        ):
            extra = {"reverseproxy": {"version": 1, "retry_after": 5, "reason": reason}}
            found = ServerAnnouncement.from_extra(extra)
            self.assertEqual(None if found is None else found.reason, read)
        sent = ServerAnnouncement(retry_after=5, reason="x" * 500).to_extra()
        self.assertEqual(len(sent["reverseproxy"]["reason"]), MAX_REASON)
