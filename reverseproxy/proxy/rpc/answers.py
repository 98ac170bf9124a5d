"""
What a client of an RPC protocol is to receive: answers, in whatever order they come.

What is made while a read is handled goes out in one piece at the end of it, and
no more than the transport takes.  Answers for a client that does not take them
are kept up to L{OUT_LIMIT} bytes; beyond that the connections that bring more of
them are not read either.  As these carry answers for others too, a client has
L{STALL} seconds then to take half of them, and is cut off else.  A reverse
connection is not: there the client is a tunnel server, whose own clients share
it.
"""

from __future__ import annotations

__all__ = ["OUT_LIMIT", "STALL", "WRITE_SIZE", "Answers", "IReader"]

from collections import deque
from math import inf
from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.internet.interfaces import IDelayedCall, IPushProducer
from zope.interface import implementer

from reverseproxy.config.durations import format_duration
from reverseproxy.proxy.http.deadlines import LOOKS, Pace
from reverseproxy.proxy.rpc.interfaces import Batch
from reverseproxy.transport.backlog import backlog_of

if TYPE_CHECKING:
    from reverseproxy.proxy.rpc.settings import RpcSettings

OUT_LIMIT: Final = 4 * 1024 * 1024
"""Bytes of answers that are kept for a client that does not take them."""

WRITE_SIZE: Final = 65536
"""Bytes that are given to the transport at once, when it has asked for more."""

STALL: Final = 15.0
"""Seconds that a client may keep others from their answers."""


class IReader(Protocol):
    """What brings answers, and can be told to stop: a connection to a host."""

    def pause(self, who: object) -> None:
        """Read no more until everybody who has called this has called L{resume}."""

    def resume(self, who: object) -> None:
        """Read again, as far as somebody is concerned."""


class IAnswered(Protocol):
    """Whom the answers tell how it goes: a client's connection."""

    def answers_flushed(self) -> None:
        """What was made while a read was handled is given to the transport, as far as that takes it."""

    def answers_full(self, full: bool) -> None:
        """The transport holds enough, or has caught up."""

    def answers_stalled(self, reason: str) -> None:
        """The client does not take its answers, for longer than it may."""


@implementer(IPushProducer)
class Answers:
    """
    The answers for one client.

    @ivar full: whether the transport holds as much as it should.
    @ivar size: bytes that wait here.
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
        @param patient: whether it does not matter that the client keeps others from
            their answers.
        """
        self.full = False
        self.size = 0
        self._settings = settings
        self._client = client
        self._patient = patient
        self._transport: Any = None  # L{None} before there is one, and when nothing is sent any more
        self._out: deque[bytes | bytearray] = deque()
        self._held_up: set[IReader] = set()
        self._pace = Pace()
        self._stall_timer: IDelayedCall | None = None
        self._write_timer: IDelayedCall | None = None

    def __bool__(self) -> bool:
        """Whether anything waits here."""
        return bool(self._out)

    def open(self, transport: Any) -> None:
        """Send to this transport."""
        self._transport = transport
        transport.registerProducer(self, True)

    def add(self, data: bytes | bytearray, batch: Batch | None, host: IReader | None) -> None:
        """
        Send an answer, or anything else that a client is to get.

        @param batch: where to wait to be flushed; L{None} to send at once.
        @param host: what has brought it; L{None} for an answer of our own.
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
        """Give the transport what it takes."""
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

    # who has to wait for the client

    def _hold_up(self, host: IReader) -> None:
        """There is too much to send already: what brings more is not read."""
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
        """See whether the client takes anything of what waits for it."""
        self._write_timer = None
        idle = self._settings.stream_idle
        if self._pace.look(backlog_of(self._transport).mark) < LOOKS:
            self._write_timer = self._settings.clock.callLater(idle / LOOKS, self._look)
        else:
            reason = f"it has taken nothing for {format_duration(idle)}; see stream_idle_timeout"
            self._client.answers_stalled(reason)

    # IPushProducer: we are the producer of what the client is to receive

    def pauseProducing(self) -> None:
        """The transport holds enough."""
        self.full = True
        if self._transport is None:
            return
        if self._write_timer is None and self._settings.stream_idle < inf:
            self._pace = Pace()
            self._look()
        self._client.answers_full(True)

    def resumeProducing(self) -> None:
        """The transport wants more."""
        self.full = False
        self._stop_looking()
        self._write_some()
        self._client.answers_full(self.full)

    def stopProducing(self) -> None:
        """The connection is lost; the client's C{connectionLost} says so as well."""

    def _stop_looking(self) -> None:
        timer, self._write_timer = self._write_timer, None
        if timer is not None:
            timer.cancel()

    def close(self) -> None:
        """Send nothing more: what waits here is dropped."""
        self._transport = None
        self._out.clear()
        self.size = 0
        self._stop_looking()
        self._let_go()
