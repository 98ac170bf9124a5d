"""
Agents that an operator keeps out for a time: pure, given the time.

Whom that is about is the strongest thing that is known of them: the name that
their credential belongs to, or their certificate, or else their address.
"""

from __future__ import annotations

__all__ = ["LONGEST_ABSENCE", "MOST", "Exclusion", "Exclusions", "Target", "target_of"]

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from secrets import token_hex
from typing import Final

from reverseproxy.identity import AgentIdentity
from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.tunnel.handshake import Accepted, Hangup, Refusal
from reverseproxy.wire.mosn.frames import Status

MOST: Final = 1000
"""How many there may be at once."""

LONGEST_ABSENCE: Final = 60.0
"""Seconds after which an agent that is kept out is to ask again, as the operator may think better of it."""

Target = tuple[str, ...]
"""Whom it is about: a kind, and what that kind goes by."""


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


@dataclass(frozen=True, slots=True)
class Exclusion:
    """
    Somebody who is kept out.

    @ivar target: who.
    @ivar until: until when.
    @ivar reason: why, for the log and for whoever asks.
    @ivar ids: what an operator has done, as the whole fleet calls it: the same at all servers, and
        another one for each time.
    @ivar agent: the agent that it was done to, by its id in the admin API; empty if that is not known.
    """

    target: Target
    until: float
    reason: str
    ids: frozenset[str]
    agent: str = ""


class Exclusions:
    """
    Who may not join, until when, and why.

    @ivar on_excluded: called with what somebody here has decided; L{heard} is what others have.
    @ivar on_lifted: called with what has ended, of what was lifted here.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        """
        @param seconds: tells the time.
        """
        self.on_excluded: Callable[[Exclusion], object] = lambda exclusion: None
        self.on_lifted: Callable[[Exclusion], object] = lambda exclusion: None
        self._seconds = seconds
        self._found: dict[Target, Exclusion] = {}
        self._lifted: dict[str, float] = {}  # until when what has been lifted would have counted

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[Exclusion]:
        """All that count now."""
        self._forget()
        return iter(list(self._found.values()))

    @property
    def lifted(self) -> list[str]:
        """What has been lifted, and would count still: who has not heard of it must not bring it back."""
        self._forget()
        return list(self._lifted)

    def exclude(
        self, target: Target, seconds: float, reason: str, exclusion_id: str = "", agent: str = ""
    ) -> None:
        """
        Keep somebody out from now on.

        @param reason: for the log, and for whoever asks.
        @param exclusion_id: see L{Exclusion}; empty for a new one.
        @param agent: see L{Exclusion}.
        @raise ValueError: if there are too many already.
        """
        exclusion_id = exclusion_id or token_hex(8)
        self._put(Exclusion(target, self._seconds() + seconds, reason, frozenset((exclusion_id,)), agent))
        self.on_excluded(self._found[target])

    def _put(self, exclusion: Exclusion) -> None:
        self._forget()
        known = self._found.get(exclusion.target)
        if known is not None:
            exclusion = replace(exclusion, ids=exclusion.ids | known.ids)
        elif len(self._found) >= MOST:
            raise ValueError(f"{MOST} agents are kept out already")
        self._found[exclusion.target] = exclusion

    def lift(self, target: Target) -> bool:
        """
        Let somebody in again.

        @return: whether they were kept out.
        """
        self._forget()
        found = self._found.pop(target, None)
        if found is not None:
            self._note_lifted(found)
            self.on_lifted(found)
        return found is not None

    def lift_agent(self, agent: str) -> bool:
        """
        Let an agent in again, by its id in the admin API.

        @return: whether it was kept out.
        """
        found = [each for each in self if agent and each.agent == agent]
        for each in found:
            self.lift(each.target)
        return bool(found)

    def _note_lifted(self, exclusion: Exclusion) -> None:
        for each in exclusion.ids:
            if len(self._lifted) < MOST:
                self._lifted[each] = exclusion.until

    # what others have decided

    def heard(self, exclusion: Exclusion) -> bool:
        """
        Another server keeps somebody out.

        @return: whether that is new, and counts here from now on.
        @raise ValueError: if there are too many already.
        """
        self._forget()
        known = self._found.get(exclusion.target)
        ids = exclusion.ids - self._lifted.keys()
        if not ids or (known is not None and ids <= known.ids) or exclusion.until <= self._seconds():
            return False
        if known is not None and known.until > exclusion.until and not ids >= known.ids:
            # Whoever says that has not heard of ours: the longer one counts.
            exclusion = known
        self._put(replace(exclusion, ids=ids))
        return True

    def heard_lifted(self, ids: Collection[str]) -> list[Exclusion]:
        """
        Another server has lifted something.

        @return: what has ended here by that.
        """
        found = [each for each in self if not each.ids.isdisjoint(ids)]
        for each in found:
            del self._found[each.target]
            self._note_lifted(each)
        return found

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
        now = self._seconds()
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

    def _forget(self) -> None:
        now = self._seconds()
        self._found = {target: each for target, each in self._found.items() if each.until > now}
        self._lifted = {each: until for each, until in self._lifted.items() if until > now}
