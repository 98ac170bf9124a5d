"""
What is ours: C{/api/tunnel/v1}.

Lists are C{{"items": [...], "next": ..., "problems": [...]}}: C{next} goes into
C{after} for the next page, and C{problems} names workers that have not answered.
"""

from __future__ import annotations

__all__ = ["PATHS", "TunnelApi"]

import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from reverseproxy.admin.access import Caller
from reverseproxy.admin.agents import merge_agents
from reverseproxy.admin.events import MOST_STREAMS, EventStream
from reverseproxy.admin.http import Call, Problem, Reply, Stream
from reverseproxy.admin.openapi import describe
from reverseproxy.admin.routes import Routes
from reverseproxy.admin.sources import Answer, ISource
from reverseproxy.clock import wall_time
from reverseproxy.config.models import Config
from reverseproxy.logs import counted

log = Logger()

MOST: Final = 500
"""Items of a page."""

USUAL: Final = 100
"""Items of a page that does not say."""

MOST_AUDITED: Final = 1000
"""How many changes are kept."""

LONGEST: Final = 30 * 24 * 3600.0
"""Seconds that an agent can be kept out at the most."""

DRAINED: Final = 3600.0
"""Seconds that one that is drained is kept out, if the request does not say."""

Answerer = Callable[[Call], Awaitable["Reply | Stream"]]

PATHS: Final = (
    "agents",
    "agents/{id}",
    "agents/{id}/drain",
    "agents/{id}/resume",
    "clusters",
    "clusters/{name}/hosts",
    "listeners",
    "routes",
    "routes:explain",
    "certificates",
    "joins/refused",
    "servers",
    "workers",
    "events",
    "audit",
    "openapi.json",
)
"""What there is below C{/api/tunnel/v1/}."""


