"""Tests for L{reverseproxy.workers.socket_shares}."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.workers.slots import Slot, WorkerState
from reverseproxy.workers.socket_shares import PATIENCE, SocketShares


class Worker(Slot):
    """A slot that records what its worker is told to accept from."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.watched: list[list[int]] = []

    def send(self, message: Any) -> None:
        self.watched.append(message["slots"])


class SocketSharesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.workers = [Worker(number) for number in range(3)]
        self.shares = SocketShares(self.workers, self.clock)

    def ready(self, number: int) -> None:
        self.workers[number].state = WorkerState.READY

    def test_none_before_all(self) -> None:
        self.shares.hold(PATIENCE)
        self.ready(0)
        self.shares.share_out()
        self.clock.advance(PATIENCE - 0.1)
        self.assertEqual([each.watched for each in self.workers], [[[]]] * 3)
        self.ready(1)
        self.ready(2)
        self.shares.open()
        self.shares.share_out()
        self.assertEqual([each.watched[1:] for each in self.workers], [[[0]], [[1]], [[2]]])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_that_is_not_ready_in_time(self) -> None:
        """The others do not wait for it any longer."""
        self.shares.hold(PATIENCE)
        self.ready(0)
        self.ready(1)
        self.clock.advance(PATIENCE)
        self.assertEqual([each.watched for each in self.workers], [[[0, 2]], [[1, 2]], [[2]]])
        self.ready(2)
        self.shares.share_out()
        self.assertEqual([each.watched[1:] for each in self.workers], [[[0]], [[1]], [[2]]])

    def test_as_long_as_it_takes(self) -> None:
        """As when it takes over a process that serves still."""
        self.shares.hold(None)
        self.ready(0)
        self.clock.advance(10 * PATIENCE)
        self.assertEqual(self.shares.of(self.workers[0]), [])

    def test_stopped_before(self) -> None:
        self.shares.hold(PATIENCE)
        self.shares.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.shares.of(self.workers[0]), [])

    def test_those_that_do_not_run(self) -> None:
        self.shares.open()
        self.ready(0)
        self.ready(2)
        self.assertEqual(self.shares.of(self.workers[0]), [0, 1])
        self.assertEqual(self.shares.of(self.workers[1]), [1])
        self.ready(1)
        self.assertEqual(self.shares.of(self.workers[0]), [0])
