"""
MOSN's tunnel frames: what an agent and a tunnel server send before a connection
carries anything else (docs/wire-protocol.rst, docs/mosn.rst 1).

A frame is an 8-byte header and a JSON payload, in network byte order::

    0  2  magic           20 88
    2  1  version         01; any is accepted
    3  1  flag            1 init, 2 init response, 3 graceful close
    4  2  type            01 00, for flag 2 02 00; any is accepted
    6  2  payload length  without the header
    8  n  payload         a JSON object as Go's encoding/json writes it

MOSN checks magic and flag only once the whole payload has arrived, and stalls
on an empty payload; L{FrameDecoder} refuses both at the first wrong byte.  MOSN
lets the length wrap around when a payload is too large, which desynchronises the
peer; L{encode} refuses it.
"""

from __future__ import annotations

__all__ = [
    "ALL_FLAGS",
    "HEADER_LENGTH",
    "MAGIC",
    "MAX_PAYLOAD",
    "ConnectionInit",
    "Flag",
    "Frame",
    "FrameDecoder",
    "GracefulClose",
    "InitResponse",
    "Status",
    "effective_weight",
    "encode",
    "encode_graceful_close",
]

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, TypeAlias, TypeVar

from reverseproxy.errors import FrameError, FrameTooLarge
from reverseproxy.wire.mosn import gojson

MAGIC = b"\x20\x88"
HEADER_LENGTH = 8
MAX_PAYLOAD = 0xFFFF
"""The largest payload in bytes that the header's length can tell."""

_VERSION = 1
_REQUEST = b"\x01\x00"
_RESPONSE = b"\x02\x00"

_T = TypeVar("_T")

_MIN_WEIGHT = 1
_MAX_WEIGHT = 128


class Flag(IntEnum):
    """The kind of a message: the fourth byte of a frame's header."""

    INIT = 1
    INIT_RESPONSE = 2
    GRACEFUL_CLOSE = 3

    @property
    def meaning(self) -> str:
        """A name for people."""
        return _FLAG_MEANINGS[self]


_FLAG_MEANINGS = {
    Flag.INIT: "connection init",
    Flag.INIT_RESPONSE: "init response",
    Flag.GRACEFUL_CLOSE: "graceful close",
}

ALL_FLAGS: frozenset[Flag] = frozenset(Flag)


class Status(IntEnum):
    """
    How a tunnel server answers an init frame.

    MOSN defines those below 100; the others are sent only to agents of this project
    that have asked for routes.  A peer may send other numbers: calling the class
    with one gives a status of that value, unequal to all members.
    """

    UNKNOWN = 0
    SUCCESS = 1
    CREDENTIAL_REJECTED = 2
    VALIDATOR_MISSING = 3
    CLUSTER_UNKNOWN = 4
    ROUTE_FORBIDDEN = 101
    ROUTE_TAKEN = 102

    @classmethod
    def _missing_(cls, value: object) -> Status | None:
        if not isinstance(value, int):
            return None
        status = int.__new__(cls, value)
        status._name_ = f"STATUS_{value}"
        status._value_ = value
        return status

    @property
    def meaning(self) -> str:
        """A sentence for people, without its full stop."""
        return _STATUS_MEANINGS.get(self.value, f"the server failed with the undefined status {self.value}")


_STATUS_MEANINGS: dict[int, str] = {
    Status.UNKNOWN: "the server failed without saying why",
    Status.SUCCESS: "the server accepted the connection",
    Status.CREDENTIAL_REJECTED: "the server rejected the credential",
    Status.VALIDATOR_MISSING: "the server has no validator for this credential policy",
    Status.CLUSTER_UNKNOWN: "the server has no cluster of this name",
    Status.ROUTE_FORBIDDEN: "the server does not let this agent have the routes that it asks for",
    Status.ROUTE_TAKEN: "the server has given the routes that this agent asks for to somebody else",
}


