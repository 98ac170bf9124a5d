"""
Both ends of a tunnel under reactors that are not epoll's.

Their connections are Twisted's own, as on systems without epoll: kqueue's reactor, which macOS and
the BSDs have, is one of those whose connections are the same as poll's and select's.
"""

from __future__ import annotations

import json
from typing import Any

from tests.integration.clients import fetch, gather
from tests.integration.configs import quick_agent, server
from tests.integration.harness import SERVING, TWISTD, IntegrationTestCase, ReverseProxy

REACTORS = ("select", "poll", "asyncio")


def both_ends(tunnel: int) -> dict[str, Any]:
    """A server, and its agent, in one process."""
    document, agent = server(tunnel=f"127.0.0.1:{tunnel}"), quick_agent(tunnel)
    for key in ("listeners", "routers"):
        document["servers"][0][key] += agent["servers"][0][key]
    document["cluster_manager"]["clusters"] += agent["cluster_manager"]["clusters"]
    return {**document, "extends": agent["extends"]}


class ReactorTests(IntegrationTestCase):
    async def test_both_ends(self) -> None:
        """Requests through a tunnel, over streams; and an orderly end."""
        started = {name: self.start(name) for name in REACTORS}
        for name, proxy in started.items():
            await proxy.counted(SERVING, 1)
            port = await proxy.port("clientListener")
            answers = await gather([fetch(port) for _ in range(8)])
            self.assertEqual({answer.body for answer in answers}, {b"answered by the agent"}, name)
        for name, proxy in started.items():
            self.assertEqual(await proxy.stop(), 0, name)

    def start(self, name: str) -> ReverseProxy:
        file = self.directory / f"{name}.json"
        file.write_text(json.dumps(both_ends(self.reserve_port())))
        child = ReverseProxy(name)
        options = ("--nodaemon", "--pidfile=", "--reactor", name, "reverseproxy", "--log-format", "json")
        self.spawn(child, "-c", TWISTD, *options, "--config", str(file))
        return child
