"""Tests for L{reverseproxy.cluster.building}."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IHostnameResolver, IResolutionReceiver
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from reverseproxy.cluster.balancers.factory import PeakEwmaBalancer, SubsetBalancer
from reverseproxy.cluster.building import add_hosts, host_maker, make_cluster
from reverseproxy.cluster.health.checks import HealthMonitor
from reverseproxy.cluster.health.http_probes import HttpChecker
from reverseproxy.cluster.health.outcome import Outcome
from reverseproxy.cluster.health.probes import TcpChecker
from reverseproxy.cluster.manager import Cluster
from reverseproxy.cluster.names.strict_dns import StrictDns
from reverseproxy.config.models import ClusterConfig
from reverseproxy.errors import ConfigError
from reverseproxy.problems import PART
from tests.cluster.fakes import FakeHost, Users


def config_of(**keys: Any) -> ClusterConfig:
    return ClusterConfig.model_validate({"name": "edge", **keys})


@implementer(IHostnameResolver)
class Resolver:
    """Knows all names at once."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[type[IAddress]]]] = []

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> Any:
        self.asked.append((hostName, list(addressTypes or ())))
        resolutionReceiver.addressResolved(IPv4Address("TCP", "10.9.9.9", 0))
        resolutionReceiver.resolutionComplete()


class BuildingCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()
        self.resolver = Resolver()
        self.reactor.nameResolver = self.resolver  # older ones in memory have no method for that

    def make(self, **keys: Any) -> Cluster:
        cluster = make_cluster(config_of(**keys), self.reactor, Random(1))
        config = cluster.config
        hosts = [(host, host_maker(config, host, self.reactor)) for host in config.hosts]
        add_hosts(cluster, hosts, self.reactor, lambda: 0.5)
        return cluster


class MakeTests(BuildingCase):
    def test_plain(self) -> None:
        """Without anything special nothing runs beside the cluster."""
        cluster = self.make(hosts=[{"address": "10.0.0.1:80"}, {"address": "unix:/x"}])
        self.assertEqual(set(cluster.hosts), {"10.0.0.1:80", "unix:/x"})
        cluster.start()
        self.assertEqual((list(cluster.members.tasks), self.reactor.getDelayedCalls()), ([], []))

    def test_balancer(self) -> None:
        """What is reported reaches the balancer."""
        cluster = self.make(lb_type="LB_PEAK_EWMA")
        self.assertIsInstance(cluster.members.balancer, PeakEwmaBalancer)
        self.assertTrue(cluster.watches_answers)
        one, two = FakeHost("a"), FakeHost("b")
        for host in (one, two):
            cluster.add_host(host)
        cluster.report(one, Outcome.SUCCESS, 0.5)
        cluster.report(two, Outcome.SUCCESS, 0.1)
        self.assertEqual({cluster.members.balancer.pick(None) for _ in range(9)}, {two})

    def test_subsets(self) -> None:
        cluster = self.make(lb_subset_config={"subset_selectors": (("zone",),)})
        self.assertIsInstance(cluster.subsets, SubsetBalancer)
        self.assertIsNone(self.make().subsets)

    def test_health_check(self) -> None:
        """Hosts are checked if the configuration says so, from the start on."""
        for protocol, kind in (("TCP", TcpChecker), ("Http1", HttpChecker)):
            cluster = self.make(
                hosts=[{"address": "10.0.0.1:80"}],
                health_check={"protocol": protocol, "service_name": "any"},
            )
            (task,) = cluster.members.tasks
            assert isinstance(task, HealthMonitor)
            self.assertIsInstance(task._checker, kind)
            self.assertEqual(self.reactor.getDelayedCalls(), [])
            cluster.start()
            self.reactor.advance(1)
            self.assertEqual(self.reactor.tcpClients.pop()[:2], ("10.0.0.1", 80))
            cluster.stop()

    def test_other_checkers(self) -> None:
        """Rooms above may know more protocols."""
        special = TcpChecker()
        config = config_of(health_check={"protocol": "bolt", "service_name": "any"})
        cluster = make_cluster(config, self.reactor, Random(1), {"bolt": lambda _: special})
        (task,) = cluster.members.tasks
        assert isinstance(task, HealthMonitor)
        self.assertIs(task._checker, special)


