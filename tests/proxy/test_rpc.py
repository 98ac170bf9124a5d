from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.error import ConnectionLost, ConnectionRefusedError
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from reverseproxy.interfaces import ConnectionInfo, IDrainable
from reverseproxy.metrics import RequestTally
from reverseproxy.metrics.latency import classes_of
from reverseproxy.proxy.closing import FRESH, QUIET
from reverseproxy.proxy.http.trust import Trust
from reverseproxy.proxy.rpc import answers as rpc_answers
from reverseproxy.proxy.rpc import server as rpc
from reverseproxy.proxy.rpc import under_way
from reverseproxy.proxy.rpc.server import RpcProxy
from reverseproxy.wire.rpc.bolt import Bolt, BoltStatus, encode_request
from reverseproxy.wire.rpc.dubbo import Dubbo, encode_frame, encode_string
from reverseproxy.wire.rpc.xprotocol import Kind
from tests import most
from tests.proxy.rpc_world import Peer, World, request, response
from tests.wire.frames import Tiny, cuts, split, tiny


class RpcTestCase(SynchronousTestCase):
    world: World

    def tearDown(self) -> None:
        self.world.check_idle(self.fail)

    def set_up(self, hosts: int = 1, **more: Any) -> tuple[Peer, Peer]:
        """A client, and the connection to the first host, over which one request has gone."""
        self.world = World(hosts, **more)
        client = self.world.client()
        client.send(request(1))
        host = self.world.host()
        self.assertEqual(host.echo(), [1])
        self.assertEqual(client.answers(), [(1, 0)])
        self.world.records.clear()
        return client, host


class ForwardingTests(RpcTestCase):
    def test_only_ids_change(self) -> None:
        client, host = self.set_up()
        sent = request(77, content=b"hello", class_name=b"com.example.Request", timeout=5000)
        client.send(sent)
        frame = host.one()
        self.assertEqual(frame.id, 2)
        self.assertEqual(bytes(frame.data), sent[:5] + b"\0\0\0\2" + sent[9:])
        answer = response(2, b"world", class_name=b"com.example.Response", headers={"a": "b"})
        host.send(answer)
        self.assertEqual(client.wire.take(), answer[:5] + b"\0\0\0\x4d" + answer[9:])

    def test_ids_begin_with_1_for_each_connection(self) -> None:
        self.world = World(2)
        client = self.world.client()
        client.send(request(5), request(6), request(7), request(8))
        ids = []
        for endpoint in self.world.endpoints:
            peer = Peer(endpoint.wires[0])
            ids.append(peer.echo())
        self.assertEqual(ids, [[1, 2], [1, 2]])
        self.assertEqual(sorted(client.answers()), [(5, 0), (6, 0), (7, 0), (8, 0)])

    def test_answers_in_any_order(self) -> None:
        client, host = self.set_up()
        client.send(request(10, content=b"a"), request(11, content=b"b"), request(12, content=b"c"))
        frames = host.frames()
        host.send(*(response(frame.id, frame.content) for frame in reversed(frames)))
        self.assertEqual(
            [(frame.id, frame.content) for frame in client.frames()], [(12, b"c"), (11, b"b"), (10, b"a")]
        )

    def test_the_same_id_twice(self) -> None:
        client, host = self.set_up()
        client.send(request(10, content=b"a"), request(10, content=b"b"))
        host.echo()
        self.assertEqual([(frame.id, frame.content) for frame in client.frames()], [(10, b"a"), (10, b"b")])

    def test_clients_share_a_connection(self) -> None:
        client, host = self.set_up()
        other = self.world.client()
        other.send(request(1, content=b"other"))
        client.send(request(1, content=b"first"))
        self.assertEqual(host.echo(), [2, 3])
        self.assertEqual([frame.content for frame in other.frames()], [b"other"])
        self.assertEqual([frame.content for frame in client.frames()], [b"first"])
        self.assertEqual(len(self.world.endpoint.wires), 1)

    def test_one_write_for_one_read(self) -> None:
        client, host = self.set_up()
        writes: list[bytes] = []
        write = host.wire.write
        self.patch(host.wire, "write", lambda data: (writes.append(data), write(data)))
        client.send(*(request(number) for number in range(10)))
        self.assertEqual(len(writes), 1)
        answers: list[bytes] = []
        write_answer = client.wire.write
        self.patch(client.wire, "write", lambda data: (answers.append(data), write_answer(data)))
        host.echo()
        self.assertEqual(len(answers), 1)
        self.assertEqual(len(client.answers()), 10)

    def test_both_versions(self) -> None:
        client, host = self.set_up()
        client.send(request(5, version=2), request(6))
        first, second = host.frames()
        self.assertEqual([(first.version, first.id), (second.version, second.id)], [(2, 2), (1, 3)])
        host.send(response(2, version=2), response(3))
        self.assertEqual([(f.version, f.id) for f in client.frames()], [(2, 5), (1, 6)])

    def test_oneway(self) -> None:
        client, host = self.set_up()
        client.send(request(5, oneway=True))
        frame = host.one()
        self.assertEqual((frame.kind, frame.id), (Kind.ONEWAY, 2))
        self.assertEqual(self.world.upstream.active, 0)
        host.send(response(2))
        self.assertEqual(client.frames(), [])
        self.assertEqual([record.status for record in self.world.records], [0])

    def test_a_oneway_request_is_never_answered(self) -> None:
        self.world = World()
        client = self.world.client()
        for service in ("echo", "", "direct", "unknown"):
            client.send(request(5, service, oneway=True))
        self.assertEqual(client.frames(), [])
        self.assertEqual(len(self.world.records), 4)

    def test_frames_of_responses_from_a_client_are_dropped(self) -> None:
        client, host = self.set_up()
        client.send(response(1), Bolt(enable_goaway=True).goaway(9), request(2))
        self.assertEqual(host.echo(), [2])
        self.assertEqual(client.answers(), [(2, 0)])

    def test_a_request_in_pieces(self) -> None:
        client, host = self.set_up()
        for byte in request(9, content=b"x" * 20):
            client.send(bytes([byte]))
        host.echo()
        self.assertEqual(client.answers(), [(9, 0)])

    def test_heartbeats_are_answered_and_not_forwarded(self) -> None:
        client, host = self.set_up()
        client.send(Bolt().heartbeat(99), Bolt(2).heartbeat(98))
        frames = client.frames()
        self.assertEqual(
            [(f.kind, f.id, f.version) for f in frames],
            [(Kind.HEARTBEAT_ACK, 99, 1), (Kind.HEARTBEAT_ACK, 98, 2)],
        )
        self.assertEqual(host.frames(), [])
        self.assertEqual(self.world.records, [])


