"""
Contracts between the rooms of the project, and for plug-ins.

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
    """What an agent makes reachable."""

    well: bool = Attribute("Whether it can be reached, as far as that is known.")


class IGate(Interface):
    """What is known of the TLS handshake of a connection, for requests that come over it."""

    differs: bool = Attribute("Whether it depends on the name in the handshake what is demanded of clients.")

    def misdirects(host: bytes, always: bool) -> bool:
        """
        Say whether a request should come over another connection.

        @param host: its Host, with or without a port.
        @param always: whether any other name than that in the handshake is wrong;
            else only one for which more would have been demanded.
        """


@dataclass(frozen=True, slots=True)
class ConnectionInfo:
    """
    Who is at the other end of a connection that a listener takes.

    @ivar remote: the peer's address as MOSN writes it: C{"10.0.0.7:50000"},
        C{"[::1]:50000"}, or C{"unix:/path"}.
    @ivar local: our own address on this connection, in the same form.
    @ivar secure: whether the connection runs over TLS.
    @ivar identity: what a verified TLS peer certificate proves, as an opaque
        string that stays the same when the certificate is renewed for the same
        subject; L{None} without a verified certificate.
    @ivar subject: whom that certificate belongs to, for people; L{None} without one.
    @ivar reverse: whether an agent dialled this connection and handed it in.
    @ivar announced: whether the tunnel server that it was dialled to has said
        that it is of this project.
    @ivar service: what a tunnel server is told of; L{None} unless it wants to be
        told which requests are not sent on, see L{reverseproxy.wire.http.unsent}.
    @ivar marked: whether what is sent on it begins with a mark, as a tunnel server
        has agreed; see L{reverseproxy.wire.mosn.marks}.
    @ivar gate: which requests may come over it; L{None} without TLS.
    @ivar number: tells it from all others that this process knows of.
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
    Who an accepted credential belongs to, and what it allows.

    @ivar name: the name of the agent, for logs and for ownership checks; empty
        if the credential does not say who it is, so that its connections belong
        to whom TLS or the address says.
    @ivar clusters: the clusters it may join; L{None} for every one.
    @ivar max_weight: the largest weight that its hosts may announce; a larger
        one is lowered to it.  L{None} for no bound.
    @ivar routes: the domains and ports that it may bring, where the server takes
        such from agents.
    """

    name: str
    clusters: frozenset[str] | None = None
    max_weight: int | None = None
    routes: Allowance = NOTHING


@dataclass(slots=True)
class PickContext:
    """
    What a balancer may know of the request it picks a host for.

    @ivar tried: hosts that already failed this request, not to be picked again.
    @ivar deprioritized: those of them that have not failed, but may well do so, as
        another one of the same agent has; see L{readmit}.
    @ivar hash_key: what the route's hash policy found in the request.
    @ivar metadata: what the route demands of a host's metadata.
    @ivar last: what a balancer has picked for this request before, if it
        remembers; its own to set.
    @ivar position: where a balancer that goes through the hosts in order has
        got to with this request; its own to set.
    @ivar only: the one host that will do; L{None} if others will, too.
    @ivar among: hosts of which any will do, and no others, as they are when it is looked at;
        L{None} for all of the cluster.
    @ivar hurried: whether it should not be kept waiting for long.
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
        Allow for the deprioritized hosts again, as there are no others.

        @return: whether there are any.
        """
        deprioritized, self.deprioritized = self.deprioritized, None
        if deprioritized is None:
            return False
        self.tried -= deprioritized
        return True


class IConnectionSink(Interface):
    """
    Something that takes connections: a listener.

    A port feeds it, or an agent does with connections that it dialled.
    """

    name: str = Attribute("The listener's name.")

    def build_protocol(info: ConnectionInfo) -> IProtocol:
        """
        Make the protocol for one connection.

        The caller connects it (C{makeConnection}) and feeds it; when it
        provides L{IDrainable}, the caller may drain it.
        """


class IDrainable(Interface):
    """A protocol that can finish what it has begun and then close."""

    busy: bool = Attribute("Whether a request or session is under way now.")

    def drain() -> None:
        """
        Take no new request; close once what is under way has been answered.

        Closes now if nothing is under way, unless the connection is a reverse
        one (L{ConnectionInfo.reverse}): there the other end sends the requests
        and may have sent one already, so that it is left to whoever hands
        connections in to close it when it has been quiet for long enough.
        """


class IPartable(Interface):
    """A protocol that can close its connection at a time when the peer expects it."""

    def part() -> None:
        """Close once the next request, or the one under way, is answered, and say so there."""


class IEndable(Interface):
    """A protocol that can end what is under way as its protocol has it, when that has lasted for too long."""

    doing: str = Attribute(
        "What is under way now, in a word or two for the log, such as C{WebSocket}; empty for nothing."
    )

    def end(reason: str) -> None:
        """
        End what is under way, and close, or let whoever asks close: a response that has not begun is an
        error, one that has is broken off; a session is told in its own words, if it has any.

        Called after L{IDrainable.drain}.  Whoever asks bears with what is then still to be sent and
        answered for a moment, and aborts the connection after that.

        @param reason: for the access log, and for the peer where its protocol has room for it.
        """


class IExpendable(Interface):
    """A protocol of which nothing is lost, at times, when its connection is closed for another one."""

    expendable: bool = Attribute(
        "Whether nothing that the peer has asked for is under way: at the most, a part of a request has come."
    )


class IHost(IStreamClientEndpoint):
    """
    One host of a cluster: an endpoint, with what a balancer wants to know of it.

    A static host dials; a reverse host leases its held connection.
    """

    address: str = Attribute("The address string, unique in its cluster.")
    hostname: str = Attribute("A name for humans; may be empty.")
    weight: int = Attribute("1 to 128.")
    metadata: Mapping[str, str] = Attribute("Labels for subsets and logs.")
    healthy: bool = Attribute("Whether it may be picked.")
    active: int = Attribute("Requests or sessions under way on it.")
    capacity: int | None = Attribute("How many of them it can carry at once; None: any number.")
    connections: int = Attribute("Connections to it that are open, or being made.")
    healthy_since: float = Attribute("When it joined, or became healthy after that: reactor's seconds.")
    is_remote: bool = Attribute("Whether another worker, or another server, has its connection.")
    server: str = Attribute("The id of the server of the fleet that has its agent; empty for this one.")
    exclusive: bool = Attribute(
        "Whether it has but one connection, which is leased, and may come from another worker."
    )

    def connect(factory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect a protocol, as L{IStreamClientEndpoint} has it."""


