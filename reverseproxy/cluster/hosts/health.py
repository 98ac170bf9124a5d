"""What is known of a host's health."""

from __future__ import annotations

__all__ = ["Fault", "HostHealth"]

from enum import IntFlag
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reverseproxy.cluster.health.checks import HostCheck
    from reverseproxy.cluster.health.ejection import FailureRecord


class Fault(IntFlag):
    """Why a host is not healthy; it may be for several reasons at once."""

    ORDERED = 1
    """Someone said so."""

    CHECK = 2
    """It fails its health checks."""

    EJECTED = 4
    """It has failed too many requests, or connects, in a row."""

    SERVICE = 8
    """Its agent can't reach its service; see L{reverseproxy.cluster.health.service_health}."""


class HostHealth:
    """
    Why a host may not be picked, and by what that is found out.

    @ivar faults: why it is not healthy; nothing if it is.
    @ivar failures: how often it has failed in a row, if at all.
    @ivar check: its active health check.
    @ivar service_up: whether its agent can reach its service, by all that it has said.
    @ivar why: what has been said of the last fault that was found; for people.
    """

    __slots__ = ("check", "failures", "faults", "service_up", "why")

    def __init__(self) -> None:
        self.faults = Fault(0)
        self.failures: FailureRecord | None = None
        self.check: HostCheck | None = None
        self.service_up = True
        self.why = ""
