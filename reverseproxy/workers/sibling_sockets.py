"""Sockets between workers: accept the channels of siblings, and dial theirs."""

from __future__ import annotations

__all__ = ["FIRST_PAUSE", "KIND", "LONGEST_PAUSE", "ChannelAcceptor", "ChannelDialler"]

import errno
import socket
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, ILoggingContext, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

log = Logger(namespace="reverseproxy.workers.links")

KIND: Final = socket.SOCK_SEQPACKET
"""The type of the sockets between workers."""

FIRST_PAUSE: Final = 0.05
"""Seconds before the first retry of a dial."""

LONGEST_PAUSE: Final = 2.0
"""Seconds between two retries at the most."""


@implementer(IReadDescriptor, ILoggingContext)
class ChannelAcceptor:
    """Accepts the channels that siblings dial."""

    def __init__(
        self, listening: socket.socket, accepted: Callable[[socket.socket], object], clock: Any
    ) -> None:
        self._socket = listening
        self._accepted = accepted
        self._clock = clock
        self._pause: IDelayedCall | None = None

    def fileno(self) -> int:
        """See L{IReadDescriptor}."""
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """See L{ILoggingContext}."""
        return "links"

    def doRead(self) -> None:  # noqa: N802
        """Accept a channel."""
        try:
            connection, _ = self._socket.accept()
        except OSError:
            # The sibling has ended, or there is no descriptor left: try again later.
            self._clock.removeReader(self)
            self._pause = self._clock.callLater(FIRST_PAUSE, self._resume)
            return
        self._accepted(connection)

    def _resume(self) -> None:
        self._pause = None
        self._clock.addReader(self)

    def connectionLost(self, reason: Failure) -> None:
        """See L{IReadDescriptor}."""
        pause, self._pause = self._pause, None
        if pause is not None:
            pause.cancel()
        self._socket.close()


class ChannelDialler:
    """Dials one sibling, and retries."""

    def __init__(self, path: str, connected: Callable[[socket.socket], object], clock: Any) -> None:
        self._path = path
        self._connected = connected
        self._clock = clock
        self._pause = FIRST_PAUSE
        self._timer: IDelayedCall | None = None
        self._stopped = False

    def dial(self) -> None:
        """Dial now; retry if that fails."""
        self._timer = None
        try:
            connection = socket.socket(socket.AF_UNIX, KIND)
        except OSError as error:  # there is no descriptor left, for now
            log.warn(
                "{path} can't be reached: {reason}", path=self._path, reason=error.strerror or str(error)
            )
            self.again()
            return
        connection.setblocking(False)
        try:
            connection.connect(self._path)  # which is done at once, or not at all
        except OSError as error:
            connection.close()
            if error.errno not in (errno.ECONNREFUSED, errno.ENOENT, errno.EAGAIN):
                log.warn(
                    "{path} can't be reached: {reason}", path=self._path, reason=error.strerror or str(error)
                )
            self.again()
            return
        self._connected(connection)

    def again(self) -> None:
        """Dial again after a pause."""
        if not self._stopped and self._timer is None:
            self._timer = self._clock.callLater(self._pause, self.dial)
            self._pause = min(self._pause * 1.5, LONGEST_PAUSE)

    def succeeded(self) -> None:
        """Reset the pause, as the sibling has sent its hello."""
        self._pause = FIRST_PAUSE

    def stop(self) -> None:
        """Stop to dial."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