@dataclass(frozen=True, slots=True)
class ConnectionInit:
    """
    An agent asks for its connection to become a host of a cluster.

    @ivar cluster_name: the cluster on the server.
    @ivar weight: the weight the host asks for; 64 bits, any sign.  See
        L{effective_weight} for what a server makes of it.
    @ivar host_name: a name for people; MOSN's agent leaves it empty.
    @ivar credential_policy: the name of the server's validator for the
        credential; empty for none.
    @ivar credential: the credential; a secret, hence kept out of C{repr}.
    @ivar extra: anything else; servers ignore what they do not know.
    """

    cluster_name: str
    weight: int = 10
    host_name: str = ""
    credential_policy: str = ""
    credential: str = field(default="", repr=False)
    extra: Mapping[str, Any] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class InitResponse:
    """
    A server's answer to L{ConnectionInit}.

    @ivar status: the outcome.
    @ivar extra: not part of MOSN's message, and not sent if L{None}.
    """

    status: Status
    extra: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class GracefulClose:
    """
    An agent is about to close connections: the server is to send no new requests on them.

    @ivar addresses: the agent's own addresses on the connections to close.
    @ivar cluster_name: the cluster that their hosts are in.
    @ivar extra: not part of MOSN's message, and not sent if L{None}; may hold a
        credential, hence kept out of C{repr}.
    """

    addresses: tuple[str, ...]
    cluster_name: str
    extra: Mapping[str, Any] | None = field(default=None, repr=False)


Frame: TypeAlias = ConnectionInit | InitResponse | GracefulClose


def effective_weight(weight: int) -> int:
    """
    Return the weight that a MOSN server gives a host: it keeps the low 32 bits of the
    announced weight as an unsigned number, and its balancers clamp that to 1..128.
    """
    return min(max(weight & 0xFFFFFFFF, _MIN_WEIGHT), _MAX_WEIGHT)


# Encoding


def _int64(name: str, number: int) -> str:
    if not gojson.INT64_MIN <= number <= gojson.INT64_MAX:
        raise ValueError(f"{name} must be an integer of 64 bits, not {number}")
    return str(int(number))


def _encode_fields(flag: Flag, fields: dict[str, str]) -> bytes:
    """Return a frame of encoded members, in their order."""
    payload = ("{" + ",".join(f'"{name}":{value}' for name, value in fields.items()) + "}").encode("utf-8")
    if len(payload) > MAX_PAYLOAD:
        sizes = {name: len(value.encode("utf-8")) for name, value in fields.items()}
        culprit = max(sizes, key=lambda name: sizes[name])
        raise FrameTooLarge(
            f"the {flag.meaning} frame does not fit: its payload may have {MAX_PAYLOAD} bytes and has "
            f"{len(payload)}, of which {culprit} takes {sizes[culprit]}"
        )
    kind = _RESPONSE if flag is Flag.INIT_RESPONSE else _REQUEST
    return b"".join((MAGIC, bytes((_VERSION, flag)), kind, len(payload).to_bytes(2, "big"), payload))


def _extra_field(extra: Mapping[str, Any] | None) -> dict[str, str]:
    return {} if extra is None else {"extra": gojson.dumps(extra)}


def encode(frame: Frame) -> bytes:
    """
    Encode one frame, byte for byte as MOSN does.

    @raise FrameTooLarge: if the payload does not fit; it names the largest field.
    @raise ValueError: if a number does not fit 64 bits, or C{extra} holds what
        JSON does not have.
    @raise TypeError: if C{extra} holds a type that JSON does not have.
    """
    if isinstance(frame, ConnectionInit):
        return _encode_fields(
            Flag.INIT,
            {
                "cluster_name": gojson.quote(frame.cluster_name),
                "weight": _int64("weight", frame.weight),
                "host_name": gojson.quote(frame.host_name),
                "credential_policy": gojson.quote(frame.credential_policy),
                "credential": gojson.quote(frame.credential),
                "extra": gojson.dumps(frame.extra),
            },
        )
    if isinstance(frame, InitResponse):
        status = _int64("status", frame.status)
        return _encode_fields(Flag.INIT_RESPONSE, {"status": status, **_extra_field(frame.extra)})
    return _encode_close(
        [gojson.quote(address) for address in frame.addresses],
        gojson.quote(frame.cluster_name),
        _extra_field(frame.extra),
    )


def _encode_close(addresses: list[str], cluster_name: str, extra: dict[str, str]) -> bytes:
    """Encode a graceful close whose fields are encoded already."""
    fields = {"addresses": f"[{','.join(addresses)}]", "cluster_name": cluster_name, **extra}
    return _encode_fields(Flag.GRACEFUL_CLOSE, fields)


