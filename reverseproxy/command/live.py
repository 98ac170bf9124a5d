"""
A status line at the bottom of a terminal.

It is made of two samples of the same counters (L{LiveSample}); errors are printed above it,
with a remedy (L{remedy}).  Both are pure; L{LiveLine} writes to the terminal.
"""

from __future__ import annotations

__all__ = ["LiveLine", "LiveSample", "remedy", "render"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TextIO

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import LogLevel, formatEvent

INTERVAL: Final = 0.5
"""Seconds between two samples."""

_CLEAR: Final = "\r\x1b[K"

_REMEDIES: Final[Sequence[tuple[str, str]]] = (
    ("can't be reached; servers are told", "start the service, or use another TARGET"),
    ("can't be reached: ", "start the service, or use another TARGET"),
    ("rejected the credential", "check that --token-file has the token that the server printed for --as"),
    ("no cluster of this name", "use the name that the server printed with --as"),
    (
        "does not let this agent have",
        "use other routes, or allow these in the token at the server",
    ),
    ("given the routes that this agent asks for to somebody else", "use another name with --as"),
    (
        "certificate verify failed",
        "the server has another certificate: use the --fingerprint that it prints now",
    ),
    ("refused", "check that the server runs, and that --to has its port for agents"),
    ("could not be resolved", "check the host of --to, and DNS"),
    ("took longer than", "check that no firewall blocks connections to --to"),
    ("no answer in time", "check that no firewall blocks connections to --to"),
    ("timed out", "check that no firewall blocks connections to --to"),
    ("tunnel protocol", "check that --to has the server's port for agents, not that for clients"),
)


def remedy(text: str) -> str:
    """
    Return a remedy for an error in the log.

    @return: empty if none is known.
    """
    return next((what for sign, what in _REMEDIES if sign in text), "")


@dataclass(frozen=True, slots=True)
class LiveSample:
    """
    One sample of the counters.

    @ivar time: its time, in seconds.
    @ivar serving: the number of connections.
    @ivar wanted: the number of connections that there should be.
    @ivar requests: the number of completed requests or sessions.
    @ivar busy: the number of those under way.
    @ivar seconds: the total duration of the completed ones.
    """

    time: float
    serving: int
    wanted: int
    requests: int = 0
    busy: int = 0
    seconds: float = 0.0


def _latency(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def render(name: str, before: LiveSample, now: LiveSample, tcp: bool, width: int) -> str:
    """
    Format the line.

    @param before: an earlier sample, since which rate and latency are measured.
    @param tcp: whether sessions are counted, which have no latency.
    @param width: the width of the terminal in characters.
    """
    parts = [name]
    if now.serving < now.wanted:
        parts.append(f"{now.serving} of {now.wanted} connections, trying")
    else:
        parts.append(f"{now.serving} connection{'s' * (now.serving != 1)}")
    what = "session" if tcp else "request"
    parts.append(f"{now.requests} {what}{'s' * (now.requests != 1)}")
    if now.busy:
        parts.append(f"{now.busy} under way")
    ended, passed = now.requests - before.requests, now.time - before.time
    if ended > 0 and passed > 0:
        parts.append(f"{ended / passed:.1f}/s")
        if not tcp:
            parts.append(_latency((now.seconds - before.seconds) / ended))
    line = "  ".join(parts)
    return line if len(line) < width else f"{line[: max(width - 2, 0)]}\N{HORIZONTAL ELLIPSIS}"


class LiveLine:
    """Keeps a line at the bottom of a terminal, and lines of the log above it."""

    def __init__(
        self,
        name: str,
        look: Callable[[], LiveSample],
        stream: TextIO,
        clock: IReactorTime,
        tcp: bool = False,
        width: Callable[[], int] = lambda: 80,
        window: int = 20,
    ) -> None:
        """
        @param look: takes a sample.
        @param width: returns the present width of the terminal in characters.
        @param window: the number of samples over which rate and latency are measured.
        """
        self._name = name
        self._look = look
        self._stream = stream
        self._tcp = tcp
        self._width = width
        self._window = window
        self._samples: list[LiveSample] = []
        self._line = ""
        self._loop = LoopingCall(self.draw)
        self._loop.clock = clock

    def start(self) -> None:
        """Start to draw."""
        self._loop.start(INTERVAL)

    def stop(self) -> None:
        """Stop, and leave the line as it is."""
        if self._loop.running:
            self._loop.stop()
            self._put(f"{_CLEAR}{self._line}\n")

    def draw(self) -> None:
        """Draw the line, if it has changed."""
        now = self._look()
        self._samples = [*self._samples[-self._window :], now]
        line = render(self._name, self._samples[0], now, self._tcp, self._width())
        if line != self._line:
            self._line = line
            self._put(f"{_CLEAR}{line}")

    def say(self, text: str) -> None:
        """Print a text above the line."""
        self._put(f"{_CLEAR}{text}\n{self._line if self._loop.running else ''}")

    def observe(self, event: dict[str, Any]) -> None:
        """Print errors, as an observer of the log."""
        level = event.get("log_level")
        if level not in (LogLevel.warn, LogLevel.error, LogLevel.critical):
            return
        text = " ".join((formatEvent(event) or "").split())
        advice = remedy(text)
        self.say(f"{text}\n  -> {advice}" if advice else text)

    def _put(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            if self._loop.running:  # the terminal is gone
                self._loop.stop()
