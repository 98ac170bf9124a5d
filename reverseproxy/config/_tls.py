"""The C{tls_context} of listeners, clusters and tunnel agents."""

from __future__ import annotations

__all__ = ["CURVES", "KNOWN_ALPN", "TLS_VERSIONS", "TlsContextConfig", "enabled"]

from typing import Annotated, Any, Final

from pydantic import BeforeValidator

from reverseproxy.config._base import Bool, Free, Model, Text, key

TLS_VERSIONS: Final = ("TLS_AUTO", "TLSv1_0", "TLSv1_1", "TLSv1_2", "TLSv1_3")
CURVES: Final = ("x25519", "p256", "p384", "p521")
KNOWN_ALPN: Final = ("h2", "http/1.1", "sofa")


def _comma_list(value: Any) -> Any:
    """Take a comma-separated text apart; an empty one is an empty list."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


CommaList = Annotated[tuple[Text, ...], BeforeValidator(_comma_list)]


class TlsContextConfig(Model):
    """
    How to speak TLS on one leg; the same keys serve for servers and clients.

    @ivar status: nothing else counts unless this is true.
    """

    status: Bool = key(False, "Whether TLS is on. Unless it is true, all other keys are ignored.")
    type: Text = key(
        "",
        "Name of a verification extension.",
        acted=False,
        why="there are no verification extensions; the default verification is used",
    )
    server_name: Text = key(
        "",
        "On a client: the name that is sent (SNI) and that the server's certificate must carry as a subject "
        "alternative name; an IP address needs an IP entry. On a server: one more name that selects this "
        "certificate.",
    )
    ca_cert: Text = key(
        "",
        "Certificates that peers are verified against: a path relative to the working directory, or PEM text. "
        "On a client, empty means the system's certificates.",
    )
    cert_chain: Text = key(
        "",
        "Our certificate, followed by intermediate ones: a path or PEM text, in the same way as private_key.",
    )
    private_key: Text = key(
        "",
        "The private key of our certificate: a path or PEM text, in the same way as cert_chain.",
        secret=True,
    )
    verify_client: Bool = key(
        False,
        "On a server: verify a client's certificate if it sends one; with require_client_cert, demand one.",
    )
    require_client_cert: Bool = key(
        False,
        "On a server: ask clients for a certificate. Without verify_client it is neither verified nor insisted on.",
    )
    insecure_skip: Bool = key(False, "On a client: do not verify the server's certificate at all.")
    cipher_suites: Text = key(
        "", "Cipher suites up to TLS 1.2, separated by colons. TLS 1.3 has its own, which can't be chosen."
    )
    ecdh_curves: CommaList = key((), f"Curves, separated by commas: {', '.join(CURVES)}; in any case.")
    min_version: Text = key(
        "TLS_AUTO", f"The oldest TLS version: {', '.join(TLS_VERSIONS)}, in any case; TLS_AUTO is TLS 1.0."
    )
    max_version: Text = key(
        "TLS_AUTO",
        f"The newest TLS version, in the same way; TLS_AUTO is TLS 1.3.",  # noqa: F541
    )
    alpn: CommaList = key(
        (),
        f"Protocols to negotiate, separated by commas: {', '.join(KNOWN_ALPN)}. Others are dropped with a warning.",
    )
    ticket: Text = key(
        "", "A session ticket key.", acted=False, secret=True, why="MOSN does not act on it either"
    )
    fall_back: Bool = key(
        False,
        "On a server: speak plaintext if the certificate is missing or bad. On the client of a cluster: reconnect "
        "in plaintext if the handshake fails. Tunnel agents never fall back.",
    )
    extend_verify: Free = key(None, "Options of a verification extension.", acted=False)
    callbacks: Free = key(None, "Names of callbacks.", acted=False)
    sds_source: Free = key(None, "A secret discovery service to take certificates from.", acted=False)


def enabled(context: TlsContextConfig | None) -> TlsContextConfig | None:
    """The context if it turns TLS on, else L{None}."""
    return context if context is not None and context.status else None
