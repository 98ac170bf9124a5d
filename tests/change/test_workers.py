"""A worker that hangs, and workers that are replaced, under load, with real processes."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from tests.integration.clients import Load, fetch, threaded
from tests.integration.configs import quick_agent
from tests.integration.harness import JOINED
from tests.integration.test_workers import READY, WorkersTestCase

KNOWN = 5.0
"""Seconds after which a worker that hangs has to be known, and replaced."""

STALL = KNOWN + 4.0
"""The longest that a client of the others may wait on a machine that has much to do."""


class ChangeTests(WorkersTestCase):
    async def start(self, agents: int = 1) -> tuple[Any, int]:
        backend = await self.run_backend()
        cloud, client, tunnel = await self.run_workers(2)
        for number in range(agents):
            self.run_proxy(quick_agent(tunnel, backend.address, connections=2), f"agent-{number}")
        await cloud.counted(JOINED, 2 * agents)
        self.assertEqual((await fetch(client, "/")).status, 200)
        return cloud, client

    async def test_one_that_hangs(self) -> None:
        cloud, client = await self.start()
        pid = await self.pid_of(cloud, 1)
        self.expected_errors += [r"worker 1, process \d+, (hangs|was ended by SIGKILL)"]
        mark = cloud.mark()
        os.kill(pid, signal.SIGSTOP)
        stopped = time.monotonic()
        load = Load(client, clients=6, method="GET").start()
        await cloud.logged(READY, mark, number=1)
        self.assertLess(time.monotonic() - stopped, STALL)
        [hung] = [each for each in cloud.entries(mark) if "hangs" in each["message"]]
        self.assertLess(hung["seconds"], KNOWN)
        await load.answers(20)
        await load.stop()
        # Whoever was connected to it has lost that, and nobody else has lost anything.
        self.assertEqual(load.failures, [])

    async def test_all_of_them_in_turn(self) -> None:
        cloud, client = await self.start()
        before = await self.pid_of(cloud, 2)
        load = Load(client, clients=6).start()
        await load.answers(20)
        for number in (1, 2):
            mark = cloud.mark()
            os.kill(await self.pid_of(cloud, number), signal.SIGTERM)
            await cloud.logged(READY, mark, number=number)
            await load.answers(20)
        await load.stop()
        self.assertEqual(load.failures, [])
        self.assertNotEqual(await self.pid_of(cloud, 2, mark), before)

    async def test_a_supervisor_that_is_killed_and_started_again_at_once(self) -> None:
        cloud, client = await self.start()
        document = self.directory / "server-1.json"
        text = document.read_text().replace('"127.0.0.1:0"', f'"127.0.0.1:{client}"', 1)
        document.write_text(text)
        self.expected_errors.append("the supervisor is gone")
        pids = [await self.pid_of(cloud, number) for number in (1, 2)]
        os.kill(pids[0], signal.SIGSTOP)  # this one can't let go of anything by itself
        cloud.signal("KILL")
        await cloud.ended()
        again = self.run_proxy(document, "server", "--workers", "2")
        await again.counted(READY, 2)
        await threaded(_until_gone, pids)


def _until_gone(pids: list[int]) -> None:
    """Wait until orphans have ended, which are nobody's children here."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not any(os.path.exists(f"/proc/{pid}/status") for pid in pids):
            return
        time.sleep(0.05)
    raise AssertionError("workers without a supervisor go on")
