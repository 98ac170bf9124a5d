"""Workers that use each other's agents, in memory."""

from __future__ import annotations

import gc
import json
from dataclasses import replace
from random import Random
from typing import Any
from unittest.mock import patch
from weakref import ref

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.cluster.balancers.factory import make_balancer
from reverseproxy.cluster.host import MuxHost, ReverseHost
from reverseproxy.cluster.manager import Cluster
from reverseproxy.config.loader import loads
from reverseproxy.config.models import ClusterConfig
from reverseproxy.identity import AgentIdentity
from reverseproxy.interfaces import ConnectionInfo, PickContext
from reverseproxy.testing import Recorder
from reverseproxy.transport.handing import discard
from reverseproxy.tunnel.handshake import Principal
from reverseproxy.tunnel.server.joined import JoinRecord
from reverseproxy.tunnel.server.registry import Requester
from reverseproxy.wire.mosn.frames import ConnectionInit, encode
from reverseproxy.wire.rpc.bolt import encode_request, encode_response
from reverseproxy.workers.channel import MAX_PACKET
from reverseproxy.workers.demand_announcer import SHORTAGE
from reverseproxy.workers.relaying import RelayedHost
from reverseproxy.workers.taking import MOST_HOPS
from tests.integration.configs import http_filter, server
from tests.tunnel.logged import capture
from tests.workers.world import CLIENT, CLUSTER, REQUEST, TUNNEL, World


def bodies(client: Any) -> list[bytes]:
    """The answers that a client has got."""
    return [part.split(b"\r\n\r\n", 1)[1] for part in client.data.split(b"HTTP/1.1 200 OK")[1:]]


class AnnouncementTests(SynchronousTestCase):
    def test_hosts_are_known_everywhere(self) -> None:
        world = World(3)
        world.agent(0, metadata={"zone": "a"}, weight=7, host_name="edge")
        world.agent(1, mux=False)
        kinds = [sorted(type(host).__name__ for host in world.hosts(number)) for number in range(3)]
        self.assertEqual(
            kinds,
            [["MuxHost", "ReverseHost"], ["RelayedHost", "ReverseHost"], ["RelayedHost", "ReverseHost"]],
        )
        [relayed] = [host for host in world.hosts(2) if isinstance(host, RelayedHost)]
        self.assertEqual((relayed.weight, relayed.hostname, relayed.metadata), (7, "edge", {"zone": "a"}))
        [owned] = [host for host in world.hosts(0) if isinstance(host, MuxHost)]
        self.assertIsNotNone(owned.identity)
        self.assertEqual(relayed.identity, owned.identity)
        addresses = {frozenset(host.address for host in world.hosts(number)) for number in range(3)}
        self.assertEqual(len(addresses), 1)

    def test_another_weight_is_known_everywhere(self) -> None:
        """As when the file of tokens allows an agent less than before."""
        world = World(3)
        world.agent(0, weight=7)
        world.agent(0, mux=False, weight=7)
        [server] = world.workers[0].siblings.servers.values()
        conclude = server.admission.conclude

        def allow(*arguments: Any) -> Any:
            return replace(conclude(*arguments), weight=3)  # type: ignore[type-var]

        self.patch(server.admission, "conclude", allow)
        server.revocations.review(True)
        world.turn()
        for number in range(3):
            self.assertEqual([host.weight for host in world.hosts(number)], [3, 3])

    def test_hosts_leave_everywhere(self) -> None:
        world = World(3)
        for mux in (True, False):
            agent = world.agent(0, mux=mux, connections=3)
            self.assertEqual([len(world.hosts(number)) for number in range(3)], [3, 3, 3])
            agent.stopService()
            world.turn(3)
            self.assertEqual([len(world.hosts(number)) for number in range(3)], [0, 0, 0])

    def test_a_worker_that_comes_later_hears_of_all(self) -> None:
        world = World(2, linked=False)
        world.agent(0)
        world.agent(1, mux=False)
        self.assertEqual([len(world.hosts(number)) for number in range(2)], [1, 1])
        world.link(0, 1)
        self.assertEqual([len(world.hosts(number)) for number in range(2)], [2, 2])

    def test_a_connection_comes_from_a_worker_that_could_not_announce_it(self) -> None:
        world = World(3, linked=False)
        world.link(0, 2)
        world.link(1, 2)
        world.agent(1, mux=False)
        client = world.client(2, REQUEST % b"/1")
        self.assertEqual(len(world.hosts(0)), 1)
        world.answer_until_done()
        self.assertEqual(bodies(client), [b"/1"])
        world.link(0, 1)
        client = world.client(0, REQUEST % b"/2")
        world.answer_until_done()
        self.assertEqual(bodies(client), [b"/2"])

    def test_a_worker_that_is_gone_takes_its_hosts_along(self) -> None:
        world = World(2)
        world.agent(0)
        world.agent(0, mux=False)
        client = world.client(1, REQUEST % b"/1")
        world.links(1)[0].abort("the test says so")
        world.turn()
        self.assertEqual(world.hosts(1), [])
        self.assertEqual(client.data, b"")
        world.turn(1)
        world.link(0, 1)
        self.assertEqual((len(world.hosts(0)), len(world.hosts(1))), (2, 2))
        # The request was sent again, as there had been no answer yet.
        world.answer_until_done()
        self.assertEqual(bodies(client), [b"/1"])

    def test_an_own_host_hides_a_sibling_s_of_the_same_address(self) -> None:
        world = World(2)
        world.agent(0)
        [own] = world.hosts(0)
        [theirs] = world.hosts(1)
        link = world.links(0)[1]
        siblings = world.workers[0].siblings
        facts = {
            "id": "1.0.1",
            "cluster": CLUSTER,
            "address": own.address,
            "hostname": "",
            "weight": 1,
            "metadata": {},
            "kind": "streams",
            "identity": AgentIdentity("edge", "static", claim="box").to_json(),
            "tells": False,
            "speaks": None,
            "well": True,
            "moves": 0,
        }
        siblings.received(link, {"join": facts}, None)
        self.assertEqual(world.hosts(0), [own])
        own.close("the test says so")
        world.turn()
        [uncovered] = world.hosts(0)
        self.assertIsInstance(uncovered, RelayedHost)
        self.assertEqual(uncovered.identity, AgentIdentity("edge", "static", claim="box"))
        self.assertTrue(theirs.closed or theirs.retired)
        siblings.received(link, {"leave": "1.0.1"}, None)
        self.assertEqual(world.hosts(0), [])

    def test_clusters_that_a_sibling_does_not_know(self) -> None:
        world = World(2)
        link = world.links(0)[1]
        with capture() as events:
            world.links(1)[0].send({"join": {"id": "1.0.1", "cluster": "nobody's"}})
            world.links(1)[0].send({"leave": "1.0.1"})
            world.links(1)[0].send({"want": "nobody's", "hosts": []})
            world.links(1)[0].send({"fetch": "1.0.1", "for": 1})
            world.turn()
        self.assertEqual(events.text(), "")
        self.assertTrue(link.up)

    def test_nonsense_ends_the_link(self) -> None:
        world = World(2)
        world.links(1)[0].send({"join": 5})
        world.turn()
        self.assertEqual(world.links(0), {})
        [error] = self.flushLoggedErrors()
        self.assertIsInstance(error.value, TypeError)


