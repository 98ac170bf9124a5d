"""Tests for L{reverseproxy.routing.mutation}."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.routing import HeaderMutation, Headers, RequestMutation, Rewritten
from reverseproxy.routing.mutation import (
    HeaderStep,
    field_value,
    replace_pattern,
    replace_prefix,
    replace_whole,
)
from reverseproxy.routing.patterns import compile_replacement
from tests.routing.build import facts

OLD: Headers = [(b"Host", b"h"), (b"X-A", b"1"), (b"Accept", b"*/*"), (b"x-a", b"2"), (b"X-Empty", b"")]

NAMES = [b"a", b"b", b"cookie", b"set-cookie"]
fields = st.lists(
    st.tuples(
        st.sampled_from([b"a", b"A", b"b", b"Cookie", b"Set-Cookie", b"other"]),
        st.sampled_from([b"", b"1", b"2"]),
    ),
    max_size=6,
)
steps = st.lists(
    st.builds(
        HeaderStep,
        st.sampled_from(NAMES),
        st.sampled_from([None, b"", b"x", b"y"]),
        st.booleans(),
    ),
    max_size=6,
)


def applied(headers: Headers, *steps: HeaderStep) -> Headers:
    """Headers after some changes."""
    return HeaderMutation(steps).apply(headers, facts())


def values(headers: Headers, name: bytes) -> list[bytes]:
    """All values of a header."""
    return [value for each, value in headers if each.lower() == name]


def expected_values(old: list[bytes], name: bytes, steps: Sequence[HeaderStep]) -> list[bytes]:
    """What the values of one header should become."""
    for step in steps:
        if step.name != name:
            continue
        assert step.value is None or isinstance(step.value, bytes)
        if step.value is None:
            old = []
        elif not old or not step.append:
            old = [step.value]
        elif name == b"set-cookie":
            old = [*old, step.value]
        else:
            old = [(b"; " if name == b"cookie" else b",").join(each for each in [*old, step.value] if each)]
    return old


class FieldValueTests(SynchronousTestCase):
    """L{field_value}."""

    def test_table(self) -> None:
        """Nothing gets out of a header."""
        for text, expected in [
            ("a b", b"a b"),
            ("  a\t", b"a"),
            ("a\tb", b"a\tb"),
            ("\u00e9\udcff", b"\xc3\xa9\xff"),
            ("a\r\nb: c", b"a%0D%0Ab: c"),
            ("\x00\x7f", b"%00%7F"),
            ("\n", b"%0A"),
            ("", b""),
        ]:
            self.assertEqual(field_value(text), expected, text)

    @given(st.binary().map(lambda data: data.decode("utf-8", "surrogateescape")))
    def test_always(self, text: str) -> None:
        """There is no control character but the tab in any value."""
        self.assertNotRegex(field_value(text), rb"[\x00-\x08\x0a-\x1f\x7f]")


class HeaderMutationTests(SynchronousTestCase):
    """L{HeaderMutation}."""

    def test_add(self) -> None:
        """A header that was not there comes last, in lower case."""
        for append in [False, True]:
            self.assertEqual(applied(OLD, HeaderStep(b"x-b", b"3", append)), [*OLD, (b"x-b", b"3")])

    def test_append(self) -> None:
        """With append, the value stands behind the old ones, in the place of the first one."""
        self.assertEqual(
            applied(OLD, HeaderStep(b"x-a", b"3", True)),
            [OLD[0], (b"X-A", b"1,2,3"), OLD[2], OLD[4]],
        )

    def test_appendToNothing(self) -> None:
        """There is no comma where the old or the new value is empty."""
        self.assertEqual(applied(OLD, HeaderStep(b"x-empty", b"3", True))[-1], (b"X-Empty", b"3"))
        self.assertEqual(applied(OLD, HeaderStep(b"accept", b"", True)), OLD)
        self.assertEqual(applied([], HeaderStep(b"a", b"", True)), [(b"a", b"")])

    def test_replace(self) -> None:
        """Without append, all old values go."""
        self.assertEqual(applied(OLD, HeaderStep(b"x-a", b"3")), [OLD[0], (b"X-A", b"3"), OLD[2], OLD[4]])
        self.assertEqual(applied(OLD, HeaderStep(b"accept", b""))[2], (b"Accept", b""))

    def test_remove(self) -> None:
        """All fields of the name go."""
        self.assertEqual(applied(OLD, HeaderStep(b"x-a")), [OLD[0], OLD[2], OLD[4]])
        self.assertEqual(applied(OLD, HeaderStep(b"x-b")), OLD)

    def test_cookies(self) -> None:
        """Cookies are joined as cookies are, and Set-Cookie not at all."""
        headers = [(b"Cookie", b"a=1"), (b"Set-Cookie", b"b=2"), (b"X", b"")]
        self.assertEqual(
            applied(headers, HeaderStep(b"cookie", b"c=3", True), HeaderStep(b"set-cookie", b"d=4", True)),
            [(b"Cookie", b"a=1; c=3"), *headers[1:], (b"set-cookie", b"d=4")],
        )
        self.assertEqual(
            applied([*headers, headers[1]], HeaderStep(b"set-cookie", b"d=4"))[1:],
            [(b"Set-Cookie", b"d=4"), (b"X", b"")],
        )

    def test_order(self) -> None:
        """Later changes see what earlier ones did."""
        add, remove = HeaderStep(b"x-b", b"1", True), HeaderStep(b"x-b")
        self.assertEqual(applied([], add, remove), [])
        self.assertEqual(applied([], remove, add), [(b"x-b", b"1")])
        self.assertEqual(applied([], add, add), [(b"x-b", b"1,1")])

    def test_variable(self) -> None:
        """A variable's value is that of the request; without one it is empty, and replaces what was there."""
        step = HeaderStep(b"x-path", lambda facts: facts.path or None)
        mutation = HeaderMutation([step])
        self.assertEqual(mutation.apply([], facts("/a\r\nb")), [(b"x-path", b"/a%0D%0Ab")])
        self.assertEqual(mutation.apply([(b"X-Path", b"forged")], facts("")), [(b"X-Path", b"")])

    def test_names(self) -> None:
        """It says what may change."""
        mutation = HeaderMutation([HeaderStep(b"a", b"1"), HeaderStep(b"b"), HeaderStep(b"a", b"2")])
        self.assertEqual(mutation.names, {b"a", b"b"})

    @settings(deadline=None)
    @given(fields, steps)
    def test_values(self, headers: Headers, steps: list[HeaderStep]) -> None:
        """The values of every header are what its own changes make of them, one after the other."""
        before = list(headers)
        result = applied(headers, *steps)
        self.assertEqual(headers, before)
        for name in NAMES:
            self.assertEqual(values(result, name), expected_values(values(headers, name), name, steps))

    @settings(deadline=None)
    @given(fields, steps)
    def test_order_is_kept(self, headers: Headers, steps: list[HeaderStep]) -> None:
        """What is not changed stays, in its order and case; what stays is before what is new."""
        touched = {step.name for step in steps}
        result = applied(headers, *steps)
        self.assertEqual(
            [field for field in result if field[0].lower() not in touched],
            [field for field in headers if field[0].lower() not in touched],
        )
        removed = {step.name for step in steps if step.value is None}
        first = list(dict.fromkeys(name.lower() for name, _ in headers if name.lower() not in removed))
        kept = list(dict.fromkeys(name.lower() for name, _ in result if name.lower() not in removed))
        self.assertEqual(kept[: len(first)], first)


