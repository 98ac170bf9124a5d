"""Clients and hosts that break the rules of RPC protocols, or exploit them, only harm themselves."""

from __future__ import annotations

from random import Random
from typing import Any, ClassVar

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.proxy.rpc.heartbeats import MOST_WAITING
from reverseproxy.proxy.rpc.outgoing import REPLY_LIMIT
from reverseproxy.wire.rpc.bolt import Bolt, encode_request
from reverseproxy.wire.rpc.dubbo import Dubbo, encode_frame, encode_string
from reverseproxy.wire.rpc.xprotocol import Kind, XProtocol
from tests.proxy.rpc_world import Peer, World, request, response
from tests.tunnel.logged import capture
from tests.wire.test_dubbo import READ_ONLY


class Bolts:
    """The frames of bolt."""

    protocol: XProtocol = Bolt()

    def request(self, number: int, size: int = 10, oneway: bool = False) -> bytes:
        return request(number, content=b"x" * size, oneway=oneway)

    def response(self, number: int, size: int = 10) -> bytes:
        return response(number, b"y" * size)

    def too_large(self, size: int) -> bytes:
        """How a response begins that has so many bytes."""
        return self.response(1, size)[:100]


class BoltsV2(Bolts):
    """Those of its second version."""

    protocol = Bolt(2)

    def request(self, number: int, size: int = 10, oneway: bool = False) -> bytes:
        return request(number, content=b"x" * size, oneway=oneway, version=2)

    def response(self, number: int, size: int = 10) -> bytes:
        return response(number, b"y" * size, version=2)


class Dubbos(Bolts):
    """Those of dubbo."""

    protocol = Dubbo()

    def request(self, number: int, size: int = 10, oneway: bool = False) -> bytes:
        texts = b"".join(map(encode_string, ("2.0.2", "echo", "1.0", "say", "")))
        return encode_frame(0x82 if oneway else 0xC2, number, texts + b"x" * size)

    def response(self, number: int, size: int = 10) -> bytes:
        return encode_frame(2, number, b"y" * size, status=20)


class HostileCase(SynchronousTestCase):
    """A polite client beside whoever is hostile."""

    FRAMES: ClassVar[list[Bolts]] = [Bolts(), BoltsV2(), Dubbos()]

    def begin(self, frames: Bolts, **more: Any) -> tuple[Peer, Peer]:
        """A client, and the host, of a world in which all is well."""
        self.world = World(1, protocol=frames.protocol, **more)
        client = self.world.client()
        client.send(frames.request(1))
        host = self.world.host()
        host.send(frames.response(host.one().id))
        client.one()
        return client, host

    def answered(self, client: Peer) -> list[int]:
        """The ids of the responses that have come."""
        found = client.frames()
        self.assertEqual({frame.kind for frame in found} - {Kind.RESPONSE}, set())
        return [frame.id for frame in found]

    def end(self, frames: Bolts, client: Peer, host: Peer) -> None:
        """All is as well as before: nothing is under way, and a request is answered."""
        client.send(frames.request(4242))
        host.send(*(frames.response(frame.id) for frame in host.frames() if frame.kind is Kind.REQUEST))
        self.assertIn(4242, self.answered(client))
        self.world.check_idle(self.fail)
        client.wire.reset()
        host.wire.reset()
        self.world.run(120, 10)
        self.assertEqual(self.world.clock.getDelayedCalls(), [])


