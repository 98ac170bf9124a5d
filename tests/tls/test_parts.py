"""Unit tests for the parts of a TLS connection."""

from __future__ import annotations

from typing import Any
from unittest import mock

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.limits.buffered_bytes import FREE, BufferBudget
from reverseproxy.net.time_share import TimeShare
from reverseproxy.tls import opening
from reverseproxy.tls.client_hello import ClientHello
from reverseproxy.tls.opening import MOST_EARLY, ClientOpening
from reverseproxy.tls.producing import EarlyWriter
from tests.tls.test_client_hello import real_hello


class Transport:
    """Writes down which producer it has."""

    def __init__(self) -> None:
        self.producer: Any = None

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 1)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = producer, streaming

    def unregisterProducer(self) -> None:
        self.producer = None


class Producer:
    def __init__(self) -> None:
        self.told: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return lambda: self.told.append(name.removesuffix("Producing"))


class EarlyWriterTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.writer, self.producer, self.transport = EarlyWriter(), Producer(), Transport()

    def test_before_the_handshake_is_complete(self) -> None:
        self.writer.register(self.producer, True, None)
        self.assertFalse(self.writer.has_written)
        for data in (b"a", b"b"):
            self.writer.keep(data)
        self.assertEqual(self.producer.told, ["pause", "pause"])
        self.assertIsNone(self.transport.producer)
        self.writer.pass_down(self.transport)
        self.assertEqual(self.transport.producer, (self.producer, True))
        self.assertEqual((self.writer.take(), self.writer.has_written), (b"ab", False))
        self.writer.resume()
        self.assertEqual(self.producer.told[2:], ["resume"])

    def test_registered_behind_what_was_written(self) -> None:
        self.writer.keep(b"a")
        self.writer.register(self.producer, True, None)
        self.assertEqual(self.producer.told, ["pause"])

    def test_one_that_pulls(self) -> None:
        """It is asked for nothing before the transport asks."""
        self.writer.keep(b"a")
        self.writer.register(self.producer, False, None)
        self.writer.keep(b"b")
        self.writer.pass_down(self.transport)
        self.writer.resume()
        self.assertEqual((self.producer.told, self.transport.producer), ([], (self.producer, False)))

    def test_afterwards(self) -> None:
        self.writer.register(self.producer, True, self.transport)
        self.assertEqual(self.transport.producer, (self.producer, True))
        with self.assertRaisesRegex(RuntimeError, "was never unregistered"):
            self.writer.register(Producer(), True, self.transport)
        self.assertTrue(self.writer.unregister())
        self.assertFalse(self.writer.unregister())
        self.assertIsNone(self.transport.producer)

    def test_closing(self) -> None:
        """The transport closes; the producer is told when the connection is lost."""
        self.writer.register(self.producer, True, self.transport)
        self.writer.withdraw()
        self.assertIsNone(self.transport.producer)
        self.writer.lose()
        self.assertEqual((self.producer.told, self.writer.producer), (["stop"], None))

    def test_a_loss(self) -> None:
        """The transport tells producers that it knows."""
        self.writer.register(self.producer, True, self.transport)
        self.writer.lose()
        self.assertEqual(self.producer.told, [])
        self.writer.register(self.producer, True, None)
        self.writer.keep(b"x")
        self.writer.lose()
        self.assertEqual((self.producer.told, self.writer.has_written), (["pause", "stop"], False))


class OpeningTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.books = BufferBudget(10_000)
        self.patch(opening, "UNTRUSTED", self.books)
        self.clock = Clock()
        self.chosen: list[ClientHello] = []
        self.data: list[bytes] = []
        self.reasons: list[str] = []

    # what its owner is told

    def choose(self, hello: ClientHello) -> None:
        self.chosen.append(hello)

    def step(self, data: bytes) -> None:
        self.data.append(data)

    def refuse(self, reason: str) -> None:
        self.reasons.append(reason)

    def pause(self) -> None:
        self.data.append(b"pause")

    def resume(self) -> None:
        self.data.append(b"resume")

    def end(self) -> None:
        self.data.append(b"end")

    def make(self, share: TimeShare | None = None, chooses: bool = False) -> ClientOpening:
        return ClientOpening(self, Transport(), share, chooses)

    def test_at_once(self) -> None:
        each = self.make()
        each.receive(b"a")
        each.receive(b"b")
        self.assertEqual(self.data, [b"a", b"b"])
        each.stop()
        each.receive(b"c")
        self.assertEqual(self.data, [b"a", b"b"])

    def test_the_first_message_chooses(self) -> None:
        """It is kept until it is whole, wherever it is cut, and nothing is chosen before."""
        hello = real_hello(b"a.example", [])
        for cut in range(1, len(hello)):
            self.data, self.chosen = [], []
            each = self.make(chooses=True)
            each.receive(hello[:cut])
            self.assertEqual((self.data, self.chosen), ([], []))
            each.receive(hello[cut:] + b"more")
            each.receive(b"and more")
            self.assertEqual(self.data, [hello + b"more", b"and more"])
            self.assertEqual([found.server_name for found in self.chosen], ["a.example"])

    def test_queued(self) -> None:
        share = mock.Mock()
        each = self.make(share)
        each.receive(b"a")
        each.receive(b"b")
        [(_, go, drop)] = [call.args for call in share.ask.call_args_list]
        self.assertEqual(self.data, [])
        go()
        self.assertEqual(self.data, [b"ab"])
        drop("too many")
        self.assertEqual(self.reasons, ["too many"])

    def test_closed_while_queued(self) -> None:
        share = mock.Mock()
        each = self.make(share)
        each.receive(b"a")
        each.close()
        share.ask.return_value.cancel.assert_called_once_with()
        [(_, go, _)] = [call.args for call in share.ask.call_args_list]
        go()
        self.assertEqual(self.data, [])

    def test_much_meanwhile(self) -> None:
        """No more is read until there is time for it."""
        share = mock.Mock()
        each = self.make(share)
        self.books.limit = 1 << 20
        each.receive(bytes(MOST_EARLY))
        self.assertEqual(self.data, [])
        each.receive(b"x")
        each.receive(b"y")
        self.assertEqual(self.data, [b"pause"])
        share.ask.call_args.args[1]()
        self.assertEqual(self.data[1:], [bytes(MOST_EARLY) + b"xy", b"resume"])
        self.assertEqual(self.reasons, [])

    def test_an_end(self) -> None:
        """One that can't complete its handshake any more is not waited for."""
        share = mock.Mock()
        each = self.make(share)
        each.receive(b"a")
        self.assertFalse(each.defer_end())
        share.ask.call_args.args[1]()
        self.assertFalse(each.defer_end())
        each.receive(b"b")
        self.assertTrue(each.defer_end())
        share.ask.call_args.args[1]()
        self.assertEqual(self.data, [b"a", b"b", b"end"])
        each.receive(b"c")
        each.stop()
        self.assertFalse(each.defer_end())

    def test_what_is_unfinished_is_counted(self) -> None:
        each = self.make()
        each.receive(bytes(FREE - 1))
        self.assertEqual(self.books.total, 0)
        each.receive(bytes(FREE))
        self.assertEqual((self.books.total, self.reasons), (2 * FREE - 1, []))
        each.receive(bytes(FREE))
        self.assertEqual((self.books.total, len(self.reasons)), (0, 1))  # it has to go
        other = self.make()
        other.receive(bytes(FREE + 1))
        self.assertEqual(self.books.total, FREE + 1)
        other.close()
        self.assertEqual(self.books.total, 0)
