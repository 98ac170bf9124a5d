"""What clusters do beyond keeping hosts, in real processes: health, subsets, keys, names."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as real_reactor
from twisted.internet.defer import Deferred, succeed
from twisted.names import dns
from twisted.names.common import ResolverBase
from twisted.names.server import DNSServerFactory

from tests.integration.clients import fetch, gather
from tests.integration.configs import quick_agent, server
from tests.integration.harness import JOINED, IntegrationTestCase, ReverseProxy

UNHEALTHY = r"^cluster \w+: host .* is unhealthy"
HEALTHY = r"^cluster \w+: host .* is healthy"


def sick_agent(port: int, **more: Any) -> dict[str, Any]:
    """An agent that is well connected, but says that it is not well."""
    document = quick_agent(port, answer="from the sick one", **more)
    rules = document["servers"][0]["routers"][0]["virtual_hosts"][0]["routers"]
    rules.insert(0, {"match": {"path": "/health"}, "direct_response": {"status": 503}})
    return document


def static(hosts: list[str], **cluster: Any) -> dict[str, Any]:
    """A proxy before hosts that it dials."""
    entries = [{"address": address} for address in hosts]
    return server(cluster={"hosts": entries, "lb_type": "LB_ROUNDROBIN", **cluster})


class ClusterTests(IntegrationTestCase):
    async def bodies(self, cloud: ReverseProxy, count: int = 8, **headers: str) -> set[bytes]:
        """What different answers a few requests get."""
        port = await cloud.port("clientListener")
        answers = await gather(fetch(port, headers=headers) for _ in range(count))
        self.assertEqual({answer.status for answer in answers}, {200})
        return {answer.body for answer in answers}

    async def test_agents_that_are_not_well(self) -> None:
        """They are asked over their own connections, and get no requests."""
        check = {
            "protocol": "Http1",
            "service_name": "any",
            "interval": "200ms",
            "initial_delay_seconds": "100ms",
            "check_config": {"http_check_config": {"path": "/health"}},
        }
        cloud = self.run_proxy(server(cluster={"health_check": check}), "server")
        tunnel = await cloud.port("tunnelListener")
        self.run_proxy(sick_agent(tunnel, connections=2), "sick")
        await cloud.counted(UNHEALTHY, 2)
        self.run_proxy(quick_agent(tunnel, answer="from the good one", connections=2), "good")
        await cloud.counted(JOINED, 4)
        for _ in range(5):
            self.assertEqual(await self.bodies(cloud), {b"from the good one"})

    async def test_hosts_that_can_not_be_dialled(self) -> None:
        """They get no requests, and are healthy as soon as they can be."""
        backend = await self.run_backend()
        port = self.reserve_port()
        check = {
            "protocol": "TCP",
            "service_name": "any",
            "interval": "100ms",
            "initial_delay_seconds": "100ms",
        }
        hosts = [backend.address, f"127.0.0.1:{port}"]
        front = self.run_proxy(static(hosts, health_check=check), "front")
        await front.logged(UNHEALTHY)
        self.assertEqual(await self.bodies(front), {b"backend backend"})
        behind = static([backend.address])
        behind["servers"][0]["listeners"][0]["address"] = f"127.0.0.1:{port}"
        self.run_proxy(behind, "behind")
        await front.logged(HEALTHY)
        self.assertEqual(await self.bodies(front), {b"backend backend"})

    async def test_hosts_that_fail(self) -> None:
        """Without checks, hosts that can't be reached are left out after a few requests, and none is lost."""
        backend = await self.run_backend()
        front = self.run_proxy(static([backend.address, f"127.0.0.1:{self.reserve_port()}"]), "front")
        for _ in range(10):
            self.assertEqual(await self.bodies(front, 2), {b"backend backend"})
        await front.logged(r"is unhealthy: left out for 30 s: 5 connects in a row have failed")
        self.assertEqual(await self.bodies(front), {b"backend backend"})

    async def test_subsets(self) -> None:
        """A route may ask for agents with certain labels."""
        document = server(
            cluster={"lb_subset_config": {"fall_back_policy": 0, "subset_selectors": [["zone"]]}}
        )
        rules = document["servers"][0]["routers"][0]["virtual_hosts"][0]["routers"]
        labels = {"filter_metadata": {"mosn.lb": {"zone": "b"}}}
        rules[0]["route"]["metadata_match"] = labels
        cloud = self.run_proxy(document, "server")
        tunnel = await cloud.port("tunnelListener")
        for zone in ("a", "b", "c"):
            config = quick_agent(tunnel, answer=zone, connections=2, metadata={"zone": zone})
            self.run_proxy(config, f"agent-{zone}")
        await cloud.counted(JOINED, 6)
        for _ in range(3):
            self.assertEqual(await self.bodies(cloud), {b"b"})

    async def test_keys(self) -> None:
        """A route may say by what requests belong together."""
        document = server(cluster={"lb_type": "LB_MAGLEV"})
        rules = document["servers"][0]["routers"][0]["virtual_hosts"][0]["routers"]
        rules[0]["route"]["hash_policy"] = [{"header": {"key": "x-user"}}]
        cloud = self.run_proxy(document, "server")
        tunnel = await cloud.port("tunnelListener")
        for name in ("a", "b", "c"):
            self.run_proxy(quick_agent(tunnel, answer=name, connections=1), f"agent-{name}")
        await cloud.counted(JOINED, 3)
        port = await cloud.port("clientListener")
        found = set()
        for user in range(60):
            bodies = set()
            for _ in range(2):
                answer = await fetch(port, headers={"x-user": f"user {user}"})
                bodies.add(answer.body)
            self.assertEqual(len(bodies), 1)
            found |= bodies
        self.assertEqual(found, {b"a", b"b", b"c"})


class _Zone(ResolverBase):
    """A name server that knows one name."""

    addresses: tuple[str, ...] = ("127.0.0.1",)

    def _lookup(self, name: bytes, cls: int, kind: int, timeout: Any) -> Deferred[Any]:
        records = [
            dns.RRHeader(name, dns.A, ttl=0, payload=dns.Record_A(address)) for address in self.addresses
        ]
        return succeed((records, [], []))


class NameTests(IntegrationTestCase):
    async def test_addresses_that_change(self) -> None:
        """Hosts come and go with what the name server says."""
        zone = _Zone()
        factory = DNSServerFactory(clients=[zone])
        factory.noisy = False
        reactor: Any = real_reactor
        udp = reactor.listenUDP(0, dns.DNSDatagramProtocol(factory), interface="127.0.0.1")
        self.addCleanup(udp.stopListening)
        backend = await self.run_backend()
        port = backend.address.rpartition(":")[2]
        front = self.run_proxy(
            static(
                [f"service.example:{port}"],
                type="STRICT_DNS",
                dns_refresh_rate="100ms",
                dns_resolvers={"servers": ["127.0.0.1"], "port": str(udp.getHost().port)},
            ),
            "front",
        )
        answer = await fetch(await front.port("clientListener"))
        self.assertEqual((answer.status, answer.body), (200, b"backend backend"))
        zone.addresses = ("127.0.0.2", "127.0.0.3")
        for number in (2, 3):
            await front.logged(rf"host 127\.0\.0\.{number}:{port} .*joined")
        await front.logged(rf"host 127\.0\.0\.1:{port} .*left")
        zone.addresses = ()
        await front.logged("2 known addresses stay in use")
        zone.addresses = ("127.0.0.1",)
        await front.logged(rf"host 127\.0\.0\.3:{port} .*left")
        answer = await fetch(await front.port("clientListener"))
        self.assertEqual((answer.status, answer.body), (200, b"backend backend"))
