"""The state of a host's health."""

from __future__ import annotations

__all__ = ["Fault", "HostHealth"]

from enum import IntFlag
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reverseproxy.cluster.health.checks import HostCheck
    from reverseproxy.cluster.health.ejection import FailureRecord


class Fault(IntFlag):
    """The reasons why a host is unhealthy; there may be several at once."""

    ORDERED = 1
    """Set by the caller of L{Cluster.set_health}, without a check."""

    CHECK = 2
    """The host fails its active health checks."""

    EJECTED = 4
    """Outlier detection has ejected the host after too many failures in a row."""

    SERVICE = 8
    """The agent can't reach its service; see L{reverseproxy.cluster.health.service_health}."""


class HostHealth:
    """
    The health of a host, and the state of what tracks it.

    @ivar faults: the reasons why it is unhealthy; none if it is healthy.
    @ivar failures: its failures in a row, for outlier detection; L{None} without any.
    @ivar check: its active health check; L{None} without one.
    @ivar service_up: whether its agent has last reported that it can reach its service.
    @ivar why: the message of the last reason, for people.
    """

    __slots__ = ("check", "failures", "faults", "service_up", "why")

    def __init__(self) -> None:
        self.faults = Fault(0)
        self.failures: FailureRecord | None = None
        self.check: HostCheck | None = None
        self.service_up = True
        self.why = ""
