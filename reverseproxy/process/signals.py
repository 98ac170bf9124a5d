"""Handle the signals of a process, for all of its services."""

from __future__ import annotations

__all__ = ["ISignalled", "Signals"]

import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger

log = Logger()


class ISignalled(Protocol):
    """A service that reacts to signals."""

    def cut_short(self) -> None:
        """While stopping, abort what is still under way."""

    def reload(self) -> object:
        """Reload the configuration and the certificates."""

    def reopen_logs(self) -> None:
        """Reopen the log files, after log rotation has moved them."""


class Signals:
    """
    The signals of a process with one or more services.

    SIGTERM and SIGINT stop the reactor; the second one aborts what is still under way.
    SIGUSR1 and SIGHUP go to every service.
    """

    def __init__(self, reactor: Callable[[], Any]) -> None:
        """@param reactor: returns the reactor that runs the process."""
        self._reactor = reactor
        self._services: list[ISignalled] = []
        self._asked_to_stop = False

    def on(self, number: int, call: Callable[[], object]) -> None:
        """Call a function in the reactor's loop when a signal arrives."""
        signal.signal(number, lambda *_: self._reactor().callFromThread(call))

    def add(self, service: ISignalled) -> None:
        """Let a service react to signals."""
        if service not in self._services:
            self._services.append(service)
        for number in (signal.SIGTERM, signal.SIGINT):
            self.on(number, self.terminate)
        self.on(signal.SIGUSR1, partial(self._tell, "reopen_logs"))
        self.on(signal.SIGHUP, partial(self._tell, "reload"))

    def take_sigterm(self) -> None:
        """
        Replace the reactor's handler of SIGTERM once the reactor has started.

        With the reactor's, twistd would end by SIGTERM itself; with ours it ends with
        status 0 (docs/mosn.rst 7).
        """
        self._reactor().addSystemEventTrigger("after", "startup", self.on, signal.SIGTERM, self.terminate)

    def remove(self, service: ISignalled) -> None:
        """Remove a service that has stopped."""
        if service in self._services:
            self._services.remove(service)
        self._asked_to_stop = self._asked_to_stop and bool(self._services)

    def _tell(self, method: str) -> None:
        for service in list(self._services):
            getattr(service, method)()

    def terminate(self) -> None:
        """Stop gracefully; the second time, at once."""
        if self._asked_to_stop:
            self._tell("cut_short")
            return
        log.info("asked to stop by a signal")
        if self._reactor().running:
            self._asked_to_stop = True
            with suppress(ReactorNotRunning):  # it is stopping, as another process has taken over
                self._reactor().stop()
