"""The C{admin} of a configuration: where one can ask, and who may."""

from __future__ import annotations

__all__ = [
    "AdminAddressConfig",
    "AdminCertificateConfig",
    "AdminConfig",
    "PipeConfig",
    "SocketAddressConfig",
]

from typing import Annotated, Final

from pydantic import AfterValidator

from reverseproxy.addresses import is_loopback
from reverseproxy.config._base import Model, key
from reverseproxy.config._tls import TlsContextConfig, enabled
from reverseproxy.config._values import Int, Text, between, is_host, quote, socket_path

ROLES: Final = ("read", "operate")
"""What one may do: look, or change something as well."""


def _ip(value: str) -> str:
    if value and not is_host(value.strip("[]")):
        raise ValueError(f"{quote(value)} is no IP address")
    return value


def _socket(value: str) -> str:
    return socket_path(value) if value else value


SocketPath = Annotated[Text, AfterValidator(_socket)]


class SocketAddressConfig(Model):
    """An IP address and a port."""

    address: Annotated[Text, AfterValidator(_ip)] = key("127.0.0.1", "The IP address to listen at.")
    port_value: Annotated[Int, between(0, 65535)] = key(
        0, "The port. 0 lets the system choose one, which the log says."
    )


class PipeConfig(Model):
    """A Unix socket."""

    path: SocketPath = key("", "The path of the Unix socket to listen at.", required=True)
    mode: Annotated[Int, between(0, 0o777)] = key(
        0o600,
        "The permissions of the socket, as a decimal number. 384, which is 0600, if absent: its owner only.",
    )


class AdminAddressConfig(Model):
    """Where the admin API listens."""

    socket_address: SocketAddressConfig | None = key(None, "An IP address and a port.")
    pipe: PipeConfig | None = key(None, "A Unix socket, instead of a port.")


class AdminCertificateConfig(Model):
    """A client certificate that may use the admin API."""

    name: Text = key(
        "",
        'Whose it is: its subject ("CN=ops,O=Acme") or one of its alternative names ("DNS:ops.example").',
        required=True,
    )
    role: Text = key(
        "read",
        'Its role: "read", or "operate", which also allows changes.',
        choices=ROLES,
        fallback="read",
    )


class AdminConfig(Model):
    """
    The admin API.

    @ivar tls_context: L{None} for plaintext.
    """

    address: AdminAddressConfig | None = key(
        None, "Where to listen. Absent means that there is no admin API."
    )
    tls_context: TlsContextConfig | None = key(
        None,
        "TLS for the admin API. Without it, the API is only reachable from this machine.",
        ours=True,
        protects=True,
    )
    tokens_file: Text = key(
        "",
        "A file (JSON or YAML) with a list of {name, token, role}, for Authorization: Bearer. It is "
        "reloaded when it changes. With it, callers without a token or a certificate are refused.",
        ours=True,
    )
    certificates: tuple[AdminCertificateConfig, ...] = key(
        (), "Client certificates that may use the admin API; tls_context has to verify them.", ours=True
    )

    @property
    def authenticates(self) -> bool:
        """Whether callers have to show who they are."""
        return bool(self.tokens_file or self.certificates)

    @property
    def tls(self) -> TlsContextConfig | None:
        """The C{tls_context}, if it is on."""
        return enabled(self.tls_context)

    @property
    def bound(self) -> str:
        """
        Where to listen, as listeners have it: C{host:port} or C{unix:/path}; empty for nowhere.

        Without TLS and callers that show who they are, it is nowhere that others
        than this machine can reach.
        """
        where = self.address
        if where is None:
            return ""
        if where.pipe is not None:
            return f"unix:{where.pipe.path}"
        if where.socket_address is None:
            return ""
        host = where.socket_address.address
        if not is_loopback(host) and (self.tls is None or not self.authenticates):
            host = "127.0.0.1"
        host = f"[{host.strip('[]')}]" if ":" in host else host
        return f"{host}:{where.socket_address.port_value}"
