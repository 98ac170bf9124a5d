"""C{fleet}: servers that forward requests to each other's agents."""

from __future__ import annotations

__all__ = ["FleetConfig", "PeerCertificateConfig", "PeersConfig", "check_fleet"]

import re
from collections.abc import Collection, Iterator
from typing import Annotated, ClassVar, Final

from pydantic import AfterValidator

from reverseproxy.addresses import is_loopback, split_host_port
from reverseproxy.config._base import Model, key
from reverseproxy.config._etcd import EtcdConfig, check_etcd
from reverseproxy.config._listeners import AccessLogConfig, FilterChainConfig, ListenerConfig
from reverseproxy.config._nodes import Location
from reverseproxy.config._tls import TlsContextConfig, enabled
from reverseproxy.config._tree import Tree
from reverseproxy.config._values import HostPort, Text, quote, split_address
from reverseproxy.config.diagnostics import Diagnostics

_PLACE: Final[Location] = ("fleet",)
_PEERS: Final[Location] = ("fleet", "peers")

_SERVER_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}")

_ANY: Final = ("0.0.0.0", "::", "")  # noqa: S104 - to be refused where peers could not dial it


LINKS: Final = "fleet"
"""The name of the listener for links from other servers."""


def _server_id(value: str) -> str:
    if value and _SERVER_ID.fullmatch(value) is None:
        raise ValueError(
            f"{quote(value)} is no id of a server; write up to 64 letters, digits, dots, hyphens and "
            "underscores, beginning with a letter or digit"
        )
    return value


def _fingerprint(value: str) -> str:
    found = value.lower().replace(":", "")
    if value and _FINGERPRINT.fullmatch(found) is None:
        raise ValueError(f"{quote(value)} is no SHA-256 fingerprint of a certificate: 64 hexadecimal digits")
    return found


def _listen(value: str) -> str:
    host, _ = split_address(value)
    if not host:
        raise ValueError(f'{quote(value)} has no host; write "host:port"')
    return value


Listen = Annotated[Text, AfterValidator(_listen)]
ServerId = Annotated[Text, AfterValidator(_server_id)]


class PeerCertificateConfig(Model):
    """A server of the fleet that is known by the fingerprint of its certificate."""

    strict_keys = True

    server_id: ServerId = key("", "The server's id.", required=True, ours=True)
    fingerprint: Annotated[Text, AfterValidator(_fingerprint)] = key(
        "",
        "The SHA-256 fingerprint of its certificate, in hexadecimal digits, as openssl x509 -fingerprint "
        "-sha256 prints it.",
        required=True,
        ours=True,
        protects=True,
    )


class PeersConfig(Model):
    """
    The links between servers.

    @cvar listener_name: the name of the listener for links from other servers.
    """

    strict_keys = True
    listener_name: ClassVar[str] = LINKS

    address: Listen = key(
        "",
        'Where this server takes links of others: "host:port", to listen at. The port 0 lets the system '
        "choose one, of which the others hear.",
        required=True,
        ours=True,
    )
    advertised_address: HostPort | None = key(
        None,
        "Where others dial it, if that is not the same: behind a NAT, or if it listens at 0.0.0.0.",
        ours=True,
    )
    tls_context: TlsContextConfig | None = key(
        None,
        "TLS for links, for both of their ends: cert_chain and private_key of this server, and the ca_cert "
        "by which servers of this fleet know each other. Certificates are always demanded and verified, and "
        "have the id of their server in an alternative name, URI:reverseproxy://server/ID, so that an "
        "agent's certificate is never accepted as a server's. Without tls_context, links are only possible "
        "within one machine.",
        ours=True,
        protects=True,
    )
    certificates: tuple[PeerCertificateConfig, ...] = key(
        (), "Servers whose certificates do not have their ids in them, by fingerprint.", ours=True
    )
    access_logs: tuple[AccessLogConfig, ...] = key(
        (),
        "Where to write a line for each request or session that another server has forwarded to an agent of "
        "this one; as access_logs of a listener.",
        ours=True,
    )

    @property
    def tls(self) -> TlsContextConfig | None:
        """The C{tls_context}, if it is on."""
        return enabled(self.tls_context)

    @property
    def listener(self) -> ListenerConfig:
        """The configuration of the listener for links from other servers."""
        contexts = () if self.tls is None else (self.tls,)
        return ListenerConfig(
            name=LINKS,
            address=self.address,
            bind_port=True,
            filter_chains=(FilterChainConfig(tls_context_set=contexts),),
        )

    @property
    def advertised(self) -> str:
        """The address that other servers dial."""
        return self.advertised_address or self.address

    @property
    def pins(self) -> dict[str, str]:
        """The fingerprints of certificates, by the ids of servers."""
        return {each.server_id: each.fingerprint for each in self.certificates}


