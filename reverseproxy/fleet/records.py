"""
What servers of a fleet publish about themselves, their agents, and their agents' routes; pure.

There is a record for each server, and one for each agent and server, however many connections the agent
keeps: it has what other servers need to choose the agent, and no more. Nothing in a record is trusted
beyond its shape, as anybody who can write to the store can write anything. A malformed record raises
L{BadRecord}, and affects no other.

The server, the cluster and the agent of a record are in its key and nowhere else, so that the two can't
disagree.
"""

from __future__ import annotations

__all__ = [
    "HostKey",
    "HostRecord",
    "RouteKey",
    "RouteRecord",
    "ServerRecord",
    "agent_key",
    "is_server_id",
    "proved",
]

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, NamedTuple

from reverseproxy.fleet.record_fields import (
    MAX_ADDRESS,
    MAX_CLUSTER,
    MAX_COUNT,
    MAX_DOMAINS,
    MAX_ENTRIES,
    MAX_HANDLE,
    MAX_NAMES,
    MAX_SERVER_ID,
    MAX_TEXT,
    MAX_WEIGHT,
    NO_TEXTS,
    RECORD_VERSION,
    BadRecord,
    FieldReader,
    dump,
    fit,
    identity_json,
    quote,
)
from reverseproxy.identity import AgentIdentity, CertificateSubject

MODES: Final = ("plain", "streams")
"""Whether a connection carries one request or session at a time, or many streams."""

_SERVER_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_AGENT_KEY: Final = re.compile(r"[0-9a-f]{32}")


class HostKey(NamedTuple):
    """
    The key of an agent at a server.

    @ivar cluster: the cluster's name.
    @ivar agent: see L{agent_key}.
    @ivar server: the server's id.
    """

    cluster: str
    agent: str
    server: str


class RouteKey(NamedTuple):
    """
    The key of an agent's routes at a server.

    @ivar cluster: the name of the agent's cluster.
    @ivar server: the server's id.
    """

    cluster: str
    server: str


def proved(identity: AgentIdentity | None) -> AgentIdentity | None:
    """
    Return the proved part of an identity, with texts as a record would have them; L{None} if nothing is
    proved.
    """
    if identity is None or not identity.proved:
        return None
    subject = identity.certificate
    certificate = subject and CertificateSubject(
        fit(subject.key), fit(subject.subject), tuple(fit(name) for name in subject.names[:MAX_NAMES])
    )
    return AgentIdentity(fit(identity.name), fit(identity.policy), certificate)


