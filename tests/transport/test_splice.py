"""Tests for L{reverseproxy.transport.stream.StreamTransport.splice_to} and L{reverseproxy.transport.pipe}."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import socket
from typing import Any
from unittest.mock import patch

from twisted.internet import reactor as stock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.transport import splice_to, stop_splice, stream
from reverseproxy.transport.pipe import PIPE_SIZE, Pipe
from reverseproxy.transport.stream import READ_SIZE
from tests.transport.contract import Contract, HalfRecorder, Recorder, read_now, reset

MANY = 2**40


class SpliceTestCase(Contract):
    """Two connections: what comes on the first one is passed on to the second."""

    def setUp(self) -> None:
        super().setUp()
        self.passed = 0
        self.moved = 0
        self.counting = patch.object(Pipe, "move", self.counted(Pipe.move))
        self.counting.start()
        self.addCleanup(self.counting.stop)

    def counted(self, move: Any) -> Any:
        def counting(*arguments: Any) -> Any:
            found = move(*arguments)
            self.moved += found[0]
            return found

        return counting

    def tell(self, size: int) -> None:
        self.assertGreater(size, 0)
        self.passed += size

    async def join(
        self, size: int = MANY, kind: Any = Recorder, small: bool = False
    ) -> tuple[Any, socket.socket, Any, socket.socket]:
        source, sender = await self.connect(kind)
        target, receiver = await self.connect(kind, small=small)
        target.transport.registerProducer(source.transport, True)
        self.assertTrue(splice_to(source.transport, target.transport, size, self.tell))
        return source, sender, target, receiver

    async def flow(self, sender: socket.socket, data: bytes, receiver: socket.socket) -> bytes:
        """Send, and receive as much."""
        received, view = bytearray(), memoryview(data)
        while len(received) < len(data):
            with contextlib.suppress(BlockingIOError):
                view = view[sender.send(view) :] if view else view
            with contextlib.suppress(BlockingIOError):
                piece = receiver.recv(2**18)
                if not piece:
                    break
                received += piece
            await self.turn(1)
        return bytes(received)


class SpliceTests(SpliceTestCase):
    async def test_little(self) -> None:
        source, sender, target, receiver = await self.join()
        for data in (b"a", b"bc" * 1000, b"d"):
            self.assertEqual(await self.flow(sender, data, receiver), data)
        self.assertEqual((self.passed, self.moved), (2002, 0))
        self.assertEqual(source.pieces, [])
        self.assertEqual(target.pieces, [])

    async def test_much(self) -> None:
        """Most of it does not come here."""
        source, sender, _, receiver = await self.join()
        data = random.Random(1).randbytes(12_345_678)
        self.assertEqual(await self.flow(sender, data, receiver), data)
        self.assertEqual(self.passed, len(data))
        self.assertGreater(self.moved, len(data) // 4)
        self.assertEqual(await self.flow(sender, b"and little again", receiver), b"and little again")
        self.assertEqual(source.pieces, [])

    async def test_so_many_bytes(self) -> None:
        """What is behind them is the protocol's."""
        for size in (1, 1000, 1_000_000):
            source, sender, _, receiver = await self.join(size)
            self.passed = 0
            data = random.Random(size).randbytes(size)
            await self.send(sender, data + b"for the protocol")
            self.assertEqual(await self.receive(receiver, size), data)
            await self.until(lambda source=source: len(source.data) == 16)
            self.assertEqual((source.data, self.passed), (b"for the protocol", size))
            self.assertEqual(read_now(receiver), b"")

    async def test_kept_back(self) -> None:
        source, sender, _, receiver = await self.join()
        self.assertEqual(await self.flow(sender, b"x" * 2**20, receiver), b"x" * 2**20)
        stop_splice(source.transport)
        await self.send(sender, b"y" * 100_000)
        await self.until(lambda: len(source.data) == 100_000)
        self.assertEqual(read_now(receiver), b"")
        self.assertEqual(self.passed, 2**20)

    async def test_a_target_that_does_not_read(self) -> None:
        """What is kept is bounded, and nothing of it is lost or comes twice."""
        source, sender, target, receiver = await self.join(small=True)
        data = random.Random(2).randbytes(8_000_000)
        view = memoryview(data)
        for _ in range(200):
            with contextlib.suppress(BlockingIOError):
                view = view[sender.send(view) :]
            await self.turn(1)
        self.assertTrue(view)
        self.assertEqual(source.transport.reactor.getReaders().count(source.transport), 0)
        self.assertLessEqual(target.transport.unsent, READ_SIZE + target.transport.bufferSize)
        rest = bytes(view)
        received = bytearray()
        while len(received) < len(data):
            received += read_now(receiver)
            with contextlib.suppress(BlockingIOError):
                rest = rest[sender.send(rest) :] if rest else rest
            await self.turn(1)
        self.assertEqual(bytes(received), data)
        self.assertEqual(self.passed, len(data))

    async def test_a_slow_target(self) -> None:
        _, sender, target, receiver = await self.join(small=True)
        data = random.Random(3).randbytes(3_000_000)
        view, received = memoryview(data), bytearray()
        draw = random.Random(4)
        while len(received) < len(data):
            with contextlib.suppress(BlockingIOError):
                view = view[sender.send(view[: draw.choice([1, 1000, 300_000])]) :] if view else view
            with contextlib.suppress(BlockingIOError):
                received += receiver.recv(draw.choice([10, 20_000, 300_000]))
            if draw.random() < 0.5:
                await self.turn(1)
        self.assertEqual(bytes(received), data)
        self.assertEqual(self.passed, len(data))
        self.assertEqual(target.transport.unsent, 0)

    async def test_behind_what_was_written(self) -> None:
        """What the protocol writes itself keeps its place."""
        _, sender, target, receiver = await self.join(small=True)
        target.transport.write(b"w" * 2**20)
        data = random.Random(5).randbytes(2**20)
        sent = bytearray()
        while len(sent) < 2**21:
            with contextlib.suppress(BlockingIOError):
                data = data[sender.send(data) :] if data else data
            with contextlib.suppress(BlockingIOError):
                sent += receiver.recv(2**18)
            await self.turn(1)
        self.assertEqual(bytes(sent), b"w" * 2**20 + random.Random(5).randbytes(2**20))

    async def test_end_of_file(self) -> None:
        for size in (0, 10, 3_000_000):
            source, sender, _, receiver = await self.join(kind=HalfRecorder)
            data = random.Random(size).randbytes(size)
            self.assertEqual(await self.flow(sender, data, receiver), data)
            sender.shutdown(socket.SHUT_WR)
            await self.until(lambda source=source: "read lost" in source.events)
            self.assertNotIn("lost", source.events)

    async def test_a_source_that_is_reset(self) -> None:
        source, sender, target, receiver = await self.join()
        self.assertEqual(await self.flow(sender, b"x" * 2**21, receiver), b"x" * 2**21)
        reset(sender)
        await self.broken(source)
        self.assertEqual(target.events, ["made"])

    async def test_a_target_that_is_reset(self) -> None:
        """It hears of that itself, and the pipe is empty for the next ones."""
        _, sender, target, receiver = await self.join()
        self.assertEqual(await self.flow(sender, b"x" * 2**21, receiver), b"x" * 2**21)
        reset(receiver)
        with contextlib.suppress(BlockingIOError):
            sender.send(b"y" * 2**20)
        await self.broken(target)
        _, sender, _, receiver = await self.join()
        data = random.Random(6).randbytes(2**21)
        self.assertEqual(await self.flow(sender, data, receiver), data)

    async def test_a_target_that_is_lost(self) -> None:
        """What comes after that is dropped, as what is written then."""
        source, sender, target, receiver = await self.join()
        self.assertEqual(await self.flow(sender, b"x" * 2**21, receiver), b"x" * 2**21)
        target.transport.unregisterProducer()
        target.transport.abortConnection()
        await self.aborted(target)
        before = self.passed
        await self.send(sender, b"y" * 2**20)
        await self.until(lambda: self.passed == before + 2**20)
        self.assertEqual(source.events, ["made"])

    async def test_a_source_that_is_aborted_by_whoever_is_told(self) -> None:
        source, sender = await self.connect()
        target, receiver = await self.connect()

        def told(size: int) -> None:
            self.passed += size
            if self.passed > 2**20:
                source.transport.abortConnection()

        splice_to(source.transport, target.transport, MANY, told)
        view = memoryview(bytes(2**23))
        while "lost" not in source.events:
            with contextlib.suppress(OSError):
                view = view[sender.send(view) :]
            read_now(receiver)
            await self.turn(1)
        await self.aborted(source)
        self.assertEqual(target.events, ["made"])

    async def test_an_error_of_whoever_is_told(self) -> None:
        """It ends the connection that it happened on, and no other."""
        source, sender = await self.connect()
        target, receiver = await self.connect()
        splice_to(source.transport, target.transport, MANY, lambda size: 1 // 0)
        await self.send(sender, b"x")
        await self.lost(source, ZeroDivisionError)
        self.assertEqual(await self.receive(receiver, 1), b"x")
        self.assertEqual(target.events, ["made"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class WithoutPipeTests(SpliceTestCase):
    """Where the kernel moves nothing for us, we do."""

    async def check(self, moved: int) -> None:
        with patch.object(stream, "_pipes", stream._Pipes()):
            _, sender, _, receiver = await self.join()
            data = random.Random(7).randbytes(3_000_000)
            self.assertEqual(await self.flow(sender, data, receiver), data)
            self.assertEqual((self.passed, self.moved), (len(data), moved))

    async def test_no_pipe(self) -> None:
        with patch.object(os, "pipe2", side_effect=OSError(errno.EMFILE, "too many")):
            await self.check(0)

    async def test_refused(self) -> None:
        for number in (errno.EINVAL, errno.EPERM, errno.ENOSYS):
            self.passed = 0
            with patch.object(os, "splice", side_effect=OSError(number, "refused")) as splice:
                await self.check(0)
            splice.assert_called_once()

    async def test_a_target_that_refuses(self) -> None:
        """What is in the pipe already is not lost."""
        real = os.splice
        calls = []

        def splice(source: int, target: int, count: int, **options: Any) -> int:
            calls.append(count)
            if len(calls) == 2:
                raise OSError(errno.EINVAL, "refused")
            return real(source, target, count, **options)

        with patch.object(os, "splice", splice), patch.object(stream, "_pipes", stream._Pipes()):
            _, sender, _, receiver = await self.join()
            data = random.Random(8).randbytes(3_000_000)
            self.assertEqual(await self.flow(sender, data, receiver), data)
        self.assertEqual(len(calls), 2)


class UnixTests(SpliceTestCase):
    family = "UNIX"

    async def test_much(self) -> None:
        _, sender, _, receiver = await self.join()
        data = random.Random(9).randbytes(3_000_000)
        self.assertEqual(await self.flow(sender, data, receiver), data)
        self.assertEqual(self.passed, len(data))


class OthersTests(Contract):
    """Connections that are not ours are left alone."""

    async def test_others(self) -> None:
        ours, _ = await self.connect()
        self.assertFalse(splice_to(ours.transport, object(), 1, print))
        self.assertFalse(splice_to(object(), ours.transport, 1, print))
        self.reactor = stock
        other, _ = await self.connect()
        self.assertFalse(splice_to(ours.transport, other.transport, 1, print))
        self.assertFalse(splice_to(other.transport, ours.transport, 1, print))


class PipeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.pipe = Pipe()
        self.addCleanup(self.pipe.close)
        self.sockets = [*socket.socketpair(), *socket.socketpair()]
        for each in self.sockets:
            each.setblocking(False)
            self.addCleanup(each.close)
        self.sender, self.source, self.target, self.receiver = self.sockets

    def move(self, limit: int = PIPE_SIZE) -> tuple[int, bytes, OSError | None]:
        return self.pipe.move(self.source.fileno(), self.target.fileno(), limit)

    def test_move(self) -> None:
        self.sender.send(b"abcdef")
        self.assertEqual(self.move(4), (4, b"", None))
        self.assertEqual(self.receiver.recv(10), b"abcd")
        self.assertEqual(self.move(), (2, b"", None))
        self.assertRaises(BlockingIOError, self.move)
        self.sender.close()
        self.assertEqual(self.move(), (0, b"", None))

    def test_what_the_target_does_not_take(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                self.target.send(b"x" * 1000)
        self.sender.send(b"abc")
        self.assertEqual(self.move(), (3, b"abc", None))
        self.assertRaises(BlockingIOError, self.move)

    def test_error(self) -> None:
        self.receiver.close()
        self.sender.send(b"abc")
        size, rest, error = self.move()
        self.assertEqual((size, rest), (3, b"abc"))
        assert error is not None
        self.assertEqual(error.errno, errno.EPIPE)

    def test_short(self) -> None:
        with patch("fcntl.fcntl", return_value=4096), self.assertRaises(OSError):
            Pipe()
