"""The results of routing: what is done with a request."""

from __future__ import annotations

__all__ = ["ClusterRoute", "DirectResponse", "Mirror", "Redirect", "RouteResult"]

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import repeat
from typing import TYPE_CHECKING, ClassVar

from reverseproxy.routing.hashing import source_ip_key
from reverseproxy.routing.retries import DEFAULT_RETRY, RetryPolicy
from reverseproxy.routing.timeouts import DEFAULT_TIMEOUT, Timeouts, timeouts

if TYPE_CHECKING:
    from reverseproxy.config.models import PerFilterConfig
    from reverseproxy.routing.facts import RouteInput
    from reverseproxy.routing.mutation import HeaderMutation, RequestMutation


@dataclass(frozen=True, slots=True)
class Mirror:
    """
    A cluster that gets copies of requests, whose responses are dropped.

    @ivar cluster_name: the cluster.
    @ivar percent: how many of a hundred requests are copied.
    """

    cluster_name: str
    percent: int

    def takes(self, draw: float) -> bool:
        """
        Decide whether a request is copied.

        @param draw: a random number from 0 to 1, less than 1.
        """
        return draw * 100 < self.percent


@dataclass(frozen=True, slots=True)
class ClusterRoute:
    """
    Send the request to a cluster.

    @ivar cluster_name: the cluster.
    @ivar timeout: seconds from the end of a request until its response begins;
        0.0 for no limit.  L{reverseproxy.routing.timeouts.timeouts} decides on the
        limits of one request.
    @ivar virtual_host: the name of the virtual host that matched, for logs.
    @ivar upstream_protocol: the protocol to speak to hosts; empty for that of the client.
    @ivar retry: when to send the request again; see L{should_retry}.
    @ivar metadata: the labels that hosts must have; L{None} for any hosts.
    @ivar hash_key: returns the key of consistent hashing, given the request and the
        client's IP address; L{None} for a request that has none.  To be called only
        if the cluster's balancer needs a key.
    @ivar request_mutation: what changes in the request, or L{None}.
    @ivar response_mutation: what changes in the headers of the host's final
        response, or L{None}.  Responses of our own are not changed.
    @ivar auto_host_rewrite: whether the host's C{hostname} goes into the Host
        header, once there is a host and if it has one.  MOSN does so in
        clusters of type C{STRICT_DNS} only.
    @ivar mirrors: the clusters that get copies.
    @ivar timeout_said: whether C{timeout} is configured, and not the default.
    @ivar timeout_to_end: whether C{timeout} bounds the whole response; L{None}
        for the proxy filter's option.
    @ivar stream_idle: seconds without a byte in either direction after which a
        request, or an upgraded session, is ended; infinity for never, L{None} for the
        proxy filter's option.
    @ivar filters: options for stream filters that the route has; L{None} for those of
        the listener.
    @ivar route: the name of the rule, for logs.
    @ivar has_no_transforms: whether it has nothing but the cluster, timeouts and C{retry}.
    @ivar times: the limits for requests without timeouts of their own; see
        L{reverseproxy.routing.timeouts.timeouts}.
    """

    cluster_name: str
    timeout: float = DEFAULT_TIMEOUT
    virtual_host: str = ""
    upstream_protocol: str = ""
    retry: RetryPolicy = DEFAULT_RETRY
    metadata: Mapping[str, str] | None = None
    hash_key: Callable[[RouteInput, str], bytes | None] = source_ip_key
    request_mutation: RequestMutation | None = None
    response_mutation: HeaderMutation | None = None
    auto_host_rewrite: bool = False
    mirrors: tuple[Mirror, ...] = ()
    timeout_said: bool = False
    timeout_to_end: bool | None = None
    stream_idle: float | None = None
    filters: PerFilterConfig | None = None
    route: str = field(default="", compare=False)
    has_no_transforms: bool = field(init=False, compare=False, repr=False)
    times: Timeouts = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        has_no_transforms = (
            not self.upstream_protocol
            and self.metadata is None
            and self.request_mutation is None
            and self.response_mutation is None
            and not self.auto_host_rewrite
            and not self.mirrors
        )
        object.__setattr__(self, "has_no_transforms", has_no_transforms)
        object.__setattr__(self, "times", timeouts(self, None))

    def mirrored_to(self, random: Callable[[], float], copies: int) -> Iterator[str]:
        """
        Choose the clusters that get copies of a request, by name.

        @param random: see L{Mirror.takes}.
        @param copies: how many each of them gets.
        """
        for mirror in self.mirrors:
            if mirror.takes(random()):
                yield from repeat(mirror.cluster_name, copies)


@dataclass(frozen=True, slots=True)
class DirectResponse:
    """
    Answer at once.

    @ivar status: the HTTP status.
    @ivar body: the response body; may be empty.
    @ivar filters: see L{ClusterRoute}.
    @ivar route: see L{ClusterRoute}.
    @ivar virtual_host: see L{ClusterRoute}.
    @cvar cluster_name: it goes to no cluster.
    """

    status: int
    body: bytes = b""
    filters: PerFilterConfig | None = None
    route: str = field(default="", compare=False)
    virtual_host: str = field(default="", compare=False)
    cluster_name: ClassVar[str] = ""


@dataclass(frozen=True, slots=True)
class Redirect:
    """
    Answer at once that the client should go elsewhere.

    @ivar status: 301, 302, 303, 307 or 308.
    @ivar location: the absolute URL for the Location header; printable ASCII.
    @ivar filters: see L{ClusterRoute}.
    @ivar route: see L{ClusterRoute}.
    @ivar virtual_host: see L{ClusterRoute}.
    @cvar cluster_name: it goes to no cluster.
    """

    status: int
    location: str
    filters: PerFilterConfig | None = None
    route: str = field(default="", compare=False)
    virtual_host: str = field(default="", compare=False)
    cluster_name: ClassVar[str] = ""


RouteResult = ClusterRoute | DirectResponse | Redirect
