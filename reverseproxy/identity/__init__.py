"""
Who an agent is, and which routes its credential allows it to bring; pure.

L{AgentIdentity} is what the server knows of an agent, and L{Allowance} which
domains and ports the agent may ask for.
"""

from __future__ import annotations

__all__ = [
    "NOTHING",
    "UNPROVED",
    "AgentIdentity",
    "Allowance",
    "CertificateSubject",
    "clean_domain",
    "handle_of",
    "parse_ports",
    "shown_agent_id",
]

from reverseproxy.identity.agents import (
    UNPROVED,
    AgentIdentity,
    CertificateSubject,
    handle_of,
    shown_agent_id,
)
from reverseproxy.identity.allowance import NOTHING, Allowance, clean_domain, parse_ports
