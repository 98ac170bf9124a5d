"""
C{twistd reverseproxy}, and C{twist reverseproxy}: options and the service.

This is the only module that touches the global reactor.
"""

from __future__ import annotations

__all__ = ["Options", "makeService", "work"]

import atexit
import os
import pwd
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from random import SystemRandom
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn, TextIO

from twisted.application.service import IService, IServiceCollection, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ReactorAlreadyInstalledError
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import ILogObserver, Logger, globalLogBeginner, globalLogPublisher
from twisted.python.components import Componentized
from twisted.python.usage import Options as BaseOptions
from twisted.python.usage import UsageError
from twisted.python.util import switchUID

from reverseproxy import __version__
from reverseproxy.admin import AdminServer
from reverseproxy.admin.gathered import GatheredSource
from reverseproxy.app import ReverseProxy
from reverseproxy.assembly.supervised import Supervised
from reverseproxy.clock import use_monotonic_time
from reverseproxy.config.diagnostics import Diagnostics
from reverseproxy.config.loader import Loaded, load
from reverseproxy.config.models import LOG_LEVELS, Config
from reverseproxy.config.startup import startup_lines
from reverseproxy.config.summary import summarize
from reverseproxy.errors import ConfigError, WireError
from reverseproxy.limits.connection_limit import Descriptors
from reverseproxy.logs import LOG_PATH, LogFile, LogObserver, make_observer
from reverseproxy.problems import DOCUMENT, Place, Problem
from reverseproxy.process.inherited_sockets import ListenerSockets
from reverseproxy.process.lifecycle import Lifecycle
from reverseproxy.process.reloading import Report
from reverseproxy.process.runners import DeduplicatingObserver, LogPlan, is_foreign, plan_log
from reverseproxy.process.signals import Signals
from reverseproxy.services import quickstart
from reverseproxy.transport import is_supported, with_bounds, with_streams
from reverseproxy.transport.allocator import keep_memory
from reverseproxy.transport.garbage import leave_alone
from reverseproxy.workers.control import CONTROL_FD, receive_setup
from reverseproxy.workers.counts import MAX_WORKERS, parse_workers
from reverseproxy.workers.orphan import end_with_parent
from reverseproxy.workers.supervisor import Supervisor
from reverseproxy.workers.worker import Worker

log = Logger()

LOG_FORMATS = ("text", "json")

TRANSPORTS = ("fast", "stock")

AGENTS_TIME: Final = 10.0
"""Seconds in which agents that take the place of others should have reached their servers."""

