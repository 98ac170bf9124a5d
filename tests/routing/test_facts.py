"""Tests for L{reverseproxy.routing.facts}."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.routing.facts import RouteInput, normalize_path, split_host


class RpcTests(SynchronousTestCase):
    """L{RouteInput.of_rpc}."""

    def test_headersOnly(self) -> None:
        """There is nothing but headers and variables."""
        headers, variables = {"service": "a"}.get, {"b": "c"}.get
        self.assertEqual(
            RouteInput.of_rpc(headers, "bolt", variables),
            RouteInput("", "", "", "", headers, "", "bolt", variables),
        )
        self.assertIsNone(RouteInput.of_rpc(headers, "bolt").variables)


class SplitHostTests(SynchronousTestCase):
    """L{split_host}."""

    def test_table(self) -> None:
        """It splits as Go does, except that the port may be missing."""
        for text, expected in [
            ("", ("", "")),
            ("a", ("a", "")),
            ("a:", ("a", "")),
            ("a:80", ("a", "80")),
            (":80", ("", "80")),
            ("a:*", ("a", "*")),
            ("[::1]", ("[::1]", "")),
            ("[::1]x", ("[::1]x", "")),
            ("[::1]:80", ("::1", "80")),
            ("[::1]:", ("::1", "")),
            ("::1", None),
            ("a:b:80", None),
            ("[::1", None),
            ("[::1]:80:90", None),
            ("[a[b]:80", None),
            ("[a]:8]0", None),
            ("a]:80", None),
            ("a[:80", None),
            ("a:[80", None),
        ]:
            self.assertEqual(split_host(text), expected, text)

    @settings(deadline=None)
    @given(st.text("a:[].*8"))
    def test_never_raises(self, text: str) -> None:
        """Any text gives a pair or None, and a pair says nothing that was not there."""
        split = split_host(text)
        if split is not None:
            host, port = split
            self.assertIn(host, text)
            self.assertTrue(text.endswith(port))


class NormalizePathTests(SynchronousTestCase):
    """L{normalize_path}."""

    def test_table(self) -> None:
        """Escapes are decoded, slashes joined, dots resolved."""
        for target, expected in [
            ("/", "/"),
            ("", ""),
            ("*", "*"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("a", "/a"),
            ("//a///b//", "/a/b/"),
            ("/./a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/..", "/"),
            ("/../../a", "/a"),
            ("/a/..b/.c", "/a/..b/.c"),
            ("/%61dmin", "/admin"),
            ("/x/%2e%2E/admin", "/admin"),
            ("/x%2f..%2Fadmin", "/admin"),
            ("/a%20b", "/a b"),
            ("/100%", "/100%"),
            ("/%zz", "/%zz"),
            ("/%C3%A9", "/é"),
            ("/%ff", "/\udcff"),
            ("/%252e", "/%2e"),
            ("/a+b", "/a+b"),
        ]:
            self.assertEqual(normalize_path(target), expected, target)

    @settings(deadline=None)
    @given(st.text("/.a%2eEfF5c").map(lambda text: "/" + text))
    def test_normal(self, target: str) -> None:
        """The result has no empty, C{.} or C{..} segments, and stays below the root."""
        result = normalize_path(target)
        self.assertEqual(result[0], "/")
        segments = result[1:].split("/")
        if segments[-1] == "":
            segments.pop()
        self.assertFalse({"", ".", ".."} & set(segments), result)

    @settings(deadline=None)
    @given(st.lists(st.text("ab.", min_size=1).filter(lambda text: text.strip(".")), max_size=5))
    def test_unchanged(self, segments: list[str]) -> None:
        """A path in normal form stays as it is."""
        path = "/" + "/".join(segments)
        self.assertEqual(normalize_path(path), path)
