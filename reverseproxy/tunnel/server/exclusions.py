"""
Agents that an operator excludes for a time: pure, given the time.

An excluded agent may not join. Agents that have joined before stay, except those that the exclusion
names (L{Exclusion.agents}): the server that has their connections closes these.
"""

from __future__ import annotations

__all__ = ["LONGEST_ABSENCE", "MOST", "Exclusions"]

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from math import inf
from secrets import token_hex
from typing import Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from reverseproxy.identity import AgentIdentity
from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.tunnel.handshake import Accepted, Hangup, Refusal
from reverseproxy.tunnel.server.exclusion_records import MOST_IDS, Exclusion, Lifted, Target, target_of
from reverseproxy.wire.mosn.frames import Status

log = Logger()

MOST: Final = 1000
"""Exclusions at the same time, at most; and lifted ones that are remembered."""

LONGEST_ABSENCE: Final = 60.0
"""Seconds after which an excluded agent asks again, at most, as the operator may lift the exclusion."""


def _joined(known: Iterable[str], more: Iterable[str]) -> tuple[str, ...]:
    """Append newer values, and keep the last L{MOST_IDS}."""
    return tuple(dict.fromkeys((*known, *more)))[-MOST_IDS:]


class Exclusions:
    """
    The exclusions that hold in this process.

    @ivar on_excluded: called with an exclusion that was decided at this server, for other servers.
    @ivar on_lifted: called with what was lifted at this server, for other servers.
    @ivar on_new: called with each exclusion that holds from now on, wherever it was decided.
    @ivar on_change: called with a change in this process, and whether it was decided here, for other
        processes of this server.
    @ivar until_known: waits until the exclusions of other servers are known, after which this is L{None};
        L{None} if there is nothing to wait for.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        """@param seconds: returns the time."""
        self.on_excluded: Callable[[Exclusion], object] = lambda exclusion: None
        self.on_lifted: Callable[[Lifted], object] = lambda lifted: None
        self.on_new: Callable[[Exclusion], object] = lambda exclusion: None
        self.on_change: Callable[[Exclusion | Lifted, bool], object] = lambda change, decided: None
        self.until_known: Callable[[], Deferred[None]] | None = None
        self.seconds = seconds
        self._found: dict[Target, Exclusion] = {}
        self._lifted: dict[str, float] = {}  # when lifted decisions would have ended, by id
        self._complained = False
        self._earliest = inf  # when the first of both ends

    def __len__(self) -> int:
        self._forget()
        return len(self._found)

    def __iter__(self) -> Iterator[Exclusion]:
        """All exclusions that hold now."""
        self._forget()
        return iter(list(self._found.values()))

    @property
    def lifted(self) -> list[Lifted]:
        """Lifted decisions that would still hold: other servers must not bring them back."""
        self._forget()
        known = list(self._lifted.items())
        portions = [known[start : start + MOST_IDS] for start in range(0, len(known), MOST_IDS)]
        return [
            Lifted(tuple(each for each, _ in portion), max(until for _, until in portion))
            for portion in portions
        ]

    def get(self, target: Target) -> Exclusion | None:
        """Return the exclusion of a target; L{None} if there is none."""
        self._forget()
        return self._found.get(target)

    # decisions of this process

    def exclude(
        self, target: Target, seconds: float, reason: str, exclusion_id: str = "", agent: str = ""
    ) -> None:
        """
        Exclude a target from now on; this replaces the duration and the reason of an earlier exclusion.

        @param reason: for logs and the admin API.
        @param exclusion_id: see L{Exclusion.ids}; empty for a new one. One that is known, or was lifted,
            changes nothing.
        @param agent: see L{Exclusion.agents}.
        @raise ValueError: if there are too many exclusions.
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
        Lift the exclusion of a target.

        @return: whether there was one.
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
        Lift the exclusions that name an agent, by its id in the admin API.

        @return: whether there was one.
        """
        found = [each for each in self if agent and agent in each.agents]
        for each in found:
            self.lift(each.target)
        return bool(found)

    # decisions of others

    def heard(self, exclusion: Exclusion) -> bool:
        """
        Add an exclusion of another server.

        @return: whether it is new, and holds here from now on.
        @raise ValueError: if there are too many exclusions.
        """
        found = self._merge(exclusion)
        if found is None:
            return False
        self.on_change(found, False)
        self.on_new(found)
        return True

    def heard_lifted(self, lifted: Lifted) -> list[Exclusion]:
        """
        Lift what another server has lifted.

        @return: the exclusions that have ended here.
        """
        fresh, ended = self._let_in(lifted)
        if fresh:
            self.on_change(lifted, False)
        return ended

    def take(self, change: Exclusion | Lifted, decided: bool) -> bool:
        """
        Apply a change that another process of this server has made, or received.

        @param decided: whether it was decided there, so that it is passed on to other servers from here
            as well.
        @return: whether it is new.
        @raise ValueError: if there are too many exclusions.
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
        Merge an exclusion of another process.

        @return: the exclusion that holds from now on; L{None} if nothing is new.
        """
        known = self.get(exclusion.target)
        ids = tuple(each for each in exclusion.ids if each not in self._lifted)
        if not ids or exclusion.until <= self.seconds():
            return None
        if known is not None:
            if set(ids) <= set(known.ids):
                return None
            if known.until > exclusion.until and not set(ids) >= set(known.ids):
                # The other process does not know of our decision: the longer exclusion holds.
                exclusion = replace(exclusion, until=known.until, reason=known.reason)
        return self._put(replace(exclusion, ids=ids), known)

    def _let_in(self, lifted: Lifted) -> tuple[bool, list[Exclusion]]:
        """
        Remove lifted decisions, and keep others about the same targets.

        @return: whether any of it is new, and the exclusions that have ended.
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

    # storage

    def _put(self, exclusion: Exclusion, known: Exclusion | None) -> Exclusion:
        if known is not None:
            ids, agents = _joined(known.ids, exclusion.ids), _joined(known.agents, exclusion.agents)
            exclusion = replace(exclusion, ids=ids, agents=agents)
        elif len(self._found) >= MOST:
            raise ValueError(f"there are {MOST} bans already")
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
                "more than {most} bans were lifted before their end: the first of these are forgotten, so"
                " that servers that have not heard of their lifting keep them",
                most=MOST,
            )

    def _forget(self) -> None:
        """Remove what has ended, if anything has."""
        now = self.seconds()
        if now < self._earliest:
            return
        self._found = {target: each for target, each in self._found.items() if each.until > now}
        self._lifted = {each: until for each, until in self._lifted.items() if until > now}
        untils = (*(each.until for each in self._found.values()), *self._lifted.values())
        self._earliest = min(untils, default=inf)

    # queries

    def find(self, identity: AgentIdentity, ip: str) -> tuple[float, str] | None:
        """
        Return whether an agent is excluded.

        @return: the remaining seconds, and the reason; L{None} if it is not.
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
        Return the refusal for an agent, if it is excluded.

        An agent of this project is told to come back, in L{LONGEST_ABSENCE} at the latest; the
        connection of a MOSN agent is closed.

        @param accepted: the result of the handshake otherwise.
        @return: L{None} if it is not excluded.
        """
        found = self.find(accepted.identify(info), info.remote_ip)
        if found is None:
            return None
        seconds, why = found
        reason = f"{why}; the ban ends in {seconds:.0f} s"
        if accepted.announcement is None:
            return Hangup(reason, "banned")
        return Refusal(Status.UNKNOWN, reason, min(seconds, LONGEST_ABSENCE), cause="banned")
