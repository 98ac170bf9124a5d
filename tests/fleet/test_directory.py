"""The directory of a fleet, over an etcd in memory and a clock of its own."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from reverseproxy.fleet.directory import FleetDirectory, Settings
from reverseproxy.fleet.interfaces import IDirectory
from reverseproxy.fleet.keys import host_path, server_path
from reverseproxy.fleet.records import HostKey, ServerRecord
from tests.fleet.fake_etcd import FakeEtcd, Store
from tests.fleet.test_view import Mirror, host

PREFIX = "/fleet/"
TTL = 10


class Bench:
    """An etcd, and servers."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.store = Store(self.clock)
        self.etcds: dict[str, FakeEtcd] = {}

    def server(self, name: str, port: int = 7000, **facts: Any) -> FleetDirectory:
        """Make a server; it is not started yet."""
        etcd = self.etcds[name] = FakeEtcd(self.store)
        settings = Settings(name, PREFIX, TTL)
        found: Any = etcd
        record = ServerRecord(name, f"127.0.0.1:{port}", "1.0")
        return FleetDirectory(self.clock, found, settings, Random(1), lambda: record, **facts)

    def run(self, seconds: float = 0.5) -> None:
        """Let time pass in small steps."""
        for _ in range(max(round(seconds / 0.05), 1)):
            self.store.tick(0.05)

    def names(self) -> list[str]:
        """The keys of the fleet that there are."""
        return sorted(key.removeprefix(PREFIX) for key in self.store.keys)


