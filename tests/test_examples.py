"""Every example is a configuration without errors and without warnings."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import reverseproxy
from reverseproxy.config.loader import load

ROOT = Path(__file__).resolve().parent.parent


class ExampleTests(SynchronousTestCase):
    def test_examples(self) -> None:
        files = [*ROOT.glob("examples/*/server.*"), *ROOT.glob("examples/*/agent.*")]
        self.assertGreaterEqual(len(files), 12)
        for file in files:
            loaded = load(str(file))
            self.assertEqual([str(warning) for warning in loaded.warnings], [], file)
            self.assertEqual(len(loaded.config.agents), file.stem == "agent", file)

    def test_quickstart(self) -> None:
        loaded = load(str(Path(reverseproxy.__file__).with_name("quickstart.json")))
        self.assertEqual([str(warning) for warning in loaded.warnings], [])
        (agent,) = loaded.config.agents
        self.assertIn(agent.hosting_listener, [each.name for each in loaded.config.server.listeners])