class TunnelApi:
    """Answers at C{/api/tunnel/v1}."""

    def __init__(self, config: Config, source: ISource, clock: IReactorTime) -> None:
        self._source = source
        self._clock = clock
        self._routes = Routes(config)
        self._audit: deque[dict[str, Any]] = deque(maxlen=MOST_AUDITED)
        self._streams: set[EventStream] = set()
        self._excluded: dict[tuple[str, ...], tuple[float, str]] = {}
        self._simple: Mapping[str, Answerer] = {
            "clusters": self._listed("clusters"),
            "listeners": self._listed("listeners"),
            "certificates": self._certificates,
            "servers": self._listed("servers"),
            "agents": self._agents,
            "routes": self._all_routes,
            "routes:explain": self._explain,
            "workers": self._workers,
            "events": self._events,
            "audit": self._audited,
            "openapi.json": self._described,
        }

    async def answer(self, call: Call, caller: Caller) -> Reply | Stream:
        """
        Answer.

        @param caller: who asks; that they may has been looked at.
        @raise Problem: if there is no such path, or it takes another method.
        """
        parts = call.parts[3:]
        match parts:
            case (name,) if name in self._simple:
                _only(call, "GET")
                return await self._simple[name](call)
            case ("joins", "refused"):
                _only(call, "GET")
                return await self._refused(call)
            case ("clusters", name, "hosts"):
                _only(call, "GET")
                return await self._hosts(call, name)
            case ("agents", key):
                _only(call, "GET", "DELETE")
                if call.method == "DELETE":
                    return await self._kick(call, caller, key)
                return Reply.of(_shown(await self._agent(key)))
            case ("agents", key, "drain"):
                _only(call, "POST")
                return await self._drain(call, caller, key)
            case ("agents", key, "resume"):
                _only(call, "POST")
                return await self._resume(caller, key)
        raise Problem(404, "no such path")

    def stop(self) -> None:
        """End what goes on."""
        for stream in list(self._streams):
            stream.stop()

    async def replay(self) -> None:
        """Tell a worker that is new whom to keep out."""
        now = self._clock.seconds()
        self._excluded = {key: entry for key, entry in self._excluded.items() if entry[0] > now}
        for target, (until, why) in list(self._excluded.items()):
            await self._source.ask("exclude", {"target": target, "seconds": until - now, "why": why})

    def note_log_level(self, caller: Caller, body: bytes) -> None:
        """Write down who has set the level of the log."""
        told = body.decode("utf-8", "replace")[:200]
        log.info("audit: {caller}: log level: {told}", caller=caller.name, told=told)
        self._audit.append(
            {
                "time": wall_time(),
                "caller": caller.name,
                "what": "log level",
                "agent": None,
                "identity": "",
                "targets": {},
                "told": told,
            }
        )

    # lists

    def _listed(self, question: str) -> Answerer:
        """Answer with what all workers have to say of the same things."""

        async def answer(call: Call) -> Reply:
            after, limit = _page(call)
            answers = await self._source.ask(question, {"after": after, "limit": limit})
            items = _unite(answers)
            return _list([item for item in items if item["name"] > after], limit, answers)

        return answer

    async def _agents(self, call: Call) -> Reply:
        after, limit = _page(call)
        arguments = {"after": after, "limit": limit}
        arguments |= {name: call.query[name] for name in ("cluster", "identity") if call.query.get(name)}
        answers = await self._source.ask("agents", arguments)
        found = merge_agents(((each.worker, each.value) for each in answers if each.value), limit)
        return _list([_shown(agent) for agent in found], limit, answers, "id")

    async def _agent(self, key: str) -> dict[str, Any]:
        answers = await self._source.ask("agent", {"id": key})
        found = merge_agents(((each.worker, each.value) for each in answers if each.value), 1)
        if not found:
            raise Problem(404, "there is no such agent, or it has left")
        return found[0]

    async def _hosts(self, call: Call, cluster: str) -> Reply:
        after, limit = _page(call)
        answers = await self._source.ask("hosts", {"cluster": cluster, "after": after, "limit": limit})
        if all(answer.value is None for answer in answers):
            raise Problem(404, "there is no such cluster")
        items = [
            {**item, "worker": answer.worker or None} for answer in answers for item in answer.value or ()
        ]
        items.sort(key=lambda item: (item["address"], item["worker"] or 0))
        return _list(items, limit, answers, "address")

    async def _certificates(self, call: Call) -> Reply:
        answers = await self._source.ask("certificates", {})
        found = {(item["use"], item["name"]): item for answer in answers for item in answer.value or ()}
        items = sorted(found.values(), key=lambda item: item["not_after"])
        return _list(items[:MOST], MOST + 1, answers)

    async def _refused(self, call: Call) -> Reply:
        _, limit = _page(call)
        answers = await self._source.ask("refused", {"limit": limit})
        items = [
            {**item, "worker": answer.worker or None} for answer in answers for item in answer.value or ()
        ]
        items.sort(key=lambda item: -item["time"])
        return _list(items[:limit], limit + 1, answers)

    async def _all_routes(self, call: Call) -> Reply:
        after, limit = _page(call)
        items = sorted([*self._routes.rules(), *await self._brought()], key=lambda item: item["place"])
        return _list([item for item in items if item["place"] > after], limit, (), "place")

    async def _brought(self) -> list[dict[str, Any]]:
        """The routes that agents have brought."""
        answers = await self._source.ask("routes", {})
        return [item for answer in answers for item in answer.value or ()]

    async def _explain(self, call: Call) -> Reply:
        headers: dict[str, str] = {}
        for name, value in call.queries:
            if name == "header":
                field, colon, text = value.partition(":")
                if not colon or not field.strip():
                    raise Problem(400, 'a header is written "Name: value"')
                headers[field.strip().lower()] = text.strip()
            elif name not in ("method", "host", "path", "listener"):
                raise Problem(400, "the parameters are method, host, path, header and listener")
        path = call.query.get("path", "/")
        if not path.startswith("/"):
            raise Problem(400, "the path must begin with a slash")
        items = self._routes.explain(
            call.query.get("method", "GET"),
            call.query.get("host", ""),
            path,
            headers,
            call.query.get("listener", ""),
            await self._brought(),
        )
        return _list(items, len(items) + 1, ())

    async def _workers(self, call: Call) -> Reply:
        workers = self._source.facts()["workers"]
        return _list(list(workers), len(workers) + 1, ())

    async def _audited(self, call: Call) -> Reply:
        _, limit = _page(call)
        return _list(list(self._audit)[::-1][:limit], limit + 1, ())

    async def _described(self, call: Call) -> Reply:
        return Reply.of(describe())

    async def _events(self, call: Call) -> Stream:
        if len(self._streams) >= MOST_STREAMS:
            raise Problem(503, f"{MOST_STREAMS} clients listen to events already")
        recent = call.query.get("recent", "") in ("1", "true")

        def begin(write: Callable[[bytes], bool]) -> Callable[[], object]:
            stream = EventStream(
                self._source, self._clock, write, lambda: self._streams.discard(stream), recent
            )
            self._streams.add(stream)
            stream.start()
            return stream.stop

        return Stream(begin)

    # changes

    async def _drain(self, call: Call, caller: Caller, key: str) -> Reply:
        agent = await self._agent(key)
        seconds = _seconds(call, "for", DRAINED)
        why = f"drained by {caller.name}"
        await self._exclude(agent["targets"]["process"], seconds, why)
        return await self._let_go(caller, "drain", agent, why, False, seconds)

    async def _kick(self, call: Call, caller: Caller, key: str) -> Reply:
        agent = await self._agent(key)
        seconds = _seconds(call, "ban", 0.0)
        why = f"kicked by {caller.name}"
        if seconds:
            await self._exclude(agent["targets"]["identity"], seconds, f"banned by {caller.name}")
        return await self._let_go(caller, "kick", agent, why, True, seconds)

    async def _exclude(self, target: list[str], seconds: float, why: str) -> None:
        arguments = {"target": target, "seconds": seconds, "why": why}
        answers = await self._source.ask("exclude", arguments)
        problems = [answer.value for answer in answers if answer.value]
        if problems:
            raise Problem(409, problems[0])
        self._excluded[tuple(target)] = (self._clock.seconds() + seconds, why)

    async def _let_go(
        self,
        caller: Caller,
        what: str,
        agent: Mapping[str, Any],
        why: str,
        at_once: bool,
        seconds: float,
    ) -> Reply:
        answers = await self._source.ask("let_go", {"id": agent["id"], "why": why, "at_once": at_once})
        count = sum(answer.value or 0 for answer in answers)
        target = agent["targets"]["identity" if at_once else "process"]
        kept_out = {"target": target, "seconds": seconds} if seconds else None
        told = counted(count, "connection")
        if seconds:
            told += f"; kept out for {seconds:g} s: {' '.join(target)}"
        self._note(caller, what, agent, told, connections=count, kept_out=kept_out)
        body = {"id": agent["id"], "connections": count, "kept_out": kept_out, "problems": _problems(answers)}
        return Reply.of(body, 202)

    async def _resume(self, caller: Caller, key: str) -> Reply:
        """Let in again who was kept out; of those that are not here, the audit knows who they are."""
        targets = [entry["targets"] for entry in self._audit if entry["agent"] == key]
        if not targets:
            targets = [(await self._agent(key))["targets"]]
        lifted = [list(target) for each in targets for target in each.values()]
        answers = await self._source.ask("lift", {"targets": lifted})
        for target in lifted:
            self._excluded.pop(tuple(target), None)
        was = any(answer.value for answer in answers)
        told = "it was kept out" if was else "it was not kept out"
        agent = {"id": key, "identity": self._identity(key), "targets": targets[0]}
        self._note(caller, "resume", agent, told, was_kept_out=was)
        return Reply.of({"id": key, "was_kept_out": was, "problems": _problems(answers)})

    def _identity(self, key: str) -> str:
        """Who an agent was when something was done to it; empty if nothing was."""
        return next((str(entry["identity"]) for entry in self._audit if entry["agent"] == key), "")

    def _note(self, caller: Caller, what: str, agent: Mapping[str, Any], told: str, **facts: Any) -> None:
        """
        Write down who has changed what.

        @param told: what has come of it, for people.
        @param facts: the same for the audit.
        """
        log.info(
            "audit: {caller}: {what} agent {agent} ({identity}): {told}",
            caller=caller.name,
            what=what,
            agent=agent["id"],
            identity=agent["identity"],
            told=told,
            **facts,
        )
        self._audit.append(
            {
                "time": wall_time(),
                "caller": caller.name,
                "what": what,
                "agent": agent["id"],
                "identity": agent["identity"],
                "targets": agent["targets"],
                "told": told,
                **facts,
            }
        )


