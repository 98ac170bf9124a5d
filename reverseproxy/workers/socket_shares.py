"""
Which listening sockets each worker accepts from, and from when on.

Workers become ready one after the other.  The first one would accept the connections of all agents
that are dialling, and keep them, as those with streams can't move; the others would have none of their
own.  So none accepts before all have been ready once.

While a worker does not run, the others accept from its sockets.
"""

from __future__ import annotations

__all__ = ["PATIENCE", "SocketShares"]

from collections.abc import Sequence
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from reverseproxy.workers.slots import Slot

PATIENCE: Final = 10.0
"""Seconds after the start for which workers that are ready wait for the others."""


class SocketShares:
    """Tells workers which sockets to accept from."""

    def __init__(self, slots: Sequence[Slot], clock: IReactorTime) -> None:
        """
        @param slots: the slots of all workers.
        """
        self._slots = slots
        self._clock = clock
        self._opened = False
        self._timer: IDelayedCall | None = None

    def hold(self, patience: float | None) -> None:
        """
        Wait for all workers to be ready, from their start on.

        @param patience: see L{PATIENCE}; L{None} to wait for all of them however long that takes.
        """
        if patience is not None:
            self._timer = self._clock.callLater(patience, self._expire)

    def _expire(self) -> None:
        self._timer = None
        self._opened = True
        self.share_out()

    def open(self) -> None:
        """Let workers accept from now on, as soon as L{share_out} tells them."""
        self._opened = True
        self.stop()

    def stop(self) -> None:
        """Cancel the timer."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def of(self, slot: Slot) -> list[int]:
        """Return the numbers of a worker's sockets: its own, and those of workers that don't run."""
        if not self._opened:
            return []
        return [each.number for each in self._slots if each is slot or not each.ready]

    def share_out(self) -> None:
        """Tell all workers, after one has started or ended."""
        for slot in self._slots:
            slot.send({"do": "watch", "slots": self.of(slot)})
