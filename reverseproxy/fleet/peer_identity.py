"""
How a server proves that it belongs to the fleet.

Links between servers are TLS, and both ends show a certificate that an authority of
the fleet has signed.  That alone makes nobody a server, as the same authority may
have signed certificates of agents and clients: the certificate has to say so, with
the server's id in an alternative name that nobody else has any use for::

    URI:reverseproxy://server/ID

or its fingerprint stands in the configuration, for that id and no other.
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
"""How the alternative name of a server begins; its id follows."""

_NAMES: Final = 16
"""How many alternative names of a certificate are looked at."""


class PeerTls(ClientTls):
    """
    TLS towards another server, whose certificate counts by its id rather than by its address.

    That it was signed by an authority of the fleet is found out here; see L{check_peer} for the rest.
    """

    def _take_name(self, default_name: str) -> None:
        self.name = default_name
        self._server = None


def proved_ids(certificate: x509.Certificate, pins: Mapping[str, str]) -> frozenset[str]:
    """
    Say which servers a certificate belongs to, one that has been verified.

    @param pins: fingerprints, in lower case and without colons, by the ids of servers.
    @return: none for one of somebody else.
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
    Find out whether a peer is the server that it says it is.

    @param transport: the connection.
    @param claimed: the id that it says.
    @param pins: see L{proved_ids}.
    @param plaintext: whether the fleet has no TLS, which is for tests on one machine.
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
    """Demand a certificate of whoever dials, whatever the configuration of the fleet says."""
    return context.model_copy(
        update={
            "verify_client": True,
            "require_client_cert": True,
            "insecure_skip": False,
            "fall_back": False,
            "alpn": (),
        }
    )
