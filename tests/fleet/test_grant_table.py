"""Tests for L{reverseproxy.fleet.grants} and L{reverseproxy.fleet.route_installer}."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as TooLate
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.fleet.grants import GrantTable
from reverseproxy.fleet.records import RouteRecord
from reverseproxy.fleet.route_installer import RouteInstaller, describe, matches
from reverseproxy.identity.allowance import Allowance
from reverseproxy.tunnel.server.claims import Claim, Claims, Denied, Rules
from reverseproxy.wire.mosn.frames import Status

MINE = RouteRecord("app", "here", "tunnels", "one", domains=("app.example",))
OTHER = RouteRecord("web", "there", "tunnels", "two", domains=("app.example",))


class GrantTableTests(SynchronousTestCase):
    """Grants are published, confirmed or lost, and withdrawn."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.published: dict[str, RouteRecord] = {}
        directory: Any = self
        self.grants = GrantTable(directory, self.clock)

    def publish_routes(self, record: RouteRecord) -> None:
        """Take the place of a directory."""
        self.published[record.cluster] = record

    def withdraw_routes(self, cluster: str) -> None:
        """Take the place of a directory."""
        del self.published[cluster]

    def propose(self) -> Deferred[RouteRecord | None]:
        return Deferred.fromCoroutine(self.grants.propose(MINE, self.clock.seconds() + 5.0))

    def test_confirmed(self) -> None:
        """A proposal is confirmed at once, and its owner told of it in the next turn."""
        proposed = self.propose()
        self.assertEqual(self.published, {"app": MINE})
        self.assertFalse(self.grants.is_confirmed(MINE))
        self.assertFalse(self.grants.reported(MINE, None))
        self.assertTrue(self.grants.is_confirmed(MINE))
        self.assertNoResult(proposed)
        self.clock.advance(0)
        self.assertIsNone(self.successResultOf(proposed))
        self.assertTrue(self.grants.precedes(OTHER))

    def test_conflict(self) -> None:
        """A proposal is not confirmed where another server was first; the proposer withdraws it."""
        proposed = self.propose()
        self.assertFalse(self.grants.reported(MINE, OTHER))
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(proposed), OTHER)
        self.assertFalse(self.grants.precedes(OTHER))
        self.grants.withdraw("app")
        self.grants.withdraw("app")
        self.assertEqual(self.published, {})

    def test_no_report(self) -> None:
        proposed = self.propose()
        self.clock.advance(4.9)
        self.assertNoResult(proposed)
        self.clock.advance(0.2)
        self.failureResultOf(proposed, TooLate)
        # A late report confirms what is still published.
        self.assertFalse(self.grants.reported(MINE, None))
        self.assertTrue(self.grants.is_confirmed(MINE))

    def test_report_of_another_record(self) -> None:
        """What is reported of a former record decides nothing."""
        self.grants.publish(MINE)
        former = RouteRecord("app", "here", "tunnels", "one", domains=("old.example",))
        self.assertFalse(self.grants.reported(former, OTHER))
        self.assertFalse(self.grants.reported(former, None))
        self.assertFalse(self.grants.is_confirmed(MINE))

    def test_lost(self) -> None:
        """Only a grant that is not confirmed can be lost: after the lease has ended, for example."""
        self.grants.publish(MINE)
        self.grants.reported(MINE, None)
        self.assertFalse(self.grants.reported(MINE, OTHER))
        self.grants.lease_lost()
        self.assertFalse(self.grants.precedes(OTHER))
        self.assertTrue(self.grants.reported(MINE, OTHER))

    def test_abandoned(self) -> None:
        """The proposer of what was abandoned hears nothing but that its time is up."""
        proposed = self.propose()
        self.grants.abandon("app")
        self.assertFalse(self.grants.reported(MINE, None))
        self.assertNotIn("app", self.grants)
        self.clock.advance(5.0)
        self.failureResultOf(proposed, TooLate)


class InstallerTests(SynchronousTestCase):
    """Routes are installed in listeners that agents may bring some to."""

    def setUp(self) -> None:
        self.objection = ""
        self.brought: list[tuple[Claim, bool]] = []
        self.removed: list[tuple[str, int]] = []
        self.claims = Claims(Rules(ports=Allowance.of((), ["3000"]), grace=7.0), lambda name: False)
        routes: Any = self
        listeners = {"tunnels": routes}
        self.installer = RouteInstaller(listeners.get, lambda record: self.objection)

    def bring(self, claim: Claim, shown: str, listen: None, again: bool) -> Denied | None:
        """Take the place of a listener's routes."""
        self.brought.append((claim, again))
        self.claims.open(claim)
        return None

    def take_away(self, cluster: str, serial: int) -> None:
        """Take the place of a listener's routes."""
        self.removed.append((cluster, serial))

    def test_installed(self) -> None:
        self.assertFalse(self.installer.has(MINE))
        self.assertIsNone(self.installer.install(MINE, remote=True))
        [(claim, again)] = self.brought
        self.assertTrue(matches(claim, MINE))
        self.assertTrue(again)
        self.assertTrue(self.installer.has(MINE))
        self.assertEqual(self.installer.grace(MINE), 7.0)
        self.installer.remove("tunnels", "app")
        self.assertEqual(self.removed, [("app", claim.serial)])

    def test_denied(self) -> None:
        """No listener, other routes of the cluster, a port that is not permitted, an objection."""
        elsewhere = RouteRecord("app", "there", "other", "one")
        denied = self.installer.install(elsewhere, remote=True)
        self.assertIs(denied and denied.status, Status.ROUTE_FORBIDDEN)
        self.assertEqual(self.installer.grace(elsewhere), 0.0)
        self.installer.remove("other", "app")
        port = RouteRecord("db", "there", "tunnels", "one", port=4000)
        denied = self.installer.install(port, remote=False)
        self.assertIn("4000", denied.reason if denied else "")
        self.objection = "not here"
        self.assertEqual(
            self.installer.install(MINE, remote=True), Denied(Status.ROUTE_FORBIDDEN, "not here")
        )
        self.assertIsNone(self.installer.install(MINE, remote=False), "what this server grants it has judged")
        other = RouteRecord("app", "there", "tunnels", "two", domains=("app.example",))
        denied = self.installer.install(other, remote=True)
        self.assertIs(denied and denied.status, Status.ROUTE_TAKEN)

    def test_described(self) -> None:
        self.assertEqual(describe(RouteRecord("app", "a", domains=("x.y",), port=1)), "x.y, port 1")
        self.assertEqual(describe(RouteRecord("app", "a")), "nothing")
