"""
This project's own API, C{/api/tunnel/v1}: its paths, and the changes that it makes.

Lists are C{{"items": [...], "next": ..., "problems": [...]}}: C{next} is the
parameter C{after} of the next page, and C{problems} lists the workers that have
not answered.
"""

from __future__ import annotations

__all__ = ["PATHS", "TunnelApi"]

import json
import math
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from secrets import token_hex
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from reverseproxy.admin.access import Caller
from reverseproxy.admin.answers import (
    after_of,
    latest_page_of,
    listed_in_steps,
    only,
    page_of,
    problems_of,
)
from reverseproxy.admin.audit import Audit
from reverseproxy.admin.configuration_api import CONFIG_PATHS, ConfigurationApi, IReloadableConfiguration
from reverseproxy.admin.events import MOST_STREAMS, EventStream
from reverseproxy.admin.exclusions import merge_bans
from reverseproxy.admin.merging import shown
from reverseproxy.admin.messages import ApiProblem, Call, Reply, StreamedReply
from reverseproxy.admin.openapi import describe
from reverseproxy.admin.orders import merge_order_results
from reverseproxy.admin.paging import cut, latest_page
from reverseproxy.admin.read_api import ReadApi
from reverseproxy.admin.slices import in_slices
from reverseproxy.admin.sources import ISource
from reverseproxy.cluster.host import MAX_WEIGHT
from reverseproxy.config.models import Config
from reverseproxy.logs import counted, shorten
from reverseproxy.tunnel.server.exclusion_records import LONGEST, id_of

log = Logger()

DRAINED: Final = 3600.0
"""The default duration of the ban of a drained agent, in seconds."""

Answerer = Callable[[Call], Awaitable["Reply | StreamedReply"]]

PATHS: Final = (
    "agents",
    "agents/{id}",
    "agents/{id}/drain",
    "agents/{id}/resume",
    "exclusions",
    "exclusions/{id}",
    "clusters",
    "clusters/{name}/hosts",
    "clusters/{name}/hosts/{address}/weight",
    "listeners",
    "routes",
    "routes:explain",
    "certificates",
    "joins/refused",
    "servers",
    "fleet",
    "workers",
    "workers/replace",
    "summary",
    "events",
    "audit",
    "openapi.json",
    *CONFIG_PATHS,
)
"""The paths below C{/api/tunnel/v1/}."""


