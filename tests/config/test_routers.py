"""Tests for L{reverseproxy.config._routers}, as documents have it."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.config.models import (
    ClusterWeightConfig,
    RetryPolicyConfig,
    RouteActionConfig,
    RouterRuleConfig,
    VariableMatcherConfig,
)
from tests.config.documents import (
    CLUSTER,
    FILTER,
    HOST,
    ROUTER,
    RULE,
    TUNNEL_SERVER,
    edited,
    parse,
    problems,
    warnings,
)

ROUTE = f"{RULE}.route"
UINT = "write a number from 0 to 4294967295"
WRITE = 'write a Go duration such as "8s" or "300ms"'


def labels(**labels: Any) -> dict[str, Any]:
    """Labels as MOSN wraps them."""
    return {"filter_metadata": {"mosn.lb": labels}}


def rule(**route: Any) -> RouterRuleConfig:
    """The rule of a document, with a route of this kind."""
    config = parse(edited(TUNNEL_SERVER, (ROUTE, {"cluster_name": "edge", **route}))).config
    return config.server.routers[0].virtual_hosts[0].routers[0]


def action(**route: Any) -> RouteActionConfig:
    """The route of a document."""
    found = rule(**route).route
    assert found is not None
    return found


class ValueTests(SynchronousTestCase):
    """What documents come to."""

    def test_headers(self) -> None:
        """Headers to add have a key and a value, and are appended unless they say otherwise."""
        found = action(
            request_headers_to_add=[
                {"header": {"key": "X-A", "value": "%x-mosn-path%"}},
                {"header": {"key": "b"}, "append": False},
                {"Header": {"Key": "c", "Value": "1"}, "append": None},
            ],
            request_headers_to_remove=["X-B"],
            response_headers_to_add=None,
        )
        self.assertEqual(
            [(entry.header.name, entry.header.value, entry.append) for entry in found.request_headers_to_add],
            [("X-A", "%x-mosn-path%", True), ("b", "", False), ("c", "1", True)],
        )
        self.assertEqual(found.request_headers_to_remove, ("X-B",))
        self.assertEqual(found.response_headers_to_add, ())

    def test_levels(self) -> None:
        """All three levels have them."""
        added = [{"header": {"key": "a", "value": "b"}}]
        document = edited(
            TUNNEL_SERVER,
            (f"{HOST}.response_headers_to_add", added),
            (f"{ROUTER}.response_headers_to_remove", ["c"]),
        )
        self.assertEqual(warnings(document), [])
        router = parse(document).config.server.routers[0]
        self.assertEqual(router.response_headers_to_remove, ("c",))
        self.assertEqual(router.virtual_hosts[0].response_headers_to_add[0].header.name, "a")

    def test_weighted_clusters(self) -> None:
        """Each has its own labels."""
        found = action(
            cluster_name="",
            weighted_clusters=[
                {"cluster": {"name": "edge", "weight": 9, "metadata_match": labels(zone="a")}},
                {"cluster": {"name": "edge"}},
            ],
        )
        self.assertEqual(
            [entry.cluster for entry in found.weighted_clusters],
            [
                ClusterWeightConfig(name="edge", weight=9, metadata_match={"zone": "a"}),
                ClusterWeightConfig(name="edge"),
            ],
        )

    def test_metadata_match(self) -> None:
        """Labels are unwrapped; nothing is none."""
        self.assertEqual(action(metadata_match=labels(zone="a", b="")).metadata_match, {"zone": "a", "b": ""})
        for nothing in [None, {}, {"filter_metadata": None}, labels()]:
            self.assertEqual(action(metadata_match=nothing).metadata_match, {})

    def test_retry_policy(self) -> None:
        """Durations are seconds."""
        policy = {"retry_on": True, "retry_timeout": "1500ms", "num_retries": 5, "status_codes": [500, 429]}
        self.assertEqual(
            action(retry_policy=policy).retry_policy,
            RetryPolicyConfig(retry_on=True, retry_timeout=1.5, num_retries=5, status_codes=(500, 429)),
        )
        self.assertEqual(action(retry_policy={}).retry_policy, RetryPolicyConfig())
        self.assertIsNone(action(retry_policy=None).retry_policy)

    def test_hash_policy(self) -> None:
        """There are three kinds."""
        found = action(
            hash_policy=[
                {"header": {"key": "X-A"}},
                {"cookie": {"name": "id", "ttl": "0s"}},
                {"source_ip": {}},
            ]
        ).hash_policy
        assert found[0].header is not None
        assert found[1].cookie is not None
        self.assertEqual((found[0].header.name, found[1].cookie.name), ("X-A", "id"))
        self.assertIsNotNone(found[2].source_ip)

    def test_rewrites(self) -> None:
        """Patterns are in an object of their own."""
        found = action(regex_rewrite={"pattern": {"regex": "^/a"}, "substitution": "/b"}, host_rewrite="h:80")
        assert found.regex_rewrite is not None
        self.assertEqual((found.regex_rewrite.pattern.regex, found.regex_rewrite.substitution), ("^/a", "/b"))
        self.assertEqual(found.host_rewrite, "h:80")

    def test_mirror(self) -> None:
        """There is one."""
        document = edited(
            TUNNEL_SERVER, (f"{RULE}.request_mirror_policies", {"cluster": "edge", "percent": 10})
        )
        self.assertEqual(warnings(document), [])
        found = parse(document).config.server.routers[0].virtual_hosts[0].routers[0].request_mirror_policies
        assert found is not None
        self.assertEqual((found.cluster, found.percent), ("edge", 10))

    def test_variables(self) -> None:
        """Models are in lower case, and "and" if there is none."""
        variables = [
            {"name": "x-mosn-path", "value": "/", "model": "OR"},
            {"name": "x-mosn-method", "regex": "G"},
            {"name": "x-mosn-method", "regex": "G", "model": ""},
        ]
        document = edited(TUNNEL_SERVER, (f"{RULE}.match", {"variables": variables}))
        self.assertEqual(warnings(document), [])
        found = parse(document).config.server.routers[0].virtual_hosts[0].routers[0].match.variables
        self.assertEqual(
            found,
            (
                VariableMatcherConfig(name="x-mosn-path", value="/", model="or"),
                VariableMatcherConfig(name="x-mosn-method", regex="G"),
                VariableMatcherConfig(name="x-mosn-method", regex="G", model="and"),
            ),
        )


class ErrorTests(SynchronousTestCase):
    """Values that can't be used."""

    maxDiff = None

    def check(self, place: str, value: Any, *found: str) -> None:
        """A value's errors; what begins with a colon or a dot is at or below its place."""
        with self.subTest(place=place, value=value):
            expected = [f"{place}{message}" if message[0] in ":.[" else message for message in found]
            self.assertEqual(problems(edited(TUNNEL_SERVER, (place, value))), expected)

    def test_headers(self) -> None:
        """Headers have names, and values that fit on a line."""
        for place in [ROUTE, HOST, ROUTER]:
            for key in ["request_headers_to_add", "response_headers_to_add"]:
                self.check(
                    f"{place}.{key}",
                    [
                        {},
                        {"header": {}},
                        {"header": {"key": "", "value": "a"}},
                        {"header": {"key": "a b", "value": "c\r\nd: e"}},
                        {"header": {"key": ":path", "value": 1}, "append": "true"},
                        "a: b",
                    ],
                    "[0].header: missing key: the header",
                    "[1].header.key: missing key: the header's name, in any case",
                    "[2].header.key: is empty: the header's name, in any case",
                    '[3].header.key: "a b" is not the name of a header',
                    '[3].header.value: "c\\r\\nd: e" has control characters, which can\'t be in a header',
                    '[4].header.key: ":path" is not the name of a header',
                    "[4].header.value: expected a text in quotation marks, got the number 1",
                    '[4].append: expected true or false, got the text "true"',
                    '[5]: expected an object, got the text "a: b"',
                )
            for key in ["request_headers_to_remove", "response_headers_to_remove"]:
                self.check(
                    f"{place}.{key}",
                    ["a", "", "a\n", 1],
                    "[1]: is empty; write the name of a header",
                    '[2]: "a\\n" is not the name of a header',
                    "[3]: expected a text in quotation marks, got the number 1",
                )
                self.check(f"{place}.{key}", "a", ': expected a list, got the text "a"')

    def test_weighted_clusters(self) -> None:
        """Clusters have names, and weights that are not all 0."""
        self.check(
            f"{ROUTE}.weighted_clusters",
            [
                {},
                {"cluster": {}},
                {"cluster": {"name": "edge", "weight": -1}},
                {"cluster": {"name": "edge", "weight": 1.5, "metadata_match": labels(a=1)}},
            ],
            "[0].cluster: missing key: the cluster",
            "[1].cluster.name: missing key: the cluster",
            f"[2].cluster.weight: -1 is out of range; {UINT}",
            "[3].cluster.weight: expected a whole number, got the number 1.5",
            '[3].cluster.metadata_match.filter_metadata["mosn.lb"].a: expected a text in quotation marks, '
            "got the number 1",
        )
        self.check(
            f"{ROUTE}.weighted_clusters",
            [{"cluster": {"name": "edge"}}],
            ": the weights are all 0; give a cluster a weight",
        )

    def test_metadata_match(self) -> None:
        """Labels are texts."""
        self.check(f"{ROUTE}.metadata_match", 5, ": expected an object, got the number 5")
        self.check(
            f"{ROUTE}.metadata_match",
            labels(a=True),
            '.filter_metadata["mosn.lb"].a: expected a text in quotation marks, got true',
        )

    def test_upstream_protocol(self) -> None:
        self.check(
            f"{ROUTE}.upstream_protocol", "http2", ': "http2" is not a protocol; did you mean "Http2"?'
        )
        self.check(f"{ROUTE}.upstream_protocol", "Auto", ': "Auto" is not a protocol to speak to hosts')

    def test_retry_policy(self) -> None:
        """Times have units, and statuses are statuses."""
        self.check(
            f"{ROUTE}.retry_policy",
            {"retry_on": "yes", "retry_timeout": 5, "num_retries": -1, "status_codes": [500, 99, 600, "502"]},
            '.retry_on: expected true or false, got the text "yes"',
            '.retry_timeout: 5 has no unit; write "5s" if it counts seconds, "5ms" if milliseconds',
            f".num_retries: -1 is out of range; {UINT}",
            ".status_codes[1]: 99 is out of range; write a number from 100 to 599",
            ".status_codes[2]: 600 is out of range; write a number from 100 to 599",
            '.status_codes[3]: expected a whole number, got the text "502"',
        )
        self.check(
            f"{ROUTE}.retry_policy",
            {"retry_timeout": None},
            f".retry_timeout: null is not a duration; {WRITE}",
        )
        self.check(f"{ROUTE}.retry_policy", [], ": expected an object, got a list")

    def test_hash_policy(self) -> None:
        """What is hashed by has a name."""
        self.check(
            f"{ROUTE}.hash_policy",
            [{"header": {}}, {"cookie": {"ttl": "1"}}, {"header": {"key": "a b"}}, {"source_ip": True}],
            "[0].header.key: missing key: the header's name, in any case",
            '[1].cookie.ttl: "1" has no unit; write "1s" if it counts seconds, "1ms" if milliseconds',
            "[1].cookie.name: missing key: the cookie's name",
            '[2].header.key: "a b" is not the name of a header',
            "[3].source_ip: expected an object, got true",
        )

    def test_rewrites(self) -> None:
        """Patterns compile, and hosts are hosts."""
        self.check(
            f"{ROUTE}.regex_rewrite",
            {"pattern": {"regex": "a(b"}, "substitution": 5},
            '.pattern.regex: "a(b" is not a regular expression that RE2 takes: missing ): a(b',
            ".substitution: expected a text in quotation marks, got the number 5",
        )
        for host in ["a/b", "http://a", "a b", "a\n", "\u00e9"]:
            shown = host.replace("\n", "\\n")
            self.check(
                f"{ROUTE}.host_rewrite",
                host,
                f': "{shown}" is not a host; write "host" or "host:port"',
            )

    def test_mirror(self) -> None:
        """A part of the requests is a number."""
        self.check(
            f"{RULE}.request_mirror_policies",
            {"cluster": 1, "percent": -1},
            ".cluster: expected a text in quotation marks, got the number 1",
            f".percent: -1 is out of range; {UINT}",
        )

    def test_variables(self) -> None:
        """Variables have names, patterns compile, and models are "and" or "or"."""
        self.check(
            f"{RULE}.match",
            {"variables": [{"value": "a"}, {"name": "a", "regex": "(", "model": "xor"}]},
            '.variables[0].name: missing key: the variable, such as "x-mosn-method", '
            '"x-mosn-querystring", "request_header_NAME" or "Http1_cookie_NAME"',
            '.variables[1].regex: "(" is not a regular expression that RE2 takes: missing ): (',
            '.variables[1].model: "xor" is not allowed; write "and" or "or"',
        )


