"""What an operator does to an agent that other servers of the fleet have, and what theirs do to ours."""

from __future__ import annotations

__all__ = ["MOST_AUDITED", "Passing"]

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from twisted.logger import Logger

from reverseproxy.admin.agents import AgentIndex
from reverseproxy.clock import wall_time
from reverseproxy.fleet.fleet import Fleet
from reverseproxy.fleet.orders import Order
from reverseproxy.logs import counted

log = Logger()

MOST_AUDITED: Final = 1000
"""How many changes are kept."""


class Passing:
    """
    Passes orders on to other servers, and does what they order, in one process.

    @ivar audited: what they have ordered, the last of it.
    """

    def __init__(
        self,
        index: AgentIndex,
        fleet: Callable[[], Fleet | None],
        let_go: Callable[[Mapping[str, Any]], int],
    ) -> None:
        """
        @param let_go: lets go of an agent's connections; see L{AgentIndex.let_go}.
        """
        self.audited: deque[dict[str, Any]] = deque(maxlen=MOST_AUDITED)
        self._index = index
        self._fleet = fleet
        self._let_go = let_go
        found = fleet()
        if found is not None:
            found.orders.obey = self.obey

    def pass_on(self, arguments: Mapping[str, Any]) -> list[str]:
        """
        Tell the other servers what is to be done to an agent.

        @param arguments: C{what}, C{agent}, C{seconds}, C{who} and C{order}.
        @return: those that have been told over links to this process.
        """
        fleet = self._fleet()
        if fleet is None:
            return []
        return fleet.orders.give(
            arguments["what"],
            arguments["agent"],
            arguments["seconds"],
            arguments["who"],
            arguments["order"],
        )

    def obey(self, order: Order) -> None:
        """Do what an operator of another server wants, if the agent has connections to this process."""
        targets = self._index.targets_of(order.agent)
        found = self._index.identity_of(order.agent)
        if targets is None or found is None:
            return
        kick = order.what == "kick"
        target, problem = targets["identity" if kick else "process"], ""
        if order.seconds:
            why = f"{'banned' if kick else 'drained'} by {order.who}"
            arguments = {"target": target, "seconds": order.seconds, "why": why}
            problem = self._index.exclude({**arguments, "id": order.id, "agent": order.agent})
        why = f"{'kicked' if kick else 'drained'} by {order.who}"
        count = self._let_go({"id": order.agent, "why": why, "at_once": kick})
        told = counted(count, "connection")
        if order.seconds:
            told += problem and f"; not kept out: {problem}"
            told += "" if problem else f"; kept out for {order.seconds:g} s: {' '.join(target)}"
        log.info(
            "audit: {caller}: {what} agent {agent} ({identity}): {told}",
            caller=order.who,
            what=order.what,
            agent=order.agent,
            identity=found.principal,
            told=told,
        )
        self.audited.append(
            {
                "time": wall_time(),
                "caller": order.who,
                "what": order.what,
                "agent": order.agent,
                "identity": found.principal,
                "targets": targets,
                "told": told,
                "connections": count,
                "kept_out": {"target": target, "seconds": order.seconds} if order.seconds else None,
                "order": order.id,
            }
        )
