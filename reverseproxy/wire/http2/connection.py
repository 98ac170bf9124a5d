"""
HTTP/2 as events: one connection, its streams, and the bounds on both.

Feed bytes, get pairs of a stream's number and an event; number 0 stands for the
connection.  The events of HTTP are the same as those of HTTP/1: a
L{Request} or L{Response}, the body as plain C{bytes}, an L{End}.  A
L{StreamReset} ends a stream early.  An L{Http2Error} comes last and once, if the peer
broke the rules of the connection, after everything that was in order before it.

A malformed message ends its stream.  Only what leaves the two ends with different
states of the connection ends that, as a connection of a tunnel carries the
requests of many clients.

Nothing is written by this module: C{take} returns the bytes to send.  Bodies
are kept by stream until the peer's windows and the caller have room for them,
and are sent in turns, one frame of each stream.

A connection is built in layers, each a class that derives from the one below:

  - L{Http2Output<reverseproxy.wire.http2.outbound.Http2Output>}: what is sent, and when;
  - L{Windows<reverseproxy.wire.http2.windows.Windows>}: flow control of what is received;
  - L{FrameReader<reverseproxy.wire.http2.frame_reader.FrameReader>}: bytes to frames and field blocks;
  - L{MessageReader<reverseproxy.wire.http2.message_reader.MessageReader>}: streams and their messages;
  - L{ControlReader}: SETTINGS, PING, GOAWAY and the like;
  - L{ServerConnection} and L{ClientConnection}: what one end alone does.
"""

from __future__ import annotations

__all__ = ["ClientConnection", "ServerConnection"]

from reverseproxy.errors import Http2Error, HttpError
from reverseproxy.wire.http.fields import Headers
from reverseproxy.wire.http.grpc import is_grpc
from reverseproxy.wire.http.message import END, MAX_INTERIM, UNKNOWN_LENGTH, Request, Response
from reverseproxy.wire.http2.control import ControlReader
from reverseproxy.wire.http2.events import (
    Http2Limits,
    StreamReset,
)
from reverseproxy.wire.http2.fields import Malformed, list_size
from reverseproxy.wire.http2.frames import (
    MAX_STREAM_ID,
    PREFACE,
    ErrorCode,
    Setting,
    go_away,
    rst_stream,
    settings,
)
from reverseproxy.wire.http2.hpack import KNOWN_HEAD, Fields
from reverseproxy.wire.http2.mosn import mend_request, mend_response
from reverseproxy.wire.http2.outbound import StreamState
from reverseproxy.wire.http2.requests import parse_request
from reverseproxy.wire.http2.responses import parse_response
from reverseproxy.wire.window import Reserve


