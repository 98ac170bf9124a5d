"""
What servers of a fleet publish of themselves and of their hosts; pure.

There is a record for each server, and one for each agent and server, however many
connections the agent keeps: what has to be known to choose it, and no more.  Nothing
that is read is trusted beyond its shape: whoever can write to the store can write
anything.  A record that is none raises L{BadRecord}, and costs itself alone.

Which server a host record belongs to, which cluster and which agent stand in its key,
and nowhere else, so that the two can't disagree.
"""

from __future__ import annotations

__all__ = [
    "MAX_RECORD",
    "RECORD_VERSION",
    "BadRecord",
    "HostKey",
    "HostRecord",
    "RouteKey",
    "RouteRecord",
    "ServerRecord",
    "agent_key",
    "fit",
    "is_server_id",
    "proved",
]

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from reverseproxy.identity import AgentIdentity, CertificateSubject
from reverseproxy.identity.allowance import clean_domain

RECORD_VERSION: Final = 1
"""Which version of records this is; a record that is of a later one may have fields that are left alone."""

MAX_RECORD: Final = 128 * 1024
"""Bytes of a record at the most."""

MAX_SERVER_ID: Final = 64
MAX_ADDRESS: Final = 270
MAX_TEXT: Final = 256
MAX_CLUSTER: Final = 256
MAX_ENTRIES: Final = 32
MAX_NAMES: Final = 16
MAX_WEIGHT: Final = 128
MAX_HANDLE: Final = 32
MAX_DOMAINS: Final = 1000
MAX_COUNT: Final = 1_000_000

MODES: Final = ("plain", "streams")
"""Whether a connection carries one request or session at a time, or many."""

_SERVER_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_AGENT_KEY: Final = re.compile(r"[0-9a-f]{32}")
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


class BadRecord(ValueError):
    """A record, or its key, is not what it should be; the message says where."""


class HostKey(NamedTuple):
    """
    Which agent, of which cluster, at which server.

    @ivar cluster: the cluster's name.
    @ivar agent: see L{agent_key}.
    @ivar server: the server's id.
    """

    cluster: str
    agent: str
    server: str


class RouteKey(NamedTuple):
    """
    Whose routes, at which server.

    @ivar cluster: the name of the agent's cluster.
    @ivar server: the server's id.
    """

    cluster: str
    server: str


def fit(text: str) -> str:
    """Make text that others have written fit for a record: printable, and not too long."""
    return "".join(each if each.isprintable() else "?" for each in text[:MAX_TEXT])


def proved(identity: AgentIdentity | None) -> AgentIdentity | None:
    """What an agent has proved, as records have it, so that it is the same when it is read."""
    if identity is None or not identity.proved:
        return None
    subject = identity.certificate
    certificate = subject and CertificateSubject(
        fit(subject.key), fit(subject.subject), tuple(fit(name) for name in subject.names[:MAX_NAMES])
    )
    return AgentIdentity(fit(identity.name), fit(identity.policy), certificate)


def is_server_id(text: str) -> bool:
    """Whether this may be the id of a server: at most 64 letters, digits, C{.}, C{_} and C{-}."""
    return len(text) <= MAX_SERVER_ID and _SERVER_ID.fullmatch(text) is not None


