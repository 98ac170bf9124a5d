"""Tests for the other filters of L{reverseproxy.proxy.filters}, and for chains of them."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.config.models import PerFilterConfig
from reverseproxy.proxy.filters import BodyLimit, LocalReply
from reverseproxy.proxy.flags import ResponseFlag
from reverseproxy.routing import ClusterRoute, DirectResponse, RouteResult
from tests.proxy.filters.build import ROUTE, FixedRouter, chain, request, steps


def options(**config: Any) -> PerFilterConfig:
    return PerFilterConfig.model_validate(config)


class ChainTests(SynchronousTestCase):
    def test_nothing_to_do(self) -> None:
        """A listener whose filters do nothing has none."""
        for filters in (
            (),
            (("gzip", {}),),
            (("jwt_authn", {}),),
            (("mirror", {}),),
            (("header_to_metadata", {}),),
            (("flowControlFilter", {"rules": [{"resource": "/", "threshold": 1}]}),),
            (("flowControlFilter", {"global_switch": True}),),
        ):
            self.assertIsNone(chain(*filters))

    def test_in_order(self) -> None:
        delay = {"delay": {"fixed_delay": "1s", "percentage": 100}}
        other = {"delay": {"fixed_delay": "2s", "percentage": 100}}
        self.assertEqual(steps(chain(("fault", delay), ("fault", other)), request()), [1.0, 2.0])

    def test_the_router_is_asked_between(self) -> None:
        filters = chain(("fault", {"delay": {"fixed_delay": "1s", "percentage": 100}}), ("ip_access", {}))
        assert filters is not None
        router = FixedRouter(ClusterRoute("c"))
        asked = request()
        passage = filters.passage(asked, router)  # type: ignore[arg-type]
        self.assertEqual(router.asked, 0)
        self.assertEqual(passage.advance(), 1.0)
        self.assertEqual((router.asked, asked.result), (1, ClusterRoute("c")))
        self.assertIsNone(passage.advance())
        self.assertIsNone(passage.advance())


class PayloadLimitTests(SynchronousTestCase):
    def refusal(self, size: int, limit: int = 10, result: RouteResult | None = None, **more: Any) -> Any:
        filters = chain(("payload_limit", {"max_entity_size": limit, **more}))
        found = steps(filters, request(size=size), result)
        return found[0] if found else None

    def test_known_length(self) -> None:
        for size in (0, 9, 10):
            self.assertIsNone(self.refusal(size))
        refusal = self.refusal(11, http_status=500)
        self.assertEqual((refusal.status, refusal.flag), (500, "request body larger than 10 bytes"))
        self.assertEqual(self.refusal(11).status, 413)
        self.assertIsNone(self.refusal(10**9, limit=0))

    def test_unknown_length(self) -> None:
        """The strictest of several counts."""
        filters = chain(
            ("payload_limit", {"max_entity_size": 10, "http_status": 500}),
            ("payload_limit", {"max_entity_size": 5}),
            ("payload_limit", {"max_entity_size": 7}),
        )
        asked = request(size=-1)
        self.assertEqual(steps(filters, asked), [])
        reason = "request body larger than 5 bytes"
        self.assertEqual(
            asked.limit, BodyLimit(5, LocalReply(413, reason, f"{reason}\n".encode(), ResponseFlag.DPE))
        )

    def test_options_of_routes(self) -> None:
        """They take the place of all of the listener's."""
        for result in (ClusterRoute("c"), DirectResponse(200)):
            kind: Any = type(result)
            for config, expected in (
                ({"payload_limit": {"max_entity_size": 20}}, None),
                ({"payload_limit": {"max_entity_size": 0}}, None),
                ({"payload_limit": {}}, None),
                ({"payload_limit": {"max_entity_size": 3}}, 413),
                ({"fault": {}}, 500),
            ):
                route = kind(*(("c",) if kind is ClusterRoute else (200,)), filters=options(**config))
                refusal = self.refusal(11, result=route, http_status=500)
                self.assertEqual(None if refusal is None else refusal.status, expected)


