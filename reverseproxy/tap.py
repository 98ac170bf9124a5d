"""
C{twistd reverseproxy}: options and the service.

This is the only module that touches the global reactor.
"""

from __future__ import annotations

__all__ = ["Options", "makeService"]

import signal
import sys
from collections.abc import Callable
from random import SystemRandom
from typing import Any, ClassVar, NoReturn, TextIO

from twisted.application.service import IService, IServiceCollection
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.usage import Options as BaseOptions
from twisted.python.usage import UsageError

from reverseproxy import __version__, quickstart
from reverseproxy.app import ReverseProxy
from reverseproxy.config.loader import Loaded, load
from reverseproxy.config.models import LOG_LEVELS
from reverseproxy.config.summary import summarize
from reverseproxy.errors import ConfigError
from reverseproxy.logs import LogObserver, make_observer
from reverseproxy.transport import is_supported, with_streams

log = Logger()

LOG_FORMATS = ("text", "json")

TRANSPORTS = ("fast", "stock")


class Options(BaseOptions):
    """
    The command line of C{twistd reverseproxy}.

    The configuration is read and checked here, so that a wrong one ends the
    process, with status 1, before anything is bound or forked.

    @ivar loaded: the configuration.
    """

    synopsis = "[options]"
    longdesc = (
        "Reverse tunnels, compatible with MOSN: a tunnel server, an agent, or both, "
        "as the configuration file says."
    )
    optFlags: ClassVar = [
        ["check", None, "Check the configuration, print what would run, and exit."],
        ["quickstart", None, "Run a tunnel server, an agent and a service in one process, to try it out."],
    ]
    optParameters: ClassVar = [
        ["config", "c", None, "The configuration file: MOSN's JSON, or the same as YAML."],
        ["log-format", None, "text", "How to write the log: text or json."],
        ["log-level", None, None, f"Overrides the file's default_log_level: {', '.join(LOG_LEVELS)}."],
        ["transport", None, None, "Connections: fast, ours, the default on Linux; or stock, Twisted's own."],
    ]

    loaded: Loaded

    @property
    def file(self) -> str:
        """What to call the configuration in messages."""
        return str(self["config"] or quickstart.FILE)

    def opt_version(self) -> NoReturn:
        """Print the version and exit."""
        sys.stdout.write(f"reverseproxy {__version__}\n")
        raise SystemExit(0)

    def postOptions(self) -> None:
        """Read the configuration."""
        if bool(self["config"]) == bool(self["quickstart"]):
            raise UsageError("name a configuration with --config FILE, or try --quickstart")
        if self["log-format"] not in LOG_FORMATS:
            raise UsageError(f"--log-format must be text or json, not {self['log-format']}")
        if self["log-level"] is not None and self["log-level"] not in LOG_LEVELS:
            raise UsageError(f"--log-level must be one of {', '.join(LOG_LEVELS)}, not {self['log-level']}")
        if self["transport"] not in (None, *TRANSPORTS):
            raise UsageError(f"--transport must be fast or stock, not {self['transport']}")
        if self["transport"] == "fast" and not is_supported(_reactor()):
            raise UsageError("--transport fast works on Linux only, with a reactor that has sockets")
        try:
            self.loaded = quickstart.load() if self["quickstart"] else load(self["config"])
            if self["check"]:
                # Certificates, tokens and plug-ins are looked at when the service is built.
                built = ReverseProxy(self.loaded.config, _reactor(), SystemRandom(), self.file, dry=True)
        except ConfigError as error:
            _exit(sys.stderr, f"{error}\n", 1)
        if self["check"]:
            warnings = [*self.loaded.warnings, *built.warnings]
            _write(sys.stderr, "".join(f"warning: {warning}\n" for warning in warnings))
            _exit(sys.stdout, f"{summarize(self.loaded.config)}\n", 0)


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
    """Give the reactor the connections that were asked for."""
    reactor = _reactor()
    if transport == "stock" or not is_supported(reactor):
        return reactor
    return with_streams(reactor)


def _on_signal(number: int, call: Callable[[], object]) -> None:
    """Call something in the reactor's loop when a signal comes."""
    signal.signal(number, lambda *_: _reactor().callFromThread(call))


class _Service(ReverseProxy):
    """The service, with what only a process of its own may do: logs and signals."""

    observer: LogObserver
    is_quickstart = False
    _asked_to_stop = False

    def setServiceParent(self, parent: IServiceCollection) -> None:
        # twistd begins logging after this, with the observer that the application names.
        if isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self.observer)  # type: ignore[no-untyped-call]
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]

    def privilegedStartService(self) -> None:
        # Before anything is bound: whoever can see that we run may also signal to us.
        for number in (signal.SIGTERM, signal.SIGINT):
            _on_signal(number, self._terminate)
        _on_signal(signal.SIGUSR1, self.reopen_logs)
        _on_signal(signal.SIGHUP, self.reload_certificates)
        for warning in self.warnings:
            # Not called a warning: Twisted's own observers take such a field for Python's.
            log.warn("{problem}", problem=str(warning))
        try:
            super().privilegedStartService()
        except ConfigError as error:
            log.critical("{reason}", reason=str(error))
            _exit(sys.stderr, f"{error}\n", 1)

    def startService(self) -> None:
        super().startService()
        # The reactor installs its own handler when it starts, with which twistd would end by
        # SIGTERM itself; this is a normal end, with status 0 (spec 7).
        _reactor().addSystemEventTrigger("after", "startup", _on_signal, signal.SIGTERM, self._terminate)
        if self.is_quickstart:
            quickstart.announce(self, _reactor(), sys.__stdout__ or sys.stdout)

    def _terminate(self) -> None:
        if self._asked_to_stop:
            self.cut_short()
            return
        log.info("asked to stop by a signal")
        if _reactor().running:
            self._asked_to_stop = True
            _reactor().stop()

    def reopen_logs(self) -> None:
        """Open the log files anew, after something else has moved them away."""
        try:
            self.observer.reopen()
        except ConfigError as error:
            log.error("{reason}; the old log file stays in use", reason=str(error))
        super().reopen_logs()


def makeService(options: Options) -> IService:
    """Make the service that twistd runs."""
    server = options.loaded.config.server
    twistd: Any = options.parent or {}
    daemon = not twistd.get("nodaemon", True)
    path = twistd.get("logfile") or server.default_log_path or "stdout"
    if path in ("stdout", "-"):
        # A daemon has no standard output to write to; twistd's own default then.
        path = "twistd.log" if daemon else "stdout"
    try:
        reactor = _with_transport(options["transport"])
        service = _Service(options.loaded.config, reactor, SystemRandom(), options.file)
        service.observer = make_observer(
            path, options["log-level"] or server.default_log_level, options["log-format"]
        )
    except ConfigError as error:
        _exit(sys.stderr, f"{error}\n", 1)
    service.warnings[:0] = options.loaded.warnings
    service.is_quickstart = bool(options["quickstart"])
    return service
