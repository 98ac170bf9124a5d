"""
Why an exchange has got no complete response of a host, and what a server of ours before us is told of that.
"""

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
    """The part of an exchange that knows how it has ended, whatever it carries."""

    __slots__ = ("_ending",)

    _ending: Ending | None  # once there is something to say of that

    @property
    def _doubtful(self) -> bool:
        """Whether a host may have seen the request, although it was sent again, or is to be."""
        return self._setbacks is not None and self._setbacks.doubtful

    @property
    def ending(self) -> Ending:
        """Why there is no complete response of a host."""
        if self._ending is None:
            self._ending = Ending()
        return self._ending

    @property
    def flag(self) -> str:
        """The reason for that, for the access log; empty as long as there is none."""
        return "" if self._ending is None else self._ending.reason

    @flag.setter
    def flag(self, reason: str) -> None:
        self.ending.reason = reason

    def _note_unsent(self, status: int) -> None:
        """
        Keep in mind that the request was sent to no host, if that is so.

        @param status: what it is answered with.
        """
        if self._phase == ExchangePhase.WAITING and status in _GATEWAYS and not self._doubtful:
            self.ending.unsent = Unsent.REQUEST

    def _unsent_for(self, service: IService | None) -> Unsent | None:
        """
        Find what a server of ours is to be told.

        @param service: what this agent makes reachable; L{None} if that is not who asks.
        """
        unsent = None if self._ending is None else self._ending.unsent
        if unsent is None or service is None:
            return None
        return unsent if service.well else Unsent.SERVICE
