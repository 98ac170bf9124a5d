"""
Long work for whoever asks, in short turns of the reactor, so that requests never wait for it.

Work that may be long is a generator, which yields wherever something else may be
done; what it returns is the answer.  Between two of its steps, what it looks at may change.
"""

from __future__ import annotations

__all__ = ["SLICE", "Steps", "at_once", "in_slices"]

from collections.abc import Generator
from typing import Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

T = TypeVar("T")

Steps = Generator[None, None, T]
"""Work that can be interrupted."""

SLICE: Final = 0.0005
"""Seconds that a turn of it may take; a request takes a twentieth of that."""


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
