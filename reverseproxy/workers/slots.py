"""Slots of workers: the present process of each, its state, and the channel to it."""

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

from reverseproxy import __version__
from reverseproxy.config.loader import Loaded
from reverseproxy.workers.control import OTHER_VERSION, Control
from reverseproxy.workers.messages import Message

FIRST_PAUSE: Final = 0.1
"""Seconds before the first restart of a worker; they double with each early end in a row."""

LONGEST_PAUSE: Final = 30.0
"""Seconds before a restart at the most."""

STABLE: Final = 60.0
"""Seconds of running after which an end does not count as early."""


class WorkerState(Enum):
    """
    The state of a worker.

    @cvar AWAY: it does not run; it will be restarted, unless all workers stop.
    @cvar STARTING: it runs, and is not ready yet.
    @cvar READY: it accepts connections.
    @cvar LEAVING: it finishes its requests, and then ends.
    @cvar DRAINED: it has finished its requests, and waits for the other workers.
    """

    AWAY = "away"
    STARTING = "starting"
    READY = "ready"
    LEAVING = "leaving"
    DRAINED = "drained"


class Slot:
    """
    The slot of a worker, for one process after the other.

    @ivar number: from 0.
    @ivar state: the state of the worker.
    @ivar control: the channel to the worker; L{None} if it does not run.
    @ivar process: its process; L{None} if it does not run.
    @ivar pid: the process id, also of the last process.
    @ivar failures: how many early ends there were in a row.
    @ivar restarts: how often it was restarted.
    @ivar started: when it was last started, in seconds of the reactor's clock.
    @ivar restart: the timer of the next restart.
    @ivar handover: carries configurations and sockets to it.
    @ivar loaded: the configuration that it uses, or was told to use.
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
        """Its number for people, from 1."""
        return self.number + 1

    @property
    def ready(self) -> bool:
        """Whether the worker accepts connections."""
        return self.state is WorkerState.READY

    @property
    def answers(self) -> bool:
        """Whether the worker answers questions."""
        return self.state in (WorkerState.READY, WorkerState.DRAINED)

    @property
    def needs_others(self) -> bool:
        """Whether requests of the worker may still need agents of other workers."""
        return self.process is not None and self.state is not WorkerState.DRAINED

    def close_handover(self) -> None:
        """Close the socket for configurations and sockets."""
        handover, self.handover = self.handover, None
        if handover is not None:
            handover.close()

    def send(self, message: Message) -> None:
        """Send the worker a message, if it runs."""
        if self.control is not None:
            self.control.send(message)

    def begin(self, now: float) -> None:
        """Record the start of a worker."""
        self.restart = None
        self.started = now
        self.state = WorkerState.STARTING

    def end(self, now: float) -> None:
        """Record the end of the worker."""
        if self.control is not None:
            self.control.mute()
        self.process = self.control = None
        self.state = WorkerState.AWAY
        if now - self.started >= STABLE:
            self.failures = 0
        self.close_handover()

    @property
    def pause(self) -> float:
        """Seconds before the next restart."""
        return float(min(FIRST_PAUSE * 2 ** min(max(self.failures - 1, 0), 30), LONGEST_PAUSE))

    def start_never(self) -> None:
        """Cancel the next restart."""
        if self.restart is not None:
            self.restart.cancel()
            self.restart = None

    def kill(self) -> None:
        """Kill the worker, if it runs."""
        if self.process is not None:
            with suppress(ProcessExitedAlready):
                self.process.signalProcess("KILL")


def how_ended(reason: Failure) -> str:
    """Describe how a process has ended, for the log; empty for status 0."""
    number = getattr(reason.value, "signal", None)
    if number is not None:
        with suppress(ValueError):
            return f"was ended by {signal.Signals(number).name}"
        return f"was ended by signal {number}"
    status = getattr(reason.value, "exitCode", None)
    if status == OTHER_VERSION:
        return (
            f"has ended with status {status}, as its code is not that of this supervisor, {__version__}: "
            "let the installed version take over"
        )
    return f"has ended with status {status}" if status else ""
