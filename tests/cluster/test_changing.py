"""Tests for L{reverseproxy.cluster.changing}."""

from __future__ import annotations

from random import Random
from typing import Any, ClassVar

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IResolutionReceiver
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from reverseproxy.cluster.building import add_hosts, host_maker, make_cluster
from reverseproxy.cluster.changing import ClusterChange
from reverseproxy.cluster.health.checks import HealthMonitor
from reverseproxy.cluster.host import Fault
from reverseproxy.cluster.names.strict_dns import StrictDns
from reverseproxy.errors import NoHealthyHost
from reverseproxy.interfaces import PickContext
from tests.cluster.fakes import FakeHost
from tests.cluster.test_building import Resolver, config_of

HOSTS = [{"address": "10.0.0.1:80"}, {"address": "10.0.0.2:80"}]


@implementer(IResolutionReceiver)
class Asking(Resolver):
    """Answers when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.pending: list[tuple[str, Any]] = []

    def resolveHostName(self, resolutionReceiver: Any, hostName: str, *args: Any, **more: Any) -> Any:
        self.pending.append((hostName, resolutionReceiver))

    def answer(self) -> None:
        pending, self.pending = self.pending, []
        for name, receiver in pending:
            receiver.addressResolved(IPv4Address("TCP", {"a": "10.1.1.1", "b": "10.1.1.2"}[name], 0))
            receiver.resolutionComplete()


class ChangingCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()
        self.resolver = Asking()
        self.reactor.nameResolver = self.resolver

    def make(self, **keys: Any) -> None:
        config = config_of(**keys)
        self.cluster = make_cluster(config, self.reactor, Random(1))
        makers = [(host, host_maker(config, host, self.reactor)) for host in config.hosts]
        self.static = add_hosts(self.cluster, makers, self.reactor, lambda: 0.5)
        self.cluster.start()
        self.resolver.answer()

    def change(self, **keys: Any) -> None:
        config = config_of(**keys)
        makers = [(host, host_maker(config, host, self.reactor)) for host in config.hosts]
        ClusterChange(self.cluster, self.static, config, makers, self.reactor, Random(1)).commit()

    def addresses(self) -> list[str]:
        return sorted(self.cluster.hosts)


class HostTests(ChangingCase):
    def test_the_same_stay(self) -> None:
        self.make(hosts=HOSTS)
        before = dict(self.cluster.hosts)
        self.change(hosts=HOSTS[::-1], lb_type="LB_LEAST_REQUEST")
        self.assertEqual(self.cluster.hosts, before)
        self.assertEqual(self.cluster.healthy, 2)
        found = [self.cluster.acquire() for _ in range(2)]
        self.assertEqual(set(found), set(before.values()))

    def test_come_and_gone(self) -> None:
        self.make(hosts=HOSTS)
        gone = self.cluster.hosts["10.0.0.1:80"]
        self.change(hosts=[HOSTS[1], {"address": "10.0.0.3:80"}])
        self.assertEqual(self.addresses(), ["10.0.0.2:80", "10.0.0.3:80"])
        self.assertTrue(gone.retired)

    def test_what_connections_are_made_with(self) -> None:
        """All hosts are others then, and the ones of agents begin new connections."""
        self.make(hosts=HOSTS)
        brought = FakeHost("agent")
        brought.is_reverse = True  # type: ignore[misc]
        self.cluster.add_host(brought)
        renewed: list[object] = []
        self.patch(FakeHost, "renew", lambda host: renewed.append(host))
        before = dict(self.cluster.hosts)
        self.change(hosts=HOSTS, idle_timeout="7s")
        self.assertIs(self.cluster.hosts["agent"], brought)
        for address in ("10.0.0.1:80", "10.0.0.2:80"):
            self.assertIsNot(self.cluster.hosts[address], before[address])
            self.assertTrue(before[address].retired)
        self.assertEqual(renewed, [brought])

    def test_who_waits_goes_on_waiting(self) -> None:
        self.make(hosts=HOSTS[:1])
        [host] = self.cluster.hosts.values()
        self.cluster.set_capacity(host, 1)
        self.assertIs(self.cluster.acquire(), host)
        waiter = self.cluster.wait(None, 5)
        self.assertNoResult(waiter)
        self.change(hosts=[{**HOSTS[0], "weight": 7}], lb_type="LB_RANDOM")
        found = self.successResultOf(waiter)
        self.assertIsNot(found, host)
        self.cluster.release(host)
        self.cluster.release(found)
        self.assertEqual(self.cluster.active, 0)

    def test_who_waits_for_a_limit(self) -> None:
        self.make(hosts=HOSTS[:1])
        [host] = self.cluster.hosts.values()
        self.cluster.set_capacity(host, 1)
        self.cluster.acquire()
        waiter = self.cluster.wait(None, 5)
        self.cluster.set_capacity(host, 2)
        self.assertIs(self.successResultOf(waiter), host)

    def test_none_is_left(self) -> None:
        self.make(hosts=HOSTS)
        self.change()
        self.assertEqual(self.addresses(), [])
        self.assertRaises(NoHealthyHost, self.cluster.acquire)

    def test_subsets(self) -> None:
        hosts = [
            {"address": f"10.0.0.{number}:80", "metadata": {"zone": zone}}
            for number, zone in ((1, "a"), (2, "b"))
        ]
        self.make(hosts=hosts)
        subsets = {"subset_selectors": [["zone"]]}
        before = dict(self.cluster.hosts)
        self.change(hosts=hosts, lb_subset_config=subsets)
        self.assertEqual(self.cluster.hosts, before)
        context = PickContext(metadata={"zone": "b"})
        host = self.cluster.acquire(context)
        self.assertIs(host, before["10.0.0.2:80"])


class HealthTests(ChangingCase):
    CHECK: ClassVar = {"protocol": "TCP", "service_name": "any", "timeout": "1s", "interval": "2s"}

    def test_other_checks(self) -> None:
        """What is known of a host holds until the new checks have found something else."""
        self.make(hosts=HOSTS, health_check=self.CHECK)
        host = self.cluster.hosts["10.0.0.1:80"]
        self.cluster.set_health(host, False, "", Fault.CHECK)
        monitor = self.cluster.find_task(HealthMonitor)
        self.change(hosts=HOSTS, health_check={**self.CHECK, "interval": "3s"})
        self.assertIs(self.cluster.hosts["10.0.0.1:80"], host)
        self.assertFalse(host.healthy)
        self.assertIsNot(self.cluster.find_task(HealthMonitor), monitor)
        assert host.health.check is not None
        self.assertFalse(host.health.check.state.healthy)

    def test_no_checks_any_more(self) -> None:
        self.make(hosts=HOSTS, health_check=self.CHECK)
        host = self.cluster.hosts["10.0.0.1:80"]
        self.cluster.set_health(host, False, "", Fault.CHECK)
        self.change(hosts=HOSTS)
        self.assertTrue(host.healthy)
        self.assertIsNone(host.health.check)

    def test_the_same_checks(self) -> None:
        """A host that takes the place of one that was ill is ill, too, until it has been looked at."""
        self.make(hosts=HOSTS, health_check=self.CHECK)
        self.cluster.set_health(self.cluster.hosts["10.0.0.1:80"], False, "", Fault.CHECK)
        self.change(hosts=[{**HOSTS[0], "weight": 7}, HOSTS[1]], health_check=self.CHECK)
        self.assertFalse(self.cluster.hosts["10.0.0.1:80"].healthy)

    def test_ejections_go_on(self) -> None:
        detection = {"consecutive_5xx": 1, "max_ejection_percent": 100}
        self.make(hosts=HOSTS, outlier_detection=detection)
        host = self.cluster.hosts["10.0.0.1:80"]
        self.cluster.ejector.rest(host, 5.0, "test")
        self.change(hosts=HOSTS, outlier_detection={**detection, "consecutive_5xx": 3})
        self.assertFalse(host.healthy)
        self.reactor.advance(31)
        self.assertTrue(host.healthy)


class NameTests(ChangingCase):
    DNS: ClassVar = {"type": "STRICT_DNS"}

    def test_the_same_names(self) -> None:
        """They are not looked up anew when something else changes."""
        self.make(**self.DNS, hosts=[{"address": "a:80"}])
        before = dict(self.cluster.hosts)
        task = self.cluster.find_task(StrictDns)
        self.change(**self.DNS, hosts=[{"address": "a:80"}], lb_type="LB_RANDOM")
        self.assertEqual(self.cluster.hosts, before)
        self.assertIs(self.cluster.find_task(StrictDns), task)

    def test_one_more_name(self) -> None:
        """What is known of the others stays while the new one is looked up, and after that."""
        self.make(**self.DNS, hosts=[{"address": "a:80"}])
        before = dict(self.cluster.hosts)
        self.change(**self.DNS, hosts=[{"address": "a:80"}, {"address": "b:80"}])
        self.assertEqual(self.cluster.hosts, before)
        self.resolver.answer()
        self.assertEqual(self.addresses(), ["10.1.1.1:80", "10.1.1.2:80"])
        self.assertIs(self.cluster.hosts["10.1.1.1:80"], before["10.1.1.1:80"])

    def test_a_name_that_is_gone(self) -> None:
        self.make(**self.DNS, hosts=[{"address": "a:80"}, {"address": "b:80"}])
        self.change(**self.DNS, hosts=[{"address": "b:80"}])
        self.assertEqual(self.addresses(), ["10.1.1.2:80"])

    def test_no_names_any_more(self) -> None:
        self.make(**self.DNS, hosts=[{"address": "a:80"}])
        self.change(hosts=HOSTS)
        self.assertEqual(self.addresses(), ["10.0.0.1:80", "10.0.0.2:80"])
        self.assertIsNone(self.cluster.find_task(StrictDns))

    def test_names_where_there_were_none(self) -> None:
        self.make(hosts=HOSTS)
        self.change(**self.DNS, hosts=[{"address": "a:80"}])
        self.resolver.answer()
        self.assertEqual(self.addresses(), ["10.1.1.1:80"])

    def test_an_address_that_is_named_in_its_own_right(self) -> None:
        """What is under way on a name's host at it is finished."""
        self.make(**self.DNS, hosts=[{"address": "a:80"}])
        before = self.cluster.hosts["10.1.1.1:80"]
        self.cluster.take(before)
        self.change(**self.DNS, hosts=[{"address": "a:80"}, {"address": "10.1.1.1:80"}])
        self.assertIsNot(self.cluster.hosts["10.1.1.1:80"], before)
        self.assertEqual((before.retired, before.closed), (True, False))
        self.cluster.release(before)

    def test_an_address_that_is_only_a_name_s_any_more(self) -> None:
        for more in ([], [{"address": "b:80"}]):
            self.setUp()
            self.make(**self.DNS, hosts=[{"address": "a:80"}, {"address": "10.1.1.1:80"}])
            self.change(**self.DNS, hosts=[{"address": "a:80"}, *more])
            self.resolver.answer()
            self.assertEqual(self.addresses()[:1], ["10.1.1.1:80"])
            self.assertEqual(len(self.addresses()), 1 + len(more))

    def test_what_is_known_of_a_name(self) -> None:
        """Another weight makes other hosts of the same addresses."""
        self.make(**self.DNS, hosts=[{"address": "a:80"}])
        before = self.cluster.hosts["10.1.1.1:80"]
        self.change(**self.DNS, hosts=[{"address": "a:80", "weight": 7}])
        self.assertEqual(self.cluster.hosts["10.1.1.1:80"].weight, 7)
        self.assertTrue(before.retired)
