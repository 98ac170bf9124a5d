"""
Granted routes of a server with workers: a supervisor and two workers in memory.

The test decides when each message between them is delivered, and each answer of the directory.
"""

from __future__ import annotations

import json
from collections import deque
from itertools import permutations
from types import SimpleNamespace
from typing import Any, Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.fleet.records import RouteKey, RouteRecord
from reverseproxy.fleet.route_arbiter import DECIDE, FleetRouteArbiter
from reverseproxy.fleet.supervisor_routes import SupervisorRoutes
from reverseproxy.identity.allowance import Allowance
from reverseproxy.listener.sockets import ListenerFailed
from reverseproxy.tunnel.server.agent_routes import AgentRoutes
from reverseproxy.tunnel.server.claims import Claim, Claims, Denied, Rules
from reverseproxy.tunnel.server.route_interfaces import Wanted
from reverseproxy.wire.mosn.frames import Status
from reverseproxy.workers import route_claims
from reverseproxy.workers.route_arbiter import DECISION_TIMEOUT, WorkerRouteArbiter
from reverseproxy.workers.route_client import RouteArbiterClient
from tests import most
from tests.fleet import test_routes

GRACE: Final = 5.0
PORTS: Final = (3000, 3001, 3002)
HERE, THERE = "gamma", "beta"


def wish(cluster: str, owner: str = "one", ports: tuple[int, ...] = (), domain: str = "") -> Wanted:
    """What an agent asks for."""
    domains = (domain or f"{cluster}.example",)
    claim = Claim(cluster, owner, domains, 0 if ports else None)
    return Wanted(claim, owner, tuple((port, f"127.0.0.1:{port}") for port in ports))


class Store:
    """
    What the directory has.

    @ivar up: whether it is reached.
    @ivar own: what server gamma has there.
    @ivar others: what others have.
    """

    def __init__(self) -> None:
        self.up = True
        self.own: dict[str, RouteRecord] = {}
        self.others: dict[RouteKey, RouteRecord] = {}

    def conflict(self, record: RouteRecord, among: Any) -> RouteRecord | None:
        """What is in the way of a record."""
        return next((each for each in among if each.conflicts(record)), None)


class Directory:
    """One process's view of the store."""

    server_id = HERE

    def __init__(self, store: Store) -> None:
        self.store = store
        self.servers: dict[str, Any] = {THERE: None}
        self.dead = False
        self._wanted: dict[str, RouteRecord] = {}
        self._dirty = dict.fromkeys(store.own)  # what another process has left behind
        self._told: Any = None
        self._own: Any = None
        self._lost: Any = None

    @property
    def routes(self) -> dict[RouteKey, RouteRecord]:
        """What others have."""
        return self.store.others

    def publish_routes(self, record: RouteRecord) -> None:
        """To be written, if it is another one."""
        if self._wanted.get(record.cluster) != record:
            self._wanted[record.cluster] = record
            self._dirty.setdefault(record.cluster)

    def withdraw_routes(self, cluster: str) -> None:
        """To be deleted."""
        if self._wanted.pop(cluster, None) is not None:
            self._dirty.setdefault(cluster)

    def follow_routes(self, told: Any, own: Any, lost: Any) -> None:
        """Say what there is."""
        self._told, self._own, self._lost = told, own, lost
        for record in list(self.routes.values()):
            told("came", record)

    def write(self) -> bool:
        """Write one thing, if that is possible."""
        if self.dead or not self.store.up or not self._dirty:
            return False
        cluster = next(iter(self._dirty))
        del self._dirty[cluster]
        record = self._wanted.get(cluster)
        if record is None:
            self.store.own.pop(cluster, None)
        else:
            self.store.own[cluster] = record
            self._own(record, self.store.conflict(record, self.routes.values()))
        return True

    def lose(self) -> None:
        """The lease has ended: what was there is written anew."""
        if self.store.up:
            self.store.own.clear()
            self._lost()
            self._dirty = dict.fromkeys(self._wanted)

    def come(self, record: RouteRecord) -> bool:
        """Another server has routes, unless it is second."""
        refused = self.store.conflict(record, [*self.store.own.values(), *self.routes.values()])
        if not self.store.up or refused or record.key in self.routes:
            return False
        self.routes[record.key] = record
        self._told("came", record)
        return True

    def leave(self, key: RouteKey) -> None:
        """It has them no more."""
        if self.store.up and key in self.routes:
            self._told("left", self.routes.pop(key))


