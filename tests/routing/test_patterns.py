"""Tests for L{reverseproxy.routing.patterns}."""

from __future__ import annotations

import re
import time

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.routing.patterns import PatternError, compile_replacement, compile_search


def replaced(pattern: str, substitution: str, text: str) -> str:
    """What becomes of a text."""
    replace, missing = compile_replacement(pattern, substitution)
    assert missing == [], missing
    return replace(text.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")


class SearchTests(SynchronousTestCase):
    """L{compile_search}."""

    def test_found(self) -> None:
        """It is found anywhere, unless the pattern says where."""
        for pattern, text, expected in [
            ("b", "abc", True),
            ("^b", "abc", False),
            ("\u00e9", "\u00e9", True),
            ("^.$", "\udcff", True),
            ("", "", True),
        ]:
            self.assertEqual(compile_search(pattern)(text), expected, (pattern, text))

    def test_refused(self) -> None:
        """What RE2 does not take has a reason."""
        for pattern in ["(", "a{2,1}", "(?=a)", r"\1", "\ud800("]:
            error = self.assertRaises(PatternError, compile_search, pattern)
            self.assertNotEqual(str(error), "")
            self.assertRaises(PatternError, compile_replacement, pattern, "")


class ReplacementTests(SynchronousTestCase):
    """L{compile_replacement}: what Go's C{ReplaceAllString} does."""

    def test_matches(self) -> None:
        """All matches are replaced, empty ones where Go does that."""
        for pattern, substitution, text, expected in [
            ("a", "b", "", ""),
            ("a", "b", "c", "c"),
            ("a", "bb", "aca", "bbcbb"),
            ("", "-", "", "-"),
            ("", "-", "ab", "-a-b-"),
            ("", "-", "\u00e9b", "-\u00e9-b-"),
            # no empty match right behind another match
            ("a*", "x", "baaac", "xbxcx"),
            ("a*", "x", "aaa", "x"),
            ("b*", "-", "abc", "-a-c-"),
            ("^", "x", "ab", "xab"),
            ("$", "x", "ab", "abx"),
            ("^a", "x", "aaa", "xaa"),
            ("a|ab", "x", "abab", "xbxb"),
            (".", "x", "a\udcffb", "x\udcffx"),
            (".*", "/", "/a/b", "/"),
            ("(?i)A", "x", "aA", "xx"),
            ("^/api/v[0-9]+/(.*)$", "/$1", "/api/v2/users/7", "/users/7"),
        ]:
            self.assertEqual(replaced(pattern, substitution, text), expected, (pattern, text))

    def test_template(self) -> None:
        """Groups by number and by name, and what is none."""
        pattern = "(?P<first>a)(b)?"
        for substitution, expected in [
            ("$1", "a"),
            ("$0$0", "abab"),
            ("[${1}2]", "[a2]"),
            ("${first}", "a"),
            ("$first-", "a-"),
            ("$2$1", "ba"),
            ("$$1", "$1"),
            ("$$$1", "$a"),
            # these are no references
            ("$", "$"),
            ("$-", "$-"),
            ("${1", "${1"),
            ("${}", "${}"),
            ("${first!}", "${first!}"),
            ("a$", "a$"),
            (r"\1", r"\1"),
        ]:
            self.assertEqual(replaced(pattern, substitution, "ab"), expected, substitution)

    def test_groupWithoutMatch(self) -> None:
        """A group that has no part in a match is empty."""
        self.assertEqual(replaced("a(b)?", "<$1>", "aab"), "<><b>")

    def test_missing(self) -> None:
        """A group that does not exist is empty, and named."""
        for substitution, names in [
            ("<$1x>", ["1x"]),
            ("<$3>", ["3"]),
            ("<${third}>", ["third"]),
            ("<$01>", ["01"]),
            ("<$999999999>", ["999999999"]),
            ("<$x$y>", ["x", "y"]),
        ]:
            replace, missing = compile_replacement("(?P<first>a)(b)?", substitution)
            self.assertEqual((replace(b"ab"), missing), (b"<>", names))

    def test_unicodeName(self) -> None:
        """Names are not only ASCII."""
        self.assertEqual(replaced("(?P<\u00e9>a)", "<${\u00e9}>", "a"), "<a>")

    def test_linear(self) -> None:
        """A pattern that hangs backtracking engines takes no time."""
        replace, _ = compile_replacement("^/(a*)*(a*)*(a|aa)+$", "$1")
        text = b"/" + b"a" * 20000 + b"!"
        start = time.perf_counter()
        self.assertEqual(replace(text), text)
        self.assertLess(time.perf_counter() - start, 5.0)

    @settings(deadline=None)
    @given(st.sampled_from(["a", "b+", "ab", "[ab]", "(a)(b)", "a?b"]), st.text("abc/\u00e9"))
    def test_likePython(self, pattern: str, text: str) -> None:
        """Where Python and Go agree, so do we."""
        self.assertEqual(replaced(pattern, "<$0>", text), re.sub(pattern, r"<\g<0>>", text))

    @settings(deadline=None)
    @given(st.text(), st.binary())
    def test_anyText(self, substitution: str, text: bytes) -> None:
        """No substitution and no text makes it raise; what does not match stays."""
        replace, _ = compile_replacement("(x)(y)?", substitution)
        result = replace(text)
        if b"x" not in text:
            self.assertEqual(result, text)
