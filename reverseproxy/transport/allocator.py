"""
Settings of the C library's allocator, for the buffers of reads.

Glibc returns memory at the end of its heap to the kernel as soon as 128 KiB of it
are free, and maps larger blocks anew each time; both thresholds grow by themselves,
up to the size of one read.  If several connections have such a block each, every read
uses pages that the kernel has to clear first, which costs more than the read itself.
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
"""Free bytes at the end of the heap that are kept for further reads."""

OWN: Final = 1024 * 1024
"""Bytes from which on a block is mapped by the kernel."""


def keep_memory() -> bool:
    """
    Let the C library keep memory for a few reads, rather than return it after each.

    @return: whether that was possible: only glibc has these settings.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            mallopt = ctypes.CDLL(None).mallopt
            return bool(mallopt(_TRIM_THRESHOLD, KEPT)) and bool(mallopt(_MMAP_THRESHOLD, OWN))
    return False
