"""The C{fleet} of a configuration: servers that reach each other's agents, and how these know them."""

from __future__ import annotations

__all__ = ["FleetConfig", "FleetPeerConfig", "check_fleet"]

import re
from typing import Annotated, Final

from pydantic import AfterValidator

from reverseproxy.addresses import host_of, is_loopback
from reverseproxy.config._base import Model, key
from reverseproxy.config._listeners import AccessLogConfig
from reverseproxy.config._tls import TlsContextConfig
from reverseproxy.config._tree import Location, Tree
from reverseproxy.config._values import Text, quote, split_address
from reverseproxy.diagnostics import Diagnostics

_PLACE: Final[Location] = ("fleet",)
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}")
_ANY: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - addresses that can't be dialled


def _id(text: str) -> str:
    if _ID.fullmatch(text) is None:
        raise ValueError(
            f"{quote(text)} is no id of a server: at most 64 letters, digits, dots, hyphens and "
            "underscores, with a letter or a digit in front"
        )
    return text


def _address(text: str) -> str:
    _, port = split_address(text)
    if not 0 <= port < 65536:
        raise ValueError(f"{quote(text)} has no port from 0 to 65535")
    return text


def _fingerprint(text: str) -> str:
    found = text.lower().replace(":", "")
    if _FINGERPRINT.fullmatch(found) is None:
        raise ValueError(f"{quote(text)} is no SHA-256 fingerprint of a certificate: 64 hexadecimal digits")
    return found


ServerId = Annotated[Text, AfterValidator(_id)]
PeerAddress = Annotated[Text, AfterValidator(_address)]
Fingerprint = Annotated[Text, AfterValidator(_fingerprint)]


class FleetPeerConfig(Model):
    """A server of the fleet that is known by the fingerprint of its certificate."""

    strict_keys = True

    server_id: ServerId = key("", "The server's id.", required=True, ours=True)
    fingerprint: Fingerprint = key(
        "",
        "The SHA-256 fingerprint of its certificate, in hexadecimal digits, as openssl x509 -fingerprint "
        "-sha256 prints it.",
        required=True,
        ours=True,
        protects=True,
    )


class FleetConfig(Model):
    """Several servers, each of which reaches the agents of all."""

    strict_keys = True

    server_id: ServerId = key(
        "",
        "What this server is called in the fleet: no other one may be called so, and it is the same after a "
        "restart. Its certificate has it as the alternative name URI:reverseproxy://server/ID.",
        required=True,
        ours=True,
    )
    address: PeerAddress = key(
        "",
        "Where this server listens for the others, such as 10.0.0.5:7443.",
        required=True,
        ours=True,
    )
    advertised_address: PeerAddress | None = key(
        None,
        "Where the others dial it, if that is not where it listens: a name, or what is in front of it.",
        ours=True,
    )
    tls_context: TlsContextConfig | None = key(
        None,
        "TLS between servers, for both directions: cert_chain and private_key of this server, and ca_cert, "
        "which signs servers of this fleet. All of them have to show a certificate. May be absent only where "
        "address is one of this machine alone, for trying things out.",
        ours=True,
        protects=True,
    )
    peers: tuple[FleetPeerConfig, ...] = key(
        (),
        "Servers whose certificates do not have their ids in them, by fingerprint.",
        ours=True,
    )
    access_logs: tuple[AccessLogConfig, ...] = key(
        (),
        "Where to write a line for each request or session that another server has forwarded to an agent of "
        "this one; as access_logs of a listener.",
        ours=True,
    )

    @property
    def dialled(self) -> str:
        """Where the others dial this server; its port may be 0 until it is bound."""
        return self.advertised_address or self.address

    @property
    def pins(self) -> dict[str, str]:
        """Fingerprints by ids of servers."""
        return {each.server_id: each.fingerprint for each in self.peers}


def check_fleet(fleet: FleetConfig | None, tree: Tree, findings: Diagnostics) -> None:
    """
    See to it that nobody gets in between servers.

    @param fleet: the model, without what is wrong by itself.
    @param tree: the document.
    @param findings: where to add what is found.
    """
    if fleet is None or tree.get(_PLACE) is None:
        return

    def error(key_name: str, message: str) -> None:
        findings.error(tree.locate((*_PLACE, *key_name.split("."))), message)

    if fleet.address and not fleet.advertised_address and host_of(fleet.address) in _ANY:
        error(
            "address",
            f"nobody can dial {quote(fleet.address)}: write the address of one interface, or "
            "advertised_address beside it",
        )
    ids = [each.server_id for each in fleet.peers]
    for server in sorted({each for each in ids if ids.count(each) > 1}):
        error("peers", f"{quote(server)} is there more than once")
    tls = fleet.tls_context
    if tls is None or not tls.status:
        if fleet.address and not is_loopback(host_of(fleet.address)):
            error(
                "address",
                f"others than this machine could reach the agents of this server at {quote(fleet.address)}: "
                "write tls_context with status, cert_chain, private_key and ca_cert; or an address such as "
                "127.0.0.1",
            )
        return
    if not tls.ca_cert:
        error(
            "tls_context.ca_cert", "is missing: whom it has signed is a server of this fleet, and nobody else"
        )
    if tls.fall_back:
        error("tls_context.fall_back", "would let others take part in plaintext")
    if tls.insecure_skip:
        error("tls_context.insecure_skip", "would let others take part who are no servers of this fleet")
