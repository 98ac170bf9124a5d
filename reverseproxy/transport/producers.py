"""The producer of a transport that is not derived from Twisted's."""

from __future__ import annotations

__all__ = ["Consumer"]

from typing import Any


class Consumer:
    """
    A transport that can have one producer; see L{IConsumer}.

    @ivar producer: L{None} if there is none.
    @ivar streamingProducer: whether it is a push producer.
    @ivar disconnected: whether the connection is lost, so that a producer is stopped at once.
    """

    __slots__ = ("_producer_paused", "disconnected", "producer", "streamingProducer")

    disconnected: bool

    def __init__(self) -> None:
        self.producer: Any = None
        self.streamingProducer = False
        self._producer_paused = False

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Register a push or pull producer; see L{IConsumer}."""
        if self.producer is not None:
            raise RuntimeError(f"{self!r} has a producer already, {self.producer!r}")
        if self.disconnected:
            producer.stopProducing()
            return
        self.producer = producer
        self.streamingProducer = streaming
        self._producer_paused = False
        if not streaming:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        """See L{IConsumer}."""
        self.producer = None
        self._producer_paused = False