class StreamsTests(SynchronousTestCase):
    """One connection that carries many streams, which is worker 0's."""

    def test_every_worker_uses_it(self) -> None:
        world = World(3)
        world.agent(0)
        clients = [world.client(number % 3, REQUEST % b"/%d" % number) for number in range(30)]
        self.assertEqual(world.answer_until_done(), 30)
        self.assertEqual([bodies(client) for client in clients], [[b"/%d" % n] for n in range(30)])
        self.assertEqual([host.active for number in range(3) for host in world.hosts(number)], [0, 0, 0])

    def test_each_request_has_a_stream_of_its_own(self) -> None:
        """One that was kept might be closed by the agent just as it is to be used again."""
        world = World(2)
        world.agent(0)
        client = world.client(1)
        for number in range(5):
            client.transport.write(REQUEST % b"/%d" % number)
            world.turn()
            world.answer_all()
        self.assertEqual(bodies(client), [b"/%d" % n for n in range(5)])
        self.assertEqual(world.hosts(0)[0].streams, 0)
        self.assertEqual(world.links(0)[1].session.streams, 0)

    def test_large_bodies_both_ways_with_back_pressure(self) -> None:
        world = World(2, kind="tcp")
        world.agent(0, kind="tcp")
        client = world.client(1)
        [service] = world.services[0]
        service.transport.pauseProducing()
        client.transport.write(b"x" * 5_000_000)
        world.turn()
        self.assertLess(len(service.data), 5_000_000)
        service.transport.resumeProducing()
        service.transport.write(b"y" * 3_000_000)
        world.turn()
        self.assertEqual((len(service.data), len(client.data)), (5_000_000, 3_000_000))

    def test_ends_and_half_ends(self) -> None:
        world = World(2, kind="tcp")
        world.agent(0, kind="tcp")
        client = world.client(1, b"hello")
        [service] = world.services[0]
        service.transport.write(b"bye")
        service.transport.loseConnection()
        world.turn()
        self.assertEqual((service.data, client.data), (b"hello", b"bye"))
        self.assertIsNotNone(client.reason)
        self.assertEqual(world.hosts(0)[0].streams, 0)

    def test_a_host_that_is_gone_is_refused(self) -> None:
        world = World(2)
        world.agent(0)
        [own] = world.hosts(0)
        self.assertIsInstance(own, MuxHost)
        own.retire()  # the sibling does not know of it yet
        client = world.client(1, REQUEST % b"/")
        world.turn()
        self.assertNotIn(b"200 OK", client.data)
        self.assertEqual(world.services[0], [])

    def test_an_agent_that_leaves_finishes_what_siblings_have_begun(self) -> None:
        world = World(2)
        agent = world.agent(0)
        client = world.client(1, REQUEST % b"/")
        agent.stopService()
        world.turn(0.5)
        self.assertEqual(world.hosts(1), [])
        world.answer_all()
        world.turn(3)
        self.assertEqual(bodies(client), [b"/"])

    def test_own_hosts_are_preferred(self) -> None:
        world = World(2)
        world.agent(0)
        world.agent(1)
        for number in range(10):
            world.client(number % 2, REQUEST % b"/%d" % number)
        for number, services in enumerate(world.services):
            paths = [service.data.split()[1] for service in services]
            self.assertEqual(sorted(paths), [b"/%d" % n for n in range(number, 10, 2)])

    def test_the_number_of_agents_decides_how_far(self) -> None:
        """A worker with a small part of the agents does not give them all of its requests."""
        world = World(2)
        world.agent(0)
        for _ in range(7):
            world.agent(1)
        for number in range(200):
            world.client(number % 2, REQUEST % b"/")
        # Agents without requests see whether their service is there.
        counts = [sum(bool(service.data) for service in services) for services in world.services]
        self.assertEqual(sum(counts), 200)
        self.assertLess(max(counts), 45)
        self.assertGreater(min(counts), 8)


