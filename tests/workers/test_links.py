"""Links between workers: who is there, and what ends one."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import Protocol
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.testing import MemoryReactor, join
from reverseproxy.workers import links as module
from reverseproxy.workers.links import HELLO_TIMEOUT, Link, Links
from reverseproxy.workers.messages import Message, MessageReader, encode
from reverseproxy.workers.streams import Asking
from tests.transport.contract import Building
from tests.tunnel.logged import capture


class Recorded(Links):
    """Links that note what they are told."""

    def __init__(self, number: int, reactor: MemoryReactor, count: int = 3) -> None:
        self.events: list[Any] = []
        super().__init__(
            number,
            count,
            reactor,
            lambda link, stream, message: self.events.append(("opened", stream, message)),
            self._message,
            lambda link: self.events.append(("came", link.number)),
            lambda link, reason: self.events.append(("went", link.number, reason)),
        )

    def _message(self, link: Link, message: Message) -> None:
        if "raise" in message:
            raise KeyError("raise")
        self.events.append(dict(message))


class LinkTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactor()
        self.one, self.two = Recorded(0, self.reactor), Recorded(1, self.reactor)

    def join(self) -> tuple[Link, Link]:
        dialled, accepted = self.one.make(1), self.two.make(None)
        join(self.reactor, dialled.session, accepted.session)
        self.reactor.settle()
        return dialled, accepted

    def test_both_know_who_is_there(self) -> None:
        dialled, accepted = self.join()
        self.assertEqual((self.one.events, self.two.events), ([("came", 1)], [("came", 0)]))
        self.assertEqual((self.one.up, self.two.up), ({1: dialled}, {0: accepted}))

    def test_messages_both_ways(self) -> None:
        dialled, accepted = self.join()
        dialled.send({"a": 1})
        accepted.send({"b": "x" * 100_000})
        self.reactor.settle()
        self.assertEqual(self.one.events[1:], [{"b": "x" * 100_000}])
        self.assertEqual(self.two.events[1:], [{"a": 1}])

    def test_a_link_that_is_lost(self) -> None:
        dialled, _ = self.join()
        dialled.abort("the test says so")
        self.reactor.settle()
        self.assertEqual(self.one.events[1:], [("went", 1, "worker 2 is gone")])
        self.assertEqual(self.two.events[1:], [("went", 0, "worker 1 is gone")])
        self.assertEqual((self.one.up, self.two.up, self.one.all, self.two.all), ({}, {}, set(), set()))
        dialled.send({"a": 1})

    def test_a_newer_link_takes_the_place_of_an_older_one(self) -> None:
        self.join()
        dialled, accepted = self.join()
        self.assertEqual((self.one.up, self.two.up), ({1: dialled}, {0: accepted}))
        kinds = [event[0] for event in self.two.events]
        self.assertEqual(kinds, ["came", "went", "came"])

    def test_another_version(self) -> None:
        self.patch(module, "VERSION", 2)
        dialled, accepted = self.one.make(1), self.two.make(None)
        join(self.reactor, dialled.session, accepted.session)
        self.patch(module, "VERSION", 1)
        with capture() as events:
            self.reactor.settle()
        self.assertIn("is of another version: it speaks 2, not 1", events.text())
        self.assertEqual((self.one.up, self.two.up), ({}, {}))

    def test_nobody_says_hello(self) -> None:
        accepted = self.two.make(None)
        join(self.reactor, accepted.session, Protocol())
        self.reactor.settle()
        self.assertEqual(self.two.all, {accepted})
        for _ in range(20):
            self.reactor.advance(HELLO_TIMEOUT / 20)
        self.assertEqual(self.two.all, set())

    def test_who_is_no_sibling(self) -> None:
        for number in (0, 3, -1):
            with self.subTest(number=number):
                self.one.number = number
                self.two.number = 0
                self.join()
                self.assertEqual(self.two.up, {})

    def test_streams_before_hello_are_refused(self) -> None:
        accepted = self.two.make(None)
        answers: list[str] = []
        other = self.one.make(1)
        other.begin = lambda: None  # type: ignore[method-assign]
        join(self.reactor, other.session, accepted.session)
        other.session.open(Building(lambda: Asking({"open": "a"}, lambda *_: None, answers.append)))
        self.reactor.settle()
        self.assertEqual(answers, ["say hello first"])
        self.assertEqual(self.two.events, [])

    def test_streams(self) -> None:
        dialled, _ = self.join()
        answers: list[Any] = []
        asking = Asking({"open": "a"}, lambda answer, rest: answers.append((answer, rest)), answers.append)
        dialled.session.open(Building(lambda: asking))
        self.reactor.settle()
        [_, (kind, stream, message)] = self.two.events
        self.assertEqual((kind, message), ("opened", {"open": "a"}))
        stream.transport.write(encode({"ok": True}) + b"and more")
        self.reactor.settle()
        self.assertEqual(answers, [({"ok": True}, b"and more")])

    def test_questions_that_are_not_answered(self) -> None:
        for answer in (encode({"refused": "no"}), b"\xff\xff\xff\xff", b""):
            with self.subTest(answer=answer):
                self.one.events.clear()
                self.two.events.clear()
                dialled, _ = self.join()
                refused: list[str] = []
                asking = Asking({"open": "a"}, lambda *_: self.fail("no"), refused.append)
                dialled.session.open(Building(lambda asking=asking: asking))
                self.reactor.settle()
                stream = next(event[1] for event in self.two.events if event[0] == "opened")
                stream.transport.write(answer)
                stream.transport.loseConnection()
                with capture():
                    self.reactor.settle()
                self.assertEqual(len(refused), 1)

    def test_a_question_that_is_taken_back(self) -> None:
        dialled, accepted = self.join()
        asking = Asking({"open": "a"}, lambda *_: self.fail("no"), lambda _: self.fail("no"))
        dialled.session.open(Building(lambda: asking))
        self.reactor.settle()
        asking.cancel()
        asking.cancel()
        self.reactor.settle()
        self.assertEqual(accepted.session.streams, 1)  # that of the messages

    def test_a_message_that_makes_no_sense(self) -> None:
        dialled, _ = self.join()
        dialled.send({"raise": 1})
        self.reactor.settle()
        self.assertEqual(self.two.up, {})
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_a_sibling_that_does_not_read(self) -> None:
        self.patch(module, "MAX_QUEUED", 5)
        dialled, accepted = self.join()
        assert accepted._messages is not None
        accepted._messages.transport.pauseProducing()
        for _ in range(40):
            dialled.send({"a": "x" * 50_000})
            self.reactor.settle()
        self.assertEqual(self.one.up, {})

    def test_messages_wait_for_a_sibling_that_does_not_read_for_a_while(self) -> None:
        dialled, accepted = self.join()
        assert accepted._messages is not None
        accepted._messages.transport.pauseProducing()
        for number in range(40):
            dialled.send({"a": number, "b": "x" * 50_000})
            self.reactor.settle()
        accepted._messages.transport.resumeProducing()
        self.reactor.settle()
        self.assertEqual([event["a"] for event in self.two.events[1:]], list(range(40)))

    def test_stopping(self) -> None:
        self.join()
        self.two.stop()
        self.reactor.settle()
        self.assertEqual((self.one.up, self.two.up), ({}, {}))
        self.join()
        self.assertEqual((self.one.up, self.two.up), ({}, {}))


class ReaderTests(SynchronousTestCase):
    def test_nothing_yet(self) -> None:
        self.assertIsNone(MessageReader().next())
