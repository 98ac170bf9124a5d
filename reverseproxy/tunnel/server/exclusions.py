"""
Agents that an operator keeps out for a time: pure, given the time.

Whom that is about is the strongest thing that is known of them: the name that
their credential belongs to, or their certificate, or else their address.

What is kept out may not join.  Who has joined before stays, unless it is the very
agent that it was done to (L{Exclusion.agents}): whoever has that one lets go of it.
"""

from __future__ import annotations

__all__ = [
    "KINDS",
    "LONGEST",
    "LONGEST_ABSENCE",
    "MOST",
    "MOST_IDS",
    "Exclusion",
    "Exclusions",
    "Lifted",
    "Target",
    "id_of",
    "target_of",
]

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from math import inf
from secrets import token_hex
from typing import Any, Final

from twisted.logger import Logger

from reverseproxy.identity import AgentIdentity
from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.tunnel.handshake import Accepted, Hangup, Refusal
from reverseproxy.wire.mosn.frames import Status

log = Logger()

MOST: Final = 1000
"""How many there may be at once; and of how many that were lifted it is remembered."""

MOST_IDS: Final = 64
"""How many decisions about the same target, and agents that they were about, are kept: the last ones."""

LONGEST: Final = 30 * 24 * 3600.0
"""Seconds for which an agent can be kept out at the most."""

LONGEST_ABSENCE: Final = 60.0
"""Seconds after which an agent that is kept out is to ask again, as the operator may think better of it."""

Target = tuple[str, ...]
"""Whom it is about: a kind, and what that kind goes by."""

KINDS: Final[Mapping[str, int]] = {"process": 2, "token": 3, "certificate": 2, "address": 2}
"""The kinds of targets, and how many parts they have."""


def target_of(identity: AgentIdentity, ip: str, process: bool = False) -> Target:
    """
    Say by what an agent is known.

    @param ip: the address that it comes from.
    @param process: only this process of it, if that can be told: started anew,
        it is another one.
    """
    if process and identity.agent_id:
        return "process", identity.agent_id
    if identity.name:
        return "token", identity.policy, identity.name
    if identity.certificate is not None:
        return "certificate", identity.certificate.key
    return "address", ip


