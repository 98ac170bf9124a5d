"""
What operators do to agents at one server of a fleet, and all others have to know.

Whom one server keeps out, no other one lets in: each tells the others what its operator
has decided, at once over all links, and once more to every server that links.  So who has
been away, or is new, knows of it from anybody who does.  That counts for as long as it
was meant to; who was let in again stays let in, as what has been lifted is remembered as
long as it would have counted.  Nobody has to agree on a time of day: what is told are
the seconds that are left.

    {"keep_out": ["token", "static", "edge"], "seconds": 60.0, "ids": [...], "agent": ..., "why": ...}
    {"let_in": [...]}
    {"order": "kick", "id": ..., "agent": ..., "seconds": 60.0, "who": "alice"}

The last is for whoever has connections of the agent.  It is told over the links that
others have dialled: each process of each other server has one of these.
"""

from __future__ import annotations

__all__ = ["LONGEST", "Order", "Orders"]

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from reverseproxy.errors import WireError
from reverseproxy.fleet.entrance import Entrance, IncomingLink
from reverseproxy.logs import shorten
from reverseproxy.tunnel.server.exclusions import Exclusion, Exclusions

log = Logger()

LONGEST: Final = 30 * 24 * 3600.0
"""Seconds for which an agent can be kept out at the most."""

_MOST_TEXT: Final = 512
_MOST_WHY: Final = 256
_MOST_IDS: Final = 64
_MOST_PARTS: Final = 3

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

    @ivar obey: does what an order says, to the agent's connections to this process.
    """

    def __init__(self, exclusions: Exclusions, entrance: Callable[[], Entrance], clock: IReactorTime) -> None:
        """
        @param exclusions: whom an operator of this server keeps out; what others do is added to that.
        @param entrance: gives the links that others have dialled.
        """
        self.obey: Callable[[Order], object] = lambda order: None
        self._exclusions = exclusions
        self._entrance = entrance
        self._clock = clock
        exclusions.on_excluded = lambda exclusion: self._say(self._told(exclusion))
        exclusions.on_lifted = lambda exclusion: self._say({"let_in": sorted(exclusion.ids)[:_MOST_IDS]})

    def _told(self, exclusion: Exclusion) -> dict[str, Any]:
        return {
            "keep_out": list(exclusion.target),
            "seconds": exclusion.until - self._clock.seconds(),
            "ids": sorted(exclusion.ids)[:_MOST_IDS],
            "agent": exclusion.agent,
            "why": exclusion.reason[:_MOST_WHY],
        }

    def _say(self, message: Mapping[str, Any]) -> None:
        try:
            self._entrance().say(message)
        except WireError as error:
            log.error("fleet: other servers can't be told whom this one keeps out: {error}", error=str(error))

    def greet(self, link: IncomingLink) -> None:
        """Tell a server that has linked whom it has to keep out."""
        lifted = self._exclusions.lifted
        for start in range(0, len(lifted), _MOST_IDS):
            link.say({"let_in": lifted[start : start + _MOST_IDS]})
        for exclusion in self._exclusions:
            link.say(self._told(exclusion))

    def give(self, what: str, agent: str, seconds: float, who: str, order_id: str) -> list[str]:
        """
        Pass an order on to all servers that have a link to this process.

        @return: which ones; those that know no orders are not among them.
        """
        entrance = self._entrance()
        entrance.say(
            {"order": what, "id": order_id, "agent": agent, "seconds": seconds, "who": who[:_MOST_WHY]}
        )
        return sorted({link.server for link in entrance.links if link.server and "orders" in link.knows})

    def heard(self, server: str, message: Mapping[str, Any]) -> None:
        """
        Another server has told something.

        @param message: with one of L{KINDS}.
        @raise WireError: if it makes no sense.
        """
        if "keep_out" in message:
            self._keep_out(server, message)
        elif "let_in" in message:
            for each in self._exclusions.heard_lifted(_texts(message, "let_in", _MOST_IDS)):
                log.info(
                    "audit: server {server} lets in again: {target}",
                    server=server,
                    target=shorten(" ".join(each.target)),
                )
        else:
            what = message.get("order")
            if what not in ("kick", "drain"):
                raise WireError("it orders something that is not known")
            self.obey(
                Order(
                    what,
                    _text(message, "id"),
                    _text(message, "agent"),
                    _seconds(message, 0.0),
                    f"{_text(message, 'who') or 'somebody'} at server {server}",
                )
            )

    def _keep_out(self, server: str, message: Mapping[str, Any]) -> None:
        seconds = _seconds(message, None)
        exclusion = Exclusion(
            tuple(_texts(message, "keep_out", _MOST_PARTS)),
            self._clock.seconds() + seconds,
            _reason(_text(message, "why"), server),
            frozenset(_texts(message, "ids", _MOST_IDS)),
            _text(message, "agent"),
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
                "audit: server {server} keeps out for {seconds:.0f} s: {target} ({reason})",
                server=server,
                seconds=seconds,
                target=shorten(" ".join(exclusion.target)),
                reason=shorten(exclusion.reason),
            )


def _reason(why: str, server: str) -> str:
    """Say where it was decided; what has come from one server to the next says so already."""
    return why if " at server " in why else f"{why} at server {server}"


def _text(message: Mapping[str, Any], name: str) -> str:
    value = message.get(name, "")
    if not isinstance(value, str) or len(value) > _MOST_TEXT or not value.isprintable():
        raise WireError(f"{name} is no printable text of at most {_MOST_TEXT} characters")
    return value


def _texts(message: Mapping[str, Any], name: str, most: int) -> list[str]:
    values = message.get(name)
    if not isinstance(values, list) or not 0 < len(values) <= most:
        raise WireError(f"{name} is no list of at most {most} texts")
    if any(not isinstance(each, str) or len(each) > _MOST_TEXT for each in values):
        raise WireError(f"{name} has what is no text of at most {_MOST_TEXT} characters")
    return values


def _seconds(message: Mapping[str, Any], default: float | None) -> float:
    value = message.get("seconds", default)
    if type(value) not in (int, float) or not 0 <= value <= LONGEST:
        raise WireError(f"seconds is no number from 0 to {LONGEST:g}")
    return float(value)
