"""Verification of a peer's certificate, and of the server name in it."""

from __future__ import annotations

__all__ = ["Pins", "ServerName", "accept_all", "verify_chain"]

import re
from collections.abc import Callable, Iterable
from hashlib import sha256
from ipaddress import ip_address
from typing import Final

import idna
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from OpenSSL.crypto import X509
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address
from twisted.python.failure import Failure

from reverseproxy.errors import CertificateRejected

_Callback = Callable[[SSL.Connection, X509, int, int, int], bool]

_VERIFY_ERRORS: Final = {
    getattr(SSL.X509VerificationCodes, name): name.removeprefix("ERR_").lower().replace("_", " ")
    for name in dir(SSL.X509VerificationCodes)
    if name.startswith("ERR_")
}

_HOST_NAME: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")


def accept_all(connection: SSL.Connection, certificate: X509, error: int, depth: int, ok: int) -> bool:
    """Accept any certificate; it proves nothing."""
    return True


def verify_chain(connection: SSL.Connection, certificate: X509, error: int, depth: int, ok: int) -> bool:
    """Leave the decision to OpenSSL, but note its reason."""
    if not ok:
        _refuse(connection, _chain_error(certificate, error, depth))
    return bool(ok)


def _refuse(connection: SSL.Connection, error: Exception) -> None:
    connection.get_app_data().failVerification(Failure(error))


def _chain_error(certificate: X509, error: int, depth: int) -> CertificateRejected:
    subject = _subject(certificate)
    text = _VERIFY_ERRORS.get(error, f"error {error}")
    return CertificateRejected(f"certificate verify failed: {text} (certificate of {subject}, depth {depth})")


def _subject(certificate: X509) -> str:
    try:
        return certificate.to_cryptography().subject.rfc4514_string() or "nobody"
    except ValueError:
        return "an unreadable name"


class ServerName:
    """
    The name of a server that a client wants to reach.

    @ivar text: the name as it was given, without a final dot.
    @ivar host: its ASCII form, for SNI; empty for an IP address.
    """

    def __init__(self, name: str) -> None:
        """
        @raise ValueError: if it is neither a host name nor an IP address.
        """
        self.text = name.strip().rstrip(".")
        self.host = ""
        self._address = ""
        if not self.text:
            raise ValueError("there is no name to verify the server by")
        try:
            self._address = str(ip_address(self.text.strip("[]").partition("%")[0]))
        except ValueError:
            self.host = _ascii_host(self.text)

    def verify(self, connection: SSL.Connection, certificate: X509, error: int, depth: int, ok: int) -> bool:
        """
        Verify one certificate of a server's chain, as OpenSSL's verification callback.

        The certificate of the server itself must carry this name as a subject
        alternative name: an IP address as an IP address, any other name as a
        DNS name.
        """
        if not verify_chain(connection, certificate, error, depth, ok) or depth > 0:
            return bool(ok)
        try:
            leaf = certificate.to_cryptography()
            if self._address:
                verify_certificate_ip_address(leaf, self._address)
            else:
                verify_certificate_hostname(leaf, self.host)
        except Exception as reason:  # whatever it is, the name has not been verified
            named = ", ".join(_alternative_names(certificate)) or "no subject alternative name"
            rejected = CertificateRejected(
                f'certificate verify failed: the certificate is not for "{self.text}" but has {named}'
            )
            rejected.__cause__ = reason
            _refuse(connection, rejected)
            return False
        return True


class Pins:
    """The certificates that a server may have, by their fingerprints."""

    def __init__(self, fingerprints: Iterable[str]) -> None:
        """
        @param fingerprints: SHA-256 of their DER forms, as hexadecimal digits in lower case.
        """
        self._fingerprints = frozenset(fingerprints)

    def verify(self, connection: SSL.Connection, certificate: X509, error: int, depth: int, ok: int) -> bool:
        """
        Verify one certificate of a server's chain, as OpenSSL's verification callback.

        Only the server's own certificate counts; the handshake proves that the server has its key.
        """
        if depth > 0:
            return True
        shown = sha256(certificate.to_cryptography().public_bytes(Encoding.DER)).hexdigest()
        if shown in self._fingerprints:
            return True
        _refuse(
            connection,
            CertificateRejected(
                f"certificate verify failed: the certificate has the fingerprint sha256:{shown}, which is "
                "not the one that is wanted"
            ),
        )
        return False

    def beside(self, other: _Callback) -> _Callback:
        """Return a callback that also demands what another callback demands."""
        return lambda *arguments: (
            other(*arguments) and (not arguments[4] or arguments[3] > 0 or self.verify(*arguments))
        )


def _ascii_host(name: str) -> str:
    host = name.lower()
    if not host.isascii():
        try:
            host = idna.encode(host, uts46=True).decode("ascii")
        except idna.IDNAError as error:
            raise ValueError(f'"{name}" is no host name: {error}') from error
    if len(host) > 253 or not _HOST_NAME.fullmatch(host):
        raise ValueError(f'"{name}" is neither a host name nor an IP address')
    return host


def _alternative_names(certificate: X509) -> list[str]:
    try:
        extensions = certificate.to_cryptography().extensions
        alternatives = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return [str(name.value) for name in alternatives]
    except (ValueError, x509.ExtensionNotFound):
        return []
