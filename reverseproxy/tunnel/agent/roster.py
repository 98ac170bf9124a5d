"""
Which of an agent's connections to a server serve, and which wait.

Known at once, however many there are: each change of ten thousand connections
that asked all the others would be a hundred million questions.
"""

from __future__ import annotations

__all__ = ["Roster"]

from reverseproxy.tunnel.agent.slot import SlotState


class Roster:
    """
    The states of slots, by number.

    @ivar serving: how many serve.
    """

    def __init__(self) -> None:
        self._serving: set[int] = set()
        self._waiting: set[int] = set()

    @property
    def serving(self) -> int:
        """How many serve."""
        return len(self._serving)

    def note(self, number: int, state: SlotState) -> None:
        """A slot has a new state."""
        if state is SlotState.SERVING:
            self._serving.add(number)
        else:
            self._serving.discard(number)
        if state is SlotState.WAITING:
            self._waiting.add(number)
        else:
            self._waiting.discard(number)

    def take_waiting(self) -> list[int]:
        """
        Which slots have begun to wait since this was asked before, and still do.

        Each wait is told of once.
        """
        if not self._waiting:
            return []
        waiting = sorted(self._waiting)
        self._waiting.clear()
        return waiting
