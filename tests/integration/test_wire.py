"""The tunnel's frames between a real process and a peer in the hands of the test."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from tests.integration.clients import (
    RawPeer,
    close_frame,
    connect_raw,
    fetch,
    frame,
    gather,
    init_frame,
    listen_raw,
    response_frame,
)
from tests.integration.configs import quick_agent, server
from tests.integration.harness import JOINED, LEFT, IntegrationTestCase, resident_bytes

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def until_closed(peers: list[RawPeer], count: int) -> Deferred[None]:
    """Wait until that many of these connections have been closed."""
    enough: Deferred[None] = Deferred()
    closed = 0

    def one(_: object) -> None:
        nonlocal closed
        closed += 1
        if closed == count:
            enough.callback(None)

    for peer in peers:
        # those that stay open are closed by the test in the end
        peer.closed().addCallbacks(one, lambda _: None)
    return enough


class ServerTests(IntegrationTestCase):
    """The server, from the point of view of an agent like MOSN's."""

    async def start(self, **config: Any) -> tuple[int, int]:
        """Start a server; the ports for agents and for clients."""
        self.cloud = self.run_proxy(server(**config), "server")
        return await self.cloud.port("tunnelListener"), await self.cloud.port("clientListener")

    async def introduce(
        self, port: int, cluster: str = "clientCluster", **fields: object
    ) -> tuple[RawPeer, int]:
        """Connect and send an init frame; the connection and the status answered."""
        peer = await connect_raw(self, port)
        peer.transport.write(init_frame(cluster, **fields))
        flag, payload = await peer.frame()
        self.assertEqual(flag, 2)
        return peer, payload["status"]

    async def test_success(self) -> None:
        tunnel, client = await self.start()
        peer, status = await self.introduce(tunnel)
        self.assertEqual(status, 1)
        await self.cloud.counted(JOINED, 1)
        answer = fetch(client, "/from/the/client")
        await peer.contains(b"\r\n\r\n")
        self.assertTrue(peer.received.startswith(b"GET /from/the/client HTTP/1.1\r\n"), peer.received)
        peer.transport.write(OK)
        self.assertEqual((await answer).body, b"ok")

    async def test_frame_in_single_bytes(self) -> None:
        tunnel, _ = await self.start()
        peer = await connect_raw(self, tunnel)
        peer.transport.setTcpNoDelay(True)
        for byte in init_frame("clientCluster"):
            peer.transport.write(bytes([byte]))
        self.assertEqual(await peer.frame(), (2, {"status": 1}))

    async def test_rejected_credential(self) -> None:
        tunnel, _ = await self.start(
            tunnel_config={
                "credential_policy": "static",
                "validators": {"static": {"tokens": [{"agent": "agent-1", "token": "right token"}]}},
            }
        )
        peer, status = await self.introduce(tunnel, credential_policy="static", credential="wrong token")
        self.assertEqual(status, 2)
        await peer.closed()
        _, status = await self.introduce(tunnel, credential_policy="static", credential="right token")
        self.assertEqual(status, 1)

    async def test_unknown_policy(self) -> None:
        tunnel, _ = await self.start()
        peer, status = await self.introduce(tunnel, credential_policy="unheard-of", credential="x")
        self.assertEqual(status, 3)
        await peer.closed()

    async def test_unknown_cluster(self) -> None:
        tunnel, _ = await self.start()
        peer, status = await self.introduce(tunnel, "unheardOfCluster")
        self.assertEqual(status, 4)
        await peer.closed()
        await self.cloud.logged("unheardOfCluster")

    async def test_graceful_close_takes_the_host_out(self) -> None:
        # a cluster that has just lost its last agent waits as long as this for it to come back
        tunnel, client = await self.start(cluster={"connect_timeout": "200ms"})
        peer, _ = await self.introduce(tunnel)
        await self.cloud.counted(JOINED, 1)
        aside = await connect_raw(self, tunnel)
        aside.transport.write(close_frame("clientCluster", peer.address))
        await self.cloud.counted(LEFT, 1)
        self.assertIn((await fetch(client)).status, (502, 503))
        # nothing was under way, so that there is nothing to wait for
        await peer.closed()

    async def test_silent_aside_connection_and_its_close_frame(self) -> None:
        # MOSN's agent keeps one connection open that says nothing until the end
        tunnel, _ = await self.start(tunnel_config={"handshake_timeout": "100ms"})
        aside = await connect_raw(self, tunnel)
        peer, _ = await self.introduce(tunnel)
        await self.cloud.counted(JOINED, 1)
        slow = await connect_raw(self, tunnel)
        slow.transport.write(init_frame("clientCluster")[:40])
        await slow.closed()
        await self.cloud.logged("took too long")
        # the handshake's deadline has passed for the silent one as well
        aside.transport.write(close_frame("clientCluster", peer.address))
        await self.cloud.counted(LEFT, 1)

    async def test_close_frame_of_somebody_else(self) -> None:
        tunnel, client = await self.start()
        self.run_proxy(quick_agent(tunnel), "agent")
        await self.cloud.counted(JOINED, 1)
        joined = next(e for e in self.cloud.entries() if "clientCluster: host" in e["message"])
        stranger = await connect_raw(self, tunnel)
        stranger.transport.write(close_frame("clientCluster", joined["host"]))
        await self.cloud.logged("graceful close")
        self.assertEqual((await fetch(client)).status, 200)

    async def test_hostile_peers_cost_only_their_connection(self) -> None:
        tunnel, client = await self.start(
            tunnel_config={"handshake_timeout": "500ms", "max_pending_connections": 64}
        )
        self.run_proxy(quick_agent(tunnel, connections=4), "agent")
        await self.cloud.counted(JOINED, 4)
        before = resident_bytes(self.cloud.pid)
        hostile = {
            "random bytes": os.urandom(4096),
            "an HTTP request": b"GET / HTTP/1.1\r\nHost: tunnel\r\n\r\n",
            "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            "a wrong magic": b"\xda\xbb" + init_frame("clientCluster")[2:],
            "an unknown flag": frame(9, b"{}"),
            "no payload": frame(1, b""),
            "not JSON": frame(1, b"nonsense!"),
            "JSON of another kind": frame(1, b"[1,2]"),
            "a string for a weight": init_frame("clientCluster", weight="10"),
            "a number for a name": init_frame(7),  # type: ignore[arg-type]
            "not UTF-8": frame(1, b'{"cluster_name":"\xff\xfe"}'),
            "deep nesting": frame(1, b"[" * 60_000),
            "a response": response_frame(1),
        }
        for name, sent in hostile.items():
            peer = await connect_raw(self, tunnel)
            peer.transport.write(sent)
            received = await peer.closed()
            self.assertNotIn(b'"status":1', received, name)
            self.assertEqual((await fetch(client)).status, 200, name)
        # one that begins a frame and never ends it, and many that say nothing
        slow = await connect_raw(self, tunnel)
        slow.transport.write(init_frame("clientCluster")[:40])
        await slow.closed()
        flood = await gather(connect_raw(self, tunnel) for _ in range(200))
        self.assertEqual((await fetch(client)).status, 200)
        # there is room for 64 of them, and the oldest ones have to make it
        await until_closed(flood, 136)
        self.assertEqual(sum(peer.eof for peer in flood), 136)
        self.assertEqual((await fetch(client)).status, 200)
        self.assertLess(resident_bytes(self.cloud.pid) - before, 32 << 20)

    async def test_more_bytes_than_a_frame_may_have(self) -> None:
        tunnel, client = await self.start(cluster={"first_host_wait": "0s"})
        peer = await connect_raw(self, tunnel)
        # a promise of the longest payload that there can be, and more behind it
        peer.transport.write(b"\x20\x88\x01\x01\x01\x00\xff\xff" + b"x" * 1_000_000)
        await peer.closed()
        self.assertEqual((await fetch(client)).status, 502)

    async def test_good_traffic_during_a_flood(self) -> None:
        tunnel, client = await self.start(tunnel_config={"handshake_timeout": "500ms"})
        self.run_proxy(quick_agent(tunnel, connections=8), "agent")
        await self.cloud.counted(JOINED, 8)
        peers = [await connect_raw(self, tunnel) for _ in range(50)]
        for peer in peers:
            peer.transport.write(os.urandom(64))
        answers = await gather(fetch(client) for _ in range(50))
        self.assertEqual({answer.status for answer in answers}, {200})
        await gather(peer.closed() for peer in peers)


