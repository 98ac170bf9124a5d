"""Circuit breakers: the limits of requests, connections and retries of a cluster."""

from __future__ import annotations

__all__ = ["Limits"]

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reverseproxy.config.models import ClusterConfig


class Limits:
    """
    The limits of one cluster, and the count of its retries.

    @ivar max_requests: requests in progress.
    @ivar max_waiting: requests that wait for a host.
    @ivar max_connections: connections of each host, or sessions of the cluster; 0 for any number.
    @ivar retries: retries in progress.
    @ivar retried: the number of retries so far.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.max_requests = self._max_retries = sys.maxsize
        self.max_waiting = self.max_connections = 0
        self.retries = self.retried = 0

    def configure(self, config: ClusterConfig) -> None:
        """Apply the limits of another configuration."""
        self.max_requests = config.max_requests or sys.maxsize
        self.max_waiting = config.max_pending_requests
        self._max_retries = config.limits.max_retries or sys.maxsize
        self.max_connections = config.limits.max_connections

    def may_open(self, active: int) -> bool:
        """
        Return whether another session may begin, by C{max_connections}.

        For protocols whose sessions take a connection each: the sessions of the whole
        cluster are counted, as MOSN's tcp_proxy does.

        @param active: the number of sessions in progress.
        """
        return not self.max_connections or active < self.max_connections

    def try_retry(self) -> bool:
        """
        Count a retry, if C{max_retries} allows another.

        @return: whether it does; if so, L{end_retry} must be called when that attempt has
            ended.
        """
        if self.retries >= self._max_retries:
            return False
        self.retries += 1
        self.retried += 1
        return True

    def end_retry(self) -> None:
        """
        Count the end of a retry.

        @raise ValueError: if there is none in progress.
        """
        if not self.retries:
            raise ValueError(f"a retry of cluster {self._name} ended more often than it began")
        self.retries -= 1
