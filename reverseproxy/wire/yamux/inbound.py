"""
The receiving half of a multiplexed connection: what the peer's frames mean, and which it may send.

A peer that breaks the rules, or sends too many frames that carry nothing, ends the connection with a
L{MuxError}.  Streams beyond the limits are refused.
"""

from __future__ import annotations

__all__ = ["MAX_PINGS", "Inbound"]

from typing import Final

from reverseproxy.errors import MuxError
from reverseproxy.wire.yamux.abuse import LATE, REPEATED
from reverseproxy.wire.yamux.events import (
    MAX_WINDOW,
    Credit,
    Ended,
    Event,
    GoneAway,
    Leaving,
    Opened,
    Pong,
    Reset,
    Well,
)
from reverseproxy.wire.yamux.frames import (
    ACK,
    FIN,
    GO_AWAY,
    LEAVING,
    ON_WIRE,
    PING,
    RST,
    SILENT,
    SYN,
    UNSENT,
    UPDATE,
    WELL,
)
from reverseproxy.wire.yamux.outbound import YamuxOutput
from reverseproxy.wire.yamux.stream import YamuxStream
from reverseproxy.wire.yamux.table import StreamTable

MAX_PINGS: Final = 64
"""Our pings whose answers are awaited; older ones are forgotten."""


