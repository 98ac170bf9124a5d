"""
bolt, SOFA's RPC protocol, in both versions (docs/mosn.rst 6).

Everything is in network byte order.  A frame is a header, a class name, a block
of headers and the content, whose lengths are in the header::

    v1 request, 22 bytes             v1 response, 20 bytes
     0  1  protocol: 1                0  1  protocol: 1
     1  1  type: 1, 2 for one-way     1  1  type: 0
     2  2  command                    2  2  command
     4  1  version                    4  1  version
     5  4  request id                 5  4  request id
     9  1  codec: 1 for hessian2      9  1  codec
    10  4  timeout in ms             10  2  status
    14  2  length of the class       12  2  length of the class
    16  2  length of the headers     14  2  length of the headers
    18  4  length of the content     16  4  length of the content

v2 has protocol 2, a second version byte after it, and a byte of switches after
the codec.  If that version is 2 and the lowest switch is on, the frame ends with
its CRC-32 (SOFABolt's C{RpcCommandDecoderV2}); MOSN does not know that.  As it
covers the id, which changes at each hop, it is checked and computed anew here.

The commands are 0 for a heartbeat, 1 for a request, 2 for a response and 100
for goaway (MOSN: C{pkg/protocol/xprotocol/bolt/types.go}); others are forwarded
like requests and responses.  Both versions may be mixed on one connection, as in
MOSN; an answer has the version of its request.
"""

from __future__ import annotations

__all__ = ["Bolt", "BoltFrame", "BoltStatus", "encode_headers", "encode_request", "encode_response"]

import struct
from collections.abc import Mapping
from enum import IntEnum
from typing import Final

from reverseproxy.errors import RpcFrameError
from reverseproxy.wire.http.unsent import Unsent
from reverseproxy.wire.rpc.bolt_frames import CRC_SIZE, BoltFrame, check_crc, encode_headers
from reverseproxy.wire.rpc.xprotocol import Frame, Kind, XProtocol

_V1_REQUEST = struct.Struct(">BBHBIBiHHI")
_V1_RESPONSE = struct.Struct(">BBHBIBHHHI")
_V2_REQUEST = struct.Struct(">BBBHBIBBiHHI")
_V2_RESPONSE = struct.Struct(">BBBHBIBBHHHI")

_RESPONSE: Final = 0
_REQUEST: Final = 1
_ONEWAY: Final = 2

_HEARTBEAT: Final = 0
_RPC_REQUEST: Final = 1
_RPC_RESPONSE: Final = 2
_GOAWAY: Final = 100

_HESSIAN2: Final = 1


class BoltStatus(IntEnum):
    """The status of a response."""

    SUCCESS = 0
    ERROR = 1
    SERVER_EXCEPTION = 2
    UNKNOWN = 3
    SERVER_THREADPOOL_BUSY = 4
    ERROR_COMM = 5
    NO_PROCESSOR = 6
    TIMEOUT = 7
    CLIENT_SEND_ERROR = 8
    CODEC_EXCEPTION = 9
    CONNECTION_CLOSED = 16
    SERVER_SERIAL_EXCEPTION = 17
    SERVER_DESERIAL_EXCEPTION = 18


# MOSN: Mapping in pkg/protocol/xprotocol/bolt/protocol.go, and mapping.go for the way back.
_FROM_HTTP: Final = {
    200: BoltStatus.SUCCESS,
    404: BoltStatus.NO_PROCESSOR,
    502: BoltStatus.NO_PROCESSOR,
    503: BoltStatus.SERVER_THREADPOOL_BUSY,
    504: BoltStatus.TIMEOUT,
    403: BoltStatus.SERVER_EXCEPTION,
    0: BoltStatus.CODEC_EXCEPTION,
    3: BoltStatus.SERVER_DESERIAL_EXCEPTION,
}
_TO_HTTP: Final[dict[int, int]] = {
    BoltStatus.SUCCESS: 200,
    BoltStatus.SERVER_THREADPOOL_BUSY: 503,
    BoltStatus.TIMEOUT: 504,
    BoltStatus.CONNECTION_CLOSED: 502,
}

