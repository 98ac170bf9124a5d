"""Checks of listeners and network filters that concern several keys."""

from __future__ import annotations

__all__ = ["ListenerChecker"]

from ipaddress import ip_address
from typing import Final

from reverseproxy.addresses import is_ip
from reverseproxy.config._checker import LISTENERS, PROTOCOLS, SAMPLE, SAMPLE_POLICY
from reverseproxy.config._listeners import FilterChainConfig, FilterConfig, ListenerConfig
from reverseproxy.config._nodes import Location
from reverseproxy.config._proxies import (
    UPSTREAM_PROTOCOLS,
    UPSTREAM_UNUSED,
    BoltOptions,
    ProxyConfig,
    RpcOptions,
)
from reverseproxy.config._tcp_proxy import TcpProxyConfig
from reverseproxy.config._tls_checks import NamingChecker
from reverseproxy.config._tunnels import TunnelConfig
from reverseproxy.config._values import quote, socket_path, split_address
from reverseproxy.config.durations import WRITE

_PROTOCOLS_LATER: Final = ("dubbo-thrift", "tars")
_TERMINAL: Final = (ProxyConfig, TcpProxyConfig, TunnelConfig)
_SHORT_NANOSECONDS: Final = 1_000_000
"""A number of nanoseconds below this is probably a number of seconds or milliseconds."""
_OPTIONS: Final = {"bolt": BoltOptions, "boltv2": BoltOptions, "dubbo": RpcOptions}
_NO_ROUTER: Final = "every request is answered with 404"


def _binding(address: str, unix: bool) -> object:
    """Return what is bound for an address, in one spelling; L{None} if that is not known, or always free."""
    if unix:
        return address.removeprefix("unix:") or None
    try:
        host, port = split_address(address)
    except ValueError:
        return None
    host = "127.0.0.1" if host == "localhost" else host.lower()
    return (ip_address(host) if is_ip(host) else host, port) if port else None


