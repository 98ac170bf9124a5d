"""
Keep the claims of agents in the supervisor: which workers have each, which connections hold it, and its end.

A claim is pending first, while L{reverseproxy.workers.route_arbiter} decides on it.  Connections
may hold it even then, at a worker that has its routes before others do.
"""

from __future__ import annotations

__all__ = ["SHORTEST_GRACE", "IWorkerSlot", "RouteClaim", "RouteClaims"]

import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from reverseproxy.config.models import ListenerConfig
from reverseproxy.listener.sockets import ListenerFailed, open_sockets
from reverseproxy.process.inherited_sockets import ListenerSockets, name_of_port
from reverseproxy.workers.handover import send_sockets
from reverseproxy.workers.messages import Message

SHORTEST_GRACE: Final = 1.0
"""The least seconds that a claim outlives its last connection, which may be moving between workers."""


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
class RouteClaim:
    """
    A claim that all workers have, or that is being decided.

    @ivar serial: its number.
    @ivar facts: its data, for messages to workers.
    @ivar grace: seconds that it outlives its last connection, as configured.
    @ivar granted: whether it has been decided, and not ended.
    @ivar sockets: the sockets of its port, one for each worker; empty without a port.
    @ivar sent_to: the numbers of workers that it was sent to.
    @ivar holders: how many connections hold it, by worker.
    @ivar expiry: the timer of its end, while no connection holds it.
    """

    serial: int
    facts: dict[str, Any]
    grace: float
    granted: bool = False
    sockets: list[socket.socket] = field(default_factory=list)
    sent_to: set[int] = field(default_factory=set)
    holders: Counter[int] = field(default_factory=Counter)
    expiry: IDelayedCall | None = None

    @property
    def key(self) -> tuple[str, str]:
        """The listener and the cluster."""
        return self.facts["listener"], self.facts["cluster"]

    @property
    def held(self) -> int:
        """How many connections hold it, at all workers together."""
        return self.holders.total()

    @property
    def effective_grace(self) -> float:
        """Seconds that it outlives its last connection; long enough for one to move between workers."""
        return max(self.grace, SHORTEST_GRACE)

    @property
    def routes(self) -> list[str]:
        """Its domains and its port, for the log."""
        port = self.facts["port"]
        return [*self.facts["domains"], *([f"port {port}"] if port else [])]

    def bind(self, ports: Iterable[tuple[int, str]], workers: int) -> None:
        """
        Bind the first port that is available, if there are any.

        The sockets belong to the supervisor, so that they outlive workers.

        @param ports: each with its address.
        @raise ListenerFailed: if none is available.
        """
        problem: ListenerFailed | None = None
        for port, address in ports:
            config = ListenerConfig(name=name_of_port(port), address=address, bind_port=True)
            try:
                self.sockets = open_sockets(config, workers)
            except ListenerFailed as error:
                problem = error
            else:
                self.facts |= {"port": port, "address": address}
                return
        if problem is not None:
            raise problem

    def duplicate_sockets(self) -> ListenerSockets:
        """Return duplicates of the sockets of its port."""
        duplicates = tuple(each.dup() for each in self.sockets)
        return ListenerSockets(name_of_port(self.facts["port"]), self.facts["address"], duplicates)

    def send_to(self, worker: IWorkerSlot, again: bool = False) -> None:
        """
        Send it to a worker, after the sockets of its port.

        @param again: whether it has been granted before.
        @raise OSError: if the worker does not get the sockets.
        """
        self.sent_to.add(worker.number)
        if self.sockets:
            if worker.handover is None:
                raise OSError("it has no channel for sockets")
            send_sockets(worker.handover, self.sockets)
        facts = {"serial": self.serial, **self.facts}
        worker.send({"do": "bring", **facts, "again": again, "descriptors": len(self.sockets)})

    def withdraw(self, workers: Sequence[IWorkerSlot]) -> None:
        """Have the workers that it was sent to remove its routes, and close its sockets."""
        listener, cluster = self.key
        for each in workers:
            if each.number in self.sent_to:
                each.send(
                    {"do": "take_away", "serial": self.serial, "listener": listener, "cluster": cluster}
                )
        self.close()

    def close(self) -> None:
        """Close its sockets, and cancel its timer."""
        self.stop_expiry()
        for each in self.sockets:
            each.close()
        self.sockets.clear()

    def stop_expiry(self) -> None:
        """Cancel the timer of its end."""
        if self.expiry is not None and self.expiry.active():
            self.expiry.cancel()
        self.expiry = None


