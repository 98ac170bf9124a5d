"""The audit of changes through the admin API: a log line and an entry for each."""

from __future__ import annotations

__all__ = ["Audit"]

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from twisted.logger import Logger

from reverseproxy.admin.access import Caller
from reverseproxy.admin.orders import MOST_AUDITED, merge_audits
from reverseproxy.clock import wall_time

# Operators filter the log for this namespace, whichever module writes the lines.
log = Logger(namespace="reverseproxy.admin.api")


class Audit:
    """The latest changes, at most L{MOST_AUDITED} of them."""

    def __init__(self) -> None:
        self._entries: deque[dict[str, Any]] = deque(maxlen=MOST_AUDITED)

    def note(self, caller: Caller, what: str, told: str) -> None:
        """
        Record a change that does not concern an agent.

        @param what: the kind of change.
        @param told: its result, for people.
        """
        log.info("audit: {caller}: {what}: {told}", caller=caller.name, what=what, told=told)
        self._add(caller, what, {}, told)

    def note_refused(self, caller: str, told: str, suppressed: int) -> None:
        """
        Log a change that was refused.

        It is no entry, so that callers without the role for changes can't displace those that were made.

        @param caller: the caller's name, or its address.
        @param told: the request, and why it was refused.
        @param suppressed: how many such lines were left out before this one.
        """
        log.warn(
            "audit: {caller}: refused: {told}{suppressed}", caller=caller, told=told, suppressed=suppressed
        )

    def note_configuration(self, caller: Caller, what: str, told: str) -> None:
        """Record a change of the configuration; see L{note}."""
        log.info("audit: {caller}: {what} of configuration: {told}", caller=caller.name, what=what, told=told)
        self._add(caller, f"{what} the configuration", {}, told)

    def note_agent(
        self, caller: Caller, what: str, agent: Mapping[str, Any], told: str, **facts: Any
    ) -> None:
        """
        Record an operator's action on an agent.

        @param agent: its C{id}, C{identity} and C{targets}, by which it can be banned.
        @param told: the result, for people.
        @param facts: the result, for programs.
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
        """Return the targets of bans that an agent had at the time of each action on it."""
        return [entry["targets"] for entry in self._entries if entry["agent"] == key and entry["targets"]]

    def identity_of(self, key: str) -> str:
        """Return an agent's identity at the time of the first action on it; empty if there is none."""
        return next((str(entry["identity"]) for entry in self._entries if entry["agent"] == key), "")

    def entries(self, heard: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """
        Return all entries, the latest first.

        @param heard: the entries of all processes about actions that other servers of the fleet ordered.
        """
        return sorted(merge_audits(self._entries, heard), key=lambda entry: -entry["time"])
