"""Build the listeners of a configuration."""

from __future__ import annotations

__all__ = ["ListenerBuilder", "ListenerParts", "binding_of", "is_tunnel"]

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from reverseproxy.addresses import is_unix
from reverseproxy.assembly.world import World, tell_of_expiry
from reverseproxy.config.diagnostics import Diagnostics
from reverseproxy.config.models import (
    AccessLogConfig,
    ClusterConfig,
    FilterConfig,
    ListenerConfig,
    ProxyConfig,
    TcpProxyConfig,
    TlsContextConfig,
    TunnelConfig,
)
from reverseproxy.listener import BuildProtocol, Listener
from reverseproxy.metrics import RequestTally
from reverseproxy.problems import DOCUMENT, Place
from reverseproxy.proxy.access import AccessLog, AccessRecord
from reverseproxy.proxy.filters import FilterChain, build_chain
from reverseproxy.proxy.idle import session_idle
from reverseproxy.proxy.protocol_builder import ProtocolBuilder
from reverseproxy.proxy.tcp.router import TcpRouter
from reverseproxy.proxy.tcp.sessions import TcpProxy
from reverseproxy.proxy.tcp.settings import TcpProxySettings
from reverseproxy.routing import Router
from reverseproxy.tls import ServerTls
from reverseproxy.tunnel.plugins import find_validator, names
from reverseproxy.tunnel.server.served import ServedTunnel


@dataclass(frozen=True, slots=True)
class ListenerParts:
    """
    A listener, and the configuration that it was built from.

    @ivar config: its configuration.
    @ivar build: builds the protocols of connections; L{None} if no filter serves them.
    @ivar tls: the TLS to clients; L{None} for plaintext.
    @ivar logs: the open access logs, each with its configuration.
    @ivar counts: whether requests are counted.
    """

    config: ListenerConfig
    listener: Listener
    build: BuildProtocol | None
    tls: ServerTls | None
    logs: tuple[tuple[AccessLogConfig, AccessLog], ...]
    counts: bool


@dataclass(frozen=True, slots=True)
class _Shared:
    """What the network filters of a listener share."""

    access_log: Callable[[AccessRecord], None] | None
    filters: FilterChain | None


def is_tunnel(config: ListenerConfig) -> bool:
    """Return whether a listener has a tunnel filter."""
    return any(isinstance(each.config, TunnelConfig) for each in config.filter_chain.filters)


def binding_of(config: ListenerConfig) -> tuple[bool, str, bool, str] | None:
    """Return what a listener binds, for comparison; L{None} if it binds nothing."""
    if not config.bind_port:
        return None
    unix = config.network == "unix" or is_unix(config.address)
    address = config.address.removeprefix("unix:") if unix else config.address
    # With port 0, each listener has a port of its own.
    own = config.name if not unix and address.endswith(":0") else ""
    return unix, address, config.reuseport, own


LISTENERS: Final = DOCUMENT / "servers" / 0 / "listeners"
"""The place of the listeners in the document."""


