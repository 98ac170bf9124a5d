"""
What MOSN starts with, but where something leads nowhere: we start too, and say
what leads nowhere.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.config.documents import (
    AGENT,
    CHAIN,
    CLUSTER,
    FILTER,
    GONE,
    LISTENER,
    ROUTER,
    TUNNEL_SERVER,
    edited,
    parse,
    problems,
    warnings,
)

PROXY = f"{FILTER}.config"
NO_ROUTER = "every request is answered with 404"
XDS = (
    "this is a configuration for xDS, which is not supported: listeners and clusters can't be had from "
    "an xDS server, nor be written as Envoy does; write servers and cluster_manager instead"
)


def manager(**config: Any) -> dict[str, Any]:
    return {"type": "connection_manager", "config": config}


class RouterTests(SynchronousTestCase):
    def check(self, place: str, value: Any, *found: str) -> None:
        self.assertEqual(warnings(edited(TUNNEL_SERVER, (place, value))), list(found))

    def test_unknown(self) -> None:
        place = f"{PROXY}.router_config_name"
        self.check(place, "wbe", f'{place}: {NO_ROUTER}: there is no router "wbe"; did you mean "web"?')
        self.check(place, "shop", f'{place}: {NO_ROUTER}: there is no router "shop"; defined: "web"')
        self.check(
            "servers[0].routers",
            [],
            f'{place}: {NO_ROUTER}: there is no router "web"; no router is defined',
        )

    def test_missing(self) -> None:
        """Also with the key that only tcp_proxy has."""
        place = f"{PROXY}.router_config_name"
        self.check(place, GONE, f"{place}: missing key: {NO_ROUTER}")
        self.check(
            PROXY,
            {"downstream_protocol": "Http1", "cluster": "edge"},
            f"{PROXY}.cluster: unknown key, ignored",
            f"{place}: missing key: {NO_ROUTER}",
        )

    def test_wrong_is_not_missing(self) -> None:
        place = f"{PROXY}.router_config_name"
        self.assertEqual(
            problems(edited(TUNNEL_SERVER, (place, 5))),
            [f"{place}: expected a text in quotation marks, got the number 5"],
        )

    def test_without_a_name(self) -> None:
        place = f"{ROUTER}.router_config_name"
        document = edited(TUNNEL_SERVER, (place, GONE))
        self.assertEqual(
            warnings(document),
            [
                f"{place}: missing key: without a name, this router serves no proxy filter",
                f'{PROXY}.router_config_name: {NO_ROUTER}: there is no router "web"; no router is defined',
            ],
        )
        self.assertEqual(dict(parse(document).config.routers), {})

    def test_the_same_twice(self) -> None:
        """In the list of routers and in filters: MOSN's last one counts, and theirs comes first."""
        router = TUNNEL_SERVER["servers"][0]["routers"][0]
        document = edited(TUNNEL_SERVER, (f"{CHAIN}.filters[1]", manager(**router)))
        self.assertEqual(warnings(document), [])
        self.assertEqual(list(parse(document).config.routers), ["web"])

    def test_two_of_one_name(self) -> None:
        other = manager(router_config_name="web", virtual_hosts=[{"domains": ["a"]}])
        document = edited(TUNNEL_SERVER, (f"{CHAIN}.filters[1]", other))
        place = f"{CHAIN}.filters[1].config"
        self.assertEqual(
            warnings(document), [f"{place}: does not count, because of the router of this name at {ROUTER}"]
        )
        where, counts = parse(document).config.routers["web"]
        self.assertEqual((where.path, counts.virtual_hosts[0].domains), (ROUTER, ("*",)))

    def test_two_of_one_name_in_filters(self) -> None:
        first = manager(router_config_name="web", virtual_hosts=[{"domains": ["a"]}])
        last = manager(router_config_name="web", virtual_hosts=[{"domains": ["b"]}])
        second = "servers[0].listeners[1].filter_chains[0].filters[1]"
        document = edited(
            TUNNEL_SERVER,
            ("servers[0].routers", []),
            (f"{CHAIN}.filters[1]", first),
            (second, last),
        )
        self.assertEqual(
            warnings(document),
            [
                f"{CHAIN}.filters[1].config: does not count, because of the router of this name at "
                f"{second}.config"
            ],
        )
        where, counts = parse(document).config.routers["web"]
        self.assertEqual((where.path, counts.virtual_hosts[0].domains), (f"{second}.config", ("b",)))

    def test_two_of_one_name_in_one_list(self) -> None:
        """Here it is more likely a mistake than a habit of an older version."""
        self.assertEqual(
            problems(edited(TUNNEL_SERVER, ("servers[0].routers[1]", {"router_config_name": "web"}))),
            [
                'servers[0].routers[1].router_config_name: there is already a router "web" at '
                f"{ROUTER}.router_config_name"
            ],
        )


