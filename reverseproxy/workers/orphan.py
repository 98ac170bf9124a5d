"""
A worker whose supervisor has died releases the ports, in any state.

A running worker sees the end of its channel.  One that is stopped (SIGSTOP), hangs or is
still starting does not, and would keep the ports bound when the supervisor is started again.
So the kernel sends a signal when the supervisor ends (C{PR_SET_PDEATHSIG}): SIGCONT wakes a
stopped worker, and does nothing to a running one.
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
"""Seconds that an orphan has to notice; after that it counts as hanging."""


def _send_with_parent(number: signal.Signals) -> None:
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)


def end_with_parent() -> None:
    """Let the kernel kill this process when its parent ends; for the start, when there is nothing to lose."""
    _send_with_parent(signal.SIGKILL)


def wake_with_parent(parent: int) -> Callable[[], None]:
    """
    Wake this process when its parent ends, and kill it L{GRACE} seconds later unless it has noticed.

    Call it after the last change of the user, which resets the kernel's setting.

    @param parent: the parent's process id.
    @return: to be called when the process has noticed; cancels the kill.
    """

    def woken(*_: object) -> None:
        # Python runs this between two bytecodes of code that hangs.
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
