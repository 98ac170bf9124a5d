"""
What every TCP connection is told, and how peers are found out that are gone.

Kernels wait for hours until they find out that a peer is gone which said
nothing of it: a NAT that forgot the connection, a machine without power.  So
each connection is given a time for that, in which two things happen.

At rest, the kernel asks the peer (TCP keepalive).  With something on its way,
it does not, and goes by how often it has sent that again, for a quarter of an
hour.  C{TCP_USER_TIMEOUT} would end that sooner, but it also ends connections
whose peer is there and only has no room: a client that pauses a download.  So
L{PeerSweep} looks at what the kernel knows, C{TCP_INFO}, from time to time: a
peer is gone if something waits for its answer, and nothing at all was heard of
it for that long.  A peer without room answers the kernel's window probes.

How the kernel counts, found out on Linux 6.18 with packets that are dropped:
C{tcpi_last_ack_recv} is the age of the last acknowledgement, also of answers to
keepalive and window probes.  Data that acknowledges nothing new does not renew
it, but C{tcpi_last_data_recv}.  C{tcpi_probes} counts probes of both kinds that
were not answered, and C{tcpi_unacked} segments.  Window probes come at growing
intervals, up to C{TCP_RTO_MAX_MS} apart, which kernels know since 6.15.
"""

from __future__ import annotations

__all__ = [
    "format_address",
    "DEAD_PEER_TIMEOUT",
    "INFO_SIZE",
    "NOT_SENT",
    "PeerSweep",
    "SLOW_WAYS",
    "SlowWays",
    "TcpInfo",
    "acknowledged",
    "descriptor_of",
    "is_gone",
    "has_ended",
    "heed_reset",
    "keep_short",
    "own_address",
    "tcp_info",
    "waits_since",
    "watch_over",
    "was_heard",
]

import math
import os
import socket
import sys
from contextlib import suppress
from fcntl import ioctl
from ipaddress import IPv6Address as IPv6
from struct import Struct
from termios import FIONREAD
from typing import Any, Final, NamedTuple
from weakref import ref

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper

log = Logger()

DEAD_PEER_TIMEOUT: Final = 60.0
"""Seconds until a peer that does not answer any more counts as gone."""

_PROBES: Final = 3

_IDLE: Final[int | None] = getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", None))  # macOS
_INTERVAL: Final[int | None] = getattr(socket, "TCP_KEEPINTVL", None)
_COUNT: Final[int | None] = getattr(socket, "TCP_KEEPCNT", None)
_USER_TIMEOUT: Final[int | None] = getattr(socket, "TCP_USER_TIMEOUT", None)

# Other systems have an option of this name, and put something else in it.
_INFO: Final[int | None] = getattr(socket, "TCP_INFO", None) if sys.platform == "linux" else None
_RTO_MAX: Final = 44
"""C{TCP_RTO_MAX_MS}, which Python has no name for."""

_NOTSENT_LOWAT: Final[int | None] = 25 if sys.platform == "linux" else None

NOT_SENT: Final = 65536
"""Bytes that the kernel may hold beside those that are on their way; see L{keep_short}."""

_MAX_IDLE: Final = 32767
"""Seconds; Linux takes no more."""

_LOOKS: Final = 0.2
"""How often a connection is looked at, as a part of its time."""

_SILENCE: Final = 0.75
"""How long a peer must have been silent, as a part of that time; the rest is until the next look."""

_GRACE: Final = 0.15
"""How long something must have waited for an answer, as a part of that time."""

_LEAST: Final = 2.0
"""
Seconds; there is no telling in less whether a peer without room is gone.

Kernels answer no more than two window probes in a second.
"""

_CLOSED: Final = 7
"""C{TCP_CLOSE}: what C{tcpi_state} is, the first byte of C{struct tcp_info}, when a connection was reset."""

_SENT: Final = 44
"""Where C{tcpi_last_data_sent} is: for how many milliseconds nothing has been sent."""

_SLICE: Final = 500
"""Connections that are looked at in one go, which takes less than a millisecond."""

_PATIENCE: Final = 60.0
"""Seconds for which the kernel asks in vain at rest; and no more is given for slow ways."""

_MOST_PROBES: Final = 127

