"""
RPC protocols that send whole frames, told apart by ids: what they have in common.

MOSN calls them I{x-protocols}: bolt, dubbo and the like.  A frame is forwarded
as it came, but for its id: each hop numbers the requests on a connection
itself, as several clients share one.

An L{XProtocol} knows one of them: where a frame ends, what kind it is, and how
to make the few frames that a proxy sends of its own.  It has no state, so that
one object serves all connections.  An L{RpcFrameDecoder} does what is the same for
all of them: it takes what comes from a connection and gives whole frames.

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
"""The largest frame in bytes that is taken, if nothing else is configured."""


_PIECE = 16384
"""Bytes from which on what comes is kept as it is."""


class Kind(IntEnum):
    """What a frame is for."""

    REQUEST = 1
    """Forwarded, and answered with one response of the same id."""
    ONEWAY = 2
    """A request that is forwarded and not answered."""
    RESPONSE = 3
    """The answer to a request."""
    HEARTBEAT = 4
    """A question whether the connection is alive: answered at once, never forwarded."""
    HEARTBEAT_ACK = 5
    """The answer to a heartbeat."""
    GOAWAY = 6
    """The sender takes no new requests on this connection; those under way go on."""


class Frame(ABC):
    """
    One whole frame.

    @ivar data: the frame as it came; L{set_id} changes it in place.
    @ivar kind: what it is for.
    @ivar id: ties a response to its request.
    @ivar timeout: milliseconds that a request may take as its sender says;
        0 if it does not say, negative for any time.
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
        Look a header up, for routing and for logs.

        Frames are forwarded without this, so it should do its work when it is
        first called.

        @param name: in lower case.
        @return: text; bytes that are not UTF-8 become surrogate escapes.
        @raise RpcHeaderError: if the headers can't be read.
        """

    def fields(self) -> list[tuple[bytes, bytes]] | None:
        """
        All headers in their order, for routes that change some.

        @return: L{None} if headers can't be changed in this protocol.
        @raise RpcHeaderError: if they can't be read.
        """
        return None

    def names(self) -> Iterable[str]:
        """
        The names of all headers, for who looks for some that L{fields} then has.

        @raise RpcHeaderError: if they can't be read.
        """
        return [name.decode("utf-8", "surrogateescape") for name, _ in self.fields() or ()]

    def set_fields(self, fields: Sequence[tuple[bytes, bytes]]) -> None:
        """
        Change the headers, in L{data} as well; only if L{fields} gave some.

        @raise RpcHeaderError: if a frame can't carry them.
        """
        raise NotImplementedError

    @property
    def body_size(self) -> int:
        """Bytes of what it carries beside its headers; of all of it, if that can't be told."""
        return len(self.data)

    @property
    def service(self) -> str:
        """
        What a request is for; empty if it does not say.

        @raise RpcHeaderError: if the headers can't be read.
        """
        return self.header("service") or ""

    @property
    def method(self) -> str:
        """
        Which operation of the service a request calls; empty if it does not say.

        @raise RpcHeaderError: if the headers can't be read.
        """
        return self.header("method") or ""


