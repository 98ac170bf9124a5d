"""Tests for L{reverseproxy.services.quickstart}."""

from __future__ import annotations

import io
import json
import socket
from importlib.resources import files
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.task import deferLater
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from reverseproxy.addresses import split_host_port
from reverseproxy.app import ReverseProxy
from reverseproxy.services import quickstart
from tests.streams import reactor
from tests.test_app import Got


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def put_ports(test: SynchronousTestCase, client: int, tunnel: int) -> None:
    """Give the quickstart other ports than its own for the time of a test."""
    document: dict[str, Any] = json.loads(
        (files("reverseproxy.services") / quickstart.FILE).read_text("utf-8")
    )
    for listener, port in zip(document["servers"][0]["listeners"], (client, tunnel, 2046), strict=True):
        listener["address"] = f"127.0.0.1:{port}"
    directory = Path(test.mktemp())
    directory.mkdir()
    (directory / quickstart.FILE).write_text(json.dumps(document))
    test.patch(quickstart, "files", lambda package: directory)


class LoadTests(SynchronousTestCase):
    def load(self) -> dict[str, str]:
        """Where each listener listens; the agent has to know where the tunnel's does."""
        loaded = quickstart.load()
        self.assertEqual(loaded.warnings, ())
        addresses = {listener.name: listener.address for listener in loaded.config.server.listeners}
        [agent] = loaded.config.agents
        self.assertEqual(agent.server_list, (addresses[quickstart.TUNNEL_LISTENER],))
        return addresses

    def test_it_loads_without_a_warning(self) -> None:
        self.load()

    def test_free_ports_are_kept(self) -> None:
        client, tunnel = free_port(), free_port()
        put_ports(self, client, tunnel)
        addresses = self.load()
        self.assertEqual(addresses[quickstart.CLIENT_LISTENER], f"127.0.0.1:{client}")
        self.assertEqual(addresses[quickstart.TUNNEL_LISTENER], f"127.0.0.1:{tunnel}")

    def test_others_take_the_place_of_ports_in_use(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
            taken = [each.getsockname()[1] for each in (one, two)]
            put_ports(self, taken[0], taken[1])
            addresses = self.load()
        for name in (quickstart.CLIENT_LISTENER, quickstart.TUNNEL_LISTENER):
            host, port = split_host_port(addresses[name])
            self.assertEqual(host, "127.0.0.1")
            self.assertNotIn(port, taken)
        # Nothing is bound for the hosting listener, whose address is a name.
        self.assertEqual(addresses["serverListener"], "127.0.0.1:2046")

    def test_an_address_of_another_machine_is_left_to_the_listener_to_complain_of(self) -> None:
        self.assertEqual(quickstart._free("192.0.2.1:2045"), "192.0.2.1:2045")


class AnnounceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = MemoryReactorClock()
        self.app = ReverseProxy(quickstart.load().config, self.clock, Random(1))
        self.app.listeners[quickstart.CLIENT_LISTENER].bound = "127.0.0.1:1234"
        self.stream = io.StringIO()
        quickstart.announce(self.app, self.clock, self.stream)

    def test_nothing_is_said_before_it_works(self) -> None:
        self.clock.pump([0.05] * 100)
        self.assertEqual(self.stream.getvalue(), "")

    def test_it_is_said_once(self) -> None:
        [cluster] = self.app.clusters
        cluster.hosts["10.0.0.1:1"] = None  # type: ignore[assignment]
        self.clock.pump([0.05] * 10)
        self.assertEqual(self.stream.getvalue().count("curl http://127.0.0.1:1234/"), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class RunningTests(TestCase):
    async def test_it_answers_through_the_tunnel(self) -> None:
        put_ports(self, 0, 0)
        app = ReverseProxy(quickstart.load().config, reactor, Random(1))
        self.addCleanup(app.stopService)
        app.privilegedStartService()
        app.startService()
        stream = io.StringIO()
        quickstart.announce(app, reactor, stream)
        while not stream.getvalue():
            await deferLater(reactor, 0.001)
        host, port = split_host_port(app.listeners[quickstart.CLIENT_LISTENER].bound or "")
        self.assertIn(f"curl http://{host}:{port}/", stream.getvalue())
        client = await connectProtocol(TCP4ClientEndpoint(reactor, host, port), Got())
        client.transport.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        await client.closed
        self.assertTrue(client.data.startswith(b"HTTP/1.1 200"), client.data)
        self.assertTrue(client.data.endswith(b"Hello from behind the tunnel.\n"), client.data)
