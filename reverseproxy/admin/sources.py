"""Whom the admin API asks: one process, or several."""

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
    What one process has answered.

    @ivar worker: its number, from 1; 0 for a process that is no worker.
    @ivar value: what JSON has; L{None} if it has not answered.
    @ivar problem: why not; else empty.
    """

    worker: int
    value: Any = None
    problem: str = ""


class ISource(Protocol):
    """Somebody who can be asked."""

    @property
    def draining(self) -> bool:
        """Whether the whole of it is about to end."""

    def facts(self) -> Mapping[str, Any]:
        """
        What is known without asking.

        C{workers}: a list of what is known of each worker; empty without workers.
        """

    def ask(self, question: str, arguments: Mapping[str, Any]) -> Deferred[list[Answer]]:
        """
        Ask every process.

        @param question: one that L{Inspector.answer} knows.
        @param arguments: what JSON has.
        @return: never fails.
        """

    def replace(self, worker: int) -> list[int]:
        """
        Let a worker finish, and start another one in its place.

        @param worker: its number; 0 for all of them, one after the other.
        @return: those that will be replaced.
        """


class LocalSource:
    """The only process that there is."""

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
        """See L{ISource}: there is none."""
        return []
