"""
Timeouts of a client's HTTP/2 connection, and how the connection and its streams are closed.

A connection is closed by two GOAWAYs (RFC 9113 6.8): the first one asks for no
more streams, and once it has certainly arrived, the second one names the last
stream.  Requests that were on their way in between are served, so that none is
lost.  Reverse connections get none: agents inform our servers by other means, and
MOSN's servers can't use a connection after a GOAWAY.
"""

from __future__ import annotations

__all__ = ["WARNED", "WARNING_TIME", "Http2Closing"]

from collections.abc import Callable
from functools import partial
from math import inf
from typing import Final

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from reverseproxy.config.durations import format_duration
from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.logs import counted
from reverseproxy.net.dead_peers import watch_for_reset
from reverseproxy.proxy.closing import FRESH, QUIET, note_loss
from reverseproxy.proxy.flags import ResponseFlag, who_ended
from reverseproxy.proxy.http.deadlines import LOOKS
from reverseproxy.proxy.http.http2_connection import Http2Protocol
from reverseproxy.proxy.http.http2_stream import Http2Stream
from reverseproxy.proxy.http.settings import HttpSettings
from reverseproxy.transport.closing import CloseLimits, UnreceivedBytes
from reverseproxy.wire.http2.connection import ServerConnection
from reverseproxy.wire.http2.frames import ErrorCode

WARNING_TIME: Final = 5.0
"""Seconds after which a client that answers no PING has heard that the connection will close."""

WARNED: Final = b"draining"
"""The PING behind the first GOAWAY: its answer says that that has arrived."""