_SLOW: Final = 500_000
"""Microseconds of a round trip from which on a way counts as slow."""

_LIVELY: Final = 3.0
"""Seconds since something came on a connection, for which what it says of the way counts."""

_SHOWN: Final = 2.5
"""
Seconds since something was sent, for which its acknowledgement shows how the way is.

Pings on connections with streams come more often; and a connection at rest is not taken for
dead before somebody who only receives, since it was made, has been looked at after that time.
"""

_REMEMBERED: Final = 10.0
"""Seconds for which a slow way counts as slow after it was seen last."""

_PERIOD: Final = 1.0
"""Seconds between two looks at the connections that are looked at most often, unless one needs it sooner."""


class TcpInfo(NamedTuple):
    """
    What the kernel knows of a connection, as far as it matters here.

    @ivar probes: keepalive or window probes without an answer so far.
    @ivar unacked: segments that were sent and not acknowledged.
    @ivar data_age: milliseconds since data came.
    @ivar ack_age: milliseconds since an acknowledgement came, of whatever.
    @ivar rtt: microseconds of a round trip, by what was acknowledged.
    @ivar rcv_rtt: the same, by what came.
    @ivar acked: bytes that were acknowledged, ever.
    """

    probes: int
    unacked: int
    data_age: int
    ack_age: int
    rtt: int = 0
    rcv_rtt: int = 0
    acked: int = 0

    @classmethod
    def parse(cls, raw: bytes) -> TcpInfo:
        """
        Take apart what C{getsockopt} gave.

        @param raw: at least L{INFO_SIZE} bytes of C{struct tcp_info}.
        """
        return cls(*_info.unpack_from(raw))

    @property
    def waits(self) -> bool:
        """Whether something waits for an answer."""
        return bool(self.probes or self.unacked)

    @property
    def silence(self) -> float:
        """Seconds since anything at all was heard of the peer."""
        return min(self.data_age, self.ack_age) / 1000


_info: Final = Struct("=3xB20xI24xII8xI20xI24xQ")
_size: Final = Struct("i")
INFO_SIZE: Final = _info.size
"""How many bytes of C{struct tcp_info} are asked for."""


def waits_since(info: TcpInfo, since: float | None, now: float) -> float | None:
    """
    Follow for how long something has been waiting for an answer, from one look to the next.

    @param since: what this returned at the last look.
    @param now: seconds, of any clock that goes on.
    @return: since when something waits, as far as looks can tell, with nothing
        heard of the peer after that; L{None} if nothing waits.
    """
    if not info.waits:
        return None
    if since is None or info.silence < now - since:
        return now  # if the peer was heard of, it may have been sent after that
    return since


def is_gone(info: TcpInfo, waited: float, timeout: float) -> bool:
    """
    Say whether a peer is gone.

    An old acknowledgement alone says nothing: something may have been sent just
    now, after a long rest, or after a long time in which a peer without room
    was not even probed.  So the answer must be overdue, too.

    @param waited: for how long something is known to have waited for an answer,
        in seconds.
    @param timeout: how long the peer may be silent, in seconds.
    """
    return info.waits and info.silence >= timeout * _SILENCE and waited >= timeout * _GRACE


class _Tuned(ref[Any]):
    """
    A transport that L{tune} was told of, for as long as it lives.

    @ivar connection: its socket.
    @ivar timeout: how long its peer may be silent, in seconds.
    @ivar due: when it is to be looked at, in the clock's seconds.
    @ivar ended: whether the peer has sent its end, so that nothing is read any more.
    @ivar waits_since: since when something is known to have waited for an
        answer; L{None} if nothing does.
    """

    __slots__ = ("connection", "due", "ended", "timeout", "waits_since")

    connection: socket.socket
    ended: bool
    timeout: float
    due: float
    waits_since: float | None

    @property
    def host(self) -> str:
        """The peer's host; empty if it is gone."""
        try:
            return str(self.connection.getpeername()[0])
        except OSError:
            return ""


_tuned: Final[dict[int, _Tuned]] = {}
"""
What L{PeerSweep} looks at, by descriptor.

One for the process, as descriptors are; no larger than there ever were
descriptors at one time, even where nobody sweeps.
"""


