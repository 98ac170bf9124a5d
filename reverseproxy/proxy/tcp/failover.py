"""
Sessions of C{tcp_proxy} that go to another host, as an agent has passed nothing on.

What the client has sent so far is kept until the first byte of the host's has
come, as long as it is little; it is all that another host needs.

An agent says that it has passed nothing on by the way in which it resets a stream,
and on a connection that is lent as a whole by a mark
(L{reverseproxy.wire.mosn.marks}).
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
"""Bytes of a client that are kept for another host at the most."""

MAX_FAILOVERS: Final = 16
"""How often a session may be given to another host."""


class IFailoverSession(Protocol):
    """Who has a session."""

    def answered(self) -> None:
        """The host has sent something, or has ended its half: no other one will do."""

    def given_back(self) -> bool:
        """
        The agent has passed nothing on.

        @return: whether the session goes on elsewhere.
        """

    def nothing_passed(self, sure: bool = False) -> bool:
        """
        The host is gone.

        @param sure: whether its agent has passed nothing on, either.
        @return: whether a server was told that nothing has been passed on, and the
            session is over.
        """


@implementer(IPushProducer)
class PauseOnlyProducer:
    """Pauses a client for a host, but does not close it when the host is lost."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def pauseProducing(self) -> None:
        """See L{IPushProducer}."""
        self._transport.pauseProducing()

    def resumeProducing(self) -> None:
        """See L{IPushProducer}."""
        self._transport.resumeProducing()

    def stopProducing(self) -> None:
        """Who has the session closes the client, if it is to be."""


class FailoverEnd(RelayEnd):
    """
    The end of a session at a host whose agent says what it has not passed on, or of one that we say so of.
    """

    _begun = False

    def __init__(self, clock: IReactorTime, owner: IFailoverSession, marked: bool = False) -> None:
        """
        @param marked: whether what the host sends goes out behind a mark.
        """
        super().__init__(clock)
        self._owner = owner
        self._marked = marked

    def _begin(self) -> bytes:
        """Get ready for the host's first bytes: what goes out before them."""
        self._begun = True
        self._owner.answered()
        return CARRIED if self._marked else b""

    def _join(self, peer: RelayEnd) -> None:
        if self._early:
            self._early.insert(0, self._begin())
        super()._join(peer)

    def _forward(self, data: bytes) -> None:
        # The first bytes only, which have to be seen.
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
        The host sends no more.

        On a connection that has no other use, that is the end of a session in which
        nothing has happened; elsewhere it may still receive.
        """
        if self._marked and self._owner.nothing_passed():
            self.abort()
            return
        self._owner.answered()
        super().readConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The host's connection is lost, and the client's with it, unless the session goes on."""
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
    End a stream of a tunnel, or a connection with marks, and say that nothing of it was passed on.

    @param marked: whether what goes out on the connection begins with a mark, and nothing has gone out.
    @return: whether that could be said; all other connections are left alone.
    """
    say = getattr(transport, "disown", None)
    if say is not None:
        say()
        return True
    if marked:
        transport.write(NOT_CARRIED)
    return marked
