"""
One request to the admin API, on top of C{twisted.web.http}.

Bodies of requests are small; long answers are written as fast as the client reads.
"""

from __future__ import annotations

__all__ = ["IDLE", "MAX_BODY", "MOST_EARLY", "AdminRequest", "Handler"]

import re
from collections.abc import Awaitable, Callable, Mapping
from io import BytesIO
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request

from reverseproxy.admin.long_body import PORTION, BodyWriter
from reverseproxy.admin.messages import ApiProblem, Call, Reply, StreamedReply
from reverseproxy.interfaces import ConnectionInfo

log = Logger()

MAX_BODY: Final = 65536
"""The maximum size of a request's body in bytes."""

MOST_EARLY: Final = 4 * MAX_BODY
"""Bytes of a connection that are buffered until they are parsed, and that are read of a too large body."""

IDLE: Final = 60.0
"""
Seconds within which a complete request must arrive, from the beginning of its connection or from the
previous answer; otherwise the connection is closed, even if bytes arrive slowly.  A client that does not read
its answer must read on within this time.
"""

_TOO_LARGE: Final = f"the body is larger than {MAX_BODY} bytes"

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}

_ABSOLUTE: Final = re.compile(r"https?://([^/?]*)", re.IGNORECASE)

Handler = Callable[[Call], Awaitable["Reply | StreamedReply"]]
"""Answers a request."""


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
        authority, target = _split_target(self.uri.decode("ascii", "replace"))
        raw_path, _, raw_query = target.partition("?")
        if not raw_path.startswith("/"):
            raise ApiProblem(400, "the target of a request must begin with a slash")
        try:
            queries = parse_qsl(raw_query, keep_blank_values=True, max_num_fields=100)
        except ValueError:
            raise ApiProblem(400, "the query has too many parameters") from None

        def header(name: str) -> str:
            if name == "host" and authority:
                return authority
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
        gone = stream.begin(self._part, self.end_stream)
        if self._lost or self.finished:  # it has ended while it began
            gone()
        else:
            self._on_gone = gone

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


def _split_target(target: str) -> tuple[str, str]:
    """
    Split the target of a request, which may be a whole URL (RFC 9112 3.2.2).

    @return: the authority, which counts instead of C{Host}, empty if there is none; the path with the query.
    """
    found = _ABSOLUTE.match(target)
    if found is None:
        return "", target
    path = target[found.end() :]
    return found[1], path if path.startswith("/") else f"/{path}"
