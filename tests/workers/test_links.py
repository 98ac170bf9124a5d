"""Links between workers: which are open, and what ends one."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import tempfile
from types import SimpleNamespace
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from reverseproxy.errors import ConnectionUnavailable
from reverseproxy.mux.session import StreamRefused
from reverseproxy.testing import MemoryReactor, Recorder
from reverseproxy.transport import is_supported, with_streams
from reverseproxy.workers import links as module
from reverseproxy.workers import sibling_sockets
from reverseproxy.workers.links import HELLO_TIMEOUT, VERSION, Link, Links, socket_path
from reverseproxy.workers.messages import ControlMessageReader, encode
from reverseproxy.workers.sibling_sockets import KIND
from tests.transport.contract import CallableFactory
from tests.tunnel.logged import capture
from tests.workers.world import MemoryChannel


class Business:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.handles: list[Any] = []

    def received(self, link: Link, message: Any, handle: Any) -> None:
        if "raise" in message:
            raise KeyError("raise")
        self.events.append(dict(message))
        if handle is not None:
            self.handles.append(handle)

    def opened(self, link: Link, stream: Any, message: Any) -> None:
        self.events.append(("opened", stream, message))

    def came(self, link: Link) -> None:
        self.events.append(("came", link.number))

    def went(self, link: Link, reason: str) -> None:
        self.events.append(("went", link.number, reason))


class Recorded(Links):
    """Links that note what they are told."""

    def __init__(self, number: int, clock: Any, count: int = 3) -> None:
        self.noted = Business()
        super().__init__(number, count, clock, self.noted)

    @property
    def events(self) -> list[Any]:
        return self.noted.events


class Asking(Recorder):
    """Opens a stream with a question."""

    def connectionMade(self) -> None:
        self.transport.write(encode({"turn": "a"}) + b"and more")


class LinkTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactor()
        self.one, self.two = Recorded(0, self.reactor), Recorded(1, self.reactor)

    def begin(self) -> tuple[Link, Link]:
        dialled, accepted = Link(self.one, 1), Link(self.two, None)
        ends = MemoryChannel.pair(self.reactor, dialled, accepted)
        accepted.begin(ends[1])
        dialled.begin(ends[0])
        return dialled, accepted

    def join(self) -> tuple[Link, Link]:
        ends = self.begin()
        self.reactor.settle()
        return ends

    def test_both_know_who_is_there(self) -> None:
        dialled, accepted = self.join()
        self.assertEqual((self.one.events, self.two.events), ([("came", 1)], [("came", 0)]))
        self.assertEqual((self.one.up, self.two.up), ({1: dialled}, {0: accepted}))
        self.assertEqual(list(self.one), [dialled])

    def test_messages_both_ways(self) -> None:
        dialled, accepted = self.join()
        dialled.send({"a": 1})
        accepted.send({"b": "x" * 100_000})
        self.reactor.settle()
        self.assertEqual(self.one.events[1:], [{"b": "x" * 100_000}])
        self.assertEqual(self.two.events[1:], [{"a": 1}])

    def test_a_message_that_is_too_large(self) -> None:
        dialled, _ = self.join()
        near, far = self.reactor.make_pair()
        recorder = Recorder()
        near.put_in(recorder)
        with capture() as events:
            dialled.send({"a": "x" * 1_000_000}, far)
            dialled.send({"b": 1})
            self.reactor.settle()
        self.assertIn("can't be sent to another worker", events.text())
        self.assertEqual(self.two.events[1:], [{"b": 1}])
        self.assertIsNotNone(recorder.reason)

    def test_a_link_that_is_lost(self) -> None:
        dialled, accepted = self.join()
        dialled.abort("the test says so")
        self.reactor.settle()
        self.assertEqual(self.one.events[1:], [("went", 1, "worker 2 is gone")])
        self.assertEqual(self.two.events[1:], [("went", 0, "worker 1 is gone")])
        self.assertEqual((self.one.up, self.two.up, self.one.all, self.two.all), ({}, {}, set(), set()))
        self.assertTrue(dialled.session.lost)
        self.assertTrue(accepted.session.lost)
        near, far = self.reactor.make_pair()
        recorder = Recorder()
        near.put_in(recorder)
        dialled.send({"a": 1}, far)
        self.reactor.settle()
        self.assertIsNotNone(recorder.reason)

    def test_streams_that_are_lost_take_the_channel_along(self) -> None:
        dialled, _ = self.join()
        dialled.session.abort("the test says so")
        self.reactor.settle()
        self.assertEqual((self.one.up, self.two.up), ({}, {}))

    def test_a_newer_link_takes_the_place_of_an_older_one(self) -> None:
        self.join()
        dialled, accepted = self.join()
        self.assertEqual((self.one.up, self.two.up), ({1: dialled}, {0: accepted}))
        kinds = [event[0] for event in self.two.events]
        self.assertEqual(kinds, ["came", "went", "came"])

    def test_another_version(self) -> None:
        self.patch(module, "VERSION", VERSION + 1)
        self.begin()
        self.patch(module, "VERSION", VERSION)
        with capture() as events:
            self.reactor.settle()
        self.assertIn(f"is of another version: it speaks {VERSION + 1}, not {VERSION}", events.text())
        self.assertEqual((self.one.up, self.two.up), ({}, {}))

    def test_nobody_says_hello(self) -> None:
        accepted = Link(self.two, None)
        accepted.begin(MemoryChannel(self.reactor, accepted))
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

    def test_streams(self) -> None:
        dialled, _ = self.join()
        asking = Asking()
        dialled.session.open(CallableFactory(lambda: asking))
        self.reactor.settle()
        [_, (kind, stream, message)] = self.two.events
        self.assertEqual((kind, message, stream.rest()), ("opened", {"turn": "a"}, b"and more"))
        stream.refuse()
        self.reactor.settle()
        assert asking.reason is not None
        asking.reason.trap(StreamRefused)  # so that it may be tried elsewhere

    def test_streams_before_hello_are_refused(self) -> None:
        dialled, accepted = self.begin()
        accepted.up = False
        asking = Asking()
        dialled.session.open(CallableFactory(lambda: asking))
        self.patch(self.two, "came", lambda link: setattr(link, "up", False))
        self.reactor.settle()
        assert asking.reason is not None
        asking.reason.trap(StreamRefused)
        self.assertEqual(self.two.events, [])

    def test_a_message_that_makes_no_sense(self) -> None:
        dialled, _ = self.join()
        dialled.send({"raise": 1})
        self.reactor.settle()
        self.assertEqual(self.two.up, {})
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_stopping(self) -> None:
        self.join()
        self.two.stop()
        self.reactor.settle()
        self.assertEqual((self.one.up, self.two.up), ({}, {}))
        self.join()
        self.assertEqual((self.one.up, self.two.up), ({}, {}))


class RendezvousTests(TestCase):
    """How workers find each other: real sockets in a directory."""

    def setUp(self) -> None:
        self.clock: Any = with_streams(reactor) if is_supported(reactor) else reactor
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)
        self.links: list[Recorded] = []
        self.sockets: list[socket.socket] = []
        for number in range(3):
            listening = socket.socket(socket.AF_UNIX, KIND)
            listening.setblocking(False)
            listening.bind(socket_path(self.directory, number))
            listening.listen()
            self.addCleanup(listening.close)
            self.sockets.append(listening)

    def start(self, number: int) -> Recorded:
        links = Recorded(number, self.clock)
        links.start(self.directory, socket.socket(fileno=os.dup(self.sockets[number].fileno())))
        self.addCleanup(links.stop)
        return links

    @inlineCallbacks
    def until(self, done: Any) -> Any:
        for _ in range(1000):
            if done():
                return
            yield deferLater(reactor, 0.01)
        self.fail("that takes too long")

    @inlineCallbacks
    def test_all_are_linked_whoever_comes_first(self) -> Any:
        links = [self.start(number) for number in (2, 0, 1)]
        yield self.until(lambda: all(len(each.up) == 2 for each in links))
        near, far = socket.socketpair()
        self.addCleanup(near.close)
        links[1].up[2].send({"hello": "you"}, far)
        yield self.until(lambda: links[0].noted.handles)
        links[0].noted.handles[0].close()
        self.assertEqual(near.recv(1), b"")

    @inlineCallbacks
    def test_no_descriptor_is_left_for_a_while(self) -> Any:
        """Whichever call finds that out, whoever dials tries again, and whoever accepts does not spin."""
        left = dict.fromkeys(("socket", "make_pair", "put_in", "accept"), 2)

        def short(name: str, call: Any) -> Any:
            def try_to(*arguments: Any) -> Any:
                if left[name]:
                    left[name] -= 1
                    error = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
                    raise ConnectionUnavailable(str(error)) if name == "put_in" else error
                return call(*arguments)

            return try_to

        class Listening(socket.socket):
            accept = short("accept", socket.socket.accept)

        with capture() as events:
            patches = [
                self.patch(module, name, short(name, getattr(module, name)))
                for name in ("make_pair", "put_in")
            ]
            fake = SimpleNamespace(AF_UNIX=socket.AF_UNIX, socket=short("socket", socket.socket))
            patches.append(self.patch(sibling_sockets, "socket", fake))
            one = Recorded(0, self.clock, 2)
            listening = Listening(fileno=os.dup(self.sockets[1].fileno()))
            listening.setblocking(False)
            other = Recorded(1, self.clock, 2)
            other.start(self.directory, listening)
            self.addCleanup(other.stop)
            one.start(self.directory, Listening(fileno=os.dup(self.sockets[0].fileno())))
            self.addCleanup(one.stop)
            yield self.until(lambda: one.up and other.up)
            for patch in patches:
                patch.restore()
        self.assertEqual(set(left.values()), {0})
        self.assertIn(os.strerror(errno.EMFILE), events.text())

    @inlineCallbacks
    def test_one_that_is_started_again_is_linked_again(self) -> Any:
        links = [self.start(number) for number in range(3)]
        yield self.until(lambda: all(len(each.up) == 2 for each in links))
        links[2].stop()
        yield self.until(lambda: all(len(each.up) == 1 for each in links[:2]))
        again = self.start(2)
        yield self.until(lambda: len(again.up) == 2)
        yield self.until(lambda: all(len(each.up) == 2 for each in links[:2]))

    @inlineCallbacks
    def test_streams(self) -> Any:
        links = [self.start(number) for number in range(2)]
        yield self.until(lambda: all(len(each.up) == 1 for each in links))
        lost: Deferred[None] = Deferred()
        asking = Asking()
        asking.connectionLost = lambda reason: lost.errback(reason)  # type: ignore[method-assign,assignment]
        links[1].up[0].session.open(CallableFactory(lambda: asking))
        yield self.until(lambda: len(links[0].events) == 2)
        links[0].events[1][1].refuse()
        yield self.assertFailure(lost, StreamRefused)


class ReaderTests(SynchronousTestCase):
    def test_nothing_yet(self) -> None:
        self.assertIsNone(ControlMessageReader().next())
