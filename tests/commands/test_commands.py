"""Every command line of the README and the documentation is run, word for word, or is tested elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.commands.collect import ROOT, commands
from tests.commands.play import SCENES

NAMESPACE = ("unshare", "--user", "--map-root-user", "--net")

_PACKAGE = "what it installs is tested by tests.test_packaging"
_BY_HAND = "it takes a minute and an index of packages, and was tried by hand"
_IMAGES = "it takes a base image, and was tried by hand with buildah"
_SUITE = "it runs what this is a part of"
_ADMIN = "the paths are asked in tests.admin; the ports and tokens are somebody's"
_PROCESS = "run in tests.integration.test_process and test_runners, with other files"
_ASKED = "run in tests.integration.test_asking, with an agent that is there"
_TAKEOVER = "run in tests.change.test_upgrade, with another path"
_EXPOSED = "run in tests.integration.test_exposing, with a fingerprint that is one"

_CLONE = "python3 -m venv .venv && .venv/bin/pip install"

ELSEWHERE = {
    f"{_CLONE} . && .venv/bin/twistd -n reverseproxy --quickstart": _PACKAGE,
    f"{_CLONE} '.[test]' && .venv/bin/python -m twisted.trial -j2 tests": _SUITE,
    "python3 benchmarks/run.py": "it takes twelve minutes; its parts are tested in tests.benchmarks",
    ".venv/bin/pip install --config-settings editable_mode=compat -e '.[test]'": _PACKAGE,
    ".ci/run": _SUITE,
    "pipx install .": _BY_HAND,
    "sh examples/debian/build.sh": _BY_HAND,
    "twistd reverseproxy --check --config FILE": _PROCESS,
    "twistd -n --pidfile= reverseproxy --config server.json --takeover /run/reverseproxy/takeover": _TAKEOVER,
}

BEGINNINGS = {
    "curl ": _ADMIN,
    "reverseproxy status ": _ASKED,
    "reverseproxy ready ": _ASKED,
    "reverseproxy agents ": _ASKED,
    "reverseproxy drain ": _ASKED,
    "reverseproxy exclusions ": _ASKED,
    "reverseproxy expose ": _EXPOSED,
    ".venv/bin/python -m twisted.trial tests.": _SUITE,
    ".venv/bin/python -m tests.": _SUITE,
    "python -m tests.": _SUITE,
    "podman ": _IMAGES,
    "etcdctl ": "it takes an etcd with users, which tests.fleet.test_etcd makes by its API",
}
"""How lines begin of which there are several."""

FILES = ("/etc/", "systemctl", "journalctl", "apt")
"""What lines have in them that are for a machine on which this is installed."""


class CommandTests(SynchronousTestCase):
    def test_every_line_is_known(self) -> None:
        played = {step.line for scene in SCENES for step in scene}
        unknown = [
            f"{page}: {line}"
            for line, page in commands().items()
            if line not in played
            and line not in ELSEWHERE
            and not any(line.startswith(begin) for begin in BEGINNINGS)
            and not any(part in line for part in FILES)
        ]
        self.assertEqual(unknown, [], "play these in tests/commands/play.py, or say where they are tested")

    def test_nothing_is_played_that_nobody_reads(self) -> None:
        lines = commands()
        self.assertGreater(len(lines), 40)
        self.assertEqual([step.line for scene in SCENES for step in scene if step.line not in lines], [])
        self.assertEqual([line for line in ELSEWHERE if line not in lines], [])

    def test_they_do_what_they_should(self) -> None:
        directory = Path(self.mktemp()).absolute()
        directory.mkdir(parents=True)
        command = [sys.executable, "-m", "tests.commands.play", str(directory)]
        if not subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode:
            # The ports of the examples may be somebody's here.
            command = [*NAMESPACE, *command]
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=400, check=False
        )
        *failed, last = done.stdout.splitlines() or [""]
        self.assertEqual(last, "played", done.stderr)
        for each in failed:
            self.fail("\n".join(json.loads(each).values()))
