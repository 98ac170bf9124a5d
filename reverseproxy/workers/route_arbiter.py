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
L{reverseproxy.workers.fleet_routes}.  The worker's part is in L{reverseproxy.workers.route_client}.
"""

from __future__ import annotations

__all__ = ["DECISION_TIMEOUT", "MOST_WAITING", "WorkerRouteArbiter"]

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from reverseproxy.errors import ReverseProxyError
from reverseproxy.process.inherited_sockets import ListenerSockets
from reverseproxy.wire.mosn.frames import Status
from reverseproxy.workers.fleet_routes import FleetRoutes
from reverseproxy.workers.messages import Message
from reverseproxy.workers.route_claims import IWorkerSlot, RouteClaim, RouteClaims

log = Logger()

DECISION_TIMEOUT: Final = 8.0
"""Seconds that workers have to make the routes of a claim; a hanging worker is killed before that."""

MOST_WAITING: Final = 10_000
"""Claims that may be queued."""


@dataclass(eq=False, slots=True)
class _PendingDecision:
    """
    The claim that is being decided.

    @ivar worker: the slot of the worker that has asked.
    @ivar control: its channel at that time.
    @ivar message: the question.
    @ivar claim: the claim.
    @ivar asks_fleet: whether the fleet is being asked; no route has been made then.
    @ivar fleet_granted: whether the fleet has granted it.
    @ivar is_awaited: whether the asking worker waits for an answer.
    @ivar unanswered: the numbers of workers that have not answered.
    @ivar problem: the first status and reason against it.
    @ivar deadline: the timer of L{DECISION_TIMEOUT}.
    """

    worker: IWorkerSlot
    control: Any
    message: Message
    claim: RouteClaim
    asks_fleet: bool = False
    fleet_granted: bool = False
    is_awaited: bool = True
    unanswered: set[int] = field(default_factory=set)
    problem: tuple[int, str] | None = None
    deadline: IDelayedCall | None = None


class WorkerRouteArbiter:
    """
    Decides on the claims that workers ask for, one after the other.

    Its length is the number of claims that have been granted.
    """

    def __init__(self, workers: Sequence[IWorkerSlot], clock: IReactorTime, fleet: bool = False) -> None:
        """
        @param workers: the slots of all workers.
        @param fleet: whether the server belongs to a fleet.
        """
        self._fleet = FleetRoutes(workers, fleet)
        self._workers = workers
        self._clock = clock
        self._claims = RouteClaims(clock, None if fleet else self._end)
        self._queue: deque[tuple[IWorkerSlot, Any, Message]] = deque()
        self._pending: _PendingDecision | None = None
        self._stopped = False

    def __len__(self) -> int:
        return len(self._claims)

    # the process that takes over

    def bequeath(self) -> Iterator[ListenerSockets]:
        """Return duplicates of the sockets for the process that takes over."""
        return (claim.duplicate_sockets() for claim in self._claims if claim.sockets)

    @property
    def claims(self) -> list[dict[str, Any]]:
        """The claims, for L{inherit} in the process that takes over."""
        return self._claims.to_json()

    def inherit(self, claims: Iterable[Mapping[str, Any]]) -> None:
        """
        Restore the claims of the process that this one takes over, until agents reconnect.

        Call it before any worker is started, so that each gets them before it accepts connections.
        """
        for message in claims:
            claim = self._claims.add(message)
            try:
                if message["port"] is not None:
                    claim.bind([(message["port"], message["address"])], len(self._workers))
            except ReverseProxyError as error:
                log.warn(
                    "the routes of cluster {cluster} are not handed on: {reason}",
                    cluster=message["cluster"],
                    reason=str(error),
                )
                self._claims.remove(claim)
            else:
                self._claims.grant(claim)

    def stop(self) -> None:
        """Drop all claims, and close their sockets."""
        self._stopped = True
        decision, self._pending = self._pending, None
        if decision is not None:
            _cancel(decision.deadline)
        self._queue.clear()
        self._claims.close()

    # messages of workers

    def received(self, worker: IWorkerSlot, message: Message) -> None:
        """Handle a message of a worker."""
        match message["is"]:
            case "claim":
                self._asked(worker, message)
            case "brought":
                self._answered(worker, message)
            case "held":
                self._held(worker, message)
            case "fleet_decided":
                self._fleet_decided(message)
            case "fleet_bring":
                self._queue.append((worker, worker.control, {**message, "number": 0}))
                self._decide_next()
            case "fleet_take_away":
                self._fleet_ends(message["listener"], message["cluster"])

    def _asked(self, worker: IWorkerSlot, message: Message) -> None:
        """Queue a claim that a worker would grant."""
        if self._stopped or len(self._queue) >= MOST_WAITING:
            problem = "the server stops" if self._stopped else "too many agents bring routes at once"
            self._answer(worker, message, (Status.ROUTE_TAKEN.value, problem))
            return
        self._queue.append((worker, worker.control, message))
        self._decide_next()

    def _answered(self, worker: IWorkerSlot, message: Message) -> None:
        """Record whether a worker has made the routes of a claim."""
        problem = message.get("problem", "")
        decision = self._pending
        if decision is None or message["serial"] != decision.claim.serial:
            if problem:
                log.error(
                    "worker {number} does not take up what an agent has brought: {reason}",
                    number=worker.number + 1,
                    reason=problem,
                )
            return
        if problem and decision.problem is None:
            decision.problem = message["status"], problem
        self._await_no_longer(decision, worker.number)

    def _held(self, worker: IWorkerSlot, message: Message) -> None:
        """Record that a worker has one connection more or less that holds a claim."""
        claim = self._claims.count(message["serial"], worker.number, message["change"], message["grace"])
        if claim is not None and claim.granted:
            self._report(claim)

    # messages of the first worker, about the fleet

    def _fleet_decided(self, message: Message) -> None:
        """Handle the fleet's decision on a claim."""
        decision = self._pending
        problem = message.get("problem", "")
        if decision is None or not decision.asks_fleet or decision.claim.serial != message["serial"]:
            if not problem:
                self._fleet_granted_late(message)
            return
        decision.asks_fleet = False
        if problem:
            self._deny(decision, problem, message["status"])
            return
        decision.fleet_granted = True
        requested, port = decision.message["ports"], message["port"]
        ports = [each for each in requested if each[0] == port]
        if ports or (not requested and port is None):
            self._make_routes(decision, ports)
        else:
            self._deny(decision, "the fleet has granted another port than was asked for")

    def _fleet_granted_late(self, message: Message) -> None:
        """Handle a grant of the fleet that is too late."""
        claim = self._claims.find(message["listener"], message["cluster"])
        if claim is None:
            self._fleet.withdraw(message["cluster"], message["serial"])
        else:
            self._report(claim)  # all workers have it meanwhile, as it was brought to another server

    def _fleet_ends(self, listener: str, cluster: str) -> None:
        """Remove a claim that no agent holds any more, or cancel its decision."""
        claim = self._claims.find(listener, cluster)
        if claim is not None:
            self._claims.remove(claim)
            self._end(claim)
        self._queue = deque(
            (worker, control, each)
            for worker, control, each in self._queue
            if each["is"] != "fleet_bring" or (each["listener"], each["cluster"]) != (listener, cluster)
        )
        decision = self._pending
        if decision is not None and not decision.asks_fleet and decision.claim.key == (listener, cluster):
            decision.is_awaited = decision.message["is"] == "claim"
            self._deny(decision, "its routes have just been taken away")

    # workers that start and end

    def started(self, worker: IWorkerSlot) -> None:
        """Send the first worker all claims when it starts, before it reports to the fleet."""
        if worker.number == 0:
            self._fleet.adopt((each.facts, each.held, each.effective_grace) for each in self._claims)

    def ready(self, worker: IWorkerSlot) -> None:
        """Send a worker all claims that it does not have, before it accepts connections."""
        for claim in self._claims:
            if worker.number not in claim.sent_to:
                self._send(claim, worker, again=True)

    def gone(self, worker: IWorkerSlot) -> None:
        """Forget the connections of a worker that has ended."""
        self._claims.forget_worker(worker.number)
        if worker.number:
            for claim in self._claims:
                self._report(claim)
        decision = self._pending
        if decision is None:
            return
        if self._fleet.wanted and worker.number == 0:
            # The next one would not know what this one has granted.
            decision.fleet_granted = False
            self._deny(decision, "the worker that knows the fleet has ended")
        elif not decision.asks_fleet:
            self._await_no_longer(decision, worker.number)

    # one decision after the other

    def _decide_next(self) -> None:
        while self._pending is None and self._queue:
            worker, control, message = self._queue.popleft()
            if worker.control is control:
                self._decide(worker, message)

    def _decide(self, worker: IWorkerSlot, message: Message) -> None:
        """Begin to decide on a claim: ask the fleet, if there is one, or let workers make the routes."""
        if self._claims.find(message["listener"], message["cluster"]) is not None:
            self._answer(worker, message, None)  # the worker knows the claim meanwhile, and judges itself
            return
        claim = self._claims.add(message)
        decision = self._pending = _PendingDecision(worker, worker.control, message, claim)
        decision.deadline = self._clock.callLater(DECISION_TIMEOUT, self._late, decision)
        if not self._fleet.wanted or message["is"] == "fleet_bring":
            self._make_routes(decision, message["ports"])
        elif problem := self._fleet.ask(claim.serial, message):
            self._deny(decision, problem)
        else:
            decision.asks_fleet = True

    def _make_routes(self, decision: _PendingDecision, ports: Sequence[tuple[int, str]]) -> None:
        """Let all workers make the routes of a claim."""
        try:
            decision.claim.bind(ports, len(self._workers))
        except ReverseProxyError as error:
            self._deny(decision, str(error))
            return
        decision.unanswered = {each.number for each in self._workers if each.ready}
        for each in self._workers:
            if each.ready:
                self._send(decision.claim, each)
        if self._pending is decision and not decision.unanswered:
            self._finish(decision)

    def _send(self, claim: RouteClaim, worker: IWorkerSlot, again: bool = False) -> None:
        """Send a worker a claim; if that fails, the worker is taken to have denied it."""
        try:
            claim.send_to(worker, again)
        except OSError as error:
            problem = f"a worker can't be given its port: {error}"
            denial = {"serial": claim.serial, "status": Status.ROUTE_TAKEN.value, "problem": problem}
            self._answered(worker, denial)

    def _await_no_longer(self, decision: _PendingDecision, number: int) -> None:
        """Record that a worker has answered or ended; the last one finishes the decision."""
        decision.unanswered.discard(number)
        if not decision.unanswered and self._pending is decision:
            self._finish(decision)

    def _late(self, decision: _PendingDecision) -> None:
        silent = "the fleet has not" if decision.asks_fleet else "not all workers of the server have"
        decision.problem = decision.problem or (Status.ROUTE_TAKEN.value, f"{silent} answered")
        self._finish(decision)

    def _deny(self, decision: _PendingDecision, reason: str, status: int = Status.ROUTE_TAKEN.value) -> None:
        decision.problem = status, reason
        self._finish(decision)

    def _finish(self, decision: _PendingDecision) -> None:
        """Finish the decision: grant the claim, or remove it; and begin the next one."""
        self._pending = None
        _cancel(decision.deadline)
        claim = decision.claim
        if decision.problem is None:
            self._grant(claim)
        else:
            self._claims.remove(claim)
            claim.withdraw(self._workers)
            if decision.fleet_granted:
                self._fleet.withdraw(claim.facts["cluster"], claim.serial)
        if decision.is_awaited and decision.worker.control is decision.control:
            self._answer(decision.worker, decision.message, decision.problem)
        self._decide_next()

    def _grant(self, claim: RouteClaim) -> None:
        self._claims.grant(claim)
        self._report(claim)
        log.info(
            "{owner} has brought the cluster {cluster} with {routes}",
            owner=claim.facts["shown"],
            cluster=claim.facts["cluster"],
            routes=", ".join(claim.routes),
        )
        for each in self._workers:
            if each.ready and each.number not in claim.sent_to:
                self._send(claim, each, again=True)

    def _answer(self, worker: IWorkerSlot, question: Message, problem: tuple[int, str] | None) -> None:
        if question["is"] == "fleet_bring":
            self._fleet.brought(question, "" if problem is None else problem[1])
            return
        message: dict[str, Any] = {"do": "claimed", "number": question["number"]}
        if problem is not None:
            message |= {"status": problem[0], "problem": problem[1]}
        worker.send(message)

    def _report(self, claim: RouteClaim) -> None:
        """Report to the fleet how many connections hold a claim."""
        self._fleet.count(claim.facts, claim.held, claim.effective_grace)

    def _end(self, claim: RouteClaim) -> None:
        """Remove the routes of a claim that has ended."""
        log.info(
            "the cluster {cluster} is gone with its routes: no connection of its agent has come back",
            cluster=claim.facts["cluster"],
        )
        claim.withdraw(self._workers)


def _cancel(call: IDelayedCall | None) -> None:
    if call is not None and call.active():
        call.cancel()
