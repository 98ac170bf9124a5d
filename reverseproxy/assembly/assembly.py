"""
The running objects of one configuration, and the change from one configuration to the next.

An L{Assembly} is built beside the one in use, with which it shares whatever has not
changed.  If a part can't be built, such as a certificate or an address, it is discarded,
and nothing has changed.  Otherwise L{Assembly.commit} takes it into use in one step,
without returning to the reactor, and releases what is not needed any more.
"""

from __future__ import annotations

__all__ = ["Assembly"]

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from reverseproxy.assembly.changes import Pairing, pair_agents
from reverseproxy.assembly.clusters import ClusterBuilder, ClusterParts
from reverseproxy.assembly.listeners import LISTENERS, ListenerBuilder, ListenerParts, binding_of, is_tunnel
from reverseproxy.assembly.routers import Routers
from reverseproxy.assembly.surroundings import AgentParts, Surroundings
from reverseproxy.assembly.tracing import build_tracing
from reverseproxy.assembly.world import World
from reverseproxy.config.diagnostics import Diagnostics
from reverseproxy.config.models import Config, ProxyConfig, TunnelAgentConfig
from reverseproxy.listener import BoundPort, ListenerFailed
from reverseproxy.problems import DOCUMENT, Problem
from reverseproxy.proxy.access import AccessLog
from reverseproxy.proxy.readiness import sole_dialects
from reverseproxy.tunnel.server.served import ServedTunnel

if TYPE_CHECKING:
    from reverseproxy.assembly.agents import AgentBuilder
    from reverseproxy.tunnel.agent.agent import Agent
    from reverseproxy.tunnel.server.filter import TunnelServer

log = Logger()

LOGS_LINGER = 5.0
"""Seconds for which a removed access log stays open after the timeout of requests in progress."""


