from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from reverseproxy.cluster.host import ReverseHost
from reverseproxy.cluster.manager import IClusterTask
from reverseproxy.proxy.readiness import Readiness, sole_protocols
from reverseproxy.proxy.rpc.protocols import Dialect
from reverseproxy.wire.rpc.bolt import Bolt
from reverseproxy.wire.rpc.xprotocol import Kind
from tests.config.documents import FILTER, GONE, LISTENER, ROUTER, RULE, TUNNEL_SERVER, edited, parse
from tests.proxy.rpc_world import World, request

PROXY = f"{FILTER}.config"

BOLT = Dialect("bolt", Bolt(), 2**20)


class ReadinessTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World(1)
        self.world.cluster.add_task(Readiness(BOLT, self.world.clock))
        self.world.cluster.start()

    def test_interface(self) -> None:
        task = Readiness(BOLT, self.world.clock)
        verifyObject(IClusterTask, task)
        task.stop()

    def test_heartbeats_before_the_first_request(self) -> None:
        agent = self.world.agent()
        self.assertEqual(agent.frames(), [])
        for number in range(1, 11):
            self.world.turn(15)
            frame = agent.one()
            self.assertEqual((frame.kind, frame.id), (Kind.HEARTBEAT, number))
            agent.send(Bolt().answer_heartbeat(frame))
        client = self.world.client()
        client.send(request(5), request(6))
        self.assertEqual(len(agent.echo()) + len(self.world.host().echo()), 2)
        self.assertEqual(len(client.answers()), 2)

    def test_a_dead_connection_is_found_out(self) -> None:
        agent = self.world.agent()
        self.world.run(100)
        self.assertTrue(agent.wire.lost)
        self.assertEqual(len(self.world.cluster.hosts), 1)

    def test_many_requests_at_once(self) -> None:
        agent = self.world.agent()
        client = self.world.client()
        client.send(*(request(number) for number in range(100)))
        self.assertEqual(len(agent.echo()) + len(self.world.host().echo()), 100)

    def test_static_hosts_are_left_alone(self) -> None:
        self.assertEqual(self.world.endpoint.dials, [])

    def test_hosts_of_other_workers_are_left_alone(self) -> None:
        self.patch(ReverseHost, "is_remote", True)
        agent = self.world.agent()
        self.world.run(60)
        self.assertEqual(agent.frames(), [])

    def test_a_host_that_is_gone_at_once(self) -> None:
        self.world.agent()
        [_static, host] = self.world.hosts
        host.close("gone")
        host.cluster = None
        Readiness(BOLT, self.world.clock).joined(host)

    def test_stopping(self) -> None:
        self.world.cluster.stop()
        self.world.agent()
        self.world.cluster.remove_host(self.world.hosts[1])


class SoleProtocolTests(SynchronousTestCase):
    def sole(self, *changes: tuple[str, Any]) -> dict[str, str]:
        return sole_protocols(parse(edited(TUNNEL_SERVER, *changes)).config)

    def test_http(self) -> None:
        self.assertEqual(self.sole(), {"edge": "Http1"})

    def test_bolt(self) -> None:
        self.assertEqual(self.sole((f"{PROXY}.downstream_protocol", "bolt")), {"edge": "bolt"})

    def test_the_form_of_old(self) -> None:
        self.assertEqual(
            self.sole(
                (f"{PROXY}.downstream_protocol", "X"),
                (f"{PROXY}.extend_config", {"sub_protocol": "bolt"}),
                (f"{RULE}.route.upstream_protocol", "X"),
            ),
            {"edge": "bolt"},
        )

    def test_several(self) -> None:
        self.assertEqual(self.sole((f"{PROXY}.downstream_protocol", "bolt,Http1")), {})
        self.assertEqual(self.sole((f"{PROXY}.downstream_protocol", "Auto")), {"edge": "Auto"})

    def test_the_route_decides(self) -> None:
        self.assertEqual(
            self.sole((f"{PROXY}.downstream_protocol", "Auto"), (f"{RULE}.route.upstream_protocol", "bolt")),
            {"edge": "bolt"},
        )

    def test_several_listeners(self) -> None:
        other = {
            "address": "127.0.0.1:1",
            "bind_port": True,
            "filter_chains": [{"filters": [{"type": "tcp_proxy", "config": {"cluster": "edge"}}]}],
        }
        self.assertEqual(self.sole(("servers[0].listeners[2]", other)), {})
        self.assertEqual(self.sole((LISTENER, other)), {"edge": "tcp"})

    def test_no_route(self) -> None:
        self.assertEqual(self.sole((f"{RULE}.route", GONE), (f"{RULE}.direct_response", {"status": 200})), {})

    def test_weighted(self) -> None:
        clusters = [{"name": "edge"}, {"name": "other"}]
        weighted = [{"cluster": {"name": each["name"], "weight": 1}} for each in clusters]
        self.assertEqual(
            self.sole(
                ("cluster_manager.clusters", clusters),
                (f"{RULE}.route.cluster_name", GONE),
                (f"{RULE}.route.weighted_clusters", weighted),
                (f"{RULE}.request_mirror_policies", {"cluster": "copies", "percent": 1}),
            ),
            {"edge": "Http1", "other": "Http1", "copies": "Http1"},
        )

    def test_a_variable_may_be_any_cluster(self) -> None:
        rule = {"match": {"prefix": "/x"}, "route": {"cluster_variable": "request_header_x"}}
        document = [(f"{ROUTER}.virtual_hosts[0].routers[1]", rule)]
        self.assertEqual(self.sole(*document), {"edge": "Http1"})
        other = {
            "address": "127.0.0.1:1",
            "bind_port": True,
            "filter_chains": [
                {
                    "filters": [
                        {
                            "type": "proxy",
                            "config": {"downstream_protocol": "bolt", "router_config_name": "any"},
                        },
                        {
                            "type": "connection_manager",
                            "config": {
                                "router_config_name": "any",
                                "virtual_hosts": [{"name": "all", "domains": ["*"], "routers": [rule]}],
                            },
                        },
                    ]
                }
            ],
        }
        self.assertEqual(self.sole(("servers[0].listeners[2]", other)), {})
