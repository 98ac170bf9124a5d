from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.config.loader import load, loads
from reverseproxy.config.models import ProxyConfig
from reverseproxy.errors import ConfigError
from reverseproxy.problems import Place, Problem
from tests import most
from tests.config.documents import (
    AGENT,
    CHAIN,
    CLUSTER,
    CONFIG,
    FILTER,
    GONE,
    HOST,
    LISTENER,
    ROUTER,
    RULE,
    TUNNEL_SERVER,
    edited,
    parse,
    problems,
    text_problems,
    warnings,
)

PEM = "-----BEGIN CERTIFICATE-----\n"
TLS = f"{CHAIN}.tls_context"
PROXY = f"{FILTER}.config"
WRITE = 'write a Go duration such as "8s" or "300ms"'
PORT = "a port is a number from 0 to 65535"
PORTS = 'write a text such as "80,1000-2000"'
PROCESSORS = 'is not a number of processors; write a number or "auto"'
REPEATED = "this key occurs more than once; the last one counts"
SECRET = "c2VjcmV0" * 20
UINT = "write a number from 0 to 4294967295"
UNSUPPORTED = "is not supported yet; use a tcp_proxy filter"
V6 = 'is not an address; write an IPv6 address as "[::1]:8080"'
VERSIONS = "choose from TLS_AUTO, TLSv1_0, TLSv1_1, TLSv1_2, TLSv1_3"
TERMINAL = "none is proxy, tcp_proxy or tunnel: connections are closed as soon as they are accepted"


def no_unit(value: object) -> str:
    """The message for a duration that is a bare number."""
    return f'{value} has no unit; write "{value}s" if it counts seconds, "{value}ms" if milliseconds'