class Surface:
    """What routes are made of, as far as it can fail."""

    def __init__(self) -> None:
        self.made: set[object] = set()

    def add(self, what: object, cluster: str = "", listen: object = None) -> None:
        """Make something."""
        if what in self.made:
            raise ValueError(f"there is {what} already")
        self.made.add(what)

    add_cluster = add_domain = open_port = add

    def remove(self, what: object) -> None:
        """Take it away."""
        self.made.remove(what)

    remove_cluster = remove_domain = close_port = remove

    def address_of(self, port: int) -> str:
        """Where."""
        return f"127.0.0.1:{port}"

    def expect_host(self, name: str, seconds: float) -> None:
        """Nothing is asked for."""


class Worker:
    """A worker's place, with the process that has it."""

    handover = None

    def __init__(self, number: int, world: World) -> None:
        self.number = number
        self.world = world
        self.begin()

    def begin(self) -> None:
        """Be a new process."""
        self.ready = True
        self.control: Any = object()
        self.down: deque[Any] = deque()
        self.up: deque[Any] = deque()
        self.surface = Surface()
        self.speaks: Any = None
        clock: Any = self.world.clock
        rules = Rules(ports=Allowance.of((), ["3000-3002"]), grace=GRACE)
        self.claims = Claims(rules, self.surface.made.__contains__)
        surface: Any = self.surface
        self.routes = AgentRoutes(self.claims, surface, clock)
        self.route_client = RouteArbiterClient(self.tell, self.number, 2, None, clock)
        server: Any = SimpleNamespace(routes=self.routes)
        self.route_client.servers = {"tunnels": server}
        self.routes.arbiter = self.route_client
        self.connections: list[Claim] = []
        if self.number == 0:
            self.directory = Directory(self.world.store)
            self.spokesman = SupervisorRoutes(
                self.directory,
                {"tunnels": self.routes}.get,
                clock,
                lambda record: "",
                lambda server: True,
                self,
            )

    def speak_for_fleet(self, heard: Any) -> Any:
        """See L{reverseproxy.workers.worker.Worker}."""
        self.speaks = heard
        return self.tell

    def send(self, message: Any) -> None:
        """Of the supervisor, to this one."""
        if self.control is not None:
            self.down.append(json.loads(json.dumps(message)))

    def tell(self, message: Any) -> None:
        """Of this one, to the supervisor."""
        self.up.append(json.loads(json.dumps(message)))

    def hear(self) -> bool:
        """Take the next message of the supervisor's."""
        if not self.down:
            return False
        message = self.down.popleft()
        (self.speaks if message["do"].startswith("fleet_") else self.route_client.received)(message)
        return True

    def say(self) -> bool:
        """Let the supervisor take the next message."""
        if not self.up:
            return False
        self.world.arbiter.received(self, self.up.popleft())
        return True

    def ask(self, wanted: Wanted) -> list[Denied | Claim]:
        """An agent asks, as L{AgentRoutes.ask} has it; what comes of it is added to what is returned."""
        answers: list[Denied | Claim] = []

        def looked(denied: Denied | None) -> None:
            claim = self.claims.find(wanted.claim.cluster)
            if denied is None and claim is not None and claim.owner == wanted.claim.owner:
                self.hold(claim.cluster)
                answers.append(claim)
            else:
                answers.append(denied or Denied(Status.ROUTE_TAKEN, "it is not there"))

        if self.claims.find(wanted.claim.cluster) is not None:
            looked(None)
        else:
            self.route_client.ask("tunnels", wanted).addCallback(looked)
        return answers

    def hold(self, cluster: str) -> None:
        """A connection holds what there is."""
        claim = self.routes.hold(cluster)
        if claim is not None:
            self.connections.append(claim)

    def let_go(self) -> None:
        """The connection that has been there for longest is gone."""
        if self.connections:
            self.routes.let_go(self.connections.pop(0))

    def end(self) -> None:
        """The process is killed."""
        self.ready, self.control = False, None
        self.down.clear()
        self.up.clear()
        if self.number == 0:
            self.directory.dead = True
            self.spokesman.arbiter.stop()
        self.world.arbiter.gone(self)

    def start(self) -> None:
        """Another one is there."""
        self.begin()
        self.ready = False
        self.world.arbiter.started(self)
        self.world.arbiter.ready(self)
        self.ready = True


