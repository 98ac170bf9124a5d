"""
One slot of an agent: it keeps one connection to one tunnel server, for ever.

The slot decides; dialling and greeting are done by a L{SlotLink} that is handed in,
so that every path through the machine is tested with a clock and no socket.
"""

from __future__ import annotations

__all__ = [
    "ACCEPTED",
    "POSTPONED",
    "REFUSED",
    "UNREACHABLE",
    "EndedUnused",
    "SlotLink",
    "ConnectionSlot",
    "SlotCore",
    "SlotState",
    "make_slot",
]

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any, Final, Protocol

from automat import TypeMachineBuilder, pep614
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from reverseproxy.errors import HandshakePostponed, HandshakeRefused, ServerLeaves
from reverseproxy.logs import Throttle, loss
from reverseproxy.tunnel.agent.backoff import Backoff
from reverseproxy.tunnel.agent.outage import Outage
from reverseproxy.wire.mosn.frames import Status

log = Logger()

_LASTING = frozenset({Status.VALIDATOR_MISSING, Status.CLUSTER_UNKNOWN, Status.ROUTE_FORBIDDEN})
"""Refusals that only a change of a configuration ends."""


BRIEF: Final = 1.0
"""Seconds; a connection that was used and lived no longer may be one of a storm."""

REDIAL_BURST: Final = 100
"""Brief connections that a slot replaces at once after a quiet time."""

REDIAL_RATE: Final = 10.0
"""
How many it replaces at once in the long run, in each second.

Short sessions of a plain TCP service look like a storm; this is what each
connection of an agent is sure to serve of them.
"""

INSTANT: Final = 0.01
"""Seconds; a connection that its server ends sooner was not there for anybody, unless it was used."""

SILENT_BURST: Final = 20
"""
Connections that end unused, but not at once, which a slot replaces without a wait.

In the long run it replaces two of them in each L{BRIEF} at the most.
"""


ACCEPTED: Final = "accepted"
REFUSED: Final = "refused"
POSTPONED: Final = "postponed"
UNREACHABLE: Final = "unreachable"
"""How an attempt to connect may end; the last of these also if the server does not answer."""


def _untold(result: str, reason: str) -> None:
    """Nobody wants to know how an attempt has ended."""


class EndedUnused(ConnectionDone):
    """
    The server has ended a connection, and had sent nothing on it.

    It may have been lent to somebody all the same, who came and left without a
    byte: a probe of the port, or a client whose server speaks first.
    """

    def __str__(self) -> str:
        return "the server has closed it, and had sent nothing"


class SlotState(Enum):
    """What a slot is doing."""

    IDLE = "idle"
    DIALLING = "dialling"
    GREETING = "greeting"
    SERVING = "serving"
    WAITING = "waiting"
    DRAINING = "draining"
    EXHAUSTED = "exhausted"


class SlotLink(Protocol):
    """
    A connection to a tunnel server, from dialled to closed.

    @ivar lost: called once when a link that was accepted is gone; with
        L{EndedUnused}, if that is why.
    """

    lost: Callable[[Failure], None]

    @property
    def used(self) -> bool:
        """Whether the server has sent anything through it, whoever received that."""

    def greet(self) -> Deferred[None]:
        """
        Introduce ourselves; fires once the server has accepted us and the
        hosting listener has the connection.  Cancelling closes the link.
        """

    def close(self) -> None:
        """Close it, once what was written is sent."""


class ConnectionSlot(Protocol):
    """The inputs of the slot's state machine."""

    def start(self) -> None:
        """Keep a connection from now on."""

    def dialled(self, link: SlotLink) -> None:
        """The server has been reached."""

    def accepted(self) -> None:
        """The server has accepted the handshake."""

    def failed(self, reason: Failure) -> None:
        """The dial or the handshake failed."""

    def postponed(self, seconds: float, reason: str) -> None:
        """The server has too much to do, or too many of us, and wants to be asked again after that time."""

    def lost(self, reason: Failure) -> None:
        """The serving connection is gone."""

    def retry(self) -> None:
        """The wait between attempts is over."""

    def reachable(self) -> None:
        """Another connection to this server has been accepted: no need to wait for long."""

    def give_up(self) -> None:
        """All attempts that the configuration allows have failed."""

    def drain(self) -> None:
        """Keep the connection that serves, if one does, and dial no more."""

    def stop(self) -> None:
        """Close whatever there is, and dial no more."""


