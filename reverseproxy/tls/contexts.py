"""
A C{tls_context} as OpenSSL contexts, for servers and for clients.

Contexts are never changed.  When a file has changed, a new one is made for new
connections.
"""

from __future__ import annotations

__all__ = ["ClientTls", "Loaded", "ServerTls", "TlsContext"]

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from weakref import WeakSet

from cryptography import x509
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator
from twisted.logger import Logger
from zope.interface import implementer

from reverseproxy.clock import wall_time
from reverseproxy.config.models import TlsContextConfig
from reverseproxy.errors import ConfigError, Problem
from reverseproxy.problems import Place
from reverseproxy.tls.material import PEM, KeyMaterial, Verifier, Verify, openssl_text
from reverseproxy.tls.reload import IReloadable
from reverseproxy.tls.validity import Dated, Expiry
from reverseproxy.tls.verification import Pins, ServerName, accept_all, verify_chain

log = Logger()

_CERTIFICATE_KEYS: Final = frozenset({"cert_chain", "private_key"})

_MAX_NAME: Final = 255
"""Characters of a host name at the most."""

_Stamp = tuple[int, int, int, int] | None


class Demands(NamedTuple):
    """
    What a C{tls_context} of a server demands of clients.

    @ivar level: 2 for a certificate, 1 for a good one if there is one, 0 for nothing.
    @ivar ca_cert: who has to have signed it, as the configuration says.
    @ivar crl: who has to have not revoked it.
    """

    level: int = 0
    ca_cert: str = ""
    crl: str = ""

    def covers(self, other: Demands) -> bool:
        """Whether who has met these has met others, too."""
        return not other.level or (self[1:] == other[1:] and self.level >= other.level)


NO_DEMANDS: Final = Demands()


@dataclass(frozen=True, slots=True)
class Loaded:
    """
    An OpenSSL context, as it was made from the files of one C{tls_context}.

    @ivar context: with this object as its application data.
    @ivar verifies: whether a peer certificate on a connection of this context
        has been verified.
    @ivar names: on a server, the names that select this context, in lower case;
        some begin with C{*.}.
    @ivar alpn: the protocols that it can speak.
    @ivar verify: how it verifies, for a connection that changes over to it.
    @ivar demands: what it demands of clients.
    @ivar trust: the same for the same authorities and revocation lists; empty if nobody is verified by them.
    """

    context: SSL.Context
    verifies: bool
    names: frozenset[str]
    alpn: tuple[str, ...]
    verify: Verify
    demands: Demands = NO_DEMANDS
    trust: bytes = b""


def _placed(where: Place | str) -> Place:
    """The place of a context in the document, which somebody else knows the name of."""
    return where if isinstance(where, Place) else Place.of(where, "")


