"""Tests for L{reverseproxy.workers.asking}."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.workers.asking import ANSWER_TIMEOUT, MAX_OPEN, Inquiry, WorkerAnswer


class Worker:
    def __init__(self, name: int) -> None:
        self.name = name
        self.sent: list[Any] = []

    def send(self, message: Any) -> None:
        self.sent.append(message)


class InquiryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.inquiry = Inquiry(self.clock)
        self.one, self.two = Worker(1), Worker(2)

    def test_all_answer(self) -> None:
        asked = self.inquiry.ask([self.one, self.two], "metrics", {"a": 1})
        [message] = self.one.sent
        self.assertEqual(message, {"do": "answer", "number": 1, "question": "metrics", "arguments": {"a": 1}})
        self.inquiry.answered(2, {"number": 1, "value": "b"})
        self.assertNoResult(asked)
        self.inquiry.answered(1, {"number": 1, "problem": "failed: x"})
        self.assertEqual(
            self.successResultOf(asked), [WorkerAnswer(1, None, "failed: x"), WorkerAnswer(2, "b")]
        )
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_hangs(self) -> None:
        asked = self.inquiry.ask([self.one, self.two], "metrics", {})
        self.inquiry.answered(1, {"number": 1, "value": "a"})
        self.clock.advance(ANSWER_TIMEOUT)
        [first, second] = self.successResultOf(asked)
        self.assertEqual((first.value, second.value, second.problem), ("a", None, "no answer within 5 s"))
        self.inquiry.answered(2, {"number": 1, "value": "late"})

    def test_one_ends(self) -> None:
        asked = self.inquiry.ask([self.one, self.two], "metrics", {})
        self.inquiry.gone(1)
        self.inquiry.answered(2, {"number": 1, "value": "b"})
        self.assertEqual(self.successResultOf(asked)[0], WorkerAnswer(1, None, "the worker has ended"))

    def test_nobody(self) -> None:
        self.assertEqual(self.successResultOf(self.inquiry.ask([], "metrics", {})), [])

    def test_a_worker_that_hangs_is_not_asked_for_ever(self) -> None:
        for _ in range(MAX_OPEN + 10):
            asked = self.inquiry.ask([self.one], "metrics", {})
        [answer] = self.successResultOf(asked)
        self.assertEqual(answer.problem, "too many questions are open")
        self.assertEqual(len(self.one.sent), MAX_OPEN)
        self.clock.advance(ANSWER_TIMEOUT)
