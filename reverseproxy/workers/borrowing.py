"""
The worker that uses connections of its siblings: their hosts, as hosts of its own clusters.

A host whose connection carries many streams is always there: a
L{RelayedHost} asks its owner for a stream each time it is to be connected.

A plain one is a L{BorrowedHost}, which has room for nothing until its owner
lends it; see L{reverseproxy.workers.lending}.  When a request has to wait, as
this worker has no host for it, a L{Borrower} asks for one all siblings that
have any, and the first that comes serves the first request that waits.
What is lent stays for as long as nobody else wants it.

Where the load balancer decides on a certain host, such as by a hash, it can't be
any host of a sibling.  So there a borrowed host seems to have room, and when it
is to be connected it waits until its owner lends it.
"""

from __future__ import annotations

__all__ = ["BorrowedHost", "Borrower", "RelayedHost"]

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from reverseproxy.cluster.endpoints import Building
from reverseproxy.cluster.host import HeldConnection, Host, ReverseHost
from reverseproxy.cluster.manager import Cluster
from reverseproxy.errors import ConnectionRefusedByPeer, HostGone
from reverseproxy.interfaces import PickContext
from reverseproxy.workers.messages import Message, encode
from reverseproxy.workers.streams import Asking

if TYPE_CHECKING:
    from reverseproxy.workers.links import Link

log = Logger()

_MAX_EARLY: Final = 65536