def tune(transport: Any, dead_peer_timeout: float = DEAD_PEER_TIMEOUT) -> None:
    """
    Send small writes at once, and notice a peer that is gone.

    At rest the kernel asks the peer after half of the time, and three times in
    the other half; what to make of answers that don't come is L{PeerSweep}'s
    matter, as it is for what is on its way.  Where there is no
    C{TCP_INFO}, C{TCP_USER_TIMEOUT} stands in, if the system has that: then what
    was sent must be acknowledged in the same time, and a peer that answers, but
    has had no room for what waits for it in all of that time, counts as gone too.

    May be called again, with another time.  Does nothing for anything but TCP,
    such as a Unix socket.

    @param transport: of a connection, over TLS or not.
    @param dead_peer_timeout: seconds; less than two can't be kept to.
    """
    transport, connection = _tcp_socket(transport)
    if connection is None:
        return
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
    half = dead_peer_timeout / 2
    idle = min(max(int(half), 1), _MAX_IDLE)
    interval = min(max(int(half / _PROBES), 1), _MAX_IDLE)
    probes = min(max(int((dead_peer_timeout - idle) / interval), 1), _PROBES)
    wanted: list[tuple[int | None, int]] = [(_IDLE, idle), (_INTERVAL, interval), (_COUNT, probes)]
    if _INFO is None:
        wanted.append((_USER_TIMEOUT, min(max(int(dead_peer_timeout * 1000), 1), 2**31 - 1)))
    else:
        # The kernel knows nothing of other connections that share a slow way with this one.
        probes = min(max(math.ceil((_PATIENCE - idle) / interval), probes), _MOST_PROBES)
        wanted[-1] = (_COUNT, probes)
        # So that several attempts fit into the time, and a peer without room is asked that often.
        wanted.append((_RTO_MAX, min(max(int(dead_peer_timeout * 250), 1000), 120_000)))
        _register(transport, connection, dead_peer_timeout)
    options += [(socket.IPPROTO_TCP, option, value) for option, value in wanted if option is not None]
    for each in options:
        # It may be reset already, which the transport will find out by itself; or too old a kernel's.
        with suppress(OSError):
            connection.setsockopt(*each)


def watch_over(transport: Any, dead_peer_timeout: float = DEAD_PEER_TIMEOUT) -> None:
    """
    Notice a peer that is gone, on a connection that another process has tuned.

    What L{tune} sets stays with the socket; only L{PeerSweep} has to know of it.

    @param transport: as for L{tune}.
    @param dead_peer_timeout: as for L{tune}.
    """
    transport, connection = _tcp_socket(transport)
    if connection is not None and _INFO is not None:
        _register(transport, connection, dead_peer_timeout)


def _register(transport: Any, connection: socket.socket, timeout: float) -> None:
    descriptor = connection.fileno()
    if descriptor >= 0:
        entry = _tuned[descriptor] = _Tuned(transport)
        entry.connection = connection
        entry.timeout = max(timeout, _LEAST)
        entry.due = 0.0
        entry.ended = False
        entry.waits_since = None


def heed_reset(transport: Any) -> None:
    """
    Notice a reset of a connection on which the peer has sent its end.

    Nobody reads from it any more, and would find out.  A peer that has closed
    the connection altogether looks like one that waits for an answer; but its
    kernel forgets the connection after a minute or so, and answers what it is
    asked (TCP keepalive) with a reset from then on.  L{PeerSweep} sees that.

    @param transport: of a connection that L{tune} was told of, over TLS or not.
    """
    entry = _tuned.get(descriptor_of(transport))
    if entry is not None and entry() is _tcp_socket(transport)[0]:
        entry.ended = True


def descriptor_of(transport: Any) -> int:
    """
    The number of a connection's descriptor.

    @param transport: over TLS or not; -1 if there is no socket under it.
    """
    while isinstance(transport, ProtocolWrapper):
        transport = transport.transport
    fileno = getattr(transport, "fileno", None)
    return -1 if fileno is None else int(fileno())


def _tcp_socket(transport: Any) -> tuple[Any, socket.socket | None]:
    """Find the socket under a transport, and the transport that it belongs to."""
    while isinstance(transport, ProtocolWrapper):
        transport = transport.transport  # TLS, whose own handle is not the socket
    get_handle = getattr(transport, "getHandle", None)
    handle = None if get_handle is None else get_handle()
    if isinstance(handle, socket.socket) and handle.family in (socket.AF_INET, socket.AF_INET6):
        return transport, handle
    return transport, None


