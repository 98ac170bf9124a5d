"""
Make the certificates that the TLS examples use, in C{examples/certs}: an
authority, a server certificate for 127.0.0.1 and localhost, and one for an agent.

For trying things out, not for production: the authority's key lies beside the
others.  Needs nothing that the project does not need itself.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = timedelta(days=365)

Key = ec.EllipticCurvePrivateKey


def begin(subject: str, issuer: str, key: Key, issuer_key: Key) -> x509.CertificateBuilder:
    """Begin a certificate with what all of them have."""
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
    )


def usage(*, signs_certificates: bool) -> x509.KeyUsage:
    """What a key may be used for."""
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def write(directory: Path, name: str, certificate: x509.Certificate, key: Key) -> None:
    """Write a certificate, and its key for nobody else's eyes."""
    (directory / f"{name}.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path = directory / f"{name}.key"
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)


def main(directory: Path) -> None:
    """Make all of them."""
    directory.mkdir(parents=True, exist_ok=True)
    authority = "reverseproxy example authority"
    authority_key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        begin(authority, authority, authority_key, authority_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(signs_certificates=True), critical=True)
        .sign(authority_key, SHA256())
    )
    write(directory, "ca", certificate, authority_key)
    names: dict[str, list[x509.GeneralName]] = {
        "server": [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")],
        "agent": [x509.DNSName("agent-1.example.com")],
    }
    purposes = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "agent": ExtendedKeyUsageOID.CLIENT_AUTH}
    for name, alternatives in names.items():
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            begin(name, authority, key, authority_key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purposes[name]]), critical=False)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .sign(authority_key, SHA256())
        )
        write(directory, name, certificate, key)
    files = ", ".join(sorted(path.name for path in directory.iterdir()))
    sys.stdout.write(f"{directory}: {files}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent / "certs")
