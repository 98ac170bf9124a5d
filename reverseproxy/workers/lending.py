"""
The worker that has an agent's connection lets its siblings use it.

A connection that carries many streams is simple: a sibling asks for a stream
(C{open}), and bytes go to and fro.

A plain connection carries one request at a time, so that the right to use it
has to be at one worker at a time.  It is lent:

    sibling                                        owner
    {"lease": null, "cluster": c, "wait": 10,
     "tried": [...], "metadata": {...}}     -->    waits like a request of its own, in the same queue,
                                                   for a connection of its own
                                            <--    {"ok": "10.0.0.7:50000", "loan": 7}
    {"begin": true}, then bytes             <->    the agent's connection, byte for byte
    ... one request after the other, for as long as nobody else wants the connection ...
                                            <==    {"recall": 7}, because a request waits
    {"return": 7, "sent": 1234, ...}        ==>    takes the connection back, when it has passed on
                                                   that many bytes, and gives it to who waits

C{-->} is on the loan's own stream, C{==>} on the link's stream of messages.  The
count is there because these two may overtake one another.  A loan that ends in
any other way than by C{return} ends the agent's connection, as nobody knows in
what state it is; unless it has not begun.  With an address instead of
C{null} it is for that host that the sibling waits.

Nobody starves: requests of the owner and of all siblings wait in one queue, in
their order; who has a connection on loan and is asked for it back begins no
further request with it.
"""

from __future__ import annotations

__all__ = ["Lender", "Want"]

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.cluster.endpoints import Building
from reverseproxy.cluster.handover import IDetachable
from reverseproxy.cluster.host import Host, ReverseHost
from reverseproxy.cluster.manager import Cluster, ClusterManager
from reverseproxy.errors import ClusterUnknown, WireError
from reverseproxy.interfaces import PickContext
from reverseproxy.mux.session import StreamRefused
from reverseproxy.proxy.farewell import Parting
from reverseproxy.proxy.relay import RelayEnd, couple
from reverseproxy.proxy.tcp.again import disown
from reverseproxy.workers.messages import Message, MessageReader, encode
from reverseproxy.workers.streams import Incoming

if TYPE_CHECKING:
    from reverseproxy.workers.links import Link

log = Logger()

MAX_WAIT: Final = 600.0
"""Seconds that a sibling's request may wait at the most."""


_PARTING: Final = Parting(excused=True)
"""How connections end here: who is behind them, and how slow, is for others to judge."""


@dataclass(slots=True)
class Want(PickContext):
    """
    What a sibling's request wants.

    @ivar link: where the sibling is.
    """

    link: Link | None = None


def _asking(context: PickContext | None) -> Link | None:
    """Who waits: a sibling, or, L{None}, a request of ours."""
    return context.link if isinstance(context, Want) else None


class _Passing(RelayEnd):
    """An end of what passes between a sibling and an agent."""

    parting = _PARTING

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The other end is told if the agent has passed nothing on."""
        if self._peer is not None and not self._peer.lost and reason.check(StreamRefused):
            disown(self._peer.transport)
        super().connectionLost(reason)


class _Near(RelayEnd):
    """
    The sibling's end of a loan.

    It waits for C{begin}; from then on bytes are passed on.
    """

    parting = _PARTING

    def __init__(self, clock: IReactorTime, loan: Loan) -> None:
        super().__init__(clock)
        self._loan = loan
        self._reader = MessageReader()
        self._begun = False

    def dataReceived(self, data: bytes) -> None:
        """Wait for C{begin}, and then for being coupled."""
        if self._begun:
            super().dataReceived(data)
            return
        self._reader.feed(data)
        try:
            message = self._reader.next()
        except WireError as error:
            log.error("{reason}", reason=str(error))
            self.abort()
            return
        if message is not None:
            self._begun = True
            rest = self._reader.rest()
            if rest:
                super().dataReceived(rest)
            self._loan.begin()

    def look(self, data: bytes) -> None:
        """Pass on what the sibling had sent before, and see whether that is all."""
        self._forward(data)
        self._loan.look()

    def readConnectionLost(self) -> None:
        """The sibling sends no more: if it has not begun, it does not want the connection any more."""
        if self._begun:
            super().readConnectionLost()
        else:
            self.close()

    def uncouple(self) -> None:
        """Have nothing more to do with the other end."""
        self._peer = None
        self.transport.unregisterProducer()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The loan is over."""
        super().connectionLost(reason)
        self._loan.near_lost()


@implementer(IDetachable)
class _Far(RelayEnd):
    """
    The agent's end of a loan.

    @ivar returned: whether the sibling has given the connection back.
    """

    returned = False
    parting = _PARTING

    def detach(self) -> bool:
        """See L{IDetachable}."""
        near = self._peer
        if not self.returned or self._lost or self._read_closed or self.closing:
            return False
        self.on_close = None
        self._peer = None
        self.transport.unregisterProducer()
        if isinstance(near, _Near) and not near.lost:
            near.uncouple()
        self.transport.resumeProducing()  # the sibling's stream may have paused it
        return True


