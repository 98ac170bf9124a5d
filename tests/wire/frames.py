"""What the tests of RPC protocols share: a protocol made up for them, and chunks."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import strategies

from reverseproxy.errors import RpcFrameError
from reverseproxy.wire.rpc.xprotocol import Frame, Kind, RpcFrameDecoder, XProtocol


class TinyFrame(Frame):
    """C{#}, kind, id, length, and a body that is the service."""

    __slots__ = ()

    def set_id(self, request_id: int) -> None:
        self.id = request_id
        self.data[2] = request_id

    def header(self, name: str) -> str | None:
        return self.data[4:].decode("ascii") if name == "service" else None


class Tiny(XProtocol):
    """As small as a protocol can be: one byte each, and no heartbeats."""

    name = "tiny"
    max_id = 255

    def detect(self, data: bytes) -> bool | None:
        return data[:1] == b"#"

    def decode(self, buffer: bytearray, start: int) -> Frame | int:
        if buffer[start] != ord("#"):
            raise RpcFrameError("a tiny frame begins with #")
        if len(buffer) - start < 4:
            return 4
        size = 4 + buffer[start + 3]
        if len(buffer) - start < size:
            return size
        return TinyFrame(buffer[start : start + size], Kind(buffer[start + 1]), buffer[start + 2])

    def http_status(self, frame: Frame) -> int:
        return 200

    def reply(self, frame: Frame, status: int) -> bytes:
        return tiny(Kind.RESPONSE, frame.id, str(status).encode())

    def answer_heartbeat(self, frame: Frame) -> bytes:
        return tiny(Kind.HEARTBEAT_ACK, frame.id)


def tiny(kind: Kind, request_id: int, body: bytes = b"") -> bytes:
    return b"#" + bytes((kind, request_id, len(body))) + body


def decode_all(protocol: XProtocol, data: bytes) -> list[Frame]:
    """All frames in some bytes, which must have nothing else."""
    decoder = RpcFrameDecoder(protocol)
    frames = decoder.feed(data)
    assert decoder.error is None, decoder.error
    assert not decoder.in_frame
    return frames


def split(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    """Cut at these places, each modulo the length."""
    start = 0
    for cut in sorted(cut % (len(data) + 1) for cut in cuts):
        yield data[start:cut]
        start = cut
    yield data[start:]


cuts = strategies.lists(strategies.integers(0, 10_000), max_size=20)
