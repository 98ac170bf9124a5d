"""A running process is told to read its configuration again, and asked what has come of it."""

from __future__ import annotations

__all__ = ["AdminAddress", "ReloadFailed", "address_of", "reload_by_admin", "reload_by_signal"]

import http.client
import json
import os
import signal
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from reverseproxy.command.remote import UnixConnection
from reverseproxy.config.models import AdminConfig

PATH: Final = "/api/tunnel/v1/config"

TIMEOUT: Final = 60.0
"""Seconds for an answer: a large configuration takes its time."""

POLL: Final = 0.1
"""Seconds between two questions whether a signal has had its effect."""

INVALID: Final = 422


class ReloadFailed(Exception):
    """It has not been reloaded, or nobody can say; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class AdminAddress:
    """
    Where an admin API is.

    @ivar host: a name or an address; or a path.
    @ivar port: 0 for a Unix socket.
    """

    host: str
    port: int = 0
    secure: bool = False

    @classmethod
    def parse(cls, text: str) -> AdminAddress:
        """
        Take C{http://host:port}, C{https://host:port}, C{host:port} or C{unix:/path}.

        @raise ReloadFailed: for anything else.
        """
        if text.startswith("unix:"):
            return cls(text.removeprefix("unix:"))
        url = urlsplit(text if "://" in text else f"http://{text}")
        try:
            port = url.port
        except ValueError:
            port = None
        if url.scheme not in ("http", "https") or not url.hostname or not port:
            raise ReloadFailed(f"{text} is no address of an admin API: write http://host:port or unix:/path")
        return cls(url.hostname, port, url.scheme == "https")

    def __str__(self) -> str:
        if not self.port:
            return f"unix:{self.host}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'s' if self.secure else ''}://{host}:{self.port}"


def address_of(admin: AdminConfig | None) -> AdminAddress | None:
    """Where the admin API of a configuration is; L{None} if it has none, or at a port that nobody knows."""
    bound = "" if admin is None else admin.bound
    if admin is None or not bound or bound.endswith(":0"):
        return None
    if bound.startswith("unix:"):
        return AdminAddress(bound.removeprefix("unix:"))
    host, _, port = bound.rpartition(":")
    host = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]"))  # noqa: S104 - as it is written
    return AdminAddress(host, int(port), admin.tls is not None)


def _connect(address: AdminAddress, ca: str | None) -> http.client.HTTPConnection:
    if not address.port:
        return UnixConnection(address.host, TIMEOUT)
    if address.secure:
        context = ssl.create_default_context(cafile=ca)
        return http.client.HTTPSConnection(address.host, address.port, timeout=TIMEOUT, context=context)
    return http.client.HTTPConnection(address.host, address.port, timeout=TIMEOUT)


def _ask(
    address: AdminAddress, method: str, path: str, token: str | None, ca: str | None
) -> tuple[int, dict[str, Any]]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    connection = None
    try:
        connection = _connect(address, ca)
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        body = json.loads(answer.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ReloadFailed(f"the admin API at {address} can't be asked: {error}") from None
    finally:
        if connection is not None:
            connection.close()
    if not isinstance(body, dict):
        raise ReloadFailed(f"what answers at {address} is no admin API of this kind")
    return answer.status, body


def reload_by_admin(address: AdminAddress, token: str | None, ca: str | None) -> dict[str, Any]:
    """
    Reload by way of the admin API.

    @return: what has come of it, as the API has it.
    @raise ReloadFailed: if it could not be asked for, or not by us.
    """
    status, body = _ask(address, "POST", f"{PATH}:reload", token, ca)
    if status in (200, INVALID):
        return body
    raise ReloadFailed(
        f"{address} does not reload for us: {body.get('title', status)}; "
        "show a token with --token-file, or send a signal with --pidfile"
    )


def _read_pid(file: Path) -> int:
    try:
        return int(file.read_text("ascii", "replace").strip())
    except (OSError, ValueError) as error:
        raise ReloadFailed(f"no process can be found by {file}: {error}") from None


def reload_by_signal(
    pid_file: Path,
    address: AdminAddress | None,
    token: str | None,
    ca: str | None,
    sleep: Callable[[float], object] = time.sleep,
) -> dict[str, Any] | None:
    """
    Reload by SIGHUP.

    @param address: where to ask what has come of it; L{None} if there is nowhere.
    @return: that; L{None} if only the log says it.
    @raise ReloadFailed: if the signal could not be sent, or nothing has come of it.
    """
    pid = _read_pid(pid_file)
    before = None
    if address is not None:
        status, state = _ask(address, "GET", PATH, token, ca)
        before = state["attempts"] if status == 200 else None
    try:
        os.kill(pid, signal.SIGHUP)
    except OSError as error:
        raise ReloadFailed(f"the process {pid} can't be sent a signal: {error}") from None
    if address is None or before is None:
        return None
    for _ in range(round(TIMEOUT / POLL)):
        sleep(POLL)
        _, state = _ask(address, "GET", PATH, token, ca)
        if state.get("attempts", before) > before:
            last: dict[str, Any] = state["last"]
            return last
    raise ReloadFailed(f"the process {pid} has got the signal, but has not reloaded in {TIMEOUT:g} s")
