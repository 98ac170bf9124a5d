"""The memory accounts of clients' connections, and the log line when one is aborted; for every protocol."""

from __future__ import annotations

__all__ = ["account_of", "say_cut_off"]

from collections.abc import Callable
from typing import Protocol

from twisted.logger import Logger

from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.limits.buffered_bytes import TRUSTED, UNTRUSTED, BufferAccount
from reverseproxy.limits.connection_limit import address_key
from reverseproxy.logs import Throttle

log = Logger()


class ISettings(Protocol):
    """The part of a listener's settings that is used here."""

    @property
    def listener(self) -> str:
        """The listener's name."""

    @property
    def complaints(self) -> Throttle:
        """Limits the rate of log lines about its clients."""


def account_of(info: ConnectionInfo, end: Callable[[str], object]) -> BufferAccount:
    """
    Open the memory account of a client's connection, or of an agent's.

    @param end: called with the reason if the connection has to be closed to free memory.
    """
    budget = TRUSTED if info.reverse else UNTRUSTED
    return budget.account(address_key(info.remote_ip), end)


def say_cut_off(settings: ISettings, info: ConnectionInfo, reason: str) -> None:
    """Log that a client's connection is aborted, within the rate limit for such lines."""
    complaints = settings.complaints
    if complaints.allow():
        log.warn(
            "{listener}: {peer} is cut off: {reason}{suppressed}",
            listener=settings.listener,
            peer=info.remote,
            reason=reason,
            suppressed=complaints.suppressed,
        )
