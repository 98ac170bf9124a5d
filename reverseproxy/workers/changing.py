"""Workers that run go on with another configuration, all of them or none."""

from __future__ import annotations

__all__ = ["Changing"]

from collections.abc import Sequence
from itertools import count
from socket import socket
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from reverseproxy.problems import DOCUMENT, Problem
from reverseproxy.workers.handover import Handed, send
from reverseproxy.workers.messages import Message
from reverseproxy.workers.slots import Slot
from reverseproxy.workers.turns import Turn


class Changing:
    """Tells workers of another configuration, and waits for what they say."""

    def __init__(self, slots: Sequence[Slot], clock: IReactorTime) -> None:
        self._slots = slots
        self._clock = clock
        self._turn: Turn | None = None
        self._turns = count(1)

    @property
    def under_way(self) -> bool:
        """Whether workers are told of another configuration at present."""
        return self._turn is not None

    def prepare(self, handed: Handed, opened: list[socket]) -> Deferred[list[Problem]]:
        """
        Let all workers that are ready get ready to go on with another configuration.

        @param opened: the new sockets.
        @return: what is wrong with it.
        """
        number = next(self._turns)
        there = [slot for slot in self._slots if slot.ready and slot.handover is not None]
        turn = self._turn = Turn(number, [slot.name for slot in there], self._clock)
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
        """The configuration that workers are ready for is not wanted."""
        turn, self._turn = self._turn, None
        if turn is not None:
            for slot in self._slots:
                slot.send({"do": "discard", "turn": turn.number})

    def commit(self) -> tuple[set[int], Deferred[list[Problem]]]:
        """
        Let workers go on with the configuration that they are ready for.

        @return: who they are, by name; and what fires when all of them have, with nothing, else with
            those that have not.
        """
        prepared = self._turn
        assert prepared is not None
        turn = self._turn = Turn(prepared.number, prepared.ready, self._clock)
        for slot in self._slots:
            slot.send({"do": "commit", "turn": turn.number})
        return set(prepared.ready), turn.wait().addBoth(self._committed, turn)

    def _committed(self, result: Any, turn: Turn) -> Any:
        if self._turn is turn:
            self._turn = None
        return result

    def said(self, worker: int, message: Message) -> None:
        """A worker has said how far it is."""
        if self._turn is not None:
            self._turn.prepared(worker, message)

    def gone(self, worker: int) -> None:
        """A worker has ended."""
        if self._turn is not None:
            self._turn.gone(worker)
