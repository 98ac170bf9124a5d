"""How many workers there are, and what each of them has to do; pure."""

from __future__ import annotations

__all__ = ["MAX_WORKERS", "parse_workers", "share_of"]

import os
from typing import Final

MAX_WORKERS: Final = 64
"""More of them have too many links to one another, for any machine that this may run on."""


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def parse_workers(value: int | str) -> int:
    """
    Read the number of workers.

    @param value: a number, a text that is one, or C{"auto"} for one for each
        core.
    @raise ValueError: if it is none, or not from 1 to L{MAX_WORKERS}.
    """
    if value == 0:
        return 1  # MOSN's way not to say anything

    if value == "auto":
        return min(cores(), MAX_WORKERS)
    text = str(value)
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and 1 <= int(text) <= MAX_WORKERS):
        raise ValueError(f"the number of workers must be from 1 to {MAX_WORKERS}, or auto, not {text}")
    return int(text)


def share_of(total: int, workers: int, worker: int, offset: int = 0) -> int:
    """
    Say how many of some things are one worker's, so that all have about as many.

    @param worker: its number, from 0.
    @param offset: moves the surplus to other workers, so that several kinds of
        things do not all leave the last ones without any.
    """
    return total // workers + ((worker - offset) % workers < total % workers)
