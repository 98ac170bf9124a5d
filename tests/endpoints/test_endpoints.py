"""Programs that listen through a tunnel server, and connect to a cluster; in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trustme
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from twisted.internet.address import IPv4Address
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.error import CannotListenError, ConnectError
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Site
from zope.interface import implementer

from reverseproxy.cluster.directory import RUNNING
from reverseproxy.endpoints import ClusterEndpoint, TunnelPort
from reverseproxy.testing import MemoryReactor, run
from tests.endpoints.world import AGENTS, CLIENTS, Echo, Talker, server_document

HERE = f"tunnel:127.0.0.1:{AGENTS}:cluster=app"


class EchoFactory(Factory):
    noisy = False

    def __init__(self) -> None:
        self.made: list[Echo] = []
        self.starts = self.stops = 0

    def startFactory(self) -> None:
        self.starts += 1

    def stopFactory(self) -> None:
        self.stops += 1

    def buildProtocol(self, addr: Any) -> Echo:
        self.made.append(Echo())
        return self.made[-1]


class Closing(Factory):
    """Wants nobody."""

    noisy = False

    def buildProtocol(self, addr: Any) -> None:
        return None


class World(SynchronousTestCase):
    streams = True

    def setUp(self) -> None:
        # Applications that other tests have left are none of those that can be found here.
        self.patch(RUNNING, "_managers", [])
        self.reactor = MemoryReactor()
        self.service = run(server_document(mux=self.streams), self.reactor)
        self.addCleanup(self.stop)
        self.ports: list[TunnelPort] = []
        self.factory = EchoFactory()

    def stop(self) -> None:
        for port in self.ports:
            port.stopListening()
        self.service.stopService()
        self.pass_time(60)

    def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds * 4)):
            self.reactor.advance(0.25)

    def listen(self, factory: Any, text: str = HERE) -> TunnelPort:
        port = self.successResultOf(serverFromString(self.reactor, text).listen(factory))
        self.ports.append(port)
        self.pass_time(2)
        self.assertEqual(port.serving, 1)
        return port

    def dial(self, protocol: Any) -> Any:
        self.reactor.dial("127.0.0.1", CLIENTS, protocol)
        self.pass_time(1)
        return protocol


class ServerTests(World):
    def test_round_trip(self) -> None:
        port = self.listen(self.factory)
        self.assertEqual(self.factory.starts, 1)
        self.assertEqual(port.getHost().cluster, "app")
        talker = self.dial(Talker())
        talker.transport.write(b"hello")
        self.pass_time(1)
        self.assertEqual(talker.heard, b"hello")
        (echo,) = self.factory.made
        self.assertEqual(echo.transport.getPeer(), IPv4Address("TCP", "127.0.0.1", AGENTS))
        self.assertIsInstance(echo.transport.getHost(), IPv4Address)

    def test_half_close(self) -> None:
        self.listen(self.factory)
        talker = self.dial(Talker())
        talker.transport.write(b"all")
        talker.transport.loseWriteConnection()
        self.pass_time(2)
        self.assertEqual(talker.heard, b"allbye")
        self.assertTrue(self.factory.made[0].peer_ended)
        self.assertIsNotNone(self.factory.made[0].ended)
        self.assertIsNotNone(talker.ended)

    def test_a_protocol_that_can_not_half_close(self) -> None:
        factory = Factory.forProtocol(Talker)
        factory.noisy = False
        self.listen(factory)
        talker = self.dial(Talker())
        talker.transport.write(b"all")
        talker.transport.loseWriteConnection()
        self.pass_time(2)
        self.assertIsNotNone(talker.ended)

    def test_much(self) -> None:
        """More than any buffer holds, both ways."""
        self.listen(self.factory)
        talker = self.dial(Talker())
        data = bytes(range(256)) * 4096
        talker.transport.write(data)
        self.pass_time(40)
        self.assertEqual(len(talker.heard), len(data))
        self.assertEqual(talker.heard, data)

    def test_stopping_finishes_what_is_under_way(self) -> None:
        port = self.listen(self.factory)
        talker = self.dial(Talker())
        talker.transport.write(b"one")
        self.pass_time(1)
        stopping, again = port.stopListening(), port.stopListening()
        self.pass_time(3)
        self.assertNoResult(stopping)
        talker.transport.write(b"two")
        self.pass_time(1)
        self.assertEqual(talker.heard, b"onetwo")
        self.assertEqual(self.factory.stops, 0)
        talker.transport.loseConnection()
        self.pass_time(4)
        self.successResultOf(stopping)
        self.successResultOf(again)
        self.assertEqual(self.factory.stops, 1)
        self.assertEqual(port.serving, 0)
        self.successResultOf(port.stopListening())

    def test_stopping_while_clients_wait_for_the_rest(self) -> None:
        """A client that has said all gets its answer, whether it said so before or after that."""
        reactor = self.reactor

        @implementer(IHalfCloseableProtocol)
        class Slow(Protocol):
            def readConnectionLost(self) -> None:
                reactor.callLater(3.0, self.answer)

            def answer(self) -> None:
                assert self.transport is not None
                self.transport.write(b"x" * 200_000)
                self.transport.loseConnection()

            def writeConnectionLost(self) -> None:
                pass

        for before in (True, False):
            port = self.listen(Factory.forProtocol(Slow))
            talker = self.dial(Echo())
            talker.readConnectionLost = talker.transport.loseConnection
            talker.transport.write(b"question")
            self.pass_time(1)
            if before:
                talker.transport.loseWriteConnection()
                self.pass_time(1)
            stopping = port.stopListening()
            self.pass_time(1)
            talker.transport.loseWriteConnection()
            self.pass_time(1)
            self.assertNoResult(stopping)
            self.pass_time(8)
            self.successResultOf(stopping)
            self.assertEqual(len(talker.heard), 200_000, before)

    def test_stopping_ends_in_time(self) -> None:
        port = self.listen(self.factory, f"{HERE}:drain=3")
        talker = self.dial(Talker())
        talker.transport.write(b"one")
        self.pass_time(1)
        stopping = port.stopListening()
        self.pass_time(10)
        self.successResultOf(stopping)
        self.assertIsNotNone(self.factory.made[0].ended)

    def test_listening_again(self) -> None:
        port = self.listen(self.factory)
        self.assertRaises(CannotListenError, port.startListening)
        stopping = port.stopListening()
        self.pass_time(5)
        self.successResultOf(stopping)
        self.assertEqual(port.unserved, [f"127.0.0.1:{AGENTS}"])
        port.startListening()
        self.pass_time(2)
        self.assertEqual(port.serving, 1)

    def test_a_factory_that_wants_nobody(self) -> None:
        port = self.successResultOf(serverFromString(self.reactor, HERE).listen(Closing()))
        self.ports.append(port)
        self.pass_time(1)
        talker = self.dial(Talker())
        self.pass_time(15)
        self.assertIsNotNone(talker.ended)

    def test_a_server_that_is_not_there_yet(self) -> None:
        text = "tunnel:127.0.0.1:9998:cluster=app"
        port = self.successResultOf(serverFromString(self.reactor, text).listen(self.factory))
        self.pass_time(2)
        self.assertEqual(port.serving, 0)
        self.assertEqual(port.unserved, ["127.0.0.1:9998"])
        stopping = port.stopListening()
        self.pass_time(1)
        self.successResultOf(stopping)

    def test_http(self) -> None:
        """A site of Twisted's own, kept alive."""
        page = Resource()
        page.isLeaf = True
        page.render_GET = lambda request: b"page of " + request.uri  # type: ignore[attr-defined]
        site = Site(page, reactor=self.reactor)
        site.noisy = False
        port = self.listen(site)
        talker = self.dial(Talker())
        for path in (b"/a", b"/b"):
            talker.transport.write(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            self.pass_time(1)
        self.assertIn(b"page of /a", talker.heard)
        self.assertIn(b"page of /b", talker.heard)
        talker.transport.loseConnection()
        stopping = port.stopListening()
        self.pass_time(4)
        self.successResultOf(stopping)


class PlainServerTests(ServerTests):
    """The same with a server that lends each connection as a whole, as MOSN's does."""

    streams = False


class ClientTests(World):
    def connect(self, text: str = "tunnel:app") -> tuple[Any, Any]:
        factory = Factory.forProtocol(Talker)
        factory.noisy = False
        connecting = clientFromString(self.reactor, text).connect(factory)
        self.pass_time(1)
        return connecting, self.service.clusters.get("app")

    def test_round_trip(self) -> None:
        self.listen(self.factory)
        connecting, cluster = self.connect()
        talker = self.successResultOf(connecting)
        self.assertIsInstance(talker, Talker)
        self.assertEqual(cluster.active, 1)
        talker.transport.write(b"hello")
        self.pass_time(1)
        self.assertEqual(talker.heard, b"hello")
        talker.transport.loseWriteConnection()
        self.pass_time(1)
        self.assertEqual(talker.heard, b"hellobye")
        self.assertIsNotNone(talker.ended)
        self.assertEqual(cluster.active, 0)
        (host,) = cluster.hosts.values()
        self.assertEqual((host.active, host.connections), (0, 0))

    def test_nobody_serves(self) -> None:
        connecting, _ = self.connect("tunnel:app:timeout=2")
        self.pass_time(15)
        self.failureResultOf(connecting, ConnectError)

    def test_no_such_cluster(self) -> None:
        connecting, _ = self.connect("tunnel:other")
        failure = self.failureResultOf(connecting, ConnectError)
        self.assertIn("there are: app", str(failure.value))

    def test_the_cluster_of_an_application_that_has_stopped(self) -> None:
        self.service.stopService()
        self.pass_time(40)
        connecting, _ = self.connect()
        self.failureResultOf(connecting, ConnectError)

    def test_two_applications_with_the_cluster(self) -> None:
        other = run(server_document(), MemoryReactor())
        self.addCleanup(other.stopService)
        connecting, _ = self.connect()
        self.assertIn("2 applications", str(self.failureResultOf(connecting, ConnectError).value))

    def test_cancelled(self) -> None:
        self.listen(self.factory)
        cluster = self.service.clusters.get("app")
        for host in list(cluster.hosts.values()):
            cluster.set_capacity(host, 0)
        connecting = ClusterEndpoint("app").connect(Factory.forProtocol(Talker))
        self.assertNoResult(connecting)
        connecting.addErrback(lambda _: None)
        connecting.cancel()
        self.pass_time(1)
        self.assertEqual((cluster.active, cluster.waiting), (0, 0))

    def test_a_factory_that_builds_nothing(self) -> None:
        self.listen(self.factory)
        connecting = ClusterEndpoint("app").connect(Closing())
        self.pass_time(1)
        self.failureResultOf(connecting)
        self.assertEqual(self.service.clusters.get("app").active, 0)
        self.assertEqual(len(self.factory.made), 0)


class SecureTests(World):
    """TLS and a token, both by the string."""

    def setUp(self) -> None:
        authority = trustme.CA()
        directory = Path(self.mktemp())
        directory.mkdir()
        for name, blob in (
            ("ca", authority.cert_pem),
            ("key", (issued := authority.issue_cert("tunnels.example")).private_key_pem),
            ("chain", issued.cert_chain_pems[0]),
        ):
            blob.write_to_path(str(directory / name))
        (directory / "token").write_text("a secret\n")
        (directory / "token").chmod(0o600)
        self.directory = directory
        self.reactor = MemoryReactor()
        document = server_document(
            credential_policy="static",
            validators={"static": {"tokens": [{"agent": "program", "token": "a secret"}]}},
        )
        chain = document["servers"][0]["listeners"][0]["filter_chains"][0]
        chain["tls_context"] = {
            "status": True,
            "cert_chain": str(directory / "chain"),
            "private_key": str(directory / "key"),
        }
        self.service = run(document, self.reactor)
        self.addCleanup(self.stop)
        self.ports = []
        self.factory = EchoFactory()
        self.string = f"{HERE}:caCert={directory / 'ca'}:serverName=tunnels.example"

    def test_both(self) -> None:
        self.listen(self.factory, f"{self.string}:credentialFile={self.directory / 'token'}")
        (host,) = self.service.clusters.get("app").hosts.values()
        self.assertEqual(host.identity.principal, "token:program")
        talker = self.dial(Talker())
        talker.transport.write(b"hello")
        self.pass_time(1)
        self.assertEqual(talker.heard, b"hello")

    def test_a_certificate_that_is_known_by_itself(self) -> None:
        """And by another one's fingerprint, not."""
        (certificate,) = x509.load_pem_x509_certificates((self.directory / "chain").read_bytes())
        shown = certificate.fingerprint(SHA256()).hex()
        string = f"{HERE}:credentialFile={self.directory / 'token'}:fingerprint="
        port = self.successResultOf(serverFromString(self.reactor, string + "0" * 64).listen(self.factory))
        self.ports.append(port)
        self.pass_time(3)
        self.assertEqual(port.serving, 0)
        self.listen(self.factory, f"{string}sha256\\:{shown}")

    def test_without_the_token(self) -> None:
        port = self.successResultOf(serverFromString(self.reactor, self.string).listen(self.factory))
        self.ports.append(port)
        self.pass_time(3)
        self.assertEqual(port.serving, 0)

    def test_with_another_name(self) -> None:
        string = self.string.replace("tunnels.example", "others.example")
        port = self.successResultOf(serverFromString(self.reactor, string).listen(self.factory))
        self.ports.append(port)
        self.pass_time(3)
        self.assertEqual(port.serving, 0)
