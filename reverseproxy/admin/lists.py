"""Lists of one process's clusters, hosts, listeners, servers, agents' routes and refused joins."""

from __future__ import annotations

__all__ = [
    "agent_routes",
    "certificates",
    "clusters",
    "describe_certificates",
    "hosts",
    "listeners",
    "refused",
    "servers",
    "weigh",
    "without_infinity",
]

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Final

from reverseproxy.admin.paging import page_of_items
from reverseproxy.admin.slices import Steps, portions
from reverseproxy.admin.totals import fed_by_agents
from reverseproxy.clock import wall_time
from reverseproxy.cluster.cluster import Cluster
from reverseproxy.cluster.host import Fault, Host

if TYPE_CHECKING:
    from reverseproxy.admin.inspector import Parts
    from reverseproxy.tls.validity import Dated

STRIDE: Final = 200
"""How many hosts are counted in one step; see L{reverseproxy.admin.slices}."""

CLAIMS: Final = 30
"""How many of the agents' routes are described in one step."""

LOOK: Final = 5
"""How many hosts are described in one step."""

_FAULTS = {Fault.ORDERED: "ordered", Fault.CHECK: "health check", Fault.EJECTED: "ejected for failures"}


def clusters(parts: Parts, arguments: Mapping[str, Any]) -> Steps[dict[str, Any]]:
    """Return a page of the clusters, with their counters; a worker counts only its own hosts."""
    every = ({"name": each.name, "cluster": each} for each in list(parts.clusters))
    page = yield from page_of_items(every, arguments)
    found = []
    for item in page["items"]:
        yield
        name, cluster = item["name"], item["cluster"]
        hosts = healthy = 0
        for portion in portions(cluster.hosts.values(), STRIDE, partial(getattr, cluster, "left")):
            yield
            own = [host.healthy for host in portion if not host.is_remote]
            hosts += len(own)
            healthy += sum(own)
        found.append(
            {
                "name": name,
                "lb_type": cluster.config.lb_type,
                "hosts": hosts,
                "healthy": healthy,
                "in_flight": cluster.active,
                "waiting": cluster.waiting,
                "joined": cluster.joined,
                "left": cluster.left,
                "ejections": cluster.ejector.total,
                "retries": cluster.limits.retried,
            }
        )
    return {"items": found, "last": page["last"]}


def hosts(parts: Parts, arguments: Mapping[str, Any]) -> Steps[dict[str, Any] | None]:
    """
    Return a page of the hosts of one cluster.

    Of hosts that belong to other workers, only C{address} and C{relayed} are returned, as those workers
    describe them.  As a connection may move to another worker between two workers' answers, a second query
    with C{addresses} describes such hosts wherever they are.

    @param arguments: C{after} and C{limit} select the page; or C{addresses} lists the hosts, all of which are
        described.
    @return: C{items}, and C{last}: the address after which to continue, even if that host has left, or
        L{None} at the end.  L{None} if there is no such cluster.
    """
    if arguments["cluster"] not in parts.clusters:
        return None
    cluster = parts.clusters.get(arguments["cluster"])
    addresses = arguments.get("addresses")
    if addresses is None:
        first, last = yield from _first_hosts(
            cluster, arguments.get("after", ""), arguments.get("limit", 100)
        )
    else:
        first, last = addresses, None
    found = []
    for index, name in enumerate(first, 1):
        if index % LOOK == 0:
            yield
        host = cluster.hosts.get(name)
        if host is None:
            continue
        relayed = host.is_remote and not host.server
        if relayed and addresses is None:
            found.append({"address": name, "relayed": True})
        else:
            found.append({**_host(host, cluster.ejector.remaining(host)), "relayed": relayed})
    return {"items": found, "last": last}


def _first_hosts(cluster: Cluster, after: str, limit: int) -> Steps[tuple[list[str], str | None]]:
    """
    Find the first hosts of a cluster after an address.

    @return: their addresses, in order, and the last one if there may be more hosts.
    """
    first: list[str] = []
    for portion in portions(cluster.hosts.keys(), STRIDE, partial(getattr, cluster, "left")):
        yield
        for name in portion:
            place = bisect_left(first, name)
            if name > after and place < limit and first[place : place + 1] != [name]:
                first.insert(place, name)
                del first[limit:]
    return first, first[-1] if len(first) == limit else None


def _host(host: Host, ejected: float | None) -> dict[str, Any]:
    """
    Describe a host.

    @param ejected: how many seconds it remains ejected; L{None} if it is not.
    """
    identity = host.identity
    return {
        "address": host.address,
        "hostname": host.hostname if identity is None else None,
        "identity": None if identity is None else identity.principal,
        "claimed_host_name": None if identity is None else identity.claim,
        "state": host.state,
        "healthy": host.healthy,
        "faults": [text for fault, text in _FAULTS.items() if host.health.faults & fault],
        "why": None if host.healthy else host.health.why or None,
        "ejected_until": None if ejected is None else round(wall_time() + ejected, 3),
        "server": host.server or None,
        "weight": host.weight,
        "in_flight": host.active,
        "requests": host.picked,
        "streams": getattr(host, "streams", None),
        "rtt_seconds": host.rtt,
        "metadata": dict(host.metadata),
    }


