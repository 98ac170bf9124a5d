"""
Counters of requests, joins and events, without I/O.

Counting adds to numbers: it formats nothing, calls no callback, and looks up no label but keys of small
dictionaries.  L{reverseproxy.admin} reads the counters when a request of its API needs them.
"""

from __future__ import annotations

__all__ = [
    "DURATION_BOUNDS",
    "NOWHERE",
    "OTHER",
    "UNCOUNTED",
    "AgentFigures",
    "Counters",
    "EndedRequest",
    "Histogram",
    "IEndedRequest",
    "IDestination",
    "Journal",
    "Destination",
    "RequestCell",
    "RequestTally",
    "TunnelTally",
]

from reverseproxy.metrics.accounts import UNCOUNTED, AgentFigures, Counters, RequestCell
from reverseproxy.metrics.counts import (
    NOWHERE,
    OTHER,
    Destination,
    EndedRequest,
    IDestination,
    IEndedRequest,
    RequestTally,
    TunnelTally,
)
from reverseproxy.metrics.journal import Journal
from reverseproxy.metrics.latency import DURATION_BOUNDS, Histogram
