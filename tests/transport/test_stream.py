"""Tests for L{reverseproxy.transport.stream}: what is not in the contract."""

from __future__ import annotations

import errno
from typing import Any

from twisted.internet.interfaces import ITLSTransport, IUNIXTransport

from reverseproxy.transport.stream import READ_SIZE
from tests.transport.contract import Contract, HalfRecorder


class Refusing:
    """A socket that does not send."""

    def __init__(self, socket: Any, number: int) -> None:
        self._socket = socket
        self.number = number

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def send(self, data: bytes) -> int:
        raise OSError(self.number, "refused")

    def sendmsg(self, data: list[bytes]) -> int:
        raise OSError(self.number, "refused")


class StreamTests(Contract):
    async def test_a_write_is_sent_at_once(self) -> None:
        protocol, peer = await self.connect()
        protocol.transport.write(b"now")
        self.assertEqual(protocol.transport.unsent, 0)
        self.assertEqual(self.reactor.getWriters(), [])
        self.assertEqual(await self.hear(peer), b"now")

    async def test_what_is_unsent_is_known_and_dropped(self) -> None:
        protocol, _ = await self.connect(small=True)
        protocol.transport.write(b"x" * 2**20)
        protocol.transport.write(b"y" * 1000)
        self.assertGreater(protocol.transport.unsent, 1000)
        self.assertEqual(self.reactor.getWriters(), [protocol.transport])
        protocol.transport.abortConnection()
        await self.aborted(protocol)
        self.assertEqual(protocol.transport.unsent, 0)

    async def test_one_read_is_bounded(self) -> None:
        protocol, peer = await self.connect()
        await self.send(peer, bytes(4 * READ_SIZE))
        await self.until(lambda: len(protocol.data) == 4 * READ_SIZE)
        self.assertLessEqual(max(map(len, protocol.pieces)), READ_SIZE)

    async def test_a_spurious_event(self) -> None:
        protocol, _ = await self.connect()
        self.assertIsNone(protocol.transport.doRead())
        self.assertIsNone(protocol.transport.doWrite())

    async def test_no_memory_for_now(self) -> None:
        protocol, peer = await self.connect()
        transport = protocol.transport
        transport.socket, real = Refusing(transport.socket, errno.ENOBUFS), transport.socket
        transport.write(b"patience")
        await self.turn(10)
        self.assertEqual(protocol.events, ["made"])
        transport.socket = real
        self.assertEqual(await self.receive(peer, 8), b"patience")

    async def test_no_route(self) -> None:
        protocol, peer = await self.connect(HalfRecorder)
        transport = protocol.transport
        transport.socket = Refusing(transport.socket, errno.EHOSTUNREACH)
        peer.send(b"the last that comes")
        transport.write(b"x")
        await self.broken(protocol)
        self.assertEqual(protocol.data, b"the last that comes")
        self.assertEqual(protocol.events, ["made", "lost"])

    async def test_half_closing_a_lost_connection(self) -> None:
        protocol, peer = await self.connect(HalfRecorder)
        peer.close()
        await self.until(lambda: "read lost" in protocol.events)
        protocol.transport.abortConnection()
        await self.aborted(protocol)
        protocol.transport.loseWriteConnection()

    async def test_there_is_no_startTLS(self) -> None:
        protocol, _ = await self.connect()
        self.assertFalse(ITLSTransport.providedBy(protocol.transport))
        self.assertRaises(NotImplementedError, protocol.transport.startTLS, None)


class UnixStreamTests(Contract):
    family = "UNIX"

    async def test_no_descriptors_are_passed(self) -> None:
        protocol, _ = await self.connect()
        self.assertFalse(IUNIXTransport.providedBy(protocol.transport))
        self.assertRaises(NotImplementedError, protocol.transport.sendFileDescriptor, 0)


# It only exists to be derived from.
del Contract
