"""
C{twistd reverseproxy}, and C{twist reverseproxy}: options and the service.

This is the only module that touches the global reactor.
"""

from __future__ import annotations

__all__ = ["Options", "examine_error", "makeService", "work"]

import os
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from random import SystemRandom
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from twisted.application.service import IService
from twisted.internet.error import ReactorAlreadyInstalledError
from twisted.internet.threads import deferToThreadPool
from twisted.python.usage import Options as BaseOptions
from twisted.python.usage import UsageError

from reverseproxy import __version__
from reverseproxy.app import ReverseProxy
from reverseproxy.assembly.examination import examine
from reverseproxy.assembly.importing import import_parts
from reverseproxy.config.diagnostics import Diagnostics
from reverseproxy.config.loader import Loaded, load, loads
from reverseproxy.config.models import Config
from reverseproxy.config.startup import startup_lines
from reverseproxy.config.summary import summarize
from reverseproxy.errors import ConfigError, VersionMismatch, WireError
from reverseproxy.logs import LOG_PATH, LogFile, LogObserver, make_observer
from reverseproxy.problems import DOCUMENT, Place, Problem
from reverseproxy.process.lifecycle import Lifecycle
from reverseproxy.process.runners import DeduplicatingObserver, LogPlan, is_foreign, plan_log
from reverseproxy.process.signals import Signals
from reverseproxy.services import quickstart
from reverseproxy.services.command_line import (
    FLAGS,
    PARAMETERS,
    check_log_options,
    check_options,
    check_runner,
    workers_of,
)
from reverseproxy.services.exiting import end_with, exit_with, write
from reverseproxy.services.process_service import ProcessService, take_level
from reverseproxy.services.reactor import prepare_reactor
from reverseproxy.services.single import SingleProcessService
from reverseproxy.transport import is_supported
from reverseproxy.workers.counts import parse_workers

if TYPE_CHECKING:
    from reverseproxy.services.supervising import SupervisorService

_TEACHING = """
Try it out, in the foreground:     twistd -n reverseproxy --quickstart
Run a configuration there:         twistd -n reverseproxy --config FILE
Only check it:                     twistd reverseproxy --check --config FILE
Options, and those of twistd:      twistd reverseproxy --help; twistd --help

Options of twistd, such as -n, go before "reverseproxy", and ours behind it.
"""