class RouteClaims:
    """
    All claims of the server.

    Its length is the number of granted ones, and iteration is over a copy of those.
    """

    def __init__(self, clock: IReactorTime, on_expired: Callable[[RouteClaim], object] | None) -> None:
        """
        @param on_expired: called with a claim that no connection has held for its grace time, after it
            was removed; L{None} if claims do not expire here, as connections to other servers may hold them.
        """
        self._clock = clock
        self._on_expired = on_expired
        self._granted: dict[tuple[str, str], RouteClaim] = {}
        self._by_serial: dict[int, RouteClaim] = {}
        self._serials = count(1)

    def __len__(self) -> int:
        return len(self._granted)

    def __iter__(self) -> Iterator[RouteClaim]:
        return iter(list(self._granted.values()))

    def find(self, listener: str, cluster: str) -> RouteClaim | None:
        """Return the granted claim to a cluster; L{None} if there is none."""
        return self._granted.get((listener, cluster))

    def add(self, message: Mapping[str, Any]) -> RouteClaim:
        """
        Add a pending claim, which has no port yet.

        @param message: of the worker that asks for it.
        """
        facts = {name: message[name] for name in ("listener", "cluster", "owner", "shown", "domains")}
        facts |= {"port": None, "address": "", "identity": message.get("identity")}
        claim = RouteClaim(next(self._serials), facts, message["grace"])
        self._by_serial[claim.serial] = claim
        return claim

    def grant(self, claim: RouteClaim) -> None:
        """Make a pending claim a granted one; it expires if no connection holds it."""
        claim.granted = True
        self._granted[claim.key] = claim
        self._schedule_expiry(claim)

    def remove(self, claim: RouteClaim) -> None:
        """Remove a pending or granted claim."""
        claim.stop_expiry()
        del self._by_serial[claim.serial]
        if claim.granted:
            claim.granted = False
            del self._granted[claim.key]

    def count(self, serial: int, worker: int, change: int, grace: float) -> RouteClaim | None:
        """
        Count a connection that holds a claim, or no longer does.

        @param worker: the number of its worker.
        @param change: 1 or -1.
        @param grace: as the worker is configured now.
        @return: the claim; L{None} if it has ended.
        """
        claim = self._by_serial.get(serial)
        if claim is not None:
            claim.grace = grace
            claim.holders[worker] += change
            self._schedule_expiry(claim)
        return claim

    def forget_worker(self, number: int) -> None:
        """Forget the connections of a worker that has ended, and what it was sent."""
        for claim in list(self._by_serial.values()):
            claim.sent_to.discard(number)
            del claim.holders[number]
            self._schedule_expiry(claim)

    def to_json(self) -> list[dict[str, Any]]:
        """Return the granted claims, for the process that takes over."""
        return [{**claim.facts, "grace": claim.grace} for claim in self]

    def close(self) -> None:
        """Close the sockets of all claims, and forget them."""
        for claim in self._by_serial.values():
            claim.close()
        self._by_serial.clear()
        self._granted.clear()

    def _schedule_expiry(self, claim: RouteClaim) -> None:
        """Start or cancel the timer of a claim's end."""
        if not claim.granted or self._on_expired is None:
            return
        if claim.held > 0:
            claim.stop_expiry()
        elif claim.expiry is None:
            claim.expiry = self._clock.callLater(claim.effective_grace, self._expire, claim)

    def _expire(self, claim: RouteClaim) -> None:
        assert self._on_expired is not None
        claim.expiry = None
        self.remove(claim)
        self._on_expired(claim)
