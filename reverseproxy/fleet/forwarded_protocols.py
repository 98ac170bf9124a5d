"""
Forwarded streams on which this server speaks the protocol, rather than relaying bytes.

A connection of an agent that carries one request or session at a time needs to know where a request
ends: so this server terminates the protocol towards the other server, as an agent does, and speaks it
to the agent, as a server does.  It does the same for agents that do not report requests that they have
not sent on, and where requests are logged or traced.
"""

from __future__ import annotations

__all__ = ["ForwardedProtocols"]

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

from twisted.internet.interfaces import IProtocol, IReactorTime
from zope.interface import implementer

from reverseproxy.cluster.manager import Cluster
from reverseproxy.cluster.narrowed import SingleCluster
from reverseproxy.config.models import ProxyConfig, RouterConfig
from reverseproxy.errors import ConfigError
from reverseproxy.fleet.agent_cluster import AgentCluster
from reverseproxy.fleet.incoming_links import IncomingLink
from reverseproxy.fleet.incoming_stream import IncomingStream
from reverseproxy.fleet.link_frames import StreamHeader
from reverseproxy.fleet.local_hosts import LocalHosts
from reverseproxy.fleet.observers import RequestObservers
from reverseproxy.interfaces import ConnectionInfo, IService
from reverseproxy.proxy.protocols import ProxyPlan, build_proxy
from reverseproxy.routing import Router

_NAME: Final = "fleet"

_MAX_FRAME: Final = 256 * 1024 * 1024

_LIMITS: Final[Mapping[str, Any]] = {
    "http1": {"max_header_size": 1024 * 1024, "max_headers_count": 10_000},
    "http2": {
        "max_concurrent_streams": 10_000,
        "max_header_list_size": 1024 * 1024,
        "max_headers_count": 10_000,
        "max_resets": 1_000_000,
        "max_control_frames": 10_000_000,
    },
    "bolt": {"max_frame_size": _MAX_FRAME},
    "dubbo": {"max_frame_size": _MAX_FRAME},
}
"""
Limits of forwarded requests, wider than any sensible limits of the server that forwards them, which
apply first.
"""

_MOST_KEPT: Final = 1000
"""Factories that are kept, at most."""


@implementer(IService)
class _HealthyService:
    """
    The service behind a forwarded stream for the other server: a request that was not sent on says
    nothing about it.
    """

    well = True


class _Built(NamedTuple):
    """The factory of an agent's protocol, and the cluster that it was made for."""

    cluster: Cluster
    factory: Callable[[ConnectionInfo], IProtocol]


class ForwardedProtocols:
    """Makes the protocols of forwarded streams, and keeps their factories."""

    def __init__(
        self,
        own: LocalHosts,
        clock: IReactorTime,
        random: Callable[[], float],
        accounts: RequestObservers,
    ) -> None:
        """
        @param own: this server's agents.
        @param random: returns numbers from 0 to 1.
        @param accounts: what observes requests.
        """
        self._own = own
        self._clock = clock
        self._random = random
        self._accounts = accounts
        self._built: dict[tuple[str, str, str, str], _Built] = {}

    def __len__(self) -> int:
        return len(self._built)

    def serve(
        self, cluster: Cluster, link: IncomingLink, stream: IncomingStream, header: StreamHeader
    ) -> str:
        """
        Hand a stream to the protocol that its header names.

        @return: why that is not possible; empty if it has been done.
        """
        try:
            factory = self.factory_of(cluster, link.server, header)
        except (ConfigError, ValueError) as error:
            return f"{header.protocol:.64} can't be spoken: {error}"
        info = ConnectionInfo(
            header.client or link.info.remote,
            link.info.local,
            reverse=True,
            announced=True,
            service=_HealthyService(),
        )
        stream.give_to(factory(info))
        return ""

    def factory_of(
        self, cluster: Cluster, server: str, header: StreamHeader
    ) -> Callable[[ConnectionInfo], IProtocol]:
        """
        Return the factory for an agent's protocol, which is made at its first use.

        @param cluster: the agent's; another one of the same name, which an agent that is back may have
            brought, needs another factory.
        @raise ConfigError: if the protocol is unknown, or its options are invalid.
        @raise ValueError: likewise.
        """
        key = server, header.cluster, header.agent, header.protocol
        built = self._built.get(key)
        if built is None or built.cluster is not cluster:
            built = _Built(cluster, self._build(cluster, server, header))
            if len(self._built) >= _MOST_KEPT:
                self._built.clear()
            self._built[key] = built
        return built.factory

    def _build(
        self, cluster: Cluster, server: str, header: StreamHeader
    ) -> Callable[[ConnectionInfo], IProtocol]:
        hosts = AgentCluster(cluster, partial(self._own.find, header.cluster, header.agent))
        plan = ProxyPlan(
            listener=_NAME,
            config=_proxy_config(header.protocol),
            router=_router(header.protocol),
            clusters=SingleCluster(lambda: hosts),
            clock=self._clock,
            filters=None,
            idle_timeout=0.0,
            access_log=self._accounts.log_of(server),
            tracing=self._accounts.tracing_of(server),
            random=self._random,
        )
        return build_proxy(plan)


def _proxy_config(protocol: str) -> ProxyConfig:
    name, _, options = protocol.partition(" ")
    extend: dict[str, Any] = dict(_LIMITS)
    if name not in ("Http1", "Http2"):
        extend["sub_protocol"] = name
        if name not in ("bolt", "boltv2", "dubbo"):
            own = json.loads(options) if options else {}
            extend["xprotocols"] = {name: {"max_frame_size": _MAX_FRAME, **own}}
    return ProxyConfig.model_validate(
        {
            "downstream_protocol": name if name in ("Http1", "Http2") else "X",
            "router_config_name": _NAME,
            "stream_idle_timeout": "0s",
            "upgrade_idle_timeout": "0s",
            "error_details": True,
            "extend_config": extend,
        }
    )


def _router(protocol: str) -> Router:
    name = protocol.partition(" ")[0]
    route: dict[str, Any] = {"cluster_name": _NAME, "timeout": "-1s", "idle_timeout": "0s"}
    if name in ("Http1", "Http2"):
        route["upstream_protocol"] = name
        match: dict[str, Any] = {"prefix": "/"}
    else:
        match = {"headers": [{"name": "service", "value": ".*", "regex": True}]}
    document = {
        "router_config_name": _NAME,
        # The server that forwards the request applies its timeout.
        "virtual_hosts": [{"name": _NAME, "domains": ["*"], "routers": [{"match": match, "route": route}]}],
    }
    return Router(RouterConfig.model_validate(document))
