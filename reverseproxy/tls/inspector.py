"""
Plaintext and TLS on one port, told apart by the first byte.

A TLS connection begins with 0x16, the type of a handshake record; nothing that
is served here in plaintext does.
"""

from __future__ import annotations

__all__ = ["inspect_factory"]

from typing import Final

from twisted.internet.interfaces import IAddress, IProtocolFactory

from reverseproxy.transport.delegation import DelegatingFactory, FirstBytes

_HANDSHAKE: Final = b"\x16"


class _Inspector(FirstBytes):
    """A connection on which nothing has arrived yet."""

    def __init__(self, factory: _InspectorFactory, address: IAddress | None) -> None:
        self._factory = factory
        self._address = address

    def received(self, data: bytes) -> None:
        factory = self._factory.secure if data[:1] == _HANDSHAKE else self._factory.plain
        self.begin(factory, self._address, data)


class _InspectorFactory(DelegatingFactory):
    def __init__(self, plain: IProtocolFactory, secure: IProtocolFactory) -> None:
        super().__init__(plain, secure)
        self.plain = plain
        self.secure = secure

    def buildProtocol(self, addr: IAddress | None) -> _Inspector:
        return _Inspector(self, addr)


def inspect_factory(plain_factory: IProtocolFactory, tls_factory: IProtocolFactory) -> IProtocolFactory:
    """
    Take TLS and plaintext on one port.

    A protocol is built and connected when the first byte has arrived; what was
    read with it is delivered right after C{connectionMade}, even to a protocol
    that pauses its transport there.  From then on the transport calls the protocol itself.

    A connection may stay silent for ever, at almost no cost: the aside connection
    of a MOSN agent sends its first byte when the agent stops (docs/mosn.rst 2.6).  The
    deadline of a TLS handshake (see L{reverseproxy.tls.wrap_server}) begins at its first byte.

    @param tls_factory: from L{reverseproxy.tls.wrap_server}.
    """
    return _InspectorFactory(plain_factory, tls_factory)
