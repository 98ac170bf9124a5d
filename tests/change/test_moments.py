"""
Changes at bad moments: during another change, with errors, twice at once; under load of every kind.

In a long form only, as each takes as long as a whole upgrade: C{python -m tests.change moments}.
What they rest on is tested for itself: L{tests.change.test_takeover}, L{tests.assembly}, L{tests.workers}.
"""

from __future__ import annotations

import copy
import json
import os
import signal
import socket
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater

from tests.change.test_reload import IN_USE, _filter, _listener
from tests.change.test_upgrade import OVER
from tests.change.test_upgrade_of_all import UpgradeCase
from tests.integration.clients import fetch
from tests.integration.harness import ReverseProxy

LONG = bool(os.environ.get("REVERSEPROXY_MOMENTS"))

MANY = 40
"""Reloads that are asked for one after the other, without a wait for any."""


class Moments(UpgradeCase):
    def setUp(self) -> None:
        super().setUp()
        self.expected_errors += [
            "is not taken into use",
            "can't listen on",
            "has not taken our place",
            "gives no sockets",
            "was to take our place",
            "was ended by SIGKILL",
        ]

    def again(self) -> ReverseProxy:
        """Start another process, to take the place of the present one."""
        return self.run_proxy(self.files["server"], "server", "--workers", str(self.workers))

    async def generations(self, port: int) -> set[str | None]:
        """Which configurations count, whichever worker is asked."""
        return {(await fetch(port, "/")).headers.get("x-generation") for _ in range(8)}

    def wrong(self) -> list[Any]:
        """Documents that can't be used, each for a reason that shows at another time."""
        taken = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(taken.close)
        garbage = self.directory / "garbage.pem"
        garbage.write_text("garbage")
        documents = [copy.deepcopy(self.document) for _ in range(5)]
        in_use, missing, unreadable, log, far = (each["servers"][0]["listeners"] for each in documents)
        in_use[0]["address"] = f"127.0.0.1:{taken.getsockname()[1]}"
        for listeners, file in ((missing, "/nonexistent.pem"), (unreadable, str(garbage))):
            tls = {"status": True, "cert_chain": file, "private_key": file}
            listeners[0]["filter_chains"][0]["tls_context"] = tls
        log[0]["access_logs"] = [{"log_path": "/proc/nonexistent/a.log"}]
        far.append(_listener("far", _filter("web")) | {"address": "192.0.2.1:1"})
        return [*documents, "{", "", "[]"]

    async def errors(self) -> None:
        """Whatever is wrong, the old one stays; then what is right counts."""
        clients = await self.begin()
        for document in self.wrong():
            self.write("server", document)
            await self.reload(self.cloud, "is not taken into use")
        self.files["server"].unlink()
        await self.reload(self.cloud, "is not taken into use")
        self.files["server"].mkdir()
        await self.reload(self.cloud, "is not taken into use")
        self.files["server"].rmdir()
        self.write("server", self.changes(7))
        await self.reload(self.cloud)
        self.assertEqual(await self.generations(clients.load.port), {"7"})
        await clients.stop()
        self.assertEqual(clients.failures, [])
        self.assertKept()

    async def storm(self) -> None:
        """Reloads during reloads: what the file says in the end counts."""
        clients = await self.begin()
        for number in range(1, MANY):
            self.write("server", self.changes(number))
            os.kill(self.cloud.pid, signal.SIGHUP)
            await deferLater(reactor, 0.01)  # type: ignore[arg-type]
        while await self.generations(clients.load.port) != {str(MANY - 1)}:
            await clients.load.answers(50)
        await clients.stop()
        self.assertEqual(clients.failures, [])
        self.assertKept()

    async def takeover_during_reloads(self) -> None:
        """And a reload of the old one while it drains; the new one goes on with what it has read."""
        clients = await self.begin()
        new, number = self.again(), 0
        while not self.cloud.find(lambda line: "serves in our place" in line):
            number += 1
            self.write("server", self.changes(number))
            os.kill(self.cloud.pid, signal.SIGHUP)
            await deferLater(reactor, 0.05)  # type: ignore[arg-type]
        os.kill(self.cloud.pid, signal.SIGHUP)
        self.write("server", self.changes(number + 1))
        os.kill(new.pid, signal.SIGHUP)
        await new.logged(IN_USE)
        self.assertEqual(await self.generations(clients.load.port), {str(number + 1)})
        await clients.stop()
        self.assertEqual(clients.failures, [])
        self.assertEqual(await self.cloud.ended(), 0)

    async def two_at_once(self) -> None:
        """One of them serves in the end, and can be followed."""
        clients = await self.begin()
        both = [self.again(), self.again()]
        await self.cloud.logged(OVER)
        while len([each for each in both if each.status is None]) != 1:
            await clients.load.answers(50)
        [left] = [each for each in both if each.status is None]
        self.again()
        await left.logged(OVER)
        await clients.load.answers(500)
        await clients.stop()
        self.assertEqual(clients.failures, [])
        self.assertEqual(await left.ended(), 0)

    async def failing_successors(self) -> None:
        """The old one stays, and another one can follow it."""
        clients = await self.begin()
        good = self.files["server"].read_text()
        for bad in ("{", json.dumps({**self.document, "servers": []})):
            self.write("server", bad)
            self.assertEqual(await self.again().ended(), 1)
            await clients.load.answers(50)
        self.write("server", good)
        new = self.again()
        await new.logged("taking the place")
        await new.kill()
        await self.cloud.logged("has not taken our place")
        await clients.load.answers(50)
        self.again()
        await self.cloud.logged(OVER)
        await clients.load.answers(200)
        await clients.stop()
        self.assertEqual(clients.failures, [])
        self.assertEqual(await self.cloud.ended(), 0)


if LONG:

    class AloneTests(Moments):
        async def test_errors(self) -> None:
            await self.errors()

        async def test_storm(self) -> None:
            await self.storm()

        async def test_takeover_during_reloads(self) -> None:
            await self.takeover_during_reloads()

        async def test_two_at_once(self) -> None:
            await self.two_at_once()

        async def test_failing_successors(self) -> None:
            await self.failing_successors()

    class WorkersTests(AloneTests):
        workers = 2
