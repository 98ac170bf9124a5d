"""The shutdown of all workers, with SIGKILL after a deadline."""

from __future__ import annotations

__all__ = ["WorkersShutdown"]

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from reverseproxy.workers.slots import Slot

log = Logger("reverseproxy.workers.supervisor")


class WorkersShutdown:
    """
    Waits until all workers have ended.

    @ivar done: fires then.
    """

    def __init__(self, slots: Sequence[Slot], clock: IReactorTime) -> None:
        """
        @param slots: all workers; none is restarted from now on.
        """
        self.done: Deferred[None] = Deferred()
        self._slots = slots
        self._clock = clock
        self._deadline: IDelayedCall | None = None
        for slot in slots:
            slot.start_never()

    @property
    def over(self) -> bool:
        """Whether all workers have ended."""
        return all(slot.process is None for slot in self._slots)

    def within(self, seconds: float) -> None:
        """Kill those that are left after so many seconds."""
        self.wait_no_longer()
        if not self.over:
            self._deadline = self._clock.callLater(seconds, self._kill)

    def wait_no_longer(self) -> None:
        """Cancel the deadline."""
        deadline, self._deadline = self._deadline, None
        if deadline is not None:
            deadline.cancel()

    def _kill(self) -> None:
        """Kill workers that have not ended in time."""
        self._deadline = None
        for slot in self._slots:
            if slot.process is not None:
                log.error("worker {number} does not stop, and is killed", number=slot.name)
                slot.kill()
