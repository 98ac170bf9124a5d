"""The callbacks of a cluster."""

from __future__ import annotations

__all__ = ["Hooks"]

from collections.abc import Callable

from reverseproxy.cluster.health.outcome import Outcome
from reverseproxy.cluster.host import Host


class Hooks:
    """
    The callbacks of a cluster, each for one observer.

    @ivar on_connect: called with a member and the outcome of a connect to it.
    @ivar on_wait: called when a request has begun to wait.
    @ivar on_free: called with each host that has reached its capacity and gets free again;
        returns whether another worker wants it, and it has been reserved for that.
    @ivar on_idle: called with each reserved host whose last request has ended.
    @ivar on_change: called with C{"join"}, C{"leave"}, C{"health"} or C{"move"} (from worker
        to worker), the host, and the reason.
    @ivar on_health: called with each host that has become healthy or unhealthy.
    @ivar on_weight: called with each host that has got another weight.
    """

    on_wait: Callable[[], object] | None = None
    on_free: Callable[[Host], bool] | None = None
    on_idle: Callable[[Host], object] | None = None
    on_connect: Callable[[Host, Outcome], object] | None = None
    on_change: Callable[[str, Host, str], object] | None = None
    on_health: Callable[[Host], object] | None = None
    on_weight: Callable[[Host], object] | None = None
