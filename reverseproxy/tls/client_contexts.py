"""TLS of connections that are dialled: which server certificates are accepted."""

from __future__ import annotations

__all__ = ["ClientTls"]

from collections.abc import Callable
from copy import copy
from functools import partial
from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from zope.interface import implementer

from reverseproxy.clock import wall_time
from reverseproxy.config.diagnostics import Diagnostics
from reverseproxy.config.models import TlsContextConfig
from reverseproxy.errors import ConfigError
from reverseproxy.problems import PART, Place, Problem
from reverseproxy.tls.contexts import TLS_CONTEXT, LoadedContext, TlsContext
from reverseproxy.tls.material import KeyMaterial, Verifier, Verify
from reverseproxy.tls.reload import IReloadable
from reverseproxy.tls.validity import Dated
from reverseproxy.tls.verification import Pins, ServerName, verify_chain


@implementer(IOpenSSLClientConnectionCreator, IReloadable)
class ClientTls:
    """
    TLS towards one server.

    The server's certificate must be signed by an authority of C{ca_cert} (or of
    the system), and carry the name that we want to reach as a subject
    alternative name: an IP address as an IP address, any other name as a DNS
    name, where C{*} stands for one leading label.  The common name counts for
    nothing.  This is checked before our own certificate is shown.

    With C{fingerprint}, the server's certificate must have one of these fingerprints; the
    checks above apply in addition if C{ca_cert} is configured, and not otherwise.

    @ivar name: the name that is verified: C{server_name}, else the host that is
        dialled.
    @ivar fall_back: whether the configuration asks for plaintext when the
        handshake fails.
    """

    def __init__(
        self,
        config: TlsContextConfig,
        default_name: str,
        where: Place = TLS_CONTEXT,
        wall: Callable[[], float] = wall_time,
    ) -> None:
        """
        @param default_name: the host part of the address that is dialled.
        @param where: the place in the configuration, for messages.
        @param wall: seconds since 1970, for the validity of certificates.
        @raise ConfigError: with everything that is wrong.
        """
        self._config = config
        self._where = where
        self.fall_back = config.fall_back
        self._pins = Pins(config.fingerprint) if config.fingerprint else None
        self._by_name = not config.insecure_skip and (self._pins is None or bool(config.ca_cert))
        findings = Diagnostics()
        findings.attempt(PART, partial(self._take_name, default_name))
        make = partial(TlsContext, config, self._where, self._assemble, False, wall)
        context = findings.attempt(PART, make)
        findings.raise_errors()
        assert context is not None
        self._context = context

    def named(self, default_name: str) -> ClientTls:
        """
        Return the same for another server, without loading the files again.

        The system's authorities alone take a megabyte for every L{ClientTls}
        that is made in the ordinary way.

        @param default_name: the host part of the address that is dialled.
        @raise ConfigError: if it can't be verified.
        """
        other = copy(self)
        other._take_name(default_name)
        return other

    def _take_name(self, default_name: str) -> None:
        self.name = self._config.server_name or default_name
        self._server: ServerName | None = None
        try:
            self._server = ServerName(self.name)
        except ValueError as error:
            if self._by_name:
                message = f"server_name: {error}; set one, or insecure_skip"
                raise ConfigError(Problem.at(self._where / "server_name", message)) from error

    def _assemble(self, material: KeyMaterial) -> LoadedContext:
        config = material.config
        verifies = not config.insecure_skip
        # Each connection adds the name, in clientConnectionForTLS.
        flags = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
        verify: Verify = (flags, verify_chain) if verifies else (SSL.VERIFY_NONE, None)
        if verifies and self._pins is not None:
            verify = (flags, self._pins.beside(verify_chain) if self._by_name else self._pins.verify)
        context = material.context(SSL.TLS_CLIENT_METHOD, verify, self._by_name)
        if config.alpn:
            context.set_alpn_protos([protocol.encode() for protocol in config.alpn])
        loaded = LoadedContext(context, verifies, frozenset(), config.alpn, verify)
        context.set_app_data(loaded)
        return loaded

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """See L{IOpenSSLClientConnectionCreator}."""
        loaded = self._context.loaded
        assert loaded is not None  # only servers do without
        connection = SSL.Connection(loaded.context, None)
        connection.set_connect_state()
        connection.set_app_data(tlsProtocol)
        if self._server is not None:
            if self._server.host:
                connection.set_tlsext_host_name(self._server.host.encode("ascii"))
            if self._by_name:
                verify: Verifier = self._server.verify
                if self._pins is not None:
                    verify = self._pins.beside(verify)
                connection.set_verify(loaded.verify[0], verify)
        return connection

    def reload_if_changed(self) -> bool:
        """
        Make a new context if a file has changed, for new connections.

        @return: whether there is one.
        """
        return self._context.reload_if_changed()

    def expiring(self) -> list[tuple[Problem, bool]]:
        """See L{IReloadable}."""
        return self._context.expiring()

    @property
    def dated(self) -> list[tuple[str, Dated]]:
        """See L{IReloadable}."""
        return self._context.dated
