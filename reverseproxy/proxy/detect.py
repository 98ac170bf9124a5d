"""
Protocol detection by the first bytes of a connection: for C{Auto} and lists.

A L{Detector} has a connection until its first bytes show the protocol, and hands it
over to that protocol, with all that was read.  A connection of an unknown protocol is
closed, or goes to the next filter (C{fallback_for_unknown_protocol}).  If the bytes are
text, HTTP/1 answers them if it is one of the protocols, as that tells what is wrong
with a mistyped request.

Detected are any HTTP method, the preface of HTTP/2, and the magic bytes of RPC
protocols, as in MOSN (docs/mosn.rst 4.3).  ALPN decides for HTTP/2 over TLS.
"""

from __future__ import annotations

__all__ = [
    "DETECT_LIMIT",
    "DETECT_TIMEOUT",
    "Candidate",
    "Detector",
    "DetectorSettings",
    "detect_http1",
    "detect_http2",
]

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from twisted.internet.interfaces import IProtocol, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.cluster.handover import Handover
from reverseproxy.interfaces import ConnectionInfo, IDrainable, IEndable, IExpendable, IPartable
from reverseproxy.limits.refusals import REFUSALS
from reverseproxy.net.lenient_timeouts import LenientTimeout
from reverseproxy.proxy.closing import FRESH, QUIET, end_session
from reverseproxy.tls import negotiated_protocol
from reverseproxy.wire.http.fields import MAX_METHOD, TOKEN

log = Logger()

DETECT_LIMIT: Final = 256
"""Bytes after which a connection without a detected protocol counts as unknown."""

DETECT_TIMEOUT: Final = 15.0
"""Seconds from the first byte on within which the protocol must be detected."""

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

# A word in capitals, and a space: any method, as in MOSN.
_WORD: Final = re.compile(rb"[A-Z]{1,20} ")

# Other protocols begin with a word as well.  A word with other characters or small letters is a method
# only if a request target for a reverse proxy follows.
_METHOD: Final = re.compile(TOKEN + rb"{1,%d} (?i:/|\*|https?:)" % MAX_METHOD)
_METHOD_SO_FAR: Final = re.compile(
    TOKEN + rb"{1,%d}(?: (?:h(?:t(?:t(?:ps?)?)?)?)?)?" % MAX_METHOD, re.IGNORECASE
)

_TEXT: Final = re.compile(rb"[\t\r\n -~]+")


def detect_http1(data: bytes) -> bool | None:
    """
    Return whether this is the beginning of HTTP/1: a method, a space, and a target.

    There may be empty lines in front of it (RFC 9112 2.2).
    """
    data = data.lstrip(b"\r\n")
    if data.startswith(b"PRI "):
        return False
    if _WORD.match(data) or _METHOD.match(data):
        return True
    return None if not data or _METHOD_SO_FAR.fullmatch(data) else False


def detect_http2(data: bytes) -> bool | None:
    """Return whether this is the beginning of HTTP/2: its preface."""
    if len(data) < len(_PREFACE):
        return None if _PREFACE.startswith(data) else False
    return data.startswith(_PREFACE)


@dataclass(frozen=True, slots=True)
class Candidate:
    """
    A protocol that a connection may have.

    @ivar name: its name in the configuration.
    @ivar detect: returns, given the first bytes, at least one, whether they are this
        protocol's; L{None} if more are needed.
    @ivar build: builds the protocol of a connection.
    """

    name: str
    detect: Callable[[bytes], bool | None]
    build: Callable[[ConnectionInfo], IProtocol]


@dataclass(frozen=True, slots=True)
class DetectorSettings:
    """
    The settings that all connections of one C{proxy} filter share.

    @ivar listener: the listener's name, for logs.
    @ivar candidates: the protocols, in the order in which they are tried.
    @ivar clock: the time.
    @ivar idle_timeout: seconds for the first byte; L{None} for any time.
    @ivar fallback: builds the protocol of connections of an unknown protocol;
        L{None} to close them.
    """

    listener: str
    candidates: Sequence[Candidate]
    clock: IReactorTime
    idle_timeout: float | None = None
    fallback: Callable[[ConnectionInfo], IProtocol] | None = None


