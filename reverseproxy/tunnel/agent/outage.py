"""
Log lines about a server that an agent can't join, for all of its connections together.

All connections to a server fail alike, each at other times. An operator needs a line when that begins,
one for each further reason, a reminder while it lasts, and one when it is over.
"""

from __future__ import annotations

__all__ = ["REMIND", "Outage"]

from collections.abc import Callable
from typing import Final

from twisted.logger import Logger, LogLevel

from reverseproxy.config.durations import format_duration
from reverseproxy.logs import counted

log = Logger()

REMIND: Final = 60.0
"""Seconds between two reminders."""

MOST_REASONS: Final = 8
"""Different reasons that are logged, as a server may send any text."""


class Outage:
    """Follows attempts to join one server."""

    def __init__(self, name: str, seconds: Callable[[], float]) -> None:
        """
        @param name: the agent and the server, for logs.
        @param seconds: returns the time.
        """
        self._name = name
        self._seconds = seconds
        self._since = 0.0
        self._told = 0.0
        self._attempts = 0
        self._reasons: set[str] = set()

    def failed(self, slot: str, reason: str, delay: float) -> None:
        """
        Log a failed attempt, unless its reason has been logged recently.

        @param slot: the connection, for logs.
        @param delay: seconds until the next attempt.
        """
        now = self._seconds()
        if not self._attempts:
            self._since = now
        self._attempts += 1
        fresh = reason not in self._reasons and len(self._reasons) < MOST_REASONS
        if fresh or now - self._told >= REMIND:
            self._reasons.add(reason)
            self._told = now
            lasting = ""
            if self._attempts > 1:
                lasting = f" (for {format_duration(float(round(now - self._since)))} now, {self._count})"
            log.warn(
                "{server}: {reason}{lasting}; next attempt in {delay:.2f} s",
                server=self._name,
                reason=reason,
                lasting=lasting,
                attempts=self._attempts,
                delay=delay,
            )
        else:
            log.emit(
                LogLevel.debug,
                "{slot}: {reason}; next attempt in {delay:.2f} s",
                slot=slot,
                reason=reason,
                delay=delay,
            )

    @property
    def _count(self) -> str:
        return counted(self._attempts, "failed attempt")

    def over(self) -> str:
        """
        Note that a connection serves.

        @return: the duration of the outage, for the end of a line; empty if there was none.
        """
        if not self._attempts:
            return ""
        text = f", after {self._seconds() - self._since:.1f} s and {self._count}"
        self._attempts = 0
        self._reasons.clear()
        return text
