"""
The supervisor: the process that runs the workers.

It binds all ports, so that they outlive workers; it starts the workers, restarts those that
die, and forwards signals.
"""

from __future__ import annotations

__all__ = ["START_ATTEMPTS", "Supervisor"]

import socket
from collections.abc import Callable, Hashable, Iterable, Mapping
from enum import Enum
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from reverseproxy.config.loader import Loaded
from reverseproxy.config.models import ListenerConfig
from reverseproxy.problems import Problem
from reverseproxy.process.inherited_sockets import INHERITED, ListenerSockets
from reverseproxy.workers.asking import Inquiry, WorkerAnswer
from reverseproxy.workers.bound import BoundSockets
from reverseproxy.workers.changing import ConfigChange
from reverseproxy.workers.control import Control
from reverseproxy.workers.exclusions import SupervisorExclusions
from reverseproxy.workers.handover import Handed
from reverseproxy.workers.liveness import LivenessChecks
from reverseproxy.workers.messages import Message
from reverseproxy.workers.renewal import Renewal
from reverseproxy.workers.route_arbiter import WorkerRouteArbiter
from reverseproxy.workers.shared_log import SharedLog
from reverseproxy.workers.shutdown import WorkersShutdown
from reverseproxy.workers.slots import Slot, WorkerState, how_ended
from reverseproxy.workers.socket_shares import PATIENCE, SocketShares
from reverseproxy.workers.starting import Starter

log = Logger()

START_ATTEMPTS: Final = 3
"""How often a worker may fail in a row at the first start, before the supervisor gives up."""

ALONE: Final = 1.0
"""Seconds for requests of other workers through the agents of a worker that stops alone."""

RELOADING: Final = 60.0
"""Seconds for which workers may not answer pings during a reload."""

STOP_MARGIN: Final = 30.0
"""Seconds that workers have to stop, in addition to the configured times."""

CUT_MARGIN: Final = 20.0
"""Seconds that they have after a second signal to stop."""


class SupervisorPhase(Enum):
    """
    The phases of a supervisor before it stops.

    @cvar NEW: nothing is bound.
    @cvar BEGUN: ports are bound, and workers are starting.
    @cvar SETTLED: all workers have been ready once.
    """

    NEW = "new"
    BEGUN = "begun"
    SETTLED = "settled"


