"""The tunnel filter: connections of agents."""

from __future__ import annotations

__all__ = ["TunnelConfig"]

from collections.abc import Mapping
from typing import Annotated, Any

from reverseproxy.config._agent_routes import AgentRoutesConfig
from reverseproxy.config._base import Model, key
from reverseproxy.config._streams import longest_answer, longest_silence, most_growth, most_on_the_way
from reverseproxy.config._values import Bool, Int, Interval, Span, Text, between


class TunnelConfig(Model):
    """
    Connections that tunnel agents dial, made hosts of clusters.

    All keys are ours: MOSN's tunnel filter has none.
    """

    strict_keys = True

    credential_policy: Text = key(
        "", "The credential policy demanded of every agent on this listener; empty means none.", ours=True
    )
    cluster_credential_policies: Mapping[str, Text] = key(
        {}, "The credential policy demanded of agents that join a cluster, by the cluster's name.", ours=True
    )
    validators: Mapping[str, Mapping[str, Any]] = key(
        {}, "Options of the validators, by the name of the credential policy.", ours=True, secret=True
    )
    handshake_timeout: Interval = key(
        15.0, "How long an agent may take for its first message once that has begun.", ours=True
    )
    publish_delay: Span = key(
        0.02,
        "How long after the handshake a connection is first used, because MOSN's agents can't take the "
        "answer and a request at once.",
        ours=True,
    )
    max_pending_connections: Annotated[Int, between(1, 2**31 - 1)] = key(
        4096, "How many connections may be held that have not joined a cluster.", ours=True
    )
    max_joins_per_second: Annotated[Int, between(0, 1_000_000)] = key(
        1000,
        "How many connections may join in a second, in each process, so that requests are served while all "
        "agents come back at once. Those of this project are told when to come back, others wait for their "
        "turn. 0 means any number.",
        ours=True,
    )
    max_hosts_per_agent: Annotated[Int, between(0, 2**31 - 1)] = key(
        4096,
        "How many connections one agent may have in each process. Agents are told apart by what they have "
        "proved, or by their addresses, and by what they call themselves; those that call themselves nothing "
        "are not. 0 means any number.",
        ours=True,
    )
    max_hosts_per_credential: Annotated[Int, between(0, 2**31 - 1)] = key(
        16384,
        "The same for all agents with one name of a credential, or one certificate. 0 means any number.",
        ours=True,
    )
    max_hosts_per_address: Annotated[Int, between(0, 2**31 - 1)] = key(
        16384,
        "The same for all agents at one IPv4 address, or in one /64 network of IPv6, which may be one router "
        "with many behind it. 0 means any number. None of these three is more than three quarters of what "
        "the process has descriptors for.",
        ours=True,
    )
    dead_peer_timeout: Interval = key(
        5.0, "How soon a connection ends whose agent does not answer any more.", ours=True
    )
    mux: Bool = key(
        True,
        "Whether one connection of an agent carries many requests and sessions at once, if the agent can do "
        "that too. MOSN's agents can't; each of their connections carries one at a time.",
        ours=True,
    )
    mux_ping_interval: Interval = longest_silence("agent")
    mux_ping_timeout: Interval = longest_answer("agent")
    mux_max_window: Annotated[Int, between(2**18, 2**30)] = most_on_the_way("server")
    mux_max_window_growth: Annotated[Int, between(0, 2**30)] = most_growth()
    agent_routes: AgentRoutesConfig | None = key(
        None, "Whether, and which, agents may bring routes with them. If absent, they may not.", ours=True
    )
