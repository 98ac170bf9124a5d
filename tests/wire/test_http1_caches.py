"""
The caches of heads against the parsers that they are around, which know nothing of earlier messages.

Messages here are made to be taken for each other: bodies and trailers are earlier heads, heads differ
in one value, and reads end where heads, bodies or messages do, or anywhere.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.errors import HttpError
from reverseproxy.wire.http.message import End
from reverseproxy.wire.http1 import requests, responses
from reverseproxy.wire.http1.heads import RequestHead, ResponseHead
from reverseproxy.wire.http1.plain_responses import PlainResponseParser
from reverseproxy.wire.http1.requests import RequestParser
from reverseproxy.wire.http1.responses import ResponseParser
from reverseproxy.wire.http1.strict_requests import StrictRequestParser
from tests import most

OFTEN = 3
"""Heads after which a template is made here."""

Message = list[bytes]
"""The pieces of a message, which reads mostly begin and end with."""


def facts(events: list[Any]) -> list[Any]:
    """All that events say."""
    found: list[Any] = []
    for event in events:
        if isinstance(event, RequestHead | ResponseHead):
            names = [name for cls in type(event).__mro__ for name in getattr(cls, "__slots__", ())]
            found.append({name: getattr(event, name) for name in names if name[0] != "_"})
            found.append(event.headers)
        elif isinstance(event, End):
            found.append(event.trailers)
        elif isinstance(event, HttpError):
            found.append((event.status, str(event), event.head_request))
        else:
            found.append(event)
    return found


def state(parser: Any) -> list[Any]:
    """Where a parser is."""
    return [parser.closed, parser.in_head, parser.unfinished, parser.left]


def lines(*each: bytes) -> bytes:
    return b"".join(line + b"\r\n" for line in each) + b"\r\n"


def bytes_of(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def framed(head: list[bytes], way: str, body: bytes, trailers: bytes = b"") -> Message:
    """Give a head a body."""
    if way == "counted":
        return [lines(*head, b"Content-Length: %d" % len(body)), body]
    if way == "chunked":
        begin = [b"%x\r\n" % len(body), body, b"\r\n"] if body else []
        return [lines(*head, b"Transfer-Encoding: chunked"), *begin, b"0\r\n", trailers, b"\r\n"]
    return [lines(*head)]


REQUEST_LINES = st.sampled_from(
    [
        *(b"GET / HTTP/1.1", b"GET /b HTTP/1.1", b"POST / HTTP/1.1", b"HEAD / HTTP/1.1"),
        *(b"OPTIONS * HTTP/1.1", b"GET http://a/ HTTP/1.1", b"GET / HTTP/1.0"),
    ]
)
HOSTS = st.sampled_from([b"Host: a", b"Host: a", b"Host: a", b"Host: A", b"host: a", b"Host:a", b"Host: b"])
FIELDS = st.lists(
    st.sampled_from(
        [
            *(b"X: 1", b"X: 2", b"X: host: b", b"x-mosn-a: 1", b"x-mosn-a: 2", b"X-Forwarded-For: 1"),
            *(b"Expect: 100-continue", b"Expect: x", b"Connection: keep-alive", b"Connection: close"),
            *(
                b"Connection: x",
                b"X: a\nb",
                b"X: \x00",
                b"X:\xff",
                b"X : 1",
                b"TE: trailers",
                b"Upgrade: tcp",
            ),
        ]
    ),
    max_size=2,
)
WAYS = st.sampled_from(["none", "none", "counted", "chunked", "within"])


@st.composite
def request_streams(draw: st.DrawFn) -> list[Message]:
    """A few requests again and again, whose bodies, trailers and fields are others of them."""
    made: list[Message] = []
    for _ in range(draw(st.integers(1, 4))):
        head = [draw(REQUEST_LINES), draw(HOSTS), *draw(FIELDS)]
        way = draw(WAYS)
        body, trailers = b"abc", b""
        if made:
            other = draw(st.sampled_from(made))
            if way == "within":
                made.append([b"GET / HTTP/1.1\r\nX: ", *other])
                continue
            body = b"".join(other) if draw(st.booleans()) else other[0]
            trailers = other[0].partition(b"\r\n")[2][:-2] if draw(st.booleans()) else b""
        made.append(framed(head, way, body, trailers))
    stream: list[Message] = []
    for message in draw(st.lists(st.sampled_from(made), min_size=1, max_size=8)):
        stream.append(message)
        if draw(st.integers(0, 5)) == 0:  # so that there is a template
            stream += [
                [message[0][:-2] + b"X: %b\r\n\r\n" % (b"x" * number), *message[1:]]
                for number in range(OFTEN + 2)
            ]
    return stream


def cut(draw: st.DrawFn, stream: list[Message]) -> list[bytes]:
    """Cut a stream into reads: at the borders of its pieces, at all or most of these, or anywhere."""
    pieces = [piece for message in stream for piece in message]
    data = b"".join(pieces)
    places = set(accumulate(map(len, pieces)))
    anywhere = st.lists(st.integers(0, len(data)), max_size=6)
    kind = draw(st.sampled_from(["pieces", "most pieces", "some pieces", "anywhere", "bytes"]))
    if kind == "most pieces":
        places -= set(draw(st.lists(st.sampled_from(sorted(places)), max_size=4)))
    elif kind == "some pieces":
        places = {place for place in places if draw(st.booleans())} | set(draw(anywhere))
    elif kind == "anywhere":
        places = set(draw(anywhere))
    elif kind == "bytes":
        places = set(range(len(data)))
    edges = sorted({0, len(data)} | places)
    return [data[begin:end] for begin, end in pairwise(edges)]


LIMITS = st.tuples(st.sampled_from([8192, 8192, 100, 80]), st.sampled_from([100, 100, 2]))


GET = lines(b"GET / HTTP/1.1", b"Host: a")
OTHER = lines(b"GET /other HTTP/1.1", b"Host: a", b"X: 1")
COUNTED = lines(b"POST / HTTP/1.1", b"Host: a", b"Content-Length: %d" % len(GET))
CHUNKED = lines(b"POST / HTTP/1.1", b"Host: a", b"Transfer-Encoding: chunked")
SIZE = b"%x\r\n" % len(GET)

TRAPS = {
    "a body": [COUNTED + GET, GET, COUNTED, GET, GET],
    "a body behind a head": [COUNTED + GET, GET, GET + COUNTED, GET, GET],
    "the rest of a body": [COUNTED + GET, GET, COUNTED + GET[:1], GET[1:] + GET, GET],
    "a body like a head with a body": [COUNTED + GET, GET, COUNTED, COUNTED[: len(GET)], COUNTED, GET, GET],
    "a chunk": [CHUNKED + SIZE + GET + b"\r\n0\r\n\r\n", GET, CHUNKED + SIZE, GET, b"\r\n0\r\n\r\n", GET],
    "trailers": [CHUNKED + b"0\r\n\r\n", GET, CHUNKED + b"0\r\nX: ", GET, GET],
    "a value": [COUNTED + GET, GET, b"GET / HTTP/1.1\r\nX: ", COUNTED + GET, GET],
    "a name": [COUNTED + GET, GET, b"GET / HTTP/1.1\r\nX", COUNTED + GET],
    "the end of a value": [GET, b"GET / HTTP/1.1\r\nX: ", GET, GET],
    "a part of the next one": [GET, OTHER + b"GET / HT", b"TP/1.1\r\nHost: a\r\n\r\n", GET],
    "a field of the next one": [GET, OTHER + b"X: 1\r\n", GET],
    "LF behind a value": [GET, OTHER, OTHER.replace(b"1\r\n\r\n", b"2\n\r\n\r\n")],
    "Host in another case": [GET, GET.replace(b": a", b": A"), OTHER.replace(b": a", b": A"), GET],
    "another Host in a value": [
        GET,
        OTHER.replace(b": 1", b": host: b"),
        OTHER.replace(b"X: 1", b"X: 1\r\nHost: b"),
    ],
    "many fields": [
        GET,
        *[OTHER.replace(b"X: 1", b"\r\n".join([b"X: 1"] * number)) for number in range(1, 5)],
    ],
    "many bytes": [GET, *[OTHER.replace(b"1\r\n", b"1" * number + b"\r\n") for number in range(50, 70)]],
    "an upgrade that is declined": [GET, lines(OTHER[:-4], b"Connection: upgrade", b"Upgrade: x"), GET, GET],
    "an upgrade again": [lines(OTHER[:-4], b"Connection: upgrade", b"Upgrade: x")] * 3,
    "the last request": [GET, OTHER.replace(b"X: 1", b"Connection: close") + GET, GET],
    "another version": [GET, GET.replace(b"1.1", b"1.0"), GET],
}
"""Reads that look like heads before them, by what they are."""


class RequestCacheTests(SynchronousTestCase):
    """Whatever came before, a read means what it means to the strict parser."""

    def setUp(self) -> None:
        self.patch(requests, "TEMPLATE_AFTER", OFTEN)

    def test_traps(self) -> None:
        """With a template that they match, and with none."""
        warm = [GET.replace(b"\r\n\r\n", b"\r\nX: %d\r\n\r\n" % number) for number in range(OFTEN + 2)]
        for what, trap in TRAPS.items():
            for reads in (trap, [*warm, *trap], [*trap[:2], *warm, *trap[2:]], bytes_of(b"".join(trap))):
                cached, strict = RequestParser(110, 3), StrictRequestParser(110, 3)
                for number, read in enumerate(reads):
                    events = facts(strict.feed(read))
                    self.assertEqual(facts(cached.feed(read)), events, (what, number))
                    self.assertEqual(state(cached), state(strict), (what, number))

    @settings(deadline=None, max_examples=most(150))
    @given(request_streams(), LIMITS, st.sampled_from([0, 1, 2, 7]), st.data())
    def test_as_without(
        self, stream: list[Message], limits: tuple[int, int], foreign: int, data: st.DataObject
    ) -> None:
        cached, strict = RequestParser(*limits, foreign), StrictRequestParser(*limits, foreign)
        for read in cut(data.draw, stream):
            self.assertEqual(facts(cached.feed(read)), facts(strict.feed(read)))
            self.assertEqual(state(cached), state(strict))
            if strict.held and data.draw(st.booleans()):
                self.assertEqual(facts(cached.resume()), facts(strict.resume()))
                self.assertEqual(state(cached), state(strict))

    def test_two_connections(self) -> None:
        """A template that another connection has made says nothing of this one's limits and marks."""
        head = [b"Host: a", b"X-Forwarded-For: 1", b"x-mosn-a: 1"]
        reads = [lines(b"GET /%d HTTP/1.1" % number, *head, b"X: %d" % number) for number in range(10)]
        large = lines(b"GET / HTTP/1.1", *head, b"X: " + b"x" * 100)
        for limits in ((8192, 100, 0), (8192, 100, 7), (120, 100, 0), (8192, 3, 1), (8192, 100, 2)):
            cached, strict = RequestParser(*limits), StrictRequestParser(*limits)
            for read in [*reads, large, *reads]:
                self.assertEqual(facts(cached.feed(read)), facts(strict.feed(read)), limits)


