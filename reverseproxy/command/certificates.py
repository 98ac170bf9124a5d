"""Certificates of tunnel servers: made at the first start, and pinned by their fingerprint."""

from __future__ import annotations

__all__ = ["SERVER_NAME", "fetch_certificate", "fingerprint_of", "make_certificate", "same_fingerprint"]

import hmac
import socket
import ssl
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from reverseproxy.clock import wall_time
from reverseproxy.command.errors import InstantProblem

SERVER_NAME: Final = "tunnel.reverseproxy.internal"
"""The name in the certificates that are made here, whatever the address of the server."""

_DAYS: Final = 3650
_TIMEOUT: Final = 10.0


def fingerprint_of(certificate: x509.Certificate) -> str:
    """Return the SHA-256 fingerprint of a certificate, as C{sha256:...}."""
    return f"sha256:{certificate.fingerprint(hashes.SHA256()).hex()}"


def fetch_certificate(server: str) -> x509.Certificate:
    """
    Return the certificate that a server shows; it is not verified.

    @param server: C{host:port}.
    @raise InstantProblem: if the server can't be reached, or does not speak TLS.
    """
    host, _, port = server.rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host.strip("[]"), int(port)), _TIMEOUT) as connection,
            context.wrap_socket(connection, server_hostname=SERVER_NAME) as secure,
        ):
            shown = secure.getpeercert(binary_form=True)
    except (OSError, OverflowError) as error:
        raise InstantProblem(f"{server} can't be asked for its certificate: {error}") from None
    if shown is None:
        raise InstantProblem(f"{server} shows no certificate")
    return x509.load_der_x509_certificate(shown)


def same_fingerprint(certificate: x509.Certificate, fingerprint: str) -> bool:
    """Compare a certificate with a fingerprint, which may have capitals and colons."""
    plain = fingerprint.lower().removeprefix("sha256:").replace(":", "").strip()
    ours = fingerprint_of(certificate).removeprefix("sha256:")
    return hmac.compare_digest(ours.encode(), plain.encode())


def make_certificate() -> tuple[bytes, bytes]:
    """Return a self-signed certificate and its key, both as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, SERVER_NAME)])
    now = datetime.fromtimestamp(wall_time(), UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # The clock of an agent may be slow.
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(SERVER_NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM), key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
