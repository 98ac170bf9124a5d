"""
Whole directories over an etcd in memory, in which hypothesis makes one thing after the other fail.

Listeners never get impossible events; and once everything has worked for a while, each server
knows exactly what the others have published, and etcd has exactly that.
"""

from __future__ import annotations

from functools import partial
from random import Random
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.fleet.directory import FleetDirectory, Settings
from reverseproxy.fleet.keys import host_path, server_path
from reverseproxy.fleet.records import HostKey, HostRecord, ServerRecord
from tests import most
from tests.fleet.fake_etcd import FakeEtcd, Store
from tests.fleet.test_view import Mirror, host

PREFIX = "/fleet/"
TTL = 6
NAMES = ("alpha", "beta", "gamma")
HEALED = 4 * TTL + 20
"""Seconds after which all is to be well again."""


class Server:
    """One of the servers; its process may end, and begin anew."""

    def __init__(self, name: str, clock: Clock, store: Store, reached: set[tuple[str, str]]) -> None:
        self.name = name
        self.clock = clock
        self.store = store
        self.reached = reached
        self.hosts: dict[HostKey, HostRecord] = {}
        self.begun = 0
        self.begin()

    def begin(self) -> None:
        """Begin a process."""
        self.begun += 1
        self.etcd = FakeEtcd(self.store)
        client: Any = self.etcd
        record = ServerRecord(self.name, "127.0.0.1:7000", str(self.begun))
        self.directory = FleetDirectory(
            self.clock, client, Settings(self.name, PREFIX, TTL), Random(self.begun), lambda: record
        )
        self.directory.judge(lambda other: (self.name, other) in self.reached)
        self.mirror = Mirror()
        self.directory.listen(self.mirror)  # type: ignore[arg-type]
        for each in self.hosts.values():
            self.directory.publish(each)
        self.directory.start()

    def crash(self) -> None:
        """End at once, without a word, and begin anew."""
        self.etcd.reachable = False
        self.directory.stop(stays=True)
        self.begin()


