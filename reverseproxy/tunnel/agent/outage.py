"""
A server that an agent can't join: said once, however many connections try.

All connections to one server fail alike, each at its own times.  What an
operator needs is a line when that begins, one when there is another reason, one
now and then as long as it lasts, and one when it is over.
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
"""Seconds after which it is said again that a server can't be joined."""

MOST_REASONS: Final = 8
"""How many reasons are told apart, as a server may say anything."""


class Outage:
    """Follows one server, for all connections to it."""

    def __init__(self, name: str, seconds: Callable[[], float]) -> None:
        """
        @param name: which agent and which server it is, for logs.
        @param seconds: tells the time.
        """
        self._name = name
        self._seconds = seconds
        self._since = 0.0
        self._told = 0.0
        self._attempts = 0
        self._reasons: set[str] = set()

    def failed(self, slot: str, reason: str, delay: float) -> None:
        """
        An attempt has failed.

        @param slot: which connection it was, for logs.
        @param delay: seconds until it tries again.
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
        A connection serves.

        @return: how long that was not so, for the end of a line; empty if it was.
        """
        if not self._attempts:
            return ""
        text = f", after {self._seconds() - self._since:.1f} s and {self._count}"
        self._attempts = 0
        self._reasons.clear()
        return text
