"""One address of a tunnel server: the slots that keep connections to it, and how they end."""

from __future__ import annotations

__all__ = ["Peer"]

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from reverseproxy.logs import Throttle, counted
from reverseproxy.tunnel.agent.backoff import Backoff, reach_cap
from reverseproxy.tunnel.agent.dial_results import DialResults
from reverseproxy.tunnel.agent.dialler import Dialler
from reverseproxy.tunnel.agent.discovery import Target
from reverseproxy.tunnel.agent.leaving import DRAIN_POLL, AgentLeaving
from reverseproxy.tunnel.agent.link import AgentLink
from reverseproxy.tunnel.agent.outage import Outage
from reverseproxy.tunnel.agent.plan import AgentPlan, route_request
from reverseproxy.tunnel.agent.redial import RedialPolicy
from reverseproxy.tunnel.agent.roster import Roster
from reverseproxy.tunnel.agent.slot import make_slot
from reverseproxy.tunnel.agent.slot_core import SlotCore
from reverseproxy.tunnel.agent.slot_interfaces import ConnectionSlot, SlotState
from reverseproxy.wire.mosn.route_requests import BroughtRoutes

log = Logger(__package__)

GREETED_IN_TIME = 1.0
"""Seconds for which an agent that stops waits for responses to its handshakes."""

TOLD_RATE = 1.0
"""
Log lines per second, in the long run, about further connections that serve; that all of them do is
always logged.
"""

TOLD_BURST = 50
"""Such lines that may come at once."""


def _serving(cores: Iterable[SlotCore]) -> list[AgentLink]:
    """Return the connections that serve."""
    links = [core.link for core in cores if core.state is SlotState.SERVING]
    return [link for link in links if isinstance(link, AgentLink)]


