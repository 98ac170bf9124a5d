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
"""Seconds between two looks at the files."""


class IReloadable(Interface):
    """What has files: L{reverseproxy.tls.ServerTls} and L{reverseproxy.tls.ClientTls}."""

    def reload_if_changed() -> bool:
        """
        Use the files as they are now, for new connections.

        Files that can't be used are logged, and leave everything as it is.

        @return: whether anything has changed.
        """

    def expiring() -> list[tuple[Problem, bool]]:
        """
        Tell what is about to expire, has expired, or is not valid yet: each once for each stage.

        @return: what it is, and whether that is so already.
        """

    dated: list[tuple[str, Dated]] = Attribute("What is in use and has an end, with the key that names it.")


class CertificateReloader:
    """
    Looks at the files of TLS contexts from time to time.

    Existing connections keep what they began with.
    """

    def __init__(
        self,
        clock: IReactorTime,
        contexts: Iterable[IReloadable] = (),
        interval: float = RELOAD_INTERVAL,
    ) -> None:
        """
        @param interval: seconds between two looks.
        """
        self._contexts = list(contexts)
        self._interval = interval
        self._loop = LoopingCall(self.poll)
        self._loop.clock = clock

    def add(self, context: IReloadable) -> None:
        """Look at the files of one more context."""
        self._contexts.append(context)

    def watch(self, contexts: Iterable[IReloadable]) -> None:
        """Look at the files of these contexts from now on, and no others."""
        self._contexts = list(contexts)

    @property
    def dated(self) -> list[tuple[str, Dated]]:
        """Every certificate and revocation list that is in use, with the key that names it; each once."""
        return list(dict.fromkeys(entry for context in self._contexts for entry in context.dated))

    def remove(self, context: IReloadable) -> None:
        """
        Look at the files of a context no more.

        @raise ValueError: if it is not known.
        """
        self._contexts.remove(context)

    def start(self) -> None:
        """Begin; the first look is an interval from now.  Harmless if it has begun."""
        if not self._loop.running:
            self._loop.start(self._interval, now=False)

    def stop(self) -> None:
        """End.  Harmless if it has not begun."""
        if self._loop.running:
            self._loop.stop()

    def poll(self) -> int:
        """
        Look now.

        @return: how many contexts have changed.
        """
        changed = 0
        for context in list(self._contexts):
            try:
                changed += context.reload_if_changed()
                for problem, urgent in context.expiring():
                    (log.error if urgent else log.warn)("{problem}", problem=str(problem))
            except Exception:
                # Whatever it is, it must not keep the other contexts from being renewed.
                log.failure("while looking for changed certificates")
        return changed
