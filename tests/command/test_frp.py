"""Tests for L{reverseproxy.command.frp}."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.command.frp import Converted, FrpProblem, convert_frp
from reverseproxy.config.loader import loads
from tests.certs import Certificates
from tests.config.documents import edited

CLIENT: dict[str, Any] = {
    "serverAddr": "tunnels.example.com",
    "serverPort": 7001,
    "user": "me",
    "auth": {"method": "token", "token": "secret"},
    "transport": {"tls": {"trustedCaFile": "ca.pem", "certFile": "me.pem", "keyFile": "me.key"}},
    "proxies": [
        {"name": "ssh", "type": "tcp", "localIP": "::1", "localPort": 22, "remotePort": 6000},
        {
            "name": "web",
            "type": "http",
            "localPort": 8080,
            "customDomains": ["www.example.com"],
            "subdomain": "web",
            "locations": ["/", "/pictures"],
            "hostHeaderRewrite": "inner.example.com",
            "requestHeaders": {"set": {"x-from": "frp"}},
            "responseHeaders": {"set": {"x-by": "frp"}},
        },
    ],
}

TOML = """
serverAddr = "127.0.0.1"
auth.token = "secret"
[[proxies]]
name = "ssh"
type = "tcp"
localPort = 22
remotePort = 6000
"""

INI = """
# mine
[common]
server_addr = 127.0.0.1
server_port = 7001
token = secret
tls_enable = false
[ssh]
type = tcp
local_ip = 127.0.0.1
local_port = 22
remote_port = 6000
[web]
type = http
local_port = 80
custom_domains = a.example, b.example
header_x-from = frp
[range:more]
type = tcp
local_port = 6001-6003
remote_port = 6001-6003
"""


def convert(document: Any, **options: Any) -> Converted:
    text = document if isinstance(document, str) else json.dumps(document)
    return convert_frp(text, options.pop("file", "frpc.json"), **options)


class FrpTests(SynchronousTestCase):
    def setUp(self) -> None:
        certificates = Certificates(self.mktemp())
        self.files = {
            "ca.pem": certificates.ca,
            "me.pem": certificates.client.chain,
            "me.key": certificates.client.key,
            "server.pem": certificates.server.chain,
            "server.key": certificates.server.key,
        }
        for path in self.files.values():
            Path(path).chmod(0o600)

    def check(self, converted: Converted) -> list[Any]:
        """Both configurations are right, and nothing in them is warned of."""
        configs = []
        for document in (converted.agent, converted.server):
            text = json.dumps(document)
            for name, path in self.files.items():
                text = text.replace(f'"{name}"', json.dumps(path))
            loaded = loads(text, "file")
            # Without TLS or a token, that is what there is to say.
            found = [str(each) for each in loaded.warnings if "TLS" not in each.message]
            self.assertEqual(
                [each for each in found if "set tls_context" not in each and "set credential" not in each], []
            )
            configs.append(loaded.config)
        return configs

    def test_everything(self) -> None:
        converted = convert(CLIENT, http_port=8000, subdomain_host="t.example.com")
        agent, server = self.check(converted)
        self.assertEqual(len(converted.warnings), 1)
        self.assertIn("server.pem and server.key, for the name tunnels.example.com", converted.warnings[0])
        ssh, web = agent.agents
        self.assertEqual((ssh.cluster, web.cluster, web.host_name), ("ssh", "web", "me"))
        self.assertEqual(ssh.server_list, ("tunnels.example.com:7001",))
        self.assertEqual(ssh.credential_config, {"token": "secret"})
        tls = ssh.tls_context
        given = [tls.ca_cert, tls.cert_chain, tls.private_key]
        self.assertEqual(given, [self.files[name] for name in ("ca.pem", "me.pem", "me.key")])
        hosts = [host.address for each in agent.cluster_manager.clusters for host in each.hosts]
        self.assertEqual(hosts, ["[::1]:22", "127.0.0.1:8080"])
        route = agent.server.routers[0].virtual_hosts[0].routers[0].route
        self.assertEqual(route.host_rewrite, "inner.example.com")
        self.assertEqual(route.request_headers_to_add[0].header.value, "frp")
        self.assertFalse(route.response_headers_to_add[0].append)
        listeners = {each.name: each.address for each in server.server.listeners}
        self.assertEqual(
            listeners,
            {"tunnels": "0.0.0.0:7001", "port-6000": "0.0.0.0:6000", "http": "0.0.0.0:8000"},
        )
        (router,) = server.server.routers
        self.assertTrue(router.ignore_host_port)
        self.assertEqual(
            [(host.domains, [rule.match.prefix for rule in host.routers]) for host in router.virtual_hosts],
            [(("www.example.com",), ["/pictures", "/"]), (("web.t.example.com",), ["/pictures", "/"])],
        )
        tunnel = server.server.listeners[0].filter_chain.filters[0].config
        (entry,) = tunnel.validators["static"]["tokens"]
        self.assertEqual(entry, {"agent": "me", "token": "secret", "clusters": ["ssh", "web"]})

    def test_formats(self) -> None:
        for text, file in ((yaml.safe_dump(CLIENT), "frpc.yaml"), (TOML, "frpc.toml"), (INI, "frpc.ini")):
            agent, _ = self.check(convert(text, file=file))
            self.assertEqual(agent.agents[0].cluster, "ssh", file)

    def test_old_file(self) -> None:
        converted = convert(INI, file="frpc.ini")
        agent, server = self.check(converted)
        self.assertIsNone(agent.agents[0].tls_context)
        route = agent.server.routers[0].virtual_hosts[0].routers[0].route
        self.assertEqual(route.request_headers_to_add[0].header.value, "frp")
        self.assertEqual(len(server.server.routers[0].virtual_hosts), 2)
        self.assertIn("left out, range:more", "\n".join(converted.warnings))

    def test_without_an_authority(self) -> None:
        """What frp leaves open is closed."""
        converted = convert(edited(CLIENT, ("transport", {})))
        self.assertIn("frp takes any certificate", "\n".join(converted.warnings))
        self.assertFalse(self.check(converted)[0].agents[0].tls_context.insecure_skip)

    def test_what_is_not_converted(self) -> None:
        for path, value, wanted in (
            ("proxies[0].type", "udp", "proxies[0]: left out, ssh: type udp is not converted"),
            ("proxies[0].plugin", {"type": "socks5"}, "left out, ssh"),
            ("proxies[0].remotePort", 0, "proxies[0].remotePort: is missing, or 0 for any"),
            ("proxies[0].localPort", 0, "proxies[0].localPort: is missing"),
            ("proxies[0].name", "web", "proxies[1].name: occurs twice"),
            ("proxies[0].healthCheck", {"type": "tcp"}, "proxies[0].healthCheck: is not converted"),
            ("transport.poolCount", 5, "transport.poolCount: is not converted"),
            ("log", {"level": "info"}, "log: is not converted"),
            ("auth.method", "oidc", "auth.method: is not converted"),
            ("auth.token", "", "auth.token: there is none"),
            ("auth.token", "{{ .Envs.TOKEN }}", "auth.token: has a template"),
            ("serverAddr", "", "serverAddr: is missing"),
        ):
            converted = convert(edited(CLIENT, (path, value)), subdomain_host="t.example.com")
            self.assertIn(wanted, "\n".join(converted.warnings), path)
            self.check(converted)

    def test_groups(self) -> None:
        other = {**CLIENT["proxies"][0], "name": "ssh-2", "loadBalancer": {"group": "all"}}
        first = {**CLIENT["proxies"][0], "loadBalancer": {"group": "all", "groupKey": "x"}}
        converted = convert({**CLIENT, "proxies": [first, other]})
        agent, server = self.check(converted)
        self.assertEqual([each.cluster for each in agent.agents], ["all", "all"])
        self.assertEqual([each.name for each in server.cluster_manager.clusters], ["all"])
        taken = convert({**CLIENT, "proxies": [first, {**other, "loadBalancer": {}}]})
        self.assertIn("6000 is taken already: ssh-2 is left out", "\n".join(taken.warnings))

    def test_what_is_no_file(self) -> None:
        for text, file in (
            ("a = ", "frpc.toml"),
            ("[]", "frpc.json"),
            ("{{ .Envs.A }}", "frpc.toml"),
            ("a: [", "frpc.yaml"),
            ("a: {{{", "frpc.yaml"),
            ("[" * 1000, "frpc.yaml"),
            ("no section", "frpc.ini"),
            ("{}", "frpc.conf"),
            ("{}", "frpc.json"),
            ('{"proxies": 5}', "frpc.json"),
            ('{"serverPort": "x"}', "frpc.json"),
            ('{"serverPort": 65536}', "frpc.json"),
            ('{"serverAddr": 5}', "frpc.json"),
        ):
            error = self.assertRaises(FrpProblem, convert, text, file=file)
            self.assertIn(file, str(error))
