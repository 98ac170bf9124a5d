"""Whom a cluster tells of what happens to it."""

from __future__ import annotations

__all__ = ["Hooks"]

from collections.abc import Callable

from reverseproxy.cluster.health.outcome import Outcome
from reverseproxy.cluster.host import Host


class Hooks:
    """
    What a cluster calls; each is there for one listener.

    @ivar on_connect: called with how it went to connect to a member.
    @ivar on_wait: called when a request has begun to wait.
    @ivar on_free: asked about each host that becomes free and carries one request at
        a time: whether it is wanted elsewhere, and has been reserved for that.
    @ivar on_idle: called with each host that is reserved and has nothing under way any
        more.
    @ivar on_change: called with C{"join"}, C{"leave"}, C{"health"} or C{"move"} (from worker
        to worker), the host, and why.
    @ivar on_health: called with each host that has become healthy, or is not any more.
    """

    on_wait: Callable[[], object] | None = None
    on_free: Callable[[Host], bool] | None = None
    on_idle: Callable[[Host], object] | None = None
    on_connect: Callable[[Host, Outcome], object] | None = None
    on_change: Callable[[str, Host, str], object] | None = None
    on_health: Callable[[Host], object] | None = None