class AgentTests(IntegrationTestCase):
    """The agent, from the point of view of a server like MOSN's."""

    async def test_init_frame_and_request(self) -> None:
        fake = await listen_raw(self)
        self.run_proxy(quick_agent(fake.port, announce=False), "agent")
        peer = await fake.next()
        self.assertEqual(
            await peer.frame(),
            (
                1,
                {
                    "cluster_name": "clientCluster",
                    "weight": 10,
                    "host_name": "",
                    "credential_policy": "",
                    "credential": "",
                    "extra": None,
                },
            ),
        )
        # the answer and the first request in one piece, as they may come from MOSN
        peer.transport.write(response_frame(1) + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        received = await peer.contains(b"answered by the agent")
        self.assertTrue(received.startswith(b"HTTP/1.1 200 "), received)

    async def test_refusals_are_logged_and_retried(self) -> None:
        for status, meaning in (
            (0, "failed without saying why"),
            (2, "rejected the credential"),
            (3, "no validator for this credential policy"),
            (4, "no cluster of this name"),
            (77, "undefined status 77"),
        ):
            fake = await listen_raw(self)
            edge = self.run_proxy(quick_agent(fake.port, reconnect_max_duration="300ms"), f"agent-{status}")
            peer = await fake.next()
            await peer.frame()
            peer.transport.write(response_frame(status))
            await peer.closed()
            await edge.logged(meaning)
            again = await fake.next()
            await again.frame()

    async def test_garbage_instead_of_an_answer(self) -> None:
        fake = await listen_raw(self)
        edge = self.run_proxy(quick_agent(fake.port), "agent")
        for garbage in (os.urandom(64), init_frame("clientCluster"), b"HTTP/1.1 400 Bad Request\r\n\r\n"):
            peer = await fake.next()
            await peer.frame()
            mark = edge.mark()
            peer.transport.write(garbage)
            await peer.closed()
            await edge.logged("(?i)frame|magic|expected", mark)
        peer = await fake.next()
        await peer.frame()
        peer.transport.write(response_frame(1) + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await peer.contains(b"answered by the agent")

    async def test_no_answer_within_the_deadline(self) -> None:
        fake = await listen_raw(self)
        self.run_proxy(quick_agent(fake.port, connect_timeout_duration="300ms"), "agent")
        peer = await fake.next()
        await peer.frame()
        await peer.closed()
        again = await fake.next()
        await again.frame()

    async def test_graceful_close_comes_before_the_end(self) -> None:
        fake = await listen_raw(self)
        edge = self.run_proxy(quick_agent(fake.port, connections=2, announce=False), "agent")
        peers = [await fake.next(), await fake.next()]
        for peer in peers:
            await peer.frame()
            peer.transport.write(response_frame(1))
        await edge.counted("serving", 2)
        edge.signal("TERM")
        aside = await fake.next()
        flag, payload = await aside.frame()
        self.assertEqual(flag, 3)
        self.assertEqual(payload["cluster_name"], "clientCluster")
        remote = [f"127.0.0.1:{peer.transport.getPeer().port}" for peer in peers]
        self.assertEqual(sorted(payload["addresses"]), sorted(remote))
        for peer in peers:
            peer.transport.loseConnection()
        self.assertEqual(await edge.ended(), 0)

    async def test_credential_from_a_file_is_read_for_each_dial(self) -> None:
        token = Path(self.directory / "token")
        token.write_text("the first token\n")
        fake = await listen_raw(self)
        self.run_proxy(
            quick_agent(fake.port, credential_policy="static", credential_config={"file": str(token)}),
            "agent",
        )
        peer = await fake.next()
        _, payload = await peer.frame()
        self.assertEqual((payload["credential_policy"], payload["credential"]), ("static", "the first token"))
        token.write_text("the second token\n")
        peer.transport.loseConnection()
        again = await fake.next()
        _, payload = await again.frame()
        self.assertEqual(payload["credential"], "the second token")