class XProtocol(ABC):
    """
    A protocol of whole frames.

    @ivar name: what the configuration calls it.
    @ivar max_id: the largest id that a frame can carry.
    """

    name: str
    max_id: int = 0xFFFFFFFF

    @abstractmethod
    def detect(self, data: bytes) -> bool | None:
        """
        Tell whether a connection speaks this protocol.

        @param data: how it begins, one byte at least.
        @return: L{None} if more bytes are needed.
        """

    @abstractmethod
    def decode(self, buffer: bytearray, start: int) -> Frame | int:
        """
        Take a frame out of a buffer.

        What can't be a frame should be refused at the first byte that shows
        it, as otherwise a connection waits for bytes that never come.

        @param buffer: what has come; it is the caller's.
        @param start: where the frame begins; there is one byte at least.
        @return: the frame, with a copy of its bytes; or, if they are not all
            there, how many there must be at least to find out more.
        @raise RpcFrameError: if this is no frame.
        """

    def partial_id(self, buffer: bytearray) -> int | None:
        """
        Tell the id of a frame of which only a part has come.

        @param buffer: what has come of it.
        @return: L{None} if that is not known, or not yet.
        """
        return None

    @abstractmethod
    def http_status(self, frame: Frame) -> int:
        """
        What a response's status means in terms of HTTP, for logs, retries and health.

        @return: 200 for success.
        """

    @abstractmethod
    def reply(self, frame: Frame, status: int) -> bytes:
        """
        Make a response of our own to a request.

        @param frame: the request; its id is that of the response.
        @param status: in terms of HTTP; besides, as MOSN has it, 0 for a request
            that can't be decoded and 2 for an unknown error (docs/mosn.rst 4.5).
        """

    def reply_unsent(self, frame: Frame, why: Unsent) -> bytes:
        """
        Make a response that says to a server of ours that a request was not sent on.

        @param frame: the request, as for L{reply}.
        @return: empty if the protocol has no way to say so.
        """
        return b""

    def unsent(self, frame: Frame) -> Unsent | None:
        """
        Say whether a response is one of L{reply_unsent}.

        Asked for every response of an agent that may say so, and of no other.
        """
        return None

    def disclaim(self, frame: Frame) -> None:  # noqa: B027
        """
        Make a service's response one that L{unsent} says nothing of, if it is not.

        Only an agent may say that it has not sent a request on, as it is believed:
        a service's status of that kind becomes that of an unknown error.
        """

    def gateway_status(self, frame: Frame) -> int:
        """
        Say whether a response comes from a proxy that has not reached its service.

        MOSN's agents answer so; services have other reasons for the same status, and
        more to say.

        @return: 502, 503 or 504, or 0 if it does not seem so.
        """
        return 0

    @abstractmethod
    def answer_heartbeat(self, frame: Frame) -> bytes:
        """
        Make the answer to a heartbeat.

        @return: empty if this one is not to be answered.
        """

    def heartbeat(self, request_id: int) -> bytes:
        """
        Make a heartbeat.

        @return: empty if the protocol has none.
        """
        return b""

    def goaway(self, request_id: int) -> bytes:
        """
        Make what tells a client to use another connection for new requests.

        @return: empty if the protocol has no such thing, or it is not wanted.
        """
        return b""


class RpcFrameDecoder:
    """
    Takes what comes from one connection apart.

    It keeps one incomplete frame at the most.  What comes of a large one is put
    together when all of it is there: a buffer that grows is moved again and again,
    and leaves holes in memory.

    @ivar error: why nothing more can be decoded; set by L{feed}.
    @ivar max_frame: the largest frame in bytes that is taken; may be changed.
    @ivar unfinished: bytes of a frame of which a part has come.
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
        self._later: list[bytes | bytearray] = []  # what comes behind that, and does not complete it
        self._needed = 1
        self._part = 0  # the number of the frame of which a part has come

    @property
    def in_frame(self) -> bool:
        """Whether a part of a frame has come."""
        return bool(self._buffer)

    def begun(self, number: int) -> tuple[int, int] | None:
        """
        Look at the frame that is coming.

        @param number: the id that it should have.
        @return: L{None} if there is none, or it has another one; else which
            frame it is, and how many bytes of it have come.
        """
        buffer = self._buffer
        if not buffer or self._partial_id(buffer) not in (None, number):
            return None
        return (self._part, self.unfinished)

    def feed(self, data: bytes) -> list[Frame]:
        """
        Take what has come.

        @return: the frames that it completes.  If L{error} is set afterwards,
            they came before what is wrong, and all that follows is lost.
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
        # One byte more than there are, lest a protocol that asks for too little is asked for ever.
        self._needed = max(needed, left + 1)
        return frames

    def _keep(self, data: bytes) -> None:
        """Keep what does not complete a frame."""
        self.unfinished += len(data)
        later = self._later
        if len(data) >= _PIECE:
            later.append(data)
        elif later and type(later[-1]) is bytearray and len(later[-1]) < _PIECE:
            later[-1] += data  # lest a frame that comes byte by byte takes fifty times its size
        else:
            later.append(bytearray(data))

    def close(self) -> None:
        """Forget what has come."""
        self._buffer.clear()
        self._later.clear()
        self.unfinished = 0
