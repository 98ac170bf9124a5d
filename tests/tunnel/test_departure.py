"""A tunnel server that stops: announcements, reconnections of agents, and the end of requests; in memory."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.app import ReverseProxy
from reverseproxy.assembly.shutdown import QUIET, TELL
from reverseproxy.listener import END_TIME
from reverseproxy.testing import Recorder, run
from reverseproxy.tunnel.server.departure import AWAY
from reverseproxy.wire.http.websocket import GOING_AWAY, close_frame
from tests.integration.configs import server
from tests.tunnel.logged import capture
from tests.tunnel.memory import INIT
from tests.tunnel.test_streams import CLIENT, REQUEST, TUNNEL, Tunnel

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
LIMIT = 4.0


def begin_again(tunnel: Tunnel) -> ReverseProxy:
    """Start another server at the same addresses."""
    return run(server(client=f"127.0.0.1:{CLIENT}", tunnel=f"127.0.0.1:{TUNNEL}"), tunnel.reactor)


def hosts_of(app: ReverseProxy) -> list[Any]:
    return list(app.clusters.get("clientCluster").hosts.values())


class ToldTests(SynchronousTestCase):
    """Agents of ours, whose connections carry streams."""

    def test_agents_dial_another_one_while_this_one_serves(self) -> None:
        tunnel = Tunnel(agents=2, agent_kind="http")
        clients = [tunnel.client(REQUEST % b"/%d" % number) for number in range(4)]
        stopped = tunnel.server.stopService()
        tunnel.turn()
        successor = begin_again(tunnel)  # nobody listens any more, as of the first moment
        tunnel.turn(AWAY * 1.2 + 0.1)
        self.assertEqual(len(hosts_of(successor)), 2)
        self.assertEqual(len(tunnel.hosts), 2)  # which still serve
        self.assertNoResult(stopped)
        self.assertEqual([agent.agents[0].serving for agent in tunnel.agents], [1, 1])
        after = tunnel.client(REQUEST % b"/after")
        for services in tunnel.services:
            for service in services:
                service.answer(b"done")
        tunnel.turn(0.3)
        for each in (*clients, after):
            self.assertIn(b"done", each.data)
        self.successResultOf(stopped)
        self.assertEqual(len(hosts_of(successor)), 2)
        self.assertEqual([agent.agents[0].wanted for agent in tunnel.agents], [1, 1])

    def test_a_request_that_comes_late_still_finds_a_host(self) -> None:
        """As of a client that had begun to send it when the server was told to stop."""
        tunnel = Tunnel(agent_kind="http")
        client = tunnel.client(b"GET / HTTP/1.1\r\n")
        stopped = tunnel.server.stopService()
        tunnel.turn(0.5)
        client.transport.write(b"Host: a\r\n\r\n")
        tunnel.turn()
        tunnel.services[0][0].answer(b"done")
        tunnel.turn(0.3)
        self.assertIn(b"done", client.data)
        self.assertIn(b"connection: close", client.data.lower())
        self.successResultOf(stopped)

    def test_nobody_is_there_for_a_while(self) -> None:
        """The wait after the last connection is gone is short, however often a dial has failed before."""
        tunnel = Tunnel(agent_kind="http", reconnect_base_duration="3s")
        client = tunnel.client(REQUEST % b"/")
        stopped = tunnel.server.stopService()
        tunnel.turn(14)
        tunnel.services[0][0].answer(b"done")
        tunnel.turn(0.3)
        self.assertIn(b"done", client.data)
        self.successResultOf(stopped)
        successor = begin_again(tunnel)
        tunnel.turn(3.1)
        self.assertEqual(len(hosts_of(successor)), 1)

    def test_all_of_it_at_both_ends_at_once(self) -> None:
        tunnel = Tunnel(agent_kind="http")
        client = tunnel.client(REQUEST % b"/")
        stopped = [tunnel.server.stopService(), tunnel.agents[0].stopService()]
        tunnel.turn(2)
        tunnel.services[0][0].answer(b"done")
        tunnel.turn(2)
        self.assertIn(b"done", client.data)
        for each in stopped:
            self.successResultOf(each)

    def test_the_agent_stops_later(self) -> None:
        tunnel = Tunnel(agent_kind="http")
        client = tunnel.client(REQUEST % b"/")
        stopped = [tunnel.server.stopService()]
        tunnel.turn(2)
        stopped.append(tunnel.agents[0].stopService())
        tunnel.turn(2)
        self.assertNoResult(stopped[1])
        tunnel.services[0][0].answer(b"done")
        tunnel.turn(2)
        self.assertIn(b"done", client.data)
        for each in stopped:
            self.successResultOf(each)

    def test_what_is_said(self) -> None:
        tunnel = Tunnel(agent_kind="http")
        tunnel.client(REQUEST % b"/")
        with capture() as logged:
            tunnel.server.stopService()
            tunnel.turn(TELL + 0.2)
        self.assertIn(
            "tunnelListener: 1 connection notified that the server is stopping, 0 can", logged.text()
        )
        self.assertIn("the server is about to leave; another connection is dialled in ", logged.text())
        self.assertIn(
            "stopping: since 5 s listener clientListener waits for 1 connection: 1 HTTP/1 request",
            logged.text(),
        )

    def test_one_that_comes_now_is_sent_away(self) -> None:
        tunnel = Tunnel(agent_kind="http")
        aside = tunnel.reactor.dial("127.0.0.1", TUNNEL, Recorder())
        tunnel.client(REQUEST % b"/")
        tunnel.server.stopService()
        aside.transport.write(INIT)
        tunnel.turn()
        self.assertEqual(aside.data, b"")
        self.assertIsNotNone(aside.reason)
        self.assertEqual(len(tunnel.hosts), 1)


class UntoldTests(SynchronousTestCase):
    """Agents that know of nothing but the end of a connection, as MOSN's."""

    def tunnel(self, connections: int) -> Tunnel:
        return Tunnel(agent_kind="http", connections=connections, mux=False, announce=False)

    def test_connections_that_are_not_needed_are_closed_at_once(self) -> None:
        tunnel = self.tunnel(4)
        client = tunnel.client(REQUEST % b"/")
        stopped = tunnel.server.stopService()
        successor = begin_again(tunnel)
        tunnel.turn(0.2)
        # One is in use, and one is kept for what clients may be about to send.
        self.assertEqual((len(tunnel.hosts), len(hosts_of(successor))), (2, 2))
        tunnel.turn(QUIET)
        self.assertEqual((len(tunnel.hosts), len(hosts_of(successor))), (1, 3))
        tunnel.services[0][0].answer(b"done")
        tunnel.turn(0.5)
        self.assertIn(b"done", client.data)
        self.successResultOf(stopped)
        self.assertEqual(len(hosts_of(successor)), 4)

    def test_without_clients_all_of_them_are(self) -> None:
        tunnel = self.tunnel(3)
        stopped = tunnel.server.stopService()
        successor = begin_again(tunnel)
        tunnel.turn(0.3)
        self.successResultOf(stopped)
        self.assertEqual(len(hosts_of(successor)), 3)

    def test_one_that_comes_now_hears_nothing(self) -> None:
        tunnel = self.tunnel(1)
        tunnel.client(REQUEST % b"/")
        [listener] = [each for each in tunnel.server.listeners.values() if each.name == "tunnelListener"]
        late = tunnel.reactor.dial("127.0.0.1", TUNNEL, Recorder())
        late.transport.write(INIT[:-1])
        tunnel.turn()
        tunnel.server.stopService()
        late.transport.write(INIT[-1:])
        tunnel.turn()
        self.assertEqual(late.data, b"")
        self.assertIsNotNone(late.reason)
        self.assertEqual(listener.connections, 1)


