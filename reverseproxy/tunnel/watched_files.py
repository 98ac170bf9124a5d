"""Small files that operators change while the process runs."""

from __future__ import annotations

__all__ = ["Signature", "read_text", "reason_of", "signature", "unusable"]

import os
from typing import TypeAlias

from reverseproxy.errors import OptionsError
from reverseproxy.problems import Place, Problem

Signature: TypeAlias = tuple[int, ...] | None


def signature(path: str) -> Signature:
    """
    Return a value that changes whenever a file does, without reading it; L{None} if there is no file.

    A file that was replaced by a rename has another inode, so that even a change that keeps size and
    time is detected.
    """
    try:
        stat = os.stat(path)
    except (OSError, ValueError):
        return None
    return (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def read_text(path: str, limit: int) -> str:
    """
    Read a whole file as UTF-8.

    @param limit: bytes, at most.
    @raise OSError: if it can't be read.
    @raise OptionsError: if it is larger, or not UTF-8; its content is not quoted.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except ValueError:  # a character that no path can have
        raise unusable(path, "is not a path") from None
    if len(data) > limit:
        raise unusable(path, f"is larger than the {limit} bytes allowed")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise unusable(path, f"is not UTF-8, at byte {error.start}") from None


def reason_of(error: OSError | OptionsError, path: str) -> str:
    """Return why a file can't be used, for a message that names the file already."""
    if isinstance(error, OptionsError):
        return error.brief.removeprefix(f"{path}: ")
    return error.strerror or str(error)


def unusable(path: str, reason: str, line: int = 0, column: int = 0) -> OptionsError:
    """Return an error about a file; the line and the column count from 1, and are 0 if they are not known."""
    return OptionsError(Problem.at(Place(path, line=line, column=column), reason))
