"""What protocols share that close connections: what they have under way, and the log of losses."""

from __future__ import annotations

__all__ = ["FRESH", "QUIET", "doing", "end_session", "note_loss"]

from typing import Any, Final

from twisted.logger import Logger

from reverseproxy.interfaces import IEndable
from reverseproxy.logs import Throttle

log = Logger()

FRESH: Final = 2.0
"""Seconds after a client has connected, or sent a request, in which it is likely to send another one."""

QUIET: Final = 1.0
"""
Seconds that a draining connection waits for a request of such a client.

Otherwise a request that is on its way when the connection is closed would fail, and
its client would not know why.
"""


def note_loss(complaints: Throttle, listener: str, peer: str, reason: str) -> None:
    """
    Log that a peer has not received everything.

    @param complaints: limits the rate of lines.
    """
    if complaints.allow():
        log.info(
            "{listener}: what is left for {peer} is dropped: {reason}; see stream_idle_timeout of the proxy"
            " filter{suppressed}",
            listener=listener,
            peer=peer,
            reason=reason,
            suppressed=complaints.suppressed,
        )


def doing(protocol: Any) -> str:
    """Return what a protocol has under way, in a word or two; see L{IEndable}."""
    endable = IEndable(protocol, None)
    return str(endable.doing) if endable is not None else "connection"


def end_session(protocol: Any, reason: str) -> None:
    """End what a protocol has under way, see L{IEndable}; close the connection if it can't."""
    if IEndable.providedBy(protocol):
        protocol.end(reason)
    elif protocol is not None:
        protocol.transport.loseConnection()
