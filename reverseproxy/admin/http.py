"""The admin API's HTTP server, on top of C{twisted.web.http}: its connections."""

from __future__ import annotations

__all__ = ["READING", "SHARE", "make_factory"]

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import RESPONSES, HTTPChannel, Request
from zope.interface import implementer

from reverseproxy.addresses import host_of
from reverseproxy.admin.messages import Reply
from reverseproxy.admin.request import IDLE, MOST_EARLY, AdminRequest, Handler
from reverseproxy.interfaces import ConnectionInfo, IDrainable, IExpendable
from reverseproxy.limits.connection_limit import address_key
from reverseproxy.net.time_share import QueuedStep, TimeShare

SHARE: Final = 0.3
"""The maximum share of the process's time for answering requests to the admin API; further requests wait."""

READING: Final = 0.1
"""The maximum share for parsing them; honest clients need very little of it."""


@implementer(IExpendable, IDrainable)
class AdminChannel(HTTPChannel):
    """
    A connection of the admin API.

    If there are too many connections, one without an unanswered request may be closed to accept another one.
    Parsing and answering have a limited share of the process's time, which is shared out among the
    clients' addresses by round robin.
    """

    def __init__(self, answering: TimeShare, reading: TimeShare, address: str) -> None:
        """
        @param answering: schedules the answers to requests.
        @param reading: schedules the parsing of requests.
        @param address: the key of the client's address.
        """
        HTTPChannel.__init__(self)
        self._answering = answering
        self._reading = reading
        self._address = address
        self._steps: set[QueuedStep] = set()
        self._early: list[bytes] = []  # received, but not parsed yet
        self._held = False  # whether reading is paused until it is parsed
        self._behind = 0  # bytes received behind the request that is being answered
        self._full = False  # whether the client has not read previous answers
        self._next_answer: Callable[[], object] | None = None  # which waits until it has

    def schedule_answer(self, call: Callable[[], object]) -> None:
        """
        Call a function as soon as there is time for it, unless the connection is lost before.

        A client that sends more requests without reading the answers gets none before it reads; after
        L{IDLE} seconds its connection is closed.
        """
        if self._full:
            self._next_answer = call
            self.allow(IDLE)
        else:
            self._ask(self._answering, call)

    def allow(self, seconds: float | None) -> None:
        """Close the connection after some seconds; L{None} for never."""
        channel: Any = self
        channel.setTimeout(seconds)

    def pauseProducing(self) -> None:
        """Make no further answers, as the client does not read fast enough; see L{IPushProducer}."""
        self._full = True
        HTTPChannel.pauseProducing(self)

    def resumeProducing(self) -> None:
        """Make the next answer, if there is one to make; see L{IPushProducer}."""
        self._full = False
        HTTPChannel.resumeProducing(self)
        call, self._next_answer = self._next_answer, None
        if call is not None:
            self.allow(None)
            self._ask(self._answering, call)

    def _ask(self, share: TimeShare, call: Callable[[], object]) -> None:
        step: QueuedStep | None = None

        def go() -> None:
            if step is not None:
                self._steps.discard(step)
            call()

        step = share.ask(self._address, go, lambda reason: self._abort())
        if step is not None:
            self._steps.add(step)

    def dataReceived(self, data: bytes) -> None:
        """Buffer received bytes, pause reading, and parse them when there is time."""
        self._early.append(data)
        if len(self._early) == 1:
            self._ask(self._reading, self._receive)
        elif sum(map(len, self._early)) > MOST_EARLY:
            self._abort()
            return
        if self._early:
            # Further bytes stay in the kernel's buffer, so that TCP slows the sender down.
            self._held = True
            self._reader.pauseProducing()

    @property
    def _reader(self) -> Any:
        return self.transport

    def _receive(self) -> None:
        data, self._early = b"".join(self._early), []
        if self._held:
            self._held = False
            self._reader.resumeProducing()
        # HTTPChannel pauses reading while it answers a request, but not if the client does not read, either.
        if not self.expendable:
            self._behind += len(data)
            if self._behind > MOST_EARLY:
                self._abort()
                return
        HTTPChannel.dataReceived(self, data)

    def requestDone(self, request: Request) -> None:  # noqa: N802 - Twisted's name
        """Parse what has arrived behind a request that is answered now."""
        self._behind = 0
        HTTPChannel.requestDone(self, request)

    def refuse(self, reply: Reply) -> None:
        """Answer an incomplete request, and close the connection."""
        head = f"HTTP/1.1 {reply.status} {RESPONSES[reply.status].decode()}\r\nConnection: close\r\n"
        head += f"Content-Type: {reply.content_type}\r\nContent-Length: {len(reply.body)}\r\n\r\n"
        transport: Any = self.transport
        transport.write(head.encode("ascii") + reply.body)
        transport.loseConnection()

    def _abort(self) -> None:
        transport: Any = self.transport
        transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Cancel all queued steps."""
        for step in self._steps:
            step.cancel()
        self._steps.clear()
        self._next_answer = None
        HTTPChannel.connectionLost(self, reason)

    @property
    def expendable(self) -> bool:
        """Whether there is no complete request without an answer; see L{IExpendable}."""
        return not any(request.asked for request in self.requests)

    @property
    def busy(self) -> bool:
        """Whether a request is being answered; see L{IDrainable}."""
        return not self.expendable

    def drain(self) -> None:
        """Close, after the answer to the request under way; a streamed answer ends now; see L{IDrainable}."""
        self.persistent = False
        if self.expendable:
            channel: Any = self
            channel.loseConnection()
        else:
            self.requests[0].end_stream()

    def resetTimeout(self) -> None:  # noqa: N802 - Twisted's name
        """Do nothing when bytes arrive: only an answer restarts the timeout."""


class _NoLog:
    """A factory for L{HTTPChannel} without an access log; changes are recorded in the audit."""

    def log(self, request: Request) -> None:
        """Ignore a request."""


def make_factory(handler: Handler, reactor: IReactorTime) -> Callable[[ConnectionInfo], HTTPChannel]:
    """
    Return a function that builds the protocol of a connection.

    @param handler: answers requests.
    """
    factory = _NoLog()
    what, failure = "requests to the admin API", "a connection to the admin API failed"
    answering = TimeShare(reactor, SHARE, what, failure)
    reading = TimeShare(reactor, READING, what, failure)

    def build(info: ConnectionInfo) -> HTTPChannel:
        channel: Any = AdminChannel(answering, reading, address_key(host_of(info.remote)))
        channel.factory = factory
        channel.timeOut = IDLE
        channel.callLater = reactor.callLater
        channel.requestFactory = partial(AdminRequest, handler, info, reactor)
        made: HTTPChannel = channel
        return made

    return build
