"""What is remembered of a TCP session, to be told when it is over."""

from __future__ import annotations

__all__ = ["SessionNotes"]

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IReactorTime

from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.metrics import Ended, Place
from reverseproxy.proxy.access.record import AccessRecord, Times, UpstreamDetails
from reverseproxy.proxy.counting import note_failure
from reverseproxy.proxy.flags import NO_FLAGS, short_names
from reverseproxy.proxy.host_connection import next_number

if TYPE_CHECKING:
    from reverseproxy.cluster.host import Host
    from reverseproxy.identity import AgentIdentity
    from reverseproxy.proxy.tcp.sessions import TcpProxySettings
    from reverseproxy.tracing.interfaces import IRequestTrace, ITracing


class SessionNotes:
    """
    How one session went.

    It is told to tracing when it is over: only then is it known whether there was one at all, and what is
    told of no session would have nothing above it.

    @ivar started: when it began, in the clock's seconds.
    @ivar failure: what went wrong first; empty if nothing has.
    @ivar flags: the same, as flags.
    @ivar trouble: what has been in the way of connecting, so far.
    @ivar waited: seconds that it has waited for hosts.
    @ivar dialled: seconds that it took to connect to them.
    @ivar served_by: the last host, also when that is over.
    @ivar host_address: its address.
    @ivar server: the server that has it, if that is another one.
    @ivar agent: who has brought it.
    @ivar connection: the number of the connection to it.
    @ivar trace: its spans, once it has been told; L{None} if it is not traced.
    """

    __slots__ = (
        "_clock",
        "_steps",
        "agent",
        "connection",
        "dialled",
        "failure",
        "flags",
        "host_address",
        "served_by",
        "server",
        "started",
        "trace",
        "trouble",
        "waited",
    )

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self.started = 0.0
        self.failure = ""
        self.flags = self.trouble = NO_FLAGS
        self.waited = self.dialled = 0.0
        self.host_address = self.server = ""
        self.connection = 0
        self.agent: AgentIdentity | None = None
        self.served_by: Host | None = None
        self.trace: IRequestTrace | None = None
        self._steps: list[Callable[[IRequestTrace], object]] | None = None

    def keep_steps(self) -> None:
        """Keep what becomes of it, for L{tell}: a few steps for each host that it is given to."""
        self._steps = []

    def _step(self, step: Callable[[IRequestTrace], object]) -> None:
        if self._steps is not None:
            self._steps.append(step)

    def connected(self, cluster: str) -> None:
        """Note that its host is there, to which it goes from now on."""
        host = self.served_by
        if self._steps is None or host is None:
            return
        attributes = {"server.address": host.address, "reverseproxy.cluster": cluster}
        if host.identity is not None:
            attributes["reverseproxy.agent"] = host.identity.principal
        if host.server:
            attributes["reverseproxy.server"] = host.server
        now = self._clock.seconds()
        self._step(lambda trace: trace.attempt_over(now))
        self._step(lambda trace: trace.attempt(now, host.is_reverse, attributes))

    def go_to(self, host: Host) -> None:
        """Note a host that it is given to."""
        self.host_address = host.address
        self.connection = next_number()  # each session has its own
        self.server = host.server
        self.agent = host.identity
        self.served_by = host

    def waited_since(self, result: Any, since: float) -> Any:
        """Note how long a wait was, whatever came of it."""
        now = self._clock.seconds()
        self.waited += now - since
        self._step(lambda trace: trace.waited(since, now))
        return result

    def dialled_since(self, result: Any, since: float) -> Any:
        """Note how long connecting took, whatever came of it."""
        now = self._clock.seconds()
        self.dialled += now - since
        self._step(lambda trace: trace.dialled(since, now))
        return result

    # when it is over

    def tell(
        self,
        settings: TcpProxySettings,
        info: ConnectionInfo,
        cluster: str,
        received: int,
        sent: int,
        attempts: int,
        used: bool,
    ) -> None:
        """
        Tell of it, once, to whoever wants to know: tracing, counters, and the access log.

        @param cluster: where it went; empty for nowhere.
        @param attempts: how many hosts it was given to.
        @param used: whether anybody has sent anything; else only what went wrong is of interest.
        """
        if settings.tracing is not None and used:
            self._trace(settings.tracing, info, settings.listener, received, sent)
        tally = settings.tally
        if tally is not None:
            ended = Ended(tally.place(cluster), self.served_by, 0, self.started, received, sent)
            tally.end(ended, self._clock.seconds())
            if self.flags:
                note_failure(tally, ended, self.flags, self.failure)
        if settings.access_log is not None:
            settings.access_log(self._record(info, cluster, received, sent, attempts))

    def _trace(
        self, tracing: ITracing, info: ConnectionInfo, listener: str, received: int, sent: int
    ) -> None:
        """Make spans of it, in a trace of its own, as no header could name another one."""
        attributes: dict[str, str | int | float | bool] = {
            "network.transport": "tcp",
            "client.address": info.remote_ip,
            "reverseproxy.listener": listener,
        }
        now, name = self._clock.seconds(), f"tcp {listener}"
        trace = self.trace = tracing.begin(lambda field: None, False, self.started, now, name, attributes)
        for step in self._steps or ():
            step(trace)
        self._steps = None
        attributes = {"reverseproxy.bytes_received": received, "reverseproxy.bytes_sent": sent}
        if self.flags:
            attributes["reverseproxy.flags"] = attributes["error.type"] = short_names(self.flags)
        trace.end(now, name, self.failure, attributes)

    def _record(
        self, info: ConnectionInfo, cluster: str, received: int, sent: int, attempts: int
    ) -> AccessRecord:
        """
        Tell of it to an access log.

        @param info: whose session it is.
        @param cluster: where it went; empty for nowhere.
        """
        return AccessRecord(
            "tcp",
            info,
            rule=Place(cluster),
            upstream=UpstreamDetails(
                cluster,
                self.host_address,
                self.server,
                self.agent,
                attempts=attempts,
                connection=self.connection,
            ),
            times=Times(self.waited, self.dialled),
            duration=self._clock.seconds() - self.started,
            bytes_received=received,
            bytes_sent=sent,
            flag=self.failure,
            flags=self.flags,
            trace_id="" if self.trace is None else self.trace.trace_id,
        )
