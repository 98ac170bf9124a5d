"""
Agents end under load, one as it is asked to and one killed: real processes, all protocols at once.

What an agent and its service have is finished when the agent is asked to end, and
lost when it is killed; nothing else is lost.
"""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.task import deferLater

from tests.faults import test_service_death
from tests.faults.test_service_death import PROTOCOLS, agent_config
from tests.integration.clients import gather

DELAY = 0.03
"""Seconds that services take: much longer than all the ways to and from them."""


class AgentEndTests(test_service_death.Life):
    def lost(self) -> dict[str, int]:
        return {kind: len(self.failures(kind)) for kind in PROTOCOLS}

    async def end(self, mux: bool) -> None:
        cloud = await self.start(mux)
        for service in (*self.ones.values(), *self.twos.values()):
            service.delay = DELAY
        asked, killed = self.agents
        self.assertEqual(await asked.stop(), 0)
        await self.until_all(lambda counts: counts[b"two"] > 3)
        self.assertEqual({kind: self.failures(kind) for kind in PROTOCOLS if self.failures(kind)}, {})
        mark = cloud.mark()
        config = agent_config(await cloud.port("tunnelListener"), self.ones, mux, self.connections)
        self.run_proxy(config, "agent")
        await cloud.counted(" joined with weight ", self.connections * len(PROTOCOLS), mark)
        await self.until_all(lambda counts: counts[b"one"] > 1 and counts[b"two"] > 1)
        killed.signal("KILL")
        await deferLater(reactor, 1.0)
        await self.until_all(lambda counts: counts[b"one"] > 3)
        await gather([each.stop() for clients in self.clients.values() for each in clients])
        # What the service has had, and nobody has got an answer to.
        had = {kind: self.twos[kind].had - self.counts(kind)[b"two"] for kind in PROTOCOLS}
        print(f"killed: {self.lost()} requests lost; {had} were with the service")  # noqa: T201
        # Others were in the agent, which nobody can know. No client has lost a second one.
        for kind, number in self.lost().items():
            self.assertLessEqual(number, len(self.clients[kind]), self.failures(kind))

    async def test_streams(self) -> None:
        await self.end(True)

    async def test_plain(self) -> None:
        self.connections = 3
        await self.end(False)
