from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.errors import RpcHeaderError
from reverseproxy.wire.rpc.dubbo import Dubbo, DubboFrame, decode_string, encode_frame, encode_string
from reverseproxy.wire.rpc.xprotocol import Kind, RpcFrameDecoder
from tests.wire.frames import cuts, decode_all, split

# Written by hand from the description of the format.
BODY = b"\x052.0.2" + b"\x10com.example.Demo" + b"\x051.0.0" + b"\x05hello" + b"\x00" + b"H\x05group\x01gZ"
REQUEST = b"\xda\xbb\xc2\0" + b"\0\0\0\0\0\0\0\7" + len(BODY).to_bytes(4, "big") + BODY
RESPONSE = b"\xda\xbb\x02\x14" + b"\0\0\0\0\0\0\0\7" + b"\0\0\0\2" + b"\x94\x01"
HEARTBEAT = b"\xda\xbb\xe2\0" + b"\0\0\0\0\0\0\0\x09" + b"\0\0\0\1" + b"N"
HEARTBEAT_ACK = b"\xda\xbb\x22\x14" + b"\0\0\0\0\0\0\0\x09" + b"\0\0\0\2" + b"NN"
READ_ONLY = b"\xda\xbb\xa2\0" + b"\0\0\0\0\0\0\0\x09" + b"\0\0\0\2" + b"\x01R"


def one(data: bytes) -> DubboFrame:
    [frame] = decode_all(Dubbo(), data)
    assert isinstance(frame, DubboFrame)
    return frame


def with_body(body: bytes, flag: int = 0xC2) -> DubboFrame:
    return one(encode_frame(flag, 7, body))


class DecodeTests(SynchronousTestCase):
    def test_request(self) -> None:
        frame = one(REQUEST)
        self.assertEqual((frame.kind, frame.id, frame.timeout), (Kind.REQUEST, 7, 0))
        self.assertEqual(
            frame.headers,
            {"dubbo": "2.0.2", "service": "com.example.Demo", "version": "1.0.0", "method": "hello"},
        )
        self.assertEqual((frame.service, frame.method), ("com.example.Demo", "hello"))
        self.assertIsNone(frame.header("group"))

    def test_long_headers(self) -> None:
        """They are bounded: to decode as much as a frame may have would take seconds."""
        for part, what in (
            (b"R\0\0", "more than 16 parts"),
            (b"R\0\1\xc3\xa9", "more than 16 parts"),
            (b"R\x80\0" + "é".encode() * 0x8000, "take more than 65536 bytes"),
            (encode_string("x" * 0x7FFF).replace(b"S", b"R", 1), "take more than 65536 bytes"),
        ):
            frame = with_body(encode_string("2.0.2") + part * 20 + b"\0")
            error = self.assertRaises(RpcHeaderError, lambda frame=frame: frame.headers)
            self.assertIn(what, str(error))
        long = "x" * 0x8000
        parts = encode_string(long).replace(b"S", b"R", 1) + encode_string("y" * 100)
        body = encode_string("2.0.2") + parts + encode_string("1") + encode_string("hello")
        self.assertEqual(with_body(body + b"x" * 100000).service, long + "y" * 100)

    def test_kinds(self) -> None:
        self.assertEqual(one(REQUEST[:2] + b"\x82" + REQUEST[3:]).kind, Kind.ONEWAY)
        self.assertEqual(one(RESPONSE).kind, Kind.RESPONSE)
        self.assertEqual(one(HEARTBEAT).kind, Kind.HEARTBEAT)
        self.assertEqual(one(HEARTBEAT_ACK).kind, Kind.HEARTBEAT_ACK)
        self.assertEqual(one(READ_ONLY).kind, Kind.GOAWAY)

    def test_magic(self) -> None:
        for data in (b"\xdb", b"\xda\xba", b"GET / HTTP/1.1\r\n", b"x" * 16):
            decoder = RpcFrameDecoder(Dubbo())
            self.assertEqual(decoder.feed(data), [])
            self.assertIn("a dubbo frame begins with da bb", str(decoder.error))

    def test_too_large(self) -> None:
        decoder = RpcFrameDecoder(Dubbo(), 1000)
        self.assertEqual(decoder.feed(REQUEST[:12] + b"\xff\xff\xff\xff"), [])
        self.assertIn("1000 are allowed", str(decoder.error))

    def test_detect(self) -> None:
        self.assertEqual(
            [Dubbo().detect(data) for data in (b"\xda", b"\xda\xbb", b"\xda\xbc", b"\1")],
            [None, True, False, False],
        )

    @given(st.lists(st.sampled_from([REQUEST, RESPONSE, HEARTBEAT, READ_ONLY])), cuts)
    def test_chunks_make_no_difference(self, wanted: list[bytes], where: list[int]) -> None:
        decoder = RpcFrameDecoder(Dubbo())
        frames = [frame for chunk in split(b"".join(wanted), where) for frame in decoder.feed(chunk)]
        self.assertEqual([bytes(frame.data) for frame in frames], wanted)

    def test_only_the_id_changes(self) -> None:
        frame = one(REQUEST)
        frame.set_id(0x0123456789ABCDEF)
        self.assertEqual(frame.id, 0x0123456789ABCDEF)
        self.assertEqual(frame.data, REQUEST[:4] + b"\x01\x23\x45\x67\x89\xab\xcd\xef" + REQUEST[12:])


