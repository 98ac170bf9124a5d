"""
The health of the service that an agent makes reachable.

A hosting listener may route to several clusters. As long as one of them is reachable, the service counts
as healthy; requests for the others are answered with "not sent" (L{reverseproxy.wire.http.unsent}).
"""

from __future__ import annotations

__all__ = ["HostedService"]

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from zope.interface import implementer

from reverseproxy.cluster.health.reachability import Reach
from reverseproxy.interfaces import IService

log = Logger()


@implementer(IService)
class HostedService:
    """
    The service behind a hosting listener.

    @ivar well: whether it is reachable, as far as that is known.
    """

    def __init__(self, name: str, reaches: Sequence[Reach] = ()) -> None:
        """
        @param name: for logs.
        @param reaches: one for each cluster that the listener may route to, if all of them have hosts to
            connect to; otherwise empty, and the service counts as healthy.
        """
        self.well = True
        self._name = name
        self._reaches: Sequence[Reach] = ()
        self._watchers: list[Callable[[bool], object]] = []
        self._waiters: list[Deferred[None]] = []
        self.follow(reaches)

    def follow(self, reaches: Sequence[Reach]) -> None:
        """Use other clusters from now on; see C{reaches} of the constructor."""
        if list(reaches) == list(self._reaches):
            return
        for reach in self._reaches:
            reach.unwatch(self._look)
        self._reaches = reaches
        for reach in reaches:
            reach.watch(self._look)
        self._look()

    def watch(self, told: Callable[[bool], object]) -> None:
        """Add a callback that is called with C{well} whenever it has changed."""
        self._watchers.append(told)

    def unwatch(self, told: Callable[[bool], object]) -> None:
        """Remove a callback."""
        if told in self._watchers:
            self._watchers.remove(told)

    def until_well(self) -> Deferred[None]:
        """
        Wait until the service is reachable.

        @return: may be cancelled.
        """
        if self.well:
            return succeed(None)
        waiter: Deferred[None] = Deferred(self._cancelled)
        self._waiters.append(waiter)
        return waiter

    def _cancelled(self, waiter: Deferred[None]) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)

    def _look(self) -> None:
        well = not self._reaches or any(reach.well for reach in self._reaches)
        if well is not self.well:
            self.well = well
            if well:
                log.info("the service behind {name} can be reached again", name=self._name)
            else:
                log.warn("the service behind {name} can't be reached; servers are told", name=self._name)
            for told in list(self._watchers):
                told(well)
        if well:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                waiter.callback(None)
