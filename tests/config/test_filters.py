"""Filters of requests and other access rules are applied, or the configuration is an error."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.config.models import (
    FaultConfig,
    FlowControlConfig,
    HeaderToMetadataConfig,
    IpAccessConfig,
    IpListConfig,
    MirrorFilterConfig,
    PayloadLimitConfig,
)
from tests.config.documents import (
    AGENT,
    CHAIN,
    CLUSTER,
    CONFIG,
    FILTER,
    HOST,
    LISTENER,
    RULE,
    TUNNEL_SERVER,
    edited,
    parse,
    problems,
    warnings,
)

FILTERS = f"{LISTENER}.stream_filters"
CHOICES = "(choices: ip_access, payload_limit, flowControlFilter, fault, header_to_metadata, mirror)"
HINT = '; write "ignore_unsupported": true beside it to run without'
IGNORED = "; ignored, as ignore_unsupported is true"
PEM = "-----BEGIN CERTIFICATE-----\n"
TLS = {"status": True, "cert_chain": PEM, "private_key": PEM}
NOT_THE_ONE = (
    "connections would be served by this listener, not by the one with the address that they were made to"
)
VERIFIED = "there are no extensions that verify certificates: they would be verified as usual"

UNSUPPORTED: list[tuple[str, Any, str, str]] = [
    # (place, value, where the error is below it, the error)
    *(
        (
            FILTERS,
            [{"type": name, "config": {"anything": 1}}],
            "[0].type",
            f'"{name}" is not supported, and may protect something {CHOICES}',
        )
        for name in (
            "jwt_authn",
            "rbac",
            "proxywasm",
            "dsl",
            "transcoder",
            "seata",
            "mixer",
            "my_own",
            "IP_ACCESS",
        )
    ),
    (
        FILTERS,
        [{"go_plugin_config": {"so_path": "x.so"}}],
        "[0].go_plugin_config",
        "there are no plug-ins of Go's in this process",
    ),
    (
        f"{CHAIN}.filters[1]",
        {"type": "network_acl", "config": {}},
        ".type",
        '"network_acl" is not supported, and may protect something '
        "(choices: proxy, tcp_proxy, tunnel, connection_manager)",
    ),
    (
        f"{LISTENER}.listener_filters",
        [{"type": "original_dst"}],
        "",
        f"there are no filters of accepted sockets, of which MOSN has original_dst: {NOT_THE_ONE}",
    ),
    (f"{LISTENER}.use_original_dst", "redirect", "", f"there is no transparent proxying: {NOT_THE_ONE}"),
    (
        f"{FILTER}.config.router_handler_name",
        "mine",
        "",
        "there are no extensions that make routes: they would be those of router_config_name",
    ),
    (f"{CHAIN}.tls_context", {**TLS, "type": "spiffe"}, ".type", VERIFIED),
    (f"{CHAIN}.tls_context", {**TLS, "extend_verify": {"san": "x"}}, ".extend_verify", VERIFIED),
    (
        f"{CHAIN}.tls_context",
        {**TLS, "callbacks": ["x"]},
        ".callbacks",
        "there are no extensions that are called at handshakes",
    ),
    (
        f"{CHAIN}.tls_context_set",
        [{**TLS, "sds_source": {"CertificateConfig": {}}}],
        "[0].sds_source",
        "certificates, and what peers are verified against, can't be had from a secret discovery service",
    ),
    (f"{CLUSTER}.tls_context", {"status": True, "type": "spiffe"}, ".type", VERIFIED),
    (
        f"{RULE}.match",
        {"dsl_expressions": [{"expression": "false"}]},
        ".dsl_expressions",
        "expressions are not supported: the rule would take no requests, but leave them to the next ones",
    ),
    (
        f"{HOST}.require_tls",
        "ALL",
        "",
        "requests in plaintext would be served, as in MOSN; have a listener with TLS alone instead",
    ),
    (
        f"{RULE}.per_filter_config",
        {"ip_access": {"default_action": "deny"}},
        ".ip_access",
        "ip_access has no options for single routes, in MOSN neither; write them at the listener",
    ),
    (
        f"{HOST}.per_filter_config",
        {"flowControlFilter": {"global_switch": True}},
        ".flowControlFilter",
        "flowControlFilter has no options for single routes, in MOSN neither; write them at the listener",
    ),
    (
        f"{RULE}.per_filter_config",
        {"payload_limit": {"max_entity_size": 5}},
        ".payload_limit",
        "has no effect: no listener whose requests come here has this filter",
    ),
    (
        FILTERS,
        [{"type": "flowControlFilter", "config": {"callback_name": "mine"}}],
        "[0].config.callback_name",
        "there are no extensions of flow control",
    ),
    (
        FILTERS,
        [{"type": "flowControlFilter", "config": {"dynamic_data_resources": [{"resource_type": "nacos"}]}}],
        "[0].config.dynamic_data_resources",
        "rules can't be had from elsewhere than the file",
    ),
    (
        FILTERS,
        [{"type": "flowControlFilter", "config": {"limit_key_type": "HEADER"}}],
        "[0].config.limit_key_type",
        '"HEADER" is not supported, and may protect something (choices: PATH, ARG, URI)',
    ),
    (
        FILTERS,
        [
            {
                "type": "flowControlFilter",
                "config": {
                    "global_switch": True,
                    "rules": [{"resource": "/", "threshold": 1, "tokenCalculateStrategy": 2}],
                },
            }
        ],
        "[0].config.rules[0].tokenCalculateStrategy",
        "2 (MemoryAdaptive) is not supported: there would be no such rule",
    ),
    (
        FILTERS,
        [{"type": "mirror", "config": {"broadcast": True}}],
        "[0].config.broadcast",
        "requests would be sent to the route's cluster too",
    ),
    # misspelt
    (
        f"{CHAIN}.tls_contexts",
        TLS,
        "",
        'unknown key; did you mean "tls_context", which protects something?',
    ),
    (
        f"{CHAIN}.tls_context",
        {**TLS, "require_client_certs": True},
        ".require_client_certs",
        'unknown key; did you mean "require_client_cert", which protects something?',
    ),
    (
        f"{LISTENER}.stream_filter",
        [{"type": "ip_access"}],
        "",
        'unknown key; did you mean "stream_filters", which protects something?',
    ),
    (
        "servers[0].listeners[1].filter_chains[0].filters[0].config",
        {"credential_polcy": "static"},
        ".credential_polcy",
        'unknown key; did you mean "credential_policy"?',
    ),
    (
        "servers[0].listeners[1].filter_chains[0].filters[0].config",
        {"allow": ["a"]},
        ".allow",
        "unknown key",
    ),
    (
        FILTERS,
        [{"type": "ip_access", "config": {"default": "deny"}}],
        "[0].config.default",
        "unknown key",
    ),
    (
        FILTERS,
        [{"type": "payload_limit", "config": {"max_entity_sizes": 5, "max_entity_size": 6}}],
        "[0].config.max_entity_sizes",
        'unknown key; did you mean "max_entity_size"?',
    ),
]


class UnsupportedTests(SynchronousTestCase):
    maxDiff = None

    def test_is_an_error(self) -> None:
        for place, value, below, problem in UNSUPPORTED:
            with self.subTest(place=place + below, value=value):
                self.assertEqual(
                    problems(edited(TUNNEL_SERVER, (place, value))), [f"{place}{below}: {problem}{HINT}"]
                )

    def test_may_be_ignored_from_the_top(self) -> None:
        """What may be ignored in an object may be ignored in what is within."""
        for place, value, below, problem in UNSUPPORTED:
            with self.subTest(place=place + below, value=value):
                document = edited(TUNNEL_SERVER, (place, value))
                document["ignore_unsupported"] = True
                self.assertIn(f"{place}{below}: {problem}{IGNORED}", warnings(document))

    def test_may_be_ignored_beside_it(self) -> None:
        """The object that has it may say so, in any case."""
        document = edited(
            TUNNEL_SERVER, (FILTERS, [{"type": "jwt_authn", "IGNORE_unsupported": True}, {"type": "rbac"}])
        )
        self.assertEqual(
            problems(document),
            [f'{FILTERS}[1].type: "rbac" is not supported, and may protect something {CHOICES}{HINT}'],
        )
        for place, keys in (
            (f"{CHAIN}.tls_context", {**TLS, "type": "x"}),
            (f"{RULE}.match", {"dsl_expressions": [{"a": 1}]}),
            (HOST, {**TUNNEL_SERVER["servers"][0]["routers"][0]["virtual_hosts"][0], "require_tls": "ALL"}),
            (LISTENER, {**TUNNEL_SERVER["servers"][0]["listeners"][0], "use_original_dst": "tproxy"}),
        ):
            [problem] = problems(edited(TUNNEL_SERVER, (place, keys)))
            self.assertIn(HINT, problem)
            found = warnings(edited(TUNNEL_SERVER, (place, {**keys, "ignore_unsupported": True})))
            self.assertTrue(any(IGNORED in warning for warning in found), found)

    def test_an_inner_object_may_take_it_back(self) -> None:
        document = edited(
            TUNNEL_SERVER,
            (f"{LISTENER}.ignore_unsupported", True),
            (FILTERS, [{"type": "jwt_authn"}, {"type": "rbac", "ignore_unsupported": False}]),
        )
        [problem] = problems(document)
        self.assertTrue(problem.startswith(f"{FILTERS}[1].type"), problem)

    def test_it_is_true_or_false(self) -> None:
        self.assertEqual(
            problems(edited(TUNNEL_SERVER, (f"{LISTENER}.ignore_unsupported", "yes"))),
            [f'{LISTENER}.ignore_unsupported: expected true or false, got the text "yes"'],
        )

    def test_it_is_no_unknown_key(self) -> None:
        for place in ("", LISTENER, CHAIN, FILTER, f"{FILTER}.config", HOST, RULE, f"{RULE}.route", CLUSTER):
            name = f"{place}.ignore_unsupported" if place else "ignore_unsupported"
            self.assertEqual(warnings(edited(TUNNEL_SERVER, (name, True))), [])

    def test_a_tls_context_that_is_off(self) -> None:
        """Nothing in it counts."""
        for context in ({"type": "x"}, {"status": False, "callbacks": ["x"]}):
            found = warnings(edited(TUNNEL_SERVER, (f"{CHAIN}.tls_context", context)))
            self.assertFalse([warning for warning in found if "extensions" in warning], found)

    def test_of_an_agent(self) -> None:
        context = {"status": True, "insecure_skip": True, "extend_verify": {"a": 1}}
        self.assertEqual(
            problems(edited(AGENT, (f"{CONFIG}.tls_context", context))),
            [f"{CONFIG}.tls_context.extend_verify: {VERIFIED}{HINT}"],
        )
        self.assertEqual(
            problems(edited(AGENT, (f"{CONFIG}.tls_contxt", {"status": True}))),
            [
                f'{CONFIG}.tls_contxt: unknown key; did you mean "tls_context", which protects something?'
                f"{HINT}"
            ],
        )

    def test_asking_for_nothing(self) -> None:
        for place, value in (
            (f"{HOST}.require_tls", "NONE"),
            (f"{HOST}.require_tls", "no"),
            (f"{LISTENER}.listener_filters", []),
            (f"{LISTENER}.use_original_dst", ""),
            (f"{RULE}.per_filter_config", {}),
            (f"{RULE}.per_filter_config", {"ip_access": None}),
            (FILTERS, [{"type": "mirror", "config": {"broadcast": False}}]),
        ):
            self.assertEqual(warnings(edited(TUNNEL_SERVER, (place, value))), [])


class HarmlessTests(SynchronousTestCase):
    def test_skipped(self) -> None:
        for name, reason in {
            "gzip": "bodies are passed on as hosts send them",
            "grpc_metric": "it counts requests for metrics",
            "dubbo_stream": "it counts requests for metrics",
            "istio.stats": "it counts requests for metrics",
            "fault_tolerance": "hosts that fail are left out by outlier_detection instead",
            "healthcheck": "MOSN does not have it any more either",
        }.items():
            document = edited(TUNNEL_SERVER, (FILTERS, [{"type": name, "config": {"a": 1}}]))
            self.assertEqual(warnings(document), [f'{FILTERS}[0].type: "{name}" is skipped: {reason}'])
            [each] = parse(document).config.server.listeners[0].stream_filters
            self.assertIsNone(each.config)

    def test_routes(self) -> None:
        reason = "no filter of this name is supported, so that its options do not count"
        for place in (RULE, HOST):
            self.assertEqual(
                warnings(edited(TUNNEL_SERVER, (f"{place}.per_filter_config", {"mixer": {"a": 1}}))),
                [f"{place}.per_filter_config.mixer: {reason}"],
            )
        self.assertEqual(
            warnings(edited(TUNNEL_SERVER, (f"{RULE}.per_filter_config", {"fault": {}}))),
            [
                f"{RULE}.per_filter_config.fault: has no effect: no listener whose requests come here has "
                "this filter"
            ],
        )


class SupportedTests(SynchronousTestCase):
    """What works is taken without a word."""

    def load(self, kind: str, config: Any) -> Any:
        loaded = parse(edited(TUNNEL_SERVER, (FILTERS, [{"type": kind, "config": config}])))
        self.assertEqual(loaded.warnings, ())
        [each] = loaded.config.server.listeners[0].stream_filters
        self.assertEqual(each.type, kind)
        return each.config

    def test_ip_access(self) -> None:
        config = self.load(
            "ip_access",
            {
                "default_action": "deny",
                "header": "X-Client-IP",
                "ips": [
                    {"action": "allow", "addrs": ["10.0.0.1", "10.1.2.3/8", "::1", "2001:db8::/32"]},
                    {"action": "", "addrs": ["::ffff:10.0.0.0/104", "::ffff:1.2.3.4"]},
                ],
            },
        )
        assert isinstance(config, IpAccessConfig)
        self.assertEqual((config.default_action, config.header), ("deny", "x-client-ip"))
        self.assertEqual(config.ips[1].action, "allow")
        networks = ("10.0.0.1/32", "10.0.0.0/8", "::1/128", "2001:db8::/32")
        self.assertEqual(config.ips[0].networks, tuple(map(ip_network, networks)))
        self.assertEqual(config.ips[1].networks, (ip_network("10.0.0.0/8"), ip_network("1.2.3.4/32")))

    def test_ranges_that_are_not_mapped(self) -> None:
        for text in ("::/0", "::ffff:0:0/95", "::/96"):
            self.assertEqual(IpListConfig(addrs=(text,)).networks, (ip_network(text, strict=False),))

    def test_payload_limit(self) -> None:
        """By MOSN's name, which has a blank at its end, as well."""
        for name in ("max_entity_size", "max_entity_size "):
            config = self.load("payload_limit", {name: 1024, "http_status": 500})
            assert isinstance(config, PayloadLimitConfig)
            self.assertEqual((config.max_entity_size, config.http_status), (1024, 500))
        self.assertEqual(self.load("payload_limit", {"max_entity_size": 1}).http_status, 413)

    def test_fault(self) -> None:
        config = self.load(
            "fault",
            {
                "delay": {"percentage": 20, "fixed_delay": "1s"},
                "abort": {"status": 0, "percentage": 10},
                "upstream_cluster": "edge",
                "headers": [{"name": "end-user", "value": "^a", "regex": True}],
            },
        )
        assert isinstance(config, FaultConfig)
        self.assertEqual((config.delay.percentage, config.delay.fixed_delay), (20, 1.0))
        self.assertEqual((config.abort.status, config.abort.percentage), (500, 10))

    def test_flow_control(self) -> None:
        """MOSN's own sample, with the keys of an older Sentinel."""
        document = {
            "app_name": "sample",
            "log_path": "/tmp/sentinel",
            "global_switch": True,
            "monitor": False,
            "limit_key_type": "PATH",
            "action": {"status": 500, "body": "blocked"},
            "rules": [{"resource": "/test", "limitApp": "x", "grade": 1, "threshold": 1, "strategy": 0}],
        }
        config = self.load("flowControlFilter", document)
        assert isinstance(config, FlowControlConfig)
        self.assertEqual((config.rules[0].resource, config.rules[0].threshold), ("/test", 1.0))
        self.assertEqual(self.load("flowControlFilter", {}).action.status, 509)

    def test_header_to_metadata(self) -> None:
        config = self.load(
            "header_to_metadata",
            {
                "request_rules": [
                    {"header": "x-zone", "on_header_present": {"key": "zone"}, "remove": True},
                    {"header": "x-zone", "on_header_missing": {"key": "zone", "value": "a"}},
                ]
            },
        )
        assert isinstance(config, HeaderToMetadataConfig)
        self.assertEqual(len(config.request_rules), 2)

    def test_mirror(self) -> None:
        config = self.load("mirror", {"amplification": 3})
        assert isinstance(config, MirrorFilterConfig)
        self.assertEqual(config.amplification, 3)

    def test_routes(self) -> None:
        document = edited(
            TUNNEL_SERVER,
            (FILTERS, [{"type": "payload_limit", "config": {"max_entity_size": 1}}, {"type": "fault"}]),
            (f"{RULE}.per_filter_config", {"payload_limit": {"max_entity_size ": 7}}),
            (f"{HOST}.per_filter_config", {"fault": {"abort": {"percentage": 100}}}),
        )
        loaded = parse(document)
        self.assertEqual(loaded.warnings, ())
        [host] = loaded.config.server.routers[0].virtual_hosts
        assert host.routers[0].per_filter_config.payload_limit is not None
        self.assertEqual(host.routers[0].per_filter_config.payload_limit.max_entity_size, 7)
        assert host.per_filter_config.fault is not None
        self.assertEqual(host.per_filter_config.fault.abort.percentage, 100)


