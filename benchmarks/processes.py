"""
What all peers have in common: a peer writes its configuration, starts, says
when it serves, names its processes and stops.

Everything listens on the loopback interface, on ports that the kernel picked.
"""

from __future__ import annotations

__all__ = ["LOOPBACK", "START_TIMEOUT", "Peer", "PeerError", "Process", "fetch", "free_ports"]

import http.client
import json
import os
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.load import SMALL
from benchmarks.measure import family

LOOPBACK = "127.0.0.1"
START_TIMEOUT = 30.0
STOP_TIMEOUT = 5.0
POLL = 0.05


class PeerError(Exception):
    """A peer did not start, or does not serve."""


def free_ports(count: int) -> list[int]:
    """Let the kernel pick ports; all are held until all are known, so they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((LOOPBACK, 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


class Process:
    """
    One process that we started, and the only kind that we end.

    @ivar log: the file that it writes its output to.
    """

    def __init__(self, name: str, command: Sequence[str], directory: Path) -> None:
        self.name = name
        self.log = directory / f"{name}.log"
        with self.log.open("wb") as output:
            # a group of its own, for the reasons that load.drive has
            self._popen = subprocess.Popen(
                command,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
            )

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._popen.pid

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self._popen.poll() is None

    def check(self) -> None:
        """
        See that it runs.

        @raise PeerError: with the end of its log, if it does not.
        """
        status = self._popen.poll()
        if status is not None:
            raise PeerError(f"{self.name} ended with {status}; its log ends:\n{self.tail()}")

    def tail(self) -> str:
        """The last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])

    def kill_all(self) -> None:
        """End it and what it started, impolitely."""
        if self.running:
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()

    def stop(self) -> None:
        """End it, politely first."""
        if self._popen.poll() is None:
            self._popen.send_signal(signal.SIGTERM)
            try:
                self._popen.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._popen.kill()
        self._popen.wait()


class Peer(ABC):
    """
    A path from a client to the backend.

    @ivar name: how the command line and file names call it.
    @ivar title: how the report calls it.
    @ivar front: the port that clients reach.
    @ivar front_h2: the port for clients of HTTP/2; 0 if that is the same one.
    """

    def __init__(self, name: str, title: str) -> None:
        self.name = name
        self.title = title
        self.front = 0
        self.front_h2 = 0
        self._processes: list[Process] = []

    @property
    def url(self) -> str:
        """Where clients reach it."""
        return f"http://{LOOPBACK}:{self.front}"

    @property
    def url_h2(self) -> str:
        """Where clients of HTTP/2 reach it."""
        return f"http://{LOOPBACK}:{self.front_h2 or self.front}"

    @property
    def pids(self) -> list[int]:
        """The processes that were started: server first, then agent."""
        return [process.pid for process in self._processes]

    def processes(self) -> list[list[int]]:
        """For each of L{pids}, itself and its workers: their CPU time and memory count together."""
        return [family(pid) for pid in self.pids]

    @abstractmethod
    def start(self, directory: Path) -> None:
        """
        Write the configuration into a directory and start the processes.

        @raise PeerError: if it fails.
        """

    def settled(self) -> bool:
        """Whether it is as it should be before a load is put on it."""
        return True

    def answers(self) -> bool:
        """Whether a request comes through the whole path; may raise what L{fetch} does, and C{OSError}."""
        return fetch(self.front, SMALL.path) == SMALL.size

    def evidence(self) -> str:
        """Say what shows that requests go the way they should; C{""} if nothing is asked."""
        return ""

    def check(self) -> None:
        """
        See that all processes run.

        @raise PeerError: if not.
        """
        for process in self._processes:
            process.check()

    def wait_ready(self) -> None:
        """
        Ask for the resource until it comes through the whole path.

        @raise PeerError: if it does not in time.
        """
        self._poll(self.answers, "answer")
        self.settle()

    def settle(self) -> None:
        """
        Wait until it is as it should be before a load.

        @raise PeerError: if it does not get there in time.
        """
        self._poll(self.settled, "settle")

    def _poll(self, done: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            self.check()
            try:
                if done():
                    return
                reason = "not yet"
            except (OSError, http.client.HTTPException) as error:
                reason = repr(error)
            if time.monotonic() > deadline:
                logs = "\n".join(f"-- {each.log.name}\n{each.tail()}" for each in self._processes)
                raise PeerError(f"{self.title} did not {what} in {START_TIMEOUT:.0f} s: {reason}\n{logs}")
            time.sleep(POLL)

    def stop(self) -> None:
        """End all processes, the one started last first."""
        while self._processes:
            self._processes.pop().stop()

    def _wait_listening(self, port: int) -> None:
        """Wait for the server: an agent that finds it missing would wait before it tries again."""

        def connects() -> bool:
            with socket.create_connection((LOOPBACK, port), timeout=1):
                return True

        self._poll(connects, "listen")

    def _run(self, directory: Path, role: str, command: Sequence[str]) -> None:
        name = f"{self.name}-{role}" if role else self.name
        self._processes.append(Process(name, command, directory))

    def _write(self, directory: Path, role: str, config: Mapping[str, Any]) -> str:
        path = directory / f"{self.name}-{role}.json"
        path.write_text(json.dumps(config, indent=2) + "\n")
        return str(path)


def fetch(port: int, path: str, timeout: float = 5.0) -> int:
    """
    Ask for a resource once.

    @param timeout: seconds without a byte after which to give up.

    @return: the size of the body, bytes.
    @raise http.client.HTTPException: if the answer is not 200.
    """
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=timeout)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise http.client.HTTPException(f"status {response.status}: {body[:200]!r}")
        return len(body)
    finally:
        connection.close()
