"""
Real processes for the scenario tests: C{twistd reverseproxy}, and what stands behind it.

Nothing here sleeps for a fixed time: a test waits for a line in a log, for an
exit status or for bytes, each with a deadline.
"""

from __future__ import annotations

__all__ = [
    "DEADLINE",
    "JOINED",
    "LEFT",
    "SERVING",
    "SLOW_MACHINE",
    "Backend",
    "Child",
    "IntegrationTestCase",
    "ReverseProxy",
    "certificates",
    "resident_bytes",
]

import functools
import inspect
import json
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import trustme
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

import reverseproxy
from tests.integration.forked import fork

DEADLINE = 30.0
"""Seconds after which anything that a test waits for has failed to come."""

SLOW_MACHINE = 5.0
"""
Seconds that a machine with other work may add to a time that is promised.

What no test may miss by a moment is held exactly by tests with a clock of their own.
"""

JOINED = r"^cluster clientCluster: host .* joined "
"""What a tunnel server logs once a connection can be given requests."""

LEFT = r"^cluster clientCluster: host .* left, "
"""What a tunnel server logs once a connection is given no more requests."""

SERVING = r"^agent of cluster .*: serving "
"""What an agent logs once a server has accepted one of its connections."""

ROOT = Path(reverseproxy.__file__).resolve().parent.parent

TWISTD = "from twisted.scripts.twistd import run; run()"

OURS: Final = ("twisted.scripts.twistd", "twisted.internet.default", "reverseproxy.tap")
"""What a C{twistd reverseproxy} has imported before it does anything."""

UVICORN: Final = ("uvicorn", "uvicorn.protocols.http.auto", "uvicorn.loops.auto")
"""What a backend has imported."""


class Child(ProcessProtocol):
    """
    A child process, with its output by lines.

    @ivar lines: everything that it has printed.
    @ivar status: its exit status, or minus the signal that ended it; L{None}
        while it runs.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: list[str] = []
        self.status: int | None = None
        self._partial = {1: b"", 2: b""}
        self._waiting: list[tuple[Callable[[str], Any], Deferred[Any]]] = []
        self._ended: list[Deferred[int]] = []

    # what the reactor calls

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        *lines, self._partial[childFD] = (self._partial[childFD] + data).split(b"\n")
        for line in lines:
            self._line(line.decode("utf-8", "replace"))

    def _line(self, line: str) -> None:
        self.lines.append(line)
        for waiting in list(self._waiting):
            wanted, found = waiting
            value = wanted(line)
            if value:
                self._waiting.remove(waiting)
                found.callback(value)

    def processEnded(self, reason: Failure) -> None:
        value = reason.value
        self.status = -value.signal if getattr(value, "signal", None) else (value.exitCode or 0)
        ended, self._ended = self._ended, []
        for done in ended:
            done.callback(self.status)
        waiting, self._waiting = self._waiting, []
        for _, found in waiting:
            found.errback(AssertionError(f"{self.name} ended with status {self.status}"))

    # what tests call

    @property
    def pid(self) -> int:
        return self.transport.pid

    def mark(self) -> int:
        """A position in the output, for C{since}."""
        return len(self.lines)

    def find(self, wanted: Callable[[str], Any], since: int = 0) -> list[Any]:
        """What C{wanted} makes of the lines so far, where it is true."""
        return [value for value in map(wanted, self.lines[since:]) if value]

    def wait_for(
        self, wanted: Callable[[str], Any] | str, since: int = 0, timeout: float = DEADLINE
    ) -> Deferred[Any]:
        """
        Wait for a line of output.

        @param wanted: a regular expression to search for, or a function of the
            line; what it returns is the result, if true.
        @param since: look at lines from this L{mark} on.
        """
        look = re.compile(wanted).search if isinstance(wanted, str) else wanted
        description = wanted if isinstance(wanted, str) else wanted.__doc__
        found: Deferred[Any] = Deferred()
        for line in self.lines[since:]:
            if value := look(line):
                found.callback(value)
                return found
        if self.status is not None:
            found.errback(AssertionError(f"{self.name} has ended with status {self.status}"))
            return found
        waiting = (look, found)
        self._waiting.append(waiting)

        def late(*_: object) -> None:
            self._waiting.remove(waiting)
            found.errback(AssertionError(f"{self.name} did not say {description} within {timeout} s"))

        return _deadline(found, timeout, late)

    def signal(self, name: str) -> None:
        """Send a signal, such as C{"TERM"}."""
        self.transport.signalProcess(signal.Signals[f"SIG{name}"])

    def ended(self, timeout: float = DEADLINE) -> Deferred[int]:
        """Wait until the process has ended; fires with its L{status}."""
        done: Deferred[int] = Deferred()
        if self.status is not None:
            done.callback(self.status)
            return done
        self._ended.append(done)

        def late() -> None:
            self._ended.remove(done)
            done.errback(AssertionError(f"{self.name} was still running after {timeout} s"))

        return _deadline(done, timeout, late)

    def stop(self, timeout: float = DEADLINE) -> Deferred[int]:
        """Ask the process to stop, with SIGTERM, and wait until it has ended."""
        if self.status is None:
            self.signal("TERM")
        return self.ended(timeout)

    def kill(self) -> Deferred[int]:
        """End the process at once, with SIGKILL."""
        if self.status is None:
            self.signal("KILL")
        return self.ended()

    def tail(self, lines: int = 60) -> str:
        """The last lines of the output, for a failing test's message."""
        return "\n".join([f"--- {self.name} (status {self.status})", *self.lines[-lines:]])


