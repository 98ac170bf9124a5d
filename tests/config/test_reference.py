from __future__ import annotations

from itertools import pairwise

from docutils.core import publish_doctree
from docutils.nodes import system_message
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.config._base import keys_of
from reverseproxy.config.reference import generate
from tests.config.test_models import all_models


class ReferenceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.text = generate()

    def test_every_key(self) -> None:
        """Each key has an entry of its own, with its description and its warning."""
        for model in all_models():
            for _, field, info in keys_of(model):
                self.assertIn(f"\n``{info.name}`` (", self.text)
                self.assertIn((field.description or "").replace("*", "\\*"), self.text)
                if not info.acted:
                    kind = "error" if info.protects else "note" if info.quiet else "warning"
                    self.assertIn(f"*The {kind}:* {info.why}.", self.text)

    def test_entries(self) -> None:
        """Types, defaults and markers, by example."""
        for entry in (
            '``reconnect_base_duration`` (duration, default ``"3s"``)\n',
            "``weight`` (whole number, default ``10``, **ours**)\n",
            "``enable`` (boolean, default ``false``)\n",
            "``server_list`` (list of texts)\n",
            "   Other names: ``ConnectRetryTimes``.\n",
            "   Other names: ``ReconnectBaseDuration``; as a whole number of milliseconds "
            "``reconnect_base_duration_ms``, ``ReconnectBaseDurationMs``.\n",
            "``address`` (text, **required**)\n",
            "``connection_idle_timeout`` (duration)\n",
            "``idle_timeout`` (nanoseconds or duration)\n",
            "``spec`` (any value, **not acted on**)\n",
            "``subset_selectors`` (list of lists of texts)\n",
            "``active_request_bias`` (number, default ``1.0``)\n",
            "``processor`` (number or text, default ``1``)\n",
            "``alpn`` (text)\n",
            "``validators`` (object, **ours**)\n",
            '``x_forwarded`` (text, default ``"off"``, **ours**)\n',
            "   See ``proxy``, ``tcp_proxy``, ``tunnel``, ``connection_manager``.\n",
            "   Choices: ``SIMPLE``, ``STATIC``, ``DYNAMIC``, ``EDS``, ``STRICT_DNS``.\n",
            "   ``SIMPLE`` stands in for any other, with a warning.\n",
            "   Known to MOSN and not acted on: ``ORIGINAL_DST`` (there is no transparent proxying).\n",
            "   Skipped with a warning: ``fault_inject`` (nothing is delayed); ",
            "   Any other is an error without ``ignore_unsupported``.\n",
            '   Other names: ``"max_entity_size "``.\n',
            '   There is none for ``"Auto"``, ``"Http1"``, ``"Http2"``, ``"X"``, ``"bolt"``, ``"boltv2"``, '
            '``"dubbo"``.\n',
            "It is the value of ``config`` in ``extends`` of type ``tunnel_agent``.\n",
        ):
            self.assertIn(entry, self.text)

    def test_markup(self) -> None:
        """It is proper reStructuredText."""
        tree = publish_doctree(self.text, settings_overrides={"report_level": 5, "halt_level": 5})
        self.assertEqual([message.astext() for message in tree.findall(system_message)], [])

    def test_fields_of_docstrings_are_left_out(self) -> None:
        for field in ("@ivar", "@cvar", "@param"):
            self.assertNotIn(field, generate())

    def test_titles_differ(self) -> None:
        lines = self.text.splitlines()
        titles = [title for title, line in pairwise(lines) if line.startswith("~~~")]
        self.assertEqual(len(titles), len(set(titles)))
        self.assertEqual(len(titles), len(all_models()))
