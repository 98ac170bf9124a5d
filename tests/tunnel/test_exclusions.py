"""Tests for L{reverseproxy.tunnel.server.exclusions}."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.identity import AgentIdentity, CertificateSubject
from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.tunnel.handshake import Accepted, Hangup, Principal, Refusal
from reverseproxy.tunnel.server.exclusion_records import MOST_IDS, Exclusion, Lifted, id_of, target_of
from reverseproxy.tunnel.server.exclusions import LONGEST_ABSENCE, MOST, Exclusions
from reverseproxy.wire.mosn.extensions import Announcement
from tests.tunnel.logged import capture

SUBJECT = CertificateSubject("x509:ab", "CN=edge")
TOKEN = AgentIdentity("edge", "static", SUBJECT, "box", "aaaaaaaaaaaa", 1)


class ExclusionsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.exclusions = Exclusions(self.clock.seconds)

    def test_targets(self) -> None:
        """The strongest thing that is known counts; a process only if that is asked for."""
        self.assertEqual(target_of(TOKEN, "10.0.0.1"), ("token", "static", "edge"))
        self.assertEqual(target_of(TOKEN, "10.0.0.1", process=True), ("process", "aaaaaaaaaaaa"))
        self.assertEqual(
            target_of(AgentIdentity(certificate=SUBJECT), "10.0.0.1"), ("certificate", "x509:ab")
        )
        claimed = AgentIdentity(claim="edge")
        self.assertEqual(target_of(claimed, "10.0.0.1", process=True), ("address", "10.0.0.1"))

    def test_who_is_kept_out(self) -> None:
        self.exclusions.exclude(("token", "static", "edge"), 10.0, "banned by ops")
        self.assertEqual(self.exclusions.find(TOKEN, "10.0.0.1"), (10.0, "banned by ops"))
        self.assertEqual(self.exclusions.find(TOKEN, "10.9.9.9"), (10.0, "banned by ops"))
        self.assertIsNone(self.exclusions.find(AgentIdentity("edge", "other"), "10.0.0.1"))
        self.assertIsNone(self.exclusions.find(AgentIdentity(claim="edge"), "10.0.0.1"))
        self.clock.advance(9.5)
        found = self.exclusions.find(TOKEN, "10.0.0.1")
        assert found is not None
        self.assertApproximates(found[0], 0.5, 1e-9)
        self.clock.advance(0.5)
        self.assertIsNone(self.exclusions.find(TOKEN, "10.0.0.1"))

    def test_an_agent_that_proves_more_than_it_is_known_by(self) -> None:
        """Who is kept out by certificate or address does not get in with a token."""
        for target in (("certificate", "x509:ab"), ("address", "10.0.0.1"), ("process", "aaaaaaaaaaaa")):
            self.exclusions.exclude(target, 10.0, "x")
            self.assertIsNotNone(self.exclusions.find(TOKEN, "10.0.0.1"), target)
            self.assertTrue(self.exclusions.lift(target))
            self.assertIsNone(self.exclusions.find(TOKEN, "10.0.0.1"))
            self.assertFalse(self.exclusions.lift(target))

    def test_bound(self) -> None:
        for number in range(MOST):
            self.exclusions.exclude(("address", str(number)), 10.0, "x")
        self.exclusions.exclude(("address", "5"), 20.0, "once more")
        with self.assertRaisesRegex(ValueError, "there are 1000 bans already"):
            self.exclusions.exclude(("address", "x"), 10.0, "x")
        self.clock.advance(10)
        self.exclusions.exclude(("address", "x"), 10.0, "x")
        self.assertEqual(len(self.exclusions), 2)

    def test_refusals(self) -> None:
        """An agent of ours is told when to ask again; one of MOSN's is cut off."""
        info = ConnectionInfo("10.0.0.1:5", "10.0.0.2:6")
        ours = Accepted("c", "", 1, Principal("static", "edge"), Announcement("a"), used_policy="static")
        mosns = Accepted("c", "", 1, None, None)
        self.assertIsNone(self.exclusions.refuse(ours, info))
        for target in (("token", "static", "edge"), ("address", "10.0.0.1")):
            self.exclusions.exclude(target, 90.0, "banned by ops")
        refusal = self.exclusions.refuse(ours, info)
        assert isinstance(refusal, Refusal)
        self.assertEqual((refusal.retry_after, refusal.result), (LONGEST_ABSENCE, "banned"))
        reason = "banned by ops; the ban ends in 90 s"
        self.assertEqual(self.exclusions.refuse(mosns, info), Hangup(reason, "banned"))
        self.clock.advance(80)
        refusal = self.exclusions.refuse(ours, info)
        assert isinstance(refusal, Refusal)
        self.assertEqual(refusal.retry_after, 10.0)