class ListenerChecker(NamingChecker):
    """Checks listeners."""

    def run(self) -> None:
        """Check all listeners."""
        listeners = self._config.servers[0].listeners
        self._unique("listener", (((*LISTENERS, i, "name"), entry.name) for i, entry in enumerate(listeners)))
        for index, listener in enumerate(listeners):
            self._listener((*LISTENERS, index), listener)
        self._addresses()

    def _addresses(self) -> None:
        """Require that nothing listens where something else does."""
        listeners = self._config.servers[0].listeners
        wanted = [
            (
                (*LISTENERS, index, "address"),
                each.address,
                each.network == "unix",
                f"the listener {quote(each.name)}",
            )
            for index, each in enumerate(listeners)
            if each.bind_port
        ]
        admin, fleet = self._config.admin, self._config.fleet
        if fleet is not None and fleet.peers is not None:
            wanted.append((("fleet", "peers", "address"), fleet.peers.address, False, "fleet.peers"))
        if admin is not None:
            unix = admin.bound.startswith("unix:")
            wanted.append((("admin", "address"), admin.bound, unix, "the admin API"))
        bound: dict[object, str] = {}
        for location, address, unix, what in wanted:
            key = _binding(address, unix)
            if key in bound:
                self._error(location, f"{quote(address)} is already the address of {bound[key]}")
            elif key is not None:
                bound[key] = what

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
                return
            try:
                socket_path(address.removeprefix("unix:"))
            except ValueError as error:
                self._error(location, str(error))
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
            self._tls_checks.server((*location, "tls_context"), chain.tls_context)
        for index, context in enumerate(chain.tls_context_set):
            self._tls_checks.server((*location, "tls_context_set", index), context)
        self._order((*location, "filters"), chain)
        for index, entry in enumerate(chain.filters):
            self._filter((*location, "filters", index), entry, chain)

    def _order(self, location: Location, chain: FilterChainConfig) -> None:
        """Check that there is a filter that serves connections, and that each such filter is reached."""
        terminal, taken = 0, False
        for index, entry in enumerate(chain.filters):
            if isinstance(entry.config, _TERMINAL):
                terminal += 1
                if taken:
                    self._warn(
                        (*location, index),
                        f"{quote(entry.type)} is never reached: a filter before it takes all",
                    )
                proxy = entry.config if isinstance(entry.config, ProxyConfig) else None
                taken = taken or proxy is None or not proxy.falls_back
        if not terminal:
            self._warn(
                location,
                "none is proxy, tcp_proxy or tunnel: connections are closed as soon as they are accepted",
            )

    def _filter(self, place: Location, entry: FilterConfig, chain: FilterChainConfig) -> None:
        """Check one filter."""
        if isinstance(entry.config, ProxyConfig):
            self._proxy((*place, "config"), entry.config)
            speaks_http2 = bool({"Http2", "Auto"} & set(entry.config.protocols))
            if not speaks_http2 and any("h2" in context.alpn for context in chain.tls_contexts):
                self._warn(
                    place, "does not speak Http2, but alpn offers h2: clients that choose it will fail"
                )
        elif isinstance(entry.config, TcpProxyConfig):
            self._tcp_proxy((*place, "config"), entry.config)
        elif isinstance(entry.config, TunnelConfig):
            self._tunnel((*place, "config"), entry.config, bool(chain.tls_contexts))

    def _proxy(self, location: Location, proxy: ProxyConfig) -> None:
        self._protocol(location, proxy)
        place, name = (*location, "router_config_name"), proxy.router_config_name
        if not name and not self._lost(place):
            self._warn(place, f"missing key: {_NO_ROUTER}")
        elif name and name not in self._names.routers and self._names.routers_known:
            self._warn(place, f"{_NO_ROUTER}: {self._names.unknown('router', name, self._names.routers)}")

    def _protocol(self, location: Location, proxy: ProxyConfig) -> None:
        """
        Check the names of protocols; those of "X" are in its sub_protocol.

        Unknown names may be those of plug-ins.
        """
        place, protocol = (*location, "downstream_protocol"), proxy.downstream_protocol
        named = protocol
        if protocol == "X":
            place, named = (*location, "extend_config", "sub_protocol"), proxy.extend_config.sub_protocol
            if not named and not self._tree.has_lost((*location, "extend_config"), "sub_protocol"):
                self._error(place, 'missing key: the protocols that "X" stands for, such as "bolt"')
        if named and not proxy.protocols:
            self._error(place, f'{quote(named)} names no protocol; write one, such as "Http1"')
        for name in proxy.protocols:
            near = [
                entry
                for entry in (*PROTOCOLS, *_PROTOCOLS_LATER)
                if entry.lower() == name.strip().lower() != "" and entry != name
            ]
            if name in _PROTOCOLS_LATER:
                self._error(place, f"{quote(name)} is not supported yet; use a tcp_proxy filter")
            elif name == "X":
                self._error(place, '"X" can\'t be one of several; write the protocols that it stands for')
            elif near:
                self._error(place, f"{quote(name)} is not a protocol; did you mean {quote(near[0])}?")
        self._protocol_options((*location, "extend_config", "xprotocols"), proxy)
        same = proxy.upstream_protocol in ("", protocol, *proxy.protocols)
        if not same and proxy.upstream_protocol in UPSTREAM_PROTOCOLS:
            self._warn((*location, "upstream_protocol"), UPSTREAM_UNUSED)
        if proxy.fallback_for_unknown_protocol and not proxy.detects:
            self._warn(
                (*location, "fallback_for_unknown_protocol"),
                'has no effect, as nothing but one protocol is expected; write several, or "Auto"',
            )

    def _protocol_options(self, location: Location, proxy: ProxyConfig) -> None:
        """Warn of options without effect; plug-ins check their own."""
        for name, options in proxy.extend_config.xprotocols.items():
            if name not in proxy.protocols and "Auto" not in proxy.protocols:
                self._warn((*location, name), f"has no effect: this filter does not speak {quote(name)}")
            elif name in PROTOCOLS:
                fields = _OPTIONS[name].model_fields if name in _OPTIONS else {}
                for key in options.keys() - fields.keys():
                    self._warn((*location, name, key), "unknown key, ignored")

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

    def _tunnel(self, location: Location, tunnel: TunnelConfig, secure: bool) -> None:
        self._streams(location, tunnel, "" if tunnel.mux else "mux is false")
        for cluster, policy in tunnel.cluster_credential_policies.items():
            place = (*location, "cluster_credential_policies", cluster)
            self._cluster_exists(place, cluster)
            if policy == SAMPLE_POLICY:
                self._warn(place, f"{SAMPLE}: it accepts every agent")
        if tunnel.credential_policy == SAMPLE_POLICY:
            self._warn((*location, "credential_policy"), f"{SAMPLE}: it accepts every agent")
        if not secure and (tunnel.credential_policy or tunnel.cluster_credential_policies):
            self._warn(location, "agents send their credentials in the clear, because TLS is off")

    def _connected(self, location: Location, name: str) -> None:
        """Warn of connections that go to a cluster that does not exist."""
        if name not in self._names.clusters and self._names.clusters_known:
            problem = self._names.unknown("cluster", name, self._names.clusters)
            self._warn(location, f"connections are closed at once: {problem}")

    def _cluster_exists(self, location: Location, name: str) -> None:
        if name not in self._names.clusters and self._names.clusters_known:
            self._error(location, self._names.unknown("cluster", name, self._names.clusters))
