"""The units for systemd, checked by systemd itself, where it is installed, and by this project."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import reverseproxy
from reverseproxy.tap import Options

UNITS = Path(reverseproxy.__file__).resolve().parent.parent / "examples" / "systemd"


class UnitTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.service = self.read("reverseproxy.service")["Service"]

    def read(self, name: str) -> configparser.ConfigParser:
        found = configparser.ConfigParser(strict=False, interpolation=None)
        found.optionxform = str  # type: ignore[assignment, method-assign]
        found.read(UNITS / name)
        return found

    def test_the_template_is_the_same(self) -> None:
        """But for what has the instance's name, and for secrets, which not every configuration has."""
        template = dict(self.read("reverseproxy@.service")["Service"])
        single = {name: value for name, value in self.service.items() if name != "LoadCredential"}
        for name in ("RuntimeDirectory", "LogsDirectory"):
            single[name] += "-%i"
        for name in ("ExecStartPre", "ExecStart"):
            single[name] = (
                single[name]
                .replace("server.json", "%i.json")
                .replace("/run/reverseproxy/", "/run/reverseproxy-%i/")
            )
        self.assertEqual(template, single)

    def test_the_limits_fit(self) -> None:
        """Those of systemd are longer than ours."""
        self.assertGreater(int(self.service["TimeoutStopSec"]), 30 + 30 + 2 * 2)

    def test_the_command_line_is_one(self) -> None:
        words = self.service["ExecStart"].split()
        known = {f"--{name}" for name, *_ in Options.optParameters}
        self.assertEqual([word for word in words[4:] if word.startswith("--") and word not in known], [])
        self.assertIn(f"/run/{self.service['RuntimeDirectory']}/", self.service["ExecStart"])

    def test_what_systemd_says(self) -> None:
        analyze = shutil.which("systemd-analyze")
        directory = Path(self.mktemp())
        directory.mkdir()
        for unit in [*UNITS.glob("*.service"), *UNITS.glob("*.socket")]:
            # The program is not installed here.
            text = unit.read_text().replace("/opt/reverseproxy/bin/twistd", "/bin/true")
            (directory / unit.name).write_text(text)
        if analyze is None:
            # Nobody to ask: what can be seen without.
            self.assertEqual(self.service["Type"], "notify")
            return
        done = subprocess.run(
            [analyze, "verify", *(str(each) for each in directory.iterdir())],
            env={**os.environ, "SYSTEMD_UNIT_PATH": f"{directory}:", "SYSTEMD_LOG_LEVEL": "notice"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        ours = [line for line in done.stderr.splitlines() if "reverseproxy" in line]
        self.assertEqual(ours, [], done.stderr)
