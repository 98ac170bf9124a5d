"""
Interfaces between the packages of the project, and for plug-ins.

Plug-ins are found through L{twisted.plugin.getPlugins} in the C{twisted.plugins}
package: provide one of L{IServerListerPlugin}, L{ICredentialPlugin},
L{IValidatorPlugin} or L{IXProtocolPlugin} from a module in C{twisted/plugins/}.
"""

from __future__ import annotations

__all__ = [
    "ConnectionInfo",
    "IConnectionSink",
    "IConnectionValidator",
    "ICredentialPlugin",
    "ICredentialSource",
    "IDrainable",
    "IEndable",
    "IExpendable",
    "IGate",
    "IHost",
    "ILoadBalancer",
    "IPartable",
    "INaming",
    "IRevoking",
    "IServerLister",
    "IServerListerPlugin",
    "IService",
    "IValidatorPlugin",
    "IXProtocolPlugin",
    "Identity",
    "PickContext",
]

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from zope.interface import Attribute, Interface

from reverseproxy.addresses import host_of
from reverseproxy.identity import CertificateSubject
from reverseproxy.identity.allowance import NOTHING, Allowance


class IService(Interface):
    """A service behind an agent."""

    well: bool = Attribute("Whether it is reachable, as far as known.")


class IGate(Interface):
    """The TLS handshake of a connection, for the requests on it."""

    differs: bool = Attribute("Whether what is required of clients depends on the name in the handshake.")

    def misdirects(host: bytes, always: bool) -> bool:
        """
        Say whether a request belongs on another connection (421 Misdirected Request).

        @param host: its Host, with or without a port.
        @param always: whether every name other than that in the handshake is wrong;
            otherwise only one for which more would have been required.
        """


@dataclass(frozen=True, slots=True)
class ConnectionInfo:
    """
    The peer of an accepted connection.

    @ivar remote: the peer's address as MOSN writes it: C{"10.0.0.7:50000"},
        C{"[::1]:50000"}, or C{"unix:/path"}.
    @ivar local: our own address on this connection, in the same form.
    @ivar secure: whether the connection runs over TLS.
    @ivar identity: what a verified TLS peer certificate proves, as an opaque
        string that stays the same when the certificate is renewed for the same
        subject; L{None} without a verified certificate.
    @ivar subject: the owner of that certificate, for people; L{None} without one.
    @ivar reverse: whether an agent dialled this connection to a tunnel server.
    @ivar announced: whether that tunnel server has announced that it is of this
        project.
    @ivar service: the agent's service; L{None} unless the tunnel server wants reports of
        requests that were not forwarded, see L{reverseproxy.wire.http.unsent}.
    @ivar marked: whether what is sent on it begins with a mark, as a tunnel server
        has agreed; see L{reverseproxy.wire.mosn.marks}.
    @ivar gate: decides which requests belong on it; L{None} without TLS.
    @ivar number: unique in this process.
    """

    remote: str
    local: str
    secure: bool = False
    identity: str | None = None
    reverse: bool = False
    announced: bool = False
    subject: CertificateSubject | None = None
    service: IService | None = field(default=None, compare=False)
    marked: bool = False
    gate: IGate | None = field(default=None, compare=False)
    number: int = field(default_factory=count(1).__next__, compare=False, repr=False)

    @property
    def remote_ip(self) -> str:
        """The peer's address without its port and brackets."""
        return host_of(self.remote) or self.remote


@dataclass(frozen=True, slots=True)
class Identity:
    """
    The owner of an accepted credential, and what it allows.

    @ivar name: the name of the agent, for logs and for ownership checks; empty
        if the credential names no owner, so that TLS or the address identifies
        the owner of its connections.
    @ivar clusters: the clusters it may join; L{None} for all.
    @ivar max_weight: the largest weight of its hosts; larger ones are reduced
        to it.  L{None} for no limit.
    @ivar routes: the domains and ports that it may bring, if the server accepts
        routes of agents.
    """

    name: str
    clusters: frozenset[str] | None = None
    max_weight: int | None = None
    routes: Allowance = NOTHING


