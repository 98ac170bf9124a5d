"""
Hosts whose agents are connected to other servers of the fleet.

To its cluster a L{RemoteHost} is a host like others: to connect is to open a stream on
the link to the server that has the agent, which takes no time.  What the stream is for
stands at its beginning (L{reverseproxy.fleet.link_frames}), and what is meant for the agent
follows at once.  As long as nothing has been passed on to the agent, the stream ends
with the remark that it was not, and what was wanted goes to another host, even if it is
a POST.

Whether the agent can be reached, and can reach its service, is for its own server to
judge.  What we can judge is whether that server can be reached.
"""

from __future__ import annotations

__all__ = ["RemoteHost", "RemoteHosts"]

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from reverseproxy.cluster.balancers.weighted import goes_by_weight
from reverseproxy.cluster.endpoints import CallableFactory
from reverseproxy.cluster.handover import Handover
from reverseproxy.cluster.health.outcome import Outcome
from reverseproxy.cluster.host import AgentHost, Host
from reverseproxy.cluster.manager import Cluster, ClusterManager, IClusterTask
from reverseproxy.errors import HostGone, WireError
from reverseproxy.fleet.interfaces import IDirectoryListener
from reverseproxy.fleet.link_frames import StreamHeader
from reverseproxy.fleet.outgoing_link import OutgoingLink
from reverseproxy.fleet.outgoing_links import OutgoingLinks
from reverseproxy.fleet.records import MAX_COUNT, MAX_WEIGHT, HostKey, HostRecord, ServerRecord
from reverseproxy.fleet.traffic import Traffic
from reverseproxy.fleet.work_queue import WorkQueue
from reverseproxy.logs import shorten

log = Logger()

_FAILURES: Final = frozenset({Outcome.SERVER_ERROR, Outcome.RESET})
_ANSWERS: Final = frozenset({Outcome.SUCCESS, Outcome.CLIENT_ERROR})


class _Question(Handover):
    """A stream, at the end that asks for it."""

    def __init__(self, header: bytes, inner: IProtocol) -> None:
        super().__init__()
        self._header = header
        self._inner = inner

    def connectionMade(self) -> None:
        """Say what it is for, and give it to who wants it."""
        self.transport.write(self._header)
        self.hand_over(self._inner)


