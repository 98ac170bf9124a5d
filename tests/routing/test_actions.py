"""Tests for L{reverseproxy.routing.actions}."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.config.models import (
    MatchConfig,
    MirrorPolicyConfig,
    PatternConfig,
    RedirectConfig,
    RegexRewriteConfig,
    RetryPolicyConfig,
    RouteActionConfig,
    RouterConfig,
    RouterRuleConfig,
    VirtualHostConfig,
)
from reverseproxy.errors import ConfigError
from reverseproxy.routing import Cause, ClusterRoute, Headers, Mirror, RetryPolicy, RouteInput, Router
from reverseproxy.routing.hashing import source_ip_key
from tests import most
from tests.routing.build import cluster, facts

ROUTE = "virtual_hosts[0].routers[0].route"


def router(
    match: dict[str, Any] | None = None,
    *,
    rule: dict[str, Any] | None = None,
    host: dict[str, Any] | None = None,
    top: dict[str, Any] | None = None,
    draw: Any = None,
    **route: Any,
) -> Router:
    """A router with one rule."""
    rules = RouterRuleConfig(
        match=MatchConfig(**(match or {"prefix": "/"})), route=RouteActionConfig(**route), **(rule or {})
    )
    config = RouterConfig(
        router_config_name="r",
        virtual_hosts=(VirtualHostConfig(name="v", domains=("*",), routers=(rules,), **(host or {})),),
        **(top or {}),
    )
    return Router(config) if draw is None else Router(config, draw=draw)


def found(table: Router, request: RouteInput | None = None) -> ClusterRoute:
    """The route of a request."""
    result = table.match(request or facts())
    assert isinstance(result, ClusterRoute), result
    return result


def warnings(table: Router) -> list[str]:
    """What a router warns of."""
    return [str(warning) for warning in table.warnings]


def weighted(**weights: int) -> tuple[dict[str, Any], ...]:
    """Weighted clusters."""
    return tuple({"cluster": {"name": name, "weight": weight}} for name, weight in weights.items())


def added(key: str, value: str, append: bool | None = None) -> dict[str, Any]:
    """A header to add."""
    entry: dict[str, Any] = {"header": {"name": key, "value": value}}
    return entry if append is None else {**entry, "append": append}


class RouteTests(SynchronousTestCase):
    """What a route carries."""

    def test_nothing(self) -> None:
        """A route that says nothing costs nothing."""
        table = router(cluster_name="c")
        route = found(table)
        self.assertEqual(route, ClusterRoute("c", 60.0, "v"))
        self.assertIs(route, found(table))
        self.assertIsNone(route.request_mutation)
        self.assertIsNone(route.response_mutation)
        self.assertIsNone(route.metadata)
        self.assertIs(route.hash_key, source_ip_key)
        self.assertEqual(route.retry, RetryPolicy())

    def test_protocol(self) -> None:
        """The protocol is that of the route."""
        self.assertEqual(
            found(router(cluster_name="c", upstream_protocol="Http2")).upstream_protocol, "Http2"
        )

    def test_retry(self) -> None:
        """The policy is that of the route."""
        policy = RetryPolicyConfig(retry_on=True, retry_timeout=1.5, num_retries=5, status_codes=(502,))
        retry = found(router(cluster_name="c", retry_policy=policy)).retry
        self.assertEqual((retry.try_timeout, retry.retries, retry.status_codes), (1.5, 5, {502}))
        self.assertIn(Cause.STATUS, retry.on)

    def test_metadata(self) -> None:
        """The labels are those of the route; nobody can change them."""
        metadata = found(router(cluster_name="c", metadata_match={"zone": "a"})).metadata
        self.assertEqual(metadata, {"zone": "a"})
        self.assertNotIsInstance(metadata, dict)

    def test_mirrors(self) -> None:
        """Copies go to one cluster, or to none."""
        for name, percent, expected in [
            ("m", 10, (Mirror("m", 10),)),
            ("m", 0, ()),
            ("", 10, ()),
        ]:
            policy = MirrorPolicyConfig(cluster=name, percent=percent)
            table = router(rule={"request_mirror_policies": policy}, cluster_name="c")
            self.assertEqual(found(table).mirrors, expected)

    def test_autoHost(self) -> None:
        """The flag is for routes that say nothing else of the host."""
        for route, expected in [
            ({}, False),
            ({"auto_host_rewrite": True}, True),
            ({"auto_host_rewrite": True, "host_rewrite": "h"}, False),
            ({"auto_host_rewrite": True, "auto_host_rewrite_header": "h"}, False),
        ]:
            self.assertEqual(found(router(cluster_name="c", **route)).auto_host_rewrite, expected)


class MirrorTests(SynchronousTestCase):
    """L{Mirror}."""

    def test_takes(self) -> None:
        """As many of a hundred draws as it says."""
        for percent, expected in [(0, 0), (1, 1), (50, 50), (99, 99), (100, 100), (200, 100)]:
            mirror = Mirror("m", percent)
            self.assertEqual(sum(mirror.takes(draw / 100) for draw in range(100)), expected)


class HashTests(SynchronousTestCase):
    """The hash policy of a route."""

    def test_policies(self) -> None:
        """The first policy counts; of its kinds, the cookie, then the header."""
        request = facts(x_user="u", cookie="id=7")
        header, cookie = {"header": {"name": "X-User"}}, {"cookie": {"name": "id"}}
        for policies, expected in [
            ([], b"10.0.0.1"),
            ([{}], b"10.0.0.1"),
            ([{"source_ip": {}}], b"10.0.0.1"),
            ([header], b"X-User:u"),
            ([cookie], b"id=7"),
            ([{**header, **cookie, "source_ip": {}}], b"id=7"),
            ([{**header, "source_ip": {}}], b"X-User:u"),
            ([{"header": {"name": "x-other"}}], None),
        ]:
            table = router(cluster_name="c", hash_policy=tuple(policies))
            self.assertEqual(found(table).hash_key(request, "10.0.0.1"), expected)
            self.assertEqual(table.warnings, ())

    def test_several(self) -> None:
        """Further policies do not count."""
        table = router(cluster_name="c", hash_policy=({"source_ip": {}}, {"header": {"name": "a"}}))
        self.assertIs(found(table).hash_key, source_ip_key)
        self.assertEqual(
            warnings(table), [f"{ROUTE}.hash_policy[1]: does not count: only the first one does, as in MOSN"]
        )


class WeightedTests(SynchronousTestCase):
    """Clusters by weight."""

    def test_draws(self) -> None:
        """Each cluster has its part of the numbers from 0 to 1, in the order of the document."""
        draws = iter([0.0, 0.24, 0.25, 0.99, 0.0])
        table = router(weighted_clusters=weighted(b=1, none=0, a=3), draw=lambda: next(draws))
        self.assertEqual([cluster(table.match(facts())) for _ in range(5)], ["b", "b", "a", "a", "b"])

    def test_one(self) -> None:
        """Where there is no choice, nothing is drawn."""

        def never() -> float:
            raise AssertionError

        for weights in [{"a": 1}, {"a": 7, "b": 0}, {"b": 0, "a": 1}]:
            table = router(weighted_clusters=weighted(**weights), draw=never)
            self.assertEqual(cluster(table.match(facts())), "a")

    def test_rest(self) -> None:
        """What else the route says is the same for all; labels are the cluster's own."""
        clusters = (
            {"cluster": {"name": "a", "weight": 1, "metadata_match": {"zone": "a"}}},
            {"cluster": {"name": "b", "weight": 1}},
        )
        draws = iter([0.0, 0.5])
        table = router(
            weighted_clusters=clusters,
            cluster_name="c",
            metadata_match={"zone": "c"},
            timeout=2.0,
            upstream_protocol="bolt",
            draw=lambda: next(draws),
        )
        self.assertEqual(
            [found(table), found(table)],
            [
                ClusterRoute("a", 2.0, "v", "bolt", metadata={"zone": "a"}, timeout_said=True),
                ClusterRoute("b", 2.0, "v", "bolt", timeout_said=True),
            ],
        )

    def test_sameCluster(self) -> None:
        """A cluster may occur twice, with the sum of its weights."""
        clusters = weighted(a=1) + weighted(b=1) + weighted(a=2)
        draws = iter([0.1, 0.3, 0.5, 0.99])
        table = router(weighted_clusters=clusters, draw=lambda: next(draws))
        self.assertEqual([cluster(table.match(facts())) for _ in range(4)], ["a", "b", "a", "a"])

    def test_noWeight(self) -> None:
        """Weights that are all 0 leave nothing to choose."""
        error = self.assertRaises(ConfigError, router, weighted_clusters=weighted(a=0, b=0))
        self.assertEqual(str(error), f"{ROUTE}.weighted_clusters: the weights are all 0")

    def test_default(self) -> None:
        """Without anything handed in, there is a source of randomness."""
        table = router(weighted_clusters=weighted(a=1, b=1))
        self.assertEqual({cluster(table.match(facts())) for _ in range(200)}, {"a", "b"})

    @settings(deadline=None)
    @given(st.lists(st.integers(0, 20), min_size=1, max_size=5).filter(any))
    def test_fair(self, weights: list[int]) -> None:
        """Over all draws, each cluster gets exactly its part."""
        total = sum(weights)
        draws = iter([(i + 0.5) / (total * 4) for i in range(total * 4)])
        table = router(
            weighted_clusters=weighted(**{f"c{i}": weight for i, weight in enumerate(weights)}),
            draw=lambda: next(draws, 0.0),
        )
        counted = Counter(cluster(table.match(facts())) for _ in range(total * 4))
        self.assertEqual(
            counted, Counter({f"c{i}": weight * 4 for i, weight in enumerate(weights) if weight})
        )

    @settings(deadline=None, max_examples=most(20))
    @given(st.integers(), st.lists(st.integers(1, 9), min_size=2, max_size=4))
    def test_random(self, seed: int, weights: list[int]) -> None:
        """The same randomness gives the same choices, near to what the weights say."""
        clusters = weighted(**{f"c{i}": weight for i, weight in enumerate(weights)})
        first, second = (router(weighted_clusters=clusters, draw=Random(seed).random) for _ in range(2))
        choices = [cluster(first.match(facts())) for _ in range(1000)]
        self.assertEqual(choices, [cluster(second.match(facts())) for _ in range(1000)])
        for i, weight in enumerate(weights):
            share = choices.count(f"c{i}") / 1000
            self.assertLess(abs(share - weight / sum(weights)), 0.11)

    def test_largest(self) -> None:
        """The largest draw there is, of the largest weights there are, is in range."""
        largest = 2**32 - 1
        for draw in [0.0, 0.5, 1 - 2**-53]:
            table = router(weighted_clusters=weighted(a=largest, b=largest, c=1), draw=lambda draw=draw: draw)
            self.assertIn(cluster(table.match(facts())), "abc")


