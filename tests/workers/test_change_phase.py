"""Tests for L{reverseproxy.workers.change_phase} and L{reverseproxy.workers.handover}."""

from __future__ import annotations

import json
import os
import socket

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.config.loader import loads
from reverseproxy.errors import WireError
from reverseproxy.problems import DOCUMENT, PART, Problem
from reverseproxy.workers.change_phase import PATIENCE, ChangePhase
from reverseproxy.workers.handover import Handed, receive, send
from tests.config.documents import TUNNEL_SERVER

WRONG = Problem.at(PART / "a" / "b", "is wrong")


class TurnTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.turn = ChangePhase(7, [1, 2], self.clock)
        self.done = self.turn.wait()

    def test_all_are_ready(self) -> None:
        self.turn.prepared(1, {"turn": 7, "problems": []})
        self.assertNoResult(self.done)
        self.turn.prepared(2, {"turn": 7})
        self.assertEqual(self.successResultOf(self.done), [])
        self.assertEqual((self.turn.ready, self.clock.getDelayedCalls()), ({1, 2}, []))

    def test_what_is_wrong(self) -> None:
        """What all of them say is told once."""
        for worker in (1, 2):
            self.turn.prepared(worker, {"turn": 7, "problems": [WRONG.to_message()]})
        self.assertEqual(self.successResultOf(self.done), [WRONG])

    def test_one_that_is_gone(self) -> None:
        self.turn.prepared(1, {"turn": 7})
        self.turn.gone(2)
        self.assertEqual(self.successResultOf(self.done), [])
        self.assertEqual(self.turn.ready, {1})

    def test_answers_of_another_turn(self) -> None:
        self.turn.prepared(1, {"turn": 6, "problems": [WRONG.to_message()]})
        self.turn.prepared(3, {"turn": 7, "problems": [WRONG.to_message()]})
        self.assertNoResult(self.done)
        self.clock.advance(PATIENCE)
        self.successResultOf(self.done)

    def test_one_that_is_late(self) -> None:
        self.turn.prepared(2, {"turn": 7})
        self.clock.advance(PATIENCE)
        [problem] = self.successResultOf(self.done)
        self.assertEqual(problem.place, DOCUMENT)
        self.assertIn("worker 1 was not ready", problem.reason)
        self.turn.prepared(1, {"turn": 7})

    def test_nobody(self) -> None:
        self.assertEqual(self.successResultOf(ChangePhase(1, [], self.clock).wait()), [])


class HandoverTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        for each in (self.ours, self.theirs):
            each.setblocking(False)
            self.addCleanup(each.close)

    def test_a_configuration_and_many_sockets(self) -> None:
        loaded = loads(json.dumps(TUNNEL_SERVER), "file")
        handed = Handed(loaded, {"new": "old"}, {"more": 100})
        sockets = [socket.socket() for _ in range(100)]
        sockets[99].bind(("127.0.0.1", 0))
        count = send(self.ours, handed, sockets)
        got, received = receive(self.theirs, count)
        self.assertEqual(got, handed)
        self.assertEqual(len(received), 100)
        self.assertEqual(received[99].getsockname(), sockets[99].getsockname())
        for each in (*sockets, *received):
            each.close()

    def test_nothing_is_left_open(self) -> None:
        before = len(os.listdir("/proc/self/fd"))
        loaded = loads(json.dumps(TUNNEL_SERVER), "file")
        for _ in range(3):
            count = send(self.ours, Handed(loaded, {}, {}), [])
            receive(self.theirs, count)
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    def test_nothing_is_there(self) -> None:
        self.assertRaises(WireError, receive, self.theirs, 1)
        self.ours.close()
        self.assertRaises(WireError, receive, self.theirs, 1)
