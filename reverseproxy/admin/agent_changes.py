"""What operators order about agents: that they are drained or kicked, banned, and let in again."""

from __future__ import annotations

__all__ = ["AgentChanges"]

import math
from collections.abc import Mapping
from secrets import token_hex
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime

from reverseproxy.admin.access import Caller
from reverseproxy.admin.answers import listed_in_steps, page_of, problems_of
from reverseproxy.admin.audit import Audit
from reverseproxy.admin.exclusions import merge_bans
from reverseproxy.admin.messages import ApiProblem, Call, Reply
from reverseproxy.admin.orders import merge_order_results
from reverseproxy.admin.paging import cut
from reverseproxy.admin.read_api import ReadApi
from reverseproxy.admin.slices import in_slices
from reverseproxy.admin.sources import ISource
from reverseproxy.logs import counted, shorten
from reverseproxy.tunnel.server.exclusion_records import LONGEST, id_of

DRAINED: Final = 3600.0
"""The default duration of the ban of a drained agent, in seconds."""


class AgentChanges:
    """Answers requests that change agents, or their bans."""

    def __init__(self, source: ISource, clock: IReactorTime, read_api: ReadApi, audit: Audit) -> None:
        """
        @param read_api: finds agents.
        @param audit: gets each change.
        """
        self._source = source
        self._clock = clock
        self._read_api = read_api
        self._audit = audit

    async def drain(self, call: Call, caller: Caller, key: str) -> Reply:
        """Let an agent finish its requests, and ban it for a time."""
        agent = await self._read_api.agent(key)
        seconds = _seconds(call, "for", DRAINED)
        return await self._close_connections(caller, "drain", agent, seconds)

    async def kick(self, call: Call, caller: Caller, key: str) -> Reply:
        """Close all connections of an agent at once."""
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

    async def resume(self, caller: Caller, key: str) -> Reply:
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

    async def list_bans(self, call: Call) -> Reply:
        """Answer with a page of operators' bans."""
        after, limit = page_of(call)
        answers = await self._source.ask("exclusions", {"after": after, "limit": limit})
        known = [answer.value or [] for answer in answers]
        lasts = [items[-1]["id"] if len(items) >= limit else None for items in known]
        found, last = cut(merge_bans(known), lasts, limit, "id")
        return await in_slices(listed_in_steps(found, last, answers), self._clock)

    async def lift_ban(self, caller: Caller, key: str) -> Reply:
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
