"""What connections to hosts have in common, whatever they speak: a socket, and an account."""

from __future__ import annotations

__all__ = ["HostConnection", "next_number"]

from itertools import count
from typing import TYPE_CHECKING, Any, Protocol

from twisted.logger import Logger

from reverseproxy.limits.buffered_bytes import TRUSTED, BufferAccount
from reverseproxy.net.formatting import own_address
from reverseproxy.net.tcp_options import tune

if TYPE_CHECKING:
    from reverseproxy.cluster.host import Host

log = Logger()

next_number = count(1).__next__
"""Gives each connection to a host a number that no other one of this process has."""


class IPoolOfHost(Protocol):
    """
    What of a pool counts here.

    @ivar host: whose connections it has.
    @ivar exclusive: whether the host has but one connection, which is the host.
    """

    host: Host
    exclusive: bool


class HostConnection:
    """The part of a protocol that is one connection to a host, whatever it speaks."""

    transport: Any
    _pool: IPoolOfHost
    _local_address: str | None = None
    _number = 0

    # what a subclass does

    def _cut_off(self, reason: str) -> None:
        """End now; what is under way fails."""
        raise NotImplementedError

    # how it begins

    def _tune(self) -> None:
        """Tell the socket what all are told, unless it is an agent's, which has been told already."""
        if not self._pool.exclusive:
            tune(self.transport)

    # what is known of it

    @property
    def local_address(self) -> str:
        """Our own address on this connection; empty if it has none that is worth logging."""
        if self._local_address is None:
            self._local_address = own_address(self.transport)
        return self._local_address

    @property
    def connection_number(self) -> int:
        """What tells it from all other connections to hosts, for access logs."""
        if not self._number:
            self._number = next_number()
        return self._number

    # how it ends

    def open_account(self) -> BufferAccount:
        """See L{reverseproxy.limits.buffered_bytes.AccountedProtocol}."""
        return TRUSTED.account(self._pool.host.address, self._made_room)

    def _made_room(self, reason: str) -> None:
        """This connection has to go for others."""
        log.warn("{host} is cut off: {reason}", host=self._pool.host.address, reason=reason)
        self._cut_off(reason)