WRONG: list[tuple[str, Any, str]] = [
    # (type, config, error below the filter); each makes MOSN leave something out
    (
        "ip_access",
        {"default_action": "Deny"},
        'default_action: "Deny" is not allowed; write "allow" or "deny"',
    ),
    (
        "ip_access",
        {"ips": [{"action": "denied", "addrs": ["::1"]}]},
        'ips[0].action: "denied" is not allowed; write "allow" or "deny"',
    ),
    (
        "ip_access",
        {"ips": [{"action": "deny", "addrs": ["::1", "10.0.0.300"]}]},
        'ips[0].addrs[1]: "10.0.0.300" is neither an IP address nor a range of them; write one such as '
        '"10.0.0.1" or "10.0.0.0/8"',
    ),
    ("ip_access", {"ips": "10.0.0.1"}, 'ips: expected a list, got the text "10.0.0.1"'),
    (
        "payload_limit",
        {"max_entity_size": -1},
        "max_entity_size: -1 is out of range; write a number from 0 to 2147483647",
    ),
    (
        "payload_limit",
        {"max_entity_size": 1, "http_status": 42},
        "http_status: 42 is not a final HTTP status; write a number from 200 to 599",
    ),
    (
        "payload_limit",
        {"max_entity_size": 1, "max_entity_size ": 2},
        "max_entity_size : is another name",
    ),
    (
        "fault",
        {"abort": {"status": 100}},
        "abort.status: 100 is not a final HTTP status; write a number from 200 to 599",
    ),
    (
        "fault",
        {"delay": {"fixed_delay": 1000}},
        'delay.fixed_delay: 1000 has no unit; if it counts milliseconds, write "1000ms"',
    ),
    (
        "fault",
        {"headers": [{"name": "a", "value": "(", "regex": True}]},
        'headers[0].value: "(" is not a regular expression',
    ),
    (
        "header_to_metadata",
        {"request_rules": [{"header": "a"}]},
        "request_rules[0]: write either on_header_present or on_header_missing",
    ),
    (
        "header_to_metadata",
        {
            "request_rules": [
                {"header": "a", "on_header_present": {"key": "b"}, "on_header_missing": {"key": "c"}}
            ]
        },
        "request_rules[0]: write either on_header_present or on_header_missing",
    ),
    (
        "header_to_metadata",
        {"request_rules": [{"on_header_missing": {"key": "c"}}]},
        "request_rules[0].header: missing key",
    ),
    ("flowControlFilter", {"rules": [{"threshold": 1}]}, "rules[0].resource: missing key: what is counted"),
    (
        "flowControlFilter",
        {"rules": [{"resource": "/", "threshold": -1}]},
        "rules[0].threshold: -1.0 is negative; write 0 or a number above it",
    ),
    (
        "flowControlFilter",
        {"rules": [{"resource": "/", "threshold": 1, "controlBehavior": 2}]},
        "rules[0].controlBehavior: 2 is out of range; write a number from 0 to 1",
    ),
    (
        "flowControlFilter",
        {"rules": [{"resource": "/", "threshold": 1, "relationStrategy": 1}]},
        "rules[0].refResource: missing key: what relationStrategy 1 counts instead",
    ),
    (
        "flowControlFilter",
        {"rules": [{"resource": "/", "threshold": 1, "tokenCalculateStrategy": 1}]},
        "rules[0].warmUpPeriodSec: must be above 0 for tokenCalculateStrategy 1",
    ),
    (
        "flowControlFilter",
        {
            "rules": [
                {
                    "resource": "/",
                    "threshold": 1,
                    "tokenCalculateStrategy": 1,
                    "warmUpPeriodSec": 1,
                    "warmUpColdFactor": 1,
                }
            ]
        },
        "rules[0].warmUpColdFactor: must be above 1 for tokenCalculateStrategy 1",
    ),
]


