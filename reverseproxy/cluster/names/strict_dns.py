"""
Clusters of type STRICT_DNS: their hosts are all addresses that their names resolve to.

Each address is a host of its own.  Hosts are added and removed as the answers change;
while a name can't be resolved, its hosts stay.
"""

from __future__ import annotations

__all__ = ["NamedHosts", "StrictDns"]

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorTime, IResolutionReceiver
from twisted.logger import Logger
from zope.interface import implementer

from reverseproxy.addresses import join_host_port
from reverseproxy.cluster.host import Host
from reverseproxy.cluster.manager import IClusterTask
from reverseproxy.net.resolver import ReresolvingName

if TYPE_CHECKING:
    from reverseproxy.cluster.manager import Cluster

log = Logger()


@dataclass(frozen=True, slots=True)
class NamedHosts:
    """
    A name in the configuration, which resolves to hosts.

    @ivar name: the name.
    @ivar port: the port of its hosts.
    @ivar make: makes the host at an address such as C{"10.0.0.1:8080"}.
    @ivar kind: their L{host_kind<reverseproxy.cluster.building.host_kind>}: a host of another
        kind is replaced, even at the same address.
    """

    name: str
    port: int
    make: Callable[[str], Host]
    kind: object = None


@implementer(IClusterTask)
class StrictDns:
    """The task that resolves the names of one cluster, and updates its hosts."""

    def __init__(
        self,
        cluster: Cluster,
        entries: Iterable[NamedHosts],
        resolve: Callable[[IResolutionReceiver, str], object],
        clock: IReactorTime,
        random: Callable[[], float],
        stopped: Callable[[], object] = lambda: None,
    ) -> None:
        """
        @param entries: the names; an address that several resolve to belongs to the first.
        @param resolve: resolves a name, again and again.
        @param random: numbers from 0 to 1, for the jitter between lookups.
        @param stopped: called when there will be no more lookups.
        """
        self._cluster = cluster
        self._entries = tuple(entries)
        self._resolve = resolve
        self._clock = clock
        self._random = random
        self._stopped = stopped
        self._names: dict[str, ReresolvingName] = {}
        self._known: dict[str, tuple[str, ...]] = {}
        self._hosts: dict[str, tuple[object, Host]] = {}
        """The hosts that this task has added, by address, each with its kind."""

    def take_over(self, other: StrictDns) -> None:
        """
        Take over the addresses and hosts of another one, which has been stopped.

        To be called before L{start}.  Hosts that no name resolves to any more are removed once
        all names have been resolved, or their addresses taken over.
        """
        self._known = other._known
        self._hosts = other._hosts

    def start(self) -> None:
        """Start resolving the names; see L{IClusterTask}."""
        config = self._cluster.config
        self._cluster.expect(config.connect_timeout)
        for entry in self._entries:
            if entry.name not in self._names:
                self._names[entry.name] = ReresolvingName(
                    entry.name,
                    self._resolve,
                    self._clock,
                    self._changed,
                    config.dns_refresh_rate,
                    self._random,
                    respect_lifetime=config.respect_dns_ttl,
                )
                self._names[entry.name].addresses = self._known.get(entry.name, ())
        if all(name.addresses for name in self._names.values()):
            self._changed()
        for name in list(self._names.values()):
            name.look_up()

    def settle(self) -> None:
        """Add hosts at addresses that other hosts of the cluster have had."""
        if self._names:
            self._changed()

    def withdraw(self, reason: str) -> None:
        """Remove all hosts, after L{stop}."""
        hosts, self._hosts = self._hosts, {}
        for _, host in hosts.values():
            self._cluster.remove_host(host, reason)

    def stop(self) -> None:
        """Stop resolving; the hosts stay; see L{IClusterTask}."""
        for name in self._names.values():
            name.stop()
        self._known = {name: each.addresses for name, each in self._names.items()}
        self._names.clear()
        self._stopped()

    def joined(self, host: Host) -> None:
        """Do nothing; see L{IClusterTask}."""

    def left(self, host: Host) -> None:
        """Do nothing; see L{IClusterTask}."""

    def _changed(self) -> None:
        cluster = self._cluster
        wanted: dict[str, NamedHosts] = {}
        for entry in self._entries:
            for ip in self._names[entry.name].addresses:
                wanted.setdefault(join_host_port(ip, entry.port), entry)
        # Add before removing, so that the cluster is never without hosts.
        for address, entry in wanted.items():
            kind, old = self._hosts.get(address, (None, None))
            if old is not None and kind != entry.kind and cluster.hosts.get(address) is old:
                cluster.replace_host(old, entry.make(address), "its settings have changed")
                self._hosts[address] = entry.kind, cluster.hosts[address]
            elif address not in cluster.hosts:
                host = entry.make(address)
                self._hosts[address] = entry.kind, host
                cluster.add_host(host)
            elif old is not None:
                self._hosts[address] = entry.kind, old
        for address in [address for address in self._hosts if address not in wanted]:
            _, host = self._hosts.pop(address)
            cluster.remove_host(host, "no name has its address any more")
