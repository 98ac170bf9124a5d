"""Tests for L{reverseproxy.wire.mosn.gojson}."""

from __future__ import annotations

import json
import math
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.wire.mosn.gojson import (
    MAX_DEPTH,
    as_int64,
    as_object,
    as_string,
    as_strings,
    dumps,
    fold,
    quote,
    read_members,
)


class QuoteTests(SynchronousTestCase):
    """Each expectation is what Go's C{json.Marshal} writes."""

    TABLE = (
        ("", '""'),
        ("plain", '"plain"'),
        ("<a&b>", '"\\u003ca\\u0026b\\u003e"'),
        ('quote " and \\ backslash', '"quote \\" and \\\\ backslash"'),
        ("\b\f\n\r\t", '"\\b\\f\\n\\r\\t"'),
        ("\x00\x01\x0b\x1f", '"\\u0000\\u0001\\u000b\\u001f"'),
        ("\x7f\x80", '"\x7f\x80"'),
        ("\u2027\u2028\u2029\u202a", '"\u2027\\u2028\\u2029\u202a"'),
        ("/'", '"/\'"'),
        ("\u00e9\u65e5\U0001f600", '"\u00e9\u65e5\U0001f600"'),
        ("\ud800x\udfff", '"\\ufffdx\\ufffd"'),
        ("\ufffd", '"\ufffd"'),
    )

    def test_as_go(self) -> None:
        for text, expected in self.TABLE:
            self.assertEqual(quote(text), expected, repr(text))

    @given(st.text())
    def test_reads_back(self, text: str) -> None:
        self.assertEqual(json.loads(quote(text)), text)


