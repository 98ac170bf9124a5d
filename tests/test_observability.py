"""The commands and queries in C{docs/observability.rst} work word for word."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.config.loader import loads
from reverseproxy.identity import AgentIdentity
from reverseproxy.proxy.access import AccessRecord, RequestDetails
from reverseproxy.proxy.access.formats import formatter_of
from reverseproxy.proxy.access.record import UpstreamDetails
from reverseproxy.proxy.flags import ResponseFlag
from tests.config.documents import TUNNEL_SERVER

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = (DOCS / "observability.rst").read_text()
LOG = [
    {"time": "2026-11-29T11:00:00.000Z", "level": "INFO", "namespace": "app", "message": "stopped"},
    {"time": "2026-11-29T11:00:01.000Z", "level": "WARN", "namespace": "tunnel", "message": "that's odd"},
]
EDGE = AgentIdentity(policy="static", name="a")
REQUESTS = [
    AccessRecord(
        "Http1",
        status=200,
        request=RequestDetails(path="/"),
        upstream=UpstreamDetails(agent=EDGE),
        duration=0.002,
    ),
    AccessRecord(
        "Http1",
        status=200,
        request=RequestDetails(path="/"),
        upstream=UpstreamDetails(agent=EDGE),
        duration=0.25,
    ),
    AccessRecord(
        "Http1",
        status=503,
        request=RequestDetails(path="/x"),
        flags=ResponseFlag.UH,
        flag="cluster edge has no host",
        start=1e9,
    ),
]


class ExampleTests(SynchronousTestCase):
    def test_configurations(self) -> None:
        """Each of its pieces makes a configuration that can be used, without a warning."""
        pieces = re.findall(r"code-block:: json\n\n((?:   .*\n|\n)+)", PAGE)
        self.assertEqual(len(pieces), 2)
        for piece in pieces:
            loaded = loads(json.dumps(TUNNEL_SERVER | json.loads(piece)), "c.json")
            self.assertEqual(loaded.warnings, ())

    def test_links(self) -> None:
        """The files that can be downloaded are there, and so are the benchmarks."""
        for file in re.findall(r":download:`[^<`]+<([^>]+)>`", PAGE):
            self.assertTrue((DOCS / file).is_file(), file)
        for module in re.findall(r"``(?:python -m )?benchmarks[./](\w+)", PAGE):
            self.assertTrue((DOCS.parent / "benchmarks" / f"{module}.py").is_file(), module)


if shutil.which("jq"):

    class JqTests(SynchronousTestCase):
        """Where it is installed: C{.ci/run} says where it is not."""

        def test_recipes(self) -> None:
            directory = Path(self.mktemp())
            directory.mkdir()
            (directory / "reverseproxy.log").write_text("".join(f"{json.dumps(line)}\n" for line in LOG))
            write, _ = formatter_of("json", "web")
            (directory / "access.log").write_text("".join(map(write, REQUESTS)))
            recipes = re.findall(r"^   \$ (jq .*)$", PAGE, re.MULTILINE)
            said = [subprocess.check_output(["sh", "-c", each], cwd=directory, text=True) for each in recipes]
            self.assertEqual(
                said,
                [
                    "2026-11-29T11:00:01.000Z WARN that's odd\n",
                    "2001-09-09T01:46:40.000Z\tUH\t503\t-\t/x\tcluster edge has no host\n",
                    "-\t1\t0\ntoken:a\t2\t0.25\n",
                ],
            )
