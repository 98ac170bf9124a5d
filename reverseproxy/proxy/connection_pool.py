"""
Connection pools: the connections of one host, for one protocol.

A L{ConnectionPool} dials, keeps the idle connections and closes them after the
cluster's C{idle_timeout}, and ends all when the host leaves its cluster.  A
connection is

    - being dialled: it counts for C{max_connections} already;
    - open: it takes requests; idle, as long as it carries none;
    - leaving: it takes no more requests and does not count any more, but may
      still carry some, or be about to close;

and is forgotten when it is lost.  In HTTP/1 an exchange has a connection for
itself.  Where connections carry many exchanges at once, a L{SharedPool} lets
exchanges that find no room wait for the next connection together.

An agent's connection is the host's only one (C{exclusive}): its pool leases it,
and can't dial another one.
"""

from __future__ import annotations

__all__ = ["ConnectionPool", "Keepalive", "PoolSettings", "SharedPool", "pool_settings"]

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.cluster.endpoints import CallableFactory
from reverseproxy.cluster.host import IHostPool
from reverseproxy.errors import HostGone, QueueFull
from reverseproxy.net.lenient_timeouts import LenientTimeout
from reverseproxy.proxy.host_connection import HostConnection, SharedConnection

if TYPE_CHECKING:
    from reverseproxy.cluster.host import Host

_C = TypeVar("_C", bound=HostConnection)
_S = TypeVar("_S", bound=SharedConnection)


@dataclass(frozen=True, slots=True)
class Keepalive:
    """
    When to ask a host whether it is alive.

    @ivar interval: seconds between two questions on a connection, idle or not;
        0 for none.
    @ivar timeout: seconds for the answer.
    """

    interval: float = 0.0
    timeout: float = 1.0


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """
    What the configuration of a host's cluster says of the connections to it.

    @ivar idle_timeout: seconds after which an idle connection is closed; L{None}
        for never.
    @ivar max_requests: requests after which a connection is closed; 0 for any
        number.
    @ivar keepalive: when to ask whether the host is alive.
    """

    idle_timeout: float | None = None
    max_requests: int = 0
    keepalive: Keepalive = Keepalive()


def pool_settings(host: Host, idle_timeout: float | None) -> PoolSettings:
    """
    Take the settings of a pool from the configuration of the host's cluster.

    Agents' connections are for waiting: they are not closed when they are idle,
    nor after a number of requests.

    @param idle_timeout: seconds; L{None} or 0 for never.
    """
    idle_timeout = None if host.exclusive else idle_timeout or None
    if host.cluster is None:
        return PoolSettings(idle_timeout)
    config = host.cluster.config
    return PoolSettings(
        idle_timeout,
        0 if host.is_reverse else config.requests_per_connection,
        Keepalive(config.keepalive.interval, config.keepalive.timeout),
    )


