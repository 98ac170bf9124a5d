"""gRPC through a tunnel: a real client and a real server at its ends."""

from __future__ import annotations

import json
from typing import Any

from tests.integration.configs import quick_agent, server
from tests.integration.grpc_results import ENDINGS, KINDS
from tests.integration.harness import DEADLINE, JOINED, Child, IntegrationTestCase
from tests.integration.http2_configs import spoken


class GrpcTestCase(IntegrationTestCase):
    async def start(self, connections: int = 1, **agent: Any) -> int:
        """Start backend, server and agent; the port for clients."""
        backend = self.backend = Child("grpc backend")
        self.spawn(backend, "-m", "tests.integration.grpc_backend")
        found = await backend.wait_for(r"^listening on (\d+)$")
        self.cloud = self.run_proxy(spoken(server(), "Http2"), "server")
        self.tunnel = await self.cloud.port("tunnelListener")
        self.backend_address = f"127.0.0.1:{found.group(1)}"
        self.edge = self.run_agent("agent", connections, **agent)
        await self.cloud.counted(JOINED, connections)
        return await self.cloud.port("clientListener")

    def run_agent(self, name: str, connections: int = 1, **more: Any) -> Any:
        config = quick_agent(self.tunnel, self.backend_address, connections=connections, **more)
        return self.run_proxy(spoken(config, "Http2"), name)

    async def client(self, port: int, scenario: str) -> dict[str, Any]:
        """Run a scenario of L{tests.integration.grpc_client}."""
        child = Child(f"grpc client {scenario}")
        self.spawn(child, "-m", "tests.integration.grpc_client", str(port), scenario)
        return await self.result(child)

    async def result(self, child: Child) -> dict[str, Any]:
        line = await child.wait_for(r"^result (.*)$", timeout=3 * DEADLINE)
        found: dict[str, Any] = json.loads(line.group(1))
        return found


class CallTests(GrpcTestCase):
    async def test_every_kind_of_call(self) -> None:
        port = await self.start()
        seen = await self.client(port, "kinds")
        self.assertEqual(seen, KINDS)

    async def test_stalled_streams_stall_nobody_else(self) -> None:
        port = await self.start()
        seen = await self.client(port, "stalled")
        self.assertEqual((seen["rest"], seen["sizes"]), (199, [500_000]))
        self.assertEqual((seen["turns"], seen["total"]), (20, 5_000_000))
        self.assertTrue(seen["stuck"])
        self.assertLess(seen["given"], 100)  # no more than the windows on the way hold
        self.assertLess(seen["took"], 20)


class PlainCallTests(CallTests):
    """The same over a connection that carries nothing but HTTP/2, as those of MOSN's agents do."""

    mux = False


class EndingTests(GrpcTestCase):
    async def test_failures_and_endings(self) -> None:
        port = await self.start()
        seen = await self.client(port, "statuses")
        wish = "as you wish: é"
        self.assertEqual(
            seen,
            {
                **{code: [int(code), wish] for code in ("5", "7", "14", "16")},
                "unknown": ["UNIMPLEMENTED", ""],
            },
        )
        self.assertEqual(await self.client(port, "endings"), ENDINGS)

    async def test_no_agent(self) -> None:
        self.cloud = self.run_proxy(spoken(server(cluster={"first_host_wait": "0s"}), "Http2"), "server")
        seen = await self.client(await self.cloud.port("clientListener"), "unreachable")
        self.assertEqual(seen["code"], "UNAVAILABLE")
        self.assertRegex(seen["details"], r"\Abad gateway \(error [0-9a-f]{8}\)\Z")
        number = seen["details"][-9:-1]
        await self.cloud.logged(rf"gets 502: cluster clientCluster has no host.*error {number}")

    async def test_agent_that_is_lost_in_the_midst_of_a_stream(self) -> None:
        port = await self.start()
        child = Child("grpc client cut_off")
        self.spawn(child, "-m", "tests.integration.grpc_client", str(port), "cut_off")
        await child.wait_for("^begun$")
        await self.edge.kill()
        seen = await self.result(child)
        self.assertEqual((seen["code"], seen["taken"]), ("UNAVAILABLE", True))
        self.assertRegex(seen["details"], r"\Ainternal server error \(error [0-9a-f]{8}\)\Z")
        await self.cloud.logged(rf"the host's connection was lost.*error {seen['details'][-9:-1]}")

    async def test_agents_come_and_go_under_load(self) -> None:
        port = await self.start(graceful_close_max_wait_duration="5s")
        child = Child("grpc client until_told")
        self.spawn(child, "-m", "tests.integration.grpc_client", str(port), "until_told")
        await child.wait_for("^begun$")
        for number in range(2):
            following = self.run_agent(f"agent{number}", graceful_close_max_wait_duration="5s")
            await self.cloud.counted(JOINED, number + 2)
            self.assertEqual(await self.edge.stop(), 0)
            self.edge = following
        child.transport.write(b"enough\n")
        seen = await self.result(child)
        self.assertEqual(seen["failed"], [])
        self.assertGreater(seen["done"], 10)
