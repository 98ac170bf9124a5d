"""
Prefer this worker's own connection to an agent over those of other workers.

Agents of this project keep a connection with streams to each worker
(L{reverseproxy.workers.spreading}).  A request uses the connection of its own worker, without
a detour through another one.  So each worker counts every agent once, and weights mean the
same as with one process.

If all workers have to agree on one host, as with a hash, none is skipped.
"""

from __future__ import annotations

__all__ = ["SameAgent"]

from typing import TYPE_CHECKING

from reverseproxy.cluster.balancers.factory import is_deterministic
from reverseproxy.workers.requests import is_committed

if TYPE_CHECKING:
    from reverseproxy.cluster.manager import Cluster
    from reverseproxy.workers.entries import Entry

_Key = tuple[str, str, str, str, str]


def _key_of(entry: Entry) -> _Key | None:
    """
    Return a key of the agent that has brought a connection, which no other agent can forge.

    An agent's id is secret between the agent and its servers; the proved identity has to be the
    same as well.

    @return: L{None} if the agent has no id, or the connection serves one request at a time.
    """
    host = entry.host
    identity = host.identity
    if identity is None or not identity.agent_id or (host.exclusive and not is_committed(host)):
        return None
    certificate = "" if identity.certificate is None else identity.certificate.key
    return entry.cluster.name, identity.policy, identity.name, certificate, identity.agent_id


class _AgentEntries:
    """The hosts of one agent: at this worker, and at others."""

    def __init__(self) -> None:
        self.here: set[Entry] = set()
        self.away: set[Entry] = set()


class SameAgent:
    """The hosts of all workers, by agent."""

    def __init__(self) -> None:
        self._agents: dict[_Key, _AgentEntries] = {}
        self._keys: dict[Entry, _Key] = {}

    def add(self, entry: Entry) -> None:
        """Add a host of some worker; call it again when the host is committed to HTTP/2."""
        key = _key_of(entry)
        if key is None or entry in self._keys:
            return
        self._keys[entry] = key
        agent = self._agents.setdefault(key, _AgentEntries())
        cluster = entry.cluster
        if entry.host.is_remote:
            agent.away.add(entry)
            if agent.here and not is_deterministic(cluster.config):
                cluster.reserve(entry.host)
            return
        agent.here.add(entry)
        if len(agent.here) == 1 and not is_deterministic(cluster.config):
            for each in agent.away:
                cluster.reserve(each.host)

    def drop(self, entry: Entry) -> None:
        """Remove a host."""
        key = self._keys.pop(entry, None)
        if key is None:
            return
        agent = self._agents[key]
        agent.away.discard(entry)
        if entry in agent.here:
            agent.here.remove(entry)
            if not agent.here:
                for each in list(agent.away):
                    entry.cluster.unreserve(each.host)
        if not (agent.here or agent.away):
            self._agents.pop(key, None)

    def settle(self, cluster: Cluster) -> None:
        """Skip no host any more, as the load balancer now decides on certain hosts."""
        for entry in list(self._keys):
            if entry.cluster is cluster and entry.host.is_remote:
                cluster.unreserve(entry.host)
