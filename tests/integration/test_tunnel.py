"""Tunnel server and agents as real processes: start, loss, failover and drain."""

from __future__ import annotations

from tests.integration.clients import Load, fetch, gather
from tests.integration.configs import quick_agent, server
from tests.integration.harness import JOINED, LEFT, SERVING, IntegrationTestCase, ReverseProxy


async def joined(proxy: ReverseProxy, count: int = 1, since: int = 0) -> None:
    """Wait until a tunnel server has taken that many connections into a cluster."""
    await proxy.counted(JOINED, count, since)


class StartTests(IntegrationTestCase):
    async def test_request_through_the_tunnel(self) -> None:
        backend = await self.run_backend()
        cloud = self.run_proxy(server(), "server")
        self.run_proxy(quick_agent(await cloud.port("tunnelListener"), backend.address), "agent")
        await joined(cloud)
        answer = await fetch(
            await cloud.port("clientListener"), "/echo", "POST", b"hello", {"x-id": "the first"}
        )
        self.assertEqual((answer.status, answer.body), (200, b"hello"))
        self.assertEqual(answer.headers["x-id"], "the first")

    async def test_agent_before_server(self) -> None:
        port = self.reserve_port()
        edge = self.run_proxy(quick_agent(port), "agent")
        await edge.logged("refused")
        cloud = self.run_proxy(server(tunnel=f"127.0.0.1:{port}"), "server")
        await joined(cloud)
        answer = await fetch(await cloud.port("clientListener"))
        self.assertEqual((answer.status, answer.body), (200, b"answered by the agent"))

    async def test_no_agent(self) -> None:
        cloud = self.run_proxy(server(cluster={"first_host_wait": "0s"}), "server")
        answer = await fetch(await cloud.port("clientListener"))
        self.assertEqual(answer.status, 502)

    async def test_requests_before_the_first_agent(self) -> None:
        """A server that has just been started lets them wait, whatever they are."""
        cloud = self.run_proxy(server(), "server")
        client = await cloud.port("clientListener")
        early = [fetch(client, "/", method, b"x" * 100) for method in ("POST", "PUT")]
        self.run_proxy(quick_agent(await cloud.port("tunnelListener")), "agent")
        self.assertEqual([answer.status for answer in await gather(early)], [200, 200])

    async def test_connection_num(self) -> None:
        cloud = self.run_proxy(server(), "server")
        edge = self.run_proxy(quick_agent(await cloud.port("tunnelListener"), connections=8), "agent")
        await joined(cloud, 8)
        await edge.counted(SERVING, 8)
        client = await cloud.port("clientListener")
        answers = await gather(fetch(client) for _ in range(16))
        self.assertEqual({answer.status for answer in answers}, {200})


class LossTests(IntegrationTestCase):
    async def test_server_killed_and_restarted(self) -> None:
        tunnel, client = self.reserve_port(), self.reserve_port()
        config = server(tunnel=f"127.0.0.1:{tunnel}", client=f"127.0.0.1:{client}")
        cloud = self.run_proxy(config, "server")
        edge = self.run_proxy(quick_agent(tunnel, connections=2), "agent")
        await joined(cloud, 2)
        mark = edge.mark()
        await cloud.kill()
        await edge.logged("refused", mark)
        again = self.run_proxy(config, "server-again")
        await joined(again, 2)
        answer = await fetch(client)
        self.assertEqual((answer.status, answer.body), (200, b"answered by the agent"))

    async def test_agent_killed(self) -> None:
        cloud = self.run_proxy(server(), "server")
        tunnel, client = await cloud.port("tunnelListener"), await cloud.port("clientListener")
        first = self.run_proxy(quick_agent(tunnel, answer="first", connections=2), "first")
        await joined(cloud, 2)
        self.run_proxy(quick_agent(tunnel, answer="second", connections=2), "second")
        await joined(cloud, 4)
        mark = cloud.mark()
        await first.kill()
        await cloud.counted(LEFT, 2, mark)
        answers = await gather(fetch(client) for _ in range(8))
        self.assertEqual({answer.body for answer in answers}, {b"second"})

    async def test_agent_killed_in_the_middle_of_a_request(self) -> None:
        backend = await self.run_backend()
        cloud = self.run_proxy(server(), "server")
        tunnel, client = await cloud.port("tunnelListener"), await cloud.port("clientListener")
        edge = self.run_proxy(quick_agent(tunnel, backend.address), "agent")
        await joined(cloud)
        held = fetch(client, "/hold?key=lost", "POST", b"not to be sent twice")
        await fetch(backend.port, "/held?key=lost&n=1")
        await edge.kill()
        answer = await held
        self.assertEqual(answer.status, 502)

    async def test_agent_reconnects_when_its_connection_is_cut(self) -> None:
        # what MOSN's server does after each TCP session, and any middle box when it likes
        cloud = self.run_proxy(server(kind="tcp"), "server")
        tunnel, client = await cloud.port("tunnelListener"), await cloud.port("clientListener")
        self.run_proxy(quick_agent(tunnel, mux=False), "agent")
        for turn in range(1, 4):
            await joined(cloud, turn)
            answer = await fetch(client)
            self.assertEqual(answer.body, b"answered by the agent")


