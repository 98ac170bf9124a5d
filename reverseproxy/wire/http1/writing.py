"""How messages of HTTP/1 are written: bodies, and the responses of one connection."""

from __future__ import annotations

__all__ = ["ResponseWriter", "write_body"]

from collections.abc import Sequence

from reverseproxy.wire.http.fields import METHOD_NOT_ALLOWED, RESET_CONTENT, Headers
from reverseproxy.wire.http.message import End, Event, Request, Response
from reverseproxy.wire.http1.fields import last_chunk, status_line
from reverseproxy.wire.http1.heads import response_head_bytes


def write_body(event: Event, chunked: bool, out: list[bytes]) -> None:
    """
    Write a part of a body, or its end.

    @param out: the bytes are appended to this.
    """
    if type(event) is bytes:
        if not chunked:
            out.append(event)
        elif event:  # an empty chunk would be the last one
            out += (b"%x\r\n" % len(event), event, b"\r\n")
    elif type(event) is End and chunked:
        out.append(last_chunk(event.trailers))


def _needs_chunks(request: Request, head: Response, last: Event) -> bool:
    """
    Return whether a response of known length has to be chunked, so that it can have trailers.

    If all of it has come, that is known.  Otherwise it keeps its length, unless the
    host has announced trailers (C{Trailer}) or the client takes them (C{TE}).

    @param last: the last event of the response that has come.
    """
    if type(last) is End:
        return bool(last.trailers)
    return request.wants_trailers or head.lookup("trailer") is not None


class ResponseWriter:
    """
    Writes the responses to the requests of one client connection.

    @ivar persists: whether the client keeps the connection for another response.
    @ivar keep_alive: whether we keep it, too.
    @ivar chunked: whether the body of the current response is written in chunks.
    """

    __slots__ = ("chunked", "keep_alive", "persists")

    def __init__(self) -> None:
        self.persists = self.keep_alive = True
        self.chunked = False

    def skip(self) -> None:
        """Note that a response was forwarded as it came, which keeps the connection."""
        self.keep_alive = True
        self.chunked = False

    def write(self, request: Request, events: Sequence[Event], goes_on: bool) -> bytes:
        """
        Write a part of a response.

        @param events: heads, the last of which is final, body and end.
        @param goes_on: whether we would keep the connection behind it.
        """
        out: list[bytes] = []
        for event in events:
            if isinstance(event, Response):
                out.append(self._head(request, event, events[-1], goes_on))
            else:
                write_body(event, self.chunked, out)
        return out[0] if len(out) == 1 else b"".join(out)

    def _head(self, request: Request, head: Response, last: Event, goes_on: bool) -> bytes:
        if head.status < 200:
            return response_head_bytes(head, b"", False)
        # While the request is incomplete it is not known whether all of it will be read: the host may answer
        # before that.  What Connection announces must hold.
        keep_alive = self.persists and goes_on
        self.chunked = False
        if head.length < 0 or (head.trails and request.http11 and _needs_chunks(request, head, last)):
            if request.http11:
                self.chunked = True
            else:
                keep_alive = False  # the end of the connection is the end of the body
        self.keep_alive = keep_alive
        connection = b"" if request.http11 else b"keep-alive"
        if not keep_alive:
            connection = b"close"
        return response_head_bytes(head, connection, self.chunked)

    def answer(
        self, request: Request, status: int, content: tuple[bytes, bytes], fields: Headers, goes_on: bool
    ) -> tuple[bytes, int]:
        """
        Write a response of our own.

        @param content: the type of the body, and the body.
        @param fields: further fields of the head.
        @param goes_on: see L{write}.
        @return: the bytes to send, and how many of them are the body.
        """
        kind, body = content
        keep_alive = self.keep_alive = self.persists and goes_on
        lines = [status_line(status)]
        if status == RESET_CONTENT:
            body = b""
        if status >= 200 and status not in (204, 304):
            if body:
                lines.append(b"content-type: %b\r\n" % kind)
            lines.append(b"content-length: %d\r\n" % len(body))
        else:
            body = b""
        if status == METHOD_NOT_ALLOWED:
            lines.append(b"allow: \r\n")
        lines += [b"%b: %b\r\n" % field for field in fields]
        if not keep_alive:
            lines.append(b"connection: close\r\n")
        elif not request.http11:
            lines.append(b"connection: keep-alive\r\n")
        lines.append(b"\r\n")
        if request.method == b"HEAD":
            body = b""
        lines.append(body)
        return b"".join(lines), len(body)
