"""The state and the metrics of a fleet: its servers, the links to them, and its directory."""

from __future__ import annotations

__all__ = ["fleet_families", "fleet_of", "merge_fleets"]

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from reverseproxy.admin.families import Family

if TYPE_CHECKING:
    from reverseproxy.admin.inspector import Parts
    from reverseproxy.fleet.directory import Figures

PREFIX: Final = "reverseproxy_fleet_"

_KNOWN: Final = {
    "servers": "Known other servers.",
    "held": "Known other servers without a record in the directory that can still be reached.",
    "hosts": "Agents connected to other servers.",
    "published": "Agents of this server that are published in the directory.",
    "waiting": "Records not written to the directory yet.",
}
_COUNTED: Final = {
    "leases": "Leases granted by etcd; a new one replaces a lost one.",
    "puts": "Records written to the directory.",
    "deletes": "Records deleted from the directory.",
    "events": "Changes reported by etcd.",
    "resyncs": "Complete reads of the directory, instead of changes alone.",
    "requests": "Requests to etcd.",
    "failures": "Requests that an endpoint of etcd did not answer.",
    "bad_records": "Invalid records of other servers, which are ignored.",
}
_LINKS: Final = (
    ("forwarded", "forwarded_total", "counter", "Streams forwarded to agents of a server."),
    ("received", "received_total", "counter", "Streams received from a server, for agents of this one."),
    ("refused", "refused_total", "counter", "Streams received from a server, and refused."),
    ("losses", "link_losses_total", "counter", "Links to a server that were lost."),
    ("in_flight", "streams", "gauge", "Streams to and from a server that are in progress."),
)


def _figures(parts: Parts) -> Figures | None:
    fleet = parts.fleet()
    if fleet is None:
        return None
    from reverseproxy.fleet.directory import FleetDirectory  # which is not loaded without a fleet

    directory = fleet.directory
    return directory.figures if isinstance(directory, FleetDirectory) else None


def fleet_of(parts: Parts, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
    """
    Describe the fleet, from the point of view of one process.

    @return: C{server}, C{directory} and C{servers}; L{None} without a fleet.
    """
    fleet = parts.fleet()
    if fleet is None:
        return None
    figures = _figures(parts)
    return {
        "server": fleet.id,
        "directory": None if figures is None else dataclasses.asdict(figures),
        "servers": fleet.peers(),
    }


def merge_fleets(answers: Iterable[tuple[int, Mapping[str, Any] | None]]) -> dict[str, Any]:
    """
    Merge the descriptions of the fleet by several workers.

    Counters are added.  Of the numbers of known records, which all workers share, the
    largest is kept.  Each worker has its own links, which are listed one by one.

    @param answers: the workers' answers with their numbers; 0 for the only process.
    """
    found: dict[str, Any] = {"server": None, "directory": None, "servers": []}
    for worker, answer in answers:
        if answer is None:
            continue
        found["server"] = answer["server"]
        found["servers"] += [{**each, "worker": worker or None} for each in answer["servers"]]
        directory = answer["directory"]
        if directory is not None:
            known = found["directory"]
            found["directory"] = directory if known is None else _merge(known, directory)
    found["servers"].sort(key=lambda each: (each["server"], each["worker"] or 0))
    return found


def _merge(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    merged = {name: max(value, other[name]) for name, value in one.items()}
    merged |= {name: one[name] + other[name] for name in _COUNTED}
    merged["up"] = one["up"] and other["up"]
    return merged


def fleet_families(parts: Parts) -> Iterator[Family]:
    """Return the metrics of the fleet; none without a fleet."""
    fleet, figures = parts.fleet(), _figures(parts)
    if figures is not None:
        down = Family(f"{PREFIX}directory_down", "largest", "1 if etcd can't be reached, else 0.")
        down.add(0 if figures.up else 1)
        yield down
        for name, text in _KNOWN.items():
            family = Family(f"{PREFIX}{name}", "largest", text)
            family.add(getattr(figures, name))
            yield family
        for name, text in _COUNTED.items():
            family = Family(f"{PREFIX}directory_{name}_total", "counter", text)
            family.add(getattr(figures, name))
            yield family
    if fleet is None:
        return
    peers = fleet.peers()
    linked = Family(f"{PREFIX}links", "gauge", "Links to a server, by state.", ("server", "state"))
    for peer in peers:
        linked.add(1, peer["server"], peer["state"])
    yield linked
    for name, metric, kind, text in _LINKS:
        family = Family(f"{PREFIX}{metric}", kind, text, ("server",))
        for peer in peers:
            family.add(peer[name], peer["server"])
        yield family
