"""The rules of all routers, and which of them takes a request, according to the configuration alone."""

from __future__ import annotations

__all__ = ["Routes"]

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from heapq import merge
from operator import itemgetter
from typing import Any, Final

from reverseproxy.admin.paging import end_of, first_items
from reverseproxy.admin.redaction import redact
from reverseproxy.admin.slices import Steps
from reverseproxy.config.models import (
    Config,
    DirectResponseConfig,
    ListenerConfig,
    MatchConfig,
    ProxyConfig,
    RouterConfig,
    RouterRuleConfig,
    VirtualHostConfig,
)
from reverseproxy.problems import Place
from reverseproxy.routing import DirectResponse, RouteInput, Router, normalize_path
from reverseproxy.routing.actions import name_of

STRIDE: Final = 4
"""How many rules are processed in one step; see L{reverseproxy.admin.slices}."""

CLAIMS: Final = 100
"""How many of the agents' routes are compared with a host in one step."""

Natural = tuple[str | int, ...]
"""A sort key of a place in the document, in which C{[2]} is less than C{[10]}."""


def natural(place: str) -> Natural:
    """Return the sort key of a place: texts and numbers alternate."""
    return tuple(int(part) if i % 2 else part for i, part in enumerate(re.split(r"([0-9]{1,9})", place)))


def _plain(model: Any) -> Any:
    return redact(model.model_dump(mode="json", exclude_defaults=True, warnings=False))


class Routes:
    """The routers of a configuration, with their rules."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._places: dict[str, Router] = {}
        self._rules: tuple[list[Natural], list[Mapping[str, Any]]] | None = None  # made at the first use
        self._by_listener: dict[str, list[str]] = {}
        for listener in config.server.listeners:
            names = self._by_listener.setdefault(listener.name, [])
            names += [proxy.router_config_name for proxy in _proxies(listener)]

    def page(
        self, after: str, limit: int, agent_routes: Sequence[Mapping[str, Any]] = ()
    ) -> Steps[tuple[list[dict[str, Any]], str | None]]:
        """
        Return a page of the rules, in the order of their places in the document.

        @param after: the place of the last rule before the page.
        @param agent_routes: the agents' routes, see L{reverseproxy.admin.lists.agent_routes}.
        @return: the rules, and the place after which the next page begins; L{None} if this is the last one.
        """
        if self._rules is None:
            self._rules = yield from self._list()
        keys, rules = self._rules
        start, first = bisect_right(keys, natural(after)), natural(after)
        own = zip(keys[start : start + limit + 1], rules[start : start + limit + 1], strict=True)
        others = ((natural(item["place"]), item) for item in agent_routes)
        behind = ((key, item) for key, item in others if key > first)
        registered = yield from first_items(behind, limit, itemgetter(0))
        known = list(merge(own, registered, key=itemgetter(0)))
        end = end_of(known, limit, itemgetter(0))
        found: list[dict[str, Any]] = []
        for _, item in known[:end]:
            if len(found) % STRIDE == 0:
                yield
            rule = item.get("rule")
            found.append({**item, "rule": _plain(rule)} if isinstance(rule, RouterRuleConfig) else {**item})
        return found, found[-1]["place"] if end < len(known) else None

    def _list(self) -> Steps[tuple[list[Natural], list[Mapping[str, Any]]]]:
        """Return all rules of the configuration, sorted by their places, and the sort keys."""
        rules: list[Mapping[str, Any]] = []
        for name, (place, router) in self._config.routers.items():
            for i, host in enumerate(router.virtual_hosts):
                for j, rule in enumerate(host.routers):
                    if len(rules) % STRIDE == 0:
                        yield
                    rules.append(
                        {
                            "router": name,
                            "virtual_host": host.name,
                            "domains": list(host.domains),
                            "route": name_of(
                                rule, host.name, Place(None, ("virtual_hosts", i, "routers", j))
                            ),
                            "place": (place / "virtual_hosts" / i / "routers" / j).path,
                            "rule": rule,
                        }
                    )
        rules.sort(key=lambda item: natural(item["place"]))
        return [natural(item["place"]) for item in rules], rules

    def routers_of(self, listener: str) -> list[str]:
        """Return the names of the routers that a listener uses."""
        return self._by_listener.get(listener, [])

    def explain(
        self,
        method: str,
        host: str,
        target: str,
        headers: Mapping[str, str],
        listener: str = "",
        agent_routes: Sequence[Mapping[str, Any]] = (),
    ) -> Steps[list[dict[str, Any]]]:
        """
        Explain which rule would take a request, for each listener that has a router.

        @param target: the path, with the query after a question mark.
        @param headers: the header fields by lower-case names.
        @param listener: the only listener to explain; all if empty.
        @param agent_routes: the agents' routes, see L{reverseproxy.admin.lists.agent_routes}.
        """
        path, _, query = target.partition("?")
        facts = RouteInput(method, normalize_path(path), query, host, headers.get)
        matching: list[Mapping[str, Any]] = []
        for number, item in enumerate(agent_routes):
            if number % CLAIMS == 0:
                yield
            if _may_take(item["domains"], host):
                matching.append(item)
        names = [listener] if listener else list(self._by_listener)
        found = []
        for each in names:
            for router in self.routers_of(each):
                yield
                found.append({"listener": each, **self._explain(router, facts, matching)})
        return found

    def _explain(
        self, name: str, facts: RouteInput, agent_routes: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        found = self._config.routers.get(name)
        if found is None:
            return {"router": name, "outcome": "404", "why": "there is no router of this name"}
        place, config = found
        registered = [item for item in agent_routes if item["router"] == name]
        router = self._places.get(name)
        if registered:
            router = Router(_with_places(_with_agent_routes(config, registered)))
        elif router is None:
            router = self._places[name] = Router(_with_places(config))
        result = router.match(facts)
        if not isinstance(result, DirectResponse):
            why = router.explain(facts.host) or "the virtual host has no rule for it"
            return {"router": name, "outcome": "404", "why": why}
        i, j = map(int, result.body.split())
        if i >= len(config.virtual_hosts):
            item = registered[i - len(config.virtual_hosts)]
            return {**item, "outcome": f"cluster {item['cluster']}"}
        host = config.virtual_hosts[i]
        rule = host.routers[j]
        return {
            "router": name,
            "virtual_host": host.name,
            "place": (place / "virtual_hosts" / i / "routers" / j).path,
            "outcome": _outcome(rule),
            "rule": _plain(rule),
        }


def _may_take(domains: Sequence[str], host: str) -> bool:
    """Whether an agent's route may take requests with a C{Host}; few do, of however many there are."""
    name = host.lower()
    return any(
        "*" in domain or name == domain.lower() or name.startswith(f"{domain.lower()}:") for domain in domains
    )


