"""The process itself: its options, its listeners, its signals and its end."""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.integration.clients import fetch, threaded
from tests.integration.configs import quick_agent, server
from tests.integration.harness import DEADLINE, JOINED, IntegrationTestCase


def answering(address: str, **more: Any) -> dict[str, Any]:
    """A process with one listener, which answers by itself."""
    document = server(client_listener={"address": address, **more})
    document["servers"][0]["routers"][0]["virtual_hosts"][0]["routers"] = [
        {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": "here"}}
    ]
    return document


class CheckTests(IntegrationTestCase):
    async def check(self, document: object, name: str = "config.json") -> tuple[int, str]:
        """Run C{--check}: its exit status and its output."""
        file = self.directory / name
        file.write_text(document if isinstance(document, str) else json.dumps(document))
        child = self.run_twistd("check", "--check", "--config", str(file))
        return await child.ended(), "\n".join(child.lines)

    async def test_good_file(self) -> None:
        status, output = await self.check(server())
        self.assertEqual(status, 0, output)
        for part in ("clientListener", "tunnelListener", "clientCluster"):
            self.assertIn(part, output)

    async def test_nothing_is_bound(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            status, output = await self.check(server(client=f"127.0.0.1:{taken.getsockname()[1]}"))
        self.assertEqual(status, 0, output)

    async def test_wrong_file_lists_every_problem(self) -> None:
        document = server()
        document["servers"][0]["listeners"][0]["address"] = "no port"
        document["servers"][0]["graceful_timeout"] = "soon"
        document["cluster_manager"]["clusters"][0]["name"] = 5
        status, output = await self.check(document)
        self.assertEqual(status, 1, output)
        for part in (
            "servers[0].listeners[0].address",
            "graceful_timeout",
            "cluster_manager.clusters[0].name",
        ):
            self.assertIn(part, output)
        self.assertNotIn("Traceback", output)

    async def test_not_json(self) -> None:
        status, output = await self.check('{"servers": [')
        self.assertEqual(status, 1, output)
        self.assertIn("config.json", output)
        self.assertNotIn("Traceback", output)

    async def test_missing_file(self) -> None:
        child = self.run_twistd("check", "--check", "--config", "absent.json")
        self.assertEqual(await child.ended(), 1)
        self.assertIn("absent.json", "\n".join(child.lines))

    async def test_unknown_key_is_a_warning(self) -> None:
        document = server()
        document["servers"][0]["lisseners"] = []
        status, output = await self.check(document)
        self.assertEqual(status, 0, output)
        self.assertIn("lisseners", output)

    async def test_wrong_file_does_not_start(self) -> None:
        file = self.directory / "wrong.json"
        file.write_text("{}")
        child = self.run_twistd("wrong", "--config", str(file))
        self.assertEqual(await child.ended(), 1)
        self.assertNotIn("Traceback", "\n".join(child.lines))

    async def test_no_configuration(self) -> None:
        child = self.run_twistd("nothing")
        await child.ended()  # before Twisted 26.10, twistd ends with 0 for a wrong command line
        self.assertIn("name a configuration with --config FILE", "\n".join(child.lines))


class ListenerTests(IntegrationTestCase):
    async def test_address_in_use(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            self.expected_errors.append(str(port))
            proxy = self.run_proxy(server(client=f"127.0.0.1:{port}"), "proxy")
            self.assertEqual(await proxy.ended(), 1)
        self.assertIn(f"127.0.0.1:{port}", "\n".join(proxy.lines))

    async def test_ipv6(self) -> None:
        proxy = self.run_proxy(answering("[::1]:0"), "proxy")
        host, port = await proxy.listening("clientListener")
        self.assertEqual(host, "::1")
        answer = await fetch(port, host="::1")
        self.assertEqual((answer.status, answer.body), (200, b"here"))

    async def test_tunnel_over_ipv6(self) -> None:
        cloud = self.run_proxy(server(tunnel="[::1]:0"), "server")
        _, port = await cloud.listening("tunnelListener")
        document = quick_agent(port)
        document["extends"][0]["config"]["server_list"] = [f"[::1]:{port}"]
        self.run_proxy(document, "agent")
        await cloud.counted(JOINED, 1)
        answer = await fetch(await cloud.port("clientListener"))
        self.assertEqual(answer.body, b"answered by the agent")

    async def test_unix_socket(self) -> None:
        # a path of its own, as a socket's must be short
        directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, directory)
        path = Path(directory) / "socket"
        proxy = self.run_proxy(answering(str(path), network="unix"), "proxy")
        await proxy.logged("^listener clientListener listening on ")

        def run() -> bytes:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(DEADLINE)
                client.connect(str(path))
                client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                received = b""
                while data := client.recv(65536):
                    received += data
                return received

        received = await threaded(run)
        self.assertTrue(received.startswith(b"HTTP/1.1 200"), received)
        self.assertTrue(received.endswith(b"here"), received)
        self.assertEqual(await proxy.stop(), 0)
        self.assertFalse(path.exists(), "the socket was left behind")

    async def test_two_processes_share_a_port(self) -> None:
        port = self.reserve_reuseport()
        proxies = [
            self.run_proxy(answering(f"127.0.0.1:{port}", reuseport=True), f"proxy-{i}") for i in range(2)
        ]
        for proxy in proxies:
            await proxy.port("clientListener")
        await proxies[0].stop()
        self.assertEqual((await fetch(port)).body, b"here")

    def reserve_reuseport(self) -> int:
        """A port that is bound, without listening, with SO_REUSEPORT."""
        holder = socket.socket()
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        self.addCleanup(holder.close)
        port: int = holder.getsockname()[1]
        return port


class QuickstartTests(IntegrationTestCase):
    async def test_quickstart(self) -> None:
        proxy = self.run_twistd("quickstart", "--quickstart")
        found = await proxy.wait_for(r"http://127\.0\.0\.1:(\d+)/?")
        answer = await fetch(int(found.group(1)))
        self.assertEqual(answer.status, 200)
        self.assertNotEqual(answer.body, b"")
        self.assertEqual(await proxy.stop(), 0)


class SignalTests(IntegrationTestCase):
    async def test_terminate(self) -> None:
        proxy = self.run_proxy(answering("127.0.0.1:0"), "proxy")
        await proxy.port("clientListener")
        self.assertEqual(await proxy.stop(), 0)

    async def test_interrupt(self) -> None:
        proxy = self.run_proxy(answering("127.0.0.1:0"), "proxy")
        await proxy.port("clientListener")
        proxy.signal("INT")
        await proxy.ended()

    async def test_a_second_signal_cuts_the_end_short(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            document = server()
            document["cluster_manager"]["clusters"][0]["hosts"] = [
                {"address": f"127.0.0.1:{silent.getsockname()[1]}"}
            ]
            proxy = self.run_proxy(document, "proxy")
            with socket.create_connection(("127.0.0.1", await proxy.port("clientListener"))) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                await threaded(silent.accept)
                proxy.signal("TERM")
                await proxy.logged("waits for 1 connection")
                begun = time.monotonic()
                proxy.signal("INT")
                await proxy.logged("what is still under way is cut off")
                self.assertEqual(await proxy.ended(), 0)
                self.assertLess(time.monotonic() - begun, 10)
        self.assertNotIn("Traceback", "\n".join(proxy.lines))

    async def test_log_file_is_reopened(self) -> None:
        log = self.directory / "proxy.log"
        document = answering("127.0.0.1:0")
        document["servers"][0]["default_log_path"] = str(log)
        proxy = self.run_proxy(document, "proxy")
        await threaded(wait_until, log, "listening on")
        log.rename(self.directory / "proxy.log.1")
        proxy.signal("USR1")
        await threaded(wait_until, log, "")
        self.assertEqual(await proxy.stop(), 0)
        self.assertNotEqual(log.read_text(), "")


def wait_until(file: Path, text: str) -> None:
    """Wait until a file exists and contains some text."""
    end = time.monotonic() + DEADLINE
    while not (file.exists() and text in file.read_text()):
        if time.monotonic() > end:
            raise AssertionError(f"no {text!r} in {file}")
        time.sleep(0.02)
