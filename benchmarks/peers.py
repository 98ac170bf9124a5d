"""
What is measured: each peer writes its configuration, starts, says when it
serves, names its processes and stops.

Everything listens on the loopback interface, on ports that the kernel picked.
"""

from __future__ import annotations

__all__ = ["Direct", "EnvoyPair", "Nginx", "OurPair", "Peer", "PeerError"]

import http.client
import json
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from benchmarks.install import Tools
from benchmarks.load import LOADS, SMALL
from benchmarks.measure import established

LOOPBACK = "127.0.0.1"
START_TIMEOUT = 30.0
STOP_TIMEOUT = 5.0
POLL = 0.05
# More than wrk's 32 connections: each of them takes a reverse connection for
# itself while it has a request (HTTP) or for as long as it lives (tcp_proxy).
REVERSE_CONNECTIONS = 64

Mode = Literal["http", "tcp"]


class PeerError(Exception):
    """A peer did not start, or does not serve."""


def free_ports(count: int) -> list[int]:
    """Let the kernel pick ports; all are held until all are known, so they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((LOOPBACK, 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


class Process:
    """
    One process that we started, and the only kind that we end.

    @ivar log: the file that it writes its output to.
    """

    def __init__(self, name: str, command: Sequence[str], directory: Path) -> None:
        self.name = name
        self.log = directory / f"{name}.log"
        with self.log.open("wb") as output:
            # a group of its own, for the reasons that load.drive has
            self._popen = subprocess.Popen(
                command,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
            )

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._popen.pid

    def check(self) -> None:
        """
        See that it runs.

        @raise PeerError: with the end of its log, if it does not.
        """
        status = self._popen.poll()
        if status is not None:
            raise PeerError(f"{self.name} ended with {status}; its log ends:\n{self.tail()}")

    def tail(self) -> str:
        """The last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])

    def stop(self) -> None:
        """End it, politely first."""
        if self._popen.poll() is None:
            self._popen.send_signal(signal.SIGTERM)
            try:
                self._popen.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._popen.kill()
        self._popen.wait()


