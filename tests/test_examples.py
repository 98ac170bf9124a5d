"""Every example is a configuration without errors and without warnings."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import reverseproxy
from reverseproxy.config.loader import load, loads

ROOT = Path(__file__).resolve().parent.parent


class ExampleTests(SynchronousTestCase):
    def test_examples(self) -> None:
        files = [
            file
            for file in sorted(ROOT.glob("examples/*/*"))
            if file.stem.partition("-")[0] in ("server", "agent") and file.suffix in (".json", ".yaml")
        ]
        self.assertGreaterEqual(len(files), 12)
        certs = Path(self.mktemp()).resolve()
        script = str(ROOT / "examples" / "make_certs.py")
        subprocess.run([sys.executable, script, str(certs)], check=True, stdout=subprocess.DEVNULL)
        tokens = Path(self.mktemp()).resolve()
        shutil.copytree(ROOT / "examples" / "tokens", tokens)
        for secret in tokens.iterdir():
            secret.chmod(0o600)
        for file in files:
            # relative paths are relative to the working directory, which is another one here
            text = file.read_text().replace("examples/certs", str(certs))
            text = text.replace('"examples/tokens', f'"{tokens}')
            loaded = loads(text, str(file), yaml=file.suffix == ".yaml")
            self.assertEqual([str(warning) for warning in loaded.warnings], [], file)
            self.assertEqual(len(loaded.config.agents), file.stem.startswith("agent"), file)

    def test_testing(self) -> None:
        """The example of the tutorial on tests passes."""
        file = str(ROOT / "examples" / "testing" / "test_tunnel.py")
        place = str(Path(self.mktemp()).resolve())
        command = [sys.executable, "-m", "twisted.trial", "--temp-directory", place, file]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_quickstart(self) -> None:
        loaded = load(str(Path(reverseproxy.__file__).parent / "services" / "quickstart.json"))
        self.assertEqual([str(warning) for warning in loaded.warnings], [])
        (agent,) = loaded.config.agents
        self.assertIn(agent.hosting_listener, [each.name for each in loaded.config.server.listeners])