def _deadline(waited: Deferred[Any], timeout: float, late: Callable[[], None]) -> Deferred[Any]:
    call = reactor.callLater(timeout, late)  # type: ignore[attr-defined]

    def arrived(result: Any) -> Any:
        if call.active():
            call.cancel()
        return result

    return waited.addBoth(arrived)


class ReverseProxy(Child):
    """A C{twistd reverseproxy} process that logs JSON lines."""

    def entries(self, since: int = 0) -> list[dict[str, Any]]:
        """All log entries so far."""
        return self.find(_entry, since)

    def logged(
        self, pattern: str, since: int = 0, timeout: float = DEADLINE, **fields: object
    ) -> Deferred[dict[str, Any]]:
        """
        Wait for a log entry.

        @param pattern: a regular expression that its message has to match.
        @param fields: fields and the values that they have to have.
        """
        message = re.compile(pattern)

        def wanted(line: str) -> dict[str, Any] | None:
            entry = _entry(line)
            if entry is None or not message.search(entry["message"]):
                return None
            return entry if all(entry.get(key) == value for key, value in fields.items()) else None

        wanted.__doc__ = f"{pattern!r} {fields or ''}"
        return self.wait_for(wanted, since, timeout)

    def counted(self, pattern: str, count: int, since: int = 0) -> Deferred[Any]:
        """Wait until that many log entries with such a message have come."""
        message = re.compile(pattern)
        seen = 0

        def wanted(line: str) -> int:
            nonlocal seen
            entry = _entry(line)
            seen += entry is not None and message.search(entry["message"]) is not None
            return seen if seen >= count else 0

        wanted.__doc__ = f"{pattern!r} {count} times"
        return self.wait_for(wanted, since)

    async def listening(self, listener: str) -> tuple[str, int]:
        """Wait until a listener is bound; the address that it got."""
        entry = await self.logged(rf"^listener {re.escape(listener)} listening on ")
        host, _, port = str(entry["address"]).rpartition(":")
        return host.strip("[]"), int(port)

    async def port(self, listener: str) -> int:
        """Wait until a listener is bound; the port that it got."""
        return (await self.listening(listener))[1]


def _entry(line: str) -> dict[str, Any] | None:
    if not line.startswith("{"):
        return None
    entry = json.loads(line)
    return entry if isinstance(entry, dict) and "message" in entry else None


class Backend(Child):
    """L{tests.integration.backend} under uvicorn: a real HTTP server."""

    port = 0

    async def started(self) -> Backend:
        line = await self.wait_for(r"running on http://127\.0\.0\.1:(\d+)")
        self.port = int(line.group(1))
        return self

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


