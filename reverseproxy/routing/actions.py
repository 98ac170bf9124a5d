"""
What a rule does with requests that match.

The order is MOSN's: C{chooseHost} in C{pkg/proxy/downstream.go} looks
at C{direct_response} first, then at C{redirect}, then at C{route}; how a route
finds its cluster is C{ClusterName} in C{pkg/router/base_rule.go}.
"""

from __future__ import annotations

__all__ = ["Level", "compile_action", "compile_headers", "name_of"]

from bisect import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate
from math import inf
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from reverseproxy.config.models import PerFilterConfig
from reverseproxy.routing.hashing import HashKey, cookie_key, header_key, source_ip_key
from reverseproxy.routing.matching import DEAD_END, Action
from reverseproxy.routing.mutation import (
    IMMUTABLE_FIELDS,
    HeaderMutation,
    HeaderStep,
    PathRewrite,
    RequestMutation,
    field_value,
    replace_pattern,
    replace_prefix,
    replace_whole,
)
from reverseproxy.routing.patterns import PatternError, compile_replacement
from reverseproxy.routing.redirects import compile_redirect
from reverseproxy.routing.results import ClusterRoute, DirectResponse, Mirror, RouteResult
from reverseproxy.routing.retries import DEFAULT_RETRY, RetryPolicy
from reverseproxy.routing.timeouts import DEFAULT_TIMEOUT
from reverseproxy.routing.variables import find_variable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from reverseproxy.config.diagnostics import Diagnostics
    from reverseproxy.config.models import (
        DirectResponseConfig,
        HashPolicyConfig,
        HeaderToAddConfig,
        MatchConfig,
        RouteActionConfig,
        RouterConfig,
        RouterRuleConfig,
        VirtualHostConfig,
    )
    from reverseproxy.routing.facts import RouteInput
from reverseproxy.problems import Place

Draw = Callable[[], float]
"""Gives random numbers from 0 to 1, less than 1."""

_CLUSTERS_KEPT: Final = 256
"""Clusters named by a variable whose results are kept."""

_SPECIAL: Final = frozenset("\\^$|?*+()[]{}")


@dataclass(frozen=True, slots=True)
class Level:
    """
    A router, virtual host or route that may change headers.

    @ivar config: its configuration.
    @ivar place: its place in the document.
    """

    config: RouterConfig | VirtualHostConfig | RouteActionConfig
    place: Place


def compile_action(
    config: RouterRuleConfig,
    virtual_host: str,
    levels: Sequence[Level],
    path: Place,
    draw: Draw,
    notes: Diagnostics,
) -> RouteResult | Action:
    """
    Compile what a rule does with requests that match.

    @param levels: the virtual host and the router, which may change headers, too.
    @param path: the rule's place in the document.
    @param draw: chooses among weighted clusters.
    @return: a result, or a function that makes one; L{DEAD_END} for status 404.
    """
    filters = _filter_options(config, levels)
    names = (name_of(config, virtual_host, path), virtual_host)
    if config.direct_response is not None:
        return _direct(config.direct_response, path / "direct_response", notes, filters, names)
    if config.redirect is not None:
        return compile_redirect(config.redirect, path / "redirect", notes, filters, names)
    if config.route is None:
        notes.warn(path / "route", "names no cluster, so requests that match get status 404")
        return DEAD_END
    route = config.route
    place = path / "route"
    mirror = config.request_mirror_policies
    base = ClusterRoute(
        route.cluster_name,
        max(route.timeout or DEFAULT_TIMEOUT, 0.0),
        virtual_host,
        route.upstream_protocol,
        DEFAULT_RETRY if route.retry_policy is None else RetryPolicy.of_config(route.retry_policy),
        _labels(route.metadata_match),
        _hash_key(route.hash_policy, place / "hash_policy", notes),
        _request_mutation(config.match, route, place, [Level(route, place), *levels], notes),
        compile_headers([Level(route, place), *levels], "response", notes),
        route.auto_host_rewrite and not (route.host_rewrite or route.auto_host_rewrite_header),
        (Mirror(mirror.cluster, mirror.percent),) if mirror and mirror.cluster and mirror.percent else (),
        route.timeout != 0,
        route.timeout_includes_response,
        None if route.idle_timeout is None else route.idle_timeout or inf,
        filters,
        names[0],
    )
    return _clusters(route, base, place, draw, notes)


