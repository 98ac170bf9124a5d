"""The Unix socket for takeovers: bound beside its path, and then moved there, in place of an older one."""

from __future__ import annotations

__all__ = ["is_other_file", "listen_at", "try_to_bind"]

import errno
import os
import socket
import stat
from contextlib import ExitStack
from typing import Final

_BACKLOG: Final = 4


def is_other_file(path: str) -> bool:
    """Return whether there is something at a path that is no socket, and so must not be replaced by one."""
    try:
        return not stat.S_ISSOCK(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def _beside(path: str) -> str:
    return f"{path}.{os.getpid()}"


def _bind(listening: socket.socket, path: str) -> None:
    """Bind a socket, for this user alone."""
    before = os.umask(0o177)
    try:
        listening.bind(path)
    finally:
        os.umask(before)


def try_to_bind(path: str) -> None:
    """
    Check that a socket can be made at a path, without making it.

    @raise OSError: if not.
    @raise ValueError: if it is no path.
    """
    beside = _beside(path)
    with socket.socket(socket.AF_UNIX) as tried:
        _bind(tried, beside)
    os.unlink(beside)


def listen_at(path: str) -> socket.socket:
    """
    Listen at a path, in place of any process before, without blocking.

    @raise OSError: if that fails.
    """
    if is_other_file(path):
        raise OSError(errno.EEXIST, "what is there is no socket")
    beside = _beside(path)
    with ExitStack() as closing:
        listening = closing.enter_context(socket.socket(socket.AF_UNIX))
        listening.setblocking(False)
        _bind(listening, beside)
        listening.listen(_BACKLOG)
        os.replace(beside, path)
        closing.pop_all()
        return listening
