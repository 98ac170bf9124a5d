"""The read-only paths of C{/api/tunnel/v1}, except for events and the audit."""

from __future__ import annotations

__all__ = ["MOST_IDS", "ReadApi"]

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime

from reverseproxy import __version__
from reverseproxy.admin.access import Caller
from reverseproxy.admin.answers import (
    MOST,
    after_of,
    latest_page_of,
    listed,
    listed_in_steps,
    page_of,
    problems_of,
)
from reverseproxy.admin.fleet import merge_fleets
from reverseproxy.admin.lists import without_infinity
from reverseproxy.admin.merging import (
    is_away,
    merge_agent_routes,
    merge_agents,
    merge_by_name,
    merge_hosts,
    rounded,
    shown,
)
from reverseproxy.admin.messages import ApiProblem, Call, Reply
from reverseproxy.admin.paging import cut, latest_page
from reverseproxy.admin.routes import Routes
from reverseproxy.admin.slices import Steps, in_slices
from reverseproxy.admin.sources import Answer, ISource
from reverseproxy.config.models import Config
from reverseproxy.metrics.history import add_histories
from reverseproxy.metrics.latency import quantile

MOST_IDS: Final = 200
"""The maximum number of C{ids} in one request."""

STRIDE: Final = 5
"""How many routes are processed in one step; see L{reverseproxy.admin.slices}."""

_NEVER: Final = 9_999_999_999_999.0
"""Where revocation lists that don't expire are sorted, in seconds since 1970: behind the year 9999."""

Reader = Callable[[Call], Awaitable[Reply]]


