"""A real process under a scripted service manager: its notifications, and the sockets that it is passed."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor

from tests.change.test_upgrade import OVER
from tests.integration.clients import fetch, threaded
from tests.integration.configs import server
from tests.integration.harness import DEADLINE, ROOT, TWISTD, IntegrationTestCase, ReverseProxy


class ManagerTests(IntegrationTestCase):
    def setUp(self) -> None:
        super().setUp()
        directory = Path(tempfile.mkdtemp(prefix="manager-"))  # paths of Unix sockets have 107 bytes
        self.addCleanup(shutil.rmtree, directory, True)
        self.takeover = str(directory / "takeover")
        self.notify = str(directory / "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.socket.close)
        self.socket.bind(self.notify)
        self.socket.settimeout(DEADLINE)

    async def heard(self, *beginnings: str) -> list[str]:
        """Wait for a message with these lines, whatever comes before it; gives the lines that begin so."""
        while True:
            lines = (await threaded(self.socket.recv, 4096)).decode().split("\n")
            found = [line for line in lines for each in beginnings if line.startswith(each)]
            if len(found) == len(beginnings):
                return found

    async def test_the_whole_life(self) -> None:
        document = self.directory / "document.json"
        document.write_text(json.dumps(server()))
        environ = {"NOTIFY_SOCKET": self.notify, "WATCHDOG_USEC": "400000"}
        first = self.run_proxy(document, "first", "--takeover", self.takeover, **environ)
        [_, status] = await self.heard("READY=1", "STATUS=")
        self.assertIn("clientListener", status)
        for _ in range(3):
            await self.heard("WATCHDOG=1")
        first.signal("HUP")
        await self.heard("RELOADING=1", "MONOTONIC_USEC=")
        await self.heard("READY=1")
        second = self.run_proxy(document, "second", "--takeover", self.takeover, **environ)
        [_, main] = await self.heard("READY=1", "MAINPID=")
        self.assertEqual(main, f"MAINPID={second.pid}")
        await first.logged(OVER)
        self.assertEqual(await first.ended(), 0)
        # Of the end of the first one nothing is said, as that would be taken for the end of the service.
        second.signal("TERM")
        await self.heard("STOPPING=1")
        self.socket.setblocking(False)
        self.assertEqual(await second.ended(), 0)

    async def test_sockets_of_systemd(self) -> None:
        """One by the name of a listener, one by its address; both still listen when the process has ended."""
        held = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        for each in held:
            self.addCleanup(each.close)
        client, tunnel = (each.getsockname()[1] for each in held)
        document = self.directory / "document.json"
        document.write_text(json.dumps(server(client="127.0.0.1:1", tunnel=f"127.0.0.1:{tunnel}")))
        child = self.hand_over(held, "clientListener:else", document)
        self.assertEqual(await child.port("clientListener"), client)
        self.assertEqual(await child.port("tunnelListener"), tunnel)
        self.assertEqual((await fetch(client, "/")).status // 100, 5)  # there is no agent
        self.assertEqual(await child.stop(), 0)
        for each in held:
            with socket.create_connection(each.getsockname(), DEADLINE):
                pass

    def hand_over(self, sockets: list[socket.socket], names: str, document: Path) -> ReverseProxy:
        child = ReverseProxy("child")
        self.children.append(child)
        command = [sys.executable, "-c", TWISTD, "--nodaemon", "--pidfile=", "reverseproxy"]
        command += ["--log-format", "json", "--config", str(document)]
        environ: dict[str, Any] = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "LISTEN_FDS": str(len(sockets)),
            "LISTEN_FDNAMES": names,
        }
        descriptors: dict[int, int | str] = {0: "w", 1: "r", 2: "r"}
        descriptors |= {3 + index: each.fileno() for index, each in enumerate(sockets)}
        # Only the process itself knows its number.
        shell = ["/bin/sh", "-c", 'export LISTEN_PID=$$; exec "$@"', "sh", *command]
        reactor.spawnProcess(  # type: ignore[attr-defined]
            child, shell[0], shell, env=environ, path=str(self.directory), childFDs=descriptors
        )
        return child
