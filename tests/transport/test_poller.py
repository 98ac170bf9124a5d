"""Tests for L{reverseproxy.transport.poller}: without a reactor, with real sockets and pipes."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from itertools import count
from typing import Any

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IHalfCloseableDescriptor,
    ILoggingContext,
    IReadDescriptor,
    IReadWriteDescriptor,
)
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from reverseproxy.transport import poller as poller_module
from reverseproxy.transport.poller import Poller
from reverseproxy.transport.portions import FEWEST, LONG, Portions


class Reactor:
    """Watches one descriptor, or none."""

    def __init__(self) -> None:
        self.readers: list[Any] = []
        self.later: list[Callable[[], Any]] = []

    def callLater(self, delay: float, call: Callable[[], Any]) -> None:
        assert delay == 0
        self.later.append(call)

    def turn(self) -> None:
        later, self.later = self.later, []
        for call in later:
            call()

    def addReader(self, reader: Any) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        if reader in self.readers:
            self.readers.remove(reader)


@implementer(IReadWriteDescriptor)
class Descriptor:
    """Notes what it is told."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.told: list[Any] = []
        self.on_read: Callable[[], Any] = lambda: None
        self.on_write: Callable[[], Any] = lambda: None
        self.on_lost: Callable[[], Any] = lambda: None

    def logPrefix(self) -> str:
        return "test"

    def fileno(self) -> int:
        return self.fd

    def doRead(self) -> Any:
        self.told.append("read")
        return self.on_read()

    def doWrite(self) -> Any:
        self.told.append("write")
        return self.on_write()

    def connectionLost(self, reason: Failure) -> None:
        self.told.append(reason.type)
        self.on_lost()


@implementer(IHalfCloseableDescriptor)
class HalfDescriptor(Descriptor):
    def readConnectionLost(self, reason: Failure) -> None:
        self.told.append("read lost")

    def writeConnectionLost(self, reason: Failure) -> None:
        raise NotImplementedError


class Oops(BaseException):
    """Not even an L{Exception}."""


def fail() -> None:
    raise Oops


class PollerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = Reactor()
        self.poller = Poller(self.reactor)

    def pair(self, kind: type[Descriptor] = Descriptor) -> tuple[Any, socket.socket]:
        """A descriptor that can be written to, and the other end."""
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        self.addCleanup(self.poller.removeAll)
        return kind(ours.fileno()), theirs

    def readable(self, kind: type[Descriptor] = Descriptor) -> Any:
        descriptor, other = self.pair(kind)
        other.send(b"x")
        self.poller.addReader(descriptor)
        return descriptor

    def pipe(self, kind: type[Descriptor]) -> Any:
        """The end of a pipe that nobody writes into."""
        read, write = os.pipe()
        os.close(write)
        self.addCleanup(os.close, read)
        return kind(read)

    def test_the_reactor_watches_as_long_as_there_is_something(self) -> None:
        first, _ = self.pair()
        second, _ = self.pair()
        self.assertEqual(self.reactor.readers, [])
        self.poller.addReader(first)
        self.poller.addWriter(first)
        self.poller.addReader(second)
        self.poller.addReader(second)
        self.assertEqual(self.reactor.readers, [self.poller])
        self.poller.removeReader(first)
        self.poller.removeWriter(first)
        self.assertEqual(self.reactor.readers, [self.poller])
        self.poller.removeReader(second)
        self.poller.removeReader(second)
        self.assertEqual(self.reactor.readers, [])

    def test_a_turn_is_bounded_and_everybody_has_one(self) -> None:
        portions = Portions()
        self.patch(poller_module, "PORTIONS", portions)
        for _ in range(20):
            portions.turned(1.0)  # long turns
        all_ = [self.readable() for _ in range(2 * FEWEST + 3)]
        # All have something in every turn: nobody has two before everybody has had one.
        for _ in range(2):
            self.poller.doRead()
            portions.turned(1.0)
        self.assertEqual([len(each.told) for each in all_].count(1), 2 * FEWEST)
        self.poller.doRead()
        self.assertEqual(sum(len(each.told) for each in all_), 3 * FEWEST)
        self.assertEqual(min(len(each.told) for each in all_), 1)

    def test_a_long_turn_goes_on_in_the_next_one(self) -> None:
        ticks = count()
        self.patch(poller_module, "monotonic", lambda: next(ticks) * LONG / 2.5)  # for each event
        all_ = [self.readable() for _ in range(11)]
        gone, replaced = all_[-1], all_[-2]
        self.poller.doRead()
        self.assertEqual([len(each.told) for each in all_], [1] * 3 + [0] * 8)
        # What happens in between counts.
        self.poller.removeReader(gone)
        self.poller.removeReader(replaced)
        successor = Descriptor(replaced.fd)
        self.poller.addReader(successor)
        for _ in range(2):
            self.poller.doRead()
        self.assertEqual([len(each.told) for each in all_], [1] * 9 + [0, 0])
        self.assertEqual(successor.told, [])  # what there was to tell was of another one
        for _ in range(4):
            self.poller.doRead()
        self.assertEqual([len(each.told) for each in all_[:9]], [2] * 9)
        self.poller.doRead()
        self.assertEqual(successor.told, ["read"])

    def test_what_is_watched(self) -> None:
        first, _ = self.pair()
        second, _ = self.pair()
        self.poller.addReader(first)
        self.poller.addWriter(first)
        self.poller.addWriter(second)
        self.assertEqual(self.poller.getReaders(), [first])
        self.assertEqual(self.poller.getWriters(), [first, second])
        self.assertIn(repr(first), repr(self.poller))
        self.assertEqual(self.poller.removeAll(), [first, second])
        self.assertEqual(self.poller.getReaders() + self.poller.getWriters(), [])
        self.assertEqual(self.reactor.readers, [])
        self.poller.doRead()
        self.assertEqual((first.told, second.told), ([], []))

    def test_what_it_is(self) -> None:
        for interface in (IReadDescriptor, ILoggingContext):
            verifyObject(interface, self.poller)
        self.assertGreaterEqual(self.poller.fileno(), 0)
        self.assertEqual(self.poller.logPrefix(), "-")

    def test_reading_comes_before_writing(self) -> None:
        descriptor = self.readable()
        self.poller.addWriter(descriptor)
        self.poller.doRead()
        self.assertEqual(descriptor.told, ["read", "write"])
        self.poller.removeReader(descriptor)
        self.poller.doRead()
        self.assertEqual(descriptor.told, ["read", "write", "write"])

    def test_reading_may_end_writing(self) -> None:
        descriptor = self.readable()
        self.poller.addWriter(descriptor)
        descriptor.on_read = lambda: self.poller.removeWriter(descriptor)
        self.poller.doRead()
        self.assertEqual(descriptor.told, ["read"])

    def test_reading_may_end_everything(self) -> None:
        descriptor = self.readable()
        self.poller.addWriter(descriptor)
        descriptor.on_read = lambda: self.poller.removeAll() and None
        self.poller.doRead()
        self.assertEqual(descriptor.told, ["read"])

    def test_who_is_no_longer_watched_is_not_told(self) -> None:
        first, second, paused = self.readable(), self.readable(), self.readable()
        self.poller.addWriter(paused)
        first.on_read = second.on_read = lambda: (
            [self.poller.removeReader(each) for each in (first, second, paused)] and None
        )
        paused.on_write = lambda: self.poller.removeWriter(paused)
        self.poller.doRead()
        self.assertEqual(sorted([first.told, second.told]), [[], ["read"]])
        self.assertNotIn("read", paused.told[1:])

    def test_who_is_paused_is_told_of_nothing_at_all(self) -> None:
        # Registered first, so told first.
        first, paused = self.readable(), self.readable()

        def pause() -> None:
            self.poller.addWriter(paused)
            self.poller.removeReader(paused)

        first.on_read = pause
        self.poller.doRead()
        self.assertEqual((first.told, paused.told), (["read"], []))

    def test_a_number_that_is_used_again(self) -> None:
        first, gone = self.readable(), self.readable()
        again, other = self.pair()

        def replace() -> None:
            self.poller.removeReader(gone)
            os.dup2(again.fd, gone.fd)
            again.fd = gone.fd
            self.poller.addReader(again)

        first.on_read = replace
        self.poller.doRead()
        self.assertEqual((first.told, gone.told, again.told), (["read"], [], []))
        other.send(b"x")
        self.poller.removeReader(first)
        self.poller.doRead()
        self.assertEqual(again.told, ["read"])

    def test_a_reason_ends_the_connection(self) -> None:
        for reason, kind, told in (
            (CONNECTION_DONE, Descriptor, ConnectionDone),
            (CONNECTION_LOST, Descriptor, ConnectionLost),
            (CONNECTION_DONE, HalfDescriptor, "read lost"),
            (CONNECTION_LOST, HalfDescriptor, ConnectionLost),
            (ValueError(), HalfDescriptor, ValueError),
        ):
            descriptor = self.readable(kind)
            descriptor.on_read = lambda reason=reason: reason
            self.poller.doRead()
            self.assertEqual(descriptor.told, ["read", told])
            self.assertEqual(self.poller.getReaders(), [])

    def test_reading_ends_and_writing_goes_on(self) -> None:
        descriptor = self.readable(HalfDescriptor)
        self.poller.addWriter(descriptor)
        descriptor.on_read = lambda: CONNECTION_DONE
        self.poller.doRead()
        self.assertEqual(descriptor.told, ["read", "read lost"])
        self.poller.doRead()
        self.assertEqual(descriptor.told, ["read", "read lost", "write"])
        descriptor.on_write = lambda: CONNECTION_DONE
        self.poller.doRead()
        self.assertEqual(descriptor.told[-1], ConnectionDone)
        self.assertEqual(self.poller.getWriters(), [])

    def test_an_end_without_anything_to_read(self) -> None:
        for kind, told in ((Descriptor, ConnectionDone), (HalfDescriptor, "read lost")):
            descriptor = self.pipe(kind)
            self.poller.addReader(descriptor)
            self.poller.doRead()
            self.assertEqual(descriptor.told, [told])

    def test_an_end_while_only_writing(self) -> None:
        descriptor, other = self.pair(HalfDescriptor)
        self.poller.addWriter(descriptor)
        other.close()
        self.poller.doRead()
        self.assertEqual(descriptor.told, [ConnectionLost])

    def test_a_failure_ends_one_connection(self) -> None:
        reading, writing, other = self.readable(), self.pair()[0], self.readable()
        self.poller.addWriter(writing)
        reading.on_read = writing.on_write = fail
        self.poller.doRead()
        self.assertEqual(reading.told, ["read", Oops])
        self.assertEqual(writing.told, ["write", Oops])
        self.assertEqual(other.told, ["read"])
        self.assertEqual(self.poller.getReaders(), [other])
        self.assertEqual(len(self.flushLoggedErrors(Oops)), 2)

    def test_a_failure_when_a_connection_is_closed(self) -> None:
        first, second, other = self.readable(), self.readable(), self.readable()
        first.on_read = fail
        second.on_read = lambda: CONNECTION_LOST
        first.on_lost = second.on_lost = fail
        self.poller.doRead()
        self.assertEqual(first.told, ["read", Oops])
        self.assertEqual(other.told, ["read"])
        self.assertEqual(self.poller.getReaders(), [other])
        self.assertEqual(len(self.flushLoggedErrors(Oops)), 4)

    def test_the_reactor_ends(self) -> None:
        first, failing, last = self.readable(), self.readable(), self.readable()
        self.poller.addWriter(first)
        failing.on_lost = fail
        self.poller.connectionLost(Failure(ConnectionLost()))
        for each in (first, failing, last):
            self.assertEqual(each.told, [ConnectionLost])
        self.assertEqual(self.reactor.readers, [])
        self.assertEqual(len(self.flushLoggedErrors(Oops)), 1)
        # It can be used again.
        again = self.readable()
        self.assertEqual(self.reactor.readers, [self.poller])
        self.poller.doRead()
        self.assertEqual(again.told, ["read"])

    def test_the_end_of_a_turn(self) -> None:
        told: list[str] = []
        first, second = self.readable(), self.readable()

        def read(name: str) -> None:
            told.append(f"{name} read")
            self.poller.call_at_turn_end(lambda: told.append(f"after {name}"))

        first.on_read = lambda: read("first")
        second.on_read = lambda: read("second")
        self.poller.doRead()
        self.assertEqual(told, ["first read", "second read", "after first", "after second"])
        self.assertEqual(self.reactor.later, [])

    def test_the_end_of_a_turn_for_what_happens_between_turns(self) -> None:
        told: list[str] = []
        self.poller.call_at_turn_end(lambda: told.append("one"))
        self.poller.call_at_turn_end(lambda: told.append("two"))
        self.assertEqual((told, len(self.reactor.later)), ([], 1))
        self.reactor.turn()
        self.assertEqual(told, ["one", "two"])
        # Or at the end of the next one, if that comes first.
        self.poller.call_at_turn_end(lambda: told.append("three"))
        self.readable()
        self.poller.doRead()
        self.assertEqual(told, ["one", "two", "three"])
        self.reactor.turn()
        self.assertEqual(told, ["one", "two", "three"])

    def test_the_end_of_a_turn_that_calls_for_another_one(self) -> None:
        told: list[str] = []

        def again() -> None:
            told.append("again")
            self.poller.call_at_turn_end(again)

        descriptor = self.readable()
        descriptor.on_read = lambda: self.poller.call_at_turn_end(again)
        self.poller.doRead()
        self.assertEqual((told, len(self.reactor.later)), (["again"], 1))
        self.reactor.turn()
        self.assertEqual((told, len(self.reactor.later)), (["again"] * 2, 1))

    def test_a_failure_at_the_end_of_a_turn(self) -> None:
        told: list[str] = []
        self.poller.call_at_turn_end(lambda: 1 // 0)
        self.poller.call_at_turn_end(lambda: told.append("other"))
        self.reactor.turn()
        self.assertEqual(told, ["other"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