class Supervisor(Service):
    """
    Runs workers.

    @ivar slots: the slots of the workers.
    @ivar admin: the admin API for all workers; L{None} if there is none.
    @ivar on_settled: called once all workers have been ready.
    @ivar holding: whether to accept nothing before all workers are ready, however long that takes, as the
        process that this one takes over still serves.
    @ivar succeeded: whether another process has taken over from this one.
    @ivar shared_log: the log of all processes; L{None} if this process writes none.
    """

    on_settled: Callable[[], object] | None = None
    succeeded = False
    holding = False
    admin: Any = None
    shared_log: SharedLog | None = None

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
        @param file: its name in messages.
        @param workers: how many there are.
        @param reactor: a reactor that can run processes, with Twisted's own transports.
        @param command: the command of a worker, with its arguments.
        @param settings: see L{Setup}.
        @param give_up: called if workers can't be started.
        @param owner: the user and the group of workers, if they differ from ours.
        """
        self.slots = [Slot(number) for number in range(workers)]
        self.loaded = loaded
        self._file = file
        self._reactor = reactor
        self._give_up = give_up
        self._phase = SupervisorPhase.NEW
        self._ending: WorkersShutdown | None = None
        self._bound = BoundSockets(workers)
        self._starter = Starter(reactor, command, file, settings, owner)
        self._starter.received, self._starter.ended = self._received, self._ended
        self._changing = ConfigChange(self.slots, reactor)
        self._inquiry = Inquiry(reactor)
        self._rounds = LivenessChecks(reactor, self._ask_whether_there, self._hangs)
        self._renewal = Renewal(self._replace)
        self._shares = SocketShares(self.slots, reactor)
        self._route_arbiter = WorkerRouteArbiter(self.slots, reactor, loaded.config.fleet is not None)
        self._exclusions = SupervisorExclusions(self.slots, reactor)

    @property
    def stopping(self) -> bool:
        """Whether it is stopping."""
        return self._ending is not None

    def ask(self, question: str, arguments: Mapping[str, Any]) -> Deferred[list[WorkerAnswer]]:
        """
        Ask all workers a question; those that are not ready have a problem for an answer.

        @param question: a question of L{Inspector<reverseproxy.admin.Inspector>}.
        @param arguments: its arguments, as in JSON.
        @return: one answer for each worker, in their order; never fails.
        """
        there = [slot for slot in self.slots if slot.answers]
        missing = [WorkerAnswer(slot.name, None, "is not ready") for slot in self.slots if not slot.answers]
        asked = self._inquiry.ask(there, question, arguments)
        return asked.addCallback(lambda answers: sorted([*answers, *missing], key=lambda each: each.worker))

    # binding

    def startService(self) -> None:
        """
        Bind and start the workers, if that has not been done with more privileges.

        @raise ConfigError: see L{privilegedStartService}.
        @raise RuntimeError: if it has been stopped, and is not to be started again.
        """
        if self._ending is not None:
            raise RuntimeError("what has been stopped can't be started again: make another one")
        if self._phase is SupervisorPhase.NEW:
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
            self._bound.bind(self.loaded.config.listening, self.admin, self._file)
            self._starter.make_directory(len(self.slots))
        except BaseException:
            self._close()
            raise
        claims, INHERITED.claims = INHERITED.claims, []
        self._route_arbiter.inherit(claims)
        self._phase = SupervisorPhase.BEGUN
        log.info("{count} workers are started", count=len(self.slots))
        self._rounds.start()
        self._shares.hold(None if self.holding else PATIENCE)
        for slot in self.slots:
            self._start(slot)

    def open(self, config: ListenerConfig) -> list[socket.socket]:
        """
        Bind the address of a listener.

        @raise ListenerFailed: if it can't be bound.
        """
        return self._bound.open(config)

    def bequeath(self) -> list[ListenerSockets]:
        """Return duplicates of all listening sockets, for the process that takes over."""
        given = self._bound.bequeath(self.loaded.config.listening)
        given += self._route_arbiter.bequeath()
        admin = None if self.admin is None else self.admin.listener.bequeath()
        return given if admin is None else [*given, admin]

    def claims(self) -> list[dict[str, Any]]:
        """Return the routes that agents have brought, for the process that takes over."""
        return self._route_arbiter.claims

    def succeed(self) -> None:
        """Record that another process serves at the same addresses, so that agents dial it at once."""
        self.succeeded = self._bound.leave_files = True
        if self.admin is not None:
            self.admin.listener.leave_address()

    def _close(self) -> None:
        """Close all listening sockets."""
        self._shares.stop()
        self._route_arbiter.stop()
        self._bound.close()

    # workers

    def _start(self, slot: Slot) -> None:
        slot.begin(self._reactor.seconds())
        # The worker has to know routes that agents have brought, and bans, before it accepts: it is told
        # what to watch when it is ready, behind these.
        informed = len(self._route_arbiter) + len(self._exclusions) == 0
        watch = self._shares.of(slot) if informed else []
        try:
            self._starter.start(slot, self.loaded, self._bound.by_listener, watch)
        except OSError as error:
            # Such as a limit of processes, or a user without permission.
            slot.control = None
            slot.state = WorkerState.AWAY
            self._failed(slot, f"can't be run ({error})", False)
        else:
            self._rounds.watch(slot.process, slot.pid)
            self._exclusions.started(slot)
            self._route_arbiter.started(slot)

    # workers that hang

    def _slot_of(self, process: Hashable) -> Slot | None:
        return next((slot for slot in self.slots if slot.process is process), None)

    def _ask_whether_there(self, process: Hashable) -> None:
        slot = self._slot_of(process)
        if slot is not None:
            slot.send({"do": "ping"})

    def _hangs(self, process: Hashable, seconds: float) -> None:
        """Kill a worker that does not answer; it is restarted like any that dies."""
        slot = self._slot_of(process)
        if slot is None:
            return
        log.error(
            "worker {number}, process {pid}, hangs: it has not answered for {seconds:.1f} s, and is killed",
            number=slot.name,
            pid=slot.pid,
            seconds=seconds,
        )
        slot.kill()

    def replace(self, numbers: Iterable[int]) -> list[int]:
        """
        Replace workers, one after the other: each finishes its requests, and a new one starts.

        @param numbers: from 1; unknown ones, and those not ready, which start anyway, are ignored.
        @return: those that will be replaced.
        """
        if self._ending is not None:
            return []
        ready = {slot.name for slot in self.slots if slot.ready}
        return self._renewal.add(number for number in numbers if number in ready)

    def _replace(self, number: int) -> bool:
        """
        Replace a worker now.

        @return: false if it is not ready.
        """
        slot = self.slots[number - 1]
        if not slot.ready or self._ending is not None:
            return False
        log.info("worker {number}, process {pid}, is to be replaced", number=slot.name, pid=slot.pid)
        slot.state = WorkerState.LEAVING
        self._shares.share_out()
        slot.send({"do": "replace"})
        return True

    def _received(self, slot: Slot, message: Message) -> None:
        self._rounds.heard(slot.process)
        match message["is"]:
            case "ready":
                slot.state = WorkerState.READY
                if slot.loaded is not self.loaded and not self._changing.under_way:
                    self._reactor.callLater(0, self.replace, [slot.name])
                log.info("worker {number} is ready, process {pid}", number=slot.name, pid=slot.pid)
                self._settle()
                self._route_arbiter.ready(slot)
                self._shares.share_out()
                self._renewal.ready(slot.name)
            case "prepared" | "committed":
                self._changing.said(slot.name, message)
            case "draining":
                slot.state = WorkerState.LEAVING
                self._shares.share_out()
            case "claim" | "brought" | "held" | "fleet_decided" | "fleet_bring" | "fleet_take_away":
                self._route_arbiter.received(slot, message)
            case "kept_out" | "let_in":
                self._exclusions.received(slot, message)
            case "answer":
                self._inquiry.answered(slot.name, message)
            case "drained":
                slot.state = WorkerState.DRAINED
                self._look_for_drained()
                if self._ending is None:
                    # If all were signalled at once, the supervisor may be the last one.
                    self._reactor.callLater(ALONE, self._finish_alone, slot, slot.control)

    def _settle(self) -> None:
        """Enter the phase SETTLED, once all workers have been ready."""
        if self._phase is not SupervisorPhase.SETTLED and all(each.ready for each in self.slots):
            self._phase = SupervisorPhase.SETTLED
            self._shares.open()
            if self.on_settled is not None:
                self.on_settled()

    def _finish_alone(self, slot: Slot, control: Control | None) -> None:
        if self._ending is None and slot.control is control:
            slot.send({"do": "finish"})

    def _look_for_drained(self) -> None:
        """Let workers finish, once no worker needs the agents of another."""
        if self._ending is not None and not any(each.needs_others for each in self.slots):
            self._tell({"do": "finish"})

    def _ended(self, slot: Slot, reason: Failure) -> None:
        was_ready, how = slot.ready, how_ended(reason)
        self._rounds.forget(slot.process)
        slot.end(self._reactor.seconds())
        self._inquiry.gone(slot.name)
        self._route_arbiter.gone(slot)
        self._changing.gone(slot.name)
        if self._ending is not None:
            if how:
                log.error("worker {number}, process {pid}, {how}", number=slot.name, pid=slot.pid, how=how)
            self._look_for_drained()
            self._look_for_end()
            return
        self._failed(slot, how, was_ready)
        self._shares.share_out()

    def _failed(self, slot: Slot, how: str, was_ready: bool) -> None:
        """
        Restart a worker after a pause, or give up if workers can't be started at all.

        @param how: how it has ended; empty if it was told to.
        """
        settled = self._phase is SupervisorPhase.SETTLED
        slot.failures += bool(how) or not settled
        if not settled and not was_ready and slot.failures >= START_ATTEMPTS:
            log.critical(
                "worker {number} can't be started: it {how}, {count} times in a row",
                number=slot.name,
                how=how or "ended",
                count=slot.failures,
            )
            self._give_up()
            return
        write = log.error if how else log.info
        write(
            "worker {number}, process {pid}, {how}; it is started again in {pause:g} s",
            number=slot.name,
            pid=slot.pid,
            how=how or "has ended, as it was told",
            pause=slot.pause,
        )
        slot.restarts += 1
        slot.restart = self._reactor.callLater(slot.pause, self._start, slot)

    def _tell(self, message: Message) -> None:
        for slot in self.slots:
            slot.send(message)

    def reload_certificates(self) -> None:
        """Let workers reload changed certificates now."""
        self._rounds.excuse(RELOADING)
        self._tell({"do": "reload"})

    # another configuration

    def prepare(self, handed: Handed, opened: list[socket.socket]) -> Deferred[list[Problem]]:
        """See L{ConfigChange.prepare}."""
        self._rounds.excuse(RELOADING)
        return self._changing.prepare(handed, opened)

    def discard(self) -> None:
        """See L{ConfigChange.discard}."""
        self._changing.discard()

    def commit(
        self, loaded: Loaded, moved: Mapping[str, str], opened: Mapping[str, list[socket.socket]]
    ) -> Deferred[list[Problem]]:
        """
        Let workers use the prepared configuration.

        Workers that have not prepared it are replaced.

        @param moved: names of listeners that take the sockets of another one, and its name.
        @param opened: the new sockets, by listener.
        @return: fires when all of them use it, with the problems of those that don't.
        """
        dropped = self._bound.change(loaded.config.listening, moved, opened)
        ready, committing = self._changing.commit()
        self._bound.drop(dropped)
        before, self.loaded = self.loaded, loaded
        for slot in self.slots:
            if slot.name in ready:
                slot.loaded = loaded
        late = [slot.name for slot in self.slots if slot.loaded is before and slot.ready]
        if late:
            self.replace(late)
        return committing

    def reopen_logs(self) -> None:
        """Let workers reopen their logs."""
        self._tell({"do": "reopen"})

    # ending

    def stopService(self) -> Deferred[None]:
        """
        Let all workers finish their requests, then stop.

        @return: fires when all have ended.
        """
        Service.stopService(self)
        if self._ending is not None:
            return self._ending.done
        ending = self._ending = WorkersShutdown(self.slots, self._reactor)
        self._close()
        self._tell({"do": "drain", "succeeded": True} if self.succeeded else {"do": "drain"})
        config = self.loaded.config
        times = [agent.graceful_close_max_wait_duration for agent in config.agents]
        ending.within(config.server.graceful_timeout + max(times, default=0.0) + STOP_MARGIN)
        if self.admin is not None:
            ending.done.addCallback(lambda _: self.admin.stopService())
        self._look_for_end()
        return ending.done

    def cut_short(self) -> None:
        """While stopping, let workers abort their requests."""
        if self._ending is not None:
            log.warn("asked again to stop: what is still under way is cut off")
            self._tell({"do": "cut"})
            self._ending.within(CUT_MARGIN)

    def _look_for_end(self) -> None:
        ending = self._ending
        if ending is not None and ending.over and not ending.done.called:
            ending.wait_no_longer()
            self._rounds.stop()
            self._starter.clean_up()
            log.info("all workers have stopped")
            ending.done.callback(None)
