"""
Detection of dead peers: those that vanish without closing their connection.

A NAT forgets a connection, or a machine loses its power, and the kernel at the other
end notices only after hours.  So every connection has a timeout, and two mechanisms.

While a connection is idle, the kernel probes the peer (TCP keepalive).  While data is
unacknowledged, it does not, and retransmits for a quarter of an hour.
C{TCP_USER_TIMEOUT} would end that sooner, but it also ends connections whose peer is
alive and has a full receive buffer: a client that pauses a download.  So L{PeerSweep}
reads C{TCP_INFO} from time to time: a peer is dead if it owes an acknowledgement and
nothing has arrived from it for the timeout.  A peer with a full buffer answers the
kernel's window probes.

How the kernel counts, observed on Linux 6.18 with dropped packets:
C{tcpi_last_ack_recv} is the age of the last acknowledgement, which includes answers to
keepalive and window probes.  Data that acknowledges nothing new renews
C{tcpi_last_data_recv} instead.  C{tcpi_probes} counts unanswered probes of both kinds,
and C{tcpi_unacked} segments.  Window probes are sent at growing intervals, up to
C{TCP_RTO_MAX_MS} apart, an option since Linux 6.15.
"""

from __future__ import annotations

__all__ = [
    "DEAD_PEER_TIMEOUT",
    "PATIENCE",
    "SLOW_PATHS",
    "PeerSweep",
    "SlowPaths",
    "WatchedConnection",
    "is_gone",
    "register",
    "waits_since",
    "watch_for_reset",
    "watch_over",
]

import math
import socket
import sys
from typing import Any, Final
from weakref import ref

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from reverseproxy.net.formatting import format_address
from reverseproxy.net.handles import descriptor_of, tcp_socket
from reverseproxy.net.tcp_info import INFO_SIZE, LAYOUT, TCP_INFO, TcpInfo

log = Logger()


DEAD_PEER_TIMEOUT: Final = 60.0
"""Seconds after which a peer that does not answer counts as dead."""


_LOOKS: Final = 0.2
"""Time between two looks at a connection, as a fraction of its timeout."""

_SILENCE: Final = 0.75
"""How long a dead peer has been silent, as a fraction of the timeout; the next look is within the rest."""

_GRACE: Final = 0.15
"""How long a dead peer has owed an acknowledgement, as a fraction of the timeout."""

_LEAST: Final = 2.0
"""
The shortest timeout in seconds.

Kernels answer at most two window probes in a second, so that a shorter silence proves nothing.
"""

_CLOSED: Final = 7
"""C{TCP_CLOSE}: what C{tcpi_state} is, the first byte of C{struct tcp_info}, when a connection was reset."""

_SENT: Final = 44
"""Where C{tcpi_last_data_sent} is: for how many milliseconds nothing has been sent."""


_SLICE: Final = 500
"""Connections per turn of the reactor, which takes less than a millisecond."""


PATIENCE: Final = 60.0
"""Seconds for which keepalive probes may stay unanswered, and the most that a slow path adds to a timeout."""


_SLOW: Final = 500_000
"""A path with a round trip of more microseconds is slow."""

_UNSTEADY: Final = _SLOW // 4
"""
Microseconds of the deviation above which the smoothed round trip says too little.

Four times the deviation is what TCP adds to it for its own timeout (RFC 6298): when a queue fills up,
the first measurement shows there long before it shows in the smoothed value.
"""

_LIVELY: Final = 3.0
"""Seconds since data arrived, within which a connection's round trip describes its path."""

_SHOWN: Final = 2.5
"""
Seconds since data was sent, within which its acknowledgement measures the path.

Pings on multiplexed connections are more frequent; and no idle connection counts as dead
before connections that only receive have been looked at once after that time.
"""

_REMEMBERED: Final = 10.0
"""Seconds for which a path stays slow after the last slow round trip."""

_PERIOD: Final = 1.0
"""Seconds for one pass over all connections, unless a connection has a timeout that needs a shorter one."""


def waits_since(info: TcpInfo, since: float | None, now: float) -> float | None:
    """
    Say since when a peer has owed an acknowledgement, given the previous look.

    @param since: what this returned at the previous look.
    @param now: seconds of a monotonic clock.
    @return: the time of the first look at which the peer owed it, with nothing
        received from the peer since; L{None} if it owes none.
    """
    if not info.waits:
        return None
    if since is None or info.silence < now - since:
        return now  # something arrived, so what is unacknowledged may have been sent after that
    return since


