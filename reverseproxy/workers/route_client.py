"""A worker's part in routes that agents bring; see L{reverseproxy.workers.route_arbiter}."""

from __future__ import annotations

__all__ = ["RouteArbiterClient"]

import socket
from collections.abc import Callable, Iterable, Mapping
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from reverseproxy.errors import WireError
from reverseproxy.listener.shared_port import SharedPort
from reverseproxy.tunnel.server.agent_routes import AgentRoutes
from reverseproxy.tunnel.server.claims import Claim, Denied
from reverseproxy.tunnel.server.route_interfaces import Wanted
from reverseproxy.wire.mosn.frames import Status
from reverseproxy.workers.handover import receive_sockets
from reverseproxy.workers.messages import Message

if TYPE_CHECKING:
    from reverseproxy.tunnel.server.filter import TunnelServer

log = Logger()

ARBITER_TIMEOUT: Final = 12.0
"""Seconds for the supervisor's decision."""


class RouteArbiterClient:
    """
    Asks the supervisor for claims, and makes the routes of all granted ones.

    See L{IRouteArbiter<reverseproxy.tunnel.server.route_interfaces.IRouteArbiter>}.

    @ivar servers: this worker's tunnel servers, by listener.
    """

    def __init__(
        self,
        send: Callable[[Message], object],
        number: int,
        workers: int,
        handover: socket.socket | None,
        reactor: Any,
    ) -> None:
        """
        @param send: sends the supervisor a message.
        @param number: this worker's number, from 0.
        @param workers: how many workers there are.
        @param handover: carries sockets from the supervisor.
        """
        self.servers: Mapping[str, TunnelServer] = {}
        self._send = send
        self._number = number
        self._workers = workers
        self._handover = handover
        self._reactor = reactor
        self._numbers = count(1)
        self._asked: dict[int, Deferred[Denied | None]] = {}
        self._ports: dict[int, SharedPort] = {}  # by the serial of the claim
        self._watched: Iterable[int] = (number,)

    # IRouteArbiter

    def ask(self, listener: str, wanted: Wanted) -> Deferred[Denied | None]:
        """See L{IRouteArbiter.ask<reverseproxy.tunnel.server.route_interfaces.IRouteArbiter.ask>}."""
        number = next(self._numbers)
        answer: Deferred[Denied | None] = Deferred()
        self._asked[number] = answer
        claim = wanted.claim
        self._send(
            {
                "is": "claim",
                "number": number,
                "listener": listener,
                "cluster": claim.cluster,
                "owner": claim.owner,
                "shown": wanted.shown,
                "domains": list(claim.domains),
                "ports": [list(each) for each in wanted.ports],
                "grace": self._routes_of(listener).claims.rules.grace,
                "identity": None if wanted.identity is None else wanted.identity.to_json(),
            }
        )
        answer.addTimeout(ARBITER_TIMEOUT, self._reactor, self._late)
        return answer.addBoth(self._forget, number)

    def _late(self, result: object, seconds: float) -> Denied:
        return Denied(Status.ROUTE_TAKEN, "the server has not decided in time")

    def _forget(self, result: Any, number: int) -> Any:
        self._asked.pop(number, None)
        return result

    def count(self, claim: Claim, change: int, grace: float) -> None:
        """See L{IRouteArbiter.count<reverseproxy.tunnel.server.route_interfaces.IRouteArbiter.count>}."""
        self._send({"is": "held", "serial": claim.serial, "change": change, "grace": grace})

    def _routes_of(self, listener: str) -> AgentRoutes:
        """
        Return the routes of a listener.

        @raise KeyError: if the listener has none.
        """
        server = self.servers.get(listener)
        if server is None or server.routes is None:
            raise KeyError(listener)
        return server.routes

    # messages of the supervisor

    def received(self, message: Message) -> None:
        """Handle a message."""
        match message["do"]:
            case "claimed":
                self.claimed(message)
            case "bring":
                self.bring(message)
            case "take_away":
                self.take_away(message)

    def claimed(self, message: Message) -> None:
        """Deliver a decision."""
        answer = self._asked.pop(message["number"], None)
        if answer is not None:
            problem = message.get("problem", "")
            answer.callback(Denied(Status(message["status"]), problem) if problem else None)

    def bring(self, message: Message) -> None:
        """Make the routes of a claim, and report whether that worked."""
        denied = self._bring(message)
        answer: dict[str, Any] = {"is": "brought", "serial": message["serial"]}
        if denied is not None:
            answer |= {"status": denied.status.value, "problem": denied.reason}
        self._send(answer)

    def _bring(self, message: Message) -> Denied | None:
        sockets: list[socket.socket] = []
        if message["descriptors"]:
            assert self._handover is not None
            try:
                sockets = receive_sockets(self._handover, message["descriptors"])
            except WireError as error:
                return Denied(Status.ROUTE_TAKEN, str(error))
        port = SharedPort(sockets, self._number, self._reactor, self._workers) if sockets else None
        claim = Claim(
            message["cluster"],
            message["owner"],
            tuple(message["domains"]),
            message["port"],
            serial=message["serial"],
        )
        try:
            routes = self._routes_of(message["listener"])
        except KeyError:
            denied: Denied | None = Denied(Status.ROUTE_TAKEN, "agents may bring no routes here just now")
        else:
            denied = routes.bring(
                claim, message["shown"], None if port is None else port.listen, message["again"]
            )
        if port is not None:
            if denied is None:
                self._ports[claim.serial] = port
                port.watch(self._watched)
            else:
                port.stopListening()
        return denied

    def take_away(self, message: Message) -> None:
        """Remove the routes of a claim that has ended, or that another worker could not make."""
        self._ports.pop(message["serial"], None)
        server = self.servers.get(message["listener"])
        if server is not None and server.routes is not None:
            server.routes.take_away(message["cluster"], message["serial"])

    def watch(self, numbers: Iterable[int]) -> None:
        """Accept from the sockets of certain workers only."""
        self._watched = numbers
        for port in self._ports.values():
            port.watch(numbers)

    def stop_accepting(self) -> None:
        """Accept no more connections."""
        for port in self._ports.values():
            port.stopListening()
