"""Tests for L{reverseproxy.wire.http2.late}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.wire.http2.late import LATE_FRAMES, ResetStreams


class ResetStreamTests(SynchronousTestCase):
    def test_what_was_under_way(self) -> None:
        resets = ResetStreams(4)
        resets.remember(1, 10)
        self.assertEqual([resets.expects(1, size) for size in (4, 7, 6, 1)], [True, False, True, False])
        self.assertEqual([resets.expects(1) for _ in range(LATE_FRAMES + 1)], [*[True] * LATE_FRAMES, False])
        self.assertFalse(resets.expects(3, 1) or resets.expects(3))
        self.assertIn(1, resets)
        self.assertNotIn(3, resets)

    def test_the_oldest_are_forgotten(self) -> None:
        resets = ResetStreams(4)
        for number in range(1, 20, 2):
            resets.remember(number, 1)
        self.assertEqual(len(resets), 4)
        self.assertEqual(
            [number in resets for number in (1, 11, 13, 19, 21)], [True, True, True, True, False]
        )
        self.assertEqual([resets.expects(number) for number in (11, 13)], [False, True])
