"""Closes streams of a draining connection that have been idle for some time."""

from __future__ import annotations

__all__ = ["QuietStreams", "is_busy"]

from collections.abc import Iterable
from typing import Any

from twisted.internet.interfaces import IReactorTime

from reverseproxy.interfaces import IDrainable
from reverseproxy.mux.stream import MuxStream


def is_busy(protocol: Any) -> bool:
    """Return whether a request or session is in progress on a hosted protocol."""
    return IDrainable.providedBy(protocol) and protocol.busy


class QuietStreams:
    """When each stream of a connection has become idle, as far as that was seen."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._since: dict[MuxStream, float] = {}

    def close(self, streams: Iterable[MuxStream], seconds: float) -> None:
        """Close those streams that have been idle for so long, counted from the first call that saw it."""
        now = self._clock.seconds()
        since, self._since = self._since, {}
        for stream in streams:
            if not is_busy(stream.protocol):
                began = self._since[stream] = since.get(stream, now)
                if now - began >= seconds:
                    stream.loseConnection()

    def clear(self) -> None:
        """Forget all streams."""
        self._since.clear()
