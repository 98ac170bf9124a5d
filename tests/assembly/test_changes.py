"""Tests for L{reverseproxy.assembly.changes}."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.assembly.changes import Changes, Delta, compare, pair_agents
from reverseproxy.config.models import TunnelAgentConfig
from tests.config.documents import AGENT, CLUSTER, CONFIG, GONE, LISTENER, RULE, TUNNEL_SERVER, edited, parse

HOST = {"address": "127.0.0.1:8080"}


def changes(document: Any, *edits: tuple[str, Any]) -> Changes:
    return compare(parse(document).config, parse(edited(document, *edits)).config)


class CompareTests(SynchronousTestCase):
    def test_nothing(self) -> None:
        for document in (TUNNEL_SERVER, AGENT):
            found = changes(document)
            self.assertFalse(found)
            self.assertEqual(str(found), "no changes")

    def test_names(self) -> None:
        found = changes(
            TUNNEL_SERVER,
            (f"{RULE}.route.cluster_name", "other"),
            (f"{CLUSTER}.name", "other"),
            (f"{LISTENER}.connection_idle_timeout", "5s"),
        )
        self.assertEqual(found.clusters, Delta(("other",), (), ("edge",)))
        self.assertEqual(found.routers, Delta((), ("web",), ()))
        self.assertEqual(found.listeners, Delta((), ("clients",), ()))
        self.assertEqual(str(found), "listeners: 1 changed; clusters: 1 added, 1 removed; routers: 1 changed")
        self.assertEqual(
            found.to_json()["clusters"], {"added": ["other"], "changed": [], "removed": ["edge"]}
        )

    def test_what_counts_at_once(self) -> None:
        found = changes(
            TUNNEL_SERVER, ("servers[0].graceful_timeout", "5s"), ("servers[0].default_log_level", "DEBUG")
        )
        self.assertEqual(found.settings, ("servers[0].default_log_level", "servers[0].graceful_timeout"))
        self.assertEqual(found.restart, {})

    def test_what_needs_a_restart(self) -> None:
        found = changes(
            TUNNEL_SERVER, ("servers[0].processor", 2), ("servers[0].default_log_path", "/tmp/log")
        )
        self.assertEqual(list(found.restart), ["servers[0].default_log_path", "servers[0].processor"])
        self.assertEqual(str(found), "no changes without a restart")
        self.assertTrue(found)

    def test_every_key_that_is_acted_on_is_seen(self) -> None:
        """One that nobody knows of needs a restart, rather than to be passed over."""
        old = parse(TUNNEL_SERVER).config
        server = old.server.model_copy(update={"max_unfinished_size": 1, "processor": "auto"})
        found = compare(old, old.model_copy(update={"servers": (server,)}))
        self.assertEqual(
            (found.settings, list(found.restart)),
            (("servers[0].max_unfinished_size",), ["servers[0].processor"]),
        )

    def test_what_is_not_acted_on_is_no_change(self) -> None:
        self.assertFalse(changes(TUNNEL_SERVER, ("pid", "/run/x.pid")))

    def test_a_router_by_another_way(self) -> None:
        """It is the same, wherever it stands."""
        router = TUNNEL_SERVER["servers"][0]["routers"][0]
        found = changes(
            TUNNEL_SERVER,
            ("servers[0].routers", []),
            (f"{LISTENER}.filter_chains[0].filters[1]", {"type": "connection_manager", "config": router}),
        )
        self.assertFalse(found.routers)

    def test_admin(self) -> None:
        admin = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 9000}}}
        self.assertTrue(changes(TUNNEL_SERVER, ("admin", admin)).admin)


class AgentTests(SynchronousTestCase):
    def agent(self, **keys: Any) -> TunnelAgentConfig:
        return TunnelAgentConfig.model_validate(
            {"enable": True, "cluster": "edge", "hosting_listener": "hosted", "connection_num": 1, **keys}
        )

    def test_equal_ones_are_the_same_in_any_order(self) -> None:
        one, two = self.agent(host_name="one"), self.agent(host_name="two")
        self.assertEqual(pair_agents([one, two], [two, one]), ({0: 1, 1: 0}, {}, (), ()))

    def test_one_of_two_has_changed(self) -> None:
        one, two, three = (self.agent(host_name=name) for name in ("one", "two", "three"))
        self.assertEqual(pair_agents([one, two], [three, two]), ({1: 1}, {0: 0}, (), ()))

    def test_come_and_gone(self) -> None:
        one, other = self.agent(), self.agent(cluster="other")
        self.assertEqual(pair_agents([one], [other]), ({}, {}, (0,), (0,)))
        self.assertEqual(pair_agents([], [one, one]), ({}, {}, (0, 1), ()))

    def test_told(self) -> None:
        found = changes(AGENT, (f"{CONFIG}.weight", 7))
        self.assertEqual(found.agents, Delta((), ("edge by hosted",), ()))
        found = changes(AGENT, ("extends", []))
        self.assertEqual(found.agents.removed, ("edge by hosted",))
        self.assertFalse(changes(edited(AGENT, (f"{CONFIG}.enable", False)), ("extends", GONE)).agents)
