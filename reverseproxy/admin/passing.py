"""What an operator does to an agent that other servers of the fleet have, and what theirs do to ours."""

from __future__ import annotations

__all__ = ["MOST_AUDITED", "SETTLE", "Passing", "unite_audits", "unite_done"]

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from reverseproxy.admin.agents import AgentIndex
from reverseproxy.clock import wall_time
from reverseproxy.fleet.fleet import Fleet
from reverseproxy.fleet.orders import Order
from reverseproxy.logs import counted, shorten
from reverseproxy.tunnel.server.exclusion_records import Exclusion, Target, id_of

log = Logger()

MOST_AUDITED: Final = 1000
"""How many changes are kept."""

SETTLE: Final = 1.0
"""
Seconds after which agents are let go of that are kept out, if they are here nevertheless.

Those are such as had joined, or were about to, before anybody here knew of it.  Where the agent was
known to be, an order comes at the same time, and says how many connections it had.
"""

_HEARD: Final = "keep out"


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
        clock: IReactorTime,
    ) -> None:
        """
        @param let_go: lets go of an agent's connections; see L{AgentIndex.let_go}.
        """
        self.audited: deque[dict[str, Any]] = deque(maxlen=MOST_AUDITED)
        self._index = index
        self._fleet = fleet
        self._let_go = let_go
        self._clock = clock
        self._due: dict[Target, float] = {}
        self._timer: IDelayedCall | None = None
        index.exclusions.on_new = self._look_later
        found = fleet()
        if found is not None:
            found.orders.obey = self.obey
            found.orders.kept_out = self._kept_out
            found.orders.let_in = self._let_in

    def stop(self) -> None:
        """Let go of nobody any more."""
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def pass_on(self, arguments: Mapping[str, Any]) -> Deferred[dict[str, Any]]:
        """
        Tell the other servers what is to be done to an agent.

        @param arguments: C{what}, C{agent}, C{seconds}, C{who} and C{order}.
        @return: what those have done that were told over links to this process, by server:
            see L{reverseproxy.fleet.order_results.OrderResult}.
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
        Do what an operator of another server wants, if the agent has connections to this process.

        @return: how many it had, and what could not be done.
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
            told = problem and f"; not kept out: {problem}"
            told += "" if problem else f"; kept out for {order.seconds:g} s: {_shown(target)}"
        why = f"{'kicked' if kick else 'drained'} by {order.who}"
        kept_out = {"target": target, "seconds": order.seconds} if order.seconds else None
        count = self._part(order.what, order.agent, why, order.who, told, kept_out, order.id)
        return count, problem and f"it is not kept out: {problem}"

    def _part(
        self, what: str, agent: str, why: str, who: str, told: str, kept_out: Any, order_id: str
    ) -> int:
        """
        Let go of an agent that has connections to this process, and write that down.

        @param told: what else is to be said of it.
        @return: how many there were.
        """
        found, targets = self._index.identity_of(agent), self._index.targets_of(agent)
        if found is None or targets is None:
            return 0
        count = self._let_go({"id": agent, "why": why, "at_once": what == "kick", "order": order_id})
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

    # whom others keep out

    def _kept_out(self, server: str, exclusion: Exclusion) -> None:
        """Another server keeps somebody out; the log has that already."""
        seconds = round(exclusion.until - self._clock.seconds(), 1)
        target = list(exclusion.target)
        told = f"kept out for {seconds:g} s, as server {server} says: {_shown(target)}"
        agent = exclusion.agents[-1] if exclusion.agents else None
        kept_out = {"target": target, "seconds": seconds}
        self._note(exclusion.who, _HEARD, agent, "", {}, told, 0, kept_out, exclusion.ids[-1])

    def _let_in(self, server: str, exclusion: Exclusion) -> None:
        """Another server has let somebody in again; the log has that already."""
        told = f"it was kept out: {_shown(exclusion.target)}"
        agent = exclusion.agents[-1] if exclusion.agents else None
        order = f"let in {exclusion.ids[-1]}"
        self._note(f"server {server}", "let in", agent, "", {}, told, 0, None, order)

    def _look_later(self, exclusion: Exclusion) -> None:
        if exclusion.agents:
            self._due.pop(exclusion.target, None)
            self._due[exclusion.target] = self._clock.seconds() + SETTLE
            if self._timer is None:
                self._timer = self._clock.callLater(SETTLE, self._look)

    def _look(self) -> None:
        """See whether agents are here that should not be."""
        self._timer = None
        now = self._clock.seconds()
        for target, due in list(self._due.items()):
            if due > now:
                self._timer = self._clock.callLater(due - now, self._look)
                break
            del self._due[target]
            exclusion = self._index.exclusions.get(target)
            if exclusion is not None:
                for agent in exclusion.agents:
                    self._follow(agent, exclusion)

    def _follow(self, agent: str, exclusion: Exclusion) -> None:
        what = "kick" if exclusion.at_once else "drain"
        told = f"; it is kept out: {_shown(exclusion.target)}"
        self._part(what, agent, exclusion.reason, exclusion.who, told, None, exclusion.ids[-1])


def _shown(target: Iterable[str]) -> str:
    """A target for a line of the log."""
    target = list(target)
    return f"{shorten(' '.join(target))} (exclusion {id_of(target)})"


def unite_audits(
    own: Iterable[Mapping[str, Any]], heard: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """
    Make one of what several processes have written down of the same order.

    @param own: what was decided here: what is heard of that says nothing new.
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
        # Who has had the agent has more to say than who was to keep it out.
        first, second = (entry, other) if other["what"] == _HEARD else (other, entry)
        connections = first["connections"] + second["connections"]
        kept_out = first["kept_out"] or second["kept_out"]
        found[entry["order"]] = {**first, "connections": connections, "kept_out": kept_out}
    return [*entries, *found.values()]


def unite_done(answers: Iterable[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Make one of what several workers have heard of what other servers have done; see L{Passing.pass_on}."""
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
