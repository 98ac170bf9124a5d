"""Merge the answers of several workers about the same agents, hosts, routes and named items; pure."""

from __future__ import annotations

__all__ = [
    "is_away",
    "merge_agent_routes",
    "merge_agents",
    "merge_by_name",
    "merge_hosts",
    "rounded",
    "shown",
]

from collections.abc import Iterable, Mapping
from typing import Any, Final

from reverseproxy.admin.agent_descriptions import MOST_ADDRESSES
from reverseproxy.admin.slices import Steps
from reverseproxy.metrics.latency import quantile

STRIDE: Final = 20
"""How many agents are merged in one step; see L{reverseproxy.admin.slices}."""

_ADDED: Final = ("connections", "healthy", "streams", "in_flight")
_SHARED: Final = ("joined", "left")
_UNIONS: Final = ("clusters", "addresses", "workers")
_INTERNAL: Final = frozenset({"targets", "times", "ends"})


def merge_agents(answers: Iterable[tuple[int, Mapping[str, Any]]]) -> Steps[list[dict[str, Any]]]:
    """
    Merge the agents of several workers.

    @param answers: the workers' pages of agents, with their numbers; 0 for the only process.
    @return: the agents, in the order of their ids; see L{is_away}.
    """
    agents: dict[str, dict[str, Any]] = {}
    for worker, answer in answers:
        for index, found in enumerate(answer["agents"]):
            if index % STRIDE == 0:
                yield
            agent = {**found, "workers": [worker] if worker and found["connections"] else []}
            known = agents.get(agent["id"])
            agents[agent["id"]] = agent if known is None else _merge(known, agent)
    return [agents[key] for key in sorted(agents)]


def is_away(agent: Mapping[str, Any]) -> bool:
    """
    Whether none of the workers that have answered has any of an agent's connections.

    Then the connections were being handed from one worker to another, or are closed, or their worker has not
    answered.
    """
    return not agent["connections"] and not agent["elsewhere"]


def merge_hosts(answers: Iterable[tuple[int, Iterable[Mapping[str, Any]]]]) -> list[dict[str, Any]]:
    """
    Merge the hosts of several workers, in the order of their addresses, each with the number of its worker.

    A host that is C{relayed} according to all workers is listed once.
    """
    known = [{**item, "worker": worker or None} for worker, items in answers for item in items]
    there = {item["address"] for item in known if not item["relayed"]}
    away = {item["address"]: item for item in known if item["address"] not in there}
    found = [*(item for item in known if not item["relayed"]), *away.values()]
    return sorted(found, key=lambda item: (item["address"], item["worker"] or 0))


def _merge(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    # The worker that has the connections knows more than one that only uses them.
    known, other = (other, one) if other["connections"] and not one["connections"] else (one, other)
    for name in _ADDED:
        known[name] += other[name]
    known["most_connections"] = max(known["most_connections"], other["most_connections"])  # of all workers
    for name in _UNIONS:
        known[name] = sorted({*known[name], *other[name]})[: MOST_ADDRESSES if name == "addresses" else None]
    for name in ("ends", "bytes"):
        known[name] = _add_up(known[name], other[name])
    known["times"] = [a + b for a, b in zip(known["times"], other["times"], strict=True)]
    known["since"] = _of(min, known["since"], other["since"])
    known["elsewhere"] = {**known["elsewhere"], **other["elsewhere"]}  # all workers know the same
    known["rtt_seconds"] = _of(min, known["rtt_seconds"], other["rtt_seconds"])
    known["last_seen"] = _of(max, known["last_seen"], other["last_seen"])
    known["last_error"] = _latest(known["last_error"], other["last_error"])
    known["mux"] = known["mux"] or other["mux"]
    known["excluded"] = known["excluded"] or other["excluded"]
    return known


def _of(choose: Any, one: float | None, other: float | None) -> float | None:
    known = [each for each in (one, other) if each is not None]
    chosen: float | None = choose(known) if known else None
    return chosen


def shown(agent: Mapping[str, Any]) -> dict[str, Any]:
    """Return an agent as the API shows it: without internal keys, and with the numbers derived from those."""
    ends: Mapping[str, int] = agent["ends"]
    return {
        **{name: value for name, value in agent.items() if name not in _INTERNAL},
        "requests": sum(ends.values()),
        "requests_by_class": dict(sorted(ends.items())),
        "errors": ends.get("5xx", 0),
        "p50_seconds": rounded(quantile(agent["times"], 0.5)),
        "p99_seconds": rounded(quantile(agent["times"], 0.99)),
    }


def rounded(seconds: float | None) -> float | None:
    """Round a time to the three digits that are known."""
    return None if seconds is None else float(f"{seconds:.3g}")


def merge_by_name(answers: Iterable[Iterable[Mapping[str, Any]]]) -> Steps[list[dict[str, Any]]]:
    """
    Merge items of equal names, such as the clusters of several workers.

    Numbers are added, also those in C{dials}; of C{joined} and C{left} the largest is kept, as each worker
    counts the hosts of all, of C{last_error} the latest, and of C{next_dial_seconds} the smallest; other
    values are those of the first item.

    @return: the items, in the order of their names.
    """
    found: dict[str, dict[str, Any]] = {}
    for answer in answers:
        for index, item in enumerate(answer):
            if index % STRIDE == 0:
                yield
            known = found.get(item["name"])
            if known is None:
                found[item["name"]] = dict(item)
            else:
                _add_item(known, item)
    return [found[name] for name in sorted(found)]


def _add_item(known: dict[str, Any], item: Mapping[str, Any]) -> None:
    for name, value in item.items():
        if type(value) is int:
            known[name] = max(known[name], value) if name in _SHARED else known[name] + value
    if "dials" in item:
        known["dials"] = _add_up(known["dials"], item["dials"])
        known["last_error"] = _latest(known["last_error"], item["last_error"])
        known["next_dial_seconds"] = _of(min, known["next_dial_seconds"], item["next_dial_seconds"])


def _add_up(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}


def _latest(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return the later of two errors."""
    return max((each for each in (one, other) if each is not None), key=_time_of, default=None)


def _time_of(error: Mapping[str, Any]) -> float:
    return float(error["time"])


def merge_agent_routes(answers: Iterable[Iterable[Mapping[str, Any]]]) -> Steps[list[dict[str, Any]]]:
    """
    Merge the agents' routes of several workers, each of which knows all routes.

    The numbers of connections are added; C{ends_in} is the largest, and L{None} while there is a connection.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for answer in answers:
        for index, item in enumerate(answer):
            if index % STRIDE == 0:
                yield
            known = found.get((item["listener"], item["cluster"]))
            if known is None:
                found[item["listener"], item["cluster"]] = dict(item)
                continue
            known["connections"] += item["connections"]
            known["ends_in"] = None if known["connections"] else _of(max, known["ends_in"], item["ends_in"])
    return list(found.values())
