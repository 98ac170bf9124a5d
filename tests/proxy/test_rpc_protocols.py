from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.plugin import IPlugin, pluginPackagePaths
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

import twisted.plugins
from reverseproxy.interfaces import IXProtocolPlugin
from reverseproxy.proxy.rpc import protocols as xprotocols
from reverseproxy.proxy.rpc.protocols import find_xprotocol, xprotocol_names
from reverseproxy.wire.rpc.bolt import Bolt
from reverseproxy.wire.rpc.xprotocol import Kind, RpcFrameDecoder
from tests.integration.configs import EXAMPLES
from tests.proxy.rpc_world import World
from tests.wire.frames import decode_all, split


class BuiltInTests(SynchronousTestCase):
    def test_names(self) -> None:
        self.assertEqual(xprotocol_names()[:3], ("bolt", "boltv2", "dubbo"))

    def test_found(self) -> None:
        for name in ("bolt", "boltv2", "dubbo"):
            self.assertEqual(find_xprotocol(name).name, name)

    def test_options(self) -> None:
        self.assertEqual(find_xprotocol("bolt").goaway(1), b"")
        options = {"enable_bolt_goaway": True}
        self.assertEqual(find_xprotocol("bolt", options).goaway(1), Bolt(1, True).goaway(1))
        self.assertEqual(find_xprotocol("boltv2", options).goaway(1), Bolt(2, True).goaway(1))

    def test_unknown(self) -> None:
        with self.assertRaises(ValueError) as caught:
            find_xprotocol("tars")
        self.assertIn("there is no protocol 'tars'", str(caught.exception))
        self.assertIn("known are: Auto, Http1, Http2, bolt, boltv2, dubbo", str(caught.exception))


@implementer(IPlugin, IXProtocolPlugin)
class _Liar:
    name = "liar"

    def build(self, options: Mapping[str, Any]) -> Any:
        return Bolt()


class ThirdPartyTests(SynchronousTestCase):
    """With the module that the documentation shows."""

    def setUp(self) -> None:
        self.patch(sys, "path", [str(EXAMPLES / "plugins"), *sys.path])
        # Twisted computes this when it is first asked for plug-ins.
        known = list(twisted.plugins.__path__)
        new = [path for path in pluginPackagePaths("twisted.plugins") if path not in known]
        self.patch(twisted.plugins, "__path__", known + new)
        for module in Path(EXAMPLES, "plugins", "twisted", "plugins").glob("*.py"):
            self.addCleanup(sys.modules.pop, f"twisted.plugins.{module.stem}", None)

    def test_found(self) -> None:
        self.assertIn("example", xprotocol_names())
        self.assertEqual(find_xprotocol("example").name, "example")

    def test_interface(self) -> None:
        find_xprotocol("example")
        verifyObject(IXProtocolPlugin, sys.modules["twisted.plugins.example_protocol"].example)

    def test_options_that_it_does_not_know(self) -> None:
        with self.assertRaises(ValueError) as caught:
            find_xprotocol("example", {"colour": "blue"})
        self.assertEqual(str(caught.exception), "the protocol has no option 'colour'")

    def test_a_plug_in_that_makes_something_else(self) -> None:
        self.patch(xprotocols, "getPlugins", lambda interface: [_Liar()])
        with self.assertRaises(ValueError) as caught:
            find_xprotocol("liar")
        self.assertIn("does not make one of this name", str(caught.exception))

    def test_frames(self) -> None:
        protocol = find_xprotocol("example")
        data = b"EXQ\0\0\0\0\7\0\0\0\x0cecho\nhello..EXP\0\0\0\0\x08\0\0\0\0"
        first, second = decode_all(protocol, data)
        self.assertEqual((first.kind, first.id, first.service, first.method), (Kind.REQUEST, 7, "echo", ""))
        self.assertEqual((second.kind, second.header("service")), (Kind.HEARTBEAT, None))
        decoder = RpcFrameDecoder(protocol)
        pieces = split(data, list(range(len(data))))
        self.assertEqual(len([frame for piece in pieces for frame in decoder.feed(piece)]), 2)
        for bad in (b"X", b"EY", b"EXz\0\0\0\0\7\0\0\0\0"):
            decoder = RpcFrameDecoder(protocol)
            decoder.feed(bad)
            self.assertIsNotNone(decoder.error)
        self.assertEqual([protocol.detect(b) for b in (b"E", b"EX", b"EY", b"x")], [None, True, False, False])

    def test_through_a_proxy(self) -> None:
        world = World(1, protocol=find_xprotocol("example"), idle_timeout=None)
        client = world.client()
        client.send(b"EXQ\0\0\0\1\7\0\0\0\x05echo\n", b"EXO\0\0\0\1\x08\0\0\0\x05echo\n")
        host = world.host()
        self.assertEqual(
            [(frame.kind, frame.id) for frame in host.frames()], [(Kind.REQUEST, 1), (Kind.ONEWAY, 2)]
        )
        host.send(b"EXA\0\0\0\0\1\0\0\0\2hi")
        self.assertEqual(client.wire.take(), b"EXA\0\0\0\1\7\0\0\0\2hi")
        self.assertEqual(world.records[-1].status, 200)
        client.send(b"EXQ\0\0\0\0\x09\0\0\0\3abc", b"EXP\0\0\0\0\x0a\0\0\0\0")
        self.assertEqual(client.wire.take(), b"EXA\1\0\0\0\x09\0\0\0\0" + b"EXp\0\0\0\0\x0a\0\0\0\0")
        world.turn(15)
        self.assertEqual(host.one().kind, Kind.HEARTBEAT)
        host.wire.reset()
        world.check_idle(self.fail)