AGENTS_LOOK: Final = 0.05
"""Seconds between two looks whether they have."""

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
    optFlags: ClassVar = [
        ["check", None, "Check the configuration, print what would run, and exit."],
        ["strict", None, "With --check: end with status 1 if there is a warning."],
        ["quickstart", None, "Run a tunnel server, an agent and a service in one process, to try it out."],
    ]
    optParameters: ClassVar = [
        ["config", "c", None, "The configuration file: MOSN's JSON, or the same as YAML."],
        ["log-format", None, None, "How to write the log: text, the default, or json."],
        ["log-level", None, None, f"Overrides the file's default_log_level: {', '.join(LOG_LEVELS)}."],
        ["transport", None, None, "Connections: fast, ours, the default on Linux; or stock, Twisted's own."],
        [
            "workers",
            None,
            None,
            "How many processes share the work: a number, or auto for one for each core. "
            "Overrides the file's processor; 1 if neither says.",
        ],
        [
            "takeover",
            None,
            None,
            "A path for a Unix socket: take the place of the process that was started with the same one, "
            "if there is one, and let another one take ours.",
        ],
    ]

    loaded: Loaded
    workers: int

    def __init__(self) -> None:
        BaseOptions.__init__(self)

    @property
    def file(self) -> str:
        """What to call the configuration in messages."""
        return str(self["config"] or quickstart.FILE)

    def opt_version(self) -> NoReturn:
        """Print the version and exit."""
        sys.stdout.write(f"reverseproxy {__version__}\n")
        raise SystemExit(0)

    def parseOptions(self, options: Any = None) -> None:
        """
        Read the command line.

        Of a wrong one, twistd would say so under a page of its own options.
        """
        try:
            BaseOptions.parseOptions(self, options)
        except UsageError as error:
            if self.parent is None or is_foreign(self.parent):
                raise
            _exit(sys.stderr, f"twistd reverseproxy: {error}\n{_TEACHING}", 1)

    def postOptions(self) -> None:
        """Read the configuration."""
        self._check_options()
        built: tuple[Problem, ...] = ()
        try:
            self.loaded = quickstart.load() if self["quickstart"] else load(self["config"])
            if self["check"]:
                built = self._build()
            if self["workers"] is None:
                self.workers = self._processor()
        except ConfigError as error:
            # An unknown key may be why another one is missing.
            warnings = "".join(f"warning: {warning}\n" for warning in error.warnings)
            _exit(sys.stderr, f"{error}\n{warnings}", 1)
        self._check_log_options()
        if self["check"]:
            self._report([*self.loaded.warnings, *built])

    def _check_options(self) -> None:
        """
        See whether the options are what they may be, and go together.

        @raise UsageError: if they are not.
        """
        if bool(self["config"]) == bool(self["quickstart"]):
            raise UsageError("name a configuration with --config FILE, or try --quickstart")
        if self["strict"] and not self["check"]:
            raise UsageError("--strict is for --check")
        if self["log-format"] not in (None, *LOG_FORMATS):
            raise UsageError(f"--log-format must be text or json, not {self['log-format']}")
        if self["log-level"] is not None:
            self["log-level"] = self["log-level"].upper()
        if self["log-level"] not in (None, *LOG_LEVELS):
            raise UsageError(f"--log-level must be one of {', '.join(LOG_LEVELS)}, not {self['log-level']}")
        if self["transport"] not in (None, *TRANSPORTS):
            raise UsageError(f"--transport must be fast or stock, not {self['transport']}")
        if self["transport"] == "fast" and not is_supported(_reactor()):
            raise UsageError("--transport fast works on Linux only, with a reactor that has sockets")
        if self["workers"] is not None:
            try:
                self.workers = parse_workers(str(self["workers"]))
            except ValueError as error:
                raise UsageError(f"--workers: {error}") from None

    def _check_log_options(self) -> None:
        """
        See whether options about the log make a difference.

        @raise UsageError: if one doesn't.
        """
        if self.log_plan.theirs:
            for option in ("log-format", "log-level"):
                if self[option] is not None:
                    raise UsageError(
                        f"--{option} makes no difference here, where twist writes the log: "
                        f"say twist --{option}=... reverseproxy"
                    )

    def _build(self) -> tuple[Problem, ...]:
        """
        Build the service without running it: only so certificates, tokens and plug-ins are looked at.

        @return: warnings.
        @raise ConfigError: if something is wrong, or missing.
        """
        findings = Diagnostics(self.file)
        build = partial(ReverseProxy, self.loaded.config, _reactor(), SystemRandom(), self.file, dry=True)
        built = findings.attempt(DOCUMENT, build)
        path = self.loaded.config.server.default_log_path
        if path == self.log_plan.path:  # otherwise it has no effect
            findings.attempt(DOCUMENT, partial(LogFile, path, LOG_PATH, dry=True))
        warnings = () if built is None else built.warnings
        for problem in () if built is None else built.missing:
            findings.add(problem)
        findings.raise_errors(*self.loaded.warnings, *warnings)
        return tuple(warnings)

    def _report(self, found: Sequence[Problem]) -> NoReturn:
        """Say what C{--check} has found, and exit."""
        _write(sys.stderr, "".join(f"warning: {warning}\n" for warning in found))
        _write(sys.stderr, "".join(f"note: {note}\n" for note in self.loaded.notes))
        strict = bool(self["strict"] and found)
        if strict:
            _write(sys.stderr, "with --strict, a warning is an error\n")
        _exit(sys.stdout, f"{summarize(self.loaded.config)}\n", int(strict))

    @property
    def log_plan(self) -> LogPlan:
        """Where the log goes."""
        return plan_log(self.parent, self.loaded.config.server, self["log-level"], self["log-format"])

    def _processor(self) -> int:
        """
        How many workers the configuration wants.

        @raise ConfigError: if that is no number of workers.
        """
        try:
            return parse_workers(self.loaded.config.server.processor)
        except ValueError:
            problem = f'expected a number from 1 to {MAX_WORKERS}, or "auto"'
            raise ConfigError(Problem.at(Place(self.file) / "servers" / 0 / "processor", problem)) from None


def _write(stream: TextIO, text: str) -> None:
    stream.write(text)
    stream.flush()


def _exit(stream: TextIO, text: str, status: int) -> NoReturn:
    _write(stream, text)
    raise SystemExit(status)


def _reactor() -> Any:
    from twisted.internet import reactor

    return reactor


