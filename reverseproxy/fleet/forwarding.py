"""
What other servers forward to the agents of this one.

A stream says which agent it is for.  Only connections that this server has itself come
into question, and only such as are members of the cluster that is meant: what an agent
was let into, and for how much it counts, is what this server has found out when it
joined, whatever stands in the directory.  Nothing is ever forwarded again.

Where the agent's connection carries streams, bytes are joined to one of its streams,
whatever protocol they are.  A connection that carries one request or session at a time
can't be joined like that, as somebody has to know where a request ends: there this
server speaks the protocol to the other one as an agent does, and to the agent as a
server does.  As it does for an agent that does not say what it has not sent on, and
where somebody wants to know of each request: for an access log, or for traces.
"""

from __future__ import annotations

__all__ = ["Forwarder"]

import json
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, Final

from twisted.internet.interfaces import IProtocol, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.cluster.endpoints import CallableFactory
from reverseproxy.cluster.health.outcome import Outcome
from reverseproxy.cluster.host import Host
from reverseproxy.cluster.manager import Cluster, ClusterManager
from reverseproxy.cluster.narrowed import NarrowedCluster, SingleCluster
from reverseproxy.config.models import ProxyConfig, RouterConfig
from reverseproxy.errors import ConfigError, HostGone, NoHealthyHost, PickFailed, WireError
from reverseproxy.fleet.incoming_links import IncomingLink
from reverseproxy.fleet.incoming_stream import IncomingStream
from reverseproxy.fleet.link_frames import StreamHeader
from reverseproxy.fleet.local_hosts import LocalHosts
from reverseproxy.fleet.observers import RequestObservers
from reverseproxy.fleet.traffic import PeerTraffic, Traffic
from reverseproxy.interfaces import ConnectionInfo, IService, PickContext
from reverseproxy.logs import loss
from reverseproxy.proxy.access import AccessRecord
from reverseproxy.proxy.access.record import Client, UpstreamDetails
from reverseproxy.proxy.protocols import ProxyPlan, build_proxy
from reverseproxy.proxy.relay import RelayEnd, couple
from reverseproxy.proxy.tcp.failover import REPLAY_LIMIT
from reverseproxy.proxy.tcp.forwarding_end import ForwardingEnd
from reverseproxy.routing import Router

log = Logger()

"""How connections end here: who is behind them, and how slow, is for others to judge."""

_NAME: Final = "fleet"

_JUDGED: Final = frozenset({Outcome.SUCCESS, Outcome.CLIENT_ERROR, Outcome.SERVER_ERROR, Outcome.RESET})

LOOK: Final = 0.1
"""Seconds between two looks for an agent that should be back in a moment."""

RETURNS: Final = 10
"""How often it is looked for."""

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
"""The server that forwards has limits of its own: these are wider than any that it should have."""

_MOST_KEPT: Final = 1000
"""Agents whose protocols are kept ready to be built, at the most."""


@implementer(IService)
class _Service:
    """What another server is told of: a request that was not sent on says nothing of the agent's service."""

    well = True


class _AgentHosts(NarrowedCluster):
    """A cluster of which the connections of one agent will do, and only those that this server has."""

    def __init__(self, cluster: Cluster, find: Callable[[], Collection[Host]]) -> None:
        super().__init__(cluster)
        self._find = find

    def narrow(self, context: PickContext | None) -> PickContext:
        """See L{NarrowedCluster.narrow}."""
        return PickContext(tried=set() if context is None else context.tried, among=self._find())

    def has_others(self, context: PickContext) -> bool:
        """See L{ICluster.has_others}."""
        return any(host.healthy and host not in context.tried for host in self._find())


class _Session:
    """
    A stream that is joined to an agent's connection, to be accounted for when it ends.

    The host is given back exactly once.
    """

    def __init__(
        self, cluster: Cluster, host: Host, counts: PeerTraffic, ended: Callable[[_Session], object]
    ) -> None:
        self.cluster = cluster
        self.host: Host = host
        self.near: RelayEnd | None = None
        self.far: RelayEnd | None = None
        self.failure = ""
        self._counts = counts
        self._ended = ended
        self._over = False
        counts.active += 1

    def over(self, reason: object = None) -> None:
        """It has ended."""
        if self._over:
            return
        self._over = True
        self._counts.active -= 1
        self.host.connection_closed()
        self.cluster.release(self.host)
        self._ended(self)


