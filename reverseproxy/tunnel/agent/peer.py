"""One address of a tunnel server: the slots that keep connections to it, and how they end."""

from __future__ import annotations

__all__ = ["Peer"]

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from reverseproxy.clock import wall_time
from reverseproxy.cluster.endpoints import CallableFactory, make_endpoint
from reverseproxy.logs import Throttle, counted
from reverseproxy.net.lenient_timeouts import add_lenient_timeout
from reverseproxy.tunnel.agent.backoff import Backoff, reach_cap
from reverseproxy.tunnel.agent.dial_turns import DialTurn, DialTurns
from reverseproxy.tunnel.agent.discovery import Target
from reverseproxy.tunnel.agent.leaving import DRAIN_POLL, AgentLeaving, too_late
from reverseproxy.tunnel.agent.link import AgentLink
from reverseproxy.tunnel.agent.outage import Outage
from reverseproxy.tunnel.agent.plan import AgentPlan, route_request
from reverseproxy.tunnel.agent.redial import RedialPolicy
from reverseproxy.tunnel.agent.roster import Roster
from reverseproxy.tunnel.agent.slot import make_slot
from reverseproxy.tunnel.agent.slot_core import SlotCore
from reverseproxy.tunnel.agent.slot_interfaces import ConnectionSlot, SlotLink, SlotState
from reverseproxy.wire.mosn.route_requests import BroughtRoutes

log = Logger(__package__)

MAX_REASON = 300
"""Characters that are kept of why an attempt to connect has failed."""

GREETED_IN_TIME = 1.0
"""Seconds for which an agent that stops waits for answers to its handshakes."""

TOLD_RATE = 1.0
"""Lines a second, in the long run, about another connection that serves; that all do is always told."""

TOLD_BURST = 50
"""How many of these may come at once."""


def _serving(cores: Iterable[SlotCore]) -> list[AgentLink]:
    """The connections that serve."""
    links = [core.link for core in cores if core.state is SlotState.SERVING]
    return [link for link in links if isinstance(link, AgentLink)]


