"""
From the start of a process to its end: whose place it takes, who takes its place, and who is told.

The service itself knows how to bind, how to serve and how to drain.  What is
here is for processes that twistd or twist runs.
"""

from __future__ import annotations

__all__ = ["IReplaceable", "Lifecycle"]

import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from reverseproxy.errors import ConfigError
from reverseproxy.problems import Place, Problem
from reverseproxy.process.inherited_sockets import AGENTS_PORT, INHERITED, ListenerSockets
from reverseproxy.process.service_manager import ServiceManager, handed_over
from reverseproxy.process.takeover import TakeoverClient, TakeoverFailed, TakeoverServer, take_over

log = Logger()


AGENTS_WAIT: Final = 30.0
"""Seconds for which ports that agents have brought are kept until they bring them again."""


class IReplaceable(Protocol):
    """A service whose place another process may take."""

    def bequeath(self) -> Iterable[ListenerSockets]:
        """Give the sockets that it listens on."""

    def claims(self) -> Iterable[dict[str, Any]]:
        """Say which routes agents have brought, as JSON has them."""

    def succeed(self) -> None:
        """Another process serves: nothing is listened on any more, and agents find it there."""


class _Program(ProcessProtocol):
    """The process that is started to take our place."""

    def processExited(self, reason: Failure) -> None:  # noqa: N802 - Twisted's name
        log.error(
            "the process that was to take our place has ended: {reason}", reason=reason.getErrorMessage()
        )


class Lifecycle:
    """
    One process.

    @ivar path: where processes find one another; empty if they don't.
    """

    def __init__(
        self, reactor: Any, service: IReplaceable, path: str = "", stop: Callable[[], object] | None = None
    ) -> None:
        """
        @param stop: ends the process gracefully; the reactor's, if not given.
        """
        self.path = path
        self._reactor = reactor
        self._service = service
        self._stop = reactor.stop if stop is None else stop
        self._manager = ServiceManager(reactor, os.environ)
        self._successor: TakeoverClient | None = None
        self._testator: TakeoverServer | None = None
        self._succeeded = False

    @property
    def takes_over(self) -> bool:
        """Whether there is a process whose place this one is about to take."""
        return self._successor is not None

    def begin(self) -> None:
        """
        Take what there is to take over, before anything is bound.

        @raise ConfigError: if there is somebody who should give, and does not.
        """
        handed = handed_over()
        INHERITED.add(handed)
        INHERITED.keeps = bool(handed or self.path)
        if not self.path:
            return
        try:
            self._successor = take_over(self.path)
        except TakeoverFailed as error:
            raise ConfigError(Problem.at(Place("--takeover"), str(error))) from None
        if self._successor is not None:
            INHERITED.add(self._successor.bequests)
            INHERITED.claims += self._successor.claims
            log.info(
                "taking the place of the process at {path}, with the sockets of {listeners}",
                path=self.path,
                listeners=", ".join(each.name for each in self._successor.bequests) or "no listener",
            )

    def bound(self) -> None:
        """All listeners of the configuration have what they need; agents may bring others, as before."""
        self._close(AGENTS_PORT)
        if self._successor is not None:
            self._reactor.callLater(AGENTS_WAIT, self._close)

    def _close(self, keep: str = "") -> None:
        for name in INHERITED.close(keep):
            log.info("nobody listens any more where {listener} did", listener=name or "systemd")

    def serves(self, status: str) -> None:
        """
        Everything serves: whoever was there before may end, and somebody may come after us.

        @param status: for people.
        """
        successor, self._successor = self._successor, None
        if self.path:
            self._testator = TakeoverServer(
                self.path, self._reactor, self._service.bequeath, self._end, self._service.claims
            )
            try:
                self._testator.start()
            except OSError as error:
                self._testator = None
                log.error(
                    "no other process can take our place: {path} can't be listened at: {reason}",
                    path=self.path,
                    reason=str(error),
                )
        # In this order: one that is told of the end of the old process must know of the new one.
        self._manager.ready(status, os.getpid() if successor is not None else 0)
        if successor is not None:
            successor.serves()

    def _end(self) -> None:
        """Another process serves in our place."""
        self._succeeded = True
        self._manager.forget()
        self._service.succeed()
        self._stop()

    def upgrade(self) -> None:
        """Start the program anew, as it is now, to take our place."""
        if self._testator is None or self._succeeded or not self._testator.open:
            log.error("nothing is started to take our place: that needs --takeover, and that this one serves")
            return
        command = [sys.executable, *sys.orig_argv[1:]]
        log.info("starting {command}, to take our place", command=" ".join(command))
        try:
            self._reactor.spawnProcess(
                _Program(), command[0], command, env=dict(os.environ), childFDs={0: 0, 1: 1, 2: 2}
            )
        except OSError as error:
            log.error("nothing could be started to take our place: {reason}", reason=str(error))

    def reloading(self) -> None:
        """The configuration is read again."""
        self._manager.reloading()

    def reloaded(self, status: str) -> None:
        """That is done, one way or the other."""
        self._manager.ready(status)

    def stopping(self) -> None:
        """The process ends; whoever is started now does not take its place, but finds it empty."""
        if not self._succeeded:
            if self._testator is not None:
                self._testator.stop()
            self._manager.stopping("finishing what is under way")

    def over(self) -> None:
        """Everything has ended."""
        if self._testator is not None:
            self._testator.stop()
        self._manager.close()
