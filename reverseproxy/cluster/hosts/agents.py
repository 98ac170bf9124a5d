"""The base classes of hosts that agents bring."""

from __future__ import annotations

__all__ = ["AgentHost", "HeldHost"]

from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from reverseproxy.cluster.hosts.base import Host
from reverseproxy.metrics import UNCOUNTED

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProtocol

    from reverseproxy.cluster.handover import Handover
    from reverseproxy.identity import AgentIdentity
    from reverseproxy.metrics import Counters


class AgentHost(Host):
    """
    A host that an agent has brought, with a callback for when it can take no further request.

    Its connection may be in this process, in another worker, or at another server.
    """

    __slots__ = ("_left", "_on_gone", "announced", "counters", "identity", "same_agent", "tells")

    is_reverse = True

    announced: frozenset[str] | None
    counters: Counters
    identity: AgentIdentity | None
    same_agent: Collection[Host]
    tells: bool

    def __init__(
        self,
        on_gone: Callable[[Any, str], object],
        address: str,
        hostname: str,
        weight: int,
        metadata: Mapping[str, str] | None,
        capacity: int | None = None,
    ) -> None:
        """
        @param on_gone: called once with this host and a reason as soon as it can take no
            further request; for example L{Cluster.remove_host}.
        """
        super().__init__(address, hostname, weight, metadata, capacity)
        self._on_gone = on_gone
        self._left = False
        self.announced = self.identity = None
        self.counters = UNCOUNTED
        self.same_agent = ()
        self.tells = False

    def _leave(self, reason: str) -> None:
        """Call C{on_gone}, if it has not been called."""
        if not self._left:
            self._left = True
            self._on_gone(self, reason)


class HeldHost(AgentHost):
    """A host whose connection is in this process."""

    __slots__ = ()

    @property
    @abstractmethod
    def receiver(self) -> IProtocol:
        """The protocol that receives the bytes of the agent."""

    def attach(self, owner: Handover, surplus: bytes = b"") -> None:
        """
        Take the connection over from the protocol that has it.

        @param surplus: bytes that were received already.
        """
        owner.hand_over(self.receiver, surplus)
