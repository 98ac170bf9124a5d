"""Clients that close their half of the connection, and wait for responses."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.transport.closing import LINGER
from tests.proxy import rpc_world
from tests.proxy.http2_memory import Http2Peer, Http2World
from tests.proxy.memory import Wire, World
from tests.proxy.test_http1 import status_of
from tests.proxy.test_http2 import HTTP1, path
from tests.proxy.test_http2_client import HTTP2
from tests.wire.http1_cases import GOOD, chunked, get, respond
from tests.wire.http2_frames import OK as OK_FIELDS
from tests.wire.http2_frames import POST

OK = respond(b"Content-Length: 2", body=b"ok")
LAST_OK = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
UPGRADE = get(b"Connection: Upgrade", b"Upgrade: echo")


class Http1Tests(SynchronousTestCase):
    def world(self, *args: Any, **more: Any) -> World:
        world = World(*args, **more)
        self.addCleanup(world.check_idle, self.fail)
        return world

    def send(self, world: World, data: bytes, **more: Any) -> Wire:
        """Send something, and an end-of-file behind it."""
        client = world.client(**more)
        client.send(data)
        client.end()
        return client

    def assert_over(self, world: World, client: Wire) -> None:
        """Check that the connection is closed, and nothing is left of it."""
        world.turn()
        self.assertTrue(client.lost)
        self.assertFalse(client.aborted)
        self.assertEqual(world.clock.getDelayedCalls(), [])

    def test_one_request(self) -> None:
        for request in (
            GOOD,
            get(line=b"GET / HTTP/1.0"),
            get(b"Connection: close"),
            get(b"Content-Length: 3", line=b"POST / HTTP/1.1", body=b"abc"),
            chunked(b"3\r\nabc\r\n0\r\n\r\n"),
        ):
            for reverse in (False, True):
                world = self.world()
                client = self.send(world, request, reverse=reverse)
                world.turn(50)
                self.assertFalse(client.lost or client.disconnecting)
                world.host().send(OK)
                self.assertEqual(client.take(), LAST_OK)
                self.assert_over(world, client)
                self.assertEqual([record.flag for record in world.records], [""])
                self.assertEqual(world.pool.idle, 1)

    def test_what_the_host_sends_in_many_pieces(self) -> None:
        world = self.world()
        client = self.send(world, GOOD)
        for byte in OK:
            world.host().send(bytes([byte]))
        self.assertEqual(client.take(), LAST_OK)
        self.assert_over(world, client)

    def test_the_end_while_the_answer_comes(self) -> None:
        world = self.world()
        client = world.client()
        client.send(GOOD)
        world.host().send(OK[:-1])
        client.end()
        world.host().send(OK[-1:])
        self.assertEqual(client.take(), OK)
        self.assert_over(world, client)

    def test_pipelined(self) -> None:
        world = self.world()
        client = self.send(world, GOOD * 3)
        for last in (False, False, True):
            world.turn()
            self.assertEqual(world.host().take(), GOOD)
            world.host().send(OK)
            self.assertEqual(client.take(), LAST_OK if last else OK)
        self.assert_over(world, client)
        self.assertEqual(len(world.records), 3)

    def test_pipelined_in_one_read_each(self) -> None:
        world = self.world()
        client = world.client()
        for _ in range(3):
            client.send(GOOD)
        client.end()
        for last in (False, False, True):
            world.turn()
            world.host().send(OK)
            self.assertEqual(client.take(), LAST_OK if last else OK)
        self.assert_over(world, client)

    def test_local_replies(self) -> None:
        world = self.world()
        client = self.send(world, get(line=b"GET /direct HTTP/1.1") * 3)
        self.assertEqual(client.take().count(b"HTTP/1.1 418 "), 3)
        self.assert_over(world, client)
        client = self.send(world, GOOD + b"nonsense\r\n\r\n")
        world.host().send(OK)
        data = client.take()
        self.assertTrue(data.startswith(OK))
        self.assertEqual(status_of(data[len(OK) :]), 400)
        self.assert_over(world, client)

    def test_incomplete_requests_are_not_answered(self) -> None:
        for part in (
            b"G",
            GOOD[:-1],
            get(b"Content-Length: 3", line=b"POST / HTTP/1.1", body=b"ab"),
            chunked(b"3\r\nabc\r\n0\r\n"),
            get(b"Content-Length: 3", b"Connection: Upgrade", b"Upgrade: echo", body=b"ab"),
        ):
            world = self.world()
            client = self.send(world, part)
            self.assertEqual(client.take(), b"")
            self.assert_over(world, client)
            self.assertTrue(all(wire.aborted for wire in world.endpoint.wires))

    def test_incomplete_requests_behind_complete_ones(self) -> None:
        post = get(b"Content-Length: 3", line=b"POST / HTTP/1.1", body=b"ab")
        for part in (b"G", GOOD[:-1], post, chunked(b"3\r\nab")):
            world = self.world()
            client = self.send(world, GOOD * 2 + part)
            world.host().send(OK)
            world.turn()
            world.host().send(OK)
            # Whether there is a third one is not known, as the client is not read while others wait.
            self.assertEqual(client.take().replace(b"\r\nConnection: close", b""), OK * 2)
            self.assert_over(world, client)
            self.assertEqual([record.status for record in world.records][:2], [200, 200])
            self.assertEqual([record.status for record in world.records][2:] or [0], [0])

    def test_nothing_under_way(self) -> None:
        for data in (b"", b"\r\n"):
            world = self.world()
            client = self.send(world, data)
            self.assertEqual(client.take(), b"")
            self.assert_over(world, client)

    def test_while_there_is_no_host_yet(self) -> None:
        world = self.world()
        world.endpoint.answer = "wait"
        client = self.send(world, GOOD)
        world.turn(1)
        host = world.endpoint.dials[0].succeed()
        self.assertEqual(host.take(), GOOD)
        host.send(OK)
        self.assertEqual(client.take(), LAST_OK)
        self.assert_over(world, client)

    def test_over_the_connection_of_an_agent(self) -> None:
        """The agent's connection stays as it is."""
        world = self.world(hosts=0)
        agent = world.agent()
        for _ in range(2):
            client = self.send(world, GOOD)
            self.assertEqual(agent.take(), GOOD)
            self.assertFalse(agent.write_closed or agent.disconnecting)
            agent.send(OK)
            self.assertEqual(client.take(), LAST_OK)
            self.assert_over(world, client)

    def test_a_client_that_reads_slowly(self) -> None:
        world = self.world()
        client = self.send(world, GOOD, automatic=False)
        body = b"x" * 300_000
        world.host().send(respond(b"Content-Length: 600000", body=body))
        self.assertFalse(world.host().reading)
        client.receive()
        world.turn()
        world.host().send(body)
        world.turn()
        self.assertFalse(client.lost)
        client.receive()
        self.assertEqual(
            len(client.take()) - len(respond(b"Content-Length: 600000", b"Connection: close")), 600_000
        )
        self.assert_over(world, client)

    def test_a_client_that_is_gone(self) -> None:
        """It shows when something is sent, or comes: then all that is under way for it ends."""
        world = self.world()
        client = self.send(world, GOOD)
        world.host().send(respond(b"Content-Length: 10", body=b"part"))
        client.reset()
        world.turn()
        self.assertTrue(world.host().aborted)
        self.assertIn("lost", world.records[0].flag)

    def test_the_time_for_the_answer_is_the_same(self) -> None:
        world = self.world()
        client = self.send(world, get(line=b"GET /quick HTTP/1.1"))
        world.turn(2)
        self.assertEqual(status_of(client.take()), 504)
        self.assert_over(world, client)

    def test_draining(self) -> None:
        world = self.world()
        client = self.send(world, GOOD * 2)
        client.protocol.drain()
        world.host().send(OK)
        self.assertEqual(client.take(), LAST_OK)
        self.assert_over(world, client)

    def test_upgrade_that_is_declined(self) -> None:
        world = self.world()
        client = self.send(world, UPGRADE + GOOD + GOOD[:-1])
        world.host().send(OK)
        self.assertEqual(client.take(), OK)
        self.assertEqual(world.host().take()[-len(GOOD) :], GOOD)
        world.host().send(OK)
        self.assertEqual(client.take(), LAST_OK)
        self.assert_over(world, client)

    def test_upgrade_that_is_accepted(self) -> None:
        """The end belongs to the other protocol, behind what came before it."""
        world = self.world()
        client = self.send(world, UPGRADE + b"hello")
        host = world.host()
        host.take()
        host.send(respond(b"Connection: Upgrade", b"Upgrade: echo", line=b"HTTP/1.1 101 Switching Protocols"))
        world.turn()
        self.assertEqual(host.take(), b"hello")
        self.assertTrue(host.write_ended)
        host.send(b"bye")
        self.assertTrue(client.take().endswith(b"\r\n\r\nbye"))
        host.end()
        world.turn(LINGER)
        self.assertTrue(client.lost and host.lost)

    def test_as_it_was(self) -> None:
        world = self.world(abort_on_half_close=True)
        client = self.send(world, GOOD)
        world.turn()
        self.assertTrue(world.host().aborted)
        self.assert_over(world, client)
        self.assertTrue(world.records[0].flag)


