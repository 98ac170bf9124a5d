"""
A C{tls_context} as OpenSSL contexts, for servers and for clients.

Contexts are never changed.  When a file has changed, a new one is made for new
connections.
"""

from __future__ import annotations

__all__ = ["Demands", "LoadedContext", "NO_DEMANDS", "TLS_CONTEXT", "TlsContext"]

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from OpenSSL import SSL
from twisted.logger import Logger

from reverseproxy.config.models import TlsContextConfig
from reverseproxy.errors import ConfigError
from reverseproxy.problems import DOCUMENT, Place, Problem
from reverseproxy.tls.material import PEM, KeyMaterial, Verify, openssl_text
from reverseproxy.tls.validity import Dated, Expiry

log = Logger()

_CERTIFICATE_KEYS: Final = frozenset({"cert_chain", "private_key"})

Stamp = tuple[int, int, int, int] | None


class Demands(NamedTuple):
    """
    What a C{tls_context} of a server demands of clients.

    @ivar level: 2 for a certificate, 1 for a good one if there is one, 0 for nothing.
    @ivar ca_cert: the authorities that may have signed it, as configured.
    @ivar crl: the revocation lists that must not have it, as configured.
    """

    level: int = 0
    ca_cert: str = ""
    crl: str = ""

    def covers(self, other: Demands) -> bool:
        """Whether a client that meets these demands also meets others."""
        return not other.level or (self[1:] == other[1:] and self.level >= other.level)


NO_DEMANDS: Final = Demands()


@dataclass(frozen=True, slots=True)
class LoadedContext:
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
    @ivar trust: equal for equal authorities and revocation lists; empty if peers are not verified.
    """

    context: SSL.Context
    verifies: bool
    names: frozenset[str]
    alpn: tuple[str, ...]
    verify: Verify
    demands: Demands = NO_DEMANDS
    trust: bytes = b""


TLS_CONTEXT: Final = DOCUMENT / "tls_context"
"""Where a context is said to be whose place is not given."""


class TlsContext:
    """
    One C{tls_context}, and the OpenSSL context last made from it.

    @ivar place: its place in the configuration.
    @ivar loaded: L{None} if the certificate is unusable and the configuration
        has C{fall_back}.
    """

    def __init__(
        self,
        config: TlsContextConfig,
        where: Place,
        assemble: Callable[[KeyMaterial], LoadedContext],
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
        self.place = where
        self._assemble = assemble
        self._is_server = is_server
        self._wall = wall
        self._expiry = Expiry(())
        self._paths = tuple(
            value
            for value in (config.ca_cert, config.crl, config.cert_chain, config.private_key)
            if value and PEM not in value
        )
        self._failed: tuple[Stamp, ...] | None = None
        # Before the files are read: what changes while they are read counts as a change.
        self._stamps = self._stat()
        self.loaded: LoadedContext | None = None
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

    def _stat(self) -> tuple[Stamp, ...]:
        return tuple(stamp(path) for path in self._paths)

    def _load(self, first: bool = False) -> LoadedContext:
        material = KeyMaterial(self._config, self.place, self._is_server)
        expiry = Expiry(material.dated)
        if first:
            material.warn()
        else:
            self._compare_dates(material, expiry.items)
        if not material.findings.errors:
            try:
                loaded = self._assemble(material)
                self._expiry = expiry
                return loaded
            except SSL.Error as error:
                # What OpenSSL checks only now is the key: it must fit the certificate and be long enough.
                material.report(
                    "cert_chain", f"can't be used together with the private_key: {openssl_text(error)}"
                )
        raise ConfigError(*material.findings.errors)

    def _compare_dates(self, material: KeyMaterial, items: tuple[Dated, ...]) -> None:
        """Report a problem if what was read is not valid now, and what it would replace is."""
        now = self._wall()
        for key in sorted({item.key for item in items}):
            new = [item for item in items if item.key == key]
            old = [item for item in self._expiry.items if item.key == key]
            if can_serve(old, now) and not can_serve(new, now):
                material.report(key, next(item.text(now) for item in new if not item.is_valid(now)))

    def expiring(self) -> list[tuple[Problem, bool]]:
        """
        Return what is about to expire, has expired, or is not valid yet, unless that was reported before.

        @return: each problem, with whether it is so already.
        """
        now = self._wall()
        return [
            (Problem.at(self.place / item.key, item.text(now)), urgent)
            for item, urgent in self._expiry.due(now)
        ]

    @property
    def dated(self) -> list[tuple[str, Dated]]:
        """Everything in use that has a validity, each with its key in the configuration."""
        return [((self.place / item.key).path, item) for item in self._expiry.items]

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
                    where=self.place.path,
                    state="the old certificates stay" if self.loaded is not None else "TLS stays off",
                    reason=str(error),
                )
            return False
        self.loaded, self._stamps, self._failed = loaded, stamps, None
        log.info("{where}: new certificates are in use", where=self.place.path)
        return True


def can_serve(items: Sequence[Dated], now: float) -> bool:
    """Whether the certificates or lists of one key are valid: all of them, but any of several authorities."""
    valid = [item.is_valid(now) for item in items]
    return any(valid) if items and items[0].key == "ca_cert" else all(valid)


def stamp(path: str) -> Stamp:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
