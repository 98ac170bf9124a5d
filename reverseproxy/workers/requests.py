"""
Forward HTTP/2 requests of siblings to a host whose connection uses HTTP/2 already.

To a sibling this worker is like an agent: the sibling sends HTTP/2 over a stream, and each
request is forwarded on the host's connection, beside this worker's own.  Routes, filters and
headers were applied by the sibling.  The response to a request that was not forwarded says so
(L{reverseproxy.wire.http.unsent}).
"""

from __future__ import annotations

__all__ = ["PROTOCOL", "is_committed", "serve_requests"]

from functools import partial
from math import inf
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IProtocol, IReactorTime
from zope.interface import implementer

from reverseproxy.cluster.narrowed import ICluster, NarrowedCluster, SingleCluster
from reverseproxy.config.models import Http2Options, RouterConfig
from reverseproxy.errors import ClusterUnknown, NoHealthyHost
from reverseproxy.interfaces import ConnectionInfo, IService, PickContext
from reverseproxy.proxy.http.http2_server import Http2Proxy
from reverseproxy.proxy.http.settings import HttpSettings
from reverseproxy.routing import Router

if TYPE_CHECKING:
    from reverseproxy.cluster.host import Host
    from reverseproxy.cluster.manager import Cluster

PROTOCOL: Final = "Http2"
"""The protocol whose state can't move to another process."""

_NAME: Final = "workers"

_ROUTER: Final = {
    "router_config_name": _NAME,
    "virtual_hosts": [
        {
            "name": _NAME,
            "domains": ["*"],
            # The sibling applies the timeouts.
            "routers": [
                {
                    "match": {"prefix": "/"},
                    "route": {
                        "cluster_name": _NAME,
                        "timeout": "-1s",
                        "idle_timeout": "0s",
                        "upstream_protocol": PROTOCOL,
                    },
                }
            ],
        }
    ],
}

_OPTIONS: Final = {
    "max_concurrent_streams": 10_000,
    "max_header_list_size": 1024 * 1024,
    "max_resets": 1_000_000,
    "max_control_frames": 10_000_000,
    "x_forwarded": "off",
    "via": "",
}


def is_committed(host: Host) -> bool:
    """Whether HTTP/2 has been used on a host without streams, so that its connection can't move."""
    return host.exclusive and (host.committed_protocol == PROTOCOL or PROTOCOL in host.pools)


class _OneHost(NarrowedCluster):
    """A view of a cluster with a single host."""

    def __init__(self, cluster: Cluster, host: Host) -> None:
        super().__init__(cluster)
        self._host = host

    def narrow(self, context: PickContext | None) -> PickContext:
        """See L{NarrowedCluster.narrow}."""
        host = self._host
        if host.cluster is not self._cluster or not host.usable():
            raise NoHealthyHost(f"{host.address} is gone")
        if context is not None and host in context.tried:
            raise NoHealthyHost(f"{host.address} has failed")
        return PickContext(only=host)

    def wait(self, context: PickContext | None, timeout: float) -> Deferred[Host]:
        """See L{ICluster.wait}."""
        try:
            return super().wait(context, timeout)
        except NoHealthyHost:
            return fail()

    def has_others(self, context: PickContext) -> bool:
        """False: there is a single host."""
        return False


def _cluster_of(host: Host) -> ICluster:
    """Narrow the cluster of a host to it, if it is in it still."""
    if host.cluster is None:
        raise ClusterUnknown(f"{host.address} is gone")
    return _OneHost(host.cluster, host)


@implementer(IService)
class _Service:
    """Always healthy: a request that was not forwarded says nothing about the agent's service."""

    well = True


def serve_requests(host: Host, clock: IReactorTime) -> IProtocol:
    """
    Make the protocol of a stream over which a sibling sends requests.

    @param host: their destination; L{is_committed} has to be true for it.
    """
    settings = HttpSettings(
        listener=_NAME,
        router=_router(),
        clusters=SingleCluster(partial(_cluster_of, host)),
        clock=clock,
        http2=_options(),
        stream_idle=inf,
        error_details=True,
    )
    info = ConnectionInfo("unix:", "unix:", reverse=True, announced=True, service=_Service())
    return Http2Proxy(settings, info)


class _Made:
    """Models of the configuration above, made once."""

    router: Router | None = None
    options: Http2Options | None = None


def _router() -> Router:
    if _Made.router is None:
        _Made.router = Router(RouterConfig.model_validate(_ROUTER))
    return _Made.router


def _options() -> Http2Options:
    if _Made.options is None:
        _Made.options = Http2Options.model_validate(_OPTIONS)
    return _Made.options
