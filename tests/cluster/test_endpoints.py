"""Tests for L{reverseproxy.cluster.endpoints}."""

from __future__ import annotations

from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.cluster.endpoints import make_endpoint
from reverseproxy.config.models import TlsContextConfig
from reverseproxy.tls import ClientTls
from tests.cluster.fakes import User, Users


class MakeEndpointTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()

    def test_ipv4(self) -> None:
        """An IPv4 address is dialled as it is."""
        make_endpoint(self.reactor, "10.0.0.1:80", 3.0).connect(Users())
        self.assertEqual(self.reactor.tcpClients[0][:2], ("10.0.0.1", 80))
        self.assertEqual(self.reactor.tcpClients[0][3], 3.0)

    def test_ipv6(self) -> None:
        """So is an IPv6 address, without its brackets."""
        make_endpoint(self.reactor, "[::1]:80", 3.0).connect(Users())
        self.assertEqual(self.reactor.tcpClients[0][:2], ("::1", 80))

    def test_unix(self) -> None:
        """A path of a Unix socket is dialled."""
        make_endpoint(self.reactor, "unix:/run/service", 3.0).connect(Users())
        self.assertEqual(self.reactor.unixClients[0][0], "/run/service")

    def test_name(self) -> None:
        """A name is resolved at each dial."""
        self.assertIsInstance(make_endpoint(self.reactor, "localhost:80", 3.0), HostnameEndpoint)

    def test_no_port(self) -> None:
        """A port is needed."""
        self.assertRaises(ValueError, make_endpoint, self.reactor, "10.0.0.1", 3.0)

    def test_tls(self) -> None:
        """With TLS, the protocol is connected through it."""
        tls = ClientTls(TlsContextConfig(status=True, insecure_skip=True), "localhost")
        users = Users(User)
        make_endpoint(self.reactor, "10.0.0.1:443", 3.0, tls).connect(users)
        factory = self.reactor.tcpClients[0][2]
        self.assertIsNot(factory, users)
