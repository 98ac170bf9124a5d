"""Strangers and proxies of one's own, in front of a tunnel."""

from __future__ import annotations

import json
import socket
import ssl
from pathlib import Path

from tests.certs import Certificates
from tests.integration.clients import fetch, threaded
from tests.integration.configs import http_filter, quick_agent, server
from tests.integration.harness import DEADLINE, JOINED, TWISTD, Child, IntegrationTestCase

CLAIMS = {
    "X-Forwarded-For": "1.2.3.4",
    "X-Real-IP": "1.2.3.4",
    "X_Forwarded_For": "1.2.3.4",
    "X-Mosn-Try-Timeout": "300",
}


class TrustTests(IntegrationTestCase):
    async def start(self, trusted: list[str]) -> int:
        """Start backend, server and agent with one plain connection; the port for clients."""
        self.backend = await self.run_backend()
        proxy = http_filter(
            "client_router",
            trusted_proxies=trusted,
            extend_config={"Http1": {"x_forwarded": "append"}},
        )
        outliers = {"outlier_detection": {"consecutive_resets": 1, "consecutive_5xx": 1}}
        document = server(client_filter=proxy, cluster=outliers, tunnel_config={"mux": False})
        self.cloud = self.run_proxy(document, "server")
        tunnel = await self.cloud.port("tunnelListener")
        self.edge = self.run_proxy(quick_agent(tunnel, self.backend.address), "agent")
        await self.cloud.counted(JOINED, 1)
        return await self.cloud.port("clientListener")

    async def seen(self, port: int) -> list[str]:
        """What the service sees of what a client claims."""
        answer = await fetch(port, "/headers", headers=CLAIMS)
        self.assertEqual(answer.status, 200)
        return [line for line in answer.body.decode().split("\n") if line.startswith(("x-", "x_"))]

    async def test_strangers(self) -> None:
        port = await self.start([])
        told = [
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-proto: http",
            f"x-forwarded-host: 127.0.0.1:{port}",
        ]
        self.assertEqual(await self.seen(port), told)
        await self.cloud.wait_for("are left out, as it is not one of trusted_proxies")
        self.assertFalse(self.edge.find(lambda line: "trusted_proxies" in line))

    async def test_proxies_of_ones_own(self) -> None:
        port = await self.start(["127.0.0.0/8"])
        self.assertEqual(
            await self.seen(port),
            [
                "x-real-ip: 1.2.3.4",
                "x-mosn-try-timeout: 300",
                "x-forwarded-for: 1.2.3.4, 127.0.0.1",
                "x-forwarded-proto: http",
                f"x-forwarded-host: 127.0.0.1:{port}",
            ],
        )
        # A request that has no patience costs neither the host nor its only connection.
        slow = fetch(port, "/hold?key=slow", headers={"X-Mosn-Try-Timeout": "300"})
        self.assertEqual((await slow).status, 504)
        await fetch(self.backend.port, "/release?key=slow")
        self.assertEqual((await fetch(port, "/bytes?n=5")).status, 200)
        self.assertEqual(len(self.cloud.find(lambda line: " joined " in line)), 1)


class OpenTests(IntegrationTestCase):
    async def test_what_is_open_is_said(self) -> None:
        """Nothing is bound for that."""
        file = Path(self.mktemp()).resolve()
        file.write_text(json.dumps(server(tunnel="0.0.0.0:9999")))
        child = Child("check")
        self.spawn(child, "-c", TWISTD, "-n", "--pidfile=", "reverseproxy", "--check", "--config", str(file))
        self.assertEqual(await child.ended(), 0)
        [line] = child.find(lambda line: line if line.startswith("warning: ") else None)
        self.assertIn("any agent that can connect to 0.0.0.0:9999 can join any cluster", line)
        self.assertIn("set credential_policy", line)


class QuotaTests(IntegrationTestCase):
    async def test_an_agent_that_brings_too_many_connections(self) -> None:
        """It hears why, and those that it has serve on."""
        backend = await self.run_backend()
        cloud = self.run_proxy(server(tunnel_config={"max_hosts_per_agent": 2}), "server")
        document = quick_agent(await cloud.port("tunnelListener"), backend.address, connections=3)
        edge = self.run_proxy(document, "agent")
        await edge.logged(r"asks to come back in 30.00 s: there are 2 connections of this agent already")
        await cloud.counted(JOINED, 2)
        self.assertEqual((await fetch(await cloud.port("clientListener"), "/bytes?n=5")).status, 200)


class NameTests(IntegrationTestCase):
    async def test_another_name_does_not_get_around_a_certificate(self) -> None:
        """Whatever a client says in its handshake."""
        authority = Certificates(Path(self.mktemp()).resolve())
        mutual = {"ca_cert": authority.ca, "verify_client": True, "require_client_cert": True}
        contexts = [
            {"status": True, **authority.issue("open", "open.example").options},
            {"status": True, **authority.issue("secure", "secure.example").options, **mutual},
        ]
        for context in contexts:
            context["alpn"] = "h2,http/1.1"
        proxy = http_filter("client_router", downstream_protocol="Http1,Http2")
        document = server(client_filter=proxy)
        document["servers"][0]["listeners"][0]["filter_chains"][0] = {
            "tls_context_set": contexts,
            "filters": [proxy],
        }
        document["servers"][0]["routers"][0]["virtual_hosts"][0]["routers"] = [
            {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": "inside"}}
        ]
        cloud = self.run_proxy(document, "server")
        port = await cloud.port("clientListener")

        def ask(name: str | None, host: str, client: bool = False) -> int:
            """Ask over HTTP/1, with one name in the handshake and another one behind it."""
            context = ssl.create_default_context(cafile=authority.ca)
            context.check_hostname = False
            context.set_alpn_protocols(["http/1.1"])
            if client:
                pair = authority.issue("client", "client.example")
                context.load_cert_chain(pair.chain, pair.key)
            with (
                socket.create_connection(("127.0.0.1", port), DEADLINE) as plain,
                context.wrap_socket(plain, server_hostname=name) as secure,
            ):
                secure.sendall(b"GET / HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % host.encode())
                return int(secure.makefile("rb").readline().split()[1])

        def all_of_them() -> list[int]:
            return [
                ask("open.example", "open.example"),
                ask("open.example", f"secure.example:{port}"),
                ask(None, "secure.example"),
                ask("other.example", "SECURE.example."),
                ask("secure.example", "secure.example", client=True),
                ask("secure.example", "open.example", client=True),
            ]

        self.assertEqual(await threaded(all_of_them), [200, 421, 421, 421, 200, 200])
        with self.assertRaises(ssl.SSLError):
            await threaded(ask, "secure.example", "secure.example")
