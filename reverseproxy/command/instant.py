"""
A tunnel server and an agent without a file that somebody has written.

What is asked for on the command line becomes a configuration, which is kept in
a directory with the certificate and the tokens, and run as any other.
"""

from __future__ import annotations

__all__ = [
    "Bring",
    "ExposedService",
    "InstantProblem",
    "PublishedService",
    "StateDirectory",
    "fetch_certificate",
    "fingerprint_of",
    "same_fingerprint",
    "state_directory",
]

import hmac
import json
import os
import re
import socket
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from reverseproxy.clock import wall_time
from reverseproxy.command import documents as parts
from reverseproxy.command.tokens import TokenFile, TokenProblem

SERVER_NAME: Final = "tunnel.reverseproxy.internal"
"""The name in certificates that are made here; who has one pinned need not know where the server is."""

FIRST_AGENT: Final = "first"
"""Whose the token is that is made at the first start of a server without services."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
MAX_SOCKET: Final = 100
"""Bytes of the longest path of a Unix socket."""

_DAYS: Final = 3650
_TIMEOUT: Final = 10.0


class InstantProblem(Exception):
    """What is asked for can't be done; the message says why."""


def state_directory() -> Path:
    """Where what is made at a first start is kept, unless somebody says another place."""
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(base) / "reverseproxy"


def fingerprint_of(certificate: x509.Certificate) -> str:
    """What tells a certificate from all others."""
    return f"sha256:{certificate.fingerprint(hashes.SHA256()).hex()}"


@dataclass(frozen=True, slots=True)
class PublishedService:
    """
    A service that a server makes reachable.

    @ivar name: of its cluster, and of the agent that may join it.
    @ivar domains: for HTTP, the domains of its virtual host; empty for TCP.
    @ivar address: for TCP, where clients connect to.
    """

    name: str
    domains: tuple[str, ...] = ()
    address: str = ""

    @classmethod
    def http(cls, text: str) -> PublishedService:
        """
        Read C{NAME} or C{NAME=DOMAIN,DOMAIN}.

        @raise InstantProblem: if it is neither.
        """
        name, _, domains = text.partition("=")
        return cls(_name(name), tuple(each.strip() for each in domains.split(",") if each.strip()) or ("*",))

    @classmethod
    def tcp(cls, text: str) -> PublishedService:
        """
        Read C{NAME=PORT} or C{NAME=HOST:PORT}.

        @raise InstantProblem: if it is neither.
        """
        name, _, where = text.partition("=")
        if not where:
            raise InstantProblem(f"{text}: write NAME=PORT, the port for clients of the service")
        return cls(_name(name), address=where if ":" in where else f"127.0.0.1:{where}")


@dataclass(frozen=True, slots=True)
class ExposedService:
    """
    A service that an agent exposes.

    @ivar name: of the server's cluster.
    @ivar target: C{host:port} or C{unix:/path}.
    @ivar server: the tunnel server, C{host:port}.
    @ivar token_file: where the agent's token is.
    @ivar tcp: whether bytes are relayed, rather than requests of HTTP forwarded.
    @ivar domains: the domains that the server is asked for; if there are none, the
        subdomain of the name.
    @ivar port: the server's port that it is asked for with C{tcp}; 0 for any.
    @ivar admin: the path of a Unix socket for the admin API; empty for none.
    @ivar log: the file for the log.
    """

    name: str
    target: str
    server: str
    token_file: str
    tcp: bool
    domains: tuple[str, ...] = ()
    port: int = 0
    admin: str = ""
    log: str = "stdout"

    @property
    def routes(self) -> dict[str, Any]:
        """What the server is asked for."""
        if self.tcp:
            return {"port": self.port}
        return {"domains": list(self.domains)} if self.domains else {"subdomains": [self.name]}

    def __post_init__(self) -> None:
        """
        Look at the name, which files are called by.

        @raise InstantProblem: if it is none.
        """
        _name(self.name)

    def configuration(self, ca: str, server_name: str) -> dict[str, Any]:
        """
        The agent's configuration.

        @param ca: the file of what the server's certificate is verified by; empty for the system's.
        @param server_name: the name that it must have; empty for the host that is dialled.
        """
        tls: dict[str, Any] = {"status": True, "min_version": "TLSv1_2"}
        tls |= {"ca_cert": ca} if ca else {}
        tls |= {"server_name": server_name} if server_name else {}
        agent = {
            "enable": True,
            "connection_num": 1,
            "cluster": self.name,
            "host_name": self.name,
            "hosting_listener": "exposed",
            "server_list": [self.server],
            "credential_policy": "static",
            "credential_config": {"file": os.path.abspath(self.token_file)},
            "tls_context": tls,
            "routes": self.routes,
        }
        listener = {
            "name": "exposed",
            # Nothing is bound here; it is fed by the agent.
            "address": "127.0.0.1:0",
            "bind_port": False,
            "filter_chains": [{"filters": [parts.tcp("service") if self.tcp else parts.http("web")]}],
        }
        routers = [] if self.tcp else [parts.router("web", [_host(self.name, ("*",), "service")])]
        document = {
            "servers": [{"default_log_path": self.log, "routers": routers, "listeners": [listener]}],
            "extends": [{"type": "tunnel_agent", "config": agent}],
            "cluster_manager": {"clusters": [{"name": "service", "hosts": [{"address": self.target}]}]},
        }
        if self.admin:
            document["admin"] = {"address": {"pipe": {"path": self.admin}}}
        return document


