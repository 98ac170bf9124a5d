from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.config.durations import format_duration, parse_duration, without_unit

WRITE = 'write a Go duration such as "8s" or "300ms"'


class ParseTests(SynchronousTestCase):
    def test_values(self) -> None:
        for text, seconds in {
            "0": 0.0,
            "+0": 0.0,
            "-0": 0.0,
            "0s": 0.0,
            "8s": 8.0,
            "+8s": 8.0,
            "-1s": -1.0,
            "300ms": 0.3,
            "1.5s": 1.5,
            ".5s": 0.5,
            "1.s": 1.0,
            "1h30m": 5400.0,
            "1h1m1s1ms1us1ns": 3661.001001001,
            "-1m30s": -90.0,
            "100us": 1e-4,
            "100\u00b5s": 1e-4,
            "100\u03bcs": 1e-4,
            "15ns": 15e-9,
            "1s1s": 2.0,
            "0.3333333333333333333h": 1200.0,
            "2540400h": 2540400 * 3600.0,
        }.items():
            self.assertEqual(parse_duration(text), seconds, text)

    def test_errors(self) -> None:
        for text, problem in {
            "": f'"" is not a duration; {WRITE}',
            "-": f'"-" is not a duration; {WRITE}',
            "s": f'"s" is not a duration; {WRITE}',
            ".s": f'".s" is not a duration; {WRITE}',
            "forever": f'"forever" is not a duration; {WRITE}',
            " 8s": f'" 8s" is not a duration; {WRITE}',
            "--1s": f'"--1s" is not a duration; {WRITE}',
            "8": '"8" has no unit; write "8s" if it counts seconds, "8ms" if milliseconds',
            "1.5": '"1.5" has no unit; write "1.5s" if it counts seconds, "1.5ms" if milliseconds',
            "3000": '"3000" has no unit; if it counts milliseconds, write "3000ms"',
            "1h30": f'"1h30" has a number without a unit; {WRITE}',
            "-8": f'"-8" has a number without a unit; {WRITE}',
            "9" * 400: f'"{"9" * 79}\u2026" has a number without a unit; {WRITE}',
            "9" * 5000 + "s": f'"{"9" * 79}\u2026" is too long; the longest duration is about 292 years',
            "8S": '"8S" has the unknown unit "S"; the units are ns, us, ms, s, m or h',
            "8 s": '"8 s" has the unknown unit " s"; the units are ns, us, ms, s, m or h',
            "1d": '"1d" has the unknown unit "d"; the units are ns, us, ms, s, m or h',
            "1e3s": '"1e3s" has the unknown unit "e"; the units are ns, us, ms, s, m or h',
            "2562048h": '"2562048h" is too long; the longest duration is about 292 years',
        }.items():
            with self.assertRaises(ValueError) as caught:
                parse_duration(text)
            self.assertEqual(str(caught.exception), problem)

    def test_without_unit(self) -> None:
        """What is suggested is what whoever writes such a number means."""
        for number, hint in {
            1: 'write "1s" if it counts seconds, "1ms" if milliseconds',
            90.5: 'write "90.5s" if it counts seconds, "90.5ms" if milliseconds',
            999: 'write "999s" if it counts seconds, "999ms" if milliseconds',
            1000: 'if it counts milliseconds, write "1000ms"',
            3000: 'if it counts milliseconds, write "3000ms"',
            9_999_999: 'if it counts milliseconds, write "9999999ms"',
            10_000_000: 'if it counts nanoseconds, write "10ms"',
            3_000_000_000: 'if it counts nanoseconds, write "3s"',
            2**63 - 1024: 'if it counts nanoseconds, write "2562047h47m16.854774s"',
            2**63: WRITE,
            10**400: WRITE,
            float("inf"): WRITE,
            -3000: WRITE,
            0.0: WRITE,
        }.items():
            self.assertEqual(without_unit(number), f"has no unit; {hint}")

    def test_longest(self) -> None:
        """Go's durations have 64 bits, of which one is the sign."""
        parse_duration("9223372036854775807ns")
        parse_duration("-9223372036854775808ns")
        for text in ("9223372036854775808ns", "-9223372036854775809ns"):
            with self.assertRaises(ValueError):
                parse_duration(text)

    @given(st.text(alphabet="0123456789.-+hmsnu\u00b5 x", max_size=12))
    def test_never_crashes(self, text: str) -> None:
        try:
            parse_duration(text)
        except ValueError as error:
            self.assertIn(text, str(error))


class FormatTests(SynchronousTestCase):
    def test_as_go(self) -> None:
        for seconds, text in {
            0.0: "0s",
            8.0: "8s",
            1.5: "1.5s",
            0.3: "300ms",
            0.0015: "1.5ms",
            1e-4: "100us",
            15e-9: "15ns",
            90.0: "1m30s",
            5400.0: "1h30m0s",
            3600.0: "1h0m0s",
            -90.5: "-1m30.5s",
        }.items():
            self.assertEqual(format_duration(seconds), text)

    @given(st.integers(min_value=-(2**62), max_value=2**62))
    def test_round_trip(self, nanoseconds: int) -> None:
        seconds = nanoseconds / 10**9
        self.assertEqual(parse_duration(format_duration(seconds)), seconds)

    @given(
        st.lists(
            st.tuples(st.integers(0, 999), st.sampled_from(["h", "m", "s", "ms", "us", "ns"])),
            min_size=1,
            max_size=6,
        )
    )
    def test_sums(self, parts: list[tuple[int, str]]) -> None:
        """A sum is the sum of its parts, and is written as one."""
        text = "".join(f"{number}{unit}" for number, unit in parts)
        total = sum(round(parse_duration(f"{number}{unit}") * 10**9) for number, unit in parts)
        self.assertEqual(parse_duration(text), total / 10**9)
        self.assertEqual(parse_duration(format_duration(total / 10**9)), total / 10**9)
