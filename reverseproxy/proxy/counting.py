"""What is counted of requests that a host has not answered completely."""

from __future__ import annotations

__all__ = ["note_failure"]

from typing import TYPE_CHECKING, Final

from reverseproxy.clock import wall_time
from reverseproxy.proxy.flags import ResponseFlag

if TYPE_CHECKING:
    from reverseproxy.metrics import IEnded, RequestTally

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
"""What a host, or its agent, has to do with; not what clients and filters do."""


def note_failure(tally: RequestTally, ended: IEnded, flags: int, reason: str) -> None:
    """
    Count a request, or a session.

    @param flags: why; see L{reverseproxy.proxy.flags}.
    @param reason: the same for people.
    """
    host = ended.host if flags & _OF_HOSTS else None
    tally.fail(ended.rule, None if host is None else host.figures, int(flags), reason, wall_time())
