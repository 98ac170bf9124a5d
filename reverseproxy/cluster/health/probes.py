"""Health checks by TCP, and what all health checks have in common that send something."""

from __future__ import annotations

__all__ = ["CHECKERS", "CheckFailed", "Probe", "TcpChecker", "make_checker"]

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Protocol
from zope.interface import implementer

from reverseproxy.cluster.endpoints import CallableFactory
from reverseproxy.cluster.health.checks import IHealthChecker
from reverseproxy.cluster.host import Host
from reverseproxy.errors import ReverseProxyError

if TYPE_CHECKING:
    from reverseproxy.config.models import HealthCheckConfig


class CheckFailed(ReverseProxyError):
    """A host has failed its health check."""


@implementer(IHealthChecker)
class TcpChecker:
    """
    A health check that passes if the host can be connected to.

    Connects with the cluster's TLS, if it has any.  Reverse hosts are not checked: they are
    connected as long as they are members.
    """

    def wants(self, host: Host) -> bool:
        """See L{IHealthChecker}."""
        return not host.is_reverse

    def check(self, host: Host) -> Deferred[None]:
        """See L{IHealthChecker}."""
        probe = Protocol()
        return host.connect_check(CallableFactory(lambda: probe)).addCallback(self._connected, probe)

    def _connected(self, _: IProtocol, probe: Protocol) -> None:
        transport: Any = probe.transport
        transport.abortConnection()


class Probe(Protocol):
    """
    The base class of protocols that send a request for a health check, and read the response.

    @ivar verdict: fires when the check has passed, and fails if it has failed.
    """

    transport: Any
    _keep = False  # whether the connection stays open after the response

    def __init__(self) -> None:
        self.verdict: Deferred[None] = Deferred(self._cancelled)
        self._over = False

    def end(self, error: Exception | None) -> None:
        """End the check: it has passed, or failed with an error."""
        self._over = True
        if not self._keep:
            self.transport.abortConnection()
        if error is None:
            self.verdict.callback(None)
        else:
            self.verdict.errback(error)

    def _cancelled(self, verdict: Deferred[None]) -> None:
        self._over = True
        if not self._keep:
            self.transport.abortConnection()


def _tcp(config: HealthCheckConfig) -> IHealthChecker:
    return TcpChecker()


def _http1(config: HealthCheckConfig) -> IHealthChecker:
    # Clusters without such a check need no parser of HTTP.
    from reverseproxy.cluster.health.http_probes import HttpChecker

    return HttpChecker(config.check_config.http_check_config)


CHECKERS: Final[Mapping[str, Callable[[HealthCheckConfig], IHealthChecker]]] = MappingProxyType(
    {"TCP": _tcp, "Http1": _http1}
)
"""Make the checker of each protocol."""


def make_checker(
    config: HealthCheckConfig, more: Mapping[str, Callable[[HealthCheckConfig], IHealthChecker]] = CHECKERS
) -> IHealthChecker:
    """
    Make the checker that a configuration names.

    An unknown protocol is checked by TCP, as in MOSN.

    @param more: makers of checkers for further protocols, such as RPC; they take
        precedence.
    """
    make = more.get(config.protocol) or CHECKERS.get(config.protocol, _tcp)
    return make(config)