class Peer:
    """
    One address of a tunnel server.

    @ivar target: the address, and the name that it was found under.
    @ivar routes: those that the server has given to us, as far as we know.
    @ivar dials: how many attempts to connect have ended how.
    @ivar last_error: when one has failed the last time, in seconds since 1970, and why.
    """

    routes = BroughtRoutes()

    def __init__(self, plan: AgentPlan, target: Target, changed: Callable[[], None]) -> None:
        self.target = target
        self._plan = plan
        self._changed = changed
        self._turns = DialTurns()
        self._roster = Roster()
        self._told = Throttle(plan.reactor, TOLD_RATE, TOLD_BURST)
        self._outage = Outage(f"agent of cluster {plan.config.cluster}: {self.name}", plan.reactor.seconds)
        self._cores: dict[int, SlotCore] = {}
        self._slots: dict[int, ConnectionSlot] = {}
        self._let_go: dict[Deferred[None], list[ConnectionSlot]] = {}  # slots that are not wanted any more
        self._close_limits: set[AgentLink] = set()  # finish what is under way, and have been replaced
        self._draining: Deferred[None] | None = None
        self._stopped = False
        self.dials: dict[str, int] = {}
        self.last_error: tuple[float, str] | None = None
        self._streams = False  # whether connections to this server carry streams, as far as we know
        self._workers = 0  # of the server, if connections carry streams
        self._secure = plan.client_tls is not None
        self._endpoint = self._make_endpoint()
        for _ in range(plan.config.connection_num):
            self._add_slot()

    def _add_slot(self) -> ConnectionSlot:
        plan = self._plan
        number = next(number for number in count() if number not in self._cores)
        config = plan.config
        core = SlotCore(
            name=f"{config.cluster} via {self.name} #{number + 1}",
            dial=self._dial,
            clock=plan.reactor,
            redial=RedialPolicy(plan.reactor, self._backoff(), config.stable_duration),
            max_attempts=config.connect_retry_times or -1,
            changed=partial(self._slot_changed, number),
            ended=self._attempt_ended,
            outage=self._outage,
        )
        self._cores[number] = core
        slot = self._slots[number] = make_slot(core)
        return slot

    def adapt(self, plan: AgentPlan) -> None:
        """
        Go on with other settings: of dialling, and how many connections there are to be.

        @param plan: what is different in it needs no other connections.
        """
        before, self._plan = self._plan.config, plan
        config = plan.config
        if self._draining is not None or self._stopped:
            return
        if config.connect_timeout_duration != before.connect_timeout_duration:
            self._endpoint = self._make_endpoint()
        for core in self._cores.values():
            core.redial.adapt(self._backoff(), config.stable_duration)
            core.max_attempts = config.connect_retry_times or -1
        exhausted = [n for n, core in self._cores.items() if core.state is SlotState.EXHAUSTED]
        if exhausted and config.connect_retry_times != before.connect_retry_times:
            self._remove(exhausted)
        wanted = max(config.connection_num, self._workers)
        while self.wanted < wanted:
            self._add_slot().start()
        # Those that serve are the last ones to go.
        serving = {number: core.state is SlotState.SERVING for number, core in self._cores.items()}
        self._remove(sorted(serving, key=lambda number: (not serving[number], number))[wanted:])

    def _remove(self, numbers: list[int]) -> None:
        """Let slots go, each when nothing is under way on its connection any more."""
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

    def _make_endpoint(self) -> Any:
        plan = self._plan
        # The name that the certificate must be good for is the one that was configured.
        tls = None if plan.client_tls is None else plan.client_tls(self.target.server)
        timeout = plan.config.connect_timeout_duration
        return make_endpoint(plan.reactor, self.target.address, timeout, tls)

    def _backoff(self) -> Backoff:
        config = self._plan.config
        # Whoever says how long waits may be means all of them.
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
        """How many there should be: as many as are configured, and as the server has workers for streams."""
        return len(self._cores)

    @property
    def leaves(self) -> bool:
        """Whether the server has said that it is about to end, and takes nothing any more."""
        return bool(self._close_limits) and not self.serving

    @property
    def next_dial(self) -> float | None:
        """In how many seconds the next attempt to connect begins; L{None} if none waits for that."""
        now = self._plan.reactor.seconds()
        waits = [core.timer.getTime() - now for core in self._cores.values() if core.timer is not None]
        return max(0.0, min(waits)) if waits else None

    def _attempt_ended(self, result: str, reason: str) -> None:
        self.dials[result] = self.dials.get(result, 0) + 1
        if reason:
            self.last_error = (wall_time(), reason[:MAX_REASON])

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
        """Its connections, also those that have been replaced and finish what is under way."""
        links = {core.link for core in self._cores.values()} | self._close_limits
        return [link for link in links if isinstance(link, AgentLink)]

    @property
    def doing(self) -> list[str]:
        """What is under way on its connections, in a word or two for each of it."""
        return [each for link in self.links for each in link.doing]

    # dialling

    def start(self) -> None:
        """Dial all connections, as soon as it is their turn, and keep them."""
        for slot in self._slots.values():
            slot.start()

    def _dial(self) -> Deferred[SlotLink]:
        plan = self._plan
        config = plan.config
        streams = plan.streams

        def connect(credential: str, turn: DialTurn) -> Deferred[IProtocol]:
            def make() -> AgentLink:
                link = AgentLink(
                    partial(plan.make_init, credential),
                    plan.sink,
                    plan.reactor,
                    config.connect_timeout_duration,
                    self._secure,
                    config.dead_peer_timeout,
                    streams,
                    plan.service,
                    plan.marks,
                )
                link.hosted = self._hosted
                link.greeted = turn.end
                link.leaving = self._close_limits.add
                link.parted = self._parted
                link.may_leave = self._may_leave
                return link

            connecting: Deferred[IProtocol] = self._endpoint.connect(CallableFactory(make))
            return connecting

        def dial(turn: DialTurn) -> Deferred[Any]:
            dialling: Deferred[Any] = plan.fetch_credential().addCallback(connect, turn)
            add_lenient_timeout(dialling, config.connect_timeout_duration, plan.reactor, too_late)
            return dialling.addErrback(failed, turn)

        def failed(reason: Failure, turn: DialTurn) -> Failure:
            turn.end()
            return reason

        def take(_: object = None) -> Deferred[Any]:
            return self._turns.take().addCallback(dial)

        if plan.service is None or not plan.raw or self._streams:
            return take()
        waiting: Deferred[Any] = plan.service.until_well()
        return waiting.addCallback(take)

    def _parted(self, link: AgentLink) -> None:
        """A link is lost that may have been replaced."""
        if link not in self._close_limits:
            return
        self._close_limits.discard(link)
        if not self._close_limits:
            for number, core in self._cores.items():
                core.come_back(self._slots[number])

    def _hosted(self, link: AgentLink) -> None:
        """A link serves."""
        self._streams = link.session is not None
        self._workers = link.workers
        if self.wanted < link.workers and self._draining is None and not self._stopped:
            # One at a time: the server puts it to a worker that has none, and the next one elsewhere.
            self._add_slot().start()
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

    def _may_leave(self) -> bool:
        """Whether one more link may finish what it has begun while another one takes its place."""
        return len(self._close_limits) < self.wanted

    # ending

    def drain(self, seconds: float) -> Deferred[None]:
        """
        Tell the server, let requests under way finish, and close.

        @param seconds: the longest time this may take.
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
        self._turns.close()
        links = await self._end_slots(list(self._slots.values()), list(self._cores.values()), seconds)
        links += self._close_limits
        if links:
            log.info(
                "agent of cluster {cluster}: draining {connections} to {server}, at most {seconds:g} s",
                cluster=self._plan.config.cluster,
                connections=counted(len(links), "connection"),
                count=len(links),
                server=self.name,
                seconds=seconds,
            )
        leaving = AgentLeaving(self._plan, self._endpoint, self.name, links, lambda: self._stopped)
        await leaving.run(seconds)
        self._stop_slots()

    async def _leave(
        self, slots: Sequence[ConnectionSlot], cores: Sequence[SlotCore], seconds: float
    ) -> None:
        """Let some slots go."""
        links = await self._end_slots(slots, cores, seconds)
        leaving = AgentLeaving(self._plan, self._endpoint, self.name, links, lambda: self._stopped)
        await leaving.run(seconds)

    async def _end_slots(
        self, slots: Sequence[ConnectionSlot], cores: Sequence[SlotCore], seconds: float
    ) -> list[AgentLink]:
        """
        Dial no more for some slots.

        Answers of the server that are on their way are waited for, but not for long: it uses a
        connection as soon as it has answered, so that one that is closed before the answer is read
        may take a request along, which can't be sent again if it is a POST.

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
        """Close every connection, and dial no more."""
        self._stopped = True
        self._stop_slots()
        if self._draining is not None:
            self._draining.cancel()

    def _stop_slots(self) -> None:
        self._turns.close()
        for slot in [*self._slots.values(), *(slot for slots in self._let_go.values() for slot in slots)]:
            slot.stop()
        for link in list(self._close_limits):
            link.close()
