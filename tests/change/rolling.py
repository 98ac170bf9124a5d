"""Clients of several servers, as a load balancer is: whoever does not listen is left out."""

from __future__ import annotations

__all__ = ["Measured", "RollingLoad", "Step"]

import http.client
import select
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.change.recorded import RATE
from tests.integration.clients import Load, ask
from tests.integration.harness import DEADLINE


@dataclass(frozen=True, slots=True)
class Step:
    """
    What happened during one planned step.

    @ivar failed: what went wrong, each with the id of its request.
    @ivar longest: in seconds.
    """

    name: str
    requests: int
    failed: tuple[str, ...]
    longest: float

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.requests} requests, {len(self.failed)} failed, "
            f"longest {self.longest * 1000:.0f} ms"
        )


class Refused(OSError):
    """None of the servers listens."""


class Measured:
    """
    What came of requests, in steps.

    @ivar records: of each request its id, when it began, how long it took, and what went
        wrong with it, if anything did.
    @ivar steps: what has been since the beginning, or the step before.
    """

    def __init__(self) -> None:
        self.records: list[tuple[str, float, float, str]] = []
        self.steps: list[Step] = []
        self._seen = 0

    def step(self, name: str) -> Step:
        """A step is over."""
        records = self.records[self._seen :]
        self._seen += len(records)
        failed = tuple(f"{token}: {reason}" for token, _, _, reason in records if reason)
        longest = max((seconds for _, _, seconds, _ in records), default=0.0)
        step = Step(name, len(records), failed, longest)
        self.steps.append(step)
        return step


class RollingLoad(Load, Measured):
    """
    Clients that keep their connections, and make another one where theirs has been closed.

    Every other one makes a connection for each request.

    No request is made twice: one that has been sent and is not answered has failed.
    """

    def __init__(self, ports: Sequence[int], clients: int = 8, rate: float = RATE) -> None:
        Load.__init__(self, ports[0], clients)
        Measured.__init__(self)
        self.ports = list(ports)
        self._pause = clients / rate

    def _connect(self, client: int, turn: int) -> http.client.HTTPConnection:
        """Connect to one of the servers, at best to another one than the last time."""
        for index in range(len(self.ports)):
            port = self.ports[(client + turn + index) % len(self.ports)]
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
            try:
                connection.connect()
            except ConnectionRefusedError:
                continue
            return connection
        raise Refused(f"nobody listens at any of {self.ports}")

    def _run(self, client: int) -> None:
        connection: http.client.HTTPConnection | None = None
        pause = threading.Event()
        due, turn = time.monotonic(), 0
        while (number := self._next()) is not None:
            token = f"request-{number}-of-client-{client}"
            began, reason = time.monotonic(), ""
            try:
                if connection is not None and _closed(connection):
                    connection.close()
                    connection, turn = None, turn + 1
                connection = connection or self._connect(client, turn)
                answer = ask(connection, "/echo", "POST", token.encode(), {"x-id": token})
                if (answer.status, answer.body) != (200, token.encode()):
                    reason = str(answer)
            except (OSError, http.client.HTTPException) as error:
                reason = repr(error)
                if connection is not None:
                    connection.close()
                connection = None
            now = time.monotonic()
            self.records.append((token, began, now - began, reason))
            if reason:
                self._failed(f"{token}: {reason}")
            else:
                self._good("", now - began)
            if client % 2 and connection is not None:
                connection.close()
                connection, turn = None, turn + 1
            due = max(due + self._pause, now - 1.0)
            pause.wait(max(0.0, due - now))
        if connection is not None:
            connection.close()


def _closed(connection: http.client.HTTPConnection) -> bool:
    """Whether the server has closed a connection, as far as that is known before a request."""
    if connection.sock is None:
        return True
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))