def _only(call: Call, *methods: str) -> None:
    allowed = (*methods, "HEAD") if "GET" in methods else methods
    if call.method not in allowed:
        raise Problem(405, f"use {' or '.join(methods)}", Allow=", ".join(allowed))


def _page(call: Call) -> tuple[str, int]:
    text = call.query.get("limit", str(USUAL))
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:6]) <= MOST and len(text) < 6):
        raise Problem(400, f"limit must be a number from 1 to {MOST}")
    return call.query.get("after", ""), int(text)


def _seconds(call: Call, name: str, default: float) -> float:
    text = call.query.get(name)
    if text is None:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= LONGEST:
        raise Problem(400, f"{name} must be a number of seconds, {LONGEST:g} at the most")
    return seconds


def _problems(answers: Iterable[Answer]) -> list[dict[str, Any]]:
    return [{"worker": each.worker, "problem": each.problem} for each in answers if each.problem]


def _list(items: list[Any], limit: int, answers: Iterable[Answer], by: str = "name") -> Reply:
    more = len(items) >= limit
    items = items[:limit]
    return Reply.of({"items": items, "next": items[-1][by] if more else None, "problems": _problems(answers)})


def _shown(agent: Mapping[str, Any]) -> dict[str, Any]:
    """An agent, without what is for us."""
    return {name: value for name, value in agent.items() if name != "targets"}


def _unite(answers: Iterable[Answer]) -> list[dict[str, Any]]:
    """Add up the numbers of what has the same name; of the rest, what was said first counts."""
    found: dict[str, dict[str, Any]] = {}
    for answer in answers:
        for item in answer.value or ():
            known = found.get(item["name"])
            if known is None:
                found[item["name"]] = dict(item)
                continue
            for name, value in item.items():
                if type(value) is int:
                    known[name] += value
    return [found[name] for name in sorted(found)]
