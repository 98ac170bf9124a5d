"""The places of workers: who has one at present, how far he is, and what is told to him."""

from __future__ import annotations

__all__ = ["FIRST_PAUSE", "LONGEST_PAUSE", "STABLE", "Slot", "WorkerState", "how_ended"]

import signal
import socket
from contextlib import suppress
from enum import Enum
from typing import Any, Final

from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from reverseproxy.config.loader import Loaded
from reverseproxy.workers.control import Control
from reverseproxy.workers.messages import Message

FIRST_PAUSE: Final = 0.1
"""Seconds before a worker is started again, which double each time it ends soon again."""

LONGEST_PAUSE: Final = 30.0
"""The most that they come to."""

STABLE: Final = 60.0
"""Seconds after which a worker that ends has not ended soon."""


class WorkerState(Enum):
    """
    How far a worker is.

    @cvar AWAY: it does not run; it will be started again, unless all are to end.
    @cvar STARTING: it runs, and is not ready yet.
    @cvar READY: it accepts connections.
    @cvar LEAVING: it finishes what is under way, and then ends.
    @cvar DRAINED: it has finished that, and waits for the others to do so.
    """

    AWAY = "away"
    STARTING = "starting"
    READY = "ready"
    LEAVING = "leaving"
    DRAINED = "drained"


class Slot:
    """
    A worker's place, whoever has it at present.

    @ivar number: from 0.
    @ivar state: how far the worker is.
    @ivar control: the channel to the worker.
    @ivar process: its process, while that runs.
    @ivar pid: the number of that process, or of the last one.
    @ivar failures: how often it has ended soon, in a row.
    @ivar restarts: how often it was started anew.
    @ivar started: when it was started the last time.
    @ivar restart: starts it again.
    @ivar handover: carries configurations and sockets to it.
    @ivar loaded: the configuration that it has been started with, or has been told to go on with.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.state = WorkerState.AWAY
        self.control: Control | None = None
        self.process: Any = None
        self.pid = 0
        self.failures = 0
        self.restarts = 0
        self.started = 0.0
        self.restart: IDelayedCall | None = None
        self.handover: socket.socket | None = None
        self.loaded: Loaded | None = None

    @property
    def name(self) -> int:
        """Its number for people, who begin with 1."""
        return self.number + 1

    @property
    def ready(self) -> bool:
        """Whether the worker accepts connections."""
        return self.state is WorkerState.READY

    @property
    def answers(self) -> bool:
        """Whether the worker can be asked something, as it can while it has nothing to do any more."""
        return self.state in (WorkerState.READY, WorkerState.DRAINED)

    @property
    def needs_others(self) -> bool:
        """Whether the worker may still need agents of others for what is under way."""
        return self.process is not None and self.state is not WorkerState.DRAINED

    def close_handover(self) -> None:
        """Hand nothing over any more."""
        handover, self.handover = self.handover, None
        if handover is not None:
            handover.close()

    def send(self, message: Message) -> None:
        """Tell the worker something, if there is one."""
        if self.control is not None:
            self.control.send(message)

    def begin(self, now: float) -> None:
        """A worker is about to be started here."""
        self.restart = None
        self.started = now
        self.state = WorkerState.STARTING

    def end(self, now: float) -> None:
        """The worker has ended."""
        if self.control is not None:
            self.control.mute()
        self.process = self.control = None
        self.state = WorkerState.AWAY
        if now - self.started >= STABLE:
            self.failures = 0
        self.close_handover()

    @property
    def pause(self) -> float:
        """Seconds before it is to be started again."""
        return float(min(FIRST_PAUSE * 2 ** min(max(self.failures - 1, 0), 30), LONGEST_PAUSE))

    def start_never(self) -> None:
        """Start no worker here any more."""
        if self.restart is not None:
            self.restart.cancel()
            self.restart = None

    def kill(self) -> None:
        """End the worker by force, if there is one."""
        if self.process is not None:
            with suppress(ProcessExitedAlready):
                self.process.signalProcess("KILL")


def how_ended(reason: Failure) -> str:
    """Say how a process has ended; empty for a good end."""
    number = getattr(reason.value, "signal", None)
    if number is not None:
        with suppress(ValueError):
            return f"was ended by {signal.Signals(number).name}"
        return f"was ended by signal {number}"
    status = getattr(reason.value, "exitCode", None)
    return f"has ended with status {status}" if status else ""