class PlainTests(SynchronousTestCase):
    """Plain connections, which carry one request at a time, and go to whoever needs them."""

    def away(self, world: World, worker: int = 0) -> int:
        """How many connections others have, of those that a worker knows of."""
        return sum(host.is_remote for host in world.hosts(worker))

    def test_every_worker_uses_it(self) -> None:
        world = World(3)
        world.agent(0, mux=False)
        clients = [world.client(number % 3, REQUEST % b"/%d" % number) for number in range(30)]
        self.assertEqual(world.answer_until_done(), 30)
        self.assertEqual([bodies(client) for client in clients], [[b"/%d" % n] for n in range(30)])
        self.assertEqual(len(world.services[0]), 1)

    def test_nobody_starves(self) -> None:
        """One worker has the only connection, and clients that never stop."""
        world = World(2)
        world.agent(0, mux=False)
        busy = [world.client(0, REQUEST % b"/busy") for _ in range(8)]
        waiting = [world.client(1, REQUEST % b"/%d" % number) for number in range(8)]
        for _ in range(200):
            world.answer_all()
            world.turn()
            world.reactor.advance(0.001)
            for client in busy:
                if client.data:
                    client.data = b""
                    client.transport.write(REQUEST % b"/busy")
            if all(client.data for client in waiting):
                break
        self.assertEqual([bodies(client) for client in waiting], [[b"/%d" % n] for n in range(8)])

    def test_it_is_kept_for_as_long_as_nobody_wants_it(self) -> None:
        world = World(2)
        world.agent(0, mux=False)
        client = world.client(1)
        for number in range(5):
            client.transport.write(REQUEST % b"/%d" % number)
            world.turn()
            world.answer_all()
        self.assertEqual(bodies(client), [b"/%d" % n for n in range(5)])
        self.assertEqual((self.away(world, 0), self.away(world, 1)), (1, 0))
        # Then the owner does.
        mine = world.client(0, REQUEST % b"/mine")
        world.answer_until_done()
        self.assertEqual(bodies(mine), [b"/mine"])
        self.assertEqual(world.hosts(1)[0].state, "away")
        self.assertEqual(world.hosts(0)[0].active, 0)

    def test_a_sibling_takes_it_over_from_another(self) -> None:
        world = World(3)
        world.agent(0, mux=False)
        for number in range(12):
            client = world.client(1 + number % 2, REQUEST % b"/%d" % number)
            world.turn()
            world.answer_until_done()
            self.assertEqual(bodies(client), [b"/%d" % number])
        self.assertEqual(len(world.services[0]), 1)

    def test_a_request_that_waits_is_served_by_whoever_is_free_first(self) -> None:
        world = World(3)
        world.agent(0, mux=False)
        world.agent(1, mux=False)
        busy = [world.client(number, REQUEST % b"/busy") for number in (0, 1)]
        waiting = world.client(2, REQUEST % b"/waiting")
        self.assertNotIn(b"/waiting", world.services[0][0].data + world.services[1][0].data)
        world.turn(0.05)
        world.services[1][0].answer(b"/busy")
        world.turn()
        self.assertIn(b"/waiting", world.services[1][0].data)
        world.services[1][0].answer(b"/waiting")
        world.services[0][0].answer(b"/busy")
        world.turn()
        self.assertEqual([bodies(client) for client in (*busy, waiting)], [[b"/busy"]] * 2 + [[b"/waiting"]])

    def test_a_connection_that_is_idle_is_wanted_rather_than_one_that_is_busy(self) -> None:
        """Whichever has been lent first, and to whomever."""
        for workers in (2, 3):
            for idle in (0, 1):
                world = World(workers)
                world.agent(0, mux=False, connections=2)
                clients = [world.client(workers - 1, REQUEST % b"/of-%d" % number) for number in range(2)]
                self.assertEqual(self.away(world), 2)
                [service] = [each for each in world.services[0] if b"/of-%d" % idle in each.data]
                service.answer(b"/done")
                world.turn()
                self.assertEqual(bodies(clients[idle]), [b"/done"])
                # The other one may take hours.  All the same, its own worker and others have one to use.
                for worker in range(workers - 1):
                    mine = world.client(worker, REQUEST % b"/mine")
                    self.assertIn(b"/mine", service.data)
                    service.answer(b"/mine")
                    service.data = b""
                    world.turn()
                    self.assertEqual(bodies(mine), [b"/mine"])

    def test_a_connection_that_becomes_idle_is_wanted_after_all_were_busy(self) -> None:
        world = World(2)
        world.agent(0, mux=False, connections=3)
        clients = [world.client(1, REQUEST % b"/of-%d" % number) for number in range(3)]
        mine = world.client(0, REQUEST % b"/mine")
        self.assertEqual(self.away(world), 3)
        [service] = [each for each in world.services[0] if b"/of-2" in each.data]
        service.answer(b"/done")
        world.turn()
        self.assertIn(b"/mine", service.data)
        service.answer(b"/mine")
        world.turn()
        self.assertEqual([bodies(each) for each in (*clients, mine)], [[], [], [b"/done"], [b"/mine"]])

    def test_what_waits_elsewhere_for_a_certain_host_has_no_use_for_another(self) -> None:
        world = World(2)
        world.agent(0, mux=False, connections=2)
        cluster = world.cluster(0)
        busy = cluster.acquire()
        assert busy is not None
        waiting = cluster.wait(PickContext(only=busy), 60.0)
        client = world.client(1, REQUEST % b"/")
        world.turn(0.1)
        self.assertEqual(world.answer_until_done(), 1)
        self.assertEqual(bodies(client), [b"/"])
        self.assertNoResult(waiting)
        cluster.release(busy)
        self.assertIs(self.successResultOf(waiting), busy)

    def test_what_waits_elsewhere_for_another_subset_has_no_use_for_it(self) -> None:
        subsets = {"subset_selectors": [["zone"]], "fall_back_policy": 0}
        world = World(2, cluster={"lb_subset_config": subsets})
        world.agent(0, mux=False, connections=2, metadata={"zone": "a"})
        world.agent(0, mux=False, metadata={"zone": "b"})
        world.agent(1, mux=False, metadata={"zone": "a"})
        here, there = world.cluster(0), world.cluster(1)
        zones = {zone: PickContext(metadata={"zone": zone}) for zone in "ab"}
        busy = here.acquire(zones["b"])
        assert busy is not None
        waits = here.wait(zones["b"], 60.0)
        self.assertIsNotNone(there.acquire(zones["a"]))  # the one that it has
        found = there.wait(zones["a"], 60.0)
        world.turn(0.1)
        host = self.successResultOf(found)
        self.assertEqual((host.metadata["zone"], host.is_remote), ("a", False))
        self.assertNoResult(waits)
        here.release(busy)
        self.assertIs(self.successResultOf(waits), busy)

    def test_a_worker_that_has_no_descriptor_left(self) -> None:
        """It loses what it was given, says so, and is given nothing more for a while."""
        world = World(2)
        world.agent(0, mux=False, connections=2)
        link = world.links(1)[0]
        received = world.workers[1].siblings.received

        def short(link: Any, message: Any, handle: Any) -> None:
            if handle is not None:
                discard(handle)
            received(link, message, None)

        self.patch(world.workers[1].siblings, "received", short)
        with capture() as events:
            client = world.client(1, REQUEST % b"/")
            world.turn(0.5)
        self.assertEqual(events.text().count("as many files open as it may have"), 1)
        self.assertTrue(link.up)
        # Its agent has dialled again, and what is there stays.
        self.assertEqual([host.is_remote for host in world.hosts(0)], [False, False])
        self.patch(world.workers[1].siblings, "received", received)
        world.turn(SHORTAGE)
        world.answer_until_done()
        self.assertEqual(bodies(client), [b"/"])
        self.assertEqual([len(world.hosts(worker)) for worker in (0, 1)], [2, 2])

    def test_what_is_too_much_to_be_given(self) -> None:
        """It stays where it is, and is used there."""
        world = World(2)
        world.agent(0, mux=False)
        [host] = world.hosts(0)
        known = [set(worker.siblings.directory.entries) for worker in world.workers]
        with patch.object(JoinRecord, "to_json", lambda join_record: "x" * MAX_PACKET):
            world.workers[0].siblings.giver.give(host, world.links(0)[1])
            world.turn(0.1)
        self.assertEqual((host.closed, host.is_remote, host.reserved), (False, False, False))
        self.assertEqual([set(worker.siblings.directory.entries) for worker in world.workers], known)
        self.assertEqual(world.workers[0].siblings.giver.leaving, {})
        client = world.client(0, REQUEST % b"/here")
        world.answer_until_done()
        self.assertEqual(bodies(client), [b"/here"])
        self.assertEqual(world.hosts(0), [host])
        client = world.client(1, REQUEST % b"/there")  # and it can move later
        world.answer_until_done()
        self.assertEqual(bodies(client), [b"/there"])

    def test_long_metadata_of_any_script_move(self) -> None:
        """A character takes no more bytes between workers than in the frame of the agent."""
        world = World(2)
        metadata = {"\N{EURO SIGN}" * 200 + f"{number}": "\N{EURO SIGN}" * 256 for number in range(30)}
        world.agent(0, mux=False, metadata=metadata)
        [host] = world.hosts(0)
        self.assertEqual(dict(host.metadata), metadata)
        [other] = world.hosts(1)
        self.assertEqual(dict(other.metadata), metadata)
        client = world.client(1, REQUEST % b"/there")
        world.answer_until_done()
        self.assertEqual(bodies(client), [b"/there"])
        self.assertEqual((host.is_remote, other.is_remote, host.closed), (True, False, False))

    def test_nothing_is_kept_of_clusters_that_are_gone(self) -> None:
        """As of those that agents bring."""
        world = World(2)
        siblings = world.workers[0].siblings
        clusters = world.proxies[0].clusters
        gone = []
        for number in range(3):
            config = ClusterConfig(name=f"brought-{number}")
            cluster = Cluster(config, make_balancer(config, Random(1)), world.reactor)
            gone.append(ref(cluster))
            clusters.add(cluster)
            siblings.share(cluster)
            siblings.received(world.links(0)[1], {"want": config.name, "hosts": [[[], 1, 0.0]]}, None)
            self.assertIn(cluster, siblings.mover._demands)
            world.turn()
            clusters.remove(config.name)
            cluster.drain()
            del cluster
        gc.collect()
        self.assertEqual([each() for each in gone], [None] * 3)
        self.assertEqual({each.name for each in siblings.mover._demands}, set())
        self.assertEqual({each.name for each in siblings.wanting._needs}, {CLUSTER})

    def test_waiting_is_bounded(self) -> None:
        world = World(2, cluster={"connect_timeout": "2s"})
        world.agent(0, mux=False)
        world.client(0, REQUEST % b"/busy")
        waiting = world.client(1, REQUEST % b"/waiting")
        world.turn(2.5)
        self.assertIn(b"503 Service Unavailable", waiting.data)
        self.assertEqual(world.cluster(1).waiting, 0)
        self.assertEqual(world.cluster(0).waiting, 0)

    def test_a_client_that_goes_while_it_waits(self) -> None:
        world = World(2)
        world.agent(0, mux=False)
        world.client(0, REQUEST % b"/busy")
        waiting = world.client(1, REQUEST % b"/waiting")
        self.assertEqual(world.cluster(1).waiting, 1)
        waiting.transport.abortConnection()
        world.turn()
        self.assertEqual((world.cluster(0).waiting, world.cluster(1).waiting), (0, 0))
        world.answer_until_done()
        self.assertEqual(world.hosts(0)[0].active, 0)

    def test_a_client_that_goes_in_the_middle_takes_the_connection_along_if_no_answer_comes(self) -> None:
        world = World(2)
        world.agent(0, mux=False)
        [host] = world.hosts(0)
        client = world.client(1, REQUEST % b"/")
        client.transport.abortConnection()
        world.turn(2)
        self.assertTrue(host.usable())
        world.turn(3)
        self.assertTrue(host.closed or not host.usable())
        [other] = world.hosts(0)
        self.assertIsNot(other, host)
        self.assertEqual(len(world.hosts(1)), 1)
        client = world.client(1, REQUEST % b"/again")
        world.answer_until_done()
        self.assertEqual(bodies(client), [b"/again"])

    def test_sessions_use_it_up(self) -> None:
        world = World(2, kind="tcp")
        world.agent(0, kind="tcp", mux=False)
        [service] = world.services[0]
        service.transport.write(b"early ")  # before there is any client
        client = world.client(1, b"hello")
        world.turn()
        service.transport.write(b"late")
        client.transport.loseWriteConnection()
        world.turn()
        self.assertEqual((service.data, client.data), (b"hello", b"early late"))
        service.transport.loseConnection()
        world.turn(0.3)
        self.assertEqual((len(world.services[0]), len(world.hosts(0)), len(world.hosts(1))), (2, 1, 1))
        self.assertEqual(world.cluster(1).waiting, 0)

    def test_what_its_credential_allows_now_goes_along(self) -> None:
        world = World(2)
        world.agent(0, mux=False)
        [host] = world.hosts(0)
        holding = host.holder.holding
        holding.join_record = replace(
            holding.join_record, accepted=replace(holding.join_record.accepted, weight=3)
        )
        host.cluster.weigh(host, 3)
        client = world.client(1, REQUEST % b"/")
        world.answer_until_done()
        self.assertEqual(bodies(client), [b"/"])
        [theirs] = world.hosts(1)
        self.assertEqual((theirs.weight, theirs.holder.holding.join_record), (3, holding.join_record))

    def test_a_weight_that_an_operator_has_set_goes_along(self) -> None:
        world = World(2)
        world.agent(0, mux=False)
        [host] = world.hosts(0)
        for proxy in world.proxies:
            proxy.answer("weigh", {"cluster": CLUSTER, "address": host.address, "weight": 90})
        client = world.client(1, REQUEST % b"/")
        world.answer_until_done()
        self.assertEqual(bodies(client), [b"/"])
        self.assertEqual([world.hosts(number)[0].weight for number in range(2)], [90, 90])

    def test_unsolicited_data_ends_it(self) -> None:
        world = World(2)
        world.agent(0, mux=False)
        client = world.client(1, REQUEST % b"/")
        world.answer_until_done()
        self.assertEqual(bodies(client), [b"/"])
        # The sibling has it, idle.
        [host] = world.hosts(1)
        host.transport._other.write(b"HTTP/1.1 200 OK\r\n\r\n")
        world.turn()
        self.assertTrue(host.closed)

    def test_the_agent_goes_while_it_is_lent(self) -> None:
        world = World(2)
        world.agent(0, mux=False)
        client = world.client(1, REQUEST % b"/")
        world.hosts(1)[0].transport._other.abortConnection()
        world.turn(0.05)
        # It may have been closed before the request came, which is sent again.
        world.turn(0.5)
        world.answer_until_done()
        self.assertEqual(bodies(client), [b"/"])

    def test_a_graceful_close_while_it_is_lent(self) -> None:
        world = World(2)
        agent = world.agent(0, mux=False)
        client = world.client(1, REQUEST % b"/")
        agent.stopService()
        world.turn(0.5)
        world.answer_all()
        world.turn(3)
        self.assertEqual(bodies(client), [b"/"])
        self.assertEqual((world.hosts(0), world.hosts(1)), ([], []))

    def test_requests_and_workers_at_random(self) -> None:
        """No request is lost, none is answered twice, and nobody is left out."""
        for seed in range(5):
            random = Random(seed)
            world = World(3)
            for _ in range(random.randrange(1, 4)):
                world.agent(
                    random.randrange(3), mux=random.random() < 0.2, connections=random.randrange(1, 3)
                )
            clients: list[Any] = []
            for number in range(60):
                clients.append(world.client(random.randrange(3), REQUEST % b"/%d" % number))
                if random.random() < 0.3:
                    world.answer_all()
            world.answer_until_done()
            self.assertEqual([bodies(client) for client in clients], [[b"/%d" % n] for n in range(60)])
            for worker in range(3):
                self.assertEqual(world.cluster(worker).waiting, 0)


