"""
MOSN's own paths, C{/api/v1/...}, with answers in MOSN's form.

Read in C{mosn.io/mosn}: C{pkg/admin/server/apis.go}.  Where MOSN says what there
is nothing of here, such as plug-ins in Go, there is no such path.
"""

from __future__ import annotations

__all__ = ["LOG_CHANGES", "MosnPaths"]

import json
import os
from collections.abc import Mapping
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime

from reverseproxy import __version__
from reverseproxy.admin.dumping import document, written
from reverseproxy.admin.families import Family, merge, number_of
from reverseproxy.admin.messages import JSON, ApiProblem, Call, Reply
from reverseproxy.admin.slices import Steps, in_slices
from reverseproxy.admin.sources import ISource
from reverseproxy.config.models import LOG_LEVELS, Config

RUNNING: Final = 6
STOPPING: Final = 8
"""MOSN's numbers of these states (C{pkg/stagemanager}): running, and in a graceful stop."""

LOG_CHANGES: Final[Mapping[str, str]] = {
    "update_loglevel": "log level",
    "enable_log": "enable log",
    "disable_log": "disable log",
}
"""Paths that change something of a log, and what that is called in the audit."""

_MISTAKE: Final = '{\n\t"error": "%s"\n}\n'


def _dump(value: Any) -> Steps[Reply]:
    made = yield from document(value)
    return Reply(200, (yield from written(made)), JSON)


class MosnPaths:
    """Answers at C{/api/v1}."""

    def __init__(self, config: Config, source: ISource, clock: IReactorTime) -> None:
        self._config = config
        self._source = source
        self._clock = clock
        self._dumped: dict[str, Reply] = {}  # what there is of the whole configuration, once it was asked for

    async def answer(self, call: Call) -> Reply:
        """
        Answer.

        @raise ApiProblem: if there is no such path.
        """
        match call.parts[2:]:
            case ("version",):
                return Reply.text(f"mosn version: {__version__} (reverseproxy)\n")
            case ("config_dump",):
                return await self._config_dump(call)
            case ("stats",):
                return Reply.text("".join(self._stats(await self._families(), call.query.get("key", ""))))
            case ("stats_glob",):
                return Reply.text("".join(self._totals(await self._families())))
            case ("states",):
                state = STOPPING if self._source.draining else RUNNING
                return Reply.text(f"pid={os.getpid()}&state={state}\n")
            case ("get_loglevel",):
                return await self._log_levels()
            case ("update_loglevel",):
                return await self._update_log_level(call)
            case ("enable_log",):
                return await self._enable_log(call, True)
            case ("disable_log",):
                return await self._enable_log(call, False)
        raise ApiProblem(404, "no such path")

    # the configuration

    async def _config_dump(self, call: Call) -> Reply:
        """All of it, or a part; an unknown part is an error, as in MOSN."""
        if len(call.query) > 1:
            return Reply.text("only support one parameter", 400)
        (key, name), *_ = (*call.query.items(), ("mosnconfig", ""))
        if key == "mosnconfig":
            return await self._whole(key, self._config)
        server, clusters = self._config.server, self._config.cluster_manager.clusters
        parts: Mapping[str, Mapping[str, Any]] = {
            "router": {name: router for name, (_, router) in self._config.routers.items()},
            "cluster": {cluster.name: cluster for cluster in clusters},
            "listener": {listener.name: listener for listener in server.listeners},
        }
        kind = key.removeprefix("all").removesuffix("s")
        if key.startswith("all") and kind in parts:
            return await self._whole(kind, parts[kind])
        if key in parts and name in parts[key]:
            return await in_slices(_dump(parts[key][name]), self._clock)
        return Reply.text(_MISTAKE % "internal error", 500)

    async def _whole(self, what: str, value: Any) -> Reply:
        """Make what takes long, once: it stays as it is for as long as the configuration does."""
        if what not in self._dumped:
            self._dumped[what] = await in_slices(_dump(value), self._clock)
        return self._dumped[what]

    # figures

    async def _families(self) -> list[Family]:
        answers = await self._source.ask("metrics", {})
        return merge(answer.value for answer in answers if answer.value is not None)

    @staticmethod
    def _stats(families: list[Family], key: str) -> list[str]:
        """All figures as a console would show them, or those of one family."""
        lines = []
        for family in families:
            if key and family.name != key:
                continue
            lines.append(f"{family.name}\n")
            for labels, value in family.samples.items():
                where = ",".join(f"{name}:{label}" for name, label in zip(family.labels, labels, strict=True))
                lines.append(f"  {where or 'total'}: {number_of(value):g}\n")
        return lines or [f"no metrics key: {key}"]

    @staticmethod
    def _totals(families: list[Family]) -> list[str]:
        """What MOSN has for the whole process, under its names."""

        def total(name: str, *labels: str) -> int:
            for family in families:
                if family.name == f"reverseproxy_{name}":
                    numbers = [
                        number_of(value) for each, value in family.samples.items() if set(labels) <= set(each)
                    ]
                    return int(sum(numbers))
            return 0

        return [
            f"downstream_connection_total:{total('listener_connections_total')}\n",
            f"downstream_connection_active:{total('listener_connections')}\n",
            f"downstream_bytes_read_total:{total('bytes_total', 'received')}\n",
            f"downstream_bytes_write_total:{total('bytes_total', 'sent')}\n",
            f"downstream_request_total:{total('http_requests_total')}\n",
            f"downstream_request_active:{total('http_requests_in_flight')}\n",
        ]

    # levels of the log

    async def _log_levels(self) -> Reply:
        answers = await self._source.ask("log_level", {})
        return Reply.of(
            {each.value["path"] or "stderr": each.value["level"] for each in answers if each.value}
        )

    async def _update_log_level(self, call: Call) -> Reply:
        try:
            wanted = json.loads(call.body)
            path, level = wanted["log_path"], str(wanted["log_level"]).upper()
            known = isinstance(path, str) and level in LOG_LEVELS
        except (ValueError, TypeError, KeyError, RecursionError):
            known = False
        if known:
            answers = await self._source.ask("log_level", {"path": path, "level": level})
            if any(each.value for each in answers):
                return Reply.text("update logger success\n")
        return Reply.text(_MISTAKE % "update logger failed", 400)

    async def _enable_log(self, call: Call, enabled: bool) -> Reply:
        """Write a log, or not; the body is its path, as in MOSN (also that of an access log)."""
        path = call.body.decode("utf-8", "replace")
        answers = await self._source.ask("enable_log", {"path": path, "enabled": enabled})
        what = "enable" if enabled else "disable"
        if any(each.value for each in answers):
            return Reply.text(f"{what} logger success\n")
        return Reply.text(_MISTAKE % f"{what} logger failed", 400)
