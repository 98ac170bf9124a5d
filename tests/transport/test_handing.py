"""Connections that are taken out of one transport and put into another, as between processes."""

from __future__ import annotations

import socket
from collections.abc import Generator
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from reverseproxy.errors import ConnectionUnavailable
from reverseproxy.testing import MemoryReactor
from reverseproxy.transport import is_supported, with_streams
from reverseproxy.transport.handing import discard, is_socket, lose, make_pair, put_in, take_out


class Noting(Protocol):
    """Notes what it is told."""

    transport: Any

    def __init__(self) -> None:
        self.data = b""
        self.made: Deferred[None] = Deferred()
        self.lost = 0

    def connectionMade(self) -> None:
        self.made.callback(None)

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Any = None) -> None:
        self.lost += 1


class HandingTests(TestCase):
    """Over our transports."""

    def setUp(self) -> None:
        self.clock: Any = with_streams(reactor) if is_supported(reactor) else reactor

    @inlineCallbacks
    def connect(self, family: int = socket.AF_INET) -> Generator[Any, Any, tuple[socket.socket, Noting]]:
        """A peer's end, which blocks, and a protocol at the other end."""
        if family == socket.AF_UNIX:
            peer, ours = socket.socketpair()
        else:
            with socket.create_server(("127.0.0.1", 0)) as listening:
                peer = socket.create_connection(listening.getsockname())
                ours, _ = listening.accept()
        peer.settimeout(10)
        self.addCleanup(peer.close)
        protocol = Noting()
        put_in(ours, protocol, self.clock)
        yield protocol.made
        return peer, protocol

    @inlineCallbacks
    def until(self, done: Any) -> Generator[Any, Any, None]:
        for _ in range(1000):
            if done():
                return
            yield deferLater(reactor, 0.01)
        self.fail("that takes too long")

    @inlineCallbacks
    def test_what_was_not_read_goes_along(self) -> Generator[Any, Any, None]:
        for family in (socket.AF_INET, socket.AF_UNIX):
            peer, first = yield self.connect(family)
            self.assertTrue(is_socket(first.transport))
            peer.sendall(b"one")
            yield self.until(lambda first=first: first.data == b"one")
            first.transport.pauseProducing()
            peer.sendall(b"two")
            taken = take_out(first.transport)
            # Nothing that the first one does reaches the connection any more.
            first.transport.loseConnection()
            first.transport.abortConnection()
            first.transport.write(b"nobody hears that")
            lose(first, ConnectionUnavailable("it is another one's"))
            second = Noting()
            put_in(taken, second, self.clock)
            yield self.until(lambda second=second: second.data == b"two")
            second.transport.write(b"answer")
            yield deferLater(reactor, 0.01)  # Twisted's transports send in another turn
            self.assertEqual(peer.recv(100), b"answer")
            self.assertEqual((first.data, first.lost), (b"one", 1))
            peer.close()
            yield self.until(lambda second=second: second.lost)

    @inlineCallbacks
    def test_not_while_something_is_to_be_sent(self) -> Generator[Any, Any, None]:
        peer, protocol = yield self.connect()
        size = 20_000_000  # more than the kernel takes
        protocol.transport.write(b"x" * size)
        self.assertIsNone(take_out(protocol.transport))
        received = 0
        while received < size:
            yield deferLater(reactor, 0)
            peer.setblocking(False)
            try:
                received += len(peer.recv(2**20))
            except BlockingIOError:
                continue
        yield self.until(lambda: not getattr(protocol.transport, "unsent", 0))
        yield deferLater(reactor, 0.01)
        taken = take_out(protocol.transport)
        self.assertIsNotNone(taken)
        discard(taken)
        peer.setblocking(True)
        self.assertEqual(peer.recv(1), b"")

    @inlineCallbacks
    def test_not_while_it_is_closing(self) -> Generator[Any, Any, None]:
        peer, protocol = yield self.connect()
        protocol.transport.loseConnection()
        self.assertIsNone(take_out(protocol.transport))
        yield self.until(lambda: protocol.lost)
        self.assertIsNone(take_out(protocol.transport))
        self.assertEqual(peer.recv(1), b"")

    @inlineCallbacks
    def test_not_with_a_producer(self) -> Generator[Any, Any, None]:
        peer, protocol = yield self.connect()
        protocol.transport.registerProducer(protocol.transport, True)
        self.assertIsNone(take_out(protocol.transport))
        protocol.transport.unregisterProducer()
        taken = take_out(protocol.transport)
        discard(taken)
        self.assertEqual(peer.recv(1), b"")

    @inlineCallbacks
    def test_a_pair(self) -> Generator[Any, Any, None]:
        one, other = Noting(), Noting()
        for end, protocol in zip(make_pair(self.clock), (one, other), strict=True):
            put_in(end, protocol, self.clock)
        one.transport.write(b"hello")
        yield self.until(lambda: other.data == b"hello")
        other.transport.loseConnection()
        yield self.until(lambda: one.lost and other.lost)


class StockTests(HandingTests):
    """Over Twisted's."""

    def setUp(self) -> None:
        self.clock = reactor


class MemoryTests(TestCase):
    """In memory, as tests of workers have it."""

    def test_it_is_the_same(self) -> None:
        clock = MemoryReactor()
        peer, first, second = Noting(), Noting(), Noting()
        ours, theirs = make_pair(clock)
        put_in(ours, first, clock)
        put_in(theirs, peer, clock)
        first.transport.pauseProducing()
        peer.transport.write(b"unread")
        clock.settle()
        taken = take_out(first.transport)
        first.transport.abortConnection()
        clock.settle()
        put_in(taken, second, clock)
        second.transport.write(b"answer")
        clock.settle()
        self.assertEqual((first.data, second.data, peer.data), (b"", b"unread", b"answer"))
        self.assertIsNone(take_out(first.transport))
        discard(take_out(second.transport))
        clock.settle()
        self.assertEqual(peer.lost, 1)
        end = make_pair(clock)[0]
        discard(end)
        clock.settle()
        self.assertRaises(ConnectionUnavailable, put_in, end, Noting(), clock)
