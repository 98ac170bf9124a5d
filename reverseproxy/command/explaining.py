"""
Explain which listener, virtual host and route a request would match.

The router itself finds the route: in a copy of its configuration each route responds with its
own place in the document, and the table of the copy equals that of the running router.
"""

from __future__ import annotations

__all__ = ["BadRequest", "explain_request"]

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from reverseproxy.config._values import quote, split_address
from reverseproxy.config.loader import load
from reverseproxy.config.models import (
    ClusterConfig,
    Config,
    DirectResponseConfig,
    ListenerConfig,
    ProxyConfig,
    RouteActionConfig,
    RouterConfig,
    RouterRuleConfig,
    TcpProxyConfig,
    TunnelConfig,
)
from reverseproxy.problems import Place
from reverseproxy.routing import (
    ClusterRoute,
    DirectResponse,
    Redirect,
    RouteInput,
    Router,
    normalize_path,
)

_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PORTS = {"http": 80, "https": 443}


class BadRequest(Exception):
    """The arguments are not a valid request; the message says why."""


@dataclass(frozen=True, slots=True)
class _Request:
    """A request as the router sees it, which is never sent."""

    facts: RouteInput
    port: int


def explain_request(
    file: str, url: str, method: str, headers: Sequence[str], listener: str | None
) -> tuple[list[str], bool]:
    """
    Explain what would happen to a request.

    @param headers: each C{"name: value"}.
    @param listener: the name of a listener; L{None} for those at the port of the
        URL, or all if there are none.
    @return: lines of text, and whether a route takes the request.
    @raise BadRequest: if the request is invalid, or there is no such listener.
    @raise ConfigError: if the configuration can't be used.
    """
    request = _request(url, method, headers)
    config = load(file).config
    lines: list[str] = []
    taken = False
    for each in _listeners(config, request.port, listener, lines):
        if lines:
            lines.append("")
        lines.append(f"listener {each.name}{_where(each)}")
        told, takes = _listener(each, config, request.facts)
        lines += [f"  {line}" for line in told]
        taken |= takes
    return lines, taken


def _request(url: str, method: str, headers: Sequence[str]) -> _Request:
    if not _METHOD.fullmatch(method):
        raise BadRequest(f"{quote(method)} is no method")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BadRequest(f"{quote(url)} is no URL: {error}") from None
    if parts.scheme not in _PORTS or not parts.hostname:
        raise BadRequest(f"{quote(url)} is no URL; write http://host/path or https://host/path")
    if not parts.netloc.isascii() or not parts.netloc.isprintable() or " " in parts.netloc:
        raise BadRequest(
            f"{quote(parts.netloc)} is no host as clients send it; other letters are written xn--"
        )
    fields: dict[str, str] = {}
    for header in headers:
        name, colon, value = header.partition(":")
        if not colon or not _METHOD.fullmatch(name):
            raise BadRequest(f"{quote(header)} is no field; write 'name: value'")
        name = name.lower()
        # As fields of the same name are joined, with a comma.
        fields[name] = f"{fields[name]},{value.strip()}" if name in fields else value.strip()
    host = fields.setdefault("host", parts.netloc.rpartition("@")[2])
    facts = RouteInput(method, normalize_path(parts.path or "/"), parts.query, host, fields.get, parts.scheme)
    return _Request(facts, _PORTS[parts.scheme] if port is None else port)


def _port(listener: ListenerConfig) -> int | None:
    """Return the port of a listener; L{None} if it has none."""
    if not listener.bind_port or listener.network == "unix":
        return None
    try:
        return split_address(listener.address)[1]
    except ValueError:
        return None


def _listeners(config: Config, port: int, name: str | None, lines: list[str]) -> list[ListenerConfig]:
    listeners = config.server.listeners
    if name is not None:
        found = [each for each in listeners if each.name == name]
        if not found:
            names = ", ".join(quote(each.name) for each in listeners) or "none"
            raise BadRequest(f"there is no listener {quote(name)}; there are: {names}")
        return found
    found = [each for each in listeners if _port(each) == port]
    if found:
        return found
    lines.append(f"no listener is at port {port}; those that there are:")
    return [each for each in listeners if not _is_tunnel(each)]


def _is_tunnel(listener: ListenerConfig) -> bool:
    return any(isinstance(each.config, TunnelConfig) for each in listener.filter_chain.filters)


def _where(listener: ListenerConfig) -> str:
    return f" at {listener.address}" if listener.bind_port else ", fed by tunnel agents"


