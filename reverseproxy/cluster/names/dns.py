"""
A DNS client that queries name servers directly.

The system's resolver neither returns the time to live of addresses, nor can it use
other servers than the system's own.

The messages and their protocols are Twisted's (L{twisted.names.dns}).  Its resolver
(L{twisted.names.client.Resolver}) is not used: it supports neither C{ndots} nor search
domains, and accepts answers from any address (until 26.10).
"""

from __future__ import annotations

__all__ = ["DnsClient", "NotResolved"]

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address as IPv6
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred, gatherResults, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, connectProtocol
from twisted.internet.interfaces import IAddress, IHostnameResolver, IHostResolution, IResolutionReceiver
from twisted.logger import Logger
from twisted.names import dns
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.cluster.names.dns_settings import DnsSettings
from reverseproxy.errors import ReverseProxyError
from reverseproxy.net.resolver import MAX_ADDRESSES, IAnswerReceiver

if TYPE_CHECKING:
    pass

log = Logger()


SOCKET_LIFE: Final = 300.0
"""
Seconds for which a socket for queries is used.

An attacker can forge an answer by guessing the port and the query's number, so the
port must not stay the same for ever.
"""


class NotResolved(ReverseProxyError):
    """A name could not be resolved."""


class _Controller:
    """The controller that Twisted's DNS protocols call."""

    def messageReceived(self, *message: object) -> None:
        """Drop an answer to a query that has timed out."""

    def connectionMade(self, protocol: object) -> None:
        """Do nothing: the caller has the protocol from its endpoint."""

    def connectionLost(self, protocol: object) -> None:
        """Do nothing: pending queries time out."""


class _Datagrams(dns.DNSDatagramProtocol):
    """
    A DNS protocol over UDP that accepts an answer only from the server that was queried.

    Twisted checks that from 26.10 on, by the text of the address, which for some addresses
    of IPv6 differs between a query and its answer.
    """

    def __init__(self, reactor: Any) -> None:
        dns.DNSDatagramProtocol.__init__(self, _Controller(), reactor=reactor)
        self._asked: dict[int, tuple[str, int]] = {}

    def writeMessage(self, message: dns.Message, address: tuple[str, int]) -> None:  # noqa: N802 - Twisted's name
        """Send a query, and remember its server."""
        live = self.liveMessages
        if len(self._asked) > 2 * len(live) + 16:
            self._asked = {number: asked for number, asked in self._asked.items() if number in live}
        self._asked[message.id] = address
        super().writeMessage(message, address)

    def datagramReceived(self, data: bytes, addr: tuple[str, int]) -> None:
        """Receive an answer, and drop it if it is not from the queried server."""
        asked = self._asked.get(int.from_bytes(data[:2], "big"))
        if asked is None or _comparable(asked) != _comparable(addr):
            log.debug("an answer from {address} to nothing that it was asked is dropped", address=addr)
            return
        super().datagramReceived(data, asked)


def _comparable(address: tuple[str, int]) -> tuple[object, int]:
    # The address of a query may have an interface, but that of an answer does not.
    return ip_address(address[0].partition("%")[0]), address[1]


@dataclass(slots=True)
class _Socket:
    """
    A socket for queries.

    @ivar until: when it is to be replaced, in the clock's seconds.
    """

    protocol: dns.DNSDatagramProtocol
    port: Any
    until: float


