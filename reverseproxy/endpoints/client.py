"""
Connecting to a cluster of this process.

The cluster's balancer picks the host; an agent's host is reached through its tunnel.
The connection counts for the cluster's limits as one of C{tcp_proxy} does, and another
host is tried if the first one can't be reached.
"""

from __future__ import annotations

__all__ = ["ClusterEndpoint"]

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory, IStreamClientEndpoint
from zope.interface import implementer

from reverseproxy.cluster.directory import RUNNING, ClusterDirectory
from reverseproxy.cluster.health.outcome import Outcome
from reverseproxy.cluster.host import Host
from reverseproxy.cluster.manager import Cluster
from reverseproxy.endpoints.addresses import ClusterAddress
from reverseproxy.endpoints.lent import LentConnection, LentFactory
from reverseproxy.errors import PickFailed
from reverseproxy.interfaces import PickContext

MAX_ATTEMPTS = 3
"""Hosts tried for one connection at the most, as C{tcp_proxy} does."""


class _OneConnection(LentFactory):
    """
    Builds the protocol of a connection to a host, and gives the host back to its cluster at the end.

    @ivar built: the program's protocol; L{None} before it is built.
    @ivar refused: whether the program's factory has built none.
    """

    def __init__(self, factory: IProtocolFactory, cluster: Cluster, host: Host) -> None:
        super().__init__(factory, lambda _: self.give_back())
        self.built: IProtocol | None = None
        self.refused = False
        self._cluster = cluster
        self._host: Host | None = host
        host.connection_opened()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Build the protocol."""
        made: LentConnection | None = super().buildProtocol(addr)
        self.refused = made is None
        self.built = None if made is None else made.inner
        return made

    def give_back(self) -> None:
        """Give the host back: the connection is lost, or could not be made."""
        host, self._host = self._host, None
        if host is not None:
            host.connection_closed()
            self._cluster.release(host)


@implementer(IStreamClientEndpoint)
class ClusterEndpoint:
    """
    An endpoint that connects to a cluster of a L{ReverseProxy<reverseproxy.ReverseProxy>} in this process.

    @ivar address: the cluster.
    """

    def __init__(
        self, cluster: str, timeout: float | None = None, directory: ClusterDirectory = RUNNING
    ) -> None:
        """
        @param cluster: its name; it need not exist yet.
        @param timeout: seconds to wait for a host with room; L{None} for
            C{connect_timeout} of the cluster.
        @param directory: the clusters of this process.
        """
        self.address = ClusterAddress(cluster)
        self._timeout = timeout
        self._directory = directory

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:  # noqa: N803
        """
        Connect.

        @return: fires with the connected protocol; fails with
            L{ConnectError<twisted.internet.error.ConnectError>}.  May be cancelled.
        """
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        context = PickContext()
        most = 1
        attempt = 0
        while True:
            attempt += 1
            cluster, host = await self._take(context)
            most = max(most, min(MAX_ATTEMPTS, len(cluster.hosts)))
            one = _OneConnection(factory, cluster, host)
            try:
                await host.connect(one)
            except CancelledError:
                one.give_back()
                raise
            except Exception as error:
                one.give_back()
                if one.built is not None or one.refused:
                    raise  # the program's factory or protocol has failed
                cluster.report(host, Outcome.UNREACHABLE)
                cluster.exclude_agent(host, context)
                if attempt >= most:
                    raise ConnectError(
                        string=f"no host of {self.address} could be reached: {error or type(error).__name__}"
                    ) from error
            else:
                cluster.report(host, Outcome.CONNECTED)
                assert one.built is not None
                return one.built

    async def _take(self, context: PickContext) -> tuple[Cluster, Host]:
        """
        Take a host of the cluster.

        @raise ConnectError: if there is none.
        """
        try:
            cluster = self._directory.find(self.address.cluster)
            if not cluster.may_open():
                raise ConnectError(string=f"{self.address} has as many connections as it may have")
            timeout = cluster.config.connect_timeout if self._timeout is None else self._timeout
            return cluster, await cluster.wait(context, timeout)
        except PickFailed as error:
            raise ConnectError(string=str(error)) from error
