"""
Talk to the service manager: systemd, or another one with its protocol.

C{sdnotify}, which is pure Python, sends notifications to the socket that C{NOTIFY_SOCKET}
names; without that variable there are none.  C{LISTEN_FDS} has the sockets that systemd has
bound.
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
"""How often the watchdog is fed within its time."""


def handed_over(listening: ListenFDs | None = None) -> list[ListenerSockets]:
    """
    Return the sockets that systemd has bound for this process.

    @param listening: systemd's variables; those that Twisted has read, if not given.
    @return: empty if there are none, or they are for another process.
    """
    if listening is None:
        # The import of Twisted's endpoints, as by twistd, reads and removes the variables.
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
    """Notifies the service manager, if there is one."""

    def __init__(self, clock: Any, environ: MutableMapping[str, str]) -> None:
        """
        @param clock: the reactor.
        @param environ: has the manager's variables; they stay, for a process that takes
            over from this one.
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
        Report that the process serves.

        @param status: a text for people.
        @param pid: the new main process, if it is not the one that the manager has started.
        """
        more = [f"STATUS={status}"] if status else []
        self._tell("READY=1", *([f"MAINPID={pid}"] if pid else []), *more)
        if not self._watchdog.running and self._notifier is not None:
            period = self._period()
            if period:
                self._watchdog.start(period, now=True)

    def _period(self) -> float:
        """Return the seconds between two feeds of the watchdog; 0.0 if there is none."""
        microseconds = self._environ.get("WATCHDOG_USEC", "")
        # Regardless of WATCHDOG_PID: a process that takes over another one has its watchdog, too.
        return int(microseconds) / 1e6 / _PARTS if microseconds.isdecimal() else 0.0

    def status(self, text: str) -> None:
        """Set the status, a text for people."""
        self._tell(f"STATUS={text}")

    def reloading(self) -> None:
        """Report a reload; L{ready} reports its end."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "STATUS=reloading")

    def stopping(self, status: str = "") -> None:
        """Report that the process stops."""
        self._tell("STOPPING=1", f"STATUS={status or 'stopping'}")

    def forget(self) -> None:
        """Send nothing more, as another process has taken over and reports itself."""
        self._silent = True
        if self._watchdog.running:
            self._watchdog.stop()

    def close(self) -> None:
        """Close the socket."""
        if self._watchdog.running:
            self._watchdog.stop()
        if self._notifier is not None and self._notifier.socket is not None:
            self._notifier.socket.close()
            self._notifier = None
