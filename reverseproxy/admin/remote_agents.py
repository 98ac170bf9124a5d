"""The agents of other servers of a fleet, as the fleet's directory knows them."""

from __future__ import annotations

__all__ = ["RemoteAgents"]

from collections.abc import Collection, Iterator

from sortedcontainers import SortedList
from zope.interface import implementer

from reverseproxy.fleet.interfaces import IDirectoryListener
from reverseproxy.fleet.records import HostKey, HostRecord, ServerRecord


@implementer(IDirectoryListener)
class RemoteAgents:
    """
    An index of other servers' hosts, by the ids that the admin API has for their agents.

    The directory reports each change, so that finding an agent, or a page of agents, needs no scan of all
    others, of which there may be a million.
    """

    def __init__(self) -> None:
        # Nearly all agents are a single host at a single server, for which no dictionary is allocated.
        self._known: dict[str, HostRecord | dict[HostKey, HostRecord]] = {}
        self._names = SortedList()

    def of(self, handle: str) -> Collection[HostRecord]:
        """Return an agent's hosts at other servers; empty if there are none."""
        known = self._known.get(handle)
        if known is None:
            return ()
        return (known,) if isinstance(known, HostRecord) else tuple(known.values())

    def names(self, after: str) -> Iterator[str]:
        """Iterate over the ids after an id, in order; invalid as soon as an agent is added or removed."""
        found: Iterator[str] = self._names.irange(after, None, (False, True))
        return found

    # IDirectoryListener

    def server_came(self, server: ServerRecord) -> None:
        """See L{IDirectoryListener}; servers are of no interest here."""

    def server_changed(self, server: ServerRecord, old: ServerRecord) -> None:
        """See L{IDirectoryListener}; servers are of no interest here."""

    def server_left(self, server: ServerRecord, reason: str) -> None:
        """See L{IDirectoryListener}; L{host_left} has been called for each of its hosts before."""

    def host_came(self, host: HostRecord) -> None:
        """Add a host; see L{IDirectoryListener}."""
        handle = host.handle
        if not handle:
            return
        known = self._known.get(handle)
        if known is None:
            self._names.add(handle)
            self._known[handle] = host
        elif isinstance(known, dict):
            known[host.key] = host
        elif known.key == host.key:
            self._known[handle] = host
        else:
            self._known[handle] = {known.key: known, host.key: host}

    def host_changed(self, host: HostRecord, old: HostRecord) -> None:
        """Replace a host; see L{IDirectoryListener}."""
        if host.handle != old.handle:
            self.host_left(old, "its handle has changed")
        self.host_came(host)

    def host_left(self, host: HostRecord, reason: str) -> None:
        """Remove a host; see L{IDirectoryListener}."""
        known = self._known.get(host.handle)
        if isinstance(known, dict):
            known.pop(host.key, None)
            if known:
                return
        elif known is None or known.key != host.key:
            return
        del self._known[host.handle]
        self._names.remove(host.handle)
