"""
Split long work into short turns of the reactor, so that requests don't wait for it.

Long work is a generator, which yields between its steps and returns the result.
Between two steps other events are handled, so that the data that it reads may change.

All work of a reactor shares the turns: one iteration of the reactor has one turn, however much work there
is, and the next turn is for other work.
"""

from __future__ import annotations

__all__ = ["SLICE", "Steps", "at_once", "consume", "in_slices", "portions"]

from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator
from functools import partial
from itertools import islice
from typing import Any, Final, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

T = TypeVar("T")

Steps = Generator[None, None, T]
"""A generator that does long work in steps, and returns the result."""

SLICE: Final = 0.0002
"""
The maximum duration of a turn in seconds, which is how long a request may have to wait; a step should take a
fraction of that.
"""


def at_once(steps: Steps[T]) -> T:
    """Do all the work now, which blocks the event loop, and return the result."""
    try:
        while True:
            next(steps)
    except StopIteration as done:
        result: T = done.value
        return result


class _Work(NamedTuple):
    """Long work that is not finished."""

    steps: Steps[Any]
    result: Deferred[Any]


class _Turns:
    """The turns of one reactor, and the work that waits for them."""

    def __init__(self) -> None:
        self._waiting: deque[_Work] = deque()
        self._in_turn = False
        self._next_turn: IDelayedCall | None = None

    def begin(self, work: _Work, clock: IReactorTime) -> None:
        """Do work from now on, or from the next turn on if there is other work."""
        alone = not self._in_turn and not self._waiting
        self._waiting.append(work)
        if alone:
            self._take_turn(clock)

    def cancel(self, work: _Work) -> None:
        """End unfinished work."""
        work.steps.close()
        self._waiting.remove(work)
        if not self._waiting and self._next_turn is not None:
            self._next_turn.cancel()
            self._next_turn = None

    def _take_turn(self, clock: IReactorTime) -> None:
        self._next_turn = None
        self._in_turn = True
        end = clock.seconds() + SLICE
        try:
            while self._waiting:
                self._go_on(clock, end)
                if clock.seconds() >= end:
                    break
        finally:
            self._in_turn = False
            if self._waiting:
                self._next_turn = clock.callLater(0, partial(self._take_turn, clock))

    def _go_on(self, clock: IReactorTime, end: float) -> None:
        """Go on with the work that has waited for the longest time."""
        work = self._waiting.popleft()
        try:
            while True:
                next(work.steps)
                if clock.seconds() >= end:
                    break
        except StopIteration as done:
            work.result.callback(done.value)
        except Exception:
            work.result.errback()
        else:
            self._waiting.append(work)


_turns: WeakKeyDictionary[IReactorTime, _Turns] = WeakKeyDictionary()


def in_slices(steps: Steps[T], clock: IReactorTime) -> Deferred[T]:
    """
    Do work in short turns of the reactor, the first of which is now, unless there is other work.

    @return: a L{Deferred} with the result; cancelling it ends the work.
    """
    turns = _turns.get(clock)
    if turns is None:
        turns = _turns[clock] = _Turns()
    cancel = turns.cancel
    result: Deferred[T] = Deferred(lambda _: cancel(work))
    work = _Work(steps, result)
    turns.begin(work, clock)
    return result


def consume(items: list[T]) -> Iterator[T]:
    """
    Iterate over a list, and remove each item from it before it is returned.

    Freeing some thousand items together would block for milliseconds.
    """
    items.reverse()
    while items:
        yield items.pop()


def portions(view: Collection[T], size: int, left: Callable[[], int]) -> Iterator[list[T]]:
    """
    Iterate in portions over a view of a dictionary that may change between two portions.

    Copying ten thousand entries would block for milliseconds.  Instead the iteration continues at its
    position, which is found again after entries were added or removed.  No entry is left out that is present
    all the time.  Added entries are at the end.  It is unknown whether removed entries had been passed, so
    for each of them another entry may be yielded twice.

    @param size: the number of entries of one portion.
    @param left: returns the number of entries removed so far, as a dictionary whose size is unchanged does
        not show that entries were replaced.
    """
    passed, gone, entries = 0, left(), iter(view)
    while True:
        if left() != gone:
            passed, gone = max(0, passed - (left() - gone)), left()
            entries = islice(view, passed, None)
        try:
            portion = list(islice(entries, size))
        except RuntimeError:  # entries were added
            entries = islice(view, passed, None)
            portion = list(islice(entries, size))
        if not portion:
            return
        passed += len(portion)
        yield portion