class Peer:
    """
    One address of a tunnel server.

    @ivar target: the address, and the name that it belongs to.
    @ivar routes: the routes that the server has granted, as far as is known.
    """

    routes = BroughtRoutes()

    def __init__(self, plan: AgentPlan, target: Target, changed: Callable[[], None]) -> None:
        self.target = target
        self._plan = plan
        self._changed = changed
        self._dialler = Dialler(plan, target, self._prepare)
        self._roster = Roster()
        self._told = Throttle(plan.reactor, TOLD_RATE, TOLD_BURST)
        self._outage = Outage(f"agent of cluster {plan.config.cluster}: {self.name}", plan.reactor.seconds)
        self._cores: dict[int, SlotCore] = {}
        self._slots: dict[int, ConnectionSlot] = {}
        self._let_go: dict[Deferred[None], list[ConnectionSlot]] = {}  # slots that are leaving
        self._retiring: set[AgentLink] = set()  # replaced connections that finish their requests
        self._draining: Deferred[None] | None = None
        self._stopped = False
        self._results = DialResults()
        self._workers = 0  # the number of the server's workers, if connections carry streams
        for _ in range(plan.config.connection_num):
            self._add_slot()

    def _add_slot(self) -> ConnectionSlot:
        plan = self._plan
        number = next(number for number in count() if number not in self._cores)
        config = plan.config
        core = SlotCore(
            name=f"{config.cluster} via {self.name} #{number + 1}",
            dial=self._dialler.dial,
            clock=plan.reactor,
            redial=RedialPolicy(plan.reactor, self._backoff(), config.stable_duration),
            max_attempts=config.connect_retry_times or -1,
            changed=partial(self._slot_changed, number),
            ended=self._results.note,
            outage=self._outage,
        )
        self._cores[number] = core
        slot = self._slots[number] = make_slot(core)
        return slot

    def adapt(self, plan: AgentPlan) -> None:
        """
        Use other settings of dialling, or another number of connections.

        @param plan: differs in keys that need no other connections.
        """
        before, self._plan = self._plan.config, plan
        config = plan.config
        if self._draining is not None or self._stopped:
            return
        self._dialler.adapt(plan)
        for core in self._cores.values():
            core.redial.adapt(self._backoff(), config.stable_duration)
            core.max_attempts = config.connect_retry_times or -1
        exhausted = [n for n, core in self._cores.items() if core.state is SlotState.EXHAUSTED]
        if exhausted and config.connect_retry_times != before.connect_retry_times:
            self._remove(exhausted)
        wanted = max(config.connection_num, self._workers)
        while self.wanted < wanted:
            self._add_slot().start()
        # Serving slots are removed last.
        serving = {number: core.state is SlotState.SERVING for number, core in self._cores.items()}
        self._remove(sorted(serving, key=lambda number: (not serving[number], number))[wanted:])

    def _remove(self, numbers: list[int]) -> None:
        """Let slots leave, each when its connection has no request in progress."""
        slots = [self._slots.pop(number) for number in numbers]
        cores = [self._cores.pop(number) for number in numbers]
        if not slots:
            return
        for number, core in zip(numbers, cores, strict=True):
            core.changed = lambda state: self._changed()
            self._roster.note(number, SlotState.IDLE)
        log.info(
            "agent of cluster {cluster}: {connections} to {server} fewer than before, {left} now",
            cluster=self._plan.config.cluster,
            connections=counted(len(slots), "connection"),
            count=len(slots),
            server=self.name,
            left=self.wanted,
        )
        seconds = self._plan.config.graceful_close_max_wait_duration
        left = Deferred.fromCoroutine(self._leave(slots, cores, seconds))
        self._let_go[left] = slots
        left.addErrback(self._drain_ended)
        left.addBoth(self._have_left, left)

    def _have_left(self, result: Any, left: Deferred[None]) -> None:
        for slot in self._let_go.pop(left, ()):
            slot.stop()

    def _backoff(self) -> Backoff:
        config = self._plan.config
        # A configured maximum applies to all delays.
        said = "reconnect_max_duration" in config.model_fields_set
        reach = None if said else reach_cap(config.connection_num)
        longest = config.reconnect_max_duration
        return Backoff(config.reconnect_base_duration, longest, self._plan.random, reach)

    @property
    def name(self) -> str:
        """The server, for logs."""
        server, address = self.target.server, self.target.address
        return address if server == address else f"{server} ({address})"

    @property
    def serving(self) -> int:
        """How many connections serve."""
        return self._roster.serving

    @property
    def wanted(self) -> int:
        """
        How many connections there should be: as many as are configured, or as the server has workers for
        streams.
        """
        return len(self._cores)

    @property
    def leaves(self) -> bool:
        """Whether the server has announced that it is about to leave, and no connection serves."""
        return bool(self._retiring) and not self.serving

    @property
    def next_dial(self) -> float | None:
        """The seconds until the next attempt to connect; L{None} if no slot waits for one."""
        now = self._plan.reactor.seconds()
        waits = [core.timer.getTime() - now for core in self._cores.values() if core.timer is not None]
        return max(0.0, min(waits)) if waits else None

    @property
    def dials(self) -> dict[str, int]:
        """The number of attempts to connect, by result."""
        return self._results.counts

    @property
    def last_error(self) -> tuple[float, str] | None:
        """When the last attempt failed, in seconds since 1970, and why."""
        return self._results.last_error

    def _slot_changed(self, number: int, state: SlotState) -> None:
        self._roster.note(number, state)
        if state is SlotState.SERVING:
            serving, wanted = self.serving, self.wanted
            again = self._outage.over()
            if again or serving == wanted or self._told.allow():
                log.info(
                    "agent of cluster {cluster}: serving {server} over {serving} of {wanted} connections"
                    "{again}",
                    cluster=self._plan.config.cluster,
                    server=self.name,
                    serving=serving,
                    wanted=wanted,
                    again=again,
                )
            for waiting in self._roster.take_waiting():
                self._slots[waiting].reachable()
        self._changed()

    @property
    def links(self) -> list[AgentLink]:
        """All connections, including replaced ones that finish their requests."""
        links = {core.link for core in self._cores.values()} | self._retiring
        return [link for link in links if isinstance(link, AgentLink)]

    @property
    def doing(self) -> list[str]:
        """What is in progress on the connections, in a word or two each."""
        return [each for link in self.links for each in link.doing]

    # dialling

    def start(self) -> None:
        """Dial all connections, each when it is its turn, and keep them."""
        for slot in self._slots.values():
            slot.start()

    def _prepare(self, link: AgentLink) -> None:
        """Set the hooks of a new link."""
        link.hosted = self._hosted
        link.leaving = self._retiring.add
        link.parted = self._parted
        link.may_leave = self._may_leave

    def _parted(self, link: AgentLink) -> None:
        """Forget a replaced connection that is lost."""
        if link not in self._retiring:
            return
        self._retiring.discard(link)
        if not self._retiring:
            for number, core in self._cores.items():
                core.come_back(self._slots[number])

    def _hosted(self, link: AgentLink) -> None:
        """Note what the server has announced on a connection that serves."""
        self._dialler.streams = link.session is not None
        self._workers = link.workers
        if self._draining is None and not self._stopped:
            self._fit_to_workers()
        asked = bool(route_request(self._plan.config))
        if asked and link.routes != self.routes:
            self.routes = link.routes
            if link.routes:
                log.info(
                    "agent of cluster {cluster}: {server} sends what comes for {routes}",
                    cluster=self._plan.config.cluster,
                    server=self.name,
                    routes=str(link.routes),
                )
        if asked and not link.routes:
            log.info(
                "agent of cluster {cluster}: {server} has given no routes: what comes is its matter",
                cluster=self._plan.config.cluster,
                server=self.name,
            )

    def _fit_to_workers(self) -> None:
        """Dial one more connection if the server has more workers; give up what was meant for former ones."""
        wanted = max(self._plan.config.connection_num, self._workers)
        if self.wanted < wanted:
            # One at a time: the server gives it to a worker without one, and the next one to another.
            self._add_slot().start()
            return
        # Those that serve stay, as several servers may share the address.
        idle = [number for number, core in self._cores.items() if core.state is not SlotState.SERVING]
        self._remove(sorted(idle, reverse=True)[: self.wanted - wanted])

    def _may_leave(self) -> bool:
        """Return whether one more connection may be replaced while it finishes its requests."""
        return len(self._retiring) < self.wanted

    # end

    def drain(self, seconds: float) -> Deferred[None]:
        """
        Tell the server, let requests finish, and close all connections.

        @param seconds: the time limit.
        @return: fires when that is done, or cut short by L{stop}; never fails.
        """
        if self._draining is None:
            self._draining = Deferred.fromCoroutine(self._drain(seconds))
            self._draining.addErrback(self._drain_ended)
        return self._draining

    def _drain_ended(self, reason: Failure) -> None:
        if not self._stopped:
            log.failure("agent: draining {server} failed", reason, server=self.name)
            self._stop_slots()

    async def _drain(self, seconds: float) -> None:
        self._dialler.close()
        links = await self._end_slots(list(self._slots.values()), list(self._cores.values()), seconds)
        links += self._retiring
        if links:
            log.info(
                "agent of cluster {cluster}: draining {connections} to {server}, at most {seconds:g} s",
                cluster=self._plan.config.cluster,
                connections=counted(len(links), "connection"),
                count=len(links),
                server=self.name,
                seconds=seconds,
            )
        leaving = AgentLeaving(self._plan, self._dialler.endpoint, self.name, links, lambda: self._stopped)
        await leaving.run(seconds)
        if self._let_go:
            # Their requests have a time limit of their own, which ends sooner.
            await DeferredList(list(self._let_go))
        self._stop_slots()

    async def _leave(
        self, slots: Sequence[ConnectionSlot], cores: Sequence[SlotCore], seconds: float
    ) -> None:
        """Let some slots leave."""
        links = await self._end_slots(slots, cores, seconds)
        leaving = AgentLeaving(self._plan, self._dialler.endpoint, self.name, links, lambda: self._stopped)
        await leaving.run(seconds)

    async def _end_slots(
        self, slots: Sequence[ConnectionSlot], cores: Sequence[SlotCore], seconds: float
    ) -> list[AgentLink]:
        """
        Stop dialling for some slots.

        Responses to handshakes in progress are awaited for a moment: the server uses a connection as
        soon as it has responded, so that closing it before the response is read may lose a request,
        which can't be sent again if it is a POST.

        @return: the connections that serve, which are still to leave.
        """
        for slot, core in zip(slots, cores, strict=True):
            if core.state not in (SlotState.GREETING, SlotState.SERVING):
                slot.drain()
        clock = self._plan.reactor
        end = clock.seconds() + min(seconds, GREETED_IN_TIME)
        while clock.seconds() < end and not self._stopped:
            if not any(core.state is SlotState.GREETING for core in cores):
                break
            await deferLater(clock, DRAIN_POLL)
        links = _serving(cores)
        for slot in slots:
            slot.drain()
        return links

    def stop(self) -> None:
        """Close all connections, and dial no more."""
        self._stopped = True
        self._stop_slots()
        if self._draining is not None:
            self._draining.cancel()

    def _stop_slots(self) -> None:
        self._dialler.close()
        for slot in [*self._slots.values(), *(slot for slots in self._let_go.values() for slot in slots)]:
            slot.stop()
        for link in list(self._retiring):
            link.close()
