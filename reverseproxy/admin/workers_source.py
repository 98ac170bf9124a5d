"""The source of the admin API's data in a supervisor: all its workers."""

from __future__ import annotations

__all__ = ["WorkersSource"]

from collections.abc import Iterable, Mapping
from typing import Any

from twisted.internet.defer import Deferred

from reverseproxy.admin.sources import Answer
from reverseproxy.workers.asking import WorkerAnswer
from reverseproxy.workers.supervisor import Supervisor


class WorkersSource:
    """Queries all workers of a supervisor."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    @property
    def draining(self) -> bool:
        """See L{reverseproxy.admin.sources.ISource}."""
        return self._supervisor.stopping

    def facts(self) -> Mapping[str, Any]:
        """See L{reverseproxy.admin.sources.ISource}."""
        return {
            "workers": [
                {
                    "worker": slot.name,
                    "pid": slot.pid,
                    "ready": slot.ready,
                    "restarts": slot.restarts,
                }
                for slot in self._supervisor.slots
            ]
        }

    def ask(self, question: str, arguments: Mapping[str, Any]) -> Deferred[list[Answer]]:
        """See L{reverseproxy.admin.sources.ISource}."""
        asked = self._supervisor.ask(question, arguments)
        shared = self._supervisor.shared_log

        def answered(answers: Iterable[WorkerAnswer]) -> list[Answer]:
            found = [Answer(each.worker, each.value, each.problem) for each in answers]
            if shared is not None:
                shared.applied(question, arguments, (each.value for each in found))
            return found

        return asked.addCallback(answered)

    def replace(self, worker: int) -> list[int]:
        """See L{reverseproxy.admin.sources.ISource}."""
        return self._supervisor.replace(
            [worker] if worker else [slot.name for slot in self._supervisor.slots]
        )