def weigh(parts: Parts, arguments: Mapping[str, Any]) -> int | None:
    """
    Change the weight of a host.

    @param arguments: C{cluster}, C{address} and C{weight}.
    @return: the weight before; L{None} if there is no such host in this process.
    """
    if arguments["cluster"] not in parts.clusters:
        return None
    cluster = parts.clusters.get(arguments["cluster"])
    host = cluster.hosts.get(arguments["address"])
    if host is None or host.server:
        return None  # the weight of another server's agent can only be changed at that server
    before = host.weight
    cluster.weigh(host, arguments["weight"])
    return before


def listeners(parts: Parts, arguments: Mapping[str, Any]) -> Steps[dict[str, Any]]:
    """Return a page of the listeners."""
    fed = yield from fed_by_agents(parts)
    page = yield from page_of_items(
        (
            {
                "name": listener.config.name,
                "address": listener.bound or listener.config.address,
                "bound": listener.listening,
                "fed_by_agents": not listener.config.bind_port,
                "tls": bool(listener.config.filter_chain.tls_contexts),
                "connections": listener.connections + fed.get(listener.config.name, 0),
                "accepted": listener.accepted,
            }
            for listener in list(parts.listeners.values())
        ),
        arguments,
    )
    return page


def servers(parts: Parts, arguments: Mapping[str, Any]) -> Steps[dict[str, Any]]:
    """Return a page of the servers to which the agents of this process connect."""
    page = yield from page_of_items(
        (
            {
                "name": f"{agent.plan.config.cluster} at {server.name}",
                "cluster": agent.plan.config.cluster,
                "server": server.name,
                "hosting_listener": agent.plan.config.hosting_listener,
                "wanted": server.wanted,
                "serving": server.serving,
                "next_dial_seconds": None if server.next_dial is None else round(server.next_dial, 3),
                "dials": dict(server.dials),
                "last_error": None
                if server.last_error is None
                else {"time": round(server.last_error[0], 3), "reason": server.last_error[1]},
            }
            for agent, server in [(agent, server) for agent in parts.agents for server in agent.servers]
        ),
        arguments,
    )
    return page


def agent_routes(parts: Parts, arguments: Mapping[str, Any]) -> Steps[list[Any]]:
    """Return the routes that agents have registered, in the form of the configuration's routes."""
    found: list[Any] = []
    for listener, server in list(parts.tunnels.items()):
        if server.routes is None:
            continue
        router = server.routes.router
        for claim in server.routes.describe():
            if len(found) % CLAIMS == 0:
                yield
            found.append(
                {
                    "router": router,
                    "virtual_host": f"agent of {claim['cluster']}",
                    "place": f"agents.{claim['cluster']}",
                    "rule": {"match": {"prefix": "/"}, "route": {"cluster_name": claim["cluster"]}},
                    "listener": listener,
                    **claim,
                }
            )
    return found


def certificates(parts: Parts, arguments: Mapping[str, Any]) -> list[Any]:
    """The certificates and revocation lists in use; C{not_after} is L{None} for one that does not expire."""
    return without_infinity(parts.certificates())


def without_infinity(certificates: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Replace the C{not_after} of what does not expire by L{None}, as JSON has no infinity."""
    return [
        {**item, "not_after": item["not_after"] if item["not_after"] < inf else None} for item in certificates
    ]


def describe_certificates(dated: Iterable[tuple[str, Dated]]) -> list[dict[str, Any]]:
    """
    Describe certificates and revocation lists.

    @param dated: each with the place of its use.
    @return: each one's use, name and validity; the end may be C{inf}.
    """
    return [
        {"use": place, "name": item.name, "not_before": item.begins, "not_after": item.ends}
        for place, item in dated
    ]


def refused(parts: Parts, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return refused joins, the latest first: those that a page may have that begins somewhere.

    @param arguments: C{limit}, and C{before}: L{reverseproxy.admin.paging.Before}, or L{None}.
    @return: C{items}, and C{more}: whether there are older ones.
    """
    found = [item for each in parts.tunnels.values() for item in reversed(each.tally.refusals)]
    found.sort(key=lambda item: -float(item["time"]))
    time, listed = arguments["before"] or (inf, 0)
    known = [item for item in found if item["time"] <= time]
    # Other workers may have listed some of those of this time, too.
    end = arguments["limit"] + listed
    return {"items": known[:end], "more": len(known) > end}
