"""
Operators' actions on agents, passed on to all servers of a fleet.

An agent that one server excludes, no other server lets in: each server tells the others what its
operator has decided, at once over all links, and again to every server that links. So a server that was
away, or is new, learns it from any other one. An exclusion holds for its duration; an agent that was let
in again stays so, as lifted exclusions are remembered for as long as they would have held. Messages
carry remaining seconds, so that clocks need not agree.

    {"keep_out": ["token", "static", "edge"], "seconds": 60.0, "ids": [...], "agents": [...], "why": ...}
    {"let_in": [...], "seconds": 60.0}
    {"order": "kick", "id": ..., "agent": ..., "seconds": 60.0, "who": "alice"}

The last one concerns the agent's present connections. It is sent over the links that other servers have
dialled: each process of each other server has one of these, and answers
(L{reverseproxy.fleet.order_results}).

An exclusion keeps agents from joining. An agent that has joined before stays, at all servers alike,
unless C{agents} names it, at whichever server it is by now.
"""

from __future__ import annotations

__all__ = ["Order", "Orders"]

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from reverseproxy.errors import WireError
from reverseproxy.fleet.incoming_links import IncomingLink, IncomingLinks
from reverseproxy.fleet.order_results import OrderResult, OrderResults
from reverseproxy.logs import shorten
from reverseproxy.tunnel.server.exclusion_records import KINDS as TARGETS
from reverseproxy.tunnel.server.exclusion_records import LONGEST, MOST_IDS, Exclusion, Lifted
from reverseproxy.tunnel.server.exclusions import Exclusions

log = Logger()

_MOST_TEXT: Final = 512
_MOST_WHY: Final = 256
_MOST_ID: Final = 64

KINDS: Final = frozenset({"keep_out", "let_in", "order"})
"""Fields that tell the kind of such a message; each has one of them."""


@dataclass(frozen=True, slots=True)
class Order:
    """
    An action of an operator at another server.

    @ivar what: C{"kick"} or C{"drain"}.
    @ivar id: unique for each order.
    @ivar agent: the agent's id in the admin API.
    @ivar seconds: for how long the agent is excluded as well; 0 for not at all.
    @ivar who: the operator, and the server.
    """

    what: str
    id: str
    agent: str
    seconds: float
    who: str