EDGE = ("token", "static", "edge")


class DecisionTests(SynchronousTestCase):
    """What has been decided, here and elsewhere, and what comes of it."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.exclusions = Exclusions(self.clock.seconds)
        self.said: list[object] = []
        self.changes: list[tuple[object, bool]] = []
        self.exclusions.on_excluded = self.exclusions.on_lifted = self.said.append
        self.exclusions.on_change = lambda change, decided: self.changes.append((change, decided))

    def exclude(self, number: str, seconds: float = 60.0, agent: str = "") -> None:
        self.exclusions.exclude(EDGE, seconds, "banned by ops", number, agent)

    def heard(self, *ids: str, seconds: float = 60.0, agents: tuple[str, ...] = ()) -> bool:
        until = self.clock.seconds() + seconds
        return self.exclusions.heard(Exclusion(EDGE, until, "banned by ops at server b", ids, agents))

    def lifted(self, *ids: str, seconds: float = 60.0) -> list[Exclusion]:
        return self.exclusions.heard_lifted(Lifted(ids, self.clock.seconds() + seconds))

    def ids(self) -> list[tuple[str, ...]]:
        return [each.ids for each in self.exclusions]

    def test_only_what_counts_is_counted(self) -> None:
        self.exclude("1")
        self.assertEqual(len(self.exclusions), 1)
        self.clock.advance(60)
        self.assertEqual(len(self.exclusions), 0)

    def test_what_is_known_changes_nothing(self) -> None:
        """Neither what has come meanwhile, nor how long it counts."""
        self.exclude("1")
        self.heard("2", seconds=300)
        self.said.clear()
        self.exclude("1", 10)
        [found] = self.exclusions
        self.assertEqual((found.until, found.ids), (300.0, ("1", "2")))
        self.assertEqual(self.said, [])

    def test_what_was_lifted_does_not_come_back(self) -> None:
        self.heard("1")
        self.lifted("1")
        self.exclude("1")
        self.assertEqual((self.ids(), self.said), ([], []))
        self.assertFalse(self.heard("1"))
        self.exclude("2")
        self.assertEqual(self.ids(), [("2",)])

    def test_lifted_before_it_is_heard(self) -> None:
        """By another way, who has let somebody in is sooner here than who has kept it out."""
        self.assertEqual(self.lifted("1"), [])
        self.assertFalse(self.heard("1"))
        self.clock.advance(61)
        self.assertEqual(self.exclusions.lifted, [])

    def test_a_ban_and_a_lift_that_cross(self) -> None:
        """What was decided besides stays; where it was lifted, it counts as soon as that is heard."""
        self.exclude("1")
        self.exclude("2")
        self.assertEqual(self.lifted("1"), [])
        self.assertEqual(self.ids(), [("2",)])
        [ended] = self.lifted("2")
        self.assertEqual((ended.target, self.ids()), (EDGE, []))
        other = Exclusions(self.clock.seconds)
        other.heard(Exclusion(EDGE, 60.0, "banned by ops", ("1",)))
        other.lift(EDGE)
        self.assertTrue(other.heard(Exclusion(EDGE, 60.0, "banned by ops", ("1", "2"))))
        self.assertEqual([each.ids for each in other], [("2",)])

    def test_any_of_its_agents_is_let_in(self) -> None:
        """Of a token whose agents were banned one after the other, at different servers."""
        self.exclude("1", agent="x")
        self.heard("2", agents=("y",))
        [found] = self.exclusions
        self.assertEqual(found.agents, ("x", "y"))
        self.assertFalse(self.exclusions.lift_agent("z"))
        self.assertTrue(self.exclusions.lift_agent("x"))
        self.assertEqual(self.said[-1], Lifted(("1", "2"), 60.0))
        self.exclude("3", agent="x")
        self.heard("4", agents=("y",))
        self.assertTrue(self.exclusions.lift_agent("y"))

    def test_bounds(self) -> None:
        """Of one target the last decisions are known; of all that were lifted, too, and that is said once."""
        for number in range(MOST_IDS + 5):
            self.exclude(str(number), agent=f"a{number}")
        [found] = self.exclusions
        self.assertEqual((len(found.ids), found.ids[0], found.ids[-1]), (MOST_IDS, "5", "68"))
        self.assertEqual((len(found.agents), found.agents[-1]), (MOST_IDS, "a68"))
        with capture() as events:
            for number in range(MOST + 5):
                self.lifted(f"l{number}")
        [line] = [each for each in events.text().splitlines() if "were lifted before their end" in each]
        self.assertIn("more than 1000", line)
        known = [each for portion in self.exclusions.lifted for each in portion.ids]
        self.assertEqual((len(known), known[0], known[-1]), (MOST, "l5", "l1004"))
        self.assertTrue(all(len(each.ids) <= MOST_IDS for each in self.exclusions.lifted))

    def test_what_other_processes_have_to_know(self) -> None:
        self.exclude("1")
        self.heard("2")
        self.heard("2")
        self.lifted("1")
        self.lifted("1")
        self.exclusions.lift(EDGE)
        self.assertEqual([decided for _, decided in self.changes], [True, False, False, True])
        self.assertEqual(len(self.said), 2)

    def test_what_another_process_has_heard(self) -> None:
        """Other servers hear from here what was decided there, and nothing else."""
        new: list[Exclusion] = []
        self.exclusions.on_new = new.append
        first = Exclusion(EDGE, 60.0, "banned by ops", ("1",))
        second = Exclusion(("address", "::1"), 60.0, "banned by ops", ("2",))
        self.assertTrue(self.exclusions.take(first, True))
        self.assertFalse(self.exclusions.take(first, True))
        self.assertTrue(self.exclusions.take(second, False))
        self.assertEqual(new, [first, second])
        self.assertTrue(self.exclusions.take(Lifted(("2",), 60.0), False))
        self.assertTrue(self.exclusions.take(Lifted(("1",), 60.0), True))
        self.assertFalse(self.exclusions.take(Lifted(("1",), 60.0), True))
        self.assertEqual(self.said, [first, Lifted(("1",), 60.0)])
        self.assertEqual((len(self.exclusions), self.changes), (0, []))

    def test_what_they_are_called(self) -> None:
        """By whom they are about, so that all servers call them the same."""
        self.exclude("1")
        [found] = self.exclusions
        self.assertEqual((found.id, len(found.id)), (id_of(["token", "static", "edge"]), 16))
        self.assertEqual((found.who, found.at_once), ("ops", True))
        drained = Exclusion(("process", "x"), 1.0, "drained by ops at server b", ("1",))
        self.assertEqual((drained.who, drained.at_once), ("ops at server b", False))
        again = Exclusion.from_json(found.to_json(20.0), 120.0)
        self.assertEqual((again.until, again.ids, again.target), (160.0, found.ids, found.target))
