"""
Graceful leave of an agent's connections: the server is told, requests finish, and connections are
closed.

All connections leave when the agent stops or its server is not listed any more; some of them when fewer
are wanted.
"""

from __future__ import annotations

__all__ = ["AgentLeaving", "too_late"]

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from reverseproxy.cluster.endpoints import CallableFactory
from reverseproxy.errors import ConnectionUnavailable
from reverseproxy.logs import counted, how_many
from reverseproxy.tunnel.agent.link import AgentLink
from reverseproxy.wire.mosn.extensions import CloseProof
from reverseproxy.wire.mosn.frames import encode_graceful_close

if TYPE_CHECKING:
    from reverseproxy.tunnel.agent.plan import AgentPlan

log = Logger(__package__)

QUIET: Final = 1.0
"""
Seconds without a request after which a draining connection is closed.

The server was told not to use it; a request that it had sent before arrives within a round trip.
"""

DRAIN_POLL: Final = 0.05
"""Seconds between two checks of draining connections."""

TELLING_SHARE: Final = 0.5
"""The part of the time for draining within which a server must be told; the rest is left to requests."""

END_TIME: Final = 2.0
"""
Seconds for responses to requests that are ended at the limit of a drain; see
L{reverseproxy.listener.END_TIME}.
"""


def too_late(result: Any, seconds: float) -> Any:
    """Raise a timeout error; for C{Deferred.addTimeout}."""
    raise ConnectionUnavailable(f"it took longer than {seconds:g} s")


class _Aside(Protocol):
    """A connection that sends a graceful close to a server, and carries nothing else."""

    transport: Any

    def __init__(self) -> None:
        self._closed: Deferred[None] = Deferred(lambda _: self.transport.abortConnection())

    def tell(self, frame: bytes) -> Deferred[None]:
        """Send the frame, and close; cancelling aborts the connection."""
        self.transport.write(frame)
        self.transport.loseConnection()
        return self._closed

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self._closed.called:
            self._closed.callback(None)


class AgentLeaving:
    """The leave of some connections to one server."""

    def __init__(
        self,
        plan: AgentPlan,
        endpoint: Any,
        server: str,
        links: Sequence[AgentLink],
        stopped: Callable[[], bool],
    ) -> None:
        """
        @param endpoint: the server's.
        @param server: its name, for logs.
        @param stopped: returns whether the agent has been stopped, so that nothing is waited for.
        """
        self._plan = plan
        self._endpoint = endpoint
        self._server = server
        self._links = links
        self._stopped = stopped

    async def run(self, seconds: float) -> None:
        """
        Leave; connections that still have requests at the end are left to be closed.

        @param seconds: the time limit.
        """
        end = self._plan.reactor.seconds() + seconds
        # Connections with streams tell their server by themselves.
        lent = [link for link in self._links if link.session is None]
        for link in self._links:
            if link.session is not None:
                link.drain()
        if lent:
            await self._tell_in_time(lent, seconds * TELLING_SHARE)
            if self._stopped():
                return
            for link in lent:
                if not link.gone:
                    link.drain()
        await self._until_quiet(self._links, seconds, end)

    async def _tell_in_time(self, links: list[AgentLink], seconds: float) -> None:
        telling = Deferred.fromCoroutine(self._tell(links))
        try:
            await telling.addTimeout(seconds, self._plan.reactor, too_late)
        except Exception as error:
            if not self._stopped():
                log.warn(
                    "agent of cluster {cluster}: {server} could not be told of the close: {reason}",
                    cluster=self._plan.config.cluster,
                    server=self._server,
                    reason=str(error) or type(error).__name__,
                )

    async def _until_quiet(self, links: Sequence[AgentLink], seconds: float, end: float) -> None:
        clock = self._plan.reactor
        quiet_since = {link: clock.seconds() for link in links}
        told = {link for link in links if link.busy}
        while (now := clock.seconds()) < end:
            for link in list(quiet_since):
                if link.gone:
                    del quiet_since[link]
                elif link.session is not None:
                    link.close_quiet(QUIET)
                elif link.busy:
                    quiet_since[link] = now
                    if link not in told:
                        # The server uses a connection that was idle when its protocol was drained.
                        told.add(link)
                        link.drain()
                elif now - quiet_since[link] >= QUIET:
                    link.close()
            if not quiet_since:
                return
            await deferLater(clock, DRAIN_POLL)
        await self._end_all(quiet_since, seconds)

    async def _end_all(self, links: Collection[AgentLink], seconds: float) -> None:
        """End requests that have reached the time limit, and wait a moment for their responses."""
        clock = self._plan.reactor
        doing = [each for link in links for each in link.doing]
        log.warn(
            "agent of cluster {cluster}: {what} on {connections} to {server} outlived the {seconds:g} s for"
            " what is under way, ended now: {doing}",
            cluster=self._plan.config.cluster,
            connections=counted(len(links), "connection"),
            count=len(doing),
            what=counted(len(doing), "session"),
            seconds=seconds,
            server=self._server,
            doing=how_many(doing),
        )
        for link in links:
            link.end("the agent stops")
        end = clock.seconds() + END_TIME
        while clock.seconds() < end and any(link.busy and not link.gone for link in links):
            await deferLater(clock, DRAIN_POLL)

    async def _tell(self, links: list[AgentLink]) -> None:
        plan = self._plan
        config = plan.config
        extra = None
        if all(link.server_announced for link in links):
            extra = CloseProof(
                agent=plan.agent_id,
                credential_policy=config.credential_policy,
                credential=await plan.fetch_credential(),
            ).to_extra()
        frames = encode_graceful_close([link.local_address for link in links], config.cluster, extra)
        for frame in frames:
            # One frame for each connection: MOSN decodes a second one only when more bytes follow.
            connecting: Deferred[Any] = self._endpoint.connect(CallableFactory(_Aside))
            aside = await connecting
            await aside.tell(frame)
