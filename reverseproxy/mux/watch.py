"""Whether the other end of a session is there."""

from __future__ import annotations

__all__ = ["GRACE", "JOURNEY_LOOKS", "MAX_JITTER", "PING_INTERVAL", "PING_TIMEOUT", "PeerWatch"]

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from reverseproxy.mux.progress import Journey
from reverseproxy.mux.rest import PATIENCE, SESSIONS, has_taken_all
from reverseproxy.net.dead_peers import SLOW_PATHS
from reverseproxy.net.lenient_timeouts import MAX_EXTENSIONS, timer_lag
from reverseproxy.net.tcp_info import was_heard

if TYPE_CHECKING:
    from reverseproxy.mux.session import MuxSession

# Under the name by which readers of the log know these lines.
log = Logger(namespace="reverseproxy.mux.session")

PING_INTERVAL: Final = 2.0
"""Seconds without a byte from the peer after which it is asked whether it is there."""

PING_TIMEOUT: Final = 2.5
"""Seconds that it has for its answer."""

GRACE: Final = 0.05
"""
Seconds for one last look before a peer counts as dead.

If it was us who stood still, its answer has come, and is about to be read.
"""

JOURNEY_LOOKS: Final = 0.5
"""Seconds between two looks at a question that has to wait behind something else."""

MAX_JITTER: Final = 0.25
"""By how much of the time a question may be asked earlier."""


class PeerWatch:
    """
    Asks the peer of one session whether it is there, when nothing has come, and ends the
    session if it is not.

    @ivar heard: when something came last, in the clock's seconds.
    @ivar asking: whether a question is not answered, and nothing else has come.
    @ivar asking_since: since when.
    @ivar excuses: how often in a row time has not counted in which we had no turn.
    @ivar rests: whether questions are rare, as nobody uses the connection.
    @ivar rtt: seconds that the last question took to be answered; L{None} before.
    """

    __slots__ = (
        "_asked",
        "_clock",
        "_due",
        "_jitter",
        "_journey",
        "_last_look",
        "_pause",
        "_ping_interval",
        "_ping_timeout",
        "_pinged",
        "_seconds",
        "_session",
        "_timer",
        "_token",
        "asking",
        "asking_since",
        "excuses",
        "heard",
        "rests",
        "rtt",
    )

    def __init__(
        self,
        session: MuxSession,
        clock: IReactorTime,
        interval: float,
        timeout: float,
        jitter: Callable[[], float] | None,
    ) -> None:
        """
        @param interval: seconds without a byte from the peer after which it is asked.
        @param timeout: seconds that it has for its answer.
        @param jitter: numbers from 0 to 1, by which questions are asked somewhat earlier.
        """
        self._session = session
        self._clock = clock
        self._seconds = clock.seconds
        self._ping_interval = interval
        self._ping_timeout = timeout
        self._jitter = jitter
        self.heard = 0.0
        self.rtt: float | None = None
        self._pinged = self._asked = self.asking_since = self._due = 0.0
        self.excuses = 0
        self.asking = False  # nothing has come since
        self._journey: Journey | None = None  # of the question, if something was before it
        self._pause = interval  # from the last byte to the next question
        self.rests = False  # it is longer, as nobody uses the connection
        self._last_look = False
        self._token = 0
        self._timer: IDelayedCall | None = None

    def start(self) -> None:
        """Begin, by finding out how far away the peer is."""
        self.heard = self._seconds()
        self.ping()
        self._look_in(min(self._pause, self._ping_timeout))

    def stop(self) -> None:
        """Ask no more, as nothing is read any more."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def answered(self, token: int) -> float | None:
        """
        Take in an answer.

        @return: how many seconds it took; L{None} if it is to none that counts.
        """
        if token != self._token:
            return None
        self.rtt = self.heard - self._pinged
        return self.rtt

    def ping(self) -> None:
        """Ask the peer whether it is there."""
        self._token = (self._token + 1) & 0xFFFFFFFF
        self._pinged = self._asked = self._seconds()
        if not self.asking:
            self.asking = True
            self.asking_since = self._asked
        self._last_look = False
        pause = self._ping_interval if self._session.busy else SESSIONS.stretch(self._ping_interval)
        self.rests = pause > self._ping_interval
        if self._jitter is not None:
            pause *= 1.0 - MAX_JITTER * self._jitter()
        self._pause = pause
        journey = Journey(self._session.transport)
        self._journey = journey if journey.under_way else None
        self._session.mux.ping(self._token)
        self._session.turn.schedule()

    def wake(self) -> None:
        """Somebody uses the connection, and wants to know soon if nobody is there."""
        self.rests = False
        self._pause = self._ping_interval
        if self._timer is not None and self._timer.active():
            wait = max(self.heard + self._pause - self._seconds(), GRACE)
            self._due = self._seconds() + wait
            self._timer.reset(wait)

    def _bears(self, now: float) -> bool:
        """Whether an answer may be late: of many, nobody waits for it, and the peer's kernel is there."""
        return (
            SESSIONS.many
            and not self._session.busy
            and now - self.asking_since < PATIENCE * self._ping_timeout
            and has_taken_all(self._session.transport)
        )

    def _look(self) -> None:
        """See whether the peer has been silent for too long."""
        now = self._seconds()
        self._session.clear_orphans(now)
        wait = self.heard + self._pause - now
        if self.asking:
            self._excuse(now)
            wait = self._wait_for_answer(now)
            if wait <= 0:
                if not self._last_look:
                    self._last_look = True
                elif was_heard(self._session.transport, now - self._asked):
                    # It is us who are late: what has come waits to be read, behind that of
                    # thousands perhaps, so that to look often would make it later still.
                    self._asked = self.asking_since = now
                    self._last_look = False
                    wait = self._ping_timeout
                elif self._bears(now):
                    self.ping()
                    wait = self._ping_timeout
                else:
                    self._give_up(now)
                    return
        elif wait <= 0 or self._session.mux.growth.due(now):
            self.ping()
            # If the answer comes at once, there is another question to be asked before it would be due.
            wait = min(self._pause, self._ping_timeout)
            if self._journey is not None:
                wait = min(wait, JOURNEY_LOOKS)
        self._look_in(max(wait, GRACE))

    def _look_in(self, seconds: float) -> None:
        self._due = self._seconds() + seconds
        self._timer = self._clock.callLater(seconds, self._look)

    def _excuse(self, now: float) -> None:
        """Don't count the time for which this process had no turn, in which it could not hear anything."""
        late = timer_lag(self._due, now)
        if late and self.excuses < MAX_EXTENSIONS:
            self.excuses += 1
            self._last_look = False
            self._asked = max(self._asked, now - self._ping_timeout + min(late, self._ping_timeout))
            self.asking_since = min(now, self.asking_since + late)

    def _wait_for_answer(self, now: float) -> float:
        """Say how long to wait further for the answer to a question, unless that is over."""
        journey = self._journey
        if journey is not None and journey.moves():
            self._asked = self.asking_since = now
            self._last_look = False
        if journey is not None and not journey.under_way:
            self._journey = journey = None
        wait = self._asked + self._ping_timeout - now
        if wait <= 0:
            wait += SLOW_PATHS.allowance(getattr(self._session.getPeer(), "host", ""), now)
        return wait if journey is None or wait <= 0 else min(wait, JOURNEY_LOOKS)

    def _give_up(self, now: float) -> None:
        self._timer = None
        silent = now - self.heard
        log.warn(
            "{session} is closed: nothing has come for {silent:.1f} s", session=self._session, silent=silent
        )
        self._session.abort(f"no answer to a ping, and nothing else for {silent:.1f} s")