class Loan:
    """
    One connection, lent to a sibling, from when the sibling asks for it.

    @ivar number: what both call it.
    @ivar link: where the sibling is.
    @ivar cluster: whose host it is, or will be.
    @ivar host: whose connection it is; L{None} until there is one.
    @ivar recalled: whether the sibling was asked to give it back.
    @ivar over: whether the sibling has it no more.
    """

    def __init__(self, number: int, link: Link, cluster: Cluster, clock: IReactorTime) -> None:
        self.number = number
        self.link = link
        self.cluster = cluster
        self.host: ReverseHost | None = None
        self.recalled = False
        self.over = False
        self._clock = clock
        self._near = _Near(clock, self)
        self._far: _Far | None = None
        self._sent: int | None = None
        self._taken = False  # we have the host from the cluster
        self._waiting: Deferred[Host] | None = None

    def wait(self, stream: Incoming, waiting: Deferred[Host]) -> None:
        """
        Wait for a host.

        @param stream: the sibling's.
        @param waiting: the place in the cluster's queue.
        """
        self._waiting = waiting
        stream.hand_over(self._near, stream.rest())
        waiting.addCallbacks(self._granted, self._refused)

    def _granted(self, host: Host) -> None:
        self._waiting = None
        if self._near.lost or self.over or not isinstance(host, ReverseHost):
            self.over = True
            self.cluster.release(host)
            self._refuse("there are others")
            return
        self.host = host
        self._taken = True
        if host.capacity == 1:
            host.bound = 1
            self._lend(host)
            return
        # Its protocol lets it carry more than one request: all of it is lent, when the others are done.
        host.on_spared = self._spared
        host.bound = 0
        self.cluster.set_capacity(host, host.room)
        self._taken = False
        self.cluster.release(host)

    def _spared(self) -> None:
        """Nobody uses the host any more, and nobody may begin to."""
        host = self.host
        assert host is not None
        host.bound = host.capacity = 1
        self._taken = not self._near.lost and self.cluster.borrow(host)
        if self._taken:
            self._lend(host)
        else:
            self._restore(host)
            self._end()
            self._refuse("it is gone")

    def _restore(self, host: ReverseHost) -> None:
        """Let the host have as much room as before."""
        host.bound = None
        if host.capacity != host.room:
            self.cluster.set_capacity(host, host.room)

    def _lend(self, host: ReverseHost, again: bool = True) -> None:
        """
        Give the sibling the connection, unless what it was used for forbids that.

        @param again: whether to look once more if it seems to be in use.
        """
        if not host.take_back() and again and host.usable():
            # A protocol may still be about to finish what has just ended.
            self._clock.callLater(0, self._lend, host, False)
            return
        if self.over or self._near.lost or not host.usable() or not host.take_back():
            self._end()
            self._refuse("its connection can't change hands")
            return
        spoken = host.spoken or next(iter(host.pools), "")
        self._near.transport.write(encode({"ok": host.address, "loan": self.number, "spoken": spoken}))
        if any(_asking(context) is not self.link for context, _ in self.cluster.waiting_requests()):
            self.recall()  # after one request it is the turn of whoever waits behind it

    def _refused(self, reason: Failure) -> None:
        self._waiting = None
        self.over = True
        self._refuse(reason.getErrorMessage())

    def _refuse(self, reason: str) -> None:
        self.link.loans.pop(self.number, None)
        if not self._near.lost:
            self._near.transport.write(encode({"refused": reason}))
            self._near.close()

    def begin(self) -> None:
        """Join the sibling to the connection."""
        if self.host is None or not self.is_lent:
            self._near.abort()
            return
        connecting = self.host.connect(Building(partial(_Far, self._clock)))
        connecting.addCallbacks(self._connected, self._failed)

    def _connected(self, far: Any) -> None:
        self._far = far
        far.on_close = self._far_lost
        couple(self._near, far)
        if far.lost:
            self._end()

    def _failed(self, reason: Failure) -> None:
        self._near.abort()
        self._end()

    @property
    def is_lent(self) -> bool:
        """Whether the sibling has it."""
        return self._taken and not self.over

    def recall(self) -> None:
        """Ask for the connection."""
        self.recalled = True
        self.link.send({"recall": self.number})

    def returned(self, sent: int, spoken: str) -> None:
        """
        The sibling gives the connection back.

        @param sent: how many bytes it has sent for it.
        @param spoken: the protocol that it is committed to by now, if any.
        """
        self._sent = sent
        if spoken and self.host is not None and not self.host.spoken:
            self.host.spoken = spoken
        self._look_or_wait()

    def look(self) -> None:
        """More has been passed on that the sibling had sent."""
        if self._far is not None and not self.over:
            self._look_or_wait()

    def _look_or_wait(self) -> None:
        near, far, host = self._near, self._far, self.host
        if self.over or far is None or self._sent is None or host is None:
            return
        if near.received < self._sent:
            near.rebind(near.look)
            return
        far.returned = True
        if near.received > self._sent or not host.take_back():
            host.close("it was given back in the middle of something")
        near.close()
        self._end()

    def near_lost(self) -> None:
        """The sibling's stream is gone; if it has not given the connection back, that goes with it."""
        if self._waiting is not None:
            self._waiting.cancel()
        elif self._far is None:
            self._end()
        elif not self.over and self.host is not None:
            self.host.usable()  # it finds out that it is being closed

    def _far_lost(self, reason: Failure) -> None:
        self._end()

    def _end(self) -> None:
        if not self.over:
            self.over = True
            self.link.loans.pop(self.number, None)
            host = self.host
            if host is not None and self._taken:
                self._taken = False
                if host.usable():
                    # First, as whoever is given the host next has to know of this.
                    self._restore(host)
                self.cluster.release(host)