class LocalReplyTests(RpcTestCase):
    def one(self, data: bytes, **more: Any) -> int:
        """The status that a request is answered with, without a host."""
        client = self.world.client()
        client.send(data)
        [(number, status)] = client.answers()
        self.assertEqual(number, 7)
        return status

    def test_statuses(self) -> None:
        self.world = World()
        self.assertEqual(self.one(request(7, "")), BoltStatus.NO_PROCESSOR)  # no route
        self.assertEqual(self.one(request(7, "unknown")), BoltStatus.NO_PROCESSOR)  # no cluster
        self.assertEqual(self.one(request(7, "echo")), BoltStatus.NO_PROCESSOR)  # no host
        self.assertEqual(self.one(request(7, "direct")), BoltStatus.SERVER_EXCEPTION)
        self.assertEqual(self.one(request(7, "moved")), BoltStatus.UNKNOWN)
        self.assertEqual([record.status for record in self.world.records], [404, 404, 502, 403, 301])

    def test_bad_headers(self) -> None:
        self.world = World()
        bad = encode_request(7, {"service": "x"}).replace(b"\0\0\0\1x", b"\0\0\0\2x")
        client = self.world.client()
        client.send(bad, request(8, ""))
        self.assertEqual(client.answers(), [(7, BoltStatus.CODEC_EXCEPTION), (8, BoltStatus.NO_PROCESSOR)])
        self.assertEqual(self.world.records[0].status, 400)
        self.assertEqual(self.world.records[0].request.service, "")
        self.assertIsNone(self.world.records[0].request.headers)

    def test_replies_have_the_version_of_the_request(self) -> None:
        self.world = World()
        client = self.world.client()
        client.send(request(7, "", version=2))
        self.assertEqual(client.one().version, 2)

    def test_no_host_can_be_reached(self) -> None:
        self.world = World(2)
        for endpoint in self.world.endpoints:
            endpoint.answer = ConnectionRefusedError()
        self.assertEqual(self.one(request(7)), BoltStatus.NO_PROCESSOR)
        self.assertEqual([len(endpoint.dials) for endpoint in self.world.endpoints], [1, 1])

    def test_another_host_is_tried(self) -> None:
        self.world = World(2)
        self.world.endpoints[0].answer = ConnectionRefusedError()
        client = self.world.client()
        client.send(request(7), request(8))
        Peer(self.world.endpoints[1].wires[0]).echo()
        self.assertEqual(client.answers(), [(7, 0), (8, 0)])

    def test_too_many_requests(self) -> None:
        self.world = World(1, cluster={"circuit_breakers": [{"max_requests": 1}]})
        client = self.world.client()
        client.send(request(1), request(2))
        self.assertEqual(client.answers(), [(2, BoltStatus.SERVER_THREADPOOL_BUSY)])
        self.world.host().echo()
        self.assertEqual(client.answers(), [(1, 0)])

    def test_the_connection_to_the_host_is_lost(self) -> None:
        client, host = self.set_up()
        client.send(request(5), request(6))
        host.wire.reset()
        self.assertEqual(client.answers(), [(5, BoltStatus.UNKNOWN), (6, BoltStatus.UNKNOWN)])
        self.assertEqual([record.status for record in self.world.records], [500, 500])
        client.send(request(7))
        self.world.host().echo()
        self.assertEqual(client.answers(), [(7, 0)])

    def test_undecodable_answers(self) -> None:
        client, host = self.set_up()
        other = self.world.client()
        client.send(request(5), request(6))
        first, _second = host.frames()
        host.wire.send(response(first.id) + b"HTTP/1.1 200 OK\r\n")
        self.world.turn()
        self.assertTrue(host.wire.lost)
        self.assertEqual(client.answers(), [(5, 0), (6, BoltStatus.UNKNOWN)])
        other.send(request(1))
        self.world.host().echo()
        self.assertEqual(other.answers(), [(1, 0)])


