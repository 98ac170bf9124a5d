"""
Decide on routes that agents bring, for all workers: the supervisor's part, one claim at a time.

A worker that would grant a claim asks the supervisor.  If the cluster has no claim yet, all
workers make its routes, and the agent is accepted when the last of them has done so: no
client ever meets a worker without the routes.  If one worker can't make them, as they are
taken, all of them remove them again.  The supervisor binds the ports, so that they outlive
workers.

    worker                                supervisor
    {"is": "claim", "number": 7, ...}
                                          {"do": "bring", "serial": 3, ...}      to all of them
    {"is": "brought", "serial": 3}        from each
                                          {"do": "claimed", "number": 7}         or with a "problem"
    {"is": "held", "serial": 3, "change": 1, "grace": 30.0}
                                          {"do": "take_away", "serial": 3, ...}  to all of them

A restarted worker gets all claims before it accepts connections.

In a fleet, the first worker decides first, and also when claims end; see
L{reverseproxy.workers.fleet_routes}.
"""

from __future__ import annotations

__all__ = ["RouteDesk"]

import socket
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from reverseproxy.config.models import ListenerConfig
from reverseproxy.errors import ReverseProxyError
from reverseproxy.listener.sockets import ListenerFailed, open_sockets
from reverseproxy.process.inherited_sockets import ListenerSockets, name_of_port
from reverseproxy.wire.mosn.frames import Status
from reverseproxy.workers.fleet_routes import FleetRoutes
from reverseproxy.workers.handover import send_sockets
from reverseproxy.workers.messages import Message

log = Logger()

TURN_TIMEOUT: Final = 8.0
"""Seconds that workers have to make the routes of a claim; a hanging worker is killed before that."""

SHORTEST_GRACE: Final = 1.0
"""The least seconds that a claim outlives its last connection, which may be moving between workers."""

MOST_WAITING: Final = 10_000
"""Claims that may be queued."""


class IWorkerSlot(Protocol):
    """
    The slot of a worker.

    @ivar number: from 0.
    @ivar control: the channel to the worker; a new one for each process.
    @ivar handover: carries sockets to it.
    """

    number: int
    control: Any
    handover: socket.socket | None

    @property
    def ready(self) -> bool:
        """Whether it accepts connections."""

    def send(self, message: Message) -> None:
        """Send the worker a message."""


@dataclass(eq=False, slots=True)
class _Brought:
    """
    A claim that all workers have, or are about to have.

    @ivar serial: its number.
    @ivar facts: its data, for messages to workers.
    @ivar sockets: the sockets of its port, one for each worker; empty without a port.
    @ivar grace: seconds that it outlives its last connection.
    @ivar told: the numbers of workers that have got it.
    @ivar holders: how many connections hold it, by worker.
    @ivar ending: the timer of its end, while no connection holds it.
    """

    serial: int
    facts: dict[str, Any]
    grace: float
    sockets: list[socket.socket] = field(default_factory=list)
    told: set[int] = field(default_factory=set)
    holders: Counter[int] = field(default_factory=Counter)
    ending: IDelayedCall | None = None

    @property
    def key(self) -> tuple[str, str]:
        """The listener and the cluster."""
        return self.facts["listener"], self.facts["cluster"]

    @property
    def shortest_grace(self) -> float:
        """Seconds that it outlives its last connection; long enough for one to move between workers."""
        return max(self.grace, SHORTEST_GRACE)

    def close(self) -> None:
        """Close its sockets, and cancel its timer."""
        _cancel(self.ending)
        self.ending = None
        for each in self.sockets:
            each.close()
        self.sockets.clear()


@dataclass(eq=False, slots=True)
class _Turn:
    """
    The claim that is being decided.

    @ivar place: the worker that has asked.
    @ivar control: its channel at that time.
    @ivar number: the number of its question.
    @ivar brought: the claim.
    @ivar message: the question.
    @ivar asking: whether the fleet is being asked; no route has been made then.
    @ivar granted: whether the fleet has granted it.
    @ivar awaited: whether the asking worker waits for an answer.
    @ivar waiting: the numbers of workers that have not answered.
    @ivar problem: the first status and reason against it.
    @ivar timer: the deadline.
    """

    place: IWorkerSlot
    control: Any
    number: int
    brought: _Brought
    message: Message
    asking: bool = False
    granted: bool = False
    awaited: bool = True
    waiting: set[int] = field(default_factory=set)
    problem: tuple[int, str] | None = None
    timer: IDelayedCall | None = None


