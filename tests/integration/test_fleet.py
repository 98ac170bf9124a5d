"""Servers of a fleet, with a real etcd between them, as processes."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

from twisted.internet import reactor as global_reactor

from tests.fleet.processes import FleetCase
from tests.fleet.real_etcd import ETCD
from tests.integration.clients import Load, fetch, gather
from tests.integration.configs import agent
from tests.integration.harness import SERVING

reactor: Any = global_reactor

DOMAIN = "brought.example"
ROUTES = {
    "validators": {
        "static": {"tokens": [{"agent": "edge", "token": "secret", "domains": [f"*.{DOMAIN}"], "ports": []}]}
    },
    "agent_routes": {"router": "client_router", "grace": "1s"},
}
PROOF = {"credential_policy": "static", "credential_config": {"token": "secret"}}
WORKER = r"worker 1 is ready, process (\d+)"
KILLED = r"worker 1, process \d+, was ended by SIGKILL"


class FleetTests(FleetCase):
    async def bring_routes(self) -> None:
        """An agent brings a domain to the server with workers: both know it, and forget it, in a moment."""
        routes = {"cluster": "brought", "routes": {"domains": [f"a.{DOMAIN}"]}, **PROOF}
        document = agent([f"127.0.0.1:{self.ports['a'][1]}"], answer="brought", connections=2, **routes)
        edge = self.run_proxy(document, "agent with routes")
        await edge.logged(SERVING)
        began = reactor.seconds()
        for server in "ba":
            await self.answered(server, b"brought")
        took = reactor.seconds() - began
        self.assertLess(took, 1.5, "a second, and what the requests take")
        self.assertEqual(await edge.stop(), 0)
        for server in "ba":
            await self.answered(server, b"", b"one", b"two")

    async def kick(self) -> None:
        """An operator of b bans an agent of a's, whose workers have its connections."""
        document = agent([f"127.0.0.1:{self.ports['a'][1]}"], answer="kicked", connections=4, **PROOF)
        document["extends"][0]["config"] |= {"cluster": "spareCluster", "host_name": "to-be-kicked"}
        edge = self.run_proxy(document, "agent to be kicked")
        await edge.counted(SERVING, 1)

        async def listed(server: str) -> list[Any]:
            items = (await self.operate(server, "agents"))["items"]
            return [each for each in items if each["claimed_host_name"] == "to-be-kicked"]

        async def known() -> bool:
            found = await listed("b")
            return bool(found and found[0]["elsewhere"]["a"]["connections"] == 4)

        await self.until(known, "b should list the agent of a")
        [found] = await listed("b")
        answer = await self.operate("b", f"agents/{found['id']}?ban=600", "DELETE")
        self.assertEqual((answer["passed_on"], answer["problems"]), ({"a": 4}, []))

        async def gone() -> bool:
            return not await listed("b") and not await listed("a")

        await self.until(gone, "the agent should be gone")
        [entry] = [
            each for each in (await self.operate("a", "audit"))["items"] if each["agent"] == found["id"]
        ]
        self.assertEqual(
            (entry["what"], entry["caller"], entry["connections"]), ("kick", "ops at server b", 4)
        )
        again = await self.operate("a", f"agents/{found['id']}/resume", "POST")
        self.assertTrue(again["was_kept_out"])
        await edge.stop()

    async def answered(self, server: str, *bodies: bytes) -> None:
        """Wait until a server answers for the domain so, whichever of its workers is asked."""

        async def look() -> bool:
            found = [
                await fetch(self.ports[server][0], "/echo", headers={"Host": f"a.{DOMAIN}"}) for _ in range(4)
            ]
            return all(each.status == 200 and each.body in bodies for each in found)

        await self.until(look, f"{server} should answer {bodies}")

    async def test_two_servers(self) -> None:
        """One story, as processes take longer to start than to tell it."""
        await self.begin()
        one, two, a, b = await gather(
            [
                self.run_backend("one"),
                self.run_backend("two"),
                self.server("a", workers=2, tunnel_config=ROUTES),
                self.server("b", tunnel_config=ROUTES),
            ]
        )
        await gather(
            [
                self.agent("one", "a", "b", backend=one.address, connections=2),
                self.agent("two", "a", backend=two.address, mux=False, connections=4),
            ]
        )
        # Either server reaches either agent, and both of them say so.
        await self.reaches("b", {"one", "two"})
        await self.reaches("a", {"one", "two"})
        mark_a, mark_b = a.mark(), b.mark()
        for _ in range(32):  # of which some go to the other server, as hosts are chosen at random
            await fetch(self.ports["b"][0], "/logged")
        line = json.loads(await b.wait_for(lambda line: '"server": "a"' in line and line, mark_b))
        self.assertEqual((line["by"], line["protocol"]), ("-", "Http1"))
        forwarded = json.loads(await a.wait_for(lambda line: '"by": "b"' in line and line, mark_a))
        self.assertEqual((forwarded["server"], forwarded["protocol"]), ("-", "Http1"))
        self.assertTrue(forwarded["client"].startswith("127.0.0.1:"))

        # Whichever worker has the agent, and whichever gets the request.
        load = Load(self.ports["b"][0], clients=8, limit=400).start()
        await load.finished()
        self.assertEqual(load.failures, [])

        await self.bring_routes()
        await self.kick()

        # The worker is killed that publishes for both: the server stays known, with all its agents.
        ready = await a.wait_for(WORKER)
        load = Load(self.ports["b"][0], clients=4, method="GET").start()
        await load.answers(50)
        mark_a, mark_b = a.mark(), b.mark()
        self.expected_errors.append(KILLED)
        os.kill(int(ready.group(1)), signal.SIGKILL)
        await a.wait_for(WORKER, mark_a)
        await load.answers(100)
        await load.stop()
        self.assertEqual(load.failures, [])
        await self.reaches("b", {"one", "two"})
        left = [each["message"] for each in b.entries(mark_b) if "has left" in each["message"]]
        self.assertEqual(left, [])

        # A planned stop: nothing fails.
        load = Load(self.ports["b"][0], clients=8).start()
        await load.answers(200)
        self.assertEqual(await a.stop(), 0)
        await load.answers(200)
        await load.stop()
        self.assertEqual(load.failures, [])
        await self.reaches("b", {"one"})

        # It comes back, and is killed: others are without it within 5 s.
        a = await self.server("a")
        await self.reaches("b", {"one", "two"})
        load = Load(self.ports["b"][0], clients=4, method="GET").start()
        await load.answers(50)
        mark = b.mark()
        await a.kill()
        await b.logged("^fleet: the link to server a is lost", mark, timeout=5.0)
        await load.answers(200)
        await load.stop()
        self.assertEqual(load.failures, [])


if ETCD is None:
    del FleetTests
