"""
The configuration changes while clients of every kind are served, with real processes.

C{python -m tests.change --seconds 600} does for as long as it is told what these tests do for some seconds.
"""

from __future__ import annotations

import copy
import json
import os
import signal
import socket
import sys
import threading
import time
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect as connect_websocket

from tests.change.recorded import Recorded
from tests.integration.bolt import BoltClient, BoltService
from tests.integration.clients import connect_raw, fetch, threaded
from tests.integration.harness import DEADLINE, Child, IntegrationTestCase, ReverseProxy

SECONDS = float(os.environ.get("REVERSEPROXY_CHANGE_SECONDS", "2"))
"""How long each of the long tests goes on."""

IN_USE = r"is in use, generation \d+"
KINDS = ("web", "grpc", "bolt")

DOWNLOAD = 24 * 1024 * 1024
"""Bytes of the download, which is taken as slowly as the test goes on."""


def _filter(kind: str) -> dict[str, Any]:
    options: dict[str, Any] = {
        "web": {"downstream_protocol": "Http1"},
        "grpc": {"downstream_protocol": "Http2"},
        "bolt": {"downstream_protocol": "X", "extend_config": {"sub_protocol": "bolt"}},
    }[kind]
    return {"type": "proxy", "config": {"router_config_name": kind, **options}}


def _router(kind: str) -> dict[str, Any]:
    match: dict[str, Any] = {"prefix": "/"}
    if kind == "bolt":
        match = {"headers": [{"name": "service", "value": ".*"}]}
    rule = {"match": match, "route": {"cluster_name": kind, "timeout": "0s"}}
    return {
        "router_config_name": kind,
        "virtual_hosts": [{"name": kind, "domains": ["*"], "routers": [rule]}],
    }


def _listener(name: str, filter_: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "address": "127.0.0.1:0",
        "bind_port": True,
        "filter_chains": [{"filters": [filter_]}],
        **more,
    }


def server_document() -> dict[str, Any]:
    """A tunnel server with a listener, a router and a cluster for each kind of client."""
    tunnel = _listener("tunnel", {"type": "tunnel"}, connection_idle_timeout=0)
    return {
        "servers": [
            {
                "default_log_path": "stdout",
                "max_log_size_per_hour": 0,  # each reload is looked for in it
                "graceful_timeout": "15s",
                "routers": [_router(kind) for kind in KINDS],
                "listeners": [*(_listener(kind, _filter(kind)) for kind in KINDS), tunnel],
            }
        ],
        "cluster_manager": {"clusters": [{"name": kind, "lb_type": "LB_RANDOM"} for kind in KINDS]},
    }


def agent_document(tunnel: int, hosts: dict[str, str]) -> dict[str, Any]:
    """An agent with a listener, a cluster and connections for each kind of service."""
    return {
        "servers": [
            {
                "default_log_path": "stdout",
                "max_log_size_per_hour": 0,
                "listeners": [
                    _listener(kind, {"type": "tcp_proxy", "config": {"cluster": kind}}, bind_port=False)
                    for kind in KINDS
                ],
            }
        ],
        "cluster_manager": {
            "clusters": [{"name": kind, "hosts": [{"address": hosts[kind]}]} for kind in KINDS]
        },
        "extends": [
            {
                "type": "tunnel_agent",
                "config": {
                    "enable": True,
                    "cluster": kind,
                    "hosting_listener": kind,
                    "connection_num": 2,
                    "server_list": [f"127.0.0.1:{tunnel}"],
                },
            }
            for kind in KINDS
        ],
    }


