"""bolt, boltv2 and dubbo: whole frames, one write for each, matched by their ids."""

from __future__ import annotations

__all__ = ["CODECS", "RpcAnswerer", "RpcAsker", "RpcCodec"]

import struct
from functools import partial
from typing import NamedTuple

from tests.mosn.talk import Answered, Answerer, Asker, Unexpected

TIMEOUT = 60_000
"""Milliseconds that bolt's requests ask for: more than any situation takes."""


class RpcFrame(NamedTuple):
    """
    A frame.

    @ivar request: whether it asks for something.
    @ivar heartbeat: whether it is no business of the service.
    @ivar status: of a response; 0 says that it is good.
    """

    request: bool
    heartbeat: bool
    number: int
    status: int
    body: bytes


class RpcCodec:
    """One of the protocols."""

    def request(self, number: int, body: bytes) -> bytes:
        raise NotImplementedError

    def response(self, number: int, body: bytes) -> bytes:
        raise NotImplementedError

    def heartbeat(self, number: int) -> bytes:
        raise NotImplementedError

    def heartbeat_answer(self, number: int) -> bytes:
        raise NotImplementedError

    def goaway(self) -> bytes | None:
        """What says that no more requests should come, if anything does."""
        return None

    def take(self, buffer: bytes) -> tuple[RpcFrame, bytes] | None:
        """The first frame and what follows it; L{None} if there is more to come."""
        raise NotImplementedError


def _block(*texts: bytes) -> bytes:
    return b"".join(struct.pack("!I", len(text)) + text for text in texts)


class _Bolt(RpcCodec):
    """Version 1 or 2; version 2 has two bytes more."""

    def __init__(self, version: int) -> None:
        self._version = version

    def _head(self, kind: int, command: int, number: int) -> bytes:
        if self._version == 1:
            return struct.pack("!BBHBIB", 1, kind, command, 1, number, 1)
        return struct.pack("!BBBHBIBB", 2, 1, kind, command, 1, number, 1, 0)

    def request(self, number: int, body: bytes) -> bytes:
        class_, block = b"com.alipay.sofa.rpc.core.request.SofaRequest", _block(b"service", b"echo")
        lengths = struct.pack("!iHHI", TIMEOUT, len(class_), len(block), len(body))
        return self._head(1, 1, number) + lengths + class_ + block + body

    def response(self, number: int, body: bytes) -> bytes:
        class_ = b"com.alipay.sofa.rpc.core.response.SofaResponse"
        return self._head(0, 2, number) + struct.pack("!HHHI", 0, len(class_), 0, len(body)) + class_ + body

    def heartbeat(self, number: int) -> bytes:
        return self._head(1, 0, number) + struct.pack("!iHHI", -1, 0, 0, 0)

    def heartbeat_answer(self, number: int) -> bytes:
        return self._head(0, 0, number) + struct.pack("!HHHI", 0, 0, 0, 0)

    def goaway(self) -> bytes | None:
        """Sent with C{enable_bolt_goaway}."""
        return self._head(1, 100, 1) + struct.pack("!iHHI", -1, 0, 0, 0)

    def take(self, buffer: bytes) -> tuple[RpcFrame, bytes] | None:
        shift = self._version - 1
        if len(buffer) < 22 + 2 * shift and (len(buffer) < 20 + 2 * shift or buffer[1 + shift]):
            return None
        if buffer[0] != self._version:
            raise Unexpected(f"no frame of bolt {self._version}: {buffer[:32]!r}")
        kind = buffer[1 + shift]
        size = (22 if kind else 20) + 2 * shift
        command, _, number = struct.unpack_from("!HBI", buffer, 2 + shift)
        extra, *lengths = struct.unpack_from("!iHHI" if kind else "!HHHI", buffer, 10 + 2 * shift)
        end = size + sum(lengths)
        if len(buffer) < end:
            return None
        status = 0 if kind else extra
        frame = RpcFrame(bool(kind), not command, number, status, buffer[end - lengths[2] : end])
        return frame, buffer[end:]


