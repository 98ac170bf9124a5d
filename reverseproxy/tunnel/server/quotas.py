"""
How many connections one party may have as hosts: pure.

Whoever may join could do so ten thousand times, with one credential, or with one
address where none is demanded, and be given nearly all requests, or use up the
descriptors that others need.
"""

from __future__ import annotations

__all__ = ["NOBODY", "QUOTA_PAUSE", "QuotaPlace", "Quotas"]

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from reverseproxy.config.models import TunnelConfig
from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.tunnel.handshake import Accepted, Hangup, Refusal
from reverseproxy.wire.mosn.frames import Status

QUOTA_PAUSE: Final = 30.0
"""Seconds after which an agent that has too many connections comes back with another one."""


class Owner(NamedTuple):
    """
    Somebody whose connections are counted.

    @ivar key: the key of the configuration that bounds them.
    @ivar who: tells them from others.
    """

    key: str
    who: Hashable


@dataclass(frozen=True, slots=True)
class QuotaPlace:
    """
    What one connection takes.

    @ivar owners: all that it is counted with.
    """

    owners: tuple[Owner, ...] = ()


NOBODY: Final = QuotaPlace()
"""Takes nothing."""

_SHOWN: Final = {
    "max_hosts_per_address": "its address",
    "max_hosts_per_credential": "its credential or certificate",
    "max_hosts_per_agent": "this agent",
}


class Quotas:
    """Counts the connections of one listener."""

    def __init__(self, limits: Mapping[str, int], most: int) -> None:
        """
        @param limits: the most connections, by key; 0 for any number.
        @param most: what nobody may exceed, as there are no more descriptors.
        """
        self._limits = {key: min(limit or most, most) for key, limit in limits.items()}
        self._counts: Counter[Owner] = Counter()

    @classmethod
    def of(cls, config: TunnelConfig, most: int) -> Quotas:
        """Make those that are configured."""
        return cls({key: getattr(config, key) for key in _SHOWN}, most)

    def take_over(self, other: Quotas) -> None:
        """Have the limits of another one; what is counted stays, if it is more than that, too."""
        self._limits = other._limits

    def place(self, accepted: Accepted, info: ConnectionInfo, address_key: str) -> QuotaPlace:
        """
        Say what a connection that may join is counted with.

        An agent is told from others by what it has proved, or by its address if
        that is nothing, and besides by what it calls itself.  If it does not do
        that, as some of MOSN's, it can't be told from its neighbours.

        @param address_key: its address, as far as addresses are told apart.
        """
        proved: Hashable = info.identity
        if accepted.principal is not None:
            proved = accepted.principal
        owners = [Owner("max_hosts_per_address", address_key)]
        if proved is not None:
            owners.append(Owner("max_hosts_per_credential", proved))
        name, announcement = accepted.host_name, accepted.announcement
        if name or announcement is not None:
            agent = "" if announcement is None else announcement.agent
            owners.append(
                Owner("max_hosts_per_agent", (address_key if proved is None else proved, name, agent))
            )
        return QuotaPlace(tuple(owners))

    def take(self, place: QuotaPlace) -> str:
        """
        Take a place, unless there is none.

        @return: why there is none, for the log and the agent; else empty.
        """
        for owner in place.owners:
            limit = self._limits[owner.key]
            if self._counts[owner] >= limit:
                return f"there are {limit} connections of {_SHOWN[owner.key]} already ({owner.key})"
        self._counts.update(place.owners)
        return ""

    def refuse(self, place: QuotaPlace, ours: bool) -> Refusal | Hangup | None:
        """
        Take a place, or refuse an agent that has too many already.

        One of ours is told so, and comes back, as some may have left by then; one of MOSN's
        is cut off.

        @param ours: whether the agent is one of ours.
        @return: L{None} if the place was taken.
        """
        reason = self.take(place)
        if not reason:
            return None
        return Refusal(Status.UNKNOWN, reason, QUOTA_PAUSE, reason) if ours else Hangup(reason, "too_many")

    def count(self, place: QuotaPlace) -> None:
        """Take a place in any case, for a connection that has had one at another worker."""
        self._counts.update(place.owners)

    def give_back(self, place: QuotaPlace) -> None:
        """Give back a place that was taken."""
        for owner in place.owners:
            left = self._counts[owner] - 1
            if left > 0:
                self._counts[owner] = left
            else:
                del self._counts[owner]
