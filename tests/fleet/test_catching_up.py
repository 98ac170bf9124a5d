"""Tests for L{reverseproxy.fleet.catching_up}."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.fleet.catching_up import MARGIN, PATIENCE, CatchUp
from reverseproxy.tunnel.server.exclusions import Exclusions
from tests.tunnel.logged import capture


@dataclass
class Link:
    """A link to another server."""

    server: str
    failed: bool = False
    problem: str = "refused"


class CatchUpTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.exclusions = Exclusions(self.clock.seconds)
        self.links: list[Link] = []
        self.read = True

    def start(self, *links: str, read: bool = True) -> CatchUp:
        """Start a server that knows of others."""
        self.links = [Link(each) for each in links]
        self.read = read
        given: Any = self.links
        catch_up = CatchUp(self.clock, given, lambda: self.read, self.exclusions)
        catch_up.start()
        return catch_up

    def wait(self) -> Deferred[None]:
        """Have an agent wait."""
        assert self.exclusions.until_known is not None
        return self.exclusions.until_known()

    def pass_time(self, seconds: float) -> None:
        self.clock.pump([0.05] * round(seconds / 0.05))

    def assert_over(self, *waiting: Deferred[None]) -> None:
        for each in waiting:
            self.successResultOf(each)
        self.assertIsNone(self.exclusions.until_known)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_alone(self) -> None:
        with capture() as events:
            self.start()
        self.assert_over()
        self.assertEqual(events.text(), "")

    def test_first_link(self) -> None:
        """Agents wait for what comes with the first link, whatever becomes of others."""
        catch_up = self.start("b", "c")
        waiting = [self.wait() for _ in range(3)]
        self.links[0].failed = True
        self.pass_time(1)
        catch_up.linked()
        self.clock.advance(MARGIN / 2)
        self.assertNoResult(waiting[0])
        waiting[1].cancel()
        catch_up.linked()
        with capture() as events:
            self.pass_time(MARGIN)
        self.failureResultOf(waiting.pop(1))
        self.assert_over(*waiting)
        self.assertEqual(events.text(), "")

    def test_one_ends_with_another(self) -> None:
        """The connection of an agent may be closed by what happens to another one."""
        catch_up = self.start("b")
        first, second = self.wait(), self.wait()
        first.addCallback(lambda _: second.cancel())
        catch_up.linked()
        self.pass_time(1)
        self.failureResultOf(second)
        self.assert_over(first)

    def test_nobody_can_be_asked(self) -> None:
        self.start("b", "c")
        waiting = self.wait()
        self.links[0].failed = True
        self.pass_time(1)
        self.assertNoResult(waiting)
        self.links[1].failed = True
        with capture() as events:
            self.pass_time(0.1)
        self.assert_over(waiting)
        self.assertIn(
            "agents may join, although no other server has said whom operators keep out: "
            "b: refused; c: refused",
            events.text(),
        )

    def test_nobody_answers(self) -> None:
        self.start(*"bcdefgh")
        waiting = self.wait()
        self.pass_time(PATIENCE - 0.5)
        self.assertNoResult(waiting)
        with capture() as events:
            self.pass_time(1)
        self.assert_over(waiting)
        self.assertIn("f: refused; and 2 more", events.text())

    def test_store_is_away(self) -> None:
        """It is not known whom to ask."""
        self.start(read=False)
        waiting = self.wait()
        self.pass_time(PATIENCE - 0.5)
        self.assertNoResult(waiting)
        with capture() as events:
            self.pass_time(1)
        self.assert_over(waiting)
        self.assertIn("the directory has not been read within 5 s", events.text())

    def test_store_is_slow(self) -> None:
        self.start(read=False)
        waiting = self.wait()
        self.pass_time(1)
        self.read = True
        self.pass_time(0.1)
        self.assert_over(waiting)

    def test_stopped(self) -> None:
        catch_up = self.start("b")
        waiting = self.wait()
        catch_up.stop()
        self.assertNoResult(waiting)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        catch_up.stop()