WRONG_SERVERS: list[tuple[str, Any, list[str]]] = [
    # (place, value, errors); an error that begins with a colon is at the place
    # types, as strict as Go's decoder
    (f"{LISTENER}.address", 2045, [": expected a text in quotation marks, got the number 2045"]),
    (f"{LISTENER}.bind_port", 1, [": expected true or false, got the number 1"]),
    (f"{LISTENER}.bind_port", "true", [': expected true or false, got the text "true"']),
    (f"{CLUSTER}.max_request_per_conn", "10", [': expected a whole number, got the text "10"']),
    (f"{CLUSTER}.mark", 10.5, [": expected a whole number, got the number 10.5"]),
    (f"{CLUSTER}.mark", 10.0, [": expected a whole number, got the number 10.0"]),
    (f"{CLUSTER}.mark", True, [": expected a whole number, got true"]),
    (f"{CLUSTER}.mark", -1, [f": -1 is out of range; {UINT}"]),
    (f"{CLUSTER}.mark", 2**32, [f": 4294967296 is out of range; {UINT}"]),
    (f"{CLUSTER}.lbconfig", [], [": expected an object, got a list"]),
    (
        f"{CLUSTER}.lbconfig",
        {"active_request_bias": "1"},
        ['.active_request_bias: expected a number, got the text "1"'],
    ),
    (f"{CLUSTER}.circuit_breakers", {"max_requests": 1}, [": expected a list, got an object"]),
    ("cluster_manager", None, []),
    ("cluster_manager.clusters", "edge", [': expected a list, got the text "edge"']),
    (
        "servers[0].processor",
        1.5,
        [f": the number 1.5 {PROCESSORS}"],
    ),
    (
        "servers[0].processor",
        "all",
        [f': the text "all" {PROCESSORS}'],
    ),
    # durations
    (
        f"{LISTENER}.connection_idle_timeout",
        90,
        [f": {no_unit(90)}"],
    ),
    (
        f"{LISTENER}.connection_idle_timeout",
        0.0,
        [f": 0.0 has no unit; {WRITE}"],
    ),
    (f"{LISTENER}.connection_idle_timeout", "", [f': "" is not a duration; {WRITE}']),
    (f"{LISTENER}.connection_idle_timeout", False, [f": false is not a duration; {WRITE}"]),
    (f"{LISTENER}.connection_idle_timeout", "-1s", [": -1s is negative; write 0 or a longer duration"]),
    (f"{RULE}.route.timeout", None, [f": null is not a duration; {WRITE}"]),
    ("servers[0].graceful_timeout", None, [f": null is not a duration; {WRITE}"]),
    # exactly one
    ("servers", [], [": is empty; write exactly one server"]),
    ("servers", GONE, [": missing key: write exactly one server"]),
    ("servers[1]", {}, ["servers: 2 servers; write exactly one"]),
    (f"{LISTENER}.filter_chains", GONE, [": missing key: write exactly one filter chain"]),
    (f"{LISTENER}.filter_chains", [], [": is empty; write exactly one filter chain"]),
    (f"{LISTENER}.filter_chains[1]", {}, [f"{LISTENER}.filter_chains: 2 filter chains; write exactly one"]),
    # addresses
    (
        f"{LISTENER}.address",
        GONE,
        [
            ': missing key: where to listen: "host:port", "[v6]:port" or ":port"; '
            "or a path if network is unix",
        ],
    ),
    (f"{LISTENER}.address", "localhost", [': "localhost" has no port; write "host:port"']),
    (
        f"{LISTENER}.address",
        "::1:80",
        [f': "::1:80" {V6}'],
    ),
    (f"{LISTENER}.address", "[::1]", [f': "[::1]" {V6}']),
    (f"{LISTENER}.address", "a:http", [f': "a:http" has the port "http"; {PORT}']),
    (
        f"{LISTENER}.address",
        "a:65536",
        [f': "a:65536" has the port "65536"; {PORT}'],
    ),
    (f"{LISTENER}.address", "/run/x", [': "/run/x" is a path; set network to "unix", or write "host:port"']),
    (f"{LISTENER}.network", "udp", [': "udp" is not supported; choose "tcp" or "unix"']),
    (f"{CLUSTER}.hosts", [{"address": ":80"}], ['[0].address: ":80" has no host; write "host:port"']),
    (
        f"{CLUSTER}.hosts",
        [{"address": "a:0"}],
        ['[0].address: "a:0" has the port 0, which can\'t be dialled'],
    ),
    (
        f"{CLUSTER}.hosts",
        [{"address": "unix:"}],
        ['[0].address: "unix:" has no path; write "unix:/path/to/socket"'],
    ),
    (
        f"{CLUSTER}.hosts",
        [{}],
        ['[0].address: missing key: where it listens: "host:port", "[v6]:port", "unix:/path" or "/path"'],
    ),
    (
        f"{CLUSTER}.hosts",
        [{"address": "a:1", "metadata": {"filter_metadata": {"mosn.lb": {"zone": 5}}}}],
        [
            '[0].metadata.filter_metadata["mosn.lb"].zone: expected a text in quotation marks, '
            "got the number 5",
        ],
    ),
    # names
    (
        "servers[0].listeners[1].name",
        "clients",
        [f': there is already a listener "clients" at {LISTENER}.name'],
    ),
    (
        "servers[0].listeners[1].address",
        "127.0.0.1:2045",
        [': "127.0.0.1:2045" is already the address of the listener "clients"'],
    ),
    (
        "servers[0].listeners[1].open_when_ready",
        True,
        [": is true, but agents come in here, which are what is waited for"],
    ),
    (
        "cluster_manager.clusters[1]",
        {"name": "edge"},
        [f'.name: there is already a cluster "edge" at {CLUSTER}.name'],
    ),
    (
        "servers[0].routers[1]",
        {"router_config_name": "web"},
        [f'.router_config_name: there is already a router "web" at {ROUTER}.router_config_name'],
    ),
    (f"{CLUSTER}.name", GONE, [": missing key: the name that routes and tunnel agents refer to"]),
    (f"{CLUSTER}.name", "", [": is empty: the name that routes and tunnel agents refer to"]),
    # protocols
    (
        f"{PROXY}.downstream_protocol",
        GONE,
        [
            ": missing key: what clients speak: a protocol, or several with commas, which are told apart by "
            'the first bytes of a connection; "Auto" for all that there are; "X" for those in sub_protocol'
        ],
    ),
    (f"{PROXY}.downstream_protocol", "http1", [': "http1" is not a protocol; did you mean "Http1"?']),
    (f"{PROXY}.downstream_protocol", "bolt, dubbo", [': " dubbo" is not a protocol; did you mean "dubbo"?']),
    (
        f"{PROXY}.downstream_protocol",
        "Http1,X",
        [': "X" can\'t be one of several; write the protocols that it stands for'],
    ),
    *(
        (f"{PROXY}.downstream_protocol", name, [f': "{name.rpartition(",")[2]}" {UNSUPPORTED}'])
        for name in ("dubbo-thrift", "tars", "Http1,tars")
    ),
    (
        PROXY,
        {"downstream_protocol": "X", "extend_config": {"sub_protocol": "tars"}, "router_config_name": "web"},
        [f'.extend_config.sub_protocol: "tars" {UNSUPPORTED}'],
    ),
    (
        PROXY,
        {"downstream_protocol": "X", "router_config_name": "web"},
        ['.extend_config.sub_protocol: missing key: the protocols that "X" stands for, such as "bolt"'],
    ),
    (
        PROXY,
        {
            "downstream_protocol": "bolt",
            "extend_config": {"max_frame_size": 1},
            "router_config_name": "web",
        },
        [".extend_config.max_frame_size: 1 is out of range; write a number from 1024 to 1073741824"],
    ),
    (
        PROXY,
        {
            "downstream_protocol": "bolt,Http1",
            "extend_config": {"bolt": {"enable_bolt_goaway": 1}},
            "router_config_name": "web",
        },
        [".extend_config.bolt.enable_bolt_goaway: expected true or false, got the number 1"],
    ),
    (
        f"{CLUSTER}.keepalive",
        {"interval": 5},
        ['.interval: 5 has no unit; write "5s" if it counts seconds, "5ms" if milliseconds'],
    ),
    (
        f"{PROXY}.extend_config",
        {"max_header_size": "8k"},
        ['.max_header_size: expected a whole number, got the text "8k"'],
    ),
    (
        f"{PROXY}.extend_config",
        {"http1": {"via": "edge\r\nX: y"}, "http2": {"via": "edge, 1.1 other"}},
        [
            '.http1.via: "edge\\r\\nX: y" can\'t be in a Via header; write a name such as "edge-1"',
            '.http2.via: "edge, 1.1 other" can\'t be in a Via header; write a name such as "edge-1"',
        ],
    ),
    (
        f"{PROXY}.extend_config",
        {"http1": {"x_forwarded": "yes"}},
        ['.http1.x_forwarded: the text "yes" is not allowed; choose "off", "append" or "replace"'],
    ),
    # filters
    (f"{FILTER}.type", GONE, [": missing key: the kind of filter"]),
    (FILTER, "proxy", [': expected an object, got the text "proxy"']),
    (f"{FILTER}.config", [], [": expected an object, got a list"]),
    (FILTER, {"type": "tcp_proxy"}, [".config.cluster: missing key: the cluster that connections go to"]),
    (
        FILTER,
        {"type": "tcp_proxy", "config": {"cluster": "edge", "idle_timeout": 1.5}},
        ['.config.idle_timeout: 1.5 has no unit; write "1.5s" if it counts seconds, "1.5ms" if milliseconds'],
    ),
    (
        FILTER,
        {
            "type": "tcp_proxy",
            "config": {
                "routes": [{"sourceaddrs": [{"address": "10.0.0", "length": 33}], "SourcePort": "9-1"}, {}]
            },
        },
        [
            '.config.routes[0].sourceaddrs[0].address: "10.0.0" is not an IP address',
            f'.config.routes[0].SourcePort: "9-1" is not a list of ports; {PORTS}',
            ".config.routes[0].cluster: missing key: the cluster that connections go to",
            ".config.routes[1].cluster: missing key: the cluster that connections go to",
        ],
    ),
    (
        FILTER,
        {
            "type": "tcp_proxy",
            "config": {
                "routes": [
                    {"cluster": "edge", "SourceAddrs": [{"Address": "10.0.0.0", "Length": 33}]},
                    {"cluster": "edge", "SourcePort": 80},
                ]
            },
        },
        [
            ".config.routes[0].SourceAddrs[0]: 33 is more bits than 10.0.0.0 has",
            f".config.routes[1].SourcePort: the number 80 is not a list of ports; {PORTS}",
        ],
    ),
    (
        "servers[0].listeners[1].filter_chains[0].filters[0].config",
        {
            "cluster_credential_policies": {"egde": "hmac"},
            "handshake_timeout": "0s",
            "max_pending_connections": 0,
        },
        [
            '.cluster_credential_policies.egde: there is no cluster "egde"; did you mean "edge"?',
            ".handshake_timeout: 0s is too short; write a duration above 0",
            ".max_pending_connections: 0 is out of range; write a number from 1 to 2147483647",
        ],
    ),
    # TLS
    (
        TLS,
        {"status": True},
        [": has no certificate; write cert_chain and private_key, or set fall_back to true"],
    ),
    (
        TLS,
        {"status": True, "cert_chain": PEM},
        [".private_key: missing key: cert_chain is given, and each needs the other"],
    ),
    (
        TLS,
        {"status": True, "private_key": PEM},
        [".cert_chain: missing key: private_key is given, and each needs the other"],
    ),
    (
        TLS,
        {"status": True, "cert_chain": "/no/cert.pem", "private_key": "/no/key.pem", "ca_cert": "/no/ca.pem"},
        [
            '.cert_chain: "/no/cert.pem" can\'t be read: No such file or directory',
            '.private_key: "/no/key.pem" can\'t be read: No such file or directory',
            '.ca_cert: "/no/ca.pem" can\'t be read: No such file or directory',
        ],
    ),
    (
        TLS,
        {"status": True, "cert_chain": PEM, "private_key": os.devnull},
        [
            f'.private_key: "{os.devnull}" does not hold a private key in PEM format',
        ],
    ),
    (
        TLS,
        {
            "status": True,
            "cert_chain": PEM,
            "private_key": PEM,
            "cipher_suites": "ECDHE-RSA-AES128-GCM-SHA256:RC4",
            "ecdh_curves": "P256,brainpool",
            "min_version": "tlsv1_3",
            "max_version": "TLSv1_2",
        },
        [
            '.cipher_suites: "RC4" is not a cipher suite; choose from ECDHE-ECDSA-AES256-GCM-SHA384, '
            "ECDHE-RSA-AES256-GCM-SHA384, ECDHE-ECDSA-AES128-GCM-SHA256, ECDHE-RSA-AES128-GCM-SHA256, "
            "ECDHE-ECDSA-WITH-CHACHA20-POLY1305, ECDHE-RSA-WITH-CHACHA20-POLY1305, ECDHE-RSA-AES256-CBC-SHA, "
            "ECDHE-RSA-AES128-CBC-SHA, ECDHE-ECDSA-AES256-CBC-SHA, ECDHE-ECDSA-AES128-CBC-SHA, "
            "RSA-AES256-CBC-SHA, RSA-AES128-CBC-SHA",
            '.ecdh_curves: "brainpool" is not a curve; choose from x25519, p256, p384, p521',
            ".min_version: TLSv1_3 is newer than max_version TLSv1_2",
        ],
    ),
    (
        TLS,
        {"status": True, "cert_chain": PEM, "private_key": PEM, "cipher_suites": "AES256-GCM-SHA384"},
        [".cipher_suites: no cipher suite is left"],
    ),
    (
        TLS,
        {"status": True, "cert_chain": PEM, "private_key": PEM, "min_version": "1.2", "max_version": "SSLv3"},
        [
            f'.min_version: "1.2" is not a TLS version; {VERSIONS}',
            f'.max_version: "SSLv3" is not a TLS version; {VERSIONS}',
        ],
    ),
    (
        f"{CHAIN}.tls_context_set",
        [{"status": True, "fall_back": True}, {"status": True}],
        ["[1]: has no certificate; write cert_chain and private_key, or set fall_back to true"],
    ),
    (
        f"{CLUSTER}.tls_context",
        {"status": True, "ca_cert": "/no/ca.pem", "fall_back": True},
        ['.ca_cert: "/no/ca.pem" can\'t be read: No such file or directory'],
    ),
    (
        "cluster_manager.tls_context",
        {"status": True, "ca_cert": "/no/ca.pem"},
        ['.ca_cert: "/no/ca.pem" can\'t be read: No such file or directory'],
    ),
    # routers
    (
        f"{HOST}.domains",
        ["*", "A.b", "a.B", "*:*", "a*b", "a:b", "a:1:2", "", 5, "*.c:80", "*.c", "*.c:*", "*.C:80"],
        [
            f'[2]: the domain "a.B" is taken already, at {HOST}.domains[1]',
            f"[3]: the default domain is taken already, at {HOST}.domains[0]",
            '[4]: "a*b" has a * that is not its first character',
            '[5]: "a:b" is not a host name, optionally with a port; write "host", "host:80" or "host:*"',
            '[6]: "a:1:2" is not a host name, optionally with a port; write "host", "host:80" or "host:*"',
            '[7]: "" is empty; write a host name, or "*" for all',
            "[8]: expected a text in quotation marks, got the number 5",
            f'[12]: the domain "*.C:80" is taken already, at {HOST}.domains[9]',
        ],
    ),
    (
        f"{ROUTER}.virtual_hosts[1]",
        {"domains": ["*"]},
        [f".domains[0]: the default domain is taken already, at {HOST}.domains[0]"],
    ),
    (
        f"{RULE}.match",
        {"regex": "a(b"},
        ['.regex: "a(b" is not a regular expression that RE2 takes: missing ): a(b'],
    ),
    (
        f"{RULE}.match",
        {"regex": "(?=a)"},
        ['.regex: "(?=a)" is not a regular expression that RE2 takes: invalid perl operator: (?='],
    ),
    (
        f"{RULE}.match",
        {"headers": [{"name": "a", "value": "*", "regex": True}, {"value": "*"}]},
        [
            '.headers[0].value: "*" is not a regular expression that RE2 takes: '
            "no argument for repetition operator: *",
            ".headers[1].name: missing key: the header's name, in any case",
        ],
    ),
    (
        f"{RULE}.redirect",
        {"response_code": 304, "scheme_redirect": "http://"},
        [
            ".response_code: 304 is not a redirect; the codes are 301, 302, 303, 307, 308",
            '.scheme_redirect: "http://" is not a URL scheme; write "https" or "http"',
        ],
    ),
    (
        f"{RULE}.direct_response",
        {"status": 99},
        [".status: 99 is not a final HTTP status; write a number from 200 to 599"],
    ),
    (
        f"{ROUTER}.router_configs",
        "/no/directory",
        [": can't be used together with virtual_hosts; write one of them"],
    ),
    (
        "cluster_manager.clusters_configs",
        "/no/directory",
        [": can't be used together with clusters; write one of them"],
    ),
    (
        "cluster_manager",
        {"clusters_configs": "/no/directory"},
        ['.clusters_configs: "/no/directory" can\'t be read: No such file or directory'],
    ),
]
"""Changes to a document that make it wrong, and every message that they give."""

