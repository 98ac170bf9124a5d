"""
Use hosts of other workers whose connections can't move: through a stream to that worker.

These are connections with streams, and those on which HTTP/2 has been used, whose state is in
their process.  A stream to the worker begins with a message, and data for the host follows at
once::

    worker that asks                                  worker that has the connection
    {"turn": "0.c2b1.7"}, then bytes            -->   the agent's stream, byte for byte
    {"turn": ..., "protocol": "Http2"}, bytes   -->   requests of HTTP/2, which join its own

A stream serves one request, if its protocol allows that, so that no idle stream is left for
the agent to close just as it is used again.  If the stream fails before data has been
forwarded to the agent, its end says so (L{reverseproxy.mux.stream.MuxStream.disown}), and the
request can be retried on another host, even a POST.
"""

from __future__ import annotations

__all__ = ["RelayStream", "RelayedHost", "StreamRelay"]

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from reverseproxy.cluster.endpoints import CallableFactory
from reverseproxy.cluster.handover import Handover
from reverseproxy.cluster.host import AgentHost, Host, MuxHost
from reverseproxy.errors import ConnectionUnavailable, HostGone, WireError
from reverseproxy.proxy.relay import couple
from reverseproxy.proxy.tcp.forwarding_end import ForwardingEnd
from reverseproxy.workers.messages import ControlMessageReader, Message, encode
from reverseproxy.workers.requests import PROTOCOL, is_committed, serve_requests

if TYPE_CHECKING:
    from reverseproxy.workers.links import Link

log = Logger()


class RelayStream(Handover):
    """A stream that a sibling has opened, until its first message."""

    transport: Any

    def __init__(self, opened: Callable[[RelayStream, Message], object]) -> None:
        """
        @param opened: called with the stream and its first message; L{rest} has the
            bytes behind it.
        """
        super().__init__()
        self._opened = opened
        self._reader = ControlMessageReader()

    def dataReceived(self, data: bytes) -> None:
        """Wait for the first message."""
        self._reader.feed(data)
        message = self._reader.next()
        if message is not None:
            self._opened(self, message)

    def rest(self) -> bytes:
        """Return the bytes behind the first message."""
        return self._reader.rest()

    def refuse(self) -> None:
        """End the stream, without having forwarded any data."""
        self.transport.disown()


class _RelayedRequest(Handover):
    """The requesting end of a stream."""

    def __init__(self, question: bytes, inner: IProtocol) -> None:
        super().__init__()
        self._question = question
        self._inner = inner

    def connectionMade(self) -> None:
        """Send the first message, and hand the stream to the protocol of the request."""
        self.transport.write(self._question)
        self.hand_over(self._inner)


class RelayedHost(AgentHost):
    """
    A host of a sibling whose connection can't move.

    @ivar link: the link to the sibling.
    """

    __slots__ = ("_question", "link")

    def __init__(
        self, link: Link, facts: Message, on_gone: Callable[[Host, str], object], protocol: str = ""
    ) -> None:
        """
        @param facts: the announcement of the sibling.
        @param on_gone: called once with this host and a reason, when it
            takes no more requests.
        @param protocol: the only protocol that it supports; empty for any.
        """
        super().__init__(on_gone, facts["address"], facts["hostname"], facts["weight"], facts["metadata"])
        self.link = link
        self.committed_protocol = protocol
        self.tells = bool(protocol) or facts["tells"]
        self._question = encode(
            {"turn": facts["id"], "protocol": protocol} if protocol else {"turn": facts["id"]}
        )

    @property
    def is_remote(self) -> bool:
        """True: its connection stays at another worker."""
        return True

    @property
    def single_use(self) -> bool:
        """True, as an idle stream might be closed at the other worker just as it is used again."""
        return True

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Open a stream to it.

        @return: fires at once; fails with L{HostGone} if the host or its worker is gone.
        """
        if self.closed or not self.link.session.usable:
            return fail(HostGone(f"{self.address} is gone"))
        peer = self.link.session.getPeer()
        try:
            factory.doStart()
            protocol = factory.buildProtocol(peer)
        except Exception:
            return fail()
        if protocol is None:
            return fail(HostGone(f"no protocol wants {self.address}"))
        opening = self.link.session.open(CallableFactory(lambda: _RelayedRequest(self._question, protocol)))
        return opening.addCallback(lambda _: protocol)

    def usable(self) -> bool:
        """Say whether another stream can be opened."""
        return super().usable() and self.link.session.usable

    def close(self, reason: str) -> None:
        """Close all streams to it."""
        if not self.closed:
            super().close(reason)
            self._leave(reason)


class StreamRelay:
    """Connects streams of siblings to this worker's hosts."""

    def __init__(self, find: Callable[[str], Host | None], clock: IReactorTime) -> None:
        """
        @param find: returns a host of this worker by its number, or L{None}.
        """
        self._find = find
        self._clock = clock

    def opened(self, stream: RelayStream, message: Message) -> None:
        """
        Connect a stream to its host.

        @raise WireError: if the message is invalid.
        """
        try:
            number, protocol = message["turn"], message.get("protocol", "")
        except KeyError as error:
            raise WireError(f"a stream of another worker is for nothing: {message}") from error
        host = self._find(number)
        if host is None or not host.usable():
            stream.refuse()
        elif protocol == PROTOCOL and is_committed(host):
            stream.hand_over(serve_requests(host, self._clock), stream.rest())
        elif not protocol and isinstance(host, MuxHost):
            self._relay(host, stream)
        else:
            stream.refuse()

    def _relay(self, host: MuxHost, stream: RelayStream) -> None:
        connecting = host.connect(CallableFactory(partial(ForwardingEnd, self._clock)))
        connecting.addCallbacks(partial(self._joined, stream), lambda reason: self._failed(stream, reason))

    def _joined(self, stream: RelayStream, far: Any) -> None:
        near = ForwardingEnd(self._clock)
        stream.hand_over(near, stream.rest())
        couple(near, far)

    def _failed(self, stream: RelayStream, reason: Failure) -> None:
        reason.trap(HostGone, ConnectionUnavailable)
        stream.refuse()