class Http2Closing(Http2Protocol):
    """
    The part of a client's connection that has its timeouts, and closes it.

    @ivar draining: whether no new request is wanted.
    """

    http2: ServerConnection

    def __init__(self, http2: ServerConnection, settings: HttpSettings, info: ConnectionInfo) -> None:
        told = partial(note_loss, settings.complaints, settings.listener, info.remote)
        close_limits = CloseLimits(settings.linger, settings.stream_idle, info.reverse, told)
        super().__init__(http2, settings.clock, close_limits)
        self._end_flags = int(ResponseFlag.DC)  # why what is under way is given up when the connection ends
        self.settings = settings
        self.info = info
        self.draining = False
        self._streams: dict[int, Http2Stream] = {}
        self._greeted_by = inf  # when the client must have said hello
        self._idle_since = 0.0
        self._warned_until = inf  # when the last streams are named
        self._named = False
        self._eof = False  # the client sends no more

    # IDrainable

    @property
    def busy(self) -> bool:
        """Whether a request or session is active."""
        return bool(self._streams) or (self.ending and not self.lost)

    @property
    def expendable(self) -> bool:
        """See L{IExpendable}."""
        return not self._streams

    def drain(self) -> None:
        """See L{IDrainable}."""
        if self.draining or self.info.reverse:
            return
        self.draining = True
        now = self.clock.seconds()
        if not self.http2.established and now - self._idle_since >= FRESH:
            self._finish(ErrorCode.NO_ERROR, "", linger=True)
            return
        self.http2.warn()
        self.http2.ping(WARNED)
        self._warned_until = now + (WARNING_TIME if self.http2.established else QUIET)
        self._look_at(self._warned_until)
        self.flush()

    # IEndable

    @property
    def doing(self) -> str:
        """See L{IEndable}."""
        sessions = sum(stream.tunnel is not None for stream in self._streams.values())
        parts = [counted(sessions, "session")] if sessions else []
        if len(self._streams) > sessions:
            parts.append(counted(len(self._streams) - sessions, "stream"))
        return f"HTTP/2 with {' and '.join(parts)}" if parts else ""

    def end(self, reason: str) -> None:
        """See L{IEndable}; the last stream has been named by now."""
        if not self.info.reverse:
            self._name_last_stream()
        for stream in list(self._streams.values()):
            if stream.upgrade is not None and stream.upgrade.session is not None:
                stream.upgrade.session.end(reason)
            elif stream.exchange is not None:
                stream.exchange.fail(503, reason, ResponseFlag.LR)

    def _name_last_stream(self) -> None:
        """Send the final GOAWAY, as the client has acknowledged the first one."""
        self._warned_until = inf
        if not self._named:
            self._named = True
            self.http2.refuse_new()
            self.flush()

    # streams

    def _forget(self, stream: Http2Stream) -> None:
        if self._streams.pop(stream.number, None) is not None and not self._streams:
            self._idle_since = self.clock.seconds()
            if self._named or self._eof or self.http2.going:
                self.flush()  # and close behind it
            elif self.settings.idle_timeout is not None:
                self._look_at(self._idle_since + self.settings.idle_timeout)

    def _stream_drained(self, number: int) -> None:
        stream = self._streams.get(number)
        if stream is not None:
            stream.drained()

    def _flushed(self) -> None:
        streams = self._streams
        if len(streams) > self.http2.streams:
            # Some have been sent completely.
            for stream in list(streams.values()):
                if stream.exchange is None and not self.http2.is_open(stream.number):
                    if stream.tunnel is not None:
                        stream.tunnel.look()
                    self._forget(stream)
        if self._eof and not self.full:
            self._give_up_what_waits()
        if not streams and (self._named or self._eof or self.http2.going) and not self.ending:
            self._finish(ErrorCode.NO_ERROR, "", linger=not (self._eof or self.http2.going))

    # timers

    def _next_deadline(self, now: float) -> float:
        if self._warned_until <= now:
            self._name_last_stream()
        if self._greeted_by <= now:
            self._greeted_by = inf
            if not (self.http2.established and self.http2.acknowledged):
                self._finish(ErrorCode.SETTINGS_TIMEOUT, "no SETTINGS, or no answer to ours", linger=True)
                return inf
        deadline = min(self._warned_until, self._greeted_by)
        for stream in list(self._streams.values()):
            if stream.deadline <= now:
                self._stream_late(stream, now)
            if stream.deadline < deadline and stream.number in self._streams:
                deadline = stream.deadline
        timeout = self.settings.idle_timeout
        if timeout is not None and not self._streams:
            if self._idle_since + timeout <= now:
                self._idle_since = self._idle_too_long(now) - timeout
            deadline = min(deadline, self._idle_since + timeout)
        return deadline

    def _idle_too_long(self, now: float) -> float:
        """
        Close the connection, if the client has read everything.

        @return: when to look again.
        """
        last = self._last = self._last or UnreceivedBytes(self.close_limits, self.transport)
        again = last.look()
        if again and last.left:
            return now + again
        self._last = None
        if again:
            return now + (self.settings.idle_timeout or 0.0)  # that was the end of it
        if last.left:
            self._abort("the client takes nothing")
        else:
            self._finish(ErrorCode.NO_ERROR, "idle", linger=True)
        return inf

    def _stream_late(self, stream: Http2Stream, now: float) -> None:
        stream.deadline = inf
        if stream.exchange is not None:
            again = stream.exchange.look(now)
            if stream.exchange is not None:
                stream.deadline = again
        elif stream.tunnel is None and stream.takes():
            stream.deadline = now + stream.idle / LOOKS
        elif stream.tunnel is None:
            reason = f"it took nothing of a response for {format_duration(stream.idle)}"
            note_loss(self.settings.complaints, self.settings.listener, self.info.remote, reason)
            self.http2.reset(stream.number, ErrorCode.CANCEL)
            self._forget(stream)

    # the end

    def readConnectionLost(self) -> None:
        """Answer the complete requests of a client that sends no more."""
        if self.ending or self.settings.abort_on_half_close:
            super().readConnectionLost()
            return
        self._eof = True
        self._greeted_by = inf
        self._break_off("the client closed the connection", lambda number: not self.http2.has_ended(number))
        if self._streams:
            watch_for_reset(self.transport)
        else:
            super().readConnectionLost()

    def _give_up_what_waits(self) -> None:
        """Reset the streams that have no window left, as the client will open none."""
        self._break_off("the client opens no window any more", lambda number: self.http2.unsent(number) > 0)

    def _break_off(self, reason: str, which: Callable[[int], bool]) -> None:
        streams = [stream for number, stream in self._streams.items() if which(number)]
        for stream in streams:
            self.http2.reset(stream.number, ErrorCode.CANCEL)
            stream.was_reset(reason, ResponseFlag.DC)
            self._streams.pop(stream.number, None)
        if streams and self._streams:
            self.flush()

    def _ended(self, reason: str) -> None:
        streams = list(self._streams.values())
        self._streams.clear()
        for stream in streams:
            stream.was_reset(reason, self._end_flags)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is lost."""
        if not self.ending:
            self._end_flags = who_ended(reason)
        super().connectionLost(reason)
