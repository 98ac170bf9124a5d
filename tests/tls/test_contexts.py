from __future__ import annotations

import contextlib
import os
import ssl
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from reverseproxy.config.models import TlsContextConfig
from reverseproxy.errors import CertificateRejected, ConfigError, TlsFailed
from reverseproxy.problems import DOCUMENT
from reverseproxy.tls import (
    ClientTls,
    ServerTls,
    negotiated_protocol,
    peer_identity,
    too_weak_for_http2,
    wrap_client,
    wrap_server,
)
from reverseproxy.tls.material import openssl_text
from tests.certs import Certificates, KeyPair
from tests.tls.memory import FakeTcp, Recorder, TlsPair, Wire, factory_of


class ContextTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.certs = Certificates(self.directory)

    def server(self, **more: Any) -> ServerTls:
        return ServerTls([self.certs.server_context(**more)])

    def client(self, name: str = "localhost", **more: Any) -> ClientTls:
        return ClientTls(self.certs.client_context(**more), name)

    def connect(self, client: ClientTls, server: ServerTls) -> TlsPair:
        """A connection whose handshake succeeded at both ends."""
        pair = TlsPair(client, server)
        for recorder in (pair.near, pair.far):
            self.assertEqual(recorder.events, ["made", "handshake"], recorder.reason)
        return pair

    def refused(self, client: ClientTls, server: ServerTls) -> TlsPair:
        """A connection that failed: at the latest when the server had judged the client's certificate."""
        pair = TlsPair(client, server)
        self.assertEqual(pair.far.events, ["made", "lost"])
        self.assertEqual(pair.near.events[-1], "lost")
        self.assertFalse(pair.client.connected or pair.server.connected)
        return pair

    def assert_problem(self, error: ConfigError, path: str, *words: str) -> None:
        (problem,) = error.problems
        self.assertEqual(problem.path, path)
        for word in words:
            self.assertIn(word, problem.message)


def message_of(recorder: Recorder) -> str:
    assert recorder.reason is not None
    return recorder.reason.getErrorMessage()


class InterfaceTests(ContextTestCase):
    def test_interfaces(self) -> None:
        verifyObject(IOpenSSLServerConnectionCreator, self.server())
        verifyObject(IOpenSSLClientConnectionCreator, self.client())


class ClientCertificateTests(ContextTestCase):
    """Every row of the table: verify_client, require_client_cert, and what the client shows."""

    def outcome(self, verify: bool, require: bool, shown: KeyPair | None) -> str:
        server = self.server(ca_cert=self.certs.ca, verify_client=verify, require_client_cert=require)
        client = self.client(**(shown.options if shown else {}))
        pair = TlsPair(client, server)
        if not pair.far_tls.established:
            self.assertEqual(pair.near.events[-1], "lost")
            return message_of(pair.far)
        self.assertEqual(pair.near.events, ["made", "handshake"])
        seen = pair.far_tls.getPeerCertificate() is not None
        proved = peer_identity(pair.far.transport) is not None
        return f"{'seen' if seen else 'not seen'}, {'proved' if proved else 'nothing proved'}"

    def test_none(self) -> None:
        for shown in (None, self.certs.client, self.certs.untrusted):
            self.assertEqual(self.outcome(False, False, shown), "not seen, nothing proved")

    def test_verify_only(self) -> None:
        self.assertEqual(self.outcome(True, False, None), "not seen, nothing proved")
        self.assertEqual(self.outcome(True, False, self.certs.client), "seen, proved")
        self.assertIn("certificate verify failed", self.outcome(True, False, self.certs.untrusted))

    def test_require_only(self) -> None:
        self.assertEqual(self.outcome(False, True, None), "not seen, nothing proved")
        self.assertEqual(self.outcome(False, True, self.certs.client), "seen, nothing proved")
        self.assertEqual(self.outcome(False, True, self.certs.untrusted), "seen, nothing proved")

    def test_both(self) -> None:
        self.assertIn("did not return a certificate", self.outcome(True, True, None))
        self.assertEqual(self.outcome(True, True, self.certs.client), "seen, proved")
        self.assertIn("certificate verify failed", self.outcome(True, True, self.certs.untrusted))

    def test_reason_names_the_certificate(self) -> None:
        self.assertRegex(
            self.outcome(True, True, self.certs.untrusted),
            r"unable to get local issuer certificate|unable to get issuer cert locally",
        )

    def test_with_tls_1_2(self) -> None:
        server = self.server(
            ca_cert=self.certs.ca, verify_client=True, require_client_cert=True, max_version="TLSv1_2"
        )
        self.connect(self.client(**self.certs.client.options), server)
        pair = self.refused(self.client(), server)
        self.assertIn("handshake failure", message_of(pair.near))

    def test_authorities_are_named_to_the_client(self) -> None:
        server = self.server(ca_cert=self.certs.ca, verify_client=True)
        pair = self.connect(self.client(**self.certs.client.options), server)
        connection = pair.near_tls.getHandle()
        assert connection is not None
        names = [name.organizationName for name in connection.get_client_ca_list()]
        self.assertEqual(names, ["Test authority"])

    def test_system_authorities(self) -> None:
        server = self.server(verify_client=True, require_client_cert=True)
        self.refused(self.client(**self.certs.client.options), server)

    def test_expired(self) -> None:
        now = datetime.now(UTC)
        expired = self.certs.issue(
            "expired", "agent-2", not_before=now - timedelta(days=2), not_after=now - timedelta(days=1)
        )
        server = self.server(ca_cert=self.certs.ca, verify_client=True)
        pair = self.refused(self.client(**expired.options), server)
        assert pair.far.reason is not None
        pair.far.reason.trap(CertificateRejected)
        self.assertIn("cert has expired", message_of(pair.far))