class Orders:
    """
    Sends this server's exclusions and orders to the others, and applies theirs.

    @ivar obey: applies an order to the agent's connections of this process; returns how many there were,
        and an error, or an empty text.
    @ivar kept_out: called with the server that has sent an exclusion, and with the exclusion that holds
        here.
    @ivar let_in: called with the server that has lifted an exclusion, and with the one that has ended
        here.
    """

    def __init__(
        self, exclusions: Exclusions, incoming: Callable[[], IncomingLinks], clock: IReactorTime
    ) -> None:
        """
        @param exclusions: those of this server's operators, to which those of other servers are added.
        @param incoming: returns the links that other servers have dialled.
        """
        self.obey: Callable[[Order], tuple[int, str]] = lambda order: (0, "")
        self.kept_out: Callable[[str, Exclusion], object] = lambda server, exclusion: None
        self.let_in: Callable[[str, Exclusion], object] = lambda server, exclusion: None
        self._exclusions = exclusions
        self._incoming = incoming
        self._clock = clock
        self._answers = OrderResults(clock)
        exclusions.on_excluded = lambda exclusion: self._tell(exclusion, self._say)
        exclusions.on_lifted = lambda lifted: self._tell(lifted, self._say)

    def _say(self, message: Mapping[str, Any]) -> None:
        self._incoming().send(message)

    def _tell(self, change: Exclusion | Lifted, say: Callable[[Mapping[str, Any]], object]) -> None:
        """Send a change of the exclusions; log, and do not send, what other servers would reject."""
        message = change.to_json(self._clock.seconds())
        try:
            if isinstance(change, Exclusion):
                _check_target(change.target)
                message["why"] = _printable(change.reason[:_MOST_WHY])
            say(message)
        except WireError as error:
            who = "" if isinstance(change, Lifted) else f" ({change.id})"
            log.error(
                "fleet: a ban{who} can't be sent to other servers: {error}",
                who=who,
                error=str(error),
            )

    def greet(self, link: IncomingLink) -> None:
        """Send all exclusions to a server that has linked."""
        for lifted in self._exclusions.lifted:
            self._tell(lifted, link.send)
        for exclusion in self._exclusions:
            self._tell(exclusion, link.send)

    def give(
        self, what: str, agent: str, seconds: float, who: str, order_id: str
    ) -> Deferred[dict[str, OrderResult]]:
        """
        Send an order to all servers that have a link to this process.

        @return: fires with the result of each server, by id; never fails. Servers without the capability
            are left out.
        """
        incoming = self._incoming()
        links = [link for link in incoming.all if link.server and "orders" in link.capabilities]
        waiting = self._answers.wait(order_id, links)
        who = _printable(who[:_MOST_WHY])
        incoming.send({"order": what, "id": order_id, "agent": agent, "seconds": seconds, "who": who})
        return waiting

    def done(self, link: IncomingLink, message: Mapping[str, Any]) -> None:
        """
        Process the result of an order that another server has sent.

        @raise WireError: if it is malformed.
        """
        self._answers.heard(link, message)

    def stop(self) -> None:
        """Stop waiting for results."""
        self._answers.stop()

    def heard(self, server: str, message: Mapping[str, Any]) -> dict[str, Any] | None:
        """
        Process a message of another server.

        @param message: of one of L{KINDS}.
        @return: the answer; L{None} for none.
        @raise WireError: if it is malformed.
        """
        if "keep_out" in message:
            self._keep_out(server, message)
        elif "let_in" in message:
            self._let_in(server, message)
        else:
            what = message.get("order")
            if what not in ("kick", "drain"):
                raise WireError("unknown order")
            order = Order(
                what,
                _text(message, "id"),
                _text(message, "agent"),
                _seconds(message, 0.0),
                f"{_text(message, 'who') or 'somebody'} at server {server}",
            )
            connections, problem = self.obey(order)
            return {"done": order.id, "connections": connections, "problem": _printable(problem[:_MOST_WHY])}
        return None

    def _let_in(self, server: str, message: Mapping[str, Any]) -> None:
        ids = tuple(_texts(message, "let_in"))
        until = self._clock.seconds() + _seconds(message, 0.0)
        for each in self._exclusions.heard_lifted(Lifted(ids, until)):
            log.info(
                "audit: server {server} lifted the ban of {target} (exclusion {id})",
                server=server,
                target=shorten(" ".join(each.target)),
                id=each.id,
            )
            self.let_in(server, each)

    def _keep_out(self, server: str, message: Mapping[str, Any]) -> None:
        seconds = _seconds(message, None)
        target = tuple(_texts(message, "keep_out", most=max(TARGETS.values()), longest=_MOST_TEXT))
        _check_target(target)
        exclusion = Exclusion(
            target,
            self._clock.seconds() + seconds,
            _reason(_text(message, "why"), server),
            tuple(_texts(message, "ids")),
            tuple(_texts(message, "agents", least=0)),
        )
        try:
            fresh = self._exclusions.heard(exclusion)
        except ValueError as error:
            log.error(
                "fleet: a ban by server {server} can't be applied here: {error}",
                server=server,
                error=str(error),
            )
            return
        if fresh:
            log.info(
                "audit: server {server} banned {target} for {seconds:.0f} s ({reason}; exclusion {id})",
                server=server,
                seconds=seconds,
                target=shorten(" ".join(exclusion.target)),
                reason=shorten(exclusion.reason),
                id=exclusion.id,
            )
            self.kept_out(server, exclusion)


def _reason(why: str, server: str) -> str:
    """Add the server where it was decided to a reason, unless an earlier server has done that."""
    return why if " at server " in why else f"{why} at server {server}"


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(each if each.isprintable() else "?" for each in text)


def _check_target(target: Sequence[str]) -> None:
    """
    Check that a target has a known kind, and the right number of parts.

    @raise WireError: if not.
    """
    if TARGETS.get(target[0]) != len(target):
        raise WireError(f"nobody is known by {target[0]!r:.20} and {len(target) - 1} parts")
    for each in target:
        if not each or len(each) > _MOST_TEXT or not each.isprintable():
            raise WireError(f"who it is has what is no printable text of 1 to {_MOST_TEXT} characters")


def _text(message: Mapping[str, Any], name: str) -> str:
    value = message.get(name, "")
    if not isinstance(value, str) or len(value) > _MOST_TEXT or not value.isprintable():
        raise WireError(f"{name} is no printable text of at most {_MOST_TEXT} characters")
    return value


def _texts(
    message: Mapping[str, Any], name: str, least: int = 1, most: int = MOST_IDS, longest: int = _MOST_ID
) -> list[str]:
    values = message.get(name, [])
    if not isinstance(values, list) or not least <= len(values) <= most:
        raise WireError(f"{name} is no list of {least} to {most} texts")
    for each in values:
        if not isinstance(each, str) or not 0 < len(each) <= longest or not each.isprintable():
            raise WireError(f"{name} has what is no printable text of 1 to {longest} characters")
    return values


def _seconds(message: Mapping[str, Any], default: float | None) -> float:
    value = message.get("seconds", default)
    if type(value) not in (int, float) or not 0 <= value <= LONGEST:
        raise WireError(f"seconds is no number from 0 to {LONGEST:g}")
    return float(value)
