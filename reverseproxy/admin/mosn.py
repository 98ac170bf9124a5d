"""
MOSN's paths, C{/api/v1/...}, with answers in MOSN's format.

The source is C{pkg/admin/server/apis.go} of C{mosn.io/mosn}.  Paths about
features that do not exist here, such as plug-ins in Go, are missing.
"""

from __future__ import annotations

__all__ = ["LOG_CHANGES", "PATHS", "MosnPaths"]

import json
import os
from collections.abc import Mapping
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime

from reverseproxy import __version__
from reverseproxy.admin.config_dump import dump, encode
from reverseproxy.admin.families import Family, merge, number_of
from reverseproxy.admin.messages import JSON, ApiProblem, Call, Reply
from reverseproxy.admin.slices import Steps, consume, in_slices
from reverseproxy.admin.sources import ISource
from reverseproxy.config.models import LOG_LEVELS, Config
from reverseproxy.logs import escape

RUNNING: Final = 6
STOPPING: Final = 8
"""MOSN's numbers of the states "running" and "in a graceful stop" (C{pkg/stagemanager})."""

LOG_CHANGES: Final[Mapping[str, str]] = {
    "update_loglevel": "log level",
    "enable_log": "enable log",
    "disable_log": "disable log",
}
"""The paths that change a log, and the names of these changes in the audit."""

PATHS: Final = (
    "version",
    "config_dump",
    "stats",
    "stats_glob",
    "states",
    "get_loglevel",
    "update_loglevel",
    "enable_log",
    "disable_log",
)
"""The paths below C{/api/v1/}."""

_TOTALS: Final = (
    ("downstream_connection_total", "listener_connections_total", ()),
    ("downstream_connection_active", "listener_connections", ()),
    ("downstream_bytes_read_total", "bytes_total", ("received",)),
    ("downstream_bytes_write_total", "bytes_total", ("sent",)),
    ("downstream_request_total", "http_requests_total", ()),
    ("downstream_request_active", "http_requests_in_flight", ()),
)
"""MOSN's metrics of the whole process: the name, the name here, and the last labels of the added samples."""

STRIDE: Final = 50
"""How many samples are processed in one step; see L{reverseproxy.admin.slices}."""

_MISTAKE: Final = '{\n\t"error": "%s"\n}\n'


def _dump(value: Any) -> Steps[Reply]:
    made = yield from dump(value)
    return Reply(200, (yield from encode(made)), JSON)


class MosnPaths:
    """Answers requests at C{/api/v1}."""

    def __init__(self, config: Config, source: ISource, clock: IReactorTime) -> None:
        self._config = config
        self._source = source
        self._clock = clock
        self._dumped: dict[str, Reply] = {}  # a cache of the answers with large parts of the configuration

    async def answer(self, call: Call) -> Reply:
        """
        Answer a request.

        @raise ApiProblem: if there is no such path.
        """
        match call.parts[2:]:
            case ("version",):
                return Reply.text(f"mosn version: {__version__} (reverseproxy)\n")
            case ("config_dump",):
                return await self._config_dump(call)
            case ("stats",):
                return await in_slices(_stats(await self._families(), call.query.get("key", "")), self._clock)
            case ("stats_glob",):
                return await in_slices(_totals(await self._families()), self._clock)
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
        """Answer with the whole configuration or a part of it; an unknown part is an error, as in MOSN."""
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
        """Dump a large part of the configuration; the answer is cached, as the configuration is immutable."""
        if what not in self._dumped:
            self._dumped[what] = await in_slices(_dump(value), self._clock)
        return self._dumped[what]

    # metrics

    async def _families(self) -> list[Family]:
        answers = await self._source.ask("metrics", {})
        values = [answer.value for answer in answers if answer.value is not None]
        return await in_slices(merge(values), self._clock)

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
        """Enable or disable a log or access log; the body is its path, as in MOSN."""
        path = call.body.decode("utf-8", "replace")
        answers = await self._source.ask("enable_log", {"path": path, "enabled": enabled})
        what = "enable" if enabled else "disable"
        if any(each.value for each in answers):
            return Reply.text(f"{what} logger success\n")
        return Reply.text(_MISTAKE % f"{what} logger failed", 400)


def _stats(families: list[Family], key: str) -> Steps[Reply]:
    """Return all metrics, or those of one family."""
    pieces: list[str] = []
    for family in consume(families):
        if key and family.name != key:
            continue
        lines = [f"{family.name}\n"]
        for labels in list(family.samples):
            value = number_of(family.samples.pop(labels))
            known = zip(family.labels, labels, strict=True)
            where = ",".join(f"{name}:{escape(label)}" for name, label in known)
            lines.append(f"  {where or 'total'}: {value:g}\n")
            if len(lines) == STRIDE:
                pieces.append("".join(lines))
                lines = []
                yield
        pieces.append("".join(lines))
    return Reply.text("".join(pieces) or f"no metrics key: {key}")


def _totals(families: list[Family]) -> Steps[Reply]:
    """Return MOSN's metrics of the whole process, under MOSN's names."""
    known = {family.name.removeprefix("reverseproxy_"): family.samples for family in families}
    lines = []
    for shown, name, labels in _TOTALS:
        total = 0.0
        for number, (each, value) in enumerate(known.get(name, {}).items()):
            if number % STRIDE == 0:
                yield
            if each[len(each) - len(labels) :] == labels:
                total += number_of(value)
        lines.append(f"{shown}:{int(total)}\n")
    for family in consume(families):
        while family.samples:
            family.samples.popitem()
            if len(family.samples) % STRIDE == 0:
                yield
    return Reply.text("".join(lines))
