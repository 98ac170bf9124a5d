"""
All workers go on with another configuration, or none does.

First each of them gets ready, and says whether it could.  If all could, each is told
to go on with it, which can't fail any more.
"""

from __future__ import annotations

__all__ = ["PATIENCE", "Turn"]

from collections.abc import Iterable
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from reverseproxy.problems import DOCUMENT, Problem
from reverseproxy.workers.messages import Message

PATIENCE: Final = 60.0
"""Seconds in which every worker has to be ready for another configuration."""


class Turn:
    """
    Waits until all workers are ready.

    @ivar number: tells this turn from others.
    @ivar ready: the workers that have got ready.
    """

    def __init__(self, number: int, workers: Iterable[int], clock: IReactorTime) -> None:
        """
        @param workers: those that have been asked.
        """
        self.number = number
        self.ready: set[int] = set()
        self._awaited = set(workers)
        self._problems: list[Problem] = []
        self._done: Deferred[list[Problem]] = Deferred()
        self._deadline: IDelayedCall | None = clock.callLater(PATIENCE, self._late)

    def wait(self) -> Deferred[list[Problem]]:
        """
        Wait for them.

        @return: what is wrong, each with its place in the document; nothing if all are ready.
        """
        if not self._awaited:
            self._end()
        return self._done

    def prepared(self, worker: int, message: Message) -> None:
        """A worker has said how far it is."""
        if message.get("turn") != self.number or worker not in self._awaited:
            return
        for problem in map(Problem.from_message, message.get("problems", ())):
            if problem not in self._problems:
                self._problems.append(problem)
        self.ready.add(worker)
        self.gone(worker)

    def gone(self, worker: int) -> None:
        """A worker is not waited for any more: it is ready, or another one takes its place."""
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