class ServerNameTests(ContextTestCase):
    def assert_rejected(self, client: ClientTls, server: ServerTls, *words: str) -> None:
        pair = self.refused(client, server)
        assert pair.near.reason is not None
        pair.near.reason.trap(CertificateRejected)
        for word in words:
            self.assertIn(word, message_of(pair.near))
        self.assertIn("alert", message_of(pair.far))

    def test_names_and_addresses(self) -> None:
        server = self.server()
        for name in ("localhost", "LOCALHOST", "localhost.", "127.0.0.1", "::1", "[::1]", "::1%lo"):
            self.connect(self.client(name), server)

    def test_wrong_name(self) -> None:
        server = self.server(**self.certs.wrong_name.options)
        self.assert_rejected(self.client(), server, '"localhost"', "elsewhere.example.com")
        self.assert_rejected(self.client("127.0.0.1"), server, '"127.0.0.1"')

    def test_configured_name_counts_more(self) -> None:
        server = self.server(**self.certs.wrong_name.options)
        self.connect(self.client("127.0.0.1", server_name="elsewhere.example.com"), server)
        self.assert_rejected(self.client("localhost", server_name="10.0.0.1"), self.server(), "10.0.0.1")

    def test_an_address_as_a_dns_name_does_not_count(self) -> None:
        pair = self.certs.issue("name-only", "example.com")
        self.assert_rejected(self.client("93.184.216.34"), self.server(**pair.options), "example.com")

    def test_common_name_does_not_count(self) -> None:
        pair = self.certs.issue("cn", "other.example.com", common_name="www.example.com")
        self.assert_rejected(self.client("www.example.com"), self.server(**pair.options), "other.example.com")

    def test_no_alternative_name(self) -> None:
        pair = self.certs.self_signed("unnamed", "localhost")
        server = self.server(**pair.options)
        self.assert_rejected(self.client(ca_cert=pair.chain), server, "no subject alternative name")

    def test_wildcard(self) -> None:
        server = self.server(**self.certs.issue("wild", "*.example.com").options)
        self.connect(self.client("www.example.com"), server)
        self.assert_rejected(self.client("a.b.example.com"), server, "*.example.com")
        self.assert_rejected(self.client("example.com"), server, "*.example.com")

    def test_international_name(self) -> None:
        server = self.server(**self.certs.issue("idn", "bücher.example").options)
        pair = self.connect(self.client("Bücher.example"), server)
        handle = pair.far_tls.getHandle()
        assert handle is not None
        self.assertEqual(handle.get_servername(), b"xn--bcher-kva.example")

    def test_underscore(self) -> None:
        server = self.server(**self.certs.issue("under", "*.example.com").options)
        self.connect(self.client("my_host.example.com"), server)

    def test_no_sni_for_addresses(self) -> None:
        for name, sent in (("127.0.0.1", None), ("::1", None), ("localhost", b"localhost")):
            handle = self.connect(self.client(name), self.server()).far_tls.getHandle()
            assert handle is not None
            self.assertEqual(handle.get_servername(), sent)

    def test_wrong_authority(self) -> None:
        self.assert_rejected(
            self.client(),
            self.server(**self.certs.untrusted.options),
            "certificate verify failed",
            "unable to get",
        )
        self.assert_rejected(self.client(ca_cert=self.certs.wrong_ca), self.server(), "verify failed")

    def test_system_authorities(self) -> None:
        self.assert_rejected(self.client(ca_cert=""), self.server(), "verify failed")

    def test_insecure_skip(self) -> None:
        server = self.server(**self.certs.untrusted.options)
        pair = self.connect(self.client("elsewhere.example.com", insecure_skip=True), server)
        self.assertIsNone(peer_identity(pair.near.transport))

    def test_insecure_skip_needs_no_name(self) -> None:
        self.connect(self.client("", insecure_skip=True), self.server())
        self.connect(self.client("not a name", insecure_skip=True), self.server())

    def test_no_name(self) -> None:
        with self.assertRaises(ConfigError) as raised:
            ClientTls(self.certs.client_context(), "", DOCUMENT / "agents" / 0 / "tls_context")
        self.assert_problem(raised.exception, "agents[0].tls_context.server_name", "no name to verify")

    def test_bad_names(self) -> None:
        for name in (
            "a b",
            "-a",
            "a..b",
            "x" * 64 + ".." + "y",
            ".".join(["a" * 60] * 5),
            "\u2026\u2026.example",
        ):
            with self.assertRaises(ConfigError):
                self.client(name)

    def test_the_client_certificate_is_not_shown_to_a_wrong_server(self) -> None:
        server = self.server(ca_cert=self.certs.ca, require_client_cert=True, **self.certs.wrong_name.options)
        pair = self.refused(self.client(**self.certs.client.options), server)
        self.assertFalse(pair.far_tls.established)

    def test_another_name_with_the_same_context(self) -> None:
        first = self.client("localhost")
        second = first.named("example.com")
        self.connect(first, self.server())
        self.assert_rejected(second, self.server(), "example.com")
        with self.assertRaises(ConfigError):
            first.named("")


def fingerprint_of(pair: KeyPair) -> str:
    certificate = x509.load_pem_x509_certificates(pair.chain_pem.encode())[0]
    return sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