class WrongTests(SynchronousTestCase):
    maxDiff = None

    def test_wrong(self) -> None:
        """What makes MOSN leave out a filter, with a line in its log, is an error."""
        for kind, config, problem in WRONG:
            with self.subTest(kind=kind, config=config):
                if kind == "flowControlFilter":
                    config = {"global_switch": True, **config}
                [found] = problems(edited(TUNNEL_SERVER, (FILTERS, [{"type": kind, "config": config}])))
                place = (
                    f"{FILTERS}[0].config." if "max_entity_size " not in config else f"{FILTERS}[0].config"
                )
                if "max_entity_size " in config:
                    self.assertIn("is another name of", found)
                else:
                    self.assertTrue(found.startswith(place + problem), found)

    def test_without_a_type(self) -> None:
        self.assertEqual(
            problems(edited(TUNNEL_SERVER, (FILTERS, [{}]))),
            [f"{FILTERS}[0].type: missing key: the kind of filter"],
        )


class ContextTests(SynchronousTestCase):
    """What depends on where a filter stands."""

    def test_beside_filters_without_requests(self) -> None:
        reason = "looks at requests, and tcp_proxy has none: its connections are not looked at"
        for config in (
            {"type": "ip_access", "config": {"default_action": "deny"}},
            {"type": "payload_limit", "config": {"max_entity_size": 1}},
            {"type": "flowControlFilter"},
        ):
            document = edited(AGENT, (FILTERS, [config]))
            self.assertEqual(problems(document), [f"{FILTERS}[0]: {reason}{HINT}"])
            config = {**config, "ignore_unsupported": True}
            self.assertIn(f"{FILTERS}[0]: {reason}{IGNORED}", warnings(edited(AGENT, (FILTERS, [config]))))
        self.assertEqual(problems(edited(AGENT, (FILTERS, [{"type": "fault"}]))), [])

    def test_beside_a_fallback(self) -> None:
        """Connections that fall back to another filter would not be looked at."""
        document = edited(
            TUNNEL_SERVER,
            (FILTERS, [{"type": "ip_access", "config": {"default_action": "deny"}}]),
            (f"{FILTER}.config.downstream_protocol", "Auto"),
            (f"{FILTER}.config.fallback_for_unknown_protocol", True),
            (f"{CHAIN}.filters[1]", {"type": "tcp_proxy", "config": {"cluster": "edge"}}),
        )
        self.assertEqual(len(problems(document)), 1)

    def test_behind_an_agent(self) -> None:
        document = edited(
            AGENT,
            (
                FILTER,
                {"type": "proxy", "config": {"downstream_protocol": "Http1", "router_config_name": "r"}},
            ),
            ("servers[0].routers", [{"router_config_name": "r", "virtual_hosts": [{"domains": ["*"]}]}]),
            (FILTERS, [{"type": "ip_access", "config": {"default_action": "deny"}}]),
        )
        self.assertEqual(
            warnings(document),
            [
                f"{FILTERS}[0]: requests that come by way of a tunnel agent come from the address of its "
                "server"
            ],
        )

    def test_flow_control_of_rpc(self) -> None:
        rules = {"global_switch": True, "rules": [{"resource": "/", "threshold": 1}]}
        document = edited(
            TUNNEL_SERVER,
            (FILTERS, [{"type": "flowControlFilter", "config": rules}]),
            (f"{FILTER}.config.downstream_protocol", "bolt,dubbo"),
        )
        self.assertEqual(
            warnings(document),
            [f"{FILTERS}[0]: requests of bolt and dubbo have no path or query: no rule is for them"],
        )

    def test_without_effect(self) -> None:
        for config, found in (
            ({"type": "payload_limit"}, ".config.max_entity_size: is 0: nothing is limited"),
            (
                {"type": "flowControlFilter", "config": {"rules": [{"resource": "/", "threshold": 1}]}},
                ".config.global_switch: is not true: no rule counts, as in MOSN",
            ),
        ):
            self.assertEqual(warnings(edited(TUNNEL_SERVER, (FILTERS, [config]))), [f"{FILTERS}[0]{found}"])
