"""Health checks by requests of HTTP/1."""

from __future__ import annotations

__all__ = ["HttpChecker"]

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.addresses import is_unix
from reverseproxy.cluster.endpoints import CallableFactory
from reverseproxy.cluster.handover import IDetachable
from reverseproxy.cluster.health.checks import IHealthChecker
from reverseproxy.cluster.health.probes import CheckFailed, Probe
from reverseproxy.cluster.host import Host, ReverseHost
from reverseproxy.cluster.message_limits import response_limits
from reverseproxy.errors import HttpError
from reverseproxy.wire.http.message import End
from reverseproxy.wire.http1.heads import ResponseHead
from reverseproxy.wire.http1.responses import ResponseParser

if TYPE_CHECKING:
    from reverseproxy.config.models import HttpCheckConfig

_SAFE: Final = "/?&=%:@!$'()*+,;~-._"
"""Characters that are not escaped in the path of a request."""


_HTTP1: Final = "Http1"
"""The name of the protocol in L{Host.pools}."""


@implementer(IDetachable)
class _HttpProbe(Probe):
    """One HTTP request for a health check, and its response."""

    def __init__(
        self,
        request: bytes,
        head_request: bool,
        judge: Callable[[int], bool],
        keep: bool,
        limits: tuple[int, int],
    ) -> None:
        """
        @param judge: returns whether a status passes the check.
        @param keep: whether to keep the connection open, and so read the whole response.
        @param limits: as L{response_limits} returns them.
        """
        super().__init__()
        self._request = request
        self._judge = judge
        self._keep = keep
        self._parser = ResponseParser(*limits)
        self._parser.expect(head_request)
        self._head: ResponseHead | None = None
        self._reusable = False

    def connectionMade(self) -> None:
        """Send the request."""
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        """Parse a part of the response."""
        self._take(self._parser.feed(data))

    def _take(self, events: list[Any]) -> None:
        for event in events:
            if self._over:
                return
            if isinstance(event, HttpError):
                self.end(CheckFailed(str(event)))
            elif isinstance(event, End):
                self._conclude()
            elif isinstance(event, ResponseHead) and event.status >= 200:
                self._head = event
                if not self._keep:
                    self._conclude()

    def _conclude(self) -> None:
        head = self._head
        assert head is not None
        self._reusable = self._keep and head.keep_alive and not self._parser.surplus
        if self._judge(head.status):
            self.end(None)
        else:
            self.end(CheckFailed(f"it has answered {head.status}"))

    def detach(self) -> bool:
        """See L{IDetachable}."""
        return self._reusable

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End the check: the loss of the connection may be the end of the response."""
        if not self._over:
            self._keep = False  # the connection is lost
            self._take(self._parser.eof())
        self._parser.close()


@implementer(IHealthChecker)
class HttpChecker:
    """
    A health check that passes if the host responds to a request with an expected status.

    A reverse host is checked over its connection, which stays open if the response allows.
    It is not checked if the connection is used for another protocol, or if the check is
    for another port.
    """

    def __init__(self, config: HttpCheckConfig | None = None) -> None:
        """
        @param config: the request, and the statuses that pass; by default C{GET /}, and all
            below 500.
        """
        method, path, domain = "GET", "/", ""
        self._other_port = config is not None and config.port > 0
        self._good: list[tuple[int, int]] = [(200, 499)]
        if config is not None:
            method = config.method or method
            path = "/" + config.path.lstrip("/")
            domain = config.domain
            self._good = [(code.start, code.end) for code in config.codes] or [(200, 200)]
        self._head_request = method == "HEAD"
        self._line = f"{method} {quote(path, safe=_SAFE)} HTTP/1.1"
        self._domain = domain

    def wants(self, host: Host) -> bool:
        """See L{IHealthChecker}."""
        if not host.is_reverse:
            return True
        if self._other_port or (host.is_remote and (host.exclusive or host.committed_protocol)):
            return False  # its single connection is in another worker
        return not host.exclusive or not host.pools or _HTTP1 in host.pools

    def check(self, host: Host) -> Deferred[None]:
        """See L{IHealthChecker}."""
        keep = host.exclusive
        probe = _HttpProbe(
            self._request(host, keep), self._head_request, self._is_good, keep, response_limits(host)
        )
        asked: Deferred[Any] = host.connect_check(CallableFactory(lambda: probe))
        asked.addCallback(lambda _: probe.verdict)
        if isinstance(host, ReverseHost):
            # The agent's listener has detected HTTP/1 by this request, and expects it from now on.
            host.committed_protocol = _HTTP1
            asked.addBoth(self._give_back, host)
        return asked

    def _give_back(self, result: object, host: ReverseHost) -> object:
        if not host.take_back():
            host.close("its connection can't be used after a health check")
        return result

    def _is_good(self, status: int) -> bool:
        return any(first <= status <= last for first, last in self._good)

    def _request(self, host: Host, keep: bool) -> bytes:
        name = self._domain or ("localhost" if is_unix(host.address) else host.address)
        connection = "keep-alive" if keep else "close"
        lines = (self._line, f"Host: {name}", "User-Agent: reverseproxy", f"Connection: {connection}", "", "")
        return "\r\n".join(lines).encode("ascii", "replace")
