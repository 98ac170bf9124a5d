"""Start the processes of workers, with their sockets and their setup."""

from __future__ import annotations

__all__ = ["Starter"]

import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from reverseproxy.cluster.endpoints import CallableFactory
from reverseproxy.config.loader import Loaded
from reverseproxy.workers.control import CONTROL_FD, Control, Setup, dump_setup
from reverseproxy.workers.links import socket_path
from reverseproxy.workers.messages import Message
from reverseproxy.workers.sibling_sockets import KIND
from reverseproxy.workers.slots import Slot


class _Process(ProcessProtocol):
    """Reports the end of a worker's process."""

    def __init__(self, ended: Callable[[Failure], object]) -> None:
        self._ended = ended

    def processExited(self, reason: Failure) -> None:  # noqa: N802 - Twisted's name
        self._ended(reason)


class Starter:
    """
    Starts workers.

    @ivar received: called with a slot and a message of its worker.
    @ivar ended: called with a slot whose worker has ended, and the reason.
    @ivar directory: the directory of the sockets between workers; empty before
        L{make_directory}.
    @ivar log_settings: returns the settings of the log at the time of a start; see
        L{SharedLog<reverseproxy.workers.shared_log.SharedLog>}.
    """

    received: Callable[[Slot, Message], object] = staticmethod(lambda slot, message: None)
    ended: Callable[[Slot, Failure], object] = staticmethod(lambda slot, reason: None)
    log_settings: Callable[[], Mapping[str, Any]] = staticmethod(dict)

    def __init__(
        self,
        reactor: Any,
        command: Sequence[str],
        file: str,
        settings: Mapping[str, Any],
        owner: tuple[int, int] | None,
    ) -> None:
        """
        @param reactor: a reactor that can run processes.
        @param command: the command of a worker, with its arguments.
        @param file: the name of the configuration in messages.
        @param settings: see L{Setup}.
        @param owner: the user and the group of workers, if they differ from ours.
        """
        self.directory = ""
        self._reactor = reactor
        self._command = command
        self._file = file
        self._settings = settings
        self._owner = owner
        self._links: list[socket.socket] = []

    def make_directory(self, workers: int) -> None:
        """Make the sockets between workers, in a directory that only their user may enter."""
        self.directory = tempfile.mkdtemp(prefix="reverseproxy-")
        for number in range(workers):
            path = socket_path(self.directory, number)
            listening = socket.socket(socket.AF_UNIX, KIND)
            self._links.append(listening)
            listening.setblocking(False)
            listening.bind(path)
            listening.listen()
            if self._owner is not None:
                os.chown(path, *self._owner)
        if self._owner is not None:
            os.chown(self.directory, *self._owner)

    def clean_up(self) -> None:
        """Close these sockets, and remove the directory."""
        for each in self._links:
            each.close()
        if self.directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    def start(
        self,
        slot: Slot,
        loaded: Loaded,
        listening: Mapping[str, Sequence[socket.socket]],
        watch: Sequence[int],
    ) -> None:
        """
        Start a worker.

        @param listening: the sockets of listeners, by name.
        @param watch: the numbers of the sockets that it accepts from.
        @raise OSError: if it can't be started.
        """
        ours, theirs = socket.socketpair()
        slot.close_handover()
        slot.handover, handed = socket.socketpair()
        with ours, theirs, handed:
            ours.setblocking(False)
            slot.handover.setblocking(False)
            handed.setblocking(False)
            descriptors = {0: 0, 1: 1, 2: 2, CONTROL_FD: theirs.fileno()}

            def inherit(inherited: socket.socket) -> int:
                number = len(descriptors)
                descriptors[number] = inherited.fileno()
                return number

            setup = Setup(
                number=slot.number,
                workers=len(self._links),
                loaded=loaded,
                file=self._file,
                listening={
                    name: tuple(inherit(each) for each in sockets) for name, sockets in listening.items()
                },
                link=inherit(self._links[slot.number]),
                directory=self.directory,
                watch=tuple(watch),
                settings={**self._settings, **self.log_settings()},
                handover=inherit(handed),
            )
            slot.loaded = loaded
            slot.process = self._reactor.spawnProcess(
                _Process(partial(self.ended, slot)),
                self._command[0],
                [*self._command, f"worker {slot.name} of {len(self._links)}"],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                childFDs=descriptors,
            )
            slot.pid = slot.process.pid
            control = slot.control = Control(partial(self.received, slot), lambda: None)
            self._reactor.adoptStreamConnection(
                ours.fileno(), socket.AF_UNIX, CallableFactory(lambda: control)
            )
        control.transport.write(dump_setup(setup))
