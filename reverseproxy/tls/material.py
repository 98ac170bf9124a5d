"""
The contents of one C{tls_context}: read, checked, and put into an OpenSSL context.

What MOSN's configuration asks for is made as good as pyOpenSSL's public
interface allows.  Where that is not everything, a warning says so:

  - C{ecdh_curves}: OpenSSL can be restricted to one curve, which must be one of
    p256, p384 and p521.  The first of these in the list is used alone; a list
    of only x25519 leaves OpenSSL's choice, which prefers x25519, as it is.
    With TLS 1.2 a client takes ECDSA certificates of that curve only.

The oldest TLS version is 1.2 unless the configuration names another one.
Configuring TLS 1.0 or 1.1 also lowers OpenSSL's security level to 0, as
these versions work at no other.

There is no session resumption.  So every peer that must show a certificate
shows it on every connection, and a certificate or an authority that has been
replaced counts from the next connection on.
"""

from __future__ import annotations

__all__ = ["PEM", "KeyMaterial", "Verifier", "Verify", "openssl_text"]

import re
from collections.abc import Callable
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from OpenSSL import SSL
from OpenSSL.crypto import X509, X509StoreFlags
from twisted.logger import Logger

from reverseproxy.config.diagnostics import Diagnostics
from reverseproxy.config.models import TlsContextConfig
from reverseproxy.problems import Place, Problem
from reverseproxy.tls.validity import Dated, of_certificate, of_revocation_list

log = Logger()

Verifier = Callable[[SSL.Connection, X509, int, int, int], bool]
Verify = tuple[int, Verifier | None]
"""OpenSSL's verification flags, and its callback."""

PEM: Final = "-----BEGIN"
"""What tells PEM text from a path."""

MAX_NAMED_AUTHORITIES: Final = 8
"""
A file with more authorities is a bundle of many, such as a system's, some of
which are always about to expire; these are not reported one by one.
"""

_REVOCATION_LIST: Final = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)

_VERSIONS: Final = {
    "TLSv1_0": SSL.TLS1_VERSION,
    "TLSv1_1": SSL.TLS1_1_VERSION,
    "TLSv1_2": SSL.TLS1_2_VERSION,
    "TLSv1_3": SSL.TLS1_3_VERSION,
}
_OLDEST: Final = SSL.TLS1_2_VERSION

_CURVES: Final[dict[str, Callable[[], ec.EllipticCurve]]] = {
    "p256": ec.SECP256R1,
    "p384": ec.SECP384R1,
    "p521": ec.SECP521R1,
}

