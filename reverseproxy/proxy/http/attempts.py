"""
Bring a request to a connection to a host, in as many attempts as the retry policy allows.

An exchange of any protocol takes a host from its cluster, waiting if all are
busy; gets a connection to it from the host's pool for the protocol; tries
another host if that fails; and gives the host back.

    NEW: the request has no route yet
    WAITING: for a host, or for a connection to it
    ACTIVE: a connection carries the request
    DONE: answered, failed or cancelled

The host to be given back is kept in one attribute, which only L{Attempts._release}
empties.
"""

from __future__ import annotations

__all__ = ["Attempts", "ExchangePhase"]

from enum import IntEnum
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from reverseproxy.cluster.health.outcome import Outcome
from reverseproxy.cluster.manager import DEPRIORITIZED_WAIT
from reverseproxy.errors import PickFailed, ProtocolRefused, QueueFull
from reverseproxy.logs import loss
from reverseproxy.proxy.client_pools import client_pool_of
from reverseproxy.proxy.flags import ResponseFlag, flag_of
from reverseproxy.proxy.http.host_choice import MOST_PASSED, HostChoice
from reverseproxy.proxy.http.setbacks import WaitTimes
from reverseproxy.proxy.pools import pool_of
from reverseproxy.routing import DEFAULT_RETRY, RETRY_PAUSE, Cause, RetryPolicy, should_retry
from reverseproxy.wire.proxy_protocol import encode_header

if TYPE_CHECKING:
    from reverseproxy.cluster.host import Host
    from reverseproxy.proxy.pools import IUpstreamPool
    from reverseproxy.tracing.interfaces import IRequestTrace


class ExchangePhase(IntEnum):
    """The state of a request; see the module's text."""

    NEW = 0
    WAITING = 1
    ACTIVE = 2
    DONE = 3


NEW, WAITING, ACTIVE, DONE = ExchangePhase


