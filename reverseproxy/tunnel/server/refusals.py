"""Records of refused joins for operators, with remedies."""

from __future__ import annotations

__all__ = ["REMEDIES", "note_refusal"]

from collections.abc import Container, Mapping
from typing import Final

from reverseproxy.clock import wall_time
from reverseproxy.identity import AgentIdentity
from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.logs import shorten
from reverseproxy.metrics import TunnelTally
from reverseproxy.wire.mosn.frames import ConnectionInit

MAX_REASON: Final = 500
"""Characters of a reason that are kept."""

REMEDIES: Final[Mapping[str, str]] = {
    "credential_rejected": "give the agent a valid credential of the required policy",
    "cluster_forbidden": "allow this cluster in the credential of the agent, such as in the token file",
    "validator_missing": "add the agent's policy to validators of the tunnel filter, or change the policy",
    "cluster_unknown": "add the cluster to cluster_manager.clusters, or correct cluster in tunnel_agent",
    "too_many": "none: the agent tries again; limits of the tunnel filter allow for more",
    "leaving": "none: the agent tries again, as the server is stopping",
    "route_forbidden": "allow the domains and ports in its token, or see agent_routes of the tunnel filter",
    "route_taken": "let the agent use other routes, or stop the agent that has these",
    "banned": "wait, or lift the ban: POST /api/tunnel/v1/agents/{id}/resume",
    "failed": "check that the agent uses the tunnel protocol, and TLS if the listener does",
}
"""What an operator can do, by result."""


def note_refusal(
    tally: TunnelTally,
    known: Container[str],
    listener: str,
    info: ConnectionInfo,
    init: ConnectionInit | None,
    identity: AgentIdentity,
    result: str,
    reason: str,
) -> None:
    """
    Count and record a connection that has not joined.

    @param known: the clusters that exist: others are not told apart in metrics, as untrusted peers may
        name any number of them.
    @param init: its init frame; L{None} if none has come.
    @param identity: the agent's identity, as far as that is proved.
    @param result: see L{REMEDIES}.
    """
    cluster = "" if init is None else init.cluster_name
    tally.joined(cluster if cluster in known else "", result)
    tally.refused(
        {
            "time": wall_time(),
            "listener": listener,
            "address": info.remote,
            "identity": identity.principal,
            "proved": identity.proved,
            "certificate": None if info.subject is None else str(info.subject),
            "cluster": shorten(cluster),
            "claimed_host_name": "" if init is None else shorten(init.host_name),
            "policy": "" if init is None else shorten(init.credential_policy),
            "result": result,
            "reason": reason[:MAX_REASON],
            "remedy": REMEDIES.get(result, ""),
        }
    )
