"""The hosts of other servers' agents, in the clusters of this server."""

from __future__ import annotations

__all__ = ["RemoteHosts"]

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from reverseproxy.cluster.balancers.factory import uses_weights
from reverseproxy.cluster.host import Host
from reverseproxy.cluster.manager import Cluster, ClusterManager, IClusterTask
from reverseproxy.errors import WireError
from reverseproxy.fleet.interfaces import IDirectoryListener
from reverseproxy.fleet.outgoing_link import OutgoingLink
from reverseproxy.fleet.outgoing_links import OutgoingLinks
from reverseproxy.fleet.records import HostKey, HostRecord, ServerRecord
from reverseproxy.fleet.remote_host import RemoteHost
from reverseproxy.fleet.reported_states import ReportedStates
from reverseproxy.fleet.traffic import Traffic
from reverseproxy.fleet.work_queue import WorkQueue
from reverseproxy.logs import shorten

log = Logger()


@implementer(IClusterTask)
class _DepartureWatcher:
    """Calls back when a host leaves a cluster."""

    def __init__(self, left: Callable[[Host], None]) -> None:
        self.left = left

    def start(self) -> None:
        """See L{IClusterTask}."""

    def stop(self) -> None:
        """See L{IClusterTask}."""

    def joined(self, host: Host) -> None:
        """See L{IClusterTask}."""


