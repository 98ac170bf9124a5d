"""Slots of workers, and the shutdown of all of them."""

from __future__ import annotations

import os
import socket
import tempfile
from itertools import pairwise
from typing import Any

from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.config.models import ListenerConfig
from reverseproxy.problems import DOCUMENT
from reverseproxy.workers.bound import BoundSockets
from reverseproxy.workers.changing import ConfigChange
from reverseproxy.workers.shutdown import WorkersShutdown
from reverseproxy.workers.slots import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    STABLE,
    Slot,
    WorkerState,
    how_ended,
)
from tests.tunnel.logged import capture


class Process:
    """A process that notes how it is ended."""

    def __init__(self, gone: bool = False) -> None:
        self.signals: list[str] = []
        self._gone = gone

    def signalProcess(self, name: str) -> None:
        if self._gone:
            raise ProcessExitedAlready
        self.signals.append(name)


class Control:
    """A channel that notes what is said."""

    def __init__(self) -> None:
        self.said: list[Any] = []
        self.muted = False

    def send(self, message: Any) -> None:
        self.said.append(message)

    def mute(self) -> None:
        self.muted = True


def run_slot(number: int = 0, state: WorkerState = WorkerState.READY) -> Slot:
    """A place with a worker."""
    slot = Slot(number)
    slot.begin(0.0)
    slot.process, slot.state = Process(), state
    slot.control = Control()  # type: ignore[assignment]
    return slot


class SlotTests(SynchronousTestCase):
    def test_states(self) -> None:
        """What is asked of each state."""
        found = {state: run_slot(0, state) for state in WorkerState}
        self.assertEqual([each for each in found if found[each].ready], [WorkerState.READY])
        self.assertEqual(
            [each for each in found if found[each].answers], [WorkerState.READY, WorkerState.DRAINED]
        )
        self.assertEqual({each for each in found if not found[each].needs_others}, {WorkerState.DRAINED})

    def test_the_end(self) -> None:
        slot = run_slot()
        control, (slot.handover, other) = slot.control, socket.socketpair()
        self.addCleanup(other.close)
        slot.end(1.0)
        self.assertEqual(
            (slot.state, slot.process, slot.control, slot.handover, slot.ready, slot.needs_others),
            (WorkerState.AWAY, None, None, None, False, False),
        )
        assert isinstance(control, Control)
        self.assertTrue(control.muted)
        slot.send({"do": "ping"})  # to nobody

    def test_pauses(self) -> None:
        slot, pauses = run_slot(), []
        for _ in range(100):
            slot.failures += 1
            pauses.append(slot.pause)
            slot.end(STABLE - 1)
        self.assertEqual((pauses[0], pauses[-1]), (FIRST_PAUSE, LONGEST_PAUSE))
        self.assertTrue(all(one * 2 == other or other == LONGEST_PAUSE for one, other in pairwise(pauses)))
        slot.end(STABLE)
        self.assertEqual(slot.failures, 0)

    def test_force(self) -> None:
        slot = run_slot()
        process = slot.process
        slot.kill()
        self.assertEqual(process.signals, ["KILL"])
        slot.process = Process(gone=True)
        slot.kill()
        slot.process = None
        slot.kill()

    def test_how_they_end(self) -> None:
        reasons = (ProcessDone(0), ProcessTerminated(3, None, 0), ProcessTerminated(None, 9, 0))
        self.assertEqual(
            [how_ended(Failure(each)) for each in (*reasons, ProcessTerminated(None, 63, 0))],
            ["", "has ended with status 3", "was ended by SIGKILL", "was ended by signal 63"],
        )


class EndingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.slots = [run_slot(number) for number in range(2)]

    def test_by_force(self) -> None:
        ending = WorkersShutdown(self.slots, self.clock)
        ending.within(30)
        ending.within(20)
        gone, self.slots[0].process = self.slots[0].process, None
        self.assertFalse(ending.over)
        with capture() as events:
            self.clock.advance(19.9)
            self.assertEqual(events.text(), "")
            self.clock.advance(0.1)
        self.assertEqual(events.text(), "worker 2 does not stop, and is killed")
        self.assertEqual((gone.signals, self.slots[1].process.signals), ([], ["KILL"]))
        self.slots[1].process = None
        self.assertTrue(ending.over)

    def test_in_time(self) -> None:
        ending = WorkersShutdown(self.slots, self.clock)
        ending.within(30)
        ending.wait_no_longer()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nobody_is_started(self) -> None:
        waiting = Slot(2)
        waiting.restart = self.clock.callLater(1, self.fail)
        ending = WorkersShutdown([waiting], self.clock)
        ending.within(1)
        self.clock.advance(2)
        self.assertTrue(ending.over)


class ChangingTests(SynchronousTestCase):
    def test_who_can_t_be_handed_anything(self) -> None:
        slots = [run_slot(0), run_slot(1), run_slot(2, WorkerState.LEAVING)]
        (slots[0].handover, other) = socket.socketpair()
        other.close()
        changing = ConfigChange(slots, Clock())
        self.assertFalse(changing.under_way)
        problems = self.successResultOf(changing.prepare(None, []))  # type: ignore[arg-type]
        self.assertEqual(
            [(each.place, each.reason.split(":")[0]) for each in problems], [(DOCUMENT, "worker 1")]
        )
        self.assertTrue(changing.under_way)
        changing.discard()
        self.assertFalse(changing.under_way)
        assert slots[0].handover is not None
        slots[0].handover.close()

    def test_one_that_ends_meanwhile(self) -> None:
        slot = run_slot()
        (slot.handover, other) = socket.socketpair()
        self.addCleanup(other.close)
        self.addCleanup(slot.handover.close)
        changing = ConfigChange([slot], Clock())
        preparing = changing.prepare(None, [])  # type: ignore[arg-type]
        changing.said(1, {"is": "prepared", "turn": 1, "problems": []})
        self.assertEqual(self.successResultOf(preparing), [])
        ready, committing = changing.commit()
        self.assertEqual(ready, {1})
        self.assertNoResult(committing)
        changing.gone(1)
        self.assertEqual(self.successResultOf(committing), [])
        self.assertFalse(changing.under_way)


class BoundTests(SynchronousTestCase):
    def listener(self, name: str, address: str = "127.0.0.1:0") -> Any:
        filters = [{"type": "tunnel", "config": {}}]
        return ListenerConfig.model_validate(
            {"name": name, "address": address, "bind_port": True, "filter_chains": [{"filters": filters}]}
        )

    def test_change(self) -> None:
        """Sockets stay with their address, whatever the listener is called."""
        bound = BoundSockets(2)
        self.addCleanup(bound.close)
        one, other = self.listener("one"), self.listener("other")
        bound.bind([one, other], None, "document")
        before = dict(bound.by_listener)
        third = self.listener("third")
        opened = {"third": bound.open(third)}
        dropped = bound.change([self.listener("renamed"), third], {"renamed": "one"}, opened)
        self.assertEqual(list(bound.by_listener), ["renamed", "third"])
        self.assertIs(bound.by_listener["renamed"][0], before["one"][0])
        self.assertEqual(list(dropped), ["other"])
        bound.drop(dropped)
        self.assertTrue(all(each.fileno() == -1 for each in before["other"]))

    def test_files(self) -> None:
        for leave in (True, False):
            file = os.path.join(tempfile.mkdtemp(), "a.sock")
            bound = BoundSockets(2)
            bound.bind([self.listener("one", f"unix:{file}")], None, "document")
            bound.leave_files = leave
            bound.close()
            self.assertEqual((os.path.exists(file), bound.by_listener), (leave, {}))
            if leave:
                os.unlink(file)
            os.rmdir(os.path.dirname(file))
