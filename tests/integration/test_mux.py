"""Many streams over one connection of an agent: real processes."""

from __future__ import annotations

import json
from typing import Any

from tests.integration.clients import Load, connect_raw, fetch, gather
from tests.integration.configs import quick_agent, server
from tests.integration.harness import JOINED, LEFT, SERVING, SLOW_MACHINE, IntegrationTestCase, ReverseProxy

SILENT = "is closed: nothing has come for "

WITHIN = 5.0
"""
Seconds within which a peer that stands still is noticed, as documented.

Of these, PING_INTERVAL may pass before the ping, and PING_TIMEOUT and two looks of GRACE after its
acknowledgement, which the peer's kernel sends at once: 4.6 s.  The rest is for processes of a busy machine.
"""


class ManyTests(IntegrationTestCase):
    async def test_many_requests_on_one_connection(self) -> None:
        backend = await self.run_backend()
        cloud = self.run_proxy(server(), "server")
        tunnel, client = await cloud.port("tunnelListener"), await cloud.port("clientListener")
        edge = self.run_proxy(quick_agent(tunnel, backend.address), "agent")
        await edge.counted(SERVING, 1)
        held = [fetch(client, "/hold?key=many", headers={"x-id": f"request {n}"}) for n in range(100)]
        await fetch(backend.port, "/held?key=many&n=100")
        # They do not keep others waiting.
        answer = await fetch(client, "/echo", "POST", b"quick")
        self.assertEqual(answer.body, b"quick")
        await fetch(backend.port, "/release?key=many")
        answers = await gather(held)
        self.assertEqual([answer.body for answer in answers], [b"request %d" % n for n in range(100)])
        self.assertEqual(len(cloud.find(lambda line: "joined" in line)), 1)

    async def test_every_answer_matches_its_request(self) -> None:
        backend = await self.run_backend()
        cloud = self.run_proxy(server(), "server")
        tunnel, client = await cloud.port("tunnelListener"), await cloud.port("clientListener")
        edge = self.run_proxy(quick_agent(tunnel, backend.address), "agent")
        await edge.counted(SERVING, 1)
        load = Load(client, 32, limit=1000).start()
        await load.finished()
        self.assertEqual((load.failures, load.answered), ([], 1000))

    async def test_agent_with_one_connection_stops_under_load(self) -> None:
        one, two = await self.run_backend("one"), await self.run_backend("two")
        cloud = self.run_proxy(server(), "server")
        tunnel, client = await cloud.port("tunnelListener"), await cloud.port("clientListener")
        first = self.run_proxy(quick_agent(tunnel, one.address), "first")
        self.run_proxy(quick_agent(tunnel, two.address), "second")
        await cloud.counted(JOINED, 2)
        load = Load(client, 32).start()
        await load.answers(300)
        mark = cloud.mark()
        self.assertEqual(await first.stop(), 0)
        await load.answers(300)
        await load.stop()
        self.assertEqual(load.failures, [])
        self.assertEqual(len(cloud.find(lambda line: "the agent leaves" in line, mark)), 1)


