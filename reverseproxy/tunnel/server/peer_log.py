"""The log of misbehaving peers: rate-limited, with repetitions folded into one line."""

from __future__ import annotations

__all__ = ["PeerLog"]

from collections.abc import Hashable
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from reverseproxy.logs import Throttle
from reverseproxy.logs.folding import Folding

log = Logger(__package__)

LOG_RATE: Final = 10.0
"""Lines per second about peers of one listener, in the long run."""

LOG_BURST: Final = 50
"""Lines about peers that may come at once."""


class PeerLog:
    """The log of one listener's misbehaving peers, which no number of them can flood."""

    def __init__(self, listener: str, clock: IReactorTime) -> None:
        self._listener = listener
        self._throttle = Throttle(clock, LOG_RATE, LOG_BURST)
        self._folding = Folding(clock)

    def warn(self, message: str, **fields: object) -> None:
        """Log a line, unless there have been too many."""
        if self._throttle.allow():
            log.warn(message, listener=self._listener, **fields)

    def warn_folded(self, key: Hashable, message: str, **fields: object) -> None:
        """
        Log a line, and its repetitions in one line a minute.

        @param key: the same for lines that count as repetitions.
        """
        self._folding.note(
            key, lambda left_out: self.warn(f"{message}{{left_out}}", left_out=left_out, **fields)
        )

    def stop(self) -> None:
        """Log pending repetitions."""
        self._folding.stop()