class HostTests(HostileCase):
    def test_responses_twice(self) -> None:
        """The second one is nobody's, even if somebody asks something at once."""
        for frames in self.FRAMES:
            client, host = self.begin(frames)
            client.send(frames.request(7))
            number = host.one().id
            host.send(frames.response(number) * 3)
            self.assertEqual(self.answered(client), [7])
            client.send(frames.request(8))
            host.send(frames.response(number))
            self.assertEqual(client.frames(), [])
            self.assertEqual(self.world.upstream.dropped, 3)
            host.send(frames.response(host.one().id))
            self.assertEqual(self.answered(client), [8])
            self.end(frames, client, host)

    def test_responses_to_nothing(self) -> None:
        for frames in self.FRAMES:
            client, host = self.begin(frames)
            for number in (0, 1, 2, 3, 2**31, 2**32 - 1):
                host.send(frames.response(number, 1000))
            self.assertEqual(client.frames(), [])
            self.assertFalse(host.wire.lost)
            self.end(frames, client, host)

    def test_responses_that_come_too_late(self) -> None:
        """An id that was given up is not another request's soon."""
        client, host = self.begin(Bolts())
        client.send(request(7, "quick"))
        late = host.one().id
        self.world.run(3, 0.1)
        self.assertEqual(self.answered(client), [7])
        client.send(request(8))
        host.send(response(late))
        self.assertEqual(client.frames(), [])
        host.send(response(host.one().id))
        self.assertEqual(self.answered(client), [8])
        self.end(Bolts(), client, host)

    def test_floods_that_nobody_reads(self) -> None:
        """What a host asks is answered as long as it takes the answers, and costs a bounded memory."""
        for frames in self.FRAMES:
            client, host = self.begin(frames)
            host.wire.automatic = False
            heartbeat = frames.protocol.heartbeat(9)
            for _ in range(40):
                host.send(*[heartbeat, frames.request(3)] * 200)
            self.assertLess(host.wire.buffered, 2 * REPLY_LIMIT + 200_000)
            self.assertTrue(self.world.upstream.full)
            client.send(frames.request(7))
            self.assertFalse(client.wire.reading)  # for the host takes nothing
            host.wire.automatic = True
            host.wire.receive()
            kinds = [frame.kind for frame in host.frames() if frame.kind is not Kind.REQUEST]
            self.assertGreater(len(kinds), 100)
            self.assertTrue(client.wire.reading)
            host.send(heartbeat)
            self.assertEqual(host.one().kind, Kind.HEARTBEAT_ACK)
            self.world.cluster.active = 0
            host.wire.reset()
            client.wire.reset()

    def test_goaways(self) -> None:
        """One is enough, and what is under way is answered."""
        client, host = self.begin(Bolts())
        client.send(request(7))
        number = host.one().id
        host.send(*[Bolt(enable_goaway=True).goaway(5)] * 100)
        host.send(response(number))
        self.assertEqual(self.answered(client), [7])
        self.assertTrue(host.wire.disconnecting or host.wire.lost)
        client.send(request(8))
        other = self.world.host()
        other.send(response(other.one().id))
        self.assertEqual(self.answered(client), [8])
        self.end(Bolts(), client, other)

    def test_frames_that_are_too_large(self) -> None:
        """They cost their connection at the first bytes, and what was under way gets an error."""
        for frames in self.FRAMES:
            client, host = self.begin(frames, max_frame=100_000)
            client.send(frames.request(7), frames.request(8))
            host.frames()
            with capture() as logged:
                host.send(frames.too_large(200_000))
            self.assertIn("100000 are allowed", logged.text())
            self.assertTrue(host.wire.aborted or host.wire.lost)
            self.world.turn()
            self.assertEqual(sorted(self.answered(client)), [7, 8])
            client.send(frames.request(9))
            other = self.world.host()
            other.send(frames.response(other.one().id))
            self.assertEqual(self.answered(client), [9])
            self.end(frames, client, other)

    def test_half_a_frame(self) -> None:
        """A host that stops in the midst of one is asked whether it lives, and given up."""
        for frames in self.FRAMES:
            client, host = self.begin(frames)
            client.send(frames.request(7))
            number = host.one().id
            host.send(frames.response(number, 1000)[:500])
            self.world.run(400, 5)
            self.assertTrue(host.wire.lost)
            self.assertEqual(self.answered(client), [7])
            self.world.check_idle(self.fail)
            client.wire.reset()

    def test_nonsense(self) -> None:
        for frames in self.FRAMES:
            client, host = self.begin(frames)
            client.send(frames.request(7))
            host.send(b"\xff\x00" * 50)
            self.world.turn()
            self.assertTrue(host.wire.lost)
            self.assertEqual(self.answered(client), [7])
            self.world.check_idle(self.fail)
            client.wire.reset()

    def test_heartbeats_that_are_never_answered(self) -> None:
        """However often they are sent, few wait for an answer, and ids are left for requests."""
        keepalive = {"keepalive": {"interval": "1s", "timeout": "100000s"}}
        client, host = self.begin(Bolts(), cluster=keepalive, idle_timeout=None)
        for _ in range(3 * MOST_WAITING):
            self.world.turn(1)
        self.assertEqual(len(self.world.upstream.in_flight.heartbeats), MOST_WAITING)
        host.frames()
        client.send(request(7))
        host.send(response(host.one().id))
        self.assertEqual(self.answered(client), [7])
        host.wire.reset()
        client.wire.reset()
        self.world.check_idle(self.fail)