def format_address(address: IAddress) -> str:
    """Write an address as MOSN does: C{10.0.0.7:80}, C{[::1]:80}, C{unix:/path}."""
    if isinstance(address, IPv4Address):
        return f"{address.host}:{address.port}"
    if isinstance(address, IPv6Address):
        # What comes by IPv4 to a socket for both is written as IPv4, as Go has it.
        mapped = IPv6(address.host).ipv4_mapped
        return f"{mapped}:{address.port}" if mapped else f"[{address.host}]:{address.port}"
    if isinstance(address, UNIXAddress):
        name = address.name
        return f"unix:{os.fsdecode(name) if name is not None else ''}"
    return str(address)


def own_address(transport: Any) -> str:
    """Write our own address on a connection; empty if it has none that is worth logging."""
    address = transport.getHost()
    if isinstance(address, IPv4Address):
        return f"{address.host}:{address.port}"
    return f"[{address.host}]:{address.port}" if isinstance(address, IPv6Address) else ""


class SlowWays:
    """
    Ways on which an answer takes its time, as large queues lie there.

    A connection at rest, or one with little to send, has to wait behind what others
    send the same way, and can't know it.  Those others know: their round trips
    show how long the queue is.
    """

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, float]] = {}

    def note(self, peer: str, rtt: float, now: float) -> None:
        """
        A connection on which something came just now had a long round trip.

        @param peer: the peer's host.
        @param rtt: in seconds.
        """
        seen = self._seen.get(peer)
        if seen is None or rtt >= seen[0] or now - seen[1] > _REMEMBERED / 2:
            self._seen[peer] = rtt, now

    def allowance(self, peer: str, now: float) -> float:
        """Say how many seconds more answers from a host may take."""
        seen = self._seen.get(peer)
        if seen is None:
            return 0.0
        if now - seen[1] > _REMEMBERED:
            del self._seen[peer]
            return 0.0
        return min(2 * seen[0], _PATIENCE)


SLOW_WAYS: Final = SlowWays()
"""Those of this process; L{PeerSweep} finds them."""


def tcp_info(transport: Any) -> TcpInfo | None:
    """
    Ask what the kernel knows of a connection.

    @param transport: over TLS or not.
    @return: L{None} if that can't be known.
    """
    connection = _tcp_socket(transport)[1]
    if connection is None or _INFO is None:
        return None
    try:
        raw = connection.getsockopt(socket.IPPROTO_TCP, _INFO, INFO_SIZE)
    except OSError:
        return None  # it is closed
    return TcpInfo.parse(raw) if len(raw) >= INFO_SIZE else None


def acknowledged(transport: Any) -> int | None:
    """
    Ask how many bytes a peer's kernel has acknowledged, ever.

    @param transport: of a connection, over TLS or not.
    @return: L{None} if that can't be known.
    """
    info = tcp_info(transport)
    return None if info is None else info.acked


def was_heard(transport: Any, since: float) -> bool:
    """
    Ask the kernel whether anything has come on a connection, whoever has read it.

    A process that is busy, or stands still, hears late of what its kernel has had for
    long: its own silence is none of the peer's.

    @param transport: of a connection, over TLS or not.
    @param since: within so many seconds; what has come before that, and was not read,
        counts as well.
    @return: false as well if that can't be known.
    """
    descriptor = descriptor_of(transport)
    if descriptor >= 0:
        with suppress(OSError):  # it is closed
            if _size.unpack(ioctl(descriptor, FIONREAD, bytes(_size.size)))[0]:
                return True
    info = tcp_info(transport)
    return info is not None and info.data_age < since * 1000


def has_ended(transport: Any) -> bool:
    """
    Ask the kernel whether the peer has ended the connection, or is gone, which nobody may have read yet.

    @param transport: of a connection, over TLS or not; of others it is not known.
    """
    while isinstance(transport, ProtocolWrapper):
        transport = transport.transport
    get_handle = getattr(transport, "getHandle", None)
    handle = None if get_handle is None else get_handle()
    if not isinstance(handle, socket.socket):
        return False
    try:
        return not handle.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


