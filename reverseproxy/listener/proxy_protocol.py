"""
PROXY protocol: a header of a load balancer that names the client of a connection.

The header is read and removed before any other protocol sees the connection.  Only trusted
peers may send one, and they have to: the specification forbids to guess.  Data of other
peers is never taken for a header.
"""

from __future__ import annotations

__all__ = ["HeaderReader", "ProxiedAddress", "ProxyHeaderError", "proxied_factory", "trusting"]

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress, IProtocolFactory
from twisted.internet.protocol import connectionDone
from twisted.protocols.haproxy._exceptions import InvalidProxyHeader
from twisted.protocols.haproxy._v1parser import V1Parser
from twisted.protocols.haproxy._v2parser import V2Parser
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.config.networks import EVERYBODY, networks_of, unmapped
from reverseproxy.net.lenient_timeouts import LenientTimeout
from reverseproxy.transport.delegation import DelegatingFactory, FirstBytes
from reverseproxy.wire.proxy_protocol import SIGNATURE

HEADER_TIMEOUT: Final = 10.0
"""Seconds for the header of a trusted peer."""

MAX_LINE: Final = 107
"""Bytes of the longest header of version 1, with its end, by the specification."""

MAX_HEADER: Final = 4096
"""Bytes of the longest header of version 2 that is taken; it may have any number of further facts."""

_LINE: Final = b"PROXY "


class ProxyHeaderError(Exception):
    """What a trusted peer has sent is no header; the message says why."""


@implementer(IAddress)
@dataclass(frozen=True, slots=True)
class ProxiedAddress:
    """
    Who is at the ends of a connection, as a load balancer says.

    @ivar source: the client.
    @ivar destination: where it has connected to.
    @ivar by: the load balancer.
    """

    source: IPv4Address | IPv6Address | UNIXAddress
    destination: IPv4Address | IPv6Address | UNIXAddress
    by: Any