class Attempts(HostChoice):
    """
    Base of exchanges of every protocol: picks hosts and connects to them.

    A subclass calls L{_acquire} once C{cluster} and C{protocol} are known, and
    says what to do with a connection (L{_send}) and without one (L{fail}).

    @ivar retry: when to try again.
    @ivar flags: why there is no complete answer of a host; see
        L{reverseproxy.proxy.flags}.
    """

    __slots__ = (
        "_clock",
        "_lease",
        "_pending",
        "_phase",
        "_trace",
        "_waits",
        "flags",
        "retry",
    )

    retry: RetryPolicy
    _phase: ExchangePhase
    _lease: Host | None  # what is to be given back to the cluster
    _pending: Deferred[Any] | IDelayedCall | None  # a host, a connection, or a pause
    _trace: IRequestTrace | None
    _waits: WaitTimes | None  # once it has had to wait, for a host or for a connection

    def __init__(self, clock: IReactorTime, protocol: str) -> None:
        # One after the other, and not with their types: this runs for every request.
        self.protocol = protocol
        self._clock = clock
        self._phase = NEW
        self._attempts = self.flags = 0
        self.cluster = self.host = self._lease = self._pending = self._context = None
        self._setbacks = self._waits = self._trace = None
        self.retry = DEFAULT_RETRY

    # what a subclass does

    def fail(self, status: int, reason: str, flags: int) -> None:
        """
        Answer with an error, as no host could be had.

        @param flags: the same as codes.
        """
        raise NotImplementedError

    def _send(self, client: Any) -> None:
        """Send the request over a connection, and set the phase."""
        raise NotImplementedError

    @property
    def client_address(self) -> str:
        """
        The client's address, which a server of the fleet gives the agent; empty where one connection serves
        many.
        """
        return ""

    def _connecting(self) -> None:
        """A new connection to the host is being made."""

    def _make_pool(self, host: Host, idle_timeout: float | None) -> IUpstreamPool:
        """Return the pool of connections to a host that has none yet for our protocol."""
        if host.sends_proxy_header:
            header = self._introduction()
            return client_pool_of(self.protocol, host, self._clock, idle_timeout, header)
        return pool_of(self.protocol, host, self._clock, idle_timeout)

    def _introduction(self) -> bytes:
        """Return the header of PROXY protocol for a host; it names our client, or no address."""
        assert self.cluster is not None
        return encode_header(self.cluster.config.proxy_protocol, "", "")

    # what a subclass uses

    @property
    def waited(self) -> float:
        """Seconds that the request waited for a host."""
        return 0.0 if self._waits is None else self._waits.host

    @property
    def dialled(self) -> float:
        """Seconds that it took to connect to hosts."""
        return 0.0 if self._waits is None else self._waits.connection

    def _begin_waiting(self) -> None:
        """Note that the request waits from now on."""
        waits = self._waits
        if waits is None:
            waits = self._waits = WaitTimes()
        waits.since = self._clock.seconds()

    def _stop_waiting(self) -> None:
        """
        Add up the time that the request waited: for a host, or for a connection to the one that was picked.
        """
        waits = self._waits
        if waits is None or waits.since is None:
            return
        since, waits.since = waits.since, None
        now = self._clock.seconds()
        trace = self._trace
        if self._lease is None:
            waits.host += now - since
            if trace is not None:
                trace.waited(since, now)
        else:
            waits.connection += now - since
            if trace is not None:
                trace.dialled(since, now)

    def _acquire(self) -> None:
        """Pick a host, now or when one is free."""
        cluster = self.cluster
        assert cluster is not None
        self._phase = WAITING
        self._attempts += 1
        try:
            while (host := cluster.acquire(self._context)) is not None:
                protocol, support = self.protocol, host.protocol_support
                if (
                    # A host that already speaks the protocol: L{_suits} would agree, but takes longer.
                    (not host.exclusive or protocol in host.pools)
                    and (not host.committed_protocol or host.committed_protocol == protocol)
                    and (support is None or support.speaks(protocol))
                ) or self._suits(host):
                    self._connect(host)
                    return
                self._pass_over(host)
                if self._note_setback().passed_over >= MOST_PASSED:
                    self._no_host(502, None)
                    return
        except PickFailed as error:
            if self._readmit(error):
                self._acquire()
            else:
                self._no_host(error.status, error)
            return
        self._begin_waiting()
        timeout = cluster.config.connect_timeout
        context = self._context
        if context is not None and (context.deprioritized or context.hurried):
            timeout = min(timeout, DEPRIORITIZED_WAIT)
        pending = self._pending = cluster.wait(self._context, timeout)
        pending.addCallbacks(self._acquired, self._not_acquired)

    def _release(self) -> None:
        """Give the host back to the cluster, exactly once for each time that it was picked."""
        setbacks = self._setbacks
        if setbacks is not None and setbacks.retrying:
            setbacks.retrying = False
            assert self.cluster is not None
            self.cluster.end_retry()
        if self._trace is not None:
            self._trace.attempt_over(self._clock.seconds())
        lease, self._lease = self._lease, None
        if lease is not None:
            cluster = self.cluster
            assert cluster is not None
            cluster.release(lease)

    def _may_try_again(self, outcome: Cause | int, unsent: bool, idempotent: bool) -> bool:
        """
        Ask for another attempt; the route's retry policy and the cluster's limits decide.

        If the answer is yes, L{_next_attempt} must follow.

        @param outcome: see L{should_retry}, as for the others.
        """
        cluster = self.cluster
        assert cluster is not None
        if not should_retry(self.retry, self._attempts, outcome, unsent, idempotent):
            if should_retry(self.retry, 0, outcome, unsent, idempotent):
                self.flags |= ResponseFlag.URX
            return False
        setbacks = self._note_setback()
        if not setbacks.retrying:
            setbacks.retrying = cluster.try_retry()
            if not setbacks.retrying:
                self.flags |= ResponseFlag.UO
        return setbacks.retrying

    def _next_attempt(self, at_once: bool) -> None:
        """
        Begin another attempt.

        @param at_once: whether there is another host, or a new connection, so
            that there is nothing to wait for.
        """
        setbacks = self._note_setback()
        retrying, setbacks.retrying = setbacks.retrying, False
        self._release()
        setbacks.retrying = retrying
        self._phase = WAITING
        if at_once:
            self._acquire()
        else:
            self._pending = self._clock.callLater(RETRY_PAUSE, self._go_on)

    def _go_on(self) -> None:
        self._pending = None
        self._acquire()

    def _give_up(self) -> None:
        """Cancel what is pending before there is a connection, and give the host back."""
        self._phase = DONE
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.cancel()
        if self._waits is not None:
            self._stop_waiting()
        self._release()

    # traces

    def _begin_attempt(self, trace: IRequestTrace) -> list[tuple[bytes, bytes]]:
        """
        Begin the span of an attempt.

        @return: what the host is to get in place of all other fields of traces.
        """
        host, cluster = self.host, self.cluster
        assert host is not None
        assert cluster is not None
        attributes: dict[str, str | int | float | bool] = {
            "server.address": host.address,
            "reverseproxy.cluster": cluster.name,
        }
        if host.identity is not None:
            attributes["reverseproxy.agent"] = host.identity.principal
        if host.server:
            attributes["reverseproxy.server"] = host.server
        return trace.attempt(self._clock.seconds(), host.is_reverse, attributes)

    @property
    def trace_id(self) -> str:
        """The trace that spans are made for; empty if there is none."""
        return "" if self._trace is None else self._trace.trace_id

    # on the way

    def _acquired(self, host: Host) -> None:
        self._pending = None
        self._stop_waiting()
        if self._phase == WAITING and self._suits(host):
            self._connect(host)
        elif self._phase == WAITING:
            self._pass_over(host)
            self._attempts -= 1
            if self._note_setback().passed_over < MOST_PASSED:
                self._acquire()
            else:
                self._no_host(502, None)
        elif self.cluster is not None:
            self.cluster.release(host)

    def _not_acquired(self, reason: Failure) -> None:
        self._pending = None
        self._stop_waiting()
        error = reason.value
        if self._phase == WAITING and self._readmit(error):
            self._acquire()
        elif self._phase == WAITING:
            self._no_host(error.status if isinstance(error, PickFailed) else 502, error)

    def _no_host(self, status: int, error: BaseException | None) -> None:
        """Fail the request, as there is no host, or no other host, for it."""
        reason, flags = str(error), flag_of(error)
        if self._setbacks is not None and self._setbacks.trouble is not None:
            trouble, trouble_flags = self._setbacks.trouble
            reason = f"{trouble}, and no other host is left for it"
            flags |= trouble_flags
        self.fail(status, reason, flags)

    def _connect(self, host: Host) -> None:
        self._lease = self.host = host
        cluster = self.cluster
        assert cluster is not None
        pool: Any = host.pools.get(self.protocol) or self._make_pool(host, cluster.config.idle_timeout)
        setbacks = self._setbacks
        client = pool.take() if setbacks is None or not setbacks.new_connection else None
        if client is not None:
            self._send(client)
            return
        pending = self._pending = pool.connect()
        pending.addCallbacks(self._connected, self._not_connected)
        if self._pending is not None:
            self._begin_waiting()
            self._connecting()

    def _connected(self, client: Any) -> None:
        self._pending = None
        self._stop_waiting()
        if self._phase != WAITING:
            client.finish(True)  # cancelled meanwhile; another request will be glad of it
            self._release()
        elif client.closed:
            self._try_another("the connection was lost at once", ResponseFlag.UF)
        else:
            assert self.cluster is not None
            assert self.host is not None
            self.cluster.report(self.host, Outcome.CONNECTED)
            self._send(client)

    def _not_connected(self, reason: Failure) -> None:
        self._pending = None
        self._stop_waiting()
        if self._phase == WAITING and isinstance(reason.value, QueueFull):
            self._release()
            self.fail(reason.value.status, str(reason.value), ResponseFlag.UO)
        elif self._phase == WAITING:
            if reason.check(ProtocolRefused) is not None and self._is_foreign():
                self._discount_attempt()
                if self._may_try_again(Cause.UNREACHABLE, True, True):
                    self._next_attempt(True)  # in what it speaks, perhaps
                    return
            self._try_another(loss(reason), ResponseFlag.UF | flag_of(reason.value))
        else:
            self._release()

    def _try_another(self, reason: str, flags: int) -> None:
        """
        Try another host, as this one could not be reached and nothing was sent.

        @param flags: the reason as codes.
        """
        host, cluster = self.host, self.cluster
        assert host is not None
        assert cluster is not None
        problem = f"host {host.address} can't be reached: {reason}"
        self._note_setback().trouble = problem, flags
        cluster.members.unreachable.note(host, reason)
        cluster.report(host, Outcome.UNREACHABLE)
        self._exclude_agent(host)
        if host.is_reverse:
            self._discount_attempt()
        if self._may_try_again(Cause.UNREACHABLE, True, True):
            self._next_attempt(True)
        else:
            self._release()
            self.fail(502, problem, flags)