def _with_transport(transport: str | None) -> Any:
    """
    Prepare the process, whose reactor this is: a clock that nobody sets, as many descriptors as
    there may be, no garbage among what is started, and the connections that were asked for.
    """
    reactor = _reactor()
    if not isinstance(reactor, SelectReactor):  # which can't watch more than the usual 1024
        Descriptors.raise_limit()
    use_monotonic_time(reactor)
    # In the first turn: it takes its time, in which SIGTERM would still be the reactor's.
    reactor.callWhenRunning(reactor.callLater, 0, leave_alone)
    if transport == "stock" or not is_supported(reactor):
        return with_bounds(reactor)
    keep_memory()
    return with_streams(reactor)


_signals = Signals(_reactor)


on_start: list[Callable[[ReverseProxy, Any], object]] = []
"""Called with the service of the only process that there is, and its reactor, once it has started."""


if TYPE_CHECKING:

    class _Served(Service):
        """What a L{_Process} is mixed into: a L{ReverseProxy}, or a L{Supervisor}."""

        warnings: list[Problem]
        admin: Any
        cut_short: Callable[[], None]
        bequeath: Callable[[], list[ListenerSockets]]
        claims: Callable[[], list[dict[str, Any]]]
        succeed: Callable[[], None]

        def reload(self) -> Deferred[Report]: ...
        def reopen_logs(self) -> None: ...
        def setServiceParent(self, parent: IServiceCollection) -> None: ...
        def privilegedStartService(self) -> None: ...
        def startService(self) -> None: ...

else:
    _Served = Service


class _Process(_Served):
    """What only the service of a process that twistd or twist runs may do: logs and signals."""

    observer: LogObserver
    beside: DeduplicatingObserver | None = None  # our observer, where whoever runs us has a log of its own
    foreign = False  # whether that is so
    lifecycle: Lifecycle
    holding = False
    notes: tuple[Problem, ...] = ()
    describe: Callable[[str | None], list[str]] = staticmethod(
        lambda admin: []
    )  # given where the admin API is
    summary: Sequence[str] = ()  # what has been started

    def setServiceParent(self, parent: IServiceCollection) -> None:
        # twistd begins logging after this, with the observer that the application names.
        if isinstance(parent, Componentized):
            Componentized.setComponent(parent, ILogObserver, self.observer)
        super().setServiceParent(parent)

    def privilegedStartService(self) -> None:
        # Before anything is bound: whoever can see that we run may also signal to us.
        _signals.add(self)
        if self.beside is not None:
            globalLogPublisher.addObserver(self.beside)
            _reactor().callWhenRunning(self.beside.begun)
        for warning in self.warnings:
            # Not called a warning: Twisted's own observers take such a field for Python's.
            log.warn("{problem}", problem=str(warning))
        for note in self.notes:
            log.info("{problem}", problem=str(note))
        try:
            self.lifecycle.begin()
            self.holding = self.lifecycle.takes_over
            super().privilegedStartService()
            self.lifecycle.bound()
        except ConfigError as error:
            # Before logging has begun, Twisted writes what is critical to standard error.
            log.critical("{reason}", reason=str(error))
            _exit(sys.stderr, "" if self.foreign else f"{error}\n", 1)

    def startService(self) -> None:
        super().startService()
        _signals.take_sigterm()
        self.summary = self.describe(None if self.admin is None else self.admin.listener.bound)
        for number, line in enumerate(self.summary):
            # Known only now: twistd forks before this.
            who = "" if number else f"reverseproxy {__version__}, process {os.getpid()}; "
            log.info("{who}{line}", who=who, line=line)

        _signals.on(signal.SIGUSR2, self.lifecycle.upgrade)

    def serves(self) -> None:
        """Everything has been started."""
        self.lifecycle.serves(self.status)

    @property
    def status(self) -> str:
        """What it is, for people."""
        return self.summary[0] if self.summary else ""

    def reload(self) -> Deferred[Report]:
        """Go on with the configuration as it is in its file now."""
        self.lifecycle.reloading()
        done = super().reload()

        def reloaded(report: Any) -> Any:
            self.lifecycle.reloaded(self.status)
            return report

        return done.addBoth(reloaded)

    def stopService(self) -> Any:
        self.lifecycle.stopping()
        stopped = maybeDeferred(super().stopService)
        return stopped.addBoth(self._over)

    def _over(self, result: Any) -> Any:
        _signals.remove(self)
        self.lifecycle.over()
        if self.beside is not None:
            globalLogPublisher.removeObserver(self.beside)
        return result

    def reopen_logs(self) -> None:
        """Open the log files anew, after something else has moved them away."""
        _reopen(self.observer)
        super().reopen_logs()


