"""
Whether a request may be made over a TLS connection, by its host.

The server name in a TLS handshake (SNI) chooses the C{tls_context}, and with it
which client certificates are demanded; the Host of a request chooses the route.
A client that names another host in the handshake than in the request, or none,
could so reach what is reserved for clients with certificates.  Such a request is
misdirected: 421 (RFC 9110 15.5.20).
"""

from __future__ import annotations

__all__ = ["Gate", "gate_of"]

from zope.interface import implementer

from reverseproxy.interfaces import IGate
from reverseproxy.tls.contexts import LoadedContext
from reverseproxy.tls.identity import loaded_of, negotiated_protocol, server_name
from reverseproxy.tls.server_contexts import ServerTls


@implementer(IGate)
class Gate:
    """See L{IGate}; for one connection."""

    def __init__(self, tls: ServerTls, loaded: LoadedContext, name: str, protocol: str | None) -> None:
        """
        @param tls: the listener's.
        @param loaded: the context that was chosen for the connection.
        @param name: the name in the client's handshake, in lower case; empty for none.
        @param protocol: the application protocol that was agreed on.
        """
        self._tls = tls
        self._loaded = loaded
        self._name = name
        self._alpn = () if protocol is None else (protocol,)
        self._fine: bytes | None = None

    @property
    def differs(self) -> bool:
        """See L{IGate}."""
        return self._tls.differs

    def misdirects(self, host: bytes, always: bool) -> bool:
        """See L{IGate}."""
        if host == self._fine:
            return False
        name = _name_of(host.decode("latin-1"))
        if name != self._name:
            if always and self._name:
                return True
            # What would be demanded of a client that names this host in its handshake.
            if self._tls.differs and not self._loaded.demands.covers(
                self._tls.select(name, self._alpn).demands
            ):
                return True
        self._fine = host
        return False


def _name_of(authority: str) -> str:
    """Return the name in a Host header, in the form that SNI has."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0].lower()
    return authority.partition(":")[0].rstrip(".").lower()


def gate_of(transport: object, tls: ServerTls | None) -> Gate | None:
    """
    Make the gate of a connection.

    @param transport: the transport of its protocol.
    @return: L{None} without TLS.
    """
    loaded = None if tls is None else loaded_of(transport)
    if tls is None or loaded is None:
        return None
    return Gate(tls, loaded, server_name(transport), negotiated_protocol(transport))