class ReadApi:
    """
    Answers C{GET} requests.

    @ivar simple: the methods that answer, by their paths.
    @ivar in_fleet: whether the server belongs to a fleet.
    """

    def __init__(
        self,
        config: Config,
        source: ISource,
        clock: IReactorTime,
        certificates: Callable[[], list[dict[str, Any]]] = list,
    ) -> None:
        """
        @param certificates: returns the certificates of the admin API itself, which no worker has; see
            L{reverseproxy.admin.lists.describe_certificates}.
        """
        self._own_certificates = certificates
        self._source = source
        self._clock = clock
        self.describe(config)
        self.simple: Mapping[str, Reader] = {
            "clusters": self._listed("clusters"),
            "listeners": self._listed("listeners"),
            "servers": self._listed("servers"),
            "certificates": self._certificates,
            "agents": self._agents,
            "routes": self._all_routes,
            "routes:explain": self._explain,
            "workers": self._workers,
            "fleet": self._fleet,
        }

    def describe(self, config: Config) -> None:
        """Show another configuration from now on."""
        self._routes = Routes(config)
        self.in_fleet = config.fleet is not None

    async def _page(self, items: list[Any], after: str | None, answers: list[Answer]) -> Reply:
        """Return a page of a list; see L{listed_in_steps}."""
        return await in_slices(listed_in_steps(items, after, answers), self._clock)

    def _listed(self, question: str) -> Reader:
        """Return a method that answers with a list of named items, merged from all workers."""

        async def answer(call: Call) -> Reply:
            after, limit = page_of(call)
            answers = await self._source.ask(question, {"after": after, "limit": limit})
            known = [each.value["items"] for each in answers if each.value]
            items = await in_slices(merge_by_name(known), self._clock)
            return await self._page(*cut(items, _lasts(answers), limit, "name"), answers)

        return answer

    # agents

    async def _agents(self, call: Call) -> Reply:
        after, limit = page_of(call)
        arguments: dict[str, Any] = {"after": after, "limit": limit}
        arguments |= {name: call.query[name] for name in ("cluster", "identity") if call.query.get(name)}
        if "ids" in call.query:
            ids = [each for each in call.query["ids"].split(",") if each]
            if len(ids) > MOST_IDS:
                raise ApiProblem(400, f"ids may be {MOST_IDS} at the most")
            arguments["ids"], limit = ids, MOST_IDS + 1
        answers = await self._source.ask("agents", arguments)
        found, last = cut(await self._merged(answers), _lasts(answers), limit, "id")
        there = await self._look_again(found)
        return await in_slices(listed_in_steps(there, last, answers, shown), self._clock)

    async def _merged(self, answers: list[Answer]) -> list[dict[str, Any]]:
        merging = merge_agents((each.worker, each.value) for each in answers if each.value)
        return await in_slices(merging, self._clock)

    async def _look_again(self, agents: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """
        Query agents again that no worker had, as they may have been handed from one worker to another.

        @return: the agents, without those that have left.
        """
        away = [agent["id"] for agent in agents if is_away(agent)]
        if not away:
            return agents
        known = {
            each["id"]: each for each in await self._merged(await self._source.ask("agents", {"ids": away}))
        }
        found = [known.get(agent["id"]) if is_away(agent) else agent for agent in agents]
        return [agent for agent in found if agent is not None]

    async def agent(self, key: str) -> dict[str, Any]:
        """
        Return an agent, as the argument of L{shown}.

        @raise ApiProblem: if there is no agent with this id.
        """
        found = await self._look_again(await self._merged(await self._source.ask("agent", {"id": key})))
        if not found:
            raise ApiProblem(404, "there is no such agent, or it has left")
        return found[0]

    # clusters and listeners

    async def hosts(self, call: Call, cluster: str) -> Reply:
        """Answer with a page of the hosts of a cluster."""
        after, limit = page_of(call)
        answers = await self._source.ask("hosts", {"cluster": cluster, "after": after, "limit": limit})
        if all(answer.value is None for answer in answers):
            raise ApiProblem(404, "there is no such cluster")
        items, last = cut(_hosts(answers), _lasts(answers), limit, "address")
        away = [item["address"] for item in items if item["relayed"]]
        if away:  # they were just handed from one worker to another, or their worker has not answered
            again = await self._source.ask("hosts", {"cluster": cluster, "addresses": away})
            items = [item for item in items if not item["relayed"]] + _hosts(again)
            items.sort(key=lambda item: (item["address"], item["worker"] or 0))
        for item in items:
            del item["relayed"]
        return await self._page(items, last, answers)

    async def refused(self, call: Call) -> Reply:
        """Answer with the latest refused joins."""
        before, limit = latest_page_of(call)
        answers = await self._source.ask("refused", {"limit": limit, "before": before})
        items = _each(answers)
        items.sort(key=lambda item: -item["time"])
        more = any(answer.value["more"] for answer in answers if answer.value)
        page, last = latest_page(items, limit, before, more)
        return await self._page(list(page), after_of(last), answers)

    async def _certificates(self, call: Call) -> Reply:
        after, limit = page_of(call, MOST)
        answers = await self._source.ask("certificates", {})
        items = [item for answer in answers for item in answer.value or ()]
        found = {_expiry_key(item): item for item in [*items, *without_infinity(self._own_certificates())]}
        keys = sorted(key for key in found if key > after)
        last = keys[limit - 1] if len(keys) > limit else None
        return await self._page([found[key] for key in keys[:limit]], last, answers)

    async def _workers(self, call: Call) -> Reply:
        workers = self._source.facts()["workers"]
        return listed(workers)

    async def _fleet(self, call: Call) -> Reply:
        answers = await self._source.ask("fleet", {})
        found = merge_fleets((answer.worker, answer.value) for answer in answers)
        return Reply.of({**found, "problems": problems_of(answers)})

    # routes

    async def _all_routes(self, call: Call) -> Reply:
        after, limit = page_of(call)
        agent_routes = await self._agent_routes()
        answers = await self._source.ask("by_route", {})
        steps = self._page_of_routes(after, limit, agent_routes, answers)
        return await self._page(*(await in_slices(steps, self._clock)), answers)

    def _page_of_routes(
        self, after: str, limit: int, agent_routes: list[dict[str, Any]], answers: list[Answer]
    ) -> Steps[tuple[list[dict[str, Any]], str | None]]:
        page, last = yield from self._routes.page(after, limit, agent_routes)
        figures = yield from self._figures(answers)
        for number, item in enumerate(page):
            if number % STRIDE == 0:
                yield
            item["figures"] = _figures_of(_of_rule(figures, item))
        return page, last

    async def _agent_routes(self) -> list[dict[str, Any]]:
        """Return the routes that agents have registered."""
        answers = await self._source.ask("routes", {})
        merging = merge_agent_routes([answer.value or () for answer in answers])
        return await in_slices(merging, self._clock)

    def _figures(self, answers: list[Answer]) -> Steps[dict[tuple[str, str, str], dict[str, Any]]]:
        """Sum up the counters of each rule, by router, virtual host and name."""
        found: dict[tuple[str, str, str], dict[str, Any]] = {}
        for answer in answers:
            for number, item in enumerate(answer.value or ()):
                if number % STRIDE == 0:
                    yield
                for router in self._routes.routers_of(item["listener"]):
                    key = (router, item["virtual_host"], item["route"])
                    found[key] = _sum(found.get(key), item)
        return found

    async def _explain(self, call: Call) -> Reply:
        headers: dict[str, str] = {}
        for name, value in call.queries:
            if name == "header":
                field, colon, text = value.partition(":")
                if not colon or not field.strip():
                    raise ApiProblem(400, 'a header is written "Name: value"')
                headers[field.strip().lower()] = text.strip()
            elif name not in ("method", "host", "path", "listener"):
                raise ApiProblem(400, "the parameters are method, host, path, header and listener")
        path = call.query.get("path", "/")
        if not path.startswith("/"):
            raise ApiProblem(400, "the path must begin with a slash")
        steps = self._routes.explain(
            call.query.get("method", "GET"),
            call.query.get("host", ""),
            path,
            headers,
            call.query.get("listener", ""),
            await self._agent_routes(),
        )
        return await self._page(await in_slices(steps, self._clock), None, [])

    # summary

    async def summary(self, call: Call, caller: Caller, features: list[str]) -> Reply:
        """
        Answer with a few numbers about all processes, and the caller's role.

        @param features: the optional parts of the API that are available.
        """
        answers = await self._source.ask("summary", {})
        known = [answer.value for answer in answers if answer.value is not None]
        times = [
            sum(numbers) for numbers in zip(*(each["times"] for each in known if each["times"]), strict=True)
        ]
        added = ("connections", "requests", "errors", "in_flight", "waiting", "refused")
        return Reply.of(
            {
                "version": __version__,
                "uptime_seconds": max((each["uptime_seconds"] for each in known), default=0.0),
                "draining": self._source.draining,
                "workers": len(self._source.facts()["workers"]),
                "caller": {"name": caller.name, "role": caller.role.name.lower(), "hint": caller.hint},
                "features": features,
                # Each worker knows all agents and servers, so that the numbers must not be added.
                "agents": max((each["agents"] for each in known), default=0),
                "servers": max((each["servers"] for each in known), default=0),
                **{name: sum(each[name] for each in known) for name in added},
                "p50_seconds": rounded(quantile(times, 0.5)),
                "p99_seconds": rounded(quantile(times, 0.99)),
                "history": add_histories(each["history"] for each in known),
                "problems": problems_of(answers),
            }
        )


def _expiry_key(item: Mapping[str, Any]) -> str:
    """Return the key that sorts certificates by their expiry."""
    expires = _NEVER if item["not_after"] is None else min(max(0.0, item["not_after"]), _NEVER)
    return f"{expires:017.3f} {item['use']} {item['name']}"


def _lasts(answers: list[Answer]) -> list[str | None]:
    """Return each worker's last examined key; L{None} for a worker that has returned all its items."""
    return [answer.value["last"] for answer in answers if answer.value]


def _hosts(answers: list[Answer]) -> list[dict[str, Any]]:
    return merge_hosts((answer.worker, answer.value["items"]) for answer in answers if answer.value)


def _each(answers: list[Answer]) -> list[dict[str, Any]]:
    """Return the items of all workers, each with the number of its worker."""
    known = [answer for answer in answers if answer.value]
    return [{**item, "worker": each.worker or None} for each in known for item in each.value["items"]]


def _sum(known: dict[str, Any] | None, item: Mapping[str, Any]) -> dict[str, Any]:
    if known is None:
        return dict(item)
    ends = {**known["ends"], **item["ends"]}
    return {
        "ends": {name: known["ends"].get(name, 0) + item["ends"].get(name, 0) for name in ends},
        "times": [a + b for a, b in zip(known["times"], item["times"], strict=True)],
        "received": known["received"] + item["received"],
        "sent": known["sent"] + item["sent"],
    }


def _of_rule(
    figures: Mapping[tuple[str, str, str], dict[str, Any]], item: Mapping[str, Any]
) -> dict[str, Any]:
    """
    Return the counters of a rule.

    @param item: the rule; for an agent's route, the counters of all its domains are added.
    """
    router, host = item["router"], item["virtual_host"]
    if "route" in item:
        return figures.get((router, host, item["route"]), {})
    total: dict[str, Any] = {}
    for (name, virtual_host, _), each in figures.items():
        if name == router and virtual_host.startswith(f"{host}: "):
            total = _sum(total or None, each)
    return total


def _figures_of(item: Mapping[str, Any]) -> dict[str, Any]:
    ends, times = item.get("ends", {}), item.get("times", ())
    return {
        "requests": sum(ends.values()),
        "requests_by_class": dict(sorted(ends.items())),
        "errors": ends.get("5xx", 0),
        "p50_seconds": rounded(quantile(times, 0.5)),
        "p99_seconds": rounded(quantile(times, 0.99)),
        "bytes": {"received": item.get("received", 0), "sent": item.get("sent", 0)},
    }