class FaultTests(SynchronousTestCase):
    def steps(self, config: dict[str, Any], draw: float = 0.0, result: Any = ROUTE, **more: Any) -> list[Any]:
        return steps(chain(("fault", config), draw=draw), request(**more), result)

    def statuses(self, *args: Any, **more: Any) -> list[int]:
        return [step.status for step in self.steps(*args, **more)]

    def test_percentages(self) -> None:
        for percentage, draw, hit in (
            (0, 0.0, False),
            (1, 0.0, True),
            (1, 0.01, False),
            (50, 0.499, True),
            (50, 0.5, False),
            (100, 0.999, True),
            (200, 0.999, True),
        ):
            abort = {"abort": {"status": 555, "percentage": percentage}}
            self.assertEqual(self.statuses(abort, draw), [555] if hit else [])
            delay = {"delay": {"fixed_delay": "3s", "percentage": percentage}}
            self.assertEqual(self.steps(delay, draw), [3.0] if hit else [])

    def test_both(self) -> None:
        config = {"delay": {"fixed_delay": "1s", "percentage": 100}, "abort": {"percentage": 100}}
        wait, refusal = self.steps(config)
        self.assertEqual((wait, refusal.status, refusal.flag), (1.0, 500, "fault injected"))

    def test_no_delay(self) -> None:
        self.assertEqual(self.steps({"delay": {"percentage": 100}}), [])

    def test_cluster(self) -> None:
        config = {"upstream_cluster": "c", "abort": {"percentage": 100}}
        for result, hit in (
            (ClusterRoute("c"), True),
            (ClusterRoute("d"), False),
            (DirectResponse(200), False),
            (None, True),  # as in MOSN
        ):
            self.assertEqual(self.statuses(config, result=result), [500] if hit else [])

    def test_headers(self) -> None:
        headers = [
            {"name": "End-User", "value": "^a+$", "regex": True},
            {"name": "method", "value": "GET"},
            {"name": "x", "value": "1"},
        ]
        config = {"headers": headers, "abort": {"percentage": 100}}
        for given, hit in (
            ({"end_user": "aa", "x": "1"}, True),
            ({"end_user": "ab", "x": "1"}, False),
            ({"end_user": "aa", "x": "2"}, False),
            ({"end_user": "aa"}, False),
        ):
            self.assertEqual(self.statuses(config, **given), [500] if hit else [])

    def test_options_of_routes(self) -> None:
        route = ClusterRoute("c", filters=options(fault={"abort": {"status": 503, "percentage": 100}}))
        filters = chain(("fault", {"abort": {"status": 500, "percentage": 100}}))
        for _ in range(2):
            [refusal] = steps(filters, request(), route)
            assert isinstance(refusal, LocalReply)
            self.assertEqual(refusal.status, 503)
        [refusal] = steps(filters, request())
        assert isinstance(refusal, LocalReply)
        self.assertEqual(refusal.status, 500)


class HeaderToMetadataTests(SynchronousTestCase):
    def check(
        self, rules: list[dict[str, Any]], labels: dict[str, str], removed: set[str], **headers: str
    ) -> None:
        asked = request(**headers)
        self.assertEqual(steps(chain(("header_to_metadata", {"request_rules": rules})), asked), [])
        self.assertEqual((asked.labels, asked.removed), (labels, removed))

    def test_present(self) -> None:
        rules = [{"header": "X-Zone", "on_header_present": {"key": "zone"}, "remove": True}]
        self.check(rules, {"zone": "a"}, {"x-zone"}, x_zone="a")
        self.check(rules, {}, set())
        fixed = [{"header": "X-Zone", "on_header_present": {"key": "zone", "value": "b"}}]
        self.check(fixed, {"zone": "b"}, set(), x_zone="a")

    def test_missing(self) -> None:
        rules = [{"header": "x-zone", "on_header_missing": {"key": "zone", "value": "c"}, "remove": True}]
        self.check(rules, {"zone": "c"}, set())
        self.check(rules, {}, {"x-zone"}, x_zone="a")

    def test_in_order(self) -> None:
        """A header that one rule has removed is missing to the next, as in MOSN."""
        self.check(
            [
                {"header": "a", "on_header_present": {"key": "k"}, "remove": True},
                {"header": "a", "on_header_missing": {"key": "l", "value": "gone"}},
                {"header": "b", "on_header_present": {"key": "k"}},
            ],
            {"k": "2", "l": "gone"},
            {"a"},
            a="1",
            b="2",
        )


class MirrorTests(SynchronousTestCase):
    def test_copies(self) -> None:
        asked = request()
        self.assertEqual(steps(chain(("mirror", {"amplification": 3})), asked), [])
        self.assertEqual(asked.copies, 3)
