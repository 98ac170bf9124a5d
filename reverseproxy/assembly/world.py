"""What all configurations of one process have in common, one after the other."""

from __future__ import annotations

__all__ = ["Findings", "World"]

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from reverseproxy.cluster.manager import Cluster, ClusterManager
from reverseproxy.errors import ConfigError, Problem
from reverseproxy.limiter import ConnectionLimiter
from reverseproxy.listener import Listener
from reverseproxy.metrics import RequestTally
from reverseproxy.routing import Router
from reverseproxy.tls import CertificateReloader
from reverseproxy.tracing.interfaces import ITracing
from reverseproxy.tunnel.server.exclusions import Exclusions
from reverseproxy.tunnel.server.filter import TunnelServer

if TYPE_CHECKING:
    from reverseproxy.workers.siblings import Siblings
    from reverseproxy.workers.worker import Worker

_T = TypeVar("_T")

_DOCUMENT = ("servers[", "cluster_manager.", "extends[")
"""How a place in the whole document begins."""


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
    @ivar tracing: makes traces; L{None} without any.  It is the first configuration that
        says so.
    @ivar watch: told of each cluster that comes while the process runs.
    """

    siblings: Siblings | None = None
    counted = False
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
        self.watch: Callable[[Cluster], object] = lambda cluster: None

    @property
    def workers(self) -> int:
        """How many processes share the work."""
        return 1 if self.worker is None else self.worker.workers


class Findings:
    """
    What only building shows: problems, and what is worth a warning.

    @ivar warnings: what has no effect as it is configured.
    @ivar missing: what isn't there yet, and without which a part will not work.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.missing: list[Problem] = []

    def attempt(self, path: str, build: Callable[[], _T]) -> _T | None:
        """Build something; a failure is noted under its place in the document."""
        problems: tuple[Problem, ...] = ()
        try:
            return build()
        except ConfigError as error:
            problems = error.problems
        except ValueError as error:
            problems = (Problem("", "", str(error)),)
        for problem in problems:
            placed = self.placed(path, problem)
            # What several hosts or servers share is wrong once.
            if placed not in self.problems:
                self.problems.append(placed)
        return None

    def placed(self, path: str, problem: Problem) -> Problem:
        """
        Put a problem in its place in the document.

        @param path: where the part stands that has it, unless the problem tells
            itself, by a path in that part or in the whole document.
        """
        if not problem.path.startswith(_DOCUMENT):
            path = f"{path}.{problem.path}" if problem.path else path
        else:
            path = problem.path
        return Problem(self.file, path, problem.message)

    def expiring(self, tls: Any) -> None:
        """Warn of the certificates of a TLS context that are about to expire."""
        self.warnings += [self.placed("", problem) for problem, _ in tls.expiring()]
