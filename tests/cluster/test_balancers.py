"""Tests for L{reverseproxy.cluster.balancers.factory}, and for what all balancers have in common."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from reverseproxy.cluster.balancers import round_robin
from reverseproxy.cluster.balancers.factory import (
    LeastConnectionBalancer,
    LeastRequestBalancer,
    MaglevBalancer,
    PeakEwmaBalancer,
    RandomBalancer,
    RequestRoundRobinBalancer,
    RoundRobinBalancer,
    ScaledWeightedRoundRobinBalancer,
    SubsetBalancer,
    WeightedRoundRobinBalancer,
    make_balancer,
    make_tracker,
)
from reverseproxy.cluster.balancers.peak_ewma import EwmaTracker
from reverseproxy.config.models import ClusterConfig, LbConfig, SlowStartConfig, SubsetConfig
from reverseproxy.interfaces import ILoadBalancer, PickContext
from tests import most
from tests.cluster.counting import count_steps, pure_heapq
from tests.cluster.fakes import FakeHost, hosts_of, picks

MAKERS: dict[str, Callable[[], ILoadBalancer]] = {
    "random": lambda: RandomBalancer(Random(1)),
    "round robin": RoundRobinBalancer,
    "weighted": WeightedRoundRobinBalancer,
    "scaled": lambda: ScaledWeightedRoundRobinBalancer(lambda host: 0.5 + host.active),
    "least request": lambda: LeastRequestBalancer(Random(1)),
    "least connection": lambda: LeastConnectionBalancer(Random(1)),
    "peak ewma": lambda: PeakEwmaBalancer(Random(1), EwmaTracker(Clock())),
    "maglev": MaglevBalancer,
    "request round robin": RequestRoundRobinBalancer,
    "subsets": lambda: SubsetBalancer(lambda: RandomBalancer(Random(1)), Clock().seconds, [["zone"]]),
}


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
            self.assertTrue(set(picks(balancer, 50)) <= {"h0", "h1"})
            balancer.suspend(one)
            balancer.suspend(one)
            self.assertEqual(set(picks(balancer, 5)), {"h1"})
            balancer.resume(one)
            balancer.resume(one)
            self.assertIn("h0", picks(balancer, 50))
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
            self.assertTrue(set(picks(balancer, 100)) <= {"h0", "h1", "h2"})


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
        self.assertEqual(self.make("LB_LEAST_CONNECTION"), (LeastConnectionBalancer, []))
        self.assertEqual(self.make("LB_MAGLEV"), (MaglevBalancer, []))
        self.assertEqual(self.make("LB_REQUEST_ROUNDROBIN"), (RequestRoundRobinBalancer, []))
        self.assertEqual(self.make(""), (RoundRobinBalancer, []))
        self.assertEqual(self.make("LB_ORIGINAL_DST"), (RoundRobinBalancer, ["LB_ORIGINAL_DST"]))

    def test_options(self) -> None:
        """Those that compare hosts take their options from C{lbconfig}."""
        options = LbConfig(choice_count=5, active_request_bias=0.5)
        balancer = make_balancer(
            ClusterConfig(name="c", lb_type="LB_LEAST_REQUEST", lbconfig=options), Random(1)
        )
        assert isinstance(balancer, LeastRequestBalancer)
        assert isinstance(balancer._turns, round_robin.LoadScaledRoundRobinBalancer)
        self.assertEqual((balancer._choices, balancer._turns._bias), (5, 0.5))
        balancer = make_balancer(
            ClusterConfig(name="c", lb_type="LB_LEAST_CONNECTION", lbconfig=options), Random(1)
        )
        assert isinstance(balancer, LeastConnectionBalancer)
        self.assertEqual(balancer._choices, 5)

    def test_peak_ewma(self) -> None:
        """It needs what keeps the scores."""
        config = ClusterConfig(
            name="c",
            lb_type="LB_PEAK_EWMA",
            connect_timeout=3.0,
            idle_timeout=60.0,
            lbconfig=LbConfig(choice_count=4, active_request_bias=2.0),
        )
        tracker = make_tracker(config, Clock())
        assert tracker is not None
        host = FakeHost("a")
        host.active = 2
        self.assertEqual(tracker.score(host), 9 * 63.0)
        balancer = make_balancer(config, Random(1), None, tracker)
        assert isinstance(balancer, PeakEwmaBalancer)
        self.assertEqual(balancer._choices, 4)
        self.assertRaises(ValueError, make_balancer, config, Random(1), Clock())
        self.assertIsNone(make_tracker(ClusterConfig(name="c", lb_type="LB_RANDOM"), Clock()))

    def test_slow_start(self) -> None:
        """Those that know weights take turns then, and the age of a host counts."""
        warm_up = SlowStartConfig(mode="duration", slow_start_duration=100.0)
        for lb_type, loaded in (
            ("LB_WEIGHTED_ROUNDROBIN", ""),
            ("LB_LEAST_REQUEST", "active"),
            ("LB_LEAST_CONNECTION", "connections"),
            ("LB_PEAK_EWMA", "active"),
        ):
            clock = Clock()
            config = ClusterConfig(name="c", lb_type=lb_type, slow_start=warm_up)
            balancer = make_balancer(config, Random(1), clock, make_tracker(config, clock))
            self.assertIs(type(balancer), ScaledWeightedRoundRobinBalancer)
            one, two = hosts_of(1, 1)
            clock.advance(1000)
            two.healthy_since = clock.seconds() - 50
            for host in (one, two):
                balancer.add(host)
            self.assertApproximates(picks(balancer, 300).count("h0"), 200, 2)
            if loaded:
                setattr(one, loaded, 3)
                self.assertApproximates(picks(balancer, 300).count("h0"), 100, 3)
            self.assertRaises(ValueError, make_balancer, config, Random(1))

    def test_slow_start_of_others(self) -> None:
        """Those that don't know weights don't know slow start either."""
        warm_up = SlowStartConfig(mode="duration", slow_start_duration=100.0)
        config = ClusterConfig(name="c", lb_type="LB_RANDOM", slow_start=warm_up)
        self.assertIs(type(make_balancer(config, Random(1), Clock())), RandomBalancer)

    def test_no_slow_start(self) -> None:
        """Without a mode, or a duration, there is none."""
        for off in (
            SlowStartConfig(mode="", slow_start_duration=100.0),
            SlowStartConfig(mode="duration", slow_start_duration=0.0),
        ):
            config = ClusterConfig(name="c", lb_type="LB_WEIGHTED_ROUNDROBIN", slow_start=off)
            self.assertIs(type(make_balancer(config, Random(1))), WeightedRoundRobinBalancer)

    def test_subsets(self) -> None:
        """With selectors, each subset has a balancer of the type."""
        subsets = SubsetConfig(
            fall_back_policy=2, default_subset={"zone": "b"}, subset_selectors=(("zone", "stage"), ("zone",))
        )
        config = ClusterConfig(name="c", lb_type="LB_REQUEST_ROUNDROBIN", lb_subset_config=subsets)
        balancer = make_balancer(config, Random(1), Clock())
        assert isinstance(balancer, SubsetBalancer)
        for number, metadata in enumerate(({"zone": "a"}, {"zone": "b"}, {"zone": "a", "stage": "x"})):
            host = FakeHost(f"h{number}", metadata=metadata)
            balancer.add(host)
            for subset in balancer.subsets_of(host):
                subset.healthy += 1
                self.assertIsInstance(subset.balancer, RequestRoundRobinBalancer)
        for wanted, address in (
            ({"zone": "a"}, "h0"),
            ({"stage": "x", "zone": "a"}, "h2"),
            ({"stage": "x"}, "h1"),
        ):
            picked = balancer.pick(PickContext(metadata=wanted))
            assert picked is not None
            self.assertEqual(picked.address, address)


class CostTests(SynchronousTestCase):
    """With 10,000 hosts, nothing costs more than a little above what it does with 100."""

    def setUp(self) -> None:
        heapq = pure_heapq()
        for name in ("heapify", "heappop", "heappush", "heapreplace"):
            self.patch(round_robin, name, getattr(heapq, name))

    def steps(self, make: Callable[[], ILoadBalancer], size: int) -> float:
        """The mean cost of one round of everything, over enough of them to pay for compaction."""
        balancer = make()
        hosts = hosts_of(*[1 + number % 7 for number in range(size)])
        for host in hosts:
            balancer.add(host)
        context = PickContext(tried=set(hosts[:3]), hash_key=b"key")
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

    def test_scaled(self) -> None:
        self.check("scaled")

    def test_least_request(self) -> None:
        self.check("least request")

    def test_least_connection(self) -> None:
        self.check("least connection")

    def test_peak_ewma(self) -> None:
        self.check("peak ewma")

    def test_maglev(self) -> None:
        self.check("maglev")

    def test_request_round_robin(self) -> None:
        self.check("request round robin")

    def test_subsets(self) -> None:
        self.check("subsets")

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
    keyed = False
    """Whether each request has a hash key of its own."""
    retried = False
    """Whether it is one request that must get to all hosts, as it is sent again and again."""

    def __init__(self) -> None:
        super().__init__()
        self.balancer = type(self).make()
        self.hosts: list[FakeHost] = []
        self.suspended: set[FakeHost] = set()
        self.made = 0
        self.random = Random(5)

    def context(self, tried: set[Any]) -> PickContext:
        return PickContext(tried=set(tried), hash_key=self.random.randbytes(8) if self.keyed else None)

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
        host = data.draw(st.sampled_from(self.hosts))
        host.active = host.connections = active

    @rule(count=st.integers(1, 12))
    def pick(self, count: int) -> None:
        for _ in range(count):
            self.check(self.balancer.pick(self.context(set()) if self.keyed else None), self.ready())

    @precondition(lambda self: self.hosts)
    @rule(data=st.data())
    def pick_untried(self, data: st.DataObject) -> None:
        tried = data.draw(st.sets(st.sampled_from(self.hosts)))
        self.check(self.balancer.pick(self.context(tried)), self.ready() - tried)

    def check(self, picked: object, allowed: set[FakeHost]) -> None:
        if allowed:
            assert picked in allowed
        else:
            assert picked is None

    @rule()
    def nobody_starves(self) -> None:
        """Every host that is ready has its turn, whatever came before."""
        for host in self.hosts:
            host.active = host.connections = 0
        waiting = self.ready()
        context = PickContext()
        for _ in range(self.patience):
            if not waiting:
                break
            if not self.retried:
                context = self.context(set())
            waiting.discard(self.balancer.pick(context))  # type: ignore[arg-type]
        assert not waiting

    @invariant()
    def bounded(self) -> None:
        turns = getattr(self.balancer, "_turns", self.balancer)
        if isinstance(turns, WeightedRoundRobinBalancer):
            assert len(turns._heap) <= 2 * len(self.hosts) + 33
            assert turns._ready == len(self.ready())


class AnySequenceTests(SynchronousTestCase):
    """No sequence of events makes a balancer differ from the model."""

    def check(self, name: str, picks_enough: int, **options: bool) -> None:
        machine = type(
            "Machine",
            (BalancerMachine,),
            {"make": staticmethod(MAKERS[name]), "patience": picks_enough, **options},
        )
        run_state_machine_as_test(
            machine, settings=settings(deadline=None, max_examples=most(60), stateful_step_count=40)
        )

    def test_random(self) -> None:
        self.check("random", 400)

    def test_round_robin(self) -> None:
        """Of 8 hosts, each of the other 7 may go first twice: it may be late by a turn."""
        self.check("round robin", 16)

    def test_weighted(self) -> None:
        """A host of weight 1 lets each of 7 others pass by its weight of 5, and once more."""
        self.check("weighted", 1 + 7 * 6)

    def test_scaled(self) -> None:
        """A host may have been put off by eleven times its stride."""
        self.check("scaled", 1 + 7 * 11 * 6)

    def test_least_request(self) -> None:
        self.check("least request", 400)

    def test_least_connection(self) -> None:
        self.check("least connection", 400)

    def test_peak_ewma(self) -> None:
        """As long as nothing is known of them but how busy they are."""
        self.check("peak ewma", 400)

    def test_maglev(self) -> None:
        self.check("maglev", 400, keyed=True)

    def test_maglev_without_keys(self) -> None:
        """Requests without a key take turns."""
        self.check("maglev", 16)

    def test_request_round_robin(self) -> None:
        """A request that is sent again and again comes to every host, one by one."""
        self.check("request round robin", 8, retried=True)

    def test_subsets(self) -> None:
        self.check("subsets", 400)
