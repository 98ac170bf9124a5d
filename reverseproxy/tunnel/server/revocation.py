"""
Revocation of agents that have joined, and would not be let in any more.

A token that is removed from its file, a certificate or CA that is revoked, a shorter list of clusters:
what was checked when a connection joined is checked again when any of that may have changed. A
connection that does not qualify any more gets no further request, and is closed when its requests have
finished, in L{GRACE} seconds at the latest.
"""

from __future__ import annotations

__all__ = ["GRACE", "LOOK", "IJoined", "Revocations"]

from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from reverseproxy.interfaces import IConnectionValidator, IRevoking
from reverseproxy.logs import counted

log = Logger()

LOOK: Final = 1.0
"""Seconds between two checks for changes."""

GRACE: Final = 2.5
"""Seconds for requests on a connection that is revoked."""

LATE: Final = 5 * LOOK
"""Seconds after which every worker has detected a change that one of them has."""

AT_ONCE: Final = 50
"""Connections that are judged in one turn of the reactor."""


class IJoined(Protocol):
    """A connection that has joined."""

    def judge_again(self, credentials: bool) -> Deferred[str] | str:
        """
        Check whether it would be let in now.

        @param credentials: whether to ask validators, too, that can't tell what has changed.
        @return: why not; empty if it would.
        """

    def revoke(self, reason: str, grace: float) -> None:
        """Send it no further request, and close it after C{grace} seconds."""


class Revocations:
    """
    Judges the connections of one listener again.

    @ivar reviews: how often something has changed by which a connection may not qualify any more; one
        that was accepted before, and joins after, has to be judged again.
    """

    def __init__(
        self,
        listener: str,
        validators: Callable[[], Iterable[IConnectionValidator]],
        clock: IReactorTime,
    ) -> None:
        """@param validators: returns the present validators."""
        self.reviews = 0
        self._reviewed = float("-inf")
        self._listener = listener
        self._joined: dict[IJoined, None] = {}
        self._validators = validators
        self._clock = clock
        self._left: list[IJoined] = []
        self._credentials = False
        self._running = False
        self._let_go = 0

    def add(self, connection: IJoined) -> None:
        """Include a connection in reviews."""
        self._joined[connection] = None

    def discard(self, connection: IJoined) -> None:
        """Exclude a connection from reviews, if it is included."""
        self._joined.pop(connection, None)

    def look(self, changed: bool = False) -> None:
        """
        Review all connections if anything has changed.

        @param changed: whether something else has, such as certificates.
        """
        for validator in self._validators():
            revoking = IRevoking(validator, None)
            if revoking is not None and revoking.look():
                changed = True
        if changed:
            self.review(False)

    def review(self, credentials: bool) -> None:
        """
        Judge all connections again.

        @param credentials: see L{IJoined.judge_again}.
        """
        self.reviews += 1
        self._reviewed = self._clock.seconds()
        self._left = list(self._joined)
        self._credentials = credentials or (self._credentials and self._running)
        if not self._running and self._left:
            self._running = True
            self._go_on()

    def arrived(self, connection: IJoined) -> None:
        """
        Judge a connection that has come from another worker, which may not have detected a recent
        change.

        A later change is detected with the other connections.
        """
        if self._clock.seconds() - self._reviewed < LATE:
            self.review_one(connection, False)

    def _go_on(self) -> None:
        part, self._left = self._left[-AT_ONCE:], self._left[:-AT_ONCE]
        judged = [self.review_one(each, self._credentials) for each in part]
        DeferredList(judged).addCallback(self._next)

    def _next(self, _: Any) -> None:
        if self._left:
            self._clock.callLater(0, self._go_on)
        else:
            self._running = self._credentials = False
            count, self._let_go = self._let_go, 0
            if count:
                log.warn(
                    "{listener}: {connections} of agents revoked, as they would not be admitted now",
                    listener=self._listener,
                    connections=counted(count, "connection"),
                    count=count,
                )

    def review_one(self, connection: IJoined, credentials: bool = True) -> Deferred[None]:
        """Judge one connection again."""
        judging = maybeDeferred(connection.judge_again, credentials)
        return judging.addCallbacks(self._judged, self._failed, (connection,))

    def _judged(self, reason: str, connection: IJoined) -> None:
        if reason:
            self._let_go += 1
            connection.revoke(reason, GRACE)

    def _failed(self, reason: Failure) -> None:
        log.failure("{listener}: a connection could not be judged again", reason, listener=self._listener)

    def revoke_all(self, reason: str) -> None:
        """Revoke all connections."""
        joined = list(self._joined)
        if joined:
            log.info(
                "{listener}: {connections} revoked: {reason}",
                listener=self._listener,
                connections=counted(len(joined), "connection"),
                reason=reason,
            )
        for each in joined:
            each.revoke(reason, GRACE)
