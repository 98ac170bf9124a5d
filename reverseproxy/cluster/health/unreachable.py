"""
Hosts that can't be connected to: a line of the log when that begins, and one when it is over.

However many requests find out that a host can't be reached, that is one fact.
"""

from __future__ import annotations

__all__ = ["UnreachableHosts"]

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.logger import Logger

from reverseproxy.logs import counted

if TYPE_CHECKING:
    from reverseproxy.cluster.host import Host

log = Logger()


class UnreachableHosts:
    """
    Remembers the members of one cluster that can't be reached.

    @ivar hosts: these, each with when that was found out, in the clock's
        seconds, and how often since then.
    """

    def __init__(self, cluster: str, seconds: Callable[[], float]) -> None:
        self._cluster = cluster
        self._seconds = seconds
        self.hosts: dict[Host, tuple[float, int]] = {}

    def note(self, host: Host, reason: str) -> None:
        """
        A connection to a host could not be made.

        Of an agent's, nothing is said: what ends it is told when it leaves.
        """
        if host.is_reverse:
            log.debug(
                "cluster {cluster}: host {host} takes no request: {reason}",
                cluster=self._cluster,
                host=host.address,
                reason=reason,
            )
            return
        known = self.hosts.get(host)
        if known is not None:
            self.hosts[host] = (known[0], known[1] + 1)
            return
        if host.cluster is not None:  # else it would be remembered for ever
            self.hosts[host] = (self._seconds(), 1)
        log.warn(
            "cluster {cluster}: host {host} can't be reached: {reason}",
            cluster=self._cluster,
            host=host.address,
            reason=reason,
        )

    def reached(self, host: Host) -> None:
        """A connection to a host was made."""
        known = self.hosts.pop(host, None)
        if known is not None:
            log.info(
                "cluster {cluster}: host {host} can be reached again, after {seconds:.1f} s and {attempts}",
                cluster=self._cluster,
                host=host.address,
                seconds=self._seconds() - known[0],
                attempts=counted(known[1], "failed attempt"),
            )

    def forget(self, host: Host) -> None:
        """A host has left."""
        self.hosts.pop(host, None)