class DumpsTests(SynchronousTestCase):
    """Each expectation is what Go's C{json.Marshal} writes."""

    NUMBERS = (
        (0.0, "0"),
        (-0.0, "-0"),
        (1.0, "1"),
        (-1.5, "-1.5"),
        (0.1, "0.1"),
        (100.0, "100"),
        (123456789012345680000.0, "123456789012345680000"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (1.5e21, "1.5e+21"),
        (1e-6, "0.000001"),
        (1.25e-6, "0.00000125"),
        (1e-7, "1e-7"),
        (1.25e-7, "1.25e-7"),
        (-1e-7, "-1e-7"),
        (123456.789e3, "123456789"),
        (5e-324, "5e-324"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
    )

    def test_floats(self) -> None:
        for number, expected in self.NUMBERS:
            self.assertEqual(dumps(number), expected)

    @given(st.floats(allow_nan=False, allow_infinity=False))
    def test_floats_read_back(self, number: float) -> None:
        text = dumps(number)
        self.assertEqual(float(text), number)
        self.assertEqual(math.copysign(1, float(text)), math.copysign(1, number))

    def test_values(self) -> None:
        value = {"b": [1, None, True, False, "x<"], "a": {}, "c": [], "d": (), "aa": {"z": 2, "y": -(2**70)}}
        self.assertEqual(
            dumps(value),
            '{"a":{},"aa":{"y":-1180591620717411303424,"z":2},"b":[1,null,true,false,"x\\u003c"],"c":[],"d":[]}',
        )

    def test_what_json_has_not(self) -> None:
        for number in (math.nan, math.inf, -math.inf):
            self.assertRaisesRegex(ValueError, "no way to write", dumps, {"a": number})
        for value in (b"bytes", {1: 2}, {"a": {3}}, object()):
            self.assertRaises(TypeError, dumps, value)

    def test_depth(self) -> None:
        value: Any = 0
        for _ in range(MAX_DEPTH):
            value = [value]
        self.assertEqual(dumps(value), "[" * MAX_DEPTH + "0" + "]" * MAX_DEPTH)
        self.assertRaisesRegex(ValueError, "nested 64 deep", dumps, {"a": value})

    def test_a_cycle_ends(self) -> None:
        cycle: list[Any] = []
        cycle.append(cycle)
        self.assertRaises(ValueError, dumps, cycle)


class FoldTests(SynchronousTestCase):
    def test_simple_case_folding(self) -> None:
        self.assertEqual(fold("HOST_Name"), "host_name")
        self.assertEqual(fold("ho\u017ft_name \u212a"), "host_name k")

    def test_nothing_beyond_it(self) -> None:
        # Full case folding and lower-casing would change these.
        for name in ("addre\u00dfes", "\u0130", "\u00c9", "\u0391"):
            self.assertEqual(fold(name), name)


class ReadTests(SynchronousTestCase):
    def refuses(self, payload: bytes, pattern: str) -> None:
        self.assertRaisesRegex(ValueError, pattern, read_members, payload)

    def test_nesting_up_to_the_bound(self) -> None:
        inner = MAX_DEPTH - 1
        read_members(b'{"a":' + b"[" * inner + b"]" * inner + b"}")
        read_members(b'{"a":"' + b"[{" * 1000 + b'"}')
        read_members(b'{"a":"\\"' + b"[{" * 1000 + b'"}')
        read_members(b'{"a":[' + b"[]," * 1000 + b"{}]}")

    def test_nesting_beyond_the_bound(self) -> None:
        for opener in (b"[", b'{"x":'):
            self.refuses(b'{"a":' + opener * MAX_DEPTH, "at most 64 nested")
        self.refuses(b'{"a":' + b"[" * 60000, "at most 64 nested")

    def test_deep_nesting_is_found_in_linear_time(self) -> None:
        for filler in (b'\\"', b'"', b"\\", b'"\\'):
            self.refuses(b"[" * 65 + (b'{"a":"' + filler * 30000)[:60000], "nested")
        self.refuses(b'"' + b'\\"[' * 20000 + b"\\", "expected JSON")

    def test_the_place_is_told_and_the_payload_is_not(self) -> None:
        self.refuses(b'{"credential":"sec\nret"}', r"at byte 18 0a \(hex\): invalid control character")
        self.refuses('{"\u00e9":x}'.encode(), r"at byte 6 78 \(hex\)")
        self.refuses(b'{"a":1', "at byte 6 its end")
        for payload in (b'{"credential":"secret', b'{"credential":"secret"x', b'"secret"'):
            with self.assertRaises(ValueError) as caught:
                read_members(payload)
            self.assertNotIn("secret", str(caught.exception))

    def test_a_long_literal_is_cut(self) -> None:
        self.refuses(b"1" * 60000, r"a JSON object, got the number 1{24}\.\.\.$")

    def test_null_has_no_type(self) -> None:
        for take in (as_int64, as_string, as_strings, as_object):
            self.assertRaisesRegex(ValueError, "got null", take, None)

    def test_big_numbers_in_free_form(self) -> None:
        members = read_members(b'{"a":' + b"9" * 300 + b',"b":1e300,"c":-0}')
        self.assertEqual(as_object(members), {"a": int("9" * 300), "b": 1e300, "c": 0})
        for literal in (b"9" * 60000, b"1e400", b"-1e400"):
            self.assertRaisesRegex(
                ValueError, "a number of 64 bits", as_object, read_members(b'{"a":[' + literal + b"]}")
            )

    @settings(deadline=None)
    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers(-(10**300), 10**300) | st.text(),
            lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
            max_leaves=20,
        )
    )
    def test_reads_what_it_wrote(self, value: Any) -> None:
        self.assertEqual(as_object(read_members(dumps({"k": value}).encode()))["k"], value)

    @settings(deadline=None)
    @given(
        st.binary(max_size=200)
        | st.text(alphabet='{}[]",:\\0123456789eE+-.truefalsn \n\u00e9\ud800').map(
            lambda text: text.encode("utf-8", "surrogatepass")
        )
    )
    def test_anything_gives_members_or_value_error(self, payload: bytes) -> None:
        try:
            members = read_members(payload)
        except ValueError:
            return
        for key, _value in members:
            key.encode("utf-8")
