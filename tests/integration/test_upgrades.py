"""Upgrades through real tunnels: every kind, over every way from one end to the other."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import threading
from typing import Any

import docker
import h2.config
import h2.connection
import h2.events
from twisted.internet.defer import Deferred

from tests.integration.clients import (
    RawPeer,
    ask,
    connect_raw,
    fetch,
    gather,
    init_frame,
    listen_raw,
    threaded,
)
from tests.integration.configs import quick_agent, server
from tests.integration.containers import API_VERSION, CONTAINER, UpgradeHost
from tests.integration.harness import (
    DEADLINE,
    JOINED,
    IntegrationTestCase,
    ReverseProxy,
    certificates,
)
from tests.integration.http2_configs import spoken
from tests.integration.spdy import FIN, Spdy


def request(
    *fields: str, protocol: str, method: str = "POST", path: str = "/session", body: bytes = b""
) -> bytes:
    """Write a request for another protocol."""
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: test",
        "Connection: Upgrade",
        f"Upgrade: {protocol}",
        *fields,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


JSON = b'{"Detach":false,"Tty":true}'
CHUNKS = b"5\r\n" + JSON[:5] + b"\r\n%x\r\n" % len(JSON[5:]) + JSON[5:] + b"\r\n0\r\n\r\n"

KINDS = {
    "websocket": (request(protocol="websocket", method="GET"), "GET", b""),
    "docker": (request(f"Content-Length: {len(JSON)}", protocol="tcp", body=JSON), "POST", JSON),
    "chunked": (request("Transfer-Encoding: chunked", protocol="tcp", body=CHUNKS), "POST", JSON),
    "kubernetes": (request("Content-Length: 0", protocol="SPDY/3.1"), "POST", b""),
    "list": (request(protocol="SPDY/3.1, h2c, websocket", method="PUT"), "PUT", b""),
}
"""A request, and its method and body."""


def receive(sock: socket.socket, until: bytes) -> bytes:
    """Receive up to these bytes; all of it, with what came behind them."""
    data = b""
    while until not in data:
        more = sock.recv(65536)
        if not more:
            raise AssertionError(f"the connection ended behind {data[-300:]!r}")
        data += more
    return data


def headers_of(head: bytes) -> dict[str, str]:
    return {
        name.decode().lower(): value.strip().decode("latin-1")
        for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
    }


def session(port: int, kind: str, size: int = 200_000, tls: ssl.SSLContext | None = None) -> dict[str, str]:
    """
    Have a session with an L{UpgradeHost}: both directions, and both ends.

    @return: what the answer's headers say.
    """
    wish, _, _ = KINDS[kind]
    raw = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
    with raw if tls is None else tls.wrap_socket(raw, server_hostname="127.0.0.1") as sock:
        # What follows too early must reach the other protocol.
        sock.sendall(wish + b"early ")
        head, _, rest = receive(sock, b"early ").partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        assert rest == b"early ", rest
        data = bytes(range(256)) * (size // 256)
        writer = threading.Thread(target=sock.sendall, args=(data,))
        writer.start()
        echo = b""
        while len(echo) < len(data):
            echo += sock.recv(65536)
        writer.join(DEADLINE)
        assert echo == data
        if tls is None:
            sock.shutdown(socket.SHUT_WR)
        else:
            sock.sendall(b"quit")
        tail = b""
        with contextlib.suppress(ssl.SSLEOFError):
            while more := sock.recv(65536):
                tail += more
        assert tail == (b"quit" if tls is not None else b"|%d" % (len(data) + 6)), tail
    return headers_of(head)


class UpgradeTestCase(IntegrationTestCase):
    async def start_host(self) -> str:
        """Start the service; its address."""
        recorder = await listen_raw(self, UpgradeHost)
        return f"127.0.0.1:{recorder.port}"

    async def start(
        self,
        *,
        tunnel: str = "Http1",
        listener: str = "Http1",
        agent: dict[str, Any] | None = None,
        options: tuple[str, ...] = (),
        joined: int = 1,
        **config: Any,
    ) -> int:
        """
        Start a server, an agent and the service behind it.

        @param tunnel: what is spoken in the tunnel.
        @param listener: what clients may speak.
        @return: the port for clients.
        """
        address = await self.start_host()
        config.setdefault("client_listener", {"access_logs": [{"log_path": "stdout", "log_format": "json"}]})
        self.cloud = self.run_proxy(spoken(server(**config), listener, tunnel), "server", *options)
        port = await self.cloud.port("tunnelListener")
        edge = quick_agent(port, address, **(agent or {}))
        self.edge = self.run_proxy(spoken(edge, tunnel, "Http1"), "agent", *options[2:])
        await self.cloud.counted(JOINED, joined)
        return await self.cloud.port("clientListener")

    async def every_kind(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        """One after the other, and all at once."""
        for kind, (_, method, body) in KINDS.items():
            seen = await threaded(session, port, kind, tls=tls)
            self.assertEqual((seen["x-method"], seen["x-body"]), (method, body.decode()), kind)
            offered = KINDS[kind][0].split(b"Upgrade: ")[1].split(b"\r\n")[0].replace(b" h2c,", b"")
            self.assertEqual(seen["x-offered"], offered.decode())
        everything = await gather([threaded(session, port, kind, tls=tls) for kind in KINDS])
        self.assertEqual(
            [seen["x-method"] for seen in everything], [method for _, method, _ in KINDS.values()]
        )


class WayTests(UpgradeTestCase):
    """Every kind over every way."""

    async def test_plain_connections(self) -> None:
        await self.every_kind(await self.start(agent={"mux": False, "connections": 3}, joined=3))

    async def test_streams(self) -> None:
        await self.every_kind(await self.start())

    async def test_http2_in_the_tunnel(self) -> None:
        await self.every_kind(await self.start(tunnel="Http2", agent={"mux": False}))
        # All of it over the only connection, which lives on.
        self.assertEqual(len(self.cloud.find(lambda line: "joined" in line)), 1)

    async def test_http2_on_streams(self) -> None:
        await self.every_kind(await self.start(tunnel="Http2", listener="Http1,Http2"))

    async def test_any_protocol(self) -> None:
        await self.every_kind(await self.start(listener="Auto", tunnel="Http1"))

    async def test_twisted_s_own_transports(self) -> None:
        await self.every_kind(await self.start(options=("--transport", "stock"), agent={"mux": False}))

    async def secure(self, **more: Any) -> None:
        authority = certificates(self.directory)
        chain, key = authority.issue("127.0.0.1")
        tls = {"status": True, "cert_chain": chain, "private_key": key}
        trust = {"status": True, "ca_cert": authority.ca_file, "server_name": "127.0.0.1"}
        agent = {"tls": trust, **more.pop("agent", {})}
        port = await self.start(tls=tls, client_tls=tls, agent=agent, **more)
        await self.every_kind(port, ssl.create_default_context(cafile=authority.ca_file))

    async def test_tls(self) -> None:
        await self.secure(agent={"mux": False, "connections": 2}, joined=2)

    async def test_tls_on_streams(self) -> None:
        await self.secure()

    async def test_tls_and_http2(self) -> None:
        await self.secure(tunnel="Http2", agent={"mux": False})


class WorkerTests(UpgradeTestCase):
    """Whichever worker has the connection to the agent."""

    async def serve(self, **more: Any) -> None:
        port = await self.start(options=("--workers", "2"), joined=2, **more)
        for _ in range(3):
            await self.every_kind(port)

    async def test_plain_connections(self) -> None:
        await self.serve(agent={"mux": False})

    async def test_streams(self) -> None:
        await self.serve()

    async def test_http2_in_the_tunnel(self) -> None:
        await self.serve(tunnel="Http2", agent={"mux": False})


class BehaviourTests(UpgradeTestCase):
    async def test_http1_in_the_tunnel(self) -> None:
        await self.check("Http1")

    async def test_http2_in_the_tunnel(self) -> None:
        await self.check("Http2")

    async def check(self, tunnel: str) -> None:
        """One thing after the other, as each of them would need processes of its own."""
        port = await self.start(tunnel=tunnel, listener="Http1,Http2")
        await threaded(self.declined, port)
        await self.without_h2c(port)
        await self.another(port)
        await self.logged(port)
        await self.many_at_once(port)

    def declined(self, port: int) -> None:
        """The connection goes on with HTTP."""
        with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as sock:
            for status in (403, 200, 400):
                head = request(
                    f"Content-Length: {len(JSON)}",
                    protocol="tcp",
                    path=f"/x?decline={status}",
                    body=JSON,
                )
                sock.sendall(head)
                answer = receive(sock, b"}")
                assert answer.startswith(b"HTTP/1.1 %d " % status), answer
                assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"body": JSON.decode()}
                assert b"upgrade" not in answer.lower()
            sock.sendall(b"GET /_ping HTTP/1.1\r\nHost: a\r\n\r\n")
            assert receive(sock, b"OK").startswith(b"HTTP/1.1 200 ")

    async def without_h2c(self, port: int) -> None:
        """It is answered in HTTP/1.1, with its body."""
        fields = {
            "Connection": "Upgrade, HTTP2-Settings",
            "Upgrade": "h2c",
            "HTTP2-Settings": "AAMAAABkAAQAoAAAAAIAAAAA",
        }
        answer = await fetch(port, "/echo", "POST", JSON, fields)
        self.assertEqual((answer.status, json.loads(answer.body)["body"]), (200, JSON.decode()))
        self.assertNotIn("upgrade", answer.headers)

    async def another(self, port: int) -> None:
        """A host that switches to something else than was asked for."""
        fields = {"Connection": "Upgrade", "Upgrade": "tcp"}
        answer = await fetch(port, "/x?choose=other", "POST", JSON, fields)
        self.assertEqual(answer.status, 502)
        self.assertEqual((await fetch(port, "/echo", "POST", b"fine")).status, 200)

    async def logged(self, port: int) -> None:
        """What the access log says of a session."""
        mark = self.cloud.mark()
        await threaded(session, port, "docker", 2560)

        def found(line: str) -> Any:
            entry = json.loads(line)
            return entry if entry.get("path") == "/session" and "status" in entry else None

        entry = await self.cloud.wait_for(found, mark)
        received = len(JSON) + len(b"early ") + 2560
        sent = len(b"early ") + 2560 + len(b"|2566")
        self.assertEqual(entry["status"], 101, entry)
        self.assertEqual((entry["bytes_received"], entry["bytes_sent"]), (received, sent), entry)

    async def many_at_once(self, port: int) -> None:
        kinds = [*KINDS] * 5
        seen = await gather([threaded(session, port, kind, 50_000) for kind in kinds])
        self.assertEqual([each["x-method"] for each in seen], [KINDS[kind][1] for kind in kinds])

    async def test_a_loss_at_either_side(self) -> None:
        for tunnel in ("Http1", "Http2"):
            host = await listen_raw(self)
            cloud = self.run_proxy(spoken(server(), "Http1", tunnel), "server")
            edge = quick_agent(await cloud.port("tunnelListener"), f"127.0.0.1:{host.port}")
            self.run_proxy(spoken(edge, tunnel, "Http1"), "agent")
            await cloud.counted(JOINED, 1)
            port = await cloud.port("clientListener")
            for side in ("client", "host"):
                client, service = await self.switched(port, host)
                (client if side == "client" else service).transport.abortConnection()
                await (service if side == "client" else client).closed()

    async def switched(self, port: int, host: Any) -> tuple[RawPeer, RawPeer]:
        """A session between two peers in the hands of the test."""
        client = await connect_raw(self, port)
        client.transport.write(KINDS["docker"][0])
        service = await host.next()
        await service.contains(JSON)
        service.transport.write(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nhello")
        await client.contains(b"hello")
        return client, service

    async def test_shutdown_waits_for_sessions(self) -> None:
        """At either end: what is under way goes on, until it is over or the time is."""
        for who in ("server", "agent"):
            host = await listen_raw(self)
            cloud = self.run_proxy(spoken(server(graceful_timeout="20s"), "Http1", "Http2"), "server")
            edge = quick_agent(await cloud.port("tunnelListener"), f"127.0.0.1:{host.port}")
            agent = self.run_proxy(spoken(edge, "Http2", "Http1"), "agent")
            await cloud.counted(JOINED, 1)
            client, service = await self.switched(await cloud.port("clientListener"), host)
            stopping: ReverseProxy = cloud if who == "server" else agent
            mark = stopping.mark()
            stopping.signal("TERM")
            await stopping.wait_for("SIGTERM|stop|drain|leav", mark)
            for number in range(3):
                client.transport.write(b"still here %d" % number)
                await service.contains(b"still here %d" % number)
                service.transport.write(b"so am I %d" % number)
                await client.contains(b"so am I %d" % number)
            self.assertIsNone(stopping.status)
            client.transport.loseConnection()
            await service.closed()
            service.transport.loseConnection()
            self.assertEqual(await stopping.ended(), 0)

    async def test_the_first_request_of_an_agent(self) -> None:
        """Nothing is known of a host's HTTP/2 yet: the body waits for it."""
        for kind in ("docker", "chunked"):
            port = await self.start(tunnel="Http2")
            seen = await threaded(session, port, kind)
            self.assertEqual(seen["x-body"], JSON.decode())


