from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.errors import RpcFrameError
from reverseproxy.wire.rpc.xprotocol import MAX_FRAME, Frame, Kind, RpcFrameDecoder, XProtocol
from tests.wire.frames import Tiny, cuts, decode_all, split, tiny


class _Needy(Tiny):
    """Always asks for one byte more than there are, as a careless plug-in may."""

    def decode(self, buffer: bytearray, start: int) -> Frame | int:
        return 1


class _Counting(Tiny):
    calls = 0

    def decode(self, buffer: bytearray, start: int) -> Frame | int:
        self.calls += 1
        return super().decode(buffer, start)


class FrameDecoderTests(SynchronousTestCase):
    def test_frames(self) -> None:
        frames = decode_all(Tiny(), tiny(Kind.REQUEST, 7, b"a") + tiny(Kind.ONEWAY, 8))
        self.assertEqual(
            [(f.kind, f.id, bytes(f.data)) for f in frames], [(1, 7, b"#\1\7\1a"), (2, 8, b"#\2\x08\0")]
        )

    def test_byte_by_byte(self) -> None:
        decoder = RpcFrameDecoder(Tiny())
        data = tiny(Kind.REQUEST, 7, b"abc")
        for count in range(1, len(data)):
            self.assertEqual(decoder.feed(data[count - 1 : count]), [])
            self.assertTrue(decoder.in_frame)
        [frame] = decoder.feed(data[-1:])
        self.assertEqual(frame.data, data)
        self.assertFalse(decoder.in_frame)

    def test_a_frame_is_a_copy(self) -> None:
        decoder = RpcFrameDecoder(Tiny())
        [frame] = decoder.feed(tiny(Kind.REQUEST, 7, b"a"))
        frame.set_id(9)
        [other] = decoder.feed(tiny(Kind.REQUEST, 7, b"b"))
        self.assertEqual((frame.data[2], other.data[2]), (9, 7))

    def test_frames_before_an_error_count(self) -> None:
        decoder = RpcFrameDecoder(Tiny())
        [frame] = decoder.feed(tiny(Kind.REQUEST, 7) + b"?")
        self.assertEqual(frame.id, 7)
        self.assertIsInstance(decoder.error, RpcFrameError)
        self.assertEqual(decoder.feed(tiny(Kind.REQUEST, 7)), [])
        self.assertFalse(decoder.in_frame)

    def test_the_largest_frame(self) -> None:
        decoder = RpcFrameDecoder(Tiny(), 10)
        self.assertEqual(len(decoder.feed(tiny(Kind.REQUEST, 7, b"a" * 6))), 1)
        self.assertIsNone(decoder.error)

    def test_a_frame_too_large_is_refused_before_it_is_there(self) -> None:
        decoder = RpcFrameDecoder(Tiny(), 10)
        self.assertEqual(decoder.feed(tiny(Kind.REQUEST, 7, b"a" * 7)[:4]), [])
        self.assertEqual(str(decoder.error), "a frame of 11 bytes or more, where 10 are allowed")

    def test_a_frame_too_large_is_refused_in_one_piece_as_well(self) -> None:
        decoder = RpcFrameDecoder(Tiny(), 10)
        frames = decoder.feed(tiny(Kind.REQUEST, 1) + tiny(Kind.REQUEST, 7, b"a" * 7))
        self.assertEqual([frame.id for frame in frames], [1])
        self.assertIsNotNone(decoder.error)

    def test_a_long_frame_is_not_looked_at_with_each_byte(self) -> None:
        protocol = _Counting()
        decoder = RpcFrameDecoder(protocol)
        data = tiny(Kind.REQUEST, 7, b"a" * 255)
        frames = [frame for byte in data for frame in decoder.feed(bytes([byte]))]
        self.assertEqual(len(frames), 1)
        self.assertEqual(protocol.calls, 3)

    def test_a_protocol_that_never_has_enough(self) -> None:
        decoder = RpcFrameDecoder(_Needy(), 10)
        for _ in range(3):
            self.assertEqual(decoder.feed(b"#"), [])

    def test_close_forgets(self) -> None:
        decoder = RpcFrameDecoder(Tiny())
        decoder.feed(b"#")
        decoder.close()
        self.assertFalse(decoder.in_frame)

    @given(st.lists(st.tuples(st.sampled_from(Kind), st.integers(0, 255), st.binary(max_size=40))), cuts)
    def test_chunks_make_no_difference(self, wanted: list[tuple[Kind, int, bytes]], where: list[int]) -> None:
        data = b"".join(tiny(*each) for each in wanted)
        decoder = RpcFrameDecoder(Tiny())
        frames = [frame for chunk in split(data, where) for frame in decoder.feed(chunk)]
        self.assertEqual([(f.kind, f.id, bytes(f.data[4:])) for f in frames], wanted)
        self.assertFalse(decoder.in_frame)


class DefaultsTests(SynchronousTestCase):
    def test_a_protocol_need_not_have_heartbeats(self) -> None:
        protocol: XProtocol = Tiny()
        self.assertEqual((protocol.heartbeat(1), protocol.goaway(1)), (b"", b""))

    def test_service_and_method_are_headers(self) -> None:
        [frame] = decode_all(Tiny(), tiny(Kind.REQUEST, 1, b"echo"))
        self.assertEqual((frame.service, frame.method, frame.timeout), ("echo", "", 0))

    def test_limit(self) -> None:
        self.assertEqual(MAX_FRAME, 16 * 1024 * 1024)
