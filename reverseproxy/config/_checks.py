"""
What can only be seen with the whole configuration in hand.

Every check runs, whatever the others found; what is wrong about a single value
is found before, by the models.
"""

from __future__ import annotations

__all__ = ["check"]

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from reverseproxy.config._admin_checks import check_admin
from reverseproxy.config._agents import TunnelAgentConfig
from reverseproxy.config._base import Model
from reverseproxy.config._clusters import DNS_KEYS, ClusterConfig
from reverseproxy.config._filter_checks import check_filters
from reverseproxy.config._fleet import check_fleet
from reverseproxy.config._listeners import (
    UPSTREAM_PROTOCOLS,
    UPSTREAM_UNUSED,
    FilterChainConfig,
    ListenerConfig,
    ProxyConfig,
    TcpProxyConfig,
    TunnelConfig,
)
from reverseproxy.config._open_checks import check_openness
from reverseproxy.config._route_checks import check_agent_routes
from reverseproxy.config._routers import (
    MatchConfig,
    MirrorPolicyConfig,
    RouteActionConfig,
    RouterConfig,
    RouterRuleConfig,
    VirtualHostConfig,
)
from reverseproxy.config._tls import (
    CIPHER_SUITES,
    CURVES,
    DROPPED_CIPHER_SUITES,
    KNOWN_ALPN,
    TLS_VERSIONS,
    TlsContextConfig,
)
from reverseproxy.config._tracing import check_tracing
from reverseproxy.config._tree import Location, Node, Tree, purpose, unsupported
from reverseproxy.config._values import compile_regex, quote, split_address
from reverseproxy.config.durations import WRITE
from reverseproxy.config.models import Config
from reverseproxy.diagnostics import Diagnostics

_PROTOCOLS: Final = ("Http1", "Http2", "bolt", "boltv2", "dubbo", "Auto")
_PROTOCOLS_LATER: Final = ("dubbo-thrift", "tars")
_NAMED_BY: Final = ("cluster_variable", "cluster_header")
_HTTP: Final = frozenset({"Http1", "Http2"})
_TERMINAL: Final = (ProxyConfig, TcpProxyConfig, TunnelConfig)

_SERVER: Final[Location] = ("servers", 0)
_CLUSTERS: Final[Location] = ("cluster_manager", "clusters")
_LISTENERS: Final[Location] = (*_SERVER, "listeners")
_ROUTERS: Final[Location] = (*_SERVER, "routers")

_WITH_WEIGHTS: Final = ("LB_WEIGHTED_ROUNDROBIN", "LB_LEAST_REQUEST", "LB_LEAST_CONNECTION", "LB_PEAK_EWMA")

_PEM: Final = "-----BEGIN"
_XDS: Final = ("dynamic_resources", "static_resources")
_SAMPLE_POLICY: Final = "test"
_SAMPLE: Final = "is what MOSN's sample has, for trying things out"
_SHORT_NANOSECONDS: Final = 1_000_000
"""Fewer nanoseconds are no time for anything, so that something else was meant."""

_MAX_LISTED: Final = 20
"""How many names a message lists."""

_MAX_COMPARED: Final = 200_000
"""How often two names are compared, at a few microseconds each, to guess which one was meant."""

_NO_ROUTER: Final = "every request is answered with 404"


_STREAMS: Final = ("mux", "mux_ping_interval", "mux_ping_timeout", "mux_max_window", "mux_max_window_growth")
"""The keys that are for connections that carry many streams."""


def check(config: Config, tree: Tree, findings: Diagnostics) -> None:
    """
    Look at a whole configuration.

    @param config: the models, without what is wrong by itself.
    @param tree: the document.
    @param findings: where to add what is found.
    """
    _Checker(config, tree, findings).run()