class Peer(ABC):
    """
    A path from a client to the backend.

    @ivar name: how the command line and file names call it.
    @ivar title: how the report calls it.
    """

    def __init__(self, name: str, title: str) -> None:
        self.name = name
        self.title = title
        self.front = 0
        self._processes: list[Process] = []

    @property
    def url(self) -> str:
        """Where clients reach it."""
        return f"http://{LOOPBACK}:{self.front}"

    @property
    def pids(self) -> list[int]:
        """The processes whose CPU time and memory count: server first, then agent."""
        return [process.pid for process in self._processes]

    @abstractmethod
    def start(self, directory: Path) -> None:
        """
        Write the configuration into a directory and start the processes.

        @raise PeerError: if it fails.
        """

    def settled(self) -> bool:
        """Whether it is as it should be before a load is put on it."""
        return True

    def evidence(self) -> str:
        """Say what shows that requests go the way they should; C{""} if nothing is asked."""
        return ""

    def check(self) -> None:
        """
        See that all processes run.

        @raise PeerError: if not.
        """
        for process in self._processes:
            process.check()

    def wait_ready(self) -> None:
        """
        Ask for the resource until it comes through the whole path.

        @raise PeerError: if it does not in time.
        """
        self._poll(lambda: fetch(self.front, SMALL.path) == SMALL.size, f"answer {SMALL.path}")
        self.settle()

    def settle(self) -> None:
        """
        Wait until it is as it should be before a load.

        @raise PeerError: if it does not get there in time.
        """
        self._poll(self.settled, "settle")

    def _poll(self, done: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            self.check()
            try:
                if done():
                    return
                reason = "not yet"
            except (OSError, http.client.HTTPException) as error:
                reason = repr(error)
            if time.monotonic() > deadline:
                logs = "\n".join(f"-- {each.log.name}\n{each.tail()}" for each in self._processes)
                raise PeerError(f"{self.title} did not {what} in {START_TIMEOUT:.0f} s: {reason}\n{logs}")
            time.sleep(POLL)

    def stop(self) -> None:
        """End all processes, the one started last first."""
        while self._processes:
            self._processes.pop().stop()

    def _wait_listening(self, port: int) -> None:
        """Wait for the server: an agent that finds it missing would wait before it tries again."""

        def connects() -> bool:
            with socket.create_connection((LOOPBACK, port), timeout=1):
                return True

        self._poll(connects, "listen")

    def _run(self, directory: Path, role: str, command: Sequence[str]) -> None:
        name = f"{self.name}-{role}" if role else self.name
        self._processes.append(Process(name, command, directory))

    def _write(self, directory: Path, role: str, config: Mapping[str, Any]) -> str:
        path = directory / f"{self.name}-{role}.json"
        path.write_text(json.dumps(config, indent=2) + "\n")
        return str(path)


def fetch(port: int, path: str) -> int:
    """
    Ask for a resource once.

    @return: the size of the body, bytes.
    @raise http.client.HTTPException: if the answer is not 200.
    """
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise http.client.HTTPException(f"status {response.status}: {body[:200]!r}")
        return len(body)
    finally:
        connection.close()


class Nginx(Peer):
    """The backend: static files from one nginx process."""

    def __init__(self, tools: Tools) -> None:
        super().__init__("nginx", "nginx")
        self._program = tools.nginx

    def start(self, directory: Path) -> None:
        """Start it with the resources of all loads."""
        [self.front] = free_ports(1)
        root = directory / "www"
        root.mkdir(exist_ok=True)
        for load in LOADS:
            (root / load.path.lstrip("/")).write_bytes(b"x" * load.size)
        temporary = "\n".join(
            f"  {kind}_temp_path {directory}/nginx-{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        # One process, as many requests on a connection as come, and an hour for
        # connections on which no request came yet: an agent that relays bytes
        # opens those in advance.
        config = f"""
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000000;
  keepalive_timeout 1h;
  client_header_timeout 1h;
  open_file_cache max=16 inactive=1h;
  open_file_cache_valid 1h;
{temporary}
  server {{
    listen {LOOPBACK}:{self.front} backlog=1024;
    root {root};
  }}
}}
"""
        path = directory / "nginx.conf"
        path.write_text(config)
        # -e: its built-in log may be out of our reach
        self._run(
            directory,
            "",
            [str(self._program), "-e", "stderr", "-p", str(directory), "-c", str(path)],
        )


class Direct(Peer):
    """No proxy at all: the backend as the client sees it, to know what the rest can be compared with."""

    def __init__(self, backend: Nginx) -> None:
        super().__init__("direct", "nginx, direct")
        self._backend = backend

    def start(self, directory: Path) -> None:
        """Nothing to start."""
        self.front = self._backend.front


class EnvoyPair(Peer):
    """
    Envoy's reverse tunnels: a responder that clients reach and an initiator that dials it.

    One worker each, everything else at its defaults.  The tunnel speaks HTTP/2,
    the only protocol that Envoy has for it; with C{tcp} the responder's
    tcp_proxy wraps each connection in a CONNECT stream and the initiator
    unwraps it.
    """

    NODE = "initiator-node"

    def __init__(self, tools: Tools, backend: Nginx, mode: Mode) -> None:
        title = {
            "http": "Envoy pair, HTTP on both ends",
            "tcp": "Envoy pair, tcp_proxy in CONNECT streams",
        }[mode]
        super().__init__(f"envoy-{mode}", title)
        self._program = tools.envoy
        self._backend = backend
        self._mode = mode
        self._tunnel = 0
        self._admin = 0

    def start(self, directory: Path) -> None:
        """Start the responder, then the initiator."""
        self.front, self._tunnel, self._admin = free_ports(3)
        for role, config in (("responder", self._responder()), ("initiator", self._initiator())):
            self._run(
                directory,
                role,
                [
                    str(self._program),
                    *("--config-path", self._write(directory, role, config)),
                    *("--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"),
                ],
            )
            self._wait_listening(self._tunnel)

    def settled(self) -> bool:
        """Whether the tunnel stands."""
        return established(self._tunnel) >= 1

    def evidence(self) -> str:
        """Read the responder's counters: the requests must have used the tunnel's cluster."""
        connection = http.client.HTTPConnection(LOOPBACK, self._admin, timeout=5)
        try:
            connection.request("GET", "/stats?filter=cluster.tunnel.upstream_rq_total|handshake.accepted")
            lines = connection.getresponse().read().decode().split("\n")
        finally:
            connection.close()
        return ", ".join(line for line in lines if line)

    def _responder(self) -> dict[str, Any]:
        front: dict[str, Any]
        if self._mode == "http":
            front = _envoy_http({"match": {"prefix": "/"}, "route": {"cluster": "tunnel"}})
        else:
            front = _envoy_filter(
                "envoy.filters.network.tcp_proxy",
                "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                stat_prefix="front",
                cluster="tunnel",
                tunneling_config={"hostname": "backend:80"},
            )
        accept = _envoy_filter(
            "envoy.filters.network.reverse_tunnel",
            "envoy.extensions.filters.network.reverse_tunnel.v3.ReverseTunnel",
        )
        options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
        return {
            "node": {"id": "responder-node", "cluster": "responder-cluster"},
            "bootstrap_extensions": [
                _envoy_filter(
                    "envoy.bootstrap.reverse_tunnel.upstream_socket_interface",
                    "envoy.extensions.bootstrap.reverse_tunnel.upstream_socket_interface.v3"
                    ".UpstreamReverseConnectionSocketInterface",
                    stat_prefix="reverse",
                )
            ],
            "static_resources": {
                "listeners": [
                    _envoy_listener("tunnel", LOOPBACK, self._tunnel, accept),
                    _envoy_listener("front", LOOPBACK, self.front, front),
                ],
                "clusters": [
                    {
                        "name": "tunnel",
                        "connect_timeout": "10s",
                        "lb_policy": "CLUSTER_PROVIDED",
                        "cluster_type": _envoy_filter(
                            "envoy.clusters.reverse_connection",
                            "envoy.extensions.clusters.reverse_connection.v3.ReverseConnectionClusterConfig",
                            # one agent, so that no header has to be looked at to find it
                            host_id_format=self.NODE,
                        ),
                        "typed_extension_protocol_options": {
                            options: {
                                "@type": f"type.googleapis.com/{options}",
                                "explicit_http_config": {"http2_protocol_options": {}},
                            }
                        },
                    }
                ],
            },
            "admin": {"address": _envoy_address(LOOPBACK, self._admin)},
        }

    def _initiator(self) -> dict[str, Any]:
        if self._mode == "http":
            route: dict[str, Any] = {"match": {"prefix": "/"}, "route": {"cluster": "backend"}}
            extra: dict[str, Any] = {}
        else:
            connect = {"upgrade_type": "CONNECT", "connect_config": {}}
            route = {
                "match": {"connect_matcher": {}},
                "route": {"cluster": "backend", "upgrade_configs": [connect]},
            }
            extra = {
                "http2_protocol_options": {"allow_connect": True},
                "upgrade_configs": [{"upgrade_type": "CONNECT"}],
            }
        address = f"rc://{self.NODE}:initiator-cluster:tenant@responder:1"
        listener = _envoy_listener("reverse", address, 0, _envoy_http(route, **extra))
        listener["address"]["socket_address"]["resolver_name"] = "envoy.resolvers.reverse_connection"
        # the handshake leaves nothing for a listener filter to look at
        listener["listener_filters_timeout"] = "0s"
        return {
            "node": {"id": self.NODE, "cluster": "initiator-cluster"},
            "bootstrap_extensions": [
                _envoy_filter(
                    "envoy.bootstrap.reverse_tunnel.downstream_socket_interface",
                    "envoy.extensions.bootstrap.reverse_tunnel.downstream_socket_interface.v3"
                    ".DownstreamReverseConnectionSocketInterface",
                    stat_prefix="reverse",
                )
            ],
            "static_resources": {
                "listeners": [listener],
                "clusters": [
                    _envoy_cluster("responder", self._tunnel),
                    _envoy_cluster("backend", self._backend.front),
                ],
            },
        }


def _envoy_filter(name: str, message: str, **config: Any) -> dict[str, Any]:
    return {"name": name, "typed_config": {"@type": f"type.googleapis.com/{message}", **config}}


def _envoy_address(address: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": address, "port_value": port}}


def _envoy_listener(name: str, address: str, port: int, chain: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "address": _envoy_address(address, port),
        "filter_chains": [{"filters": [chain]}],
    }


def _envoy_http(route: dict[str, Any], **extra: Any) -> dict[str, Any]:
    router = "envoy.extensions.filters.http.router.v3.Router"
    return _envoy_filter(
        "envoy.filters.network.http_connection_manager",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="http",
        route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        http_filters=[_envoy_filter("envoy.filters.http.router", router)],
        **extra,
    )


def _envoy_cluster(name: str, port: int) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": _envoy_address(LOOPBACK, port)}}
    return {
        "name": name,
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


class OurPair(Peer):
    """
    Two processes of this project: a tunnel server that clients reach and an agent that dials it.

    @ivar server: what the server's listener for clients does.
    @ivar agent: what the agent's hosting listener does.
    @ivar twistd_options: further options of twistd, by role (server, agent).
    """

    def __init__(
        self,
        tools: Tools,
        backend: Nginx,
        server: Mode,
        agent: Mode,
        tls: bool = False,
    ) -> None:
        words = {"http": "HTTP", "tcp": "tcp_proxy"}
        name: str = server
        title = f"ours, {words[server]} on both ends"
        if server != agent:
            name = f"{server}-{agent}"
            title = f"ours, {words[server]} on the server, {words[agent]} on the agent"
        if tls:
            name, title = f"{name}-tls", f"{title}, TLS between"
        super().__init__(f"ours-{name}", title)
        self.server = server
        self.agent = agent
        self._tools = tools
        self._backend = backend
        self._tls = tls
        self._certificate: tuple[Path, Path] | None = None
        self.twistd_options: dict[str, Sequence[str]] = {}
        self._tunnel = 0

    def start(self, directory: Path) -> None:
        """Start the server, then the agent."""
        self.front, self._tunnel = free_ports(2)
        if self._tls:
            self._certificate = self._tools.certificate(directory)
        for role, config in (("server", self._server_config()), ("agent", self._agent_config())):
            path = self._write(directory, role, config)
            self._run(
                directory,
                role,
                [
                    str(self._tools.twistd),
                    *("--nodaemon", "--pidfile=", *self.twistd_options.get(role, ())),
                    *("reverseproxy", "--config", path),
                ],
            )
            self._wait_listening(self._tunnel)

    def settled(self) -> bool:
        """Whether all reverse connections stand: a client may have used some up."""
        return established(self._tunnel) >= REVERSE_CONNECTIONS

    def _server_config(self) -> dict[str, Any]:
        tunnel: dict[str, Any] = {"filters": [{"type": "tunnel"}]}
        if self._certificate is not None:
            chain, key = self._certificate
            tunnel["tls_context"] = {"status": True, "cert_chain": str(chain), "private_key": str(key)}
        return _our_config(
            listeners=[
                {
                    "name": "clientListener",
                    "address": f"{LOOPBACK}:{self.front}",
                    "bind_port": True,
                    "filter_chains": [{"filters": [_our_filter(self.server, "clientCluster")]}],
                },
                {
                    "name": "tunnel_server_listener",
                    "address": f"{LOOPBACK}:{self._tunnel}",
                    "bind_port": True,
                    "connection_idle_timeout": 0,
                    "filter_chains": [tunnel],
                },
            ],
            cluster={"name": "clientCluster", "type": "SIMPLE", "lb_type": "LB_ROUNDROBIN"},
        )

    def _agent_config(self) -> dict[str, Any]:
        agent: dict[str, Any] = {
            "hosting_listener": "serverListener",
            "server_list": [f"{LOOPBACK}:{self._tunnel}"],
            "cluster": "clientCluster",
            "enable": True,
            "connection_num": REVERSE_CONNECTIONS,
            "reconnect_base_duration": "1s",
        }
        if self._certificate is not None:
            chain, _ = self._certificate
            agent["tls_context"] = {"status": True, "ca_cert": str(chain), "server_name": LOOPBACK}
        config = _our_config(
            listeners=[
                {
                    "name": "serverListener",
                    "address": f"{LOOPBACK}:1",
                    "bind_port": False,
                    "connection_idle_timeout": 0,
                    "filter_chains": [{"filters": [_our_filter(self.agent, "serverCluster")]}],
                }
            ],
            cluster={
                "name": "serverCluster",
                "type": "SIMPLE",
                "lb_type": "LB_ROUNDROBIN",
                "hosts": [{"address": f"{LOOPBACK}:{self._backend.front}"}],
            },
        )
        return {**config, "extends": [{"type": "tunnel_agent", "config": agent}]}


def _our_filter(mode: Mode, cluster: str) -> dict[str, Any]:
    if mode == "tcp":
        return {"type": "tcp_proxy", "config": {"stat_prefix": "tcp", "cluster": cluster}}
    return {
        "type": "proxy",
        "config": {
            "downstream_protocol": "Http1",
            "upstream_protocol": "Http1",
            "router_config_name": f"to-{cluster}",
        },
    }


def _our_config(listeners: list[dict[str, Any]], cluster: dict[str, Any]) -> dict[str, Any]:
    route = {"match": {"prefix": "/"}, "route": {"cluster_name": cluster["name"]}}
    router = {
        "router_config_name": f"to-{cluster['name']}",
        "virtual_hosts": [{"name": "all", "domains": ["*"], "routers": [route]}],
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
