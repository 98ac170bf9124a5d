"""Field compression, against the hpack library's."""

from __future__ import annotations

from hpack import Decoder, Encoder, NeverIndexedHeaderTuple
from hpack.exceptions import HPACKError, OversizedHeaderListError
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.wire.http.fields import NO_METHODS
from reverseproxy.wire.http2.hpack import (
    KNOWN_BLOCK,
    KNOWN_FIELDS,
    MOST_KNOWN,
    SIMPLE_BLOCK,
    TABLE_SIZE,
    FieldDecoder,
    FieldEncoder,
    NeverIndexed,
)
from reverseproxy.wire.http2.hpack import (
    Fields as Known,
)
from tests import most
from tests.wire.http2_frames import GET, Fields

NAMES = st.sampled_from(
    [
        b":path",
        b":authority",
        b":status",
        b"accept",
        b"accept-encoding",
        b"content-length",
        b"cookie",
        b"authorization",
        b"user-agent",
        b"x-a",
        b"x-b",
        b"x" * 200,
    ]
)
VALUES = st.one_of(
    st.sampled_from([b"", b"/", b"200", b"gzip, deflate", b"a", b"b", b"y" * 126, b"y" * 127, b"y" * 1500]),
    st.binary(max_size=20),
)
BLOCKS = st.lists(st.lists(st.tuples(NAMES, VALUES), max_size=8), max_size=12)
SIZES = st.lists(st.sampled_from([0, 31, 100, 1000, 4096, 1 << 30]), max_size=3)


def read(decoder: Decoder, block: bytes) -> Fields:
    return [(bytes(name), bytes(value)) for name, value in decoder.decode(block, raw=True)]


class EncoderTests(SynchronousTestCase):
    @given(st.lists(st.tuples(SIZES, BLOCKS), max_size=4))
    @settings(max_examples=most(300), deadline=None)
    def test_the_library_reads_it(self, rounds: list[tuple[list[int], list[Fields]]]) -> None:
        encoder, decoder = FieldEncoder(), Decoder(1 << 20)
        for sizes, blocks in rounds:
            for size in sizes:
                encoder.set_max_size(size)
            for fields in blocks:
                self.assertEqual(read(decoder, encoder.encode(fields)), fields)
                self.assertEqual(decoder.header_table.maxsize, encoder.max_size)
                self.assertEqual(list(decoder.header_table.dynamic_entries), list(encoder._entries))
                self.assertLessEqual(encoder._size, encoder.max_size)
                self.assertEqual(set(encoder._fields), set(encoder._entries))
                self.assertEqual(set(encoder._names), {name for name, _ in encoder._entries})

    def test_what_is_known_takes_a_byte(self) -> None:
        encoder = FieldEncoder()
        first = encoder.encode([*GET, (b"accept", b"*/*"), (b"x-a", b"b")])
        again = encoder.encode([*GET, (b"accept", b"*/*"), (b"x-a", b"b")])
        self.assertGreater(len(first), 20)
        self.assertEqual(again, b"\x82\x86\xc0\x84\xbf\xbe")

    def test_far_back_in_the_table(self) -> None:
        encoder, decoder = FieldEncoder(), Decoder()
        fields = [(b"x-%d" % number, b"") for number in range(100)]
        read(decoder, encoder.encode(fields))
        block = encoder.encode(fields[:1])
        self.assertEqual((len(block), read(decoder, block)), (2, fields[:1]))

    def test_secrets_are_never_indexed(self) -> None:
        encoder = FieldEncoder()
        for name in (b"authorization", b"cookie", b"set-cookie", b"proxy-authorization"):
            self.assertEqual(encoder.encode([(name, b"secret")])[0] & 0xF0, 0x10)
        [field] = Decoder().decode(encoder.encode([(b"cookie", b"secret")]), raw=True)
        self.assertFalse(field.indexable)
        self.assertEqual(len(encoder._entries), 0)

    def test_what_changes_is_not_indexed(self) -> None:
        encoder = FieldEncoder()
        encoder.encode([(b":path", b"/a"), (b"content-length", b"7"), (b"x", b"y" * 2000)])
        self.assertEqual(len(encoder._entries), 1)
        encoder.encode([(b"x", b"y" * 2049)])
        self.assertEqual(len(encoder._entries), 1)

    def test_table_that_goes_and_comes_back(self) -> None:
        encoder, decoder = FieldEncoder(), Decoder()
        read(decoder, encoder.encode([(b"x-a", b"b")]))
        encoder.set_max_size(0)
        encoder.set_max_size(100)
        block = encoder.encode([(b"x-a", b"b")])
        self.assertEqual(block[:3], b"\x20\x3f\x45")
        self.assertEqual(read(decoder, block), [(b"x-a", b"b")])
        encoder.set_max_size(100)
        self.assertEqual(encoder.encode([(b"x-a", b"b")]), b"\xbe")

    def test_never_more_than_is_needed(self) -> None:
        encoder = FieldEncoder()
        encoder.set_max_size(1 << 30)
        self.assertEqual((encoder.max_size, encoder.encode([])), (TABLE_SIZE, b""))


