"""
An epoll object of many descriptors, which is one descriptor to the reactor.

Twisted's reactors set up a logging context around every event, which costs more
than to receive a small message.  That can't be changed from outside, but an epoll
object is a descriptor itself, readable when any descriptor in it has an event: so
the reactor watches that one, and sets up one context for all that are ready.

It needs nothing of a reactor but the public L{twisted.internet.interfaces.IReactorFDSet}
and L{IReadDescriptor}, so that it works with every reactor that can watch a descriptor.
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
    Watches descriptors, and calls C{doRead} and C{doWrite} on those that have events.

    Events have the meaning that they have in Twisted's epoll reactor: an exception, or
    a reason that C{doRead} or C{doWrite} returns, closes that connection.  There are two
    differences.  A descriptor that is no longer watched is not called, even if its event
    came before; Twisted may still call it.  And log events have no C{log_system} with
    the name of the connection.
    """

    def __init__(self, reactor: Any) -> None:
        """@param reactor: provides C{addReader} and C{removeReader}."""
        self._reactor = reactor
        self._epoll = select.epoll()
        self._descriptors: dict[int, Any] = {}
        self._interests: dict[int, int] = {}
        # Descriptors added since the last poll: an event for such a number is one of a
        # connection that was closed in the meantime.
        self._fresh: set[int] = set()
        self._left: list[tuple[int, int]] = []  # events that the last turn had no time to handle
        self._in_turn = False
        self._last: list[Callable[[], object]] = []

    def __repr__(self) -> str:
        return f"<Poller of {list(self._descriptors.values())!r}>"

    # IReactorFDSet, towards descriptors

    def addReader(self, reader: Any) -> None:  # noqa: N802 - Twisted's name, as are those below
        """Watch a descriptor for reading; see L{IReactorFDSet}."""
        self._watch(reader, _READ)

    def addWriter(self, writer: Any) -> None:  # noqa: N802
        """Watch a descriptor for writing; see L{IReactorFDSet}."""
        self._watch(writer, _WRITE)

    def removeReader(self, reader: Any) -> None:  # noqa: N802
        """Stop watching a descriptor for reading; see L{IReactorFDSet}."""
        self._forget(reader, _READ)

    def removeWriter(self, writer: Any) -> None:  # noqa: N802
        """Stop watching a descriptor for writing; see L{IReactorFDSet}."""
        self._forget(writer, _WRITE)

    def removeAll(self) -> list[Any]:  # noqa: N802
        """Stop watching all descriptors, and return them."""
        descriptors = list(self._descriptors.values())
        for each in descriptors:
            self._forget(each, _READ | _WRITE)
        return descriptors

    def getReaders(self) -> list[Any]:  # noqa: N802
        """Return all descriptors that are watched for reading."""
        return [self._descriptors[fd] for fd, interest in self._interests.items() if interest & _READ]

    def getWriters(self) -> list[Any]:  # noqa: N802
        """Return all descriptors that are watched for writing."""
        return [self._descriptors[fd] for fd, interest in self._interests.items() if interest & _WRITE]

    def _watch(self, descriptor: Any, event: int) -> None:
        fd = descriptor.fileno()
        interest = self._interests.get(fd)
        if interest is None:
            self._epoll.register(fd, event)
            if not self._descriptors:
                # Only as long as there is something to watch: trial looks for readers that are left.
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
        """Return the epoll object's descriptor."""
        return self._epoll.fileno()

    def logPrefix(self) -> str:
        """See L{ILoggingContext}."""
        return "-"

    def doRead(self) -> None:  # noqa: N802
        """
        Handle the events that there are now, for at most the time of one turn.

        The kernel moves descriptors that it has reported behind the others, so that these come
        first next time.
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
                    # By now the number may be that of another descriptor, or of none.
                    if event & _WRITE and not why and interests.get(fd, 0) & _WRITE and fd not in fresh:
                        reading = False
                        why = descriptor.doWrite()
                elif event & _GONE:
                    # Everything that had arrived has been read, unless reading was paused.
                    reading = bool(interest & _READ)
                    why = CONNECTION_DONE if reading else CONNECTION_LOST
                elif event:
                    why = descriptor.doWrite()
                else:
                    continue
                if why:
                    self._disconnect(descriptor, why, reading)
            except BaseException as error:  # whatever it is, the other connections must go on
                self._failed(descriptor, error)
            if monotonic() >= end:
                # They come first in the next turn, which follows at once: the epoll object stays readable.
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
        Schedule a call for the end of this turn, when all events have been handled.

        This is for work that is better done once than for each event, such as to
        send what many events have produced.  Calls are made in the order in which
        they were scheduled.  What is scheduled outside of a turn, or by such a call, is
        called in the reactor's next turn.
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
        """Close all connections, as the reactor ends, or can't watch the epoll object any more."""
        self._reactor.removeReader(self)
        for each in self.removeAll():
            try:
                each.connectionLost(reason)
            except BaseException:
                log.failure("{connection!r} failed when it was closed", connection=each)