class ClientTests(HostileCase):
    def test_ids_again_and_again(self) -> None:
        """An id is the client's own matter: each request has an answer, and no other's."""
        for frames in self.FRAMES:
            client, host = self.begin(frames)
            other = self.world.client()
            client.send(*[frames.request(7)] * 5)
            other.send(frames.request(7, 500))
            numbers = [frame.id for frame in host.frames()]
            self.assertEqual(len(set(numbers)), 6)
            host.send(*(frames.response(number) for number in numbers[:3]))
            self.assertEqual((self.answered(client), self.answered(other)), ([7] * 3, []))
            host.send(*(frames.response(number) for number in reversed(numbers[3:])))
            self.assertEqual((self.answered(client), self.answered(other)), ([7] * 2, [7]))
            other.wire.reset()
            self.end(frames, client, host)

    def test_what_clients_do_not_send(self) -> None:
        """Responses, answers to heartbeats, and goaways are dropped, whatever id they have."""
        for frames in self.FRAMES:
            client, host = self.begin(frames)
            other = self.world.client()
            other.send(frames.request(7))
            number = host.one().id
            heartbeat = frames.protocol.decode(bytearray(frames.protocol.heartbeat(number)), 0)
            assert not isinstance(heartbeat, int)
            client.send(frames.response(number), frames.protocol.answer_heartbeat(heartbeat))
            client.send(Bolt(enable_goaway=True).goaway(1) if frames.protocol.name == "bolt" else b"")
            self.assertEqual((host.frames(), client.frames(), other.frames()), ([], [], []))
            host.send(frames.response(number))
            self.assertEqual(self.answered(other), [7])
            other.wire.reset()
            self.end(frames, client, host)

    def test_a_flood_of_heartbeats(self) -> None:
        """Who does not read the answers is not read; who does gets all of them."""
        for frames in self.FRAMES:
            client, host = self.begin(frames)
            greedy = self.world.client(automatic=False)
            heartbeat = frames.protocol.heartbeat(9)
            for _ in range(8):
                greedy.send(heartbeat * 1000)
            self.assertFalse(greedy.wire.reading)
            self.assertLess(greedy.wire.most_buffered, 200_000)
            while greedy.wire.buffered or greedy.wire.unread:
                greedy.wire.receive()
                self.world.turn()
            self.assertEqual(len(greedy.frames()), 8000)
            greedy.wire.reset()
            self.end(frames, client, host)

    def test_frames_that_are_too_large(self) -> None:
        for frames in self.FRAMES:
            client, host = self.begin(frames, max_frame=100_000)
            hostile = self.world.client()
            hostile.send(frames.request(7), frames.request(8, 200_000)[:100])
            self.world.turn()
            self.assertTrue(hostile.wire.lost)
            host.send(*(frames.response(frame.id) for frame in host.frames()))
            self.end(frames, client, host)

    def test_requests_without_answers(self) -> None:
        """They wait for nothing, and a host that does not take them stops their client alone."""
        for frames in self.FRAMES:
            client, host = self.begin(frames)
            host.wire.automatic = False
            hostile = self.world.client()
            for number in range(100):
                hostile.send(frames.request(number, 16_384, oneway=True))
            self.assertFalse(hostile.wire.reading)
            self.assertLess(host.wire.most_buffered, 200_000)
            self.assertTrue(client.wire.reading)
            self.assertEqual(self.world.upstream.active, 0)
            self.world.check_idle(self.fail)
            host.wire.automatic = True
            while hostile.wire.unread or host.wire.buffered:
                host.wire.receive()
                self.world.turn()
            self.assertEqual(len(host.frames()), 100)
            hostile.wire.reset()
            self.end(frames, client, host)

    def test_times_of_all_kinds(self) -> None:
        """Neither a negative time nor a huge one keeps anything for ever, nor breaks anything."""
        for reverse in (False, True):
            client, host = self.begin(Bolts())
            hostile = self.world.client(reverse=reverse)
            for number, timeout in enumerate((-(2**31), -1, 0, 1, 2**31 - 1)):
                hostile.send(request(number, timeout=timeout))
            for number, text in enumerate(("-1", "0", "9" * 30, "1e9", "", "0x10")):
                headers = {"service": "echo", "x-mosn-try-timeout": text, "x-mosn-global-timeout": text}
                hostile.send(encode_request(100 + number, headers, b"", timeout=0))
            self.world.run(61, 0.5)
            answered = set(self.answered(hostile))
            self.assertLessEqual({2, 3}, answered)
            if not reverse:
                self.assertEqual(len(answered), 11)  # a stranger has no more than the route's time
            host.frames()
            hostile.wire.reset()
            self.end(Bolts(), client, host)

    def test_bytes_one_by_one(self) -> None:
        for frames in self.FRAMES:
            client, host = self.begin(frames)
            hostile = self.world.client()
            for byte in frames.request(7, 50) + frames.protocol.heartbeat(8) + frames.request(9):
                hostile.send(bytes([byte]))
            self.assertEqual(hostile.one().kind, Kind.HEARTBEAT_ACK)
            host.send(*(frames.response(frame.id) for frame in host.frames()))
            self.assertEqual(self.answered(hostile), [7, 9])
            hostile.wire.reset()
            self.end(frames, client, host)


