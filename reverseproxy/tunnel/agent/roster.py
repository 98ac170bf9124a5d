"""
The states of an agent's connections to a server, counted as they change.

With ten thousand connections, a scan of all of them at each change would take a hundred million steps.
"""

from __future__ import annotations

__all__ = ["Roster"]

from reverseproxy.tunnel.agent.slot_interfaces import SlotState


class Roster:
    """
    Which slots serve, and which wait.

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
        """Note the new state of a slot."""
        if state is SlotState.SERVING:
            self._serving.add(number)
        else:
            self._serving.discard(number)
        if state is SlotState.WAITING:
            self._waiting.add(number)
        else:
            self._waiting.discard(number)

    def take_waiting(self) -> list[int]:
        """Return the slots that have begun to wait since the last call, and still do."""
        if not self._waiting:
            return []
        waiting = sorted(self._waiting)
        self._waiting.clear()
        return waiting
