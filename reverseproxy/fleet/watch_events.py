"""Puts together the changes that a watch reports in fragments; pure."""

from __future__ import annotations

__all__ = ["MOST_EVENTS", "TooManyEvents", "WatchEvents"]

from typing import Final

from reverseproxy.fleet.etcd_json import EtcdError, KeyValue, WatchMessage

MOST_EVENTS: Final = 4_000_000
"""Changes of one revision that are buffered, at most."""


class TooManyEvents(EtcdError):
    """A revision has more changes than are buffered."""


class WatchEvents:
    """Buffers the changes of a revision until all of them have come."""

    def __init__(self) -> None:
        self._buffer: list[KeyValue] = []

    def clear(self) -> None:
        """Discard what is buffered: a new watch reports it again."""
        self._buffer.clear()

    def take(self, message: WatchMessage) -> list[KeyValue]:
        """
        Take the changes of a message.

        @return: changes in the order of their revisions, all changes of each.
        @raise TooManyEvents: if there are too many of one revision.
        """
        if len(self._buffer) + len(message.events) > MOST_EVENTS:
            raise TooManyEvents(f"there are more than {MOST_EVENTS} changes at once")
        events = [*self._buffer, *message.events]
        self._buffer = []
        if message.fragment and events:
            # The next message may continue the last revision; the others are complete.
            last = events[-1].revision
            self._buffer = [each for each in events if each.revision == last]
            del events[len(events) - len(self._buffer) :]
        return events
