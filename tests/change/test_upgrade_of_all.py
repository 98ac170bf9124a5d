"""
A new process takes the place of an old one, while clients of every kind are served.

Three times in a row, at 500 requests a second, with a long download, a WebSocket,
a call of gRPC and a client of bolt that takes a hint.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater

from tests.change import test_reload
from tests.change.test_reload import Clients, ReloadCase, server_document
from tests.change.test_upgrade import OVER
from tests.integration.bolt import BoltClient
from tests.integration.clients import connect_raw
from tests.integration.harness import ReverseProxy

TIMES = int(os.environ.get("REVERSEPROXY_UPGRADES", "1"))
"""How often in a row; the first process is followed by so many others."""


class Moving(Clients):
    """Clients, of which that of bolt makes another connection when it is asked to."""

    async def _ask_bolt(self) -> None:
        number = connections = 0
        client: Any = None
        while not self._ending.is_set():
            if client is None or client.others or client.lost:
                client = await connect_raw(self._test, self._ports["bolt"], BoltClient)
                connections += 1
            content = b"%d" % number
            try:
                answer = await client.ask(content)
            except Exception as error:
                self.failures.append(f"bolt after {number}: {error!r}")
                return
            if answer.content != content or answer.extra:
                self.failures.append(f"bolt {number}: {answer}")
            number += 1
            self.counts["bolt"] = number
            await deferLater(reactor, 0.01, lambda: None)  # type: ignore[arg-type]
        self.counts["bolt connections"] = connections


def _document() -> dict[str, Any]:
    document = server_document()
    [bolt] = [each for each in document["servers"][0]["listeners"] if each["name"] == "bolt"]
    bolt["filter_chains"][0]["filters"][0]["config"] = {
        "router_config_name": "bolt",
        "downstream_protocol": "bolt",
        "extend_config": {"bolt": {"enable_bolt_goaway": True}},
    }
    document["servers"][0]["graceful_timeout"] = "60s"
    return document


class UpgradeCase(ReloadCase):
    """A server whose place others may take, and clients that bear with that."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(test_reload, "Clients", Moving)
        self.patch(test_reload, "server_document", _document)
        directory = Path(tempfile.mkdtemp(prefix="takeover-"))  # paths of Unix sockets have 107 bytes
        self.addCleanup(shutil.rmtree, directory, True)
        self.takeover = ("--takeover", str(directory / "socket"))

    def run_proxy(self, config: Any, name: str = "proxy", *options: str, **environ: str) -> ReverseProxy:
        more = self.takeover if name == "server" else ()
        return super().run_proxy(config, name, *options, *more, **environ)


class EveryKindTests(UpgradeCase):
    async def test_nothing_is_lost(self) -> None:
        clients = await self.begin()
        old = [self.cloud]
        for _ in range(TIMES):
            new = self.run_proxy(self.files["server"], "server", "--workers", str(self.workers))
            await new.counted(self.joined, 6)
            await old[-1].logged(OVER)
            await clients.load.answers(1000)
            old.append(new)
        await clients.stop()
        self.assertEqual(clients.failures, [])
        for each in old[:-1]:
            self.assertEqual(await each.ended(), 0)
            # What outlives the limit would be mentioned.
            self.assertEqual([entry for entry in each.entries() if "ended now" in entry["message"]], [])
        assert sys.__stdout__ is not None
        sys.__stdout__.write(f"{TIMES} upgrades, {self.workers} workers; {clients.load}; {clients.counts}\n")


if TIMES > 1:  # it takes as long again

    class EveryKindWorkersTests(EveryKindTests):
        workers = 2
