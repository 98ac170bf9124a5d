"""
Memory for what is received, from the C library.

Glibc gives memory at the end of its heap back to the kernel as soon as 128 KiB
of it are free, and takes pieces larger than that from the kernel each time;
both bounds grow by themselves, up to what one read takes.  Where several
connections have such a piece each, every read brings pages that the kernel has
to clear first, which costs more than to receive what is put there.
"""

from __future__ import annotations

__all__ = ["keep_memory"]

import ctypes
import sys
from contextlib import suppress
from typing import Final

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3

KEPT: Final = 4 * 1024 * 1024
"""Bytes at the end of the heap that are kept for the next reads."""

OWN: Final = 1024 * 1024
"""Bytes from which a piece is still the kernel's to give."""


def keep_memory() -> bool:
    """
    Let the C library keep what a few reads take, rather than give it back after each.

    @return: whether it could be told; other libraries than glibc can't be.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            mallopt = ctypes.CDLL(None).mallopt
            return bool(mallopt(_TRIM_THRESHOLD, KEPT)) and bool(mallopt(_MMAP_THRESHOLD, OWN))
    return False