class BadClientTests(RpcTestCase):
    def test_undecodable_bytes_close_that_connection_only(self) -> None:
        client, host = self.set_up()
        other = self.world.client()
        other.send(request(3))
        client.send(request(2), b"GET / HTTP/1.1\r\n\r\n")
        self.world.turn()
        self.assertTrue(client.wire.lost)
        self.assertEqual(host.echo(), [2, 3])
        self.assertEqual(other.answers(), [(3, 0)])
        self.assertEqual(
            [record.flag for record in self.world.records], ["the client sent what is no bolt", ""]
        )

    def test_too_large_a_frame(self) -> None:
        self.world = World(1, max_frame=100)
        client = self.world.client()
        client.send(request(1, content=b"x" * 100)[:22])
        self.world.turn()
        self.assertTrue(client.wire.lost)

    def test_a_client_goes_away(self) -> None:
        client, host = self.set_up()
        client.send(request(5), request(6))
        client.wire.reset()
        self.assertEqual(self.world.upstream.active, 0)
        self.world.check_idle(self.fail)
        host.echo()
        self.assertEqual(self.world.upstream.dropped, 2)
        self.assertEqual(len(self.world.records), 2)
        self.assertIn("lost", self.world.records[0].flag)

    def test_a_client_goes_away_while_it_waits(self) -> None:
        self.world = World(1)
        self.world.endpoint.answer = "wait"
        client = self.world.client()
        client.send(request(5), request(6))
        client.wire.reset()
        self.world.check_idle(self.fail)
        self.world.endpoint.dials[0].succeed()
        self.assertEqual(self.world.host().frames(), [])

    def test_half_closed(self) -> None:
        client, host = self.set_up()
        client.send(request(5))
        client.wire.end()
        self.assertFalse(client.wire.lost)
        host.echo()
        self.assertEqual(client.answers(), [(5, 0)])
        self.world.turn()
        self.assertTrue(client.wire.lost)

    def test_half_closed_and_gone(self) -> None:
        client, _host = self.set_up()
        client.send(request(5, timeout=-1))
        client.wire.end()
        self.world.turn(16)
        self.assertFalse(client.wire.lost)
        client.wire.reset()
        self.assertIn("lost", self.world.records[0].flag)

    def test_end_of_file_when_idle(self) -> None:
        client, _host = self.set_up()
        client.wire.end()
        self.world.turn()
        self.assertTrue(client.wire.lost)

    def test_end_of_file_in_a_frame(self) -> None:
        client, _host = self.set_up()
        client.send(request(5)[:10])
        client.wire.end()
        self.world.turn()
        self.assertTrue(client.wire.lost)


class TimeTests(RpcTestCase):
    def test_timeout_of_the_request(self) -> None:
        client, host = self.set_up()
        client.send(request(5, timeout=1500))
        self.world.turn(1.4)
        self.assertEqual(client.frames(), [])
        self.world.turn(0.2)
        self.assertEqual(client.answers(), [(5, BoltStatus.TIMEOUT)])
        self.assertEqual(self.world.upstream.active, 0)
        host.echo()
        self.assertEqual(client.frames(), [])
        self.assertEqual(self.world.upstream.dropped, 1)
        self.assertEqual(self.world.records[0].status, 504)

    def test_timeout_of_the_route(self) -> None:
        client, _host = self.set_up()
        client.send(request(5, "quick"), request(6))
        self.world.turn(2.1)
        self.assertEqual(client.answers(), [(5, BoltStatus.TIMEOUT)])
        self.world.turn(59)
        self.assertEqual(client.answers(), [(6, BoltStatus.TIMEOUT)])

    def test_no_timeout(self) -> None:
        client, host = self.set_up(trust=Trust(["10.9.9.0/24"]))
        client.send(request(5, "quick", timeout=-1))
        frames = host.frames()
        for _ in range(200):
            self.world.turn(50)
            host.send(*(Bolt().answer_heartbeat(f) for f in host.frames()))
        host.send(response(frames[0].id))
        self.assertEqual(client.answers(), [(5, 0)])

    def test_timeout_while_waiting_for_a_connection(self) -> None:
        self.world = World(1)
        self.world.endpoint.answer = "wait"
        client = self.world.client()
        client.send(request(5, timeout=1000))
        self.world.turn(1.1)
        self.assertEqual(client.answers(), [(5, BoltStatus.TIMEOUT)])
        self.world.endpoint.dials[0].succeed()
        self.assertEqual(self.world.host().frames(), [])

    def test_idle(self) -> None:
        client, _host = self.set_up(idle_timeout=10.0)
        self.world.turn(9)
        client.send(Bolt().heartbeat(1))
        self.world.turn(9)
        self.assertFalse(client.wire.write_closed)
        self.world.turn(2)
        self.assertTrue(client.wire.write_closed)
        client.send(request(3))  # too late
        self.world.turn(20)
        self.assertTrue(client.wire.lost)

    def test_not_idle_while_a_request_is_under_way(self) -> None:
        client, host = self.set_up(idle_timeout=10.0)
        client.send(request(5))
        self.world.turn(30)
        host.echo()
        self.assertEqual(client.answers(), [(5, 0)])

    def test_reverse_connections_are_never_idle(self) -> None:
        self.world = World(1, idle_timeout=None)
        server = self.world.client(reverse=True)
        self.world.turn(1e6)
        server.send(Bolt().heartbeat(1))
        self.assertEqual(server.one().kind, Kind.HEARTBEAT_ACK)

    def test_an_unfinished_frame(self) -> None:
        self.world = World(1, idle_timeout=None)
        server = self.world.client(reverse=True)
        server.send(request(1)[:9])
        self.world.turn(299)
        self.assertFalse(server.wire.lost)
        self.world.turn(2)
        self.assertTrue(server.wire.lost)

    def test_timers_end_with_the_connection(self) -> None:
        client, host = self.set_up()
        client.send(request(5), request(6, timeout=100))
        client.wire.reset()
        host.wire.reset()
        self.assertEqual(self.world.clock.getDelayedCalls(), [])