def is_gone(info: TcpInfo, waited: float, timeout: float) -> bool:
    """
    Say whether a peer is dead.

    An old acknowledgement alone proves nothing: data may have been sent just now, after a
    long idle time, or after one in which a peer with a full buffer was not probed.  So the
    acknowledgement has to be overdue, too.

    @param waited: for how many seconds the peer has owed an acknowledgement; see L{waits_since}.
    @param timeout: for how many seconds the peer may be silent.
    """
    return info.waits and info.silence >= timeout * _SILENCE and waited >= timeout * _GRACE


class WatchedConnection(ref[Any]):
    """
    A weak reference to the transport of a watched connection.

    @ivar connection: its socket.
    @ivar timeout: for how many seconds its peer may be silent.
    @ivar due: when to look at it next, in seconds of the reactor's clock.
    @ivar ended: whether the peer has sent FIN, so that the transport reads no more.
    @ivar waits_since: since when the peer has owed an acknowledgement; L{None} if it owes none.
    """

    __slots__ = ("connection", "due", "ended", "timeout", "waits_since")

    connection: socket.socket
    ended: bool
    timeout: float
    due: float
    waits_since: float | None

    @property
    def host(self) -> str:
        """The peer's host; empty once the connection is closed."""
        try:
            return str(self.connection.getpeername()[0])
        except OSError:
            return ""


_watched: Final[dict[int, WatchedConnection]] = {}
"""
The connections that L{PeerSweep} looks at, by descriptor.

There is one for the process, as descriptors are the process's.  A new connection takes
the entry of the closed one that had its descriptor, so it stays small without a sweep.
"""


def watch_over(transport: Any, dead_peer_timeout: float = DEAD_PEER_TIMEOUT) -> None:
    """
    Detect a dead peer of a connection that another process has set the options of.

    The options that L{tune<reverseproxy.net.tcp_options.tune>} sets stay with the socket.

    @param transport: of the connection, over TLS or not.
    @param dead_peer_timeout: seconds.
    """
    transport, connection = tcp_socket(transport)
    if connection is not None and TCP_INFO is not None:
        register(transport, connection, dead_peer_timeout)


def register(transport: Any, connection: socket.socket, timeout: float) -> None:
    """
    Let L{PeerSweep} look at a connection.

    @param connection: its socket.
    @param timeout: for how many seconds its peer may be silent.
    """
    descriptor = connection.fileno()
    if descriptor >= 0:
        entry = _watched[descriptor] = WatchedConnection(transport)
        entry.connection = connection
        entry.timeout = max(timeout, _LEAST)
        entry.due = 0.0
        entry.ended = False
        entry.waits_since = None


def watch_for_reset(transport: Any) -> None:
    """
    Detect a reset of a connection whose peer has sent FIN.

    The transport reads no more, and so would miss it.  A peer that has closed both
    directions looks like one that waits for a response; but its kernel forgets the
    connection after about a minute, and answers keepalive probes with a reset from then
    on, which L{PeerSweep} sees.

    @param transport: of a connection that is watched, over TLS or not.
    """
    entry = _watched.get(descriptor_of(transport))
    if entry is not None and entry() is tcp_socket(transport)[0]:
        entry.ended = True


class SlowPaths:
    """
    Network paths with long round trips, as queues on them are full.

    A connection that is idle or sends little waits behind the data of others on the same
    path, and can't measure that.  The round trips of the others show how long the queue is.
    """

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, float]] = {}

    def note(self, peer: str, rtt: float, now: float) -> None:
        """
        Record a long round trip on a connection that received data just now.

        @param peer: the peer's host.
        @param rtt: in seconds.
        """
        seen = self._seen.get(peer)
        if seen is None or rtt >= seen[0] or now - seen[1] > _REMEMBERED / 2:
            self._seen[peer] = rtt, now

    def allowance(self, peer: str, now: float) -> float:
        """Return by how many seconds to extend timeouts of a host."""
        seen = self._seen.get(peer)
        if seen is None:
            return 0.0
        if now - seen[1] > _REMEMBERED:
            del self._seen[peer]
            return 0.0
        return min(2 * seen[0], PATIENCE)


SLOW_PATHS: Final = SlowPaths()
"""The slow paths of this process, which L{PeerSweep} records."""