class NeverIndexedTests(SynchronousTestCase):
    def test_forwarded_as_it_came(self) -> None:
        """In short literals, which are decoded here, and in others; whatever the table has."""
        library, decoder = Encoder(), FieldDecoder(1 << 20)
        for value in (b"guess", b"g" * 200):
            for name in (b"x-api-key", b"location"):
                for huffman in (False, True):
                    encoder, host = FieldEncoder(), Decoder()
                    host.decode(encoder.encode([(name, value)]), raw=True)
                    block = library.encode([NeverIndexedHeaderTuple(name, value), (b"x-y", b"z")], huffman)
                    fields = decoder.decode(block)
                    self.assertEqual(fields, [(name, value), (b"x-y", b"z")])
                    [secret, other] = host.decode(encoder.encode(fields), raw=True)
                    self.assertEqual((secret.indexable, tuple(secret)), (False, (name, value)))
                    self.assertTrue(other.indexable)

    def test_what_is_looked_up_is_not_marked(self) -> None:
        """A method that is never indexed is the same method."""
        for method in (b"CONNECT", b"PRI"):
            block = Encoder().encode([NeverIndexedHeaderTuple(b":method", method)])
            [(_, value)] = FieldDecoder(1 << 20).decode(block)
            self.assertIn(value, NO_METHODS)