@implementer(IHostResolution)
class _Resolution:
    """A lookup in progress."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.answer: Deferred[None] | None = None

    def cancel(self) -> None:
        """Cancel the lookup; nothing more is reported."""
        if self.answer is not None:
            self.answer.cancel()


@implementer(IHostnameResolver)
class DnsClient:
    """
    Resolves names by given servers.

    The servers are queried one after the other, until one answers.
    """

    def __init__(self, settings: DnsSettings, reactor: Any) -> None:
        self._settings = settings
        self._reactor = reactor
        self._sockets: dict[bool, _Socket] = {}
        """The sockets, by whether they are for IPv6."""

    def stop(self) -> Deferred[Any]:
        """
        Close the sockets; pending queries fail at their timeout.

        @return: fires when they are closed.
        """
        sockets, self._sockets = self._sockets, {}
        return gatherResults([maybeDeferred(each.port.stopListening) for each in sockets.values()])

    def resolveHostName(  # noqa: N802
        self,
        resolutionReceiver: IResolutionReceiver,  # noqa: N803
        hostName: str,  # noqa: N803
        portNumber: int = 0,  # noqa: N803
        addressTypes: Sequence[type[IAddress]] | None = None,  # noqa: N803
        transportSemantics: str = "TCP",  # noqa: N803
    ) -> IHostResolution:
        """See L{IHostnameResolver}; an L{IAnswerReceiver} gets the time to live, too."""
        resolution = _Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        types = addressTypes or (IPv4Address, IPv6Address)
        kinds = [
            kind for kind, address in ((dns.A, IPv4Address), (dns.AAAA, IPv6Address)) if address in types
        ]
        resolution.answer = Deferred.fromCoroutine(
            self._answer(resolutionReceiver, hostName, kinds, portNumber)
        )
        resolution.answer.addErrback(self._failed, resolutionReceiver)
        return resolution

    def records(self, name: str, kind: int) -> Deferred[list[Any]]:
        """
        Query all records of a type that a name has.

        @param name: fully qualified: search domains are not used.
        @return: records of L{twisted.names.dns}; empty if there is no such name.  Fails with
            L{NotResolved} if no server answers.
        """
        return Deferred.fromCoroutine(self._records(name, kind))

    async def _records(self, name: str, kind: int) -> list[Any]:
        message = await self._ask(name.removesuffix("."), kind)
        return [record for record in message.answers if record.type == kind]

    def _failed(self, reason: Failure, receiver: IResolutionReceiver) -> None:
        if reason.check(CancelledError):
            return
        if not reason.check(NotResolved):
            log.failure("a lookup failed in an unexpected way", reason)
        more = IAnswerReceiver(receiver, None)
        if more is not None:
            more.failed(reason.getErrorMessage())
        receiver.resolutionComplete()

    async def _answer(
        self, receiver: IResolutionReceiver, name: str, kinds: Sequence[int], port: int
    ) -> None:
        """Report all addresses of the first candidate name that has any."""
        reason = "it has no address"
        for candidate in self._settings.candidates(name):
            records: list[Any] = []
            for kind in kinds:
                message = await self._ask(candidate, kind)
                if message.rCode == dns.ENAME:
                    reason = f"there is no name {candidate}"
                    break
                records += message.answers
            if self._report(receiver, records, kinds, port):
                return
        raise NotResolved(reason)

    def _report(
        self, receiver: IResolutionReceiver, records: Iterable[Any], kinds: Sequence[int], port: int
    ) -> bool:
        found = [record for record in records if record.type in kinds][:MAX_ADDRESSES]
        if not found:
            return False
        for record in found:
            if record.type == dns.A:
                receiver.addressResolved(IPv4Address("TCP", record.payload.dottedQuad(), port))
            else:
                receiver.addressResolved(IPv6Address("TCP", str(IPv6(record.payload.address)), port))
        more = IAnswerReceiver(receiver, None)
        if more is not None:
            more.lifetime(float(min(record.ttl for record in found)))
        receiver.resolutionComplete()
        return True

    async def _ask(self, name: str, kind: int) -> Any:
        """
        Query the servers, until one answers.

        @return: the answer, which may be that there is no such name.
        @raise NotResolved: if none answers.
        """
        try:
            query = dns.Query(name, kind)
        except UnicodeError:
            raise NotResolved(f"{name!r} is no name of a host") from None
        reason = ""
        for _ in range(self._settings.attempts):
            for server in self._settings.servers:
                try:
                    message = await self._query(server, query)
                    if message.trunc:
                        message = await self._query_tcp(server, query)
                except CancelledError:
                    raise
                except Exception as error:
                    reason = f"{server[0]} has not answered: {type(error).__name__} {error}"
                    continue
                if message.rCode in (dns.OK, dns.ENAME):
                    return message
                reason = f"{server[0]} has answered with the error {message.rCode}"
        raise NotResolved(reason)

    def _query(self, server: tuple[str, int], query: dns.Query) -> Deferred[Any]:
        socket = self._socket(":" in server[0])
        return socket.protocol.query(server, [query], self._settings.timeout)

    def _socket(self, v6: bool) -> _Socket:
        now = self._reactor.seconds()
        socket = self._sockets.get(v6)
        if socket is not None and (socket.until > now or socket.protocol.liveMessages):
            return socket
        if socket is not None:
            maybeDeferred(socket.port.stopListening)
        protocol = _Datagrams(self._reactor)
        port = self._reactor.listenUDP(0, protocol, interface="::" if v6 else "")
        socket = self._sockets[v6] = _Socket(protocol, port, now + SOCKET_LIFE)
        return socket

    async def _query_tcp(self, server: tuple[str, int], query: dns.Query) -> Any:
        """Query by TCP, after an answer that did not fit into a datagram."""
        timeout = self._settings.timeout
        make = TCP6ClientEndpoint if ":" in server[0] else TCP4ClientEndpoint
        protocol = await connectProtocol(
            make(self._reactor, *server, timeout=timeout),
            dns.DNSProtocol(_Controller(), reactor=self._reactor),
        )
        try:
            return await protocol.query([query], timeout)
        finally:
            protocol.transport.loseConnection()