class MixTests(IntegrationTestCase):
    """Ends that can carry streams, and ends that can't."""

    async def concurrent(self, server_mux: bool, **agent: Any) -> bool:
        """
        Find out whether two requests at once go over one connection.

        It is the service that says whether it has the second request while it
        has not answered the first: which answer comes first to clients on
        connections of their own depends on who is busy.
        """
        expected = server_mux and agent.get("mux", True) and agent.get("announce", True)
        backend = await self.run_backend()
        config = server(tunnel_config={"mux": server_mux})
        rules = config["servers"][0]["routers"][0]["virtual_hosts"][0]["routers"]
        rules.insert(0, {"match": {"path": "/own"}, "direct_response": {"status": 200, "body": "own"}})
        cloud = self.run_proxy(config, "server")
        tunnel, client = await cloud.port("tunnelListener"), await cloud.port("clientListener")
        self.run_proxy(quick_agent(tunnel, backend.address, **agent), "agent")
        await cloud.counted(JOINED, 1)
        first = fetch(client, "/hold?key=one")
        await fetch(backend.port, "/held?key=one&n=1")
        second = await connect_raw(self, client)
        # Not by way of the reactor: it is there before anything that comes after this.
        second.transport.getHandle().send(b"GET /hold?key=two HTTP/1.1\r\nHost: a\r\n\r\n")
        if expected:
            await fetch(backend.port, "/held?key=two&n=1")
        else:
            # When the server has answered this by itself, it has read the second one, too;
            # and it has had the time to pass it on, if it does.
            for _ in range(30):
                await fetch(client, "/own")
        held = await fetch(backend.port, "/held?key=two&n=0")
        await fetch(backend.port, "/release?key=one")
        await fetch(backend.port, "/release?key=two")
        self.assertEqual((await first).status, 200)
        await second.contains(b"HTTP/1.1 200")
        return held.body == b"1"

    async def test_both_can(self) -> None:
        self.assertTrue(await self.concurrent(True))

    async def test_the_server_can_t(self) -> None:
        self.assertFalse(await self.concurrent(False))

    async def test_the_agent_can_t(self) -> None:
        self.assertFalse(await self.concurrent(True, mux=False))

    async def test_none_can(self) -> None:
        self.assertFalse(await self.concurrent(False, mux=False))

    async def test_an_agent_that_does_not_announce_itself(self) -> None:
        self.assertFalse(await self.concurrent(True, announce=False))


class DeadPeerTests(IntegrationTestCase):
    """
    Peers that stand still: their kernel goes on answering, but they do not.

    Time is real here, as the processes' is; no test waits for a length of time.
    """

    def silences(self, process: ReverseProxy) -> list[float]:
        """How long it took to notice, in seconds, as logged."""
        entries = [json.loads(line) for line in process.lines if SILENT in line]
        return [entry["silent"] for entry in entries]

    async def test_an_agent_that_stands_still(self) -> None:
        one, two = await self.run_backend("one"), await self.run_backend("two")
        cloud = self.run_proxy(server(), "server")
        tunnel, client = await cloud.port("tunnelListener"), await cloud.port("clientListener")
        first = self.run_proxy(quick_agent(tunnel, one.address, connections=2), "first")
        self.run_proxy(quick_agent(tunnel, two.address, connections=2), "second")
        await cloud.counted(JOINED, 4)
        # Both have requests under way, and nobody knows of the next ones that one of them has stopped.
        held = [fetch(client, "/hold?key=stop") for _ in range(10)]
        await fetch(one.port, "/held?key=stop&n=1")
        first.signal("STOP")
        mark = cloud.mark()
        held += [fetch(client, "/hold?key=stop") for _ in range(10)]
        await cloud.counted(LEFT, 2, mark)
        self.assertEqual(len(self.silences(cloud)), 2)
        self.assertLessEqual(max(self.silences(cloud)), WITHIN + SLOW_MACHINE)
        # All of them are with the other one now.
        await fetch(two.port, "/held?key=stop&n=20")
        await fetch(two.port, "/release?key=stop")
        answers = await gather(held)
        self.assertEqual({(answer.status, answer.headers["x-backend"]) for answer in answers}, {(200, "two")})
        load = Load(client, 8, limit=100).start()
        await load.finished()
        self.assertEqual((load.failures, load.backends), ([], {"two": 100}))
        # The first one finds out that it has lost its connections, and comes back.
        mark = cloud.mark()
        first.signal("CONT")
        await cloud.counted(JOINED, 2, mark)

    async def test_a_server_that_stands_still(self) -> None:
        cloud = self.run_proxy(server(), "server")
        edge = self.run_proxy(quick_agent(await cloud.port("tunnelListener")), "agent")
        await edge.counted(SERVING, 1)
        cloud.signal("STOP")
        await edge.logged(SILENT)
        self.assertLessEqual(max(self.silences(edge)), WITHIN + SLOW_MACHINE)
        cloud.signal("CONT")
        mark = edge.mark()
        await edge.counted(SERVING, 1, mark)
