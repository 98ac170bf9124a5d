from __future__ import annotations

import contextlib
import zlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.errors import RpcHeaderError
from reverseproxy.wire.rpc.bolt import (
    Bolt,
    BoltFrame,
    BoltStatus,
    encode_headers,
    encode_request,
    encode_response,
)
from reverseproxy.wire.rpc.xprotocol import Kind, RpcFrameDecoder
from tests.wire.frames import cuts, decode_all, split

# Written by hand from the description of the format.
REQUEST = bytes.fromhex("01 01 0001 01 00000007 01 ffffffff 0003 0013 00000002".replace(" ", "")) + (
    b"cls" + b"\0\0\0\7service" + b"\0\0\0\4echo" + b"hi"
)
RESPONSE = bytes.fromhex("01 00 0002 01 00000007 01 0000 0000 0000 00000005".replace(" ", "")) + b"hello"
HEARTBEAT = bytes.fromhex("01 01 0000 01 00000009 01 ffffffff 0000 0000 00000000".replace(" ", ""))
HEARTBEAT_ACK = bytes.fromhex("01 00 0000 01 00000009 01 0000 0000 0000 00000000".replace(" ", ""))
REQUEST_2 = bytes.fromhex("02 01 01 0001 01 00000007 01 00 00000064 0000 0013 00000002".replace(" ", "")) + (
    b"\0\0\0\7service" + b"\0\0\0\4echo" + b"hi"
)
RESPONSE_2 = bytes.fromhex("02 01 00 0002 01 00000007 01 00 0007 0000 0000 00000000".replace(" ", ""))


def one(data: bytes) -> BoltFrame:
    [frame] = decode_all(Bolt(), data)
    assert isinstance(frame, BoltFrame)
    return frame


def with_crc(data: bytes) -> bytes:
    """Turn a frame of version 2 into one with a CRC."""
    checked = data[:1] + b"\2" + data[2:11] + b"\1" + data[12:]
    return checked + zlib.crc32(checked).to_bytes(4, "big")


