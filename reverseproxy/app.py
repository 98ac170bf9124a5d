"""
From a configuration to a running tree of services.

This is the only file that knows every room.
"""

from __future__ import annotations

__all__ = ["ReverseProxy"]

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger

from reverseproxy.addresses import host_of
from reverseproxy.admin import AdminServer, Inspector, LocalSource
from reverseproxy.admin.agents import AgentIndex
from reverseproxy.admin.inspector import Parts, note_change
from reverseproxy.clock import wall_time
from reverseproxy.cluster.building import add_hosts, host_maker, make_cluster
from reverseproxy.cluster.directory import RUNNING
from reverseproxy.cluster.first_host import FirstHost
from reverseproxy.cluster.health.reach import Reach
from reverseproxy.cluster.health.stalls import Stalls
from reverseproxy.cluster.host import StaticHost
from reverseproxy.cluster.manager import Cluster, ClusterManager
from reverseproxy.config.models import (
    ClusterConfig,
    Config,
    FilterConfig,
    HostConfig,
    ListenerConfig,
    ProxyConfig,
    RouterConfig,
    TcpProxyConfig,
    TlsContextConfig,
    TunnelAgentConfig,
    TunnelConfig,
)
from reverseproxy.errors import ConfigError, CredentialMissing, Problem
from reverseproxy.interfaces import ICredentialCheck, ICredentialSource
from reverseproxy.limiter import ConnectionLimiter
from reverseproxy.listener import BuildProtocol, Listener, bind_all
from reverseproxy.metrics import Journal, RequestTally
from reverseproxy.proxy.access_log import AccessLog, AccessRecord
from reverseproxy.proxy.filters import FilterChain, build_chain
from reverseproxy.proxy.protocols import ProxyPlan, build_proxy, session_idle
from reverseproxy.proxy.readiness import Readiness, destinations, sole_dialects
from reverseproxy.proxy.rpc.health import rpc_checkers
from reverseproxy.proxy.tcp.sessions import TcpProxy, TcpProxySettings, TcpRouter
from reverseproxy.routing import Router
from reverseproxy.sockets import PeerSweep
from reverseproxy.tls import CertificateReloader, ClientTls, ServerTls
from reverseproxy.tunnel.agent.agent import Agent, AgentPlan, new_agent_id
from reverseproxy.tunnel.agent.discovery import Discovery, Target
from reverseproxy.tunnel.agent.service import HostedService
from reverseproxy.tunnel.plugins import find_credential_source, find_lister, find_validator, names
from reverseproxy.tunnel.server.exclusions import Exclusions
from reverseproxy.tunnel.server.filter import TunnelServer
from reverseproxy.unfinished import set_limit
from reverseproxy.wire.mosn.extensions import Announcement
from reverseproxy.workers.worker import Worker

log = Logger()

_T = TypeVar("_T")

_DOCUMENT = ("servers[", "cluster_manager.", "extends[")
"""How a place in the whole document begins."""