class IntegrationTestCase(TestCase):
    """
    A test that starts processes.

    Every C{twistd reverseproxy} process that still runs at the end of the test
    is sent SIGTERM and has to exit with status 0, and none may have logged an
    error or a traceback, except for what C{self.expected_errors} match.

    @cvar mux: whether agents offer to carry many streams over a connection, if
        their configuration does not say.
    """

    timeout = 120
    mux = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, method in list(vars(cls).items()):
            if name.startswith("test") and inspect.iscoroutinefunction(method):
                setattr(cls, name, _with_logs(method))

    def setUp(self) -> None:
        self.children: list[Child] = []
        self.expected_errors: list[str] = []
        self.directory = Path(self.mktemp())
        self.directory.mkdir(parents=True)
        self.directory = self.directory.resolve()
        self.addCleanup(self._end_children)

    # processes

    def spawn(
        self,
        child: Child,
        *args: str,
        directory: Path | None = None,
        imported: Sequence[str] = (),
        **environ: str,
    ) -> None:
        """
        Start a child process that runs a Python program.

        @param imported: modules that it may have when it starts, as it would import them at once:
            L{tests.integration.forkserver} saves the time.  For a fresh interpreter, nothing.
        """
        extra = environ.pop("PYTHONPATH", "")
        paths = [str(ROOT), extra, os.environ.get("PYTHONPATH", "")]
        path = os.pathsep.join(filter(None, paths))
        self.children.append(child)
        env = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **environ}
        where = str(directory or self.directory)
        if imported and not extra:
            fork(child, imported, args, env, where)
        else:
            reactor.spawnProcess(child, sys.executable, [sys.executable, *args], env=env, path=where)  # type: ignore[attr-defined]

    def run_proxy(
        self, config: Mapping[str, Any] | Path, name: str = "proxy", *options: str, **environ: str
    ) -> ReverseProxy:
        """
        Start C{twistd reverseproxy} with a configuration.

        @param config: the document, or the file that holds it.
        @param environ: environment variables; C{PYTHONPATH} is added to ours.
        """
        if isinstance(config, Path):
            file = config
        else:
            if not self.mux:
                config = _without_streams(config)
            file = self.directory / f"{name}-{len(self.children)}.json"
            file.write_text(json.dumps(config, indent=1))
        return self.run_twistd(name, "--log-format", "json", "--config", str(file), *options, **environ)

    def run_twistd(self, name: str, *options: str, **environ: str) -> ReverseProxy:
        """Start C{twistd reverseproxy} with these options."""
        child = ReverseProxy(name)
        command = ("-c", TWISTD, "--nodaemon", "--pidfile=", "reverseproxy", *options)
        self.spawn(child, *command, imported=OURS, **environ)
        return child

    async def run_backend(self, name: str = "backend") -> Backend:
        """Start the HTTP backend and wait until it can be connected to."""
        backend = Backend(name)
        self.spawn(
            backend,
            *("-m", "uvicorn", "tests.integration.backend:application"),
            *("--host", "127.0.0.1", "--port", "0", "--no-access-log", "--lifespan", "off"),
            imported=UVICORN,
            REVERSEPROXY_BACKEND=name,
        )
        return await backend.started()

    def reserve_port(self) -> int:
        """
        A port for a server that is to be started later, or again.

        It stays bound, without listening, until the test ends, so that nobody
        else is given it.
        """
        holder = socket.socket()
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # as workers have several
        holder.bind(("127.0.0.1", 0))
        self.addCleanup(holder.close)
        port: int = holder.getsockname()[1]
        return port

    # the end of a test

    async def _end_children(self) -> None:
        running = [child for child in self.children if child.status is None]
        for child in running:
            if not isinstance(child, ReverseProxy):
                child.signal("KILL")
        proxies = [child for child in running if isinstance(child, ReverseProxy)]
        try:
            statuses = await gatherResults([proxy.stop() for proxy in proxies], consumeErrors=True)
        except Exception:
            statuses = [None]
        for child in self.children:
            with suppress(ProcessExitedAlready):
                child.signal("KILL")
        await gatherResults([child.ended() for child in self.children])
        for number, child in enumerate(self.children):
            (self.directory / f"{child.name}-{number}.log").write_text("\n".join(child.lines))
        if any(statuses):
            self.fail(self._tails(f"SIGTERM did not end every process with status 0: {statuses}"))
        errors = [line for child in self.children for line in child.find(self._unexpected_error)]
        if errors:
            self.fail("\n".join(["unexpected errors in a log:", *errors[:5]]))

    def _unexpected_error(self, line: str) -> str | None:
        entry = _entry(line)
        bad = "Traceback (most recent" in line or (
            entry is not None and str(entry.get("level", "")).lower() in ("error", "fatal")
        )
        return line if bad and not any(re.search(okay, line) for okay in self.expected_errors) else None

    def _tails(self, message: object) -> str:
        return "\n".join([str(message), *(child.tail() for child in self.children)])


def _with_logs(method: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Put the logs of all processes into the message of a failing test."""

    @functools.wraps(method)
    async def test(self: IntegrationTestCase) -> None:
        try:
            await method(self)
        except Exception as error:
            raise self.failureException(self._tails(Failure(error).getTraceback())) from error

    return test


def _without_streams(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Let agents lend each connection as a whole, as MOSN's do."""
    extends = [
        {**each, "config": {"mux": False, **each["config"]}} if each["type"] == "tunnel_agent" else each
        for each in config.get("extends", ())
    ]
    return {**config, "extends": extends}


def resident_bytes(pid: int) -> int:
    """
    How much memory a process holds, in bytes.

    Without what it maps of files: a forked process begins with none of their pages, and
    what it fetches of its libraries as it goes is no growth.
    """
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^RssAnon:\s+(\d+) kB", status, re.MULTILINE)
    assert found is not None
    return int(found.group(1)) * 1024


class _Authority:
    """Certificates in files, from an authority made for this test."""

    def __init__(self, directory: Path, name: str) -> None:
        self._ca = trustme.CA(organization_name=name)
        self._directory = directory
        self._name = name
        self.ca_file = str(directory / f"{name}-ca.pem")
        self._ca.cert_pem.write_to_path(self.ca_file)

    def issue(self, identity: str, file: str = "") -> tuple[str, str]:
        """
        Issue a certificate for a name or an IP address.

        @param file: how to name the files; one that exists is replaced.
        @return: the files of the certificate chain and of the key.
        """
        stem = self._directory / (file or f"{self._name}-{identity}")
        leaf = self._ca.issue_cert(identity, common_name=identity)
        for suffix, pems in ((".key", [leaf.private_key_pem]), (".pem", leaf.cert_chain_pems)):
            fresh = Path(f"{stem}{suffix}.new")
            fresh.write_bytes(b"".join(pem.bytes() for pem in pems))
            fresh.replace(f"{stem}{suffix}")
        return f"{stem}.pem", f"{stem}.key"


def certificates(directory: Path, name: str = "authority") -> _Authority:
    """Make an authority whose files are put in C{directory}."""
    return _Authority(directory, name)
