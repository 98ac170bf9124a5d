"""The C{tls_context} of listeners, clusters and tunnel agents."""

from __future__ import annotations

__all__ = [
    "CIPHER_SUITES",
    "CURVES",
    "DROPPED_CIPHER_SUITES",
    "KNOWN_ALPN",
    "TLS_VERSIONS",
    "TlsContextConfig",
    "enabled",
]

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator

from reverseproxy.config._base import Model, key
from reverseproxy.config._values import Bool, Free, Text, ValueKind, quote

TLS_VERSIONS: Final = ("TLS_AUTO", "TLSv1_0", "TLSv1_1", "TLSv1_2", "TLSv1_3")
"""Oldest first, after C{TLS_AUTO}, which leaves the choice to the default."""

CURVES: Final = ("x25519", "p256", "p384", "p521")
KNOWN_ALPN: Final = ("h2", "http/1.1", "sofa")

CIPHER_SUITES: Final[Mapping[str, str]] = {
    "ECDHE-ECDSA-AES256-GCM-SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-WITH-CHACHA20-POLY1305": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-WITH-CHACHA20-POLY1305": "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-RSA-AES256-CBC-SHA": "ECDHE-RSA-AES256-SHA",
    "ECDHE-RSA-AES128-CBC-SHA": "ECDHE-RSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-CBC-SHA": "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-ECDSA-AES128-CBC-SHA": "ECDHE-ECDSA-AES128-SHA",
    "RSA-AES256-CBC-SHA": "AES256-SHA",
    "RSA-AES128-CBC-SHA": "AES128-SHA",
}
"""
OpenSSL's names of cipher suites by MOSN's (C{ciphersMap} in its C{pkg/mtls/ciphers.go}).
OpenSSL's own names are accepted, too.
"""

DROPPED_CIPHER_SUITES: Final[Mapping[str, str]] = {
    "AES256-GCM-SHA384": "it is one of TLS 1.3, which can't be chosen",
    "AES128-GCM-SHA256": "it is one of TLS 1.3, which can't be chosen",
    "ECDHE-RSA-3DES-EDE-CBC-SHA": "3DES is too weak",
    "RSA-3DES-EDE-CBC-SHA": "3DES is too weak",
}
"""
Cipher suites of MOSN's that are left out, and why.

The first two are names that OpenSSL has for something else; in MOSN's table
they stand for suites of TLS 1.3, which Go does not let anyone choose.
"""