_UNSENT: Final = {0x7D01: Unsent.REQUEST, 0x7D02: Unsent.SERVICE}
"""Statuses that only ends of this project use; SOFABolt's end at 0x1F."""
_UNSENT_STATUS: Final = {why: status for status, why in _UNSENT.items()}

_GATEWAY: Final[dict[int, int]] = {
    BoltStatus.NO_PROCESSOR: 502,
    BoltStatus.SERVER_THREADPOOL_BUSY: 503,
    BoltStatus.TIMEOUT: 504,
    BoltStatus.CONNECTION_CLOSED: 502,
}
"""Statuses of a MOSN agent's own responses, which have no class, headers and content (docs/mosn.rst 6.6)."""


class Bolt(XProtocol):
    """
    bolt or boltv2, which read both versions and differ in the frames that they send first.

    @ivar version: the version of our own heartbeats and goaways.
    """

    def __init__(self, version: int = 1, enable_goaway: bool = False) -> None:
        """
        @param enable_goaway: whether to send goaway, which clients may not know
            (C{enable_bolt_goaway}).
        """
        self.name = "bolt" if version == 1 else "boltv2"
        self.version = version
        self._enable_goaway = enable_goaway

    def detect(self, data: bytes) -> bool | None:
        """See L{XProtocol.detect}."""
        return data[0] == self.version

    def partial_id(self, buffer: bytearray) -> int | None:
        """See L{XProtocol.partial_id}."""
        at = 5 if buffer[0] == 1 else 6
        return int.from_bytes(buffer[at : at + 4]) if len(buffer) >= at + 4 else None

    def decode(self, buffer: bytearray, start: int) -> Frame | int:
        """See L{XProtocol.decode}."""
        version = buffer[start]
        there = len(buffer) - start
        if version == 1:
            if there < 2:
                return 20
            type_ = buffer[start + 1]
            size = 20 if type_ == _RESPONSE else 22
        elif version == 2:
            if there < 3:
                return 22
            type_ = buffer[start + 2]
            size = 22 if type_ == _RESPONSE else 24
        else:
            raise RpcFrameError(f"a bolt frame begins with 01 or 02, not with {version:02x}")
        if type_ > _ONEWAY:
            raise RpcFrameError(f"the type of a bolt frame is 0, 1 or 2, not {type_}")
        if there < size:
            return size
        status = timeout = 0
        checked = False
        if version == 1 and type_ == _RESPONSE:
            _, _, command, _, id_, _, status, class_, block, content = _V1_RESPONSE.unpack_from(buffer, start)
        elif version == 1:
            _, _, command, _, id_, _, timeout, class_, block, content = _V1_REQUEST.unpack_from(buffer, start)
        else:
            layout = _V2_RESPONSE if type_ == _RESPONSE else _V2_REQUEST
            _, minor, _, command, _, id_, _, switch, value, class_, block, content = layout.unpack_from(
                buffer, start
            )
            checked = minor == 2 and bool(switch & 1)
            status, timeout = (value, 0) if type_ == _RESPONSE else (0, value)
        begin = size + class_
        end = begin + block
        total: int = end + content + (CRC_SIZE if checked else 0)
        if there < total:
            return total
        data = buffer[start : start + total]
        if checked:
            check_crc(data)
        return BoltFrame(data, _kind(type_, command), id_, timeout, status, version, (begin, end), checked)

    def http_status(self, frame: Frame) -> int:
        """See L{XProtocol.http_status}; as MOSN maps it."""
        assert isinstance(frame, BoltFrame)
        return _TO_HTTP.get(frame.status, 500)

    def reply(self, frame: Frame, status: int) -> bytes:
        """See L{XProtocol.reply}; without class, headers and content, as MOSN does."""
        return encode_response(frame.id, _FROM_HTTP.get(status, BoltStatus.UNKNOWN), version=_version(frame))

    def reply_unsent(self, frame: Frame, why: Unsent) -> bytes:
        """See L{XProtocol.reply_unsent}."""
        return encode_response(frame.id, _UNSENT_STATUS[why], version=_version(frame))

    def unsent(self, frame: Frame) -> Unsent | None:
        """See L{XProtocol.unsent}."""
        assert isinstance(frame, BoltFrame)
        return _UNSENT.get(frame.status)

    def disclaim(self, frame: Frame) -> None:
        """See L{XProtocol.disclaim}."""
        assert isinstance(frame, BoltFrame)
        if frame.status in _UNSENT:
            frame.set_status(BoltStatus.UNKNOWN)

    def gateway_status(self, frame: Frame) -> int:
        """See L{XProtocol.gateway_status}."""
        assert isinstance(frame, BoltFrame)
        return _GATEWAY.get(frame.status, 0) if frame.bare else 0

    def answer_heartbeat(self, frame: Frame) -> bytes:
        """See L{XProtocol.answer_heartbeat}."""
        return encode_response(frame.id, BoltStatus.SUCCESS, command=_HEARTBEAT, version=_version(frame))

    def heartbeat(self, request_id: int) -> bytes:
        """See L{XProtocol.heartbeat}."""
        return encode_request(request_id, timeout=-1, command=_HEARTBEAT, version=self.version)

    def goaway(self, request_id: int) -> bytes:
        """See L{XProtocol.goaway}."""
        if not self._enable_goaway:
            return b""
        return encode_request(request_id, timeout=0, command=_GOAWAY, version=self.version)


