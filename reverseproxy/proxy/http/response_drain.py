"""
Read a response that no client waits for, to keep the connection that it comes on.

A connection of HTTP/1 can't be reused before the response to its request is
complete.  A connection that can be made anew is closed instead; but a reverse
connection without streams is a host, which its agent would have to connect
again.  So, if the client gave up for no fault of the host, the response gets a
few seconds to complete.
"""

from __future__ import annotations

__all__ = ["MAX_BYTES", "PATIENCE", "ResponseDrain"]

from collections.abc import Callable
from typing import Final, Protocol

from twisted.internet.interfaces import IReactorTime

from reverseproxy.proxy.flags import ResponseFlag
from reverseproxy.wire.http.message import End, Event, Response

PATIENCE: Final = 3.0
"""Seconds in which the answer must have come."""

MAX_BYTES: Final = 256 * 1024
"""Bytes of its body that are taken; more are not worth the connection."""


class IReusableConnection(Protocol):
    """The connection to be kept."""

    def finish(self, reusable: bool) -> None:
        """See L{reverseproxy.proxy.http.interfaces.IUpstream}."""

    def abort(self, reason: str) -> None:
        """See L{reverseproxy.proxy.http.interfaces.IUpstream}."""


class ResponseDrain:
    """Discards the rest of a response in place of its exchange, so that the connection can be used again."""

    response_waiting = 0
    """Bytes of the response that wait for a client: none, as it is discarded."""

    def __init__(self, client: IReusableConnection, clock: IReactorTime, release: Callable[[], None]) -> None:
        """
        @param release: returns the host to its cluster.
        """
        self._client: IReusableConnection | None = client
        self._release = release
        self._size = 0
        self._timer = clock.callLater(PATIENCE, self._give_up, "nobody waits for the answer")

    def upstream_full(self, full: bool) -> None:
        """See L{reverseproxy.proxy.http.interfaces.IExchange}."""

    def upstream_events(self, events: list[Event]) -> None:
        """See L{reverseproxy.proxy.http.interfaces.IExchange}; only the end of the response matters."""
        for event in events:
            if isinstance(event, Response):
                if event.status == 101:
                    self._give_up("the host switched protocols")
                    return
            elif type(event) is bytes:
                self._size += len(event)
            elif type(event) is End:
                client = self._end()
                if client is not None:
                    client.finish(True)
                self._release()
                return
            else:
                self._give_up(str(event))
                return
        if self._size > MAX_BYTES:
            self._give_up("the answer that nobody waits for is long")

    def upstream_lost(
        self,
        reason: str,
        unsent: bool = False,
        code: int = 0,
        terminated: bool = False,
        flags: int = ResponseFlag.UC,
    ) -> None:
        """See L{reverseproxy.proxy.http.interfaces.IExchange}."""
        self._end()
        self._release()

    def _give_up(self, reason: str) -> None:
        client = self._end()
        if client is not None:
            client.abort(reason)
        self._release()

    def _end(self) -> IReusableConnection | None:
        if self._timer.active():
            self._timer.cancel()
        client, self._client = self._client, None
        return client
