"""
Single transfers over long wires: what the windows of each protocol leave of what a plain connection gets.

Each path has one emulated wire (L{benchmarks.longwire}) in it, and moves one
body in either direction.  Client, service and wire are never what limits a
window: see L{benchmarks.longpeers}.
"""

from __future__ import annotations

__all__ = ["DIRECTIONS", "PATHS", "RTTS", "SIZE", "LongPath", "Path"]

import sys
import time
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, Literal

from benchmarks.install import Tools
from benchmarks.load import LoadError, LoadResult
from benchmarks.longpeers import PeerFailed, get_http1, move_http2, put_http1
from benchmarks.processes import LOOPBACK, Peer, Process, free_ports

HERE = FilePath(__file__).resolve().parent
RTTS = (0.0, 0.08, 0.2)
"""Seconds of a round trip; for none there is no wire."""

RATE = 200.0
"""MB/s that a wire carries: else it would be a matter of CPU time what goes through."""

SIZE = 600_000_000
"""Bytes of a body, three seconds of a wire; a third of it in quick runs."""

DIRECTIONS = ("down", "up")


@dataclass(frozen=True)
class Path:
    """
    A way from a client to the service.

    @ivar title: how the report calls it.
    @ivar wire: where the wire is: before the proxy, behind it, or between the two
        ends of a tunnel.
    @ivar plain: the path that it is compared with: a plain connection over the same
        wire.  Empty if it is one.
    @ivar client: what the client speaks.
    @ivar front: C{downstream_protocol} of the listener for clients; empty for C{tcp_proxy}.
    @ivar back: what is spoken on to the host, or into the tunnel.
    @ivar mux: whether the tunnel's connection carries streams.
    @ivar tls: whether it is encrypted.
    """

    title: str
    wire: Literal["front", "back", "tunnel"]
    plain: str = ""
    client: Literal["http1", "http2"] = "http1"
    front: str = ""
    back: str = ""
    mux: bool = False
    tls: bool = False


PATHS = {
    "tcp": Path("relay, client side", "front"),
    "h2-client": Path("HTTP/2, client side", "front", "tcp", "http2", front="Http2", back="Http1"),
    "tcp-host": Path("relay, host side", "back"),
    "h2-host": Path("HTTP/2, host side", "back", "tcp-host", front="Http1", back="Http2"),
    "tunnel": Path("tunnel, plain connections", "tunnel"),
    "tunnel-mux": Path("tunnel, a stream", "tunnel", "tunnel", mux=True),
    "tunnel-h2": Path("tunnel, HTTP/2", "tunnel", "tunnel", front="Http1", back="Http2"),
    "tunnel-h2-mux": Path("tunnel, HTTP/2 on a stream", "tunnel", "tunnel", "http1", "Http1", "Http2", True),
    "tunnel-tls": Path("tunnel, plain connections with TLS", "tunnel", tls=True),
    "tunnel-tls-mux": Path("tunnel, a stream with TLS", "tunnel", "tunnel-tls", mux=True, tls=True),
}


