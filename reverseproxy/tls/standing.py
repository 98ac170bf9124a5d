"""Whether the peer of an open connection would still be accepted, after the configuration has changed."""

from __future__ import annotations

__all__ = ["verify_again"]

from OpenSSL.crypto import X509StoreContext, X509StoreContextError

from reverseproxy.tls.contexts import LoadedContext
from reverseproxy.tls.identity import connection_of, loaded_of, negotiated_protocol, server_name
from reverseproxy.tls.server_contexts import ServerTls


def verify_again(transport: object, tls: ServerTls) -> str:
    """
    Verify the certificate of a connection's peer again, by what is demanded now.

    @param transport: the transport of a protocol; over TLS, after the handshake.
    @param tls: the listener's, as it is now.
    @return: why the peer would not be accepted; empty if it would.
    """
    before, connection = loaded_of(transport), connection_of(transport)
    if before is None or connection is None or tls.plaintext:
        return ""
    protocol = negotiated_protocol(transport)
    now = tls.select(server_name(transport), () if protocol is None else (protocol,))
    if now is before or not now.demands.level or _is_as_strict(before, now):
        return ""
    certificate = connection.get_peer_certificate()
    if certificate is None:
        return "it has shown no certificate, and one is demanded now" if now.demands.level > 1 else ""
    store = now.context.get_cert_store()
    if store is None:
        return ""
    try:
        X509StoreContext(store, certificate, connection.get_peer_cert_chain() or None).verify_certificate()
    except X509StoreContextError as error:
        return f"its certificate is not good any more: {error}"
    return ""


def _is_as_strict(before: LoadedContext, now: LoadedContext) -> bool:
    """Return whether a peer that met the demands of then also meets those of now."""
    return bool(now.trust) and before.trust == now.trust and before.demands.level >= now.demands.level
