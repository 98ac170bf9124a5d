"""Tests for L{reverseproxy.tunnel.server.new_hosts}."""

from __future__ import annotations

from random import Random

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.cluster.balancers.factory import make_balancer
from reverseproxy.cluster.host import MuxHost, ReverseHost
from reverseproxy.cluster.manager import Cluster, ClusterManager
from reverseproxy.config.models import ClusterConfig
from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.tunnel.handshake import Accepted, Principal
from reverseproxy.tunnel.server.new_hosts import Publication, Terms, make_host, make_session
from reverseproxy.tunnel.streams import StreamSettings
from reverseproxy.wire.mosn.extensions import YAMUX, Announcement

INFO = ConnectionInfo("10.0.0.1:5", "10.0.0.2:6")
OURS = Announcement(
    "a", metadata={"zone": "b"}, mux=(YAMUX,), window=5000, tells=True, marks=True, speaks=("http",)
)


class TermsTests(SynchronousTestCase):
    def test_streams(self) -> None:
        """Only if both ends want them; with the smaller window of the two."""
        settings = StreamSettings()
        self.assertEqual(Terms.agree(settings, OURS), Terms(YAMUX, 5000))
        self.assertEqual(Terms.agree(None, OURS), Terms())
        self.assertEqual(Terms.agree(settings, None), Terms())
        self.assertEqual(Terms.agree(settings, Announcement("a", mux=("other",), window=5000)), Terms())


class HostTests(SynchronousTestCase):
    """What agents become."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.gone: list[str] = []
        config = ClusterConfig(name="blue")
        self.cluster = Cluster(config, make_balancer(config, Random(1)), self.clock)
        self.clusters = ClusterManager([self.cluster])

    def make(self, announcement: Announcement | None, streams: bool = False) -> MuxHost | ReverseHost:
        accepted = Accepted(
            "blue", "edge", 7, Principal("static", "anna"), announcement, used_policy="static"
        )
        session = None
        if streams:
            assert announcement is not None
            session = make_session(Terms(YAMUX), StreamSettings(), announcement, self.clock)
        return make_host(
            accepted,
            INFO,
            INFO.remote,
            StringTransport(),
            lambda host, reason: self.gone.append(reason),
            session,
            self.clock,
        )

    def test_of_mosns_agents(self) -> None:
        host = self.make(None)
        assert isinstance(host, ReverseHost)
        self.assertEqual((host.address, host.hostname, host.weight), ("10.0.0.1:5", "edge", 7))
        self.assertEqual((host.tells, host.announced, host.marked), (False, None, False))
        assert host.identity is not None
        self.assertEqual(host.identity.principal, "token:anna")

    def test_of_ours(self) -> None:
        host = self.make(OURS)
        assert isinstance(host, ReverseHost)
        self.assertEqual((host.tells, host.announced, host.marked), (True, frozenset({"http"}), True))
        self.assertEqual(dict(host.metadata), {"zone": "b"})
        self.assertIsInstance(self.make(OURS, streams=True), MuxHost)

    def test_publication(self) -> None:
        publication = Publication(self.clusters, "blue", host := self.make(None))
        publication.publish_later(self.clock, 0.02)
        self.clock.advance(0.01)
        self.assertEqual(self.cluster.hosts, {})
        self.clock.advance(0.01)
        self.assertEqual(list(self.cluster.hosts.values()), [host])
        publication.cancel()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_publication_that_comes_to_nothing(self) -> None:
        publication = Publication(self.clusters, "blue", self.make(None))
        publication.publish_later(self.clock, 0.02)
        publication.cancel()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        closed = self.make(None)
        closed.retired = True
        Publication(self.clusters, "blue", closed).publish()
        self.assertEqual((self.cluster.hosts, self.gone), ({}, []))
        Publication(self.clusters, "green", host := self.make(None)).publish()
        self.assertEqual((host.closed, self.gone), (True, ["there is no cluster green any more"]))