class FingerprintTests(ContextTestCase):
    """Servers whose certificate is known by itself."""

    def pinned(self, *pairs: KeyPair, name: str = "localhost", **more: Any) -> ClientTls:
        pins = tuple(map(fingerprint_of, pairs))
        return ClientTls(TlsContextConfig(status=True, fingerprint=pins, **more), name)

    def assert_other(self, client: ClientTls, shown: KeyPair) -> None:
        pair = self.refused(client, self.server(**shown.options))
        assert pair.near.reason is not None
        pair.near.reason.trap(CertificateRejected)
        self.assertIn(
            f"the fingerprint sha256:{fingerprint_of(shown)}, which is not the one", message_of(pair.near)
        )

    def test_nothing_else_counts(self) -> None:
        """Neither who has signed it, nor its name, nor its dates."""
        expired = self.certs.issue("old", "x.example", not_after=datetime.now(UTC) - timedelta(days=1))
        alone = self.certs.self_signed("alone", "localhost")
        for pair in (self.certs.server, self.certs.untrusted, self.certs.wrong_name, expired, alone):
            self.connect(self.pinned(pair), self.server(**pair.options))
            self.connect(self.pinned(pair, name=""), self.server(**pair.options))

    def test_another_one(self) -> None:
        """One of the same name and authority is another one, and so is one of whose chain it is a part."""
        twin = self.certs.issue("twin", "localhost")
        self.assert_other(self.pinned(self.certs.server), twin)
        self.assert_other(self.pinned(KeyPair(self.certs.ca, "")), self.certs.server)
        self.assert_other(self.pinned(self.certs.server), self.certs.self_signed("alone", "localhost"))

    def test_several(self) -> None:
        client = self.pinned(self.certs.server, self.certs.untrusted)
        for pair in (self.certs.server, self.certs.untrusted):
            self.connect(client, self.server(**pair.options))
        self.assert_other(client, self.certs.wrong_name)

    def test_with_tls_1_2(self) -> None:
        old = {"max_version": "TLSv1_2"}
        self.connect(self.pinned(self.certs.server, **old), self.server())
        self.refused(self.pinned(self.certs.wrong_name, **old), self.server())

    def test_beside_an_authority(self) -> None:
        """Then all of it has to be right."""
        trusted = {"ca_cert": self.certs.ca}
        self.connect(self.pinned(self.certs.server, **trusted), self.server())
        self.assert_other(self.pinned(self.certs.wrong_name, **trusted), self.certs.server)
        self.refused(self.pinned(self.certs.server, name="example.com", **trusted), self.server())
        other = self.server(**self.certs.untrusted.options)
        self.refused(self.pinned(self.certs.untrusted, **trusted), other)

    def test_the_client_certificate_is_not_shown_to_another_server(self) -> None:
        server = self.server(ca_cert=self.certs.ca, require_client_cert=True)
        pair = self.refused(self.pinned(self.certs.wrong_name, **self.certs.client.options), server)
        self.assertFalse(pair.far_tls.established)


class VersionTests(ContextTestCase):
    def version(self, client: ClientTls, server: ServerTls) -> str:
        handle = self.connect(client, server).near_tls.getHandle()
        assert handle is not None
        return handle.get_protocol_version_name()

    def test_newest_by_default(self) -> None:
        self.assertEqual(self.version(self.client(), self.server()), "TLSv1.3")

    def test_chosen(self) -> None:
        self.assertEqual(self.version(self.client(max_version="TLSv1_2"), self.server()), "TLSv1.2")
        self.assertEqual(self.version(self.client(), self.server(max_version="TLSv1_2")), "TLSv1.2")
        self.assertEqual(self.version(self.client(min_version="TLSv1_3"), self.server()), "TLSv1.3")

    def test_oldest_by_default_is_1_2(self) -> None:
        for automatic in ({}, {"min_version": "TLS_AUTO"}):
            self.refused(self.client(max_version="TLSv1_1"), self.server(**automatic))
            self.refused(self.client(**automatic), self.server(max_version="TLSv1_1"))

    def test_older_if_configured(self) -> None:
        old = self.server(min_version="TLSv1_0")
        self.assertEqual(self.version(self.client(max_version="TLSv1_0"), old), "TLSv1")
        self.assertEqual(self.version(self.client(max_version="TLSv1_1"), old), "TLSv1.1")
        self.assertEqual(self.version(self.client(), old), "TLSv1.3")

    def test_nothing_in_common(self) -> None:
        pair = self.refused(self.client(max_version="TLSv1_2"), self.server(min_version="TLSv1_3"))
        self.assertIn("protocol version", message_of(pair.near))
        self.assertIn("unsupported protocol", message_of(pair.far))

    def test_wrong_values(self) -> None:
        with self.assertRaises(ConfigError) as raised:
            self.server(min_version="SSLv3")
        self.assert_problem(raised.exception, "tls_context.min_version", "SSLv3", "TLSv1_2")
        with self.assertRaises(ConfigError) as raised:
            self.server(min_version="TLSv1_3", max_version="TLSv1_2")
        self.assert_problem(raised.exception, "tls_context.min_version", "newer than max_version TLSv1_2")


