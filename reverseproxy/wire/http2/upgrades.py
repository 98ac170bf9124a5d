"""
C{Upgrade} over HTTP/2, with all that it has in HTTP/1.

An extended CONNECT (RFC 8441) is a GET without a body, for one protocol.  Others
have a method, a body in front of what the new protocol sends, or several
protocols to choose from: docker's C{attach} and C{exec}, SPDY of Kubernetes.

Two ends of this project tell each other in SETTINGS that they support more
(L{reverseproxy.wire.http2.frames.Setting.UPGRADES}; docs/wire-protocol.rst).  An
extended CONNECT then has a further pseudo-header, C{:upgrade}, with the method, the
length of the body and the protocols:

    :upgrade: POST 47 tcp
    :upgrade: POST chunked SPDY/3.1, websocket

All other fields are those of the request, and the stream carries what the
connection would carry in HTTP/1: the body, chunked if it has no length, and then
the new protocol.  A response of 200 with C{:upgrade} stands for 101, and names the
protocol; any other is an ordinary response.  In a 426, C{:upgrade} names the
protocols that the host demands.
"""

from __future__ import annotations

__all__ = [
    "FIELD",
    "ClientUpgrade",
    "Content",
    "Offer",
    "connect_protocol",
    "needs_upgrade",
    "offer_of",
    "read_offer",
]

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from reverseproxy.wire.http.fields import MAX_METHOD, NO_METHODS, TOKEN
from reverseproxy.wire.http.message import END, UNKNOWN_LENGTH, End, Event, Request, Response
from reverseproxy.wire.http.upgrades import names_of, protocols_of
from reverseproxy.wire.http1.chunked import StrictChunkDecoder
from reverseproxy.wire.http1.fields import chunk, last_chunk

FIELD: Final = b":upgrade"
"""The pseudo-header."""

MAX_TRAILERS: Final = 8192
"""Bytes of trailers behind a chunked body, as in HTTP/1."""

_WEBSOCKET: Final = b"websocket"
_SAFE: Final = frozenset({b"GET", b"HEAD", b"OPTIONS"})

_offer: Final = re.compile(rb"(" + TOKEN + rb"+) (0|[1-9][0-9]{0,17}|chunked) ([!-~][ -~]*)").fullmatch


class Offer(NamedTuple):
    """
    What a request for another protocol has that an extended CONNECT does not.

    @ivar method: of the request in HTTP/1.
    @ivar length: of its body: bytes, or L{UNKNOWN_LENGTH}.
    @ivar protocols: what is offered.
    """

    method: bytes
    length: int
    protocols: bytes


def offer_of(head: Request) -> bytes:
    """Write the pseudo-header of a request."""
    length = b"chunked" if head.length == UNKNOWN_LENGTH else b"%d" % head.length
    return b"%b %b %b" % (head.method, length, head.upgrade)


def read_offer(value: bytes) -> Offer | None:
    """
    Read the pseudo-header of a request.

    @return: L{None} if it is malformed, or can't be.
    """
    found = _offer(value)
    if found is None or found[1] in NO_METHODS or len(found[1]) > MAX_METHOD:
        return None
    return Offer(found[1], UNKNOWN_LENGTH if found[2] == b"chunked" else int(found[2]), found[3])


def connect_protocol(head: Request) -> bytes:
    """
    Return the C{:protocol} of an upgrade for a peer that supports only RFC 8441.

    @return: empty if an extended CONNECT can't express the upgrade.
    """
    if head.method != b"GET" or head.length:
        return b""
    protocols = protocols_of(head.upgrade)
    return next((each for each in protocols if each.lower() == _WEBSOCKET), protocols[0])


def needs_upgrade(head: Request) -> bool:
    """
    Return whether a request should fail rather than be forwarded without its upgrade.

    RFC 9110 7.8 allows that, but a request with an effect would have it, and the
    client could not take part in what it has started.
    """
    return head.length != 0 or head.method not in _SAFE or _WEBSOCKET in names_of(head.upgrade)


class Content:
    """
    The body in front of another protocol, as it comes on a stream.

    @ivar complete: whether it has come to its end.
    """

    __slots__ = ("_chunks", "_left", "complete")

    def __init__(self, length: int) -> None:
        """
        @param length: see L{Offer}.
        """
        self.complete = length == 0
        self._left = length
        self._chunks = StrictChunkDecoder(MAX_TRAILERS) if length == UNKNOWN_LENGTH else None

    def feed(self, data: bytes) -> tuple[list[bytes | End], bytes]:
        """
        Take what comes, as long as it is not L{complete}.

        @return: the events of the body, and what belongs to the other protocol.
        @raise HttpError: if its chunks are malformed.
        """
        events: list[bytes | End] = []
        chunks = self._chunks
        if chunks is not None:
            rest = chunks.feed(data)
            found = chunks.take_data()
            if found:
                events.append(found)
            if chunks.complete:
                self.close()
                self.complete = True
                events.append(End(chunks.trailers) if chunks.trailers else END)
            return events, rest
        size = min(len(data), self._left)
        self._left -= size
        events.append(data[:size])
        if not self._left:
            self.complete = True
            events.append(END)
        return events, data[size:]

    def close(self) -> None:
        """Take no more: its end is not of interest."""
        if self._chunks is not None:
            self._chunks.close()
            self._chunks = None


class ClientUpgrade:
    """
    An upgrade at the end that asks for it.

    The stream stays open behind the body, for the new protocol, until a response
    declines it.

    @ivar switched: whether it was accepted.
    @ivar declined: whether it was not.
    """

    __slots__ = ("_chunked", "_closed", "_ended", "declined", "switched")

    def __init__(self, head: Request) -> None:
        self.switched = self.declined = False
        self._chunked = head.length == UNKNOWN_LENGTH
        self._ended = False  # all of the body has been sent
        self._closed = False

    def sends(self, events: Sequence[Event]) -> list[Event]:
        """
        Convert events of the request to those of the stream.

        @return: bytes, and an end if the stream is to end.
        """
        out: list[Event] = []
        for event in events:
            if type(event) is End:
                self._ended = True
                if self._chunked:
                    out.append(last_chunk(event.trailers))
            elif type(event) is bytes and event:
                out.append(chunk(event) if self._chunked else event)
        if self.declined and self._ended and not self._closed:
            self._closed = True
            out.append(END)
        return out

    def receives(self, events: list[Event]) -> tuple[list[Event], list[Event]]:
        """
        Split what comes on the stream.

        @return: events of the response, and those of the new protocol.
        """
        if self.switched:
            return [], events
        for index, event in enumerate(events):
            if type(event) is Response:
                if event.status == 101:
                    self.switched = True
                    return events[: index + 1], events[index + 1 :]
                if event.status >= 200:
                    self.declined = True
                    break
        return events, []
