"""Tests for L{reverseproxy.tunnel.agent.srv_lister}."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.names import dns
from twisted.names.common import ResolverBase
from twisted.names.server import DNSServerFactory
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from reverseproxy.interfaces import IServerLister, IServerListerPlugin
from reverseproxy.tunnel.agent import srv_lister
from reverseproxy.tunnel.agent.srv_lister import SrvListerPlugin
from tests.cluster.test_dns import Network
from tests.tunnel.logged import capture

NAME = "_tunnel._tcp.example.com"


def srv(target: str, port: int = 9999, priority: int = 10, weight: int = 5) -> dns.RRHeader:
    record = dns.Record_SRV(priority, weight, port, target)
    return dns.RRHeader(NAME, dns.SRV, ttl=60, payload=record)


class SrvListerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = Network()
        self.lists: list[list[str]] = []

    def start(self, **options: Any) -> IServerLister:
        config = {"name": NAME, "resolvers": ["10.0.0.53"], **options}
        lister = SrvListerPlugin().build("c", config, self.network)
        verifyObject(IServerLister, lister)
        lister.start(lambda servers: self.lists.append(list(servers)))
        self.addCleanup(lister.stop)
        return lister

    def test_lists(self) -> None:
        self.start()
        self.assertEqual(self.network.question(), (NAME, dns.SRV, ("10.0.0.53", 53)))
        self.network.answer(srv("b.example.com", 1), srv("a.example.com", 2))
        self.assertEqual(self.lists, [["a.example.com:2", "b.example.com:1"]])
        self.network.advance(30)
        self.network.answer(srv("c.example.com", 3))
        self.assertEqual(self.lists[1:], [["c.example.com:3"]])

    def test_those_with_the_best_priority(self) -> None:
        self.start()
        other = dns.RRHeader(NAME, dns.TXT, payload=dns.Record_TXT(b"x"))
        self.network.answer(
            srv("later.example.com", priority=20), other, srv("a.example.com", weight=0), srv("b.example.com")
        )
        self.assertEqual(self.lists, [["a.example.com:9999", "b.example.com:9999"]])

    def test_no_servers(self) -> None:
        """Whatever is no list of servers changes nothing, and is logged."""
        self.start(interval=5)
        self.network.answer(srv("a.example.com"))
        for answer, reason in (
            ({"code": dns.ENAME}, "it has no servers"),
            ({"code": dns.ESERVER}, "has answered with the error 2"),
        ):
            with capture() as events:
                self.network.advance(5)
                self.network.answer(**answer)
                self.network.answer(**answer)
            self.assertIn(f"no servers of {NAME}, known ones stay in use: ", events.text())
            self.assertIn(reason, events.text())
        with capture() as events:
            self.network.advance(5)
            self.network.answer(srv(""))  # "decidedly not available"
        self.assertIn("it has no servers", events.text())
        self.assertEqual(self.lists, [["a.example.com:9999"]])
        self.network.advance(5)
        self.network.answer(srv("b.example.com"))
        self.assertEqual(len(self.lists), 2)

    def test_stop(self) -> None:
        lister = self.start()
        lister.stop()
        self.network.answer(srv("a.example.com"))
        self.network.advance(100)
        self.assertEqual(self.lists, [])
        self.assertEqual([port.open for port in self.network.ports], [False])

    def test_mistakes(self) -> None:
        plugin = SrvListerPlugin()
        verifyObject(IServerListerPlugin, plugin)
        for config, problem in (
            ({}, "name: must be one such as _tunnel._tcp.example.com, not null"),
            ({"name": ""}, "name: must be"),
            ({"name": "x" * 300}, "name: must be"),
            ({"name": NAME, "interval": "5s"}, "interval: must be a number of seconds"),
            ({"name": NAME, "interval": 0}, "interval: must be a number of seconds"),
            ({"name": NAME, "interval": -5}, "interval: must be a number of seconds"),
            ({"name": NAME, "resolvers": []}, "resolvers: must be a list"),
            (
                {"name": NAME, "resolvers": ["10.0.0.1", "ns.example.com"]},
                'resolvers[1]: the text "ns.example.com" is no',
            ),
            ({"name": NAME, "resolvers": [53]}, "is no address of a name server"),
            ({"name": NAME, "domain": "x"}, "domain: unknown key; the keys are name, interval, resolvers"),
        ):
            with self.assertRaises(ValueError) as raised:
                plugin.build("c", config, self.network)
            self.assertIn(problem, str(raised.exception))

    def test_the_resolvers_of_the_system(self) -> None:
        path = self.mktemp()
        self.patch(srv_lister, "RESOLV_CONF", path)
        with self.assertRaises(ValueError) as raised:
            SrvListerPlugin().build("c", {"name": NAME}, self.network)
        self.assertIn("can't be read", str(raised.exception))
        with open(path, "w") as file:
            file.write("nameserver 10.9.9.9\n")
        lister = SrvListerPlugin().build("c", {"name": NAME}, self.network)
        lister.start(lambda servers: None)
        self.addCleanup(lister.stop)
        self.assertEqual(self.network.question()[2], ("10.9.9.9", 53))


class Authority(ResolverBase):
    """Knows one server."""

    def lookupService(self, name: Any, timeout: object = None) -> Deferred[Any]:
        payload = dns.Record_SRV(1, 1, 9999, b"one.example.com", 60)
        answer = dns.RRHeader(name, dns.SRV, ttl=60, payload=payload)
        return succeed(([answer], [], []))


class RealServerTests(TestCase):
    async def test_a_name_server(self) -> None:
        port = reactor.listenUDP(  # type: ignore[attr-defined]
            0,
            dns.DNSDatagramProtocol(DNSServerFactory(clients=[Authority()])),
            interface="127.0.0.1",
        )
        self.addCleanup(port.stopListening)
        config = {"name": NAME, "resolvers": [f"127.0.0.1:{port.getHost().port}"]}
        lister = SrvListerPlugin().build("c", config, reactor)
        listed: Deferred[Sequence[str]] = Deferred()
        lister.start(listed.callback)
        self.addCleanup(lister.stop)
        self.assertEqual(await listed, ["one.example.com:9999"])