class ServerConnection(ControlReader):
    """
    Our end of a connection whose peer sends the requests.

    @ivar last_stream: the highest stream that the peer has opened.
    """

    def __init__(
        self,
        limits: Http2Limits,
        upgrades: bool = False,
        h2c: bool = False,
        silent: bool = False,
        mosn: bool = False,
        reserve: Reserve | None = None,
    ) -> None:
        """
        @param upgrades: whether to offer peers of this project to take upgrades with all that
            they have in HTTP/1; see L{reverseproxy.wire.http2.upgrades}.
        @param h2c: whether upgrades may be for h2c.
        @param silent: whether to send nothing before the peer's SETTINGS have
            come.
        @param mosn: whether the peer may be MOSN; see
            L{reverseproxy.wire.http2.mosn}.
        @param reserve: what windows may grow by, together with those of other
            connections.
        """
        self._silent = silent
        self._mosn = mosn
        self.last_stream = 0
        self._upgrades = upgrades
        self._h2c = h2c
        self._accept_up_to = MAX_STREAM_ID
        super().__init__(limits, reserve)

    def _own_settings(self) -> list[tuple[Setting, int]]:
        values = [
            (Setting.MAX_CONCURRENT_STREAMS, self._max_streams),
            (Setting.ENABLE_CONNECT_PROTOCOL, 1),
            (Setting.NO_RFC7540_PRIORITIES, 1),
        ]
        return [*values, (Setting.UPGRADES, 1)] if self._upgrades else values

    def _last_stream(self) -> int:
        return min(self.last_stream, self._accept_up_to)

    def _is_idle(self, number: int) -> bool:
        return not number % 2 or number > self.last_stream

    def _check_new(self, number: int) -> None:
        if not number % 2:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"a client can't open stream {number}")
        if number > self.last_stream:
            self.last_stream = number

    def _on_new_stream(self, number: int, fields: Headers, ended: bool) -> None:
        if number <= self.last_stream and number % 2:
            if number not in self._resets:
                raise Http2Error(ErrorCode.STREAM_CLOSED, f"HEADERS on stream {number}, which has ended")
            self._drop_late(number)
            return
        self._check_new(number)
        if number > self._accept_up_to:
            self._refuse(number, "the connection is closing")
            return
        if len(self._streams) >= self._max_streams:
            self._refuse(number, f"more than {self._max_streams} streams at once")
            return
        stream = StreamState(
            number,
            self._stream_window,
            self._peer_stream_window,
            self._first_window,
            self._stream_threshold,
            self._now,
        )
        stream.left = UNKNOWN_LENGTH
        self._streams[number] = stream
        head = self._read_request(fields, ended)
        if type(head) is Request:
            stream.tunnel = bool(head.upgrade)
            if head.length != UNKNOWN_LENGTH and not head.upgrade:
                stream.left = head.length
            if ended and stream.left > 0:
                head = Malformed("no data, which is less than content-length says")
        if isinstance(head, Malformed):
            self._stream_error(number, ErrorCode.PROTOCOL_ERROR, str(head))
            return
        self._events.append((number, head))
        if ended:
            stream.remote_open = False
            self._events.append((number, END))

    def _read_request(self, fields: Headers, ended: bool) -> Request | HttpError | Malformed:
        """
        Make a head of the fields of a request, or return what is wrong with it.

        Requests with equal field blocks share one head, which must not be changed.
        """
        remembered = fields if type(fields) is Fields else None
        if remembered is not None and remembered.meaning is not None:
            meant: tuple[bool, Request] = remembered.meaning
            if meant[0] is ended:
                return meant[1]
        limits, size = self._limits, list_size(fields)
        if size > limits.max_header_list_size:
            most = f"{limits.max_header_list_size} bytes (max_header_list_size)"
            return _refusal(HttpError(431, f"request head larger than {most}"), fields)
        if self._mosn:
            fields = mend_request(fields, ended)
        try:
            head = parse_request(
                fields,
                ended,
                self._upgrades and self.peer_upgrades,
                self._h2c,
                limits.max_fields,
                limits.foreign,
            )
        except HttpError as error:
            return _refusal(error, fields)
        except Malformed as error:
            return error
        if remembered is not None and not head.upgrade and size <= KNOWN_HEAD:
            remembered.meaning = ended, head
        return head

    def _refuse(self, number: int, reason: str) -> None:
        self._spend_reset()
        self._reply(rst_stream(number, ErrorCode.REFUSED_STREAM))
        self._remember_reset(number)
        self._events.append((number, StreamReset(ErrorCode.REFUSED_STREAM, False, False, reason)))

    def _on_peer_reset(self, number: int, code: int) -> None:
        super()._on_peer_reset(number, code)
        self._spend_reset()

    def _local_end(self, stream: StreamState) -> None:
        super()._local_end(stream)
        if stream.remote_open and not stream.tunnel:
            # The response is complete, so that the rest of the request is not needed (RFC 9113 8.1).
            self.reset(stream.id, ErrorCode.NO_ERROR)

    def decline_tunnel(self, number: int) -> None:
        """Treat an extended CONNECT like any other request from now on, as its protocol was declined."""
        stream = self._streams.get(number)
        if stream is not None:
            stream.tunnel = False

    def warn(self) -> None:
        """Send the first GOAWAY of a graceful shutdown: new streams are still accepted (RFC 9113 6.8)."""
        if not self.closed:
            self._out.append(go_away(MAX_STREAM_ID, ErrorCode.NO_ERROR))

    def refuse_new(self) -> None:
        """Send GOAWAY with the last stream that is accepted; further ones are refused from now on."""
        if not self.closed:
            self._accept_up_to = min(self._accept_up_to, self.last_stream)
            self._out.append(go_away(self._accept_up_to, ErrorCode.NO_ERROR))


def _refusal(error: HttpError, fields: Headers) -> HttpError:
    """Note in an error how the request can be answered that it is about."""
    error.head_request = (b":method", b"HEAD") in fields
    error.grpc = (b"te", b"trailers") in fields and is_grpc(fields)
    return error


