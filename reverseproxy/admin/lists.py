"""What one process has: clusters, hosts, listeners, servers, and joins that were refused."""

from __future__ import annotations

__all__ = ["brought_routes", "clusters", "hosts", "listeners", "refused", "servers", "weigh"]

from bisect import insort
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from reverseproxy.admin.slices import Steps, portions
from reverseproxy.admin.totals import fed_by_agents
from reverseproxy.clock import wall_time
from reverseproxy.cluster.host import Fault, Host

if TYPE_CHECKING:
    from reverseproxy.admin.inspector import Parts

STRIDE: Final = 200
"""How many hosts are counted between two moments at which something else may be done."""

LOOK: Final = 5
"""How many of them are described."""

_FAULTS = {Fault.ORDERED: "ordered", Fault.CHECK: "health check", Fault.EJECTED: "ejected for failures"}


def _page(items: Iterable[dict[str, Any]], arguments: Mapping[str, Any], by: str = "name") -> list[Any]:
    """Some items, in the order of their names."""
    after = arguments.get("after", "")
    found = sorted((item for item in items if item[by] > after), key=lambda item: str(item[by]))
    return found[: arguments.get("limit", 100)]


def clusters(parts: Parts, arguments: Mapping[str, Any]) -> Steps[list[Any]]:
    """Each cluster, with numbers of what it has; a worker counts its own hosts."""
    known = {cluster.name: cluster for cluster in parts.clusters}
    names = sorted(name for name in known if name > arguments.get("after", ""))
    found = []
    for name in names[: arguments.get("limit", 100)]:
        yield
        cluster = known[name]
        hosts = healthy = 0
        for portion in portions(cluster.hosts.values(), STRIDE):
            yield
            own = [host.healthy for host in portion if not host.relayed]
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
    return found


def hosts(parts: Parts, arguments: Mapping[str, Any]) -> Steps[list[Any] | None]:
    """The hosts of one cluster; L{None} if there is no such cluster."""
    if arguments["cluster"] not in parts.clusters:
        return None
    cluster = parts.clusters.get(arguments["cluster"])
    after, limit = arguments.get("after", ""), arguments.get("limit", 100)
    first: list[str] = []  # in order
    for portion in portions(cluster.hosts.items(), STRIDE):
        yield
        for name, host in portion:
            if name <= after or (host.relayed and not host.server):
                continue
            if len(first) == limit:
                if name > first[-1]:
                    continue
                first.pop()
            insort(first, name)
    found = []
    for index, name in enumerate(first, 1):
        if index % LOOK == 0:
            yield
        if name in cluster.hosts:
            host = cluster.hosts[name]
            found.append(_host(host, cluster.ejector.remaining(host)))
    return found


def _host(host: Host, ejected: float | None) -> dict[str, Any]:
    """
    Describe a host.

    @param ejected: for how many seconds it is left out for its failures.
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
    @return: what it was before; L{None} if there is no such host.
    """
    if arguments["cluster"] not in parts.clusters:
        return None
    cluster = parts.clusters.get(arguments["cluster"])
    host = cluster.hosts.get(arguments["address"])
    if host is None or host.server:
        return None  # what an agent of another server weighs is that server's to say
    before = host.weight
    cluster.weigh(host, arguments["weight"])
    return before


def listeners(parts: Parts, arguments: Mapping[str, Any]) -> Steps[list[Any]]:
    """Each listener."""
    fed = yield from fed_by_agents(parts)
    return _page(
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
            for listener in parts.listeners.values()
        ),
        arguments,
    )


def servers(parts: Parts, arguments: Mapping[str, Any]) -> list[Any]:
    """Each server that the agents of this process keep connections to."""
    return _page(
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
            for agent in parts.agents
            for server in agent.servers
        ),
        arguments,
    )


def brought_routes(parts: Parts, arguments: Mapping[str, Any]) -> list[Any]:
    """The routes that agents have brought, in the form of those of the configuration."""
    return [
        {
            "router": server.routes.router,
            "virtual_host": f"agent of {claim['cluster']}",
            "place": f"agents.{claim['cluster']}",
            "rule": {"match": {"prefix": "/"}, "route": {"cluster_name": claim["cluster"]}},
            "listener": listener,
            **claim,
        }
        for listener, server in parts.tunnels.items()
        if server.routes is not None
        for claim in server.routes.describe()
    ]


def refused(parts: Parts, arguments: Mapping[str, Any]) -> list[Any]:
    """The last joins that were refused, the last one first."""
    found = [item for server in parts.tunnels.values() for item in server.tally.refusals]
    found.sort(key=lambda item: -float(item["time"]))
    return found[: arguments.get("limit", 100)]
