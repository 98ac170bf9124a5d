"""The loader's reports of usual mistakes, and the time that many of them take."""

from __future__ import annotations

import contextlib
import copy
import gc
import json
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.config import loader
from reverseproxy.config.loader import load, loads
from reverseproxy.errors import ConfigError
from tests.config.documents import TUNNEL_SERVER, edited

NOT_JSON = (
    ('{\n  // a\n "servers": []}', "line 2, column 3: not JSON: JSON has no comments"),
    ('{"a": 1} /* b */', "line 1, column 10: not JSON: JSON has no comments"),
    ('# a\n{"servers": []}', "line 1, column 1: not JSON: JSON has no comments"),
    ('{"servers": [],\n}', "line 2, column 1: not JSON: a comma before }"),
    ('{"servers": [1, 2 ,]}', "line 1, column 20: not JSON: a comma before ]"),
    ("{'servers': []}", "line 1, column 2: not JSON: texts and keys are in double quotation marks, not in '"),
    ('{"a": \u2018b\u2019}', "line 1, column 7: not JSON: texts and keys are in double quotation marks"),
    ("{\u201ca\u201d: 1}", "line 1, column 2: not JSON: quotation marks are straight ones"),
    ('{"port": ${PORT}}', "line 1, column 10: not JSON: there are variables in texts of files only"),
    ("{servers: []}", 'line 1, column 2: not JSON: keys are in double quotation marks: "servers"'),
    ('{"a": True}', "line 1, column 7: not JSON: write true, not True"),
    ('{"a": None}', "line 1, column 7: not JSON: write null, not None"),
    ("servers:\n  - listeners: []\n", "this looks like YAML; call the file .yaml"),
    ("---\n# a\nservers: []\n", "this looks like YAML; call the file .yaml"),
    ('{"a": [1, 2', "line 1, column 12: not JSON: it ends too early"),
    ('{"a": 1 "b": 2}', "line 1, column 9: not JSON: expecting ',' delimiter"),
    ('{"a": @}', "line 1, column 7: not JSON: expecting value"),
)


def many(kind: str, count: int) -> dict[str, Any]:
    """A document in which the same is wrong again and again."""
    document = copy.deepcopy(TUNNEL_SERVER)
    clusters = [{"name": f"c{n}", "hosts": [{"address": "127.0.0.1:80"}]} for n in range(count)]
    rules = [{"match": {"prefix": f"/{n}"}, "route": {"cluster_name": f"c{n}"}} for n in range(count)]
    for n, (cluster, rule) in enumerate(zip(clusters, rules, strict=True)):
        if kind == "unknown":
            cluster[f"hots{n}"] = []
        elif kind == "missing":
            cluster["nam"] = cluster.pop("name")
        elif kind == "address":
            cluster["hosts"] = [{"address": "nowhere"}]
        elif kind == "route":
            rule["route"] = {"cluster_name": f"x{n}"}
    document["servers"][0]["routers"][0]["virtual_hosts"][0]["routers"] = rules
    document["cluster_manager"]["clusters"] = clusters
    return document


