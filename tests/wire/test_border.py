"""Tests for L{reverseproxy.wire.http.border}, and for what parsers make of it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.wire.http.border import ANY, FORWARDED, LOOKALIKE, MOSN, NOTHING, mark_of
from reverseproxy.wire.http.fields import dropped_by, forbidden_in_trailers
from reverseproxy.wire.http.message import Request
from reverseproxy.wire.http1.heads import RequestHead, request_head_bytes
from reverseproxy.wire.http1.requests import RequestParser
from reverseproxy.wire.http1.templates import TEMPLATE_AFTER
from reverseproxy.wire.http2.requests import parse_request
from tests.wire.http1_cases import get

MARKS: dict[bytes, int] = {
    b"x-mosn-try-timeout": MOSN,
    b"x-mosn-": MOSN,
    b"x-mosn-global-timeout": MOSN,
    b"x-forwarded-for": FORWARDED,
    b"x-forwarded-proto": FORWARDED,
    b"x-forwarded-port": FORWARDED,
    b"x-forwarded-client-cert": FORWARDED,
    b"x-forwarded": FORWARDED,
    b"x-real-ip": FORWARDED,
    b"forwarded": FORWARDED,
    b"x_forwarded_for": LOOKALIKE,
    b"x-forwarded_for": LOOKALIKE,
    b"x_forwarded-for": LOOKALIKE,
    b"x.forwarded.for": LOOKALIKE,
    b"x~real!ip": LOOKALIKE,
    b"x_mosn_try_timeout": LOOKALIKE,
    b"x_mosn-try-timeout": LOOKALIKE,
    b"transfer_encoding": LOOKALIKE,
    b"transfer.encoding": LOOKALIKE,
    b"content_length": LOOKALIKE,
    b"content_type": LOOKALIKE,
    b"keep_alive": LOOKALIKE,
    b"proxy_connection": LOOKALIKE,
    b"http2_settings": LOOKALIKE,
    b"x": NOTHING,
    b"x-mosn": NOTHING,
    b"x-request-id": NOTHING,
    b"x-forward": NOTHING,
    b"forwarded-for": NOTHING,
    b"my_header": NOTHING,
    b"content-length": NOTHING,
    b"content-type": NOTHING,
    b"transfer-encoding": NOTHING,
    b"contents_length": NOTHING,
    b"xforwarded-for": NOTHING,
    b"host": NOTHING,
}


def names(head: object) -> list[bytes]:
    assert isinstance(head, Request), head
    return [name.lower() for name, _ in head.headers]


class MarkTests(SynchronousTestCase):
    def test_marks(self) -> None:
        for name, mark in MARKS.items():
            self.assertEqual(mark_of(name), mark, name)

    def test_trailers(self) -> None:
        """Nothing that has a mark may stand in trailers, in no case of its letters."""
        for name, mark in MARKS.items():
            if mark:
                self.assertTrue(forbidden_in_trailers(name.title()), name)

    def test_connection(self) -> None:
        """Nor can the options of a connection take it out: the next hop is to see it."""
        self.assertEqual(dropped_by(frozenset({b"x-forwarded-port", b"x-mosn-a", b"x-a"})), {b"x-a"})


class ParserTests(SynchronousTestCase):
    """Requests of HTTP/1 and HTTP/2 lose what their sender may not set, and nothing else."""

    def test_http1(self) -> None:
        for name, mark in MARKS.items():
            if name in (b"host", b"content-length", b"transfer-encoding"):
                continue
            for foreign in (NOTHING, LOOKALIKE, ANY):
                for text in (name, name.title(), name.upper()):
                    data = get(b"A: 1", text + b": 1", b"B: 2")
                    (head, _) = RequestParser(foreign=foreign).feed(data)
                    assert isinstance(head, RequestHead)
                    dropped = bool(mark & foreign)
                    self.assertEqual(name not in names(head), dropped, (name, foreign))
                    self.assertEqual(head.dropped, mark & foreign)
                    self.assertEqual(head.forwardable_verbatim, not dropped)
                    self.assertEqual(head.mosn, mark == MOSN and not dropped)
                    forwarded = request_head_bytes(head, None, b"")
                    self.assertEqual(forwarded == data, not dropped)
                    self.assertEqual(text not in forwarded, dropped, forwarded)
                    self.assertIn(b"\r\nA: 1\r\n", forwarded)
                    self.assertIn(b"\r\nB: 2\r\n", forwarded)

    def test_http2(self) -> None:
        pseudo = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"a")]
        for name, mark in MARKS.items():
            if name in (b"host", b"content-length", b"transfer-encoding"):
                continue
            for foreign in (NOTHING, LOOKALIKE, ANY, NOTHING):  # again: names are remembered
                fields = [*pseudo, (b"a", b"1"), (name, b"1"), (b"b", b"2")]
                head = parse_request(fields, True, foreign=foreign)
                dropped = bool(mark & foreign)
                self.assertEqual(name not in names(head), dropped, (name, foreign))
                self.assertEqual((head.dropped, head.mosn), (mark & foreign, mark == MOSN and not dropped))
                self.assertLessEqual({b"a", b"b"}, set(names(head)))

    def test_what_http2_remembers_is_bounded(self) -> None:
        from reverseproxy.wire.http2 import fields as http2_fields

        pseudo = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"a")]
        for number in range(3000):
            parse_request([*pseudo, (b"n%d" % number, b""), (b"n%d" % number * 20, b"")], True)
        self.assertLessEqual(len(http2_fields._marks), 1024)
        self.assertLess(max(map(len, http2_fields._marks)), 65)

    @settings(deadline=None)
    @given(
        st.lists(
            st.lists(st.sampled_from([*MARKS, b"y", b"z"]), max_size=3).filter(
                lambda names: not {b"host", b"content-length", b"transfer-encoding"} & set(names)
            ),
            min_size=1,
            max_size=6,
        ),
        st.sampled_from([NOTHING, LOOKALIKE, ANY]),
        st.booleans(),
    )
    def test_what_came_before_makes_no_difference(
        self, requests: list[list[bytes]], foreign: int, warm: bool
    ) -> None:
        """A parser that knows the requests before drops what one does that knows none."""
        parser = RequestParser(foreign=foreign)
        if warm:
            for number in range(TEMPLATE_AFTER + 1):
                parser.feed(get(*[name + b": %d" % number for name in requests[0]]))
        for number, fields in enumerate(requests):
            data = get(*[name + b": %d" % number for name in fields])
            (head, _), (other, _) = parser.feed(data), RequestParser(foreign=foreign).feed(data)
            assert isinstance(head, RequestHead)
            assert isinstance(other, RequestHead)
            self.assertEqual(head.headers, other.headers)
            self.assertEqual(
                (head.forwardable_verbatim, head.dropped, head.mosn),
                (other.forwardable_verbatim, other.dropped, other.mosn),
            )
