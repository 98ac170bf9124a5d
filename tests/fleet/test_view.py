"""The view of other servers, compared with a model of a store that can be watched."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.fleet import record_table
from reverseproxy.fleet import view as view_module
from reverseproxy.fleet.keys import host_path, read_path, server_path
from reverseproxy.fleet.record_fields import MAX_RECORD, BadRecord
from reverseproxy.fleet.record_reader import MAX_BAD
from reverseproxy.fleet.record_table import Notice
from reverseproxy.fleet.records import HostKey, HostRecord, ServerRecord
from reverseproxy.fleet.view import HOLD, PART, Change, View
from tests import most

OWN = "own"
PEERS = ("alpha", "beta")
CLUSTERS = ("orders", "a/b ü")
AGENTS = ("0" * 32, "1" * 32)


def host(server: str, cluster: str = "orders", agent: str = "0" * 32, **facts: Any) -> HostRecord:
    """Make a record of a host."""
    return HostRecord(cluster, agent, server, **facts)


def put(record: HostRecord | ServerRecord, revision: int) -> Change:
    """A record has been written."""
    path = server_path(record.id) if isinstance(record, ServerRecord) else host_path(record.key)
    return Change(path, record.encode(), revision)


def gone(record: HostRecord | ServerRecord, revision: int) -> Change:
    """A record has been deleted."""
    return put(record, revision)._replace(value=None)


def take_all(view: View, entries: Iterable[tuple[str, bytes]], revision: int, now: float) -> list[Notice]:
    """Take in a snapshot, all of it at once."""
    everything = view.everything()
    everything.add(entries)
    return [notice for part in view.snapshot(everything, revision, now) for notice in part]


def change_all(view: View, changes: list[Change], now: float) -> list[Notice]:
    """Take in what a watch says, all of it at once."""
    return [notice for part in view.changed(changes, now) for notice in part]


class Mirror:
    """Follows notices as a listener would, and checks that it is told what it should be."""

    def __init__(self) -> None:
        self.servers: dict[str, ServerRecord] = {}
        self.hosts: dict[HostKey, HostRecord] = {}

    def take(self, notices: list[Notice]) -> None:
        """Follow some."""
        for notice in notices:
            getattr(self, notice.method)(*notice.arguments)

    def server_came(self, server: ServerRecord) -> None:
        assert server.id not in self.servers
        self.servers[server.id] = server

    def server_changed(self, server: ServerRecord, old: ServerRecord) -> None:
        assert self.servers[server.id] == old != server
        self.servers[server.id] = server

    def server_left(self, server: ServerRecord, reason: str) -> None:
        assert reason
        assert self.servers.pop(server.id) == server
        assert not [key for key in self.hosts if key.server == server.id]

    def host_came(self, record: HostRecord) -> None:
        assert record.server in self.servers
        assert record.key not in self.hosts
        self.hosts[record.key] = record

    def host_changed(self, record: HostRecord, old: HostRecord) -> None:
        assert self.hosts[record.key] == old != record
        self.hosts[record.key] = record

    def host_left(self, record: HostRecord, reason: str) -> None:
        assert reason
        assert self.hosts.pop(record.key) == record


class Store:
    """A model of what etcd promises: revisions, leases, compaction."""

    def __init__(self) -> None:
        self.revision = 1
        self.compacted = 0
        self.keys: dict[str, bytes] = {}
        self.history: list[Change] = []

    def commit(self, changes: dict[str, bytes | None]) -> None:
        """Change some keys at once."""
        found = {k: v for k, v in changes.items() if v is not None or k in self.keys}
        if not found:
            return
        self.revision += 1
        for path, value in sorted(found.items()):
            self.history.append(Change(path, value, self.revision))
            if value is None:
                del self.keys[path]
            else:
                self.keys[path] = value


class ViewMachine(RuleBasedStateMachine):
    """Servers publish, lapse and leave; the store is emptied and compacted; the watch repeats itself."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store()
        self.reached: set[str] = set()
        self.now = 0.0
        self.bad: list[tuple[str, str]] = []
        self.view = View(OWN, self.reached.__contains__, HOLD, lambda *what: self.bad.append(what))
        self.mirror = Mirror()
        self.watched, self.anew = False, False
        self.hosts: dict[str, dict[HostKey, HostRecord]] = {name: {} for name in (*PEERS, OWN)}
        self.registered: dict[str, bool] = dict.fromkeys((*PEERS, OWN), False)
        self.incarnation = 0

    names = st.sampled_from((*PEERS, OWN))

    # servers

    @rule(name=names)
    def register(self, name: str) -> None:
        """A server has a lease, and publishes everything: its own record last."""
        self.incarnation += 1
        for key, record in self.hosts[name].items():
            self.store.commit({host_path(key): record.encode()})
        record = ServerRecord(name, "127.0.0.1:1", incarnation=str(self.incarnation))
        stale = [p for p in self.store.keys if p.endswith(f"/{name}") and p.startswith("hosts/")]
        kept = {host_path(key) for key in self.hosts[name]}
        self.store.commit({path: None for path in stale if path not in kept})
        self.store.commit({server_path(name): record.encode()})
        self.registered[name] = True

    @rule(name=names, cluster=st.sampled_from(CLUSTERS), agent=st.sampled_from(AGENTS), n=st.integers(1, 3))
    def agent_joins(self, name: str, cluster: str, agent: str, n: int) -> None:
        """An agent joins a server, or has other connections."""
        record = host(name, cluster, agent, connections=n)
        self.hosts[name][record.key] = record
        self.store.commit({host_path(record.key): record.encode()})

    @rule(name=names, pick=st.integers(0, 3))
    def agent_leaves(self, name: str, pick: int) -> None:
        """An agent leaves a server."""
        if self.hosts[name]:
            key = list(self.hosts[name])[pick % len(self.hosts[name])]
            del self.hosts[name][key]
            self.store.commit({host_path(key): None})

    @rule(name=names)
    def lapse(self, name: str) -> None:
        """A lease ends: all keys of a server go at once."""
        self.store.commit({path: None for path in self.store.keys if path.split("/")[-1] == name})
        self.registered[name] = False

    @rule(name=names)
    def leave(self, name: str) -> None:
        """A server says that it drains, and takes everything away."""
        if self.registered[name]:
            record = ServerRecord(name, "127.0.0.1:1", draining=True)
            self.store.commit({server_path(name): record.encode()})
            self.hosts[name].clear()
            self.lapse(name)

    @rule(
        path=st.sampled_from(["servers/alpha", "servers/-", "hosts/x", "moon/x", host_path(host("beta").key)])
    )
    def bad_record(self, path: str) -> None:
        """Somebody writes what is no record."""
        self.store.commit({path: b"{"})
        if path == "servers/alpha":
            self.registered["alpha"] = False

    # links

    @rule(name=st.sampled_from(PEERS))
    def link_up(self, name: str) -> None:
        """A server can be reached."""
        self.reached.add(name)

    @rule(name=st.sampled_from(PEERS))
    def link_down(self, name: str) -> None:
        """It can't any more."""
        self.reached.discard(name)
        self.mirror.take(self.view.lost(name, self.now))

    # the store

    @rule()
    def empty(self) -> None:
        """The store begins anew, which is known by that it does not know any lease."""
        self.store = Store()
        self.watched, self.anew = False, True
        self.registered = dict.fromkeys(self.registered, False)

    @rule(back=st.integers(0, 3))
    def compact(self, back: int) -> None:
        """The store forgets what has been."""
        self.store.compacted = max(self.store.compacted, self.store.revision - back)
        self.store.history = [each for each in self.store.history if each.revision > self.store.compacted]
        if self.view.revision < self.store.compacted:
            self.watched = False  # such a watch is cancelled

    # the watch

    @rule()
    def lose_watch(self) -> None:
        """The connection is lost, and the next one has to begin with what is known."""
        self.watched = False

    @rule(most=st.integers(1, 6), again=st.integers(0, 3), parts=st.sampled_from([None, None, 1, 2, 3]))
    def watch(self, most: int, again: int, parts: int | None) -> None:
        """
        Some changes come, perhaps once more; what can't be had any more is made up for.

        The watch may be lost when only some parts of these have been taken in.
        """
        view, store = self.view, self.store
        start = max(view.revision - again, 0)
        if not self.watched:
            start = view.revision
            if self.anew or not start or start > store.revision or start < store.compacted:
                self.resync()
                return
        self.watched = True
        revisions = sorted({each.revision for each in store.history if each.revision > start})[:most]
        changes = [each for each in store.history if each.revision in revisions]
        for told in islice(view.changed(changes, self.now), parts):
            self.mirror.take(told)
        self.watched = parts is None

    @rule()
    def resync(self) -> None:
        """Everything is read."""
        entries = list(self.store.keys.items())
        self.mirror.take(take_all(self.view, entries, self.store.revision, self.now))
        self.watched, self.anew = True, False

    @rule(seconds=st.sampled_from([1.0, HOLD]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds
        deadline = self.view.deadline
        if deadline is not None and deadline <= self.now:
            self.mirror.take(self.view.expire(self.now))
        assert self.view.deadline is None or self.view.deadline > self.now

    # what has to be true

    @invariant()
    def told_what_is_known(self) -> None:
        """Listeners know what the view does, and never of this server itself."""
        assert self.mirror.servers == self.view.servers
        assert self.mirror.hosts == self.view.hosts
        assert OWN not in self.view.servers
        fresh = Mirror()
        fresh.take(list(self.view.replay()))
        assert (fresh.servers, fresh.hosts) == (self.view.servers, self.view.hosts)

    @precondition(lambda self: self.watched and self.view.revision == self.store.revision)
    @invariant()
    def up_to_date(self) -> None:
        """Who has a record is known, with exactly its hosts; who has none only as long as it is reached."""
        stored: dict[str, set[HostKey]] = {}
        hosts: list[HostRecord] = []
        for path, value in self.store.keys.items():
            try:
                name = read_path(path)
                if isinstance(name, HostKey):
                    hosts.append(HostRecord.decode(name, value))
                elif name is not None and name != OWN:
                    record = ServerRecord.decode(name, value)
                    assert self.view.servers[name] == record
                    stored[name] = set()
            except BadRecord:
                continue
        for each in hosts:
            if each.server in stored:
                assert self.view.hosts[each.key] == each
                stored[each.server].add(each.key)
        for name in self.view.servers:
            if name in stored:
                assert {key for key in self.view.hosts if key.server == name} == stored[name]
            else:
                assert name in self.view.held
                assert name in self.reached or self.view.deadline is not None
        own = {
            path: b"" if path.startswith("hosts/") else value
            for path, value in self.store.keys.items()
            if path.split("/")[-1] == OWN
        }
        assert self.view.own == own


class ViewMachineTests(SynchronousTestCase):
    """The machine above."""

    def test_machine(self) -> None:
        self.patch(view_module, "PART", 2)
        run_state_machine_as_test(
            ViewMachine, settings=settings(max_examples=most(60), stateful_step_count=40, deadline=None)
        )


class ViewTests(SynchronousTestCase):
    """What is worth an example."""

    def setUp(self) -> None:
        self.reached: set[str] = set()
        self.bad: list[str] = []
        self.view = View(
            OWN, self.reached.__contains__, bad=lambda path, problem: self.bad.append(f"{path}: {problem}")
        )
        self.alpha = ServerRecord("alpha", "127.0.0.1:1", incarnation="1")
        self.agent = host("alpha")

    def begin(self, *records: HostRecord | ServerRecord) -> None:
        """Begin with some records, at revision 5."""
        entries = [(each.path, each.value or b"") for each in (put(record, 1) for record in records)]
        take_all(self.view, entries, 5, 0.0)

    def methods(self, notices: list[Notice]) -> list[str]:
        """Their methods."""
        return [notice.method for notice in notices]

    def test_host_waits_for_its_server(self) -> None:
        self.begin(self.agent)
        self.assertEqual(self.view.hosts, {})
        found = change_all(self.view, [put(self.alpha, 6)], 0.0)
        self.assertEqual(self.methods(found), ["server_came", "host_came"])

    def test_dead_server_goes_with_its_hosts(self) -> None:
        self.begin(self.alpha, self.agent)
        found = change_all(self.view, [gone(self.agent, 6), gone(self.alpha, 6)], 0.0)
        self.assertEqual(self.methods(found), ["host_left", "server_left"])

    def test_lapsed_lease_of_a_server_that_is_reached(self) -> None:
        """Its hosts stay until it has said which ones it has now."""
        other = host("alpha", agent="1" * 32)
        self.begin(self.alpha, self.agent, other)
        self.reached.add("alpha")
        lapse = [gone(each, 6) for each in (self.agent, other, self.alpha)]
        self.assertEqual(change_all(self.view, lapse, 0.0), [])
        self.assertEqual(self.view.held, ["alpha"])
        self.assertEqual(self.view.expire(1000.0), [])
        self.assertEqual(change_all(self.view, [put(other, 7)], 0.0), [])
        found = change_all(self.view, [put(self.alpha, 8)], 0.0)
        self.assertEqual([(each.method, each.arguments[0]) for each in found], [("host_left", self.agent)])
        self.assertEqual(list(self.view.hosts), [other.key])

    def test_lapsed_and_read_anew(self) -> None:
        """Who is back with all it had when everything is read has never been away."""
        other = host("alpha", agent="1" * 32)
        self.begin(self.alpha, self.agent, other)
        self.reached.add("alpha")
        change_all(self.view, [gone(each, 6) for each in (self.agent, other, self.alpha)], 0.0)
        entries = [(each.path, each.value or b"") for each in (put(self.alpha, 8), put(self.agent, 8))]
        found = take_all(self.view, entries, 8, 0.0)
        self.assertEqual([(each.method, each.arguments[0]) for each in found], [("host_left", other)])

    def test_much_is_taken_in_bit_by_bit(self) -> None:
        everything = self.view.everything()
        records = [self.alpha, *(host("alpha", agent=f"{number:032x}") for number in range(3 * PART))]
        everything.add((each.path, each.value or b"") for each in (put(record, 1) for record in records))
        parts = [len(part) for part in self.view.snapshot(everything, 5, 0.0)]
        self.assertEqual(sum(parts), len(records))
        self.assertLessEqual(max(parts), PART + 1)

    def test_the_end_of_a_lease_is_taken_in_bit_by_bit(self) -> None:
        """It is one revision, known when all of it is; whoever asks in between is told what is so by then."""
        agents = [host("alpha", agent=f"{number:032x}") for number in range(10 * PART)]
        self.begin(self.alpha, *agents)
        parts = self.view.changed([gone(each, 6) for each in (*agents, self.alpha)], 0.0)
        counts = []
        for notices in parts:
            counts.append(len(notices))
            self.assertLessEqual(len(notices), PART + 1)
            self.assertEqual(len(self.view.hosts), len(agents) - sum(counts) + (not self.view.servers))
        self.assertEqual((sum(counts), self.view.revision), (len(agents) + 1, 6))

    def test_what_is_kept_of_our_own(self) -> None:
        """Of hosts, that they are there; of what is no record, nothing: others can write that, too."""
        own = ServerRecord(OWN, "127.0.0.1:1")
        mine = put(host(OWN), 1)
        junk = Change(f"routes/orders/{OWN}", b"x" * (MAX_RECORD + 1), 1)
        expected = {server_path(OWN): own.encode(), mine.path: b"", junk.path: b""}
        changes = [put(own, 6), mine._replace(revision=7), junk._replace(revision=8)]
        take_all(self.view, [(each.path, each.value or b"") for each in changes], 5, 0.0)
        self.assertEqual(self.view.own, expected)
        self.view.own.clear()
        change_all(self.view, changes, 0.0)
        self.assertEqual(self.view.own, expected)

    def test_lapsed_and_lost(self) -> None:
        self.begin(self.alpha, self.agent)
        self.reached.add("alpha")
        change_all(self.view, [gone(self.agent, 6), gone(self.alpha, 6)], 0.0)
        self.reached.clear()
        self.assertEqual(self.methods(self.view.lost("alpha", 1.0)), ["host_left", "server_left"])
        self.assertEqual(self.view.lost("alpha", 1.0), [])

    def test_link_down_while_the_store_knows_it(self) -> None:
        """That is for links to deal with: the server may be well for others."""
        self.begin(self.alpha, self.agent)
        self.assertEqual(self.view.lost("alpha", 1.0), [])

    def test_emptied_store(self) -> None:
        """Everything stays until servers have had the time to publish it again."""
        self.begin(self.alpha, self.agent)
        self.assertEqual(take_all(self.view, [], 1, 100.0), [])
        self.assertEqual(self.view.deadline, 100.0 + HOLD)
        self.assertEqual(change_all(self.view, [put(self.agent, 2), put(self.alpha, 3)], 101.0), [])
        self.assertIs(self.view.deadline, None)
        self.assertEqual(self.view.revision, 3)

    def test_emptied_store_and_dead_server(self) -> None:
        self.begin(self.alpha, self.agent)
        take_all(self.view, [], 1, 100.0)
        self.assertEqual(self.view.expire(100.0 + HOLD - 0.1), [])
        self.assertEqual(self.methods(self.view.expire(100.0 + HOLD)), ["host_left", "server_left"])

    def test_planned_leave_is_believed(self) -> None:
        """Although its links are still up."""
        self.begin(self.alpha, self.agent)
        self.reached.add("alpha")
        leaving = ServerRecord("alpha", "127.0.0.1:1", draining=True)
        found = change_all(
            self.view,
            [put(leaving, 6), gone(self.agent, 7), gone(leaving, 7)],
            0.0,
        )
        self.assertEqual(self.methods(found), ["server_changed", "host_left", "server_left"])

    def test_twice_is_once(self) -> None:
        self.begin(self.alpha, self.agent)
        changes = [gone(self.agent, 6), put(self.agent, 7)]
        self.assertEqual(self.methods(change_all(self.view, changes, 0.0)), ["host_left", "host_came"])
        self.assertEqual(change_all(self.view, changes, 0.0), [])

    def test_bad_records_cost_themselves(self) -> None:
        self.begin(self.alpha, self.agent)
        bad = [
            put(self.agent, 6)._replace(value=b"{"),
            Change("servers/b ad", b"{}", 6),
            Change("hosts/%zz", b"{}", 6),
            Change("hosts/a/b/c/d", b"{}", 6),
            Change("hosts/%6frders/" + "0" * 32 + "/alpha", host("alpha").encode(), 6),
            Change("x" * 5000, b"{}", 6),
            Change("later/kind", b"?", 6),
            put(host("alpha", agent="1" * 32), 6),
        ]
        found = change_all(self.view, bad, 0.0)
        self.assertEqual(self.methods(found), ["host_left", "host_came"])
        self.assertEqual(len(self.bad), 6)

    def test_bounds(self) -> None:
        self.patch(record_table, "MAX_SERVERS", 2)
        self.patch(record_table, "MAX_HOSTS", 2)
        for number in range(4):
            server = ServerRecord(f"s{number}", "127.0.0.1:1")
            change_all(self.view, [put(server, 10 + number), put(host(f"s{number}"), 10 + number)], 0.0)
        self.assertEqual(sorted(self.view.servers), ["s0", "s1"])
        self.assertEqual(sorted(key.server for key in self.view.hosts), ["s0", "s1"])
        self.assertEqual(len(self.bad), 4)
        change_all(self.view, [gone(host("s0"), 20), put(host("s1", agent="1" * 32), 21)], 0.0)
        self.assertEqual({key.server for key in self.view.hosts}, {"s1"})

    def test_log_of_bad_records_is_bounded(self) -> None:
        change_all(self.view, [Change(f"servers/{n} ", b"", 6) for n in range(1000)], 0.0)
        self.assertLessEqual(len(self.bad), MAX_BAD)