class DirectoryTests(SynchronousTestCase):
    """Two servers, alpha and beta."""

    def setUp(self) -> None:
        self.bench = Bench()
        self.alpha = self.bench.server("alpha", 7001)
        self.beta = self.bench.server("beta", 7002)
        self.heard = Mirror()
        self.beta.listen(self.heard)  # type: ignore[arg-type]
        self.agent = host("alpha")

    def start(self) -> None:
        """Start both, with an agent at alpha."""
        self.alpha.publish(self.agent)
        self.alpha.start()
        self.beta.start()
        self.bench.run()

    def test_interface(self) -> None:
        verifyObject(IDirectory, self.alpha)

    def test_each_knows_the_other(self) -> None:
        self.start()
        self.assertEqual(list(self.alpha.servers), ["beta"])
        self.assertEqual(list(self.heard.servers), ["alpha"])
        self.assertEqual(list(self.heard.hosts), [self.agent.key])
        self.assertEqual(self.heard.servers["alpha"].address, "127.0.0.1:7001")
        self.assertTrue(self.alpha.up)
        self.assertEqual(self.alpha.figures.published, 1)
        self.assertEqual(self.beta.figures.hosts, 1)

    def test_who_listens_late_is_told_all(self) -> None:
        self.start()
        late = Mirror()
        self.beta.listen(late)  # type: ignore[arg-type]
        self.assertEqual(late.hosts, self.heard.hosts)
        self.beta.unlisten(late)  # type: ignore[arg-type]
        self.alpha.withdraw(self.agent.key)
        self.bench.run()
        self.assertEqual(self.heard.hosts, {})
        self.assertEqual(list(late.hosts), [self.agent.key])

    def test_changes_are_gathered(self) -> None:
        """A thousand agents that come at once are ten transactions, known within a tenth of a second."""
        self.start()
        before = len(self.bench.store.log)
        for number in range(1000):
            self.alpha.publish(host("alpha", agent=f"{number:032x}"))
        self.bench.run(0.1)
        self.assertEqual(len(self.bench.store.log) - before, 10)
        self.assertEqual(len(self.heard.hosts), 1000)

    def test_much_at_once_is_told_bit_by_bit(self) -> None:
        """Who comes in the middle of it is told everything, once."""
        self.start()
        for number in range(1000):
            self.alpha.publish(host("alpha", agent=f"{number:032x}"))
        self.bench.etcds["beta"].reachable = False
        self.bench.run(0.2)
        self.bench.store.lapse(next(iter(self.bench.store.leases)))
        late = Mirror()
        self.beta.listen(late)  # type: ignore[arg-type]
        self.assertEqual(late.hosts, dict(self.beta.hosts))
        self.assertEqual(self.heard.hosts, late.hosts)
        self.bench.etcds["beta"].reachable = True
        self.bench.run(5)
        self.assertEqual(len(late.hosts), 1000)
        self.assertEqual(self.heard.hosts, late.hosts)

    def test_the_end_of_a_lease_is_told_bit_by_bit(self) -> None:
        """And in its order: what comes behind it is not overtaken, nor what a watch tells once more."""
        agents = [host("alpha", agent=f"{number:032x}") for number in range(1000)]
        for each in agents:
            self.alpha.publish(each)
        self.start()
        self.bench.run(2)
        self.assertEqual(len(self.heard.hosts), 1000)
        store = self.bench.store
        self.bench.etcds["alpha"].reachable = False
        [(lease, _)] = [
            each for each in store.leases.items() if store.keys[f"{PREFIX}servers/alpha"].lease == each[0]
        ]
        store.lapse(lease)
        self.assertGreater(len(self.heard.hosts), 500)
        gamma = ServerRecord("gamma", "127.0.0.1:7003", "1.0", incarnation="1")
        store.commit({f"{PREFIX}{server_path('gamma')}": gamma.encode()})
        store.commit({f"{PREFIX}{host_path(HostKey('orders', '0' * 32, 'gamma'))}": host("gamma").encode()})
        self.assertNotIn("gamma", self.heard.servers)
        self.bench.clock.advance(0)
        self.assertEqual(list(self.heard.servers), ["gamma"])
        self.assertEqual(list(self.heard.hosts), [("orders", "0" * 32, "gamma")])

    def test_watch_lost_in_the_middle_of_a_revision(self) -> None:
        """It is told once more, from its beginning."""
        for number in range(1000):
            self.alpha.publish(host("alpha", agent=f"{number:032x}"))
        self.start()
        store = self.bench.store
        hosts = [key for key in store.keys if "/hosts/" in key]
        self.bench.etcds["alpha"].reachable = False
        store.commit({}, hosts)
        self.assertGreater(len(self.heard.hosts), 500)
        for watch in list(store.watches):
            store.end(watch)
        self.bench.run(2)
        self.assertEqual(self.heard.hosts, {})
        self.assertEqual(self.beta.figures.resyncs, 1)

    def test_a_mistake_in_the_middle_of_a_revision(self) -> None:
        """It costs a look at everything."""
        self.start()
        table = self.beta._view._table
        put = table.put

        def fail_once(record: object) -> None:
            table.put = put  # type: ignore[method-assign]
            raise RuntimeError

        table.put = fail_once  # type: ignore[method-assign]
        self.alpha.publish(host("alpha", agent="1" * 32))
        self.bench.run(5)
        self.assertEqual(len(self.heard.hosts), 2)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(self.beta.figures.resyncs, 2)

    def test_nothing_is_written_that_is_there(self) -> None:
        self.start()
        before = len(self.bench.store.log)
        self.alpha.publish(self.agent)
        self.alpha.publish(host("alpha", connections=2))
        self.alpha.publish(self.agent)
        self.alpha.withdraw(HostKey("nobody", "f" * 32, "alpha"))
        self.bench.run(2)
        self.assertLessEqual(len(self.bench.store.log) - before, 1)
        self.assertEqual(self.heard.hosts[self.agent.key], self.agent)

    def test_own_record_comes_last(self) -> None:
        for number in range(250):
            self.alpha.publish(host("alpha", agent=f"{number:032x}"))
        self.alpha.start()
        self.bench.run()
        first = [key for puts, _ in self.bench.store.log for key in puts]
        self.assertEqual(len(first), 251)
        self.assertEqual(first[-1], "/fleet/servers/alpha")

    def test_lease_is_kept(self) -> None:
        self.start()
        self.bench.run(100)
        self.assertEqual(self.alpha.figures.leases, 1)
        self.assertEqual(list(self.heard.hosts), [self.agent.key])

    def test_dead_server(self) -> None:
        """It is gone with its lease."""
        self.start()
        self.bench.etcds["alpha"].reachable = False
        self.bench.run(TTL + 1)
        self.assertEqual(self.heard.servers, {})

    def test_pause_longer_than_the_lease(self) -> None:
        """A server that was stopped takes its lease up again; as it is reached meanwhile, nothing changes."""
        self.start()
        self.beta.judge(lambda server: True)
        told: list[object] = []
        self.patch(self.heard, "host_left", lambda *what: told.append(what))
        self.bench.store.lapse(next(iter(self.bench.store.leases)))
        self.assertEqual(self.beta.held, ["alpha"])
        self.bench.run(TTL / 3 + 2)
        self.assertEqual(self.beta.held, [])
        self.assertEqual(told, [])
        self.assertEqual(self.alpha.figures.leases, 2)
        self.assertEqual(list(self.heard.hosts), [self.agent.key])

    def test_link_lost_while_held(self) -> None:
        self.start()
        reached = ["alpha"]
        self.beta.judge(reached.__contains__)
        self.bench.etcds["alpha"].reachable = False
        self.bench.run(TTL + 1)
        self.assertEqual(self.beta.held, ["alpha"])
        reached.clear()
        self.beta.lost("alpha")
        self.assertEqual((self.heard.servers, self.heard.hosts), ({}, {}))

    def test_etcd_away(self) -> None:
        """What is known stays, what changes waits, and all is well when it is back; one line for each."""
        self.start()
        lines: list[str] = []
        globalLogPublisher.addObserver(observe := lambda event: lines.append(formatEvent(event)))
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        self.bench.store.go_down()
        other = host("alpha", agent="1" * 32)
        self.alpha.publish(other)
        self.alpha.withdraw(self.agent.key)
        self.bench.run(60)
        self.assertEqual(list(self.heard.hosts), [self.agent.key])
        self.assertFalse(self.alpha.up)
        self.assertEqual(self.alpha.figures.waiting, 2)
        self.bench.store.come_back()
        self.bench.run(4)
        self.assertTrue(self.alpha.up)
        self.assertEqual(list(self.heard.hosts), [other.key])
        self.assertEqual(self.alpha.figures.leases, 1)
        self.assertEqual(self.alpha.figures.resyncs, 1)
        self.assertEqual(len([line for line in lines if "etcd is away" in line]), 2, lines)
        self.assertEqual(len([line for line in lines if "etcd is back after 6" in line]), 2, lines)

    def test_starts_without_etcd(self) -> None:
        self.bench.store.go_down()
        self.start()
        self.bench.run(30)
        self.assertFalse(self.beta.up)
        self.bench.store.come_back()
        self.bench.run(4)
        self.assertEqual(list(self.heard.hosts), [self.agent.key])

    def test_emptied_etcd(self) -> None:
        """Everything is put again, and nobody has forgotten anything meanwhile."""
        self.start()
        told: list[object] = []
        self.patch(self.heard, "server_left", lambda *what: told.append(what))
        before = self.bench.names()
        self.bench.store.wipe()
        self.bench.run(TTL / 2)
        self.assertEqual(self.bench.names(), before)
        self.assertEqual(told, [])
        self.assertEqual(self.beta.held, [])
        self.assertEqual(list(self.heard.hosts), [self.agent.key])

    def test_emptied_by_hand(self) -> None:
        """As with etcdctl del: the leases are still there."""
        self.start()
        self.beta.judge(lambda server: True)
        before = self.bench.names()
        self.bench.store.commit({}, list(self.bench.store.keys))
        self.assertEqual(self.bench.names(), [])
        self.bench.run(0.5)
        self.assertEqual(self.bench.names(), before)
        self.assertEqual(self.alpha.figures.leases, 1)
        self.assertEqual(list(self.heard.hosts), [self.agent.key])

    def test_compacted(self) -> None:
        self.start()
        self.bench.store.muted = True
        self.alpha.withdraw(self.agent.key)
        other = host("alpha", agent="1" * 32)
        self.alpha.publish(other)
        self.bench.run(1)
        self.bench.store.compact()
        self.bench.store.commit({"/unrelated": b""})
        self.bench.store.compact()
        self.bench.store.muted = False
        for watch in list(self.bench.store.watches):
            self.bench.store.end(watch)
        self.bench.run(4)
        self.assertEqual(list(self.heard.hosts), [other.key])
        self.assertEqual(self.beta.figures.resyncs, 2)

    def test_silent_watch(self) -> None:
        """A watch that does not tell of what has been written is made anew."""
        self.start()
        self.bench.store.muted = True
        self.beta.publish(host("beta"))
        self.alpha.withdraw(self.agent.key)
        self.bench.run(1)
        self.assertEqual(list(self.heard.hosts), [self.agent.key])
        self.bench.store.muted = False
        for watch in self.bench.store.watches:
            watch.next = self.bench.store.revision + 1  # what was missed is not made up for
        self.bench.run(6)
        self.assertEqual(self.heard.hosts, {})

    def test_planned_stop(self) -> None:
        """That it leaves is said first; then it is gone at once, although it can still be reached."""
        self.start()
        self.beta.judge(lambda server: True)
        self.alpha.drain()
        self.bench.run(0.1)
        self.assertTrue(self.heard.servers["alpha"].draining)
        self.assertEqual(list(self.heard.hosts), [self.agent.key])
        self.successResultOf(self.alpha.stop())
        self.assertEqual(self.heard.servers, {})
        self.assertEqual(self.bench.names(), ["servers/beta"])
        self.assertTrue(self.bench.etcds["alpha"].closed)

    def test_stop_without_a_word_before(self) -> None:
        self.start()
        self.beta.judge(lambda server: True)
        self.successResultOf(self.alpha.stop())
        self.assertEqual(self.heard.servers, {})

    def test_stop_while_etcd_is_away(self) -> None:
        self.start()
        self.bench.store.go_down()
        self.bench.run(1)
        self.successResultOf(self.alpha.stop())
        self.successResultOf(self.beta.stop())
        self.assertEqual(self.bench.clock.getDelayedCalls(), [])

    def test_stop_leaves_nothing_behind(self) -> None:
        self.start()
        self.successResultOf(self.alpha.stop())
        self.successResultOf(self.beta.stop())
        self.assertEqual(self.bench.clock.getDelayedCalls(), [])
        self.assertEqual(self.bench.store.keys, {})
        self.assertEqual(self.bench.store.leases, {})

    def test_restart_under_the_same_name(self) -> None:
        """What the process before has left behind goes within seconds, before its lease does."""
        self.start()
        self.bench.etcds["alpha"].reachable = False  # killed
        again = self.bench.server("alpha", 7001)
        other = host("alpha", agent="1" * 32)
        again.publish(other)
        again.start()
        self.bench.run(1)
        self.assertIn(other.key, self.heard.hosts)
        self.bench.run(5)
        self.assertEqual(list(self.heard.hosts), [other.key])

    def test_another_process_takes_over(self) -> None:
        """While both are there, and when the old one ends, the server is never gone, nor about to leave."""
        self.start()
        told: list[object] = []
        for method in ("server_left", "server_changed"):
            tell = getattr(self.heard, method)

            def heard(*what: Any, tell: Any = tell) -> None:
                told.append(what)
                tell(*what)

            self.patch(self.heard, method, heard)
        again = self.bench.server("alpha", 7001)
        again.publish(self.agent)
        again.start()
        self.bench.run(1)
        self.successResultOf(self.alpha.stop(stays=True))
        self.bench.run(2 * TTL)
        self.assertEqual([(what[0].draining, len(what)) for what in told], [(False, 2)])
        self.assertEqual(list(self.heard.hosts), [self.agent.key])
        self.assertEqual(len(self.bench.store.leases), 2)

    def test_old_process_ends_first(self) -> None:
        """As when one of several workers takes the place of another: what it has published stays."""
        self.start()
        self.successResultOf(self.alpha.stop(stays=True))
        self.bench.run(TTL / 2)
        self.assertEqual(list(self.heard.hosts), [self.agent.key])
        self.assertFalse(self.heard.servers["alpha"].draining)

    def test_two_servers_of_one_name(self) -> None:
        """The last one to come is it; the other one says so, and takes its place when it is gone."""
        self.start()
        twin = self.bench.server("alpha", 7009)
        other = host("alpha", agent="1" * 32)
        twin.publish(other)
        twin.start()
        self.bench.run(8)
        self.assertEqual(list(self.heard.hosts), [other.key])
        self.assertEqual(self.heard.servers["alpha"].address, "127.0.0.1:7009")
        self.successResultOf(twin.stop())
        self.bench.run(TTL + 3)
        self.assertEqual(list(self.heard.hosts), [self.agent.key])

    def test_silent_while_etcd_becomes_another_one(self) -> None:
        """The one that publishes nothing finds out that it is the only one now, of which no watch tells."""
        self.start()
        twin = self.bench.server("alpha", 7009)
        twin.start()
        self.bench.run(1)
        self.assertTrue(self.alpha._publisher.silent)
        self.bench.etcds["alpha"].reachable = False
        self.bench.store.wipe(1000)
        self.bench.run(3 * TTL)
        self.assertEqual(list(self.heard.hosts), [self.agent.key])
        self.assertEqual(self.heard.servers["alpha"].address, "127.0.0.1:7001")

    def test_other_etcd(self) -> None:
        """When the configuration names another one, everything goes there."""
        self.start()
        self.beta.judge(lambda server: True)
        store = Store(self.bench.clock)
        for directory in (self.alpha, self.beta):
            etcd: Any = FakeEtcd(store)
            directory.change(TTL, etcd)
        self.bench.store = store
        self.bench.run(TTL)
        self.assertEqual(len(self.bench.names()), 3)
        self.assertEqual(list(self.heard.hosts), [self.agent.key])

    def test_junk_in_place_of_a_server(self) -> None:
        """It is written again at once, in place of whatever is none."""
        self.start()
        key = f"{PREFIX}servers/alpha"
        found = self.bench.store.keys[key].value
        for junk in (b"{", b"x" * 1_000_000):
            self.bench.store.commit({key: junk})
            self.bench.run(0.2)
            self.assertEqual(self.bench.store.keys[key].value, found)
            self.assertEqual(list(self.heard.servers), ["alpha"])
            self.assertEqual(list(self.heard.hosts), [self.agent.key])

    def test_other_lease(self) -> None:
        self.start()
        self.alpha.change(20)
        self.bench.run(0.5)
        self.assertEqual(sorted(ttl for ttl, _ in self.bench.store.leases.values()), [10, 10, 20])
        self.bench.run(15)
        self.assertEqual(list(self.heard.hosts), [self.agent.key])

    def test_one_of_several_workers(self) -> None:
        """It knows what others do, and publishes nothing."""
        worker = self.bench.server("beta", 7002, publishes=False)
        mirror = Mirror()
        worker.listen(mirror)  # type: ignore[arg-type]
        worker.publish(host("beta"))
        worker.start()
        self.start()
        self.bench.run(5)
        self.assertEqual(list(mirror.hosts), [self.agent.key])
        self.assertEqual(self.alpha.hosts, {})
        self.successResultOf(worker.stop())
        self.assertEqual(list(self.alpha.servers), ["beta"])

    def test_emptied_etcd_that_has_had_more_changes(self) -> None:
        """It is seen by the lease, where something is published, and by the server's record elsewhere."""
        worker = self.bench.server("beta", 7002, publishes=False)
        mirror = Mirror()
        worker.listen(mirror)  # type: ignore[arg-type]
        worker.start()
        self.start()
        gone = host("alpha", agent="1" * 32)
        self.alpha.publish(gone)
        self.bench.run(0.5)
        self.assertIn(gone.key, mirror.hosts)
        self.bench.etcds["alpha"].reachable = False
        self.alpha.withdraw(gone.key)
        self.bench.store.wipe(1000)
        self.bench.etcds["alpha"].reachable = True
        self.bench.run(2 * TTL + 2)
        self.assertEqual(list(self.heard.hosts), [self.agent.key])
        self.assertEqual(list(mirror.hosts), [self.agent.key])
        self.assertEqual(self.bench.names().count("servers/beta"), 1)

    def test_worker_leaves_an_endpoint_that_does_not_answer(self) -> None:
        """Although it writes nothing."""
        worker = self.bench.server("beta", 7002, publishes=False)
        worker.start()
        self.start()
        self.assertTrue(worker.up)
        self.bench.store.muted = True
        self.bench.etcds["beta"].reachable = False
        self.bench.run(6)
        self.assertFalse(worker.up)
        self.bench.etcds["beta"].reachable = True
        self.bench.store.muted = False
        self.bench.run(4)
        self.assertTrue(worker.up)

    def test_listener_that_fails(self) -> None:
        """It keeps nobody from being told."""

        class Bad:
            def __getattr__(self, name: str) -> Any:
                raise RuntimeError(name)

        bad: Any = Bad()
        self.alpha.listen(bad)
        mirror = Mirror()
        self.alpha.listen(mirror)  # type: ignore[arg-type]
        self.start()
        self.assertEqual(list(mirror.servers), ["beta"])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_bad_records(self) -> None:
        self.start()
        self.bench.store.commit({"/fleet/servers/gamma": b"{", "/fleet/hosts/x": b"", "/fleet/moon": b""})
        self.bench.run(0.1)
        self.assertEqual(self.beta.figures.bad_records, 2)
        self.assertEqual(list(self.beta.servers), ["alpha"])

    def test_nobody_stampedes(self) -> None:
        """Servers that have all lost their leases begin to publish at different moments."""
        servers = [self.bench.server(f"s{number}", 7100) for number in range(20)]
        for number, each in enumerate(servers):
            each._publisher._random.seed(number)
            each.publish(host(f"s{number}"))
            each.start()
        self.bench.run(1)
        self.bench.store.log.clear()
        self.bench.store.wipe()
        moments = []
        for _ in range(60):
            before = len(self.bench.store.log)
            self.bench.run(0.1)
            moments.append(len(self.bench.store.log) - before)
        self.assertEqual(len([n for n in self.bench.names() if n.startswith("servers/s")]), 20)
        self.assertLess(max(moments), 12)
