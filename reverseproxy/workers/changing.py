"""Change the configuration of all running workers, or of none: a two-phase commit."""

from __future__ import annotations

__all__ = ["ConfigChange"]

from collections.abc import Sequence
from itertools import count
from socket import socket
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from reverseproxy.problems import DOCUMENT, Problem
from reverseproxy.workers.change_phase import ChangePhase
from reverseproxy.workers.handover import Handed, send
from reverseproxy.workers.messages import Message
from reverseproxy.workers.slots import Slot


class ConfigChange:
    """Lets workers prepare another configuration, and then commit or discard it."""

    def __init__(self, slots: Sequence[Slot], clock: IReactorTime) -> None:
        self._slots = slots
        self._clock = clock
        self._turn: ChangePhase | None = None
        self._turns = count(1)

    @property
    def under_way(self) -> bool:
        """Whether a change is under way."""
        return self._turn is not None

    def prepare(self, handed: Handed, opened: list[socket]) -> Deferred[list[Problem]]:
        """
        Let all ready workers prepare another configuration.

        @param opened: the new sockets.
        @return: fires with the problems that workers have found.
        """
        number = next(self._turns)
        there = [slot for slot in self._slots if slot.ready and slot.handover is not None]
        turn = self._turn = ChangePhase(number, [slot.name for slot in there], self._clock)
        for slot in there:
            assert slot.handover is not None
            try:
                descriptors = send(slot.handover, handed, opened)
            except OSError as error:
                problem = Problem.at(DOCUMENT, f"worker {slot.name}: {error}")
                turn.prepared(slot.name, {"turn": number, "problems": [problem.to_message()]})
            else:
                slot.send({"do": "prepare", "turn": number, "descriptors": descriptors})
        return turn.wait()

    def discard(self) -> None:
        """Let workers discard the prepared configuration."""
        turn, self._turn = self._turn, None
        if turn is not None:
            for slot in self._slots:
                slot.send({"do": "discard", "turn": turn.number})

    def commit(self) -> tuple[set[int], Deferred[list[Problem]]]:
        """
        Let workers use the prepared configuration.

        @return: the names of these workers; and a Deferred that fires when all of them have done so,
            with the problems of those that have not.
        """
        prepared = self._turn
        assert prepared is not None
        turn = self._turn = ChangePhase(prepared.number, prepared.ready, self._clock)
        for slot in self._slots:
            slot.send({"do": "commit", "turn": turn.number})
        return set(prepared.ready), turn.wait().addBoth(self._committed, turn)

    def _committed(self, result: Any, turn: ChangePhase) -> Any:
        if self._turn is turn:
            self._turn = None
        return result

    def said(self, worker: int, message: Message) -> None:
        """Record that a worker has prepared or committed."""
        if self._turn is not None:
            self._turn.prepared(worker, message)

    def gone(self, worker: int) -> None:
        """Wait no longer for a worker that has ended."""
        if self._turn is not None:
            self._turn.gone(worker)
