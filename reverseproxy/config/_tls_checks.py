"""Checks of TLS contexts that concern several keys."""

from __future__ import annotations

__all__ = ["NamingChecker", "TlsChecker"]

from pathlib import Path
from typing import Final

from reverseproxy.config._checker import Checker
from reverseproxy.config._named import Names
from reverseproxy.config._nodes import Location, unsupported
from reverseproxy.config._tls import (
    CIPHER_SUITES,
    CURVES,
    DROPPED_CIPHER_SUITES,
    KNOWN_ALPN,
    TLS_VERSIONS,
    TlsContextConfig,
)
from reverseproxy.config._tree import Tree
from reverseproxy.config._values import quote
from reverseproxy.config.diagnostics import Diagnostics
from reverseproxy.config.models import Config

_PEM: Final = "-----BEGIN"


class TlsChecker(Checker):
    """Checks TLS contexts of all parts of a configuration."""

    def without_status(self) -> None:
        """Warn of TLS contexts without C{status}, which were perhaps meant to be enabled."""
        for node in self._nodes(self._tree.root):
            if node.model is TlsContextConfig and node and "status" not in node and not node.lost:
                self._findings.warn(node.place, "TLS is off, because status is not true")

    def server(self, location: Location, context: TlsContextConfig) -> None:
        """Check a context for a server."""
        if not context.status:
            return
        if context.fingerprint:
            self._error(
                (*location, "fingerprint"), "is for clients; here, ca_cert says whose certificates are good"
            )
        self._tls(location, context, certificate_may_fail=context.fall_back)
        if not context.cert_chain and not context.private_key:
            if context.fall_back:
                self._warn(location, "has no certificate: plaintext is spoken, because fall_back is true")
            else:
                self._error(
                    location, "has no certificate; write cert_chain and private_key, or set fall_back to true"
                )
        if context.verify_client and not context.ca_cert:
            self._warn(
                (*location, "verify_client"),
                "without ca_cert, certificates of clients are verified against the system's",
            )

    def client(self, location: Location, context: TlsContextConfig) -> None:
        """Check a context for a client."""
        self._tls(location, context, certificate_may_fail=False)
        if context.insecure_skip:
            self._warn(
                (*location, "insecure_skip"), "the server is not verified: anyone on the way can be it"
            )
        if context.fingerprint:
            self._pinned(location, context)

    def _pinned(self, location: Location, context: TlsContextConfig) -> None:
        if context.insecure_skip:
            self._error(
                (*location, "fingerprint"),
                "has no effect with insecure_skip, by which no certificate is verified",
            )
        if context.crl and not context.ca_cert:
            self._error(
                (*location, "crl"),
                "has no effect with fingerprint, unless there is ca_cert to verify more by",
            )

    def _tls(self, location: Location, context: TlsContextConfig, certificate_may_fail: bool) -> None:
        """Check what servers and clients have in common."""
        for field in ("type", "extend_verify", "callbacks", "sds_source"):
            if getattr(context, field) not in (None, "", [], {}):
                self._tree.unsupported((*location, field), unsupported(TlsContextConfig, field))
        self._pem((*location, "ca_cert"), context.ca_cert, "a certificate", may_fail=False)
        self._pem((*location, "cert_chain"), context.cert_chain, "a certificate", certificate_may_fail)
        self._pem((*location, "private_key"), context.private_key, "a private key", certificate_may_fail)
        self._key_pair(location, context)
        self._cipher_suites((*location, "cipher_suites"), context)
        for curve in context.ecdh_curves:
            if curve not in CURVES:
                self._error(
                    (*location, "ecdh_curves"),
                    f"{quote(curve)} is not a curve; choose from {', '.join(CURVES)}",
                )
        self._versions(location, context)
        for protocol in context.alpn:
            if protocol not in KNOWN_ALPN:
                self._warn(
                    (*location, "alpn"), f"{quote(protocol)} is dropped; known are {', '.join(KNOWN_ALPN)}"
                )

    def _key_pair(self, location: Location, context: TlsContextConfig) -> None:
        """Check that certificate and key are given together, and both as files or both as text."""
        chain, private = context.cert_chain, context.private_key
        for field, other, missing in (
            ("private_key", "cert_chain", bool(chain and not private)),
            ("cert_chain", "private_key", bool(private and not chain)),
        ):
            if missing:
                self._error((*location, field), f"missing key: {other} is given, and each needs the other")
        if chain and private and (_PEM in chain) != (_PEM in private):
            self._error((*location, "private_key"), "and cert_chain must both be paths or both be PEM texts")

    def _versions(self, location: Location, context: TlsContextConfig) -> None:
        """Check the oldest and the newest version of TLS."""
        for field in ("min_version", "max_version"):
            version = getattr(context, field)
            if version not in TLS_VERSIONS:
                self._error(
                    (*location, field),
                    f"{quote(version)} is not a TLS version; choose from {', '.join(TLS_VERSIONS)}",
                )
        versions = (context.min_version, context.max_version)
        if all(version in TLS_VERSIONS[1:] for version in versions) and TLS_VERSIONS.index(
            versions[0]
        ) > TLS_VERSIONS.index(versions[1]):
            self._error((*location, "min_version"), f"{versions[0]} is newer than max_version {versions[1]}")

    def _cipher_suites(self, location: Location, context: TlsContextConfig) -> None:
        names = [name for name in context.cipher_suites.split(":") if name]
        for name in names:
            if name in DROPPED_CIPHER_SUITES:
                self._warn(location, f"{quote(name)} is left out: {DROPPED_CIPHER_SUITES[name]}")
            elif name not in CIPHER_SUITES and name not in CIPHER_SUITES.values():
                self._error(
                    location, f"{quote(name)} is not a cipher suite; choose from {', '.join(CIPHER_SUITES)}"
                )
        if names and all(name in DROPPED_CIPHER_SUITES for name in names):
            self._error(location, "no cipher suite is left")

    def _pem(self, location: Location, value: str, what: str, may_fail: bool) -> None:
        """Require PEM text, or a file with it."""
        if not value or _PEM in value:
            return
        report = self._warn if may_fail else self._error
        suffix = "; plaintext is spoken, because fall_back is true" if may_fail else ""
        # A key that was pasted in without its first line must not be shown.
        shown = quote(value) if len(value) < 120 and value.isprintable() else "the file"
        try:
            content = Path(value).read_bytes()
        except OSError as error:
            report(location, f"{shown} can't be read: {error.strerror}{suffix}")
        except ValueError:
            report(location, f"{shown} is not a path{suffix}")
        else:
            if _PEM.encode() not in content:
                report(location, f"{shown} does not hold {what} in PEM format{suffix}")


class NamingChecker(Checker):
    """The base class of checks of parts that refer to others by name, and have TLS contexts."""

    def __init__(
        self, config: Config, tree: Tree, findings: Diagnostics, names: Names, tls: TlsChecker
    ) -> None:
        super().__init__(config, tree, findings)
        self._names = names
        self._tls_checks = tls
