"""The states of an agent's slot, the inputs of its state machine, and the connection that it keeps."""

from __future__ import annotations

__all__ = ["ConnectionSlot", "SlotLink", "SlotState"]

from collections.abc import Callable
from enum import Enum
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure


class SlotState(Enum):
    """
    The state of a slot, as others see it.

    @cvar IDLE: it keeps no connection.
    @cvar DIALLING: a connection is being established.
    @cvar GREETING: the server's response to the handshake has not come yet.
    @cvar SERVING: the server has accepted the connection.
    @cvar WAITING: it dials again after a delay.
    @cvar DRAINING: the connection finishes its requests, and is not replaced.
    @cvar EXHAUSTED: it has given up.
    """

    IDLE = "idle"
    DIALLING = "dialling"
    GREETING = "greeting"
    SERVING = "serving"
    WAITING = "waiting"
    DRAINING = "draining"
    EXHAUSTED = "exhausted"


class SlotLink(Protocol):
    """
    A connection to a tunnel server.

    @ivar lost: called once when a connection that was accepted is lost; with
        L{reverseproxy.tunnel.agent.redial.EndedUnused}, if that is why.
    """

    lost: Callable[[Failure], None]

    @property
    def used(self) -> bool:
        """Whether the server has sent anything after its response."""

    def greet(self) -> Deferred[None]:
        """
        Start the handshake.

        @return: fires once the server has accepted the connection, and the hosting listener has it.
            Cancelling closes the connection.
        """

    def close(self) -> None:
        """Close the connection once everything that was written has been sent."""


class ConnectionSlot(Protocol):
    """The inputs of the state machine."""

    def start(self) -> None:
        """Keep a connection from now on."""

    def dialled(self, link: SlotLink) -> None:
        """Use a connection that has been established."""

    def accepted(self) -> None:
        """Note that the server has accepted the handshake."""

    def failed(self, reason: Failure) -> None:
        """Note that dialling or the handshake has failed."""

    def postponed(self, seconds: float, reason: str) -> None:
        """
        Note that the server wants to be asked again after some time, as it has too much to do, or too
        many connections.
        """

    def lost(self, reason: Failure) -> None:
        """Note that the serving connection is lost."""

    def retry(self) -> None:
        """Dial again after the delay."""

    def reachable(self) -> None:
        """Shorten the delay, as the server has accepted another connection."""

    def give_up(self) -> None:
        """Stop dialling after as many failures as the configuration allows."""

    def drain(self) -> None:
        """Dial no more; a connection that serves is kept until it is lost."""

    def stop(self) -> None:
        """Close the connection, and dial no more."""
