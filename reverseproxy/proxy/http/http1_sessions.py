"""The current exchange of a client's HTTP/1 connection, and the session that it becomes after an upgrade."""

from __future__ import annotations

__all__ = ["ClientSessions"]

from math import inf

from twisted.python.failure import Failure

from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.proxy.flags import ResponseFlag
from reverseproxy.proxy.http.client_side import record
from reverseproxy.proxy.http.exchange import Exchange
from reverseproxy.proxy.http.http1_closing import CLOSING, EXCHANGE, IDLE, LOST, ClientClosing
from reverseproxy.proxy.http.http1_switch import switch
from reverseproxy.proxy.http.interfaces import IUpgraded
from reverseproxy.proxy.http.settings import HttpSettings
from reverseproxy.proxy.http.upgraded import Upgraded, is_websocket
from reverseproxy.wire.http1.writing import ResponseWriter


class ClientSessions(ClientClosing):
    """The part of a client's connection that has the current exchange or session."""

    def __init__(self, settings: HttpSettings, info: ConnectionInfo) -> None:
        super().__init__(settings, info)
        self._writer = ResponseWriter()
        self._exchange: Exchange | None = None
        self._tunnel: tuple[Exchange, IUpgraded] | None = None
        self._session: Upgraded | None = None

    # what a subclass does

    def _take_held(self) -> bytes:
        """Return what came behind a request to switch protocols."""
        raise NotImplementedError

    # IEndable

    @property
    def doing(self) -> str:
        """See L{IEndable}."""
        if self._session is not None and self._tunnel is not None:
            return self._session.doing
        if self._exchange is not None:
            return "HTTP/1 response" if self._exchange.response_started else "HTTP/1 request"
        return "closing" if self._closing_phase >= CLOSING else "part of a request" if self.busy else ""

    def end(self, reason: str) -> None:
        """See L{IEndable}."""
        if self._session is not None and self._tunnel is not None:
            self._session.end(reason)
        elif self._exchange is not None:
            self._exchange.fail(503, reason, ResponseFlag.LR)
        elif not self.info.reverse:
            self._close(linger=True)

    # ClientClosing

    def _idle_too_long(self) -> None:
        if self._exchange is None:
            self._look_at_idle()

    def _look_at_exchange(self) -> None:
        exchange = self._exchange
        if exchange is not None:
            again = exchange.look(self._seconds())
            if again < inf and self._exchange is exchange:
                self._set_deadline(again, EXCHANGE)

    # endings of a request

    def exchange_broken(self, exchange: Exchange) -> None:
        """See L{reverseproxy.proxy.http.interfaces.IDownstream}."""
        self._exchange = None
        record(self.settings, exchange)
        head = exchange.response_head
        # The client sees that something is missing, and gets what there is; unless the end of the
        # connection would be the end of the body.
        self._close(linger=not exchange.request_complete)
        if exchange.ending.stalled or head is None or (head.length < 0 and not self._writer.chunked):
            self.transport.abortConnection()

    def _cancel(self, reason: str, flags: int) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.cancel(reason, flags)
            record(self.settings, exchange)

    # what has become of one

    def upgraded(self, exchange: Exchange, client: IUpgraded) -> None:
        """See L{reverseproxy.proxy.http.interfaces.IDownstream}."""
        self.count(0)
        self._exchange = None
        self._tunnel = (exchange, client)
        self._set_deadline(inf, IDLE)
        switch(
            self,
            self._take_held(),
            client,
            client.take_rest(),
            self.settings.clock,
            (self._tunnel_closed, exchange.tunnel_closed),
            is_websocket(exchange),
        )
        if self.relay is not None and client.relay is not None and self._closing_phase is not LOST:
            self._session = Upgraded(exchange, self.relay, client.relay, self.settings, self.info)
        if self._eof and self.relay is not None:
            self.relay.readConnectionLost()

    def _tunnel_closed(self, reason: Failure) -> None:
        if self._tunnel is None or self.relay is None:
            return
        (exchange, client), self._tunnel = self._tunnel, None
        exchange.session_ended(reason, ResponseFlag.DC)
        if self._session is not None:
            self._session.stop()
        exchange.received += self.relay.received
        exchange.sent += 0 if client.relay is None else client.relay.received
        record(self.settings, exchange)
