"""
Resolve host names repeatedly.

A failure is never fatal: the last known addresses stay in use until a lookup succeeds.
"""

from __future__ import annotations

__all__ = [
    "ABANDONED_FORGOTTEN",
    "LOOKUP_TIMEOUT",
    "MAX_ABANDONED",
    "MAX_ADDRESSES",
    "REFRESH",
    "RETRY_BASE",
    "RETRY_MAX",
    "IAnswerReceiver",
    "ReresolvingName",
]

from collections.abc import Callable
from random import random as default_random

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHostResolution,
    IReactorTime,
    IResolutionReceiver,
)
from twisted.logger import Logger, LogLevel
from zope.interface import implementer

from reverseproxy.logs import counted

log = Logger()

REFRESH = 30.0
"""Seconds between two lookups of a name, by default."""

LOOKUP_TIMEOUT = 10.0
"""Seconds that one lookup may take."""

RETRY_BASE = 1.0
"""Seconds before the first retry of a failed lookup."""

RETRY_MAX = 30.0
"""Seconds between two retries at most; the refresh interval, if that is shorter."""

REMIND = 60.0
"""Seconds between two log lines about a name that can't be resolved."""

MOST_REASONS = 8
"""How many different reasons of a failure are logged at once."""

MAX_ADDRESSES = 256
"""Addresses of one name that are used."""

MAX_ABANDONED = 2
"""
How many timed-out lookups of one name may still be running before no new one begins.
Each occupies a thread of the reactor's pool, since the system's resolver can't be
interrupted.
"""

ABANDONED_FORGOTTEN = 300.0
"""Seconds after which a lookup that has not ended no longer counts as running."""


class IAnswerReceiver(IResolutionReceiver):
    """Receives the addresses of a name, and more from resolvers that know more."""

    def lifetime(seconds: float) -> None:  # noqa: N805
        """Report the lifetime of the addresses, in seconds."""

    def failed(reason: str) -> None:  # noqa: N805
        """Report why there are no addresses; C{resolutionComplete} follows."""


@implementer(IAnswerReceiver)
class _Lookup:
    """
    One lookup.

    @ivar addresses: the IP addresses received so far, as ordered keys.
    @ivar good_for: their lifetime in seconds; L{None} if unknown.
    @ivar reason: why there are none.
    """

    def __init__(self, ended: Callable[[_Lookup], None]) -> None:
        self.addresses: dict[str, None] = {}
        self.good_for: float | None = None
        self.reason = "it has no address"
        self._ended = ended
        self._resolution: IHostResolution | None = None

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:  # noqa: N802, N803
        """Keep the handle for L{cancel}."""
        self._resolution = resolutionInProgress

    def addressResolved(self, address: IAddress) -> None:  # noqa: N802
        """Record an address; only IPv4 and IPv6 count."""
        if isinstance(address, (IPv4Address, IPv6Address)) and len(self.addresses) < MAX_ADDRESSES:
            self.addresses[address.host] = None

    def lifetime(self, seconds: float) -> None:
        """See L{IAnswerReceiver}."""
        self.good_for = seconds

    def failed(self, reason: str) -> None:
        """See L{IAnswerReceiver}."""
        self.reason = reason

    def resolutionComplete(self) -> None:  # noqa: N802
        """End the lookup."""
        self._ended(self)

    def cancel(self) -> bool:
        """
        Cancel the lookup.

        @return: whether the resolver could; Twisted's own can't.
        """
        if self._resolution is None:
            return False
        try:
            self._resolution.cancel()
        except NotImplementedError:
            return False
        except Exception:
            log.failure("a resolver failed to cancel a lookup")
            return False
        return True


