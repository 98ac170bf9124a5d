"""
Bans of agents, the same in all workers.

A worker reports every change, from an operator or from another server of the fleet, to the
supervisor, which forwards it to the other workers.  Each of them tells the servers that are
connected to it.  A worker that is started later gets all bans before it accepts agents.

    supervisor                                      worker
                                                    {"is": "kept_out", "decided": true, "keep_out": [...]}
    {"do": "keep_out", "decided": true, ...}        the same for the others
                                                    {"is": "let_in", "decided": true, "let_in": [...], ...}
    {"do": "let_in", "decided": true, ...}
"""

from __future__ import annotations

__all__ = ["SupervisorExclusions", "report", "take"]

from collections.abc import Callable, Sequence
from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from reverseproxy.tunnel.server.exclusion_records import Exclusion, Lifted
from reverseproxy.tunnel.server.exclusions import Exclusions
from reverseproxy.workers.messages import Message

log = Logger()


def report(exclusions: Exclusions, say: Callable[[Message], object]) -> None:
    """
    Let a worker report its bans to the supervisor.

    @param say: sends the supervisor a message.
    """

    def changed(change: Exclusion | Lifted, decided: bool) -> None:
        kind = "let_in" if isinstance(change, Lifted) else "kept_out"
        say({"is": kind, "decided": decided, **change.to_json(exclusions.seconds())})

    exclusions.on_change = changed


def take(exclusions: Exclusions, message: Message) -> bool:
    """
    Apply a change that another worker has reported.

    @return: whether it is new.
    """
    try:
        return exclusions.take(_change(message, exclusions.seconds()), message["decided"])
    except ValueError as error:
        log.error("a ban by another worker can't be applied here: {error}", error=str(error))
        return False


def _change(message: Message, now: float) -> Exclusion | Lifted:
    if "let_in" in message:
        return Lifted.from_json(message, now)
    return Exclusion.from_json(message, now)


class IWorkerChannel(Protocol):
    """Sends messages to one worker."""

    def send(self, message: Message) -> None:
        """Send a message, if the worker runs."""


class SupervisorExclusions:
    """
    The supervisor's copy of all bans.

    Its length is the number of bans that hold.
    """

    def __init__(self, workers: Sequence[IWorkerChannel], clock: IReactorTime) -> None:
        """
        @param workers: all of them.
        """
        self._workers = workers
        self._exclusions = Exclusions(clock.seconds)

    def __len__(self) -> int:
        return len(self._exclusions)

    def started(self, place: IWorkerChannel) -> None:
        """Send all bans to a worker that has been started, before it accepts connections."""
        now = self._exclusions.seconds()
        for lifted in self._exclusions.lifted:
            place.send({"do": "let_in", "decided": False, **lifted.to_json(now)})
        for exclusion in self._exclusions:
            place.send({"do": "keep_out", "decided": False, **exclusion.to_json(now)})

    def received(self, place: IWorkerChannel, message: Message) -> None:
        """
        Forward a change to the other workers.

        A known ban is forwarded again only if it is the decision of an operator of this server,
        which the others may have heard of as another server's before.
        """
        if not take(self._exclusions, message) and not message["decided"]:
            return
        kind = "let_in" if message["is"] == "let_in" else "keep_out"
        told = {name: value for name, value in message.items() if name != "is"}
        for each in self._workers:
            if each is not place:
                each.send({"do": kind, **told})
