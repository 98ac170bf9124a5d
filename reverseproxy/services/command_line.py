"""The options of C{twistd reverseproxy}, and what their values may be."""

from __future__ import annotations

__all__ = ["FLAGS", "PARAMETERS", "check_log_options", "check_options", "check_runner", "workers_of"]

import os
import pwd
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Final

from twisted.python.usage import UsageError

from reverseproxy.config.models import LOG_LEVELS, Config
from reverseproxy.errors import ConfigError
from reverseproxy.problems import Place, Problem
from reverseproxy.workers.counts import MAX_WORKERS, parse_workers

LOG_FORMATS: Final = ("text", "json")

TRANSPORTS: Final = ("fast", "stock")

FLAGS: Final = [
    ["check", None, "Check the configuration, print what would run, and exit."],
    ["strict", None, "With --check: treat warnings as errors."],
    ["quickstart", None, "Run a tunnel server, an agent and a service in one process, to try it out."],
]
"""C{optFlags} of L{twisted.python.usage.Options}."""

PARAMETERS: Final = [
    ["config", "c", None, "The configuration file: MOSN's JSON, or the same as YAML."],
    ["log-format", None, None, "Format of the log: text, the default, or json."],
    ["log-level", None, None, f"Level of the log, instead of default_log_level: {', '.join(LOG_LEVELS)}."],
    ["transport", None, None, "Transport of connections: fast, the default on Linux; or stock, Twisted's."],
    [
        "workers",
        None,
        None,
        "Number of worker processes, or auto for one for each core; takes precedence over processor. "
        "The default is 1.",
    ],
    [
        "takeover",
        None,
        None,
        "Path of a Unix socket: take over from the process that was started with the same path, if there "
        "is one, and let a later process take over from this one.",
    ],
]
"""Its C{optParameters}."""


def check_options(options: MutableMapping[str, Any], is_fast: Callable[[], bool]) -> None:
    """
    Check the values of the options, and that they go together.

    @param options: C{log-level} is replaced by its usual spelling.
    @param is_fast: whether the fast transport works with the reactor.
    @raise UsageError: if they don't.
    """
    if bool(options["config"]) == bool(options["quickstart"]):
        raise UsageError("name a configuration with --config FILE, or try --quickstart")
    if options["strict"] and not options["check"]:
        raise UsageError("--strict is for --check")
    if options["log-level"] is not None:
        options["log-level"] = options["log-level"].upper()
    _check_logging(options["log-format"], options["log-level"])
    if options["transport"] not in (None, *TRANSPORTS):
        raise UsageError(f"--transport must be fast or stock, not {options['transport']}")
    if options["transport"] == "fast" and not is_fast():
        raise UsageError("--transport fast works on Linux only, with a reactor that has sockets")
    if options["workers"] is not None:
        try:
            parse_workers(str(options["workers"]))
        except ValueError as error:
            raise UsageError(f"--workers: {error}") from None


def _check_logging(fmt: str | None, level: str | None) -> None:
    if fmt not in (None, *LOG_FORMATS):
        raise UsageError(f"--log-format must be text or json, not {fmt}")
    if level not in (None, *LOG_LEVELS):
        raise UsageError(f"--log-level must be one of {', '.join(LOG_LEVELS)}, not {level}")


def check_log_options(options: Mapping[str, Any]) -> None:
    """
    Check that no option about the log is given where twist writes the log, without effect.

    @raise UsageError: if one is.
    """
    for option in ("log-format", "log-level"):
        if options[option] is not None:
            raise UsageError(
                f"--{option} makes no difference here, where twist writes the log: "
                f"say twist --{option}=... reverseproxy"
            )


def check_runner(runner: Mapping[str, Any]) -> None:
    """
    Check the options of twistd that would fail later, after addresses are bound, with a traceback.

    @param runner: the options of twistd, or of another runner that has none of them.
    @raise UsageError: if one can't be used.
    """
    _check_user(runner.get("uid"), runner.get("gid"))
    chroot, directory, file = runner.get("chroot"), runner.get("rundir"), runner.get("pidfile")
    if chroot:  # the other paths are in it
        directory, file = chroot, None
    if directory and not os.path.isdir(directory):
        raise UsageError(f"--{'chroot' if chroot else 'rundir'} {directory}: there is no such directory")
    problem = _unwritable(os.path.abspath(file)) if file else ""
    if problem:
        raise UsageError(f"--pidfile {file}: {problem}; name another file, or none: --pidfile=")


def _check_user(uid: int | None, gid: int | None) -> None:
    """Check that a user without a group is known, as twistd takes the user's one."""
    if uid is None or gid is not None:
        return
    try:
        pwd.getpwuid(uid)
    except (KeyError, OverflowError):
        raise UsageError(f"--uid {uid}: there is no such user; say --gid, too") from None


def _unwritable(path: str) -> str:
    """Return why a file can't be written; empty if it can."""
    directory = os.path.dirname(path)
    if os.path.isdir(path):
        return "it is a directory"
    if not os.path.isdir(directory):
        return f"there is no directory {directory}"
    if not os.access(path if os.path.exists(path) else directory, os.W_OK):
        return "it can't be written"
    return ""


def workers_of(config: Config, file: str) -> int:
    """
    Return how many workers a configuration asks for.

    @param file: its name in messages.
    @raise ConfigError: if that is no number of workers.
    """
    given = config.server.processor
    try:
        return parse_workers(given)
    except ValueError:
        problem = f'expected a number from 1 to {MAX_WORKERS}, or "auto", got {given}'
        raise ConfigError(Problem.at(Place(file) / "servers" / 0 / "processor", problem)) from None
