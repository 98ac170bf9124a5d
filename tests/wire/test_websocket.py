"""Where WebSocket frames end, and how a session is ended."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.wire.http.websocket import GOING_AWAY, MAX_REASON, FrameTracker, close_frame


def frame(size: int, masked: bool = False, opcode: int = 2) -> bytes:
    """A frame with so many bytes of payload, which look like the beginning of another one."""
    mask = 0x80 if masked else 0
    if size < 126:
        head = bytes((0x80 | opcode, mask | size))
    elif size < 65536:
        head = bytes((0x80 | opcode, mask | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, mask | 127)) + size.to_bytes(8, "big")
    return head + (b"\x01\x02\x03\x04" if masked else b"") + b"\x88" * size


sizes = st.sampled_from([0, 1, 125, 126, 127, 65535, 65536])
frames = st.lists(st.builds(frame, sizes, st.booleans()), min_size=1, max_size=4)


class CloseFrameTests(SynchronousTestCase):
    def test_what_is_sent(self) -> None:
        self.assertEqual(close_frame(GOING_AWAY, "bye"), b"\x88\x05\x03\xe9bye")

    def test_without_a_reason(self) -> None:
        self.assertEqual(close_frame(), b"\x88\x02\x03\xe9")

    def test_a_long_reason_is_cut_between_characters(self) -> None:
        made = close_frame(GOING_AWAY, "ä" * MAX_REASON)
        self.assertEqual(made[1], 2 + MAX_REASON - 1)
        self.assertEqual(made[4:].decode(), "ä" * (MAX_REASON // 2))


class FrameTrackerTests(SynchronousTestCase):
    def test_nothing_has_come(self) -> None:
        self.assertTrue(FrameTracker().between)

    @given(frames, st.integers(1, 40))
    def test_frames_end_where_they_end(self, made: list[bytes], chunk: int) -> None:
        tracker = FrameTracker()
        ends, at = set(), 0
        for each in made:
            at += len(each)
            ends.add(at)
        data = b"".join(made)
        step = max(chunk, len(data) // 50)
        for begin in range(0, len(data), step):
            part = data[begin : begin + step]
            self.assertEqual(tracker.feed(part), len(part))
            self.assertEqual(tracker.between, begin + len(part) in ends)

    @given(frames, st.data())
    def test_no_further_than_to_the_end_of_a_frame(self, made: list[bytes], data: st.DataObject) -> None:
        stream = b"".join(made)
        cut = data.draw(st.integers(1, len(made[0])))
        tracker = FrameTracker()
        tracker.feed(stream[:cut])
        self.assertEqual(tracker.feed(stream[cut:], to_end=True), len(made[0]) - cut)
        self.assertTrue(tracker.between)
        self.assertEqual(tracker.feed(stream, to_end=True), 0)

    def test_a_close_frame_is_seen(self) -> None:
        tracker = FrameTracker()
        tracker.feed(frame(3))
        self.assertFalse(tracker.closed)
        tracker.feed(frame(2, opcode=8))
        self.assertTrue(tracker.closed)
