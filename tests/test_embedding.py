"""Tests for the names that other programs import."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.protocol import Factory
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

import reverseproxy
from reverseproxy import ConfigError, Event, Metric, Problem, Proxy, Report, State, fast_reactor
from reverseproxy.testing import MemoryReactor, Recorder, run
from tests.integration.configs import quick_agent, server

NAMES = {
    "ConfigError",
    "Event",
    "Metric",
    "Problem",
    "Proxy",
    "Report",
    "State",
    "__version__",
    "fast_reactor",
}

METHODS = {
    "addresses",
    "clusters",
    "endpoint",
    "from_dict",
    "from_file",
    "metrics",
    "on_event",
    "reload",
    "servers",
    "service",
    "start",
    "state",
    "stop",
}

FIELDS = {
    Event: ["kind", "time", "cluster", "host", "identity", "reason", "facts"],
    Metric: ["name", "labels", "value"],
    Problem: ["file", "path", "message"],
}


class NameTests(SynchronousTestCase):
    """What is promised; whoever changes this changes programs of others."""

    def test_names(self) -> None:
        self.assertEqual(set(reverseproxy.__all__), NAMES)
        for name in NAMES:
            self.assertIsNotNone(getattr(reverseproxy, name))
        self.assertLessEqual(NAMES, set(dir(reverseproxy)))
        self.assertRaises(AttributeError, getattr, reverseproxy, "nothing")

    def test_members(self) -> None:
        members = {name for name in vars(Proxy) if not name.startswith("_")}
        self.assertEqual(members, METHODS)
        for kind, names in FIELDS.items():
            self.assertEqual(list(inspect.signature(kind).parameters), names)  # type: ignore[arg-type]
        self.assertEqual([each.value for each in State], ["new", "running", "stopping", "stopped"])
        for name in METHODS | {"from_file"}:
            self.assertTrue(inspect.getdoc(getattr(Proxy, name)), name)

    def test_documented(self) -> None:
        page = (Path(__file__).parent.parent / "docs" / "embedding.rst").read_text()
        for name in NAMES - {"__version__"}:
            self.assertIn(f":: reverseproxy.{name}\n", page)

    def test_a_program_that_only_looks_for_plugins_imports_little(self) -> None:
        code = (
            "import sys; from twisted.internet.endpoints import serverFromString; import reverseproxy;"
            "serverFromString(None, 'tcp:0');"
            "sys.exit(any(name.startswith('reverseproxy.') for name in sys.modules))"
        )
        root = Path(reverseproxy.__file__).resolve().parent.parent
        done = subprocess.run([sys.executable, "-c", code], check=False, cwd=root)
        self.assertEqual(done.returncode, 0)


class ProxyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactor()
        self.document = server(client="127.0.0.1:80", tunnel="127.0.0.1:81", kind="tcp")
        self.proxy = Proxy.from_dict(self.document, self.reactor, random=Random(1))
        self.addCleanup(self.pass_time, 40)
        self.addCleanup(lambda: self.proxy.stop() and None)

    def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds * 4)):
            self.reactor.advance(0.25)

    def agent(self) -> Any:
        agent = run(quick_agent(81), self.reactor)
        self.addCleanup(agent.stopService)
        self.pass_time(2)
        return agent

    def test_from_start_to_end(self) -> None:
        proxy = self.proxy
        self.assertEqual((proxy.state, proxy.addresses), (State.NEW, {}))
        proxy.start()
        self.assertIs(proxy.state, State.RUNNING)
        self.assertEqual(
            proxy.addresses, {"clientListener": "127.0.0.1:80", "tunnelListener": "127.0.0.1:81"}
        )
        self.assertRaises(RuntimeError, proxy.start)
        client = self.reactor.dial("127.0.0.1", 80, Recorder())  # waits for an agent
        stopping, again = proxy.stop(), proxy.stop()
        self.assertIs(proxy.state, State.STOPPING)
        client.transport.loseConnection()
        self.pass_time(40)
        self.successResultOf(stopping)
        self.successResultOf(again)
        self.assertIs(proxy.state, State.STOPPED)
        self.successResultOf(proxy.stop())
        self.assertRaises(RuntimeError, proxy.start)
        self.assertEqual(self.reactor.ports, {})

    def test_never_started(self) -> None:
        self.successResultOf(self.proxy.stop())
        self.assertIs(self.proxy.state, State.STOPPED)

    def test_file(self) -> None:
        file = Path(self.mktemp())
        file.write_text(json.dumps(self.document))
        proxy = Proxy.from_file(str(file), self.reactor)
        self.assertEqual(proxy.warnings, ())
        error = self.assertRaises(ConfigError, Proxy.from_file, "/none", self.reactor)
        self.assertIn("/none", str(error))
        error = self.assertRaises(ConfigError, Proxy.from_dict, {"servers": []}, self.reactor, "mine")
        self.assertIn("mine", str(error))

    def test_events_and_numbers(self) -> None:
        events: list[Event] = []
        self.proxy.start()
        self.agent()
        end = self.proxy.on_event(events.append)
        self.proxy.on_event(lambda event: 1 / 0)  # which is nobody else's matter
        self.assertEqual(self.proxy.clusters, {"clientCluster": 1})
        self.agent()
        self.assertEqual([event.kind for event in events], ["join"])
        self.assertEqual((events[0].cluster, events[0].identity), ("clientCluster", "unproved"))
        end()
        end()
        self.agent()
        self.assertEqual(len(events), 1)
        self.assertEqual(self.proxy.clusters, {"clientCluster": 3})
        numbers = {each.name: each.value for each in self.proxy.metrics()}
        self.assertEqual(numbers["reverseproxy_build_info"], 1)
        self.assertGreater(numbers["reverseproxy_uptime_seconds"], 0)
        self.proxy.stop()
        self.pass_time(40)
        self.assertGreater(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_servers(self) -> None:
        self.proxy.start()
        agent = Proxy.from_dict(quick_agent(81), self.reactor)
        agent.start()
        self.addCleanup(lambda: agent.stop() and None)
        self.assertEqual(agent.servers, {"127.0.0.1:81": 0})
        self.pass_time(2)
        self.assertEqual(agent.servers, {"127.0.0.1:81": 1})

    def test_endpoint(self) -> None:
        self.proxy.start()
        self.agent()
        factory = Factory.forProtocol(Recorder)
        factory.noisy = False
        connecting = self.proxy.endpoint("clientCluster").connect(factory)
        self.pass_time(1)
        client: Any = self.successResultOf(connecting)
        client.transport.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        self.pass_time(1)
        self.assertIn(b"answered by the agent", bytes(client.data))
        client.transport.loseConnection()

    def test_reload(self) -> None:
        self.proxy.start()
        report = self.successResultOf(self.proxy.reload({**self.document, "servers": []}))
        self.assertIsInstance(report, Report)
        self.assertFalse(report.successful)
        more = json.loads(json.dumps(self.document))
        more["cluster_manager"]["clusters"].append({"name": "another"})
        report = self.successResultOf(self.proxy.reload(more))
        self.assertTrue(report.successful)
        self.assertEqual(self.proxy.clusters, {"clientCluster": 0, "another": 0})

    def test_service(self) -> None:
        services = MultiService()
        self.proxy.service.setServiceParent(services)
        services.startService()
        self.assertEqual(len(self.proxy.addresses), 2)
        stopping = services.stopService()
        self.pass_time(2)
        self.successResultOf(stopping)

    def test_reactors(self) -> None:
        self.assertIs(fast_reactor(self.reactor), self.reactor)
        from twisted.application.service import IService

        verifyObject(IService, self.proxy.service)
