"""What a tunnel server logs about bad peers: within a rate, and repetitions in one line."""

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
"""Lines a second about bad peers of one listener, in the long run."""

LOG_BURST: Final = 50
"""Lines about bad peers that may come at once."""


class PeerLog:
    """The log of one listener's bad peers, which no flood of them fills the disk with."""

    def __init__(self, listener: str, clock: IReactorTime) -> None:
        self._listener = listener
        self._throttle = Throttle(clock, LOG_RATE, LOG_BURST)
        self._folding = Folding(clock)

    def warn(self, message: str, **fields: object) -> None:
        """Log something, unless there is too much already."""
        if self._throttle.allow():
            log.warn(message, listener=self._listener, **fields)

    def warn_folded(self, key: Hashable, message: str, **fields: object) -> None:
        """
        Log something, and its repetitions in one line a minute.

        @param key: the same for what counts as a repetition.
        """
        self._folding.note(
            key, lambda left_out: self.warn(f"{message}{{left_out}}", left_out=left_out, **fields)
        )

    def stop(self) -> None:
        """Log the repetitions that have not been logged yet."""
        self._folding.stop()
