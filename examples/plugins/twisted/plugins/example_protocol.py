"""
A plug-in as an example: an RPC protocol of one's own.

A frame is a header of 12 bytes and a body, which in a request is the name of a
service, a line end, and whatever the service is to get::

    0  2  "EX"
    2  1  kind: Q a request, O one without an answer, A an answer, P a ping, p its answer
    3  1  status of an answer: 0 is success
    4  4  id
    8  4  length of the body
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from twisted.plugin import IPlugin
from zope.interface import implementer

from reverseproxy.errors import RpcFrameError, RpcHeaderError
from reverseproxy.interfaces import IXProtocolPlugin
from reverseproxy.wire.rpc.xprotocol import Frame, Kind, XProtocol

HEADER = struct.Struct(">2scBII")
ID = struct.Struct(">I")

KINDS = {
    b"Q": Kind.REQUEST,
    b"O": Kind.ONEWAY,
    b"A": Kind.RESPONSE,
    b"P": Kind.HEARTBEAT,
    b"p": Kind.HEARTBEAT_ACK,
}


class ExampleFrame(Frame):
    """A frame; what is not needed to forward it is looked up when somebody asks."""

    __slots__ = ()

    def set_id(self, request_id: int) -> None:
        """See L{Frame.set_id}."""
        self.id = request_id
        ID.pack_into(self.data, 4, request_id)

    def header(self, name: str) -> str | None:
        """See L{Frame.header}: routes can match C{service}."""
        if name != "service" or self.kind not in (Kind.REQUEST, Kind.ONEWAY):
            return None
        service, end, _ = self.data[HEADER.size :].partition(b"\n")
        if not end:
            raise RpcHeaderError("the request names no service")
        return service.decode("utf-8", "surrogateescape")


class Example(XProtocol):
    """The protocol; it has no state."""

    name = "example"

    def detect(self, data: bytes) -> bool | None:
        """See L{XProtocol.detect}."""
        if len(data) < 2:
            return None if data == b"E" else False
        return data.startswith(b"EX")

    def decode(self, buffer: bytearray, start: int) -> Frame | int:
        """See L{XProtocol.decode}."""
        there = len(buffer) - start
        if not b"EX".startswith(buffer[start : start + 2]):
            raise RpcFrameError("a frame begins with EX")
        if there < HEADER.size:
            return HEADER.size
        _, letter, _, request_id, length = HEADER.unpack_from(buffer, start)
        kind = KINDS.get(letter)
        if kind is None:
            raise RpcFrameError(f"there is no kind {letter!r}")
        size: int = HEADER.size + length
        if there < size:
            return size
        return ExampleFrame(buffer[start : start + size], kind, request_id)

    def http_status(self, frame: Frame) -> int:
        """See L{XProtocol.http_status}."""
        return 200 if frame.data[3] == 0 else 500

    def reply(self, frame: Frame, status: int) -> bytes:
        """See L{XProtocol.reply}."""
        return HEADER.pack(b"EX", b"A", 0 if status == 200 else 1, frame.id, 0)

    def answer_heartbeat(self, frame: Frame) -> bytes:
        """See L{XProtocol.answer_heartbeat}."""
        return HEADER.pack(b"EX", b"p", 0, frame.id, 0)

    def heartbeat(self, request_id: int) -> bytes:
        """See L{XProtocol.heartbeat}."""
        return HEADER.pack(b"EX", b"P", 0, request_id, 0)


@implementer(IPlugin, IXProtocolPlugin)
class ExamplePlugin:
    """C{"downstream_protocol": "example"}; it has no options."""

    name = "example"

    def build(self, options: Mapping[str, Any]) -> XProtocol:
        """See L{IXProtocolPlugin}."""
        if options:
            raise ValueError(f"the protocol has no option {next(iter(options))!r}")
        return Example()


example = ExamplePlugin()