def keep_short(transport: Any, size: int = NOT_SENT) -> None:
    """
    Let the kernel take no more of what is to be sent than it can send soon.

    What waits can't be overtaken: a question whether the peer is there is not to wait
    behind megabytes.

    @param transport: of a connection, over TLS or not; does nothing for anything but TCP.
    @param size: bytes that the kernel may hold beside those that are on their way.
    """
    connection = _tcp_socket(transport)[1]
    option = getattr(socket, "TCP_NOTSENT_LOWAT", _NOTSENT_LOWAT)
    if connection is not None and option is not None:
        with suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, option, size)


class PeerSweep:
    """
    Ends connections whose peers are gone with something on its way.

    One is enough for a process: it looks at everything that was ever given to
    L{tune}, at each connection about five times in the time that its peer has.
    One timer serves all, and a look costs less than a microsecond.
    """

    def __init__(self, clock: IReactorTime, slow: SlowWays = SLOW_WAYS) -> None:
        self._clock = clock
        self._slow = slow
        self._timer: IDelayedCall | None = None
        self._round: list[tuple[int, _Tuned]] = []
        self._period = self._interval = _PERIOD

    def start(self) -> None:
        """Begin, where the system has what it takes."""
        if self._timer is None and _INFO is not None:
            self._timer = self._clock.callLater(self._interval, self._tick)

    def stop(self) -> None:
        """End."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _tick(self) -> None:
        if not self._round:
            # All connections that there are now, in slices that fill the period.
            self._round = list(_tuned.items())
            shortest = min((entry.timeout for _, entry in self._round), default=math.inf)
            self._period = min(shortest * _LOOKS, _PERIOD)
            self._interval = self._period / max(math.ceil(len(self._round) / _SLICE), 1)
        part = self._round[-_SLICE:]
        del self._round[-_SLICE:]
        # Set first: whatever goes wrong with one connection, the others are looked at again.
        self._timer = self._clock.callLater(self._interval, self._tick)
        self._look_at(part)

    def _look_at(self, part: list[tuple[int, _Tuned]]) -> None:
        assert _INFO is not None
        option, size, tcp, unpack = _INFO, INFO_SIZE, socket.IPPROTO_TCP, _info.unpack
        now = self._clock.seconds()
        for descriptor, entry in part:
            if now < entry.due:
                continue
            # A little less than it could be, as timers are late.
            entry.due = now + entry.timeout * _LOOKS - self._period / 2
            try:
                raw = entry.connection.getsockopt(tcp, option, size)
            except OSError:
                if _tuned.get(descriptor) is entry:
                    del _tuned[descriptor]  # it is closed
                continue
            if len(raw) < size:
                raw = raw.ljust(size, b"\0")  # an old kernel's
            probes, unacked, _, _, rtt, rcv_rtt, _ = found = unpack(raw)
            if entry.ended and raw[0] == _CLOSED:
                self._end(entry)
                continue
            if rtt > _SLOW or rcv_rtt > _SLOW:
                self._note_slow(entry, raw, TcpInfo._make(found), now)
            if probes or unacked or entry.waits_since is not None:
                self._judge(entry, TcpInfo._make(found), now)

    def _note_slow(self, entry: _Tuned, raw: bytes, info: TcpInfo, now: float) -> None:
        """
        Take note of a round trip that takes long.

        By what comes, it seems to take as long as the peer waited before it sent something large, and
        the kernel stays with that until something large comes again.  Where something was sent, too,
        that shows it better.
        """
        slowest = info.rtt
        if int.from_bytes(raw[_SENT : _SENT + 4], sys.byteorder) > _SHOWN * 1000:
            slowest = max(info.rtt, info.rcv_rtt)
        if slowest > _SLOW and info.silence < _LIVELY:
            self._slow.note(entry.host, slowest / 1e6, now)

    def _end(self, entry: _Tuned) -> None:
        """A peer that had sent its end has closed the connection altogether."""
        entry.ended = False
        transport = entry()
        if transport is not None:
            transport.abortConnection()

    def _judge(self, entry: _Tuned, info: TcpInfo, now: float) -> None:
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
