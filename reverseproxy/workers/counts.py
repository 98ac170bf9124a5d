"""The number of workers, and the share of each of them; pure."""

from __future__ import annotations

__all__ = ["MAX_WORKERS", "parse_workers", "share_of"]

import os
from typing import Final

MAX_WORKERS: Final = 64
"""More would have too many links to one another."""


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def parse_workers(value: int | str) -> int:
    """
    Parse the number of workers.

    @param value: a number, also as text, or C{"auto"} for one for each core.
    @raise ValueError: if it is not from 1 to L{MAX_WORKERS}.
    """
    if value == 0:
        return 1  # the default in MOSN's files

    if value == "auto":
        return min(cores(), MAX_WORKERS)
    text = str(value)
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and 1 <= int(text) <= MAX_WORKERS):
        raise ValueError(f"the number of workers must be from 1 to {MAX_WORKERS}, or auto, not {text}")
    return int(text)


def share_of(total: int, workers: int, worker: int, offset: int = 0) -> int:
    """
    Return one worker's share of a total, so that all have about the same.

    @param worker: its number, from 0.
    @param offset: rotates the remainder, so that several totals don't all
        leave the last workers with less.
    """
    return total // workers + ((worker - offset) % workers < total % workers)
