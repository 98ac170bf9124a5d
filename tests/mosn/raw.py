"""A TCP session: what is sent comes back, and each end may close first."""

from __future__ import annotations

__all__ = ["RawAnswerer", "RawAsker"]

from tests.mosn.talk import Answered, Answerer, Asker, Unexpected


class RawAsker(Asker):
    """Sends one thing, waits for all of it, and closes."""

    at_once = 1

    def __init__(self) -> None:
        super().__init__()
        self._wanted = b""
        self._received = b""
        self._answered: Answered | None = None

    def ask(self, body: bytes, answered: Answered) -> None:
        self._wanted = body or b"nothing"
        self._answered = answered
        self.pieces.append(self._wanted)

    def feed(self, data: bytes) -> None:
        self._received += data
        if self._answered is None:
            raise Unexpected(f"bytes that nobody has asked for: {data[:200]!r}")
        if len(self._received) >= len(self._wanted):
            answered, self._answered = self._answered, None
            self.spent = True
            answered(b"" if self._received == b"nothing" else self._received)

    @property
    def under_way(self) -> int:
        return self._answered is not None


class RawAnswerer(Answerer):
    """Sends back what comes."""

    def feed(self, data: bytes) -> None:
        self.answer(lambda: self.pieces.append(data))