def _kind(type_: int, command: int) -> Kind:
    if type_ == _RESPONSE:
        return Kind.HEARTBEAT_ACK if command == _HEARTBEAT else Kind.RESPONSE
    if command == _HEARTBEAT:
        return Kind.HEARTBEAT
    if command == _GOAWAY:
        return Kind.GOAWAY
    return Kind.REQUEST if type_ == _REQUEST else Kind.ONEWAY


def _version(frame: Frame) -> int:
    assert isinstance(frame, BoltFrame)
    return frame.version


def encode_request(
    request_id: int,
    headers: Mapping[str, str] | None = None,
    content: bytes = b"",
    *,
    timeout: int = -1,
    oneway: bool = False,
    class_name: bytes = b"",
    command: int = _RPC_REQUEST,
    version: int = 1,
) -> bytes:
    """
    Return a request.

    @param timeout: milliseconds; 0 for the next hop's default, -1 for no limit.
    @raise ValueError: if the headers are too long.
    """
    block = encode_headers(headers or {})
    kind = _ONEWAY if oneway else _REQUEST
    lengths = (len(class_name), len(block), len(content))
    if version == 1:
        head = _V1_REQUEST.pack(1, kind, command, 1, request_id, _HESSIAN2, timeout, *lengths)
    else:
        head = _V2_REQUEST.pack(2, 1, kind, command, 1, request_id, _HESSIAN2, 0, timeout, *lengths)
    return b"".join((head, class_name, block, content))


def encode_response(
    request_id: int,
    status: int = BoltStatus.SUCCESS,
    headers: Mapping[str, str] | None = None,
    content: bytes = b"",
    *,
    class_name: bytes = b"",
    command: int = _RPC_RESPONSE,
    version: int = 1,
) -> bytes:
    """
    Return a response.

    @raise ValueError: if the headers are too long.
    """
    block = encode_headers(headers or {})
    lengths = (len(class_name), len(block), len(content))
    if version == 1:
        head = _V1_RESPONSE.pack(1, _RESPONSE, command, 1, request_id, _HESSIAN2, status, *lengths)
    else:
        head = _V2_RESPONSE.pack(2, 1, _RESPONSE, command, 1, request_id, _HESSIAN2, 0, status, *lengths)
    return b"".join((head, class_name, block, content))
