from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.config.summary import summarize
from tests.config.documents import (
    AGENT,
    CHAIN,
    CLUSTER,
    CONFIG,
    FILTER,
    GONE,
    HOST,
    LISTENER,
    TUNNEL_SERVER,
    edited,
    parse,
)

PEM = "-----BEGIN CERTIFICATE-----\n"
TLS = {"status": True, "cert_chain": PEM, "private_key": PEM, "ca_cert": PEM}


class SummaryTests(SynchronousTestCase):
    def check(self, document: object, *lines: str) -> None:
        self.assertEqual(summarize(parse(document).config), "\n".join(lines))

    def test_tunnel_server(self) -> None:
        self.check(
            TUNNEL_SERVER,
            "listeners:",
            "  clients: at 127.0.0.1:2045, plaintext; Http1 by router web",
            "  agents: at 127.0.0.1:9999, plaintext; tunnel",
            "routers:",
            "  web: * (1 rule)",
            "clusters:",
            "  edge: LB_RANDOM; hosts of tunnel agents only",
            "tunnel agents: none",
        )

    def test_agent(self) -> None:
        self.check(
            AGENT,
            "listeners:",
            "  hosted: not bound, fed by 1 tunnel agent, plaintext; TCP to cluster service",
            "routers: none",
            "clusters:",
            "  service: LB_ROUNDROBIN; 127.0.0.1:8080",
            "tunnel agents:",
            "  cluster edge on 127.0.0.1:9999: 1 connection to each address, plaintext; "
            "served by listener hosted",
        )

    def test_everything(self) -> None:
        secret = "hunter2"
        tunnel = {
            "type": "tunnel",
            "config": {
                "credential_policy": "hmac",
                "cluster_credential_policies": {"edge": "token"},
                "validators": {"token": {"secret": secret}},
            },
        }
        self.check(
            edited(
                TUNNEL_SERVER,
                (f"{CHAIN}.tls_context", {**TLS, "verify_client": True, "require_client_cert": True}),
                (f"{LISTENER}.inspector", True),
                ("servers[0].listeners[1].filter_chains[0].tls_context_set", [TLS]),
                ("servers[0].listeners[1].filter_chains[0].filters[0]", tunnel),
                (
                    "servers[0].listeners[1].filter_chains[0].filters[1]",
                    {"type": "connection_manager", "config": {"router_config_name": "other"}},
                ),
                ("servers[0].listeners[2]", {"address": ":1", "bind_port": True, "filter_chains": [{}]}),
                (f"{HOST}.domains", ["a", "b"]),
                (f"{HOST}.routers", []),
                (f"{CLUSTER}.tls_context", {"status": True}),
                (
                    f"{CLUSTER}.hosts",
                    [{"address": "a:1", "weight": 200}, {"address": "b:1", "weight": 2, "tls_disable": True}],
                ),
                (
                    "extends",
                    [
                        {
                            "type": "tunnel_agent",
                            "config": {
                                **AGENT["extends"][0]["config"],
                                "hosting_listener": "clients",
                                "connection_num": 4,
                                "credential_policy": "hmac",
                                "credential_config": {"secret": secret},
                                "dynamic_server_list_config": {"dynamic_server_lister": "dns"},
                                "tls_context": {"status": True},
                            },
                        },
                        {"type": "tunnel_agent", "config": {"enable": False, "cluster": "c"}},
                        {
                            "type": "tunnel_agent",
                            "config": {"enable": True, "cluster": "d", "hosting_listener": "clients"},
                        },
                    ],
                ),
            ),
            "listeners:",
            "  clients: at 127.0.0.1:2045, TLS with client certificates or plaintext; Http1 by router web",
            "  agents: at 127.0.0.1:9999, TLS; tunnel with credential policy hmac or token",
            "  :1: at :1, plaintext; closes connections",
            "routers:",
            "  web: a, b (0 rules)",
            "  other: answers every request with 404",
            "clusters:",
            "  edge: LB_RANDOM, TLS; a:1 (weight 128), b:1 (weight 2, plaintext)",
            "tunnel agents:",
            "  cluster edge on 127.0.0.1:9999, those that dns lists: 4 connections to each address, TLS, "
            "credential policy hmac; served by listener clients",
            '  cluster "c": not enabled',
            "  cluster d on no server: 0 connections to each address, plaintext; served by listener clients",
        )

    def test_tcp_routes(self) -> None:
        document = edited(AGENT, (f"{FILTER}.config", {"routes": [{"cluster": "service"}] * 2}))
        self.assertIn("TCP to cluster service\n", summarize(parse(document).config))

    def test_hosted_by_none(self) -> None:
        document = edited(AGENT, (f"{CONFIG}.enable", GONE))
        self.assertIn("hosted: not bound, fed by 0 tunnel agents", summarize(parse(document).config))