class DecoderTests(SynchronousTestCase):
    @given(BLOCKS, st.booleans(), st.booleans())
    @settings(max_examples=most(300), deadline=None)
    def test_reads_what_others_write(self, blocks: list[Fields], library: bool, huffman: bool) -> None:
        decoder = FieldDecoder(1 << 20)
        ours, theirs = FieldEncoder(), Encoder()
        for fields in blocks:
            block = theirs.encode(fields, huffman) if library else ours.encode(fields)
            self.assertEqual([(bytes(n), bytes(v)) for n, v in decoder.decode(block)], fields)

    @given(
        st.lists(
            st.one_of(
                st.binary(max_size=40),
                st.sampled_from(
                    [b"\x82", b"\xbe", b"\xbf", b"\x0f\x0d\x017", b"\x04\x02/a", b"\x10\x01a\x01b"]
                ),
            ),
            max_size=10,
        )
    )
    @settings(max_examples=most(1000), deadline=None)
    def test_makes_the_same_of_any_block(self, parts: list[bytes]) -> None:
        ours, theirs = FieldDecoder(1 << 20), Decoder(1 << 20)
        for decoder in (ours, theirs):
            decoder.decode(b"\x40\x01a\x01b\x40\x01c\x01d")
        block = b"".join(parts)
        try:
            expected: object = read(theirs, block)
        except HPACKError as error:
            expected = type(error)
        try:
            seen: object = [(bytes(n), bytes(v)) for n, v in ours.decode(block)]
        except HPACKError as error:
            if "changes of the table's size" in str(error):
                return  # there are as many as the peer likes in theirs
            seen = type(error)
        self.assertEqual(seen, expected)
        self.assertEqual(list(ours._dynamic), list(theirs.header_table.dynamic_entries))

    @given(
        st.lists(
            st.sampled_from(
                [
                    b"\x82",
                    b"\x82\xbe",
                    b"\xbe\xbf",
                    b"\x04\x02/a",
                    b"\x40\x01a\x01b",
                    b"\x40\x01c\x01d",
                    b"\x20\x3f\xe1\x1f\x40\x01e\x01f",
                ]
            ),
            max_size=12,
        )
    )
    @settings(max_examples=most(300), deadline=None)
    def test_what_comes_again_means_what_it_means_now(self, blocks: list[bytes]) -> None:
        """The same block is not the same any more once the table has changed."""
        ours, theirs = FieldDecoder(1 << 20), Decoder(1 << 20)
        for block in blocks:
            try:
                expected = read(theirs, block)
            except HPACKError:
                self.assertRaises(HPACKError, ours.decode, block)
                return
            self.assertEqual([(bytes(n), bytes(v)) for n, v in ours.decode(block)], expected)

    def test_what_comes_again_is_known(self) -> None:
        decoder = FieldDecoder(1 << 20)
        first = decoder.decode(b"\x82\x84")
        self.assertIs(type(first), Known)
        self.assertIs(decoder.decode(b"\x82\x84"), first)
        decoder.decode(b"\x40\x01a\x01b")
        self.assertIsNot(decoder.decode(b"\x82\x84"), first)

    def test_what_is_known_is_bounded(self) -> None:
        decoder = FieldDecoder(1 << 20)
        for number in range(5 * MOST_KNOWN):
            decoder.decode(b"\x04\x02/%c" % (0x30 + number))
            self.assertLessEqual(len(decoder._known), MOST_KNOWN)
        for block in (b"\x04\x7e" + b"/" * 126) * (KNOWN_BLOCK // 128 + 1), b"\x82" * (KNOWN_FIELDS + 1):
            decoder = FieldDecoder(1 << 20)
            decoder.decode(block)
            self.assertEqual(decoder._known, {})

    def test_the_table_s_size_changes_twice_at_the_most(self) -> None:
        """Each change is a byte, and as much work as a field."""
        for change in (b"\x20", b"\x3f\x80\x0f", b"\x3e"):
            for count in range(6):
                decoder = FieldDecoder(1 << 20)
                block = change * count + b"\x82"
                if count > 2:
                    with self.assertRaises(HPACKError):
                        decoder.decode(block)
                else:
                    self.assertEqual(read(decoder._decoder, block), [(b":method", b"GET")])
                    self.assertEqual(decoder.decode(block), [(b":method", b"GET")])

    def test_simple_blocks_do_not_reach_the_library(self) -> None:
        decoder = FieldDecoder(1 << 20)
        encoder = FieldEncoder()
        fields = [*GET, (b"content-length", b"17"), (b"x-a", b"b"), (b"cookie", b"a=b")]
        simple = [*fields, (b"x-request-id", b"1"), (b"last-modified", b"never")]
        decoder.decode(encoder.encode(fields))
        decoder._decoder = None  # type: ignore[assignment]
        self.assertEqual(decoder.decode(encoder.encode(simple)), simple)
        # with Huffman's code
        self.assertEqual(decoder.decode(b"\x04\x83\x63\xcb\x1f"), [(b":path", b"/x/")])
        self.assertEqual(decoder.decode(b"\x00\x82\xf2\xb7\x01y"), [(b"x-", b"y")])

    def test_large_blocks_reach_it(self) -> None:
        decoder = FieldDecoder(10_000)
        with self.assertRaises(OversizedHeaderListError):
            decoder.decode(b"\x82" * (SIMPLE_BLOCK + 1))

    def test_index_0_and_beyond_the_table(self) -> None:
        for block in (b"\x80", b"\xbe", b"\xfe", b"\xff\x00", b"\x0f\x30\x01a", b"\x0f\x7f\x01a"):
            with self.assertRaises(HPACKError):
                FieldDecoder(10_000).decode(block)

    def test_blocks_that_are_cut_off(self) -> None:
        for block in (
            b"\x00",
            b"\x00\x01",
            b"\x00\x01a",
            b"\x00\x01a\x02b",
            b"\x00\x7f",
            b"\x04\x7f",
            b"\x04",
            b"\x04\x02",
            b"\x04\x02/",
            b"\x0f",
            b"\x0f\x0d",
            b"\x0f\x0d\x02",
            b"\x40",
        ):
            with self.assertRaises(HPACKError):
                FieldDecoder(10_000).decode(block)


class LibraryTests(SynchronousTestCase):
    """What we need of the library, which not all of its releases do."""

    def test_fields_are_bytes(self) -> None:
        """Whatever a peer's way to write them: something else is equal to bytes, and is none."""
        name, value = b"x-name", b"some value"
        huffman = Encoder().huffman_coder.encode
        for kind in (0x40, 0x00, 0x10):
            for name_text, name_flag in ((name, 0), (huffman(name), 0x80)):
                for value_text, value_flag in ((value, 0), (huffman(value), 0x80)):
                    block = (
                        bytes((kind, name_flag | len(name_text)))
                        + name_text
                        + bytes((value_flag | len(value_text),))
                        + value_text
                    )
                    # Alone, behind what our own way of reading does not know, and from the table.
                    for blocks in ([block], [b"\x20" + block], [b"\x20" + block * 400], [block, b"\xbe"]):
                        decoder = FieldDecoder(1 << 20)
                        if kind != 0x40 and blocks[-1] == b"\xbe":
                            continue
                        for each in blocks:
                            fields = decoder.decode(each)
                            self.assertEqual(fields, [(name, value)] * max(1, len(fields)))
                            kinds = {bytes, NeverIndexed if kind == 0x10 else bytes}
                            self.assertEqual({type(part) for field in fields for part in field}, kinds)
