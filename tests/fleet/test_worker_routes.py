"""Routes that agents bring in a fleet, where a server has workers; in memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from reverseproxy.app import ReverseProxy
from reverseproxy.cluster.directory import RUNNING
from reverseproxy.config.loader import loads
from reverseproxy.fleet.records import RouteRecord
from reverseproxy.testing import Recorder
from reverseproxy.workers.links import Link
from reverseproxy.workers.route_arbiter import WorkerRouteArbiter
from tests.fleet import test_routes
from tests.tunnel.test_agent_routes import TUNNELS, WEB, server
from tests.workers.test_routes import WorkerPlace
from tests.workers.world import FakeWorker, MemoryChannel

FIRST = 50
"""How far the ports of workers are from those of servers without any; each has its own."""


class FleetWorker(FakeWorker):
    """A worker that may be the one that knows the fleet."""

    heard: Callable[[Any], object] = staticmethod(lambda message: None)

    def speak_for_fleet(self, heard: Callable[[Any], object]) -> Callable[[Any], object]:
        self.heard = heard
        return lambda message: self.tell(message)


class FleetPlace(WorkerPlace):
    """Its place, which tells the right one of its parts."""

    def send(self, message: Any) -> None:
        message = json.loads(json.dumps(message))
        worker: Any = self.worker
        told = worker.heard if message["do"].startswith("fleet_") else worker.route_client.received
        self._reactor.callLater(0, told, message)


class WorkerRouteTests(test_routes.Fleet):
    """Server gamma has two workers; alpha and beta have none."""

    def setUp(self) -> None:
        super().setUp()
        self.to_worker: int | None = None
        self.places: list[FleetPlace] = []
        self.arbiter = WorkerRouteArbiter(self.places, self.reactor, fleet=True)
        self.proxies: list[ReverseProxy] = []
        self.clusters: list[Any] = []
        for number in range(2):
            self.start_worker(number)
        one, other = (place.worker.siblings.links for place in self.places)
        dialled, accepted = Link(one, 1), Link(other, None)
        ends = MemoryChannel.pair(self.reactor, dialled, accepted)
        accepted.begin(ends[1])
        dialled.begin(ends[0])
        self.addCleanup(self.end_workers)
        self.pass_time(1)

    def start_worker(self, number: int) -> None:
        document = server(self.tokens, grace="5s", tcp_address=f"127.0.1.{number + 1}")
        listeners = document["servers"][0]["listeners"]
        for each, port in zip(listeners, (WEB, TUNNELS), strict=True):
            each["address"] = f"127.0.0.1:{port + FIRST + number}"
        document["fleet"] = {
            "server_id": "gamma",
            "etcd": {"endpoints": ["127.0.0.1:1"]},
            "peers": {"address": f"127.0.0.1:{4000 + FIRST + number}"},
        }
        worker: Any = FleetWorker(number, 2, self.reactor)
        place = FleetPlace(number, worker, self.reactor)
        worker.tell = lambda message: self.reactor.callLater(
            0, self.arbiter.received, place, json.loads(json.dumps(message))
        )
        proxy = ReverseProxy(
            loads(json.dumps(document), "gamma").config,
            self.reactor,
            Random(number),
            worker=worker,
            make_directory=partial(self._directory, f"gamma {number}"),
        )
        proxy.privilegedStartService()
        proxy.startService()
        self.clusters.append(proxy.clusters)
        self.proxies[number:] = [proxy, *self.proxies[number + 1 :]]
        self.places[number:] = [place, *self.places[number + 1 :]]

    def end_workers(self) -> None:
        self.arbiter.stop()
        for proxy in self.proxies:
            fleet: Any = proxy._world.fleet
            fleet.stop()
        for clusters in self.clusters:
            RUNNING.remove(clusters)
        self.pass_time(5)

    def bring_to(self, name: str, worker: int, **more: Any) -> Any:
        """Run an agent that brings routes to one of gamma's workers."""
        self.to_worker = worker
        return self.bring(name, "alpha", **more)

    def run_it(self, name: str, document: dict[str, Any]) -> ReverseProxy:
        worker = getattr(self, "to_worker", None)
        if worker is not None:
            document["extends"][0]["config"]["server_list"] = [f"127.0.0.1:{TUNNELS + FIRST + worker}"]
            self.to_worker = None
        return super().run_it(name, document)

    def known(self, name: str) -> list[str]:
        """Whose routes a server has."""
        return [each["cluster"] for each in self.running[name].answer("routes", {})]

    def at_gamma(self, host: str = "app.x.example") -> list[bytes]:
        """What both workers answer."""
        found = []
        for number in range(2):
            client: Recorder = self.reactor.dial("127.0.0.1", WEB + FIRST + number, Recorder())
            client.transport.write(b"GET / HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % host.encode())
            self.pass_time(0.3)
            found.append(bytes(client.data).rpartition(b"\r\n\r\n")[2])
        return found

    def test_brought_to_another_server(self) -> None:
        """All workers make them within a second, and take them away when the agent is gone everywhere."""
        self.bring("mine", "alpha")
        self.assertEqual(self.at_gamma(), [b"mine", b"mine"])
        self.stop("mine")
        self.pass_time(7)
        self.assertEqual(self.at_gamma(), [b"default", b"default"])
        self.assertEqual(len(self.arbiter), 0)

    def test_brought_to_a_worker(self) -> None:
        """Whichever it is: all servers know it, and forget it when the last agent is gone."""
        for worker in (0, 1):
            self.bring_to("mine", worker)
            self.assertEqual(self.stored(), ["app/gamma"])
            self.assertEqual(self.at_gamma(), [b"mine", b"mine"])
            self.assertEqual([self.get("alpha"), self.get("beta")], [b"mine", b"mine"])
            self.pass_time(10)
            self.assertEqual(self.stored(), ["app/gamma"])
            self.stop("mine")
            self.pass_time(3)
            self.assertEqual(self.stored(), ["app/gamma"])
            self.pass_time(5)
            self.assertEqual(self.stored(), [])
            self.assertEqual([*self.at_gamma(), self.get("alpha")], [b"default"] * 3)

    def test_others_by_another_way(self) -> None:
        """Who has heard nothing until all of it was compacted takes over what is there now."""
        self.bring("mine", "alpha")
        self.bring("theirs", "alpha", owner="two", cluster="other", subdomains=["b"])
        self.assertEqual(self.at_gamma(), [b"mine", b"mine"])
        self.cut_off("gamma 0")
        self.stop("mine")
        self.stop("theirs")
        self.pass_time(7)
        self.bring("again", "alpha", subdomains=["b"])
        self.bring("theirs", "alpha", owner="two", cluster="other", subdomains=["app"])
        self.etcd.compact()
        self.clients["gamma 0"].reachable = True
        self.pass_time(5)
        self.assertEqual(self.at_gamma(), [b"theirs", b"theirs"])
        self.assertEqual(self.at_gamma("b.x.example"), [b"again", b"again"])
        self.assertEqual(len(self.arbiter), 2)

    def test_taken_back_while_it_is_made(self) -> None:
        """Nothing stays of it."""
        record = RouteRecord(
            "app", "alpha", "tunnels", "token:one (policy static)", "one", ("app.x.example",)
        )
        fleet: Any = self.proxies[0]._world.fleet_resources.arbiter
        directory: Any = self.directories["gamma 0"]
        fleet._objection = lambda record: ""
        directory._view.routes[record.key] = record
        fleet._on_remote_record("came", record)
        del directory._view.routes[record.key]
        fleet._on_remote_record("left", record)
        self.pass_time(6)
        self.assertEqual((len(self.arbiter), self.at_gamma()), (0, [b"default", b"default"]))

    def test_taken(self) -> None:
        """Who was first has it, wherever that is."""
        self.bring("mine", "alpha")
        other = self.bring_to("other", 1, owner="two", cluster="theirs")
        third = self.bring_to("third", 0, owner="two")
        self.assertEqual([other.agents[0].serving, third.agents[0].serving], [0, 0])
        self.assertEqual(self.stored(), ["app/alpha"])
        self.assertEqual(self.at_gamma(), [b"mine", b"mine"])
        self.stop("third")
        self.stop("mine")
        self.pass_time(40)
        self.assertGreater(other.agents[0].serving, 0)
        self.assertEqual({*self.at_gamma(), self.get("alpha"), self.get("beta")}, {b"other"})

    def test_taken_at_the_server_with_workers(self) -> None:
        self.bring_to("mine", 1)
        self.assertEqual(self.bring("other", "alpha", owner="two", cluster="theirs").agents[0].serving, 0)
        self.assertEqual({*self.at_gamma(), self.get("alpha")}, {b"mine"})

    def test_agent_at_both(self) -> None:
        """It is gone when it has left both."""
        self.bring_to("mine", 1)
        self.bring("also", "alpha")
        self.pass_time(1)
        self.assertEqual(self.stored(), ["app/alpha", "app/gamma"])
        self.stop("mine")
        self.pass_time(7)
        self.assertEqual(self.stored(), ["app/alpha"])
        self.assertEqual(self.at_gamma(), [b"also", b"also"])

    def test_the_first_worker_is_started_anew(self) -> None:
        """What there is stays, at all servers, and what has ended meanwhile goes after its grace time."""
        self.bring_to("mine", 1)
        self.bring("theirs", "alpha", owner="two", cluster="other", subdomains=["b"])
        self.assertEqual(self.at_gamma("b.x.example"), [b"theirs", b"theirs"])
        old: Any = self.proxies[0]
        self.places[0].ready = False
        self.places[0].control = None
        self.arbiter.gone(self.places[0])
        self.clients["gamma 0"].reachable = False
        old._world.fleet.links.stop()
        old._world.fleet.incoming.close("killed")
        for each in old.listeners.values():
            each.stop_accepting()
        self.places[0].worker.tell = lambda message: None
        self.stop("theirs")
        self.pass_time(8)
        self.assertEqual(self.known("alpha"), ["app"])
        self.start_worker(0)
        self.arbiter.started(self.places[0])
        self.arbiter.ready(self.places[0])
        for _ in range(10):
            self.pass_time(1)
            self.assertEqual(self.known("alpha"), ["app"])
        self.assertEqual(self.stored(), ["app/gamma"])
        self.assertEqual(len(self.arbiter), 1)

    def test_etcd_away(self) -> None:
        """Nothing new is decided, and is when it is back."""
        self.etcd.go_down()
        mine = self.bring_to("mine", 1)
        self.pass_time(15)
        self.assertEqual(mine.agents[0].serving, 0)
        self.etcd.come_back()
        self.pass_time(60)
        self.assertGreater(mine.agents[0].serving, 0)
        self.assertEqual({*self.at_gamma(), self.get("alpha")}, {b"mine"})
