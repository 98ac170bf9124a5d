"""
dubbo, the RPC protocol of Apache Dubbo, and as much of Hessian 2 as routing needs.

A frame has a 16-byte header, in network byte order, and a body::

     0  2  magic: da bb
     2  1  80 request, 40 wants an answer, 20 event; below that the serialisation
     3  1  status of a response; 20 is success
     4  8  id
    12  4  length of the body

The body of a request begins with four strings in Hessian 2: the version of
Dubbo, the path of the service, its version and the method (MOSN:
C{getServiceAwareMeta} in C{pkg/protocol/xprotocol/dubbo/decoder.go}).  They are
the headers that routes can match, by MOSN's names: C{dubbo}, C{service},
C{version} and C{method}.

An event whose body is C{"R"} is what a Dubbo server sends before it stops, so that
clients send no new requests.  Any other event is a heartbeat.
"""

from __future__ import annotations

__all__ = ["Dubbo", "DubboFrame", "decode_string", "encode_frame", "encode_string"]

import struct
from typing import Final

from reverseproxy.errors import RpcFrameError, RpcHeaderError
from reverseproxy.wire.http.unsent import Unsent
from reverseproxy.wire.rpc.xprotocol import Frame, Kind, XProtocol

_HEADER = struct.Struct(">2sBBQI")
_ID = struct.Struct(">Q")
_MAGIC: Final = b"\xda\xbb"

_REQUEST: Final = 0x80
_TWO_WAY: Final = 0x40
_EVENT: Final = 0x20
_SERIALIZATION: Final = 0x1F
_HESSIAN2: Final = 2

_OK: Final = 20
_SERVICE_ERROR: Final = 70

_NULL: Final = ord("N")
_READ_ONLY: Final = b"\x01R"
_NOTHING_RETURNED: Final = b"\x92"
"""The integer 2: a call that went well and returns null."""

# What MOSN answers (dubboMosnStatusMap in pkg/protocol/xprotocol/dubbo/types.go).
_FROM_HTTP: Final = {
    0: (_SERVICE_ERROR, "codec exception"),
    2: (_SERVICE_ERROR, "unknown"),
    3: (_SERVICE_ERROR, "deserial exception"),
    403: (80, "permission denied"),
    404: (60, "router unavailable"),
    500: (_SERVICE_ERROR, "internal error"),
    502: (60, "no health upstream"),
    503: (40, "upstream overflow"),
    504: (30, "timeout"),
    509: (40, "limit exceeded"),
}
_TO_HTTP: Final = {20: 200, 30: 504, 31: 504, 40: 400, 60: 404, 90: 400, 100: 503}

_UNSENT: Final = {0xC9: Unsent.REQUEST, 0xCA: Unsent.SERVICE}
"""Statuses that only ends of this project use; Dubbo's end at 100."""
_UNSENT_STATUS: Final = {why: status for status, why in _UNSENT.items()}

_MOST_MESSAGE: Final = 128
"""Bytes of the longest message in a MOSN agent's own response; they have about thirty."""

_GATEWAY: Final = {"502|": 502, "503|": 503, "504|": 504}
"""How these messages begin if it has not reached its service; see L{Dubbo.reply}."""

_HEADERS: Final = ("dubbo", "service", "version", "method")

MOST_HEADERS: Final = 65536
"""Bytes of a request that its headers may take together; those of bolt have no room for more, either."""

_MOST_PARTS: Final = 16
"""Parts of one string; Java writes one for each 32768 characters."""


def encode_string(text: str) -> bytes:
    """
    Write a string in Hessian 2.

    @raise ValueError: if it is longer than 65535 UTF-16 units, which we never
        need.
    """
    length = len(text.encode("utf-16-be", "surrogatepass")) // 2
    if length < 32:
        head = bytes((length,))
    elif length < 1024:
        head = bytes((0x30 + (length >> 8), length & 0xFF))
    elif length < 65536:
        head = b"S" + length.to_bytes(2, "big")
    else:
        raise ValueError(f"a string of {length} UTF-16 units")
    return head + text.encode("utf-8", "surrogatepass")


