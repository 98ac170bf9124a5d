"""
The transport of processes that a L{tests.integration.forkserver} has forked, as C{spawnProcess} gives one.
"""

from __future__ import annotations

__all__ = ["fork"]

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.interfaces import IProcessProtocol
from twisted.internet.process import ProcessReader
from twisted.python.failure import Failure

ROOT = Path(__file__).resolve().parent.parent.parent

STATUS = 3
"""What a child's end is told by, beside 1 and 2."""


class _Server:
    """A fork server, which ends with this process."""

    def __init__(self, *modules: str) -> None:
        self._control, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-m", "tests.integration.forkserver", str(its.fileno()), *modules]
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        with its:
            self._process = subprocess.Popen(
                command, env=environ, pass_fds=[its.fileno()], stdin=subprocess.DEVNULL
            )

    def fork(self, request: bytes, files: Sequence[int]) -> int:
        """
        Have a child forked.

        @return: its process id.
        """
        socket.send_fds(self._control, [request], files)
        pid = self._control.recv(64)
        if not pid:
            raise RuntimeError(f"the fork server ended with status {self._process.wait()}")
        return int(pid)


_server = cache(_Server)


class Forked:
    """A child process that waits for ever for input; of C{IProcessTransport} it has what tests use."""

    pid: int

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol
        self._open: dict[int, ProcessReader] = {}
        self._status = b""

    def start(self, server: _Server, request: Mapping[str, Any]) -> None:
        """Have it forked."""
        empty, self._input = os.pipe()
        pipes = {name: os.pipe() for name in (1, 2, STATUS)}
        files = [empty, *(theirs for _, theirs in pipes.values())]
        try:
            self.pid = server.fork(json.dumps(request).encode(), files)
        finally:
            for file in files:
                os.close(file)
        for name, (ours, _) in pipes.items():
            self._open[name] = ProcessReader(reactor, self, name, ours)
        self._protocol.makeConnection(self)

    # what ProcessReader calls

    def childDataReceived(self, name: int, data: bytes) -> None:
        if name == STATUS:
            self._status += data
        else:
            self._protocol.childDataReceived(name, data)

    def childConnectionLost(self, name: int, reason: Failure) -> None:
        os.close(self._open.pop(name).fd)
        if not self._open:
            os.close(self._input)
            self._protocol.processEnded(Failure(_reason(int(self._status))))

    # what tests call

    def signalProcess(self, signal: int) -> None:
        try:
            if STATUS in self._open:
                os.kill(self.pid, signal)
                return
        except ProcessLookupError:
            pass  # the fork server knows, and its word is on the way
        raise ProcessExitedAlready


def _reason(status: int) -> ProcessDone | ProcessTerminated:
    code = os.waitstatus_to_exitcode(status)
    if not code:
        return ProcessDone(status)
    return ProcessTerminated(*((code, None) if code > 0 else (None, -code)), status)


def fork(
    protocol: IProcessProtocol,
    modules: Sequence[str],
    arguments: Sequence[str],
    environ: Mapping[str, str],
    directory: str,
) -> None:
    """
    Start a child, as C{spawnProcess} with this interpreter does.

    @param modules: what it has imported when it starts; nothing that installs a reactor.
    @param arguments: C{-c PROGRAM} or C{-m MODULE}, and what follows.
    """
    request = {"arguments": list(arguments), "environ": dict(environ), "directory": directory}
    Forked(protocol).start(_server(*modules), request)
