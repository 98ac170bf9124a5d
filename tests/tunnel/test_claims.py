"""Tests for L{reverseproxy.tunnel.server.claims}, and for what asks for them on the wire."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.identity.allowance import NOTHING, Allowance
from reverseproxy.tunnel.server.claims import Claim, Claims, Denied, Rules
from reverseproxy.wire.mosn.extensions import Announcement, ServerAnnouncement
from reverseproxy.wire.mosn.frames import Status
from reverseproxy.wire.mosn.route_requests import BroughtRoutes, RouteRequest

MUCH = Allowance.of(["*.x.example", "a.example"], ["1000-1004"])
RULES = Rules(zone="x.example", ports=Allowance.of([], ["1000-1003"]), grace=10.0, most=3, most_of_one=3)


class ClaimTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.claims = Claims(RULES, {"static"}.__contains__, {"www.x.example"}.__contains__)

    def judge(
        self, owner: str, cluster: str, *domains: str, allowed: Allowance = MUCH, **more: Any
    ) -> Claim | Denied:
        return self.claims.judge(owner, cluster, RouteRequest(domains, **more), allowed)

    def take(self, owner: str, cluster: str, *domains: str, **more: Any) -> Claim:
        claim = self.judge(owner, cluster, *domains, **more)
        assert isinstance(claim, Claim), claim
        if self.claims.find(cluster) is None:
            if claim.port == 0:
                claim.port = self.claims.candidates(claim, MUCH)[0]
            self.claims.open(claim)
        self.claims.hold(claim)
        return claim

    def refused(self, status: Status, why: str, *args: str, **more: Any) -> None:
        verdict = self.judge(*args, **more)
        assert isinstance(verdict, Denied), verdict
        self.assertEqual(verdict.status, status)
        self.assertIn(why, verdict.reason)

    def test_what_is_allowed_is_given(self) -> None:
        claim = self.take("me", "c", "A.x.example.", subdomains=("b",), port=1000)
        self.assertEqual((claim.domains, claim.port), (("a.x.example", "b.x.example"), 1000))
        self.assertIs(self.claims.find("c"), claim)
        self.assertEqual(list(self.claims), [claim])

    def test_what_is_not_allowed(self) -> None:
        forbidden = Status.ROUTE_FORBIDDEN
        self.refused(forbidden, "proved who it is", "", "c", "a.example")
        self.refused(forbidden, "may not have the domain b.example", "me", "c", "a.example", "b.example")
        self.refused(forbidden, "is no domain", "me", "c", "a b")
        self.refused(forbidden, "may not have the port 999", "me", "c", port=999)
        self.refused(forbidden, "may not have the port 1004", "me", "c", port=1004)  # the server has not
        self.refused(forbidden, "may not have any port", "me", "c", port=0, allowed=NOTHING)
        self.refused(forbidden, "is the configuration's", "me", "static", "a.example")
        self.refused(
            forbidden, "may have 3 domains and ports", "me", "c", *(f"{n}.x.example" for n in "abcd")
        )
        self.claims.rules = Rules(http=False)
        self.refused(forbidden, "takes no domains", "me", "c", "a.example")
        self.refused(forbidden, "has no zone", "me", "c", subdomains=("a",))

    def test_what_somebody_has(self) -> None:
        taken = Status.ROUTE_TAKEN
        self.take("me", "c", "a.example", port=1000)
        self.refused(taken, "the cluster c is another agent's", "you", "c", "b.x.example")
        self.refused(taken, "the cluster c is another agent's", "you", "c")
        self.refused(taken, "a.example belongs to the cluster c", "you", "d", "a.example")
        self.refused(taken, "a.example belongs to the cluster c", "me", "d", "a.example")
        self.refused(taken, "port 1000 belongs to the cluster c", "you", "d", port=1000)
        self.refused(taken, "has other routes now", "me", "c", "b.x.example")
        self.refused(taken, "www.x.example is the configuration's", "me", "d", "www.x.example")
        self.take("you", "d", "d.x.example")
        self.take("them", "e", "e.x.example")
        self.refused(taken, "3 clusters of agents", "them", "f", "f.x.example")

    def test_the_same_again(self) -> None:
        claim = self.take("me", "c", "a.example", subdomains=("b",), port=0)
        again = self.take("me", "c", "b.x.example", "a.example", port=0)
        self.assertIs(claim, again)
        self.assertIs(self.take("me", "c", "a.example", "b.x.example", port=claim.port), claim)
        self.assertIs(self.take("me", "c"), claim)  # only joins
        self.assertEqual(claim.connections, 4)

    def test_any_port(self) -> None:
        claim = Claim("c", "me", port=0)
        self.assertEqual(self.claims.candidates(claim, MUCH), [1000, 1001, 1002, 1003])
        self.take("me", "c", port=1001)
        self.assertEqual(self.claims.candidates(Claim("d", "me", port=0), MUCH), [1000, 1002, 1003])
        self.assertEqual(self.claims.candidates(Claim("d", "me", port=1003), MUCH), [1003])

    def test_ending(self) -> None:
        claim = self.take("me", "c", "a.example", port=1000)
        self.take("me", "c", "a.example", port=1000)
        self.assertFalse(self.claims.let_go(claim, 5.0))
        self.assertIsNone(self.claims.next_end)
        self.assertTrue(self.claims.let_go(claim, 6.0))
        self.assertEqual(self.claims.next_end, 16.0)
        self.assertEqual(self.claims.expire(15.9), [])
        self.refused(Status.ROUTE_TAKEN, "belongs to", "you", "d", "a.example")
        self.take("me", "c", "a.example", port=1000)
        self.assertEqual(self.claims.expire(99.0), [])
        self.claims.let_go(claim, 100.0)
        self.assertEqual(self.claims.expire(110.0), [claim])
        self.assertEqual((len(self.claims), self.claims.next_end), (0, None))
        self.take("you", "d", "a.example", port=1000)

    def test_nothing_is_opened_twice(self) -> None:
        one, other = self.judge("me", "c", "a.example"), self.judge("me", "d", "a.example")
        assert isinstance(one, Claim)
        assert isinstance(other, Claim)
        self.claims.open(one)
        self.assertRaises(ValueError, self.claims.open, other)


class WireTests(SynchronousTestCase):
    def test_there_and_back(self) -> None:
        for request in (
            RouteRequest(),
            RouteRequest(("a", "*.b"), ("c",), 0),
            RouteRequest(port=22),
        ):
            made = Announcement.from_extra(Announcement("agent", routes=request).to_extra())
            assert made is not None
            self.assertEqual(made.routes, request)
        for given in (BroughtRoutes(), BroughtRoutes(("a",), 22)):
            answer = ServerAnnouncement.from_extra(ServerAnnouncement(routes=given).to_extra())
            assert answer is not None
            self.assertEqual(answer.routes, given)
        self.assertEqual(str(BroughtRoutes(("a", "b"), 22)), "a, b, port 22")

    def test_nothing_is_said_of_nothing(self) -> None:
        self.assertNotIn("routes", str(Announcement("agent").to_extra()))
        self.assertNotIn("routes", str(ServerAnnouncement().to_extra()))

    def test_what_is_not_well_formed(self) -> None:
        for routes in (
            [],
            "a",
            {"domains": "a"},
            {"domains": [1]},
            {"domains": [""]},
            {"domains": ["a" * 254]},
            {"domains": ["a\n"]},
            {"domains": ["a"] * 33},
            {"port": -1},
            {"port": 65536},
            {"port": True},
            {"port": "22"},
        ):
            self.assertRaises(ValueError, RouteRequest.from_part, {"routes": routes})
