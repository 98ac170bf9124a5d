"""Tests for L{reverseproxy.cluster.names.strict_dns}."""

from __future__ import annotations

from random import Random

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IResolutionReceiver
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from reverseproxy.cluster.balancers.factory import make_balancer
from reverseproxy.cluster.manager import Cluster, IClusterTask
from reverseproxy.cluster.names.strict_dns import NamedHosts, StrictDns
from reverseproxy.config.models import ClusterConfig
from reverseproxy.errors import NoHealthyHost
from tests.cluster.fakes import FakeHost, Pool


class StrictDnsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.asked: dict[str, IResolutionReceiver] = {}
        self.made: list[str] = []
        self.stopped = 0
        self.make()

    def make(self, *entries: tuple[str, int], respect: bool = False) -> None:
        config = ClusterConfig(name="edge", type="STRICT_DNS", respect_dns_ttl=respect)
        self.cluster = Cluster(config, make_balancer(config, Random(1)), self.clock)
        self.task = StrictDns(
            self.cluster,
            [NamedHosts(name, port, self.make_host) for name, port in entries or (("x.example", 80),)],
            self.resolve,
            self.clock,
            lambda: 0.5,
            self.end,
        )
        self.cluster.add_task(self.task)

    def end(self) -> None:
        self.stopped += 1

    def make_host(self, address: str) -> FakeHost:
        self.made.append(address)
        return FakeHost(address)

    def resolve(self, receiver: IResolutionReceiver, name: str) -> None:
        self.asked[name] = receiver

    def answer(self, *ips: str, name: str = "x.example") -> set[str]:
        """
        Answer a lookup.

        @return: the addresses of the hosts then.
        """
        receiver = self.asked.pop(name)
        for ip in ips:
            receiver.addressResolved((IPv6Address if ":" in ip else IPv4Address)("TCP", ip, 0))
        receiver.resolutionComplete()
        return set(self.cluster.hosts)

    def test_interface(self) -> None:
        verifyObject(IClusterTask, self.task)

    def test_all_addresses(self) -> None:
        """Each address is a host."""
        self.cluster.start()
        self.assertEqual(
            self.answer("10.0.0.1", "10.0.0.2", "2001:db8::1"),
            {"10.0.0.1:80", "10.0.0.2:80", "[2001:db8::1]:80"},
        )

    def test_changes(self) -> None:
        """Hosts come and go with the answers; those that stay are left as they are."""
        self.cluster.start()
        self.answer("10.0.0.1", "10.0.0.2")
        one, two = (self.cluster.hosts[f"10.0.0.{n}:80"] for n in (1, 2))
        pool = two.pools["Http1"] = Pool()
        self.clock.advance(5)
        self.assertEqual(self.answer("10.0.0.3", "10.0.0.1"), {"10.0.0.1:80", "10.0.0.3:80"})
        self.assertIs(self.cluster.hosts["10.0.0.1:80"], one)
        self.assertEqual((two.retired, two.closed, pool.events), (True, False, ["drain"]))
        self.clock.advance(5)
        self.answer("10.0.0.1", "10.0.0.3")
        self.assertEqual(self.made, ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"])

    def test_failure(self) -> None:
        """When a lookup fails, the hosts stay."""
        self.cluster.start()
        self.answer("10.0.0.1")
        for _ in range(5):
            self.clock.advance(40)
            self.assertEqual(self.answer(), {"10.0.0.1:80"})

    def test_beginning(self) -> None:
        """Until the first answer requests wait; if there is none for long, they fail."""
        self.assertRaises(NoHealthyHost, self.cluster.acquire)
        self.cluster.start()
        self.assertIsNone(self.cluster.acquire())
        waiter = self.cluster.wait(None, 5.0)
        self.answer("10.0.0.1")
        self.assertIs(self.successResultOf(waiter), self.cluster.hosts["10.0.0.1:80"])
        self.make()
        self.cluster.start()
        self.clock.advance(10)
        self.assertRaises(NoHealthyHost, self.cluster.acquire)

    def test_several_names(self) -> None:
        """Names have ports and hosts of their own; an address in common is one host."""
        self.make(("x.example", 80), ("y.example", 80), ("x.example", 81))
        self.cluster.start()
        self.assertEqual(set(self.asked), {"x.example", "y.example"})
        self.assertEqual(self.answer("10.0.0.1"), {"10.0.0.1:80", "10.0.0.1:81"})
        self.assertEqual(len(self.answer("10.0.0.1", "10.0.0.2", name="y.example")), 3)
        self.clock.advance(5)
        self.assertEqual(
            self.answer("10.0.0.9"), {"10.0.0.9:80", "10.0.0.9:81", "10.0.0.1:80", "10.0.0.2:80"}
        )

    def test_others_stay(self) -> None:
        """Hosts that came in another way are none of its business."""
        mine = FakeHost("10.0.0.1:80")
        self.cluster.add_host(mine)
        self.cluster.start()
        self.answer("10.0.0.1", "10.0.0.2")
        self.assertIs(self.cluster.hosts["10.0.0.1:80"], mine)
        self.clock.advance(5)
        self.assertEqual(self.answer("10.0.0.3"), {"10.0.0.1:80", "10.0.0.3:80"})

    def test_lifetimes(self) -> None:
        """The next lookup may be when the addresses expire."""
        self.make(respect=True)
        self.cluster.start()
        receiver = self.asked["x.example"]
        receiver.lifetime(100.0)  # type: ignore[attr-defined]
        self.answer("10.0.0.1")
        self.clock.advance(100)
        self.assertEqual(self.asked, {})
        self.clock.advance(1)
        self.assertEqual(list(self.asked), ["x.example"])

    def test_stop(self) -> None:
        """When it is stopped the hosts stay, and nothing is looked up; it may begin anew."""
        self.cluster.start()
        self.answer("10.0.0.1")
        self.cluster.stop()
        self.assertEqual(set(self.cluster.hosts), {"10.0.0.1:80"})
        self.assertEqual((self.clock.getDelayedCalls(), self.stopped), ([], 1))
        self.cluster.start()
        self.assertEqual(self.answer("10.0.0.2"), {"10.0.0.2:80"})
        self.cluster.close("test")
        self.assertEqual((self.clock.getDelayedCalls(), self.stopped), ([], 2))
