"""Hosts that this process dials."""

from __future__ import annotations

__all__ = ["StaticHost"]

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.python.failure import Failure

from reverseproxy.cluster.hosts.base import Host
from reverseproxy.errors import ConnectionUnavailable, HostGone
from reverseproxy.metrics import UNCOUNTED
from reverseproxy.net.lenient_timeouts import add_lenient_timeout

if TYPE_CHECKING:
    from reverseproxy.config.models import HostConfig
    from reverseproxy.metrics import Counters


class StaticHost(Host):
    """A host that this process dials."""

    __slots__ = (
        "_check_endpoint",
        "_clock",
        "_connect_timeout",
        "_endpoint",
        "_introduce",
        "counters",
        "sends_proxy_header",
    )

    counters: Counters

    def __init__(
        self,
        config: HostConfig,
        endpoint: IStreamClientEndpoint,
        clock: IReactorTime,
        connect_timeout: float = 10.0,
        *,
        address: str = "",
        check_endpoint: IStreamClientEndpoint | None = None,
        introduce: Callable[[bytes], IStreamClientEndpoint] | None = None,
        sends_proxy_header: bool = False,
    ) -> None:
        """
        @param endpoint: dials the host, with TLS if it is to be used.
        @param connect_timeout: seconds for a connection to be made, TLS
            included.
        @param address: one address of the host, if the configuration has a name
            that may have several.
        @param check_endpoint: dials the host for its health checks, if these go
            to another port.
        @param introduce: given the PROXY protocol header, makes the endpoint that begins with it.
        @param sends_proxy_header: see L{Host}; then C{endpoint} names no client.
        """
        super().__init__(address or config.address, config.hostname, config.weight, config.metadata)
        self.counters = UNCOUNTED
        self._endpoint = endpoint
        self._check_endpoint = endpoint if check_endpoint is None else check_endpoint
        self._clock = clock
        self._connect_timeout = connect_timeout
        self._introduce = introduce
        self.sends_proxy_header = sends_proxy_header

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Dial the host.

        @return: fails with L{ConnectionUnavailable} at the deadline, with
            L{HostGone} if the host was closed, or with the endpoint's error.
        """
        return self._dial(self._endpoint, factory)

    def connect_for(self, header: bytes, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """See L{Host.connect_for}."""
        assert self._introduce is not None
        return self._dial(self._introduce(header), factory)

    def can_send_proxy_header(self) -> bool:
        """See L{Host.can_send_proxy_header}."""
        return self._introduce is not None

    def connect_check(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """Dial the port for health checks; otherwise as L{connect}."""
        return self._dial(self._check_endpoint, factory)

    def _dial(self, endpoint: IStreamClientEndpoint, factory: IProtocolFactory) -> Deferred[IProtocol]:
        if self.closed:
            return fail(HostGone(f"{self.address} is closed"))
        dial: Deferred[IProtocol] = endpoint.connect(factory)
        return add_lenient_timeout(dial, self._connect_timeout, self._clock, self._too_late)

    def _too_late(self, result: IProtocol | Failure, timeout: float) -> IProtocol | Failure:
        raise ConnectionUnavailable(f"{self.address} was not connected within {timeout:g} s")
