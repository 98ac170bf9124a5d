"""Routes that agents bring, to several workers of one server in memory."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable
from random import Random
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.app import ReverseProxy
from reverseproxy.cluster.directory import RUNNING
from reverseproxy.cluster.manager import ClusterManager
from reverseproxy.config.loader import loads
from reverseproxy.testing import MemoryReactor, Recorder, run
from reverseproxy.workers.demand_announcer import LEAST_GAP
from reverseproxy.workers.handover import receive_sockets
from reverseproxy.workers.links import Link
from reverseproxy.workers.route_arbiter import DECISION_TIMEOUT, MOST_WAITING, WorkerRouteArbiter
from reverseproxy.workers.route_claims import SHORTEST_GRACE
from tests.tunnel.test_agent_routes import agent, server
from tests.workers.world import FakeWorker, MemoryChannel

WEB, TUNNELS = 8080, 9999
GRACE = 30.0


class WorkerPlace:
    """A worker's place, in front of one in memory."""

    handover: socket.socket | None = None

    def __init__(self, number: int, worker: FakeWorker, reactor: MemoryReactor) -> None:
        self.number = number
        self.ready = True
        self.control: Any = object()
        self.worker = worker
        self._reactor = reactor

    def send(self, message: Any) -> None:
        # As between processes: later, and as JSON.
        self._reactor.callLater(0, self.worker.route_client.received, json.loads(json.dumps(message)))


