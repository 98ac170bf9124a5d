"""
Exclusions of agents, and decisions that were lifted, as processes and servers exchange them; pure.

An exclusion targets the strongest property of an agent that is known: the name of its credential, its
certificate, or else its IP address.
"""

from __future__ import annotations

__all__ = ["KINDS", "LONGEST", "MOST_IDS", "Exclusion", "Lifted", "Target", "id_of", "target_of"]

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from reverseproxy.identity import AgentIdentity

MOST_IDS: Final = 64
"""Decisions about the same target, and agents that they named, that are kept: the last ones."""

LONGEST: Final = 30 * 24 * 3600.0
"""Seconds for which an agent can be excluded, at most."""

Target = tuple[str, ...]
"""A kind, and the values that identify a target of that kind."""

KINDS: Final[Mapping[str, int]] = {"process": 2, "token": 3, "certificate": 2, "address": 2}
"""The kinds of targets, and how many parts a target of each has, the kind included."""


def target_of(identity: AgentIdentity, ip: str, process: bool = False) -> Target:
    """
    Return the target for an agent.

    @param ip: its IP address.
    @param process: whether to target this process of the agent only, if it has an id: after a restart it
        has another one.
    """
    if process and identity.agent_id:
        return "process", identity.agent_id
    if identity.name:
        return "token", identity.policy, identity.name
    if identity.certificate is not None:
        return "certificate", identity.certificate.key
    return "address", ip


def id_of(target: Iterable[str]) -> str:
    """Return the id of a target for operators: 16 hexadecimal digits, the same at all servers."""
    return sha256(json.dumps(list(target)).encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Exclusion:
    """
    An exclusion.

    @ivar target: whom it concerns.
    @ivar until: when it ends.
    @ivar reason: for logs and the admin API: C{banned by} or C{drained by} an operator.
    @ivar ids: the ids of the operators' decisions, each unique in the fleet; the last L{MOST_IDS}, the
        newest last.
    @ivar agents: the ids, in the admin API, of the agents that were chosen; as many, the newest last.
    """

    target: Target
    until: float
    reason: str
    ids: tuple[str, ...]
    agents: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Its id for operators."""
        return id_of(self.target)

    @property
    def who(self) -> str:
        """The operator who has decided it."""
        return self.reason.partition(" by ")[2] or self.reason

    @property
    def at_once(self) -> bool:
        """Whether requests of its agents are cut off; those of a drained agent are finished."""
        return not self.reason.startswith("drained")

    def to_json(self, now: float) -> dict[str, Any]:
        """Return it as JSON for another process, whose clock may differ."""
        return {
            "keep_out": list(self.target),
            "seconds": self.until - now,
            "ids": list(self.ids),
            "agents": list(self.agents),
            "why": self.reason,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], now: float) -> Exclusion:
        """Restore what L{to_json} has returned."""
        return cls(
            tuple(value["keep_out"]),
            now + value["seconds"],
            value["why"],
            tuple(value["ids"]),
            tuple(value["agents"]),
        )


@dataclass(frozen=True, slots=True)
class Lifted:
    """
    Decisions that were lifted.

    @ivar ids: see L{Exclusion}.
    @ivar until: when they would have ended, and can be forgotten.
    """

    ids: tuple[str, ...]
    until: float

    def to_json(self, now: float) -> dict[str, Any]:
        """Return it as JSON; see L{Exclusion.to_json}."""
        return {"let_in": list(self.ids), "seconds": max(0.0, self.until - now)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], now: float) -> Lifted:
        """Restore what L{to_json} has returned."""
        return cls(tuple(value["let_in"]), now + value["seconds"])
