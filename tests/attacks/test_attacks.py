"""
Attackers against a real server, and their effect on other clients.

Three at a time, each a process.  The assertions depend on no timing: other
clients' requests don't fail, and memory and log stay within limits.  How long
other clients wait is printed.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import statistics
import threading
import time
from pathlib import Path
from typing import Any

from tests.attacks.attackers import ADMIN_ATTACKS, ATTACKS, TLS_ATTACKS, tls_context
from tests.certs import Certificates
from tests.integration import configs
from tests.integration.clients import fetch, threaded
from tests.integration.harness import JOINED, Child, IntegrationTestCase, ReverseProxy

SECONDS = 1.0
"""How long each attack takes."""

ATTACKERS = 3

MAX_GROWTH = 64 * 1024
"""KiB of memory that they may take."""

MAX_LOG = 1_000_000
"""Bytes of log that they may cause in an hour, and so in this time."""


class Client(threading.Thread):
    """
    Somebody who asks for something every few milliseconds, on a connection and on new ones.

    @ivar times: seconds for each answer.
    @ivar failures: what went wrong.
    """

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.tls = tls
        self.times: list[float] = []
        self.failures: list[str] = []
        self.over = threading.Event()

    def run(self) -> None:
        kept = None
        number = 0
        while not self.over.is_set():
            number += 1
            begun = time.monotonic()
            try:
                connection = kept or socket.create_connection(("127.0.0.1", self.port), 10)
                connection.settimeout(10)
                if self.tls is not None and kept is None:
                    connection = self.tls.wrap_socket(connection)
                connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                answer = b""
                while not answer.endswith(b"served"):
                    part = connection.recv(4096)
                    if not part:
                        raise OSError(f"closed behind {answer!r}")
                    answer += part
                if not answer.startswith(b"HTTP/1.1 200 "):
                    raise OSError(repr(answer))
                kept = connection
                if number % 10 == 0:
                    connection.close()
                    kept = None
            except OSError as error:
                self.failures.append(str(error))
                kept = None
            self.times.append(time.monotonic() - begun)
            time.sleep(0.005)


def memory(pid: int) -> int:
    """KiB that a process has in memory."""
    found = re.search(r"^VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


class AttackTests(IntegrationTestCase):
    """One server for several attacks, one after the other."""

    def setUp(self) -> None:
        super().setUp()
        self.attackers: list[Child] = []

    async def serve(self) -> tuple[ReverseProxy, list[int]]:
        """A server, and an agent that answers; its ports for the web, for RPC and for tunnels."""
        document = configs.server()
        [config] = document["servers"]
        config["default_log_level"] = "INFO"
        web = config["listeners"][0]["filter_chains"][0]["filters"][0]["config"]
        web["downstream_protocol"] = "Auto"
        rpc: dict[str, Any] = {
            "name": "rpcListener",
            "address": "127.0.0.1:0",
            "bind_port": True,
            "filter_chains": [
                {"filters": [{"type": "proxy", "config": {**web, "downstream_protocol": "bolt"}}]}
            ],
        }
        config["listeners"].append(rpc)
        pair = Certificates(self.directory / "certificates").server
        tls = {"status": True, "cert_chain": pair.chain, "private_key": pair.key}
        for listener in [each for each in config["listeners"] if each is not rpc]:
            [chain] = listener["filter_chains"]
            secure = {
                **listener,
                "name": f"{listener['name']}Secure",
                "filter_chains": [{**chain, "tls_context": tls}],
            }
            config["listeners"].append(secure)
        document["cluster_manager"]["clusters"].append({"name": "other", "type": "SIMPLE"})
        # One failure of a host would be enough to leave it out.
        document["cluster_manager"]["clusters"][0]["outlier_detection"] = {"consecutive_5xx": 1}
        document["admin"] = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}}
        server = self.run_proxy(document, "server")
        names = [f"{name}Listener" for name in ("client", "rpc", "tunnel")]
        names += ["clientListenerSecure", "tunnelListenerSecure", "admin"]
        ports = [await server.port(name) for name in names]
        document = configs.quick_agent(ports[2], answer="served", connections=2)
        self.run_proxy(document, "agent")
        await server.counted(JOINED, 2)
        return server, ports

    def speaks_all(self, document: dict[str, Any]) -> None:
        """Let an agent take whatever protocol its servers were spoken to in."""
        [listener] = document["servers"][0]["listeners"]
        listener["filter_chains"][0]["filters"][0]["config"]["downstream_protocol"] = "Auto"

    async def attack(self, server: ReverseProxy, ports: list[int], kind: str) -> list[str]:
        """Let three attackers do one thing; what is wrong with what others noticed."""
        client = Client(ports[0])
        if kind in TLS_ATTACKS:
            client = Client(ports[3], tls_context())
        await self.order(kind, *map(str, ports))
        client.start()
        wrong = await self.watch(server, client, kind, SECONDS)
        await self.order("")
        if not await self.is_ready(ports[5]):
            wrong.append(f"{kind}: the admin API does not answer any more")
        return wrong

    async def order(self, *what: str) -> None:
        """Tell all attackers what to do."""
        if not self.attackers:
            self.attackers = [Child(f"attacker {number}") for number in range(ATTACKERS)]
            for attacker in self.attackers:
                self.spawn(attacker, "-m", "tests.attacks.attackers")
        marks = [attacker.mark() for attacker in self.attackers]
        for attacker in self.attackers:
            attacker.transport.write("\t".join(what).encode() + b"\n")
        for attacker, mark in zip(self.attackers, marks, strict=True):
            await attacker.wait_for("^begun: ", mark)

    async def is_ready(self, port: int) -> bool:
        """Whether the admin API answers, as soon as it has heard that its attackers have gone."""
        for _ in range(20):
            with contextlib.suppress(OSError):
                return (await fetch(port, "/readyz")).status == 200
            await threaded(time.sleep, 0.1)
        return False

    async def watch(self, process: ReverseProxy, client: Client, kind: str, seconds: float) -> list[str]:
        """See for some time how a process bears an attack; what is wrong with what others noticed."""
        pid = int(process.transport.pid)
        mark = process.mark()
        before = most = memory(pid)
        for _ in range(int(seconds * 20)):
            await threaded(time.sleep, 0.05)
            most = max(most, memory(pid))
        client.over.set()
        await threaded(client.join)
        log = sum(len(line) for line in process.lines[mark:])
        times = sorted(client.times)
        slow = times[len(times) * 99 // 100]
        print(  # noqa: T201
            f"{kind:32} {len(times):4} answers, {len(client.failures)} failed, "
            f"median {statistics.median(times) * 1000:5.1f} ms, p99 {slow * 1000:6.1f} ms, "
            f"memory {(most - before) / 1024:+6.1f} MiB, log {log / 1000:6.1f} kB"
        )
        wrong = [f"{kind}: {failure}" for failure in client.failures[:3]]
        if most - before > MAX_GROWTH:
            wrong.append(f"{kind}: {most - before} KiB more memory")
        if log > MAX_LOG:
            wrong.append(f"{kind}: {log} bytes of log")
        return wrong

    async def test_of_an_agent(self) -> None:
        """
        Servers that mean no good, each in its own way and all at once, and one that does.

        What clients of that one ask for comes from the same agent.
        """
        print()  # noqa: T201
        server = self.run_proxy(configs.server(), "server")
        client_port, tunnel = await server.port("clientListener"), await server.port("tunnelListener")
        evil = Child("evil")
        self.spawn(evil, "-m", "tests.attacks.servers")
        others = (await evil.wait_for(lambda line: line.startswith("begun") and line)).split()[1:]
        document = configs.quick_agent(tunnel, answer="served", connections=2, reconnect_max_duration="200ms")
        document["servers"][0]["default_log_level"] = "INFO"
        self.speaks_all(document)
        [extension] = document["extends"]
        extension["config"]["server_list"] += [f"127.0.0.1:{port}" for port in others]
        agent = self.run_proxy(document, "agent")
        await server.counted(JOINED, 2)
        client = Client(client_port)
        client.start()
        wrong = await self.watch(agent, client, "servers that attack an agent", 3 * SECONDS)
        await evil.kill()
        self.children.remove(evil)
        self.assertEqual(wrong, [])

    async def attacks(self, *kinds: str) -> None:
        print()  # noqa: T201
        server, ports = await self.serve()
        self.expected_errors = [r"descriptors are in use"]
        wrong = []
        for kind in kinds:
            wrong += await self.attack(server, ports, kind)
        self.assertEqual(wrong, [])

    async def test_attacks(self) -> None:
        await self.attacks(*ATTACKS, *TLS_ATTACKS, *ADMIN_ATTACKS)
