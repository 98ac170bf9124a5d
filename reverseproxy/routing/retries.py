"""
Whether to retry a request.

MOSN's rules (C{pkg/proxy/retrystate.go}) are: there are three retries, or
C{num_retries} if that is more, also without a policy; a connection that could
not be made is always tried again; with C{retry_on} so are attempts that took
too long, connections that were lost, and responses with a status of 500 or above,
or of C{status_codes} if there are any; what overflows a limit never is; and
before each retry there is a pause of L{RETRY_PAUSE}.

MOSN retries every request.  Here a request that a host may have seen is retried
only if that is safe, so that no order is placed twice.
"""

from __future__ import annotations

__all__ = ["DEFAULT_RETRY", "RETRY_PAUSE", "Cause", "RetryPolicy", "should_retry"]

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from reverseproxy.config.models import RetryPolicyConfig

RETRY_PAUSE: Final = 0.01
"""Seconds between the end of an attempt and the next one."""

RETRIES: Final = 3
"""Retries of a request, if the policy does not allow more."""


class Cause(Enum):
    """Why an attempt failed, apart from a status."""

    UNREACHABLE = auto()
    """No connection to the host could be made."""

    STALE = auto()
    """An idle connection was closed when the request was sent, most likely before the host saw it."""

    LOST = auto()
    """The connection, or the stream, was lost before there was a response."""

    TRY_TIMEOUT = auto()
    """There was no response in the time of one attempt."""

    STATUS = auto()
    """There was a response; only for L{RetryPolicy.on}, as L{should_retry} is given the status itself."""

    TIMEOUT = auto()
    """The time for the whole exchange is over."""

    OVERFLOW = auto()
    """A limit of the cluster: too many requests in progress, or waiting."""


_ALWAYS: Final = frozenset({Cause.UNREACHABLE, Cause.STALE})
_NEVER: Final = frozenset({Cause.TIMEOUT, Cause.OVERFLOW})


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """
    When to retry a request.

    @ivar try_timeout: seconds that one attempt may take; 0.0 for no limit but
        that of the whole exchange.  L{reverseproxy.routing.timeouts.timeouts} decides
        on the limits of one request.
    @ivar retries: the most retries.
    @ivar on: the outcomes that are retried, if that is safe.
    @ivar status_codes: the statuses that L{Cause.STATUS} means; if there are
        none, those of 500 and above.
    @ivar heeds_status: whether any status is retried.
    """

    try_timeout: float = 0.0
    retries: int = RETRIES
    on: frozenset[Cause] = _ALWAYS
    status_codes: frozenset[int] = frozenset()
    heeds_status: bool = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "heeds_status", Cause.STATUS in self.on)

    @classmethod
    def of_config(cls, config: RetryPolicyConfig) -> RetryPolicy:
        """Make the policy of a route's configuration."""
        return cls(
            max(config.retry_timeout, 0.0),
            max(RETRIES, config.num_retries),
            _ALWAYS | {Cause.LOST, Cause.TRY_TIMEOUT, Cause.STATUS} if config.retry_on else _ALWAYS,
            frozenset(config.status_codes),
        )

    def wants(self, outcome: Cause | int) -> bool:
        """Return whether an outcome, a cause or a status, is retried if that is safe."""
        if isinstance(outcome, Cause):
            return outcome in self.on
        if not self.heeds_status:
            return False
        return outcome in self.status_codes if self.status_codes else outcome >= 500


DEFAULT_RETRY: Final = RetryPolicy()
"""The policy of routes without C{retry_policy}."""


def should_retry(
    policy: RetryPolicy, attempt: int, outcome: Cause | int, unsent: bool, idempotent: bool
) -> bool:
    """
    Decide whether to retry a request.

    The rule: as long as there are retries left, a request that no host can have
    seen is retried, whatever it is and whatever the policy says; one that a host
    may have seen is retried if the policy has it and it is safe to repeat.  When a
    limit is reached or the time of the exchange is over, nothing is retried.

    A status shows that a host has seen the request, so that the policy decides
    even where the caller knows that the host has not acted upon it.

    @param attempt: how many attempts there were: 1 after the first.
    @param outcome: the outcome of the last one: a cause, or the status of a
        response of which nothing was forwarded yet.
    @param unsent: whether no host can have acted upon the request: no
        connection was made, or the host has said so (HTTP/2's REFUSED_STREAM, a
        stream above that of GOAWAY).
    @param idempotent: whether it may be acted upon twice (RFC 9110 9.2.2), and
        all of it is at hand to be sent again.
    """
    if attempt > policy.retries or outcome in _NEVER or not (unsent or idempotent):
        return False
    if unsent and isinstance(outcome, Cause):
        return True
    return policy.wants(outcome)