class PeerSweep:
    """
    Aborts connections whose peers are dead while data is unacknowledged.

    One serves a whole process: it looks at every connection that L{register} was called
    with, about five times within its timeout.  One timer serves all, and a look costs less
    than a microsecond.
    """

    def __init__(self, clock: IReactorTime, slow: SlowPaths = SLOW_PATHS) -> None:
        self._clock = clock
        self._slow = slow
        self._timer: IDelayedCall | None = None
        self._round: list[tuple[int, WatchedConnection]] = []
        self._period = self._interval = _PERIOD

    def start(self) -> None:
        """Begin, where the system has C{TCP_INFO}."""
        if self._timer is None and TCP_INFO is not None:
            self._timer = self._clock.callLater(self._interval, self._tick)

    def stop(self) -> None:
        """Stop."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _tick(self) -> None:
        if not self._round:
            # All present connections, in slices that fill the period.
            self._round = list(_watched.items())
            shortest = min((entry.timeout for _, entry in self._round), default=math.inf)
            self._period = min(shortest * _LOOKS, _PERIOD)
            self._interval = self._period / max(math.ceil(len(self._round) / _SLICE), 1)
        part = self._round[-_SLICE:]
        del self._round[-_SLICE:]
        # First: an error with one connection must not end the sweep.
        self._timer = self._clock.callLater(self._interval, self._tick)
        self._look_at(part)

    def _look_at(self, part: list[tuple[int, WatchedConnection]]) -> None:
        assert TCP_INFO is not None
        option, size, tcp, unpack = TCP_INFO, INFO_SIZE, socket.IPPROTO_TCP, LAYOUT.unpack
        now = self._clock.seconds()
        for descriptor, entry in part:
            if now < entry.due:
                continue
            # A little sooner than needed, as timers are late.
            entry.due = now + entry.timeout * _LOOKS - self._period / 2
            try:
                raw = entry.connection.getsockopt(tcp, option, size)
            except OSError:
                if _watched.get(descriptor) is entry:
                    del _watched[descriptor]  # it is closed
                continue
            if len(raw) < size:
                raw = raw.ljust(size, b"\0")  # an old kernel's
            probes, unacked, _, _, rtt, rttvar, rcv_rtt, _ = found = unpack(raw)
            if entry.ended and raw[0] == _CLOSED:
                self._end(entry)
                continue
            if rtt > _SLOW or rttvar > _UNSTEADY or rcv_rtt > _SLOW:
                self._note_slow(entry, raw, TcpInfo._make(found), now)
            if probes or unacked or entry.waits_since is not None:
                self._judge(entry, TcpInfo._make(found), now)

    def _note_slow(self, entry: WatchedConnection, raw: bytes, info: TcpInfo, now: float) -> None:
        """
        Record a long round trip.

        The one that is measured by data that arrives includes the time for which the peer waited
        before it sent much, and keeps that until much arrives again.  So if data was sent
        recently, the one that is measured by acknowledgements counts.
        """
        # Half of what TCP itself would wait, as an allowance is twice what is recorded.
        slowest = max(info.rtt, (info.rtt + 4 * info.rttvar) // 2)
        if int.from_bytes(raw[_SENT : _SENT + 4], sys.byteorder) > _SHOWN * 1000:
            slowest = max(slowest, info.rcv_rtt)
        if slowest > _SLOW and info.silence < _LIVELY:
            self._slow.note(entry.host, slowest / 1e6, now)

    def _end(self, entry: WatchedConnection) -> None:
        """Abort a connection that its peer, which had sent FIN, has reset."""
        entry.ended = False
        transport = entry()
        if transport is not None:
            transport.abortConnection()

    def _judge(self, entry: WatchedConnection, info: TcpInfo, now: float) -> None:
        since = entry.waits_since = waits_since(info, entry.waits_since, now)
        transport = entry()
        if since is None or transport is None or not is_gone(info, now - since, entry.timeout):
            return
        allowance = self._slow.allowance(entry.host, now)
        if allowance and not is_gone(info, now - since, entry.timeout + allowance):
            return
        entry.waits_since = None
        log.warn(
            "{peer} is gone: {waiting} without an answer, nothing heard of it for {silence:.1f} s; "
            "the connection is aborted",
            peer=format_address(transport.getPeer()),
            waiting=f"{info.unacked} segments" if info.unacked else f"{info.probes} probes",
            silence=info.silence,
        )
        transport.abortConnection()
