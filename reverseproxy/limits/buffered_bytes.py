"""
What peers have sent that is not done with: how much of it a process keeps, and who has to go for it.

A part of a frame, of a head or of a handshake has to be kept until the rest of
it comes, which may be never; a request is kept until a host has taken it, and an
answer until its client has.  Each connection is bounded in this by its protocol,
but there may be any number of connections.  So each has an L{BufferAccount} in an
L{BufferBudget}, which bounds them together.

Below L{FREE} bytes nothing is entered, as a connection itself takes more than
that, and the number of these is bounded elsewhere (L{reverseproxy.limits.connection_limit}).  So
what comes whole costs nothing here.

When there is too much, the address that keeps most of it gives up the connection
that keeps most.  Somebody with one large upload is not the victim of somebody
else with a thousand small ones.  Long before that, those are not read for a
while whose peers need not be closed for it: see L{BufferBudget.tight}.

What streams have received within their windows, for protocols that do not read,
is no part of this; L{reverseproxy.transport} bounds that.

This is pure: no sockets, no clock.
"""

from __future__ import annotations

__all__ = [
    "FREE",
    "TRUSTED",
    "DEFAULT_LIMIT",
    "UNTRUSTED",
    "BufferAccount",
    "AccountedProtocol",
    "BufferBudget",
    "set_limit",
]

from collections.abc import Callable
from typing import Final, Generic, TypeVar

from reverseproxy.limits.refusals import REFUSALS

FREE: Final = 4096
"""Bytes of one connection that are not counted."""

DEFAULT_LIMIT: Final = 32 * 1024 * 1024
"""Bytes that a process keeps of strangers, if nothing else is configured."""

TRUSTED_FACTOR: Final = 4
"""How many times as much is kept of agents, tunnel servers and hosts."""

_T = TypeVar("_T")


class _Ranking(Generic[_T]):
    """
    Things by size; finds one of the largest in constant time.

    @ivar total: all sizes together.
    """

    __slots__ = ("_by_magnitude", "_sizes", "total")

    def __init__(self) -> None:
        self.total = 0
        self._sizes: dict[_T, int] = {}
        # those of a size with so many bits, oldest first
        self._by_magnitude: list[dict[_T, None]] = []

    def __len__(self) -> int:
        return len(self._sizes)

    def set(self, thing: _T, size: int) -> None:
        """Say how large something is; 0 takes it out."""
        before = self._sizes.pop(thing, 0)
        self.total += size - before
        old, new = before.bit_length(), size.bit_length()
        if size:
            self._sizes[thing] = size
        if old == new:
            return
        ranks = self._by_magnitude
        if old:
            del ranks[old][thing]
        while len(ranks) <= new:
            ranks.append({})
        if new:
            ranks[new][thing] = None
        while ranks and not ranks[-1]:
            ranks.pop()

    def largest(self) -> _T:
        """
        Find something that is not half as large as anything else, or larger.

        @raise IndexError: if there is nothing.
        """
        return next(iter(self._by_magnitude[-1]))


class BufferAccount:
    """
    What one connection keeps.

    @ivar size: bytes that are entered for it; 0 if they are not worth counting.
    """

    __slots__ = ("_address", "_books", "_end", "size")

    def __init__(self, books: BufferBudget, address: str, end: Callable[[str], object]) -> None:
        """
        @param address: whom it is counted with.
        @param end: ends the connection, given the reason; called once at the most,
            also from within L{keep}.
        """
        self.size = 0
        self._books: BufferBudget | None = books
        self._address = address
        self._end = end

    def keep(self, size: int) -> None:
        """
        Say how much the connection keeps now.

        That costs next to nothing if it is no more than L{FREE}, and was not before.
        """
        books = self._books
        if books is None:
            return
        if size <= FREE:
            size = 0
        before, self.size = self.size, size
        if size != before:
            books.enter(self, self._address, size)

    def close(self) -> None:
        """The connection keeps nothing any more, and never will."""
        self.keep(0)
        self._books = None

    def end(self, reason: str) -> None:
        """End the connection; for L{BufferBudget}."""
        self.close()
        self._end(reason)


class BufferBudget:
    """
    The books of all connections that share a bound.

    @ivar limit: bytes; beyond it, a connection is ended.
    @ivar ended: how many were.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.ended = 0
        self._addresses: _Ranking[str] = _Ranking()
        self._accounts: dict[str, _Ranking[BufferAccount]] = {}

    @property
    def total(self) -> int:
        """Bytes that are kept."""
        return self._addresses.total

    @property
    def tight(self) -> bool:
        """Whether more than half of what may be kept is, so that nothing more is read that can wait."""
        return self._addresses.total * 2 > self.limit

    def account(self, address: str, end: Callable[[str], object]) -> BufferAccount:
        """Open an account; see there."""
        return BufferAccount(self, address, end)

    def enter(self, account: BufferAccount, address: str, size: int) -> None:
        """Note what an account has now; end others, or this one, if that is too much."""
        accounts = self._accounts.get(address)
        if accounts is None:
            accounts = self._accounts[address] = _Ranking()
        accounts.set(account, size)
        self._addresses.set(address, accounts.total)
        if not accounts.total:
            del self._accounts[address]
        while self._addresses.total > self.limit:
            victim = self._accounts[self._addresses.largest()].largest()
            self.ended += 1
            REFUSALS["unfinished"] += 1
            victim.end(
                f"too much is kept for peers that do not finish, {self._addresses.total} bytes in all, "
                f"and its address keeps most of it, {victim.size} bytes on this connection; "
                f"see max_unfinished_size"
            )


class AccountedProtocol:
    """What a protocol derives from that keeps things; it has an account once there is something to count."""

    _counted: BufferAccount | None = None

    def open_account(self) -> BufferAccount:
        """Open this connection's account; see L{BufferBudget.account}."""
        raise NotImplementedError

    def count(self, size: int) -> None:
        """Say how many bytes are kept now; this may end the connection before it returns."""
        account = self._counted
        if account is None:
            if size <= FREE:
                return
            account = self._counted = self.open_account()
        account.keep(size)

    def count_no_more(self) -> None:
        """Nothing is kept any more."""
        if self._counted is not None:
            self._counted.close()


UNTRUSTED: Final = BufferBudget(DEFAULT_LIMIT)
"""What this process keeps of those that anybody may be."""

TRUSTED: Final = BufferBudget(DEFAULT_LIMIT * TRUSTED_FACTOR)
"""What it keeps of agents that have joined, of tunnel servers, and of hosts."""


def set_limit(size: int) -> None:
    """Set the bounds of this process, given that for strangers; 0 for none."""
    UNTRUSTED.limit = size or 1 << 62
    TRUSTED.limit = UNTRUSTED.limit * TRUSTED_FACTOR
