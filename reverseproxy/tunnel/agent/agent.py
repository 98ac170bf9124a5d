"""
The agent: keeps connections to every tunnel server, and drains them.

An L{Agent} is one C{tunnel_agent} entry of the configuration; it has a L{Peer}
for each address that its servers resolve to; a peer has C{connection_num}
slots (L{reverseproxy.tunnel.agent.slot}), and each slot one connection.
"""

from __future__ import annotations

__all__ = ["ADAPTABLE", "Agent", "AgentPlan", "Peer", "new_agent_id"]

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from random import Random
from secrets import token_hex
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall, IProtocol
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from reverseproxy.clock import wall_time
from reverseproxy.cluster.endpoints import CallableFactory, make_endpoint
from reverseproxy.config.models import TunnelAgentConfig
from reverseproxy.errors import ReverseProxyError
from reverseproxy.interfaces import IConnectionSink, ICredentialSource
from reverseproxy.lenient_timeouts import add_lenient_timeout
from reverseproxy.logs import Throttle, counted, how_many
from reverseproxy.tls import ClientTls
from reverseproxy.tunnel.agent.backoff import Backoff, reach_cap
from reverseproxy.tunnel.agent.choosing import Choice
from reverseproxy.tunnel.agent.dial_turns import DialTurns, Turn
from reverseproxy.tunnel.agent.discovery import Target
from reverseproxy.tunnel.agent.leaving import DRAIN_POLL, Leaving, too_late
from reverseproxy.tunnel.agent.link import AgentLink
from reverseproxy.tunnel.agent.outage import Outage
from reverseproxy.tunnel.agent.roster import Roster
from reverseproxy.tunnel.agent.service import HostedService
from reverseproxy.tunnel.agent.slot import Link, Slot, SlotCore, SlotState, make_slot
from reverseproxy.tunnel.streams import StreamSettings
from reverseproxy.wire.mosn.extensions import Announcement
from reverseproxy.wire.mosn.frames import ConnectionInit
from reverseproxy.wire.mosn.route_requests import BroughtRoutes, RouteRequest

log = Logger(__package__)

ADAPTABLE = frozenset(
    {
        "connect_retry_times",
        "connect_timeout_duration",
        "connection_num",
        "dns_refresh_duration",
        "graceful_close_max_wait_duration",
        "reconnect_base_duration",
        "reconnect_max_duration",
        "server_count",
        "server_list",
        "service_check_interval",
        "stable_duration",
    }
)
"""Keys of an agent's configuration that may change while its connections go on."""

MAX_REASON = 300
"""Characters that are kept of why an attempt to connect has failed."""

DEFICIT_INTERVAL = 60.0
"""Seconds between two warnings that connections are missing."""

GREETED_IN_TIME = 1.0
"""Seconds for which an agent that stops waits for answers to its handshakes."""

LAST_RESORT = 10.0
"""Seconds for which connections to a server that is no longer listed are kept while no other one serves."""

TOLD_RATE = 1.0
"""Lines a second, in the long run, about another connection that serves; that all do is always told."""

TOLD_BURST = 50
"""How many of these may come at once."""


