"""Several listeners with filters of different options, and one cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from twisted.plugin import IPlugin
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from reverseproxy.cluster.endpoints import CallableFactory
from reverseproxy.cluster.message_limits import HEAD_ROOM
from reverseproxy.interfaces import IXProtocolPlugin
from reverseproxy.proxy.pools import register_pool
from reverseproxy.proxy.readiness import sole_dialects, sole_protocols
from reverseproxy.proxy.rpc import protocols as xprotocols
from reverseproxy.proxy.rpc.protocols import dialect_of
from reverseproxy.testing import MemoryReactor, Recorder, run
from reverseproxy.wire.rpc.bolt import Bolt
from reverseproxy.wire.rpc.xprotocol import RpcFrameDecoder
from tests.config.documents import parse
from tests.proxy.rpc_world import Peer, World, request, response

SMALL, LARGE = 70_000, 1_000_000


class FrameSizeTests(SynchronousTestCase):
    """Two listeners that take responses of different sizes, and the connections that they share."""

    def each(self) -> Any:
        """Both orders, over a connection that is dialled and one that an agent has brought."""
        for reverse in (False, True):
            for small_first in (False, True):
                self.world = World(0 if reverse else 1, max_frame=SMALL)
                large = replace(self.world.settings, max_frame=LARGE)
                agent = self.world.agent() if reverse else None
                clients = [self.world.client(), self.world.client(settings=large)]
                for client in clients if small_first else reversed(clients):
                    client.send(request(1))
                    host = agent or self.world.host()
                    self.assertEqual(len(host.echo()), 1)
                    self.assertEqual(client.answers(), [(1, 0)])
                yield clients[0], clients[1], host
                self.world.check_idle(self.fail)

    def test_each_has_its_own_limit(self) -> None:
        for small, large, host in self.each():
            small.send(request(2))
            large.send(request(3))
            for frame in host.frames():
                host.send(response(frame.id, bytes(SMALL + HEAD_ROOM)))
            [refused] = small.frames()
            self.assertEqual((refused.id, Bolt().http_status(refused)), (2, 500))
            self.assertEqual(large.answers(), [(3, 0)])
            # The connection is none the worse for it.
            self.assertFalse(host.wire.lost)
            small.send(request(4))
            self.assertEqual(len(host.echo()), 1)
            self.assertEqual(small.answers(), [(4, 0)])
            self.assertEqual(len(self.world.hosts[0].pools), 1)

    def test_what_nobody_takes_ends_the_connection(self) -> None:
        for small, large, host in self.each():
            small.send(request(2))
            large.send(request(3))
            [frame, _] = host.frames()
            host.send(response(frame.id, bytes(LARGE + HEAD_ROOM)))
            self.world.turn()
            self.assertEqual([each.id for each in small.frames() + large.frames()], [2, 3])
            self.assertTrue(host.wire.lost)

    def test_a_limit_that_nobody_else_has_raised(self) -> None:
        world = World(1, max_frame=SMALL)
        client = world.client()
        client.send(request(1))
        host = world.host()
        [frame] = host.frames()
        host.send(response(frame.id, bytes(SMALL)))
        world.turn()
        self.assertEqual([each.id for each in client.frames()], [1])
        self.assertTrue(host.wire.lost)

    def test_a_copy_is_answered_as_largely(self) -> None:
        world = World(1, max_frame=LARGE)
        client = world.client()
        client.send(request(1, "copied"))
        copied = Peer(world.copied.wires[0])
        [frame] = copied.frames()
        copied.send(response(frame.id, bytes(SMALL)))
        world.turn()
        self.assertFalse(copied.wire.lost)
        world.host().echo()
        world.check_idle(self.fail)


class GoawayTests(SynchronousTestCase):
    def test_only_clients_of_who_wants_it_are_told(self) -> None:
        world = World(1, protocol=Bolt(1, True))
        quiet = replace(world.settings, protocol=Bolt(1, False))
        told, untold = world.client(), world.client(settings=quiet)
        for client in (told, untold):
            client.send(request(1))
            self.assertEqual(len(world.host().echo()), 1)
            client.answers()
            client.wire.protocol.drain()
        self.assertEqual(len(told.frames()), 1)
        self.assertEqual(untold.frames(), [])


class _Shifted(Bolt):
    """A protocol that is another one with another option."""

    def __init__(self, shift: int) -> None:
        super().__init__()
        self.name = "shifted"
        self._shift = shift

    def decode(self, buffer: bytearray, start: int) -> Any:
        return super().decode(bytearray((byte - self._shift) % 256 for byte in buffer), start)


@implementer(IPlugin, IXProtocolPlugin)
class _Plugin:
    name = "shifted"

    def build(self, options: Mapping[str, Any]) -> Any:
        return _Shifted(options.get("shift", 0))


def _filter(protocol: str, **options: Any) -> dict[str, Any]:
    return {
        "type": "proxy",
        "config": {
            "downstream_protocol": protocol,
            "router_config_name": "r",
            "extend_config": {"xprotocols": {protocol: options}},
        },
    }


def _document(*filters: dict[str, Any]) -> dict[str, Any]:
    rule = {"match": {"headers": [{"name": "service", "value": ".*"}]}, "route": {"cluster_name": "c"}}
    return {
        "servers": [
            {
                "routers": [
                    {
                        "router_config_name": "r",
                        "virtual_hosts": [{"name": "all", "domains": ["*"], "routers": [rule]}],
                    }
                ],
                "listeners": [
                    {
                        "name": f"l{number}",
                        "address": f"127.0.0.1:{4000 + number}",
                        "bind_port": True,
                        "filter_chains": [{"filters": [each]}],
                    }
                    for number, each in enumerate(filters)
                ],
            }
        ],
        "cluster_manager": {"clusters": [{"name": "c", "hosts": [{"address": "127.0.0.1:9"}]}]},
    }


class DialectTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(xprotocols, "getPlugins", lambda interface: [_Plugin()])

    def test_keys(self) -> None:
        for name, options, key in (
            ("bolt", {}, "bolt"),
            ("bolt", {"enable_bolt_goaway": True}, "bolt"),
            ("dubbo", {}, "dubbo"),
            ("shifted", {}, "shifted"),
            ("shifted", {"shift": 1}, 'shifted {"shift": 1}'),
            ("shifted", {"shift": 1, "b": 2}, 'shifted {"b": 2, "shift": 1}'),
            ("shifted", {"b": 2, "shift": 1}, 'shifted {"b": 2, "shift": 1}'),
        ):
            for size in (5, 6):
                dialect = dialect_of(name, {**options, "max_frame_size": size})
                self.assertEqual((dialect.key, dialect.max_frame), (key, size))
                self.assertEqual(dialect.protocol.name, name)

    def test_options_that_change_frames_have_connections_of_their_own(self) -> None:
        world = World(1)
        for shift in (1, 2):
            dialect = dialect_of("shifted", {"shift": shift, "max_frame_size": LARGE})
            settings = replace(world.settings, protocol=dialect.protocol, pool_key=dialect.key)
            client = world.client(settings=settings)
            shifted = bytes((byte + shift) % 256 for byte in request(1))
            client.wire.send(shifted)
            self.assertEqual(len(world.endpoint.wires), shift)
        self.assertEqual(list(world.hosts[0].pools), ['shifted {"shift": 1}', 'shifted {"shift": 2}'])

    def test_known_beforehand_if_all_filters_agree(self) -> None:
        for filters, expected in (
            ((_filter("bolt"),), {"c": "bolt"}),
            ((_filter("bolt", max_frame_size=2000), _filter("bolt", enable_bolt_goaway=True)), {"c": "bolt"}),
            ((_filter("bolt"), _filter("dubbo")), {}),
            ((_filter("shifted", shift=1),), {"c": 'shifted {"shift": 1}'}),
            ((_filter("shifted", shift=1), _filter("shifted", shift=1)), {"c": 'shifted {"shift": 1}'}),
            ((_filter("shifted", shift=1), _filter("shifted", shift=2)), {}),
        ):
            config = parse(_document(*filters)).config
            self.assertEqual(sole_protocols(config), expected)
            self.assertEqual({name: each.key for name, each in sole_dialects(config).items()}, expected)


class Service(Recorder):
    """Answers each request with so many bytes."""

    size = SMALL

    def __init__(self) -> None:
        super().__init__()
        self._decoder = RpcFrameDecoder(Bolt())

    def dataReceived(self, data: bytes) -> None:
        for frame in self._decoder.feed(data):
            self.transport.write(response(frame.id, bytes(self.size)))


class ProcessTests(SynchronousTestCase):
    """Several applications in one process."""

    def ask(self, reactor: MemoryReactor, port: int) -> int:
        """Ask for a large response; its status."""
        client = Recorder()
        reactor.dial("127.0.0.1", port, client)
        client.transport.write(request(1))
        reactor.settle()
        [frame] = RpcFrameDecoder(Bolt()).feed(client.data)
        return int(frame.status)  # type: ignore[attr-defined]

    def start(self, *filters: dict[str, Any]) -> MemoryReactor:
        reactor = MemoryReactor()
        reactor.listenTCP(9, CallableFactory(Service), 50, "127.0.0.1")
        run(_document(*filters), reactor)
        return reactor

    def test_options_of_the_last_one_are_no_matter_to_the_first(self) -> None:
        small, large = (_filter("bolt", max_frame_size=size) for size in (SMALL, LARGE))
        one = self.start(small, large)
        other = self.start(large, small)
        for reactor, ports in ((one, (4000, 4001)), (other, (4001, 4000))):
            self.assertNotEqual(self.ask(reactor, ports[0]), 0)
            self.assertEqual(self.ask(reactor, ports[1]), 0)
            self.assertNotEqual(self.ask(reactor, ports[0]), 0)


class RegistryTests(SynchronousTestCase):
    def test_pools_of_http_are_said_once(self) -> None:
        self.assertRaises(ValueError, register_pool, "Http1", lambda *_: None)