class ConnectionTests(SynchronousTestCase):
    def test_unknown_cluster(self) -> None:
        for config, place in (
            ({"cluster": "servcie"}, "cluster"),
            (
                {
                    "routes": [
                        {
                            "cluster": "servcie",
                            "SourceAddrs": [{"Address": "::", "Length": 0}],
                            "DestinationAddrs": [{"Address": "::", "Length": 0}],
                            "SourcePort": "1-65535",
                            "DestinationPort": "1-65535",
                        }
                    ]
                },
                "routes[0].cluster",
            ),
        ):
            self.assertEqual(
                warnings(edited(AGENT, (PROXY, config))),
                [
                    f'{PROXY}.{place}: connections are closed at once: there is no cluster "servcie"; '
                    'did you mean "service"?'
                ],
            )

    def test_a_path_is_a_unix_socket(self) -> None:
        for written in ("/run/service.sock", "unix:/run/service.sock"):
            for kind in ("SIMPLE", "STRICT_DNS"):
                document = edited(
                    AGENT, (f"{CLUSTER}.hosts", [{"address": written}]), (f"{CLUSTER}.type", kind)
                )
                self.assertEqual(warnings(document), [])
                [host] = parse(document).config.cluster_manager.clusters[0].hosts
                self.assertEqual(host.address, "unix:/run/service.sock")

    def test_both_ways_to_write_a_path_are_one_host(self) -> None:
        hosts = [{"address": "/run/service.sock"}, {"address": "unix:/run/service.sock"}]
        self.assertEqual(
            warnings(edited(AGENT, (f"{CLUSTER}.hosts", hosts))),
            [
                f'{CLUSTER}.hosts[1].address: "unix:/run/service.sock" occurs more than once in this '
                "cluster; the last one counts"
            ],
        )


class XdsTests(SynchronousTestCase):
    def test_bootstrap(self) -> None:
        for document in (
            {
                "dynamic_resources": {"lds_config": {"ads": {}}},
                "static_resources": {"clusters": []},
                "node": {},
            },
            {"dynamicResources": {"ldsConfig": {"ads": {}}}, "staticResources": {"clusters": []}},
            {"DYNAMICRESOURCES": {"ads": {}}, "cluster_manager": {"clusters": [{"name": "a"}]}},
        ):
            [place] = [name for name in document if name.lower().startswith("dynamic")]
            self.assertEqual(problems(document), [f"{place}: {XDS}"])

    def test_envoy(self) -> None:
        """What Envoy calls static is written in another way than MOSN's configuration."""
        for name in ("static_resources", "staticResources"):
            document = {"admin": {}, name: {"listeners": [{"address": {}}]}}
            self.assertEqual(problems(document), [f"{name}: {XDS}"])

    def test_both(self) -> None:
        """MOSN takes both then; here it is the file alone."""
        found = warnings(
            edited(TUNNEL_SERVER, ("dynamic_resources", {"ads": {}}), ("static_resources", {"a": 1}))
        )
        reason = "not acted on: there is no xDS; the document is all of the configuration"
        self.assertEqual(found, [f"dynamic_resources: {reason}", f"static_resources: {reason}"])

    def test_neither(self) -> None:
        for document in ({}, {"dynamic_resources": {}}, {"dynamic_resources": None, "static_resources": {}}):
            self.assertEqual(problems(document), ["servers: missing key: write exactly one server"])

    def test_wrong_servers(self) -> None:
        document = {"servers": [], "dynamic_resources": {"ads": {}}}
        self.assertEqual(problems(document), ["servers: is empty; write exactly one server"])


class NoteTests(SynchronousTestCase):
    """What MOSN does nothing with either is said once, not in each place."""

    def notes(self, *changes: tuple[str, Any]) -> list[str]:
        loaded = parse(edited(TUNNEL_SERVER, *changes))
        self.assertEqual(loaded.warnings, ())
        return [str(note) for note in loaded.notes]

    def test_once(self) -> None:
        clusters = [{"name": name, "conn_buffer_limit_bytes": 32768} for name in ("edge", "b", "c", "d")]
        reason = "not acted on, as in MOSN; what waits for a peer is bounded for each request"
        place = f"c.json: {CLUSTER}.conn_buffer_limit_bytes"
        for count, more in ((1, ""), (2, " (and in 1 more place)"), (4, " (and in 3 more places)")):
            self.assertEqual(
                self.notes(("cluster_manager.clusters", clusters[:count])), [f"{place}: {reason}{more}"]
            )

    def test_in_the_order_of_the_document(self) -> None:
        found = self.notes(
            (f"{CLUSTER}.sub_type", "x"),
            (f"{LISTENER}.default_read_buffer_size", 4096),
            ("servers[0].use_netpoll_mode", True),
        )
        self.assertEqual(
            [note.partition(": ")[2].partition(":")[0] for note in found],
            [f"{LISTENER}.default_read_buffer_size", "servers[0].use_netpoll_mode", f"{CLUSTER}.sub_type"],
        )

    def test_asking_for_nothing(self) -> None:
        self.assertEqual(self.notes((f"{CLUSTER}.conn_buffer_limit_bytes", 0)), [])


class SamplePolicyTests(SynchronousTestCase):
    """The credential policy of MOSN's sample works, but is none."""

    def test_server(self) -> None:
        place = "servers[0].listeners[1].filter_chains[0].filters[0].config"
        reason = "is what MOSN's sample has, for trying things out: it accepts every agent"
        found = warnings(
            edited(
                TUNNEL_SERVER,
                (place, {"credential_policy": "test", "cluster_credential_policies": {"edge": "test"}}),
            )
        )
        self.assertEqual(
            found[1:],
            [f"{place}.credential_policy: {reason}", f"{place}.cluster_credential_policies.edge: {reason}"],
        )
        self.assertIn("TLS is off", found[0])

    def test_agent(self) -> None:
        self.assertEqual(
            warnings(edited(AGENT, ("extends[0].config.credential_policy", "test"))),
            [
                "extends[0].config.credential_policy: is what MOSN's sample has, for trying things out: "
                "its credential is known to everybody"
            ],
        )