@dataclass
class SlotCore:
    """
    What a slot stands on, and what it holds.

    @ivar name: for logs.
    @ivar dial: reaches the server; cancelling the Deferred ends the attempt.
    @ivar max_attempts: consecutive failures after which the slot gives up;
        negative for never (MOSN's C{connect_retry_times}).
    @ivar stable: seconds after which a connection counts as a success, so that
        the backoff begins anew.
    @ivar changed: told of each new state.
    @ivar ended: told how each attempt has ended (L{ACCEPTED} and so on), and why.
    @ivar outage: what is said of attempts that fail; all connections to a server share
        one.  Absent, it has its own.
    @ivar at_once: how many brief connections are replaced without a wait.
    @ivar unused: how many are that were not used, but lived for a moment.
    @ivar dialled: when the last attempt began.
    @ivar unreachable: whether it waits because the server could not be reached,
        or did not answer.
    @ivar storming: whether there have been more of them than that, so that the
        waits grow until one is not brief.
    """

    name: str
    dial: Callable[[], Deferred[SlotLink]]
    clock: IReactorTime
    backoff: Backoff
    max_attempts: int
    stable: float
    changed: Callable[[SlotState], None]
    ended: Callable[[str, str], None] = _untold
    outage: Outage | None = None
    at_once: Throttle = field(init=False)
    unused: Throttle = field(init=False)
    state: SlotState = SlotState.IDLE
    pending: Deferred[None] | None = None
    timer: IDelayedCall | None = None
    link: SlotLink | None = None
    since: float = 0.0
    dialled: float = 0.0
    unreachable: bool = False
    storming: bool = False

    def __post_init__(self) -> None:
        if self.outage is None:
            self.outage = Outage(self.name, self.clock.seconds)
        self.at_once = Throttle(self.clock, REDIAL_RATE, REDIAL_BURST)
        self.unused = Throttle(self.clock, 1 / BRIEF, SILENT_BURST)

    def enter(self, state: SlotState) -> None:
        """Note the new state."""
        self.state = state
        self.changed(state)

    def begin_dial(self, slot: ConnectionSlot) -> None:
        """Reach for the server."""
        self.timer = None
        self.dialled = self.clock.seconds()
        self.enter(SlotState.DIALLING)
        self.pending = self.dial().addCallbacks(slot.dialled, slot.failed)

    def begin_greeting(self, slot: ConnectionSlot, link: SlotLink) -> None:
        """Introduce ourselves over a new link."""
        self.enter(SlotState.GREETING)
        self.link = link
        # Set first: the link may be accepted and lost in a single read.
        link.lost = slot.lost
        self.pending = link.greet().addCallbacks(lambda _: slot.accepted(), partial(_refused, slot))

    def begin_service(self) -> None:
        """The listener has the link now."""
        self.pending = None
        self.since = self.clock.seconds()
        self.ended(ACCEPTED, "")
        self.enter(SlotState.SERVING)

    def wait_after_failure(self, slot: ConnectionSlot, reason: Failure) -> None:
        """Back off after a dial or a handshake that failed."""
        self.pending = self.link = None
        refusal = reason.value
        self.unreachable = not isinstance(refusal, HandshakeRefused)
        self.ended(UNREACHABLE if self.unreachable else REFUSED, loss(reason))
        if isinstance(refusal, HandshakeRefused):
            delay = self.backoff.failed(lasting=refusal.status in _LASTING)
        else:
            delay = self.backoff.unreached(self.clock.seconds() - self.dialled)
        failures = self.backoff.failures
        if 0 <= self.max_attempts <= failures:
            log.error(
                "{slot}: {reason}; given up after {failures} attempts (connect_retry_times)",
                slot=self.name,
                reason=loss(reason),
                failures=failures,
            )
            self.enter(SlotState.EXHAUSTED)
            slot.give_up()
            return
        why = loss(reason)
        if isinstance(refusal, HandshakeRefused):
            why = f"{why} (the server's log says more)"
        assert self.outage is not None
        self.outage.failed(self.name, why, delay)
        self.wait(slot, delay)

    def wait_as_told(self, slot: ConnectionSlot, seconds: float, reason: str) -> None:
        """
        Come back when the server wants us to; see L{Backoff.postponed}.

        It has accepted everything else about us: this is no failure, and there
        may be any number of it.
        """
        self.pending = self.link = None
        self.unreachable = False
        self.ended(POSTPONED, reason or "the server asks to come back later")
        delay = self.backoff.postponed(seconds)
        write = log.warn if reason else log.info  # what has a reason will not be over by itself
        write(
            "{slot}: the server asks to come back in {seconds:.2f} s{reason}; next attempt in {delay:.2f} s",
            slot=self.name,
            seconds=seconds,
            reason=f": {reason}" if reason else "",
            delay=delay,
        )
        self.wait(slot, delay)

    def wait_after_loss(self, slot: ConnectionSlot, reason: Failure) -> None:
        """
        Redial a connection that served.

        At once if it lived long or was used: a plain reverse connection is used
        up by a single TCP session, and its place must be taken without delay.
        That session may have been one in which the server sent nothing, and all
        that tells of it is that the server ended a connection that it did not
        end at once; so these are replaced as well, if not as many of them.
        All others are failures, or a server, or a hosted backend, that closes
        every connection would make us dial in a tight loop.  So is a used one if
        too many were used up before it: a server that ends each connection right
        after its first bytes would make us do the same.
        """
        link, self.link = self.link, None
        self.unreachable = False
        if isinstance(reason.value, ServerLeaves):
            self.wait_for_another(slot, reason.value.after)
            return
        lived = self.clock.seconds() - self.since
        used = link is not None and link.used
        if lived >= self.stable or (used and lived >= BRIEF):
            self.backoff.reset()
            self.storming = False
            delay = 0.0
        elif used and self.at_once.allow():
            if not self.storming:
                self.backoff.reset()
            delay = 0.0
        elif not used and lived >= (INSTANT if reason.check(EndedUnused) else BRIEF):
            delay = 0.0 if self.unused.allow() else max(0.0, BRIEF - lived)
        else:
            self.storming = self.storming or used
            delay = self.backoff.failed()
        log.info(
            "{slot}: connection lost after {lived:.1f} s: {reason}; next attempt in {delay:.2f} s",
            slot=self.name,
            lived=lived,
            reason=loss(reason),
            delay=delay,
        )
        self.wait(slot, delay)

    def wait_for_another(self, slot: ConnectionSlot, after: float) -> None:
        """
        Dial another connection when the server, which is about to leave, wants us to.

        The one that there is serves on, without this slot.
        """
        self.storming = False
        self.backoff.reset()
        delay = self.backoff.another(after)
        log.info(
            "{slot}: the server is about to leave; another connection is dialled in {delay:.2f} s",
            slot=self.name,
            delay=delay,
        )
        self.wait(slot, delay)

    def wait(self, slot: ConnectionSlot, delay: float) -> None:
        """Try again after C{delay} seconds."""
        self.enter(SlotState.WAITING)
        self.timer = self.clock.callLater(delay, slot.retry)

    def come_back(self, slot: ConnectionSlot) -> None:
        """
        Dial soon, as after a first failure, if the server could not be reached.

        The last that there was of it is gone, so that what comes in its place may
        be there soon.
        """
        if self.unreachable and self.timer is not None:
            self.backoff.reset()
            slot.reachable()

    def hurry(self) -> None:
        """
        Wait no longer than after a first failure, as the server is there.

        The waits of all connections have grown alike while it was not, so that
        the last of them would be back long after the first.  Those that wait for
        another reason go on waiting.
        """
        if not self.unreachable or self.timer is None:
            return
        self.unreachable = False
        delay = self.backoff.first()
        if self.clock.seconds() + delay < self.timer.getTime():
            self.timer.reset(delay)

    def end(self) -> None:
        """Let go of everything."""
        pending, self.pending = self.pending, None
        link, self.link = self.link, None
        timer, self.timer = self.timer, None
        self.enter(SlotState.IDLE)
        if timer is not None and timer.active():
            timer.cancel()
        if pending is not None:
            pending.cancel()
        if link is not None:
            link.close()