class _Calls:
    """Counts calls of functions, which unlike seconds are the same on every machine."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, frame: object, event: str, argument: object) -> None:
        self.count += event in ("call", "c_call")


def work(document: dict[str, Any]) -> int:
    """How many calls it takes to load a document, right or wrong."""
    text, calls = json.dumps(document), _Calls()
    before = sys.getprofile()
    sys.setprofile(calls)
    try:
        loads(text, "file")
    except ConfigError:
        pass
    finally:
        sys.setprofile(before)
    return calls.count


class SyntaxTests(SynchronousTestCase):
    def test_what_is_not_json(self) -> None:
        for text, wanted in NOT_JSON:
            error = self.assertRaises(ConfigError, loads, text, "file.json")
            self.assertIn(f"file.json: {wanted}" if wanted.startswith("line") else wanted, str(error), text)

    def test_nothing_is_guessed_within_texts(self) -> None:
        document = copy.deepcopy(TUNNEL_SERVER)
        document["servers"][0]["mosn_server_name"] = "// '${'  , } # True"
        self.assertEqual(loads(json.dumps(document), "file").warnings, ())

    def test_size(self) -> None:
        file = Path(self.mktemp())
        file.write_text(json.dumps(TUNNEL_SERVER))
        self.patch(loader, "MAX_SIZE", file.stat().st_size)
        load(str(file))
        self.patch(loader, "MAX_SIZE", file.stat().st_size - 1)
        self.assertIn("is larger than", str(self.assertRaises(ConfigError, load, str(file))))

    def test_line_ends_of_windows(self) -> None:
        file = Path(self.mktemp())
        file.write_bytes(b'{\r\n"servers": []\r\n,}')
        self.assertIn("line 3, column 2", str(self.assertRaises(ConfigError, load, str(file))))


class KeyTests(SynchronousTestCase):
    def test_misspelt_beside_missing(self) -> None:
        document = copy.deepcopy(TUNNEL_SERVER)
        listener = document["servers"][0]["listeners"][0]
        listener["adress"] = listener.pop("address")
        error = self.assertRaises(ConfigError, loads, json.dumps(document), "file")
        (problem,) = error.problems
        self.assertIn('there is an unknown key "adress", which was probably meant to be it', problem.message)
        self.assertEqual(
            [str(warning) for warning in error.warnings],
            ['file: servers[0].listeners[0].adress: unknown key, ignored; did you mean "address"?'],
        )

    def test_far_from_missing(self) -> None:
        document = copy.deepcopy(TUNNEL_SERVER)
        listener = document["servers"][0]["listeners"][0]
        listener["elsewhere"] = listener.pop("address")
        error = self.assertRaises(ConfigError, loads, json.dumps(document), "file")
        self.assertNotIn("elsewhere", str(error))

    def test_schema(self) -> None:
        document = {"$schema": "https://example.com/schema.json", **copy.deepcopy(TUNNEL_SERVER)}
        self.assertEqual(loads(json.dumps(document), "file").warnings, ())
        document["cluster_manager"]["$schema"] = ""
        self.assertEqual(len(loads(json.dumps(document), "file").warnings), 1)

    def test_variables(self) -> None:
        document = copy.deepcopy(TUNNEL_SERVER)
        document["servers"][0]["default_log_path"] = "${LOGS:-secret}/a.log"
        (warning,) = loads(json.dumps(document), "file").warnings
        self.assertEqual(warning.path, "servers[0].default_log_path")
        self.assertIn("${LOGS} is taken as it is written", warning.message)
        self.assertNotIn("secret", warning.message)

    def test_what_may_look_like_variables(self) -> None:
        document = copy.deepcopy(TUNNEL_SERVER)
        rule = document["servers"][0]["routers"][0]["virtual_hosts"][0]["routers"][0]
        rule["direct_response"] = {"status": 200, "body": "${a}"}
        del rule["route"]
        self.assertEqual(loads(json.dumps(document), "file").warnings, ())


class CollectorTests(SynchronousTestCase):
    def test_it_is_as_before(self) -> None:
        for text in (json.dumps(TUNNEL_SERVER), "{}", "{"):
            for set_, wanted in ((gc.disable, False), (gc.enable, True)):
                set_()
                with contextlib.suppress(ConfigError):
                    loads(text, "file")
                self.assertEqual(gc.isenabled(), wanted)


class WorkTests(SynchronousTestCase):
    """Twice as much takes twice as long, not four times."""

    def test_many_of_a_kind(self) -> None:
        for kind in ("right", "unknown", "missing", "address", "route"):
            once, twice = (work(many(kind, count)) for count in (300, 600))
            self.assertLess(twice / once, 2.5, kind)


class ProtocolOptionTests(SynchronousTestCase):
    """Options of protocols that nothing takes."""

    def warnings(self, protocol: str, xprotocols: dict[str, Any]) -> list[str]:
        place = "servers[0].listeners[0].filter_chains[0].filters[0].config"
        options = f"{place}.extend_config"
        changes = (f"{place}.downstream_protocol", protocol), (options, {"xprotocols": xprotocols})
        loaded = loads(json.dumps(edited(TUNNEL_SERVER, *changes)), "c.json")
        return [str(each).removeprefix(f"c.json: {options}.xprotocols.") for each in loaded.warnings]

    def test_protocols_that_are_not_spoken(self) -> None:
        options = {"max_frame_size": 4096}
        self.assertEqual(
            self.warnings("Http1", {"mine": options}),
            ['mine: has no effect: this filter does not speak "mine"'],
        )
        self.assertEqual(self.warnings("mine", {"mine": {"anything": True}}), [])

    def test_keys_that_are_not_known(self) -> None:
        options = {"max_frame_size": 4096, "enable_bolt_goaway": True}
        rest = "servers[0].routers[0]"
        for protocol, given, wanted in (
            ("bolt", options, []),
            ("bolt", {"x": 1}, ["bolt.x: unknown key, ignored"]),
            ("dubbo", options, ["dubbo.enable_bolt_goaway: unknown key, ignored"]),
        ):
            found = [each for each in self.warnings(protocol, {protocol: given}) if rest not in each]
            self.assertEqual(found, wanted)


class ContradictionTests(SynchronousTestCase):
    """What is an error is not said to be skipped, or taken as it is, as well."""

    def test_no_warning_where_there_is_an_error(self) -> None:
        cluster = "cluster_manager.clusters[0]"
        listener = "servers[0].listeners[0]"
        filters = f"{listener}.filter_chains[0].filters[0].config"
        for path, value in (
            (f"{cluster}.proxy_protocol", "v9"),
            (f"{filters}.sni_check", "sometimes"),
            (f"{filters}.extend_config", {"http1": {"x_forwarded": "yes"}}),
            (f"{listener}.address", "${NOWHERE}"),
            (f"{listener}.bind_port", "yes"),
        ):
            document = json.dumps(edited(TUNNEL_SERVER, (path, value)))
            error = self.assertRaises(ConfigError, loads, document, "c.json", environ={})
            self.assertEqual(len(error.problems), 1, error)
            self.assertTrue(error.problems[0].path.startswith(path), error)
            self.assertEqual(error.warnings, ())