def _reopen(observer: LogObserver) -> None:
    try:
        observer.reopen()
    except ConfigError as error:
        log.error("{reason}; the old log file stays in use", reason=str(error))


class _Service(_Process, ReverseProxy):
    """The service of the only process that there is."""

    is_quickstart = False

    def startService(self) -> None:
        super().startService()
        if self.is_quickstart:
            quickstart.announce(self, _reactor(), sys.__stdout__ or sys.stdout)
        for begin in on_start:
            begin(self, _reactor())
        until = _reactor().seconds() + AGENTS_TIME
        _reactor().callWhenRunning(self._when_agents_serve, until)

    def _when_agents_serve(self, until: float) -> None:
        """
        Serve, once the agents here do if they take the place of others.

        Those would leave their servers before anybody else is there.
        """
        reactor = _reactor()
        waits = self.lifecycle.takes_over and any(agent.unserved for agent in self.agents)
        if waits and self.running and reactor.seconds() < until:
            reactor.callLater(AGENTS_LOOK, self._when_agents_serve, until)
        elif self.running:
            self.serves()


class _Steered(Supervisor):
    """
    A supervisor whose workers can go on with another configuration.

    @ivar steered: sees to that.
    """

    steered: Supervised

    def reload(self) -> Deferred[Report]:
        """Let all workers go on with the configuration as it is in its file now, or none."""
        return self.steered.reload()


class _Supervising(_Process, _Steered):
    """The service of a process that has workers."""

    warnings: list[Problem]

    def startService(self) -> None:
        self.on_settled = self._settled_once
        super().startService()

    def _settled_once(self) -> None:
        Deferred.fromCoroutine(self._when_agents_serve(_reactor().seconds() + AGENTS_TIME))

    async def _when_agents_serve(self, until: float) -> None:
        """Serve, once the agents of all workers do if they take the place of others; see L{_Service}."""
        reactor = _reactor()
        if self.lifecycle.takes_over and self.loaded.config.agents:
            while self.running and reactor.seconds() < until:
                answers = await self.ask("unserved", {})
                if all(each.value == [] for each in answers):
                    break
                await deferLater(reactor, AGENTS_LOOK)
        if self.running:
            self.serves()


class _Working(ReverseProxy):
    """The service of a worker; see L{work}."""

    observer: LogObserver

    def terminate(self) -> None:
        """Finish what is under way, and end."""
        reactor = _reactor()
        if reactor.running:
            reactor.stop()
        else:
            reactor.callWhenRunning(self.terminate)

    def reopen_logs(self) -> None:
        """Open the log files anew, after something else has moved them away."""
        _reopen(self.observer)
        super().reopen_logs()


def _end_with(status: int) -> None:
    """See to it that this process will end with a certain status, once the reactor has stopped."""

    def end() -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)

    # twistd has no other way, but to end by a signal.
    atexit.register(end)


def _in_thread(call: Callable[..., Any], *arguments: Any) -> Any:
    """Call something that takes its time, while the reactor goes on."""
    reactor = _reactor()
    return deferToThreadPool(reactor, reactor.getThreadPool(), call, *arguments)


def _take_level(observer: LogObserver, old: Config, new: Config) -> None:
    """Log as another configuration says, if that is something else than the old one."""
    level = new.server.default_log_level
    if level != old.server.default_log_level:
        observer.level = level


def _give_up() -> None:
    _end_with(1)
    _reactor().stop()


_WORKER = "from reverseproxy.tap import work; work()"
"""What a worker runs."""