class AnythingTests(HostileCase):
    """Hostile clients and hosts do whatever comes to their minds, in any order."""

    STEPS = 50

    def hosts(self) -> list[Peer]:
        """The connections to hosts that are open, and some that are not any more."""
        for wire in self.world.endpoint.wires[len(self.upstream) :]:
            self.upstream.append(Peer(wire, self.world.protocol))
        return self.upstream[-3:]

    def act_as_host(self, frames: Bolts, draw: Random) -> None:
        """Do something with a connection to a host."""
        host = draw.choice(self.hosts())
        number = draw.choice([*range(10), 2**31, 2**32 - 1])
        size = draw.choice([0, 10, 70_000])
        match draw.randrange(12):
            case 0 | 1 | 2 | 3:
                if not host.wire.lost:
                    asked = [frame.id for frame in host.frames() if frame.kind is Kind.REQUEST]
                    draw.shuffle(asked)
                    host.send(*(frames.response(each, size) for each in asked))
            case 4:
                host.send(frames.response(number, size) * 2)
            case 5:
                host.send(frames.protocol.heartbeat(number) * draw.choice([1, 500]))
            case 6:
                host.send(frames.request(number, size, oneway=draw.random() < 0.5))
            case 7:
                data = frames.response(number, 100)
                host.send(data[: draw.randrange(len(data))])
            case 8:
                host.wire.automatic = not host.wire.automatic
                host.wire.receive()
            case 9:
                host.send(READ_ONLY if isinstance(frames, Dubbos) else Bolt(1, True).goaway(number))
            case 10:
                host.send(b"\xff" * 30)
            case _:
                draw.choice([host.wire.reset, host.wire.end])()

    def act_as_client(self, frames: Bolts, draw: Random, client: Peer) -> None:
        """Do something with a connection of a client's."""
        number = draw.randrange(5)
        size = draw.choice([0, 10, 70_000])
        match draw.randrange(10):
            case 0 | 1 | 2 | 3:
                client.send(frames.request(number, size))
            case 4:
                client.send(frames.request(number, size, oneway=True))
            case 5:
                client.send(frames.protocol.heartbeat(number) * draw.choice([1, 500]))
            case 6:
                client.send(frames.response(number, size))
            case 7:
                client.wire.automatic = not client.wire.automatic
                client.wire.receive()
            case 8:
                data = frames.request(number, 100)
                client.send(data[: draw.randrange(len(data))])
            case _:
                act = [client.wire.reset, client.wire.end, client.wire.protocol.drain]
                draw.choice(act)()

    def test_anything(self) -> None:
        """Nothing raises, no more is answered than was asked, and nothing is left of anybody."""
        for seed in range(9):
            draw = Random(seed)
            frames = self.FRAMES[seed % 3]
            self.world = World(1, protocol=frames.protocol, protocols_differ=seed % 2 == 0)
            self.upstream: list[Peer] = []
            polite = self.world.client()
            hostile = [self.world.client() for _ in range(2)]
            answers = 0
            for step in range(self.STEPS):
                if not polite.wire.lost:
                    polite.send(frames.request(step))
                if self.hosts() and draw.random() < 0.5:
                    self.act_as_host(frames, draw)
                else:
                    self.act_as_client(frames, draw, draw.choice(hostile))
                self.world.turn(draw.choice([0, 0, 0.01, 1, 20]))
                got = self.answered(polite)
                answers += len(got)
                self.assertLessEqual(answers, step + 1, seed)
                if draw.random() < 0.05:
                    hostile.append(self.world.client())
            self.assertFalse(polite.wire.lost, seed)
            for peer in [polite, *hostile, *self.hosts(), *self.upstream]:
                peer.wire.reset()
            self.world.run(200, 20)
            self.world.check_idle(self.fail)
            self.assertEqual(self.world.clock.getDelayedCalls(), [], seed)
            self.assertEqual(self.flushLoggedErrors(), [], seed)
