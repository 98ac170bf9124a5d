"""
Whom operators keep out, in all workers alike.

Whatever a worker hears of that, from an operator or from another server of the fleet, it
tells the supervisor, which tells the others.  Decided in one worker, it is told by each of
them to the servers that have linked to it.  A worker that is started anew gets all of it
before it lets anybody in.

    supervisor                                      worker
                                                    {"is": "kept_out", "decided": true, "keep_out": [...]}
    {"do": "keep_out", "decided": true, ...}        the same for the others
                                                    {"is": "let_in", "decided": true, "let_in": [...], ...}
    {"do": "let_in", "decided": true, ...}
"""

from __future__ import annotations

__all__ = ["ExclusionDesk", "report", "take"]

from collections.abc import Callable, Sequence
from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from reverseproxy.tunnel.server.exclusions import Exclusion, Exclusions, Lifted
from reverseproxy.workers.messages import Message

log = Logger()


def report(exclusions: Exclusions, say: Callable[[Message], object]) -> None:
    """
    Let a worker tell its supervisor whom it keeps out.

    @param say: tells the supervisor something.
    """

    def changed(change: Exclusion | Lifted, decided: bool) -> None:
        kind = "let_in" if isinstance(change, Lifted) else "kept_out"
        say({"is": kind, "decided": decided, **change.to_json(exclusions.seconds())})

    exclusions.on_change = changed


def take(exclusions: Exclusions, message: Message) -> bool:
    """
    Let a process know what a worker has heard.

    @return: whether that is new.
    """
    try:
        return exclusions.take(_change(message, exclusions.seconds()), message["decided"])
    except ValueError as error:
        log.error("whom another worker keeps out is not kept out here: {error}", error=str(error))
        return False


def _change(message: Message, now: float) -> Exclusion | Lifted:
    if "let_in" in message:
        return Lifted.from_json(message, now)
    return Exclusion.from_json(message, now)


class IWorkerChannel(Protocol):
    """A worker's place."""

    def send(self, message: Message) -> None:
        """Tell it something, if there is a worker."""


class ExclusionDesk:
    """The supervisor's part: knows what all workers have to know."""

    def __init__(self, places: Sequence[IWorkerChannel], clock: IReactorTime) -> None:
        """
        @param places: those of all workers.
        """
        self._places = places
        self._exclusions = Exclusions(clock.seconds)

    def started(self, place: IWorkerChannel) -> None:
        """Tell a worker that has been started what there is, before it accepts anything."""
        now = self._exclusions.seconds()
        for lifted in self._exclusions.lifted:
            place.send({"do": "let_in", "decided": False, **lifted.to_json(now)})
        for exclusion in self._exclusions:
            place.send({"do": "keep_out", "decided": False, **exclusion.to_json(now)})

    def received(self, place: IWorkerChannel, message: Message) -> None:
        """
        Pass on what a worker has heard, or what was decided there.

        What is no news was passed on before; but not that it was decided here, if it was heard first.
        """
        if not take(self._exclusions, message) and not message["decided"]:
            return
        kind = "let_in" if message["is"] == "let_in" else "keep_out"
        told = {name: value for name, value in message.items() if name != "is"}
        for each in self._places:
            if each is not place:
                each.send({"do": kind, **told})
