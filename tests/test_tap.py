"""Tests for L{reverseproxy.tap}."""

from __future__ import annotations

import atexit
import errno
import io
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast

import yaml
from twisted.application.service import Application, IServiceMaker, MultiService
from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import deferLater
from twisted.internet.testing import MemoryReactorClock
from twisted.internet.utils import getProcessOutputAndValue
from twisted.logger import ILogObserver, Logger, LoggingFile
from twisted.plugin import getPlugins
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase, TestCase

import reverseproxy
from reverseproxy import __version__, tap
from reverseproxy.config.loader import load
from reverseproxy.config.models import ServerConfig
from reverseproxy.errors import ConfigError, VersionMismatch
from reverseproxy.logs import make_observer
from reverseproxy.process.runners import plan_log
from reverseproxy.process.signals import Signals
from reverseproxy.services import exiting, process_service, quickstart
from reverseproxy.services import reactor as process_reactor
from reverseproxy.services.single import SingleProcessService
from reverseproxy.services.supervising import SupervisorService
from reverseproxy.services.worker import owner_of
from reverseproxy.tap import Options, makeService
from reverseproxy.transport.garbage import leave_alone
from reverseproxy.transport.ports import BoundedReactor
from reverseproxy.transport.reactor import StreamReactor
from reverseproxy.workers import control, orphan
from reverseproxy.workers.control import OTHER_VERSION
from tests.certs import Certificates
from tests.config.documents import AGENT, CHAIN, CLUSTER, CONFIG, GONE, LISTENER, TUNNEL_SERVER, edited
from tests.tunnel.logged import capture

PROCESSOR = "servers[0].processor"

ROOT = Path(reverseproxy.__file__).resolve().parent.parent


class TapTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).resolve()
        self.directory.mkdir()
        self.out, self.err = io.StringIO(), io.StringIO()
        self.patch(sys, "stdout", self.out)
        self.patch(sys, "stderr", self.err)
        self.clock = MemoryReactorClock()
        self.patch(tap, "_reactor", lambda: self.clock)
        self.signals = Signals(lambda: self.clock)
        self.patch(tap, "_signals", self.signals)
        self.patch(tap, "_in_thread", maybeDeferred)

    def write(self, document: Any, name: str = "config.json") -> str:
        file = self.directory / name
        file.write_text(document if isinstance(document, str) else json.dumps(document))
        return str(file)

    def options(self, *arguments: str, twistd: dict[str, Any] | None = None) -> Options:
        options = Options()  # type: ignore[no-untyped-call]
        if twistd is not None:
            options.parent = twistd
        options.parseOptions(list(arguments))  # type: ignore[no-untyped-call]
        return options

    def exits(self, call: Callable[..., object], *arguments: Any) -> tuple[int, str, str]:
        """How a call ends the process: its status, and what it has written."""
        error = self.assertRaises(SystemExit, call, *arguments)
        return int(error.code), self.out.getvalue(), self.err.getvalue()  # type: ignore[arg-type]

    def service(
        self, document: Any, *arguments: str, twistd: dict[str, Any] | None = None
    ) -> SingleProcessService:
        """What twistd runs."""
        options = self.options("--config", self.write(document), *arguments, twistd=twistd)
        service = makeService(options)
        assert isinstance(service, SingleProcessService)
        self.addCleanup(service.observer.close)
        return service


