"""The service of a worker, and the process around it."""

from __future__ import annotations

__all__ = ["WorkerService", "owner_of", "run_worker"]

import os
import pwd
import signal
import socket
import sys
from collections.abc import Mapping
from functools import partial
from random import SystemRandom
from typing import Any

from twisted.logger import globalLogBeginner
from twisted.python.util import switchUID

from reverseproxy.app import ReverseProxy
from reverseproxy.errors import ConfigError
from reverseproxy.logs import LogObserver, make_observer
from reverseproxy.process.signals import Signals
from reverseproxy.services import quickstart
from reverseproxy.services.exiting import exit_with
from reverseproxy.services.process_service import reopen, take_level
from reverseproxy.services.reactor import prepare_reactor
from reverseproxy.workers.control import Setup
from reverseproxy.workers.worker import Worker


class WorkerService(ReverseProxy):
    """
    The service of a worker.

    @ivar main_reactor: the reactor that runs the process.
    @ivar observer: writes the log.
    """

    main_reactor: Any
    observer: LogObserver

    def terminate(self) -> None:
        """Finish what is under way, and end."""
        reactor = self.main_reactor
        if reactor.running:
            reactor.stop()
        else:
            reactor.callWhenRunning(self.terminate)

    def reopen_logs(self) -> None:
        """Open the log files anew, after log rotation has moved them away."""
        reopen(self.observer)
        super().reopen_logs()


def owner_of(user: Mapping[str, Any]) -> tuple[int, int] | None:
    """
    Return the user and the group that twistd was told to become.

    @param user: the options C{uid} and C{gid} of twistd.
    @return: -1 for a user that stays; L{None} if both stay.
    """
    uid, gid = user["uid"], user["gid"]
    if uid is None and gid is None:
        return None
    if gid is None:
        gid = pwd.getpwuid(uid).pw_gid
    return -1 if uid is None else uid, gid


def run_worker(setup: Setup, channel: socket.socket, main_reactor: Any, signals: Signals) -> None:
    """
    Run a worker until it is told to end.

    As twistd does, it gives up its privileges between building and running.

    @param channel: to the supervisor.
    @param main_reactor: runs the process; it must not run yet.
    """
    settings = setup.settings
    # Ctrl-C reaches all processes of a terminal, and is the supervisor's business.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    worker = setup.number + 1
    try:
        reactor = prepare_reactor(main_reactor, settings["transport"])
        own = Worker(setup, channel, reactor)
        service = WorkerService(
            setup.loaded.config,
            reactor,
            SystemRandom(),
            setup.file,
            worker=own,
        )
        path, level, fmt, per_hour = settings["log"]
        service.main_reactor = main_reactor
        service.observer = make_observer(path, level, fmt, worker, per_hour)
    except ConfigError as error:
        exit_with(sys.stderr, f"worker {worker}: {error}\n", 1)
    service.inspector.parts.observer = service.observer
    for disabled in settings.get("disabled_logs", ()):
        service.inspector.answer("enable_log", {"path": disabled, "enabled": False})
    if settings["follows_level"]:
        service.living.taken = partial(take_level, service.observer)
    globalLogBeginner.beginLoggingTo([service.observer])
    signals.on(signal.SIGUSR1, service.reopen_logs)
    signals.on(signal.SIGHUP, service.reload_certificates)
    # systemd may signal all processes of a unit; the supervisor handles it.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    service.privilegedStartService()
    owner = owner_of(settings["user"])
    if owner is not None and os.geteuid() == 0:
        user = settings["user"]
        switchUID(user["uid"], owner[1], user["euid"])
    own.wake_with_parent()
    service.startService()
    if settings["quickstart"] and not setup.number:
        quickstart.announce(service, reactor, sys.__stdout__ or sys.stdout)
    main_reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    main_reactor.addSystemEventTrigger("after", "startup", signals.on, signal.SIGTERM, service.terminate)
    main_reactor.addSystemEventTrigger("after", "startup", signal.signal, signal.SIGINT, signal.SIG_IGN)
    main_reactor.run()
