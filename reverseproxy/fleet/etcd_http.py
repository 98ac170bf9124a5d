"""HTTP requests to etcd's endpoints, with Twisted's HTTP client; its errors become L{EtcdError}."""

from __future__ import annotations

__all__ = ["DEAD_PEER", "KEPT", "Poster", "deliver", "read_answer"]

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.addresses import host_of
from reverseproxy.cluster.endpoints import make_endpoint
from reverseproxy.fleet.etcd_json import UNAVAILABLE, EtcdError, error_of, read_json
from reverseproxy.logs import loss
from reverseproxy.net.tcp_options import tune
from reverseproxy.tls import ClientTls

DEAD_PEER: Final = 8.0
"""Seconds without a TCP acknowledgement after which a connection is given up."""

KEPT: Final = 20.0
"""Seconds for which idle connections are kept."""


@implementer(IStreamClientEndpoint)
class _Tuned:
    """An endpoint whose connections detect a dead peer."""

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint

    def connect(self, factory: Any) -> Deferred[Any]:
        """Connect; see L{IStreamClientEndpoint}."""
        factory.noisy = False
        return self._endpoint.connect(factory).addCallback(self._connected)

    def _connected(self, protocol: Any) -> Any:
        tune(protocol.transport, DEAD_PEER)
        return protocol


class _Endpoints:
    """
    The endpoint factory for L{twisted.web.client.Agent}.

    In URLs, each endpoint has its index as its host name: treq would look up a name, and can't represent
    every address.
    """

    def __init__(self, reactor: Any, addresses: Sequence[str], timeout: float, tls: ClientTls | None) -> None:
        self._reactor = reactor
        self._addresses = addresses
        self._timeout = timeout
        self._tls = tls

    def endpointForURI(self, uri: Any) -> IStreamClientEndpoint:  # noqa: N802
        """Return the endpoint for a URL; see C{IAgentEndpointFactory}."""
        address = self._addresses[int(uri.host.removeprefix(b"endpoint-"))]
        tls = None if self._tls is None else self._tls.named(host_of(address))
        return _Tuned(make_endpoint(self._reactor, address, self._timeout, tls))


class _Body(Protocol):
    """The protocol that receives a response body."""

    def __init__(self, took: Callable[[bytes], object]) -> None:
        self.done: Deferred[None] = Deferred(self._cancelled)
        self._took = took
        self._ended = False

    def dataReceived(self, data: bytes) -> None:
        """Pass data to the callback; end with whatever it raises."""
        if self._ended:
            return
        try:
            self._took(data)
        except Exception:
            self._end(Failure())
            self._abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Complete at the end of the body, or fail if the connection was lost before."""
        from twisted.web.client import ResponseDone
        from twisted.web.http import PotentialDataLoss

        whole = reason.check(ResponseDone, PotentialDataLoss) is not None
        self._end(None if whole else reason)

    def _end(self, result: Any) -> None:
        if not self._ended:
            self._ended = True
            self.done.callback(result)

    def _cancelled(self, _: Deferred[None]) -> None:
        self._ended = True
        self._abort()

    def _abort(self) -> None:
        # Closing the connection is the only way to cancel a stream of the gateway.
        if self.transport is not None:
            self.transport.loseConnection()


class Poster:
    """Sends POST requests to endpoints, over persistent connections."""

    def __init__(self, reactor: Any, endpoints: Sequence[str], timeout: float, tls: ClientTls | None) -> None:
        """
        @param endpoints: addresses, each C{host:port}.
        @param timeout: seconds to connect to one.
        @param tls: for all of them; L{None} for plaintext.
        """
        self._reactor = reactor
        self._endpoints = endpoints
        self._timeout = timeout
        self._tls = tls
        self._agent: Any = None
        self._pool: Any = None

    async def post(self, endpoint: str, path: str, body: Mapping[str, Any], token: str | None) -> Any:
        """
        Send a request.

        @param endpoint: one of the addresses.
        @param path: of the API, behind C{/v3/}.
        @param token: for the C{Authorization} field; L{None} for none.
        @return: the response, whose body is still to be read; see L{deliver}.
        @raise EtcdError: if it can't be sent, or no response comes.
        """
        headers = {"Content-Type": "application/json", "Host": endpoint}
        if token is not None:
            headers["Authorization"] = token
        if path == "watch":
            # With this field, a member without a leader ends the watch with an error instead of staying
            # silent.
            headers["Grpc-Metadata-Hasleader"] = "true"
        scheme = "http" if self._tls is None else "https"
        url = f"{scheme}://endpoint-{self._endpoints.index(endpoint)}/v3/{path}"
        data = json.dumps(body, separators=(",", ":")).encode("ascii")
        try:
            return await self._client().post(url, data=data, headers=headers, unbuffered=True)
        except Exception:
            raise _error(Failure()) from None

    def _client(self) -> Any:
        if self._agent is None:
            # These imports load all of Twisted's web client: only a server in a fleet needs it.
            from treq.client import HTTPClient
            from twisted.web.client import Agent, HTTPConnectionPool

            self._pool = HTTPConnectionPool(self._reactor, persistent=True)
            self._pool.cachedConnectionTimeout = KEPT
            self._pool.maxPersistentPerHost = 2
            endpoints = _Endpoints(self._reactor, self._endpoints, self._timeout, self._tls)
            agent = Agent.usingEndpointFactory(self._reactor, endpoints, pool=self._pool)
            self._agent = HTTPClient(agent)
        return self._agent

    def close(self) -> Deferred[None]:
        """Close idle connections."""
        if self._pool is None:
            return succeed(None)
        pool, self._pool, self._agent = self._pool, None, None
        closed: Deferred[None] = pool.closeCachedConnections()
        return closed


async def deliver(response: Any, took: Callable[[bytes], object]) -> None:
    """
    Read a response body, and pass it to a callback.

    @raise EtcdError: if the connection is lost before its end.
    """
    body = _Body(took)
    response.deliverBody(body)
    try:
        await body.done
    except EtcdError:
        raise
    except Exception:
        raise _error(Failure()) from None


def read_answer(status: int, body: bytes) -> Mapping[str, Any]:
    """
    Parse the response to a request.

    @param status: of HTTP.
    @raise EtcdError: if it reports an error, or is malformed.
    """
    try:
        # Responses of streaming methods may have several lines; those that are used here have one.
        answer = read_json(body.partition(b"\n")[0])
    except EtcdError:
        if status != 200:
            raise EtcdError(f"etcd answers with status {status}") from None
        raise
    error = error_of(answer)
    if error is not None:
        raise error
    if status != 200:
        raise EtcdError(f"etcd answers with status {status}", UNAVAILABLE if status >= 500 else 3)
    return answer


def _error(failure: Failure) -> Exception:
    """
    Convert an exception of Twisted's HTTP client.

    @return: L{CancelledError} if the request was cancelled; otherwise an L{EtcdError} with the reason.
    """
    reasons = getattr(failure.value, "reasons", None)
    if reasons:
        failure = reasons[0]
    if failure.check(CancelledError, ConnectingCancelledError):
        return CancelledError()
    return EtcdError(loss(failure))