class DrainTests(RpcTestCase):
    def proxy(self, client: Peer) -> RpcProxy:
        proxy = client.wire.protocol
        assert isinstance(proxy, RpcProxy)
        return proxy

    def test_interface(self) -> None:
        self.world = World(1)
        proxy = RpcProxy(self.world.settings, ConnectionInfo("10.0.0.1:1", "10.0.0.2:2"))
        verifyObject(IDrainable, proxy)

    def test_idle(self) -> None:
        client, _host = self.set_up()
        self.assertFalse(self.proxy(client).busy)
        self.world.turn(FRESH)
        self.proxy(client).drain()
        self.proxy(client).drain()
        self.world.turn()
        client.wire.end()
        self.world.turn()
        self.assertTrue(client.wire.lost)
        self.proxy(client).drain()

    def test_busy(self) -> None:
        client, host = self.set_up()
        client.send(request(5))
        self.assertTrue(self.proxy(client).busy)
        self.proxy(client).drain()
        self.assertFalse(client.wire.write_closed)
        host.echo()
        self.assertEqual(client.answers(), [(5, 0)])
        self.leave(client)
        self.world.turn(16)
        self.assertTrue(client.wire.lost)

    def leave(self, client: Peer) -> None:
        """The connection is closed a moment later, and not before."""
        self.world.turn(QUIET - 0.1)
        self.assertFalse(client.wire.write_closed)
        self.world.turn(0.2)
        self.assertTrue(client.wire.write_closed)

    def test_who_may_be_about_to_ask(self) -> None:
        """A client that has connected just now, or asks for one thing after the other, is served."""
        client, host = self.set_up()
        self.proxy(client).drain()
        for number in range(3):
            self.world.turn(QUIET - 0.1)
            client.send(request(number))
            self.world.turn(0.5)
            host.echo()
            self.assertEqual(client.answers(), [(number, 0)])
        self.leave(client)
        self.assertEqual(self.world.clock.getDelayedCalls()[0].func.__name__, "_look")  # DelayedClose's

    def test_who_asks_for_ever(self) -> None:
        """Requests are refused in the end, and the connection is closed a moment after the last answer."""
        client, host = self.set_up()
        self.proxy(client).drain()
        client.send(request(1))
        for number in range(10, 22):
            self.world.turn(0.5)
            client.send(request(number))
        self.assertFalse(client.wire.write_closed)
        refused = [number for number, status in client.answers() if status]
        self.assertEqual(refused, [19, 20, 21])
        host.echo()
        self.assertEqual(len(client.answers()), 10)
        for number in range(30, 33):
            self.world.turn(QUIET / 4)
            client.send(request(number))
            self.assertEqual(client.answers(), [(number, BoltStatus.SERVER_THREADPOOL_BUSY)])
        self.world.turn(QUIET / 4)
        self.assertTrue(client.wire.write_closed)

    def test_requests_are_still_served_for_a_while(self) -> None:
        client, host = self.set_up()
        client.send(request(5))
        self.proxy(client).drain()
        self.world.turn(4)
        client.send(request(6), request(7))
        self.world.turn(2)
        client.send(request(8))
        self.assertEqual(client.answers(), [(8, BoltStatus.SERVER_THREADPOOL_BUSY)])
        self.assertFalse(client.wire.write_closed)
        host.echo()
        self.assertEqual(client.answers(), [(5, 0), (6, 0), (7, 0)])
        self.leave(client)

    def test_goaway(self) -> None:
        client, host = self.set_up(protocol=Bolt(enable_goaway=True))
        self.proxy(client).drain()
        self.assertEqual(client.one().kind, Kind.GOAWAY)
        self.world.turn(0.5)
        client.send(request(5))
        host.echo()
        self.assertEqual(client.answers(), [(5, 0)])
        self.world.turn(0.9)
        self.assertFalse(client.wire.write_closed)
        self.world.turn(0.2)
        self.assertTrue(client.wire.write_closed)

    def test_the_time_is_over(self) -> None:
        client, _host = self.set_up()
        client.send(request(5), request(6))
        proxy = self.proxy(client)
        proxy.drain()
        self.assertEqual(proxy.doing, "bolt with 2 requests")
        proxy.end("the server stops")
        self.assertEqual([number for number, status in client.answers() if status], [5, 6])
        self.assertEqual(proxy.doing, "bolt with something left to send")  # until the client closes, too
        self.assertTrue(client.wire.write_closed)

    def test_goaway_and_many_short_requests(self) -> None:
        client, host = self.set_up(protocol=Bolt(enable_goaway=True), idle_timeout=None)
        self.proxy(client).drain()
        for number in range(50):
            client.send(request(number, timeout=-1))
            host.echo()
        names = [call.func.__name__ for call in self.world.clock.getDelayedCalls()]
        self.assertEqual(names.count("_quiet"), 1)
        client.wire.reset()
        host.wire.reset()
        self.world.turn(60)
        self.assertEqual(self.world.clock.getDelayedCalls(), [])

    def test_who_never_stops_sending(self) -> None:
        self.patch(rpc, "LINGER_BYTES", 100)
        client, _host = self.set_up()
        self.world.turn(FRESH)
        self.proxy(client).drain()
        client.send(request(5))
        self.world.turn()
        self.assertFalse(client.wire.lost)
        client.send(request(6, content=b"x" * 100))
        self.world.turn()
        self.assertTrue(client.wire.lost)

    def test_draining_while_nothing_is_read(self) -> None:
        self.patch(under_way, "MAX_REQUESTS", 1)
        client, host = self.set_up()
        client.send(request(5))
        self.assertFalse(client.wire.reading)
        self.proxy(client).drain()
        host.echo()
        self.assertTrue(client.wire.reading)
        self.leave(client)
        self.assertEqual(client.answers(), [(5, 0)])

    def test_draining_while_an_answer_is_not_taken(self) -> None:
        client, host = self.set_up()
        client.wire.automatic = False
        client.send(request(5))
        host.send(response(host.one().id, b"x" * 100_000))
        self.proxy(client).drain()
        self.assertFalse(client.wire.write_closed)
        client.wire.receive()
        self.leave(client)
        self.assertEqual(client.answers(), [(5, 0)])

    def test_goaway_and_a_client_that_does_not_care(self) -> None:
        client, host = self.set_up(protocol=Bolt(enable_goaway=True))
        self.proxy(client).drain()
        for number in range(6):
            self.world.turn(0.9)
            client.send(request(number))
            host.echo()
        frames = client.frames()
        self.assertEqual(len(frames), 6)
        self.assertTrue(client.wire.write_closed)

    def test_reverse(self) -> None:
        self.world = World(1, idle_timeout=None)
        server = self.world.client(reverse=True)
        self.proxy(server).drain()
        self.world.turn(100)
        self.assertFalse(server.wire.write_closed)
        self.assertFalse(self.proxy(server).busy)
        server.send(request(5))
        self.assertTrue(self.proxy(server).busy)
        self.world.host().echo()
        self.assertEqual(server.answers(), [(5, 0)])
        self.world.turn(100)
        self.assertFalse(server.wire.write_closed)

    def test_reverse_with_goaway(self) -> None:
        self.world = World(1, protocol=Bolt(2, enable_goaway=True))
        server = self.world.client(reverse=True)
        self.proxy(server).drain()
        frame = server.one()
        self.assertEqual((frame.kind, frame.version), (Kind.GOAWAY, 2))

    def test_an_unfinished_frame_is_waited_for(self) -> None:
        client, host = self.set_up()
        data = request(5)
        client.send(data[:9])
        self.proxy(client).drain()
        self.assertTrue(self.proxy(client).busy)
        client.send(data[9:])
        host.echo()
        self.assertEqual(client.answers(), [(5, 0)])
        self.leave(client)