class ClusterVariableTests(SynchronousTestCase):
    """Clusters that a variable names."""

    def test_named(self) -> None:
        """The variable's value is the cluster; everything else is the route's."""
        table = router(cluster_variable="request_header_x-cluster", timeout=2.0)
        for name in ["a", "b", "a"]:
            self.assertEqual(
                found(table, facts(x_cluster=name)), ClusterRoute(name, 2.0, "v", timeout_said=True)
            )
        self.assertIs(found(table, facts(x_cluster="a")), found(table, facts(x_cluster="a")))

    def test_header(self) -> None:
        """A header may name it too; a variable that is given goes first."""
        self.assertEqual(cluster(router(cluster_header="X-Cluster").match(facts(x_cluster="a"))), "a")
        both = router(cluster_header="x-other", cluster_variable="request_header_x-cluster")
        self.assertEqual(cluster(both.match(facts(x_cluster="a", x_other="b"))), "a")
        self.assertIsNone(router(cluster_header="x-cluster").match(facts()))

    def test_many(self) -> None:
        """However many names there are, each gives its own cluster."""
        table = router(cluster_variable="request_header_x-cluster")
        for i in range(1000):
            self.assertEqual(cluster(table.match(facts(x_cluster=str(i)))), str(i))

    def test_noValue(self) -> None:
        """Without a value there is nothing, and no other rule is tried."""
        table = router(cluster_variable="request_header_x-cluster")
        for request in [facts(), facts(x_cluster="")]:
            self.assertIsNone(table.match(request))

    def test_unknown(self) -> None:
        """A variable that does not exist names nothing."""
        for name in ["cluster", "upstream_cluster"]:
            table = router(cluster_variable=name)
            self.assertIsNone(table.match(facts()))
            self.assertEqual(
                warnings(table),
                [
                    f"{ROUTE}.cluster_variable: there is no variable {name!r}, "
                    "so requests that match get status 404"
                ],
            )

    def test_nameFirst(self) -> None:
        """The name of a cluster counts rather than a variable."""
        table = router(cluster_name="c", cluster_variable="request_header_x-cluster")
        self.assertEqual(cluster(table.match(facts(x_cluster="a"))), "c")


