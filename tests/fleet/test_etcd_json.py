"""The JSON of etcd's gateway: requests are as expected, and malformed responses are errors."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.fleet.etcd_json import (
    EtcdError,
    LineReader,
    error_of,
    number_of,
    range_body,
    read_json,
    read_range,
    read_watch,
    transaction_body,
    watch_body,
)


def text(data: bytes) -> str:
    """As the gateway has bytes."""
    return b64encode(data).decode()


NAMES = st.sampled_from(
    [
        "header",
        "revision",
        "kvs",
        "kv",
        "key",
        "value",
        "result",
        "events",
        "type",
        "mod_revision",
        "lease",
        "error",
        "message",
        "code",
        "grpc_code",
        "created",
        "canceled",
        "compact_revision",
        "fragment",
        "more",
    ]
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("DELETE"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=15,
)


class AskedTests(SynchronousTestCase):
    """What goes out."""

    def test_range(self) -> None:
        self.assertEqual(
            range_body("/a/", 5),
            {"key": text(b"/a/"), "range_end": text(b"/a0"), "limit": "5", "revision": "0"},
        )
        self.assertEqual(range_body("/a/", 5, "/a/é", 7)["key"], text("/a/é\0".encode()))

    def test_transaction(self) -> None:
        body = transaction_body([("/a", b"1")], ["/b"], 7, ["/c"])
        self.assertEqual(
            body["success"],
            [
                {"request_put": {"key": text(b"/a"), "value": text(b"1"), "lease": "7"}},
                {"request_delete_range": {"key": text(b"/b")}},
            ],
        )
        self.assertEqual(body["compare"][0]["key"], text(b"/c"))
        self.assertNotIn("compare", transaction_body([], []))

    def test_watch(self) -> None:
        self.assertEqual(watch_body("/a/", 9)["create_request"]["start_revision"], "9")


class AnsweredTests(SynchronousTestCase):
    """What comes in."""

    def test_watch(self) -> None:
        kv = {"key": text(b"/a"), "value": text(b"1"), "mod_revision": "8", "create_revision": "7"}
        events = [{"kv": kv}, {"type": "DELETE", "kv": {"key": text(b"/b"), "mod_revision": "9"}}]
        found = read_watch({"result": {"header": {"revision": "9"}, "events": events, "fragment": True}})
        self.assertEqual([each.key for each in found.events], ["/a", "/b"])
        self.assertEqual([each.value for each in found.events], [b"1", None])
        self.assertEqual((found.revision, found.fragment, found.events[0].created), (9, True, 7))

    def test_compacted(self) -> None:
        found = read_watch({"result": {"header": {}, "canceled": True, "compact_revision": "3"}})
        self.assertEqual((found.compacted, found.canceled), (3, "etcd has cancelled the watch"))

    def test_errors(self) -> None:
        """They have two shapes, and say what etcd says, without what is no text for a log."""
        one = error_of({"error": "x", "message": "etcdserver: requested lease not found", "code": 5})
        two = error_of({"error": {"grpc_code": 14, "message": "no\nleader"}})
        assert one is not None
        assert two is not None
        self.assertEqual(
            (str(one), one.code, str(two), two.code), ("requested lease not found", 5, "no?leader", 14)
        )
        self.assertRaises(EtcdError, read_watch, {"error": {"grpc_code": 14}})

    def test_numbers(self) -> None:
        self.assertEqual(number_of({"a": "12"}, "a"), 12)
        self.assertEqual(number_of({}, "a"), 0)
        for bad in ("x", "1" * 30, 1.5, True, None, [], "-", "²"):
            self.assertRaises(EtcdError, number_of, {"a": bad}, "a")

    @given(ANYTHING.filter(lambda value: isinstance(value, dict)))
    def test_any_answer_is_read_or_refused(self, answer: dict[str, Any]) -> None:
        for read in (read_range, read_watch):
            try:
                read(answer)
            except EtcdError as error:
                self.assertLess(len(str(error)), 300)

    def test_no_etcd(self) -> None:
        for data in (b"<html>", b"[]", b"\xff", b"[" * 100_000, b""):
            self.assertRaises(EtcdError, read_json, data)


class LineTests(SynchronousTestCase):
    """A stream of messages."""

    @given(st.lists(ANYTHING.map(lambda value: {"a": value})), st.lists(st.integers(1, 20)))
    def test_any_pieces(self, messages: list[dict[str, Any]], sizes: list[int]) -> None:
        data = b"".join(json.dumps(each).encode() + b"\n" for each in messages)
        reader = LineReader()
        found = []
        for size in sizes:
            found += reader.feed(data[:size])
            data = data[size:]
        found += reader.feed(data)
        self.assertEqual(json.dumps(found), json.dumps(messages))

    def test_bound(self) -> None:
        """A line is given up as soon as it is too long, and not when it ends."""
        reader = LineReader(limit=100)
        self.assertEqual(list(reader.feed(b" " * 100)), [])
        self.assertRaises(EtcdError, list, reader.feed(b" "))

    def test_empty_lines(self) -> None:
        self.assertEqual(list(LineReader().feed(b'\n\n{"a": 1}\n \n')), [{"a": 1}])
