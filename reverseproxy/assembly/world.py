"""The state of a process that outlives its configurations."""

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

if TYPE_CHECKING:
    from reverseproxy.cluster.balancers.fleet import FleetView
    from reverseproxy.fleet.fleet import Fleet
    from reverseproxy.fleet.route_arbiter import FleetRouteArbiter
    from reverseproxy.tunnel.server.filter import TunnelServer
    from reverseproxy.workers.siblings import Siblings
    from reverseproxy.workers.worker import Worker


class FleetResources:
    """
    The resources of this process's part of a fleet.

    @ivar make_directory: makes the directory of a fleet; L{None} for the configured etcd.
    @ivar tls: the TLS of links from other servers, and of links to them; L{None} for plaintext.
    @ivar store_tls: the TLS to etcd; L{None} for plaintext.
    @ivar arbiter: decides which agent gets a route; L{None} if each server decides by itself.
    @ivar logs: the access logs of requests that other servers forward.
    """

    def __init__(self) -> None:
        self.make_directory: Any = None
        self.tls: tuple[ServerTls, ClientTls] | None = None
        self.store_tls: ClientTls | None = None
        self.arbiter: FleetRouteArbiter | None = None
        self.logs: list[AccessLog] = []


class World:
    """
    The state of a process that stays when its configuration is replaced.

    @ivar reactor: the reactor.
    @ivar random: the random numbers of load balancing and of jitter.
    @ivar file: the configuration file, for messages.
    @ivar dry: whether to only check what can be built: no log file is created.
    @ivar worker: this worker of several; L{None} for a single process.
    @ivar clusters: all clusters.
    @ivar listeners: by name.
    @ivar routers: the routers in use, by name, which take over the tables of new ones.
    @ivar tallies: the counters of requests, by listener.
    @ivar tunnels: the tunnel servers, by listener.
    @ivar exclusions: the agents that operators have excluded.
    @ivar reloader: reloads changed files of certificates.
    @ivar limiter: limits accepted connections.
    @ivar counted: whether requests and changes are counted even without an admin API.
    @ivar siblings: the other workers; L{None} for a single process.
    @ivar fleet: this server's part of a fleet; L{None} without one.
    @ivar fleet_resources: the resources of that part.
    @ivar tracing: the tracing driver of the first configuration; L{None} without tracing.
    @ivar seed: a random name of this server, which all workers share.
    @ivar watch: called with each cluster that is added while the process runs.
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
        """What load balancers need to know of other servers; L{None} without a fleet."""
        return None if self.fleet is None else self.fleet.view

    @property
    def workers(self) -> int:
        """The number of processes that share the work."""
        return 1 if self.worker is None else self.worker.workers


def tell_of_expiry(findings: Diagnostics, tls: Any) -> None:
    """Warn of the certificates of a TLS context that are about to expire."""
    for problem, _ in tls.expiring():
        findings.add_warning(problem)
