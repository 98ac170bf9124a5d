"""Checks of routers that concern several keys."""

from __future__ import annotations

__all__ = ["RouterChecker"]

import re
from typing import Final

from reverseproxy.config._base import Model
from reverseproxy.config._checker import PROTOCOLS, ROUTERS, Checker
from reverseproxy.config._matches import MatchConfig
from reverseproxy.config._named import Names
from reverseproxy.config._nodes import Location
from reverseproxy.config._route_actions import MirrorPolicyConfig, RouteActionConfig
from reverseproxy.config._routers import RouterConfig, RouterRuleConfig, VirtualHostConfig
from reverseproxy.config._tree import Tree
from reverseproxy.config._values import compile_regex, quote
from reverseproxy.config.diagnostics import Diagnostics
from reverseproxy.config.models import Config

# Of a Host header, with "*" for any beginning or port; see reverseproxy.wire.http1.strict_requests.
_AUTHORITY: Final = re.compile(r"(?:\[[0-9a-f:.]+\]|[a-z0-9._~%!$&'()*+;=-]*)(?::[0-9]*|:\*)?")

_NAMED_BY: Final = ("cluster_variable", "cluster_header")
_HTTP: Final = frozenset({"Http1", "Http2"})


class RouterChecker(Checker):
    """Checks the routers of the server and of connection_manager filters."""

    def __init__(self, config: Config, tree: Tree, findings: Diagnostics, names: Names) -> None:
        super().__init__(config, tree, findings)
        self._names = names

    def run(self) -> None:
        """Check all routers."""
        for location, router in self._names.all_routers():
            self._router(location, router)
        self._router_names()

    def _router_names(self) -> None:
        """
        Require the names of the server's own routers to be unique.

        Routers of filters may have the same names; of different ones the last is used, and the
        server's own before these.
        """
        own: list[tuple[Location, RouterConfig]] = []
        managed: list[tuple[Location, RouterConfig]] = []
        for location, router in self._names.all_routers():
            (own if location[:3] == ROUTERS else managed).append((location, router))
        self._unique(
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
        spoken = self._names.spoken.get(router.router_config_name, set())
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
        """Refuse proxy_protocol for RPC requests, which share connections."""
        names = {entry.cluster.name for entry in route.weighted_clusters} or {route.cluster_name}
        named = sorted(
            name for name in names for entry in self._names.by_name.get(name, ()) if entry.proxy_protocol
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
        Warn of requests that can't be translated to the upstream_protocol of a route.

        @param spoken: the protocols of the router's clients.
        """
        near = [entry for entry in PROTOCOLS if entry.lower() == name.lower() and entry != name]
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
            if not _AUTHORITY.fullmatch(name):
                self._warn(place, f"{quote(domain)} takes no request: {_spelling(name)}")
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
        """Warn of auto_host_rewrite without effect, as the cluster's hosts are not given by name."""
        names = {entry.cluster.name for entry in route.weighted_clusters} or {route.cluster_name}
        clusters = [entry for name in names for entry in self._names.by_name.get(name, ())]
        if clusters and not any(entry.type == "STRICT_DNS" for entry in clusters):
            self._warn(location, "has no effect: the cluster is not of type STRICT_DNS")

    def _routed(self, location: Location, name: str) -> None:
        """Warn of a route to a cluster that does not exist."""
        if name and name not in self._names.clusters and self._names.clusters_known:
            problem = self._names.unknown("cluster", name, self._names.clusters)
            self._warn(location, f"requests that match are answered with 404: {problem}")

    def _mirror(self, location: Location, mirror: MirrorPolicyConfig, actions: list[str]) -> None:
        name = mirror.cluster
        if actions and actions[0] != "route":
            self._warn(location, f"does not count, because {actions[0]} is given as well")
        elif not name or not mirror.percent:
            missing = "percent" if name else "cluster"
            self._warn((*location, missing), "missing key: no copies are sent")
        elif name not in self._names.clusters and self._names.clusters_known:
            problem = self._names.unknown("cluster", name, self._names.clusters)
            self._warn((*location, "cluster"), f"no copies are sent: {problem}")

    def _first_counts(self, location: Location, model: Model, *names: str) -> None:
        """Warn of keys without effect, because one before them in the list is given."""
        given = [name for name in names if getattr(model, name) not in (None, (), {}, "", False)]
        for name in given[1:]:
            self._warn((*location, name), f"does not count, because {given[0]} is given as well")

    def _match(self, location: Location, match: MatchConfig) -> None:
        self._first_counts(location, match, "prefix", "path", "regex", "variables", "dsl_expressions")
        if not (match.prefix or match.path or match.regex):
            self._first_counts(location, match, "variables", "dsl_expressions", "headers")
        for name in ("prefix", "path"):
            text = getattr(match, name)
            if text and not text.startswith("/"):
                self._warn((*location, name), f"{quote(text)} takes no requests: a path begins with /")
        for index, header in enumerate(match.headers):
            if header.regex:
                try:
                    compile_regex(header.value)
                except ValueError as error:
                    self._error((*location, "headers", index, "value"), str(error))


def _spelling(domain: str) -> str:
    """Say why no client writes a domain in this way, and how it writes it if that is known."""
    try:
        spelling = domain.encode("idna").decode("ascii")
    except UnicodeError:
        spelling = ""
    if spelling and _AUTHORITY.fullmatch(spelling):
        return f"clients write {quote(spelling)}"
    return "it has a character that no Host header may have"


def _domain_problem(domain: str) -> str:
    """Return what is wrong with a domain; empty if it is valid."""
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
