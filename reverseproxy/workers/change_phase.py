"""
One phase of a change of configuration: all workers have prepared it, or committed it.

First each worker prepares the configuration, and reports problems.  If there are none, each
commits it, which can't fail any more.
"""

from __future__ import annotations

__all__ = ["PATIENCE", "ChangePhase"]

from collections.abc import Iterable
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from reverseproxy.problems import DOCUMENT, Problem
from reverseproxy.workers.messages import Message

PATIENCE: Final = 60.0
"""Seconds that workers have for a phase."""


class ChangePhase:
    """
    Waits for the answers of all workers.

    @ivar number: the number of the change.
    @ivar ready: the workers that have answered.
    """

    def __init__(self, number: int, workers: Iterable[int], clock: IReactorTime) -> None:
        """
        @param workers: the names of the workers that have been asked.
        """
        self.number = number
        self.ready: set[int] = set()
        self._awaited = set(workers)
        self._problems: list[Problem] = []
        self._done: Deferred[list[Problem]] = Deferred()
        self._deadline: IDelayedCall | None = clock.callLater(PATIENCE, self._late)

    def wait(self) -> Deferred[list[Problem]]:
        """
        Wait for all answers.

        @return: fires with the problems, each with its place in the document.
        """
        if not self._awaited:
            self._end()
        return self._done

    def prepared(self, worker: int, message: Message) -> None:
        """Record the answer of a worker."""
        if message.get("turn") != self.number or worker not in self._awaited:
            return
        for problem in map(Problem.from_message, message.get("problems", ())):
            if problem not in self._problems:
                self._problems.append(problem)
        self.ready.add(worker)
        self.gone(worker)

    def gone(self, worker: int) -> None:
        """Wait no longer for a worker that has answered or ended."""
        self._awaited.discard(worker)
        if not self._awaited:
            self._end()

    def _late(self) -> None:
        self._deadline = None
        for worker in sorted(self._awaited):
            reason = f"worker {worker} was not ready for it within {PATIENCE:g} s"
            self._problems.append(Problem.at(DOCUMENT, reason))
        self._end()

    def _end(self) -> None:
        deadline, self._deadline = self._deadline, None
        if deadline is not None:
            deadline.cancel()
        if not self._done.called:
            self._done.callback(self._problems)
