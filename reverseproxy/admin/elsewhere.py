"""The agents of other servers of a fleet, as the directory knows them."""

from __future__ import annotations

__all__ = ["Elsewhere", "describe", "where", "who_is"]

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from sortedcontainers import SortedList
from zope.interface import implementer

from reverseproxy.fleet.interfaces import IDirectoryListener
from reverseproxy.fleet.records import HostKey, HostRecord, ServerRecord
from reverseproxy.identity import AgentIdentity
from reverseproxy.metrics import AgentFigures
from reverseproxy.metrics.latency import class_names, classes_of
from reverseproxy.tunnel.server.exclusion_records import target_of

Records = Collection[HostRecord]


@implementer(IDirectoryListener)
class Elsewhere:
    """
    Agents among the hosts of other servers, by what operators call them.

    A directory tells it of each that comes and goes, so that to find one, or a page of them, takes no
    look at all the others, of which there may be a million.
    """

    def __init__(self) -> None:
        # Nearly all agents are one host at one other server, which needs no dictionary of its own.
        self._known: dict[str, HostRecord | dict[HostKey, HostRecord]] = {}
        self._names = SortedList()

    def of(self, handle: str) -> Records:
        """The hosts that an agent is at other servers; empty if it is at none."""
        known = self._known.get(handle)
        if known is None:
            return ()
        return (known,) if isinstance(known, HostRecord) else tuple(known.values())

    def names(self, after: str) -> Iterator[str]:
        """What agents are called that come after one, in order; to be read before any comes or goes."""
        found: Iterator[str] = self._names.irange(after, None, (False, True))
        return found

    # IDirectoryListener

    def server_came(self, server: ServerRecord) -> None:
        """See L{IDirectoryListener}."""

    def server_changed(self, server: ServerRecord, old: ServerRecord) -> None:
        """See L{IDirectoryListener}."""

    def server_left(self, server: ServerRecord, reason: str) -> None:
        """See L{IDirectoryListener}; its hosts have been told before."""

    def host_came(self, host: HostRecord) -> None:
        """See L{IDirectoryListener}."""
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
        """See L{IDirectoryListener}."""
        if host.handle != old.handle:
            self.host_left(old, "it is called otherwise")
        self.host_came(host)

    def host_left(self, host: HostRecord, reason: str) -> None:
        """See L{IDirectoryListener}."""
        known = self._known.get(host.handle)
        if isinstance(known, dict):
            known.pop(host.key, None)
            if known:
                return
        elif known is None or known.key != host.key:
            return
        del self._known[host.handle]
        self._names.remove(host.handle)


def where(records: Iterable[HostRecord]) -> dict[str, dict[str, Any]]:
    """Say at which servers an agent is, and over how many connections."""
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        at = found.setdefault(record.server, {"connections": 0, "healthy": False, "clusters": set()})
        at["connections"] += record.connections
        at["healthy"] = at["healthy"] or record.well
        at["clusters"].add(record.cluster)
    return {server: {**at, "clusters": sorted(at["clusters"])} for server, at in found.items()}


def who_is(identity: AgentIdentity) -> dict[str, Any]:
    """Say who an agent has proved to be, and what it calls itself."""
    certificate = identity.certificate
    return {
        "identity": identity.principal,
        "proved": identity.proved,
        "token": identity.name or None,
        "policy": identity.policy or None,
        "certificate": None
        if certificate is None
        else {"subject": certificate.subject, "names": list(certificate.names)},
        "claimed_host_name": identity.claim,
    }


def describe(handle: str, records: Records) -> dict[str, Any]:
    """
    Say what is known of an agent that has no connection here: who it is, and where.

    @return: what those of this server are described by; what is counted at its server is left out.
    """
    first = next(iter(records))
    identity = first.identity or AgentIdentity()
    figures = AgentFigures()
    return {
        "id": handle,
        **who_is(identity),
        "agent_id": None,
        "kind": "reverseproxy" if identity.version else "mosn",
        "version": identity.version,
        "tls": None,
        "clusters": sorted({record.cluster for record in records}),
        "most_connections": 0,
        "ends": class_names(classes_of(figures.ends)),
        "times": figures.lately(0.0),
        "bytes": {"received": 0, "sent": 0},
        "last_error": None,
        "weight": first.weight,
        "excluded": None,
        "targets": _targets(identity),
        "workers": [],
        "addresses": [],
        "connections": 0,
        "healthy": 0,
        "streams": 0,
        "mux": first.mode == "streams",
        "in_flight": 0,
        "since": None,
        "last_seen": None,
        "rtt_seconds": None,
        "elsewhere": where(records),
    }


def _targets(identity: AgentIdentity) -> dict[str, list[str]]:
    """By what an agent may be kept out, as far as that is known here; its address is not."""
    known = {"identity": target_of(identity, ""), "process": target_of(identity, "", process=True)}
    return {name: list(target) for name, target in known.items() if target[0] != "address"}
