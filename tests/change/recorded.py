"""Requests of which each is recorded: its number, what came of it, and how long it took."""

from __future__ import annotations

__all__ = ["Recorded"]

import http.client
import threading
import time
from dataclasses import dataclass

from tests.integration.clients import Load, ask
from tests.integration.harness import DEADLINE

RATE = 500.0
"""Requests a second of all clients together, if they are answered so quickly."""


@dataclass
class Recorded(Load):
    """Clients that make so many requests a second, over connections that they keep."""

    clients: int = 8

    def __post_init__(self) -> None:
        self.times: list[float] = []

    def _run(self, client: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        pause = threading.Event()
        due = time.monotonic()
        try:
            while (number := self._next()) is not None:
                token = f"request-{number}-of-client-{client}"
                began = time.monotonic()
                try:
                    answer = ask(connection, "/echo", "POST", token.encode(), {"x-id": token})
                except (OSError, http.client.HTTPException) as error:
                    self._failed(f"{token}: {error!r}")
                    connection.close()
                    continue
                seconds = time.monotonic() - began
                self.times.append(seconds)
                if (answer.status, answer.headers.get("x-id")) == (200, token):
                    self._good("", seconds)
                else:
                    self._failed(f"{token}: {answer}")
                due += self.clients / RATE
                pause.wait(max(0.0, due - time.monotonic()))
        finally:
            connection.close()

    def __str__(self) -> str:
        times = sorted(self.times) or [0.0]
        p50, p99 = (times[int(len(times) * part)] for part in (0.5, 0.99))
        return (
            f"{self.answered} requests answered, {len(self.failures)} failed, "
            f"p50 {p50 * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms, longest {times[-1] * 1000:.0f} ms"
        )
