"""Tests for L{reverseproxy.workers.route_claims}."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.workers.route_claims import SHORTEST_GRACE, RouteClaim, RouteClaims

GRACE = 30.0


def message(cluster: str = "app") -> dict[str, Any]:
    facts = {"listener": "tunnels", "cluster": cluster, "owner": "o", "shown": "s", "domains": ["a.example"]}
    return {**facts, "grace": GRACE}


class RouteClaimsTests(SynchronousTestCase):
    """Claims, the connections that hold them, and their end."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.expired: list[RouteClaim] = []
        self.claims = RouteClaims(self.clock, self.expired.append)
        self.claim = self.claims.add(message())

    def test_pending(self) -> None:
        """A pending claim may be held, but is no claim of its cluster yet, and does not expire."""
        self.assertIs(self.claims.count(self.claim.serial, 0, 1, GRACE), self.claim)
        self.claims.count(self.claim.serial, 0, -1, GRACE)
        self.clock.advance(2 * GRACE)
        self.assertEqual((len(self.claims), list(self.claims), self.expired), (0, [], []))
        self.assertIsNone(self.claims.find("tunnels", "app"))

    def test_expires_without_connections(self) -> None:
        self.claims.grant(self.claim)
        self.assertIs(self.claims.find("tunnels", "app"), self.claim)
        self.clock.advance(GRACE - 1)
        self.assertEqual(self.expired, [])
        self.clock.advance(1)
        self.assertEqual((self.expired, len(self.claims), self.claim.granted), ([self.claim], 0, False))
        self.assertIsNone(self.claims.count(self.claim.serial, 0, 1, GRACE))

    def test_held(self) -> None:
        self.claims.grant(self.claim)
        self.claims.count(self.claim.serial, 1, 1, 0.0)
        self.clock.advance(2 * GRACE)
        self.assertEqual((self.claim.held, self.claim.effective_grace), (1, SHORTEST_GRACE))
        self.claims.count(self.claim.serial, 1, -1, 0.0)
        self.clock.advance(SHORTEST_GRACE)
        self.assertEqual(self.expired, [self.claim])

    def test_a_worker_ends(self) -> None:
        """Its connections hold no claim any more, be it granted or pending."""
        other = self.claims.add(message("other"))
        self.claims.grant(self.claim)
        for each in (self.claim, other):
            each.sent_to |= {0, 1}
            self.claims.count(each.serial, 1, 1, GRACE)
        self.claims.forget_worker(1)
        self.claims.grant(other)
        self.assertEqual([(each.held, each.sent_to) for each in self.claims], [(0, {0})] * 2)
        self.clock.advance(GRACE)
        self.assertEqual(self.expired, [self.claim, other])

    def test_removed(self) -> None:
        other = self.claims.add(message("other"))
        self.claims.grant(self.claim)
        for each in (self.claim, other):
            self.claims.remove(each)
        self.assertEqual((len(self.claims), self.claims.to_json()), (0, []))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_of_a_fleet(self) -> None:
        """Connections to other servers may hold it: it does not expire here."""
        claims = RouteClaims(self.clock, None)
        claims.grant(claims.add(message()))
        self.assertEqual((len(claims), self.clock.getDelayedCalls()), (1, []))

    def test_for_the_process_that_takes_over(self) -> None:
        self.claims.grant(self.claim)
        [fact] = self.claims.to_json()
        self.assertEqual(fact, {**message(), "port": None, "address": "", "identity": None})

    def test_closed(self) -> None:
        self.claims.grant(self.claim)
        self.claims.close()
        self.assertEqual((len(self.claims), self.clock.getDelayedCalls()), (0, []))