@implementer(IHostPool)
class ConnectionPool(Generic[_C]):
    """
    The connections of one host, for one protocol.

    @ivar protocol_name: of the protocol, as routes name it.
    @ivar host: the host.
    @ivar clock: the time.
    @ivar settings: what the cluster's configuration says.
    @ivar exclusive: whether the host has but one connection, which is the host.
    @ivar dial: makes a connection, given a factory.
    @ivar mark_busy: to be called with a connection and L{None} when it is about to
        carry a request; see L{mark_idle}.
    """

    def __init__(
        self, protocol_name: str, host: Host, clock: IReactorTime, idle_timeout: float | None = None
    ) -> None:
        """
        @param idle_timeout: see L{pool_settings}.
        """
        self.protocol_name = protocol_name
        self.host = host
        self.clock = clock
        self.settings = pool_settings(host, idle_timeout)
        self.exclusive = host.exclusive
        self.dial: Callable[[CallableFactory], Deferred[Any]] = host.connect
        self._factory = CallableFactory(self._build)
        self._dials: set[Deferred[_C]] = set()
        self._all: set[_C] = set()  # open and leaving
        self._open: dict[_C, None] = {}  # as an ordered set
        self._idle: dict[_C, float] = {}  # since when; the one that was used last is the last
        # Bound once, without a method of ours around it: it runs for every request.
        self.mark_busy: Callable[[_C, None], object] = self._idle.pop
        self._idle_timer: LenientTimeout | None = None
        self._draining = host.retired or host.closed
        self._closed = False

    def _build(self) -> Any:
        """Make the protocol of a connection, which calls L{add} when it is connected."""
        raise NotImplementedError

    @property
    def connections(self) -> int:
        """How many connections there are that take requests."""
        return len(self._open)

    @property
    def idle(self) -> int:
        """How many connections carry no request."""
        return len(self._idle)

    @property
    def busy(self) -> bool:
        """Whether a connection is in use, or being made, or leaving, but not closed yet."""
        return bool(self._dials) or len(self._all) > len(self._idle)

    def _set_capacity(self, exchanges: int) -> None:
        """
        Let requests wait in the cluster's queue that the host's connections have no room for.

        @param exchanges: how many one connection carries at once.
        """
        connections = 1 if self.exclusive else self.host.max_connections
        if connections and self.host.cluster is not None:
            self.host.cluster.set_capacity(self.host, connections * exchanges)

    # dialling

    def _dial(self) -> Deferred[_C]:
        """
        Make a connection.

        @return: may be cancelled; fails with what the host's C{connect} fails
            with, or L{HostGone} if the pool is closed meanwhile.
        """
        self.host.connection_opened()
        dial: Deferred[_C] = self.dial(self._factory)
        self._dials.add(dial)
        dial.addBoth(self._dialled, dial)
        return dial

    def _dialled(self, result: _C | Failure, dial: Deferred[_C]) -> _C | Failure:
        self._dials.discard(dial)
        if isinstance(result, Failure):
            self.host.connection_closed()
            if self._closed:
                return self._gone()
        return result

    def _gone(self) -> Failure:
        return Failure(HostGone(f"{self.host.address} is gone"))

    def make_room(self) -> None:
        """Close idle connections, those used longest ago first, until the host may have another one."""
        for connection in list(self._idle):
            if self.host.may_connect():
                return
            connection.close("makes room for a new one")

    # called by connections

    def add(self, connection: _C) -> None:
        """Add a new connection, to be called by it when it is connected."""
        self._all.add(connection)
        self._open[connection] = None

    def heard(self, success: bool) -> None:
        """
        Note that the host speaks the protocol.

        To be called for what comes on a connection up to the first answer with
        success.

        @param success: whether this is it.
        """
        cluster = self.host.cluster
        if cluster is not None:
            support = cluster.members.protocol_support
            (support.succeeded if success else support.note_answer)(self.host, self.protocol_name)

    def mark_idle(self, connection: _C) -> None:
        """Start the idle timeout of an open connection, as it carries no request."""
        timeout = self.settings.idle_timeout
        if timeout is None:
            self._idle[connection] = 0.0
            return
        self._idle[connection] = self.clock.seconds()
        if self._idle_timer is None:
            self._idle_timer = LenientTimeout(self.clock, timeout, self._expire)

    def _expire(self) -> None:
        """Close the connections that have been idle for too long."""
        self._idle_timer = None
        timeout = self.settings.idle_timeout
        assert timeout is not None
        now = self.clock.seconds()
        for connection, since in list(self._idle.items()):
            left = since + timeout - now
            if left > 0:
                self._idle_timer = LenientTimeout(self.clock, left, self._expire)
                return
            connection.close("idle timeout")

    def forget(self, connection: _C) -> None:
        """Stop using a connection for requests, and counting it."""
        if connection in self._open:
            del self._open[connection]
            self._idle.pop(connection, None)
            self.host.connection_closed()

    def retire(self, connection: _C, reason: str) -> None:
        """Forget a connection on which the host wants no more requests; a reverse host leaves its cluster."""
        self.forget(connection)
        if self.exclusive and self.host.cluster is not None:
            self.host.cluster.remove_host(self.host, reason)

    def remove(self, connection: _C) -> None:
        """Remove a connection that is lost, or was given back."""
        self.forget(connection)
        self._all.discard(connection)
        if not self._all and self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None

    # IHostPool

    def drain(self) -> None:
        """See L{IHostPool}."""
        self._draining = True
        for connection in list(self._idle):
            connection.close("drained")
        for connection in list(self._open):
            connection.drain()

    def close(self) -> None:
        """See L{IHostPool}; the exchanges under way fail, and those that wait for a connection."""
        self._draining = self._closed = True
        for dial in list(self._dials):
            dial.cancel()
        for connection in list(self._all):
            connection.drop("the host is gone")