def makeService(options: Options) -> IService:
    """Make the service that twistd or twist runs."""
    twistd: Any = options.parent or {}
    plan = options.log_plan
    several = options.workers > 1
    if several and twistd.get("chroot"):
        _exit(sys.stderr, "workers can't be started in another root directory: leave --chroot out\n", 1)
    # With workers, this finds out what is wrong, for all of them.
    reactor = _with_transport(options["transport"])
    findings = Diagnostics(options.file)
    build = partial(_Service, options.loaded.config, reactor, SystemRandom(), options.file, dry=several)
    # Of several processes each has its share, the supervisor too.
    per_hour = options.loaded.config.server.max_log_size_per_hour / (options.workers + 1 if several else 1)
    observe = partial(make_observer, plan.path, plan.level, plan.format, per_hour=per_hour, where=plan.where)
    service, observer = findings.attempt(DOCUMENT, build), findings.attempt(DOCUMENT, observe)
    if service is None or observer is None:
        _exit(sys.stderr, "".join(f"{problem}\n" for problem in findings.errors), 1)
    warnings = [*options.loaded.warnings, *service.warnings, *service.missing]
    if several:
        settings = {
            "transport": options["transport"],
            "log": (plan.path, plan.level, plan.format, per_hour),
            "quickstart": bool(options["quickstart"]),
            "follows_level": options["log-level"] is None and not plan.theirs,
            "reactor": type(_reactor()).__module__,
            "user": {key: twistd.get(key) for key in ("uid", "gid", "euid")},
        }
        supervising = _Supervising(
            options.loaded,
            options.file,
            options.workers,
            _reactor(),
            [sys.executable, "-c", _WORKER],
            settings,
            _give_up,
            _owner(settings["user"]),
        )
        if settings["follows_level"]:
            service.living.taken = partial(_take_level, observer)
        steered = supervising.steered = Supervised(supervising, service.living, _reactor(), options.file)
        if options["config"]:
            service.read_from(partial(_in_thread, load, os.path.abspath(options["config"])))
        if service.admin is not None:
            gathered = GatheredSource(supervising)
            supervising.admin = AdminServer(options.loaded.config, _reactor(), gathered)
            supervising.admin.steer(steered)
        return _ready(supervising, observer, plan, warnings, options)
    service.is_quickstart = bool(options["quickstart"])
    if options["config"]:
        service.read_from(partial(_in_thread, load, os.path.abspath(options["config"])))
    if options["log-level"] is None and not plan.theirs:
        service.living.taken = partial(_take_level, observer)
    service.inspector.parts.observer = observer
    return _ready(service, observer, plan, warnings, options)


def _ready(
    service: _Process, observer: LogObserver, plan: LogPlan, warnings: list[Problem], options: Options
) -> IService:
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


def _owner(user: Mapping[str, Any]) -> tuple[int, int] | None:
    """The user and the group that twistd was told to become."""
    uid, gid = user["uid"], user["gid"]
    if uid is None and gid is None:
        return None
    if gid is None:
        gid = pwd.getpwuid(uid).pw_gid
    return -1 if uid is None else uid, gid


def work() -> None:
    """
    Be a worker; for L{Supervisor}, which starts this with a channel to itself.

    Like twistd's, the process sheds its privileges between building and running.
    """
    end_with_parent()
    channel = socket.socket(fileno=CONTROL_FD)
    try:
        setup = receive_setup(channel)
    except WireError as error:
        _exit(sys.stderr, f"worker: {error}\n", 1)
    settings = setup.settings
    with suppress(ReactorAlreadyInstalledError):  # something that was imported may have done so
        import_module(settings["reactor"]).install()
    # Ctrl-C reaches all processes of a terminal, and is the supervisor's business.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    worker = setup.number + 1
    try:
        reactor = _with_transport(settings["transport"])
        own = Worker(setup, channel, reactor)
        service = _Working(
            setup.loaded.config,
            reactor,
            SystemRandom(),
            setup.file,
            worker=own,
        )
        path, level, fmt, per_hour = settings["log"]
        service.observer = make_observer(path, level, fmt, worker, per_hour)
    except ConfigError as error:
        _exit(sys.stderr, f"worker {worker}: {error}\n", 1)
    service.inspector.parts.observer = service.observer
    if settings["follows_level"]:
        service.living.taken = partial(_take_level, service.observer)
    globalLogBeginner.beginLoggingTo([service.observer])
    _signals.on(signal.SIGUSR1, service.reopen_logs)
    _signals.on(signal.SIGHUP, service.reload_certificates)
    # Somebody may signal to all processes of a unit; it is the supervisor's business, too.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    service.privilegedStartService()
    owner = _owner(settings["user"])
    if owner is not None and os.geteuid() == 0:
        user = settings["user"]
        switchUID(user["uid"], owner[1], user["euid"])
    own.wake_with_parent()
    service.startService()
    if settings["quickstart"] and not setup.number:
        quickstart.announce(service, reactor, sys.__stdout__ or sys.stdout)
    _reactor().addSystemEventTrigger("before", "shutdown", service.stopService)
    _reactor().addSystemEventTrigger("after", "startup", _signals.on, signal.SIGTERM, service.terminate)
    _reactor().addSystemEventTrigger("after", "startup", signal.signal, signal.SIGINT, signal.SIG_IGN)
    _reactor().run()
