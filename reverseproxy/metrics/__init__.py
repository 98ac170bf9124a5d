"""
What is counted while things happen: integers, and rings that forget; pure.

Whoever counts adds to integers of its own, and nothing else: no label is looked
up that is not a key of a small dictionary already, nothing is formatted, and
nobody is told.  L{reverseproxy.admin} reads these numbers when somebody asks.
"""

from __future__ import annotations

__all__ = [
    "DURATION_BOUNDS",
    "NOWHERE",
    "OTHER",
    "AgentFigures",
    "Ended",
    "Histogram",
    "IEnded",
    "IPlace",
    "Journal",
    "Place",
    "RequestCell",
    "RequestTally",
    "TunnelTally",
]

from reverseproxy.metrics.agents import AgentFigures
from reverseproxy.metrics.counts import (
    NOWHERE,
    OTHER,
    Ended,
    IEnded,
    IPlace,
    Place,
    RequestCell,
    RequestTally,
    TunnelTally,
)
from reverseproxy.metrics.journal import Journal
from reverseproxy.metrics.latency import DURATION_BOUNDS, Histogram
