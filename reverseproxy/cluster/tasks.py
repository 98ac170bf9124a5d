"""The background tasks of a cluster."""

from __future__ import annotations

__all__ = ["IClusterTask", "Tasks"]

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeVar

from zope.interface import Interface

if TYPE_CHECKING:
    from reverseproxy.cluster.host import Host

_T = TypeVar("_T")


class IClusterTask(Interface):
    """A background task of a cluster, such as its health checks."""

    def start() -> None:
        """Start; the cluster may have hosts already."""

    def stop() -> None:
        """Stop; the task changes nothing any more."""

    def joined(host: Host) -> None:  # noqa: N805
        """Take note of a host that has joined; called even while the task is stopped."""

    def left(host: Host) -> None:  # noqa: N805
        """Take note of a host that has left; called even while the task is stopped."""


class Tasks:
    """The background tasks of one cluster."""

    def __init__(self) -> None:
        self._tasks: list[IClusterTask] = []
        self._running = False

    def __iter__(self) -> Iterator[IClusterTask]:
        return iter(self._tasks)

    def add(self, task: IClusterTask) -> None:
        """Add a task, and start it if the others are running."""
        self._tasks.append(task)
        if self._running:
            task.start()

    def find(self, kind: type[_T]) -> _T | None:
        """Return the task of a class; L{None} if there is none."""
        return next((task for task in self._tasks if isinstance(task, kind)), None)

    def remove(self, task: IClusterTask) -> None:
        """
        Remove a task, and stop it.

        @raise ValueError: if it is not among them.
        """
        self._tasks.remove(task)
        if self._running:
            task.stop()

    def start(self) -> None:
        """Start all tasks."""
        if not self._running:
            self._running = True
            for task in self._tasks:
                task.start()

    def stop(self) -> None:
        """Stop all tasks."""
        if self._running:
            self._running = False
            for task in self._tasks:
                task.stop()
