"""Write responses to clients of HTTP/1: those of hosts, and our own."""

from __future__ import annotations

__all__ = ["Answering"]

from collections.abc import Sequence
from typing import Any

from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.proxy.http.exchange import Exchange
from reverseproxy.proxy.http.http1_closing import CLOSING, OPEN
from reverseproxy.proxy.http.http1_sessions import ClientSessions
from reverseproxy.proxy.http.settings import HttpSettings
from reverseproxy.transport.backlog import Backlog, backlog_of
from reverseproxy.wire.http.message import END, Event, Response
from reverseproxy.wire.http.unsent import UNSENT_FIELD
from reverseproxy.wire.http1.heads import ResponseHead


class Answering(ClientSessions):
    """
    The part of a client's connection that writes responses.

    @ivar full: whether the transport holds as much of a response as it should.
    """

    def __init__(self, settings: HttpSettings, info: ConnectionInfo) -> None:
        super().__init__(settings, info)
        self.full = False

    # what a subclass does

    @property
    def _goes_on(self) -> bool:
        """Whether another request may follow the current one."""
        raise NotImplementedError

    def _upgrade_declined(self) -> None:
        """Read on in HTTP behind a request to switch protocols that was answered otherwise."""
        raise NotImplementedError

    def exchange_done(self, exchange: Exchange) -> None:
        """See L{reverseproxy.proxy.http.interfaces.IDownstream}."""
        raise NotImplementedError

    # what an exchange tells us

    def backlog(self) -> Backlog:
        """See L{reverseproxy.proxy.http.interfaces.IDownstream}."""
        return backlog_of(self.transport)

    def response_sink(self) -> Any:
        """See L{reverseproxy.proxy.http.interfaces.IDirectAnswer}."""
        return None if self._writer.chunked or self._closing_phase >= CLOSING else self.transport

    def send(self, exchange: Exchange, events: Sequence[Event]) -> None:
        """See L{reverseproxy.proxy.http.interfaces.IDownstream}: one write for all of them."""
        request = exchange.head
        data = self._writer.write(request, events, exchange.request_complete and self._goes_on)
        if request.upgrade and any(isinstance(event, Response) and event.status >= 200 for event in events):
            self._upgrade_declined()
        if data:
            self.transport.write(data)

    def send_whole(self, exchange: Exchange, head: Response, data: bytes, begin: int) -> None:
        """See L{reverseproxy.proxy.http.interfaces.IDirectAnswer}."""
        request, writer = exchange.head, self._writer
        if (
            type(head) is ResponseHead
            and head.forwardable_verbatim
            and request.http11
            and writer.persists
            and exchange.request_complete
            and self._closing_phase is OPEN
            and not (self._eof or request.upgrade)
        ):
            # Nothing has to be changed.
            writer.skip()
            self.transport.write(data)
        else:
            self.send(exchange, [head, data[begin:], END])

    def reply(
        self, exchange: Exchange, status: int, body: bytes, content_type: bytes, location: bytes
    ) -> None:
        """See L{reverseproxy.proxy.http.interfaces.IDownstream}."""
        request, writer = exchange.head, self._writer
        fields = []
        if location:
            fields.append((b"location", location))
        if unsent := exchange.unsent_field():
            fields.append((UNSENT_FIELD, unsent))
        goes_on = exchange.request_complete and self._goes_on
        data, exchange.sent = writer.answer(request, status, (content_type, body), fields, goes_on)
        self.transport.write(data)
        if writer.keep_alive and request.upgrade:
            self._upgrade_declined()
        self.exchange_done(exchange)

    # IPushProducer: we are the producer of what the client is to receive

    def pauseProducing(self) -> None:
        """The transport's buffer is full."""
        self.full = True
        if self._exchange is not None:
            self._exchange.downstream_full(True)

    def stopProducing(self) -> None:
        """The connection is lost; C{connectionLost} follows."""
