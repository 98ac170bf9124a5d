"""The log that a supervisor and its workers write, and what operators have changed about it."""

from __future__ import annotations

__all__ = ["SharedLog"]

from collections.abc import Iterable, Mapping
from typing import Any

from reverseproxy.logs import LogObserver


class SharedLog:
    """
    The level and the disabled outputs of the log, of all processes of one server.

    Each worker changes its own log.  This applies the same changes to that of the supervisor, and to workers
    that start later, which would begin with the configuration otherwise.
    """

    def __init__(self, observer: LogObserver, path: str, kind: str, per_hour: float) -> None:
        """
        @param observer: writes the log of the supervisor; its level is that of all processes.
        @param path: the path of the log, as the workers open it.
        @param kind: the format, C{"text"} or C{"json"}.
        @param per_hour: bytes that each process may write in an hour.
        """
        self._observer = observer
        self._path = path
        self._kind = kind
        self._per_hour = per_hour
        self._disabled: set[str] = set()

    def applied(self, question: str, arguments: Mapping[str, Any], answers: Iterable[Any]) -> None:
        """
        Apply a change of the log to this process, if the workers have applied it.

        @param question: the query, as L{Inspector<reverseproxy.admin.inspector.Inspector>} knows it.
        @param answers: the answers of the workers; false for a worker that has no such log.
        """
        if not any(answers):
            return
        if question == "log_level" and "level" in arguments:
            self._observer.level = arguments["level"]
        elif question == "enable_log":
            path, enabled = arguments["path"], arguments["enabled"]
            (self._disabled.discard if enabled else self._disabled.add)(path)
            if path == self._observer.file.path:
                self._observer.file.enabled = enabled

    def settings(self) -> dict[str, Any]:
        """Return the part of the settings of a worker that starts now; see L{Setup}."""
        return {
            "log": (self._path, self._observer.level, self._kind, self._per_hour),
            "disabled_logs": sorted(self._disabled),
        }
