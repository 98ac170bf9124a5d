"""Writes and producers of a connection whose handshake may not be complete."""

from __future__ import annotations

__all__ = ["EarlyWriter"]

from typing import Any


class EarlyWriter:
    """
    Buffers what is written before the handshake is complete, and registers the producer afterwards.

    A streaming producer is paused meanwhile; afterwards back-pressure is the transport's business.

    @ivar producer: the registered producer, or L{None}.
    """

    __slots__ = ("_pending", "_streaming", "_transport", "producer")

    def __init__(self) -> None:
        self.producer: Any = None
        self._streaming = False
        self._transport: Any = None  # with which the producer is registered
        self._pending: list[bytes] = []

    @property
    def has_written(self) -> bool:
        """Whether something is buffered."""
        return bool(self._pending)

    def keep(self, data: bytes) -> None:
        """Buffer data until the handshake is complete."""
        self._pending.append(data)
        if self._streaming:
            self.producer.pauseProducing()

    def take(self) -> bytes:
        """Return what was buffered, and forget it."""
        pending, self._pending = self._pending, []
        return b"".join(pending)

    def register(self, producer: Any, streaming: bool, transport: Any) -> None:
        """
        Register a producer.

        @param transport: the transport to register it with; L{None} before the handshake is complete.
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
        """Register the producer with the transport, if there is one and it isn't."""
        if self.producer is not None and self._transport is None:
            self._transport = transport
            transport.registerProducer(self.producer, self._streaming)

    def resume(self) -> None:
        """Resume a streaming producer, as what was buffered is written."""
        if self._streaming:
            self.producer.resumeProducing()

    def unregister(self) -> bool:
        """
        Unregister the producer.

        @return: whether there was one.
        """
        if self.producer is None:
            return False
        self.producer, self._streaming = None, False
        self.withdraw()
        return True

    def withdraw(self) -> None:
        """Unregister the producer with the transport, which does not close while one is paused."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.unregisterProducer()

    def lose(self) -> None:
        """Stop the producer, unless the transport does, and drop what is buffered: the connection is lost."""
        if self.producer is not None and self._transport is None:
            self.producer.stopProducing()
        self.producer = self._transport = None
        self._pending = []