class RpcTests(SynchronousTestCase):
    """Many requests at once on a plain connection, by the protocol's own means."""

    def world(self, workers: int = 2, **more: Any) -> World:
        proxy = http_filter("client_router", downstream_protocol="bolt")
        return World(workers, rpc=True, client_filter=proxy, **more)

    def test_a_connection_goes_from_worker_to_worker(self) -> None:
        world = self.world(3)
        agent = RawAgent(world, 0)
        clients = [world.client(number % 3) for number in range(6)]
        for turn in range(4):
            for number, client in enumerate(clients):
                client.transport.write(encode_request(turn * 10 + number, {"service": "a"}, b"%d" % number))
                world.turn()
            for _ in range(10):
                agent.answer()
                world.turn()
            for number, client in enumerate(clients):
                self.assertEqual(client.data.count(b"answer %d" % number), turn + 1)
        self.assertEqual(agent.lost, 0)

    def test_many_at_once(self) -> None:
        world = self.world()
        agent = RawAgent(world, 0)
        client = world.client(1)
        for number in range(20):
            client.transport.write(encode_request(number + 1, {"service": "a"}, b"%d" % number))
        world.turn()
        self.assertEqual(agent.answer(), 20)
        world.turn()
        self.assertEqual(client.data.count(b"answer "), 20)
        # It was committed to a protocol by that, and everybody knows.
        other = world.client(0, encode_request(1, {"service": "a"}, b"mine"))
        agent.answer()
        world.turn()
        self.assertIn(b"answer mine", other.data)
        self.assertEqual(world.hosts(0)[0].committed_protocol, "bolt")


