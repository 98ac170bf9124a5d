"""
The identity of a peer that claims to be a server of the fleet.

Links between servers use TLS, and both ends show a certificate that a CA of the fleet has signed. That
alone proves nothing, as the same CA may sign certificates of agents and clients: the certificate also
has to name the server's id in a subject alternative name, in a form that nothing else uses::

    URI:reverseproxy://server/ID

or its fingerprint is configured for that id.
"""

from __future__ import annotations

__all__ = ["PREFIX", "PeerTls", "peer_context", "proved_ids", "check_peer"]

from collections.abc import Mapping
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from reverseproxy.config.models import TlsContextConfig
from reverseproxy.fleet.records import is_server_id
from reverseproxy.tls import ClientTls
from reverseproxy.tls.identity import connection_of, loaded_of

PREFIX: Final = "reverseproxy://server/"
"""The prefix of the alternative name; the server's id follows."""

_NAMES: Final = 16
"""How many alternative names of a certificate are considered."""


class PeerTls(ClientTls):
    """
    TLS to another server, whose certificate names its id rather than its address.

    The handshake verifies that a CA of the fleet has signed it; L{check_peer} verifies the id.
    """

    def _take_name(self, default_name: str) -> None:
        self.name = default_name
        self._server = None


def proved_ids(certificate: x509.Certificate, pins: Mapping[str, str]) -> frozenset[str]:
    """
    Return the ids of the servers that a verified certificate belongs to.

    @param pins: SHA-256 fingerprints, in lower case and without colons, by the server's id.
    @return: empty if it is not the certificate of a server.
    """
    found = set()
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = {
            name[len(PREFIX) :]
            for name in names.get_values_for_type(x509.UniformResourceIdentifier)[:_NAMES]
            if name.startswith(PREFIX)
        }
    except (x509.ExtensionNotFound, ValueError):
        pass
    if pins:
        print_ = certificate.fingerprint(SHA256()).hex()
        found |= {server for server, pin in pins.items() if pin == print_}
    return frozenset(server for server in found if is_server_id(server))


def check_peer(transport: Any, claimed: str, pins: Mapping[str, str], plaintext: bool) -> str:
    """
    Check whether a peer is the server that it claims to be.

    @param transport: the connection.
    @param claimed: the id that the peer claims.
    @param pins: see L{proved_ids}.
    @param plaintext: whether the fleet uses no TLS, which is for tests on one machine; every claim is
        believed then.
    @return: why it is not; empty if it is.
    """
    if not is_server_id(claimed):
        return "it does not say which server it is"
    if plaintext:
        return ""
    loaded, connection = loaded_of(transport), connection_of(transport)
    certificate = None if connection is None else connection.get_peer_certificate()
    if loaded is None or not loaded.verifies or certificate is None:
        return "it has shown no certificate that could be verified"
    proved = proved_ids(certificate.to_cryptography(), pins)
    if claimed in proved:
        return ""
    if proved:
        return f"it says that it is {claimed}, and its certificate that it is {', '.join(sorted(proved))}"
    return f"its certificate is none of a server: it has no alternative name URI:{PREFIX}{claimed}"


def peer_context(context: TlsContextConfig) -> TlsContextConfig:
    """Return a TLS context that demands and verifies client certificates, whatever the configuration says."""
    return context.model_copy(
        update={
            "verify_client": True,
            "require_client_cert": True,
            "insecure_skip": False,
            "fall_back": False,
            "alpn": (),
        }
    )
