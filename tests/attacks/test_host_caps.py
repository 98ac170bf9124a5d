"""Agents that join with as many connections as they can: each is limited, and others are served."""

from __future__ import annotations

from collections import Counter
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.testing import MemoryReactor, run
from tests.attacks.memory import CLIENTS, Dialled
from tests.integration import configs

SECRETS = {"good": "a token of the good one", "evil": "a token of another one"}
TOKENS = [{"agent": name, "token": token, "clusters": ["clientCluster"]} for name, token in SECRETS.items()]
GREED = 12
"""Connections that each greedy agent wants."""


class CapTests(SynchronousTestCase):
    def serve(self, streams: bool, announce: bool, greedy: list[str], **limits: int) -> Counter[str]:
        """
        Let a good agent join, and greedy ones over and over again.

        @param greedy: whose token each of these has.
        @return: how many requests who has answered.
        """
        reactor = self.reactor = MemoryReactor()
        tunnel: dict[str, Any] = {
            "mux": streams,
            "credential_policy": "static",
            "validators": {"static": {"tokens": TOKENS}},
            "max_joins_per_second": 0,
            **limits,
        }
        where = {"client": f"127.0.0.1:{CLIENTS}", "tunnel": "127.0.0.1:2047"}
        server = run(configs.server(**where, tunnel_config=tunnel), reactor)
        self.cluster: Any = server.clusters.get("clientCluster")
        self.join("good", "good", 2, streams, announce)
        self.advance(2.0)
        for index, token in enumerate(greedy):
            self.join(token, f"evil {index}", GREED, streams, announce)
        self.advance(12.0)
        answers: Counter[str] = Counter()
        for _ in range(16):
            client = Dialled(reactor)
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            self.advance(0.1)
            answers[client.take().partition(b"\r\n\r\n")[2].decode()] += 1
        return answers

    def join(self, token: str, name: str, connections: int, streams: bool, announce: bool) -> None:
        document = configs.agent(
            ["127.0.0.1:2047"],
            connections=connections,
            mux=streams,
            announce=announce,
            host_name=name,
            answer=name,
            credential_policy="static",
            credential_config={"token": SECRETS[token]},
        )
        run(document, self.reactor)

    def advance(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.1)):
            self.reactor.advance(0.1)

    def check(self, most: int, greedy: list[str], **limits: int) -> None:
        """
        @param most: how many hosts the greedy ones may have at the most.
        """
        for streams, announce in ((True, True), (False, True), (False, False)):
            with self.subTest(streams=streams, announce=announce):
                answers = self.serve(streams, announce, greedy, **limits)
                names = Counter(host.identity.claim for host in self.cluster.hosts.values())
                good = names.pop("good")
                self.assertEqual(good, 2)
                self.assertLessEqual(names.total(), most)
                self.assertGreater(names.total(), 0)
                self.assertGreater(answers["good"], 0)
                self.assertEqual(sum(answers.values()) - answers[""], 16)

    def test_one_agent(self) -> None:
        self.check(3, ["evil"], max_hosts_per_agent=3)

    def test_many_agents_of_one_token(self) -> None:
        """What they call themselves is theirs to choose."""
        self.check(4, ["evil"] * 4, max_hosts_per_credential=4)

    def test_one_address(self) -> None:
        """Here the good one is at the same address; it was there before."""
        self.check(5, ["evil"] * 3, max_hosts_per_address=7)
