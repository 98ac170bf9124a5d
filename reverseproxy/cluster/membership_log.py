"""The log lines about the members of clusters."""

from __future__ import annotations

__all__ = ["log_health", "log_joined", "log_left"]

from typing import TYPE_CHECKING

from twisted.logger import Logger

from reverseproxy.logs import counted, shorten

if TYPE_CHECKING:
    from reverseproxy.cluster.cluster import Cluster
    from reverseproxy.cluster.host import Host

# Under the name by which readers of the log know these lines.
log = Logger(namespace="reverseproxy.cluster.manager")


def log_joined(cluster: Cluster, host: Host) -> None:
    """Log that a host has joined."""
    text = "cluster {cluster}: host {host}{who} joined with weight {weight}, {hosts} now"
    _log_change(cluster, host, text, weight=host.weight)


def log_left(cluster: Cluster, host: Host, reason: str) -> None:
    """Log that a host has left."""
    _log_change(
        cluster, host, "cluster {cluster}: host {host}{who} left, {hosts} now: {reason}", reason=reason
    )


def _log_change(cluster: Cluster, host: Host, text: str, **fields: object) -> None:
    # Configured hosts follow the configuration; the process that has an agent's connection logs it.
    write = log.info if host.is_reverse and not host.is_remote else log.debug
    write(
        text,
        cluster=cluster.name,
        host=host.address,
        hosts=counted(len(cluster.hosts), "host"),
        count=len(cluster.hosts),
        **fields,
        **_agent_fields(host),
    )


def log_health(cluster: Cluster, host: Host, reason: str) -> None:
    """Log that a host has become healthy or unhealthy."""
    write = log.debug if host.server else log.info  # the server of the agent logs it
    write(
        "cluster {cluster}: host {host} is {state}{reason}",
        cluster=cluster.name,
        host=host.address,
        state="healthy" if host.healthy else "unhealthy",
        reason=reason and f": {reason}",
    )


def _agent_fields(host: Host) -> dict[str, str]:
    """Return log fields that name the agent of a host: its proved identity, and what it claims."""
    identity = host.identity
    if identity is None:
        name = shorten(host.hostname)
        return {"who": f" ({name})" if name else "", "hostname": name}
    return {
        "who": f" of {identity}",
        "identity": identity.principal,
        "agent_id": identity.agent_id,
        "claimed_host_name": shorten(identity.claim),
    }