class RawAgent:
    """An agent that speaks bolt itself, over one plain connection."""

    def __init__(self, world: World, worker: int) -> None:
        self.recorder = Recorder()
        self.connection = world.reactor.dial("127.0.0.1", TUNNEL + worker, self.recorder)
        self.connection.transport.write(encode(ConnectionInit(CLUSTER)))
        world.turn(0.1)
        self._taken = len(self.recorder.data)

    @property
    def lost(self) -> int:
        return int(self.recorder.reason is not None)

    def answer(self) -> int:
        """Answer the requests that have come; how many there were."""
        count = 0
        while frame := self._next():
            command, number, content = frame
            if command == 0:
                answer = encode_response(number, command=0)
            else:
                count += 1
                answer = encode_response(number, content=b"answer " + content)
            self.connection.transport.write(answer)
        return count

    def _next(self) -> tuple[int, int, bytes] | None:
        data = self.recorder.data[self._taken :]
        if len(data) < 22:
            return None
        command, number = int.from_bytes(data[2:4], "big"), int.from_bytes(data[5:9], "big")
        name, headers = int.from_bytes(data[14:16], "big"), int.from_bytes(data[16:18], "big")
        size = int.from_bytes(data[18:22], "big")
        start = 22 + name + headers
        self._taken += start + size
        return command, number, bytes(data[start : start + size])


