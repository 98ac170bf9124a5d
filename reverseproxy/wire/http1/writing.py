"""Messages of HTTP/1 as they are written: bodies, and responses for one client after the other."""

from __future__ import annotations

__all__ = ["ResponseWriter", "write_body"]

from collections.abc import Sequence

from reverseproxy.wire.http.fields import Headers
from reverseproxy.wire.http.message import End, Event, Request, Response
from reverseproxy.wire.http1.fields import last_chunk, status_line
from reverseproxy.wire.http1.heads import response_head_bytes


def write_body(event: Event, chunked: bool, out: list[bytes]) -> None:
    """
    Write a part of a body, or its end.

    @param out: gets what is to be sent.
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
    Say whether a response of known length is to go out in chunks, for its trailers.

    If they have come, there is no question.  Else the length is worth more, if
    they are neither announced nor asked for.

    @param last: the last that has come of the response.
    """
    if type(last) is End:
        return bool(last.trailers)
    return request.wants_trailers or head.lookup("trailer") is not None


class ResponseWriter:
    """
    Responses to the requests of one client.

    @ivar persists: whether the client takes another response behind the current one.
    @ivar keep_alive: whether it will get one.
    @ivar chunked: whether the body of the current one goes out in chunks of ours.
    """

    __slots__ = ("chunked", "keep_alive", "persists")

    def __init__(self) -> None:
        self.persists = self.keep_alive = True
        self.chunked = False

    def skip(self) -> None:
        """A response has gone out as it came, with nothing that would close the connection."""
        self.keep_alive = True
        self.chunked = False

    def write(self, request: Request, events: Sequence[Event], goes_on: bool) -> bytes:
        """
        Write a part of a response.

        @param events: heads, the last of which is final, body and end.
        @param goes_on: whether the connection may go on behind it, as far as we are concerned.
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
        # While the request is incomplete it is not known whether all of it will be read: the host may
        # have heard enough.  What was announced must hold.
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
        @param fields: more of the head.
        @param goes_on: see L{write}.
        @return: what is to be sent, and how many bytes of it are the body.
        """
        kind, body = content
        keep_alive = self.keep_alive = self.persists and goes_on
        lines = [status_line(status)]
        if status >= 200 and status not in (204, 304):
            if body:
                lines.append(b"content-type: %b\r\n" % kind)
            lines.append(b"content-length: %d\r\n" % len(body))
        else:
            body = b""
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