@dataclass(slots=True)
class PickContext:
    """
    The data of a request for a load balancer.

    @ivar tried: hosts that must not be picked, as they have failed this request.
    @ivar deprioritized: those of them that have not failed, but probably would, as
        another host of the same agent has; see L{readmit}.
    @ivar hash_key: the result of the route's hash policy.
    @ivar metadata: the metadata that the route requires of a host.
    @ivar last: the previous pick for this request; set by balancers that need it.
    @ivar position: the position in the hosts' order for this request; set by
        balancers that need it.
    @ivar only: the only eligible host; L{None} for all.
    @ivar among: the only eligible hosts, a live collection; L{None} for all of the cluster.
    @ivar hurried: whether it should not wait for long.
    """

    tried: set[IHost] = field(default_factory=set)
    deprioritized: set[IHost] | None = None
    hash_key: bytes | None = None
    metadata: Mapping[str, str] | None = None
    last: IHost | None = None
    position: int = -1
    only: IHost | None = None
    among: Collection[IHost] | None = None
    hurried: bool = False

    def deprioritize(self, hosts: Iterable[IHost]) -> None:
        """Pick these hosts only if there are no others; they have not failed this request."""
        deprioritized = set(hosts) - self.tried
        if deprioritized:
            self.tried |= deprioritized
            self.deprioritized = (
                deprioritized if self.deprioritized is None else self.deprioritized | deprioritized
            )

    def readmit(self) -> bool:
        """
        Make the deprioritized hosts eligible again, as there are no others.

        @return: whether there are any.
        """
        deprioritized, self.deprioritized = self.deprioritized, None
        if deprioritized is None:
            return False
        self.tried -= deprioritized
        return True


class IConnectionSink(Interface):
    """
    A listener: makes protocols for connections.

    The connections come from a port, or from an agent that has dialled them.
    """

    name: str = Attribute("The listener's name.")

    def build_protocol(info: ConnectionInfo) -> IProtocol:
        """
        Make the protocol for one connection.

        The caller calls its C{makeConnection}; if it provides L{IDrainable}, the
        caller may drain it.
        """


class IDrainable(Interface):
    """A protocol that can finish its requests and then close."""

    busy: bool = Attribute("Whether a request or session is under way now.")

    def drain() -> None:
        """
        Accept no new request, and close after the responses to those under way.

        Without requests under way it closes at once, except a reverse connection
        (L{ConnectionInfo.reverse}): its peer may have sent a request already, so the
        agent closes it when it has been idle for long enough.
        """


class IPartable(Interface):
    """A protocol that can announce the close of its connection to the peer."""

    def part() -> None:
        """Close after the response to the next request, or to the one under way, which announces that."""


class IEndable(Interface):
    """A protocol that can abort requests or sessions in the way of its protocol."""

    doing: str = Attribute(
        "The request or session under way in a word or two for the log, such as C{WebSocket}; or empty."
    )

    def end(reason: str) -> None:
        """
        Abort what is under way, and close, or leave the close to the caller: send an error instead of a
        response that has not begun, break off one that has, and end a session by its own protocol.

        Called after L{IDrainable.drain}.  The caller waits a moment for data that is still to be sent,
        and then aborts the connection.

        @param reason: for the access log, and for the peer if its protocol can carry it.
        """


class IExpendable(Interface):
    """A protocol whose connection may be closed for another one while it is idle."""

    expendable: bool = Attribute(
        "Whether it is idle: without a complete request under way; a part of one may have arrived."
    )


class IHost(IStreamClientEndpoint):
    """
    One host of a cluster: an endpoint, with its state for load balancers.

    A static host dials; a reverse host leases its agent's connection.
    """

    address: str = Attribute("The address string, unique in its cluster.")
    hostname: str = Attribute("A name for humans; may be empty.")
    weight: int = Attribute("1 to 128.")
    metadata: Mapping[str, str] = Attribute("Labels for subsets and logs.")
    healthy: bool = Attribute("Whether it may be picked.")
    active: int = Attribute("Requests or sessions under way on it.")
    capacity: int | None = Attribute("The limit of these; None for no limit.")
    connections: int = Attribute("Open connections to it, and attempts.")
    healthy_since: float = Attribute("When it joined, or became healthy after that: reactor's seconds.")
    is_remote: bool = Attribute("Whether another worker, or another server, has its connection.")
    server: str = Attribute("The id of the server of the fleet that has its agent; empty for this one.")
    exclusive: bool = Attribute(
        "Whether it has only one connection, which is leased, and may move between workers."
    )

    def connect(factory: IProtocolFactory) -> Deferred[IProtocol]:
        """See L{IStreamClientEndpoint}."""