def encode_graceful_close(
    addresses: Iterable[str], cluster_name: str, extra: Mapping[str, Any] | None = None
) -> list[bytes]:
    """
    Encode a graceful close in as many frames as its addresses need, at least one.

    A MOSN server acts on one frame per read, so give each frame its own write
    and some time.

    @raise FrameTooLarge: if one address does not fit a frame together with the
        other fields; it names the largest field.
    """
    name = gojson.quote(cluster_name)
    extra_field = _extra_field(extra)
    room = MAX_PAYLOAD - (len(_encode_close([], name, extra_field)) - HEADER_LENGTH)
    frames: list[bytes] = []
    batch: list[str] = []
    size = 0
    for address in addresses:
        quoted = gojson.quote(address)
        length = len(quoted.encode("utf-8"))
        if batch and size + 1 + length > room:
            frames.append(_encode_close(batch, name, extra_field))
            batch, size = [], 0
        size += length + (1 if batch else 0)
        batch.append(quoted)
    frames.append(_encode_close(batch, name, extra_field))
    return frames


# Decoding


class _Fields:
    """
    Reads an object's members into fields by name as Go does: of duplicates the
    last wins, and C{null} changes nothing, except that it clears an array or
    an object.
    """

    def __init__(self, members: gojson.Members, names: tuple[str, ...]) -> None:
        self.values: dict[str, list[Any]] = {name: [] for name in names}
        for key, value in members:
            values = self.values.get(key)
            if values is None:
                values = self.values.get(gojson.fold(key))
            if values is not None:
                values.append(value)

    def integer(self, name: str) -> int:
        number = 0
        for value in self._given(name):
            number = _field(name, gojson.as_int64, value)
        return number

    def string(self, name: str) -> str:
        text = ""
        for value in self._given(name):
            text = _field(name, gojson.as_string, value)
        return text

    def strings(self, name: str) -> tuple[str, ...]:
        texts: tuple[str, ...] = ()
        for value in self.values[name]:
            texts = () if value is None else _field(name, gojson.as_strings, value)
        return texts

    def mapping(self, name: str) -> dict[str, Any] | None:
        mapping: dict[str, Any] | None = None
        for value in self.values[name]:
            # Go decodes a further object into the map it already has.
            mapping = None if value is None else {**(mapping or {}), **_field(name, gojson.as_object, value)}
        return mapping

    def optional_mapping(self, name: str) -> dict[str, Any] | None:
        """Like L{mapping}, for a field that MOSN does not know and hence ignores."""
        try:
            return self.mapping(name)
        except ValueError:
            return None

    def _given(self, name: str) -> list[Any]:
        return [value for value in self.values[name] if value is not None]


def _field(name: str, take: Callable[[object], _T], value: object) -> _T:
    """Convert one field's value; an error names the field."""
    try:
        return take(value)
    except ValueError as error:
        raise ValueError(f'in the field "{name}" {error}') from None


def _parse(flag: Flag, payload: bytes) -> Frame:
    members = gojson.read_members(payload)
    if flag is Flag.INIT:
        fields = _Fields(
            members, ("cluster_name", "weight", "host_name", "credential_policy", "credential", "extra")
        )
        return ConnectionInit(
            cluster_name=fields.string("cluster_name"),
            weight=fields.integer("weight"),
            host_name=fields.string("host_name"),
            credential_policy=fields.string("credential_policy"),
            credential=fields.string("credential"),
            extra=fields.mapping("extra"),
        )
    if flag is Flag.INIT_RESPONSE:
        fields = _Fields(members, ("status", "extra"))
        return InitResponse(Status(fields.integer("status")), fields.optional_mapping("extra"))
    fields = _Fields(members, ("addresses", "cluster_name", "extra"))
    return GracefulClose(
        fields.strings("addresses"), fields.string("cluster_name"), fields.optional_mapping("extra")
    )


_QUOTED_BYTES = 16

