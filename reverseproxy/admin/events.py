"""Server-sent events about agents, hosts and the configuration."""

from __future__ import annotations

__all__ = ["EventStream", "MOST_STREAMS", "PERIOD"]

import json
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from reverseproxy.admin.slices import Steps, in_slices
from reverseproxy.admin.sources import Answer, ISource
from reverseproxy.clock import wall_time

log = Logger()

PERIOD: Final = 0.5
"""Seconds between two polls for new events."""

HEARTBEAT: Final = 30
"""The number of polls without an event after which a comment is sent, to keep the connection alive."""

MOST_STREAMS: Final = 32
"""The maximum number of concurrent streams."""

PAGE: Final = 200
"""The maximum number of events of one process in one poll."""

STRIDE: Final = 10
"""How many events are processed in one step; see L{reverseproxy.admin.slices}."""

OF_ALL: Final = frozenset({"reload", "reload_failed"})
"""Kinds of events that occur in all workers at once; only the first worker's are sent."""

FIRST: Final = 1
"""The number of the first worker."""

MOST_ORDERS: Final = 100
"""How many recent orders are remembered, as workers without connections of the agent may obey them later."""


class EventStream:
    """
    A stream of events to one client.

    It polls the source periodically, but only while the client reads, so that a
    slow client costs no memory; an event C{gap} tells a client how many events
    it has missed.
    """

    def __init__(
        self,
        source: ISource,
        clock: IReactorTime,
        write: Callable[[bytes], bool],
        ended: Callable[[], object],
        recent: bool = False,
    ) -> None:
        """
        @param write: sends bytes to the client; returns whether it reads fast enough.
        @param ended: called once when the stream ends.
        @param recent: whether to begin with the events of the past.
        """
        self._source = source
        self._clock = clock
        self._recent = recent
        self._begun = wall_time()
        self._write = write
        self._ended = ended
        self._seen: dict[str, int] | None = {} if recent else None
        self._quiet = 0
        self._orders: deque[str] = deque(maxlen=MOST_ORDERS)
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock

    def start(self) -> None:
        """Begin to send events."""
        self._write(b": listening\n\n")
        self._loop.start(PERIOD).addErrback(self._failed)

    def _failed(self, reason: Failure) -> None:
        log.failure("a stream of events has failed", reason)
        self._ended()

    def stop(self) -> None:
        """End the stream."""
        if self._loop.running:
            self._loop.stop()
            self._ended()

    def _look(self) -> Deferred[None] | None:
        if not self._write(b""):
            return None
        asked = self._source.ask("events", {"seen": self._seen, "limit": PAGE})
        return asked.addCallback(self._take)

    def _take(self, answers: list[Answer]) -> Deferred[None] | None:
        return in_slices(self._tell(answers), self._clock) if self._loop.running else None

    def _tell(self, answers: list[Answer]) -> Steps[None]:
        """Send the events of all workers."""
        seen = {} if self._seen is None else self._seen
        found: list[tuple[str, dict[str, Any]]] = []
        for answer in answers:
            if answer.value is not None:
                yield from self._gather(answer, seen, found)
        parts: list[bytes] = []
        for kind, event in self._one_for_each_order(found):
            if len(parts) % STRIDE == 0:
                yield
            parts.append(_format(kind, event))
        self._seen = seen
        self._quiet = 0 if parts else self._quiet + 1
        if self._quiet >= HEARTBEAT:
            self._quiet = 0
            parts.append(b": still here\n\n")
        if parts and self._loop.running:
            self._write(b"".join(parts))

    def _gather(
        self, answer: Answer, seen: dict[str, int], found: list[tuple[str, dict[str, Any]]]
    ) -> Steps[None]:
        """
        Add the new events of one worker.

        @param seen: the last event of each worker that was sent, which is changed.
        """
        origin = answer.value["origin"]
        last = seen.get(origin, 0)
        # A worker that has not answered before is either new, or has events from before this stream.
        begin = 0.0 if last or self._recent else self._begun
        for event in answer.value["events"]:
            if len(found) % STRIDE == 0:
                yield
            if event.get("time", begin) < begin:
                last = event["id"]
                continue
            if last and event["id"] > last + 1:
                found.append(("gap", {"worker": answer.worker, "missed": event["id"] - last - 1}))
            last = event["id"]
            of_all = event["kind"] in OF_ALL
            if of_all and answer.worker > FIRST:
                continue
            worker = None if of_all else answer.worker or None
            found.append((event["kind"], {**event, "worker": worker}))
        seen[origin] = max(last, answer.value["last"] if self._seen is None else 0)

    def _one_for_each_order(
        self, events: Iterable[tuple[str, dict[str, Any]]]
    ) -> list[tuple[str, dict[str, Any]]]:
        """
        Merge the events of several workers that have obeyed the same order of an operator.

        Orders of other servers come over a link to each worker, and so at different times. If the event of an
        order has been sent, that of a worker that obeys it later is another one, or none if the worker had no
        connections.
        """
        found: list[tuple[str, dict[str, Any]]] = []
        known: dict[str, dict[str, Any]] = {}
        for kind, event in events:
            order = event.pop("order", "")
            if not order:
                found.append((kind, event))
            elif order in self._orders and not event["connections"]:
                continue
            elif order in known:
                known[order]["connections"] += event["connections"]
                known[order]["worker"] = None
            else:
                known[order] = event
                found.append((kind, event))
        self._orders.extend(order for order in known if order not in self._orders)
        return found


def _format(kind: str, value: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode("ascii"), json.dumps(value).encode("ascii"))