class RelayedHost(Host):
    """A host of a sibling whose connection carries many streams."""

    __slots__ = ("_clock", "_left", "_link", "_name", "_on_gone", "_opening", "_timeout")

    returns = True
    relayed = True

    def __init__(
        self,
        link: Link,
        cluster: Cluster,
        facts: Message,
        clock: IReactorTime,
        on_gone: Callable[[Host, str], object],
    ) -> None:
        """
        @param facts: what the sibling has announced.
        @param on_gone: called once with this host and a reason, as soon as it
            can take no further request.
        """
        super().__init__(facts["address"], facts["hostname"], facts["weight"], facts["metadata"])
        self._link = link
        self._name = cluster.name
        self._timeout = cluster.config.connect_timeout
        self._clock = clock
        self._on_gone = on_gone
        self._left = False
        self._opening: set[Deferred[IProtocol]] = set()

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Ask the owner for a stream.

        @return: fails with L{HostGone} if the host, or its owner, is gone, and
            with L{ConnectionRefusedByPeer} if that takes too long.
        """
        if self.closed or not self._link.session.usable:
            return fail(HostGone(f"{self.address} is gone"))

        def answered(answer: Message, rest: bytes) -> None:
            try:
                factory.doStart()
                protocol = factory.buildProtocol(asking.transport.getPeer())
                if protocol is None:
                    raise HostGone(f"no protocol wants {self.address}")
                asking.hand_over(protocol, rest)
            except Exception:
                asking.transport.abortConnection()
                connecting.errback()
            else:
                connecting.callback(protocol)

        def refused(reason: str) -> None:
            connecting.errback(HostGone(f"{self.address}: {reason}"))

        connecting: Deferred[IProtocol] = Deferred(lambda _: asking.cancel())
        asking = Asking({"open": self.address, "cluster": self._name}, answered, refused)
        opening = self._link.session.open(Building(lambda: asking))
        opening.addErrback(lambda reason: connecting.errback(reason))
        return connecting.addTimeout(self._timeout, self._clock, self._too_late)

    def _too_late(self, result: Any, timeout: float) -> Any:
        raise ConnectionRefusedByPeer(f"{self.address} was not connected within {timeout:g} s")

    def close(self, reason: str) -> None:
        """Close all streams to it."""
        if not self.closed:
            super().close(reason)
            if not self._left:
                self._left = True
                self._on_gone(self, reason)


class _Counted:
    """
    A stream, with how much was written to it.

    @ivar sent: bytes.
    """

    def __init__(self, stream: Any) -> None:
        self.sent = 0
        self._stream = stream
        self._write = stream.write

    def write(self, data: bytes) -> None:
        """See L{twisted.internet.interfaces.ITransport}."""
        self.sent += len(data)
        self._write(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """See L{twisted.internet.interfaces.ITransport}."""
        self.write(b"".join(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Lease(Asking):
    """
    The stream of a loan, at the end of the sibling that borrows.

    @ivar number: the loan's, once it is granted.
    """

    number = 0

    def __init__(
        self,
        link: Link,
        question: Message,
        granted: Callable[[Lease, Message], object],
        refused: Callable[[str], object],
    ) -> None:
        super().__init__(question, self._granted, refused)
        self._link = link
        self._take = granted
        self._address = ""
        self._returned = False

    def _granted(self, answer: Message, rest: bytes) -> None:
        self.number = answer["loan"]
        self._address = answer["ok"]
        self._link.leases[self.number] = self
        self._counted = _Counted(self.transport)
        self._take(self, answer)

    def begin(self) -> None:
        """Say that bytes follow."""
        self.transport.write(encode({"begin": True}))

    def attach(self, host: BorrowedHost, held: HeldConnection) -> Any:
        """
        Give the stream to a host.

        @return: the stream as the host's protocols are to see it.
        """
        stream, self.transport = self.transport, self._counted
        host.attach(self)
        self.transport = stream
        return self._counted

    def give_back(self, spoken: str, begun: bool) -> None:
        """
        Let the owner have its connection again.

        @param begun: whether it was used.
        """
        self._link.leases.pop(self.number, None)
        self.inner = self._half = None
        self._returned = True
        self.rebind(self._spoilt)
        if begun:
            self._link.send({"return": self.number, "sent": self._counted.sent, "spoken": spoken})
        else:
            self.transport.loseConnection()

    def _spoilt(self, data: bytes) -> None:
        """Nobody knows whom this is for."""
        if self._returned:
            self._returned = False
            cluster = self._question["cluster"]
            self._link.send({"spoilt": self._address, "cluster": cluster})

    def connectionLost(self, reason: Failure | None = None) -> None:
        """The loan is over."""
        self._link.leases.pop(self.number, None)
        super().connectionLost(*(() if reason is None else (reason,)))


class BorrowedHost(ReverseHost):
    """
    A host of a sibling whose connection carries one request, or session, at a time.

    @ivar lease: the connection, as long as it is lent to us.
    """

    __slots__ = ("_ask", "_asking", "_begun", "_settled", "lease")

    relayed = True

    def __init__(
        self,
        facts: Message,
        ask: Callable[[BorrowedHost], Deferred[None]],
        clock: IReactorTime,
        on_gone: Callable[[ReverseHost, str], object],
        settled: bool,
    ) -> None:
        """
        @param facts: what the sibling has announced.
        @param ask: asks for the connection; fires when L{lend} was called.
        @param on_gone: as for any L{ReverseHost}.
        @param settled: whether requests want this very host, so that it is to
            be asked for when it is connected.
        """
        super().__init__(
            facts["address"],
            facts["hostname"],
            facts["weight"],
            facts["metadata"],
            None,
            on_gone,
            clock=clock,
            capacity=1,
        )
        if not settled:
            self.bound = self.capacity = 0
        self.lease: Lease | None = None
        self._ask = ask
        self._asking: Deferred[None] | None = None
        self._begun = False
        self._settled = settled

    @property
    def state(self) -> str:
        """As for any host; away, if its connection is not lent to us."""
        state = super().state
        return "away" if self.lease is None and state == "idle" else state

    def lend(self, lease: Lease, spoken: str) -> None:
        """
        Take the connection.

        @param spoken: the protocol that it is committed to, if any.
        """
        self.lease = lease
        self._begun = False
        self._held = HeldConnection(self, _MAX_EARLY)
        self.spoken = spoken or self.spoken
        self._transport = lease.attach(self, self._held)
        self._set_bound(None)

    def _set_bound(self, bound: int | None) -> None:
        self.bound = bound
        if self.cluster is None:
            self.capacity = self.fit(self.room)
        else:
            self.cluster.set_capacity(self, self.room)

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Lease the connection to a protocol, as any L{ReverseHost} does, when it is lent to us.

        @return: fails with L{HostGone} too if the owner does not lend it.
        """
        if self.closed or self._left:
            return fail(HostGone(f"{self.address} is gone"))
        if self.lease is not None:
            return self._connect(factory)
        if self._asking is not None:
            return fail(HostGone(f"{self.address} is in use"))
        asking = self._asking = self._ask(self)

        def asked(result: Any) -> Any:
            self._asking = None
            return result if isinstance(result, Failure) else self._connect(factory)

        connecting: Any = asking.addBoth(asked)
        return connecting  # type: ignore[no-any-return]

    def _connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        if not self._begun and self.lease is not None:
            self._begun = True
            self.lease.begin()
        return super().connect(factory)

    def recall(self) -> None:
        """The owner wants its connection back: begin nothing more with it."""
        self._set_bound(0)
        if not self.active:
            self.spared()

    def spared(self) -> None:
        """Give the connection back, which nobody uses any more."""
        if not self._give_back() and not getattr(self._transport, "disconnecting", False):
            # Its protocol may still be about to finish what has just ended.
            self._clock.callLater(0, self._spared_again)

    def _spared_again(self) -> None:
        if self.capacity == 0 and not self.active and not self._give_back():
            self.close("it can't be given back")

    def _give_back(self) -> bool:
        """
        Give the connection back, if it is idle.

        @return: false if it is not.
        """
        lease = self.lease
        if lease is None or self.closed:
            return True
        if not self.take_back():
            return False
        if self.closed:
            return True  # its protocol can't be continued by another worker, such as HTTP/2
        self.lease = None
        self._transport = None
        lease.give_back(self.spoken or next(iter(self.pools), ""), self._begun)
        self._held = HeldConnection(self, _MAX_EARLY)
        if self._settled:
            self._set_bound(None)
        return True

    def retire(self) -> None:
        """Close the connection, if it is idle, at once."""
        if self.lease is not None:
            super().retire()
            return
        Host.retire(self)
        if not self.active:
            self.close("retired")

    def close(self, reason: str) -> None:
        """Close the connection, if it is lent to us."""
        if self.closed:
            return
        if self.lease is not None:
            super().close(reason)
            return
        self.closed = True
        self._leave(reason)
        self._close_pools()
        if self._asking is not None:
            self._asking.cancel()


