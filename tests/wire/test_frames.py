"""Tests for L{reverseproxy.wire.mosn.frames}."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.errors import FrameError, FrameTooLarge
from reverseproxy.wire.mosn.frames import (
    HEADER_LENGTH,
    MAGIC,
    MAX_PAYLOAD,
    ConnectionInit,
    Flag,
    Frame,
    FrameDecoder,
    GracefulClose,
    InitResponse,
    Status,
    effective_weight,
    encode,
    encode_graceful_close,
)
from tests import most

# What MOSN sends.
INIT = bytes.fromhex("208801010100006f") + (
    b'{"cluster_name":"clientCluster","weight":10,"host_name":"","credential_policy":"","credential":"",'
    b'"extra":null}'
)
RESPONSE = bytes.fromhex("208801020200000c") + b'{"status":1}'
CLOSE = bytes.fromhex("2088010301000040") + (
    b'{"addresses":["127.0.0.1:50000"],"cluster_name":"clientCluster"}'
)


def frame_bytes(flag: int, payload: bytes, version: int = 1, kind: bytes = b"\x01\x00") -> bytes:
    return MAGIC + bytes((version, flag)) + kind + len(payload).to_bytes(2, "big") + payload


def decode(data: bytes) -> Frame:
    decoder = FrameDecoder()
    frame = decoder.feed(data)
    assert frame is not None
    assert decoder.buffered == 0
    return frame


def read(flag: int, payload: bytes | str) -> Frame:
    return decode(frame_bytes(flag, payload.encode() if isinstance(payload, str) else payload))


class GoldenTests(SynchronousTestCase):
    VECTORS: tuple[tuple[Frame, bytes], ...] = (
        (ConnectionInit("clientCluster"), INIT),
        (InitResponse(Status.SUCCESS), RESPONSE),
        (GracefulClose(("127.0.0.1:50000",), "clientCluster"), CLOSE),
        (GracefulClose((), "c"), frame_bytes(3, b'{"addresses":[],"cluster_name":"c"}')),
        (
            ConnectionInit("c<&>", -1, "h\n", "p", "\u2028\U0001f600", {"z": 1.5, "a": ["<"]}),
            frame_bytes(
                1,
                b'{"cluster_name":"c\\u003c\\u0026\\u003e","weight":-1,"host_name":"h\\n","credential_policy":"p",'
                b'"credential":"\\u2028\xf0\x9f\x98\x80","extra":{"a":["\\u003c"],"z":1.5}}',
            ),
        ),
        (
            InitResponse(Status.SUCCESS, {"reverseproxy": {"version": 1}}),
            frame_bytes(2, b'{"status":1,"extra":{"reverseproxy":{"version":1}}}', kind=b"\x02\x00"),
        ),
        (
            GracefulClose(("[::1]:5",), "c", {"reverseproxy": {"agent": "a"}}),
            frame_bytes(
                3, b'{"addresses":["[::1]:5"],"cluster_name":"c","extra":{"reverseproxy":{"agent":"a"}}}'
            ),
        ),
    )

    def test_the_lengths_of_the_vectors(self) -> None:
        for data in (INIT, RESPONSE, CLOSE):
            self.assertEqual(int.from_bytes(data[6:8], "big"), len(data) - HEADER_LENGTH)

    def test_encode(self) -> None:
        for frame, data in self.VECTORS:
            self.assertEqual(encode(frame), data)

    def test_decode(self) -> None:
        for frame, data in self.VECTORS:
            self.assertEqual(decode(data), frame)

    def test_empty_extra_is_an_object(self) -> None:
        self.assertIn(b'"extra":{}', encode(ConnectionInit("c", extra={})))
        self.assertEqual(encode(InitResponse(Status.SUCCESS, {}))[8:], b'{"status":1,"extra":{}}')


class StatusTests(SynchronousTestCase):
    def test_values_are_mosns(self) -> None:
        self.assertEqual(
            [(status.name, int(status)) for status in Status if status < 100],
            [
                ("UNKNOWN", 0),
                ("SUCCESS", 1),
                ("CREDENTIAL_REJECTED", 2),
                ("VALIDATOR_MISSING", 3),
                ("CLUSTER_UNKNOWN", 4),
            ],
        )

    def test_ours_are_beside_them(self) -> None:
        self.assertEqual(
            [(status.name, int(status)) for status in Status if status >= 100],
            [("ROUTE_FORBIDDEN", 101), ("ROUTE_TAKEN", 102)],
        )

    def test_each_has_a_meaning(self) -> None:
        self.assertEqual(len({status.meaning for status in Status}), 7)
        self.assertEqual(len({flag.meaning for flag in Flag}), 3)

    def test_undefined_ones_are_carried(self) -> None:
        frame = read(2, '{"status":-7}')
        assert isinstance(frame, InitResponse)
        self.assertEqual(frame.status, -7)
        self.assertNotIn(frame.status, list(Status))
        self.assertIn("undefined status -7", frame.status.meaning)
        self.assertIn("STATUS_-7", repr(frame))
        self.assertEqual(encode(frame)[8:], b'{"status":-7}')
        self.assertRaises(ValueError, Status, "1")


class EffectiveWeightTests(SynchronousTestCase):
    def test_table(self) -> None:
        for announced, effective in (
            (10, 10),
            (0, 1),
            (1, 1),
            (128, 128),
            (129, 128),
            (2**32 - 1, 128),
            (2**32, 1),
            (2**32 + 5, 5),
            (-1, 128),
            (-(2**32), 1),
            (-(2**32) + 7, 7),
            (-(2**31), 128),
            (2**63 - 1, 128),
            (-(2**63), 1),
        ):
            self.assertEqual(effective_weight(announced), effective, announced)


class EncodeTests(SynchronousTestCase):
    def test_secrets_are_not_shown(self) -> None:
        for frame in (
            ConnectionInit("c", credential="secret", extra={"a": "secret"}),
            GracefulClose((), "c", {"reverseproxy": {"credential": "secret"}}),
        ):
            self.assertNotIn("secret", repr(frame))

    def test_numbers_of_more_than_64_bits(self) -> None:
        for weight in (2**63, -(2**63) - 1):
            self.assertRaisesRegex(ValueError, "weight", encode, ConnectionInit("c", weight))

    def test_the_largest_payload(self) -> None:
        room = MAX_PAYLOAD - len(encode(ConnectionInit(""))) + HEADER_LENGTH
        data = encode(ConnectionInit("x" * room))
        self.assertEqual(data[6:8], b"\xff\xff")
        self.assertEqual(len(data), HEADER_LENGTH + MAX_PAYLOAD)
        self.assertEqual(decode(data), ConnectionInit("x" * room))
        with self.assertRaisesRegex(
            FrameTooLarge, "connection init .*65535 bytes and has 65536, .*cluster_name"
        ):
            encode(ConnectionInit("x" * (room + 1)))

    def test_the_culprit_is_named_by_its_encoded_size(self) -> None:
        self.assertRaisesRegex(
            FrameTooLarge,
            "of which credential takes 66002",
            encode,
            ConnectionInit("c", host_name="x" * 20000, credential="<" * 11000),
        )
        self.assertRaisesRegex(
            FrameTooLarge, "extra takes", encode, InitResponse(Status.SUCCESS, {"a": "\u20ac" * 30000})
        )
        self.assertRaisesRegex(
            FrameTooLarge, "addresses takes", encode, GracefulClose(("127.0.0.1:50000",) * 4000, "c")
        )


class SplitTests(SynchronousTestCase):
    def decoded(self, frames: list[bytes]) -> list[GracefulClose]:
        closes = []
        for data in frames:
            self.assertLessEqual(len(data), HEADER_LENGTH + MAX_PAYLOAD)
            frame = decode(data)
            assert isinstance(frame, GracefulClose)
            closes.append(frame)
        return closes

    def test_one_frame_if_it_fits(self) -> None:
        self.assertEqual(encode_graceful_close(["127.0.0.1:50000"], "clientCluster"), [CLOSE])
        self.assertEqual(encode_graceful_close([], "c"), [encode(GracefulClose((), "c"))])

    def test_many_addresses(self) -> None:
        addresses = [f"10.1.2.3:{port}" for port in range(1, 10001)]
        extra = {"reverseproxy": {"agent": "a"}}
        closes = self.decoded(encode_graceful_close(iter(addresses), "c<", extra))
        self.assertEqual(len(closes), 3)
        self.assertEqual([address for close in closes for address in close.addresses], addresses)
        self.assertEqual({close.cluster_name for close in closes}, {"c<"})
        self.assertTrue(all(close.extra == extra for close in closes))

    def test_frames_are_filled_to_the_last_byte(self) -> None:
        base = len(encode_graceful_close([], "c")[0])
        half = (MAX_PAYLOAD - (base - HEADER_LENGTH) - 5) // 2
        rest = MAX_PAYLOAD - (base - HEADER_LENGTH) - 5 - half
        exact = encode_graceful_close(["a" * half, "b" * rest], "c")
        self.assertEqual([len(data) for data in exact], [HEADER_LENGTH + MAX_PAYLOAD])
        self.assertEqual(len(encode_graceful_close(["a" * half, "b" * (rest + 1)], "c")), 2)

    def test_one_address_too_large(self) -> None:
        self.assertRaisesRegex(
            FrameTooLarge, "addresses takes", encode_graceful_close, ["a", "b" * 66000, "c"], "c"
        )

    def test_other_fields_too_large(self) -> None:
        self.assertRaisesRegex(FrameTooLarge, "cluster_name", encode_graceful_close, ["a"], "c" * 66000)
        self.assertRaisesRegex(
            FrameTooLarge, "extra", encode_graceful_close, ["a"], "c", {"reverseproxy": "x" * 66000}
        )

    @settings(deadline=None, max_examples=most(30))
    @given(st.lists(st.text(max_size=40) | st.just("\u20ac" * 9000) | st.just("<" * 5000), max_size=40))
    def test_nothing_is_lost(self, addresses: list[str]) -> None:
        closes = self.decoded(encode_graceful_close(addresses, "c"))
        self.assertEqual([address for close in closes for address in close.addresses], addresses)


class ReadLikeGoTests(SynchronousTestCase):
    """
    What Go's C{json.Unmarshal} makes of a payload.

    Each row was tried on Go 1.26; C{None} stands for an error.
    """

    # An init frame's payload and the fields that it changes.
    INIT: tuple[tuple[bytes, dict[str, Any] | None], ...] = (
        (b"{}", {}),
        (b"null", {}),
        (b" \r\n\t{ } \n", {}),
        (b'{"unknown":{"a":[1,2,{"b":null}]},"weight":3}', {"weight": 3}),
        (b'{"weight":5,"weight":6}', {"weight": 6}),
        (b'{"weight":5,"weight":null}', {"weight": 5}),
        (b'{"weight":5,"WEIGHT":6}', {"weight": 6}),
        (b'{"WEIGHT":6,"weight":5}', {"weight": 5}),
        (b'{"Host_Name":"x"}', {"host_name": "x"}),
        (b'{"ho\xc5\xbft_name":"x"}', {"host_name": "x"}),
        (b'{"host-name":"x"}', {}),
        (b'{"\\u0077eight":3}', {"weight": 3}),
        (b'{"weight\xff":3}', {}),
        (b'{"weight":null,"host_name":null,"extra":null}', {}),
        (b'{"weight":-0}', {"weight": 0}),
        (b'{"weight":9223372036854775807}', {"weight": 2**63 - 1}),
        (b'{"weight":-9223372036854775808}', {"weight": -(2**63)}),
        (b'{"weight":9223372036854775808}', None),
        (b'{"weight":-9223372036854775809}', None),
        (b'{"weight":' + b"9" * 6000 + b"}", None),
        (b'{"weight":10.5}', None),
        (b'{"weight":10.0}', None),
        (b'{"weight":1e1}', None),
        (b'{"weight":"10"}', None),
        (b'{"weight":true}', None),
        (b'{"weight":{}}', None),
        (b'{"weight":[]}', None),
        (b'{"weight":"x","weight":1}', None),
        (b'{"weight":01}', None),
        (b'{"weight":+1}', None),
        (b'{"weight":-}', None),
        (b'{"weight":1.}', None),
        (b'{"weight":.5}', None),
        (b'{"weight":0x1}', None),
        (b'{"weight":1,}', None),
        (b'{"weight":}', None),
        (b'{"weight" 1}', None),
        (b'{"x":NaN}', None),
        (b'{"x":Infinity}', None),
        (b'{"x":-Infinity}', None),
        (b'{"x":True}', None),
        (b'{"x":1e400}', {}),
        (b'{"extra":{"x":1e400}}', None),
        (b'{"extra":{}}', {"extra": {}}),
        (b'{"extra":{"a":1},"extra":{"b":2}}', {"extra": {"a": 1, "b": 2}}),
        (b'{"extra":{"a":1},"extra":null}', {}),
        (b'{"extra":{"a":1,"a":{"b":[true,null,2.5]}}}', {"extra": {"a": {"b": [True, None, 2.5]}}}),
        (b'{"extra":[]}', None),
        (b'{"extra":"x"}', None),
        (b'{"host_name":1}', None),
        (b'{"host_name":false}', None),
        (b'{"host_name":["x"]}', None),
        (b'{"host_name":{"a":1}}', None),
        (b'{"host_name":"\\b\\f\\n\\r\\t\\/\\\\\\"\\u00e9\x7f"}', {"host_name": '\b\f\n\r\t/\\"\u00e9\x7f'}),
        (b'{"host_name":"\\ud83d\\ude00"}', {"host_name": "\U0001f600"}),
        (
            b'{"host_name":"\\ud800\\u0041\\ud800\\ud800\\udc00\\udc00"}',
            {"host_name": "\ufffdA\ufffd\U00010000\ufffd"},
        ),
        (b'{"extra":{"\\udc00":["\\uD800",1]}}', {"extra": {"\ufffd": ["\ufffd", 1]}}),
        (b'{"host_name":"\\ud800\xff"}', {"host_name": "\ufffd\ufffd"}),
        (b'{"host_name":"\xc3("}', {"host_name": "\ufffd("}),
        (
            b'{"host_name":"\xe2\x82x\xed\xa0\x80\xf0\x9f\x98"}',
            {"host_name": "\ufffd" * 2 + "x" + "\ufffd" * 6},
        ),
        (b'{"host_name":"a\nb"}', None),
        (b'{"host_name":"a\x00b"}', None),
        (b'{"host_name":"\\x"}', None),
        (b'{"host_name":"\\u12"}', None),
        (b'{"host_name":"\\u 123"}', None),
        (b'{"host_name":"x}', None),
        (b"{'host_name':1}", None),
        (b"[]", None),
        (b'"x"', None),
        (b"1", None),
        (b"true", None),
        (b"{} x", None),
        (b"{}{}", None),
        (b"{}\x00", None),
        (b"\x0b{}", None),
        (b"\xef\xbb\xbf{}", None),
        (b"{", None),
        (b" ", None),
        (b"\xff", None),
        (b"// comment\n{}", None),
    )

    # A graceful close's payload and its addresses.
    CLOSE: tuple[tuple[bytes, tuple[str, ...] | None], ...] = (
        (b"{}", ()),
        (b'{"addresses":null}', ()),
        (b'{"addresses":[]}', ()),
        (b'{"addresses":[null,"b"]}', ("", "b")),
        (b'{"addresses":["a","b"],"addresses":["c"]}', ("c",)),
        (b'{"addresses":["a"],"addresses":null}', ()),
        (b'{"ADDRE\xc5\xbfSES":["a"]}', ("a",)),
        (b'{"addre\xc3\x9fes":["a"]}', ()),
        (b'{"addresses":"a"}', None),
        (b'{"addresses":[1]}', None),
        (b'{"addresses":[["a"]]}', None),
        (b'{"addresses":{}}', None),
        (b'{"addresses":true}', None),
        # MOSN does not know these, hence ignores whatever is in them.
        (b'{"addresses":["a"],"extra":"x"}', ("a",)),
        (b'{"addresses":["a"],"extra":{"x":1e400}}', ("a",)),
    )

    # An init response's payload and its status.
    RESPONSE: tuple[tuple[bytes, int | None], ...] = (
        (b"{}", 0),
        (b"null", 0),
        (b'{"status":4}', 4),
        (b'{"STATUS":1}', 1),
        (b'{"\xc5\xbftatu\xc5\xbf":1}', 1),
        (b'{"status":null}', 0),
        (b'{"status":1.0}', None),
        (b'{"status":"1"}', None),
        (b'{"status":1,"extra":[1]}', 1),
    )

    def test_init(self) -> None:
        for payload, changes in self.INIT:
            if changes is None:
                with self.assertRaises(FrameError, msg=payload):
                    read(1, payload)
            else:
                fields = {"cluster_name": "", "weight": 0, **changes}
                self.assertEqual(read(1, payload), ConnectionInit(**fields), payload)

    def test_close(self) -> None:
        for payload, addresses in self.CLOSE:
            if addresses is None:
                with self.assertRaises(FrameError, msg=payload):
                    read(3, payload)
            else:
                self.assertEqual(read(3, payload), GracefulClose(addresses, ""), payload)

    def test_response(self) -> None:
        for payload, status in self.RESPONSE:
            if status is None:
                with self.assertRaises(FrameError, msg=payload):
                    read(2, payload)
            else:
                self.assertEqual(read(2, payload), InitResponse(Status(status)), payload)

    def test_the_field_is_named(self) -> None:
        for flag, payload, pattern in (
            (1, '{"Weight":10.5}', 'connection init frame: in the field "weight" .* got the number 10.5'),
            (1, '{"credential":123}', 'in the field "credential" expected a string'),
            (1, '{"extra":[]}', 'in the field "extra" expected an object, got an array'),
            (1, '{"host_name":false}', "expected a string, got false"),
            (1, '{"host_name":true}', "expected a string, got true"),
            (1, '{"weight":{}}', "64 bits, got an object"),
            (2, '{"status":"1"}', 'init response frame: in the field "status" .* got a string'),
            (3, '{"addresses":"x"}', 'graceful close frame: in the field "addresses"'),
            (3, '{"cluster_name":[]}', 'in the field "cluster_name" expected a string, got an array'),
        ):
            self.assertRaisesRegex(FrameError, pattern, read, flag, payload)

    def test_nesting_is_bounded(self) -> None:
        for opener in ("[", '{"a":'):
            self.assertRaisesRegex(FrameError, "nested", read, 1, '{"x":' + opener * 10000)


class DecoderTests(SynchronousTestCase):
    def refuses(self, data: bytes, pattern: str, **options: Any) -> None:
        """All at once, byte by byte, and for good."""
        decoder = FrameDecoder(**options)
        self.assertRaisesRegex(FrameError, pattern, decoder.feed, data)
        self.assertEqual(decoder.buffered, 0)
        for more in (b"", INIT):
            self.assertRaisesRegex(FrameError, pattern, decoder.feed, more)
        self.assertEqual(decoder.take_surplus(), b"")
        decoder = FrameDecoder(**options)
        with self.assertRaises(FrameError):
            for position in range(len(data)):
                self.assertIsNone(decoder.feed(data[position : position + 1]))

    def first_refused(self, data: bytes) -> int:
        decoder = FrameDecoder()
        for position in range(len(data)):
            try:
                decoder.feed(data[position : position + 1])
            except FrameError:
                return position
        return -1

    def test_several_frames_at_once(self) -> None:
        decoder = FrameDecoder()
        self.assertEqual(decoder.feed(INIT + CLOSE + RESPONSE + b"\x20"), ConnectionInit("clientCluster"))
        self.assertIsInstance(decoder.feed(b""), GracefulClose)
        self.assertIsInstance(decoder.feed(b""), InitResponse)
        self.assertIsNone(decoder.feed(b""))
        self.assertEqual(decoder.take_surplus(), b"\x20")

    def test_any_version_and_type(self) -> None:
        data = frame_bytes(2, b'{"status":1}', version=250, kind=b"\xca\xfe")
        self.assertEqual(decode(data), InitResponse(Status.SUCCESS))

    def test_surplus_is_not_looked_at(self) -> None:
        decoder = FrameDecoder(frozenset({Flag.INIT_RESPONSE}))
        surplus = b"GET / HTTP/1.1\r\n\r\n" + bytes(range(256))
        self.assertEqual(decoder.feed(RESPONSE + surplus), InitResponse(Status.SUCCESS))
        self.assertEqual(decoder.take_surplus(), surplus)
        self.assertEqual(decoder.take_surplus(), b"")

    def test_no_bytes_after_the_surplus_was_taken(self) -> None:
        decoder = FrameDecoder()
        decoder.take_surplus()
        self.assertRaises(RuntimeError, decoder.feed, b"")

    def test_other_kinds_of_bytes(self) -> None:
        decoder = FrameDecoder()
        decoder.feed(bytearray(INIT[:10]))
        self.assertIsNotNone(decoder.feed(memoryview(INIT)[10:]))

    def test_bad_magic_is_refused_at_its_first_byte(self) -> None:
        self.assertEqual(self.first_refused(b"\x21\x88\x01\x01"), 0)
        self.assertEqual(self.first_refused(b"\x20\x89\x01\x01"), 1)
        self.refuses(b"\xda\xbb\x01\x01", "begins with 20 88, got da bb 01 01$")
        self.refuses(bytes(range(0x30, 0x60)), r"got 30 31 .* 3f \.\.\.$")

    def test_lookalikes_are_named(self) -> None:
        self.refuses(b"GET / HTTP/1.1\r\n", "47 45 54 20 2f .*looks like an HTTP request")
        self.refuses(b"PRI * HTTP/2.0\r\n", "looks like an HTTP request")
        self.refuses(b"HTTP/1.1 400 Bad Request\r\n", "looks like an HTTP response")
        self.refuses(b"\x16\x03\x01\x02\x00\x01", "16 03 01 .*looks like a TLS handshake")
        self.refuses(b"\x15\x03\x03\x00\x02", "looks like a TLS alert")
        self.refuses(b"PROXY TCP4 1.2.3.4", "looks like a PROXY protocol header")
        self.refuses(b"\r\n\r\n\x00\r\nQUIT\n", "looks like a PROXY protocol header")

    def test_bad_flag_is_refused_at_its_byte(self) -> None:
        for flag in (0, 4, 255):
            self.assertEqual(self.first_refused(frame_bytes(flag, b"{}")), 3)
        self.refuses(
            frame_bytes(9, b"{}"),
            r"flag 1 \(connection init\), 2 \(init response\), 3 \(graceful close\), got 9 .*20 88 01 09",
        )

    def test_unexpected_flag(self) -> None:
        self.refuses(
            INIT, r"with the flag 2 \(init response\), got 1", expect=frozenset({Flag.INIT_RESPONSE})
        )

    def test_bad_length_is_refused_with_the_header(self) -> None:
        self.assertEqual(self.first_refused(frame_bytes(1, b"") + b"{}"), 7)
        self.refuses(frame_bytes(1, b""), "1 to 65535 bytes, got one of 0 bytes .* 20 88 01 01 01 00 00 00")
        self.refuses(frame_bytes(1, b"{}" + b" " * 9), "1 to 10 bytes, got one of 11", max_payload=10)
        self.assertEqual(
            FrameDecoder(max_payload=10).feed(frame_bytes(2, b"{}")), InitResponse(Status.UNKNOWN)
        )

    def test_bad_payload(self) -> None:
        self.refuses(
            frame_bytes(1, b'{"weight":1'), "bad payload of the connection init frame: expected JSON"
        )

    def test_bad_bounds(self) -> None:
        for bound in (0, 65536):
            self.assertRaises(ValueError, FrameDecoder, max_payload=bound)


TEXT = st.text(max_size=30)
INT64 = st.integers(-(2**63), 2**63 - 1)
VALUES = st.recursive(
    st.none() | st.booleans() | INT64 | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
EXTRA = st.none() | st.dictionaries(TEXT, VALUES, max_size=3)
FRAMES: st.SearchStrategy[Frame] = st.one_of(
    st.builds(ConnectionInit, TEXT, INT64, TEXT, TEXT, TEXT, EXTRA),
    st.builds(InitResponse, INT64.map(Status), EXTRA),
    st.builds(GracefulClose, st.lists(TEXT, max_size=5).map(tuple), TEXT, EXTRA),
)


class PropertyTests(SynchronousTestCase):
    @settings(deadline=None)
    @given(FRAMES)
    def test_round_trip(self, frame: Frame) -> None:
        self.assertEqual(decode(encode(frame)), frame)

    @settings(deadline=None)
    @given(st.lists(FRAMES, min_size=1, max_size=4), st.binary(max_size=40), st.data())
    def test_chunks_do_not_matter(self, frames: list[Frame], surplus: bytes, data: st.DataObject) -> None:
        stream = b"".join(map(encode, frames)) + surplus
        cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12).map(sorted))
        edges = [0, *cuts, len(stream)]
        decoder = FrameDecoder()
        got: list[Frame] = []
        rest = b""
        for begin, end in pairwise(edges):
            chunk = stream[begin:end]
            # After the last frame, bytes are no longer the decoder's.
            if len(got) == len(frames):
                rest += chunk
                continue
            frame = decoder.feed(chunk)
            while frame is not None:
                got.append(frame)
                frame = decoder.feed(b"") if len(got) < len(frames) else None
        self.assertEqual(got, frames)
        self.assertEqual(decoder.take_surplus() + rest, surplus)

    @settings(deadline=None)
    @given(st.lists(st.binary(max_size=60), max_size=20), st.sampled_from([1, 7, 100, MAX_PAYLOAD]))
    @example([MAGIC, b"\x01\x01\x01\x00\x00\x07", b"{}     " * 3], 7)
    def test_random_bytes(self, chunks: list[bytes], bound: int) -> None:
        self.check_bounded(chunks, bound)

    @settings(deadline=None)
    @given(
        st.lists(
            st.binary(max_size=30).map(lambda payload: frame_bytes(len(payload) % 4, payload))
            | FRAMES.map(encode)
            | st.binary(max_size=4),
            max_size=6,
        ),
        st.sampled_from([7, 100, MAX_PAYLOAD]),
    )
    def test_nearly_right_bytes(self, chunks: list[bytes], bound: int) -> None:
        self.check_bounded(chunks, bound)

    def check_bounded(self, chunks: list[bytes], bound: int) -> None:
        decoder = FrameDecoder(max_payload=bound)
        for chunk in chunks:
            try:
                frame = decoder.feed(chunk)
                while frame is not None:
                    frame = decoder.feed(b"")
            except FrameError:
                self.assertEqual(decoder.buffered, 0)
                return
            self.assertLess(decoder.buffered, HEADER_LENGTH + bound)
