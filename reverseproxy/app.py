"""
From a configuration to a running tree of services.

What the parts are built of is in L{reverseproxy.assembly}; here they begin and end.
"""

from __future__ import annotations

__all__ = ["ReverseProxy"]

from collections.abc import Mapping
from functools import partial
from random import Random
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger

from reverseproxy.admin import AdminServer, Inspector, LocalSource
from reverseproxy.admin.agents import AgentIndex
from reverseproxy.admin.inspector import Parts, note_change
from reverseproxy.assembly.assembly import Assembly
from reverseproxy.assembly.world import World
from reverseproxy.clock import wall_time
from reverseproxy.cluster.directory import RUNNING
from reverseproxy.cluster.manager import Cluster
from reverseproxy.config.models import Config
from reverseproxy.errors import ConfigError
from reverseproxy.listener import bind_all
from reverseproxy.metrics import Journal
from reverseproxy.sockets import PeerSweep
from reverseproxy.stopping import Stopping
from reverseproxy.tunnel.agent.agent import Agent
from reverseproxy.unfinished import set_limit
from reverseproxy.workers.worker import Worker

log = Logger()


class ReverseProxy(Service):
    """
    Everything that one configuration describes.

    @ivar warnings: what has no effect as it is configured.
    @ivar missing: what isn't there yet, and without which part of it will not work.
    @ivar clusters: who can serve.
    @ivar listeners: by name.
    @ivar agents: the enabled C{tunnel_agent} entries, in order.
    """

    _bound = False
    _stopping = False
    _cut_short = False
    _stop_order: Stopping | None = None

    def __init__(
        self,
        config: Config,
        reactor: Any,
        random: Random,
        file: str = "",
        dry: bool = False,
        worker: Worker | None = None,
    ) -> None:
        """
        Build everything; nothing is bound or dialled yet.

        @param file: where the configuration comes from, for error messages.
        @param dry: only to see whether it can be built: no log file is made.
        @param worker: which one of several workers this is; L{None} for the
            only process that there is.
        @raise ConfigError: with every problem that only building shows, such as
            a certificate that does not load.
        """
        self._file = file
        self._reactor = reactor
        self._sweep = PeerSweep(reactor)
        world = self._world = World(reactor, random, file, dry, worker)
        self.clusters = world.clusters
        self.listeners = world.listeners
        self.agents: list[Agent] = []
        if worker is not None:
            world.siblings = worker.join(self.clusters)
        world.watch = self._watch
        self._assembly = Assembly(world, config)
        self.inspector = self._inspector()
        self.admin = self._admin_server() if worker is None else None
        if self._assembly.problems:
            self._assembly.discard()
            raise ConfigError(*self._assembly.problems)
        self.warnings = self._assembly.findings.warnings
        self.missing = self._assembly.findings.missing
        self._take(self._assembly)

    # building

    @property
    def config(self) -> Config:
        """The configuration that is in use."""
        return self._assembly.config

    def _take(self, assembly: Assembly) -> None:
        """Put what was built into use."""
        if assembly.counts:
            for cluster in assembly.new_clusters:
                self._watch(cluster)
        assembly.commit()
        self._assembly = assembly
        self.agents[:] = [parts.agent for parts in assembly.agents.values()]
        watched = [*assembly.client_contexts, *assembly.server_contexts]
        if self.admin is not None and self.admin.tls is not None:
            watched.append(self.admin.tls)
        self._world.reloader.watch(watched)

    def _watch(self, cluster: Cluster) -> None:
        """Keep what happens to the hosts of a cluster, if anybody may ask."""
        if self._assembly.counts:
            cluster.on_change = partial(note_change, self.inspector.parts, cluster.name)

    def _inspector(self) -> Inspector:
        """Make what answers questions about this process."""
        world = self._world
        return Inspector(
            Parts(
                config=self._assembly.config,
                clusters=self.clusters,
                listeners=self.listeners,
                agents=self.agents,
                journal=Journal(wall_time),
                tallies=world.tallies,
                tunnels=world.tunnels,
                certificates=self._certificates,
                clock=self._reactor,
                access_logs=lambda: [each.file for each in self._assembly.access_logs],
                stopping=lambda: self._stopping,
                agent_index=AgentIndex(world.exclusions, wall_time, self._reactor.seconds),
            )
        )

    def _certificates(self) -> list[dict[str, Any]]:
        """What is in use and has an end."""
        return [
            {"use": place, "name": item.name, "not_before": item.begins, "not_after": item.ends}
            for place, item in self._world.reloader.dated
        ]

    def _admin_server(self) -> AdminServer | None:
        assembly = self._assembly
        if not assembly.counts:
            return None
        build = partial(AdminServer, assembly.config, self._reactor, LocalSource(self.inspector), self._file)
        server = assembly.findings.attempt("admin", build)
        if server is not None and server.tls is not None:
            assembly.findings.expiring(server.tls)
        return server

    def answer(self, question: str, arguments: Mapping[str, Any]) -> Any:
        """Answer a question about this process; see L{Inspector}."""
        return self.inspector.answer(question, arguments)

    # running

    def privilegedStartService(self) -> None:
        """
        Bind every listener.

        @raise ConfigError: naming each address that can't be bound.
        """
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        self._bound = True
        try:
            bind_all(
                [listener.config for listener in self.listeners.values()],
                lambda config: self.listeners[config.name].privilegedStartService(),
                self._file,
            )
            if self.admin is not None:
                self.admin.privilegedStartService()
        except ConfigError:
            self._bound = False
            for listener in self.listeners.values():
                listener.stop_accepting()
            raise

    def startService(self) -> None:
        """
        Dial, and watch the certificates, the health of hosts, and for peers that are gone.

        Whoever has no privileges to give up need not call
        C{privilegedStartService} before: as with
        L{twisted.application.internet.StreamServerEndpointService}, every
        listener is bound now, if that has not been done.

        @raise ConfigError: see L{privilegedStartService}.
        @raise RuntimeError: if it has been stopped, and is not to be started again.
        """
        if self._stopping:
            raise RuntimeError("what has been stopped can't be started again: make another one")
        if not self._bound:
            self.privilegedStartService()
        super().startService()  # type: ignore[no-untyped-call]
        set_limit(self.config.server.max_unfinished_size)
        if self.admin is not None:
            self.admin.startService()
        self._world.reloader.start()
        self._sweep.start()
        if self._assembly.counts:
            self.inspector.parts.pulse.start()
        self.clusters.start()
        RUNNING.add(self.clusters)
        for listener in self.listeners.values():
            listener.startService()
        for agent in self.agents:
            agent.startService()
        if self._world.worker is not None:
            self._world.worker.start(self)

    def stopService(self) -> Deferred[None]:
        """
        Finish what is under way, then stop.

        In the order of L{Stopping}, so that nothing is cut off that something else still needs.

        @return: fires when everything is closed.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        worker = self._world.worker
        self._stop_order = Stopping(
            self._reactor,
            self.config.server.graceful_timeout,
            list(self.listeners.values()),
            [
                (self.listeners[name], server)
                for name, server in self._world.tunnels.items()
                if name in self.listeners
            ],
            self.agents,
            worker,
        )
        self._stopping = True
        await self._stop_order.run()
        await DeferredList([each.stopService() for each in self.listeners.values()], consumeErrors=True)
        if worker is not None:
            worker.stop()
        for server in self._world.tunnels.values():
            if server.routes is not None:
                server.routes.stop()
        RUNNING.remove(self.clusters)
        self.clusters.close("stopping")
        self._world.reloader.stop()
        self._sweep.stop()
        self.inspector.parts.pulse.stop()
        self._close_access_logs()
        if self.admin is not None:
            await self.admin.stopService()
        log.info("stopped")

    def cut_short(self) -> None:
        """While stopping, wait no longer for what is under way; at any other time, do nothing."""
        if self._cut_short or self._stop_order is None:
            return
        self._cut_short = True
        log.warn("asked again to stop: what is still under way is cut off")
        self._stop_order.cut_short()

    def _close_access_logs(self) -> None:
        for access_log in self._assembly.access_logs:
            access_log.close()

    def reload_certificates(self) -> None:
        """Look now whether certificates have changed."""
        self._world.reloader.poll()

    def reopen_logs(self) -> None:
        """Open the access logs anew, after something else has moved them away."""
        for access_log in self._assembly.access_logs:
            try:
                access_log.reopen()
            except ConfigError as error:
                log.error("{reason}; the old access log stays in use", reason=str(error))
