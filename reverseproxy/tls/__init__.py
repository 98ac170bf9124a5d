"""
TLS: MOSN's C{tls_context} on Twisted and pyOpenSSL.

C{contexts} makes OpenSSL contexts from the configuration, and C{reload} makes new
ones when their files change; C{client_hello} parses a client's first message, by
which one of several contexts is chosen; C{transport} is a connection over TLS that
can be half-closed; C{endpoint} dials; C{inspector} tells TLS from plaintext;
C{identity} tells who the peer has proved to be, and C{gate} which hosts it may request.
"""

from __future__ import annotations

__all__ = [
    "CertificateReloader",
    "ClientTls",
    "IReloadable",
    "ServerTls",
    "TlsTransport",
    "agreed",
    "client_endpoint",
    "gate_of",
    "inspect_factory",
    "negotiated_protocol",
    "peer_identity",
    "peer_subject",
    "too_weak_for_http2",
    "verify_again",
    "wrap_client",
    "wrap_server",
]

from reverseproxy.tls.client_contexts import ClientTls
from reverseproxy.tls.endpoint import client_endpoint
from reverseproxy.tls.factory import wrap_client, wrap_server
from reverseproxy.tls.gate import gate_of
from reverseproxy.tls.identity import (
    agreed,
    negotiated_protocol,
    peer_identity,
    peer_subject,
    too_weak_for_http2,
)
from reverseproxy.tls.inspector import inspect_factory
from reverseproxy.tls.reload import CertificateReloader, IReloadable
from reverseproxy.tls.server_contexts import ServerTls
from reverseproxy.tls.standing import verify_again
from reverseproxy.tls.transport import TlsTransport