class DecodeTests(SynchronousTestCase):
    def test_request(self) -> None:
        frame = one(REQUEST)
        self.assertEqual((frame.kind, frame.id, frame.timeout, frame.version), (Kind.REQUEST, 7, -1, 1))
        self.assertEqual(frame.headers, {"service": "echo"})
        self.assertEqual((frame.data, frame.content), (REQUEST, b"hi"))

    def test_oneway(self) -> None:
        self.assertEqual(one(REQUEST[:1] + b"\2" + REQUEST[2:]).kind, Kind.ONEWAY)

    def test_response(self) -> None:
        frame = one(RESPONSE)
        self.assertEqual((frame.kind, frame.id, frame.status), (Kind.RESPONSE, 7, 0))

    def test_heartbeat(self) -> None:
        self.assertEqual(one(HEARTBEAT).kind, Kind.HEARTBEAT)
        self.assertEqual(one(HEARTBEAT_ACK).kind, Kind.HEARTBEAT_ACK)

    def test_oneway_heartbeat(self) -> None:
        self.assertEqual(one(HEARTBEAT[:1] + b"\2" + HEARTBEAT[2:]).kind, Kind.HEARTBEAT)

    def test_goaway(self) -> None:
        self.assertEqual(one(HEARTBEAT[:2] + b"\0\x64" + HEARTBEAT[4:]).kind, Kind.GOAWAY)

    def test_unknown_commands_are_forwarded(self) -> None:
        self.assertEqual(one(REQUEST[:2] + b"\0\x2a" + REQUEST[4:]).kind, Kind.REQUEST)
        self.assertEqual(one(RESPONSE[:2] + b"\0\x2a" + RESPONSE[4:]).kind, Kind.RESPONSE)

    def test_version_2(self) -> None:
        frame = one(REQUEST_2)
        self.assertEqual((frame.kind, frame.id, frame.timeout, frame.version), (Kind.REQUEST, 7, 100, 2))
        self.assertEqual(frame.service, "echo")
        frame = one(RESPONSE_2)
        self.assertEqual((frame.kind, frame.id, frame.status, frame.version), (Kind.RESPONSE, 7, 7, 2))

    def test_both_versions_on_one_connection(self) -> None:
        for protocol in (Bolt(), Bolt(2)):
            frames = decode_all(protocol, REQUEST + REQUEST_2 + RESPONSE + RESPONSE_2 + REQUEST)
            self.assertEqual([frame.version for frame in frames], [1, 2, 1, 2, 1])  # type: ignore[attr-defined]

    def test_first_byte(self) -> None:
        for byte in (0, 3, 0x47, 0xFF):
            decoder = RpcFrameDecoder(Bolt())
            self.assertEqual(decoder.feed(bytes([byte])), [])
            self.assertEqual(str(decoder.error), f"a bolt frame begins with 01 or 02, not with {byte:02x}")

    def test_type(self) -> None:
        for data in (b"\1\3", b"\2\1\3", b"\1\xff"):
            decoder = RpcFrameDecoder(Bolt())
            self.assertEqual(decoder.feed(data), [])
            self.assertIn("the type of a bolt frame is 0, 1 or 2", str(decoder.error))

    def test_every_length_is_refused_from_the_header_alone(self) -> None:
        for header in (REQUEST[:18] + b"\xff\xff\xff\xff", RESPONSE[:16] + b"\x7f\0\0\0"):
            decoder = RpcFrameDecoder(Bolt())
            self.assertEqual(decoder.feed(header), [])
            self.assertIsNotNone(decoder.error)

    def test_detect(self) -> None:
        self.assertEqual(
            [Bolt().detect(b"\1"), Bolt().detect(b"\2"), Bolt().detect(b"G")], [True, False, False]
        )
        self.assertEqual([Bolt(2).detect(b"\1"), Bolt(2).detect(b"\2x")], [False, True])

    @given(
        st.lists(st.sampled_from([REQUEST, RESPONSE, HEARTBEAT, REQUEST_2, RESPONSE_2, with_crc(REQUEST_2)])),
        cuts,
    )
    def test_chunks_make_no_difference(self, wanted: list[bytes], where: list[int]) -> None:
        decoder = RpcFrameDecoder(Bolt())
        frames = [frame for chunk in split(b"".join(wanted), where) for frame in decoder.feed(chunk)]
        self.assertEqual([bytes(frame.data) for frame in frames], wanted)

    def test_large_frames_in_pieces(self) -> None:
        """Whatever the pieces, the frames are the same, and no piece is kept by itself that is small."""
        frames = [encode_request(n, {"a": "b"}, bytes([n]) * (200_000 + n)) for n in range(1, 4)]
        stream = b"".join(frames)
        for sizes in ([1], [7, 100_000], [20_000], [3, 16_384, 1], [len(stream)]):
            decoder = RpcFrameDecoder(Bolt())
            found: list[bytes] = []
            position = number = 0
            while position < len(stream):
                size = sizes[number % len(sizes)] if sizes != [1] or len(found) != 1 else 1 << 30
                found += [bytes(frame.data) for frame in decoder.feed(stream[position : position + size])]
                position += size
                number += 1
                self.assertLess(len(decoder._later), 30)
                self.assertEqual(decoder.unfinished, min(position, len(stream)) - sum(map(len, found)))
                self.assertEqual(decoder.in_frame, decoder.unfinished > 0)
            self.assertEqual(found, frames)

    @given(st.lists(st.binary(max_size=60), max_size=5))
    def test_anything_at_all(self, chunks: list[bytes]) -> None:
        decoder = RpcFrameDecoder(Bolt(), 1000)
        for chunk in chunks:
            for frame in decoder.feed(b"\1" + chunk):
                frame.set_id(1)


class IdTests(SynchronousTestCase):
    def test_only_the_id_changes(self) -> None:
        for data, place in ((REQUEST, 5), (RESPONSE, 5), (REQUEST_2, 6), (RESPONSE_2, 6)):
            frame = one(data)
            frame.set_id(0xFEDCBA98)
            self.assertEqual(frame.id, 0xFEDCBA98)
            self.assertEqual(frame.data, data[:place] + b"\xfe\xdc\xba\x98" + data[place + 4 :])

    def test_largest(self) -> None:
        frame = one(REQUEST)
        frame.set_id(Bolt().max_id)
        self.assertEqual(frame.data[5:9], b"\xff\xff\xff\xff")


