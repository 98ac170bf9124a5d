"""
Clients and hosts that act at random, within the rules of HTTP/2, and sometimes disconnect.

In any order of events: data arrives as it was sent, from its beginning and without
a gap; a message that ends is complete; and when all have disconnected, nothing is
under way.
"""

from __future__ import annotations

import random
from functools import lru_cache
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.wire.http2.frames import ErrorCode
from tests.proxy.http2_memory import Http2Peer, Http2World
from tests.proxy.memory import Wire
from tests.proxy.test_http2 import HTTP1
from tests.proxy.test_http2_client import HTTP2
from tests.wire.http2_frames import GET, OK, POST


@lru_cache(1000)
def whole(name: bytes) -> bytes:
    return b"".join(b"%b:%06d;" % (name, i) for i in range(10_000))[:100_000]


def pattern(name: bytes, size: int) -> bytes:
    """A body that shows whose it is, and where a gap is."""
    return whole(name)[:size]


class _Asker:
    """A client with a connection."""

    def __init__(self, world: Http2World, rng: random.Random, name: bytes, **connect: Any) -> None:
        window = rng.choice((0, 100, 16_384, 65_535, 1_000_000))
        self.peer = world.connect({4: window}, automatic=rng.random() < 0.5, **connect)
        self.rng = rng
        self.name = name
        self.window = window
        self.asked: dict[int, bytes] = {}
        self.unsent: dict[int, bytes] = {}
        self.credit: dict[int, int] = {}
        self.reset: set[int] = set()

    @property
    def gone(self) -> bool:
        wire = self.peer.wire
        return wire.lost or wire.aborted or wire.write_closed or wire.disconnecting

    def step(self) -> None:
        rng, peer = self.rng, self.peer
        choice = rng.random()
        if self.gone:
            return
        if choice < 0.25 and len(self.asked) < 40:
            name = b"%b-%d" % (self.name, peer._next)
            if rng.random() < 0.5:
                number = peer.ask([*GET, (b"x-name", name)])
            else:
                number = peer.ask([*POST, (b"x-name", name)], b"", end=False)
                self.unsent[number] = pattern(name, rng.choice((0, 5, 1000, 40_000)))
            self.asked[number] = name
        elif choice < 0.6 and self.unsent:
            number = rng.choice(list(self.unsent))
            size = rng.choice((1, 100, 5000, 16_384))
            data, self.unsent[number] = self.unsent[number][:size], self.unsent[number][size:]
            last = not self.unsent[number]
            peer.send(peer.data(number, data, last))
            if last:
                del self.unsent[number]
        elif choice < 0.85 and self.asked:
            number = rng.choice(list(self.asked))
            increment = rng.choice((1, 1000, 50_000))
            peer.send(peer.window(0, increment))
            if number not in self.reset:
                peer.send(peer.window(number, increment))
        elif choice < 0.9 and self.asked:
            number = rng.choice(list(self.asked))
            if number not in self.reset:
                self.reset.add(number)
                self.unsent.pop(number, None)
                peer.send(peer.rst(number))
        elif choice < 0.92:
            peer.send(peer.ping())
        peer.wire.receive(rng.choice((0, 10, 1000, 100_000)))

    def check(self, fail: Any) -> None:
        self.peer.look()
        for number, message in self.peer.messages.items():
            if number not in self.asked or (message.reset is not None and not message.heads):
                continue
            if message.heads and message.status == 200:
                name = self.asked[number]
                size = int(message.header(b"x-size") or 0)
                if not whole(name).startswith(message.body):
                    fail(f"{name!r}: the answer was changed")
                if message.ended and len(message.body) != size:
                    fail(f"{name!r}: {len(message.body)} of {size} bytes, and an end")


