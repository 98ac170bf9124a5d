"""
Frames of bolt as they are forwarded: with another id, and with other headers if a route changes them.

Headers are a block of names and values in turn, each prefixed with its length in four
bytes.  L{reverseproxy.wire.rpc.bolt} has the layout of a frame.
"""

from __future__ import annotations

__all__ = ["CRC_SIZE", "BoltFrame", "check_crc", "encode_headers"]

import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from reverseproxy.errors import RpcFrameError, RpcHeaderError
from reverseproxy.wire.rpc.xprotocol import Frame, Kind

_ID = struct.Struct(">I")
_LENGTH = struct.Struct(">I")
_SHORT = struct.Struct(">H")

_NULL: Final = 0xFFFFFFFF
_MAX_BLOCK: Final = 0xFFFF

CRC_SIZE: Final = 4
"""Bytes of the CRC at the end of some frames of version 2."""


class BoltFrame(Frame):
    """
    A frame of bolt.

    @ivar version: 1 or 2.
    @ivar status: the status of a response; 0 in a request.
    """

    __slots__ = ("_block", "_checked", "_headers", "status", "version")

    def __init__(
        self,
        data: bytearray,
        kind: Kind,
        request_id: int,
        timeout: int,
        status: int,
        version: int,
        block: tuple[int, int],
        checked: bool = False,
    ) -> None:
        """
        @param block: where the block of headers begins and ends.
        @param checked: whether a CRC stands at the end.
        """
        self.data = data
        self.kind = kind
        self.id = request_id
        self.timeout = timeout
        self.status = status
        self.version = version
        self._block = block
        self._checked = checked
        self._headers: dict[str, str] | None = None

    def set_id(self, request_id: int) -> None:
        """See L{Frame.set_id}."""
        self.id = request_id
        data = self.data
        _ID.pack_into(data, 5 if self.version == 1 else 6, request_id)
        if self._checked:
            end = len(data) - CRC_SIZE
            _LENGTH.pack_into(data, end, zlib.crc32(memoryview(data)[:end]))

    def set_status(self, status: int) -> None:
        """Change the status of a response, in L{data} as well."""
        self.status = status
        _SHORT.pack_into(self.data, 10 if self.version == 1 else 12, status)
        self.set_id(self.id)  # and the checksum

    @property
    def content(self) -> bytes:
        """The content of the request or response."""
        end = len(self.data) - (CRC_SIZE if self._checked else 0)
        return bytes(self.data[self._block[1] : end])

    @property
    def headers(self) -> Mapping[str, str]:
        """
        The headers in their order, by name, in their case.

        Of several with the same name the first one counts, as in MOSN.

        @raise RpcHeaderError: if a length points beyond the block.
        """
        headers = self._headers
        if headers is None:
            headers = {}
            for name, value in _decode_headers(self.data, *self._block):
                headers.setdefault(
                    name.decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape")
                )
            self._headers = headers
        return headers

    def fields(self) -> list[tuple[bytes, bytes]]:
        """See L{Frame.fields}."""
        return _decode_headers(self.data, *self._block)

    def names(self) -> Iterable[str]:
        """See L{Frame.names}; the same as L{header} finds."""
        return self.headers

    def set_fields(self, fields: Sequence[tuple[bytes, bytes]]) -> None:
        """See L{Frame.set_fields}."""
        block = b"".join(
            part for field in fields for item in field for part in (_LENGTH.pack(len(item)), item)
        )
        if len(block) > _MAX_BLOCK:
            raise RpcHeaderError(
                f"the headers would take {len(block)} bytes, and a frame can carry {_MAX_BLOCK}"
            )
        begin, end = self._block
        place = 14 if self.kind in (Kind.RESPONSE, Kind.HEARTBEAT_ACK) else 16
        data = self.data
        data[begin:end] = block
        _SHORT.pack_into(data, place + 2 * (self.version - 1), len(block))
        self._block = begin, begin + len(block)
        self._headers = None
        self.set_id(self.id)

    def header(self, name: str) -> str | None:
        """See L{Frame.header}; a header of exactly this name is preferred to one in another case."""
        headers = self.headers
        value = headers.get(name)
        if value is None:
            for key in headers:
                if key.lower() == name:
                    return headers[key]
        return value

    @property
    def bare(self) -> bool:
        """Whether a response has neither a class nor headers nor content."""
        size = 20 if self.version == 1 else 22
        return len(self.data) == size + (CRC_SIZE if self._checked else 0)

    @property
    def body_size(self) -> int:
        """See L{Frame.body_size}."""
        return len(self.data) - self._block[1] - (CRC_SIZE if self._checked else 0)

    @property
    def method(self) -> str:
        """See L{Frame.method}; SOFA's own header."""
        return self.header("sofa_head_method_name") or ""


def _decode_headers(data: bytearray, position: int, end: int) -> list[tuple[bytes, bytes]]:
    """
    Decode a block of headers.

    A length of -1 stands for a missing item.  As in MOSN, a name follows it, so that
    a pair without a value is dropped.
    """
    headers: list[tuple[bytes, bytes]] = []
    name: bytes | None = None
    while position < end:
        start = position + 4
        if start > end:
            raise RpcHeaderError(f"the block of headers ends {start - end} bytes short of a length")
        (length,) = _LENGTH.unpack_from(data, position)
        position = start
        if length == _NULL:
            name = None
            continue
        position += length
        if position > end:
            raise RpcHeaderError(f"a header is {position - end} bytes longer than the block of headers")
        item = bytes(data[start:position])
        if name is None:
            name = item
        else:
            headers.append((name, item))
            name = None
    if name is not None:
        raise RpcHeaderError("the block of headers ends before the value of a name")
    return headers


def check_crc(data: bytearray) -> None:
    """
    Check the CRC of a frame.

    @raise RpcFrameError: if it does not match.
    """
    end = len(data) - CRC_SIZE
    expected = _LENGTH.unpack_from(data, end)[0]
    actual = zlib.crc32(memoryview(data)[:end])
    if expected != actual:
        raise RpcFrameError(f"the CRC of a boltv2 frame is {actual:08x}, and not {expected:08x} as it says")


def encode_headers(headers: Mapping[str, str]) -> bytes:
    """
    Encode a block of headers.

    @raise ValueError: if it is longer than 65535 bytes, which is all that a
        frame can tell.
    """
    parts: list[bytes] = []
    for item in headers.items():
        for text in item:
            encoded = text.encode("utf-8", "surrogateescape")
            parts += (_LENGTH.pack(len(encoded)), encoded)
    block = b"".join(parts)
    if len(block) > _MAX_BLOCK:
        raise ValueError(f"the headers take {len(block)} bytes, and a frame can carry {_MAX_BLOCK}")
    return block