class Clients:
    """Clients of every kind at once; what goes wrong with any of them is kept."""

    def __init__(self, test: ReloadCase, ports: dict[str, int]) -> None:
        self.failures: list[str] = []
        self.load = Recorded(ports["web"])
        self._test = test
        self._ports = ports
        self._ending = threading.Event()
        self._threads: list[Deferred[Any]] = []
        self._chat = Child("grpc chat")
        self._bolt: Deferred[None] | None = None
        self.counts: dict[str, int] = {}

    async def start(self) -> None:
        """Begin, and wait until all of them have something."""
        self.load.start()
        begun = [threading.Event() for _ in range(2)]
        for function, event in ((self._websocket, begun[0]), (self._download, begun[1])):
            self._threads.append(threaded(function, event))
        self._test.spawn(self._chat, "-m", "tests.change.grpc_chat", str(self._ports["grpc"]))
        await self._chat.wait_for("^begun")
        self._bolt = Deferred.fromCoroutine(self._ask_bolt())
        for event in begun:
            await threaded(event.wait, DEADLINE)
        await self.load.answers(20)
        self.load.times.clear()  # while all of that was started, the machine had much to do

    def _websocket(self, begun: threading.Event) -> None:
        number = 0
        try:
            with connect_websocket(f"ws://127.0.0.1:{self._ports['web']}/ws") as websocket:
                while not self._ending.is_set():
                    websocket.send(str(number))
                    answer = websocket.recv(DEADLINE)
                    if answer != str(number):
                        self.failures.append(f"websocket: {answer!r} came where {number} was due")
                    number += 1
                    begun.set()
                    self._ending.wait(0.01)
        except (OSError, WebSocketException) as error:
            self.failures.append(f"websocket after {number}: {error!r}")
        self.counts["websocket"] = number

    def _download(self, begun: threading.Event) -> None:
        """Take a long answer as slowly as the test goes on; at the end, all the rest."""
        total = 0
        with socket.create_connection(("127.0.0.1", self._ports["web"]), DEADLINE) as client:
            client.sendall(b"GET /bytes?n=%d HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % DOWNLOAD)
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(4096)
            total = len(head.partition(b"\r\n\r\n")[2])
            begun.set()
            try:
                while data := client.recv(65536):
                    total += len(data)
                    self._ending.wait(0.0 if self._ending.is_set() else 0.02)
            except OSError as error:
                self.failures.append(f"download after {total}: {error!r}")
        if total != DOWNLOAD:
            self.failures.append(f"download: {total} bytes instead of {DOWNLOAD}")
        self.counts["download"] = total

    async def _ask_bolt(self) -> None:
        client = await connect_raw(self._test, self._ports["bolt"], BoltClient)
        assert isinstance(client, BoltClient)
        number = 0
        while not self._ending.is_set():
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
            await deferLater(reactor, 0.01)

    async def stop(self) -> None:
        """Let all of them end as they should."""
        await self.load.stop()
        self._ending.set()
        self._chat.transport.closeStdin()
        for each in self._threads:
            await each
        if self._bolt is not None:
            await self._bolt
        line = await self._chat.wait_for(r"^(answered|failed)")
        if line.group(1) == "failed":
            self.failures.append(f"grpc: {line.string}")
        self.failures += self.load.failures


class ReloadCase(IntegrationTestCase):
    """A server and an agent, the files that they run, and clients."""

    workers = 1
    cloud: ReverseProxy
    edge: ReverseProxy

    async def begin(self) -> Clients:
        backend = await self.run_backend()
        grpc = Child("grpc backend")
        self.spawn(grpc, "-m", "tests.integration.grpc_backend")
        found = await grpc.wait_for(r"^listening on (\d+)$")
        bolt = await BoltService().listen(self)
        self.document = server_document()
        self.files = {name: self.directory / f"{name}.json" for name in ("server", "agent")}
        self.write("server", self.document)
        more = () if self.workers == 1 else ("--workers", str(self.workers))
        self.cloud = self.run_proxy(self.files["server"], "server", *more)
        if self.workers > 1:
            await self.cloud.counted(r"^worker \d+ is ready", self.workers)
        hosts = {"web": backend.address, "grpc": f"127.0.0.1:{found.group(1)}", "bolt": bolt.address}
        self.agent_document = agent_document(await self.cloud.port("tunnel"), hosts)
        self.write("agent", self.agent_document)
        self.edge = self.run_proxy(self.files["agent"], "agent")
        await self.cloud.counted(self.joined, 6)
        ports = {kind: await self.cloud.port(kind) for kind in KINDS}
        clients = Clients(self, ports)
        await clients.start()
        self.mark = self.cloud.mark()
        return clients

    joined = r"^cluster (web|grpc|bolt): host \S+ .*joined|^cluster (web|grpc|bolt): host \S+ joined"

    def write(self, name: str, document: Any) -> None:
        other = self.files[name].with_suffix(".new")
        other.write_text(document if isinstance(document, str) else json.dumps(document))
        other.rename(self.files[name])

    async def reload(self, child: ReverseProxy, expected: str = IN_USE) -> float:
        """Reload; gives how long it took, in seconds."""
        mark, began = child.mark(), time.monotonic()
        child.signal("HUP")
        await child.logged(expected, mark)
        return time.monotonic() - began

    def changes(self, number: int) -> dict[str, Any]:
        """The server's document, with something else in each of its parts; no two in a row are the same."""
        document = copy.deepcopy(self.document)
        server = document["servers"][0]
        balancers = ("LB_ROUNDROBIN", "LB_LEAST_REQUEST", "LB_RANDOM", "LB_PEAK_EWMA", "LB_MAGLEV")
        for index, cluster in enumerate(document["cluster_manager"]["clusters"]):
            cluster["lb_type"] = balancers[(number + index) % len(balancers)]
            cluster["connect_timeout"] = f"{5 + number % 3}s"
        headers = [{"header": {"key": "x-generation", "value": str(number)}}]
        for router in server["routers"]:
            router["virtual_hosts"][0]["response_headers_to_add"] = headers
        log = {"log_path": str(self.directory / f"access-{number % 3}.log")}
        for listener in server["listeners"][:3]:
            listener["access_logs"] = [log]
            listener["connection_idle_timeout"] = f"{60 + number % 2}s"
        if number % 2:
            server["listeners"].append(_listener("more", _filter("web")))
        server["graceful_timeout"] = f"{10 + number % 5}s"
        return document

    def assertKept(self) -> None:
        """No connection of an agent has come or gone."""
        moves = [each["message"] for each in self.cloud.entries(self.mark) if "host" in each["message"]]
        self.assertEqual([each for each in moves if " joined " in each or " left, " in each], [])


class ServerTests(ReloadCase):
    async def test_everything_changes(self) -> None:
        clients = await self.begin()
        number, times = await self.change_for(SECONDS, clients)
        await self.refuse(number)
        await self.storm(clients)
        await self.change_the_agent(clients)
        await clients.stop()
        self.assertEqual(clients.failures, [])
        self.assertKept()
        for path in self.directory.glob("access-*.log"):
            self.assertIn("200", path.read_text())
        told = f"{number} reloads in {min(times):.3f} to {max(times):.3f} s; {clients.load}; {clients.counts}"
        assert sys.__stdout__ is not None
        sys.__stdout__.write(f"{told}\n")

    async def change_for(self, seconds: float, clients: Clients) -> tuple[int, list[float]]:
        """Reload again and again; gives how often, and how long each time took."""
        end, number, times = time.monotonic() + seconds, 0, []
        while time.monotonic() < end or number < 4:
            number += 1
            self.write("server", self.changes(number))
            times.append(await self.reload(self.cloud))
            answer = await fetch(clients.load.port, "/")
            self.assertEqual(answer.headers["x-generation"], str(number))
            await clients.load.answers(20)
        return number, times

    async def refuse(self, number: int) -> None:
        """What can't be used, or is not there, changes nothing."""
        self.expected_errors += ["is not taken into use", "can't listen on"]
        stays = f"is not taken into use, and that of generation {number + 1} stays"
        with socket.create_server(("127.0.0.1", 0)) as taken:
            in_use = copy.deepcopy(self.document)
            in_use["servers"][0]["listeners"][0]["address"] = f"127.0.0.1:{taken.getsockname()[1]}"
            wrong = copy.deepcopy(self.document)
            wrong["cluster_manager"]["clusters"][0]["lb_type"] = 7
            for document in ("{", "", wrong, in_use):
                self.write("server", document)
                await self.reload(self.cloud, stays)
        self.files["server"].unlink()
        await self.reload(self.cloud, stays)

    async def storm(self, clients: Clients) -> None:
        """However often it is asked for, the last state of the file is what counts in the end."""
        mark = self.cloud.mark()
        for number in range(1, 40):
            self.write("server", self.changes(number))
            os.kill(self.cloud.pid, signal.SIGHUP)
        while (await fetch(clients.load.port, "/")).headers.get("x-generation") != "39":
            await self.cloud.logged(IN_USE, mark)
            mark = self.cloud.mark()

    async def change_the_agent(self, clients: Clients) -> None:
        """Balancers behind the agent change; its connections stay."""
        for number in range(1, 4):
            document = copy.deepcopy(self.agent_document)
            for cluster in document["cluster_manager"]["clusters"]:
                cluster["lb_type"] = ("LB_RANDOM", "LB_ROUNDROBIN")[number % 2]
            self.write("agent", document)
            await self.reload(self.edge)
            await clients.load.answers(20)


class WorkersTests(ReloadCase):
    """All workers, or none."""

    workers = 2

    async def test_everything_changes(self) -> None:
        clients = await self.begin()
        end, number = time.monotonic() + SECONDS, 0
        while time.monotonic() < end or number < 4:
            number += 1
            self.write("server", self.changes(number))
            await self.reload(self.cloud)
            for _ in range(8):  # whichever worker it is
                answer = await fetch(clients.load.port, "/")
                self.assertEqual(answer.headers["x-generation"], str(number))
            await clients.load.answers(20)
        self.expected_errors += ["is not taken into use", "was ended by SIGKILL"]
        self.write("server", "{")
        await self.reload(self.cloud, "is not taken into use")
        await clients.stop()
        self.assertEqual(clients.failures, [])
        self.assertKept()
        # A worker that is started anew begins with what counts now.
        mark = self.cloud.mark()
        entry = await self.cloud.logged(r"^worker \d+ is ready", number=1)
        os.kill(int(entry["pid"]), signal.SIGKILL)
        await self.cloud.logged(r"^worker \d+ is ready", mark, number=1)
        for _ in range(8):
            answer = await fetch(clients.load.port, "/")
            self.assertEqual(answer.headers["x-generation"], str(number))
