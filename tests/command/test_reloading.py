"""Tests for L{reverseproxy.command.reloading}, with an admin API of the test's own."""

from __future__ import annotations

import json
import os
import signal
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.command.cli import command
from reverseproxy.command.remote import AdminEndpoint, AdminProblem, endpoint_of
from tests.config.documents import TUNNEL_SERVER, edited, parse

REPORT = {
    "file": "c.json",
    "generation": 2,
    "successful": True,
    "problems": [],
    "warnings": [],
    "changes": {"clusters": {"added": ["more"], "changed": [], "removed": []}, "admin": False},
    "needs_restart": {"servers[0].processor": "it is so"},
}


class Api(HTTPServer):
    """Answers as it is told."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[tuple[int, Any]] = []
        self.asked: list[tuple[str, str, str | None]] = []


class _Handler(BaseHTTPRequestHandler):
    server: Api

    def _answer(self) -> None:
        self.server.asked.append((self.command, self.path, self.headers.get("authorization")))
        status, value = self.server.answers.pop(0)
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = _answer  # noqa: N815 - as the server calls them

    def log_message(self, *_: Any) -> None:
        pass


class ReloadTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.api = Api()
        thread = Thread(target=self.api.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        self.addCleanup(self.api.server_close)
        self.addCleanup(thread.join)
        self.addCleanup(self.api.shutdown)
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        socket = {"address": "127.0.0.1", "port_value": self.api.server_port}
        self.document = edited(TUNNEL_SERVER, ("admin", {"address": {"socket_address": socket}}))
        self.file = self.write("c.json", json.dumps(self.document))

    def write(self, name: str, text: str) -> str:
        path = self.directory / name
        path.write_text(text)
        return str(path)

    def run_command(self, *arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(command, ["reload", *arguments])
        return result.exit_code, result.output

    def test_done(self) -> None:
        self.api.answers.append((200, REPORT))
        token = self.write("token", "secret-secret\n")
        status, output = self.run_command(self.file, "--token-file", token)
        self.assertEqual(status, 0, output)
        self.assertIn("clusters added: more\n", output)
        self.assertIn("generation 2 is in use\n", output)
        self.assertIn("needs a restart: servers[0].processor: it is so\n", output)
        [asked] = self.api.asked
        self.assertEqual(asked, ("POST", "/api/tunnel/v1/config:reload", "Bearer secret-secret"))

    def test_refused_there(self) -> None:
        """What this end has not seen, such as an address in use."""
        problems = [{"path": "servers[0].listeners[0].address", "message": "in use"}]
        self.api.answers.append((422, {**REPORT, "successful": False, "problems": problems}))
        status, output = self.run_command(self.file)
        self.assertEqual(status, 1)
        self.assertIn("listeners[0].address: in use\nnot reloaded: generation 2 stays in use\n", output)

    def test_refused_for_other_files(self) -> None:
        """A problem of a file of its own names that, and one of a whole file has no path."""
        problems = [
            {"file": "hosts/a.json", "path": "routers[0].match", "message": "is wrong"},
            {"file": "", "path": "", "message": "it is gone"},
        ]
        self.api.answers.append((422, {**REPORT, "successful": False, "problems": problems}))
        status, output = self.run_command(self.file)
        self.assertEqual(status, 1)
        self.assertIn(f"hosts/a.json: routers[0].match: is wrong\n{REPORT['file']}: it is gone\n", output)

    def test_a_file_that_is_wrong(self) -> None:
        """Nobody is asked."""
        status, output = self.run_command(self.write("c.json", "{"))
        self.assertEqual((status, self.api.asked), (1, []))
        self.assertIn("not reloaded", output)

    def test_who_may_not(self) -> None:
        self.api.answers.append((403, {"title": "requires the role operate: x"}))
        status, output = self.run_command(self.file)
        self.assertEqual(status, 1)
        self.assertIn("requires the role operate: x; use --token-file", output)

    def test_a_file_without_a_token(self) -> None:
        for content in (b"\xff\xfe", b"two\nlines", b"two words", "\u65e5\u672c".encode(), b""):
            file = self.directory / "token"
            file.write_bytes(content)
            status, output = self.run_command(self.file, "--token-file", str(file))
            self.assertEqual((status, self.api.asked), (1, []))
            self.assertIn(f"{file} ", output)
            self.assertTrue(output.endswith("\nnot reloaded\n"), output)

    def test_nobody_there(self) -> None:
        for where in ("http://127.0.0.1:1", "unix:/nowhere/at/all"):
            status, output = self.run_command(self.file, "--admin", where)
            self.assertEqual(status, 1)
            self.assertIn("no result from the admin API", output)

    def test_no_admin_api(self) -> None:
        status, output = self.run_command(self.write("c.json", json.dumps(TUNNEL_SERVER)))
        self.assertEqual(status, 1)
        self.assertIn("use --admin URL or --pidfile FILE", output)

    def signalled(self) -> list[int]:
        sent: list[int] = []
        self.patch(
            os, "kill", lambda pid, number: sent.append(pid) or self.assertEqual(number, signal.SIGHUP)
        )
        return sent

    def test_a_signal(self) -> None:
        sent = self.signalled()
        self.api.answers = [
            (200, {"attempts": 3}),
            (200, {"attempts": 3}),
            (200, {"attempts": 4, "last": REPORT}),
        ]
        status, output = self.run_command(self.file, "--pidfile", self.write("pid", "4711\n"))
        self.assertEqual((status, sent), (0, [4711]), output)
        self.assertIn("generation 2 is in use", output)

    def test_a_signal_and_nobody_to_ask(self) -> None:
        sent = self.signalled()
        file = self.write("c.json", json.dumps(TUNNEL_SERVER))
        status, output = self.run_command(file, "--pidfile", self.write("pid", "4711\n"))
        self.assertEqual((status, sent), (0, [4711]))
        self.assertIn("the result is in the log of the process", output)

    def test_a_signal_and_an_api_that_does_not_answer(self) -> None:
        """The reload may be what adds it, or what gives it another address."""
        sent = self.signalled()
        pid = self.write("pid", "4711\n")
        status, output = self.run_command(self.file, "--pidfile", pid, "--admin", "unix:/nowhere/at/all")
        self.assertEqual((status, sent), (0, [4711]), output)
        self.assertIn("the result is in the log of the process", output)
        for answers in ([(200, {"attempts": 3}), (200, ["no object"])], [(200, {"other": 1})], [(401, {})]):
            self.api.answers = list(answers)
            status, output = self.run_command(self.file, "--pidfile", pid)
            self.assertEqual((status, sent.pop()), (0, 4711), output)
            self.assertIn("the result is in the log of the process", output)

    def test_no_process(self) -> None:
        """Nothing is sent for what is no number of one process: 0 and -1 would stand for many."""
        sent = self.signalled()
        file = self.write("c.json", json.dumps(TUNNEL_SERVER))
        for content in ("x", "", "0", "-1", "-4711", "4711 4712", "9" * 30, "9" * 5000, "\u0663"):
            status, output = self.run_command(file, "--pidfile", self.write("pid", content))
            self.assertEqual((status, sent), (1, []))
            self.assertIn("has no process id", output)


class AddressTests(SynchronousTestCase):
    def test_parse(self) -> None:
        for text, expected in (
            ("127.0.0.1:90", "http://127.0.0.1:90"),
            ("https://a.example:90", "https://a.example:90"),
            ("http://[::1]:90/", "http://[::1]:90"),
            ("unix:/run/x", "unix:/run/x"),
        ):
            self.assertEqual(str(AdminEndpoint.parse(text)), expected)
        for text in ("", "nowhere", "ftp://a:1", "http://a:port"):
            self.assertRaises(AdminProblem, AdminEndpoint.parse, text)

    def test_of_a_configuration(self) -> None:
        for address, expected in (
            ({"socket_address": {"address": "127.0.0.1", "port_value": 90}}, "http://127.0.0.1:90"),
            ({"socket_address": {"address": "::1", "port_value": 90}}, "http://[::1]:90"),
            ({"pipe": {"path": "/run/x"}}, "unix:/run/x"),
            ({"socket_address": {"address": "0.0.0.0", "port_value": 90}}, "http://127.0.0.1:90"),
            ({"socket_address": {"address": "127.0.0.1", "port_value": 0}}, "None"),
        ):
            admin = parse(edited(TUNNEL_SERVER, ("admin", {"address": address}))).config.admin
            self.assertEqual(str(endpoint_of(admin, None)), expected)
        self.assertIsNone(endpoint_of(None, None))
