"""
C{tcp_proxy}: a client's connection is relayed to one host of a cluster, byte for byte.

A reverse connection without streams carries one session, and is closed with it; the
agent dials a new one (docs/mosn.rst 3.3).
"""

from __future__ import annotations

__all__ = ["TcpProxy"]

from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.cluster.endpoints import CallableFactory
from reverseproxy.cluster.health.outcome import Outcome
from reverseproxy.cluster.host import Host
from reverseproxy.cluster.manager import DEPRIORITIZED_WAIT, Cluster
from reverseproxy.config.durations import format_duration
from reverseproxy.errors import ClusterUnknown, NoHealthyHost, PickFailed, QueueTimeout
from reverseproxy.interfaces import ConnectionInfo, IDrainable, IEndable, PickContext
from reverseproxy.limits.buffered_bytes import AccountedProtocol, BufferAccount
from reverseproxy.logs import DEBUGGING, loss
from reverseproxy.net.tcp_options import has_ended, tune
from reverseproxy.proxy.clients import account_of
from reverseproxy.proxy.flags import (
    NO_FLAGS,
    ResponseFlag,
    flag_of,
    session_flags,
    short_names,
    what_to_do,
    who_ended,
)
from reverseproxy.proxy.relay import RelayEnd, couple
from reverseproxy.proxy.sessions import SessionWatch
from reverseproxy.proxy.tcp.failover import (
    MAX_FAILOVERS,
    REPLAY_LIMIT,
    FailoverEnd,
    PauseOnlyProducer,
    disown,
)
from reverseproxy.proxy.tcp.session_record import SessionRecord
from reverseproxy.proxy.tcp.settings import TcpProxySettings
from reverseproxy.transport.closing import CloseLimits
from reverseproxy.wire.proxy_protocol import encode_header

log = Logger()

MAX_ATTEMPTS = 3
"""Hosts tried for one session at the most, as MOSN does (docs/mosn.rst 4.3)."""