def agent_key(
    identity: AgentIdentity | None,
    hostname: str,
    remote_ip: str,
    weight: int,
    metadata: Mapping[str, str],
    mode: str,
) -> str:
    """
    Name an agent, the same at every server that it is connected to.

    What an agent says of itself is a part of it: an agent that says two different
    things is two agents here, and these have hosts of their own.  Agents that are
    MOSN's have no id; they are told apart by what they are called, and by the address
    that they come from.

    @param remote_ip: where it comes from, without the port.
    @param mode: one of L{MODES}.
    @return: 32 hexadecimal digits, which tell nobody the agent's id: whoever knows that
        may close the agent's connections.
    """
    found = AgentIdentity() if identity is None else identity
    certificate = "" if found.certificate is None else found.certificate.key
    parts = [
        found.agent_id or f"{hostname}@{remote_ip}",
        found.policy,
        found.name,
        certificate,
        str(weight),
        mode,
        json.dumps(sorted(metadata.items())),
    ]
    return sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class ServerRecord:
    """
    A server of the fleet.

    @ivar id: what it is called; the same after a restart.
    @ivar address: where its peers dial it, C{host:port}.
    @ivar version: of the software.
    @ivar incarnation: another one for each time that it has begun to publish: all of its
        hosts are published before the record that has it.
    @ivar process: another one for each process that has been the server.
    @ivar draining: whether it is about to leave.
    @ivar protocols: versions of the links between servers that it speaks.
    @ivar agents: where agents dial it, each C{host:port}; empty if it does not say.
    """

    id: str
    address: str
    version: str = ""
    incarnation: str = ""
    process: str = ""
    draining: bool = False
    protocols: tuple[int, ...] = (1,)
    agents: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """The record as JSON."""
        found: dict[str, Any] = {
            "v": RECORD_VERSION,
            "address": self.address,
            "version": self.version,
            "incarnation": self.incarnation,
            "process": self.process,
            "draining": self.draining,
            "protocols": list(self.protocols),
        }
        if self.agents:
            found["agents"] = list(self.agents)
        return _dump(found)

    @classmethod
    def decode(cls, server: str, data: bytes) -> ServerRecord:
        """
        Read a record.

        @param server: the id, out of its key.
        @raise BadRecord: if it is none.
        """
        if not is_server_id(server):
            raise BadRecord(f"{_quote(server)} is no id of a server")
        reader = _Reader(data)
        address = reader.text("address", MAX_ADDRESS)
        agents = reader.addresses("agents", MAX_ENTRIES)
        for name, each in (("address", address), *(("agents", each) for each in agents)):
            if not _is_address(each):
                raise BadRecord(f"{name}: {_quote(each)} is not host:port")
        return cls(
            server,
            address,
            reader.text("version", MAX_TEXT),
            reader.text("incarnation", MAX_TEXT),
            reader.text("process", MAX_TEXT),
            reader.boolean("draining"),
            reader.numbers("protocols", MAX_ENTRIES),
            agents,
        )


def _is_address(text: str) -> bool:
    host, colon, port = text.rpartition(":")
    return bool(host and colon and port.isascii() and port.isdecimal() and 0 < int(port[:6]) < 65536)


@dataclass(frozen=True, slots=True)
class HostRecord:
    """
    An agent that is connected to a server, as a host of a cluster.

    @ivar cluster: the cluster's name.
    @ivar agent: see L{agent_key}.
    @ivar server: the id of the server that has its connections.
    @ivar hostname: what the agent calls itself; may be empty.
    @ivar weight: of each connection, as a host; 1 to 128.
    @ivar connections: how many there are.
    @ivar metadata: labels.
    @ivar identity: who it is, as the server has found out; its C{agent_id} is that
        of L{AgentIdentity}: a hash, as the real one is nobody else's business.
    @ivar mode: C{"plain"}, where each connection carries one request or session at a time;
        or C{"streams"}.
    @ivar tells: whether the agent says which requests it has not sent on.
    @ivar well: whether the agent can reach its service, and its server can reach it; judged by that server.
    @ivar handle: its id in the admin API, the same at all servers; empty if it has none.
    """

    cluster: str
    agent: str
    server: str
    hostname: str = ""
    weight: int = 1
    connections: int = 1
    metadata: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    identity: AgentIdentity | None = None
    mode: str = "streams"
    tells: bool = False
    well: bool = True
    handle: str = ""

    @property
    def key(self) -> HostKey:
        """Which agent, at which server."""
        return HostKey(self.cluster, self.agent, self.server)

    @property
    def capacity(self) -> int | None:
        """How many requests it can carry at once; L{None} for any number."""
        return self.connections if self.mode == "plain" else None

    def encode(self) -> bytes:
        """The record as JSON; what is the default is left out."""
        found: dict[str, Any] = {"v": RECORD_VERSION, "weight": self.weight, "connections": self.connections}
        if self.hostname:
            found["hostname"] = fit(self.hostname)
        if self.metadata:
            found["metadata"] = dict(self.metadata)
        if self.identity is not None:
            found["identity"] = _shown(self.identity)
        if self.mode != "streams":
            found["mode"] = self.mode
        if self.tells:
            found["tells"] = True
        if not self.well:
            found["well"] = False
        if self.handle:
            found["handle"] = self.handle
        return _dump(found)

    @classmethod
    def decode(cls, key: HostKey, data: bytes) -> HostRecord:
        """
        Read a record.

        @param key: what its key says.
        @raise BadRecord: if it is none.
        """
        if not key.cluster or len(key.cluster) > MAX_CLUSTER:
            raise BadRecord(f"{_quote(key.cluster)} is no name of a cluster")
        if _AGENT_KEY.fullmatch(key.agent) is None:
            raise BadRecord(f"{_quote(key.agent)} is no key of an agent")
        if not is_server_id(key.server):
            raise BadRecord(f"{_quote(key.server)} is no id of a server")
        reader = _Reader(data)
        mode = reader.text("mode", MAX_TEXT) or "streams"
        if mode not in MODES:
            raise BadRecord(f"mode: {_quote(mode)} is not {' or '.join(MODES)}")
        return cls(
            key.cluster,
            key.agent,
            key.server,
            reader.text("hostname", MAX_TEXT),
            reader.number("weight", 1, MAX_WEIGHT),
            reader.number("connections", 1, MAX_COUNT),
            reader.texts("metadata", MAX_ENTRIES),
            reader.identity("identity"),
            mode,
            reader.boolean("tells"),
            reader.boolean("well", True),
            reader.text("handle", MAX_HANDLE),
        )


