"""
This project's own API, C{/api/tunnel/v1}: its paths, and the changes that it makes.

Lists are C{{"items": [...], "next": ..., "problems": [...]}}: C{next} is the
parameter C{after} of the next page, and C{problems} lists the workers that have
not answered.
"""

from __future__ import annotations

__all__ = ["PATHS", "TunnelApi"]

import json
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from reverseproxy.admin.access import Caller
from reverseproxy.admin.agent_changes import AgentChanges
from reverseproxy.admin.answers import after_of, latest_page_of, listed_in_steps, only, problems_of
from reverseproxy.admin.audit import Audit
from reverseproxy.admin.configuration_api import CONFIG_PATHS, ConfigurationApi, IReloadableConfiguration
from reverseproxy.admin.events import MOST_STREAMS, EventStream
from reverseproxy.admin.merging import shown
from reverseproxy.admin.messages import ApiProblem, Call, Reply, StreamedReply
from reverseproxy.admin.openapi import describe
from reverseproxy.admin.paging import latest_page
from reverseproxy.admin.read_api import ReadApi
from reverseproxy.admin.slices import in_slices
from reverseproxy.admin.sources import ISource
from reverseproxy.cluster.host import MAX_WEIGHT
from reverseproxy.config.models import Config
from reverseproxy.logs import shorten

log = Logger()

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
        self._agent_changes = AgentChanges(source, clock, self._read_api, self._audit)
        self._streams: set[EventStream] = set()
        self._simple: Mapping[str, Answerer] = {
            **self._read_api.simple,
            "exclusions": self._agent_changes.list_bans,
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
                    return await self._agent_changes.kick(call, caller, key)
                return Reply.of(shown(await self._read_api.agent(key)))
            case ("agents", key, "drain"):
                only(call, "POST")
                return await self._agent_changes.drain(call, caller, key)
            case ("agents", key, "resume"):
                only(call, "POST")
                return await self._agent_changes.resume(caller, key)
            case ("exclusions", key):
                only(call, "DELETE")
                return await self._agent_changes.lift_ban(caller, key)
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
                409, "nothing to replace: there are no workers, or they are being started or replaced already"
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


@cache
def _description() -> Reply:
    return Reply.of(describe())
