"""
Interfaces between an exchange and its two connections, in every version of HTTP.

    client  <-- IDownstream --  Exchange  -- IUpstream -->  host
                                          <-- IExchange --

Everything can send and receive messages as events
(L{reverseproxy.wire.http.message}).  Two shortcuts are optional: a response that
was received in one piece is forwarded in one piece, and most of a long body is
spliced from socket to socket.  They need an L{IDirectAnswer} (a client's
connection), an L{IDirectReader} (an exchange) and an L{IDirectRequest} (a
connection to a host), of which the first two are passed as arguments.  Where
these are missing, events are used.
"""

from __future__ import annotations

__all__ = [
    "IDirectAnswer",
    "IDirectReader",
    "IDirectRequest",
    "IDownstream",
    "IExchange",
    "IUpgraded",
    "IUpstream",
]

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from twisted.internet.interfaces import IReactorTime

from reverseproxy.interfaces import ConnectionInfo, IGate
from reverseproxy.proxy.flags import ResponseFlag
from reverseproxy.proxy.relay import RelayEnd
from reverseproxy.transport.backlog import Backlog
from reverseproxy.wire.http.forwarded import ForwardedBy
from reverseproxy.wire.http.message import Event, Request, Response

if TYPE_CHECKING:
    from reverseproxy.proxy.http.exchange import Exchange
    from reverseproxy.proxy.http.settings import HttpSettings


class IExchange(Protocol):
    """What a connection or stream to a host needs of its exchange."""

    def upstream_events(self, events: list[Event]) -> None:
        """Take a part of the response."""

    @property
    def response_waiting(self) -> int:
        """How many bytes of the response are buffered for the client, at most."""

    def upstream_lost(
        self,
        reason: str,
        unsent: bool = False,
        code: int = 0,
        terminated: bool = False,
        flags: int = ResponseFlag.UC,
    ) -> None:
        """
        Take the loss of the connection before the response was complete.

        @param unsent: whether the host did not process the request, as HTTP/2 can
            tell.
        @param code: the host's error code, which clients of the same version get;
            0 for none.
        @param terminated: whether a connection with many active requests was lost.
        @param flags: the reason as codes; see L{reverseproxy.proxy.flags}.
        """

    def upstream_full(self, full: bool) -> None:
        """Pause or resume reading of the request, as the host's buffer is full or has room."""


class IDirectReader(Protocol):
    """An exchange that takes responses by the shorter ways, too."""

    def upstream_whole(self, head: Response, data: bytes, begin: int) -> None:
        """
        Take a complete response.

        @param data: the complete message.
        @param begin: where its body begins in C{data}.
        """

    def response_sink(self) -> Any:
        """
        Return the transport to which the body can be spliced.

        @return: a transport, to which nothing else is written until the body has
            ended, or the connection to the host is lost; L{None} if there is none.
        """

    def response_passed(self, size: int) -> None:
        """Note that bytes of the body have been spliced."""


class IDirectAnswer(Protocol):
    """A client's connection that sends responses by the shorter ways, too."""

    def send_whole(self, exchange: Exchange, head: Response, data: bytes, begin: int) -> None:
        """Send a complete response; see L{IDirectReader.upstream_whole}."""

    def response_sink(self) -> Any:
        """See L{IDirectReader.response_sink}."""


@runtime_checkable
class IDirectRequest(Protocol):
    """A connection to a host that sends requests by the shorter way, too."""

    def request_sink(self) -> Any:
        """
        Return the transport to which the body can be spliced.

        @return: a transport; L{None} if there is none.
        """


class IUpgraded(Protocol):
    """
    A connection, or a stream of one, that has agreed to switch protocols.

    @ivar relay: handles it since then.
    """

    @property
    def relay(self) -> RelayEnd | None:  # noqa: D102
        ...

    def become_relay(self, clock: IReactorTime, early: bytes) -> RelayEnd:
        """
        Turn the connection into a L{RelayEnd}.

        @param early: what was received for it.
        """

    def rebind(self, receive: Callable[[bytes], None]) -> None:
        """Deliver all further reads to C{receive}."""

    def take_rest(self) -> bytes:
        """Return what was received behind the agreement."""


