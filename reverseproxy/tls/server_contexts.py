"""TLS of listeners: which context a client gets, and which certificate is demanded of it."""

from __future__ import annotations

__all__ = ["ServerTls"]

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final
from weakref import WeakSet

from cryptography import x509
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from zope.interface import implementer

from reverseproxy.clock import wall_time
from reverseproxy.config.diagnostics import Diagnostics
from reverseproxy.config.models import TlsContextConfig
from reverseproxy.problems import Place, Problem, quote
from reverseproxy.tls.contexts import NO_DEMANDS, TLS_CONTEXT, Demands, LoadedContext, TlsContext
from reverseproxy.tls.material import KeyMaterial, Verify
from reverseproxy.tls.reload import IReloadable
from reverseproxy.tls.validity import Dated
from reverseproxy.tls.verification import accept_all, verify_chain

_MAX_NAME: Final = 255
"""Characters of a host name at the most."""


def _names(certificate: x509.Certificate, server_name: str) -> frozenset[str]:
    """Return the names that choose a server's context: as in MOSN, the common name is one of them."""
    names = {server_name}
    with suppress(ValueError):
        names.update(
            str(name.value) for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        )
        with suppress(x509.ExtensionNotFound):
            alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
            names.update(alternatives.value.get_values_for_type(x509.DNSName))
    return frozenset(name.rstrip(".").lower() for name in names) - {""}


