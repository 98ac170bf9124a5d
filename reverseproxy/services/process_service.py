"""What the service of the main process does beside serving: log, signals, and taking over."""

from __future__ import annotations

__all__ = ["AGENTS_LOOK", "AGENTS_TIME", "ProcessService", "reopen", "take_level"]

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from twisted.application.service import IServiceCollection, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import ILogObserver, Logger, globalLogPublisher
from twisted.python.components import Componentized

from reverseproxy import __version__
from reverseproxy.config.models import Config
from reverseproxy.errors import ConfigError, Problem
from reverseproxy.logs import LogObserver
from reverseproxy.process.inherited_sockets import ListenerSockets
from reverseproxy.process.lifecycle import Lifecycle
from reverseproxy.process.reloading import Report
from reverseproxy.process.runners import DeduplicatingObserver
from reverseproxy.process.signals import Signals
from reverseproxy.services.exiting import exit_with, report_failed_start, standard_error

log = Logger(namespace="reverseproxy.tap")

AGENTS_TIME: Final = 10.0
"""Seconds that the agents of a process that takes over another one have to reach their servers."""

AGENTS_LOOK: Final = 0.05
"""Seconds between two checks whether they have."""


def reopen(observer: LogObserver) -> None:
    """Open a log file anew; if that fails, log it and keep the old one."""
    try:
        observer.reopen()
    except ConfigError as error:
        log.error("{reason}; the old log file stays in use", reason=str(error))


def take_level(observer: LogObserver, old: Config, new: Config) -> None:
    """Change the level of the log, if another configuration has a different one."""
    level = new.server.default_log_level
    if level != old.server.default_log_level:
        observer.level = level


if TYPE_CHECKING:

    class _Wrapped(Service):
        """What a L{ProcessService} precedes: a L{ReverseProxy} or a L{Supervisor}."""

        warnings: list[Problem]
        admin: Any
        cut_short: Callable[[], None]
        bequeath: Callable[[], list[ListenerSockets]]
        claims: Callable[[], list[dict[str, Any]]]
        succeed: Callable[[], None]

        def reload(self) -> Deferred[Report]: ...
        def reopen_logs(self) -> None: ...
        def setServiceParent(self, parent: IServiceCollection) -> None: ...
        def privilegedStartService(self) -> None: ...
        def startService(self) -> None: ...

else:
    _Wrapped = Service


class ProcessService(_Wrapped):
    """
    The part of a service that only the main process has: its log, its signals, and its successor.

    It comes before a L{ReverseProxy<reverseproxy.app.ReverseProxy>} or a
    L{Supervisor<reverseproxy.workers.supervisor.Supervisor>} among the bases of a class.

    @ivar main_reactor: the reactor that runs the process.
    @ivar signals: the signals of the process.
    @ivar observer: writes our log.
    @ivar beside: our observer, if twist writes a log of its own; else L{None}.
    @ivar runner: the options of what runs us.
    @ivar foreign: whether something other than twistd runs us.
    @ivar lifecycle: takes over another process, and is taken over.
    @ivar holding: whether a process that we take over still serves.
    @ivar notes: what is worth a line of the log about the configuration.
    @ivar describe: says what has been started, given the address of the admin API or L{None}.
    @ivar summary: what has been started, in lines of text.
    """

    main_reactor: Any
    signals: Signals
    observer: LogObserver
    beside: DeduplicatingObserver | None = None
    runner: Mapping[str, Any] = MappingProxyType({})
    foreign = False
    lifecycle: Lifecycle
    holding = False
    notes: tuple[Problem, ...] = ()
    describe: Callable[[str | None], list[str]] = staticmethod(lambda admin: [])
    summary: Sequence[str] = ()

    def setServiceParent(self, parent: IServiceCollection) -> None:
        """Join an application, and let twistd log with our observer: it begins to log after this."""
        if isinstance(parent, Componentized):
            Componentized.setComponent(parent, ILogObserver, self.observer)
        super().setServiceParent(parent)

    def privilegedStartService(self) -> None:
        """
        Handle signals, log warnings, take over another process, and bind.

        @raise SystemExit: with status 1, if something can't be bound or taken over.
        """
        # Before anything is bound: who can see that we run may also send us a signal.
        self.signals.add(self)
        if self.beside is not None:
            globalLogPublisher.addObserver(self.beside)
            self.main_reactor.callWhenRunning(self.beside.begun)
        for warning in self.warnings:
            # Not called a warning: Twisted's own observers take such a field for Python's.
            log.warn("{problem}", problem=str(warning))
        for note in self.notes:
            log.info("{problem}", problem=str(note))
        try:
            self.lifecycle.begin()
            self.holding = self.lifecycle.takes_over
            super().privilegedStartService()
            self.lifecycle.bound()
        except ConfigError as error:
            # Before logging has begun, Twisted writes what is critical to standard error.
            log.critical("{reason}", reason=str(error))
            report_failed_start(self.runner, error.problems[0].message)
            exit_with(standard_error(), "" if self.foreign else f"{error}\n", 1)

    def startService(self) -> None:
        """Start, and log what has been started."""
        super().startService()
        self.signals.take_sigterm()
        self.summary = self.describe(None if self.admin is None else self.admin.listener.bound)
        for number, line in enumerate(self.summary):
            # The process is known only now: twistd forks before this.
            who = "" if number else f"reverseproxy {__version__}, process {os.getpid()}; "
            log.info("{who}{line}", who=who, line=line)
        self.signals.on(signal.SIGUSR2, self.lifecycle.upgrade)

    def serves(self) -> None:
        """Report that everything has been started."""
        self.lifecycle.serves(self.status)

    @property
    def status(self) -> str:
        """Return what the process does, for people."""
        return self.summary[0] if self.summary else ""

    def reload(self) -> Deferred[Report]:
        """Read the configuration again, and use it."""
        self.lifecycle.reloading()
        done = super().reload()

        def reloaded(report: Any) -> Any:
            self.lifecycle.reloaded(self.status)
            return report

        return done.addBoth(reloaded)

    def stopService(self) -> Any:
        """Finish what is under way, and stop."""
        self.lifecycle.stopping()
        stopped = maybeDeferred(super().stopService)
        return stopped.addBoth(self._stopped)

    def _stopped(self, result: Any) -> Any:
        self.signals.remove(self)
        self.lifecycle.over()
        if self.beside is not None:
            globalLogPublisher.removeObserver(self.beside)
        return result

    def reopen_logs(self) -> None:
        """Open the log files anew, after log rotation has moved them away."""
        reopen(self.observer)
        super().reopen_logs()
