"""
The output buffer of an RPC client's connection: responses, in whatever order they come.

What is written while a read is handled is sent in one piece at the end of it, and
no more than the transport takes.  Responses for a client that does not read are
buffered up to L{OUT_LIMIT} bytes; beyond that, reading is paused on the connections
to hosts that bring more of them.  As these carry responses for other clients too,
the client then has L{STALL} seconds to read half of its buffer before its connection
is closed.  A reverse connection is not closed for that: there the client is a tunnel
server, whose own clients share the connection.
"""

from __future__ import annotations

__all__ = ["OUT_LIMIT", "STALL", "WRITE_SIZE", "Answers", "IReader"]

from collections import deque
from math import inf
from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.internet.interfaces import IDelayedCall, IPushProducer
from zope.interface import implementer

from reverseproxy.config.durations import format_duration
from reverseproxy.proxy.http.deadlines import LOOKS
from reverseproxy.proxy.rpc.interfaces import Batch
from reverseproxy.transport.backlog import Pace, backlog_of

if TYPE_CHECKING:
    from reverseproxy.proxy.rpc.settings import RpcSettings

OUT_LIMIT: Final = 4 * 1024 * 1024
"""Bytes of responses that are buffered for a client that does not read."""

WRITE_SIZE: Final = 65536
"""Bytes that are written to the transport at once when it resumes us."""

STALL: Final = 15.0
"""Seconds that a client may block connections to hosts that it shares with other clients."""


class IReader(Protocol):
    """A source of responses that can be paused: a connection to a host."""

    def pause(self, who: object) -> None:
        """Pause reading until each caller of this has called L{resume}."""

    def resume(self, who: object) -> None:
        """End the pause of one caller."""


class IAnswered(Protocol):
    """The part of a client's connection that gets events of its output buffer."""

    def answers_flushed(self) -> None:
        """Handle that what was written while a read was handled was passed to the transport."""

    def answers_full(self, full: bool) -> None:
        """Handle that the transport's buffer is full, or is not any more."""

    def answers_stalled(self, reason: str) -> None:
        """Handle that the client has not read its responses for too long."""


@implementer(IPushProducer)
class Answers:
    """
    The responses for one client.

    @ivar full: whether the transport's buffer is full.
    @ivar size: the number of bytes buffered here.
    """

    __slots__ = (
        "_client",
        "_held_up",
        "_out",
        "_pace",
        "_patient",
        "_settings",
        "_stall_timer",
        "_transport",
        "_write_timer",
        "full",
        "size",
    )

    def __init__(self, settings: RpcSettings, client: IAnswered, patient: bool) -> None:
        """
        @param patient: whether the client may block connections to hosts for any time.
        """
        self.full = False
        self.size = 0
        self._settings = settings
        self._client = client
        self._patient = patient
        self._transport: Any = None  # L{None} before it is connected, and once it is closed
        self._out: deque[bytes | bytearray] = deque()
        self._held_up: set[IReader] = set()
        self._pace = Pace()
        self._stall_timer: IDelayedCall | None = None
        self._write_timer: IDelayedCall | None = None

    def __bool__(self) -> bool:
        """Whether anything is buffered here."""
        return bool(self._out)

    def open(self, transport: Any) -> None:
        """Set the transport, and become its producer."""
        self._transport = transport
        transport.registerProducer(self, True)

    def add(self, data: bytes | bytearray, batch: Batch | None, host: IReader | None) -> None:
        """
        Write a response, or any other frame.

        @param batch: collects what is to be flushed later; L{None} to write at once.
        @param host: the connection that it came from; L{None} for a response of our own.
        """
        if self._transport is None:
            return
        out = self._out
        if self.size >= OUT_LIMIT and host is not None:
            self._hold_up(host)
        if not out and batch is not None:
            batch.append(self)
        out.append(data)
        self.size += len(data)
        if batch is None:
            self.flush()

    def flush(self) -> None:
        """See L{reverseproxy.proxy.rpc.interfaces.IFlushed}."""
        out = self._out
        if out and not self.full:
            if self.size <= WRITE_SIZE or len(out) == 1:
                data = bytes(out[0]) if len(out) == 1 else b"".join(out)
                out.clear()
                self.size = 0
                self._transport.write(data)
            else:
                self._write_some()
        self._client.answers_flushed()

    def _write_some(self) -> None:
        """Write until the transport's buffer is full."""
        out = self._out
        while out and not self.full:
            some = [out.popleft()]
            size = len(some[0])
            while out and size < WRITE_SIZE:
                data = out.popleft()
                some.append(data)
                size += len(data)
            self.size -= size
            self._transport.write(b"".join(some))
        if self._held_up and self.size <= OUT_LIMIT // 2:
            self._let_go()

    # backpressure

    def _hold_up(self, host: IReader) -> None:
        """Pause reading on a connection to a host, as too much is buffered."""
        if host not in self._held_up:
            self._held_up.add(host)
            host.pause(self)
            if self._stall_timer is None and not self._patient:
                self._stall_timer = self._settings.clock.callLater(STALL, self._stalled)

    def _let_go(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
        held_up, self._held_up = self._held_up, set()
        for host in held_up:
            host.resume(self)

    def _stalled(self) -> None:
        self._stall_timer = None
        self._client.answers_stalled("it keeps others from their answers, as it does not take its own")

    def _look(self) -> None:
        """Check whether the client has received more of the output since the last look."""
        self._write_timer = None
        idle = self._settings.stream_idle
        if self._pace.look(backlog_of(self._transport).mark) < LOOKS:
            self._write_timer = self._settings.clock.callLater(idle / LOOKS, self._look)
        else:
            reason = f"it has taken nothing for {format_duration(idle)}; see stream_idle_timeout"
            self._client.answers_stalled(reason)

    # IPushProducer

    def pauseProducing(self) -> None:
        """Stop writing: the transport's buffer is full."""
        self.full = True
        if self._transport is None:
            return
        if self._write_timer is None and self._settings.stream_idle < inf:
            self._pace = Pace()
            self._look()
        self._client.answers_full(True)

    def resumeProducing(self) -> None:
        """Write more."""
        self.full = False
        self._stop_looking()
        self._write_some()
        self._client.answers_full(self.full)

    def stopProducing(self) -> None:
        """Do nothing: C{connectionLost} follows."""

    def _stop_looking(self) -> None:
        timer, self._write_timer = self._write_timer, None
        if timer is not None:
            timer.cancel()

    def close(self) -> None:
        """Write nothing more, and drop what is buffered."""
        self._transport = None
        self._out.clear()
        self.size = 0
        self._stop_looking()
        self._let_go()
