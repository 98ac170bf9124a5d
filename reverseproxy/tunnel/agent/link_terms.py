"""What an agent's connection is made with, and the callbacks for what happens to it."""

from __future__ import annotations

__all__ = ["LinkHooks", "LinkTerms", "ignore_loss"]

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from twisted.python.failure import Failure

from reverseproxy.interfaces import IConnectionSink
from reverseproxy.tunnel.agent.service import HostedService
from reverseproxy.tunnel.streams import StreamSettings
from reverseproxy.wire.mosn.frames import ConnectionInit

if TYPE_CHECKING:
    from reverseproxy.tunnel.agent.link import AgentLink


def ignore_loss(reason: Failure) -> None:
    """Do nothing: the default of L{LinkHooks.lost}."""


def _stay(link: AgentLink) -> None:
    """Do nothing: the default of callbacks with a link."""


def _nothing() -> None:
    """Do nothing: the default of L{LinkHooks.greeted}."""


def _never() -> bool:
    """Return False: the default of L{LinkHooks.may_leave}."""
    return False


class LinkHooks:
    """
    The callbacks of an L{AgentLink<reverseproxy.tunnel.agent.link.AgentLink>}, each for one listener.

    @ivar lost: called once with the reason when the connection is lost.
    @ivar leaving: called with the link when the server wants another connection in its place, because it
        is about to leave or has closed its half, but requests are in progress or may still come; C{lost}
        is called as well.
    @ivar may_leave: returns whether the link may be replaced while it still has requests in progress.
    @ivar hosted: called once with the link when the hosting listener has it.
    @ivar greeted: called when the handshake has ended, with whatever result; also when the connection is
        lost.
    @ivar parted: called with the link when the connection is lost.
    """

    lost: Callable[[Failure], None] = staticmethod(ignore_loss)
    leaving: Callable[[AgentLink], object] = staticmethod(_stay)
    parted: Callable[[AgentLink], object] = staticmethod(_stay)
    may_leave: Callable[[], bool] = staticmethod(_never)
    hosted: Callable[[AgentLink], object] = staticmethod(_stay)
    greeted: Callable[[], object] = staticmethod(_nothing)


@dataclass(frozen=True, slots=True)
class LinkTerms:
    """
    The settings of a link.

    @ivar make_init: makes the init frame, given the connection's own address.
    @ivar sink: the hosting listener.
    @ivar response_timeout: seconds for the server's response.
    @ivar secure: whether the connection is encrypted.
    @ivar dead_peer_timeout: see L{tune<reverseproxy.net.tcp_options.tune>}.
    @ivar streams: the settings of streams that the init frame offers; L{None} if it offers none.
    @ivar service: the service whose health is reported to the server, if the init frame offers that.
    @ivar marks: whether the hosting listener can begin what it sends with a mark, as the init frame
        offers.
    """

    make_init: Callable[[str], ConnectionInit]
    sink: IConnectionSink
    response_timeout: float
    secure: bool
    dead_peer_timeout: float
    streams: StreamSettings | None
    service: HostedService | None
    marks: bool