def _comma_list(value: Any) -> Any:
    """Split a comma-separated text; an empty one is an empty list."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _lower_list(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(value.lower() for value in values)


def _version(value: str) -> str:
    """Normalize the case of a version; unknown ones are returned unchanged."""
    known = {version.lower(): version for version in TLS_VERSIONS}
    return known.get(value.lower(), value) or TLS_VERSIONS[0]


_HEX: Final = frozenset("0123456789abcdef")
_DIGITS: Final = 64
"""Hexadecimal digits of a SHA-256."""


def _fingerprints(values: tuple[str, ...]) -> tuple[str, ...]:
    """Normalize fingerprints to 64 hexadecimal digits."""
    return tuple(map(_fingerprint, values))


def _fingerprint(text: str) -> str:
    digits = text.strip().lower().removeprefix("sha256:").replace(":", "")
    if len(digits) != _DIGITS or not _HEX.issuperset(digits):
        raise ValueError(
            f'{quote(text)} is not the fingerprint of a certificate; write "sha256:" and {_DIGITS} '
            "hexadecimal digits, of the SHA-256 of its DER form"
        )
    return digits


CommaList = Annotated[tuple[Text, ...], BeforeValidator(_comma_list), ValueKind("text")]
Version = Annotated[Text, AfterValidator(_version)]


class TlsContextConfig(Model):
    """
    TLS on one leg; servers and clients share the keys.

    @ivar status: nothing else counts unless this is true.
    @ivar ecdh_curves: in lower case.
    @ivar min_version: one of L{TLS_VERSIONS}, as is C{max_version}.
    """

    status: Bool = key(False, "Whether TLS is on. Unless it is true, all other keys are ignored.")
    type: Text = key(
        "",
        "Name of a verification extension.",
        acted=False,
        protects=True,
        why="there are no extensions that verify certificates: they would be verified as usual",
    )
    server_name: Text = key(
        "",
        "On a client: the name that is sent (SNI), and that the server's certificate must carry as a subject "
        "alternative name; an IP address needs an IP entry there. On a server: one more name for which this "
        "certificate is chosen.",
    )
    ca_cert: Text = key(
        "",
        "Certificates that peers are verified against: a path relative to the working directory, or PEM "
        "text. On a client, empty means the system's certificates.",
        protects=True,
    )
    fingerprint: Annotated[CommaList, AfterValidator(_fingerprints)] = key(
        (),
        'On a client: which certificate the server must show, as "sha256:" and the 64 digits of its SHA-256, '
        "or several, separated by commas, to change it without a gap. Then it counts for nothing who has "
        "signed it, how long it is valid and which name it has; but with ca_cert, all of that counts too.",
        ours=True,
        protects=True,
    )
    crl: Text = key(
        "",
        "Lists of revoked certificates: a path or PEM text, with the list of each authority in a peer's "
        "chain, or none of its certificates is taken. On a server it needs verify_client. Read again when "
        "the file changes: agents that are on it lose their connections, others that are open stay.",
        ours=True,
        protects=True,
    )
    cert_chain: Text = key(
        "", "Our certificate and the intermediate ones after it: a path or PEM text, as private_key is."
    )
    private_key: Text = key(
        "", "The private key of our certificate: a path or PEM text, as cert_chain is.", secret=True
    )
    verify_client: Bool = key(
        False,
        "On a server: verify a client's certificate if it sends one. Together with require_client_cert: "
        "demand one and verify it.",
        protects=True,
    )
    require_client_cert: Bool = key(
        False,
        "On a server: ask clients for a certificate. Without verify_client it is neither verified nor "
        "insisted on.",
        protects=True,
    )
    insecure_skip: Bool = key(False, "On a client: do not verify the server's certificate at all.")
    cipher_suites: Text = key(
        "",
        f"Cipher suites up to TLS 1.2, separated by colons: {', '.join(CIPHER_SUITES)}; OpenSSL's names of "
        "the same suites are taken too. Those of TLS 1.3 can't be chosen.",
    )
    ecdh_curves: Annotated[CommaList, AfterValidator(_lower_list)] = key(
        (),
        f"Curves, separated by commas: {', '.join(CURVES)}; in any case. Only one can be set: the first of "
        "p256, p384 and p521. x25519 is preferred where none of them is given.",
    )
    min_version: Version = key(
        TLS_VERSIONS[0],
        f"The oldest TLS version: {', '.join(TLS_VERSIONS)}, in any case. TLS_AUTO is TLS 1.2, or "
        "max_version if that is older; MOSN's is TLS 1.0.",
    )
    max_version: Version = key(
        TLS_VERSIONS[0],
        f"The newest TLS version: {', '.join(TLS_VERSIONS)}, in any case. TLS_AUTO is TLS 1.3.",
    )
    alpn: CommaList = key(
        (),
        f"Protocols to negotiate, separated by commas: {', '.join(KNOWN_ALPN)}. Others are dropped with a "
        "warning.",
    )
    ticket: Text = key(
        "",
        "A session ticket key.",
        acted=False,
        quiet=True,
        secret=True,
        why="not acted on, as in MOSN: keys of session tickets are made at the start",
    )
    fall_back: Bool = key(
        False,
        "On a server: speak plaintext if the certificate is missing or bad. In a cluster: connect in "
        "plaintext if the handshake fails. Tunnel agents never fall back.",
    )
    extend_verify: Free = key(
        None,
        "Options of a verification extension.",
        acted=False,
        protects=True,
        why="there are no extensions that verify certificates: they would be verified as usual",
    )
    callbacks: Free = key(
        None,
        "Extensions to be called at handshakes.",
        acted=False,
        protects=True,
        why="there are no extensions that are called at handshakes",
    )
    sds_source: Free = key(
        None,
        "A secret discovery service to take certificates from.",
        acted=False,
        protects=True,
        why="certificates, and what peers are verified against, can't be had from a secret discovery service",
    )

    @property
    def openssl_ciphers(self) -> str:
        """The C{cipher_suites} by OpenSSL's names, without L{DROPPED_CIPHER_SUITES}."""
        names = (name for name in self.cipher_suites.split(":") if name not in DROPPED_CIPHER_SUITES)
        return ":".join(CIPHER_SUITES.get(name, name) for name in names if name)


def enabled(context: TlsContextConfig | None) -> TlsContextConfig | None:
    """Return the context if it enables TLS, else L{None}."""
    return context if context is not None and context.status else None
