"""Answers that are read to find where they end, and by nobody else."""

from __future__ import annotations

__all__ = ["UnreadAnswer"]

from reverseproxy.wire.http1.requests import END, Event, ResponseHead


class UnreadAnswer:
    """
    The part of an L{IExchange<reverseproxy.proxy.pools.IExchange>} that is the same for all of them.

    Nothing is kept of the body, and there is nowhere to send it.
    """

    __slots__ = ()

    def upstream_events(self, events: list[Event]) -> None:
        """A part of the answer has come."""
        raise NotImplementedError

    def upstream_response(self, head: ResponseHead, data: bytes) -> None:
        """All of the answer has come, in HTTP/1."""
        self.upstream_events([head, END])

    def response_sink(self) -> None:
        """Give no place for the body."""

    @property
    def response_waiting(self) -> int:
        """Nothing of the answer waits for anybody."""
        return 0

    def response_passed(self, size: int) -> None:
        """Nothing is passed on."""