def name_of(config: RouterRuleConfig, virtual_host: str, path: Place) -> str:
    """Return the name of a rule for logs: its own, or its virtual host and its index there, from 0."""
    host, number = Place("", path.keys[-4:-2]), path.keys[-1]
    return config.name or f"{virtual_host or host.path}[{number}]"


def _filter_options(config: RouterRuleConfig, levels: Sequence[Level]) -> PerFilterConfig | None:
    """Return the options of stream filters that a rule has, or its virtual host."""
    merged: dict[str, Any] = {}
    for each in (levels[0].config if levels else None, config):
        options = getattr(each, "per_filter_config", None)
        if options is not None:
            merged.update({name: value for name, value in options if value is not None})
    return PerFilterConfig(**merged) if merged else None


def _direct(
    config: DirectResponseConfig,
    path: Place,
    notes: Diagnostics,
    filters: PerFilterConfig | None,
    names: tuple[str, str],
) -> DirectResponse:
    """Return the result for C{direct_response}; status 0 means 200, as in MOSN's HTTP/1."""
    status = config.status or 200
    if not 200 <= status <= 599:
        notes.error(path / "status", f"{status} is not a final HTTP status")
    return DirectResponse(status, config.body.encode("utf-8", "replace"), filters, *names)


# Clusters


def _clusters(
    route: RouteActionConfig, base: ClusterRoute, path: Place, draw: Draw, notes: Diagnostics
) -> RouteResult | Action:
    """Return the result or the function for the clusters of a route."""
    if route.weighted_clusters:
        weights = [entry.cluster.weight for entry in route.weighted_clusters]
        if not sum(weights):
            notes.error(path / "weighted_clusters", "the weights are all 0")
            return DEAD_END
        choices = [
            replace(base, cluster_name=entry.cluster.name, metadata=_labels(entry.cluster.metadata_match))
            for entry in route.weighted_clusters
        ]
        return _weighted(choices, weights, draw)
    if route.cluster_name:
        return base
    variable = route.cluster_variable or (route.cluster_header and f"request_header_{route.cluster_header}")
    if variable:
        getter = find_variable(variable)
        if getter is None:
            notes.warn(
                path / "cluster_variable",
                f"there is no variable {route.cluster_variable!r}, so requests that match get status 404",
            )
            return DEAD_END
        return _named_by(getter, base)
    notes.warn(path, "names no cluster, so requests that match get status 404")
    return DEAD_END


def _weighted(choices: Sequence[ClusterRoute], weights: Sequence[int], draw: Draw) -> RouteResult | Action:
    """Choose at random, by weight; equal draws give equal choices."""
    kept = [(choice, weight) for choice, weight in zip(choices, weights, strict=True) if weight]
    if len(kept) == 1:
        return kept[0][0]
    results = [choice for choice, _ in kept]
    ends = list(accumulate(weight for _, weight in kept))
    total = ends.pop()

    def choose(facts: RouteInput) -> RouteResult:
        return results[bisect(ends, draw() * total)]

    return choose


def _named_by(getter: Callable[[RouteInput], str | None], base: ClusterRoute) -> Action:
    """Choose the cluster that a variable names."""

    @lru_cache(maxsize=_CLUSTERS_KEPT)
    def route_to(name: str) -> ClusterRoute:
        return replace(base, cluster_name=name)

    def choose(facts: RouteInput) -> RouteResult | None:
        name = getter(facts)
        return route_to(name) if name else None

    return choose


def _labels(labels: Mapping[str, str]) -> Mapping[str, str] | None:
    return MappingProxyType(dict(labels)) if labels else None


def _hash_key(policies: Sequence[HashPolicyConfig], path: Place, notes: Diagnostics) -> HashKey:
    """Return the function that makes the key of consistent hashing, by the first policy."""
    if not policies:
        return source_ip_key
    if len(policies) > 1:
        notes.warn(path / 1, "does not count: only the first one does, as in MOSN")
    policy = policies[0]
    if policy.cookie is not None:
        return cookie_key(policy.cookie.name)
    return source_ip_key if policy.header is None else header_key(policy.header.name)


