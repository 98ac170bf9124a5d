"""
The process that runs the workers.

It binds all ports, so that these stay bound whatever happens to a worker;
starts the workers, and starts one anew that ends without having been told to;
and passes on what signals say.
"""

from __future__ import annotations

__all__ = ["START_ATTEMPTS", "Supervisor"]

import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from reverseproxy.binding import say_bound
from reverseproxy.cluster.endpoints import CallableFactory
from reverseproxy.config.loader import Loaded
from reverseproxy.config.models import ListenerConfig
from reverseproxy.listener import bind_all
from reverseproxy.ports import INHERITED, Bequest, address_of, is_open, open_sockets
from reverseproxy.sockets import format_address
from reverseproxy.workers.asking import Inquiry, WorkerAnswer
from reverseproxy.workers.control import CONTROL_FD, Control, Setup, dump_setup
from reverseproxy.workers.handover import Handed, send
from reverseproxy.workers.links import KIND, socket_path
from reverseproxy.workers.messages import Message
from reverseproxy.workers.renewal import Renewal
from reverseproxy.workers.route_desk import RouteDesk
from reverseproxy.workers.turns import Turn
from reverseproxy.workers.vigil import Rounds

log = Logger()

START_ATTEMPTS: Final = 3
"""How often a worker may fail in a row to start, while all are being started, before everything ends."""

FIRST_PAUSE: Final = 0.1
"""Seconds before a worker is started again, which double each time it ends soon again."""

LONGEST_PAUSE: Final = 30.0
"""The most that they come to."""

STABLE: Final = 60.0
"""Seconds after which a worker that ends has not ended soon."""

ALONE: Final = 1.0
"""Seconds in which the others finish what they have begun with the agents of a worker that stops alone."""

RELOADING: Final = 60.0
"""Seconds in which workers that were told to look for something new may be silent."""

STOP_MARGIN: Final = 30.0
"""Seconds that workers have to stop, beyond the times that the configuration gives them."""

CUT_MARGIN: Final = 20.0
"""Seconds that they have when they were asked a second time."""


class _Process(ProcessProtocol):
    """Tells of the end of a worker's process."""

    def __init__(self, ended: Callable[[Failure], object]) -> None:
        self._ended = ended

    def processExited(self, reason: Failure) -> None:  # noqa: N802 - Twisted's name
        self._ended(reason)


