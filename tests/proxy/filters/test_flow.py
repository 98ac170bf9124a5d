"""Tests for L{reverseproxy.proxy.filters.flow_control} and its rules."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.config._base import keys_of
from reverseproxy.config.models import FlowRuleConfig
from reverseproxy.proxy.filters import FilterChain, LocalReply
from reverseproxy.proxy.filters.flow_rules import BLOCKED, FlowRule, Window, buckets_of
from tests.proxy.filters.build import chain, request, steps


class WindowTests(SynchronousTestCase):
    def test_buckets(self) -> None:
        """As Sentinel has them."""
        for interval, buckets in (
            (1, 1),
            (499, 1),
            (500, 1),
            (700, 1),
            (1000, 2),
            (1500, 3),
            (10_000, 20),
            (10_500, 1),
            (60_000, 1),
        ):
            self.assertEqual(buckets_of(interval), buckets)

    def test_it_moves_by_buckets(self) -> None:
        window = Window(1000)
        for now in (0.0, 0.4, 0.6):
            window.add(now)
        for now, count in ((0.6, 3), (0.99, 3), (1.0, 1), (1.49, 1), (1.5, 0), (99.0, 0)):
            self.assertEqual(window.count(now), count, now)
        self.assertEqual(window.previous_rate(1.0), 3.0)
        self.assertEqual(window.previous_rate(1.5), 1.0)

    @given(
        st.sampled_from((100, 500, 1000, 3000, 20_000)),
        st.lists(st.floats(0, 30), max_size=30).map(sorted),
        st.floats(30, 40),
    )
    def test_as_a_slow_count(self, interval: int, times: list[float], now: float) -> None:
        window = Window(interval)
        for each in times:
            window.add(each)
        length = interval / 1000 / buckets_of(interval)
        last = int(now // length)
        expected = [each for each in times if last - buckets_of(interval) < int(each // length) <= last]
        self.assertEqual(window.count(now), len(expected))


def flow_rule(share: int = 1, **config: Any) -> FlowRule:
    names = {info.name: name for name, _, info in keys_of(FlowRuleConfig)}
    fields = {names[name]: value for name, value in config.items()}
    return FlowRule(FlowRuleConfig(resource="/", **fields), share)


class RuleTests(SynchronousTestCase):
    def passed(self, rule: FlowRule, times: list[float]) -> list[float]:
        """Which of several requests pass at once."""
        window = Window(rule.interval)
        found = []
        for now in times:
            if rule.check(window, now) == 0.0:
                window.add(now)
                found.append(now)
        return found

    def test_reject(self) -> None:
        rule = flow_rule(threshold=2.0)
        times = [0.0, 0.1, 0.2, 0.9, 1.0, 1.1, 1.6, 2.0]
        self.assertEqual(self.passed(rule, times), [0.0, 0.1, 1.0, 1.1, 2.0])

    def test_intervals(self) -> None:
        rule = flow_rule(threshold=1.0, statIntervalInMs=5000)
        self.assertEqual(self.passed(rule, [0.0, 1.0, 4.9, 5.0, 9.0, 10.0]), [0.0, 5.0, 10.0])

    def test_none_may_pass(self) -> None:
        for threshold in (0.0, 0.5):
            for behaviour in (0, 1):
                rule = flow_rule(threshold=threshold, controlBehavior=behaviour, maxQueueingTimeMs=10_000)
                self.assertEqual(self.passed(rule, [0.0, 10.0]), [])

    def test_spread(self) -> None:
        """Requests that come at once get their turns evenly, and are refused if theirs is too late."""
        rule = flow_rule(threshold=4.0, controlBehavior=1, maxQueueingTimeMs=500)
        waits = [rule.check(None, 100.0) for _ in range(4)]
        self.assertEqual([round(wait, 6) for wait in waits], [0.0, 0.25, 0.5, BLOCKED])
        self.assertAlmostEqual(rule.check(None, 100.25), 0.5)
        self.assertEqual(rule.check(None, 200.0), 0.0)

    def test_spread_without_patience(self) -> None:
        rule = flow_rule(threshold=2.0, controlBehavior=1)
        self.assertEqual([rule.check(None, now) for now in (1.0, 1.2, 1.5)], [0.0, BLOCKED, 0.0])

    def test_warm_up(self) -> None:
        """A third of the threshold at first, all of it after the time to warm up under load."""
        rule = flow_rule(threshold=30.0, tokenCalculateStrategy=1, warmUpPeriodSec=4)
        window = Window(rule.interval)
        rates = []
        for second in range(100, 120):
            count = 0
            for tick in range(100):
                now = second + tick / 100
                if rule.check(window, now) == 0.0:
                    window.add(now)
                    count += 1
            rates.append(count)
        # 10 at first, which is a third, and 30 in the end; windows of half a second make it a little uneven.
        self.assertAlmostEqual(rates[0], 10, delta=2)
        self.assertTrue(all(now >= before - 1 for before, now in pairwise(rates)), rates)
        self.assertTrue(10 < rates[4] < 30, rates)
        self.assertEqual(rates[-3:], [30, 30, 30])

    def test_it_cools_down(self) -> None:
        rule = flow_rule(threshold=30.0, tokenCalculateStrategy=1, warmUpPeriodSec=2, warmUpColdFactor=3)
        window = Window(rule.interval)

        def load(begin: int, end: int) -> int:
            count = 0
            for step in range(begin * 100, end * 100):
                now = step / 100
                if rule.check(window, now) == 0.0:
                    window.add(now)
                    count += 1
            return count

        cold = load(100, 101)
        load(101, 115)
        warm = load(115, 116)
        self.assertGreater(warm, cold * 2)
        again = load(400, 401)
        self.assertEqual(again, cold)

    def test_share(self) -> None:
        """Of several processes each has its part."""
        self.assertEqual(len(self.passed(flow_rule(2, threshold=5.0), [0.0] * 9)), 2)
        self.assertEqual(len(self.passed(flow_rule(4, threshold=8.0), [0.0] * 9)), 2)

    def test_share_of_less_than_one(self) -> None:
        """It gets one less often, rather than none at all."""
        rule = flow_rule(4, threshold=1.0)
        self.assertEqual(self.passed(rule, [0.0, 1.0, 2.0, 3.9, 4.0, 7.9, 8.0]), [0.0, 4.0, 8.0])
        rule = flow_rule(4, threshold=1.0, controlBehavior=1)
        self.assertEqual(self.passed(rule, [0.0, 1.0, 3.9, 4.0]), [0.0, 4.0])


class FlowControlTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()

    def chain(self, *rules: dict[str, Any], **config: Any) -> FilterChain | None:
        config = {"global_switch": True, "rules": list(rules), **config}
        return chain(("flowControlFilter", config), clock=self.clock)

    def test_resources(self) -> None:
        for kind, resource in (("PATH", "/a"), ("ARG", "b=c"), ("URI", "/a?b=c")):
            filters = self.chain({"resource": resource, "threshold": 1.0}, limit_key_type=kind)
            for other in (request("/b", query="d=e"), request("/A"), request("/")):
                self.assertEqual(steps(filters, other), [])
            self.assertEqual(steps(filters, request("/a", query="b=c")), [])
            [refusal] = steps(filters, request("/a", query="b=c"))
            assert isinstance(refusal, LocalReply)
            self.assertEqual((refusal.status, refusal.body), (509, b"current request is limited"))
            self.clock.advance(1)
            self.assertEqual(steps(filters, request("/a", query="b=c")), [])

    def test_action(self) -> None:
        filters = self.chain({"resource": "/", "threshold": 0.0}, action={"status": 500, "body": "blocked"})
        [refusal] = steps(filters, request())
        assert isinstance(refusal, LocalReply)
        self.assertEqual((refusal.status, refusal.body), (500, b"blocked"))

    def test_all_rules_must_let_it_pass(self) -> None:
        filters = self.chain(
            {"resource": "/", "threshold": 5.0},
            {"resource": "/", "threshold": 2.0, "statIntervalInMs": 10_000},
        )
        found = [bool(steps(filters, request())) for _ in range(3)]
        self.assertEqual(found, [False, False, True])

    def test_what_is_refused_does_not_count(self) -> None:
        filters = self.chain({"resource": "/", "threshold": 1.0})
        for now in range(5):
            self.assertEqual(steps(filters, request()), [], now)
            for _ in range(10):
                self.assertEqual(len(steps(filters, request())), 1)
            self.clock.advance(1)

    def test_another_resource(self) -> None:
        """One that is not limited itself, but what it counts is."""
        rule = {"resource": "/write", "threshold": 2.0, "relationStrategy": 1, "refResource": "/read"}
        filters = self.chain(rule)
        for _ in range(5):
            self.assertEqual(steps(filters, request("/write")), [])
        for _ in range(2):
            self.assertEqual(steps(filters, request("/read")), [])
        self.assertEqual(len(steps(filters, request("/write"))), 1)
        self.assertEqual(steps(filters, request("/read")), [])

    def test_waits(self) -> None:
        filters = self.chain(
            {"resource": "/", "threshold": 10.0, "controlBehavior": 1, "maxQueueingTimeMs": 1000}
        )
        waits = [steps(filters, request()) for _ in range(3)]
        self.assertEqual(
            [[round(wait, 6) for wait in each if isinstance(wait, float)] for each in waits],
            [[], [0.1], [0.2]],
        )

    def test_requests_of_rpc(self) -> None:
        for kind in ("PATH", "ARG", "URI"):
            filters = self.chain({"resource": "/", "threshold": 0.0}, limit_key_type=kind)
            self.assertEqual(steps(filters, request("")), [])

    def test_a_rule_that_is_left_out(self) -> None:
        """The file has said that this may be."""
        filters = self.chain({"resource": "/", "threshold": 0.0, "tokenCalculateStrategy": 2})
        self.assertEqual(steps(filters, request()), [])
