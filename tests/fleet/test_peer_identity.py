"""Only servers of the fleet link to servers of the fleet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from twisted.internet.protocol import Factory
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.cluster.endpoints import make_endpoint
from reverseproxy.config.models import TlsContextConfig
from reverseproxy.fleet.link_frames import LinkFrameReader, frame
from reverseproxy.fleet.outgoing_link import LIMITS
from reverseproxy.fleet.peer_identity import PREFIX, PeerTls, peer_context, proved_ids
from reverseproxy.fleet.records import HostRecord, ServerRecord
from reverseproxy.mux.session import MuxSession
from reverseproxy.testing import Recorder
from tests.fleet.certificates import Authority
from tests.fleet.worlds import FleetWorld, get

AUTHORITY = Authority()
OTHER = Authority("another")


class IdTests(SynchronousTestCase):
    def ids(self, *names: x509.GeneralName, **pins: str) -> frozenset[str]:
        return proved_ids(AUTHORITY.sign(*names)[0], pins)

    def test_names(self) -> None:
        uri = x509.UniformResourceIdentifier
        self.assertEqual(self.ids(uri(PREFIX + "a")), {"a"})
        self.assertEqual(self.ids(uri(PREFIX + "a"), x509.DNSName("b"), uri(PREFIX + "c")), {"a", "c"})
        self.assertEqual(self.ids(x509.DNSName("a")), frozenset())
        self.assertEqual(self.ids(uri("reverseproxy://agent/a")), frozenset())
        self.assertEqual(self.ids(uri(PREFIX)), frozenset())
        self.assertEqual(self.ids(uri(PREFIX + "a/b")), frozenset())
        self.assertEqual(self.ids(), frozenset())

    def test_fingerprints(self) -> None:
        certificate, _ = AUTHORITY.sign()
        pin = certificate.fingerprint(SHA256()).hex()
        self.assertEqual(proved_ids(certificate, {"a": pin, "b": "0" * 64}), {"a"})
        self.assertEqual(proved_ids(AUTHORITY.sign()[0], {"a": pin}), frozenset())


class LinkTests(SynchronousTestCase):
    """Over TLS, in memory."""

    def setUp(self) -> None:
        self.world = FleetWorld()
        self.addCleanup(self.world.stop)

    def server(self, name: str, context: dict[str, Any], **more: Any) -> None:
        self.world.server(name, fleet={"tls_context": context, **more})
        self.world.pass_time(2)

    def problem(self, at: str, of: str) -> str:
        [found] = [each for each in self.world.fleet(at).peers() if each["server"] == of]
        return str(found["problem"])

    def test_servers_that_belong_to_each_other(self) -> None:
        self.server("a", AUTHORITY.of_server("a"))
        self.server("b", AUTHORITY.of_server("b"))
        self.assertEqual([self.problem("a", "b"), self.problem("b", "a")], ["", ""])
        self.world.agent(0, answer="one")
        self.assertIn(b"\r\n\r\none", self.world.ask(1, get(), 0.5))

    def test_a_certificate_of_an_agent(self) -> None:
        """Although the same authority has signed it, and whatever it calls itself."""
        self.server("a", AUTHORITY.of_server("a"))
        self.server("b", AUTHORITY.context(x509.DNSName("b")))
        self.assertIn("its certificate is none of a server", self.problem("a", "b"))
        self.assertIn("it refuses us: its certificate is none of a server", self.problem("b", "a"))
        self.world.agent(0, answer="one")
        self.assertIn(b"503", self.world.ask(1, get(), 15)[:12])

    def test_a_certificate_of_another_server(self) -> None:
        self.server("a", AUTHORITY.of_server("a"))
        self.server("b", AUTHORITY.of_server("c"))
        self.assertIn("its certificate that it is c", self.problem("a", "b"))
        self.assertIn("its certificate that it is c", self.problem("b", "a"))

    def test_another_authority(self) -> None:
        self.server("a", AUTHORITY.of_server("a"))
        self.server("b", OTHER.of_server("b"))
        self.assertIn("can't be reached", self.problem("a", "b"))
        self.assertIn("can't be reached", self.problem("b", "a"))

    def test_a_client_of_another_authority(self) -> None:
        """It trusts the server, which does not trust it."""
        self.server("a", AUTHORITY.of_server("a"))
        self.server("b", OTHER.of_server("b", trusts=AUTHORITY))
        self.assertNotEqual(self.problem("b", "a"), "")
        self.assertFalse(self.world.fleet("a").incoming.all)

    def test_no_certificate(self) -> None:
        self.server("a", AUTHORITY.of_server("a"))
        context = AUTHORITY.of_server("b")
        config = TlsContextConfig(status=True, ca_cert=context["ca_cert"])
        found: list[Any] = []
        tls = PeerTls(config, "")
        endpoint = make_endpoint(self.world.reactor, "127.0.0.1:4000", 5.0, tls)
        factory = Factory.forProtocol(Recorder)
        endpoint.connect(factory).addBoth(found.append)
        self.world.pass_time(1)
        self.assertFalse(self.world.fleet("a").incoming.all)

    def test_an_authority_that_is_trusted_no_longer(self) -> None:
        """Links of its servers end within a second or two, in both directions, and come back with it."""
        trusted = Path(self.mktemp())

        def trust(authority: Authority) -> None:
            fresh = trusted.with_suffix(".new")
            fresh.write_text(authority.pem)
            fresh.replace(trusted)

        trust(AUTHORITY)
        self.server("a", {**AUTHORITY.of_server("a"), "ca_cert": str(trusted)})
        self.server("b", AUTHORITY.of_server("b"))
        self.world.agent(1, answer="one")
        self.assertEqual(len(self.world.fleet("a").remote.hosts), 1)
        trust(OTHER)
        self.world.pass_time(2.1)
        self.assertFalse(self.world.fleet("a").incoming.all)
        self.assertEqual(len(self.world.fleet("a").remote.hosts), 0)
        self.assertNotEqual(self.problem("a", "b"), "")
        trust(AUTHORITY)
        self.world.pass_time(8)
        self.assertEqual([self.problem("a", "b"), self.problem("b", "a")], ["", ""])
        self.assertEqual(len(self.world.fleet("a").remote.hosts), 1)

    def test_known_by_fingerprint(self) -> None:
        contexts = [AUTHORITY.context(), AUTHORITY.context()]
        pins = [
            x509.load_pem_x509_certificate(each["cert_chain"].encode()).fingerprint(SHA256()).hex(":").upper()
            for each in contexts
        ]
        certificates = [
            {"server_id": "a", "fingerprint": pins[0]},
            {"server_id": "b", "fingerprint": pins[1]},
        ]
        self.server("a", contexts[0], certificates=certificates)
        self.server("b", contexts[1], certificates=certificates)
        self.assertEqual([self.problem("a", "b"), self.problem("b", "a")], ["", ""])

    def test_nothing_is_looked_at_before_the_proof(self) -> None:
        """A stream for an agent, from somebody with a certificate of an agent."""
        self.server("a", AUTHORITY.of_server("a"))
        self.world.agent(0, answer="one")
        [(cluster, agent)] = list(self.world.fleet("a").own)
        tls = PeerTls(peer_context(TlsContextConfig.model_validate(AUTHORITY.context(x509.DNSName("x")))), "")
        session = MuxSession(client=True, clock=self.world.reactor, limits=LIMITS)
        endpoint = make_endpoint(self.world.reactor, "127.0.0.1:4000", 5.0, tls)
        endpoint.connect(_Made(session))
        self.world.pass_time(0.5)
        hello, request = Recorder(), Recorder()
        session.open(_Made(request))
        request.transport.write(frame({"v": 1, "cluster": cluster, "agent": agent, "hop": 1}) + get())
        self.world.pass_time(0.2)
        self.assertEqual(request.data, b"")
        session.open(_Made(hello))
        hello.transport.write(frame({"v": 1, "hello": "x"}))
        self.world.pass_time(0.2)
        reader = LinkFrameReader()
        reader.feed(hello.data)
        answer = reader.next()
        assert answer is not None
        self.assertIn("none of a server", answer["refused"])
        self.world.pass_time(1)
        self.assertTrue(session.lost)


class MemberTests(SynchronousTestCase):
    """A server that belongs to the fleet, and does what none does."""

    def setUp(self) -> None:
        self.world = FleetWorld()
        self.addCleanup(self.world.stop)
        for name in "ab":
            self.world.server(name, fleet={"tls_context": AUTHORITY.of_server(name)})
        self.world.agent(0, answer="one")
        self.world.pass_time(2)
        tls = PeerTls(peer_context(TlsContextConfig.model_validate(AUTHORITY.of_server("c"))), "")
        self.session = MuxSession(client=True, clock=self.world.reactor, limits=LIMITS)
        endpoint = make_endpoint(self.world.reactor, "127.0.0.1:4000", 5.0, tls)
        endpoint.connect(_Made(self.session))
        self.world.pass_time(0.5)
        self.talk = self.open(frame({"v": 1, "hello": "c"}))
        self.assertIn("c", {link.server for link in self.world.fleet("a").incoming.all})

    def open(self, data: bytes = b"", seconds: float = 0.1) -> Recorder:
        """Open a stream, and say something on it."""
        stream = Recorder()
        self.session.open(_Made(stream))
        if data:
            stream.transport.write(data)
        self.world.pass_time(seconds)
        return stream

    def check_others(self) -> None:
        """Nobody else notices anything."""
        self.assertIn(b"\r\n\r\none", self.world.ask(1, get(), 0.5))
        [peer] = [each for each in self.world.fleet("b").peers() if each["server"] == "a"]
        self.assertEqual((peer["losses"], peer["state"]), (0, "up"))

    def test_junk_in_place_of_streams(self) -> None:
        self.session.transport.write(bytes(range(256)) * 100)
        self.world.pass_time(0.5)
        self.assertTrue(self.session.lost)
        self.check_others()

    def test_junk_in_place_of_words(self) -> None:
        for junk in (b"\xff" * 100, b"\0\x02[]", b"\0\x0dGET / HTTP/1.1"):
            stream = self.open(junk)
            self.assertIsNotNone(stream.reason, junk)
        self.talk.transport.write(b"\0\x02[]")
        self.world.pass_time(0.5)
        self.assertIsNotNone(self.talk.reason)
        self.check_others()

    def test_streams_that_say_nothing(self) -> None:
        """They end in a few seconds, and what begins later is not ended with them."""
        silent = [self.open(seconds=0) for _ in range(20)]
        half = self.open(frame({"v": 1})[:3])
        self.world.pass_time(1)
        [(cluster, agent)] = list(self.world.fleet("a").own)
        good = self.open(frame({"v": 1, "cluster": cluster, "agent": agent, "hop": 1, "protocol": "Http1"}))
        late = self.open()
        self.world.pass_time(2)
        self.assertEqual([stream.reason for stream in (*silent, half, late)], [None] * 22)
        self.world.pass_time(1.2)
        self.assertNotIn(None, [stream.reason for stream in (*silent, half)])
        self.assertIsNone(late.reason)
        self.world.pass_time(2)
        self.assertIsNotNone(late.reason)
        good.transport.write(get())
        self.world.pass_time(0.2)
        self.assertIn(b"one", good.data)
        self.check_others()

    def test_forged_hosts(self) -> None:
        """Of clusters and agents that there are not, or that are at another server."""
        [(cluster, agent)] = list(self.world.fleet("a").own)
        for more in (
            {"agent": "f" * 32},
            {"cluster": "fleet"},
            {"cluster": "../clientCluster"},
            {"hop": 2},
            {"hop": 10**9},
        ):
            stream = self.open(frame({"v": 1, "cluster": cluster, "agent": agent, "hop": 1} | more) + get())
            self.assertEqual(stream.data, b"", more)
            self.assertIsNotNone(stream.reason, more)
        self.check_others()

    def test_somebody_else(self) -> None:
        """It says hello once, and is who its certificate says."""
        stream = self.open(frame({"v": 1, "hello": "b"}))
        self.assertIsNotNone(stream.reason)
        self.assertEqual(stream.data, b"")
        self.check_others()

    def test_a_server_that_is_this_one(self) -> None:
        """As somebody has written into the directory: nothing is sent round in a circle."""
        record = ServerRecord("ghost", "127.0.0.1:4000")
        links = self.world.fleet("a").links
        links.add(record)
        self.world.fleet("a").remote.host_came(HostRecord("clientCluster", "f" * 32, "ghost"))
        self.world.pass_time(3)
        self.assertFalse(links.all["ghost"].usable)
        self.assertIn("its certificate that it is a", links.all["ghost"].problem)
        self.assertEqual(self.world.fleet("a").remote.hosts, {})
        links.remove("ghost", "a test")
        self.check_others()


class _Made(Factory):
    noisy = False

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: object) -> Any:
        return self._protocol
