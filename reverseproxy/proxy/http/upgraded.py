"""
Sessions of upgraded requests, such as WebSockets.

A session lasts until either side ends it, or nothing has been transferred for
too long.
"""

from __future__ import annotations

__all__ = ["Upgraded", "is_websocket"]

from functools import partial
from math import inf
from typing import TYPE_CHECKING

from twisted.logger import Logger

from reverseproxy.config.durations import format_duration
from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.proxy.flags import ResponseFlag
from reverseproxy.proxy.relay import RelayEnd
from reverseproxy.proxy.sessions import SessionWatch
from reverseproxy.transport.closing import CloseLimits
from reverseproxy.wire.http.websocket import GOING_AWAY, close_frame

if TYPE_CHECKING:
    from reverseproxy.proxy.http.exchange import Exchange
    from reverseproxy.proxy.http.settings import HttpSettings

log = Logger()


def is_websocket(exchange: Exchange) -> bool:
    """Whether an upgraded request becomes a WebSocket."""
    return exchange.head.upgrade.lower() == b"websocket"


class Upgraded:
    """The session of one upgraded request."""

    __slots__ = ("_ends", "_exchange", "_idle", "_info", "_settings", "_watch")

    def __init__(
        self,
        exchange: Exchange,
        client: RelayEnd,
        host: RelayEnd,
        settings: HttpSettings,
        info: ConnectionInfo,
    ) -> None:
        """
        @param exchange: the request.
        @param client: the client's end of the session.
        @param host: the other one.
        """
        self._exchange = exchange
        self._ends = client, host
        self._settings = settings
        self._info = info
        chosen = exchange.host
        is_reverse = chosen is not None and chosen.is_reverse
        close_limits = CloseLimits(stall=settings.stream_idle)
        address = "the host" if chosen is None else chosen.address
        client.close_limits = close_limits._replace(
            excused=info.reverse, told=partial(self._lost, info.remote)
        )
        host.close_limits = close_limits._replace(excused=is_reverse, told=partial(self._lost, address))
        if is_reverse and is_websocket(exchange):
            # An agent that only relays bytes can't say it, and its service may never have had a chance.
            host.unsaid = close_frame(GOING_AWAY, "the agent, or the service behind it, has gone")
        idle = exchange.stream_idle
        self._idle = (settings.session_idle or inf) if idle is None else idle
        self._watch: SessionWatch | None = None
        if self._idle < inf:
            self._watch = SessionWatch(
                exchange.clock,
                self._ends,
                self._idle,
                self._expired,
                partial(_excused, info.reverse, is_reverse),
            )

    def _expired(self) -> None:
        """End the session, as nothing has passed for too long."""
        key = "upgrade_idle_timeout of the proxy filter"
        if self._exchange.stream_idle is not None:
            key = "idle_timeout of the route"
        self._cut(f"nothing has passed for {format_duration(self._idle)}; see {key}", ResponseFlag.SI)
        for end in self._ends:
            end.cut()

    @property
    def doing(self) -> str:
        """What kind of session it is, in a word."""
        if is_websocket(self._exchange):
            return "WebSocket"
        return f"session of {self._exchange.head.upgrade.decode('ascii', 'replace')[:40]}"

    def end(self, reason: str) -> None:
        """
        End it: a WebSocket by a close frame to the client, whose answer goes to the host; any other
        one by the end of what either end is sent.
        """
        self._exchange.flag = self._exchange.flag or reason
        self._exchange.flags |= ResponseFlag.LR
        client, host = self._ends
        if not host.say_last(close_frame(GOING_AWAY, reason)):
            client.end_sending()
            host.end_sending()

    def _lost(self, peer: str, reason: str) -> None:
        self._cut(f"{peer} closes too slowly: {reason}", ResponseFlag.LR)

    def _cut(self, reason: str, flags: int) -> None:
        exchange, complaints = self._exchange, self._settings.complaints
        exchange.flag = exchange.flag or reason
        exchange.flags |= flags
        if complaints.allow():
            log.info(
                "{listener}: the upgraded connection of {peer} is cut off: {reason}{suppressed}",
                listener=self._settings.listener,
                peer=self._info.remote,
                reason=reason,
                suppressed=complaints.suppressed,
            )

    def stop(self) -> None:
        """Stop watching, as the session is over."""
        if self._watch is not None:
            self._watch.stop()


def _excused(reverse: bool, is_reverse: bool, client_waits: bool, host_waits: bool) -> bool:
    """Whether the bytes that wait are for a peer behind a tunnel, which has timeouts of its own."""
    return (reverse and client_waits) or (is_reverse and host_waits)
