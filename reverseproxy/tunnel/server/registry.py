"""
The connections that agents hold, and which of them a graceful close may remove: pure decisions.

MOSN accepts a graceful close from any peer, for any host; here each connection has an owner, and only
the owner's are accepted.
"""

from __future__ import annotations

__all__ = ["RefusedAddress", "RegisteredConnection", "Registry", "Requester", "Selection"]

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from reverseproxy.addresses import is_unix
from reverseproxy.interfaces import ConnectionInfo, Identity
from reverseproxy.tunnel.handshake import Principal, quote
from reverseproxy.wire.mosn.extensions import Announcement, CloseProof

_H = TypeVar("_H")


@dataclass(frozen=True, eq=False, slots=True)
class RegisteredConnection(Generic[_H]):
    """
    A connection that is a host of a cluster, and its owner.

    @ivar host: whatever the caller needs to find it again.
    @ivar cluster: the cluster.
    @ivar info: the connection; only C{remote}, C{remote_ip} and C{identity} matter.
    @ivar principal: the identity that a credential has proved.
    @ivar announcement: what the agent announces, if it is one of this project.
    @ivar policy: the credential policy that was demanded; empty if none was.
    """

    host: _H
    cluster: str
    info: ConnectionInfo
    principal: Principal | None = None
    announcement: Announcement | None = None
    policy: str = ""

    def refuse(self, requester: Requester) -> str | None:
        """
        Return why a requester does not own this connection.

        The strongest known property of the connection counts: its TLS identity; else the principal, if
        the agent is one of this project, as those prove it again in a graceful close, or if a credential
        was demanded; else the IP address, which is all that a MOSN agent shows in one. An agent of this
        project must also know its id, which tells agents apart that share an address.

        @return: the reason for a log; L{None} for the owner.
        """
        if self.info.identity is not None:
            if requester.identity == self.info.identity:
                return None
            return f"it belongs to the TLS identity {quote(self.info.identity)}"
        if self.principal is not None and (self.announcement is not None or self.policy):
            if requester.principal == self.principal:
                return None
            return f"it belongs to {self.principal}"
        if self.policy and requester.policy != self.policy:
            return f"it takes a credential of the policy {quote(self.policy)}"
        if requester.remote_ip != self.info.remote_ip:
            return f"it belongs to an agent at {self.info.remote_ip}"
        if self.announcement is not None and requester.agent != self.announcement.agent:
            return "it belongs to another agent at the same address"
        return None


@dataclass(frozen=True, slots=True)
class Requester:
    """
    The sender of a graceful close, as far as its identity is proved.

    @ivar remote_ip: its IP address.
    @ivar identity: its TLS identity.
    @ivar principal: the identity that the frame's own credential has proved.
    @ivar agent: the agent id in the frame; only the agent itself knows it, if it is one of this project.
    @ivar policy: the credential policy of that credential; empty without a valid one.
    """

    remote_ip: str
    identity: str | None = None
    principal: Principal | None = None
    agent: str | None = None
    policy: str = ""

    @classmethod
    def of(
        cls, info: ConnectionInfo, proof: CloseProof | None = None, identity: Identity | None = None
    ) -> Requester:
        """
        Collect what is known.

        @param info: the connection that the frame came over.
        @param proof: the frame's extension.
        @param identity: what the validator has returned for the proof's credential.
        """
        if proof is None:
            return cls(info.remote_ip, info.identity)
        principal, policy = None, ""
        if identity is not None:
            policy = proof.credential_policy
            principal = Principal.of(policy, identity)
        return cls(info.remote_ip, info.identity, principal, proof.agent, policy)


class RefusedAddress(NamedTuple):
    """
    An address in a graceful close that has no effect.

    @ivar address: as in the frame.
    @ivar reason: for the log.
    """

    address: str
    reason: str


@dataclass(frozen=True)
class Selection(Generic[_H]):
    """
    What a graceful close may remove.

    @ivar evict: the connections, each once, in the frame's order.
    @ivar refused: the addresses without effect, in the frame's order.
    """

    evict: tuple[RegisteredConnection[_H], ...]
    refused: tuple[RefusedAddress, ...]

    def without(self, elsewhere: Collection[str]) -> Selection[_H]:
        """
        Return the selection without refused addresses that other workers have removed.

        @param elsewhere: those addresses.
        """
        return Selection(self.evict, tuple(each for each in self.refused if each.address not in elsewhere))

    def describe_refused(self, most: int = 5) -> str:
        """
        Return the refused addresses as one line for a log.

        @param most: how many to name; the rest is counted.
        """
        named = [f"{quote(address)}: {reason}" for address, reason in self.refused[:most]]
        rest = len(self.refused) - len(named)
        return "; ".join([*named, f"and {rest} more"] if rest else named)


