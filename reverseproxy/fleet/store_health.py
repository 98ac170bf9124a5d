"""Whether the store can be reached, as several clients of it report."""

from __future__ import annotations

__all__ = ["StoreHealth"]

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

log = Logger()


class StoreHealth:
    """Logs once when the store becomes unreachable, and once when it is back."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._troubles: dict[str, str] = {}
        self._since: float | None = None

    @property
    def well(self) -> bool:
        """Whether no client of the store has a problem."""
        return not self._troubles

    def note(self, who: str, reason: str) -> None:
        """
        Take the report of a client.

        @param who: the client.
        @param reason: why it can't reach the store; empty if it can.
        """
        if reason:
            self._troubles[who] = reason
            if self._since is None:
                self._since = self._clock.seconds()
                log.warn(
                    "fleet: etcd is away ({reason}); servers and hosts that are known stay in use, and "
                    "what changes here is published when it is back",
                    reason=reason,
                )
        elif self._troubles:
            self._troubles.pop(who, None)
            if not self._troubles and self._since is not None:
                seconds = self._clock.seconds() - self._since
                self._since = None
                log.info("fleet: etcd is back after {seconds:.1f} s", seconds=seconds)
