"""Operators' actions on agents in a fleet: orders to other servers, and obeying theirs."""

from __future__ import annotations

__all__ = ["EVICTION_DELAY", "MOST_AUDITED", "OrderForwarder", "merge_audits", "merge_order_results"]

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from reverseproxy.admin.agent_index import AgentIndex
from reverseproxy.clock import wall_time
from reverseproxy.logs import counted, shorten
from reverseproxy.tunnel.server.exclusion_records import Exclusion, Target, id_of

if TYPE_CHECKING:
    from reverseproxy.fleet.fleet import Fleet
    from reverseproxy.fleet.orders import Order

log = Logger()

MOST_AUDITED: Final = 1000
"""The maximum number of entries of the audit."""

EVICTION_DELAY: Final = 1.0
"""
Seconds between another server's ban of an agent and the disconnection of that agent here.

It concerns agents that joined before this process learned of the ban.  A server that is known to have the
agent receives an order with the ban, obeys it at once, and reports the number of connections.
"""

_BAN: Final = "ban"
"""The C{what} of an audit entry about another server's ban."""


class OrderForwarder:
    """
    Forwards operators' orders to other servers of the fleet, and obeys theirs, in one process.

    @ivar audited: the latest audit entries about orders of other servers.
    """

    def __init__(
        self,
        index: AgentIndex,
        fleet: Callable[[], Fleet | None],
        close_connections: Callable[[Mapping[str, Any]], int],
        clock: IReactorTime,
    ) -> None:
        """
        @param fleet: returns this server's part in the fleet; L{None} without one.
        @param close_connections: drains or closes connections; see L{AgentIndex.close_connections}.
        """
        self.audited: deque[dict[str, Any]] = deque(maxlen=MOST_AUDITED)
        self._index = index
        self._fleet = fleet
        self._close_connections = close_connections
        self._clock = clock
        self._due: dict[Target, float] = {}
        self._timer: IDelayedCall | None = None
        index.exclusions.on_new = self._schedule_eviction
        found = fleet()
        if found is not None:
            found.orders.obey = self.obey
            found.orders.kept_out = self._record_ban
            found.orders.let_in = self._record_lift

    def stop(self) -> None:
        """Cancel all scheduled disconnections."""
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def forward(self, arguments: Mapping[str, Any]) -> Deferred[dict[str, Any]]:
        """
        Send an order to the other servers, over their links to this process.

        @param arguments: C{what}, C{agent}, C{seconds}, C{who} and C{order}.
        @return: the results by server; see L{reverseproxy.fleet.order_results.OrderResult}.
        """
        fleet = self._fleet()
        if fleet is None:
            return succeed({})
        giving = fleet.orders.give(
            arguments["what"],
            arguments["agent"],
            arguments["seconds"],
            arguments["who"],
            arguments["order"],
        )
        return giving.addCallback(lambda found: {server: each.to_json() for server, each in found.items()})

    def obey(self, order: Order) -> tuple[int, str]:
        """
        Obey an order of another server, if the agent has connections to this process.

        @return: the number of connections, and what could not be done; empty if all was.
        """
        targets = self._index.targets_of(order.agent)
        if targets is None:
            return 0, ""
        kick = order.what == "kick"
        target, problem = targets["identity" if kick else "process"], ""
        if order.seconds:
            why = f"{'banned' if kick else 'drained'} by {order.who}"
            arguments = {"target": target, "seconds": order.seconds, "why": why}
            problem = self._index.exclude({**arguments, "id": order.id, "agent": order.agent})
        told = ""
        if order.seconds:
            told = problem and f"; not banned: {problem}"
            told += "" if problem else f"; banned for {order.seconds:g} s: {_shown(target)}"
        why = f"{'kicked' if kick else 'drained'} by {order.who}"
        kept_out = {"target": target, "seconds": order.seconds} if order.seconds else None
        count = self._disconnect(order.what, order.agent, why, order.who, told, kept_out, order.id)
        return count, problem and f"the agent is not banned: {problem}"

    def _disconnect(
        self, what: str, agent: str, why: str, who: str, told: str, kept_out: Any, order_id: str
    ) -> int:
        """
        Drain or close an agent's connections to this process, and record that in the audit.

        @param told: text to append to the result in the audit.
        @return: the number of connections.
        """
        found, targets = self._index.identity_of(agent), self._index.targets_of(agent)
        if found is None or targets is None:
            return 0
        arguments = {"id": agent, "why": why, "at_once": what == "kick", "order": order_id}
        count = self._close_connections(arguments)
        told = f"{counted(count, 'connection')}{told}"
        log.info(
            "audit: {caller}: {what} agent {agent} ({identity}): {told}",
            caller=who,
            what=what,
            agent=agent,
            identity=found.principal,
            told=told,
        )
        self._note(who, what, agent, found.principal, targets, told, count, kept_out, order_id)
        return count

    def _note(
        self,
        caller: str,
        what: str,
        agent: str | None,
        identity: str,
        targets: Mapping[str, Any],
        told: str,
        connections: int,
        kept_out: Any,
        order_id: str,
    ) -> None:
        self.audited.append(
            {
                "time": wall_time(),
                "caller": caller,
                "what": what,
                "agent": agent,
                "identity": identity,
                "targets": targets,
                "told": told,
                "connections": connections,
                "kept_out": kept_out,
                "order": order_id,
            }
        )

    # bans of other servers

    def _record_ban(self, server: str, exclusion: Exclusion) -> None:
        """Record another server's ban in the audit; the caller has logged it."""
        seconds = round(exclusion.until - self._clock.seconds(), 1)
        target = list(exclusion.target)
        told = f"banned for {seconds:g} s by server {server}: {_shown(target)}"
        agent = exclusion.agents[-1] if exclusion.agents else None
        kept_out = {"target": target, "seconds": seconds}
        self._note(exclusion.who, _BAN, agent, "", {}, told, 0, kept_out, exclusion.ids[-1])

    def _record_lift(self, server: str, exclusion: Exclusion) -> None:
        """Record in the audit that another server has lifted a ban; the caller has logged it."""
        told = _shown(exclusion.target)
        agent = exclusion.agents[-1] if exclusion.agents else None
        order = f"lift {exclusion.ids[-1]}"
        self._note(f"server {server}", "lift ban", agent, "", {}, told, 0, None, order)

    def _schedule_eviction(self, exclusion: Exclusion) -> None:
        if exclusion.agents:
            self._due.pop(exclusion.target, None)
            self._due[exclusion.target] = self._clock.seconds() + EVICTION_DELAY
            if self._timer is None:
                self._timer = self._clock.callLater(EVICTION_DELAY, self._evict)

    def _evict(self) -> None:
        """Disconnect banned agents whose delay is over."""
        self._timer = None
        now = self._clock.seconds()
        for target, due in list(self._due.items()):
            if due > now:
                self._timer = self._clock.callLater(due - now, self._evict)
                break
            del self._due[target]
            exclusion = self._index.exclusions.get(target)
            if exclusion is not None:
                for agent in exclusion.agents:
                    self._evict_one(agent, exclusion)

    def _evict_one(self, agent: str, exclusion: Exclusion) -> None:
        what, done = ("kick", "kicked") if exclusion.at_once else ("drain", "drained")
        why, told = f"{done} by {exclusion.who}", f"; banned: {_shown(exclusion.target)}"
        self._disconnect(what, agent, why, exclusion.who, told, None, exclusion.ids[-1])


