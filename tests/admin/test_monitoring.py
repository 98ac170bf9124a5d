"""Alert rules and the dashboard speak of metrics that there are, with labels that they have."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml
from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from tests.admin.world import World

MONITORING = Path(__file__).resolve().parent.parent.parent / "docs" / "monitoring"
WORKERS = {"reverseproxy_worker_up", "reverseproxy_worker_restarts_total"}
LABELS = re.compile(r"\b(?:by|on) \(([^)]*)\)")


class MonitoringTests(SynchronousTestCase):
    def setUp(self) -> None:
        world = World()
        world.agent()
        world.request()
        text = world.ask("/metrics").body.decode()
        self.known = set(WORKERS)
        self.labels = {"worker", "le", "reason", "server", "name", "use"}
        for family in text_string_to_metric_families(text):
            self.known |= {f"{family.name}{suffix}" for suffix in ("", "_total", "_bucket", "_sum", "_count")}
            self.labels |= {label for sample in family.samples for label in sample.labels}

    def check(self, expressions: list[str]) -> None:
        for expression in expressions:
            names = set(re.findall(r"reverseproxy_\w+", expression))
            self.assertTrue(names, expression)
            self.assertEqual(names - self.known, set(), expression)
            labels = {label.strip() for group in LABELS.findall(expression) for label in group.split(",")}
            self.assertEqual(labels - self.labels, set(), expression)

    def test_alerts(self) -> None:
        document = yaml.safe_load((MONITORING / "alerts.yaml").read_text())
        rules = [rule for group in document["groups"] for rule in group["rules"]]
        self.assertGreater(len(rules), 5)
        self.check([rule["expr"] for rule in rules])

    def test_dashboard(self) -> None:
        document = json.loads((MONITORING / "grafana.json").read_text())
        targets = [target for panel in document["panels"] for target in panel["targets"]]
        self.assertGreater(len(targets), 10)
        self.check([target["expr"] for target in targets])
