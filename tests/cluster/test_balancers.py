"""Tests for L{reverseproxy.cluster.balancers}."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from reverseproxy.cluster import balancers
from reverseproxy.cluster.balancers import (
    LeastRequestBalancer,
    RandomBalancer,
    RoundRobinBalancer,
    WeightedRoundRobinBalancer,
    make_balancer,
)
from reverseproxy.config.models import ClusterConfig, LbConfig
from reverseproxy.interfaces import ILoadBalancer, PickContext
from tests.cluster.counting import count_steps, pure_heapq
from tests.cluster.fakes import FakeHost

MAKERS: dict[str, Callable[[], ILoadBalancer]] = {
    "random": lambda: RandomBalancer(Random(1)),
    "round robin": RoundRobinBalancer,
    "weighted": WeightedRoundRobinBalancer,
    "least request": lambda: LeastRequestBalancer(Random(1)),
}


def hosts_of(*weights: int) -> list[FakeHost]:
    return [FakeHost(f"h{number}", weight) for number, weight in enumerate(weights)]


def picks(balancer: ILoadBalancer, count: int) -> list[str]:
    picked = [balancer.pick(None) for _ in range(count)]
    return ["none" if host is None else host.address for host in picked]


class AnyBalancerTests(SynchronousTestCase):
    """What holds for all of them."""

    def test_interface(self) -> None:
        for make in MAKERS.values():
            self.assertTrue(verifyObject(ILoadBalancer, make()))

    def test_empty(self) -> None:
        for make in MAKERS.values():
            self.assertIsNone(make().pick(None))
            self.assertIsNone(make().pick(PickContext(tried=set(hosts_of(1)))))

    def test_strangers(self) -> None:
        """Hosts that are not known are ignored."""
        stranger = FakeHost("stranger")
        for make in MAKERS.values():
            balancer = make()
            balancer.remove(stranger)
            balancer.suspend(stranger)
            balancer.resume(stranger)
            self.assertIsNone(balancer.pick(None))

    def test_repeated(self) -> None:
        """To say something twice changes nothing."""
        for make in MAKERS.values():
            one, two = hosts_of(1, 1)
            balancer = make()
            for host in (one, two):
                balancer.add(host)
                balancer.add(host)
            self.assertEqual(set(picks(balancer, 50)), {"h0", "h1"})
            balancer.suspend(one)
            balancer.suspend(one)
            self.assertEqual(set(picks(balancer, 5)), {"h1"})
            balancer.resume(one)
            balancer.resume(one)
            self.assertEqual(set(picks(balancer, 50)), {"h0", "h1"})
            balancer.remove(one)
            balancer.remove(one)
            self.assertEqual(set(picks(balancer, 5)), {"h1"})

    def test_suspended_and_removed(self) -> None:
        """A suspended host that is removed and added again may be picked."""
        for make in MAKERS.values():
            (host,) = hosts_of(1)
            balancer = make()
            balancer.add(host)
            balancer.suspend(host)
            self.assertIsNone(balancer.pick(None))
            balancer.remove(host)
            balancer.add(host)
            self.assertIs(balancer.pick(None), host)

    def test_tried(self) -> None:
        """Hosts that were tried are left out, as long as they are given."""
        for make in MAKERS.values():
            hosts = hosts_of(1, 2, 3)
            balancer = make()
            for host in hosts:
                balancer.add(host)
            context = PickContext()
            for _ in hosts:
                picked = balancer.pick(context)
                assert picked is not None
                self.assertNotIn(picked, context.tried)
                context.tried.add(picked)
            self.assertIsNone(balancer.pick(context))
            self.assertEqual(set(picks(balancer, 100)), {"h0", "h1", "h2"})


class RandomTests(SynchronousTestCase):
    def test_uniform(self) -> None:
        """Every host is as likely, whatever was tried."""
        balancer = RandomBalancer(Random(7))
        hosts = hosts_of(1, 100, 1, 1, 1)
        for host in hosts:
            balancer.add(host)
        counts = Counter(picks(balancer, 5000))
        for host in hosts:
            self.assertApproximates(counts[host.address], 1000, 120)
        context = PickContext(tried={hosts[0], hosts[3]})
        counts = Counter(getattr(balancer.pick(context), "address", "") for _ in range(3000))
        self.assertEqual(set(counts), {"h1", "h2", "h4"})
        for count in counts.values():
            self.assertApproximates(count, 1000, 120)


class RoundRobinTests(SynchronousTestCase):
    def test_rotation(self) -> None:
        """Whoever was picked the longest time ago is next, whatever its weight."""
        balancer = RoundRobinBalancer()
        for host in hosts_of(1, 100, 3):
            balancer.add(host)
        self.assertEqual(picks(balancer, 7), ["h0", "h1", "h2", "h0", "h1", "h2", "h0"])

    def test_suspended_keeps_its_place(self) -> None:
        """A host that comes back is where it was, or first if its turn has passed, once."""
        balancer = RoundRobinBalancer()
        hosts = hosts_of(1, 1, 1)
        for host in hosts:
            balancer.add(host)
        self.assertEqual(picks(balancer, 1), ["h0"])
        balancer.suspend(hosts[2])
        balancer.resume(hosts[2])
        self.assertEqual(picks(balancer, 3), ["h1", "h2", "h0"])
        balancer.suspend(hosts[1])
        self.assertEqual(picks(balancer, 6), ["h2", "h0", "h2", "h0", "h2", "h0"])
        balancer.resume(hosts[1])
        self.assertEqual(picks(balancer, 4), ["h1", "h2", "h0", "h1"])

    def test_newcomer(self) -> None:
        """A new host is last."""
        balancer = RoundRobinBalancer()
        for host in hosts_of(1, 1):
            balancer.add(host)
        self.assertEqual(picks(balancer, 3), ["h0", "h1", "h0"])
        balancer.add(FakeHost("new"))
        self.assertEqual(picks(balancer, 4), ["h1", "h0", "new", "h1"])

    def test_tried_is_late(self) -> None:
        """A host that was passed over as tried is next, and only once."""
        balancer = RoundRobinBalancer()
        hosts = hosts_of(1, 1, 1)
        for host in hosts:
            balancer.add(host)
        context = PickContext(tried={hosts[0]})
        for expected in ("h1", "h2", "h1", "h2"):
            self.assertEqual(balancer.pick(context).address, expected)  # type: ignore[union-attr]
        self.assertEqual(picks(balancer, 4), ["h0", "h1", "h2", "h0"])


class WeightedRoundRobinTests(SynchronousTestCase):
    def test_spread(self) -> None:
        """Turns follow weights, and are spread out."""
        balancer = WeightedRoundRobinBalancer()
        for host in hosts_of(4, 2, 1):
            balancer.add(host)
        self.assertEqual(picks(balancer, 7), ["h0", "h1", "h0", "h0", "h2", "h1", "h0"])

    @settings(deadline=None, max_examples=100)
    @given(st.lists(st.integers(1, 128), min_size=1, max_size=12), st.integers(1, 3))
    def test_fair(self, weights: list[int], cycles: int) -> None:
        """In full cycles, each host gets its share to within one turn."""
        balancer = WeightedRoundRobinBalancer()
        hosts = hosts_of(*weights)
        for host in hosts:
            balancer.add(host)
        counts = Counter(picks(balancer, sum(weights) * cycles))
        for host in hosts:
            self.assertApproximates(counts[host.address], host.weight * cycles, 1)

    @settings(deadline=None, max_examples=100)
    @given(st.integers(1, 128), st.integers(1, 12), st.integers(1, 40))
    def test_equal_weights(self, weight: int, size: int, rounds: int) -> None:
        """With equal weights it is plain rotation."""
        balancer = WeightedRoundRobinBalancer()
        for host in hosts_of(*[weight] * size):
            balancer.add(host)
        rotation = [f"h{number}" for number in range(size)]
        self.assertEqual(picks(balancer, size * rounds), rotation * rounds)

    @settings(deadline=None, max_examples=50)
    @given(st.integers(1, 128), st.integers(1, 128), st.integers(0, 500))
    def test_no_credit(self, weight: int, other: int, missed: int) -> None:
        """A host that was away does not get back the turns that it missed."""
        balancer = WeightedRoundRobinBalancer()
        away, present = hosts_of(weight, other)
        balancer.add(away)
        balancer.add(present)
        balancer.suspend(away)
        picks(balancer, missed)
        balancer.resume(away)
        counts = Counter(picks(balancer, weight + other))
        self.assertApproximates(counts["h0"], weight, 2)

    def test_memory(self) -> None:
        """Hosts that come and go leave nothing behind."""
        balancer = WeightedRoundRobinBalancer()
        balancer.add(FakeHost("stays", 128))
        for _ in range(1000):
            host = FakeHost("guest")
            balancer.add(host)
            balancer.remove(host)
        self.assertLess(len(balancer._heap), 100)
        self.assertEqual(picks(balancer, 2), ["stays", "stays"])
        for host in hosts_of(*[1] * 20):
            balancer.add(host)
            balancer.suspend(host)
            balancer.remove(host)
        self.assertEqual(picks(balancer, 300), ["stays"] * 300)
        self.assertEqual(len(balancer._heap), 1)
        self.assertEqual(balancer._dead, 0)


class LeastRequestTests(SynchronousTestCase):
    def test_least_busy(self) -> None:
        """With as many choices as hosts, the least busy one is picked."""
        balancer = LeastRequestBalancer(Random(1), choices=3)
        hosts = hosts_of(5, 5, 5)
        for number, host in enumerate(hosts):
            host.active = 3 - number
            balancer.add(host)
        self.assertEqual(set(picks(balancer, 20)), {"h2"})
        balancer.suspend(hosts[2])
        self.assertEqual(set(picks(balancer, 20)), {"h1"})

    def test_two_choices(self) -> None:
        """The busiest of several is never picked, and the others as chance has it."""
        balancer = LeastRequestBalancer(Random(1))
        hosts = hosts_of(1, 1, 1, 1)
        for host in hosts:
            balancer.add(host)
        hosts[1].active = 9
        counts = Counter(picks(balancer, 3000))
        self.assertEqual(set(counts), {"h0", "h2", "h3"})
        for count in counts.values():
            self.assertApproximates(count, 1000, 120)

    def test_one_choice(self) -> None:
        """With one choice it is random; none is taken for one."""
        for choices in (0, 1):
            balancer = LeastRequestBalancer(Random(1), choices=choices)
            hosts = hosts_of(1, 1)
            hosts[0].active = 100
            for host in hosts:
                balancer.add(host)
            self.assertApproximates(Counter(picks(balancer, 2000))["h0"], 1000, 120)

    def test_weighted(self) -> None:
        """With unequal weights, turns follow weight over load."""
        balancer = LeastRequestBalancer(Random(1))
        hosts = hosts_of(4, 1)
        for host in hosts:
            balancer.add(host)
        self.assertEqual(Counter(picks(balancer, 500)), {"h0": 400, "h1": 100})
        hosts[0].active = 3
        self.assertApproximates(Counter(picks(balancer, 500))["h0"], 250, 3)

    def test_bias(self) -> None:
        """The bias says how much load counts."""
        for bias, share in ((0.0, 800), (-1.0, 800), (2.0, 200)):
            balancer = LeastRequestBalancer(Random(1), bias=bias)
            hosts = hosts_of(4, 1)
            hosts[0].active = 3
            for host in hosts:
                balancer.add(host)
            self.assertApproximates(Counter(picks(balancer, 1000))["h0"], share, 3)

    def test_weights_become_equal(self) -> None:
        """When the only host with another weight leaves, chance decides again."""
        balancer = LeastRequestBalancer(Random(1))
        hosts = hosts_of(1, 1, 7)
        for host in hosts:
            balancer.add(host)
        self.assertEqual(Counter(picks(balancer, 900)), {"h0": 100, "h1": 100, "h2": 700})
        balancer.remove(hosts[2])
        hosts[0].active = 1
        self.assertEqual(set(picks(balancer, 20)), {"h1"})


class MakeTests(SynchronousTestCase):
    def make(self, lb_type: str) -> tuple[type, list[str]]:
        warnings: list[str] = []

        def observe(event: Any) -> None:
            if event["log_level"] is LogLevel.warn:
                warnings.append(event["kind"])

        globalLogPublisher.addObserver(observe)
        try:
            balancer = make_balancer(ClusterConfig(name="c", lb_type=lb_type), Random(1))
        finally:
            globalLogPublisher.removeObserver(observe)
        return type(balancer), warnings

    def test_types(self) -> None:
        """The names are MOSN's; others are round robin."""
        self.assertEqual(self.make("LB_RANDOM"), (RandomBalancer, []))
        self.assertEqual(self.make("LB_ROUNDROBIN"), (RoundRobinBalancer, []))
        self.assertEqual(self.make("LB_WEIGHTED_ROUNDROBIN"), (WeightedRoundRobinBalancer, []))
        self.assertEqual(self.make("LB_LEAST_REQUEST"), (LeastRequestBalancer, []))
        self.assertEqual(self.make(""), (RoundRobinBalancer, []))
        self.assertEqual(self.make("LB_MAGLEV"), (RoundRobinBalancer, ["LB_MAGLEV"]))

    def test_options(self) -> None:
        """Least request takes its options from C{lbconfig}."""
        options = LbConfig(choice_count=5, active_request_bias=0.5)
        balancer = make_balancer(
            ClusterConfig(name="c", lb_type="LB_LEAST_REQUEST", lbconfig=options), Random(1)
        )
        assert isinstance(balancer, LeastRequestBalancer)
        self.assertEqual((balancer._choices, balancer._turns._bias), (5, 0.5))


