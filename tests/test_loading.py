"""Tests of what a process loads: what its configuration needs, and all of that before it serves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from twisted.trial.unittest import SynchronousTestCase

import reverseproxy

ROOT: Final = Path(reverseproxy.__file__).resolve().parent.parent

CHILD: Final = """
import json, sys
from reverseproxy.assembly.importing import import_parts
from reverseproxy.config.loader import loads
import reverseproxy.tap, reverseproxy.transport.reactor  # as twistd does
from twisted.internet.protocol import Factory, Protocol
from reverseproxy.testing import MemoryReactor, Recorder, run

class Service(Protocol):
    def dataReceived(self, data):
        self.transport.write(b"HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\n\\r\\nok")

reactor = MemoryReactor()
reactor.listenTCP(9, Factory.forProtocol(Service))
documents = json.load(sys.stdin)
for each in documents:
    import_parts(loads(json.dumps(each), "document").config)
imported = set(sys.modules)
services = [run(each, reactor) for each in documents]
reactor.advance(2)
begun = set(sys.modules)
client = reactor.dial("127.0.0.1", 1, Recorder())
client.transport.write(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
reactor.settle()
served = set(sys.modules)
for each in reversed(services):
    each.stopService()
    reactor.advance(30)
built = [each for each in sorted(begun - imported) if each.startswith("reverseproxy")]
print(json.dumps([sorted(begun), built, sorted(served - begun), client.data.decode()]))
"""

FRONT: Final[dict[str, Any]] = {"name": "front", "address": "127.0.0.1:1", "bind_port": True}
TUNNEL: Final[dict[str, Any]] = {
    "name": "tunnel",
    "address": "127.0.0.1:2",
    "bind_port": True,
    "filter_chains": [{"filters": [{"type": "tunnel"}]}],
}
HOSTING: Final[dict[str, Any]] = {"name": "hosting", "address": "127.0.0.1:3", "bind_port": False}
AGENT: Final[dict[str, Any]] = {
    "type": "tunnel_agent",
    "config": {
        "hosting_listener": "hosting",
        "server_list": ["127.0.0.1:2"],
        "cluster": "c",
        "enable": True,
        "connection_num": 2,
    },
}
SERVICE: Final = [{"address": "127.0.0.1:9"}]


def relay() -> list[dict[str, Any]]:
    """Return a chain of filters that relays bytes."""
    return [{"filters": [{"type": "tcp_proxy", "config": {"stat_prefix": "t", "cluster": "c"}}]}]


def http() -> list[dict[str, Any]]:
    """Return a chain of filters that proxies HTTP/1."""
    config = {"router_config_name": "r", "downstream_protocol": "Http1", "upstream_protocol": "Http1"}
    return [{"filters": [{"type": "proxy", "config": config}]}]


def document(
    *listeners: dict[str, Any], hosts: list[dict[str, str]] | None = None, **more: Any
) -> dict[str, Any]:
    """Return a configuration with one cluster, and a router for it."""
    rule = {"match": {"prefix": "/"}, "route": {"cluster_name": "c"}}
    router = {
        "router_config_name": "r",
        "virtual_hosts": [{"name": "all", "domains": ["*"], "routers": [rule]}],
    }
    return {
        "servers": [{"routers": [router], "listeners": list(listeners)}],
        "cluster_manager": {
            "clusters": [{"name": "c", "type": "SIMPLE", "lb_type": "LB_RANDOM", "hosts": hosts or []}]
        },
        **more,
    }


class LoadingTests(SynchronousTestCase):
    def run_child(self, *documents: dict[str, Any]) -> list[str]:
        """
        Run processes in memory, in one that has loaded nothing yet, and send a request through them.

        @return: what was loaded before that.
        """
        found = subprocess.run(
            [sys.executable, "-c", CHILD],
            input=json.dumps(documents),
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual(found.returncode, 0, found.stderr)
        loaded, built, later, answer = json.loads(found.stdout)
        self.assertTrue(answer.startswith("HTTP/1.1 200 OK"), answer)
        self.assertEqual(built, [], "loaded while a configuration was built")
        self.assertEqual(later, [], "loaded while a request was served")
        names: list[str] = loaded
        return names

    def check_absent(self, loaded: list[str], *names: str) -> None:
        """Check that modules and packages were not loaded."""
        found = [each for each in loaded for name in names if each == name or each.startswith(f"{name}.")]
        self.assertEqual(found, [])

    def test_relay(self) -> None:
        """A process that relays bytes to a service loads no tunnels, no HTTP and nothing for operators."""
        loaded = self.run_child(document({**FRONT, "filter_chains": relay()}, hosts=SERVICE))
        self.check_absent(
            loaded,
            *("reverseproxy.admin.service", "reverseproxy.admin.api", "prometheus_client", "twisted.web"),
            *("reverseproxy.fleet.fleet", "reverseproxy.fleet.etcd", "treq"),
            *("reverseproxy.workers.supervisor", "reverseproxy.workers.worker"),
            *("reverseproxy.tunnel.agent", "reverseproxy.tunnel.server.filter", "automat"),
            *("reverseproxy.proxy.http.exchange", "reverseproxy.wire.http1", "reverseproxy.wire.http2"),
            *("httptools", "hpack", "reverseproxy.proxy.rpc.server", "reverseproxy.wire.rpc"),
            *("reverseproxy.cluster.names.dns", "twisted.names", "yaml", "re2"),
        )

    def test_tunnel(self) -> None:
        """A tunnel server and an agent load both ends of tunnels, and HTTP, before the first request."""
        server = document({**FRONT, "filter_chains": http()}, TUNNEL)
        agent = document({**HOSTING, "filter_chains": relay()}, hosts=SERVICE, extends=[AGENT])
        loaded = self.run_child(server, agent)
        self.check_absent(
            loaded,
            *("reverseproxy.admin.service", "prometheus_client", "twisted.web", "reverseproxy.fleet.fleet"),
            *("reverseproxy.workers.supervisor", "reverseproxy.proxy.rpc.server", "reverseproxy.wire.rpc"),
            *("reverseproxy.tunnel.agent.http_lister", "twisted.names", "yaml", "re2"),
        )
        for name in ("reverseproxy.tunnel.server.filter", "reverseproxy.tunnel.agent.agent"):
            self.assertTrue(name in loaded, name)

    def test_others(self) -> None:
        """What only some listeners and clusters need is loaded before these are built."""
        bolt = {"router_config_name": "r", "downstream_protocol": "bolt", "upstream_protocol": "bolt"}
        tunnel = {"agent_routes": {"router": "r"}, "validators": {"static": {"tokens": []}}}
        rpc = {"name": "rpc", "address": "127.0.0.1:4", "bind_port": True}
        admin = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 5}}}
        whole = document(
            {**FRONT, "filter_chains": http()},
            {**rpc, "filter_chains": [{"filters": [{"type": "proxy", "config": bolt}]}]},
            {**TUNNEL, "filter_chains": [{"filters": [{"type": "tunnel", "config": tunnel}]}]},
            hosts=SERVICE,
            admin=admin,
        )
        clusters = whole["cluster_manager"]["clusters"]
        for protocol in ("Http1", "dubbo"):
            name = f"checked by {protocol}"
            clusters.append(
                {**clusters[0], "name": name, "health_check": {"protocol": protocol, "service_name": name}}
            )
        loaded = self.run_child(whole)
        for each in (
            "reverseproxy.admin.service",
            "reverseproxy.wire.rpc.bolt",
            "reverseproxy.proxy.rpc.health",
            "reverseproxy.cluster.health.http_probes",
        ):
            self.assertTrue(each in loaded, each)
