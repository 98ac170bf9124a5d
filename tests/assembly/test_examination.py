"""Tests for L{reverseproxy.assembly.examination}."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.assembly.examination import examine
from reverseproxy.config.loader import load, loads
from reverseproxy.errors import ConfigError
from reverseproxy.testing import MemoryReactor, run
from tests.config.documents import AGENT, CHAIN, CLUSTER, CONFIG, FILTER, LISTENER, TUNNEL_SERVER, edited

TUNNEL = "servers[0].listeners[1].filter_chains[0].filters[0].config"
BROKEN_TLS = {"status": True, "cert_chain": "junk.pem", "private_key": "junk.pem"}


def values(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values of a document."""
    items = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in items:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from values(value, (*path, key))


class ExaminationTests(SynchronousTestCase):
    def setUp(self) -> None:
        os.makedirs("files", exist_ok=True)
        self.file = str(Path(self.mktemp()).with_suffix(".json"))
        Path("junk.pem").write_text("-----BEGIN CERTIFICATE-----\nxx\n-----END CERTIFICATE-----\n")

    def problems(self, document: Any, strict: bool = False) -> tuple[list[str], list[str]]:
        """The places of all errors, and of all warnings."""
        Path(self.file).write_text(json.dumps(document))
        error = self.assertRaises(ConfigError, load, self.file)
        whole = examine(error, MemoryReactorClock(), Random(1), strict=strict)
        for problem in (*whole.problems, *whole.warnings):
            self.assertNotEqual(problem.file, "")
        self.assertEqual(self.flushLoggedErrors(), [])
        return [each.path for each in whole.problems], [each.path for each in whole.warnings]

    def test_loading_and_building_at_once(self) -> None:
        """Errors of values, of references and of files are told together, in the order of the document."""
        tokens = [{"agent": "a", "token": "x", "max_weight": 0}, 5]
        document = edited(
            TUNNEL_SERVER,
            (f"{LISTENER}.address", "nowhere"),
            (f"{CHAIN}.tls_context", BROKEN_TLS),
            (f"{FILTER}.config.downstream_protocol", "HTTP3"),
            (TUNNEL, {"credential_policy": "static", "validators": {"static": {"tokens": tokens}}}),
            (f"{CLUSTER}.connect_timeout", "soon"),
            (f"{CLUSTER}.hosts", [{"address": "127.0.0.1:1"}]),
            (f"{CLUSTER}.tls_context", {"status": True, "ca_cert": "junk.pem"}),
            ("admin", {"address": {"socket_address": {"port_value": 1}}, "tokens_file": "/none"}),
        )
        self.assertEqual(
            self.problems(document)[0],
            [
                f"{LISTENER}.address",
                f"{FILTER}.config.downstream_protocol",
                f"{CHAIN}.tls_context.cert_chain",
                f"{CHAIN}.tls_context.private_key",
                f"{TUNNEL}.validators.static.tokens[0].max_weight",
                f"{TUNNEL}.validators.static.tokens[1]",
                f"{CLUSTER}.connect_timeout",
                f"{CLUSTER}.tls_context.ca_cert",
                "admin.tokens_file",
            ],
        )

    def test_agents(self) -> None:
        """What an agent lacks is told, too, if its listener does not exist."""
        document = edited(
            AGENT,
            (f"{CONFIG}.hosting_listener", "other"),
            (f"{CONFIG}.credential_policy", "static"),
            (f"{CONFIG}.credential_config", {"file": "/none", "env": "X"}),
            (f"{CONFIG}.dynamic_server_list_config", {"dynamic_server_lister": "dns", "config": {"port": 0}}),
        )
        config = f"{CONFIG}.dynamic_server_list_config.config"
        self.assertEqual(
            self.problems(document)[0],
            [f"{CONFIG}.hosting_listener", f"{CONFIG}.credential_config", f"{config}.port", f"{config}.name"],
        )

    def test_what_may_come_later(self) -> None:
        """A missing credential is an error only where it is looked for."""
        document = edited(
            AGENT,
            (f"{CONFIG}.connection_num", "4"),
            (f"{CONFIG}.credential_policy", "static"),
            (f"{CONFIG}.credential_config", {"file": "/none"}),
        )
        place = f"{CONFIG}.credential_config"
        errors, warnings = self.problems(document)
        self.assertEqual(errors, [f"{CONFIG}.connection_num"])
        self.assertIn(place, warnings)
        self.assertEqual(self.problems(document, strict=True)[0], [f"{CONFIG}.connection_num", place])

    def test_what_follows_from_an_error_is_none(self) -> None:
        """Nothing is said to be missing that is there, but wrong."""
        for path, value, *more in (
            (f"{TUNNEL}", {"credential_policy": "static", "validators": {"static": 5}}, "validators.static"),
            (f"{TUNNEL}", {"credential_policy": "static", "validators": []}, "validators"),
            (
                f"{CHAIN}.tls_context",
                {**BROKEN_TLS, "cert_chain": 5, "private_key": 6},
                "cert_chain",
                "private_key",
            ),
            (f"{LISTENER}.filter_chains", [], ""),
            (LISTENER, {"address": 5}, "address"),
        ):
            expected = [f"{path}.{each}".rstrip(".") for each in more]
            found, _ = self.problems(edited(TUNNEL_SERVER, (path, value)))
            self.assertEqual([each for each in found if each in expected], expected)
            self.assertEqual([each for each in found if "credential_policy" in each], [])

    def test_places_of_the_document(self) -> None:
        """Places are those of the document: with its spelling, its files, and the numbers of its items."""
        directory = Path(self.mktemp())
        directory.mkdir()
        tls = {"Status": True, "CA_cert": "junk.pem"}
        for name in ("a", "b"):
            cluster = {"name": name, "Hosts": [{"address": "127.0.0.1:1"}], "TLS_context": tls}
            (directory / f"{name}.json").write_text(json.dumps(cluster))
        document = edited(
            TUNNEL_SERVER,
            ("cluster_manager", {"clusters_configs": str(directory)}),
            ("servers[0].listeners[0]", 5),
            (TUNNEL, {"Credential_Policy": "mine"}),
        )
        found, _ = self.problems(document)
        self.assertEqual(
            found,
            [
                "servers[0].listeners[0]",
                f"{TUNNEL}.Credential_Policy",
                "TLS_context.CA_cert",
                "TLS_context.CA_cert",
            ],
        )

    def test_files_of_a_directory(self) -> None:
        """What only building shows is told of the file that has it, at the start and on a reload."""
        directory = Path(self.mktemp())
        directory.mkdir()
        cluster = {"name": "edge", "hosts": [{"address": "127.0.0.1:1"}]}
        file = directory / "edge.json"
        file.write_text(json.dumps(cluster))
        document = edited(TUNNEL_SERVER, ("cluster_manager", {"clusters_configs": str(directory)}))
        service = run(document, MemoryReactor())
        self.addCleanup(service.stopService)
        file.write_text(json.dumps({**cluster, "tls_context": {"status": True, "ca_cert": "junk.pem"}}))
        with self.assertRaises(ConfigError) as raised:
            run(document, MemoryReactor())
        service.read_from(lambda: loads(json.dumps(document), "c.json"))
        report = self.successResultOf(service.reload())
        for problems in (raised.exception.problems, report.problems):
            found = [(each.file, each.path) for each in problems]
            self.assertEqual(found, [(str(file), "tls_context.ca_cert")])

    def test_one_of_several_contexts(self) -> None:
        """Contexts that are off count where the others stand."""
        contexts = [{"status": False}, {"status": True, "cert_chain": "junk.pem", "private_key": "junk.pem"}]
        place = f"{CHAIN}.tls_context_set"
        document = edited(TUNNEL_SERVER, (place, contexts))
        with self.assertRaises(ConfigError) as raised:
            run(document, MemoryReactor())
        found = [each.path for each in raised.exception.problems]
        self.assertEqual(found, [f"{place}[1].cert_chain", f"{place}[1].private_key"])

    def test_any_value_may_be_wrong(self) -> None:
        """Whatever is wrong, the rest can be built, and nothing fails on our side."""
        extended = edited(
            TUNNEL_SERVER,
            (f"{CHAIN}.tls_context", BROKEN_TLS),
            (TUNNEL, {"credential_policy": "static", "validators": {"static": {"tokens": []}}}),
            (f"{CLUSTER}.hosts", [{"address": "127.0.0.1:1"}]),
            ("admin", {"address": {"socket_address": {"port_value": 1}}}),
            ("extends", AGENT["extends"]),
            ("servers[0].listeners[2]", AGENT["servers"][0]["listeners"][0]),
            (
                "fleet",
                {
                    "server_id": "a",
                    "etcd": {"endpoints": ["127.0.0.1:2379"]},
                    "peers": {"address": "127.0.0.1:1"},
                },
            ),
        )
        for path in values(extended):
            for wrong in (5, {}):
                document = copy.deepcopy(extended)
                at = document
                for step in path[:-1]:
                    at = at[step]
                at[path[-1]] = wrong
                try:
                    loads(json.dumps(document), self.file)
                except ConfigError as error:
                    examine(error, MemoryReactorClock(), Random(1))
                self.assertEqual(self.flushLoggedErrors(), [], (path, wrong))

    def test_syntax(self) -> None:
        """Nothing can be built of what can't be parsed."""
        error = self.assertRaises(ConfigError, loads, "{", self.file)
        self.assertIs(examine(error, MemoryReactorClock(), Random(1)), error)
