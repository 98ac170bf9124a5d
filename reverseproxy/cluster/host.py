"""
The hosts of clusters, of all kinds.

A L{StaticHost} dials.  A L{ReverseHost} has one connection, dialled by an agent,
and leases it to one protocol at a time.  The code above uses both through L{Host}.
"""

from __future__ import annotations

__all__ = [
    "MAX_WEIGHT",
    "AgentHost",
    "Fault",
    "Host",
    "HostHealth",
    "IDetachable",
    "IHostPool",
    "LeasableConnection",
    "MuxHost",
    "ReverseHost",
    "StaticHost",
    "clamp_weight",
]

from reverseproxy.cluster.handover import IDetachable
from reverseproxy.cluster.hosts.agents import AgentHost
from reverseproxy.cluster.hosts.base import MAX_WEIGHT, Host, IHostPool, clamp_weight
from reverseproxy.cluster.hosts.health import Fault, HostHealth
from reverseproxy.cluster.hosts.mux import MuxHost
from reverseproxy.cluster.hosts.reverse import LeasableConnection, ReverseHost
from reverseproxy.cluster.hosts.static import StaticHost
