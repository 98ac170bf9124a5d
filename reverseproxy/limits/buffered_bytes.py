"""
A limit of the bytes that a process buffers for incomplete and queued messages.

A part of a frame, a head or a handshake is buffered until the rest arrives, which may be
never; a request until a host has taken it, and a response until its client has.  Each
protocol limits that for its connection, but there may be any number of connections.  So each
has a L{BufferAccount} of a L{BufferBudget}, which limits all of them together.

A connection with up to L{FREE} bytes does not count, as the connection itself takes more
memory, and the number of connections has its own limit
(L{reverseproxy.limits.connection_limit}).  So messages that arrive complete cost nothing here.

Over the limit, the address with most buffered bytes loses its largest connection: one large
upload does not suffer from another client's thousand small ones.  Before that, at half of
the limit, some protocols stop reading: see L{BufferBudget.tight}.

Data that streams have received within their windows does not count here; L{reverseproxy.transport}
limits that.

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
"""Up to so many bytes of a connection don't count."""

DEFAULT_LIMIT: Final = 32 * 1024 * 1024
"""The default limit for unauthenticated peers, in bytes."""

TRUSTED_FACTOR: Final = 4
"""The limit for agents, tunnel servers and hosts is so many times as high."""

_T = TypeVar("_T")


class _Ranking(Generic[_T]):
    """
    Objects by size, of which it finds one of the largest in constant time.

    @ivar total: the sum of all sizes.
    """

    __slots__ = ("_by_magnitude", "_sizes", "total")

    def __init__(self) -> None:
        self.total = 0
        self._sizes: dict[_T, int] = {}
        # objects by the bit length of their size, oldest first
        self._by_magnitude: list[dict[_T, None]] = []

    def __len__(self) -> int:
        return len(self._sizes)

    def set(self, thing: _T, size: int) -> None:
        """Set the size of an object; 0 removes it."""
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
        Return an object that is more than half as large as the largest one.

        @raise IndexError: if there are none.
        """
        return next(iter(self._by_magnitude[-1]))


class BufferAccount:
    """
    The buffered bytes of one connection.

    @ivar size: bytes that count; 0 up to L{FREE}.
    """

    __slots__ = ("_address", "_books", "_end", "size")

    def __init__(self, books: BufferBudget, address: str, end: Callable[[str], object]) -> None:
        """
        @param address: the key of the peer's address.
        @param end: ends the connection, given the reason; called at most once,
            perhaps from within L{keep}.
        """
        self.size = 0
        self._books: BufferBudget | None = books
        self._address = address
        self._end = end

    def keep(self, size: int) -> None:
        """
        Set the number of buffered bytes.

        That costs almost nothing if it is and was up to L{FREE}.
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
        """Close the account: the connection buffers nothing any more."""
        self.keep(0)
        self._books = None

    def end(self, reason: str) -> None:
        """End the connection; for L{BufferBudget}."""
        self.close()
        self._end(reason)


class BufferBudget:
    """
    All connections that share a limit.

    @ivar limit: in bytes; above it, connections are ended.
    @ivar ended: how many were ended.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.ended = 0
        self._addresses: _Ranking[str] = _Ranking()
        self._accounts: dict[str, _Ranking[BufferAccount]] = {}

    @property
    def total(self) -> int:
        """All buffered bytes that count."""
        return self._addresses.total

    @property
    def tight(self) -> bool:
        """Whether more than half of the limit is used, so that protocols should stop reading."""
        return self._addresses.total * 2 > self.limit

    def account(self, address: str, end: Callable[[str], object]) -> BufferAccount:
        """Open an account; see L{BufferAccount}."""
        return BufferAccount(self, address, end)

    def enter(self, account: BufferAccount, address: str, size: int) -> None:
        """Record the size of an account, and end connections above the limit, perhaps its own."""
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
    """A base class for protocols that buffer data; it opens an account when there is something to count."""

    _counted: BufferAccount | None = None

    def open_account(self) -> BufferAccount:
        """Open this connection's account; see L{BufferBudget.account}."""
        raise NotImplementedError

    def count(self, size: int) -> None:
        """Set the number of buffered bytes; this may end the connection before it returns."""
        account = self._counted
        if account is None:
            if size <= FREE:
                return
            account = self._counted = self.open_account()
        account.keep(size)

    def count_no_more(self) -> None:
        """Close the account."""
        if self._counted is not None:
            self._counted.close()


UNTRUSTED: Final = BufferBudget(DEFAULT_LIMIT)
"""The budget for unauthenticated peers."""

TRUSTED: Final = BufferBudget(DEFAULT_LIMIT * TRUSTED_FACTOR)
"""The budget for joined agents, tunnel servers and hosts."""


def set_limit(size: int) -> None:
    """Set the limit for unauthenticated peers, and that of the others in proportion; 0 for none."""
    UNTRUSTED.limit = size or 1 << 62
    TRUSTED.limit = UNTRUSTED.limit * TRUSTED_FACTOR