class ReloadTests(SynchronousTestCase):
    """Another configuration of one worker, while it is linked to the others."""

    def take(self, world: World, worker: int, generation: int, name: str) -> None:
        document = server(client=f"127.0.0.1:{CLIENT + worker}", tunnel=f"127.0.0.1:{TUNNEL + worker}")
        text = json.dumps(document).replace(f'"{CLUSTER}"', f'"{name}"')
        world.proxies[worker].living.take(loads(text, "document"), generation)
        world.turn()

    def test_a_cluster_that_comes_back_while_requests_wait_in_the_old_one(self) -> None:
        for mux in (False, True):
            world = World(2)
            world.agent(0, mux=mux)
            first = world.client(0, REQUEST % b"/1")
            world.client(1, REQUEST % b"/2")
            self.take(world, 1, 2, "another")
            self.take(world, 1, 3, CLUSTER)
            self.assertEqual([host.cluster for host in world.hosts(1)], [world.cluster(1)])
            world.answer_until_done()
            self.assertEqual(bodies(first), [b"/1"])
            third = world.client(1, REQUEST % b"/3")
            world.answer_until_done()
            self.assertEqual(bodies(third), [b"/3"])
            world.turn(12)
            self.assertEqual(len(world.hosts(1)), 1)

    def test_a_connection_that_comes_to_a_worker_without_its_cluster(self) -> None:
        world = World(2)
        world.agent(0, mux=False)
        first = world.client(0, REQUEST % b"/1")
        world.client(1, REQUEST % b"/2")
        self.take(world, 1, 2, "another")
        world.answer_until_done()
        self.assertEqual(bodies(first), [b"/1"])
        self.assertEqual(world.hosts(0), [])  # It was of no use there, which all hear of.
        self.take(world, 1, 3, CLUSTER)
        world.turn(2)  # The agent connects again.
        self.assertEqual([len(world.hosts(number)) for number in range(2)], [1, 1])
        third = world.client(1, REQUEST % b"/3")
        world.answer_until_done()
        self.assertEqual(bodies(third), [b"/3"])


