"""Tests for L{reverseproxy.fleet.forwarded_protocols} and L{reverseproxy.fleet.outcome_reports}."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.cluster.building import make_cluster
from reverseproxy.cluster.health.outcome import Outcome
from reverseproxy.config.models import ClusterConfig
from reverseproxy.errors import WireError
from reverseproxy.fleet import forwarded_protocols, outcome_reports
from reverseproxy.fleet.forwarded_protocols import ForwardedProtocols
from reverseproxy.fleet.link_frames import StreamHeader
from reverseproxy.fleet.local_hosts import LocalHosts
from reverseproxy.fleet.observers import RequestObservers
from reverseproxy.fleet.outcome_reports import OutcomeReports

AGENT = "0" * 32


class FactoryTests(SynchronousTestCase):
    """The factory of an agent's protocol is made once for each cluster."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.protocols = ForwardedProtocols(LocalHosts(), self.clock, Random(1).random, RequestObservers())

    def cluster(self) -> Any:
        return make_cluster(ClusterConfig(name="app"), self.clock, Random(1))

    def test_kept(self) -> None:
        cluster, header = self.cluster(), StreamHeader("app", AGENT, "Http1")
        factory = self.protocols.factory_of(cluster, "b", header)
        self.assertIs(self.protocols.factory_of(cluster, "b", header), factory)
        self.assertIsNot(self.protocols.factory_of(cluster, "c", header), factory)
        self.assertEqual(len(self.protocols), 2)

    def test_another_cluster_of_the_name(self) -> None:
        """An agent that brings its cluster was away for so long that it was removed, and is back."""
        header = StreamHeader("app", AGENT, "Http1")
        before = self.protocols.factory_of(self.cluster(), "b", header)
        cluster = self.cluster()
        after = self.protocols.factory_of(cluster, "b", header)
        self.assertIsNot(after, before)
        self.assertIs(self.protocols.factory_of(cluster, "b", header), after)
        self.assertEqual(len(self.protocols), 1)

    def test_bounded(self) -> None:
        self.patch(forwarded_protocols, "_MOST_KEPT", 2)
        cluster = self.cluster()
        for server in "abcde":
            self.protocols.factory_of(cluster, server, StreamHeader("app", AGENT, "Http2"))
        self.assertLessEqual(len(self.protocols), 2)

    def test_unknown_protocol(self) -> None:
        with self.assertRaises(ValueError):
            self.protocols.factory_of(self.cluster(), "b", StreamHeader("app", AGENT, "gopher {"))
        self.assertEqual(len(self.protocols), 0)


class _Ejector:
    watches_answers = True

    def __init__(self) -> None:
        self.noted: list[Any] = []

    def note(self, host: Any, outcome: Outcome) -> None:
        """Take the place of a cluster's ejector."""
        self.noted.append((host.name, outcome))


class _Host:
    def __init__(self, name: str, cluster: Any) -> None:
        self.name = name
        self.cluster = cluster


class ReportTests(SynchronousTestCase):
    """What another server says of an agent goes to the connection that has served it."""

    def setUp(self) -> None:
        self.ejector = _Ejector()
        cluster: Any = type("Cluster", (), {"name": "app", "ejector": self.ejector})()
        self.cluster = cluster
        self.reports = OutcomeReports()
        self.note("b", "one")

    def note(self, server: str, name: str) -> None:
        host: Any = _Host(name, self.cluster)
        self.reports.note(server, self.cluster, AGENT, host)

    def report(self, server: str, **more: Any) -> None:
        message = {"cluster": "app", "agent": AGENT, "outcome": int(Outcome.RESET)}
        self.reports.received(server, {**message, **more})

    def test_last_host(self) -> None:
        self.note("b", "two")
        self.note("c", "three")
        self.report("b")
        self.report("c")
        self.report("nobody")
        self.assertEqual(self.ejector.noted, [("two", Outcome.RESET), ("three", Outcome.RESET)])

    def test_malformed(self) -> None:
        for wrong in ({"cluster": 1}, {"agent": None}, {"outcome": True}, {"outcome": 99}, {"outcome": "1"}):
            self.assertRaises(WireError, self.report, "b", **wrong)
        self.report("b", outcome=None)  # something of later versions
        self.assertEqual(self.ejector.noted, [])

    def test_bounded(self) -> None:
        self.patch(outcome_reports, "_MOST_KEPT", 2)
        for server in "cde":
            self.note(server, "x")
        self.report("b")
        self.report("e")
        self.assertEqual(self.ejector.noted, [("x", Outcome.RESET)])