class Inbound:
    """
    Interprets the frames of one connection: its L{FrameRules<reverseproxy.wire.yamux.reader.FrameRules>}.

    @ivar remote_goaway: whether the peer has sent GoAway.
    """

    __slots__ = ("_output", "_pings", "_table", "remote_goaway")

    def __init__(self, table: StreamTable, output: YamuxOutput) -> None:
        self._table = table
        self._output = output
        self._pings: list[int] = []  # that wait for their answers
        self.remote_goaway = False

    def expect_pong(self, token: int) -> None:
        """Note that we have sent a ping; see L{MAX_PINGS}."""
        self._pings.append(token)
        del self._pings[:-MAX_PINGS]

    def _charge(self, what: str, cost: float = 1) -> None:
        table = self._table
        table.abuse.charge(what, table.now, cost)

    # frames of data

    def on_data(
        self, number: int, flags: int, length: int, stream: YamuxStream | None, events: list[Event]
    ) -> YamuxStream | None:
        """See L{FrameRules<reverseproxy.wire.yamux.reader.FrameRules>}."""
        if flags & ~ON_WIRE:
            raise MuxError(f"expected flags that are known on stream {number}")
        if not (length or flags & (SYN | FIN | RST)) and (not flags or stream is None or stream.acknowledged):
            self._charge("frames of data without any")
        if flags & SYN:
            stream = self._on_syn(number, flags, events)
        if stream is None:
            if not flags & SYN or number in self._table.resets:
                self._on_late(number, flags, length)
            return None
        if flags & ACK:
            stream.acknowledged = True
        if flags & RST:
            self._on_reset(stream, 0, events)
            return None
        if length > stream.recv_window:
            if not stream.remote_open:
                raise MuxError(f"expected nothing more on stream {number}, which the peer has ended")
            raise MuxError(f"expected {stream.recv_window} bytes at most on stream {number}")
        stream.recv_window -= length
        stream.held += length
        self._table.held += length
        return stream

    def _on_late(self, number: int, flags: int, length: int) -> None:
        """Handle data for a stream that is over, or never was."""
        table = self._table
        if number in table.resets:
            table.resets.drop(number, flags, length)
            return
        table.ids.check_known(number)
        if not (flags & RST or table.resets.may_include(number)):
            raise MuxError(f"expected nothing more on stream {number}, which is over")
        self._charge("frames for streams that are over", LATE)

    def on_end(self, stream: YamuxStream, events: list[Event]) -> None:
        """See L{FrameRules<reverseproxy.wire.yamux.reader.FrameRules>}."""
        stream.remote_open = False
        stream.recv_window = -1
        events.append(Ended(stream.id))
        self._table.finish(stream)

    # frames without data

    def on_control(self, kind: int, flags: int, number: int, length: int, events: list[Event]) -> None:
        """See L{FrameRules<reverseproxy.wire.yamux.reader.FrameRules>}."""
        if kind == UPDATE:
            stream = self._table.streams.get(number)
            if flags or stream is None:
                self._on_update(number, flags, length, stream, events)
            elif length:
                self._on_credit(stream, length, events)
            else:
                self._charge("grants of no credit")
        elif kind == PING:
            self._on_ping(number, flags, length, events)
        else:
            self._on_session(kind, number, flags, length, events)

    def _on_update(
        self, number: int, flags: int, length: int, stream: YamuxStream | None, events: list[Event]
    ) -> None:
        """Handle a window update that has flags, or whose stream is unknown."""
        if flags & ~ON_WIRE:
            raise MuxError(f"expected flags that are known on stream {number}")
        if flags & SYN:
            stream = self._on_syn(number, flags, events)
        elif stream is None:
            self._table.ids.check_known(number)
            self._charge("frames for streams that are over", LATE)
            if flags & (FIN | RST):
                self._table.resets.ended(number)
        if stream is None:
            return
        acknowledged = stream.acknowledged
        if flags & ACK:
            stream.acknowledged = True
        if flags & RST:
            self._on_reset(stream, length, events)
            return
        if flags & FIN and not stream.remote_open:
            raise MuxError(f"expected nothing more on stream {number}, which the peer has ended")
        if flags == ACK and acknowledged:
            self._charge("acknowledgements of a stream", LATE)
        self._on_credit(stream, length, events)
        if flags & FIN:
            self.on_end(stream, events)

    def _on_syn(self, number: int, flags: int, events: list[Event]) -> YamuxStream | None:
        """Open a stream for the peer; return it, unless it is refused or reset at once."""
        table, output = self._table, self._output
        table.ids.accept(number)
        if flags & RST:
            self._charge("streams that are opened and reset at once", LATE)
            table.abuse.charge_reset(table.now)
            return None
        backlog = table.limits.accept_backlog
        if (
            (output.local_goaway and self.remote_goaway)
            or len(table.streams) >= table.limits.max_streams
            or len(output.unacknowledged) >= backlog
            or table.abuse.bars_streams(table.now)
        ):
            self._charge("streams that are refused", LATE if backlog else 1)
            output.refuse(number, bool(flags & FIN))
            return None
        stream = table.add(number, ACK | SILENT)
        output.accept(stream)
        events.append(Opened(number))
        return stream

    def _on_reset(self, stream: YamuxStream, code: int, events: list[Event]) -> None:
        if not stream.local_open and not stream.remote_open:
            return  # it is over; what came can still be read
        if stream.flags & SYN:
            raise MuxError(f"expected a stream that was opened, which {stream.id} was not")
        table = self._table
        if stream.flags:
            table.abuse.charge_reset(table.now)
        # One of ours without ACK and data: the peer has refused it unseen.  Or it says so (UNSENT).
        refused = stream.id & 1 == table.ids.parity and (
            (not stream.acknowledged and stream.recv_window == stream.window)
            or (table.limits.tells and code == UNSENT)
        )
        self._output.drop(stream)
        events.append(Reset(stream.id, True, refused))

    def _on_credit(self, stream: YamuxStream, length: int, events: list[Event]) -> None:
        if not stream.local_open:
            return
        before = stream.send_window
        window = before + length
        if window > MAX_WINDOW:
            raise MuxError(f"expected credit of {MAX_WINDOW - before} bytes at most for stream {stream.id}")
        stream.send_window = window
        if not before and length:
            if stream.pending:
                self._output.resume(stream)
            else:
                events.append(Credit(stream.id))

    # the connection's own frames

    def _on_ping(self, number: int, flags: int, token: int, events: list[Event]) -> None:
        if number:
            raise MuxError("expected stream 0 for a ping")
        if flags == SYN:
            self._charge("pings")
            self._output.pong(token)
        elif flags == ACK:
            if token in self._pings:
                self._pings.remove(token)
                events.append(Pong(token))
            else:
                self._charge("answers to pings that were not sent")
        else:
            raise MuxError("expected SYN or ACK on a ping")

    def _on_session(self, kind: int, number: int, flags: int, code: int, events: list[Event]) -> None:
        """Handle GoAway, and the frames that both ends have agreed on besides; refuse unknown types."""
        limits = self._table.limits
        if kind == WELL and limits.tells:
            if number or flags or code > 1:
                raise MuxError("expected stream 0, no flags, and 0 or 1 for the health of a service")
            events.append(Well(bool(code)))
            return
        if kind == LEAVING and limits.moves:
            if number or flags:
                raise MuxError("expected stream 0 and no flags for a server that is about to leave")
            self._charge("announcements of leaving", REPEATED)
            events.append(Leaving(code))
            return
        if kind != GO_AWAY:
            raise MuxError("expected version 0 and a type from 0 to 3")
        if number or flags:
            raise MuxError("expected stream 0 and no flags for a GoAway")
        if self.remote_goaway:
            self._charge("GoAways", REPEATED)
        self.remote_goaway = True
        events.append(GoneAway(code))