class ListenerBuilder:
    """Builds the listeners of one configuration, or changes those that are there."""

    def __init__(
        self,
        world: World,
        findings: Diagnostics,
        router: Callable[[str], Router],
        counts: bool,
        dry: bool,
        clusters: Mapping[str, ClusterConfig] | None = None,
    ) -> None:
        """
        @param router: finds a router by its name.
        @param counts: whether to count requests.
        @param dry: whether to create no log files.
        @param clusters: the configured clusters, by name.
        """
        self._dry = dry
        self._world = world
        self._findings = findings
        self._router = router
        self._counts = counts
        self._clusters = clusters or {}
        self.opened: list[AccessLog] = []
        """The access logs that were opened for this configuration."""

    def build(self, index: int, config: ListenerConfig, old: ListenerParts | None = None) -> ListenerParts:
        """
        Build a listener, or prepare its change.

        @param index: its index in the document.
        @param old: the present listener; L{None} for a new one.
        """
        if old is not None and old.config == config and old.counts == self._counts:
            return old
        world = self._world
        path = LISTENERS / index
        tls = self._tls(config, path, old)
        filters = build_chain(config.stream_filters, world.reactor, world.random.random, world.workers)
        logs = self._logs(config, path, old)
        shared = _Shared(_write_all([log for _, log in logs]), filters)
        build = self._first_filter(config, path / "filter_chains" / 0, shared, 0)
        if old is not None:
            listener = old.listener
        else:
            listen = None if world.worker is None else world.worker.listen_for(config.name)
            listener = Listener(config, build, world.reactor, tls, listen, world.limiter)
        return ListenerParts(config, listener, build, tls, logs, self._counts)

    def _tls(self, config: ListenerConfig, path: Place, old: ListenerParts | None) -> ServerTls | None:
        chain = config.filter_chain
        contexts = chain.tls_contexts
        if not contexts:
            return None
        if old is not None and old.config.filter_chain.tls_contexts == contexts:
            return old.tls
        one, several = (path / "filter_chains" / 0 / name for name in ("tls_context", "tls_context_set"))
        places = [several / number for number, each in enumerate(chain.tls_context_set) if each.status]
        return self._findings.attempt(one, partial(self._server_tls, contexts, one, places))

    def _server_tls(
        self, contexts: Sequence[TlsContextConfig], path: Place, places: Sequence[Place]
    ) -> ServerTls:
        tls = ServerTls(contexts, path, places=places)
        tell_of_expiry(self._findings, tls)
        for warning in tls.shared_names():
            self._findings.add_warning(warning)
        return tls

    def _first_filter(
        self,
        config: ListenerConfig,
        path: Place,
        shared: _Shared,
        start: int,
    ) -> BuildProtocol | None:
        """Build the protocols of the first filter, from the index C{start} on, that serves connections."""
        for number, each in list(enumerate(config.filter_chain.filters))[start:]:
            fallback = None
            if isinstance(each.config, ProxyConfig) and each.config.falls_back:
                fallback = self._first_filter(config, path, shared, number + 1)
            build = self._findings.attempt(
                path / "filters" / number, partial(self._filter, config, each, shared, fallback)
            )
            if build is not None:
                return build
        return None

    def _logs(
        self, config: ListenerConfig, path: Place, old: ListenerParts | None
    ) -> tuple[tuple[AccessLogConfig, AccessLog], ...]:
        """Open the access logs of a listener; unchanged ones stay open."""
        world = self._world
        known = [] if old is None else list(old.logs)
        logs = []
        for index, each in enumerate(config.access_logs):
            found = next((entry for entry in known if entry[0] == each), None)
            if found is not None:
                known.remove(found)
                logs.append(found)
                continue
            place = path / "access_logs" / index
            access_log = self._findings.attempt(
                place,
                partial(
                    AccessLog,
                    each.log_path,
                    each.log_format,
                    world.reactor,
                    config.name,
                    self._dry,
                    0 if world.worker is None else world.worker.number + 1,
                ),
            )
            if access_log is not None:
                for warning in access_log.warnings:
                    self._findings.add_warning(warning.within(place))
                self.opened.append(access_log)
                logs.append((each, access_log))
        return tuple(logs)

    def _tally(self, listener: str) -> RequestTally | None:
        """Return the counters of a listener's requests, if these are counted."""
        tallies = self._world.tallies
        return tallies.setdefault(listener, RequestTally(listener)) if self._counts else None

    def _filter(
        self,
        listener: ListenerConfig,
        each: FilterConfig,
        shared: _Shared,
        fallback: BuildProtocol | None,
    ) -> BuildProtocol | None:
        """
        Return what builds a listener's protocols; L{None} if the filter serves no connections.

        @param fallback: what the next serving filter builds, for a filter that passes on
            connections of unknown protocols.
        """
        match each.config:
            case ProxyConfig() as proxy:
                return self._proxy(listener, proxy, shared, fallback)
            case TcpProxyConfig() as tcp:
                settings = TcpProxySettings(
                    listener=listener.name,
                    router=TcpRouter(tcp),
                    clusters=self._world.clusters,
                    clock=self._world.reactor,
                    session_idle=session_idle(tcp.idle_timeout, listener.connection_idle_timeout),
                    access_log=shared.access_log,
                    tally=self._tally(listener.name),
                    proxy_protocol=tcp.proxy_protocol,
                    tracing=self._world.tracing,
                )
                return ProtocolBuilder("tcp", TcpProxy, settings, settings)
            case TunnelConfig() as tunnel:
                return self._tunnel(listener.name, tunnel)
            case _:
                return None

    def _proxy(
        self, listener: ListenerConfig, proxy: ProxyConfig, shared: _Shared, fallback: BuildProtocol | None
    ) -> BuildProtocol:
        # A process that only relays bytes loads no HTTP.
        from reverseproxy.proxy.protocols import ProxyPlan, build_proxy

        world = self._world
        plan = ProxyPlan(
            listener=listener.name,
            config=proxy,
            router=self._router(proxy.router_config_name),
            clusters=world.clusters,
            clock=world.reactor,
            filters=shared.filters,
            idle_timeout=listener.connection_idle_timeout,
            access_log=shared.access_log,
            random=world.random.random,
            tally=self._tally(listener.name),
            tracing=world.tracing,
        )
        return build_proxy(plan, fallback)

    def _tunnel(self, listener: str, config: TunnelConfig) -> BuildProtocol:
        from reverseproxy.tunnel.server.filter import TunnelServer

        world = self._world
        server = TunnelServer(
            listener=listener,
            config=config,
            clusters=world.clusters,
            clock=world.reactor,
            find_validator=find_validator,
            policies=names().validators,
        )
        server.exclusions = world.exclusions
        routes = config.agent_routes
        if routes is not None:
            from reverseproxy.assembly.agent_routes import build_agent_routes

            template = self._clusters.get(routes.cluster_template, ClusterConfig(name="agents"))
            server.routes = build_agent_routes(world, listener, routes, self._router, template, self._tally)
        if world.worker is not None and world.siblings is not None:
            server.workers.unix_prefix = f"{world.worker.number + 1}."
            server.workers.evict_elsewhere = partial(world.siblings.evict, listener)
        return ServedTunnel(server)


def _write_all(logs: Sequence[AccessLog]) -> Callable[[AccessRecord], None] | None:
    if len(logs) < 2:
        return logs[0].write if logs else None

    def write_all(record: AccessRecord) -> None:
        for each in logs:
            each.write(record)

    return write_all
