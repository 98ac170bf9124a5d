"""
Timeouts of a client's HTTP/1 connection, and how the connection is closed.

Each connection has one timer, which is not reset for each request: when it
fires, it checks the deadline, and is started again if that is in the future.
"""

from __future__ import annotations

__all__ = ["LINGER_BYTES", "Awaited", "ClientClosing", "ClosingPhase"]

from enum import IntEnum
from functools import partial
from math import inf

from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.limits.buffered_bytes import AccountedProtocol
from reverseproxy.proxy.closing import FRESH, QUIET, note_loss
from reverseproxy.proxy.flags import ResponseFlag
from reverseproxy.proxy.http.http1_switch import Switchable
from reverseproxy.proxy.http.settings import HttpSettings
from reverseproxy.proxy.lazy_timer import LazyTimer
from reverseproxy.proxy.relay import lose_connection
from reverseproxy.transport.closing import CloseLimits, UnreceivedBytes

LINGER_BYTES = 16 * 1024 * 1024
"""
Bytes of an unwanted request that are read and dropped after the last response.

A connection that is closed with unread bytes is reset, and the reset may destroy
the response on its way to the client.
"""


class ClosingPhase(IntEnum):
    """How far a connection is closed."""

    OPEN = 0
    """It goes on, as far as we are concerned."""

    DRAINING = 1
    """The next response is the last one."""

    CLOSING = 2
    """Nothing is read any more that counts, and nothing is written."""

    LOST = 3
    """It is gone."""


class Awaited(IntEnum):
    """What the deadline of a connection is for."""

    IDLE = 0
    HEAD = 1
    EXCHANGE = 2
    CLOSE = 3


OPEN, DRAINING, CLOSING, LOST = ClosingPhase
IDLE, HEAD, EXCHANGE, CLOSE = Awaited