class ReresolvingName:
    """
    A host name that is resolved periodically.

    @ivar host: the name.
    @ivar addresses: its IP addresses by the last successful lookup.
    """

    def __init__(
        self,
        host: str,
        resolve: Callable[[IResolutionReceiver, str], object],
        clock: IReactorTime,
        changed: Callable[[], None],
        refresh: float = REFRESH,
        random: Callable[[], float] = default_random,
        *,
        respect_lifetime: bool = False,
    ) -> None:
        """
        @param resolve: starts a lookup for an L{IAnswerReceiver}, like a
            resolver's C{resolveHostName}.
        @param changed: called when the addresses have changed.
        @param refresh: seconds between two lookups when the name has addresses;
            0 to look it up only until it has.
        @param random: numbers from 0 to 1 for jitter.
        @param respect_lifetime: whether to resolve the name when its addresses
            expire instead, if the resolver reports a lifetime.
        """
        self.host = host
        self.addresses: tuple[str, ...] = ()
        self._resolve = resolve
        self._clock = clock
        self._changed = changed
        self.refresh = refresh
        self._random = random
        self._respect_lifetime = respect_lifetime
        self._failures = 0
        self._told: float | None = None  # when it was said last that it fails
        self._reasons: set[str] = set()
        self._current: _Lookup | None = None
        self._next: IDelayedCall | None = None
        self._abandoned: dict[_Lookup, float] = {}

    def look_up(self) -> None:
        """Start a lookup, and all later ones after it."""
        self._next = self._clock.callLater(LOOKUP_TIMEOUT, self._too_late)
        lookup = self._current = _Lookup(self._ended)
        try:
            self._resolve(lookup, self.host)
        except Exception as error:
            # An error after the end of the lookup does not matter.
            if self._current is lookup:
                self._stop_waiting()
                self._failed(str(error) or type(error).__name__)

    def stop(self) -> None:
        """Stop all lookups."""
        lookup = self._stop_waiting()
        if lookup is not None:
            lookup.cancel()

    def _stop_waiting(self) -> _Lookup | None:
        if self._next is not None and self._next.active():
            self._next.cancel()
        lookup, self._current = self._current, None
        return lookup

    def _too_late(self) -> None:
        lookup = self._stop_waiting()
        if lookup is not None and not lookup.cancel():
            self._abandoned[lookup] = self._clock.seconds()
        self._failed(f"no answer within {LOOKUP_TIMEOUT:g} s")

    def _ended(self, lookup: _Lookup) -> None:
        self._abandoned.pop(lookup, None)
        if lookup is not self._current:
            return
        self._stop_waiting()
        if not lookup.addresses:
            self._failed(lookup.reason)
            return
        self._recovered()
        if self._respect_lifetime and lookup.good_for:
            # A second later than they expire, as MOSN has it, so that a cache on the way has expired too.
            self._again(lookup.good_for + 1)
        elif self.refresh > 0:
            self._again(self.refresh * (0.9 + 0.2 * self._random()))
        # Resolvers rotate addresses: another order is no change.
        if set(lookup.addresses) != set(self.addresses):
            self.addresses = tuple(lookup.addresses)
            log.info(
                "{host} has the addresses {addresses}", host=self.host, addresses=", ".join(self.addresses)
            )
            self._changed()

    def _recovered(self) -> None:
        if self._told is not None:
            log.info(
                "looking up {host} works again, after {attempts}",
                host=self.host,
                attempts=counted(self._failures, "failed attempt"),
            )
        self._failures = 0
        self._told = None
        self._reasons.clear()

    def _failed(self, reason: str) -> None:
        self._failures += 1
        most = max(RETRY_BASE, min(RETRY_MAX, self.refresh) if self.refresh > 0 else RETRY_MAX)
        delay = min(most, RETRY_BASE * 2 ** min(self._failures - 1, 16))
        delay *= 0.5 + 0.5 * self._random()
        self._tell(reason, delay)
        self._again(delay)

    def _tell(self, reason: str, delay: float) -> None:
        """Log a failure: the first one, those with a new reason, and reminders."""
        now = self._clock.seconds()
        reminds = self._told is None or now - self._told >= REMIND
        fresh = reason not in self._reasons and len(self._reasons) < MOST_REASONS
        if reminds or fresh:
            self._told = now
            self._reasons.add(reason)
        known = len(self.addresses)
        left = "no address is known"
        if known:
            left = "1 known address stays in use" if known == 1 else f"{known} known addresses stay in use"
        log.emit(
            LogLevel.warn if reminds or fresh else LogLevel.debug,
            "looking up {host} failed: {reason}{again}; {left}; next attempt in {delay:.1f} s",
            host=self.host,
            delay=delay,
            known=known,
            left=left,
            again=f" ({self._failures} times now)" if self._failures > 1 else "",
            reason=reason,
        )

    def _again(self, delay: float) -> None:
        self._next = self._clock.callLater(delay, self._look_up_again)

    def _look_up_again(self) -> None:
        now = self._clock.seconds()
        self._abandoned = {
            lookup: since for lookup, since in self._abandoned.items() if now - since < ABANDONED_FORGOTTEN
        }
        if len(self._abandoned) < MAX_ABANDONED:
            self.look_up()
        else:
            self._failed(f"{len(self._abandoned)} earlier lookups are still under way")
