"""
Hosts whose agents say that they can't reach their service, or say nothing any more.

An agent of ours says so on its connection, or in its answer to a request that
it could not send on.  That one says nothing is found out elsewhere
(L{reverseproxy.cluster.health.stalls}).  As long as others are well, they are given all requests.
When none is, all of them are: an agent tries again with each request, and
whoever asks shall hear from it what is wrong.
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
Seconds for which a host is left out because of an answer.

It is asked again then, with a request that goes elsewhere if that was too soon.
"""

MAX_SAME_AGENT: Final = 1024
"""Hosts of one agent that are left out together."""

MANY: Final = 256
"""Hosts that are unwell and not left out, as none is well, from which on they are seen to together."""

TOGETHER: Final = 0.1
"""Seconds after which they are: each change of thousands would otherwise look at thousands."""


class ServiceHealth:
    """
    Leaves hosts of one cluster out whose agents can't reach their service.

    @ivar unwell: these hosts, with why, whether they are left out or not.
    @ivar stalled: those among them from which nothing comes, with more of that.
    @ivar on_report: called with each member of which an agent has said on its
        connection how it is.
    """

    on_report: Callable[[Host], object] | None = None

    def __init__(self, cluster: Cluster, clock: IReactorTime) -> None:
        self._cluster = cluster
        self._clock = clock
        self._doubts: dict[Host, IDelayedCall] = {}
        self._left_out: set[Host] = set()
        self._let_in: dict[Host, None] = {}  # unwell all the same
        self._later: IDelayedCall | None = None
        self._settling = False
        self.unwell: dict[Host, str] = {}
        self.stalled: dict[Host, str] = {}

    def is_up(self, host: Host) -> bool:
        """Whether the agent of a host says that it is well, and goes on talking."""
        return host.health.service_up and host not in self.stalled

    def stall(self, host: Host, reason: str) -> None:
        """
        Nothing comes from a host, or something does again.

        @param reason: empty if it does.
        """
        if reason:
            self.stall_all([host], reason)
        elif host.cluster is self._cluster and host in self.stalled:
            del self.stalled[host]
            self._recover(host, "something comes from it again")
            if self.on_report is not None:
                self.on_report(host)

    def stall_all(self, hosts: Iterable[Host], reason: str) -> None:
        """Nothing comes from any of these."""
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
        """A host is unwell; what follows from that is L{settle}'s."""
        self.unwell[host] = reason
        if host not in self._left_out:
            self._let_in[host] = None

    def report(self, host: Host, well: bool, reason: str = "its agent can't reach its service") -> None:
        """
        An agent has said how its service is; that holds until it says otherwise.

        @param host: may not be a member yet, or any more.
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
        """A request was not sent on, as the agent can't reach its service: its hosts rest for L{DOUBT}."""
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
        """A host has become a member."""
        if not host.health.service_up:
            self._note(host, "its agent can't reach its service")
        if self.unwell:
            self.settle()

    def forget(self, host: Host) -> None:
        """A host has left the cluster."""
        self._end_doubt(host)
        self.stalled.pop(host, None)
        if self.unwell.pop(host, None) is not None:
            self._left_out.discard(host)
            self._let_in.pop(host, None)
            host.set_fault(Fault.SERVICE, False)  # it may be taken in again
        if self._later is not None and not self.unwell:
            self._later.cancel()
            self._later = None

    def settle(self) -> None:
        """Leave those that are unwell out if others are well, and let them in if none is."""
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
            # What is done here may wake requests, which may find out more.
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
