"""
Health checks by heartbeats of RPC protocols.

A reverse host is asked over its connection, beside the requests that are under
way there.  Any other host is connected to for the question.
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
from reverseproxy.proxy.rpc.pool import make_rpc_pool
from reverseproxy.proxy.rpc.protocols import find_xprotocol
from reverseproxy.wire.rpc.xprotocol import Kind, RpcFrameDecoder, XProtocol

_NUMBER: Final = 1
"""The id of the only frame on a connection."""

_MAX_ANSWER: Final = 65536
"""The largest frame in bytes that an answer to a heartbeat may be."""


class _Probe(Probe):
    """One heartbeat, and its answer."""

    def __init__(self, protocol: XProtocol) -> None:
        super().__init__()
        self._protocol = protocol
        self._decoder = RpcFrameDecoder(protocol, _MAX_ANSWER)

    def connectionMade(self) -> None:
        """Ask."""
        self.transport.write(self._protocol.heartbeat(_NUMBER))

    def dataReceived(self, data: bytes) -> None:
        """Look for the answer; hosts may have questions of their own."""
        for frame in self._decoder.feed(data):
            if frame.kind in (Kind.HEARTBEAT_ACK, Kind.RESPONSE) and frame.id == _NUMBER:
                self.end(None)
                return
            if frame.kind is Kind.HEARTBEAT:
                self.transport.write(self._protocol.answer_heartbeat(frame))
        if self._decoder.error is not None:
            self.end(self._decoder.error)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Without an answer, if it has not come yet."""
        self.end(HostGone(f"no answer to a heartbeat: {loss(reason)}"))

    def end(self, error: Exception | None) -> None:
        """Say what came of it, once."""
        if not self._over:
            super().end(error)


@implementer(IHealthChecker)
class RpcChecker:
    """A host is well if it answers heartbeats."""

    def __init__(self, protocol: XProtocol, clock: IReactorTime) -> None:
        """
        @param protocol: must have heartbeats.
        """
        self._protocol = protocol
        self._clock = clock

    def wants(self, host: Host) -> bool:
        """
        See L{IHealthChecker}.

        A reverse host that speaks something else can't be asked, nor one whose
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
        pool = make_rpc_pool(self._protocol.name, self._protocol, host, self._clock, None)
        client = pool.take()
        if client is not None:
            return client.ask()
        asked = pool.connect()
        return asked.addCallback(RpcClient.ask)


def _verdict(probe: _Probe, connected: IProtocol) -> Deferred[None]:
    return probe.verdict


def rpc_checkers(clock: IReactorTime) -> Mapping[str, Callable[[HealthCheckConfig], IHealthChecker]]:
    """Say how to make the checkers of the RPC protocols that are built in."""

    def make(name: str, config: HealthCheckConfig) -> IHealthChecker:
        return RpcChecker(find_xprotocol(name), clock)

    return {name: partial(make, name) for name in ("bolt", "boltv2", "dubbo")}
