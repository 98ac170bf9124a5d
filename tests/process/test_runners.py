"""Tests for L{reverseproxy.process.runners} and L{reverseproxy.process.signals}."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Callable
from typing import Any

from twisted.internet.error import ReactorNotRunning
from twisted.internet.testing import MemoryReactor
from twisted.logger import LogBeginner, LogEvent, LogLevel, LogPublisher
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.config.models import ServerConfig
from reverseproxy.process.runners import DeduplicatingObserver, LogPlan, is_foreign, plan_log
from reverseproxy.process.signals import Signals
from tests.tunnel.logged import capture

TWIST = {"logLevel": LogLevel.warn, "logFormat": "json", "logFile": sys.__stdout__}


def server(path: str = "stdout", level: str = "DEBUG") -> ServerConfig:
    return ServerConfig.model_validate({"default_log_path": path, "default_log_level": level})


class PlanTests(SynchronousTestCase):
    def test_who_is_foreign(self) -> None:
        for runner, foreign in ((None, False), ({"nodaemon": True}, False), (TWIST, True), ({}, True)):
            self.assertEqual(is_foreign(runner), foreign)

    def test_twistd(self) -> None:
        here = {"nodaemon": True, "logfile": None}
        for runner in (None, here):
            self.assertEqual(plan_log(runner, server(), None, None), LogPlan("stdout", "DEBUG", "text"))
            self.assertEqual(plan_log(runner, server(), "WARN", "json"), LogPlan("stdout", "WARN", "json"))
            self.assertEqual(plan_log(runner, server("x.log"), None, None), LogPlan("x.log", "DEBUG", "text"))
        daemon = {"nodaemon": False, "logfile": None}
        self.assertEqual(plan_log(daemon, server(), None, None).path, "twistd.log")
        self.assertEqual(plan_log({**daemon, "logfile": "y.log"}, server("x.log"), None, None).path, "y.log")

    def test_twist_writes_by_itself(self) -> None:
        """What workers write looks like it."""
        for path in ("stdout", "-", ""):
            expected = LogPlan("stdout", "WARN", "json", theirs=True)
            self.assertEqual(plan_log(TWIST, server(path), None, None), expected)
        error = {**TWIST, "logFile": sys.__stderr__, "logLevel": LogLevel.critical}
        self.assertEqual(
            plan_log(error, server(), None, None), LogPlan("stderr", "FATAL", "json", theirs=True)
        )
        with open(self.mktemp(), "w") as file:
            self.assertEqual(plan_log({**TWIST, "logFile": file}, server(), None, None).path, file.name)
        self.assertEqual(plan_log({}, server(), None, None), LogPlan("stdout", "INFO", "text", theirs=True))

    def test_a_file_beside_it(self) -> None:
        self.assertEqual(
            plan_log(TWIST, server("x.log"), None, None), LogPlan("x.log", "DEBUG", "text", beside=True)
        )
        self.assertEqual(
            plan_log(TWIST, server("x.log"), "INFO", "json"), LogPlan("x.log", "INFO", "json", beside=True)
        )


class OnceTests(SynchronousTestCase):
    def test_what_is_published_again(self) -> None:
        """With what Twisted does when logging begins."""
        publisher = LogPublisher()
        beginner = LogBeginner(publisher, io.StringIO(), sys, __import__("warnings"))
        seen: list[LogEvent] = []
        twice: list[LogEvent] = []
        once = DeduplicatingObserver(seen.append)
        publisher.addObserver(once)
        publisher.addObserver(twice.append)
        for number in range(3):
            publisher({"number": number, "log_level": LogLevel.info})
        beginner.beginLoggingTo([lambda event: None], redirectStandardIO=False)
        once.begun()
        publisher({"number": 3, "log_level": LogLevel.info})
        self.assertEqual([event["number"] for event in seen], [0, 1, 2, 3])
        self.assertEqual([event["number"] for event in twice], [0, 1, 2, 0, 1, 2, 3])

    def test_events_that_are_equal(self) -> None:
        seen: list[LogEvent] = []
        once = DeduplicatingObserver(seen.append)
        for _ in range(2):
            once({"text": "the same"})
        self.assertEqual(len(seen), 2)


class Heard:
    """A service that hears of signals."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def cut_short(self) -> None:
        self.events.append("cut")

    def reload(self) -> None:
        self.events.append("reload")

    def reopen_logs(self) -> None:
        self.events.append("reopen")


class SignalsTests(SynchronousTestCase):
    """Several services in one process."""

    def setUp(self) -> None:
        self.reactor: Any = MemoryReactor()
        self.reactor.running = True
        self.handlers: dict[int, Callable[[], object]] = {}
        self.signals = Signals(lambda: self.reactor)
        self.patch(self.signals, "on", self.handlers.__setitem__)
        self.services = [Heard(), Heard()]
        for service in self.services:
            self.signals.add(service)
            self.signals.add(service)

    def test_every_service_hears(self) -> None:
        self.handlers[signal.SIGHUP]()
        self.handlers[signal.SIGUSR1]()
        self.assertEqual([each.events for each in self.services], [["reload", "reopen"]] * 2)

    def test_the_process_stops_once(self) -> None:
        with capture() as events:
            self.handlers[signal.SIGTERM]()
        self.assertEqual(len(events), 1)
        self.assertTrue(self.reactor.hasStopped)
        self.reactor.hasStopped = False
        self.handlers[signal.SIGINT]()
        self.assertFalse(self.reactor.hasStopped)
        self.assertEqual([each.events for each in self.services], [["cut"]] * 2)

    def test_it_stops_already(self) -> None:
        """As another process has taken its place: the first signal is nothing new, the second one counts."""

        def stop() -> None:
            raise ReactorNotRunning

        self.reactor.stop = stop
        self.handlers[signal.SIGTERM]()
        self.assertEqual(self.services[0].events, [])
        self.handlers[signal.SIGTERM]()
        self.assertEqual(self.services[0].events, ["cut"])

    def test_a_service_that_has_stopped(self) -> None:
        first, second = self.services
        self.signals.remove(first)
        self.signals.remove(first)
        self.handlers[signal.SIGHUP]()
        self.assertEqual((first.events, second.events), ([], ["reload"]))

    def test_when_all_have_stopped_it_begins_anew(self) -> None:
        self.handlers[signal.SIGTERM]()
        for service in self.services:
            self.signals.remove(service)
        self.reactor.hasStopped = False
        self.reactor.running = True
        self.signals.add(Heard())
        self.handlers[signal.SIGTERM]()
        self.assertTrue(self.reactor.hasStopped)

    def test_sigterm_is_taken_from_the_reactor(self) -> None:
        self.handlers.clear()
        self.signals.take_sigterm()
        [(call, arguments, keywords)] = self.reactor.triggers["after"]["startup"]
        call(*arguments, **keywords)
        self.assertEqual(list(self.handlers), [signal.SIGTERM])