class BackPressureTests(RpcTestCase):
    def test_a_host_that_does_not_read_stops_its_clients(self) -> None:
        client, host = self.set_up()
        other = self.world.client()
        host.wire.automatic = False
        for number in range(2, 12):
            client.send(request(number, content=b"x" * 16384))
        self.assertFalse(client.wire.reading)
        self.assertTrue(other.wire.reading)
        self.assertLess(host.wire.most_buffered, 200_000)
        other.send(request(1, content=b"y"))
        self.assertFalse(other.wire.reading)
        while client.wire.unread or host.wire.buffered:
            host.wire.receive()
            self.world.turn()
        self.assertTrue(client.wire.reading)
        self.assertTrue(other.wire.reading)
        host.echo()
        self.assertEqual(len(client.answers()), 10)
        self.assertEqual(len(other.answers()), 1)

    def test_a_host_that_is_lost_while_it_does_not_read(self) -> None:
        client, host = self.set_up()
        host.wire.automatic = False
        client.send(request(2, content=b"x" * 100_000))
        self.assertFalse(client.wire.reading)
        host.wire.reset()
        self.assertTrue(client.wire.reading)
        self.assertEqual(client.answers(), [(2, BoltStatus.UNKNOWN)])

    def test_a_client_that_does_not_read_is_not_read(self) -> None:
        client, host = self.set_up()
        client.wire.automatic = False
        client.send(request(2))
        [frame] = host.frames()
        host.send(response(frame.id, b"x" * 100_000))
        self.assertFalse(client.wire.reading)
        client.send(request(3))
        self.assertEqual(host.frames(), [])
        client.wire.receive()
        self.world.turn()
        self.assertEqual(len(client.answers()), 1)
        self.assertEqual(len(host.frames()), 1)
        client.wire.reset()

    def slow_client(self, reverse: bool = False) -> tuple[Peer, Peer, list[Any]]:
        """A client that does not read, with many large answers to come."""
        self.patch(rpc_answers, "OUT_LIMIT", 400_000)
        _client, host = self.set_up(idle_timeout=None)
        slow = self.world.client(automatic=False, reverse=reverse)
        slow.send(*(request(number) for number in range(20)))
        frames = host.frames()
        for frame in frames:
            host.send(response(frame.id, b"x" * 60_000))
        return slow, host, frames

    def test_answers_that_nobody_takes_are_not_read(self) -> None:
        slow, host, frames = self.slow_client()
        self.assertFalse(host.wire.reading)
        self.assertGreater(host.wire.unread, 0)
        proxy = slow.wire.protocol
        self.assertLess(proxy.answers.size, 600_000)
        while slow.wire.buffered or host.wire.unread:
            slow.wire.receive()
            self.world.turn()
        self.assertTrue(host.wire.reading)
        self.assertEqual(sorted(slow.answers()), [(number, 0) for number in range(20)])
        self.assertEqual(len(frames), 20)

    def test_who_keeps_others_from_their_answers_is_cut_off(self) -> None:
        slow, host, _frames = self.slow_client()
        self.world.turn(14)
        self.assertFalse(slow.wire.lost)
        self.world.turn(2)
        self.assertTrue(slow.wire.lost)
        self.assertTrue(host.wire.reading)
        self.assertEqual(host.wire.unread, 0)
        self.world.check_idle(self.fail)
        self.assertEqual(self.world.records[-1].flag, "the client reads too slowly")

    def test_a_reverse_connection_is_not_cut_off_so_soon(self) -> None:
        slow, _host, _frames = self.slow_client(reverse=True)
        for _ in range(20):
            self.world.turn(30)
            self.assertFalse(slow.wire.lost)
            slow.wire.receive()
        self.world.turn()
        self.assertEqual(len(slow.answers()), 20)

    def test_who_takes_nothing_at_all_is_cut_off(self) -> None:
        slow, _host, _frames = self.slow_client(reverse=True)
        self.world.run(295)
        self.assertFalse(slow.wire.lost)
        self.world.run(10)
        self.assertTrue(slow.wire.lost)

    def test_a_slow_client_and_a_host_that_is_lost(self) -> None:
        slow, host, _frames = self.slow_client()
        host.wire.reset()
        while slow.wire.buffered:
            slow.wire.receive()
            self.world.turn()
        self.assertEqual(len(slow.answers()), 20)

    def test_heartbeats_do_not_fail_because_we_do_not_read(self) -> None:
        slow, host, _frames = self.slow_client(reverse=True)
        while host.wire.unread:
            self.world.run(20)
            slow.wire.receive(70_000)
        self.assertGreater(self.world.clock.seconds(), 120)
        self.assertLess(len(host.frames()), 3)
        self.assertFalse(host.wire.lost)
        slow.wire.reset()

    def test_too_many_requests(self) -> None:
        self.patch(under_way, "MAX_REQUESTS", 3)
        client, host = self.set_up()
        for number in range(5):
            client.send(request(number))
        self.assertFalse(client.wire.reading)
        self.assertEqual(len(host.frames()), 3)
        host.send(response(2))
        self.world.turn()
        self.assertEqual(len(host.frames()), 1)
        self.assertFalse(client.wire.reading)
        host.send(*(response(number) for number in range(3, 7)))
        self.world.turn()
        host.send(*(response(number) for number in range(3, 8)))
        self.assertEqual(len(client.answers()), 5)

    def test_too_many_bytes(self) -> None:
        self.patch(under_way, "HELD_LIMIT", 1000)
        client, host = self.set_up()
        client.send(request(1, content=b"x" * 1000))
        self.assertFalse(client.wire.reading)
        host.echo()
        self.assertTrue(client.wire.reading)
        client.frames()


