"""
Requests of siblings for a host whose connection is in the midst of HTTP/2.

Towards a sibling we are what an agent is towards a server: the sibling speaks
HTTP/2 to us over a stream, and each of its requests goes on as one of the host's,
in its turn among our own.  Nothing is decided about it here, nor added to it: that
has been done.  A request that was not sent on is answered with a remark that says
so (L{reverseproxy.wire.http.unsent}).
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
"""What nobody else can go on with once it has been spoken."""

_NAME: Final = "workers"

_ROUTER: Final = {
    "router_config_name": _NAME,
    "virtual_hosts": [
        {
            "name": _NAME,
            "domains": ["*"],
            # The worker that has the request has said how long it may take.
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
    """Whether HTTP/2 has been spoken to a plain host, so that its connection has to stay."""
    return host.exclusive and (host.committed_protocol == PROTOCOL or PROTOCOL in host.pools)


class _OneHost(NarrowedCluster):
    """A cluster of which one host will do."""

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
        """There are none."""
        return False


def _cluster_of(host: Host) -> ICluster:
    """Narrow the cluster of a host to it, if it is in it still."""
    if host.cluster is None:
        raise ClusterUnknown(f"{host.address} is gone")
    return _OneHost(host.cluster, host)


@implementer(IService)
class _Service:
    """What a sibling is told of: that its request was not sent on says nothing of the agent's service."""

    well = True


def serve_requests(host: Host, clock: IReactorTime) -> IProtocol:
    """
    Make the protocol of a stream over which a sibling sends requests.

    @param host: where they go; one that L{is_committed}.
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
    """What is made of the configuration above, once."""

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
