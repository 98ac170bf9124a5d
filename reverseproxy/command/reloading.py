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

SUCCESS: Final = 200
INVALID: Final = 422


class ReloadFailed(Exception):
    """The reload has failed, or its result is unknown; the message has the reason and a remedy."""


def reload_by_admin(endpoint: AdminEndpoint, token: str) -> dict[str, Any]:
    """
    Reload by the admin API.

    @return: the result, as the API returns it.
    @raise ReloadFailed: if the request failed or was refused.
    """
    try:
        status, body = AdminClient(endpoint, token, TIMEOUT).request("POST", f"{PATH}:reload")
    except AdminProblem as error:
        raise ReloadFailed(f"no result from the admin API: {error}") from None
    if status in (SUCCESS, INVALID):
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


def _reloads(client: AdminClient | None) -> dict[str, Any] | None:
    """Return the number of reloads so far, and the last one; L{None} if the admin API does not say that."""
    try:
        status, state = (0, {}) if client is None else client.request("GET", PATH)
    except AdminProblem:
        return None
    return state if status == SUCCESS and "attempts" in state else None


def reload_by_signal(
    pid_file: Path,
    endpoint: AdminEndpoint | None,
    token: str,
    sleep: Callable[[float], object] = time.sleep,
) -> dict[str, Any] | None:
    """
    Reload by SIGHUP.

    @param endpoint: the admin API, for the result; L{None} without one.  It need not answer: the reload
        may add it, or change its address.
    @return: the result; L{None} if only the log has it.
    @raise ReloadFailed: if the signal could not be sent, or had no effect.
    """
    pid = _read_pid(pid_file)
    client = None if endpoint is None else AdminClient(endpoint, token, TIMEOUT)
    before = _reloads(client)
    try:
        os.kill(pid, signal.SIGHUP)
    except OSError as error:
        raise ReloadFailed(f"can't send a signal to process {pid}: {error.strerror}") from None
    if before is None:
        return None
    for _ in range(round(TIMEOUT / POLL)):
        sleep(POLL)
        state = _reloads(client)
        if state is None:
            return None
        if state["attempts"] > before["attempts"]:
            last: dict[str, Any] = state["last"]
            return last
    raise ReloadFailed(f"process {pid} got the signal, but did not reload within {TIMEOUT:g} s")
