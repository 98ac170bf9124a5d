"""The lease that all records of a server are attached to; pure."""

from __future__ import annotations

__all__ = ["Lease"]


class Lease:
    """
    A lease, or that there is none at present.

    @ivar id: etcd's number; 0 if there is none.
    @ivar ttl: seconds after which it expires unless it is renewed.
    @ivar count: how many leases there have been.
    """

    def __init__(self, ttl: int) -> None:
        self.id = 0
        self.ttl = ttl
        self.count = 0
        self._renewed = 0.0

    @property
    def renewal_due(self) -> float:
        """When to renew it, as a time in seconds: after a third of its time to live."""
        return self._renewed + self.ttl / 3

    def granted(self, lease_id: int, now: float) -> None:
        """Note that there is a lease."""
        self.id = lease_id
        self.count += 1
        self._renewed = now

    def renewed(self, now: float) -> None:
        """Note that it was renewed."""
        self._renewed = now

    def drop(self) -> int:
        """Have no lease any more; return the number of the former one."""
        former, self.id = self.id, 0
        return former
