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
from reverseproxy.names import NameFollower

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
    """

    name: str
    port: int
    make: Callable[[str], Host]


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
        self._names: dict[str, NameFollower] = {}
        self._hosts: dict[str, Host] = {}
        """The hosts that we have added, by address."""

    def start(self) -> None:
        """Begin to look the names up; see L{IClusterTask}."""
        config = self._cluster.config
        self._cluster.expect(config.connect_timeout)
        for entry in self._entries:
            if entry.name not in self._names:
                self._names[entry.name] = NameFollower(
                    entry.name,
                    self._resolve,
                    self._clock,
                    self._changed,
                    config.dns_refresh_rate,
                    self._random,
                    respect_lifetime=config.respect_dns_ttl,
                )
        for name in list(self._names.values()):
            name.look_up()

    def stop(self) -> None:
        """Look up no more; the hosts stay; see L{IClusterTask}."""
        for name in self._names.values():
            name.stop()
        self._names.clear()
        self._stopped()

    def joined(self, host: Host) -> None:
        """Nothing to do; see L{IClusterTask}."""

    def left(self, host: Host) -> None:
        """Nothing to do; see L{IClusterTask}."""

    def _changed(self) -> None:
        cluster = self._cluster
        wanted: dict[str, Callable[[str], Host]] = {}
        for entry in self._entries:
            for ip in self._names[entry.name].addresses:
                wanted.setdefault(join_host_port(ip, entry.port), entry.make)
        # New ones first, so that the cluster is not without hosts in between.
        for address, make in wanted.items():
            if address not in cluster.hosts:
                host = self._hosts[address] = make(address)
                cluster.add_host(host)
        for address in [address for address in self._hosts if address not in wanted]:
            cluster.remove_host(self._hosts.pop(address), "no name has its address any more")
