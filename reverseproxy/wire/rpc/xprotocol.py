"""
RPC protocols of whole frames, whose responses are matched by ids: what they have in common.

MOSN calls them I{x-protocols}: bolt, dubbo and the like.  A frame is forwarded
as it came, but for its id: each hop numbers the requests on a connection
itself, as several clients share one.

An L{XProtocol} implements one of them: where a frame ends, what kind it is, and how
to make the few frames that a proxy sends itself.  It has no state, so that one
object serves all connections.  An L{RpcFrameDecoder} reads whole frames of any of
them from the bytes of one connection.

To add a protocol, derive from L{Frame} and L{XProtocol}; C{docs/plugins.rst}
shows how.
"""

from __future__ import annotations

__all__ = ["MAX_FRAME", "Frame", "Kind", "RpcFrameDecoder", "XProtocol"]

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from enum import IntEnum

from reverseproxy.errors import RpcFrameError
from reverseproxy.wire.http.unsent import Unsent

MAX_FRAME = 16 * 1024 * 1024
"""The largest frame in bytes that is accepted, if nothing else is configured."""


_PIECE = 16384
"""Bytes of a read from which on it is kept as it is, rather than copied into a buffer."""


class Kind(IntEnum):
    """What a frame is for."""

    REQUEST = 1
    """Forwarded, and answered with one response of the same id."""
    ONEWAY = 2
    """A request that is forwarded and not answered."""
    RESPONSE = 3
    """The answer to a request."""
    HEARTBEAT = 4
    """Asks whether the connection is alive: answered at once, never forwarded."""
    HEARTBEAT_ACK = 5
    """The answer to a heartbeat."""
    GOAWAY = 6
    """The sender accepts no new requests on this connection; those in progress go on."""


class Frame(ABC):
    """
    One whole frame.

    @ivar data: the frame as it came; L{set_id} changes it in place.
    @ivar kind: what it is for.
    @ivar id: the same in a request and its response.
    @ivar timeout: the sender's time limit for a request, in milliseconds;
        0 if there is none in the frame, negative for no limit.
    """

    __slots__ = ("data", "id", "kind", "timeout")

    def __init__(self, data: bytearray, kind: Kind, request_id: int, timeout: int = 0) -> None:
        self.data = data
        self.kind = kind
        self.id = request_id
        self.timeout = timeout

    @abstractmethod
    def set_id(self, request_id: int) -> None:
        """Give the frame another id, in L{data} as well."""

    @abstractmethod
    def header(self, name: str) -> str | None:
        """
        Return the value of a header, for routing and logs.

        Frames are forwarded without this, so headers should be parsed when it is
        first called.

        @param name: in lower case.
        @return: text; bytes that are not UTF-8 become surrogate escapes.
        @raise RpcHeaderError: if the headers can't be read.
        """

    def fields(self) -> list[tuple[bytes, bytes]] | None:
        """
        Return all headers in their order, for routes that change some.

        @return: L{None} if headers can't be changed in this protocol.
        @raise RpcHeaderError: if they can't be read.
        """
        return None

    def names(self) -> Iterable[str]:
        """
        Return the names of all headers in L{fields}.

        @raise RpcHeaderError: if they can't be read.
        """
        return [name.decode("utf-8", "surrogateescape") for name, _ in self.fields() or ()]

    def set_fields(self, fields: Sequence[tuple[bytes, bytes]]) -> None:
        """
        Replace the headers, in L{data} as well; only if L{fields} is not L{None}.

        @raise RpcHeaderError: if they don't fit a frame.
        """
        raise NotImplementedError

    @property
    def body_size(self) -> int:
        """Bytes of the body; of the whole frame, if the protocol does not tell."""
        return len(self.data)

    @property
    def service(self) -> str:
        """
        The service that a request is for; empty if the frame does not say.

        @raise RpcHeaderError: if the headers can't be read.
        """
        return self.header("service") or ""

    @property
    def method(self) -> str:
        """
        The method of the service that a request calls; empty if the frame does not say.

        @raise RpcHeaderError: if the headers can't be read.
        """
        return self.header("method") or ""