def _listener(listener: ListenerConfig, config: Config, facts: RouteInput) -> tuple[list[str], bool]:
    """Return what a listener does with a request, and whether it takes it."""
    notes = []
    tls = bool(listener.filter_chain.tls_contexts)
    if tls and facts.scheme == "http" and not listener.inspector:
        notes.append("note: it takes TLS alone: the URL has to begin with https://")
    elif not tls and facts.scheme == "https":
        notes.append("note: it speaks no TLS: something in front of it has to")
    filters = [each.type for each in listener.stream_filters if each.type]
    if filters:
        notes.append(
            f"note: filters see the request first, and may refuse or change it: {', '.join(filters)}"
        )
    for each in listener.filter_chain.filters:
        match each.config:
            case ProxyConfig() as proxy:
                http = [name for name in proxy.protocols if name in ("Http1", "Http2", "Auto")]
                if not http:
                    return [*notes, f"takes {', '.join(proxy.protocols)}, not HTTP"], False
                found = config.routers.get(proxy.router_config_name)
                if found is None:
                    return [*notes, "404: it has no router"], False
                lines, taken = _route(*found, config, facts)
                return [*notes, *lines], taken
            case TcpProxyConfig() as tcp:
                names = [tcp.cluster] if tcp.cluster else [route.cluster for route in tcp.routes]
                how = "" if tcp.cluster else ", by the addresses of the connection,"
                lines = [f"TCP: whatever the request is, its bytes go{how} to"]
                return [*notes, *lines, *_clusters(config, dict.fromkeys(names))], True
            case TunnelConfig():
                return [*notes, "takes tunnel agents, not requests"], False
    return [*notes, "closes connections"], False


def _marked(config: RouterConfig) -> RouterConfig:
    """Return a router whose routes respond with their places."""
    hosts = []
    for number, host in enumerate(config.virtual_hosts):
        rules = tuple(
            RouterRuleConfig(
                match=rule.match, direct_response=DirectResponseConfig(status=200, body=f"{number} {index}")
            )
            for index, rule in enumerate(host.routers)
        )
        hosts.append(host.model_copy(update={"routers": rules}))
    return config.model_copy(update={"virtual_hosts": tuple(hosts)})


def _route(place: Place, router: RouterConfig, config: Config, facts: RouteInput) -> tuple[list[str], bool]:
    lines = [f"router {router.router_config_name} ({place.path})"]
    marked = Router(_marked(router))
    found = marked.match(facts)
    if not isinstance(found, DirectResponse):
        why = marked.explain(facts.host)
        return [*lines, f"404: {why or 'a virtual host takes it, but no rule of it matches'}"], False
    number, index = map(int, found.body.split())
    host = router.virtual_hosts[number]
    rule = host.routers[index]
    lines += [
        f"virtual host {number}{f' {host.name}' if host.name else ''}: {', '.join(host.domains)}",
        f"rule {index}: {_match(rule)}",
    ]
    result = Router(router).match(facts)
    told, taken = _result(result, rule.route, config)
    return [*lines, *told], taken


def _match(rule: RouterRuleConfig) -> str:
    """Return the conditions of a route, in a line."""
    match = rule.match
    for name in ("prefix", "path", "regex"):
        if value := getattr(match, name):
            wanted = [f"{name} {quote(value)}"]
            break
    else:
        wanted = [f"variable {each.name}" for each in match.variables]
    wanted += [f"{each.name}{' ~ ' if each.regex else ' = '}{quote(each.value)}" for each in match.headers]
    return ", ".join(wanted) or "everything"


def _result(result: object, route: RouteActionConfig | None, config: Config) -> tuple[list[str], bool]:
    match result:
        case DirectResponse(status=status, body=body):
            return [f"answers with {status}, {len(body)} bytes of body"], True
        case Redirect(status=status, location=location):
            return [f"redirects with {status} to {location}"], True
        case ClusterRoute() as found:
            weighted = route.weighted_clusters if route is not None else ()
            names = {each.cluster.name: f" (weight {each.cluster.weight})" for each in weighted}
            lines = list(_clusters(config, names or {found.cluster_name: ""}))
            known = any(each.name in (names or [found.cluster_name]) for each in _all(config))
            return [*lines, *_further(found)], known
    if route is not None and (route.cluster_variable or route.cluster_header):
        by = route.cluster_variable or f"the field {route.cluster_header}"
        return [
            f"404: the cluster is named by {by}, which the request does not have as far as is known"
        ], False
    return ["404: the rule names no cluster"], False


def _all(config: Config) -> Sequence[ClusterConfig]:
    return config.cluster_manager.clusters


def _clusters(config: Config, names: dict[str, str] | dict[str, None]) -> Iterator[str]:
    known = {each.name: each for each in _all(config)}
    for name, note in names.items():
        cluster = known.get(name)
        if cluster is None:
            yield f"cluster {name}{note or ''}: 404, as there is none of this name"
            continue
        hosts = ", ".join(host.address for host in cluster.hosts)
        yield f"cluster {name}{note or ''}: {hosts or 'hosts of tunnel agents'}, by {cluster.lb_type}"


def _further(route: ClusterRoute) -> Iterator[str]:
    """Return what else the route does with a forwarded request."""
    if route.upstream_protocol:
        yield f"spoken to in {route.upstream_protocol}"
    if route.timeout_said:
        yield f"timeout {route.timeout:g} s"
    if route.request_mutation is not None:
        yield "the path, the Host or fields of the request are changed"
    if route.response_mutation is not None:
        yield "fields of the response are changed"
    for mirror in route.mirrors:
        yield f"copies go to cluster {mirror.cluster_name}"
