"""Tests for L{reverseproxy.metrics}."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.metrics import (
    DURATION_BOUNDS,
    OTHER,
    UNCOUNTED,
    AgentFigures,
    Destination,
    EndedRequest,
    Histogram,
    Journal,
    RequestTally,
    TunnelTally,
)
from reverseproxy.metrics.accounts import MAX_SHARES
from reverseproxy.metrics.counts import MAX_CELLS, MAX_REFUSALS, leave_reason
from reverseproxy.metrics.latency import classes_of, times_of
from tests.metrics.by_hand import Ended, check


class HistogramTests(SynchronousTestCase):
    def test_buckets(self) -> None:
        """A bound belongs to its own bucket, and what is beyond all bounds has one too."""
        histogram = Histogram((0.1, 1.0))
        for seconds in (0.0, 0.1, 0.11, 1.0, 99.0):
            histogram.note(seconds)
        self.assertEqual(histogram.counts, [2, 2, 1])
        self.assertApproximates(histogram.total, 100.21, 1e-9)

    def test_a_clock_that_is_set_back(self) -> None:
        """A sum that shrinks would be a restart to Prometheus."""
        histogram = Histogram((0.1, 1.0))
        histogram.note(-3.0)
        self.assertEqual((histogram.counts, histogram.total), ([1, 0, 0], 0.0))


class Counted:
    """A host, which an agent may have brought."""

    def __init__(self, figures: AgentFigures | None) -> None:
        self.counters = UNCOUNTED if figures is None else figures.own

    @property
    def figures(self) -> AgentFigures | None:
        return self.counters.agent


def note(
    tally: RequestTally,
    place: Destination | None,
    agent: AgentFigures | None,
    status: int,
    seconds: float,
    received: int,
    sent: int,
) -> None:
    """Count a request that has taken so long."""
    host = None if agent is None else Counted(agent)
    tally.end(EndedRequest(place, host, status, 0.0, received, sent), seconds)


class RequestTallyTests(SynchronousTestCase):
    def test_notes(self) -> None:
        tally = RequestTally("front")
        blue = Destination("blue", "all", "all[0]")
        note(tally, blue, None, 200, 0.002, 3, 40)
        note(tally, blue, None, 503, 99.0, 1, 2)
        note(tally, None, None, 0, 0.0, 0, 0)
        cell = tally.cells["blue", "all", "all[0]"]
        self.assertEqual(classes_of(cell.total.ends), {2: 1, 5: 1})
        self.assertEqual((cell.total.received, cell.total.sent), (4, 42))
        self.assertEqual(sum(cell.total.durations.counts), 2)
        self.assertEqual(cell.total.durations.counts[-1], 1)
        self.assertEqual(cell.total.durations.counts[DURATION_BOUNDS.index(0.0025)], 1)
        self.assertEqual(classes_of(tally.cells["", "", ""].total.ends), {0: 1})

    def test_any_status(self) -> None:
        """Three digits are three digits; what a protocol of ours made of more is none."""
        tally = RequestTally("front")
        for status in (999, 100, 100000):
            note(tally, tally.place("blue"), None, status, 0.0, 0, 0)
        self.assertEqual(classes_of(tally.cells["blue", "", ""].total.ends), {9: 1, 1: 1, 0: 1})

    def test_a_clock_that_is_set_back(self) -> None:
        """Whatever ends before it has begun has taken no time."""
        tally, agent = RequestTally("front"), AgentFigures()
        for seconds in (-1e-6, -1.5e-5, -0.003, -0.05, -0.0999, -0.2, -3600.0):
            for status in (200, 503):
                note(tally, Destination("blue"), agent, status, seconds, 0, 0)
        cell = tally.cells["blue", "", ""]
        for ends in (cell.total.ends, agent.total.ends):
            self.assertEqual((times_of(ends)[0], classes_of(ends)), (14, {2: 7, 5: 7}))
        self.assertEqual(cell.total.durations.total, 0.0)

    def test_cells_are_bounded(self) -> None:
        """Routes may name clusters by what requests say."""
        tally = RequestTally("front")
        for number in range(MAX_CELLS + 50):
            place = Destination(f"cluster-{number}")
            note(tally, place, None, 200, 0.0, 0, 0)
            tally.fail(place, None, 1, "a reason", 17.0)
        self.assertEqual(len(tally.cells), MAX_CELLS + 1)
        self.assertEqual(classes_of(tally.cells[OTHER, OTHER, ""].total.ends), {2: 50})
        self.assertEqual((len(tally.errors), tally.errors[OTHER, 1]), (MAX_CELLS + 1, 50))

    def test_equal_places(self) -> None:
        """Routes that a request names are made anew: they are the same all the same."""
        tally = RequestTally("front")
        for cluster in ("blue", "green", "blue"):
            note(tally, Destination(cluster, "all", "all[0]"), None, 200, 0.0, 0, 0)
        self.assertEqual(classes_of(tally.cells["blue", "all", "all[0]"].total.ends), {2: 2})

    def test_agents(self) -> None:
        """What an agent has had is counted for it as well, whichever rule it came by."""
        tally, agent = RequestTally("front"), AgentFigures()
        note(tally, Destination("blue"), agent, 200, 0.002, 3, 40)
        note(tally, Destination("green"), agent, 502, 0.004, 0, 2)
        tally.fail(Destination("green"), agent, 2, "it" * 1000, 17.0)
        self.assertEqual(classes_of(agent.total.ends), {2: 1, 5: 1})
        self.assertEqual((agent.total.received, agent.total.sent), (3, 42))
        assert agent.last_error is not None
        self.assertEqual((agent.last_error[0], len(agent.last_error[1])), (17.0, 300))
        other = AgentFigures()
        other.add(agent)
        other.add(agent)
        self.assertEqual((classes_of(other.total.ends), other.total.received), ({2: 2, 5: 2}, 6))


class SharedCountersTests(SynchronousTestCase):
    """Whatever rules and agents have in common, each knows all of its requests, and counts none twice."""

    def test_the_first_request(self) -> None:
        """A request that no rule takes counts even if there was no other before."""
        tally = RequestTally("front")
        note(tally, None, None, 404, 0.0, 0, 0)
        self.assertEqual(classes_of(tally.cells["", "", ""].total.ends), {4: 1})

    def test_any_order(self) -> None:
        """More rules and agents than can share counters, on two listeners, some of which leave meanwhile."""
        random = Random(7)
        places = [Destination("blue", "all", f"all[{number}]") for number in range(MAX_SHARES + 5)]
        tallies = [RequestTally("front"), RequestTally("back")]
        agents = [AgentFigures() for _ in range(MAX_SHARES + 5)]
        hosts = [Counted(agent) for agent in (None, *agents, *agents)]
        by_rule: dict[tuple[int, str], list[Ended]] = {}
        by_agent: dict[AgentFigures, list[Ended]] = {}
        left: list[AgentFigures] = []
        for turn in range(5000):
            where, place, host = random.randrange(2), random.choice(places), random.choice(hosts)
            agent = host.figures
            ended = Ended(
                random.choice((200, 200, 200, 404, 503, 0)),
                random.choice((0.0, 0.002, 0.05, 0.3)),
                random.choice((0, 5)),
                random.choice((0, 7)),
            )
            record = EndedRequest(place, host, ended.status, 0.0, ended.received, ended.sent)
            tallies[where].end(record, ended.seconds)
            by_rule.setdefault((where, place.route), []).append(ended)
            if agent is None:
                continue
            by_agent.setdefault(agent, []).append(ended)
            if turn % 100 == 99:
                agent.leave()  # requests to its hosts go on to end, and count for their rules
                hosts.append(Counted(AgentFigures()))
                left.append(agent)
        for (where, route), wanted in by_rule.items():
            cell = tallies[where].cells["blue", "all", route]
            check(self, cell.total, wanted)
            self.assertLessEqual(len(cell.shares), MAX_SHARES)
        for agent, wanted in by_agent.items():
            check(self, agent.total, wanted)
            self.assertLessEqual(len(agent.shares), 0 if agent in left else MAX_SHARES)

    def test_agents_that_leave_make_room(self) -> None:
        tally, place = RequestTally("front"), Destination("blue")
        left = [AgentFigures() for _ in range(MAX_SHARES)]
        for agent in left:
            note(tally, place, agent, 200, 0.002, 0, 1)
        late, later = AgentFigures(), AgentFigures()
        note(tally, place, late, 200, 0.002, 0, 1)
        cell = tally.cells["blue", "", ""]
        self.assertEqual((len(cell.shares), len(late.shares)), (MAX_SHARES, 0))
        for agent in left:
            agent.leave()
            self.assertEqual((classes_of(agent.total.ends), agent.total.sent), ({2: 1}, 1))
        note(tally, place, later, 200, 0.002, 0, 1)
        self.assertEqual((list(cell.shares), list(later.shares)), ([later], [cell]))
        self.assertEqual(
            (classes_of(cell.total.ends), cell.total.sent), ({2: MAX_SHARES + 2}, MAX_SHARES + 2)
        )


class TunnelTallyTests(SynchronousTestCase):
    def test_reasons(self) -> None:
        for reason, expected in (
            ("the agent leaves", "agent_left"),
            ("connection lost: the other end closed the connection", "agent_closed"),
            ("connection lost: no answer to a ping", "connection_lost"),
            ("kicked by ops", "operator"),
            ("stopping", "server_stopping"),
            ("the server stops", "server_stopping"),
            ("the server is about to leave", "server_stopping"),
            ("revoked: its token is unknown", "revoked"),
            ("a very special reason", OTHER),
        ):
            self.assertEqual(leave_reason(reason), expected)

    def test_counts(self) -> None:
        tally = TunnelTally()
        tally.joined("blue")
        tally.joined("blue")
        tally.joined("", "failed")
        tally.left("blue", "the agent leaves")
        self.assertEqual(tally.joins, {("blue", "accepted"): 2, ("", "failed"): 1})
        self.assertEqual(tally.leaves, {("blue", "agent_left"): 1})
        for number in range(MAX_REFUSALS + 1):
            tally.refusals.append({"n": number})
        self.assertEqual((len(tally.refusals), tally.refusals[0]["n"]), (MAX_REFUSALS, 1))


class JournalTests(SynchronousTestCase):
    def test_since(self) -> None:
        journal = Journal(lambda: 17.0, most=3)
        self.assertEqual(journal.since(0), [])
        for number in range(1, 6):
            journal.add("join", n=number)
        self.assertEqual([each["id"] for each in journal.since(0)], [3, 4, 5])
        self.assertEqual([each["id"] for each in journal.since(4)], [5])
        self.assertEqual(journal.since(5), [])
        self.assertEqual(journal.since(99), [])
        self.assertEqual([each["id"] for each in journal.since(0, 2)], [3, 4])
        self.assertEqual(journal.since(4), [{"id": 5, "time": 17.0, "kind": "join", "n": 5}])