class HeaderTests(SynchronousTestCase):
    """Changes to headers."""

    def request(self, table: Router, headers: Headers, request: RouteInput | None = None) -> Headers:
        """A request's headers after the changes."""
        request = request or facts("/a")
        mutation = found(table, request).request_mutation
        assert mutation is not None
        return mutation.apply(request, b"/a", b"h", headers).headers

    def response(self, table: Router, headers: Headers, request: RouteInput | None = None) -> Headers:
        """A response's headers after the changes."""
        request = request or facts("/a")
        mutation = found(table, request).response_mutation
        assert mutation is not None
        return mutation.apply(headers, request)

    def test_levels(self) -> None:
        """The route comes first, then the virtual host, then the router; each adds before it removes."""
        for what, apply in [("request", self.request), ("response", self.response)]:
            table = router(
                cluster_name="c",
                host={f"{what}_headers_to_add": (added("X-A", "host"), added("x-c", "1"))},
                top={
                    f"{what}_headers_to_add": (added("x-a", "router"),),
                    f"{what}_headers_to_remove": ("X-C", "x-b"),
                },
                **{
                    f"{what}_headers_to_add": (added("x-a", "route"), added("x-b", "1")),
                    f"{what}_headers_to_remove": ("X-Old",),
                },
            )
            self.assertEqual(
                apply(table, [(b"X-A", b"client"), (b"x-old", b"1"), (b"x-b", b"0")]),
                [(b"X-A", b"client,route,host,router")],
                what,
            )

    def test_one_side(self) -> None:
        """What is for requests is not for responses, and the other way round."""
        table = router(cluster_name="c", request_headers_to_remove=("a",))
        self.assertIsNone(found(table).response_mutation)
        table = router(cluster_name="c", response_headers_to_remove=("a",))
        self.assertIsNone(found(table).request_mutation)

    def test_append(self) -> None:
        """Append is the default; without it the old value goes."""
        for append, expected in [(None, b"1,2"), (True, b"1,2"), (False, b"2")]:
            table = router(cluster_name="c", request_headers_to_add=(added("a", "2", append),))
            self.assertEqual(self.request(table, [(b"a", b"1")]), [(b"a", expected)])

    def test_variables(self) -> None:
        """A value in percent signs is a variable; one that does not exist is a text."""
        request = RouteInput(
            "GET", "/a", "", "h", {"x": "y"}.get, variables={"upstream_host": "10.0.0.1:80"}.get
        )
        for value, expected, known in [
            ("%x-mosn-path%", b"/a", True),
            ("%request_header_X%", b"y", True),
            ("%upstream_host%", b"10.0.0.1:80", True),
            ("%downstream_remote_address%", b"", True),
            ("%nothing%", b"%nothing%", False),
            ("%", b"%", True),
            ("%%", b"%%", True),
            ("100%", b"100%", True),
            ("a%x-mosn-path%", b"a%x-mosn-path%", True),
            ("", b"", True),
        ]:
            for what, apply in [("request", self.request), ("response", self.response)]:
                table = router(cluster_name="c", **{f"{what}_headers_to_add": (added("a", value),)})
                self.assertEqual(apply(table, [], request), [(b"a", expected)], value)
                place = f"{ROUTE}.{what}_headers_to_add[0].header.value"
                warning = f"{place}: there is no variable {value}, so this very text is sent"
                self.assertEqual(warnings(table), [] if known else [warning])

    def test_protected(self) -> None:
        """Headers that are the proxy's own stay as they are."""
        table = router(
            cluster_name="c",
            top={"request_headers_to_remove": ("Transfer-Encoding",)},
            host={"response_headers_to_add": (added("Content-Length", "0"),)},
            request_headers_to_add=(added("Host", "h"), added("a", "1")),
        )
        self.assertEqual(self.request(table, [(b"Host", b"x")]), [(b"Host", b"x"), (b"a", b"1")])
        self.assertIsNone(found(table).response_mutation)
        own = "is left as it is, because it is the proxy's own"
        self.assertEqual(
            warnings(table),
            [
                f"{ROUTE}.request_headers_to_add[0].header.key: 'Host' {own}; write host_rewrite instead",
                f"request_headers_to_remove[0]: 'Transfer-Encoding' {own}",
                f"virtual_hosts[0].response_headers_to_add[0].header.key: 'Content-Length' {own}",
            ],
        )

    def test_every_kind(self) -> None:
        """Headers change whatever kind of rule has matched, also where MOSN leaves them."""
        for match in [
            {"prefix": "/"},
            {"path": "/a"},
            {"regex": "a"},
            {"variables": ({"name": "x-mosn-method", "value": "GET"},)},
            {"headers": ()},
        ]:
            table = router(match, cluster_name="c", request_headers_to_remove=("a",))
            self.assertEqual(self.request(table, [(b"a", b"1")]), [])


