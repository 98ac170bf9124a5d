"""What tests of multiplexed connections have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from struct import Struct
from typing import NamedTuple

from reverseproxy.wire.yamux.events import Credit, Data, Ended, Event, GoneAway, Opened, Pong, Reset
from reverseproxy.wire.yamux.session import Mux

DATA, UPDATE, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8

_HEADER = Struct(">BBHLL")


class Frame(NamedTuple):
    """A frame, taken apart by other code than ours."""

    kind: int
    flags: int
    stream: int
    length: int
    data: bytes = b""


def frame(kind: int, flags: int, stream: int, value: int | bytes = 0) -> bytes:
    """Make a frame; of data, if that is what is given."""
    if isinstance(value, bytes):
        return _HEADER.pack(0, kind, flags, stream, len(value)) + value
    return _HEADER.pack(0, kind, flags, stream, value)


def frames(data: bytes) -> list[Frame]:
    """Take whole frames apart."""
    found = []
    while data:
        version, kind, flags, stream, length = _HEADER.unpack_from(data)
        assert version == 0
        size = length if kind == DATA else 0
        assert len(data) >= 12 + size
        found.append(Frame(kind, flags, stream, length, data[12 : 12 + size]))
        data = data[12 + size :]
    return found


def taken(mux: Mux, limit: int = 1 << 30) -> list[Frame]:
    """Take all that there is to be sent."""
    return frames(mux.take(limit))


def words(events: Iterable[Event | object]) -> str:
    """Events in a line, with what came on a stream in one piece."""
    return " ".join(_words(events))


def _words(events: Iterable[Event | object]) -> Iterator[str]:
    stream, data = 0, b""
    for event in events:
        if isinstance(event, Data):
            if stream not in (0, event.stream):
                yield f"{stream}:{data.decode()}"
                data = b""
            stream = event.stream
            data += event.data
            continue
        if stream:
            yield f"{stream}:{data.decode()}"
            stream, data = 0, b""
        match event:
            case Opened():
                yield f"opened-{event.stream}"
            case Ended():
                yield f"ended-{event.stream}"
            case Credit():
                yield f"credit-{event.stream}"
            case Reset():
                who = "peer" if event.remote else "us"
                yield f"{'refused' if event.refused else 'reset'}-{event.stream}-by-{who}"
            case Pong():
                yield f"pong-{event.token}"
            case GoneAway():
                yield f"gone-{event.code}"
    if stream:
        yield f"{stream}:{data.decode()}"


def consume(mux: Mux, events: Iterable[Event | object], now: float = 0.0) -> None:
    """Report all data as consumed."""
    for event in events:
        if isinstance(event, Data):
            mux.consumed(event.stream, len(event.data), now)