def id_of(target: Iterable[str]) -> str:
    """Name a target for operators: the same at all servers, 16 hexadecimal digits."""
    return sha256(json.dumps(list(target)).encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Exclusion:
    """
    Somebody who is kept out.

    @ivar target: who.
    @ivar until: until when.
    @ivar reason: why, for the log and for whoever asks: C{banned by} or C{drained by} somebody.
    @ivar ids: what operators have decided, as the whole fleet calls it: the same at all servers, and
        another one for each time; the last L{MOST_IDS}, the newest one last.
    @ivar agents: the agents that it was done to, by their ids in the admin API, as far as they are known;
        as many, the newest one last.
    """

    target: Target
    until: float
    reason: str
    ids: tuple[str, ...]
    agents: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """What operators call it."""
        return id_of(self.target)

    @property
    def who(self) -> str:
        """Who has decided."""
        return self.reason.partition(" by ")[2] or self.reason

    @property
    def at_once(self) -> bool:
        """Whether what the agents have under way is cut off; one that is drained finishes that."""
        return not self.reason.startswith("drained")

    def to_json(self, now: float) -> dict[str, Any]:
        """All of it as JSON, for another process, which may have another clock."""
        return {
            "keep_out": list(self.target),
            "seconds": self.until - now,
            "ids": list(self.ids),
            "agents": list(self.agents),
            "why": self.reason,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], now: float) -> Exclusion:
        """Take back what L{to_json} gave."""
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
    What was lifted.

    @ivar ids: see L{Exclusion}.
    @ivar until: until when it would have counted, so that it has to be remembered.
    """

    ids: tuple[str, ...]
    until: float

    def to_json(self, now: float) -> dict[str, Any]:
        """All of it as JSON; see L{Exclusion.to_json}."""
        return {"let_in": list(self.ids), "seconds": max(0.0, self.until - now)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], now: float) -> Lifted:
        """Take back what L{to_json} gave."""
        return cls(tuple(value["let_in"]), now + value["seconds"])


def _joined(known: Iterable[str], more: Iterable[str]) -> tuple[str, ...]:
    """Put newer ones behind what is known already, and keep the last L{MOST_IDS}."""
    return tuple(dict.fromkeys((*known, *more)))[-MOST_IDS:]


class Exclusions:
    """
    Who may not join, until when, and why.

    @ivar on_excluded: called with what somebody here has decided, which other servers have to hear.
    @ivar on_lifted: called with what somebody here has lifted, likewise.
    @ivar on_new: called with what counts here from now on, whoever has decided it.
    @ivar on_change: called with what is new in this process, and whether it was decided here: the other
        processes of this server have to know.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        """
        @param seconds: tells the time.
        """
        self.on_excluded: Callable[[Exclusion], object] = lambda exclusion: None
        self.on_lifted: Callable[[Lifted], object] = lambda lifted: None
        self.on_new: Callable[[Exclusion], object] = lambda exclusion: None
        self.on_change: Callable[[Exclusion | Lifted, bool], object] = lambda change, decided: None
        self.seconds = seconds
        self._found: dict[Target, Exclusion] = {}
        self._lifted: dict[str, float] = {}  # until when what has been lifted would have counted
        self._complained = False
        self._earliest = inf  # when the first of both is over

    def __len__(self) -> int:
        self._forget()
        return len(self._found)

    def __iter__(self) -> Iterator[Exclusion]:
        """All that count now."""
        self._forget()
        return iter(list(self._found.values()))

    @property
    def lifted(self) -> list[Lifted]:
        """What has been lifted, and would count still: who has not heard of it must not bring it back."""
        self._forget()
        known = list(self._lifted.items())
        portions = [known[start : start + MOST_IDS] for start in range(0, len(known), MOST_IDS)]
        return [
            Lifted(tuple(each for each, _ in portion), max(until for _, until in portion))
            for portion in portions
        ]

    def get(self, target: Target) -> Exclusion | None:
        """Find out whether, and until when, somebody is kept out."""
        self._forget()
        return self._found.get(target)

    # what is decided here

    def exclude(
        self, target: Target, seconds: float, reason: str, exclusion_id: str = "", agent: str = ""
    ) -> None:
        """
        Keep somebody out from now on; what was decided about the same target before counts no more.

        @param reason: for the log, and for whoever asks.
        @param exclusion_id: see L{Exclusion.ids}; empty for a new one.  What is known already, or was lifted,
            changes nothing.
        @param agent: see L{Exclusion.agents}.
        @raise ValueError: if there are too many already.
        """
        exclusion_id = exclusion_id or token_hex(8)
        known = self.get(target)
        if exclusion_id in self._lifted or (known is not None and exclusion_id in known.ids):
            return
        agents = (agent,) if agent else ()
        fresh = Exclusion(target, self.seconds() + seconds, reason, (exclusion_id,), agents)
        found = self._put(fresh, known)
        self.on_excluded(found)
        self.on_change(found, True)
        self.on_new(found)

    def lift(self, target: Target) -> bool:
        """
        Let somebody in again.

        @return: whether they were kept out.
        """
        found = self.get(target)
        if found is None:
            return False
        del self._found[target]
        lifted = Lifted(found.ids, found.until)
        self._note_lifted(lifted)
        self.on_lifted(lifted)
        self.on_change(lifted, True)
        return True

    def lift_agent(self, agent: str) -> bool:
        """
        Let an agent in again, by its id in the admin API.

        @return: whether it was kept out.
        """
        found = [each for each in self if agent and agent in each.agents]
        for each in found:
            self.lift(each.target)
        return bool(found)

    # what others have decided

    def heard(self, exclusion: Exclusion) -> bool:
        """
        Another server keeps somebody out.

        @return: whether that is new, and counts here from now on.
        @raise ValueError: if there are too many already.
        """
        found = self._merge(exclusion)
        if found is None:
            return False
        self.on_change(found, False)
        self.on_new(found)
        return True

    def heard_lifted(self, lifted: Lifted) -> list[Exclusion]:
        """
        Another server has lifted something.

        @return: what has ended here by that.
        """
        fresh, ended = self._let_in(lifted)
        if fresh:
            self.on_change(lifted, False)
        return ended

    def take(self, change: Exclusion | Lifted, decided: bool) -> bool:
        """
        Another process of this server has decided something, or has heard it.

        @param decided: whether it was decided there: then other servers have to hear it from here, too.
        @return: whether that is new.
        @raise ValueError: if there are too many already.
        """
        if isinstance(change, Lifted):
            fresh, _ = self._let_in(change)
            if fresh and decided:
                self.on_lifted(change)
            return fresh
        found = self._merge(change)
        if found is None:
            return False
        if decided:
            self.on_excluded(found)
        self.on_new(found)
        return True

    def _merge(self, exclusion: Exclusion) -> Exclusion | None:
        """
        Add what somebody else has decided to what is known.

        @return: what counts from now on; L{None} if nothing of it is new.
        """
        known = self.get(exclusion.target)
        ids = tuple(each for each in exclusion.ids if each not in self._lifted)
        if not ids or exclusion.until <= self.seconds():
            return None
        if known is not None:
            if set(ids) <= set(known.ids):
                return None
            if known.until > exclusion.until and not set(ids) >= set(known.ids):
                # Whoever says that has not heard of ours: the longer one counts.
                exclusion = replace(exclusion, until=known.until, reason=known.reason)
        return self._put(replace(exclusion, ids=ids), known)

    def _let_in(self, lifted: Lifted) -> tuple[bool, list[Exclusion]]:
        """
        Take away what was lifted, and nothing that was decided besides.

        @return: whether anything of that is new, and what has ended by it.
        """
        self._forget()
        gone = set(lifted.ids)
        fresh = not gone <= self._lifted.keys()
        ended = []
        until = lifted.until
        for each in list(self._found.values()):
            left = tuple(one for one in each.ids if one not in gone)
            if len(left) == len(each.ids):
                continue
            until = max(until, each.until)
            if left:
                self._found[each.target] = replace(each, ids=left)
            else:
                del self._found[each.target]
                ended.append(each)
        self._note_lifted(replace(lifted, until=until))
        return fresh, ended

    # what is kept

    def _put(self, exclusion: Exclusion, known: Exclusion | None) -> Exclusion:
        if known is not None:
            ids, agents = _joined(known.ids, exclusion.ids), _joined(known.agents, exclusion.agents)
            exclusion = replace(exclusion, ids=ids, agents=agents)
        elif len(self._found) >= MOST:
            raise ValueError(f"{MOST} agents are kept out already")
        self._found[exclusion.target] = exclusion
        self._earliest = min(self._earliest, exclusion.until)
        return exclusion

    def _note_lifted(self, lifted: Lifted) -> None:
        if lifted.until <= self.seconds():
            return
        for each in lifted.ids:
            self._lifted[each] = max(lifted.until, self._lifted.pop(each, 0.0))
        self._earliest = min(self._earliest, lifted.until)
        dropped = len(self._lifted) - MOST
        for oldest in list(self._lifted)[: max(0, dropped)]:
            del self._lifted[oldest]
        if dropped > 0 and not self._complained:
            self._complained = True
            log.warn(
                "more than {most} agents were let in again before their time: of the first of them that is"
                " forgotten, so that servers that have not heard of it keep them out",
                most=MOST,
            )

    def _forget(self) -> None:
        """Drop what is over, if anything is."""
        now = self.seconds()
        if now < self._earliest:
            return
        self._found = {target: each for target, each in self._found.items() if each.until > now}
        self._lifted = {each: until for each, until in self._lifted.items() if until > now}
        untils = (*(each.until for each in self._found.values()), *self._lifted.values())
        self._earliest = min(untils, default=inf)

    # asking

    def find(self, identity: AgentIdentity, ip: str) -> tuple[float, str] | None:
        """
        Look whether somebody is kept out.

        @return: for how many seconds still, and why; L{None} if not.
        """
        if not self._found:
            return None
        targets = (
            target_of(identity, ip, process=True),
            target_of(identity, ip),
            ("certificate", "" if identity.certificate is None else identity.certificate.key),
            ("address", ip),
        )
        now = self.seconds()
        for target in targets:
            found = self._found.get(target)
            if found is not None and found.until > now:
                return found.until - now, found.reason
        return None

    def refuse(self, accepted: Accepted, info: ConnectionInfo) -> Refusal | Hangup | None:
        """
        Refuse an agent that is kept out.

        One of ours is told when to come back, in L{LONGEST_ABSENCE} at the latest; one of MOSN's
        is cut off.

        @param accepted: what its handshake has come to otherwise.
        @return: L{None} for an agent that is not kept out.
        """
        found = self.find(accepted.identify(info), info.remote_ip)
        if found is None:
            return None
        seconds, why = found
        reason = f"{why}; it is kept out for {seconds:.0f} s more"
        if accepted.announcement is None:
            return Hangup(reason, "banned")
        return Refusal(Status.UNKNOWN, reason, min(seconds, LONGEST_ABSENCE), cause="banned")
