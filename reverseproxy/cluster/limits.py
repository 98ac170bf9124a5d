"""What a cluster may have at once."""

from __future__ import annotations

__all__ = ["Limits"]

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reverseproxy.config.models import ClusterConfig


class Limits:
    """
    The bounds of one cluster, and the retries that are counted against theirs.

    @ivar max_requests: requests under way.
    @ivar max_waiting: requests that wait for a host.
    @ivar max_connections: connections of each host, or sessions of the cluster; 0 for any number.
    @ivar retries: retries under way.
    @ivar retried: how many there have ever been.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.max_requests = self._max_retries = sys.maxsize
        self.max_waiting = self.max_connections = 0
        self.retries = self.retried = 0

    def configure(self, config: ClusterConfig) -> None:
        """Go on with those of another configuration."""
        self.max_requests = config.max_requests or sys.maxsize
        self.max_waiting = config.max_pending_requests
        self._max_retries = config.limits.max_retries or sys.maxsize
        self.max_connections = config.limits.max_connections

    def may_open(self, active: int) -> bool:
        """
        Say whether another session may begin, by C{max_connections}.

        For protocols each of whose sessions takes a connection for itself: there the whole
        cluster's are counted, as MOSN's tcp_proxy does.

        @param active: how many there are.
        """
        return not self.max_connections or active < self.max_connections

    def try_retry(self) -> bool:
        """
        Ask to send a request again, by C{max_retries}.

        @return: whether it may be; if so, L{end_retry} must be called when that
            attempt is over.
        """
        if self.retries >= self._max_retries:
            return False
        self.retries += 1
        self.retried += 1
        return True

    def end_retry(self) -> None:
        """
        A retry is over.

        @raise ValueError: if there is none.
        """
        if not self.retries:
            raise ValueError(f"a retry of cluster {self._name} ended more often than it began")
        self.retries -= 1
