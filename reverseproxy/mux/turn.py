"""
What a session does at the end of a turn of the reactor.

What all streams have written in a turn is sent in one go, and whoever waits for it to be sent is
told after that.  What is done then may bring about more of it, which is looked for a few times;
the rest has to wait for the next turn, as other connections do.
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
"""How often the end of a turn looks for what it has brought about itself."""


@implementer(IPushProducer)
class TurnEnd:
    """
    Sends what streams have written, and calls back whoever wants that.

    @ivar scheduled: whether it will be called at the end of this turn.
    @ivar full: whether the connection takes no more for now.
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
        @param at_turn_end: calls something at the end of a turn, or in the next one.
        @param output: what is to be sent.
        @param goes: called at the end of each turn once we have gone away.
        @param failed: called while an exception is handled that is an error of ours.
        """
        self.scheduled = False
        self.full = False
        self._at_turn_end = at_turn_end
        self._output = output
        self._goes = goes
        self._failed = failed
        self._transport: Any = None  # while it is there
        self._attention: list[MuxStream] = []  # may have sent everything, and have something to do then
        self._waiting: dict[int, MuxStream] = {}  # have not
        self._later: list[Callable[[], object]] = []

    def connect(self, transport: Any) -> None:
        """Send to a transport."""
        self._transport = transport

    def disconnect(self) -> None:
        """Send nothing any more; whoever is to be called is called."""
        self._transport = None

    # what there is to do

    def schedule(self) -> None:
        """See to what there is to send, and to do, at the end of the turn."""
        if not self.scheduled:
            self.scheduled = True
            self._at_turn_end(self._end)

    def attend(self, stream: MuxStream) -> None:
        """Call C{written_out} of a stream as soon as all that it wrote is sent, but not now."""
        self._attention.append(stream)
        self.schedule()

    def call(self, call: Callable[[], object]) -> None:
        """Call something, but not now."""
        self._later.append(call)
        self.schedule()

    def forget(self, stream: MuxStream) -> None:
        """A stream is over, whatever of it was to be sent."""
        self._waiting.pop(stream.number, None)

    # IPushProducer: this is the producer of the connection

    def pauseProducing(self) -> None:
        """The connection takes no more for now."""
        self.full = True

    def resumeProducing(self) -> None:
        """The connection takes more."""
        self.full = False
        self.schedule()

    def stopProducing(self) -> None:
        """The connection is lost; whoever has it hears of that as well."""

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
                if not self._later and (self.full or not output.has_output):
                    more = False
                    break
        except Exception:
            self._failed()
        self.scheduled = False
        if more and (self._later or (output.has_output and not self.full and self._transport is not None)):
            self.schedule()
        if output.local_goaway:
            self._goes()

    def send(self, bounded: bool = True) -> None:
        """
        Give the transport what there is to send, as long as it is there.

        @param bounded: only as long as it wants more.
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

    def _attend(self) -> None:
        streams, self._attention = self._attention, []
        pending = self._output.pending
        for stream in streams:
            if stream.connected and pending(stream.number):
                self._waiting[stream.number] = stream
            else:
                stream.written_out()
