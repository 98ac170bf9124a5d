"""Tests for L{reverseproxy.tls.records}."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.tls import ClientTls, ServerTls, openssl, records
from reverseproxy.tls.records import BLOCK, DirectRecords, PublicRecords, Records, records_of
from tests.certs import Certificates

LONG = random.Random(3).randbytes(2**19)


class Pair:
    """Both ends of a connection whose handshake is complete, and what the near one has sent since."""

    def __init__(self, kind: type[Records], client_tls: ClientTls, server_tls: ServerTls) -> None:
        near = client_tls.clientConnectionForTLS(None)
        far = server_tls.serverConnectionForTLS(None)
        self.connections = (near, far)
        make: Any = kind
        self.near: Records = make(near)
        self.far: Records = make(far)
        for _ in range(3):
            for connection, ours, theirs in ((near, self.near, self.far), (far, self.far, self.near)):
                with contextlib.suppress(SSL.WantReadError):
                    connection.do_handshake()
                sent = ours.take()
                if sent:
                    theirs.feed(sent)
        for each in (self.near, self.far):
            each.decrypt()  # nothing, but tickets

    def say(self, *pieces: bytes) -> bytes:
        return b"".join(bytes(self.near.encrypt(piece)) for piece in pieces)


class RecordsTestCase(SynchronousTestCase):
    kind: type[Records] = DirectRecords

    def setUp(self) -> None:
        certs = Certificates(Path(self.mktemp()))
        self.client_tls = ClientTls(certs.client_context(), "localhost")
        self.server_tls = ServerTls([certs.server_context()])
        self.older_tls = ServerTls([certs.server_context(max_version="TLSv1_2")])

    def pair(self, older: bool = False) -> Pair:
        return Pair(self.kind, self.client_tls, self.older_tls if older else self.server_tls)


class DirectRecordsTests(RecordsTestCase):
    def test_one_message(self) -> None:
        for older in (False, True):
            pair = self.pair(older)
            for _ in range(3):
                self.assertEqual(pair.far.receive(pair.say(b"hello")), b"hello")
            self.assertEqual(pair.far.decrypt(), b"")
            self.assertEqual(pair.far.take(), b"")
            self.assertFalse(pair.far.ended)
            self.assertIsNone(pair.far.error)

    def test_kinds_of_bytes(self) -> None:
        pair = self.pair()
        for data in (b"hello", memoryview(b"hello"), memoryview(b"so, hello")[4:], bytearray(b"hello")):
            self.assertEqual(pair.far.receive(bytes(pair.near.encrypt(data))), b"hello")
        data = memoryview(LONG)[1000 : 1000 + BLOCK]
        self.assertEqual(pair.far.receive(bytes(pair.near.encrypt(data))), bytes(data))

    def test_more_than_is_collected_at_once(self) -> None:
        pair = self.pair()
        blocks = [LONG[start : start + BLOCK] for start in range(0, len(LONG), BLOCK)]
        self.assertEqual(pair.far.receive(pair.say(*blocks)), LONG)
        self.assertEqual(pair.far.receive(pair.say(b"and more")), b"and more")

    def test_much_behind_what_was_fed(self) -> None:
        """Nothing is lost of what OpenSSL has, but has not decrypted."""
        for older in (False, True):
            pair = self.pair(older)
            pair.far.feed(pair.say(b"first"))
            wire = pair.say(LONG[:BLOCK], LONG[:BLOCK])
            self.assertEqual(
                pair.far.receive(wire[:-9]) + pair.far.receive(wire[-9:]), b"first" + LONG[:BLOCK] * 2
            )

    def test_the_methods_of_a_connection_behind_much(self) -> None:
        pair = self.pair()
        near, far = pair.connections
        wire = pair.say(LONG[:BLOCK], LONG[:BLOCK])
        self.assertEqual(pair.far.receive(wire[:-9]), LONG[:BLOCK] + LONG[: BLOCK - 2**14])
        far.bio_write(wire[-9:])
        near.send(b"and more")
        far.bio_write(near.bio_read(1000))
        self.assertEqual((far.recv(2**14), far.recv(100)), (LONG[BLOCK - 2**14 : BLOCK], b"and more"))

    def test_damage_in_much(self) -> None:
        pair = self.pair()
        damaged = bytearray(pair.say(LONG[:BLOCK], LONG[:BLOCK]))
        damaged[-1] ^= 1
        self.assertEqual(pair.far.receive(bytes(damaged)), LONG[:BLOCK] + LONG[: BLOCK // 2])
        self.assertIsInstance(pair.far.error, SSL.Error)
        self.assertTrue(pair.far.take())  # the alert

    def test_the_end(self) -> None:
        pair = self.pair()
        last = pair.say(b"last")
        pair.connections[0].shutdown()
        self.assertEqual(pair.far.receive(last + pair.near.take()), b"last")
        self.assertTrue(pair.far.ended)
        self.assertEqual(pair.far.decrypt(), b"")
        self.assertIsNone(pair.far.error)

    def test_the_end_alone(self) -> None:
        pair = self.pair()
        pair.connections[0].shutdown()
        self.assertEqual(pair.far.receive(pair.near.take()), b"")
        self.assertTrue(pair.far.ended)

    def test_damage(self) -> None:
        pair = self.pair()
        intact, damaged = pair.say(b"intact"), bytearray(pair.say(b"damaged"))
        damaged[-1] ^= 1
        self.assertEqual(pair.far.receive(intact + bytes(damaged)), b"intact")
        self.assertIsInstance(pair.far.error, SSL.Error)
        self.assertFalse(pair.far.ended)
        self.assertRaises(SSL.Error, pair.far.encrypt, b"x")
        self.assertTrue(pair.far.take())  # the alert

    def test_what_else_there_is_to_send_comes_first(self) -> None:
        pair = self.pair()
        before = pair.say(b"before")
        pair.connections[0].send(b"meanwhile")
        self.assertEqual(pair.far.receive(before + pair.say(b"after")), b"beforemeanwhileafter")

    def test_more_to_send_than_is_fetched_at_once(self) -> None:
        for last in (b"", b"last"):
            pair = self.pair()
            for start in range(0, len(LONG), 2**14):
                pair.connections[0].send(LONG[start : start + 2**14])
            sent = bytes(pair.near.encrypt(last)) if last else pair.near.take()
            self.assertEqual(pair.far.receive(sent), LONG + last)


class PublicRecordsTests(DirectRecordsTests):
    kind = PublicRecords


class MemoryTests(RecordsTestCase):
    """What much data takes is not kept."""

    def test_much_is_read_from_where_it_is(self) -> None:
        """A BIO that was never written to has no memory to keep."""
        pair = self.pair()
        connection: Any = pair.connections[1]
        wire = pair.say(LONG[:BLOCK])
        before = connection._into_ssl
        with mock.patch.object(records, "bio_write", mock.Mock(side_effect=AssertionError)):
            self.assertEqual(pair.far.receive(wire), LONG[:BLOCK])
        self.assertNotEqual(connection._into_ssl, before)

    def test_each_record_is_fetched_at_once(self) -> None:
        """So that no more of them are ever in the BIO."""
        pair = self.pair()
        fetched = mock.Mock(side_effect=records.bio_read)
        with mock.patch.object(records, "bio_read", fetched):
            wire = pair.say(LONG[: BLOCK - 1])
        self.assertEqual(fetched.call_count, 2)
        self.assertEqual(pair.far.receive(wire), LONG[: BLOCK - 1])


class PiecesTests(RecordsTestCase):
    @given(
        st.lists(st.integers(0, 40000), min_size=1, max_size=6),
        st.lists(st.integers(1, 20000), max_size=40),
        st.booleans(),
    )
    def test_any_pieces(self, messages: list[int], cuts: list[int], older: bool) -> None:
        """What is written arrives, however it is cut, and at once."""
        pair = self.pair(older)
        said, ends, wire = b"", [], b""
        for size in messages:
            for start in range(0, size, BLOCK):
                piece = LONG[start : min(size, start + BLOCK)]
                wire += pair.say(piece)
                said += piece
            ends.append((len(wire), len(said)))
        heard, position = b"", 0
        for cut in [*cuts, len(wire)]:
            heard += pair.far.receive(wire[position : position + cut]) if wire[position:] else b""
            position += cut
            due = max((length for end, length in ends if end <= position), default=0)
            self.assertGreaterEqual(len(heard), due)
        self.assertEqual(heard, said)

    @given(st.lists(st.integers(1, 3000), min_size=1, max_size=8))
    def test_cut_at_records(self, sizes: list[int]) -> None:
        """Whole records, cut in two at times, at any byte of the header too."""
        pair = self.pair()
        for size in sizes:
            record = pair.say(LONG[:size])
            cut = size % 8
            heard = pair.far.receive(record[:cut]) if cut else b""
            self.assertEqual(heard + pair.far.receive(record[cut:]), LONG[:size])
            self.assertEqual(pair.far.receive(pair.say(b"whole")), b"whole")

    def test_an_error_after_the_first_record(self) -> None:
        pair = self.pair()
        write = mock.Mock(side_effect=[2**14, -1])
        with mock.patch.object(records, "write", write):
            self.assertRaises(SSL.Error, pair.near.encrypt, LONG[:BLOCK])


class ChoiceTests(SynchronousTestCase):
    def test_what_is_used(self) -> None:
        connection = SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
        self.assertIsInstance(records_of(connection), DirectRecords)

    def test_what_is_used_when_something_is_missing(self) -> None:
        connection = SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
        with mock.patch.object(openssl, "_found", False):
            self.assertIsInstance(records_of(connection), PublicRecords)
        del connection._from_ssl  # type: ignore[attr-defined]
        self.assertIsInstance(records_of(connection), PublicRecords)

    def test_the_interface(self) -> None:
        nothing = Records()
        for call in (
            lambda: nothing.feed(b""),
            lambda: nothing.decrypt(),
            lambda: nothing.encrypt(b""),
            lambda: nothing.take(),
        ):
            self.assertRaises(NotImplementedError, call)
