"""
One connection, several protocols, one after the other.

A connection that opens with a handshake, or that is held until somebody has a
use for it, changes hands.  The protocol that the transport was given stays with
it for its whole life; a L{Handover} passes events on to the protocol whose turn
it is.

Reads are the hot path, so they are not passed on call by call: transports look
C{dataReceived} up on their protocol at each read, and a L{Handover} puts the
bound method of whoever receives at present there, through any number of
handovers behind one another.  A protocol that changes its own C{dataReceived}
while it is connected must tell the handovers in front of it, which is what
L{Rebindable.rebind} is for.

Some bytes come to no protocol at all: the transport gives them to another
connection by itself.  A protocol asks for that with L{Rebindable.splice_to}, so
that the handovers in front of it hear of such bytes too.  These two are all the
ways to receive there are, whatever the transport.
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
    """A protocol that can give its connection up, still open, when it is idle."""

    def detach() -> bool:
        """
        Give the connection up if nothing is under way on it.

        A protocol that returns true forgets its transport: it writes to it no
        more and closes it no more, and has left it reading and without a
        producer.  It hears nothing of the connection from then on, not even of
        its loss, so that whoever keeps the protocol must drop it now.

        @return: whether the connection was given up.  False changes nothing;
            it is the answer, too, of a protocol that is closing its connection.
        """


def _receive_with(protocol: Any, receive: Callable[[bytes], None]) -> None:
    """Give reads to what takes the place of the class's method, which to type checkers nothing may."""
    protocol.dataReceived = receive


class Rebindable(Protocol):
    """A protocol that may receive with another method than C{dataReceived}."""

    _handover: Handover | None = None

    def rebind(self, receive: Callable[[bytes], None]) -> None:
        """
        Give all further reads to C{receive}.

        @param receive: takes the place of C{dataReceived}.
        """
        _receive_with(self, receive)
        if self._handover is not None:
            self._handover.rebind(receive)

    def vouched(self) -> None:
        """Tell whoever accepted the connection that its peer is known, and is no stranger any more."""
        if self._handover is not None:
            self._handover.vouched()

    def splice_to(self, target: Any, size: int, told: Callable[[int], object]) -> bool:
        """
        Let what comes go to another connection without a look at it, where that can be.

        @param target: the other connection's transport.
        @param size: how many bytes; those behind them are received as ever.
        @param told: called with the size of each part that has gone on.
        @return: whether that is so from now on; see L{reverseproxy.transport.splice_to}.
        """
        if self._handover is not None:
            if self._handover.looks:
                return False
            told = self._handover.telling(told)
        return splice_to(self.transport, target, size, told)


def _ignore(data: bytes) -> None:
    """Receive for a connection that is lost."""


@implementer(IHalfCloseableProtocol)
class Handover(Rebindable):
    """
    A protocol that hands its connection over to another one.

    Derive from it to have a say before (C{connectionMade}, C{dataReceived}) and
    after (C{connectionLost}, which must be passed on to this class).

    @ivar inner: the protocol that has the connection now; L{None} as long as
        it is our own.
    @ivar looks: whether it has to see what comes next, although another protocol has
        the connection.
    """

    transport: Any
    inner: IProtocol | None = None
    looks = False
    _half: IHalfCloseableProtocol | None = None
    _lost = False

    def __init__(self) -> None:
        # CPython has one table of names for all objects of a class, to which names
        # can be added only while there are few of these.  Whoever gets a name
        # later has a dictionary of his own, which is half a kilobyte and more.
        self.connected = 0
        self.transport = None
        self.inner = self._half = self._handover = None
        self._lost = False
        _receive_with(self, _ignore)
        del self.dataReceived

    def hand_over(self, inner: IProtocol, surplus: bytes = b"") -> None:
        """
        Give the connection to another protocol.

        It is connected, receives what was read too far, and then has all
        further events.  Whatever it raises is raised here.

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
            # By now this may be somebody further on, or nobody at all.
            self.dataReceived(surplus)

    def telling(self, told: Callable[[int], object]) -> Callable[[int], object]:
        """
        Say who is told of what is passed on unseen.

        To be overridden by whoever wants to hear of it as well.

        @param told: who wants to be told; must be, whatever this returns.
        """
        return told if self._handover is None else self._handover.telling(told)

    def take_back(self) -> bool:
        """
        Get the connection back from a protocol that is idle.

        @return: whether it is ours again; false if the protocol is not
            L{IDetachable} or not idle.
        """
        detachable = IDetachable(self.inner, None)
        if detachable is None or not detachable.detach():
            return False
        if self.inner is not None:  # else what it did to let go has led here as well
            self.let_go()
        return True

    def let_go(self) -> None:
        """Have the connection again; the protocol that has had it hears nothing more of it."""
        if isinstance(self.inner, Rebindable):
            self.inner._handover = None
        self.inner = self._half = None
        del self.dataReceived
        if self._handover is not None:
            self._handover.rebind(self.dataReceived)

    def readConnectionLost(self) -> None:
        """The peer sends no more: a protocol that can't half-close closes."""
        if self._half is not None:
            self._half.readConnectionLost()
        else:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Our half is closed, as whoever has the connection wanted."""
        if self._half is not None:
            self._half.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell whoever has the connection, once."""
        if self._lost:
            return
        self._lost = True
        self.connected = 0
        # These references make cycles, which are many when agents come and go.
        inner, self.inner, self._half, self._handover = self.inner, None, None, None
        _receive_with(self, _ignore)
        if inner is not None:
            if isinstance(inner, Rebindable):
                inner._handover = None
            inner.connectionLost(reason)
