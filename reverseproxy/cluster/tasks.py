"""What runs beside a cluster."""

from __future__ import annotations

__all__ = ["IClusterTask", "Tasks"]

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeVar

from zope.interface import Interface

if TYPE_CHECKING:
    from reverseproxy.cluster.host import Host

_T = TypeVar("_T")


class IClusterTask(Interface):
    """Something that runs beside a cluster, such as its health checks."""

    def start() -> None:
        """Begin; the cluster may have hosts already."""

    def stop() -> None:
        """End; nothing is changed any more."""

    def joined(host: Host) -> None:  # noqa: N805
        """A host has joined; told whether the task runs or not."""

    def left(host: Host) -> None:  # noqa: N805
        """A host has left; told whether the task runs or not."""


class Tasks:
    """What runs beside one cluster, from C{start} to C{stop}."""

    def __init__(self) -> None:
        self._tasks: list[IClusterTask] = []
        self._running = False

    def __iter__(self) -> Iterator[IClusterTask]:
        return iter(self._tasks)

    def add(self, task: IClusterTask) -> None:
        """Take something in."""
        self._tasks.append(task)
        if self._running:
            task.start()

    def find(self, kind: type[_T]) -> _T | None:
        """Find what is of a kind; L{None} if there is nothing."""
        return next((task for task in self._tasks if isinstance(task, kind)), None)

    def remove(self, task: IClusterTask) -> None:
        """
        Let something run no more.

        @raise ValueError: if it is not known.
        """
        self._tasks.remove(task)
        if self._running:
            task.stop()

    def start(self) -> None:
        """Begin."""
        if not self._running:
            self._running = True
            for task in self._tasks:
                task.start()

    def stop(self) -> None:
        """End."""
        if self._running:
            self._running = False
            for task in self._tasks:
                task.stop()