WRONG_AGENTS: list[tuple[str, Any, list[str]]] = [
    ("extends", {}, [": expected a list, got an object"]),
    ("extends[0]", "tunnel_agent", [': expected an object, got the text "tunnel_agent"']),
    ("extends[0].type", GONE, [": missing key: the kind of extension"]),
    (f"{CONFIG}.enable", "yes", [': expected true or false, got the text "yes"']),
    (f"{CONFIG}.connection_num", "4", [': expected a whole number, got the text "4"']),
    (f"{CONFIG}.connection_num", -1, [": -1 is not a number of connections; write 1 or more"]),
    (f"{CONFIG}.cluster", GONE, [": missing key: the cluster on the server that these connections join"]),
    (
        f"{CONFIG}.hosting_listener",
        GONE,
        [": missing key: the listener of this configuration that serves what comes through the connections"],
    ),
    (f"{CONFIG}.hosting_listener", "hostd", [': there is no listener "hostd"; did you mean "hosted"?']),
    (
        f"{CONFIG}.server_list",
        ["a:1", "b", "unix:/x"],
        [
            '[1]: "b" has no port; write "host:port"',
            '[2]: "unix:/x" is a path, which can\'t be used here; write "host:port"',
        ],
    ),
    (f"{CONFIG}.server_list", "a:1", [': expected a list, got the text "a:1"']),
    (
        f"{CONFIG}.connect_retry_times",
        -2,
        [": -2 is not a number of retries; write 0 or -1 for ever, or a number above 0"],
    ),
    (
        f"{CONFIG}.reconnect_base_duration",
        8,
        [f": {no_unit(8)}"],
    ),
    (
        f"{CONFIG}.connect_timeout_duration",
        "15",
        [': "15" has no unit; write "15s" if it counts seconds, "15ms" if milliseconds'],
    ),
    (
        f"{CONFIG}.connect_timeout_duration",
        "15sec",
        [': "15sec" has the unknown unit "sec"; the units are ns, us, ms, s, m or h'],
    ),
    (f"{CONFIG}.graceful_close_max_wait_duration", None, [f": null is not a duration; {WRITE}"]),
    (f"{CONFIG}.reconnect_max_duration", "2s", [": is shorter than reconnect_base_duration"]),
    (f"{CONFIG}.dns_refresh_duration", 0, [": 0s is too short; write a duration above 0"]),
    (f"{CONFIG}.weight", 200, [": 200 is out of range; write a number from 1 to 128"]),
    (f"{CONFIG}.metadata", {"zone": 1}, [".zone: expected a text in quotation marks, got the number 1"]),
    (
        f"{CONFIG}.tls_context",
        {"status": True, "ca_cert": "../no/ca.pem"},
        ['.ca_cert: "../no/ca.pem" can\'t be read: No such file or directory'],
    ),
    (f"{CONFIG}.dynamic_server_list_config", "dns", [': expected an object, got the text "dns"']),
    # secrets
    (f"{CONFIG}.credential_config", "hunter2", [": expected an object, got a text"]),
    (
        f"{CONFIG}.tls_context",
        {"private_key": 12345},
        [".private_key: expected a text in quotation marks, got a number"],
    ),
]
"""As L{WRONG_SERVERS}, for an agent."""


def expected(place: str, errors: list[str]) -> list[str]:
    """Write out errors that are at a place or below it."""
    return [f"{place}{error}" if error[0] in ":.[" else error for error in errors]