class Assembly:
    """
    The running objects of one configuration.

    @ivar config: the configuration.
    @ivar findings: the problems and warnings of building.
    @ivar clusters: by name.
    @ivar listeners: by name.
    @ivar successions: pairs of a stopping agent and its replacement; L{None} for no replacement, or
        for a new agent that replaces none.
    @ivar agents: the enabled agents with a share for this process, by their index among all
        agents of the configuration.
    """

    def __init__(self, world: World, config: Config, old: Assembly | None = None, dry: bool = False) -> None:
        """
        Build what is new; nothing is in use, bound or dialled yet.

        @param old: the assembly in use; L{None} at the start.
        @param dry: whether to only check that it can be built.
        """
        self.config = config
        self.findings = Diagnostics(world.file, config.elsewhere)
        self._world = world
        self._old = old
        self._steps: list[Callable[[], object]] = []
        self._ports: dict[str, BoundPort] = {}
        self.has_admin = config.admin is not None and bool(config.admin.bound)
        # In a fleet, operators may use the admin API of another server for agents of this one.
        self.counts = self.has_admin or world.counted or config.fleet is not None
        options = None if config.tracing is None else config.tracing.options
        if old is None and options is not None:
            world.tracing = self.findings.attempt(
                DOCUMENT / "tracing" / "driver", partial(build_tracing, options, world.reactor)
            )
        if old is None and config.fleet is not None:
            from reverseproxy.assembly.fleet import build_fleet

            world.fleet = self.findings.attempt(
                DOCUMENT / "fleet",
                partial(
                    build_fleet, world, self.findings, config.fleet, world.fleet_resources.make_directory
                ),
            )
        elif old is not None:
            self._change_directory(old)
        self._cluster_builder = ClusterBuilder(
            world, self.findings, any(is_tunnel(each) for each in config.server.listeners)
        )
        self.clusters = {c.name: self._cluster(i, c) for i, c in enumerate(config.cluster_manager.clusters)}
        self.routers: Routers = Routers(
            world, self.findings, config.routers, None if old is None else old.routers
        )
        builder = self._listener_builder = ListenerBuilder(
            world,
            self.findings,
            self.routers.find,
            self.counts,
            dry or world.dry,
            {each.name: each for each in config.cluster_manager.clusters},
        )
        before = {} if old is None else old.listeners
        self.listeners: dict[str, ListenerParts] = {
            each.name: builder.build(index, each, before.get(each.name))
            for index, each in enumerate(config.server.listeners)
        }
        around: Surroundings = Surroundings(
            config,
            {name: parts.listener for name, parts in self.listeners.items()},
            {name: parts.cluster for name, parts in self.clusters.items()},
            {} if old is None else old._around.reaches,
        )
        self._around: Surroundings = around
        self._shares = self._shares_of(config)
        self._agent_builder: AgentBuilder | None = None
        if any(share is not None for share in self._shares) or (
            old is not None and old._agent_builder is not None
        ):
            from reverseproxy.assembly.agents import AgentBuilder

            self._agent_builder = AgentBuilder(world, self.findings, around)
        self.successions: list[tuple[Agent | None, Agent | None]] = []
        self.agents = self._build_agents()

    # parts

    @property
    def access_logs(self) -> Iterator[AccessLog]:
        """The open access logs."""
        for parts in self.listeners.values():
            for _, each in parts.logs:
                yield each
        yield from self._world.fleet_resources.logs

    @property
    def client_contexts(self) -> list[Any]:
        """The TLS contexts of connections to hosts and to tunnel servers."""
        found: list[Any] = [parts.tls for parts in self.clusters.values() if parts.tls is not None]
        found += [tls for parts in self.agents.values() for tls in parts.tls]
        return list(dict.fromkeys(found))

    @property
    def server_contexts(self) -> list[Any]:
        """The TLS contexts of listeners."""
        return [parts.tls for parts in self.listeners.values() if parts.tls is not None]

    # building

    def _change_directory(self, old: Assembly) -> None:
        """Prepare a change of C{fleet.etcd}."""
        fleet, before, config = self._world.fleet, old.config.fleet, self.config.fleet
        if fleet is None or before is None or config is None or before.etcd == config.etcd:
            return
        from reverseproxy.assembly.directory import DirectoryChange
        from reverseproxy.fleet.directory import FleetDirectory

        if isinstance(fleet.directory, FleetDirectory):
            prepare = partial(DirectoryChange, fleet.directory, config, before, self._world, self.findings)
            change = self.findings.attempt(DOCUMENT / "fleet" / "etcd", prepare)
            if change is not None:
                self._steps.append(change.commit)

    def _cluster(self, index: int, config: Any) -> ClusterParts:
        old = None if self._old is None else self._old.clusters.get(config.name)
        if old is None:
            if config.name in self._world.clusters:
                place = DOCUMENT / "cluster_manager" / "clusters" / index / "name"
                problem = "an agent has brought a cluster of this name: take another, or end that first"
                self.findings.add(Problem.at(place, problem))
            return self._cluster_builder.build(index, config)
        parts, change = self._cluster_builder.change(index, config, old)
        self._steps.append(change)
        return parts

    def _shares_of(self, config: Config) -> list[TunnelAgentConfig | None]:
        """Return this process's share of each agent; L{None} for an agent without one."""
        worker = self._world.worker
        shares: list[TunnelAgentConfig | None] = []
        for index, extension in enumerate(config.extends):
            agent = extension.config
            if isinstance(agent, TunnelAgentConfig):
                share = agent if worker is None else worker.share_of_agent(agent, index)
                shares.append(share if agent.enable else None)
        return shares

    def _places(self) -> list[int]:
        """Return the indices of agents among C{extends}."""
        extends = enumerate(self.config.extends)
        return [index for index, each in extends if isinstance(each.config, TunnelAgentConfig)]

    def _pairing(self) -> Pairing:
        """Match the agents with those in use; both are numbered among the agents with a share."""
        before = () if self._old is None else tuple(parts.config for parts in self._old.agents.values())
        return pair_agents(before, [share for share in self._shares if share is not None])

    def _build_agents(self) -> dict[int, AgentParts]:
        before = [] if self._old is None else list(self._old.agents.values())
        pairing = self._pairing()
        agents: dict[int, AgentParts] = {}
        left = dict(enumerate(before))
        places = self._places()
        shares = [(place, share) for place, share in enumerate(self._shares) if share is not None]
        for number, (place, share) in enumerate(shares):
            assert self._agent_builder is not None
            same = pairing.same.get(number)
            if same is not None and self._around.hosts_alike(before[same], share.hosting_listener):
                del left[same]
                agents[place] = before[same]
                continue
            changed = pairing.changed.get(number)
            if changed is not None and self._around.hosts_alike(before[changed], share.hosting_listener):
                kept = self._agent_builder.adapt(places[place], share, before[changed])
                if kept is not None:
                    del left[changed]
                    agents[place] = kept
                    self._steps.append(partial(kept.agent.adapt, share))
                    continue
            agents[place] = self._agent_builder.build(places[place], share)
            predecessor = pairing.changed.get(number, same)
            old = None if predecessor is None else left.pop(predecessor).agent
            self.successions.append((old, agents[place].agent))
        self.successions += [(parts.agent, None) for parts in left.values()]
        return agents

    # addresses

    def bind(self) -> None:
        """
        Bind the new addresses beside the present ones; errors are added to C{findings}.

        To be called before L{commit}, and in the same turn of the reactor.
        """
        old = {} if self._old is None else self._old.listeners
        owners = {binding_of(parts.config): name for name, parts in old.items()}
        for index, (name, parts) in enumerate(self.listeners.items()):
            wanted = binding_of(parts.config)
            owner = owners.get(wanted)
            if wanted is None or owner == name or self._gives_away(owner, wanted):
                continue
            worker = self._world.worker
            listen = None if worker is None else worker.listen_for(name)
            try:
                self._ports[name] = parts.listener.bind(parts.config, parts.tls is not None, listen)
            except ListenerFailed as error:
                self.findings.add(Problem.at(LISTENERS / index / "address", str(error)))

    def _gives_away(self, owner: str | None, address: object) -> bool:
        """Return whether a listener gives its address up, so that another one can take the socket over."""
        if owner is None:
            return False
        parts = self.listeners.get(owner)
        return parts is None or binding_of(parts.config) != address

    def _move_ports(self) -> None:
        """Move the listening sockets: to each listener its own, that of another one, or a new one."""
        assert self._old is not None
        free: dict[object, BoundPort] = {}
        for name, parts in self._old.listeners.items():
            key = binding_of(parts.config)
            new = self.listeners.get(name)
            if key is not None and (new is None or binding_of(new.config) != key):
                port = parts.listener.give_port()
                if port is not None:
                    free[key] = port
        for name, parts in self.listeners.items():
            key = binding_of(parts.config)
            if key is None or parts.listener.listening:
                continue
            port = self._ports.pop(name, None) or free.pop(key, None)
            if port is not None:
                parts.listener.take_port(port)
        for port in free.values():
            port.door.listener.close_port(port)

    # committing

    def discard(self) -> None:
        """Release what is new, as this assembly is not taken into use."""
        for name, port in self._ports.items():
            self.listeners[name].listener.close_port(port)
        self._ports.clear()
        for each in self._listener_builder.opened:
            each.close()

    def commit(self) -> None:
        """Take this assembly into use, and release what is not used any more."""
        world, old = self._world, self._old
        before = {} if old is None else old.clusters
        for name, cluster in self.clusters.items():
            if name not in before:
                if world.siblings is not None:
                    world.siblings.share(cluster.cluster)
                world.clusters.add(cluster.cluster)
                if world.fleet is not None:
                    world.fleet.share(cluster.cluster)
        for step in self._steps:
            step()
        names = [
            each.config.router_config_name
            for parts in self.listeners.values()
            for each in parts.config.filter_chain.filters
            if isinstance(each.config, ProxyConfig)
        ]
        self.routers.commit(names)
        dialects = sole_dialects(self.config)
        for name, cluster in self.clusters.items():
            self._cluster_builder.prepare(cluster, dialects.get(name))
        self._commit_listeners()
        if self._agent_builder is not None:
            self._agent_builder.follow(list(self.agents.values()))
        if old is not None:
            self._leave(old)
        self._old = None
        self._steps.clear()
        if world.fleet_resources.arbiter is not None:
            world.fleet_resources.arbiter.review()

    def _commit_listeners(self) -> None:
        world = self._world
        before = {} if self._old is None else self._old.listeners
        for name, parts in self.listeners.items():
            old = before.get(name)
            if old is not None and parts is not old:
                count = parts.listener.change(parts.config, parts.build, parts.tls)
                if count:
                    log.info(
                        "listener {listener}: {count} connections speak what is not spoken here any more, "
                        "and are closed when what is under way is over",
                        listener=name,
                        count=count,
                    )
            if not self.counts:
                world.tallies.pop(name, None)
        # Listeners that agents have brought stay.
        for name in before:
            world.listeners.pop(name, None)
        world.listeners.update((name, parts.listener) for name, parts in self.listeners.items())
        servers: dict[str, TunnelServer] = {}
        for name, parts in self.listeners.items():
            build = parts.listener.build
            if isinstance(build, ServedTunnel):
                servers[name] = build.server
                build.server.transport_policy.demand(parts.tls, parts.config.inspector)
                build.server.workers.adopt = parts.listener.adopt
        world.tunnels.clear()
        world.tunnels.update(servers)
        if world.siblings is not None:
            world.siblings.serve(servers, {name: self.listeners[name].listener for name in servers})
        if self._old is not None:
            self._move_ports()

    def _leave(self, old: Assembly) -> None:
        """Release what only the old assembly has used."""
        world = self._world
        seconds = self.config.server.graceful_timeout
        for name, listener in old.listeners.items():
            if name not in self.listeners:
                world.tallies.pop(name, None)
                if isinstance(listener.listener.build, ServedTunnel):
                    listener.listener.build.server.revocations.revoke_all("its listener is no more")
                listener.listener.leave(seconds)
            elif isinstance(listener.listener.build, ServedTunnel):
                changed = self.listeners[name] is not listener
                listener.listener.build.server.revocations.review(credentials=changed)
        for name, cluster in old.clusters.items():
            if name not in self.clusters:
                self._cluster_builder.remove(cluster)
                world.clusters.remove(name)
        kept = set(self.access_logs)
        for each in old.access_logs:
            if each not in kept:
                each.flush()
                world.reactor.callLater(seconds + LOGS_LINGER, each.close)

    # differences from the assembly in use, before the commit

    @property
    def new_clusters(self) -> list[str]:
        """The names of new clusters."""
        before = {} if self._old is None else self._old.clusters
        return [name for name in self.clusters if name not in before]

    @property
    def departing(self) -> list[ListenerParts]:
        """The listeners that are removed."""
        before = {} if self._old is None else self._old.listeners
        return [parts for name, parts in before.items() if name not in self.listeners]
