"""The agents of other servers of a fleet, as the directory knows them."""

from __future__ import annotations

__all__ = ["Elsewhere", "describe", "kinds", "where"]

from collections.abc import Callable, Collection, Container, Iterable
from heapq import nsmallest
from typing import Any, Final

from reverseproxy.admin.slices import Steps
from reverseproxy.fleet.records import HostRecord
from reverseproxy.identity import AgentIdentity
from reverseproxy.metrics import AgentFigures
from reverseproxy.metrics.latency import class_names, classes_of
from reverseproxy.tunnel.server.exclusions import target_of

STRIDE: Final = 500
"""How many records are looked at in one step; see L{reverseproxy.admin.slices}."""

Records = list[HostRecord]


class Elsewhere:
    """
    Finds agents among the hosts of other servers, by what operators call them.

    Nothing is kept for that: to look through a million of them takes a second, in short turns.
    """

    def __init__(self, hosts: Callable[[], Collection[HostRecord]]) -> None:
        """
        @param hosts: gives all hosts of other servers.
        """
        self._hosts = hosts

    def named(self, handles: Container[str]) -> Steps[dict[str, Records]]:
        """Find those of certain agents."""
        found: dict[str, Records] = {}
        for number, record in enumerate(list(self._hosts()), 1):
            if number % STRIDE == 0:
                yield
            if record.handle and record.handle in handles:
                found.setdefault(record.handle, []).append(record)
        return found

    def page(self, after: str, limit: int, wanted: Callable[[HostRecord], bool]) -> Steps[list[str]]:
        """
        Find the first agents that come after one.

        @param wanted: whether a host is to be found.
        @return: what they are called, in order.
        """
        found: set[str] = set()
        for number, record in enumerate(list(self._hosts()), 1):
            if number % STRIDE == 0:
                yield
                if len(found) > 4 * limit:
                    found = set(nsmallest(limit, found))
            if record.handle > after and wanted(record):
                found.add(record.handle)
        return nsmallest(limit, found)


def where(records: Iterable[HostRecord]) -> dict[str, dict[str, Any]]:
    """Say at which servers an agent is, and over how many connections."""
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        at = found.setdefault(record.server, {"connections": 0, "healthy": False, "clusters": []})
        at["connections"] += record.connections
        at["healthy"] = at["healthy"] or record.well
        at["clusters"] = sorted({*at["clusters"], record.cluster})
    return found


def describe(handle: str, records: Records) -> dict[str, Any]:
    """
    Say what is known of an agent that has no connection here: who it is, and where.

    @return: what those of this server are described by; what is counted at its server is left out.
    """
    first = records[0]
    identity = first.identity or AgentIdentity()
    certificate = identity.certificate
    figures = AgentFigures()
    return {
        "id": handle,
        "identity": identity.principal,
        "proved": identity.proved,
        "token": identity.name or None,
        "policy": identity.policy or None,
        "certificate": None
        if certificate is None
        else {"subject": certificate.subject, "names": list(certificate.names)},
        "claimed_host_name": identity.claim,
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


def kinds(cluster: str | None, identity: str | None) -> Callable[[HostRecord], bool]:
    """Make what says whether a host is of a cluster, and of an identity; L{None} for any."""

    def wanted(record: HostRecord) -> bool:
        if cluster and record.cluster != cluster:
            return False
        return not identity or (record.identity or AgentIdentity()).principal == identity

    return wanted
