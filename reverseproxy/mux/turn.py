"""
The work of a session at the end of a turn of the reactor.

What all streams have written in a turn is sent at once; then streams that wait for that are called.
These calls may write more, which is sent in a few more passes; the rest has to wait for the next turn,
so that other connections are served.
"""

from __future__ import annotations

__all__ = ["PASSES", "TurnEnd"]

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from reverseproxy.wire.yamux.outbound import YamuxOutput

if TYPE_CHECKING:
    from reverseproxy.mux.stream import MuxStream

PASSES: Final = 4
"""The most passes at the end of one turn."""


@implementer(IPushProducer)
class TurnEnd:
    """
    Sends what streams have written, and calls streams that wait for that.

    @ivar scheduled: whether it will be called at the end of this turn.
    @ivar full: whether the connection's buffer is full.
    """

    __slots__ = (
        "_at_turn_end",
        "_attention",
        "_failed",
        "_goes",
        "_later",
        "_output",
        "_transport",
        "_waiting",
        "full",
        "scheduled",
    )

    def __init__(
        self,
        at_turn_end: Callable[[Callable[[], object]], object],
        output: YamuxOutput,
        goes: Callable[[], object],
        failed: Callable[[], object],
    ) -> None:
        """
        @param at_turn_end: schedules a call for the end of a turn, or for the next one.
        @param output: the frames to be sent.
        @param goes: called at the end of each turn after GOAWAY was sent.
        @param failed: called while an unexpected exception is handled.
        """
        self.scheduled = False
        self.full = False
        self._at_turn_end = at_turn_end
        self._output = output
        self._goes = goes
        self._failed = failed
        self._transport: Any = None  # None before and after the connection
        self._attention: list[MuxStream] = []  # wait until what they wrote is sent: to be checked
        self._waiting: dict[int, MuxStream] = {}  # wait, and something is unsent
        self._later: list[Callable[[], object]] = []

    def connect(self, transport: Any) -> None:
        """Send to a transport."""
        self._transport = transport

    def disconnect(self) -> None:
        """Send nothing any more; scheduled calls are still made."""
        self._transport = None

    # what there is to do

    def schedule(self) -> None:
        """Schedule the work for the end of the turn."""
        if not self.scheduled:
            self.scheduled = True
            self._at_turn_end(self._end)

    def attend(self, stream: MuxStream) -> None:
        """Call C{written_out} of a stream once all that it wrote is sent, at the end of a turn."""
        self._attention.append(stream)
        self.schedule()

    def call(self, call: Callable[[], object]) -> None:
        """Schedule a call for the end of the turn."""
        self._later.append(call)
        self.schedule()

    def forget(self, stream: MuxStream) -> None:
        """Forget a stream that waits, as it is closed."""
        self._waiting.pop(stream.number, None)

    # IPushProducer: this is the producer of the connection

    def pauseProducing(self) -> None:
        """Send no more, as the connection's buffer is full."""
        self.full = True

    def resumeProducing(self) -> None:
        """Send again, as the connection's buffer has room."""
        self.full = False
        self.schedule()

    def stopProducing(self) -> None:
        """Do nothing: the session handles the loss of the connection."""

    # the end of a turn

    def _end(self) -> None:
        output = self._output
        more = True
        try:
            for _ in range(PASSES):
                later, self._later = self._later, []
                for call in later:
                    call()
                if not self.full:
                    self.send()
                if self._attention and not self.full:
                    self._attend()
                # A stream that was called may wait again, though it has written nothing.
                if not self._later and (self.full or not (output.has_output or self._attention)):
                    more = False
                    break
        except Exception:
            self._failed()
        self.scheduled = False
        if more and (self._later or (not self.full and (self._attention or self._may_send()))):
            self.schedule()
        if output.local_goaway:
            self._goes()

    def send(self, bounded: bool = True) -> None:
        """
        Write all output to the transport, if there is one.

        @param bounded: whether to stop when the connection's buffer is full.
        """
        if self._transport is None:
            return
        output, write, waiting = self._output, self._transport.write, self._waiting
        while not (bounded and self.full):
            data = output.take()
            if not data:
                return
            write(data)
            if output.drained and waiting:
                self._attention += [waiting.pop(number) for number in output.drained if number in waiting]

    def _may_send(self) -> bool:
        return self._transport is not None and self._output.has_output

    def _attend(self) -> None:
        streams, self._attention = self._attention, []
        pending = self._output.pending
        for stream in streams:
            if stream.connected and pending(stream.number):
                self._waiting[stream.number] = stream
            else:
                stream.written_out()