class Slot:
    """
    A worker's place, whoever has it at present.

    @ivar number: from 0.
    @ivar control: the channel to the worker.
    @ivar process: its process, while that runs.
    @ivar pid: the number of that process, or of the last one.
    @ivar ready: whether the worker accepts connections.
    @ivar drained: whether it waits for the others to finish.
    @ivar failures: how often it has ended soon, in a row.
    @ivar restarts: how often it was started anew.
    @ivar handover: carries configurations and sockets to it.
    @ivar loaded: the configuration that it has been started with, or has been told to go on with.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.control: Control | None = None
        self.process: Any = None
        self.pid = 0
        self.ready = False
        self.drained = False
        self.failures = 0
        self.restarts = 0
        self.started = 0.0
        self.restart: IDelayedCall | None = None
        self.handover: socket.socket | None = None
        self.loaded: Loaded | None = None

    @property
    def name(self) -> int:
        """Its number for people, who begin with 1."""
        return self.number + 1

    def close_handover(self) -> None:
        """Hand nothing over any more."""
        handover, self.handover = self.handover, None
        if handover is not None:
            handover.close()

    def send(self, message: Message) -> None:
        """Tell the worker something, if there is one."""
        if self.control is not None:
            self.control.send(message)


class Supervisor(Service):
    """
    Runs workers.

    @ivar slots: their places.
    @ivar admin: a service that answers for all of them, bound with their ports, and
        stopped when they are; L{None} if there is none.
    @ivar on_settled: called once all workers have been ready.
    @ivar holding: whether nothing is accepted before all workers are ready, as another
        process does so meanwhile, which has the agents.
    @ivar succeeded: whether another process has taken the place of this one.
    @ivar on_ready: called each time that a worker accepts connections, once it does.
    """

    on_ready: Callable[[], object] | None = None
    on_settled: Callable[[], object] | None = None
    succeeded = False
    holding = False
    admin: Any = None

    def __init__(
        self,
        loaded: Loaded,
        file: str,
        workers: int,
        reactor: Any,
        command: list[str],
        settings: Mapping[str, Any],
        give_up: Callable[[], object],
        owner: tuple[int, int] | None = None,
    ) -> None:
        """
        @param loaded: the configuration.
        @param file: what to call it in messages.
        @param workers: how many.
        @param reactor: with processes; not one that has connections of its own.
        @param command: what to run, with its arguments.
        @param settings: see L{Setup}.
        @param give_up: called if workers can't be started.
        @param owner: the user and the group that workers will be, if that is
            somebody else.
        """
        self.slots = [Slot(number) for number in range(workers)]
        self.loaded = loaded
        self._file = file
        self._reactor = reactor
        self._command = command
        self._settings = settings
        self._give_up = give_up
        self._owner = owner
        self._sockets: dict[str, list[socket.socket]] = {}
        self._links: list[socket.socket] = []
        self._directory = ""
        self._begun = False  # ports are bound, and workers started
        self._settled = False  # all workers have been ready once
        self._stopped: Deferred[None] | None = None
        self._deadline: IDelayedCall | None = None
        self._inquiry = Inquiry(reactor)
        self._turn: Turn | None = None
        self._turns = count(1)
        self._rounds = Rounds(reactor, self._ask_whether_there, self._hangs)
        self._renewal = Renewal(self._replace)
        self._desk = RouteDesk(self.slots, reactor)

    @property
    def stopping(self) -> bool:
        """Whether it has been told to stop."""
        return self._stopped is not None

    def ask(self, question: str, arguments: Mapping[str, Any]) -> Deferred[list[WorkerAnswer]]:
        """
        Ask all workers; those that are not there, or not yet, are named as such.

        @param question: one that the workers' service knows how to answer.
        @param arguments: what JSON has.
        @return: one answer for each worker, in their order; never fails.
        """
        there = [slot for slot in self.slots if slot.ready]
        missing = [WorkerAnswer(slot.name, None, "is not ready") for slot in self.slots if not slot.ready]
        asked = self._inquiry.ask(there, question, arguments)
        return asked.addCallback(lambda answers: sorted([*answers, *missing], key=lambda each: each.worker))

    # binding

    def startService(self) -> None:
        """
        Bind and start the workers, if that has not been done with more privileges.

        @raise ConfigError: see L{privilegedStartService}.
        @raise RuntimeError: if it has been stopped, and is not to be started again.
        """
        if self._stopped is not None:
            raise RuntimeError("what has been stopped can't be started again: make another one")
        if not self._begun:
            self.privilegedStartService()
        Service.startService(self)
        if self.admin is not None:
            self.admin.startService()

    def privilegedStartService(self) -> None:
        """
        Bind every listener, and start the workers.

        @raise ConfigError: naming each address that can't be bound.
        """
        Service.privilegedStartService(self)
        try:
            bind_all(self.loaded.config.listening, self._bind, self._file)
            if self.admin is not None:
                self.admin.privilegedStartService()
            self._make_directory()
        except BaseException:
            self._close()
            raise
        claims, INHERITED.claims = INHERITED.claims, []
        self._desk.inherit(claims)
        self._begun = True
        log.info("{count} workers are started", count=len(self.slots))
        self._rounds.start()
        for slot in self.slots:
            self._start(slot)

    def _bind(self, config: ListenerConfig) -> None:
        if not config.bind_port:
            return
        self._sockets[config.name] = self.open(config)

    def open(self, config: ListenerConfig) -> list[socket.socket]:
        """
        Bind the address of a listener.

        @raise ListenerFailed: if it can't be bound.
        """
        sockets = open_sockets(config, len(self.slots))
        first = sockets[0]
        address = format_address(address_of(first.family, first.getsockname()))
        say_bound(log.info, config, address, bool(config.filter_chain.tls_contexts), not is_open(first))
        return sockets

    def _make_directory(self) -> None:
        """Make the sockets by which workers reach one another, where nobody else does."""
        self._directory = tempfile.mkdtemp(prefix="reverseproxy-")
        for slot in self.slots:
            path = socket_path(self._directory, slot.number)
            listening = socket.socket(socket.AF_UNIX, KIND)
            self._links.append(listening)
            listening.setblocking(False)
            listening.bind(path)
            listening.listen()
            if self._owner is not None:
                os.chown(path, *self._owner)
        if self._owner is not None:
            os.chown(self._directory, *self._owner)

    def bequeath(self) -> list[Bequest]:
        """Give the sockets that are listened on to the process that takes the place of this one."""
        listeners = self.loaded.config.listening
        addresses = {config.name: INHERITED.pass_on(config.address) for config in listeners}
        given = [
            Bequest(name, addresses.get(name, ""), tuple(each.dup() for each in sockets))
            for name, sockets in self._sockets.items()
        ]
        given += self._desk.bequeath()
        admin = None if self.admin is None else self.admin.listener.bequeath()
        return given if admin is None else [*given, admin]

    def claims(self) -> list[dict[str, Any]]:
        """Say which routes agents have brought, for the process that takes the place of this one."""
        return self._desk.claims

    def succeed(self) -> None:
        """Another process serves at the same addresses: agents dial it at once when this one stops."""
        self.succeeded = True
        if self.admin is not None:
            self.admin.listener.leave_address()

    def _close(self) -> None:
        """Listen no more."""
        self._desk.stop()
        self._drop(self._sockets)
        self._sockets = {}

    def _drop(self, dropped: Mapping[str, list[socket.socket]]) -> None:
        """Close sockets of listeners."""
        for name, sockets in dropped.items():
            file = sockets[0].getsockname() if sockets[0].family == socket.AF_UNIX else ""
            if file and not self.succeeded and file not in INHERITED.files:
                with suppress(OSError):
                    os.unlink(file)
            log.info("listener {listener} no longer listening", listener=name)
            for each in sockets:
                each.close()

    def _clean_up(self) -> None:
        for each in self._links:
            each.close()
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)

    # workers

    def _start(self, slot: Slot) -> None:
        slot.restart = None
        slot.started = self._reactor.seconds()
        slot.ready = slot.drained = False
        try:
            self._spawn(slot)
        except OSError as error:
            # Such as a limit of processes, or a user that may not run what we run.
            slot.control = None
            self._failed(slot, f"can't be run ({error})", False)

    def _spawn(self, slot: Slot) -> None:
        """
        Run a worker.

        @raise OSError: if that can't be done.
        """
        ours, theirs = socket.socketpair()
        slot.close_handover()
        slot.handover, handed = socket.socketpair()
        with ours, theirs, handed:
            ours.setblocking(False)
            slot.handover.setblocking(False)
            handed.setblocking(False)
            descriptors = {0: 0, 1: 1, 2: 2, CONTROL_FD: theirs.fileno()}

            def inherit(inherited: socket.socket) -> int:
                number = len(descriptors)
                descriptors[number] = inherited.fileno()
                return number

            setup = Setup(
                number=slot.number,
                workers=len(self.slots),
                loaded=self.loaded,
                file=self._file,
                listening={
                    name: tuple(inherit(each) for each in sockets) for name, sockets in self._sockets.items()
                },
                link=inherit(self._links[slot.number]),
                directory=self._directory,
                # Where agents have brought routes, it has to know these first.
                watch=() if len(self._desk) else tuple(self._watched_by(slot)),
                settings=self._settings,
                handover=inherit(handed),
            )
            slot.loaded = self.loaded
            slot.process = self._reactor.spawnProcess(
                _Process(partial(self._ended, slot)),
                self._command[0],
                [*self._command, f"worker {slot.name} of {len(self.slots)}"],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                childFDs=descriptors,
            )
            slot.pid = slot.process.pid
            control = slot.control = Control(partial(self._received, slot), lambda: None)
            self._reactor.adoptStreamConnection(
                ours.fileno(), socket.AF_UNIX, CallableFactory(lambda: control)
            )
        control.transport.write(dump_setup(setup))
        self._rounds.watch(slot.process, slot.pid)

    def _watched_by(self, slot: Slot) -> list[int]:
        """Which sockets a worker accepts from: its own, and those of workers that are away."""
        if self.holding:
            return []
        return [each.number for each in self.slots if each is slot or not each.ready]

    def _share_out(self) -> None:
        """Tell workers which sockets to accept from, after one has come or gone."""
        for slot in self.slots:
            slot.send({"do": "watch", "slots": self._watched_by(slot)})

    # workers that hang

    def _slot_of(self, process: Hashable) -> Slot | None:
        return next((slot for slot in self.slots if slot.process is process), None)

    def _ask_whether_there(self, process: Hashable) -> None:
        slot = self._slot_of(process)
        if slot is not None:
            slot.send({"do": "ping"})

    def _hangs(self, process: Hashable, seconds: float) -> None:
        """A worker does not answer: when it is gone, everybody hears of it, and another one is started."""
        slot = self._slot_of(process)
        if slot is None:
            return
        log.error(
            "worker {number}, process {pid}, hangs: it has not answered for {seconds:.1f} s, and is killed",
            number=slot.name,
            pid=slot.pid,
            seconds=seconds,
        )
        with suppress(ProcessExitedAlready):
            slot.process.signalProcess("KILL")

    def replace(self, numbers: Iterable[int]) -> list[int]:
        """
        Let workers finish what is under way, one after the other, and start others in their places.

        @param numbers: as people count them, from 1; those that there are not are ignored.
        @return: those that will be replaced.
        """
        if self._stopped is not None:
            return []
        return self._renewal.add(number for number in numbers if 0 < number <= len(self.slots))

    def _replace(self, number: int) -> bool:
        """
        Replace a worker now.

        @return: false if it is not ready.
        """
        slot = self.slots[number - 1]
        if not slot.ready or self._stopped is not None:
            return False
        log.info("worker {number}, process {pid}, is to be replaced", number=slot.name, pid=slot.pid)
        slot.ready = False
        self._share_out()
        slot.send({"do": "replace"})
        return True

    def _received(self, slot: Slot, message: Message) -> None:
        self._rounds.heard(slot.process)
        match message["is"]:
            case "ready":
                slot.ready = True
                if slot.loaded is not self.loaded and self._turn is None:
                    self._reactor.callLater(0, self.replace, [slot.name])
                log.info("worker {number} is ready, process {pid}", number=slot.name, pid=slot.pid)
                self._settle()
                self._desk.ready(slot)
                self._share_out()
                if self.on_ready is not None:
                    self.on_ready()
                self._renewal.ready(slot.name)
            case "prepared" | "committed":
                if self._turn is not None:
                    self._turn.prepared(slot.name, message)
            case "draining":
                slot.ready = False
                self._share_out()
            case "claim" | "brought" | "held":
                self._desk.received(slot, message)
            case "answer":
                self._inquiry.answered(slot.name, message)
            case "drained":
                slot.drained = True
                self._look_for_drained()
                if self._stopped is None:
                    # If all are asked to stop at once, we may be the last to hear of it.
                    self._reactor.callLater(ALONE, self._finish_alone, slot, slot.control)

    def _settle(self) -> None:
        """See whether all workers have been ready once."""
        if not self._settled and all(each.ready for each in self.slots):
            self._settled = True
            self.holding = False
            if self.on_settled is not None:
                self.on_settled()

    def _finish_alone(self, slot: Slot, control: Control | None) -> None:
        if self._stopped is None and slot.control is control:
            slot.send({"do": "finish"})

    def _look_for_drained(self) -> None:
        """Let workers finish, once none of them needs the agents of another."""
        if self._stopped is not None and all(each.drained or each.process is None for each in self.slots):
            self._tell({"do": "finish"})

    def _ended(self, slot: Slot, reason: Failure) -> None:
        pid = slot.pid
        self._rounds.forget(slot.process)
        if slot.control is not None:
            slot.control.mute()
        slot.process = slot.control = None
        was_ready, slot.ready = slot.ready, False
        how = _how(reason)
        self._inquiry.gone(slot.name)
        slot.close_handover()
        self._desk.gone(slot)
        if self._turn is not None:
            self._turn.gone(slot.name)
        if self._stopped is not None:
            if how:
                log.error("worker {number}, process {pid}, {how}", number=slot.name, pid=pid, how=how)
            self._look_for_drained()
            self._look_for_end()
            return
        if self._reactor.seconds() - slot.started >= STABLE:
            slot.failures = 0
        self._failed(slot, how, was_ready)
        self._share_out()

    def _failed(self, slot: Slot, how: str, was_ready: bool) -> None:
        """
        Start a worker again after a while, unless it seems that none can be started at all.

        @param how: it has ended; empty if it was told to.
        """
        slot.failures += bool(how) or not self._settled
        if not self._settled and not was_ready and slot.failures >= START_ATTEMPTS:
            log.critical(
                "worker {number} can't be started: it {how}, {count} times in a row",
                number=slot.name,
                how=how or "ended",
                count=slot.failures,
            )
            self._give_up()
            return
        pause = min(FIRST_PAUSE * 2 ** min(max(slot.failures - 1, 0), 30), LONGEST_PAUSE)
        write = log.error if how else log.info
        write(
            "worker {number}, process {pid}, {how}; it is started again in {pause:g} s",
            number=slot.name,
            pid=slot.pid,
            how=how or "has ended, as it was told",
            pause=pause,
        )
        slot.restarts += 1
        slot.restart = self._reactor.callLater(pause, self._start, slot)

    def _tell(self, message: Message) -> None:
        for slot in self.slots:
            slot.send(message)

    def reload_certificates(self) -> None:
        """Let workers look now whether certificates have changed."""
        self._rounds.excuse(RELOADING)
        self._tell({"do": "reload"})

    # another configuration

    def prepare(self, handed: Handed, opened: list[socket.socket]) -> Deferred[list[tuple[str, str]]]:
        """
        Let all workers that are ready get ready to go on with another configuration.

        @param opened: the new sockets.
        @return: what is wrong with it, each with its place in the document.
        """
        number = next(self._turns)
        there = [slot for slot in self.slots if slot.ready and slot.handover is not None]
        turn = self._turn = Turn(number, [slot.name for slot in there], self._reactor)
        self._rounds.excuse(RELOADING)
        for slot in there:
            assert slot.handover is not None
            try:
                descriptors = send(slot.handover, handed, opened)
            except OSError as error:
                turn.prepared(slot.name, {"turn": number, "problems": [("", f"worker {slot.name}: {error}")]})
            else:
                slot.send({"do": "prepare", "turn": number, "descriptors": descriptors})
        return turn.wait()

    def discard(self) -> None:
        """The configuration that workers are ready for is not wanted."""
        turn, self._turn = self._turn, None
        if turn is not None:
            self._tell({"do": "discard", "turn": turn.number})

    def commit(
        self, loaded: Loaded, moved: Mapping[str, str], opened: Mapping[str, list[socket.socket]]
    ) -> Deferred[list[tuple[str, str]]]:
        """
        Let workers go on with the configuration that they are ready for.

        Those that were not asked are replaced.

        @return: fires when all of them have gone on with it, with nothing; else with those that have not.
        """
        prepared = self._turn
        assert prepared is not None
        turn = self._turn = Turn(prepared.number, prepared.ready, self._reactor)
        old, self._sockets = self._sockets, {}
        for config in loaded.config.listening:
            sockets = opened.get(config.name) or old.get(moved.get(config.name, config.name))
            if config.bind_port and sockets is not None:
                self._sockets[config.name] = list(sockets)
        kept = {id(each) for sockets in self._sockets.values() for each in sockets}
        self._tell({"do": "commit", "turn": turn.number})
        self._drop({name: sockets for name, sockets in old.items() if id(sockets[0]) not in kept})
        before, self.loaded = self.loaded, loaded
        for slot in self.slots:
            if slot.name in prepared.ready:
                slot.loaded = loaded
        late = [slot.name for slot in self.slots if slot.loaded is before and slot.ready]
        if late:
            self.replace(late)
        return turn.wait().addBoth(self._committed, turn)

    def _committed(self, result: Any, turn: Turn) -> Any:
        if self._turn is turn:
            self._turn = None
        return result

    def reopen_logs(self) -> None:
        """Let workers open their logs anew."""
        self._tell({"do": "reopen"})

    # ending

    def stopService(self) -> Deferred[None]:
        """
        Let all workers finish what is under way, then stop.

        @return: fires when none is left.
        """
        Service.stopService(self)
        if self._stopped is not None:
            return self._stopped
        self._stopped = Deferred()
        for slot in self.slots:
            if slot.restart is not None:
                slot.restart.cancel()
                slot.restart = None
        self._close()
        self._tell({"do": "drain", "succeeded": True} if self.succeeded else {"do": "drain"})
        config = self.loaded.config
        times = [agent.graceful_close_max_wait_duration for agent in config.agents]
        self._set_deadline(config.server.graceful_timeout + max(times, default=0.0) + STOP_MARGIN)
        stopped = self._stopped
        if self.admin is not None:
            stopped.addCallback(lambda _: self.admin.stopService())
        self._look_for_end()
        return stopped

    def cut_short(self) -> None:
        """While stopping, let workers wait no longer for what is under way."""
        if self._stopped is not None:
            log.warn("asked again to stop: what is still under way is cut off")
            self._tell({"do": "cut"})
            self._set_deadline(CUT_MARGIN)

    def _set_deadline(self, seconds: float) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        if any(slot.process is not None for slot in self.slots):
            self._deadline = self._reactor.callLater(seconds, self._kill)

    def _kill(self) -> None:
        """Workers hang."""
        for slot in self.slots:
            if slot.process is not None:
                log.error("worker {number} does not stop, and is killed", number=slot.name)
                with suppress(ProcessExitedAlready):
                    slot.process.signalProcess("KILL")

    def _look_for_end(self) -> None:
        stopped = self._stopped
        if stopped is None or stopped.called or any(slot.process is not None for slot in self.slots):
            return
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._rounds.stop()
        self._clean_up()
        log.info("all workers have stopped")
        stopped.callback(None)


def _how(reason: Failure) -> str:
    """Say how a process has ended; empty for a good end."""
    number = getattr(reason.value, "signal", None)
    if number is not None:
        with suppress(ValueError):
            return f"was ended by {signal.Signals(number).name}"
        return f"was ended by signal {number}"
    status = getattr(reason.value, "exitCode", None)
    return f"has ended with status {status}" if status else ""
