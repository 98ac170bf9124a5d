"""What all configurations of one process have in common, one after the other."""

from __future__ import annotations

__all__ = ["FleetResources", "World", "tell_of_expiry"]

from collections.abc import Callable
from random import Random
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from reverseproxy.cluster.manager import Cluster, ClusterManager
from reverseproxy.config.diagnostics import Diagnostics
from reverseproxy.listener import Listener
from reverseproxy.listener.connection_limiter import ConnectionLimiter
from reverseproxy.metrics import RequestTally
from reverseproxy.proxy.access import AccessLog
from reverseproxy.routing import Router
from reverseproxy.tls import CertificateReloader, ClientTls, ServerTls
from reverseproxy.tracing.interfaces import ITracing
from reverseproxy.tunnel.server.exclusions import Exclusions
from reverseproxy.tunnel.server.filter import TunnelServer

if TYPE_CHECKING:
    from reverseproxy.cluster.balancers.fleet import FleetView
    from reverseproxy.fleet.fleet import Fleet
    from reverseproxy.fleet.route_arbiter import FleetRouteArbiter
    from reverseproxy.workers.siblings import Siblings
    from reverseproxy.workers.worker import Worker


class FleetResources:
    """
    What this process's part in a fleet uses.

    @ivar make_directory: makes what keeps the directory of a fleet; L{None} for what the configuration says.
    @ivar tls: for links from other servers, and to them; L{None} for plaintext.
    @ivar store_tls: for what keeps the directory; L{None} for plaintext.
    @ivar desk: decides who gets routes that agents bring; L{None} for each server by itself.
    @ivar logs: access logs of what other servers forward.
    """

    def __init__(self) -> None:
        self.make_directory: Any = None
        self.tls: tuple[ServerTls, ClientTls] | None = None
        self.store_tls: ClientTls | None = None
        self.desk: FleetRouteArbiter | None = None
        self.logs: list[AccessLog] = []


class World:
    """
    What stays while configurations change.

    @ivar file: where configurations come from, for messages.
    @ivar dry: whether it is only to be seen if things can be built: no log file is made.
    @ivar worker: which one of several workers this is; L{None} for the only
        process that there is.
    @ivar clusters: who can serve.
    @ivar listeners: by name.
    @ivar routers: by name; those of L{routing<reverseproxy.routing>} that are in use,
        and take over what new ones have.
    @ivar tallies: counts of requests, by listener.
    @ivar tunnels: the tunnel servers, by listener.
    @ivar exclusions: whom an operator keeps out.
    @ivar reloader: keeps up with the files of certificates.
    @ivar limiter: decides about accepted connections.
    @ivar counted: whether requests and changes are counted, whether or not there is an admin API.
    @ivar siblings: the other workers; L{None} without any.
    @ivar fleet: the other servers; L{None} where there are none.
    @ivar fleet_resources: what this process's part among them uses.
    @ivar tracing: makes traces; L{None} without any.  It is the first configuration that
        says so.
    @ivar seed: a name of this process, which several workers have together.
    @ivar watch: told of each cluster that comes while the process runs.
    """

    siblings: Siblings | None = None
    counted = False
    fleet: Fleet | None = None
    tracing: ITracing | None = None

    def __init__(self, reactor: Any, random: Random, file: str, dry: bool, worker: Worker | None) -> None:
        self.reactor = reactor
        self.random = random
        self.file = file
        self.dry = dry
        self.worker = worker
        self.clusters = ClusterManager()
        self.listeners: dict[str, Listener] = {}
        self.routers: dict[str, Router] = {}
        self.tallies: dict[str, RequestTally] = {}
        self.tunnels: dict[str, TunnelServer] = {}
        self.exclusions = Exclusions(reactor.seconds)
        self.reloader = CertificateReloader(reactor)
        self.limiter = ConnectionLimiter(reactor)
        self.fleet_resources = FleetResources()
        self.seed = token_hex(8) if worker is None else worker.seed
        self.watch: Callable[[Cluster], object] = lambda cluster: None

    @property
    def fleet_view(self) -> FleetView | None:
        """What load balancers have to know of other servers; L{None} where there are none."""
        return None if self.fleet is None else self.fleet.view

    @property
    def workers(self) -> int:
        """How many processes share the work."""
        return 1 if self.worker is None else self.worker.workers


def tell_of_expiry(findings: Diagnostics, tls: Any) -> None:
    """Warn of the certificates of a TLS context that are about to expire."""
    for problem, _ in tls.expiring():
        findings.add_warning(problem)
