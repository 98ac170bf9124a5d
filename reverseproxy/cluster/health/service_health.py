"""
Mark hosts unhealthy whose agents can't reach their service, or don't respond.

This project's agents report that on their connection, or in the response to a request
that they could not send on.  Agents that don't respond are found by
L{reverseproxy.cluster.health.stalls}.  As long as other hosts are well, these get all
requests.  When none is, all of them are used: an agent tries to reach its service with
each request, and its response tells the client what is wrong.
"""

from __future__ import annotations

__all__ = ["DOUBT", "ServiceHealth"]

from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING, Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from reverseproxy.cluster.host import Fault, Host

if TYPE_CHECKING:
    from reverseproxy.cluster.manager import Cluster

DOUBT: Final = 1.0
"""
Seconds for which a host is unhealthy after a response that its service can't be reached.

Then it gets a request again, which is retried on another host if that was too soon.
"""

MAX_SAME_AGENT: Final = 1024
"""The most hosts of one agent that are marked unhealthy together."""

MANY: Final = 256
"""The number of unwell hosts in use, as none is well, from which on their changes are batched."""

TOGETHER: Final = 0.1
"""Seconds between such batches: otherwise each change of thousands would look at thousands."""


class ServiceHealth:
    """
    Marks hosts of one cluster unhealthy whose agents can't reach their service.

    @ivar unwell: the hosts concerned with the reasons, whether they are in use or not.
    @ivar stalled: those of them that don't respond, with the reasons.
    @ivar on_report: called with each member whose agent has reported the state of its
        service.
    """

    on_report: Callable[[Host], object] | None = None

    def __init__(self, cluster: Cluster, clock: IReactorTime) -> None:
        self._cluster = cluster
        self._clock = clock
        self._doubts: dict[Host, IDelayedCall] = {}
        self._left_out: set[Host] = set()
        self._let_in: dict[Host, None] = {}  # unwell, but in use
        self._later: IDelayedCall | None = None
        self._settling = False
        self.unwell: dict[Host, str] = {}
        self.stalled: dict[Host, str] = {}

    def is_up(self, host: Host) -> bool:
        """Return whether the agent of a host has reported that it is well, and responds."""
        return host.health.service_up and host not in self.stalled

    def stall(self, host: Host, reason: str) -> None:
        """
        Take note that a host does not respond, or responds again.

        @param reason: empty if it responds again.
        """
        if reason:
            self.stall_all([host], reason)
        elif host.cluster is self._cluster and host in self.stalled:
            del self.stalled[host]
            self._recover(host, "something comes from it again")
            if self.on_report is not None:
                self.on_report(host)

    def stall_all(self, hosts: Iterable[Host], reason: str) -> None:
        """Take note that none of these hosts responds."""
        stalled = [host for host in hosts if host.cluster is self._cluster and host not in self.stalled]
        for host in stalled:
            self.stalled[host] = reason
            self._note(host, reason)
        if stalled:
            self.settle()
        if self.on_report is not None:
            for host in stalled:
                self.on_report(host)

    def _note(self, host: Host, reason: str) -> None:
        """Add a host to the unwell ones; L{settle} marks it unhealthy."""
        self.unwell[host] = reason
        if host not in self._left_out:
            self._let_in[host] = None

    def report(self, host: Host, well: bool, reason: str = "its agent can't reach its service") -> None:
        """
        Take in an agent's report on its service, which holds until the next one.

        @param host: need not be a member yet, or any more.
        """
        changed = host.health.service_up is not well
        host.health.service_up = well
        if host.cluster is not self._cluster:
            return
        self._end_doubt(host)
        if well:
            self._recover(host, "its agent can reach its service again")
        else:
            self._note(host, reason)
            self.settle()
        if changed and self.on_report is not None:
            self.on_report(host)

    def doubt(self, host: Host) -> None:
        """Mark an agent's hosts for L{DOUBT}: it has not sent a request on, as it can't reach its service."""
        for each in list(islice(host.same_agent, MAX_SAME_AGENT)) or [host]:
            if each.cluster is self._cluster and each.health.service_up and each not in self._doubts:
                self._doubts[each] = self._clock.callLater(DOUBT, self._try_again, each)
                self._note(each, "its agent could not reach its service")
        self.settle()

    def _try_again(self, host: Host) -> None:
        del self._doubts[host]
        self._recover(host, "tried again, as its agent may reach its service now")

    def _end_doubt(self, host: Host) -> None:
        doubt = self._doubts.pop(host, None)
        if doubt is not None:
            doubt.cancel()

    def _recover(self, host: Host, reason: str) -> None:
        if host in self.stalled or not host.health.service_up or host in self._doubts:
            return
        if self.unwell.pop(host, None) is not None:
            self._left_out.discard(host)
            self._let_in.pop(host, None)
            self._cluster.set_health(host, True, reason, Fault.SERVICE)
            self.settle()

    def joined(self, host: Host) -> None:
        """Take note of a host that has joined."""
        if not host.health.service_up:
            self._note(host, "its agent can't reach its service")
        if self.unwell:
            self.settle()

    def forget(self, host: Host) -> None:
        """Forget a host that has left the cluster."""
        self._end_doubt(host)
        self.stalled.pop(host, None)
        if self.unwell.pop(host, None) is not None:
            self._left_out.discard(host)
            self._let_in.pop(host, None)
            host.set_fault(Fault.SERVICE, False)  # it may join again
        if self._later is not None and not self.unwell:
            self._later.cancel()
            self._later = None

    def settle(self) -> None:
        """Mark unwell hosts unhealthy if others are well, and healthy if none is."""
        if not self.unwell or self._settling:
            return
        if len(self._let_in) <= MANY:
            self._settle()
        elif self._later is None:
            self._later = self._clock.callLater(TOGETHER, self._settle_later)

    def _settle_later(self) -> None:
        self._later = None
        self._settle()

    def _settle(self) -> None:
        self._settling = True
        try:
            # This may give hosts to waiting requests, which may report more.
            for _ in range(4):
                cluster = self._cluster
                others = cluster.healthy > sum(host.healthy for host in self._let_in)
                changed = list(self._let_in if others else self._left_out)
                if not changed:
                    return
                for host in changed:
                    reason = self.unwell.get(host)
                    if reason is None:
                        continue
                    if others:
                        self._left_out.add(host)
                        self._let_in.pop(host, None)
                    else:
                        self._left_out.discard(host)
                        self._let_in[host] = None
                        reason = f"{reason}, but no other host is well"
                    cluster.set_health(host, not others, reason, Fault.SERVICE)
        finally:
            self._settling = False
