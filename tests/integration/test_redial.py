"""
Plain TCP sessions use up a reverse connection each: how soon an agent has dialled another one.

The agents here wait up to a minute after a failure, so that a test would notice
if they took a session for one.
"""

from __future__ import annotations

from typing import Any

from tests.integration.clients import RawPeer, connect_raw, listen_raw, response_frame
from tests.integration.configs import quick_agent, server
from tests.integration.harness import JOINED, LEFT, IntegrationTestCase, ReverseProxy, certificates
from tests.integration.test_tcp import Counter, Echo, Greeter
from tests.integration.test_tls import client_context, server_context

SESSIONS = 12
"""One after the other, over two connections."""

LOST = r"connection lost after .*; next attempt in ([0-9.]+) s"
"""What an agent logs when it needs a new connection."""

AT_ONCE = "next attempt in 0.00 s"

UNUSED = "the server has closed it, and had sent nothing"


class _Sessions(IntegrationTestCase):
    """
    Sessions of every kind.

    @cvar options: of the command line, for both ends.
    @cvar secure: whether there is TLS between them.
    """

    options: tuple[str, ...] = ()
    secure = False

    async def start(self, backend: Any) -> int:
        """Start server and agent; the port for clients."""
        listening = await listen_raw(self, backend)
        server_tls: dict[str, Any] | None = None
        agent_tls: dict[str, Any] | None = None
        if self.secure:
            authority = certificates(self.directory)
            server_tls = server_context(authority.issue("127.0.0.1"))
            agent_tls = client_context(authority.ca_file)
        self.cloud = self.run_proxy(server(kind="tcp", tls=server_tls), "server", *self.options)
        tunnel = await self.cloud.port("tunnelListener")
        self.edge = self.run_proxy(
            quick_agent(
                tunnel,
                f"127.0.0.1:{listening.port}",
                kind="tcp",
                connections=2,
                mux=False,
                reconnect_base_duration="60s",
                tls=agent_tls,
            ),
            "agent",
            *self.options,
        )
        await self.cloud.counted(JOINED, 2)
        return await self.cloud.port("clientListener")

    async def check(self, used: bool = True) -> None:
        """
        Every connection that was used up was replaced at once.

        @param used: whether the server has sent something on it.
        """
        await self.edge.counted(LOST, SESSIONS)
        lost = [entry["message"] for entry in self.edge.entries() if "connection lost" in entry["message"]]
        self.assertEqual([line for line in lost if AT_ONCE not in line], [])
        self.assertEqual([line for line in lost if (UNUSED in line) is used], [])

    async def test_the_client_speaks_first(self) -> None:
        port = await self.start(Echo)
        for _ in range(SESSIONS):
            peer = await connect_raw(self, port)
            peer.transport.write(b"hello")
            await peer.contains(b"hello")
            peer.transport.loseConnection()
        await self.check()

    async def test_the_client_sends_much(self) -> None:
        port = await self.start(Counter)
        for _ in range(SESSIONS):
            peer = await connect_raw(self, port)
            peer.transport.write(b"x" * 1_000_000)
            peer.transport.loseWriteConnection()
            self.assertEqual(await peer.closed(), b"1000000 bytes")
        await self.check()

    async def test_the_service_speaks_first_and_the_client_never(self) -> None:
        port = await self.start(Greeter)
        for _ in range(SESSIONS):
            peer = await connect_raw(self, port)
            await peer.contains(b"welcome")
            peer.transport.loseConnection()
        await self.check(used=False)

    async def test_the_client_leaves_without_a_byte(self) -> None:
        port = await self.start(Echo)
        for number in range(SESSIONS):
            peer = await connect_raw(self, port)
            peer.transport.loseConnection()
            await self.cloud.counted(LEFT, number + 1)
        await self.check(used=False)


class OwnTests(_Sessions):
    pass


class StockTests(_Sessions):
    options = ("--transport", "stock")


class SecureTests(_Sessions):
    secure = True


class WorkersTests(_Sessions):
    options = ("--workers", "2")


class MosnTests(IntegrationTestCase):
    """A server like MOSN's, in the hands of the test."""

    async def start(self) -> tuple[Any, ReverseProxy]:
        backend = await listen_raw(self, Echo)
        tunnel = await listen_raw(self)
        edge = self.run_proxy(
            quick_agent(tunnel.port, f"127.0.0.1:{backend.port}", kind="tcp", reconnect_base_duration="60s"),
            "agent",
        )
        return tunnel, edge

    async def accept(self, tunnel: Any, behind: bytes = b"") -> RawPeer:
        peer: RawPeer = await tunnel.next()
        await peer.frame()
        peer.transport.write(response_frame(1) + behind)
        return peer

    async def test_one_that_closes_right_after_its_answer(self) -> None:
        """There is nobody whom that could have served: the agent backs off."""
        tunnel, edge = await self.start()
        peer = await self.accept(tunnel)
        peer.transport.loseConnection()
        lost = await edge.logged(LOST)
        self.assertNotIn(AT_ONCE, lost["message"])
        self.assertIn(UNUSED, lost["message"])

    async def test_one_that_sends_the_first_bytes_with_its_answer(self) -> None:
        tunnel, edge = await self.start()
        for _ in range(SESSIONS):
            peer = await self.accept(tunnel, b"hello")
            await peer.contains(b"hello")
            peer.transport.loseConnection()
        await edge.counted(LOST, SESSIONS)
        lost = [entry["message"] for entry in edge.entries() if "connection lost" in entry["message"]]
        self.assertEqual([line for line in lost if AT_ONCE not in line or UNUSED in line], [])


del _Sessions
