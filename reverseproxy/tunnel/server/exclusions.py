"""
Agents that an operator keeps out for a time: pure, given the time.

Whom that is about is the strongest thing that is known of them: the name that
their credential belongs to, or their certificate, or else their address.
"""

from __future__ import annotations

__all__ = ["LONGEST_ABSENCE", "MOST", "Exclusions", "Target", "target_of"]

from collections.abc import Callable
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


class Exclusions:
    """Who may not join, until when, and why."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        """
        @param seconds: tells the time.
        """
        self._seconds = seconds
        self._until: dict[Target, tuple[float, str]] = {}

    def __len__(self) -> int:
        return len(self._until)

    def exclude(self, target: Target, seconds: float, reason: str) -> None:
        """
        Keep somebody out from now on.

        @param reason: for the log, and for whoever asks.
        @raise ValueError: if there are too many already.
        """
        self._forget()
        if target not in self._until and len(self._until) >= MOST:
            raise ValueError(f"{MOST} agents are kept out already")
        self._until[target] = (self._seconds() + seconds, reason)

    def lift(self, target: Target) -> bool:
        """
        Let somebody in again.

        @return: whether they were kept out.
        """
        self._forget()
        return self._until.pop(target, None) is not None

    def find(self, identity: AgentIdentity, ip: str) -> tuple[float, str] | None:
        """
        Look whether somebody is kept out.

        @return: for how many seconds still, and why; L{None} if not.
        """
        if not self._until:
            return None
        targets = (
            target_of(identity, ip, process=True),
            target_of(identity, ip),
            ("certificate", "" if identity.certificate is None else identity.certificate.key),
            ("address", ip),
        )
        now = self._seconds()
        for target in targets:
            until, reason = self._until.get(target, (now, ""))
            if until > now:
                return until - now, reason
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
        self._until = {target: entry for target, entry in self._until.items() if entry[0] > now}