class SettledTests(SynchronousTestCase):
    """Load balancers that decide on a certain host."""

    def test_all_workers_agree(self) -> None:
        world = World(3, cluster={"lb_type": "LB_MAGLEV"})
        for number in range(6):
            world.agent(number % 3, mux=number < 3)
        for key in range(50):
            picked: set[str] = set()
            for worker in range(3):
                cluster = world.cluster(worker)
                host = cluster.acquire(PickContext(hash_key=b"%d" % key))
                assert host is not None
                picked.add(host.address)
                cluster.release(host)
            self.assertEqual(len(picked), 1)

    def test_a_certain_host_is_waited_for(self) -> None:
        world = World(2, cluster={"lb_type": "LB_MAGLEV"})
        world.agent(0, mux=False)
        clients = [world.client(number % 2, REQUEST % b"/%d" % number) for number in range(10)]
        self.assertEqual(world.answer_until_done(), 10)
        self.assertEqual([bodies(client) for client in clients], [[b"/%d" % n] for n in range(10)])

    def counted(self, world: World) -> list[Any]:
        """The requests for certain connections that workers send one another from now on."""
        fetches: list[Any] = []
        for worker in range(len(world.workers)):
            for link in world.links(worker).values():
                channel: Any = link._channel
                send = channel.send

                def keep(message: Any, handle: Any = None, send: Any = send) -> None:
                    if "fetch" in message:
                        fetches.append(message)
                        assert len(fetches) < 100, "there is no end of requests"
                    send(message, handle)

                channel.send = keep
        return fetches

    def test_several_workers_want_one_that_is_busy(self) -> None:
        """They are told to wait, and get it one after the other."""
        world = World(3, cluster={"lb_type": "LB_MAGLEV"})
        world.agent(2, mux=False)
        fetches = self.counted(world)
        clients = [world.client(worker, REQUEST % b"/%d" % worker) for worker in (2, 0, 1)]
        world.turn(1)
        self.assertLess(len(fetches), 5)
        self.assertEqual(world.answer_until_done(), 3)
        self.assertEqual([bodies(client) for client in clients], [[b"/2"], [b"/0"], [b"/1"]])

    def test_one_that_is_busy_is_wanted_again_and_again(self) -> None:
        """The first requests have waited in vain."""
        world = World(2, cluster={"lb_type": "LB_MAGLEV", "connect_timeout": "2s"})
        world.agent(0, mux=False)
        fetches = self.counted(world)
        busy = world.client(0, REQUEST % b"/busy")
        for _ in range(3):
            world.client(1, REQUEST % b"/late")
            world.turn(3)
        self.assertLess(len(fetches), 20)
        last = world.client(1, REQUEST % b"/last")
        world.answer_until_done()
        self.assertEqual((bodies(busy), bodies(last)), ([b"/busy"], [b"/last"]))

    def test_one_that_was_to_go_to_a_worker_that_has_ended(self) -> None:
        """It goes to the next one that wants it."""
        world = World(3, cluster={"lb_type": "LB_MAGLEV"})
        world.agent(2, mux=False)
        clients = [world.client(worker, REQUEST % b"/%d" % worker) for worker in (2, 0, 1)]
        world.turn()
        world.links(2)[0].abort("it has ended")
        world.turn()
        world.answer_until_done()
        self.assertEqual([bodies(client) for client in clients[::2]], [[b"/2"], [b"/1"]])
        self.assertEqual(world.workers[2].siblings.giver.leaving, {})

    def test_workers_that_do_not_agree_where_it_is(self) -> None:
        world = World(3, cluster={"lb_type": "LB_MAGLEV"})
        world.agent(2, mux=False)
        [number] = world.workers[2].siblings.directory.entries
        for worker, at in ((0, 2), (2, 0)):
            world.workers[worker].siblings.directory.entries[number].at = at
        fetches = self.counted(world)
        world.links(1)[0].send({"fetch": number, "for": 1})
        world.turn(1)
        self.assertEqual(len(fetches), 1 + MOST_HOPS)


