"""Tests for L{reverseproxy.admin.encoding}: JSON in short steps."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.admin import encoding
from reverseproxy.admin.encoding import PORTION, encode
from reverseproxy.admin.slices import at_once
from tests import most

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.text(max_size=5), inner, max_size=9),
    max_leaves=60,
)


class EncodingTests(SynchronousTestCase):
    @given(VALUES, st.integers(1, 60), st.integers(0, 5))
    @settings(max_examples=most(100), deadline=None)
    def test_any_value(self, value: Any, portion: int, long: int) -> None:
        for name, number in (
            ("PORTION", portion),
            ("LONG", long),
            ("LONG_NUMBERS", long),
            ("LONG_TEXT", long),
        ):
            self.patch(encoding, name, number)
        text = b"".join(at_once(encode(value)))
        self.assertEqual(text.decode(), json.dumps(value, separators=(",", ":")))

    def test_long_values_are_encoded_in_many_steps(self) -> None:
        agent = {"id": "0" * 16, "times": [0] * 70, "bytes": {"received": 1, "sent": 2}, "clusters": ["a"]}
        for value in (
            {"agents": [agent] * 500, "last": None},
            [{"name": "x", "samples": [[["a", "b"], number] for number in range(10_000)]}],
            list(range(50_000)),
            {str(number): {"connections": number} for number in range(10_000)},
            {"text": ["x" * 2000] * 1000},
            {"one": ["x" * 10_000] * 100},
        ):
            steps = encode(value)
            number = 0
            pieces: list[bytes] = []
            while True:
                try:
                    next(steps)
                except StopIteration as done:
                    pieces = done.value
                    break
                number += 1
            longest = max(map(len, pieces))
            size = len(json.dumps(value))
            self.assertGreaterEqual(number, size // (3 * PORTION))
            self.assertLess(longest, 3 * PORTION, str(value)[:50])
            self.assertEqual(json.loads(b"".join(pieces)), value)
