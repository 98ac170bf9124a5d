"""
What a server says to another one over the stream of a link that stays, as fast as that takes it.

Thousands of agents may be told of at once, to a server that has just linked or because
something has happened to all of them.  What the peer has not taken yet waits: all
messages in their order, and of each agent only that there is something to be told of it.
How it is, is looked up when it is told; so nothing that has changed meanwhile is told twice,
and nothing grows with how often it has changed.
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
"""A cluster's name, and the key of one of its agents."""

UNTAKEN: Final = 30.0
"""Seconds without anything having been taken after which a peer is given up, if there is more for it."""

MOST: Final = 16384
"""Messages that may wait, beside what there is to be told of agents."""

AT_ONCE: Final = 100
"""Messages that are written at once, if the peer takes them."""

MOST_BYTES: Final = 65536
"""Bytes of these, but for the last one."""


@implementer(IPullProducer)
class LinkAnnouncer:
    """What is to be said to one peer."""

    def __init__(
        self,
        stream: Any,
        clock: IReactorTime,
        state: Callable[[Agent], Mapping[str, Any]],
        failed: Callable[[str], object],
    ) -> None:
        """
        @param stream: the stream, a consumer that has no producer.
        @param state: says how an agent is: the message that is to be sent.
        @param failed: called with a reason if the peer does not take what it is told.
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

    def say(self, message: Mapping[str, Any]) -> None:
        """Say something, behind what waits, but before what there is to be told of agents."""
        if len(self._messages) >= MOST:
            self._failed("it does not read what it is told")
            return
        self._messages.append(message)
        self._begin()

    def tell(self, agent: Agent) -> None:
        """Say how an agent is."""
        self._agents[agent] = None
        self._begin()

    def stop(self) -> None:
        """Say nothing more."""
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
        """The peer has been sent all that was written: write more, or have done."""
        self._taken = self._clock.seconds()
        data = self._take()
        if data:
            self._stream.write(data)
        else:
            self._busy = False
            self._stream.unregisterProducer()

    def stopProducing(self) -> None:
        """The stream is over."""
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
