from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from reverseproxy.cluster.building import make_cluster
from reverseproxy.cluster.health.checks import HealthMonitor, IHealthChecker
from reverseproxy.cluster.host import IHostPool, ReverseHost
from reverseproxy.config.models import ClusterConfig, HealthCheckConfig
from reverseproxy.errors import HostGone, RpcFrameError
from reverseproxy.proxy.rpc.health import RpcChecker, rpc_checkers
from reverseproxy.wire.rpc.bolt import Bolt
from reverseproxy.wire.rpc.dubbo import Dubbo
from reverseproxy.wire.rpc.xprotocol import Kind
from tests.proxy.rpc_world import Peer, World, request, response


class CheckerTestCase(SynchronousTestCase):
    def make(self, hosts: int, **more: Any) -> None:
        self.world = World(hosts, **more)
        self.checker = RpcChecker(self.world.protocol, self.world.clock)
        verifyObject(IHealthChecker, self.checker)
        self.addCleanup(lambda: self.world.check_idle(self.fail))


class DialledTests(CheckerTestCase):
    def check(self, **more: Any) -> Peer:
        self.make(1, **more)
        [host] = self.world.hosts
        self.assertTrue(self.checker.wants(host))
        self.verdict = self.checker.check(host)
        return self.world.host()

    def test_answered(self) -> None:
        host = self.check()
        frame = host.one()
        self.assertEqual((frame.kind, frame.id), (Kind.HEARTBEAT, 1))
        host.send(Bolt().heartbeat(1), response(7))
        self.assertEqual(host.one().kind, Kind.HEARTBEAT_ACK)  # to the host's own heartbeat
        self.assertNoResult(self.verdict)
        host.send(Bolt().answer_heartbeat(frame))
        self.assertIsNone(self.successResultOf(self.verdict))
        self.assertTrue(host.wire.aborted)

    def test_dubbo(self) -> None:
        host = self.check(protocol=Dubbo())
        host.send(Dubbo().answer_heartbeat(host.one()))
        self.assertIsNone(self.successResultOf(self.verdict))

    def test_nonsense(self) -> None:
        host = self.check()
        host.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        self.failureResultOf(self.verdict, RpcFrameError)
        self.assertTrue(host.wire.aborted)

    def test_lost(self) -> None:
        host = self.check()
        host.wire.reset()
        self.failureResultOf(self.verdict, HostGone)

    def test_not_waited_for(self) -> None:
        host = self.check()
        self.verdict.cancel()
        self.failureResultOf(self.verdict, CancelledError)
        self.assertTrue(host.wire.aborted)


class HeldTests(CheckerTestCase):
    def test_before_the_first_request(self) -> None:
        self.make(0)
        agent = self.world.agent()
        verdict = self.checker.check(self.world.hosts[0])
        agent.send(Bolt().answer_heartbeat(agent.one()))
        self.assertIsNone(self.successResultOf(verdict))
        client = self.world.client()
        client.send(request(5))
        self.assertEqual(agent.echo(), [2])
        self.assertEqual(client.answers(), [(5, 0)])

    def test_beside_requests(self) -> None:
        self.make(0)
        agent = self.world.agent()
        client = self.world.client()
        client.send(request(5))
        verdict = self.checker.check(self.world.hosts[0])
        _asked, heartbeat = agent.frames()
        agent.send(Bolt().answer_heartbeat(heartbeat))
        self.assertIsNone(self.successResultOf(verdict))
        agent.send(response(1))
        self.assertEqual(client.answers(), [(5, 0)])
        self.assertEqual(self.world.upstream.active, 0)

    def test_lost(self) -> None:
        self.make(0)
        agent = self.world.agent()
        verdict = self.checker.check(self.world.hosts[0])
        agent.wire.reset()
        self.failureResultOf(verdict, HostGone)

    def test_gone(self) -> None:
        self.make(0)
        self.world.agent()
        [host] = self.world.hosts
        host.close("gone")
        self.failureResultOf(self.checker.check(host), HostGone)

    def test_not_waited_for(self) -> None:
        self.make(0)
        agent = self.world.agent()
        verdict = self.checker.check(self.world.hosts[0])
        heartbeat = agent.one()
        verdict.cancel()
        self.failureResultOf(verdict, CancelledError)
        agent.send(Bolt().answer_heartbeat(heartbeat))
        self.assertEqual(self.world.upstream.dropped, 1)

    def test_it_is_us_who_do_not_read(self) -> None:
        self.make(0)
        self.world.agent()
        verdict = self.checker.check(self.world.hosts[0])
        self.world.upstream.pause(self)
        verdict.cancel()
        self.assertIsNone(self.successResultOf(verdict))
        self.world.upstream.resume(self)

    def test_another_worker(self) -> None:
        self.make(0)
        self.world.agent()
        self.patch(ReverseHost, "is_remote", True)
        self.assertFalse(self.checker.wants(self.world.hosts[0]))

    def test_another_protocol(self) -> None:
        self.make(0)
        self.world.agent()
        [host] = self.world.hosts
        self.assertTrue(self.checker.wants(host))
        host.committed_protocol = "Http1"
        self.assertFalse(self.checker.wants(host))
        host.committed_protocol = ""
        pools: dict[str, IHostPool] = host.pools
        pools["Http1"] = self.world.pool if "bolt" in pools else None  # type: ignore[assignment]
        self.assertFalse(self.checker.wants(host))
        host.pools.clear()


class MonitorTests(SynchronousTestCase):
    def test_an_agent_that_stops_answering(self) -> None:
        """It gets no more requests, and gets them again when it answers."""
        world = World()
        check = HealthCheckConfig(service_name="any", protocol="bolt", interval=10.0, interval_jitter=0.001)
        checker = RpcChecker(world.protocol, world.clock)
        world.cluster.add_task(HealthMonitor(world.cluster, check, checker, world.clock, lambda: 0.5))
        world.cluster.start()
        self.addCleanup(world.cluster.stop)
        good, bad = world.agent("agent:1"), world.agent("agent:2")
        world.turn(1)
        good.send(Bolt().answer_heartbeat(good.one()))
        bad.frames()
        world.turn(1)
        self.assertEqual([host.healthy for host in world.hosts], [True, False])
        client = world.client()
        client.send(*(request(number) for number in range(10)))
        self.assertEqual(len(good.echo()), 10)
        self.assertEqual(len(client.answers()), 10)
        world.clock.advance(10.001)
        world.turn(0)
        for agent in (good, bad):
            agent.send(*(Bolt().answer_heartbeat(frame) for frame in agent.frames()))
        self.assertEqual([host.healthy for host in world.hosts], [True, True])


class MakeTests(SynchronousTestCase):
    def test_every_protocol(self) -> None:
        clock = Clock()
        checkers = rpc_checkers(clock)
        self.assertEqual(list(checkers), ["bolt", "boltv2", "dubbo"])
        for name, make in checkers.items():
            checker = make(HealthCheckConfig(protocol=name))
            self.assertEqual(checker._protocol.name, name)

    def test_in_a_cluster(self) -> None:
        clock = Clock()
        config = ClusterConfig.model_validate(
            {"name": "c", "health_check": {"service_name": "any", "protocol": "boltv2"}}
        )
        cluster = make_cluster(config, clock, Random(1), rpc_checkers(clock))
        [monitor] = [task for task in cluster.members.tasks if isinstance(task, HealthMonitor)]
        self.assertIsInstance(monitor._checker, RpcChecker)
