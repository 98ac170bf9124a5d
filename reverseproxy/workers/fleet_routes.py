"""
Messages between the supervisor and the first worker about routes that agents bring, in a fleet.

The first worker writes into the fleet's directory for all workers.  So it decides whether the
fleet grants a claim, and reports claims that were granted at other servers.

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
    """The first worker, as far as it is used here."""

    @property
    def ready(self) -> bool:
        """Whether it accepts connections."""

    def send(self, message: Message) -> None:
        """Send it a message."""


class FleetRoutes:
    """Sends messages to the first worker, if the server belongs to a fleet."""

    def __init__(self, workers: Sequence[IFirstWorker], wanted: bool) -> None:
        """
        @param workers: all of them, by number.
        @param wanted: whether the server belongs to a fleet.
        """
        self.wanted = wanted
        self._workers = workers

    def ask(self, serial: int, claim: Mapping[str, Any]) -> str:
        """
        Ask the fleet to grant a claim.

        @param claim: the message of the worker that would grant it.
        @return: why it can't be asked; empty if it is.
        """
        first = self._workers[0]
        if not first.ready:
            return "the worker that knows the fleet is not there"
        names = ("listener", "cluster", "owner", "shown", "domains", "ports", "identity")
        first.send(
            {"do": "fleet_ask", "serial": serial, **{name: claim.get(name) for name in names}},
        )
        return ""

    def withdraw(self, cluster: str, serial: int) -> None:
        """
        Return a grant to the fleet, as the claim could not be made.

        @param serial: of the question; later grants stay.
        """
        self._workers[0].send({"do": "fleet_withdraw", "cluster": cluster, "serial": serial})

    def count(self, facts: Mapping[str, Any], held: int, grace: float) -> None:
        """Report how many connections hold a claim that all workers have."""
        if self.wanted:
            which = {name: facts[name] for name in ("listener", "cluster")}
            self._workers[0].send({"do": "fleet_count", **which, "held": held, "grace": grace})

    def adopt(self, claims: Iterable[tuple[Mapping[str, Any], int, float]]) -> None:
        """
        Send all claims to a first worker that has been started.

        @param claims: each with how many connections hold it, and its grace time.
        """
        if self.wanted:
            described = [{**facts, "held": held, "grace": grace} for facts, held, grace in claims]
            self._workers[0].send({"do": "fleet_adopt", "claims": described})

    def brought(self, message: Mapping[str, Any], problem: str) -> None:
        """Report whether a claim of another server could be made here."""
        which = {name: message[name] for name in ("listener", "cluster")}
        self._workers[0].send({"do": "fleet_brought", **which, "problem": problem})