class RetryTests(RpcTestCase):
    def send(self, hosts: int = 2, **more: Any) -> tuple[Peer, list[Peer]]:
        self.world = World(hosts, **more)
        client = self.world.client()
        client.send(request(5, "again", content=b"x"))
        return client, self.hosts()

    def hosts(self) -> list[Peer]:
        return [Peer(wire) for endpoint in self.world.endpoints for wire in endpoint.wires]

    def test_status(self) -> None:
        client, [first] = self.send()
        first.send(response(first.one().id, status=BoltStatus.SERVER_THREADPOOL_BUSY))
        self.assertEqual(client.frames(), [])
        self.world.turn(0.02)
        second = self.hosts()[1]
        self.assertEqual(second.one().content, b"x")
        second.send(response(1))
        self.assertEqual(client.answers(), [(5, 0)])
        self.assertEqual(len(self.world.records), 1)

    def test_another_status(self) -> None:
        client, [first] = self.send()
        first.send(response(first.one().id, status=BoltStatus.SERVER_EXCEPTION))
        self.assertEqual(client.answers(), [(5, BoltStatus.SERVER_EXCEPTION)])

    def test_not_for_ever(self) -> None:
        client, [first] = self.send(1)
        for _ in range(4):
            frame = first.one()
            first.send(response(frame.id, status=BoltStatus.SERVER_THREADPOOL_BUSY))
            self.world.turn(0.02)
        self.assertEqual(client.answers(), [(5, BoltStatus.SERVER_THREADPOOL_BUSY)])

    def test_lost(self) -> None:
        client, [first] = self.send()
        first.wire.reset()
        self.world.turn(0.02)
        self.hosts()[1].echo()
        self.assertEqual(client.answers(), [(5, 0)])

    def test_too_long_an_attempt(self) -> None:
        client, [first] = self.send()
        self.world.turn(1.1)
        self.world.turn(0.02)
        second = self.hosts()[1]
        second.echo()
        self.assertEqual(client.answers(), [(5, 0)])
        first.echo()
        self.assertEqual(client.answers(), [])

    def test_all_attempts_take_too_long(self) -> None:
        client, [_first] = self.send()
        self.world.run(5, 0.1)
        self.assertEqual(client.answers(), [(5, BoltStatus.TIMEOUT)])
        self.assertEqual(self.world.records[0].flag, "the host did not answer an attempt within 1s")

    def test_an_attempt_in_time(self) -> None:
        client, [first] = self.send()
        first.echo()
        self.assertEqual(client.answers(), [(5, 0)])
        self.world.run(3)
        self.assertEqual(len(self.hosts()), 1)

    def test_not_without_a_policy(self) -> None:
        self.world = World(2)
        client = self.world.client()
        client.send(request(5), request(6))
        first, second = self.hosts()
        first.send(response(first.one().id, status=BoltStatus.SERVER_THREADPOOL_BUSY))
        second.wire.reset()
        self.world.turn(1)
        self.assertEqual(client.answers(), [(5, BoltStatus.SERVER_THREADPOOL_BUSY), (6, BoltStatus.UNKNOWN)])

    def test_outcomes_are_reported(self) -> None:
        client, [first] = self.send(2, cluster={"outlier_detection": {"consecutive_5xx": 1}})
        first.send(response(first.one().id, status=BoltStatus.SERVER_THREADPOOL_BUSY))
        self.assertFalse(self.world.hosts[0].healthy)
        self.world.turn(0.02)
        self.hosts()[1].echo()
        self.assertEqual(client.answers(), [(5, 0)])


class RouteTests(RpcTestCase):
    def test_headers_are_changed(self) -> None:
        self.world = World(1)
        client = self.world.client()
        headers = {"service": "changed", "sofa_head_method_name": "say", "secret": "x"}
        client.send(encode_request(5, headers, b"content"))
        host = self.world.host()
        frame = host.one()
        self.assertEqual(
            dict(frame.headers),
            {
                "service": "changed",
                "sofa_head_method_name": "say",
                "x-from": "10.9.9.9:1234",
                "x-what": "%x-mosn-rpc-service%/%x-mosn-rpc-method%",
                "x-service": "changed",
                "x-method": "say",
                "x-local": "10.0.0.1:80",
                "x-listener": "test",
            },
        )
        self.assertEqual(frame.content, b"content")
        host.send(response(frame.id, b"answer", headers={"a": "b"}))
        frame = client.one()
        self.assertEqual(
            dict(frame.headers),
            {"a": "b", "x-cluster": "c", "x-host": "10.1.0.0:80", "x-us": "10.0.0.1:1", "x-nothing": ""},
        )
        self.assertEqual((frame.id, frame.content), (5, b"answer"))

    def test_headers_of_a_broken_response_stay(self) -> None:
        self.world = World(1)
        client = self.world.client()
        client.send(request(5, "changed"))
        host = self.world.host()
        host.one()
        host.send(response(1, headers={"a": "b"}).replace(b"\0\0\0\1b", b"\0\0\0\2b"))
        self.assertEqual(client.answers(), [(5, 0)])

    def test_dubbo_stays_as_it_is(self) -> None:
        self.world = World(1, protocol=Dubbo())
        client = self.world.client()
        body = b"".join(map(encode_string, ("2.0.2", "changed", "1.0", "say")))
        client.send(encode_frame(0xC2, 5, body))
        host = self.world.host()
        self.assertEqual(bytes(host.one().data[16:]), body)
        host.send(encode_frame(2, 1, b"\x91", status=20))
        self.assertEqual(client.wire.take(), encode_frame(2, 5, b"\x91", status=20))

    def test_too_many_headers(self) -> None:
        self.world = World(1)
        client = self.world.client()
        client.send(encode_request(5, {"service": "changed", "long": "x" * 65490}))
        self.assertEqual(client.answers(), [(5, BoltStatus.CODEC_EXCEPTION)])

    def test_another_protocol(self) -> None:
        self.world = World(1)
        client = self.world.client()
        client.send(request(5, "turned"))
        self.assertEqual(client.answers(), [(5, BoltStatus.NO_PROCESSOR)])
        self.assertEqual(self.world.records[0].flag, "bolt can't be turned into dubbo")

    def test_metadata(self) -> None:
        self.world = World(
            1, cluster={"lb_subset_config": {"fall_back_policy": 0, "subset_selectors": [["zone"]]}}
        )
        client = self.world.client()
        client.send(request(5, "labelled"))
        self.assertEqual(client.answers(), [(5, BoltStatus.NO_PROCESSOR)])

    def test_hashing(self) -> None:
        self.world = World(3, cluster={"lb_type": "LB_MAGLEV"})
        client = self.world.client()
        client.send(*(request(number) for number in range(10)))
        [wire] = [wire for endpoint in self.world.endpoints for wire in endpoint.wires]
        self.assertEqual(len(Peer(wire).echo()), 10)
        self.assertEqual(len(client.answers()), 10)