class CrcTests(SynchronousTestCase):
    def test_made_anew(self) -> None:
        for data in (REQUEST_2, RESPONSE_2):
            frame = one(with_crc(data))
            frame.set_id(99)
            again = one(bytes(frame.data))
            self.assertEqual(again.id, 99)
            again.set_id(7)
            self.assertEqual(again.data, with_crc(data))

    def test_wrong(self) -> None:
        decoder = RpcFrameDecoder(Bolt())
        bad = with_crc(REQUEST_2)
        self.assertEqual(decoder.feed(bad[:-5] + b"X" + bad[-4:]), [])
        self.assertIn("CRC", str(decoder.error))

    def test_only_if_version_and_switch_say_so(self) -> None:
        for version, switch in ((1, 1), (2, 0), (2, 2)):
            data = REQUEST_2[:1] + bytes([version]) + REQUEST_2[2:11] + bytes([switch]) + REQUEST_2[12:]
            self.assertEqual(one(data).data, data)

    def test_the_content_is_not_the_crc(self) -> None:
        frame = one(with_crc(REQUEST_2))
        self.assertEqual((frame.headers, frame.content), ({"service": "echo"}, b"hi"))


class HeaderTests(SynchronousTestCase):
    def request(self, block: bytes) -> BoltFrame:
        head = REQUEST[:14] + b"\0\0" + len(block).to_bytes(2, "big") + b"\0\0\0\2"
        return one(head + block + b"hi")

    def test_none(self) -> None:
        self.assertEqual(self.request(b"").headers, {})
        self.assertIsNone(self.request(b"").header("service"))
        self.assertEqual(self.request(b"").service, "")

    def test_several(self) -> None:
        headers = {"service": "a", "": "empty", "b": "", "ä": "ö"}
        frame = self.request(encode_headers(headers))
        self.assertEqual(frame.headers, headers)
        self.assertEqual(list(frame.headers), list(headers))

    def test_the_first_of_a_name_counts(self) -> None:
        self.assertEqual(
            self.request(encode_headers({"a": "1"}) + encode_headers({"a": "2"})).header("a"), "1"
        )

    def test_case(self) -> None:
        frame = self.request(encode_headers({"Service": "upper", "service": "lower", "X-Zone": "b"}))
        self.assertEqual((frame.header("service"), frame.header("x-zone")), ("lower", "b"))
        self.assertIsNone(frame.header("x-zon"))

    def test_method(self) -> None:
        frame = self.request(encode_headers({"sofa_head_method_name": "hello"}))
        self.assertEqual((frame.method, self.request(b"").method), ("hello", ""))

    def test_null_name(self) -> None:
        self.assertEqual(self.request(b"\xff\xff\xff\xff" + encode_headers({"a": "1"})).headers, {"a": "1"})

    def test_null_value(self) -> None:
        block = b"\0\0\0\1x\xff\xff\xff\xff" + encode_headers({"a": "1"})
        self.assertEqual(self.request(block).headers, {"a": "1"})

    def test_not_utf_8(self) -> None:
        self.assertEqual(self.request(b"\0\0\0\1a\0\0\0\1\xff").header("a"), "\udcff")

    def test_truncated(self) -> None:
        block = encode_headers({"service": "echo", "b": "c"})
        for end in range(1, len(block)):
            if end == len(encode_headers({"service": "echo"})):
                continue
            with self.assertRaises(RpcHeaderError):
                self.request(block[:end]).header("service")

    def test_too_long_an_item(self) -> None:
        frame = self.request(b"\0\0\0\x05a")
        for _ in range(2):
            with self.assertRaises(RpcHeaderError) as caught:
                frame.header("a")
        self.assertEqual(str(caught.exception), "a header is 4 bytes longer than the block of headers")

    def test_changed(self) -> None:
        for data in (REQUEST, REQUEST_2, RESPONSE, RESPONSE_2, with_crc(REQUEST_2), with_crc(RESPONSE_2)):
            frame = one(data)
            content = frame.content
            frame.set_fields([*frame.fields(), (b"x-a", b"1"), (b"", b"")])
            frame.set_id(1234)
            again = one(bytes(frame.data))
            self.assertEqual((again.id, again.kind, again.version), (1234, frame.kind, frame.version))
            self.assertEqual(again.headers, frame.headers)
            self.assertEqual((again.header("x-a"), again.header("")), ("1", ""))
            self.assertEqual(again.fields()[-2:], [(b"x-a", b"1"), (b"", b"")])
            again.set_fields([])
            self.assertEqual(one(bytes(again.data)).headers, {})
            self.assertEqual((frame.content, again.content), (content, content))
        frame = one(REQUEST)
        frame.set_fields(frame.fields())
        self.assertEqual(frame.data, REQUEST)

    def test_changed_beyond_all_bounds(self) -> None:
        frame = one(REQUEST)
        with self.assertRaises(RpcHeaderError):
            frame.set_fields([(b"a", b"b" * 65536)])
        self.assertEqual(frame.data, REQUEST)

    @given(st.binary(max_size=80))
    def test_anything_at_all(self, block: bytes) -> None:
        with contextlib.suppress(RpcHeaderError):
            self.request(block).header("service")

    @given(st.dictionaries(st.text(max_size=10), st.text(max_size=10)))
    def test_what_is_encoded_is_decoded(self, headers: dict[str, str]) -> None:
        self.assertEqual(self.request(encode_headers(headers)).headers, headers)

    def test_too_long_to_encode(self) -> None:
        with self.assertRaises(ValueError):
            encode_headers({"a": "b" * 65536})


