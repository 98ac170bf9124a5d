"""Certificates of servers of a fleet, and of others by the same authority."""

from __future__ import annotations

__all__ = ["Authority"]

from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from reverseproxy.fleet.peer_identity import PREFIX


class Authority:
    """
    Signs.

    @ivar pem: its certificate.
    """

    def __init__(self, name: str = "fleet") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._begin(self._name, self._key).add_extension(x509.BasicConstraints(True, 0), True)
        self.pem = builder.sign(self._key, SHA256()).public_bytes(Encoding.PEM).decode()

    def _begin(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(days=1))
        )

    def sign(self, *names: x509.GeneralName, purposes: tuple[Any, ...] = ()) -> tuple[x509.Certificate, str]:
        """Issue a certificate, and its key as PEM text."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody")])
        builder = self._begin(subject, key)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if purposes:
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        return builder.sign(self._key, SHA256()), pem

    def context(self, *names: x509.GeneralName, trusts: Authority | None = None) -> dict[str, Any]:
        """A C{tls_context} for links, with a new certificate."""
        certificate, key = self.sign(
            *names, purposes=(ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
        )
        return {
            "status": True,
            "ca_cert": (trusts or self).pem,
            "cert_chain": certificate.public_bytes(Encoding.PEM).decode(),
            "private_key": key,
        }

    def of_server(self, server: str, trusts: Authority | None = None) -> dict[str, Any]:
        """The same for a server of the fleet."""
        return self.context(x509.UniformResourceIdentifier(PREFIX + server), trusts=trusts)
