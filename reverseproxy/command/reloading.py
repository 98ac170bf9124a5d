"""Let a running process reload its configuration, and get the result."""

from __future__ import annotations

__all__ = ["ReloadFailed", "reload_by_admin", "reload_by_signal"]

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from reverseproxy.command.remote import AdminClient, AdminEndpoint, AdminProblem

PATH: Final = "config"

TIMEOUT: Final = 60.0
"""Seconds for an answer: a large configuration takes its time."""

_LONGEST_PID: Final = 32
"""Characters of a file with a process id that are read."""

POLL: Final = 0.1
"""Seconds between two questions whether a signal has had its effect."""

INVALID: Final = 422


class ReloadFailed(Exception):
    """The reload has failed, or its result is unknown; the message has the reason and a remedy."""


def _ask(client: AdminClient, method: str, path: str) -> tuple[int, dict[str, Any]]:
    try:
        return client.request(method, path)
    except AdminProblem as error:
        raise ReloadFailed(f"no result from the admin API: {error}") from None


def reload_by_admin(endpoint: AdminEndpoint, token: str) -> dict[str, Any]:
    """
    Reload by the admin API.

    @return: the result, as the API returns it.
    @raise ReloadFailed: if the request failed or was refused.
    """
    status, body = _ask(AdminClient(endpoint, token, TIMEOUT), "POST", f"{PATH}:reload")
    if status in (200, INVALID):
        return body
    raise ReloadFailed(
        f"{endpoint} refused to reload: {body.get('title', status)}; "
        "use --token-file, or send a signal with --pidfile"
    )


def _read_pid(file: Path) -> int:
    try:
        with file.open(encoding="ascii", errors="replace") as opened:
            text = opened.read(_LONGEST_PID).strip()
    except OSError as error:
        raise ReloadFailed(f"{file} has no process id: {error.strerror}") from None
    # Numbers below 1 stand for several processes, or for all.
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 2**31):
        raise ReloadFailed(f"{file} has no process id, but {text!r}")
    return int(text)


def reload_by_signal(
    pid_file: Path,
    endpoint: AdminEndpoint | None,
    token: str,
    sleep: Callable[[float], object] = time.sleep,
) -> dict[str, Any] | None:
    """
    Reload by SIGHUP.

    @param endpoint: the admin API, for the result; L{None} without one.
    @return: the result; L{None} if only the log has it.
    @raise ReloadFailed: if the signal could not be sent, or had no effect.
    """
    pid = _read_pid(pid_file)
    before = client = None
    if endpoint is not None:
        client = AdminClient(endpoint, token, TIMEOUT)
        status, state = _ask(client, "GET", PATH)
        before = state["attempts"] if status == 200 else None
    try:
        os.kill(pid, signal.SIGHUP)
    except OSError as error:
        raise ReloadFailed(f"can't send a signal to process {pid}: {error.strerror}") from None
    if client is None or before is None:
        return None
    for _ in range(round(TIMEOUT / POLL)):
        sleep(POLL)
        _, state = _ask(client, "GET", PATH)
        if state.get("attempts", before) > before:
            last: dict[str, Any] = state["last"]
            return last
    raise ReloadFailed(f"process {pid} got the signal, but did not reload within {TIMEOUT:g} s")
