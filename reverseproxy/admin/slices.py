"""
Split long work into short turns of the reactor, so that requests don't wait for it.

Long work is a generator, which yields between its steps and returns the result.
Between two steps other events are handled, so that the data that it reads may change.
"""

from __future__ import annotations

__all__ = ["SLICE", "Steps", "at_once", "in_slices", "portions"]

from collections.abc import Callable, Collection, Generator, Iterator
from itertools import islice
from typing import Final, TypeVar

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


def in_slices(steps: Steps[T], clock: IReactorTime) -> Deferred[T]:
    """
    Do work in short turns of the reactor, the first of which is now.

    @return: a L{Deferred} with the result; cancelling it ends the work.
    """
    next_turn: list[IDelayedCall] = []

    def cancel(_: Deferred[T]) -> None:
        for call in next_turn:
            call.cancel()
        steps.close()

    result: Deferred[T] = Deferred(cancel)

    def turn() -> None:
        next_turn.clear()
        end = clock.seconds() + SLICE
        try:
            while True:
                next(steps)
                if clock.seconds() >= end:
                    break
        except StopIteration as done:
            result.callback(done.value)
            return
        except Exception:
            result.errback()
            return
        next_turn.append(clock.callLater(0, turn))

    turn()
    return result


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
