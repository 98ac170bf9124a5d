"""The paths of the admin API that show, validate, compare and reload the configuration."""

from __future__ import annotations

__all__ = ["CONFIG_PATHS", "ConfigurationApi", "IReloadableConfiguration", "reload_families"]

from collections.abc import Callable
from typing import Any, Final, Protocol

from twisted.internet.defer import DeferredLock, maybeDeferred
from twisted.logger import Logger

from reverseproxy.admin.access import Caller
from reverseproxy.admin.families import Family
from reverseproxy.admin.messages import ApiProblem, Call, Reply
from reverseproxy.config.loader import Loaded
from reverseproxy.errors import ConfigError
from reverseproxy.logs import counted
from reverseproxy.process.reloading import Reloader, Report

log = Logger()

CONFIG_PATHS: Final = ("config", "config:validate", "config:diff", "config:reload")
"""The paths, below C{/api/tunnel/v1/}."""

BODY: Final = "the body of the request"
"""The name of a document in a request's body, in errors."""

INVALID: Final = 422
"""The status of the answer about an invalid configuration."""


class IReloadableConfiguration(Protocol):
    """An object whose configuration can be replaced at run time."""

    @property
    def reloading(self) -> Reloader:
        """The reloader, which reads the configuration file."""

    def examine(self, loaded: Loaded) -> Any:
        """
        Compare another configuration with the one in use, and validate it.

        @return: a L{Report}, or a L{Deferred} with it.
        @raise ConfigError: if the configuration is invalid; the L{Deferred} may fail with it, too.
        """

    def reload(self) -> Any:
        """
        Read the configuration file again and apply it.

        @return: a L{Deferred} that fires with a L{Report} and never fails.
        """


class ConfigurationApi:
    """Answers requests about the configuration."""

    def __init__(
        self, reloadable: IReloadableConfiguration, note: Callable[[Caller, str, str], None]
    ) -> None:
        """
        @param note: records a change in the audit, given the caller, the kind of change and its result.
        """
        self._reloadable = reloadable
        self._note = note
        self._parsing = DeferredLock()

    async def answer(self, call: Call, caller: Caller, name: str) -> Reply:
        """
        Answer a request for one of L{CONFIG_PATHS}.

        @raise ApiProblem: if the request is invalid.
        """
        match name:
            case "config":
                return Reply.of(self._state())
            case "config:reload":
                if call.body:
                    raise ApiProblem(400, "the file is reloaded: send no body")
                report = await self._reloadable.reload()
                self._note(caller, "reload", f"generation {report.generation}: {_told(report)}")
                return _reply(report)
            case _:
                return _reply(await self._examine(call))

    def _state(self) -> dict[str, Any]:
        reloading = self._reloadable.reloading
        last = reloading.last
        return {
            "file": reloading.file,
            "generation": reloading.generation,
            "attempts": reloading.attempts,
            "successful": reloading.successful,
            "last_success": reloading.succeeded,
            "last": None if last is None else last.to_json(),
        }

    async def _examine(self, call: Call) -> Report:
        reloading = self._reloadable.reloading
        try:
            if call.body:
                text = call.body.decode("utf-8", "replace")
                is_yaml = "yaml" in call.headers("content-type")
                # One after the other, as they would share the interpreter with all requests.
                loaded: Loaded = await self._parsing.run(reloading.parse, text, BODY, is_yaml)
            else:
                loaded = await maybeDeferred(reloading.read)
            report: Report = await maybeDeferred(self._reloadable.examine, loaded)
        except ConfigError as error:
            refused = reloading.examine(error)
            return Report(reloading.file, reloading.generation, refused.problems, refused.warnings)
        return report


def _told(report: Report) -> str:
    if report.successful:
        return report.summary
    return f"{counted(len(report.problems), 'problem')}, nothing has changed"


def _reply(report: Report) -> Reply:
    value = report.to_json()
    if report.successful:
        return Reply.of(value)
    title = "; ".join(str(problem) for problem in report.problems)
    return Reply.of(
        {"title": f"the configuration can't be used: {title}", "status": INVALID, **value}, INVALID
    )


def reload_families(reloading: Reloader) -> list[Family]:
    """Return the metrics of the configuration and its reloads."""
    prefix = "reverseproxy_config_"
    generation = Family(
        f"{prefix}generation", "gauge", "Number of the configuration in use; the first one has 1."
    )
    generation.add(reloading.generation)
    successful = Family(
        f"{prefix}last_reload_successful",
        "gauge",
        "1 if the configuration that was read last is in use, else 0.",
    )
    successful.add(int(reloading.successful))
    at = Family(
        f"{prefix}last_reload_success_timestamp_seconds",
        "gauge",
        "Time of the last successful load of the configuration, in seconds since the Unix epoch.",
    )
    at.add(reloading.succeeded)
    return [generation, successful, at]