class OwnFramesTests(SynchronousTestCase):
    def test_heartbeat(self) -> None:
        self.assertEqual(Bolt().heartbeat(9), HEARTBEAT)
        frame = one(Bolt(2).heartbeat(9))
        self.assertEqual((frame.version, frame.kind, frame.id, frame.timeout), (2, Kind.HEARTBEAT, 9, -1))

    def test_answer_to_a_heartbeat(self) -> None:
        self.assertEqual(Bolt().answer_heartbeat(one(HEARTBEAT)), HEARTBEAT_ACK)

    def test_answers_are_of_the_version_of_the_question(self) -> None:
        protocol = Bolt()
        frame = one(protocol.answer_heartbeat(one(Bolt(2).heartbeat(3))))
        self.assertEqual((frame.version, frame.kind, frame.id, frame.status), (2, Kind.HEARTBEAT_ACK, 3, 0))
        frame = one(protocol.reply(one(REQUEST_2), 504))
        self.assertEqual((frame.version, frame.kind, frame.id, frame.status), (2, Kind.RESPONSE, 7, 7))

    def test_goaway(self) -> None:
        self.assertEqual(Bolt().goaway(1), b"")
        for version in (1, 2):
            frame = one(Bolt(version, enable_goaway=True).goaway(5))
            self.assertEqual(
                (frame.version, frame.kind, frame.id, frame.timeout), (version, Kind.GOAWAY, 5, 0)
            )

    def test_replies(self) -> None:
        wanted = {200: 0, 404: 6, 502: 6, 503: 4, 0: 9, 3: 18, 504: 7, 403: 2, 500: 3, 2: 3, 302: 3}
        for http, status in wanted.items():
            frame = one(Bolt().reply(one(REQUEST), http))
            self.assertEqual((frame.kind, frame.id, frame.status), (Kind.RESPONSE, 7, status), http)
        self.assertEqual(
            Bolt().reply(one(REQUEST), 404),
            bytes.fromhex("01 00 0002 01 00000007 01 0006 0000 0000 00000000".replace(" ", "")),
        )

    def test_http_status(self) -> None:
        wanted = {0: 200, 4: 503, 7: 504, 16: 502, 1: 500, 6: 500, 99: 500}
        for status, http in wanted.items():
            self.assertEqual(Bolt().http_status(one(encode_response(1, status))), http)

    def test_encoded_requests(self) -> None:
        data = encode_request(7, {"service": "echo"}, b"hi", class_name=b"cls")
        self.assertEqual(data, REQUEST)
        self.assertEqual(encode_request(7, {"service": "echo"}, b"hi", timeout=100, version=2), REQUEST_2)
        self.assertEqual(one(encode_request(7, oneway=True)).kind, Kind.ONEWAY)

    def test_encoded_responses(self) -> None:
        self.assertEqual(encode_response(7, content=b"hello"), RESPONSE)
        self.assertEqual(encode_response(7, BoltStatus.TIMEOUT, version=2), RESPONSE_2)
