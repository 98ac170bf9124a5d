"""
The configuration in use, and its replacement by another one.

A replacement has two phases.  L{RunningConfig.prepare} does everything that can fail: it
builds what is new, and binds it.  L{RunningConfig.commit} can't fail.
"""

from __future__ import annotations

__all__ = ["RunningConfig", "Prepared"]

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from reverseproxy.admin import Inspector, LocalSource
from reverseproxy.admin.agent_index import AgentIndex
from reverseproxy.admin.inspector import Parts, note_change, note_refused
from reverseproxy.assembly.admission_watch import AdmissionWatch
from reverseproxy.assembly.assembly import Assembly
from reverseproxy.assembly.changes import Changes, compare
from reverseproxy.assembly.examination import examine
from reverseproxy.assembly.opening import Opening
from reverseproxy.assembly.succession import Succession
from reverseproxy.assembly.world import World, tell_of_expiry
from reverseproxy.clock import wall_time
from reverseproxy.cluster.manager import Cluster
from reverseproxy.config.diagnostics import Diagnostics
from reverseproxy.config.loader import Loaded
from reverseproxy.config.models import Config
from reverseproxy.errors import ConfigError
from reverseproxy.limits.buffered_bytes import set_limit
from reverseproxy.listener import Listener
from reverseproxy.metrics import Journal
from reverseproxy.problems import DOCUMENT, Place, Problem
from reverseproxy.process.reloading import Reloader, ReloadRefused, Report
from reverseproxy.tls.handshake_share import set_handshake_share

if TYPE_CHECKING:
    from reverseproxy.admin.service import AdminChange, AdminServer
    from reverseproxy.tunnel.agent.agent import Agent

log = Logger()


@dataclass(frozen=True, slots=True)
class Prepared:
    """
    A configuration that is ready to be committed.

    @ivar admin: the new admin API; L{None} if there is one already, or none.
    @ivar admin_change: the change of the one in use; L{None} if there is none.
    """

    loaded: Loaded
    changes: Changes
    assembly: Assembly
    admin: AdminServer | None = None
    admin_change: AdminChange | None = None

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """Its warnings, from loading and from building."""
        found = self.assembly.findings
        return (*self.loaded.warnings, *found.warnings, *found.missing)

    def discard(self) -> None:
        """Release what is new, as it is not committed."""
        self.assembly.discard()
        if self.admin is not None:
            self.admin.listener.stop_accepting()
        if self.admin_change is not None:
            self.admin_change.discard()

    def report(self, file: str, generation: int) -> Report:
        """Return a report of the changes."""
        return Report(
            file,
            generation,
            warnings=self.warnings,
            changes=self.changes.to_json() if self.changes else {},
            restart=self.changes.restart,
            summary=str(self.changes),
        )


