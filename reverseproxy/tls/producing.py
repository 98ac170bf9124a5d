"""Who writes to a connection whose handshake may not be complete."""

from __future__ import annotations

__all__ = ["EarlyWriter"]

from typing import Any


class EarlyWriter:
    """
    Keeps what is written before the handshake is complete, and the producer until the transport may know it.

    A producer that streams is paused meanwhile; back-pressure is the transport's business afterwards.

    @ivar producer: who produces; L{None} for nobody.
    """

    __slots__ = ("_pending", "_streaming", "_transport", "producer")

    def __init__(self) -> None:
        self.producer: Any = None
        self._streaming = False
        self._transport: Any = None  # which knows the producer
        self._pending: list[bytes] = []

    @property
    def has_written(self) -> bool:
        """Whether something is kept."""
        return bool(self._pending)

    def keep(self, data: bytes) -> None:
        """Keep something until the handshake is complete."""
        self._pending.append(data)
        if self._streaming:
            self.producer.pauseProducing()

    def take(self) -> bytes:
        """Return what was kept."""
        pending, self._pending = self._pending, []
        return b"".join(pending)

    def register(self, producer: Any, streaming: bool, transport: Any) -> None:
        """
        Have a producer.

        @param transport: what may know it at once; L{None} before the handshake is complete.
        @raise RuntimeError: if there is one already.
        """
        if self.producer is not None:
            raise RuntimeError(f"can't register {producer}: {self.producer} was never unregistered")
        self.producer, self._streaming = producer, streaming
        if transport is not None:
            self.pass_down(transport)
        elif self._pending and streaming:
            producer.pauseProducing()

    def pass_down(self, transport: Any) -> None:
        """Let the transport know the producer, if there is one that it does not know."""
        if self.producer is not None and self._transport is None:
            self._transport = transport
            transport.registerProducer(self.producer, self._streaming)

    def resume(self) -> None:
        """What was kept is written: a producer that streams may go on."""
        if self._streaming:
            self.producer.resumeProducing()

    def unregister(self) -> bool:
        """
        Have no producer any more.

        @return: whether there was one.
        """
        if self.producer is None:
            return False
        self.producer, self._streaming = None, False
        self.withdraw()
        return True

    def withdraw(self) -> None:
        """Let the transport know of no producer, so that it can close: it does not while one is paused."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.unregisterProducer()

    def lose(self) -> None:
        """The connection is lost: whoever is not told of that by the transport is told here."""
        if self.producer is not None and self._transport is None:
            self.producer.stopProducing()
        self.producer = self._transport = None
        self._pending = []
