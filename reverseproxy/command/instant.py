"""
Configurations of a tunnel server and of an agent, made from the command line.

L{StateDirectory<reverseproxy.command.state_directory.StateDirectory>} keeps them, with the
certificate and the tokens, and L{reverseproxy.command.running} runs them as any other.
"""

from __future__ import annotations

__all__ = ["MAX_SOCKET", "Bring", "ExposedService", "PublishedService", "server_configuration"]

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from reverseproxy.command import documents as parts
from reverseproxy.command.errors import InstantProblem
from reverseproxy.command.state_directory import StateDirectory

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")

MAX_SOCKET: Final = 100
"""Bytes of the longest path of a Unix socket."""


@dataclass(frozen=True, slots=True)
class PublishedService:
    """
    A service that the server publishes to its clients.

    @ivar name: of its cluster, and of the agent that may join it.
    @ivar domains: for HTTP, the domains of its virtual host; empty for TCP.
    @ivar address: for TCP, where clients connect to.
    """

    name: str
    domains: tuple[str, ...] = ()
    address: str = ""

    @classmethod
    def http(cls, text: str) -> PublishedService:
        """
        Read C{NAME} or C{NAME=DOMAIN,DOMAIN}.

        @raise InstantProblem: if it is neither.
        """
        name, _, domains = text.partition("=")
        return cls(_name(name), tuple(each.strip() for each in domains.split(",") if each.strip()) or ("*",))

    @classmethod
    def tcp(cls, text: str) -> PublishedService:
        """
        Read C{NAME=PORT} or C{NAME=HOST:PORT}.

        @raise InstantProblem: if it is neither.
        """
        name, _, where = text.partition("=")
        if not where:
            raise InstantProblem(f"{text}: write NAME=PORT, the port for clients of the service")
        return cls(_name(name), address=where if ":" in where else f"127.0.0.1:{where}")


@dataclass(frozen=True, slots=True)
class ExposedService:
    """
    A service that an agent exposes through the tunnel.

    @ivar name: of the server's cluster.
    @ivar target: C{host:port} or C{unix:/path}.
    @ivar server: the tunnel server, C{host:port}.
    @ivar token_file: where the agent's token is.
    @ivar tcp: whether bytes are relayed, rather than requests of HTTP forwarded.
    @ivar domains: the domains that the server is asked for; if there are none, the
        subdomain of the name.
    @ivar port: the server's port that it is asked for with C{tcp}; 0 for any.
    @ivar admin: the path of a Unix socket for the admin API; empty for none.
    @ivar log: the file for the log.
    """

    name: str
    target: str
    server: str
    token_file: str
    tcp: bool
    domains: tuple[str, ...] = ()
    port: int = 0
    admin: str = ""
    log: str = "stdout"

    @property
    def routes(self) -> dict[str, Any]:
        """What the server is asked for."""
        if self.tcp:
            return {"port": self.port}
        return {"domains": list(self.domains)} if self.domains else {"subdomains": [self.name]}

    def __post_init__(self) -> None:
        """
        Check the name, which files are named after.

        @raise InstantProblem: if it is not valid.
        """
        _name(self.name)

    def configuration(self, ca: str, server_name: str) -> dict[str, Any]:
        """
        The agent's configuration.

        @param ca: the file of what the server's certificate is verified by; empty for the system's.
        @param server_name: the name that it must have; empty for the host that is dialled.
        """
        tls: dict[str, Any] = {"status": True, "min_version": "TLSv1_2"}
        tls |= {"ca_cert": ca} if ca else {}
        tls |= {"server_name": server_name} if server_name else {}
        agent = {
            "enable": True,
            "connection_num": 1,
            "cluster": self.name,
            "host_name": self.name,
            "hosting_listener": "exposed",
            "server_list": [self.server],
            "credential_policy": "static",
            "credential_config": {"file": os.path.abspath(self.token_file)},
            "tls_context": tls,
            "routes": self.routes,
        }
        listener = {
            "name": "exposed",
            # Nothing is bound here; it is fed by the agent.
            "address": "127.0.0.1:0",
            "bind_port": False,
            "filter_chains": [{"filters": [parts.tcp("service") if self.tcp else parts.http("web")]}],
        }
        routers = [] if self.tcp else [parts.router("web", [_host(self.name, ("*",), "service")])]
        document = {
            "servers": [{"default_log_path": self.log, "routers": routers, "listeners": [listener]}],
            "extends": [{"type": "tunnel_agent", "config": agent}],
            "cluster_manager": {"clusters": [{"name": "service", "hosts": [{"address": self.target}]}]},
        }
        if self.admin:
            document["admin"] = {"address": {"pipe": {"path": self.admin}}}
        return document