def _shown(target: Iterable[str]) -> str:
    """Format the target of a ban for a log line."""
    target = list(target)
    return f"{shorten(' '.join(target))} (exclusion {id_of(target)})"


def merge_audits(
    own: Iterable[Mapping[str, Any]], heard: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """
    Merge the audit entries of several processes, so that there is one for each order.

    @param own: the entries about actions through this server's admin API.
    @param heard: the entries of all processes about orders of other servers; those about an order in C{own}
        are left out.
    """
    entries = [dict(each) for each in own]
    known = {each.get("order") for each in entries}
    found: dict[str, dict[str, Any]] = {}
    for entry in heard:
        if entry["order"] in known:
            continue
        other = found.get(entry["order"])
        if other is None:
            found[entry["order"]] = dict(entry)
            continue
        # The entry of a process that had the agent says more than one about the ban alone.
        first, second = (entry, other) if other["what"] == _BAN else (other, entry)
        connections = first["connections"] + second["connections"]
        kept_out = first["kept_out"] or second["kept_out"]
        found[entry["order"]] = {**first, "connections": connections, "kept_out": kept_out}
    return [*entries, *found.values()]


def merge_order_results(answers: Iterable[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Merge the results of orders that several workers have received; see L{OrderForwarder.forward}."""
    found: dict[str, dict[str, Any]] = {}
    for answer in answers:
        for server, each in answer.items():
            known = found.get(server)
            if known is None:
                found[server] = dict(each)
                continue
            known["connections"] += each["connections"]
            known["confirmed"] = known["confirmed"] and each["confirmed"]
            known["problem"] = known["problem"] or each["problem"]
    return found