class RewriteTests(SynchronousTestCase):
    """Changes to paths and hosts."""

    def target(self, table: Router, path: str, target: bytes | None = None) -> bytes:
        """What a target becomes."""
        request = facts(path)
        mutation = found(table, request).request_mutation
        target = path.encode() if target is None else target
        return target if mutation is None else mutation.apply(request, target, b"h", []).target

    def regex(self, pattern: str, substitution: str) -> RegexRewriteConfig:
        """A substitution."""
        return RegexRewriteConfig(pattern=PatternConfig(regex=pattern), substitution=substitution)

    def test_prefix(self) -> None:
        """The matched prefix is replaced, or the whole matched path."""
        for match, rewrite, path, expected in [
            ({"prefix": "/a"}, "/b", "/a/c", b"/b/c"),
            ({"prefix": "/a/"}, "/", "/a/c", b"/c"),
            ({"path": "/a"}, "/b", "/a", b"/b"),
            ({"path": "/a"}, "/b", "/A", b"/b"),
            ({"regex": "/a"}, "/b", "/a/c", b"/b/c"),
            ({"regex": "/a"}, "/b", "/c/a", b"/c/a"),
        ]:
            table = router(match, cluster_name="c", prefix_rewrite=rewrite)
            self.assertEqual(self.target(table, path), expected, (match, path))
            self.assertEqual(table.warnings, ())

    def test_prefixWithoutPrefix(self) -> None:
        """Where no prefix has matched there is nothing to replace."""
        variables = ({"name": "x-mosn-method", "value": "GET"},)
        for match, reason in [
            ({"regex": "^/a"}, "has no effect, as no path begins with the text of the pattern '^/a'"),
            ({"headers": ()}, "has no effect in a rule without prefix, path or regex, as in MOSN"),
            ({"variables": variables}, "has no effect in a rule without prefix, path or regex, as in MOSN"),
        ]:
            table = router(match, cluster_name="c", prefix_rewrite="/b")
            self.assertEqual(self.target(table, "/a"), b"/a")
            self.assertEqual(warnings(table), [f"{ROUTE}.prefix_rewrite: {reason}"])

    def test_pattern(self) -> None:
        """What a pattern finds is replaced."""
        for pattern, substitution, path, expected in [
            ("^/users/([0-9]+)$", "/u?id=$1", "/users/7", b"/u%3Fid=7"),
            ("^/api(/.*)$", "$1", "/api/v1", b"/v1"),
            ("^/api(/.*)$", "$1", "/apis", b"/apis"),
            ("a", "b", "/a/a", b"/b/b"),
        ]:
            table = router(cluster_name="c", regex_rewrite=self.regex(pattern, substitution))
            self.assertEqual(self.target(table, path), expected)
            self.assertEqual(table.warnings, ())

    def test_patternWithoutPath(self) -> None:
        """A rule that does not look at the path does not change it."""
        table = router({"headers": ()}, cluster_name="c", regex_rewrite=self.regex("a", "b"))
        self.assertEqual(self.target(table, "/a"), b"/a")
        self.assertEqual(
            warnings(table),
            [f"{ROUTE}.regex_rewrite: has no effect in a rule without prefix, path or regex, as in MOSN"],
        )

    def test_prefixFirst(self) -> None:
        """The prefix counts rather than the pattern."""
        table = router(
            {"prefix": "/a"}, cluster_name="c", prefix_rewrite="/b", regex_rewrite=self.regex("c", "d")
        )
        self.assertEqual(self.target(table, "/a/c"), b"/b/c")

    def test_noPattern(self) -> None:
        """A substitution without a pattern is none."""
        table = router(cluster_name="c", regex_rewrite=self.regex("", "x"))
        self.assertIsNone(found(table).request_mutation)

    def test_missingGroup(self) -> None:
        """A group that does not exist is a warning."""
        table = router(cluster_name="c", regex_rewrite=self.regex("a", "b$1c"))
        self.assertEqual(self.target(table, "/a"), b"/b")
        self.assertEqual(
            warnings(table),
            [
                f"{ROUTE}.regex_rewrite.substitution: the pattern has no group '1c', "
                "so nothing is put in its place"
            ],
        )

    def test_badPattern(self) -> None:
        """A pattern that does not compile is an error."""
        rewrite = RegexRewriteConfig(pattern=PatternConfig.model_construct(regex="("), substitution="")
        error = self.assertRaises(ConfigError, router, cluster_name="c", regex_rewrite=rewrite)
        self.assertRegex(str(error), r"route\.regex_rewrite\.pattern\.regex: '\(' is not RE2: .+")

    def test_host(self) -> None:
        """The host is the route's, or a header's."""
        headers = [(b"X-Host", b"new")]
        for route, expected in [
            ({"host_rewrite": "fixed:80"}, b"fixed:80"),
            ({"auto_host_rewrite_header": "X-Host"}, b"new"),
            ({"host_rewrite": "fixed", "auto_host_rewrite_header": "X-Host"}, b"fixed"),
            ({"auto_host_rewrite_header": "X-Other"}, b"h"),
        ]:
            mutation = found(router(cluster_name="c", **route)).request_mutation
            assert mutation is not None
            self.assertEqual(mutation.apply(facts(), b"/", b"h", headers).host, expected)


class OtherActionTests(SynchronousTestCase):
    """What is no route has no part in all of this."""

    def test_redirect(self) -> None:
        """A redirect does not look at the route beside it."""
        table = router(rule={"redirect": RedirectConfig()}, weighted_clusters=weighted(a=0))
        self.assertNotIsInstance(table.match(facts()), ClusterRoute)
        self.assertEqual(table.warnings, ())