class SharedPool(ConnectionPool[_S]):
    """
    A pool of connections that carry many exchanges at once.

    What it gives to an exchange is what L{SharedConnection.reserve} returns.
    """

    def __init__(
        self, protocol_name: str, host: Host, clock: IReactorTime, idle_timeout: float | None = None
    ) -> None:
        super().__init__(protocol_name, host, clock, idle_timeout)
        self._waiting: dict[Deferred[Any], None] = {}

    def take(self) -> Any:
        """Take a place on a connection that has room; L{None} if there is none."""
        for connection in self._open:
            if connection.has_room:
                return connection.reserve()
        return None

    def connect(self) -> Deferred[Any]:
        """
        Take a place on a new connection; all that wait share the next one that is made.

        @return: may be cancelled; fails with L{QueueFull} if there may be no
            further connection.
        """
        for connection in self._open:
            if connection.has_room and (self.exclusive or not connection.reused):
                return succeed(connection.reserve())
        if not self._dials and not self._may_dial():
            return fail(self._full())
        waiter: Deferred[Any] = Deferred(self._cancelled)
        self._waiting[waiter] = None
        if not self._dials:
            self._dial_for_waiting()
        return waiter

    def _may_dial(self) -> bool:
        return not (self.exclusive and self._open) and self.host.may_connect()

    def _full(self) -> QueueFull:
        return QueueFull(f"every connection to {self.host.address} has as many requests as it takes")

    def _cancelled(self, waiter: Deferred[Any]) -> None:
        self._waiting.pop(waiter, None)

    def _dial_for_waiting(self) -> None:
        self._dial().addCallbacks(self._serve_waiting, self._fail_waiting)

    def _serve_waiting(self, connection: _S) -> None:
        """Give places on a new connection, and dial another one for those who get none."""
        if not connection.has_room:
            self._fail_waiting(Failure(connection.refusal))
            return
        for waiter in list(self._waiting):
            if not connection.has_room:
                break
            if waiter in self._waiting:  # not cancelled by what another one led to
                del self._waiting[waiter]
                waiter.callback(connection.reserve())
        if self._draining:
            self.drain()  # this connection, too, now that it has its requests
        if self._waiting and not self._dials:
            if self._may_dial():
                self._dial_for_waiting()
            else:
                self._fail_waiting(Failure(self._full()))

    def _fail_waiting(self, reason: Failure) -> None:
        for waiter in list(self._waiting):
            if waiter in self._waiting:
                del self._waiting[waiter]
                waiter.errback(reason)

    def add(self, connection: _S) -> None:
        """
        Add a new connection, which is idle until it is used.

        If the pool was drained meanwhile, it is closed, unless requests have waited for it: these were
        begun before, and there is nothing wrong with the host.
        """
        super().add(connection)
        self.mark_idle(connection)
        if self._draining and not self._waiting:
            connection.close("drained")

    def close(self) -> None:
        """See L{IHostPool}."""
        self._fail_waiting(self._gone())
        super().close()
