"""The base of server listers that ask for a list again and again."""

from __future__ import annotations

__all__ = ["PollingLister"]

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from zope.interface import implementer

from reverseproxy.interfaces import IServerLister


@implementer(IServerLister)
class PollingLister(ABC):
    """Asks regularly; failures leave the last list in use."""

    def __init__(self, interval: float, reactor: Any) -> None:
        """@param interval: seconds between a response and the next request."""
        self._interval = interval
        self._reactor = reactor
        self._call: IDelayedCall | None = None
        self._asking: Deferred[None] | None = None
        self._stopped = False

    @abstractmethod
    async def fetch(self) -> Sequence[Any]:
        """
        Ask once.

        @return: the servers.
        @raise Exception: if there is no response, or an invalid one.
        """

    @abstractmethod
    def failed(self, error: Exception) -> None:
        """Log why there are no servers."""

    def start(self, update: Callable[[Sequence[str]], None]) -> None:
        """Start to ask; see L{IServerLister.start}."""
        self._stopped = False
        self._begin(update)

    def stop(self) -> None:
        """Stop; see L{IServerLister.stop}."""
        self._stopped = True
        if self._call is not None and self._call.active():
            self._call.cancel()
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.cancel()

    def _begin(self, update: Callable[[Sequence[str]], None]) -> None:
        self._asking = Deferred.fromCoroutine(self._ask(update))

    async def _ask(self, update: Callable[[Sequence[str]], None]) -> None:
        try:
            servers = await self.fetch()
        except Exception as error:
            if self._stopped:
                return  # cancelled by stop()
            self.failed(error)
        else:
            update(servers)
        if not self._stopped:
            self._call = self._reactor.callLater(self._interval, self._begin, update)
