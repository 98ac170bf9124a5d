"""Tests for L{reverseproxy.limits.buffered_bytes}."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.limits import buffered_bytes
from reverseproxy.limits.buffered_bytes import (
    FREE,
    TRUSTED_FACTOR,
    AccountedProtocol,
    BufferAccount,
    BufferBudget,
)


class BooksTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.books = BufferBudget(100_000)
        self.ended: list[str] = []

    def account(self, name: str, address: str = "a") -> BufferAccount:
        return self.books.account(address, lambda reason: self.ended.append(name))

    def test_little_is_not_counted(self) -> None:
        account = self.account("x")
        account.keep(FREE)
        self.assertEqual((self.books.total, account.size), (0, 0))
        account.keep(FREE + 1)
        self.assertEqual((self.books.total, account.size), (FREE + 1, FREE + 1))
        account.keep(10)
        self.assertEqual((self.books.total, account.size), (0, 0))

    def test_the_largest_goes(self) -> None:
        large, small, new = self.account("large"), self.account("small"), self.account("new")
        large.keep(70_000)
        small.keep(20_000)
        new.keep(20_000)
        self.assertEqual(self.ended, ["large"])
        self.assertEqual(self.books.total, 40_000)
        large.keep(99_000)  # it may not have heard of its end yet
        self.assertEqual(self.books.total, 40_000)
        self.assertEqual(self.books.ended, 1)

    def test_the_address_that_has_most_gives(self) -> None:
        """One large upload is no victim of many small ones of somebody else."""
        self.account("upload", "polite").keep(30_000)
        for number in range(100):
            self.account(f"{number}", "crowd").keep(5_000)
        self.assertNotIn("upload", self.ended)
        self.assertEqual(len(self.ended), 86)
        self.assertLessEqual(self.books.total, self.books.limit)

    def test_one_alone(self) -> None:
        """A connection that is too large by itself goes."""
        self.account("x").keep(100_001)
        self.assertEqual(self.ended, ["x"])
        self.assertEqual(self.books.total, 0)

    def test_tight(self) -> None:
        account = self.account("x")
        account.keep(50_000)
        self.assertFalse(self.books.tight)
        account.keep(50_001)
        self.assertTrue(self.books.tight)

    def test_close(self) -> None:
        account = self.account("x")
        account.keep(50_000)
        account.close()
        account.close()
        account.keep(50_000)
        self.assertEqual(self.books.total, 0)

    def test_counted(self) -> None:
        """An account is opened when there is something to count."""
        opened: list[BufferAccount] = []
        account = self.account

        class Connection(AccountedProtocol):
            def open_account(self) -> BufferAccount:
                opened.append(account("x"))
                return opened[-1]

        connection = Connection()
        connection.count(FREE)
        connection.count_no_more()
        self.assertEqual(opened, [])
        connection.count(5000)
        connection.count(6000)
        self.assertEqual((len(opened), self.books.total), (1, 6000))
        connection.count_no_more()
        self.assertEqual(self.books.total, 0)

    def test_limits_of_the_process(self) -> None:
        self.patch(buffered_bytes.UNTRUSTED, "limit", 1)
        self.patch(buffered_bytes.TRUSTED, "limit", 1)
        buffered_bytes.set_limit(1000)
        self.assertEqual(
            (buffered_bytes.UNTRUSTED.limit, buffered_bytes.TRUSTED.limit), (1000, TRUSTED_FACTOR * 1000)
        )
        buffered_bytes.set_limit(0)
        self.assertGreater(buffered_bytes.UNTRUSTED.limit, 1 << 60)

    @given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 40_000)), max_size=200))
    def test_the_books_are_right(self, changes: list[tuple[int, int]]) -> None:
        """Whatever comes, the bound holds, and the sum is that of those who are left."""
        books = BufferBudget(100_000)
        sizes: dict[int, int] = {}
        accounts = {
            name: books.account("ab"[name % 2], lambda reason, name=name: sizes.pop(name, None))  # type: ignore[misc]
            for name in range(10)
        }
        for name, size in changes:
            if not accounts[name]._books:
                continue
            sizes[name] = size if size > FREE else 0
            accounts[name].keep(size)
            self.assertEqual(books.total, sum(sizes.values()))
            self.assertLessEqual(books.total, books.limit)
