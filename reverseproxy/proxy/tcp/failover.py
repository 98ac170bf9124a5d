"""
Failover of C{tcp_proxy} sessions to another host, if an agent has passed nothing on.

The client's data is kept until the first data of the host comes, up to
L{REPLAY_LIMIT} bytes, and replayed to another host.

An agent says that it has passed nothing on by the way in which it resets a stream,
and on a connection without streams by a mark (L{reverseproxy.wire.mosn.marks}).
"""

from __future__ import annotations

__all__ = ["MAX_FAILOVERS", "REPLAY_LIMIT", "IFailoverSession", "FailoverEnd", "PauseOnlyProducer", "disown"]

from typing import Any, Final, Protocol

from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.mux.session import StreamRefused
from reverseproxy.proxy.relay import RelayEnd
from reverseproxy.wire.mosn.marks import CARRIED, NOT_CARRIED

REPLAY_LIMIT: Final = 65536
"""Bytes of a client that are kept for another host."""

MAX_FAILOVERS: Final = 16
"""How often one session may fail over."""


class IFailoverSession(Protocol):
    """A session that may fail over."""

    def answered(self) -> None:
        """Drop the kept data: the host has sent data, or has closed its half."""

    def given_back(self) -> bool:
        """
        Fail over, as the agent has passed nothing on.

        @return: whether the session goes on with another host.
        """

    def nothing_passed(self, sure: bool = False) -> bool:
        """
        Handle the loss of the host's connection.

        @param sure: whether its agent is known to have passed nothing on.
        @return: whether the session was refused to the server that has forwarded it,
            and is over.
        """


@implementer(IPushProducer)
class PauseOnlyProducer:
    """A producer that pauses and resumes a client, but does not close it when the host is lost."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def pauseProducing(self) -> None:
        """See L{IPushProducer}."""
        self._transport.pauseProducing()

    def resumeProducing(self) -> None:
        """See L{IPushProducer}."""
        self._transport.resumeProducing()

    def stopProducing(self) -> None:
        """Do nothing: the session closes the client, unless it fails over."""


class FailoverEnd(RelayEnd):
    """
    The host's end of a session that may fail over here, or at the server that has forwarded it.
    """

    _begun = False

    def __init__(self, clock: IReactorTime, owner: IFailoverSession, marked: bool = False) -> None:
        """
        @param owner: the session.
        @param marked: whether the host's data is sent to the client behind a mark.
        """
        super().__init__(clock)
        self._owner = owner
        self._marked = marked

    def _begin(self) -> bytes:
        """Handle the host's first data: return the mark that precedes it."""
        self._begun = True
        self._owner.answered()
        return CARRIED if self._marked else b""

    def _join(self, peer: RelayEnd) -> None:
        if self._early:
            self._early.insert(0, self._begin())
        super()._join(peer)

    def _forward(self, data: bytes) -> None:
        # For the first data only.
        mark = b"" if self._begun else self._begin()
        self.rebind(super()._forward)
        self.received += len(data)
        self._write(mark + data if mark else data)
        self._pass_unseen()

    def _pass_unseen(self) -> None:
        if self._begun:
            super()._pass_unseen()

    def readConnectionLost(self) -> None:
        """
        Handle that the host has closed its half.

        On a connection with marks, a session without any data is over then; otherwise
        the host may still receive.
        """
        if self._marked and self._owner.nothing_passed():
            self.abort()
            return
        self._owner.answered()
        super().readConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Close the client's connection as well, unless the session fails over."""
        refused = reason.check(StreamRefused) is not None and not self._begun
        if refused and not self.closing and self._owner.given_back():
            self._lost = True
            self._peer = self.on_close = None
            return
        if self._peer is not None and not self.closing:
            self._owner.nothing_passed(refused)
        super().connectionLost(reason)


def disown(transport: Any, marked: bool = False) -> bool:
    """
    Refuse a stream of a tunnel, or a connection with marks: say that nothing of it was passed on.

    @param marked: whether the connection has marks, and none has been sent.
    @return: whether it was refused; other connections are left alone.
    """
    say = getattr(transport, "disown", None)
    if say is not None:
        say()
        return True
    if marked:
        transport.write(NOT_CARRIED)
    return marked