class LongPath(Peer):
    """
    Our processes on a path, with its wire.

    @ivar path: the path.
    @ivar wires: the processes that are wires.
    """

    def __init__(self, name: str, tools: Tools, services: tuple[int, int], rtt: float) -> None:
        """
        @param services: the ports of the services for HTTP/1 and HTTP/2.
        @param rtt: seconds.
        """
        super().__init__(f"long-{name}-{rtt * 1000:.0f}", PATHS[name].title)
        self.path = PATHS[name]
        self.wires: list[Process] = []
        self._tools = tools
        self._services = services
        self._rtt = rtt

    @property
    def pids(self) -> list[int]:
        """Those of the proxies."""
        return [process.pid for process in self._processes if process not in self.wires]

    def start(self, directory: FilePath) -> None:
        """Start the processes, and the wire where it belongs."""
        path = self.path
        http1, http2 = self._services
        listening, tunnel = free_ports(2)
        self.front = listening
        if path.wire == "tunnel":
            self._server(directory, listening, tunnel, None)
            self._agent(directory, self._wire(directory, tunnel), http1)
        elif path.wire == "back":
            host = http2 if path.back == "Http2" else http1
            self._server(directory, listening, 0, self._wire(directory, host))
        else:
            self._server(directory, listening, 0, http1)
            self.front = self._wire(directory, listening)

    def _wire(self, directory: FilePath, port: int) -> int:
        """Start a wire to a port; return its own."""
        if not self._rtt:
            return port
        command = [sys.executable, "-u", str(HERE / "longwire.py"), str(port)]
        self._run(directory, "wire", [*command, "--rtt", str(self._rtt), "--rate", str(RATE)])
        wire = self._processes[-1]
        self.wires.append(wire)
        self._poll(lambda: bool(wire.log.read_text().strip()), "open its wire")
        return int(wire.log.read_text().split()[0])

    def _twistd(self, directory: FilePath, role: str, config: dict[str, Any]) -> None:
        config_path = self._write(directory, role, config)
        command = [
            str(self._tools.twistd),
            "--nodaemon",
            "--pidfile=",
            "reverseproxy",
            "--config",
            config_path,
        ]
        self._run(directory, role, command)

    def _server(self, directory: FilePath, port: int, tunnel: int, host: int | None) -> None:
        path = self.path
        chain: dict[str, Any] = {"filters": [self._filter(path.front, "far")]}
        listeners = [_listener("front", port, chain)]
        if tunnel:
            chain = {"filters": [{"type": "tunnel"}]}
            if path.tls:
                certificate, key = self._tools.certificate(directory)
                chain["tls_context"] = {
                    "status": True,
                    "cert_chain": str(certificate),
                    "private_key": str(key),
                }
            listeners.append({**_listener("tunnel", tunnel, chain), "connection_idle_timeout": 0})
        self._twistd(directory, "server", _config(listeners, "far", host, path.back))
        self._wait_listening(tunnel or port)

    def _agent(self, directory: FilePath, server: int, host: int) -> None:
        path = self.path
        agent: dict[str, Any] = {
            "hosting_listener": "hosting",
            "server_list": [f"{LOOPBACK}:{server}"],
            "cluster": "far",
            "enable": True,
            "connection_num": 1 if path.mux or path.back else 4,
            "reconnect_base_duration": "1s",
            "mux": path.mux,
        }
        if path.tls:
            agent["tls_context"] = {
                "status": True,
                "ca_cert": str(directory / "certificate.pem"),
                "server_name": LOOPBACK,
            }
        chain: dict[str, Any] = {"filters": [self._filter(path.back, "near")]}
        hosting = {**_listener("hosting", 1, chain), "bind_port": False, "connection_idle_timeout": 0}
        config = _config([hosting], "near", host, "Http1")
        self._twistd(directory, "agent", {**config, "extends": [{"type": "tunnel_agent", "config": agent}]})

    def _filter(self, downstream: str, cluster: str) -> dict[str, Any]:
        if not downstream:
            return {"type": "tcp_proxy", "config": {"stat_prefix": "tcp", "cluster": cluster}}
        config = {"router_config_name": f"to-{cluster}", "downstream_protocol": downstream}
        return {"type": "proxy", "config": config}

    def answers(self) -> bool:
        """Whether something small comes through the whole path."""
        try:
            self._move(1, upload=True)
        except PeerFailed:
            return False
        return True

    def drive(self, size: int, upload: bool) -> LoadResult:
        """
        Move one body.

        @param size: of an upload; downloads are as large as the service has them.
        @raise LoadError: if that fails.
        """
        cpu = time.process_time()
        try:
            seconds = self._move(size, upload)
        except (PeerFailed, OSError) as error:
            raise LoadError(str(error)) from error
        cpu = time.process_time() - cpu
        return LoadResult(seconds, 1, size, p50=seconds, p99=seconds, client_cpu=cpu)

    def _move(self, size: int, upload: bool) -> float:
        if self.path.client == "http2":
            return move_http2(self.front, size, upload)
        return (put_http1 if upload else get_http1)(self.front, size)


def _listener(name: str, port: int, chain: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "address": f"{LOOPBACK}:{port}", "bind_port": True, "filter_chains": [chain]}


def _config(listeners: list[dict[str, Any]], cluster: str, host: int | None, upstream: str) -> dict[str, Any]:
    route: dict[str, Any] = {"cluster_name": cluster}
    if upstream:
        route["upstream_protocol"] = upstream
    router = {
        "router_config_name": f"to-{cluster}",
        "virtual_hosts": [
            {"name": "all", "domains": ["*"], "routers": [{"match": {"prefix": "/"}, "route": route}]}
        ],
    }
    found: dict[str, Any] = {"name": cluster, "type": "SIMPLE", "lb_type": "LB_ROUNDROBIN"}
    if host is not None:
        found["hosts"] = [{"address": f"{LOOPBACK}:{host}"}]
    server = {
        "default_log_path": "stdout",
        "default_log_level": "WARN",
        "routers": [router],
        "listeners": listeners,
    }
    return {"servers": [server], "cluster_manager": {"clusters": [found]}}