@dataclass(frozen=True, slots=True)
class RouteRecord:
    """
    Routes that an agent has brought to a server, which has connections of it, or had some a moment ago.

    @ivar cluster: the cluster that they lead to.
    @ivar server: the id of the server.
    @ivar listener: the tunnel listener that the agent has joined.
    @ivar owner: whose they are, as one word; see L{reverseproxy.tunnel.server.agent_routes.owner_of}.
    @ivar shown: the same for people.
    @ivar domains: whose requests go to it.
    @ivar port: from which port sessions go to it; L{None} for none.
    @ivar identity: who has brought them, as the server has found out; see L{HostRecord}.
    """

    cluster: str
    server: str
    listener: str = ""
    owner: str = ""
    shown: str = ""
    domains: tuple[str, ...] = ()
    port: int | None = None
    identity: AgentIdentity | None = None

    @property
    def key(self) -> RouteKey:
        """Whose, at which server."""
        return RouteKey(self.cluster, self.server)

    def conflicts(self, other: RouteRecord) -> bool:
        """Whether not both can be had."""
        if self.cluster == other.cluster:
            return (self.owner, self.port, set(self.domains)) != (other.owner, other.port, set(other.domains))
        same_port = self.port is not None and self.port == other.port
        return same_port or not set(self.domains).isdisjoint(other.domains)

    def encode(self) -> bytes:
        """The record as JSON."""
        found: dict[str, Any] = {
            "v": RECORD_VERSION,
            "listener": self.listener,
            "owner": self.owner,
            "shown": fit(self.shown),
            "domains": list(self.domains),
        }
        if self.port is not None:
            found["port"] = self.port
        if self.identity is not None:
            found["identity"] = _shown(self.identity)
        return _dump(found)

    @classmethod
    def decode(cls, key: RouteKey, data: bytes) -> RouteRecord:
        """
        Read a record.

        @param key: what its key says.
        @raise BadRecord: if it is none.
        """
        if not key.cluster or len(key.cluster) > MAX_CLUSTER:
            raise BadRecord(f"{_quote(key.cluster)} is no name of a cluster")
        if not is_server_id(key.server):
            raise BadRecord(f"{_quote(key.server)} is no id of a server")
        reader = _Reader(data)
        port = reader.number("port", 0, 65535)
        return cls(
            key.cluster,
            key.server,
            reader.text("listener", MAX_TEXT),
            reader.text("owner", 4 * MAX_TEXT),
            reader.text("shown", MAX_TEXT),
            reader.domains("domains", MAX_DOMAINS),
            port or None,
            reader.identity("identity"),
        )


