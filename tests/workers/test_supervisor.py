"""The supervisor, with simulated worker processes."""

from __future__ import annotations

import json
import os
import pickle
import socket
from pathlib import Path
from typing import Any

from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy import __version__
from reverseproxy.config.loader import loads
from reverseproxy.errors import ConfigError
from reverseproxy.workers.control import CONTROL_FD, OTHER_VERSION, Setup
from reverseproxy.workers.liveness import LOOK, STARTING
from reverseproxy.workers.messages import ControlMessageReader, encode
from reverseproxy.workers.slots import FIRST_PAUSE, LONGEST_PAUSE, STABLE
from reverseproxy.workers.socket_shares import PATIENCE
from reverseproxy.workers.supervisor import (
    ALONE,
    CUT_MARGIN,
    RELOADING,
    START_ATTEMPTS,
    STOP_MARGIN,
    Supervisor,
)
from tests.integration.configs import quick_agent, server
from tests.tunnel.logged import capture


class Process:
    """A worker's process, as far as the supervisor sees it."""

    def __init__(self, pid: int, protocol: Any, descriptors: dict[int, int]) -> None:
        self.pid = pid
        self.protocol = protocol
        self.descriptors = descriptors
        self.signals: list[str] = []
        self.control: Any = None
        self.wire = StringTransport()
        self._setup: Setup | None = None

    def signalProcess(self, name: str) -> None:
        self.signals.append(name)

    # what tests call

    @property
    def setup(self) -> Setup:
        if self._setup is None:
            version, data = self._block(self.wire.value())
            assert version == __version__.encode()
            pickled, data = self._block(data)
            self._setup = pickle.loads(pickled)
            self.wire.clear()
            self.wire.write(data)
        assert self._setup is not None
        return self._setup

    def _block(self, data: bytes) -> tuple[bytes, bytes]:
        size = int.from_bytes(data[:8], "big")
        return data[8 : 8 + size], data[8 + size :]

    def told(self) -> list[Any]:
        """What the supervisor has said since this was asked."""
        self.setup  # noqa: B018 - comes first
        reader = ControlMessageReader()
        reader.feed(self.wire.value())
        self.wire.clear()
        messages = []
        while (message := reader.next()) is not None:
            messages.append(message)
        return [message for message in messages if message["do"] != "ping"]

    def says(self, word: str, **more: Any) -> None:
        self.control.dataReceived(encode({"is": word, **more}))

    def end(self, signal: int | None = None, status: int = 0) -> None:
        good = signal is None and not status
        reason = ProcessDone(0) if good else ProcessTerminated(status or None, signal, 0)
        self.protocol.processExited(Failure(reason))


class FakeReactor(Clock):
    def __init__(self) -> None:
        super().__init__()
        self.processes: list[Process] = []
        self.commands: list[tuple[str, list[str], dict[str, str]]] = []

    def spawnProcess(
        self, protocol: Any, executable: str, args: Any, env: Any = None, childFDs: Any = None
    ) -> Process:
        self.commands.append((executable, args, env))
        process = Process(100 + len(self.processes), protocol, childFDs)
        self.processes.append(process)
        return process

    def adoptStreamConnection(self, descriptor: int, family: int, factory: Any) -> None:
        process = self.processes[-1]
        process.control = factory.buildProtocol(None)
        process.control.makeConnection(process.wire)


class SupervisorTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.gave_up: list[int] = []

    def make(self, workers: int = 3, **more: Any) -> Supervisor:
        loaded = loads(json.dumps(server(**more)), "document")
        return Supervisor(
            loaded,
            "document",
            workers,
            self.reactor,
            ["python", "-c", "work()"],
            {"a": 1},
            lambda: self.gave_up.append(1),
        )

    def run_workers(self, workers: int = 3, ready: bool = True, **more: Any) -> Supervisor:
        supervisor = self.make(workers, **more)
        supervisor.privilegedStartService()
        supervisor.startService()
        self.addCleanup(self.end, supervisor)
        for process in self.reactor.processes if ready else ():
            process.says("ready")
        for process in self.reactor.processes:
            process.told()
        return supervisor

    def end(self, supervisor: Supervisor) -> None:
        supervisor.stopService()
        for slot in supervisor.slots:
            if slot.process is not None:
                slot.process.end()

    @property
    def last(self) -> Process:
        return self.reactor.processes[-1]


