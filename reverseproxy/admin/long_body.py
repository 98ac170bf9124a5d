"""Long bodies of answers, written as fast as the client reads."""

from __future__ import annotations

__all__ = ["PORTION", "BodyWriter"]

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IPushProducer, IReactorTime
from zope.interface import implementer

from reverseproxy.admin.slices import Steps, in_slices

PORTION: Final = 65536
"""
The maximum number of bytes that are written at once, as TLS encrypts all of them in one step, and keeps
them until the client has read them.
"""


@implementer(IPushProducer)
class BodyWriter:
    """Writes the body of one answer in portions, and finishes the answer."""

    def __init__(
        self, request: Any, body: bytes, clock: IReactorTime, stalled: Callable[[bool], object]
    ) -> None:
        """
        @param request: the C{twisted.web.http.Request}, whose head has been set.
        @param stalled: called with true when the client does not read fast enough, and with false when it
            reads on.
        """
        self._request = request
        self._body = body
        self._clock = clock
        self._stalled = stalled
        self._written = 0
        self._paused = False

    def start(self) -> None:
        """Begin to write."""
        self._request.registerProducer(self, True)
        in_slices(self._write(), self._clock)

    def _write(self) -> Steps[None]:
        """Write portions until the client does not read fast enough, or all is written."""
        while not self._paused:
            end = self._written + PORTION
            portion, self._written = self._body[self._written : end], end
            self._request.write(portion)
            if end >= len(self._body):
                self._request.unregisterProducer()
                self._request.finish()
                return
            yield

    # IPushProducer

    def pauseProducing(self) -> None:
        """Write nothing for now; see L{IPushProducer}."""
        if not self._paused:
            self._paused = True
            self._stalled(True)

    def resumeProducing(self) -> None:
        """Write on; see L{IPushProducer}."""
        if self._paused:
            self._paused = False
            self._stalled(False)
            in_slices(self._write(), self._clock)

    def stopProducing(self) -> None:
        """Write no more, as the client has disconnected; see L{IPushProducer}."""
        self._paused = True