class XProtocol(ABC):
    """
    A protocol of whole frames.

    @ivar name: its name in the configuration.
    @ivar max_id: the largest id of a frame.
    """

    name: str
    max_id: int = 0xFFFFFFFF

    @abstractmethod
    def detect(self, data: bytes) -> bool | None:
        """
        Return whether a connection speaks this protocol.

        @param data: its first bytes, at least one.
        @return: L{None} if more bytes are needed.
        """

    @abstractmethod
    def decode(self, buffer: bytearray, start: int) -> Frame | int:
        """
        Read a frame from a buffer.

        What can't be a frame should be refused at the first wrong byte, as
        otherwise the connection waits for bytes that never come.

        @param buffer: bytes of the connection; don't change it.
        @param start: where the frame begins; at least one byte of it is there.
        @return: the frame, with a copy of its bytes; or, if it is incomplete,
            how many bytes are needed at least to go on.
        @raise RpcFrameError: if this is no frame.
        """

    def partial_id(self, buffer: bytearray) -> int | None:
        """
        Return the id of an incomplete frame.

        @param buffer: the part of it that has come.
        @return: L{None} if the id has not come, or the protocol does not tell.
        """
        return None

    @abstractmethod
    def http_status(self, frame: Frame) -> int:
        """
        Return the HTTP status that a response's status stands for, in logs, retries and health checks.

        @return: 200 for success.
        """

    @abstractmethod
    def reply(self, frame: Frame, status: int) -> bytes:
        """
        Return a response of our own to a request.

        @param frame: the request; its id is that of the response.
        @param status: an HTTP status; besides, as in MOSN, 0 for a request
            that can't be decoded and 2 for an unknown error (docs/mosn.rst 4.5).
        """

    def reply_unsent(self, frame: Frame, why: Unsent) -> bytes:
        """
        Return a response that tells a server of this project that a request was not sent on.

        @param frame: the request, as for L{reply}.
        @return: empty if the protocol has no way to say so.
        """
        return b""

    def unsent(self, frame: Frame) -> Unsent | None:
        """
        Return why a request was not sent on, if its response is one of L{reply_unsent}.

        Called for responses of agents that have agreed on it, and for no others.
        """
        return None

    def disclaim(self, frame: Frame) -> None:  # noqa: B027
        """
        Change a service's response for which L{unsent} is not L{None}.

        Only an agent may say that it has not sent a request on, as the server trusts
        that: such a status of a service becomes that of an unknown error.
        """

    def gateway_status(self, frame: Frame) -> int:
        """
        Return the HTTP status of a response of a proxy that has not reached its service.

        MOSN's agents answer so.  Services use the same statuses for other reasons, with a
        body.

        @return: 502, 503 or 504; 0 for any other response.
        """
        return 0

    @abstractmethod
    def answer_heartbeat(self, frame: Frame) -> bytes:
        """
        Return the answer to a heartbeat.

        @return: empty if this one is not to be answered.
        """

    def heartbeat(self, request_id: int) -> bytes:
        """
        Return a heartbeat.

        @return: empty if the protocol has none.
        """
        return b""

    def goaway(self, request_id: int) -> bytes:
        """
        Return a goaway: the client is to use another connection for new requests.

        @return: empty if the protocol has none, or it is not enabled.
        """
        return b""


class RpcFrameDecoder:
    """
    Reads the frames of one connection.

    It buffers at most one incomplete frame.  The reads of a large one are joined when
    all of it has come: a buffer that grows is copied again and again, and fragments
    memory.

    @ivar error: why nothing more can be decoded; set by L{feed}.
    @ivar max_frame: the largest frame in bytes that is accepted; may be changed.
    @ivar unfinished: bytes of the incomplete frame.
    """

    __slots__ = (
        "_buffer",
        "_decode",
        "_later",
        "_needed",
        "_part",
        "_partial_id",
        "error",
        "max_frame",
        "unfinished",
    )

    def __init__(self, protocol: XProtocol, max_frame: int = MAX_FRAME) -> None:
        self.error: RpcFrameError | None = None
        self._decode = protocol.decode
        self._partial_id = protocol.partial_id
        self.max_frame = max_frame
        self.unfinished = 0
        self._buffer = bytearray()
        self._later: list[bytes | bytearray] = []  # reads behind that which do not complete the frame
        self._needed = 1  # bytes that are needed to go on
        self._part = 0  # counts incomplete frames

    @property
    def in_frame(self) -> bool:
        """Whether there is an incomplete frame."""
        return bool(self._buffer)

    def begun(self, number: int) -> tuple[int, int] | None:
        """
        Return the progress of the incomplete frame.

        @param number: the id that it should have.
        @return: L{None} if there is none, or it has another id; else a number
            that is different for each frame, and how many bytes of it have come.
        """
        buffer = self._buffer
        if not buffer or self._partial_id(buffer) not in (None, number):
            return None
        return (self._part, self.unfinished)

    def feed(self, data: bytes) -> list[Frame]:
        """
        Take bytes.

        @return: the frames that they complete.  If L{error} is set afterwards,
            these came before the malformed bytes, and nothing more is decoded.
        """
        if self.error is not None:
            return []
        frames: list[Frame] = []
        size = self.unfinished + len(data)
        if size < self._needed:
            self._keep(data)
            return frames
        buffer = self._buffer
        if self._later:
            buffer = self._buffer = bytearray().join((buffer, *self._later, data))
            self._later.clear()
        else:
            buffer += data
        decode = self._decode
        position = 0
        needed = 1
        try:
            while position < size:
                frame = decode(buffer, position)
                if isinstance(frame, int):
                    needed = frame
                    break
                length = len(frame.data)
                if length > self.max_frame:
                    needed = length
                    break
                position += length
                frames.append(frame)
            if needed > self.max_frame:
                raise RpcFrameError(f"a frame of {needed} bytes or more, where {self.max_frame} are allowed")
        except RpcFrameError as error:
            self.error = error
            self.close()
            return frames
        if position:
            del buffer[:position]
            if buffer:
                self._part += 1
        left = self.unfinished = len(buffer)
        # At least one byte more than there are, even if the protocol asks for fewer.
        self._needed = max(needed, left + 1)
        return frames

    def _keep(self, data: bytes) -> None:
        """Keep a read that does not complete a frame."""
        self.unfinished += len(data)
        later = self._later
        if len(data) >= _PIECE:
            later.append(data)
        elif later and type(later[-1]) is bytearray and len(later[-1]) < _PIECE:
            later[-1] += data  # a frame that comes byte by byte would take fifty times its size
        else:
            later.append(bytearray(data))

    def close(self) -> None:
        """Drop the incomplete frame."""
        self._buffer.clear()
        self._later.clear()
        self.unfinished = 0
