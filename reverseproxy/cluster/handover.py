"""
Run several protocols on one connection, one after the other.

A connection that opens with a handshake, or that is idle until a request leases
it, changes protocols.  The protocol that the transport was made with stays with
it for its whole life; a L{Handover} forwards events to the present inner protocol.

Reads are the hot path, so they are not forwarded call by call: transports look
C{dataReceived} up on their protocol at each read, and a L{Handover} sets it to the
bound method of the innermost protocol, through any number of nested handovers.  A
protocol that changes its own C{dataReceived} while it is connected must update the
handovers around it by L{Rebindable.rebind}.

Spliced bytes reach no protocol: the transport sends them to another connection by
itself.  A protocol starts that with L{Rebindable.splice_to}, so that the handovers
around it can count such bytes.  There is no third way to receive,
whatever the transport.
"""

from __future__ import annotations

__all__ = ["Handover", "IDetachable", "Rebindable"]

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import Interface, implementer

from reverseproxy.errors import ConnectionUnavailable
from reverseproxy.transport import splice_to


class IDetachable(Interface):
    """A protocol that can detach from its connection while it is idle, leaving it open."""

    def detach() -> bool:
        """
        Detach from the connection if no exchange is in progress on it.

        A protocol that returns true forgets its transport: it neither writes to it nor
        closes it any more, and leaves it reading and without a producer.  It gets no
        events of the connection from then on, not even its loss, so that pools must
        drop the protocol now.

        @return: whether it is detached.  False changes nothing; a protocol that is
            closing its connection returns false, too.
        """


def _receive_with(protocol: Any, receive: Callable[[bytes], None]) -> None:
    """Set C{dataReceived} of an instance, which type checkers don't allow for a method."""
    protocol.dataReceived = receive


class Rebindable(Protocol):
    """A protocol that may replace its C{dataReceived} while it is connected."""

    _handover: Handover | None = None

    def rebind(self, receive: Callable[[bytes], None]) -> None:
        """
        Pass all further reads to C{receive}.

        @param receive: takes the place of C{dataReceived}.
        """
        _receive_with(self, receive)
        if self._handover is not None:
            self._handover.rebind(receive)

    def vouched(self) -> None:
        """Tell the listener that the peer is authenticated, and no longer counts among strangers."""
        if self._handover is not None:
            self._handover.vouched()

    def splice_to(self, target: Any, size: int, on_spliced: Callable[[int], object]) -> bool:
        """
        Splice received bytes to another connection, if both transports can.

        @param target: the other connection's transport.
        @param size: the number of bytes; those behind them are received as usual.
        @param on_spliced: called with the size of each chunk that was spliced.
        @return: whether bytes are spliced from now on; see L{reverseproxy.transport.splice_to}.
        """
        if self._handover is not None:
            if self._handover.looks:
                return False
            on_spliced = self._handover.wrap_spliced(on_spliced)
        return splice_to(self.transport, target, size, on_spliced)


def _ignore(data: bytes) -> None:
    """Drop data that is received after the connection is lost."""


@implementer(IHalfCloseableProtocol)
class Handover(Rebindable):
    """
    A protocol that hands its connection over to another one.

    Subclasses override C{connectionMade} and C{dataReceived} for the time before an inner
    protocol has the connection, and C{connectionLost}, which must call this class's.

    @ivar inner: the protocol that has the connection now; L{None} while it is this one.
    @ivar looks: whether this one has to see the next read, although an inner protocol has
        the connection.
    """

    transport: Any
    inner: IProtocol | None = None
    looks = False
    _half: IHalfCloseableProtocol | None = None
    _lost = False

    def __init__(self) -> None:
        # CPython shares one table of attribute names among the instances of a class, which can
        # grow only while there are few of them.  An instance that gets an attribute later has
        # a dictionary of its own, which takes half a kilobyte and more.
        self.connected = 0
        self.transport = None
        self.inner = self._half = self._handover = None
        self._lost = False
        _receive_with(self, _ignore)
        del self.dataReceived

    def hand_over(self, inner: IProtocol, surplus: bytes = b"") -> None:
        """
        Give the connection to another protocol.

        It is connected, receives C{surplus}, and then all further events.  What it raises is
        raised here.

        @param surplus: bytes that were received already and are for C{inner}.
        @raise ConnectionUnavailable: if the connection is lost already.
        @raise ValueError: if another protocol has the connection.
        """
        if self._lost:
            raise ConnectionUnavailable("the connection was lost before it could be handed over")
        if self.inner is not None:
            raise ValueError(f"{self.inner!r} has the connection already")
        self.inner = inner
        self._half = IHalfCloseableProtocol(inner, None)
        if isinstance(inner, Rebindable):
            inner._handover = self
        self.rebind(inner.dataReceived)
        inner.makeConnection(self.transport)
        if surplus and not getattr(self.transport, "disconnecting", False):
            # By now the innermost protocol may be another one, or none.
            self.dataReceived(surplus)

    def wrap_spliced(self, on_spliced: Callable[[int], object]) -> Callable[[int], object]:
        """
        Return the callback for bytes that an inner protocol has spliced.

        Overridden by handovers that count these, too.

        @param on_spliced: the callback of the inner protocol, which the returned one must call.
        """
        return on_spliced if self._handover is None else self._handover.wrap_spliced(on_spliced)

    def take_back(self) -> bool:
        """
        Get the connection back from a protocol that is idle.

        @return: whether this protocol has it again; false if the inner one is not
            L{IDetachable} or not idle.
        """
        detachable = IDetachable(self.inner, None)
        if detachable is None or not detachable.detach():
            return False
        if self.inner is not None:  # otherwise its detach has called let_go already
            self.let_go()
        return True

    def let_go(self) -> None:
        """Take the connection from the inner protocol, which gets no more events."""
        if isinstance(self.inner, Rebindable):
            self.inner._handover = None
        self.inner = self._half = None
        del self.dataReceived
        if self._handover is not None:
            self._handover.rebind(self.dataReceived)

    def readConnectionLost(self) -> None:
        """Forward the peer's half-close, or close the connection if the inner protocol can't half-close."""
        if self._half is not None:
            self._half.readConnectionLost()
        else:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Forward that our half of the connection is closed."""
        if self._half is not None:
            self._half.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forward the loss of the connection to the inner protocol, once."""
        if self._lost:
            return
        self._lost = True
        self.connected = 0
        # Break reference cycles, of which there are many while agents come and go.
        inner, self.inner, self._half, self._handover = self.inner, None, None, None
        _receive_with(self, _ignore)
        if inner is not None:
            if isinstance(inner, Rebindable):
                inner._handover = None
            inner.connectionLost(reason)
