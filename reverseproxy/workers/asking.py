"""Requests of the supervisor to its workers, and their responses."""

from __future__ import annotations

__all__ = ["ANSWER_TIMEOUT", "Inquiry", "WorkerAnswer"]

from collections.abc import Iterable, Mapping
from itertools import count
from typing import Any, Final, NamedTuple, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from reverseproxy.workers.messages import Message

ANSWER_TIMEOUT: Final = 5.0
"""Seconds that a worker has to answer."""

MAX_OPEN: Final = 1000
"""Concurrent questions, so that a worker that hangs does not collect them without a limit."""


class WorkerAnswer(NamedTuple):
    """
    The answer of a worker.

    @ivar worker: its number, from 1.
    @ivar problem: why there is no answer; else empty.
    """

    worker: int
    value: Any
    problem: str = ""


class Asked(Protocol):
    """A worker that can be asked."""

    @property
    def name(self) -> int:
        """Its number, from 1."""

    def send(self, message: Message) -> None:
        """Send it a message."""


class Inquiry:
    """Asks workers questions, and collects their answers."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._numbers = count(1)
        self._open: dict[tuple[int, int], Deferred[Any]] = {}

    def ask(
        self, workers: Iterable[Asked], question: str, arguments: Mapping[str, Any]
    ) -> Deferred[list[WorkerAnswer]]:
        """
        Ask several workers the same question.

        @return: their answers, in the order of the workers; never fails.
        """
        return Deferred.fromCoroutine(self._ask(list(workers), question, arguments))

    async def _ask(
        self, workers: list[Asked], question: str, arguments: Mapping[str, Any]
    ) -> list[WorkerAnswer]:
        number = next(self._numbers)
        waiting = [self._one(worker, number, question, arguments) for worker in workers]
        return [await each for each in waiting]

    def _one(
        self, worker: Asked, number: int, question: str, arguments: Mapping[str, Any]
    ) -> Deferred[WorkerAnswer]:
        if len(self._open) >= MAX_OPEN:
            return succeed(WorkerAnswer(worker.name, None, "too many questions are open"))
        key = (worker.name, number)
        waiting: Deferred[Any] = Deferred()
        self._open[key] = waiting
        waiting.addTimeout(ANSWER_TIMEOUT, self._clock)

        def done(result: Any) -> WorkerAnswer:
            self._open.pop(key, None)
            if isinstance(result, WorkerAnswer):
                return result
            return WorkerAnswer(worker.name, None, f"no answer within {ANSWER_TIMEOUT:g} s")

        waiting.addBoth(done)
        worker.send({"do": "answer", "number": number, "question": question, "arguments": dict(arguments)})
        return waiting

    def answered(self, worker: int, message: Message) -> None:
        """Deliver the answer of a worker; a late one is dropped."""
        waiting = self._open.pop((worker, message["number"]), None)
        if waiting is not None:
            waiting.callback(WorkerAnswer(worker, message.get("value"), message.get("problem", "")))

    def gone(self, worker: int) -> None:
        """Fail the open questions to a worker that has ended."""
        for key in [key for key in self._open if key[0] == worker]:
            self._open.pop(key).callback(WorkerAnswer(worker, None, "the worker has ended"))
