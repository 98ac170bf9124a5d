"""
A set of descriptors that is one descriptor to the reactor.

Twisted's reactors set a logging context up around every event, which costs more
than to receive a small message.  The price can't be changed from outside, but
an epoll object is a descriptor itself, readable when any of those in it has an
event: so the reactor is given that one, and pays once for all that are ready.

What is public of L{twisted.internet.interfaces.IReactorFDSet} and
L{IReadDescriptor} is all that this needs of a reactor, so that it works with
every one that can watch a descriptor.
"""

from __future__ import annotations

__all__ = ["Poller"]

import select
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableDescriptor, ILoggingContext, IReadDescriptor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.transport.portions import LONG, PORTIONS, SHORT

log = Logger()

_READ: Final = select.EPOLLIN
_WRITE: Final = select.EPOLLOUT
_GONE: Final = select.EPOLLHUP | select.EPOLLERR


@implementer(IReadDescriptor, ILoggingContext)
class Poller:
    """
    Watches descriptors, and tells them of their events in the reactor's turn.

    Events mean what they mean to Twisted's epoll reactor: an exception, or a
    reason that C{doRead} or C{doWrite} return, ends that one connection.  There
    are two differences.  A descriptor that is no longer watched hears of
    nothing, even if the event had come before; Twisted may still tell it.  And
    what is logged has no C{log_system} with the name of the connection.
    """

    def __init__(self, reactor: Any) -> None:
        """@param reactor: provides C{addReader} and C{removeReader}."""
        self._reactor = reactor
        self._epoll = select.epoll()
        self._descriptors: dict[int, Any] = {}
        self._interests: dict[int, int] = {}
        # Descriptors added since events were last asked for: an event for such a
        # number belongs to a connection that was closed in the meantime.
        self._fresh: set[int] = set()
        self._left: list[tuple[int, int]] = []  # events that the last turn had no time for
        self._in_turn = False
        self._last: list[Callable[[], object]] = []

    def __repr__(self) -> str:
        return f"<Poller of {list(self._descriptors.values())!r}>"

    # IReactorFDSet, towards descriptors

    def addReader(self, reader: Any) -> None:  # noqa: N802 - Twisted's name, as are those below
        """Tell a descriptor when it can be read from; see L{IReactorFDSet}."""
        self._watch(reader, _READ)

    def addWriter(self, writer: Any) -> None:  # noqa: N802
        """Tell a descriptor when it can be written to."""
        self._watch(writer, _WRITE)

    def removeReader(self, reader: Any) -> None:  # noqa: N802
        """Tell a descriptor no more when it can be read from."""
        self._forget(reader, _READ)

    def removeWriter(self, writer: Any) -> None:  # noqa: N802
        """Tell a descriptor no more when it can be written to."""
        self._forget(writer, _WRITE)

    def removeAll(self) -> list[Any]:  # noqa: N802
        """Forget all descriptors, and return them."""
        descriptors = list(self._descriptors.values())
        for each in descriptors:
            self._forget(each, _READ | _WRITE)
        return descriptors

    def getReaders(self) -> list[Any]:  # noqa: N802
        """All descriptors that are told when they can be read from."""
        return [self._descriptors[fd] for fd, interest in self._interests.items() if interest & _READ]

    def getWriters(self) -> list[Any]:  # noqa: N802
        """All descriptors that are told when they can be written to."""
        return [self._descriptors[fd] for fd, interest in self._interests.items() if interest & _WRITE]

    def _watch(self, descriptor: Any, event: int) -> None:
        fd = descriptor.fileno()
        interest = self._interests.get(fd)
        if interest is None:
            self._epoll.register(fd, event)
            if not self._descriptors:
                # Only as long as there is something to watch, as trial wants it.
                self._reactor.addReader(self)
            self._descriptors[fd] = descriptor
            self._interests[fd] = event
            self._fresh.add(fd)
        elif not interest & event:
            self._epoll.modify(fd, interest | event)
            self._interests[fd] = interest | event

    def _forget(self, descriptor: Any, events: int) -> None:
        fd = descriptor.fileno()
        interest = self._interests.get(fd, 0)
        rest = interest & ~events
        if rest == interest:
            return
        if rest:
            self._epoll.modify(fd, rest)
            self._interests[fd] = rest
            return
        self._epoll.unregister(fd)
        del self._descriptors[fd], self._interests[fd]
        if not self._descriptors:
            self._reactor.removeReader(self)

    # IReadDescriptor, towards the reactor

    def fileno(self) -> int:
        """The epoll object's own descriptor."""
        return self._epoll.fileno()

    def logPrefix(self) -> str:
        """See L{ILoggingContext}."""
        return "-"

    def doRead(self) -> None:  # noqa: N802
        """
        Tell descriptors of the events that there are now, for no longer than a turn may take.

        The kernel puts those that it tells of behind the others, so that these come first
        next time.
        """
        descriptors, interests, fresh = self._descriptors, self._interests, self._fresh
        events, self._left = self._left, []
        if not events:
            fresh.clear()
            events = self._epoll.poll(0, PORTIONS.events)
        begun = monotonic()
        end = begun + LONG
        self._in_turn = True
        rest = iter(events)
        for fd, event in rest:
            interest = interests.get(fd)
            if interest is None or fd in fresh:
                continue
            descriptor = descriptors[fd]
            event &= interest | _GONE
            why: BaseException | None
            reading = False
            try:
                if event & _READ:
                    reading = True
                    why = descriptor.doRead()
                    # By now the number may be another's, or nobody's.
                    if event & _WRITE and not why and interests.get(fd, 0) & _WRITE and fd not in fresh:
                        reading = False
                        why = descriptor.doWrite()
                elif event & _GONE:
                    # Everything that had come has been read, if it was wanted.
                    reading = bool(interest & _READ)
                    why = CONNECTION_DONE if reading else CONNECTION_LOST
                elif event:
                    why = descriptor.doWrite()
                else:
                    continue
                if why:
                    self._disconnect(descriptor, why, reading)
            except BaseException as error:  # whatever it is, it must not end the other connections
                self._failed(descriptor, error)
            if monotonic() >= end:
                # They come first in the next turn, which is at once: the kernel has them still.
                self._left = list(rest)
                break
        self._in_turn = False
        if self._last:
            self._end_turn()
        took = monotonic() - begun
        if took > SHORT or not PORTIONS.full:
            PORTIONS.turned(took)

    def call_at_turn_end(self, call: Callable[[], object]) -> None:
        """
        Call something once all descriptors have been told of what there is now.

        For what is better done once than for each event, such as to send what
        many of them have brought about.  It is called in the order of the calls
        of this method.  Outside of a turn, and for what such a call calls for in
        its turn, it is in the reactor's next one.
        """
        if not self._in_turn and not self._last:
            self._reactor.callLater(0, self._end_turn)
        self._last.append(call)

    def _end_turn(self) -> None:
        calls, self._last = self._last, []
        for call in calls:
            try:
                call()
            except Exception:
                log.failure("what was to be done at the end of a turn failed")

    def _disconnect(self, descriptor: Any, why: BaseException, reading: bool) -> None:
        self.removeReader(descriptor)
        if reading and type(why) is ConnectionDone and IHalfCloseableDescriptor.providedBy(descriptor):
            descriptor.readConnectionLost(Failure(why))
        else:
            self.removeWriter(descriptor)
            descriptor.connectionLost(Failure(why))

    def _failed(self, descriptor: Any, error: BaseException) -> None:
        log.failure("{connection!r} is closed, as its protocol failed", connection=descriptor)
        try:
            self._disconnect(descriptor, error, reading=False)
        except BaseException:
            log.failure("{connection!r} failed again when it was closed", connection=descriptor)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends, or can watch us no more: so do all connections."""
        self._reactor.removeReader(self)
        for each in self.removeAll():
            try:
                each.connectionLost(reason)
            except BaseException:
                log.failure("{connection!r} failed when it was closed", connection=each)
