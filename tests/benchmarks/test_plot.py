from __future__ import annotations

import math
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from benchmarks.plot import Bar, bars, lines, nice_ticks, short

SVG = "{http://www.w3.org/2000/svg}"


class ShortTests(SynchronousTestCase):
    """L{short} writes numbers in little room."""

    def test_examples(self) -> None:
        self.assertEqual(
            [short(each) for each in (0, 7, 0.25, 12.4, 1000, 22_618, 166_434, 2_500_000, 1e9)],
            ["0", "7", "0.25", "12", "1k", "22.6k", "166k", "2.5M", "1G"],
        )


class NiceTicksTests(SynchronousTestCase):
    """L{nice_ticks} are round numbers that span what is shown."""

    def test_example(self) -> None:
        self.assertEqual(nice_ticks(0, 43_000), [0, 10_000, 20_000, 30_000, 40_000, 50_000])

    def test_nothing(self) -> None:
        self.assertEqual(nice_ticks(0, 0)[0], 0)

    @given(st.floats(0, 1e6), st.floats(1e-3, 1e9))
    def test_span(self, low: float, size: float) -> None:
        ticks = nice_ticks(low, low + size)
        self.assertLessEqual(ticks[0], low * (1 + 1e-9))
        self.assertGreaterEqual(ticks[-1], (low + size) * (1 - 1e-9))
        self.assertLessEqual(len(ticks), 9)


class BarsTests(SynchronousTestCase):
    """L{bars} are as long as their values, and escape what is not ours."""

    def test_lengthsAndColors(self) -> None:
        root = ElementTree.fromstring(
            bars("a < b", [Bar("one", 1.0, good=True), Bar("two", 2.0, "<2>", 1.5, False)])
        )
        _, first, second = root.findall(f"{SVG}rect")
        self.assertAlmostEqual(float(second.get("width", "")), 2 * float(first.get("width", "")), 1)
        self.assertNotEqual(first.get("fill"), second.get("fill"))
        texts = [each.text for each in root.findall(f"{SVG}text")]
        self.assertEqual((texts[0], texts[-1]), ("a < b", "<2>"))
        [mark] = root.findall(f"{SVG}line")
        begin = float(second.get("x", ""))
        middle = begin + float(second.get("width", "")) * 0.75
        self.assertAlmostEqual(float(mark.get("x1", "")), middle, 0)

    def test_nothing(self) -> None:
        ElementTree.fromstring(bars("empty", []))


class LinesTests(SynchronousTestCase):
    """L{lines} go through the points."""

    def points(self, text: str) -> list[list[tuple[float, float]]]:
        root = ElementTree.fromstring(text)
        return [
            [(float(x), float(y)) for x, y in (pair.split(",") for pair in each.get("points", "").split())]
            for each in root.findall(f"{SVG}polyline")
        ]

    def test_logarithmic(self) -> None:
        [points] = self.points(lines("t", "x", "y", {"a": [(1, 0), (10, 5), (100, 10)]}))
        self.assertAlmostEqual(points[1][0] - points[0][0], points[2][0] - points[1][0], 0)
        # up is less
        self.assertTrue(points[0][1] > points[1][1] > points[2][1])

    def test_linear(self) -> None:
        [points] = self.points(lines("t", "x", "y", {"a": [(0, 1), (1, 1), (4, 1)]}, log_x=False))
        self.assertAlmostEqual(points[2][0] - points[1][0], 3 * (points[1][0] - points[0][0]), 0)

    def test_onePointAndNone(self) -> None:
        [[point]] = self.points(lines("t", "x", "y", {"a": [(5, 3)]}))
        self.assertTrue(all(math.isfinite(each) for each in point))
        self.assertEqual(self.points(lines("t", "x", "y", {})), [])
