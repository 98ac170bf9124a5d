"""Alert rules and the dashboard speak of metrics that there are, with labels that they have."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import yaml
from cryptography import x509
from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.admin.exposition import Exposition
from reverseproxy.admin.families import merge
from reverseproxy.admin.slices import at_once
from reverseproxy.app import ReverseProxy
from reverseproxy.fleet.outgoing_link import LinkPhase
from reverseproxy.testing import MemoryReactor, run
from reverseproxy.tls.validity import of_certificate, of_revocation_list
from tests.admin.world import World
from tests.certs import Certificates
from tests.fleet.worlds import FleetWorld
from tests.integration import configs

MONITORING = Path(__file__).resolve().parent.parent.parent / "docs" / "monitoring"
WORKERS = {"reverseproxy_worker_up", "reverseproxy_worker_restarts_total"}
DOCUMENTED = re.compile(r"``(reverseproxy_\w+)(?:\{([^}]*)\})?``")
LABELS = re.compile(r"\b(?:by|on) \(([^)]*)\)")


def metrics() -> list[str]:
    """What a server says that has an agent, and what that says."""
    world = World()
    agent = world.agent()
    world.request()
    texts = [world.ask(path).body.decode() for path in ("/metrics", "/metrics/agents")]
    return [*texts, said(agent), *fleets()]


def said(process: ReverseProxy) -> str:
    """What a process says of itself."""
    families = at_once(merge([process.inspector.answer("metrics", {})]))
    return at_once(Exposition().encode(families, ""))[0].decode()


def fleets() -> list[str]:
    """What a server says that has a link to another one, and one that has a directory."""
    fleet = FleetWorld()
    linked, _ = fleet.server("a"), fleet.server("b")
    document = configs.server(client="127.0.0.1:1", tunnel="127.0.0.1:2")
    document["fleet"] = {
        "server_id": "c",
        "etcd": {"endpoints": ["127.0.0.1:3"]},
        "peers": {"address": "127.0.0.1:4"},
    }
    texts = [said(linked), said(run(document, MemoryReactor()))]
    fleet.stop()
    return texts


class MonitoringTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.text = "".join(metrics())
        self.known = set(WORKERS)
        self.labels = {"worker", "le", "reason", "server", "name", "use", "instance", "result"}
        for family in text_string_to_metric_families(self.text):
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
        names = {rule["alert"] for rule in rules}
        self.assertLessEqual({"ReverseproxyFleetDirectoryDown", "ReverseproxyFleetLinkDown"}, names)

    def test_dashboard(self) -> None:
        document = json.loads((MONITORING / "grafana.json").read_text())
        targets = [target for panel in document["panels"] for target in panel.get("targets", [])]
        self.assertGreater(len(targets), 10)
        self.check([target["expr"] for target in targets])
        self.assertEqual(len({panel["id"] for panel in document["panels"]}), len(document["panels"]))
        [fleet] = [panel for panel in document["panels"] if panel["type"] == "row"]
        below = [panel for panel in document["panels"] if panel["gridPos"]["y"] > fleet["gridPos"]["y"]]
        self.assertGreaterEqual(len(below), 3)
        for panel in below:
            self.assertIn("reverseproxy_fleet_", panel["targets"][0]["expr"])
        places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in document["panels"]}
        self.assertEqual(len(places), len(document["panels"]))

    def test_expiry(self) -> None:
        """Revocation lists, which are replaced each week or each day, have an alert of their own."""
        document = yaml.safe_load((MONITORING / "alerts.yaml").read_text())
        rules = {rule["alert"]: rule["expr"] for group in document["groups"] for rule in group["rules"]}
        [unlike] = re.findall(r'name!~"([^"]*)"', rules["ReverseproxyCertificateExpires"])
        [like] = re.findall(r'name=~"([^"]*)"', rules["ReverseproxyRevocationListExpires"])
        certificates = Certificates(self.mktemp())
        revoked = x509.load_pem_x509_crl(Path(certificates.revoke()).read_bytes())
        issued = x509.load_pem_x509_certificate(Path(certificates.ca).read_bytes())
        for pattern in (like, unlike):
            self.assertRegex(of_revocation_list(revoked, "crl").name, f"^(?:{pattern})$")
            self.assertNotRegex(of_certificate(issued, "cert_chain").name, f"^(?:{pattern})$")

    def test_states_of_links(self) -> None:
        """What alerts and panels call them is what they are called."""
        self.assertIn('state="up"', self.text)
        self.assertEqual(LinkPhase.UP.value, "up")

    def test_the_documentation(self) -> None:
        """It names every metric, with all its labels, and no other."""
        documented: dict[str, set[str]] = {}
        for name, labels in DOCUMENTED.findall((MONITORING.parent / "admin.rst").read_text()):
            documented.setdefault(name, set()).update(each.strip() for each in labels.split(",") if each)
        per_agent = {name for name in documented if name.startswith("reverseproxy_per_agent")}
        there: dict[str, set[str]] = {name: {"worker"} for name in WORKERS}
        for line in self.text.splitlines():
            if line.startswith("# TYPE") and not line.split()[2].startswith("reverseproxy_per_agent"):
                there.setdefault(line.split()[2], set())
        for family in text_string_to_metric_families(self.text):
            for sample in family.samples:
                base = family.name + ("_total" if family.type == "counter" else "")
                there.get(base, set()).update(set(sample.labels) - {"le"})
        self.assertEqual({*documented} - per_agent - {*there}, set())
        self.assertEqual({*there} - {*documented}, set())
        unsaid = {
            name: labels - documented[name] for name, labels in there.items() if labels - documented[name]
        }
        self.assertEqual(unsaid, {})


if shutil.which("promtool"):

    class PromtoolTests(SynchronousTestCase):
        """Prometheus' own tool, where it is installed: C{.ci/run} says where it is not."""

        def run_tool(self, *arguments: str, text: str = "") -> None:
            done = subprocess.run(
                ["promtool", *arguments], input=text, capture_output=True, text=True, timeout=60, check=False
            )
            self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)

        def test_metrics(self) -> None:
            for text in metrics():
                self.run_tool("check", "metrics", text=text)

        def test_rules(self) -> None:
            self.run_tool("check", "rules", str(MONITORING / "alerts.yaml"))

        def test_configuration(self) -> None:
            self.run_tool("check", "config", str(MONITORING / "prometheus.yaml"))