def _proxies(listener: ListenerConfig) -> Iterator[ProxyConfig]:
    for chain in listener.filter_chains:
        for entry in chain.filters:
            if isinstance(entry.config, ProxyConfig):
                yield entry.config


def _with_agent_routes(config: RouterConfig, registered: Sequence[Mapping[str, Any]]) -> RouterConfig:
    """Return the router with virtual hosts for agents' routes after its own."""
    rule = RouterRuleConfig(match=MatchConfig(prefix="/"))
    hosts = tuple(
        VirtualHostConfig(domains=tuple(f"{domain}:*" for domain in item["domains"]), routers=(rule,))
        for item in registered
    )
    return config.model_copy(update={"virtual_hosts": (*config.virtual_hosts, *hosts)})


def _with_places(config: RouterConfig) -> RouterConfig:
    """Return a router whose rules match the same requests, and answer with their own indexes."""
    hosts = tuple(
        host.model_copy(
            update={
                "routers": tuple(
                    RouterRuleConfig(
                        match=rule.match, direct_response=DirectResponseConfig(status=200, body=f"{i} {j}")
                    )
                    for j, rule in enumerate(host.routers)
                )
            }
        )
        for i, host in enumerate(config.virtual_hosts)
    )
    return config.model_copy(update={"virtual_hosts": hosts})


def _outcome(rule: RouterRuleConfig) -> str:
    """Describe the action of a rule in a few words."""
    if rule.direct_response is not None:
        return f"answer {rule.direct_response.status}"
    if rule.redirect is not None:
        return "redirect"
    route = rule.route
    if route is None:
        return "404"
    if route.cluster_name:
        return f"cluster {route.cluster_name}"
    names = [each.cluster.name for each in route.weighted_clusters]
    return f"one of the clusters {', '.join(names)}" if names else "a cluster that the request names"