_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""What is used up to TLS 1.2 where the configuration names nothing."""

_OLD_CIPHERS: Final = f"{_CIPHERS}:ECDHE+AES:AES128-SHA:AES256-SHA"
"""The same where TLS 1.0 or 1.1 is configured, which know none of those."""


class KeyMaterial:
    """
    The contents of one C{tls_context}, checked piece by piece.

    @ivar findings: everything that is wrong.
    @ivar authorities: those that peers are verified against; L{None} for the system's.
    @ivar revocations: the lists of what these have revoked.
    """

    def __init__(self, config: TlsContextConfig, where: Place, is_server: bool) -> None:
        """
        @param where: the place in the configuration, for messages.
        @param is_server: whether a missing certificate is a mistake.
        """
        self.config = config
        self._where = where
        self.findings = Diagnostics()
        self.authorities = self._authorities()
        self.revocations = self._revocations(config.verify_client if is_server else not config.insecure_skip)
        self.chain, self.key = self._certificate(is_server)
        self.oldest, self.newest = self._versions()
        self.ciphers = self._ciphers()
        self.curve = self._curve()

    def report(self, key: str, message: str) -> None:
        """Report a problem with the value of a key."""
        label = f"{key} {_describe(getattr(self.config, key))}".rstrip()
        self.findings.add(Problem.at(self._where / key, f"{label}: {message}"))

    def _read(self, key: str) -> bytes | None:
        """Return the content of a file, or the PEM text itself; L{None} if a problem was reported."""
        value: str = getattr(self.config, key)
        if PEM in value:
            return value.encode()
        try:
            with open(value, "rb") as file:
                return file.read()
        except (OSError, ValueError) as error:
            self.report(key, f"can't be read: {getattr(error, 'strerror', None) or error}")
            return None

    def _certificates(self, key: str) -> list[x509.Certificate]:
        data = self._read(key)
        if data is not None:
            try:
                return x509.load_pem_x509_certificates(data)
            except ValueError as error:
                self.report(key, f"no certificate in it can be read: {error}")
        return []

    def _authorities(self) -> list[x509.Certificate] | None:
        return self._certificates("ca_cert") if self.config.ca_cert else None

    def _revocations(self, verifies: bool) -> list[x509.CertificateRevocationList]:
        if not self.config.crl:
            return []
        if not verifies:
            self.report("crl", "has no effect unless peers are verified, see verify_client and insecure_skip")
            return []
        data = self._read("crl")
        if data is None:
            return []
        found = _REVOCATION_LIST.findall(data)
        if not found:
            self.report("crl", "there is no revocation list in it; they begin with -----BEGIN X509 CRL-----")
        try:
            return [x509.load_pem_x509_crl(pem) for pem in found]
        except ValueError as error:
            self.report("crl", f"a revocation list in it can't be read: {error}")
            return []

    @property
    def dated(self) -> tuple[Dated, ...]:
        """The validity of everything that was read."""
        authorities = self.authorities or []
        return (
            *(of_certificate(each, "cert_chain") for each in self.chain),
            *(
                of_certificate(each, "ca_cert")
                for each in authorities
                if len(authorities) <= MAX_NAMED_AUTHORITIES
            ),
            *(of_revocation_list(each, "crl") for each in self.revocations),
        )

    def _certificate(self, needed: bool) -> tuple[list[x509.Certificate], Any]:
        config = self.config
        if not config.cert_chain or not config.private_key:
            if needed:
                missing = "private_key" if config.cert_chain else "cert_chain"
                self.report(missing, "missing; TLS needs a certificate and its key, unless fall_back is set")
            return [], None
        chain = self._certificates("cert_chain")
        data = self._read("private_key")
        if data is not None:
            try:
                return chain, load_pem_private_key(data, None)
            except TypeError:
                self.report("private_key", "is encrypted; store it without a passphrase")
            except (ValueError, UnsupportedAlgorithm) as error:
                self.report("private_key", f"no private key in it can be read: {error}")
        return [], None

    def _version(self, key: str) -> int | None:
        value = getattr(self.config, key)
        if value == "TLS_AUTO":
            return None
        if value not in _VERSIONS:
            self.report(key, f"not a TLS version; allowed are TLS_AUTO, {', '.join(_VERSIONS)}")
        return _VERSIONS.get(value)

    def _versions(self) -> tuple[int, int]:
        newest = self._version("max_version") or SSL.TLS1_3_VERSION
        oldest = self._version("min_version") or min(_OLDEST, newest)
        if oldest > newest:
            self.report("min_version", f"newer than max_version {self.config.max_version}")
        return oldest, newest

    def _ciphers(self) -> str:
        config = self.config
        old = self.oldest < _OLDEST
        level = ":@SECLEVEL=0" if old else ""
        if not config.cipher_suites:
            return (_OLD_CIPHERS if old else _CIPHERS) + level
        names = [name for name in config.openssl_ciphers.split(":") if name]
        for name in names:
            if name not in _known_ciphers():
                self.report("cipher_suites", f"OpenSSL knows no suite {name} up to TLS 1.2")
        if not names:
            # Only suites of TLS 1.3 were named, or ones that are too weak.
            if self.newest < SSL.TLS1_3_VERSION:
                self.report("cipher_suites", "leaves no suite, as max_version is below TLS 1.3")
            self.oldest = SSL.TLS1_3_VERSION
            return _CIPHERS
        return ":".join(names) + level

    def _curve(self) -> ec.EllipticCurve | None:
        curves = self.config.ecdh_curves
        for name in curves:
            if name not in _CURVES and name != "x25519":
                self.report("ecdh_curves", f"no curve {name}; allowed are x25519, {', '.join(_CURVES)}")
        return next((_CURVES[name]() for name in curves if name in _CURVES), None)

    def warn(self) -> None:
        """Log where less is done than the configuration asks for."""
        curves = self.config.ecdh_curves
        usable = [name for name in curves if name in _CURVES]
        if len(curves) > 1 and usable:
            log.warn(
                "{where}.ecdh_curves: only one curve can be set: {curve} is used alone",
                where=self._where.path,
                curve=usable[0],
            )
        elif curves and not usable:
            log.warn(
                "{where}.ecdh_curves: OpenSSL's own choice is used, which prefers x25519",
                where=self._where.path,
            )

    @property
    def trust(self) -> bytes:
        """A text that is equal for equal authorities and revocation lists; empty for those of the system."""
        if self.authorities is None:
            return b""
        digest = sha256()
        for certificate in self.authorities:
            digest.update(certificate.public_bytes(Encoding.DER))
        for revocations in self.revocations:
            digest.update(revocations.public_bytes(Encoding.DER))
        return digest.digest()

    def context(self, method: int, verify: Verify, verifies: bool) -> SSL.Context:
        """
        Make a context with the settings that servers and clients have in common.

        @param verifies: whether peers are verified, so that authorities count.
        @raise SSL.Error: if OpenSSL does not take the certificate or the key.
        """
        context = SSL.Context(method)
        context.set_min_proto_version(self.oldest)
        context.set_max_proto_version(self.newest)
        context.set_options(
            SSL.OP_NO_COMPRESSION | SSL.OP_NO_TICKET | SSL.OP_CIPHER_SERVER_PREFERENCE | _no_renegotiation()
        )
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        # OpenSSL refuses clients that try to resume a session unless this is set.
        context.set_session_id(b"reverseproxy")
        # An idle connection gives back 34 KB, which counts where thousands are held.
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        context.set_cipher_list(self.ciphers.encode())
        if self.curve is not None:
            context.set_tmp_ecdh(self.curve)
        if self.chain:
            context.use_certificate(self.chain[0])
            for certificate in self.chain[1:]:
                context.add_extra_chain_cert(certificate)
            context.use_privatekey(self.key)
            context.check_privatekey()
        if verifies and self.authorities is None:
            context.set_default_verify_paths()
        elif self.authorities is not None:
            store = context.get_cert_store()
            assert store is not None
            for certificate in self.authorities:
                store.add_cert(X509.from_cryptography(certificate))
        if self.revocations:
            store = context.get_cert_store()
            assert store is not None
            for revocations in self.revocations:
                store.add_crl(revocations)
            # Of the whole chain: certificates of a revoked intermediate authority are refused.
            store.set_flags(X509StoreFlags.CRL_CHECK | X509StoreFlags.CRL_CHECK_ALL)
        context.set_verify(*verify)
        return context


def _describe(value: Any) -> str:
    """Return a value of the configuration as text, but never a private key."""
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value) if len(value) < 256 and "\n" not in value and PEM not in value else "(text)"


@lru_cache(maxsize=1)
def _known_ciphers() -> frozenset[str]:
    """The suites up to TLS 1.2 that authenticate the server and encrypt."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    context.set_cipher_list(b"ALL:!aNULL:!eNULL:!PSK:!SRP:@SECLEVEL=0")
    names = SSL.Connection(context, None).get_cipher_list()
    return frozenset(name for name in names if not name.startswith("TLS_"))


def _no_renegotiation() -> int:
    # OpenSSL before 3 lets clients renegotiate, which no code here expects.
    return int(getattr(SSL, "OP_NO_RENEGOTIATION", 0))


def openssl_text(error: SSL.Error) -> str:
    """Return OpenSSL's message, without its file and function names."""
    queue = error.args[0] if error.args else ()
    if isinstance(queue, (list, tuple)):
        reasons = [str(entry[-1]) for entry in queue if entry]
        return "; ".join(dict.fromkeys(reason for reason in reasons if reason)) or "no reason given"
    return " ".join(str(part) for part in error.args)