class RunningConfig:
    """
    The configuration in use, and the objects that run it.

    @ivar assembly: the objects of the present configuration.
    @ivar inspector: answers the questions of the admin API about them.
    @ivar admin: the admin API of this process; L{None} if there is none.
    @ivar agents: the enabled agents, in order; always the same list object.
    @ivar bound: whether the addresses are bound, or may be.
    @ivar running: whether the service is started, so that new parts are started at once.
    @ivar stopping: whether the process is stopping.
    @ivar taken: called with the old and the new configuration after each commit.
    @ivar check: adds what else is wrong with another configuration to the findings; given both.
    """

    taken: Callable[[Config, Config], object] = staticmethod(lambda old, new: None)
    check: Callable[[Config, Diagnostics], object] = staticmethod(lambda config, findings: None)

    def __init__(self, world: World, config: Config) -> None:
        """
        Build everything; nothing is bound or dialled yet.

        @raise ConfigError: with every problem that only building shows.
        """
        self.world = world
        self.agents: list[Agent] = []
        self.bound = self.running = self.stopping = False
        self.reloading = Reloader(world.file, self._unread, self.take)
        self.reloading.examine = partial(
            examine, reactor=world.reactor, random=world.random, further=lambda *found: self.check(*found)
        )
        self._opening = Opening(world)
        self._doors = AdmissionWatch(world, lambda: self.assembly.server_contexts)
        self._departing: dict[Listener, None] = {}
        self._successions: set[Succession] = set()
        world.watch = self._watch
        assembly = self.assembly = Assembly(world, config)
        self.inspector = self._inspector()
        self.reloading.failed = lambda report: self.inspector.answer("reload_failed", report.failure)
        self.admin = self._make_admin(assembly) if assembly.has_admin and world.worker is None else None
        if assembly.findings.errors:
            assembly.discard()
        assembly.findings.raise_errors()
        self._adopt(assembly)

    @property
    def config(self) -> Config:
        """The configuration in use."""
        return self.assembly.config

    def _inspector(self) -> Inspector:
        """Make the inspector of this process."""
        world = self.world
        index = AgentIndex(world.exclusions, wall_time, world.reactor.seconds)
        if world.fleet is not None and world.fleet.directory is not None:
            world.fleet.directory.listen(index.remote)
        parts = Parts(
            config=self.assembly.config,
            clusters=world.clusters,
            listeners=world.listeners,
            agents=self.agents,
            journal=Journal(wall_time),
            tallies=world.tallies,
            tunnels=world.tunnels,
            certificates=self._certificates,
            clock=world.reactor,
            access_logs=lambda: [each.file for each in self.assembly.access_logs],
            stopping=lambda: self.stopping,
            agent_index=index,
            reloading=self.reloading,
            fleet=lambda: world.fleet,
        )
        return Inspector(parts)

    def _certificates(self) -> list[dict[str, Any]]:
        """Return the certificates in use, with their validity."""
        return [
            {"use": place, "name": item.name, "not_before": item.begins, "not_after": item.ends}
            for place, item in self.world.reloader.dated
        ]

    def _make_admin(self, assembly: Assembly) -> AdminServer | None:
        from reverseproxy.admin.service import AdminServer

        world, findings = self.world, assembly.findings
        build = partial(AdminServer, assembly.config, world.reactor, LocalSource(self.inspector))
        server = findings.attempt(DOCUMENT / "admin", build)
        if server is not None:
            server.attach_configuration(self)
            if server.tls is not None:
                tell_of_expiry(findings, server.tls)
        return server

    # replacing the configuration

    def _unread(self) -> Loaded:
        """Fail to read a configuration that is in no file."""
        raise ConfigError(Problem.at(Place(self.world.file), "it is in no file that could be read again"))

    def prepare(self, loaded: Loaded, dry: bool = False, bind: bool = True) -> Prepared:
        """
        Prepare another configuration.

        @param dry: whether to only check that it can be used.
        @param bind: whether to bind new addresses; otherwise the caller does, with sockets that are
            bound already.
        @raise ConfigError: if it can't be used; nothing has changed then.
        """
        world = self.world
        if self.stopping:
            raise ReloadRefused(world.file)
        config = loaded.config
        changes = compare(self.config, config)
        assembly = Assembly(world, config, self.assembly, dry)
        findings = assembly.findings
        self.check(config, findings)
        if self.bound and bind and not dry and not findings.errors:
            assembly.bind()
        new, change = self._prepare_admin(assembly, dry)
        prepared = Prepared(loaded, changes, assembly, new, change)
        if findings.errors:
            prepared.discard()
        findings.raise_errors(*loaded.warnings)
        return prepared

    def _prepare_admin(self, assembly: Assembly, dry: bool) -> tuple[AdminServer | None, AdminChange | None]:
        """
        Prepare the admin API of an assembly; what is wrong is added to its findings.

        @param dry: whether to only look at its files, if its configuration has changed.
        @return: the new admin API, and the change of the one in use; L{None} for each that is not prepared.
        """
        admin, findings, place = assembly.config.admin, assembly.findings, DOCUMENT / "admin"
        if admin is None or self.world.worker is not None or not assembly.has_admin:
            return None, None
        if dry:
            from reverseproxy.admin.service import load_credentials

            if admin != self.config.admin:
                findings.attempt(place, partial(load_credentials, admin))
            return None, None
        if self.admin is not None:
            return None, findings.attempt(place, partial(self.admin.prepare, assembly.config))
        server = self._make_admin(assembly)
        if server is not None and self.bound:
            findings.attempt(place, server.privilegedStartService)
        return server, None

    def commit(self, prepared: Prepared) -> None:
        """Take a configuration into use that was prepared in this turn of the reactor."""
        admin = self.admin
        if prepared.admin_change is not None:
            prepared.admin_change.commit()
        elif prepared.admin is not None:
            self.admin = prepared.admin
            if self.running:
                prepared.admin.startService()
        elif admin is not None:
            # Its address is free at once; connections are closed after the response to the reload request.
            self.admin = None
            admin.listener.stop_accepting()
            self.world.reactor.callLater(1.0, admin.stopService)
        assembly, old = prepared.assembly, self.config
        departing = [each.listener for each in assembly.departing]
        for listener in departing:
            self._departing[listener] = None
        successions = assembly.successions
        self._adopt(assembly)
        for listener in departing:
            listener.emptied().addCallback(partial(self._departed, listener))
        if self.running:
            self._start(successions)
        self.inspector.parts.journal.add("reload", **prepared.changes.to_json())
        self.taken(old, assembly.config)

    def take(self, loaded: Loaded, generation: int) -> Report:
        """
        Prepare and commit another configuration.

        @param generation: its generation, if it has any changes.
        @raise ConfigError: if it can't be used; nothing has changed then.
        """
        prepared = self.prepare(loaded)
        self.commit(prepared)
        number = generation if prepared.changes else self.reloading.generation
        return prepared.report(self.world.file, number)

    def reload(self) -> Deferred[Report]:
        """
        Read the configuration and certificates again, and take them into use if they are valid.

        @return: the report; never fails.
        """
        self.world.reloader.poll()
        if self.admin is not None:
            self.admin.reload_certificates()
        return self.reloading.reload()

    def examine(self, loaded: Loaded) -> Report:
        """
        Return the report of another configuration without taking it into use.

        @raise ConfigError: if it can't be used.
        """
        prepared = self.prepare(loaded, dry=True)
        prepared.discard()
        return prepared.report(self.world.file, self.reloading.generation)

    def _adopt(self, assembly: Assembly) -> None:
        """Take an assembly into use."""
        old, world = self.assembly, self.world
        new = [assembly.clusters[name].cluster for name in assembly.new_clusters]
        self.assembly = assembly
        for cluster in new:
            self._watch(cluster)
        assembly.commit()
        if assembly.counts != old.counts:
            for cluster in world.clusters:  # including those that agents have brought
                self._watch(cluster)
        parts = self.inspector.parts
        parts.config = assembly.config
        for server in world.tunnels.values():
            server.tally.on_refusal = partial(note_refused, parts) if assembly.counts else None
        self.agents[:] = [parts.agent for parts in assembly.agents.values()]
        watched = [*assembly.client_contexts, *assembly.server_contexts]
        if world.fleet_resources.tls is not None:
            watched += world.fleet_resources.tls
        if world.fleet_resources.store_tls is not None:
            watched.append(world.fleet_resources.store_tls)
        world.reloader.watch(watched)

    def _watch(self, cluster: Cluster) -> None:
        """Record changes of a cluster's hosts for the admin API, if there is one."""
        parts = self.inspector.parts
        cluster.on_change = partial(note_change, parts, cluster.name) if self.assembly.counts else None
        for host in cluster.hosts.values():
            if self.assembly.counts:
                parts.agent_index.found(cluster.name, host)
            else:
                parts.agent_index.left(host)

    def _start(self, successions: Iterable[tuple[Agent | None, Agent | None]]) -> None:
        """Start what is new, and stop what it replaces."""
        set_limit(self.config.server.max_unfinished_size)
        set_handshake_share(self.config.server.tls_handshake_share)
        if self.assembly.counts:
            self.inspector.parts.sampler.start()
        else:
            self.inspector.parts.sampler.stop()
        self.world.clusters.start()
        for listener in self.world.listeners.values():
            listener.startService()
        self._opening.start()
        for old, new in successions:
            if new is not None:
                new.startService()
            if old is not None:
                succession = Succession(old, new, self.world.reactor)
                self._successions.add(succession)
                succession.begin().addCallback(partial(self._succeeded, succession))

    def start(self) -> None:
        """Start serving; new parts are started at once from now on."""
        self.running = True
        self._opening.start()
        self._doors.start()

    def stop(self) -> None:
        """Stop the periodic checks."""
        self._opening.stop()
        self._doors.stop()

    def _departed(self, listener: Listener, _: None) -> None:
        self._departing.pop(listener, None)

    def _succeeded(self, succession: Succession, _: None) -> None:
        self._successions.discard(succession)

    # removed parts

    @property
    def departing(self) -> Sequence[Listener]:
        """Removed listeners that still have connections."""
        return list(self._departing)

    @property
    def leaving(self) -> Sequence[Agent]:
        """Replaced or removed agents that have not stopped yet."""
        return [each.old for each in self._successions]

    def hurry(self) -> None:
        """Stop replaced agents now, rather than wait for their replacements."""
        for each in list(self._successions):
            each.hurry()
