"""Pages of lists that change while they are read: whatever is there all the time is listed once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from operator import itemgetter
from random import Random
from types import SimpleNamespace
from typing import Any

from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.admin import agent_descriptions, lists, paging
from reverseproxy.admin.agent_descriptions import AgentPages, servers_of
from reverseproxy.admin.agent_index import AgentIndex
from reverseproxy.admin.merging import is_away, merge_agents, merge_hosts
from reverseproxy.admin.paging import cut, end_of, first_items, latest_page, page_of_items
from reverseproxy.admin.read_api import ReadApi
from reverseproxy.admin.remote_agents import RemoteAgents
from reverseproxy.admin.slices import Steps, at_once, portions
from reverseproxy.admin.sources import Answer
from reverseproxy.config.loader import loads
from reverseproxy.fleet.records import HostRecord
from reverseproxy.identity import AgentIdentity, handle_of
from reverseproxy.tunnel.server.exclusions import Exclusions
from tests import most
from tests.integration import configs

CONFIG = loads(json.dumps(configs.server(client="127.0.0.1:1", tunnel="127.0.0.1:2")), "document").config
IP = "192.0.2.1"
RANDOMS = st.builds(Random, st.integers(0, 2**32))
CLUSTER = "clientCluster"
# What fails is told as it was found: to make it smaller would take minutes.
SOME = settings(max_examples=most(60), deadline=None, phases=[Phase.reuse, Phase.generate])


def named(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "number": number} for number, name in enumerate(names)]


class CutTests(SynchronousTestCase):
    def test_whole(self) -> None:
        self.assertEqual(cut(named("a", "b"), [None, None], 2, "name"), (named("a", "b"), None))
        self.assertEqual(cut([], [], 2, "name"), ([], None))

    def test_nothing_behind_who_has_more(self) -> None:
        """Of that one it is not known what comes then."""
        items, last = cut(named("a", "c", "d"), ["c", None, "d"], 5, "name")
        self.assertEqual((items, last), (named("a", "c"), "c"))

    def test_what_was_looked_at_has_left(self) -> None:
        """The next page begins after it all the same, though this one has less, or nothing."""
        self.assertEqual(cut(named("a"), ["b"], 2, "name"), (named("a"), "b"))
        self.assertEqual(cut([], ["b"], 2, "name"), ([], "b"))

    def test_more_than_a_page(self) -> None:
        self.assertEqual(cut(named("a", "b", "c"), [None], 2, "name"), (named("a", "b"), "b"))

    def test_the_same_key(self) -> None:
        """A page ends before it, or takes all of it."""
        for keys, limit, end in (
            ("abb", 2, 1),
            ("abbc", 3, 3),
            ("aab", 1, 2),
            ("aaa", 2, 3),
            ("abc", 3, 3),
            ("", 1, 0),
        ):
            self.assertEqual(end_of(keys, limit, str), end, (keys, limit))
        self.assertEqual(cut(named("a", "a", "b"), [None], 1, "name"), (named("a", "a"), "a"))

    def test_of_one_process(self) -> None:
        items = named("c", "a", "b", "a")
        found = at_once(page_of_items(items, {"limit": 1}))
        self.assertEqual((found["items"], found["last"]), ([items[1], items[3]], "a"))
        found = at_once(page_of_items(items, {"limit": 2, "after": "a"}))
        self.assertEqual((found["items"], found["last"]), ([items[2], items[0]], None))

    @given(st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=9), max_size=3), st.integers(1, 4))
    @SOME
    def test_several(self, workers: list[list[str]], limit: int) -> None:
        """Page after page has all that any of them has, in order, and none of it twice."""
        every = [
            [{"name": name, "number": (worker, number)} for number, name in enumerate(names)]
            for worker, names in enumerate(workers)
        ]
        found: list[Any] = []
        after: str | None = ""
        while after is not None:
            pages = [at_once(page_of_items(items, {"after": after, "limit": limit})) for items in every]
            items = sorted((item for page in pages for item in page["items"]), key=itemgetter("name"))
            page, after = cut(items, [page["last"] for page in pages], limit, "name")
            found += page
        self.assertEqual(
            [item["name"] for item in found], sorted(name for names in workers for name in names)
        )
        self.assertEqual(len({item["number"] for item in found}), len(found))


class LatestTests(SynchronousTestCase):
    @given(st.lists(st.lists(st.integers(0, 5), max_size=12), max_size=3), st.integers(1, 4))
    @SOME
    def test_several(self, workers: list[list[int]], limit: int) -> None:
        """The latest come first, page after page, and none is left out or comes twice; many have one time."""
        tallies = [
            SimpleNamespace(
                tally=SimpleNamespace(
                    refusals=[
                        {"time": float(time), "number": (worker, number)} for number, time in enumerate(times)
                    ]
                )
            )
            for worker, times in enumerate(workers)
        ]
        found: list[Any] = []
        before: Any = None
        for _ in range(40):
            arguments = {"limit": limit, "before": before}
            answers = [
                lists.refused(SimpleNamespace(tunnels={"t": each}), arguments)  # type: ignore[arg-type]
                for each in tallies
            ]
            items = sorted(
                (item for each in answers for item in each["items"]), key=lambda item: -item["time"]
            )
            page, before = latest_page(items, limit, before, any(each["more"] for each in answers))
            self.assertLessEqual(len(page), limit)
            found += page
            if before is None:
                break
        self.assertEqual(
            [item["time"] for item in found],
            sorted((time for times in workers for time in times), reverse=True),
        )
        self.assertEqual(len({item["number"] for item in found}), len(found))

    def test_long(self) -> None:
        """As many are sorted at once as a step has time for."""
        steps = first_items(range(10_000, 0, -1), 10, lambda number: number)
        self.assertEqual(sum(1 for _ in steps), 10_000 // paging.STRIDE)

    @given(st.lists(st.integers(0, 30)), st.integers(1, 20))
    @SOME
    def test_first_items(self, numbers: list[int], limit: int) -> None:
        """The page that they make is that of all items."""
        self.patch(paging, "STRIDE", 3)
        items = named(*map(str, numbers))
        known = sorted(items, key=itemgetter("name"))
        first = at_once(first_items(items, limit, itemgetter("name")))
        self.assertEqual(cut(first, (), limit, "name"), cut(known, (), limit, "name"))


class PortionsTests(SynchronousTestCase):
    @given(RANDOMS, st.integers(1, 5))
    @SOME
    def test_none_is_left_out(self, random: Random, size: int) -> None:
        """Also if as many come as leave, and the dictionary makes room meanwhile."""
        numbers = dict.fromkeys(range(random.randrange(20)))
        stable = {number for number in numbers if random.random() < 0.5}
        left, fresh = [0], 1000
        found: list[int] = []
        for portion in portions(numbers.keys(), size, lambda: left[0]):
            found += portion
            if fresh > 1100:
                continue
            for _ in range(random.randrange(4)):
                leavers = [number for number in numbers if number not in stable]
                if leavers and random.random() < 0.5:
                    del numbers[random.choice(leavers)]
                    left[0] += 1
                if random.random() < 0.5:
                    fresh += 1
                    numbers[fresh] = None
        self.assertEqual(stable - {*found}, set())


class RemoteAgentsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.remote = RemoteAgents()

    def record(self, handle: str, server: str = "b", agent: str = "0" * 32, **more: Any) -> HostRecord:
        return HostRecord(CLUSTER, agent, server, handle=handle, **more)

    def test_come_and_leave(self) -> None:
        one, other = self.record("one"), self.record("one", "c")
        for record in (one, other, self.record("two"), self.record("")):
            self.remote.host_came(record)
        self.assertEqual(list(self.remote.names("")), ["one", "two"])
        self.assertEqual(list(self.remote.names("one")), ["two"])
        self.assertEqual(list(self.remote.of("one")), [one, other])
        self.remote.host_left(one, "gone")
        self.remote.host_left(self.record("none"), "never there")
        self.remote.host_left(self.record("two", "d"), "never there")
        self.assertEqual(list(self.remote.of("one")), [other])
        self.remote.host_left(other, "gone")
        self.assertEqual((list(self.remote.names("")), self.remote.of("one")), (["two"], ()))

    def test_changes(self) -> None:
        """What is known is what was said last, also of what it is called."""
        old = self.record("one")
        self.remote.host_came(old)
        self.remote.host_came(self.record("one", "c"))
        new = self.record("one", connections=5)
        self.remote.host_changed(new, old)
        self.assertEqual(servers_of(self.remote.of("one"))["b"]["connections"], 5)
        renamed = self.record("other")
        self.remote.host_changed(renamed, new)
        self.assertEqual([each.server for each in self.remote.of("one")], ["c"])
        self.assertEqual(self.remote.of("other"), (renamed,))
        named = self.record("named")
        self.remote.host_changed(named, renamed)
        self.remote.host_changed(self.record(""), named)
        self.assertEqual(list(self.remote.names("")), ["one"])

    def test_many_of_one_name(self) -> None:
        """Whatever stands in the store costs no more than there is of it."""
        records = [self.record("one", agent=f"{number:032x}") for number in range(20_000)]
        for record in records:
            self.remote.host_came(record)
        self.assertEqual(servers_of(self.remote.of("one"))["b"]["connections"], 20_000)
        for record in records:
            self.remote.host_left(record, "gone")
        self.assertEqual(self.remote.of("one"), ())


class FakeHost:
    """A connection of an agent, as one process has it, or knows it of another worker."""

    healthy, active, streams, rtt, unanswered = True, 0, 0, 0.1, 0.0
    weight, server, transport, cluster, closed = 1, "", None, None, False
    hostname, state, picked, ejected = "", "idle", 0, None
    metadata: Mapping[str, str] = {}

    def __init__(self, name: str, relayed: bool) -> None:
        self.identity = AgentIdentity(claim=name, agent_id=name, version=1)
        self.address = f"{IP}:{name}"
        self.is_remote = relayed
        self.health = SimpleNamespace(faults=0, why="")

    def measure(self, rtts: object) -> None:
        pass


class Crowd:
    """
    The agents of some workers of a server, and of other servers.

    A connection goes from one worker to another in two steps: for a while each of them thinks that
    another one has it.

    @ivar at: where each is: the number of a worker, -1 on the way to another worker, or another server.
    """

    def __init__(self, random: Random, workers: int) -> None:
        self.random = random
        exclusions = Exclusions(lambda: 0.0)
        self.indexes = [AgentIndex(exclusions, lambda: 0.0, lambda: 0.0) for _ in range(workers)]
        self.at: dict[str, int | str] = {}
        self.left = 0
        self.hosts: list[dict[str, FakeHost]] = [{} for _ in range(workers)]
        self.stable: list[str] = []
        self.waiting: dict[str, int] = {}
        self.fresh = 0

    @staticmethod
    def handle(name: str) -> str:
        return handle_of(AgentIdentity(agent_id=name), IP)

    def record(self, name: str, server: str) -> HostRecord:
        return HostRecord(CLUSTER, f"{int(name):032x}", server, handle=self.handle(name))

    def come(self, name: str, at: int | str) -> None:
        """An agent is there, at a worker or at another server."""
        self.at[name] = at
        for number, index in enumerate(self.indexes):
            if isinstance(at, str):
                index.remote.host_came(self.record(name, at))
                continue
            host = self.hosts[number][f"{IP}:{name}"] = FakeHost(name, number != at)
            index.joined(CLUSTER, host)  # type: ignore[arg-type]

    def go(self, name: str, at: int | str) -> None:
        """An agent is no more where it was."""
        for number, index in enumerate(self.indexes):
            if isinstance(at, str):
                index.remote.host_left(self.record(name, at), "")
            else:
                index.left(self.hosts[number].pop(f"{IP}:{name}"))  # type: ignore[arg-type]
        self.left += 1

    def relay(self, name: str, worker: int, relayed: bool) -> None:
        host = self.hosts[worker][f"{IP}:{name}"]
        host.is_remote = relayed
        self.indexes[worker].moved(CLUSTER, host)  # type: ignore[arg-type]

    def place(self) -> int | str:
        return self.random.choice([*range(len(self.indexes)), "b", "c"])

    def change(self) -> None:
        """Let something happen: somebody comes, leaves, or goes elsewhere; who is stable never leaves."""
        for name, worker in list(self.waiting.items()):
            if self.random.random() < 0.5:
                self.relay(name, worker, False)
                self.at[name] = worker
                del self.waiting[name]
        for _ in range(self.random.randrange(3)):
            name = self.random.choice(sorted(self.at)) if self.at else ""
            what = self.random.random()
            if what < 0.3 and self.fresh < 40:
                self.fresh += 1
                self.come(str(1000 + self.fresh), self.place())
            elif what < 0.6 and name and name not in self.stable and name not in self.waiting:
                self.go(name, self.at.pop(name))
            elif name and name not in self.waiting:
                self.move(name, self.at[name], self.place())

    def move(self, name: str, old: int | str, new: int | str) -> None:
        if isinstance(old, int) and isinstance(new, int):
            if old != new:
                self.relay(name, old, True)
                self.at[name] = -1
                self.waiting[name] = new
        elif old != new:
            self.come(name, new)  # it has connections there before it has none here
            self.go(name, old)


class FakeCluster:
    """The hosts of one worker."""

    def __init__(self, crowd: Crowd, worker: int) -> None:
        self.hosts = crowd.hosts[worker]
        self.ejector = SimpleNamespace(remaining=lambda host: None)
        self._crowd = crowd

    @property
    def left(self) -> int:
        return self._crowd.left


class Several:
    """Asks all workers of a crowd, one after the other, while it changes; see L{ISource}."""

    draining = False

    def __init__(self, crowd: Crowd) -> None:
        self.crowd = crowd
        self.silent: set[int] = set()

    def facts(self) -> Mapping[str, Any]:
        return {"workers": []}

    def steps(self, question: str, number: int, arguments: Mapping[str, Any]) -> Steps[Any]:
        if question == "hosts":
            parts = SimpleNamespace(clusters={CLUSTER: FakeCluster(self.crowd, number)})
            return lists.hosts(parts, arguments)  # type: ignore[arg-type]
        pages = AgentPages(self.crowd.indexes[number])
        return pages.page(arguments) if question == "agents" else pages.one(arguments)

    def ask(self, question: str, arguments: Mapping[str, Any]) -> Deferred[list[Answer]]:
        answers = []
        order = list(range(len(self.crowd.indexes)))
        self.crowd.random.shuffle(order)
        for number in order:
            if number in self.silent:
                answers.append(Answer(number + 1, None, "it does not answer"))
                continue
            steps = self.steps(question, number, json.loads(json.dumps(arguments)))
            while True:
                try:
                    next(steps)
                except StopIteration as done:
                    value = json.loads(json.dumps(done.value))
                    break
                self.crowd.change()
            answers.append(Answer(number + 1 if len(order) > 1 else 0, value))
            self.crowd.change()
        return succeed(answers)


class MostConnectionsTests(SynchronousTestCase):
    """How many connections an agent has had, at several workers."""

    def setUp(self) -> None:
        exclusions = Exclusions(lambda: 0.0)
        self.indexes = [AgentIndex(exclusions, lambda: 0.0, lambda: 0.0) for _ in range(2)]
        self.hosts: list[list[FakeHost]] = []
        for at in (0, 0):
            self.join(at)

    def join(self, at: int) -> None:
        self.hosts.append([FakeHost("1", number != at) for number in range(2)])
        for index, host in zip(self.indexes, self.hosts[-1], strict=True):
            index.joined(CLUSTER, host)  # type: ignore[arg-type]

    def merged(self) -> tuple[int, int]:
        pages = [
            (number, at_once(AgentPages(index).page({}))) for number, index in enumerate(self.indexes, 1)
        ]
        [agent] = at_once(merge_agents(pages))
        return agent["most_connections"], agent["connections"]

    def test_one_is_lost_and_comes_back_elsewhere(self) -> None:
        """It is not as if another one were missing."""
        self.assertEqual(self.merged(), (2, 2))
        for index, host in zip(self.indexes, self.hosts.pop(), strict=True):
            index.left(host)  # type: ignore[arg-type]
        self.assertEqual(self.merged(), (2, 1))
        self.join(1)
        self.assertEqual(self.merged(), (2, 2))

    def test_one_moves(self) -> None:
        for index, host in zip(self.indexes, self.hosts[0], strict=True):
            host.is_remote = not host.is_remote
            index.moved(CLUSTER, host)  # type: ignore[arg-type]
        self.assertEqual(self.merged(), (2, 2))


class ThereAllTheTimeTests(SynchronousTestCase):
    """Agents, and hosts, page after page."""

    def setUp(self) -> None:
        self.patch(agent_descriptions, "STRIDE", 2)
        self.patch(lists, "STRIDE", 2)
        self.patch(lists, "LOOK", 1)

    def crowd(self, random: Random, workers: int, elsewhere: bool = True) -> Crowd:
        crowd = Crowd(random, workers)
        if not elsewhere:
            crowd.place = partial(random.randrange, workers)  # type: ignore[method-assign]
        for number in range(1, 13):
            crowd.come(str(number), crowd.place())
        crowd.stable = [str(number) for number in range(1, 13) if random.random() < 0.7]
        return crowd

    def pages(
        self, ask: Callable[[Any], Any], limit: int, what: Mapping[str, str] | None = None
    ) -> Iterator[dict[str, Any]]:
        after: str | None = ""
        while after is not None:
            query = {"after": after, "limit": str(limit), **(what or {})}
            reply = self.successResultOf(Deferred.fromCoroutine(ask(SimpleNamespace(query=query))))
            page = json.loads(reply.body)
            yield page
            self.assertTrue(page["next"] is None or page["next"] > after, page)
            after = page["next"]

    def reading(self, crowd: Crowd) -> tuple[ReadApi, Several]:
        source = Several(crowd)
        return ReadApi(CONFIG, source, Clock()), source

    @given(RANDOMS, st.integers(1, 3), st.integers(1, 5))
    @SOME
    def test_agents(self, random: Random, workers: int, limit: int) -> None:
        crowd = self.crowd(random, workers)
        reading, _ = self.reading(crowd)
        found: list[str] = []
        for page in self.pages(reading.simple["agents"], limit):
            self.assertLessEqual(len(page["items"]), limit)
            found += [item["id"] for item in page["items"]]
        self.assertEqual(found, sorted({*found}))
        self.assertEqual({*map(crowd.handle, crowd.stable)} - {*found}, set())

    @given(RANDOMS, st.integers(1, 3))
    @SOME
    def test_agents_of_a_cluster(self, random: Random, workers: int) -> None:
        crowd = self.crowd(random, workers)
        reading, _ = self.reading(crowd)
        what = {"cluster": CLUSTER, "identity": "unproved"}
        found = [
            item["id"] for page in self.pages(reading.simple["agents"], 3, what) for item in page["items"]
        ]
        self.assertEqual(found, sorted({*found}))
        self.assertEqual({*map(crowd.handle, crowd.stable)} - {*found}, set())
        self.assertEqual(
            [page["items"] for page in self.pages(reading.simple["agents"], 3, {"cluster": "other"})], [[]]
        )

    @given(RANDOMS, st.integers(1, 3))
    @SOME
    def test_agents_by_their_ids(self, random: Random, workers: int) -> None:
        crowd = self.crowd(random, workers)
        reading, _ = self.reading(crowd)
        ids = [*map(crowd.handle, crowd.stable)]
        [page] = self.pages(reading.simple["agents"], 1, {"ids": ",".join(ids)})
        self.assertEqual([item["id"] for item in page["items"]], sorted(ids))
        for key in ids:
            self.assertEqual(self.successResultOf(Deferred.fromCoroutine(reading.agent(key)))["id"], key)

    @given(RANDOMS, st.integers(1, 3), st.integers(1, 5))
    @SOME
    def test_hosts(self, random: Random, workers: int, limit: int) -> None:
        crowd = self.crowd(random, workers, elsewhere=False)
        reading, _ = self.reading(crowd)
        found: list[str] = []
        for page in self.pages(lambda call: reading.hosts(call, CLUSTER), limit):
            found += sorted({item["address"] for item in page["items"]})
            self.assertTrue(all("state" in item for item in page["items"]), page["items"])
        self.assertEqual(found, sorted({*found}))
        self.assertEqual({f"{IP}:{name}" for name in crowd.stable} - {*found}, set())

    def test_a_worker_does_not_answer(self) -> None:
        """Its agents are known to the others, and are listed without what it knows of them."""
        crowd = Crowd(Random(1), 2)
        crowd.change = lambda: None  # type: ignore[method-assign]
        crowd.come("1", 0)
        crowd.come("2", 1)
        reading, source = self.reading(crowd)
        source.silent = {1}
        [page] = self.pages(reading.simple["agents"], 5)
        self.assertEqual(
            {item["claimed_host_name"]: item["connections"] for item in page["items"]}, {"1": 1, "2": 0}
        )
        self.assertEqual(page["problems"], [{"worker": 2, "problem": "it does not answer"}])
        [page] = self.pages(lambda call: reading.hosts(call, CLUSTER), 5)
        self.assertEqual([item["worker"] for item in page["items"]], [1, 1])
        self.assertFalse(any("relayed" in item for item in page["items"]))

    def test_who_has_left(self) -> None:
        """One that workers only know of each other, and no more when they are asked again, is gone."""
        crowd = Crowd(Random(1), 2)
        crowd.change = lambda: None  # type: ignore[method-assign]
        crowd.come("1", 0)
        crowd.relay("1", 0, True)
        reading, source = self.reading(crowd)
        ask, asked = source.ask, []

        def ask_and_go(question: str, arguments: Mapping[str, Any]) -> Deferred[list[Answer]]:
            answers = ask(question, arguments)
            asked.append(dict(arguments))
            if len(asked) == 1:
                crowd.go("1", 0)
            return answers

        self.patch(source, "ask", ask_and_go)
        [page] = self.pages(reading.simple["agents"], 5)
        self.assertEqual(page["items"], [])
        self.assertEqual(asked, [{"after": "", "limit": 5}, {"ids": [crowd.handle("1")]}])


class MergedHostsTests(SynchronousTestCase):
    def test_hosts(self) -> None:
        """One host of all workers is one of each; one that has gone from one to another stands there once."""
        both = {"address": "a", "relayed": False}
        gone = {"address": "b", "relayed": True}
        mine = {"address": "c", "relayed": False}
        found = merge_hosts([(1, [both, gone, mine]), (2, [both, gone, {**mine, "relayed": True}])])
        self.assertEqual(
            [(item["address"], item["worker"], item["relayed"]) for item in found],
            [("a", 1, False), ("a", 2, False), ("b", 2, True), ("c", 1, False)],
        )

    def test_away(self) -> None:
        self.assertTrue(is_away({"connections": 0, "elsewhere": {}}))
        self.assertFalse(is_away({"connections": 1, "elsewhere": {}}))
        self.assertFalse(is_away({"connections": 0, "elsewhere": {"b": {}}}))


class RoutesOfOnePlaceTests(SynchronousTestCase):
    def test_pages(self) -> None:
        """What an agent has brought to two listeners has one place; no page takes it apart."""
        reading = ReadApi(CONFIG, SimpleNamespace(), Clock())  # type: ignore[arg-type]
        brought = [{"place": "agents.a", "listener": name} for name in ("one", "two")]
        page, last = at_once(reading._routes.page("", 1, brought))
        self.assertEqual(([item["listener"] for item in page], last), (["one", "two"], "agents.a"))
        page, last = at_once(reading._routes.page("agents.a", 1, brought))
        self.assertEqual(([item["place"][:7] for item in page], last), (["servers"], None))