def _dump(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def _shown(identity: AgentIdentity) -> dict[str, Any]:
    """
    An identity as JSON, so that it can be read.

    What others have written is cut to a size.
    """
    certificate = identity.certificate
    found: dict[str, Any] = {
        "name": fit(identity.name),
        "policy": fit(identity.policy),
        "claim": fit(identity.claim),
        "agent_id": fit(identity.agent_id),
        "version": identity.version,
    }
    if certificate is not None:
        found["certificate"] = {
            "key": fit(certificate.key),
            "subject": fit(certificate.subject),
            "names": [fit(name) for name in certificate.names[:MAX_NAMES]],
        }
    return {name: value for name, value in found.items() if value}


def _quote(text: str) -> str:
    """Text for an error message: short, and printable."""
    shown = text if len(text) <= 64 else f"{text[:61]}..."
    return f'"{"".join(each if each.isprintable() else "?" for each in shown)}"'


class _Reader:
    """Takes fields out of a JSON object, each of a type and within bounds."""

    def __init__(self, data: bytes | Mapping[str, Any], within: str = "") -> None:
        self._within = within
        if not isinstance(data, bytes):
            self._found = data
            return
        if len(data) > MAX_RECORD:
            raise BadRecord(f"a record of {len(data)} bytes; {MAX_RECORD} are the most")
        try:
            found = json.loads(data)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise BadRecord(f"not a JSON object: {data[:32]!r}")
        self._found = found
        version = self.number("v", 1, 2**31)
        if version < RECORD_VERSION:
            raise self._bad("v", "is no version of records")

    def _bad(self, name: str, problem: str) -> BadRecord:
        return BadRecord(f"{self._within}{name}: {problem}")

    def text(self, name: str, limit: int) -> str:
        value = self._found.get(name, "")
        if not isinstance(value, str):
            raise self._bad(name, f"is {type(value).__name__}, not text")
        return self._bounded(name, value, limit)

    def _bounded(self, name: str, value: str, limit: int) -> str:
        if len(value) > limit:
            raise self._bad(name, f"has {len(value)} characters; {limit} are the most")
        if not value.isprintable():
            raise self._bad(name, f"{_quote(value)} is not printable")
        return value

    def boolean(self, name: str, default: bool = False) -> bool:
        value = self._found.get(name, default)
        if not isinstance(value, bool):
            raise self._bad(name, f"is {type(value).__name__}, not true or false")
        return value

    def number(self, name: str, least: int, most: int, default: int | None = None) -> int:
        value = self._found.get(name, least if default is None else default)
        if type(value) is not int or not least <= value <= most:
            raise self._bad(name, f"is not a number from {least} to {most}")
        return value

    def numbers(self, name: str, limit: int) -> tuple[int, ...]:
        value = self._found.get(name, [1])
        if not isinstance(value, list) or len(value) > limit:
            raise self._bad(name, f"is no list of at most {limit} numbers")
        if any(type(each) is not int or not 0 <= each <= MAX_COUNT for each in value):
            raise self._bad(name, f"has what is not a number from 0 to {MAX_COUNT}")
        return tuple(value)

    def domains(self, name: str, limit: int) -> tuple[str, ...]:
        value = self._found.get(name, [])
        if not isinstance(value, list) or len(value) > limit:
            raise self._bad(name, f"is no list of at most {limit} domains")
        for each in value:
            try:
                good = isinstance(each, str) and clean_domain(each) == each
            except ValueError:
                good = False
            if not good:
                raise self._bad(name, "has what is no domain")
        return tuple(value)

    def addresses(self, name: str, limit: int) -> tuple[str, ...]:
        """A list of texts that may be addresses; empty if it is not there."""
        value = self._found.get(name, [])
        if not isinstance(value, list) or len(value) > limit:
            raise self._bad(name, f"is no list of at most {limit} addresses")
        if any(not isinstance(each, str) for each in value):
            raise self._bad(name, "has what is not text")
        return tuple(self._bounded(name, each, MAX_ADDRESS) for each in value)

    def texts(self, name: str, limit: int) -> Mapping[str, str]:
        value = self._found.get(name, {})
        if not isinstance(value, dict) or len(value) > limit:
            raise self._bad(name, f"is no object of at most {limit} texts")
        if not value:
            return _NOTHING
        for key, each in value.items():
            if not isinstance(each, str):
                raise self._bad(name, f"{_quote(key)} is {type(each).__name__}, not text")
            if len(key) > MAX_TEXT or len(each) > MAX_TEXT:
                raise self._bad(name, f"{_quote(key)} has more than {MAX_TEXT} characters")
        return MappingProxyType(value)

    def part(self, name: str) -> _Reader | None:
        value = self._found.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self._bad(name, f"is {type(value).__name__}, not an object")
        return _Reader(value, f"{self._within}{name}.")

    def identity(self, name: str) -> AgentIdentity | None:
        part = self.part(name)
        if part is None:
            return None
        return AgentIdentity(
            part.text("name", MAX_TEXT),
            part.text("policy", MAX_TEXT),
            part.certificate("certificate"),
            part.text("claim", MAX_TEXT),
            part.text("agent_id", MAX_TEXT),
            part.number("version", 0, MAX_COUNT),
        )

    def certificate(self, name: str) -> CertificateSubject | None:
        part = self.part(name)
        if part is None:
            return None
        names = part._found.get("names", [])
        if (
            not isinstance(names, list)
            or len(names) > MAX_NAMES
            or not all(isinstance(n, str) for n in names)
        ):
            raise part._bad("names", f"is no list of at most {MAX_NAMES} texts")
        return CertificateSubject(
            part.text("key", MAX_TEXT),
            part.text("subject", MAX_TEXT),
            tuple(part._bounded("names", each, MAX_TEXT) for each in names),
        )
