"""
Routes that agents bring to a server of a fleet that has workers: what the supervisor says to the first one.

The first worker writes into the directory for all of them, so that it is the one to say
whether the fleet lets an agent have its routes, and which routes agents have brought to
other servers.

    supervisor                                      first worker
    {"do": "fleet_ask", "serial": 3, ...}           whether the fleet grants a claim
                                                    {"is": "fleet_decided", "serial": 3, "port": 2222}
                                                    or with a "problem"
    {"do": "fleet_withdraw", "serial": 3, ...}      it could not be made after all
    {"do": "fleet_count", "cluster": ..., "held": 2}    all workers have it; how many connections hold it
    {"do": "fleet_adopt", "claims": [...]}          to one that is started: what there is
                                                    {"is": "fleet_bring", ...}   of another server
    {"do": "fleet_brought", "cluster": ...}         it is made, or there is a "problem"
                                                    {"is": "fleet_take_away", "listener", "cluster"}

A claim that is granted stays so until one of C{fleet_withdraw} and C{fleet_count} follows.
"""

from __future__ import annotations

__all__ = ["FleetRoutes"]

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from reverseproxy.workers.messages import Message


class IFirstWorker(Protocol):
    """A worker's place; see L{reverseproxy.workers.route_desk.Place}."""

    @property
    def ready(self) -> bool:
        """Whether it accepts connections."""

    def send(self, message: Message) -> None:
        """Tell it something."""


class FleetRoutes:
    """Speaks to the first worker, as far as there is a fleet."""

    def __init__(self, places: Sequence[IFirstWorker], wanted: bool) -> None:
        """
        @param places: those of all workers.
        @param wanted: whether the server belongs to a fleet.
        """
        self.wanted = wanted
        self._places = places

    def ask(self, serial: int, claim: Mapping[str, Any]) -> str:
        """
        Ask whether a claim may be had.

        @param claim: what the worker has said that would grant it.
        @return: why nobody can be asked; empty if somebody is.
        """
        first = self._places[0]
        if not first.ready:
            return "the worker that knows the fleet is not there"
        names = ("listener", "cluster", "owner", "shown", "domains", "ports", "identity")
        first.send(
            {"do": "fleet_ask", "serial": serial, **{name: claim.get(name) for name in names}},
        )
        return ""

    def withdraw(self, cluster: str, serial: int) -> None:
        """
        What the fleet has granted can't be had.

        @param serial: of the question; what a later one was granted stays.
        """
        self._places[0].send({"do": "fleet_withdraw", "cluster": cluster, "serial": serial})

    def count(self, facts: Mapping[str, Any], held: int, grace: float) -> None:
        """Say how many connections hold a claim that all workers have."""
        if self.wanted:
            which = {name: facts[name] for name in ("listener", "cluster")}
            self._places[0].send({"do": "fleet_count", **which, "held": held, "grace": grace})

    def adopt(self, claims: Iterable[tuple[Mapping[str, Any], int, float]]) -> None:
        """
        Tell a first worker that is new what there is.

        @param claims: each with how many connections hold it, and its grace time.
        """
        if self.wanted:
            told = [{**facts, "held": held, "grace": grace} for facts, held, grace in claims]
            self._places[0].send({"do": "fleet_adopt", "claims": told})

    def brought(self, message: Mapping[str, Any], problem: str) -> None:
        """Say what has come of routes of another server."""
        told = {name: message[name] for name in ("listener", "cluster")}
        self._places[0].send({"do": "fleet_brought", **told, "problem": problem})
