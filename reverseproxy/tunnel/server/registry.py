"""
Which agent holds which connection, and which of them a graceful close may take away: pure decisions.

MOSN believes a graceful close from anyone, about any host; here each connection
belongs to somebody, and only its owner is believed.
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
    A connection that is a host of a cluster now, and whose it is.

    @ivar host: whatever the caller needs to find it again.
    @ivar cluster: the cluster.
    @ivar info: the connection; only C{remote}, C{remote_ip} and C{identity} matter.
    @ivar principal: whom a credential proved the agent to be.
    @ivar announcement: what the agent said of itself if it is one of ours.
    @ivar policy: the credential policy that it had to use; empty if none was demanded.
    """

    host: _H
    cluster: str
    info: ConnectionInfo
    principal: Principal | None = None
    announcement: Announcement | None = None
    policy: str = ""

    def refuse(self, requester: Requester) -> str | None:
        """
        Say why somebody does not own this connection.

        The strongest thing that is known of the connection counts: its TLS
        identity; else the principal, if the agent is one of ours, since those
        prove it again in a graceful close, or if a credential was demanded; else
        the IP address, which is all that a MOSN agent shows in one.  An agent of
        ours must know its id besides, which tells agents apart that share an
        address.

        @return: the reason for a log, or L{None} for the owner.
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
    Who sent a graceful close, as far as that is proven.

    @ivar remote_ip: the address that it came from.
    @ivar identity: its TLS identity.
    @ivar principal: whom the frame's own credential proved it to be.
    @ivar agent: the agent id in the frame; known to that agent alone, if it is
        one of ours.
    @ivar policy: the credential policy of that credential; empty without a good one.
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
        Put together what is known.

        @param info: the connection that the frame came over.
        @param proof: what the frame holds beyond MOSN's.
        @param identity: what the validator said of the proof's credential.
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
    An address of a graceful close that changes nothing.

    @ivar address: as the frame has it.
    @ivar reason: for the log.
    """

    address: str
    reason: str


@dataclass(frozen=True)
class Selection(Generic[_H]):
    """
    What a graceful close may take away.

    @ivar evict: the connections, each once, in the frame's order.
    @ivar refused: the addresses that name none of them, in the frame's order.
    """

    evict: tuple[RegisteredConnection[_H], ...]
    refused: tuple[RefusedAddress, ...]

    def without(self, elsewhere: Collection[str]) -> Selection[_H]:
        """
        Leave out what is held by somebody else, who has let go of it.

        @param elsewhere: the addresses of that.
        """
        return Selection(self.evict, tuple(each for each in self.refused if each.address not in elsewhere))

    def describe_refused(self, most: int = 5) -> str:
        """
        Put the refused addresses into one line for a log.

        @param most: how many to name; the rest is counted.
        """
        named = [f"{quote(address)}: {reason}" for address, reason in self.refused[:most]]
        rest = len(self.refused) - len(named)
        return "; ".join([*named, f"and {rest} more"] if rest else named)


class Registry(Generic[_H]):
    """
    The connections held now, by what a graceful close may call them.

    Adding, removing and finding one takes constant time.  Static hosts are
    never in here, hence can't be taken away.
    """

    def __init__(self) -> None:
        self._connections: set[RegisteredConnection[_H]] = set()
        # As seen from here, and as the agent sees itself: (cluster, remote
        # address) and (cluster, agent id, local address).  A key that names
        # several connections, which few do, has an ordered set of them.
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
        """Those that are held now."""
        return list(self._connections)

    @staticmethod
    def _keys(connection: RegisteredConnection[_H]) -> list[tuple[str, ...]]:
        keys: list[tuple[str, ...]] = []
        # The clients of a Unix socket have no address of their own.
        if not is_unix(connection.info.remote):
            keys.append((connection.cluster, connection.info.remote))
        announcement = connection.announcement
        if announcement is not None and announcement.local_address:
            keys.append((connection.cluster, announcement.agent, announcement.local_address))
        return keys

    @staticmethod
    def _agent(connection: RegisteredConnection[_H]) -> tuple[str, str] | None:
        """Name the agent: by its id, or else by the address that it comes from."""
        if connection.announcement is not None:
            return "agent", connection.announcement.agent
        ip = connection.info.remote_ip
        return None if ip.startswith("unix:") else ("address", ip)

    def same_agent(self, connection: RegisteredConnection[_H]) -> Collection[_H]:
        """
        Hosts of the same agent, as far as that can be told; of MOSN's agents, all at one address.

        @param connection: one that is in.
        @return: them, now and at any later time, and itself among them.
        """
        agent = self._agent(connection)
        return () if agent is None else self._by_agent[agent].keys()

    def add(self, connection: RegisteredConnection[_H]) -> None:
        """Take in a connection; one that is in already stays in once."""
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
        """Forget a connection; one that is not in is ignored."""
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
        See what a graceful close may take away.

        @param cluster: the frame's cluster.
        @param addresses: the frame's addresses; repeated ones count once.
        @param requester: who sent it.
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
