"""A new process takes the place of an old one, with real processes, under load."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from twisted.internet.defer import Deferred

from tests.integration.clients import Load, fetch, gather, threaded
from tests.integration.configs import quick_agent, server
from tests.integration.harness import JOINED, IntegrationTestCase, ReverseProxy

OVER = r"process \d+ serves in our place, so this one drains and ends"
READY = r"^worker \d+ is ready, process "


class UpgradeTests(IntegrationTestCase):
    workers = "1"
    mux = True
    tunnel_config: Mapping[str, Any] | None = None
    proof: ClassVar[dict[str, Any]] = {}

    async def start(self) -> None:
        directory = Path(tempfile.mkdtemp(prefix="takeover-"))  # paths of Unix sockets have 107 bytes
        self.addCleanup(shutil.rmtree, directory, True)
        self.options = ("--takeover", str(directory / "socket"), "--workers", self.workers)
        self.backend = await self.run_backend()
        self.document = self.directory / "upgraded.json"
        self.document.write_text(json.dumps(server(tunnel_config=self.tunnel_config)))
        self.old = self.run_server("old")
        self.client = await self.old.port("clientListener")
        agent = quick_agent(
            await self.old.port("tunnelListener"),
            self.backend.address,
            connections=2,
            mux=self.mux,
            **self.proof,
        )
        self.agent = self.run_proxy(agent, "agent")
        await self.old.counted(JOINED, 2)

    def run_server(self, name: str) -> ReverseProxy:
        return self.run_proxy(self.document, name, *self.options)

    async def check(self, load: Load) -> None:
        await load.stop()
        self.assertEqual(load.failures, [])


class ByHandTests(UpgradeTests):
    async def test_nothing_is_lost(self) -> None:
        await self.start()
        load = Load(self.client, clients=6).start()
        held = fetch(self.client, "/hold?key=long", "POST", b"not to be sent twice")
        await fetch(self.backend.port, "/held?key=long&n=1")
        await load.answers(20)
        # One that can't be started changes nothing.
        broken = json.loads(self.document.read_text())
        broken["servers"][0]["listeners"].append(
            {"name": "third", "address": "192.0.2.1:1", "bind_port": True, "filter_chains": [{"filters": []}]}
        )
        good = self.document.read_text()
        self.document.write_text(json.dumps(broken))
        self.expected_errors += ["has not taken our place", "third can't listen on"]
        failing = self.run_server("failing")
        self.assertEqual(await failing.ended(), 1)
        await self.old.logged("has not taken our place")
        await load.answers(20)
        self.document.write_text(good)
        mark = self.old.mark()
        new = self.run_server("new")
        await new.counted(JOINED, 2)
        await self.old.logged(OVER, mark)
        await load.answers(20)
        self.assertIsNone(self.old.status)  # as one request is under way
        await fetch(self.backend.port, "/release?key=long")
        self.assertEqual((await held).status, 200)
        self.assertEqual(await self.old.ended(), 0)
        await load.answers(20)
        await self.check(load)
        self.assertEqual([each for each in self.agent.entries() if "can't" in each["message"]], [])


class AgentTests(UpgradeTests):
    agent_workers = "1"

    async def test_nothing_is_lost(self) -> None:
        """The new agent is there before the old one leaves, so that the cluster is never empty."""
        await self.start()
        document = self.directory / "agent.json"
        tunnel = await self.old.port("tunnelListener")
        document.write_text(json.dumps(quick_agent(tunnel, self.backend.address, connections=2)))
        options = ("--takeover", f"{self.options[1]}-agent", "--workers", self.agent_workers)
        first = self.run_proxy(document, "first", *options)
        await self.old.counted(JOINED, 4)
        self.assertEqual(await self.agent.stop(), 0)
        load = Load(self.client, clients=6).start()
        await load.answers(20)
        mark = self.old.mark()
        second = self.run_proxy(document, "second", *options)
        await first.logged(OVER)
        self.assertEqual(await first.ended(), 0)
        await load.answers(20)
        await self.check(load)
        moves = [
            each["message"] for each in self.old.entries(mark) if "clientCluster: host" in each["message"]
        ]
        self.assertEqual(["joined" in each for each in moves], [True, True, False, False])
        self.assertEqual(await second.stop(), 0)


class AgentWorkersTests(AgentTests):
    agent_workers = "2"


class BroughtTests(UpgradeTests):
    """Routes that agents have brought are there before these have dialled the new process."""

    proof: ClassVar[dict[str, Any]] = {
        "credential_policy": "static",
        "credential_config": {"token": "secret"},
    }

    async def test_nothing_is_lost(self) -> None:
        port, domain = self.reserve_port(), "app.example"
        token = {"agent": "edge", "token": "secret", "domains": [domain], "ports": [f"{port}"]}
        self.tunnel_config = {
            "credential_policy": "static",
            "validators": {"static": {"tokens": [token]}},
            "agent_routes": {"router": "client_router", "tcp_ports": [f"{port}"]},
        }
        await self.start()
        tunnel = await self.old.port("tunnelListener")
        for cluster, asked in (("lines", {"port": port}), ("app", {"domains": [domain]})):
            document = quick_agent(
                tunnel, self.backend.address, connections=2, cluster=cluster, routes=asked, **self.proof
            )
            await self.run_proxy(document, cluster).logged("over 2 of 2 connections")
        answers: Counter[int] = Counter()
        over = Deferred[None]()

        async def ask(at: int) -> None:
            while not over.called:
                answer = await fetch(at, "/", headers={"Host": domain})
                answers[answer.status] += 1

        asking = gather([Deferred.fromCoroutine(ask(at)) for at in (port, port, self.client, self.client)])
        new = self.run_server("new")
        await self.old.logged(OVER)
        self.assertEqual(await self.old.ended(), 0)
        await new.counted(r"^cluster \w+: host .* joined ", 4)
        over.callback(None)
        await asking
        self.assertEqual(answers.keys(), {200})
        self.assertGreater(answers[200], 100)


class BroughtWorkersTests(BroughtTests):
    workers = "2"


class BySignalTests(UpgradeTests):
    """With workers, and agents that can't be told."""

    workers = "2"
    mux = False

    async def test_nothing_is_lost(self) -> None:
        await self.start()
        await self.old.counted(READY, 2)
        load = Load(self.client, clients=6).start()
        await load.answers(20)
        self.old.signal("USR2")
        over = await self.old.logged(OVER)
        [pid] = re.findall(r"\d+", over["message"])
        self.addCleanup(threaded, _end, int(pid))
        # Its output is the new one's, too, so that it does not end with it.
        await self.old.logged("all workers have stopped")
        await load.answers(50)
        await self.check(load)


def _end(pid: int) -> Any:
    """End a process that is nobody's child here, and wait for it."""
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 25
    while os.path.exists(f"/proc/{pid}/status") and time.monotonic() < deadline:
        time.sleep(0.05)