@implementer(IOpenSSLServerConnectionCreator, IReloadable)
class ServerTls:
    """
    TLS of a listener: one C{tls_context} or a set of them.

    Of several, a client's server name chooses one (an exact match first, then
    wildcards from the longest to the shortest), else the protocols that it
    offers (ALPN), else the first one serves.  All settings of the chosen one
    apply under L{reverseproxy.tls.wrap_server}, whose transport parses the
    client's first message.  Under Twisted's own TLS transports, where only the
    server name is known, and only once the handshake has begun, the versions
    and curves of the first context are used with the certificates, authorities
    and cipher suites of the chosen one.
    """

    version: int
    """How often files have changed."""

    def __init__(
        self,
        contexts: Sequence[TlsContextConfig],
        where: Place = TLS_CONTEXT,
        wall: Callable[[], float] = wall_time,
        places: Sequence[Place] = (),
    ) -> None:
        """
        @param contexts: one or more, in the order of the configuration, without
            those whose C{status} is false.
        @param where: the place in the configuration, for messages.
        @param places: the place of each context; empty for C{where}, or the set of that name, without others.
        @param wall: seconds since 1970, for the validity of certificates.
        @raise ConfigError: with everything that is wrong with any of them.
        """
        if not contexts:
            raise ValueError("no tls_context: that is plaintext, not TLS")
        self._switchable: WeakSet[SSL.Connection] = WeakSet()
        self._several = len(contexts) > 1
        self.version = 0
        self._contexts: list[TlsContext] = []
        findings = Diagnostics()
        for index, config in enumerate(contexts):
            place = where
            if places:
                place = places[index]
            elif self._several:
                place = Place(place.file, place.keys[:-1]) / f"{place.name}_set" / index
            make = partial(TlsContext, config, place, self._assemble, True, wall)
            context = findings.attempt(place, make)
            if context is not None:
                self._contexts.append(context)
        findings.raise_errors()
        self._index()

    def _index(self) -> None:
        """Prepare the choice among the contexts that can be used now."""
        self._usable = [context.loaded for context in self._contexts if context.loaded is not None]
        self._differs = len({loaded.demands for loaded in self._usable}) > 1
        self._by_name: dict[str, LoadedContext] = {}
        self._by_alpn: dict[str, LoadedContext] = {}
        for loaded in self._usable:
            for name in loaded.names:
                self._by_name.setdefault(name, loaded)
            for protocol in loaded.alpn:
                self._by_alpn.setdefault(protocol.lower(), loaded)

    def _assemble(self, material: KeyMaterial) -> LoadedContext:
        config = material.config
        verifies = config.verify_client
        verify: Verify = (SSL.VERIFY_NONE, None)
        if verifies and config.require_client_cert:
            verify = (SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, verify_chain)
        elif verifies:
            verify = (SSL.VERIFY_PEER, verify_chain)
        elif config.require_client_cert:
            verify = (SSL.VERIFY_PEER, accept_all)
        context = material.context(SSL.TLS_SERVER_METHOD, verify, verifies)
        for authority in material.authorities or ():
            context.add_client_ca(authority)
        if config.alpn:
            offered = tuple(protocol.encode() for protocol in config.alpn)
            context.set_alpn_select_callback(lambda _, wanted: _select_protocol(offered, wanted))
        if self._several:
            context.set_tlsext_servername_callback(self._switch)
        level = verifies + (verifies and config.require_client_cert)
        demands = Demands(level, config.ca_cert, config.crl) if level else NO_DEMANDS
        names = _names(material.chain[0], config.server_name)
        trust = material.trust if verifies else b""
        loaded = LoadedContext(context, verifies, names, config.alpn, verify, demands, trust)
        context.set_app_data(loaded)
        return loaded

    @property
    def plaintext(self) -> bool:
        """Whether no certificate can be used, so that C{fall_back} means plaintext."""
        return not self._usable

    @property
    def differs(self) -> bool:
        """Whether contexts differ in what they demand of clients."""
        return self._differs

    @property
    def chooses(self) -> bool:
        """Whether the context depends on the client's first message."""
        return len(self._usable) > 1

    def select(self, server_name: str, alpn: Iterable[str]) -> LoadedContext:
        """
        Choose the context for a client.

        @param server_name: in lower case; empty if it named none.
        @param alpn: the protocols that it offers.
        """
        if server_name and len(server_name) <= _MAX_NAME:
            labels = server_name.split(".")
            candidates = [server_name, *("*." + ".".join(labels[i:]) for i in range(1, len(labels)))]
            # Exact names of all contexts come before wildcards of any.
            for candidate in candidates:
                if candidate in self._by_name:
                    return self._by_name[candidate]
        for protocol in alpn:
            if protocol.lower() in self._by_alpn:
                return self._by_alpn[protocol.lower()]
        return self._usable[0]

    def connection(self, protocol: Any, loaded: LoadedContext) -> SSL.Connection:
        """Return an OpenSSL connection for a client whose context has been chosen."""
        connection = SSL.Connection(loaded.context, None)
        connection.set_accept_state()
        connection.set_app_data(protocol)
        return connection

    def serverConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        """See L{IOpenSSLServerConnectionCreator}."""
        connection = self.connection(protocol, self._usable[0])
        self._switchable.add(connection)
        return connection

    def _switch(self, connection: SSL.Connection) -> None:
        # OpenSSL calls this when it has parsed the client's server name, if any.
        if connection not in self._switchable:
            return
        name = (connection.get_servername() or b"").decode("latin-1").rstrip(".").lower()
        chosen = self.select(name, ())
        if chosen.context is not connection.get_context():
            connection.set_context(chosen.context)
            connection.set_verify(*chosen.verify)

    def reload_if_changed(self) -> bool:
        """
        Make new contexts where files have changed, for new connections.

        @return: whether there is a new one.
        """
        changed = [context.reload_if_changed() for context in self._contexts]
        if any(changed):
            self._index()
            self.version += 1
        return any(changed)

    def expiring(self) -> list[tuple[Problem, bool]]:
        """See L{IReloadable}."""
        return [each for context in self._contexts for each in context.expiring()]

    def shared_names(self) -> list[Problem]:
        """Return warnings about contexts with names of earlier ones, which get the clients of these names."""
        found = []
        first: dict[str, TlsContext] = {}
        for context in self._contexts:
            names = sorted(context.loaded.names) if context.loaded is not None else []
            shared = [name for name in names if name in first]
            if shared:
                more = f" and {len(shared) - 1} more" if len(shared) > 1 else ""
                earlier = first[shared[0]].place.path
                reason = f"clients of {quote(shared[0])}{more} get {earlier}, which has the same name"
                found.append(Problem.at(context.place, reason))
            for name in names:
                first.setdefault(name, context)
        return found

    @property
    def dated(self) -> list[tuple[str, Dated]]:
        """See L{IReloadable}."""
        return [each for context in self._contexts for each in context.dated]


def _select_protocol(offered: tuple[bytes, ...], wanted: list[bytes]) -> Any:
    """
    Choose the first of our protocols that the client offers too.

    Without one the handshake fails, as RFC 7301 wants it; as in Go, a client
    that would speak HTTP/1.1 with a server of HTTP/2 is served without ALPN.
    """
    for protocol in offered:
        if protocol in wanted:
            return protocol
    if b"h2" in offered and b"http/1.1" in wanted:
        return SSL.NO_OVERLAPPING_PROTOCOLS
    offers = ", ".join(protocol.decode("latin-1") for protocol in wanted)
    raise SSL.Error([("", "", f"no application protocol in common; the client offers {offers}")])
