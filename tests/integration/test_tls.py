"""TLS between agent and server: what is refused, and that the log says why."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from tests.integration.clients import connect_raw, fetch
from tests.integration.configs import quick_agent, server
from tests.integration.harness import JOINED, SERVING, IntegrationTestCase, certificates


def server_context(certificate: tuple[str, str], ca: str = "", **more: Any) -> dict[str, Any]:
    """A server's C{tls_context}; with C{ca}, clients must have a certificate."""
    context = {"status": True, "cert_chain": certificate[0], "private_key": certificate[1], **more}
    if ca:
        context |= {"ca_cert": ca, "verify_client": True, "require_client_cert": True}
    return context


def client_context(ca: str, certificate: tuple[str, str] | None = None, **more: Any) -> dict[str, Any]:
    """A client's C{tls_context}."""
    context = {"status": True, "ca_cert": ca, "server_name": "127.0.0.1", **more}
    if certificate:
        context |= {"cert_chain": certificate[0], "private_key": certificate[1]}
    return context


class TlsTests(IntegrationTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.ca = certificates(self.directory)
        self.certificate = self.ca.issue("127.0.0.1")

    async def start_server(self, context: dict[str, Any]) -> tuple[int, int]:
        """Start a server; the ports for agents and for clients."""
        self.cloud = self.run_proxy(server(tls=context), "server")
        return await self.cloud.port("tunnelListener"), await self.cloud.port("clientListener")

    async def assert_works(self, tunnel: int, client: int, context: dict[str, Any]) -> None:
        """An agent with this context is accepted and serves."""
        self.run_proxy(quick_agent(tunnel, tls=context), "good-agent")
        await self.cloud.counted(JOINED, 1)
        answer = await fetch(client)
        self.assertEqual((answer.status, answer.body), (200, b"answered by the agent"))

    async def assert_refused(self, tunnel: int, context: dict[str, Any], reason: str) -> None:
        """An agent with this context never serves, and its log says why."""
        edge = self.run_proxy(quick_agent(tunnel, tls=context), "bad-agent")
        first = await edge.logged(reason)
        # and again, so that it is clear that it goes on trying
        await edge.logged(reason, since=edge.lines.index(_line(edge.lines, first["message"])) + 1)
        self.assertEqual([e for e in edge.entries() if ": serving " in e["message"]], [])
        self.assertEqual([e for e in self.cloud.entries() if "clientCluster: host" in e["message"]], [])
        await edge.stop()

    async def test_tls(self) -> None:
        tunnel, client = await self.start_server(server_context(self.certificate))
        await self.assert_works(tunnel, client, client_context(self.ca.ca_file))

    async def test_wrong_authority(self) -> None:
        tunnel, client = await self.start_server(server_context(self.certificate))
        other = certificates(self.directory, "other")
        await self.assert_refused(
            tunnel, client_context(other.ca_file), "(?i)certificate verify failed|unable to get|self.signed"
        )
        await self.assert_works(tunnel, client, client_context(self.ca.ca_file))

    async def test_wrong_name(self) -> None:
        tunnel, client = await self.start_server(server_context(self.certificate))
        await self.assert_refused(
            tunnel, client_context(self.ca.ca_file, server_name="cloud.example.com"), "cloud.example.com"
        )
        await self.assert_works(tunnel, client, client_context(self.ca.ca_file))

    async def test_plain_agent_and_tls_server(self) -> None:
        tunnel, client = await self.start_server(server_context(self.certificate))
        edge = self.run_proxy(quick_agent(tunnel), "plain-agent")
        await edge.logged("(?i)clos|lost|frame")
        await self.cloud.logged("(?i)tls|ssl")
        await edge.stop()
        await self.assert_works(tunnel, client, client_context(self.ca.ca_file))

    async def test_tls_agent_and_plain_server(self) -> None:
        self.cloud = self.run_proxy(server(), "server")
        tunnel = await self.cloud.port("tunnelListener")
        edge = self.run_proxy(quick_agent(tunnel, tls=client_context(self.ca.ca_file)), "tls-agent")
        await edge.logged("(?i)tls|ssl|clos|lost")
        await self.cloud.logged("(?i)frame|magic")

    async def test_missing_client_certificate(self) -> None:
        tunnel, client = await self.start_server(server_context(self.certificate, self.ca.ca_file))
        await self.assert_refused(
            tunnel, client_context(self.ca.ca_file), "(?i)certificate required|alert|handshake failure"
        )
        await self.cloud.logged("(?i)did not return a certificate|certificate")
        agent = self.ca.issue("agent-1.example.com")
        await self.assert_works(tunnel, client, client_context(self.ca.ca_file, agent))

    async def test_client_certificate_of_another_authority(self) -> None:
        tunnel, client = await self.start_server(server_context(self.certificate, self.ca.ca_file))
        other = certificates(self.directory, "other").issue("agent-1.example.com")
        await self.assert_refused(tunnel, client_context(self.ca.ca_file, other), "(?i)unknown ca|alert")
        await self.cloud.logged("(?i)verify failed")
        agent = self.ca.issue("agent-1.example.com")
        await self.assert_works(tunnel, client, client_context(self.ca.ca_file, agent))

    async def test_tls_towards_clients(self) -> None:
        self.cloud = self.run_proxy(server(client_tls=server_context(self.certificate)), "server")
        self.run_proxy(quick_agent(await self.cloud.port("tunnelListener")), "agent")
        await self.cloud.counted(JOINED, 1)
        client = await self.cloud.port("clientListener")
        trusting = ssl.create_default_context(cafile=self.ca.ca_file)
        answer = await fetch(client, tls=trusting)
        self.assertEqual((answer.status, answer.body), (200, b"answered by the agent"))

    async def test_slow_tls_handshake_holds_up_nobody(self) -> None:
        tunnel, client = await self.start_server(server_context(self.certificate))
        for _ in range(20):
            peer = await connect_raw(self, tunnel)
            peer.transport.write(b"\x16\x03\x01")
        await self.assert_works(tunnel, client, client_context(self.ca.ca_file))

    async def test_renewed_certificate_is_used_without_a_restart(self) -> None:
        certificate = self.ca.issue("127.0.0.1", "renewed")
        self.cloud = self.run_proxy(server(client_tls=server_context(certificate)), "server")
        self.run_proxy(quick_agent(await self.cloud.port("tunnelListener")), "agent")
        await self.cloud.counted(JOINED, 1)
        client = await self.cloud.port("clientListener")
        trusting = ssl.create_default_context(cafile=self.ca.ca_file)
        self.assertEqual((await fetch(client, tls=trusting)).status, 200)
        other = certificates(self.directory, "other")
        fresh = other.issue("127.0.0.1", "renewed")
        self.assertEqual(fresh, certificate)
        mark = self.cloud.mark()
        self.cloud.signal("HUP")
        await self.cloud.logged("(?i)certificate", mark)
        answer = await fetch(client, tls=ssl.create_default_context(cafile=other.ca_file))
        self.assertEqual(answer.status, 200)

    async def test_unreadable_new_certificate_leaves_the_old_one_in_use(self) -> None:
        certificate = self.ca.issue("127.0.0.1", "renewed")
        self.expected_errors.append("(?i)certificate|pem")
        self.cloud = self.run_proxy(server(client_tls=server_context(certificate)), "server")
        self.run_proxy(quick_agent(await self.cloud.port("tunnelListener")), "agent")
        await self.cloud.counted(JOINED, 1)
        client = await self.cloud.port("clientListener")
        Path(certificate[0]).write_text("this is no certificate\n")
        mark = self.cloud.mark()
        self.cloud.signal("HUP")
        await self.cloud.logged("(?i)certificate", mark)
        answer = await fetch(client, tls=ssl.create_default_context(cafile=self.ca.ca_file))
        self.assertEqual(answer.status, 200)

    async def test_reverse_connections_survive_a_renewal(self) -> None:
        agent = self.ca.issue("agent-1.example.com", "agent")
        tunnel, client = await self.start_server(server_context(self.certificate, self.ca.ca_file))
        edge = self.run_proxy(quick_agent(tunnel, tls=client_context(self.ca.ca_file, agent)), "agent")
        await self.cloud.counted(JOINED, 1)
        self.ca.issue("agent-1.example.com", "agent")
        mark = edge.mark()
        edge.signal("HUP")
        await edge.logged("(?i)certificate", mark)
        self.assertEqual((await fetch(client)).status, 200)
        await edge.counted(SERVING, 1)


def _line(lines: list[str], message: str) -> str:
    return next(line for line in lines if message[:40] in line)