class OptionsTests(TapTestCase):
    def test_the_plug_in_names_this_module(self) -> None:
        [maker] = [each for each in getPlugins(IServiceMaker) if each.tapname == "reverseproxy"]
        self.assertIs(maker.options, Options)
        self.assertIs(maker.makeService, makeService)

    def refused(self, *arguments: str) -> str:
        return str(self.assertRaises(UsageError, self.options, *arguments))

    def test_a_configuration_is_needed_and_only_one(self) -> None:
        hint = "name a configuration with --config FILE, or try --quickstart"
        self.assertEqual(self.refused(), hint)
        self.assertEqual(self.refused("--check"), hint)
        self.assertEqual(self.refused("--config", "a.json", "--quickstart"), hint)

    def test_options_of_twistd_that_would_fail_later(self) -> None:
        """With a traceback, when addresses are bound already."""
        file = self.write(TUNNEL_SERVER)
        nobody, missing = 4_000_000_000, str(self.directory / "missing" / "pid")
        for twistd, wanted in (
            ({"uid": nobody, "gid": None}, f"--uid {nobody}: there is no such user; say --gid, too"),
            ({"pidfile": missing}, f"--pidfile {missing}: there is no directory {self.directory}/missing"),
            ({"pidfile": str(self.directory)}, f"--pidfile {self.directory}: it is a directory"),
            ({"rundir": missing}, f"--rundir {missing}: there is no such directory"),
            ({"chroot": missing, "rundir": "."}, f"--chroot {missing}: there is no such directory"),
        ):
            start = partial(self.options, twistd={"nodaemon": True, **twistd})
            status, _, err = self.exits(start, "--config", file)
            self.assertEqual(status, 1)
            self.assertIn(wanted, err)
            self.assertEqual(self.exits(start, "--config", file, "--check")[0], 0)
        for twistd in (
            {"uid": nobody, "gid": 1},
            {"uid": os.getuid(), "gid": None},
            {"pidfile": ""},
            {"pidfile": str(self.directory / "pid")},
            {"pidfile": missing, "chroot": "/"},
        ):
            self.options("--config", file, twistd={"nodaemon": True, **twistd})
        self.assertFalse((self.directory / "pid").exists())

    def test_log_options(self) -> None:
        self.assertEqual(
            self.refused("--quickstart", "--log-format", "xml"), "--log-format must be text or json, not xml"
        )
        self.assertEqual(
            self.refused("--quickstart", "--log-level", "loud"),
            "--log-level must be one of TRACE, DEBUG, INFO, WARN, ERROR, FATAL, not LOUD",
        )
        for level in ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"):
            options = self.options("--quickstart", "--log-level", level, "--log-format", "json")
            self.assertEqual(options["log-level"], level)
            self.assertEqual(self.options("--quickstart", "--log-level", level.lower())["log-level"], level)

    def test_the_transport(self) -> None:
        self.assertEqual(
            self.refused("--quickstart", "--transport", "slow"), "--transport must be fast or stock, not slow"
        )
        self.assertEqual(
            self.refused("--quickstart", "--transport", "fast"),
            "--transport fast works on Linux only, with a reactor that has sockets",
        )
        self.patch(tap, "_reactor", lambda: reactor)
        for transport in ("fast", "stock"):
            options = self.options("--quickstart", "--transport", transport)
            self.assertEqual(options["transport"], transport)

    def test_no_other_arguments(self) -> None:
        self.refused("--quickstart", "config.json")
        self.refused("--nonsense")

    def test_the_configuration_is_read(self) -> None:
        file = self.write(TUNNEL_SERVER)
        options = self.options("-c", file)
        self.assertEqual(options.file, file)
        self.assertEqual(options.loaded.config.server.listeners[0].name, "clients")

    def test_yaml(self) -> None:
        file = self.write(yaml.safe_dump(TUNNEL_SERVER), "config.yaml")
        self.assertEqual(self.options("-c", file).loaded.config.server.listeners[0].name, "clients")

    def test_the_quickstart_is_read(self) -> None:
        options = self.options("--quickstart")
        self.assertEqual(options.file, quickstart.FILE)
        self.assertEqual(len(options.loaded.config.agents), 1)

    def test_version(self) -> None:
        self.assertEqual(self.exits(self.options, "--version"), (0, f"reverseproxy {__version__}\n", ""))

    def test_a_wrong_configuration_names_every_problem_and_ends(self) -> None:
        file = self.write(
            edited(
                TUNNEL_SERVER,
                (f"{LISTENER}.address", "nowhere"),
                ("servers[0].graceful_timeout", "soon"),
            )
        )
        status, out, err = self.exits(self.options, "--config", file)
        self.assertEqual((status, out), (1, ""))
        self.assertEqual(len(err.splitlines()), 2)
        self.assertIn(f'{file}: {LISTENER}.address: "nowhere" has no port', err)
        self.assertIn(f"{file}: servers[0].graceful_timeout: ", err)

    def test_a_missing_configuration(self) -> None:
        file = str(self.directory / "missing.json")
        status, _, err = self.exits(self.options, "--config", file)
        self.assertEqual(status, 1)
        self.assertIn(file, err)
        self.assertIn("No such file", err)


