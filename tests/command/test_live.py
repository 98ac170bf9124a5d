"""Tests for L{reverseproxy.command.live}."""

from __future__ import annotations

from io import StringIO
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.command.live import LiveLine, LiveSample, remedy, render


class RenderTests(SynchronousTestCase):
    def line(
        self, now: LiveSample, before: LiveSample | None = None, tcp: bool = False, width: int = 80
    ) -> str:
        return render("app", before or LiveSample(0.0, 1, 1), now, tcp, width)

    def test_connections(self) -> None:
        self.assertEqual(self.line(LiveSample(1.0, 1, 1)), "app  1 connection  0 requests")
        self.assertEqual(self.line(LiveSample(1.0, 1, 2)), "app  1 of 2 connections, trying  0 requests")

    def test_requests(self) -> None:
        before = LiveSample(0.0, 2, 2, 10, 0, 1.0)
        self.assertEqual(
            self.line(LiveSample(2.0, 2, 2, 11, 3, 1.5), before),
            "app  2 connections  11 requests  3 under way  0.5/s  500 ms",
        )
        self.assertEqual(
            self.line(LiveSample(2.0, 2, 2, 14, 0, 9.0), before),
            "app  2 connections  14 requests  2.0/s  2.0 s",
        )
        self.assertEqual(
            self.line(LiveSample(2.0, 2, 2, 11, 0, 1.5), before, tcp=True),
            "app  2 connections  11 sessions  0.5/s",
        )

    def test_narrow(self) -> None:
        self.assertEqual(self.line(LiveSample(1.0, 1, 1), width=10), "app  1 c…")

    def test_remedies(self) -> None:
        for text in (
            "agent of cluster app: h:1: the server rejected the credential (the server's log says more)",
            "agent of cluster app: h:1: nothing listens there (connection refused); next attempt in 1.00 s",
            "agent of cluster app: h:1: no answer in time; next attempt in 1.00 s",
            "the service behind exposed can't be reached; servers are told",
            "app: the server does not let this agent have the routes that it asks for: its identity may not",
        ):
            self.assertTrue(remedy(text), text)
        service = "cluster c: host 127.0.0.1:80 can't be reached: nothing listens there (connection refused)"
        self.assertEqual(remedy(service), "start the service, or use another TARGET")
        self.assertEqual(remedy("something else"), "")


class LineTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.stream = Clock(), StringIO()
        self.now = LiveSample(0.0, 1, 1)
        self.live = LiveLine("app", lambda: self.now, self.stream, self.clock)

    def shown(self) -> str:
        text = self.stream.getvalue()
        self.stream.truncate(0)
        self.stream.seek(0)
        return text

    def event(self, level: Any, text: str) -> None:
        self.live.observe({"log_level": level, "log_format": "{text}", "text": text})

    def test_drawn_when_it_changes(self) -> None:
        self.live.start()
        self.assertEqual(self.shown(), "\r\x1b[Kapp  1 connection  0 requests")
        self.clock.advance(0.5)
        self.assertEqual(self.shown(), "")
        self.now = LiveSample(1.0, 1, 1, 1, 0, 0.1)
        self.clock.advance(0.5)
        self.assertIn("1 request  1.0/s  100 ms", self.shown())
        self.live.stop()
        self.assertTrue(self.shown().endswith("100 ms\n"))
        self.live.stop()
        self.assertEqual(self.shown(), "")

    def test_said_above(self) -> None:
        self.live.start()
        self.shown()
        self.event(LogLevel.info, "nothing")
        self.assertEqual(self.shown(), "")
        self.event(LogLevel.warn, "it was\nrefused")
        self.assertEqual(
            self.shown(),
            "\r\x1b[Kit was refused\n  -> check that the server runs, and that --to has its port for agents\n"
            "app  1 connection  0 requests",
        )
        self.live.stop()

    def test_a_terminal_that_is_gone(self) -> None:
        self.live.start()
        self.stream.close()
        self.now = LiveSample(1.0, 0, 1)
        self.clock.advance(0.5)
        self.clock.advance(0.5)
        self.assertEqual(self.clock.getDelayedCalls(), [])
