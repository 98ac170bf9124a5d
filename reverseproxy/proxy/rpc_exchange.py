"""
One RPC request and its response, on their way through the proxy.

What is passed on are whole frames, changed in nothing but their ids.
"""

from __future__ import annotations

__all__ = ["IRpcOwner", "RpcExchange"]

from typing import TYPE_CHECKING, Final, Protocol

from reverseproxy.errors import ClusterUnknown, RpcHeaderError
from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.proxy.attempts import Attempts, Phase
from reverseproxy.proxy.rpc_upstream import Batch, IRpcDownstream, RpcClient
from reverseproxy.routing import ClusterRoute, DirectResponse, Redirect, RequestFacts
from reverseproxy.wire.xprotocol import Frame, Kind, XProtocol

if TYPE_CHECKING:
    from reverseproxy.proxy.rpc import RpcSettings

UNDECODABLE: Final = 0
"""The status of a request whose headers can't be read (spec 4.5)."""

TERMINATED: Final = 500
"""The status of a request whose connection was lost (spec 4.5)."""

TOO_LATE: Final = 504

WAITING, ACTIVE, DONE = Phase.WAITING, Phase.ACTIVE, Phase.DONE


class IRpcOwner(IRpcDownstream, Protocol):
    """
    What an exchange needs of the connection that it belongs to.

    @ivar batch: where connections wait to be flushed, while what was read from
        this one is handled.
    """

    settings: RpcSettings
    info: ConnectionInfo
    protocol: XProtocol
    batch: Batch | None

    def block(self, client: RpcClient) -> None:
        """A connection to a host is full: read no more until it is not."""

    def set_deadline(self, exchange: RpcExchange, seconds: float) -> None:
        """End the exchange after some time."""

    def respond(self, data: bytes | bytearray, batch: Batch | None, client: RpcClient | None) -> None:
        """Send a response, which came from this client."""

    def exchange_done(self, exchange: RpcExchange) -> None:
        """The exchange is over."""


class RpcExchange(Attempts):
    """
    See the module's text.

    @ivar frame: the request.
    @ivar id: its id, as the client sent it.
    @ivar size: its size in bytes.
    @ivar started: when it came.
    @ivar deadline: what L{IRpcOwner.set_deadline} has to remember.
    @ivar response: what the host answered.
    @ivar sent: bytes of the answer.
    @ivar status: how it ended, in terms of HTTP; 0 if without an answer.
    @ivar flag: why the host's answer is none, for the access log.
    """

    __slots__ = (
        "_client",
        "_downstream",
        "_number",
        "deadline",
        "flag",
        "frame",
        "id",
        "request_sent_at",
        "response",
        "response_at",
        "sent",
        "size",
        "started",
        "status",
        "upstream_local",
    )

    def __init__(self, downstream: IRpcOwner, frame: Frame, now: float) -> None:
        super().__init__(downstream.settings.clock, downstream.protocol.name)
        self.frame = frame
        self.id = frame.id
        self.size = len(frame.data)
        self.started = now
        self.deadline = 0.0
        self.response: Frame | None = None
        self.sent = 0
        self.status = 0
        self.flag = ""
        self.upstream_local = ""
        self.request_sent_at: float | None = None
        self.response_at: float | None = None
        self._downstream = downstream
        self._client: RpcClient | None = None
        self._number = 0

    def begin(self) -> None:
        """Find a route, and a host."""
        downstream = self._downstream
        settings = downstream.settings
        frame = self.frame
        try:
            result = settings.router.match(
                RequestFacts("", "", "", "", frame.header, "https" if downstream.info.secure else "http")
            )
        except RpcHeaderError as error:
            self.fail(UNDECODABLE, str(error))
            return
        if isinstance(result, ClusterRoute):
            try:
                self.cluster = settings.clusters.get(result.cluster_name)
            except ClusterUnknown as error:
                self.fail(error.status, str(error))
                return
            # What the client says counts, if it says something (spec 6.6).
            timeout = frame.timeout / 1000 if frame.timeout else result.timeout
            if timeout > 0:
                downstream.set_deadline(self, timeout)
            self._acquire()
        elif isinstance(result, DirectResponse):
            self._answer(result.status)
        elif isinstance(result, Redirect):
            self.fail(result.status, "an RPC client can't be redirected")
        else:
            self.fail(404, "no route")

    def _send(self, client: RpcClient) -> None:
        self._phase = ACTIVE
        downstream = self._downstream
        if downstream.settings.access_log is not None:
            self.request_sent_at = self._clock.seconds()
            self.upstream_local = client.local_address
        oneway = self.frame.kind is Kind.ONEWAY
        self._client = client
        self._number = client.send(None if oneway else self, self.frame, downstream.batch)
        if client.full:
            downstream.block(client)
        if oneway:
            self._client = None
            self._finish()

    def upstream_response(self, frame: Frame, batch: Batch) -> None:
        """See L{reverseproxy.proxy.rpc_upstream.IRpcExchange}."""
        client, self._client = self._client, None
        downstream = self._downstream
        frame.set_id(self.id)
        self.response = frame
        self.sent = len(frame.data)
        if downstream.settings.access_log is not None:
            self.response_at = self._clock.seconds()
            self.status = downstream.protocol.http_status(frame)
        downstream.respond(frame.data, batch, client)
        self._finish()

    def _finish(self) -> None:
        self._phase = DONE
        self._release()
        self._downstream.exchange_done(self)

    # failures

    def upstream_lost(self, reason: str) -> None:
        """See L{reverseproxy.proxy.rpc_upstream.IRpcExchange}."""
        self._client = None
        self.fail(TERMINATED, f"the host's connection was lost: {reason}")

    def fail(self, status: int, reason: str) -> None:
        """See L{Attempts.fail}."""
        if self._phase != DONE:
            self.flag = reason
            self._answer(status)

    def timed_out(self) -> None:
        """The time for the exchange is over."""
        self.fail(TOO_LATE, "the request took too long")

    def cancel(self, reason: str) -> None:
        """The client is gone: whatever is under way for it is dropped."""
        if self._phase != DONE:
            self.flag = reason
            self._end()

    def _answer(self, status: int) -> None:
        self._end()
        self.status = status or 400
        downstream = self._downstream
        if self.frame.kind is not Kind.ONEWAY:
            self.frame.set_id(self.id)
            reply = downstream.protocol.reply(self.frame, status)
            self.sent = len(reply)
            downstream.respond(reply, downstream.batch, None)
        downstream.exchange_done(self)

    def _end(self) -> None:
        """Let go of everything upstream."""
        client, self._client = self._client, None
        if client is not None:
            client.forget(self._number)
        self._give_up()