class HeaderTests(SynchronousTestCase):
    def test_can_t_be_changed(self) -> None:
        self.assertIsNone(one(REQUEST).fields())
        with self.assertRaises(NotImplementedError):
            one(REQUEST).set_fields([])

    def test_no_version(self) -> None:
        frame = with_body(b"\x052.0.2" + b"\x01s" + b"N" + b"\x01m")
        self.assertEqual((frame.header("version"), frame.method), ("", "m"))

    def test_no_service(self) -> None:
        with self.assertRaises(RpcHeaderError) as caught:
            with_body(b"\x052.0.2" + b"N" + b"N" + b"\x01m").header("service")
        self.assertEqual(str(caught.exception), "the service is null")

    def test_another_serialization(self) -> None:
        with self.assertRaises(RpcHeaderError) as caught:
            with_body(b"{}", 0xC6).header("service")
        self.assertIn("the serialisation is 6", str(caught.exception))

    def test_responses_have_none(self) -> None:
        self.assertIsNone(one(RESPONSE).header("service"))

    def test_truncated(self) -> None:
        needed = BODY.index(b"hello") + 5
        for end in range(needed):
            with self.assertRaises(RpcHeaderError):
                with_body(BODY[:end]).header("method")
        self.assertEqual(with_body(BODY[:needed]).method, "hello")

    @given(st.binary(max_size=80))
    def test_anything_at_all(self, body: bytes) -> None:
        with contextlib.suppress(RpcHeaderError):
            with_body(body).header("service")


class StringTests(SynchronousTestCase):
    def test_forms(self) -> None:
        for length, head in (
            (0, b"\0"),
            (31, b"\x1f"),
            (32, b"\x30\x20"),
            (1023, b"\x33\xff"),
            (1024, b"S\x04\0"),
        ):
            data = encode_string("a" * length)
            self.assertEqual(data[: len(head)], head)
            self.assertEqual(decode_string(data, 0), ("a" * length, len(data)))

    def test_too_long(self) -> None:
        with self.assertRaises(ValueError):
            encode_string("a" * 65536)

    def test_in_parts(self) -> None:
        data = b"R\0\3abcR\0\1d\x01e!"
        self.assertEqual(decode_string(data, 0), ("abcde", len(data) - 1))

    def test_null(self) -> None:
        self.assertEqual(decode_string(b"xN", 1), (None, 2))

    def test_null_is_no_part(self) -> None:
        with self.assertRaises(RpcHeaderError):
            decode_string(b"R\0\1aN", 0)

    def test_something_else(self) -> None:
        with self.assertRaises(RpcHeaderError) as caught:
            decode_string(b"\x91", 0)
        self.assertEqual(str(caught.exception), "a Hessian string can't begin with 91")

    def test_lengths_count_utf_16_units(self) -> None:
        self.assertEqual(encode_string("é"), b"\x01\xc3\xa9")
        self.assertEqual(decode_string(b"\x01\xc3\xa9rest", 0), ("é", 3))
        self.assertEqual(decode_string(b"\x02\xe4\xb8\xada", 0), ("中a", 5))

    def test_beyond_the_basic_plane(self) -> None:
        four = b"\x02\xf0\x9f\x98\x80"
        java = b"\x02\xed\xa0\xbd\xed\xb8\x80"
        self.assertEqual(encode_string("😀"), four)
        self.assertEqual(decode_string(four, 0), ("😀", 5))
        self.assertEqual(decode_string(java, 0), ("😀", 7))

    def test_half_a_character(self) -> None:
        for data in (b"\x01\xf0\x9f\x98\x80", b"\x01\xc3", b"\x02\xc3\xa9", b"\x01\xc3a", b"\x01\xe4\xb8"):
            with self.assertRaises(RpcHeaderError):
                decode_string(data, 0)

    def test_a_lone_surrogate(self) -> None:
        self.assertEqual(decode_string(b"\x01\xed\xa0\xbd", 0), ("\ufffd", 4))

    @given(st.text(max_size=70))
    def test_what_is_encoded_is_decoded(self, text: str) -> None:
        data = encode_string(text)
        self.assertEqual(decode_string(data, 0), (text, len(data)))


class OwnFramesTests(SynchronousTestCase):
    def test_heartbeat(self) -> None:
        self.assertEqual(Dubbo().heartbeat(9), HEARTBEAT)

    def test_answer_to_a_heartbeat(self) -> None:
        self.assertEqual(Dubbo().answer_heartbeat(one(HEARTBEAT)), HEARTBEAT_ACK)

    def test_a_heartbeat_that_wants_no_answer(self) -> None:
        self.assertEqual(Dubbo().answer_heartbeat(one(HEARTBEAT[:2] + b"\xa2" + HEARTBEAT[3:])), b"")

    def test_goaway(self) -> None:
        self.assertEqual(Dubbo().goaway(1), b"")

    def test_replies(self) -> None:
        wanted = {
            404: (60, b"\x16404|router unavailable"),
            503: (40, b"\x15503|upstream overflow"),
            504: (30, b"\x0b504|timeout"),
            302: (70, b"\x16302|status not defined"),
            0: (70, b"\x110|codec exception"),
        }
        for http, (status, body) in wanted.items():
            data = Dubbo().reply(one(REQUEST), http)
            frame = one(data)
            self.assertEqual((frame.kind, frame.id, frame.flag, frame.status), (Kind.RESPONSE, 7, 2, status))
            self.assertEqual(data[16:], body)

    def test_success(self) -> None:
        self.assertEqual(
            Dubbo().reply(one(REQUEST), 200), b"\xda\xbb\x02\x14" + REQUEST[4:12] + b"\0\0\0\1\x92"
        )

    def test_http_status(self) -> None:
        for status, http in {20: 200, 30: 504, 31: 504, 60: 404, 70: 500, 80: 500, 100: 503}.items():
            self.assertEqual(Dubbo().http_status(one(encode_frame(2, 7, b"", status=status))), http)