class CipherTests(ContextTestCase):
    def cipher(self, client: ClientTls, server: ServerTls) -> str | None:
        handle = self.connect(client, server).near_tls.getHandle()
        assert handle is not None
        return handle.get_cipher_name()

    def test_chosen_by_the_server(self) -> None:
        client = self.client(max_version="TLSv1_2")
        for name in ("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384"):
            self.assertEqual(self.cipher(client, self.server(cipher_suites=name)), name)

    def test_names_of_mosn(self) -> None:
        server = self.server(cipher_suites="ECDHE-ECDSA-WITH-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256")
        self.assertEqual(
            self.cipher(self.client(max_version="TLSv1_2"), server), "ECDHE-ECDSA-CHACHA20-POLY1305"
        )
        server = self.server(cipher_suites="ECDHE-ECDSA-AES128-CBC-SHA")
        client = self.client(max_version="TLSv1_2", cipher_suites="ECDHE-ECDSA-AES128-CBC-SHA")
        self.assertEqual(self.cipher(client, server), "ECDHE-ECDSA-AES128-SHA")

    def test_nothing_in_common(self) -> None:
        client = self.client(max_version="TLSv1_2", cipher_suites="ECDHE-ECDSA-AES256-GCM-SHA384")
        pair = self.refused(client, self.server(cipher_suites="ECDHE-ECDSA-AES128-GCM-SHA256"))
        self.assertIn("no shared cipher", message_of(pair.far))

    def test_not_for_tls_1_3(self) -> None:
        server = self.server(cipher_suites="ECDHE-ECDSA-AES128-GCM-SHA256")
        self.assertEqual((self.cipher(self.client(), server) or "")[:4], "TLS_")

    def test_only_suites_of_tls_1_3(self) -> None:
        server = self.server(cipher_suites="AES256-GCM-SHA384")
        self.connect(self.client(), server)
        self.refused(self.client(max_version="TLSv1_2"), server)
        with self.assertRaises(ConfigError) as raised:
            self.server(cipher_suites="AES256-GCM-SHA384", max_version="TLSv1_2")
        self.assert_problem(raised.exception, "tls_context.cipher_suites", "leaves no suite")

    def test_unknown(self) -> None:
        for name in ("HIGH", "ROT13", "TLS_AES_128_GCM_SHA256", "ADH-AES256-SHA", "@SECLEVEL=0", "!aNULL"):
            with self.assertRaises(ConfigError) as raised:
                self.server(cipher_suites=f"ECDHE-ECDSA-AES128-GCM-SHA256:{name}")
            self.assert_problem(raised.exception, "tls_context.cipher_suites", f"no suite {name} ")


class CurveTests(ContextTestCase):
    def test_one(self) -> None:
        for curve in ("p256", "p384", "p521"):
            server = self.server(ecdh_curves=curve)
            self.connect(self.client(), server)
            for offered in ("p256", "p384", "p521"):
                client = self.client(ecdh_curves=offered)
                if offered == curve:
                    self.connect(client, server)
                else:
                    self.refused(client, server)

    def test_several(self) -> None:
        with capturedLogs() as events:
            server = self.server(ecdh_curves="X25519, p384,p256")
        self.assertEqual(
            [formatEvent(e) for e in events],
            ["tls_context.ecdh_curves: only one curve can be set: p384 is used alone"],
        )
        self.connect(self.client(ecdh_curves="p384"), server)
        self.refused(self.client(ecdh_curves="p256"), server)

    def test_only_x25519(self) -> None:
        with capturedLogs() as events:
            server = self.server(ecdh_curves="x25519")
        self.assertEqual(len(events), 1)
        self.assertIn("OpenSSL's own choice", formatEvent(events[0]))
        self.connect(self.client(), server)

    def test_unknown(self) -> None:
        with self.assertRaises(ConfigError) as raised:
            self.server(ecdh_curves="p256,p224")
        self.assert_problem(raised.exception, "tls_context.ecdh_curves", "p224")


class AlpnTests(ContextTestCase):
    def negotiated(self, client: str, server: str) -> str | None:
        pair = self.connect(self.client(alpn=client), self.server(alpn=server))
        self.assertEqual(negotiated_protocol(pair.near.transport), negotiated_protocol(pair.far.transport))
        return negotiated_protocol(pair.far.transport)

    def test_the_server_prefers(self) -> None:
        self.assertEqual(self.negotiated("h2,http/1.1", "http/1.1,h2"), "http/1.1")
        self.assertEqual(self.negotiated("h2,http/1.1", "h2"), "h2")
        self.assertEqual(self.negotiated("sofa", "h2,sofa"), "sofa")

    def test_only_one_side(self) -> None:
        self.assertIsNone(self.negotiated("h2", ""))
        self.assertIsNone(self.negotiated("", "h2"))

    def test_nothing_in_common(self) -> None:
        pair = self.refused(self.client(alpn="sofa"), self.server(alpn="h2"))
        self.assertIn("no application protocol", message_of(pair.near))
        self.assertIn("no application protocol in common; the client offers sofa", message_of(pair.far))
        self.assertIsNone(negotiated_protocol(pair.far.transport))

    def test_http_1_1_with_a_server_of_http_2(self) -> None:
        self.assertIsNone(self.negotiated("http/1.1", "h2"))

    def test_too_weak_for_http2(self) -> None:
        gcm, chacha20 = "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-WITH-CHACHA20-POLY1305"
        cbc = "ECDHE-ECDSA-AES128-CBC-SHA"
        everything = self.server(
            alpn="h2,http/1.1", min_version="TLSv1_0", cipher_suites=f"{gcm}:{chacha20}:{cbc}"
        )
        for alpn, client, expected in (
            ("h2", {}, ""),
            ("h2", {"max_version": "TLSv1_2", "cipher_suites": gcm}, ""),
            ("h2", {"max_version": "TLSv1_2", "cipher_suites": chacha20}, ""),
            ("h2", {"max_version": "TLSv1_2", "cipher_suites": cbc}, "ECDHE-ECDSA-AES128-SHA"),
            ("http/1.1", {"max_version": "TLSv1_2", "cipher_suites": cbc}, ""),
            ("", {"max_version": "TLSv1_2", "cipher_suites": cbc}, ""),
        ):
            pair = self.connect(self.client(alpn=alpn, **client), everything)
            self.assertEqual(too_weak_for_http2(pair.far.transport), expected, (alpn, client))
        self.assertEqual(too_weak_for_http2(object()), "")