class CopyTests(RpcTestCase):
    def tearDown(self) -> None:
        super().tearDown()
        self.assertEqual(self.world.copies.taken, self.world.copies.given_back)

    def send(self, *frames: bytes) -> tuple[Peer, Peer]:
        self.world = World(1)
        client = self.world.client()
        client.send(*frames)
        return client, self.world.host()

    def test_copied(self) -> None:
        client, host = self.send(request(5, "copied", content=b"a"), request(6, "copied", content=b"b"))
        copies = Peer(self.world.copied.wires[0])
        frames = copies.frames()
        self.assertEqual([(f.id, f.content) for f in frames], [(1, b"a"), (2, b"b")])
        copies.send(response(1, b"not wanted"))
        self.assertEqual(client.frames(), [])
        copies.wire.reset()
        host.echo()
        self.assertEqual(client.answers(), [(5, 0), (6, 0)])
        self.assertEqual(len(self.world.records), 2)

    def test_oneway(self) -> None:
        _client, host = self.send(request(5, "copied", oneway=True))
        self.assertEqual(host.one().kind, Kind.ONEWAY)
        self.assertEqual(Peer(self.world.copied.wires[0]).one().kind, Kind.ONEWAY)

    def test_never_answered(self) -> None:
        client, host = self.send(request(5, "copied"))
        host.echo()
        self.assertEqual(client.answers(), [(5, 0)])
        self.world.turn(61)

    def test_nobody_to_send_it_to(self) -> None:
        self.world = World(1)
        self.world.copied.answer = ConnectionRefusedError()
        client = self.world.client()
        client.send(request(5, "copied"), request(6, "copied nowhere"))
        self.world.host().echo()
        self.assertEqual(client.answers(), [(5, 0), (6, 0)])

    def test_not_for_who_does_not_read(self) -> None:
        client, host = self.send(request(5, "copied"))
        copies = self.world.copied.wires[0]
        copies.automatic = False
        client.send(request(6, "copied", content=b"x" * 100_000), request(7, "copied"))
        self.assertEqual(len(host.echo()), 3)
        self.assertEqual(len(client.answers()), 3)
        copies.receive()
        self.assertEqual(len(Peer(copies).frames()), 2)
        self.world.turn(61)


class AccessLogTests(RpcTestCase):
    def test_record(self) -> None:
        client, host = self.set_up()
        sent = encode_request(3, {"service": "echo", "sofa_head_method_name": "say"}, b"hi", timeout=0)
        client.send(sent)
        self.world.turn(0.5)
        host.echo()
        answer = client.wire.take()
        [record] = self.world.records
        self.assertEqual(
            (record.protocol, record.request.operation, record.request.service, record.status, record.flag),
            ("bolt", "say", "echo", 200, ""),
        )
        self.assertEqual((record.bytes_received, record.bytes_sent), (len(sent), len(answer)))
        self.assertEqual((record.upstream.cluster, record.upstream.host), ("c", "10.1.0.0:80"))
        self.assertEqual((record.duration, record.times.sent, record.times.answered), (0.5, 0, 0.5))
        self.assertEqual(record.upstream.local, "10.0.0.1:1")
        self.assertNotIn(0, (record.client.number, record.upstream.connection))
        assert record.request.headers is not None
        assert record.response_headers is not None
        self.assertEqual(record.request.headers("service"), "echo")
        self.assertIsNone(record.response_headers("service"))

    def test_a_broken_response(self) -> None:
        client, host = self.set_up()
        client.send(request(3))
        host.send(response(2, headers={"a": "b"}).replace(b"\0\0\0\1b", b"\0\0\0\2b"))
        self.assertEqual(client.answers(), [(3, 0)])
        lookup = self.world.records[0].response_headers
        assert lookup is not None
        self.assertIsNone(lookup("a"))

    def test_status_of_a_failed_call(self) -> None:
        client, host = self.set_up()
        client.send(request(3))
        host.send(response(2, status=BoltStatus.SERVER_THREADPOOL_BUSY))
        self.assertEqual(client.answers(), [(3, 4)])
        self.assertEqual((self.world.records[0].status, self.world.records[0].flag), (503, ""))

    def test_none(self) -> None:
        self.world = World(1, access_log=None)
        client = self.world.client()
        client.send(request(1), request(2, ""))
        self.world.host().echo()
        self.assertEqual(sorted(client.answers()), [(1, 0), (2, 6)])


