"""Certificates that are renewed while the process runs."""

from __future__ import annotations

__all__ = ["RELOAD_INTERVAL", "CertificateReloader", "IReloadable"]

from collections.abc import Iterable
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import Attribute, Interface

from reverseproxy.problems import Problem
from reverseproxy.tls.validity import Dated

log = Logger()

RELOAD_INTERVAL: Final = 10.0
"""Seconds between two checks of the files."""


class IReloadable(Interface):
    """Something with certificate files: L{reverseproxy.tls.ServerTls} or L{reverseproxy.tls.ClientTls}."""

    def reload_if_changed() -> bool:
        """
        Load the files again if they have changed, for new connections.

        Files that can't be used are logged, and change nothing.

        @return: whether anything has changed.
        """

    def expiring() -> list[tuple[Problem, bool]]:
        """
        Return what is about to expire, has expired, or is not valid yet: each once for each stage.

        @return: each problem, with whether it is so already.
        """

    dated: list[tuple[str, Dated]] = Attribute("What is in use and has an end, with the key that names it.")


class CertificateReloader:
    """
    Reloads TLS contexts whose files have changed, checking them periodically.

    Existing connections keep the contexts that they began with.
    """

    def __init__(
        self,
        clock: IReactorTime,
        contexts: Iterable[IReloadable] = (),
        interval: float = RELOAD_INTERVAL,
    ) -> None:
        """
        @param interval: seconds between two checks.
        """
        self._contexts = list(contexts)
        self._interval = interval
        self._loop = LoopingCall(self.poll)
        self._loop.clock = clock

    def add(self, context: IReloadable) -> None:
        """Check the files of one more context."""
        self._contexts.append(context)

    def watch(self, contexts: Iterable[IReloadable]) -> None:
        """Check the files of these contexts from now on, and of no others."""
        self._contexts = list(contexts)

    @property
    def dated(self) -> list[tuple[str, Dated]]:
        """Every certificate and revocation list that is in use, with the key that names it; each once."""
        return list(dict.fromkeys(entry for context in self._contexts for entry in context.dated))

    def remove(self, context: IReloadable) -> None:
        """
        Check the files of a context no more.

        @raise ValueError: if it is not known.
        """
        self._contexts.remove(context)

    def start(self) -> None:
        """Begin; the first check is an interval from now.  Does nothing if it has begun."""
        if not self._loop.running:
            self._loop.start(self._interval, now=False)

    def stop(self) -> None:
        """End.  Does nothing if it has not begun."""
        if self._loop.running:
            self._loop.stop()

    def poll(self) -> int:
        """
        Check now.

        @return: how many contexts have changed.
        """
        changed = 0
        for context in list(self._contexts):
            try:
                changed += context.reload_if_changed()
                for problem, urgent in context.expiring():
                    (log.error if urgent else log.warn)("{problem}", problem=str(problem))
            except Exception:
                # Whatever failed, the other contexts must be checked.
                log.failure("while looking for changed certificates")
        return changed
