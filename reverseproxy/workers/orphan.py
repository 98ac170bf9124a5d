"""
A worker whose supervisor is gone, at whatever moment, lets go of the ports.

One that runs sees the end of its channel.  One that is stopped (SIGSTOP), hangs, or
has not begun yet does not, and would keep the ports from whoever starts the
supervisor again.  So the kernel is asked to send a signal when the supervisor ends:
SIGCONT wakes one that is stopped, and does nothing to one that runs.
"""

from __future__ import annotations

__all__ = ["end_with_parent", "wake_with_parent"]

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Final

_PR_SET_PDEATHSIG: Final = 1

GRACE: Final = 1.0
"""Seconds that an orphan has to notice; one that has not by then hangs."""


def _send_with_parent(number: signal.Signals) -> None:
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)


def end_with_parent() -> None:
    """While there is nothing to lose yet: end at once with the process that has started this one."""
    _send_with_parent(signal.SIGKILL)


def wake_with_parent(parent: int) -> Callable[[], None]:
    """
    From now on: be awake when the parent ends, and be killed L{GRACE} seconds later.

    To be called when the process has the user that it keeps, as the kernel forgets it else.

    @param parent: its number.
    @return: to be called by whoever notices in time, who is not killed then.
    """

    def woken(*_: object) -> None:
        # This comes between two steps of whatever it is that does not end.
        if os.getppid() != parent:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, GRACE)

    def noticed() -> None:
        signal.signal(signal.SIGCONT, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, 0.0)

    signal.signal(signal.SIGCONT, woken)
    _send_with_parent(signal.SIGCONT)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGCONT)  # it has ended before
    return noticed