class WrongTests(SynchronousTestCase):
    """Wrong values, one at a time: the exact messages."""

    maxDiff = None

    def check(self, document: dict[str, Any], rows: list[tuple[str, Any, list[str]]]) -> None:
        for place, value, errors in rows:
            with self.subTest(place=place, value=value):
                self.assertEqual(problems(edited(document, (place, value))), expected(place, errors))

    def test_server(self) -> None:
        self.check(TUNNEL_SERVER, WRONG_SERVERS)

    def test_agent(self) -> None:
        self.check(AGENT, WRONG_AGENTS)

    def test_both_tls_contexts(self) -> None:
        """An empty tls_context counts as given, as in MOSN."""
        document = edited(TUNNEL_SERVER, (TLS, {}), (f"{CHAIN}.tls_context_set", [{}]))
        self.assertEqual(
            problems(document),
            [f"{CHAIN}.tls_context_set: can't be used together with tls_context; write one of them"],
        )

    def test_file_is_named(self) -> None:
        with self.assertRaises(ConfigError) as caught:
            parse(edited(AGENT, (f"{CONFIG}.reconnect_base_duration", 8)), "agent.json")
        self.assertEqual(
            str(caught.exception),
            f"agent.json: extends[0].config.reconnect_base_duration: {no_unit(8)}",
        )

    def test_all_at_once(self) -> None:
        """Errors of every kind come together, in the order of the document."""
        document = edited(
            TUNNEL_SERVER,
            (f"{HOST}.domains", ["*", "*"]),
            (f"{RULE}.route.timeout", 5),
            (f"{LISTENER}.address", 5),
            (f"{PROXY}.downstream_protocol", "tars"),
            ("servers[0].listeners[1].name", "clients"),
            ("servers[0].listeners[1].connection_idle_timeout", "x"),
            ("extends", [{"type": "tunnel_agent", "config": {"enable": True, "hosting_listener": "a"}}]),
            (f"{CLUSTER}.hosts", [{"address": "a"}, "b", {"address": "c:1", "weight": "1"}]),
        )
        self.assertEqual(
            problems(document),
            [
                f"{HOST}.domains[1]: the default domain is taken already, at {HOST}.domains[0]",
                f"{RULE}.route.timeout: {no_unit(5)}",
                f"{LISTENER}.address: expected a text in quotation marks, got the number 5",
                f'{PROXY}.downstream_protocol: "tars" {UNSUPPORTED}',
                f'servers[0].listeners[1].name: there is already a listener "clients" at {LISTENER}.name',
                f'servers[0].listeners[1].connection_idle_timeout: "x" is not a duration; {WRITE}',
                f'{CLUSTER}.hosts[0].address: "a" has no port; write "host:port"',
                f'{CLUSTER}.hosts[1]: expected an object, got the text "b"',
                f'{CLUSTER}.hosts[2].weight: expected a whole number, got the text "1"',
                f"{CONFIG}.cluster: missing key: the cluster on the server that these connections join",
            ],
        )

    def test_no_false_consequences(self) -> None:
        """What refers to something that is itself wrong is not reported as well."""
        for place, value in [
            (f"{LISTENER}.name", 5),
            (f"{LISTENER}.address", GONE),
            (LISTENER, []),
            ("servers[0].listeners", {}),
        ]:
            errors = problems(edited(AGENT, (place, value)))
            self.assertEqual(len(errors), 1, errors)
        for place, value in [
            (f"{CLUSTER}.name", GONE),
            (CLUSTER, 5),
            ("cluster_manager", []),
            ("cluster_manager", {"clusters_configs": "/no/directory"}),
        ]:
            errors = problems(edited(AGENT, (place, value)))
            self.assertEqual(len(errors), 1, errors)
        errors = problems(edited(TUNNEL_SERVER, (f"{ROUTER}.router_config_name", 5)))
        self.assertEqual(len(errors), 1, errors)

    def test_secrets_are_never_shown(self) -> None:
        documents = [
            edited(AGENT, (f"{CONFIG}.credential_config", [SECRET])),
            edited(AGENT, (f"{CONFIG}.credential_config", SECRET)),
            edited(
                AGENT, (f"{CONFIG}.tls_context", {"status": True, "cert_chain": PEM, "private_key": SECRET})
            ),
            edited(AGENT, (f"{CONFIG}.tls_context", {"status": True, "private_key": [SECRET]})),
            edited(
                TUNNEL_SERVER,
                (TLS, {"status": True, "cert_chain": PEM, "private_key": PEM, "ticket": [SECRET]}),
            ),
            edited(
                TUNNEL_SERVER,
                ("servers[0].listeners[1].filter_chains[0].filters[0].config", {"validators": {"x": SECRET}}),
            ),
        ]
        for document in documents:
            try:
                found = [str(problem) for problem in parse(document).warnings]
            except ConfigError as error:
                found = [str(error)]
            self.assertNotIn("c2Vj", "\n".join(found))

    def test_long_values_are_shortened(self) -> None:
        errors = problems(edited(TUNNEL_SERVER, (f"{LISTENER}.address", "a" * 1000)))
        self.assertEqual(errors, [f'{LISTENER}.address: "{"a" * 79}\u2026" has no port; write "host:port"'])


