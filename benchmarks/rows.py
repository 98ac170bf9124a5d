"""
The rows of the report: which peers there are, and how each is made.
"""

from __future__ import annotations

__all__ = ["HTTP2", "ROWS", "SATURATED", "SMALL_ONLY", "STEADY", "make_peer", "missing", "ours", "title"]

from benchmarks.envoy import EnvoyPair
from benchmarks.hops import Direct, HaproxyHop, NginxHop
from benchmarks.install import Tools
from benchmarks.ours import OurPair, Setup
from benchmarks.processes import Peer

# What the server does + what the agent does; relay is tcp_proxy.
_OURS = {
    "ours-http-tcp": ("ours, HTTP + relay", Setup("http", "tcp")),
    "ours-http": ("ours, HTTP + HTTP", Setup("http", "http")),
    "ours-http-tcp-mux": ("ours, HTTP + relay, mux", Setup("http", "tcp", 1, mux=True)),
    "ours-tcp": ("ours, relay + relay", Setup("tcp", "tcp")),
    "ours-tcp-mux": ("ours, relay + relay, mux", Setup("tcp", "tcp", 1, mux=True)),
    "ours-http-tcp-tls": ("ours, HTTP + relay, TLS", Setup("http", "tcp", tls=True)),
    "ours-http-tls": ("ours, HTTP + HTTP, TLS", Setup("http", "http", tls=True)),
    "ours-http-tcp-tls-mux": ("ours, HTTP + relay, TLS, mux", Setup("http", "tcp", 1, mux=True, tls=True)),
    "ours-h2": ("ours, HTTP/2 + HTTP/2", Setup("h2", "h2", 1)),
    "ours-h2-tcp": ("ours, HTTP/2 + relay", Setup("h2", "tcp")),
    "ours-bolt": ("ours, bolt + bolt", Setup("bolt", "bolt", 1)),
    "ours-workers-1": ("ours, HTTP + relay, 1 worker", Setup("http", "tcp", workers=1)),
    "ours-workers-2": ("ours, HTTP + relay, 2 workers", Setup("http", "tcp", workers=2)),
}

_OTHERS = {
    "direct": "nginx, direct",
    "nginx-hop": "nginx, proxy of one hop",
    "haproxy-hop": "haproxy, proxy of one hop",
    "envoy-http": "Envoy pair, HTTP + HTTP",
    "envoy-tcp": "Envoy pair, tcp_proxy in CONNECT streams",
}

SATURATED = (
    "direct",
    "nginx-hop",
    "haproxy-hop",
    "envoy-http",
    "envoy-tcp",
    *(name for name, (_, setup) in _OURS.items() if setup.server in ("http", "tcp") and not setup.workers),
)
# rows that say nothing new of large resources
SMALL_ONLY = ("ours-tcp-mux", "ours-http-tls")
STEADY = ("ours-http-tcp", "ours-http", "ours-http-tcp-mux", "ours-http-tcp-tls")
HTTP2 = ("nginx-hop", "haproxy-hop", "envoy-http", "ours-h2", "ours-h2-tcp")
ROWS = (*SATURATED, *(name for name in _OURS if name not in SATURATED))


def title(name: str) -> str:
    """How the report calls a row."""
    return _OTHERS[name] if name in _OTHERS else _OURS[name][0]


def missing(name: str, tools: Tools) -> str:
    """Why a row cannot be measured here; C{""} if it can."""
    if name.startswith("envoy") and tools.envoy is None:
        return tools.missing.get("envoy", "Envoy is not installed")
    if name == "haproxy-hop" and tools.haproxy is None:
        return "haproxy is not installed"
    if name in _OURS:
        setup = _OURS[name][1]
        if setup.mux and "mux" not in tools.features:
            return "this checkout has no mux"
        if setup.workers and "workers" not in tools.features:
            return "this checkout has no --workers"
    return ""


def ours(
    name: str, tools: Tools, backend: Peer, setup: Setup | None = None, server_only: bool = False
) -> OurPair:
    """Make a pair of ours, of a row or of a setup of its own."""
    if setup is None:
        return OurPair(name, *(_OURS[name][:1]), tools, backend, _OURS[name][1], server_only)
    return OurPair(name, name, tools, backend, setup, server_only)


def make_peer(name: str, tools: Tools, backend: Peer) -> Peer:
    """Make the peer of a row."""
    if name in _OURS:
        return ours(name, tools, backend)
    if name == "direct":
        return Direct(backend)
    if name == "nginx-hop":
        return NginxHop(tools, backend)
    if name == "haproxy-hop":
        return HaproxyHop(tools, backend)
    if name in _OTHERS:
        return EnvoyPair(name, _OTHERS[name], tools, backend, "http" if name == "envoy-http" else "tcp")
    raise ValueError(name)
