"""
A cache around the parser of responses: what came before is not parsed again.

As for requests (L{reverseproxy.wire.http1.requests}), but a head is compared only with a read that is
one whole response, whose length the head says.
"""

from __future__ import annotations

__all__ = ["ResponseParser"]

from reverseproxy.wire.http.fields import MAX_HEADERS
from reverseproxy.wire.http.message import Event
from reverseproxy.wire.http1.heads import ResponseHead
from reverseproxy.wire.http1.plain_responses import MAX_RESPONSE_HEAD, PlainResponseParser
from reverseproxy.wire.http1.templates import MAX_KNOWN, TEMPLATE_AFTER, HeadTemplate, response_template


class ResponseParser(PlainResponseParser):
    """Responses of one connection, recognised by those before."""

    __slots__ = ("_known", "_known_size", "_misses", "_template", "_template_head")

    def __init__(self, max_head: int = MAX_RESPONSE_HEAD, max_fields: int = MAX_HEADERS) -> None:
        """See L{PlainResponseParser}."""
        # The head of the last response that came whole in one read, and the size of that.
        self._known: ResponseHead | None = None
        self._known_size = 0
        # See RequestParser.
        self._template: HeadTemplate | None = None
        self._template_head: ResponseHead | None = None
        self._misses = 0
        super().__init__(max_head, max_fields)

    def feed_one(self, data: bytes) -> ResponseHead | list[Event]:
        """See L{PlainResponseParser.feed_one}."""
        if self._fresh and not (self._head_request or self.closed):
            known = self._known
            if known is not None and len(data) == self._known_size and data.startswith(known.raw):
                head: ResponseHead | None = known
            else:
                head = self._recognise(data) if self._template is not None else None
            if head is not None:
                self._fresh = False
                self._complete = True
                return head
        return super().feed_one(data)

    def _recognise(self, data: bytes) -> ResponseHead | None:
        """Return the head of a read that is one whole response, if it matches the template."""
        template, like = self._template, self._template_head
        assert template is not None
        assert like is not None
        found = template.match(data)
        if found is None:
            return None
        end = found.end()
        if len(data) - end != int(found[1]) or end > self._max_head:
            return None
        self._misses = 0
        return like.with_length(data[:end], len(data) - end)

    def _note_whole(self, head: ResponseHead, size: int) -> None:
        if len(head.raw) <= MAX_KNOWN:
            self._known, self._known_size = head, size
            self._misses += 1
            if self._misses == TEMPLATE_AFTER:
                self._misses = 0
                self._template = None if self._template is not None else response_template(head.raw)
                self._template_head = head