class CostTests(SynchronousTestCase):
    """With 10,000 hosts, nothing costs more than a little above what it does with 100."""

    def setUp(self) -> None:
        heapq = pure_heapq()
        for name in ("heapify", "heappop", "heappush", "heapreplace"):
            self.patch(balancers, name, getattr(heapq, name))

    def steps(self, make: Callable[[], ILoadBalancer], size: int) -> float:
        """The mean cost of one round of everything, over enough of them to pay for compaction."""
        balancer = make()
        hosts = hosts_of(*[1 + number % 7 for number in range(size)])
        for host in hosts:
            balancer.add(host)
        context = PickContext(tried=set(hosts[:3]))
        random = Random(3)
        rounds = 600

        def act() -> None:
            for _ in range(rounds):
                place = int(random.random() * size)
                balancer.remove(hosts[place])
                hosts[place] = FakeHost("new", 1 + place % 7)
                balancer.add(hosts[place])
                balancer.pick(context)
                picked = balancer.pick(None)
                assert picked is not None
                balancer.suspend(picked)
                balancer.resume(picked)

        # Removed entries up to the point of compaction, which is then paid for.
        for host in hosts[: size // 2]:
            balancer.remove(host)
        for host in hosts[: size // 2]:
            balancer.add(host)
        return count_steps(act) / rounds

    def check(self, name: str) -> None:
        few, many = self.steps(MAKERS[name], 100), self.steps(MAKERS[name], 10_000)
        # Logarithms double from 100 to 10,000; what is linear grows a hundredfold.
        self.assertLess(many, 8 * few)

    def test_random(self) -> None:
        self.check("random")

    def test_round_robin(self) -> None:
        self.check("round robin")

    def test_weighted(self) -> None:
        self.check("weighted")

    def test_least_request(self) -> None:
        self.check("least request")

    def test_all_but_one_suspended(self) -> None:
        """Busy hosts are skipped once, not at each pick."""
        for name, make in MAKERS.items():
            balancer = make()
            hosts = hosts_of(*[1 + number % 3 for number in range(3000)])
            for host in hosts:
                balancer.add(host)
            for host in hosts[1:]:
                balancer.suspend(host)
            picks(balancer, 10)
            self.assertLess(count_steps(lambda lb=balancer: lb.pick(None)), 1000, name)
            balancer.suspend(hosts[0])
            self.assertLess(count_steps(lambda lb=balancer: lb.pick(None)), 200, name)


class BalancerMachine(RuleBasedStateMachine):
    """Any balancer against a naive model, under everything that can happen to it."""

    make: Callable[[], ILoadBalancer]
    patience = 400
    """Picks after which every host must have had its turn, with at most 8 hosts of weights 1 to 5."""

    def __init__(self) -> None:
        super().__init__()
        self.balancer = type(self).make()
        self.hosts: list[FakeHost] = []
        self.suspended: set[FakeHost] = set()
        self.made = 0

    def ready(self) -> set[FakeHost]:
        return set(self.hosts) - self.suspended

    @initialize(weights=st.lists(st.integers(1, 5), max_size=5))
    def begin(self, weights: list[int]) -> None:
        for weight in weights:
            self.add(weight)

    @precondition(lambda self: len(self.hosts) < 8)
    @rule(weight=st.integers(1, 5))
    def add(self, weight: int) -> None:
        host = FakeHost(f"h{self.made}", weight)
        self.made += 1
        self.hosts.append(host)
        self.balancer.add(host)

    @precondition(lambda self: self.hosts)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        host = data.draw(st.sampled_from(self.hosts))
        self.hosts.remove(host)
        self.suspended.discard(host)
        self.balancer.remove(host)

    @precondition(lambda self: self.hosts)
    @rule(data=st.data())
    def suspend(self, data: st.DataObject) -> None:
        host = data.draw(st.sampled_from(self.hosts))
        self.suspended.add(host)
        self.balancer.suspend(host)

    @precondition(lambda self: self.hosts)
    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        host = data.draw(st.sampled_from(self.hosts))
        self.suspended.discard(host)
        self.balancer.resume(host)

    @precondition(lambda self: self.hosts)
    @rule(data=st.data(), active=st.integers(0, 5))
    def load(self, data: st.DataObject, active: int) -> None:
        data.draw(st.sampled_from(self.hosts)).active = active

    @rule(count=st.integers(1, 12))
    def pick(self, count: int) -> None:
        for _ in range(count):
            self.check(self.balancer.pick(None), self.ready())

    @precondition(lambda self: self.hosts)
    @rule(data=st.data())
    def pick_untried(self, data: st.DataObject) -> None:
        tried = data.draw(st.sets(st.sampled_from(self.hosts)))
        self.check(self.balancer.pick(PickContext(tried=set(tried))), self.ready() - tried)

    def check(self, picked: object, allowed: set[FakeHost]) -> None:
        if allowed:
            assert picked in allowed
        else:
            assert picked is None

    @rule()
    def nobody_starves(self) -> None:
        """Every host that is ready has its turn, whatever came before."""
        for host in self.hosts:
            host.active = 0
        waiting = self.ready()
        for _ in range(self.patience):
            if not waiting:
                break
            waiting.discard(self.balancer.pick(None))  # type: ignore[arg-type]
        assert not waiting

    @invariant()
    def bounded(self) -> None:
        turns = getattr(self.balancer, "_turns", self.balancer)
        if isinstance(turns, WeightedRoundRobinBalancer):
            assert len(turns._heap) <= 2 * len(self.hosts) + 33
            assert turns._ready == len(self.ready())


class AnySequenceTests(SynchronousTestCase):
    """No sequence of events makes a balancer differ from the model."""

    def check(self, name: str, picks_enough: int) -> None:
        machine = type(
            "Machine", (BalancerMachine,), {"make": staticmethod(MAKERS[name]), "patience": picks_enough}
        )
        run_state_machine_as_test(
            machine, settings=settings(deadline=None, max_examples=60, stateful_step_count=40)
        )

    def test_random(self) -> None:
        self.check("random", 400)

    def test_round_robin(self) -> None:
        """Of 8 hosts, each of the other 7 may go first twice: it may be late by a turn."""
        self.check("round robin", 16)

    def test_weighted(self) -> None:
        """A host of weight 1 lets each of 7 others pass by its weight of 5, and once more."""
        self.check("weighted", 1 + 7 * 6)

    def test_least_request(self) -> None:
        self.check("least request", 400)