class Borrower:
    """Asks siblings for their connections, for requests that have to wait."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        # What is asked for, for each request that waits: by the sibling's link.
        self._wants: dict[Deferred[Host], dict[Link, Lease]] = {}

    def waiting(
        self,
        links: Iterable[Link],
        cluster: Cluster,
        context: PickContext | None,
        waiter: Deferred[Host],
    ) -> None:
        """A request waits."""
        wants = self._wants.get(waiter)
        if wants is None:
            wants = self._wants[waiter] = {}
            waiter.addBoth(self._served, waiter, cluster)
        for link in links:
            if link not in wants and link.can_lend(cluster.name):
                self._want(link, cluster, context, waiter)
            if waiter not in self._wants:
                return  # it has been served

    def top_up(self, link: Link, cluster: Cluster) -> None:
        """A sibling may be asked for more; see whether there is somebody to ask for."""
        if link.can_lend(cluster.name):
            for context, waiter in cluster.waiting_requests():
                if not getattr(context, "own", False):
                    self.waiting((link,), cluster, context, waiter)
                if not link.can_lend(cluster.name):
                    return

    def _want(
        self, link: Link, cluster: Cluster, context: PickContext | None, waiter: Deferred[Host]
    ) -> None:
        question = {
            "lease": None,
            "cluster": cluster.name,
            "wait": cluster.config.connect_timeout,
            "tried": [] if context is None else [host.address for host in context.tried],
            "metadata": None if context is None or context.metadata is None else dict(context.metadata),
        }

        def granted(lease: Lease, answer: Message) -> None:
            self._forget(link, cluster, waiter, lease)
            self._lend(link, cluster, lease, answer)
            if waiter in self._wants:  # it was another one that was served
                self.waiting((link,), cluster, context, waiter)

        def refused(reason: str) -> None:
            self._forget(link, cluster, waiter, lease)
            log.debug(
                "cluster {cluster}: worker {number} lends no host: {reason}",
                cluster=cluster.name,
                number=link.number + 1,
                reason=reason,
            )

        lease = Lease(link, question, granted, refused)
        self._wants[waiter][link] = lease
        link.wanted[cluster.name] = link.wanted.get(cluster.name, 0) + 1
        link.session.open(Building(lambda: lease)).addErrback(lambda reason: refused(str(reason.value)))

    def _forget(self, link: Link, cluster: Cluster, waiter: Deferred[Host], lease: Lease) -> None:
        """There is nothing more to wait for from a sibling, for one request."""
        wants = self._wants.get(waiter)
        if wants is not None and wants.get(link) is lease:
            del wants[link]
            link.wanted[cluster.name] -= 1

    def _served(self, result: Any, waiter: Deferred[Host], cluster: Cluster) -> Any:
        wants = self._wants.pop(waiter, {})
        for link, lease in wants.items():
            link.wanted[cluster.name] -= 1
            lease.cancel()
        return result

    def ask(self, link: Link, cluster: Cluster, host: BorrowedHost) -> Deferred[None]:
        """Ask for the connection of a certain host."""
        timeout = cluster.config.connect_timeout
        question = {
            "lease": host.address,
            "cluster": cluster.name,
            "wait": timeout,
            "tried": [],
            "metadata": None,
        }

        def granted(lease: Lease, answer: Message) -> None:
            self._lend(link, cluster, lease, answer)
            if host.lease is lease:
                asking.callback(None)
            else:
                asking.errback(HostGone(f"{host.address} is gone"))

        def refused(reason: str) -> None:
            asking.errback(HostGone(f"{host.address} is not lent: {reason}"))

        asking: Deferred[None] = Deferred(lambda _: lease.cancel())
        lease = Lease(link, question, granted, refused)
        link.session.open(Building(lambda: lease)).addErrback(lambda reason: asking.errback(reason))
        return asking

    def _lend(self, link: Link, cluster: Cluster, lease: Lease, answer: Message) -> None:
        host = link.hosts.get((cluster.name, answer["ok"]))
        if (
            not isinstance(host, BorrowedHost)
            or host.cluster is None
            or host.closed
            or host.lease is not None
        ):
            lease.give_back("", begun=False)
            return
        host.lend(lease, answer["spoken"])
        if link.recalled.pop(lease.number, 0) is None:
            self._recall(link, lease.number, host)

    def recalled(self, link: Link, number: int) -> None:
        """A sibling wants a connection back."""
        lease = link.leases.get(number)
        if lease is None:
            link.early_recall(number)
        elif isinstance(lease.inner, HeldConnection):
            host = lease.inner._host
            assert isinstance(host, BorrowedHost)
            self._recall(link, number, host)

    def _recall(self, link: Link, number: int, host: BorrowedHost) -> None:
        host.recall()
        if host.active:
            # For as long as that takes, which may be hours: another connection may be free.
            link.send({"busy": number})