class RemoteHost(AgentHost):
    """
    An agent of another server.

    @ivar server: that server's id.
    @ivar link: where it is.
    @ivar key: what the whole fleet calls it.
    """

    __slots__ = ("_behalf", "_failing", "_traffic", "key", "link", "server")

    max_weight = MAX_WEIGHT * MAX_COUNT

    def __init__(
        self,
        link: OutgoingLink,
        record: HostRecord,
        weight: int,
        traffic: Traffic,
        on_gone: Callable[[RemoteHost, str], object],
    ) -> None:
        """
        @param weight: of all its connections together.
        @param on_gone: called once with this host and a reason, as soon as it can take no
            further request.
        """
        super().__init__(
            on_gone,
            f"{record.server}/{record.agent}",
            record.hostname,
            weight,
            record.metadata,
            record.capacity,
        )
        self.server = record.server
        self.link = link
        self.key = record.key
        self.identity = record.identity
        self.tells = True  # if the agent does not, its server sees to what it answers
        self._traffic = traffic
        self._behalf = ""
        self._failing = False

    @property
    def is_remote(self) -> bool:
        """Another server has it, for as long as it lives."""
        return True

    @property
    def rtt(self) -> float | None:
        """Seconds that the last ping to its server took."""
        return self.link.rtt

    def on_behalf(self, client: str) -> None:
        """See L{Host.on_behalf}."""
        self._behalf = client

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Open a stream to it.

        @return: fires at once; fails with L{HostGone} if the host, or its server, is gone.
        """
        client, self._behalf = self._behalf, ""
        session = self.link.session
        if self.closed or session is None or not self.link.usable:
            return fail(HostGone(f"server {self.server} can't be reached: {self.link.problem}"))
        try:
            factory.doStart()
            protocol: Any = factory.buildProtocol(session.getPeer())
        except Exception:
            return fail()
        if protocol is None:
            return fail(HostGone(f"no protocol wants {self.address}"))
        spoken = getattr(protocol, "speaks", "")
        if spoken:
            client = ""  # it carries others' requests, too
        header = StreamHeader(self.key.cluster, self.key.agent, spoken, client).encode()
        self._traffic.sent(self.server)
        opening = session.open(CallableFactory(lambda: _Question(header, protocol)))
        return opening.addCallback(lambda _: protocol)

    def usable(self) -> bool:
        """Look whether another stream can be opened."""
        return super().usable() and self.link.usable

    def judge(self, outcome: Outcome) -> None:
        """
        Tell its server how a request went: failures, and what ends a row of them.

        It is that server that leaves it out, for all.
        """
        failed = outcome in _FAILURES
        if failed or (self._failing and outcome in _ANSWERS):
            self._failing = failed
            key = self.key
            self.link.send({"outcome": int(outcome), "cluster": key.cluster, "agent": key.agent})

    def close(self, reason: str) -> None:
        """Close all streams to it."""
        if not self.closed:
            super().close(reason)
            self._leave(reason)


@implementer(IClusterTask)
class _Leavers:
    """Tells which hosts leave a cluster."""

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
    Keeps hosts for what the directory knows and links reach, in the clusters that they belong to.

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
        @param objection: says why nothing is to be sent to an agent, whatever its server
            thinks; empty if something may be.
        """
        self.links: OutgoingLinks
        self.hosts: dict[HostKey, RemoteHost] = {}
        self._clusters = clusters
        self._traffic = traffic
        self._objection = objection
        self._records: dict[str, dict[HostKey, HostRecord]] = {}
        self._gone: dict[HostKey, None] = {}  # by what their servers say, and not by the directory
        self._said: dict[HostKey, bool] = {}  # what their servers say of how they are
        self._turns = WorkQueue(clock)
        self._objected: set[HostKey] = set()
        self._strange: set[str] = set()  # servers that have said what is not known here
        self._reviews = False  # whether a look at all of them waits that has not begun
        self._judging: set[str] = set()  # servers for whose hosts one does

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
        self._strange.discard(server.id)
        for key in list(self._records.pop(server.id, ())):
            self._forget(key, reason)

    def host_came(self, host: HostRecord) -> None:
        """See L{IDirectoryListener}."""
        self._records.setdefault(host.server, {})[host.key] = host
        self._gone.pop(host.key, None)
        self._said.pop(host.key, None)
        self._add(host.key)

    def host_changed(self, host: HostRecord, old: HostRecord) -> None:
        """See L{IDirectoryListener}."""
        key = host.key
        self._records.setdefault(host.server, {})[key] = host
        self._gone.pop(key, None)
        if host.well is not old.well:
            self._said.pop(key, None)
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
        self._gone.pop(key, None)
        self._said.pop(key, None)
        self._objected.discard(key)
        self._drop(key, reason)

    # ILinkUser

    def link_up(self, link: OutgoingLink) -> None:
        """See L{ILinkUser<reverseproxy.fleet.outgoing_link.ILinkUser>}."""
        self._turns.add(self._add, list(self._records.get(link.server, ())))

    def link_down(self, link: OutgoingLink, reason: str) -> None:
        """See L{ILinkUser<reverseproxy.fleet.outgoing_link.ILinkUser>}."""
        keys = list(self._records.get(link.server, ()))
        for key in keys:
            # The new link's first words say how they are.
            self._gone.pop(key, None)
            self._said.pop(key, None)
        # Balancers choose none of them from now on (FleetView.reaches), so that there is time to remove them.
        self._turns.add(partial(self._unreached, f"server {link.server} can't be reached: {reason}"), keys)

    def _unreached(self, reason: str, key: HostKey) -> None:
        self._drop(key, reason)
        self._add(key)  # if the server can be reached again already

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
            return  # the directory is slower, and will say so itself
        if message.get("gone") is True:
            self._gone[key] = None
            self._drop(key, "its server says that it is gone")
        elif isinstance(message.get("well"), bool):
            self._gone.pop(key, None)
            self._said[key] = message["well"]
            host = self.hosts.get(key)
            if host is None:
                self._add(key)
            else:
                self._judge(host)

    def _leave_alone(self, server: str, message: Mapping[str, Any]) -> None:
        """A server of a later version says what is not known here; once is enough to say so."""
        if server not in self._strange:
            self._strange.add(server)
            log.debug(
                "fleet: server {server} says what is not known here, which is left alone: {names}",
                server=server,
                names=shorten(", ".join(message)),
            )

    # clusters

    def share(self, cluster: Cluster) -> None:
        """There is a cluster that was not there before."""
        cluster.add_task(_Leavers(self._left))
        known = [key for records in self._records.values() for key in records if key.cluster == cluster.name]
        self._turns.add(self._add, known)

    def _record(self, key: HostKey) -> HostRecord | None:
        return self._records.get(key.server, {}).get(key)

    def _add(self, key: HostKey) -> None:
        record = self._record(key)
        link = self.links.get(key.server)
        if (
            record is None
            or key in self.hosts
            or key in self._gone
            or link is None
            or not link.usable
            or key.cluster not in self._clusters
        ):
            return
        if objection := self._objection(record):
            self._object(record, objection)
            return
        self._objected.discard(key)
        cluster = self._clusters.get(key.cluster)
        host = RemoteHost(link, record, self._weight(cluster, record), self._traffic, self._host_gone)
        host.health.service_up = self._is_well(record, link)
        self.hosts[key] = host
        cluster.add_host(host)

    def _object(self, record: HostRecord, reason: str) -> None:
        if record.key not in self._objected:
            self._objected.add(record.key)
            log.warn(
                "fleet: cluster {cluster} sends nothing to {agent} of server {server}: {reason}",
                agent=str(record.identity),
                server=record.server,
                cluster=record.cluster,
                reason=reason,
            )

    @staticmethod
    def _weight(cluster: Cluster, record: HostRecord) -> int:
        """What all connections of an agent together weigh."""
        each = record.weight if goes_by_weight(cluster.config) else 1
        return each * record.connections

    def _is_well(self, record: HostRecord, link: OutgoingLink) -> bool:
        """Whether a host is to be used while there are others that are well."""
        said = self._said.get(record.key, record.well)
        return said and not link.leaving and not link.record.draining

    def _judge(self, host: RemoteHost) -> None:
        record = self._record(host.key)
        if record is not None and host.cluster is not None:
            well = self._is_well(record, host.link)
            host.cluster.service_health.report(host, well, "its server says so, or is about to leave")

    def _judge_all(self, server: str) -> None:
        """Judge all hosts of a server; once, however often that is wanted before it begins."""
        if server not in self._judging:
            self._judging.add(server)
            self._turns.add(self._begin_to_judge, [server])

    def _begin_to_judge(self, server: str) -> None:
        self._judging.discard(server)
        self._turns.add(self._judge_known, list(self._records.get(server, ())))

    def _judge_known(self, key: HostKey) -> None:
        host = self.hosts.get(key)
        if host is not None:
            self._judge(host)

    def _left(self, host: Host) -> None:
        """A host has left its cluster, perhaps as that is no more."""
        if isinstance(host, RemoteHost) and self.hosts.get(host.key) is host:
            del self.hosts[host.key]

    def _host_gone(self, host: RemoteHost, reason: str) -> None:
        if self.hosts.get(host.key) is host:
            del self.hosts[host.key]
        if host.cluster is not None:
            host.cluster.remove_host(host, reason)

    def _drop(self, key: HostKey, reason: str) -> None:
        """Begin nothing more with a host; what is under way is finished, if its connection lives."""
        host = self.hosts.pop(key, None)
        if host is not None and host.cluster is not None:
            host.cluster.remove_host(host, reason)

    def review(self) -> None:
        """See whether what speaks against agents is different now; once, as for L{_judge_all}."""
        if not self._reviews:
            self._reviews = True
            self._turns.add(self._begin_review, [None])

    def _begin_review(self, _: None) -> None:
        self._reviews = False
        for records in self._records.values():
            self._turns.add(self._review, list(records))

    def _review(self, key: HostKey) -> None:
        record = self._record(key)
        objection = "" if record is None else self._objection(record)
        if record is not None and objection and key in self.hosts:
            self._object(record, objection)
            self._drop(key, objection)
        elif not objection and key in self._objected:
            self._add(key)

    def stop(self) -> None:
        """Let go of all of them."""
        self._turns.clear()
        self._judging.clear()
        self._reviews = False
        for key in list(self.hosts):
            self._drop(key, "stopping")