class SelectionTests(ContextTestCase):
    def setUp(self) -> None:
        super().setUp()
        issue = self.certs.issue
        self.first = issue("first", "first.example.com")
        self.exact = issue("exact", "www.example.com")
        self.wild = issue("wild", "*.example.com", "*.example.org")
        self.http2 = issue("http2", "h2.invalid")

    def serve(self, *contexts: TlsContextConfig) -> ServerTls:
        return ServerTls(contexts)

    def context(self, pair: KeyPair, **more: Any) -> TlsContextConfig:
        return self.certs.server_context(**pair.options, **more)

    def chosen(self, server: ServerTls, name: str = "", alpn: str = "", **more: Any) -> str:
        """The first name of the certificate that a client is shown."""
        client = self.client(name, insecure_skip=True, alpn=alpn, **more)
        certificate = self.connect(client, server).near_tls.getPeerCertificate()
        assert certificate is not None
        names = certificate.to_cryptography().extensions.get_extension_for_class(x509.SubjectAlternativeName)
        return str(next(iter(names.value)).value)

    def server_of_all(self) -> ServerTls:
        return self.serve(
            self.context(self.first),
            self.context(self.wild),
            self.context(self.exact),
            self.context(self.http2, alpn="h2"),
        )

    def test_exact_before_wildcard(self) -> None:
        self.assertEqual(self.chosen(self.server_of_all(), "www.example.com"), "www.example.com")
        self.assertEqual(self.chosen(self.server_of_all(), "WWW.example.com"), "www.example.com")

    def test_wildcard(self) -> None:
        for name in ("other.example.com", "a.b.example.com", "x.example.org"):
            self.assertEqual(self.chosen(self.server_of_all(), name), "*.example.com")

    def test_longest_wildcard(self) -> None:
        longer = self.certs.issue("longer", "*.b.example.com")
        server = self.serve(self.context(self.wild), self.context(longer))
        self.assertEqual(self.chosen(server, "a.b.example.com"), "*.b.example.com")

    def test_name_before_protocol(self) -> None:
        self.assertEqual(self.chosen(self.server_of_all(), "www.example.com", alpn="h2"), "www.example.com")

    def test_protocol(self) -> None:
        self.assertEqual(self.chosen(self.server_of_all(), "unknown.invalid", alpn="sofa,h2"), "h2.invalid")
        self.assertEqual(self.chosen(self.server_of_all(), "", alpn="h2"), "h2.invalid")

    def test_first(self) -> None:
        for name in ("", "unknown.invalid", "127.0.0.1", "example.com"):
            self.assertEqual(self.chosen(self.server_of_all(), name), "first.example.com")

    def test_a_name_longer_than_any_host_is_not_looked_for(self) -> None:
        loaded = self.server_of_all().select("a." * 8000 + "example.com", ())
        self.assertIn("first.example.com", loaded.names)

    def test_extra_name(self) -> None:
        server = self.serve(
            self.context(self.first), self.context(self.exact, server_name="Extra.Example.net")
        )
        self.assertEqual(self.chosen(server, "extra.example.net"), "www.example.com")

    def test_common_name(self) -> None:
        named = self.certs.issue("cn", "x.invalid", common_name="cn.example.net")
        server = self.serve(self.context(self.first), self.context(named))
        self.assertEqual(self.chosen(server, "cn.example.net"), "x.invalid")

    def test_names_that_several_have(self) -> None:
        """The first context gets the clients of such a name, which is worth a warning."""
        alone = self.serve(self.context(self.first), self.context(self.exact))
        self.assertEqual(alone.shared_names(), [])
        server = self.serve(
            self.context(self.first), self.context(self.exact), self.context(self.exact, server_name="else")
        )
        [warning] = server.shared_names()
        self.assertEqual(warning.path, "tls_context_set[2]")
        self.assertIn('clients of "www.example.com" get tls_context_set[1], which has', warning.message)
        self.assertEqual(self.chosen(server, "else"), "www.example.com")

    def test_a_hello_in_small_pieces(self) -> None:
        client = self.client("www.example.com", insecure_skip=True)
        far = wrap_server(factory_of(Recorder()), self.server_of_all()).buildProtocol(None)
        near = wrap_client(factory_of(Recorder()), client).buildProtocol(None)
        wire = Wire(near, far)
        hello = bytes(wire.client.out)
        wire.client.out.clear()
        for i in range(len(hello)):
            far.dataReceived(hello[i : i + 1])
        wire.pump()
        self.assertTrue(near.established)
        handle = near.getHandle()
        self.assertEqual(
            handle.get_peer_certificate().to_cryptography(),
            x509.load_pem_x509_certificate(self.exact.chain_pem.encode()),
        )

    def test_all_settings_of_the_chosen_context_apply(self) -> None:
        server = self.serve(
            self.context(self.first, max_version="TLSv1_2"),
            self.context(
                self.exact,
                min_version="TLSv1_3",
                ca_cert=self.certs.ca,
                verify_client=True,
                require_client_cert=True,
                ecdh_curves="p384",
                alpn="sofa",
            ),
        )
        client = self.client("www.example.com", alpn="sofa", **self.certs.client.options)
        pair = self.connect(client, server)
        handle = pair.near_tls.getHandle()
        assert handle is not None
        self.assertEqual(handle.get_protocol_version_name(), "TLSv1.3")
        self.refused(
            self.client("www.example.com", alpn="sofa", ecdh_curves="p256", **self.certs.client.options),
            server,
        )
        self.assertEqual(negotiated_protocol(pair.far.transport), "sofa")
        self.assertIsNotNone(peer_identity(pair.far.transport))
        self.refused(self.client("www.example.com", alpn="sofa"), server)
        self.connect(self.client("first.example.com"), server)

    def test_under_the_transport_of_twisted(self) -> None:
        server = self.serve(
            self.context(self.first),
            self.context(self.exact, ca_cert=self.certs.ca, verify_client=True, require_client_cert=True),
        )

        def connect(client: ClientTls) -> tuple[Any, Any]:
            far = TLSMemoryBIOFactory(server, False, factory_of(Recorder()), Clock()).buildProtocol(None)
            near = TLSMemoryBIOFactory(client, True, factory_of(Recorder()), Clock()).buildProtocol(None)
            Wire(near, far).pump()
            return near, far

        near, far = connect(self.client("www.example.com", **self.certs.client.options))
        self.assertTrue(near.connected and far.connected)
        self.assertIsNotNone(far.getPeerCertificate())
        near, far = connect(self.client("first.example.com"))
        self.assertTrue(near.connected and far.connected)
        near, far = connect(self.client("www.example.com"))
        self.assertFalse(near.connected or far.connected)
        near, far = connect(self.client("other.example.com"))
        self.assertFalse(near.connected or far.connected)

    def test_all_problems_of_all_contexts(self) -> None:
        with self.assertRaises(ConfigError) as raised:
            ServerTls(
                [
                    self.context(self.first, min_version="x"),
                    self.context(self.exact, cipher_suites="x", ca_cert="x"),
                ],
                DOCUMENT / "listeners" / 0 / "tls_context",
            )
        self.assertEqual(
            [problem.path for problem in raised.exception.problems],
            [
                "listeners[0].tls_context_set[0].min_version",
                "listeners[0].tls_context_set[1].ca_cert",
                "listeners[0].tls_context_set[1].cipher_suites",
            ],
        )

    def test_no_context_is_not_tls(self) -> None:
        self.assertRaises(ValueError, ServerTls, [])