class CheckTests(TapTestCase):
    def check(self, document: Any) -> tuple[int, str, str]:
        return self.exits(self.options, "--check", "--config", self.write(document))

    def test_a_good_configuration_is_described(self) -> None:
        status, out, err = self.check(TUNNEL_SERVER)
        self.assertEqual((status, err), (0, ""))
        for part in ("clients: at 127.0.0.1:2045", "agents", "edge"):
            self.assertIn(part, out)
        self.assertTrue(out.endswith("\n"))
        self.assertEqual(self.clock.tcpServers, [])

    def test_everything_wrong_is_told_at_once(self) -> None:
        """What loading, building, the log and the number of workers show; with --check, and at the start."""
        document = edited(
            TUNNEL_SERVER,
            (PROCESSOR, 99),
            ("servers[0].default_log_path", f"{__file__}/a.log"),
            ("servers[0].graceful_timeout", "soon"),
            (f"{CHAIN}.tls_context", {"status": True, "cert_chain": __file__, "private_key": __file__}),
            (f"{LISTENER}.access_logs", [{"log_path": f"{__file__}/b.log"}]),
        )
        valid = edited(document, ("servers[0].graceful_timeout", "1s"), (f"{CHAIN}.tls_context", {}))
        for given, others in ((document, ["graceful_timeout", "cert_chain", "private_key"]), (valid, [])):
            for arguments in ((), ("--check",)):
                self.err.truncate(0)
                file = self.write(given)
                status, _, err = self.exits(self.options, "--config", file, *arguments)
                self.assertEqual(status, 1)
                wanted = [
                    *others,
                    "servers[0].processor",
                    "servers[0].default_log_path",
                    "access_logs[0].log_path",
                ]
                errors = [line for line in err.splitlines() if not line.startswith("warning: ")]
                self.assertEqual(len(errors), len(wanted), err)
                for place in wanted:
                    self.assertTrue(any(f"{place}: " in line for line in errors), (place, err))

    def with_token_file(self) -> tuple[Any, Path]:
        """An agent's configuration, and where it has its token."""
        token = self.directory / "agent.token"
        place = "extends[0].config"
        return (
            edited(
                AGENT,
                (f"{place}.credential_policy", "static"),
                (f"{place}.credential_config", {"file": str(token)}),
                (f"{place}.adress", ""),
            ),
            token,
        )

    def test_missing_credential(self) -> None:
        """Nobody who checks a configuration wants to hear of that from the log of the agent."""
        document, token = self.with_token_file()
        status, out, err = self.check(document)
        self.assertEqual((status, out), (1, ""))
        self.assertRegex(
            err,
            r"config\.json: extends\[0\]\.config\.credential_config: can't read the credential from "
            rf"{token}: No such file or directory\n",
        )
        self.assertRegex(err, r"(?m)^warning: .*extends\[0\]\.config\.adress: unknown key")
        token.write_text("secret\n")
        self.assertEqual(self.check(document)[0], 0)

    def test_missing_variable(self) -> None:
        place = "extends[0].config"
        document = edited(
            AGENT,
            (f"{place}.credential_policy", "static"),
            (f"{place}.credential_config", {"env": "NO_SUCH_TOKEN"}),
        )
        status, _, err = self.check(document)
        self.assertEqual(status, 1)
        self.assertIn("the environment variable NO_SUCH_TOKEN holds no credential, it is not set", err)

    def test_missing_credential_at_the_start(self) -> None:
        """It may come later, and so is no reason not to start."""
        document, token = self.with_token_file()
        service: Any = makeService(self.options("--config", self.write(document)))
        self.assertIn(f"can't read the credential from {token}", str(service.warnings[-1]))

    def test_strict(self) -> None:
        good, bad = self.write(TUNNEL_SERVER), edited(TUNNEL_SERVER, ("servers[0].lisseners", []))
        self.assertEqual(self.exits(self.options, "--check", "--strict", "--config", good)[0], 0)
        status, _, err = self.exits(self.options, "--check", "--strict", "--config", self.write(bad))
        self.assertEqual(status, 1)
        self.assertIn("with --strict, a warning is an error", err)

    def test_strict_alone(self) -> None:
        error = self.assertRaises(UsageError, self.options, "--strict", "--config", "any")
        self.assertIn("--strict is for --check", str(error))

    def test_notes(self) -> None:
        """What makes no difference is said once, and not as a warning."""
        clusters = [{"name": name, "conn_buffer_limit_bytes": 1} for name in ("edge", "b", "c")]
        status, _, err = self.check(edited(TUNNEL_SERVER, ("cluster_manager.clusters", clusters)))
        self.assertEqual(status, 0)
        self.assertRegex(err, r"^note: .*config\.json: .*conn_buffer_limit_bytes: .*in 2 more places\)\n$")

    def test_warnings_of_both_kinds(self) -> None:
        logs = [{"log_path": str(self.directory / "access.log"), "log_format": "%nobody_knows%"}]
        document = edited(TUNNEL_SERVER, (f"{LISTENER}.access_logs", logs), ("servers[0].lisseners", []))
        status, out, err = self.check(document)
        self.assertEqual(status, 0)
        self.assertIn("clients", out)
        [unknown, variable] = err.splitlines()
        self.assertRegex(unknown, r"^warning: .*config\.json: servers\[0\]\.lisseners: ")
        self.assertRegex(variable, rf"^warning: .*config\.json: {_quoted(LISTENER)}\.access_logs\[0\]")

    def test_nothing_is_made(self) -> None:
        there = self.directory / "there.log"
        there.write_text("before")
        paths = [there, self.directory / "new.log", self.directory / "some" / "where" / "new.log"]
        logs = [{"log_path": str(path)} for path in paths]
        status, _, err = self.check(edited(TUNNEL_SERVER, (f"{LISTENER}.access_logs", logs)))
        self.assertEqual((status, err), (0, ""))
        self.assertEqual(sorted(os.listdir(self.directory)), ["config.json", "there.log"])
        self.assertEqual(there.read_text(), "before")

    def test_logs_that_can_t_be_opened(self) -> None:
        (self.directory / "file").write_text("")
        logs = [{"log_path": str(self.directory)}, {"log_path": str(self.directory / "file" / "a.log")}]
        closed = self.directory / "closed"
        closed.mkdir()
        self.patch(os, "access", lambda path, mode: path != str(closed))
        logs.append({"log_path": str(closed / "a.log")})
        status, _, err = self.check(edited(TUNNEL_SERVER, (f"{LISTENER}.access_logs", logs)))
        self.assertEqual(status, 1)
        for index, number in enumerate((errno.EISDIR, errno.ENOTDIR, errno.EACCES)):
            line = err.splitlines()[index]
            self.assertIn(f"{LISTENER}.access_logs[{index}].log_path", line)
            self.assertIn(os.strerror(number), line)

    def test_what_only_building_shows(self) -> None:
        certs = Certificates(self.directory)
        context = {"status": True, "cert_chain": certs.server.chain, "private_key": certs.client.key}
        status, out, err = self.check(edited(TUNNEL_SERVER, (f"{CHAIN}.tls_context", context)))
        self.assertEqual((status, out), (1, ""))
        self.assertIn(f"config.json: {CHAIN}.tls_context.cert_chain: ", err)

    def test_certificates_that_end_soon(self) -> None:
        now = datetime.now(UTC)
        certs = Certificates(self.directory)
        for days, words in ((5, "expires in 5 days"), (-1, "expired on")):
            pair = certs.issue(
                "old", "localhost", not_before=now - timedelta(days=9), not_after=now + timedelta(days=days)
            )
            context = {"status": True, **pair.options}
            status, _, err = self.check(edited(TUNNEL_SERVER, (f"{CHAIN}.tls_context", context)))
            self.assertEqual(status, 0)
            self.assertRegex(
                err, rf"(?m)^warning: .*config\.json: {_quoted(CHAIN)}\.tls_context\.cert_chain: .* {words}"
            )

    def test_the_quickstart(self) -> None:
        status, out, err = self.exits(self.options, "--check", "--quickstart")
        self.assertEqual((status, err), (0, ""))
        self.assertIn("client_listener", out)


