"""What was logged while a test ran."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from twisted.logger import LogEvent, formatEvent, globalLogPublisher


class Events(list[LogEvent]):
    """Events in order."""

    def levels(self) -> list[object]:
        return [event["log_level"] for event in self]

    def text(self) -> str:
        return "\n".join(formatEvent(event) for event in self)


@contextmanager
def capture() -> Iterator[Events]:
    """Collect the project's log events."""
    events = Events()

    def observe(event: LogEvent) -> None:
        if str(event.get("log_namespace", "")).startswith("reverseproxy."):
            events.append(event)

    globalLogPublisher.addObserver(observe)
    try:
        yield events
    finally:
        globalLogPublisher.removeObserver(observe)
