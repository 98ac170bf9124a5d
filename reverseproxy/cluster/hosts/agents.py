"""What hosts have in common that agents bring."""

from __future__ import annotations

__all__ = ["AgentHost"]

from collections.abc import Callable, Mapping
from typing import Any

from reverseproxy.cluster.hosts.base import Host


class AgentHost(Host):
    """A host that an agent has brought, and that leaves its cluster once."""

    __slots__ = ("_left", "_on_gone")

    is_reverse = True

    def __init__(
        self,
        address: str,
        hostname: str,
        weight: int,
        metadata: Mapping[str, str] | None,
        capacity: int | None,
        on_gone: Callable[[Any, str], object],
    ) -> None:
        """
        @param on_gone: called once with this host and a reason, as soon as it can take no
            further request, such as L{Cluster.remove_host}.
        """
        super().__init__(address, hostname, weight, metadata, capacity)
        self._on_gone = on_gone
        self._left = False

    def _leave(self, reason: str) -> None:
        """Say that it can take no further request, if that has not been said."""
        if not self._left:
            self._left = True
            self._on_gone(self, reason)