class World(SynchronousTestCase):
    """Two workers, each with ports of its own, so that it is known which one is asked."""

    mux = True

    def setUp(self) -> None:
        self.reactor = MemoryReactor()
        self.places: list[WorkerPlace] = []
        self.arbiter = WorkerRouteArbiter(self.places, self.reactor)
        self.proxies: list[ReverseProxy] = []
        self.clusters: list[ClusterManager] = []
        self.agents: list[ReverseProxy] = []
        for number in range(2):
            self.start_worker(number)
        self.link()
        self.addCleanup(self.end)

    def start_worker(self, number: int) -> None:
        document = server({"one": {"domains": ["*.x.example"]}, "two": {"domains": ["*.x.example"]}})
        listeners = document["servers"][0]["listeners"]
        for each, port in zip(listeners, (WEB, TUNNELS), strict=True):
            each["address"] = f"127.0.0.1:{port + number}"
        listeners[1]["filter_chains"][0]["filters"][0]["config"]["mux"] = self.mux
        worker: Any = FakeWorker(number, 2, self.reactor)
        place = WorkerPlace(number, worker, self.reactor)
        worker.tell = lambda message: self.reactor.callLater(
            0, self.arbiter.received, place, json.loads(json.dumps(message))
        )
        proxy = ReverseProxy(
            loads(json.dumps(document), "document").config, self.reactor, Random(number), worker=worker
        )
        proxy.privilegedStartService()
        proxy.startService()
        self.clusters.append(proxy.clusters)
        self.places[number:] = [place, *self.places[number + 1 :]]
        self.proxies[number:] = [proxy, *self.proxies[number + 1 :]]

    def link(self) -> None:
        one, other = (place.worker.siblings.links for place in self.places)
        dialled, accepted = Link(one, 1), Link(other, None)
        ends = MemoryChannel.pair(self.reactor, dialled, accepted)
        accepted.begin(ends[1])
        dialled.begin(ends[0])
        self.turn(0.2)

    def end(self) -> None:
        for each in self.agents:
            each.stopService()
        self.arbiter.stop()
        self.turn(5)
        for clusters in self.clusters:
            RUNNING.remove(clusters)  # which nobody is to find by name any more

    def agent(self, name: str, cluster: str, worker: int, num: int = 1, **routes: Any) -> ReverseProxy:
        document = agent(name, cluster, name, **routes)
        config = document["extends"][0]["config"]
        config |= {"server_list": [f"127.0.0.1:{TUNNELS + worker}"], "connection_num": num}
        service = run(document, self.reactor)
        self.agents.append(service)
        self.turn(1)
        return service

    def stop(self, service: ReverseProxy, seconds: float = 2.0) -> None:
        self.agents.remove(service)
        service.stopService()
        self.turn(seconds)

    def get(self, host: str, worker: int) -> bytes:
        client = self.reactor.dial("127.0.0.1", WEB + worker, Recorder())
        client.transport.write(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        self.turn(0.5)
        return bytes(client.data.rpartition(b"\r\n\r\n")[2])

    def both(self, host: str) -> list[bytes]:
        return [self.get(host, worker) for worker in (0, 1)]

    def described(self, worker: int) -> list[dict[str, Any]]:
        routes = self.proxies[worker].inspector.answer("routes", {})
        return list(routes)

    def turn(self, seconds: float = 0.0) -> None:
        self.reactor.settle()
        self.reactor.advance(LEAST_GAP)
        self.reactor.settle()
        for _ in range(round(seconds / 0.25)):
            self.reactor.advance(0.25)
            self.reactor.settle()


class RouteTests(World):
    def test_all_workers_know(self) -> None:
        self.agent("one", "app", 0, subdomains=["app"])
        self.assertEqual(self.both("app.x.example"), [b"one", b"one"])
        self.assertEqual(self.both("other.x.example"), [b"default", b"default"])
        for worker in (0, 1):
            (claim,) = self.described(worker)
            self.assertEqual((claim["cluster"], claim["domains"]), ("app", ["app.x.example"]))
            self.assertEqual(claim["owner"], "token:one")

    def test_others_of_the_same_identity_share_it(self) -> None:
        first = self.agent("one", "app", 0, subdomains=["app"])
        self.agent("one", "app", 1, subdomains=["app"])
        self.assertEqual(len(self.arbiter), 1)
        self.stop(first)
        self.turn(GRACE + 5)
        self.assertEqual(self.both("app.x.example"), [b"one", b"one"])

    def test_both_at_once(self) -> None:
        """Two connections of one agent ask two workers in the same moment."""
        document = agent("one", "app", "one", subdomains=["app"])
        config = document["extends"][0]["config"]
        config |= {"server_list": [f"127.0.0.1:{TUNNELS}", f"127.0.0.1:{TUNNELS + 1}"], "connection_num": 1}
        self.agents.append(run(document, self.reactor))
        self.turn(2)
        (both,) = self.agents[0].agents
        self.assertEqual((both.serving > 1, both.unserved), (True, []))
        self.assertEqual(self.both("app.x.example"), [b"one", b"one"])

    def test_conflicts_between_workers(self) -> None:
        self.agent("one", "app", 0, subdomains=["app"])
        taken = self.agent("two", "other", 1, subdomains=["app"])
        cluster = self.agent("two", "app", 1, subdomains=["elsewhere"])
        for each in (taken, cluster):
            self.assertEqual(sum(agent.serving for agent in each.agents), 0)
        self.assertEqual(self.both("app.x.example"), [b"one", b"one"])
        self.assertEqual(len(self.arbiter), 1)

    def test_conflicts_at_once(self) -> None:
        """Both workers would grant it; one of them gets it, and at no worker anything of the other stays."""
        services = []
        for number, name in enumerate(("one", "two")):
            document = agent(name, f"of {name}", name, subdomains=["app"])
            document["extends"][0]["config"] |= {
                "server_list": [f"127.0.0.1:{TUNNELS + number}"],
                "connection_num": 1,
            }
            services.append(run(document, self.reactor))
        self.agents += services
        self.turn(1)
        serving = [any(each.serving for each in service.agents) for service in services]
        self.assertEqual(sorted(serving), [False, True])
        (winner,) = {b"one", b"two"} & set(self.both("app.x.example"))
        self.assertEqual(winner, (b"one", b"two")[serving.index(True)])
        for worker in (0, 1):
            self.assertEqual(len(self.described(worker)), 1)
            self.assertEqual("of one" in self.proxies[worker].clusters, winner == b"one")

    def test_after_the_last_agent(self) -> None:
        """Its routes stay for the grace time, at both workers, and then go at both; the name is free then."""
        first = self.agent("one", "app", 0, subdomains=["app"])
        second = self.agent("one", "app", 1, subdomains=["app"])
        self.stop(first)
        self.stop(second)
        self.turn(GRACE - 10)
        self.assertEqual(len(self.arbiter), 1)
        self.turn(15)
        self.assertEqual(len(self.arbiter), 0)
        self.assertEqual(self.both("app.x.example"), [b"default", b"default"])
        self.assertFalse(any("app" in proxy.clusters for proxy in self.proxies))
        self.agent("two", "mine", 1, subdomains=["app"])
        self.assertEqual(self.both("app.x.example"), [b"two", b"two"])

    def test_it_comes_back_at_another_worker(self) -> None:
        first = self.agent("one", "app", 0, subdomains=["app"])
        self.stop(first)
        self.turn(10)
        self.agent("one", "app", 1, subdomains=["app"])
        self.turn(GRACE + 5)
        self.assertEqual(self.both("app.x.example"), [b"one", b"one"])

    def test_a_worker_that_is_new(self) -> None:
        """It is told of what there is before it accepts; connections of the one before count no more."""
        self.agent("one", "app", 0, subdomains=["app"])
        at_two = self.agent("two", "second", 1, subdomains=["second"])
        old = self.proxies[1]
        self.places[1].control = None
        self.places[1].ready = False
        self.arbiter.gone(self.places[1])
        self.agents.remove(at_two)
        at_two.stopService()
        for each in old.listeners.values():
            each.stop_accepting()
        self.places[1].worker.tell = lambda message: None
        self.turn(1)
        self.start_worker(1)
        self.arbiter.ready(self.places[1])
        self.turn(1)
        self.assertEqual({each["cluster"] for each in self.described(1)}, {"app", "second"})
        self.turn(GRACE + 5)
        self.assertEqual({each["cluster"] for each in self.described(1)}, {"app"})


class PlainTests(World):
    """Connections that move from worker to worker, and hold their claim wherever they are."""

    mux = False

    def test_moved(self) -> None:
        self.agent("one", "app", 0, subdomains=["app"])
        self.assertEqual(self.get("app.x.example", 1), b"one")
        self.turn(GRACE + 5)
        self.assertEqual(self.both("app.x.example"), [b"one", b"one"])
        self.assertEqual(sum(self.described(each)[0]["connections"] for each in (0, 1)), 1)

    def test_the_agent_leaves(self) -> None:
        service = self.agent("one", "app", 0, subdomains=["app"])
        self.assertEqual(self.get("app.x.example", 1), b"one")
        self.stop(service)
        self.turn(GRACE + 5)
        self.assertEqual(len(self.arbiter), 0)


class Said:
    """A worker that only listens."""

    def __init__(self, number: int, handover: socket.socket | None = None) -> None:
        self.number = number
        self.ready = True
        self.control: Any = object()
        self.handover = handover
        self.messages: list[Any] = []

    def send(self, message: Any) -> None:
        self.messages.append(message)

    def heard(self) -> list[Any]:
        messages, self.messages = self.messages, []
        return messages


class ArbiterTests(SynchronousTestCase):
    """The supervisor's part, with workers that say what the test says."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.places = [Said(number) for number in range(3)]
        self.arbiter = WorkerRouteArbiter(self.places, self.clock)
        self.addCleanup(self.arbiter.stop)

    def claim(self, place: Said, number: int = 1, cluster: str = "app", ports: Iterable[Any] = ()) -> None:
        message = {"is": "claim", "number": number, "listener": "tunnels", "cluster": cluster}
        message |= {
            "owner": "o",
            "shown": "s",
            "domains": ["a.example"],
            "ports": list(ports),
            "grace": GRACE,
        }
        self.arbiter.received(place, message)

    def brought(self, place: Said, serial: int, problem: str = "") -> None:
        message: dict[str, Any] = {"is": "brought", "serial": serial}
        self.arbiter.received(place, message | ({"status": 102, "problem": problem} if problem else {}))

    def held(self, place: Said, serial: int, change: int) -> None:
        self.arbiter.received(place, {"is": "held", "serial": serial, "change": change, "grace": GRACE})

    def brought_by_all(self, serial: int = 1) -> None:
        for place in self.places:
            self.brought(place, serial)

    def kinds(self, place: Said) -> list[str]:
        return [message["do"] for message in place.heard()]

    def test_all_have_to_be_able(self) -> None:
        first = self.places[0]
        self.claim(first)
        for place in self.places[:2]:
            self.brought(place, 1)
        self.assertEqual(self.kinds(first), ["bring"])
        self.brought(self.places[2], 1, "somebody has it")
        self.assertEqual(
            first.heard(),
            [
                {"do": "take_away", "serial": 1, "listener": "tunnels", "cluster": "app"},
                {"do": "claimed", "number": 1, "status": 102, "problem": "somebody has it"},
            ],
        )
        self.assertEqual(len(self.arbiter), 0)

    def test_one_after_the_other(self) -> None:
        for number, place in enumerate(self.places):
            self.claim(place, number, f"app{number}")
        self.assertEqual(self.kinds(self.places[1]), ["bring"])
        self.brought_by_all(1)
        self.assertEqual(self.kinds(self.places[0]), ["bring", "claimed", "bring"])
        self.brought_by_all(2)
        self.brought_by_all(3)
        self.assertEqual(len(self.arbiter), 3)

    def test_the_same_once_more(self) -> None:
        """Whoever asks for what all workers have by now is to look again."""
        self.claim(self.places[0])
        self.claim(self.places[1])
        self.brought_by_all()
        self.assertEqual(self.places[1].heard()[-1], {"do": "claimed", "number": 1})
        self.assertEqual(len(self.arbiter), 1)

    def test_a_worker_that_hangs(self) -> None:
        self.claim(self.places[0])
        self.brought(self.places[0], 1)
        self.clock.advance(DECISION_TIMEOUT)
        self.assertIn("not all workers", self.places[0].heard()[-1]["problem"])
        self.claim(self.places[0], 2)
        self.assertEqual(self.kinds(self.places[1]), ["bring", "take_away", "bring"])

    def test_a_worker_that_ends(self) -> None:
        self.claim(self.places[0])
        for place in self.places[:2]:
            self.brought(place, 1)
        self.arbiter.gone(self.places[2])
        self.assertEqual(len(self.arbiter), 1)

    def test_a_worker_that_ends_with_a_connection(self) -> None:
        """A connection that a worker had before all others had the claim ends with the worker."""
        self.claim(self.places[0])
        self.brought(self.places[2], 1)
        self.held(self.places[2], 1, 1)
        self.arbiter.gone(self.places[2])
        for place in self.places[:2]:
            self.brought(place, 1)
        self.assertEqual(len(self.arbiter), 1)
        self.clock.advance(GRACE)
        self.assertEqual(len(self.arbiter), 0)

    def test_the_asking_worker_ends(self) -> None:
        self.claim(self.places[0])
        self.places[0].control = None
        self.places[0].ready = False
        self.arbiter.gone(self.places[0])
        for place in self.places[1:]:
            self.brought(place, 1)
        self.assertNotIn("claimed", self.kinds(self.places[0]))
        self.assertEqual(len(self.arbiter), 1)
        self.clock.advance(GRACE)
        self.assertEqual(len(self.arbiter), 0)

    def test_a_worker_that_comes_meanwhile(self) -> None:
        late = self.places[2]
        late.ready = False
        self.claim(self.places[0])
        self.assertEqual(late.heard(), [])
        late.ready = True
        self.arbiter.ready(late)
        self.assertEqual(late.heard(), [])
        for place in self.places[:2]:
            self.brought(place, 1)
        (told,) = late.heard()
        self.assertEqual((told["do"], told["again"]), ("bring", True))

    def test_held_before_all_have_it(self) -> None:
        """A second connection may join at a worker that has the claim, while another worker has not yet."""
        self.claim(self.places[0])
        self.brought(self.places[1], 1)
        self.held(self.places[1], 1, 1)
        for place in (self.places[0], self.places[2]):
            self.brought(place, 1)
        self.clock.advance(GRACE + 1)
        self.assertEqual(len(self.arbiter), 1)
        self.held(self.places[1], 1, -1)
        self.clock.advance(GRACE - 1)
        self.assertEqual(len(self.arbiter), 1)
        self.clock.advance(1)
        self.assertEqual(len(self.arbiter), 0)
        self.held(self.places[1], 1, 1)  # crosses the end: it is of no use any more
        self.assertEqual(self.kinds(self.places[2]), ["bring", "take_away"])

    def test_it_moves(self) -> None:
        """Even without any grace, a connection has the time to get from one worker to another."""
        self.claim(self.places[0])
        self.brought_by_all()
        self.arbiter.received(self.places[0], {"is": "held", "serial": 1, "change": 1, "grace": 0.0})
        self.arbiter.received(self.places[0], {"is": "held", "serial": 1, "change": -1, "grace": 0.0})
        self.clock.advance(SHORTEST_GRACE / 2)
        self.arbiter.received(self.places[1], {"is": "held", "serial": 1, "change": 1, "grace": 0.0})
        self.clock.advance(GRACE)
        self.assertEqual(len(self.arbiter), 1)

    def test_too_many(self) -> None:
        for number in range(MOST_WAITING + 1):
            self.claim(self.places[0], number, "app")
        self.claim(self.places[0], 7, "app")
        self.assertIn("too many", self.places[0].heard()[-1]["problem"])

    def test_after_the_end(self) -> None:
        self.arbiter.stop()
        self.claim(self.places[0])
        self.assertEqual(self.places[0].heard()[-1]["problem"], "the server stops")

    def test_inherited(self) -> None:
        """Workers are told of it before they accept anything; it ends if no agent comes."""
        self.claim(self.places[0])
        self.brought_by_all()
        claims = json.loads(json.dumps(self.arbiter.claims))
        places = [Said(number) for number in range(2)]
        arbiter = WorkerRouteArbiter(places, self.clock)
        self.addCleanup(arbiter.stop)
        arbiter.inherit(claims)
        self.assertEqual((len(arbiter), arbiter.claims), (1, claims))
        for place in places:
            self.assertEqual(place.heard(), [])
            arbiter.ready(place)
            (told,) = place.heard()
            self.assertEqual(
                (told["do"], told["cluster"], told["domains"], told["again"]),
                ("bring", "app", ["a.example"], True),
            )
        self.clock.advance(GRACE - 1)
        self.assertEqual(len(arbiter), 1)
        arbiter.received(places[1], {"is": "held", "serial": 1, "change": 1, "grace": GRACE})
        self.clock.advance(GRACE)
        self.assertEqual(len(arbiter), 1)
        arbiter.received(places[1], {"is": "held", "serial": 1, "change": -1, "grace": GRACE})
        self.clock.advance(GRACE)
        self.assertEqual((len(arbiter), [message["do"] for message in places[0].heard()]), (0, ["take_away"]))

    def test_inherited_ports(self) -> None:
        taken = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(taken.close)
        number = taken.getsockname()[1]
        claim = {"listener": "tunnels", "owner": "o", "shown": "s", "domains": [], "grace": GRACE}
        free = self.free_port()
        self.arbiter.inherit(
            [
                {**claim, "cluster": "app", "port": number, "address": f"127.0.0.1:{number}"},
                {**claim, "cluster": "other", "port": free, "address": f"127.0.0.1:{free}"},
            ]
        )
        self.assertEqual([each["cluster"] for each in self.arbiter.claims], ["other"])
        (bequest,) = self.arbiter.bequeath()
        self.assertEqual(bequest.address, f"127.0.0.1:{free}")
        for each in bequest.sockets:
            each.close()

    def free_port(self) -> int:
        with socket.create_server(("127.0.0.1", 0)) as free:
            return int(free.getsockname()[1])

    def test_ports(self) -> None:
        """The first that can be had, of which each worker gets a socket of its own."""
        pairs = [socket.socketpair() for _ in self.places]
        for place, (ours, theirs) in zip(self.places, pairs, strict=True):
            place.handover = ours
            self.addCleanup(ours.close)
            self.addCleanup(theirs.close)
        taken, free = socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0))
        self.addCleanup(taken.close)
        numbers = [each.getsockname()[1] for each in (taken, free)]
        free.close()
        self.claim(self.places[0], ports=[(number, f"127.0.0.1:{number}") for number in numbers])
        for place, (_, theirs) in zip(self.places, pairs, strict=True):
            (told,) = place.heard()
            self.assertEqual(told["port"], numbers[1])
            got = receive_sockets(theirs, told["descriptors"])
            self.assertEqual({each.getsockname()[1] for each in got}, {numbers[1]})
            for each in got:
                each.close()
        self.brought_by_all()
        (bequest,) = self.arbiter.bequeath()
        self.assertEqual(bequest.address, f"127.0.0.1:{numbers[1]}")
        for each in bequest.sockets:
            each.close()
        self.claim(self.places[0], 2, "other", ports=[(numbers[0], f"127.0.0.1:{numbers[0]}")])
        self.assertIn("can't listen on", self.places[0].heard()[-1]["problem"])
