"""
Health checks by heartbeats of RPC protocols.

A reverse host is sent a heartbeat on its connection, beside the requests that are
under way there.  To any other host, a connection is made for each heartbeat.
"""

from __future__ import annotations

__all__ = ["RpcChecker", "rpc_checkers"]

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.cluster.endpoints import CallableFactory
from reverseproxy.cluster.health.checks import IHealthChecker
from reverseproxy.cluster.health.probes import Probe
from reverseproxy.cluster.host import Host
from reverseproxy.config.models import HealthCheckConfig
from reverseproxy.errors import HostGone
from reverseproxy.logs import loss
from reverseproxy.proxy.rpc.client import RpcClient
from reverseproxy.proxy.rpc.pool import rpc_pool_of
from reverseproxy.proxy.rpc.protocols import find_xprotocol
from reverseproxy.wire.rpc.xprotocol import Kind, RpcFrameDecoder, XProtocol

_NUMBER: Final = 1
"""The id of the only frame on a connection."""

_MAX_ANSWER: Final = 65536
"""The largest reply to a heartbeat in bytes."""


class _Probe(Probe):
    """A connection for one heartbeat and its reply."""

    def __init__(self, protocol: XProtocol) -> None:
        super().__init__()
        self._protocol = protocol
        self._decoder = RpcFrameDecoder(protocol, _MAX_ANSWER)

    def connectionMade(self) -> None:
        """Send the heartbeat."""
        self.transport.write(self._protocol.heartbeat(_NUMBER))

    def dataReceived(self, data: bytes) -> None:
        """Find the reply among the frames, and reply to the host's own heartbeats."""
        for frame in self._decoder.feed(data):
            if frame.kind in (Kind.HEARTBEAT_ACK, Kind.RESPONSE) and frame.id == _NUMBER:
                self.end(None)
                return
            if frame.kind is Kind.HEARTBEAT:
                self.transport.write(self._protocol.answer_heartbeat(frame))
        if self._decoder.error is not None:
            self.end(self._decoder.error)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail, if the reply has not come yet."""
        self.end(HostGone(f"no answer to a heartbeat: {loss(reason)}"))

    def end(self, error: Exception | None) -> None:
        """Report the result, once."""
        if not self._over:
            super().end(error)


@implementer(IHealthChecker)
class RpcChecker:
    """Health checks by heartbeats: a host is healthy if it replies."""

    def __init__(self, protocol: XProtocol, clock: IReactorTime) -> None:
        """
        @param protocol: must have heartbeats.
        """
        self._protocol = protocol
        self._clock = clock

    def wants(self, host: Host) -> bool:
        """
        See L{IHealthChecker}.

        A reverse host that speaks another protocol can't be checked, nor one whose
        only connection another worker has.
        """
        if not host.exclusive and not host.committed_protocol:
            return True
        if host.is_remote:
            return False
        name = self._protocol.name
        return (not host.pools or name in host.pools) and host.committed_protocol in ("", name)

    def check(self, host: Host) -> Deferred[None]:
        """See L{IHealthChecker}."""
        asked: Deferred[Any]
        if not host.exclusive:
            probe = _Probe(self._protocol)
            asked = host.connect_check(CallableFactory(lambda: probe))
            return asked.addCallback(partial(_verdict, probe))
        pool = rpc_pool_of(self._protocol.name, self._protocol, host, self._clock, None)
        client = pool.take()
        if client is not None:
            return client.ask()
        asked = pool.connect()
        return asked.addCallback(RpcClient.ask)


def _verdict(probe: _Probe, connected: IProtocol) -> Deferred[None]:
    return probe.verdict


def rpc_checkers(clock: IReactorTime) -> Mapping[str, Callable[[HealthCheckConfig], IHealthChecker]]:
    """Return the factories of the checkers of the built-in RPC protocols, by protocol."""

    def make(name: str, config: HealthCheckConfig) -> IHealthChecker:
        return RpcChecker(find_xprotocol(name), clock)

    return {name: partial(make, name) for name in ("bolt", "boltv2", "dubbo")}