class Options(BaseOptions):
    """
    The command line of C{twistd reverseproxy}.

    The configuration is read and checked here, so that a wrong one ends the
    process, with status 1, before anything is bound or forked.

    @ivar loaded: the configuration.
    @ivar workers: how many processes are to share the work.
    """

    synopsis = "[options]"
    longdesc = (
        "Reverse tunnels, compatible with MOSN: a tunnel server, an agent, or both, "
        "as the configuration file says."
    )
    optFlags: ClassVar = FLAGS
    optParameters: ClassVar = PARAMETERS

    loaded: Loaded
    workers: int

    def __init__(self) -> None:
        BaseOptions.__init__(self)

    @property
    def file(self) -> str:
        """Return what messages call the configuration."""
        return str(self["config"] or quickstart.FILE)

    def opt_version(self) -> NoReturn:
        """Print the version and exit."""
        sys.stdout.write(f"reverseproxy {__version__}\n")
        raise SystemExit(0)

    def parseOptions(self, options: Any = None) -> None:
        """
        Read the command line.

        twistd would print an error under a page of its own options; so it is printed here.
        """
        try:
            BaseOptions.parseOptions(self, options)
        except UsageError as error:
            if self.parent is None or is_foreign(self.parent):
                raise
            exit_with(sys.stderr, f"twistd reverseproxy: {error}\n{_TEACHING}", 1)

    def postOptions(self) -> None:
        """Read the configuration."""
        check_options(self, lambda: is_supported(_reactor()))
        if not self["check"]:
            check_runner(self.parent or {})
        findings = Diagnostics()
        try:
            self.loaded = quickstart.load() if self["quickstart"] else load(self["config"])
            self.workers = self.count_workers(self.loaded.config, findings)
            if self["check"] or findings.errors:
                self._check_log(self.loaded.config, findings)
                self._build(findings)
            findings.raise_errors(*self.loaded.warnings)
        except ConfigError as error:
            strict = bool(self["check"])
            self._refuse(examine(error, _reactor(), SystemRandom(), self._look_further, strict))
        if self.log_plan.theirs:
            check_log_options(self)
        if self["check"]:
            self._report([*self.loaded.warnings, *findings.warnings])

    def _refuse(self, error: ConfigError) -> NoReturn:
        """Print what is wrong with the configuration, and exit."""
        # An unknown key may be why another one is missing.
        warnings = "".join(f"warning: {warning}\n" for warning in error.warnings)
        exit_with(sys.stderr, f"{error}\n{warnings}", 1)

    def _look_further(self, config: Config, findings: Diagnostics) -> None:
        """Check what is no part of the service."""
        self.workers = self.count_workers(config, findings)
        self._check_log(config, findings)

    def count_workers(self, config: Config, findings: Diagnostics) -> int:
        """
        Return the number of workers for a configuration.

        @return: 1 if it is wrong, which is added to the findings.
        """
        if self["workers"] is not None:
            return parse_workers(str(self["workers"]))
        return findings.attempt(DOCUMENT, partial(workers_of, config, self.file)) or 1

    def _check_log(self, config: Config, findings: Diagnostics) -> None:
        """Check that the log file can be opened."""
        path = config.server.default_log_path
        plan = plan_log(self.parent, config.server, self["log-level"], self["log-format"])
        if path == plan.path:  # otherwise it has no effect
            findings.attempt(Place(self.file), partial(LogFile, path, LOG_PATH, dry=True))

    def _build(self, findings: Diagnostics) -> None:
        """
        Build the service without running it, which checks certificates, tokens and plug-ins too.

        @param findings: gets what is wrong, what is missing, and warnings.
        """
        build = partial(ReverseProxy, self.loaded.config, _reactor(), SystemRandom(), self.file, dry=True)
        built = findings.attempt(DOCUMENT, build)
        if built is not None:
            for problem in built.missing:
                findings.add(problem) if self["check"] else findings.add_warning(problem)
            for warning in built.warnings:
                findings.add_warning(warning)

    def _report(self, found: Sequence[Problem]) -> NoReturn:
        """Print what C{--check} has found, and exit."""
        write(sys.stderr, "".join(f"warning: {warning}\n" for warning in found))
        write(sys.stderr, "".join(f"note: {note}\n" for note in self.loaded.notes))
        strict = bool(self["strict"] and found)
        if strict:
            write(sys.stderr, "with --strict, a warning is an error\n")
        exit_with(sys.stdout, f"{summarize(self.loaded.config)}\n", int(strict))

    @property
    def log_plan(self) -> LogPlan:
        """Return where the log goes."""
        return plan_log(self.parent, self.loaded.config.server, self["log-level"], self["log-format"])


def _reactor() -> Any:
    from twisted.internet import reactor

    return reactor


_signals = Signals(_reactor)


def examine_error(error: ConfigError) -> ConfigError:
    """Return why a configuration can't be loaded, with all else that is wrong with it."""
    return examine(error, _reactor(), SystemRandom())


def _in_thread(call: Callable[..., Any], *arguments: Any) -> Any:
    """Call something that takes a while in a thread of the reactor's pool."""
    reactor = _reactor()
    return deferToThreadPool(reactor, reactor.getThreadPool(), call, *arguments)


def _load_again(path: str) -> Loaded:
    """Load the configuration, and import what it needs; see L{_with_parts}."""
    return _with_parts(load(path), path)


def _parse_another(text: str, file: str, yaml: bool) -> Loaded:
    """Parse another configuration, and import what it needs; see L{_with_parts}."""
    return _with_parts(loads(text, file, yaml), file)


def _with_parts(loaded: Loaded, file: str) -> Loaded:
    """
    Import what a configuration needs, in a thread, as that takes a while.

    @raise ConfigError: if its parts can't be imported.
    """
    try:
        import_parts(loaded.config)
    except ImportError as error:
        # For instance in another root directory, or while another version is being installed.
        problem = f"what it needs can't be loaded into the running process: {error}; start the process again"
        raise ConfigError(Problem.at(Place(file), problem)) from None
    return loaded


def _give_up() -> None:
    """End the process with status 1: its workers can't be started."""
    end_with(1)
    _reactor().stop()


_WORKER = "from reverseproxy.tap import work; work()"
"""What a worker runs."""