class WarningTests(SynchronousTestCase):
    """What loads, but not without a word."""

    maxDiff = None

    def check(self, place: str, value: Any, *found: str) -> None:
        """A value's warnings; what begins with a dot is below its place."""
        with self.subTest(place=place, value=value):
            expected = [f"{place}{message}" if message[0] in ":.[" else message for message in found]
            self.assertEqual(warnings(edited(TUNNEL_SERVER, (place, value))), expected)

    def test_everything(self) -> None:
        """All that is acted on gives no warning."""
        self.check(
            ROUTE,
            {
                "cluster_name": "edge",
                "upstream_protocol": "Http1",
                "hash_policy": [{"header": {"key": "a"}}],
                "metadata_match": labels(a="b"),
                "timeout": "5s",
                "retry_policy": {"retry_on": True},
                "prefix_rewrite": "/",
                "host_rewrite": "h",
                "request_headers_to_add": [{"header": {"key": "a", "value": "b"}}],
                "request_headers_to_remove": ["c"],
                "response_headers_to_add": [{"header": {"key": "a", "value": "b"}}],
                "response_headers_to_remove": ["c"],
            },
        )

    def test_not_acted_on(self) -> None:
        """What MOSN does not act on either is worth a note at the most."""
        loaded = parse(
            edited(
                TUNNEL_SERVER,
                (
                    ROUTE,
                    {
                        "cluster_name": "edge",
                        "regex_rewrite": {"pattern": {"google_re2": {"max_program_size": 1}, "regex": "a"}},
                        "hash_policy": [{"cookie": {"name": "a", "path": "/", "ttl": "5s"}}],
                    },
                ),
                (
                    f"{RULE}.request_mirror_policies",
                    {"cluster": "edge", "percent": 1, "trace_sampled": True},
                ),
            )
        )
        self.assertEqual(loaded.warnings, ())
        self.assertEqual(
            [(note.path, note.message) for note in loaded.notes],
            [
                (
                    f"{ROUTE}.regex_rewrite.pattern.google_re2",
                    "not acted on, as in MOSN: RE2 has bounds of its own",
                ),
                (
                    f"{ROUTE}.hash_policy[0].cookie.path",
                    "not acted on, as in MOSN: cookies are read, and none is made",
                ),
                (
                    f"{ROUTE}.hash_policy[0].cookie.ttl",
                    "not acted on, as in MOSN: cookies are read, and none is made",
                ),
                (
                    f"{RULE}.request_mirror_policies.trace_sampled",
                    "not acted on, as in MOSN: there is no tracing of copies",
                ),
            ],
        )
        self.check(
            ROUTE,
            {"cluster_name": "edge", "cluster_header": "x-cluster"},
            ".cluster_header: does not count, because cluster_name is given as well",
        )

    def test_rpc_names_no_host(self) -> None:
        document = edited(
            TUNNEL_SERVER,
            ("servers[0].listeners[0].filter_chains[0].filters[0].config.downstream_protocol", "Http1,bolt"),
            (f"{HOST}.domains", ["a.example", "*"]),
        )
        self.assertEqual(
            warnings(document),
            [
                "servers[0].routers[0].virtual_hosts: requests of bolt name no host: they are answered with "
                '404, as there are other domains than "*"'
            ],
        )
        self.assertEqual(warnings(edited(document, (f"{HOST}.domains", ["*"]))), [])

    def test_precedence(self) -> None:
        """Of keys for the same thing only one counts."""
        weighted = [{"cluster": {"name": "edge", "weight": 1}}]
        self.check(
            ROUTE,
            {
                "cluster_name": "edge",
                "cluster_variable": "x",
                "weighted_clusters": weighted,
                "metadata_match": labels(a="b"),
            },
            ".cluster_name: does not count, because weighted_clusters is given as well",
            ".cluster_variable: does not count, because weighted_clusters is given as well",
            '.metadata_match.filter_metadata["mosn.lb"]: '
            "does not count, because weighted_clusters is given as well",
        )
        self.check(
            ROUTE,
            {
                "cluster_name": "edge",
                "cluster_variable": "x",
                "prefix_rewrite": "/",
                "regex_rewrite": {"pattern": {"regex": "a"}},
                "host_rewrite": "h",
                "auto_host_rewrite_header": "h",
                "auto_host_rewrite": True,
                "hash_policy": [{"header": {"key": "a"}, "cookie": {"name": "a"}, "source_ip": {}}],
            },
            ".cluster_variable: does not count, because cluster_name is given as well",
            ".regex_rewrite: does not count, because prefix_rewrite is given as well",
            ".auto_host_rewrite_header: does not count, because host_rewrite is given as well",
            ".auto_host_rewrite: does not count, because host_rewrite is given as well",
            ".hash_policy[0].header: does not count, because cookie is given as well",
            ".hash_policy[0].source_ip: does not count, because cookie is given as well",
        )

    def test_autoHost(self) -> None:
        """The names of hosts are sent only where they are resolved."""
        reason = ".auto_host_rewrite: has no effect: the cluster is not of type STRICT_DNS"
        weighted = [{"cluster": {"name": "edge", "weight": 1}}]
        route = {"auto_host_rewrite": True}
        self.check(ROUTE, {"cluster_name": "edge", **route}, reason)
        self.check(ROUTE, {"weighted_clusters": weighted, **route}, reason)
        self.check(ROUTE, {"cluster_variable": "request_header_x", **route})
        document = edited(
            TUNNEL_SERVER,
            (ROUTE, {"cluster_name": "edge", **route}),
            (f"{CLUSTER}.type", "STRICT_DNS"),
        )
        self.assertNotIn(f"{ROUTE}{reason}", warnings(document))

    def test_protocols(self) -> None:
        """What clients speak can be turned into some protocols only."""
        place = f"{FILTER}.config.downstream_protocol"
        for downstream, upstream, reason in (
            ("Http1", "Http2", ""),
            ("Http1,bolt", "Http2", ""),
            ("Http1,bolt", "bolt", ""),
            ("bolt", "bolt", ""),
            ("bolt", "X", ""),
            ("Auto", "dubbo", ""),
            ("example", "example", ""),
            ("bolt", "Http1", "bolt can't be turned into Http1"),
            ("bolt,dubbo", "boltv2", "bolt and dubbo can't be turned into boltv2"),
            ("Http2", "bolt", "Http2 can't be turned into bolt"),
            ("Http2", "tars", "Http2 can't be turned into tars"),
            ("Http1", "X", "Http1 can't be turned into X"),
        ):
            document = edited(TUNNEL_SERVER, (place, downstream), (f"{ROUTE}.upstream_protocol", upstream))
            expected = [f"{ROUTE}.upstream_protocol: {reason}: requests that match are refused"]
            self.assertEqual(warnings(document), expected if reason else [], (downstream, upstream))

    def test_match(self) -> None:
        """The first kind of rule counts; some kinds do not look at headers."""
        headers = [{"name": "a", "value": "b"}]
        variables = [{"name": "x-mosn-path", "value": "/"}]
        self.check(
            f"{RULE}.match",
            {"prefix": "/", "headers": headers, "variables": variables},
            ".variables: does not count, because prefix is given as well",
        )
        self.check(
            f"{RULE}.match",
            {"headers": headers, "variables": variables},
            ".headers: does not count, because variables is given as well",
        )
        self.check(
            f"{RULE}.match",
            {
                "headers": headers,
                "dsl_expressions": [{"expression": "true"}],
                "ignore_unsupported": True,
            },
            ".headers: does not count, because dsl_expressions is given as well",
            ".dsl_expressions: expressions are not supported: the rule would take no requests, but leave "
            "them to the next ones; ignored, as ignore_unsupported is true",
        )

    def test_clusters(self) -> None:
        """Clusters that do not exist, or have no name."""
        unknown = "requests that match are answered with 404: there is no cluster"
        self.check(
            f"{ROUTE}",
            {
                "weighted_clusters": [
                    {"cluster": {"name": "edge", "weight": 1}},
                    {"cluster": {"name": "egde", "weight": 1}},
                ]
            },
            f'.weighted_clusters[1].cluster.name: {unknown} "egde"; did you mean "edge"?',
        )
        self.check(ROUTE, {"cluster_variable": "request_header_x"})
        self.check(ROUTE, {}, ".cluster_name: missing key: requests that match are answered with 404")

    def test_mirror(self) -> None:
        """Mirrors that get nothing."""
        place = f"{RULE}.request_mirror_policies"
        self.check(
            place,
            {"cluster": "other", "percent": 1},
            '.cluster: no copies are sent: there is no cluster "other"; defined: "edge"',
        )
        self.check(place, {"cluster": "edge"}, ".percent: missing key: no copies are sent")
        self.check(place, {"percent": 1}, ".cluster: missing key: no copies are sent")
        document = edited(
            TUNNEL_SERVER,
            (place, {"cluster": "edge", "percent": 1}),
            (f"{RULE}.direct_response", {"status": 204}),
        )
        self.assertEqual(
            warnings(document),
            [
                f"{ROUTE}: does not count, because direct_response is given as well",
                f"{place}: does not count, because direct_response is given as well",
            ],
        )
