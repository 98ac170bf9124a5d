"""
What operators do to agents at one server of a fleet, and all others have to know.

Whom one server keeps out, no other one lets in: each tells the others what its operator
has decided, at once over all links, and once more to every server that links.  So who has
been away, or is new, knows of it from anybody who does.  That counts for as long as it
was meant to; who was let in again stays let in, as what has been lifted is remembered as
long as it would have counted.  Nobody has to agree on a time of day: what is told are
the seconds that are left.

    {"keep_out": ["token", "static", "edge"], "seconds": 60.0, "ids": [...], "agents": [...], "why": ...}
    {"let_in": [...], "seconds": 60.0}
    {"order": "kick", "id": ..., "agent": ..., "seconds": 60.0, "who": "alice"}

The last is for whoever has connections of the agent.  It is told over the links that
others have dialled: each process of each other server has one of these, and answers
(L{reverseproxy.fleet.order_results}).

To be kept out is not to join.  An agent that has joined before stays, at all servers alike,
unless it is one of C{agents}, wherever it has gone meanwhile.
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
from reverseproxy.tunnel.server.exclusions import KINDS as TARGETS
from reverseproxy.tunnel.server.exclusions import LONGEST, MOST_IDS, Exclusion, Exclusions, Lifted

log = Logger()

_MOST_TEXT: Final = 512
_MOST_WHY: Final = 256
_MOST_ID: Final = 64

KINDS: Final = frozenset({"keep_out", "let_in", "order"})
"""What messages of this kind have, one of them each."""


@dataclass(frozen=True, slots=True)
class Order:
    """
    What an operator of another server wants to be done to an agent.

    @ivar what: C{"kick"} or C{"drain"}.
    @ivar id: another one for each order.
    @ivar agent: the agent's id in the admin API.
    @ivar seconds: for how long it is to be kept out; 0 for not at all.
    @ivar who: the operator, and the server.
    """

    what: str
    id: str
    agent: str
    seconds: float
    who: str


class Orders:
    """
    Tells the others, and hears what they tell.

    @ivar obey: does what an order says, to the agent's connections to this process; gives how many there
        were, and what could not be done.
    @ivar kept_out: called with the server that has told of it, and what counts here by that.
    @ivar let_in: called with the server that has told of it, and what has ended here by that.
    """

    def __init__(
        self, exclusions: Exclusions, entrance: Callable[[], IncomingLinks], clock: IReactorTime
    ) -> None:
        """
        @param exclusions: whom an operator of this server keeps out; what others do is added to that.
        @param entrance: gives the links that others have dialled.
        """
        self.obey: Callable[[Order], tuple[int, str]] = lambda order: (0, "")
        self.kept_out: Callable[[str, Exclusion], object] = lambda server, exclusion: None
        self.let_in: Callable[[str, Exclusion], object] = lambda server, exclusion: None
        self._exclusions = exclusions
        self._entrance = entrance
        self._clock = clock
        self._answers = OrderResults(clock)
        exclusions.on_excluded = lambda exclusion: self._tell(exclusion, self._say)
        exclusions.on_lifted = lambda lifted: self._tell(lifted, self._say)

    def _say(self, message: Mapping[str, Any]) -> None:
        self._entrance().say(message)

    def _tell(self, change: Exclusion | Lifted, say: Callable[[Mapping[str, Any]], object]) -> None:
        """Say what can be said; what others would not take is left out, and costs no link."""
        message = change.to_json(self._clock.seconds())
        try:
            if isinstance(change, Exclusion):
                _check_target(change.target)
                message["why"] = _printable(change.reason[:_MOST_WHY])
            say(message)
        except WireError as error:
            who = "" if isinstance(change, Lifted) else f" ({change.id})"
            log.error(
                "fleet: other servers can't be told whom this one keeps out{who}: {error}",
                who=who,
                error=str(error),
            )

    def greet(self, link: IncomingLink) -> None:
        """Tell a server that has linked whom it has to keep out."""
        for lifted in self._exclusions.lifted:
            self._tell(lifted, link.say)
        for exclusion in self._exclusions:
            self._tell(exclusion, link.say)

    def give(
        self, what: str, agent: str, seconds: float, who: str, order_id: str
    ) -> Deferred[dict[str, OrderResult]]:
        """
        Pass an order on to all servers that have a link to this process.

        @return: what each of them has done; never fails.  Those that know no orders are not among them.
        """
        entrance = self._entrance()
        links = [link for link in entrance.links if link.server and "orders" in link.knows]
        waiting = self._answers.wait(order_id, links)
        who = _printable(who[:_MOST_WHY])
        entrance.say({"order": what, "id": order_id, "agent": agent, "seconds": seconds, "who": who})
        return waiting

    def done(self, link: IncomingLink, message: Mapping[str, Any]) -> None:
        """
        Another server has said what has come of an order.

        @raise WireError: if it makes no sense.
        """
        self._answers.heard(link, message)

    def stop(self) -> None:
        """Wait for no answers any more."""
        self._answers.stop()

    def heard(self, server: str, message: Mapping[str, Any]) -> dict[str, Any] | None:
        """
        Another server has told something.

        @param message: with one of L{KINDS}.
        @return: what is to be answered; L{None} for nothing.
        @raise WireError: if it makes no sense.
        """
        if "keep_out" in message:
            self._keep_out(server, message)
        elif "let_in" in message:
            self._let_in(server, message)
        else:
            what = message.get("order")
            if what not in ("kick", "drain"):
                raise WireError("it orders something that is not known")
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
                "audit: server {server} lets in again: {target} (exclusion {id})",
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
                "fleet: whom server {server} keeps out is not kept out here: {error}",
                server=server,
                error=str(error),
            )
            return
        if fresh:
            log.info(
                "audit: server {server} keeps out for {seconds:.0f} s: {target} ({reason}; exclusion {id})",
                server=server,
                seconds=seconds,
                target=shorten(" ".join(exclusion.target)),
                reason=shorten(exclusion.reason),
                id=exclusion.id,
            )
            self.kept_out(server, exclusion)


def _reason(why: str, server: str) -> str:
    """Say where it was decided; what has come from one server to the next says so already."""
    return why if " at server " in why else f"{why} at server {server}"


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(each if each.isprintable() else "?" for each in text)


def _check_target(target: Sequence[str]) -> None:
    """
    Look whether somebody can be known by something.

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