class WarningTests(SynchronousTestCase):
    """What loads, but not without a word."""

    maxDiff = None

    def check(self, document: dict[str, Any], place: str, value: Any, *found: str) -> None:
        with self.subTest(place=place, value=value):
            self.assertEqual(warnings(edited(document, (place, value))), expected(place, list(found)))

    def test_none(self) -> None:
        self.assertEqual(warnings(TUNNEL_SERVER), [])
        self.assertEqual(warnings(AGENT), [])

    def test_protocols(self) -> None:
        """What is spoken, without a word; names that are not known may be those of plug-ins."""
        for protocol in ("bolt", "boltv2", "dubbo", "Auto", "Http1,bolt,dubbo", "Auto,bolt", "example"):
            self.check(TUNNEL_SERVER, f"{PROXY}.downstream_protocol", protocol)
        for upstream, protocol in (("X", "bolt"), ("bolt", "boltv2"), ("Http1", "Auto")):
            self.check(
                edited(TUNNEL_SERVER, (f"{PROXY}.downstream_protocol", protocol)),
                f"{PROXY}.upstream_protocol",
                upstream,
                ": not acted on, as in MOSN; hosts are spoken to as the client speaks",
            )

    def test_options_of_the_only_protocol(self) -> None:
        """They may stand there without its name, also beside sub_protocol."""
        for proxy in (
            {"downstream_protocol": "bolt", "extend_config": {"enable_bolt_goaway": True}},
            {"downstream_protocol": "boltv2", "extend_config": {"bolt": {"enable_bolt_goaway": True}}},
            {
                "downstream_protocol": "X",
                "extend_config": {"sub_protocol": "bolt", "enable_bolt_goaway": True},
            },
        ):
            loaded = parse(edited(TUNNEL_SERVER, (PROXY, {**proxy, "router_config_name": "web"})))
            self.assertEqual(loaded.warnings, ())
            found = loaded.config.server.listeners[0].filter_chain.filters[0].config
            assert isinstance(found, ProxyConfig)
            self.assertTrue(found.rpc_options("bolt")["enable_bolt_goaway"])
            self.assertEqual(found.protocols[0][:4], "bolt")
        self.check(
            TUNNEL_SERVER,
            f"{PROXY}.extend_config",
            {"sub_protocol": "bolt", "enable_bolt_goaway": True},
            ".enable_bolt_goaway: unknown key, ignored",
        )

    def test_fallback(self) -> None:
        document = edited(
            TUNNEL_SERVER,
            (f"{PROXY}.fallback_for_unknown_protocol", True),
            (
                "servers[0].listeners[0].filter_chains[0].filters[1]",
                {"type": "tcp_proxy", "config": {"cluster": "edge"}},
            ),
        )
        self.check(document, f"{PROXY}.downstream_protocol", "Auto")
        self.assertEqual(
            warnings(document),
            [
                f"{PROXY}.fallback_for_unknown_protocol: has no effect, as nothing but one protocol is "
                'expected; write several, or "Auto"',
                f'{FILTER[:-3]}[1]: "tcp_proxy" is never reached: a filter before it takes all',
            ],
        )

    def test_not_acted_on(self) -> None:
        for place, value, reason in [
            ("pid", "/run/x", "twistd writes that file, where its option --pidfile says"),
            (
                f"{CLUSTER}.spec",
                {"subscribe": [{"subscriber": "x"}]},
                "there are no service registries; give hosts, or let agents join",
            ),
            (f"{RULE}.metadata", {"a": "b"}, "no filter and no balancer that there is asks for it"),
        ]:
            self.check(TUNNEL_SERVER, place, value, f": not acted on: {reason}")

    def test_asking_for_nothing(self) -> None:
        """Values that ask for what happens anyway are no reason to warn."""
        for place, value in [
            ("admin", None),
            ("pid", ""),
            ("inherit_old_mosnconfig", False),
            ("disable_upgrade", True),
            ("close_graceful", True),
            (f"{LISTENER}.stream_filters", []),
            (f"{LISTENER}.listener_filters", {}),
            (f"{CLUSTER}.mark", 0),
            (f"{PROXY}.upstream_protocol", "Http1"),
            (f"{CLUSTER}.lb_type", ""),
            (TLS, {}),
            (TLS, {"status": False, "ca_cert": "x"}),
        ]:
            self.check(TUNNEL_SERVER, place, value)

    def test_unknown_keys(self) -> None:
        self.check(TUNNEL_SERVER, "admn", {}, ': unknown key, ignored; did you mean "admin"?')
        self.check(TUNNEL_SERVER, f"{LISTENER}.log_path", "stdout", ": unknown key, ignored")
        self.check(
            AGENT,
            f"{CONFIG}.reconnect_base_durations",
            5,
            ': unknown key, ignored; did you mean "reconnect_base_duration"?',
        )
        self.check(
            TUNNEL_SERVER,
            f"{CLUSTER}.hosts",
            [{"address": "a:1", "metadata": {"zone": "b"}}],
            '[0].metadata.zone: unknown key, ignored; labels are in {"filter_metadata": {"mosn.lb": {}}}',
        )
        document = edited(TUNNEL_SERVER)
        document["a key: odd"] = 1
        self.assertEqual(warnings(document), ['["a key: odd"]: unknown key, ignored'])

    def test_tcp_routes(self) -> None:
        """MOSN does not take the names of these keys with underscores."""
        self.check(
            AGENT,
            f"{PROXY}",
            {"routes": [{"cluster": "service", "source_addrs": []}]},
            ".routes[0]: takes no connection: SourceAddrs, DestinationAddrs, SourcePort and "
            "DestinationPort must all be given",
            '.routes[0].source_addrs: unknown key, ignored; did you mean "SourceAddrs"?',
        )

    def test_stand_ins(self) -> None:
        choices = (
            "(choices: LB_RANDOM, LB_ROUNDROBIN, LB_WEIGHTED_ROUNDROBIN, LB_LEAST_REQUEST, "
            "LB_LEAST_CONNECTION, LB_PEAK_EWMA, LB_MAGLEV, LB_REQUEST_ROUNDROBIN)"
        )
        for name in ("LB_ORIGINAL_DST",):
            self.check(
                TUNNEL_SERVER,
                f"{CLUSTER}.lb_type",
                name,
                f': "{name}" is not acted on: there is no transparent proxying; '
                f"LB_ROUNDROBIN is used instead {choices}",
            )
        self.check(
            TUNNEL_SERVER,
            f"{CLUSTER}.lb_type",
            "lb_random",
            f': "lb_random" is not known; LB_ROUNDROBIN is used instead {choices}',
        )
        self.check(
            TUNNEL_SERVER,
            f"{CLUSTER}.type",
            "ORIGINAL_DST",
            ': "ORIGINAL_DST" is not acted on: there is no transparent proxying; SIMPLE is used instead '
            "(choices: SIMPLE, STATIC, DYNAMIC, EDS, STRICT_DNS)",
        )
        self.check(
            TUNNEL_SERVER,
            "servers[0].default_log_level",
            "loud",
            ': "loud" is not known; INFO is used instead (choices: TRACE, DEBUG, INFO, WARN, ERROR, FATAL)',
        )
        for level in ("debug", "Debug", "DEBUG"):
            loaded = parse(edited(TUNNEL_SERVER, ("servers[0].default_log_level", level)))
            self.assertEqual((loaded.config.server.default_log_level, loaded.warnings), ("DEBUG", ()))
        config = parse(edited(TUNNEL_SERVER, (f"{CLUSTER}.lb_type", "LB_ORIGINAL_DST"))).config
        self.assertEqual(config.cluster_manager.clusters[0].lb_type, "LB_ROUNDROBIN")

    def test_skipped(self) -> None:
        closed = f"{CHAIN}.filters: {TERMINAL}"
        for name, reason in {
            "grpc": "there are no servers of gRPC in this process",
            "fault_inject": "nothing is delayed",
            "udp_proxy": "there is no UDP",
        }.items():
            self.check(TUNNEL_SERVER, f"{FILTER}.type", name, closed, f': "{name}" is skipped: {reason}')
        self.check(TUNNEL_SERVER, f"{CHAIN}.filters", [], closed)
        self.check(
            TUNNEL_SERVER,
            "extends",
            [{"type": "other", "config": {"a": 1}}],
            '[0].type: "other" is not known; it is skipped (choices: tunnel_agent)',
        )
        self.check(
            TUNNEL_SERVER,
            f"{CHAIN}.filters[1]",
            {"type": "tunnel"},
            ': "tunnel" is never reached: a filter before it takes all',
        )

    def test_routes(self) -> None:
        self.check(
            TUNNEL_SERVER,
            f"{RULE}.route.cluster_name",
            "other",
            ': requests that match are answered with 404: there is no cluster "other"; defined: "edge"',
        )
        self.check(
            TUNNEL_SERVER,
            f"{RULE}.route",
            GONE,
            f"{RULE}: has no route, redirect or direct_response: it answers with 404",
        )
        self.check(
            TUNNEL_SERVER,
            f"{RULE}.redirect",
            {},
            f"{RULE}.route: does not count, because redirect is given as well",
        )
        self.check(
            TUNNEL_SERVER,
            f"{RULE}.match",
            {"regex": "a", "path": "/b"},
            ".regex: does not count, because path is given as well",
        )
        self.check(
            TUNNEL_SERVER, f"{HOST}.domains", [], ": there is none: this virtual host takes no requests"
        )
        self.check(
            TUNNEL_SERVER,
            f"{ROUTER}.virtual_hosts",
            [],
            ": there is none: every request is answered with 404",
        )
        for domain, written in (
            ("bücher.example", 'clients write "xn--bcher-kva.example"'),
            ("*.BÜCHER.example:8080", 'clients write "*.xn--bcher-kva.example:8080"'),
            ("a.example/path", "it has a character that no Host header may have"),
            ("me@a.example", "it has a character that no Host header may have"),
            ("a.example:٨٠", "it has a character that no Host header may have"),
        ):
            self.check(
                TUNNEL_SERVER,
                f"{HOST}.domains",
                ["*", "[::1]:80", "A_b-c.example:8080", domain],
                f'[3]: "{domain}" takes no request: {written}',
            )

    def test_tls(self) -> None:
        good = {"status": True, "cert_chain": PEM, "private_key": PEM}
        self.check(TUNNEL_SERVER, TLS, {"ca_cert": "x"}, ": TLS is off, because status is not true")
        self.check(
            TUNNEL_SERVER,
            TLS,
            {"status": True, "fall_back": True},
            ": has no certificate: plaintext is spoken, because fall_back is true",
        )
        self.check(
            TUNNEL_SERVER,
            TLS,
            {**good, "cert_chain": "/no/x.pem", "private_key": "/no/y.pem", "fall_back": True},
            '.cert_chain: "/no/x.pem" can\'t be read: No such file or directory; '
            "plaintext is spoken, because fall_back is true",
            '.private_key: "/no/y.pem" can\'t be read: No such file or directory; '
            "plaintext is spoken, because fall_back is true",
        )
        self.check(
            TUNNEL_SERVER,
            TLS,
            {
                **good,
                "alpn": "http/1.1, spdy",
                "cipher_suites": "RSA-AES128-CBC-SHA:RSA-3DES-EDE-CBC-SHA",
            },
            '.alpn: "spdy" is dropped; known are h2, http/1.1, sofa',
            '.cipher_suites: "RSA-3DES-EDE-CBC-SHA" is left out: 3DES is too weak',
        )
        self.check(
            TUNNEL_SERVER,
            TLS,
            {**good, "alpn": "h2,http/1.1"},
            f"{FILTER}: does not speak Http2, but alpn offers h2: clients that choose it will fail",
        )
        self.check(
            TUNNEL_SERVER,
            TLS,
            {**good, "verify_client": True},
            ".verify_client: without ca_cert, certificates of clients are verified against the system's",
            ".verify_client: clients that send no certificate get in as well: set require_client_cert",
        )
        self.check(
            AGENT,
            f"{CONFIG}.tls_context",
            {"status": True, "insecure_skip": True},
            ".insecure_skip: the server is not verified: anyone on the way can be it",
        )

    def test_clusters(self) -> None:
        self.check(
            TUNNEL_SERVER,
            f"{CLUSTER}.cluster_manager_tls",
            True,
            ": is true, but cluster_manager.tls_context is not on: hosts are dialled in plaintext",
        )
        self.check(
            TUNNEL_SERVER,
            "cluster_manager",
            {
                "tls_context": {"status": True},
                "clusters": [{"name": "edge", "cluster_manager_tls": True, "tls_context": {"status": True}}],
            },
            ".clusters[0].tls_context: does not count, because cluster_manager_tls is true",
        )
        self.check(
            TUNNEL_SERVER,
            f"{CLUSTER}.circuit_breakers",
            [{"max_connections": 1}, {}],
            ": only the first element counts",
        )
        self.check(
            TUNNEL_SERVER,
            f"{CLUSTER}.hosts",
            [{"address": "a:1"}, {"address": "a:1"}],
            '[1].address: "a:1" occurs more than once in this cluster; the last one counts',
        )

    def test_agents(self) -> None:
        self.check(AGENT, f"{CONFIG}.connection_num", 0, ": is 0: this agent holds no connections")
        self.check(
            AGENT, f"{CONFIG}.server_list", [], ": there is none: this agent has nothing to connect to"
        )
        self.check(
            AGENT,
            f"{CONFIG}.credential_policy",
            "token",
            ": the credential is sent in the clear, because TLS is off",
        )
        self.check(AGENT, f"{CONFIG}.mux", False)
        self.check(AGENT, f"{CONFIG}.mux_max_window", 2**20)
        self.check(AGENT, f"{CONFIG}.mux_max_window_growth", 0)
        for key, value in (
            ("mux", True),
            ("mux_ping_interval", "1s"),
            ("mux_max_window", 2**20),
            ("mux_max_window_growth", 2**20),
        ):
            self.check(
                AGENT,
                CONFIG,
                {**AGENT["extends"][0]["config"], "announce": False, key: value},
                f".{key}: has no effect, because announce is false",
            )
        self.check(
            TUNNEL_SERVER,
            "servers[0].listeners[1].filter_chains[0].filters[0].config",
            {"mux": False, "mux_ping_timeout": "1s"},
            ".mux_ping_timeout: has no effect, because mux is false",
        )
        idle = (
            f"{LISTENER}.bind_port: is not true, and no tunnel agent names this listener: "
            "it gets no connections"
        )
        ready = f"{LISTENER}.open_when_ready: has no effect, as "
        self.check(TUNNEL_SERVER, f"{LISTENER}.open_when_ready", True, f"{ready}no cluster is required")
        self.check(AGENT, f"{LISTENER}.open_when_ready", True, f"{ready}bind_port is not true")
        self.check(AGENT, f"{CONFIG}.enable", False, idle)
        self.check(AGENT, f"{CONFIG}.enable", GONE, idle, ": missing key: without it this agent does nothing")
        self.check(
            TUNNEL_SERVER,
            "servers[0].listeners[1].filter_chains[0].filters[0].config",
            {"credential_policy": "token"},
            ": agents send their credentials in the clear, because TLS is off",
        )

    def test_infinite_numbers(self) -> None:
        """JSON can write them, but Go can't read them, and nobody could show them again."""
        number = "expected a finite number, got the number"
        text = json.dumps(TUNNEL_SERVER).replace(
            '"name": "edge"', '"spec": {"a": [1, 1e999, -1e999]}, "name": "edge"'
        )
        for is_yaml in (False, True):
            error = self.assertRaises(ConfigError, loads, text, "c", is_yaml)
            self.assertEqual(
                [(problem.path, problem.message) for problem in error.problems],
                [(f"{CLUSTER}.spec.a[1]", f"{number} inf"), (f"{CLUSTER}.spec.a[2]", f"{number} -inf")],
            )

    def test_repeated_keys(self) -> None:
        """The last one counts, whatever its case."""
        text = json.dumps(TUNNEL_SERVER)
        text = text.replace(
            '"name": "edge"', '"name": "a", "Name": "b", "spec": {"a": 1, "a": {}}, "name": "edge"'
        )
        loaded = loads(text, "c.json")
        self.assertEqual(loaded.config.cluster_manager.clusters[0].name, "edge")
        self.assertEqual(
            [(problem.path, problem.message) for problem in loaded.warnings],
            [
                (f"{CLUSTER}.Name", REPEATED),
                (
                    f"{CLUSTER}.spec",
                    "not acted on: there are no service registries; give hosts, or let agents join",
                ),
                (f"{CLUSTER}.spec.a", REPEATED),
                (f"{CLUSTER}.name", REPEATED),
            ],
        )


