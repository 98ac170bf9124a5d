"""What a slot does: dialling, the handshake, waiting, and letting go of all of that."""

from __future__ import annotations

__all__ = ["ACCEPTED", "POSTPONED", "REFUSED", "UNREACHABLE", "SlotCore"]

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from reverseproxy.errors import HandshakePostponed, HandshakeRefused, ServerLeaves
from reverseproxy.logs import loss
from reverseproxy.tunnel.agent.outage import Outage
from reverseproxy.tunnel.agent.redial import EndedUnused, RedialPolicy
from reverseproxy.tunnel.agent.slot_interfaces import ConnectionSlot, SlotLink, SlotState

log = Logger()

ACCEPTED: Final = "accepted"
REFUSED: Final = "refused"
POSTPONED: Final = "postponed"
UNREACHABLE: Final = "unreachable"
"""The results of attempts; C{UNREACHABLE} includes servers that do not answer."""


def _untold(result: str, reason: str) -> None:
    """Do nothing: the default of L{SlotCore.ended}."""


@dataclass
class SlotCore:
    """
    The resources of a slot, and the actions of its state machine.

    @ivar name: for logs.
    @ivar dial: establishes a connection; cancelling its result ends the attempt.
    @ivar clock: the reactor.
    @ivar redial: the delays between attempts.
    @ivar max_attempts: consecutive failures after which the slot gives up; negative for never (MOSN's
        C{connect_retry_times}).
    @ivar changed: called with each new state.
    @ivar ended: called with the result of each attempt (L{ACCEPTED} and so on), and the reason.
    @ivar outage: logs failed attempts; shared by all connections to a server. L{None} for one of its
        own.
    @ivar state: the present state.
    @ivar pending: the dial or the handshake in progress.
    @ivar timer: for the next attempt.
    @ivar link: the connection.
    @ivar began: when the last attempt began, or, while it serves, when the server accepted the
        connection.
    @ivar unreachable: whether it waits because the server could not be reached, or did not answer.
    """

    name: str
    dial: Callable[[], Deferred[SlotLink]]
    clock: IReactorTime
    redial: RedialPolicy
    max_attempts: int
    changed: Callable[[SlotState], None]
    ended: Callable[[str, str], None] = _untold
    outage: Outage | None = None
    state: SlotState = SlotState.IDLE
    pending: Deferred[None] | None = None
    timer: IDelayedCall | None = None
    link: SlotLink | None = None
    began: float = 0.0
    unreachable: bool = False

    def __post_init__(self) -> None:
        if self.outage is None:
            self.outage = Outage(self.name, self.clock.seconds)

    def enter(self, state: SlotState) -> None:
        """Enter a state."""
        self.state = state
        self.changed(state)

    def begin_dial(self, slot: ConnectionSlot) -> None:
        """Establish a connection."""
        self.timer = None
        self.began = self.clock.seconds()
        self.enter(SlotState.DIALLING)
        self.pending = self.dial().addCallbacks(slot.dialled, slot.failed)

    def begin_greeting(self, slot: ConnectionSlot, link: SlotLink) -> None:
        """Start the handshake on a new connection."""
        self.enter(SlotState.GREETING)
        self.link = link
        # Set first: the connection may be accepted and lost in a single read.
        link.lost = slot.lost
        self.pending = link.greet().addCallbacks(lambda _: slot.accepted(), partial(_refused, slot))

    def begin_service(self) -> None:
        """Note that the hosting listener has the connection."""
        self.pending = None
        self.began = self.clock.seconds()
        self.ended(ACCEPTED, "")
        self.enter(SlotState.SERVING)

    def wait_after_failure(self, slot: ConnectionSlot, reason: Failure) -> None:
        """Wait after a failed dial or handshake, or give up."""
        self.pending = self.link = None
        refusal = reason.value
        self.unreachable = not isinstance(refusal, HandshakeRefused)
        self.ended(UNREACHABLE if self.unreachable else REFUSED, loss(reason))
        if isinstance(refusal, HandshakeRefused):
            delay = self.redial.after_refusal(refusal.status)
        else:
            delay = self.redial.backoff.unreached(self.clock.seconds() - self.began)
        failures = self.redial.backoff.failures
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
        Wait as long as the server wants; see L{Backoff.postponed}.

        This is no failure, and may happen any number of times: everything else about the agent is
        acceptable.
        """
        self.pending = self.link = None
        self.unreachable = False
        self.ended(POSTPONED, reason or "the server asks to come back later")
        delay = self.redial.backoff.postponed(seconds)
        write = log.warn if reason else log.info  # with a reason, it will not end by itself
        write(
            "{slot}: the server asks to come back in {seconds:.2f} s{reason}; next attempt in {delay:.2f} s",
            slot=self.name,
            seconds=seconds,
            reason=f": {reason}" if reason else "",
            delay=delay,
        )
        self.wait(slot, delay)

    def wait_after_loss(self, slot: ConnectionSlot, reason: Failure) -> None:
        """Wait before the replacement of a connection that served; see L{RedialPolicy.after_loss}."""
        link, self.link = self.link, None
        self.unreachable = False
        if isinstance(reason.value, ServerLeaves):
            self.wait_for_another(slot, reason.value.after)
            return
        lived = self.clock.seconds() - self.began
        used = link is not None and link.used
        delay = self.redial.after_loss(lived, used, reason.check(EndedUnused) is not None)
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
        Dial another connection when the server, which is about to leave, wants that.

        The present one serves on, without this slot.
        """
        delay = self.redial.after_leave(after)
        log.info(
            "{slot}: the server is about to leave; another connection is dialled in {delay:.2f} s",
            slot=self.name,
            delay=delay,
        )
        self.wait(slot, delay)

    def wait(self, slot: ConnectionSlot, delay: float) -> None:
        """Dial again after C{delay} seconds."""
        self.enter(SlotState.WAITING)
        self.timer = self.clock.callLater(delay, slot.retry)

    def come_back(self, slot: ConnectionSlot) -> None:
        """
        Dial soon, as after a first failure, if the server could not be reached.

        The last connection to the former process has ended, so that its successor may be there soon.
        """
        if self.unreachable and self.timer is not None:
            self.redial.backoff.reset()
            slot.reachable()

    def hurry(self) -> None:
        """
        Shorten the delay to that after a first failure, as the server is reachable.

        The delays of all connections have grown while it was not, so that the last one would be back
        long after the first. Slots that wait for another reason go on waiting.
        """
        if not self.unreachable or self.timer is None:
            return
        self.unreachable = False
        delay = self.redial.backoff.first()
        if self.clock.seconds() + delay < self.timer.getTime():
            self.timer.reset(delay)

    def end(self) -> None:
        """Release everything."""
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
    """Pass the reason of a failed handshake to the slot."""
    if isinstance(reason.value, HandshakePostponed):
        slot.postponed(reason.value.retry_after, reason.value.reason)
    else:
        slot.failed(reason)
