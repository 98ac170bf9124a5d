from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.flame import shorten
from benchmarks.hotspots import summarize


class SummarizeTests(SynchronousTestCase):
    """L{summarize} tells a function's own samples from those of what it calls."""

    def test_ownAndCumulative(self) -> None:
        stacks = "main (a/b/run.py);send (x/y/z/net.py) 3\nmain (a/b/run.py) 1\n"
        lines = summarize(stacks, 10).splitlines()
        self.assertEqual(lines[0], "4 samples")
        self.assertEqual(lines[2].split(), ["75.0", "75.0", "send", "(y/z/net.py)"])
        self.assertEqual(lines[3].split(), ["25.0", "100.0", "main", "(a/b/run.py)"])

    def test_recursionCountsOnce(self) -> None:
        lines = summarize("f (f.py);f (f.py) 2\n", 10).splitlines()
        self.assertEqual(lines[2].split()[:2], ["100.0", "100.0"])

    def test_shortenKeepsWhatHasNoPlace(self) -> None:
        self.assertEqual(shorten("<module>"), "<module>")