class MosnSampleTests(SynchronousTestCase):
    """Documents of the shape that MOSN's own examples have."""

    def test_http(self) -> None:
        document = edited(
            TUNNEL_SERVER,
            ("disable_upgrade", True),
            (f"{PROXY}.upstream_protocol", "Http1"),
            ("servers[0].listeners[1]", GONE),
            (f"{CLUSTER}.max_request_per_conn", 1024),
            (f"{CLUSTER}.conn_buffer_limit_bytes", 32768),
            (f"{CLUSTER}.hosts", [{"address": "127.0.0.1:2046"}]),
            ("admin", {"address": {"socket_address": {"address": "0.0.0.0", "port_value": 34901}}}),
        )
        self.assertEqual(
            warnings(document),
            [
                "admin.address.socket_address.address: the admin API listens at 127.0.0.1 instead of "
                '"0.0.0.0": '
                "for others than this machine, it takes tls_context with status: true and tokens_file or "
                "certificates"
            ],
        )

    def test_tcp(self) -> None:
        document = edited(
            AGENT,
            ("extends", GONE),
            (f"{LISTENER}.bind_port", True),
            (f"{LISTENER}.log_path", "stdout"),
            (TLS, {}),
            (f"{PROXY}.routes", [{"cluster": "service"}]),
            (f"{CLUSTER}.name", GONE),
            (f"{CLUSTER}.Name", "service"),
            (f"{CLUSTER}.lb_type", "LB_RANDOM"),
        )
        self.assertEqual(warnings(document), [f"{LISTENER}.log_path: unknown key, ignored"])

    def test_tunnel(self) -> None:
        """The header rule is the one that MOSN treats specially."""
        proxy = {
            "downstream_protocol": "X",
            "upstream_protocol": "X",
            "extend_config": {"sub_protocol": "bolt"},
            "router_config_name": "web",
        }
        document = edited(
            TUNNEL_SERVER,
            ("close_graceful", True),
            ("servers[0].default_log_level", "DEBUG"),
            (f"{RULE}.match", {"headers": [{"name": "service", "value": ".*"}]}),
            (PROXY, proxy),
            (
                "servers[0].listeners[1].filter_chains[0].tls_context",
                {
                    "status": True,
                    "ca_cert": PEM,
                    "cert_chain": PEM,
                    "private_key": PEM,
                    "verify_client": False,
                    "require_client_cert": False,
                },
            ),
        )
        self.assertEqual(warnings(document), [])
        http = edited(document, (f"{PROXY}.downstream_protocol", "Http1"), (f"{PROXY}.extend_config", GONE))
        self.assertEqual(
            warnings(http),
            [
                f"{PROXY}.upstream_protocol: not acted on, as in MOSN; "
                "hosts are spoken to as the client speaks"
            ],
        )