class StartTests(SupervisorTestCase):
    def test_what_a_worker_is_given(self) -> None:
        supervisor = self.run_workers(2)
        self.assertEqual(len(self.reactor.processes), 2)
        executable, args, env = self.reactor.commands[1]
        self.assertEqual((executable, args[:3]), ("python", ["python", "-c", "work()"]))
        self.assertEqual(args[3], "worker 2 of 2")
        self.assertIn(str(Path(__file__).parent.parent.parent), env["PYTHONPATH"].split(os.pathsep))
        process = self.reactor.processes[1]
        setup = process.setup
        self.assertEqual((setup.number, setup.workers, setup.file), (1, 2, "document"))
        self.assertEqual(setup.loaded, supervisor.loaded)
        self.assertEqual(setup.settings, {"a": 1})
        self.assertEqual(os.stat(setup.directory).st_mode & 0o777, 0o700)
        numbers = [
            0,
            1,
            2,
            CONTROL_FD,
            *(n for each in setup.listening.values() for n in each),
            setup.link,
            setup.handover,
        ]
        self.assertEqual(sorted(process.descriptors), numbers)
        self.assertEqual(
            {name: len(each) for name, each in setup.listening.items()},
            {"clientListener": 2, "tunnelListener": 2},
        )

    def test_the_sockets_of_a_port(self) -> None:
        supervisor = self.run_workers(3)
        for sockets in supervisor._bound.by_listener.values():
            self.assertEqual(len({each.getsockname() for each in sockets}), 1)

    def test_an_agent_has_no_port(self) -> None:
        supervisor = self.make(2)
        supervisor.loaded = loads(json.dumps(quick_agent(1)), "document")
        supervisor.privilegedStartService()
        self.addCleanup(self.end, supervisor)
        self.assertEqual(self.last.setup.listening, {})

    def test_without_privileges(self) -> None:
        """As when C{twist} runs it."""
        supervisor = self.make(2)
        self.addCleanup(self.end, supervisor)
        supervisor.startService()
        self.assertEqual(len(self.reactor.processes), 2)
        self.assertEqual(set(self.last.setup.listening), {"clientListener", "tunnelListener"})

    def test_not_again(self) -> None:
        supervisor = self.run_workers(1)
        self.end(supervisor)
        self.assertRaises(RuntimeError, supervisor.startService)
        self.assertEqual(len(self.reactor.processes), 1)

    def test_an_address_in_use(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            supervisor = self.make(2, client=address)
            error = self.assertRaises(ConfigError, supervisor.privilegedStartService)
        self.assertIn(f"listeners[0].address: listener clientListener can't listen on {address}", str(error))
        self.assertEqual(self.reactor.processes, [])

    def test_workers_that_do_not_start(self) -> None:
        self.run_workers(2, ready=False)
        self.reactor.processes[0].says("ready")
        for _ in range(START_ATTEMPTS):
            self.assertEqual(self.gave_up, [])
            self.last.end(status=1)
            self.reactor.advance(1)
        self.assertEqual(self.gave_up, [1])
        self.assertEqual(len(self.reactor.processes), 2 + START_ATTEMPTS - 1)

    def test_a_worker_that_can_t_be_run(self) -> None:
        self.run_workers(2)
        spawn = self.reactor.spawnProcess

        def refuse(*_: object, **__: object) -> Any:
            raise PermissionError("not for you")

        self.patch(self.reactor, "spawnProcess", refuse)
        self.last.end(signal=9)
        with capture() as events:
            self.reactor.advance(10)
        self.assertIn("can't be run (not for you); it is started again in", events.text())
        self.patch(self.reactor, "spawnProcess", spawn)
        self.reactor.advance(LONGEST_PAUSE)
        self.assertEqual(self.last.setup.number, 1)

    def test_a_worker_that_does_not_start_again_is_tried_for_ever(self) -> None:
        self.run_workers(2)
        for _ in range(10):
            self.last.end(status=1)
            self.reactor.advance(LONGEST_PAUSE)
        self.assertEqual(self.gave_up, [])
        self.assertEqual(len(self.reactor.processes), 12)


class RestartTests(SupervisorTestCase):
    def test_pauses(self) -> None:
        supervisor = self.run_workers(1)
        pauses = []
        with capture() as events:
            for _ in range(12):
                self.last.end(signal=9)
                call = supervisor.slots[0].restart
                assert call is not None
                pauses.append(call.getTime() - self.reactor.seconds())
                self.reactor.advance(pauses[-1])
        self.assertAlmostEqual(pauses[0], FIRST_PAUSE)
        self.assertAlmostEqual(pauses[1], 2 * FIRST_PAUSE)
        self.assertAlmostEqual(pauses[-1], LONGEST_PAUSE)
        self.assertIn(
            "worker 1, process 100, was ended by SIGKILL; it is started again in 0.1 s", events.text()
        )
        self.last.says("ready")
        self.reactor.advance(STABLE)
        self.last.end(signal=9)
        call = supervisor.slots[0].restart
        assert call is not None
        self.assertAlmostEqual(call.getTime() - self.reactor.seconds(), FIRST_PAUSE)

    def test_the_others_stand_in(self) -> None:
        self.run_workers(3, ready=False)
        one, two, three = self.reactor.processes
        for process in (one, two, three):
            process.says("ready")
        self.assertEqual(one.told()[-1], {"do": "watch", "slots": [0]})
        three.end(signal=9)
        self.assertEqual(one.told(), [{"do": "watch", "slots": [0, 2]}])
        self.reactor.advance(1)
        self.assertEqual(self.last.setup.number, 2)
        self.last.says("ready")
        self.assertEqual(one.told()[-1], {"do": "watch", "slots": [0]})

    def test_none_accepts_before_all_are_ready(self) -> None:
        """The first one would have the connections of all agents."""
        self.run_workers(2, ready=False)
        one, two = self.reactor.processes
        self.assertEqual([each.setup.watch for each in (one, two)], [(), ()])
        self.assertIn(PATIENCE, [call.getTime() for call in self.reactor.getDelayedCalls()])
        one.says("ready")
        self.assertEqual(one.told(), [{"do": "watch", "slots": []}])
        two.says("ready")
        self.assertEqual(one.told(), [{"do": "watch", "slots": [0]}])
        self.assertEqual(two.told()[-1], {"do": "watch", "slots": [1]})
        two.end(signal=9)  # from now on, none waits for any other
        self.assertEqual(one.told(), [{"do": "watch", "slots": [0, 1]}])

    def test_another_version_is_installed(self) -> None:
        """A worker that can't be started with the installed code: the other ones stand in for it."""
        self.run_workers(3)
        one, two, three = self.reactor.processes
        three.end(signal=9)
        with capture() as events:
            for _ in range(10):
                self.reactor.advance(LONGEST_PAUSE)
                self.last.end(status=OTHER_VERSION)
        self.assertEqual(one.told()[-1], {"do": "watch", "slots": [0, 2]})
        self.assertEqual(two.told()[-1], {"do": "watch", "slots": [1, 2]})
        self.assertEqual((one.signals, two.signals, self.gave_up), ([], [], []))
        self.assertIn(
            f"worker 3, process 103, has ended with status {OTHER_VERSION}, as its code is not that of this "
            f"supervisor, {__version__}: let the installed version take over; it is started again in",
            events.text(),
        )
        self.reactor.advance(LONGEST_PAUSE)  # the supervisor's version is installed again
        self.last.says("ready")
        self.assertEqual(one.told()[-1], {"do": "watch", "slots": [0]})

    def test_whom_operators_keep_out(self) -> None:
        """What one worker has heard, the others are told; and one that is started anew, before all else."""
        self.run_workers(3)
        one, two, three = self.reactor.processes
        keep_out = {"keep_out": ["address", "::1"], "ids": ["1"], "agents": ["x"], "why": "banned by ops"}
        two.says("kept_out", decided=True, seconds=60.0, **keep_out)
        told = {"do": "keep_out", "decided": True, "seconds": 60.0, **keep_out}
        self.assertEqual([each.told() for each in (one, two, three)], [[told], [], [told]])
        three.says("kept_out", decided=False, seconds=60.0, **{**keep_out, "ids": ["2"]})
        three.says("let_in", decided=False, seconds=60.0, let_in=["2"])
        self.assertEqual([each["do"] for each in one.told()], ["keep_out", "let_in"])
        three.end(signal=9)
        self.reactor.advance(1)
        self.assertEqual(self.last.setup.watch, ())  # it accepts nobody before it has been told
        let_in, again = self.last.told()
        self.assertEqual((let_in["do"], let_in["let_in"]), ("let_in", ["2"]))
        self.assertEqual(again, {**told, "decided": False, "seconds": 59.0})
        self.last.says("ready")
        self.assertEqual(self.last.told(), [{"do": "watch", "slots": [2]}])

    def test_a_worker_that_drains_by_itself(self) -> None:
        self.run_workers(2)
        one, two = self.reactor.processes
        two.says("draining")
        self.assertEqual(one.told(), [{"do": "watch", "slots": [0, 1]}])
        two.told()
        two.says("drained")
        self.assertEqual(two.told(), [])
        self.reactor.advance(ALONE)
        self.assertEqual(two.told(), [{"do": "finish"}])
        two.end()
        self.reactor.advance(1)
        self.assertEqual(self.last.setup.number, 1)


class HangTests(SupervisorTestCase):
    def turn(self, seconds: float, *answering: Process) -> None:
        for _ in range(round(seconds / LOOK)):
            self.reactor.advance(LOOK)
            for process in answering:
                process.says("there")

    def test_a_worker_that_hangs_is_killed_and_replaced(self) -> None:
        self.run_workers(2)
        one, two = self.reactor.processes
        with capture() as events:
            self.turn(5, two)
        self.assertEqual((one.signals, two.signals), (["KILL"], []))
        self.assertRegex(
            events.text(), r"worker 1, process 100, hangs: it has not answered for [23]\.\d s, and is"
        )
        two.told()
        one.end(signal=9)
        self.assertEqual(two.told(), [{"do": "watch", "slots": [0, 1]}])
        self.turn(1, two)
        self.assertEqual(len(self.reactor.processes), 3)

    def test_not_while_it_has_much_to_do_that_it_was_told_to(self) -> None:
        supervisor = self.run_workers(1)
        supervisor.reload_certificates()
        self.turn(RELOADING - 1)
        self.assertEqual(self.last.signals, [])

    def test_one_that_does_not_become_ready(self) -> None:
        self.run_workers(1, ready=False)
        self.turn(STARTING - 1)
        self.assertEqual(self.last.signals, [])
        self.turn(2)
        self.assertEqual(self.last.signals, ["KILL"])


class ReplaceTests(SupervisorTestCase):
    def test_in_turn(self) -> None:
        supervisor = self.run_workers(2)
        one, two = self.reactor.processes
        self.assertEqual(supervisor.replace([1, 2, 3]), [1, 2])
        self.assertEqual(two.told(), [{"do": "watch", "slots": [0, 1]}])
        self.assertEqual(one.told()[-1], {"do": "replace"})
        one.says("draining")
        two.told()
        one.end()
        self.reactor.advance(FIRST_PAUSE)
        self.assertEqual(two.told()[-1], {"do": "watch", "slots": [0, 1]})
        self.last.says("ready")
        self.assertEqual([each["do"] for each in two.told()], ["watch", "watch", "replace"])

    def test_as_often_as_one_likes(self) -> None:
        """What was ordered is no failure, after which there would be a pause."""
        supervisor = self.run_workers(1)
        for _ in range(10):
            self.assertEqual(supervisor.replace([1]), [1])
            self.last.end()
            self.reactor.advance(FIRST_PAUSE)
            self.last.says("ready")
        self.assertEqual(len(self.reactor.processes), 11)

    def test_one_that_is_not_ready(self) -> None:
        """It is about to be started anyway."""
        supervisor = self.run_workers(2)
        self.reactor.processes[1].end()
        self.assertEqual(supervisor.replace([2]), [])
        self.assertEqual(supervisor.replace([1, 2]), [1])

    def test_not_while_stopping(self) -> None:
        supervisor = self.run_workers(1)
        supervisor.stopService()
        self.assertEqual(supervisor.replace([1]), [])


class EndTests(SupervisorTestCase):
    def test_all_drain_before_any_finishes(self) -> None:
        supervisor = self.run_workers(3)
        done = supervisor.stopService()
        workers = self.reactor.processes
        self.assertEqual([each.told() for each in workers], [[{"do": "drain"}]] * 3)
        self.assertEqual(supervisor._bound.by_listener, {})
        workers[0].says("drained")
        workers[1].says("drained")
        self.assertEqual(workers[0].told(), [])
        workers[2].end(signal=11)  # whoever is gone is not waited for
        self.assertEqual([each.told() for each in workers[:2]], [[{"do": "finish"}]] * 2)
        for each in workers[:2]:
            self.assertNoResult(done)
            each.end()
        self.successResultOf(done)
        self.assertFalse(os.path.exists(supervisor._starter.directory))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_workers_that_hear_of_the_end_first(self) -> None:
        """As from systemd, which tells all processes of a service."""
        supervisor = self.run_workers(2)
        one, two = self.reactor.processes
        one.says("draining")
        one.says("drained")
        supervisor.stopService()
        self.reactor.advance(ALONE)
        self.assertEqual([message["do"] for message in one.told()], ["watch", "drain"])
        two.says("drained")
        self.assertEqual(one.told(), [{"do": "finish"}])

    def test_a_worker_that_is_about_to_be_started_is_not(self) -> None:
        supervisor = self.run_workers(1)
        self.last.end(signal=9)
        self.successResultOf(supervisor.stopService())
        self.reactor.advance(100)
        self.assertEqual(len(self.reactor.processes), 1)

    def test_cutting_short(self) -> None:
        supervisor = self.run_workers(1)
        supervisor.cut_short()
        self.assertEqual(self.last.told(), [])
        supervisor.stopService()
        supervisor.cut_short()
        self.assertEqual(self.last.told(), [{"do": "drain"}, {"do": "cut"}])
        self.reactor.advance(CUT_MARGIN)
        self.assertEqual(self.last.signals, ["KILL"])

    def test_workers_that_hang_are_killed(self) -> None:
        supervisor = self.run_workers(1, graceful_timeout="5s")
        supervisor.stopService()
        self.reactor.advance(5 + STOP_MARGIN - 1)
        self.assertEqual(self.last.signals, [])
        self.reactor.advance(1)
        self.assertEqual(self.last.signals, ["KILL"])

    def test_signals_are_passed_on(self) -> None:
        supervisor = self.run_workers(1)
        supervisor.reload_certificates()
        supervisor.reopen_logs()
        self.assertEqual(self.last.told(), [{"do": "reload"}, {"do": "reopen"}])


class SuccessionTests(SupervisorTestCase):
    def test_nothing_is_accepted_before_all_are_ready(self) -> None:
        """Requests would wait for agents that are still at the process before this one."""
        supervisor = self.make(2)
        supervisor.holding = True
        settled: list[int] = []
        supervisor.on_settled = lambda: settled.append(1)
        supervisor.privilegedStartService()
        supervisor.startService()
        self.addCleanup(self.end, supervisor)
        one, two = self.reactor.processes
        self.assertEqual([each.setup.watch for each in (one, two)], [(), ()])
        one.says("ready")
        self.assertEqual(one.told(), [{"do": "watch", "slots": []}])
        self.assertEqual(settled, [])
        self.assertNotIn(PATIENCE, [call.getTime() for call in self.reactor.getDelayedCalls()])
        two.says("ready")
        self.assertEqual(settled, [1])
        self.assertEqual(one.told()[-1], {"do": "watch", "slots": [0]})
        self.assertEqual(two.told()[-1], {"do": "watch", "slots": [1]})

    def test_another_process_serves(self) -> None:
        supervisor = self.run_workers(2)
        bequests = supervisor.bequeath()
        self.assertEqual([len(each.sockets) for each in bequests], [2, 2])
        supervisor.succeed()
        supervisor.stopService()
        self.assertEqual(self.last.told(), [{"do": "drain", "succeeded": True}])
        for bequest in bequests:
            for each in bequest.sockets:
                with each, socket.create_connection(each.getsockname(), 5):
                    pass