def _refused(slot: ConnectionSlot, reason: Failure) -> None:
    """Tell the slot why the server did not accept us."""
    if isinstance(reason.value, HandshakePostponed):
        slot.postponed(reason.value.retry_after, reason.value.reason)
    else:
        slot.failed(reason)


def _discard(slot: ConnectionSlot, core: SlotCore, link: SlotLink) -> None:
    link.close()


def _ignore(late: Any, states: Iterable[Any]) -> None:
    """Let an input change nothing in these states; a link that it brings is closed."""
    for state in states:
        if late is ConnectionSlot.dialled:
            pep614(state.upon(late).loop())(_discard)
        else:
            state.upon(late).loop().returns(None)


def _build_machine() -> Callable[[SlotCore], ConnectionSlot]:
    machine = TypeMachineBuilder(ConnectionSlot, SlotCore)
    idle = machine.state("idle")
    dialling = machine.state("dialling")
    greeting = machine.state("greeting")
    serving = machine.state("serving")
    waiting = machine.state("waiting")
    draining = machine.state("draining")
    exhausted = machine.state("exhausted")
    every = (idle, dialling, greeting, serving, waiting, draining, exhausted)

    @pep614(idle.upon(ConnectionSlot.start).to(dialling))
    @pep614(waiting.upon(ConnectionSlot.retry).to(dialling))
    def dial(slot: ConnectionSlot, core: SlotCore) -> None:
        core.begin_dial(slot)

    @pep614(dialling.upon(ConnectionSlot.dialled).to(greeting))
    def greet(slot: ConnectionSlot, core: SlotCore, link: SlotLink) -> None:
        core.begin_greeting(slot, link)

    @pep614(greeting.upon(ConnectionSlot.accepted).to(serving))
    def serve(slot: ConnectionSlot, core: SlotCore) -> None:
        core.begin_service()

    @pep614(dialling.upon(ConnectionSlot.failed).to(waiting))
    @pep614(greeting.upon(ConnectionSlot.failed).to(waiting))
    def back_off(slot: ConnectionSlot, core: SlotCore, reason: Failure) -> None:
        core.wait_after_failure(slot, reason)

    @pep614(greeting.upon(ConnectionSlot.postponed).to(waiting))
    def come_back(slot: ConnectionSlot, core: SlotCore, seconds: float, reason: str) -> None:
        core.wait_as_told(slot, seconds, reason)

    @pep614(serving.upon(ConnectionSlot.lost).to(waiting))
    def redial(slot: ConnectionSlot, core: SlotCore, reason: Failure) -> None:
        core.wait_after_loss(slot, reason)

    @pep614(waiting.upon(ConnectionSlot.reachable).loop())
    def hurry(slot: ConnectionSlot, core: SlotCore) -> None:
        core.hurry()

    waiting.upon(ConnectionSlot.give_up).to(exhausted).returns(None)

    @pep614(serving.upon(ConnectionSlot.drain).to(draining))
    def finish(slot: ConnectionSlot, core: SlotCore) -> None:
        core.enter(SlotState.DRAINING)

    @pep614(draining.upon(ConnectionSlot.lost).to(idle))
    def finished(slot: ConnectionSlot, core: SlotCore, reason: Failure) -> None:
        core.link = None  # it is gone, or finishes what it has begun: not to be closed for that
        core.end()

    def end(slot: ConnectionSlot, core: SlotCore) -> None:
        core.end()

    for state in every:
        pep614(state.upon(ConnectionSlot.stop).to(idle))(end)
        if state not in (serving, draining):
            pep614(state.upon(ConnectionSlot.drain).to(idle))(end)
    draining.upon(ConnectionSlot.drain).loop().returns(None)

    # What was under way may still report after the slot has turned elsewhere.
    for late, expecting in (
        (ConnectionSlot.start, (idle,)),
        (ConnectionSlot.dialled, (dialling,)),
        (ConnectionSlot.accepted, (greeting,)),
        (ConnectionSlot.postponed, (greeting,)),
        (ConnectionSlot.failed, (dialling, greeting)),
        (ConnectionSlot.lost, (serving, draining)),
        (ConnectionSlot.retry, (waiting,)),
        (ConnectionSlot.give_up, (waiting,)),
        (ConnectionSlot.reachable, (waiting,)),
    ):
        _ignore(late, set(every) - set(expecting))
    return machine.build()


make_slot: Callable[[SlotCore], ConnectionSlot] = _build_machine()
"""Make a slot's state machine, idle, on a core."""
