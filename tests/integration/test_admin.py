"""The admin API of real processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from reverseproxy.admin.access import SHORTEST_TOKEN
from tests.admin.world import parse_answer
from tests.integration.clients import fetch, threaded
from tests.integration.configs import quick_agent, server
from tests.integration.harness import DEADLINE, JOINED, IntegrationTestCase, ReverseProxy, certificates

READ, OPERATE = "r" * SHORTEST_TOKEN, "o" * SHORTEST_TOKEN


def request(path: Path, target: str, method: str = "GET") -> Any:
    """Ask at a Unix socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(DEADLINE)
        connection.connect(str(path))
        connection.sendall(f"{method} {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        data = b"".join(iter(lambda: connection.recv(65536), b""))
    return parse_answer(data)


class AdminTests(IntegrationTestCase):
    def socket(self) -> Path:
        """Where a Unix socket can be: the path of one must be short."""
        directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, directory)
        return Path(directory, "admin.sock")

    def tokens(self) -> str:
        file = self.directory / "tokens.json"
        tokens = [{"name": "grafana", "token": READ}, {"name": "ops", "token": OPERATE, "role": "operate"}]
        file.write_text(json.dumps(tokens))
        return str(file)

    async def test_tls_and_tokens(self) -> None:
        """Reachable from elsewhere: with TLS, and with a token."""
        ca = certificates(self.directory)
        chain, key = ca.issue("127.0.0.1")
        document = server()
        document["admin"] = {
            "address": {"socket_address": {"address": "0.0.0.0", "port_value": 0}},
            "tls_context": {"status": True, "cert_chain": chain, "private_key": key},
            "tokens_file": self.tokens(),
        }
        cloud = self.run_proxy(document, "server")
        port = await cloud.port("admin")
        tls = ssl.create_default_context(cafile=ca.ca_file)
        self.assertEqual((await fetch(port, "/metrics", tls=tls)).status, 401)
        bearer = {"Authorization": f"Bearer {READ}"}
        answer = await fetch(port, "/metrics", headers=bearer, tls=tls)
        self.assertEqual(answer.status, 200)
        self.assertIn(b"reverseproxy_certificate_not_after_timestamp_seconds{", answer.body)
        levels = "/api/v1/update_loglevel"
        body = b'{"log_path": "", "log_level": "ERROR"}'
        self.assertEqual((await fetch(port, levels, "POST", body, bearer, tls=tls)).status, 403)
        bearer = {"Authorization": f"Bearer {OPERATE}"}
        self.assertEqual((await fetch(port, levels, "POST", body, bearer, tls=tls)).status, 200)
        answer = await fetch(port, "/api/v1/get_loglevel", headers=bearer, tls=tls)
        self.assertEqual(list(json.loads(answer.body).values()), ["ERROR"])

    async def test_several_workers(self) -> None:
        """One answer for all of them, at a Unix socket that only its owner may use."""
        path = self.socket()
        document = server(cluster={"required": True})
        document["admin"] = {"address": {"pipe": {"path": str(path)}}}
        file = self.directory / "server.json"
        file.write_text(json.dumps(document))
        cloud = self.run_proxy(file, "server", "--workers", "2")
        await cloud.counted("^worker . is ready", 2)
        answer = await threaded(partial(request, path), "/readyz")
        self.assertEqual(answer.status, 503)
        self.assertIn(b"worker 2: cluster clientCluster has no healthy host\n", answer.body)
        self.run_proxy(quick_agent(await cloud.port("tunnelListener"), connections=3), "agent")
        await cloud.counted(JOINED, 6)
        client = await cloud.port("clientListener")
        for _ in range(6):
            self.assertEqual((await fetch(client)).status, 200)
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)

        ask = partial(request, path)
        self.assertEqual((await threaded(ask, "/readyz")).body, b"ready\n")
        text = (await threaded(ask, "/metrics")).body.decode()
        for line in (
            'reverseproxy_worker_up{worker="1"} 1.0',
            'reverseproxy_worker_up{worker="2"} 1.0',
            'reverseproxy_tunnel_joins_total{cluster="clientCluster",result="accepted"} 3.0',
            'reverseproxy_tunnel_agents{cluster="clientCluster"} 1.0',
            'reverseproxy_tunnel_connections{cluster="clientCluster",mode="streams"} 3.0',
            'reverseproxy_bytes_total{direction="sent",listener="clientListener"} 126.0',
        ):
            self.assertIn(f"{line}\n", text)
        # Whichever worker a client has come to, and whichever has the agent's connection.
        api = "/api/tunnel/v1"
        [agent] = (await threaded(ask, f"{api}/agents")).json["items"]
        self.assertEqual((agent["connections"], agent["requests_by_class"]), (3, {"2xx": 6}))
        self.assertEqual(agent["bytes"]["sent"], 126)
        summary = (await threaded(ask, f"{api}/summary")).json
        figures = [summary[name] for name in ("agents", "connections", "requests", "errors", "workers")]
        self.assertEqual(figures, [1, 3, 6, 0, 2])
        [rule] = (await threaded(ask, f"{api}/routes")).json["items"]
        self.assertEqual(rule["figures"]["requests"], 6)
        text = (await threaded(ask, "/metrics/agents")).body.decode()
        label = f'agent="{agent["id"]}",code_class="2xx",identity="unproved"'
        self.assertIn(f"reverseproxy_per_agent_requests_total{{{label}}} 6.0\n", text)
        self.assertEqual((await threaded(ask, "/dashboard")).status, 200)
        await self.switched(cloud, file, path)

    async def switched(self, cloud: ReverseProxy, file: Path, path: Path) -> None:
        """The API is switched off, and on again at another socket: agents that were there are there."""
        document = json.loads(file.read_text())
        other = path.with_name("moved.sock")
        for place in (None, {"pipe": {"path": str(other)}}):
            document.pop("admin")
            if place is not None:
                document["admin"] = {"address": place}
            mark = cloud.mark()
            file.write_text(json.dumps(document))
            cloud.signal("HUP")
            await cloud.logged("is in use, generation .: admin", mark)
            document["admin"] = None
        [agent] = (await threaded(request, other, "/api/tunnel/v1/agents")).json["items"]
        self.assertEqual((agent["connections"], sorted(agent["workers"])), (3, agent["workers"]))

    async def test_a_ban_that_outlives_a_worker(self) -> None:
        """An agent of several workers is one; who is banned by all is banned by one that is started anew."""
        self.expected_errors += ["was ended by SIGKILL", "is gone"]
        path = self.socket()
        document = server()
        document["admin"] = {"address": {"pipe": {"path": str(path)}}}
        cloud = self.run_proxy(document, "server", "--workers", "2")
        await cloud.counted("^worker . is ready", 2)
        tunnel = await cloud.port("tunnelListener")
        self.run_proxy(quick_agent(tunnel, connections=3, host_name="box"), "agent")
        await cloud.counted(JOINED, 6)
        api = "/api/tunnel/v1"
        [agent] = (await threaded(request, path, f"{api}/agents")).json["items"]
        self.assertEqual((agent["connections"], agent["claimed_host_name"]), (3, "box"))
        mark = cloud.mark()
        answer = await threaded(request, path, f"{api}/agents/{agent['id']}?ban=300", "DELETE")
        self.assertEqual((answer.status, answer.json["connections"], answer.json["problems"]), (202, 3, []))
        self.assertEqual(answer.json["kept_out"]["target"], ["address", "127.0.0.1"])
        await cloud.logged("^audit: .Unix socket.: kick agent", mark)
        [worker] = [
            each
            for each in (await threaded(request, path, f"{api}/workers")).json["items"]
            if each["worker"] == 2
        ]
        os.kill(worker["pid"], signal.SIGKILL)
        await cloud.logged("^worker 2 is ready", mark)
        self.run_proxy(quick_agent(tunnel, connections=6), "another-agent")
        await cloud.logged("banned by .Unix socket.; the ban ends in", mark)  # one line for all of them
        refused: list[Any] = []
        while len(refused) < 6:
            refused = (await threaded(request, path, f"{api}/joins/refused")).json["items"]
        self.assertEqual((await threaded(request, path, f"{api}/agents")).json["items"], [])
        self.assertEqual({each["result"] for each in refused}, {"banned"})
        restarts = {
            each["worker"]: each["restarts"]
            for each in (await threaded(request, path, f"{api}/workers")).json["items"]
        }
        self.assertEqual(restarts, {1: 0, 2: 1})

    async def test_an_address_that_is_taken(self) -> None:
        """It is said as of any listener, before a worker is started."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            where = {"address": "127.0.0.1", "port_value": taken.getsockname()[1]}
            for options in ((), ("--workers", "2")):
                document = server()
                document["admin"] = {"address": {"socket_address": where}}
                child = self.run_proxy(document, "server", *options)
                self.expected_errors.append("can't listen on")
                self.assertEqual(await child.ended(), 1)
                output = "\n".join(child.lines)
                self.assertIn("admin.address: listener admin can't listen on", output)
                self.assertNotIn("Traceback", output)
                self.assertNotIn("workers are started", output)