def _quoted(text: str) -> str:
    return text.replace("[", r"\[").replace("]", r"\]").replace(".", r"\.")


class LogTests(TapTestCase):
    def logged_to(self, path: str | None, twistd: dict[str, Any] | None = None) -> str:
        changes = [] if path is None else [("servers[0].default_log_path", path)]
        return self.service(edited(TUNNEL_SERVER, *changes), twistd=twistd).observer.file.path

    def test_where_to(self) -> None:
        configured = str(self.directory / "configured.log")
        given = str(self.directory / "given.log")
        here: dict[str, Any] = {"nodaemon": True, "logfile": None}
        self.assertEqual(self.logged_to(configured), configured)
        self.assertEqual(self.logged_to(configured, here), configured)
        self.assertEqual(self.logged_to("stdout", here), "stdout")
        self.assertEqual(self.logged_to(""), "stdout")
        # twistd's own option says it last.
        self.assertEqual(self.logged_to(configured, {**here, "logfile": given}), given)
        self.assertEqual(self.logged_to(configured, {**here, "logfile": "-"}), "stdout")

    def test_a_daemon_has_no_standard_output(self) -> None:
        previous = Path.cwd()
        os.chdir(self.directory)
        self.addCleanup(os.chdir, previous)
        daemon: dict[str, Any] = {"nodaemon": False, "logfile": None}
        self.assertEqual(self.logged_to("stdout", daemon), "twistd.log")
        self.assertEqual(self.logged_to("", daemon), "twistd.log")
        self.assertEqual(self.logged_to("", {**daemon, "logfile": "-"}), "twistd.log")
        self.assertEqual(self.logged_to("own.log", daemon), "own.log")
        self.assertEqual(self.logged_to("own.log", {**daemon, "logfile": "given.log"}), "given.log")

    def lines(self, *arguments: str, level: str = "INFO") -> list[str]:
        """What is written of a warning and of something less."""
        path = self.directory / "proxy.log"
        path.unlink(missing_ok=True)
        document = edited(
            TUNNEL_SERVER,
            ("servers[0].default_log_path", str(path)),
            ("servers[0].default_log_level", level),
        )
        observer = self.service(document, *arguments).observer
        for each in ("info", "warn"):
            with capture() as events:
                getattr(process_service.log, each)("a message of level {name}", name=each)
            observer(events[0])
        return path.read_text().splitlines()

    def test_level_and_format(self) -> None:
        [info, warn] = self.lines()
        self.assertTrue(info.endswith("tap: a message of level info"), info)
        self.assertTrue(warn.endswith("tap: a message of level warn"), warn)
        self.assertEqual(len(self.lines(level="WARN")), 1)
        self.assertEqual(len(self.lines("--log-level", "INFO", level="WARN")), 2)
        self.assertEqual(len(self.lines("--log-level", "ERROR")), 0)
        [info, warn] = map(json.loads, self.lines("--log-format", "json"))
        self.assertEqual((info["level"], warn["level"]), ("INFO", "WARN"))
        self.assertEqual(info["message"], "a message of level info")

    def test_a_log_that_can_t_be_opened(self) -> None:
        document = edited(TUNNEL_SERVER, ("servers[0].default_log_path", str(self.directory)))
        options = self.options("--config", self.write(document))
        status, out, err = self.exits(makeService, options)
        self.assertEqual((status, out), (1, ""))
        path = options["config"]
        problem = f"servers[0].default_log_path: the log file {str(self.directory)!r} can't be opened: "
        self.assertIn(f"{path}: {problem}", err)
        # What is wrong elsewhere is told with it, and a check finds it without a trace.
        document = edited(document, (f"{LISTENER}.access_logs", [{"log_path": str(self.directory)}]))
        file = self.write(document)
        for attempt in (partial(makeService, self.options("--config", file)), self.check_of(file)):
            self.err.truncate(0)
            self.err.seek(0)
            status, out, err = self.exits(attempt)
            self.assertEqual((status, out, err.count("can't be opened")), (1, "", 2), err)

    def check_of(self, file: str) -> Callable[[], Options]:
        return partial(self.options, "--check", "--config", file)

    def test_an_option_that_names_no_log(self) -> None:
        """The option is named, not a key of the document that it takes the place of."""
        plan = plan_log({"nodaemon": True, "logfile": str(self.directory)}, ServerConfig(), None, None)
        with self.assertRaises(ConfigError) as caught:
            make_observer(plan.path, where=plan.where)
        self.assertTrue(str(caught.exception).startswith("--logfile: the log file "))

    def test_twistd_logs_with_it(self) -> None:
        service = self.service(TUNNEL_SERVER)
        application = Application("reverseproxy")  # type: ignore[no-untyped-call]
        service.setServiceParent(application)
        self.assertIs(ILogObserver(application), service.observer)
        # Anything else may be its parent too.
        other = self.service(TUNNEL_SERVER)
        parent = MultiService()  # type: ignore[no-untyped-call]
        other.setServiceParent(parent)
        self.assertEqual(list(parent), [other])