@dataclass(frozen=True, slots=True)
class Bring:
    """
    What agents may bring to a server.

    @ivar zone: the domain that their services are in.
    @ivar ports: a range of ports for TCP; empty for none.
    @ivar address: where those are opened.
    """

    zone: str
    ports: str = ""
    address: str = "127.0.0.1"

    def configuration(self, http_listen: str) -> dict[str, Any]:
        """The C{agent_routes} of the tunnel filter."""
        port = http_listen.rpartition(":")[2]
        return {
            "router": "web",
            "zone": self.zone,
            "url": "http://{domain}/" if port == "80" else f"http://{{domain}}:{port}/",
            "tcp_address": self.address,
            "tcp_ports": [self.ports] if self.ports else [],
        }


def server_configuration(
    state: StateDirectory,
    listen: str,
    http_listen: str,
    services: Sequence[PublishedService],
    bring: Bring | None = None,
) -> dict[str, Any]:
    """
    Return the server's configuration.

    @param state: has the certificate, the tokens, and the socket of the admin API.
    @param bring: what agents may bring; L{None} for nothing.
    @raise InstantProblem: if two services want the same.
    """
    names = [service.name for service in services]
    wanted = [where for each in services for where in (*each.domains, each.address) if where]
    for each in (*names, *wanted):
        if names.count(each) > 1 or wanted.count(each) > 1:
            raise InstantProblem(f"{each} is wanted by two services")
    if not services and bring is None:
        raise InstantProblem("there is no service: say one with --http NAME or --tcp NAME=PORT")
    tls = {
        "status": True,
        "cert_chain": str(state.path("server.pem")),
        "private_key": str(state.path("server.key")),
        "min_version": "TLSv1_2",
    }
    policy: dict[str, Any] = {
        "credential_policy": "static",
        "validators": {"static": {"file": str(state.path("tokens.json"))}},
    }
    if bring is not None:
        policy["agent_routes"] = bring.configuration(http_listen)
    chain = {"tls_context": tls, "filters": [{"type": "tunnel", "config": policy}]}
    listeners = [parts.listener("tunnels", listen, chain)]
    web = [each for each in services if each.domains]
    routers = []
    if web or bring is not None:
        hosts = [_host(each.name, each.domains, each.name) for each in web]
        if not any("*" in each.domains for each in web):
            hosts.append(_nobody())
        routers = [{**parts.router("web", hosts), "ignore_host_port": True}]
        listeners.append(parts.listener("http", http_listen, {"filters": [parts.http("web")]}))
    listeners += [
        parts.listener(f"tcp-{each.name}", each.address, {"filters": [parts.tcp(each.name)]})
        for each in services
        if each.address
    ]
    document = {
        "servers": [{"default_log_path": "stdout", "routers": routers, "listeners": listeners}],
        "cluster_manager": {
            "clusters": [{"name": name, "type": "SIMPLE", "lb_type": "LB_RANDOM"} for name in names]
        },
    }
    socket = str(state.path("server.sock"))
    if len(socket.encode()) <= MAX_SOCKET:
        document["admin"] = {"address": {"pipe": {"path": socket}}}
    return document


def _name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise InstantProblem(f"{name!r} is no name of a service: letters, digits, dots, - and _ make one")
    return name


def _nobody() -> dict[str, Any]:
    """What a client gets that asks for a service that there is not."""
    answer = {"status": 404, "body": "There is no service of this name here.\n"}
    rule = {"match": {"prefix": "/"}, "direct_response": answer}
    return {"name": "nobody", "domains": ["*"], "routers": [rule]}


def _host(name: str, domains: Sequence[str], cluster: str) -> dict[str, Any]:
    rule = {"match": {"prefix": "/"}, "route": {"cluster_name": cluster}}
    return {"name": name, "domains": list(domains), "routers": [rule]}
