"""Malformed responses, and how they are read: L{reverseproxy.wire.http1.lenient}."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import h11
import httptools
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.errors import HttpError
from reverseproxy.wire.http.message import END, End
from reverseproxy.wire.http1.chunked import CHUNK_EXCESS, StrictChunkDecoder
from reverseproxy.wire.http1.codings import MAX_INFLATED, Inflater
from reverseproxy.wire.http1.fields import chunk, last_chunk
from reverseproxy.wire.http1.heads import ResponseHead, response_head_bytes
from reverseproxy.wire.http1.lenient import normalise
from reverseproxy.wire.http1.lenient_chunked import MAX_LINE, LenientChunkDecoder
from reverseproxy.wire.http1.responses import ResponseParser
from reverseproxy.wire.http1.templates import TEMPLATE_AFTER
from tests import most
from tests.wire.http1_cases import BAD_BODIES, ODD_RESPONSES, ODD_UNTIL_CLOSE, respond
from tests.wire.test_http1 import CHUNKED_BODIES, cut, messages, pieces, simplify

SIZES = (1, 2, 7, 64, 10**6)


def parse(*feeds: bytes, parser: ResponseParser | None = None) -> list[Any]:
    parser = parser or ResponseParser()
    parser.expect(False)
    return [event for data in feeds for event in parser.feed(data)]


def forwarded(events: list[Any]) -> bytes:
    """What a client of HTTP/1.1 gets of a response with a length or chunks."""
    head, *rest = [event for event in events if not isinstance(event, ResponseHead) or event.status >= 200]
    is_chunked = head.length < 0
    out = response_head_bytes(head, b"", is_chunked)
    body = b"".join(event for event in rest if isinstance(event, bytes))
    if not is_chunked:
        return out + body
    ends = [last_chunk(event.trailers) for event in rest if isinstance(event, End)]
    return b"".join([out, chunk(body) if body else b"", *ends])


class OddResponseTests(SynchronousTestCase):
    def test_as_it_was_meant(self) -> None:
        for name, data, raw, body, certain in ODD_RESPONSES:
            for size in SIZES:
                if len(data) > 10_000 and size < 64:
                    continue
                with self.subTest(name, size=size):
                    head, *parts, end = parse(*pieces(data, size))
                    self.assertIsInstance(head, ResponseHead, f"{name}: {head}")
                    self.assertEqual(response_head_bytes(head, b"", head.length < 0), raw, name)
                    self.assertEqual((b"".join(parts), end), (body, END), name)
                    self.assertEqual(head.keep_alive, certain, name)

    def test_with_chunked_beside_a_length(self) -> None:
        """The length does not go on, and the connection is not used any further."""
        parser = ResponseParser()
        head, *_ = parse(
            respond(b"Content-Length: 3", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"), parser=parser
        )
        self.assertIsNone(head.lookup("content-length"))
        self.assertFalse(head.keep_alive)

    def test_until_close(self) -> None:
        for name, data, body in ODD_UNTIL_CLOSE:
            for size in SIZES:
                with self.subTest(name, size=size):
                    parser = ResponseParser()
                    head, *parts = parse(*pieces(data, size), parser=parser)
                    self.assertNotIn(END, parts)
                    self.assertEqual(parser.eof(), [END])
                    self.assertEqual(b"".join(parts), body, name)
                    self.assertTrue(parser.surplus or not head.keep_alive)

    def test_not_before_the_last_chunk(self) -> None:
        for body in (
            b"",
            b"3",
            b"3\r\n",
            b"3\r\nabc",
            b"3\r\nabc\r\n",
            b"0",
            b"0\r",
            b"0\r\nX",
            b"0\r\nX: y\r\n",
        ):
            parser = ResponseParser()
            parse(respond(b"Transfer-Encoding: chunked", body=body), parser=parser)
            self.assertEqual(simplify(parser.eof()), [("error", 502)], body)

    def test_coding_that_is_cut_off(self) -> None:
        for size in (10, 20):
            parser = ResponseParser()
            body = gzip.compress(b"abc")[:size]
            parse(respond(b"Transfer-Encoding: gzip", body=body), parser=parser)
            self.assertEqual(simplify(parser.eof()), [("error", 502)])

    def test_coding_that_becomes_too_much(self) -> None:
        body = chunk(gzip.compress(bytes(MAX_INFLATED + 1))) + b"0\r\n\r\n"
        head, error = parse(respond(b"Transfer-Encoding: gzip, chunked", body=body))
        self.assertEqual((head.status, error.status), (200, 502))

    def test_bad_bodies(self) -> None:
        for name, data in BAD_BODIES:
            for size in SIZES:
                if len(data) > 10_000 and size < 64:
                    continue
                with self.subTest(name, size=size):
                    head, *before, last = parse(*pieces(data, size))
                    self.assertEqual((type(head), type(last)), (ResponseHead, HttpError), name)
                    self.assertEqual(last.status, 502, name)
                    self.assertNotIn(END, before)

    def test_interim(self) -> None:
        data = b"HTTP/1.1 100\n\nHTTP/1.1 103 Early Hints\nLink : a\n\n" + respond(
            b"Content-Length: 3", body=b"abc"
        )
        for size in SIZES:
            events = parse(*pieces(data, size))
            heads = [event for event in events if isinstance(event, ResponseHead)]
            self.assertEqual([head.status for head in heads], [100, 103, 200])
            self.assertEqual([head.forwardable_verbatim for head in heads], [False, False, True])
            self.assertEqual(
                response_head_bytes(heads[1], b"", False), b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"
            )

    def test_framing_of_what_has_no_body(self) -> None:
        """It means nothing, whatever it says (RFC 9112 6.3), and does not go on where it has no place."""
        good = respond(b"Content-Length: 3", body=b"abc")
        for field in (
            b"Content-Length: 0",
            b"Content-Length: 5",
            b"Content-Length: x",
            b"Content-Length: 3, 4",
            b"Transfer-Encoding: chunked",
            b"Transfer-Encoding: br",
            b"Transfer-Encoding: gzip, chunked",
        ):
            for size in SIZES:
                for line in (b"HTTP/1.1 100 Continue", b"HTTP/1.0 103 Early", b"HTTP/1.1 199"):
                    events = parse(*pieces(respond(field, b"X: a", line=line) + good, size))
                    self.assertEqual(
                        [type(event) for event in events[:2]], [ResponseHead] * 2, (field, events)
                    )
                    out = response_head_bytes(events[0], b"", False)
                    self.assertTrue(out.endswith(b"\r\nX: a\r\n\r\n"), out)
                    self.assertEqual(out.count(b"\r\n"), 3)
                    self.assertEqual(simplify(events[2:])[-1], ("end", []))
                for line in (b"HTTP/1.1 204 No Content", b"HTTP/1.1 304 Not Modified"):
                    parser = ResponseParser()
                    for _ in range(2):
                        head, end = parse(*pieces(respond(field, line=line), size), parser=parser)
                        self.assertEqual((head.length, head.keep_alive, end), (0, True, END), field)
                        out = response_head_bytes(head, b"", False).split(b"\r\n")[1:-2]
                        said = field in (b"Content-Length: 0", b"Content-Length: 5") and line[9:12] == b"304"
                        self.assertEqual(out, [field] if said else [])
                        self.assertFalse(parser.surplus)

    def test_odd_switches(self) -> None:
        for fields in (
            (b"Upgrade: x", b"Connection: Upgrade", b"Content-Length: 0"),
            (b"Upgrade: x", b"Connection: Upgrade", b"Content-Length: 5"),
            (b"Upgrade: x", b"Connection: Upgrade", b"Transfer-Encoding: chunked"),
            (b"Upgrade: x",),
            (b"Upgrade: x", b"Connection: keep-alive"),
            (b"Upgrade: x", b"Connection: close", b"Content-Length: 3"),
        ):
            for size in SIZES:
                parser = ResponseParser()
                data = respond(*fields, line=b"HTTP/1.1 101 Switching", body=b"raw")
                (head,) = parse(*pieces(data, size), parser=parser)
                self.assertIsInstance(head, ResponseHead, (fields, head))
                self.assertEqual((head.status, parser.take_rest()), (101, b"raw"))
                out = response_head_bytes(head, b"", False)
                self.assertEqual(
                    out, b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", fields
                )

    def test_switch(self) -> None:
        parser = ResponseParser()
        (head,) = parse(b"HTTP/1.1 101 Switching\nConnection : upgrade\nUpgrade: x\n\nraw\n\n", parser=parser)
        self.assertEqual((head.status, parser.take_rest()), (101, b"raw\n\n"))

    def test_head_and_what_has_no_body(self) -> None:
        parser = ResponseParser()
        parser.expect(True)
        head, end = parser.feed(b"HTTP/1.1 200 OK\nContent-Length: 3\n\n")
        self.assertEqual((head.length, end, parser.surplus), (0, END, False))
        head, end = parse(b"HTTP/1.1 304\nContent-Length: 3, 3\n\n", parser=parser)
        self.assertEqual((head.length, end, parser.surplus), (0, END, False))

    def test_the_next_one_on_the_connection(self) -> None:
        parser = ResponseParser()
        for _, data, _, body, certain in ODD_RESPONSES:
            if not certain:
                continue
            head, *parts, end = parse(data, parser=parser)
            self.assertEqual((head.keep_alive, b"".join(parts), end), (True, body, END))
            self.assertFalse(parser.surplus)
            good = respond(b"Content-Length: 2", body=b"ok")
            self.assertEqual(simplify(parse(good, parser=parser)), simplify(parse(good)))

    def test_nothing_odd_goes_past_the_parser(self) -> None:
        """What is as the last one was goes on unseen; but not what was not as it should be."""
        odd = b"HTTP/1.1 200 OK\r\nX: %d\r\nContent-Length: 3\n\r\nabc"
        parser = ResponseParser()
        for number in range(3 * TEMPLATE_AFTER):
            parser.expect(False)
            self.assertIs(type(parser.feed_one(odd % (number // 2))), list)
            self.assertIsNone(parser._known)
            self.assertIsNone(parser._template)
        for number in range(TEMPLATE_AFTER + 1):
            parser.expect(False)
            parser.feed_one(respond(b"X: %d" % number, b"Content-Length: 3", body=b"abc"))
        self.assertIsNotNone(parser._template)
        for number in (0, 1):
            parser.expect(False)
            self.assertIs(type(parser.feed_one(odd % number)), list)
        parser.expect(False)
        self.assertIs(
            type(parser.feed_one(b"HTTP/1.1 200\r\nX: 1\r\nContent-Length: 3\r\n\r\nabc")), ResponseHead
        )

    def test_in_head(self) -> None:
        parser = ResponseParser()
        parser.expect(False)
        self.assertEqual(parser.feed(b"HTTP/1.1 200 OK\nX"), [])
        self.assertTrue(parser.in_head)
        parser.feed(b": a\n\n")
        self.assertFalse(parser.in_head)

    def test_nonsense_is_refused_at_once(self) -> None:
        for data in (
            b"SSH-2.0",
            b"HTTP/2.0 200\r\n",
            b"HTTP/1.1 2000",
            b"HTTP/1.1 200O",
            b"HTTP/1.1 OK",
            b"HTTP/1.1 200 a\rb",
        ):
            for size in (1, 100):
                *_, last = parse(*pieces(data, size))
                self.assertIsInstance(last, HttpError, data)

    def test_the_limit_is_the_same(self) -> None:
        for end in (b"\r\n", b"\n"):
            head = b"HTTP/1.1 200 OK" + end + b"X : " + b"x" * 100 + end + end
            self.assertIsInstance(parse(head, parser=ResponseParser(len(head)))[0], ResponseHead)
            for size in (1, 1000):
                (error,) = parse(*pieces(head, size), parser=ResponseParser(len(head) - 1))
                self.assertEqual(error.status, 502)

    def test_not_more_fields_for_that(self) -> None:
        for fields in (b"X : y\n" * 101, b"X: y\r\n" * 101):
            (error,) = parse(b"HTTP/1.1 200 OK\n" + fields + b"\n")
            self.assertEqual(error.status, 502)


@st.composite
def loosened(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """
    Responses as old devices write them, and as they should be.

    @return: first the latter.
    """
    strict = draw(messages(b"HTTP/1.1 200 OK"))
    head, _, body = strict.partition(b"\r\n\r\n")
    ends = st.sampled_from([b"\r\n", b"\n", b"\r\r\n"])
    lines = head.split(b"\r\n")
    loose = lines[0] + draw(ends)
    for line in lines[1:]:
        name, _, value = line.partition(b": ")
        folded = draw(st.sampled_from([b"", b"", b"", b"\r\n ", b"\n\t"]))
        if folded and b" " in value and b"\t" not in value and b"  " not in value:
            value = value.replace(b" ", folded, 1)
        loose += name + draw(st.sampled_from([b"", b"", b" ", b"\t"])) + b": " + value + draw(ends)
    loose += draw(ends)
    return strict, loose + body


class MeaningTests(SynchronousTestCase):
    @settings(deadline=None, max_examples=most(300))
    @given(loosened(), st.data())
    def test_loose_and_strict_are_the_same(self, case: tuple[bytes, bytes], data: st.DataObject) -> None:
        strict, loose = case
        _, parts = data.draw(cut(st.just([loose])))
        self.assertEqual(forwarded(parse(*parts)), forwarded(parse(strict)))

    @settings(deadline=None, max_examples=most(1000))
    @given(
        st.lists(
            st.sampled_from(
                [
                    *(b"HTTP/1.1 200 OK", b"HTTP/1.0 200", b"Content-Length: 3", b"Content-Length: 3, 3"),
                    *(
                        b"Content-Length",
                        b"Transfer-Encoding: chunked",
                        b"Transfer-Encoding:",
                        b"gzip",
                        b"X: a",
                    ),
                    *(
                        b"\r\n",
                        b"\n",
                        b"\r",
                        b"\r\n\r\n",
                        b"\n\n",
                        b" ",
                        b"\t",
                        b":",
                        b",",
                        b"\0",
                        b"\x80",
                        b"abc",
                    ),
                    *(
                        b"3\r\nabc\r\n0\r\n\r\n",
                        b"3\nabc\n0\n\n",
                        b"0",
                        b"Connection: close",
                        b"Set-Cookie: a",
                    ),
                ]
            ),
            min_size=1,
            max_size=12,
        ).map(b"".join),
        st.sampled_from(
            [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\n", b"HTTP/1.1 200 OK\r\nContent-Length: 3\n"]
        ),
        st.integers(1, 20),
    )
    @example(b"Content-Length: 3\n\nabc", b"HTTP/1.1 200 OK\n", 1)
    @example(b"HTTP/1.1 200 OK\rHTTP/1.1 200 OK\r\n", b"", 1)
    def test_what_goes_on_is_as_it_should_be(self, text: bytes, start: bytes, size: int) -> None:
        """Whatever came: other parsers, strict ones, find the message that we have found, and no more."""
        data = start + text
        events = parse(data)
        self.assertEqual(simplify(parse(*pieces(data, size))), simplify(events))
        if not events or events[-1] is not END or events[0].status < 200:
            return
        out = forwarded(events)
        head, _, _ = out.partition(b"\r\n\r\n")
        self.assertNotIn(b"\0", head)
        self.assertEqual(head.count(b"\r\n"), head.count(b"\n"))
        self.assertEqual(head.count(b"\r\n"), head.count(b"\r"))
        self.assertLessEqual(
            head.lower().count(b"\r\ncontent-length:") + head.lower().count(b"\r\ntransfer-encoding:"), 1
        )
        body = b"".join(event for event in events if isinstance(event, bytes))
        self.assertEqual(read_with_h11(out), body)
        self.assertEqual(read_with_llhttp(out), body)


def read_with_h11(data: bytes) -> bytes:
    """Read the body of a response with an independent parser; nothing may follow it."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    body = b""
    while not isinstance(event := client.next_event(), h11.EndOfMessage):
        assert event is not h11.NEED_DATA, data
        if isinstance(event, h11.Data):
            body += event.data
    assert client.trailing_data[0] == b"", data
    return body


