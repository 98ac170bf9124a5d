"""Certificates for tests, made anew for each test and written to its directory."""

from __future__ import annotations

__all__ = ["Certificates", "KeyPair"]

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from reverseproxy.config.models import TlsContextConfig

SERVER_NAMES = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class KeyPair:
    """
    A certificate and its key.

    @ivar chain: the path of the certificate.
    @ivar key: the path of its key.
    """

    chain: str
    key: str

    @property
    def chain_pem(self) -> str:
        """The certificate as PEM text."""
        return Path(self.chain).read_text()

    @property
    def key_pem(self) -> str:
        """The key as PEM text."""
        return Path(self.key).read_text()

    @property
    def options(self) -> dict[str, Any]:
        """The keys of a C{tls_context} that name it."""
        return {"cert_chain": self.chain, "private_key": self.key}


class Certificates:
    """
    An authority, what it has issued, and an authority that nobody trusts.

    @ivar ca: the path of the authority's certificate.
    @ivar wrong_ca: the path of the other authority's.
    @ivar server: good for 127.0.0.1, ::1 and localhost.
    @ivar client: names C{agent-1.example.com}.
    @ivar wrong_name: good for C{elsewhere.example.com} only.
    @ivar untrusted: good for the same as C{server}, but from the other authority.
    """

    def __init__(self, directory: str | Path) -> None:
        self._directory = Path(directory)
        self._directory.mkdir(parents=True, exist_ok=True)
        self.authority = trustme.CA(organization_name="Test authority")
        self.other_authority = trustme.CA(organization_name="Another authority")
        self.ca = self._write("ca.pem", self.authority.cert_pem.bytes())
        self.wrong_ca = self._write("wrong-ca.pem", self.other_authority.cert_pem.bytes())
        self.server = self.issue("server", *SERVER_NAMES)
        self.client = self.issue("client", "agent-1.example.com", common_name="agent-1")
        self.wrong_name = self.issue("wrong-name", "elsewhere.example.com")
        self.untrusted = self.issue("untrusted", *SERVER_NAMES, by=self.other_authority)

    def issue(self, file: str, *names: str, by: trustme.CA | None = None, **details: Any) -> KeyPair:
        """
        Issue a certificate, and write it; a second one of the same name replaces the first.

        @param file: begins the names of its files.
        @param names: DNS names and IP addresses.
        @param details: see L{trustme.CA.issue_cert}.
        """
        leaf = (by or self.authority).issue_cert(*names, **details)
        chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
        return KeyPair(
            self._write(f"{file}.pem", chain), self._write(f"{file}-key.pem", leaf.private_key_pem.bytes())
        )

    def revoke(self, *revoked: KeyPair, by: trustme.CA | None = None, days: float = 7.0) -> str:
        """
        Write a list of what an authority has revoked; a second one replaces the first.

        @param days: how long from now it counts; less than 0 for one that is out of date.
        @return: the path.
        """
        issuer = by or self.authority
        certificate = x509.load_pem_x509_certificate(issuer.cert_pem.bytes())
        key = load_pem_private_key(issuer.private_key_pem.bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        now = datetime.now(UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(certificate.subject)
            .last_update(now - timedelta(days=30))
            .next_update(now + timedelta(days=days))
        )
        for pair in revoked:
            leaf = x509.load_pem_x509_certificates(pair.chain_pem.encode())[0]
            entry = x509.RevokedCertificateBuilder().serial_number(leaf.serial_number).revocation_date(now)
            builder = builder.add_revoked_certificate(entry.build())
        name = "revoked.pem" if by is None else "revoked-other.pem"
        return self._write(name, builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))

    def self_signed(
        self,
        file: str,
        common_name: str,
        *names: x509.GeneralName,
        key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | None = None,
    ) -> KeyPair:
        """
        Make a certificate that no authority would issue, and write it.

        @param common_name: may be empty.
        @param names: subject alternative names; none leaves the extension out.
        """
        key = key or ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(key, hashes.SHA256())
        text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return KeyPair(
            self._write(f"{file}.pem", certificate.public_bytes(Encoding.PEM)),
            self._write(f"{file}-key.pem", text),
        )

    def _write(self, name: str, data: bytes) -> str:
        # Under a new name first: replacing a file is what renewals do, and gives it a new inode.
        path = self._directory / name
        fresh = path.with_suffix(".new")
        fresh.write_bytes(data)
        fresh.replace(path)
        return str(path)

    def server_context(self, **more: Any) -> TlsContextConfig:
        """A listener's C{tls_context} with the server's certificate."""
        return TlsContextConfig(**{"status": True, **self.server.options, **more})

    def client_context(self, **more: Any) -> TlsContextConfig:
        """A client's C{tls_context} that trusts the authority."""
        return TlsContextConfig(**{"status": True, "ca_cert": self.ca, **more})