class ServiceTests(TapTestCase):
    """The service of a process, with a reactor in memory and signals that the test sends."""

    def setUp(self) -> None:
        super().setUp()
        self.handlers: dict[int, Callable[[], object]] = {}
        self.patch(self.signals, "on", self.handlers.__setitem__)

    def start(self, service: SingleProcessService) -> None:
        """As twistd does."""
        service.privilegedStartService()
        service.startService()

    def test_signals_are_taken_before_anything_is_bound(self) -> None:
        service = self.service(TUNNEL_SERVER)
        taken: list[set[int]] = []
        self.clock.listenTCP = lambda *_: taken.append(set(self.handlers)) or self.fail("enough")  # type: ignore[func-returns-value, method-assign]
        self.assertRaises(self.failureException, service.privilegedStartService)
        self.assertEqual(taken, [{signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP}])

    def test_connections_are_ours_unless_it_is_said_otherwise(self) -> None:
        self.assertIs(self.service(TUNNEL_SERVER)._reactor, self.clock)
        self.assertIn((0, leave_alone), [arguments for _, arguments, *_ in self.clock.whenRunningHooks])
        self.patch(process_reactor, "leave_alone", lambda: None)
        self.patch(tap, "_reactor", lambda: reactor)
        for arguments, expected in (
            ((), StreamReactor),
            (("--transport", "fast"), StreamReactor),
            (("--transport", "stock"), BoundedReactor),
        ):
            self.assertIs(type(self.service(TUNNEL_SERVER, *arguments)._reactor), expected)

    def test_what_only_building_shows(self) -> None:
        options = self.options(
            "--config", self.write(edited(AGENT, (f"{CONFIG}.credential_policy", "nobody-knows")))
        )
        status, out, err = self.exits(makeService, options)
        self.assertEqual((status, out), (1, ""))
        self.assertIn(f"{CONFIG}.credential_policy: there is no credential policy 'nobody-knows'", err)

    def test_warnings_are_logged_in_order(self) -> None:
        logs = [{"log_path": str(self.directory / "access.log"), "log_format": "%nobody_knows%"}]
        service = self.service(
            edited(TUNNEL_SERVER, (f"{LISTENER}.access_logs", logs), ("servers[0].lisseners", []))
        )
        with capture() as events:
            service.privilegedStartService()
        warnings = [str(event["problem"]) for event in events if "problem" in event]
        self.assertEqual(len(warnings), 2)
        self.assertIn("lisseners", warnings[0])
        self.assertIn("%nobody_knows%", warnings[1])

    def test_a_port_that_is_taken_ends_the_process(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            self.patch(tap, "_reactor", lambda: reactor)
            service = self.service(
                edited(TUNNEL_SERVER, (f"{LISTENER}.address", address), ("servers[0].listeners[1]", GONE))
            )
            with capture() as events:
                status, out, err = self.exits(service.privilegedStartService)
        self.assertEqual((status, out), (1, ""))
        self.assertIn(f"{LISTENER}.address: listener clients can't listen on {address}", err)
        self.assertIn(err.strip(), events.text())

    def test_standard_error_after_logging_has_begun(self) -> None:
        """It is still that of the process, as the log may be a file."""
        process = io.StringIO()
        self.patch(sys, "__stderr__", process)
        self.patch(sys, "stderr", LoggingFile(logger=Logger(observer=lambda event: None)))
        self.assertIs(exiting.standard_error(), process)
        self.patch(sys, "__stderr__", None)  # there is none under pythonw
        self.assertIs(exiting.standard_error(), sys.stderr)
        other = io.StringIO()
        self.patch(sys, "stderr", other)
        self.assertIs(exiting.standard_error(), other)

    def test_a_daemon_that_can_t_be_started(self) -> None:
        """twistd, which waits for the daemon's result, is told; no file with a process id stays."""
        read, write = os.pipe()
        self.addCleanup(os.close, read)
        pid_file = self.directory / "twistd.pid"
        pid_file.write_text("1")
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            self.patch(tap, "_reactor", lambda: reactor)
            service = self.service(
                edited(TUNNEL_SERVER, (f"{LISTENER}.address", address), ("servers[0].listeners[1]", GONE)),
                twistd={"nodaemon": False, "logfile": "-", "pidfile": str(pid_file)},
            )
            # It is known only when twistd has made a daemon of itself.
            cast(dict[str, Any], service.runner)["statusPipe"] = write
            with capture():
                self.exits(service.privilegedStartService)
        self.assertTrue(os.read(read, 100).startswith(b"1 listener clients can't listen on 127.0.0.1:"))
        self.assertEqual(os.read(read, 100), b"")
        self.assertFalse(pid_file.exists())

    def test_the_reactor_stops_on_sigterm_and_sigint(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            service = self.service(TUNNEL_SERVER)
            service.privilegedStartService()
            self.clock.running, self.clock.hasStopped = True, False  # type: ignore[assignment]
            with capture() as events:
                self.handlers[number]()
            self.assertTrue(self.clock.hasStopped)
            self.assertIn("asked to stop by a signal", events.text())
            self.signals.remove(service)
        # Before the reactor runs, there is nothing to stop.
        service = self.service(TUNNEL_SERVER)
        service.privilegedStartService()
        self.clock.running, self.clock.hasStopped = False, False  # type: ignore[assignment]
        self.handlers[signal.SIGTERM]()
        self.assertFalse(self.clock.hasStopped)

    def test_a_second_signal_cuts_the_end_short(self) -> None:
        service = self.service(TUNNEL_SERVER)
        service.privilegedStartService()
        cuts: list[int] = []
        self.patch(service, "cut_short", lambda: cuts.append(1))
        self.clock.running = True  # type: ignore[assignment]
        self.handlers[signal.SIGTERM]()
        self.assertEqual(cuts, [])
        self.clock.hasStopped = False  # type: ignore[assignment]
        self.handlers[signal.SIGINT]()
        self.assertEqual(cuts, [1])
        self.assertFalse(self.clock.hasStopped)

    def test_sigterm_is_taken_from_the_reactor_when_it_has_started(self) -> None:
        service = self.service(TUNNEL_SERVER)
        self.start(service)
        self.handlers.clear()
        [(call, arguments, keywords)] = self.clock.triggers["after"]["startup"]
        call(*arguments, **keywords)
        self.assertEqual(list(self.handlers), [signal.SIGTERM])

    def test_sigusr1_opens_the_logs_anew(self) -> None:
        log, access_log = self.directory / "proxy.log", self.directory / "access.log"
        service = self.service(
            edited(
                TUNNEL_SERVER,
                ("servers[0].default_log_path", str(log)),
                (f"{LISTENER}.access_logs", [{"log_path": str(access_log)}]),
            )
        )
        self.start(service)
        for path in (log, access_log):
            path.rename(path.with_suffix(".1"))
        self.handlers[signal.SIGUSR1]()
        self.assertTrue(log.exists())
        self.assertTrue(access_log.exists())

    def test_a_log_that_can_t_be_opened_anew_stays_in_use(self) -> None:
        directory = self.directory / "logs"
        log, access_log = directory / "proxy.log", self.directory / "access.log"
        service = self.service(
            edited(
                TUNNEL_SERVER,
                ("servers[0].default_log_path", str(log)),
                (f"{LISTENER}.access_logs", [{"log_path": str(access_log)}]),
            )
        )
        self.start(service)
        directory.rename(self.directory / "moved")
        directory.write_text("in the way")
        access_log.unlink()
        with capture() as events:
            self.handlers[signal.SIGUSR1]()
        self.assertIn("the old log file stays in use", events.text())
        self.assertTrue(access_log.exists())
        service.observer(events[0])
        self.assertIn("stays in use", (self.directory / "moved" / "proxy.log").read_text())

    def test_sighup_looks_for_new_certificates(self) -> None:
        certs = Certificates(self.directory)
        context = {"status": True, **certs.server.options}
        service = self.service(edited(TUNNEL_SERVER, (f"{CHAIN}.tls_context", context)))
        self.start(service)
        certs.issue("server", "localhost")
        with capture() as events:
            self.handlers[signal.SIGHUP]()
        self.assertIn("new certificates are in use", events.text())

    def test_sighup_reloads_the_configuration(self) -> None:
        service = self.service(TUNNEL_SERVER)
        self.start(service)
        level = service.observer.level
        self.write(
            edited(TUNNEL_SERVER, ("servers[0].default_log_level", "DEBUG"), (f"{CLUSTER}.name", "other"))
        )
        with capture() as events:
            self.handlers[signal.SIGHUP]()
        self.assertIn("is in use, generation 2: clusters: 1 added, 1 removed", events.text())
        self.assertIn("other", service.clusters)
        self.assertEqual((level, service.observer.level), ("INFO", "DEBUG"))
        self.write("{")
        with capture() as events:
            self.handlers[signal.SIGHUP]()
        self.assertIn("is not taken into use, and that of generation 2 stays", events.text())
        (self.directory / "config.json").unlink()
        with capture() as events:
            self.handlers[signal.SIGHUP]()
        self.assertIn("can't be read", events.text())

    def test_a_level_of_the_command_line_stays(self) -> None:
        service = self.service(TUNNEL_SERVER, "--log-level", "warn")
        self.start(service)
        self.write(edited(TUNNEL_SERVER, ("servers[0].default_log_level", "DEBUG")))
        self.handlers[signal.SIGHUP]()
        self.assertEqual(service.observer.level, "WARN")

    def test_the_quickstart_says_what_to_try(self) -> None:
        self.patch(sys, "__stdout__", self.out)
        service = makeService(self.options("--quickstart"))
        assert isinstance(service, SingleProcessService)
        self.start(service)
        [cluster] = service.clusters
        cluster.hosts["10.0.0.1:1"] = None  # type: ignore[assignment]
        self.clock.advance(1)
        self.assertIn("Try it:  curl http://", self.out.getvalue())
        cluster.hosts.clear()

    def test_without_the_quickstart_nothing_is_said(self) -> None:
        self.patch(sys, "__stdout__", self.out)
        service = self.service(TUNNEL_SERVER)
        self.start(service)
        self.clock.advance(1)
        self.assertEqual(self.out.getvalue(), "")


class SignalTests(TestCase):
    async def test_a_signal_is_taken_in_the_reactor_s_turn(self) -> None:
        self.addCleanup(signal.signal, signal.SIGUSR2, signal.getsignal(signal.SIGUSR2))
        calls: list[int] = []
        Signals(lambda: reactor).on(signal.SIGUSR2, lambda: calls.append(1))
        os.kill(os.getpid(), signal.SIGUSR2)
        while not calls:
            await deferLater(reactor, 0.001)
        self.assertEqual(calls, [1])


class DaemonTests(TestCase):
    """The real thing, in the background."""

    async def twistd(self, *arguments: str) -> tuple[bytes, bytes, int]:
        code = "from twisted.scripts.twistd import run; run()"
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        found: tuple[bytes, bytes, int] = await getProcessOutputAndValue(
            sys.executable, ("-c", code, *arguments), environ, str(self.directory)
        )
        return found

    async def until(self, true: Callable[[], object]) -> None:
        while not true():
            await deferLater(reactor, 0.01)

    async def end(self, pid_file: Path) -> None:
        """End the daemon, if it still runs."""
        if pid_file.exists():
            os.kill(int(pid_file.read_text()), signal.SIGTERM)
            await self.until(lambda: not pid_file.exists())

    async def test_a_daemon(self) -> None:
        self.directory = Path(self.mktemp()).resolve()
        self.directory.mkdir()
        document = edited(TUNNEL_SERVER, (f"{LISTENER}.address", "127.0.0.1:0"))
        document["servers"][0]["listeners"][1]["address"] = "127.0.0.1:0"
        (self.directory / "config.json").write_text(json.dumps(document))
        pid_file, log = self.directory / "twistd.pid", self.directory / "twistd.log"
        self.addCleanup(self.end, pid_file)
        out, err, status = await self.twistd("reverseproxy", "--config", "config.json")
        self.assertEqual((out, err, status), (b"", b"", 0))
        # The file's "stdout" is nothing that a daemon has.
        await self.until(lambda: log.exists() and log.read_text().count(" listening on 127.0.0.1:") == 2)
        rotated = log.with_suffix(".1")
        log.rename(rotated)
        os.kill(int(pid_file.read_text()), signal.SIGUSR1)
        await self.until(log.exists)
        await self.end(pid_file)
        self.assertIn("app: stopped", log.read_text())
        self.assertNotIn("app: stopped", rotated.read_text())


class WorkersTests(TapTestCase):
    """Several processes; those of the workers are never run."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(self.signals, "on", lambda *_: None)

    def test_a_service_manager_hears_of_reloads(self) -> None:
        """With workers as without."""
        for arguments in ((), ("--workers", "2")):
            events: list[str] = []
            service: Any = makeService(self.options("--config", self.write(TUNNEL_SERVER), *arguments))
            self.addCleanup(service.observer.close)
            self.patch(service.lifecycle, "reloading", partial(events.append, "reloading"))
            self.patch(service.lifecycle, "reloaded", lambda status, to=events: to.append("reloaded"))
            self.assertTrue(self.successResultOf(service.reload()).successful)
            self.assertEqual(events, ["reloading", "reloaded"])

    def workers(self, *arguments: str, processor: object = None) -> int:
        document = TUNNEL_SERVER if processor is None else edited(TUNNEL_SERVER, (PROCESSOR, processor))
        return self.options("--config", self.write(document), *arguments).workers

    def test_how_many(self) -> None:
        self.assertEqual(self.workers(), 1)
        self.assertEqual(self.workers("--workers", "3"), 3)
        self.assertEqual(self.workers(processor=4), 4)
        self.assertEqual(self.workers(processor="4"), 4)
        self.assertEqual(self.workers(processor=0), 1)
        self.assertEqual(self.workers("--workers", "2", processor=4), 2)
        self.assertEqual(self.workers("--workers", "auto"), self.workers(processor="auto"))

    def test_what_is_no_number(self) -> None:
        for value in ("0", "-1", "65", "many", ""):
            error = self.assertRaises(UsageError, self.workers, "--workers", value)
            self.assertIn("--workers: the number of workers must be from 1 to 64, or auto", str(error))
        for processor in (-1, 65):
            self.err.truncate(0)
            with self.subTest(processor=processor):
                error = self.assertRaises(SystemExit, self.workers, processor=processor)
                self.assertEqual(error.code, 1)
                self.assertIn("servers[0].processor: expected a number from 1 to 64", self.err.getvalue())

    def test_a_reload_with_a_wrong_number(self) -> None:
        """It is refused as at the start, with all else that is wrong, unless an option counts instead."""
        for arguments, wrong in (((), True), (("--workers", "1"), False)):
            service: Any = makeService(self.options("--config", self.write(TUNNEL_SERVER), *arguments))
            self.addCleanup(service.observer.close)
            self.write(edited(TUNNEL_SERVER, (PROCESSOR, 65)))
            report = self.successResultOf(service.reload())
            self.assertEqual([each.path for each in report.problems], [PROCESSOR] * wrong)
            self.write(edited(TUNNEL_SERVER, (PROCESSOR, 65), (f"{CLUSTER}.lb_type", 7)))
            report = self.successResultOf(service.reload())
            self.assertEqual(
                {each.path for each in report.problems}, {f"{CLUSTER}.lb_type", *[PROCESSOR] * wrong}
            )

    def test_other_configurations_are_parsed_in_a_thread(self) -> None:
        called: list[Any] = []
        self.patch(tap, "_in_thread", lambda call, *arguments: called.append(call) or call(*arguments))
        service: Any = makeService(self.options("--config", self.write(TUNNEL_SERVER)))
        self.addCleanup(service.observer.close)
        loaded = service.living.reloading.parse(yaml.safe_dump(TUNNEL_SERVER), "a body", True)
        self.assertEqual(called, [tap._parse_another])
        self.assertEqual(loaded.config.server.listeners[0].name, "clients")

    def supervising(self, document: Any, *arguments: str, twistd: dict[str, Any] | None = None) -> Any:
        options = self.options("--config", self.write(document), "--workers", "2", *arguments, twistd=twistd)
        service = makeService(options)
        assert isinstance(service, SupervisorService)
        self.addCleanup(service.observer.close)
        return service

    def test_what_workers_are_told(self) -> None:
        self.patch(tap, "_reactor", lambda: reactor)
        service = self.supervising(
            edited(TUNNEL_SERVER, ("servers[0].lisseners", []), (f"{CLUSTER}.conn_buffer_limit_bytes", 1)),
            *("--log-format", "json", "--transport", "stock"),
            twistd={"nodaemon": True, "uid": 1, "gid": 2, "euid": False},
        )
        self.assertEqual(len(service.slots), 2)
        self.assertEqual(service._starter._command, [sys.executable, "-c", tap._WORKER])
        self.assertEqual(service._starter._owner, (1, 2))
        settings = {**service._starter._settings, **service._starter.log_settings()}
        *log, per_hour = settings["log"]
        self.assertEqual(log, ["stdout", "INFO", "json"])
        self.assertEqual(round(per_hour), 333_333)  # of two workers and this process
        service.observer.level = "ERROR"  # as an operator demands, or another configuration
        self.assertEqual(service._starter.log_settings()["log"][1], "ERROR")
        self.assertEqual((settings["transport"], settings["quickstart"]), ("stock", False))
        self.assertEqual(settings["user"], {"uid": 1, "gid": 2, "euid": False})
        self.assertEqual(settings["reactor"], type(reactor).__module__)
        self.assertIn("lisseners", str(service.warnings))
        self.assertIn("conn_buffer_limit_bytes", str(service.notes))

    def test_what_is_wrong_is_found_before_any_is_run(self) -> None:
        document = edited(AGENT, (f"{CONFIG}.credential_policy", "nobody-knows"))
        status, _, err = self.exits(self.supervising, document)
        self.assertEqual(status, 1)
        self.assertIn("there is no credential policy 'nobody-knows'", err)

    def test_another_root(self) -> None:
        options = self.options(
            *("--config", self.write(TUNNEL_SERVER), "--workers", "2"), twistd={"chroot": "/"}
        )
        status, _, err = self.exits(makeService, options)
        self.assertEqual(status, 1)
        self.assertIn("leave --chroot out", err)

    def test_another_version_is_installed(self) -> None:
        """A worker of it ends with a status of its own, and says which versions there are."""

        def receive(channel: socket.socket) -> None:
            self.assertEqual(channel.fileno(), number)
            raise VersionMismatch("the installed version, 2, is not the supervisor's, 1")

        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        number = theirs.detach()
        self.patch(control, "CONTROL_FD", number)
        self.patch(orphan, "end_with_parent", lambda: None)
        self.patch(control, "receive_setup", receive)
        status, _, err = self.exits(tap.work)
        self.assertEqual(
            (status, err),
            (OTHER_VERSION, "worker: the installed version, 2, is not the supervisor's, 1\n"),
        )

    def test_parts_that_can_not_be_imported(self) -> None:
        """A reload that needs them is refused, with a remedy."""

        def fail(config: object) -> None:
            raise ModuleNotFoundError("No module named 'prometheus_client'")

        path = self.write(TUNNEL_SERVER)
        self.assertEqual(tap._load_again(path).config.server.listeners, load(path).config.server.listeners)
        self.patch(tap, "import_parts", fail)
        with self.assertRaises(ConfigError) as caught:
            tap._load_again(path)
        [problem] = caught.exception.problems
        self.assertEqual(problem.file, path)
        self.assertIn("No module named 'prometheus_client'; start the process again", problem.message)

    def test_giving_up(self) -> None:
        ends: list[Callable[[], object]] = []
        statuses: list[int] = []
        self.patch(atexit, "register", ends.append)
        self.patch(exiting, "exit_now", statuses.append)
        self.clock.running, self.clock.hasStopped = True, False  # type: ignore[assignment]
        tap._give_up()
        self.assertTrue(self.clock.hasStopped)
        [end] = ends
        end()
        self.assertEqual(statuses, [1])

    def test_whose_the_workers_are(self) -> None:
        self.assertIsNone(owner_of({"uid": None, "gid": None}))
        self.assertEqual(owner_of({"uid": os.getuid(), "gid": None})[0], os.getuid())  # type: ignore[index]
        self.assertEqual(owner_of({"uid": None, "gid": 5}), (-1, 5))
