"""Connections that can't move to another worker: over TLS, and with HTTP/2 in progress."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.cluster.host import ReverseHost
from reverseproxy.workers import tls_relays
from reverseproxy.workers.relaying import RelayedHost
from tests.integration.configs import quick_agent
from tests.integration.harness import certificates
from tests.integration.http2_configs import spoken
from tests.integration.test_tls import client_context, server_context
from tests.workers import world as module
from tests.workers.test_siblings import bodies
from tests.workers.world import REQUEST, World


class TlsTests(SynchronousTestCase):
    """The worker that has accepted a connection relays, as long as another one has it."""

    def setUp(self) -> None:
        directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, directory)
        self.ca = certificates(directory)
        self.certificate = self.ca.issue("127.0.0.1")

    def world(self, workers: int = 3, kind: str = "http", **more: Any) -> World:
        world = World(workers, tls=server_context(self.certificate), kind=kind, **more)
        world.agent(0, mux=False, kind=kind, tls=client_context(self.ca.ca_file))
        world.turn(0.2)
        return world

    def relays(self, world: World) -> list[int]:
        return [len(worker.siblings.relays) for worker in world.workers]

    def states(self, world: World) -> list[str]:
        return [host.state for worker in range(len(world.workers)) for host in world.hosts(worker)]

    def test_it_goes_around_and_comes_home(self) -> None:
        world = self.world()
        for worker in (1, 2, 1, 0, 2, 0, 0, 1):
            client = world.client(worker, REQUEST % b"/%d" % worker)
            world.answer_until_done()
            self.assertEqual(bodies(client), [b"/%d" % worker])
            states = ["away"] * 3
            states[worker] = "leased"
            self.assertEqual(self.states(world), states)
            self.assertEqual(self.relays(world), [int(worker != 0), 0, 0])
        self.assertEqual(len(world.services[0]), 1)

    def test_no_descriptor_is_left_to_relay(self) -> None:
        """It stays where it is, and serves there."""
        world = self.world(2)
        [host] = world.hosts(0)

        def none_left(reactor: Any) -> Any:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        patch = self.patch(tls_relays, "make_pair", none_left)
        world.workers[0].siblings.giver.give(host, world.links(0)[1])
        world.turn()
        self.assertEqual(
            (host.state, host.is_remote, host.reserved, self.relays(world)), ("idle", False, False, [0, 0])
        )
        client = world.client(0, REQUEST % b"/here")
        world.answer_until_done()
        self.assertEqual(bodies(client), [b"/here"])
        patch.restore()
        client = world.client(1, REQUEST % b"/there")
        world.answer_until_done()
        self.assertEqual((bodies(client), self.relays(world)), ([b"/there"], [1, 0]))

    def test_large_bodies_both_ways(self) -> None:
        world = self.world(2, kind="tcp")
        client = world.client(1, b"x" * 2_000_000)
        world.turn(0.1)
        [service] = world.services[0]
        service.transport.write(b"y" * 2_000_000)
        world.turn(0.1)
        self.assertEqual((len(service.data), len(client.data)), (2_000_000, 2_000_000))
        client.transport.loseWriteConnection()
        world.turn(0.1)
        service.transport.loseConnection()
        world.turn(0.3)
        self.assertIsNotNone(client.reason)
        self.assertEqual(self.relays(world), [0, 0])

    def test_what_a_service_says_first_goes_along(self) -> None:
        world = self.world(kind="tcp")
        world.services[0][0].transport.write(b"early ")
        world.turn()
        giver = world.workers[0].siblings.giver
        [host] = world.hosts(0)
        # To another worker, on to the third, and home, without a use.
        giver.give(host, world.links(0)[1])
        world.turn()
        world.services[0][0].transport.write(b"and ")
        world.turn()
        self.assertEqual(self.states(world), ["away", "idle", "away"])
        for worker, to in ((1, 2), (2, 0)):
            [host] = world.hosts(worker)
            world.workers[worker].siblings.giver.give(host, world.links(worker)[to])
            world.services[0][0].transport.write(b"more ")
            world.turn(0.05)
        self.assertEqual((self.states(world), self.relays(world)), (["idle", "away", "away"], [0, 0, 0]))
        client = world.client(0)
        world.turn()
        self.assertEqual(client.data, b"early and more more ")

    def test_the_agent_goes_while_another_worker_has_it(self) -> None:
        world = self.world()
        client = world.client(2, REQUEST % b"/")
        world.answer_until_done()
        self.assertEqual(bodies(client), [b"/"])
        quota = world.workers[0].siblings.servers["tunnelListener"].quotas
        self.assertTrue(quota._counts)
        world.agents[0].stopService()
        world.turn(3)
        self.assertEqual((self.states(world), self.relays(world)), ([], [0, 0, 0]))
        self.assertFalse(quota._counts)

    def test_the_agent_goes_while_it_comes_home(self) -> None:
        """At whatever moment that is, nobody keeps a host without a connection."""
        for steps in range(12):
            world = self.world(kind="tcp")
            [host] = world.hosts(0)
            world.workers[0].siblings.giver.give(host, world.links(0)[1])
            world.turn()
            self.assertEqual(self.states(world), ["away", "idle", "away"])
            [host] = world.hosts(1)
            for agent in world.agents[0].living.agents:
                agent.stopService()  # it does not dial again
            world.services[0][0].transport.loseConnection()
            for _ in range(steps):
                world.reactor.advance(0)
            if host.cluster is not None and not host.closed:
                world.workers[1].siblings.giver.give(host, world.links(1)[0])
            world.turn(3)
            self.assertEqual((self.states(world), self.relays(world)), ([], [0, 0, 0]), steps)
            for worker in world.workers:
                self.assertEqual(worker.siblings.directory.entries, {}, steps)

    def test_a_worker_dies_that_has_it(self) -> None:
        world = self.world()
        client = world.client(2, REQUEST % b"/")
        world.answer_until_done()
        self.assertEqual(bodies(client), [b"/"])
        [host] = world.hosts(2)
        for link in list(world.links(2).values()):
            link.abort("the test says so")
        host.transport.abortConnection()
        world.turn(1)
        # Its agent connects again.
        self.assertEqual(self.relays(world), [0, 0, 0])
        client = world.client(1, REQUEST % b"/again")
        world.answer_until_done()
        self.assertEqual(bodies(client), [b"/again"])

    def test_a_worker_ends_that_relays(self) -> None:
        world = self.world(2)
        client = world.client(1, REQUEST % b"/")
        world.workers[0].siblings.withdraw()
        world.turn()
        world.answer_until_done()
        self.assertEqual(bodies(client), [b"/"])
        self.assertEqual(self.relays(world), [0, 0])


class Http2Tests(SynchronousTestCase):
    """The only connection of an agent without streams, to which HTTP/2 is spoken."""

    def world(self, workers: int = 2) -> World:
        def server(**more: Any) -> dict[str, Any]:
            return spoken(module_server(**more), "Http1", "Http2")

        def agent(*arguments: Any, **more: Any) -> dict[str, Any]:
            return spoken(quick_agent(*arguments, **more), "Http2", "Http1")

        module_server = module.server
        self.patch(module, "server", server)
        self.patch(module, "quick_agent", agent)
        world = World(workers)
        world.agent(0, mux=False)
        world.turn(0.2)
        return world

    def test_nobody_waits_for_a_long_download(self) -> None:
        world = self.world(3)
        long = world.client(0, REQUEST % b"/long")
        self.assertIn(b"/long", world.services[0][0].data)
        clients = [world.client(1 + number % 2, REQUEST % b"/%d" % number) for number in range(6)]
        world.turn(0.05)
        for service in world.services[0][1:]:
            if b"GET /" in service.data:
                service.answer(service.data.split()[1])
        world.turn()
        self.assertEqual([bodies(client) for client in clients], [[b"/%d" % number] for number in range(6)])
        self.assertEqual(bodies(long), [])
        world.services[0][0].answer(b"/long")
        world.turn()
        self.assertEqual(bodies(long), [b"/long"])
        kinds = [type(host) for worker in range(3) for host in world.hosts(worker)]
        self.assertEqual(kinds, [ReverseHost, RelayedHost, RelayedHost])
        self.assertEqual([host.active for worker in range(3) for host in world.hosts(worker)], [0, 0, 0])

    def test_it_moves_until_it_was_used(self) -> None:
        world = self.world()
        client = world.client(1, REQUEST % b"/1")
        other = world.client(0, REQUEST % b"/0")
        world.turn(0.05)
        world.answer_until_done()
        self.assertEqual((bodies(client), bodies(other)), ([b"/1"], [b"/0"]))
        kinds = [type(host) for worker in range(2) for host in world.hosts(worker)]
        self.assertEqual(kinds, [RelayedHost, ReverseHost])

    def test_bodies_pass(self) -> None:
        world = self.world()
        world.client(0, REQUEST % b"/first")
        world.answer_until_done()
        body = b"x" * 1_000_000
        head = b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
        client = world.client(1, head + body)
        world.turn(0.1)
        [service] = [each for each in world.services[0] if b"POST" in each.data]
        self.assertTrue(service.data.endswith(body))
        self.assertIn(b"POST /body HTTP/1.1\r\nHost: a\r\n", service.data)
        service.answer(body)
        world.turn(0.1)
        self.assertEqual(bodies(client), [body])

    def test_an_agent_stops(self) -> None:
        world = self.world()
        world.client(0, REQUEST % b"/first")
        world.answer_until_done()
        client = world.client(1, REQUEST % b"/")
        world.turn(0.05)
        world.agents[0].stopService()
        world.turn(0.5)
        world.answer_all()
        world.turn(3)
        self.assertEqual(bodies(client), [b"/"])
        self.assertEqual((world.hosts(0), world.hosts(1)), ([], []))

    def test_its_worker_is_gone(self) -> None:
        world = self.world()
        world.client(0, REQUEST % b"/first")
        world.answer_until_done()
        client = world.client(1, REQUEST % b"/")
        world.turn(0.05)
        world.links(1)[0].abort("the test says so")
        world.turn()
        self.assertEqual((world.hosts(1), bodies(client)), ([], []))
