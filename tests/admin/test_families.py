"""Tests for L{reverseproxy.admin.families}, C{exposition}, C{redaction} and C{config_dump}."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.admin import config_dump
from reverseproxy.admin.exposition import MAX_KEPT, PORTION, Exposition
from reverseproxy.admin.families import Family, merge, to_json
from reverseproxy.admin.redaction import REDACTED, redact
from reverseproxy.admin.routes import Routes
from reverseproxy.admin.slices import Steps, at_once
from reverseproxy.config.loader import loads
from reverseproxy.config.models import AdminCertificateConfig
from reverseproxy.metrics import Histogram
from tests.admin.world import STATIC
from tests.integration.configs import server


def families() -> list[Family]:
    histogram = Histogram((0.1, 1.0))
    for seconds in (0.05, 0.5, 5.0):
        histogram.note(seconds)
    counter = Family("x_requests_total", "counter", "Requests.", ("cluster",))
    counter.add(2, "blue")
    counter.add(3, "blue")
    counter.add(1, 'gr"een\n')
    gauge = Family("x_open", "gauge", "Open.")
    gauge.add(4)
    largest = Family("x_up", "largest", "Up.")
    largest.add(7)
    times = Family("x_seconds", "histogram", "Times.", ("cluster",))
    times.add(histogram, "blue")
    many = Family("x_many_total", "counter", "Many.", ("number",))
    for number in range(3 * PORTION):
        many.add(number, f"{number}\n# {number}")
    return [counter, gauge, largest, times, many]


class FamilyTests(SynchronousTestCase):
    def test_merging(self) -> None:
        """What several processes have counted is added up; of some gauges the largest counts."""
        one = json.loads(json.dumps(at_once(to_json(families()))))
        other = json.loads(json.dumps(at_once(to_json(families()))))
        other[2]["samples"][0][1] = 5
        other[0]["samples"] = [[["red"], 9]]
        counter, gauge, largest, times, _ = at_once(merge([one, other]))
        self.assertEqual(counter.samples, {("blue",): 5, ('gr"een\n',): 1, ("red",): 9})
        self.assertEqual(gauge.samples, {(): 8})
        self.assertEqual(largest.samples, {(): 7})
        [sample] = times.samples.values()
        assert isinstance(sample, dict)
        self.assertEqual((sample["counts"], sample["total"]), ([2, 2, 2], 11.1))

    def test_text(self) -> None:
        body, content_type = at_once(Exposition().encode(families(), ""))
        self.assertTrue(content_type.startswith("text/plain"))
        self.check(parse_text(body.decode()))
        self.assertEqual(body.count(b"# TYPE x_many_total"), 1)

    def test_openmetrics(self) -> None:
        body, content_type = at_once(
            Exposition().encode(families(), "application/openmetrics-text; version=1.0.0")
        )
        self.assertTrue(content_type.startswith("application/openmetrics-text"))
        self.check(parse_openmetrics(body.decode()))

    def test_texts_that_are_kept(self) -> None:
        """A later scrape gets what it would get from the first one, in whichever format, changed or not."""
        exposition = Exposition()
        formats = ("", "application/openmetrics-text; version=1.0.0")
        for change in range(3):
            for accept in formats:
                for _ in range(2):
                    found = families()
                    found[0].add(change, "blue")
                    found[1].samples = {} if change == 1 else {(): change}
                    found[3].add(Histogram((0.1, 1.0)), *[f"cluster-{change}"])
                    expected = at_once(Exposition().encode(copy.deepcopy(found), accept))
                    self.assertEqual(at_once(exposition.encode(found, accept)), expected)

    def test_texts_are_bounded(self) -> None:
        exposition = Exposition()
        for number in range(2 * MAX_KEPT):
            at_once(exposition.encode([Family(f"x{number}", "gauge", "X.")], ""))
        self.assertLessEqual(len(exposition._known), MAX_KEPT)

    def test_formats_that_clients_accept(self) -> None:
        """A version that is none is as if the format were unknown; neither fails."""
        for accept in (
            "text/plain; version=abc",
            "text/plain; version=1.x",
            "application/openmetrics-text; version=latest",
            "application/openmetrics-text; version=" + "9" * 5000,
            "application/openmetrics-text; version=1.0.0; escaping=nonsense",
            "application/openmetrics-text;version=\udcff",
            "*/*, ;;=,",
        ):
            body, content_type = at_once(Exposition().encode(families(), accept))
            self.assertIn(b"# TYPE x_open gauge\nx_open 4.0\n", body, accept)
            self.assertIn("charset=utf-8", content_type)

    def test_names_that_are_no_unicode(self) -> None:
        family = Family("x_up", "gauge", "Up.", ("name",))
        family.add(1, "a\ud800b\r\x00\u20ac")
        for accept in ("", "application/openmetrics-text; version=1.0.0"):
            body, _ = at_once(Exposition().encode([family], accept))
            self.assertIn('x_up{name="a\\\\ud800b\r\x00\u20ac"} 1.0\n'.encode(), body)

    def test_steps_are_short(self) -> None:
        """Also of histograms, each of which has many lines, and however many samples a family has."""
        times = Family("x_seconds", "histogram", "Times.", ("cluster",))
        for number in range(2 * PORTION):
            times.add(Histogram(), str(number))
        steps = Exposition().encode([times, *families()], "")
        self.assertGreater(sum(1 for _ in steps), 2 * PORTION)
        self.assertEqual(times.samples, {})

    def check(self, found: Any) -> None:
        samples = {
            (s.name, tuple(sorted(s.labels.items()))): s.value for family in found for s in family.samples
        }
        self.assertEqual(samples["x_requests_total", (("cluster", "blue"),)], 5)
        self.assertEqual(samples["x_requests_total", (("cluster", 'gr"een\n'),)], 1)
        self.assertEqual(samples["x_open", ()], 4)
        many = {labels[0][1]: value for (name, labels), value in samples.items() if name == "x_many_total"}
        self.assertEqual(many, {f"{number}\n# {number}": number for number in range(3 * PORTION)})
        blue = ("cluster", "blue")
        buckets = [value for (name, _), value in samples.items() if name == "x_seconds_bucket"]
        self.assertEqual(sorted(buckets), [1, 2, 3])
        self.assertEqual(samples["x_seconds_count", (blue,)], 3)
        self.assertApproximates(samples["x_seconds_sum", (blue,)], 5.55, 1e-9)


class RedactionTests(SynchronousTestCase):
    def test_secrets(self) -> None:
        document = {
            "credential_policy": "static",
            "credential_config": {"token": "abc"},
            "validators": {"static": {"tokens": [{"agent": "a", "token": "abc"}], "file": "/t.json"}},
            "tokens_file": "/tokens.json",
            "private_key": "/key.pem",
            "list": [{"private_key": "-----BEGIN PRIVATE KEY-----abc"}, "-----BEGIN PRIVATE KEY-----abc"],
            "url": "https://me:abc@example.com/abd",
            "Password": "abc",
            "api_key": "abc",
            "x-api-key": "abc",
            "tracing": {"config": {"headers": {"x-honeycomb-team": "abc"}}},
            "token": "",
            "cert_chain": "-----BEGIN CERTIFICATE-----",
            "number": 5,
        }
        found = redact(document)
        self.assertNotIn("abc", json.dumps(found))
        self.assertEqual(found["validators"]["static"]["file"], "/t.json")
        self.assertEqual(found["url"], f"https://{REDACTED}@example.com/abd")
        for key in ("credential_policy", "tokens_file", "private_key", "cert_chain", "number", "token"):
            self.assertEqual(found[key], document[key])

    def test_header_fields(self) -> None:
        """Their names are values, and tell whether theirs are secret."""
        for names in ({"key": "Authorization"}, {"name": "X-Api-Key"}, {"name": "cookie", "regex": True}):
            found = redact([{"header": {**names, "value": "abc"}, "append": False}])
            self.assertEqual(found, [{"header": {**names, "value": REDACTED}, "append": False}])
        for harmless in ({"name": "x-env", "value": "abc"}, {"name": "Authorization", "value": ""}):
            self.assertEqual(redact(harmless), harmless)


class DumpingTests(SynchronousTestCase):
    """L{reverseproxy.admin.config_dump}: the same as in one go."""

    def check(self, document: Any) -> None:
        config = loads(json.dumps(document), "a document").config
        whole = redact(config.model_dump(mode="json", exclude_defaults=True, warnings=False))
        self.assertEqual(at_once(config_dump.dump(config)), whole)
        self.assertEqual(json.loads(at_once(config_dump.encode(whole))), whole)

    def test_examples(self) -> None:
        examples = Path(__file__).parent.parent.parent / "examples"
        for path in sorted(examples.glob("*/*.json")):
            text = path.read_text()
            if '"servers"' in text and "examples/" not in text:  # which would have to be there
                with self.subTest(path=path.name):
                    self.check(json.loads(text))

    def test_secret_headers(self) -> None:
        """Those that routes add, remove or look for, in the whole and in the list of routes."""
        document = server()
        [host] = document["servers"][0]["routers"][0]["virtual_hosts"]
        header = {"header": {"key": "authorization", "value": "Basic secret-1"}}
        host["request_headers_to_add"] = [header]
        host["routers"][0]["route"]["request_headers_to_add"] = [header]
        host["routers"][0]["match"]["headers"] = [{"name": "x-api-key", "value": "secret-2"}]
        self.check(document)
        config = loads(json.dumps(document), "a document").config
        rules, _ = at_once(Routes(config).page("", 10))
        for shown in (at_once(config_dump.dump(config)), rules):
            text = json.dumps(shown)
            self.assertIn(REDACTED, text)
            self.assertNotIn("secret-", text)

    def test_secrets_anywhere(self) -> None:
        self.check(server(tunnel_config=STATIC))
        secret = [{"name": "a model", "secret": AdminCertificateConfig(name="CN=a")}]
        self.assertEqual(at_once(config_dump.dump(secret)), [{"name": "a model", "secret": "[redacted]"}])

    def test_many_rules_are_many_steps(self) -> None:
        document = server()
        [host] = document["servers"][0]["routers"][0]["virtual_hosts"]
        host["routers"] *= 200
        config = loads(json.dumps(document), "a document").config
        made = []

        def dump() -> Steps[None]:
            made.append((yield from config_dump.dump(config)))

        self.assertGreater(sum(1 for _ in dump()), 600)
        self.assertGreater(sum(1 for _ in config_dump.encode(made[0])), 20)
