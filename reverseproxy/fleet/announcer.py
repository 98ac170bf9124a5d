"""
Messages from this server to another one, with backpressure.

Thousands of agents may have to be announced at once, to a server that has just linked or because all of
them have changed. While the peer reads slowly, messages are queued in their order; of each agent, only
the fact that its state has to be announced is queued. The state itself is looked up when it is sent. So
a state that has changed again is sent once, and the queue does not grow with the number of changes.
"""

from __future__ import annotations

__all__ = ["Agent", "LinkAnnouncer"]

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from twisted.internet.interfaces import IPullProducer, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from reverseproxy.errors import WireError
from reverseproxy.fleet.link_frames import frame

log = Logger()

Agent = tuple[str, str]
"""The name of a cluster, and the key of one of its agents."""

UNTAKEN: Final = 30.0
"""Seconds after which a peer is given up that reads nothing of what waits for it."""

MOST: Final = 16384
"""Messages that may be queued, apart from agents."""

AT_ONCE: Final = 100
"""Messages in one write."""

MOST_BYTES: Final = 65536
"""Bytes in one write, which the last message may exceed."""


@implementer(IPullProducer)
class LinkAnnouncer:
    """The queue of messages for one peer."""

    def __init__(
        self,
        stream: Any,
        clock: IReactorTime,
        state: Callable[[Agent], Mapping[str, Any]],
        failed: Callable[[str], object],
    ) -> None:
        """
        @param stream: the control stream, a consumer without a producer.
        @param state: returns the message that announces an agent's state.
        @param failed: called with a reason if the peer does not read what it is sent.
        """
        self._stream = stream
        self._clock = clock
        self._state = state
        self._failed = failed
        self._messages: deque[Mapping[str, Any]] = deque()
        self._agents: OrderedDict[Agent, None] = OrderedDict()
        self._taken = 0.0
        self._busy = False
        self._over = False

    def __len__(self) -> int:
        return len(self._messages) + len(self._agents)

    def send(self, message: Mapping[str, Any]) -> None:
        """Queue a message, behind other messages, but ahead of agents."""
        if len(self._messages) >= MOST:
            self._failed("it does not read what it is told")
            return
        self._messages.append(message)
        self._begin()

    def announce(self, agent: Agent) -> None:
        """Queue the announcement of an agent's state."""
        self._agents[agent] = None
        self._begin()

    def stop(self) -> None:
        """Discard everything; later calls have no effect."""
        self._over = True
        self._messages.clear()
        self._agents.clear()

    def _begin(self) -> None:
        if self._over:
            self.stop()
        elif not self._busy:
            self._busy = True
            self._taken = self._clock.seconds()
            self._stream.registerProducer(self, False)
        elif self._clock.seconds() - self._taken > UNTAKEN:
            self._failed("it does not read what it is told")

    # IPullProducer

    def resumeProducing(self) -> None:
        """Write the next messages, as all that was written before has been sent; or unregister."""
        self._taken = self._clock.seconds()
        data = self._take()
        if data:
            self._stream.write(data)
        else:
            self._busy = False
            self._stream.unregisterProducer()

    def stopProducing(self) -> None:
        """Discard everything: the stream has ended."""
        self.stop()

    def _take(self) -> bytes:
        parts: list[bytes] = []
        size = 0
        while len(parts) < AT_ONCE and size < MOST_BYTES and len(self):
            message = (
                self._messages.popleft()
                if self._messages
                else self._state(self._agents.popitem(last=False)[0])
            )
            try:
                parts.append(frame(message))
            except WireError as error:
                log.error("fleet: another server is not told something: {error}", error=str(error))
            else:
                size += len(parts[-1])
        return b"".join(parts)
