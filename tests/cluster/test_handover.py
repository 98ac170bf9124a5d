"""Tests for L{reverseproxy.cluster.handover}."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.cluster import handover as handover_module
from reverseproxy.cluster.handover import Handover, Rebindable
from reverseproxy.errors import ConnectionUnavailable
from tests.cluster.fakes import HalfUser, IdleUser, User, Wire


class Greeter(Handover):
    """Keeps what it receives itself."""

    def __init__(self) -> None:
        self.received: list[bytes] = []

    def dataReceived(self, data: bytes) -> None:
        self.received.append(data)


class Turner(Rebindable):
    """Receives in another way from the second read on."""

    def __init__(self) -> None:
        self.first: list[bytes] = []
        self.later: list[bytes] = []

    def dataReceived(self, data: bytes) -> None:
        self.first.append(data)
        self.rebind(self.later.append)


class HandOverTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.outer = Greeter()
        self.wire = Wire(self.outer)

    def test_before(self) -> None:
        """Until it hands over, it has all events itself."""
        self.assertTrue(IHalfCloseableProtocol.providedBy(self.outer))
        self.wire.receive(b"hello")
        self.assertEqual(self.outer.received, [b"hello"])
        self.outer.writeConnectionLost()
        self.wire.end()
        self.assertTrue(self.wire.disconnecting)
        self.wire.lose()
        self.wire.receive(b"late")
        self.assertEqual(self.outer.received, [b"hello"])

    def test_order(self) -> None:
        """The new owner is connected, gets the surplus, then what comes."""
        user = User()
        self.outer.hand_over(user, b"surplus")
        self.wire.receive(b"more")
        self.wire.lose()
        self.assertEqual(user.events, ["made", b"surplus", b"more", "lost"])
        self.assertEqual(self.outer.received, [])
        self.assertIs(user.transport, self.wire)

    def test_no_layer(self) -> None:
        """A read reaches the innermost protocol with one call, through any number of handovers."""
        middle, last, user = Greeter(), Greeter(), User()
        self.outer.hand_over(middle)
        middle.hand_over(last)
        self.assertEqual(self.outer.dataReceived, last.dataReceived)
        last.hand_over(user, b"surplus")
        for each in (self.outer, middle, last):
            self.assertEqual(each.dataReceived, user.dataReceived)
        self.wire.receive(b"more")
        self.wire.lose()
        self.assertEqual(user.events, ["made", b"surplus", b"more", "lost"])

    def test_handing_on_while_connected(self) -> None:
        """An owner that hands on as it is connected has the surplus go to the next one."""
        user = User()

        class Eager(Handover):
            def connectionMade(self) -> None:
                self.hand_over(user)

        self.outer.hand_over(Eager(), b"surplus")
        self.assertEqual(user.events, ["made", b"surplus"])
        self.assertEqual(self.outer.dataReceived, user.dataReceived)

    def test_rebind(self) -> None:
        """An owner may change how it receives."""
        middle, turner = Greeter(), Turner()
        self.outer.hand_over(middle)
        middle.hand_over(turner, b"1")
        self.wire.receive(b"2")
        self.wire.receive(b"3")
        self.assertEqual((turner.first, turner.later), ([b"1"], [b"2", b"3"]))

    def test_rebind_without_handover(self) -> None:
        """So may a protocol that was not handed anything."""
        turner = Turner()
        wire = Wire(turner)
        wire.receive(b"1")
        wire.receive(b"2")
        self.assertEqual((turner.first, turner.later), ([b"1"], [b"2"]))

    def test_closing(self) -> None:
        """A protocol that closes as it is connected gets no surplus."""

        class Closer(User):
            def connectionMade(self) -> None:
                self.transport.loseConnection()  # type: ignore[union-attr]

        user = Closer()
        self.outer.hand_over(user, b"surplus")
        self.assertEqual(user.events, [])

    def test_lost_while_connecting(self) -> None:
        """Nor does one whose connection is lost meanwhile."""
        wire = self.wire

        class Unlucky(User):
            def connectionMade(self) -> None:
                wire.lose()

        user = Unlucky()
        self.outer.hand_over(user, b"surplus")
        self.assertEqual(user.events, ["lost"])

    def test_lost_before(self) -> None:
        """A lost connection can't be handed over."""
        self.wire.lose()
        user = User()
        self.assertRaises(ConnectionUnavailable, self.outer.hand_over, user)
        self.assertEqual(user.events, [])

    def test_twice(self) -> None:
        """A connection has one owner."""
        self.outer.hand_over(User())
        self.assertRaises(ValueError, self.outer.hand_over, User())

    def test_lost_once(self) -> None:
        """The loss is told once, and nothing that may make a cycle is kept."""
        turner = Turner()
        user = User()
        self.outer.hand_over(user)
        self.wire.lose()
        self.outer.connectionLost()
        self.assertEqual(user.events, ["made", "lost"])
        self.assertIsNone(self.outer.inner)
        other = Greeter()
        wire = Wire(other)
        other.hand_over(turner)
        wire.lose()
        self.assertIsNone(turner._handover)


class HalfCloseTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.outer = Greeter()
        self.wire = Wire(self.outer)

    def test_passed_on(self) -> None:
        """A protocol that can half-close hears of both halves."""
        middle, user = Greeter(), HalfUser()
        self.outer.hand_over(middle)
        middle.hand_over(user)
        self.wire.end()
        self.outer.writeConnectionLost()
        self.assertEqual(user.events, ["made", "read lost", "write lost"])
        self.assertFalse(self.wire.disconnecting)

    def test_closed(self) -> None:
        """For one that can't, the connection is closed."""
        user = User()
        self.outer.hand_over(user)
        self.outer.writeConnectionLost()
        self.wire.end()
        self.assertTrue(self.wire.disconnecting)
        self.wire.lose()
        self.assertEqual(user.events, ["made", "lost"])


class TakeBackTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.front = Greeter()
        self.outer = Greeter()
        self.wire = Wire(self.front)
        self.front.hand_over(self.outer)

    def test_idle(self) -> None:
        """An idle owner gives the connection up and hears no more of it."""
        user = IdleUser()
        self.outer.hand_over(user)
        self.assertTrue(self.outer.take_back())
        self.assertIsNone(self.outer.inner)
        self.wire.receive(b"mine")
        self.assertEqual(self.outer.received, [b"mine"])
        next_user = User()
        self.outer.hand_over(next_user)
        self.wire.receive(b"yours")
        self.wire.end()
        self.wire.lose()
        self.assertEqual(user.events, ["made", "detached"])
        self.assertEqual(next_user.events, ["made", b"yours", "lost"])

    def test_first_handover(self) -> None:
        """It works without a handover in front, too."""
        outer = Greeter()
        wire = Wire(outer)
        outer.hand_over(IdleUser())
        self.assertTrue(outer.take_back())
        wire.receive(b"mine")
        self.assertEqual(outer.received, [b"mine"])

    def test_rebindable(self) -> None:
        """A former owner can't redirect reads any more."""

        class IdleTurner(IdleUser, Rebindable):
            pass

        turner = IdleTurner()
        self.outer.hand_over(turner)
        self.assertTrue(self.outer.take_back())
        turner.rebind(turner.events.append)
        self.wire.receive(b"mine")
        self.assertEqual(self.outer.received, [b"mine"])

    def test_busy(self) -> None:
        """A busy one keeps it."""
        user = IdleUser()
        user.idle = False
        self.outer.hand_over(user)
        self.assertFalse(self.outer.take_back())
        self.wire.receive(b"yours")
        self.assertEqual(user.events, ["made", b"yours"])

    def test_unable(self) -> None:
        """So does one that is not made for it, and there may be none."""
        self.assertFalse(self.outer.take_back())
        self.outer.hand_over(User())
        self.assertFalse(self.outer.take_back())

    def test_transport(self) -> None:
        """Everybody sees the one transport."""
        user = IdleUser()
        self.outer.hand_over(user)
        self.assertIsInstance(user.transport, StringTransport)
        self.assertIs(user.transport, self.wire)


class SpliceTests(SynchronousTestCase):
    """Bytes that a transport gives to another connection by itself."""

    def setUp(self) -> None:
        self.asked: list[Any] = []
        self.patch(handover_module, "splice_to", self.transport_splices)

    def transport_splices(self, *arguments: Any) -> bool:
        self.asked.append(arguments)
        return True

    def test_the_transport_splices(self) -> None:
        turner = Turner()
        wire = Wire(turner)
        target, on_spliced = object(), [].append
        self.assertTrue(turner.splice_to(target, 7, on_spliced))
        self.assertEqual(self.asked, [(wire, target, 7, on_spliced)])

    def test_handovers_around_count_them(self) -> None:
        heard: list[tuple[str, int]] = []

        class Listening(Greeter):
            def __init__(self, name: str) -> None:
                super().__init__()
                self.name = name

            def wrap_spliced(self, on_spliced: Callable[[int], object]) -> Callable[[int], object]:
                def tell(size: int) -> None:
                    heard.append((self.name, size))
                    on_spliced(size)

                return super().wrap_spliced(tell)

        outer, middle, inner, turner = Listening("outer"), Greeter(), Listening("inner"), Turner()
        Wire(outer)
        outer.hand_over(middle)
        middle.hand_over(inner)
        inner.hand_over(turner)
        turner.splice_to(object(), 7, lambda size: heard.append(("turner", size)))
        [(_, _, _, on_spliced)] = self.asked
        on_spliced(3)
        self.assertEqual(heard, [("outer", 3), ("inner", 3), ("turner", 3)])