def decode_string(data: bytes | bytearray, position: int, limit: int | None = None) -> tuple[str | None, int]:
    """
    Read a string, or null, in Hessian 2.

    Lengths count UTF-16 units.  Characters beyond U+FFFF are encoded as two
    surrogates of three bytes each, as Java does, or as four bytes, as others do.

    @param limit: a position that no part may reach beyond, if each of its units takes one byte;
        L{None} for none.
    @return: the string, or L{None} for null; and where it ends.
    @raise RpcHeaderError: if it is something else, or incomplete.
    """
    parts: list[str] = []
    final = False
    while not final:
        try:
            code = data[position]
            if code < 0x20:
                length, position, final = code, position + 1, True
            elif 0x30 <= code < 0x34:
                length, position, final = (code - 0x30) << 8 | data[position + 1], position + 2, True
            elif code in (0x52, 0x53):
                length = data[position + 1] << 8 | data[position + 2]
                position, final = position + 3, code == 0x53
            elif code == _NULL and not parts:
                return None, position + 1
            else:
                raise RpcHeaderError(f"a Hessian string can't begin with {code:02x}")
        except IndexError:
            raise RpcHeaderError("the frame ends before its headers do") from None
        if limit is not None and position + length > limit:
            raise RpcHeaderError(f"the headers take more than {MOST_HEADERS} bytes")
        if len(parts) == _MOST_PARTS:
            raise RpcHeaderError(f"a Hessian string has more than {_MOST_PARTS} parts")
        text, position = _decode_units(data, position, length)
        parts.append(text)
    text = "".join(parts)
    if not text.isascii():
        # Pairs of surrogates become what they stand for.
        text = text.encode("utf-16-be", "surrogatepass").decode("utf-16-be", "replace")
    return text, position


def _decode_units(data: bytes | bytearray, position: int, units: int) -> tuple[str, int]:
    """Decode a number of UTF-16 units that is encoded as UTF-8, and return where they end, too."""
    begin, end = position, position + units
    if end > len(data):
        raise RpcHeaderError("the frame ends before its headers do")
    piece = data[begin:end]
    if piece.isascii():
        return piece.decode("ascii"), end
    while units > 0:
        if position >= len(data):
            raise RpcHeaderError("the frame ends before its headers do")
        lead = data[position]
        position += 1 if lead < 0xC0 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
        units -= 2 if lead >= 0xF0 else 1
    if units < 0 or position > len(data):
        raise RpcHeaderError("a Hessian string ends within a character")
    try:
        return data[begin:position].decode("utf-8", "surrogatepass"), position
    except UnicodeDecodeError:
        raise RpcHeaderError("a Hessian string is not UTF-8") from None


class DubboFrame(Frame):
    """
    A frame of dubbo.

    @ivar flag: the third byte of the header.
    @ivar status: the status of a response.
    """

    __slots__ = ("_headers", "flag", "status")

    def __init__(self, data: bytearray, kind: Kind, request_id: int, flag: int, status: int) -> None:
        super().__init__(data, kind, request_id)
        self.flag = flag
        self.status = status
        self._headers: dict[str, str] | None = None

    def set_id(self, request_id: int) -> None:
        """See L{Frame.set_id}."""
        self.id = request_id
        _ID.pack_into(self.data, 4, request_id)

    @property
    def headers(self) -> dict[str, str]:
        """
        C{dubbo}, C{service}, C{version} and C{method} of a request.

        @raise RpcHeaderError: if the request is not in Hessian 2, or broken.
        """
        if self._headers is None:
            self._headers = self._decode_headers()
        return self._headers

    def _decode_headers(self) -> dict[str, str]:
        if self.kind not in (Kind.REQUEST, Kind.ONEWAY):
            return {}
        serialization = self.flag & _SERIALIZATION
        if serialization != _HESSIAN2:
            raise RpcHeaderError(
                f"the serialisation is {serialization}; only 2, which is Hessian 2, can be read"
            )
        headers: dict[str, str] = {}
        position = _HEADER.size
        for name in _HEADERS:
            value, position = decode_string(self.data, position, _HEADER.size + MOST_HEADERS)
            if value is None and name != "version":  # callbacks have no version
                raise RpcHeaderError(f"the {name} is null")
            headers[name] = value or ""
        return headers

    def header(self, name: str) -> str | None:
        """See L{Frame.header}."""
        return self.headers.get(name)


