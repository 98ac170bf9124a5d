"""
Connections of the same agent: one that is here stands for those that other workers have.

Our own agents hold a connection to each worker (L{reverseproxy.workers.spreading}), over
which streams begin.  A request takes the one of its own worker, and no way through another
one.  So each worker has every agent once, whatever the number of workers, and weights mean
what they mean with one process.

Where all workers have to agree on a certain host, such as by a hash, none is passed over.
"""

from __future__ import annotations

__all__ = ["SameAgent"]

from typing import TYPE_CHECKING

from reverseproxy.cluster.balancers.factory import is_deterministic
from reverseproxy.workers.requests import is_committed

if TYPE_CHECKING:
    from reverseproxy.cluster.manager import Cluster
    from reverseproxy.workers.directory import Entry

_Key = tuple[str, str, str, str, str]


def _key_of(entry: Entry) -> _Key | None:
    """
    Say whose connection it is, as far as others can't pretend to be that agent.

    An agent's id is in no log and is sent to its servers only, which see to it that nobody
    gets it from them; whatever is proved has to be the same besides.

    @return: L{None} if it is nobody's that is known, or serves one request at a time.
    """
    host = entry.host
    identity = host.identity
    if identity is None or not identity.agent_id or (host.exclusive and not is_committed(host)):
        return None
    certificate = "" if identity.certificate is None else identity.certificate.key
    return entry.cluster.name, identity.policy, identity.name, certificate, identity.agent_id


class _Agent:
    """The hosts that are one agent's: at this worker, and at others."""

    def __init__(self) -> None:
        self.here: set[Entry] = set()
        self.away: set[Entry] = set()


class SameAgent:
    """The hosts of all workers, by agent."""

    def __init__(self) -> None:
        self._agents: dict[_Key, _Agent] = {}
        self._keys: dict[Entry, _Key] = {}

    def add(self, entry: Entry) -> None:
        """A worker has a host; to be called again when HTTP/2 has been spoken to it."""
        key = _key_of(entry)
        if key is None or entry in self._keys:
            return
        self._keys[entry] = key
        agent = self._agents.setdefault(key, _Agent())
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
        """A host is gone."""
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
        """The load balancer decides on certain hosts now: pass over none."""
        for entry in list(self._keys):
            if entry.cluster is cluster and entry.host.is_remote:
                cluster.unreserve(entry.host)
