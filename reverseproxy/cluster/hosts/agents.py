"""What hosts have in common that agents bring."""

from __future__ import annotations

__all__ = ["AgentHost"]

from collections.abc import Callable
from typing import Any

from reverseproxy.cluster.hosts.base import Host


class AgentHost(Host):
    """A host that an agent has brought, and that leaves its cluster once."""

    __slots__ = ("_left", "_on_gone")

    is_reverse = True

    _on_gone: Callable[[Any, str], object]
    _left: bool

    def _leave(self, reason: str) -> None:
        """Say that it can take no further request, if that has not been said."""
        if not self._left:
            self._left = True
            self._on_gone(self, reason)