class PathRewriteTests(SynchronousTestCase):
    """The kinds of changes to paths."""

    def test_prefix(self) -> None:
        """The prefix is replaced where it is one."""
        for old, new, path, expected in [
            ("/a", "/b", "/a/c", "/b/c"),
            ("/a", "/b", "/ac", "/bc"),
            ("/a", "/b", "/c", None),
            ("/a", "/a", "/a", "/a"),
            ("/", "/b", "/c", "/bc"),
            ("/a", "/", "/a/c", "//c"),
        ]:
            self.assertEqual(replace_prefix(old, new)(path), expected)

    def test_whole(self) -> None:
        """All of it is replaced."""
        self.assertEqual(replace_whole("/b")("/a"), "/b")

    def test_pattern(self) -> None:
        """What is found is replaced; nothing is done where nothing changes."""
        replace, _ = compile_replacement("a+", "b")
        rewrite = replace_pattern(replace)
        for path, expected in [("/aaa/a", "/b/b"), ("/b", None), ("/\udcffa", "/\udcffb")]:
            self.assertEqual(rewrite(path), expected)


class RequestMutationTests(SynchronousTestCase):
    """L{RequestMutation}."""

    def test_target(self) -> None:
        """The path changes and the query does not; the old path is kept in a header."""
        rewrite = RequestMutation(path=replace_prefix("/a", "/b"))
        for target, path, new, original in [
            (b"/a/c", "/a/c", b"/b/c", b"/a/c"),
            (b"/a?x=/a", "/a", b"/b?x=/a", b"/a"),
            (b"/a?", "/a", b"/b?", b"/a"),
            (b"/a?x=%20?y", "/a", b"/b?x=%20?y", b"/a"),
            (b"/%61/%3Fx%20y", "/a/?x y", b"/b/%3Fx%20y", b"/a/?x y"),
            (b"/a/%C3%A9%FF", "/a/\u00e9\udcff", b"/b/%C3%A9%FF", b"/a/\xc3\xa9\xff"),
            (b"/a%0d%0a", "/a\r\n", b"/b%0D%0A", b"/a%0D%0A"),
        ]:
            self.assertEqual(
                rewrite.apply(facts(path), target, b"h", OLD),
                Rewritten(new, b"h", [*OLD, (b"x-mosn-original-path", original)]),
            )

    def test_notRewritten(self) -> None:
        """What is not rewritten stays as it came, escapes and all."""
        rewrite = RequestMutation(path=replace_prefix("/a", "/b"))
        for path, target in [("/c d", b"/c%20d?x"), ("*", b"*"), ("", b"")]:
            self.assertEqual(rewrite.apply(facts(path), target, b"h", OLD), Rewritten(target, b"h", OLD))

    def test_samePath(self) -> None:
        """A prefix that is replaced with itself leaves the target as it is, but for the header."""
        rewrite = RequestMutation(path=replace_prefix("/a", "/a"))
        self.assertEqual(
            rewrite.apply(facts("/a b"), b"/a%20b", b"h", []),
            Rewritten(b"/a%20b", b"h", [(b"x-mosn-original-path", b"/a b")]),
        )

    def test_slash(self) -> None:
        """A target begins with a slash, whatever the path becomes."""
        for new, expected in [("b", b"/b"), ("", b"/"), ("?x", b"/%3Fx"), ("http://x", b"/http://x")]:
            result = RequestMutation(path=replace_whole(new)).apply(facts("/a"), b"/a", b"h", [])
            self.assertEqual(result.target, expected)

    def test_originalPathIsOurs(self) -> None:
        """What a client says of the original path does not stand where we say it."""
        rewrite = RequestMutation(path=replace_prefix("/a", "/b"))
        forged = [(b"X-Mosn-Original-Path", b"/forged"), (b"a", b"1")]
        self.assertEqual(
            rewrite.apply(facts("/a"), b"/a", b"h", forged).headers,
            [(b"a", b"1"), (b"x-mosn-original-path", b"/a")],
        )

    def test_host(self) -> None:
        """The authority is replaced; a fixed one counts rather than that of a header."""
        headers = [(b"X-Host", b"new:80")]
        for mutation, expected in [
            (RequestMutation(host=b"fixed"), b"fixed"),
            (RequestMutation(host=b"fixed", host_header=b"x-host"), b"fixed"),
            (RequestMutation(host_header=b"x-host"), b"new:80"),
            (RequestMutation(host_header=b"x-other"), b"h"),
        ]:
            self.assertEqual(mutation.apply(facts(), b"/", b"h", headers), Rewritten(b"/", expected, headers))

    def test_hostOfHeader(self) -> None:
        """A header that holds no host is ignored; of several the first one counts."""
        mutation = RequestMutation(host_header=b"x-host")
        for value, expected in [
            (b"a", b"a"), (b"[::1]:80", b"[::1]:80"), (b"", b"h"), (b"a b", b"h"), (b"a/b", b"h"),
            (b"a@b", b"h"), (b"\xff", b"h"),
        ]:  # fmt: skip
            headers = [(b"x-host", value), (b"x-host", b"second")]
            self.assertEqual(mutation.apply(facts(), b"/", b"h", headers).host, expected, value)

    def test_everything(self) -> None:
        """Headers change first, then the host that may be in one of them, then the path."""
        mutation = RequestMutation(
            HeaderMutation(
                [
                    HeaderStep(b"x-host", b"new"),
                    HeaderStep(b"x-path", lambda facts: facts.path),
                    HeaderStep(b"x-mosn-original-path"),
                ]
            ),
            replace_prefix("/a", "/b"),
            host_header=b"x-host",
        )
        self.assertEqual(
            mutation.apply(facts("/a"), b"/a", b"h", [(b"x-host", b"old")]),
            Rewritten(
                b"/b", b"new", [(b"x-host", b"new"), (b"x-path", b"/a"), (b"x-mosn-original-path", b"/a")]
            ),
        )

    def test_names(self) -> None:
        """It says what may change."""
        headers = HeaderMutation([HeaderStep(b"a", b"1")])
        self.assertEqual(RequestMutation(headers).names, {b"a"})
        self.assertEqual(RequestMutation(host=b"h").names, frozenset())
        self.assertEqual(RequestMutation(headers, replace_whole("/")).names, {b"a", b"x-mosn-original-path"})

    @settings(deadline=None)
    @given(st.binary(), st.text())
    def test_targetIsSafe(self, path: bytes, new: str) -> None:
        """Whatever path there is or comes, a target has no space or control character, and one query."""
        request = facts("/" + path.decode("utf-8", "surrogateescape"))
        for rewrite in [replace_whole(new), replace_prefix("/", new)]:
            target = RequestMutation(path=rewrite).apply(request, b"/x?q", b"h", []).target
            if target != b"/x?q":
                self.assertRegex(target, rb"\A/[\x21-\x3e\x40-\x7e]*\?q\Z")