class TlsContext:
    """
    One C{tls_context}, and the OpenSSL context last made from it.

    @ivar loaded: L{None} if the certificate is unusable and the configuration
        has C{fall_back}.
    """

    def __init__(
        self,
        config: TlsContextConfig,
        where: Place,
        assemble: Callable[[KeyMaterial], Loaded],
        is_server: bool,
        wall: Callable[[], float],
    ) -> None:
        """
        @param where: the place in the configuration, for messages.
        @param assemble: makes the context.
        @param is_server: whether a missing certificate is a mistake.
        @param wall: seconds since 1970.
        @raise ConfigError: with everything that is wrong.
        """
        self._config = config
        self._where = where
        self._assemble = assemble
        self._is_server = is_server
        self._wall = wall
        self._expiry = Expiry(())
        self._paths = tuple(
            value
            for value in (config.ca_cert, config.crl, config.cert_chain, config.private_key)
            if value and PEM not in value
        )
        self._failed: tuple[_Stamp, ...] | None = None
        # Before the files are read: what changes while they are read counts as a change.
        self._stamps = self._stat()
        self.loaded: Loaded | None = None
        try:
            self.loaded = self._load(first=True)
        except ConfigError as error:
            keys = {problem.place.name for problem in error.problems}
            if not (is_server and config.fall_back and keys <= _CERTIFICATE_KEYS):
                raise
            log.warn(
                "{where}: no TLS, because fall_back is set and the certificate can't be used: {reason}",
                where=where.path,
                reason=str(error),
            )

    def _stat(self) -> tuple[_Stamp, ...]:
        return tuple(_stamp(path) for path in self._paths)

    def _load(self, first: bool = False) -> Loaded:
        material = KeyMaterial(self._config, self._where, self._is_server)
        expiry = Expiry(material.dated)
        if first:
            material.warn()
        else:
            self._compare_dates(material, expiry.items)
        if not material.problems:
            try:
                loaded = self._assemble(material)
                self._expiry = expiry
                return loaded
            except SSL.Error as error:
                # What OpenSSL checks only now is the key: it must fit the certificate and be long enough.
                material.report(
                    "cert_chain", f"can't be used together with the private_key: {openssl_text(error)}"
                )
        raise ConfigError(*material.problems)

    def _compare_dates(self, material: KeyMaterial, items: tuple[Dated, ...]) -> None:
        """Object to what is not valid at present where there is something valid to keep."""
        now = self._wall()
        for key in sorted({item.key for item in items}):
            new = [item for item in items if item.key == key]
            old = [item for item in self._expiry.items if item.key == key]
            if _can_serve(old, now) and not _can_serve(new, now):
                material.report(key, next(item.text(now) for item in new if not item.is_valid(now)))

    def expiring(self) -> list[tuple[Problem, bool]]:
        """
        What is about to expire, has expired, or is not valid yet, and was not told of at this stage.

        @return: what it is, and whether that is so already.
        """
        now = self._wall()
        return [
            (Problem.at(self._where / item.key, item.text(now)), urgent)
            for item, urgent in self._expiry.due(now)
        ]

    @property
    def dated(self) -> list[tuple[str, Dated]]:
        """What is in use and has an end, each with the key that names it."""
        return [((self._where / item.key).path, item) for item in self._expiry.items]

    def reload_if_changed(self) -> bool:
        """
        Make a new context if a file has changed.

        If it can't be made, the old one stays in use; that is logged once for
        each change, and tried again at each call.

        @return: whether there is a new context.
        """
        stamps = self._stat()
        if stamps == self._stamps:
            return False
        try:
            loaded = self._load()
        except ConfigError as error:
            if stamps != self._failed:
                self._failed = stamps
                log.warn(
                    "{where}: the changed certificate files can't be used, {state}: {reason}",
                    where=self._where.path,
                    state="the old certificates stay" if self.loaded is not None else "TLS stays off",
                    reason=str(error),
                )
            return False
        self.loaded, self._stamps, self._failed = loaded, stamps, None
        log.info("{where}: new certificates are in use", where=self._where.path)
        return True


