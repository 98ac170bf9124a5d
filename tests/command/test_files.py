"""Tests for L{reverseproxy.command.files}."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.trial.unittest import TestCase

from reverseproxy.command.files import serve_directory
from tests.integration.clients import RawPeer


class FileTests(TestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        (self.directory / "below").mkdir(parents=True)
        (self.directory / "a.txt").write_text("text of a")
        (self.directory / "below" / "b.txt").write_text("text of b")
        (self.directory / ".secret").write_text("secret")
        (self.directory / ".git").mkdir()
        (self.directory / ".git" / "config").write_text("secret")
        outside = self.directory.with_name(self.directory.name + "-outside")
        outside.mkdir()
        (outside / "c.txt").write_text("outside")
        (self.directory / "link").symlink_to(outside)
        (self.directory / "c.txt").symlink_to(outside / "c.txt")
        # The path of a socket must be short.
        place = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, place)
        self.socket = f"{place}/s"
        self.port = serve_directory(str(self.directory), self.socket, reactor)
        self.addCleanup(self.port.stopListening)

    async def get(self, path: str, method: str = "GET") -> tuple[int, bytes]:
        client: Any = await connectProtocol(UNIXClientEndpoint(reactor, self.socket), RawPeer())
        client.transport.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        await client.closed()
        client.transport.abortConnection()
        head, _, body = client.received.partition(b"\r\n\r\n")
        return int(head.split()[1]), body

    async def test_files(self) -> None:
        self.assertEqual(await self.get("/a.txt"), (200, b"text of a"))
        self.assertEqual(await self.get("/below/b.txt"), (200, b"text of b"))
        status, listing = await self.get("/")
        self.assertEqual(status, 200)
        self.assertIn(b"below", listing)
        self.assertNotIn(b".secret", listing)
        self.assertNotIn(b".git", listing)

    async def test_what_is_not_there(self) -> None:
        for path in (
            "/none",
            "/.secret",
            "/.git/config",
            "/%2esecret",
            "/../a.txt",
            "/%2e%2e/a.txt",
            "/..%2f..%2fetc/passwd",
            "/below/../../a.txt",
            "/link/c.txt",
            "/c.txt",
            "/a.txt/x",
            "/a%00.txt",
        ):
            self.assertEqual((await self.get(path))[0], 404, path)

    async def test_read_only(self) -> None:
        for method in ("POST", "PUT", "DELETE"):
            self.assertIn((await self.get("/a.txt", method))[0], (405, 501), method)
        self.assertEqual((self.directory / "a.txt").read_text(), "text of a")
