"""Long work in short turns: the hosts of a server when its link is made, and when it is lost."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.cluster.building import make_cluster
from reverseproxy.cluster.manager import ClusterManager
from reverseproxy.config.models import ClusterConfig
from reverseproxy.fleet.records import ServerRecord
from reverseproxy.fleet.remote_hosts import RemoteHosts
from reverseproxy.fleet.traffic import Traffic
from reverseproxy.fleet.work_queue import AT_ONCE, WorkQueue
from tests.fleet.test_view import host


class OneTurn(Clock):
    """A clock of which one turn of the reactor at a time can be taken."""

    def turn(self) -> None:
        """Do what is due now, and nothing that is due because of that."""
        due = list(self.calls)
        self.calls.clear()
        for call in due:
            call.called = 1
            call.func(*call.args, **call.kw)


class TurnsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = OneTurn()
        self.turns = WorkQueue(self.clock)
        self.done: list[Any] = []

    def test_some_at_once(self) -> None:
        """And the others in their order, behind which new ones come."""
        self.turns.add(self.done.append, range(2 * AT_ONCE + 1))
        self.assertEqual(self.done, list(range(AT_ONCE)))
        self.turns.add(self.done.append, "ab")
        self.clock.turn()
        self.clock.turn()
        self.assertEqual(self.done, [*range(2 * AT_ONCE + 1), "a", "b"])
        self.assertEqual(self.clock.calls, [])
        self.turns.add(self.done.append, "c")
        self.assertEqual(self.done[-1], "c")

    def test_added_by_a_step(self) -> None:
        def step(item: str) -> None:
            self.done.append(item)
            if item == "a":
                self.turns.add(step, "xy")

        self.turns.add(step, "ab")
        self.assertEqual(self.done, ["a", "b", "x", "y"])

    def test_finished_by_a_step(self) -> None:
        """Each is taken once."""

        def step(item: int) -> None:
            self.done.append(item)
            if item == 1:
                self.turns.finish()

        self.turns.add(step, range(3 * AT_ONCE))
        self.assertEqual(self.done, list(range(3 * AT_ONCE)))
        self.turns.add(step, [7])
        self.assertEqual(self.done[-1], 7)
        self.assertEqual(self.clock.calls, [])

    def test_cleared_by_a_step(self) -> None:
        def step(item: int) -> None:
            self.done.append(item)
            self.turns.clear()

        self.turns.add(step, range(3))
        self.assertEqual(self.done, [0])

    def test_step_that_fails(self) -> None:
        """It costs itself."""

        def step(item: int) -> None:
            self.done.append(item)
            if item == 1:
                raise RuntimeError

        self.assertRaises(RuntimeError, self.turns.add, step, range(4))
        self.clock.turn()
        self.assertEqual(self.done, [0, 1, 2, 3])


class _Link:
    usable = True
    leaving = False
    server = "alpha"
    problem = ""
    record = ServerRecord("alpha", "127.0.0.1:1")


class LostLinkTests(SynchronousTestCase):
    """A server with many agents, and the link to it."""

    def setUp(self) -> None:
        self.clock = OneTurn()
        self.link: Any = _Link()
        clusters = ClusterManager()
        self.cluster = make_cluster(ClusterConfig(name="orders"), self.clock, Random(1))
        clusters.add(self.cluster)
        self.remote = RemoteHosts(clusters, self.clock, Traffic())
        links: Any = self
        self.remote.links = links
        self.remote.share(self.cluster)
        self.remote.server_came(self.link.record)
        self.hosts = [host("alpha", agent=f"{number:032x}") for number in range(5 * AT_ONCE)]
        for each in self.hosts:
            self.remote.host_came(each)
        self.assertEqual(len(self.cluster.hosts), len(self.hosts))

    def add(self, server: ServerRecord) -> None:
        """See L{reverseproxy.fleet.outgoing_links.OutgoingLinks}."""

    def get(self, server: str) -> Any:
        """See L{reverseproxy.fleet.outgoing_links.OutgoingLinks}."""
        return self.link

    def lose(self) -> None:
        """Lose the link."""
        self.link.usable = False
        self.remote.link_down(self.link, "lost")

    def test_in_turns(self) -> None:
        self.lose()
        for turn in range(5):
            self.assertEqual(len(self.cluster.hosts), (4 - turn) * AT_ONCE)
            self.clock.turn()
        self.assertEqual(self.remote.hosts, {})

    def test_their_number(self) -> None:
        """It is known without a look at all of them, however they leave."""
        first, second, third, *_ = self.hosts
        number = len(self.hosts)
        self.assertEqual((self.remote.number_of("alpha"), self.remote.number_of("beta")), (number, 0))
        self.remote.host_left(first, "gone")
        self.cluster.remove_host(self.remote.hosts[second.key], "by itself")
        self.remote.link_message(
            self.link, {"gone": True, "cluster": third.key.cluster, "agent": third.key.agent}
        )
        self.remote.host_left(third, "gone")
        self.assertEqual(self.remote.number_of("alpha"), number - 3)
        self.remote.stop()
        self.assertEqual((self.remote.number_of("alpha"), self.remote._numbers), (0, {}))

    def test_looks_at_all_of_them_do_not_pile_up(self) -> None:
        """One that has not begun sees everything; behind the one that goes on, there is one at the most."""
        looked: list[Any] = []
        self.remote._objection = lambda record: looked.append(record) or ""
        for _ in range(50):
            self.remote.review()
            self.remote.link_message(self.link, {"leaving": True})
        turns = 0
        while self.clock.calls:
            self.clock.turn()
            turns += 1
        self.assertEqual(len(looked), 2 * len(self.hosts))
        self.assertLess(turns, 25)
        self.remote.review()
        while self.clock.calls:
            self.clock.turn()
        self.assertEqual(len(looked), 3 * len(self.hosts))

    def test_back_while_they_are_removed(self) -> None:
        """All of them are there again, and what was said of them before does not count."""
        key = self.hosts[-1].key
        names = {"cluster": key.cluster, "agent": key.agent}
        self.remote.link_message(self.link, {"gone": True, **names})
        self.lose()
        self.clock.turn()
        self.link.usable = True
        self.remote.link_up(self.link)
        self.remote.link_message(self.link, {"well": False, **names})
        for _ in range(12):
            self.clock.turn()
        self.assertEqual(set(self.remote.hosts), {each.key for each in self.hosts})
        self.assertFalse(self.remote.hosts[key].health.service_up)
        self.assertEqual(len(self.cluster.hosts), len(self.hosts))
