"""Why a host gave no complete response, and what is reported of that to another server of the fleet."""

from __future__ import annotations

__all__ = ["EndReporting"]

from typing import Final

from reverseproxy.interfaces import IService
from reverseproxy.proxy.http.attempts import Attempts, ExchangePhase
from reverseproxy.proxy.http.ending import Ending
from reverseproxy.wire.http.unsent import Unsent

_GATEWAYS: Final = frozenset({502, 503, 504})
"""Statuses of requests that may have been sent to no host."""


class EndReporting(Attempts):
    """The part of an exchange of any protocol that knows how it ended."""

    __slots__ = ("_ending",)

    _ending: Ending | None  # once there is something to say of that

    @property
    def _doubtful(self) -> bool:
        """Whether a host may have seen the request in an earlier attempt."""
        return self._setbacks is not None and self._setbacks.doubtful

    @property
    def ending(self) -> Ending:
        """Why the host gave no complete response."""
        if self._ending is None:
            self._ending = Ending()
        return self._ending

    @property
    def flag(self) -> str:
        """The same in words, for the access log; empty as long as there is nothing to say."""
        return "" if self._ending is None else self._ending.reason

    @flag.setter
    def flag(self, reason: str) -> None:
        self.ending.reason = reason

    def _note_unsent(self, status: int) -> None:
        """
        Note, when an error is answered, that the request was sent to no host.

        @param status: what it is answered with.
        """
        if self._phase == ExchangePhase.WAITING and status in _GATEWAYS and not self._doubtful:
            self.ending.unsent = Unsent.REQUEST

    def _unsent_for(self, service: IService | None) -> Unsent | None:
        """
        Return what is reported to a server that forwarded the request to this agent.

        @param service: what this agent makes reachable; L{None} if the request came from no such server.
        """
        unsent = None if self._ending is None else self._ending.unsent
        if unsent is None or service is None:
            return None
        return unsent if service.well else Unsent.SERVICE