class _Dubbo(RpcCodec):
    """Its body is Hessian, of which this knows strings and binaries."""

    _CALL = b"\x052.0.2" + b"\x10com.example.Echo" + b"\x051.0.0" + b"\x04echo"

    def _frame(self, flag: int, status: int, number: int, body: bytes) -> bytes:
        return struct.pack("!2sBBQI", b"\xda\xbb", flag, status, number, len(body)) + body

    def request(self, number: int, body: bytes) -> bytes:
        return self._frame(0xC2, 0, number, self._CALL + body)

    def response(self, number: int, body: bytes) -> bytes:
        return self._frame(0x02, 20, number, body)

    def heartbeat(self, number: int) -> bytes:
        return self._frame(0xE2, 0, number, b"N")

    def heartbeat_answer(self, number: int) -> bytes:
        return self._frame(0x22, 20, number, b"NN")

    def take(self, buffer: bytes) -> tuple[RpcFrame, bytes] | None:
        if len(buffer) < 16:
            return None
        magic, flag, status, number, length = struct.unpack_from("!2sBBQI", buffer)
        if magic != b"\xda\xbb":
            raise Unexpected(f"no frame of dubbo: {buffer[:32]!r}")
        if len(buffer) < 16 + length:
            return None
        request = bool(flag & 0x80)
        body = buffer[16 : 16 + length]
        if request and not flag & 0x20:
            body = body.removeprefix(self._CALL)
        frame = RpcFrame(request, bool(flag & 0x20), number, 0 if request else status - 20, body)
        return frame, buffer[16 + length :]


CODECS: dict[str, RpcCodec] = {"bolt": _Bolt(1), "boltv2": _Bolt(2), "dubbo": _Dubbo()}


class RpcAsker(Asker):
    """A client's or MOSN's end."""

    def __init__(self, codec: RpcCodec, first: int = 1) -> None:
        super().__init__()
        self._codec = codec
        self._next = first
        self._buffer = b""
        self._waiting: dict[int, Answered] = {}
        self._beating: dict[int, Answered] = {}

    def ask(self, body: bytes, answered: Answered) -> None:
        number = self._number()
        self._waiting[number] = answered
        self.pieces.append(self._codec.request(number, body))

    def beat(self, answered: Answered) -> None:
        """Send a heartbeat; its number is from the same row, as MOSN's."""
        number = self._number()
        self._beating[number] = answered
        self.pieces.append(self._codec.heartbeat(number))

    def _number(self) -> int:
        number, self._next = self._next, self._next + 1
        return number

    def feed(self, data: bytes) -> None:
        self._buffer += data
        while (taken := self._codec.take(self._buffer)) is not None:
            frame, self._buffer = taken
            if frame.request and frame.heartbeat:
                self.pieces.append(self._codec.heartbeat_answer(frame.number))
            elif frame.request:
                raise Unexpected(f"a request, where answers are expected: {frame}")
            elif frame.heartbeat:
                self._beating.pop(frame.number)(frame.body)
            elif frame.status:
                raise Unexpected(f"status {frame.status}: {frame.body[:200]!r}")
            elif frame.number not in self._waiting:
                raise Unexpected(f"an answer that nobody has asked for: {frame}")
            else:
                self._waiting.pop(frame.number)(frame.body)

    @property
    def under_way(self) -> int:
        return len(self._waiting) + len(self._beating)


class RpcAnswerer(Answerer):
    """A service's or MOSN's end."""

    def __init__(self, codec: RpcCodec) -> None:
        super().__init__()
        self._codec = codec
        self._buffer = b""

    def feed(self, data: bytes) -> None:
        self._buffer += data
        while (taken := self._codec.take(self._buffer)) is not None:
            frame, self._buffer = taken
            if not frame.request:
                raise Unexpected(f"a response, where requests are expected: {frame}")
            if frame.heartbeat:
                self.pieces.append(self._codec.heartbeat_answer(frame.number))
            else:
                self.answer(partial(self._respond, frame))

    def _respond(self, frame: RpcFrame) -> None:
        self.pieces.append(self._codec.response(frame.number, frame.body))

    def go_away(self) -> None:
        if (goaway := self._codec.goaway()) is not None:
            self.pieces.append(goaway)
