"""Routes that an agent brings, to a server of several processes."""

from __future__ import annotations

import os
import signal
import socket

from tests.integration.clients import fetch, gather, threaded
from tests.integration.configs import quick_agent
from tests.integration.harness import DEADLINE
from tests.integration.test_workers import WorkersTestCase

DOMAIN = "app.example"
JOINED = r"^cluster \w+: host .* joined "


class WorkersTests(WorkersTestCase):
    async def test_domain_and_port(self) -> None:
        """Each worker knows them; one that is killed, too, once it is back; and all forget them."""
        self.expected_errors += ["was ended by SIGKILL", "is gone"]
        backend = await self.run_backend()
        wanted = self.reserve_port()
        token = {"agent": "edge", "token": "secret", "domains": [DOMAIN], "ports": [f"{wanted}"]}
        routes = {"router": "client_router", "tcp_ports": [f"{wanted}"], "grace": "1s"}
        cloud, client, tunnel = await self.run_workers(
            2,
            tunnel_config={
                "credential_policy": "static",
                "validators": {"static": {"tokens": [token]}},
                "agent_routes": routes,
            },
        )
        proof = {"credential_policy": "static", "credential_config": {"token": "secret"}}

        def bring(cluster: str, **asked: object) -> object:
            return self.run_proxy(
                quick_agent(tunnel, backend.address, connections=2, cluster=cluster, routes=asked, **proof),
                f"agent of {cluster}",
            )

        bring("brought", domains=[DOMAIN])
        edge = bring("lines", port=wanted)
        await cloud.counted(JOINED, 8)
        pid = await self.pid_of(cloud, 2)

        async def served(number: int) -> None:
            headers = {"Host": DOMAIN}
            answers = await gather([fetch(client, "/", headers=headers) for _ in range(number)])
            answers += await gather([fetch(wanted, "/") for _ in range(number)])
            self.assertEqual({answer.status for answer in answers}, {200})

        await served(8)
        mark = cloud.mark()
        os.kill(pid, signal.SIGKILL)
        await cloud.logged("^worker 2, process .* was ended by SIGKILL; it is started again", mark)
        await served(4)
        await self.pid_of(cloud, 2, mark)
        await cloud.logged(JOINED, mark, worker=2)
        await served(8)
        self.assertEqual(await edge.stop(), 0)  # type: ignore[attr-defined]
        await cloud.logged("^the cluster lines is gone with its routes", mark)
        await cloud.counted(f"^listener agents' port {wanted} no longer listening", 2, mark)

        def dial() -> int:
            with socket.socket() as dialling:
                dialling.settimeout(DEADLINE)
                return dialling.connect_ex(("127.0.0.1", wanted))

        # Somebody else may have the port for a moment, now that it is free.
        tries = [await threaded(dial) for _ in range(20)]
        self.assertNotEqual(tries[-1], 0)
        self.assertEqual((await fetch(client, "/", headers={"Host": DOMAIN})).status, 200)
        self.assertEqual(await cloud.stop(), 0)