class _Body:
    def __init__(self) -> None:
        self.body = b""
        self.complete = 0

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.complete += 1


def read_with_llhttp(data: bytes) -> bytes:
    """The same with llhttp."""
    found = _Body()
    httptools.HttpResponseParser(found).feed_data(data)
    assert found.complete == 1, data
    return found.body


class LenientChunkDecoderTests(SynchronousTestCase):
    def read(self, decoder: Any, parts: list[bytes]) -> Any:
        """@return: the data, the trailers and what follows; L{None} if it is refused."""
        data = b""
        for index, part in enumerate(parts):
            try:
                rest = decoder.feed(part)
            except HttpError:
                return None
            data += decoder.take_data()
            if decoder.complete:
                return data, decoder.trailers, rest + b"".join(parts[index + 1 :])
        return data, None, b""

    @settings(deadline=None, max_examples=most(300))
    @given(cut(CHUNKED_BODIES), st.sampled_from([b"", b"GET", b"\r\n"]))
    def test_as_the_strict_one(self, case: tuple[bytes, list[bytes]], behind: bytes) -> None:
        _, parts = case
        parts = [*parts, behind] if behind else parts
        expected = self.read(StrictChunkDecoder(1000), parts)
        self.assertIsNotNone(expected)
        self.assertEqual(self.read(LenientChunkDecoder(1000), parts), expected)

    @settings(deadline=None, max_examples=most(1000))
    @given(
        st.lists(
            st.sampled_from(
                [
                    *(
                        b"0",
                        b"1",
                        b"a",
                        b"A;x=y",
                        b"\r\n",
                        b"\r",
                        b"\n",
                        b" ",
                        b"\t",
                        b";",
                        b"x",
                        b"X: y",
                        b":",
                    ),
                    *(b"3\r\nabc\r\n", b"2\nab\n", b"0\r\n\r\n", b"\0", b"1\r\n0\r\n", b'"', b"\x80"),
                ]
            ),
            max_size=15,
        ).map(b"".join),
        st.integers(1, 10),
    )
    def test_takes_all_that_the_strict_one_takes(self, text: bytes, size: int) -> None:
        if not text:
            return
        found = self.read(LenientChunkDecoder(1000), [text])
        self.assertEqual(self.read(LenientChunkDecoder(1000), pieces(text, size)), found)
        expected = self.read(StrictChunkDecoder(1000), [text])
        if expected is not None and expected[1] is not None:
            self.assertEqual(found, expected)

    def test_trailers(self) -> None:
        for text in (
            b"0\r\nX: a\r\nHost: b\r\nContent-Length: 9\r\nY : c\r\n d\r\n\r\nrest",
            b"0\nX: a\nHost: b\nTransfer-Encoding: chunked\nY: c\n d\n\nrest",
        ):
            for size in (1, 3, 1000):
                data, trailers, rest = self.read(LenientChunkDecoder(1000), pieces(text, size))
                self.assertEqual((data, trailers, rest), (b"", [(b"X", b"a"), (b"Y", b"c d")], b"rest"))

    def test_small_chunks_are_fine(self) -> None:
        decoder = LenientChunkDecoder(1000)
        for _ in range(10_000):
            decoder.feed(b"1\r\nx\r\n")
            self.assertEqual(decoder.take_data(), b"x")

    def test_what_is_no_data_is_bounded(self) -> None:
        for start, more in ((b"3", b" "), (b"3;", b"x"), (b"0\r\nX: ", b"x"), (b"0\r\n", b"X: y\r\n")):
            decoder = LenientChunkDecoder(100_000)
            decoder.feed(start)
            fed = 0
            with self.assertRaises(HttpError):
                while True:
                    decoder.feed(more)
                    fed += len(more)
            self.assertLess(fed, CHUNK_EXCESS + MAX_LINE)
            self.assertLess(len(decoder._partial), CHUNK_EXCESS + MAX_LINE)

    def test_chunk_in_many_reads(self) -> None:
        decoder = LenientChunkDecoder(1000)
        decoder.feed(b"100000\r\n")
        for _ in range(16):
            self.assertEqual(decoder.feed(b"x" * 65536), b"")
            self.assertEqual(len(decoder.take_data()), 65536)
        self.assertEqual(decoder.feed(b"\r\n0\r\n\r\nrest"), b"rest")


