"""
Responses of HTTP/1 that are like the ones before; see L{reverseproxy.wire.http1.requests}.
"""

from __future__ import annotations

__all__ = ["ResponseParser"]


from reverseproxy.wire.http.fields import MAX_HEADERS
from reverseproxy.wire.http.message import Event
from reverseproxy.wire.http1.heads import ResponseHead
from reverseproxy.wire.http1.parser import (
    MAX_KNOWN,
    TEMPLATE_AFTER,
)
from reverseproxy.wire.http1.plain_responses import MAX_RESPONSE_HEAD, PlainResponseParser
from reverseproxy.wire.http1.templates import HeadTemplate, response_shape


class ResponseParser(PlainResponseParser):
    """Responses of one connection, read by what is known of those before."""

    __slots__ = ("_known", "_known_size", "_others", "_shape", "_shaped")

    def __init__(self, max_head: int = MAX_RESPONSE_HEAD, max_fields: int = MAX_HEADERS) -> None:
        """See L{PlainResponseParser}."""
        # The head of the last response that came whole in one read, and the size of that.
        self._known: ResponseHead | None = None
        self._known_size = 0
        # As for requests.
        self._shape: HeadTemplate | None = None
        self._shaped: ResponseHead | None = None
        self._others = 0
        super().__init__(max_head, max_fields)

    def feed_one(self, data: bytes) -> ResponseHead | list[Event]:
        """See L{PlainResponseParser.feed_one}."""
        if self._fresh and not (self._head_request or self.closed):
            known = self._known
            if known is not None and len(data) == self._known_size and data.startswith(known.raw):
                self._fresh = False
                self._complete = True  # as it was the last time
                return known
            if self._shape is not None:
                found = self._shape.match(data)
                if found is not None:
                    end = found.end()
                    if len(data) - end == int(found[1]) and end <= self._max_head:
                        self._fresh = False
                        self._complete = True
                        self._others = 0
                        known = self._shaped
                        assert known is not None
                        return known.with_length(data[:end], len(data) - end)
        return super().feed_one(data)

    def _note_whole(self, head: ResponseHead, size: int) -> None:
        if len(head.raw) <= MAX_KNOWN:
            self._known, self._known_size = head, size
            self._others += 1
            if self._others == TEMPLATE_AFTER:
                self._others = 0
                self._shape = None if self._shape is not None else response_shape(head.raw)
                self._shaped = head