@implementer(IDrainable, IEndable, IExpendable, IPartable)
class Detector(Handover):
    """One connection, until its protocol is detected, and the proxy of that protocol from then on."""

    def __init__(self, settings: DetectorSettings, info: ConnectionInfo) -> None:
        self._settings = settings
        self._info = info
        self._data = b""
        self._timer: LenientTimeout | None = None
        self._draining = False
        self._began = 0.0

    # IDrainable

    @property
    def busy(self) -> bool:
        """Whether data has come, until the protocol is detected; then whether that is busy."""
        inner = self.inner
        if inner is None:
            return bool(self._data)
        return bool(inner.busy) if IDrainable.providedBy(inner) else True

    @property
    def expendable(self) -> bool:
        """See L{IExpendable}."""
        inner = self.inner
        return inner is None or (IExpendable.providedBy(inner) and bool(inner.expendable))

    def drain(self) -> None:
        """See L{IDrainable}."""
        inner = self.inner
        if inner is not None:
            _drain(inner)
        elif self._data or self._info.reverse:
            self._draining = True
        elif self._settings.clock.seconds() - self._began < FRESH:
            self._draining = True
            self._set_timer(QUIET, "")
        else:
            self._close("")

    def part(self) -> None:
        """See L{IPartable}."""
        inner = self.inner
        if inner is None:
            self._draining = True
        elif IPartable.providedBy(inner):
            inner.part()
        else:
            _drain(inner)

    # IEndable

    @property
    def doing(self) -> str:
        """See L{IEndable}."""
        inner = IEndable(self.inner, None)
        return str(inner.doing) if inner is not None else "first bytes" if self.busy else ""

    def end(self, reason: str) -> None:
        """See L{IEndable}."""
        if self.inner is None:
            self._close("")
        else:
            end_session(self.inner, reason)

    # the connection

    def connectionMade(self) -> None:
        """Start the timeout for the first byte."""
        self._began = self._settings.clock.seconds()
        timeout = self._settings.idle_timeout
        if timeout is not None:
            self._set_timer(timeout, "")

    def dataReceived(self, data: bytes) -> None:
        """Try to detect the protocol."""
        if not self._data:
            self._set_timer(DETECT_TIMEOUT, f"its protocol did not show within {DETECT_TIMEOUT:g} s")
            agreed = self._agreed() if self._info.secure else None
            if agreed is not None:
                self._data = data
                self._hand_over(agreed.build)
                return
        self._data += data
        undecided = False
        for candidate in self._settings.candidates:
            found = candidate.detect(self._data)
            if found:
                self._hand_over(candidate.build)
                return
            undecided |= found is None
        if not undecided or len(self._data) >= DETECT_LIMIT:
            http1 = self._candidate("Http1") if _TEXT.fullmatch(self._data) else None
            if self._settings.fallback is not None:
                self._hand_over(self._settings.fallback)
            elif http1 is not None:
                self._hand_over(http1.build)
            else:
                known = ", ".join(candidate.name for candidate in self._settings.candidates)
                self._close(f"it speaks none of {known}, but begins with {self._data[:16].hex(' ')}")

    def _agreed(self) -> Candidate | None:
        """Return the protocol that was negotiated by ALPN, if that decides."""
        if negotiated_protocol(self.transport) != "h2":
            return None
        return self._candidate("Http2")

    def _candidate(self, name: str) -> Candidate | None:
        return next((each for each in self._settings.candidates if each.name == name), None)

    def _hand_over(self, build: Callable[[ConnectionInfo], IProtocol]) -> None:
        self._stop_timer()
        data, self._data = self._data, b""
        inner: Any = build(self._info)
        self.hand_over(inner, data)
        if self._draining:
            _drain(inner)

    def _close(self, reason: str) -> None:
        self._stop_timer()
        self._data = b""
        if reason:
            REFUSALS["protocol"] += 1
            log.warn(
                "{listener}: {peer} closed: {reason}",
                listener=self._settings.listener,
                peer=self._info.remote,
                reason=reason,
            )
            # Nothing that it has sent or will send is read.
            self.transport.abortConnection()
        else:
            self.transport.loseConnection()

    def _set_timer(self, seconds: float, reason: str) -> None:
        self._stop_timer()
        self._timer = LenientTimeout(self._settings.clock, seconds, partial(self._close, reason))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None

    def readConnectionLost(self) -> None:
        """Close the connection if no protocol was detected, as the client sends no more."""
        if self.inner is None:
            self._stop_timer()
        super().readConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Cancel the timer, and pass the event on."""
        self._stop_timer()
        super().connectionLost(reason)


def _drain(protocol: Any) -> None:
    if IDrainable.providedBy(protocol):
        protocol.drain()
    else:
        protocol.transport.loseConnection()
