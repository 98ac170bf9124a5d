"""Make Twisted's client endpoints from address strings."""

from __future__ import annotations

__all__ = ["CallableFactory", "make_endpoint"]

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
)
from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from zope.interface import implementer

from reverseproxy.addresses import is_unix, split_host_port
from reverseproxy.tls import ClientTls, client_endpoint
from reverseproxy.transport.delegation import build_protocol


class CallableFactory(Factory):
    """A factory that calls a function to build each protocol, and does not log its start and stop."""

    noisy = False

    def __init__(self, make: Callable[[], IProtocol]) -> None:
        self._make = make

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Build the protocol of one connection."""
        return self._make()


class _PrefacedFactory(Factory):
    """Wraps a factory so that each connection begins with given bytes."""

    noisy = False

    def __init__(self, factory: IProtocolFactory, preface: bytes) -> None:
        self._factory = factory
        self._preface = preface

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Build the protocol of one connection."""
        protocol: Any = build_protocol(self._factory, addr)
        if protocol is not None:
            protocol.makeConnection = partial(self._begin, protocol)
        return protocol

    def _begin(self, protocol: Any, transport: Any) -> None:
        del protocol.makeConnection
        transport.write(self._preface)
        protocol.makeConnection(transport)


@implementer(IStreamClientEndpoint)
class _PrefacedEndpoint:
    """Wraps an endpoint so that each connection begins with given bytes."""

    def __init__(self, endpoint: IStreamClientEndpoint, preface: bytes) -> None:
        self._endpoint = endpoint
        self._preface = preface

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """See L{IStreamClientEndpoint}."""
        connected: Deferred[IProtocol] = self._endpoint.connect(_PrefacedFactory(factory, self._preface))
        return connected


def make_endpoint(
    reactor: Any,
    address: str,
    timeout: float,
    tls: ClientTls | None = None,
    *,
    allow_fall_back: bool = False,
    preface: bytes = b"",
) -> IStreamClientEndpoint:
    """
    Make the endpoint that dials an address.

    @param address: C{ip:port}, C{[v6]:port}, C{name:port} or C{unix:/path}.
    @param timeout: seconds for the connection to be made.
    @param allow_fall_back: whether C{fall_back} of the TLS context is applied; see
        L{client_endpoint}.
    @param preface: bytes that each connection begins with, before TLS.
    @raise ValueError: if there is no port.
    """
    endpoint: IStreamClientEndpoint
    if is_unix(address):
        endpoint = UNIXClientEndpoint(reactor, address.removeprefix("unix:"), timeout=timeout)
    else:
        host, port = split_host_port(address)
        if isIPAddress(host):
            endpoint = TCP4ClientEndpoint(reactor, host, port, timeout=timeout)
        elif isIPv6Address(host):
            endpoint = TCP6ClientEndpoint(reactor, host, port, timeout=timeout)
        else:
            endpoint = HostnameEndpoint(reactor, host, port, timeout=timeout)
    if preface:
        endpoint = _PrefacedEndpoint(endpoint, preface)
    return endpoint if tls is None else client_endpoint(endpoint, tls, allow_fall_back=allow_fall_back)