def is_server_id(text: str) -> bool:
    """Return whether a text can be a server's id: at most 64 letters, digits, C{.}, C{_} and C{-}."""
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
    Compute the key of an agent, which is the same at every server that it is connected to.

    Everything that an agent claims about itself is part of it: an agent that claims different things on
    different connections is several agents here, each with hosts of its own. MOSN's agents have no id;
    they are identified by their host name and IP address.

    @param remote_ip: the agent's IP address.
    @param mode: one of L{MODES}.
    @return: 32 hexadecimal digits of a hash, which does not reveal the agent's id: who knows that id
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

    @ivar id: its id, which a restart does not change.
    @ivar address: where other servers dial it, C{host:port}.
    @ivar version: of the software.
    @ivar incarnation: differs each time that it publishes everything again; the records of its hosts are
        written before the record that has it.
    @ivar process: differs for each process that is the server.
    @ivar draining: whether it is about to leave.
    @ivar protocols: versions of the protocol between servers that it speaks.
    @ivar agents: where agents dial it, each C{host:port}; empty if that is not configured.
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
        """Encode the record as JSON."""
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
        return dump(found)

    @classmethod
    def decode(cls, server: str, data: bytes) -> ServerRecord:
        """
        Decode a record.

        @param server: the id, from its key.
        @raise BadRecord: if it is malformed.
        """
        if not is_server_id(server):
            raise BadRecord(f"{quote(server)} is no id of a server")
        reader = FieldReader(data)
        address = reader.text("address", MAX_ADDRESS)
        agents = reader.addresses("agents", MAX_ENTRIES)
        for name, each in (("address", address), *(("agents", each) for each in agents)):
            if not _is_address(each):
                raise BadRecord(f"{name}: {quote(each)} is not host:port")
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
    @ivar hostname: the host name that the agent claims; may be empty.
    @ivar weight: of each connection, as a host; 1 to 128.
    @ivar connections: how many there are.
    @ivar metadata: labels.
    @ivar identity: the agent's identity as the server has verified it; its C{agent_id} is a hash
        (L{AgentIdentity}), as other servers must not learn the id.
    @ivar mode: C{"plain"}, where each connection carries one request or session at a time; or
        C{"streams"}.
    @ivar tells: whether the agent reports which requests it has not sent on.
    @ivar well: whether its server considers it healthy.
    @ivar handle: its id in the admin API, the same at all servers; empty if it has none.
    """

    cluster: str
    agent: str
    server: str
    hostname: str = ""
    weight: int = 1
    connections: int = 1
    metadata: Mapping[str, str] = field(default_factory=lambda: NO_TEXTS)
    identity: AgentIdentity | None = None
    mode: str = "streams"
    tells: bool = False
    well: bool = True
    handle: str = ""

    @property
    def key(self) -> HostKey:
        """Its key."""
        return HostKey(self.cluster, self.agent, self.server)

    @property
    def capacity(self) -> int | None:
        """How many requests it can carry at once; L{None} for any number."""
        return self.connections if self.mode == "plain" else None

    def encode(self) -> bytes:
        """Encode the record as JSON, without fields that have their default."""
        found: dict[str, Any] = {"v": RECORD_VERSION, "weight": self.weight, "connections": self.connections}
        if self.hostname:
            found["hostname"] = fit(self.hostname)
        if self.metadata:
            found["metadata"] = dict(self.metadata)
        if self.identity is not None:
            found["identity"] = identity_json(self.identity)
        if self.mode != "streams":
            found["mode"] = self.mode
        if self.tells:
            found["tells"] = True
        if not self.well:
            found["well"] = False
        if self.handle:
            found["handle"] = self.handle
        return dump(found)

    @classmethod
    def decode(cls, key: HostKey, data: bytes) -> HostRecord:
        """
        Decode a record.

        @param key: its key.
        @raise BadRecord: if it is malformed.
        """
        if not key.cluster or len(key.cluster) > MAX_CLUSTER:
            raise BadRecord(f"{quote(key.cluster)} is no name of a cluster")
        if _AGENT_KEY.fullmatch(key.agent) is None:
            raise BadRecord(f"{quote(key.agent)} is no key of an agent")
        if not is_server_id(key.server):
            raise BadRecord(f"{quote(key.server)} is no id of a server")
        reader = FieldReader(data)
        mode = reader.text("mode", MAX_TEXT) or "streams"
        if mode not in MODES:
            raise BadRecord(f"mode: {quote(mode)} is not {' or '.join(MODES)}")
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
    Routes that a server has granted to an agent, which is connected to it, or was within the grace time.

    @ivar cluster: the cluster that they lead to.
    @ivar server: the server's id.
    @ivar listener: the tunnel listener that the agent has joined.
    @ivar owner: the agent's identity as one word; see
        L{reverseproxy.tunnel.server.route_interfaces.owner_of}.
    @ivar shown: the same for people.
    @ivar domains: whose requests go to the cluster.
    @ivar port: whose sessions go to it; L{None} for none.
    @ivar identity: the agent's identity as the server has verified it; see L{HostRecord}.
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
        """Its key."""
        return RouteKey(self.cluster, self.server)

    def conflicts(self, other: RouteRecord) -> bool:
        """Return whether at most one of two records can be granted."""
        if self.cluster == other.cluster:
            return (self.owner, self.port, set(self.domains)) != (other.owner, other.port, set(other.domains))
        same_port = self.port is not None and self.port == other.port
        return same_port or not set(self.domains).isdisjoint(other.domains)

    def encode(self) -> bytes:
        """Encode the record as JSON."""
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
            found["identity"] = identity_json(self.identity)
        return dump(found)

    @classmethod
    def decode(cls, key: RouteKey, data: bytes) -> RouteRecord:
        """
        Decode a record.

        @param key: its key.
        @raise BadRecord: if it is malformed.
        """
        if not key.cluster or len(key.cluster) > MAX_CLUSTER:
            raise BadRecord(f"{quote(key.cluster)} is no name of a cluster")
        if not is_server_id(key.server):
            raise BadRecord(f"{quote(key.server)} is no id of a server")
        reader = FieldReader(data)
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
