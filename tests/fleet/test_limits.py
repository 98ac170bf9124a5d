"""Time limits, retries, cancels and reloads, where the agent is at another server."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.config.loader import loads
from reverseproxy.testing import Recorder
from tests.fleet.worlds import FleetWorld, get

SERVICE = 7000


class Services(Factory):
    """
    Services that answer when they are told to, or never.

    @ivar asked: what each of them has been asked, by its port.
    @ivar lost: how many connections have ended, by port.
    @ivar answers: which ports answer at once, and with what status.
    """

    noisy = False

    def __init__(self, world: FleetWorld, *ports: int) -> None:
        self.asked: dict[int, list[bytes]] = {port: [] for port in ports}
        self.lost = dict.fromkeys(ports, 0)
        self.answers: dict[int, bytes] = {}
        for port in ports:
            world.reactor.listenTCP(port, _Port(self, port), interface="127.0.0.1")


class _Port(Factory):
    noisy = False

    def __init__(self, services: Services, port: int) -> None:
        self.services, self.port = services, port

    def buildProtocol(self, addr: object) -> Any:
        return _Service(self.services, self.port)


class _Service(Protocol):
    transport: Any

    def __init__(self, services: Services, port: int) -> None:
        self.services, self.port = services, port

    def dataReceived(self, data: bytes) -> None:
        self.services.asked[self.port].append(data)
        status = self.services.answers.get(self.port)
        if status is not None:
            self.transport.write(b"HTTP/1.1 " + status + b" X\r\nContent-Length: 4\r\n\r\n%d" % self.port)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.services.lost[self.port] += 1


class LimitTests(SynchronousTestCase):
    """Clients come to server b, or to b and c; agents are at server a."""

    def begin(
        self,
        *plain: bool,
        servers: str = "ab",
        places: tuple[int, ...] = (),
        cluster: dict[str, Any] | None = None,
        **route: Any,
    ) -> None:
        """
        @param plain: of each agent, whether its connections carry one request at a time.
        @param places: which server each of them is connected to.
        """
        self.world = FleetWorld()
        self.addCleanup(self.world.stop)
        self.services = Services(self.world, *(SERVICE + number for number in range(len(plain))))

        def change(document: dict[str, Any]) -> dict[str, Any]:
            [rule] = document["servers"][0]["routers"][0]["virtual_hosts"][0]["routers"]
            rule["route"] |= route
            return document

        for name in servers:
            self.world.server(name, change=change, cluster={"lb_type": "LB_ROUNDROBIN", **(cluster or {})})
        for number, each in enumerate(plain):
            self.world.agent(
                places[number] if places else 0,
                answer=f"agent {number}",
                backend=f"127.0.0.1:{SERVICE + number}",
                plain=each,
            )
        self.world.pass_time(0.5)

    def total(self) -> int:
        """How many requests have come to services."""
        return sum(map(len, self.services.asked.values()))

    def in_flight(self) -> list[int]:
        """What each server has under way with others."""
        return [
            sum(each["in_flight"] for each in self.world.fleet(name).peers()) for name in self.world.servers
        ]

    def until(self, look: Callable[[], Any], seconds: float = 10.0) -> float:
        """Let time pass until something is so; how long that took."""
        began = self.world.reactor.seconds()
        while not look():
            self.world.pass_time(0.05)
            self.assertLess(self.world.reactor.seconds() - began, seconds)
        return self.world.reactor.seconds() - began

    def test_timeout_of_the_route(self) -> None:
        """The server that routes says how long it may take; the agent's server ends it then."""
        for plain in (False, True):
            self.begin(plain, timeout="2s")
            client = self.world.client(1)
            client.transport.write(get())
            took = self.until(lambda client=client: client.data)
            self.assertEqual(client.data[9:12], b"504")
            self.assertApproximates(took, 2.0, 0.2)
            self.world.pass_time(0.5)
            self.assertEqual(self.services.lost[SERVICE], 1)
            self.assertEqual(self.in_flight(), [0, 0])

    def test_timeout_of_a_try(self) -> None:
        """Another agent of the same server, or of another one, gets it then; each of them once."""
        for places in ((0, 0), (0, 2)):
            self.begin(
                False,
                True,
                servers="abc",
                places=places,
                retry_policy={"retry_on": True, "num_retries": 3, "retry_timeout": "1s"},
            )
            self.services.answers[SERVICE + 1] = b"200"
            for _ in range(2):
                client = self.world.client(1)
                client.transport.write(get())
                self.until(lambda client=client: client.data)
                self.assertIn(b"7001", client.data)
            self.assertLessEqual(len(self.services.asked[SERVICE]), 2)
            self.assertEqual(len(self.services.asked[SERVICE + 1]), 2)

    def test_a_retry_by_status(self) -> None:
        self.begin(False, False, retry_policy={"retry_on": True, "num_retries": 2, "status_codes": [500]})
        self.services.answers |= {SERVICE: b"500", SERVICE + 1: b"200"}
        for _ in range(4):
            client = self.world.client(1)
            client.transport.write(get())
            self.until(lambda client=client: client.data)
            self.assertIn(b"7001", client.data)

    def test_a_client_that_leaves(self) -> None:
        """The service hears of it, and nothing stays under way anywhere."""
        for plain in (False, True):
            self.begin(plain)
            client = self.world.client(1)
            client.transport.write(get())
            self.until(lambda: self.total() == 1)
            client.transport.abortConnection()
            self.until(lambda: self.services.lost[SERVICE] == 1, 2.0)
            self.world.pass_time(0.5)
            self.assertEqual(self.in_flight(), [0, 0])
            hosts = self.world.servers["a"].clusters.get("clientCluster").hosts
            # A connection that carries one request at a time is let go of as it is for a client of its own.
            self.until(lambda hosts=hosts: [host.active for host in hosts.values()] == [0])

    def test_the_link_dies(self) -> None:
        """What may be repeated goes to an agent elsewhere; nothing else is sent twice."""
        for method, status in (("GET", b"200"), ("POST", b"502")):
            self.begin(False, False, servers="abc", places=(0, 2))
            self.services.answers[SERVICE + 1] = b"200"
            client = self.world.client(1)
            for _ in range(4):
                client.transport.write(get(method=method, body=b"" if method == "GET" else b"x"))
                self.world.pass_time(0.2)
                if self.services.asked[SERVICE]:
                    break
            self.assertEqual(len(self.services.asked[SERVICE]), 1)
            before = client.data
            asked = self.total()
            link = self.world.fleet("b").links.get("a")
            assert link is not None
            assert link.session is not None
            link.session.abort("a test")
            self.until(lambda client=client, before=before: client.data != before)
            self.assertEqual(client.data[len(before) + 9 : len(before) + 12], status, client.data)
            self.assertEqual(self.total() - asked, method == "GET")

    def test_nothing_goes_round(self) -> None:
        """No server of three has a free agent any more: each request waits or fails where it came in."""
        self.begin(True, True, servers="abc", places=(0, 1), timeout="3s", cluster={"connect_timeout": "1s"})
        clients = [self.world.client(number % 3) for number in range(12)]
        for client in clients:
            client.transport.write(get())
        self.world.pass_time(6)
        self.assertEqual([client.data[9:10] for client in clients], [b"5"] * 12)
        for each in self.services.asked.values():
            self.assertLessEqual(len(each), 6)
        self.assertEqual(self.in_flight(), [0, 0, 0])

    def test_reload_at_either_end(self) -> None:
        """What is under way is finished, and what comes after that goes by the new configuration."""
        self.begin(False)
        for name in "ab":
            client = self.world.client(1)
            client.transport.write(get())
            self.until(lambda: self.total() > 0)
            document = json.loads(json.dumps(self.world.documents[name]))
            [rule] = document["servers"][0]["routers"][0]["virtual_hosts"][0]["routers"]
            rule["route"]["timeout"] = "1s"
            self.world.servers[name].living.take(loads(json.dumps(document), name), 2)
            self.world.pass_time(3)
            self.assertEqual(client.data, b"")
            client.transport.abortConnection()
            self.world.pass_time(0.5)
            self.services.asked[SERVICE].clear()
        client = self.world.client(1)
        client.transport.write(get())
        self.assertApproximates(self.until(lambda: client.data), 1.0, 0.2)
        self.assertEqual(client.data[9:12], b"504")

    def test_the_server_that_routes_drains(self) -> None:
        """What it has forwarded is finished before it ends."""
        self.begin(False)
        client: Recorder = self.world.client(1)
        client.transport.write(get())
        self.until(lambda: self.total() == 1)
        stopped = self.world.servers["b"].stopService()
        self.world.pass_time(3)
        self.assertEqual((client.data, self.in_flight()[0]), (b"", 1))
        client.transport.abortConnection()
        self.world.pass_time(3)
        self.successResultOf(stopped)
        self.assertEqual(self.in_flight()[0], 0)