class FleetConfig(Model):
    """A fleet of servers, each of which reaches the agents of all."""

    strict_keys = True

    server_id: ServerId = key(
        "",
        "What this server is called: another one for each server, and the same after a restart. It takes a "
        "restart to change that.",
        required=True,
        ours=True,
    )
    etcd: EtcdConfig | None = key(None, "The etcd that has the directory.", required=True, ours=True)
    peers: PeersConfig | None = key(None, "The links between servers.", required=True, ours=True)
    agents_addresses: tuple[HostPort, ...] = key(
        (),
        "Where agents dial this server, for those that look for servers in etcd (the server lister etcd). "
        "None of them finds this server there if it is empty.",
        ours=True,
    )


def check_fleet(
    fleet: FleetConfig | None, tree: Tree, findings: Diagnostics, listeners: Collection[str] = ()
) -> None:
    """
    Check keys that depend on others.

    @param fleet: the model, without the values that are wrong by themselves.
    @param tree: the document.
    @param findings: gets errors and warnings.
    @param listeners: the names of listeners.
    """
    if fleet is None or tree.get(_PLACE) is None:
        return
    if LINKS in listeners:
        findings.error(
            tree.locate(_PLACE),
            f"a listener is called {quote(LINKS)}, as the one for other servers is: call it differently",
        )
    check_etcd(fleet.etcd, tree, findings)
    for location, problem in _peer_problems(fleet.peers):
        findings.error(tree.locate(location), problem)


def _peer_problems(peers: PeersConfig | None) -> Iterator[tuple[Location, str]]:
    if peers is None:
        return
    yield from _address_problems(peers)
    ids = [each.server_id for each in peers.certificates]
    for number, server in enumerate(ids):
        if server in ids[:number]:
            yield (*_PEERS, "certificates", number, "server_id"), f"{quote(server)} is there more than once"
    yield from _tls_problems(peers)


def _address_problems(peers: PeersConfig) -> Iterator[tuple[Location, str]]:
    """Check the addresses of this server's links."""
    if peers.address:
        host, _ = split_host_port(peers.address)
        advertised = split_host_port(peers.advertised)
        if advertised[0].strip("[]") in _ANY:
            yield (
                (*_PEERS, "advertised_address"),
                f"others can't dial {quote(peers.advertised)}: write what they can",
            )
        if peers.tls is None and not is_loopback(host):
            yield (
                (*_PEERS, "tls_context"),
                f"others than this machine could reach the links at {quote(peers.address)}, and use every "
                "agent: write status: true, ca_cert, cert_chain and private_key; or listen at 127.0.0.1",
            )


def _tls_problems(peers: PeersConfig) -> Iterator[tuple[Location, str]]:
    """Check the certificates by which servers authenticate each other."""
    tls = peers.tls
    if tls is None:
        return
    for name in ("ca_cert", "cert_chain", "private_key"):
        if not getattr(tls, name):
            yield (*_PEERS, "tls_context", name), "is missing: both ends of a link show a certificate"
    for name in ("insecure_skip", "fall_back"):
        if getattr(tls, name):
            yield (*_PEERS, "tls_context", name), "would let anybody be a server of this fleet"