class DrainTests(IntegrationTestCase):
    async def test_agent_stops_under_load(self) -> None:
        first_backend, second_backend = await self.run_backend("one"), await self.run_backend("two")
        cloud = self.run_proxy(server(), "server")
        tunnel, client = await cloud.port("tunnelListener"), await cloud.port("clientListener")
        first = self.run_proxy(quick_agent(tunnel, first_backend.address, connections=16), "first")
        self.run_proxy(quick_agent(tunnel, second_backend.address, connections=16), "second")
        await joined(cloud, 32)
        load = Load(client, 32).start()
        await load.answers(300)
        self.assertEqual(await first.stop(), 0)
        before = load.backends.get("one", 0)
        await load.answers(300)
        await load.stop()
        self.assertEqual(load.failures, [])
        self.assertGreater(before, 0)
        self.assertEqual(load.backends["one"], before, "the stopped agent's backend was used again")

    async def test_request_under_way_is_finished(self) -> None:
        backend = await self.run_backend()
        cloud = self.run_proxy(server(), "server")
        tunnel, client = await cloud.port("tunnelListener"), await cloud.port("clientListener")
        edge = self.run_proxy(quick_agent(tunnel, backend.address), "agent")
        await joined(cloud)
        held = fetch(client, "/hold?key=slow", headers={"x-id": "finished"})
        await fetch(backend.port, "/held?key=slow&n=1")
        mark = cloud.mark()
        edge.signal("TERM")
        await cloud.counted(LEFT, 1, mark)
        await fetch(backend.port, "/release?key=slow")
        answer = await held
        self.assertEqual((answer.status, answer.body), (200, b"finished"))
        self.assertEqual(await edge.ended(), 0)

    async def test_drain_ends_at_its_deadline(self) -> None:
        backend = await self.run_backend()
        cloud = self.run_proxy(server(), "server")
        tunnel, client = await cloud.port("tunnelListener"), await cloud.port("clientListener")
        edge = self.run_proxy(
            quick_agent(tunnel, backend.address, graceful_close_max_wait_duration="300ms"), "agent"
        )
        await joined(cloud)
        held = fetch(client, "/hold?key=stuck", "POST", b"not to be sent twice")
        await fetch(backend.port, "/held?key=stuck&n=1")
        self.assertEqual(await edge.stop(), 0)
        answer = await held
        self.assertEqual(answer.status, 503)

    async def test_server_stops_under_load(self) -> None:
        backend = await self.run_backend()
        cloud = self.run_proxy(server(), "server")
        tunnel, client = await cloud.port("tunnelListener"), await cloud.port("clientListener")
        edge = self.run_proxy(quick_agent(tunnel, backend.address, connections=8), "agent")
        await joined(cloud, 8)
        held = [
            fetch(client, "/hold?key=server", headers={"x-id": f"request {number}"}) for number in range(8)
        ]
        await fetch(backend.port, "/held?key=server&n=8")
        mark = edge.mark()
        cloud.signal("TERM")
        await cloud.logged("^listener clientListener no longer listening")
        with self.assertRaises(ConnectionError):
            await fetch(client)
        await fetch(backend.port, "/release?key=server")
        answers = await gather(held)
        self.assertEqual(
            [(answer.status, answer.body) for answer in answers],
            [(200, b"request %d" % number) for number in range(8)],
        )
        self.assertEqual(await cloud.ended(), 0)
        await edge.logged("refused", mark)


class IdentityTests(IntegrationTestCase):
    async def test_every_answer_matches_its_request(self) -> None:
        backend = await self.run_backend()
        cloud = self.run_proxy(server(), "server")
        tunnel, client = await cloud.port("tunnelListener"), await cloud.port("clientListener")
        self.run_proxy(quick_agent(tunnel, backend.address, connections=4), "agent")
        await joined(cloud, 4)
        load = Load(client, 32, limit=1000).start()
        await load.finished()
        self.assertEqual((load.failures, load.answered), ([], 1000))


class LentTests(StartTests, LossTests, DrainTests, IdentityTests):
    """All of it with connections that carry one request at a time."""

    mux = False