# Changes


def compile_headers(levels: Sequence[Level], what: str, notes: Diagnostics) -> HeaderMutation | None:
    """
    Compile the changes to headers.

    @param levels: in the order in which they apply.
    @param what: C{"request"} or C{"response"}.
    @return: L{None} if nothing changes.
    """
    steps: list[HeaderStep] = []
    for level in levels:
        for i, entry in enumerate(getattr(level.config, f"{what}_headers_to_add")):
            steps += _addition(entry, level.place / f"{what}_headers_to_add" / i / "header", notes)
        for i, name in enumerate(getattr(level.config, f"{what}_headers_to_remove")):
            place = level.place / f"{what}_headers_to_remove" / i
            steps += [HeaderStep(each) for each in _header(name, place, notes)]
    return HeaderMutation(steps) if steps else None


def _header(name: str, path: Place, notes: Diagnostics) -> list[bytes]:
    """Return a header's name in lower case; nothing if it may not be changed."""
    lower = name.lower().encode("utf-8", "replace")
    if lower not in IMMUTABLE_FIELDS:
        return [lower]
    hint = "; write host_rewrite instead" if lower == b"host" else ""
    notes.warn(path, f"{name!r} is left as it is, because it is the proxy's own{hint}")
    return []


def _addition(entry: HeaderToAddConfig, path: Place, notes: Diagnostics) -> list[HeaderStep]:
    """Return the step for a header to add."""
    text = entry.header.value
    value: bytes | Callable[[RouteInput], str | None] = field_value(text)
    if len(text) > 2 and text[0] == text[-1] == "%":
        getter = find_variable(text.strip("%"), late=True)
        if getter is None:
            notes.warn(path / "value", f"there is no variable {text}, so this very text is sent")
        else:
            value = getter
    return [HeaderStep(name, value, entry.append) for name in _header(entry.header.name, path / "key", notes)]


def _request_mutation(
    match: MatchConfig, route: RouteActionConfig, path: Place, levels: Sequence[Level], notes: Diagnostics
) -> RequestMutation | None:
    """Compile all changes to requests; L{None} if there are none."""
    headers = compile_headers(levels, "request", notes)
    rewrite = _path_rewrite(match, route, path, notes)
    host = route.host_rewrite.encode()
    host_header = route.auto_host_rewrite_header.lower().encode()
    if headers is None and rewrite is None and not host and not host_header:
        return None
    return RequestMutation(headers, rewrite, host, host_header)


def _path_rewrite(
    match: MatchConfig, route: RouteActionConfig, path: Place, notes: Diagnostics
) -> PathRewrite | None:
    """Compile the change to paths; L{None} if there is none."""
    regex = match.regex if not (match.prefix or match.path) else ""
    pattern = "" if route.regex_rewrite is None else route.regex_rewrite.pattern.regex
    key = path / "prefix_rewrite" if route.prefix_rewrite else path / "regex_rewrite"
    if not route.prefix_rewrite and not pattern:
        return None
    if not (match.prefix or match.path or regex):
        notes.warn(key, "has no effect in a rule without prefix, path or regex, as in MOSN")
        return None
    if route.prefix_rewrite:
        if match.path and not match.prefix:
            return replace_whole(route.prefix_rewrite)
        if _SPECIAL & set(regex):
            # MOSN compares the path with the pattern as it is written.
            notes.warn(key, f"has no effect, as no path begins with the text of the pattern {regex!r}")
            return None
        return replace_prefix(match.prefix or regex, route.prefix_rewrite)
    assert route.regex_rewrite is not None
    try:
        replacement, missing = compile_replacement(pattern, route.regex_rewrite.substitution)
    except PatternError as error:
        notes.error(key / "pattern" / "regex", f"{pattern!r} is not RE2: {error}")
        return None
    for name in missing:
        notes.warn(key / "substitution", f"the pattern has no group {name!r}, so nothing is put in its place")
    return replace_pattern(replacement)