@dataclass(frozen=True, slots=True)
class Bring:
    """
    What agents may bring to a server.

    @ivar zone: the domain that their services are in.
    @ivar ports: a range of ports for TCP; empty for none.
    @ivar address: where those are opened.
    """

    zone: str
    ports: str = ""
    address: str = "127.0.0.1"

    def configuration(self, http_listen: str) -> dict[str, Any]:
        """The C{agent_routes} of the tunnel filter."""
        port = http_listen.rpartition(":")[2]
        return {
            "router": "web",
            "zone": self.zone,
            "url": "http://{domain}/" if port == "80" else f"http://{{domain}}:{port}/",
            "tcp_address": self.address,
            "tcp_ports": [self.ports] if self.ports else [],
        }


class StateDirectory:
    """What is kept from one start to the next, in a directory that its owner alone may read."""

    def __init__(self, directory: Path) -> None:
        """
        @raise InstantProblem: if there can't be such a directory.
        """
        self.directory = directory.absolute()
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise InstantProblem(f"{directory} can't be made: {error.strerror}") from None

    def certificate(self) -> x509.Certificate:
        """
        The server's certificate, which is made if there is none.

        @raise InstantProblem: if it can't be read or written.
        """
        try:
            if not self._path("server.pem").exists():
                chain, key = _make_certificate()
                self._write("server.key", key)
                self._write("server.pem", chain)
            return x509.load_pem_x509_certificate(self._path("server.pem").read_bytes())
        except OSError as error:
            raise InstantProblem(f"{self.directory} can't be used: {error.strerror}") from None
        except ValueError:
            raise InstantProblem(f"{self._path('server.pem')} is no certificate: move it away") from None

    def new_tokens(self, services: Iterable[PublishedService]) -> dict[str, str]:
        """
        Make a token for each service whose agent has none.

        @return: the new ones, by the names of the services.
        @raise InstantProblem: if they can't be kept.
        """
        path = self._path("tokens.json")
        file, made = TokenFile(str(path)), {}
        try:
            known = file.agents() if path.exists() else set()
            for service in services:
                if service.name not in known:
                    made[service.name] = file.add(service.name, [service.name], None, False, None)
        except TokenProblem as problem:
            raise InstantProblem(str(problem)) from None
        return made

    def first_token(self, zone: str, ports: str) -> str | None:
        """
        Make a token for whoever brings services, if nobody has one yet.

        @return: the token; L{None} if there are some.
        @raise InstantProblem: if it can't be kept.
        """
        path = self._path("tokens.json")
        file = TokenFile(str(path))
        try:
            if path.exists() and file.agents():
                return None
            more = {"domains": [f"*.{zone}"], "ports": [ports] if ports else []}
            return file.add(FIRST_AGENT, [], None, False, None, **more, no_cluster=True)
        except TokenProblem as problem:
            raise InstantProblem(str(problem)) from None

    @property
    def tokens(self) -> str:
        """The file of tokens."""
        return str(self._path("tokens.json"))

    def pin(self, name: str, certificate: x509.Certificate) -> str:
        """Keep the only certificate that a server may show; tell the file."""
        self._write(f"{name}-server.pem", certificate.public_bytes(serialization.Encoding.PEM))
        return str(self._path(f"{name}-server.pem"))

    def pinned(self, name: str) -> tuple[str, x509.Certificate] | None:
        """The file of what has been pinned, and the certificate; L{None} if nothing has."""
        path = self._path(f"{name}-server.pem")
        try:
            return str(path), x509.load_pem_x509_certificate(path.read_bytes())
        except (OSError, ValueError):
            return None

    def keep(self, name: str, document: dict[str, Any]) -> str:
        """Write a configuration; tell the file."""
        self._write(f"{name}.json", json.dumps(document, indent=2).encode())
        return str(self._path(f"{name}.json"))

    def server_configuration(
        self, listen: str, http_listen: str, services: Sequence[PublishedService], bring: Bring | None = None
    ) -> dict[str, Any]:
        """
        The server's configuration.

        @param bring: what agents may bring; L{None} for nothing.
        @raise InstantProblem: if two services want the same.
        """
        names = [service.name for service in services]
        wanted = [where for each in services for where in (*each.domains, each.address) if where]
        for each in (*names, *wanted):
            if names.count(each) > 1 or wanted.count(each) > 1:
                raise InstantProblem(f"{each} is wanted by two services")
        if not services and bring is None:
            raise InstantProblem("there is no service: say one with --http NAME or --tcp NAME=PORT")
        tls = {
            "status": True,
            "cert_chain": str(self._path("server.pem")),
            "private_key": str(self._path("server.key")),
            "min_version": "TLSv1_2",
        }
        policy: dict[str, Any] = {
            "credential_policy": "static",
            "validators": {"static": {"file": str(self._path("tokens.json"))}},
        }
        if bring is not None:
            policy["agent_routes"] = bring.configuration(http_listen)
        chain = {"tls_context": tls, "filters": [{"type": "tunnel", "config": policy}]}
        listeners = [parts.listener("tunnels", listen, chain)]
        web = [each for each in services if each.domains]
        routers = []
        if web or bring is not None:
            hosts = [_host(each.name, each.domains, each.name) for each in web]
            if not any("*" in each.domains for each in web):
                hosts.append(_nobody())
            routers = [{**parts.router("web", hosts), "ignore_host_port": True}]
            listeners.append(parts.listener("http", http_listen, {"filters": [parts.http("web")]}))
        listeners += [
            parts.listener(f"tcp-{each.name}", each.address, {"filters": [parts.tcp(each.name)]})
            for each in services
            if each.address
        ]
        document = {
            "servers": [{"default_log_path": "stdout", "routers": routers, "listeners": listeners}],
            "cluster_manager": {
                "clusters": [{"name": name, "type": "SIMPLE", "lb_type": "LB_RANDOM"} for name in names]
            },
        }
        socket = str(self._path("server.sock"))
        if len(socket.encode()) <= MAX_SOCKET:
            document["admin"] = {"address": {"pipe": {"path": socket}}}
        return document

    def _path(self, name: str) -> Path:
        return self.directory / name

    def _write(self, name: str, content: bytes) -> None:
        """Write a file that its owner alone may read, all at once."""
        temporary = self._path(f".{name}.{os.getpid()}")
        try:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(handle, "wb") as file:
                file.write(content)
            os.replace(temporary, self._path(name))
        except OSError as error:
            raise InstantProblem(f"{self._path(name)} can't be written: {error.strerror}") from None