@implementer(IDirectoryListener)
class RemoteHosts:
    """
    Adds hosts to clusters for the agents that the directory knows and links reach, and removes them.

    @ivar links: the links to other servers; to be set before any event comes.
    @ivar hosts: those that are in a cluster now.
    """

    def __init__(
        self,
        clusters: ClusterManager,
        clock: IReactorTime,
        traffic: Traffic,
        objection: Callable[[HostRecord], str] = lambda record: "",
    ) -> None:
        """
        @param objection: returns why no requests may be sent to an agent, whatever its server has
            decided; empty if they may.
        """
        self.links: OutgoingLinks
        self.hosts: dict[HostKey, RemoteHost] = {}
        self._numbers: dict[str, int] = {}  # of the hosts, by server
        self._clusters = clusters
        self._traffic = traffic
        self._objection = objection
        self._records: dict[str, dict[HostKey, HostRecord]] = {}
        self._reported = ReportedStates()
        self._work = WorkQueue(clock)
        self._excluded: set[HostKey] = set()
        self._unknown_messages: set[str] = set()  # servers that have sent messages of unknown kinds

    # IDirectoryListener

    def server_came(self, server: ServerRecord) -> None:
        """See L{IDirectoryListener}."""
        self._records.setdefault(server.id, {})
        self.links.add(server)

    def server_changed(self, server: ServerRecord, old: ServerRecord) -> None:
        """See L{IDirectoryListener}."""
        self.links.change(server)
        if server.draining is not old.draining:
            self._judge_all(server.id)

    def server_left(self, server: ServerRecord, reason: str) -> None:
        """See L{IDirectoryListener}."""
        self.links.remove(server.id, reason)
        self._unknown_messages.discard(server.id)
        for key in list(self._records.pop(server.id, ())):
            self._forget(key, reason)

    def host_came(self, host: HostRecord) -> None:
        """See L{IDirectoryListener}."""
        self._records.setdefault(host.server, {})[host.key] = host
        self._reported.forget(host.key)
        self._add(host.key)

    def host_changed(self, host: HostRecord, old: HostRecord) -> None:
        """See L{IDirectoryListener}."""
        key = host.key
        self._records.setdefault(host.server, {})[key] = host
        self._reported.record_changed(host, old)
        known = self.hosts.get(key)
        if known is None:
            self._add(key)
            return
        if (host.weight, dict(host.metadata), host.identity) != (
            old.weight,
            dict(old.metadata),
            old.identity,
        ):
            self._drop(key, "it is another one now")
            self._add(key)
            return
        cluster = known.cluster
        if cluster is not None and (host.connections, host.mode) != (old.connections, old.mode):
            cluster.weigh(known, self._weight(cluster, host))
            cluster.set_capacity(known, host.capacity)
        self._judge(known)

    def host_left(self, host: HostRecord, reason: str) -> None:
        """See L{IDirectoryListener}."""
        self._records.get(host.server, {}).pop(host.key, None)
        self._forget(host.key, reason)

    def _forget(self, key: HostKey, reason: str) -> None:
        self._reported.forget(key)
        self._excluded.discard(key)
        self._drop(key, reason)

    # ILinkUser

    def link_up(self, link: OutgoingLink) -> None:
        """See L{ILinkUser<reverseproxy.fleet.outgoing_link.ILinkUser>}."""
        self._work.add(self._add, list(self._records.get(link.server, ())))

    def link_down(self, link: OutgoingLink, reason: str) -> None:
        """See L{ILinkUser<reverseproxy.fleet.outgoing_link.ILinkUser>}."""
        keys = list(self._records.get(link.server, ()))
        for key in keys:
            # The new link begins with the states of those that are not well.
            self._reported.forget(key)
        # Load balancers ignore them from now on (FleetView.reaches), so that removing them is not
        # urgent.
        self._work.add(partial(self._unreached, f"server {link.server} can't be reached: {reason}"), keys)

    def _unreached(self, reason: str, key: HostKey) -> None:
        self._drop(key, reason)
        self._add(key)  # in case the link is up again already

    def link_message(self, link: OutgoingLink, message: Mapping[str, Any]) -> None:
        """See L{ILinkUser<reverseproxy.fleet.outgoing_link.ILinkUser>}."""
        if message.get("leaving") is True:
            self._judge_all(link.server)
            return
        if "gone" not in message and "well" not in message:
            self._leave_alone(link.server, message)
            return
        cluster, agent = message.get("cluster"), message.get("agent")
        if not isinstance(cluster, str) or not isinstance(agent, str):
            raise WireError("it says something of nobody")
        key = HostKey(cluster, agent, link.server)
        if key not in self._records.get(link.server, ()):
            return  # the directory will announce it, and is slower
        if message.get("gone") is True:
            self._reported.set_gone(key)
            self._drop(key, "its server says that it is gone")
        elif isinstance(message.get("well"), bool):
            self._reported.set_well(key, message["well"])
            host = self.hosts.get(key)
            if host is None:
                self._add(key)
            else:
                self._judge(host)

    def _leave_alone(self, server: str, message: Mapping[str, Any]) -> None:
        """Ignore a message of a later version; log that once for each server."""
        if server not in self._unknown_messages:
            self._unknown_messages.add(server)
            log.debug(
                "fleet: server {server} says what is not known here, which is left alone: {names}",
                server=server,
                names=shorten(", ".join(message)),
            )

    # clusters

    def share(self, cluster: Cluster) -> None:
        """Add hosts to a new cluster."""
        cluster.add_task(_DepartureWatcher(self._left))
        known = [key for records in self._records.values() for key in records if key.cluster == cluster.name]
        self._work.add(self._add, known)

    def _record(self, key: HostKey) -> HostRecord | None:
        return self._records.get(key.server, {}).get(key)

    def _add(self, key: HostKey) -> None:
        record = self._record(key)
        link = self.links.get(key.server)
        if (
            record is None
            or self._reported.is_gone(key)
            or link is None
            or not link.usable
            or key.cluster not in self._clusters
        ):
            return
        cluster = self._clusters.get(key.cluster)
        known = self.hosts.get(key)
        if known is not None:
            if known.cluster is cluster:
                return
            # A cluster that is removed lives on while requests wait in it.
            self._drop(key, "its cluster has been made anew")
        if objection := self._objection(record):
            self._object(record, objection)
            return
        self._excluded.discard(key)
        host = RemoteHost(link, record, self._weight(cluster, record), self._traffic, self._host_gone)
        host.health.service_up = self._is_well(record, link)
        self.hosts[key] = host
        self._numbers[key.server] = self._numbers.get(key.server, 0) + 1
        cluster.add_host(host)

    def _object(self, record: HostRecord, reason: str) -> None:
        if record.key not in self._excluded:
            self._excluded.add(record.key)
            log.warn(
                "fleet: cluster {cluster} sends nothing to {agent} of server {server}: {reason}",
                agent=str(record.identity),
                server=record.server,
                cluster=record.cluster,
                reason=reason,
            )

    @staticmethod
    def _weight(cluster: Cluster, record: HostRecord) -> int:
        """Return the weight of all connections of an agent together."""
        each = record.weight if uses_weights(cluster.config) else 1
        return each * record.connections

    def _is_well(self, record: HostRecord, link: OutgoingLink) -> bool:
        """Return whether a host may be chosen while there are other healthy ones."""
        return self._reported.is_well(record) and not link.leaving and not link.record.draining

    def _judge(self, host: RemoteHost) -> None:
        record = self._record(host.key)
        if record is not None and host.cluster is not None:
            well = self._is_well(record, host.link)
            host.cluster.service_health.report(host, well, "its server says so, or is about to leave")

    def _judge_all(self, server: str) -> None:
        """Update the health of all hosts of a server."""
        self._work.add_once(server, lambda: list(self._records.get(server, ())), self._judge_known)

    def _judge_known(self, key: HostKey) -> None:
        host = self.hosts.get(key)
        if host is not None:
            self._judge(host)

    def _left(self, host: Host) -> None:
        """Forget a host that has left its cluster, perhaps because the cluster was removed."""
        if isinstance(host, RemoteHost) and self.hosts.get(host.key) is host:
            self._take_out(host.key)

    def _host_gone(self, host: RemoteHost, reason: str) -> None:
        if self.hosts.get(host.key) is host:
            self._take_out(host.key)
        if host.cluster is not None:
            host.cluster.remove_host(host, reason)

    def _drop(self, key: HostKey, reason: str) -> None:
        """Remove a host; streams that are open are finished, if their connection lives."""
        host = self._take_out(key)
        if host is not None and host.cluster is not None:
            host.cluster.remove_host(host, reason)

    def _take_out(self, key: HostKey) -> RemoteHost | None:
        host = self.hosts.pop(key, None)
        if host is not None:
            left = self._numbers[key.server] - 1
            if left:
                self._numbers[key.server] = left
            else:
                del self._numbers[key.server]
        return host

    def number_of(self, server: str) -> int:
        """Return the number of hosts of a server that are in a cluster now."""
        return self._numbers.get(server, 0)

    def review(self) -> None:
        """Check again whether there are objections to agents."""
        self._work.add_once(None, self._all_keys, self._review)

    def _all_keys(self) -> list[HostKey]:
        return [key for records in self._records.values() for key in records]

    def _review(self, key: HostKey) -> None:
        record = self._record(key)
        objection = "" if record is None else self._objection(record)
        if record is not None and objection and key in self.hosts:
            self._object(record, objection)
            self._drop(key, objection)
        elif not objection and key in self._excluded:
            self._add(key)

    def stop(self) -> None:
        """Remove all hosts."""
        self._work.clear()
        for key in list(self.hosts):
            self._drop(key, "stopping")