class SyntaxTests(SynchronousTestCase):
    """Text that is no document."""

    def test_json(self) -> None:
        for text, problem in {
            "": "is empty",
            " \n": "is empty",
            "[]": "expected an object, got a list",
            "5": "expected an object, got the number 5",
            '{"a": 1,\n "b" 2}': "line 2, column 6: not JSON: expecting ':' delimiter",
            '{"a": NaN}': "NaN is not JSON",
            '{"a": 1} x': "line 1, column 10: not JSON: extra data",
            '{"a":' * 100000: "is nested too deeply",
        }.items():
            self.assertEqual(text_problems(text), [problem])
        for depth in (100, 200, 300, 400, 600, 800, 950):
            found = text_problems('{"admin":' * depth + "1" + "}" * depth)
            self.assertIn(
                found, (["servers: missing key: write exactly one server"], ["is nested too deeply"])
            )
        [problem] = text_problems('{"pid": ' + "1" * 5000 + "}")
        self.assertEqual(problem, "line 1, column 9: not JSON: an integer has too many digits")

    def test_yaml(self) -> None:
        for text, problem in {
            "": "is empty",
            "- 1": "expected an object, got a list",
            "a: [1,\nb: 2": "line 3, column 1: not YAML: did not find expected ',' or ']'",
            "[" * 30000 + "]" * 30000: "is nested too deeply",  # the loader in C would crash
            "a: &x [*x]": "line 1, column 4: not YAML: found unconstructable recursive node",
            "a: !!python/none x": "line 1, column 4: not YAML: could not determine a constructor for the tag "
            "'tag:yaml.org,2002:python/none'",
            "a: !!timestamp 2020-01-01": "line 1, column 4: not YAML: could not determine a constructor "
            "for the tag 'tag:yaml.org,2002:timestamp'",
            "a: !!int x": 'line 1, column 4: not YAML: "x" is no whole number, or has too many digits',
            "a: 0x" + "f" * 5000: f'line 1, column 4: not YAML: "0x{"f" * 77}…'
            '" is no whole number, or has too many digits',
            "? 0b" + "1" * 15_000 + "\n: b": f'line 1, column 3: not YAML: "0b{"1" * 77}…'
            '" is no whole number, or has too many digits',
            "a: !!float x": 'line 1, column 4: not YAML: "x" is no number',
            "a: !!bool x": 'line 1, column 4: not YAML: "x" is no boolean',
            "a: !!map x": "line 1, column 4: not YAML: expected a mapping node, but found scalar",
            "a: !!map [b]": "line 1, column 4: not YAML: expected a mapping node, but found sequence",
            "a: !!int []": "line 1, column 4: not YAML: expected a scalar node, but found sequence",
            "? [a]\n: b": "line 1, column 3: not YAML: a key must be a text or a number",
            "a: 1\n---\nb: 2": "line 2, column 1: not YAML: but found another document",
            "a: \x00": "line 1, column 4: not YAML: the character U+0000 can't be part of it",
        }.items():
            self.assertEqual(text_problems(text, yaml=True), [problem])

    def test_unicode(self) -> None:
        """Half of a surrogate pair can be shown, but not be used: it can't be written anywhere."""
        text = json.dumps(TUNNEL_SERVER).replace("127.0.0.1:2045", "\\ud800")
        self.assertEqual(
            text_problems(text),
            [f"{LISTENER}.address: has half of a character; write it as itself, or escape all of it"],
        )
        name = json.dumps(edited(TUNNEL_SERVER, (f"{LISTENER}.x", {"\ud83d": 1})))
        self.assertIn("has half of a character", text_problems(name)[0])
        whole = json.dumps(edited(TUNNEL_SERVER, (f"{LISTENER}.name", "\U0001f600")))
        self.assertEqual(text_problems(whole), [])