class RouteDesk:
    """Decides on claims, and keeps the granted ones."""

    def __init__(self, places: Sequence[IWorkerSlot], clock: IReactorTime, fleet: bool = False) -> None:
        """
        @param places: the slots of all workers.
        @param fleet: whether the server belongs to a fleet.
        """
        self._fleet = FleetRoutes(places, fleet)
        self._places = places
        self._clock = clock
        self._claims: dict[tuple[str, str], _Brought] = {}
        self._by_serial: dict[int, _Brought] = {}
        self._serials = count(1)
        self._waiting: deque[tuple[IWorkerSlot, Any, Message]] = deque()
        self._turn: _Turn | None = None
        self._stopped = False

    def __len__(self) -> int:
        return len(self._claims)

    def bequeath(self) -> Iterator[ListenerSockets]:
        """Return duplicates of the sockets for the process that takes over."""
        for brought in self._claims.values():
            if brought.sockets:
                name = name_of_port(brought.facts["port"])
                yield ListenerSockets(
                    name, brought.facts["address"], tuple(each.dup() for each in brought.sockets)
                )

    @property
    def claims(self) -> list[dict[str, Any]]:
        """The claims, for L{inherit} in the process that takes over."""
        return [{**brought.facts, "grace": brought.grace} for brought in self._claims.values()]

    def inherit(self, claims: Iterable[Mapping[str, Any]]) -> None:
        """
        Restore the claims of the process that this one takes over, until agents reconnect.

        Call it before any worker is started, so that each gets them before it accepts connections.
        """
        for claim in claims:
            facts = {name: claim[name] for name in ("listener", "cluster", "owner", "shown", "domains")}
            facts |= {"port": None, "address": "", "identity": claim.get("identity")}
            brought = _Brought(next(self._serials), facts, claim["grace"])
            try:
                if claim["port"] is not None:
                    self._open(brought, [(claim["port"], claim["address"])])
            except ReverseProxyError as error:
                log.warn(
                    "the routes of cluster {cluster} are not handed on: {reason}",
                    cluster=claim["cluster"],
                    reason=str(error),
                )
                continue
            self._claims[brought.key] = brought
            self._by_serial[brought.serial] = brought
            self._look(brought)

    def stop(self) -> None:
        """Drop all claims, and close their sockets."""
        self._stopped = True
        turn, self._turn = self._turn, None
        if turn is not None:
            _cancel(turn.timer)
            turn.brought.close()
        self._waiting.clear()
        for brought in self._claims.values():
            brought.close()
        self._claims.clear()
        self._by_serial.clear()

    # messages of workers

    def received(self, place: IWorkerSlot, message: Message) -> None:
        """Handle a message of a worker."""
        match message["is"]:
            case "claim":
                self.claim(place, message)
            case "brought":
                self.brought(place, message)
            case "held":
                self.held(place, message)
            case "fleet_decided":
                self._decided(message)
            case "fleet_bring":
                self._waiting.append((place, place.control, {**message, "number": 0}))
                self._next()
            case "fleet_take_away":
                self._fleet_takes_away((message["listener"], message["cluster"]))

    def _decided(self, message: Message) -> None:
        """Handle the fleet's decision on a claim."""
        turn = self._turn
        problem = message.get("problem", "")
        if turn is None or not turn.asking or turn.brought.serial != message["serial"]:
            if not problem:
                self._granted_late(message)
            return
        turn.asking = False
        if problem:
            turn.problem = message["status"], problem
            self._finish(turn)
            return
        turn.granted = True
        asked, port = turn.message["ports"], message["port"]
        ports = [each for each in asked if each[0] == port]
        if ports or (not asked and port is None):
            self._make(turn, ports)
        else:
            turn.problem = Status.ROUTE_TAKEN.value, "the fleet has granted another port than was asked for"
            self._finish(turn)

    def _granted_late(self, message: Message) -> None:
        """Handle a grant of the fleet that is too late."""
        brought = self._claims.get((message["listener"], message["cluster"]))
        if brought is None:
            self._fleet.withdraw(message["cluster"], message["serial"])
        else:
            self._count(brought)  # all workers have it meanwhile, as it was brought to another server

    def _fleet_takes_away(self, key: tuple[str, str]) -> None:
        """Remove a claim that no agent holds any more, or cancel its decision."""
        brought = self._claims.get(key)
        if brought is not None:
            self._expire(brought)
        self._waiting = deque(
            (place, control, each)
            for place, control, each in self._waiting
            if each["is"] != "fleet_bring" or (each["listener"], each["cluster"]) != key
        )
        turn = self._turn
        if turn is not None and not turn.asking and turn.brought.key == key:
            turn.problem = Status.ROUTE_TAKEN.value, "its routes have just been taken away"
            turn.awaited = turn.message["is"] == "claim"
            self._finish(turn)

    def claim(self, place: IWorkerSlot, message: Message) -> None:
        """Queue a claim that a worker would grant."""
        if self._stopped or len(self._waiting) >= MOST_WAITING:
            problem = "the server stops" if self._stopped else "too many agents bring routes at once"
            self._answer(place, message, (Status.ROUTE_TAKEN.value, problem))
            return
        self._waiting.append((place, place.control, message))
        self._next()

    def brought(self, place: IWorkerSlot, message: Message) -> None:
        """Record whether a worker has made the routes of a claim."""
        problem = message.get("problem", "")
        turn = self._turn
        if turn is None or message["serial"] != turn.brought.serial:
            if problem:
                log.error(
                    "worker {number} does not take up what an agent has brought: {reason}",
                    number=place.number + 1,
                    reason=problem,
                )
            return
        if problem and turn.problem is None:
            turn.problem = message["status"], problem
        self._done(turn, place.number)

    def held(self, place: IWorkerSlot, message: Message) -> None:
        """Record that a worker has one connection more or less that holds a claim."""
        brought = self._by_serial.get(message["serial"])
        if brought is None:
            return
        brought.grace = message["grace"]
        brought.holders[place.number] += message["change"]
        if self._claims.get(brought.key) is brought:
            self._count(brought)
        self._look(brought)

    # workers that start and end

    def started(self, place: IWorkerSlot) -> None:
        """Send the first worker all claims when it starts, before it reports to the fleet."""
        if place.number == 0:
            self._fleet.adopt(
                (each.facts, each.holders.total(), each.shortest_grace) for each in self._claims.values()
            )

    def ready(self, place: IWorkerSlot) -> None:
        """Send a worker all claims that it does not have, before it accepts connections."""
        for brought in self._claims.values():
            if place.number not in brought.told:
                self._tell(place, brought, again=True)

    def gone(self, place: IWorkerSlot) -> None:
        """Forget the connections of a worker that has ended."""
        for brought in list(self._claims.values()):
            brought.told.discard(place.number)
            del brought.holders[place.number]
            if place.number:
                self._count(brought)
            self._look(brought)
        turn = self._turn
        if turn is None:
            return
        turn.brought.told.discard(place.number)
        if self._fleet.wanted and place.number == 0:
            # The next one would not know what this one has granted.
            turn.problem = Status.ROUTE_TAKEN.value, "the worker that knows the fleet has ended"
            turn.granted = False
            self._finish(turn)
        elif not turn.asking:
            self._done(turn, place.number)

    # one claim after the other

    def _next(self) -> None:
        while self._turn is None and self._waiting:
            place, control, message = self._waiting.popleft()
            if place.control is control:
                self._begin(place, message)

    def _begin(self, place: IWorkerSlot, message: Message) -> None:
        number = message["number"]
        if (message["listener"], message["cluster"]) in self._claims:
            self._answer(place, message, None)  # the worker knows the claim meanwhile, and judges itself
            return
        facts = {name: message[name] for name in ("listener", "cluster", "owner", "shown", "domains")} | {
            "port": None,
            "address": "",
            "identity": message.get("identity"),
        }
        brought = _Brought(next(self._serials), facts, message["grace"])
        turn = self._turn = _Turn(place, place.control, number, brought, message)
        self._by_serial[brought.serial] = brought  # connections may hold it before all workers have it
        turn.timer = self._clock.callLater(TURN_TIMEOUT, self._late, turn)
        if not self._fleet.wanted or message["is"] == "fleet_bring":
            self._make(turn, message["ports"])
        elif problem := self._fleet.ask(brought.serial, message):
            turn.problem = Status.ROUTE_TAKEN.value, problem
            self._finish(turn)
        else:
            turn.asking = True

    def _make(self, turn: _Turn, ports: Sequence[tuple[int, str]]) -> None:
        """Let all workers make the routes of a claim."""
        brought = turn.brought
        try:
            self._open(brought, ports)
        except ReverseProxyError as error:
            turn.problem = Status.ROUTE_TAKEN.value, str(error)
            self._finish(turn)
            return
        turn.waiting = {each.number for each in self._places if each.ready}
        for each in self._places:
            if each.ready:
                self._tell(each, brought)
        if self._turn is turn and not turn.waiting:
            self._finish(turn)

    def _open(self, brought: _Brought, ports: Sequence[tuple[int, str]]) -> None:
        """
        Bind the first port that is available.

        @raise ListenerFailed: if none is.
        """
        problem: ListenerFailed | None = None
        for port, address in ports:
            config = ListenerConfig(name=name_of_port(port), address=address, bind_port=True)
            try:
                brought.sockets = open_sockets(config, len(self._places))
            except ListenerFailed as error:
                problem = error
            else:
                brought.facts |= {"port": port, "address": address}
                return
        if problem is not None:
            raise problem

    def _tell(self, place: IWorkerSlot, brought: _Brought, again: bool = False) -> None:
        brought.told.add(place.number)
        message = {
            "do": "bring",
            "serial": brought.serial,
            **brought.facts,
            "again": again,
            "descriptors": len(brought.sockets),
        }
        try:
            if brought.sockets:
                if place.handover is None:
                    raise OSError("it has no channel for sockets")
                send_sockets(place.handover, brought.sockets)
        except OSError as error:
            self.brought(
                place,
                {
                    "serial": brought.serial,
                    "status": Status.ROUTE_TAKEN.value,
                    "problem": f"a worker can't be given its port: {error}",
                },
            )
        else:
            place.send(message)

    def _done(self, turn: _Turn, number: int) -> None:
        turn.waiting.discard(number)
        if not turn.waiting and self._turn is turn:
            self._finish(turn)

    def _late(self, turn: _Turn) -> None:
        turn.timer = None
        turn.problem = turn.problem or (
            Status.ROUTE_TAKEN.value,
            "the fleet has not answered" if turn.asking else "not all workers of the server have answered",
        )
        self._finish(turn)

    def _finish(self, turn: _Turn) -> None:
        """Finish the decision: accept the claim, or remove it."""
        self._turn = None
        _cancel(turn.timer)
        brought = turn.brought
        if turn.problem is not None:
            del self._by_serial[brought.serial]
            self._take_away(brought)
            if turn.granted:
                self._fleet.withdraw(brought.facts["cluster"], brought.serial)
        else:
            self._claims[brought.key] = brought
            self._count(brought)
            routes = [
                *brought.facts["domains"],
                *(f"port {each}" for each in [brought.facts["port"]] if each),
            ]
            log.info(
                "{owner} has brought the cluster {cluster} with {routes}",
                owner=brought.facts["shown"],
                cluster=brought.facts["cluster"],
                routes=", ".join(routes),
            )
            for each in self._places:
                if each.ready and each.number not in brought.told:
                    self._tell(each, brought, again=True)
            self._look(brought)
        if turn.awaited and turn.place.control is turn.control:
            self._answer(turn.place, turn.message, turn.problem)
        self._next()

    def _answer(self, place: IWorkerSlot, asked: Message, problem: tuple[int, str] | None) -> None:
        if asked["is"] == "fleet_bring":
            self._fleet.brought(asked, "" if problem is None else problem[1])
            return
        message: dict[str, Any] = {"do": "claimed", "number": asked["number"]}
        if problem is not None:
            message |= {"status": problem[0], "problem": problem[1]}
        place.send(message)

    # ending

    def _count(self, brought: _Brought) -> None:
        self._fleet.count(brought.facts, brought.holders.total(), brought.shortest_grace)

    def _look(self, brought: _Brought) -> None:
        """Start or cancel the timer of a claim's end."""
        if self._claims.get(brought.key) is not brought or self._fleet.wanted:
            return  # in a fleet, others may hold it: the first worker says when it ends
        if brought.holders.total() > 0:
            _cancel(brought.ending)
            brought.ending = None
        elif brought.ending is None:
            brought.ending = self._clock.callLater(brought.shortest_grace, self._expire, brought)

    def _expire(self, brought: _Brought) -> None:
        brought.ending = None
        del self._claims[brought.key], self._by_serial[brought.serial]
        log.info(
            "the cluster {cluster} is gone with its routes: no connection of its agent has come back",
            cluster=brought.facts["cluster"],
        )
        self._take_away(brought)

    def _take_away(self, brought: _Brought) -> None:
        listener, cluster = brought.key
        for each in self._places:
            if each.number in brought.told:
                each.send(
                    {"do": "take_away", "serial": brought.serial, "listener": listener, "cluster": cluster}
                )
        brought.close()


def _cancel(call: IDelayedCall | None) -> None:
    if call is not None and call.active():
        call.cancel()
