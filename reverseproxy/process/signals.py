"""What signals mean to the services of a process."""

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
    """What a service has to do with signals."""

    def cut_short(self) -> None:
        """While stopping, wait no longer for what is under way."""

    def reload(self) -> object:
        """Go on with the configuration, and the certificates, as they are in their files now."""

    def reopen_logs(self) -> None:
        """Open the log files anew, after something else has moved them away."""


class Signals:
    """
    The signals of a process, in which there may be several services.

    SIGTERM and SIGINT stop the reactor, and when they come again nothing is
    waited for any more; SIGUSR1 and SIGHUP are for every service.
    """

    def __init__(self, reactor: Callable[[], Any]) -> None:
        """@param reactor: gets the reactor that the process runs."""
        self._reactor = reactor
        self._services: list[ISignalled] = []
        self._asked_to_stop = False

    def on(self, number: int, call: Callable[[], object]) -> None:
        """Call something in the reactor's loop when a signal comes."""
        signal.signal(number, lambda *_: self._reactor().callFromThread(call))

    def add(self, service: ISignalled) -> None:
        """Tell a service of signals from now on."""
        if service not in self._services:
            self._services.append(service)
        for number in (signal.SIGTERM, signal.SIGINT):
            self.on(number, self.terminate)
        self.on(signal.SIGUSR1, partial(self._tell, "reopen_logs"))
        self.on(signal.SIGHUP, partial(self._tell, "reload"))

    def take_sigterm(self) -> None:
        """
        Take SIGTERM from the reactor, which has a handler of its own once it has started.

        With that one twistd would end by SIGTERM itself; this is a normal end,
        with status 0 (docs/mosn.rst 7).
        """
        self._reactor().addSystemEventTrigger("after", "startup", self.on, signal.SIGTERM, self.terminate)

    def remove(self, service: ISignalled) -> None:
        """Tell it no more: it has stopped."""
        if service in self._services:
            self._services.remove(service)
        self._asked_to_stop = self._asked_to_stop and bool(self._services)

    def _tell(self, method: str) -> None:
        for service in list(self._services):
            getattr(service, method)()

    def terminate(self) -> None:
        """Let everything finish and stop; the second time, wait for nothing."""
        if self._asked_to_stop:
            self._tell("cut_short")
            return
        log.info("asked to stop by a signal")
        if self._reactor().running:
            self._asked_to_stop = True
            with suppress(ReactorNotRunning):  # it stops already, as another process has taken its place
                self._reactor().stop()