class ILoadBalancer(Interface):
    """
    Picks a host for a request.

    Every method takes O(log n) at most.  The caller suspends a host while it is
    busy or unhealthy; a suspended host keeps its place in the balancer's order.
    """

    def add(host: IHost) -> None:
        """Add a host."""

    def remove(host: IHost) -> None:
        """Remove a host; unknown ones are ignored."""

    def suspend(host: IHost) -> None:
        """Do not pick this host until it is resumed."""

    def resume(host: IHost) -> None:
        """Pick this host again."""

    def pick(context: PickContext | None) -> IHost | None:
        """
        Choose a host that is not suspended and not in C{context.tried}.

        @return: the host, or L{None} if there is none.
        """


class IServerLister(Interface):
    """Provides the tunnel servers of an agent."""

    def start(update: Callable[[Sequence[str]], None]) -> None:
        """
        Begin to watch; call C{update} with each complete list of C{host:port}
        strings, the first one as soon as it is known.  Errors are the lister's
        own to log and to retry.
        """

    def stop() -> None:
        """Stop watching; C{update} is not called any more."""


class IServerListerPlugin(Interface):
    """A kind of L{IServerLister}, for C{dynamic_server_lister}."""

    name: str = Attribute("Its name in the configuration.")

    def build(cluster: str, config: Mapping[str, Any], reactor: IReactorTime) -> IServerLister:
        """
        Make a lister.

        @raise ValueError: if C{config} can't be used; the message says why.
        """


class ICredentialSource(Interface):
    """Provides the credential of an agent."""

    def fetch(cluster: str) -> Deferred[str]:
        """
        Return the credential for one connection attempt; called for each.

        A failure fails that dial only, which is retried with backoff.
        """


class ICredentialCheck(Interface):
    """Optional for an L{ICredentialSource}: checks for the credential without a connection attempt."""

    def check() -> None:
        """
        Check for the credential, without network access.

        @raise CredentialMissing: if it is missing; the message says where it was looked for.
        """


class ICredentialPlugin(Interface):
    """A kind of L{ICredentialSource}, for an agent's C{credential_policy}."""

    name: str = Attribute("The policy name.")

    def build(config: Mapping[str, Any]) -> ICredentialSource:
        """
        Make a source.

        @raise ValueError: if C{config} can't be used; the message says why.
        """


class IConnectionValidator(Interface):
    """Validates credentials on a tunnel server."""

    def validate(
        credential: str, host_name: str, cluster_name: str
    ) -> Identity | Deferred[Identity | None] | None:
        """
        Validate a credential.

        @return: its owner, or L{None} to reject it; or a Deferred of that.
        """


class IRevoking(IConnectionValidator):
    """A validator whose credentials can be revoked."""

    def look() -> bool:
        """
        Say whether credentials may have been revoked since the last call.

        It is called about once a second, and must be fast.
        """

    def judge_again(
        credential: str, host_name: str, cluster_name: str
    ) -> Identity | Deferred[Identity | None] | None:
        """
        Validate a credential again that was valid before.

        No attempt to guess one is possible here; otherwise see L{IConnectionValidator.validate}.
        """


class INaming(IRevoking):
    """A validator that knows its agents by name, too, without their credentials."""

    def may_join(name: str, cluster_name: str) -> bool:
        """
        Say whether an agent of this name may join a cluster.

        It is for agents that have joined other servers of a fleet.
        """

    def allowance_of(name: str) -> Allowance | None:
        """Return which routes an agent of this name may bring; L{None} for an unknown name."""


class IValidatorPlugin(Interface):
    """A kind of L{IConnectionValidator}, by the policy name that agents send."""

    name: str = Attribute("The policy name.")

    def build(config: Mapping[str, Any]) -> IConnectionValidator:
        """
        Make a validator.

        @raise ValueError: if C{config} can't be used; the message says why.
        """


class IXProtocolPlugin(Interface):
    """An RPC protocol of whole frames, for C{downstream_protocol}."""

    name: str = Attribute("Its name in the configuration.")

    def build(options: Mapping[str, Any]) -> Any:
        """
        Make the protocol.

        @param options: its entry in C{xprotocols} of the proxy's
            C{extend_config}; empty if there is none.
        @return: a L{reverseproxy.wire.rpc.xprotocol.XProtocol} of this name.
        @raise ValueError: if C{options} can't be used; the message says why.
        """
