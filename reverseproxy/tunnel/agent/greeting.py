"""The agent's side of a handshake, up to the server's response."""

from __future__ import annotations

__all__ = ["Greeting", "refusal_of"]

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from reverseproxy.errors import ConnectionUnavailable, HandshakePostponed, HandshakeRefused
from reverseproxy.mux.session import GRACE
from reverseproxy.net.lenient_timeouts import LenientTimeout
from reverseproxy.wire.mosn.extensions import ServerAnnouncement
from reverseproxy.wire.mosn.frames import Flag, FrameDecoder, InitResponse


def refusal_of(answer: InitResponse) -> HandshakeRefused:
    """Return the error for a response that refuses the handshake."""
    announcement = ServerAnnouncement.from_extra(answer.extra)
    if announcement is not None and announcement.retry_after:
        return HandshakePostponed(answer.status, announcement.retry_after / 1000, announcement.reason)
    told = "" if announcement is None or not announcement.reason else f": {announcement.reason}"
    return HandshakeRefused(answer.status, f"{answer.status.meaning}{told}")


def _nothing() -> None:
    """Do nothing."""


class Greeting:
    """
    A handshake: the response is decoded, has a deadline, and completes a L{Deferred} once.

    It may be concluded several times, as a connection can fail in several ways at once; the first counts.
    """

    def __init__(
        self,
        clock: IReactorTime,
        timeout: float,
        was_heard: Callable[[], bool],
        close: Callable[[], object],
        concluded: Callable[[], object],
    ) -> None:
        """
        @param timeout: seconds for the response.
        @param was_heard: returns whether data has come that this process has not read yet.
        @param close: closes the connection after a failure.
        @param concluded: called with each conclusion.
        """
        self._clock = clock
        self._timeout = timeout
        self._was_heard = was_heard
        self._close = close
        self._concluded = concluded
        self._decoder = FrameDecoder(expect=frozenset({Flag.INIT_RESPONSE}))
        self._waiting: Deferred[None] | None = None
        self._deadline: LenientTimeout | None = None

    @property
    def waits(self) -> bool:
        """Whether the response is awaited."""
        return self._waiting is not None

    def begin(self) -> Deferred[None]:
        """
        Expect the response.

        @return: fires with the conclusion; cancelling closes the connection.
        """
        waiting = self._waiting = Deferred(lambda _: self._abandon())
        self._deadline = LenientTimeout(self._clock, self._timeout, self._too_late)
        return waiting

    def _abandon(self) -> None:
        # Forgotten first: the loss of the connection must not conclude what is cancelled.
        self._waiting = None
        self.conclude(None)
        self._close()

    def _too_late(self) -> None:
        if self._was_heard():
            # This process is late: the response waits to be read.
            self._deadline = LenientTimeout(self._clock, GRACE, self._too_late)
            return
        self.fail(ConnectionUnavailable(f"no answer to the handshake within {self._timeout:g} s"))

    def feed(self, data: bytes) -> InitResponse | None:
        """
        Take data of the server.

        @return: the response, once it is complete.
        @raise FrameError: if it is malformed.
        """
        answer = self._decoder.feed(data)
        assert answer is None or isinstance(answer, InitResponse)
        return answer

    def take_surplus(self) -> bytes:
        """Return the data behind the response."""
        return self._decoder.take_surplus()

    def fail(self, error: Exception) -> None:
        """Conclude the handshake with an error, and close the connection."""
        self.conclude(Failure(error))
        self._close()

    def conclude(self, result: Failure | None) -> None:
        """
        End the handshake, if it has not ended.

        @param result: L{None} if the server has accepted the agent.
        """
        deadline, self._deadline = self._deadline, None
        if deadline is not None:
            deadline.cancel()
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            if result is None:
                waiting.callback(None)
            else:
                waiting.errback(result)
        self._concluded()

    def forget(self) -> None:
        """Drop the callbacks, which refer to their owner; there is nothing more to be concluded."""
        self._close = self._concluded = _nothing
        self._was_heard = bool