class Forwarder:
    """Serves the streams that other servers open."""

    def __init__(
        self,
        own: LocalHosts,
        clusters: ClusterManager,
        clock: IReactorTime,
        random: Callable[[], float],
        traffic: Traffic,
        accounts: RequestObservers | None = None,
    ) -> None:
        """
        @param own: this server's agents.
        @param random: numbers from 0 to 1.
        @param accounts: who wants to know of requests and sessions.
        """
        self._own = own
        self._clusters = clusters
        self._clock = clock
        self._random = random
        self._traffic = traffic
        self._accounts = accounts or RequestObservers()
        self._served: dict[tuple[str, str, str], Host] = {}
        self._built: dict[tuple[str, str, str, str], Callable[[ConnectionInfo], IProtocol]] = {}

    def __call__(self, link: IncomingLink, stream: IncomingStream, header: StreamHeader) -> None:
        """Take over a stream that says what it is for."""
        counts = self._traffic.of(link.server)
        counts.received += 1
        reason = self._serve(link, stream, header, counts)
        if reason:
            counts.refused += 1
            log.debug(
                "fleet: what {server} forwards to agent {agent} of cluster {cluster} is refused: {reason}",
                server=link.server,
                agent=header.agent,
                cluster=header.cluster,
                reason=reason,
            )
            stream.refuse()

    def _serve(
        self, link: IncomingLink, stream: IncomingStream, header: StreamHeader, counts: PeerTraffic
    ) -> str:
        """
        Serve a stream.

        @return: why that can't be; empty if it is.
        """
        if not header.may_be_served:
            return "it has been forwarded before"
        if header.cluster not in self._clusters:
            return "there is no such cluster"
        cluster = self._clusters.get(header.cluster)
        hosts = self._own.find(header.cluster, header.agent)
        if not hosts:
            return "there is no such agent"
        if header.protocol and (self._accounts.wanted or not all(_carries_streams(host) for host in hosts)):
            return self._speak(cluster, link, stream, header)
        chosen = _AgentHosts(cluster, lambda: hosts)
        try:
            host = chosen.acquire()
        except PickFailed as error:
            return str(error)
        if host is not None:
            self._join(link, stream, header, counts, cluster, host)
            return ""
        waiting = chosen.wait(None, cluster.config.connect_timeout)
        waiting.addCallbacks(
            lambda found: self._join(link, stream, header, counts, cluster, found),
            lambda reason: self._not_served(link, stream, header, counts, reason),
        )
        return ""

    def _not_served(
        self,
        link: IncomingLink,
        stream: IncomingStream,
        header: StreamHeader,
        counts: PeerTraffic,
        reason: Failure,
    ) -> None:
        reason.trap(PickFailed)
        if reason.check(NoHealthyHost) and stream.kept >= REPLAY_LIMIT:
            # Nobody has all of it any more who could send it elsewhere.  Connections that a session
            # uses up are dialled again, so that the agent is back in a moment, if it is not gone.
            self._await_return(link, stream, header, counts, RETURNS)
            return
        counts.refused += 1
        stream.refuse()

    def _await_return(
        self,
        link: IncomingLink,
        stream: IncomingStream,
        header: StreamHeader,
        counts: PeerTraffic,
        looks: int,
    ) -> None:
        """Look now and then whether an agent is back."""
        if stream.transport.disconnected:
            return
        if self._own.find(header.cluster, header.agent) or not looks:
            if self._serve(link, stream, header, counts):
                counts.refused += 1
                stream.refuse()
            return
        self._clock.callLater(LOOK, self._await_return, link, stream, header, counts, looks - 1)

    # bytes

    def _join(
        self,
        link: IncomingLink,
        stream: IncomingStream,
        header: StreamHeader,
        counts: PeerTraffic,
        cluster: Cluster,
        host: Host,
    ) -> None:
        began = self._clock.seconds()
        session = _Session(cluster, host, counts, partial(self._account, link, header, began))
        host.connection_opened()
        if stream.transport.disconnected:
            session.over()
            return
        connecting = host.connect(CallableFactory(partial(ForwardingEnd, self._clock)))
        connecting.addCallbacks(
            partial(self._joined, session, stream), partial(self._not_joined, session, stream)
        )

    def _joined(self, session: _Session, stream: IncomingStream, far: Any) -> None:
        near = ForwardingEnd(self._clock)
        session.near, session.far = near, far
        self._note(stream.link.server, session)
        far.on_close = session.over
        if stream.transport.disconnected:
            far.abort()
            return
        stream.give_to(near)
        couple(near, far)
        if far.lost:
            session.over()

    def _note(self, server: str, session: _Session) -> None:
        """Remember which connection of an agent serves a server, as that one does not know it."""
        name = self._own.name_of(session.host)
        if session.cluster.ejector.watches_answers and name:
            if len(self._served) >= _MOST_KEPT:
                self._served.clear()
            self._served[server, session.cluster.name, name] = session.host

    def heard(self, link: IncomingLink, message: Mapping[str, Any]) -> None:
        """
        A server has said how a request went that it has forwarded.

        @raise WireError: if it makes no sense.
        """
        cluster, agent, outcome = (message.get(name) for name in ("cluster", "agent", "outcome"))
        if outcome is None:
            return  # something of later versions
        known = type(outcome) is int and outcome in _JUDGED
        if not isinstance(cluster, str) or not isinstance(agent, str) or not known:
            raise WireError("it judges nobody")
        host = self._served.get((link.server, cluster, agent))
        if host is not None and host.cluster is not None:
            host.cluster.ejector.note(host, Outcome(outcome))

    def _not_joined(self, session: _Session, stream: IncomingStream, reason: Failure) -> None:
        session.failure = loss(reason)
        session.over()
        stream.refuse()
        if reason.check(HostGone) is None:
            log.debug(
                "fleet: {host} can't be connected: {reason}", host=session.host.address, reason=loss(reason)
            )

    def _account(self, link: IncomingLink, header: StreamHeader, began: float, session: _Session) -> None:
        access_log = self._accounts.access_log
        if access_log is None:
            return
        near, far, host = session.near, session.far, session.host
        duration = self._clock.seconds() - began
        access_log(
            AccessRecord(
                header.protocol or "tcp",
                Client(header.client, link.info.local),
                upstream=UpstreamDetails(
                    session.cluster.name, host.hostname or host.address, agent=host.identity
                ),
                duration=duration,
                bytes_received=0 if near is None else near.received,
                bytes_sent=0 if far is None else far.received,
                flag=session.failure,
                forwarded_by=link.server,
            )
        )

    # requests

    def _speak(
        self, cluster: Cluster, link: IncomingLink, stream: IncomingStream, header: StreamHeader
    ) -> str:
        """Take requests from another server, and give them to an agent."""
        key = link.server, header.cluster, header.agent, header.protocol
        build = self._built.get(key)
        if build is None:
            try:
                build = self._build(cluster, link.server, header)
            except (ConfigError, ValueError) as error:
                return f"{header.protocol:.64} can't be spoken: {error}"
            if len(self._built) >= _MOST_KEPT:
                self._built.clear()
            self._built[key] = build
        info = ConnectionInfo(
            header.client or link.info.remote,
            link.info.local,
            reverse=True,
            announced=True,
            service=_Service(),
        )
        stream.give_to(build(info))
        return ""

    def _build(
        self, cluster: Cluster, server: str, header: StreamHeader
    ) -> Callable[[ConnectionInfo], IProtocol]:
        hosts = _AgentHosts(cluster, partial(self._own.find, header.cluster, header.agent))
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

    def changed(self, cluster: str) -> None:
        """A cluster is another one now, or is no more."""
        for key in [key for key in self._built if key[1] == cluster]:
            del self._built[key]


def _carries_streams(host: Host) -> bool:
    """Whether bytes can be joined to a host: it carries streams, and says which it has not passed on."""
    return not host.exclusive and not host.committed_protocol and host.tells


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
        # The server that forwards it has said how long it may take.
        "virtual_hosts": [{"name": _NAME, "domains": ["*"], "routers": [{"match": match, "route": route}]}],
    }
    return Router(RouterConfig.model_validate(document))