class Dubbo(XProtocol):
    """dubbo; see the module's text."""

    name = "dubbo"
    max_id = 0x7FFFFFFFFFFFFFFF  # Java's long has a sign

    def detect(self, data: bytes) -> bool | None:
        """See L{XProtocol.detect}."""
        if len(data) < 2:
            return None if data[0] == _MAGIC[0] else False
        return data[:2] == _MAGIC

    def partial_id(self, buffer: bytearray) -> int | None:
        """See L{XProtocol.partial_id}."""
        return int.from_bytes(buffer[4:12]) if len(buffer) >= 12 else None

    def decode(self, buffer: bytearray, start: int) -> Frame | int:
        """See L{XProtocol.decode}."""
        there = len(buffer) - start
        if there < _HEADER.size:
            if not _MAGIC.startswith(buffer[start : start + 2]):
                raise _not_dubbo(buffer, start)
            return _HEADER.size
        magic, flag, status, id_, length = _HEADER.unpack_from(buffer, start)
        if magic != _MAGIC:
            raise _not_dubbo(buffer, start)
        total: int = _HEADER.size + length
        if there < total:
            return total
        data = buffer[start : start + total]
        return DubboFrame(data, _kind(flag, data), id_, flag, status)

    def http_status(self, frame: Frame) -> int:
        """See L{XProtocol.http_status}."""
        assert isinstance(frame, DubboFrame)
        return _TO_HTTP.get(frame.status, 500)

    def reply(self, frame: Frame, status: int) -> bytes:
        """See L{XProtocol.reply}; the body is a message, such as C{404|router unavailable}."""
        if status == 200:
            return encode_frame(_HESSIAN2, frame.id, _NOTHING_RETURNED, status=_OK)
        code, text = _FROM_HTTP.get(status, (_SERVICE_ERROR, "status not defined"))
        return encode_frame(_HESSIAN2, frame.id, encode_string(f"{status}|{text}"), status=code)

    def reply_unsent(self, frame: Frame, why: Unsent) -> bytes:
        """See L{XProtocol.reply_unsent}; the body is the message of L{reply} for 502."""
        return encode_frame(
            _HESSIAN2, frame.id, encode_string("502|no health upstream"), status=_UNSENT_STATUS[why]
        )

    def unsent(self, frame: Frame) -> Unsent | None:
        """See L{XProtocol.unsent}."""
        assert isinstance(frame, DubboFrame)
        return _UNSENT.get(frame.status)

    def disclaim(self, frame: Frame) -> None:
        """See L{XProtocol.disclaim}."""
        assert isinstance(frame, DubboFrame)
        if frame.status in _UNSENT:
            frame.status = frame.data[3] = _SERVICE_ERROR

    def gateway_status(self, frame: Frame) -> int:
        """See L{XProtocol.gateway_status}."""
        assert isinstance(frame, DubboFrame)
        if frame.status == _OK or len(frame.data) > _HEADER.size + _MOST_MESSAGE:
            return 0
        try:
            text, _ = decode_string(frame.data, _HEADER.size)
        except RpcHeaderError:
            return 0
        return _GATEWAY.get((text or "")[:4], 0)

    def answer_heartbeat(self, frame: Frame) -> bytes:
        """See L{XProtocol.answer_heartbeat}; with two nulls, as MOSN does."""
        assert isinstance(frame, DubboFrame)
        if not frame.flag & _TWO_WAY:
            return b""
        return encode_frame(_EVENT | _HESSIAN2, frame.id, b"NN", status=_OK)

    def heartbeat(self, request_id: int) -> bytes:
        """
        See L{XProtocol.heartbeat}.

        MOSN answers them, but sends none; Dubbo does both.
        """
        return encode_frame(_REQUEST | _TWO_WAY | _EVENT | _HESSIAN2, request_id, b"N")


def _not_dubbo(buffer: bytearray, start: int) -> RpcFrameError:
    return RpcFrameError(f"a dubbo frame begins with da bb, not with {buffer[start : start + 2].hex(' ')}")


def _kind(flag: int, data: bytearray) -> Kind:
    if flag & _REQUEST:
        if flag & _EVENT:
            return Kind.GOAWAY if data[_HEADER.size :] == _READ_ONLY else Kind.HEARTBEAT
        return Kind.REQUEST if flag & _TWO_WAY else Kind.ONEWAY
    return Kind.HEARTBEAT_ACK if flag & _EVENT else Kind.RESPONSE


def encode_frame(flag: int, request_id: int, body: bytes, status: int = 0) -> bytes:
    """
    Return a frame.

    @param flag: the third byte of the header.
    """
    return _HEADER.pack(_MAGIC, flag, status, request_id, len(body)) + body