class NormaliseTests(SynchronousTestCase):
    def test_what_is_in_order_stays_as_it_is(self) -> None:
        for data in (
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.0 404 Not  Found\r\nX: y\r\nA: \r\nSet-Cookie: a=b; c\r\nset-cookie: \xff\r\n\r\n",
        ):
            found = normalise(data)
            self.assertEqual((found.raw, found.certain, found.coding), (data, True, b""))


class InflaterTests(SynchronousTestCase):
    def test_in_pieces(self) -> None:
        data = zlib.compress(b"hello" * 1000)
        for size in (1, 100, 10_000):
            inflater = Inflater(b"deflate")
            found = b"".join(inflater.feed(piece) for piece in pieces(data, size))
            inflater.finish()
            self.assertEqual(found, b"hello" * 1000)

    def test_a_read_may_not_become_too_much(self) -> None:
        for size, fits in ((MAX_INFLATED, True), (MAX_INFLATED + 1, False)):
            inflater = Inflater(b"deflate")
            data = zlib.compress(bytes(size), 9)
            if fits:
                self.assertEqual(len(inflater.feed(data)), size)
                inflater.finish()
            else:
                self.assertRaises(HttpError, inflater.feed, data)

    def test_nothing_is_complete(self) -> None:
        Inflater(b"gzip").finish()