class Http2ClientTests(UpgradeTestCase):
    """A client of HTTP/2, with the extended CONNECT of RFC 8441."""

    def connect(self, port: int, protocol: str) -> tuple[str, bytes]:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        connection.initiate_connection()
        status, body, sent, done = "", b"", False, False
        with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as sock:
            sock.sendall(connection.data_to_send())
            asked = False
            while not done:
                data = sock.recv(65536)
                assert data, "the connection ended"
                for event in connection.receive_data(data):
                    if isinstance(event, h2.events.RemoteSettingsChanged) and not asked:
                        asked = True
                        assert connection.remote_settings.enable_connect_protocol
                        fields = [(":method", "CONNECT"), (":protocol", protocol), (":scheme", "http")]
                        fields += [(":authority", "test"), (":path", "/session")]
                        connection.send_headers(1, fields)
                    elif isinstance(event, h2.events.ResponseReceived):
                        status = dict(event.headers)[":status"]
                        if status == "200":
                            connection.send_data(1, b"hello" * 1000)
                            sent = True
                    elif isinstance(event, h2.events.DataReceived):
                        body += event.data
                        connection.acknowledge_received_data(event.flow_controlled_length, 1)
                        if sent and len(body) == 5000:
                            connection.end_stream(1)
                    elif isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
                        done = True
                sock.sendall(connection.data_to_send())
        return status, body

    async def test_protocols(self) -> None:
        for tunnel in ("Http1", "Http2"):
            port = await self.start(tunnel=tunnel, listener="Http1,Http2")
            for protocol in ("tcp", "SPDY/3.1", "connect-udp"):
                found = await threaded(self.connect, port, protocol)
                self.assertEqual(found, ("200", b"hello" * 1000 + b"|5000"))
            status, _ = await threaded(self.connect, port, "h2c")
            self.assertEqual(status, "501")