class WithdrawalTests(SynchronousTestCase):
    """A worker that stops alone."""

    def test_what_was_begun_is_finished(self) -> None:
        world = World(2)
        world.agent(0)
        client = world.client(1, REQUEST % b"/")
        world.workers[0].siblings.withdraw()
        world.turn()
        self.assertEqual(world.hosts(1), [])
        world.answer_until_done()
        self.assertEqual(bodies(client), [b"/"])

    def test_plain_connections_go_to_those_who_stay(self) -> None:
        world = World(3)
        world.agent(0, mux=False, connections=5)
        world.agent(1, mux=False)
        client = world.client(0, REQUEST % b"/")
        world.workers[1].siblings.drain()
        world.turn()
        world.workers[0].siblings.drain()
        world.turn()
        here = [sum(not host.is_remote for host in world.hosts(number)) for number in range(3)]
        # One is in use, and those who go themselves are given none.
        self.assertEqual(sum(here), 6)
        self.assertEqual((here[0], here[1]), (1, 0))
        world.answer_until_done()
        self.assertEqual(bodies(client), [b"/"])
        here = [sum(not host.is_remote for host in world.hosts(number)) for number in range(3)]
        self.assertEqual(here, [0, 0, 6])
        # Whoever goes may still need one.
        client = world.client(0, REQUEST % b"/last")
        world.answer_until_done()
        self.assertEqual(bodies(client), [b"/last"])


class EvictionTests(SynchronousTestCase):
    """A graceful close that reaches another worker than the connections."""

    def evict(self, world: World, requester: Requester, *addresses: str) -> set[str]:
        found: list[set[str]] = []
        siblings = world.workers[1].siblings
        siblings.evict("tunnelListener", CLUSTER, addresses, requester).addCallback(found.append)
        world.turn()
        return found[0]

    def test_the_owner_judges(self) -> None:
        world = World(3)
        world.agent(0, announce=False, connections=2)
        one, two = (host.address for host in world.hosts(0))
        owner = ConnectionInfo(one, "").remote_ip
        stranger = Requester("10.9.9.9", "somebody", Principal("token", "somebody"), "guessed")
        self.assertEqual(self.evict(world, stranger, one, two), set())
        self.assertEqual(len(world.hosts(0)), 2)
        self.assertEqual(self.evict(world, Requester(owner), one, "10.1.1.1:1"), {one})
        self.assertEqual([host.address for host in world.hosts(0)], [two])
        self.assertEqual([host.address for host in world.hosts(2)], [two])

    def test_a_connection_that_has_just_been_given_away_is_followed(self) -> None:
        world = World(3)
        world.agent(0, announce=False, mux=False)
        [host] = world.hosts(0)
        siblings = world.workers[0].siblings
        siblings.giver.give(host, world.links(0)[1])
        # The third worker has asked the first two: the second one before it had the connection.
        link = world.links(0)[2]
        asked = {
            "evict": 7,
            "listener": "tunnelListener",
            "cluster": CLUSTER,
            "addresses": [host.address, "10.1.1.1:1"],
            "by": {"remote_ip": "127.0.0.1", "identity": None, "agent": None, "policy": ""},
            "hops": 0,
        }
        answers: list[Any] = []
        self.patch(world.workers[2].siblings.directory.evictions, "evicted", None)
        world.workers[2].siblings._handlers["evicted"] = lambda link, message: answers.append(message)
        siblings.received(link, asked, None)
        world.turn()
        self.assertEqual(answers, [{"evicted": 7, "addresses": [host.address]}])
        world.turn(1)
        self.assertEqual(
            [
                len([each for each in world.hosts(worker) if each.address == host.address])
                for worker in range(3)
            ],
            [0, 0, 0],
        )

    def test_what_is_known_of_who_asks_goes_along(self) -> None:
        world = World(2)
        asked: list[Any] = []
        server = world.workers[0].siblings.servers["tunnelListener"]
        evict = server.evict
        self.patch(server, "evict", lambda *arguments: asked.append(arguments) or evict(*arguments))
        requester = Requester("10.0.0.1", "CN=edge", Principal("token", "edge"), "an id")
        self.assertEqual(self.evict(world, requester, "10.0.0.1:1"), set())
        self.assertEqual(asked, [(CLUSTER, ["10.0.0.1:1"], requester)])

    def test_a_sibling_that_does_not_answer(self) -> None:
        world = World(2)
        world.workers[0].siblings._handlers["evict"] = lambda link, message: None
        found: list[set[str]] = []
        siblings = world.workers[1].siblings
        siblings.evict("tunnelListener", CLUSTER, ["10.0.0.1:1"], Requester("10.0.0.1")).addCallback(
            found.append
        )
        world.turn(4)
        self.assertEqual(found, [])
        world.turn(2)
        self.assertEqual(found, [set()])


class KindTests(SynchronousTestCase):
    def test_kinds(self) -> None:
        world = World(2)
        world.agent(0, mux=False)
        [own], [theirs] = world.hosts(0), world.hosts(1)
        self.assertIs(type(own), ReverseHost)
        self.assertIs(type(theirs), ReverseHost)
        self.assertEqual((own.state, theirs.state), ("idle", "away"))
        self.assertEqual((own.is_remote, theirs.is_remote), (False, True))
