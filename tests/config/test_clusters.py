"""Tests for the clusters of L{reverseproxy.config}: their keys, errors and warnings."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.config.models import ClusterConfig
from tests.config.documents import TUNNEL_SERVER, edited, parse, problems, warnings

CLUSTER = "cluster_manager.clusters[0]"


def cluster_of(**keys: Any) -> ClusterConfig:
    document = edited(TUNNEL_SERVER, *((f"{CLUSTER}.{key}", value) for key, value in keys.items()))
    loaded = parse(document)
    return loaded.config.cluster_manager.clusters[0]


class KeyTests(SynchronousTestCase):
    def warned(self, *keys: tuple[str, Any]) -> list[str]:
        found = warnings(edited(TUNNEL_SERVER, *((f"{CLUSTER}.{key}", value) for key, value in keys)))
        return [text.removeprefix(CLUSTER) for text in found]

    def wrong(self, key: str, value: Any) -> list[str]:
        found = problems(edited(TUNNEL_SERVER, (f"{CLUSTER}.{key}", value)))
        return [text.removeprefix(f"{CLUSTER}.") for text in found]

    def test_balancers(self) -> None:
        """All types of balancers but one are acted on."""
        for name in (
            "LB_LEAST_CONNECTION",
            "LB_MAGLEV",
            "LB_PEAK_EWMA",
            "LB_REQUEST_ROUNDROBIN",
        ):
            self.assertEqual(cluster_of(lb_type=name).lb_type, name)
            self.assertEqual(self.warned(("lb_type", name)), [])

    def test_balancer_options(self) -> None:
        """Absent is 1, but 0 is 0; only of choices there must be some."""
        options = cluster_of(lbconfig={}).lbconfig
        self.assertEqual(
            (
                options.choice_count,
                options.active_request_bias,
                options.client_error_bias,
                options.server_error_bias,
            ),
            (2, 1.0, 1.0, 1.0),
        )
        options = cluster_of(lbconfig={"choice_count": 0, "server_error_bias": 0}).lbconfig
        self.assertEqual((options.choice_count, options.server_error_bias), (2, 0.0))
        self.assertEqual(
            self.wrong("lbconfig", {"client_error_bias": -1}),
            ["lbconfig.client_error_bias: -1.0 is negative; write 0 or a number above it"],
        )

    def test_requests_per_connection(self) -> None:
        """Only a number that is given counts, as MOSN's default is not enforced."""
        self.assertEqual(cluster_of().requests_per_connection, 0)
        self.assertEqual(cluster_of(max_request_per_conn=None).requests_per_connection, 0)
        self.assertEqual(cluster_of(max_request_per_conn=0).requests_per_connection, 0)
        self.assertEqual(cluster_of(max_request_per_conn=1024).requests_per_connection, 1024)
        self.assertEqual(cluster_of().max_request_per_conn, 1024)

    def test_durations(self) -> None:
        """A text that no output can show is refused like any other."""
        self.assertEqual(
            self.wrong("connect_timeout", "\ud800"),
            ["connect_timeout: has half of a character; write it as itself, or escape all of it"],
        )

    def test_limits(self) -> None:
        """All limits are acted on."""
        limits = {"max_connections": 1, "max_pending_requests": 2, "max_requests": 3, "max_retries": 4}
        self.assertEqual(self.warned(("circuit_breakers", [limits])), [])
        found = cluster_of(circuit_breakers=[limits]).limits
        self.assertEqual((found.max_connections, found.max_retries), (1, 4))

    def test_health_check(self) -> None:
        """The defaults are MOSN's; 0 means them as well."""
        zeros = {
            "service_name": "any",
            "timeout": 0,
            "interval": "0",
            "interval_jitter": "0s",
            "initial_delay_seconds": "0s",
            "healthy_threshold": 0,
            "unhealthy_threshold": 0,
        }
        for given in ({"service_name": "any"}, zeros):
            check = cluster_of(health_check=given).health_check
            self.assertTrue(check.enabled)
            self.assertEqual(
                (check.protocol, check.timeout, check.interval, check.interval_jitter),
                ("TCP", 1.0, 15.0, 0.005),
            )
            self.assertEqual(
                (check.initial_delay_seconds, check.healthy_threshold, check.unhealthy_threshold), (1.0, 1, 1)
            )
            self.assertEqual(check.longest, 1.0)
            self.assertIsNone(check.check_config.http_check_config)
        self.assertFalse(cluster_of().health_check.enabled)

    def test_http_check(self) -> None:
        """Keys are in any case, as everywhere; the shorter timeout counts."""
        check = cluster_of(
            health_check={
                "protocol": "Http1",
                "service_name": "any",
                "timeout": "5s",
                "check_config": {
                    "http_check_config": {
                        "Port": 8081,
                        "Timeout": "2s",
                        "path": "/health?full",
                        "method": "HEAD",
                        "scheme": "https",
                        "domain": "service.example",
                        "codes": [{"Start": 200, "End": 299}, {"start": 304, "end": 304}],
                    }
                },
            }
        ).health_check
        http = check.check_config.http_check_config
        assert http is not None
        self.assertEqual(
            (http.port, http.path, http.method, http.scheme), (8081, "/health?full", "HEAD", "https")
        )
        self.assertEqual([(code.start, code.end) for code in http.codes], [(200, 299), (304, 304)])
        self.assertEqual(check.longest, 2.0)
        plain = cluster_of(health_check={"check_config": {"http_check_config": {"timeout": 0}}}).health_check
        assert plain.check_config.http_check_config is not None
        self.assertEqual(plain.check_config.http_check_config.timeout, 30.0)
        self.assertEqual(plain.longest, 1.0)

    def test_wrong_http_check(self) -> None:
        """What would not make a request is refused."""
        for key, value, message in (
            ("port", 65536, "65536 is out of range; write a number from 0 to 65535"),
            ("method", "GET /", '"GET /" is not a method; write "GET"'),
            ("domain", "a b", '"a b" is not a host name; write "host" or "host:port"'),
        ):
            found = self.wrong("health_check", {"check_config": {"http_check_config": {key: value}}})
            self.assertEqual(found, [f"health_check.check_config.http_check_config.{key}: {message}"])

    def test_slow_start(self) -> None:
        """Numbers that can't be meant stand for the defaults, as in MOSN."""
        given = {"mode": "duration", "slow_start_duration": "1m", "aggression": 0, "min_weight_percent": -1}
        start = cluster_of(slow_start=given, lb_type="LB_LEAST_REQUEST").slow_start
        self.assertEqual(
            (start.enabled, start.slow_start_duration, start.aggression, start.min_weight_percent),
            (True, 60.0, 1.0, 0.1),
        )
        self.assertFalse(cluster_of().slow_start.enabled)
        self.assertEqual(
            self.wrong("slow_start", {"min_weight_percent": 10}),
            [
                "slow_start.min_weight_percent: 10.0 is above 1; write a part of the weight, such as 0.1",
            ],
        )

    def test_subsets(self) -> None:
        given = {
            "fall_back_policy": 2,
            "default_subset": {"stage": "live"},
            "subset_selectors": [["zone", "stage"], ["stage"]],
        }
        subsets = cluster_of(lb_subset_config=given).lb_subset_config
        self.assertEqual(subsets.fall_back_policy, 2)
        self.assertEqual(dict(subsets.default_subset), {"stage": "live"})
        self.assertEqual(subsets.subset_selectors, (("zone", "stage"), ("stage",)))
        self.assertEqual(self.warned(("lb_subset_config", given)), [])
        self.assertEqual(
            self.wrong("lb_subset_config", {"fall_back_policy": 3, "subset_selectors": [["a"]]}),
            ["lb_subset_config.fall_back_policy: 3 is out of range; write a number from 0 to 2"],
        )

    def test_dns(self) -> None:
        """The defaults are MOSN's."""
        cluster = cluster_of(type="STRICT_DNS")
        self.assertEqual(
            (cluster.type, cluster.dns_refresh_rate, cluster.dns_lookup_family),
            ("STRICT_DNS", 5.0, "V4_ONLY"),
        )
        servers = cluster_of(
            type="STRICT_DNS",
            dns_refresh_rate=0,
            dns_resolvers={"servers": ["10.0.0.1"], "search": ["a.example"], "port": "5353", "timeout": 0},
        )
        self.assertEqual(servers.dns_refresh_rate, 5.0)
        resolvers = servers.dns_resolvers
        self.assertEqual((resolvers.servers, resolvers.port, resolvers.ndots), (("10.0.0.1",), "5353", 1))
        self.assertEqual((resolvers.timeout, resolvers.attempts), (2, 2))
        self.assertEqual(
            self.wrong("dns_resolver_port", "domain"),
            [
                'dns_resolver_port: "domain" is not a port; write a number from 1 to 65535 as a text, '
                'such as "53"',
            ],
        )

    def test_default_port(self) -> None:
        """MOSN assumes 80 where names are looked up, and nowhere else."""
        addresses = ("x.example", "x.example:81", "10.0.0.1", "[::1]", "[::1]:82", "unix:/x")
        cluster = cluster_of(type="STRICT_DNS", hosts=[{"address": address} for address in addresses])
        self.assertEqual(
            [host.address for host in cluster.hosts],
            ["x.example:80", "x.example:81", "10.0.0.1:80", "[::1]:80", "[::1]:82", "unix:/x"],
        )
        self.assertEqual(
            self.wrong("hosts", [{"address": "x.example"}]),
            ['hosts[0].address: "x.example" has no port; write "host:port"'],
        )

    def test_outlier_detection(self) -> None:
        """By default, connects alone count."""
        outliers = cluster_of().outlier_detection
        self.assertEqual(
            (outliers.consecutive_connect_failures, outliers.consecutive_5xx, outliers.consecutive_resets),
            (5, 0, 0),
        )
        self.assertEqual(
            (outliers.base_ejection_time, outliers.max_ejection_time, outliers.max_ejection_percent),
            (30.0, 300.0, 50),
        )
        self.assertEqual(
            self.wrong("outlier_detection", {"base_ejection_time": "0s", "max_ejection_percent": 101}),
            [
                "outlier_detection.base_ejection_time: 0s is too short; write a duration above 0",
                "outlier_detection.max_ejection_percent: 101 is out of range; write a number from 0 to 100",
            ],
        )

    def test_without_effect(self) -> None:
        """What needs other keys that are not there is pointed out."""
        self.assertEqual(
            self.warned(("health_check", {"timeout": "1s"})),
            [".health_check.service_name: is empty: there are no health checks, as in MOSN"],
        )
        self.assertEqual(
            self.warned(("slow_start", {"mode": "duration"})),
            [".slow_start.slow_start_duration: is not above 0: there is no slow start"],
        )
        start = {"mode": "duration", "slow_start_duration": "30s"}
        self.assertEqual(
            self.warned(("lb_type", "LB_MAGLEV"), ("slow_start", start)),
            [".slow_start: has no effect, because LB_MAGLEV does not know weights"],
        )
        self.assertEqual(self.warned(("lb_type", "LB_PEAK_EWMA"), ("slow_start", start)), [])
        self.assertEqual(
            self.warned(("lb_subset_config", {"fall_back_policy": 1})),
            [".lb_subset_config.subset_selectors: there is none: there are no subsets"],
        )
        self.assertEqual(
            self.warned(("lb_subset_config", {"default_subset": {"a": "b"}, "subset_selectors": [["a"]]})),
            [".lb_subset_config.default_subset: has no effect, because fall_back_policy is not 2"],
        )
        self.assertEqual(
            self.warned(("respect_dns_ttl", True), ("dns_resolver_file", "/x")),
            [
                ".respect_dns_ttl: has no effect, because type is not STRICT_DNS",
                ".dns_resolver_file: has no effect, because type is not STRICT_DNS",
            ],
        )
        self.assertEqual(
            self.warned(("slow_start", {"mode": "other", "slow_start_duration": "1s"}))[:1],
            ['.slow_start.mode: "other" is not known; it is skipped (choices: duration)'],
        )