class IUpstream(IUpgraded, Protocol):
    """
    What an exchange needs of its connection or stream to a host.

    What L{IUpgraded} has is for when the host has switched protocols.

    @ivar reused: whether the host may have closed the connection before it saw
        the request, so that a request without a response may be retried.
    @ivar full: whether its write buffer is full.
    @ivar closed: whether it can't be used any more.
    @ivar persists: whether the host keeps the connection open after the response
        whose head has come.
    @ivar multiplexed: whether the connection carries many requests at once, so
        that one can be aborted without the others.
    """

    reused: bool
    full: bool
    closed: bool

    @property
    def persists(self) -> bool:  # noqa: D102
        ...

    @property
    def multiplexed(self) -> bool:  # noqa: D102
        ...

    @property
    def local_address(self) -> str:
        """Our address towards the host, for logs."""

    @property
    def connection_number(self) -> int:
        """The number of the connection to the host, for logs."""

    def begin(
        self,
        exchange: IExchange,
        head: Request,
        events: Sequence[Event],
        forwarded_by: ForwardedBy | None,
        default_host: bytes,
        direct: IDirectReader | None = None,
    ) -> None:
        """
        Send a request, as far as it has come.

        @param events: the events after the head.
        @param forwarded_by: the fields that describe the client; L{None} for none.
        @param default_host: the authority for a request that names none.
        @param direct: takes the response by the shortcuts.
        """

    def send(self, events: Sequence[Event]) -> None:
        """Send more of the request."""

    def backlog(self) -> Backlog:
        """Return what of the request is buffered for the host."""

    def pause(self) -> None:
        """Stop reading the response."""

    def resume(self) -> None:
        """Read the response again."""

    def finish(self, reusable: bool) -> None:
        """
        End the exchange.

        @param reusable: whether both messages are complete.
        """

    def abort(self, reason: str) -> None:
        """Abort the request, and call the exchange no more."""

    def leave(self, release: Callable[[], None]) -> bool:
        """
        End an exchange whose response is not wanted any more, without closing the host's only connection.

        All of the request has been sent.

        @param release: called when the host can be used again.
        @return: whether the connection is kept; if not, the caller may L{abort}.
        """


class IDownstream(Protocol):
    """
    What an exchange needs of its connection or stream to a client.

    @ivar protocol: the client's protocol, by MOSN's name.
    @ivar version: the client's version of HTTP, for traces.
    @ivar full: whether its write buffer is full.
    @ivar max_request_body_size: bytes; 0 for no limit.
    @ivar gate: decides which requests may come over this connection; L{None} for all.
    """

    protocol: str
    version: str
    max_request_body_size: int
    settings: HttpSettings
    info: ConnectionInfo
    gate: IGate | None
    forwarded_by: ForwardedBy | None
    full: bool

    @property
    def default_host(self) -> bytes:
        """The Host for requests that name none."""

    def set_look(self, when: float) -> None:
        """Call L{Exchange.look} at a time of the clock, which replaces the one before."""

    def backlog(self) -> Backlog:
        """Return what of the response is buffered for the client."""

    def send(self, exchange: Exchange, events: Sequence[Event]) -> None:
        """Send a part of the response: heads, the last of which is final, body and end."""

    def reply(
        self, exchange: Exchange, status: int, body: bytes, content_type: bytes, location: bytes
    ) -> None:
        """Send a response of our own, which ends the exchange."""

    def exchange_done(self, exchange: Exchange) -> None:
        """End an exchange whose response is complete and sent."""

    def exchange_broken(self, exchange: Exchange) -> None:
        """Break a response off that can't be completed."""

    def upgraded(self, exchange: Exchange, client: IUpgraded) -> None:
        """Join both connections, as the host accepted to switch protocols and its 101 is sent."""

    def update_reading(self) -> None:
        """Check L{Exchange.holds_back} again."""