def fetch_certificate(server: str) -> x509.Certificate:
    """
    Look which certificate a server shows; nothing is believed of it yet.

    @raise InstantProblem: if it can't be reached, or speaks no TLS.
    """
    host, _, port = server.rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host.strip("[]"), int(port)), _TIMEOUT) as connection,
            context.wrap_socket(connection, server_hostname=SERVER_NAME) as secure,
        ):
            shown = secure.getpeercert(binary_form=True)
    except (OSError, OverflowError) as error:
        raise InstantProblem(f"{server} can't be asked for its certificate: {error}") from None
    if shown is None:
        raise InstantProblem(f"{server} shows no certificate")
    return x509.load_der_x509_certificate(shown)


def same_fingerprint(certificate: x509.Certificate, fingerprint: str) -> bool:
    """Compare a certificate with what somebody has written, in any case and with or without colons."""
    plain = fingerprint.lower().removeprefix("sha256:").replace(":", "").strip()
    ours = fingerprint_of(certificate).removeprefix("sha256:")
    return hmac.compare_digest(ours.encode(), plain.encode())


def _make_certificate() -> tuple[bytes, bytes]:
    """A certificate that nobody but itself vouches for, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, SERVER_NAME)])
    now = datetime.fromtimestamp(wall_time(), UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # The clock of an agent may be behind.
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(SERVER_NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM), key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise InstantProblem(f"{name!r} is no name of a service: letters, digits, dots, - and _ make one")
    return name


def _nobody() -> dict[str, Any]:
    """What a client gets that asks for a service that there is not."""
    answer = {"status": 404, "body": "There is no service of this name here.\n"}
    rule = {"match": {"prefix": "/"}, "direct_response": answer}
    return {"name": "nobody", "domains": ["*"], "routers": [rule]}


def _host(name: str, domains: Sequence[str], cluster: str) -> dict[str, Any]:
    rule = {"match": {"prefix": "/"}, "route": {"cluster_name": cluster}}
    return {"name": name, "domains": list(domains), "routers": [rule]}
