"""
The life of a process that twistd or twist runs: take over, serve, be taken over, stop.

It notifies the service manager of each step.  The service itself binds, serves and drains.
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
"""Seconds for which ports that agents have brought stay bound until the agents reconnect."""


class IReplaceable(Protocol):
    """A service that another process may take over."""

    def bequeath(self) -> Iterable[ListenerSockets]:
        """Return duplicates of its listening sockets."""

    def claims(self) -> Iterable[dict[str, Any]]:
        """Return the routes that agents have brought, as JSON."""

    def succeed(self) -> None:
        """Leave the addresses to the other process, which serves now."""


class _Successor(ProcessProtocol):
    """The process that was started to take over from this one."""

    def processExited(self, reason: Failure) -> None:  # noqa: N802 - Twisted's name
        log.error(
            "the process that was to take our place has ended: {reason}", reason=reason.getErrorMessage()
        )


class Lifecycle:
    """
    The life of one process.

    @ivar path: the Unix socket for takeovers; empty for none.
    """

    def __init__(
        self, reactor: Any, service: IReplaceable, path: str = "", stop: Callable[[], object] | None = None
    ) -> None:
        """
        @param stop: stops the process gracefully; C{reactor.stop}, if not given.
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
        """Whether this process is taking over another one."""
        return self._successor is not None

    def begin(self) -> None:
        """
        Inherit sockets and routes, before anything is bound.

        @raise ConfigError: if the other process does not give its sockets.
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
        """Close inherited sockets that no listener needs; those of agents' ports stay for L{AGENTS_WAIT}."""
        self._close(AGENTS_PORT)
        if self._successor is not None:
            self._reactor.callLater(AGENTS_WAIT, self._close)

    def _close(self, keep: str = "") -> None:
        for name in INHERITED.close(keep):
            log.info(
                "closing the inherited sockets of {listener}, which no listener uses",
                listener=name or "systemd",
            )

    def serves(self, status: str) -> None:
        """
        Report that everything serves: the old process may end, and another one may take over.

        @param status: a text for people.
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
        # In this order, so that the service manager knows the new process before the old one ends.
        self._manager.ready(status, os.getpid() if successor is not None else 0)
        if successor is not None:
            successor.serves()

    def _end(self) -> None:
        """Stop, as another process has taken over."""
        self._succeeded = True
        self._manager.forget()
        self._service.succeed()
        self._stop()

    def upgrade(self) -> None:
        """Start the program as it is installed now, to take over from this process."""
        if self._testator is None or self._succeeded or not self._testator.open:
            log.error("nothing is started to take our place: that needs --takeover, and that this one serves")
            return
        command = [sys.executable, *sys.orig_argv[1:]]
        log.info("starting {command}, to take our place", command=" ".join(command))
        try:
            self._reactor.spawnProcess(
                _Successor(), command[0], command, env=dict(os.environ), childFDs={0: 0, 1: 1, 2: 2}
            )
        except OSError as error:
            log.error("nothing could be started to take our place: {reason}", reason=str(error))

    def reloading(self) -> None:
        """Report the beginning of a reload."""
        self._manager.reloading()

    def reloaded(self, status: str) -> None:
        """Report the end of a reload, successful or not."""
        self._manager.ready(status)

    def stopping(self) -> None:
        """Report that the process stops; a process that starts now can't take over from it."""
        if not self._succeeded:
            if self._testator is not None:
                self._testator.stop()
            self._manager.stopping("finishing what is under way")

    def over(self) -> None:
        """Release everything, at the end."""
        if self._testator is not None:
            self._testator.stop()
        self._manager.close()