class HeaderReader:
    """Takes a header off the beginning of what comes; pure."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> tuple[Any, Any, bytes] | None:
        """
        Take in what has come.

        @return: once the header is complete: the client, where it has connected to, and what comes
            behind the header; L{None} for both if the header does not say.  Until then, L{None}.
        @raise ProxyHeaderError: if it is none.
        """
        self._data += data
        start = self._data[: len(SIGNATURE)]
        if SIGNATURE.startswith(start):
            size = self._binary_size()
        elif start.startswith(_LINE[: len(start)]):
            size = self._line_size()
        else:
            raise ProxyHeaderError("it does not begin with a PROXY protocol header")
        if size is None:
            return None
        header, rest = self._data[:size], self._data[size:]
        self._data = b""
        source, destination = _parse(header)
        return source, destination, rest

    def _binary_size(self) -> int | None:
        """Return the size of a header of version 2; L{None} while it is incomplete."""
        if len(self._data) < 16:
            return None
        size = 16 + int.from_bytes(self._data[14:16], "big")
        if size > MAX_HEADER:
            raise ProxyHeaderError(f"its PROXY protocol header has {size} bytes, more than {MAX_HEADER}")
        return size if len(self._data) >= size else None

    def _line_size(self) -> int | None:
        """Return the size of a header of version 1; L{None} while it is incomplete."""
        end = self._data.find(b"\r\n", 0, MAX_LINE)
        if end < 0 and len(self._data) >= MAX_LINE:
            raise ProxyHeaderError("its PROXY protocol header has no end")
        return None if end < 0 else end + 2


def _parse(header: bytes) -> tuple[Any, Any]:
    """
    Parse a complete header.

    @raise ProxyHeaderError: if it is invalid.
    """
    try:
        if header.startswith(SIGNATURE):
            info = V2Parser.parse(header)
        else:
            line = header[:-2]
            if line == b"PROXY UNKNOWN":
                return None, None
            info = V1Parser.parse(line)
            if info.source is not None and len(line.split(b" ")) != 6:
                raise ValueError("too many words")
        if info.source is None or info.destination is None:
            return None, None
        source, destination = _checked(info.source), _checked(info.destination)
    except (InvalidProxyHeader, ValueError, KeyError, UnicodeDecodeError) as error:
        why = str(error) or type(error).__name__
        raise ProxyHeaderError(f"its PROXY protocol header can't be read: {why}") from None
    return source, destination


def _checked(end: Any) -> Any:
    """
    Validate an address, which Twisted's parser of version 1 does not, and normalize it.

    @raise ValueError: if it is invalid.
    """
    if isinstance(end, UNIXAddress):
        return end
    if end.type != "TCP":
        raise ValueError(f"it is of {end.type}")
    if not 0 <= end.port <= 65535:
        raise ValueError(f"there is no port {end.port}")
    version = 6 if isinstance(end, IPv6Address) else 4
    address = ip_address(end.host)
    if address.version != version:
        raise ValueError(f"{end.host} is no address of IPv{version}")
    return type(end)("TCP", str(address), end.port)


class _HeaderProtocol(FirstBytes):
    """The protocol of a connection until its header is complete."""

    _deadline: LenientTimeout | None = None

    def __init__(self, factory: _HeaderFactory, address: IAddress | None) -> None:
        self._factory = factory
        self._address = address
        self._reader = HeaderReader()

    def connectionMade(self) -> None:
        """Wait for a header, if the peer is trusted."""
        factory = self._factory
        if factory.trusts(self.transport.getPeer()):
            self._deadline = LenientTimeout(factory.clock, HEADER_TIMEOUT, self._late)
        else:
            self.begin(factory.wrapped, self._address, b"")

    def received(self, data: bytes) -> None:
        """Parse a part of the header."""
        try:
            found = self._reader.feed(data)
        except ProxyHeaderError as error:
            self._refuse(str(error))
            return
        if found is not None:
            source, destination, rest = found
            address = self._address
            if source is not None:
                address = ProxiedAddress(source, destination, self.transport.getPeer())
            self._stop_waiting()
            self.begin(self._factory.wrapped, address, rest)

    def _late(self) -> None:
        self._deadline = None
        self._refuse(f"no PROXY protocol header has come within {HEADER_TIMEOUT:g} s")

    def _refuse(self, reason: str) -> None:
        self._stop_waiting()
        self._factory.refused(self.transport.getPeer(), reason)
        self.transport.abortConnection()

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Report the loss to the next protocol, if there is one."""
        self._stop_waiting()
        super().connectionLost(reason)


class _HeaderFactory(DelegatingFactory):
    def __init__(
        self,
        wrapped: IProtocolFactory,
        trusts: Callable[[IAddress], bool],
        clock: Any,
        refused: Callable[[IAddress, str], object],
    ) -> None:
        super().__init__(wrapped)
        self.wrapped = wrapped
        self.trusts = trusts
        self.clock = clock
        self.refused = refused

    def buildProtocol(self, addr: IAddress | None) -> _HeaderProtocol:
        return _HeaderProtocol(self, addr)


def trusting(proxies: Iterable[str]) -> Callable[[IAddress], bool]:
    """
    Return a predicate for peers that send headers.

    @param proxies: their addresses and networks, from the configuration.
    """
    listed = list(proxies)
    everybody = EVERYBODY in listed
    networks = networks_of(each for each in listed if each != EVERYBODY)

    def trusts(peer: IAddress) -> bool:
        host = getattr(peer, "host", None)
        # The file system decides who may connect to a Unix socket.
        return everybody or host is None or any(unmapped(host) in network for network in networks)

    return trusts


def proxied_factory(
    wrapped: IProtocolFactory,
    trusts: Callable[[IAddress], bool],
    clock: Any,
    refused: Callable[[IAddress, str], object],
) -> IProtocolFactory:
    """
    Wrap a factory, so that headers are removed from its connections.

    @param wrapped: its C{buildProtocol} is given a L{ProxiedAddress} if the header names the client.
    @param trusts: returns whether a peer sends headers.
    @param refused: called with a trusted peer that has sent no valid header, and the reason.
    """
    return _HeaderFactory(wrapped, trusts, clock, refused)
