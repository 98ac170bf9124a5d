"""Sources of the admin API's data: one process, or all workers."""

from __future__ import annotations

__all__ = ["Answer", "ISource", "LocalSource"]

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from reverseproxy.admin.inspector import Inspector


@dataclass(frozen=True, slots=True)
class Answer:
    """
    One process's answer to a query.

    @ivar worker: the number of the worker, from 1; 0 if the process is not a worker.
    @ivar value: a value of JSON; L{None} without an answer.
    @ivar problem: why there is no answer; else empty.
    """

    worker: int
    value: Any = None
    problem: str = ""


class ISource(Protocol):
    """The processes of a server or an agent, as the admin API queries them."""

    @property
    def draining(self) -> bool:
        """Whether all processes are about to stop."""

    def facts(self) -> Mapping[str, Any]:
        """
        Return what is known without a query.

        @return: C{workers}: a list that describes the workers; empty if there are none.
        """

    def ask(self, question: str, arguments: Mapping[str, Any]) -> Deferred[list[Answer]]:
        """
        Query every process.

        @param question: a query that L{Inspector.answer} knows.
        @param arguments: its arguments, values of JSON.
        @return: a L{Deferred} with one answer of each process, which never fails.
        """

    def replace(self, worker: int) -> list[int]:
        """
        Stop workers gracefully, one after the other, and start others in their places.

        @param worker: the number of the only worker to replace; 0 for all of them.
        @return: the numbers of the workers that will be replaced.
        """


class LocalSource:
    """The source for a process without workers: the process itself."""

    def __init__(self, inspector: Inspector) -> None:
        self._inspector = inspector

    @property
    def draining(self) -> bool:
        """See L{ISource}."""
        return self._inspector.draining

    def facts(self) -> Mapping[str, Any]:
        """See L{ISource}."""
        return {"workers": []}

    def ask(self, question: str, arguments: Mapping[str, Any]) -> Deferred[list[Answer]]:
        """See L{ISource}."""
        return self._inspector.ask(question, arguments).addCallback(lambda value: [Answer(0, value)])

    def replace(self, worker: int) -> list[int]:
        """See L{ISource}; there are no workers to replace."""
        return []
