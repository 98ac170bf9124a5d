"""What a TLS connection proves about its peer, and what was negotiated."""

from __future__ import annotations

__all__ = [
    "agreed",
    "certificate_identity",
    "certificate_subject",
    "negotiated_protocol",
    "peer_identity",
    "peer_subject",
    "too_weak_for_http2",
]

import json
from hashlib import sha256
from typing import Any

from cryptography import x509
from twisted.protocols.policies import ProtocolWrapper

from reverseproxy.identity.agents import MAX_NAME, MAX_NAMES, CertificateSubject
from reverseproxy.tls.contexts import LoadedContext
from reverseproxy.tls.transport import TlsTransport


def peer_identity(transport: object) -> str | None:
    """
    Return the identity that the peer of a connection has proved.

    @param transport: the transport of a protocol.
    @return: a string that is the same for every certificate of the same
        subject name and alternative names, whichever of our authorities issued
        it, and whenever; L{None} without TLS, during the handshake, without a
        certificate, or if it was not verified.
    """
    subject = peer_subject(transport)
    return None if subject is None else subject.key


def peer_subject(transport: object) -> CertificateSubject | None:
    """
    Return the owner of the certificate of a connection's peer.

    @param transport: the transport of a protocol.
    @return: see L{peer_identity}, which is the C{key} of it.
    """
    tls = _tls_of(transport)
    if tls is None or not tls.established:
        return None
    connection = tls.getHandle()
    if connection is None:
        return None
    loaded = connection.get_context().get_app_data()
    certificate = connection.get_peer_certificate()
    if certificate is None or not isinstance(loaded, LoadedContext) or not loaded.verifies:
        return None
    return certificate_subject(certificate.to_cryptography())


def certificate_identity(certificate: x509.Certificate) -> str | None:
    """
    Name the subject of a certificate.

    @return: an opaque string, or L{None} if the certificate has no name, or
        if its names can't be read.
    """
    subject = certificate_subject(certificate)
    return None if subject is None else subject.key


def certificate_subject(certificate: x509.Certificate) -> CertificateSubject | None:
    """
    Return the owner of a certificate.

    @return: L{None} if it has no name, or if its names can't be read.
    """
    try:
        subject = certificate.subject.rfc4514_string()
        try:
            extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
            names = sorted({_general_name(name) for name in extension.value})
        except x509.ExtensionNotFound:
            names = []
    except ValueError:
        return None
    if not subject and not names:
        return None
    key = "x509:" + sha256(json.dumps([subject, names]).encode()).hexdigest()
    shown = tuple(f"{_KINDS.get(kind, kind)}:{name}"[:MAX_NAME] for kind, name in names[:MAX_NAMES])
    return CertificateSubject(key, subject[:MAX_NAME], shown)


# As OpenSSL writes them.
_KINDS = {
    "DNSName": "DNS",
    "IPAddress": "IP",
    "RFC822Name": "email",
    "UniformResourceIdentifier": "URI",
    "DirectoryName": "DirName",
}


def _general_name(name: x509.GeneralName) -> tuple[str, str]:
    kind, value = type(name).__name__, name.value
    if isinstance(name, x509.DNSName):
        return kind, name.value.lower()
    if isinstance(name, x509.DirectoryName):
        return kind, name.value.rfc4514_string()
    if isinstance(name, x509.RegisteredID):
        return kind, name.value.dotted_string
    if isinstance(name, x509.OtherName):
        return kind, f"{name.type_id.dotted_string}={name.value.hex()}"
    return kind, str(value)


def negotiated_protocol(transport: object) -> str | None:
    """
    Return the application protocol that was negotiated by ALPN.

    @param transport: the transport of a protocol.
    @return: for instance C{"h2"}; L{None} without TLS, or if none was negotiated.
    """
    tls = _tls_of(transport)
    protocol = None if tls is None else tls.negotiatedProtocol
    return None if protocol is None else protocol.decode("latin-1")


def agreed(transport: object) -> dict[str, str] | None:
    """
    Return the TLS version and the cipher suite of a connection.

    @param transport: the transport of a protocol.
    @return: C{version} and C{cipher}, as OpenSSL names them; L{None} without TLS,
        during the handshake, or when the connection is lost.
    """
    tls = _tls_of(transport)
    connection = None if tls is None or not tls.established else tls.getHandle()
    if connection is None:
        return None
    return {"version": connection.get_protocol_version_name(), "cipher": connection.get_cipher_name() or ""}


def too_weak_for_http2(transport: object) -> str:
    """
    Return why TLS as negotiated is not enough for HTTP/2 by ALPN (RFC 9113 9.2).

    HTTP/2 wants TLS 1.2, and of its cipher suites those with a key of their own
    for each connection and with authenticated encryption, which all of TLS 1.3
    have.  Without ALPN this is not checked: both ends were configured for it.

    @param transport: the transport of a protocol, after the handshake.
    @return: the version or cipher suite that is not enough; else empty.
    """
    tls = _tls_of(transport)
    connection = None if tls is None else tls.getHandle()
    if connection is None or negotiated_protocol(transport) != "h2":
        return ""
    version = connection.get_protocol_version_name()
    cipher = connection.get_cipher_name() or ""
    if version == "TLSv1.3":
        return ""
    if version != "TLSv1.2":
        return version
    ephemeral = cipher.startswith(("ECDHE-", "DHE-"))
    authenticated = any(name in cipher for name in ("GCM", "CCM", "CHACHA20"))
    return "" if ephemeral and authenticated else cipher


def connection_of(transport: object) -> Any:
    """
    Find OpenSSL's connection object.

    @param transport: the transport of a protocol.
    @return: L{None} without TLS, or during the handshake.
    """
    tls = _tls_of(transport)
    return None if tls is None or not tls.established else tls.getHandle()


def loaded_of(transport: object) -> LoadedContext | None:
    """
    Find the context of a connection.

    @param transport: the transport of a protocol.
    @return: L{None} without TLS, or during the handshake.
    """
    tls = _tls_of(transport)
    connection = None if tls is None or not tls.established else tls.getHandle()
    loaded = None if connection is None else connection.get_context().get_app_data()
    return loaded if isinstance(loaded, LoadedContext) else None


def server_name(transport: object) -> str:
    """
    Return the server name that a client has sent in its handshake (SNI).

    @param transport: the transport of a protocol.
    @return: in lower case; empty without TLS, or if there was none.
    """
    tls = _tls_of(transport)
    connection = None if tls is None else tls.getHandle()
    name = None if connection is None else connection.get_servername()
    return "" if name is None else name.decode("latin-1").rstrip(".").lower()


def _tls_of(transport: Any) -> TlsTransport | None:
    """Find the TLS layer under Twisted's other protocol wrappers."""
    while isinstance(transport, ProtocolWrapper):
        if isinstance(transport, TlsTransport):
            return transport
        transport = transport.transport
    return None
