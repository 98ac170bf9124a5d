"""Tests for L{reverseproxy.assembly.etcd_lister}."""

from __future__ import annotations

import os
from collections.abc import Sequence
from random import Random
from tempfile import mkdtemp
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from reverseproxy.assembly.etcd_lister import GATHER, LONGEST_WAIT, RENEW, EtcdLister, EtcdListerPlugin
from reverseproxy.errors import ConfigError
from reverseproxy.fleet.etcd import Etcd
from reverseproxy.fleet.records import ServerRecord
from reverseproxy.interfaces import IServerLister, IServerListerPlugin
from reverseproxy.tunnel.plugins import find_lister
from tests.fleet.fake_etcd import FakeEtcd, Store
from tests.fleet.real_etcd import ETCD, RealEtcd
from tests.tunnel.logged import capture


def record(name: str, *agents: str, draining: bool = False) -> bytes:
    return ServerRecord(name, "10.0.0.1:7000", draining=draining, agents=agents).encode()


class ListerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.store = Store(self.clock)
        self.lists: list[list[str]] = []
        self.put(a=record("a", "a.example:9999"), b=record("b", "b.example:9999", "[::1]:9999"))

    def put(self, **records: bytes) -> None:
        self.store.commit({f"/f/servers/{name}": value for name, value in records.items()})

    def delete(self, name: str) -> None:
        self.store.commit({}, [f"/f/servers/{name}"])

    def start(self) -> EtcdLister:
        etcd: Any = FakeEtcd(self.store)
        lister = EtcdLister(etcd, "/f/", "c", self.clock, Random(1))
        verifyObject(IServerLister, lister)
        lister.start(lambda servers: self.lists.append(list(servers)))
        self.addCleanup(lister.stop)
        return lister

    def test_servers_come_and_go(self) -> None:
        self.start()
        self.assertEqual(self.lists, [["a.example:9999", "b.example:9999", "[::1]:9999"]])
        self.put(c=record("c", "c.example:9999"))
        self.clock.advance(GATHER)
        self.assertEqual(self.lists[1][-1], "c.example:9999")
        self.delete("b")
        self.clock.advance(GATHER)
        self.assertEqual(self.lists[2], ["a.example:9999", "c.example:9999"])

    def test_one_that_is_about_to_leave(self) -> None:
        """It is no server to go to any more."""
        self.start()
        self.put(a=record("a", "a.example:9999", draining=True))
        self.clock.advance(GATHER)
        self.assertEqual(self.lists[1], ["b.example:9999", "[::1]:9999"])

    def test_records_that_are_none(self) -> None:
        """Each costs itself."""
        self.put(bad=b"{", none=record("none"), big=b" " * 200_000)
        with capture() as events:
            self.start()
        self.assertEqual(self.lists, [["a.example:9999", "b.example:9999", "[::1]:9999"]])
        self.assertIn("the record of a server is skipped", events.text())

    def test_hosts_are_nothing_to_it(self) -> None:
        self.start()
        self.store.commit({"/f/hosts/c/x/a": b"{}"})
        self.clock.advance(GATHER)
        self.assertEqual(len(self.lists), 1)

    def test_it_is_away(self) -> None:
        """What is known stays in use; one line says so, and one that it is back."""
        self.start()
        with capture() as events:
            self.store.go_down()
            for _ in range(100):
                self.clock.advance(1)
            self.put(c=record("c", "c.example:9999"))
            self.store.come_back()
            for _ in range(int(LONGEST_WAIT) * 2):
                self.clock.advance(1)
        self.assertEqual(self.lists[-1][-1], "c.example:9999")
        self.assertIn("etcd can't list servers, known ones stay in use: ", events.text())
        self.assertIn("etcd lists servers again", events.text())
        self.assertLess(len(events.text().splitlines()), 6)

    def test_it_was_away_at_the_start(self) -> None:
        self.store.go_down()
        self.start()
        self.store.come_back()
        self.clock.advance(2)
        self.assertEqual(len(self.lists), 1)

    def test_a_watch_that_is_silent(self) -> None:
        self.start()
        self.store.muted = True
        self.put(c=record("c", "c.example:9999"))
        self.clock.advance(RENEW)
        self.clock.advance(GATHER)
        self.assertEqual(self.lists[-1][-1], "c.example:9999")

    def test_compacted(self) -> None:
        self.start()
        (watch,) = self.store.watches
        self.store.compact()
        self.put(c=record("c", "c.example:9999"))
        self.store.compact()
        watch.stop()
        for _ in range(5):
            self.clock.advance(GATHER)
        self.assertEqual(self.lists[-1][-1], "c.example:9999")

    def test_stop(self) -> None:
        lister = self.start()
        lister.stop()
        self.put(c=record("c", "c.example:9999"))
        self.clock.advance(100)
        self.assertEqual(len(self.lists), 1)
        self.assertEqual((self.store.watches, self.clock.getDelayedCalls()), ([], []))


