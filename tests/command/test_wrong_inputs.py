"""C{reverseproxy check} reports each mistake in one line, with its place."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.command.cli import command

EXAMPLES = Path(__file__).parent.parent.parent / "examples" / "plain"

TEXTS = (
    ("", "is empty"),
    ("   \n", "is empty"),
    ("{", "line 1, column 2: not JSON: it ends too early"),
    ("[]", "expected an object, got a list"),
    ("null", "expected an object, got null"),
    ("{}", "servers: missing key: write exactly one server"),
    ("{'servers': []}", "line 1, column 2: not JSON: texts and keys are in double quotation marks, not in '"),
    ('{"servers": [],}', "line 1, column 16: not JSON: a comma before }"),
    ('{"servers": [] // note\n}', "line 1, column 16: not JSON: JSON has no comments"),
    ('# note\n{"servers": []}', "line 1, column 1: not JSON: JSON has no comments"),
    ("servers:\n- name: a\n", "not JSON: this looks like YAML; call the file .yaml"),
    ("{servers: []}", 'not JSON: keys are in double quotation marks: "servers"'),
    ('{"servers": True}', "not JSON: write true, not True"),
    ('{"servers": NaN}', "NaN is not JSON"),
    ('{"servers": []} more', "line 1, column 17: not JSON: extra data"),
    ('{"servers": "here"}', 'servers: expected a list, got the text "here"'),
    ('{"servers": [], "servers": []}', "servers: this key occurs more than once; the last one counts"),
)

SERVER = ("servers", 0)
LISTENER = (*SERVER, "listeners", 0)
CHAIN = (*LISTENER, "filter_chains", 0)
PROXY = (*CHAIN, "filters", 0, "config")
TUNNELS = (*SERVER, "listeners", 1)
TUNNEL = (*TUNNELS, "filter_chains", 0, "filters", 0, "config")
TLS = (*TUNNELS, "filter_chains", 0, "tls_context")
HOST = (*SERVER, "routers", 0, "virtual_hosts", 0)
RULE = (*HOST, "routers", 0)
CLUSTER = ("cluster_manager", "clusters", 0)
AGENT = ("extends", 0, "config")

GONE = object()
"""In place of a value: the key is not there."""

SERVERS: tuple[tuple[tuple[Any, ...], Any, str], ...] = (
    (("servers",), [], "servers: is empty; write exactly one server"),
    (("servers",), {}, "servers: expected a list, got an object"),
    (("servres",), [], 'servres: unknown key, ignored; did you mean "servers"?'),
    ((*SERVER, "default_log_level"), "LOUD", '"LOUD" is not known; INFO is used instead'),
    ((*SERVER, "processor"), "many", 'is not a number of processors; write a number or "auto"'),
    ((*SERVER, "graceful_timeout"), "1 minute", 'has the unknown unit " minute"'),
    ((*LISTENER, "address"), "127.0.0.1", '"127.0.0.1" has no port; write "host:port"'),
    ((*LISTENER, "address"), "127.0.0.1:70000", "a port is a number from 0 to 65535"),
    ((*LISTENER, "address"), "localhost:http", 'has the port "http"'),
    ((*LISTENER, "address"), "::1:80", 'write an IPv6 address as "[::1]:8080"'),
    ((*LISTENER, "address"), 8080, "expected a text in quotation marks, got the number 8080"),
    ((*LISTENER, "address"), GONE, "address: missing key: where to listen"),
    ((*LISTENER, "adress"), "x", 'adress: unknown key, ignored; did you mean "address"?'),
    ((*LISTENER, "bind_port"), "true", 'expected true or false, got the text "true"'),
    ((*LISTENER, "bind_port"), False, "it gets no connections"),
    ((*LISTENER, "name"), "tunnel_server_listener", 'there is already a listener "tunnel_server_listener"'),
    ((*LISTENER, "filter_chains"), [], "is empty; write exactly one filter chain"),
    ((*LISTENER, "proxy_protocol"), {"trusted_proxies": []}, "no header would be accepted"),
    ((*CHAIN, "filters"), [], "connections are closed as soon as they are accepted"),
    ((*CHAIN, "filters", 0, "type"), "proxxy", '"proxxy" is not supported'),
    ((*PROXY, "router_config_name"), "other", 'there is no router "other"; defined: "client_router"'),
    ((*PROXY, "downstream_protocol"), "http1", '"http1" is not a protocol; did you mean "Http1"?'),
    ((*PROXY, "downstream_protocol"), "HTTP3", "known are: Auto, Http1, Http2, bolt"),
    ((*HOST, "domains"), "*", 'domains: expected a list, got the text "*"'),
    ((*HOST, "domains"), [], "this virtual host takes no requests"),
    ((*HOST, "domains"), ["a*b"], '"a*b" has a * that is not its first character'),
    ((*HOST, "domains"), ["a", "a"], 'the domain "a" is taken already'),
    ((*RULE, "match"), {"regex": "("}, "is not a regular expression that RE2 takes"),
    ((*RULE, "route", "cluster_name"), "nobody", 'there is no cluster "nobody"; defined: "clientCluster"'),
    ((*RULE, "route"), {"weighted_clusters": []}, "requests that match are answered with 404"),
    ((*RULE, "route", "timeout"), "5", 'write "5s" if it counts seconds'),
    ((*RULE, "route", "timeout"), 5, "5 has no unit"),
    (
        (*RULE, "route", "timeout"),
        "-5s",
        'timeout: -5s is negative; write 0 or a longer duration, or "-1s" for no limit',
    ),
    ((*RULE, "route", "timeout"), "1000000h", "is more than a century; write a shorter duration"),
    ((*RULE, "route", "idle_timeout"), "-5s", "idle_timeout: -5s is negative; write 0 or a longer duration"),
    (
        (*RULE, "route", "retry_policy"),
        {"retry_timeout": "-2ms"},
        "retry_policy.retry_timeout: -2ms is negative",
    ),
    ((*SERVER, "graceful_timeout"), "4000000000s", "is more than a century; write a shorter duration"),
    ((*LISTENER, "max_connections"), -1, "max_connections: -1 is out of range"),
    ((*CLUSTER, "name"), GONE, "name: missing key: the name that routes and tunnel agents refer to"),
    ((*CLUSTER, "proxy_protocol"), "v3", 'proxy_protocol: the text "v3" is not allowed'),
    ((*CLUSTER, "proxy_protocol"), "v1", "proxy_protocol: has no effect: no hosts are given here"),
    ((*CLUSTER, "lb_type"), "LB_BEST", "LB_ROUNDROBIN is used instead"),
    ((*CLUSTER, "type"), "ORIGINAL_DST", "there is no transparent proxying"),
    ((*CLUSTER, "connect_timeout"), "ten", "is not a duration; write a Go duration"),
    ((*CLUSTER, "max_request_per_conn"), -1, "-1 is out of range"),
    ((*CLUSTER, "hosts"), [{"address": "a"}], '"a" has no port'),
    ((*CLUSTER, "hosts"), [{"address": "a:0"}], "has the port 0, which can't be dialled"),
    ((*CLUSTER, "hosts"), [{"adress": "a:1"}], 'an unknown key "adress", which was probably meant'),
    (("cluster_manager", "clusters"), [{"name": "a"}, {"name": "a"}], 'there is already a cluster "a"'),
    (TUNNEL, {"credential_policy": "static"}, "needs exactly one of file, tokens"),
    (TUNNEL, {"credential_policy": "mine"}, "there is no credential policy 'mine'"),
    (TUNNEL, {"credentail_policy": "x"}, 'unknown key; did you mean "credential_policy"?'),
    (TUNNEL, {"validators": {"static": {"file": "/none"}}}, "can't read /none: No such file"),
    (TUNNEL, {"handshake_timeout": "0s"}, "is too short; write a duration above 0"),
    (TUNNEL, {"max_pending_connections": 0}, "write a number from 1 to"),
    (TUNNEL, {"agent_routes": {}}, "agents can bring nothing"),
    (TLS, {"status": True}, "has no certificate; write cert_chain and private_key"),
    (TLS, {"status": True, "cert_chain": "/none", "private_key": "/none"}, '"/none" can\'t be read'),
    (TLS, {"status": True, "fingerprint": "00" * 32}, "fingerprint: is for clients"),
    (TLS, {"stauts": True}, 'unknown key, ignored; did you mean "status"?'),
)

ADDRESSES: tuple[tuple[tuple[Any, ...], Any, str], ...] = (
    ((*LISTENER, "address"), "[zz]:80", '"[zz]:80" is not an address; write an IPv6 address as "[::1]:8080"'),
    ((*LISTENER, "address"), "[]:80", '"[]:80" is not an address'),
    ((*LISTENER, "address"), "127.0.0.1 :80", 'has the host "127.0.0.1 ", which is neither a name nor an IP'),
    ((*LISTENER, "address"), "300.1.1.1:80", 'has the host "300.1.1.1", which is neither'),
    (
        (*LISTENER, "address"),
        "http://127.0.0.1:80",
        'address: "http://127.0.0.1:80" is a URL; write "host:port"',
    ),
    ((*LISTENER, "address"), "a:" + "9" * 5000, "a port is a number from 0 to 65535"),
    ((*LISTENER, "address"), "127.0.0.1:09999", 'already the address of the listener "clientListener"'),
    ((*LISTENER, "name"), False, "name: expected a text in quotation marks, got false"),
    ((*LISTENER, "name"), "\ud800", "name: has half of a character"),
    (
        (*SERVER, "listeners", 0),
        {"address": "/tmp/" + "x" * 120, "network": "unix", "bind_port": True, "filter_chains": [{}]},
        "has 125 bytes; a Unix socket's path may have",
    ),
    ((*PROXY, "downstream_protocol"), ",", '"," names no protocol; write one, such as "Http1"'),
    ((*PROXY, "downstream_protocol"), "${", "${ does not begin a variable"),
    (
        PROXY,
        {"downstream_protocol": "X", "extend_config": {"sub_protocol": ","}},
        'extend_config.sub_protocol: "," names no protocol',
    ),
    ((*SERVER, "graceful_timeout"), "9" * 5000 + "s", "is too long; the longest duration is about 292 years"),
    ((*RULE, "match"), {"prefix": "a"}, 'match.prefix: "a" takes no requests: a path begins with /'),
    ((*CLUSTER, "hosts"), [{"address": "a b:80"}], 'hosts[0].address: "a b:80" has the host "a b"'),
    ((*CLUSTER, "hosts"), [{"address": "http://a:80"}], "is a URL"),
    ((*CLUSTER, "hosts"), [{"address": "unix:/tmp/" + "x" * 120}], "a Unix socket's path may have"),
    ((*CLUSTER, "tls_context"), {"status": True}, "tls_context: has no effect: no hosts are given here"),
    (("cluster_manager", "tls_context"), {"status": True}, "no cluster has cluster_manager_tls"),
    (
        ("tracing",),
        {"enable": True, "driver": "otel", "config": {"headers": {"a b": "c"}}},
        'tracing.config.headers["a b"]: is not the name of a header',
    ),
    (
        ("tracing",),
        {"enable": True, "driver": "otel", "config": {"headers": {"a": "c\n"}}},
        "tracing.config.headers.a: has control characters",
    ),
    (
        (*CLUSTER, "health_check"),
        {
            "protocol": "Http1",
            "service_name": "a",
            "check_config": {"http_check_config": {"codes": [{"start": 300, "end": 200}]}},
        },
        "codes[0]: 300 is above 200: no status is from one to the other",
    ),
    (
        ("admin",),
        {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 9999}}},
        'admin.address: "127.0.0.1:9999" is already the address of the listener "tunnel_server_listener"',
    ),
)
"""Addresses, domains and the like of other kinds."""

AGENTS: tuple[tuple[tuple[Any, ...], Any, str], ...] = (
    ((*AGENT, "cluster"), GONE, "cluster: missing key"),
    ((*AGENT, "hosting_listener"), GONE, "hosting_listener: missing key"),
    ((*AGENT, "hosting_listener"), "other", 'there is no listener "other"; defined: "serverListener"'),
    ((*AGENT, "server_list"), [], "this agent has nothing to connect to"),
    ((*AGENT, "server_list"), ["127.0.0.1:1", "127.0.0.1:1"], 'server_list[1]: "127.0.0.1:1" is listed more'),
    ((*AGENT, "server_list"), ["a"], 'server_list[0]: "a" has no port'),
    ((*AGENT, "server_list"), "a:1", 'server_list: expected a list, got the text "a:1"'),
    ((*AGENT, "connection_num"), 0, "is 0: this agent holds no connections"),
    ((*AGENT, "connection_num"), -1, "-1 is not a number of connections"),
    ((*AGENT, "connection_num"), 2**40, "is more than 65536 connections to each address of a server"),
    ((*AGENT, "dead_peer_timeout"), "-1s", "-1s is too short; write a duration above 0"),
    (
        (*AGENT, "tls_context"),
        {"status": True, "fingerprint": "sha256:ab"},
        '"sha256:ab" is not the fingerprint of a certificate; write "sha256:" and 64 hexadecimal digits',
    ),
    (
        (*AGENT, "tls_context"),
        {"status": True, "fingerprint": "ab" * 32, "insecure_skip": True},
        "fingerprint: has no effect with insecure_skip",
    ),
    ((*AGENT, "server_count"), -1, "-1 is out of range; write a number from 0 to 1024"),
    ((*AGENT, "server_count"), 1, "server_count: has no effect: there are no more servers"),
    (
        (*AGENT, "dynamic_server_list_config"),
        {"dynamic_server_lister": "consul"},
        "there is no server lister 'consul', neither built in nor of a plug-in; known are: file, dns, srv,",
    ),
    (
        (*AGENT, "dynamic_server_list_config"),
        {"dynamic_server_lister": "srv", "config": {"name": "_x._tcp.example.com", "interval": -5}},
        "dynamic_server_list_config.config.interval: must be a number of seconds",
    ),
    (
        (*AGENT, "dynamic_server_list_config"),
        {"dynamic_server_lister": "etcd", "config": {"endpoint": "a:1"}},
        "dynamic_server_list_config.config.endpoint: unknown key",
    ),
    ((*AGENT, "connection_num"), "4", 'expected a whole number, got the text "4"'),
    ((*AGENT, "weight"), 129, "write a number from 1 to 128"),
    ((*AGENT, "enable"), "yes", 'expected true or false, got the text "yes"'),
    ((*AGENT, "credential_policy"), "static", "needs exactly one of file, token, env"),
    ((*AGENT, "credential_config"), {"file": "/none"}, "has no effect without credential_policy"),
    ((*AGENT, "reconnect_base_duration"), "soon", "is not a duration"),
    ((*AGENT, "metadata"), {"a": 1}, "metadata.a: expected a text in quotation marks"),
    ((*AGENT, "routes"), {"port": 70000}, "write a number from 0 to 65535"),
    ((*AGENT, "routes"), {"domains": ["a b"]}, "is no domain"),
    ((*AGENT, "tls_context"), {"status": True, "ca_cert": "/none"}, '"/none" can\'t be read'),
    (("extends", 0, "type"), "tunnel-agent", "is not known; it is skipped (choices: tunnel_agent)"),
)


def edited(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A document with another value in one place."""
    changed = at = copy.deepcopy(document)
    *way, last = path
    for step in way:
        at = at[step]
    if value is GONE:
        del at[last]
    else:
        at[last] = value
    return changed


class WrongInputTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.file = Path(self.mktemp()).with_suffix(".json")
        self.server = json.loads((EXAMPLES / "server.json").read_text())
        self.agent = json.loads((EXAMPLES / "agent.json").read_text())

    def check(self, text: str, message: str) -> None:
        """
        Check a file: there is a line with its name and the message, and no traceback.

        It is an error with status 1, or, with C{--strict}, a warning.
        """
        self.file.write_text(text)
        result = CliRunner().invoke(command, ["check", "--strict", str(self.file)])
        self.assertEqual(result.exit_code, 1, (message, result.output))
        lines = [line for line in result.output.splitlines() if message in line]
        self.assertTrue(lines, f"{message!r} is not in:\n{result.output}")
        self.assertIn(str(self.file), lines[0])
        self.assertNotIn("Traceback", result.output)

    def test_enough(self) -> None:
        self.assertGreaterEqual(len(TEXTS) + len(SERVERS) + len(AGENTS), 60)

    def test_texts(self) -> None:
        for text, message in TEXTS:
            self.check(text, message)

    def test_servers(self) -> None:
        for path, value, message in (*SERVERS, *ADDRESSES):
            self.check(json.dumps(edited(self.server, path, value)), message)

    def test_no_second_problem(self) -> None:
        """What follows from what is wrong is not told as well."""
        config = AGENT
        for document, path, value in (
            (self.agent, (*config, "server_list"), ["a b:1"]),
            (self.agent, config, []),
            (self.agent, ("cluster_manager",), {"clusters_configs": "/none"}),
            (self.server, (*CLUSTER, "hosts"), [{"address": "a"}]),
            (
                self.server,
                (*RULE, "route"),
                {"weighted_clusters": [{"cluster": {"name": "clientCluster", "weight": -1}}]},
            ),
        ):
            self.file.write_text(json.dumps(edited(document, path, value)))
            result = CliRunner().invoke(command, ["check", str(self.file)])
            told = [line for line in result.output.splitlines() if "bind_port" not in line]
            self.assertEqual(len(told), 1, result.output)

    def test_agents(self) -> None:
        for path, value, message in AGENTS:
            self.check(json.dumps(edited(self.agent, path, value)), message)

    def test_nothing_wrong(self) -> None:
        for document in (self.server, self.agent):
            self.file.write_text(json.dumps(document))
            result = CliRunner().invoke(command, ["check", "--strict", str(self.file)])
            self.assertEqual(result.exit_code, 0, result.output)

    def test_a_directory(self) -> None:
        """That a file can't be read is told as all that is wrong with it, whatever the reason."""
        for arguments in (["check"], ["reload"], ["explain"]):
            url = ["http://a/"] * (arguments == ["explain"])
            result = CliRunner().invoke(command, [*arguments, str(self.file.parent), *url])
            self.assertEqual(result.exit_code, 1, result.output)
            self.assertIn(f"{self.file.parent}: can't be read: Is a directory", result.output)

    def test_no_file(self) -> None:
        result = CliRunner().invoke(command, ["check", "/none/here.json"])
        self.assertEqual(result.exit_code, 1)
        self.assertIn("/none/here.json", result.output)