# The first match counts.
_LOOKALIKES = (
    (re.compile(rb"PROXY |\r\n\r\n\x00\r\nQ"), "a PROXY protocol header: is a load balancer adding it?"),
    (re.compile(rb"\x16\x03"), "a TLS handshake: is TLS configured at the other end only?"),
    (re.compile(rb"[A-Z]{3,7} "), "an HTTP request: does the sender take this for an HTTP port?"),
    (re.compile(rb"HTTP/"), "an HTTP response: is the other end an HTTP server?"),
    (re.compile(rb"\x15\x03"), "a TLS alert: is TLS configured at the other end only?"),
)


def _offending(data: bytes) -> str:
    """Quote the first bytes of what is no frame in hex, with a guess at what it is."""
    text = data[:_QUOTED_BYTES].hex(" ") + (" ..." if len(data) > _QUOTED_BYTES else "")
    for pattern, guess in _LOOKALIKES:
        if pattern.match(data):
            return f"{text}, which looks like {guess}"
    return text


class FrameDecoder:
    """
    Reads frames from bytes as they arrive.

    It buffers at most an incomplete frame, and what the last L{feed} brought behind
    a complete one; what can't become a frame is refused at once.
    """

    def __init__(self, expect: frozenset[Flag] = ALL_FLAGS, max_payload: int = MAX_PAYLOAD) -> None:
        """
        @param expect: the kinds of frames that may come; others are an error.
        @param max_payload: the largest payload to accept, in bytes.
        """
        if not 1 <= max_payload <= MAX_PAYLOAD:
            raise ValueError(f"max_payload must be 1 to {MAX_PAYLOAD}, not {max_payload}")
        self._expect = frozenset(expect)
        self._max_payload = max_payload
        self._buffer = bytearray()
        self._failure: str | None = None
        self._ended = False

    @property
    def buffered(self) -> int:
        """How many bytes are buffered."""
        return len(self._buffer)

    def feed(self, data: bytes | bytearray | memoryview) -> Frame | None:
        """
        Take the next bytes.

        @return: the first complete frame, or L{None} if more bytes are needed.
            Bytes that follow the frame are kept: call C{feed(b"")} for the next
            frame in them, or L{take_surplus}.
        @raise FrameError: as soon as the bytes can't be a frame that is
            expected here, now and at every further call.
        """
        if self._failure is not None:
            raise FrameError(self._failure)
        if self._ended:
            raise RuntimeError("this decoder has handed over its surplus and takes no more bytes")
        self._buffer += data
        try:
            return self._next()
        except ValueError as error:
            self._failure = str(error)
        self._buffer.clear()
        raise FrameError(self._failure)

    def take_surplus(self) -> bytes:
        """
        End decoding, and return all bytes behind the frames that were returned.

        They belong to the protocol that follows the frames.
        """
        self._ended = True
        surplus = bytes(self._buffer)
        self._buffer.clear()
        return surplus

    def _next(self) -> Frame | None:
        buffer = self._buffer
        if not MAGIC.startswith(buffer[:2]):
            raise ValueError(
                f"expected a tunnel frame, which begins with {MAGIC.hex(' ')}, got "
                f"{_offending(bytes(buffer[: _QUOTED_BYTES + 1]))}"
            )
        if len(buffer) < 4:
            return None
        if buffer[3] not in self._expect:
            allowed = ", ".join(f"{flag.value} ({flag.meaning})" for flag in sorted(self._expect))
            raise ValueError(
                f"expected a tunnel frame with the flag {allowed}, got {buffer[3]} in the header "
                f"{buffer[:HEADER_LENGTH].hex(' ')}"
            )
        if len(buffer) < HEADER_LENGTH:
            return None
        length = int.from_bytes(buffer[6:HEADER_LENGTH], "big")
        if not 1 <= length <= self._max_payload:
            raise ValueError(
                f"expected a tunnel frame with a payload of 1 to {self._max_payload} bytes, got one of "
                f"{length} bytes announced in the header {buffer[:HEADER_LENGTH].hex(' ')}"
            )
        end = HEADER_LENGTH + length
        if len(buffer) < end:
            return None
        flag = Flag(buffer[3])
        payload = bytes(buffer[HEADER_LENGTH:end])
        del buffer[:end]
        try:
            return _parse(flag, payload)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"bad payload of the {flag.meaning} frame: {error}") from None