class Http2Tests(SynchronousTestCase):
    def world(self, **more: Any) -> Http2World:
        world = Http2World(**{"routes": HTTP1, **more})
        self.addCleanup(world.check_idle, self.fail)
        return world

    def assert_over(self, world: World, client: Http2Peer) -> None:
        world.turn()
        self.assertTrue(client.wire.lost)
        self.assertFalse(client.wire.aborted)
        self.assertEqual(world.clock.getDelayedCalls(), [])

    def test_open_streams_are_answered(self) -> None:
        for reverse in (False, True):
            world = self.world()
            client = world.connect(reverse=reverse)
            numbers = [client.ask(path(b"/%d" % number)) for number in range(3)]
            client.wire.end()
            world.turn(50)
            self.assertFalse(client.wire.lost)
            for wire in reversed(world.endpoint.wires):
                self.assertFalse(client.wire.disconnecting)
                wire.send(OK)
            for number in numbers:
                self.assertEqual((client[number].status, client[number].body), (200, b"ok"))
            self.assert_over(world, client)
            self.assertEqual([record.flag for record in world.records], [""] * 3)

    def test_a_client_that_has_not_acknowledged_anything(self) -> None:
        """It can't any more."""
        world = self.world(idle_timeout=None)
        client = world.connect(greet=False)
        client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", client.settings(None))
        number = client.ask(path(b"/forever"))
        client.wire.end()
        world.turn(1000)
        world.host().send(OK)
        self.assertEqual(client[number].body, b"ok")
        self.assert_over(world, client)

    def test_incomplete_ones_are_not(self) -> None:
        world = self.world()
        client = world.connect()
        number = client.ask(path(b"/a"))
        cut = client.ask([*POST, (b"content-length", b"6")], b"abc", end=False)
        client.wire.end()
        first, second = world.endpoint.wires
        world.turn()
        self.assertEqual((first.aborted, second.aborted), (False, True))
        self.assertIsNotNone(client[cut].reset)
        first.send(OK)
        self.assertEqual(client[number].body, b"ok")
        self.assert_over(world, client)

    def test_nothing_under_way(self) -> None:
        world = self.world()
        client = world.connect()
        client.wire.end()
        self.assert_over(world, client)

    def test_only_what_the_windows_have_room_for(self) -> None:
        """Nobody opens them any more: there is nothing to wait for."""
        world = self.world()
        client = world.connect({4: 1000})
        small, large = client.ask(path(b"/small")), client.ask(path(b"/large"))
        client.wire.end()
        first, second = world.endpoint.wires
        second.send(respond(b"Content-Length: 100000", body=b"x" * 50_000))
        world.turn()
        self.assertTrue(second.aborted)
        self.assertEqual(len(client[large].body), 1000)
        self.assertIsNotNone(client[large].reset)
        self.assertFalse(client.wire.disconnecting)
        first.send(respond(b"Content-Length: 1000", body=b"y" * 1000))
        self.assertEqual((len(client[small].body), client[small].ended), (1000, True))
        self.assert_over(world, client)

    def test_a_whole_answer_that_the_window_has_no_room_for(self) -> None:
        """It is given up while it is sent; the host's connection goes on, with the requests of others."""
        for http2 in (False, True):
            world = self.world(routes=HTTP2) if http2 else self.world()
            other = world.connect()
            client = world.connect({4: 0})
            waits, asked = other.ask(), client.ask()
            client.wire.end()
            if http2:
                host = world.peer()
                host.answer(3, OK_FIELDS, b"ok")
                host.answer(1, OK_FIELDS, b"ok")
            else:
                first, second = world.endpoint.wires
                second.send(OK)
                first.send(OK)
                self.assertTrue(second.aborted)
            self.assertIsNotNone(client[asked].reset)
            self.assertEqual((other[waits].body, other[waits].ended), (b"ok", True))
            self.assertFalse(world.host(0).lost)
            world.turn()
            self.assertTrue(client.wire.lost)

    def test_a_tunnel_that_has_not_ended(self) -> None:
        world = self.world()
        client = world.connect()
        client.ask([(b":method", b"CONNECT"), *path(b"/")[1:], (b":protocol", b"websocket")], end=False)
        client.wire.end()
        world.turn()
        self.assertTrue(all(wire.aborted for wire in world.endpoint.wires))
        self.assert_over(world, client)

    def test_as_it_was(self) -> None:
        world = self.world(abort_on_half_close=True)
        client = world.connect()
        client.ask()
        client.wire.end()
        world.turn()
        self.assertTrue(world.host().aborted)
        self.assertTrue(client.wire.lost)


class RpcTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = rpc_world.World(1)
        self.addCleanup(self.world.check_idle, self.fail)

    def test_for_as_long_as_a_request_may_take(self) -> None:
        client = self.world.client()
        client.send(rpc_world.request(1), rpc_world.request(2))
        client.wire.end()
        self.world.turn(50)
        self.assertFalse(client.wire.lost)
        self.world.host().echo()
        self.assertEqual(sorted(client.answers()), [(1, 0), (2, 0)])
        self.world.turn()
        self.assertTrue(client.wire.lost)

    def test_no_answer_in_time(self) -> None:
        client = self.world.client()
        client.send(rpc_world.request(1))
        client.wire.end()
        self.world.run(61)
        self.assertEqual([number for number, _ in client.answers()], [1])
        self.world.turn()
        self.assertTrue(client.wire.lost)

    def test_as_it_was(self) -> None:
        self.world = rpc_world.World(1, abort_on_half_close=True)
        self.addCleanup(self.world.check_idle, self.fail)
        client = self.world.client()
        client.send(rpc_world.request(1))
        client.wire.end()
        self.world.turn()
        self.assertTrue(client.wire.lost)
        self.assertIn("closed", self.world.records[0].flag)
