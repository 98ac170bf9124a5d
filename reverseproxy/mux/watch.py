"""Whether the peer of a session is alive."""

from __future__ import annotations

__all__ = ["GRACE", "JOURNEY_LOOKS", "MAX_JITTER", "PING_INTERVAL", "PING_TIMEOUT", "PeerWatch"]

from collections.abc import Callable
from typing import Any, Final, Protocol

from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.logger import Logger

from reverseproxy.mux.idle_pings import PATIENCE, SESSIONS, has_taken_all
from reverseproxy.mux.ping import Ping
from reverseproxy.mux.progress import Journey
from reverseproxy.net.dead_peers import SLOW_PATHS
from reverseproxy.net.lenient_timeouts import MAX_EXTENSIONS, timer_lag
from reverseproxy.net.tcp_info import was_heard

# Under the name by which readers of the log know these lines.
log = Logger(namespace="reverseproxy.mux.session")

PING_INTERVAL: Final = 2.0
"""Seconds without a byte from the peer after which it is pinged."""

PING_TIMEOUT: Final = 2.5
"""Seconds that it has for its answer."""

GRACE: Final = 0.05
"""
Seconds for one last look before a peer counts as dead.

If this process stood still, the answer has arrived, and is about to be read.
"""

JOURNEY_LOOKS: Final = 0.5
"""Seconds between two looks at a ping that is sent behind other data."""

MAX_JITTER: Final = 0.25
"""By how much of the interval a ping may be sent earlier."""


class WatchedSession(Protocol):
    """
    What L{PeerWatch} needs of a session.

    @ivar transport: the connection.
    """

    transport: Any

    @property
    def busy(self) -> bool:
        """Whether it has any streams."""

    def getPeer(self) -> IAddress:
        """The peer's address."""

    def send_ping(self, token: int) -> None:
        """Send a ping."""

    def needs_rtt(self, now: float) -> bool:
        """Whether another measurement of the round-trip time is needed."""

    def clear_orphans(self, now: float) -> None:
        """Reset streams whose peer has not ended its half for too long."""

    def abort(self, reason: str) -> None:
        """Break the connection off."""


class PeerWatch:
    """
    Pings the peer of a session when nothing has arrived for a while; without an answer it aborts the session.

    @ivar heard: when something arrived last, in the clock's seconds.
    @ivar asking: whether a ping is unanswered, and nothing else has arrived since.
    @ivar asking_since: since when.
    @ivar excuses: how often in a row time was not counted in which this process stood still.
    @ivar rests: whether pings are rare, as the connection carries no streams.
    @ivar last: the last ping.
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
        "_seconds",
        "_session",
        "_timer",
        "asking",
        "asking_since",
        "excuses",
        "heard",
        "last",
        "rests",
    )

    def __init__(
        self,
        session: WatchedSession,
        clock: IReactorTime,
        interval: float,
        timeout: float,
        jitter: Callable[[], float] | None,
    ) -> None:
        """
        @param interval: seconds without a byte from the peer after which it is pinged.
        @param timeout: seconds that it has for its answer.
        @param jitter: numbers from 0 to 1, by which pings are sent somewhat earlier.
        """
        self._session = session
        self._clock = clock
        self._seconds = clock.seconds
        self._ping_interval = interval
        self._ping_timeout = timeout
        self._jitter = jitter
        self.heard = 0.0
        self.last = Ping()
        self._asked = self.asking_since = self._due = 0.0
        self.excuses = 0
        self.asking = False
        self._journey: Journey | None = None  # of the ping, if other data was ahead of it
        self._pause = interval  # from the last byte to the next ping
        self.rests = False
        self._last_look = False
        self._timer: IDelayedCall | None = None

    def start(self) -> None:
        """Begin, with a ping that measures the round-trip time."""
        self.heard = self._seconds()
        self.ping()
        self._look_in(min(self._pause, self._ping_timeout))

    def stop(self) -> None:
        """Send no more pings, as nothing is read any more."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def answered(self, token: int) -> float | None:
        """
        Take the answer to a ping.

        @return: how many seconds it took; L{None} if it is not to the last ping.
        """
        return self.last.answered(token, self.heard)

    def ping(self) -> None:
        """Ping the peer."""
        self._asked = self._seconds()
        token = self.last.sent(self._asked)
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
        self._session.send_ping(token)

    def wake(self) -> None:
        """Ping as often as usual again, as the connection carries a stream now."""
        self.rests = False
        self._pause = self._ping_interval
        if self._timer is not None and self._timer.active():
            wait = max(self.heard + self._pause - self._seconds(), GRACE)
            self._due = self._seconds() + wait
            self._timer.reset(wait)

    def _bears(self, now: float) -> bool:
        """
        Whether an answer may be late.

        It may if there are many sessions, no stream waits for this one, and the peer's kernel still answers.
        """
        return (
            SESSIONS.many
            and not self._session.busy
            and now - self.asking_since < PATIENCE * self._ping_timeout
            and has_taken_all(self._session.transport)
        )

    def _look(self) -> None:
        """Find out whether the peer has been silent for too long."""
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
                    # This process is late: data waits to be read, perhaps behind that of thousands
                    # of connections, so that to look often would make it later still.
                    self._asked = self.asking_since = now
                    self._last_look = False
                    wait = self._ping_timeout
                elif self._bears(now):
                    self.ping()
                    wait = self._ping_timeout
                else:
                    self._give_up(now)
                    return
        elif wait <= 0 or self._session.needs_rtt(now):
            self.ping()
            # If the answer comes at once, another ping is due before this one would time out.
            wait = min(self._pause, self._ping_timeout)
            if self._journey is not None:
                wait = min(wait, JOURNEY_LOOKS)
        self._look_in(max(wait, GRACE))

    def _look_in(self, seconds: float) -> None:
        self._due = self._seconds() + seconds
        self._timer = self._clock.callLater(seconds, self._look)

    def _excuse(self, now: float) -> None:
        """Don't count time in which this process stood still, and so could read nothing."""
        late = timer_lag(self._due, now)
        if late and self.excuses < MAX_EXTENSIONS:
            self.excuses += 1
            self._last_look = False
            self._asked = max(self._asked, now - self._ping_timeout + min(late, self._ping_timeout))
            self.asking_since = min(now, self.asking_since + late)

    def _wait_for_answer(self, now: float) -> float:
        """Return how many seconds more to wait for the answer to a ping; 0 or less if it is overdue."""
        journey = self._journey
        if journey is not None and journey.moves():
            acknowledged = now - journey.age
            self._asked = max(self._asked, acknowledged)
            self.asking_since = max(self.asking_since, acknowledged)
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
