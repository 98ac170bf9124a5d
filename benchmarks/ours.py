"""
Pairs of this project's processes: a tunnel server that clients reach, and an
agent that dials it.
"""

from __future__ import annotations

__all__ = ["REVERSE_CONNECTIONS", "OurPair", "Setup"]

import http.client
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.bolt import EchoError, probe
from benchmarks.install import Tools
from benchmarks.load import GIANT, SMALL
from benchmarks.measure import established
from benchmarks.processes import LOOPBACK, Peer, PeerError, fetch, free_ports

# More than wrk's 32 connections: each of them takes a reverse connection for
# itself while it has a request (HTTP) or for as long as it lives (tcp_proxy).
REVERSE_CONNECTIONS = 64

Mode = Literal["http", "tcp", "h2", "bolt"]


@dataclass(frozen=True)
class Setup:
    """
    What a pair of ours does.

    @ivar server: what the server's listener for clients does; C{h2}: takes either
        version of HTTP.
    @ivar agent: what the agent's hosting listener does: C{h2} takes HTTP/2 from the
        tunnel and speaks HTTP/1 to the service, C{http} HTTP/1 from and to, C{tcp}
        relays bytes.  What the server speaks in the tunnel follows from it.
    @ivar connections: reverse connections.
    @ivar mux: whether the ends may agree on streams within them.
    @ivar tls: whether they are encrypted.
    @ivar workers: processes of the server; 0 leaves the option out.
    """

    server: Mode
    agent: Mode
    connections: int = REVERSE_CONNECTIONS
    mux: bool = False
    tls: bool = False
    workers: int = 0


