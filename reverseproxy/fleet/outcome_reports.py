"""Outcomes of forwarded requests that other servers report, for the ejection of hosts."""

from __future__ import annotations

__all__ = ["OutcomeReports"]

from collections.abc import Mapping
from typing import Any, Final

from reverseproxy.cluster.health.outcome import Outcome
from reverseproxy.cluster.host import Host
from reverseproxy.cluster.manager import Cluster
from reverseproxy.errors import WireError

_JUDGED: Final = frozenset({Outcome.SUCCESS, Outcome.CLIENT_ERROR, Outcome.SERVER_ERROR, Outcome.RESET})
"""Outcomes that may be reported."""

_MOST_KEPT: Final = 1000
"""Hosts that are remembered, at most."""


class OutcomeReports:
    """
    The host that has last served each server and agent.

    A server that forwards requests knows their outcomes, but not which of the agent's connections has
    served them.
    """

    def __init__(self) -> None:
        self._served: dict[tuple[str, str, str], Host] = {}

    def note(self, server: str, cluster: Cluster, agent: str, host: Host) -> None:
        """
        Remember the host that serves a forwarded stream.

        @param server: the server that has forwarded it.
        @param agent: the agent's key; empty for none.
        """
        if cluster.ejector.watches_answers and agent:
            if len(self._served) >= _MOST_KEPT:
                self._served.clear()
            self._served[server, cluster.name, agent] = host

    def received(self, server: str, message: Mapping[str, Any]) -> None:
        """
        Process a report.

        @param server: the server that has sent it.
        @raise WireError: if it is malformed.
        """
        cluster, agent, outcome = (message.get(name) for name in ("cluster", "agent", "outcome"))
        if outcome is None:
            return  # a message of a later version
        known = type(outcome) is int and outcome in _JUDGED
        if not isinstance(cluster, str) or not isinstance(agent, str) or not known:
            raise WireError("it judges nobody")
        host = self._served.get((server, cluster, agent))
        if host is not None and host.cluster is not None:
            host.cluster.ejector.note(host, Outcome(outcome))
