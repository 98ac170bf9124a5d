"""
The service of a configuration: starts, reloads and stops its parts.

L{reverseproxy.assembly} builds the parts.
"""

from __future__ import annotations

__all__ = ["ReverseProxy"]

from collections.abc import Callable, Mapping
from random import Random
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from reverseproxy.admin import Inspector
from reverseproxy.assembly.running import RunningConfig
from reverseproxy.assembly.shutdown import Shutdown
from reverseproxy.assembly.world import World
from reverseproxy.cluster.directory import RUNNING
from reverseproxy.config.models import Config
from reverseproxy.errors import ConfigError
from reverseproxy.limits.buffered_bytes import set_limit
from reverseproxy.listener import bind_all
from reverseproxy.net.dead_peers import PeerSweep
from reverseproxy.process.inherited_sockets import INHERITED, ListenerSockets
from reverseproxy.process.reloading import Report
from reverseproxy.tls.handshake_share import set_handshake_share
from reverseproxy.workers.exclusions import report, take

if TYPE_CHECKING:
    from reverseproxy.admin.service import AdminServer
    from reverseproxy.workers.worker import Worker

log = Logger()


class ReverseProxy(Service):
    """
    A proxy, tunnel server or agent, as a configuration describes it.

    @ivar warnings: warnings about the configuration, such as keys without effect.
    @ivar missing: missing files and the like, without which a part will not work.
    @ivar clusters: all clusters.
    @ivar listeners: all listeners, by name.
    @ivar agents: the enabled C{tunnel_agent} entries, in order.
    @ivar succeeded: whether another process has taken over from this one.
    """

    succeeded = False
    _cut_short = False
    _stop_order: Shutdown | None = None

    def __init__(
        self,
        config: Config,
        reactor: Any,
        random: Random,
        file: str = "",
        dry: bool = False,
        worker: Worker | None = None,
        counts: bool = False,
        make_directory: Any = None,
    ) -> None:
        """
        Build everything; nothing is bound or dialled yet.

        @param file: where the configuration comes from, for error messages.
        @param dry: whether to build it for a check only, without making log files.
        @param worker: this worker; L{None} in a process without workers.
        @param counts: whether to count requests and changes also without an admin API.
        @param make_directory: makes what keeps the directory of a fleet, in place of what the
            configuration says; see L{reverseproxy.assembly.fleet}.
        @raise ConfigError: with every problem that only building shows, such as
            a certificate that does not load.
        """
        self._file = file
        self._reactor = reactor
        self._sweep = PeerSweep(reactor)
        world = self._world = World(reactor, random, file, dry, worker)
        world.counted = counts
        world.fleet_resources.make_directory = make_directory
        self.clusters = world.clusters
        self.listeners = world.listeners
        if worker is not None:
            world.siblings = worker.join(self.clusters)
            report(world.exclusions, worker.say)
        living = self.living = RunningConfig(world, config)
        self.warnings = list(living.assembly.findings.warnings)
        self.missing = living.assembly.findings.missing
        self.agents = living.agents

    @property
    def config(self) -> Config:
        """The configuration in use."""
        return self.living.config

    @property
    def admin(self) -> AdminServer | None:
        """The admin API of this process, if it has one."""
        return self.living.admin

    @property
    def inspector(self) -> Inspector:
        """Answers questions about this process."""
        return self.living.inspector

    def answer(self, question: str, arguments: Mapping[str, Any]) -> Any:
        """Answer a question about this process; see L{Inspector}."""
        return self.inspector.answer(question, arguments)

    def ask_encoded(self, question: str, arguments: Mapping[str, Any]) -> Deferred[list[bytes]]:
        """Answer a question in short turns of the reactor, as pieces of JSON; see L{Inspector}."""
        return self.inspector.ask_encoded(question, arguments)

    def told(self, message: Mapping[str, Any]) -> None:
        """Apply a change of bans that another worker has reported."""
        take(self._world.exclusions, message)

    # running

    def privilegedStartService(self) -> None:
        """
        Bind every listener.

        @raise ConfigError: naming each address that can't be bound.
        """
        Service.privilegedStartService(self)
        self.living.bound = True
        try:
            bind_all(
                self.config.listening,
                lambda config: self.listeners[config.name].privilegedStartService(),
                self.admin,
                self._file,
            )
        except ConfigError:
            self.living.bound = False
            for listener in self.listeners.values():
                listener.stop_accepting()
            if self.admin is not None:
                self.admin.listener.stop_accepting()
            raise

    def startService(self) -> None:
        """
        Dial, check certificates and the health of hosts, and detect dead peers.

        As with L{twisted.application.internet.StreamServerEndpointService}, it binds every
        listener now, unless C{privilegedStartService} has done so.

        @raise ConfigError: see L{privilegedStartService}.
        @raise RuntimeError: if it has been stopped: it can't be started again.
        """
        if self.living.stopping:
            raise RuntimeError("what has been stopped can't be started again: make another one")
        if not self.living.bound:
            self.privilegedStartService()
        Service.startService(self)
        self.living.start()
        set_limit(self.config.server.max_unfinished_size)
        set_handshake_share(self.config.server.tls_handshake_share)
        if self.admin is not None:
            self.admin.startService()
        if self._world.tracing is not None:
            self._world.tracing.start()
        self._world.reloader.start()
        self._sweep.start()
        if self.living.assembly.counts:
            self.inspector.parts.sampler.start()
        self.clusters.start()
        RUNNING.add(self.clusters)
        for listener in self.listeners.values():
            listener.startService()
        self._inherit()
        if self._world.fleet is not None:
            self._world.fleet.start()
        for agent in self.agents:
            agent.startService()
        if self._world.worker is not None:
            self._world.worker.start(self)

    def stopService(self) -> Deferred[None]:
        """
        Finish requests under way, then stop, in the order of L{Shutdown}.

        @return: fires when everything is closed.
        """
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        worker = self._world.worker
        living = self.living
        listeners = [*self.listeners.values(), *living.departing]
        self._stop_order = Shutdown(
            self._reactor,
            self.config.server.graceful_timeout,
            listeners,
            [
                (self.listeners[name], server)
                for name, server in self._world.tunnels.items()
                if name in self.listeners
            ],
            [*self.agents, *living.leaving],
            worker,
            self.succeeded,
        )
        living.stopping = True
        fleet = self._world.fleet
        if worker is not None:
            worker.stopping()
        # Another worker, or the process that has taken over, goes on as this server.
        stays = self.succeeded or (worker is not None and worker.alone)
        if fleet is not None and not stays:
            fleet.drain()
        living.hurry()
        await self._stop_order.run()
        await DeferredList([each.stopService() for each in listeners], consumeErrors=True)
        if fleet is not None:
            await fleet.stop(stays)
        if self._world.fleet_resources.arbiter is not None:
            self._world.fleet_resources.arbiter.stop()
        if worker is not None:
            worker.stop()
        for server in self._world.tunnels.values():
            server.stop()
            if server.routes is not None:
                server.routes.stop()
        RUNNING.remove(self.clusters)
        self.clusters.close("stopping")
        self._world.reloader.stop()
        self.living.stop()
        self._sweep.stop()
        self.inspector.stop()
        self.inspector.parts.sampler.stop()
        self._close_access_logs()
        tracing = self._world.tracing
        if tracing is not None:
            await deferToThreadPool(self._reactor, self._reactor.getThreadPool(), tracing.stop)
        if self.admin is not None:
            await self.admin.stopService()
        log.info("stopped")

    def _inherit(self) -> None:
        """Restore the routes that agents had brought to the process that this one takes over."""
        claims, INHERITED.claims = INHERITED.claims, []
        for name, server in self._world.tunnels.items():
            routes = server.routes
            if routes is None:
                continue
            inherited = [claim for claim in claims if claim["listener"] == name]
            arbiter = self._world.fleet_resources.arbiter
            if routes.arbiter is None:
                routes.inherit(inherited)
            elif routes.arbiter is arbiter and arbiter is not None:
                arbiter.inherit(inherited)

    def bequeath(self) -> list[ListenerSockets]:
        """Return duplicates of all listening sockets, for the process that takes over."""
        listeners = [*self.listeners.values(), *([] if self.admin is None else [self.admin.listener])]
        given = [listener.bequeath() for listener in listeners]
        return [bequest for bequest in given if bequest is not None]

    def claims(self) -> list[dict[str, Any]]:
        """Return the routes that agents have brought, for the process that takes over."""
        arbiter = self._world.fleet_resources.arbiter
        found: list[dict[str, Any]] = []
        for name, server in self._world.tunnels.items():
            routes = server.routes
            if routes is None:
                continue
            if routes.arbiter is None:
                found += routes.bequeath(name)
            elif routes.arbiter is arbiter and arbiter is not None:
                found += filter(None, map(arbiter.bequeath, routes.bequeath(name)))
        return found

    def succeed(self) -> None:
        """Record that another process serves at the same addresses, so that agents dial it at once."""
        self.succeeded = True
        for listener in self.listeners.values():
            listener.leave_address()
        if self.admin is not None:
            self.admin.listener.leave_address()

    def cut_short(self) -> None:
        """While stopping, abort what is still under way; at any other time, do nothing."""
        if self._cut_short or self._stop_order is None:
            return
        self._cut_short = True
        log.warn("asked again to stop: what is still under way is cut off")
        self._stop_order.cut_short()

    def _close_access_logs(self) -> None:
        for access_log in self.living.assembly.access_logs:
            access_log.close()

    # changing

    def read_from(self, read: Callable[[], Any]) -> None:
        """
        Set how to read the configuration, for reloads.

        @param read: returns a L{Loaded<reverseproxy.config.loader.Loaded>} or a Deferred of it;
            fails with L{ConfigError}.
        """
        self.living.reloading.read = read

    def reload(self) -> Deferred[Report]:
        """
        Read the configuration and certificates again, and apply them if they are valid.

        Unchanged parts stay as they are.  Changed ones are built beside the old ones, replace
        them in one step, and the old ones finish their requests.

        @return: fires with the result; never fails.
        """
        return self.living.reload()

    def reload_certificates(self) -> None:
        """Reload changed certificates now."""
        self._world.reloader.poll()
        if self.admin is not None:
            self.admin.reload_certificates()

    def reopen_logs(self) -> None:
        """Reopen the access logs, after log rotation has moved them."""
        for access_log in self.living.assembly.access_logs:
            try:
                access_log.reopen()
            except ConfigError as error:
                log.error("{reason}; the old access log stays in use", reason=str(error))
