"""Several processes for one configuration."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor

from tests.integration.clients import Load, ask, fetch, gather, threaded
from tests.integration.configs import quick_agent, server
from tests.integration.harness import (
    DEADLINE,
    JOINED,
    LEFT,
    SERVING,
    IntegrationTestCase,
    ReverseProxy,
    certificates,
)
from tests.integration.http2_configs import spoken
from tests.integration.test_tls import client_context, server_context

READY = r"^worker \d+ is ready, process "

LOGGED = {"access_logs": [{"log_path": "stdout", "log_format": "json"}]}
"""For a listener: the worker that serves a request says so on standard output."""


def served(path: str) -> Any:
    """Look for the line of the access log of a request; it is the number of the worker that served it."""

    def look(line: str) -> int:
        entry = json.loads(line) if line.startswith('{"time"') else {}
        return int(entry["worker"]) if entry.get("path") == path else 0

    look.__doc__ = f"anything of {path}"
    return look


class WorkersTestCase(IntegrationTestCase):
    async def run_workers(self, workers: int, **more: Any) -> tuple[ReverseProxy, int, int]:
        """Start a server; its ports for clients and for tunnels."""
        more.setdefault("client_listener", LOGGED)
        cloud = self.run_proxy(server(**more), "server", "--workers", str(workers))
        await cloud.counted(READY, workers)
        return cloud, await cloud.port("clientListener"), await cloud.port("tunnelListener")

    async def connect(self, cloud: ReverseProxy, port: int, wanted: int) -> dict[int, Any]:
        """
        Connect clients, whose requests have to be answered, until enough workers serve some of them.

        @return: a connection to each worker that serves.
        """
        found: dict[int, Any] = {}
        for number in range(300):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
            self.addCleanup(connection.close)
            mark = cloud.mark()
            path = f"/connection/{mark}/{number}"
            answer = await threaded(ask, connection, path)
            self.assertEqual(answer.status, 200)
            found.setdefault(await cloud.wait_for(served(path), mark), connection)
            if len(found) == wanted:
                return found
        raise self.failureException(f"only the workers {sorted(found)} were given connections")

    async def pid_of(self, cloud: ReverseProxy, worker: int, since: int = 0) -> int:
        """The process of a worker, from 1."""
        entry = await cloud.logged(READY, since, number=worker)
        return int(entry["pid"])


class OneConnectionTests(WorkersTestCase):
    """One worker has the only connection of an agent, and all workers get requests."""

    async def serve(self, workers: int, **agent: Any) -> None:
        cloud, client, tunnel = await self.run_workers(workers)
        edge = self.run_proxy(quick_agent(tunnel, **agent), "agent")
        await edge.counted(SERVING, 1)
        await cloud.counted(JOINED, workers)
        connections = await self.connect(cloud, client, workers)
        # In turn, and all at once.
        for _ in range(3):
            for connection in connections.values():
                self.assertEqual((await threaded(ask, connection)).status, 200)
        for _ in range(5):
            answers = await gather([threaded(ask, each) for each in connections.values()])
            self.assertEqual([answer.status for answer in answers], [200] * workers)
        self.assertEqual(await cloud.stop(), 0)

    async def test_many_streams(self) -> None:
        await self.serve(3)

    async def test_one_request_at_a_time(self) -> None:
        await self.serve(3, mux=False)

    async def test_every_answer_matches_its_request(self) -> None:
        for mux in (True, False):
            backend = await self.run_backend()
            cloud, client, tunnel = await self.run_workers(2)
            self.run_proxy(quick_agent(tunnel, backend.address, mux=mux), "agent")
            await cloud.counted(JOINED, 2)
            load = Load(client, 16, limit=600).start()
            await load.finished()
            self.assertEqual((load.failures, load.answered), ([], 600))

    async def test_bodies(self) -> None:
        for mux in (True, False):
            backend = await self.run_backend()
            cloud, client, tunnel = await self.run_workers(2)
            self.run_proxy(quick_agent(tunnel, backend.address, mux=mux), "agent")
            await cloud.counted(JOINED, 2)
            body = os.urandom(1_000_000)
            answers = await gather([fetch(client, "/echo", "POST", body) for _ in range(6)])
            self.assertEqual([answer.body == body for answer in answers], [True] * 6)

    async def test_tls_and_http2_and_four_workers(self) -> None:
        ca = certificates(self.directory)
        context = server_context(ca.issue("127.0.0.1"))
        backend = await self.run_backend()
        for tls, upstream in ((context, ""), (None, "Http2"), (context, "Http2")):
            document = spoken(server(client_listener=LOGGED, tls=tls), "Http1", upstream)
            cloud = self.run_proxy(document, "server", "--workers", "4")
            await cloud.counted(READY, 4)
            client, tunnel = await cloud.port("clientListener"), await cloud.port("tunnelListener")
            secure = {} if tls is None else {"tls": client_context(ca.ca_file)}
            hosted = quick_agent(tunnel, backend.address, mux=False, **secure)
            self.run_proxy(spoken(hosted, upstream or "Http1", "Http1"), "agent")
            await cloud.counted(JOINED, 4)
            connections = await self.connect(cloud, client, 4)
            answers = await gather([threaded(ask, each) for each in connections.values()])
            self.assertEqual([answer.status for answer in answers], [200] * 4)
            if upstream:
                # Nobody waits for what takes long.
                held = fetch(client, "/hold?key=long", headers={"x-id": "long"})
                await fetch(backend.port, "/held?key=long&n=1")
                answers = await gather([threaded(ask, each) for each in connections.values()])
                self.assertEqual([answer.status for answer in answers], [200] * 4)
                await fetch(backend.port, "/release?key=long")
                self.assertEqual((await held).body, b"long")
            load = Load(client, 8, limit=200).start()
            await load.finished()
            self.assertEqual((load.failures, load.answered), ([], 200))
            self.assertEqual(await cloud.stop(), 0)

    async def test_tcp(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as service:
            cloud, client, tunnel = await self.run_workers(2, kind="tcp")
            address = f"127.0.0.1:{service.getsockname()[1]}"
            self.run_proxy(quick_agent(tunnel, address, kind="tcp", mux=False), "agent")
            await cloud.counted(JOINED, 2)

            def session() -> bytes:
                """A service that speaks first, and two half-closes."""
                with socket.create_connection(("127.0.0.1", client), timeout=DEADLINE) as near:
                    while True:
                        far, _ = service.accept()
                        with far:
                            far.settimeout(DEADLINE)
                            try:
                                far.sendall(b"hello ")
                                received = near.recv(6)
                                near.sendall(b"x" * 100_000)
                                near.shutdown(socket.SHUT_WR)
                                size = 0
                                while data := far.recv(65536):
                                    size += len(data)
                                far.sendall(b"%d" % size)
                            except ConnectionError:
                                continue
                        while data := near.recv(65536):
                            received += data
                        return received

            for _ in range(6):
                self.assertEqual(await threaded(session), b"hello 100000")


class EndTests(WorkersTestCase):
    async def test_a_worker_is_killed_under_load(self) -> None:
        self.expected_errors += ["was ended by SIGKILL", "is gone"]
        backend = await self.run_backend()
        cloud, client, tunnel = await self.run_workers(2)
        self.run_proxy(quick_agent(tunnel, backend.address, connections=4), "agent")
        await cloud.counted(JOINED, 8)
        connections = await self.connect(cloud, client, 2)
        pid = await self.pid_of(cloud, 2)
        mark = cloud.mark()
        load = Load(client, 8).start()
        await load.answers(50)
        os.kill(pid, signal.SIGKILL)
        await cloud.logged("^worker 2, process .* was ended by SIGKILL; it is started again", mark)
        # The port is bound all the time, and the other worker takes all connections.
        answers = await gather([fetch(client) for _ in range(8)])
        self.assertEqual([answer.status for answer in answers], [200] * 8)
        self.assertEqual((await threaded(ask, connections[1])).status, 200)
        self.assertNotEqual(await self.pid_of(cloud, 2, mark), pid)
        await load.stop()
        self.assertGreater(load.answered, 50)
        await cloud.logged(JOINED, mark, worker=2)
        await self.connect(cloud, client, 2)

    async def test_sigterm_under_load_loses_nothing(self) -> None:
        backend = await self.run_backend()
        cloud, client, tunnel = await self.run_workers(2)
        self.run_proxy(quick_agent(tunnel, backend.address), "agent")
        await cloud.counted(JOINED, 2)
        held = [fetch(client, "/hold?key=end", headers={"x-id": f"{n}"}) for n in range(24)]
        await fetch(backend.port, "/held?key=end&n=24")
        mark = cloud.mark()
        cloud.signal("TERM")
        await cloud.counted("^listener clientListener waits for ", 2, mark)
        await fetch(backend.port, "/release?key=end")
        answers = await gather(held)
        self.assertEqual([answer.body for answer in answers], [b"%d" % n for n in range(24)])
        self.assertEqual(await cloud.ended(), 0)

    async def test_a_second_signal_cuts_the_end_short(self) -> None:
        backend = await self.run_backend()
        cloud, client, tunnel = await self.run_workers(2)
        self.run_proxy(quick_agent(tunnel, backend.address), "agent")
        await cloud.counted(JOINED, 2)
        held = fetch(client, "/hold?key=cut")
        await fetch(backend.port, "/held?key=cut&n=1")
        cloud.signal("TERM")
        await cloud.logged("^listener clientListener waits for 1 connection")
        cloud.signal("INT")
        self.assertEqual(await cloud.ended(), 0)
        await self.assertFailure(held, OSError, http.client.HTTPException)

    async def test_one_worker_is_told_to_stop(self) -> None:
        cloud, client, tunnel = await self.run_workers(2)
        self.run_proxy(quick_agent(tunnel, connections=2), "agent")
        await cloud.counted(JOINED, 4)
        mark = cloud.mark()
        os.kill(await self.pid_of(cloud, 1), signal.SIGTERM)
        await cloud.logged("^worker 1, process .* has ended, as it was told; it is started again", mark)
        self.assertEqual((await fetch(client)).status, 200)
        await self.pid_of(cloud, 1, mark)

    async def test_the_supervisor_is_killed(self) -> None:
        self.expected_errors.append("the supervisor is gone")
        cloud, *ports = await self.run_workers(2, cluster={"connect_timeout": "0.1s"})
        # Something is under way, for which they wait: the answer to the first request says that it has come.
        held = socket.create_connection(("127.0.0.1", ports[0]), DEADLINE)
        self.addCleanup(held.close)
        held.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n")
        self.assertIn(b" 503 ", await threaded(lambda: held.recv(65536)))
        begun = reactor.seconds()  # type: ignore[attr-defined]
        # Their output is closed when they have ended, so that is not to be waited for: the ports are.
        cloud.signal("KILL")

        def until_free() -> None:
            for port in ports:
                while True:
                    with socket.socket() as probe:
                        probe.settimeout(DEADLINE)
                        if probe.connect_ex(("127.0.0.1", port)):
                            break

        await threaded(until_free)
        took = reactor.seconds() - begun  # type: ignore[attr-defined]
        print(f"the ports were free {took * 1000:.0f} ms after the supervisor was killed")  # noqa: T201
        held.settimeout(0)
        self.assertRaises(BlockingIOError, held.recv, 1)  # it is waited for still
        held.close()
        self.assertEqual(await cloud.ended(), -signal.SIGKILL)

    async def test_unix_sockets(self) -> None:
        directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, directory)
        path = directory / "socket"
        listener = {**LOGGED, "network": "unix"}
        cloud = self.run_proxy(server(client=str(path), client_listener=listener), "server", "--workers", "2")
        await cloud.counted(READY, 2)
        self.run_proxy(quick_agent(await cloud.port("tunnelListener")), "agent")
        await cloud.counted(JOINED, 2)

        def session() -> bytes:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(DEADLINE)
                client.connect(str(path))
                client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                return b"".join(iter(lambda: client.recv(65536), b""))

        for received in await gather([threaded(session) for _ in range(4)]):
            self.assertTrue(received.endswith(b"answered by the agent"), received)
        self.assertEqual(await cloud.stop(), 0)
        self.assertFalse(path.exists(), "the socket was left behind")

    async def test_logs_are_opened_anew(self) -> None:
        log = self.directory / "access.log"
        more = {"access_logs": [{"log_path": str(log), "log_format": "%worker% %path%"}]}
        cloud, client, _ = await self.run_workers(2, client_listener=more, cluster={"first_host_wait": "0s"})
        log.rename(log.with_suffix(".old"))
        cloud.signal("USR1")

        def until_there() -> None:
            while not log.exists():
                pass

        await threaded(until_there)
        self.assertEqual((await fetch(client, "/logged")).status, 502)  # there is no agent
        self.assertEqual(await cloud.stop(), 0)
        lines = (log.read_text() + log.with_suffix(".old").read_text()).splitlines()
        self.assertEqual(len(lines), 1, lines)
        self.assertRegex(lines[0], "^[12] /logged$")


class AgentTests(WorkersTestCase):
    async def test_workers_share_the_connections_of_an_agent(self) -> None:
        cloud = self.run_proxy(server(), "server")
        tunnel = await cloud.port("tunnelListener")
        edge = self.run_proxy(quick_agent(tunnel, connections=3), "agent", "--workers", "2")
        await edge.counted(SERVING, 3)
        await cloud.counted(JOINED, 3)
        shares = sorted(entry["count"] for entry in edge.entries() if "dialling" in entry["message"])
        self.assertEqual(shares, [1, 2])
        self.assertEqual((await fetch(await cloud.port("clientListener"))).body, b"answered by the agent")
        self.assertEqual(await edge.stop(), 0)
        await cloud.counted(LEFT, 3)

    async def test_workers_without_connections(self) -> None:
        cloud = self.run_proxy(server(), "server")
        tunnel = await cloud.port("tunnelListener")
        edge = self.run_proxy(quick_agent(tunnel, connections=1), "agent", "--workers", "3")
        await edge.counted(READY, 3)
        await edge.counted(SERVING, 1)
        self.assertEqual((await fetch(await cloud.port("clientListener"))).body, b"answered by the agent")
        self.assertEqual(len(edge.find(lambda line: "dialling" in line)), 1)
        self.assertEqual(await edge.stop(), 0)

    async def test_a_graceful_close_reaches_the_right_workers(self) -> None:
        cloud, _, tunnel = await self.run_workers(2)
        edge = self.run_proxy(quick_agent(tunnel, connections=8, mux=False), "agent")
        await cloud.counted(JOINED, 16)
        self.assertEqual(await edge.stop(), 0)
        await cloud.counted(LEFT, 16)
        reasons = [entry["reason"] for entry in cloud.entries() if re.match(LEFT, entry["message"])]
        self.assertEqual(reasons.count("the agent closes it gracefully"), 8, reasons)
        self.assertEqual([line for line in cloud.lines if "graceful close from" in line], [])

    async def test_an_agent_stops_under_load(self) -> None:
        for mux in (True, False):
            one, two = await self.run_backend("one"), await self.run_backend("two")
            cloud, client, tunnel = await self.run_workers(2)
            first = self.run_proxy(quick_agent(tunnel, one.address, mux=mux, connections=4), "first")
            self.run_proxy(quick_agent(tunnel, two.address, mux=mux, connections=4), "second")
            await cloud.counted(JOINED, 16)
            load = Load(client, 16).start()
            await load.answers(200)
            self.assertEqual(await first.stop(), 0)
            await load.answers(200)
            await load.stop()
            self.assertEqual(load.failures, [])


class OptionTests(IntegrationTestCase):
    async def test_processor(self) -> None:
        document = server()
        document["servers"][0]["processor"] = 2
        cloud = self.run_proxy(document, "server")
        await cloud.counted(READY, 2)
        alone = self.run_proxy(document, "alone", "--workers", "1")
        await alone.port("clientListener")
        self.assertEqual(await alone.stop(), 0)
        self.assertEqual(alone.find(lambda line: "workers" in line), [])

    async def test_what_is_no_number_of_workers(self) -> None:
        for value in ("0", "-1", "two", "65", "1.5", ""):
            proxy = self.run_proxy(server(), "wrong", f"--workers={value}")
            await proxy.ended()  # before Twisted 26.10, twistd ends with 0 for a wrong command line
            self.assertIn("must be from 1 to 64, or auto", "\n".join(proxy.lines))
            self.assertNotIn("Traceback", "\n".join(proxy.lines))

    async def test_what_is_no_number_of_processors(self) -> None:
        document = server()
        document["servers"][0]["processor"] = 1000
        proxy = self.run_proxy(document, "wrong")
        self.assertEqual(await proxy.ended(), 1)
        self.assertIn("servers[0].processor: ", "\n".join(proxy.lines))

    async def test_an_address_in_use(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            self.expected_errors.append(address)
            proxy = self.run_proxy(server(client=address), "proxy", "--workers", "2")
            self.assertEqual(await proxy.ended(), 1)
        self.assertIn(f"listener clientListener can't listen on {address}", "\n".join(proxy.lines))

    async def test_two_servers_do_not_share_a_port_by_accident(self) -> None:
        first = self.run_proxy(server(), "first", "--workers", "2")
        address = f"127.0.0.1:{await first.port('clientListener')}"
        self.expected_errors.append(address)
        second = self.run_proxy(server(client=address), "second", "--workers", "2")
        self.assertEqual(await second.ended(), 1)

    async def test_quickstart(self) -> None:
        proxy = self.run_twistd("quickstart", "--quickstart", "--workers", "2")
        found = await proxy.wait_for(r"http://127\.0\.0\.1:(\d+)/?")
        self.assertEqual((await fetch(int(found.group(1)))).status, 200)
        self.assertEqual(await proxy.stop(), 0)
