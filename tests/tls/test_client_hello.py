from __future__ import annotations

import contextlib
import ssl
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.tls.client_hello import MAX_HELLO, ClientHello, ClientHelloReader


def real_hello(server_name: bytes | None, alpn: list[bytes]) -> bytes:
    """The first bytes of pyOpenSSL's client."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    if alpn:
        context.set_alpn_protos(alpn)
    connection = SSL.Connection(context, None)
    connection.set_connect_state()
    if server_name is not None:
        connection.set_tlsext_host_name(server_name)
    with contextlib.suppress(SSL.WantReadError):
        connection.do_handshake()
    return connection.bio_read(65536)


def records(message: bytes, size: int) -> bytes:
    """A handshake message in records of at most C{size} bytes."""
    pieces = [message[i : i + size] for i in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece for piece in pieces)


def feed_all(data: bytes, cuts: list[int]) -> ClientHello | None:
    reader = ClientHelloReader()
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for begin, end in pairwise(edges):
        hello = reader.feed(data[begin:end])
        if hello is not None:
            return hello
    return None


HELLO = real_hello(b"www.example.com", [b"h2", b"http/1.1"])
EXPECTED = ClientHello("www.example.com", ("h2", "http/1.1"))


class ClientHelloTests(SynchronousTestCase):
    def test_names_and_protocols(self) -> None:
        self.assertEqual(feed_all(HELLO, []), EXPECTED)

    def test_nothing_asked_for(self) -> None:
        self.assertEqual(feed_all(real_hello(None, []), []), ClientHello())

    def test_name_in_one_form(self) -> None:
        self.assertEqual(feed_all(real_hello(b"WWW.Example.com.", []), []), ClientHello("www.example.com"))

    def test_another_implementation(self) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context()
        context.set_alpn_protocols(["sofa"])
        tls = context.wrap_bio(incoming, outgoing, server_hostname="a.example.org")
        with self.assertRaises(ssl.SSLWantReadError):
            tls.do_handshake()
        self.assertEqual(feed_all(outgoing.read(), []), ClientHello("a.example.org", ("sofa",)))

    @given(st.lists(st.integers(0, 100_000), max_size=20))
    def test_any_pieces(self, cuts: list[int]) -> None:
        self.assertEqual(feed_all(HELLO, cuts), EXPECTED)

    @settings(deadline=None)
    @given(st.integers(1, 600))
    def test_any_records(self, size: int) -> None:
        self.assertEqual(feed_all(records(HELLO[5:], size), []), EXPECTED)

    def test_empty_records_between(self) -> None:
        self.assertEqual(feed_all(b"\x16\x03\x01\0\0" * 3 + HELLO, []), EXPECTED)

    @given(st.integers(0, len(HELLO) - 1))
    def test_incomplete(self, length: int) -> None:
        self.assertIsNone(ClientHelloReader().feed(HELLO[:length]))

    def test_what_follows_is_ignored(self) -> None:
        self.assertEqual(ClientHelloReader().feed(HELLO + b"more"), EXPECTED)

    def test_not_tls(self) -> None:
        self.assertEqual(ClientHelloReader().feed(b"GET / HTTP/1.1\r\n"), ClientHello())

    def test_another_handshake_message(self) -> None:
        self.assertEqual(ClientHelloReader().feed(records(b"\x02\0\0\x01x", 100)), ClientHello())

    def test_hello_of_an_old_client_without_extensions(self) -> None:
        body = b"\x03\x03" + bytes(32) + b"\0" + b"\0\x02\xc0\x2f" + b"\x01\0"
        message = b"\x01" + len(body).to_bytes(3, "big") + body
        self.assertEqual(ClientHelloReader().feed(records(message, 100)), ClientHello())

    def test_a_name_of_another_type_is_ignored(self) -> None:
        name = b"\0\x04\x01\0\x01x"
        extensions = b"\0\0" + len(name).to_bytes(2, "big") + name
        body = b"\x03\x03" + bytes(32) + b"\0" + b"\0\x02\xc0\x2f" + b"\x01\0"
        body += len(extensions).to_bytes(2, "big") + extensions
        message = b"\x01" + len(body).to_bytes(3, "big") + body
        self.assertEqual(ClientHelloReader().feed(records(message, 100)), ClientHello())

    def test_too_long(self) -> None:
        reader = ClientHelloReader()
        endless = b"\x16\x03\x01\xff\xff"
        self.assertIsNone(reader.feed(endless + bytes(MAX_HELLO - 6)))
        self.assertEqual(reader.feed(b"x"), ClientHello())

    @given(st.binary(max_size=300), st.lists(st.integers(0, 400), max_size=5))
    def test_garbage_asks_for_nothing(self, garbage: bytes, cuts: list[int]) -> None:
        self.assertIn(feed_all(garbage, cuts), (None, ClientHello()))

    @given(st.integers(11, len(HELLO) - 1), st.integers(0, 255))
    def test_any_damage_is_survived(self, position: int, value: int) -> None:
        damaged = bytearray(HELLO)
        damaged[position] = value
        self.assertIsInstance(ClientHelloReader().feed(bytes(damaged)), ClientHello)
