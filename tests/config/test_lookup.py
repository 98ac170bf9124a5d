"""Tests for L{reverseproxy.config.lookup}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.config.lookup import everything, look_up
from reverseproxy.config.reference import sections


class LookUpTests(SynchronousTestCase):
    def test_every_key_is_found(self) -> None:
        for section in sections():
            for entry in section.entries:
                for name in entry.names:
                    found, _ = look_up(name)
                    self.assertTrue(any(section.title in text for text in found), (section.title, name))

    def test_key_of_an_object(self) -> None:
        (text,), near = look_up("TUNNEL_AGENT.Weight")
        self.assertIn("from 1 to 128", text)
        self.assertEqual(near, [])
        self.assertGreater(len(look_up("weight")[0]), 1)

    def test_path_of_a_message(self) -> None:
        """As problems name places."""
        (text,), _ = look_up("servers[0].listeners[2].bind_port")
        self.assertTrue(text.startswith("listeners:\n  bind_port (boolean"), text)

    def test_object(self) -> None:
        (text,), _ = look_up("tunnel_agent")
        for key in ("connection_num", "mux_ping_timeout"):
            self.assertIn(f"\n{key} (", text)

    def test_unknown(self) -> None:
        self.assertEqual(look_up("hosting_listner"), ([], ["hosting_listener", "HostingListener"]))
        self.assertEqual(look_up("tunnel_agent.bind_port")[0], [])
        self.assertEqual(look_up("")[0], [])

    def test_no_markup(self) -> None:
        text = everything()
        for mark in ("``", "**", ".. _"):
            self.assertNotIn(mark, text)
