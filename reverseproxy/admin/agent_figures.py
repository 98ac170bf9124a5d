"""
The metrics of single agents: a bounded number of series of their own, and one for all other agents together.

They are separate from the metrics of the process, as there may be ten thousand
agents.  Whether an agent has its own series is decided when it joins, so that
the counters of the common series never decrease.
"""

from __future__ import annotations

__all__ = ["per_agent_families"]

from typing import TYPE_CHECKING, Final

from reverseproxy.admin.families import Family
from reverseproxy.admin.figures import PREFIX
from reverseproxy.admin.slices import Steps
from reverseproxy.metrics import OTHER, AgentFigures
from reverseproxy.metrics.latency import class_names, classes_of, quantile

if TYPE_CHECKING:
    from reverseproxy.admin.inspector import Parts

QUANTILES: Final = {"p50": 0.5, "p99": 0.99}
"""The quantiles of the durations of requests that are exported."""

STRIDE: Final = 3
"""How many agents are processed in one step; see L{reverseproxy.admin.slices}."""

_WHO: Final = ("agent", "identity")


def _family(name: str, kind: str, text: str, *labels: str) -> Family:
    return Family(f"{PREFIX}per_agent_{name}", kind, text, (*_WHO, *labels))


def per_agent_families(parts: Parts) -> Steps[list[Family]]:
    """Return the metrics of the agents with their own series, and of all others together."""
    connections = _family("connections", "gauge", "Open connections of an agent.")
    streams = _family("streams", "gauge", "Open streams on the connections of an agent.")
    active = _family("requests_in_flight", "gauge", "Requests and TCP sessions in progress.")
    rtt = _family(
        "rtt_seconds",
        "largest",
        "Round-trip time of the last ping in seconds, the largest of all connections.",
    )
    requests = _family("requests_total", "counter", "Completed requests and TCP sessions.", "code_class")
    durations = {
        share: _family(
            f"request_{name}_seconds",
            "largest",
            f"Quantile {share} of the durations of recent requests, in seconds.",
        )
        for name, share in QUANTILES.items()
    }
    sizes = _family(
        "bytes_total",
        "counter",
        "Bytes of bodies and TCP sessions, received from clients and sent to them.",
        "direction",
    )

    now = parts.seconds()

    def count(figures: AgentFigures, *who: str) -> None:
        total = figures.total
        for code, number in class_names(classes_of(total.ends)).items():
            requests.add(number, *who, code)
        times = figures.lately(now, total)
        for share, family in durations.items():
            seconds = quantile(times, share)
            if seconds is not None:
                family.add(seconds, *who)
        sizes.add(total.received, *who, "received")
        sizes.add(total.sent, *who, "sent")

    for number, (key, identity, figures, hosts) in enumerate(parts.agent_index.named()):
        if number % STRIDE == 0:
            yield
        who = (key, identity)
        connections.add(len(hosts), *who)
        streams.add(sum(getattr(host, "streams", 0) for host in hosts), *who)
        active.add(sum(host.active for host in hosts), *who)
        times = [host.rtt for host in hosts if host.rtt is not None]
        if times:
            rtt.add(max(times), *who)
        count(figures, *who)
    figures, number = yield from parts.agent_index.others()
    if number or figures.total.ends:
        connections.add(number, OTHER, OTHER)
        count(figures, OTHER, OTHER)
    return [connections, streams, active, rtt, requests, *durations.values(), sizes]