class World:
    """
    Two workers and a supervisor.

    @ivar taken: ports that something else on the machine has.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.store = Store()
        self.taken: set[int] = set()
        self.places: list[Worker] = []
        self.places += [Worker(number, self) for number in range(2)]
        clock: Any = self.clock
        self.arbiter = WorkerRouteArbiter(self.places, clock, fleet=True)

    def open_sockets(self, config: Any, workers: int) -> list[Any]:
        """As if ports were bound."""
        if int(config.address.rpartition(":")[2]) in self.taken:
            raise ListenerFailed(f"can't listen on {config.address}")
        return []

    @property
    def first(self) -> Worker:
        """The worker that knows the fleet."""
        return self.places[0]

    @property
    def directory(self) -> Directory:
        """As it sees it."""
        return self.first.directory

    def settle(self) -> None:
        """Let everything be heard and written."""
        going, steps = True, 0
        while going:
            steps += 1
            assert steps < 1000, "they tell each other the same for ever"
            self.clock.advance(0)
            going = self.directory.write()
            for place in self.places:
                going |= place.hear() | place.say()

    def wait(self, seconds: float) -> None:
        """Let time pass while everything works."""
        for _ in range(round(seconds * 2)):
            self.clock.advance(0.5)
            self.settle()

    def there(self) -> dict[str, tuple[object, ...]]:
        """What the supervisor has."""
        return {
            each["cluster"]: _facts(each["owner"], each["domains"], each["port"])
            for each in self.arbiter.claims
        }

    def holders(self) -> set[str]:
        """Which clusters have connections to this server, of those that are there."""
        return {
            claim.cluster
            for place in self.places
            for claim in place.connections
            if place.claims.find(claim.cluster) is claim
        }

    def check(self) -> None:
        """What is served is what the fleet knows, and nothing that nobody holds is left."""
        there = self.there()
        for place in self.places:
            claims = {each.cluster: _facts(each.owner, each.domains, each.port) for each in place.claims}
            assert claims == there, (place.number, claims, there)
        own = {name: _facts(each.owner, each.domains, each.port) for name, each in self.store.own.items()}
        others = {each.cluster for each in self.store.others.values()}
        holders = self.holders()
        assert own == {name: facts for name, facts in there.items() if name in holders}, (own, there, holders)
        assert set(there) == holders | others, (there, holders, others)

    def heal(self) -> None:
        """Nothing is in the way any more, and what nobody holds has ended."""
        if not self.first.ready:
            self.first.end()
            self.first.start()
        self.store.up = True
        self.taken.clear()
        self.wait(DECISION_TIMEOUT)
        self.first.spokesman.arbiter.review()  # as nothing tells that a port is free
        self.wait(4 * (DECISION_TIMEOUT + GRACE))
        self.check()

    def leave(self) -> None:
        """Everybody goes."""
        for place in self.places:
            while place.connections:
                place.let_go()
        for key in list(self.store.others):
            self.directory.leave(key)
        self.wait(2 * (DECISION_TIMEOUT + GRACE))
        self.check()
        assert not self.store.own, self.store.own
        assert not len(self.arbiter), self.arbiter.claims
        for place in self.places:
            assert not place.surface.made, place.surface.made
        assert not self.clock.getDelayedCalls(), self.clock.getDelayedCalls()


def _facts(owner: str, domains: Any, port: int | None) -> tuple[object, ...]:
    return owner, tuple(domains), port


class GrantTests(SynchronousTestCase):
    """One after the other."""

    def setUp(self) -> None:
        self.world = World()
        self.patch(route_claims, "open_sockets", self.world.open_sockets)
        self.first, self.other = self.world.places

    def until_late(self, *wishes: Wanted) -> list[list[Denied | Claim]]:
        """Ask, with a first worker that hears of the first question only just before it is given up."""
        answers = [self.other.ask(each) for each in wishes]
        while self.other.say():
            pass
        self.world.clock.advance(DECISION_TIMEOUT - 1)
        self.assertTrue(self.first.hear())
        self.world.clock.advance(1)
        return answers

    def test_less_time_than_the_supervisor_has(self) -> None:
        """However many ports there are to try, and whether the directory answers or not."""
        self.assertLess(DECIDE, DECISION_TIMEOUT)
        for up in (False, True):
            self.world.store.up = up
            for port in PORTS:
                record = RouteRecord(f"c{port}", THERE, "tunnels", "two", "two", (), port)
                self.world.store.others[record.key] = record
            answers = self.other.ask(wish("app", ports=PORTS))
            for _ in range(int(DECISION_TIMEOUT) - 1):
                for place in self.world.places:
                    while place.say() or place.hear():
                        pass
                if up:
                    self.world.directory.write()  # one port in a second
                self.world.clock.advance(1)
            self.world.settle()
            ((denied,), (text, _)) = answers, ("had by" if up else "can't be reached", None)
            assert isinstance(denied, Denied)
            self.assertIn(text, denied.reason)
            self.world.store.others.clear()
            self.world.settle()
            self.world.check()

    def test_refused_behind_another_question(self) -> None:
        """The second question waits in the fleet behind the first one, which is refused: so is the second."""
        self.world.store.up = False
        one, two = self.until_late(*[wish("app", ports=PORTS)] * 2)
        self.assertEqual(self.world.there(), {})
        self.world.wait(DECIDE)
        for (answer,) in (one, two):
            self.assertIsInstance(answer, Denied)
        self.assertEqual(self.world.there(), {})
        self.world.heal()
        (answer,) = self._asked(wish("app", ports=PORTS))
        self.assertEqual(answer.port, PORTS[0])
        self.world.heal()
        self.world.leave()

    def _asked(self, wanted: Wanted) -> list[Any]:
        answers: list[Any] = self.other.ask(wanted)
        self.world.settle()
        return answers

    def test_granted_behind_another_question(self) -> None:
        """The answer to the first question, which comes late, takes nothing away from the second one."""
        for wishes in (
            [wish("app")] * 2,
            [wish("app", ports=PORTS)] * 2,
            [wish("app", ports=PORTS), wish("app")],
        ):
            self.world.store.up = False
            _, answers = self.until_late(*wishes)
            self.assertTrue(self.first.hear())
            self.world.store.up = True
            self.world.settle()
            if wishes[0] == wishes[1]:
                self.assertIsInstance(answers[0], Claim)
            else:
                self.assertIsInstance(answers[0], Denied)
            self.world.heal()
            self.world.leave()

    def test_any_order(self) -> None:
        """What is late is late: the first answer, the second question, and what others bring."""
        steps: dict[str, Any] = {
            "etcd is back": lambda: setattr(self.world.store, "up", True),
            "written": lambda: self.world.directory.write(),
            "time": lambda: self.world.clock.advance(DECISION_TIMEOUT / 2),
            "first hears": lambda: self.first.hear(),
            "first says": lambda: self.first.say(),
        }
        same = wish("app", ports=PORTS)
        for second in (same, wish("app"), wish("app", "two"), wish("other", ports=PORTS)):
            for order in permutations(steps):
                self.world.store.up = False
                self.until_late(same, second)
                for step in order:
                    steps[step]()
                self.world.heal()
                self.world.leave()

    def test_late_for_what_another_server_has_brought(self) -> None:
        """All workers have it by then, and a connection holds it: it stays known."""
        self.world.store.up = False
        self.until_late(wish("app"))
        self.world.store.up = True
        self.world.directory.come(RouteRecord("app", THERE, "tunnels", "one", "one", ("app.example",)))
        while self.first.say() or self.other.hear() or self.other.say() or self.first.hear():
            pass
        self.other.hold("app")
        self.world.heal()
        self.assertEqual(set(self.world.store.own), {"app"})
        self.world.directory.leave(RouteKey("app", THERE))
        self.world.heal()
        self.assertEqual(set(self.world.there()), {"app"})
        self.world.leave()

    def test_port_that_cannot_be_had(self) -> None:
        self.world.taken.update(PORTS)
        (denied,) = self._asked(wish("app", ports=PORTS))
        self.assertIn("can't listen", denied.reason)
        self.assertEqual(self.world.store.own, {})
        self.world.heal()
        self.world.leave()

    def test_taken_back_before_it_is_made(self) -> None:
        """Routes of another server, which has them no more when their turn comes."""
        self.world.directory.come(RouteRecord("app", THERE, "tunnels", "one", "one", ("app.example",)))
        self.other.ask(wish("other"))
        self.assertTrue(self.other.say())
        self.assertTrue(self.first.say())
        self.world.directory.leave(RouteKey("app", THERE))
        self.world.heal()
        self.assertEqual(set(self.world.there()), {"other"})
        self.world.leave()

    def test_taken_back_while_it_is_made(self) -> None:
        self.world.directory.come(RouteRecord("app", THERE, "tunnels", "one", "one", ("app.example",)))
        self.assertTrue(self.first.say())
        self.world.directory.leave(RouteKey("app", THERE))
        self.world.heal()
        self.assertEqual(self.world.there(), {})
        self.world.leave()

    def test_the_first_worker_ends_while_it_is_made(self) -> None:
        answers = self.other.ask(wish("app"))
        self.other.say(), self.first.hear(), self.world.directory.write()
        self.world.clock.advance(0)
        self.assertTrue(self.first.say())
        self.first.end()
        self.first.start()
        self.world.settle()
        self.assertIsInstance(answers[0], Denied)
        self.world.heal()
        self.world.leave()

    def test_ends_while_the_first_worker_is_started(self) -> None:
        """It takes longer than the grace time to start."""
        self._asked(wish("app"))
        self.first.end()
        self.other.let_go()
        self.world.settle()
        self.first.begin()
        self.first.ready = False
        self.world.arbiter.started(self.first)
        self.world.wait(2 * GRACE)
        self.world.arbiter.ready(self.first)
        self.first.ready = True
        self.world.heal()
        self.world.leave()

    def test_brought_while_the_first_worker_leaves(self) -> None:
        """It makes nothing any more, and has the others make what there is, once."""
        self.first.ready = False
        self.world.directory.come(RouteRecord("app", THERE, "tunnels", "one", "one", ("app.example",)))
        self.world.settle()
        self.assertEqual(set(self.world.there()), {"app"})
        self.world.heal()
        self.world.leave()

    def test_short_grace(self) -> None:
        """A grant stays until all workers have it, however long that takes."""
        for place in self.world.places:
            place.claims.rules = Rules(grace=0.0)
        answers = self.other.ask(wish("app"))
        self.other.say(), self.first.hear(), self.world.directory.write()
        self.world.clock.advance(GRACE)
        self.world.settle()
        self.assertIsInstance(answers[0], Claim)
        self.world.heal()
        self.world.leave()


class AskedTests(SynchronousTestCase):
    """Without workers: connections ask the arbiter themselves, and may be lost meanwhile."""

    def setUp(self) -> None:
        self.clock: Any = Clock()
        self.store = Store()
        self.directory = Directory(self.store)
        self.surface: Any = Surface()
        rules = Rules(ports=Allowance.of((), ["3000-3002"]), grace=GRACE)
        self.claims = Claims(rules, self.surface.made.__contains__)
        self.routes = AgentRoutes(self.claims, self.surface, self.clock)
        self.arbiter = FleetRouteArbiter(self.directory, {"tunnels": self.routes}.get, self.clock)

    def write(self) -> None:
        """Have the directory say what there is."""
        while self.directory.write():
            self.clock.advance(0)

    def ask(self, wanted: Wanted) -> Deferred[Denied | None]:
        """Ask, and look at what comes of it."""
        return self.arbiter.ask("tunnels", wanted)

    def test_lost_while_it_is_decided(self) -> None:
        """What it has asked for is granted, is nobody's, and ends; others who wait for it get it."""
        lost, waits = self.ask(wish("app", ports=PORTS)), self.ask(wish("app", ports=PORTS))
        lost.addErrback(lambda reason: None)
        lost.cancel()
        self.write()
        self.assertIsNone(self.successResultOf(waits))
        self.assertEqual(list(self.store.own), ["app"])
        self.clock.advance(GRACE)
        self.write()
        self.assertEqual((self.store.own, self.surface.made), ({}, set()))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_refused_together(self) -> None:
        """Who asks for the same gets the same answer; who does not hears that it was about other routes."""
        self.store.up = False
        asked = [self.ask(each) for each in (wish("app"), wish("app"), wish("app", "two"))]
        self.clock.advance(DECIDE)
        reasons = []
        for each in asked:
            denied = self.successResultOf(each)
            assert denied is not None
            reasons.append(denied.reason)
        self.assertIn("can't be reached", reasons[0])
        self.assertEqual(reasons[0], reasons[1])
        self.assertIn("other routes", reasons[2])

    def test_of_another_listener(self) -> None:
        """What a cluster has at one listener stays its own when somebody asks for it at another one."""
        asked = self.ask(wish("app"))
        self.write()
        self.assertIsNone(self.successResultOf(asked))
        self.arbiter.count(Claim("app", "one"), 1, GRACE)
        before = dict(self.store.own)
        for wanted in (wish("app", "two"), wish("app")):
            denied = self.successResultOf(self.arbiter.ask("elsewhere", wanted))
            assert denied is not None
            self.assertIn("other routes", denied.reason)
        self.write()
        self.assertEqual(self.store.own, before)

    def test_mistake(self) -> None:
        """Everybody who waits is told."""
        self.patch(self.directory, "publish_routes", lambda record: 1 / 0)
        failed = self.ask(wish("app"))
        self.failureResultOf(failed, ZeroDivisionError)
        self.assertNotIn("app", self.surface.made)
        self.patch(self.directory, "publish_routes", lambda record: None)
        self.assertNoResult(self.ask(wish("other")))


