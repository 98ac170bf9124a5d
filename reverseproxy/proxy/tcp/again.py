"""
Sessions of C{tcp_proxy} that go to another host, as an agent has passed nothing on.

What the client has sent so far is kept until the first byte of the host's has
come, as long as it is little; it is all that another host needs.
"""

from __future__ import annotations

__all__ = ["MOST_AGAIN", "REPLAY_LIMIT", "IAgain", "SessionEnd", "Valve", "disown"]

from typing import Any, Final, Protocol

from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.mux.session import StreamRefused
from reverseproxy.proxy.relay import RelayEnd

REPLAY_LIMIT: Final = 65536
"""Bytes of a client that are kept for another host at the most."""

MOST_AGAIN: Final = 16
"""How often a session may be given to another host."""


class IAgain(Protocol):
    """Who has a session."""

    def answered(self) -> None:
        """The host has sent something, or has ended its half: no other one will do."""

    def given_back(self) -> bool:
        """
        The agent has passed nothing on.

        @return: whether the session goes on elsewhere.
        """


@implementer(IPushProducer)
class Valve:
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


class SessionEnd(RelayEnd):
    """The end of a session at a host whose agent says what it has not passed on."""

    def __init__(self, clock: IReactorTime, owner: IAgain) -> None:
        super().__init__(clock)
        self._owner = owner

    def _forward(self, data: bytes) -> None:
        self._owner.answered()
        self.rebind(super()._forward)
        super()._forward(data)

    def readConnectionLost(self) -> None:
        """The host sends no more."""
        self._owner.answered()
        super().readConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The host's connection is lost, and the client's with it, unless the session goes on."""
        if reason.check(StreamRefused) is not None and not self.closing and self._owner.given_back():
            self._lost = True
            self._peer = self.on_close = None
        else:
            super().connectionLost(reason)


def disown(transport: Any) -> bool:
    """
    End a stream of a tunnel, and say that nothing of it was passed on.

    @return: whether it is one; all other connections are left alone.
    """
    say = getattr(transport, "disown", None)
    if say is None:
        return False
    say()
    return True
