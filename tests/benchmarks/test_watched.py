from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.turns import Meter, share_above
from benchmarks.watched import OFF, OPEN, OPENING, ROUND, Window, judge


class JudgeTests(SynchronousTestCase):
    def test_windows_are_compared_with_those_beside_them(self) -> None:
        """A machine that becomes slower in the second round changes no ratio."""
        windows = []
        for slow in (1, 3):
            times = dict(zip(ROUND[:3], (0.001, 0.002, 0.00105), strict=True))
            windows += [Window(kind, slow * times[kind], 0.1, 0.001, 0.0) for kind in ROUND]
        found = judge(windows)
        self.assertEqual(found["ratio"], {OPENING: 2.0, OPEN: 1.05})
        self.assertEqual(found["noise"], 0)
        self.assertEqual(found["windows"][OFF]["p99_ms"], 2.0)

    def test_noise_is_how_much_the_windows_without_differ(self) -> None:
        windows = [Window(kind, p99, 0.1, 0.001, 0.0) for kind, p99 in zip(ROUND, (1, 1, 1, 3), strict=True)]
        found = judge(windows)
        self.assertEqual((found["noise"], found["ratio"][OPEN]), (1.0, 0.5))


class MeterTests(SynchronousTestCase):
    def test_turns(self) -> None:
        """What happens between two waits counts, and waiting does not."""
        now = iter((0, 40_000, 1_000_000, 1_250_000, 9_000_000))

        class Poller:
            def poll(self, timeout: float) -> list[float]:
                return [timeout]

        meter = Meter(Poller(), lambda: next(now))
        self.assertEqual([meter.poll(1.0) for _ in range(3)], [[1.0]] * 3)
        found = meter.take()
        self.assertEqual(found["turns"], {"50": 1, "300": 1})
        self.assertEqual(found["longest"], 0.00025)
        self.assertEqual(share_above(found, 200), 0.5)
        self.assertEqual(meter.take()["turns"], {})

    def test_collections(self) -> None:
        now = iter((1_000, 5_001_000))
        meter = Meter(None, lambda: next(now))
        for generation in (0, 2):
            for phase in ("start", "stop"):
                meter.collected(phase, {"generation": generation})
        self.assertEqual(meter.take()["collections"], [0.005])