class FileTests(SynchronousTestCase):
    """Files and directories."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir(parents=True)

    def write(self, name: str, content: str | bytes) -> str:
        path = self.directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    def fails(self, path: str) -> tuple[Problem, ...]:
        with self.assertRaises(ConfigError) as caught:
            load(path)
        return caught.exception.problems

    def test_json_and_yaml_are_equal(self) -> None:
        document = edited(
            TUNNEL_SERVER,
            (f"{CLUSTER}.hosts", [{"address": "h:1", "weight": 3}]),
            ("servers[0].processor", "auto"),
        )
        expected_config = load(self.write("c.json", json.dumps(document)))
        for name in ("c.yaml", "c.yml", "c.YAML"):
            self.assertEqual(load(self.write(name, yaml.safe_dump(document))).config, expected_config.config)

    def test_yaml_is_read_as_json(self) -> None:
        """Values that YAML 1.1 has and JSON has not stay texts."""
        path = self.write(
            "c.yaml",
            """
            servers:
            - listeners:
              - &listener
                address: 8:53
                name: 2020-01-01
                bind_port: yes
                filter_chains:
                - filters:
                  - type: tcp_proxy
                    config: {cluster: =, idle_timeout: 0x10}
              - <<: *listener
                address: :010
                name: other
                reuseport: on
            cluster_manager:
              clusters:
              - name: =
                type: 5_5s
                mark: 0
                lbconfig: {active_request_bias: 5e-1, choice_count: 1_0}
                circuit_breakers: [{max_requests: 010}]
                hosts: [{address: "a:1", metadata: {filter_metadata: {mosn.lb: {1: "x", true: "y"}}}}]
            """,
        )
        loaded = load(path)
        found = [warning.path for warning in loaded.warnings if "nanoseconds" not in warning.message]
        self.assertEqual(found, ["cluster_manager.clusters[0].type"])
        config = loaded.config
        first, second = config.server.listeners
        self.assertEqual((first.address, first.name, first.bind_port), ("8:53", "2020-01-01", True))
        self.assertEqual((second.address, second.name, second.reuseport), (":010", "other", True))
        [cluster] = config.cluster_manager.clusters
        self.assertEqual((cluster.lbconfig.active_request_bias, cluster.lbconfig.choice_count), (0.5, 10))
        self.assertEqual(cluster.limits.max_requests, 8)
        self.assertEqual(cluster.hosts[0].metadata, {"1": "x", "true": "y"})

    def test_unreadable(self) -> None:
        self.assertEqual(
            self.fails("/no/such/file.json"),
            (Problem.at(Place("/no/such/file.json"), "can't be read: No such file or directory"),),
        )
        self.assertEqual(
            self.fails(str(self.directory)),
            (Problem.at(Place(str(self.directory)), "can't be read: Is a directory"),),
        )
        path = self.write("c.json", b'{"a": "\xff"}')
        self.assertEqual(self.fails(path), (Problem.at(Place(path), "is not UTF-8: byte 0xff at 7"),))

    def test_byte_order_mark(self) -> None:
        load(self.write("c.json", b"\xef\xbb\xbf" + json.dumps(TUNNEL_SERVER).encode()))

    def test_inline_and_file_certificates(self) -> None:
        cert, private = self.write("cert.pem", PEM), self.write("key.pem", PEM)
        for good in ({"cert_chain": cert, "private_key": private}, {"cert_chain": PEM, "private_key": PEM}):
            self.assertEqual(problems(edited(TUNNEL_SERVER, (TLS, {"status": True, **good}))), [])
        mixed = {"status": True, "cert_chain": cert, "private_key": PEM}
        self.assertEqual(
            problems(edited(TUNNEL_SERVER, (TLS, mixed))),
            [f"{TLS}.private_key: and cert_chain must both be paths or both be PEM texts"],
        )

    def test_directories(self) -> None:
        """Each file of a directory is one virtual host or one cluster, in the order of the names."""
        [host] = TUNNEL_SERVER["servers"][0]["routers"][0]["virtual_hosts"]
        self.write("hosts/b.json", json.dumps({**host, "name": "b", "Domains": ["b"]}))
        self.write("hosts/a.json", json.dumps({**host, "name": "a"}))
        self.write("hosts/.hidden", "")
        note = self.write("hosts/note.txt", "")
        self.write("clusters/one.json", json.dumps({"name": "edge", "unknown": 1}))
        document = edited(
            TUNNEL_SERVER,
            (f"{ROUTER}.virtual_hosts", GONE),
            (f"{ROUTER}.router_configs", str(self.directory / "hosts")),
            ("cluster_manager", {"clusters_configs": str(self.directory / "clusters")}),
        )
        loaded = parse(document)
        [router] = loaded.config.server.routers
        self.assertEqual([host.name for host in router.virtual_hosts], ["a", "b"])
        self.assertEqual([cluster.name for cluster in loaded.config.cluster_manager.clusters], ["edge"])
        self.assertEqual(
            {str(warning) for warning in loaded.warnings},
            {
                f"{note}: ignored, because its name does not end in .json",
                f"{self.directory}/hosts/b.json: domains: {REPEATED}",
                f"{self.directory}/clusters/one.json: unknown: unknown key, ignored",
            },
        )

    def test_errors_in_directories(self) -> None:
        """Errors name the file that they are in."""
        hosts = str(self.directory / "hosts")
        self.write("hosts/a.json", json.dumps({"domains": ["*"]}))
        self.write("hosts/b.json", json.dumps({"domains": ["*"], "routers": [{"route": {"timeout": 1}}]}))
        self.write("hosts/c.json", "[]")
        self.write("hosts/d.json", "{")
        (self.directory / "hosts/e.json").mkdir()
        document = edited(
            TUNNEL_SERVER, (f"{ROUTER}.virtual_hosts", GONE), (f"{ROUTER}.router_configs", hosts)
        )
        self.assertEqual(
            set(problems(document)),
            {
                f"{hosts}/b.json: domains[0]: the default domain is taken already, "
                f"at {hosts}/a.json: domains[0]",
                f"{hosts}/b.json: routers[0].route.timeout: {no_unit(1)}",
                f"{hosts}/c.json: expected an object, got a list",
                f"{hosts}/d.json: line 1, column 2: not JSON: it ends too early; "
                "a bracket or a quotation mark is not closed, or a part is missing",
                f"{hosts}/e.json: can't be read: Is a directory",
            },
        )


class MatchingTests(SynchronousTestCase):
    """How documents become models."""

    def test_any_case(self) -> None:
        """Keys are matched in any case; values are not touched."""

        def shout(value: Any) -> Any:
            if isinstance(value, dict):
                return {name.upper(): shout(entry) for name, entry in value.items()}
            return [shout(entry) for entry in value] if isinstance(value, list) else value

        for document in (TUNNEL_SERVER, AGENT):
            self.assertEqual(parse(shout(document)).config, parse(document).config)

    def test_places_are_as_written(self) -> None:
        text = (
            json.dumps(TUNNEL_SERVER).replace('"name": "edge"', '"NAME": 5').replace("clusters", "Clusters")
        )
        self.assertEqual(
            text_problems(text),
            ["cluster_manager.Clusters[0].NAME: expected a text in quotation marks, got the number 5"],
        )

    def test_null_is_absent(self) -> None:
        document = edited(
            AGENT,
            (f"{LISTENER}.connection_idle_timeout", None),
            (f"{LISTENER}.name", "hosted"),
            (f"{CLUSTER}.connect_timeout", None),
            (f"{CLUSTER}.idle_timeout", None),
            (f"{CLUSTER}.lb_type", None),
            (f"{CONFIG}.tls_context", None),
            (f"{CLUSTER}.hosts[0].metadata", None),
            (f"{CLUSTER}.hosts[0].weight", None),
        )
        self.assertEqual(parse(document).config, parse(AGENT).config)
        self.assertEqual(len(problems(edited(TUNNEL_SERVER, ("servers[0].listeners[1]", None)))), 2)
        text = json.dumps(TUNNEL_SERVER).replace('"name": "edge"', '"name": "edge", "Name": null')
        self.assertEqual(loads(text, "c.json"), parse(TUNNEL_SERVER))

    def test_extend_config_forms(self) -> None:
        for value in (
            {"max_header_size": 100, "via": "me"},
            {"Http1": {"max_header_size": 100, "via": "me"}},
            {"http1": {"MAX_HEADER_SIZE": 100, "via": "me"}},
        ):
            document = edited(TUNNEL_SERVER, (f"{PROXY}.extend_config", value))
            options = parse(document).config.server.listeners[0].filter_chain.filters[0].config.http1
            self.assertEqual((options.max_header_size, options.via), (100, "me"))
        document = edited(TUNNEL_SERVER, (f"{PROXY}.extend_config", {}))
        self.assertEqual(parse(document).config, parse(TUNNEL_SERVER).config)

    def test_nanoseconds(self) -> None:
        for value, seconds in ((5_000_000_000, 5.0), ("5s", 5.0), (0, 0.0), (None, None)):
            document = edited(AGENT, (f"{PROXY}.idle_timeout", value))
            config = parse(document).config.server.listeners[0].filter_chain.filters[0].config
            self.assertEqual(config.idle_timeout, seconds)

    def test_tcp_routes(self) -> None:
        addresses = [{"Address": "10.0.0.0", "Length": 8}]
        route = {
            "cluster": "service",
            "sourceaddrs": addresses,
            "DestinationAddrs": addresses,
            "SourcePort": "80, 1000-2000",
            "DestinationPort": "1-65535",
        }
        config = parse(edited(AGENT, (PROXY, {"routes": [route]}))).config
        [found] = config.server.listeners[0].filter_chain.filters[0].config.routes
        self.assertEqual(found.source_port, ((80, 80), (1000, 2000)))
        self.assertEqual([(entry.address, entry.length) for entry in found.source_addrs], [("10.0.0.0", 8)])

    def test_zero_is_the_default(self) -> None:
        document = edited(
            AGENT,
            (f"{CONFIG}.reconnect_base_duration", 0),
            (f"{CONFIG}.connect_timeout_duration", "0"),
            (f"{CONFIG}.graceful_close_max_wait_duration", "0s"),
            (f"{CLUSTER}.connect_timeout", 0),
            (f"{CLUSTER}.lbconfig", {"choice_count": 0}),
        )
        self.assertEqual(parse(document).config, parse(AGENT).config)

    def test_processor(self) -> None:
        for value, found in ((4, 4), ("4", 4), ("auto", "auto")):
            config = parse(edited(TUNNEL_SERVER, ("servers[0].processor", value))).config
            self.assertEqual(config.server.processor, found)


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(
        ["", "0", "8s", "a:1", "*", "edge", "unix:/x", "-----BEGIN", "(", "/no\0where", "\ud800"]
    ),
    st.text(max_size=3),
)
NAMES = st.sampled_from(
    ["type", "config", "name", "status", "address", "filter_metadata", "cluster", "Http1", ""]
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=4,
)

FULL: dict[str, Any] = edited(
    TUNNEL_SERVER,
    ("extends", AGENT["extends"]),
    (TLS, {"status": True, "cert_chain": PEM, "private_key": PEM, "cipher_suites": "", "alpn": "h2"}),
    (f"{PROXY}.extend_config", {"Http1": {"max_header_size": 1}}),
    (
        f"{CHAIN}.filters[1]",
        {"type": "tcp_proxy", "config": {"routes": [{"cluster": "edge", "SourceAddrs": [{}]}]}},
    ),
    (f"{RULE}.match.headers", [{"name": "a", "value": "b", "regex": True}]),
    (f"{RULE}.redirect", {"response_code": 301}),
    (f"{CLUSTER}.hosts", [{"address": "a:1", "metadata": {"filter_metadata": {"mosn.lb": {"a": "b"}}}}]),
    (f"{CLUSTER}.circuit_breakers", [{"max_requests": 1}]),
    (f"{CONFIG}.tls_context", {"status": True}),
    (f"{CONFIG}.dynamic_server_list_config", {"dynamic_server_lister": "dns", "config": {}}),
    ("cluster_manager.tls_context", {"status": True}),
)


def places(value: Any, path: str = "") -> list[str]:
    """Every place of a document whose path L{edited} takes."""
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    found = []
    for name, entry in entries:
        below = f"{path}[{name}]" if isinstance(name, int) else f"{path}.{name}" if path else name
        found.append(below)
        if name != "filter_metadata":
            found += places(entry, below)
    return found


class PropertyTests(SynchronousTestCase):
    @settings(max_examples=most(300), deadline=None)
    @given(
        st.lists(st.tuples(st.sampled_from(sorted(places(FULL), key=len)), VALUES), min_size=1, max_size=3)
    )
    def test_anything_anywhere(self, changes: list[tuple[str, Any]]) -> None:
        """Whatever is in a document: it loads, or every problem has a place and a reason."""
        document = FULL
        for change in changes:
            try:
                document = edited(document, change)
            except (KeyError, IndexError, TypeError):
                continue  # an earlier change removed the place
        text = json.dumps(document)
        try:
            found = loads(text, "c.json").warnings
        except ConfigError as error:
            found = error.problems
            self.assertNotEqual(found, ())
        for problem in found:
            self.assertEqual(problem.file, "c.json")
            self.assertNotEqual(problem.message, "")
            self.assertNotIn("pydantic", problem.message)
            str(problem).encode()

    @settings(deadline=None)
    @given(VALUES)
    def test_any_document(self, value: Any) -> None:
        for text, is_yaml in ((json.dumps(value), False), (yaml.safe_dump(value), True)):
            try:
                loads(text, "c", is_yaml)
            except ConfigError as error:
                str(error).encode()

    @settings(deadline=None)
    @given(st.text(max_size=30))
    def test_any_text(self, text: str) -> None:
        for is_yaml in (False, True):
            with self.assertRaises(ConfigError):
                loads(text, "c", is_yaml)