class _Http2Host:
    """A connection to a host, in HTTP/2."""

    def __init__(self, wire: Wire, rng: random.Random) -> None:
        self.window = rng.choice((0, 1000, 65_535))
        self.peer = Http2Peer(wire, False, {4: self.window})
        self.rng = rng
        self.unsent: dict[int, bytes] = {}
        self.done: set[int] = set()
        self.going = False
        self.last = 2**31 - 1

    def step(self, fail: Any) -> None:
        rng, peer = self.rng, self.peer
        wire = peer.wire
        if wire.lost or wire.aborted:
            return
        wire.receive(rng.choice((10, 1000, 100_000)))
        peer.look()
        if wire.lost or wire.aborted or wire.disconnecting:
            return
        for number, message in peer.messages.items():
            name = message.header(b"x-name") or b""
            if not whole(name).startswith(message.body):
                fail(f"{name!r}: the request was changed")
            if message.reset is not None:
                self.done.add(number)
                self.unsent.pop(number, None)
        choice = rng.random()
        fresh = [n for n in peer.messages if n <= self.last and n not in {*self.done, *self.unsent}]
        if choice < 0.3 and fresh:
            number = rng.choice(fresh)
            name = peer.messages[number].header(b"x-name") or b""
            size = rng.choice((0, 10, 5000, 100_000))
            self.unsent[number] = pattern(name, size)
            peer.send(peer.headers(number, [*OK, (b"x-size", b"%d" % size)]))
        elif choice < 0.7 and self.unsent:
            number = rng.choice(list(self.unsent))
            size = rng.choice((1, 1000, 16_384))
            data, self.unsent[number] = self.unsent[number][:size], self.unsent[number][size:]
            last = not self.unsent[number]
            peer.send(peer.data(number, data, last))
            if last:
                del self.unsent[number]
                self.done.add(number)
        elif choice < 0.85 and peer.messages:
            number = rng.choice(list(peer.messages))
            peer.send(peer.window(0, 20_000), peer.window(number, 20_000))
        elif choice < 0.9 and fresh:
            number = rng.choice(fresh)
            self.done.add(number)
            peer.send(peer.rst(number, rng.choice((ErrorCode.REFUSED_STREAM, ErrorCode.CANCEL))))
        elif choice < 0.92:
            peer.send(peer.settings({4: rng.choice((0, 100, 65_535))}))
        elif choice < 0.93 and not self.going:
            self.going = True
            # Some that it has not seen yet are under way; those it will not act on.
            self.last = max(peer.messages, default=0)
            peer.send(peer.goaway(self.last))
        elif choice < 0.94:
            wire.reset()


class _Http1Host:
    """A connection to a host, in HTTP/1: it answers when a request has come, and says so in chunks."""

    def __init__(self, wire: Wire, rng: random.Random) -> None:
        self.wire = wire
        self.rng = rng
        self.data = b""
        self.answer = b""

    def step(self, fail: Any) -> None:
        rng, wire = self.rng, self.wire
        if wire.lost or wire.aborted or wire.disconnecting:
            return
        wire.receive(rng.choice((1000, 100_000)))
        self.data += wire.take()
        head, found, rest = self.data.partition(b"\r\n\r\n")
        if found and (b"chunked" not in head or rest.endswith(b"0\r\n\r\n")):
            name = head.partition(b"x-name: ")[2].partition(b"\r\n")[0]
            size = rng.choice((0, 10, 5000, 100_000))
            self.data = b""
            self.answer += b"HTTP/1.1 200 OK\r\nX-Size: %d\r\nContent-Length: %d\r\n\r\n" % (size, size)
            self.answer += pattern(name, size)
        if self.answer:
            piece = rng.choice((1, 1000, 50_000))
            wire.send(self.answer[:piece])
            self.answer = self.answer[piece:]
        if rng.random() < 0.01:
            rng.choice((wire.reset, wire.end))()


class RandomTests(SynchronousTestCase):
    def play(self, seed: int, http2: bool, reverse: bool) -> None:
        rng = random.Random(seed)
        world = Http2World(
            0 if reverse else 2,
            routes=HTTP2 if http2 else HTTP1,
            http2={"initial_window_size": 65_536, "max_resets": 10_000},
        )
        askers = [_Asker(world, rng, b"%d" % number) for number in range(3)]
        hosts: dict[Wire, Any] = {}
        agents = 0
        make: Any = _Http2Host if http2 else _Http1Host
        for step in range(400):
            if reverse and len([h for h in hosts if not h.lost and not h.aborted]) < 2:
                agents += 1
                wire = world.agent(f"agent:{agents}", automatic=rng.random() < 0.5)
                hosts[wire] = None
            for endpoint in world.endpoints:
                for wire in endpoint.wires:
                    hosts.setdefault(wire, None)
            rng.choice(askers).step()
            for wire, host in list(hosts.items()):
                if host is None and wire.written:
                    host = hosts[wire] = make(wire, rng)
                if host is not None and rng.random() < 0.5:
                    host.step(self.fail)
            if step % 10 == 0:
                world.turn(rng.choice((0.0, 0.02, 0.5)))
                for asker in askers:
                    asker.check(self.fail)
        for asker in askers:
            asker.peer.wire.receive()
            asker.check(self.fail)
            asker.peer.wire.reset()
        world.turn(0.1)
        world.turn(100)
        for asker in askers:
            self.assertFalse(asker.peer.wire.protocol.busy)
        world.check_idle(self.fail)
        self.assertEqual(len(world.records), sum(len(asker.asked) for asker in askers))

    def test_hosts_of_http2(self) -> None:
        for seed in range(15):
            self.play(seed, True, False)

    def test_hosts_of_http1(self) -> None:
        for seed in range(15):
            self.play(seed, False, False)

    def test_agents_with_http2(self) -> None:
        for seed in range(15):
            self.play(seed, True, True)