@implementer(IDrainable, IEndable)
class TcpProxy(RelayEnd, AccountedProtocol):
    """One session: the client's end of the relay."""

    def __init__(self, settings: TcpProxySettings, info: ConnectionInfo) -> None:
        super().__init__(settings.clock)
        self._settings = settings
        self._info = info
        self._cluster: Cluster | None = None
        self._host: Host | None = None
        self._upstream: RelayEnd | None = None
        self._pending: Deferred[Any] | None = None
        # No route has a hash policy here: balancers hash the client's address.
        self._context = PickContext(hash_key=info.remote_ip.encode("ascii", "replace"))
        self._attempts = self._max_attempts = self._again = 0
        self._kept: list[bytes] | None = None  # the client's first data, to be replayed to another host
        # Whether another server has forwarded this session, and nothing of it has been passed on.
        self._untouched = info.service is not None
        self._watch: SessionWatch | None = None
        self.close_limits = CloseLimits(
            stall=settings.stall, excused=info.reverse, told=partial(self._cut, info.remote)
        )
        self._record = SessionRecord(settings.clock)

    # IDrainable

    @property
    def busy(self) -> bool:
        """
        Whether a session is under way.

        On a reverse connection it begins with the first byte from the tunnel server.
        """
        return not self._info.reverse or self.received > 0

    def drain(self) -> None:
        """See L{IDrainable}: a session goes on until one of its ends closes it."""

    # IEndable

    @property
    def doing(self) -> str:
        """See L{IEndable}."""
        return "TCP session" if self.busy and not self.lost else ""

    def end(self, reason: str) -> None:
        """See L{IEndable}: both ends are half-closed."""
        self._record.failure = self._record.failure or reason
        self._record.flags |= ResponseFlag.LR
        upstream = self._upstream
        if upstream is None or not self.coupled:
            self.close()
            return
        self.end_sending()
        upstream.end_sending()

    def _begin_with_bytes(self) -> None:
        """Note the beginning of a session on a reverse connection: its first bytes."""
        if not self.received and self._info.reverse:
            self._record.started = self._clock.seconds()

    # data before there is a host

    def dataReceived(self, data: bytes) -> None:
        """See L{RelayEnd}."""
        self._begin_with_bytes()
        super().dataReceived(data)
        if not self.coupled and not self.lost:
            self.count(self.received)

    def open_account(self) -> BufferAccount:
        """See L{AccountedProtocol}."""
        return account_of(self._info, self._made_room)

    def _made_room(self, reason: str) -> None:
        """Close the connection, as the process keeps too much for clients."""
        self._record.flags |= ResponseFlag.OM
        self._record.failure = reason
        self._cut("", reason)
        self.abort()

    # the session

    def connectionMade(self) -> None:
        """Find a host."""
        self._record.started = self._clock.seconds()
        if self._settings.tracing is not None:
            self._record.keep_steps()
        name = self._settings.router.cluster_for(self._info)
        try:
            if name is None:
                raise ClusterUnknown("no route of tcp_proxy matches this connection")
            self._cluster = self._settings.clusters.get(name)
        except ClusterUnknown as error:
            self._refuse(str(error), ResponseFlag.NR if name is None else ResponseFlag.NC)
            return
        if not self._cluster.may_open():
            self._refuse(f"cluster {name} has as many connections as it may have", ResponseFlag.UO)
            return
        self._acquire(self._cluster)

    def _acquire(self, cluster: Cluster) -> None:
        try:
            host = cluster.acquire(self._context)
        except PickFailed as error:
            if isinstance(error, NoHealthyHost) and self._context.readmit():
                self._acquire(cluster)
            else:
                self._refuse(str(error), flag_of(error) | self._record.trouble)
            return
        if host is not None:
            self._dial(cluster, host)
            return
        timeout = cluster.config.connect_timeout
        if self._context.deprioritized or self._context.hurried:
            timeout = min(timeout, DEPRIORITIZED_WAIT)
        since = self._clock.seconds()
        waiting = self._pending = cluster.wait(self._context, timeout)
        waiting.addBoth(self._record.waited_since, since)
        waiting.addCallbacks(partial(self._dial, cluster), partial(self._not_acquired, cluster))

    def _not_acquired(self, cluster: Cluster, reason: Failure) -> None:
        if self.lost:
            return
        if reason.check(NoHealthyHost, QueueTimeout) is not None and self._context.readmit():
            self._acquire(cluster)
        else:
            self._refuse(loss(reason), flag_of(reason.value) | self._record.trouble)

    def _dial(self, cluster: Cluster, host: Host) -> None:
        self._host = host
        self._record.go_to(host)
        # Set once: a reverse host that fails has left its cluster by then.
        self._max_attempts = self._max_attempts or min(MAX_ATTEMPTS, max(1, len(cluster.hosts)))
        self._attempts += 1
        if DEBUGGING.on:
            agent = "" if host.identity is None else f" of {host.identity}"
            self._say(
                f"attempt {self._attempts} goes to host {host.address}{agent} of cluster {cluster.name}"
            )
        if host.server:
            host.on_behalf(self._info.remote)
        host.connection_opened()
        factory = CallableFactory(self._make_end)
        version = self._settings.proxy_protocol or cluster.config.proxy_protocol
        self._introduced = bool(version) and host.can_send_proxy_header()
        if self._introduced:
            header = encode_header(version, self._info.remote, self._info.local)
            dialling = self._pending = host.connect_for(header, factory)
        else:
            dialling = self._pending = host.connect(factory)
        dialling.addBoth(self._record.dialled_since, self._clock.seconds())
        dialling.addCallbacks(self._connected, partial(self._not_connected, cluster, host))

    def _make_end(self) -> RelayEnd:
        host = self._host
        if self._info.service is not None or (host is not None and host.tells):
            return FailoverEnd(self._clock, self, self._info.marked)
        return RelayEnd(self._clock)

    def _producer(self) -> Any:
        return self.transport if self._kept is None else PauseOnlyProducer(self.transport)

    def _join(self, peer: RelayEnd) -> None:
        if self._early:
            self._untouched = False
        super()._join(peer)

    def _forward(self, data: bytes) -> None:
        self._begin_with_bytes()
        if self._untouched:
            upstream = self._upstream
            # The host's FIN may have come, and not been read yet.
            ended = self._info.marked and upstream is not None and has_ended(upstream.transport)
            if ended and self.nothing_passed():
                assert upstream is not None
                upstream.abort()
                return
            self._untouched = False
        if self._kept is not None and self.received + len(data) <= REPLAY_LIMIT:
            self._kept.append(data)
            super()._forward(data)
            return
        self._kept = None
        self.rebind(super()._forward)
        super()._forward(data)
        self._pass_unseen()

    def _pass_unseen(self) -> None:
        if self._kept is None and not self._untouched and self.busy:
            super()._pass_unseen()

    def answered(self) -> None:
        """See L{IFailoverSession<reverseproxy.proxy.tcp.failover.IFailoverSession>}."""
        self._kept = None
        self._untouched = False

    def nothing_passed(self, sure: bool = False) -> bool:
        """See L{IFailoverSession<reverseproxy.proxy.tcp.failover.IFailoverSession>}."""
        info = self._info
        if info.service is None or self.lost or self.closing or not (sure or self._untouched):
            return False
        self._untouched = False
        self._record.failure = (
            self._record.failure or "the service has closed a session in which nothing had happened"
        )
        self._record.flags |= ResponseFlag.UF
        if not disown(self.transport, info.marked):
            return False
        self.close()
        return True

    def given_back(self) -> bool:
        """See L{IFailoverSession<reverseproxy.proxy.tcp.failover.IFailoverSession>}."""
        kept, cluster, host = self._kept, self._cluster, self._host
        if kept is None or cluster is None or host is None or self.lost or self.closing:
            return False
        cluster.exclude_unsent(host, self._context)
        if self._again >= MAX_FAILOVERS or not cluster.has_others(self._context):
            return False
        self._again += 1
        self._attempts -= 1
        if self._watch is not None:
            self._watch.stop()
            self._watch = None
        self._upstream = self._kept = None
        self.wait_for_another(kept)
        self._release()
        self._acquire(cluster)
        return True

    def _not_connected(self, cluster: Cluster, host: Host, reason: Failure) -> None:
        self._release()
        if self.lost:
            return
        cluster.report(host, Outcome.UNREACHABLE)
        why = loss(reason)
        cluster.members.unreachable.note(host, why)
        cluster.exclude_agent(host, self._context)
        self._record.trouble = ResponseFlag.UF | flag_of(reason.value)
        if self._attempts >= self._max_attempts:
            flags = self._record.trouble | (ResponseFlag.URX if self._attempts > 1 else NO_FLAGS)
            self._refuse(f"host {host.address} of cluster {cluster.name} can't be reached: {why}", flags)
            return
        self._acquire(cluster)

    def _connected(self, end: IProtocol) -> None:
        assert isinstance(end, RelayEnd)
        self._pending = None
        self._upstream = end
        host, cluster = self._host, self._cluster
        assert host is not None
        assert cluster is not None
        if not host.is_reverse:  # a tunnel sets its own socket options
            tune(end.transport)
        cluster.report(host, Outcome.CONNECTED)
        self._record.connected(cluster.name)
        end.close_limits = self.close_limits._replace(
            excused=host.is_reverse, told=partial(self._cut, self._record.host_address)
        )
        end.on_close = self._upstream_closed
        self.count_no_more()
        if host.tells and not end.received:
            self._kept = list(self._early)
        version = self._settings.proxy_protocol
        if version and not self._introduced and not end.lost:
            end.transport.write(encode_header(version, self._info.remote, self._info.local))
        if end.lost:
            self.nothing_passed()
        couple(self, end)
        if end.lost:
            self._release()  # on_close was not set in time
        else:
            self._watch_idle(end, host.is_reverse)

    def _watch_idle(self, end: RelayEnd, is_reverse: bool) -> None:
        """Start the idle timeout of the session, if it has one."""
        idle = self._settings.session_idle
        if idle is not None and not self.lost:
            excused = partial(self._excused, is_reverse)
            self._watch = SessionWatch(self._clock, (self, end), idle, self._expired, excused)

    def _upstream_closed(self, reason: Failure) -> None:
        self._note_end(reason, ResponseFlag.UC)
        self._release()

    def _note_end(self, reason: Failure, lost: int) -> None:
        """
        Note why one end was lost.

        @param lost: the flag for a connection that broke off.
        """
        flags = NO_FLAGS if self._record.failure else session_flags(reason, lost)
        if flags:
            self._record.flags |= flags
            whose = "host" if lost == ResponseFlag.UC else "client"
            self._record.failure = f"the {whose}'s connection was lost: {loss(reason)}"

    def _excused(self, is_reverse: bool, client_waits: bool, host_waits: bool) -> bool:
        """
        Return whether the idle timeout is suspended.

        Data buffered for a tunnel waits for a peer behind it, whose idle timeout is not
        ours.  And a reverse connection without data is no session yet.

        @param is_reverse: whether the host's connection belongs to a tunnel.
        @param client_waits: whether data is buffered for the client.
        @param host_waits: whether data is buffered for the host.
        """
        return (is_reverse and host_waits) or (self._info.reverse and (client_waits or not self.received))

    def _expired(self) -> None:
        """Close the session: its idle timeout has passed."""
        assert self._upstream is not None
        self._record.failure = "idle timeout"
        self._record.flags |= ResponseFlag.SI
        idle = format_duration(self._settings.session_idle or 0.0)
        self._cut("", f"nothing has passed for {idle}; see idle_timeout of the tcp_proxy")
        self.cut()
        self._upstream.cut()

    def _cut(self, peer: str, reason: str) -> None:
        """
        Log why a session, or the rest of it, is aborted.

        @param peer: the address of the end that is aborted; empty for both.
        """
        if peer:
            reason = f"{peer} closes too slowly: {reason}"
        if not self._record.failure:
            self._record.failure = reason
            self._record.flags |= ResponseFlag.LR
        complaints = self._settings.complaints
        if complaints.allow():
            log.warn(
                "{listener}: the session of {peer} with {host} is cut off: {reason}{suppressed}",
                listener=self._settings.listener,
                peer=self._info.remote,
                host=self._record.host_address,
                reason=reason,
                suppressed=complaints.suppressed,
            )

    def _refuse(self, reason: str, flags: int) -> None:
        self._record.failure = reason
        self._record.flags |= flags
        complaints = self._settings.complaints
        if complaints.allow():
            log.warn(
                "{listener}: session of {peer} closed: {reason}{remedy}{suppressed}",
                listener=self._settings.listener,
                peer=self._info.remote,
                reason=self._record.failure,
                flags=short_names(flags),
                remedy=f"; {remedy}" if (remedy := what_to_do(flags)) else "",
                suppressed=complaints.suppressed,
            )
        if self._info.service is not None and self._upstream is None:
            disown(self.transport, self._info.marked)
        self.close()

    def _say(self, what: str) -> None:
        """Log a line of level C{DEBUG}; to be called only if these are enabled."""
        log.debug(
            "{listener}: session of {peer}: {what}",
            listener=self._settings.listener,
            peer=self._info.remote,
            what=what,
        )

    def _release(self) -> None:
        host, self._host = self._host, None
        if host is not None and self._cluster is not None:
            host.connection_closed()
            self._cluster.release(host)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End the session, and write its records."""
        if DEBUGGING.on:
            self._say(f"ended after {self._clock.seconds() - self._record.started:.3f} s: {loss(reason)}")
        # An agent's connection without data and without a failure is no session.
        recorded = self.busy or bool(self._record.failure)
        if self._upstream is None and not self._record.failure:
            self._record.failure = "the client has gone before there was a host for it"
            self._record.flags |= who_ended(reason)
        self._note_end(reason, ResponseFlag.DC)
        super().connectionLost(reason)
        self.count_no_more()
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.cancel()
        if self._watch is not None:
            self._watch.stop()
        if recorded:
            sent = 0 if self._upstream is None else self._upstream.received
            cluster = "" if self._cluster is None else self._cluster.name
            attempts = self._attempts + self._again
            self._record.write(self._settings, self._info, cluster, self.received, sent, attempts, self.busy)
