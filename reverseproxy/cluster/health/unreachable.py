"""
Log hosts that can't be connected to: one line when that begins, and one when it ends.

However many requests fail to connect, there is one line.
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
    The members of one cluster that can't be connected to.

    @ivar hosts: these hosts, each with the time of the first failure, in the clock's
        seconds, and the number of failures since then.
    """

    def __init__(self, cluster: str, seconds: Callable[[], float]) -> None:
        self._cluster = cluster
        self._seconds = seconds
        self.hosts: dict[Host, tuple[float, int]] = {}

    def note(self, host: Host, reason: str) -> None:
        """
        Take note of a failed connect to a host.

        For hosts of agents only at the level DEBUG: their loss is logged when they leave.
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
        if host.cluster is not None:  # a removed host would never be forgotten
            self.hosts[host] = (self._seconds(), 1)
        log.warn(
            "cluster {cluster}: host {host} can't be reached: {reason}",
            cluster=self._cluster,
            host=host.address,
            reason=reason,
        )

    def reached(self, host: Host) -> None:
        """Take note of a successful connect to a host."""
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
        """Forget a host that has left."""
        self.hosts.pop(host, None)