class Registry(Generic[_H]):
    """
    The connections that have joined, by the addresses that a graceful close may use for them.

    Adding, removing and finding one takes constant time. Static hosts are never in here, and so can't be
    removed.
    """

    def __init__(self) -> None:
        self._connections: set[RegisteredConnection[_H]] = set()
        # As seen from the server, and as the agent sees itself: (cluster, remote address) and (cluster,
        # agent id, local address). A key of several connections, which is rare, has an ordered set of
        # them.
        self._index: dict[
            tuple[str, ...], RegisteredConnection[_H] | dict[RegisteredConnection[_H], None]
        ] = {}
        self._by_agent: dict[tuple[str, str], dict[_H, None]] = {}

    def __len__(self) -> int:
        return len(self._connections)

    def __contains__(self, connection: object) -> bool:
        return connection in self._connections

    @property
    def all(self) -> list[RegisteredConnection[_H]]:
        """All connections."""
        return list(self._connections)

    @staticmethod
    def _keys(connection: RegisteredConnection[_H]) -> list[tuple[str, ...]]:
        keys: list[tuple[str, ...]] = []
        # Clients of a Unix socket have no address of their own.
        if not is_unix(connection.info.remote):
            keys.append((connection.cluster, connection.info.remote))
        announcement = connection.announcement
        if announcement is not None and announcement.local_address:
            keys.append((connection.cluster, announcement.agent, announcement.local_address))
        return keys

    @staticmethod
    def _agent(connection: RegisteredConnection[_H]) -> tuple[str, str] | None:
        """Return the key of a connection's agent: its id, or else its IP address."""
        if connection.announcement is not None:
            return "agent", connection.announcement.agent
        ip = connection.info.remote_ip
        return None if ip.startswith("unix:") else ("address", ip)

    def same_agent(self, connection: RegisteredConnection[_H]) -> Collection[_H]:
        """
        Return the hosts of the same agent; of MOSN's agents, all with the same IP address.

        @param connection: one that has been added.
        @return: a live view, which includes its own host.
        """
        agent = self._agent(connection)
        return () if agent is None else self._by_agent[agent].keys()

    def add(self, connection: RegisteredConnection[_H]) -> None:
        """Add a connection, if it is not there."""
        self._connections.add(connection)
        agent = self._agent(connection)
        if agent is not None:
            self._by_agent.setdefault(agent, {})[connection.host] = None
        for key in self._keys(connection):
            entry = self._index.setdefault(key, connection)
            if isinstance(entry, dict):
                entry[connection] = None
            elif entry is not connection:
                self._index[key] = {entry: None, connection: None}

    def remove(self, connection: RegisteredConnection[_H]) -> None:
        """Remove a connection, if it is there."""
        if connection not in self._connections:
            return
        self._connections.remove(connection)
        agent = self._agent(connection)
        if agent is not None:
            same_agent = self._by_agent.get(agent, {})
            same_agent.pop(connection.host, None)
            if not same_agent:
                self._by_agent.pop(agent, None)
        for key in self._keys(connection):
            entry = self._index[key]
            if isinstance(entry, dict):
                del entry[connection]
            if not isinstance(entry, dict) or not entry:
                del self._index[key]

    def _named(self, key: tuple[str, ...]) -> dict[RegisteredConnection[_H], None]:
        entry = self._index.get(key, {})
        return dict(entry) if isinstance(entry, dict) else {entry: None}

    def select_evictable(self, cluster: str, addresses: Iterable[str], requester: Requester) -> Selection[_H]:
        """
        Return what a graceful close may remove.

        @param cluster: the frame's cluster.
        @param addresses: the frame's addresses; repeated ones count once.
        @param requester: the sender.
        """
        evict: dict[RegisteredConnection[_H], None] = {}
        refused: list[RefusedAddress] = []
        for address in dict.fromkeys(addresses):
            candidates = self._named((cluster, address))
            if requester.agent is not None:
                candidates.update(self._named((cluster, requester.agent, address)))
            owned = [connection for connection in candidates if connection.refuse(requester) is None]
            evict.update(dict.fromkeys(owned))
            if owned:
                continue
            reason = f"no agent holds such a connection to cluster {quote(cluster)}"
            for connection in candidates:
                reason = connection.refuse(requester) or reason
            refused.append(RefusedAddress(address, reason))
        return Selection(tuple(evict), tuple(refused))
