"""Tests for L{reverseproxy.transport.departures}, with sockets whose peer is not heard of any more."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.transport.departures import Departures, positions
from tests.blackhole import blackhole

SIZE = 1100
COUNT = 60


class Under:
    """A connection, as far as it matters."""

    before_close: Any = None

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection

    def getHandle(self) -> socket.socket:
        return self.socket

    def fileno(self) -> int:
        return self.socket.fileno()


class DeparturesTests(SynchronousTestCase):
    def setUp(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as port:
            self.near = socket.create_connection(port.getsockname())
            self.far, _ = port.accept()
        self.near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.addCleanup(self.near.close)
        self.addCleanup(self.far.close)
        self.under = Under(self.near)
        self.departures = Departures(self.under)

    def write(self, count: int = COUNT, first: int = 0) -> None:
        """Write messages, each of which has its number, and a note before it."""
        for number in range(first, first + count):
            self.departures.note(number)
            self.near.sendall(bytes((number + 1,)) * SIZE)

    def end(self, reason: Exception) -> set[int]:
        """Lose the connection; the numbers of messages of which the peer has anything."""
        self.under.before_close(Failure(reason))
        self.near.close()
        came = b""
        self.far.settimeout(5)
        try:
            while data := self.far.recv(1 << 20):
                came += data
        except ConnectionResetError:
            pass
        return set(came)

    def test_what_has_not_left(self) -> None:
        """What comes after the mark has not arrived, nor will it; before that, all may have."""
        for warm in (0, 200):
            for _ in range(warm):
                self.near.sendall(b"x" * SIZE)
                self.far.recv(SIZE, socket.MSG_WAITALL)
            blackhole(self.near)  # acknowledgements do not come, but what is sent arrives
            self.write()
            came = self.end(ConnectionAborted())
            stayed = self.departures.stayed
            assert stayed is not None
            self.assertLess(stayed, COUNT - 10)
            self.assertTrue(came)
            self.assertLessEqual(max(came), stayed + 1)
            self.setUp()

    def test_positions(self) -> None:
        before = positions(self.under)
        assert before is not None
        self.assertEqual(before.written, before.sent)
        blackhole(self.near, self.far)
        self.near.sendall(b"x" * SIZE * COUNT)
        after = positions(self.under)
        assert after is not None
        self.assertEqual(after.written - before.written, SIZE * COUNT)
        self.assertLess(after.sent, after.written)

    def test_all_has_left(self) -> None:
        blackhole(self.near)
        self.write(3)
        self.assertEqual(self.end(ConnectionAborted()), {1, 2, 3})
        self.assertIsNone(self.departures.stayed)

    def test_a_peer_that_ends(self) -> None:
        """Nothing is cut off, and nothing said."""
        self.write(COUNT)
        self.far.recv(1)
        self.assertEqual(len(self.end(ConnectionDone())), COUNT)
        self.assertIsNone(self.departures.stayed)

    def test_it_goes_on(self) -> None:
        blackhole(self.near)
        self.write()
        self.departures.forget()
        self.under.before_close(Failure(ConnectionAborted()))
        self.assertIsNone(self.departures.stayed)

    def test_what_can_not_be_asked(self) -> None:
        for other in (object(), Under(socket.socket(socket.AF_UNIX))):
            departures = Departures(other)
            departures.note(1)
            self.assertIsNone(positions(other))
            if isinstance(other, Under):
                other.before_close(Failure(ConnectionAborted()))
                other.socket.close()
            self.assertIsNone(departures.stayed)
