"""Tests for L{reverseproxy.tunnel.server.joining} and L{reverseproxy.tunnel.server.graceful_closes}."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.interfaces import ConnectionInfo, Identity
from reverseproxy.tunnel.handshake import Accepted, Hangup, Refusal
from reverseproxy.tunnel.server.graceful_closes import MOST_FUTILE_CLOSES, GracefulCloses
from reverseproxy.tunnel.server.joining import JoinAttempt
from reverseproxy.wire.mosn.extensions import Announcement
from reverseproxy.wire.mosn.frames import ConnectionInit, GracefulClose, Status
from tests.tunnel import test_server

INFO = ConnectionInfo("10.0.0.1:5", "10.0.0.2:6")
OURS = ConnectionInit("blue", extra=Announcement("agent-1").to_extra())


class JoinTests(SynchronousTestCase):
    setUp = test_server.ServerTests.setUp
    server: Any = test_server.ServerTests.server

    def attempt(self, server: Any, init: ConnectionInit = OURS) -> tuple[JoinAttempt, Deferred[Any]]:
        attempt = JoinAttempt(server, INFO, "10.0.0.1", init)
        return attempt, Deferred.fromCoroutine(attempt.decide())

    def test_quota(self) -> None:
        """A place is taken until it is released, or somebody else sees to it."""
        server = self.server(max_hosts_per_address=1)
        first, verdict = self.attempt(server)
        self.assertIsInstance(self.successResultOf(verdict), Accepted)
        second, verdict = self.attempt(server)
        refusal = self.successResultOf(verdict)
        self.assertIsInstance(refusal, Refusal)
        self.assertEqual(refusal.result, "too_many")
        second.release()
        first.release()
        first.release()
        third, verdict = self.attempt(server, ConnectionInit("blue"))
        self.assertIsInstance(self.successResultOf(verdict), Accepted)
        place = third.take_place()
        third.release()
        _, verdict = self.attempt(server, ConnectionInit("blue"))
        self.assertIsInstance(self.successResultOf(verdict), Hangup)
        server.quotas.give_back(place)

    def test_departure(self) -> None:
        server = self.server()
        server.leave(2.0)
        refusal = self.successResultOf(self.attempt(server)[1])
        self.assertEqual((refusal.retry_after, refusal.result), (2.0, "leaving"))
        hangup = self.successResultOf(self.attempt(server, ConnectionInit("blue"))[1])
        self.assertEqual(hangup, Hangup("the server is about to leave", "leaving"))

    def test_abandoned(self) -> None:
        """No further step is taken, wherever it waits."""
        server = self.server(max_joins_per_second=1, credential_policy="judge", max_hosts_per_address=9)
        self.judge.verdict = late = Deferred[Identity]()
        init = ConnectionInit("blue", credential_policy="judge", extra=OURS.extra)
        attempt, verdict = self.attempt(server, init)
        attempt.abandon()
        late.callback(Identity("anna"))
        self.assertIsNone(self.successResultOf(verdict))
        self.assertIsNone(attempt.identity)
        self.judge.verdict = Identity("anna")
        self.assertIsInstance(self.successResultOf(self.attempt(server, init)[1]), Accepted)
        attempt, verdict = self.attempt(server, init)
        self.assertNoResult(verdict)
        attempt.abandon()
        self.clock.advance(1)
        self.assertIsNone(self.successResultOf(verdict))
        attempt.release()

    def test_kept_out_while_it_waits(self) -> None:
        """An operator has decided that in the meantime: it takes no place."""
        server = self.server(max_joins_per_second=1)
        init = ConnectionInit("blue", extra=OURS.extra)
        self.assertIsInstance(self.successResultOf(self.attempt(server, init)[1]), Accepted)
        attempt, verdict = self.attempt(server, init)
        self.assertNoResult(verdict)
        server.exclusions.exclude(("address", "10.0.0.1"), 90.0, "banned by ops")
        self.clock.advance(1)
        self.assertEqual(self.successResultOf(verdict).result, "banned")
        attempt.release()

    def test_the_server_begins_to_leave_while_it_waits(self) -> None:
        server = self.server(max_joins_per_second=1)
        for init in (OURS, ConnectionInit("blue")):
            server.departure = None
            self.clock.advance(9)
            self.assertIsInstance(self.successResultOf(self.attempt(server, init)[1]), Accepted)
            attempt, verdict = self.attempt(server, init)
            self.assertNoResult(verdict)
            server.leave(2.0)
            self.clock.advance(1)
            self.assertEqual(self.successResultOf(verdict).result, "leaving")
            attempt.release()

    def test_until_it_is_known_who_is_kept_out(self) -> None:
        """As in a fleet, whose other servers have to be asked first."""
        server = self.server()
        known = [Deferred[None](), Deferred[None]()]
        server.exclusions.until_known = iter(known).__next__
        _, verdict = self.attempt(server)
        other, never = self.attempt(server)
        self.assertNoResult(verdict)
        server.exclusions.exclude(("address", "10.0.0.1"), 90.0, "banned by ops")
        other.abandon()
        for each in known:
            each.callback(None)
        self.assertEqual(self.successResultOf(verdict).result, "banned")
        self.assertIsNone(self.successResultOf(never))

    def test_identity(self) -> None:
        """It is known once it is proved, whether or not the agent may join."""
        server = self.server(max_hosts_per_address=1)
        self.attempt(server)
        self.judge.verdict = Identity("anna")
        attempt, verdict = self.attempt(server, ConnectionInit("blue", credential_policy="judge"))
        self.assertIsInstance(self.successResultOf(verdict), Hangup)
        assert attempt.identity is not None
        self.assertEqual(attempt.identity.principal, "token:anna")

    def test_routes_where_there_are_none(self) -> None:
        from reverseproxy.wire.mosn.route_requests import RouteRequest

        extra = Announcement("agent-1", routes=RouteRequest(domains=("a.example.com",))).to_extra()
        refusal = self.successResultOf(self.attempt(self.server(), ConnectionInit("blue", extra=extra))[1])
        self.assertEqual(refusal.status, Status.ROUTE_FORBIDDEN)

    def test_outdated(self) -> None:
        server = self.server()
        attempt, _ = self.attempt(server)
        self.assertFalse(attempt.outdated)
        server.revocations.review(credentials=True)
        self.assertTrue(attempt.outdated)


class CloseTests(SynchronousTestCase):
    setUp = test_server.ServerTests.setUp
    server: Any = test_server.ServerTests.server

    def close(self, closes: GracefulCloses) -> Deferred[str]:
        return Deferred.fromCoroutine(closes.carry_out(GracefulClose(("10.0.0.9:9",), "blue")))

    def test_futile(self) -> None:
        closes = GracefulCloses(self.server(), INFO, "10.0.0.1")
        reasons = [self.successResultOf(self.close(closes)) for _ in range(MOST_FUTILE_CLOSES)]
        self.assertEqual(
            reasons,
            [""] * (MOST_FUTILE_CLOSES - 1) + ["its graceful closes name no connection of its own"],
        )

    def test_other_workers(self) -> None:
        """What another worker has closed was not in vain."""
        server = self.server()
        later = Deferred[set[str]]()
        server.workers.evict_elsewhere = lambda *asked: later
        closes = GracefulCloses(server, INFO, "10.0.0.1")
        closed = self.close(closes)
        self.assertNoResult(closed)
        later.callback({"10.0.0.9:9"})
        self.assertEqual((self.successResultOf(closed), closes._futile), ("", 0))

    def test_abandoned(self) -> None:
        server = self.server()
        closes = GracefulCloses(server, INFO, "10.0.0.1")
        closes.abandon()
        self.assertEqual((self.successResultOf(self.close(closes)), closes._futile), ("", 0))
