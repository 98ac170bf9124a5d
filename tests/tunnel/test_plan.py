"""Tests for L{reverseproxy.tunnel.agent.plan}."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.config.models import TunnelAgentConfig
from reverseproxy.tunnel.agent.plan import AgentPlan, new_agent_id
from reverseproxy.wire.mosn.extensions import YAMUX, Announcement


class Credentials:
    """A source that fails."""

    def fetch(self, cluster: str) -> Deferred[str]:
        raise ValueError(cluster)


def plan(credentials: Any = None, **config: Any) -> AgentPlan:
    options: Any = {"cluster": "blue", "hosting_listener": "l", "enable": True, **config}
    sink: Any = None
    return AgentPlan(
        TunnelAgentConfig(**options), sink, Clock(), Random(1), credentials, None, "agent-1", speaks=("http",)
    )


class PlanTests(SynchronousTestCase):
    def test_init(self) -> None:
        """What a connection says of itself, and what only to a server of ours."""
        init = plan(weight=7, host_name="edge", credential_policy="static").make_init("secret", "10.0.0.1:5")
        self.assertEqual(
            (init.cluster_name, init.weight, init.host_name, init.credential_policy, init.credential),
            ("blue", 7, "edge", "static", "secret"),
        )
        announcement = Announcement.from_extra(init.extra)
        assert announcement is not None
        self.assertEqual((announcement.agent, announcement.local_address), ("agent-1", "10.0.0.1:5"))
        self.assertEqual(
            (announcement.mux, announcement.moves, announcement.speaks), ((YAMUX,), True, ("http",))
        )
        self.assertIsNone(plan(announce=False).make_init("", "10.0.0.1:5").extra)

    def test_without_streams(self) -> None:
        """They take both: that the agent announces itself, and that they are wanted."""
        for options in ({"mux": False}, {"announce": False}):
            self.assertIsNone(plan(**options).streams)
        announcement = Announcement.from_extra(plan(mux=False).make_init("", "10.0.0.1:5").extra)
        assert announcement is not None
        self.assertEqual((announcement.mux, announcement.window, announcement.moves), ((), 0, False))

    def test_credentials(self) -> None:
        """A source that raises has failed like one that fails later."""
        self.assertEqual(self.successResultOf(plan().fetch_credential()), "")
        self.failureResultOf(plan(Credentials()).fetch_credential(), ValueError)

    def test_ids(self) -> None:
        self.assertEqual(len({new_agent_id() for _ in range(100)}), 100)