class LimitCase(SynchronousTestCase):
    """What outlives the time for what is under way, at the server and at the agent."""

    def tunnel(self, **options: Any) -> Tunnel:
        self.patch(Tunnel, "graceful_timeout", f"{LIMIT:g}s")
        return Tunnel(**options, graceful_close_max_wait_duration=f"{LIMIT:g}s")

    def stop(self, tunnel: Tunnel, agent: bool) -> str:
        """Stop an end, and let the time pass; what was logged about it."""
        app = tunnel.agents[0] if agent else tunnel.server
        with capture() as logged:
            self.stopped = app.stopService()
            tunnel.turn(LIMIT + 0.1)
        return str(logged.text())

    def websocket(self, tunnel: Tunnel) -> tuple[Any, Any]:
        client = tunnel.client(UPGRADE)
        [service] = tunnel.services[0]
        service.transport.write(SWITCH + b"\x82\x03one")
        tunnel.turn()
        self.assertTrue(client.data.endswith(b"\x82\x03one"), client.data)
        client.data = b""
        return client, service


class EndedTests(LimitCase):
    def test_a_websocket(self) -> None:
        for agent in (False, True):
            tunnel = self.tunnel(agent_kind="http")
            client, service = self.websocket(tunnel)
            said = self.stop(tunnel, agent)
            why = "the agent stops" if agent else "the server stops"
            self.assertIn("ended now: 1 WebSocket", said)
            self.assertEqual(client.data, close_frame(GOING_AWAY, why))
            self.assertIsNone(client.reason)
            client.transport.write(b"\x88\x82\0\0\0\0\x03\xe9")
            tunnel.turn()
            self.assertTrue(service.data.endswith(b"\x88\x82\0\0\0\0\x03\xe9"))
            service.transport.write(b"\x88\x02\x03\xe9")
            service.transport.loseConnection()
            tunnel.turn()
            client.transport.loseConnection()
            tunnel.turn(0.2)
            self.successResultOf(self.stopped)
            self.assertEqual(client.data, close_frame(GOING_AWAY, why))  # nothing came behind it

    def test_a_websocket_through_an_agent_that_relays_bytes(self) -> None:
        """It can only end its stream; it is the server that says so, between two frames."""
        for rest in (b"", b"\x82\x05he"):
            tunnel = self.tunnel(agent_kind="tcp")
            client, service = self.websocket(tunnel)
            service.transport.write(rest)
            self.assertIn("ended now: 1 TCP session", self.stop(tunnel, True))
            tunnel.turn(END_TIME)
            gone = b"" if rest else close_frame(GOING_AWAY, "the agent, or the service behind it, has gone")
            self.assertEqual(client.data, rest + gone)
            self.assertIsNotNone(client.reason)
            self.successResultOf(self.stopped)

    def test_a_websocket_in_the_middle_of_a_frame(self) -> None:
        tunnel = self.tunnel(agent_kind="http")
        client, service = self.websocket(tunnel)
        service.transport.write(b"\x82\x05he")
        self.stop(tunnel, False)
        self.assertEqual(client.data, b"\x82\x05he")
        service.transport.write(b"llo\x82\x05later")
        tunnel.turn()
        self.assertEqual(client.data, b"\x82\x05hello" + close_frame(GOING_AWAY, "the server stops"))
        tunnel.turn(END_TIME)
        self.successResultOf(self.stopped)
        self.assertIsNotNone(client.reason)

    def test_a_response_of_known_length(self) -> None:
        for agent in (False, True):
            tunnel = self.tunnel(agent_kind="http")
            client = tunnel.client(REQUEST % b"/")
            tunnel.services[0][0].transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbegin")
            tunnel.turn()
            self.assertIn("1 HTTP/1 response", self.stop(tunnel, agent))
            tunnel.turn(END_TIME)
            self.assertTrue(client.data.endswith(b"begin"))
            self.assertIsNotNone(client.reason)
            self.successResultOf(self.stopped)

    def test_a_response_that_has_not_begun(self) -> None:
        for agent in (False, True):
            tunnel = self.tunnel(agent_kind="http")
            client = tunnel.client(REQUEST % b"/")
            self.assertIn("1 HTTP/1 request", self.stop(tunnel, agent))
            tunnel.turn(END_TIME)
            self.assertRegex(client.data, rb"^HTTP/1.1 50[23] ")
            self.successResultOf(self.stopped)

    def test_a_session(self) -> None:
        for agent in (False, True):
            tunnel = self.tunnel(kind="tcp")
            client = tunnel.client(b"a session without end")
            [service] = tunnel.services[0]
            service.transport.write(b"and its answer")
            tunnel.turn()
            self.assertIn("1 TCP session", self.stop(tunnel, agent))
            self.assertEqual(client.data, b"and its answer")
            tunnel.turn(END_TIME + 0.1)
            self.assertIsNotNone(client.reason)
            self.assertIsNotNone(service.reason)
            self.successResultOf(self.stopped)

    def test_those_that_end_in_time_are_not_mentioned(self) -> None:
        tunnel = self.tunnel(agent_kind="http")
        client = tunnel.client(REQUEST % b"/")
        with capture() as logged:
            stopped = tunnel.server.stopService()
            tunnel.turn(LIMIT - 1)
            tunnel.services[0][0].answer(b"done")
            tunnel.turn(0.3)
        self.successResultOf(stopped)
        self.assertIn(b"done", client.data)
        self.assertNotIn("ended now", logged.text())