class TallyTests(RpcTestCase):
    def test_statuses(self) -> None:
        """They are counted whether anybody keeps a log or not."""
        for log in (None, lambda record: None):
            tally = RequestTally("test")
            client, host = self.set_up(access_log=log, tally=tally)
            client.send(request(5), request(6), request(7, oneway=True))
            first, second, _ = host.frames()
            host.send(response(first.id), response(second.id, status=BoltStatus.SERVER_THREADPOOL_BUSY))
            self.assertEqual(client.answers(), [(5, 0), (6, BoltStatus.SERVER_THREADPOOL_BUSY)])
            (cell,) = tally.cells.values()
            self.assertEqual(classes_of(cell.total.ends), {2: 2, 5: 1, 0: 1})


class OtherProtocolTests(RpcTestCase):
    def test_dubbo(self) -> None:
        self.world = World(1, protocol=Dubbo())
        client = self.world.client()
        body = b"".join(map(encode_string, ("2.0.2", "com.example.Echo", "1.0", "say")))
        client.send(encode_frame(0xC2, 2**40, body))
        host = self.world.host()
        frame = host.one()
        self.assertEqual((frame.id, bytes(frame.data[16:])), (1, body))
        host.send(encode_frame(2, 1, b"\x91", status=20))
        self.assertEqual(client.wire.take(), encode_frame(2, 2**40, b"\x91", status=20))
        [record] = self.world.records
        self.assertEqual(
            (record.protocol, record.request.service, record.request.operation),
            ("dubbo", "com.example.Echo", "say"),
        )
        client.send(encode_frame(0xE2, 5, b"N"))
        self.assertEqual(client.one().kind, Kind.HEARTBEAT_ACK)
        client.send(encode_frame(0xA2, 5, b"N"))
        self.assertEqual(client.frames(), [])

    def test_dubbo_in_another_serialization(self) -> None:
        self.world = World(1, protocol=Dubbo())
        client = self.world.client()
        client.send(encode_frame(0xC6, 3, b"{}"))
        frame = client.one()
        self.assertEqual((frame.id, frame.status), (3, 70))

    def test_few_ids(self) -> None:
        self.world = World(1, protocol=Tiny())
        client = self.world.client()
        for _ in range(5):
            client.send(*(tiny(Kind.REQUEST, number, b"x") for number in range(100)))
            for wire in self.world.endpoint.wires:
                frames = Peer(wire, Tiny()).frames()
                wire.send(b"".join(tiny(Kind.RESPONSE, f.id, bytes(f.data[4:])) for f in frames))
            self.assertEqual([frame.id for frame in client.frames()], list(range(100)))
        self.assertEqual(len(self.world.endpoint.wires), 1)

    def test_more_requests_than_ids(self) -> None:
        self.world = World(1, protocol=Tiny())
        client = self.world.client()
        client.send(*(tiny(Kind.REQUEST, number, b"x") for number in range(256)))
        seen = 0
        for wire in self.world.endpoint.wires:
            frames = Peer(wire, Tiny()).frames()
            self.assertLessEqual(len(frames), 127)
            seen += len(frames)
            wire.send(b"".join(tiny(Kind.RESPONSE, f.id) for f in frames))
        self.assertEqual(seen, 256)
        self.assertEqual({frame.id for frame in client.frames()}, set(range(256)))


class RandomTests(RpcTestCase):
    @given(
        st.lists(
            st.one_of(
                st.tuples(st.just("send"), st.integers(0, 2), st.integers(1, 6), st.booleans()),
                st.tuples(st.just("answer"), st.integers(0, 1), st.integers(0, 10), st.just(False)),
                st.tuples(st.just("wait"), st.integers(1, 3), st.just(0), st.just(False)),
                st.tuples(st.just("lose"), st.integers(0, 1), st.just(0), st.just(False)),
            ),
            max_size=30,
        ),
        cuts,
    )
    @settings(max_examples=most(200), deadline=None)
    def test_answers_are_never_mixed_up(self, steps: list[Any], where: list[int]) -> None:
        world = self.world = World(2, idle_timeout=None)
        clients = [world.client() for _ in range(3)]
        waiting: dict[tuple[int, int], bytes] = {}
        got: set[tuple[int, int]] = set()
        unanswered: list[tuple[Any, int, bytes]] = []
        number = 0

        def collect() -> None:
            for endpoint in world.endpoints:
                for wire in endpoint.wires:
                    peer = peers.setdefault(id(wire), Peer(wire))
                    unanswered.extend(
                        (peer, frame.id, frame.content)
                        for frame in peer.frames()
                        if frame.kind is Kind.REQUEST
                    )

        def check() -> None:
            for index, client in enumerate(clients):
                for frame in client.frames():
                    content = waiting.pop((index, frame.id))
                    if frame.status == 0:
                        self.assertEqual(frame.content, content)
                    got.add((index, frame.id))

        peers: dict[int, Peer] = {}
        for what, first, second, flag in steps:
            if what == "send":
                data = b""
                for _ in range(second):
                    number += 1
                    content = f"{first}/{number}".encode()
                    waiting[first, number] = content
                    data += request(number, content=content, timeout=2000, version=2 if flag else 1)
                for chunk in split(data, where):
                    clients[first].send(chunk)
            elif what == "answer" and unanswered:
                peer, request_id, content = unanswered.pop(second % len(unanswered))
                for chunk in split(response(request_id, content), where):
                    peer.send(chunk)
            elif what == "wait":
                world.turn(first)
            elif what == "lose" and world.endpoints[first].wires:
                world.endpoints[first].wires[-1].reset(ConnectionLost())
            collect()
            check()
        world.turn(3)
        check()
        self.assertEqual(waiting, {})
        self.assertEqual(len(got), number)
        world.check_idle(self.fail)
