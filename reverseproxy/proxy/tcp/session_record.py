"""What is recorded of a TCP session: spans, counters and a line of the access log, when it ends."""

from __future__ import annotations

__all__ = ["SessionRecord"]

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IReactorTime

from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.metrics import Destination, EndedRequest
from reverseproxy.proxy.access.record import AccessRecord, Times, UpstreamDetails
from reverseproxy.proxy.counting import note_failure
from reverseproxy.proxy.flags import NO_FLAGS, short_names
from reverseproxy.proxy.host_connection import next_number

if TYPE_CHECKING:
    from reverseproxy.cluster.host import Host
    from reverseproxy.identity import AgentIdentity
    from reverseproxy.proxy.tcp.settings import TcpProxySettings
    from reverseproxy.tracing.interfaces import IRequestTrace, ITracing


class SessionRecord:
    """
    The record of one session, which is written once, when it has ended.

    Spans are made then, too, as a connection of an agent may turn out to
    have carried none.

    @ivar started: when it began, in the clock's seconds.
    @ivar failure: the first failure; empty for none.
    @ivar flags: the same, as flags.
    @ivar trouble: the flags of failed attempts to connect, so far.
    @ivar waited: seconds that it waited for hosts in the cluster's queue.
    @ivar dialled: seconds that it took to connect to hosts.
    @ivar served_by: the last host; kept when the session has ended.
    @ivar host_address: the host's address.
    @ivar server: the id of the server that has the host's agent; empty for this one.
    @ivar agent: the identity of the host's agent.
    @ivar connection: the number of the connection to the host.
    @ivar trace: the spans, once they are made; L{None} without tracing.
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
        """Keep the events of the session for its spans: a few for each attempt."""
        self._steps = []

    def _step(self, step: Callable[[IRequestTrace], object]) -> None:
        if self._steps is not None:
            self._steps.append(step)

    def connected(self, cluster: str) -> None:
        """Note that the host is connected."""
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
        """Note the host of an attempt."""
        self.host_address = host.address
        self.connection = next_number()  # each session has its own
        self.server = host.server
        self.agent = host.identity
        self.served_by = host

    def waited_since(self, result: Any, since: float) -> Any:
        """Add the time since C{since} to L{waited}, and return the result."""
        now = self._clock.seconds()
        self.waited += now - since
        self._step(lambda trace: trace.waited(since, now))
        return result

    def dialled_since(self, result: Any, since: float) -> Any:
        """Add the time since C{since} to L{dialled}, and return the result."""
        now = self._clock.seconds()
        self.dialled += now - since
        self._step(lambda trace: trace.dialled(since, now))
        return result

    # when it is over

    def write(
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
        Write it, once: spans, counters, and the access log.

        @param cluster: the name of its cluster; empty for none.
        @param received: bytes from the client.
        @param sent: bytes from the host.
        @param attempts: the number of hosts tried.
        @param used: whether it is a session, rather than an agent's connection without data.
        """
        if settings.tracing is not None and used:
            self._trace(settings.tracing, info, settings.listener, received, sent)
        tally = settings.tally
        if tally is not None:
            ended = EndedRequest(tally.place(cluster), self.served_by, 0, self.started, received, sent)
            tally.end(ended, self._clock.seconds())
            if self.flags:
                note_failure(tally, ended, self.flags, self.failure)
        if settings.access_log is not None:
            settings.access_log(self._access_record(info, cluster, received, sent, attempts))

    def _trace(
        self, tracing: ITracing, info: ConnectionInfo, listener: str, received: int, sent: int
    ) -> None:
        """Make the spans, in a new trace."""
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

    def _access_record(
        self, info: ConnectionInfo, cluster: str, received: int, sent: int, attempts: int
    ) -> AccessRecord:
        """
        Return the access log's record.

        @param info: the client's connection.
        @param cluster: the name of the cluster; empty for none.
        """
        return AccessRecord(
            "tcp",
            info,
            rule=Destination(cluster),
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