class Lender:
    """Lends this worker's connections to its siblings."""

    def __init__(self, clusters: ClusterManager, clock: IReactorTime) -> None:
        self._clusters = clusters
        self._clock = clock
        self._numbers = count(1)

    # streams that siblings open

    def opened(self, link: Link, stream: Incoming, message: Message) -> None:
        """Take over a stream that asks for a host."""
        try:
            cluster = self._clusters.get(message["cluster"])
        except ClusterUnknown as error:
            stream.refuse(str(error))
            return
        if "open" in message:
            self._open(cluster, stream, message["open"])
        else:
            self._lease(link, cluster, stream, message)

    def _own_host(self, cluster: Cluster, address: str) -> Host | None:
        host = cluster.hosts.get(address)
        return None if host is None or host.relayed or not host.returns else host

    def _open(self, cluster: Cluster, stream: Incoming, address: str) -> None:
        host = self._own_host(cluster, address)
        if host is None or host.single:
            stream.refuse(f"{address} is gone")
            return
        near = _Passing(self._clock)
        stream.hand_over(near, stream.rest())
        connecting = host.connect(Building(partial(_Passing, self._clock)))
        near.on_close = lambda _: connecting.cancel()

        def connected(far: Any) -> None:
            near.on_close = None
            if not near.lost:
                near.transport.write(encode({"ok": address}))
            couple(near, far)

        def failed(reason: Failure) -> None:
            near.on_close = None
            if not near.lost:
                near.transport.write(encode({"refused": reason.getErrorMessage()}))
                near.close()

        connecting.addCallbacks(connected, failed)

    def _lease(self, link: Link, cluster: Cluster, stream: Incoming, message: Message) -> None:
        want = Want(own=True, link=link, metadata=message["metadata"])
        if message["lease"] is not None:
            want.only = self._own_host(cluster, message["lease"])
            if want.only is None or not want.only.single:
                stream.refuse(f"{message['lease']} is gone")
                return
        tried = (self._own_host(cluster, address) for address in message["tried"])
        want.tried.update(host for host in tried if host is not None)
        if cluster.config.hosts:
            # What every worker can dial for itself is not lent.
            want.tried.update(host for host in cluster.hosts.values() if not host.returns)
        loan = Loan(next(self._numbers), link, cluster, self._clock)
        link.loans[loan.number] = loan
        loan.wait(stream, cluster.wait(want, min(float(message["wait"]), MAX_WAIT)))

    # messages

    def returned(self, link: Link, message: Message) -> None:
        """A sibling gives a connection back."""
        loan = link.loans.get(message["return"])
        if loan is not None:
            loan.returned(message["sent"], message["spoken"])

    def spoilt(self, message: Message) -> None:
        """Something came for a sibling after it had given a connection back: nobody knows for whom."""
        cluster = self._clusters.get(message["cluster"])
        host = self._own_host(cluster, message["spoilt"])
        if host is not None and host.single:
            host.close("data came while the connection was idle")

    # who waits

    def waiting(self, links: Iterable[Link], cluster: Cluster, context: PickContext | None) -> bool:
        """
        A request waits, of ours or of a sibling: call back one of the connections that are lent.

        @return: whether there was one that had not been called back before.
        """
        asking = _asking(context)
        only = None if context is None else context.only
        for link in links:
            if link is asking:
                continue
            for loan in link.loans.values():
                if (
                    loan.cluster is cluster
                    and loan.is_lent
                    and not loan.recalled
                    and (only is None or loan.host is only)
                ):
                    loan.recall()
                    return True
        return False

    def busy(self, links: Iterable[Link], link: Link, number: int) -> None:
        """A sibling can't give a connection back yet: whoever waits for it is better off with another one."""
        loan = link.loans.get(number)
        if loan is not None:
            any(self.waiting(links, loan.cluster, context) for context, _ in loan.cluster.waiting_requests())