class MaterialTests(ContextTestCase):
    def problem(self, path: str, *words: str, **more: Any) -> None:
        with self.assertRaises(ConfigError) as raised:
            self.server(**more)
        self.assert_problem(raised.exception, f"tls_context.{path}", *words)
        self.assertNotIn("PRIVATE", str(raised.exception))

    def write(self, name: str, text: str | bytes) -> str:
        path = self.directory / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    def test_text_instead_of_paths(self) -> None:
        pair = self.certs.server
        ca = Path(self.certs.ca).read_text()
        server = self.server(
            cert_chain=pair.chain_pem, private_key=pair.key_pem, ca_cert=ca, verify_client=True
        )
        self.connect(self.client(ca_cert=ca, **self.certs.client.options), server)

    def test_intermediate_certificates(self) -> None:
        authority = self.certs.authority.create_child_ca()
        pair = self.certs.issue("below", "localhost", by=authority)
        self.connect(self.client(), self.server(**pair.options))

    def test_several_authorities(self) -> None:
        both = Path(self.certs.ca).read_text() + Path(self.certs.wrong_ca).read_text()
        client = self.client(ca_cert=self.write("both.pem", both))
        self.connect(client, self.server())
        self.connect(client, self.server(**self.certs.untrusted.options))

    def test_key_types(self) -> None:
        rsa = self.certs.issue("rsa", "localhost", key_type=trustme.KeyType.RSA)
        self.connect(self.client(), self.server(**rsa.options))
        self.connect(self.client(max_version="TLSv1_2"), self.server(**rsa.options))

    def test_missing_certificate(self) -> None:
        self.problem("cert_chain", "missing", cert_chain="")
        self.problem("cert_chain", "missing", cert_chain="", private_key="")
        self.problem("private_key", "missing", private_key="")

    def test_a_client_needs_none(self) -> None:
        self.connect(self.client(cert_chain=self.certs.client.chain), self.server())

    def test_unreadable_files(self) -> None:
        for key in ("cert_chain", "private_key", "ca_cert"):
            self.problem(key, key, "/nowhere/x.pem", "No such file", **{key: "/nowhere/x.pem"})
            self.problem(key, "can't be read", **{key: "nul\0byte"})

    def test_no_certificate_in_the_file(self) -> None:
        for text in ("", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
            for key in ("cert_chain", "ca_cert"):
                self.problem(key, "no certificate", **{key: self.write("bad.pem", text)})

    def test_no_key_in_the_file(self) -> None:
        self.problem("private_key", "no private key", private_key=self.write("bad.pem", "no PEM"))
        self.problem("private_key", "no private key", private_key=self.certs.server.chain)

    def test_key_of_another_certificate(self) -> None:
        self.problem("cert_chain", "private_key", "mismatch", private_key=self.certs.client.key)

    def test_encrypted_key(self) -> None:
        key = load_pem_private_key(self.certs.server.key_pem.encode(), None)
        text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
        self.problem("private_key", "encrypted", private_key=self.write("encrypted.pem", text))

    def test_a_key_is_never_quoted(self) -> None:
        text = self.certs.client.key_pem
        self.problem("private_key", "(text)", private_key=text.replace("\n", "#", 2))
        self.problem("private_key", "(text)", private_key=text.splitlines()[1] * 5)

    def test_all_problems_at_once(self) -> None:
        """No problem hides another one, and each context has its own place."""
        junk = self.write("junk.pem", "-----BEGIN\n")
        with self.assertRaises(ConfigError) as raised:
            self.client("a b", ca_cert=junk, crl=junk)
        keys = ["server_name", "ca_cert", "crl"]
        self.assertEqual([each.place.name for each in raised.exception.problems], keys)
        places = [DOCUMENT / "set" / number for number in (1, 3)]
        contexts = [self.certs.server_context(ca_cert=junk), self.certs.server_context(private_key=junk)]
        with self.assertRaises(ConfigError) as raised:
            ServerTls(contexts, places=places)
        found = [each.path for each in raised.exception.problems]
        self.assertEqual(found, ["set[1].ca_cert", "set[3].private_key"])

    def test_weak_key(self) -> None:
        pair = self.certs.self_signed("weak", "localhost", key=rsa.generate_private_key(65537, 1024))
        self.problem("cert_chain", "too small", **pair.options)


class FallBackTests(ContextTestCase):
    def test_missing_certificate(self) -> None:
        with capturedLogs() as events:
            server = self.server(cert_chain="", private_key="", fall_back=True)
        self.assertTrue(server.plaintext)
        self.assertEqual([e["log_level"] for e in events], [LogLevel.warn])
        self.assertIn("fall_back", formatEvent(events[0]))
        plain = Protocol()
        self.assertIs(wrap_server(factory_of(plain), server).buildProtocol(None), plain)

    def test_bad_certificate(self) -> None:
        for key in ("cert_chain", "private_key"):
            self.assertTrue(self.server(fall_back=True, **{key: "/nowhere/x.pem"}).plaintext)
        self.assertTrue(self.server(fall_back=True, private_key=self.certs.client.key).plaintext)

    def test_other_mistakes_are_mistakes(self) -> None:
        for more in ({"ca_cert": "/nowhere"}, {"cipher_suites": "x"}, {"min_version": "x", "cert_chain": ""}):
            with self.assertRaises(ConfigError):
                self.server(fall_back=True, **more)

    def test_not_used_with_a_good_certificate(self) -> None:
        server = self.server(fall_back=True)
        self.assertFalse(server.plaintext)
        self.connect(self.client(), server)

    def test_of_several_only_the_bad_one_is_left_out(self) -> None:
        bad = self.certs.server_context(cert_chain="", fall_back=True)
        server = ServerTls([bad, self.certs.server_context()])
        self.assertFalse(server.plaintext or server.chooses)
        self.connect(self.client(), server)

    def test_tls_from_the_moment_the_certificate_is_there(self) -> None:
        pair = KeyPair(str(self.directory / "late.pem"), str(self.directory / "late-key.pem"))
        server = self.server(fall_back=True, **pair.options)
        self.assertFalse(server.reload_if_changed())
        Path(pair.chain).write_text("not yet")
        with capturedLogs() as events:
            self.assertFalse(server.reload_if_changed())
        self.assertIn("TLS stays off", formatEvent(events[0]))
        self.assertTrue(server.plaintext)
        self.certs.issue("late", "localhost")
        self.assertTrue(server.reload_if_changed())
        self.connect(self.client(), server)

    def test_never_back_to_plaintext(self) -> None:
        server = self.server(fall_back=True)
        os.remove(self.certs.server.chain)
        self.assertFalse(server.reload_if_changed())
        self.connect(self.client(), server)


class ReloadTests(ContextTestCase):
    def serial(self, client: ClientTls, server: ServerTls) -> int:
        certificate = self.connect(client, server).near_tls.getPeerCertificate()
        assert certificate is not None
        return certificate.get_serial_number()

    def test_nothing_changed(self) -> None:
        self.assertFalse(self.server().reload_if_changed())
        self.assertFalse(self.client().reload_if_changed())

    def test_new_certificate(self) -> None:
        client, server = self.client(), self.server()
        before = self.connect(client, server)
        old = self.serial(client, server)
        self.certs.issue("server", "localhost")
        with capturedLogs() as events:
            self.assertTrue(server.reload_if_changed())
        self.assertEqual(formatEvent(events[0]), "tls_context: new certificates are in use")
        self.assertFalse(server.reload_if_changed())
        self.assertNotEqual(self.serial(client, server), old)
        before.near.transport.write(b"still here")
        before.pump()
        self.assertEqual(before.far.received, b"still here")

    def test_new_authority(self) -> None:
        client = self.client()
        self.refused(client, self.server(**self.certs.untrusted.options))
        Path(self.certs.ca).write_bytes(self.certs.other_authority.cert_pem.bytes())
        self.assertTrue(client.reload_if_changed())
        self.connect(client, self.server(**self.certs.untrusted.options))

    def test_new_client_certificate(self) -> None:
        client = self.client(**self.certs.client.options)
        server = self.server(ca_cert=self.certs.ca, verify_client=True)
        before = peer_identity(self.connect(client, server).far.transport)
        self.certs.issue("client", "agent-2.example.com")
        self.assertTrue(client.reload_if_changed())
        self.assertNotIn(peer_identity(self.connect(client, server).far.transport), (None, before))

    def test_reload_of_a_shared_context(self) -> None:
        first = self.client()
        second = first.named("127.0.0.1")
        Path(self.certs.ca).write_bytes(self.certs.other_authority.cert_pem.bytes())
        self.assertTrue(first.reload_if_changed())
        self.assertFalse(second.reload_if_changed())
        self.connect(second, self.server(**self.certs.untrusted.options))

    def test_broken_file_keeps_the_old_one(self) -> None:
        client, server = self.client(), self.server()
        old = self.serial(client, server)
        whole = self.certs.server.chain_pem
        Path(self.certs.server.chain).write_text(whole[: len(whole) // 2])
        with capturedLogs() as events:
            for _ in range(3):
                self.assertFalse(server.reload_if_changed())
        self.assertEqual(len(events), 1)
        self.assertEqual(events[0]["log_level"], LogLevel.warn)
        self.assertIn("the old certificates stay", formatEvent(events[0]))
        self.assertEqual(self.serial(client, server), old)
        self.certs.issue("server", "localhost")
        self.assertTrue(server.reload_if_changed())
        self.assertNotEqual(self.serial(client, server), old)

    def test_certificate_and_key_one_after_the_other(self) -> None:
        client, server = self.client(), self.server()
        old = self.serial(client, server)
        fresh = self.certs.issue("fresh", "localhost")
        Path(self.certs.server.chain).write_text(fresh.chain_pem)
        with capturedLogs() as events:
            self.assertFalse(server.reload_if_changed())
        self.assertIn("mismatch", formatEvent(events[0]))
        self.assertEqual(self.serial(client, server), old)
        Path(self.certs.server.key).write_text(fresh.key_pem)
        self.assertTrue(server.reload_if_changed())
        self.assertNotEqual(self.serial(client, server), old)

    def test_missing_file(self) -> None:
        server = self.server()
        os.remove(self.certs.server.key)
        self.assertFalse(server.reload_if_changed())
        self.connect(self.client(), server)

    def test_one_of_several(self) -> None:
        other = self.certs.issue("other", "other.example.com")
        server = ServerTls([self.certs.server_context(), self.certs.server_context(**other.options)])
        Path(self.certs.server.chain).write_text("broken")
        self.certs.issue("other", "other.example.com", "more.example.com")
        self.assertTrue(server.reload_if_changed())
        self.connect(self.client(), server)
        self.connect(self.client("more.example.com"), server)

    def test_text_does_not_change(self) -> None:
        pair = self.certs.server
        server = self.server(cert_chain=pair.chain_pem, private_key=pair.key_pem)
        self.certs.issue("server", "localhost")
        self.assertFalse(server.reload_if_changed())

    def test_symbolic_links(self) -> None:
        # As a mounted secret changes: the link is replaced, the path stays.
        for name, pair in (("one", self.certs.server), ("two", self.certs.issue("second", "localhost"))):
            place = self.directory / name
            place.mkdir()
            (place / "tls.crt").write_text(pair.chain_pem)
            (place / "tls.key").write_text(pair.key_pem)
        current = self.directory / "current"
        current.symlink_to("one")
        client = self.client()
        server = self.server(cert_chain=str(current / "tls.crt"), private_key=str(current / "tls.key"))
        old = self.serial(client, server)
        (self.directory / "new").symlink_to("two")
        (self.directory / "new").replace(current)
        self.assertTrue(server.reload_if_changed())
        self.assertNotEqual(self.serial(client, server), old)


class ResumptionTests(ContextTestCase):
    def test_sessions_are_not_resumed(self) -> None:
        server = self.server(ca_cert=self.certs.ca, verify_client=True, require_client_cert=True)
        context = ssl.create_default_context(cafile=self.certs.ca)
        context.load_cert_chain(self.certs.client.chain, self.certs.client.key)
        for newest in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context.maximum_version = newest
            session = None
            for _ in range(2):
                incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
                tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost", session=session)
                far = wrap_server(factory_of(Recorder()), server).buildProtocol(None)
                tcp = FakeTcp(443)
                tcp.peer = FakeTcp(50000)
                far.makeConnection(tcp)
                for _ in range(4):
                    with contextlib.suppress(ssl.SSLWantReadError):
                        tls.do_handshake()
                    far.dataReceived(outgoing.read() or b"")
                    incoming.write(bytes(tcp.out))
                    tcp.out.clear()
                self.assertTrue(far.established)
                self.assertFalse(tls.session_reused)
                self.assertIsNotNone(peer_identity(far))
                session = tls.session


class OpenSslTextTests(SynchronousTestCase):
    def test_text(self) -> None:
        self.assertEqual(
            openssl_text(SSL.Error([("a", "b", "one"), ("a", "", "two"), ("", "", "one")])), "one; two"
        )
        self.assertEqual(openssl_text(SSL.Error([])), "no reason given")
        self.assertEqual(openssl_text(SSL.Error()), "no reason given")
        self.assertEqual(openssl_text(SSL.SysCallError(-1, "Unexpected EOF")), "-1 Unexpected EOF")


class FailureTests(ContextTestCase):
    def test_not_tls(self) -> None:
        recorder = Recorder()
        far = wrap_server(factory_of(recorder), self.server()).buildProtocol(None)
        near = Recorder()
        wire = Wire(near, far)
        near.transport.write(b"GET / HTTP/1.1\r\n\r\n")
        with capturedLogs() as events:
            wire.pump()
        assert recorder.reason is not None
        recorder.reason.trap(TlsFailed)
        self.assertEqual(events[-1]["log_level"], LogLevel.info)
        self.assertRegex(
            formatEvent(events[-1]), r"with 127.0.0.1:50000 failed: it speaks plain HTTP \(http request\)"
        )