class HostMakerTests(BuildingCase):
    def dialled(self, check: bool, address: str = "10.0.0.1:80", **keys: Any) -> tuple[str, int]:
        """Where a host is dialled, for requests or for its health."""
        config = config_of(hosts=[{"address": address, "weight": 3}], **keys)
        host = host_maker(config, config.hosts[0], self.reactor)(address)
        self.assertEqual((host.address, host.weight), (address, 3))
        (host.connect_check if check else host.connect)(Users()).addErrback(lambda _: None)
        where: tuple[str, int] = self.reactor.tcpClients.pop()[:2]
        return where

    def test_same_port(self) -> None:
        """Health checks go where requests go."""
        health = {"protocol": "Http1", "service_name": "any"}
        for check in (False, True):
            self.assertEqual(self.dialled(check), ("10.0.0.1", 80))
            self.assertEqual(self.dialled(check, health_check=health), ("10.0.0.1", 80))

    def test_other_port(self) -> None:
        """Or to a port of their own."""
        health = {
            "protocol": "Http1",
            "service_name": "any",
            "check_config": {"http_check_config": {"port": 81}},
        }
        self.assertEqual(self.dialled(True, health_check=health), ("10.0.0.1", 81))
        self.assertEqual(self.dialled(False, health_check=health), ("10.0.0.1", 80))
        self.assertEqual(self.dialled(True, "[::1]:80", health_check=health), ("::1", 81))
        self.assertEqual(self.dialled(True, health_check={**health, "protocol": "TCP"}), ("10.0.0.1", 80))

    def test_socket(self) -> None:
        """A socket of the file system has no other port."""
        config = config_of(
            hosts=[{"address": "unix:/x"}],
            health_check={
                "protocol": "Http1",
                "service_name": "any",
                "check_config": {"http_check_config": {"port": 81}},
            },
        )
        host = host_maker(config, config.hosts[0], self.reactor)("unix:/x")
        host.connect_check(Users()).addErrback(lambda _: None)
        self.assertEqual([client[0] for client in self.reactor.unixClients], ["/x"])


class NameTests(BuildingCase):
    HOSTS = ({"address": "x.example:80"}, {"address": "10.0.0.1:81"}, {"address": "[::1]:82"})

    def test_other_types(self) -> None:
        """Names are dialled as they are, where nobody wants all their addresses."""
        cluster = self.make(hosts=self.HOSTS)
        self.assertEqual(set(cluster.hosts), {"x.example:80", "10.0.0.1:81", "[::1]:82"})

    def test_system(self) -> None:
        """The system's resolver is asked for one kind of address; what is an address already stays."""
        for family, kind in (("V4_ONLY", IPv4Address), ("V6_ONLY", IPv6Address)):
            cluster = self.make(type="STRICT_DNS", hosts=self.HOSTS, dns_lookup_family=family)
            self.assertEqual(set(cluster.hosts), {"10.0.0.1:81", "[::1]:82"})
            cluster.start()
            self.assertEqual(self.resolver.asked.pop(), ("x.example", [kind]))
            self.assertEqual(set(cluster.hosts), {"10.9.9.9:80", "10.0.0.1:81", "[::1]:82"})
            cluster.stop()

    def test_no_names(self) -> None:
        """Where there is no name, nobody is asked."""
        cluster = self.make(type="STRICT_DNS", hosts=self.HOSTS[1:])
        self.assertEqual(list(cluster.members.tasks), [])

    def test_servers(self) -> None:
        """Name servers that are given are asked instead."""
        asked: list[Any] = []

        def listen(port: int, protocol: Any, interface: str = "") -> Any:
            asked.append(interface)
            raise OSError("no socket today")

        self.reactor.listenUDP = listen
        cluster = self.make(type="STRICT_DNS", hosts=self.HOSTS, dns_resolvers={"servers": ("10.0.0.53",)})
        (task,) = cluster.members.tasks
        self.assertIsInstance(task, StrictDns)
        cluster.start()
        self.assertEqual((self.resolver.asked, asked), ([], ["", ""]))
        cluster.stop()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_no_servers(self) -> None:
        """A file of servers must be there."""
        error = self.assertRaises(
            ConfigError, self.make, type="STRICT_DNS", hosts=self.HOSTS, dns_resolver_file=self.mktemp()
        )
        self.assertEqual([problem.place for problem in error.problems], [PART / "dns_resolver_file"])
