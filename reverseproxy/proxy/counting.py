"""Counting requests that have ended, and what has failed."""

from __future__ import annotations

__all__ = ["count", "note_failure"]

from typing import TYPE_CHECKING, Final

from reverseproxy.clock import wall_time
from reverseproxy.proxy.flags import ResponseFlag

if TYPE_CHECKING:
    from reverseproxy.metrics import IEndedRequest, RequestTally
    from reverseproxy.proxy.http.exchange import Exchange
    from reverseproxy.proxy.rpc.exchange import RpcExchange

_OF_HOSTS: Final = (
    ResponseFlag.UF
    | ResponseFlag.UT
    | ResponseFlag.UC
    | ResponseFlag.UR
    | ResponseFlag.UPE
    | ResponseFlag.URX
    | ResponseFlag.SI
    | ResponseFlag.DF
    | ResponseFlag.UH
    | ResponseFlag.UO
)
"""The flags that count for the agent: failures of its host, not of clients or filters."""


def count(tally: RequestTally, exchange: Exchange | RpcExchange, now: float) -> None:
    """
    Count an exchange that has ended.

    @param now: the clock's seconds.
    """
    tally.end(exchange, now)
    if exchange.flags:
        note_failure(tally, exchange, exchange.flags, exchange.flag)


def note_failure(tally: RequestTally, ended: IEndedRequest, flags: int, reason: str) -> None:
    """
    Count a failed request or session.

    @param flags: the reason; see L{reverseproxy.proxy.flags}.
    @param reason: the same in words.
    """
    host = ended.host if flags & _OF_HOSTS else None
    tally.fail(ended.rule, None if host is None else host.figures, int(flags), reason, wall_time())
