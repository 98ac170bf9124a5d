"""Checks of the system: versions, file descriptors, the clock, free ports."""

from __future__ import annotations

__all__ = ["FAIL", "OK", "WARN", "Finding", "clock", "descriptors", "port", "versions"]

import ctypes
import errno
import os
import platform
import re
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from typing import Final

from OpenSSL import SSL

from reverseproxy import __version__
from reverseproxy.clock import wall_time
from reverseproxy.config.models import ListenerConfig
from reverseproxy.limits.connection_limit import Descriptors

OK: Final = "ok"
WARN: Final = "warn"
FAIL: Final = "FAIL"

_EARLIEST: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""Before this, the program did not exist."""

_FEW: Final = 4096
_UNSYNCHRONIZED: Final = 5
"""TIME_ERROR of adjtimex(2)."""

_REQUIREMENT: Final = re.compile(r"([A-Za-z0-9._-]+)(?:\[.*?\])?\s*>=\s*([0-9.]+)")


@dataclass(frozen=True, slots=True)
class Finding:
    """
    The result of one check.

    @ivar level: L{OK}, L{WARN} or L{FAIL}.
    @ivar what: the subject.
    @ivar detail: what was found.
    @ivar remedy: what to do; empty if nothing.
    """

    level: str
    what: str
    detail: str
    remedy: str = ""

    def __str__(self) -> str:
        line = f"{self.level:5}{self.what}: {self.detail}"
        return f"{line}\n     -> {self.remedy}" if self.remedy else line


def versions() -> Iterator[Finding]:
    """Check the versions of Python and of libraries."""
    openssl = SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode("ascii", "replace")
    detail = f"reverseproxy {__version__}, Python {platform.python_version()}, {openssl}, {sys.platform}"
    yield Finding(OK, "versions", detail)
    try:
        requirements = metadata.requires("reverseproxy") or []
    except metadata.PackageNotFoundError:
        return  # run from a checkout, without metadata
    for requirement in requirements:
        found = None if "extra ==" in requirement else _REQUIREMENT.match(requirement)
        if found is None:
            continue
        name, lowest = found.groups()
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Finding(FAIL, "versions", f"{name} is not installed", f"pip install '{requirement}'")
            continue
        if _numbers(installed) < _numbers(lowest):
            detail = f"{name} is {installed}, and has to be {lowest} or newer"
            yield Finding(FAIL, "versions", detail, f"pip install '{requirement}'")


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"[0-9.]+", version)
    return tuple(int(part) for part in found[0].split(".") if part) if found else ()


def descriptors(limit: int | None = None) -> Iterator[Finding]:
    """
    Check the limit of file descriptors.

    @param limit: the limit; L{None} to read it from the system.
    """
    if limit is None:
        Descriptors.raise_limit()
        limit = Descriptors.current().limit
    detail = f"{limit}, for {Descriptors(limit).for_strangers} connections at the most"
    if limit < _FEW:
        remedy = "raise the hard limit: LimitNOFILE= of systemd, nofile of limits.conf, or ulimit -Hn"
        yield Finding(WARN, "descriptors", detail, remedy)
    else:
        yield Finding(OK, "descriptors", detail)


def _kernel_clock() -> int | None:
    """Return the result of adjtimex(2); L{None} on systems without it."""
    try:
        adjtimex = ctypes.CDLL(None).adjtimex
    except (OSError, AttributeError):
        return None
    # struct timex has 208 bytes at the most; zeroed, it asks for no change.
    state = int(adjtimex(ctypes.create_string_buffer(512)))
    return None if state < 0 else state


def clock(
    now: Callable[[], float] = wall_time, kernel: Callable[[], int | None] = _kernel_clock
) -> Iterator[Finding]:
    """
    Check the wall clock, on which the validity of certificates depends.

    @param now: seconds since 1970.
    @param kernel: the result of adjtimex(2).
    """
    moment = datetime.fromtimestamp(now(), UTC)
    detail = f"{moment:%Y-%m-%d %H:%M} UTC"
    remedy = "let it be set by chrony, systemd-timesyncd or the like"
    if moment < _EARLIEST:
        yield Finding(FAIL, "clock", f"{detail}, which can't be: certificates will not be valid", remedy)
    elif kernel() == _UNSYNCHRONIZED:
        yield Finding(WARN, "clock", f"{detail}, but nothing keeps it right", remedy)
    else:
        yield Finding(OK, "clock", detail)


_REMEDIES: Final = {
    errno.EADDRINUSE: "fine if that is this configuration, running; else see who has it: ss -ltnp",
    errno.EACCES: "choose a port from 1024 on, or give the process CAP_NET_BIND_SERVICE",
    errno.EADDRNOTAVAIL: "this machine does not have this address; 0.0.0.0 stands for all that it has",
}


def port(listener: ListenerConfig) -> Iterator[Finding]:
    """Check whether a listener can be bound; the port is released at once."""
    what = f"listener {listener.name}"
    if not listener.bind_port:
        return
    if listener.network == "unix":
        directory = os.path.dirname(listener.address) or "."
        if os.access(directory, os.W_OK):
            yield Finding(OK, what, f"{listener.address} can be made")
        else:
            yield Finding(
                FAIL, what, f"{directory} can't be written to", "make the directory, or let us write"
            )
        return
    host, _, number = listener.address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as attempt:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if listener.reuseport:
                attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            attempt.bind((host, int(number)))
            attempt.listen(1)
    except OSError as error:
        level = WARN if error.errno == errno.EADDRINUSE else FAIL
        remedy = _REMEDIES.get(error.errno or 0, "choose another address")
        detail = f"{listener.address} can't be bound: {error.strerror or error}"
        yield Finding(level, what, detail, remedy)
    else:
        yield Finding(OK, what, f"{listener.address} is free")