class ForeignTests(UpgradeTestCase):
    async def test_an_agent_that_knows_nothing_of_it(self) -> None:
        """As a plain MOSN with HTTP/2: what needs its upgrade is told so, and nothing of it is begun."""
        cloud = self.run_proxy(spoken(server(), "Http1", "Http2"), "server")
        agent = await connect_raw(self, await cloud.port("tunnelListener"))
        agent.transport.write(init_frame("clientCluster"))
        await agent.frame()
        await cloud.counted(JOINED, 1)
        port = await cloud.port("clientListener")
        fields = {"Connection": "Upgrade", "Upgrade": "tcp"}
        answer: Deferred[Any] = fetch(port, "/session", "POST", JSON, fields)
        await agent.contains(b"PRI * HTTP/2.0")
        agent.transport.write(b"\0\0\0\4\0\0\0\0\0" + b"\0\0\0\4\1\0\0\0\0")
        refused = await answer
        self.assertEqual(refused.status, 501)
        self.assertIn(b"the host speaks HTTP/2", refused.body)
        self.assertNotIn(b"\xf0\xd7", agent.received)
        self.assertNotIn(JSON, agent.received)
        await cloud.logged("can't be passed on")


class ContainerTests(UpgradeTestCase):
    """Clients of containers: docker's own library, and SPDY as old Kubernetes clients speak it."""

    def docker_library(self, port: int) -> None:
        client = docker.APIClient(f"tcp://127.0.0.1:{port}", version=API_VERSION, timeout=int(DEADLINE))
        created = client.exec_create(CONTAINER, "cat", stdin=True)
        with client.exec_start(created["Id"], socket=True) as stream:
            stream._sock.settimeout(DEADLINE)
            stream._sock.sendall(b"hello docker")
            stream._sock.shutdown(socket.SHUT_WR)
            output = b"".join(iter(lambda: stream.read(65536), b""))
        assert output == frames((1, b"hello docker"), (2, b"12 bytes of input\n")), output
        assert client.exec_inspect(created["Id"])["ExitCode"] == 7
        with client.attach_socket(CONTAINER, {"stdin": 1, "stdout": 1, "stream": 1}) as stream:
            stream._sock.settimeout(DEADLINE)
            stream._sock.sendall(b"x" * 100_000)
            stream._sock.shutdown(socket.SHUT_WR)
            output = b"".join(iter(lambda: stream.read(65536), b""))
        assert output.count(b"x") == 100_000
        assert output.endswith(b"100000 bytes of input\n")
        client.close()

    def spdy_exec(self, port: int) -> None:
        path = (
            f"/api/v1/namespaces/default/pods/{CONTAINER}/exec?command=cat&stdin=true&stdout=true&stderr=true"
        )
        fields = ["X-Stream-Protocol-Version: v4.channel.k8s.io", "Content-Length: 0"]
        spdy = Spdy()
        names = {1: "error", 3: "stdin", 5: "stdout", 7: "stderr"}
        seen = dict.fromkeys(names.values(), b"")
        ended: set[str] = set()
        with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as sock:
            sock.sendall(request(*fields, protocol="SPDY/3.1", path=path))
            head, _, rest = receive(sock, b"\r\n\r\n").partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101 "), head
            found = headers_of(head)
            assert (found["upgrade"], found["x-stream-protocol-version"]) == ("SPDY/3.1", "v4.channel.k8s.io")
            for number, name in names.items():
                sock.sendall(spdy.open(number, {"streamtype": name}))
            sock.sendall(spdy.data(3, b"hello spdy") + spdy.data(3, b"", FIN))
            while ended != {"error", "stdout", "stderr"}:
                for frame in spdy.feed(rest):
                    if frame.kind == 0:
                        seen[names[frame.stream]] += frame.data
                        if frame.flags & FIN:
                            ended.add(names[frame.stream])
                rest = sock.recv(65536) if ended != {"error", "stdout", "stderr"} else b""
        assert seen["stdout"] == b"hello spdy", seen
        assert seen["stderr"] == b"10 bytes of input\n", seen
        assert json.loads(seen["error"])["status"] == "Success"

    async def test_clients(self) -> None:
        for tunnel, agent in (
            ("Http1", {"mux": False, "connections": 2}),
            ("Http1", {}),
            ("Http2", {"mux": False}),
        ):
            port = await self.start(tunnel=tunnel, agent=agent, joined=agent.get("connections", 1))
            await threaded(self.docker_library, port)
            await threaded(self.spdy_exec, port)
            answer = await threaded(self.plain, port)
            self.assertEqual(answer.status, 200)

    def plain(self, port: int) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
        try:
            return ask(connection, "/version")
        finally:
            connection.close()


def frames(*parts: tuple[int, bytes]) -> bytes:
    """Docker's frames."""
    return b"".join(bytes([kind, 0, 0, 0]) + len(data).to_bytes(4, "big") + data for kind, data in parts)