class PluginTests(SynchronousTestCase):
    def test_mistakes(self) -> None:
        plugin = EtcdListerPlugin()
        verifyObject(IServerListerPlugin, plugin)
        for config, problem in (
            ({}, "endpoints: is missing"),
            ({"endpoints": ["a:1"], "user": "x"}, "user: has no password"),
            ({"endpoints": ["a:1"], "lease_ttl": "5s"}, "lease_ttl: unknown key; the keys are endpoints,"),
        ):
            with self.assertRaises(ValueError) as raised:
                plugin.build("c", config, Clock())
            self.assertIn(problem, str(raised.exception))

    def test_values(self) -> None:
        """Each value that can't be used has its place in the document, and so do files that can't be read."""
        missing = os.path.abspath(self.mktemp())
        tls = {"status": True, "ca_cert": missing}
        for config, problems in (
            ({"endpoints": "a:1"}, ["endpoints: expected a list"]),
            (
                {"endpoints": ["a:1", "a"], "prefix": "a b", "domain": "x", "tls_context": tls},
                [
                    "domain: unknown key",
                    'endpoints[1]: "a" has no port',
                    'prefix: "a b" is no prefix',
                    f"tls_context.ca_cert: ca_cert {missing}: can't be read",
                ],
            ),
            (
                {"endpoints": ["a:1"], "tls_context": tls},
                [f"tls_context.ca_cert: ca_cert {missing}: can't be read"],
            ),
        ):
            with self.assertRaises(ConfigError) as raised:
                EtcdListerPlugin().build("c", config, Clock())
            found = [str(problem) for problem in raised.exception.problems]
            self.assertEqual(len(found), len(problems), found)
            for text, problem in zip(found, problems, strict=True):
                self.assertTrue(text.startswith(problem), text)

    def test_it_is_found(self) -> None:
        lister = find_lister("etcd", "c", {"endpoints": ["127.0.0.1:2379"]}, Clock())
        self.assertIsInstance(lister, EtcdLister)


if ETCD is not None:

    class RealTests(TestCase):
        async def test_servers_come(self) -> None:
            etcd = RealEtcd(mkdtemp(prefix="etcd"))
            self.addCleanup(etcd.stop)
            await etcd.start()
            client = Etcd(reactor, [etcd.endpoint])
            self.addCleanup(client.close)
            waiting: list[Deferred[list[str]]] = [Deferred(), Deferred(), Deferred()]
            left = list(waiting)

            def update(servers: Sequence[str]) -> None:
                left.pop(0).callback(list(servers))

            config = {"endpoints": [etcd.endpoint], "prefix": "/f"}
            lister = find_lister("etcd", "c", config, reactor)  # type: ignore[arg-type]
            lister.start(update)
            self.addCleanup(lister.stop)
            self.assertEqual(await waiting[0], [])
            await client.change([("/f/servers/a", record("a", "a.example:9999"))])
            self.assertEqual(await waiting[1], ["a.example:9999"])
            await client.change([], ["/f/servers/a"])
            self.assertEqual(await waiting[2], [])
