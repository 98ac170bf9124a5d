"""
Limits of the connections of one agent, credential or address: pure.

An agent could join ten thousand times, with one credential, or from one address where none is demanded,
and get nearly all requests, or use up file descriptors.
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
"""Seconds after which an agent with too many connections tries again to add one."""


class Owner(NamedTuple):
    """
    What connections are counted by.

    @ivar key: the key of the configuration that limits them.
    @ivar who: identifies the agent, credential or address.
    """

    key: str
    who: Hashable


@dataclass(frozen=True, slots=True)
class QuotaPlace:
    """
    What one connection takes of the quotas.

    @ivar owners: all that it is counted by.
    """

    owners: tuple[Owner, ...] = ()


NOBODY: Final = QuotaPlace()
"""The place of a connection that is not counted."""

_SHOWN: Final = {
    "max_hosts_per_address": "its address",
    "max_hosts_per_credential": "its credential or certificate",
    "max_hosts_per_agent": "this agent",
}


class Quotas:
    """Counts the connections of one listener."""

    def __init__(self, limits: Mapping[str, int], most: int) -> None:
        """
        @param limits: the limits, by key of the configuration; 0 for none.
        @param most: a limit for each of them, by the number of file descriptors.
        """
        self._limits = {key: min(limit or most, most) for key, limit in limits.items()}
        self._counts: Counter[Owner] = Counter()

    @classmethod
    def of(cls, config: TunnelConfig, most: int) -> Quotas:
        """Make the quotas that are configured."""
        return cls({key: getattr(config, key) for key in _SHOWN}, most)

    def take_over(self, other: Quotas) -> None:
        """Use the limits of another one; counts stay, even above them."""
        self._limits = other._limits

    def place(self, accepted: Accepted, info: ConnectionInfo, address_key: str) -> QuotaPlace:
        """
        Return what a connection that may join is counted by.

        An agent is identified by what it has proved, or by its address if it has proved nothing,
        together with its claimed name and id. One that claims neither, as some of MOSN's, can't be told
        from its neighbours.

        @param address_key: the client address, as addresses are grouped.
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
        Take a place.

        @return: the reason, for the log and the agent, if a limit is reached; otherwise empty.
        """
        for owner in place.owners:
            limit = self._limits[owner.key]
            if self._counts[owner] >= limit:
                return f"there are {limit} connections of {_SHOWN[owner.key]} already ({owner.key})"
        self._counts.update(place.owners)
        return ""

    def refuse(self, place: QuotaPlace, ours: bool) -> Refusal | Hangup | None:
        """
        Take a place, or return the refusal for an agent with too many.

        An agent of this project is told, and tries again later, as others may have left by then; the
        connection of a MOSN agent is closed.

        @param ours: whether it is an agent of this project.
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
        """Give back a place."""
        for owner in place.owners:
            left = self._counts[owner] - 1
            if left > 0:
                self._counts[owner] = left
            else:
                del self._counts[owner]