class ClientClosing(Switchable, AccountedProtocol):
    """The part of a client's connection that has its timeouts, and closes it."""

    def __init__(self, settings: HttpSettings, info: ConnectionInfo) -> None:
        self.settings = settings
        self.info = info
        self._seconds = settings.clock.seconds  # bound once: it is asked for every request
        self._closing_phase = OPEN
        self._eof = False  # the client sends no more
        self._unwanted = 0
        self._timer = LazyTimer(settings.clock, self._timer_fired)
        self._deadline = inf
        self._awaited = IDLE
        self._last: UnreceivedBytes | None = None  # of what was written when nothing is under way

    # what a subclass does

    @property
    def busy(self) -> bool:
        """Whether a request or session is active."""
        raise NotImplementedError

    def _head_too_slow(self) -> None:
        """The timeout for the head of a request has expired."""
        raise NotImplementedError

    def _look_at_exchange(self) -> None:
        """It is time to check the timeouts of the current exchange."""
        raise NotImplementedError

    def _idle_too_long(self) -> None:
        """The idle timeout has expired."""
        raise NotImplementedError

    def _forget_requests(self) -> None:
        """Drop the requests that are queued, and read no more of them."""
        raise NotImplementedError

    def _pass_nothing(self) -> None:
        """Stop splicing a request's body to the host."""
        raise NotImplementedError

    def _read_anything(self) -> None:
        """Read again, to drop what comes."""
        raise NotImplementedError

    def _cancel(self, reason: str, flags: int) -> None:
        """Cancel the current exchange, if there is one."""
        raise NotImplementedError

    # IDrainable, IPartable

    def drain(self) -> None:
        """See L{IDrainable}."""
        if self.busy:
            self._closing_phase = max(self._closing_phase, DRAINING)
        elif not self.info.reverse:
            self._closing_phase = max(self._closing_phase, DRAINING)
            now = self._seconds()
            if self._fresh(now):
                self._set_deadline(min(self._deadline, now + QUIET), IDLE)
            else:
                self._close(linger=True)

    def part(self) -> None:
        """See L{IPartable}; an agent's connection goes on, as it can't be had anew so easily."""
        if not self.info.reverse:
            self._closing_phase = max(self._closing_phase, DRAINING)

    def _fresh(self, now: float) -> bool:
        """Whether the client has just connected, or has just got a response."""
        timeout = self.settings.idle_timeout
        if timeout is None or self._deadline <= now + QUIET:
            return True
        return now - (self._deadline - timeout) < FRESH

    # the timer

    def _set_deadline(self, deadline: float, awaited: Awaited) -> None:
        self._deadline = deadline
        self._awaited = awaited
        if deadline < self._timer.fires_at:
            self._timer.look_at(deadline)

    def set_look(self, when: float) -> None:
        """See L{reverseproxy.proxy.http.interfaces.IDownstream}."""
        self._deadline = when
        self._awaited = EXCHANGE
        if when < self._timer.fires_at:
            self._timer.look_at(when)

    def _set_idle_deadline(self, now: float) -> None:
        timeout = self.settings.idle_timeout
        self._set_deadline(inf if timeout is None else now + timeout, IDLE)

    def _timer_fired(self) -> None:
        deadline = self._deadline
        if deadline == inf:
            return
        if deadline > self._seconds():
            self._timer.look_at(deadline)
            return
        self._deadline = inf
        awaited = self._awaited
        if awaited is IDLE:
            self._idle_too_long()
        elif awaited is HEAD:
            self._head_too_slow()
        elif awaited is EXCHANGE:
            self._look_at_exchange()
        else:
            self._look_at_close()

    # time is over

    def _look_at_idle(self) -> None:
        """Close an idle connection, unless the client is still reading its last response."""
        now = self._seconds()
        last = self._last = self._last or UnreceivedBytes(self._manner, self.transport)
        again = last.look()
        if again and last.left:
            self._set_deadline(now + again, IDLE)
            return
        self._last = None
        if again and self._closing_phase is OPEN:
            self._set_idle_deadline(now)  # that was the end of it
        elif last.left:
            self._abandon()
        else:
            self._close(linger=True)

    @property
    def _manner(self) -> CloseLimits:
        """How this connection is to be closed."""
        settings = self.settings
        told = partial(note_loss, settings.complaints, settings.listener, self.info.remote)
        return CloseLimits(settings.linger, settings.stream_idle, self.info.reverse, told)

    def _look_at_close(self) -> None:
        """Check whether the client still reads what is left while the connection closes."""
        assert self._last is not None
        again = self._last.look()
        if again:
            self._set_deadline(self._seconds() + again, CLOSE)
        else:
            self.transport.abortConnection()

    def _abandon(self) -> None:
        """Abort the connection, as the client does not read its response."""
        self._closing_phase = CLOSING
        self.transport.abortConnection()

    # the end

    def _close(self, linger: bool) -> None:
        """
        Close after what was written.

        @param linger: whether the client may have sent something still: the
            connection is then closed in our direction first.
        """
        if self._closing_phase >= CLOSING:
            return
        self._closing_phase = CLOSING
        self._forget_requests()
        self.count_no_more()
        transport = self.transport
        self._pass_nothing()
        self._begin_end()
        transport.unregisterProducer()
        self._read_anything()
        if linger and not self._eof and hasattr(transport, "loseWriteConnection"):
            transport.loseWriteConnection()
        else:
            transport.loseConnection()

    def _begin_end(self) -> None:
        last = self._last = UnreceivedBytes(self._manner, self.transport)
        last.look()
        self._set_deadline(self._seconds() + last.period, CLOSE)

    def _drop(self, data: bytes) -> None:
        self._unwanted += len(data)
        if self._unwanted > LINGER_BYTES:
            self.transport.abortConnection()

    def _lose(self) -> None:
        """Note that the connection is lost."""
        self._closing_phase = LOST
        self._deadline = inf
        self._timer.stop()

    def _leave(self) -> None:
        """Close the connection without lingering, as the client sends no more."""
        self._cancel("the client closed the connection", ResponseFlag.DC)
        self._closing_phase = CLOSING
        self._forget_requests()
        self._begin_end()
        lose_connection(self.transport)