class DirectoryMachine(RuleBasedStateMachine):
    """Three servers, links between them, and an etcd."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.store = Store(self.clock)
        self.reached: set[tuple[str, str]] = set()
        self.failures: list[Any] = []
        self.forgotten: set[str] = set()
        globalLogPublisher.addObserver(self.observe)
        self.servers = {name: Server(name, self.clock, self.store, self.reached) for name in NAMES}
        self.run(1)

    def observe(self, event: dict[str, Any]) -> None:
        """Take note of mistakes of ours."""
        if "log_failure" in event:
            self.failures.append(event["log_failure"])

    def run(self, seconds: float) -> None:
        """Let time pass."""
        for _ in range(round(seconds / 0.1)):
            self.store.tick(0.1)

    names = st.sampled_from(NAMES)

    # servers

    @rule(name=names, agent=st.integers(0, 3), n=st.integers(1, 3), well=st.booleans())
    def agent_joins(self, name: str, agent: int, n: int, well: bool) -> None:
        """An agent joins a server, or is another one."""
        server = self.servers[name]
        record = host(name, agent=f"{agent:032x}", connections=n, well=well)
        server.hosts[record.key] = record
        server.directory.publish(record)

    @rule(name=names, agent=st.integers(0, 3))
    def agent_leaves(self, name: str, agent: int) -> None:
        """An agent leaves a server, if it is there."""
        key = HostKey("orders", f"{agent:032x}", name)
        self.servers[name].hosts.pop(key, None)
        self.servers[name].directory.withdraw(key)

    @rule(name=names, agent=st.integers(0, 3))
    def crash(self, name: str, agent: int) -> None:
        """A server's process is killed, and another one begins, perhaps without one of its agents."""
        server = self.servers[name]
        server.hosts.pop(HostKey("orders", f"{agent:032x}", name), None)
        server.crash()

    @rule(name=names)
    def restart(self, name: str) -> None:
        """A server is stopped, as is planned, and begins anew."""
        server = self.servers[name]
        stopping = server.directory.stop()
        self.run(4)
        assert stopping.called
        server.begin()

    @rule(name=names)
    def take_over(self, name: str) -> None:
        """A new process begins before the old one ends."""
        server = self.servers[name]
        old = server.directory
        server.begin()
        self.run(0.3)
        old.stop(stays=True)

    # links

    @rule(name=names, other=names, up=st.booleans())
    def link(self, name: str, other: str, up: bool) -> None:
        """A server reaches another one, or not any more."""
        if up:
            self.reached.add((name, other))
        else:
            self.reached.discard((name, other))
            self.servers[name].directory.lost(other)

    # etcd

    @rule(name=names, reachable=st.booleans())
    def way(self, name: str, reachable: bool) -> None:
        """A server reaches etcd, or not any more; what it watches may go on."""
        self.servers[name].etcd.reachable = reachable

    @rule(name=names, count=st.integers(1, 3))
    def answers_are_lost(self, name: str, count: int) -> None:
        """What a server asks for is done, and it does not hear of that."""
        self.servers[name].etcd.unheard = count

    @rule(down=st.booleans())
    def down(self, down: bool) -> None:
        """Etcd is killed, or started again, with what it had."""
        if down and not self.store.down:
            self.store.go_down()
        elif not down and self.store.down:
            self.store.come_back()

    @rule(ahead=st.booleans())
    def wipe(self, ahead: bool) -> None:
        """
        Etcd is another one, which has had fewer changes, or more.

        Nothing tells of what has gone with it.  Whoever had a lease there finds out, and reads everything;
        what had none, and was written between two such losses, may stay known until the next reading.
        """
        self.forgotten.update(key for key, each in self.store.keys.items() if not each.lease)
        self.store.wipe(self.store.revision + 100 if ahead else 1)

    @rule()
    def deleted_by_hand(self) -> None:
        """All keys are gone, and no lease."""
        self.store.commit({}, list(self.store.keys))

    @rule(name=names, agent=st.integers(0, 5))
    def written_by_hand(self, name: str, agent: int) -> None:
        """Somebody writes as a server, who is none."""
        key = HostKey("orders", f"{agent:032x}", name)
        self.store.commit({PREFIX + host_path(key): host(name, agent=key.agent, connections=9).encode()})

    @rule(name=st.sampled_from((*NAMES, "-", "a/b")), value=st.sampled_from([b"", b"{", b"[]", b'{"v": 0}']))
    def nonsense_by_hand(self, name: str, value: bytes) -> None:
        """Somebody writes what is no record."""
        self.store.commit({f"{PREFIX}servers/{name}": value, f"{PREFIX}hosts/x": value})

    @rule()
    def lapse(self) -> None:
        """All leases end, as if everybody had been paused."""
        for lease in list(self.store.leases):
            self.store.lapse(lease)

    @rule()
    def compact(self) -> None:
        """Etcd forgets what has been, and watches are lost."""
        self.store.compact()
        for watch in list(self.store.watches):
            self.store.end(watch)

    @rule(muted=st.booleans())
    def mute(self, muted: bool) -> None:
        """Watches tell nothing, though they are there; then they go on with what they have missed."""
        self.store.muted = muted
        self.store.pump()

    @rule()
    def lose_watches(self) -> None:
        """Connections are lost."""
        for watch in list(self.store.watches):
            self.store.end(watch)

    @rule(back=st.integers(0, 3), pieces=st.integers(1, 3))
    def manner(self, back: int, pieces: int) -> None:
        """Watches say things twice, from now on, and in pieces."""
        self.store.back, self.store.pieces = back, pieces

    @rule()
    def progress(self) -> None:
        """Watches are told that there is nothing."""
        self.store.progress()

    @rule(seconds=st.sampled_from([0.1, 1.0, TTL + 1.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.run(seconds)

    # what has to be true

    @invariant()
    def no_mistakes(self) -> None:
        """Nothing has failed that should not."""
        assert not self.failures, self.failures[0].getTraceback()

    def teardown(self) -> None:
        """All is well again: then everybody knows exactly what there is."""
        try:
            self.heal()
            self.run(HEALED)
            self.no_mistakes()
            self.check()
            for server in self.servers.values():
                server.directory.stop()
            self.run(4)
            assert not self.clock.getDelayedCalls(), self.clock.getDelayedCalls()
        finally:
            globalLogPublisher.removeObserver(self.observe)

    def heal(self) -> None:
        """Nothing is in the way any more."""
        if self.store.down:
            self.store.come_back()
        self.store.muted = False
        self.store.pump()
        for server in self.servers.values():
            server.etcd.reachable = True
            server.etcd.unheard = 0
        self.reached.update((one, other) for one in NAMES for other in NAMES)
        # What nobody would ever take away again is for whoever has written it.
        by_hand = [key for key, each in self.store.keys.items() if not each.lease]
        self.store.commit({}, by_hand)

    def check(self) -> None:
        """Everybody knows what the others have published, and etcd has that."""
        stored = {f"{PREFIX}{server_path(name)}" for name in NAMES}
        for server in self.servers.values():
            stored.update(PREFIX + host_path(key) for key in server.hosts)
        assert set(self.store.keys) == stored, set(self.store.keys) ^ stored
        for name, server in self.servers.items():
            others = {other: each for other, each in self.servers.items() if other != name}
            hosts = {key: record for each in others.values() for key, record in each.hosts.items()}
            known = {
                key: record
                for key, record in server.mirror.hosts.items()
                if key in hosts or PREFIX + host_path(key) not in self.forgotten
            }
            assert known == hosts, (name, known, hosts)
            assert set(server.mirror.servers) == set(others)
            for other, each in others.items():
                assert server.mirror.servers[other].version == str(each.begun)
            assert server.directory.up
            assert not server.directory.held


class DirectoryMachineTests(SynchronousTestCase):
    """The machine above."""

    def test_machine(self) -> None:
        run_state_machine_as_test(
            partial(DirectoryMachine),
            settings=settings(max_examples=most(25), stateful_step_count=25, deadline=None),
        )