@dataclass(frozen=True)
class AgentPlan:
    """
    Everything that the peers of one agent share.

    @ivar sink: the hosting listener.
    @ivar credentials: L{None} without a credential policy.
    @ivar client_tls: makes the TLS settings for the server of a given name;
        L{None} for plain TCP.
    @ivar agent_id: names this agent to servers of ours.
    @ivar service: what servers are told of; L{None} if they are told nothing.
    @ivar raw: whether the hosting listener relays bytes, so that a connection
        that carries no streams is of use only while the service can be reached.
    @ivar speaks: the protocols that the hosting listener takes; empty if it takes any.
    @ivar seed: what decides to which servers it connects, if not to all; another one for each agent.
    """

    config: TunnelAgentConfig
    sink: IConnectionSink
    reactor: Any
    random: Random
    credentials: ICredentialSource | None
    client_tls: Callable[[str], ClientTls] | None
    agent_id: str
    service: HostedService | None = None
    raw: bool = False
    speaks: tuple[str, ...] = ()
    seed: str = ""

    @property
    def marks(self) -> bool:
        """Whether what is sent on a connection without streams can begin with a mark."""
        return self.raw and self.service is not None

    def fetch_credential(self) -> Deferred[str]:
        """Ask for the credential of one dial."""
        if self.credentials is None:
            return succeed("")
        # A source may be a plug-in: one that raises has failed like one that fails later.
        return maybeDeferred(self.credentials.fetch, self.config.cluster)


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
        self._slots: dict[int, Slot] = {}
        self._let_go: dict[Deferred[None], list[Slot]] = {}  # slots that are not wanted any more
        self._parting: set[AgentLink] = set()  # finish what is under way, and have been replaced
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

    def _add_slot(self) -> Slot:
        plan = self._plan
        number = next(number for number in count() if number not in self._cores)
        config = plan.config
        core = SlotCore(
            name=f"{config.cluster} via {self.name} #{number + 1}",
            dial=self._dial,
            clock=plan.reactor,
            backoff=self._backoff(),
            max_attempts=config.connect_retry_times or -1,
            stable=config.stable_duration,
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
            core.backoff.adapt(self._backoff())
            core.max_attempts = config.connect_retry_times or -1
            core.stable = config.stable_duration
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
        return bool(self._parting) and not self.serving

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
        links = {core.link for core in self._cores.values()} | self._parting
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

    def _dial(self) -> Deferred[Link]:
        plan = self._plan
        config = plan.config
        streams = StreamSettings.of(config) if config.announce else None

        def connect(credential: str, turn: Turn) -> Deferred[IProtocol]:
            def make_init(local_address: str) -> ConnectionInit:
                extra = None
                if config.announce:
                    extra = Announcement(
                        agent=plan.agent_id,
                        local_address=local_address,
                        metadata=dict(config.metadata),
                        mux=() if streams is None else streams.offer,
                        window=0 if streams is None else streams.window,
                        tells=plan.service is not None,
                        marks=plan.marks,
                        routes=route_request(config),
                        moves=streams is not None,
                        speaks=plan.speaks,
                    ).to_extra()
                return ConnectionInit(
                    cluster_name=config.cluster,
                    weight=config.weight,
                    host_name=config.host_name,
                    credential_policy=config.credential_policy,
                    credential=credential,
                    extra=extra,
                )

            def make() -> AgentLink:
                link = AgentLink(
                    make_init,
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
                link.leaving = self._parting.add
                link.parted = self._parted
                link.may_leave = self._may_leave
                return link

            connecting: Deferred[IProtocol] = self._endpoint.connect(CallableFactory(make))
            return connecting

        def dial(turn: Turn) -> Deferred[Any]:
            dialling: Deferred[Any] = plan.fetch_credential().addCallback(connect, turn)
            add_lenient_timeout(dialling, config.connect_timeout_duration, plan.reactor, too_late)
            return dialling.addErrback(failed, turn)

        def failed(reason: Failure, turn: Turn) -> Failure:
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
        if link not in self._parting:
            return
        self._parting.discard(link)
        if not self._parting:
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
        return len(self._parting) < self.wanted

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
        links += self._parting
        if links:
            log.info(
                "agent of cluster {cluster}: draining {connections} to {server}, at most {seconds:g} s",
                cluster=self._plan.config.cluster,
                connections=counted(len(links), "connection"),
                count=len(links),
                server=self.name,
                seconds=seconds,
            )
        await Leaving(self._plan, self._endpoint, self.name, links, lambda: self._stopped).run(seconds)
        self._stop_slots()

    async def _leave(self, slots: Sequence[Slot], cores: Sequence[SlotCore], seconds: float) -> None:
        """Let some slots go."""
        links = await self._end_slots(slots, cores, seconds)
        await Leaving(self._plan, self._endpoint, self.name, links, lambda: self._stopped).run(seconds)

    async def _end_slots(
        self, slots: Sequence[Slot], cores: Sequence[SlotCore], seconds: float
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
        for link in list(self._parting):
            link.close()


def route_request(config: TunnelAgentConfig) -> RouteRequest:
    """What routes the configuration has the agent ask for."""
    return RouteRequest(config.routes.domains, config.routes.subdomains, config.routes.port)


class Agent(Service):
    """
    One C{tunnel_agent} entry.

    @ivar draining: whether it has been told to stop.
    """

    draining = False

    def __init__(self, plan: AgentPlan, watch: Callable[[Callable[[Sequence[Target]], None]], Any]) -> None:
        """
        @param watch: makes the source of targets, given where to report each
            complete list of them; it has C{start} and C{stop}.
        """
        self.plan = plan
        self._watcher = watch(self._update)
        self._peers: dict[Target, Peer] = {}
        self._leaving: dict[Peer, Deferred[None]] = {}
        self._listed: tuple[Target, ...] = ()
        self._choice = self._make_choice()
        self._look: IDelayedCall | None = None
        self._deficit_loop = LoopingCall(self._warn_of_deficit)
        self._deficit_loop.clock = plan.reactor

    @property
    def wanted(self) -> int:
        """How many connections there should be."""
        return sum(peer.wanted for peer in self._peers.values())

    @property
    def serving(self) -> int:
        """How many connections serve."""
        return sum(peer.serving for peer in self._peers.values())

    @property
    def routes(self) -> dict[str, BroughtRoutes]:
        """The routes that it was given, by server."""
        return {peer.name: peer.routes for peer in self._peers.values() if peer.routes}

    @property
    def by_server(self) -> dict[str, int]:
        """How many connections serve, by server."""
        return {peer.name: peer.serving for peer in self._peers.values()}

    @property
    def servers(self) -> list[Peer]:
        """The servers that there are now."""
        return list(self._peers.values())

    @property
    def links(self) -> Iterator[AgentLink]:
        """Its connections to all servers, also those that finish what is under way."""
        return (link for peer in [*self._peers.values(), *self._leaving] for link in peer.links)

    @property
    def doing(self) -> str:
        """What is under way on its connections, for the log: how many of what."""
        return how_many(each for link in self.links for each in link.doing)

    @property
    def unserved(self) -> list[str]:
        """The servers to which no connection serves; "any server" if there is none to dial."""
        by_server = self.by_server
        return [name for name, serving in by_server.items() if not serving] if by_server else ["any server"]

    def startService(self) -> None:
        """Find the servers and dial them."""
        Service.startService(self)
        self._watcher.start()
        self._deficit_loop.start(DEFICIT_INTERVAL, now=False)

    def _make_choice(self) -> Choice | None:
        count = self.plan.config.server_count
        return Choice(self.plan.seed or self.plan.agent_id, count) if count else None

    def adapt(self, config: TunnelAgentConfig) -> None:
        """
        Have other servers, or other settings of dialling, or another number of connections.

        Connections to servers that stay go on, as far as they are wanted.

        @param config: what is different in it are keys of L{ADAPTABLE}.
        """
        before, self.plan = self.plan.config, replace(self.plan, config=config)
        for peer in self._peers.values():
            peer.adapt(self.plan)
        if config.server_count != before.server_count:
            self._choice = self._make_choice()
            self._update(self._listed)
        self._watcher.relist(config.server_list, config.dns_refresh_duration)

    def _changed(self) -> None:
        """A slot has a new state; the gauges are computed when asked for."""
        if self._choice is not None and not self.draining:
            self._look_in(0.0)  # not now: whoever dials changes states while it does

    def _warn_of_deficit(self) -> None:
        serving, wanted = self.serving, self.wanted
        if serving < wanted:
            log.warn(
                "agent of cluster {cluster}: {deficit} of {wanted} connections are missing",
                cluster=self.plan.config.cluster,
                deficit=wanted - serving,
                wanted=wanted,
            )

    def _update(self, targets: Sequence[Target]) -> None:
        if self.draining:
            return
        self._listed = tuple(targets)
        if self._choice is not None:
            self._choice.offer(targets)
            gone = [target for target in self._peers if target not in self._listed]
            if gone:
                self.plan.reactor.callLater(LAST_RESORT, self._leave_unlisted, gone)
            self._choose()
            return
        self._leave_unlisted(list(self._peers))
        for target in targets:
            if target not in self._peers:
                self._join(target)

    def _leave_unlisted(self, targets: Sequence[Target]) -> None:
        """Leave those of some servers that are not listed."""
        if self.draining:
            return
        for target in targets:
            if target not in self._listed and target in self._peers:
                self._part_with(target, "is no longer listed")

    def _part_with(self, target: Target, why: str) -> None:
        peer = self._peers.pop(target)
        if self._choice is not None:
            self._choice.forget(target)
        log.info(
            "agent of cluster {cluster}: server {server} {why}",
            cluster=self.plan.config.cluster,
            server=peer.name,
            why=why,
        )
        self._leave(peer)

    # some servers of many

    def _look_in(self, seconds: float) -> None:
        """Choose again in some seconds, or sooner."""
        look = self._look
        if look is not None and look.active():
            if look.getTime() <= self.plan.reactor.seconds() + seconds:
                return
            look.cancel()
        self._look = self.plan.reactor.callLater(seconds, self._choose)

    def _choose(self) -> None:
        """Have the servers that there should be, and leave others as soon as they are not needed."""
        choice, clock = self._choice, self.plan.reactor
        if choice is None or self.draining:
            return
        now = clock.seconds()
        # Without a service that can be reached, no connection may be wanted.
        unwell = self.plan.service is not None and not self.plan.service.well
        for target, peer in self._peers.items():
            choice.note(target, bool(peer.serving) or (unwell and not peer.leaves), peer.leaves, now)
        chosen = choice.choose(now)
        for target in chosen:
            if target not in self._peers:
                self._join(target)
                choice.note(target, False, False, now)
        serving = sum(bool(self._peers[target].serving) for target in chosen if target in self._peers)
        if serving >= choice.wanted:
            for target in [each for each in self._peers if each not in chosen]:
                self._part_with(target, "is not needed" if target in self._listed else "is no longer listed")
        wait = choice.next_look(now)
        if wait is not None:
            self._look_in(wait)

    def _leave(self, peer: Peer) -> None:
        leaving = self._leaving[peer] = peer.drain(self.plan.config.graceful_close_max_wait_duration)
        leaving.addCallback(lambda _: self._left(peer))

    def _left(self, peer: Peer) -> None:
        del self._leaving[peer]

    def _join(self, target: Target) -> None:
        try:
            peer = Peer(self.plan, target, self._changed)
        except (ReverseProxyError, ValueError) as error:
            # The name of a server that is found at run time may be none that TLS can verify.
            log.error(
                "agent of cluster {cluster}: can't dial {server}: {reason}",
                cluster=self.plan.config.cluster,
                server=target.server,
                reason=str(error),
            )
            return
        self._peers[target] = peer
        log.info(
            "agent of cluster {cluster}: dialling {server}, {connections}",
            cluster=self.plan.config.cluster,
            server=peer.name,
            connections=counted(self.plan.config.connection_num, "connection"),
            count=self.plan.config.connection_num,
        )
        peer.start()

    def drain(self) -> Deferred[None]:
        """
        Leave every server gracefully, all at the same time.

        @return: fires when no connection is left, after
            C{graceful_close_max_wait_duration} at the latest.
        """
        self._quit()
        seconds = self.plan.config.graceful_close_max_wait_duration
        drains = [*self._leaving.values(), *(peer.drain(seconds) for peer in self._peers.values())]
        return DeferredList(drains, consumeErrors=True).addCallback(lambda _: None)

    def _quit(self) -> None:
        self.draining = True
        self._watcher.stop()
        if self._look is not None and self._look.active():
            self._look.cancel()
        if self._deficit_loop.running:
            self._deficit_loop.stop()

    def stopService(self) -> None:
        """Close everything at once."""
        Service.stopService(self)
        self._quit()
        for peer in [*self._peers.values(), *self._leaving]:
            peer.stop()


def new_agent_id() -> str:
    """Make a name that no other agent has, nor can guess."""
    return token_hex(16)
