"""The messages of servers at the beginning of a stream."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.errors import WireError
from reverseproxy.fleet.link_frames import HOPS, MAX_FRAME, LinkFrameReader, StreamHeader, frame

AGENT = "0123456789abcdef" * 2

TEXTS = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=100)
HEADERS = st.builds(
    StreamHeader,
    TEXTS.filter(bool),
    st.text("0123456789abcdef", min_size=32, max_size=32),
    TEXTS,
    TEXTS,
    st.integers(1, 1000),
)


def message(**more: Any) -> dict[str, Any]:
    return {"v": 1, "cluster": "c", "agent": AGENT, "hop": 1, **more}


class FrameTests(SynchronousTestCase):
    @settings(max_examples=50)
    @given(HEADERS, st.binary(max_size=200), st.integers(1, 50))
    def test_comes_back_however_it_is_cut(self, header: StreamHeader, rest: bytes, size: int) -> None:
        data = header.encode() + rest
        reader = LinkFrameReader()
        found = None
        while data and found is None:
            reader.feed(data[:size])
            data = data[size:]
            found = reader.next()
        assert found is not None
        self.assertEqual(StreamHeader.decode(found), header)
        self.assertEqual(reader.rest() + data, rest)
        self.assertEqual(reader.rest(), b"")

    def test_too_long(self) -> None:
        reader = LinkFrameReader()
        reader.feed((MAX_FRAME + 1).to_bytes(2, "big"))
        self.assertIn("8193 bytes", str(self.assertRaises(WireError, reader.next)))
        self.assertRaises(WireError, frame, {"cluster": "x" * MAX_FRAME})

    def test_no_object(self) -> None:
        for body in (b"[]", b"nonsense", b"\xff\xfe", b"[" * 5000, b""):
            reader = LinkFrameReader()
            reader.feed(len(body).to_bytes(2, "big") + body)
            self.assertRaises(WireError, reader.next)

    def test_keeps_no_more_than_a_frame(self) -> None:
        reader = LinkFrameReader()
        reader.feed(MAX_FRAME.to_bytes(2, "big"))
        for _ in range(MAX_FRAME - 1):
            reader.feed(b" ")
            self.assertIsNone(reader.next())


class HeaderTests(SynchronousTestCase):
    def test_bad_fields(self) -> None:
        for bad, name in (
            (message(v=2), "version"),
            (message(v=None), "version"),
            (message(hop=0), "hop"),
            (message(hop="1"), "hop"),
            (message(hop=True), "hop"),
            (message(agent=""), "agent"),
            (message(agent="x" * 32), "agent"),
            (message(agent=7), "agent"),
            (message(cluster=""), "cluster"),
            (message(cluster="x" * 513), "cluster"),
            (message(cluster="a\nb"), "cluster"),
            (message(client=["1.2.3.4"]), "client"),
            (message(protocol={}), "protocol"),
        ):
            error = self.assertRaises(WireError, StreamHeader.decode, bad)
            self.assertIn(name, str(error))

    def test_what_is_not_known_is_left_alone(self) -> None:
        self.assertEqual(StreamHeader.decode(message(later=1)), StreamHeader("c", AGENT))

    def test_is_served_once(self) -> None:
        self.assertTrue(StreamHeader("c", AGENT).may_be_served)
        self.assertFalse(StreamHeader("c", AGENT, hop=HOPS + 1).may_be_served)