class OurPair(Peer):
    """
    Two processes of this project.

    @ivar twistd_options: further options of twistd, by role (server, agent).
    """

    def __init__(
        self, name: str, title: str, tools: Tools, backend: Peer, setup: Setup, server_only: bool = False
    ) -> None:
        super().__init__(name, title)
        self.setup = setup
        self.twistd_options: dict[str, Sequence[str]] = {}
        self.tunnel = 0
        self._tools = tools
        self._backend = backend
        self._server_only = server_only
        self._certificate: tuple[Path, Path] | None = None

    def start(self, directory: Path) -> None:
        """Start the server, then the agent."""
        self.front, self.tunnel = free_ports(2)
        if self.setup.tls:
            self._certificate = self._tools.certificate(directory)
        roles = {"server": self._server_config(), "agent": self._agent_config()}
        if self._server_only:
            del roles["agent"]
        for role, config in roles.items():
            path = self._write(directory, role, config)
            options = ["--config", path]
            if role == "server" and self.setup.workers:
                options += ["--workers", str(self.setup.workers)]
            self._run(
                directory,
                role,
                [
                    str(self._tools.twistd),
                    *("--nodaemon", "--pidfile=", *self.twistd_options.get(role, ())),
                    *("reverseproxy", *options),
                ],
            )
            self._wait_listening(self.tunnel)

    def settled(self) -> bool:
        """Whether all reverse connections stand: a client may have used some up."""
        return self._server_only or established(self.tunnel) >= self.setup.connections

    def answers(self) -> bool:
        """Whether a request comes through the whole path."""
        if self.setup.server != "bolt":
            return super().answers()
        try:
            return probe(self.front)
        except EchoError as error:
            raise ConnectionError(str(error)) from error

    def wait_ready(self) -> None:
        """
        See that it serves, and that mux is what it is said to be.

        @raise PeerError: if not.
        """
        super().wait_ready()
        if self.setup.mux and self.setup.connections == 1 and not self._shares():
            raise PeerError(
                f"{self.title}: a request waits for another one, so the ends did not agree on mux"
            )

    def _shares(self) -> bool:
        """Whether a request is answered while another one is under way on the only reverse connection."""
        with socket.create_connection((LOOPBACK, self.front), timeout=5) as connection:
            # nobody takes the answer, and it is larger than all buffers
            connection.sendall(f"GET {GIANT.path} HTTP/1.1\r\nHost: {LOOPBACK}\r\n\r\n".encode())
            if not connection.recv(1024).startswith(b"HTTP/1.1 200"):
                return False
            try:
                return fetch(self.front, SMALL.path, timeout=2) == SMALL.size
            except (OSError, http.client.HTTPException):
                return False

    def _server_config(self) -> dict[str, Any]:
        tunnel: dict[str, Any] = {"filters": [{"type": "tunnel"}]}
        if self._certificate is not None:
            chain, key = self._certificate
            tunnel["tls_context"] = {"status": True, "cert_chain": str(chain), "private_key": str(key)}
        front: dict[str, Any] = {
            "name": "clientListener",
            "address": f"{LOOPBACK}:{self.front}",
            "bind_port": True,
            "filter_chains": [{"filters": [_filter(self.setup.server, "Http1,Http2", "clientCluster")]}],
        }
        back: dict[str, Any] = {
            "name": "tunnel_server_listener",
            "address": f"{LOOPBACK}:{self.tunnel}",
            "bind_port": True,
            "connection_idle_timeout": 0,
            "filter_chains": [tunnel],
        }
        return _config(
            listeners=[front, back],
            cluster={"name": "clientCluster", "type": "SIMPLE", "lb_type": "LB_ROUNDROBIN"},
            mode=self.setup.server,
            upstream="Http2" if self.setup.agent == "h2" else "Http1",
        )

    def _agent_config(self) -> dict[str, Any]:
        agent: dict[str, Any] = {
            "hosting_listener": "serverListener",
            "server_list": [f"{LOOPBACK}:{self.tunnel}"],
            "cluster": "clientCluster",
            "enable": True,
            "connection_num": self.setup.connections,
            "reconnect_base_duration": "1s",
            "mux": self.setup.mux,
        }
        if self._certificate is not None:
            chain, _ = self._certificate
            agent["tls_context"] = {"status": True, "ca_cert": str(chain), "server_name": LOOPBACK}
        hosting: dict[str, Any] = {
            "name": "serverListener",
            "address": f"{LOOPBACK}:1",
            "bind_port": False,
            "connection_idle_timeout": 0,
            "filter_chains": [{"filters": [_filter(self.setup.agent, "Http2", "serverCluster")]}],
        }
        config = _config(
            listeners=[hosting],
            cluster={
                "name": "serverCluster",
                "type": "SIMPLE",
                "lb_type": "LB_ROUNDROBIN",
                "hosts": [{"address": f"{LOOPBACK}:{self._backend.front}"}],
            },
            mode=self.setup.agent,
            upstream="Http1",
        )
        return {**config, "extends": [{"type": "tunnel_agent", "config": agent}]}


def _filter(mode: Mode, h2: str, cluster: str) -> dict[str, Any]:
    """
    The network filter of a listener.

    @param h2: the C{downstream_protocol} if the mode is C{h2}.
    """
    if mode == "tcp":
        return {"type": "tcp_proxy", "config": {"stat_prefix": "tcp", "cluster": cluster}}
    config: dict[str, Any] = {"router_config_name": f"to-{cluster}"}
    if mode == "bolt":
        config |= {"downstream_protocol": "bolt", "upstream_protocol": "bolt"}
    elif mode == "h2":
        config |= {"downstream_protocol": h2}
    else:
        config |= {"downstream_protocol": "Http1", "upstream_protocol": "Http1"}
    return {"type": "proxy", "config": config}


def _config(
    listeners: list[dict[str, Any]], cluster: dict[str, Any], mode: Mode, upstream: str
) -> dict[str, Any]:
    match: dict[str, Any] = {"prefix": "/"}
    action = {"cluster_name": cluster["name"]}
    if mode == "bolt":
        match = {"headers": [{"name": "service", "value": ".*"}]}
    elif mode == "h2":
        action["upstream_protocol"] = upstream
    router = {
        "router_config_name": f"to-{cluster['name']}",
        "virtual_hosts": [{"name": "all", "domains": ["*"], "routers": [{"match": match, "route": action}]}],
    }
    return {
        "servers": [
            {
                "default_log_path": "stdout",
                "default_log_level": "WARN",
                "routers": [router],
                "listeners": listeners,
            }
        ],
        "cluster_manager": {"clusters": [cluster]},
    }
