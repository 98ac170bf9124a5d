"""Replace an agent by another one: the new one serves before the old one stops."""

from __future__ import annotations

__all__ = ["Succession"]

from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

if TYPE_CHECKING:
    from reverseproxy.tunnel.agent.agent import Agent

log = Logger()

LOOKS: Final = 0.1
"""Seconds between two looks whether the new agent serves."""

PATIENCE: Final = 20.0
"""The most seconds that the old agent waits for the new one, which may be refused."""


class Succession:
    """
    The replacement or removal of an agent.

    The agent drains when all connections of its replacement serve, or after L{PATIENCE}; at
    once if there is no replacement.

    @ivar old: the agent that stops.
    """

    def __init__(self, old: Agent, new: Agent | None, clock: IReactorTime) -> None:
        self.old = old
        self._new = new
        self._clock = clock
        self._began = clock.seconds()
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock
        self._leaving: Deferred[None] | None = None
        self._ended: Deferred[None] = Deferred()

    def begin(self) -> Deferred[None]:
        """
        Start it.

        @return: fires when the old agent has stopped.
        """
        if self._new is None:
            self.hurry()
        else:
            self._loop.start(LOOKS, now=False)
        return self._ended

    def _look(self) -> None:
        new = self._new
        assert new is not None
        late = self._clock.seconds() - self._began >= PATIENCE
        if late or (new.wanted and new.serving >= new.wanted):
            if late:
                log.warn(
                    "agent of cluster {cluster}: not all connections of the agent that takes its place serve "
                    "after {seconds:g} s; the old ones are closed",
                    cluster=self.old.plan.config.cluster,
                    seconds=PATIENCE,
                )
            self.hurry()

    def hurry(self) -> Deferred[None]:
        """Stop the old agent now, but finish its requests in progress."""
        if self._leaving is None:
            self._stop()
            self._leaving = self.old.drain().addCallback(self._left)
        return self._ended

    def _stop(self) -> None:
        if self._loop.running:
            self._loop.stop()

    def _left(self, _: Any) -> None:
        self.old.stopService()
        if not self._ended.called:
            self._ended.callback(None)