class _Checker:
    """All checks, with what they share: names that others refer to."""

    def __init__(self, config: Config, tree: Tree, findings: Diagnostics) -> None:
        self._config = config
        self._tree = tree
        self._findings = findings
        self._clusters = {cluster.name for cluster in config.cluster_manager.clusters}
        self._clusters_known = tree.complete(_CLUSTERS, "name")
        listeners = config.servers[0].listeners if config.servers else ()
        self._listeners = {listener.name for listener in listeners}
        self._listeners_known = tree.complete(_LISTENERS, "address", "name")
        self._routers = {router.router_config_name for _, router in self._all_routers()}
        self._routers_known = tree.complete(_ROUTERS, "router_config_name", named=False)
        self._sorted: dict[str, list[str]] = {}  # what names there are, by what they name
        self._hints: dict[tuple[str, str], str] = {}
        self._by_name: dict[str, list[ClusterConfig]] = {}
        for cluster in config.cluster_manager.clusters:
            self._by_name.setdefault(cluster.name, []).append(cluster)
        self._spoken: dict[str, set[str]] = {}  # what the clients of each router speak
        for listener in listeners:
            for chain in listener.filter_chains:
                for entry in chain.filters:
                    if isinstance(entry.config, ProxyConfig):
                        name = entry.config.router_config_name
                        self._spoken.setdefault(name, set()).update(entry.config.protocols)

    def run(self) -> None:
        """Run all checks."""
        if not self._is_xds():
            self._exactly_one(("servers",), len(self._config.servers), "server")
        for location, router in self._all_routers():
            self._router(location, router)
        self._router_names()
        if self._config.servers:
            self._all_listeners(self._config.servers[0].listeners)
            check_filters(self._config, self._tree, self._findings)
            check_agent_routes(self._config, self._tree, self._findings, self._routers)
        self._all_clusters()
        for index, extension in enumerate(self._config.extends):
            if extension.config is not None:
                self._agent(("extends", index, "config"), extension.config)
        check_admin(self._config.admin, self._tree, self._findings)
        check_fleet(self._config.fleet, self._tree, self._findings)
        check_tracing(self._config.tracing, self._tree, self._findings)
        if self._config.admin is not None and self._config.admin.tls_context is not None:
            self._server_tls(("admin", "tls_context"), self._config.admin.tls_context)
        fleet = self._config.fleet
        for name, part in () if fleet is None else (("etcd", fleet.etcd), ("peers", fleet.peers)):
            if part is not None and part.tls_context is not None:
                self._client_tls(("fleet", name, "tls_context"), part.tls_context)
        self._tls_without_status()
        check_openness(self._config, self._tree, self._findings)

    # helpers

    def _error(self, location: Location, message: str) -> None:
        self._findings.error(self._tree.locate(location), message)

    def _warn(self, location: Location, message: str) -> None:
        self._findings.warn(self._tree.locate(location), message)

    def _shown(self, location: Location) -> str:
        """A place for messages about another one; with its file if that is not the main one."""
        place = self._tree.locate(location)
        return place.path if place.file == self._tree.root.place.file else f"{place.file}: {place.path}"

    def _given(self, location: Location) -> bool:
        """Whether the document has something there, even if it is wrong."""
        parent, last = self._tree.get(location[:-1]), location[-1]
        return isinstance(parent, Node) and (last in parent or last in parent.lost)

    def _lost(self, location: Location) -> bool:
        """Whether the document has something wrong there, which was taken out."""
        parent, last = self._tree.get(location[:-1]), location[-1]
        return isinstance(parent, Node) and last in parent.lost

    def _exactly_one(self, location: Location, count: int, what: str) -> None:
        if not count and self._given(location) and not self._tree.get(location):
            self._error(location, f"is empty; write exactly one {what}")
        elif not count:
            self._error(location, f"missing key: write exactly one {what}")
        elif count > 1:
            self._error(location, f"{count} {what}s; write exactly one")

    def _names(self, what: str, names: Iterable[tuple[Location, str]]) -> None:
        """Demand that each name occurs only once."""
        first: dict[str, str] = {}
        for location, name in names:
            if not name:
                continue
            if name in first:
                self._error(location, f"there is already a {what} {quote(name)} at {first[name]}")
            else:
                first[name] = self._shown(location)

    def _unknown_name(self, what: str, name: str, known: Iterable[str]) -> str:
        """Say that a name is not defined, and which are."""
        if (what, name) not in self._hints:
            self._hints[what, name] = self._hint(what, name, known)
        return f"there is no {what} {quote(name)}; {self._hints[what, name]}"

    def _hint(self, what: str, name: str, known: Iterable[str]) -> str:
        """Say which name was probably meant."""
        if what not in self._sorted:
            self._sorted[what] = sorted(entry for entry in known if entry)
        names = self._sorted[what]
        if not names:
            return f"no {what} is defined"
        # Comparing takes a while, and there may be many of such names.
        if len(names) * len(self._hints) <= _MAX_COMPARED:
            near = get_close_matches(name, names, n=1)
            if near:
                return f"did you mean {quote(near[0])}?"
        more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
        return f"defined: {', '.join(map(quote, names[:_MAX_LISTED]))}{more}"

    def _is_xds(self) -> bool:
        """
        Refuse what is no configuration by itself, but says where to get one.

        @return: whether that was so.
        """
        given = [name for name in _XDS if self._tree.get((name,))]
        if not given or self._given(("servers",)):
            return False
        self._error(
            (given[0],),
            "this is a configuration for xDS, which is not supported: listeners and clusters can't be had "
            "from an xDS server, nor be written as Envoy does; write servers and cluster_manager instead",
        )
        return True

    # listeners

    def _all_listeners(self, listeners: tuple[ListenerConfig, ...]) -> None:
        self._names("listener", (((*_LISTENERS, i, "name"), entry.name) for i, entry in enumerate(listeners)))
        for index, listener in enumerate(listeners):
            self._listener((*_LISTENERS, index), listener)
        bound: dict[str, str] = {}
        for index, listener in enumerate(listeners):
            address = listener.address
            if not listener.bind_port or not address or address.endswith(":0"):
                continue
            if address in bound:
                self._error(
                    (*_LISTENERS, index, "address"),
                    f"{quote(address)} is already the address of the listener {quote(bound[address])}",
                )
            bound.setdefault(address, listener.name)

    def _listener(self, location: Location, listener: ListenerConfig) -> None:
        self._listen_address((*location, "address"), listener)
        chains = (*location, "filter_chains")
        self._exactly_one(chains, len(listener.filter_chains), "filter chain")
        for index, chain in enumerate(listener.filter_chains):
            self._chain((*chains, index), chain)
        if listener.open_when_ready:
            self._open_when_ready((*location, "open_when_ready"), listener)
        hosted = {agent.hosting_listener for agent in self._config.agents if agent.enable}
        if not listener.bind_port and listener.name not in hosted:
            self._warn(
                (*location, "bind_port"),
                "is not true, and no tunnel agent names this listener: it gets no connections",
            )

    def _open_when_ready(self, location: Location, listener: ListenerConfig) -> None:
        if any(
            isinstance(each.config, TunnelConfig)
            for chain in listener.filter_chains
            for each in chain.filters
        ):
            self._error(location, "is true, but agents come in here, which are what is waited for")
        elif not listener.bind_port:
            self._warn(location, "has no effect, as bind_port is not true")
        elif not any(cluster.required for cluster in self._config.cluster_manager.clusters):
            self._warn(location, "has no effect, as no cluster is required")

    def _listen_address(self, location: Location, listener: ListenerConfig) -> None:
        address = listener.address
        if not address:
            return
        is_path = address.startswith(("unix:", "/"))
        if listener.network == "unix":
            if address == "unix:":
                self._error(location, '"unix:" has no path; write "/path/to/socket"')
        elif is_path:
            self._error(location, f'{quote(address)} is a path; set network to "unix", or write "host:port"')
        else:
            try:
                split_address(address)
            except ValueError as error:
                self._error(location, str(error))

    def _chain(self, location: Location, chain: FilterChainConfig) -> None:
        if chain.tls_context_set and self._given((*location, "tls_context")):
            self._error(
                (*location, "tls_context_set"), "can't be used together with tls_context; write one of them"
            )
        if chain.tls_context is not None:
            self._server_tls((*location, "tls_context"), chain.tls_context)
        for index, context in enumerate(chain.tls_context_set):
            self._server_tls((*location, "tls_context_set", index), context)
        terminal, taken = 0, False
        for index, entry in enumerate(chain.filters):
            place = (*location, "filters", index)
            if isinstance(entry.config, _TERMINAL):
                terminal += 1
                if taken:
                    self._warn(place, f"{quote(entry.type)} is never reached: a filter before it takes all")
                proxy = entry.config if isinstance(entry.config, ProxyConfig) else None
                taken = taken or proxy is None or not proxy.falls_back
            if isinstance(entry.config, ProxyConfig):
                self._proxy((*place, "config"), entry.config)
                if any("h2" in context.alpn for context in chain.tls_contexts) and not {
                    "Http2",
                    "Auto",
                } & set(entry.config.protocols):
                    self._warn(
                        place, "does not speak Http2, but alpn offers h2: clients that choose it will fail"
                    )
            elif isinstance(entry.config, TcpProxyConfig):
                self._tcp_proxy((*place, "config"), entry.config)
            elif isinstance(entry.config, TunnelConfig):
                self._tunnel((*place, "config"), entry.config, bool(chain.tls_contexts))
        if not terminal:
            self._warn(
                (*location, "filters"),
                "none is proxy, tcp_proxy or tunnel: connections are closed as soon as they are accepted",
            )

    def _proxy(self, location: Location, proxy: ProxyConfig) -> None:
        self._protocol(location, proxy)
        place, name = (*location, "router_config_name"), proxy.router_config_name
        if not name and not self._lost(place):
            self._warn(place, f"missing key: {_NO_ROUTER}")
        elif name and name not in self._routers and self._routers_known:
            self._warn(place, f"{_NO_ROUTER}: {self._unknown_name('router', name, self._routers)}")

    def _protocol(self, location: Location, proxy: ProxyConfig) -> None:
        """
        Demand protocols that can be spoken; X stands for its sub_protocol.

        Names that are not known here may be those of plug-ins.
        """
        place, protocol = (*location, "downstream_protocol"), proxy.downstream_protocol
        if protocol == "X":
            place = (*location, "extend_config", "sub_protocol")
            if not proxy.extend_config.sub_protocol:
                self._error(place, 'missing key: the protocols that "X" stands for, such as "bolt"')
        for name in proxy.protocols:
            near = [
                entry
                for entry in (*_PROTOCOLS, *_PROTOCOLS_LATER)
                if entry.lower() == name.strip().lower() != "" and entry != name
            ]
            if name in _PROTOCOLS_LATER:
                self._error(place, f"{quote(name)} is not supported yet; use a tcp_proxy filter")
            elif name == "X":
                self._error(place, '"X" can\'t be one of several; write the protocols that it stands for')
            elif near:
                self._error(place, f"{quote(name)} is not a protocol; did you mean {quote(near[0])}?")
        same = proxy.upstream_protocol in ("", protocol, *proxy.protocols)
        if not same and proxy.upstream_protocol in UPSTREAM_PROTOCOLS:
            self._warn((*location, "upstream_protocol"), UPSTREAM_UNUSED)
        if proxy.fallback_for_unknown_protocol and not proxy.detects:
            self._warn(
                (*location, "fallback_for_unknown_protocol"),
                'has no effect, as nothing but one protocol is expected; write several, or "Auto"',
            )

    def _tcp_proxy(self, location: Location, proxy: TcpProxyConfig) -> None:
        if not proxy.cluster and not proxy.routes:
            self._error((*location, "cluster"), "missing key: the cluster that connections go to")
        if proxy.cluster:
            self._connected((*location, "cluster"), proxy.cluster)
        idle = self._tree.get((*location, "idle_timeout"))
        if isinstance(idle, int) and 0 < idle < _SHORT_NANOSECONDS:
            self._warn(
                (*location, "idle_timeout"),
                f"{idle} counts nanoseconds, as in MOSN: sessions are closed at once; {WRITE}",
            )
        for index, route in enumerate(proxy.routes):
            place = (*location, "routes", index)
            if route.cluster and not proxy.cluster:
                self._connected((*place, "cluster"), route.cluster)
            lists = (route.source_addrs, route.destination_addrs, route.source_port, route.destination_port)
            if not proxy.cluster and not all(lists):
                self._warn(
                    place,
                    "takes no connection: SourceAddrs, DestinationAddrs, SourcePort and DestinationPort must "
                    "all be given",
                )

    def _streams(self, location: Location, config: TunnelConfig | TunnelAgentConfig, why: str) -> None:
        """
        Warn of keys for streams that are given although there will be none.

        @param why: the reason; empty if there may be some.
        """
        for name in _STREAMS if why else ():
            if self._given((*location, name)) and getattr(config, name):
                self._warn((*location, name), f"has no effect, because {why}")

    def _tunnel(self, location: Location, tunnel: TunnelConfig, secure: bool) -> None:
        self._streams(location, tunnel, "" if tunnel.mux else "mux is false")
        for cluster, policy in tunnel.cluster_credential_policies.items():
            place = (*location, "cluster_credential_policies", cluster)
            self._cluster_exists(place, cluster)
            if policy == _SAMPLE_POLICY:
                self._warn(place, f"{_SAMPLE}: it keeps nobody out")
        if tunnel.credential_policy == _SAMPLE_POLICY:
            self._warn((*location, "credential_policy"), f"{_SAMPLE}: it keeps nobody out")
        if not secure and (tunnel.credential_policy or tunnel.cluster_credential_policies):
            self._warn(location, "agents send their credentials in the clear, because TLS is off")

    def _connected(self, location: Location, name: str) -> None:
        """Warn of connections that go to a cluster that does not exist."""
        if name not in self._clusters and self._clusters_known:
            problem = self._unknown_name("cluster", name, self._clusters)
            self._warn(location, f"connections are closed at once: {problem}")

    def _cluster_exists(self, location: Location, name: str) -> None:
        if name not in self._clusters and self._clusters_known:
            self._error(location, self._unknown_name("cluster", name, self._clusters))

    # routers

    def _all_routers(self) -> Iterator[tuple[Location, RouterConfig]]:
        """Every router with its place: the server's, and those of connection_manager filters."""
        for server in self._config.servers[:1]:
            for index, router in enumerate(server.routers):
                yield (*_ROUTERS, index), router
            for i, listener in enumerate(server.listeners):
                for j, chain in enumerate(listener.filter_chains):
                    for k, entry in enumerate(chain.filters):
                        if isinstance(entry.config, RouterConfig):
                            yield (*_LISTENERS, i, "filter_chains", j, "filters", k, "config"), entry.config

    def _router_names(self) -> None:
        """
        Demand that each name occurs only once among the server's own routers.

        The routers of filters may have the same names; where they are not the
        same altogether, the last one counts, and the server's own after them.
        """
        own: list[tuple[Location, RouterConfig]] = []
        managed: list[tuple[Location, RouterConfig]] = []
        for location, router in self._all_routers():
            (own if location[:3] == _ROUTERS else managed).append((location, router))
        self._names(
            "router",
            (((*location, "router_config_name"), router.router_config_name) for location, router in own),
        )
        counting = {router.router_config_name: (location, router) for location, router in (*managed, *own)}
        for location, router in managed:
            place, counts = counting[router.router_config_name]
            if router.router_config_name and router != counts:
                self._warn(
                    location, f"does not count, because of the router of this name at {self._shown(place)}"
                )

    def _router(self, location: Location, router: RouterConfig) -> None:
        name = (*location, "router_config_name")
        if not router.router_config_name and not self._lost(name):
            self._warn(name, "missing key: without a name, this router serves no proxy filter")
        hosts = (*location, "virtual_hosts")
        if not router.virtual_hosts:
            self._warn(hosts, "there is none: every request is answered with 404")
        domains: dict[str, str] = {}
        spoken = self._spoken.get(router.router_config_name, set())
        named = {domain for host in router.virtual_hosts for domain in host.domains} - {"*", "*:*"}
        rpc = spoken - _HTTP - {"Auto"}
        if named and rpc:
            self._warn(
                hosts,
                f"requests of {' and '.join(sorted(rpc))} name no host: they are answered with 404, as there "
                'are other domains than "*"',
            )
        for index, host in enumerate(router.virtual_hosts):
            self._virtual_host((*hosts, index), host, domains)
            for number, rule in enumerate(host.routers):
                if rule.route is not None:
                    place = (*hosts, index, "routers", number, "route", "upstream_protocol")
                    self._upstream_protocol(place, rule.route.upstream_protocol, spoken)
                    self._introduced((*hosts, index, "routers", number, "route"), rule.route, rpc)

    def _introduced(self, location: Location, route: RouteActionConfig, rpc: set[str]) -> None:
        """Refuse to name clients to hosts in protocols whose requests share connections."""
        names = {entry.cluster.name for entry in route.weighted_clusters} or {route.cluster_name}
        named = sorted(
            name for name in names for entry in self._by_name.get(name, ()) if entry.proxy_protocol
        )
        if rpc and named:
            self._error(
                location,
                f"the cluster {quote(named[0])} has proxy_protocol, but requests of "
                f"{' and '.join(sorted(rpc))} share connections, which can't name a client: route them to a "
                "cluster without it",
            )

    def _upstream_protocol(self, location: Location, name: str, spoken: set[str]) -> None:
        """
        Warn of requests that can't be turned into what a route has hosts spoken to in.

        @param spoken: what the clients of the router speak.
        """
        near = [entry for entry in _PROTOCOLS if entry.lower() == name.lower() and entry != name]
        if name == "Auto" or near:
            wanted = f"; did you mean {quote(near[0])}?" if near else " to speak to hosts"
            self._error(location, f"{quote(name)} is not a protocol{wanted}")
            return
        if not name or not spoken or "Auto" in spoken:
            return
        if name in spoken or (name in _HTTP and spoken & _HTTP) or (name == "X" and spoken - _HTTP):
            return
        self._warn(
            location,
            f"{' and '.join(sorted(spoken))} can't be turned into {name}: requests that match are refused",
        )

    def _virtual_host(self, location: Location, host: VirtualHostConfig, domains: dict[str, str]) -> None:
        """
        Check a virtual host.

        @param domains: the router's domains before it, with their places; its
            own are added.
        """
        if not host.domains:
            self._warn((*location, "domains"), "there is none: this virtual host takes no requests")
        for index, domain in enumerate(host.domains):
            place = (*location, "domains", index)
            name = domain.lower()
            problem = _domain_problem(name)
            if problem:
                self._error(place, f"{quote(domain)} {problem}")
                continue
            if name == "*:*":
                name = "*"
            if name in domains:
                what = "the default domain" if name == "*" else f"the domain {quote(domain)}"
                self._error(place, f"{what} is taken already, at {domains[name]}")
            else:
                domains[name] = self._shown(place)
        for index, rule in enumerate(host.routers):
            self._rule((*location, "routers", index), rule)

    def _rule(self, location: Location, rule: RouterRuleConfig) -> None:
        self._match((*location, "match"), rule.match)
        actions = [
            name for name in ("direct_response", "redirect", "route") if getattr(rule, name) is not None
        ]
        for name in actions[1:]:
            self._warn((*location, name), f"does not count, because {actions[0]} is given as well")
        if not actions:
            self._warn(location, "has no route, redirect or direct_response: it answers with 404")
        elif rule.route is not None and actions[0] == "route":
            self._route((*location, "route"), rule.route)
        if rule.request_mirror_policies is not None:
            self._mirror((*location, "request_mirror_policies"), rule.request_mirror_policies, actions)

    def _route(self, location: Location, route: RouteActionConfig) -> None:
        self._first_counts(location, route, "weighted_clusters", "cluster_name", *_NAMED_BY)
        self._first_counts(location, route, "weighted_clusters", "metadata_match")
        self._first_counts(location, route, "prefix_rewrite", "regex_rewrite")
        self._first_counts(location, route, "host_rewrite", "auto_host_rewrite_header", "auto_host_rewrite")
        if route.auto_host_rewrite and not (route.host_rewrite or route.auto_host_rewrite_header):
            self._named_hosts((*location, "auto_host_rewrite"), route)
        for index, policy in enumerate(route.hash_policy):
            self._first_counts((*location, "hash_policy", index), policy, "cookie", "header", "source_ip")
        names = (*location, "weighted_clusters")
        weights = [entry.cluster.weight for entry in route.weighted_clusters]
        if weights and not any(weights) and not any(node.lost for node in self._nodes(self._tree.get(names))):
            self._error(names, "the weights are all 0; give a cluster a weight")
        for index, entry in enumerate(route.weighted_clusters):
            self._routed((*names, index, "cluster", "name"), entry.cluster.name)
        if route.weighted_clusters:
            return
        if route.cluster_name:
            self._routed((*location, "cluster_name"), route.cluster_name)
        elif not (route.cluster_variable or route.cluster_header):
            self._warn((*location, "cluster_name"), "missing key: requests that match are answered with 404")

    def _named_hosts(self, location: Location, route: RouteActionConfig) -> None:
        """Warn of a Host header that is never changed, as no host's name is resolved."""
        names = {entry.cluster.name for entry in route.weighted_clusters} or {route.cluster_name}
        clusters = [entry for name in names for entry in self._by_name.get(name, ())]
        if clusters and not any(entry.type == "STRICT_DNS" for entry in clusters):
            self._warn(location, "has no effect: the cluster is not of type STRICT_DNS")

    def _routed(self, location: Location, name: str) -> None:
        """Warn of requests that are sent to a cluster that does not exist."""
        if name and name not in self._clusters:
            problem = self._unknown_name("cluster", name, self._clusters)
            self._warn(location, f"requests that match are answered with 404: {problem}")

    def _mirror(self, location: Location, mirror: MirrorPolicyConfig, actions: list[str]) -> None:
        name = mirror.cluster
        if actions and actions[0] != "route":
            self._warn(location, f"does not count, because {actions[0]} is given as well")
        elif not name or not mirror.percent:
            missing = "percent" if name else "cluster"
            self._warn((*location, missing), "missing key: no copies are sent")
        elif name not in self._clusters:
            problem = self._unknown_name("cluster", name, self._clusters)
            self._warn((*location, "cluster"), f"no copies are sent: {problem}")

    def _first_counts(self, location: Location, model: Model, *names: str) -> None:
        """Warn of keys that do not count, because one before them is given."""
        given = [name for name in names if getattr(model, name) not in (None, (), {}, "", False)]
        for name in given[1:]:
            self._warn((*location, name), f"does not count, because {given[0]} is given as well")

    def _match(self, location: Location, match: MatchConfig) -> None:
        self._first_counts(location, match, "prefix", "path", "regex", "variables", "dsl_expressions")
        if not (match.prefix or match.path or match.regex):
            self._first_counts(location, match, "variables", "dsl_expressions", "headers")
        for index, header in enumerate(match.headers):
            if header.regex:
                try:
                    compile_regex(header.value)
                except ValueError as error:
                    self._error((*location, "headers", index, "value"), str(error))

    # clusters

    def _all_clusters(self) -> None:
        manager = self._config.cluster_manager
        clusters = manager.clusters
        self._names("cluster", (((*_CLUSTERS, i, "name"), entry.name) for i, entry in enumerate(clusters)))
        if manager.tls_context is not None:
            self._client_tls(("cluster_manager", "tls_context"), manager.tls_context)
        for index, cluster in enumerate(clusters):
            self._cluster((*_CLUSTERS, index), cluster)

    def _cluster(self, location: Location, cluster: ClusterConfig) -> None:
        own = (*location, "tls_context")
        if not cluster.cluster_manager_tls:
            if cluster.tls_context is not None:
                self._client_tls(own, cluster.tls_context)
        else:
            if self._tree.get(own):
                self._warn(own, "does not count, because cluster_manager_tls is true")
            if cluster.tls_context is None:
                self._warn(
                    (*location, "cluster_manager_tls"),
                    "is true, but cluster_manager.tls_context is not on: hosts are dialled in plaintext",
                )
        if len(cluster.circuit_breakers) > 1:
            self._warn((*location, "circuit_breakers"), "only the first element counts")
        self._without_effect(location, cluster)
        seen: set[str] = set()
        for index, host in enumerate(cluster.hosts):
            if host.address and host.address in seen:
                self._warn(
                    (*location, "hosts", index, "address"),
                    f"{quote(host.address)} occurs more than once in this cluster; the last one counts",
                )
            seen.add(host.address)

    def _without_effect(self, location: Location, cluster: ClusterConfig) -> None:
        """Warn of keys that need others, which are not there."""
        if cluster.proxy_protocol and not cluster.hosts:
            self._warn(
                (*location, "proxy_protocol"), "has no effect: no hosts are given here, and agents' get none"
            )
        if self._tree.get((*location, "health_check")) and not cluster.health_check.enabled:
            self._warn(
                (*location, "health_check", "service_name"),
                "is empty: there are no health checks, as in MOSN",
            )
        start = cluster.slow_start
        if start.mode == "duration" and not start.slow_start_duration:
            self._warn(
                (*location, "slow_start", "slow_start_duration"), "is not above 0: there is no slow start"
            )
        elif start.enabled and cluster.lb_type not in _WITH_WEIGHTS:
            self._warn(
                (*location, "slow_start"), f"has no effect, because {cluster.lb_type} does not know weights"
            )
        subsets = cluster.lb_subset_config
        if self._tree.get((*location, "lb_subset_config")) and not subsets.subset_selectors:
            self._warn(
                (*location, "lb_subset_config", "subset_selectors"), "there is none: there are no subsets"
            )
        elif subsets.default_subset and subsets.fall_back_policy != 2:
            self._warn(
                (*location, "lb_subset_config", "default_subset"),
                "has no effect, because fall_back_policy is not 2",
            )
        if cluster.type != "STRICT_DNS":
            for field in DNS_KEYS:
                if self._tree.get((*location, field)):
                    self._warn((*location, field), "has no effect, because type is not STRICT_DNS")

    # agents

    def _agent(self, location: Location, agent: TunnelAgentConfig) -> None:
        if not agent.enable:
            if not self._given((*location, "enable")):
                self._warn((*location, "enable"), "missing key: without it this agent does nothing")
            return
        for field in ("cluster", "hosting_listener"):
            if not getattr(agent, field):
                self._error((*location, field), f"missing key: {purpose(TunnelAgentConfig, field)}")
        if agent.hosting_listener and agent.hosting_listener not in self._listeners and self._listeners_known:
            self._error(
                (*location, "hosting_listener"),
                self._unknown_name("listener", agent.hosting_listener, self._listeners),
            )
        if not agent.connection_num:
            self._warn((*location, "connection_num"), "is 0: this agent holds no connections")
        lister = agent.dynamic_server_list_config.dynamic_server_lister
        if not agent.server_list and not lister:
            self._warn((*location, "server_list"), "there is none: this agent has nothing to connect to")
        if (
            self._given((*location, "reconnect_max_duration"))
            and agent.reconnect_max_duration < agent.reconnect_base_duration
        ):
            self._error((*location, "reconnect_max_duration"), "is shorter than reconnect_base_duration")
        if agent.credential_policy == _SAMPLE_POLICY:
            self._warn((*location, "credential_policy"), f"{_SAMPLE}: its credential is known to everybody")
        elif agent.credential_policy and agent.tls_context is None:
            self._warn(
                (*location, "credential_policy"), "the credential is sent in the clear, because TLS is off"
            )
        if agent.credential_config and not agent.credential_policy:
            self._warn(
                (*location, "credential_config"),
                'has no effect without credential_policy, such as "static": no credential is sent',
            )
        if agent.routes.asks and not agent.announce:
            self._warn((*location, "routes"), "has no effect, because announce is false")
        if agent.tls_context is not None:
            self._client_tls((*location, "tls_context"), agent.tls_context)
        no_streams = "" if agent.mux else "mux is false"
        self._streams(location, agent, no_streams if agent.announce else "announce is false")

    # TLS

    def _tls_without_status(self) -> None:
        """Warn of TLS contexts that were perhaps meant to be on."""
        for node in self._nodes(self._tree.root):
            if node.model is TlsContextConfig and node and "status" not in node and not node.lost:
                self._findings.warn(node.place, "TLS is off, because status is not true")

    def _nodes(self, here: object) -> Iterator[Node]:
        if isinstance(here, Node):
            yield here
            for child in here.values():
                yield from self._nodes(child)
        elif isinstance(here, list):
            for child in here:
                yield from self._nodes(child)

    def _server_tls(self, location: Location, context: TlsContextConfig) -> None:
        if not context.status:
            return
        if context.fingerprint:
            self._error(
                (*location, "fingerprint"), "is for clients; here, ca_cert says whose certificates are good"
            )
        self._tls(location, context, certificate_may_fail=context.fall_back)
        if not context.cert_chain and not context.private_key:
            if context.fall_back:
                self._warn(location, "has no certificate: plaintext is spoken, because fall_back is true")
            else:
                self._error(
                    location, "has no certificate; write cert_chain and private_key, or set fall_back to true"
                )
        if context.verify_client and not context.ca_cert:
            self._warn(
                (*location, "verify_client"),
                "without ca_cert, certificates of clients are verified against the system's",
            )

    def _client_tls(self, location: Location, context: TlsContextConfig) -> None:
        self._tls(location, context, certificate_may_fail=False)
        if context.insecure_skip:
            self._warn(
                (*location, "insecure_skip"), "the server is not verified: anyone on the way can be it"
            )
        if context.fingerprint:
            self._pinned(location, context)

    def _pinned(self, location: Location, context: TlsContextConfig) -> None:
        if context.insecure_skip:
            self._error(
                (*location, "fingerprint"),
                "has no effect with insecure_skip, by which no certificate is verified",
            )
        if context.crl and not context.ca_cert:
            self._error(
                (*location, "crl"),
                "has no effect with fingerprint, unless there is ca_cert to verify more by",
            )

    def _tls(self, location: Location, context: TlsContextConfig, certificate_may_fail: bool) -> None:
        """What is the same for both ends."""
        for field in ("type", "extend_verify", "callbacks", "sds_source"):
            if getattr(context, field) not in (None, "", [], {}):
                self._tree.unsupported((*location, field), unsupported(TlsContextConfig, field))
        self._pem((*location, "ca_cert"), context.ca_cert, "a certificate", may_fail=False)
        self._pem((*location, "cert_chain"), context.cert_chain, "a certificate", certificate_may_fail)
        self._pem((*location, "private_key"), context.private_key, "a private key", certificate_may_fail)
        chain, private = context.cert_chain, context.private_key
        for field, other, missing in (
            ("private_key", "cert_chain", bool(chain and not private)),
            ("cert_chain", "private_key", bool(private and not chain)),
        ):
            if missing:
                self._error((*location, field), f"missing key: {other} is given, and each needs the other")
        if chain and private and (_PEM in chain) != (_PEM in private):
            self._error((*location, "private_key"), "and cert_chain must both be paths or both be PEM texts")
        self._cipher_suites((*location, "cipher_suites"), context)
        for curve in context.ecdh_curves:
            if curve not in CURVES:
                self._error(
                    (*location, "ecdh_curves"),
                    f"{quote(curve)} is not a curve; choose from {', '.join(CURVES)}",
                )
        for field in ("min_version", "max_version"):
            version = getattr(context, field)
            if version not in TLS_VERSIONS:
                self._error(
                    (*location, field),
                    f"{quote(version)} is not a TLS version; choose from {', '.join(TLS_VERSIONS)}",
                )
        versions = (context.min_version, context.max_version)
        if all(version in TLS_VERSIONS[1:] for version in versions) and TLS_VERSIONS.index(
            versions[0]
        ) > TLS_VERSIONS.index(versions[1]):
            self._error((*location, "min_version"), f"{versions[0]} is newer than max_version {versions[1]}")
        for protocol in context.alpn:
            if protocol not in KNOWN_ALPN:
                self._warn(
                    (*location, "alpn"), f"{quote(protocol)} is dropped; known are {', '.join(KNOWN_ALPN)}"
                )

    def _cipher_suites(self, location: Location, context: TlsContextConfig) -> None:
        names = [name for name in context.cipher_suites.split(":") if name]
        for name in names:
            if name in DROPPED_CIPHER_SUITES:
                self._warn(location, f"{quote(name)} is left out: {DROPPED_CIPHER_SUITES[name]}")
            elif name not in CIPHER_SUITES and name not in CIPHER_SUITES.values():
                self._error(
                    location, f"{quote(name)} is not a cipher suite; choose from {', '.join(CIPHER_SUITES)}"
                )
        if names and all(name in DROPPED_CIPHER_SUITES for name in names):
            self._error(location, "no cipher suite is left")

    def _pem(self, location: Location, value: str, what: str, may_fail: bool) -> None:
        """Demand PEM text, or a file of it."""
        if not value or _PEM in value:
            return
        report = self._warn if may_fail else self._error
        suffix = "; plaintext is spoken, because fall_back is true" if may_fail else ""
        # A key that was pasted in without its first line must not be shown.
        shown = quote(value) if len(value) < 120 and value.isprintable() else "the file"
        try:
            content = Path(value).read_bytes()
        except OSError as error:
            report(location, f"{shown} can't be read: {error.strerror}{suffix}")
        except ValueError:
            report(location, f"{shown} is not a path{suffix}")
        else:
            if _PEM.encode() not in content:
                report(location, f"{shown} does not hold {what} in PEM format{suffix}")


def _domain_problem(domain: str) -> str:
    """What is wrong with a domain; nothing if it is empty."""
    if not domain:
        return 'is empty; write a host name, or "*" for all'
    host = domain
    if not domain.startswith("[") or "]:" in domain:
        head, colon, port = domain.rpartition(":")
        if colon:
            host = head
            is_host = head != "" and (":" not in head or head.startswith("["))
            if not is_host or not (port == "*" or port.isdecimal()):
                return 'is not a host name, optionally with a port; write "host", "host:80" or "host:*"'
    return "has a * that is not its first character" if "*" in host[1:] else ""