class ClientConnection(ControlReader):
    """Our end of a connection on which we send the requests."""

    _client = True

    def __init__(self, limits: Http2Limits, mosn: bool = False, reserve: Reserve | None = None) -> None:
        """
        @param mosn: whether the peer may be MOSN; see
            L{reverseproxy.wire.http2.mosn}.
        @param reserve: what windows may grow by, together with those of other
            connections.
        """
        self._next = 1
        self._mosn = mosn
        self._interims: dict[int, int] = {}  # how many interim responses have come, by stream
        super().__init__(limits, reserve)
        self._out.insert(0, PREFACE)

    def _own_settings(self) -> list[tuple[Setting, int]]:
        return [(Setting.ENABLE_PUSH, 0)]

    def _last_stream(self) -> int:
        return 0  # the peer opens none

    def _is_idle(self, number: int) -> bool:
        return not number % 2 or number >= self._next

    def _check_new(self, number: int) -> None:
        raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"HEADERS on stream {number}, which is not open")

    def _on_new_stream(self, number: int, fields: Headers, ended: bool) -> None:
        if self._is_idle(number):
            self._check_new(number)
        if number not in self._resets:
            raise Http2Error(ErrorCode.STREAM_CLOSED, f"HEADERS on stream {number}, which has ended")
        self._drop_late(number)

    def _on_response(self, stream: StreamState, fields: Headers, ended: bool) -> None:
        number = stream.id
        head = self._read_response(stream, fields, ended)
        if head is None:
            return
        if head.status >= 200:
            stream.left = head.length if head.length >= 0 else UNKNOWN_LENGTH
        elif head.status == 101:
            stream.left = UNKNOWN_LENGTH  # what follows is another protocol
        elif not self._may_say_more(number):
            return
        self._events.append((number, head))
        if ended:
            self._remote_end(stream)
            self._events.append((number, END))

    def _read_response(self, stream: StreamState, fields: Headers, ended: bool) -> Response | None:
        """Make a head of the fields of a response; L{None} if they are malformed: the stream was reset."""
        remembered = fields if type(fields) is Fields and not stream.tunnel else None
        if remembered is not None and remembered.meaning is not None:
            meant: tuple[bool, bool, Response] = remembered.meaning
            if meant[0] is ended and meant[1] is stream.head_request:
                return meant[2]
        limits, number, size = self._limits, stream.id, list_size(fields)
        if size > limits.max_header_list_size:
            most = f"{limits.max_header_list_size} bytes (max_response_header_size)"
            self._stream_error(number, ErrorCode.CANCEL, f"response head larger than {most}")
            return None
        if self._mosn:
            fields = mend_response(fields, ended, stream.head_request)
        try:
            head = parse_response(
                fields, ended, stream.head_request, stream.tunnel, self.peer_upgrades, limits.max_fields
            )
        except Malformed as error:
            self._stream_error(number, ErrorCode.PROTOCOL_ERROR, str(error))
            return None
        if remembered is not None and size <= KNOWN_HEAD:
            remembered.meaning = ended, stream.head_request, head
        return head

    def _may_say_more(self, number: int) -> bool:
        """Count an interim response; return whether there may be so many."""
        count = self._interims[number] = self._interims.get(number, 0) + 1
        if count > MAX_INTERIM:
            reason = f"more than {MAX_INTERIM} interim responses"
            self._stream_error(number, ErrorCode.ENHANCE_YOUR_CALM, reason)
            return False
        return True

    def _drop(self, number: int) -> None:
        self._interims.pop(number, None)
        super()._drop(number)

    def _on_peer_upgrades(self, value: int) -> None:
        if value == 1 and not self.peer_upgrades:
            # Peers that are not of this project never see this setting.
            self._out.append(settings([(Setting.UPGRADES, 1)]))
        super()._on_peer_upgrades(value)

    def _on_going(self, last: int, code: int) -> None:
        for number in [number for number in self._streams if number > last]:
            self._remember_reset(number)  # the host may reset it as well, or answer nevertheless
            self._drop(number)
            reason = f"the peer closes the connection: {ErrorCode.name_of(code)}"
            self._events.append((number, StreamReset(ErrorCode.REFUSED_STREAM, True, False, reason)))

    @property
    def room(self) -> int:
        """How many more streams may be opened now."""
        if self.closed or self.going or self._next > MAX_STREAM_ID:
            return 0
        limit = self._max_streams
        if self.peer_max_streams is not None and self.peer_max_streams < limit:
            limit = self.peer_max_streams
        return max(0, limit - len(self._streams))

    def request(self, fields: Headers, ended: bool, head_request: bool = False, tunnel: bool = False) -> int:
        """
        Open a stream with a request, if there is L{room}.

        @param ended: whether the request has neither body nor trailers.
        @param head_request: whether its method is HEAD, so that its response has no body.
        @param tunnel: whether it is an extended CONNECT.
        @return: the stream's number.
        """
        number = self._next
        self._next = number + 2
        stream = StreamState(
            number,
            self._stream_window,
            self._peer_stream_window,
            self._first_window,
            self._stream_threshold,
            self._now,
        )
        stream.head_request = head_request
        stream.tunnel = tunnel
        self._streams[number] = stream
        self._out.append(self._encode(number, fields, ended))
        if ended:
            stream.trailers = []
            stream.local_open = False
        return number
