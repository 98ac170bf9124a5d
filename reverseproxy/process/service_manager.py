"""
What a service manager is told: systemd, or whoever else speaks its protocol.

The messages go to the socket that C{NOTIFY_SOCKET} names, by C{sdnotify}, which is
pure Python and needs no library of systemd's; without that variable they go
nowhere.  Sockets that systemd has bound for us come as C{LISTEN_FDS} says.
"""

from __future__ import annotations

__all__ = ["ServiceManager", "handed_over"]

import os
import socket
import time
from collections.abc import MutableMapping
from typing import Any, Final

from sdnotify import SystemdNotifier
from twisted.internet.endpoints import _SystemdParser
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.systemd import ListenFDs

from reverseproxy.process.inherited_sockets import ListenerSockets

log = Logger()

_PARTS: Final = 2
"""As often as that is a watchdog fed in its time."""


def handed_over(listening: ListenFDs | None = None) -> list[ListenerSockets]:
    """
    Take the sockets that systemd has bound for this process.

    @param listening: what systemd has said of them; what Twisted has found, if not given.
    @return: one for each; empty if there are none, or they are for another process.
    """
    if listening is None:
        # Whoever imports Twisted's endpoints, as twistd does, reads the variables, and removes them.
        listening = _SystemdParser._sddaemon
    names = {descriptor: name for name, descriptor in listening.inheritedNamedDescriptors().items()}
    bequests = []
    for descriptor in listening.inheritedDescriptors():
        os.set_inheritable(descriptor, False)
        inherited = socket.socket(fileno=descriptor)
        inherited.setblocking(False)
        bequests.append(ListenerSockets(names.get(descriptor, ""), "", (inherited,)))
    return bequests


class ServiceManager:
    """Whoever has started this process, as far as it wants to hear from us."""

    def __init__(self, clock: Any, environ: MutableMapping[str, str]) -> None:
        """
        @param clock: the reactor.
        @param environ: where the variables are that tell how to reach it; they stay, as
            a process that takes our place is to find them.
        """
        self._notifier = SystemdNotifier() if environ.get("NOTIFY_SOCKET") else None
        self._environ = environ
        self._watchdog = LoopingCall(self._tell, "WATCHDOG=1")
        self._watchdog.clock = clock
        self._silent = False

    def _tell(self, *lines: str) -> None:
        if self._notifier is not None and not self._silent:
            self._notifier.notify("\n".join(lines))

    def ready(self, status: str = "", pid: int = 0) -> None:
        """
        Say that we serve.

        @param status: for people.
        @param pid: the process to watch from now on, if that is not the one that was started.
        """
        more = [f"STATUS={status}"] if status else []
        self._tell("READY=1", *([f"MAINPID={pid}"] if pid else []), *more)
        if not self._watchdog.running and self._notifier is not None:
            period = self._period()
            if period:
                self._watchdog.start(period, now=True)

    def _period(self) -> float:
        """How often to feed the watchdog; 0.0 if there is none."""
        microseconds = self._environ.get("WATCHDOG_USEC", "")
        # WATCHDOG_PID is not asked: a process that takes the place of another one has its watchdog, too.
        return int(microseconds) / 1e6 / _PARTS if microseconds.isdecimal() else 0.0

    def status(self, text: str) -> None:
        """Say something for people."""
        self._tell(f"STATUS={text}")

    def reloading(self) -> None:
        """Say that we read the configuration again; L{ready} says that it is done."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "STATUS=reloading")

    def stopping(self, status: str = "") -> None:
        """Say that we end."""
        self._tell("STOPPING=1", f"STATUS={status or 'stopping'}")

    def forget(self) -> None:
        """Say nothing any more: another process has taken our place, and speaks for itself."""
        self._silent = True
        if self._watchdog.running:
            self._watchdog.stop()

    def close(self) -> None:
        """It is over."""
        if self._watchdog.running:
            self._watchdog.stop()
        if self._notifier is not None and self._notifier.socket is not None:
            self._notifier.socket.close()
            self._notifier = None