@implementer(IOpenSSLServerConnectionCreator, IReloadable)
class ServerTls:
    """
    TLS of a listener: one C{tls_context} or a set of them.

    Of several, a client's server name chooses one (an exact match first, then
    wildcards from the longest to the shortest), else the protocols that it
    offers (ALPN), else the first one serves.  All settings of the chosen one
    apply under L{reverseproxy.tls.wrap_server}, whose transport looks into the
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
        where: Place | str = "tls_context",
        wall: Callable[[], float] = wall_time,
    ) -> None:
        """
        @param contexts: one or more, in the order of the configuration, without
            those whose C{status} is false.
        @param where: the place in the configuration, for messages.
        @param wall: seconds since 1970, for the validity of certificates.
        @raise ConfigError: with everything that is wrong with any of them.
        """
        if not contexts:
            raise ValueError("no tls_context: that is plaintext, not TLS")
        self._switchable: WeakSet[SSL.Connection] = WeakSet()
        self._several = len(contexts) > 1
        self.version = 0
        self._contexts: list[TlsContext] = []
        problems: list[Problem] = []
        for index, config in enumerate(contexts):
            place = _placed(where)
            if self._several:
                place = Place(place.file, place.keys[:-1]) / f"{place.name}_set" / index
            try:
                self._contexts.append(TlsContext(config, place, self._assemble, True, wall))
            except ConfigError as error:
                problems.extend(error.problems)
        if problems:
            raise ConfigError(*problems)
        self._index()

    def _index(self) -> None:
        """Prepare the choice among the contexts that can be used at present."""
        self._usable = [context.loaded for context in self._contexts if context.loaded is not None]
        self._differs = len({loaded.demands for loaded in self._usable}) > 1
        self._by_name: dict[str, Loaded] = {}
        self._by_alpn: dict[str, Loaded] = {}
        for loaded in self._usable:
            for name in loaded.names:
                self._by_name.setdefault(name, loaded)
            for protocol in loaded.alpn:
                self._by_alpn.setdefault(protocol.lower(), loaded)

    def _assemble(self, material: KeyMaterial) -> Loaded:
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
        loaded = Loaded(context, verifies, names, config.alpn, verify, demands, trust)
        context.set_app_data(loaded)
        return loaded

    @property
    def plaintext(self) -> bool:
        """Whether no certificate can be used, so that C{fall_back} means plaintext."""
        return not self._usable

    @property
    def differs(self) -> bool:
        """Whether it depends on the context what is demanded of clients."""
        return self._differs

    @property
    def chooses(self) -> bool:
        """Whether a client's first message has a say in which context is used."""
        return len(self._usable) > 1

    def select(self, server_name: str, alpn: Iterable[str]) -> Loaded:
        """
        Choose the context for a client.

        @param server_name: in lower case; empty if it named none.
        @param alpn: the protocols that it offers.
        """
        if server_name and len(server_name) <= _MAX_NAME:
            labels = server_name.split(".")
            candidates = [server_name, *("*." + ".".join(labels[i:]) for i in range(1, len(labels)))]
            # Every context is asked for the exact name before any of them for a wildcard.
            for candidate in candidates:
                if candidate in self._by_name:
                    return self._by_name[candidate]
        for protocol in alpn:
            if protocol.lower() in self._by_alpn:
                return self._by_alpn[protocol.lower()]
        return self._usable[0]

    def connection(self, protocol: Any, loaded: Loaded) -> SSL.Connection:
        """Make the connection object for a client whose context has been chosen."""
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
        # Called by OpenSSL when it has read the client's server name, if any.
        if connection not in self._switchable:
            return
        name = (connection.get_servername() or b"").decode("latin-1").rstrip(".").lower()
        chosen = self.select(name, ())
        if chosen.context is not connection.get_context():
            connection.set_context(chosen.context)
            connection.set_verify(*chosen.verify)

    def reload_if_changed(self) -> bool:
        """
        Make new contexts of those whose files have changed, for new connections.

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


def _names(certificate: x509.Certificate, server_name: str) -> frozenset[str]:
    """The names that choose a server's context: MOSN looks at the common name too."""
    names = {server_name}
    with suppress(ValueError):
        names.update(
            str(name.value) for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        )
        with suppress(x509.ExtensionNotFound):
            alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
            names.update(alternatives.value.get_values_for_type(x509.DNSName))
    return frozenset(name.rstrip(".").lower() for name in names) - {""}


@implementer(IOpenSSLClientConnectionCreator, IReloadable)
class ClientTls:
    """
    TLS towards one server.

    The server's certificate must be signed by an authority of C{ca_cert} (or of
    the system), and carry the name that we want to reach as a subject
    alternative name: an IP address as an IP address, any other name as a DNS
    name, where C{*} stands for one leading label.  The common name counts for
    nothing.  This is checked before our own certificate is shown.

    With C{fingerprint}, the server's certificate must be a certain one; what is said
    above is demanded of it besides if there is C{ca_cert}, and else not.

    @ivar name: the name that is verified: C{server_name}, else the host that is
        dialled.
    @ivar fall_back: whether the configuration asks for plaintext when the
        handshake fails.
    """

    def __init__(
        self,
        config: TlsContextConfig,
        default_name: str,
        where: Place | str = "tls_context",
        wall: Callable[[], float] = wall_time,
    ) -> None:
        """
        @param default_name: the host part of the address that is dialled.
        @param where: the place in the configuration, for messages.
        @param wall: seconds since 1970, for the validity of certificates.
        @raise ConfigError: with everything that is wrong.
        """
        self._config = config
        self._where = _placed(where)
        self.fall_back = config.fall_back
        self._pins = Pins(config.fingerprint) if config.fingerprint else None
        self._by_name = not config.insecure_skip and (self._pins is None or bool(config.ca_cert))
        self._take_name(default_name)
        self._context = TlsContext(config, self._where, self._assemble, False, wall)

    def named(self, default_name: str) -> ClientTls:
        """
        The same for another server, without loading everything once more.

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

    def _assemble(self, material: KeyMaterial) -> Loaded:
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
        loaded = Loaded(context, verifies, frozenset(), config.alpn, verify)
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


def _can_serve(items: Sequence[Dated], now: float) -> bool:
    """Whether the certificates or lists of one key are valid: all of them, but any of several authorities."""
    valid = [item.is_valid(now) for item in items]
    return any(valid) if items and items[0].key == "ca_cert" else all(valid)


def _stamp(path: str) -> _Stamp:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
