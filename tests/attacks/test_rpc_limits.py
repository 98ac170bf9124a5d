"""RPC requests with very short or very long timeouts of their own: none counts against a host."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.wire.rpc.bolt import Bolt, encode_request
from reverseproxy.wire.rpc.dubbo import Dubbo, encode_frame
from reverseproxy.wire.rpc.xprotocol import RpcFrameDecoder, XProtocol
from tests.attacks.memory import RpcService, World

LIMITS: dict[str, str] = {"x-mosn-try-timeout": "1", "x-mosn-global-timeout": "1"}

CALL = b"\x052.0.2\x0fcom.example.Svc\x050.0.0\x03say\x00"
HURRIED = CALL + b"H\x07timeout\x011\x12x-mosn-try-timeout\x011Z"
"""The same with attachments that other proxies act on."""


def requests(protocol: XProtocol, number: int) -> Iterator[tuple[str, bytes]]:
    """Requests with limits of each kind."""
    if isinstance(protocol, Dubbo):
        yield "attachments", encode_frame(0xC2, number, HURRIED)
        return
    version = 2 if protocol.name == "boltv2" else 1
    for timeout in (1, 0, -1, -(1 << 31), (1 << 31) - 1):
        for fields in ({}, LIMITS):
            name = f"{timeout} ms and {len(fields)} headers"
            yield name, encode_request(number, {"service": "a", **fields}, timeout=timeout, version=version)


def plain(protocol: XProtocol) -> bytes:
    """A request without any."""
    if isinstance(protocol, Dubbo):
        return encode_frame(0xC2, 1, CALL)
    version = 2 if protocol.name == "boltv2" else 1
    return encode_request(1, {"service": "a"}, timeout=0, version=version)


class LimitTests(SynchronousTestCase):
    """A service that takes half a second for an answer."""

    PROTOCOLS: tuple[XProtocol, ...] = (Bolt(), Bolt(2), Dubbo())

    def worlds(self) -> Iterator[tuple[XProtocol, World]]:
        for protocol in self.PROTOCOLS:
            for streams in (False, True):
                service = partial(RpcService, protocol)
                world = World(protocol.name, clients=protocol.name, streams=streams, service=service)
                yield protocol, world

    def statuses(self, protocol: XProtocol, data: bytes) -> list[int]:
        """What was answered, as HTTP has it."""
        return [protocol.http_status(frame) for frame in RpcFrameDecoder(protocol).feed(data)]

    def test_in_a_hurry(self) -> None:
        for protocol, world in self.worlds():
            clients = [world.client() for _ in range(3)]
            for number in range(1, 6):
                for kind, request in requests(protocol, number):
                    for client in clients:
                        client.send(request)
                    world.advance(0.1)
                    world.check(self, f"{protocol.name}: {kind}", left=0)
            world.advance(3.0)
            honest = world.client()
            honest.send(plain(protocol))
            world.advance(1.0)
            self.assertEqual(self.statuses(protocol, honest.take()), [200], protocol.name)
            world.check(self, protocol.name, left=0)

    def test_in_no_hurry(self) -> None:
        """The route's time counts, whatever a stranger says; one that is silent for it may be left out."""
        for protocol, world in self.worlds():
            world.silent = True
            client = world.client()
            asked = 0
            for number, (_, request) in enumerate(requests(protocol, 1), 1):
                client.send(request.replace(b"\0\0\0\1", number.to_bytes(4, "big"), 1))
                asked += 1
            world.advance(3.0)
            self.assertEqual(self.statuses(protocol, client.take()), [504] * asked, protocol.name)

    def test_gone(self) -> None:
        """Who asks, and does not wait."""
        for protocol, world in self.worlds():
            for _ in range(10):
                client = world.client()
                client.send(plain(protocol))
                client.recorder.transport.abortConnection()
                world.advance(0.1)
            world.advance(1.0)
            world.check(self, protocol.name, left=0)