class ILoadBalancer(Interface):
    """
    Chooses among the hosts that could take a request now.

    Every method takes O(log n) at most.  The caller suspends a host while it is
    busy or unhealthy; a suspended host keeps its place in the balancer's order.
    """

    def add(host: IHost) -> None:
        """Take in a new host, which may be picked from now on."""

    def remove(host: IHost) -> None:
        """Forget a host; unknown ones are ignored."""

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
    """Tells an agent which tunnel servers to keep connections to."""

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

    name: str = Attribute("What the configuration calls it.")

    def build(cluster: str, config: Mapping[str, Any], reactor: IReactorTime) -> IServerLister:
        """
        Make a lister.

        @raise ValueError: if C{config} can't be used; the message says why.
        """


class ICredentialSource(Interface):
    """Gives an agent the credential to send."""

    def fetch(cluster: str) -> Deferred[str]:
        """
        The credential for one dial; asked anew each time.

        A failure fails that dial only, which is retried with backoff.
        """


class ICredentialCheck(Interface):
    """What an L{ICredentialSource} may provide too: it says without a dial whether there is a credential."""

    def check() -> None:
        """
        Look for the credential, without asking anybody through a network.

        @raise CredentialMissing: if it isn't there now; the message says where it was looked for.
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
    """Decides on a tunnel server whether a credential is good."""

    def validate(
        credential: str, host_name: str, cluster_name: str
    ) -> Identity | Deferred[Identity | None] | None:
        """
        Judge a credential.

        @return: whose it is, or L{None} to reject it, now or later.
        """


class IRevoking(IConnectionValidator):
    """A validator that knows when what it has found good may not be good any more."""

    def look() -> bool:
        """
        Say whether that may be so since it was asked the last time.

        Asked about once a second; it must not take long.
        """

    def judge_again(
        credential: str, host_name: str, cluster_name: str
    ) -> Identity | Deferred[Identity | None] | None:
        """
        Judge a credential that was good once.

        For that, nobody can try to guess one; else see L{IConnectionValidator.validate}.
        """


class INaming(IRevoking):
    """A validator that knows its agents by their names as well, without their credentials."""

    def may_join(name: str, cluster_name: str) -> bool:
        """
        Say whether an agent of this name may join a cluster, if it has its credential.

        For agents that other servers of a fleet have let in.
        """

    def allowance_of(name: str) -> Allowance | None:
        """Say which routes an agent of this name may bring; L{None} if there is none of this name."""


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

    name: str = Attribute("What the configuration calls it.")

    def build(options: Mapping[str, Any]) -> Any:
        """
        Make the protocol.

        @param options: its entry in C{xprotocols} of the proxy's
            C{extend_config}; empty if there is none.
        @return: a L{reverseproxy.wire.rpc.xprotocol.XProtocol} of this name.
        @raise ValueError: if C{options} can't be used; the message says why.
        """
