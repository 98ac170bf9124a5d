"""
A host whose agent is connected to another server of the fleet.

To its cluster it is a host like others: connecting means to open a stream on the link to the server
that has the agent, which takes no time.  The stream begins with a header that names the agent
(L{reverseproxy.fleet.link_frames}), and the agent's data follows at once.  If nothing could be passed
on to the agent, the stream ends with a mark that says so, and the request goes to another host, even
if it is a POST.

The agent's own server decides whether the agent is healthy; this server only knows whether it
reaches that server.
"""

from __future__ import annotations

__all__ = ["RemoteHost"]

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IProtocol, IProtocolFactory

from reverseproxy.cluster.endpoints import CallableFactory
from reverseproxy.cluster.handover import Handover
from reverseproxy.cluster.health.outcome import Outcome
from reverseproxy.cluster.host import AgentHost
from reverseproxy.errors import HostGone
from reverseproxy.fleet.link_frames import StreamHeader
from reverseproxy.fleet.outgoing_link import OutgoingLink
from reverseproxy.fleet.record_fields import MAX_COUNT, MAX_WEIGHT
from reverseproxy.fleet.records import HostRecord
from reverseproxy.fleet.traffic import Traffic

_FAILURES: Final = frozenset({Outcome.SERVER_ERROR, Outcome.RESET})
"""Outcomes that are reported to the agent's server."""
_ANSWERS: Final = frozenset({Outcome.SUCCESS, Outcome.CLIENT_ERROR})
"""Outcomes that are reported if they end a row of failures."""


class _HeaderWriter(Handover):
    """The beginning of a stream at the end that opens it: writes the header, and hands the stream over."""

    def __init__(self, header: bytes, inner: IProtocol) -> None:
        super().__init__()
        self._header = header
        self._inner = inner

    def connectionMade(self) -> None:
        """Write the header, and hand the stream to its protocol."""
        self.transport.write(self._header)
        self.hand_over(self._inner)


class RemoteHost(AgentHost):
    """
    An agent of another server.

    @ivar server: that server's id.
    @ivar link: the link to that server.
    @ivar key: the agent's key in the directory.
    """

    __slots__ = ("_behalf", "_failing", "_traffic", "key", "link", "server")

    max_weight = MAX_WEIGHT * MAX_COUNT

    def __init__(
        self,
        link: OutgoingLink,
        record: HostRecord,
        weight: int,
        traffic: Traffic,
        on_gone: Callable[[RemoteHost, str], object],
    ) -> None:
        """
        @param weight: of all its connections together.
        @param on_gone: called once with this host and a reason, as soon as it can take no further
            request.
        """
        super().__init__(
            on_gone,
            f"{record.server}/{record.agent}",
            record.hostname,
            weight,
            record.metadata,
            record.capacity,
        )
        self.server = record.server
        self.link = link
        self.key = record.key
        self.identity = record.identity
        self.tells = True  # if the agent does not, its server parses its responses
        self._traffic = traffic
        self._behalf = ""
        self._failing = False

    @property
    def is_remote(self) -> bool:
        """True: another server has its connections, for as long as it lives."""
        return True

    @property
    def rtt(self) -> float | None:
        """The round-trip time of the last ping to its server, in seconds."""
        return self.link.rtt

    def on_behalf(self, client: str) -> None:
        """Name the client of the next stream; see L{Host.on_behalf}."""
        self._behalf = client

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Open a stream to the agent.

        @return: fires at once; fails with L{HostGone} if the host or its server is gone.
        """
        client, self._behalf = self._behalf, ""
        session = self.link.session
        if self.closed or session is None or not self.link.usable:
            return fail(HostGone(f"server {self.server} can't be reached: {self.link.problem}"))
        try:
            factory.doStart()
            protocol: Any = factory.buildProtocol(session.getPeer())
        except Exception:
            return fail()
        if protocol is None:
            return fail(HostGone(f"no protocol wants {self.address}"))
        spoken = getattr(protocol, "speaks", "")
        if spoken:
            client = ""  # the stream will carry requests of several clients
        header = StreamHeader(self.key.cluster, self.key.agent, spoken, client).encode()
        self._traffic.sent(self.server)
        opening = session.open(CallableFactory(lambda: _HeaderWriter(header, protocol)))
        return opening.addCallback(lambda _: protocol)

    def usable(self) -> bool:
        """Return whether another stream can be opened."""
        return super().usable() and self.link.usable

    def judge(self, outcome: Outcome) -> None:
        """
        Report the outcome of a request to its server: each failure, and the first success after
        failures.

        That server ejects the agent for all servers.
        """
        failed = outcome in _FAILURES
        if failed or (self._failing and outcome in _ANSWERS):
            self._failing = failed
            key = self.key
            self.link.send({"outcome": int(outcome), "cluster": key.cluster, "agent": key.agent})

    def close(self, reason: str) -> None:
        """Close all streams to it."""
        if not self.closed:
            super().close(reason)
            self._leave(reason)
