"""What callers of the admin API have changed: a line of the log and an entry for each change."""

from __future__ import annotations

__all__ = ["Audit"]

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from twisted.logger import Logger

from reverseproxy.admin.access import Caller
from reverseproxy.admin.passing import MOST_AUDITED, unite_audits
from reverseproxy.clock import wall_time

# The name by which readers of the log know these lines.
log = Logger(namespace="reverseproxy.admin.api")


class Audit:
    """The last changes, a bounded number of them."""

    def __init__(self) -> None:
        self._entries: deque[dict[str, Any]] = deque(maxlen=MOST_AUDITED)

    def note(self, caller: Caller, what: str, told: str) -> None:
        """
        Record a change of something that is no agent.

        @param told: what has come of it, for people.
        """
        log.info("audit: {caller}: {what}: {told}", caller=caller.name, what=what, told=told)
        self._add(caller, what, {}, told)

    def note_configuration(self, caller: Caller, what: str, told: str) -> None:
        """Record a change of the configuration; see L{note}."""
        log.info("audit: {caller}: {what} of configuration: {told}", caller=caller.name, what=what, told=told)
        self._add(caller, f"{what} the configuration", {}, told)

    def note_agent(
        self, caller: Caller, what: str, agent: Mapping[str, Any], told: str, **facts: Any
    ) -> None:
        """
        Record what was done to an agent.

        @param agent: has its C{id}, C{identity} and C{targets}, by which it can be kept out.
        @param told: what has come of it, for people.
        @param facts: the same for programs.
        """
        log.info(
            "audit: {caller}: {what} agent {agent} ({identity}): {told}",
            caller=caller.name,
            what=what,
            agent=agent["id"],
            identity=agent["identity"],
            told=told,
            **facts,
        )
        self._add(caller, what, agent, told, **facts)

    def _add(self, caller: Caller, what: str, agent: Mapping[str, Any], told: str, **facts: Any) -> None:
        self._entries.append(
            {
                "time": wall_time(),
                "caller": caller.name,
                "what": what,
                "agent": agent.get("id"),
                "identity": agent.get("identity", ""),
                "targets": agent.get("targets", {}),
                "told": told,
                **facts,
            }
        )

    def targets_of(self, key: str) -> list[Mapping[str, Any]]:
        """Return by what an agent could be kept out whenever something was done to it."""
        return [entry["targets"] for entry in self._entries if entry["agent"] == key and entry["targets"]]

    def identity_of(self, key: str) -> str:
        """Return the identity that an agent had when something was done to it; empty if nothing was."""
        return next((str(entry["identity"]) for entry in self._entries if entry["agent"] == key), "")

    def united(self, heard: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """
        Return all entries, the latest first.

        @param heard: entries of processes, of what other servers of the fleet have decided.
        """
        return sorted(unite_audits(self._entries, heard), key=lambda entry: -entry["time"])
