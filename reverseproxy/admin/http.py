"""
The admin API's HTTP server, on top of C{twisted.web.http}.

Bodies of requests are small; long answers are written as fast as the client reads.
"""

from __future__ import annotations

__all__ = ["MAX_BODY", "Handler", "make_factory"]

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from io import BytesIO
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import RESPONSES, HTTPChannel, Request
from zope.interface import implementer

from reverseproxy.addresses import host_of
from reverseproxy.admin.long_body import PORTION, BodyWriter
from reverseproxy.admin.messages import ApiProblem, Call, Reply, StreamedReply
from reverseproxy.interfaces import ConnectionInfo, IDrainable, IExpendable
from reverseproxy.limits.connection_limit import address_key
from reverseproxy.net.time_share import QueuedStep, TimeShare

log = Logger()

MAX_BODY: Final = 65536
"""The maximum size of a request's body in bytes."""

IDLE: Final = 60.0
"""
Seconds within which a complete request must arrive, from the beginning of its connection or from the
previous answer; otherwise the connection is closed, even if bytes arrive slowly.  A client that does not read
its answer must read on within this time.
"""

SHARE: Final = 0.3
"""The maximum share of the process's time for answering requests to the admin API; further requests wait."""

READING: Final = 0.1
"""The maximum share for parsing them; honest clients need very little of it."""

MOST_EARLY: Final = 4 * MAX_BODY
"""Bytes of a connection that are buffered until they are parsed, and that are read of a too large body."""

_TOO_LARGE: Final = f"the body is larger than {MAX_BODY} bytes"

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


Handler = Callable[[Call], Awaitable["Reply | StreamedReply"]]


class AdminRequest(Request):
    """
    One request; the channel creates it, and calls L{process} when it is complete.

    @ivar asked: whether the request is complete.
    """

    def __init__(self, handler: Handler, info: ConnectionInfo, clock: IReactorTime, *args: Any) -> None:
        super().__init__(*args)
        self._handler = handler
        self._info = info
        self._clock = clock
        self._body = BytesIO()
        self._left = MAX_BODY
        self._wants = True
        self.asked = False
        self._lost = False  # whether the connection was lost before the answer
        self._on_gone: Callable[[], object] | None = None
        self._allowed: Callable[[], bool] | None = None  # of a streamed answer: whether it may go on

    @property
    def _twisted(self) -> Any:
        """This object, for calls to untyped methods of Twisted."""
        return self

    def gotLength(self, length: int | None) -> None:  # noqa: N802 - Twisted's name
        """Prepare to keep the body in memory, up to the limit."""
        self.content = self._body = BytesIO()
        self._left = MAX_BODY if length is None or length <= MAX_BODY else -1
        if length is not None and length > MOST_EARLY:
            # The connection would be closed before the end of the body, so answer now.
            channel: Any = self.channel
            channel.refuse(ApiProblem(413, _TOO_LARGE).reply())

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        """Take a chunk of the body; of a too large body nothing is kept."""
        if self._left < 0:
            self._left -= len(data)
            if self._left < -MOST_EARLY and self.channel is not None:
                self.channel.loseConnection()
            return
        self._left -= len(data)
        if self._left >= 0:
            self._body.write(data)

    def process(self) -> None:
        """Answer the request, as soon as there is time."""
        self.asked = True
        self.notifyFinish().addBoth(self._ended)
        channel: Any = self.channel
        channel.schedule_answer(self._begin_answer)

    def _begin_answer(self) -> None:
        if not self._lost:
            Deferred.fromCoroutine(self._respond()).addErrback(self._failed)

    def _ended(self, result: Any) -> None:
        self._lost = isinstance(result, Failure)
        gone, self._on_gone = self._on_gone, None
        if gone is not None:
            gone()

    async def _respond(self) -> None:
        try:
            if self._left < 0:
                raise ApiProblem(413, _TOO_LARGE)
            reply = await self._handler(self._call())
        except ApiProblem as problem:
            reply = problem.reply()
        if self._lost or self.channel is None:
            return
        if isinstance(reply, Reply):
            self._answer(reply)
        else:
            self._stream(reply)

    def _call(self) -> Call:
        raw_path, _, raw_query = self.uri.decode("ascii", "replace").partition("?")
        if not raw_path.startswith("/"):
            raise ApiProblem(400, "the target of a request must begin with a slash")
        try:
            queries = parse_qsl(raw_query, keep_blank_values=True, max_num_fields=100)
        except ValueError:
            raise ApiProblem(400, "the query has too many parameters") from None

        def header(name: str) -> str:
            value = self.getHeader(name.encode("ascii"))
            return "" if value is None else value.decode("utf-8", "surrogateescape")

        return Call(
            self.method.decode("ascii", "replace"),
            unquote(raw_path),
            tuple(unquote(part) for part in raw_path[1:].split("/")),
            dict(queries),
            tuple(queries),
            header,
            self._body.getvalue(),
            self._info,
        )

    def _begin(self, status: int, content_type: str, headers: Mapping[str, str]) -> None:
        self.setResponseCode(status)
        for name, value in {**_HEADERS, "Content-Type": content_type, **headers}.items():
            self._twisted.setHeader(name.encode("ascii"), value.encode("latin-1", "replace"))

    def _answer(self, reply: Reply) -> None:
        self._begin(reply.status, reply.content_type, reply.headers)
        if reply.status != 304:
            self._twisted.setHeader(b"Content-Length", b"%d" % len(reply.body))
        if len(reply.body) <= PORTION or self.method == b"HEAD":
            self._twisted.write(reply.body)
            self._twisted.finish()
            return
        writer = BodyWriter(self, reply.body, self._clock, self._note_stall)
        self._on_gone = writer.stopProducing
        writer.start()

    def _note_stall(self, stalls: bool) -> None:
        """Set or cancel the time within which the client must read on."""
        channel: Any = self.channel
        channel.allow(IDLE if stalls else None)

    def _stream(self, stream: StreamedReply) -> None:
        self._begin(200, stream.content_type, {})
        if self.method == b"HEAD":
            self._twisted.finish()
            return
        channel: Any = self.channel
        channel.allow(None)  # a stream of events may be quiet for any time
        self._twisted.registerProducer(self, True)
        self._allowed = stream.allowed
        self._on_gone = stream.begin(self._part, self.end_stream)

    def _part(self, data: bytes) -> bool:
        if self._lost or self.finished:
            return False
        if self._allowed is None or not self._allowed():
            self.end_stream()
            return False
        self._twisted.write(data)
        return self._wants

    def end_stream(self) -> None:
        """End a streamed answer, if this is one that has not ended."""
        if self._allowed is not None and not self._lost and not self.finished:
            self._twisted.unregisterProducer()
            self._twisted.finish()

    # IPushProducer: this object produces the stream

    def pauseProducing(self) -> None:
        """Stop producing, as the client does not read fast enough; see L{IPushProducer}."""
        self._wants = False
        self._note_stall(True)

    def resumeProducing(self) -> None:
        """Produce again; see L{IPushProducer}."""
        self._wants = True
        self._note_stall(False)

    def stopProducing(self) -> None:
        """Stop producing for good, as the client has disconnected; see L{IPushProducer}."""
        self._wants = False

    def _failed(self, reason: Failure) -> None:
        log.failure(
            "the admin API failed to answer {path}", reason, path=self.path.decode("ascii", "replace")
        )
        if not self._lost and not self.startedWriting:
            self._answer(ApiProblem(500, "the request failed on our side; the log says why").reply())


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
