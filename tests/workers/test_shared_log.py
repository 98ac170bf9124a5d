"""Tests for L{reverseproxy.workers.shared_log}."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import succeed
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.admin.workers_source import WorkersSource
from reverseproxy.logs import make_observer
from reverseproxy.workers.asking import WorkerAnswer
from reverseproxy.workers.shared_log import SharedLog


class SharedLogTests(SynchronousTestCase):
    """What operators change of the log holds for the supervisor, and for workers that start later."""

    def setUp(self) -> None:
        self.path = str(Path(self.mktemp()).absolute())
        self.observer = make_observer(self.path, "INFO")
        self.addCleanup(self.observer.file.close)
        self.shared_log = SharedLog(self.observer, self.path, "text", 5.0)
        self.answers: list[Any] = [True, None]

    def ask(self, question: str, arguments: dict[str, Any]) -> Any:
        """Be a supervisor, whose workers give the answers."""
        return succeed([WorkerAnswer(number, value, "") for number, value in enumerate(self.answers, 1)])

    def change(self, question: str, **arguments: Any) -> None:
        supervisor: Any = self
        self.successResultOf(WorkersSource(supervisor).ask(question, arguments))

    def test_level(self) -> None:
        self.change("log_level")
        self.assertEqual(self.shared_log.settings()["log"], (self.path, "INFO", "text", 5.0))
        self.change("log_level", path="", level="ERROR")
        self.assertEqual(self.observer.level, "ERROR")
        self.assertEqual(self.shared_log.settings()["log"], (self.path, "ERROR", "text", 5.0))
        self.observer.level = "WARN"  # by a reload
        self.assertEqual(self.shared_log.settings()["log"][1], "WARN")

    def test_another_log(self) -> None:
        """No worker has it, so that nothing changes."""
        self.answers = [None, None]
        self.change("log_level", path="elsewhere", level="ERROR")
        self.assertEqual(self.observer.level, "INFO")
        self.answers = [False, False]
        self.change("enable_log", path="elsewhere", enabled=False)
        self.assertEqual(self.shared_log.settings()["disabled_logs"], [])

    def test_disabled(self) -> None:
        """An access log is none of the supervisor's, but its own log is that of all."""
        self.change("enable_log", path="access.log", enabled=False)
        self.assertTrue(self.observer.file.enabled)
        self.change("enable_log", path=self.path, enabled=False)
        self.assertFalse(self.observer.file.enabled)
        self.assertEqual(self.shared_log.settings()["disabled_logs"], sorted(["access.log", self.path]))
        self.change("enable_log", path=self.path, enabled=True)
        self.assertTrue(self.observer.file.enabled)
        self.assertEqual(self.shared_log.settings()["disabled_logs"], ["access.log"])

    def test_other_questions(self) -> None:
        self.change("agents", path=self.path, level="ERROR", enabled=False)
        self.assertEqual((self.observer.level, self.observer.file.enabled), ("INFO", True))
