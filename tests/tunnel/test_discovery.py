"""Tests for L{reverseproxy.tunnel.agent.discovery}."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IReactorPluggableNameResolver,
    IResolutionReceiver,
)
from twisted.internet.task import Clock
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from reverseproxy.interfaces import IServerLister
from reverseproxy.net.resolver import ABANDONED_FORGOTTEN, LOOKUP_TIMEOUT, MAX_ADDRESSES, REFRESH
from reverseproxy.tunnel.agent.discovery import MAX_SERVERS, Discovery, Server, Target, parse_server
from tests.tunnel.logged import capture


def address(ip: str) -> IAddress:
    return IPv6Address("TCP", ip, 0) if ":" in ip else IPv4Address("TCP", ip, 0)


@implementer(IHostResolution)
class Resolution:
    """A lookup that can be cancelled, or not."""

    def __init__(self, name: str, error: Exception | None) -> None:
        self.name = name
        self.cancelled = False
        self._error = error

    def cancel(self) -> None:
        if self._error is not None:
            raise self._error
        self.cancelled = True


class Question:
    """A lookup under way."""

    def __init__(self, host: str, receiver: IResolutionReceiver) -> None:
        self.host = host
        self._receiver = receiver

    def answer(self, *ips: str) -> None:
        for ip in ips:
            self._receiver.addressResolved(address(ip))
        self._receiver.resolutionComplete()

    def give(self, ip: str) -> None:
        self._receiver.addressResolved(address(ip))


@implementer(IHostnameResolver)
class Resolver:
    """
    Answers when told to.

    @ivar known: names that are answered at once.
    """

    def __init__(self) -> None:
        self.questions: list[Question] = []
        self.resolutions: list[Resolution] = []
        self.known: dict[str, list[str]] = {}
        self.cancel_error: Exception | None = NotImplementedError()
        self.error: Exception | None = None
        self.begins = True

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        resolution = Resolution(hostName, self.cancel_error)
        self.resolutions.append(resolution)
        if self.begins:
            resolutionReceiver.resolutionBegan(resolution)
        question = Question(hostName, resolutionReceiver)
        if hostName in self.known:
            question.answer(*self.known[hostName])
        else:
            self.questions.append(question)
        if self.error is not None:
            raise self.error
        return resolution

    def take(self) -> Question:
        """The only lookup under way."""
        (question,) = self.questions
        self.questions.clear()
        return question


@implementer(IReactorPluggableNameResolver)
class Names:
    """A reactor as far as names go."""

    def __init__(self) -> None:
        self.nameResolver = Resolver()

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        raise NotImplementedError


@implementer(IServerLister)
class Lister:
    """Lists what it is told to."""

    update: Callable[[Sequence[str]], None]

    def __init__(self) -> None:
        self.started = 0
        self.stopped = 0
        self.error: Exception | None = None

    def start(self, update: Callable[[Sequence[str]], None]) -> None:
        self.started += 1
        self.update = update
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        self.stopped += 1
        if self.error is not None:
            raise self.error


class ParseTests(SynchronousTestCase):
    def test_good(self) -> None:
        for entry, host, port, found in (
            ("tunnel.example:9443", "tunnel.example", 9443, None),
            ("tunnel.example.:1", "tunnel.example.", 1, None),
            ("under_score:65535", "under_score", 65535, None),
            ("b\u00fccher.example:80", "b\u00fccher.example", 80, None),
            ("10.0.0.1:80", "10.0.0.1", 80, "10.0.0.1:80"),
            ("10.0.0.1:00080", "10.0.0.1", 80, "10.0.0.1:80"),
            ("[::1]:80", "::1", 80, "[::1]:80"),
            ("[2001:DB8::0:1]:80", "2001:DB8::0:1", 80, "[2001:db8::1]:80"),
            ("[fe80::1%eth0]:80", "fe80::1%eth0", 80, "[fe80::1%eth0]:80"),
            ("unix:/run/tunnel", "", 0, "unix:/run/tunnel"),
        ):
            self.assertEqual(parse_server(entry), Server(entry, host, port, found))
            self.assertEqual(Target(entry, "").host, host)

    def test_bad(self) -> None:
        for entry, pattern in (
            ("", "expected host:port with a number"),
            ("tunnel.example", "expected host:port with a number"),
            ("tunnel.example:", "expected host:port with a number"),
            ("tunnel.example:https", "expected host:port with a number"),
            ("tunnel.example:+80", "expected host:port with a number"),
            ("tunnel.example:\u0668\u0660", "expected host:port with a number"),
            ("tunnel.example:0", "the port must be 1 to 65535"),
            ("tunnel.example:65536", "the port must be 1 to 65535"),
            ("tunnel.example:123456", "a number for port"),
            (":80", "'' is no host name"),
            ("::1:80", "write IPv6 as .address.:port"),
            ("fe80::x:80", "'fe80::x' is no IPv6 address"),
            ("[10.0.0.1]:80", "write IPv6 as .address.:port, and others without"),
            ("[tunnel.example]:80", "'tunnel.example' is no IPv6 address"),
            ("[::1:80", "no IPv6 address"),
            ("[::1]", "a number for port"),
            ("http://tunnel.example:80", "'http://tunnel.example' is no IPv6 address"),
            ("//tunnel.example:80", "'//tunnel.example' is no host name"),
            ("tunnel example:80", "no host name"),
            ("tunnel\x00:80", "no host name"),
            ("a..b:80", "no host name"),
            ("x" * 64 + ":80", "no host name"),
            (".".join(["x" * 60] * 5) + ":80", "no host name"),
            ("unix:", "expected unix:/path"),
            ("unix:/a\x00b", "expected unix:/path"),
            (80, "expected a string such as host:port"),
            (None, "expected a string such as host:port"),
            (b"tunnel.example:80", "expected a string such as host:port"),
        ):
            with self.assertRaisesRegex(ValueError, pattern) as caught:
                parse_server(entry)
            self.assertLess(len(str(caught.exception)), 300)

    @given(st.text() | st.text(alphabet="[]:.0189afx%unix/"))
    def test_anything(self, entry: str) -> None:
        try:
            server = parse_server(entry)
        except ValueError:
            return
        self.assertEqual(server.name, entry)
        if server.address is not None:
            self.assertEqual(parse_server(server.address).address, server.address)


class DiscoveryCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.names = Names()
        self.resolver = self.names.nameResolver
        self.lister = Lister()
        self.reports: list[list[tuple[str, str]]] = []
        verifyObject(IReactorPluggableNameResolver, self.names)
        verifyObject(IHostnameResolver, self.resolver)
        verifyObject(IServerLister, self.lister)

    def updated(self, targets: Sequence[Target]) -> None:
        self.reports.append([(target.server, target.address) for target in targets])

    def make(self, *servers: str, **options: Any) -> Discovery:
        options = {"refresh": 30.0, "random": lambda: 0.5, "cluster": "c", **options}
        found = Discovery(servers, self.updated, self.clock, self.names, **options)
        self.addCleanup(self.leaves_nothing, found)
        return found

    def leaves_nothing(self, found: Discovery) -> None:
        found.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def start(self, *servers: str, **options: Any) -> Discovery:
        found = self.make(*servers, **options)
        found.start()
        return found

    def pending(self) -> float:
        """Seconds until the only thing that is due."""
        (call,) = self.clock.getDelayedCalls()
        return call.getTime() - self.clock.seconds()


class ResolvingTests(DiscoveryCase):
    def test_addresses_need_no_lookup(self) -> None:
        found = self.start("10.0.0.1:80", "[::1]:80", "unix:/run/t")
        self.assertEqual(
            self.reports,
            [[("10.0.0.1:80", "10.0.0.1:80"), ("[::1]:80", "[::1]:80"), ("unix:/run/t", "unix:/run/t")]],
        )
        self.assertEqual(self.resolver.questions, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(found.targets), 3)

    def test_every_address_of_a_name(self) -> None:
        self.start("t.example:9443")
        self.assertEqual(self.reports, [])
        question = self.resolver.take()
        self.assertEqual(question.host, "t.example")
        question.answer("10.0.0.1", "2001:db8::1", "10.0.0.1")
        self.assertEqual(
            self.reports,
            [[("t.example:9443", "10.0.0.1:9443"), ("t.example:9443", "[2001:db8::1]:9443")]],
        )

    def test_a_resolver_that_knows_at_once(self) -> None:
        self.resolver.known = {"a": ["10.0.0.1"], "b": ["10.0.0.2"]}
        self.start("b:1", "a:1", "10.0.0.3:1")
        # One report for all.
        self.assertEqual(
            self.reports, [[("b:1", "10.0.0.2:1"), ("a:1", "10.0.0.1:1"), ("10.0.0.3:1", "10.0.0.3:1")]]
        )

    def test_one_lookup_for_several_ports(self) -> None:
        self.start("t:1", "t:2", "t:1")
        self.resolver.take().answer("10.0.0.1")
        self.assertEqual(self.reports, [[("t:1", "10.0.0.1:1"), ("t:2", "10.0.0.1:2")]])

    def test_an_address_counts_once(self) -> None:
        self.resolver.known = {"a": ["10.0.0.1", "10.0.0.2"], "b": ["10.0.0.2", "10.0.0.3"]}
        self.start("a:1", "b:1", "10.0.0.3:1")
        self.assertEqual(
            self.reports, [[("a:1", "10.0.0.1:1"), ("a:1", "10.0.0.2:1"), ("b:1", "10.0.0.3:1")]]
        )

    def test_lookups_are_repeated(self) -> None:
        self.start("t:1", refresh=20.0)
        self.resolver.take().answer("10.0.0.1")
        self.assertEqual(self.pending(), 20.0)
        self.clock.advance(20)
        self.resolver.take().answer("10.0.0.2", "10.0.0.1")
        self.clock.advance(20)
        # The same ones in another order are no news.
        self.resolver.take().answer("10.0.0.1", "10.0.0.2")
        self.clock.advance(20)
        self.resolver.take().answer("10.0.0.2")
        self.assertEqual(
            [[where for _, where in report] for report in self.reports],
            [["10.0.0.1:1"], ["10.0.0.2:1", "10.0.0.1:1"], ["10.0.0.2:1"]],
        )

    def test_lookups_are_spread(self) -> None:
        for value, delay in ((0.0, 27.0), (1.0, 33.0)):
            found = self.start("t:1", random=lambda value=value: value)
            self.resolver.take().answer("10.0.0.1")
            self.assertAlmostEqual(self.pending(), delay)
            found.stop()

    def test_no_refresh(self) -> None:
        self.start("t:1", refresh=0.0)
        self.resolver.take().answer()
        self.clock.advance(self.pending())
        self.resolver.take().answer("10.0.0.1")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_resolver_of_the_moment_is_asked(self) -> None:
        self.start("t:1")
        self.resolver.take().answer("10.0.0.1")
        self.names.nameResolver = other = Resolver()
        self.clock.advance(30)
        self.assertEqual(self.resolver.questions, [])
        self.assertEqual(other.take().host, "t")

    def test_unknown_kinds_of_addresses(self) -> None:
        self.start("t:1")
        question = self.resolver.take()
        question._receiver.addressResolved(UNIXAddress("/x"))
        question.answer("10.0.0.1")
        self.assertEqual(self.reports, [[("t:1", "10.0.0.1:1")]])

    def test_addresses_are_bounded(self) -> None:
        self.start("t:1")
        self.resolver.take().answer(*(f"10.0.{n // 250}.{n % 250}" for n in range(2000)))
        self.assertEqual(len(self.reports[0]), MAX_ADDRESSES)


class FailureTests(DiscoveryCase):
    def test_no_address_is_a_failure(self) -> None:
        self.start("t:1")
        with capture() as events:
            self.resolver.take().answer()
        self.assertEqual(events.levels(), [LogLevel.warn])
        self.assertIn("looking up t failed: it has no address; no address is known; next", events.text())
        self.assertEqual(self.reports, [])

    def test_one_line_as_long_as_it_lasts(self) -> None:
        """When it begins, once a minute, and when it is over; with the next attempt."""
        self.start("t:1")
        with capture() as events:
            began = self.clock.seconds()
            while self.clock.seconds() - began < 110:
                self.resolver.take().answer()
                self.clock.advance(self.pending())
        self.assertEqual(events.levels().count(LogLevel.warn), 2)
        self.assertRegex(events.text(), "times now\\); no address is known; next attempt in [0-9.]+ s")
        with capture() as events:
            self.resolver.take().answer("10.0.0.1")
        self.assertRegex(events.text(), "looking up t works again, after [0-9]+ failed attempts")

    def test_backoff(self) -> None:
        self.start("t:1", refresh=100.0)
        delays = []
        for _ in range(8):
            self.resolver.take().answer()
            delays.append(self.pending() / 0.75)
            self.clock.advance(self.pending())
        self.assertEqual(delays, [1, 2, 4, 8, 16, 30, 30, 30])
        # A success starts over.
        self.resolver.take().answer("10.0.0.1")
        self.clock.advance(self.pending())
        self.resolver.take().answer()
        self.assertEqual(self.pending(), 0.75)

    def test_backoff_stays_within_the_refresh_interval(self) -> None:
        for refresh, longest in ((5.0, 5.0), (0.1, 1.0), (0.0, 30.0)):
            found = self.start("t:1", refresh=refresh, random=lambda: 1.0)
            for _ in range(7):
                self.resolver.take().answer()
                delay = self.pending()
                self.clock.advance(delay)
            self.assertEqual(delay, longest)
            self.resolver.questions.clear()
            found.stop()

    def test_backoff_has_jitter(self) -> None:
        for value, delay in ((0.0, 0.5), (1.0, 1.0)):
            found = self.start("t:1", random=lambda value=value: value)
            self.resolver.take().answer()
            self.assertEqual(self.pending(), delay)
            found.stop()

    def test_known_addresses_stay(self) -> None:
        found = self.start("t:1", "u:1")
        for question in self.resolver.questions:
            question.answer("10.0.0.1" if question.host == "t" else "10.0.0.2")
        self.resolver.questions.clear()
        self.clock.advance(30)
        with capture() as events:
            for question in self.resolver.questions:
                question.answer(*(["10.0.0.3"] if question.host == "u" else []))
        self.assertIn("1 known address stays in use", events.text())
        self.assertEqual(found.targets, (Target("t:1", "10.0.0.1:1"), Target("u:1", "10.0.0.3:1")))

    def test_deadline(self) -> None:
        self.start("t:1")
        question = self.resolver.take()
        question.give("10.0.0.9")
        with capture() as events:
            self.clock.advance(LOOKUP_TIMEOUT)
        self.assertIn("no answer within 10 s", events.text())
        self.clock.advance(self.pending())
        again = self.resolver.take()
        # Too late.
        question.answer("10.0.0.9")
        self.assertEqual(self.reports, [])
        again.answer("10.0.0.1")
        self.assertEqual(self.reports, [[("t:1", "10.0.0.1:1")]])

    def test_a_lookup_out_of_time_is_cancelled(self) -> None:
        self.resolver.cancel_error = None
        self.start("t:1")
        for _ in range(10):
            self.clock.advance(LOOKUP_TIMEOUT)
            self.clock.advance(self.pending())
        self.assertEqual([each.cancelled for each in self.resolver.resolutions], [True] * 10 + [False])

    def test_lookups_that_can_not_be_cancelled_are_bounded(self) -> None:
        self.start("t:1")
        with capture() as events:
            for _ in range(10):
                self.clock.advance(self.pending())
        self.assertIn("2 earlier lookups are still under way", events.text())
        self.assertEqual(len(self.resolver.questions), 2)
        # One ends after all: there is room for another one.
        self.resolver.questions[0].answer("10.0.0.9")
        self.clock.advance(self.pending())
        self.assertEqual(len(self.resolver.questions), 3)
        self.resolver.questions[2].answer("10.0.0.1")
        self.assertEqual(self.reports, [[("t:1", "10.0.0.1:1")]])

    def test_lookups_that_got_lost_are_forgotten(self) -> None:
        self.start("t:1")
        while self.clock.seconds() < ABANDONED_FORGOTTEN - 60:
            self.clock.advance(self.pending())
        self.assertEqual(len(self.resolver.questions), 2)
        for _ in range(6):
            self.clock.advance(self.pending())
        self.assertGreater(len(self.resolver.questions), 2)

    def test_a_resolver_that_never_begins(self) -> None:
        self.resolver.begins = False
        found = self.start("t:1")
        self.clock.advance(LOOKUP_TIMEOUT)
        self.clock.advance(self.pending())
        found.stop()

    def test_cancelling_fails(self) -> None:
        self.resolver.cancel_error = ZeroDivisionError()
        self.start("t:1")
        self.clock.advance(LOOKUP_TIMEOUT)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.clock.advance(self.pending())
        self.resolver.questions[1].answer("10.0.0.1")
        self.assertEqual(len(self.reports), 1)

    def test_a_resolver_that_raises(self) -> None:
        for error, text in ((UnicodeError("bad name"), "bad name"), (RuntimeError(), "RuntimeError")):
            self.resolver.error = error
            found = self.make("t:1")
            with capture() as events:
                found.start()
            self.assertIn(text, events.text())
            self.resolver.error = None
            self.resolver.questions.clear()
            self.clock.advance(self.pending())
            self.resolver.take().answer("10.0.0.1")
            found.stop()
        self.assertEqual(len(self.reports), 2)

    def test_a_resolver_that_answers_and_raises(self) -> None:
        self.resolver.known = {"t": ["10.0.0.1"]}
        self.resolver.error = RuntimeError()
        self.start("t:1")
        self.assertEqual(self.reports, [[("t:1", "10.0.0.1:1")]])
        self.assertEqual(self.pending(), 30.0)

    def test_bad_entries_are_skipped(self) -> None:
        with capture() as events:
            self.start("10.0.0.1:1", "nonsense", "10.0.0.2:2")
        self.assertEqual(self.reports, [[("10.0.0.1:1", "10.0.0.1:1"), ("10.0.0.2:2", "10.0.0.2:2")]])
        self.assertIn("agent of cluster c: an entry of server_list is skipped: 'nonsense'", events.text())

    def test_servers_are_bounded(self) -> None:
        with capture() as events:
            self.start(
                *(f"10.0.{n // 250}.{n % 250}:1" for n in range(MAX_SERVERS)), "10.0.0.0:1", "x:1", "y:1"
            )
        self.assertEqual(len(self.reports[0]), MAX_SERVERS)
        self.assertIn("server_list has more than 1024 servers, the rest is skipped", events.text())

    def test_whoever_is_told_may_fail(self) -> None:
        def fail(targets: Sequence[Target]) -> None:
            raise ZeroDivisionError

        self.patch(self, "updated", fail)
        self.start("t:1")
        self.resolver.take().answer("10.0.0.1")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.clock.advance(30)
        self.resolver.take().answer("10.0.0.2")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class StopTests(DiscoveryCase):
    def test_before_and_twice(self) -> None:
        found = self.make("t:1", lister=self.lister)
        found.stop()
        found.start()
        found.start()
        found.stop()
        found.stop()
        self.assertEqual((self.lister.started, self.lister.stopped), (1, 1))

    def test_nothing_comes_after_it(self) -> None:
        self.resolver.cancel_error = None
        found = self.start("t:1", "10.0.0.1:1", lister=self.lister)
        question = self.resolver.take()
        found.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertTrue(self.resolver.resolutions[0].cancelled)
        question.answer("10.0.0.2")
        self.lister.update(["10.0.0.3:1"])
        self.assertEqual(len(self.reports), 1)

    def test_by_whoever_is_told(self) -> None:
        self.resolver.known = {"t": ["10.0.0.1"]}
        for server in ("10.0.0.2:1", "t:1"):
            found = self.make(server, lister=self.lister)
            self.patch(found, "_update", lambda _, found=found: found.stop())
            found.start()
            self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.lister.started, 0)

    def test_and_started_again(self) -> None:
        found = self.start("t:1", lister=self.lister)
        self.lister.update(["10.0.0.9:1"])
        self.resolver.take().answer("10.0.0.1")
        found.stop()
        self.assertEqual(found.targets, ())
        self.reports.clear()
        found.start()
        self.resolver.take().answer("10.0.0.1")
        self.lister.update(["10.0.0.9:1"])
        self.assertEqual(
            self.reports,
            [
                [("t:1", "10.0.0.1:1")],
                [("t:1", "10.0.0.1:1"), ("10.0.0.9:1", "10.0.0.9:1")],
            ],
        )


class ListerTests(DiscoveryCase):
    def test_listed_servers_are_added(self) -> None:
        self.start("10.0.0.1:1", lister=self.lister)
        self.lister.update(["10.0.0.2:1", "t:1", "10.0.0.1:1"])
        self.resolver.take().answer("10.0.0.3")
        self.assertEqual(
            self.reports[-1],
            [("10.0.0.1:1", "10.0.0.1:1"), ("10.0.0.2:1", "10.0.0.2:1"), ("t:1", "10.0.0.3:1")],
        )

    def test_static_servers_stay(self) -> None:
        self.start("10.0.0.1:1", "t:1", lister=self.lister)
        self.resolver.take().answer("10.0.0.2")
        before = self.reports[-1]
        self.lister.update(["10.0.0.9:1", "t:1"])
        self.lister.update([])
        self.assertEqual(self.reports[-1], before)
        # The name was not looked up anew.
        self.assertEqual(self.resolver.questions, [])

    def test_names_that_are_no_longer_listed(self) -> None:
        self.resolver.cancel_error = None
        self.start(lister=self.lister)
        self.lister.update(["t:1", "u:1"])
        self.lister.update(["u:1"])
        self.assertEqual(
            [(each.name, each.cancelled) for each in self.resolver.resolutions], [("t", True), ("u", False)]
        )
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.resolver.questions[1].answer("10.0.0.1")
        self.lister.update([])
        self.assertEqual(self.reports, [[("u:1", "10.0.0.1:1")], []])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_same_list_again(self) -> None:
        self.start(lister=self.lister)
        with capture() as events:
            for _ in range(3):
                self.lister.update(["nonsense", "10.0.0.1:1"])
        self.assertEqual(len(events), 1)
        self.assertEqual(len(self.reports), 1)
        self.assertIn("an entry of the server lister is skipped", events.text())

    def test_what_is_no_list(self) -> None:
        self.start("10.0.0.1:1", lister=self.lister)
        with capture() as events:
            for value in ("10.0.0.2:1", b"x", None, 5):
                self.lister.update(value)  # type: ignore[arg-type]
        self.assertEqual(events.levels(), [LogLevel.error] * 4)
        self.assertEqual(len(self.reports), 1)
        self.lister.update([None, 5, "10.0.0.2:1"])  # type: ignore[list-item]
        self.assertEqual(self.reports[-1][-1], ("10.0.0.2:1", "10.0.0.2:1"))

    def test_a_lister_that_raises(self) -> None:
        self.lister.error = ZeroDivisionError()
        found = self.start("10.0.0.1:1", lister=self.lister)
        self.assertEqual(len(self.reports), 1)
        found.stop()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)


class DefaultTests(SynchronousTestCase):
    def test_bounds(self) -> None:
        found = Discovery((), lambda _: None, Clock(), Names())
        self.assertEqual(found.refresh, REFRESH)
        self.assertTrue(0.0 <= found.random() < 1.0)
