"""
Tests for L{reverseproxy.net.resolver}.

How names are followed on the whole is tested where it was needed first, in
L{tests.tunnel.test_discovery}.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IResolutionReceiver
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from reverseproxy.net.resolver import IAnswerReceiver, ReresolvingName
from tests.tunnel.logged import capture


class LifetimeTests(SynchronousTestCase):
    """What resolvers may tell beside the addresses."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.asked: list[IResolutionReceiver] = []
        self.changes = 0

    def follow(self, respect: bool, refresh: float = 5.0) -> ReresolvingName:
        def resolve(receiver: IResolutionReceiver, host: str) -> None:
            self.asked.append(receiver)

        name = ReresolvingName(
            "x.example",
            resolve,
            self.clock,
            self.changed,
            refresh,
            lambda: 0.5,
            respect_lifetime=respect,
        )
        name.look_up()
        return name

    def changed(self) -> None:
        self.changes += 1

    def answer(self, ip: str = "10.0.0.1", tell: Callable[[IAnswerReceiver], None] = lambda _: None) -> None:
        receiver = IAnswerReceiver(self.asked.pop())
        receiver.addressResolved(IPv4Address("TCP", ip, 0))
        tell(receiver)
        receiver.resolutionComplete()

    def next(self) -> float:
        (call,) = self.clock.getDelayedCalls()
        return call.getTime() - self.clock.seconds()

    def test_interface(self) -> None:
        self.follow(True)
        verifyObject(IAnswerReceiver, self.asked[0])

    def test_respected(self) -> None:
        """The next lookup comes a second after the addresses have expired."""
        name = self.follow(True)
        self.answer(tell=lambda receiver: receiver.lifetime(60.0))
        self.assertEqual((self.next(), self.changes, name.addresses), (61.0, 1, ("10.0.0.1",)))

    def test_unknown(self) -> None:
        """If nobody knows when that is, or it is at once, the usual interval counts."""
        for tell in (lambda receiver: None, lambda receiver: receiver.lifetime(0.0)):
            self.setUp()
            self.follow(True)
            self.answer(tell=tell)
            self.assertEqual(self.next(), 5.0)

    def test_not_respected(self) -> None:
        """So it does if nobody wants to know."""
        self.follow(False)
        self.answer(tell=lambda receiver: receiver.lifetime(60.0))
        self.assertEqual(self.next(), 5.0)

    def test_reason(self) -> None:
        """Why there is no address is logged."""
        self.follow(False)
        receiver = IAnswerReceiver(self.asked.pop())
        receiver.failed("nobody answers")
        with capture() as events:
            receiver.resolutionComplete()
        self.assertIn("nobody answers", events.text())
        self.assertEqual(self.changes, 0)