@dataclass(frozen=True, slots=True)
class _Shared:
    """What all network filters of a listener share."""

    access_log: Callable[[AccessRecord], None] | None
    filters: FilterChain | None


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
        self._config = config
        self._file = file
        self._dry = dry
        self._worker = worker
        self._reactor = reactor
        self._random = random
        self._problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.missing: list[Problem] = []
        self._access_logs: list[AccessLog] = []
        self._reloader = CertificateReloader(reactor)
        self._sweep = PeerSweep(reactor)
        self._limiter = ConnectionLimiter(reactor)
        self._client_contexts: dict[int, ClientTls] = {}
        self._counts = config.admin is not None and bool(config.admin.bound)
        self._tallies: dict[str, RequestTally] = {}
        self._tunnels: dict[str, TunnelServer] = {}
        self._exclusions = Exclusions(reactor.seconds)
        self.clusters = ClusterManager(
            [self._cluster(i, c) for i, c in enumerate(config.cluster_manager.clusters)]
        )
        self._siblings = None if worker is None else worker.join(self.clusters)
        self._routers: dict[str, Router] = {}
        for place, router in config.routers.values():
            self._try(place, partial(self._router, router, place))
        self.listeners = {c.name: self._listener(i, c) for i, c in enumerate(config.server.listeners)}
        self._prepare_clusters()
        self.agents = []
        self._reaches: dict[str, Reach] = {}
        for index, extension in enumerate(config.extends):
            agent = extension.config
            if isinstance(agent, TunnelAgentConfig) and agent.enable:
                share = agent if worker is None else worker.share_of_agent(agent, index)
                if share is not None:
                    self.agents.append(self._agent(index, share))
        self.inspector = self._inspector()
        self.admin = self._admin_server() if worker is None else None
        if self._problems:
            self._close_access_logs()
            raise ConfigError(*self._problems)

    # building

    def _inspector(self) -> Inspector:
        """Make what answers questions about this process."""
        journal = Journal(wall_time)
        parts = Parts(
            config=self._config,
            clusters=self.clusters,
            listeners=self.listeners,
            agents=self.agents,
            journal=journal,
            tallies=self._tallies,
            tunnels=self._tunnels,
            certificates=self._certificates,
            seconds=self._reactor.seconds,
            stopping=lambda: self._stopping,
            agent_index=AgentIndex(self._exclusions, wall_time),
        )
        if self._counts:
            for cluster in self.clusters:
                cluster.on_change = partial(note_change, parts, cluster.name)
        return Inspector(parts)

    def _certificates(self) -> list[dict[str, Any]]:
        """What is in use and has an end."""
        return [
            {"use": place, "name": item.name, "not_before": item.begins, "not_after": item.ends}
            for place, item in self._reloader.dated
        ]

    def _admin_server(self) -> AdminServer | None:
        if not self._counts:
            return None
        build = partial(AdminServer, self._config, self._reactor, LocalSource(self.inspector), self._file)
        server = self._try("admin", build)
        if server is not None and server.tls is not None:
            self._watch(server.tls)
        return server

    def answer(self, question: str, arguments: Mapping[str, Any]) -> Any:
        """Answer a question about this process; see L{Inspector}."""
        return self.inspector.answer(question, arguments)

    def _tally(self, listener: str) -> RequestTally | None:
        """What counts a listener's requests, if anybody may ask."""
        return self._tallies.setdefault(listener, RequestTally(listener)) if self._counts else None

    def _try(self, path: str, build: Callable[[], _T]) -> _T | None:
        """Build something; a failure is noted under its place in the document."""
        problems: tuple[Problem, ...] = ()
        try:
            return build()
        except ConfigError as error:
            problems = error.problems
        except ValueError as error:
            problems = (Problem("", "", str(error)),)
        for problem in problems:
            placed = self._placed(path, problem)
            # What several hosts or servers share is wrong once.
            if placed not in self._problems:
                self._problems.append(placed)
        return None

    def _placed(self, path: str, problem: Problem) -> Problem:
        """
        Put a problem in its place in the document.

        @param path: where the part stands that has it, unless the problem tells
            itself, by a path in that part or in the whole document.
        """
        if not problem.path.startswith(_DOCUMENT):
            path = f"{path}.{problem.path}" if problem.path else path
        else:
            path = problem.path
        return Problem(self._file, path, problem.message)

    def _cluster(self, index: int, config: ClusterConfig) -> Cluster:
        path = f"cluster_manager.clusters[{index}]"
        checkers = rpc_checkers(self._reactor)
        workers = 1 if self._worker is None else self._worker.workers
        cluster = make_cluster(config, self._reactor, self._random, checkers, workers)
        if any(_is_tunnel(listener) for listener in self._config.server.listeners):
            cluster.add_task(Stalls(cluster, self._reactor))
            if not config.hosts:
                cluster.add_task(FirstHost(cluster, self._reactor, config.first_host_wait))
        hosts = []
        for number, host in enumerate(config.hosts):
            make = self._try(f"{path}.hosts[{number}]", partial(self._host_maker, config, host, path))
            if make is not None:
                hosts.append((host, make))
        self._try(path, partial(add_hosts, cluster, hosts, self._reactor, self._random.random))
        return cluster

    def _prepare_clusters(self) -> None:
        """Let RPC protocols send heartbeats to hosts that have had no request yet."""
        for name, dialect in sole_dialects(self._config).items():
            if name in self.clusters:
                self.clusters.get(name).add_task(Readiness(dialect, self._reactor))

    def _host_maker(
        self, cluster: ClusterConfig, config: HostConfig, path: str
    ) -> Callable[[str], StaticHost]:
        tls = None
        if cluster.tls_context is not None and not config.tls_disable:
            owner = "cluster_manager" if cluster.cluster_manager_tls else path
            tls = self._client_tls(cluster.tls_context, host_of(config.address), f"{owner}.tls_context")
        return host_maker(cluster, config, self._reactor, tls)

    def _router(self, config: RouterConfig, place: str = "") -> None:
        router = Router(config, self._file, place, self._random.random)
        self._routers[config.router_config_name] = router
        self.warnings += router.warnings

    def _client_tls(self, context: TlsContextConfig, name: str, path: str) -> ClientTls:
        # The hosts of a cluster share one: the system's authorities take a megabyte each time.
        shared = self._client_contexts.get(id(context))
        if shared is not None:
            return shared.named(name)
        tls = self._client_contexts[id(context)] = ClientTls(context, name, path)
        self._watch(tls)
        return tls

    def _server_tls(self, contexts: Sequence[TlsContextConfig], path: str) -> ServerTls:
        tls = ServerTls(contexts, path)
        self._watch(tls)
        return tls

    def _watch(self, tls: ClientTls | ServerTls) -> None:
        """Keep up with the files of a C{tls_context}, and warn of what is about to expire."""
        self._reloader.add(tls)
        self.warnings += [self._placed("", problem) for problem, _ in tls.expiring()]

    def _listener(self, index: int, config: ListenerConfig) -> Listener:
        path = f"servers[0].listeners[{index}]"
        contexts = config.filter_chain.tls_contexts
        tls = None
        if contexts:
            place = f"{path}.filter_chains[0].tls_context"
            tls = self._try(place, partial(self._server_tls, contexts, place))
        workers = 1 if self._worker is None else self._worker.workers
        filters = build_chain(config.stream_filters, self._reactor, self._random.random, workers)
        shared = _Shared(self._access_log(config, path), filters)
        build = self._first_filter(config, f"{path}.filter_chains[0]", shared, 0)
        listen = None if self._worker is None else self._worker.listen_for(config.name)
        return Listener(config, build, self._reactor, tls, listen, self._limiter)

    def _first_filter(
        self,
        config: ListenerConfig,
        path: str,
        shared: _Shared,
        start: int,
    ) -> BuildProtocol | None:
        """Find the first filter that serves; C{start} is the number of the first one to look at."""
        for number, each in list(enumerate(config.filter_chain.filters))[start:]:
            fallback = None
            if isinstance(each.config, ProxyConfig) and each.config.falls_back:
                fallback = self._first_filter(config, path, shared, number + 1)
            build = self._try(
                f"{path}.filters[{number}]", partial(self._filter, config, each, shared, fallback)
            )
            if build is not None:
                return build
        return None

    def _access_log(self, config: ListenerConfig, path: str) -> Callable[[AccessRecord], None] | None:
        logs = []
        for index, each in enumerate(config.access_logs):
            place = f"{path}.access_logs[{index}]"
            access_log = self._try(
                place,
                partial(
                    AccessLog,
                    each.log_path,
                    each.log_format,
                    self._reactor,
                    config.name,
                    self._dry,
                    0 if self._worker is None else self._worker.number + 1,
                ),
            )
            if access_log is not None:
                self.warnings += [self._placed(place, warning) for warning in access_log.warnings]
                logs.append(access_log)
        self._access_logs += logs
        if len(logs) < 2:
            return logs[0].write if logs else None

        def write_all(record: AccessRecord) -> None:
            for each in logs:
                each.write(record)

        return write_all

    def _filter(
        self,
        listener: ListenerConfig,
        each: FilterConfig,
        shared: _Shared,
        fallback: BuildProtocol | None,
    ) -> BuildProtocol | None:
        """
        Make what builds a listener's protocols, if the filter is one that serves.

        @param fallback: what the filters after it build, where this one leaves
            connections to them.
        """
        match each.config:
            case ProxyConfig() as proxy:
                router = self._routers.get(proxy.router_config_name)
                if router is None:
                    # There is none of this name, so that all requests are answered with 404, as in MOSN;
                    # or it could not be built, which is noted already.
                    router = Router(RouterConfig(router_config_name=proxy.router_config_name))
                plan = ProxyPlan(
                    listener=listener.name,
                    config=proxy,
                    router=router,
                    clusters=self.clusters,
                    clock=self._reactor,
                    filters=shared.filters,
                    idle_timeout=listener.connection_idle_timeout,
                    access_log=shared.access_log,
                    random=self._random.random,
                    tally=self._tally(listener.name),
                )
                return build_proxy(plan, fallback)
            case TcpProxyConfig() as tcp:
                tcp_settings = TcpProxySettings(
                    listener=listener.name,
                    router=TcpRouter(tcp),
                    clusters=self.clusters,
                    clock=self._reactor,
                    idle_timeout=session_idle(tcp.idle_timeout, listener.connection_idle_timeout),
                    access_log=shared.access_log,
                    tally=self._tally(listener.name),
                )
                return partial(TcpProxy, tcp_settings)
            case TunnelConfig() as tunnel:
                server = TunnelServer(
                    listener=listener.name,
                    config=tunnel,
                    clusters=self.clusters,
                    clock=self._reactor,
                    find_validator=find_validator,
                    policies=names().validators,
                )
                self._tunnels[listener.name] = server
                server.exclusions = self._exclusions
                if self._worker is not None and self._siblings is not None:
                    server.unix_prefix = f"{self._worker.number + 1}."
                    server.evict_elsewhere = partial(self._siblings.evict, listener.name)
                    self._siblings.servers[listener.name] = server
                return server.build_protocol
            case _:
                return None

    def _agent(self, index: int, config: TunnelAgentConfig) -> Agent:
        path = f"extends[{index}].config"
        credentials = None
        if config.credential_policy:
            credentials = self._try(
                f"{path}.credential_config",
                partial(find_credential_source, config.credential_policy, config.credential_config),
            )
            self._look_for_credential(credentials, f"{path}.credential_config")
        agent_id = new_agent_id()
        # Bounds of what is announced are a matter of the configuration, not of each dial.
        self._try(f"{path}.metadata", partial(Announcement, agent_id, metadata=config.metadata))
        contexts: dict[str, ClientTls] = {}

        def client_tls(server: str) -> ClientTls:
            assert config.tls_context is not None
            name = host_of(server)
            if name not in contexts:
                contexts[name] = self._client_tls(config.tls_context, name, f"{path}.tls_context")
            return contexts[name]

        if config.tls_context is not None:
            # Servers that a lister finds are not known yet, but the files are.
            for server in config.server_list or ("localhost:0",):
                self._try(f"{path}.tls_context", partial(client_tls, server))
        plan = AgentPlan(
            config=config,
            sink=self.listeners[config.hosting_listener],
            reactor=self._reactor,
            random=self._random,
            credentials=credentials,
            client_tls=client_tls if config.tls_context is not None else None,
            agent_id=agent_id,
            service=self._service(config) if config.announce else None,
            raw=self._relays(config.hosting_listener),
        )
        dynamic = config.dynamic_server_list_config
        lister = None
        if dynamic.dynamic_server_lister:
            lister = self._try(
                f"{path}.dynamic_server_list_config",
                partial(
                    find_lister, dynamic.dynamic_server_lister, config.cluster, dynamic.config, self._reactor
                ),
            )

        def discover(update: Callable[[Sequence[Target]], None]) -> Discovery:
            return Discovery(
                config.server_list,
                update,
                self._reactor,
                self._reactor,
                lister=lister,
                refresh=config.dns_refresh_duration,
                random=self._random.random,
                cluster=config.cluster,
            )

        return Agent(plan, discover)

    def _service(self, config: TunnelAgentConfig) -> HostedService:
        """Follow whether what an agent makes reachable can be reached, if that can be known."""
        name = config.hosting_listener
        clusters = destinations(self._config, name)
        if not clusters or not all(each in self.clusters and self._hosts_of(each) for each in clusters):
            return HostedService(name)
        reaches = []
        for each in sorted(clusters):
            if each not in self._reaches:
                cluster = self.clusters.get(each)
                self._reaches[each] = Reach(cluster, self._reactor, config.service_check_interval)
                cluster.add_task(self._reaches[each])
            self._reaches[each].want(config.service_check_interval)
            reaches.append(self._reaches[each])
        return HostedService(name, reaches)

    def _hosts_of(self, cluster: str) -> bool:
        """Whether a cluster has hosts in the configuration."""
        return any(each.name == cluster and each.hosts for each in self._config.cluster_manager.clusters)

    def _relays(self, listener: str) -> bool:
        """Whether a listener relays bytes, whatever they are."""
        filters = self.listeners[listener].config.filter_chain.filters
        return all(isinstance(each.config, TcpProxyConfig) for each in filters)

    def _look_for_credential(self, source: ICredentialSource | None, path: str) -> None:
        """Note a credential that isn't there now; it may come, as each dial looks for it anew."""
        check = None if source is None else ICredentialCheck(source, None)
        if check is not None:
            try:
                check.check()
            except CredentialMissing as error:
                self.missing.append(Problem(self._file, path, str(error)))

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
        set_limit(self._config.server.max_unfinished_size)
        if self.admin is not None:
            self.admin.startService()
        self._reloader.start()
        self._sweep.start()
        self.clusters.start()
        RUNNING.add(self.clusters)
        for listener in self.listeners.values():
            listener.startService()
        for agent in self.agents:
            agent.startService()
        if self._worker is not None:
            self._worker.start(self)

    def stopService(self) -> Deferred[None]:
        """
        Finish what is under way, then stop.

        In this order, so that nothing is cut off that something else still
        needs: clients' listeners, whose requests may go through the tunnels;
        agents; tunnel listeners.  A worker waits for the others after the first
        of these, as their requests may go through its tunnels.  A process without a tunnel server of its own
        lets its agents go at the same time as its listeners, so that the
        servers send no more requests here.

        @return: fires when everything is closed.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        seconds = self._config.server.graceful_timeout
        tunnels = [each for each in self.listeners.values() if _is_tunnel(each.config)]
        others = [each for each in self.listeners.values() if each not in tunnels]
        log.info("stopping: requests under way may take up to {seconds:g} s", seconds=seconds)
        self._stopping = True
        worker = self._worker
        if worker is not None:
            worker.stopping()
        drains = [each.drain(seconds) for each in others]
        if tunnels:
            await DeferredList(drains, consumeErrors=True)
            drains = []
            if worker is not None:
                await worker.drained()
        if not self._cut_short:
            drains += [agent.drain() for agent in self.agents]
        await DeferredList(drains, consumeErrors=True)
        for agent in self.agents:
            agent.stopService()
        await DeferredList([each.stopService() for each in self.listeners.values()], consumeErrors=True)
        if worker is not None:
            worker.stop()
        RUNNING.remove(self.clusters)
        self.clusters.close("stopping")
        self._reloader.stop()
        self._sweep.stop()
        self._close_access_logs()
        if self.admin is not None:
            await self.admin.stopService()
        log.info("stopped")

    def cut_short(self) -> None:
        """While stopping, wait no longer for what is under way; at any other time, do nothing."""
        if self._cut_short or not self._stopping:
            return
        self._cut_short = True
        log.warn("asked again to stop: what is still under way is cut off")
        for agent in self.agents:
            agent.stopService()
        for listener in self.listeners.values():
            if not _is_tunnel(listener.config):
                listener.abort()

    def _close_access_logs(self) -> None:
        for access_log in self._access_logs:
            access_log.close()

    def reload_certificates(self) -> None:
        """Look now whether certificates have changed."""
        self._reloader.poll()

    def reopen_logs(self) -> None:
        """Open the access logs anew, after something else has moved them away."""
        for access_log in self._access_logs:
            try:
                access_log.reopen()
            except ConfigError as error:
                log.error("{reason}; the old access log stays in use", reason=str(error))


def _is_tunnel(config: ListenerConfig) -> bool:
    return any(isinstance(each.config, TunnelConfig) for each in config.filter_chain.filters)
