"""Tests for L{reverseproxy.cluster.health.service_health}."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.cluster.balancers.round_robin import RoundRobinBalancer
from reverseproxy.cluster.health.service_health import DOUBT, MANY, TOGETHER, ServiceHealth
from reverseproxy.cluster.host import Fault, Host
from reverseproxy.cluster.manager import Cluster
from reverseproxy.config.models import ClusterConfig
from reverseproxy.interfaces import PickContext
from tests.cluster.fakes import FakeHost


class WellnessCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.cluster = Cluster(ClusterConfig(name="edge"), RoundRobinBalancer(), self.clock)
        self.hosts = [FakeHost(f"h{number}") for number in range(3)]
        for host in self.hosts:
            self.cluster.add_host(host)

    def say(self, well: bool, *numbers: int) -> None:
        for number in numbers:
            self.cluster.service_health.report(self.hosts[number], well)

    def picks(self) -> set[str]:
        picked = [self.cluster.acquire() for _ in range(12)]
        for host in picked:
            assert host is not None
            self.cluster.release(host)
        return {host.address for host in picked if host is not None}


class SaidTests(WellnessCase):
    def test_left_out_until_it_says_otherwise(self) -> None:
        self.say(False, 0)
        self.assertEqual(self.picks(), {"h1", "h2"})
        self.clock.advance(1000)
        self.assertEqual(self.picks(), {"h1", "h2"})
        self.say(True, 0)
        self.assertEqual(self.picks(), {"h0", "h1", "h2"})

    def test_all_are_picked_when_none_is_well(self) -> None:
        self.say(False, 0, 1, 2)
        self.assertEqual(self.picks(), {"h0", "h1", "h2"})
        self.say(True, 1)
        self.assertEqual(self.picks(), {"h1"})

    def test_the_last_one_that_is_well_leaves(self) -> None:
        self.say(False, 0)
        self.cluster.remove_host(self.hosts[1])
        self.assertEqual(self.picks(), {"h2"})
        self.cluster.remove_host(self.hosts[2])
        self.assertEqual(self.picks(), {"h0"})

    def test_one_that_is_well_joins(self) -> None:
        self.say(False, 0, 1, 2)
        self.cluster.add_host(FakeHost("new"))
        self.assertEqual(self.picks(), {"new"})

    def test_one_that_is_not_joins(self) -> None:
        host = FakeHost("new")
        self.cluster.service_health.report(host, False)
        self.cluster.add_host(host)
        self.assertEqual(self.picks(), {"h0", "h1", "h2"})
        self.assertEqual(host.health.faults, Fault.SERVICE)

    def test_other_faults_stay(self) -> None:
        self.say(False, 0)
        self.cluster.set_health(self.hosts[0], False, "ordered")
        self.say(True, 0)
        self.assertEqual(self.picks(), {"h1", "h2"})
        self.cluster.set_health(self.hosts[0], True)
        self.assertEqual(self.picks(), {"h0", "h1", "h2"})

    def test_the_only_other_one_is_ordered_out(self) -> None:
        self.say(False, 0, 1)
        self.cluster.set_health(self.hosts[2], False, "ordered")
        self.assertEqual(self.picks(), {"h0", "h1"})
        self.cluster.set_health(self.hosts[2], True)
        self.assertEqual(self.picks(), {"h2"})

    def test_who_waits_gets_one_that_is_well_again(self) -> None:
        self.say(False, 0, 1)
        context = PickContext(tried={self.hosts[2]})
        self.assertFalse(self.cluster.has_others(context))
        self.say(True, 0)
        self.assertTrue(self.cluster.has_others(context))
        self.assertIs(self.successResultOf(self.cluster.wait(context, 1.0)), self.hosts[0])

    def test_changes_are_told_once(self) -> None:
        told: list[tuple[str, bool]] = []
        self.cluster.service_health.on_report = lambda host: told.append(
            (host.address, host.health.service_up)
        )
        self.say(False, 0)
        self.say(False, 0)
        self.say(True, 0)
        self.assertEqual(told, [("h0", False), ("h0", True)])

    @given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from("+-ox")), max_size=20))
    def test_never_all_are_left_out(self, steps: list[tuple[int, str]]) -> None:
        """Whatever is said: one that is well is picked if there is one, and else any that may be."""
        self.setUp()
        ordered: set[Host] = set()
        for number, step in steps:
            host = self.hosts[number]
            if step in "+-":
                self.cluster.service_health.report(host, step == "+")
            else:
                self.cluster.set_health(host, step == "o")
                (ordered.discard if step == "o" else ordered.add)(host)
            able = {each for each in self.hosts if each not in ordered}
            well = {each for each in able if each.health.service_up}
            expected = {each.address for each in well or able}
            self.assertEqual({each.address for each in self.hosts if each.healthy}, expected)
            self.assertEqual(self.cluster.healthy, len(expected))


class DoubtTests(WellnessCase):
    def test_for_a_while(self) -> None:
        self.cluster.service_health.doubt(self.hosts[0])
        self.assertEqual(self.picks(), {"h1", "h2"})
        self.clock.advance(DOUBT)
        self.assertEqual(self.picks(), {"h0", "h1", "h2"})

    def test_all_of_the_same_agent(self) -> None:
        self.hosts[0].same_agent = self.hosts[1].same_agent = self.hosts[:2]
        self.cluster.service_health.doubt(self.hosts[0])
        self.assertEqual(self.picks(), {"h2"})
        self.clock.advance(DOUBT)
        self.assertEqual(self.picks(), {"h0", "h1", "h2"})

    def test_what_is_said_counts_more(self) -> None:
        self.cluster.service_health.doubt(self.hosts[0])
        self.say(True, 0)
        self.assertEqual(self.picks(), {"h0", "h1", "h2"})
        self.say(False, 0)
        self.cluster.service_health.doubt(self.hosts[0])
        self.clock.advance(10 * DOUBT)
        self.assertEqual(self.picks(), {"h1", "h2"})
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_it_leaves(self) -> None:
        self.cluster.service_health.doubt(self.hosts[0])
        self.cluster.remove_host(self.hosts[0])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.cluster.add_host(self.hosts[0])
        self.assertIn("h0", self.picks())


class ThousandsTests(WellnessCase):
    """Each change of thousands looks at few of them."""

    count = 4 * MANY

    def setUp(self) -> None:
        super().setUp()
        self.looks = 0
        settle = ServiceHealth._settle

        def counted(service_health: ServiceHealth) -> None:
            self.looks += len(service_health._let_in) + 1
            settle(service_health)

        self.patch(ServiceHealth, "_settle", counted)
        for number in range(3, self.count):
            self.hosts.append(FakeHost(f"h{number}"))
            self.cluster.add_host(self.hosts[-1])

    def faulty(self) -> int:
        return sum(host.health.faults == Fault.SERVICE for host in self.hosts)

    def test_one_after_the_other(self) -> None:
        self.say(False, *range(self.count))
        self.say(True, *range(self.count))
        self.assertLess(self.looks, 20 * self.count)
        self.assertEqual((self.faulty(), self.cluster.service_health.unwell), (0, {}))
        self.clock.advance(TOGETHER)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_none_is_well_until_one_joins(self) -> None:
        self.say(False, *range(self.count))
        self.clock.advance(TOGETHER)
        self.assertEqual(self.faulty(), 0)
        new = FakeHost("new")
        self.cluster.add_host(new)
        self.clock.advance(TOGETHER)
        self.assertEqual((self.faulty(), self.picks()), (self.count, {"new"}))
        # The last one that is well leaves: nobody waits for that.
        self.cluster.remove_host(new)
        self.assertEqual(self.faulty(), 0)

    def test_all_of_one_agent_stall(self) -> None:
        self.cluster.service_health.stall_all(self.hosts, "nothing comes")
        for host in self.hosts:
            self.cluster.service_health.stall(host, "nothing comes")
        self.assertLess(self.looks, 5 * self.count)
        self.assertEqual(len(self.cluster.service_health.stalled), self.count)
        for host in self.hosts:
            self.cluster.remove_host(host)
        self.assertEqual(self.clock.getDelayedCalls(), [])