STATUS_LINES = st.sampled_from(
    [b"HTTP/1.1 200 OK"] * 4
    + [b"HTTP/1.1 404 Not Found", b"HTTP/1.1 200", b"HTTP/1.0 200 OK", b"HTTP/1.1 204 N", b"HTTP/1.1 304 N"]
)
ANSWER_FIELDS = st.lists(
    st.sampled_from(
        [
            *(b"X: 1", b"X: 2", b"Server: s", b"Connection: keep-alive", b"Connection: close", b"X : y"),
            *(b"X: a\nb", b"X: \x00", b"Keep-Alive: 3", b"Content-Length: 3"),
        ]
    ),
    max_size=2,
)


ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"


class ResponseCacheTests(SynchronousTestCase):
    """As for requests."""

    def setUp(self) -> None:
        self.patch(responses, "TEMPLATE_AFTER", OFTEN)

    def test_traps(self) -> None:
        """A read that has a part of a response, more than one, or something else than those before."""

        def answer(size: int, more: int = 0, value: bytes = b"1") -> bytes:
            return lines(b"HTTP/1.1 200 OK", b"X: " + value, b"Content-Length: %d" % size) + b"x" * (
                size + more
            )

        warm = [answer(number) for number in range(1, OFTEN + 2)]
        for what, head_request, *reads in (
            ("less", False, answer(20, -1), b"x"),
            ("more", False, answer(20, 1)),
            ("the same size", False, answer(OFTEN + 2, -1), b"x"),
            ("two", False, answer(1) * 2),
            ("a large head", False, answer(20, 0, b"1" * 100)),
            ("a malformed value", False, answer(20, 0, b"\0")),
            ("a line within a value", False, answer(20, 0, b"1\r\nX: 2")),
            ("an answer to HEAD", True, warm[-1]),
            ("an answer to HEAD without its body", True, answer(20, -20)),
            ("another status", False, answer(20).replace(b"200", b"204")),
            ("a body", False, lines(b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(warm[-1])), warm[-1]),
            ("an interim one", False, answer(0).replace(b"200 OK", b"100 "), answer(20)),
        ):
            for before in (warm, warm[:1]):
                cached, plain = ResponseParser(110, 2), PlainResponseParser(110, 2)
                for each in before:
                    cached.expect(False)
                    plain.expect(False)
                    self.assertEqual(facts(cached.feed(each)), facts(plain.feed(each)))
                cached.expect(head_request)
                plain.expect(head_request)
                for read in reads:
                    self.assertEqual(facts(cached.feed(read)), facts(plain.feed(read)), what)
                    self.assertEqual((*state(cached), cached.surplus), (*state(plain), plain.surplus), what)
                self.assertEqual(facts(cached.eof()), facts(plain.eof()), what)

    @settings(deadline=None, max_examples=most(150))
    @given(
        st.lists(
            st.tuples(
                *(STATUS_LINES, ANSWER_FIELDS, st.sampled_from(["counted"] * 5 + ["chunked", "none"])),
                st.sampled_from(
                    [b"abc", b"abd", b"abcd", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", b""]
                ),
            ),
            min_size=1,
            max_size=5,
        ),
        LIMITS,
        st.data(),
    )
    @example([(b"HTTP/1.1 200 OK", [], "counted", b"abc")] * 5, (8192, 100), None)
    def test_as_without(
        self,
        answers: list[tuple[bytes, list[bytes], str, bytes]],
        limits: tuple[int, int],
        data: st.DataObject | None,
    ) -> None:
        cached, plain = ResponseParser(*limits), PlainResponseParser(*limits)
        for line, fields, way, body in answers:
            for number in range(1 if data is None else data.draw(st.sampled_from([1, 2, OFTEN + 2]))):
                vary = number if data is not None and data.draw(st.booleans()) else 0
                message = framed([line, *fields, b"Y: " + b"y" * 9 * vary], way, body + b"." * vary)
                head_request = data is not None and data.draw(st.integers(0, 5)) == 0
                cached.expect(head_request)
                plain.expect(head_request)
                reads = (
                    [b"".join(message)]
                    if data is None or data.draw(st.booleans())
                    else cut(data.draw, [message])
                )
                persists = True
                for read in reads:
                    events = plain.feed(read)
                    persists = persists and all(
                        event.keep_alive for event in events if isinstance(event, ResponseHead)
                    )
                    self.assertEqual(facts(cached.feed(read)), facts(events))
                    self.assertEqual((*state(cached), cached.surplus), (*state(plain), plain.surplus))
                if plain.closed or plain.surplus or not plain._complete or not persists:
                    self.assertEqual(facts(cached.eof()), facts(plain.eof()))
                    return  # nobody would ask for another one