class LostTests(test_routes.Fleet):
    """An agent that goes while the fleet decides."""

    def test_nothing_stays(self) -> None:
        """However many ports there would be to try."""
        self.etcd.muted = True
        self.bring("mine", "alpha", port=0, tcp=True)
        self.assertEqual(self.stored(), ["app/alpha"])
        self.stop("mine")
        self.pass_time(2)  # for which the agent waits for an answer
        self.etcd.muted = False
        self.etcd.pump()
        self.pass_time(8)
        self.assertEqual((self.stored(), self.running["alpha"].answer("routes", {})), ([], []))


class GrantMachine(RuleBasedStateMachine):
    """Everything goes on in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.failures: list[Any] = []
        globalLogPublisher.addObserver(self.observe)
        self.world = World()
        self.before = route_claims.open_sockets
        setattr(route_claims, "open_sockets", self.world.open_sockets)  # noqa: B010

    def observe(self, event: dict[str, Any]) -> None:
        """Take note of mistakes of ours."""
        if "log_failure" in event:
            self.failures.append(event["log_failure"])

    workers = st.sampled_from((0, 1))
    clusters = st.sampled_from(("app", "other"))
    owners = st.sampled_from(("one", "one", "two"))
    domains = st.sampled_from(("", "", "same.example"))
    ports = st.sampled_from(((), PORTS, PORTS[:1]))

    @rule(number=workers, cluster=clusters, owner=owners, ports=ports, domain=domains)
    def ask(self, number: int, cluster: str, owner: str, ports: tuple[int, ...], domain: str) -> None:
        """An agent brings routes."""
        place = self.world.places[number]
        if place.ready:
            place.ask(wish(cluster, owner, ports, domain))

    @rule(number=workers, cluster=clusters)
    def join(self, number: int, cluster: str) -> None:
        """An agent's connection comes to what there is."""
        if self.world.places[number].ready:
            self.world.places[number].hold(cluster)

    @rule(number=workers)
    def let_go(self, number: int) -> None:
        """A connection is lost."""
        self.world.places[number].let_go()

    @rule(number=workers, n=st.integers(1, 3))
    def hear(self, number: int, n: int) -> None:
        """A worker takes messages."""
        for _ in range(n):
            self.world.places[number].hear()

    @rule(number=workers, n=st.integers(1, 3))
    def say(self, number: int, n: int) -> None:
        """The supervisor takes messages."""
        for _ in range(n):
            self.world.places[number].say()

    @rule()
    def settle(self) -> None:
        """All of them."""
        self.world.settle()

    @rule()
    def write(self) -> None:
        """The directory takes something."""
        self.world.directory.write()

    @rule(up=st.booleans())
    def reach(self, up: bool) -> None:
        """The directory is away, or back."""
        self.world.store.up = up

    @rule()
    def lose(self) -> None:
        """The directory has lost what this server has."""
        self.world.directory.lose()

    @rule()
    def leaving(self) -> None:
        """The first worker takes no more connections, as it is about to be replaced."""
        self.world.first.ready = False

    @rule(seconds=st.sampled_from((0.0, 1.0, DECIDE, DECISION_TIMEOUT)))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.world.clock.advance(seconds)

    @rule(taken=st.sets(st.sampled_from(PORTS)))
    def take_ports(self, taken: set[int]) -> None:
        """Something else on the machine has ports."""
        self.world.taken = taken

    @rule(cluster=clusters, owner=owners, port=st.sampled_from((None, *PORTS)), domain=domains)
    def come(self, cluster: str, owner: str, port: int | None, domain: str) -> None:
        """Another server has routes."""
        domains = (domain or f"{cluster}.example",)
        self.world.directory.come(RouteRecord(cluster, THERE, "tunnels", owner, owner, domains, port))

    @rule(cluster=clusters)
    def leave(self, cluster: str) -> None:
        """It has them no more."""
        self.world.directory.leave(RouteKey(cluster, THERE))

    @rule(number=workers)
    def restart(self, number: int) -> None:
        """A worker is killed, and there is another one."""
        place = self.world.places[number]
        place.end()
        place.start()

    def teardown(self) -> None:
        """All is well again: then everything is as it should be."""
        try:
            self.world.heal()
            self.world.leave()
            assert not self.failures, self.failures[0].getTraceback()
        finally:
            self.world.arbiter.stop()
            setattr(route_claims, "open_sockets", self.before)  # noqa: B010
            globalLogPublisher.removeObserver(self.observe)


class GrantMachineTests(SynchronousTestCase):
    """The machine above."""

    def test_machine(self) -> None:
        run_state_machine_as_test(
            GrantMachine,
            settings=settings(max_examples=most(60), stateful_step_count=30, deadline=None),
        )
