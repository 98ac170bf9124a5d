"""All workers, as one that can be asked."""

from __future__ import annotations

__all__ = ["GatheredSource"]

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from reverseproxy.admin.sources import Answer
from reverseproxy.workers.supervisor import Supervisor

log = Logger()


class GatheredSource:
    """Asks the workers of a supervisor."""

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
        return asked.addCallback(
            lambda answers: [Answer(each.worker, each.value, each.problem) for each in answers]
        )

    def on_new(self, told: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """See L{reverseproxy.admin.sources.ISource}."""

        def ready() -> None:
            telling = Deferred.fromCoroutine(told())
            telling.addErrback(lambda reason: log.failure("a new worker could not be told", reason))

        self._supervisor.on_ready = ready

    def replace(self, worker: int) -> list[int]:
        """See L{reverseproxy.admin.sources.ISource}."""
        return self._supervisor.replace(
            [worker] if worker else [slot.name for slot in self._supervisor.slots]
        )
