"""
One slot of an agent, which keeps one connection to one tunnel server: its state machine.

The machine decides; L{SlotCore} acts, and a L{SlotLink} that is handed in does the input and output,
so that every path through the machine is tested with a clock and no socket.
"""

from __future__ import annotations

__all__ = ["make_slot"]

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from automat import TypeMachineBuilder, pep614
from twisted.python.failure import Failure

from reverseproxy.tunnel.agent.slot_core import SlotCore
from reverseproxy.tunnel.agent.slot_interfaces import ConnectionSlot, SlotLink, SlotState

# outputs


def _dial(slot: ConnectionSlot, core: SlotCore) -> None:
    core.begin_dial(slot)


def _greet(slot: ConnectionSlot, core: SlotCore, link: SlotLink) -> None:
    core.begin_greeting(slot, link)


def _serve(slot: ConnectionSlot, core: SlotCore) -> None:
    core.begin_service()


def _back_off(slot: ConnectionSlot, core: SlotCore, reason: Failure) -> None:
    core.wait_after_failure(slot, reason)


def _come_back(slot: ConnectionSlot, core: SlotCore, seconds: float, reason: str) -> None:
    core.wait_as_told(slot, seconds, reason)


def _redial(slot: ConnectionSlot, core: SlotCore, reason: Failure) -> None:
    core.wait_after_loss(slot, reason)


def _hurry(slot: ConnectionSlot, core: SlotCore) -> None:
    core.hurry()


def _finish(slot: ConnectionSlot, core: SlotCore) -> None:
    core.enter(SlotState.DRAINING)


def _finished(slot: ConnectionSlot, core: SlotCore, reason: Failure) -> None:
    core.link = None  # it is lost, or finishes its requests: it must not be closed
    core.end()


def _end(slot: ConnectionSlot, core: SlotCore) -> None:
    core.end()


def _discard(slot: ConnectionSlot, core: SlotCore, link: SlotLink) -> None:
    link.close()


# transitions


class _States(NamedTuple):
    """The machine's states."""

    idle: Any
    dialling: Any
    greeting: Any
    serving: Any
    waiting: Any
    draining: Any
    exhausted: Any


def _add_service(s: _States) -> None:
    """Add the transitions between dialling, serving and waiting."""
    pep614(s.idle.upon(ConnectionSlot.start).to(s.dialling))(_dial)
    pep614(s.waiting.upon(ConnectionSlot.retry).to(s.dialling))(_dial)
    pep614(s.dialling.upon(ConnectionSlot.dialled).to(s.greeting))(_greet)
    pep614(s.greeting.upon(ConnectionSlot.accepted).to(s.serving))(_serve)
    pep614(s.dialling.upon(ConnectionSlot.failed).to(s.waiting))(_back_off)
    pep614(s.greeting.upon(ConnectionSlot.failed).to(s.waiting))(_back_off)
    pep614(s.greeting.upon(ConnectionSlot.postponed).to(s.waiting))(_come_back)
    pep614(s.serving.upon(ConnectionSlot.lost).to(s.waiting))(_redial)
    pep614(s.waiting.upon(ConnectionSlot.reachable).loop())(_hurry)
    s.waiting.upon(ConnectionSlot.give_up).to(s.exhausted).returns(None)


def _add_ends(s: _States) -> None:
    """Add the transitions by which a slot ends."""
    pep614(s.serving.upon(ConnectionSlot.drain).to(s.draining))(_finish)
    pep614(s.draining.upon(ConnectionSlot.lost).to(s.idle))(_finished)
    for state in s:
        pep614(state.upon(ConnectionSlot.stop).to(s.idle))(_end)
        if state not in (s.serving, s.draining):
            pep614(state.upon(ConnectionSlot.drain).to(s.idle))(_end)
    s.draining.upon(ConnectionSlot.drain).loop().returns(None)


def _ignore_late(s: _States) -> None:
    """Ignore results of what the slot does not wait for any more; close a link that comes so."""
    for late, expecting in (
        (ConnectionSlot.start, (s.idle,)),
        (ConnectionSlot.dialled, (s.dialling,)),
        (ConnectionSlot.accepted, (s.greeting,)),
        (ConnectionSlot.postponed, (s.greeting,)),
        (ConnectionSlot.failed, (s.dialling, s.greeting)),
        (ConnectionSlot.lost, (s.serving, s.draining)),
        (ConnectionSlot.retry, (s.waiting,)),
        (ConnectionSlot.give_up, (s.waiting,)),
        (ConnectionSlot.reachable, (s.waiting,)),
    ):
        _ignore(late, set(s) - set(expecting))


def _ignore(late: Any, states: Iterable[Any]) -> None:
    for state in states:
        if late is ConnectionSlot.dialled:
            pep614(state.upon(late).loop())(_discard)
        else:
            state.upon(late).loop().returns(None)


def _build_machine() -> Callable[[SlotCore], ConnectionSlot]:
    machine = TypeMachineBuilder(ConnectionSlot, SlotCore)
    states = _States(*(machine.state(name) for name in _States._fields))
    _add_service(states)
    _add_ends(states)
    _ignore_late(states)
    return machine.build()


make_slot: Callable[[SlotCore], ConnectionSlot] = _build_machine()
"""Make a slot's state machine, idle, on a core."""
