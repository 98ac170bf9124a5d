"""
Hosts by name: a cluster of type STRICT_DNS has all addresses that its names have.

Each address is a host of its own.  Hosts come and go as the answers change; when
a name can't be looked up, its hosts stay.
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
    Hosts that the configuration has as one name.

    @ivar name: the name.
    @ivar port: their port.
    @ivar make: makes the host at an address such as C{"10.0.0.1:8080"}.
    @ivar kind: what these hosts have in common; those of another kind are others,
        though they may have the same address.
    """

    name: str
    port: int
    make: Callable[[str], Host]
    kind: object = None


@implementer(IClusterTask)
class StrictDns:
    """Keeps the hosts of one cluster in accord with its names."""

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
        @param entries: the names; of entries with an address in common the
            first one has it.
        @param resolve: begins to look a name up.
        @param random: numbers from 0 to 1, which spread the lookups.
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
        """The hosts that we have added, by address, each with its kind."""

    def take_over(self, other: StrictDns) -> None:
        """
        Go on with what another one knows, which has been stopped.

        To be called before L{start}.  Hosts that no name has any more go once all names
        have been looked up, or are known.
        """
        self._known = other._known
        self._hosts = other._hosts

    def start(self) -> None:
        """Begin to look the names up; see L{IClusterTask}."""
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
        if self._hosts and all(name.addresses for name in self._names.values()):
            self._changed()
        for name in list(self._names.values()):
            name.look_up()

    def withdraw(self, reason: str) -> None:
        """Let go of all hosts, after it was stopped."""
        hosts, self._hosts = self._hosts, {}
        for _, host in hosts.values():
            self._cluster.remove_host(host, reason)

    def stop(self) -> None:
        """Look up no more; the hosts stay; see L{IClusterTask}."""
        for name in self._names.values():
            name.stop()
        self._known = {name: each.addresses for name, each in self._names.items()}
        self._names.clear()
        self._stopped()

    def joined(self, host: Host) -> None:
        """Nothing to do; see L{IClusterTask}."""

    def left(self, host: Host) -> None:
        """Nothing to do; see L{IClusterTask}."""

    def _changed(self) -> None:
        cluster = self._cluster
        wanted: dict[str, NamedHosts] = {}
        for entry in self._entries:
            for ip in self._names[entry.name].addresses:
                wanted.setdefault(join_host_port(ip, entry.port), entry)
        # New ones first, so that the cluster is not without hosts in between.
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
