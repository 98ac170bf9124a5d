"""
Long work for whoever asks, in short turns of the reactor, so that requests never wait for it.

Work that may be long is a generator, which yields wherever something else may be
done; what it returns is the answer.  Between two of its steps, what it looks at may change.
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
"""Work that can be interrupted."""

SLICE: Final = 0.0002
"""
Seconds that a turn of it may take, and that a request waits which comes in the midst of one; a step should be
a fraction of that.
"""


def at_once(steps: Steps[T]) -> T:
    """Do some work, whatever else waits for that."""
    try:
        while True:
            next(steps)
    except StopIteration as done:
        result: T = done.value
        return result


def in_slices(steps: Steps[T], clock: IReactorTime) -> Deferred[T]:
    """
    Do some work in short turns, the first of which is now.

    @return: what comes of it; to cancel it ends the work.
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
    Go through a view of a dictionary that may change between two portions.

    A copy of ten thousand entries would touch each of them, in milliseconds.  So it goes on where it was,
    and finds the place anew if entries have come or gone.  None that is there all the time is left out.
    Those that come stand at the end; of those that have left it is not known whether they had been passed,
    so that as many others may be given twice.

    @param size: of one portion.
    @param left: says how many entries have ever left: a dictionary does not tell, if as many have come.
    """
    passed, gone, entries = 0, left(), iter(view)
    while True:
        if left() != gone:
            passed, gone = max(0, passed - (left() - gone)), left()
            entries = islice(view, passed, None)
        try:
            portion = list(islice(entries, size))
        except RuntimeError:  # some have come
            entries = islice(view, passed, None)
            portion = list(islice(entries, size))
        if not portion:
            return
        passed += len(portion)
        yield portion