class TunnelApi:
    """
    Answers requests at C{/api/tunnel/v1}.

    @ivar configuration: the paths of the configuration; L{None} until L{attach_configuration} is called.
    """

    def __init__(
        self,
        config: Config,
        source: ISource,
        clock: IReactorTime,
        certificates: Callable[[], list[dict[str, Any]]] = list,
    ) -> None:
        """
        @param certificates: see L{ReadApi}.
        """
        self._source = source
        self._clock = clock
        self._read_api = ReadApi(config, source, clock, certificates)
        self.configuration: ConfigurationApi | None = None
        self._audit = Audit()
        self._streams: set[EventStream] = set()
        self._simple: Mapping[str, Answerer] = {
            **self._read_api.simple,
            "exclusions": self._list_bans,
            "events": self._events,
            "audit": self._audited,
            "openapi.json": self._described,
        }

    def attach_configuration(self, reloadable: IReloadableConfiguration) -> None:
        """Enable the paths that show and reload the configuration."""
        self.configuration = ConfigurationApi(reloadable, self._audit.note_configuration)

    def describe(self, config: Config) -> None:
        """Show another configuration from now on."""
        self._read_api.describe(config)

    async def answer(self, call: Call, caller: Caller) -> Reply | StreamedReply:
        """
        Answer a request.

        @param caller: the caller, whose role has been checked.
        @raise ApiProblem: if there is no such path, or it does not support the method.
        """
        match call.parts[3:]:
            case (name,) if name in self._simple:
                only(call, "GET")
                return await self._simple[name](call)
            case ("summary",):
                only(call, "GET")
                return await self._read_api.summary(call, caller, self._features())
            case (name,) if name in CONFIG_PATHS and self.configuration is not None:
                only(call, "GET" if name == "config" else "POST")
                return await self.configuration.answer(call, caller, name)
            case ("joins", "refused"):
                only(call, "GET")
                return await self._read_api.refused(call)
            case ("clusters", name, "hosts"):
                only(call, "GET")
                return await self._read_api.hosts(call, name)
            case ("clusters", name, "hosts", address, "weight"):
                only(call, "PUT")
                return await self._weigh(call, caller, name, address)
            case ("agents", key):
                only(call, "GET", "DELETE")
                if call.method == "DELETE":
                    return await self._kick(call, caller, key)
                return Reply.of(shown(await self._read_api.agent(key)))
            case ("agents", key, "drain"):
                only(call, "POST")
                return await self._drain(call, caller, key)
            case ("agents", key, "resume"):
                only(call, "POST")
                return await self._resume(caller, key)
            case ("exclusions", key):
                only(call, "DELETE")
                return await self._lift_ban(caller, key)
            case ("workers", "replace"):
                only(call, "POST")
                return self._replace(call, caller)
        raise ApiProblem(404, "no such path")

    def _replace(self, call: Call, caller: Caller) -> Reply:
        workers = self._source.facts()["workers"]
        asked = call.query.get("worker", "")
        if asked and not any(asked == str(each["worker"]) for each in workers):
            raise ApiProblem(404, "there is no such worker" if workers else "there are no workers")
        numbers = self._source.replace(int(asked or 0))
        if not numbers:
            raise ApiProblem(
                409, "nothing to replace: there are no workers, or they are being replaced already"
            )
        self._audit.note(caller, "replace workers", ", ".join(map(str, numbers)))
        return Reply.of({"workers": numbers}, 202)

    def _features(self) -> list[str]:
        """Return the optional parts of the API that are available, for the dashboard."""
        found = [] if self.configuration is None else ["configuration"]
        return [*found, "fleet"] if self._read_api.in_fleet else found

    def stop(self) -> None:
        """End all streams of events."""
        for stream in list(self._streams):
            stream.stop()

    def note_refused(self, caller: str, told: str, suppressed: int) -> None:
        """Log a refused change; see L{Audit.note_refused}."""
        self._audit.note_refused(caller, told, suppressed)

    def note_log_level(self, caller: Caller, what: str, body: bytes) -> None:
        """
        Record a change of a log in the audit.

        @param what: the kind of change.
        @param body: the body of the request.
        """
        self._audit.note(caller, what, body.decode("utf-8", "replace")[:200])

    # events

    async def _audited(self, call: Call) -> Reply:
        before, limit = latest_page_of(call)
        answers = await self._source.ask("audited", {})
        heard = (each for answer in answers for each in answer.value or ())
        page, last = latest_page(self._audit.entries(heard), limit, before)
        steps = listed_in_steps(page, after_of(last), answers)
        return await in_slices(steps, self._clock)

    async def _described(self, call: Call) -> Reply:
        return _description()

    async def _events(self, call: Call) -> StreamedReply:
        if len(self._streams) >= MOST_STREAMS:
            raise ApiProblem(503, f"{MOST_STREAMS} clients receive events already")
        recent = call.query.get("recent", "") in ("1", "true")

        def begin(write: Callable[[bytes], bool], end: Callable[[], object]) -> Callable[[], object]:
            def ended() -> None:
                self._streams.discard(stream)
                end()

            stream = EventStream(self._source, self._clock, write, ended, recent)
            self._streams.add(stream)
            stream.start()
            return stream.stop

        return StreamedReply(begin)

    # changes

    async def _drain(self, call: Call, caller: Caller, key: str) -> Reply:
        agent = await self._read_api.agent(key)
        seconds = _seconds(call, "for", DRAINED)
        return await self._close_connections(caller, "drain", agent, seconds)

    async def _kick(self, call: Call, caller: Caller, key: str) -> Reply:
        agent = await self._read_api.agent(key)
        seconds = _seconds(call, "ban", 0.0)
        return await self._close_connections(caller, "kick", agent, seconds)

    async def _exclude(self, target: list[str], seconds: float, why: str, order: str, agent: str) -> None:
        arguments = {"target": target, "seconds": seconds, "why": why, "id": order, "agent": agent}
        answers = await self._source.ask("exclude", arguments)
        problems = [answer.value for answer in answers if answer.value]
        if problems:
            raise ApiProblem(409, problems[0])

    async def _close_connections(
        self, caller: Caller, what: str, agent: Mapping[str, Any], seconds: float
    ) -> Reply:
        """
        Drain or close the connections of an agent, to this server and to all others of the fleet.

        @param what: C{"drain"} or C{"kick"}.
        @param seconds: the duration of its ban; 0 for none.
        """
        at_once = what == "kick"
        key, order = agent["id"], token_hex(8)
        target = agent["targets"].get("identity" if at_once else "process")
        if seconds and target:
            done = "banned" if at_once else "drained"
            await self._exclude(target, seconds, f"{done} by {caller.name}", order, key)
        why = f"{'kicked' if at_once else 'drained'} by {caller.name}"
        arguments = {"id": key, "why": why, "at_once": at_once, "order": order}
        answers = await self._source.ask("close_connections", arguments)
        count = sum(answer.value or 0 for answer in answers)
        passed, problems = await self._forward_order(caller, what, agent, seconds, order)
        kept_out: dict[str, Any] | None = None
        if seconds:
            kept_out = {"target": target, "seconds": seconds, "id": id_of(target) if target else None}
        told = counted(count, "connection")
        if passed:
            told += f"; forwarded to {', '.join(f'server {each}' for each in passed)}"
        if seconds:
            told += f"; banned for {seconds:g} s"
            if target:
                told += f": {shorten(' '.join(target))} (exclusion {id_of(target)})"
        self._audit.note_agent(caller, what, agent, told, connections=count, kept_out=kept_out, order=order)
        body = {
            "id": key,
            "connections": count,
            "kept_out": kept_out,
            "passed_on": passed,
            "problems": [*problems_of(answers), *problems],
        }
        return Reply.of(body, 202)

    async def _forward_order(
        self, caller: Caller, what: str, agent: Mapping[str, Any], seconds: float, order: str
    ) -> tuple[dict[str, int], list[dict[str, Any]]]:
        """
        Order all other servers with connections of an agent to drain or close them.

        @return: how many connections each server has drained or closed, or has according to the directory if
            it has not answered; and the servers that could not be reached or could not obey.
        @raise ApiProblem: if none of the agent's servers can be reached.
        """
        elsewhere = agent["elsewhere"]
        if not elsewhere:
            return {}, []
        arguments = {
            "what": what,
            "agent": agent["id"],
            "seconds": seconds,
            "who": caller.name,
            "order": order,
        }
        answers = await self._source.ask("forward_order", arguments)
        told = merge_order_results(answer.value or {} for answer in answers)
        at = {server: each["connections"] for server, each in elsewhere.items()}
        passed = {
            server: each["connections"] if each["confirmed"] else max(each["connections"], at.get(server, 0))
            for server, each in told.items()
            if server in elsewhere or each["connections"]
        }
        lacking = [server for server in elsewhere if server not in told]
        excluded = seconds and agent["targets"].get("identity" if what == "kick" else "process")
        if lacking and not passed and not agent["connections"] and not excluded:
            raise ApiProblem(
                502,
                f"the agent is connected to server {', '.join(lacking)}, which has no link to this server",
            )
        problems = dict.fromkeys(lacking, "no link to this server")
        for server in passed:
            each = told[server]
            problem = each["problem"] or ("" if each["confirmed"] else "no answer yet")
            if problem:
                problems[server] = problem
        return passed, [{"worker": 0, "server": each, "problem": why} for each, why in problems.items()]

    async def _weigh(self, call: Call, caller: Caller, cluster: str, address: str) -> Reply:
        """Change the weight of a host, until it leaves."""
        try:
            body = json.loads(call.body)
            weight = body["weight"]
        except (ValueError, TypeError, KeyError, RecursionError):
            weight = None
        if type(weight) is float and weight.is_integer():
            weight = int(weight)  # JSON has one kind of numbers
        if type(weight) is not int or not 1 <= weight <= MAX_WEIGHT:
            raise ApiProblem(400, f'the body must be {{"weight": N}}, with N from 1 to {MAX_WEIGHT}')
        arguments = {"cluster": cluster, "address": address, "weight": weight}
        answers = await self._source.ask("weigh", arguments)
        before = next((answer.value for answer in answers if answer.value), None)
        if before is None:
            await self._check_is_local(address)
            raise ApiProblem(404, "there is no such host, or it has left")
        told = f"weight of {shorten(address)} in cluster {shorten(cluster)}: {before} before, {weight} now"
        self._audit.note(caller, "weight", told)
        body = {"cluster": cluster, "address": address, "weight": weight, "before": before}
        return Reply.of({**body, "problems": problems_of(answers)})

    async def _check_is_local(self, address: str) -> None:
        """
        Check that a host does not belong to another server of the fleet.

        @raise ApiProblem: if it does, as its weight can only be changed at that server.
        """
        server = address.partition("/")[0]
        for answer in await self._source.ask("fleet", {}):
            if answer.value and any(each["server"] == server for each in answer.value["servers"]):
                raise ApiProblem(409, f"its agent is at server {shorten(server)}: change its weight there")

    async def _resume(self, caller: Caller, key: str) -> Reply:
        """Lift all bans of an agent; the targets of an agent that is not connected are found in the audit."""
        targets = self._audit.targets_of(key)
        missing: ApiProblem | None = None
        if not targets:
            try:
                targets = [(await self._read_api.agent(key))["targets"]]
            except ApiProblem as problem:  # another server may have banned it
                missing = problem
        lifted = [list(target) for each in targets for target in each.values()]
        answers = await self._source.ask("lift", {"targets": lifted, "agent": key})
        was = any(answer.value for answer in answers)
        if missing is not None and not was:
            raise missing
        told = "bans lifted" if was else "no ban to lift"
        agent = {
            "id": key,
            "identity": self._audit.identity_of(key),
            "targets": targets[0] if targets else {},
        }
        self._audit.note_agent(caller, "resume", agent, told, was_kept_out=was)
        return Reply.of({"id": key, "was_kept_out": was, "problems": problems_of(answers)})

    async def _list_bans(self, call: Call) -> Reply:
        """Answer with a page of operators' bans."""
        after, limit = page_of(call)
        answers = await self._source.ask("exclusions", {"after": after, "limit": limit})
        known = [answer.value or [] for answer in answers]
        lasts = [items[-1]["id"] if len(items) >= limit else None for items in known]
        found, last = cut(merge_bans(known), lasts, limit, "id")
        return await in_slices(listed_in_steps(found, last, answers), self._clock)

    async def _lift_ban(self, caller: Caller, key: str) -> Reply:
        """Lift the ban with an id."""
        answers = await self._source.ask("lift_ban", {"id": key})
        found = merge_bans([answer.value] for answer in answers if answer.value)
        if not found:
            raise ApiProblem(404, "no such ban, or it has ended")
        [lifted] = found
        target, agents = lifted["target"], lifted["agents"]
        told = f"{shorten(' '.join(target))} (exclusion {key}), {lifted['why']}"
        self._audit.note(caller, "lift ban", told)
        body = {"id": key, "target": target, "agents": agents, "was_kept_out": True}
        return Reply.of({**body, "problems": problems_of(answers)})


@cache
def _description() -> Reply:
    return Reply.of(describe())


def _seconds(call: Call, name: str, default: float) -> float:
    text = call.query.get(name)
    if text is None:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= LONGEST:
        raise ApiProblem(400, f"{name} must be a number of seconds, at most {LONGEST:g}")
    return seconds
