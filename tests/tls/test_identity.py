from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID
from twisted.internet.testing import StringTransport
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.tls import (
    ClientTls,
    ServerTls,
    negotiated_protocol,
    peer_identity,
    wrap_client,
    wrap_server,
)
from reverseproxy.tls.identity import certificate_identity
from tests.certs import Certificates, KeyPair
from tests.tls.memory import Recorder, TlsPair, Wire, factory_of


class CertificateIdentityTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.certs = Certificates(Path(self.mktemp()))

    def certificate(self, common_name: str, *names: x509.GeneralName) -> x509.Certificate:
        pair = self.certs.self_signed("some", common_name, *names)
        return x509.load_pem_x509_certificate(pair.chain_pem.encode())

    def same(self, one: x509.Certificate, other: x509.Certificate) -> bool:
        self.assertIsNotNone(certificate_identity(one))
        return certificate_identity(one) == certificate_identity(other)

    def test_opaque(self) -> None:
        self.assertRegex(certificate_identity(self.certificate("agent-1")) or "", r"^x509:[0-9a-f]{64}$")

    def test_stable(self) -> None:
        self.assertTrue(self.same(self.certificate("a"), self.certificate("a")))
        one, two = x509.DNSName("one.example"), x509.DNSName("two.example")
        self.assertTrue(self.same(self.certificate("a", one, two), self.certificate("a", two, one, one)))
        self.assertTrue(
            self.same(self.certificate("", one), self.certificate("", x509.DNSName("ONE.example")))
        )

    def test_different(self) -> None:
        dns, address = x509.DNSName("127.0.0.1"), x509.IPAddress(ip_address("127.0.0.1"))
        different = [
            self.certificate("a"),
            self.certificate("b"),
            self.certificate("a", dns),
            self.certificate("a", address),
            self.certificate("", dns),
            self.certificate("a", dns, address),
            self.certificate("a", x509.DNSName("example.com"), x509.DNSName("127.0.0.1")),
            self.certificate("a,CN=b"),
        ]
        self.assertEqual(len({certificate_identity(each) for each in different}), len(different))

    def test_all_kinds_of_names(self) -> None:
        kinds: list[x509.GeneralName] = [
            x509.DNSName("a"),
            x509.RFC822Name("a"),
            x509.UniformResourceIdentifier("a"),
            x509.IPAddress(ip_address("::1")),
            x509.RegisteredID(x509.ObjectIdentifier("1.2.3")),
            x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a")])),
            x509.OtherName(x509.ObjectIdentifier("1.2.3"), b"\x0c\x01a"),
        ]
        identities = {certificate_identity(self.certificate("", kind)) for kind in kinds}
        self.assertEqual(len(identities - {None}), len(kinds))

    def test_nobody(self) -> None:
        self.assertIsNone(certificate_identity(self.certificate("")))

    def test_unreadable(self) -> None:
        class Unreadable:
            @property
            def subject(self) -> Any:
                raise ValueError("not DER")

        self.assertIsNone(certificate_identity(Unreadable()))  # type: ignore[arg-type]


class PeerIdentityTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.certs = Certificates(Path(self.mktemp()))
        self.server = ServerTls(
            [self.certs.server_context(ca_cert=self.certs.ca, verify_client=True, alpn="h2")]
        )

    def identity(self, pair: KeyPair | None) -> str | None:
        options = pair.options if pair else {}
        client = ClientTls(self.certs.client_context(alpn="h2", **options), "localhost")
        self.last = TlsPair(client, self.server)
        return peer_identity(self.last.far.transport)

    def test_survives_a_renewal(self) -> None:
        first = self.identity(self.certs.client)
        self.assertIsNotNone(first)
        self.certs.issue("client", "agent-1.example.com", common_name="agent-1")
        # trustme makes up a part of the subject, so that this one differs
        self.assertNotEqual(self.identity(self.certs.client), first)
        unit = {"common_name": "agent", "organization_unit_name": "edge", "organization_name": "x"}
        one = self.certs.issue("client", "agent-1.example.com", **unit)
        identity = self.identity(one)
        serial = self.last.far_tls.getPeerCertificate().get_serial_number()  # type: ignore[union-attr]
        two = self.certs.issue("client", "agent-1.example.com", **unit)
        self.assertEqual(self.identity(two), identity)
        self.assertNotEqual(
            self.last.far_tls.getPeerCertificate().get_serial_number(),  # type: ignore[union-attr]
            serial,
        )

    def test_no_certificate(self) -> None:
        self.assertIsNone(self.identity(None))

    def test_the_server_s(self) -> None:
        self.identity(None)
        chain = self.certs.server.chain_pem.encode()
        self.assertEqual(
            peer_identity(self.last.near.transport),
            certificate_identity(x509.load_pem_x509_certificate(chain)),
        )

    def test_before_the_handshake_and_after_the_end(self) -> None:
        seen: list[str | None] = []
        far = Recorder()
        far.on_made = lambda: seen.append(peer_identity(far.transport))
        client = ClientTls(self.certs.client_context(**self.certs.client.options), "localhost")
        pair = TlsPair(client, self.server, far=far)
        self.assertIsNotNone(peer_identity(far.transport))
        pair.near.transport.abortConnection()
        pair.pump()
        seen.append(peer_identity(far.transport))
        self.assertEqual(seen, [None, None])

    def test_without_tls(self) -> None:
        for transport in (StringTransport(), None, object()):
            self.assertIsNone(peer_identity(transport))
            self.assertIsNone(negotiated_protocol(transport))

    def test_below_other_wrappers(self) -> None:
        recorder = Recorder()
        outer = WrappingFactory(factory_of(recorder))
        far = wrap_server(outer, self.server).buildProtocol(None)
        client = ClientTls(self.certs.client_context(alpn="h2", **self.certs.client.options), "localhost")
        near = wrap_client(factory_of(Recorder()), client).buildProtocol(None)
        Wire(near, far).pump()
        self.assertIsInstance(recorder.transport, ProtocolWrapper)
        self.assertIsNotNone(peer_identity(recorder.transport))
        self.assertEqual(negotiated_protocol(recorder.transport), "h2")