def makeService(options: Options) -> IService:
    """
    Make the service that twistd or twist runs.

    With workers, everything is built here all the same, without running it: so what is
    wrong with a configuration ends the process before a worker is started.
    """
    twistd: Any = options.parent or {}
    plan = options.log_plan
    several = options.workers > 1
    if several and twistd.get("chroot"):
        exit_with(sys.stderr, "workers can't be started in another root directory: leave --chroot out\n", 1)
    # Each process has its share of the log, the supervisor too.
    config = options.loaded.config
    per_hour = config.server.max_log_size_per_hour / (options.workers + 1 if several else 1)
    reactor = prepare_reactor(_reactor(), options["transport"])
    findings = Diagnostics(options.file)
    build = partial(SingleProcessService, config, reactor, SystemRandom(), options.file, dry=several)
    observe = partial(make_observer, plan.path, plan.level, plan.format, per_hour=per_hour, where=plan.where)
    built, observer = findings.attempt(DOCUMENT, build), findings.attempt(DOCUMENT, observe)
    if built is None or observer is None:
        exit_with(sys.stderr, "".join(f"{problem}\n" for problem in findings.errors), 1)
    warnings = [*options.loaded.warnings, *built.warnings, *built.missing]
    if options["config"]:
        built.read_from(partial(_in_thread, _load_again, os.path.abspath(options["config"])))
    built.living.reloading.parse = partial(_in_thread, _parse_another)
    built.living.check = options.count_workers
    if options["log-level"] is None and not plan.theirs:
        built.living.taken = partial(take_level, observer)
    if several:
        supervisor = _supervise(options, plan, built, per_hour, observer)
        return _ready(supervisor, observer, plan, warnings, options)
    built.is_quickstart = bool(options["quickstart"])
    built.inspector.parts.observer = observer
    return _ready(built, observer, plan, warnings, options)


def _supervise(
    options: Options, plan: LogPlan, built: ReverseProxy, per_hour: float, observer: LogObserver
) -> SupervisorService:
    """
    Make a supervisor of the workers.

    @param built: the configuration as it was built here, which compares it with later ones.
    @param per_hour: bytes of the log that each process may write in an hour.
    @param observer: writes the log of this process.
    """
    # Most processes have no workers, and this takes memory.
    from reverseproxy.assembly.supervised import Supervised
    from reverseproxy.services.supervising import SupervisorService
    from reverseproxy.services.worker import owner_of
    from reverseproxy.workers.shared_log import SharedLog

    twistd: Any = options.parent or {}
    settings = {
        "transport": options["transport"],
        "quickstart": bool(options["quickstart"]),
        "follows_level": options["log-level"] is None and not plan.theirs,
        "reactor": type(_reactor()).__module__,
        "user": {key: twistd.get(key) for key in ("uid", "gid", "euid")},
    }
    supervisor = SupervisorService(
        options.loaded,
        options.file,
        options.workers,
        _reactor(),
        [sys.executable, "-c", _WORKER],
        settings,
        _give_up,
        owner_of(settings["user"]),
    )
    supervisor.share_log(SharedLog(observer, plan.path, plan.format, per_hour))
    supervisor.supervised = Supervised(supervisor, built.living, _reactor(), options.file)
    if built.admin is not None:
        from reverseproxy.admin.service import AdminServer
        from reverseproxy.admin.workers_source import WorkersSource

        source = WorkersSource(supervisor)
        supervisor.admin = AdminServer(options.loaded.config, _reactor(), source)
        supervisor.admin.attach_configuration(supervisor.supervised)
    return supervisor


def _ready(
    service: ProcessService, observer: LogObserver, plan: LogPlan, warnings: list[Problem], options: Options
) -> IService:
    """Give a service what only the main process has."""
    service.main_reactor, service.signals = _reactor(), _signals
    service.runner = options.parent or {}
    service.observer = observer
    service.lifecycle = Lifecycle(_reactor(), service, str(options["takeover"] or ""))
    service.foreign = plan.beside or plan.theirs
    if plan.beside:
        service.beside = DeduplicatingObserver(observer)
    service.warnings = warnings
    if plan.theirs and options.loaded.config.server.default_log_level != plan.level:
        note = f"does not count for the log that twist writes, at the level {plan.level}: it has --log-level"
        service.warnings.append(Problem.at(Place(options.file) / "servers" / 0 / "default_log_level", note))
    service.notes = options.loaded.notes
    service.describe = partial(startup_lines, options.loaded.config)
    return service


def work() -> None:
    """Run a worker; L{Supervisor} starts this, with a channel to itself."""
    from reverseproxy.services.worker import run_worker
    from reverseproxy.workers.control import CONTROL_FD, OTHER_VERSION, receive_setup
    from reverseproxy.workers.orphan import end_with_parent

    end_with_parent()
    channel = socket.socket(fileno=CONTROL_FD)
    try:
        setup = receive_setup(channel)
    except WireError as error:
        exit_with(sys.stderr, f"worker: {error}\n", 1)
    except VersionMismatch as error:
        exit_with(sys.stderr, f"worker: {error}\n", OTHER_VERSION)
    with suppress(ReactorAlreadyInstalledError):  # an imported module may have done so
        import_module(setup.settings["reactor"]).install()
    run_worker(setup, channel, _reactor(), _signals)
